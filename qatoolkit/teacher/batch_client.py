"""BatchTeacher: a teacher that uses a Batch API, for half the price, with answers that may take a day.

A `BatchTeacher` is a `Teacher` that sends requests in files instead of one by one (OpenAI's Batch API, which other
providers and servers also offer). Requests without an answer in the ledger collect until no row can continue; then all
are sent together. Submitted requests are recorded in the ledger (`batch_jobs.OpenRequests`) before the server starts on
them, so a client that was killed resumes its batches at the next call and pays for nothing twice.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import aiohttp
import pandas as pd

from qatoolkit.teacher.batch_jobs import ENDED, BatchAPI, BatchRefused, OpenRequests, Result, make_files, read_lines
from qatoolkit.teacher.calls import Call, Job, Request, to_table
from qatoolkit.teacher.client import Teacher
from qatoolkit.teacher.completions import ANSWERED, Reply, Response, read_completion
from qatoolkit.teacher.event_loop import gather_all
from qatoolkit.teacher.leases import POLL_SECONDS
from qatoolkit.teacher.limits import TeacherError
from qatoolkit.teacher.transport import open_session, remedy_of

__all__ = ["BatchTeacher"]

DISCOUNT = 0.5  # price of a batch, as a share of the list price
POLL = 60.0  # longest time in seconds between two checks of a batch; the first ones come sooner
FILE_LIMITS = 50_000, 200_000_000  # requests and bytes in an input file
CHUNK = 500  # lines of an output file per commit


class Waiting(NamedTuple):
    """A request and the future for its result."""

    request: Request
    result: asyncio.Future[Result]


class Submission(NamedTuple):
    """An input file, its batch if it was just created, and the requests of this call in it, by key."""

    file: str
    batch: str | None
    waiting: dict[str, Waiting]


class BatchTeacher(Teacher):
    """A `Teacher` that uses `/v1/files` and `/v1/batches`; takes the arguments of `Teacher` except `client`.

    `log` receives a line when the state of a batch changes. `attempts` counts submissions of one request; limits on
    requests in flight and on rates do not apply. With a budget, BudgetError is raised before anything is sent if the
    requests, together with those still open, might exceed it.
    """

    def __init__(self, model: str, *, log: Callable[[str], Any] = print, **options: Any):
        if options.get("client") is not None:
            raise ValueError("BatchTeacher takes no client: pass endpoint=Endpoint(base_url=..., key_env=...)")
        super().__init__(model, **options)
        self._log = lambda text: log(self.endpoint.redact(text))
        self._open = OpenRequests(self.ledger, self.endpoint.name)

    _drains = False  # submitted requests are picked up again at the next call

    def forget(self, batch: str) -> None:
        """Abandon a batch: its requests will be submitted, and paid for, again."""
        self._open.forget(batch)

    async def _ask(self, call: Call) -> pd.DataFrame:
        waiting: dict[str, Waiting] = {}

        async def answer(job: Job) -> None:
            index, _, sample, messages = job
            call.put(index, await self._answer(waiting, job, call.parse, self._request(messages, sample)))

        # A file of 200 MB may take long, so only each read has a timeout.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self.timeout, sock_read=self.timeout)
        async with open_session(self.endpoint, timeout) as session:
            tries = {"attempts": self.attempts, "backoff": self._backoff, "patience": 20 * POLL}
            api = BatchAPI(session, self.endpoint, **tries)
            await gather_all([self._serve(api, call, waiting), *map(answer, call.jobs())])
        return to_table(call.rows)

    async def _known(self, key: str) -> Reply | None:
        stored = self.ledger.get([key])  # leases are taken for all requests of a file at once
        return read_completion(stored[key]) if stored else None

    async def _send(self, waiting: dict[str, Waiting], request: Request, tally) -> Reply:
        """Submit a request until it is answered, out of attempts, or missing from two batches."""
        failed = missing = 0
        while True:
            waiting[request.key] = one = Waiting(request, asyncio.get_running_loop().create_future())
            response, reply, cost, attempts = await one.result
            tally.attempts += attempts
            tally.cost += cost or 0.0
            if reply.outcome in ANSWERED:
                tally.unpriced |= cost is None
                return reply
            if problem := remedy_of(response, reply, self.endpoint, self.model):
                raise TeacherError(problem)
            failed, missing = failed + 1, missing + response.failure.startswith("batch_")
            if not response.transient or failed >= self.attempts or missing > 1:
                return reply

    async def _serve(self, api: BatchAPI, call: Call, waiting: dict[str, Waiting]) -> None:
        """Submit the waiting requests whenever no row can continue without them, until all rows are done."""
        running: set[asyncio.Task] = set()
        try:
            while call.done < call.total:
                await _wait_until_idle(call, waiting)
                if waiting:
                    now = dict(waiting)
                    waiting.clear()
                    submissions, fresh, elsewhere = await self._find_open(now)
                    waiting |= elsewhere
                    try:
                        if self._budget and fresh:
                            most = {key: self._most(one.request.body) for key, one in fresh.items()}
                            await self._budget.reserve(most, self._open.most(self._labels))
                        submissions += await self._submit(api, fresh)
                    finally:
                        self._leases.release(fresh)
                    if elsewhere and not submissions:
                        await asyncio.sleep(POLL_SECONDS)
                    running |= {asyncio.create_task(self._follow(api, one)) for one in submissions}
                elif not running:  # the remaining rows wait for requests of another call
                    await asyncio.sleep(0.05)
                if running:
                    ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in ended:
                        task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _find_open(
        self, waiting: dict[str, Waiting]
    ) -> tuple[list[Submission], dict[str, Waiting], dict[str, Waiting]]:
        """(open submissions, requests in none of them that we should submit, requests that another process is
        submitting). Requests that another process has completed in the meantime get their result."""
        taken = await self._leases.take(waiting)
        elsewhere = {key: waiting.pop(key) for key in taken.elsewhere}
        files = await asyncio.to_thread(self._open.files_of, list(waiting))
        fresh = {key: one for key, one in waiting.items() if key not in files}
        for key, completion in (await asyncio.to_thread(self.ledger.get, fresh)).items():
            fresh.pop(key).result.set_result(Result(Response(200, {}, ""), read_completion(completion), 0.0, 0))
        submissions: dict[str, Submission] = {}
        for key, file in files.items():
            submissions.setdefault(file, Submission(file, None, {})).waiting[key] = waiting[key]
        self._leases.release(files)
        return [*submissions.values()], fresh, elsewhere

    async def _submit(self, api: BatchAPI, waiting: dict[str, Waiting]) -> list[Submission]:
        """Upload requests and create their batches, as few as the file limits allow."""
        submissions = []
        for keys, lines in make_files((one.request for one in waiting.values()), *FILE_LIMITS):
            file, part = await api.upload(lines), {key: waiting[key] for key in keys}
            requests = [(one.request, self._most(one.request.body)) for one in part.values()]
            await asyncio.to_thread(self._open.add, file, self._labels, requests)
            batch = await self._create(api, file, time.time())
            self._log(f"batch {batch}: {len(part)} requests submitted to {self.endpoint.name}")
            submissions.append(Submission(file, batch, part))
        return submissions

    async def _create(self, api: BatchAPI, file: str, submitted: float) -> str:
        try:
            batch = await api.create(file, submitted)
        except BatchRefused:
            self._open.forget(file)
            raise
        await asyncio.to_thread(self._open.set_batch, file, batch)
        return batch

    async def _follow(self, api: BatchAPI, submission: Submission) -> None:
        """Wait for a submission's batch and give every waiting request its result."""
        file, batch, waiting = submission
        if batch is None:
            batch = await self._pick_up(api, file)
        ended = await self._wait_for(api, batch)
        results = [ended[name] for name in ("output_file_id", "error_file_id") if ended.get(name)]
        errors = [error.get("message") or error for error in (ended.get("errors") or {}).get("data") or []]
        if errors and not results:
            self._open.forget(file)
            raise TeacherError(
                f"{self.endpoint.name} did not accept batch {batch} ({ended['status']}): {errors[:3]}; "
                "no request was answered: correct this, then run again"
            )
        for result in results:
            with tempfile.TemporaryFile() as content:
                await api.download(result, content)
                while lines := await asyncio.to_thread(list, itertools.islice(content, CHUNK)):
                    await self._settle(file, read_lines(lines, self.endpoint), waiting)
        error = f"batch {batch} is {ended['status']} and has no result for this request"
        missing = Response(None, {}, error, f"batch_{ended['status']}")
        keys = [*{*await asyncio.to_thread(self._open.keys_in, file), *waiting}]
        for start in range(0, len(keys), CHUNK):
            await self._settle(file, dict.fromkeys(keys[start : start + CHUNK], missing), waiting)

    async def _pick_up(self, api: BatchAPI, file: str) -> str | None:
        """The batch of a file that an earlier call submitted; None if another process has settled it since."""
        if (found := await asyncio.to_thread(self._open.batch_of, file)) is None:
            return None
        batch, submitted = found
        if batch is None:  # the earlier call ended before it knew whether the batch was created
            try:
                created = await api.find(file, submitted)
            except BatchRefused as refused:
                raise TeacherError(
                    f"{refused}, so it is unknown whether file {file} became a batch: check with the provider; if it "
                    f"did not, teacher.forget({file!r}) submits its requests again"
                ) from None
            if created:
                batch = created["id"]
                await asyncio.to_thread(self._open.set_batch, file, batch)
            else:
                batch = await self._create(api, file, submitted)
        self._log(f"batch {batch}: picked up again at {self.endpoint.name}")
        return batch

    async def _wait_for(self, api: BatchAPI, batch: str | None) -> dict[str, Any]:
        """The final state of a batch."""
        if batch is None:
            return {"status": "settled"}
        logged, wait = None, min(1.0, POLL)
        while True:
            try:
                state = await api.read_batch(batch)
            except BatchRefused as refused:
                if refused.status != 404:
                    raise
                if self.endpoint.is_local:  # a local server was restarted; nothing was paid
                    return {"status": "gone"}
                raise TeacherError(
                    f"{refused}: use the key that submitted it, or submit it again with teacher.forget({batch!r})"
                ) from None
            counts = state.get("request_counts") or {}
            now = ", ".join([state["status"], *(f"{n} {name}" for name, n in counts.items() if n is not None)])
            if now != logged:
                self._log(f"batch {batch}: {now}")
                logged = now
            if state["status"] in ENDED:
                return state
            await asyncio.sleep(wait)
            wait = min(2 * wait, POLL)

    async def _settle(self, file: str, responses: dict[str, Response], waiting: dict[str, Waiting]) -> None:
        """Commit responses to requests of a file, then pass them to the waiting requests."""
        results = await asyncio.to_thread(self._open.settle, file, responses, self._cost)
        for key, result in results.items():
            if (one := waiting.pop(key, None)) and not one.result.done():
                one.result.set_result(result)
        await asyncio.sleep(0)

    def _cost(self, reply: Reply) -> float | None:
        cost = super()._cost(reply)
        return None if cost is None else DISCOUNT * cost

    def _most(self, body: dict[str, Any]) -> float | None:
        most = super()._most(body)
        return None if most is None else DISCOUNT * most


async def _wait_until_idle(call: Call, waiting: dict[str, Waiting]) -> None:
    """Return when no row can continue: nothing has changed for ten turns of the event loop. Rows wait only for answers,
    so each turn advances every row by at least one step; a request that comes later is sent with the next file."""
    before, unchanged = None, 0
    while unchanged < 10:
        now = call.done, len(waiting)
        unchanged = unchanged + 1 if now == before else 0
        before = now
        await asyncio.sleep(0)
