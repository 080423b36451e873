"""One request to a teacher's server: sent within the limits, read, recorded, and repeated until answered or out of
attempts."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from qatoolkit.teacher.calls import Request
from qatoolkit.teacher.ledger import Attempt, Ledger
from qatoolkit.teacher.limits import Budget, Gate, Pace, TeacherError, backoff, retry_after
from qatoolkit.teacher.transport import (
    ANSWERED,
    Endpoint,
    Reply,
    Response,
    Send,
    check_not_fatal,
    open_session,
    read_response,
    sdk_transport,
    send_request,
)


@dataclass
class Tally:
    """What one row caused: HTTP requests, USD, whether some answer has no known price, and the keys requested."""

    attempts: int = 0
    cost: float = 0.0
    unpriced: bool = False
    keys: list[str] = field(default_factory=list)


@dataclass(kw_only=True, repr=False)
class Sender:
    """Sends a teacher's requests: at most `in_flight` at a time, at the `pace` of its limits a minute, within the
    `budget`. `labels` are the model, run and stage that attempts are recorded under; `cost` gives the price of a reply
    and `most` the highest price of a body, in USD."""

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
    most: Callable[[dict], float]

    def __post_init__(self):
        self.gate = Gate(self.in_flight, attempts=self.attempts)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Send]:
        """A function that sends a body to the server, with its connections open meanwhile."""
        if self.client is not None:
            yield sdk_transport(self.client.with_options(max_retries=0, timeout=self.timeout), self.endpoint)
            return
        timeout = aiohttp.ClientTimeout(total=self.timeout)
        async with open_session(self.endpoint, timeout, self.in_flight) as session:
            yield lambda body: send_request(session, self.endpoint, "POST", "/chat/completions", json=body)

    async def answer(self, send: Send, request: Request, tally: Tally) -> Reply:
        """Send until answered or out of attempts."""
        failures = Counter()
        while True:
            reply, wait = await self._attempt(send, request, tally, failures)
            if wait is None:
                return reply
            await asyncio.sleep(wait)

    async def _attempt(
        self, send: Send, request: Request, tally: Tally, failures: Counter
    ) -> tuple[Reply, float | None]:
        """Send once and record the response; the place in flight is kept until that is done.

        So a 429 pauses the others before any of them can take the place, and a kill can cost no more answers than
        `in_flight`. Returns the seconds to wait before the next attempt, None if this was the last.
        """
        most = self.most(request.body) if self.budget else 0.0
        paid = 0.0
        if self.budget:
            await self.budget.reserve(most)
        try:
            estimate = await self.pace.take(request.body)
            burst = await self.gate.enter()
            try:
                paid = most  # from here on it may be billed, until we know better
                started, clock = time.time(), time.perf_counter()
                response = await send(request.body)
                seconds = time.perf_counter() - clock
                reply, answer = read_response(response)
                self.pace.settle(estimate, reply.prompt_tokens, reply.completion_tokens)
                cost = self.cost(reply)
                if cost is not None or not (answer or response.failure == "timeout"):
                    paid = cost or 0.0
                tally.attempts += 1
                tally.cost += cost or 0.0
                tally.unpriced |= bool(answer) and cost is None
                result = response.status, reply.outcome, *reply.tokens, cost
                attempt = Attempt(request.key, *self.labels, started, seconds, *result)
                await self.ledger.aput(attempt, answer and request.text, answer)  # before anybody parses it
                return reply, self._judge(request.key, response, reply, burst, failures)
            finally:
                self.gate.leave()
        finally:
            if self.budget:
                self.budget.settle(most, paid)

    def _judge(self, key: str, response: Response, reply: Reply, burst: int, failures: Counter) -> float | None:
        """Report the response to the gate; returns the seconds to wait before another attempt, None for no other."""
        if reply.outcome in ANSWERED:
            self.gate.succeeded()
            return None
        requested = retry_after(response.headers)
        if response.status == 429:
            if "insufficient_quota" in response.text:
                raise TeacherError(f"the quota at {self.endpoint.name} is used up: {reply.error}")
            failures["throttled"] += 1
            self.gate.throttled(burst, requested, reply.error)
            if failures["throttled"] >= 5 * self.attempts:  # a 429 only means "not now", so more of them are allowed
                return None
            return 0.0 if requested else backoff(key, failures["throttled"], self.backoff)
        check_not_fatal(response, reply, self.endpoint, self.labels[0])
        if response.transient or not self.gate.answered:  # a server that works may well reject one prompt
            self.gate.failed(reply.error)
        failures["failed"] += 1
        if not response.transient or failures["failed"] >= self.attempts:
            return None
        return max(min(requested, 60.0), backoff(key, failures["failed"], self.backoff))
