"""Asking a teacher in batches: half the price, for answers that may take a day.

`BatchTeacher` is a `Teacher` whose requests leave in files instead of one by one (OpenAI's Batch API, which other
providers and servers offer too). Rows are worked on as ever; a request that the ledger does not hold waits until all
rows wait, and then leaves with the others. What is submitted stands in the ledger (`qatoolkit.teacher.outstanding`) before the
server starts on it, so a client that is killed picks its batches up at the next call and pays for nothing twice.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pandas as pd

from qatoolkit.teacher.batch_api import Wire
from qatoolkit.teacher.batch_jobs import Carrier, Outstanding, Want, Wants
from qatoolkit.teacher.calls import Ask, Messages, table_of
from qatoolkit.teacher.client import Teacher
from qatoolkit.teacher.event_loop import gather_all
from qatoolkit.teacher.limits import BudgetError, TeacherError
from qatoolkit.teacher.transport import ANSWERED, HOPELESS, Reply

__all__ = ["BatchTeacher"]


class BatchTeacher(Teacher):
    """A `Teacher` that asks through `/v1/files` and `/v1/batches`; takes what `Teacher` takes, but no `client`.

    `discount` is the price of a batch as a share of the list price. `poll` is the most seconds between two looks at a
    batch (the first come sooner), `log` is told when something changes. `requests_per_file` and `bytes_per_file` are the
    provider's limits. `attempts` counts submissions of one request; limits on what is in flight and rates a minute do
    not apply. A budget bounds what may be submitted: BudgetError, before anything leaves, if all of it and what is still
    outstanding, at its dearest, might exceed the budget.
    """

    def __init__(
        self,
        model: str,
        *,
        discount: float = 0.5,
        poll: float = 60.0,
        log: Callable[[str], Any] = print,
        requests_per_file: int = 50_000,
        bytes_per_file: int = 200_000_000,
        **options: Any,
    ):
        if options.get("client") is not None:
            raise ValueError("BatchTeacher takes no client: pass endpoint=Endpoint(base_url=..., key_env=...)")
        if not 0 <= discount <= 1:
            raise ValueError(f"BatchTeacher discount is {discount!r}: give the share of the list price, 0 to 1")
        limits = {"poll": poll, "requests_per_file": requests_per_file, "bytes_per_file": bytes_per_file}
        for name, value in limits.items():
            if not value > 0:
                raise ValueError(f"BatchTeacher {name} is {value!r}: give a number above 0")
        super().__init__(model, **options)
        self.discount, self._way = discount, {"log": log, **limits}
        self._outstanding = Outstanding(self.ledger, self.endpoint.name)

    def forget(self, batch: str) -> None:
        """Stop waiting for a batch: what it would have answered is submitted, and paid for, anew."""
        self._outstanding.forget(batch)

    async def _ask(self, state: Ask) -> pd.DataFrame:
        wants: Wants = {}

        async def row(index: int, id: Any, sample: int, messages: Messages) -> None:
            state.put(index, await self._answer(wants, id, sample, messages, state.parse))

        async with self._carrier() as carrier:
            await gather_all([self._serve(carrier, state, wants), *(row(*job) for job in state.jobs())])
        return table_of(state.rows)

    async def _send(self, wants: Wants, key: str, request: str, body: dict, tally) -> Reply:
        """Want an answer until there is one, the request is out of attempts, or two batches left it out."""
        failed = left_out = 0
        while True:
            wants[key] = want = Want(key, request, body, asyncio.get_running_loop().create_future())
            got, reply, cost, attempts = await want.line
            tally.attempts += attempts
            tally.cost += cost or 0.0
            if reply.outcome in ANSWERED:
                tally.unpriced |= cost is None
                return reply
            if remedy := HOPELESS.get(got.status):
                remedy = remedy.format(key_env=self.endpoint.key_env, model=self.model)
                raise TeacherError(f"{self.endpoint.name} answered {reply.error}; {remedy}")
            failed, left_out = failed + 1, left_out + got.failure.startswith("batch_")
            if not got.transient or failed >= self.attempts or left_out > 1:
                return reply

    async def _serve(self, carrier: Carrier, state: Ask, wants: Wants) -> None:
        """Submit what is wanted whenever no row can go on without it, until all rows are done."""
        running: set[asyncio.Task] = set()
        try:
            while state.done < state.total:
                await _quiet(state, wants)
                if wants:
                    now = dict(wants)
                    wants.clear()
                    parcels, fresh = await carrier.sort(now)
                    self._afford([want.body for want in fresh.values()])
                    parcels += await carrier.submit(fresh)
                    running |= {asyncio.create_task(carrier.follow(parcel)) for parcel in parcels}
                elif not running:  # the rows left wait for what another call has asked
                    await asyncio.sleep(0.05)
                if running:
                    ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in ended:
                        task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _afford(self, fresh: list[dict]) -> None:
        if not (self._budget and fresh):
            return
        spent, waiting = self._spent(), self._outstanding.most(self.model, self.run, self.stage)
        most = sum(map(self._most, fresh))
        if spent + waiting + most > self._budget.limit:
            raise BudgetError(
                f"budget of ${self._budget.limit:g}: ${spent:.4f} is spent, batches under way may cost ${waiting:.4f} and "
                f"the next {len(fresh)} requests ${most:.4f}; raise budget=, lower max_tokens or ask for less at a time: "
                "answers so far are in the ledger"
            )

    def _cost(self, reply: Reply) -> float | None:
        cost = super()._cost(reply)
        return None if cost is None else self.discount * cost

    def _most(self, body: dict[str, Any]) -> float:
        return self.discount * super()._most(body)

    @asynccontextmanager
    async def _carrier(self) -> AsyncIterator[Carrier]:
        # A file of 200 MB may take its time, silence may not.
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self.timeout, sock_read=self.timeout)
        async with aiohttp.ClientSession(
            timeout=limits, cookie_jar=aiohttp.DummyCookieJar(), trust_env=not self.endpoint.is_local
        ) as session:
            bounded = {"max_tokens", "max_completion_tokens"} & set(self._body)
            tries = {"attempts": self.attempts, "backoff": self._backoff, "patience": 20 * self._way["poll"]}
            yield Carrier(
                wire=Wire(session, self.endpoint, **tries),
                outstanding=self._outstanding,
                endpoint=self.endpoint,
                asker=(self.model, self.run, self.stage),
                cost=self._cost,
                most=self._most if self.price and bounded else lambda body: None,
                **self._way,
            )


async def _quiet(state: Ask, wants: Wants) -> None:
    """Return when no row can go on: nothing has changed for some turns of the loop. Rows wait for nothing but answers, so a
    turn moves each by at least one step; one that is late would only leave with the next file."""
    before, still = None, 0
    while still < 10:
        now = state.done, len(wants)
        still = still + 1 if now == before else 0
        before = now
        await asyncio.sleep(0)
