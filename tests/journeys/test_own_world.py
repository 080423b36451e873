"""A user's own model, seeds, exam, text, checkpoints and teacher: every notebook, figure, report and card, and nothing of
the textbook."""

import json
import os
import subprocess
import sys

import pytest
from own_world import ArithmeticTeacher, write_world

from qatoolkit.run.profiles import load_profile
from qatoolkit.run.store import open_run

CODE = """
import json, sys
import qatoolkit as qt

run = qt.open_run("mine", profile=sys.argv[1])
qt.stages.run_to(run, "summary")
qt.stages.ablations(run)
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
        [sys.executable, "-c", CODE, profile], capture_output=True, text=True, env=environment(tmp_path)
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["exams"] == ["final"]
    assert found["labels"] == 32  # every exam question got its labels from the annotator
    assert found["axes"] == {"initial_flops": 2, "parameters": 2, "tokens": 2}
    assert found["flops"][1] == pytest.approx(10 * found["flops"][0], rel=0.01)  # 6 N D: ten times the tokens
    assert len(found["general"]) == 7
    assert all(0 < bits < 20 for bits in found["general"])
    assert found["probes"][0] == 0
    assert len(found["probes"]) >= 4
    assert float(found["settings"]["learning_rate"]) == pytest.approx(1e-2, rel=0.5)  # of a model this small
    assert found["seeds"] == ["0", "1", "mean of 2"] * 2
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
    from qatoolkit.run import stages

    with pytest.raises(ValueError, match="does not say") as error:
        stages.run_to(run, "annotate")
    for part in ("seeds.sources", "exams", "general.sources", "student.checkpoint", "teacher.base_url"):
        assert part in str(error.value)
    assert not teacher.asked
    assert not (tmp_path / "results" / "stages").exists()


def test_a_named_file_that_does_not_exist_is_said_before_anything_is_spent(tmp_path, teacher):
    profile = write_world(tmp_path / "mine", teacher.url)
    (tmp_path / "mine" / "text" / "numbers.txt").rename(tmp_path / "moved.txt")
    (tmp_path / "mine" / "text").rmdir()
    from qatoolkit.run import stages

    with pytest.raises(ValueError, match=r"general\.sources names .*text, which does not exist"):
        stages.run_to(open_run("mine", profile=profile, root=tmp_path / "results"), "annotate")
    assert not teacher.asked


def test_the_numbers_of_another_profile_do_not_carry_over_to_a_checkpoint(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("profile: demo\nstudent: {checkpoint: some/model, batch: 4}\n", encoding="utf-8")
    found = load_profile(mine)
    assert found.student.batch == 4  # given
    assert found.midtrain.learning_rate is None
    assert found.student.block is None
    assert load_profile("demo", **{"student.size": "s"}).midtrain.learning_rate == 5e-3
