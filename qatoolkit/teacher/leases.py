"""Leases: which process is about to send a request, so that no other sends it too, and what the request may cost.

A lease is a row in the ledger file. It is taken before a request is sent and deleted in the commit that records the
answer, so every request is always either free, in flight somewhere, or answered. Each process holds a lock on its own
file beside the ledger while it lives, so the leases of a process that has ended in any way are free at once; those of a
process that hangs expire. The budget counts what all leases may cost, so that processes share it.
"""

import asyncio
import fcntl
import itertools
import json
import sqlite3
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from qatoolkit.core.files import hold_lock
from qatoolkit.teacher.limits import BudgetError

EXPIRES = 1800.0  # seconds after which a lease is free unless renewed


_TAKE = """INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET
    most = CASE WHEN owner = excluded.owner THEN most ELSE 0 END, owner = excluded.owner, expires = excluded.expires,
    model = excluded.model, run = excluded.run, stage = excluded.stage"""
POLL_SECONDS = 0.2  # seconds between checks of what other processes do


class Owner:
    """A process (or one ledger object in it) that holds leases in the ledger at `path`."""

    def __init__(self, path: Path):
        self._path, self._numbers, self.name = path, itertools.count(), uuid.uuid4().hex[:12]
        self._lock = hold_lock(self._file(self.name))
        for left in path.parent.glob(f"{path.name}.*.lock"):
            self.is_alive(left.name.removeprefix(f"{path.name}.").removesuffix(".lock"))

    def new_name(self) -> str:
        """A new name for a holder of leases in this process."""
        return f"{self.name}.{next(self._numbers)}"

    def _file(self, name: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{name}.lock")

    def is_alive(self, holder: str) -> bool:
        """Whether the process of a lease holder still runs; if not, its lock file is removed."""
        name = holder.partition(".")[0]
        if name == self.name:
            return True
        try:
            with open(self._file(name), "r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._file(name).unlink(missing_ok=True)
            return False
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def free_dead(self, connection: sqlite3.Connection) -> int:
        """Delete the leases of processes that no longer run; returns the number of leases."""
        holders = [holder for (holder,) in connection.execute("SELECT DISTINCT owner FROM leases")]
        dead = [(holder,) for holder in holders if not self.is_alive(holder)]
        return connection.executemany("DELETE FROM leases WHERE owner = ?", dead).rowcount if dead else 0

    def release(self, connection: sqlite3.Connection) -> None:
        """Delete all leases of this process."""
        connection.execute("DELETE FROM leases WHERE owner LIKE ?", (f"{self.name}.%",))

    def close(self) -> None:
        """Release the lock and remove its file."""
        self._file(self.name).unlink(missing_ok=True)
        self._lock.close()


class Taken(NamedTuple):
    """The result of a request for leases: keys that have an answer, and keys that another holder has; the rest are
    ours."""

    answered: set[str]
    elsewhere: set[str]


class Leases:
    """The leases of one teacher, whose requests have the `labels` (model, run, stage)."""

    def __init__(self, ledger, labels: tuple[str, str, str]):
        self._ledger, self._labels = ledger, labels
        self._holder: str | None = None
        self.until: dict[str, float] = {}  # key -> time until which its lease need not be checked

    async def take(self, keys: Iterable[str]) -> Taken:
        """Take or renew the lease on every key that is free."""
        keys = list(keys)
        taken = await self._ledger.atransact(lambda connection: self._take(connection, keys))
        check_after = time.time() + EXPIRES / 3
        self.until |= {key: check_after for key in keys if key not in taken.answered and key not in taken.elsewhere}
        return taken

    def _take(self, connection: sqlite3.Connection, keys: list[str]) -> Taken:
        owner, now, keys_json = self._ledger.owner, time.time(), json.dumps(keys)
        self._holder = self._holder or owner.new_name()
        is_key = "key IN (SELECT value FROM json_each(?))"
        answered = {key for (key,) in connection.execute(f"SELECT key FROM responses WHERE {is_key}", (keys_json,))}
        sql = f"SELECT key, owner FROM leases WHERE {is_key} AND owner != ? AND expires > ?"
        holders = dict(connection.execute(sql, (keys_json, self._holder, now)))
        alive = {holder for holder in set(holders.values()) if owner.is_alive(holder)}
        elsewhere = {key for key, holder in holders.items() if holder in alive} - answered
        row = (self._holder, now + EXPIRES, *self._labels, 0.0)
        rows = [(key, *row) for key in keys if key not in answered and key not in elsewhere]
        connection.executemany(_TAKE, rows)
        return Taken(answered, elsewhere)

    def sharers(self) -> int:
        """Number of running processes that hold leases on this model, including this one; they share its limits."""
        now, owner = time.time(), self._ledger.owner
        rows = self._ledger.read(
            "SELECT DISTINCT owner FROM leases WHERE model = ? AND expires > ?", (self._labels[0], now)
        )
        names = {holder.partition(".")[0] for (holder,) in rows} | {owner.name}
        return sum(map(owner.is_alive, names))

    def release(self, keys: Iterable[str]) -> None:
        """Delete leases on requests that got no answer, without waiting for the commit."""
        rows = [(key, self._holder) for key in keys]
        for key, _ in rows:
            self.until.pop(key, None)
        if rows and self._holder:
            self._ledger.enqueue(("DELETE FROM leases WHERE key = ? AND owner = ?", rows))


class Budget:
    """USD that all processes together may spend on requests of one model, run and stage (`labels`).

    The cost of a request is only known afterwards, so its lease first reserves the most it can cost. An attempt whose
    cost stays unknown counts as the most it can have cost."""

    def __init__(self, ledger, labels: tuple[str, str, str], limit: float):
        self._ledger, self._labels, self.limit = ledger, labels, limit
        self._counted, self._spent = 0, 0.0  # the last attempt counted, and the cost of all up to it
        self._settled = asyncio.Event()

    async def reserve(self, most: Mapping[str, float], also: float = 0.0) -> None:
        """Reserve USD for requests, by the keys of their leases, on top of all reservations and of `also`, USD
        committed elsewhere. Waits while reservations of other requests fill the budget. BudgetError if the money is
        spent and no request in flight could return any."""
        while True:
            self._settled.clear()
            spent, reserved = await self._ledger.atransact(lambda connection: self._reserve(connection, most, also))
            if reserved is None:
                return
            if not reserved or len(most) > 1:
                in_flight = f", requests in flight may cost ${reserved + also:.4f}" if reserved + also else ""
                what = "request may cost" if len(most) == 1 else f"{len(most)} requests may cost"
                raise BudgetError(
                    f"budget of ${self.limit:g} reached: this run has spent ${spent:.4f}{in_flight} and the next "
                    f"{what} ${sum(most.values()):.4f}; raise budget= or lower max_tokens (in a profile "
                    "teacher.budget, teacher.max_tokens), then run again: answers so far are in the ledger"
                )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), POLL_SECONDS)

    def settled(self) -> None:
        """Wake waiting reservations: an attempt was recorded."""
        self._settled.set()

    def _reserve(self, connection: sqlite3.Connection, most: Mapping[str, float], also: float):
        """(USD spent, USD reserved by others); the latter is None if the reservation succeeded."""
        is_ours = "model = ? AND run = ? AND stage = ?"
        last, cost = connection.execute(
            f"SELECT max(id), total(coalesce(cost, most)) FROM attempts WHERE {is_ours} AND id > ?",
            (*self._labels, self._counted),
        ).fetchone()
        if last is not None:
            self._counted, self._spent = last, self._spent + cost
        for retried in (False, True):
            sql = f"SELECT total(most) FROM leases WHERE {is_ours}"
            reserved = connection.execute(sql, self._labels).fetchone()[0]
            if self._spent + also + reserved + sum(most.values()) <= self.limit + 1e-12:
                sql = "UPDATE leases SET most = ? WHERE key = ?"
                connection.executemany(sql, [(usd, key) for key, usd in most.items()])
                return self._spent, None
            if retried or not self._ledger.owner.free_dead(connection):
                break
        return self._spent, reserved
