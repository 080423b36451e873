"""How long a response asks to wait: Retry-After, x-ratelimit headers, or a time in the body of a 429.

Formats differ by provider: Retry-After or retry-after-ms (OpenAI, Azure, gateways of vLLM); x-ratelimit-reset-requests
and -tokens as "6m0s" or "17ms" (OpenAI, Groq), in seconds, epoch seconds or epoch milliseconds (OpenRouter), or as a
date (Anthropic); RateLimit-Reset (IETF draft); a retryDelay in the body (Gemini).
"""

import hashlib
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_PREFIXES = ("x-ratelimit-", "ratelimit-", "anthropic-ratelimit-")
_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_IN_BODY = re.compile(
    r"\"retryDelay\"\s*:\s*\"([\d.]+m?s)\"|(?:try again|retry) (?:in|after) ((?:[\d.]+ ?(?:ms|s|m|h|d))+)", re.I
)
_WORDS = {"milliseconds?": "ms", "seconds?": "s", "minutes?": "m", "hours?": "h", "days?": "d"}


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds from retry-after-ms or Retry-After (a number, or an HTTP date by the server's clock); 0 if absent or
    unreadable."""
    headers = _lower(headers)
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        value = headers.get("retry-after", "0")
        if value.replace(".", "", 1).isdigit():
            return float(value)
        if seconds := _duration(value):
            return seconds
        until, now = _utc(value), headers.get("date")
        return max(0.0, (until - (_utc(now) if now else datetime.now(UTC))).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def seconds_to_wait(headers: Mapping[str, str], body: str) -> float:
    """Seconds that a 429 asks to wait: Retry-After, else until every used-up limit is reset, else the time in the body;
    0 if there is none."""
    if wait := retry_after(headers):
        return wait
    limits = read_limits(headers)
    used_up = [reset for _, remaining, reset in limits.values() if remaining is not None and remaining <= 0]
    if resets := used_up or [reset for _, remaining, reset in limits.values() if remaining is None]:
        return max(resets)
    body = body[:5000]
    for word, unit in _WORDS.items():
        body = re.sub(rf"(?<=\d) ?{word}\b", unit, body, flags=re.IGNORECASE)
    if found := _IN_BODY.search(body):
        return _duration(re.sub(r"\s", "", found[1] or found[2])) or 0.0
    return 0.0


def seconds_until_room(headers: Mapping[str, str], tokens: float) -> float:
    """Seconds until a limit that is used up, by the headers of an answer, has room for another request of `tokens`
    tokens, assuming an even refill until its reset; 0 if there is room."""
    wait = 0.0
    for kind, (limit, remaining, reset) in read_limits(headers).items():
        needed = tokens if "token" in kind else 1.0
        if remaining is not None and remaining < needed and reset:
            room = max((limit or 0.0) - remaining, needed)
            wait = max(wait, reset * min(1.0, (needed - remaining) / room) if limit else reset)
    return wait


def read_limits(headers: Mapping[str, str]) -> dict[str, tuple[float | None, float | None, float]]:
    """Name -> (limit, remaining, seconds until reset) for each limit in the headers: "requests", "tokens", ..., or ""
    if it has no name. Limits without a readable reset are left out."""
    found: dict[str, dict[str, str]] = {}
    if "ratelimit-" not in " ".join(headers).lower():  # true for most answers
        return {}
    for name, value in _lower(headers).items():
        if prefix := next((p for p in _PREFIXES if name.startswith(p)), None):
            words = name.removeprefix(prefix).split("-")
            if field := next((w for w in ("limit", "remaining", "reset") if w in words), None):
                found.setdefault("-".join(w for w in words if w != field), {})[field] = value
    limits = {}
    for kind, fields in found.items():
        if (reset := _seconds_until(fields.get("reset", ""))) is not None:
            limits[kind] = (_number(fields.get("limit", "")), _number(fields.get("remaining", "")), reset)
    return limits


def backoff(key: str, failures: int, base: float) -> float:
    """Seconds to wait after a request's n-th failure: exponential, at most 30 before jitter, which depends only on key
    and n."""
    return min(30.0, base * 2 ** min(failures - 1, 30)) * (0.5 + jitter(f"{key}:{failures}"))


def jitter(text: str) -> float:
    """A number from 0 to 1 that depends only on the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def _seconds_until(value: str) -> float | None:
    """Seconds until a reset given as a duration, seconds, epoch seconds or milliseconds, or a date."""
    if (number := _number(value)) is not None:
        if number > 1e11:
            number /= 1000
        return max(0.0, number - time.time()) if number > 1e9 else number
    if (seconds := _duration(value)) is not None:
        return seconds
    try:
        moment = datetime.fromisoformat(value) if value[:4].isdigit() else parsedate_to_datetime(value)
        return max(0.0, ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None


def _duration(value: str) -> float | None:
    """Seconds of a duration such as 6m0s, 2m59.56s or 17ms; None for anything else."""
    parts = _PART.findall(value)
    return sum(float(n) * _UNITS[unit] for n, unit in parts) if parts and _PART.sub("", value) == "" else None


def _number(value: str) -> float | None:
    value = value.strip()
    return float(value) if value.isascii() and value.replace(".", "", 1).isdigit() else None


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _utc(value: str) -> datetime:
    """The time of an HTTP date; "-0000" means UTC with an unknown time zone."""
    moment = parsedate_to_datetime(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
