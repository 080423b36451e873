"""The teacher's promises, against a real HTTP server on loopback with faults that can be switched."""

import asyncio
import itertools
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time

import openai
import pytest
from aiohttp import web
from teacher_server import completion, failure

from qatoolkit.teacher.client import BudgetError, Endpoint, Teacher, TeacherError
from qatoolkit.teacher.completions import read_completion
from qatoolkit.teacher.ledger import Ledger
from qatoolkit.teacher.settings import Price
from qatoolkit.teacher.transport import explain_failure

KEY = "sk-very-secret-4711"


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as ledger:
        yield ledger


@pytest.fixture
def teacher(server, ledger, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def make(**changes):
        settings = {
            "endpoint": Endpoint(base_url=server.url, name="test"),
            **{"ledger": ledger, "backoff": 0.01, "max_tokens": 100},
        }
        return Teacher("textbook-r1", **(settings | changes))

    return make


def test_rows_come_back_in_the_order_asked_one_per_prompt_and_sample(server, teacher):
    server.answer = lambda prompt, nth: completion(f"{prompt}!", reasoning_content="because")
    prompts = [f"p{i}" for i in range(50)]
    table = teacher().ask(prompts, samples=2, ids=[f"id{i}" for i in range(50)])
    assert table["id"].tolist() == [f"id{i}" for i in range(50) for _ in range(2)]
    assert table["sample"].tolist() == [0, 1] * 50
    assert table["content"].tolist() == [f"p{i}!" for i in range(50) for _ in range(2)]
    assert set(table["outcome"]) == {"ok"}
    assert table["key"].is_unique
    assert table.loc[0, ["reasoning", "prompt_tokens", "completion_tokens", "reasoning_tokens"]].tolist() == [
        *("because", 10, 30, 20)
    ]
    assert not table["cached"].any()
    assert table["attempts"].eq(1).all()
    assert server.most <= 64


def test_a_rerun_makes_no_request_and_gives_the_same_table(server, teacher):
    first = teacher().ask(["a", "b", "c"])
    again = teacher().ask(["a", "b", "c"])
    assert len(server.requests) == 3
    assert again["cached"].all()
    assert again["attempts"].sum() == again["cost"].sum() == 0
    same = ["id", "sample", "key", "outcome", "value", "content", "reasoning", "completion_tokens", "error"]
    assert again[same].equals(first[same])


def test_one_more_prompt_costs_one_more_request(server, teacher):
    teacher().ask(["a", "b"])
    teacher().ask(["new", "a", "b"])
    assert server.seen == {"a": 1, "b": 1, "new": 1}


def test_anything_that_shapes_the_answer_misses_the_cache(server, teacher):
    def chat(system):
        return [[{"role": "system", "content": system}, {"role": "user", "content": "q"}]]

    teacher().ask(chat("be brief"))
    teacher().ask(chat("be brief"))
    assert len(server.requests) == 1
    teacher().ask(chat("be long"))
    teacher(temperature=0.0).ask(chat("be brief"))
    teacher(extra={"top_p": 0.9}).ask(chat("be brief"))
    teacher(endpoint=Endpoint(base_url=server.url, name="elsewhere")).ask(chat("be brief"))
    assert len(server.requests) == 5
    table = teacher().ask(chat("be brief"), samples=2)
    assert table["cached"].tolist() == [True, False]


def test_what_cannot_change_the_answer_hits_the_cache(server, teacher):
    teacher().ask(["q"])
    teacher(in_flight=3, timeout=5, run="another", stage="x", temperature=0.6).ask(["q"])
    assert len(server.requests) == 1


def test_identical_requests_in_flight_are_sent_once(server, teacher):
    server.delay = 0.05
    table = teacher().ask(["same"] * 20 + ["other"])
    assert server.seen == {"same": 1, "other": 1}
    assert table["content"].tolist() == ["answer to same"] * 20 + ["answer to other"]
    assert table["cached"].sum() == 19


def test_429_is_waited_out_as_told_and_slows_the_rest(server, teacher, ledger):
    told = []

    def answer(prompt, nth):
        if not told or time.monotonic() < told[0]:
            told[:] = told or [time.monotonic() + 0.9]
            return failure(429, "slow down", **{"Retry-After": "1"})
        return completion("ok")

    server.answer = answer
    server.delay = 0.01
    asker = teacher(in_flight=8)
    started = time.monotonic()
    table = asker.ask([f"p{i}" for i in range(20)])
    assert table["outcome"].eq("ok").all()
    assert 1.0 <= time.monotonic() - started < 3
    throttled = (ledger.attempts()["outcome"] == "http_429").sum()
    assert 1 <= throttled <= 8  # the burst that was in flight, and nobody after it
    assert 4 <= asker._sender.gate.limit < 8  # halved once for the burst, then creeping up again


def test_server_errors_and_dropped_connections_are_tried_again(server, teacher, ledger):
    faults = itertools.cycle([lambda: failure(500), lambda: failure(503), lambda: None])
    server.answer = lambda prompt, nth: completion("ok") if nth == 3 else next(faults)()
    table = teacher().ask([f"p{i}" for i in range(12)])
    assert table["outcome"].eq("ok").all()
    assert table["attempts"].eq(3).all()
    assert set(ledger.attempts()["outcome"]) == {"ok", "http_500", "http_503", "connection"}


def test_what_stays_broken_becomes_a_typed_outcome(server, teacher):
    bad = {
        "server": lambda: failure(500, "it broke"),
        "prompt": lambda: failure(400, "too long"),
        "html": lambda: web.Response(text="<html>proxy</html>"),
        "line": lambda: None,
        "moved": lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
    }
    server.answer = lambda prompt, nth: bad[prompt]() if prompt in bad else completion("ok")
    table = teacher(attempts=2).ask(["fine", *bad]).set_index("id")
    assert table["outcome"].tolist() == [*("ok", "http_500", "http_400", "http_200", "connection", "http_302")]
    assert table["attempts"].tolist() == [1, 2, 1, 2, 2, 1]
    assert table["error"].tolist()[1:3] == ["500: it broke", "400: too long"]
    assert table["value"].isna().tolist() == [False] + [True] * 5
    assert not table["cached"].any()


def test_a_silent_server_times_out(server, teacher):
    server.delay = 1.0
    table = teacher(timeout=0.1, attempts=2).ask(["q"])
    assert table.loc[0, ["outcome", "attempts"]].tolist() == ["timeout", 2]


def test_an_empty_answer_is_asked_for_once_more_and_one_that_was_cut_off_is_not(server, teacher):
    def answer(prompt, nth):
        if prompt.startswith("heals") and nth == 2:
            return completion("now")
        if "empty" in prompt:
            return completion("", reasoning_content="long thoughts")
        return completion("cut he", finish="length")

    server.answer = answer
    prompts = ["heals empty", "empty", "length"]
    table = teacher().ask(prompts)
    assert table["outcome"].tolist() == ["ok", "empty", "length"]
    assert table["content"].tolist() == ["now", "", "cut he"]
    assert table["attempts"].tolist() == [2, 2, 1]
    assert table.loc[1, "reasoning"] == "long thoughts"
    again = teacher().ask(prompts)  # and the final word is kept like any other
    assert again["outcome"].tolist() == table["outcome"].tolist()
    assert len(server.requests) == 5


def test_a_refusal_is_told_apart_from_an_answer(server, teacher):
    replies = {
        "marked": completion("REFUSED: set OPENAI_BASE_URL"),
        "field": completion(None, refusal="I will not"),
        "filter": completion("", finish="content_filter"),
    }
    server.answer = lambda prompt, nth: replies[prompt]
    table = teacher().ask(list(replies))
    assert table["outcome"].eq("refusal").all()
    assert table["attempts"].eq(1).all()
    assert table["error"].tolist()[:2] == ["REFUSED: set OPENAI_BASE_URL", "I will not"]


def test_bad_json_is_corrected_once_or_kept_as_unparsed(server, teacher):
    def answer(prompt, nth):
        if prompt in ("curable", "hopeless"):
            return completion("{bad" if prompt == "curable" else "worse")
        return completion('{"a": 1}' if "Expecting property name" in prompt else "still bad")

    server.answer = answer
    table = teacher().ask(["curable", "hopeless"], parse=json.loads)
    assert table["outcome"].tolist() == ["ok", "unparsed"]
    assert table["value"].tolist() == [{"a": 1}, None]
    assert table["content"].tolist() == ['{"a": 1}', "still bad"]
    assert table["attempts"].tolist() == [2, 2]
    assert "Expecting value" in table.loc[1, "error"]
    corrections = [body["messages"] for body, _ in server.requests if len(body["messages"]) == 3]
    assert sorted(told["content"] for _, told, _ in corrections) == ["worse", "{bad"]
    teacher().ask(["curable", "hopeless"], parse=json.loads)
    assert len(server.requests) == 4


def test_a_bug_in_parse_is_raised_and_what_was_paid_is_kept(server, teacher):
    def broken(content):
        raise KeyError("typo")

    with pytest.raises(KeyError) as caught:
        teacher().ask(["q"], parse=broken)
    assert "rerunning is free" in caught.value.__notes__[0]
    assert teacher().ask(["q"])["cached"].all()


def test_thinking_is_kept_apart_however_it_comes():
    def both(content, **message):
        body = json.loads(completion(content, **message).text)
        reply = read_completion(body)
        return reply.outcome, reply.content, reply.reasoning

    assert both("4", reasoning_content="2+2") == ("ok", "4", "2+2")
    assert both("4", reasoning="2+2") == ("ok", "4", "2+2")
    assert both("<think>\n2+2\n</think>\n\n4") == ("ok", "4", "2+2")
    assert both("2+2\n</think>\n\n4") == ("ok", "4", "2+2")
    assert both("<think> never ends") == ("empty", "", "never ends")
    assert both([{"type": "text", "text": "4"}]) == ("ok", "4", None)
    assert both("what does <think> mean? </think> ends it") == (
        *("ok", "what does <think> mean? </think> ends it", None),
    )
    assert both("half \ud83d") == ("ok", "half ?", None)


def test_it_works_inside_a_running_event_loop(server, teacher):
    async def cell():  # what a notebook cell sees: a loop that runs already
        asker = teacher()
        plain = asker.ask(["a"])
        both = await asyncio.gather(*(asyncio.to_thread(asker.ask, ["a", "c"]) for _ in range(2)))
        return plain, both

    plain, both = asyncio.run(cell())
    assert all(table.loc[0, "content"] == plain.loc[0, "content"] for table in both)
    assert server.seen == {"a": 1, "c": 1}


def test_asking_from_within_a_parser_is_an_error_and_not_a_hang(teacher):
    with pytest.raises(RuntimeError, match="cannot ask from within a parse function"):
        teacher().ask(["a"], parse=lambda content: teacher().ask([content]))


def test_progress_shows_rate_and_spend(server, teacher, capsys):
    server.delay = 1.0
    price = Price(input=0.0, output=1e6)  # a dollar for each token of an answer
    teacher(progress=True, price=price).ask(["a", "b", "c"], label="annotate")
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"annotate: 3/3 requests in .+ s \(.+/s, spent \$90\.00\)", last)


def test_progress_is_silent_unless_asked_for_and_admits_an_unknown_price(server, teacher, ledger, capsys):
    server.delay = 1.0
    teacher().ask(["a"])
    assert capsys.readouterr().out == ""
    stranger = Teacher("a-new-model", endpoint=Endpoint(base_url=server.url), ledger=ledger, progress=True)
    stranger.ask(["a"])
    assert "spent an unknown amount" in capsys.readouterr().out


def test_every_row_names_the_ledger_keys_of_all_that_was_asked_for_it(server, teacher, ledger):
    server.answer = lambda prompt, nth: completion("no" if "could not be read" not in prompt else "7")
    client = teacher()
    table = client.ask(["one", "two"], parse=int, samples=2)
    assert [len(keys) for keys in table["keys"]] == [2] * 4  # the answer and its correction
    assert [keys[0] for keys in table["keys"]] == client.keys(["one", "two"], samples=2)
    assert all(key == keys[-1] for key, keys in zip(table["key"], table["keys"], strict=True))
    assert set(ledger.attempts()["key"]) == {key for keys in table["keys"] for key in keys}


CLIENT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background may ignore it
import sys
from qatoolkit.teacher.ledger import Ledger
from qatoolkit.teacher.event_loop import run
from qatoolkit.teacher.client import Endpoint, Teacher

with Ledger(sys.argv[2]) as ledger:
    endpoint = Endpoint(base_url=sys.argv[1], name="test")
    teacher = Teacher("textbook-r1", endpoint=endpoint, ledger=ledger, in_flight=8, max_tokens=100)
    table = teacher.ask([f"p{i}" for i in range(200)])
    counts = table["outcome"].value_counts()
    done = table["outcome"] == "ok"
    assert counts["ok"] + counts["interrupted"] == 200
    assert table["content"][done].str.startswith("answer").all() and table["value"][~done].isna().all()
    print("returned what is done", file=sys.stderr)
"""


def test_requests_a_minute_are_kept(server, teacher):
    begun = time.monotonic()
    teacher(requests_per_minute=1200).ask([f"p{i}" for i in range(50)])  # 20 a second, of which 20 at once
    assert time.monotonic() - begun > (50 - 20) / 20 - 0.1


def test_tokens_a_minute_are_guessed_before_and_corrected_after(server, teacher):
    """max_tokens of 100 would allow 12 answers a second; they take 40 tokens, so most of it is given back."""
    begun = time.monotonic()
    one = teacher(tokens_per_minute=1200 * 60, in_flight=4)
    one.ask([f"p{i}" for i in range(60)])
    seconds = time.monotonic() - begun
    assert (60 * 40 - 1200) / 1200 - 0.1 < seconds < 60 * 100 / 1200
    with pytest.raises(ValueError, match="tokens_per_minute"):
        teacher(tokens_per_minute=0)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle_a_rerun_sends_only_what_is_missing(server, teacher, tmp_path, blow):
    server.delay = 0.03
    command = [sys.executable, "-c", CLIENT, server.url, str(tmp_path / "ledger.db")]
    client = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while len(server.requests) < 60:
        assert client.poll() is None
        time.sleep(0.005)
    client.send_signal(blow)
    _, errors = client.communicate(timeout=20)
    assert blow == signal.SIGKILL or "returned what is done" in errors
    assert "never retrieved" not in errors
    before = len(server.requests)
    assert before < 200
    table = teacher(in_flight=8).ask([f"p{i}" for i in range(200)])
    assert table["content"].tolist() == [f"answer to p{i}" for i in range(200)]
    assert len(server.requests) <= 200 + 8  # at most what was in flight is paid for twice
    assert table["cached"].sum() >= before - 8
    assert max(server.seen.values()) <= 2


def test_the_key_appears_nowhere_but_in_the_request(server, teacher, ledger, monkeypatch, caplog, traceback_of):
    monkeypatch.setenv("SOME_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    server.answer = lambda prompt, nth: (
        completion(f"your key is {KEY}") if prompt == "echo" else failure(401, f"bad key {KEY}")
    )
    endpoint = Endpoint(base_url=server.url, key_env="SOME_KEY")
    asker = teacher(endpoint=endpoint)
    table = asker.ask(["echo"])
    with pytest.raises(TeacherError, match="check the key in SOME_KEY") as caught:
        asker.ask(["q"])
    assert server.requests[0][1]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in "".join([traceback_of(caught), repr(endpoint), repr(asker), caplog.text])
    assert KEY not in table.to_csv()
    files = list(ledger.path.parent.glob("ledger.db*"))
    assert files
    assert all(KEY.encode() not in file.read_bytes() for file in files)


def test_a_missing_key_is_named_before_anything_is_sent(ledger, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    far = Endpoint(base_url="https://api.example.com/v1", key_env="NO_SUCH_KEY")
    with pytest.raises(TeacherError, match="set the environment variable NO_SUCH_KEY"):
        Teacher("m", endpoint=far, ledger=ledger).ask(["q"])
    assert ledger.attempts().empty


def test_the_endpoint_comes_from_the_environment_and_holds_no_secret(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1/")
    assert Endpoint.from_env().base_url == Endpoint.from_env().name == "http://127.0.0.1:9/v1"
    for url in (f"https://me:{KEY}@host/v1", f"https://host/v1?key={KEY}"):
        with pytest.raises(ValueError, match="credentials") as caught:
            Endpoint(base_url=url)
        assert KEY not in str(caught.value)
    with pytest.raises(ValueError, match="localhost:8000"):
        Endpoint(base_url="localhost:8000")


def test_costs_add_up_to_what_the_server_counted(server, teacher, ledger):
    # each prompt: one failure, one empty answer that is billed, one answer
    server.answer = lambda prompt, nth: failure(500) if nth == 1 else completion("" if nth == 2 else "ok")
    price = Price(input=1.0, output=10.0)
    table = teacher(price=price, run="r", stage="s").ask([f"p{i}" for i in range(10)])
    billed = 20 * (10 * 1.0 + 30 * 10.0) / 1e6
    assert table["cost"].sum() == pytest.approx(billed)
    spend = ledger.spend("r").loc[0]
    assert spend["cost"] == pytest.approx(billed)
    assert spend[["attempts", "prompt_tokens", "completion_tokens", "reasoning_tokens"]].tolist() == [
        *(30, 200, 600, 400)
    ]


def test_an_unknown_price_stays_unknown_and_the_offline_teacher_is_free(server, teacher, ledger):
    unknown = Teacher("unlisted", endpoint=Endpoint(base_url=server.url), ledger=ledger)
    assert unknown.ask(["q"])["cost"].isna().all()
    assert ledger.spend()["unpriced"].tolist() == [1]
    assert teacher().ask(["q"])["cost"].tolist() == [0.0]


def test_the_budget_is_never_passed_and_what_was_bought_is_kept(server, teacher, ledger):
    price = Price(input=1.0, output=10.0)  # an answer costs $0.00031 and may cost about $0.00104
    settings = {"price": price, "run": "r", "in_flight": 4}
    with pytest.raises(BudgetError, match=r"budget of \$0.005 reached"):
        teacher(budget=0.005, **settings).ask([f"p{i}" for i in range(100)])
    spent = ledger.spend("r")["cost"].sum()
    assert 0.003 < spent <= 0.005
    with pytest.raises(BudgetError):  # a new session does not get a new budget
        teacher(budget=0.005, **settings).ask([f"p{i}" for i in range(100)])
    assert ledger.spend("r")["cost"].sum() <= 0.005
    before = len(server.requests)
    assert len(teacher(**settings).ask([f"p{i}" for i in range(100)])) == 100
    assert len(server.requests) == 100
    assert before >= 10


def test_a_new_session_counts_answers_without_usage_as_the_most_they_can_have_cost(server, teacher):
    choice = {"finish_reason": "stop", "message": {"content": "ok"}}
    server.answer = lambda prompt, nth: web.json_response({"choices": [choice]})
    settings = {"price": Price(input=1.0, output=10.0), "run": "r", "in_flight": 1, "budget": 0.003}
    for _ in range(2):
        with pytest.raises(BudgetError, match="reached: this run has spent"):
            teacher(**settings).ask([f"p{i}" for i in range(10)])
    assert len(server.requests) == 2


def test_an_answer_that_the_server_broke_off_is_asked_for_again_and_paid_for(server, teacher, ledger):
    finish = {1: "error", 2: "INSUFFICIENT_SYSTEM_RESOURCE", 3: "stop"}
    server.answer = lambda prompt, nth: completion("half" if nth < 3 else "whole", finish=finish[nth])
    table = teacher(price=Price(input=1.0, output=10.0)).ask(["q"])
    assert table.loc[0, ["outcome", "content", "attempts"]].tolist() == ["ok", "whole", 3]
    assert table["cost"].sum() == pytest.approx(ledger.spend()["cost"].sum()) == pytest.approx(3 * 0.00031)


def test_a_budget_that_cannot_be_kept_is_refused(teacher):
    with pytest.raises(ValueError, match=r"not in prices\.csv"):
        Teacher("unlisted", endpoint=Endpoint(base_url="http://127.0.0.1:1"), ledger=teacher().ledger, budget=1)
    with pytest.raises(ValueError, match="set max_tokens"):
        teacher(budget=1, max_tokens=None)


def test_a_price_may_be_a_mapping_and_a_wrong_one_is_refused_at_once(teacher):
    table = teacher(price={"input": 1, "output": 10}).ask(["q"])
    assert table["cost"].tolist() == [pytest.approx((10 * 1 + 30 * 10) / 1e6)]
    for price in ({"input": 1.0}, {"in": 1.0, "output": 2.0}, {"input": -1.0, "output": 2.0}, {1: 2}, 0.27):
        with pytest.raises(ValueError, match=r"^Teacher price.*give \{\"input\": 0\.27") as caught:
            teacher(price=price)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("most", [0, -5])
def test_answers_without_a_token_are_refused(teacher, most):
    with pytest.raises(ValueError, match=rf"^Teacher max_tokens is {most}: give a number above 0$"):
        teacher(max_tokens=most)


def test_errors_about_money_name_the_dials_of_a_profile_too(teacher):
    with pytest.raises(ValueError, match=r"give price= \(in a profile teacher\.price: \{unlisted: \{input: "):
        Teacher("unlisted", endpoint=Endpoint(base_url="http://127.0.0.1:1"), ledger=teacher().ledger, budget=1)
    with pytest.raises(BudgetError, match=r"raise budget= .*in a profile teacher\.budget, teacher\.max_tokens"):
        teacher(price={"input": 1.0, "output": 10.0}, budget=1e-6).ask(["q"])


LOGIN = "<!DOCTYPE html>\n<html><head><title>Log in to continue</title></head>" + "<p>Welcome</p>" * 30


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (lambda: web.Response(text=LOGIN, content_type="text/html"), "no chat completion (status 200) from {url}: "),
        (lambda: failure(500, f"broken, not you, Bearer {KEY}"), "status 500 Internal Server Error from {url}: "),
        (lambda: None, "no connection to {url}: "),
    ],
)
def test_a_useless_answer_is_explained_with_what_came_back_and_no_key(server, teacher, monkeypatch, response, words):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.answer = lambda prompt, nth: response()
    asked = teacher(attempts=1)
    row = asked.ask(["q"]).iloc[0]
    said = explain_failure(asked.endpoint, row["outcome"], row["error"])
    assert said.startswith(words.format(url=server.url))
    assert "check that" in said
    assert "/v1)" in said
    assert KEY not in said
    assert len(said.splitlines()) == 1
    if "200" in words:
        assert "<!DOCTYPE html>" in said
        assert "Log in to continue" in said
        assert "Welcome</p><p>Welcome" not in said


def test_a_dead_server_stops_the_run_and_says_what_to_do(server, teacher, ledger):
    teacher().ask(["before"])
    dead = Endpoint(base_url="http://127.0.0.1:9/v1", name="test")  # nobody listens there
    words = r"to http://127\.0\.0\.1:9/v1 failed in a row, the last with .*Check that the server is up"
    with pytest.raises(TeacherError, match=words):
        teacher(endpoint=dead, in_flight=4).ask([f"p{i}" for i in range(100)])
    assert len(ledger.attempts()) <= 1 + 5 * 4 + 4
    assert teacher(endpoint=dead).ask(["before"])["cached"].all()


def test_a_failing_prompt_alone_does_not_stop_the_run(server, teacher):
    server.answer = lambda prompt, nth: failure(500) if prompt == "poison" else completion("ok")
    table = teacher(in_flight=1).ask(["a", "poison", "b"])
    assert table["outcome"].tolist() == ["ok", "http_500", "ok"]


@pytest.mark.parametrize(
    ("response", "remedy"),
    [
        (lambda: failure(404, "no such model"), "model name 'textbook-r1'"),
        (lambda: failure(402, "empty"), "top it up"),
        (lambda: failure(429, "insufficient_quota"), "used up"),
        (lambda: failure(429, "tomorrow", **{"Retry-After": "86400"}), "asks to wait 86400 s"),
    ],
)
def test_what_no_retry_can_heal_stops_at_once(server, teacher, response, remedy):
    server.answer = lambda prompt, nth: response()
    with pytest.raises(TeacherError, match=remedy):
        teacher(in_flight=2).ask([f"p{i}" for i in range(50)])
    assert len(server.requests) <= 4


def test_an_openai_client_carries_the_requests_on_request(server, teacher, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    server.answer = lambda prompt, nth: failure(500, f"key {KEY}?") if nth == 1 else completion("ok")
    client = openai.AsyncOpenAI(base_url=server.url, api_key=KEY)
    table = teacher(client=client, endpoint=None).ask(["a", "b"])
    assert table["outcome"].tolist() == ["ok", "ok"]
    assert table["attempts"].tolist() == [2, 2]  # the SDK's own retries are off
    assert server.requests[0][1]["Authorization"] == f"Bearer {KEY}"
    azure = openai.AsyncAzureOpenAI(
        azure_endpoint=server.url.removesuffix("/v1"), api_version="2024-10-21", api_key=KEY
    )
    assert teacher(client=azure, endpoint=None).ask(["a"])["outcome"].tolist() == ["ok"]
    assert server.requests[-1][1]["api-key"] == KEY


def test_wrong_use_is_explained(teacher):
    for wrong, message in (
        (lambda: teacher().ask("one string"), "pass a list"),
        (lambda: teacher().ask(["a"], ids=[1, 2]), "ids has 2"),
        (lambda: teacher().ask(["a"], samples=0), "samples is 0"),
        (lambda: teacher().ask([None]), "prompt 0 is None"),
        (lambda: teacher(in_flight=0), "in_flight is 0"),
        (lambda: teacher(extra={"n": 2}), "may not set 'n': samples= does"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
    assert teacher().ask([]).empty


def test_a_forked_child_gets_a_loop_of_its_own(server, teacher):
    teacher().ask(["a"])
    child = os.fork()
    if child == 0:
        from qatoolkit.teacher.event_loop import run as run_in_child

        os._exit(run_in_child(asyncio.sleep(0, 7)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
