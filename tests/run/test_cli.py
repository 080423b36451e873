"""Commands that look at settings and at what no run needs."""

import pytest

from qatoolkit.core.settings import dials
from qatoolkit.run.cli import main
from qatoolkit.run.contracts import stage
from qatoolkit.run.profiles import Profile
from qatoolkit.run.store import open_run


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
