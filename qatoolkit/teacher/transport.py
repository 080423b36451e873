"""The wire to a teacher: where it is served, how a request is sent, and what an answer means."""

import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from qatoolkit.teacher.limits import TeacherError

ANSWERED = frozenset({"ok", "empty", "length", "refusal"})  # outcomes that are answers, paid for and kept
HOPELESS = {  # statuses that no retry and no other prompt will change, and what will
    401: "check the key in {key_env}",
    402: "the account is empty: top it up",
    404: "check base_url and the model name {model!r}",
}
# What providers call the ends of an answer beside OpenAI's "length" and "content_filter" (OpenRouter, DeepSeek, Mistral,
# Gemini, GLM), in lower case. What broke off may fare better later.
BROKEN_OFF = ("error", "insufficient_system_resource", "network_error")
CUT_OFF = ("length", "max_tokens", "model_length")
FILTERED = ("content_filter", "safety", "recitation", "sensitive", "prohibited_content")
REFUSED = "REFUSED:"  # how the offline teacher marks what it has no answer for


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a teacher is served: `name` (default the URL) enters cache keys, the key stays in `key_env`."""

    base_url: str
    name: str | None = None
    key_env: str = "OPENAI_API_KEY"

    def __post_init__(self):
        parts = urlsplit(self.base_url)
        if parts.username or parts.password or parts.query:  # would end up in the ledger and in messages
            raise ValueError("Endpoint.base_url carries credentials or a query: name the key's variable in key_env")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"Endpoint.base_url is {self.base_url!r}: give http(s)://host/path, e.g. .../v1")
        object.__setattr__(self, "base_url", self.base_url.rstrip("/"))
        object.__setattr__(self, "name", self.name or self.base_url)

    @classmethod
    def from_env(cls) -> "Endpoint":
        """The endpoint that OPENAI_BASE_URL names (default OpenAI), its key in OPENAI_API_KEY."""
        return cls(base_url=os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1")

    @property
    def is_local(self) -> bool:
        """Whether the host is this machine, where no key is needed."""
        host = urlsplit(self.base_url).hostname
        return host in ("localhost", "::1") or host.startswith("127.")

    def headers(self) -> dict[str, str]:
        """The Authorization header, read now; TeacherError when a remote host has no key in `key_env`, or an impossible one."""
        if key := os.environ.get(self.key_env, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise TeacherError(f"{self.key_env} holds a line break or a letter no key has: set it again")
            return {"Authorization": f"Bearer {key}"}
        if self.is_local:
            return {}
        raise TeacherError(f"no key for {self.base_url}: set the environment variable {self.key_env}")

    def redact(self, text: str) -> str:
        """`text` without the key, should a server repeat it, in whatever spelling JSON or a URL gives it.

        What is only a placeholder ("none", "EMPTY") stays: answers may hold the word."""
        key = os.environ.get(self.key_env, "").strip()
        return without(text, key, f"[{self.key_env}]")


def without(text: str, key: str, instead: str) -> str:
    """`text` with every spelling of a secret replaced; fewer than 8 characters, or 16 if all are letters, are none."""
    return _spellings(key).sub(instead, text) if len(key) >= (16 if key.isalpha() else 8) else text


@lru_cache(maxsize=8)
def _spellings(key: str) -> re.Pattern[str]:
    """The key as it is, and with its punctuation escaped as JSON ("\\/", "\\u002b") or a URL ("%2b") may do it."""
    escaped = r"(?:\\?{}|(?i:\\u{:04x}|%{:02x}))"
    plain = (c if c.isalnum() or c in "-_" else escaped.format(re.escape(c), ord(c), ord(c)) for c in key)
    return re.compile("".join(plain))


class Got(NamedTuple):
    """What came back over the wire; `failure` is timeout or connection when no response did."""

    status: int | None
    headers: Mapping[str, str]
    text: str
    failure: str = ""

    @property
    def transient(self) -> bool:
        """Whether the same request may fare better later; a 200 only gets here when it held no completion."""
        return bool(self.failure) or self.status in (200, 408, 409, 425, 429) or self.status >= 500


class Reply(NamedTuple):
    """What it means: `outcome` is one of ANSWERED or names the failure."""

    outcome: str
    content: str | None = None
    reasoning: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int = 0
    error: str | None = None


Send = Callable[[dict[str, Any]], Awaitable[Got]]


def raw_transport(session: aiohttp.ClientSession, endpoint: Endpoint) -> Send:
    """Send through aiohttp itself: 1,440-1,555 requests/s on one core, where the SDK carries 165-187."""
    url = f"{endpoint.base_url}/chat/completions"

    async def send(body: dict[str, Any]) -> Got:
        headers = {"Content-Type": "application/json"}
        data = json.dumps(body).encode()
        try:
            # A redirect could carry the key to another host, so it is an answer like any other.
            async with session.post(
                url, data=data, headers=headers | endpoint.headers(), allow_redirects=False
            ) as response:
                content = await response.read()
                return Got(response.status, response.headers, endpoint.redact(content.decode("utf-8", "replace")))
        except TimeoutError:
            return Got(None, {}, f"no answer within {session.timeout.total:g} s", "timeout")
        except (aiohttp.ClientError, OSError) as error:
            return Got(None, {}, endpoint.redact(f"{type(error).__name__}: {error}"), "connection")

    return send


def sdk_transport(client: Any, endpoint: Endpoint) -> Send:
    """Send through an `openai` client; its subclasses (Azure, ...) know their own URLs and credentials."""
    import openai

    def redact(text: str) -> str:
        key = client.api_key if isinstance(client.api_key, str) else ""
        return endpoint.redact(without(text, key, "[key]"))

    async def send(body: dict[str, Any]) -> Got:
        try:
            return Got(200, {}, redact(await client.post("/chat/completions", body=body, cast_to=str)))
        except openai.APIStatusError as error:
            return Got(error.status_code, error.response.headers, redact(error.response.text))
        except openai.APITimeoutError:
            return Got(None, {}, "no answer within the timeout", "timeout")
        except openai.APIConnectionError as error:
            return Got(None, {}, redact(f"{type(error.__cause__ or error).__name__}: {error}"), "connection")

    return send


def read_got(got: Got) -> tuple[Reply, str | None]:
    """The meaning of what came back, and its text when it is an answer to keep."""
    if got.failure:
        return Reply(got.failure, error=got.text), None
    if 200 <= got.status < 300:
        try:
            reply = read(json.loads(got.text))
            if reply.outcome in ANSWERED:
                return reply, got.text
            return reply._replace(outcome=f"http_{got.status}"), None
        except (ValueError, RecursionError):
            said = f"no chat completion but {got.text[:200]!r}"
    else:
        said = _message(got.text)
    return Reply(f"http_{got.status}", error=f"{got.status}: {said}"), None


def read(response: dict[str, Any]) -> Reply:
    """Read a chat completion; ValueError when it is none. The outcome of one that the server broke off is http_200.

    Reasoning is told apart from the content whether it comes in its own field or between <think> tags.
    """
    try:
        choice = response["choices"][0]
        message, finish = choice["message"], str(choice.get("finish_reason")).casefold()
        problem = choice.get("error") or response.get("error")
        content, refusal = _text(message.get("content")), message.get("refusal")
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        reasoning = _text(reasoning) if isinstance(reasoning, str) else ""
        usage = _usage(_named(response.get("usage")))
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError("not a chat completion") from None
    content, thought = _split_thinking(content)
    reasoning = reasoning or thought
    if (content or reasoning) and not usage["completion_tokens"]:
        usage |= {"completion_tokens": None}  # some servers count nothing: an answer of no tokens is no free one
    reply = Reply("ok", content, reasoning or None, **usage)
    if problem or finish in BROKEN_OFF:
        said = str(problem or f"finish_reason {finish!r}")[:200]
        return reply._replace(outcome="http_200", error=f"200: the server broke off ({said})")
    if refusal or finish.startswith(FILTERED) or content.startswith(REFUSED):
        return reply._replace(
            outcome="refusal", error=_text(str(refusal or "")) or content or "stopped by a content filter"
        )
    if finish in CUT_OFF:
        return reply._replace(outcome="length", error="cut off at max_tokens")
    if not content.strip():
        return reply._replace(outcome="empty", error="no content, only reasoning" if reasoning else "no content")
    return reply


_THOUGHTS = ("thinking", "reasoning", "redacted_thinking")  # parts of a content that are no answer


def _text(content: Any) -> str:
    """Content as text that any file can hold: parts joined, half characters (lone surrogates) replaced."""
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content if part.get("type") not in _THOUGHTS)
    if not content:
        return ""
    try:
        content.encode()
    except UnicodeEncodeError:
        content = content.encode("utf-8", "replace").decode()
    return content


def _split_thinking(content: str) -> tuple[str, str | None]:
    opened, body = content.lstrip().startswith("<think>"), content.lstrip().removeprefix("<think>")
    thought, closed, answer = body.partition("</think>")
    if closed and (opened or "<think>" not in thought):  # chat templates may open the tag in the prompt
        return answer.lstrip(), thought.strip()
    return ("", body.strip()) if opened else (content, None)


def _usage(usage: dict[str, Any]) -> dict[str, int | None]:
    """Token counts as OpenAI and DeepSeek name them; reasoning that a provider counts beside the completion (xAI, Gemini), so
    that only the total holds it, is part of the completion here, and what is cached part of the prompt."""
    details = _named(usage.get("completion_tokens_details"))
    cached = _named(usage.get("prompt_tokens_details")).get("cached_tokens")
    prompt, completion, total = (_count(usage.get(f"{name}_tokens")) for name in ("prompt", "completion", "total"))
    if None not in (prompt, completion, total):
        completion = max(completion, total - prompt)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "reasoning_tokens": _count(details.get("reasoning_tokens")),
        "cached_tokens": min(_count(cached or usage.get("prompt_cache_hit_tokens")) or 0, prompt or 0),
    }


def _named(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    """A number of tokens; None for anything that cannot be one."""
    return int(value) if type(value) in (int, float) and 0 <= value < 2**40 else None


def _message(text: str) -> str:
    """The human part of an error body."""
    try:
        error = json.loads(text)["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        return text[:300] or "no body"
