"""HTTP to a teacher: where it is served, how a request is sent, and how its response is read."""

import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from qatoolkit.teacher.limits import TeacherError
from qatoolkit.teacher.settings import check_url, check_variables

ANSWERED = frozenset({"ok", "empty", "length", "refusal"})  # outcomes that are answers, paid for and kept
FATAL_STATUSES = {  # HTTP statuses that no retry and no other prompt can change, and the remedy
    401: "check the key in {key_env}",
    402: "the account is empty: top it up",
    404: "check base_url and the model name {model!r}",
}
# finish_reason as OpenAI, OpenRouter, DeepSeek, Mistral, Gemini and GLM spell it, in lower case. A request whose answer
# broke off is retried.
BROKEN_OFF = ("error", "insufficient_system_resource", "network_error")
CUT_OFF = ("length", "max_tokens", "model_length")
FILTERED = ("content_filter", "safety", "recitation", "sensitive", "prohibited_content")
OWN_HEADERS = ("authorization", "content-length", "content-type", "host", "transfer-encoding")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
REFUSED = "REFUSED:"  # how the offline teacher marks what it has no answer for


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a teacher is served. `name` (default the URL) is part of the cache key of every request; `key_env` is the
    environment variable with the API key, None for a server that wants no Authorization header; `headers` are further
    HTTP headers, each with the environment variable that has its value, such as {"OpenAI-Organization": "MY_ORG"}.
    ValueError for a URL that is none or has a secret in it, a variable that can be none, or a header that a request has
    anyway."""

    base_url: str
    name: str | None = None
    key_env: str | None = "OPENAI_API_KEY"
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self):
        checks = {
            "base_url": (check_url, self.base_url),
            "key_env": (check_variables, [self.key_env]),
            "headers": (check_variables, self.headers.values()),
        }
        for name, (check, value) in checks.items():
            try:
                check(value)
            except ValueError as error:
                raise ValueError(f"Endpoint.{name} {error}") from None
        object.__setattr__(self, "base_url", self.base_url.rstrip("/"))
        object.__setattr__(self, "name", self.name or self.base_url)
        for header in self.headers:
            if not _HEADER.fullmatch(header) or header.casefold() in OWN_HEADERS:
                others = ", ".join(OWN_HEADERS)
                raise ValueError(f"Endpoint.headers has {header!r}: give the name of a header other than {others}")

    @classmethod
    def from_env(cls) -> "Endpoint":
        """The endpoint at OPENAI_BASE_URL, with its key in OPENAI_API_KEY; ValueError if that is not set, because no
        public server is asked unless it is named."""
        if url := os.environ.get("OPENAI_BASE_URL"):
            return cls(base_url=url)
        raise ValueError(
            "no endpoint is named: set OPENAI_BASE_URL, or pass endpoint=Endpoint(base_url=...), "
            "e.g. https://api.openai.com/v1"
        )

    @property
    def is_local(self) -> bool:
        """Whether the host is this machine, where no key is needed."""
        host = urlsplit(self.base_url).hostname
        return host in ("localhost", "::1") or host.startswith("127.")

    def sent_headers(self) -> dict[str, str]:
        """The Authorization header and `headers`, from the environment; TeacherError if it has no key for a remote
        host, not the value of a header, or a malformed one."""
        sent = {header: _secret(variable) for header, variable in self.headers.items()}
        for header, variable in self.headers.items():
            if not sent[header]:
                raise TeacherError(f"no value for the header {header}: set the environment variable {variable}")
        if self.key_env and (key := _secret(self.key_env)):
            return sent | {"Authorization": f"Bearer {key}"}
        if self.is_local or not self.key_env:
            return sent
        raise TeacherError(f"no key for {self.base_url}: set the environment variable {self.key_env}")

    def redact(self, text: str) -> str:
        """`text` without the key and the values of `headers`, in case a server repeats them, however JSON or a URL
        escapes them."""
        for variable in filter(None, (self.key_env, *self.headers.values())):
            text = replace_secret(text, os.environ.get(variable, "").strip(), f"[{variable}]")
        return text


def _secret(variable: str) -> str:
    """The value of an environment variable as part of a header, empty if it is not set."""
    value = os.environ.get(variable, "").strip()
    if not (value.isascii() and value.isprintable()):
        raise TeacherError(f"{variable} has a line break or a character that no key contains: set it again")
    return value


def replace_secret(text: str, key: str, instead: str) -> str:
    """`text` with every spelling of a key replaced. A key shorter than 8 characters, or 16 if all are letters, is taken
    for a placeholder ("none", "EMPTY") and left alone, since answers may contain the word."""
    return _spellings(key).sub(instead, text) if len(key) >= (16 if key.isalpha() else 8) else text


@lru_cache(maxsize=8)
def _spellings(key: str) -> re.Pattern[str]:
    """Matches the key plain and with its punctuation escaped as in JSON ("\\/", "\\u002b") or a URL ("%2b")."""
    escaped = r"(?:\\?{}|(?i:\\u{:04x}|%{:02x}))"
    plain = (c if c.isalnum() or c in "-_" else escaped.format(re.escape(c), ord(c), ord(c)) for c in key)
    return re.compile("".join(plain))


class Response(NamedTuple):
    """An HTTP response; without one, `status` is None and `failure` is timeout or connection."""

    status: int | None
    headers: Mapping[str, str]
    text: str
    failure: str = ""

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later. A 200 is only asked about when it contains no completion."""
        return bool(self.failure) or self.status in (200, 408, 409, 425, 429) or self.status >= 500


class Reply(NamedTuple):
    """A response as read: `outcome` is one of ANSWERED or names the failure."""

    outcome: str
    content: str | None = None
    reasoning: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int = 0
    error: str | None = None

    @property
    def tokens(self) -> tuple[int | None, int | None, int | None]:
        """Tokens of prompt, completion and reasoning."""
        return self.prompt_tokens, self.completion_tokens, self.reasoning_tokens


Send = Callable[[dict[str, Any]], Awaitable[Response]]


def open_session(endpoint: Endpoint, timeout: aiohttp.ClientTimeout, connections: int = 100) -> aiohttp.ClientSession:
    """A session without cookies; it uses the environment's proxies, except for this machine."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ttl_dns_cache=300),
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=not endpoint.is_local,
    )


async def send_request(
    session: aiohttp.ClientSession,
    endpoint: Endpoint,
    method: str,
    path: str,
    *,
    into: BinaryIO | None = None,
    **content: Any,
) -> Response:
    """Send one HTTP request and read its response, without the key; with `into`, a body that comes with status 200 is
    written there instead. Over aiohttp one core sends 1,440-1,555 requests/s, with the OpenAI SDK 165-187."""
    url = endpoint.base_url + path
    try:
        # A redirect could carry the key to another host, so it is a response like any other. No variable holds the key.
        async with session.request(
            method, url, headers=endpoint.sent_headers(), allow_redirects=False, **content
        ) as response:
            if into and response.status == 200:
                into.seek(0)
                into.truncate()
                async for chunk in response.content.iter_chunked(2**20):
                    into.write(chunk)
                return Response(200, response.headers, "")
            text = endpoint.redact((await response.read()).decode("utf-8", "replace"))
            return Response(response.status, response.headers, text)
    except TimeoutError:
        seconds = session.timeout.total or session.timeout.sock_read
        return Response(None, {}, f"no answer within {seconds:g} s", "timeout")
    except (aiohttp.ClientError, OSError) as error:
        return Response(None, {}, endpoint.redact(f"{type(error).__name__}: {error}"), "connection")


def sdk_transport(client: Any, endpoint: Endpoint) -> Send:
    """Send through an `openai` client; its subclasses (Azure, ...) know their own URLs and credentials."""
    import openai

    def redact(text: str) -> str:
        key = client.api_key if isinstance(client.api_key, str) else ""
        return endpoint.redact(replace_secret(text, key, "[key]"))

    async def send(body: dict[str, Any]) -> Response:
        try:
            return Response(200, {}, redact(await client.post("/chat/completions", body=body, cast_to=str)))
        except openai.APIStatusError as error:
            return Response(error.status_code, error.response.headers, redact(error.response.text))
        except openai.APITimeoutError:
            return Response(None, {}, "no answer within the timeout", "timeout")
        except openai.APIConnectionError as error:
            return Response(None, {}, redact(f"{type(error.__cause__ or error).__name__}: {error}"), "connection")

    return send


def check_not_fatal(response: Response, reply: Reply, endpoint: Endpoint, model: str) -> None:
    """TeacherError, with its remedy, for a status in FATAL_STATUSES."""
    if remedy := FATAL_STATUSES.get(response.status):
        keys = " and ".join(filter(None, (endpoint.key_env, *endpoint.headers.values()))) or "key_env"
        remedy = remedy.format(key_env=keys, model=model)
        raise TeacherError(f"{endpoint.name} answered {reply.error}; {remedy}")


def read_response(response: Response) -> tuple[Reply, str | None]:
    """The reply in a response, and the response's text if it is an answer to keep."""
    if response.failure:
        return Reply(response.failure, error=response.text), None
    if 200 <= response.status < 300:
        try:
            reply = read_completion(json.loads(response.text))
            if reply.outcome in ANSWERED:
                return reply, response.text
            return reply._replace(outcome=f"http_{response.status}"), None
        except (ValueError, RecursionError):
            message = f"no chat completion but {response.text[:200]!r}"
    else:
        message = _error_message(response.text)
    return Reply(f"http_{response.status}", error=f"{response.status}: {message}"), None


def read_completion(completion: dict[str, Any]) -> Reply:
    """Read a chat completion; ValueError if it is not one. If the server broke the answer off, the outcome is http_200.

    Reasoning is separated from the content, whether it comes in a field of its own or between <think> tags.
    """
    try:
        choice = completion["choices"][0]
        message, finish = choice["message"], str(choice.get("finish_reason")).casefold()
        problem = choice.get("error") or completion.get("error")
        content, refusal = _text(message.get("content")), message.get("refusal")
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        reasoning = _text(reasoning) if isinstance(reasoning, str) else ""
        usage = _read_usage(_as_dict(completion.get("usage")))
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError("not a chat completion") from None
    content, thought = _split_thinking(content)
    reasoning = reasoning or thought
    if (content or reasoning) and not usage["completion_tokens"]:
        usage |= {"completion_tokens": None}  # some servers report zero tokens: the cost is unknown
    reply = Reply("ok", content, reasoning or None, **usage)
    if problem or finish in BROKEN_OFF:
        detail = str(problem or f"finish_reason {finish!r}")[:200]
        return reply._replace(outcome="http_200", error=f"200: the server broke off ({detail})")
    if refusal or finish.startswith(FILTERED) or content.startswith(REFUSED):
        error = _text(str(refusal or "")) or content or "stopped by a content filter"
        return reply._replace(outcome="refusal", error=error)
    if finish in CUT_OFF:
        return reply._replace(outcome="length", error="cut off at max_tokens")
    if not content.strip():
        return reply._replace(outcome="empty", error="no content, only reasoning" if reasoning else "no content")
    return reply


_THOUGHTS = ("thinking", "reasoning", "redacted_thinking")  # types of content parts that are not part of the answer


def _text(content: Any) -> str:
    """Content as valid Unicode text: parts joined, lone surrogates replaced."""
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content if part.get("type") not in _THOUGHTS)
    return (content or "").encode("utf-8", "replace").decode()


def _split_thinking(content: str) -> tuple[str, str | None]:
    opened, body = content.lstrip().startswith("<think>"), content.lstrip().removeprefix("<think>")
    thought, closed, answer = body.partition("</think>")
    if closed and (opened or "<think>" not in thought):  # chat templates may open the tag in the prompt
        return answer.lstrip(), thought.strip()
    return ("", body.strip()) if opened else (content, None)


def _read_usage(usage: dict[str, Any]) -> dict[str, int | None]:
    """Token counts under the names of OpenAI and DeepSeek. Completion tokens include reasoning, also where a provider
    (xAI, Gemini) includes it in the total only; prompt tokens include cached ones."""
    details = _as_dict(usage.get("completion_tokens_details"))
    cached = _as_dict(usage.get("prompt_tokens_details")).get("cached_tokens")
    prompt, completion, total = (
        _token_count(usage.get(f"{name}_tokens")) for name in ("prompt", "completion", "total")
    )
    if None not in (prompt, completion, total):
        completion = max(completion, total - prompt)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "reasoning_tokens": _token_count(details.get("reasoning_tokens")),
        "cached_tokens": min(_token_count(cached or usage.get("prompt_cache_hit_tokens")) or 0, prompt or 0),
    }


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _token_count(value: Any) -> int | None:
    """A number of tokens, None for anything else."""
    return int(value) if type(value) in (int, float) and 0 <= value < 2**40 else None


def _error_message(text: str) -> str:
    """The readable part of an error body."""
    try:
        error = json.loads(text)["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        return text[:300] or "no body"
