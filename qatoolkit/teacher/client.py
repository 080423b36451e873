"""Teacher: sends prompts to a model and returns a table, one row per answer, in the order of the prompts.

A `Teacher` works with any OpenAI-compatible server. Each request is looked up in the ledger under a hash of everything
that shapes its answer. Requests without an answer are sent within the limits, and each answer is committed before it is
parsed. A retake after an empty answer, and a correction of one that did not parse, are requests with their own keys. So
a rerun after a crash gives the same table and sends only what was never answered. Processes with the same requests take
leases on them, so that each request is sent once. Whatever stops a call, it waits for requests in flight and records
their answers. Everything runs on the library's own event-loop thread, so it works the same in scripts, notebooks and
papermill.
"""

import asyncio
import itertools
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pandas as pd

from qatoolkit.core.display import Progress
from qatoolkit.teacher.calls import Call, Job, Messages, Request, Row, parse_answer, to_table
from qatoolkit.teacher.completions import ANSWERED, Reply, read_completion
from qatoolkit.teacher.event_loop import gather_all, run
from qatoolkit.teacher.leases import POLL_SECONDS, Budget, Leases
from qatoolkit.teacher.ledger import Ledger, cache_key, canonical, plain_json
from qatoolkit.teacher.limits import BudgetError, Pace, TeacherError
from qatoolkit.teacher.prices import price_of
from qatoolkit.teacher.sender import RowCost, Sender
from qatoolkit.teacher.settings import Price, problem_of, read_price
from qatoolkit.teacher.transport import Endpoint, Send

__all__ = ["BudgetError", "Endpoint", "Teacher", "TeacherError"]

LOOKUP_BATCH = 256  # prompts per lookup in the ledger
RETAKES = 1  # how often a request is repeated after an empty answer
CORRECTION = "That answer could not be read: {error}\nAnswer again, in exactly the format asked for and nothing else."


class Teacher:
    """A model behind an endpoint, with its sampling parameters, its ledger and its limits.

    `timeout` is in seconds per request. A request fails for good after `attempts`; `backoff` is the wait in seconds
    before its first retry. `extra` sets any other field of the request body (top_p, seed, response_format); fields that
    are None are not sent, including `max_tokens` and `temperature`. Without `endpoint`, OPENAI_BASE_URL is used; there
    is no other default. `requests_per_minute` and `tokens_per_minute` are a provider's limits, which are not exceeded;
    tokens are estimated before a request and corrected after it. `budget` is the most that `run` and `stage` may spend
    on this model in this ledger, in USD, including earlier sessions and other processes; it needs a price, from
    prices.csv or `price` (a `Price` or a mapping of its fields, {"input": 0.27, "output": 1.1}). With `client=openai.AsyncOpenAI(...)` (or Azure, or any subclass), requests go through that
    client, about a fifth as fast as the built-in transport; do not share it with another event loop. With `progress`,
    every `ask` that takes more than a second shows its rate, the time left and the USD spent. With `shared`, processes
    that use this model and ledger at the same time divide `in_flight` and the limits per minute among them, and divide
    them again within a second after one has ended. ValueError for a value that is not allowed, or without an endpoint.

    >>> import qatoolkit as qt
    >>> endpoint = qt.Endpoint(base_url="https://llm.example.org/v1", name="our server", key_env="OUR_KEY")
    >>> with qt.Ledger("ledger.sqlite") as ledger:
    ...     qt.Teacher("our-model", ledger=ledger, endpoint=endpoint, max_tokens=500, temperature=0)
    Teacher({'model': 'our-model', 'max_tokens': 500, 'temperature': 0.0}, at 'our server', Ledger('ledger.sqlite'))
    """

    _drains = True  # whether an interrupt waits for requests in flight

    def __init__(
        self,
        model: str,
        *,
        ledger: Ledger,
        endpoint: Endpoint | None = None,
        run: str = "",
        stage: str = "",
        in_flight: int = 64,
        timeout: float = 120.0,
        attempts: int = 6,
        backoff: float = 0.5,
        max_tokens: int | None = 8192,
        temperature: float | None = 0.6,
        extra: Mapping[str, Any] | None = None,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        budget: float | None = None,
        price: Price | Mapping[str, float] | None = None,
        client: Any = None,
        progress: bool = False,
        shared: bool = False,
    ):
        limits = {"in_flight": in_flight, "attempts": attempts, "timeout": timeout}
        rates = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        rates["max_tokens"] = max_tokens
        for name, value in (limits | {n: v for n, v in rates.items() if v is not None}).items():
            if not value > 0:
                raise ValueError(f"Teacher {name} is {value!r}: give a number above 0")
        if problem := problem_of(extra or {}, max_tokens):
            raise ValueError(f"Teacher extra {problem}")
        self.model, self.ledger, self.run, self.stage = model, ledger, run, stage
        if endpoint is None:
            endpoint = Endpoint(base_url=str(client.base_url)) if client else Endpoint.from_env()
        self.endpoint = endpoint
        self.timeout, self.attempts, self.in_flight = timeout, attempts, in_flight
        self.price = read_price(price) or price_of(model)
        self._backoff, self._progress, self._labels = backoff, progress, (model, run, stage)
        temperature = None if temperature is None else float(temperature)
        sampling = {"max_tokens": max_tokens, "temperature": temperature, **(extra or {})}
        self._body = {"model": model} | {name: value for name, value in sampling.items() if value is not None}
        self._bounded = not self._body.keys().isdisjoint(("max_tokens", "max_completion_tokens"))
        self._leases, self._leasing = Leases(ledger, self._labels), asyncio.Lock()
        self._budget = self._open_budget(budget)
        self._sender = Sender(
            endpoint=endpoint, ledger=ledger, labels=self._labels, client=client, in_flight=in_flight, timeout=timeout,
            attempts=attempts, backoff=backoff, pace=Pace(requests_per_minute, tokens_per_minute), budget=self._budget,
            cost=self._cost, most=self._most, sharers=self._leases.sharers if shared else None,
        )  # fmt: skip
        self._pending: dict[str, asyncio.Future[Reply | None]] = {}  # key -> reply to a request in flight

    def __repr__(self) -> str:
        return f"Teacher({self._body}, at {self.endpoint.name!r}, {self.ledger!r})"

    def ask(
        self,
        prompts: Sequence[str | Messages],
        *,
        parse: Callable[[str], Any] | None = None,
        samples: int = 1,
        ids: Sequence[Any] | None = None,
        label: str = "ask",
    ) -> pd.DataFrame:
        """Answer every prompt `samples` times; returns one row per prompt and sample, in the given order.

        Columns: id, sample, key (of the response shown, in the ledger), outcome, value, content, reasoning,
        prompt_tokens, completion_tokens, reasoning_tokens (of the answer shown), cost (USD paid by this call for the
        row, including retries; 0 if cached, NaN if the price is unknown), cached (no request was sent), attempts,
        error, keys (of every request made for the row, including retakes and correction). `outcome` is ok, empty,
        length, refusal, unparsed, http_<status>, timeout, connection, too_large, or interrupted: Ctrl-C sends nothing
        more, waits for requests in flight (a second Ctrl-C does not), and returns the rows that are done.
        `parse(content)` gives `value` (default the content); if it raises ValueError, the teacher is asked once to
        correct its answer.

        Raises TeacherError if the server is down or rejects the key, BudgetError, LedgerError, and ValueError for an
        invalid prompt. Answers so far, including those in flight at that moment, are in the ledger and cost nothing the
        next time. `label` names the call in the progress display.
        """
        call = Call(prompts, parse=parse, samples=samples, ids=ids)
        try:
            with self._showing(call, label) as tick:
                return run(self._ask(call), tick=tick, stop=self._drains and partial(self._stop, call))
        except KeyboardInterrupt:
            return to_table(call.rows_so_far())

    @contextmanager
    def _showing(self, call: Call, label: str) -> Iterator[Callable[[], None] | None]:
        """Yields a function that updates the progress display of a call; None if there is no display."""
        if not (self._progress and call.total):
            yield None
            return
        with Progress(call.total, label, "requests", brief=1.0) as progress:

            def tick() -> None:
                spent = "an unknown amount" if call.cost != call.cost else f"${call.cost:,.2f}"
                progress.update(call.done - progress.done, spent=spent)

            yield tick

    async def _ask(self, call: Call) -> pd.DataFrame:
        leased: set[str] = set()  # keys on which this call took leases
        source, looking_up, ready, more = self._look_up(call.jobs(), leased), asyncio.Lock(), deque(), True
        async with self._sender.connected() as send:

            async def look_ahead() -> None:
                """Let one worker look up requests for all, while the others continue with those that are ready."""
                nonlocal more
                while more and len(ready) < LOOKUP_BATCH // 2 and not (ready and looking_up.locked()):
                    async with looking_up:
                        if more and len(ready) < LOOKUP_BATCH // 2:
                            found = await anext(source, None)
                            more = found is not None
                            ready.extend(found or [])

            async def worker() -> None:
                while True:
                    await look_ahead()
                    if not ready:
                        return
                    job, request = ready.popleft()
                    row = await self._answer(send, job, call.parse, request)
                    call.put(job[0], row)
                    if row.cached:
                        await asyncio.sleep(0)  # nothing was awaited: let Ctrl-C and other workers run

            try:
                # Twice as many workers as places in flight: workers that back off hold no place.
                workers = (worker() for _ in range(min(call.total, 2 * self.in_flight)))
                await gather_all(workers, self._sender.end, call.tasks)
                if call.done < call.total:
                    raise asyncio.CancelledError
            finally:
                self._leases.release(leased & self._leases.until.keys())
                self.ledger.flush()
        return to_table(call.rows)

    def _stop(self, call: Call) -> str:
        """Send nothing more for a call; returns a message about the requests it waits for."""
        flying = self._sender.stop(call.tasks)
        return f"stopping: waiting for {len(flying)} requests in flight (interrupt again to abandon them)"

    async def _look_up(self, jobs: Iterator[Job], leased: set[str]) -> AsyncIterator[list[tuple[Job, Request]]]:
        """Batches of jobs with their requests, looked up in the ledger and leased; one at a time, that would cost as
        much as all other bookkeeping. Requests that another process is sending come last, once they are answered or
        free."""
        later: list[tuple[Job, Request]] = []
        while True:
            pairs = [(job, self._request(job[3], job[2])) for job in itertools.islice(jobs, LOOKUP_BATCH)]
            ended = not pairs
            if ended:
                pairs, later = later, []
            if not pairs:
                return
            async with self._leasing:  # another call of this teacher may look up the same keys
                keys = {request.key for _, request in pairs} - self._pending.keys() - self._leases.until.keys()
                taken = await self._leases.take(keys)
            leased |= keys - taken.elsewhere
            ready = [pair for pair in pairs if pair[1].key not in taken.elsewhere]
            later += [pair for pair in pairs if pair[1].key in taken.elsewhere]
            if ready:
                yield ready
            elif ended:
                await asyncio.sleep(POLL_SECONDS)

    async def _answer(self, send: Send, job: Job, parse, first: Request) -> Row:
        _, id, sample, messages = job
        tally = RowCost()
        for retake in range(RETAKES + 1):
            request = self._request(messages, sample, retake) if retake else first
            reply = await self._reply(send, request, tally)
            if reply.outcome != "empty":  # a retake of a truncated answer would be truncated too
                break
        outcome, value, error = reply.outcome, reply.content, reply.error
        if outcome != "ok":
            value = None
        elif parse:
            value, error = parse_answer(parse, reply.content, id)
            if error is not None:
                answer = {"role": "assistant", "content": reply.content}
                correction = {"role": "user", "content": CORRECTION.format(error=error)}
                correction_request = self._request([*messages, answer, correction], sample)
                corrected = await self._reply(send, correction_request, tally)
                if corrected.outcome == "ok":
                    request, reply = correction_request, corrected
                    value, error = parse_answer(parse, reply.content, id)
                else:
                    error = f"{error}; correction failed: {corrected.error or corrected.outcome}"
                # a failed correction may work another time; an answer that can't be parsed stays unparsed
                outcome = "ok" if error is None else "unparsed" if corrected.outcome in ANSWERED else corrected.outcome
        cost = None if tally.unpriced else tally.cost
        cached = tally.attempts == 0 and reply.outcome in ANSWERED
        result = request.key, outcome, value, reply.content, reply.reasoning, *reply.tokens
        return Row(id, sample, *result, cost, cached, tally.attempts, error, tuple(tally.keys))

    async def _reply(self, send: Send, request: Request, tally: RowCost) -> Reply:
        """The reply to a request: from an identical request in flight, the ledger, or the server."""
        key = request.key
        tally.keys.append(key)
        while (leader := self._pending.get(key)) is not None:
            if (reply := await asyncio.shield(leader)) is not None:
                return reply
        self._pending[key] = shared = asyncio.get_running_loop().create_future()
        reply = None
        try:
            reply = await self._known(key) or await self._send(send, request, tally)
        finally:  # if cancelled, the result is None and one of the waiting tasks takes over
            del self._pending[key]
            shared.set_result(reply)
            if reply is None or reply.outcome not in ANSWERED:
                self._leases.release([key])
        return reply

    async def _known(self, key: str) -> Reply | None:
        """The answer in the ledger, waiting if another process is sending the request; None once its lease is ours."""
        while self._leases.until.pop(key, 0.0) < time.time():
            if stored := self.ledger.get([key]):
                return read_completion(stored[key])
            if (await self._leases.take([key])).elsewhere:
                await asyncio.sleep(POLL_SECONDS)
        return None

    async def _send(self, send: Send, request: Request, tally: RowCost) -> Reply:
        return await self._sender.answer(send, request, tally)

    def _request(self, messages: Messages, sample: int, retake: int = 0) -> Request:
        body = {**self._body, "messages": messages}
        sent = plain_json(body)  # encoded once, for the key and for the server
        text = canonical(sent, self.endpoint.name, sample, retake)
        return Request(cache_key(text), text, body, sent)

    def keys(self, prompts: Sequence[str | Messages], samples: int = 1) -> list[str]:
        """The ledger keys of the first requests that `ask` makes for these prompts, one per prompt and sample."""
        return [self._request(messages, sample).key for _, _, sample, messages in Call(prompts, samples=samples).jobs()]

    def _cost(self, reply: Reply) -> float | None:
        if self.price is None or reply.prompt_tokens is None or reply.completion_tokens is None:
            return None
        return self.price.cost(reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens)

    def _most(self, body: dict[str, Any]) -> float | None:
        """The most a request can cost in USD: a prompt has at most as many tokens as bytes. None without a price or
        without a limit on answer tokens."""
        if self.price is None or not self._bounded:
            return None
        bytes_sent = len(json.dumps(body["messages"], ensure_ascii=False).encode("utf-8", "replace"))
        return self.price.cost(bytes_sent, body.get("max_tokens") or body["max_completion_tokens"])

    def _open_budget(self, budget: float | None) -> Budget | None:
        if budget is None:
            return None
        if self.price is None:
            raise ValueError(
                f"budget={budget} needs a price; {self.model!r} is not in prices.csv: give price= (in a profile "
                f"teacher.price: {{{self.model}: {{input: ..., output: ...}}}}, USD per million tokens)"
            )
        if not self._bounded:
            raise ValueError(
                f"budget={budget} needs an upper bound on each answer: set max_tokens (in a profile teacher.max_tokens)"
            )
        return Budget(self.ledger, self._labels, budget)
