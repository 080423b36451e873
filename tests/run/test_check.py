"""Damage is noticed: every file that a run wrote, damaged in turn, is named, and nothing reads it as whole."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from qatoolkit.core.artifacts import Artifact, inventory
from qatoolkit.core.files import Damaged, describe_difference, fingerprint
from qatoolkit.core.qa_table import read_table
from qatoolkit.run import cli, notebooks, report, stages
from qatoolkit.run.check import find_damage, record_files
from qatoolkit.run.clean import find_unused
from qatoolkit.run.contracts import stage
from qatoolkit.run.lineage import lineage
from qatoolkit.run.store import open_run

WAYS = {
    "truncated": lambda content: content[: len(content) // 2],
    "one byte flipped": lambda content: flipped(content, len(content) // 2),
    "first byte flipped": lambda content: flipped(content, 0),
    "last byte flipped": lambda content: flipped(content, len(content) - 1),
    "emptied": lambda content: b"",
    "longer": lambda content: content + b"\n",
    "missing": None,
}


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def damage(path: Path, way: str) -> bytes:
    """Damage a file and return what was in it."""
    content = path.read_bytes()
    if WAYS[way] is None:
        path.unlink()
    else:
        path.write_bytes(WAYS[way](content))
    return content


def files_of(root: Path) -> list[Path]:
    """What runs wrote in a results folder: not links, locks, or the offline teacher's log."""
    files = (p for p in sorted(root.rglob("*")) if p.is_file() and not p.is_symlink() and p.stat().st_size)
    files = (p for p in files if not any(above.is_symlink() for above in p.parents))
    return [p for p in files if not p.name.endswith(".lock") and "ledger.sqlite" not in p.name and p.suffix != ".log"]


@stage("seeds", settings=("plan",))
def seeds(run, folder):
    (folder / "raw").mkdir(exist_ok=True)
    (folder / "raw" / "a.txt").write_text("a line")
    return {"table": pd.DataFrame({"n": [1, 2, 3]}), "value": {"x": 1.5}, "raw": None}


@stage("annotate", reads=("seeds",))
def annotate(run, folder):
    return {"total": int(run.read("seeds").table["n"].sum())}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def run(results):
    run = open_run("trial", profile="smoke")
    seeds(run, log=str)
    annotate(run, log=str)
    annotate(run.variant("other", {"plan.low_n": 3}), log=str)
    (run.folder / "notebooks").mkdir()
    (run.folder / "notebooks" / "01_seeds.ipynb").write_text('{"metadata": {}}')
    record_files(run.folder, [run.folder / "notebooks" / "01_seeds.ipynb"])
    return run


def said_by(capsys, *command) -> tuple[int, str]:
    """The exit code of a command and what it said: what it printed, or where it failed its error."""
    capsys.readouterr()
    code = cli.main(list(command))
    found = capsys.readouterr()
    return code, found.err or found.out


def test_a_whole_run_has_no_damage(run, capsys):
    assert list(find_damage(run.root)) == []
    assert said_by(capsys, "check", "trial") == (0, "trial: every file is as it was written\n")
    assert said_by(capsys, "check")[0] == 0


@pytest.mark.parametrize("way", WAYS)
def test_every_damaged_file_is_named_with_a_remedy_and_not_read_as_whole(run, results, capsys, way):
    for path in files_of(results):
        content = damage(path, way)
        code, said = said_by(capsys, "check", "trial")
        named = [line for line in said.splitlines() if str(path) in line]
        assert code == 1, (path, said)
        assert named, (path, said)
        assert all(": " in line and ("remove" in line or "run" in line) for line in named)
        for command in (["status", "--run", "trial"], ["clean", "--yes"]):
            code, said = said_by(capsys, *command)
            assert "Traceback" not in said
            assert code in (0, 1)
            if code:
                assert len(said.strip().splitlines()) == 1, said
                assert str(path) in said
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    assert list(find_damage(results)) == []


def test_an_edited_table_is_named_and_made_again_once_its_folder_is_removed(run):
    path = run.stage("seeds") / "table.parquet"
    read_table(path).assign(n=[7, 7, 7]).to_parquet(path, index=False)  # a whole table, by hand
    for read in (lambda: run.read("seeds"), lambda: seeds(run, log=str), lambda: annotate(run, log=str)):
        with pytest.raises(Damaged, match=r"table\.parquet .* remove .*stages/seeds/\w+ and run again what made it"):
            read()
    shutil.rmtree(run.stage("seeds"))
    assert seeds(run, log=str).table["n"].tolist() == [1, 2, 3]
    assert annotate(run, log=str).skipped


def test_links_are_checked_and_damaged_pointers_keep_clean_from_removing(run, results):
    (run.folder / "seeds").unlink()
    assert [line.split(" is not a link")[0] for line in find_damage(results)] == [str(run.folder / "seeds")]
    (run.folder / "stages.json").write_text("{}")
    with pytest.raises(Damaged, match=r"stages\.json is damaged or was edited"):
        list(find_unused(results))


def test_an_executed_notebook_that_was_edited_is_kept_aside_and_executed_again(run, monkeypatch):
    executed = []

    def execute(run, profile, source, target, key, kernel):
        executed.append(source.stem)
        target.write_text(json.dumps({"metadata": {"qatoolkit": {"key": key}}}))

    monkeypatch.setattr(notebooks, "_execute", execute)
    lines = []
    stage("exams")(lambda run, folder: {"value": 1})(run, log=str)
    for _ in range(2):
        notebooks.run_notebooks(run, None, ["01"], lines.append)
    assert executed == ["01_seeds"]
    path = run.folder / "notebooks" / "01_seeds.ipynb"
    for damaged in ("", "{", path.read_text() + " "):
        path.write_text(damaged)
        notebooks.run_notebooks(run, None, ["01"], lines.append)
        assert (path.parent / "01_seeds.changed.ipynb").read_text() == damaged
        assert any("was damaged or edited: kept as 01_seeds.changed.ipynb" in line for line in lines)
    assert executed == ["01_seeds"] * 4
    assert list(find_damage(run.root)) == []


def test_an_unknown_run_is_named(run, capsys):
    assert said_by(capsys, "check", "nope")[0] == 2
    assert "no run is called 'nope'" in said_by(capsys, "check", "nope")[1]


def test_a_large_file_is_sampled_when_read_and_read_whole_by_check(tmp_path):
    with open(tmp_path / "weights", "wb") as file:
        file.truncate((64 << 20) + 9_000_000)
    known = fingerprint(tmp_path / "weights")
    with open(tmp_path / "weights", "r+b") as file:
        file.seek(70_000)  # between two samples
        file.write(b"x")
    assert describe_difference(tmp_path / "weights", known, whole=True) == "has changed since it was written"
    os.truncate(tmp_path / "weights", 64 << 20)
    assert "bytes" in describe_difference(tmp_path / "weights", known)


def test_files_added_to_an_artifact_are_taken_into_its_manifest(tmp_path):
    made = Artifact(tmp_path, "tokens", "0" * 16)
    with made.making() as folder:
        (folder / "tokens.bin").write_bytes(b"abc")
        made.finish({"outputs": {}})
    (folder / "packed.npy").write_bytes(b"def")
    made.add_files()
    assert set(made.manifest["files"]) == set(inventory(folder)) == {"tokens.bin", "packed.npy"}
    damage(folder / "packed.npy", "one byte flipped")
    with pytest.raises(Damaged, match=r"packed\.npy has changed since it was written"):
        _ = made.manifest


def one_line_or_whole(read) -> bool:
    """Whether something works, or says in one line why not."""
    try:
        read()
    except (Damaged, RuntimeError) as error:
        return len(str(error).splitlines()) == 1
    return True


# --- a run of every stage ------------------------------------------------------------------------------------------

TINY = {
    "student": {"size": "xxs", "tokens": 20_000, "vocabulary": 400},
    "midtrain.tokens": 5_000,
    "scaling": {"sizes": (), "initial": (), "tokens": (1.0,)},
    "exams": {"textbook_pro": {"source": "textbook"}},
    "plan.questions": 24,
    "data": {"boostqa_untargeted": None, "linkqa": {}},
    "arms": {"boostqa": ("boostqa", "linkqa"), **dict.fromkeys(("seeds_only", "boostqa_untargeted", "linkqa"))},
    "compare": (("boostqa", "base"),),
    "ablations": ({"midtrain.replay": 0.7},),
    "probe.every": 2000,
    "evaluate": {"bootstrap": 50, "scorer": "fast"},
}
TINY["arms"]["boostqa_linkqa"] = None


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A finished run: every stage, an ablation, an executed notebook, figures and report."""
    root = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("QATOOLKIT_RESULTS", str(root))
        patched.setenv("OPENAI_BASE_URL", "")
        run = open_run("tiny", profile="smoke", **TINY)
        stages.run_to(run, "summary", log=str)
        stages.ablations(run, log=str)
        notebooks.run_notebooks(run, None, ["01"], str)
        report.write_report(run)
        yield run


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("way", WAYS)
def test_every_file_of_a_finished_run_is_named_when_damaged(tiny, tmp_path, monkeypatch, way):
    """All files that hold no names of others at once, then each of those that do in turn."""
    root = tmp_path / "results"
    shutil.copytree(tiny.root, root, symlinks=True)
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(root))
    assert list(find_damage(root)) == []
    naming = ("manifest.json", "stages.json", "files.json", "run.json")
    files = [p for p in files_of(root) if p.name != "teacher.log.jsonl"]
    held = {path: damage(path, way) for path in files if path.name not in naming}
    assert len(held) > 80
    lines = "\n".join(find_damage(root, "tiny"))
    assert not [path for path in held if str(path) not in lines]
    for path, content in held.items():
        path.write_bytes(content)
    assert list(find_damage(root)) == []
    run = open_run("tiny")
    id = run.read("boostqa").questions["id"].iloc[0]
    for path in [p for p in files if p.name in naming]:
        content = damage(path, way)
        assert str(path) in "\n".join(find_damage(root, "tiny")), path
        if way == "one byte flipped":
            assert all(map(one_line_or_whole, (lambda: lineage(run, id), lambda: run.read("evaluate").samples)))
        path.write_bytes(content)
    assert list(find_damage(root)) == []


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_no_command_reads_a_damaged_run_as_whole(tiny, tmp_path, monkeypatch, capsys):
    root = tmp_path / "results"
    shutil.copytree(tiny.root, root, symlinks=True)
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(root))
    run = open_run("tiny")

    def read_all():
        stages.run_to(open_run("tiny"), "summary", log=str)
        run.model("boostqa")

    for path in (
        run.model("boostqa") / "model.safetensors",
        run.stage("evaluate") / "samples.parquet",
        run.stage("summary") / "summary.json",
        run.stage("summary") / "manifest.json",
        run.folder / "stages.json",
        run.folder / "run.json",
    ):
        content = damage(path, "one byte flipped")
        for command in (["report", "--run", "tiny"], ["status", "--run", "tiny"]):
            code, said = said_by(capsys, *command)
            if code:
                assert code == 1
                assert len(said.strip().splitlines()) == 1
                assert str(path) in said
        with pytest.raises(Damaged, match=r"damaged or was edited|has changed since it was written"):
            read_all()
        path.write_bytes(content)
    figure = run.folder / "figures" / "probe.png"
    content = damage(figure, "truncated")
    assert said_by(capsys, "report", "--run", "tiny")[0] == 0
    assert figure.read_bytes() == content  # drawn again
