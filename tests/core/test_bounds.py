"""What users name stays within bounds: YAML that would grow, files that are none, names that leave their folder."""

import json
import os
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import ROOT

from qatoolkit.core.bounds import check_name
from qatoolkit.core.settings import read_mapping
from qatoolkit.evaluation.exams import Exam
from qatoolkit.evaluation.suites import resolve_suite
from qatoolkit.run import cli
from qatoolkit.run.profiles import load_profile
from qatoolkit.synthesis.strategies import Strategy, register

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
HOSTILE = {
    "aliases": (BOMB, "with \\*aliases expanded"),
    "merges": (
        "b0: &b0 {" + ", ".join(f"k{i}: 1" for i in range(50)) + "}\n"
        + "".join(f"b{i}: &b{i} {{<<: [{', '.join([f'*b{i - 1}'] * 50)}]}}\n" for i in range(1, 8)),
        "with \\*aliases expanded",
    ),
    "depth": ("a: " + "[" * 100_000, "nested more than 50 levels deep"),
    "block depth": ("".join(" " * i + "a:\n" for i in range(300)), "nested more than 50 levels deep"),
    "itself": ("a: &a [*a]\n", "refers to a value that contains it"),
    "size": ("a: '" + "x" * (1 << 20) + "'\n", "a YAML file may have at most 1,048,576"),
    "many": ("a: [" + "1," * 300_000 + "]\n", "more than 20,000 values"),
    "a number in base 60": ("a: 1" + ":59" * 100_000 + "\n", "an unquoted text of 300,001 characters"),
    "digits": ("a: " + "9" * 9_000 + "\n", "not valid YAML"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_yaml_file_is_refused_in_a_moment_in_one_line(tmp_path, name, capsys):
    text, said = HOSTILE[name]
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    begun = time.process_time()
    with pytest.raises(ValueError, match=said) as caught:
        load_profile(path)
    assert cli.main(["train", str(path)]) == 2
    assert cli.main(["status", "--profile", str(path)]) == 2
    assert time.process_time() - begun < 10
    assert len(str(caught.value).splitlines()) == 1
    assert str(path) in str(caught.value)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_bomb_among_the_tasks_of_a_folder_is_refused(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text(BOMB)
    begun = time.process_time()
    with pytest.raises(ValueError, match=r"mine\.yaml, line \d+: more than"):
        resolve_suite(str(tmp_path / "tasks"), tmp_path / "work")
    assert time.process_time() - begun < 10


def test_anchors_and_merges_as_people_write_them_are_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: &b {tokens: 1}\na: {<<: *b, x: 2}\nlist: [*b, *b]\ntext: |\n  " + "word " * 5_000 + "\n")
    assert read_mapping(path, "anything")["a"] == {"tokens": 1, "x": 2}


READ = """
import json, os, signal, socket, sys
from pathlib import Path
import qatoolkit as qt

os.chdir(sys.argv[1])
for what in ("fifo", "zero", "socket"):
    for kind in ("profile", "seeds", "general", "exam", "checkpoint"):
        path = Path(f"{kind}-{what}" + (".yaml" if kind == "profile" else ".jsonl")).resolve()
        if what == "fifo":
            os.mkfifo(path)
        elif what == "zero":
            path.symlink_to("/dev/zero")
        else:
            socket.socket(socket.AF_UNIX).bind(path.name)
        one = str(path)
        dials = {"seeds": {"seeds.sources": (one,)}, "general": {"general.sources": (one,)},
                 "exam": {"exams": {"mine": {"source": one}}}, "checkpoint": {"student.checkpoint": one}}
        signal.alarm(20)  # ends the process
        try:
            run = qt.open_run(f"{kind}-{what}", **({"profile": one} if kind == "profile" else dials[kind]))
            qt.stages.run_to(run, "base" if kind in ("general", "checkpoint") else "annotate", log=str)
            said = "nothing"
        except (ValueError, OSError) as error:
            said = str(error)
        print(json.dumps([kind, what, one, said]), flush=True)
"""


@pytest.mark.timeout(300)
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path):
    """Fifos, devices and sockets as a profile, seeds, general text, an exam and a checkpoint."""
    environment = os.environ | {
        "QATOOLKIT_RESULTS": str(tmp_path / "results"), "OPENAI_BASE_URL": "", "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [sys.executable, "-c", READ, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr[-1500:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(lines) == 15
    for kind, what, path, said in lines:
        assert path in said, (kind, what, said)
        assert "file or folder" in said or "regular file" in said, (kind, what, said)
        assert len(said.splitlines()) == 1


NAMES = [
    "../x",
    "/abs",
    "a/b",
    "a\\b",
    "..",
    ".",
    ".hidden",
    "-x",
    "",
    " ",
    "a\n",
    "a\x00b",
    "a\u202eb",
    "\ud800",
    "x" * 121,
    "一" * 41,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_become_file_names_are_refused_in_one_line(name):
    table = pd.DataFrame({"question": ["q"], "answer": ["a"]})
    for refused in (
        lambda: load_profile("smoke", arms={name: ("boostqa",)}),
        lambda: load_profile("smoke", data={name: {"strategy": "boostqa"}}),
        lambda: load_profile("smoke", exams={name: {"source": "textbook"}}),
        lambda: register(Strategy(name=name, settings=None, write=None, requests=None, prompts=())),
        lambda: Exam(name=name, table=table),
    ):
        with pytest.raises(ValueError, match=r"its name becomes a (file name|folder), but it") as caught:
            refused()
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 250


@pytest.mark.parametrize("name", ["textbook_en", "arc:easy", "my exam (2)", "物理", "a.b-c", "x" * 120])
def test_names_as_people_give_them_are_taken(name):
    check_name(name, "exam")


@pytest.mark.parametrize("name", ["seeds", "base", "curate", "notebooks", "report", "models"])
def test_a_data_set_does_not_take_the_name_of_a_stage(name):
    with pytest.raises(ValueError, match=rf"data\.{name}: this name is taken"):
        load_profile("smoke", data={name: {"strategy": "boostqa"}})
