"""One request to a teacher's server: admitted, sent, read, committed and judged, until it is answered or out of attempts."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from qatoolkit.teacher.ledger import Attempt, Ledger
from qatoolkit.teacher.limits import Budget, Gate, Pace, TeacherError, backoff, retry_after
from qatoolkit.teacher.transport import (
    ANSWERED,
    HOPELESS,
    Endpoint,
    Got,
    Reply,
    Send,
    raw_transport,
    read_got,
    sdk_transport,
)


@dataclass
class Tally:
    """What one row caused: HTTP requests, USD, whether some answer has no known price, and the keys asked under."""

    attempts: int = 0
    cost: float = 0.0
    unpriced: bool = False
    keys: list[str] = field(default_factory=list)


@dataclass
class _Tries:
    """How one request has fared so far."""

    failed: int = 0
    throttled: int = 0


class Sender:
    """The way of a teacher's requests through one admission layer: at most `in_flight` at a time, at the `pace` of its limits a
    minute, within the `budget`. `labels` are the model, run and stage that attempts are recorded under; `cost` tells what a reply
    cost in USD and `most` what a body can cost."""

    def __init__(
        self,
        endpoint: Endpoint,
        ledger: Ledger,
        labels: tuple[str, str, str],
        *,
        client: Any,
        in_flight: int,
        timeout: float,
        attempts: int,
        backoff: float,
        pace: Pace,
        budget: Budget | None,
        cost: Callable[[Reply], float | None],
        most: Callable[[dict], float],
    ):
        self.gate = Gate(in_flight, attempts=attempts)
        self._endpoint, self._ledger, self._labels, self._client = endpoint, ledger, labels, client
        self._in_flight, self._timeout, self._attempts, self._backoff = in_flight, timeout, attempts, backoff
        self._pace, self._budget, self._cost, self._most = pace, budget, cost, most

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Send]:
        """The way to the server, open for as long as it is used."""
        if self._client is not None:
            yield sdk_transport(self._client.with_options(max_retries=0, timeout=self._timeout), self._endpoint)
            return
        # aiohttp's own default is 100 connections, whatever in_flight says.
        connector = aiohttp.TCPConnector(limit=self._in_flight, ttl_dns_cache=300)
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=not self._endpoint.is_local,
        ) as session:
            yield raw_transport(session, self._endpoint)

    async def answer(self, send: Send, key: str, request: str, body: dict, tally: Tally) -> Reply:
        """Send until answered or out of attempts."""
        tries = _Tries()
        while True:
            reply, wait = await self._attempt(send, key, request, body, tally, tries)
            if wait is None:
                return reply
            await asyncio.sleep(wait)

    async def _attempt(
        self, send: Send, key: str, request: str, body: dict, tally: Tally, tries: _Tries
    ) -> tuple[Reply, float | None]:
        """One HTTP request: admitted, read, committed, judged; the place is held until all that is done.

        So a 429 pauses the others before any of them can take the place, and a kill can cost no more answers
        than `in_flight`. Returns the seconds to wait before the next attempt, None when this was the last.
        """
        most = self._most(body) if self._budget else 0.0
        paid = 0.0
        if self._budget:
            await self._budget.reserve(most)
        try:
            guessed = await self._pace.take(body)
            burst = await self.gate.enter()
            try:
                paid = most  # from here on it may be billed, until we know better
                started, clock = time.time(), time.perf_counter()
                got = await send(body)
                seconds = time.perf_counter() - clock
                reply, answer = read_got(got)
                self._pace.settle(guessed, reply.prompt_tokens, reply.completion_tokens)
                cost = self._cost(reply)
                if cost is not None or not (answer or got.failure == "timeout"):
                    paid = cost or 0.0
                tally.attempts += 1
                tally.cost += cost or 0.0
                tally.unpriced |= bool(answer) and cost is None
                attempt = Attempt(
                    *(key, *self._labels, started, seconds, got.status, reply.outcome),
                    *(reply.prompt_tokens, reply.completion_tokens, reply.reasoning_tokens, cost),
                )
                await self._ledger.aput(attempt, answer and request, answer)  # before anybody parses it
                return reply, self._judge(key, got, reply, burst, tries)
            finally:
                self.gate.leave()
        finally:
            if self._budget:
                self._budget.settle(most, paid)

    def _judge(self, key: str, got: Got, reply: Reply, burst: int, tries: _Tries) -> float | None:
        """Tell the gate how it went; returns the seconds to wait before another attempt, None for none."""
        if reply.outcome in ANSWERED:
            self.gate.succeeded()
            return None
        asked = retry_after(got.headers)
        if got.status == 429:
            if "insufficient_quota" in got.text:
                raise TeacherError(f"the quota at {self._endpoint.name} is used up: {reply.error}")
            tries.throttled += 1
            self.gate.throttled(burst, asked, reply.error)
            if tries.throttled >= 5 * self._attempts:  # it only says `not now`, hence the longer allowance
                return None
            return 0.0 if asked else backoff(key, tries.throttled, self._backoff)
        if remedy := HOPELESS.get(got.status):
            remedy = remedy.format(key_env=self._endpoint.key_env, model=self._labels[0])
            raise TeacherError(f"{self._endpoint.name} answered {reply.error}; {remedy}")
        if got.transient or not self.gate.answered:  # a live server may well reject one prompt
            self.gate.failed(reply.error)
        tries.failed += 1
        if not got.transient or tries.failed >= self._attempts:
            return None
        return max(min(asked, 60.0), backoff(key, tries.failed, self._backoff))
