"""Sends one request to a teacher's server within the limits, records it, and retries until answered or out of
attempts."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import aiohttp

from qatoolkit.teacher.calls import Request
from qatoolkit.teacher.completions import ANSWERED, Reply, Response, read_response, unwrap_error
from qatoolkit.teacher.leases import Budget
from qatoolkit.teacher.ledger import Attempt, Ledger
from qatoolkit.teacher.limits import Gate, Pace, TeacherError
from qatoolkit.teacher.transport import REDIRECTS, Endpoint, Send, open_session, remedy_of, sdk_transport, send_request
from qatoolkit.teacher.waits import backoff, jitter, retry_after, seconds_to_wait, seconds_until_room

SHARE_CHECK_SECONDS = 0.5  # seconds between checks of how many processes share the limits


@dataclass
class RowCost:
    """Costs of one row: HTTP requests, USD, whether any answer has no known price, and the keys requested."""

    attempts: int = 0
    cost: float = 0.0
    unpriced: bool = False
    keys: list[str] = field(default_factory=list)


@dataclass(kw_only=True, repr=False)
class Sender:
    """Sends a teacher's requests: at most `in_flight` at once, at the `pace` of its limits per minute, within the
    `budget`. `labels` are the model, run and stage of recorded attempts; `cost` returns the price of a reply and `most`
    the highest price of a request body, in USD, None if unknown. If `sharers` is given, it returns the number of
    processes that share the limits, and each uses its part."""

    endpoint: Endpoint
    ledger: Ledger
    labels: tuple[str, str, str]
    client: Any
    in_flight: int
    timeout: float
    attempts: int
    backoff: float
    pace: Pace
    budget: Budget | None
    cost: Callable[[Reply], float | None]
    most: Callable[[dict], float | None]
    sharers: Callable[[], int] | None = None

    def __post_init__(self):
        self.gate = Gate(self.in_flight, attempts=self.attempts, at=self.endpoint.base_url)
        self._flying: set[asyncio.Task] = set()  # tasks with a request in flight or an unrecorded answer
        self._ending: WeakSet[asyncio.Task] = WeakSet()
        self._tokens = 0.0  # running mean of a request's tokens, prompt and answer
        self._divided_at = -SHARE_CHECK_SECONDS

    async def end(self, tasks: set[asyncio.Task]) -> None:
        """Send nothing more for these tasks, and wait for their requests in flight, at most as long as a request may
        take."""
        if flying := self.stop(tasks):
            await asyncio.wait(flying, timeout=self.timeout)

    def stop(self, tasks: set[asyncio.Task]) -> set[asyncio.Task]:
        """Cancel these tasks. Those with a request in flight are returned, and cancelled once their answer is
        recorded."""
        self._ending.update(tasks)
        for task in tasks - self._flying:
            task.cancel()
        return tasks & self._flying

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Send]:
        """Yields a function that sends a request to the server over open connections."""
        if self.client is not None:
            yield sdk_transport(self.client.with_options(max_retries=0, timeout=self.timeout), self.endpoint)
            return
        timeout = aiohttp.ClientTimeout(total=self.timeout)
        async with open_session(self.endpoint, timeout, self.in_flight) as session:
            yield lambda request: send_request(session, self.endpoint, "POST", "/chat/completions", body=request.sent)

    async def answer(self, send: Send, request: Request, tally: RowCost) -> Reply:
        """Send until answered or out of attempts."""
        failures = Counter()
        while True:
            reply, wait = await self._attempt(send, request, tally, failures)
            if wait is None:
                return reply
            await asyncio.sleep(wait)

    async def _attempt(
        self, send: Send, request: Request, tally: RowCost, failures: Counter
    ) -> tuple[Reply, float | None]:
        """Send once and record the response; the place in flight is kept until then, so that a kill can cost at most
        `in_flight` answers. Returns the seconds to wait before the next attempt, None if this was the last.
        """
        task = asyncio.current_task()
        if task in self._ending:  # a task that never awaited anything was not cancelled yet
            raise asyncio.CancelledError
        if self.sharers and (now := time.monotonic()) - self._divided_at > SHARE_CHECK_SECONDS:
            self._divided_at, sharers = now, self.sharers()
            self.gate.resize(max(1, self.in_flight // sharers))
            self.pace.divide(sharers)
        if self.budget:
            await self.budget.reserve({request.key: self.most(request.body)})
        estimate = await self.pace.take(request.body)
        period = await self.gate.enter()
        self._flying.add(task)
        throttled = False
        try:
            started, clock = time.time(), time.perf_counter()

            def attempt(status: int | None, reply: Reply, cost: float | None, most: float | None) -> Attempt:
                seconds = time.perf_counter() - clock
                result = status, reply.outcome, *reply.tokens, cost, most
                return Attempt(request.key, *self.labels, started, seconds, *result)

            try:
                response = unwrap_error(await send(request))
            except asyncio.CancelledError:  # abandoned: it may be billed
                tally.attempts += 1
                self.ledger.record(attempt(None, Reply("interrupted"), None, self.most(request.body)))
                raise
            throttled = response.status == 429
            reply, answer = read_response(response)
            self.pace.settle(estimate, reply.prompt_tokens, reply.completion_tokens)
            self._tokens += ((reply.prompt_tokens or 0) + (reply.completion_tokens or 0) - self._tokens) / 20
            cost, most = self.cost(reply), None
            if cost is None and (answer or response.failure in ("timeout", "too_large")):  # billed, at least possibly
                most = self.most(request.body)
                cost = 0.0 if most == 0 else None
                tally.unpriced |= cost is None
            tally.attempts += 1
            tally.cost += cost or 0.0
            recorded = attempt(response.status, reply, cost, most)
            await self.ledger.put(recorded, answer and request.text, answer)  # before it is parsed
            if self.ledger.full:
                raise TeacherError(f"{self.ledger.full}: answers in flight are recorded")
            return reply, self._judge(request.key, response, reply, recorded.seconds, period, failures)
        finally:
            self._flying.discard(task)
            self.gate.leave(throttled=throttled)
            if self.budget:
                self.budget.settled()
            if task in self._ending:
                task.cancel()

    def _judge(
        self, key: str, response: Response, reply: Reply, seconds: float, period: int, failures: Counter
    ) -> float | None:
        """Report the response to the gate; returns the seconds to wait before another attempt, None for no more
        attempts."""
        if reply.outcome in ANSWERED:
            self.gate.succeeded(period, seconds, seconds_until_room(response.headers, self._tokens))
            return None
        stray = response.status in REDIRECTS or (response.status in (401, 404) and self.gate.answered)
        stray = stray and self.gate.denied()
        if not stray and (problem := remedy_of(response, reply, self.endpoint, self.labels[0])):
            raise TeacherError(problem)
        if response.status == 429:
            wait = seconds_to_wait(response.headers, response.text)
            failures["throttled"] += 1
            self.gate.throttled(period, wait, reply.error)
            if failures["throttled"] >= 5 * self.attempts:  # a 429 only means "not now", so more of them are allowed
                return None
            # somewhat later than asked, and not all at once
            return wait * (1 + jitter(key) / 2) if wait else backoff(key, failures["throttled"], self.backoff)
        failures["failed"] += 1
        if not (response.transient or (stray and response.status in (401, 404))):
            self.gate.rejected(reply.error)
            return None
        self.gate.failed(reply.error)
        if failures["failed"] >= self.attempts:
            return None
        wait = min(retry_after(response.headers), 60.0)
        return max(wait, backoff(key, failures["failed"], self.backoff))
