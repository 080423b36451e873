"""Ledger: every attempt at a request, its cost and its response, in one SQLite file.

The ledger makes a rerun free: a response is stored under the hash of its whole request and committed before anyone
parses it. One thread writes, and puts whatever has queued up into one commit, so that thousands of answers a second
share a few file syncs; readers never wait for it (WAL). Several processes may open the same file.
"""

import asyncio
import csv
import functools
import hashlib
import json
import queue
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, date, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd

from qatoolkit.teacher.settings import Price

SCHEMA_VERSION = 1  # part of every cache key and of the file: raise it when the meaning of either changes
BUSY_SECONDS = 30.0  # how long to wait for another process that locks the file
BATCH = 1000  # writes per commit at most
GATHER_SECONDS = 0.002  # lets a batch gather; far below the latency of any teacher

# Rows are stored in order of arrival, with an index of keys; ordered by hash they take three times as long to write.
_TABLES = """
CREATE TABLE IF NOT EXISTS responses (
    key TEXT PRIMARY KEY, request TEXT NOT NULL, response TEXT NOT NULL, created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, model TEXT NOT NULL, run TEXT NOT NULL, stage TEXT NOT NULL,
    started REAL NOT NULL, seconds REAL NOT NULL, status INTEGER, outcome TEXT NOT NULL,
    prompt_tokens INTEGER, completion_tokens INTEGER, reasoning_tokens INTEGER, cost REAL
);
CREATE INDEX IF NOT EXISTS attempts_by_run ON attempts (run, model, stage);
"""
_AMONG = "key IN (SELECT value FROM json_each(?))"
_UNPRICED = "cost IS NULL AND (completion_tokens IS NOT NULL OR outcome IN ('ok', 'empty', 'length', 'refusal'))"
_TOKENS = ("prompt_tokens", "completion_tokens", "reasoning_tokens")
_SUMS = "count(*) AS attempts, " + ", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in _TOKENS)


def canonical(request: dict[str, Any]) -> str:
    """The canonical JSON text of a request: sorted names, no spaces, schema version; ValueError if it is not plain
    JSON."""
    request = {**request, "schema_version": SCHEMA_VERSION}
    try:
        return json.dumps(request, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a request must be plain JSON to be cached: {error}; convert that value first") from None


def cache_key(text: str) -> str:
    """SHA-256 (hex) of a canonical request: messages, sampling, model, endpoint, sample, schema version."""
    return hashlib.sha256(text.encode()).hexdigest()


def price_of(
    model: str, on: date | str | None = None, *, own: Mapping[str, Price] = MappingProxyType({})
) -> Price | None:
    """The price of `model` among your `own`, else its list price on a day (default today, UTC), from prices.csv; None
    if it has neither.

    Names match exactly, because a dated snapshot may have another price. `textbook*`, the offline teacher, is free.
    """
    if model in own:
        return own[model]
    if model.startswith("textbook"):
        return Price(input=0.0, output=0.0)
    day = str(on or datetime.now(UTC).date())
    in_force = (row for row in _price_table() if row["model"] == model and row["date"] <= day)
    if (row := max(in_force, key=lambda row: row["date"], default=None)) is None:
        return None
    cached = float(row["cached_input"]) if row["cached_input"] else None
    return Price(input=float(row["input"]), output=float(row["output"]), cached_input=cached)


@functools.cache
def _price_table() -> list[dict[str, str]]:
    with (Path(__file__).parent / "prices.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class Attempt(NamedTuple):
    """One HTTP request and its outcome: `started` in epoch seconds, tokens and cost (USD) None if unknown."""

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


PUT_RESPONSE = "INSERT OR IGNORE INTO responses VALUES (?, ?, ?, ?)"
_PUT_ATTEMPT = f"INSERT INTO attempts ({', '.join(Attempt._fields)}) VALUES ({', '.join('?' * len(Attempt._fields))})"
Statement = tuple[str, list[tuple]]  # SQL, and the values of each execution


class _Write(NamedTuple):
    statements: tuple[Statement, ...]
    future: Future | asyncio.Future  # waits for the commit: of a thread, or of `loop`
    loop: asyncio.AbstractEventLoop | None = None


class Ledger:
    """The SQLite file at `path` (created with its folders): responses by key, and every attempt made."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._reader, self._writer_connection = self._open(), self._open()
        self._reading = threading.Lock()
        self._closing = threading.Lock()
        self._closed = False
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_forever, name="qatoolkit-ledger", daemon=True)
        self._writer.start()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            raise ValueError(f"cannot open {self.path} as a ledger: {error}; give another path") from error
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found != SCHEMA_VERSION:
            connection.close()
            raise ValueError(f"{self.path} is a ledger of version {found}, not {SCHEMA_VERSION}: give another path")
        return connection

    def get(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The stored responses among `keys`, parsed from JSON; keys without one are absent."""
        found = self.read(f"SELECT key, response FROM responses WHERE {_AMONG}", (json.dumps(list(keys)),))
        return {key: json.loads(response) for key, response in found}

    def answered(self, keys: Iterable[str]) -> set[str]:
        """Those of `keys` that have a response."""
        return {key for (key,) in self.read(f"SELECT key FROM responses WHERE {_AMONG}", (json.dumps(list(keys)),))}

    def put(self, attempt: Attempt, request: str | None = None, response: str | None = None) -> None:
        """Record an attempt and, with both JSON texts, its response; returns when the commit is on disk.

        The first response under a key is kept. RuntimeError if the file cannot be written.
        """
        self.write(*_statements(attempt, request, response))

    async def aput(self, attempt: Attempt, request: str | None = None, response: str | None = None) -> None:
        """`put` for coroutines: resumes after the commit. Cancelling the wait does not undo the write."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._enqueue(_Write(_statements(attempt, request, response), future, loop))
        await future

    def flush(self) -> None:
        """Return when everything put so far, by any thread, is committed."""
        waiter: Future[None] = Future()
        with self._closing:
            if self._closed:
                return
            self._queue.put(_Write((), waiter))
        waiter.result()

    def write(self, *statements: Statement) -> None:
        """Execute statements, also on tables of other modules in this file, in one transaction; returns after the
        commit."""
        waiter: Future[None] = Future()
        self._enqueue(_Write(statements, waiter))
        waiter.result()

    def read(self, sql: str, values: Sequence = ()) -> list[tuple]:
        """The rows of a query, with what other processes have committed by now."""
        with self._reading:
            return self._reader.execute(sql, values).fetchall()

    def attempts(self) -> pd.DataFrame:
        """Every attempt in order, one row each, `started` as UTC time."""
        table = self._frame("SELECT * FROM attempts ORDER BY id")
        table["started"] = pd.to_datetime(table["started"], unit="s", utc=True)
        return table

    def spend(self, run: str | None = None) -> pd.DataFrame:
        """Attempts, tokens and USD by model and stage, of one run or of all.

        `cost` sums the known costs; `unpriced` counts the attempts that used tokens at an unknown price, or were
        answered by a server that did not report usage.
        """
        where, values = ("", ()) if run is None else ("WHERE run = ?", (run,))
        return self._frame(
            f"""SELECT model, stage, {_SUMS}, total(cost) AS cost, sum({_UNPRICED}) AS unpriced
            FROM attempts {where} GROUP BY model, stage ORDER BY model, stage""",
            values,
        )

    def unpriced(self, model: str, run: str, stage: str) -> list[str]:
        """The stored request of each `unpriced` attempt of a model, run and stage."""
        where = f"model = ? AND run = ? AND stage = ? AND {_UNPRICED}"
        rows = self.read(f"SELECT request FROM attempts JOIN responses USING (key) WHERE {where}", (model, run, stage))
        return [request for (request,) in rows]

    def costs(self, keys: Iterable[str]) -> pd.DataFrame:
        """Attempts, tokens and USD of each of `keys` that was sent, over all runs: key, model, attempts, prompt_tokens,
        completion_tokens, reasoning_tokens, cost (NaN if an attempt is `unpriced`)."""
        return self._frame(
            f"""SELECT key, model, {_SUMS}, CASE WHEN sum({_UNPRICED}) THEN NULL ELSE total(cost) END AS cost
            FROM attempts WHERE {_AMONG} GROUP BY key""",
            (json.dumps(list(keys)),),
        ).astype({"cost": "float64"})

    def exchanges(self, keys: Iterable[str]) -> pd.DataFrame:
        """The stored JSON texts of each of `keys` that has a response: key, request, response."""
        return self._frame(f"SELECT key, request, response FROM responses WHERE {_AMONG}", (json.dumps(list(keys)),))

    def close(self) -> None:
        """Commit what is queued and release the file; safe to call twice."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._writer.join()
        with self._reading:
            self._reader.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ledger({str(self.path)!r}{', closed' if self._closed else ''})"

    def _frame(self, sql: str, values: tuple = ()) -> pd.DataFrame:
        with self._reading:
            table = pd.read_sql_query(sql, self._reader, params=values)
        return table.astype({name: "Int64" for name in ("status", *_TOKENS) if name in table})

    def _enqueue(self, write: _Write) -> None:
        with self._closing:
            if self._closed:
                raise RuntimeError(f"ledger {self.path} is closed: open it again with Ledger(path)")
            self._queue.put(write)

    def _write_forever(self) -> None:
        going = True
        while going:
            batch = [self._queue.get()]
            time.sleep(GATHER_SECONDS)
            while len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            if None in batch:  # always the last item: close() lets nothing in after it
                going = False
                batch.remove(None)
            error = self._commit(batch)
            if error is None or isinstance(error.__cause__, sqlite3.OperationalError):  # disk full, locked
                _settle(batch, error)
            else:  # one bad write must not make the others fail
                for write in batch:
                    _settle([write], self._commit([write]))
        self._writer_connection.close()

    def _commit(self, batch: list[_Write]) -> RuntimeError | None:
        connection = self._writer_connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for sql, values in (statement for write in batch for statement in write.statements):
                connection.executemany(sql, values)
            connection.execute("COMMIT")
        except Exception as error:  # those who wait must get it, or they wait forever
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            problem = RuntimeError(f"cannot write {self.path}: {error}; free the disk or the file, then rerun")
            problem.__cause__ = error
            return problem
        return None


def _statements(attempt: Attempt, request: str | None, response: str | None) -> tuple[Statement, ...]:
    if (request is None) != (response is None):
        raise ValueError("put() takes request and response together, or neither for a failed attempt")
    put_attempt = (_PUT_ATTEMPT, [attempt])
    if response is None:
        return (put_attempt,)
    return (PUT_RESPONSE, [(attempt.key, request, response, time.time())]), put_attempt


def _prepare(connection: sqlite3.Connection) -> None:
    """Set WAL and create the tables; waits for another process that is doing the same."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:  # the change to WAL does not honour the busy timeout
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # NORMAL loses nothing to kill -9; a power cut may cost the last commits, never the file.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 10000")  # pages: fewer, larger write-backs
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            return
        except sqlite3.OperationalError as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _settle(batch: list[_Write], error: RuntimeError | None) -> None:
    """Wake those who wait for these writes, with one call per event loop."""
    by_loop = defaultdict(list)
    for write in batch:
        by_loop[write.loop].append(write.future)
    for loop, futures in by_loop.items():
        if loop is None:
            _wake(futures, error)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(_wake, futures, error)


def _wake(futures: list[Future | asyncio.Future], error: RuntimeError | None) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error) if error else future.set_result(None)
