"""A run remembers its profile, dials and seed, and is not changed without a word."""

import pandas as pd
import pytest

from qatoolkit.core.artifacts import write_sealed
from qatoolkit.run import cli
from qatoolkit.run.contracts import stage
from qatoolkit.run.profiles import load_profile
from qatoolkit.run.remembered import remembered
from qatoolkit.run.store import Run, open_run

made = []


@stage("seeds", settings=("plan", "textbook"))
def seeds(run, folder):
    made.append(run.profile.plan.questions)
    return {"seeds": pd.DataFrame({"n": range(run.profile.plan.questions)})}


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path))
    made.clear()
    return tmp_path


def test_a_finished_run_opened_under_another_profile_names_what_differs_and_the_word(results):
    seeds(open_run("demo", profile="demo"), log=str)
    with pytest.raises(ValueError, match="run 'demo' was made with other settings") as caught:
        open_run("demo", profile="smoke")
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert "profile was 'demo' and is 'smoke'; textbook.entities was 6 and is 4" in said
    assert " more. Open it as it is with profile=None" in said
    assert "change=True (--change)" in said


def test_without_a_profile_a_run_is_opened_as_it_was_made(results, tmp_path):
    (tmp_path / "mine.yaml").write_text("profile: smoke\nplan: {questions: 77}\n")
    first = open_run("mine", profile=tmp_path / "mine.yaml", seed=3, **{"plan.low_n": 5})
    seeds(first, log=str)
    again = open_run("mine")
    assert (again.profile, again.seed, again.command) == (first.profile, 3, first.command)
    assert seeds(again, log=str).skipped
    assert again.changed("seeds") == []


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"plan.questions": 9}, "plan.questions was 120 and is 9"),
        ({"profile": "demo"}, "profile was 'smoke' and is 'demo'"),
        ({"ablations": ()}, "ablations was [{'boostqa.refine'"),
        ({"world": object()}, "world was None and is 'object'"),
    ],
)
def test_every_way_to_open_it_otherwise_is_named(how, named):
    seeds(open_run("trial", profile="smoke"), log=str)
    with pytest.raises(ValueError, match="was made with other settings") as caught:
        open_run("trial", **{"profile": "smoke"} | how)
    assert named in str(caught.value)


def test_with_the_word_it_changes_and_a_change_back_finds_the_old_result(results):
    seeds(open_run("trial", profile="smoke"), log=str)
    changed = open_run("trial", change=True, **{"plan.questions": 9})
    assert remembered(changed.folder)["settings"]["plan"]["questions"] == 120  # opening writes nothing
    assert len(seeds(changed, log=str).seeds) == 9
    assert open_run("trial").profile.plan.questions == 9
    with pytest.raises(ValueError, match=r"plan\.questions was 9 and is 120"):
        open_run("trial", profile="smoke")
    assert seeds(open_run("trial", profile="smoke", change=True), log=str).skipped
    assert made == [120, 9]


def test_two_opened_before_the_first_stage_do_not_mix(results):
    """The second to finish a stage is told, as if it had been opened then."""
    one, other = open_run("trial", profile="smoke"), open_run("trial", profile="demo")
    seeds(one, log=str)
    with pytest.raises(ValueError, match="was made with other settings"):
        seeds(other, log=str)
    assert len(one.read("seeds").seeds) == 120


def test_a_variant_is_not_asked_for_the_word(results):
    run = open_run("trial", profile="smoke")
    seeds(run, log=str)
    assert len(seeds(run.variant("fewer", {"plan.questions": 9}), log=str).seeds) == 9
    assert len(open_run("trial", profile="smoke").read("seeds").seeds) == 120


def test_the_command_line_takes_the_remembered_profile_and_the_word(results, capsys, monkeypatch):
    seeds(open_run("trial", profile="smoke", seed=4), log=str)
    assert cli.main(["status", "--run", "trial"]) == 0
    assert "profile smoke, seed 4, 1 stages done" in capsys.readouterr().out
    told = []
    monkeypatch.setattr("qatoolkit.run.notebooks.run_notebooks", lambda run, profile, only: told.append(profile) or 0)
    assert cli.main(["run", "--run", "trial", "--profile", "demo"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "profile was 'smoke' and is 'demo'" in line
    assert cli.main(["run", "--run", "trial"]) == 0
    assert cli.main(["run", "--run", "trial", "--profile", "demo", "--change"]) == 0
    assert cli.main(["run", "--run", "new", "--profile", "demo"]) == 0
    assert cli.main(["run", "--run", "other"]) == 0
    assert told == [None, "demo", "demo", "demo"]
    assert open_run("trial").profile == load_profile("demo")  # for the notebooks


def test_settings_that_this_version_does_not_know_name_the_file(results):
    run = open_run("trial", profile="smoke")
    seeds(run, log=str)
    about = remembered(run.folder)
    about["settings"]["plan"]["colour"] = "red"
    write_sealed(about, run.folder / "run.json")
    with pytest.raises(ValueError, match=r"run\.json: no setting is called 'plan\.colour'"):
        open_run("trial")


def test_without_name_and_profile_it_is_the_finished_demo_else_smoke(monkeypatch):
    assert open_run().name == "smoke"
    demo = open_run("demo", profile="demo")
    seeds(demo, log=str)
    assert open_run().name == "smoke"  # the demo has other stages to make
    monkeypatch.setattr(Run, "stages", lambda self: {"seeds": "01_seeds"})
    assert open_run().name == open_run(None, profile=None, seed=0).name == "demo"  # as the tour opens it
    assert open_run(seed=1).name == open_run(profile="smoke").name == "smoke"


def test_a_new_run_with_the_name_of_a_profile_takes_that_profile():
    assert open_run("demo").profile == load_profile("demo")
    assert open_run("mine").profile.plan == load_profile("smoke").plan


def test_status_of_a_run_that_is_not_there_names_those_that_are(capsys):
    seeds(open_run("trial", profile="smoke"), log=str)
    assert cli.main(["status", "--run", "trail"]) == 2
    assert "no run is called 'trail'" in capsys.readouterr().err
    assert cli.main(["status", "--run", "trial"]) == 0
