"""Whatever stops a teacher, what was in flight is in the ledger; and several processes on one ledger are as careful as one."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest
from aiohttp import web
from teacher_server import USAGE, Server, completion, failure

from qatoolkit.teacher.client import Endpoint, Teacher, TeacherError
from qatoolkit.teacher.ledger import Ledger, LedgerError
from qatoolkit.teacher.settings import Price

PRICE = Price(input=1.0, output=10.0)
COST = PRICE.cost(USAGE["prompt_tokens"], USAGE["completion_tokens"])
CLIENT = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background of a shell ignores it
from qatoolkit.teacher.client import BudgetError, Endpoint, Teacher
from qatoolkit.teacher.ledger import Ledger
from qatoolkit.teacher.settings import Price
url, path, first, last, options = sys.argv[1:]
options = {"in_flight": 16, "max_tokens": 100, "backoff": 0.01} | json.loads(options)
with Ledger(path) as ledger:
    teacher = Teacher("m", endpoint=Endpoint(base_url=url, name="test"), ledger=ledger, run="r", stage="s",
                      price=Price(input=1.0, output=10.0), **options)
    try:
        table = teacher.ask([f"p{i}" for i in range(int(first), int(last))])
        print(json.dumps(table["outcome"].value_counts().to_dict()))
    except BudgetError as error:
        print(json.dumps({"budget": str(error)}))
"""


@pytest.fixture
def server():
    server = Server()
    server.delay = 0.05
    yield server
    server.close()


@pytest.fixture
def teacher(server, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:

        def make(**changes):
            options = {"endpoint": Endpoint(base_url=server.url, name="test"), "ledger": ledger, "backoff": 0.01}
            options |= {"max_tokens": 100, "price": PRICE, "run": "r", "stage": "s", "in_flight": 16}
            return Teacher("m", **(options | changes))

        yield make


@pytest.fixture
def start(server, tmp_path):
    """Start a client of its own process for prompts first to last; ended with the test."""
    running = []

    def start(first, last, **options):
        command = [sys.executable, "-c", CLIENT, server.url, str(tmp_path / "ledger.sqlite"), str(first), str(last)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen([*command, json.dumps(options)], **pipes))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def wait_for(condition, seconds=30):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


def test_ctrl_c_and_sigterm_at_five_moments_lose_nothing_and_book_everything(server, start, tmp_path):
    rng = random.Random(0)
    for moment in range(5):
        before, blow = len(server.requests), (signal.SIGINT, signal.SIGTERM)[moment % 2]
        client = start(1000 * moment, 1000 * moment + 1000)
        until = before + rng.randint(1, 300)
        wait_for(lambda until=until: len(server.requests) >= until)
        client.send_signal(blow)
        said, errors = client.communicate(timeout=20)
        if blow == signal.SIGTERM:
            assert client.returncode == 143
        else:
            assert json.loads(said)["interrupted"] > 0
        assert "stopping: waiting for" in errors
        assert "never retrieved" not in errors
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            assert len(ledger.attempts()) == len(server.requests)
            assert ledger.attempts()["outcome"].eq("ok").all()
            assert ledger.spend("r")["cost"].sum() == pytest.approx(len(server.requests) * COST)
    assert max(server.seen.values()) == 1


def test_a_second_ctrl_c_does_not_wait_and_what_is_given_up_counts_as_perhaps_billed(server, start, tmp_path):
    server.delay = 30.0
    client = start(0, 100)
    wait_for(lambda: len(server.requests) == 16)
    client.send_signal(signal.SIGINT)
    assert "stopping: waiting for 16 requests in flight" in client.stderr.readline()
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=20)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.attempts()["outcome"].tolist() == ["interrupted"] * 16
        assert ledger.spend("r")["unpriced"].tolist() == [16]


@pytest.mark.parametrize(
    "stop",
    [lambda: failure(402), lambda: failure(429, "insufficient_quota"), lambda: failure(429, **{"Retry-After": "9999"})],
)
def test_an_error_that_stops_the_run_waits_for_what_is_in_flight(server, teacher, stop):
    server.answer = lambda prompt, nth: stop() if prompt == "p20" else completion("ok")
    asker = teacher()
    with pytest.raises(TeacherError):
        asker.ask([f"p{i}" for i in range(200)])
    attempts = asker.ledger.attempts()
    assert len(attempts) == len(server.requests) <= 20 + 2 * 16
    assert (attempts["outcome"] == "ok").sum() == len(server.requests) - 1
    assert asker.ledger.read("SELECT count(*) FROM leases") == [(0,)]


@pytest.mark.parametrize("status", [401, 404, 307])
def test_a_stray_error_of_a_server_that_works_is_no_stop_and_a_lasting_one_is(server, teacher, status):
    server.answer = lambda prompt, nth: failure(status) if prompt == "p30" and nth == 1 else completion("ok")
    table = teacher().ask([f"p{i}" for i in range(60)])
    assert (table["outcome"] == "ok").sum() >= 59  # a redirect is not asked again, but does not stop the others
    server.answer = lambda prompt, nth: failure(status) if len(server.requests) > 100 else completion("ok")
    with pytest.raises(TeacherError, match=f"answered {status}"):
        teacher().ask([f"q{i}" for i in range(500)])
    assert len(server.requests) < 100 + 4 * 16 + 3


@pytest.mark.parametrize("status", [400, 403, 422])
def test_a_server_that_rejects_everything_is_not_asked_for_ever(server, teacher, status):
    server.delay = 0.0
    server.answer = lambda prompt, nth: completion("ok") if prompt == "p0" else failure(status, "not you")
    with pytest.raises(TeacherError, match=r"50 requests in a row were rejected, the last with .*not you"):
        teacher().ask([f"p{i}" for i in range(2700)])
    assert len(server.requests) <= 1 + 50 + 3 * 16


def test_a_server_that_rejects_every_other_prompt_is_asked_all(server, teacher):
    server.delay = 0.0
    server.answer = lambda prompt, nth: failure(400) if int(prompt[1:]) % 2 else completion("ok")
    table = teacher().ask([f"p{i}" for i in range(400)])
    assert table["outcome"].value_counts().to_dict() == {"ok": 200, "http_400": 200}


def test_a_correction_that_an_outage_kept_from_coming_is_no_reject_for_good(server, teacher):
    server.answer = lambda prompt, nth: completion("no number") if prompt == "q" else failure(500)
    assert teacher(attempts=1).ask(["q"], parse=int)["outcome"].tolist() == ["http_500"]
    server.answer = lambda prompt, nth: completion("7")
    assert teacher(attempts=1).ask(["q"], parse=int)["value"].tolist() == [7]


# --- several processes -------------------------------------------------------------------------------------------


def test_two_processes_that_ask_the_same_share_the_work_and_pay_once(server, start):
    clients = [start(0, 1500) for _ in range(2)]
    for client in clients:
        said, errors = client.communicate(timeout=60)
        assert json.loads(said) == {"ok": 1500}, errors
    assert len(server.seen) == 1500
    assert max(server.seen.values()) == 1


def test_what_a_killed_process_was_about_to_ask_is_free_at_once(server, start):
    first = start(0, 600)
    wait_for(lambda: len(server.requests) >= 100)
    second = start(0, 600)
    time.sleep(0.5)
    first.kill()
    said, _ = second.communicate(timeout=30)
    assert json.loads(said) == {"ok": 600}
    assert sum(n > 1 for n in server.seen.values()) <= 16  # in flight at the kill


def test_one_that_hangs_keeps_its_requests_only_until_they_expire(server, start, monkeypatch, teacher):
    hung = start(0, 40)
    wait_for(lambda: len(server.requests) >= 16)
    hung.send_signal(signal.SIGSTOP)
    asker = teacher()
    asker.ledger.write(("UPDATE leases SET expires = ?", [(time.time() + 1,)]))
    began = time.monotonic()
    assert asker.ask([f"p{i}" for i in range(40)])["outcome"].eq("ok").all()
    assert time.monotonic() - began >= 0.9


def test_two_teachers_and_two_threads_ask_the_same_once(server, teacher):
    askers, tables = [teacher(), teacher(stage="other")], []
    threads = [
        threading.Thread(target=lambda asker=asker: tables.append(asker.ask([f"p{i}" for i in range(300)])))
        for asker in askers * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [table["outcome"].eq("ok").all() for table in tables] == [True] * 4
    assert max(server.seen.values()) == 1


def test_processes_share_one_budget_to_the_cent(server, start, tmp_path):
    clients = [start(1000 * i, 1000 * i + 300, budget=0.1) for i in range(3)]
    stopped = [json.loads(client.communicate(timeout=60)[0]) for client in clients]
    assert sum("budget" in said for said in stopped) >= 2
    most = PRICE.cost(40, 100)  # bytes of a message, and max_tokens
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        spent = ledger.spend("r")["cost"].sum()
    assert spent == pytest.approx(len(server.requests) * COST)
    assert 0.1 - most - 1e-9 <= spent <= 0.1


# --- bounds and damage -------------------------------------------------------------------------------------------


def test_an_answer_that_unpacks_to_hundreds_of_megabytes_takes_no_such_memory(server, teacher):
    import gzip

    bomb = gzip.compress(bytes(400 << 20), 6)
    server.answer = lambda prompt, nth: web.Response(body=bomb, headers={"Content-Encoding": "gzip"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert teacher().ask(["a", "b"])["outcome"].eq("too_large").all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10  # KiB; the server holds the bomb too


def test_a_redirect_is_not_followed_with_an_openai_client_either(server, teacher):
    import openai

    other = Server()
    try:
        server.answer = lambda prompt, nth: web.Response(
            status=307, headers={"Location": f"{other.url}/chat/completions"}
        )
        client = openai.AsyncOpenAI(base_url=server.url, api_key="none")
        with pytest.raises(TeacherError, match="no redirect is followed"):
            teacher(client=client, endpoint=None).ask(["a", "b", "c"])
        assert other.requests == []
    finally:
        other.close()


def test_a_changed_answer_is_named_and_not_read(teacher, server):
    asker = teacher()
    table = asker.ask(["a", "b"])
    key = table.loc[0, "key"]
    asker.ledger.write(
        ("UPDATE responses SET response = replace(response, 'answer', 'Answer') WHERE key = ?", [(key,)])
    )
    with pytest.raises(LedgerError, match=rf"DELETE FROM responses WHERE key = '{key}'") as error:
        asker.ask(["a", "b"])
    assert asker.ledger.check() == [str(error.value)]
    asker.ledger.write(("DELETE FROM responses WHERE key = ?", [(key,)]))
    assert asker.ask(["a", "b"])["cached"].tolist() == [False, True]


def test_a_changed_cost_is_named(teacher):
    asker = teacher()
    asker.ask(["a", "b"])
    asker.ledger.write(("UPDATE attempts SET cost = 0 WHERE id = 2", [()]))
    (problem,) = asker.ledger.check()
    assert "DELETE FROM attempts WHERE id = 2" in problem


def test_a_ledger_of_the_version_before_leases_is_taken_over(teacher, tmp_path):
    import sqlite3

    old = sqlite3.connect(tmp_path / "old.sqlite")
    old.executescript(
        """CREATE TABLE responses (key TEXT PRIMARY KEY, request TEXT NOT NULL, response TEXT NOT NULL, created REAL NOT NULL);
        CREATE TABLE attempts (id INTEGER PRIMARY KEY, key TEXT NOT NULL, model TEXT NOT NULL, run TEXT NOT NULL,
        stage TEXT NOT NULL, started REAL NOT NULL, seconds REAL NOT NULL, status INTEGER, outcome TEXT NOT NULL,
        prompt_tokens INTEGER, completion_tokens INTEGER, reasoning_tokens INTEGER, cost REAL);
        INSERT INTO responses VALUES ('k', '{}', '{"kept": 1}', 0.0);
        INSERT INTO attempts VALUES (1, 'k', 'm', 'r', 's', 0.0, 1.0, 200, 'ok', 1, 1, 0, 0.5); PRAGMA user_version = 1"""
    )
    old.close()
    with Ledger(tmp_path / "old.sqlite") as ledger:
        assert ledger.get(["k"]) == {"k": {"kept": 1}}
        assert ledger.spend("r")["cost"].tolist() == [0.5]
        assert teacher(ledger=ledger).ask(["a"])["outcome"].tolist() == ["ok"]
        assert len(ledger.attempts()) == 2


def fill(path):
    with open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))


def read_all(path):
    with Ledger(path) as ledger:
        return ledger.spend(), ledger.attempts(), ledger.read("SELECT * FROM responses")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file system of its own, which only root can mount")
def test_a_full_disk_stops_the_run_and_keeps_what_was_in_flight(server, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "none", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        server.answer = lambda prompt, nth: completion("x" * 20_000)
        with Ledger(small / "ledger.sqlite") as ledger:
            options = {"max_tokens": 100, "in_flight": 64, "price": PRICE, "run": "r"}
            teacher = Teacher("m", endpoint=Endpoint(base_url=server.url), ledger=ledger, **options)
            teacher.ask(["first"])
            with pytest.raises(OSError, match="No space"):
                fill(small / "filler")
            with pytest.raises(TeacherError, match="full"):
                teacher.ask([f"p{i}" for i in range(2000)])
            assert len(ledger.attempts()) == len(server.requests) < 2000
            (small / "filler").unlink()
        with Ledger(small / "ledger.sqlite") as ledger:
            assert ledger.check() == []
            assert ledger.spend("r")["cost"].sum() == pytest.approx(len(server.requests) * COST)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.parametrize("what", ["a folder", "text", "read-only", "half"])
def test_a_ledger_that_cannot_be_used_is_one_line_with_a_remedy(tmp_path, what):
    path = tmp_path / "ledger.sqlite"
    if what == "a folder":
        path.mkdir()
    elif what == "text":
        path.write_text("no database at all, but long enough to look like one " * 200)
    else:
        with Ledger(path) as ledger:
            ledger.write(
                ("INSERT INTO responses VALUES (?, '{}', ?, 0, NULL)", [(str(i), "x" * 999) for i in range(999)])
            )
        if what == "half":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        else:
            path.chmod(0o400)
    with pytest.raises((ValueError, LedgerError), match=str(path)) as error:
        read_all(path)
    assert "\n" not in str(error.value)
