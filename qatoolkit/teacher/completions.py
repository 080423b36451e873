"""Reads what a teacher's server sends: the providers' variants of chat completions, and errors."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

ANSWERED = frozenset({"ok", "empty", "length", "refusal"})  # outcomes that are paid for and stored
# finish_reason of OpenAI, OpenRouter, DeepSeek, Mistral, Gemini and GLM, in lower case. Broken-off answers are retried.
BROKEN_OFF = ("error", "insufficient_system_resource", "network_error", "abort")
CUT_OFF = ("length", "max_tokens", "model_length")
FILTERED = ("content_filter", "safety", "recitation", "sensitive", "prohibited_content")
REFUSED = "REFUSED:"  # prefix of the offline teacher's replies to questions it can't answer


class Response(NamedTuple):
    """An HTTP response; if none can be used, `status` is None and `failure` is timeout, connection or too_large."""

    status: int | None
    headers: Mapping[str, str]
    text: str
    failure: str = ""

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later. Called for a 200 only if it contains no completion."""
        if self.failure:
            return self.failure != "too_large"
        return self.status in (200, 408, 409, 425, 429) or self.status >= 500


class Reply(NamedTuple):
    """A parsed response: `outcome` is one of ANSWERED or names the failure."""

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


def read_response(response: Response) -> tuple[Reply, str | None]:
    """The reply in a response, and the JSON text to store if it is an answer."""
    if response.failure:
        return Reply(response.failure, error=response.text), None
    completion, usage = None, {}
    if 200 <= response.status < 300:
        text = _without_comments(response.text)
        try:
            completion = json.loads(text)
            reply = read_completion(completion)
            if reply.outcome in ANSWERED:
                return reply, text
            return reply._replace(outcome=f"http_{response.status}"), None
        except (ValueError, RecursionError):
            message = f"no chat completion but {response.text[:200]!r}"
            usage = _read_usage(_as_dict(_as_dict(completion).get("usage")))  # billed anyway
    else:
        message = _error_message(response.text)
    return Reply(f"http_{response.status}", error=f"{response.status}: {message}", **usage), None


def unwrap_error(response: Response) -> Response:
    """If a gateway (OpenRouter) sent an error inside a 200, the response with the status of that error; else
    unchanged."""
    if response.status != 200 or '"error"' not in response.text:
        return response
    try:
        completion = _as_dict(json.loads(_without_comments(response.text)))
    except (ValueError, RecursionError):
        return response
    code = str(_as_dict(completion.get("error")).get("code"))
    inside = not completion.get("choices") and code.isdecimal() and len(code) == 3 and "400" <= code < "600"
    return response._replace(status=int(code)) if inside else response


def _without_comments(text: str) -> str:
    """A body without a byte order mark and what gateways send to keep the connection open: blank lines, SSE
    comments."""
    text = text.lstrip("\ufeff \r\n\t")
    while text.startswith(":"):
        text = text.partition("\n")[2].lstrip()
    return text


def read_completion(completion: dict[str, Any]) -> Reply:
    """Read a chat completion; ValueError if it is not one. If the server broke the answer off, the outcome is http_200.

    Reasoning is separated from the content, whether it comes in its own field or between <think> tags.
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
        return reply._replace(outcome="length", error="cut off at max_tokens: raise it")
    if not content.strip():
        return reply._replace(outcome="empty", error="no content, only reasoning" if reasoning else "no content")
    return reply


_THOUGHTS = ("thinking", "reasoning", "redacted_thinking")  # types of content parts that are not part of the answer


def _text(content: Any) -> str:
    """Content as valid Unicode: parts joined, lone surrogates replaced."""
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content if part.get("type") not in _THOUGHTS)
    return (content or "").encode("utf-8", "replace").decode()


def _split_thinking(content: str) -> tuple[str, str | None]:
    opened, body = content.lstrip().startswith("<think>"), content.lstrip().removeprefix("<think>")
    thought, closed, answer = body.partition("</think>")
    if closed and (opened or "<think>" not in thought):  # some chat templates open the tag in the prompt
        return answer.lstrip(), thought.strip()
    return ("", body.strip()) if opened else (content, None)


def _read_usage(usage: dict[str, Any]) -> dict[str, int | None]:
    """Token counts from the fields of OpenAI and DeepSeek. Completion tokens include reasoning, even if a provider
    (xAI, Gemini) only counts it in the total; prompt tokens include cached ones."""
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
        found = json.loads(text)
        found = found[0] if isinstance(found, list) else found  # Gemini
        error = found.get("error") or found.get("detail") or found["message"]  # FastAPI, older vLLM
        return str(error["message"] if isinstance(error, dict) else error)[:300]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return text[:300] or "no body"
