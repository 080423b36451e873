"""Limits on what a teacher sends: rates a minute, requests in flight, a server that only fails, the budget.

A `Pace` keeps below the rates that a provider allows. A `Gate` admits requests: a 429 halves the number in flight, once
per burst, and every success raises it a little (additive increase, multiplicative decrease); a server that only fails
trips its breaker. Everything runs on one event loop, so nothing here needs a thread lock.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

PATIENCE = 30.0  # seconds of nothing but failures before the breaker trips
LONGEST_WAIT = 600.0  # seconds; if the server asks for more, the run stops


class TeacherError(RuntimeError):
    """The teacher cannot go on; the message says why and what to do. Answers so far are in the ledger."""


class BudgetError(TeacherError):
    """The next request could cost more than is left of the budget."""


class Gate:
    """Admits at most `limit` requests at a time and stops everything if the server only fails.

    `in_flight` is the ceiling of the adaptive limit. The breaker trips at 5 x `in_flight` failures without a success
    between them, or after `PATIENCE` seconds of failures; the `attempts` of a single request never trip it.
    """

    def __init__(self, in_flight: int, *, attempts: int):
        self.ceiling = in_flight
        self.limit = float(in_flight)
        self.active = 0
        self.answered = 0
        self._most_failures = max(5 * in_flight, 2 * attempts)
        self._few_failures = max(in_flight, attempts)
        self._failures = 0
        self._failing_since = 0.0
        self._burst = 0
        self._resume_at = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> int:
        """Wait for a place; returns the number of the burst that the request belongs to."""
        loop = asyncio.get_running_loop()
        if self._waiting or self.active + 1 > self.limit or loop.time() < self._resume_at:
            turn = loop.create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.leave()
                raise
        else:
            self.active += 1
        return self._burst

    def leave(self) -> None:
        """Give the place back."""
        self.active -= 1
        if self._waiting:
            self._admit()

    def _admit(self) -> None:
        if asyncio.get_running_loop().time() < self._resume_at:
            return
        while self._waiting and self.active + 1 <= self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self.active += 1
                turn.set_result(None)

    def succeeded(self) -> None:
        """Count an answer, and raise the limit a little."""
        self.answered += 1
        self._failures = 0
        if self.limit < self.ceiling:
            self.limit = min(self.ceiling, self.limit + 1 / self.limit)

    def throttled(self, burst: int, wait: float, seen: str) -> None:
        """Count a 429 with its Retry-After in seconds (0 if none): pause everything, halve the limit once per burst."""
        if wait > LONGEST_WAIT:
            raise TeacherError(f"the server asks to wait {wait:.0f} s ({seen}): run again after that; answers are kept")
        loop = asyncio.get_running_loop()
        if burst == self._burst:
            self._burst += 1
            self.limit = max(1.0, self.limit / 2)
        if wait and loop.time() + wait > self._resume_at:
            self._resume_at = loop.time() + wait
            loop.call_later(wait + 0.001, self._admit)
        self.failed(seen, excused=wait)

    def failed(self, seen: str, *, excused: float = 0.0) -> None:
        """Count a failure; TeacherError after too many without a success. `excused` are seconds that the server asked
        to wait; they do not count as failing."""
        now = asyncio.get_running_loop().time()
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        if excused:
            self._failing_since = max(self._failing_since, now + excused)
        lasting = now - self._failing_since
        if self._failures >= self._most_failures or (self._failures > self._few_failures and lasting > PATIENCE):
            failures, self._failures = self._failures, 0
            raise TeacherError(
                f"{failures} requests failed in a row, the last with {seen}. Check that the server is up and "
                "that base_url, model and key are right, then run again: answers so far are in the ledger"
            )


class Rate:
    """At most `per_minute` of something (requests, tokens), as a token bucket that holds one second's worth.

    Those who take more than is there wait for the refill, first come first served.
    """

    def __init__(self, per_minute: float):
        self.per_second = per_minute / 60
        self._most = self._level = max(1.0, self.per_second)
        self._at: float | None = None
        self._turn = asyncio.Lock()

    async def take(self, amount: float = 1.0) -> None:
        """Return when `amount` may be used. An amount above one second's worth leaves a debt that the next ones wait
        for."""
        async with self._turn:
            self._refill()
            if (missing := min(amount, self._most) - self._level) > 0:
                await asyncio.sleep(missing / self.per_second)
                self._refill()
            self._level -= amount

    def refund(self, amount: float) -> None:
        """Give `amount` back; negative if more was used than taken."""
        self._level = min(self._most, self._level + amount)

    def _refill(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._at is not None:
            self._level = min(self._most, self._level + (now - self._at) * self.per_second)
        self._at = now


class Pace:
    """Limits on requests and tokens a minute (None: no limit). Tokens are estimated before a request and corrected
    after it."""

    def __init__(self, requests: float | None, tokens: float | None):
        self._requests, self._tokens = (None if rate is None else Rate(rate) for rate in (requests, tokens))
        self._usual: float | None = None  # tokens of an answer, a running mean

    async def take(self, body: Mapping) -> float:
        """Wait for a request's turn; returns the tokens taken for it: the prompt's bytes / 4, plus the mean of the
        answers so far (before the first, the most that one may have)."""
        if self._requests:
            await self._requests.take()
        if not self._tokens:
            return 0.0
        prompt = sum(len(str(m.get("content")).encode("utf-8", "replace")) for m in body["messages"]) / 4
        answer = self._usual or body.get("max_tokens") or body.get("max_completion_tokens") or 1024
        await self._tokens.take(prompt + answer)
        return prompt + answer

    def settle(self, taken: float, prompt: int | None, completion: int | None) -> None:
        """Replace the tokens taken by those used; a failed request used none."""
        if not self._tokens:
            return
        self._tokens.refund(taken - (prompt or 0) - (completion or 0))
        if completion:
            self._usual = completion if self._usual is None else 0.95 * self._usual + 0.05 * completion


class Budget:
    """USD that may be spent. The cost of a request is known only afterwards, so each reserves the most it can cost
    before it is sent, and waits while reservations of others fill the budget."""

    def __init__(self, limit: float, spent: float):
        self.limit = limit
        self.spent = spent
        self._reserved: list[float] = []
        self._waiting: list[asyncio.Future[None]] = []

    async def reserve(self, most: float) -> None:
        """Reserve `most` USD; BudgetError if they are not left and no reservation can return any."""
        while self.spent + sum(self._reserved) + most > self.limit:
            if not self._reserved:
                raise BudgetError(
                    f"budget of ${self.limit:g} reached: this run has spent ${self.spent:.4f} and the next "
                    f"request may cost ${most:.4f}; raise budget= or lower max_tokens, then run again: "
                    "answers so far are in the ledger"
                )
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self._reserved.append(most)

    def settle(self, most: float, paid: float) -> None:
        """Replace a reservation by what was paid."""
        self._reserved.remove(most)
        self.spent += paid
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)
        self._waiting.clear()


def backoff(key: str, failures: int, base: float) -> float:
    """Seconds to wait after a request's n-th failure: exponential, at most 30 before jitter, which depends on the key
    alone."""
    digest = hashlib.sha256(f"{key}:{failures}".encode()).digest()
    jitter = 0.5 + int.from_bytes(digest[:4], "big") / 2**33
    return min(30.0, base * 2 ** (failures - 1)) * jitter


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds from retry-after-ms or Retry-After (a number, or an HTTP date by the server's clock); 0 if absent or
    unreadable."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        value = headers.get("Retry-After", "0")
        if value.replace(".", "", 1).isdigit():
            return float(value)
        until, now = _utc(value), headers.get("Date")
        return max(0.0, (until - (_utc(now) if now else datetime.now(UTC))).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _utc(value: str) -> datetime:
    """The time of an HTTP date; "-0000" means UTC without a known place."""
    at = parsedate_to_datetime(value)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
