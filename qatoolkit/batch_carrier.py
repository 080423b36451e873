"""What carries requests to a server in batches: submit them, wait for each batch, and record how every line fared.

What is outstanding is written down before a batch is created, and every line is committed before anybody hears of it.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from qatoolkit.admission import TeacherError
from qatoolkit.batch_wire import ENDED, Refused, Wire, input_files, output_lines
from qatoolkit.endpoint import Endpoint, Got, Reply, read, read_got
from qatoolkit.ledger import Attempt
from qatoolkit.outstanding import Outstanding

CHUNK = 500  # lines of a result that are read and committed at a time


class Line(NamedTuple):
    """How one request fared in a batch, its cost in USD (None: not known); `attempts` is 0 if another call recorded it."""

    got: Got
    reply: Reply
    cost: float | None
    attempts: int = 1


class Want(NamedTuple):
    """A request that somebody waits for."""

    key: str
    request: str
    body: dict[str, Any]
    line: asyncio.Future[Line]


Wants = dict[str, Want]  # by key


class Parcel(NamedTuple):
    """An input file, its batch if that was created just now, and who waits for its lines."""

    file: str
    batch: str | None
    wants: Wants


@dataclass(frozen=True, kw_only=True)
class Carrier:
    """Submits for `asker` (model, run, stage). `cost` is what a reply costs, `most` what a request may cost, in USD or
    None; `poll` is the most seconds between two looks at a batch, the first come sooner."""

    wire: Wire
    outstanding: Outstanding
    endpoint: Endpoint
    asker: tuple[str, str, str]
    cost: Callable[[Reply], float | None]
    most: Callable[[dict], float | None]
    log: Callable[[str], Any]
    poll: float
    requests_per_file: int
    bytes_per_file: int

    async def sort(self, wants: Wants) -> tuple[list[Parcel], Wants]:
        """The parcels that are under way already, and what is in none of them; what another process has got answered in the
        meantime is handed over."""
        under_way = await asyncio.to_thread(self.outstanding.files, list(wants))
        fresh = {key: want for key, want in wants.items() if key not in under_way}
        for key, response in (await asyncio.to_thread(self.outstanding.ledger.get, fresh)).items():
            fresh.pop(key).line.set_result(Line(Got(200, {}, ""), read(response), 0.0, 0))
        parcels: dict[str, Parcel] = {}
        for key, file in under_way.items():
            parcels.setdefault(file, Parcel(file, None, {})).wants[key] = wants[key]
        return [*parcels.values()], fresh

    async def submit(self, wants: Wants) -> list[Parcel]:
        """Upload requests and have batches made of them, as few as the limits of a file allow."""
        bodies, parcels = ((want.key, want.body) for want in wants.values()), []
        for keys, lines in input_files(bodies, self.requests_per_file, self.bytes_per_file):
            file, part = await self.wire.upload(lines), {key: wants[key] for key in keys}
            rows = [(want.key, self.most(want.body), want.request) for want in part.values()]
            await asyncio.to_thread(self.outstanding.add, file, *self.asker, rows)
            batch = await self._created(file, time.time())
            self._tell(f"batch {batch}: {len(part)} requests submitted to {self.endpoint.name}")
            parcels.append(Parcel(file, batch, part))
        return parcels

    async def _created(self, file: str, submitted: float) -> str:
        try:
            batch = await self.wire.create(file, submitted)
        except Refused:
            self.outstanding.forget(file)
            raise
        await asyncio.to_thread(self.outstanding.created, file, batch)
        return batch

    async def follow(self, parcel: Parcel) -> None:
        """Wait for the batch of a parcel and hand its lines to those who want them; in the end each of them has one."""
        file, batch, wants = parcel
        if batch is None:
            batch = await self._picked_up(file)
        ended = await self._ended(batch)
        results = [ended[name] for name in ("output_file_id", "error_file_id") if ended.get(name)]
        complaints = [
            error.get("message") or error for error in (ended.get("errors") or {}).get("data") or []
        ]
        if complaints and not results:
            self.outstanding.forget(file)
            raise TeacherError(
                f"{self.endpoint.name} did not accept batch {batch} ({ended['status']}): {complaints[:3]}; "
                "nothing of it was answered: put that right, then run again"
            )
        for result in results:
            with tempfile.TemporaryFile() as content:
                await self.wire.download(result, content)
                while lines := await asyncio.to_thread(list, itertools.islice(content, CHUNK)):
                    await self._settle(file, output_lines(lines, self.endpoint), wants)
        told = f"batch {batch} is {ended['status']} and left this request out"
        nothing = Got(None, {}, told, f"batch_{ended['status']}")
        missing = [*{*await asyncio.to_thread(self.outstanding.keys, file), *wants}]
        for start in range(0, len(missing), CHUNK):
            await self._settle(file, dict.fromkeys(missing[start : start + CHUNK], nothing), wants)

    async def _picked_up(self, file: str) -> str | None:
        """The batch of a file that an earlier call has submitted; None if another process has settled it by now."""
        if (found := await asyncio.to_thread(self.outstanding.batch, file)) is None:
            return None
        batch, submitted = found
        if batch is None:  # that call ended before it knew whether there is one
            try:
                batch = await self.wire.find(file, submitted)
            except Refused as refused:
                raise TeacherError(
                    f"{refused}, so nobody knows whether file {file} became a batch: look there, and if not, "
                    f"teacher.forget({file!r}) submits its requests anew"
                ) from None
            if batch:
                await asyncio.to_thread(self.outstanding.created, file, batch)
            else:
                batch = await self._created(file, submitted)
        self._tell(f"batch {batch}: picked up again at {self.endpoint.name}")
        return batch

    async def _ended(self, batch: str | None) -> dict[str, Any]:
        """The batch, once nothing more will come of it."""
        if batch is None:
            return {"status": "settled"}
        told, wait = None, min(1.0, self.poll)
        while True:
            try:
                found = await self.wire.batch(batch)
            except Refused as refused:
                if refused.status != 404:
                    raise
                if self.endpoint.is_local:  # restarted, and nothing was paid
                    return {"status": "gone"}
                raise TeacherError(
                    f"{refused}: use the key that submitted it, or teacher.forget({batch!r}) to submit its requests anew"
                ) from None
            counts = found.get("request_counts") or {}
            now = ", ".join(
                [found["status"], *(f"{n} {name}" for name, n in counts.items() if n is not None)]
            )
            if now != told:
                self._tell(f"batch {batch}: {now}")
                told = now
            if found["status"] in ENDED:
                return found
            await asyncio.sleep(wait)
            wait = min(2 * wait, self.poll)

    async def _settle(self, file: str, fared: dict[str, Got], wants: Wants) -> None:
        """Commit how requests of a file fared, then tell those who want to know."""

        def commit() -> dict[str, Line]:
            open_requests, now = self.outstanding.requests(file, list(fared)), time.time()
            lines, rows = {}, []
            for key, got in fared.items():
                reply, answer = read_got(got)
                if (asked := open_requests.get(key)) is None:  # recorded by another process
                    lines[key] = Line(got, reply, 0.0, 0)
                    continue
                cost = self.cost(reply)
                lines[key] = Line(got, reply, cost)
                attempt = Attempt(
                    *(key, *asked[:4], now - asked.submitted, got.status, reply.outcome),
                    *(reply.prompt_tokens, reply.completion_tokens, reply.reasoning_tokens, cost),
                )
                rows.append((attempt, answer and asked.request, answer))
            self.outstanding.settle(file, rows)
            return lines

        for key, line in (await asyncio.to_thread(commit)).items():
            if (want := wants.pop(key, None)) and not want.line.done():
                want.line.set_result(line)
        await asyncio.sleep(0)

    def _tell(self, text: str) -> None:
        self.log(self.endpoint.redact(text))
