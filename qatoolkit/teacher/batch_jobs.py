"""What carries requests to a server in batches: submit them, wait for each batch, and record how every line fared.

Open requests are a table of their own in the ledger file. A row stands for one request in one input file: it is written before
the batch of that file is created, and goes in the same commit that records how the request fared, so that a client killed at any
moment finds what is under way, and no answer is recorded twice.
"""

import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from qatoolkit.teacher.batch_api import ENDED, Refused, Wire, input_files, output_lines
from qatoolkit.teacher.ledger import Attempt, Ledger
from qatoolkit.teacher.limits import TeacherError
from qatoolkit.teacher.transport import Endpoint, Got, Reply, read, read_got

CHUNK = 500  # lines of a result that are read and committed at a time


_TABLE = """CREATE TABLE IF NOT EXISTS batches (
    endpoint TEXT NOT NULL, file TEXT NOT NULL, key TEXT NOT NULL, batch TEXT, model TEXT NOT NULL, run TEXT NOT NULL,
    stage TEXT NOT NULL, submitted REAL NOT NULL, most REAL, request TEXT NOT NULL, PRIMARY KEY (endpoint, file, key)
)"""


_BY_KEY = "CREATE INDEX IF NOT EXISTS batches_by_key ON batches (key)"


_ATTEMPT = f"""INSERT INTO attempts ({", ".join(Attempt._fields)}) SELECT {", ".join("?" * len(Attempt._fields))}
    WHERE EXISTS (SELECT 1 FROM batches WHERE endpoint = ? AND file = ? AND key = ?)"""


class Submitted(NamedTuple):
    """A request of an input file: who asked, when (epoch seconds), and its canonical text."""

    model: str
    run: str
    stage: str
    submitted: float
    request: str


class Outstanding:
    """The open requests of one endpoint (by its name) in one ledger; input files are known by the server's ids."""

    def __init__(self, ledger: Ledger, endpoint: str):
        self.ledger, self.endpoint = ledger, endpoint
        ledger.write((_TABLE, [()]), (_BY_KEY, [()]))

    def add(self, file: str, model: str, run: str, stage: str, requests: Iterable[tuple]) -> None:
        """Record an uploaded file before its batch is created; `requests` are (key, most it can cost or None, text)."""
        told = (model, run, stage, time.time())
        rows = [(self.endpoint, file, key, None, *told, most, request) for key, most, request in requests]
        self.ledger.write((f"INSERT INTO batches VALUES ({', '.join('?' * 10)})", rows))

    def created(self, file: str, batch: str) -> None:
        """Record the batch that the server made of a file."""
        update = "UPDATE batches SET batch = ? WHERE endpoint = ? AND file = ?"
        self.ledger.write((update, [(batch, self.endpoint, file)]))

    def files(self, keys: Iterable[str]) -> dict[str, str]:
        """The file that each of `keys` is outstanding in; keys that are in none are absent."""
        return dict(self._read("key, file", keys))

    def batch(self, file: str) -> tuple[str | None, float] | None:
        """(batch id or None, when submitted) of a file; None when nothing of it is outstanding."""
        sql = "SELECT batch, submitted FROM batches WHERE endpoint = ? AND file = ? LIMIT 1"
        return next(iter(self.ledger.read(sql, (self.endpoint, file))), None)

    def requests(self, file: str, keys: Iterable[str]) -> dict[str, Submitted]:
        """What is outstanding among `keys` of a file."""
        rows = self._read(f"key, {', '.join(Submitted._fields)}", keys, " AND file = ?", file)
        return {key: Submitted(*row) for key, *row in rows}

    def keys(self, file: str) -> list[str]:
        """The keys outstanding in a file."""
        sql = "SELECT key FROM batches WHERE endpoint = ? AND file = ?"
        return [key for (key,) in self.ledger.read(sql, (self.endpoint, file))]

    def settle(self, file: str, fared: list[tuple[Attempt, str | None, str | None]]) -> None:
        """Record how requests of a file fared, with request and response where they were answered, in one commit. What
        another process has recorded already is not recorded again."""
        now = time.time()
        where = [(self.endpoint, file, attempt.key) for attempt, _, _ in fared]
        self.ledger.write(
            (
                "INSERT OR IGNORE INTO responses VALUES (?, ?, ?, ?)",
                [(a.key, request, response, now) for a, request, response in fared if response],
            ),
            (_ATTEMPT, [(*attempt, *at) for (attempt, _, _), at in zip(fared, where, strict=True)]),
            ("DELETE FROM batches WHERE endpoint = ? AND file = ? AND key = ?", where),
        )

    def forget(self, name: str) -> None:
        """Drop a file, or a batch, as if it had never been submitted."""
        drop = "DELETE FROM batches WHERE endpoint = ? AND (file = ? OR batch = ?)"
        self.ledger.write((drop, [(self.endpoint, name, name)]))

    def most(self, model: str, run: str, stage: str) -> float:
        """The most that everything outstanding can cost, in USD."""
        sql = "SELECT total(most) FROM batches WHERE model = ? AND run = ? AND stage = ?"
        return self.ledger.read(sql, (model, run, stage))[0][0]

    def _read(self, columns: str, keys: Iterable[str], also: str = "", *values: str) -> list[tuple]:
        among = "key IN (SELECT value FROM json_each(?))"
        sql = f"SELECT {columns} FROM batches WHERE endpoint = ? AND {among}{also}"
        return self.ledger.read(sql, (self.endpoint, json.dumps(list(keys)), *values))


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
        complaints = [error.get("message") or error for error in (ended.get("errors") or {}).get("data") or []]
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
            now = ", ".join([found["status"], *(f"{n} {name}" for name, n in counts.items() if n is not None)])
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
