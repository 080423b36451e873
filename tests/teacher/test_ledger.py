"""The ledger's promises: a key for the whole request, commits that survive a kill, money that adds up."""

import asyncio
import csv
import json
import sqlite3
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path

import pytest

import qatoolkit
from qatoolkit.teacher.ledger import Attempt, Ledger, cache_key, canonical, plain_json
from qatoolkit.teacher.prices import price_of
from qatoolkit.teacher.settings import Price

REQUEST = {
    "endpoint": "offline-textbook",
    "body": {"model": "m", "messages": [{"role": "user", "content": "水的沸点?"}], "temperature": 0.6},
    "sample": 0,
}


def attempt(key: str, **changes) -> Attempt:
    row = {"model": "m", "run": "r", "stage": "s", "started": 1.7e9, "seconds": 0.5, "status": 200}
    return Attempt(**{"key": key, **row, "outcome": "ok", **changes})


def put(ledger: Ledger, *record):
    asyncio.run(ledger.put(*record))


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "deep" / "ledger.db") as ledger:
        yield ledger


def key_of(request):
    return cache_key(canonical(plain_json(request["body"]), request["endpoint"], request["sample"], 0))


def test_the_key_ignores_order_and_nothing_else():
    key = key_of(REQUEST)
    assert key == key_of(dict(reversed(REQUEST.items())))
    assert len(key) == 64
    changes = (
        {"endpoint": "other"},
        {"sample": 1},
        {"body": REQUEST["body"] | {"temperature": 0.7}},
        {"body": REQUEST["body"] | {"model": "n"}},
        {"body": REQUEST["body"] | {"seed": 0}},
        {"body": REQUEST["body"] | {"messages": [{"role": "system", "content": "x"}]}},
    )
    assert len({key, *(key_of(REQUEST | change) for change in changes)}) == len(changes) + 1


def test_the_key_is_the_same_on_every_machine_and_day():
    text = canonical(plain_json(REQUEST["body"]), "e", 1, 2)
    assert cache_key(text) == "99adb1045d905e0407ba594a30196386cbeacb5c689daaf8dd5d37aeb6691f4d"
    assert text == plain_json(json.loads(text))


def test_a_request_that_is_not_json_is_refused():
    with pytest.raises(ValueError, match="plain JSON"):
        plain_json({"temperature": float("nan")})
    with pytest.raises(ValueError, match="plain JSON"):
        plain_json({"stop": {1, 2}})


def test_what_is_put_is_there_for_the_next_session(tmp_path):
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        put(ledger, attempt("k1"), '{"q":1}', '{"content":"沸点"}')
        put(ledger, attempt("k2", outcome="http_500", status=500))
        ledger.flush()
    with Ledger(path) as ledger:
        assert ledger.get(["k1", "k2", "k3"]) == {"k1": {"content": "沸点"}}
        assert ledger.attempts()["outcome"].tolist() == ["ok", "http_500"]
        assert str(ledger.attempts()["started"].dt.tz) == "UTC"


def test_the_first_response_under_a_key_stands(ledger):
    put(ledger, attempt("k"), "{}", '{"n":1}')
    put(ledger, attempt("k"), "{}", '{"n":2}')
    assert ledger.get(["k"]) == {"k": {"n": 1}}
    assert len(ledger.attempts()) == 2


def test_many_threads_and_a_loop_share_one_writer(ledger):
    async def many(start):
        await asyncio.gather(*(ledger.put(attempt(f"a{start + i}"), "{}", "{}") for i in range(300)))

    threads = [threading.Thread(target=lambda i=i: asyncio.run(many(i * 300))) for i in range(3)]
    for thread in threads:
        thread.start()
    for i in range(50):
        put(ledger, attempt(f"b{i}"), "{}", "{}")
    for thread in threads:
        thread.join()
    assert len(ledger.get([f"a{i}" for i in range(900)] + [f"b{i}" for i in range(50)])) == 950


def test_two_processes_may_write_the_same_file(tmp_path):
    script = """if True:
        import asyncio, sys
        from qatoolkit.teacher.ledger import Attempt, Ledger
        with Ledger(sys.argv[1]) as ledger:
            for i in range(100):
                key = f"{sys.argv[2]}-{i}"
                asyncio.run(ledger.put(Attempt(key, "m", "r", "s", 0.0, 0.1, 200, "ok"), "{}", "{}"))
    """
    command = [sys.executable, "-c", script, str(tmp_path / "ledger.db")]
    writers = [subprocess.Popen([*command, name]) for name in ("a", "b", "c")]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert len(ledger.attempts()) == 300


def test_a_put_that_returned_survives_kill_9(tmp_path):
    script = """if True:
        import asyncio, os, signal, sys
        from qatoolkit.teacher.ledger import Attempt, Ledger
        ledger = Ledger(sys.argv[1])
        for i in range(20):
            asyncio.run(ledger.put(Attempt(f"k{i}", "m", "r", "s", 0.0, 0.1, 200, "ok"), "{}", "{}"))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path / "ledger.db")]).returncode == -9
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert len(ledger.get(f"k{i}" for i in range(20))) == 20


def test_spend_adds_up_by_model_and_stage_and_counts_what_has_no_price(ledger):
    used = {"prompt_tokens": 10, "completion_tokens": 100, "reasoning_tokens": 60}
    put(ledger, attempt("a", **used, cost=0.25))
    put(ledger, attempt("b", **used, cost=0.5))
    put(ledger, attempt("c", **used, model="unlisted"))
    put(ledger, attempt("d", outcome="http_500", status=500))
    put(ledger, attempt("e", **used, cost=4.0, run="other"))
    spend = ledger.spend("r").set_index("model")
    assert spend.loc["m", ["attempts", "prompt_tokens", "reasoning_tokens"]].tolist() == [3, 20, 120]
    assert spend.loc["m", ["cost", "unpriced"]].tolist() == [0.75, 0]
    assert spend.loc["unlisted", ["cost", "unpriced"]].tolist() == [0.0, 1]
    assert ledger.spend()["cost"].sum() == 4.75


def test_an_answer_whose_usage_the_server_left_out_is_not_free(ledger):
    put(ledger, attempt("a", cost=0.25), "{}", "{}")
    put(ledger, attempt("b"), '{"asked": "b"}', "{}")
    assert ledger.spend("r")[["cost", "unpriced"]].to_numpy().tolist() == [[0.25, 1]]
    assert ledger.costs(["a", "b"]).set_index("key")["cost"].isna().to_dict() == {"a": False, "b": True}


def test_one_write_that_fails_does_not_take_others_down(ledger):
    errors = []

    def write(key):
        try:
            put(ledger, attempt(key), "{}", "{}")
        except RuntimeError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=write, args=(key,)) for key in ("good", "bad \ud800", "fine")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ledger.get(["good", "fine"])) == ["fine", "good"]
    assert len(errors) == 1
    assert "cannot write" in errors[0]


def test_a_full_disk_is_an_error_not_a_hang(ledger):
    put(ledger, attempt("before"), "{}", "{}")
    pages = sqlite3.connect(ledger.path).execute("PRAGMA page_count").fetchone()[0]
    with Ledger(ledger.path) as full:
        full._writer_connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own full disk
        with pytest.raises(RuntimeError, match="full; free the disk"):
            put(full, attempt("big"), "{}", f'"{"x" * 100_000}"')
        assert list(full.get(["before", "big"])) == ["before"]


def test_a_file_that_is_no_ledger_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, " * 100)
    with pytest.raises(ValueError, match="as a ledger"):
        Ledger(tmp_path / "notes.txt")
    newer = sqlite3.connect(tmp_path / "newer.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(ValueError, match="version 99"):
        Ledger(tmp_path / "newer.db")


def test_a_closed_ledger_says_so(tmp_path):
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.close()
    ledger.close()
    with pytest.raises(RuntimeError, match="closed"):
        put(ledger, attempt("k"))


def test_the_price_is_the_one_in_force_on_the_day():
    r1 = price_of("deepseek-reasoner", on="2025-03-01")
    assert (r1.input, r1.cached_input, r1.output) == (0.55, 0.14, 2.19)
    assert price_of("deepseek-reasoner", on=date(2025, 10, 1)).output == 0.42
    assert price_of("deepseek-reasoner", on="2024-01-01") is None
    assert price_of("no-such-model") is None
    assert price_of("textbook-r1").cost(1000, 1000) == 0.0


def test_cached_and_completion_tokens_are_priced_apart():
    price = Price(input=1.0, cached_input=0.5, output=10.0)
    assert price.cost(1_000_000, 100_000, cached_tokens=400_000) == pytest.approx(0.6 + 0.2 + 1.0)
    assert Price(input=1.0, output=0.0).cost(1_000_000, 0, cached_tokens=1_000_000) == 1.0
    with pytest.raises(ValueError, match="output is -1; it must be float 0 or more"):
        Price(input=1.0, output=-1)


def test_every_listed_price_is_dated_sourced_and_readable():
    with (Path(qatoolkit.__file__).parent / "teacher" / "prices.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert row["source"].startswith("https://")
        assert price_of(row["model"], on=date.fromisoformat(row["date"])).output == float(row["output"])
    assert len({(row["model"], row["date"]) for row in rows}) == len(rows)
