"""A user's own model, seeds, exam, text, checkpoints and teacher: every notebook, figure, report and card, and nothing of
the textbook."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT
from own_world import ArithmeticTeacher, ask, write_world
from small_training import TRAIN_HERE

from qatoolkit.core.text import normalise
from qatoolkit.run import stages
from qatoolkit.run.profiles import load_profile
from qatoolkit.run.stages.data import exam_tables
from qatoolkit.run.stages.evaluation import by_weakness
from qatoolkit.run.store import open_run

CODE = """
import json, sys
import qatoolkit as qt

arms = dict.fromkeys(["seeds_only", "boostqa_untargeted", "boostqa_linkqa"])
pairs = [["boostqa", "base"], ["boostqa", "general_control"], ["linkqa", "boostqa"]]
run = qt.open_run("mine", profile=sys.argv[1], arms=arms, compare=pairs)
qt.stages.run_to(run, "summary")
qt.stages.ablations(run)
measured = qt.stages.pass_rates(run).questions
rounds = qt.stages.rounds(run)
parts = qt.stages.attribution(run, "difficulty", tokens=4_000).parts
figures = qt.save_figures(run)
textbook = sorted(name for name in sys.modules if name.startswith("qatoolkit.textbook"))
weak = run.read("plan").weak
print(json.dumps({
    "exams": list(qt.tables.exams(run)),
    "labels": run.read("annotate").exam_labels["difficulty"].notna().sum().item(),
    "axes": run.read("scaling").points.groupby("axis")["x"].nunique().to_dict(),
    "flops": run.read("scaling").points.query("axis == 'initial_flops'")["x"].unique().tolist(),
    "general": run.read("evaluate").general["bits_per_byte"].tolist(),
    "probes": sorted(run.read("midtrain").probes["tokens"].unique().tolist()),
    "settings": qt.tables.chosen_settings(run).set_index("setting")["value"].astype(str).to_dict(),
    "seeds": qt.tables.training_seeds(run)["seed"].tolist(),
    "measured": measured["pass_student"].between(0, 1).all().item(),
    "rounds": sorted(rounds.comparisons["b"].unique()),
    "trained without": parts.loc[parts["reason"].isna(), "part"].tolist(),
    "preview": qt.preview(run, 3).questions["outcome"].tolist(),
    "figures": figures,
    "textbook": textbook,
}))
"""


@pytest.fixture
def teacher():
    server = ArithmeticTeacher()
    yield server
    server.close()


def environment(folder) -> dict:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    return kept | {"QATOOLKIT_RESULTS": str(folder / "results"), "HF_HUB_OFFLINE": "1"}


@pytest.mark.timeout(300)
def test_the_whole_loop_runs_in_a_world_of_its_own_without_the_textbook(tmp_path, teacher):
    profile = write_world(tmp_path / "mine", teacher.url)
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_HERE + CODE, profile],
        capture_output=True,
        text=True,
        env=environment(tmp_path) | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["exams"] == ["final"]
    assert found["labels"] == 32  # every exam question got its labels from the annotator
    assert found["axes"] == {"initial_flops": 2, "parameters": 2, "tokens": 2}
    assert found["flops"][1] == pytest.approx(10 * found["flops"][0], rel=0.01)  # 6 N D: ten times the tokens
    assert len(found["general"]) == 4
    assert all(0 < bits < 20 for bits in found["general"])
    assert found["probes"][0] == 0
    assert len(found["probes"]) >= 4
    assert float(found["settings"]["learning_rate"]) == pytest.approx(1e-2, rel=0.5)  # of a model this small
    assert found["seeds"] == ["0", "1", *["mean of 2"] * 3] * 2
    assert found["measured"]
    assert found["rounds"] == ["base", "general_control", "one_pass"]
    assert len(found["trained without"]) >= 1
    assert len(found["preview"]) >= 3
    assert {"probe", "comparisons", "scaling", "ablations", "probes", "kp_degree"} <= set(found["figures"])
    assert found["textbook"] == ["qatoolkit.textbook", "qatoolkit.textbook.settings"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_notebook_and_the_report_run_in_a_world_of_its_own(tmp_path, teacher):
    profile = write_world(tmp_path / "mine", teacher.url)
    command = [sys.executable, "-m", "qatoolkit.run.cli", "run", "--profile", profile]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(tmp_path))
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    folder = tmp_path / "results" / "mine"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "final" in page
    assert "textbook" not in page.lower()
    assert sorted(p.name for p in (folder / "export" / "boostqa").iterdir())


def test_missing_parts_are_asked_for_by_name_before_anything_is_spent(tmp_path, teacher):
    run = open_run("mine", profile="own", root=tmp_path / "results")
    with pytest.raises(ValueError, match="does not set") as error:
        stages.run_to(run, "annotate")
    for part in ("seeds.sources", "exams", "general.sources", "student.checkpoint", "teacher.base_url"):
        assert part in str(error.value)
    assert not teacher.asked
    assert not (tmp_path / "results" / "stages").exists()


def test_a_named_file_that_does_not_exist_is_said_before_anything_is_spent(tmp_path, teacher):
    profile = write_world(tmp_path / "mine", teacher.url)
    (tmp_path / "mine" / "text" / "numbers.txt").rename(tmp_path / "moved.txt")
    (tmp_path / "mine" / "text").rmdir()
    with pytest.raises(ValueError, match=r"general\.sources names .*text, which does not exist"):
        stages.run_to(open_run("mine", profile=profile, root=tmp_path / "results"), "annotate")
    assert not teacher.asked


def _without_eos(folder):
    config = folder / "student" / "tokenizer_config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({k: v for k, v in settings.items() if k != "eos_token"}))


def _with_pickles(folder):
    (folder / "small" / "model.safetensors").rename(folder / "small" / "pytorch_model.bin")


def _with_more_tokens(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "student-early")
    tokenizer.add_tokens([f"<more {i}>" for i in range(40)])
    tokenizer.save_pretrained(folder / "student-early")


@pytest.mark.parametrize(
    ("breaks", "dials", "said"),
    [
        (_without_eos, {}, r"student: its tokenizer has no end-of-text token"),
        (_with_pickles, {}, r"small has its weights only in the pickle pytorch_model\.bin"),
        (_with_more_tokens, {}, r"student-early: its tokenizer has ids up to .* but its embedding has"),
        (lambda f: (f / "text" / "numbers.txt").write_text("\n \n"), {}, r"general\.sources: .*text has no text"),
        (
            lambda f: (f / "text" / "more.txt").write_bytes(b"caf\xe9"),
            {},
            r"general\.sources: .*more\.txt is damaged or",
        ),
        (lambda f: (f / "exam.jsonl").unlink(), {}, r"exams\.final names .*exam\.jsonl, which does not exist"),
        (
            lambda f: None,
            {"student.launch": "no-such-command run"},
            r"student\.launch: no-such-command is not a command",
        ),
        (lambda f: None, {"exams.final.fewshot": 99}, r"exams\.final: fewshot is 99, but .* 32 question"),
        (lambda f: None, {"exams.final.metric": "acc_foo"}, r"exams\.final: metric is 'acc_foo'"),
    ],
)
def test_a_part_that_would_stop_the_run_later_is_said_before_anything_is_spent(tmp_path, teacher, breaks, dials, said):
    profile = write_world(tmp_path / "mine", teacher.url)
    breaks(tmp_path / "mine")
    with pytest.raises((ValueError, OSError), match=said):
        stages.run_to(open_run("mine", profile=profile, root=tmp_path / "results", **dials), "annotate", log=str)
    assert not teacher.asked
    if not dials:
        command = [sys.executable, "-m", "qatoolkit.run.cli", "plan", "--profile", profile]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(tmp_path), cwd=ROOT)
        assert done.returncode in (1, 2)
        assert done.stderr.startswith("qatoolkit: ")


def test_the_numbers_of_another_profile_do_not_carry_over_to_a_checkpoint(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("profile: demo\nstudent: {checkpoint: some/model, batch: 4}\n", encoding="utf-8")
    found = load_profile(mine)
    assert found.student.batch == 4  # given
    assert found.midtrain.learning_rate is None
    assert found.student.block is None
    assert load_profile("demo", **{"student.size": "s"}).midtrain.learning_rate == 5e-3


def write_tasks(folder, rows: list[dict]) -> None:
    """A folder with an lm-eval task of one's own."""
    folder.mkdir()
    lines = [{"q": r["question"], "options": r["choices"], "gold": r["choices"].index(r["answer"])} for r in rows]
    (folder / "sums.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (folder / "sums.yaml").write_text(
        f"""
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder / "sums.jsonl"}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{{{q}}}}\\nA:"
doc_to_choice: options
doc_to_target: gold
metric_list: [{{metric: acc}}]
""",
        encoding="utf-8",
    )


@pytest.mark.timeout(300)
def test_a_probe_on_exams_plans_nothing_from_what_is_sealed(tmp_path, teacher, trained_here, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    profile = write_world(tmp_path / "mine", teacher.url)
    write_tasks(tmp_path / "tasks", [ask(a, "plus", b) for a in range(2, 12) for b in (3, 5, 7)])
    dials = {
        "probe": {"on": "exams", "every": 0},
        "exams": {"tasks": str(tmp_path / "tasks")},
        "arms": {"general_control": None, "seeds_only": None, "linkqa": None, "boostqa_linkqa": None},
        "compare": (("boostqa", "base"),),
        "ablations": (),
    }
    run = open_run("mine", profile=load_profile(profile, **dials), root=tmp_path / "results")
    stages.run_to(run, "evaluate", log=str)
    probed, sealed = run.read("exams").probe_questions, exam_tables(run)
    assert set(sealed) == {"final", "tasks"}
    assert set(probed["exam"]) == {"final", "tasks"}
    questions = {normalise(q) for table in sealed.values() for q in table["question"]}
    assert not questions & set(probed["question"].map(normalise))
    assert set(run.read("probe").samples["id"]) == set(probed["id"])
    examined = run.read("evaluate").samples
    assert set(examined["id"]) == {id for table in sealed.values() for id in table["id"]}
    assert (examined["difficulty"] != "unlabelled").all()  # the annotator labelled both exams

    # Other right answers in the sealed part change nothing of the plan.
    lines = [json.loads(line) for line in (tmp_path / "mine" / "exam.jsonl").read_text().splitlines()]
    for line in lines:
        if normalise(line["question"]) in questions:
            line["answer"] = next(c for c in line["choices"] if c != line["answer"])
    (tmp_path / "mine" / "exam.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = open_run("again", profile=load_profile(profile, **dials), root=tmp_path / "results")
    stages.run_to(again, "plan", log=str)
    assert not again.read("exams").final["answer"].equals(run.read("exams").final["answer"])
    for name in ("budget", "weak", "weak_disciplines"):
        pd.testing.assert_frame_equal(getattr(again.read("plan"), name), getattr(run.read("plan"), name))


def test_a_learning_rate_far_above_the_usual_is_refused_before_anything_is_spent(tmp_path, teacher):
    profile = write_world(tmp_path / "mine", teacher.url)
    high = open_run("mine", profile=profile, root=tmp_path / "results", **{"midtrain.learning_rate": 0.5})
    with pytest.raises(ValueError, match=r"midtrain\.learning_rate is 0\.5.*accept_rate"):
        stages.run_to(high, "annotate", log=str)
    assert not teacher.asked
    twice = {"midtrain.learning_rate": 0.5, "midtrain.accept_rate": True}
    stages.run_to(open_run("mine", profile=profile, root=tmp_path / "results", **twice), "seeds", log=str)


def test_exam_questions_without_a_discipline_count_as_neither_weak_nor_other():
    samples = pd.DataFrame(
        {
            "discipline": ["physics", "physics", "law", "unlabelled", "physics"],
            "difficulty": ["H1", "H2", "unlabelled", "unlabelled", "unlabelled"],
        }
    )
    weak = pd.DataFrame({"discipline": ["physics", "physics"], "difficulty": ["H1", "unlabelled"]})
    found = {name: list(rows.index) for name, rows in by_weakness(samples, weak).items()}
    assert found == {"weak": [0, 4], "other": [1, 2], "all": [0, 1, 2, 3, 4]}
