"""Run folders: what is written is whole, what is done is skipped, what is missing is named."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from qatoolkit.core.files import atomic, digest, write_json
from qatoolkit.core.qa_table import read_table, write_table
from qatoolkit.core.settings import replace
from qatoolkit.run.clean import find_unused, remove_artifact
from qatoolkit.run.contracts import VERSIONS, stage
from qatoolkit.run.profiles import load_profile
from qatoolkit.run.stages import data  # noqa: F401 (its stages have the versions that the ones below share)
from qatoolkit.run.store import MissingUpstream, open_run
from qatoolkit.run.world import OwnWorld
from qatoolkit.teacher import prompts

TABLE = pd.DataFrame({"n": [1, 2], "choices": [["a", "b"], None]})
calls = []


@pytest.fixture(autouse=True)
def counted():
    calls.clear()


@pytest.fixture
def run(tmp_path):
    return open_run("trial", profile="smoke", root=tmp_path, change=True)


@stage("seeds", settings=("plan",))
def first(run, folder):
    """A stage without upstream: a table, a value and a folder of its own."""
    calls.append("first")
    (folder / "raw").mkdir(parents=True, exist_ok=True)
    (folder / "raw" / "a.txt").write_text("a")
    return {"table": TABLE.assign(n=run.profile.plan.questions + run.seed), "value": {"x": 1.5}, "raw": None}


@stage("annotate", reads=("seeds",), settings=("teacher",))
def second(run, folder):
    calls.append("second")
    return {"total": int(run.read("seeds").table["n"].sum())}


def turned(run, **dials):
    """The same run opened with other dials."""
    return open_run(run.name, profile="smoke", root=run.folder.parent, change=True, **dials)


# --- stages --------------------------------------------------------------------------------------------


def test_outputs_are_read_from_disk_by_name(run):
    made = first(run, log=calls.append)
    assert not made.skipped
    assert made.value == {"x": 1.5}
    assert made.table["choices"].tolist() == [["a", "b"], None]
    assert (made.raw / "a.txt").read_text() == "a"
    assert dir(made) == ["raw", "table", "value"]
    with pytest.raises(AttributeError, match="wrote no 'colour'; it wrote table, value, raw"):
        _ = made.colour


def test_an_unchanged_stage_is_skipped_and_says_so(run):
    first(run, log=calls.append)
    calls.clear()
    again = first(turned(run), log=calls.append)
    assert calls == ["seeds: done before, nothing to do"]
    assert again.skipped
    assert again.value == {"x": 1.5}


def test_a_source_whose_content_changed_runs_the_stage_again(run, tmp_path, monkeypatch):
    monkeypatch.setattr(OwnWorld, "check", lambda _: None)  # "a" and "b" are no weights

    @stage("seeds", settings=("seeds",), files=("seeds.sources", "student.checkpoint"))
    def read(run, folder):
        return {"value": 1}

    source, checkpoint = tmp_path / "mine.jsonl", tmp_path / "model"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text('{"model_type": "llama"}')
    dials = {"seeds.sources": [str(source), "hf:some/set"], "student.checkpoint": str(checkpoint)}
    for file in (source, checkpoint / "model.safetensors"):
        file.write_text("a")
        read(turned(run, **dials), log=str)
        assert read(turned(run, **dials), log=str).skipped
        file.write_text("b")
        assert not read(turned(run, **dials), log=str).skipped


def test_a_changed_setting_runs_the_stage_again(run):
    first(run, log=calls.append)
    calls.clear()
    changed = first(turned(run, **{"plan.questions": 9}), log=calls.append)
    assert calls[:2] == ["seeds: plan changed, running again", "first"]
    assert changed.table["n"].tolist() == [9, 9]


def test_a_setting_of_another_stage_does_not(run):
    first(run, log=calls.append)
    first(turned(run, **{"midtrain.tokens": 7}), log=calls.append)
    assert calls.count("first") == 1


def test_another_seed_runs_the_stage_again(run):
    first(run, log=calls.append)
    first(open_run("trial", profile="smoke", seed=1, root=run.folder.parent, change=True), log=calls.append)
    assert calls.count("first") == 2


def test_a_changed_upstream_runs_the_stage_again_and_an_equal_one_does_not(run):
    first(run, log=calls.append)
    second(run, log=calls.append)
    (run.stage("seeds") / "manifest.json").unlink()
    first(run, log=calls.append)  # made again, but equal
    second(run, log=calls.append)
    assert calls.count("second") == 1
    other = turned(run, **{"plan.questions": 9})
    first(other, log=calls.append)
    second(other, log=calls.append)
    assert calls.count("second") == 2
    assert other.read("annotate").total == 18


def test_the_manifest_says_what_was_made_from_what(run):
    first(run, log=calls.append)
    second(run, log=calls.append)
    manifest = run.manifest("annotate")
    assert manifest["reads"] == ["seeds"]
    assert manifest["settings"] == {"teacher": run.profile.teacher.model_dump()}
    assert manifest["outputs"] == {"total": digest(run.stage("annotate") / "total.json")}
    assert run.done() == ["seeds", "annotate"]
    assert "2 stages done" in repr(run)


def test_what_changed_since_a_stage_was_made_is_named(run, tmp_path):
    first(run, log=calls.append)
    second(run, log=calls.append)
    assert run.changed("seeds") == run.changed("annotate") == []
    assert turned(run, **{"midtrain.tokens": 7}).changed("seeds") == []
    assert turned(run, **{"plan.questions": 9, "teacher.timeout": 9}).changed("seeds") == ["plan"]
    assert open_run("trial", profile="smoke", seed=1, root=run.folder.parent, change=True).changed("seeds") == ["seed"]
    first(turned(run, **{"plan.questions": 9}), log=calls.append)
    assert run.changed("annotate") == ["what it read"]


def test_what_changed_further_up_the_flow_is_named_too(run):
    @stage("probe", reads=("annotate",))
    def third(run, folder):
        return {"value": run.read("annotate").total}

    for made in (first, second, third):
        made(run, log=calls.append)
    assert run.changed("probe") == []
    assert turned(run, **{"plan.questions": 9}).changed("probe") == ["what it read"]
    (run.stage("seeds") / "manifest.json").unlink()
    assert run.changed("probe") == ["what it read"]


def test_a_file_whose_content_changed_is_named(run, tmp_path):
    @stage("seeds", settings=("seeds",), files=("seeds.sources",))
    def read(run, folder):
        return {"value": 1}

    (tmp_path / "mine.jsonl").write_text("a")
    mine = turned(run, **{"seeds.sources": [str(tmp_path / "mine.jsonl")]})
    read(mine, log=str)
    assert mine.changed("seeds") == []
    (tmp_path / "mine.jsonl").write_text("b")
    assert mine.changed("seeds") == ["content of seeds.sources"]


def test_a_stage_that_reads_what_other_settings_made_says_so(run):
    first(run, log=calls.append)
    other = turned(run, **{"plan.questions": 9})
    second(other, log=calls.append)
    assert "annotate: reads seeds as it is, although plan changed since: see 01_seeds" in calls
    calls.clear()
    first(other, log=calls.append)
    second(other, log=calls.append)
    assert not [line for line in calls if "as it is" in line]


def test_an_output_that_was_removed_is_named(run):
    made = first(run, log=calls.append)
    (run.stage("seeds") / "table.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"table is missing: remove .*stages/seeds/"):
        _ = made.table


def test_a_stage_that_fails_is_not_done_and_its_old_result_is_not_taken_for_new(run):
    """The old result stays where it is, known to be of other settings."""
    first(run, log=calls.append)

    @stage("seeds", settings=("plan",))
    def failing(run, folder):
        raise OSError("disk full")

    other = turned(run, **{"plan.questions": 9})
    with pytest.raises(OSError, match="disk full"):
        failing(other, log=calls.append)
    assert other.changed("seeds") == ["plan"]
    assert run.changed("seeds") == []
    assert first(run, log=calls.append).skipped


@pytest.mark.parametrize("name", list(open_run("trial", profile="smoke").stages()))
def test_a_missing_upstream_names_notebook_and_command(run, name):
    with pytest.raises(MissingUpstream) as caught:
        run.read(name)
    notebook = run.stages()[name]
    assert f"no {name!r} yet: run notebooks/{notebook}.ipynb" in str(caught.value)
    command = f"qatoolkit run --profile smoke --run trial --only {notebook}"
    assert command in str(caught.value)


def test_the_named_command_keeps_profile_file_and_seed(tmp_path):
    (tmp_path / "mine.yaml").write_text("profile: smoke\n")
    mine = open_run("trial", profile=str(tmp_path / "mine.yaml"), seed=3, root=tmp_path)
    with pytest.raises(MissingUpstream, match=r"--profile \S*mine\.yaml --run trial --seed 3 --only 03_probe`"):
        mine.read("plan")


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True, 2**32])
def test_a_seed_that_is_none_is_refused_before_anything_is_made(tmp_path, seed):
    with pytest.raises(ValueError, match=r"seed is .* whole number from 0"):
        open_run("trial", profile="smoke", seed=seed, root=tmp_path)


def test_a_stage_before_its_upstream_writes_nothing(run):
    with pytest.raises(MissingUpstream, match="01_seeds"):
        second(run, log=calls.append)
    assert calls == []
    assert not run.folder.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
import pandas as pd
from qatoolkit.core import artifacts
from qatoolkit.run import store
from qatoolkit.run.contracts import stage
from qatoolkit.run.world import OwnWorld

@stage("seeds", settings=("plan",))
def make(run, folder):
    return {"table": pd.DataFrame({"n": [1]}), "value": 1}

write = artifacts.write_json
def until_manifest(value, path):
    if path.name == "manifest.json":
        os.kill(os.getpid(), signal.SIGKILL)
    write(value, path)
artifacts.write_json = until_manifest
make(store.open_run("trial", profile="smoke", root=Path(sys.argv[1])))
"""


def test_a_kill_between_outputs_and_manifest_leaves_the_stage_undone(run, tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "stages" / "seeds").glob("*/table.parquet"))
    assert run.done() == []
    with pytest.raises(MissingUpstream):
        run.read("seeds")
    assert first(run, log=calls.append).skipped is False  # the lock died with its holder
    assert run.done() == ["seeds"]


@pytest.mark.parametrize(
    "name", ["..", "../other", "/etc", "a/b", "a\\b", ".hidden", "-x", "", " ", "a b", "a\n", "x" * 65, "é"]
)
def test_run_names_cannot_leave_the_results_folder(tmp_path, name):
    profile = replace(load_profile("smoke"), name=name)
    with pytest.raises(ValueError, match="run name"):
        open_run(None, profile=profile, root=tmp_path)
    if name:
        with pytest.raises(ValueError, match="run name"):
            open_run(name, profile="smoke", root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_opening_a_run_writes_nothing_and_takes_the_profiles_name(tmp_path, monkeypatch):
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path / "elsewhere"))
    assert open_run(profile="smoke").folder == tmp_path / "elsewhere" / "smoke"
    assert not (tmp_path / "elsewhere").exists()


# --- content addresses -----------------------------------------------------------------------------------


def test_a_second_run_shares_what_its_dials_do_not_touch(run, tmp_path):
    first(run, log=calls.append)
    second(run, log=calls.append)
    calls.clear()
    other = open_run("other", profile="smoke", root=tmp_path, **{"teacher.timeout": 9})
    assert first(other, log=calls.append).skipped
    assert not second(other, log=calls.append).skipped
    assert calls.count("first") == 0
    assert other.stage("seeds") == run.stage("seeds")
    assert other.stage("annotate") != run.stage("annotate")
    assert (other.folder / "seeds" / "value.json").exists()  # a link


def test_turning_a_dial_back_finds_what_was_made_before(run):
    first(run, log=calls.append)
    first(turned(run, **{"plan.questions": 9}), log=calls.append)
    assert (run.folder / "seeds").resolve() == run.stage("seeds").resolve()  # the link goes along
    assert first(run, log=calls.append).skipped
    assert calls.count("first") == 2


def test_a_new_contract_runs_the_stage_again_and_is_named(run, monkeypatch):
    monkeypatch.setitem(VERSIONS, "seeds", first.spec.version)
    first(run, log=calls.append)

    @stage("seeds", settings=("plan",), version=first.spec.version + 1)
    def better(run, folder):
        return {"value": 2}

    assert run.changed("seeds") == ["contract"]
    assert better(run, log=calls.append).value == 2


def test_another_text_of_a_prompt_runs_the_stage_again_and_is_named(run, tmp_path, monkeypatch):
    """Also where its version was not raised."""
    monkeypatch.setattr(prompts, "VERSIONS", dict(prompts.VERSIONS))
    monkeypatch.setattr(prompts, "_FOLDERS", dict(prompts._FOLDERS))
    text = tmp_path / "prompts" / "en" / "contrast.v1.txt"
    text.parent.mkdir(parents=True)

    def write(words):
        text.write_text(words)
        prompts.add(tmp_path / "prompts")

    write("Task: contrast, version 1.")

    @stage("seeds", prompts=("contrast",))
    def asking(run, folder):
        return {"value": 1}

    asking(run, log=calls.append)
    assert asking(run, log=calls.append).skipped
    write("Task: contrast, version 1. Be brief.")
    calls.clear()
    assert run.changed("seeds") == ["prompts"]
    assert not asking(run, log=calls.append).skipped
    assert calls[0] == "seeds: prompts changed, running again"


def test_only_stages_that_no_run_points_to_are_unused(run, tmp_path):
    first(run, log=calls.append)
    second(run, log=calls.append)
    assert list(find_unused(tmp_path)) == []
    first(turned(run, **{"plan.questions": 9}), log=calls.append)
    [left] = find_unused(tmp_path)
    assert left.manifest["settings"]["plan"]["questions"] != 9
    assert remove_artifact(left) > 0
    assert list(find_unused(tmp_path)) == []
    assert turned(run, **{"plan.questions": 9}).changed("seeds") == []


def test_arguments_of_a_stage_are_part_of_its_key(run):
    @stage("trial_of", settings=())
    def tried(run, folder, *, n: int = 1):
        calls.append(n)
        return {"n": n}

    assert [tried(run, log=str, n=n).n for n in (1, 2, 1)] == [1, 2, 1]
    assert calls == [1, 2]


# --- files ---------------------------------------------------------------------------------------------


def half_written(path, folder=False):
    """Write half of something, then fail."""
    with atomic(path) as temporary:
        if folder:
            temporary.mkdir()
        (temporary / "weights" if folder else temporary).write_text("half")
        raise RuntimeError("half way")


def test_an_error_while_writing_keeps_the_old_file_and_leaves_no_temporary(tmp_path):
    path = tmp_path / "value.json"
    write_json({"a": 1}, path)
    with pytest.raises(ValueError, match="JSON"):
        write_json({"a": float("nan")}, path)
    with pytest.raises(TypeError, match="can't be written as JSON"):
        write_json({"a": object()}, path)
    with pytest.raises(RuntimeError, match="half"):
        half_written(path)
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["value.json"]


def test_an_error_while_writing_a_folder_keeps_the_old_one(tmp_path):
    path = tmp_path / "model"
    for text in ("old", "new"):
        with atomic(path) as temporary:
            temporary.mkdir()
            (temporary / "weights").write_text(text)
    with pytest.raises(RuntimeError, match="half"):
        half_written(path, folder=True)
    assert (path / "weights").read_text() == "new"
    assert os.listdir(tmp_path) == ["model"]


def test_a_table_that_parquet_refuses_leaves_nothing(tmp_path):
    with pytest.raises(Exception, match=r"."):  # whatever pyarrow raises
        write_table(pd.DataFrame({"mixed": [1, "a", object()]}), tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []


def test_tables_and_values_come_back_as_they_were(tmp_path):
    write_table(TABLE, tmp_path / "deep" / "t.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "deep" / "t.parquet"), TABLE)
    value = {
        "n": np.int64(3),
        "x": np.float64(0.5),
        "list": np.arange(2),
        "zh": "一",
        "plan": load_profile("smoke").plan,
    }
    write_json(value, tmp_path / "v.json")
    back = json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))
    assert back == {"n": 3, "x": 0.5, "list": [0, 1], "zh": "一", "plan": value["plan"].model_dump()}


def test_a_digest_of_a_huge_file_follows_its_size_and_its_weights(tmp_path):
    huge = tmp_path / "huge"
    with open(huge, "wb") as file:
        file.truncate((1 << 30) + 5)
    found = {digest(huge)}
    with open(huge, "r+b") as file:
        file.seek(700_000_000)
        file.write(b"x" * 1_000_000)  # less than one matrix of a model that large
    found.add(digest(huge))
    os.truncate(huge, (1 << 30) + 6)
    assert len(found | {digest(huge)}) == 3


def test_a_folder_of_other_things_is_not_replaced(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "qa.jsonl").write_text("mine")
    refused = pytest.raises(ValueError, match=r"contains 'qa\.jsonl' and no done\.json")
    with refused, atomic(tmp_path / "precious", over="done.json") as folder:
        folder.mkdir()
    assert (tmp_path / "precious" / "qa.jsonl").read_text() == "mine"
    for _ in range(2):  # an empty folder, then one of the same kind
        with atomic(tmp_path / "new", over="done.json") as folder:
            folder.mkdir()
            (folder / "done.json").write_text("")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["done.json"]


def test_a_digest_follows_contents_and_names(tmp_path):
    for folder, name, text in (("a", "x", "1"), ("b", "x", "1"), ("c", "y", "1"), ("d", "x", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    a, b, c, d = (digest(tmp_path / folder) for folder in "abcd")
    assert a == b
    assert len({a, c, d}) == 3


def test_json_is_read_as_it_was_written_in_any_locale(tmp_path):
    code = "from qatoolkit.core.files import *; write_json('\\u7269\\u7406', Path('v.json')); print(ascii(read_json(Path('v.json'))))"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | plain, capture_output=True, text=True)
    assert done.stdout.strip() == ascii("物理"), done.stderr
