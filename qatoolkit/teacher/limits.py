"""Limits on what a teacher sends: rates per minute, requests in flight, and a circuit breaker.

A `Pace` keeps within the rates that a provider allows. A `Gate` admits requests: the number in flight falls if 429s are
more than occasional and grows again with the answers; a server that only fails trips its breaker. Everything runs on
one event loop, so nothing here needs a thread lock.
"""

import asyncio
import random
from collections import deque
from collections.abc import Mapping

PATIENCE = 30.0  # seconds of only failures before the breaker trips
LONGEST_WAIT = 600.0  # seconds; if the server asks for more, the run stops
DENIED = 3  # in a row: then a 401, 404 or redirect is not a stray one
REJECTED = 50  # requests rejected for good in a row before the run stops


class TeacherError(RuntimeError):
    """The teacher cannot continue; the message says why and what to do. Answers so far are in the ledger."""


class BudgetError(TeacherError):
    """The next request could cost more than is left in the budget."""


class Gate:
    """Admits at most `limit` requests at a time and stops everything if the server only fails.

    `in_flight` is the ceiling of the adaptive limit. The limit changes after as many responses as it has places: if
    more than a tenth of them are 429s it falls by their share, at most by half, else it grows. So occasional 429s cost
    only the requests that they hit. A place that got a 429 rests for about as long as an answer takes; otherwise a
    server that refuses instantly would be tried by every waiting request and seem to refuse everything. The rest is
    random, so that not all come back at the same moment, which a server that counts per tenth of a second would refuse.
    If nearly all requests were refused, all wait as long as the server asks.

    The breaker trips at 5 x `in_flight` transient failures without an answer between them, or after `PATIENCE` seconds
    of them (the `attempts` of a single request never trip it), and at `REJECTED` requests in a row that the server
    rejects for good, or fewer before its first answer. `at`, the server's URL, is named in its messages.
    """

    def __init__(self, in_flight: int, *, attempts: int, at: str = "base_url"):
        self.ceiling, self.at = in_flight, at
        self.limit = float(in_flight)
        self.active = 0
        self.answered = 0
        self._most_failures = max(5 * in_flight, 2 * attempts)
        self._few_failures = max(in_flight, attempts)
        self._failures = self._rejects = self._denials = 0  # in a row
        self._failing_since = 0.0
        self._period = self._seen = self._throttled = 0  # limit's changes; responses, 429s since
        self._seconds = 0.2  # running mean of the time an answer takes
        self._resume_at = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def resize(self, in_flight: int) -> None:
        """Change the ceiling. A higher one raises the limit in proportion, so that places given up by another process
        are used at once."""
        if in_flight != self.ceiling:
            self.limit = min(in_flight, self.limit * max(1.0, in_flight / self.ceiling))
            self.ceiling = in_flight
            self._admit()

    async def enter(self) -> int:
        """Wait for a place; returns the number of the period that the request belongs to."""
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
        return self._period

    def leave(self, *, throttled: bool = False) -> None:
        """Give the place back; after a 429, only after a rest."""
        if throttled:
            rest = self._seconds * random.uniform(0.5, 1.5)
            asyncio.get_running_loop().call_later(rest, self.leave)
            return
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

    def succeeded(self, period: int, seconds: float, used_up: float = 0.0) -> None:
        """Count an answer and the seconds it took; `used_up`: seconds for which, by its headers, a limit has no
        room."""
        self._seconds = seconds if not self.answered else 0.95 * self._seconds + 0.05 * seconds
        self.answered += 1
        self._failures = self._rejects = self._denials = 0
        self._count(period, 0)
        if used_up:
            self._pause(min(used_up, 60.0))

    def throttled(self, period: int, wait: float, error: str) -> None:
        """Count a 429 and the seconds that it asks to wait (0 if it does not say)."""
        if wait > LONGEST_WAIT:
            raise TeacherError(
                f"the server asks to wait {wait:.0f} s ({error}); run again after that, answers are kept"
            )
        self._count(period, 1, wait)
        self.failed(error, excused=wait)

    def _count(self, period: int, throttled: int, wait: float = 0.0) -> None:
        """Count a response to a request sent since the limit's last change; change it again after enough of them."""
        if period != self._period:
            return
        self._seen += 1
        self._throttled += throttled
        if self._seen < max(8.0, self.limit):
            return
        share = self._throttled / self._seen
        if share > 0.1:
            self.limit = max(1.0, self.limit * max(0.5, 1 - share))
        else:
            self.limit = min(self.ceiling, self.limit * (1.1 if self._throttled else 1.25))
        if share > 0.9 and wait:
            self._pause(wait)
        self._period, self._seen, self._throttled = self._period + 1, 0, 0

    def _pause(self, wait: float) -> None:
        """Admit no requests for `wait` seconds."""
        loop = asyncio.get_running_loop()
        if loop.time() + wait > self._resume_at:
            self._resume_at = loop.time() + wait
            loop.call_later(wait + 0.001, self._admit)

    def denied(self) -> bool:
        """Count a redirect, or a 401 or 404 from a server that has answered before; returns whether it may be a stray
        one."""
        self._denials += 1
        return self._denials < DENIED

    def rejected(self, error: str) -> None:
        """Count a request that the server rejects for good; TeacherError after `REJECTED` in a row."""
        self._rejects += 1
        if self._rejects >= (REJECTED if self.answered else min(REJECTED, self._most_failures)):
            rejects, self._rejects = self._rejects, 0
            raise TeacherError(
                f"{rejects} requests in a row were rejected, the last with {error}. Check the account at {self.at}, "
                "the model and the request (extra, max_tokens, length of prompts), then run again: answers so far are "
                "in the ledger"
            )

    def failed(self, error: str, *, excused: float = 0.0) -> None:
        """Count a transient failure; TeacherError after too many without an answer. `excused` seconds, for which the
        server asked to wait, do not count as failing."""
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
                f"{failures} requests to {self.at} failed in a row, the last with {error}. Check that the server is up "
                "and that base_url (which usually ends in /v1), model and key are right, then run again: answers so "
                "far are in the ledger"
            )


class Rate:
    """At most `per_minute` requests or tokens: a token bucket with a capacity of one second.

    Callers that need more than it contains wait for the refill, first come first served.
    """

    def __init__(self, per_minute: float):
        self.per_second = self._whole = per_minute / 60
        self._most = self._level = max(1.0, self.per_second)
        self._at: float | None = None
        self._turn = asyncio.Lock()

    async def take(self, amount: float = 1.0) -> None:
        """Return when `amount` may be used. More than the capacity leaves a debt for which the next callers wait."""
        async with self._turn:
            self._refill()
            if (missing := min(amount, self._most) - self._level) > 0:
                await asyncio.sleep(missing / self.per_second)
                self._refill()
            self._level -= amount

    def divide(self, sharers: int) -> None:
        """Use one of `sharers` equal parts of the rate."""
        self.per_second = self._whole / sharers
        self._most = max(1.0, self.per_second)
        self._level = min(self._most, self._level)

    def refund(self, amount: float) -> None:
        """Give `amount` back; negative if more was used than was taken."""
        self._level = min(self._most, self._level + amount)

    def _refill(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._at is not None:
            self._level = min(self._most, self._level + (now - self._at) * self.per_second)
        self._at = now


class Pace:
    """Limits on requests and tokens per minute (None: no limit). Tokens are estimated before a request and corrected
    after it."""

    def __init__(self, requests: float | None, tokens: float | None):
        self._requests, self._tokens = (None if rate is None else Rate(rate) for rate in (requests, tokens))
        self._usual: float | None = None  # running mean of an answer's tokens

    def divide(self, sharers: int) -> None:
        """Use one of `sharers` equal parts of the limits."""
        for rate in (self._requests, self._tokens):
            if rate:
                rate.divide(sharers)

    async def take(self, body: Mapping) -> float:
        """Wait until a request may be sent; returns the tokens taken for it: the prompt's bytes / 4, plus the mean
        answer so far (before the first, the most an answer may have)."""
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
