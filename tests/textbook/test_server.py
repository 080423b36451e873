"""The offline teacher over real HTTP: what it answers, what it refuses, how it errs, and how it ends."""

import asyncio
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import openai
import pytest

from qatoolkit.teacher import prompts
from qatoolkit.teacher.client import Endpoint, Teacher, TeacherError
from qatoolkit.teacher.ledger import Ledger
from qatoolkit.textbook import exams, knowledge, server
from qatoolkit.textbook.server import Faults, Server, kept_teacher, local_teacher, parts
from qatoolkit.textbook.settings import TextbookSettings
from qatoolkit.textbook.tutor import MODELS, Tutor

SETTINGS = TextbookSettings(entities=3, entities_zh=2, relations=3)


@pytest.fixture(scope="module")
def books():
    return parts(SETTINGS)


@pytest.fixture(scope="module")
def tutor(books):
    return Tutor(knowledge.load(), books)


@pytest.fixture(scope="module")
def seeds(books):
    return exams.seed_questions(books["en"], "en", 5)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Base URL and log of a teacher without faults."""
    log = tmp_path_factory.mktemp("server") / "requests.jsonl"
    with local_teacher(SETTINGS, log=log) as url:
        yield url, log


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=served[0], api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def teacher(tmp_path):
    """Makes Teachers that share a ledger."""
    with Ledger(tmp_path / "ledger.sqlite") as ledger:

        def make(url, model="textbook", **options):
            return Teacher(model, endpoint=Endpoint(base_url=url), ledger=ledger, **options)

        yield make


def solve(seeds, n=None):
    return [
        prompts.messages("solve", "en", question=q, draw=i)
        for i in range(-(-(n or len(seeds)) // len(seeds)))
        for q in seeds["question"]
    ][:n]


def read_answer(content):
    return prompts.read_json(content)["answer"]


def gone(port):
    """Whether nothing listens any more, waiting up to five seconds."""
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return True
        time.sleep(0.05)
    return False


# --- answering -----------------------------------------------------------------------------------------


def test_the_models_are_listed(client):
    assert [model.id for model in client.models.list()] == list(MODELS)


def test_the_openai_client_gets_answer_reasoning_and_usage(client, seeds, tutor):
    question = seeds["question"].iloc[0]
    done = client.chat.completions.create(model="textbook", messages=prompts.messages("solve", "en", question=question))
    message = done.choices[0].message
    assert tutor.is_correct(question, json.loads(message.content)["answer"])
    assert message.reasoning_content
    assert done.choices[0].finish_reason == "stop"
    usage = done.usage
    assert usage.prompt_tokens > 0
    assert 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_our_own_client_gets_the_same(served, teacher, seeds, tutor):
    said = teacher(served[0]).ask(solve(seeds), parse=read_answer)
    assert (said["outcome"] == "ok").all()
    assert all(map(tutor.is_correct, seeds["question"], said["value"]))
    assert said["reasoning"].notna().all()
    assert (said["prompt_tokens"] > 0).all()
    assert (said["completion_tokens"] > said["reasoning_tokens"]).all()


def test_a_translation_asks_the_same_and_has_the_true_answer(seeds, tutor):
    for question in seeds["question"].iloc[::20]:
        other = tutor.translation(question)
        (one, language, _), (two, other_language, _) = map(tutor.reader.read, (question, other["question"]))
        assert one.key() == two.key()
        assert language != other_language
        assert tutor.is_correct(other["question"], other["answer"])
    assert tutor.translation("What is the weather like today?") is None


def test_the_same_request_gets_the_same_answer(client, seeds):
    messages = prompts.messages("solve", "en", question=seeds["question"].iloc[3])
    said = [
        client.chat.completions.create(model="textbook-err30", messages=messages).choices[0].message.content
        for _ in range(3)
    ]
    assert len(set(said)) == 1


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_task_is_answered_in_its_language(served, teacher, books, language):
    seeds = exams.seed_questions(books[language], language, 3).to_dict("records")
    seed, other = ({k: s[k] for k in ("question", "answer")} for s in (seeds[0], seeds[1]))
    tasks = {
        "annotate": seed,
        "knowledge_points": seed,
        "solve": {"question": seed["question"], "draw": 0},
        "refine": seed,
        "multi_grade": {"seed": seed, "wanted": [{"grade": "high", "difficulty": "H2"}], "round": 0},
        "high_difficulty": {"seed": seed, "difficulty": "H4", "count": 2, "round": 0},
        "link": {"seeds": [seed, other], "path": ["a", "b"], "count": 2, "difficulty": "H3", "round": 0},
    }
    assert set(tasks) == set(prompts.VERSIONS)
    said = teacher(served[0]).ask(
        [prompts.messages(task, language, **payload) for task, payload in tasks.items()],
        parse=prompts.read_json,
        ids=list(tasks),
    )
    assert (said["outcome"] == "ok").all(), said[["id", "error"]]
    chinese = [bool(re.search(r"[\u4e00-\u9fff]", said.loc[i, "content"])) for i in range(1, len(said))]
    assert any(chinese) == (language == "zh")


# --- refusing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "What is the capital of France?"}],
        prompts.messages("solve", "en", question="What is the airspeed of an unladen swallow?"),
        [{"role": "system", "content": "Task: sing, version 1"}, {"role": "user", "content": "{}"}],
    ],
    ids=["no task", "outside the textbook", "unknown task"],
)
def test_what_it_does_not_know_it_refuses_and_names_the_remedy(client, served, teacher, messages):
    said = client.chat.completions.create(model="textbook", messages=messages).choices[0].message.content
    assert said.startswith("REFUSED")
    assert "OPENAI_BASE_URL" in said
    row = teacher(served[0]).ask([messages]).iloc[0]
    assert row["outcome"] == "refusal"
    assert "OPENAI_BASE_URL" in row["error"]


def test_an_unknown_model_is_404_and_the_message_lists_the_models(client, served, teacher, seeds):
    with pytest.raises(openai.NotFoundError, match="textbook-err15"):
        client.chat.completions.create(model="gpt-4", messages=solve(seeds, 1)[0])
    with pytest.raises(TeacherError, match="gpt-4"):
        teacher(served[0], "gpt-4").ask(solve(seeds, 1))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b'{"model": "textbook"}',
        b'{"model": "textbook", "messages": 5}',
        b'{"model": "textbook", "messages": [{"role": "user"}]}',
        b'{"model": "textbook", "messages": [], "stream": true}',
    ],
)
def test_a_malformed_request_is_400(served, body):
    request = urllib.request.Request(
        f"{served[0]}/chat/completions", data=body, headers={"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 400
    assert json.loads(caught.value.read())["error"]["message"]


@pytest.mark.parametrize("payload", ["{", "{}", '{"question": 5}', '{"question": null}', "no object at all"])
def test_a_task_with_the_wrong_input_is_400(client, payload):
    messages = [prompts.messages("solve", "en")[0], {"role": "user", "content": payload}]
    with pytest.raises(openai.BadRequestError, match="input is not as its prompt says"):
        client.chat.completions.create(model="textbook", messages=messages)


# --- erring --------------------------------------------------------------------------------------------


def test_textbook_err15_errs_near_15_percent(served, teacher, seeds, tutor):
    messages = solve(seeds, 900)
    said = teacher(served[0], "textbook-err15").ask(messages, parse=read_answer)
    asked = [json.loads(m[1]["content"])["question"] for m in messages]
    wrong = [not tutor.is_correct(q, a) for q, a in zip(asked, said["value"], strict=True)]
    assert 0.11 < sum(wrong) / len(wrong) < 0.19  # more than three standard errors either side


def test_faults_are_read_from_text_and_wrong_ones_named():
    assert Faults.parse("rate_limit=0.05,latency=0.2") == Faults(rate_limit=0.05, latency=0.2)
    assert Faults.parse("") == Faults()
    with pytest.raises(ValueError, match="unknown fault 'earthquake'"):
        Faults.parse("earthquake=1")
    with pytest.raises(ValueError, match=r"rate_limit is 1\.5"):
        Faults.parse("rate_limit=1.5")
    with pytest.raises(ValueError, match="latency is 'fast'"):
        Faults.parse("latency=fast")


@pytest.mark.parametrize("burst", [0, 0.5, float("nan")])
def test_a_burst_of_429s_has_one_request_or_more(burst):
    with pytest.raises(ValueError, match="burst 1 or more"):
        Faults(rate_limit=0.1, burst=burst)


def test_failures_carry_their_status_429_its_retry_after_and_the_server_ends_with_its_context(seeds):
    seen = {}
    with (
        local_teacher(SETTINGS, faults="rate_limit=0.5,server_error=0.5") as url,
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
    ):
        for messages in solve(seeds, 20):
            with pytest.raises(openai.APIStatusError) as caught:
                client.chat.completions.create(model="textbook", messages=messages)
            seen[caught.value.status_code] = caught.value.response.headers.get("retry-after")
    assert seen == {429: "1", 500: None}
    assert gone(int(re.search(r":(\d+)/", url)[1]))


def test_429s_come_in_bursts_at_the_share_asked_for():
    async def statuses(n):
        server = Server(Tutor(knowledge.load(), parts(SETTINGS)), Faults(rate_limit=0.2, burst=10))
        bodies = ({"model": "textbook", "messages": [{"role": "user", "content": str(i)}]} for i in range(n))
        return [(await server.answer(body))[0] for body in bodies]

    codes = asyncio.run(statuses(4000))
    lengths = [len(list(run)) for status, run in itertools.groupby(codes) if status == 429]
    assert min(lengths[:-1]) >= 10
    assert 0.12 < codes.count(429) / len(codes) < 0.28


def test_our_client_survives_all_faults_at_once_and_the_log_holds_one_line_an_answer(tmp_path, teacher, seeds, tutor):
    log = tmp_path / "requests.jsonl"
    faults = "rate_limit=0.02,server_error=0.1,empty=0.1,truncated=0.1,bad_json=0.1"
    with local_teacher(SETTINGS, faults=faults, log=log) as url:
        asker = teacher(url, backoff=0.01, attempts=8, in_flight=16)
        messages = solve(seeds, 120)
        said = asker.ask(messages, parse=read_answer)
        again = asker.ask(messages, parse=read_answer)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    fates = {line["fate"] for line in lines}
    assert {"answered", "empty", "truncated", "bad_json"} == fates
    ok = said["outcome"] == "ok"
    assert ok.mean() > 0.7  # a tenth is cut off for good, and a second fault in a row may stand: then the row says so
    asked = [json.loads(m[1]["content"])["question"] for m in messages]
    assert all(tutor.is_correct(q, a) for q, a, fine in zip(asked, said["value"], ok, strict=True) if fine)
    assert set(said.loc[~ok, "outcome"]) <= {"empty", "length", "unparsed"}
    attempts = asker.ledger.attempts()
    assert len(lines) == (attempts["status"] == 200).sum() < len(attempts)  # 429 and 500 are no answers
    assert again["attempts"].sum() == 0
    assert again["value"].tolist() == said["value"].tolist()


def test_the_log_holds_one_line_per_answered_request(served, client, seeds):
    log = served[1]
    before = len(log.read_text().splitlines())
    for messages in solve(seeds, 5):
        client.chat.completions.create(model="textbook", messages=messages, temperature=0.123)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=solve(seeds, 1)[0])
    lines = [json.loads(line) for line in log.read_text().splitlines()[before:]]
    assert len(lines) == 5
    assert len({line["request"] for line in lines}) == 5
    assert {line["fate"] for line in lines} == {"answered"}


# --- ending --------------------------------------------------------------------------------------------


def test_the_server_ends_when_its_parent_is_killed():
    program = (
        "import time\n"
        "from qatoolkit.textbook.settings import TextbookSettings\n"
        "from qatoolkit.textbook.server import local_teacher\n"
        "with local_teacher(TextbookSettings(entities=2, entities_zh=1, relations=2)) as url:\n"
        "    print(url, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        port = int(re.search(r":(\d+)/", parent.stdout.readline())[1])
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        os.kill(parent.pid, signal.SIGKILL)
        assert gone(port)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def test_a_kept_teacher_answers_the_next_who_asks_for_the_same_and_ends_once_nobody_does(tmp_path, monkeypatch):
    def ask(settings=SETTINGS, log=tmp_path / "log.jsonl"):
        with kept_teacher(settings, log=log) as url:
            port = int(re.search(r":(\d+)/", url)[1])
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return port

    first = ask()
    assert ask() == first
    with kept_teacher(SETTINGS, log=tmp_path / "log.jsonl") as url:
        other = ask(log=tmp_path / "other.jsonl")  # while the first is in use
        assert gone(other)
        assert f":{first}/" in url
    second = ask(log=tmp_path / "other.jsonl")
    assert gone(first)
    server._KEPT.process.kill()
    server._KEPT.process.wait()
    third = ask(log=tmp_path / "other.jsonl")
    assert gone(second)
    (tmp_path / "other.jsonl").unlink()
    monkeypatch.setattr(server, "IDLE", 0.2)
    fourth = ask(log=tmp_path / "other.jsonl")
    assert gone(third)
    assert gone(fourth)
    assert (tmp_path / "other.jsonl").exists()


def test_an_interrupt_of_whoever_started_it_leaves_it_running():
    program = (
        "import os, signal\n"
        "from qatoolkit.textbook.settings import TextbookSettings\n"
        "from qatoolkit.textbook.server import local_teacher\n"
        "signal.signal(signal.SIGINT, lambda *_: print('interrupted', flush=True))\n"
        "with local_teacher(TextbookSettings(entities=2, entities_zh=1, relations=2)) as url:\n"
        "    print(url, flush=True)\n"
        "    os.read(0, 1)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
    )
    try:
        port = int(re.search(r":(\d+)/", parent.stdout.readline())[1])
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal and Jupyter do
        assert parent.stdout.readline() == "interrupted\n"
        time.sleep(0.5)
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    finally:
        parent.stdin.close()
        parent.wait(timeout=10)
        parent.stdout.close()
    assert gone(port)


def test_a_server_that_cannot_start_says_how_to_find_out(tmp_path):
    with (
        pytest.raises(RuntimeError, match="did not start"),
        local_teacher(SETTINGS, log=tmp_path / "no" / "such" / "folder.jsonl"),
    ):
        pass
