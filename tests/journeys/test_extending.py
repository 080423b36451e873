"""What docs/extending.md shows is run as it is printed there: a strategy, a reader, a budget rule, a figure, an ablation and a world from outside."""

import json
import os
import re
import subprocess
import sys
from typing import ClassVar

import pytest
from conftest import ROOT
from small_training import TRAIN_HERE
from teacher_server import Server, completion

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```\w+\n# ([\w/.-]+\.(?:py|yaml|txt))\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with the files of the page, its modules installed as plugins."""
    folder = tmp_path_factory.mktemp("lab")
    for name, text in FENCE.findall(PAGE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    about = folder / "lab-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text(
        "[qatoolkit.plugins]\nsiblings = siblings\nanswer_lengths = answer_lengths\nwidest = widest\n"
    )
    return folder


def python(lab, *arguments: str) -> subprocess.CompletedProcess:
    """A fresh interpreter in the lab, offline, with results of its own."""
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{lab}",
        "QATOOLKIT_RESULTS": str(lab / "results"),
        "HF_HUB_OFFLINE": "1",
        "OPENAI_BASE_URL": "",
    }
    done = subprocess.run([sys.executable, *arguments], cwd=lab, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done


def last_line(done: subprocess.CompletedProcess) -> dict:
    return json.loads(done.stdout.splitlines()[-1])


JOURNEY = """
import json
import qatoolkit as qt
from qatoolkit.run.cost import requests

run = qt.open_run("siblings", profile="siblings.yaml")
qt.stages.run_to(run, "curate")
made = run.read("siblings")
figure = qt.draw(run, "answer_lengths")
turned = qt.stages.ablations(run).ablations
print(json.dumps({
    "asked": run.manifest("siblings")["settings"]["strategies"],
    "made": len(made.questions),
    "judged": made.refinement["n"],
    "curated": len(run.read("curate").siblings),
    "plans": qt.tables.plan_shares(run)["plan"].tolist(),
    "figure": [text.get_text() for text in figure.axes[0].get_yticklabels()],
    "lineage": len(qt.lineage(run, made.questions["id"].iloc[0]).calls),
    "cost": qt.cost_per_question(run)["dataset"].unique().tolist(),
    "estimate": requests(run.profile)["stage"].unique().tolist(),
    "ablations": turned[["arm", "ablation", "on", "n"]].to_dict("records"),
}))
"""


@pytest.fixture(scope="module")
def journey(lab):
    return last_line(python(lab, "-c", TRAIN_HERE + JOURNEY))


def test_a_strategy_from_outside_is_written_curated_and_explained(journey):
    assert journey["asked"] == {"siblings": {"each": 3}}
    assert journey["made"] > 30
    assert 0 < journey["curated"] <= journey["made"]
    assert journey["judged"] == journey["made"]  # every question is judged against the world's truth
    assert journey["lineage"] >= 2  # the request that wrote it and the one that labelled it
    assert journey["cost"] == ["siblings"]
    assert journey["estimate"] == ["annotate", "consensus", "siblings", "variants/siblings", "rounds"]


def test_a_figure_from_outside_is_one_of_the_run(journey):
    assert any("siblings" in label for label in journey["figure"])


def test_a_budget_rule_from_outside_is_planned_with(journey):
    assert "if the rule were widest" in journey["plans"]


def test_an_ablation_is_a_line_of_yaml(journey):
    rows = journey["ablations"]
    assert {(row["arm"], row["ablation"]) for row in rows} == {("siblings", "strategies.siblings.each=1")}
    assert {row["on"] for row in rows} == {"weak", "all"}
    assert all(row["n"] > 0 for row in rows)


def test_the_command_line_knows_plugins(lab):
    listed = python(lab, "-m", "qatoolkit.run.cli", "status", "--profile", "siblings.yaml", "--run", "new").stdout
    assert "siblings" in listed
    assert "linkqa " in listed


def test_a_prompt_of_its_own_is_sent_and_versioned(lab):
    code = """
import json
from pathlib import Path
from qatoolkit.teacher import prompts

prompts.add(Path("prompts"))
system, user = prompts.messages("contrast", "en", seed={"question": "Q?"})
print(json.dumps([prompts.version("contrast"), system["content"], json.loads(user["content"])]))
"""
    version, system, payload = last_line(python(lab, "-c", code))
    assert version == "contrast.v1"
    assert system.startswith("Task: contrast, version 1.")
    assert payload == {"seed": {"question": "Q?"}}


def test_a_reader_from_outside_reads_its_files(lab):
    cards = "question: What is 2 + 2?\nanswer: 4\n\nquestion: What is 3 + 3?\nanswer: 6\n"
    (lab / "sums.cards").write_text(cards, encoding="utf-8")
    code = """
import json
import cards
import qatoolkit as qt

table, rejects = qt.read_seeds("sums.cards")
print(json.dumps([table[["question", "answer"]].values.tolist(), len(rejects)]))
"""
    assert last_line(python(lab, "-c", code)) == [[["What is 2 + 2?", "4"], ["What is 3 + 3?", "6"]], 0]


# --- a world of its own ----------------------------------------------------------------------------------------


class LabelServer(Server):
    """An OpenAI-compatible server on the loopback that labels every question the same, and names its knowledge points."""

    REPLIES: ClassVar = {
        "annotate": {"discipline": "physics", "difficulty": "H2", "grade": "high"},
        "knowledge_points": {"knowledge_points": ["density", "units"]},
    }

    def __init__(self):
        self.asked = []
        super().__init__()

    async def _handle(self, request):
        body = await request.json()
        task = re.match(r"Task: (\w+)", body["messages"][0]["content"])[1]
        self.asked.append(task)
        return completion(json.dumps(self.REPLIES[task]))


def write_shelf(folder) -> None:
    """Twenty questions with choices, an exam of ten others, and general text."""
    folder.mkdir()
    metals = ["iron", "copper", "lead", "silver", "tin"]

    def question(i: int) -> dict:
        choices = [f"{v} grams" for v in (3 * i + 7, 2 * i + 1, 5 * i + 9, i + 40)]
        asked = f"A block of {metals[i % 5]} number {i} is weighed with {i} weights. What is its mass?"
        return {
            "question": asked,
            "choices": choices,
            "answer": choices[0],
            "discipline": "physics",
            "difficulty": "H2",
        }

    for name, numbers in (("questions", range(20)), ("exam", range(20, 30))):
        lines = "".join(json.dumps(question(i)) + "\n" for i in numbers)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    text = "".join(f"The block of {metal} has a mass of {i} grams.\n" for i in range(40) for metal in metals)
    (folder / "general.txt").write_text(text, encoding="utf-8")


WORLD = """
import json, sys
import qatoolkit as qt
from shelf import Shelf

student = {"size": "xxs", "tokens": 20_000, "vocabulary": 400}
dials = {"student": student, "midtrain.tokens": 5_000, "scaling.sizes": (), "scaling.initial": ()}
run = qt.open_run("mine", profile="smoke", world=Shelf("shelf", sys.argv[1]), **dials)
probe = qt.stages.run_to(run, "probe")
textbook = sorted(name for name in sys.modules if name.startswith("qatoolkit.textbook"))
print(json.dumps({
    "exams": list(qt.tables.exams(run)),
    "cells": probe.cells[["discipline", "difficulty", "n"]].values.tolist(),
    "points": run.read("annotate").seeds["knowledge_points"].iloc[0],
    "textbook": textbook,
}))
"""


def test_a_world_of_its_own_needs_nothing_of_the_textbook(lab):
    write_shelf(lab / "shelf")
    server = LabelServer()
    try:
        found = last_line(python(lab, "-c", TRAIN_HERE + WORLD, server.url))
    finally:
        server.close()
    assert found["exams"] == ["final"]
    assert found["cells"] == [["physics", "H2", 20]]
    assert found["points"] == ["density", "units"]
    assert set(server.asked) == {"annotate", "knowledge_points"}
    assert found["textbook"] == ["qatoolkit.textbook", "qatoolkit.textbook.settings"]
