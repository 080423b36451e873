"""What was submitted in batches and is not answered yet: a table of its own in the ledger file.

A row stands for one request in one input file. It is written before the batch of that file is created, and goes in the
same commit that records how the request fared, so that a client killed at any moment finds what is under way, and no
answer is recorded twice.
"""

import json
import time
from collections.abc import Iterable
from typing import NamedTuple

from qatoolkit.ledger import Attempt, Ledger

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
