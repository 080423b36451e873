"""Ledger: every attempt at a request, its cost and its response, in one SQLite file.

The ledger makes a rerun free: a response is stored under the hash of its whole request and committed before it is
parsed. A single thread writes, and commits everything in its queue at once, so that thousands of answers a second share
a few file syncs; readers never wait for it (WAL). Several processes may open the same file; `leases` keeps them from
sending the same request. Each row has a checksum, and a file beside the ledger reserves space for the answers in flight
when the disk is full.
"""

import asyncio
import hashlib
import itertools
import json
import queue
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from qatoolkit.core.display import table as show_table
from qatoolkit.teacher.leases import Owner
from qatoolkit.teacher.ledger_file import (
    BUSY_SECONDS,
    FILE_VERSION,
    RESTORE,
    LedgerError,
    checksum,
    describe_damage,
    free_space,
    keep_space,
    prepare,
    remedy_of,
)

SCHEMA_VERSION = 1  # part of every cache key: raise it if the meaning of a key changes
BATCH = 1000  # most writes per commit
GATHER_SECONDS = 0.002  # wait for a batch to gather; far below the latency of any teacher

_IS_KEY = "key IN (SELECT value FROM json_each(?))"
_UNPRICED = """cost IS NULL AND (most IS NOT NULL OR completion_tokens IS NOT NULL
    OR outcome IN ('ok', 'empty', 'length', 'refusal'))"""
_TOKENS = ("prompt_tokens", "completion_tokens", "reasoning_tokens")
_SUMS = "count(*) AS attempts, " + ", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in _TOKENS)


def canonical(body: str, endpoint: str, sample: int, retake: int) -> str:
    """The canonical text of a request: JSON with sorted names; `body` is `plain_json` of what is sent."""
    context = {"endpoint": endpoint, "retake": retake, "sample": sample, "schema_version": SCHEMA_VERSION}
    return f'{{"body":{body},{plain_json(context)[1:]}'


def plain_json(value: dict[str, Any]) -> str:
    """JSON with sorted names and no spaces; ValueError if the value is not plain JSON."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a request must be plain JSON to be cached: {error}; convert that value first") from None


def cache_key(text: str) -> str:
    """SHA-256 (hex) of a canonical request: messages, sampling, model, endpoint, sample, schema version."""
    return hashlib.sha256(text.encode()).hexdigest()


class Attempt(NamedTuple):
    """One HTTP request and its outcome: `started` in epoch seconds; tokens and cost (USD) are None if unknown; `most`
    is the highest possible cost of a request that may have been billed at an unknown one."""

    key: str
    model: str
    run: str
    stage: str
    started: float
    seconds: float
    status: int | None
    outcome: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: float | None = None
    most: float | None = None


PUT_RESPONSE = "INSERT OR IGNORE INTO responses VALUES (?, ?, ?, ?, ?)"
ATTEMPT_COLUMNS = ", ".join((*Attempt._fields, "checksum"))
_PUT_ATTEMPT = f"INSERT INTO attempts ({ATTEMPT_COLUMNS}) VALUES ({', '.join('?' * (len(Attempt._fields) + 1))})"
Statement = tuple[str, list[tuple]]  # SQL, and the values for each execution
Work = Callable[[sqlite3.Connection], Any]  # runs within a transaction


def response_row(key: str, request: str, response: str) -> tuple:
    """The values of a row of responses, for `PUT_RESPONSE`."""
    return key, request, response, time.time(), checksum(key, response)


class _Write(NamedTuple):
    work: Work
    future: Future | asyncio.Future  # result after the commit, for a thread or for `loop`
    loop: asyncio.AbstractEventLoop | None = None


class Ledger:
    """The SQLite file at `path` (created with its folders): responses by key, and every attempt. ValueError for a path
    that cannot be a ledger.

    `full` is a message if the disk is full and the last writes went to the reserve, else None.

    >>> import qatoolkit as qt
    >>> with qt.Ledger("ledger.sqlite") as ledger:
    ...     print(f"{len(ledger.attempts())} attempts, damaged: {ledger.check()}")
    0 attempts, damaged: []
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.full: str | None = None
        self._owner: Owner | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cannot open {self.path} as a ledger: {error}; give another path") from error
        self._reader, self._writer_connection = self._open(), self._open()
        self._reading = threading.Lock()
        self._closing = threading.Lock()
        self._closed = False
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_forever, name="qatoolkit-ledger", daemon=True)
        self._writer.start()

    def _open(self) -> sqlite3.Connection:
        connection = None
        try:
            if self.path.exists() and not self.path.is_file():
                raise sqlite3.DatabaseError("it is not a regular file")
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            prepare(connection)
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            if connection:
                connection.close()
            raise ValueError(f"cannot open {self.path} as a ledger: {error}; {remedy_of(error)}") from error
        if version != FILE_VERSION:
            connection.close()
            raise ValueError(f"{self.path} is a ledger of version {version}, not {FILE_VERSION}: give another path")
        return connection

    @property
    def owner(self) -> "Owner":
        """The holder of the leases that are taken through this object."""
        if self._owner is None:
            self._owner = Owner(self.path)
            keep_space(self.path)
        return self._owner

    def get(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The stored responses among `keys`, parsed from JSON; keys without one are absent."""
        sql = f"SELECT key, response, checksum FROM responses WHERE {_IS_KEY}"
        found = self.read(sql, (json.dumps(list(keys)),))
        for key, response, stored in found:
            if stored is not None and stored != checksum(key, response):
                raise LedgerError(f"{self.path}: {describe_damage('responses', 'key', key)}")
        return {key: json.loads(response) for key, response, _ in found}

    def answered(self, keys: Iterable[str]) -> set[str]:
        """The `keys` that have a response."""
        return {key for (key,) in self.read(f"SELECT key FROM responses WHERE {_IS_KEY}", (json.dumps(list(keys)),))}

    async def put(self, attempt: Attempt, request: str | None = None, response: str | None = None) -> None:
        """Record an attempt and, with both JSON texts, its response; resumes when the commit is on disk. Cancelling
        does not undo the write.

        Only the first response under a key is kept; its lease ends. LedgerError if the file cannot be written.
        """
        statements = _statements(attempt, request, response)
        await self.atransact(lambda connection: _execute(connection, statements))

    def record(self, attempt: Attempt) -> None:
        """`put` an attempt without an answer, without waiting for the commit."""
        self.enqueue(*_statements(attempt, None, None))

    def enqueue(self, *statements: Statement) -> None:
        """`write` without waiting for the commit."""
        self._enqueue(_Write(lambda connection: _execute(connection, statements), Future()))

    async def atransact(self, work: Work) -> Any:
        """`transact` for coroutines."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._enqueue(_Write(work, future, loop))
        return await future

    def transact(self, work: Work) -> Any:
        """The result of `work(connection)`, run on the writer's thread in a transaction; returns after the commit."""
        waiter: Future[Any] = Future()
        self._enqueue(_Write(work, waiter))
        return waiter.result()

    def flush(self) -> None:
        """Return when everything put so far, by any thread, is committed."""
        waiter: Future[None] = Future()
        with self._closing:
            if self._closed:
                return
            self._queue.put(_Write(lambda connection: None, waiter))
        waiter.result()

    def write(self, *statements: Statement) -> None:
        """Execute statements in one transaction, also on tables of other modules; returns after the commit."""
        self.transact(lambda connection: _execute(connection, statements))

    def read(self, sql: str, values: Sequence = ()) -> list[tuple]:
        """The rows of a query, including everything that other processes have committed."""
        try:
            with self._reading:
                return self._reader.execute(sql, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise LedgerError(f"cannot read {self.path}: {error}; {remedy_of(error)}") from error

    def attempts(self) -> pd.DataFrame:
        """Every attempt in order, one row each, with `started` as UTC time."""
        table = self._frame(f"SELECT id, {', '.join(Attempt._fields)} FROM attempts ORDER BY id")
        table["started"] = pd.to_datetime(table["started"], unit="s", utc=True)
        return table

    def spend(self, run: str | None = None) -> pd.DataFrame:
        """Attempts, tokens and USD by model and stage, for one run or all.

        `cost` sums the known costs; `unpriced` counts the attempts that used tokens at an unknown price, or were
        answered by a server that did not report usage.
        """
        where, values = ("", ()) if run is None else ("WHERE run = ?", (run,))
        return self._frame(
            f"""SELECT model, stage, {_SUMS}, total(cost) AS cost, sum({_UNPRICED}) AS unpriced
            FROM attempts {where} GROUP BY model, stage ORDER BY model, stage""",
            values,
        )

    def check(self) -> list[str]:
        """One line, with a remedy, for each damage: to the file's structure, or to a row changed since it was
        written."""
        try:
            problems = [
                f"{self.path}: {text}; {RESTORE}" for (text,) in self.read("PRAGMA quick_check") if text != "ok"
            ]
            for key, request, response, stored in self.read("SELECT key, request, response, checksum FROM responses"):
                if cache_key(request) != key or (stored is not None and stored != checksum(key, response)):
                    problems.append(f"{self.path}: {describe_damage('responses', 'key', key)}")
            for id, *values, stored in self.read(f"SELECT id, {ATTEMPT_COLUMNS} FROM attempts"):
                if stored is not None and stored != checksum(*values):
                    problems.append(f"{self.path}: {describe_damage('attempts', 'id', id)}")
        except (LedgerError, UnicodeError) as error:
            return [str(error)]
        return problems

    def costs(self, keys: Iterable[str]) -> pd.DataFrame:
        """Attempts, tokens and USD of each of `keys` that was sent, over all runs: key, model, attempts, prompt_tokens,
        completion_tokens, reasoning_tokens, cost (NaN if any attempt is unpriced, see `spend`)."""
        return self._frame(
            f"""SELECT key, model, {_SUMS}, CASE WHEN sum({_UNPRICED}) THEN NULL ELSE total(cost) END AS cost
            FROM attempts WHERE {_IS_KEY} GROUP BY key""",
            (json.dumps(list(keys)),),
        ).astype({"cost": "float64"})

    def exchanges(self, keys: Iterable[str]) -> pd.DataFrame:
        """The stored JSON texts for each of `keys` that has a response: key, request, response."""
        return self._frame(f"SELECT key, request, response FROM responses WHERE {_IS_KEY}", (json.dumps(list(keys)),))

    def close(self) -> None:
        """Commit queued writes, delete all leases and close the file; safe to call twice."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            if self._owner:
                self._queue.put(_Write(self._owner.release, Future()))
            self._queue.put(None)
        self._writer.join()
        if self._owner:
            self._owner.close()
        with self._reading:
            self._reader.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ledger({str(self.path)!r}{', closed' if self._closed else ''})"

    def _repr_html_(self) -> str | None:
        """A table of costs by model and stage."""
        return None if self._closed else show_table(self.spend()).html

    def _frame(self, sql: str, values: tuple = ()) -> pd.DataFrame:
        try:
            with self._reading:
                table = pd.read_sql_query(sql, self._reader, params=values)
        except (sqlite3.DatabaseError, pd.errors.DatabaseError) as error:
            raise LedgerError(f"cannot read {self.path}: {error.__cause__ or error}; {remedy_of(error)}") from error
        return table.astype({name: "Int64" for name in ("status", *_TOKENS) if name in table})

    def _enqueue(self, write: _Write) -> None:
        with self._closing:
            if self._closed:
                raise RuntimeError(f"ledger {self.path} is closed: open it again with Ledger(path)")
            self._queue.put(write)

    def _write_forever(self) -> None:
        running = True
        while running:
            batch = [self._queue.get()]
            time.sleep(GATHER_SECONDS)
            while len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            if None in batch:  # always the last item: close() admits nothing after it
                running = False
                batch.remove(None)
            error, results = self._commit(batch)
            if error is None or isinstance(error.__cause__, sqlite3.OperationalError):  # disk full, locked
                _settle(batch, error, results)
            else:  # one bad write must not make the others fail
                for write in batch:
                    _settle([write], *self._commit([write]))
        self._writer_connection.close()

    def _commit(self, batch: list[_Write]) -> tuple[LedgerError | None, list[Any]]:
        connection = self._writer_connection
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                results = [write.work(connection) for write in batch]
                connection.execute("COMMIT")
                return None, results
            except Exception as error:  # callers must get it, or they wait for ever
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                problem = LedgerError(f"cannot write {self.path}: {error}; {remedy_of(error)}")
                problem.__cause__ = error
                if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL and free_space(self.path):
                    self.full = str(problem)  # answers in flight still have room
                    continue
                return problem, []


def _statements(attempt: Attempt, request: str | None, response: str | None) -> tuple[Statement, ...]:
    if (request is None) != (response is None):
        raise ValueError("put() takes request and response together, or neither for a failed attempt")
    put_attempt = (_PUT_ATTEMPT, [(*attempt, checksum(*attempt))])
    if response is None:
        return put_attempt, ("UPDATE leases SET most = 0 WHERE key = ?", [(attempt.key,)])
    put_response = (PUT_RESPONSE, [response_row(attempt.key, request, response)])
    return put_response, put_attempt, ("DELETE FROM leases WHERE key = ?", [(attempt.key,)])


def _execute(connection: sqlite3.Connection, statements: Iterable[Statement]) -> None:
    for sql, values in statements:
        connection.executemany(sql, values)


def _settle(batch: list[_Write], error: LedgerError | None, results: list[Any]) -> None:
    """Give these writes their results, with one call per event loop."""
    by_loop = defaultdict(list)
    for write, result in itertools.zip_longest(batch, results):
        by_loop[write.loop].append((write.future, result))
    for loop, futures in by_loop.items():
        if loop is None:
            _set_results(futures, error)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(_set_results, futures, error)


def _set_results(futures: list[tuple[Future | asyncio.Future, Any]], error: LedgerError | None) -> None:
    for future, result in futures:
        if not future.done():
            future.set_exception(error) if error else future.set_result(result)
