"""Asking a teacher model: every answer typed, paid for once, and returned as a table in the order asked.

A `Teacher` speaks to any OpenAI-compatible server. Each request is looked up in the ledger under the hash of
all that shapes its answer; what is missing is sent through one admission layer, committed, and only then
parsed. A retry after an empty or truncated answer, and the correction of one that did not parse, are requests
of their own with keys of their own, so a rerun after a crash replays to the same table and sends only what
was never answered. Everything runs on the library's own event-loop thread: the same in a script, a notebook
and papermill.
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pandas as pd

from qatoolkit.core.display import Progress
from qatoolkit.teacher.calls import Ask, Messages, Row, checked, jobs_of, parsed, table_of
from qatoolkit.teacher.event_loop import TICK, background_loop, gather_all, run
from qatoolkit.teacher.ledger import Ledger, Price, cache_key, canonical, price_of
from qatoolkit.teacher.limits import Budget, BudgetError, Pace, TeacherError
from qatoolkit.teacher.sender import Sender, Tally
from qatoolkit.teacher.transport import ANSWERED, Endpoint, Reply, Send, read

__all__ = ["BudgetError", "Endpoint", "Teacher", "TeacherError"]

AHEAD = 256  # prompts that are looked up in the ledger together
RETAKES = 1  # how often an empty or truncated answer is asked for again
CORRECTION = "That answer could not be read: {error}\nAnswer again, in exactly the format asked for and nothing else."


class _Request(NamedTuple):
    """A request: the body sent, the canonical text stored, and its hash, the key in the ledger."""

    body: dict[str, Any]
    text: str
    key: str


class Teacher:
    """A model behind an endpoint, with its sampling, its ledger and the limits on what it may do.

    `timeout` in seconds per request, `attempts` per request before its failure becomes the row's outcome,
    `backoff` in seconds before the first retry, `extra` for any other field of the request body (top_p, seed,
    response_format). `requests_per_minute` and `tokens_per_minute` keep below a provider's limits (the tokens of a request
    are estimated before and corrected after). `budget` in USD bounds what `run` and `stage` may spend on this model in this ledger,
    earlier sessions included; it needs a price from prices.csv or `price`. With
    `client=openai.AsyncOpenAI(...)` (or Azure, or any subclass) requests go through that client, about a
    fifth as fast as the built-in transport; do not share it with another loop. With `progress` every `ask` that takes a second shows
    its rate, the time left and the USD spent.
    """

    def __init__(
        self,
        model: str,
        *,
        ledger: Ledger,
        endpoint: Endpoint | None = None,
        run: str = "",
        stage: str = "",
        in_flight: int = 64,
        timeout: float = 120.0,
        attempts: int = 6,
        backoff: float = 0.5,
        max_tokens: int | None = 8192,
        temperature: float | None = 0.6,
        extra: Mapping[str, Any] | None = None,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        budget: float | None = None,
        price: Price | None = None,
        client: Any = None,
        progress: bool = False,
    ):
        limits = {"in_flight": in_flight, "attempts": attempts, "timeout": timeout}
        rates = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        for name, value in (limits | {n: v for n, v in rates.items() if v is not None}).items():
            if not value > 0:
                raise ValueError(f"Teacher {name} is {value!r}: give a number above 0")
        if reserved := {"model", "messages", "stream", "n"} & set(extra or ()):
            raise ValueError(f"Teacher extra may not set {sorted(reserved)}: ask() does; samples= replaces n")
        self.model, self.ledger, self.run, self.stage = model, ledger, run, stage
        if endpoint is None:
            endpoint = Endpoint(base_url=str(client.base_url)) if client else Endpoint.from_env()
        self.endpoint = endpoint
        self.timeout, self.attempts, self.in_flight = timeout, attempts, in_flight
        self.price = price or price_of(model)
        self._backoff, self._progress = backoff, progress
        sampling = {
            "max_tokens": max_tokens,
            "temperature": None if temperature is None else float(temperature),
            **(extra or {}),
        }
        self._body = {"model": model} | {name: value for name, value in sampling.items() if value is not None}
        self._budget = self._open_budget(budget)
        self._sender = Sender(
            self.endpoint, ledger, (model, run, stage), client=client, in_flight=in_flight, timeout=timeout, attempts=attempts,
            backoff=backoff, pace=Pace(requests_per_minute, tokens_per_minute), budget=self._budget, cost=self._cost, most=self._most,
        )  # fmt: skip
        self._pending: dict[str, asyncio.Future[Reply | None]] = {}
        self._absent: set[str] = set()  # looked up lately and not in the ledger

    def __repr__(self) -> str:
        return f"Teacher({self._body}, at {self.endpoint.name!r}, {self.ledger!r})"

    def ask(
        self,
        prompts: Sequence[str | Messages],
        *,
        parse: Callable[[str], Any] | None = None,
        samples: int = 1,
        ids: Sequence[Any] | None = None,
        label: str = "ask",
    ) -> pd.DataFrame:
        """Answer every prompt `samples` times; one row per prompt and sample, in the order given.

        Columns: id, sample, key (of the ledger's response shown), outcome, value, content, reasoning,
        prompt_tokens, completion_tokens, reasoning_tokens (of the answer shown), cost (USD this call paid for
        the row, retries included, 0 if cached, NaN if the price is unknown), cached (no request was made),
        attempts, error, keys (of every request made for the row, retakes and correction included). `outcome` is ok, empty, length, refusal, unparsed, http_<status>, timeout, connection, or
        interrupted: Ctrl-C returns what is done. `parse(content)` gives `value` (default the content) and raises ValueError to have the
        teacher correct itself once. Raises TeacherError when the server is gone or refuses the key,
        BudgetError, and ValueError for a bad prompt; what was answered before is in the ledger and costs
        nothing the next time. `label` names the call where progress is shown.
        """
        state = Ask(prompts, parse=parse, samples=samples, ids=ids)
        try:
            with self._showing(state, label) as tick:
                return run(self._ask(state), tick=tick)
        except KeyboardInterrupt:
            return table_of(state.finished())

    async def aask(self, prompts: Sequence[str | Messages], *, label: str = "ask", **options: Any) -> pd.DataFrame:
        """`ask` for coroutines, from any event loop; takes what `ask` takes."""
        state = Ask(prompts, **options)
        if asyncio.get_running_loop() is background_loop():
            return await self._ask(state)
        work = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._ask(state), background_loop()))
        try:
            with self._showing(state, label) as tick:
                while tick and not work.done():
                    await asyncio.wait([work], timeout=TICK)
                    tick()
                return await work
        finally:
            work.cancel()

    @contextmanager
    def _showing(self, state: Ask, label: str) -> Iterator[Callable[[], None] | None]:
        """A function that brings the display of a call up to date; None where nothing is to be shown."""
        if not (self._progress and state.total):
            yield None
            return
        with Progress(state.total, label, "requests", brief=1.0) as shown:

            def tick() -> None:
                spent = "an unknown amount" if state.cost != state.cost else f"${state.cost:,.2f}"
                shown.update(state.done - shown.done, spent=spent)

            yield tick

    async def _ask(self, state: Ask) -> pd.DataFrame:
        jobs = self._looked_up(state.jobs())
        async with self._sender.connected() as send:

            async def worker() -> None:
                for (index, id, sample, messages), request in jobs:
                    state.put(index, await self._answer(send, id, sample, messages, state.parse, request))
                    if state.rows[index].cached:
                        await asyncio.sleep(0)  # nothing was awaited: let Ctrl-C and the others through

            try:
                # Twice as many workers as places: those that back off hold none.
                await gather_all(worker() for _ in range(min(state.total, 2 * self.in_flight)))
            except BaseException:
                self.ledger.flush()
                raise
        return table_of(state.rows)

    def _looked_up(self, jobs: Iterator) -> Iterator:
        """Jobs with their requests, some at a time looked up in the ledger together: a look at a file that grows costs as much
        as the rest of the bookkeeping. Whoever sends a request takes its key out of those known to be absent."""
        while some := list(itertools.islice(jobs, AHEAD)):
            requests = [self._request(messages, sample) for _, _, sample, messages in some]
            keys = {request.key for request in requests} - self._pending.keys()
            self._absent |= keys - self.ledger.answered(keys)
            yield from zip(some, requests, strict=True)

    async def _answer(
        self, send: Send, id: Any, sample: int, messages: Messages, parse, first: _Request | None = None
    ) -> Row:
        tally = Tally()
        for retake in range(RETAKES + 1):
            request = first if first and not retake else self._request(messages, sample, retake)
            key, reply = await self._reply(send, request, tally)
            if reply.outcome not in ("empty", "length"):
                break
        outcome, value, error = reply.outcome, reply.content, reply.error
        if outcome != "ok":
            value = None
        elif parse:
            value, error = parsed(parse, reply.content, id)
            if error is not None:
                told = {"role": "user", "content": CORRECTION.format(error=error)}
                said = {"role": "assistant", "content": reply.content}
                request = self._request([*messages, said, told], sample)
                second_key, second = await self._reply(send, request, tally)
                if second.outcome == "ok":
                    key, reply = second_key, second
                    value, error = parsed(parse, reply.content, id)
                else:
                    error = f"{error}; correction failed: {second.error or second.outcome}"
                outcome = "ok" if error is None else "unparsed"
        cost = None if tally.unpriced else tally.cost
        tokens = reply.prompt_tokens, reply.completion_tokens, reply.reasoning_tokens
        shown = (key, outcome, value, reply.content, reply.reasoning, *tokens)
        cached = tally.attempts == 0 and reply.outcome in ANSWERED
        return Row(id, sample, *shown, cost, cached, tally.attempts, error, tuple(tally.keys))

    async def _reply(self, send: Send, request: _Request, tally: Tally) -> tuple[str, Reply]:
        """One answer: from whoever is asking the same right now, from the ledger, or from the server."""
        key = request.key
        tally.keys.append(key)
        while (leader := self._pending.get(key)) is not None:
            if (reply := await asyncio.shield(leader)) is not None:
                return key, reply
        if key in self._absent:
            self._absent.remove(key)
        elif stored := self.ledger.get([key]):
            return key, read(stored[key])
        self._pending[key] = shared = asyncio.get_running_loop().create_future()
        reply = None
        try:
            reply = await self._send(send, key, request.text, request.body, tally)
        finally:  # with None, if this one was cancelled, somebody else takes over
            del self._pending[key]
            shared.set_result(reply)
        return key, reply

    async def _send(self, send: Send, key: str, request: str, body: dict, tally: Tally) -> Reply:
        """The answer to a request that nobody has asked before; batches get it another way."""
        return await self._sender.answer(send, key, request, body, tally)

    def _request(self, messages: Messages, sample: int, retake: int = 0) -> _Request:
        body = {**self._body, "messages": messages}
        asked = {"endpoint": self.endpoint.name, "body": body, "sample": sample, "retake": retake}
        text = canonical(asked)
        return _Request(body, text, cache_key(text))

    def keys(self, prompts: Sequence[str | Messages], samples: int = 1) -> list[str]:
        """The ledger keys under which the first answers to these prompts stand, one per prompt and sample."""
        jobs = jobs_of(prompts, itertools.count(), checked(samples))
        return [self._request(messages, sample).key for _, _, sample, messages in jobs]

    def _cost(self, reply: Reply) -> float | None:
        if self.price is None or reply.prompt_tokens is None or reply.completion_tokens is None:
            return None
        return self.price.cost(reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens)

    def _most(self, body: dict[str, Any]) -> float:
        """The most a request can cost in USD: no tokenizer makes more tokens than there are bytes."""
        bytes_sent = len(json.dumps(body["messages"], ensure_ascii=False).encode("utf-8", "replace"))
        return self.price.cost(bytes_sent, body.get("max_tokens") or body["max_completion_tokens"])

    def _open_budget(self, budget: float | None) -> Budget | None:
        if budget is None:
            return None
        if self.price is None:
            raise ValueError(f"budget={budget} needs a price; {self.model!r} is not in prices.csv: pass price=")
        if not {"max_tokens", "max_completion_tokens"} & set(self._body):
            raise ValueError(f"budget={budget} needs an upper bound on each answer: set max_tokens")
        return Budget(budget, self._spent())

    def _spent(self) -> float:
        """USD that `run` and `stage` have spent on this model; an answer whose usage the server left out counts as the most it
        can have cost."""
        spend = self.ledger.spend(self.run)
        known = spend["cost"][(spend["model"] == self.model) & (spend["stage"] == self.stage)].sum()
        unknown = self.ledger.unpriced(self.model, self.run, self.stage)
        return float(known) + sum(self._most(self._body | json.loads(text)["body"]) for text in unknown)
