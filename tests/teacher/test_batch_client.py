"""Batch mode over real HTTP: the same table for half the price, nothing sent or paid for twice, whatever ends when."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack

import aiohttp
import openai
import pytest
from aiohttp import web

from qatoolkit.run.profiles import load_profile
from qatoolkit.run.stages import teachers as stages
from qatoolkit.run.store import open_run
from qatoolkit.teacher import batch_client, prompts
from qatoolkit.teacher.batch_client import BatchTeacher
from qatoolkit.teacher.client import BudgetError, Endpoint, Teacher, TeacherError
from qatoolkit.teacher.ledger import Ledger
from qatoolkit.teacher.settings import Price
from qatoolkit.textbook import exams
from qatoolkit.textbook.server import local_teacher, parts
from qatoolkit.textbook.settings import TextbookSettings

KEY = "sk-very-secret-4711"
SETTINGS = TextbookSettings(entities=3, entities_zh=2, relations=3)
PRICE = Price(input=1.0, output=10.0)
SAME = ["id", "sample", "key", "outcome", "value", "content", "reasoning", "completion_tokens", "attempts"]


@pytest.fixture(scope="module")
def questions():
    seeds = exams.seed_questions(parts(SETTINGS)["en"], "en", 5)
    return [prompts.messages("solve", "en", question=question) for question in seeds["question"]]


def read_answer(content):
    return prompts.read_json(content)["answer"]


@pytest.fixture(scope="module")
def faultless(tmp_path_factory):
    log = tmp_path_factory.mktemp("server") / "requests.jsonl"
    with local_teacher(SETTINGS, log=log) as url:
        yield url, log


@pytest.fixture
def serve(faultless, tmp_path):
    """Gives an offline teacher: (base URL, a function that counts how often it answered each request since). The one without
    faults is shared; `fresh` starts another."""

    def counting(url, log):
        before = len(log.read_text().splitlines())
        return url, lambda: Counter(json.loads(x)["request"] for x in log.read_text().splitlines()[before:])

    with ExitStack() as running:

        def start(faults="", fresh=False):
            if not (faults or fresh):
                return counting(*faultless)
            log = tmp_path / f"server{time.monotonic_ns()}.jsonl"
            return counting(running.enter_context(local_teacher(SETTINGS, faults=faults, log=log)), log)

        yield start


class Proxy:
    """Stands before an offline teacher: `calls` holds what came by, `meddle(method, path, answer)` may replace an answer."""

    def __init__(self, target):
        self.target, self.calls, self.headers = target.removesuffix("/v1"), [], []
        self.meddle = lambda method, path, answer: answer
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        self.url = f"http://127.0.0.1:{port}/v1"

    async def _start(self):
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self._runner.addresses[0][1]

    async def _handle(self, request):
        self.calls.append(f"{request.method} {request.path}")
        self.headers.append(dict(request.headers))
        kind = {"Content-Type": request.headers.get("Content-Type", "")}
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method, self.target + request.path_qs, data=await request.read(), headers=kind
            ) as got,
        ):
            answer = got.status, await got.text()
        answer = self.meddle(request.method, request.path, answer)
        if answer is None:
            request.transport.close()
            return web.Response()
        return web.Response(status=answer[0], text=answer[1], content_type="application/json")

    def close(self):
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)


@pytest.fixture
def proxy():
    made = []

    def make(url):
        made.append(Proxy(url))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


@pytest.fixture
def teacher(ledger, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(batch_client, "POLL", 0.02)

    def make(url, kind=BatchTeacher, model="textbook-err15", **options):
        if kind is BatchTeacher:
            options = {"log": lambda text: None, **options}
        options = {"ledger": ledger, "backoff": 0.01, "max_tokens": 500, "price": PRICE, **options}
        return kind(model, endpoint=Endpoint(base_url=url, name="test"), **options)

    return make


def batches(proxy):
    return proxy.calls.count("POST /v1/batches")


# --- the same table ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("faults", "samples"), [("", 2), ("empty=0.1,truncated=0.1,bad_json=0.2,refusal=0.05", 1)])
def test_the_table_is_that_of_a_plain_teacher_for_half_the_price(
    serve, teacher, ledger, questions, tmp_path, faults, samples
):
    asked = {"parse": read_answer, "samples": samples, "ids": [f"q{i}" for i in range(len(questions))]}
    made = teacher(serve(faults)[0], run="r", stage="s").ask(questions, **asked)
    with Ledger(tmp_path / "other.sqlite") as other:
        plain = teacher(serve(faults)[0], Teacher, ledger=other).ask(questions, **asked)
    assert made[SAME].equals(plain[SAME])
    assert (plain["attempts"].max() > 1, "refusal" in set(plain["outcome"])) == (bool(faults),) * 2
    assert made["cost"].sum() == pytest.approx(plain["cost"].sum() / 2)
    assert made["cost"].sum() > 0
    spend = ledger.spend("r").loc[0]
    assert spend["cost"] == pytest.approx(made["cost"].sum())
    assert spend["attempts"] == made["attempts"].sum()
    assert len(ledger.get(made["key"])) == made["key"].nunique()


def test_a_second_call_sends_nothing(serve, proxy, teacher, questions):
    door = proxy(serve()[0])
    first = teacher(door.url).ask(questions[:20], parse=read_answer)
    before = len(door.calls)
    again = teacher(door.url).ask(questions[:20], parse=read_answer)
    assert len(door.calls) == before
    assert again["cached"].all()
    assert again["cost"].sum() == 0
    assert again["value"].tolist() == first["value"].tolist()
    assert teacher(door.url, Teacher).ask(questions[:20])["cached"].all()  # both kinds share the ledger


def test_equal_requests_leave_once_and_an_unknown_price_stays_unknown(serve, teacher, ledger, questions):
    url, answered = serve()
    table = teacher(url, price=None, model="textbook").ask([questions[0]] * 3 + [questions[1]])
    assert table["attempts"].tolist() == [1, 0, 0, 1]
    assert sorted(answered().values()) == [1, 1]
    unpriced = teacher(url)
    unpriced.price = None
    assert unpriced.ask([questions[2]])["cost"].isna().all()
    assert ledger.attempts()["cost"].isna().sum() == 1


def test_corrections_and_retakes_leave_together_in_a_later_batch(serve, proxy, teacher, questions):
    door = proxy(serve("bad_json=0.3,empty=0.2")[0])
    table = teacher(door.url).ask(questions[:40], parse=read_answer)
    assert table["attempts"].max() > 1
    assert 2 <= batches(door) <= 4


def test_requests_are_split_at_the_limits_of_a_file(serve, proxy, teacher, questions, monkeypatch):
    door = proxy(serve()[0])
    monkeypatch.setattr(batch_client, "FILE_LIMITS", (7, 10**6))
    assert teacher(door.url).ask(questions[:20])["outcome"].eq("ok").all()
    assert batches(door) == door.calls.count("POST /v1/files") == 3
    monkeypatch.setattr(batch_client, "FILE_LIMITS", (1000, 5_000))
    assert teacher(door.url).ask(questions[20:40])["outcome"].eq("ok").all()
    assert batches(door) >= 6


# --- lines and batches that fail ----------------------------------------------------------------------


def test_lines_that_fail_are_tried_again_in_another_batch_and_counted(serve, proxy, teacher, ledger, questions):
    door = proxy(serve("server_error=0.2,rate_limit=0.1,timeout=0.1")[0])
    table = teacher(door.url).ask(questions[:50])
    assert table["outcome"].eq("ok").all()
    outcomes = ledger.attempts()["outcome"].value_counts()
    assert set(outcomes.index) == {"ok", "http_500", "http_429", "timeout"}
    assert table["attempts"].sum() == outcomes.sum() == len(ledger.attempts()) > 50
    assert batches(door) == table["attempts"].max()


def test_what_stays_broken_becomes_a_typed_outcome(serve, teacher, questions):
    url, _ = serve("server_error=1")
    table = teacher(url, attempts=2).ask(questions[:3])
    assert table["outcome"].tolist() == ["http_500"] * 3
    assert table["attempts"].tolist() == [2] * 3
    assert table["error"].tolist() == ["500: internal error"] * 3
    wrong = [prompts.messages("solve", "en")[0], {"role": "user", "content": "{"}]
    assert teacher(serve()[0]).ask([wrong]).loc[0, ["outcome", "attempts"]].tolist() == ["http_400", 1]


def test_an_expired_batch_gives_what_it_has_and_the_rest_is_submitted_once_more(
    serve, proxy, teacher, ledger, questions
):
    door = proxy(serve("expired=0.4")[0])
    table = teacher(door.url).ask(questions[:50])
    outcomes = table["outcome"].value_counts()
    assert batches(door) == 2
    assert outcomes["ok"] > 30
    assert outcomes["batch_expired"] > 0
    assert table.loc[table["outcome"] != "ok", "attempts"].eq(2).all()
    assert table["error"].dropna().str.contains("time was over").all()
    assert (ledger.attempts()["outcome"] == "ok").sum() == outcomes["ok"]


def test_a_cancelled_batch_gives_what_it_has_and_the_rest_is_submitted_once_more(serve, teacher, questions):
    url, answered = serve("latency=0.02")
    client = openai.OpenAI(base_url=url, api_key="none")

    def cancel_first(said):
        if "submitted" in said and not cancelled:
            cancelled.append(said)
            time.sleep(0.15)
            client.batches.cancel(said.split()[1].rstrip(":"))

    cancelled = []
    table = teacher(url, log=cancel_first).ask(questions[:40])
    assert cancelled
    assert table["outcome"].eq("ok").all()
    assert set(table["attempts"]) == {1, 2}
    assert set(answered().values()) == {1}


def test_a_batch_that_is_not_accepted_says_why_and_is_not_waited_for_again(serve, proxy, teacher, questions):
    door = proxy(serve()[0])
    bad = json.dumps({"id": "x", "status": "failed", "errors": {"data": [{"message": "too many tokens"}]}})
    door.meddle = lambda method, path, answer: (200, bad) if "batches/" in path else answer
    with pytest.raises(TeacherError, match=r"did not accept batch .*too many tokens"):
        teacher(door.url).ask(questions[:2])
    door.meddle = lambda method, path, answer: (400, bad) if path.endswith("batches") else answer
    with pytest.raises(TeacherError, match="POST /batches at test gave 400"):
        teacher(door.url).ask(questions[:2])
    door.meddle = lambda method, path, answer: answer
    assert teacher(door.url).ask(questions[:2])["outcome"].eq("ok").all()


def test_an_unknown_model_is_named(serve, teacher, questions):
    with pytest.raises(TeacherError, match="check base_url and the model name 'gpt-4'"):
        teacher(serve()[0], model="gpt-4").ask(questions[:2])


def test_a_server_without_batches_is_told_apart(serve, proxy, teacher, questions):
    door = proxy(serve()[0])
    door.meddle = lambda method, path, answer: (404, "404: Not Found")
    with pytest.raises(TeacherError, match=r"POST /files at test gave 404: .*no Batch API; use Teacher"):
        teacher(door.url).ask(questions[:2])
    assert door.calls == ["POST /v1/files"]


# --- outages and kills ---------------------------------------------------------------------------------


def test_calls_that_fail_in_passing_are_repeated(serve, proxy, teacher, questions):
    url, answered = serve()
    door, seen = proxy(url), Counter()

    def meddle(method, path, answer):
        seen[method, path] += 1
        return answer if seen[method, path] > 2 else None if seen[method, path] == 1 else (503, "down")

    door.meddle = meddle
    assert teacher(door.url).ask(questions[:5])["outcome"].eq("ok").all()
    assert set(answered().values()) == {1}


def test_a_batch_whose_creation_got_no_answer_is_found_and_not_created_again(serve, proxy, teacher, questions):
    url, answered = serve()
    door = proxy(url)
    door.meddle = lambda method, path, answer: None if (method, path[-8:]) == ("POST", "/batches") else answer
    assert teacher(door.url).ask(questions[:5])["outcome"].eq("ok").all()
    assert batches(door) == 1
    assert set(answered().values()) == {1}


def test_a_client_that_died_before_it_knew_of_its_batch_finds_it(serve, proxy, teacher, ledger, questions):
    url, answered = serve()
    door = proxy(url)
    door.meddle = lambda method, path, answer: (503, "down") if path.endswith("/batches") else answer
    with pytest.raises(TeacherError, match=r"GET /batches.*submitted requests are picked up"):
        teacher(door.url, attempts=2).ask(questions[:5])
    assert ledger.read("SELECT count(*), count(batch) FROM batches") == [(5, 0)]
    door.meddle = lambda method, path, answer: answer
    table = teacher(door.url).ask(questions[:5])
    assert table["outcome"].eq("ok").all()
    assert batches(door) == 1
    assert set(answered().values()) == {1}
    assert ledger.read("SELECT count(*) FROM batches") == [(0,)]


CLIENT = """
import json, sys
from qatoolkit.teacher import batch_client
from qatoolkit.teacher.ledger import Ledger
from qatoolkit.teacher.settings import Price
from qatoolkit.teacher.client import Endpoint

url, path, questions = sys.argv[1:]
batch_client.POLL, batch_client.FILE_LIMITS = 0.05, (15, 10**6)
with Ledger(path) as ledger:
    teacher = batch_client.BatchTeacher(
        "textbook-err15", endpoint=Endpoint(base_url=url, name="test"), ledger=ledger, price=Price(input=1.0, output=10.0),
        max_tokens=500, run="r", stage="s", log=lambda said: print(said, flush=True)
    )
    print(len(teacher.ask(json.loads(questions))))
"""


@pytest.mark.parametrize("when", ["requests submitted", ": in_progress", ": completed"])
def test_a_killed_client_resumes_its_batches_and_nothing_is_answered_twice(serve, teacher, ledger, questions, when):
    url, answered = serve("latency=0.03")
    command = [sys.executable, "-c", CLIENT, url, str(ledger.path), json.dumps(questions[:30])]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for said in client.stdout:
        if when in said:
            break
    client.send_signal(signal.SIGKILL)
    assert client.wait() == -signal.SIGKILL
    client.stdout.close()
    ((outstanding,),) = ledger.read("SELECT count(*) FROM batches")
    assert outstanding > 0 or when == ": completed"
    told = []
    table = teacher(url, run="r", stage="s", log=told.append).ask(questions[:30])
    assert table["outcome"].eq("ok").all()
    assert len(answered()) == 30
    assert set(answered().values()) == {1}
    assert any("picked up" in said for said in told) == bool(outstanding)
    spend = ledger.spend("r").loc[0]
    assert spend["attempts"] == 30
    assert ledger.read("SELECT count(*) FROM batches") == [(0,)]


def test_what_others_asked_in_a_resumed_batch_is_kept_too(serve, proxy, teacher, ledger, questions):
    url, _ = serve()
    door = proxy(url)
    door.meddle = lambda method, path, answer: (503, "") if "/batches/" in path else answer
    with pytest.raises(TeacherError, match="picked up"):
        teacher(door.url, attempts=2).ask(questions[:10])
    door.meddle = lambda method, path, answer: answer
    assert teacher(door.url).ask(questions[:1] + questions[10:11])["outcome"].eq("ok").all()
    assert teacher(door.url).ask(questions[:10])["cached"].all()
    assert batches(door) == 2
    assert len(ledger.attempts()) == 11


def test_a_batch_the_server_does_not_know_is_submitted_again_where_that_is_free_or_allowed(
    serve, proxy, teacher, ledger, questions, monkeypatch
):
    door = proxy(serve()[0])
    door.meddle = lambda method, path, answer: (503, "") if "/batches/" in path else answer
    for _ in range(2):
        with pytest.raises(TeacherError, match="picked up"):
            teacher(door.url, attempts=2).ask(questions[:3])
    fresh = serve(fresh=True)[0]  # knows nothing of it
    monkeypatch.setattr(Endpoint, "is_local", property(lambda self: False))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(TeacherError, match=r"teacher\.forget\('batch_\w+'\)"):
        teacher(fresh).ask(questions[:3])
    monkeypatch.undo()
    monkeypatch.setattr(batch_client, "POLL", 0.02)
    (batch,) = ledger.read("SELECT DISTINCT batch FROM batches")[0]
    table = teacher(fresh).ask(questions[:2])  # a local server that was restarted
    assert table.loc[:, ["outcome", "attempts"]].to_numpy().tolist() == [["ok", 2]] * 2
    teacher(fresh).forget(batch)
    assert teacher(fresh).ask(questions[2:3])["attempts"].tolist() == [1]


def test_two_that_submit_the_same_at_once_submit_it_once(serve, teacher, ledger, questions):
    url, answered = serve()
    tables = []
    with Ledger(ledger.path) as other:
        askers = [teacher(url), teacher(url, ledger=other)]
        threads = [
            threading.Thread(target=lambda asker=asker: tables.append(asker.ask(questions[:12]))) for asker in askers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert [table["outcome"].eq("ok").all() for table in tables] == [True, True]
    assert max(answered().values()) == 1
    assert ledger.read("SELECT count(*) FROM leases") == [(0,)]


# --- money and secrets ---------------------------------------------------------------------------------


def test_nothing_is_submitted_that_could_exceed_the_budget(serve, proxy, teacher, ledger, questions):
    door = proxy(serve()[0])
    settings = {"run": "r", "stage": "s", "max_tokens": 100}
    most = sum(teacher(door.url, **settings)._most({"messages": q, "max_tokens": 100}) for q in questions[:9])
    with pytest.raises(BudgetError, match="next 9 requests"):
        teacher(door.url, budget=0.99 * most, **settings).ask(questions[:9])
    assert door.calls == []
    assert teacher(door.url, budget=1.01 * most, **settings).ask(questions[:9])["outcome"].eq("ok").all()
    spent = ledger.spend("r")["cost"].sum()
    assert 0 < spent < most
    with pytest.raises(BudgetError, match=rf"has spent \${spent:.4f}"):
        teacher(door.url, budget=spent, **settings).ask(questions[9:10])


def test_a_budget_counts_what_is_still_outstanding(serve, proxy, teacher, questions):
    door = proxy(serve()[0])
    door.meddle = lambda method, path, answer: (503, "") if "/batches/" in path else answer
    settings = {"run": "r", "stage": "s", "max_tokens": 100, "attempts": 2}
    with pytest.raises(TeacherError, match="picked up"):
        teacher(door.url, **settings).ask(questions[:5])
    with pytest.raises(BudgetError, match=r"requests in flight may cost \$0\.00[1-9]"):
        teacher(door.url, budget=0.008, **settings).ask(questions[5:15])


def test_the_key_appears_nowhere_but_in_the_request(
    serve, proxy, teacher, ledger, questions, monkeypatch, traceback_of
):
    door, told = proxy(serve()[0]), []
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def leak(method, path, answer):
        return (answer[0], answer[1].replace("Recall", KEY)) if path.endswith("/content") else answer

    door.meddle = leak
    table = teacher(door.url, log=told.append).ask(questions[:3])
    assert table["reasoning"].str.contains(r"\[OPENAI_API_KEY\]").all()
    door.meddle = lambda method, path, answer: (401, json.dumps({"error": {"message": f"bad key {KEY}"}}))
    with pytest.raises(TeacherError, match="check the key in OPENAI_API_KEY") as caught:
        teacher(door.url, log=told.append).ask(questions[3:5])
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in door.headers)
    assert KEY not in "".join([traceback_of(caught), table.to_csv(), *told])
    files = list(ledger.path.parent.glob("ledger.sqlite*"))
    assert files
    assert all(KEY.encode() not in file.read_bytes() for file in files)


# --- the rest ------------------------------------------------------------------------------------------


def test_a_ledger_that_was_used_without_batches_takes_batches(serve, teacher, tmp_path, questions):
    with Ledger(tmp_path / "old.sqlite") as old:
        teacher(serve()[0], Teacher, ledger=old).ask(questions[:2])
    with Ledger(tmp_path / "old.sqlite") as old:
        assert teacher(serve()[0], ledger=old).ask(questions[:3])["cached"].tolist() == [True, True, False]


def test_a_profile_switches_every_stage_to_batches(tmp_path, monkeypatch, questions):
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path))
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert not load_profile("smoke").teacher.batch
    with stages.teachers(open_run("r", profile="smoke", **{"teacher.batch": True}), "annotate") as teacher:
        table = teacher.annotator.ask(questions[:3])
        spend = teacher.annotator.ledger.spend("r")
    assert table["outcome"].eq("ok").all()
    assert spend["stage"].tolist() == ["annotate"]


def test_wrong_use_is_explained(teacher):
    with pytest.raises(ValueError, match="takes no client"):
        teacher("http://127.0.0.1:9/v1", client=object())
    assert teacher("http://127.0.0.1:9/v1").ask([]).empty


def test_the_server_speaks_as_the_openai_client_expects(serve, questions, tmp_path):
    url, answered = serve("server_error=0.3")
    lines = [
        {"custom_id": f"q{i}", "method": "POST", "url": "/v1/chat/completions"}
        | {"body": {"model": "textbook", "messages": question}}
        for i, question in enumerate(questions[:20])
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        file = client.files.create(file=path.open("rb"), purpose="batch")
        assert (file.purpose, file.bytes, file.filename) == ("batch", path.stat().st_size, "in.jsonl")
        assert client.files.retrieve(file.id) == file
        assert client.files.content(file.id).content == path.read_bytes()
        made = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {"a": "b"}}
        batch = client.batches.create(input_file_id=file.id, **made)
        assert batch.status in ("validating", "in_progress")
        while batch.status != "completed":
            time.sleep(0.02)
            batch = client.batches.retrieve(batch.id)
        assert batch.request_counts.total == 20
        assert batch.metadata == {"a": "b"}
        assert [found.id for found in client.batches.list()] == [batch.id]
        output = [json.loads(line) for line in client.files.content(batch.output_file_id).iter_lines()]
        errors = [json.loads(line) for line in client.files.content(batch.error_file_id).iter_lines()]
        assert {line["custom_id"] for line in output + errors} == {line["custom_id"] for line in lines}
        assert (len(output), len(errors)) == (batch.request_counts.completed, batch.request_counts.failed)
        assert all(line["response"]["body"]["choices"] and line["error"] is None for line in output)
        assert {line["response"]["status_code"] for line in errors} == {500}
        assert len(answered()) == len(output)
        with pytest.raises(openai.ConflictError, match="is completed"):
            client.batches.cancel(batch.id)
        with pytest.raises(openai.BadRequestError, match="no file"):
            client.batches.create(input_file_id="file-0", **made)
        for content, told in ((b"{}", "custom_id"), (b"", "empty"), (path.read_bytes() * 2, "two lines")):
            file = client.files.create(file=("x.jsonl", content), purpose="batch")
            batch = client.batches.create(input_file_id=file.id, **made)
            time.sleep(0.1)
            batch = client.batches.retrieve(batch.id)
            assert batch.status == "failed"
            assert told in batch.errors.data[0].message
