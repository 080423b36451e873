"""Leases: which process is about to send a request, so that no other sends it too, and what it may cost.

A lease is a row in the ledger file. It is taken before a request is sent, and ends in the commit that records the answer;
so at every moment a request is free, in flight somewhere, or answered. The leases of a process that has ended, however
it ended, are free at once: each process holds a lock on a file of its own beside the ledger for as long as it lives. Those
of one that hangs are free when they expire. The budget counts what all leases may cost, so that processes share it.
"""

import asyncio
import fcntl
import itertools
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from qatoolkit.teacher.limits import BudgetError

EXPIRES = 1800.0  # seconds after which a lease that was not renewed is free


_TAKE = """INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET
    most = CASE WHEN owner = excluded.owner THEN most ELSE 0 END, owner = excluded.owner, expires = excluded.expires,
    model = excluded.model, run = excluded.run, stage = excluded.stage"""
OTHERS = 0.2  # seconds between two looks at what other processes are doing


class Owner:
    """A process, or one object in it, that holds leases on the requests of the ledger at `path`."""

    def __init__(self, path: Path):
        self._path, self._numbers, self.name = path, itertools.count(), uuid.uuid4().hex[:12]
        while True:
            self._lock = open(self._file(self.name), "w")  # noqa: SIM115 (held until close)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self._file(self.name))):
                    break  # else another process has just taken it for one left over
            self._lock.close()
        for left in path.parent.glob(f"{path.name}.*.lock"):
            self.is_alive(left.name.removeprefix(f"{path.name}.").removesuffix(".lock"))

    def new_name(self) -> str:
        """A name for one of several holders in this process."""
        return f"{self.name}.{next(self._numbers)}"

    def _file(self, name: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{name}.lock")

    def is_alive(self, holder: str) -> bool:
        """Whether the process that a lease belongs to still runs. The lock file of one that does not is removed."""
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
        """End the leases of processes that no longer run; returns how many those were."""
        holders = [holder for (holder,) in connection.execute("SELECT DISTINCT owner FROM leases")]
        dead = [(holder,) for holder in holders if not self.is_alive(holder)]
        return connection.executemany("DELETE FROM leases WHERE owner = ?", dead).rowcount if dead else 0

    def release(self, connection: sqlite3.Connection) -> None:
        """End all leases of this process."""
        connection.execute("DELETE FROM leases WHERE owner LIKE ?", (f"{self.name}.%",))

    def close(self) -> None:
        """Give the lock back."""
        self._file(self.name).unlink(missing_ok=True)
        self._lock.close()


class Taken(NamedTuple):
    """What became of keys that a lease was asked for: those that have an answer, and those that somebody else is asking
    for; the others are ours."""

    answered: set[str]
    elsewhere: set[str]


class Leases:
    """The leases of one teacher, whose requests are of `labels` (model, run, stage)."""

    def __init__(self, ledger, labels: tuple[str, str, str]):
        self._ledger, self._labels = ledger, labels
        self._holder: str | None = None
        self.until: dict[str, float] = {}  # by key: until when its lease need not be looked at again

    async def take(self, keys: Iterable[str]) -> Taken:
        """Take or renew the lease of every key that is free."""
        keys = list(keys)
        taken = await self._ledger.atransact(lambda connection: self._take(connection, keys))
        until = time.time() + EXPIRES / 3
        self.until |= {key: until for key in keys if key not in taken.answered and key not in taken.elsewhere}
        return taken

    def _take(self, connection: sqlite3.Connection, keys: list[str]) -> Taken:
        owner, now, among = self._ledger.owner, time.time(), json.dumps(keys)
        self._holder = self._holder or owner.new_name()
        some = "key IN (SELECT value FROM json_each(?))"
        answered = {key for (key,) in connection.execute(f"SELECT key FROM responses WHERE {some}", (among,))}
        sql = f"SELECT key, owner FROM leases WHERE {some} AND owner != ? AND expires > ?"
        held = dict(connection.execute(sql, (among, self._holder, now)))
        alive = {holder for holder in set(held.values()) if owner.is_alive(holder)}
        elsewhere = {key for key, holder in held.items() if holder in alive} - answered
        row = (self._holder, now + EXPIRES, *self._labels, 0.0)
        ours = [(key, *row) for key in keys if key not in answered and key not in elsewhere]
        connection.executemany(_TAKE, ours)
        return Taken(answered, elsewhere)

    def sharers(self) -> int:
        """How many processes that run hold leases on this model, this one included: those that its limits are for."""
        now, owner = time.time(), self._ledger.owner
        rows = self._ledger.read(
            "SELECT DISTINCT owner FROM leases WHERE model = ? AND expires > ?", (self._labels[0], now)
        )
        names = {holder.partition(".")[0] for (holder,) in rows} | {owner.name}
        return sum(map(owner.is_alive, names))

    def release(self, keys: Iterable[str]) -> None:
        """End leases whose requests got no answer, without waiting for the commit."""
        rows = [(key, self._holder) for key in keys]
        for key, _ in rows:
            self.until.pop(key, None)
        if rows and self._holder:
            self._ledger.enqueue(("DELETE FROM leases WHERE key = ? AND owner = ?", rows))


class Budget:
    """USD that all processes together may spend on requests of one model, run and stage (`labels`).

    The cost of a request is known only afterwards, so its lease reserves the most it can cost before it is sent. An
    attempt whose cost stays unknown counts as the most it can have cost."""

    def __init__(self, ledger, labels: tuple[str, str, str], limit: float):
        self._ledger, self._labels, self.limit = ledger, labels, limit
        self._counted, self._spent = 0, 0.0  # the last attempt that is counted, and what all until there cost
        self._settled = asyncio.Event()

    async def reserve(self, most: Mapping[str, float], also: float = 0.0) -> None:
        """Reserve USD for requests, by the keys of their leases, beside what is reserved and `also` open elsewhere; waits
        while reservations of others fill the budget. BudgetError if the money is not left and nothing that is in flight
        could return any."""
        while True:
            self._settled.clear()
            spent, reserved = await self._ledger.atransact(lambda connection: self._reserve(connection, most, also))
            if reserved is None:
                return
            if not reserved or len(most) > 1:
                open_too = f", what is under way may cost ${reserved + also:.4f}" if reserved + also else ""
                what = "request may cost" if len(most) == 1 else f"{len(most)} requests may cost"
                raise BudgetError(
                    f"budget of ${self.limit:g} reached: this run has spent ${spent:.4f}{open_too} and the next {what} "
                    f"${sum(most.values()):.4f}; raise budget= or lower max_tokens, then run again: answers so far are "
                    "in the ledger"
                )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), OTHERS)

    def settled(self) -> None:
        """Let those who wait look again: an attempt was recorded."""
        self._settled.set()

    def _reserve(self, connection: sqlite3.Connection, most: Mapping[str, float], also: float):
        """(USD spent, USD reserved by others), the latter None where the reservation was made."""
        mine = "model = ? AND run = ? AND stage = ?"
        last, cost = connection.execute(
            f"SELECT max(id), total(coalesce(cost, most)) FROM attempts WHERE {mine} AND id > ?",
            (*self._labels, self._counted),
        ).fetchone()
        if last is not None:
            self._counted, self._spent = last, self._spent + cost
        for again in (False, True):
            sql = f"SELECT total(most) FROM leases WHERE {mine}"
            reserved = connection.execute(sql, self._labels).fetchone()[0]
            if self._spent + also + reserved + sum(most.values()) <= self.limit + 1e-12:
                sql = "UPDATE leases SET most = ? WHERE key = ?"
                connection.executemany(sql, [(usd, key) for key, usd in most.items()])
                return self._spent, None
            if again or not self._ledger.owner.free_dead(connection):
                break
        return self._spent, reserved
