"""Steps over shards: the same rows and files from both engines, memory bounded in rows, and no work done or paid twice."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from teacher_server import failure

from qatoolkit.core.files import Damaged, digest
from qatoolkit.core.qa_table import qa_table
from qatoolkit.core.ray_engine import start
from qatoolkit.core.shards import list_shards, map_shards, read_shards, write_shards
from qatoolkit.curate.near_duplicates import near_duplicates
from qatoolkit.curate.near_shards import near_duplicate_shards
from qatoolkit.graph.from_shards import kp_graph_of_shards
from qatoolkit.graph.kp_graph import build_kp_graph
from qatoolkit.run.answer_counts import Incomplete
from qatoolkit.run.shards import ask_shards
from qatoolkit.teacher.client import Endpoint, Teacher
from qatoolkit.teacher.ledger import Ledger


@pytest.fixture(scope="module")
def ray():
    """Ray, running on this machine."""
    pytest.importorskip("ray", reason='Ray is not installed: pip install ".[ray]"')
    try:
        return start()
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        pytest.skip("Ray did not start: it gives its parts 15 s, too little on a machine this busy")


def questions(n: int) -> pd.DataFrame:
    rows = [{"id": f"q{i}", "question": f"What is {i} + {i % 7}?", "answer": str(i + i % 7)} for i in range(n)]
    return qa_table(rows, language="en", source="sums").assign(
        choices=[["1", str(i)] if i % 3 else None for i in range(n)]
    )


def odd_out(table: pd.DataFrame):
    odd = table["answer"].astype(int) % 2 == 1
    return table[~odd], table[odd].assign(reason="odd")


class Opened:
    """A step with something to open, which notes where it was opened."""

    def __init__(self, notes):
        self.notes = notes

    def __enter__(self):
        (self.notes / f"opened-{os.getpid()}").touch()
        return odd_out

    def __exit__(self, *_):
        (self.notes / f"closed-{os.getpid()}").touch()


def test_all_rows_are_kept_or_rejected_in_order_whatever_the_size_of_a_shard(tmp_path):
    table = questions(1000)
    for rows in (1, 64, 5000):
        some = table[: 8 * rows]
        done = map_shards(odd_out, some, tmp_path / str(rows), rows_per_shard=rows)
        assert done["rows"].sum() == len(some) == (done["kept"] + done["rejects"]).sum()
        kept, rejects = odd_out(some)
        pd.testing.assert_frame_equal(
            pd.concat(read_shards(tmp_path / str(rows)), ignore_index=True)[["id", "choices"]],
            kept[["id", "choices"]].reset_index(drop=True),
        )
        found = pd.concat(read_shards(tmp_path / str(rows) / "rejects"), ignore_index=True)
        assert found["id"].tolist() == rejects["id"].tolist()


def test_a_file_of_any_row_groups_is_done_in_parts(tmp_path):
    table = questions(1000)
    for group in (10, 77, 1000):
        table.to_parquet(tmp_path / "one.parquet", row_group_size=group)
        shards = list_shards(tmp_path / "one.parquet", 130)
        assert [shard.name for shard in shards][:2] == ["one-00000.parquet", "one-00001.parquet"]
        tables = list(read_shards(tmp_path / "one.parquet", 130))
        assert [len(t) for t in tables] == [130] * 7 + [90]
        assert pd.concat(tables)["id"].tolist() == table["id"].tolist()


def test_shards_of_a_folder_have_one_schema(tmp_path):
    table = questions(40).assign(choices=[None] * 20 + [["a", "b"]] * 20, teacher=[None] * 20 + ["t"] * 20)
    folder = write_shards([table], tmp_path / "shards", 20)
    schemas = [pq.read_schema(path).remove_metadata() for path in sorted(folder.glob("*.parquet"))]
    assert schemas[0] == schemas[1]
    assert len(pd.read_parquet(folder)) == 40


def test_a_step_that_is_opened_is_opened_once_and_closed(tmp_path):
    map_shards(Opened(tmp_path), questions(100), tmp_path / "out", key=1, rows_per_shard=10)
    assert sorted(p.name.split("-")[0] for p in tmp_path.glob("*-*")) == ["closed", "opened"]


def test_what_is_finished_is_not_done_again_and_other_inputs_are_refused(tmp_path):
    calls = []

    def step(table):
        calls.append(len(table))
        if len(calls) == 3:
            raise OSError("no space")
        return table

    source = write_shards([questions(50)], tmp_path / "source", 10)
    with pytest.raises(OSError, match="no space") as caught:
        map_shards(step, source, tmp_path / "out", key="v1")
    assert "part-00002.parquet" in caught.value.__notes__[0]
    assert not (tmp_path / "out" / "manifest.json").exists()
    map_shards(step, source, tmp_path / "out", key="v1")
    assert calls == [10] * 6  # the third again, and the last two
    map_shards(step, source, tmp_path / "out", key="v1")
    assert len(calls) == 6
    with pytest.raises(ValueError, match="another key"):
        map_shards(step, source, tmp_path / "out", key="v2")
    write_shards([questions(51)], tmp_path / "source", 10)
    with pytest.raises(ValueError, match="other files"):
        map_shards(step, source, tmp_path / "out", key="v1")


def test_a_shard_that_was_damaged_is_named_or_made_again(tmp_path):
    source = write_shards([questions(30)], tmp_path / "source", 10)
    map_shards(odd_out, source, tmp_path / "out")
    whole = digest(tmp_path / "out")
    (tmp_path / "out" / "kept" / "part-00001.parquet").write_bytes(b"cut off")
    with pytest.raises(Damaged, match=r"part-00001\.parquet"):
        map_shards(odd_out, source, tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    map_shards(odd_out, source, tmp_path / "out")
    assert digest(tmp_path / "out") == whole


def test_a_source_that_can_not_be_read_is_named_before_anything_is_done(tmp_path):
    source = write_shards([questions(30)], tmp_path / "source", 10)
    (source / "part-00001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(Damaged, match=r"part-00001\.parquet is not a Parquet table"):
        map_shards(odd_out, source, tmp_path / "out")
    with pytest.raises(Damaged, match=r"gone\.parquet is missing"):
        map_shards(odd_out, [tmp_path / "gone.parquet"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no shards"):
        map_shards(odd_out, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ValueError, match="give key="):
        map_shards(lambda table: table, questions(3), tmp_path / "out")
    with pytest.raises(ValueError, match="allowed: local, ray"):
        map_shards(odd_out, questions(3), tmp_path / "out", engine="spark")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"thesis\.tex"):
        map_shards(odd_out, questions(3), tmp_path / "taken")


def edited(n: int, seed: int) -> pd.DataFrame:
    """Questions in made-up words, a third of them copies of an earlier one, some reworded or with one word replaced, and
    a template filled many times."""
    chance, words = random.Random(seed), [f"{a}{b}" for a in "bdfgklmnprst" for b in ("a", "e", "io", "ou", "an", "ir")]
    rows = []
    for i in range(n):
        text, answer = " ".join(chance.choices(words, k=chance.randint(12, 30))), chance.choice(words)
        if i % 3 == 2:
            text, answer = chance.choice(rows)
            text = chance.choice([text, f"Please tell me: {text}", f"{text} {chance.choice(words)}", text.upper()])
        rows.append((text, answer))
    said = [{"id": f"e{i}", "question": text, "answer": answer} for i, (text, answer) in enumerate(rows)]
    said += [
        {"id": f"t{i}", "question": f"Are {i % 40} and {i % 7} apples many?", "answer": "yes"} for i in range(n // 4)
    ]
    chance.shuffle(said)
    return qa_table(said, language="en", source="edited")


@pytest.mark.parametrize("rows", [53, 400])
def test_near_duplicates_of_shards_are_those_of_the_whole_table(tmp_path, monkeypatch, rows):
    monkeypatch.setattr("qatoolkit.curate.near_shards.PAIRS", 100)  # several passes over the keys
    table = edited(500, seed=rows)
    near = near_duplicates(table)
    assert 40 < (~near["keep"]).sum() < len(table) / 2
    source = write_shards([table], tmp_path / "source", rows)
    done = near_duplicate_shards(source, tmp_path / "out", rows_per_shard=rows)
    assert done["rows"].sum() == len(table)
    kept = pd.concat(read_shards(tmp_path / "out"), ignore_index=True)
    rejects = pd.concat(read_shards(tmp_path / "out" / "rejects"), ignore_index=True)
    assert kept["id"].tolist() == near.loc[near["keep"], "id"].tolist()
    of = near["cluster"].map(near[near["keep"]].set_index("cluster")["id"])
    told = [f"of {first}, Jaccard {similarity:.2f}" for first, similarity in zip(of, near["similarity"], strict=True)]
    assert rejects["detail"].tolist() == [told[i] for i in np.flatnonzero(~near["keep"])]


def test_a_group_larger_than_a_shard_stays_together(tmp_path):
    table = questions(40).assign(choices=None)
    table.loc[10:32, ["question", "answer"]] = ["Which metal is liquid at room temperature?", "mercury"]
    table.loc[33:34, ["question", "answer"]] = ["Which gas do plants take in?", "carbon dioxide"]
    done = near_duplicate_shards(write_shards([table], tmp_path / "source", 5), tmp_path / "out", rows_per_shard=5)
    assert done["rejects"].tolist() == [0, 0, 4, 5, 5, 5, 4, 0]


def test_a_table_without_duplicates_keeps_all(tmp_path):
    done = near_duplicate_shards(write_shards([questions(50)], tmp_path / "source", 20), tmp_path / "out")
    assert done["rejects"].sum() == 0
    assert done["kept"].sum() == 50


@pytest.mark.parametrize("weight", ["count", "pmi"])
def test_the_graph_of_shards_is_that_of_the_whole_table(tmp_path, weight):
    chance, table = random.Random(2), questions(300)
    points = [
        chance.choices(["Ohm's law", "power", "Power", "energy", "heat", "欧姆定律", "work"], k=i % 4)
        for i in range(300)
    ]
    table = table.assign(knowledge_points=[p or None for p in points], discipline=[None, "physics", "law"] * 100)
    table = pd.concat([table, table[5:9].assign(knowledge_points=[["late"]] * 4)], ignore_index=True)  # ids come again
    whole = build_kp_graph(table, weight=weight, min_count=2)
    pieces = kp_graph_of_shards(read_shards(write_shards([table], tmp_path / "s", 37)), weight=weight, min_count=2)
    assert pieces.names.tolist() == whole.names.tolist()
    pd.testing.assert_frame_equal(pieces.seeds, whole.seeds)
    for name in ("adjacency", "incidence", "edge_seeds"):
        assert (getattr(pieces, name) != getattr(whole, name)).nnz == 0


KILLED = """
import sys, time
from pathlib import Path
from qatoolkit.core.ray_engine import start
from qatoolkit.core.shards import map_shards
def step(table):
    Path(sys.argv[2], "did", table["id"].iloc[0]).touch()
    time.sleep(0.1)
    return table
map_shards(step, sys.argv[1], Path(sys.argv[2], "out"), key="killed", rows_per_shard=10)
"""


def test_a_kill_costs_no_finished_shard(tmp_path):
    source = write_shards([questions(200)], tmp_path / "source", 10)
    (tmp_path / "did").mkdir()
    command = [sys.executable, "-c", KILLED, str(source), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment)
    while len(list((tmp_path / "did").iterdir())) < 6:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {json.loads(path.read_text())["shard"] for path in (tmp_path / "out" / "done").glob("*.json")}
    assert 4 <= len(finished) < 20
    for path in (tmp_path / "did").iterdir():
        path.unlink()
    subprocess.run(command, env=environment, check=True)
    assert len(list((tmp_path / "did").iterdir())) == 20 - len(finished)
    assert sum(map(len, read_shards(tmp_path / "out"))) == 200
    assert not list((tmp_path / "out").rglob("*.tmp"))


def about(server, **options) -> dict:
    return {"model": "m", "endpoint": Endpoint(base_url=server.url, name="s", key_env=None), "backoff": 0.01} | options


def asking(table, teacher):
    said = teacher.ask(list(table["question"]), ids=list(table["id"]))
    ok = (said["outcome"] == "ok").to_numpy()
    return table[ok].assign(answer=said["content"][ok].to_numpy()), table[~ok].assign(
        reason=said["outcome"][~ok].to_numpy()
    )


def test_what_no_teacher_answered_is_asked_again_and_nothing_else(tmp_path, server):
    source, down = write_shards([questions(40)], tmp_path / "source", 10), True
    plain = server.answer
    server.answer = lambda prompt, nth: failure(503) if down and "25" in prompt else plain(prompt, nth)
    options = {"ledger": tmp_path / "ledger.sqlite", "teachers": {"teacher": about(server, attempts=2)}}
    with pytest.raises(Incomplete, match=r"1 of 30 rows are missing \(http_503 1\)"):
        ask_shards(asking, source, tmp_path / "out", **options)
    asked, down = Counter(server.seen), False
    done = ask_shards(asking, source, tmp_path / "out", **options)
    assert done["kept"].tolist() == [10] * 4
    assert {prompt for prompt, n in server.seen.items() if n > asked[prompt]} == {
        f"What is {i} + {i % 7}?" for i in (25, *range(30, 40))
    }
    with pytest.raises(ValueError, match="another key"):
        ask_shards(
            asking, source, tmp_path / "out", **options | {"teachers": {"teacher": about(server, temperature=0)}}
        )


def test_processes_divide_their_limits_and_take_over_those_of_one_that_ended(tmp_path, server, monkeypatch):
    """Two ledger objects hold locks of their own, as two processes do."""
    monkeypatch.setattr("qatoolkit.teacher.sender.SHARE_CHECK_SECONDS", 0.05)
    server.delay = 0.04

    def ask(name, n):
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            Teacher(ledger=ledger, shared=True, in_flight=12, **about(server)).ask([f"{name} {i}" for i in range(n)])

    threads = [threading.Thread(target=ask, args=("long", 450)), threading.Thread(target=ask, args=("short", 120))]
    for thread in threads:
        thread.start()
    time.sleep(0.4)
    server.most = 0
    threads[1].join()
    together, server.most = server.most, 0
    threads[0].join()
    assert 6 < together <= 12  # 24 if each had the limit for itself
    assert server.most == 12
    assert server.seen.most_common(1)[0][1] == 1


def test_ray_writes_the_same_files(tmp_path, ray):
    source = write_shards([questions(40)], tmp_path / "source", 10)
    local = map_shards(odd_out, source, tmp_path / "local")
    spread = map_shards(odd_out, source, tmp_path / "ray", engine="ray", workers=2)
    pd.testing.assert_frame_equal(local, spread)
    assert digest(tmp_path / "local") == digest(tmp_path / "ray")


@pytest.mark.slow
def test_ray_raises_the_error_of_a_shard_and_finds_the_same_near_duplicates(tmp_path, ray):
    def fail(table):
        if "q15" in set(table["id"]):
            raise ValueError("not this one")
        return table

    with pytest.raises(ValueError, match="not this one") as caught:
        map_shards(fail, write_shards([questions(40)], tmp_path / "s", 10), tmp_path / "f", key=1, engine="ray")
    assert "part-00001.parquet" in caught.value.__notes__[0]
    source = write_shards([edited(600, seed=1)], tmp_path / "source", 100)
    near_duplicate_shards(source, tmp_path / "local")
    near_duplicate_shards(source, tmp_path / "ray", engine="ray")
    assert digest(tmp_path / "local") == digest(tmp_path / "ray")


@pytest.mark.slow
def test_a_worker_killed_on_ray_costs_no_answered_request(tmp_path, server, ray):
    server.delay = 0.05
    source = write_shards([questions(400)], tmp_path / "source", 50)
    killed = tmp_path / "killed"

    def once(table, teacher):
        """Kills its worker a moment after the third shard has begun, once."""
        if "q100" in set(table["id"]) and not killed.exists():
            killed.touch()
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return asking(table, teacher)

    options = {"ledger": tmp_path / "ledger.sqlite", "teachers": {"teacher": about(server, in_flight=4)}, "key": 1}
    done = ask_shards(once, source, tmp_path / "out", engine="ray", workers=2, **options)
    assert killed.exists()
    assert done["kept"].sum() == 400
    assert len(server.seen) == 400
    assert sum(n - 1 for n in server.seen.values()) <= 4
    local = ask_shards(asking, source, tmp_path / "local", **options)
    assert sum(server.seen.values()) <= 404
    assert local["kept"].sum() == 400
    assert digest(tmp_path / "out" / "kept") == digest(tmp_path / "local" / "kept")
