"""The SQLite file of a ledger: its tables, checksums, errors with remedies, and reserved disk space."""

import os
import sqlite3
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

FILE_VERSION = 2  # version of the tables
RESERVE = 8 << 20  # bytes reserved for the answers in flight when the disk is full
BUSY_SECONDS = 30.0  # seconds to wait for another process that locks the file

# Rows are stored in order of arrival, with an index of keys: sorted by hash they take three times as long to write.
_TABLES = """
CREATE TABLE IF NOT EXISTS responses (
    key TEXT PRIMARY KEY, request TEXT NOT NULL, response TEXT NOT NULL, created REAL NOT NULL, checksum INTEGER
);
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, model TEXT NOT NULL, run TEXT NOT NULL, stage TEXT NOT NULL,
    started REAL NOT NULL, seconds REAL NOT NULL, status INTEGER, outcome TEXT NOT NULL,
    prompt_tokens INTEGER, completion_tokens INTEGER, reasoning_tokens INTEGER, cost REAL, most REAL, checksum INTEGER
);
CREATE TABLE IF NOT EXISTS leases (
    key TEXT PRIMARY KEY, owner TEXT NOT NULL, expires REAL NOT NULL, model TEXT NOT NULL, run TEXT NOT NULL,
    stage TEXT NOT NULL, most REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS attempts_by_run ON attempts (run, model, stage);
"""
_FROM_VERSION_1 = """
ALTER TABLE responses ADD COLUMN checksum INTEGER;
ALTER TABLE attempts ADD COLUMN most REAL;
ALTER TABLE attempts ADD COLUMN checksum INTEGER;
"""


class LedgerError(RuntimeError):
    """The file can't be read or written, or a row was changed; the message says which and what to do."""


def prepare(connection: sqlite3.Connection) -> None:
    """Set WAL and create or migrate the tables; waits for another process that is doing the same."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:  # switching to WAL ignores the busy timeout
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # With NORMAL, kill -9 loses nothing; a power cut may lose the last commits, never the file.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 10000")  # pages: fewer, larger write-backs
            if _version(connection) < FILE_VERSION:
                connection.execute("BEGIN IMMEDIATE")
                statements = {0: _TABLES, 1: _FROM_VERSION_1 + _TABLES}.get(_version(connection), "")
                for statement in filter(str.strip, statements.split(";")):
                    connection.execute(statement)
                if statements:
                    connection.execute(f"PRAGMA user_version = {FILE_VERSION}")
                connection.execute("COMMIT")
            return
        except sqlite3.OperationalError as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _version(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


def checksum(*values: Any) -> int:
    """CRC-32 of the values of a row, independent of the type in which SQLite returns a number."""
    texts = [v if type(v) is str else "" if v is None else repr(float(v)) for v in values]
    return zlib.crc32("\x1f".join(texts).encode("utf-8", "replace"))


RESTORE = "restore a copy of it, or move it away and pay for its answers again"


def describe_damage(table: str, column: str, value: str | int) -> str:
    """The message for a damaged row."""
    return (
        f"a row of {table} has changed since it was written; restore a copy of the file, or delete the row "
        f"(DELETE FROM {table} WHERE {column} = {value!r}): a deleted answer is requested, and paid for, again"
    )


def remedy_of(error: Exception) -> str:
    """What to do about an SQLite error."""
    text = str(error)
    if "full" in text:
        return "free the disk, then run again"
    if "readonly" in text or "unable to open" in text or "not a regular file" in text:
        return "give a path that can be written"
    if "locked" in text or "busy" in text:
        return "another process has it locked: end that, then run again"
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return RESTORE
    return "free the disk or the file, then run again"


def keep_space(path: Path) -> None:
    """Reserve `RESERVE` bytes on the disk, if it has plenty of space."""
    reserve = path.with_name(f"{path.name}.reserve")
    with suppress(OSError):
        room = os.statvfs(path.parent)
        if not reserve.exists() and room.f_bavail * room.f_frsize > 20 * RESERVE:
            with open(reserve, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE)


def free_space(path: Path) -> bool:
    """Free the reserved space; returns whether there was any."""
    try:
        path.with_name(f"{path.name}.reserve").unlink()
        return True
    except OSError:
        return False
