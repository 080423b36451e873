"""What providers and their gateways send, a hundred ways: each ends in an answer, a counted reject or one clear stop, and
what was billed is in the ledger.

The forms are those that OpenAI, Azure, DeepSeek, Moonshot, Alibaba, Zhipu, Gemini's compatible endpoint, OpenRouter, vLLM,
SGLang, llama.cpp, Ollama and LiteLLM document or are reported to send; the texts are our own.
"""

import gzip
import json
import zlib

import pytest
from aiohttp import web
from teacher_server import USAGE, Server, completion, failure

from qatoolkit.teacher.client import Endpoint, Teacher, TeacherError
from qatoolkit.teacher.ledger import Ledger
from qatoolkit.teacher.settings import Price

PRICE = Price(input=1.0, output=10.0)
COST = PRICE.cost(USAGE["prompt_tokens"], USAGE["completion_tokens"])
STOP = "stop"


def raw(text, status=200, kind="application/json", **headers):
    body = text if isinstance(text, bytes) else text.encode()
    return web.Response(body=body, status=status, headers={"Content-Type": kind, **headers})


def body(content="fine", finish="stop", usage=USAGE, **message):
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
    return json.dumps({"choices": [choice], "usage": usage})


def then_fine(first):
    """`first`, and an answer from the second request on."""
    return lambda nth: first() if nth == 1 else completion("fine")


def always(response):
    return lambda nth: response()


OPEN_ROUTER = {"error": {"code": 502, "message": "Provider returned error", "metadata": {"provider_name": "x"}}}
GEMINI = {
    "error": {
        "code": 429,
        "message": "Resource has been exhausted",
        "status": "RESOURCE_EXHAUSTED",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.05s"}],
    }
}

# name: (server, outcome, requests, answers billed)
BEHAVIOURS = {
    # answers, however they are wrapped
    "plain": (always(lambda: completion("fine")), "ok", 1, 1),
    "content in parts": (always(lambda: completion([{"type": "text", "text": "fine"}])), "ok", 1, 1),
    "thinking in parts": (
        always(lambda: completion([{"type": "thinking", "thinking": "so"}, {"type": "text", "text": "fine"}])),
        *("ok", 1, 1),
    ),
    "reasoning_content (DeepSeek)": (always(lambda: completion("fine", reasoning_content="so")), "ok", 1, 1),
    "reasoning (OpenRouter)": (always(lambda: completion("fine", reasoning="so")), "ok", 1, 1),
    "reasoning as an object": (always(lambda: completion("fine", reasoning={"summary": "so"})), "ok", 1, 1),
    "think tags": (always(lambda: completion("<think>so</think>fine")), "ok", 1, 1),
    "think closed only (chat template opened it)": (always(lambda: completion("so</think>fine")), "ok", 1, 1),
    "finish null (Ollama of old)": (always(lambda: raw(body(finish=None))), "ok", 1, 1),
    "finish STOP (Gemini)": (always(lambda: raw(body(finish="STOP"))), "ok", 1, 1),
    "finish eos_token": (always(lambda: raw(body(finish="eos_token"))), "ok", 1, 1),
    "text/plain": (always(lambda: raw(body(), kind="text/plain")), "ok", 1, 1),
    "no content type": (always(lambda: raw(body(), kind="")), "ok", 1, 1),
    "status 201": (always(lambda: raw(body(), 201)), "ok", 1, 1),
    "byte order mark": (always(lambda: raw("\ufeff" + body())), "ok", 1, 1),
    "blank lines to keep the line open (DeepSeek)": (always(lambda: raw("\n\n\n \n" + body())), "ok", 1, 1),
    "SSE comments (OpenRouter)": (always(lambda: raw(": PROCESSING\n\n: PROCESSING\n\n" + body())), "ok", 1, 1),
    "gzip": (always(lambda: raw(gzip.compress(body().encode()), **{"Content-Encoding": "gzip"})), *("ok", 1, 1)),
    "deflate": (always(lambda: raw(zlib.compress(body().encode()), **{"Content-Encoding": "deflate"})), *("ok", 1, 1)),
    "escaped unicode": (always(lambda: raw(body("数学 \ud83d\ude00"))), "ok", 1, 1),
    "half a surrogate": (always(lambda: raw('{"choices": [{"message": {"content": "\\ud83d"}}]}')), "ok", 1, None),
    "unknown fields": (always(lambda: raw(body(annotations=[], audio=None, tool_calls=None))), "ok", 1, 1),
    "error null beside the answer (llama-swap)": (always(lambda: raw(body()[:-1] + ', "error": null}')), *("ok", 1, 1)),
    # usage, or what is left of it
    "usage null": (always(lambda: raw(body(usage=None))), "ok", 1, None),
    "usage missing": (
        always(lambda: raw(json.dumps({"choices": [{"message": {"content": "fine"}}]}))),
        *("ok", 1, None),
    ),
    "usage zero (some proxies)": (
        always(lambda: raw(body(usage={"prompt_tokens": 0, "completion_tokens": 0}))),
        *("ok", 1, None),
    ),
    "usage negative": (
        always(lambda: raw(body(usage={"prompt_tokens": -1, "completion_tokens": -1}))),
        *("ok", 1, None),
    ),
    "usage as text": (
        always(lambda: raw(body(usage={"prompt_tokens": "10", "completion_tokens": "30"}))),
        *("ok", 1, None),
    ),
    "usage as floats": (
        always(lambda: raw(body(usage={"prompt_tokens": 10.0, "completion_tokens": 30.0}))),
        *("ok", 1, 1),
    ),
    "reasoning only in the total (xAI)": (
        always(lambda: raw(body(usage={"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 40}))),
        *("ok", 1, 1),
    ),
    # answers that are none
    "empty, then fine": (then_fine(lambda: completion("")), "ok", 2, 2),
    "always empty": (always(lambda: completion("")), "empty", 2, 2),
    "content null": (always(lambda: completion(None)), "empty", 2, 2),
    "only reasoning": (always(lambda: completion("", reasoning_content="long")), "empty", 2, 2),
    "tool call": (always(lambda: raw(body(None, "tool_calls", tool_calls=[{"id": "1"}]))), *("empty", 2, 2)),
    "cut off": (always(lambda: completion("half", finish="length")), "length", 1, 1),
    "MAX_TOKENS (Gemini)": (always(lambda: completion("half", finish="MAX_TOKENS")), "length", 1, 1),
    "model_length (Mistral)": (always(lambda: completion("half", finish="model_length")), "length", 1, 1),
    "content filter": (always(lambda: completion("", finish="content_filter")), "refusal", 1, 1),
    "content_filter: SAFETY (Gemini)": (
        always(lambda: completion(None, finish="content_filter: SAFETY")),
        *("refusal", 1, 1),
    ),
    "sensitive (Zhipu)": (always(lambda: completion("", finish="sensitive")), "refusal", 1, 1),
    "refusal field": (always(lambda: completion(None, refusal="no")), "refusal", 1, 1),
    # broken off: billed, and asked again
    "finish error": (then_fine(lambda: completion("ha", finish="error")), "ok", 2, 2),
    "insufficient_system_resource (DeepSeek)": (
        then_fine(lambda: completion("ha", finish="insufficient_system_resource")),
        *("ok", 2, 2),
    ),
    "abort (vLLM, SGLang)": (then_fine(lambda: completion("ha", finish="abort")), "ok", 2, 2),
    "network_error (Zhipu)": (then_fine(lambda: completion("ha", finish="network_error")), "ok", 2, 2),
    "choice with an error (OpenRouter)": (
        then_fine(
            lambda: raw(json.dumps({"choices": [{"error": {"code": 502}, "message": {"content": ""}}], "usage": USAGE}))
        ),
        *("ok", 2, 2),
    ),
    "no choices but usage": (then_fine(lambda: raw(json.dumps({"choices": [], "usage": USAGE}))), "ok", 2, 2),
    "choices null but usage": (then_fine(lambda: raw(json.dumps({"choices": None, "usage": USAGE}))), "ok", 2, 2),
    # a 200 that is no completion
    "error in a 200 (OpenRouter)": (then_fine(lambda: raw(json.dumps(OPEN_ROUTER))), "ok", 2, 1),
    "429 in a 200 (OpenRouter)": (
        then_fine(lambda: raw(json.dumps({"error": {"code": 429, "message": "slow"}}))),
        *("ok", 2, 1),
    ),
    "400 in a 200 (OpenRouter)": (
        always(lambda: raw(json.dumps({"error": {"code": 400, "message": "bad"}}))),
        *("http_400", 1, 0),
    ),
    "402 in a 200 (OpenRouter)": (
        always(lambda: raw(json.dumps({"error": {"code": 402, "message": "credits"}}))),
        *(STOP, 1, 0),
    ),
    "error text in a 200": (always(lambda: raw('{"error": "model is loading"}')), "http_200", 2, 0),
    "html in a 200": (always(lambda: raw("<html>sign in</html>", kind="text/html")), "http_200", 2, 0),
    "nothing in a 200": (always(lambda: raw("")), "http_200", 2, 0),
    "null": (always(lambda: raw("null")), "http_200", 2, 0),
    "a list": (always(lambda: raw("[]")), "http_200", 2, 0),
    "a number": (always(lambda: raw("7")), "http_200", 2, 0),
    "half of a JSON": (then_fine(lambda: raw(body()[:40])), "ok", 2, 1),
    "two JSONs": (always(lambda: raw(body() + body())), "http_200", 2, 0),
    "a stream that nobody asked for": (
        always(
            lambda: raw('data: {"choices": [{"delta": {"content": "f"}}]}\n\ndata: [DONE]\n', kind="text/event-stream")
        ),
        *("http_200", 2, 0),
    ),
    "nested deep": (always(lambda: raw("[" * 100_000)), "http_200", 2, 0),
    "not UTF-8": (always(lambda: raw(b"\xff\xfe\x00")), "http_200", 2, 0),
    "message missing": (always(lambda: raw('{"choices": [{}]}')), "http_200", 2, 0),
    "message a text": (always(lambda: raw('{"choices": [{"message": "fine"}]}')), "http_200", 2, 0),
    "content a number": (always(lambda: raw('{"choices": [{"message": {"content": 7}}]}')), "http_200", 2, 0),
    "204": (always(lambda: web.Response(status=204)), "http_204", 1, 0),
    # errors that pass
    "500": (then_fine(lambda: failure(500)), "ok", 2, 1),
    "500 in plain text (transformers serve)": (then_fine(lambda: raw("oops", 500, "text/plain")), "ok", 2, 1),
    "502 html (nginx)": (then_fine(lambda: raw("<h1>Bad Gateway</h1>", 502, "text/html")), "ok", 2, 1),
    "503 loading model (llama.cpp)": (then_fine(lambda: failure(503, "Loading model")), "ok", 2, 1),
    "503 with Retry-After": (then_fine(lambda: failure(503, "busy", **{"Retry-After": "0.05"})), "ok", 2, 1),
    "504": (then_fine(lambda: failure(504)), "ok", 2, 1),
    "520 (Cloudflare)": (then_fine(lambda: raw("", 520)), "ok", 2, 1),
    "529 overloaded (Anthropic)": (then_fine(lambda: failure(529, "overloaded")), "ok", 2, 1),
    "408": (then_fine(lambda: failure(408)), "ok", 2, 1),
    "409": (then_fine(lambda: failure(409)), "ok", 2, 1),
    "425": (then_fine(lambda: failure(425)), "ok", 2, 1),
    "line dropped": (then_fine(lambda: None), "ok", 2, 1),
    "500 for ever": (always(lambda: failure(500)), "http_500", 2, 0),
    # 429s
    "429": (then_fine(lambda: failure(429)), "ok", 2, 1),
    "429 Retry-After": (then_fine(lambda: failure(429, **{"Retry-After": "0.05"})), "ok", 2, 1),
    "429 retry-after-ms (Azure)": (then_fine(lambda: failure(429, **{"retry-after-ms": "50"})), "ok", 2, 1),
    "429 reset-requests (OpenAI)": (
        then_fine(
            lambda: failure(429, **{"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "60ms"})
        ),
        *("ok", 2, 1),
    ),
    "429 retryDelay (Gemini)": (then_fine(lambda: raw(json.dumps([GEMINI]), 429)), "ok", 2, 1),
    "429 try again in (OpenAI)": (then_fine(lambda: failure(429, "Please try again in 50ms.")), "ok", 2, 1),
    "429 with a date": (
        then_fine(lambda: failure(429, **{"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})),
        *("ok", 2, 1),
    ),
    "429 with nonsense": (then_fine(lambda: failure(429, **{"Retry-After": "soon"})), "ok", 2, 1),
    "429 insufficient_quota": (always(lambda: failure(429, "insufficient_quota")), STOP, 1, 0),
    "429 exceeded_current_quota (Moonshot)": (
        always(lambda: raw('{"error": {"type": "exceeded_current_quota_error", "message": "x"}}', 429)),
        *(STOP, 1, 0),
    ),
    "429 until tomorrow": (always(lambda: failure(429, **{"Retry-After": "86400"})), STOP, 1, 0),
    # rejects of one prompt
    "400 too long (vLLM)": (always(lambda: failure(400, "maximum context length is 4096")), "http_400", 1, 0),
    "400 detail (FastAPI)": (always(lambda: raw('{"detail": "bad"}', 400)), "http_400", 1, 0),
    "400 plain text": (always(lambda: raw("bad", 400, "text/plain")), "http_400", 1, 0),
    "400 with no body": (always(lambda: raw("", 400)), "http_400", 1, 0),
    "400 Arrearage (Alibaba)": (
        always(lambda: raw('{"error": {"code": "Arrearage", "message": "x"}}', 400)),
        STOP,
        1,
        0,
    ),
    "403 moderation (OpenRouter)": (always(lambda: failure(403, "flagged")), "http_403", 1, 0),
    "405": (always(lambda: raw("", 405)), "http_405", 1, 0),
    "413": (always(lambda: failure(413, "too large")), "http_413", 1, 0),
    "422 (Mistral)": (always(lambda: raw('{"object": "error", "message": {"detail": []}}', 422)), "http_422", 1, 0),
    "451": (always(lambda: failure(451)), "http_451", 1, 0),
    # what no other prompt changes either
    "401": (always(lambda: failure(401, "bad key")), STOP, 1, 0),
    "402": (always(lambda: failure(402, "Insufficient Balance")), STOP, 1, 0),
    "404 model not found (Ollama)": (always(lambda: failure(404, 'model "x" not found')), STOP, 1, 0),
    "301": (always(lambda: web.Response(status=301, headers={"Location": "http://127.0.0.1:9/"})), "http_301", 1, 0),
    "307": (always(lambda: web.Response(status=307, headers={"Location": "http://127.0.0.1:9/"})), "http_307", 1, 0),
    "308 without a place": (always(lambda: web.Response(status=308)), "http_308", 1, 0),
    # hostile
    "20 MiB": (always(lambda: raw(body("x" * (20 << 20)))), "too_large", 1, None),
    "a gzip bomb": (
        always(lambda: raw(gzip.compress(bytes(200 << 20), 1), **{"Content-Encoding": "gzip"})),
        *("too_large", 1, None),
    ),
    "gzip that is none": (then_fine(lambda: raw(b"plain", **{"Content-Encoding": "gzip"})), "ok", 2, 1),
    "an encoding that nobody knows": (
        then_fine(lambda: raw(body(), **{"Content-Encoding": "rot13"})),
        "ok",
        None,
        None,
    ),
}


@pytest.fixture(scope="module")
def server():
    server = Server()
    server.answer = lambda prompt, nth: BEHAVIOURS[prompt][0](nth)
    yield server
    server.close()


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_whatever_a_provider_sends_ends_in_an_answer_a_reject_or_a_stop(server, tmp_path, name, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    _, outcome, requests, billed = BEHAVIOURS[name]
    server.seen.clear()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        endpoint = Endpoint(base_url=server.url, name=name)
        options = {"attempts": 2, "backoff": 0.01, "max_tokens": 100, "timeout": 5.0, "price": PRICE}
        teacher = Teacher("a-model", endpoint=endpoint, ledger=ledger, run="r", **options)
        if outcome == STOP:
            with pytest.raises(TeacherError) as stopped:
                teacher.ask([name])
            assert "\n" not in str(stopped.value)
        else:
            (row,) = teacher.ask([name]).itertuples()
            assert row.outcome == outcome
            assert isinstance(row.error, str) == (outcome != "ok")
        attempts = ledger.attempts()
        assert len(attempts) == server.seen[name]  # nothing is sent that is not recorded
        assert requests in (None, len(attempts))
        spent = ledger.spend("r")
        if billed is None:
            assert spent["unpriced"].sum() >= (outcome == "ok" and name != "an encoding that nobody knows")
        else:
            assert spent["cost"].sum() == pytest.approx(billed * COST)
            assert spent["unpriced"].sum() == 0
        assert ledger.check() == []
        assert ledger.read("SELECT count(*) FROM leases") == [(0,)]


def test_there_are_a_hundred_of_them():
    assert len(BEHAVIOURS) >= 100
