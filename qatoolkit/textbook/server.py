"""The offline teacher: a real OpenAI-compatible HTTP server on loopback that knows only the textbook.

`qatoolkit teacher serve` runs it in a terminal; `local_teacher()` starts one on a free port for a notebook and stops it
afterwards. Faults can be switched on, for tests and to demonstrate how the client handles them.
"""

import asyncio
import hashlib
import json
import math
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

from aiohttp import web

from qatoolkit.textbook import knowledge
from qatoolkit.textbook.batch_server import Batches, error_document, error_response
from qatoolkit.textbook.settings import TextbookSettings
from qatoolkit.textbook.tutor import MODELS, Refusal, Tutor

IDLE = 60.0  # seconds that an unused teacher keeps running for the next stage
OUTSIDE = "REFUSED: this is the offline teacher; {why}. Set OPENAI_BASE_URL and OPENAI_API_KEY to ask a real model."


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Shares of requests with each fault, and the latency of all others in seconds. A request's fault is drawn from its
    content and how often it was sent, so a retry can succeed. 429s come in bursts of `burst` requests, as from real
    providers. `expired` is the share of a batch's requests that are not answered in time."""

    rate_limit: float = 0.0
    server_error: float = 0.0
    timeout: float = 0.0
    empty: float = 0.0
    truncated: float = 0.0
    bad_json: float = 0.0
    refusal: float = 0.0
    latency: float = 0.0
    expired: float = 0.0
    burst: float = 1.0

    def __post_init__(self):
        for f in fields(self):
            value = getattr(self, f.name)
            least, most = {"latency": (0, math.inf), "burst": (1, math.inf)}.get(f.name, (0, 1))
            if not least <= value <= most:
                raise ValueError(
                    f"fault {f.name} is {value}; shares must be between 0 and 1, latency 0 or more seconds, burst 1 or "
                    "more"
                )

    @classmethod
    def parse(cls, text: str) -> "Faults":
        """Parse "rate_limit=0.05,latency=0.2"; ValueError for an unknown fault or a value that is not a number."""
        known = {f.name for f in fields(cls)}
        values = {}
        for item in filter(None, text.split(",")):
            name, _, value = item.partition("=")
            if name not in known:
                raise ValueError(f"unknown fault {name!r}; allowed: {', '.join(sorted(known))}")
            try:
                values[name] = float(value)
            except ValueError:
                raise ValueError(f"fault {name} is {value!r}; give a number") from None
        return cls(**values)

    def draw(self, text: str) -> str | None:
        """The fault of a request, or None."""
        at = random.Random(text).random()
        for f in fields(self):
            if f.name not in ("latency", "expired", "burst"):
                at -= getattr(self, f.name) / (self.burst if f.name == "rate_limit" else 1)
                if at < 0:
                    return f.name
        return None


class Server:
    """The HTTP server: endpoints, faults, and a log with one JSON line per answered request."""

    def __init__(self, tutor: Tutor, faults: Faults, log: Path | None = None):
        self.tutor, self.faults, self.seen, self.refusing = tutor, faults, Counter(), 0
        self.log = open(log, "a", encoding="utf-8", buffering=1) if log else None  # noqa: SIM115 (open for life)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/chat/completions", self.chat)
        Batches(self.answer, self.faults.expired).add_to(app)
        return app

    async def models(self, request: web.Request) -> web.Response:
        data = [{"id": m, "object": "model", "created": 0, "owned_by": "qatoolkit"} for m in MODELS]
        return web.json_response({"object": "list", "data": data})

    async def chat(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except json.JSONDecodeError as error:
            return error_response(400, f"the request body is not JSON: {error!r}")
        try:
            status, document = await self.answer(body)
        except TimeoutError:
            await asyncio.sleep(3600)
        headers = {"Retry-After": "1"} if status == 429 else None
        return web.json_response(document, status=status, headers=headers)

    async def answer(self, body: dict) -> tuple[int, dict]:
        """Status and document for the body of a chat completion request; TimeoutError if it must not get an answer.
        Answers are logged before they are returned."""
        try:
            model, messages = body["model"], body["messages"]
            text = "".join(m["content"] for m in messages)
        except (KeyError, TypeError) as error:
            return error_document(400, f"the request body is not a chat completion request: {error!r}")
        if body.get("stream"):
            return error_document(400, "streaming is not offered")
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        self.seen[digest] += 1
        fate = self.faults.draw(f"{digest}/{self.seen[digest]}")
        if self.refusing:
            fate, self.refusing = "rate_limit", self.refusing - 1
        elif fate == "rate_limit":
            self.refusing = round(self.faults.burst) - 1
        if fate == "timeout":
            raise TimeoutError
        if self.faults.latency:
            await asyncio.sleep(self.faults.latency)
        if fate == "rate_limit":
            return error_document(429, "rate limit reached")
        if fate == "server_error":
            return error_document(500, "internal error")
        try:
            value, reasoning = self.tutor.reply(messages, model)
            content, finish = json.dumps(value, ensure_ascii=False), "stop"
        except Refusal as why:
            content, reasoning, finish = OUTSIDE.format(why=why), "", "stop"
        except (LookupError, TypeError, AttributeError, StopIteration, json.JSONDecodeError) as error:
            return error_document(400, f"the task's input is not as its prompt says: {error!r}")
        except ValueError as error:
            return error_document(404, str(error))
        if fate == "empty":
            content = ""
        elif fate == "truncated":
            content, finish = content[: len(content) // 2], "length"
        elif fate == "bad_json":
            content = content.replace('"', "", 1)
        elif fate == "refusal":
            content = "REFUSED: this request is refused for the sake of the test."
        document = _completion(digest, model, text, content, reasoning, finish)
        if self.log:
            line = {"request": digest, "time": time.time(), "fate": fate or "answered"}
            self.log.write(json.dumps(line | {"model": model, "usage": document["usage"]}) + "\n")
        return 200, document


def _completion(digest: str, model: str, prompt: str, content: str, reasoning: str, finish: str) -> dict:
    prompt_tokens, reasoning_tokens, content_tokens = (
        max(1, len(text.encode()) // 4) for text in (prompt, reasoning, content)
    )
    return {
        "id": f"chatcmpl-{digest[:24]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "reasoning_content": reasoning},
                "finish_reason": finish,
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": reasoning_tokens + content_tokens,
            "total_tokens": prompt_tokens + reasoning_tokens + content_tokens,
            "completion_tokens_details": {"reasoning_tokens": reasoning_tokens},
        },
    }


def parts(settings: TextbookSettings) -> dict[str, knowledge.Textbook]:
    """The part of the textbook that belongs to a world, by language."""
    book = knowledge.load()
    return {
        "en": book.part(settings.entities, settings.relations, settings.families),
        "zh": book.part(settings.entities_zh, settings.relations, settings.families),
    }


@lru_cache(maxsize=1)
def tutor_of(settings: TextbookSettings) -> Tutor:
    """The tutor of a world."""
    return Tutor(knowledge.load(), parts(settings))


def serve(
    port: int = 0, *, settings: TextbookSettings, faults: Faults, log: Path | None = None, leash: bool = False
) -> None:
    """Serve on 127.0.0.1 until interrupted; prints the base URL as the first line. With `leash` the server also ends
    when its standard input closes, so it never outlives the process that started it."""
    asyncio.run(_serve(port, settings, faults, log, leash))


async def _serve(port: int, settings: TextbookSettings, faults: Faults, log: Path | None, leash: bool) -> None:
    server = Server(tutor_of(settings), faults, log)
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", port), backlog=2048)
    await web.SockSite(runner, listening).start()
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", flush=True)
    try:
        if leash:
            await asyncio.to_thread(sys.stdin.read)
        else:
            await asyncio.Event().wait()
    finally:
        await runner.cleanup()


@contextmanager
def local_teacher(settings: TextbookSettings, *, faults: str = "", log: Path | None = None):
    """Start an offline teacher in a separate process on a free port; yields its base URL and ends it afterwards."""
    process, url = _start(settings, faults, log)
    try:
        yield url
    finally:
        _end(process)


def _start(settings: TextbookSettings, faults: str, log: Path | None) -> tuple[subprocess.Popen, str]:
    """(process, base URL) of a newly started teacher; RuntimeError if it does not start."""
    command = [sys.executable, "-m", "qatoolkit.textbook.server"]
    options = {"settings": settings.model_dump(), "faults": faults, "log": str(log) if log else None}
    command.append(json.dumps(options))
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,  # Ctrl-C must not reach it: the client still waits for open requests
    )
    try:
        url = process.stdout.readline().strip()
        if not re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", url):
            raise RuntimeError(
                f"the offline teacher did not start (exit code {process.poll()}); run `qatoolkit teacher serve`"
            )
    except BaseException:  # includes KeyboardInterrupt
        _end(process)
        raise
    return process, url


def _end(process: subprocess.Popen) -> None:
    process.stdin.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


class _KeptTeacher:
    """A teacher kept running between stages, because starting one takes as long as a short stage. There is at most one;
    it ends when unused for `IDLE` seconds, when one with other settings is needed, or with this process."""

    def __init__(self):
        self.lock, self.users, self.about = threading.Lock(), 0, None
        self.process = self.url = self.timer = None

    def take(self, about: tuple[TextbookSettings, Path]) -> str | None:
        """The base URL, after starting the teacher if it does not run or its log is gone; None while one with other
        settings is in use."""
        with self.lock:
            if self.timer:
                self.timer.cancel()
            runs = self.process is not None and self.process.poll() is None and about[1].exists()
            if self.users and not (runs and self.about == about):
                return None
            if not runs or self.about != about:
                self._end()
                self.process, self.url = _start(about[0], "", about[1])
                self.about = about
            self.users += 1
            return self.url

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                self.timer = threading.Timer(IDLE, self._end_if_unused)
                self.timer.daemon = True
                self.timer.start()

    def _end_if_unused(self) -> None:
        with self.lock:
            if not self.users:
                self._end()

    def _end(self) -> None:
        if self.process is not None:
            _end(self.process)
            self.process = None


_KEPT = _KeptTeacher()


@contextmanager
def kept_teacher(settings: TextbookSettings, *, log: Path):
    """As `local_teacher`, but the teacher keeps running for a while, to be reused with the same settings and log."""
    if (url := _KEPT.take((settings, log))) is None:
        with local_teacher(settings, log=log) as url:
            yield url
        return
    try:
        yield url
    finally:
        _KEPT.leave()


if __name__ == "__main__":  # started by `_start`, whose process keeps the standard input open
    options = json.loads(sys.argv[1])
    serve(
        settings=TextbookSettings(**options["settings"]),
        faults=Faults.parse(options["faults"]),
        log=Path(options["log"]) if options["log"] else None,
        leash=True,
    )
