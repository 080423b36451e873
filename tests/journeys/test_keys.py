"""The key is sent to the server and shows nowhere else, whatever fails and whatever the server repeats of it."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import traceback
from urllib.parse import quote

import openai
import pytest
from aiohttp import web
from conftest import ROOT

from qatoolkit.core.qa_table import qa_table
from qatoolkit.synthesis.annotate import annotate
from qatoolkit.teacher.batch_client import BatchTeacher
from qatoolkit.teacher.client import Endpoint, Teacher, TeacherError
from qatoolkit.teacher.ledger import Ledger

KEYS = ["sk-Recognisable-4711-abcdef", "sk/Recognisable+4711=abcdef"]
QUESTIONS = qa_table(
    {"question": f"What is {i} + {i}?", "answer": str(2 * i), "language": "en", "source": "test"} for i in range(4)
)


def traces(key: str) -> list[str]:
    """What must not be found: the key in any spelling that JSON or a URL gives it, and the part no spelling changes."""
    dotnet = key.replace("+", "\\u002B").replace("/", "\\/")
    return [key, json.dumps(key)[1:-1], key.replace("/", "\\/"), dotnet, quote(key, safe=""), "Recognisable"]


class Door:
    """A server that sees the Authorization header and answers with what `answer(method, path, sent)` makes of it."""

    def __init__(self):
        self.answer, self.sent = None, []
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
        await request.read()
        sent = request.headers.get("Authorization", "")
        self.sent.append(sent)
        response = self.answer(request.method, request.path, sent)
        if response is None:
            request.transport.close()
            return web.Response()
        return response

    def close(self):
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)


@pytest.fixture
def door():
    door = Door()
    yield door
    door.close()


@pytest.fixture(params=KEYS, ids=["plain", "punctuation"])
def key(request, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", request.param)
    return request.param


@pytest.fixture
def ledger(tmp_path):
    """Open while files are read, so that its write-ahead log is among them."""
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


@pytest.fixture
def nowhere(key, tmp_path, capfd, caplog):
    """A check that no trace of the key is in any file under `tmp_path`, in stdout, stderr or a log, or in what it is given."""
    caplog.set_level(logging.DEBUG)

    def check(*texts):
        captured = capfd.readouterr()
        said = "\n".join([captured.out, captured.err, caplog.text, *map(str, texts)])
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert "ledger.sqlite-wal" in {path.name for path in files}
        for trace in traces(key):
            assert trace not in said
            assert [path.name for path in files if trace.encode() in path.read_bytes()] == []

    return check


def failing(call) -> str:
    """The text of what a call raises, every frame with its locals and every cause; called where no frame holds the key."""
    try:
        call()
    except BaseException as error:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        return "\n".join([*shown.format(), traceback.format_exc(), repr(error), str(error.args)])
    raise AssertionError("nothing was raised")


def asking(ledger, url, *, client=None, kind=Teacher, parse=None, n=3):
    """A call that asks `n` prompts of a fresh teacher, and what it shows of itself and returns."""
    shown = []

    def call():
        endpoint = None if client else Endpoint(base_url=url)
        options = {"client": client} if client else {"endpoint": endpoint}
        batch = {"log": shown.append} if kind is BatchTeacher else {}
        teacher = kind(
            "textbook", ledger=ledger, attempts=2, backoff=0.01, in_flight=2, max_tokens=20, **options, **batch
        )
        shown.extend([repr(teacher), repr(teacher.endpoint), repr(teacher.ledger), repr(vars(teacher))])
        table = teacher.ask([f"p{i}" for i in range(n)], parse=parse)
        shown.append(table.to_json() + repr(table.to_dict("records")))
        ledger.path.with_name("table.csv").write_text(table.to_csv(), encoding="utf-8")

    return call, shown


def completion(text, **message):
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": text, **message}}
    return {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 3}}


def echo(status, text=None, **headers):
    """An answer that repeats the header in an error message, as JSON unless `text` says how."""

    def answer(method, path, sent):
        if text is None:
            return web.json_response({"error": {"message": f"bad header {sent!r}"}}, status=status, headers=headers)
        return web.Response(status=status, text=text(sent), content_type="text/plain", headers=headers)

    return answer


def dotnet(sent):
    """As a server writes it that escapes more than JSON asks for."""
    return '{"error": {"message": "bad key %s"}}' % sent.replace("+", "\\u002B").replace("/", "\\/")  # noqa: UP031


REFUSALS = {
    "401 as JSON": echo(401),
    "401 as text": echo(401, lambda sent: f"Unauthorized: {sent}"),
    "401 with other escapes": echo(401, dotnet),
    "401 with a URL": echo(401, lambda sent: "see https://help/?key=" + quote(sent.removeprefix("Bearer "), safe="")),
    "401 at length": echo(401, lambda sent: "x" * 290 + sent),
    "402": echo(402),
    "404": echo(404),
    "quota": echo(429, lambda sent: f"insufficient_quota for {sent}"),
}
FAILURES = {
    "400": echo(400),
    "500": echo(500, lambda sent: f"crashed on {sent}"),
    "redirect": lambda method, path, sent: web.Response(
        status=302, text=sent, headers={"Location": f"http://127.0.0.1:9/?key={quote(sent)}"}
    ),
    "no completion": echo(200, lambda sent: json.dumps({"headers": {"Authorization": sent}})),
    "no JSON": echo(200, lambda sent: f"<html>{sent}"),
    "no answer": lambda method, path, sent: None,
}
ANSWERS = {
    "content": lambda sent: completion(f"You sent {sent}."),
    "reasoning": lambda sent: completion("yes", reasoning_content=f"The header is {sent}."),
    "refusal": lambda sent: completion("", refusal=f"not for {sent}"),
    "elsewhere": lambda sent: completion("yes") | {"debug": {"request_headers": [sent]}},
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refused_key_is_in_no_file_message_or_traceback(door, key, nowhere, ledger, case):
    door.answer = REFUSALS[case]
    call, shown = asking(ledger, door.url)
    told = failing(call)
    assert "TeacherError" in told
    assert set(door.sent) == {f"Bearer {key}"}
    nowhere(told, *shown)


@pytest.mark.parametrize("case", FAILURES)
def test_a_failed_request_is_a_row_without_the_key(door, key, nowhere, ledger, case):
    door.answer = FAILURES[case]
    call, shown = asking(ledger, door.url, n=1)
    call()
    assert set(door.sent) == {f"Bearer {key}"}
    assert '"ok"' not in shown[-1]
    nowhere(*shown)


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_that_repeats_the_key_is_kept_without_it(door, key, nowhere, ledger, case):
    door.answer = lambda method, path, sent: web.json_response(ANSWERS[case](sent))
    call, shown = asking(ledger, door.url)
    call()
    nowhere(*shown)
    assert ledger.path.with_name("table.csv").exists()


def test_a_bug_in_a_parser_shows_the_answer_without_the_key(door, key, nowhere, ledger):
    door.answer = lambda method, path, sent: web.json_response(completion(f"You sent {sent}."))

    def parse(content):
        raise RuntimeError(f"cannot parse {content}")

    call, shown = asking(ledger, door.url, parse=parse)
    told = failing(call)
    assert "cannot parse You sent Bearer [OPENAI_API_KEY]." in told
    nowhere(told, *shown)


def test_a_refused_connection_shows_no_key(key, nowhere, ledger):
    call, shown = asking(ledger, "http://127.0.0.1:9/v1", n=20)
    told = failing(call)
    assert "Check that the server is up" in told
    nowhere(told, *shown)


@pytest.mark.parametrize("case", [*REFUSALS, "400", "500", "no answer"])
def test_an_openai_client_shows_its_key_no_more_than_the_own_transport(door, key, nowhere, ledger, monkeypatch, case):
    monkeypatch.delenv("OPENAI_API_KEY")  # the client alone knows it
    door.answer = (REFUSALS | FAILURES)[case]
    client = openai.AsyncOpenAI(base_url=door.url, api_key=key)
    call, shown = asking(ledger, door.url, client=client, n=1)
    told = failing(call) if case in REFUSALS else call()
    assert f"Bearer {key}" in door.sent
    nowhere(told, *shown)


@pytest.mark.parametrize(
    "case", ["401 as JSON", "401 as text", "401 with other escapes", "404", "500", "no JSON", "no answer"]
)
def test_batches_show_no_key_either(door, key, nowhere, ledger, case, monkeypatch):
    monkeypatch.setattr("qatoolkit.teacher.batch_client.POLL", 0.01)
    door.answer = (REFUSALS | FAILURES)[case]
    call, shown = asking(ledger, door.url, kind=BatchTeacher)
    told = failing(call)
    assert "TeacherError" in told or "Refused" in told
    assert set(door.sent) == {f"Bearer {key}"}
    nowhere(told, *shown)


def test_a_stage_refuses_and_keeps_no_key(door, key, nowhere, ledger):
    """What `annotate` rejects carries the server's words; they go into tables that are published."""
    door.answer = echo(400)
    teacher = Teacher("textbook", endpoint=Endpoint(base_url=door.url), ledger=ledger, attempts=1)
    _, rejects = annotate(QUESTIONS, teacher)
    rejects.to_parquet(ledger.path.with_name("rejects.parquet"))
    assert set(rejects["reason"]) == {"http_400"}
    assert rejects["detail"].str.contains("[OPENAI_API_KEY]", regex=False).all()
    nowhere(rejects.to_csv())


@pytest.mark.parametrize("placeholder", ["x", "none", "EMPTY", "ollama", "placeholder"])
def test_a_placeholder_for_a_key_leaves_answers_as_they_are(door, ledger, monkeypatch, placeholder):
    monkeypatch.setenv("OPENAI_API_KEY", placeholder)
    answer = f"x: none of the EMPTY boxes; ollama, a placeholder for {placeholder}"
    door.answer = lambda method, path, sent: web.json_response(completion(answer))
    table = Teacher("textbook", endpoint=Endpoint(base_url=door.url), ledger=ledger).ask(["a"])
    assert table["content"].tolist() == [answer]


@pytest.mark.parametrize(
    "wrong", ["sk-Recognisable\nX-Injected: 1", "sk-Recognisable-\u201c4711", "sk-Recognisable\x7f"]
)
def test_an_impossible_key_is_named_by_its_variable_and_not_sent(door, nowhere, ledger, monkeypatch, wrong):
    monkeypatch.setenv("OPENAI_API_KEY", wrong)
    door.answer = echo(200)
    call, shown = asking(ledger, door.url)
    with pytest.raises(TeacherError, match="OPENAI_API_KEY has a line break"):
        call()
    assert door.sent == []
    nowhere(*shown)


@pytest.mark.timeout(300)
def test_the_command_line_leaves_no_key_in_notebooks_logs_or_the_ledger(door, tmp_path):
    """The notebook that annotates fails at an endpoint that repeats the header; its executed copy is kept for the user."""
    key = KEYS[0]
    door.answer = echo(401)
    environment = os.environ | {
        "QATOOLKIT_RESULTS": str(tmp_path / "results"),
        "OPENAI_BASE_URL": door.url,
        "OPENAI_API_KEY": key,
        "HF_HUB_OFFLINE": "1",
    }
    command = [
        sys.executable,
        "-m",
        "qatoolkit.run.cli",
        "run",
        "--profile",
        "smoke",
        "--only",
        "01_seeds",
        "--only",
        "02_annotate",
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=280)
    assert done.returncode == 1, done.stderr.decode()[-2000:]
    assert b"check the key in OPENAI_API_KEY" in done.stderr
    assert set(door.sent) == {f"Bearer {key}"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"01_seeds.ipynb", "02_annotate.failed.ipynb", "ledger.sqlite"} <= {path.name for path in files}
    found = [str(path) for path in files if any(trace.encode() in path.read_bytes() for trace in traces(key))]
    assert found == []
    assert not any(trace.encode() in done.stdout + done.stderr for trace in traces(key))
