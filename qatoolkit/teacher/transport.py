"""HTTP to a teacher: its endpoint, and sending requests."""

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import aiohttp

from qatoolkit.teacher.calls import Request
from qatoolkit.teacher.completions import Reply, Response
from qatoolkit.teacher.limits import TeacherError
from qatoolkit.teacher.settings import check_url, check_variables

BOUND = 16 << 20  # most bytes of an answer, after decompression
SHOWN = 80  # characters of a useless answer that a message shows
REDIRECTS = (301, 302, 303, 307, 308)
REMEDIES = {  # HTTP statuses that neither a retry nor another prompt can change -> remedy
    401: "check the key in {key_env}",
    402: "the account is empty: top it up",
    404: "check base_url and the model name {model!r}",
    **dict.fromkeys(REDIRECTS, "no redirect is followed, it could carry the key elsewhere: set base_url to"),
}
# How OpenAI, Moonshot, Alibaba, Zhipu, Volcengine and one-api say that an account is used up.
USED_UP = re.compile(
    "insufficient_quota|billing_hard_limit|exceeded_current_quota|insufficient_user_quota|Arrearage|AccountOverdue"
    "|insufficient_balance|credit balance is too low|余额不足"
)
OWN_HEADERS = ("authorization", "content-length", "content-type", "host", "transfer-encoding")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a teacher is served. `name` (default the URL) is part of the cache key of every request; `key_env` is the
    environment variable with the API key, None to send no Authorization header; `headers` maps further HTTP headers to
    the environment variables with their values, such as {"OpenAI-Organization": "MY_ORG"}. ValueError for an invalid
    URL or one with a secret in it, an invalid variable name, or a header that every request has anyway.

    >>> import qatoolkit as qt
    >>> endpoint = qt.Endpoint(base_url="https://llm.example.org/v1/", name="our server", key_env="OUR_KEY")
    >>> endpoint.base_url, endpoint.name, endpoint.is_local
    ('https://llm.example.org/v1', 'our server', False)
    >>> qt.Endpoint(base_url="llm.example.org")
    Traceback (most recent call last):
        ...
    ValueError: Endpoint.base_url is 'llm.example.org': give http(s)://host/path, e.g. .../v1
    """

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
        """The endpoint at OPENAI_BASE_URL, with its key in OPENAI_API_KEY. ValueError if the URL is not set, because no
        public server is used unless it is named."""
        if url := os.environ.get("OPENAI_BASE_URL"):
            return cls(base_url=url)
        raise ValueError(
            "no endpoint is named: set OPENAI_BASE_URL, or pass endpoint=Endpoint(base_url=...), "
            "e.g. https://api.openai.com/v1"
        )

    @property
    def is_local(self) -> bool:
        """Whether the host is this machine, so that no key is needed."""
        host = urlsplit(self.base_url).hostname
        return host in ("localhost", "::1") or host.startswith("127.")

    def sent_headers(self) -> dict[str, str]:
        """The Authorization header and `headers`, from the environment. TeacherError for a missing key (of a remote
        host), a missing header value, or a malformed one."""
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
        """`text` without the key and the values of `headers`, in case a server repeats them; spellings escaped for JSON
        or URLs are found too."""
        for variable in filter(None, (self.key_env, *self.headers.values())):
            text = replace_secret(text, os.environ.get(variable, "").strip(), f"[{variable}]")
        return text


def _secret(variable: str) -> str:
    """The value of an environment variable for a header, empty if it is not set."""
    value = os.environ.get(variable, "").strip()
    if not (value.isascii() and value.isprintable()):
        raise TeacherError(f"{variable} has a line break or a character that no key contains: set it again")
    return value


def replace_secret(text: str, key: str, instead: str) -> str:
    """`text` with every spelling of a key replaced. Keys shorter than 8 characters, or 16 if all are letters, are taken
    for placeholders ("none", "EMPTY") and not replaced, since answers may contain the word."""
    return _spellings(key).sub(instead, text) if len(key) >= (16 if key.isalpha() else 8) else text


@lru_cache(maxsize=8)
def _spellings(key: str) -> re.Pattern[str]:
    """Matches the key as it is and with its punctuation escaped for JSON ("\\/", "\\u002b") or a URL ("%2b")."""
    escaped = r"(?:\\?{}|(?i:\\u{:04x}|%{:02x}))"
    plain = (c if c.isalnum() or c in "-_" else escaped.format(re.escape(c), ord(c), ord(c)) for c in key)
    return re.compile("".join(plain))


Send = Callable[[Request], Awaitable[Response]]
JSON = {"Content-Type": "application/json"}


def open_session(endpoint: Endpoint, timeout: aiohttp.ClientTimeout, connections: int = 100) -> aiohttp.ClientSession:
    """A session without cookies; it uses the environment's proxies, except for local endpoints."""
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
    body: str | None = None,
    **content: Any,
) -> Response:
    """Send one HTTP request with a JSON `body` and read its response, with the key redacted; with `into`, the body of a
    200 is written there instead. One core sends 1,440-1,555 requests/s over aiohttp, 165-187 with the OpenAI SDK."""
    url, headers = endpoint.base_url + path, endpoint.sent_headers()
    if body is not None:
        content, headers = {"data": body.encode()}, headers | JSON
    try:
        # A redirect could carry the key to another host, so it is returned, not followed.
        async with session.request(method, url, headers=headers, allow_redirects=False, **content) as response:
            if into and response.status == 200:
                into.seek(0)
                into.truncate()
                async for chunk in response.content.iter_chunked(2**20):
                    into.write(chunk)
                return Response(200, response.headers, "")
            small = (response.content_length or BOUND) < BOUND and "Content-Encoding" not in response.headers
            read = await (response.read() if small else _read_bounded(response.content.iter_any()))
            text = endpoint.redact(read.decode("utf-8", "replace"))
            return Response(response.status, response.headers, text)
    except TooLarge as error:
        return Response(None, {}, str(error), "too_large")
    except TimeoutError:
        seconds = session.timeout.total or session.timeout.sock_read
        return Response(None, {}, f"no answer within {seconds:g} s", "timeout")
    except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a malformed redirect or header
        return Response(None, {}, endpoint.redact(f"{type(error).__name__}: {error}"), "connection")


class TooLarge(Exception):
    """An answer has more than `BOUND` bytes."""


async def _read_bounded(chunks: AsyncIterator[bytes]) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > BOUND:
            raise TooLarge(f"the answer has more than {BOUND >> 20} MiB")
    return bytes(body)


def sdk_transport(client: Any, endpoint: Endpoint) -> Send:
    """Send through an `openai` client; its subclasses (Azure, ...) know their own URLs and credentials."""
    import openai
    from openai._constants import RAW_RESPONSE_HEADER

    def redact(text: str) -> str:
        key = client.api_key if isinstance(client.api_key, str) else ""
        return endpoint.redact(replace_secret(text, key, "[key]"))

    # The body stays unread until we read it, within bounds; redirects are returned, not followed.
    options = {"follow_redirects": False, "headers": {RAW_RESPONSE_HEADER: "stream"}}

    async def send(request: Request) -> Response:
        try:
            answer = await client.post("/chat/completions", body=request.body, cast_to=str, options=options)
            try:
                content = await _read_bounded(answer.http_response.aiter_bytes())
            finally:
                await answer.http_response.aclose()
            return Response(answer.status_code, answer.headers, redact(content.decode("utf-8", "replace")))
        except TooLarge as error:
            return Response(None, {}, str(error), "too_large")
        except openai.APIStatusError as error:
            return Response(error.status_code, error.response.headers, redact(error.response.text))
        except openai.APITimeoutError:
            return Response(None, {}, "no answer within the timeout", "timeout")
        except openai.APIConnectionError as error:
            return Response(None, {}, redact(f"{type(error.__cause__ or error).__name__}: {error}"), "connection")

    return send


def explain_failure(endpoint: Endpoint, outcome: str, error: str) -> str:
    """Why an endpoint answers nothing, in words: where, the first `SHOWN` characters of what came back, and what to
    check. `outcome` and `error` are those of a row of `Teacher.ask`."""
    kind, status = outcome.partition("_")[::2]
    came = re.sub(r"^\d+: (no chat completion but )?", "", error.rpartition("correction failed: ")[2])
    status = int(status) if kind == "http" and status.isdigit() else 0
    if 200 <= status < 300:
        what, check = f"no chat completion (status {status}) from", "base_url is that of the API, not of a web page"
    elif status:
        name = next((f" {one.phrase}" for one in HTTPStatus if one == status), "")
        what, check = f"status {status}{name} from", "the server is up and base_url, model and request are right"
    else:
        what = {"connection": "no connection to", "timeout": "no answer in time from"}.get(outcome, f"{outcome} at")
        check = "the server is up and base_url is right"
    shown = endpoint.redact(" ".join(came.split())).strip("'\"")[:SHOWN]
    return f"{what} {endpoint.base_url}: {shown!r}; check that {check} (it usually ends in /v1)"


def remedy_of(response: Response, reply: Reply, endpoint: Endpoint, model: str) -> str | None:
    """What a response says that only the user can remedy, and how; None for any other response."""
    if response.status in (400, 401, 402, 403, 429) and USED_UP.search(response.text):
        return f"the quota at {endpoint.name} is used up: {reply.error}; top it up"
    if remedy := REMEDIES.get(response.status):
        variables = " and ".join(filter(None, (endpoint.key_env, *endpoint.headers.values()))) or "key_env"
        remedy = remedy.format(key_env=variables, model=model)
        if 300 <= response.status < 400:
            remedy += f" {endpoint.redact(response.headers.get('Location', 'where it is served'))[:200]!r}"
        return f"{endpoint.name} answered {reply.error}; {remedy}"
    return None
