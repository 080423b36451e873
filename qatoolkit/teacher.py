"""Asking a teacher model: every answer typed, paid for once, and returned as a table in the order asked.

A `Teacher` speaks to any OpenAI-compatible server. Each request is looked up in the ledger under the hash of
all that shapes its answer; what is missing is sent through one admission layer, committed, and only then
parsed. A retry after an empty or truncated answer, and the correction of one that did not parse, are requests
of their own with keys of their own, so a rerun after a crash replays to the same table and sends only what
was never answered. Everything runs on the library's own event-loop thread: the same in a script, a notebook
and papermill.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import aiohttp
import pandas as pd

from qatoolkit.admission import Budget, BudgetError, Gate, TeacherError, backoff, retry_after
from qatoolkit.endpoint import (
    ANSWERED,
    HOPELESS,
    Endpoint,
    Got,
    Reply,
    Send,
    raw_transport,
    read,
    read_got,
    sdk_transport,
)
from qatoolkit.ledger import Attempt, Ledger, Price, canonical, price_of
from qatoolkit.loop import TICK, background_loop, gather_all, run

__all__ = ["BudgetError", "Endpoint", "Teacher", "TeacherError", "run"]

Messages = list[dict[str, Any]]

RETAKES = 1  # how often an empty or truncated answer is asked for again
CORRECTION = (
    "That answer could not be read: {error}\nAnswer again, in exactly the format asked for and nothing else."
)


class _Row(NamedTuple):
    id: Any
    sample: int
    key: str
    outcome: str
    value: Any
    content: str | None
    reasoning: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    cost: float | None
    cached: bool
    attempts: int
    error: str | None


@dataclass
class _Tally:
    """What one row caused: HTTP requests, USD, and whether some answer has no known price."""

    attempts: int = 0
    cost: float = 0.0
    unpriced: bool = False


@dataclass
class _Tries:
    """How one request has fared so far."""

    failed: int = 0
    throttled: int = 0


class Teacher:
    """A model behind an endpoint, with its sampling, its ledger and the limits on what it may do.

    `timeout` in seconds per request, `attempts` per request before its failure becomes the row's outcome,
    `backoff` in seconds before the first retry, `extra` for any other field of the request body (top_p, seed,
    response_format). `budget` in USD bounds what `run` and `stage` may spend on this model in this ledger,
    earlier sessions included; it needs a price from prices.csv or `price`. With
    `client=openai.AsyncOpenAI(...)` (or Azure, or any subclass) requests go through that client, about a
    fifth as fast as the built-in transport; do not share it with another loop.
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
        budget: float | None = None,
        price: Price | None = None,
        client: Any = None,
    ):
        for name, value in (("in_flight", in_flight), ("attempts", attempts), ("timeout", timeout)):
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
        self._backoff, self._client = backoff, client
        sampling = {
            "max_tokens": max_tokens,
            "temperature": None if temperature is None else float(temperature),
            **(extra or {}),
        }
        self._body = {"model": model} | {name: value for name, value in sampling.items() if value is not None}
        self._gate = Gate(in_flight, attempts=attempts)
        self._budget = self._open_budget(budget)
        self._pending: dict[str, asyncio.Future[Reply | None]] = {}

    def __repr__(self) -> str:
        return f"Teacher({self._body}, at {self.endpoint.name!r}, {self.ledger!r})"

    def ask(
        self,
        prompts: Sequence[str | Messages],
        *,
        parse: Callable[[str], Any] | None = None,
        samples: int = 1,
        ids: Sequence[Any] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> pd.DataFrame:
        """Answer every prompt `samples` times; one row per prompt and sample, in the order given.

        Columns: id, sample, key (of the ledger's response shown), outcome, value, content, reasoning,
        prompt_tokens, completion_tokens, reasoning_tokens (of the answer shown), cost (USD this call paid for
        the row, retries included, 0 if cached, NaN if the price is unknown), cached (no request was made),
        attempts, error. `outcome` is ok, empty, length, refusal, unparsed, http_<status>, timeout or
        connection. `parse(content)` gives `value` (default the content) and raises ValueError to have the
        teacher correct itself once. Raises TeacherError when the server is gone or refuses the key,
        BudgetError, ValueError for a bad prompt, and KeyboardInterrupt on Ctrl-C; what was answered before is
        in the ledger and costs nothing the next time.
        """
        state = _Ask(prompts, parse=parse, samples=samples, ids=ids)
        tick = progress and (lambda: progress(state.done, state.total))
        return run(self._ask(state), tick=tick)

    async def aask(self, prompts: Sequence[str | Messages], *, progress=None, **options: Any) -> pd.DataFrame:
        """`ask` for coroutines, from any event loop; takes what `ask` takes."""
        state = _Ask(prompts, **options)
        if asyncio.get_running_loop() is background_loop():
            return await self._ask(state)
        work = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._ask(state), background_loop()))
        try:
            while progress and not work.done():
                await asyncio.wait([work], timeout=TICK)
                progress(state.done, state.total)
            return await work
        finally:
            work.cancel()

    async def _ask(self, state: "_Ask") -> pd.DataFrame:
        jobs = state.jobs()
        async with self._transport() as send:

            async def worker() -> None:
                for index, id, sample, messages in jobs:
                    state.rows[index] = await self._answer(send, id, sample, messages, state.parse)
                    state.done += 1
                    if state.rows[index].cached:
                        await asyncio.sleep(0)  # nothing was awaited: let Ctrl-C and the others through

            try:
                # Twice as many workers as places: those that back off hold none.
                await gather_all(worker() for _ in range(min(state.total, 2 * self.in_flight)))
            except BaseException:
                self.ledger.flush()
                raise
        return _table(state.rows)

    async def _answer(self, send: Send, id: Any, sample: int, messages: Messages, parse) -> _Row:
        tally = _Tally()
        for retake in range(RETAKES + 1):
            key, reply = await self._reply(send, messages, sample, retake, tally)
            if reply.outcome not in ("empty", "length"):
                break
        outcome, value, error = reply.outcome, reply.content, reply.error
        if outcome != "ok":
            value = None
        elif parse:
            value, error = _parse(parse, reply.content, id)
            if error is not None:
                told = {"role": "user", "content": CORRECTION.format(error=error)}
                said = {"role": "assistant", "content": reply.content}
                second_key, second = await self._reply(send, [*messages, said, told], sample, 0, tally)
                if second.outcome == "ok":
                    key, reply = second_key, second
                    value, error = _parse(parse, reply.content, id)
                else:
                    error = f"{error}; correction failed: {second.error or second.outcome}"
                outcome = "ok" if error is None else "unparsed"
        cost = None if tally.unpriced else tally.cost
        tokens = reply.prompt_tokens, reply.completion_tokens, reply.reasoning_tokens
        shown = (key, outcome, value, reply.content, reply.reasoning, *tokens)
        cached = tally.attempts == 0 and reply.outcome in ANSWERED
        return _Row(id, sample, *shown, cost, cached, tally.attempts, error)

    async def _reply(
        self, send: Send, messages: Messages, sample: int, retake: int, tally: _Tally
    ) -> tuple[str, Reply]:
        """One answer: from whoever is asking the same right now, from the ledger, or from the server."""
        body = {**self._body, "messages": messages}
        asked = {"endpoint": self.endpoint.name, "body": body, "sample": sample, "retake": retake}
        request = canonical(asked)
        key = hashlib.sha256(request.encode()).hexdigest()
        while (leader := self._pending.get(key)) is not None:
            if (reply := await asyncio.shield(leader)) is not None:
                return key, reply
        if stored := self.ledger.get([key]):
            return key, read(stored[key])
        self._pending[key] = shared = asyncio.get_running_loop().create_future()
        reply = None
        try:
            reply = await self._send(send, key, request, body, tally)
        finally:  # with None, if this one was cancelled, somebody else takes over
            del self._pending[key]
            shared.set_result(reply)
        return key, reply

    async def _send(self, send: Send, key: str, request: str, body: dict, tally: _Tally) -> Reply:
        """Send until answered or out of attempts."""
        tries = _Tries()
        while True:
            reply, wait = await self._attempt(send, key, request, body, tally, tries)
            if wait is None:
                return reply
            await asyncio.sleep(wait)

    async def _attempt(
        self, send: Send, key: str, request: str, body: dict, tally: _Tally, tries: _Tries
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
            burst = await self._gate.enter()
            try:
                paid = most  # from here on it may be billed, until we know better
                started, clock = time.time(), time.perf_counter()
                got = await send(body)
                seconds = time.perf_counter() - clock
                reply, answer = read_got(got)
                cost = self._cost(reply)
                if cost is not None or not (answer or got.failure == "timeout"):
                    paid = cost or 0.0
                tally.attempts += 1
                tally.cost += cost or 0.0
                tally.unpriced |= bool(answer) and cost is None
                attempt = Attempt(
                    *(key, self.model, self.run, self.stage, started, seconds, got.status, reply.outcome),
                    *(reply.prompt_tokens, reply.completion_tokens, reply.reasoning_tokens, cost),
                )
                await self.ledger.aput(attempt, answer and request, answer)  # before anybody parses it
                return reply, self._judge(key, got, reply, burst, tries)
            finally:
                self._gate.leave()
        finally:
            if self._budget:
                self._budget.settle(most, paid)

    def _judge(self, key: str, got: Got, reply: Reply, burst: int, tries: _Tries) -> float | None:
        """Tell the gate how it went; returns the seconds to wait before another attempt, None for none."""
        if reply.outcome in ANSWERED:
            self._gate.succeeded()
            return None
        asked = retry_after(got.headers)
        if got.status == 429:
            if "insufficient_quota" in got.text:
                raise TeacherError(f"the quota at {self.endpoint.name} is used up: {reply.error}")
            tries.throttled += 1
            self._gate.throttled(burst, asked, reply.error)
            if tries.throttled >= 5 * self.attempts:  # it only says `not now`, hence the longer allowance
                return None
            return 0.0 if asked else backoff(key, tries.throttled, self._backoff)
        if remedy := HOPELESS.get(got.status):
            remedy = remedy.format(key_env=self.endpoint.key_env, model=self.model)
            raise TeacherError(f"{self.endpoint.name} answered {reply.error}; {remedy}")
        if got.transient or not self._gate.answered:  # a live server may well reject one prompt
            self._gate.failed(reply.error)
        tries.failed += 1
        if not got.transient or tries.failed >= self.attempts:
            return None
        return max(min(asked, 60.0), backoff(key, tries.failed, self._backoff))

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
            raise ValueError(
                f"budget={budget} needs a price; {self.model!r} is not in prices.csv: pass price="
            )
        if not {"max_tokens", "max_completion_tokens"} & set(self._body):
            raise ValueError(f"budget={budget} needs an upper bound on each answer: set max_tokens")
        spend = self.ledger.spend(self.run)
        ours = spend[(spend["model"] == self.model) & (spend["stage"] == self.stage)]
        return Budget(budget, float(ours["cost"].sum()))

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Send]:
        if self._client is not None:
            yield sdk_transport(self._client.with_options(max_retries=0, timeout=self.timeout), self.endpoint)
            return
        # aiohttp's own default is 100 connections, whatever in_flight says.
        connector = aiohttp.TCPConnector(limit=self.in_flight, ttl_dns_cache=300)
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self.timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=not self.endpoint.is_local,
        ) as session:
            yield raw_transport(session, self.endpoint)


class _Ask:
    """One call of ask(): its jobs, checked, and the rows as they come."""

    def __init__(self, prompts, *, parse=None, samples: int = 1, ids=None):
        if isinstance(prompts, str):
            raise ValueError("prompts is one string: pass a list, ask([prompt])")
        self.prompts = list(prompts)
        self.ids = list(range(len(self.prompts))) if ids is None else list(ids)
        if len(self.ids) != len(self.prompts):
            raise ValueError(f"ids has {len(self.ids)} entries, prompts {len(self.prompts)}: give one each")
        if samples < 1:
            raise ValueError(f"samples is {samples!r}: give 1 or more")
        self.parse, self.samples, self.done = parse, samples, 0
        for place, prompt in enumerate(self.prompts):
            if not isinstance(prompt, str) and not (prompt and all("role" in message for message in prompt)):
                raise ValueError(f"prompt {place} is {prompt!r:.60}: give a string or role/content messages")
        self.total = len(self.prompts) * samples
        self.rows: list[_Row | None] = [None] * self.total

    def jobs(self) -> Iterator[tuple[int, Any, int, Messages]]:
        for place, prompt in enumerate(self.prompts):
            messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            for sample in range(self.samples):
                yield place * self.samples + sample, self.ids[place], sample, messages


def _parse(parse: Callable[[str], Any], content: str, id: Any) -> tuple[Any, str | None]:
    """The parsed value, or the parser's complaint (ValueError); any other error is the parser's bug."""
    try:
        return parse(content), None
    except ValueError as error:
        return None, str(error) or type(error).__name__
    except Exception as error:
        error.add_note(f"raised by parse() on the answer to id {id!r}; the answer is kept: rerunning is free")
        raise


_DTYPES = {
    **dict.fromkeys(("sample", "attempts"), "int64"),
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "reasoning_tokens"), "Int64"),
    **dict.fromkeys(("key", "outcome", "content", "reasoning", "error"), "str"),
    **{"value": "object", "cost": "float64", "cached": "bool"},
}


def _table(rows: list[_Row]) -> pd.DataFrame:
    columns = zip(*rows, strict=True) if rows else [()] * len(_Row._fields)
    named = zip(_Row._fields, columns, strict=True)
    return pd.DataFrame({name: pd.Series(column, dtype=_DTYPES.get(name)) for name, column in named})
