"""Commands that look at settings and at what no run needs."""

import json
import shlex

import pytest

import qatoolkit
from qatoolkit.core.settings import dials
from qatoolkit.run import cli
from qatoolkit.run.cli import main
from qatoolkit.run.contracts import stage
from qatoolkit.run.profiles import Profile, load_profile
from qatoolkit.run.store import open_run
from qatoolkit.seeds.read import read_seeds


def test_every_dial_has_a_meaning_and_is_printed(capsys):
    assert main(["settings"]) == 0
    said = capsys.readouterr().out
    for name, field in dials(Profile):
        assert field.description, name
        assert f"{name} = " in said


def test_a_group_of_dials_is_printed_with_values_and_ranges(capsys):
    assert main(["settings", "plan", "--profile", "smoke"]) == 0
    said = capsys.readouterr().out
    assert "plan.questions = 120  [int above 0]" in said
    assert "boostqa" not in said
    assert main(["settings", "plans"]) == 2
    assert "'plans'; there are name, world, textbook" in capsys.readouterr().err


@pytest.mark.parametrize("answer", ["n\n", "y\n"])
def test_clean_removes_only_what_no_run_points_to_and_only_after_asking(tmp_path, monkeypatch, capsys, answer):
    @stage("seeds", settings=("plan",))
    def seeds(run, folder):
        return {"value": run.profile.plan.questions}

    monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path))
    for questions in (7, 9):
        seeds(open_run("trial", profile="smoke", change=True, **{"plan.questions": questions}), log=str)
    monkeypatch.setattr("typer.confirm", lambda text: answer == "y\n")
    assert main(["clean"]) == 0
    assert "seeds/" in capsys.readouterr().out
    assert len(list((tmp_path / "stages" / "seeds").glob("[!.]*"))) == (1 if answer == "y\n" else 2)
    assert open_run("trial", profile="smoke", **{"plan.questions": 9}).read("seeds").value == 9


def test_a_wrong_option_is_one_line_and_exit_code_2(capsys):
    assert main(["run", "--profil", "smoke"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_missing_parts_end_a_run_at_once_before_a_hub_is_asked(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path / "results"))
    assert main(["run", "--profile", "paper"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "seeds.sources" in line
    assert "general.sources" in line
    assert "Llama" not in line
    assert not (tmp_path / "results").exists()


def test_version_and_what_a_mistyped_command_may_have_meant(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"qatoolkit {qatoolkit.__version__}\n"
    assert main(["statsu"]) == 2
    assert "Did you mean 'status'?" in capsys.readouterr().err
    assert main(["xyzzy"]) == 2
    assert "Did you mean" not in capsys.readouterr().err


def test_a_command_that_takes_long_says_that_it_works(capsys, monkeypatch):
    monkeypatch.setattr(cli, "PATIENCE", 0.0)
    assert main(["settings", "probe"]) == 0
    assert "qatoolkit: working on it …" in capsys.readouterr().err
    monkeypatch.setattr(cli, "PATIENCE", 60.0)
    assert main(["settings", "probe"]) == 0
    assert capsys.readouterr().err == ""


def test_the_command_after_a_new_study_can_be_pasted_whatever_its_name(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "my study"]) == 0
    command = capsys.readouterr().out.partition("then: ")[2]
    assert shlex.split(command) == ["qatoolkit", "plan", "--profile", "my study/my study.yaml"]


def test_a_new_study_can_be_planned_at_once_and_nothing_is_overwritten(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "my-study"]) == 0
    assert "qatoolkit plan --profile my-study/my-study.yaml" in capsys.readouterr().out
    profile = load_profile("my-study/my-study.yaml")
    assert len(read_seeds(profile.seeds.sources)[0]) == 2
    assert len(read_seeds([profile.exams["mine"].source])[0]) == 1
    notebook = json.loads((tmp_path / "my-study" / "my-study.ipynb").read_text())
    assert any('PROFILE = "my-study.yaml"\n' in cell["source"] for cell in notebook["cells"])
    assert notebook["cells"][0]["source"][0] == "# my-study\n"
    assert ".ipynb)" not in json.dumps(notebook)
    assert main(["new", "my-study"]) == 2
    assert "is not empty" in capsys.readouterr().err
