"""Findings are computed from saved tables, and say of a difference what its interval shows."""

import re

import pandas as pd
import pytest

import qatoolkit as qt
from qatoolkit.core.stats import difference_of_shares
from qatoolkit.figures.style import arm_name
from qatoolkit.run.findings import TRIAL, list_findings
from qatoolkit.run.findings.phrases import meaning
from qatoolkit.run.store import open_run


@pytest.fixture
def run(smoke):
    return open_run("smoke", root=smoke.folder.parent)


def test_every_stage_has_a_finding_with_numbers_and_no_gaps(run):
    for stage in list_findings(run):
        said = repr(qt.findings(run, stage))
        assert re.search(r"\d", said), stage
        assert "nan" not in said.lower().replace("finance", ""), said
        assert said.endswith(TRIAL)
    everything = repr(qt.findings(run))
    assert everything.count(TRIAL) == 1
    assert "H4 and H5" in everything


def test_a_sentence_has_the_numbers_of_the_table(run):
    row = run.read("evaluate").comparisons.set_index(["a", "b", "on"]).loc[("boostqa", "base", "weak")]
    said = repr(qt.findings(run, "evaluate"))
    number = f"{100 * row['difference']:+.1f} points".replace("-", "−")
    assert f"{number} (" in said
    assert f"n {int(row['n']):,}) in weak cells" in said
    assert f"in weak cells ({meaning(row)})" in said
    for a, b in run.profile.compare:
        assert f"{arm_name(a)} compared with {arm_name(b)}: " in said


@pytest.mark.parametrize(
    ("low", "high", "p", "says"),
    [
        (0.01, 0.1, 0.02, "a gain"),
        (-0.1, -0.01, 0.02, "a loss"),
        (0.01, 0.1, 0.07, "not clear once corrected for the number of comparisons, p 0.07"),
        (-0.01, 0.1, 0.02, "no clear difference"),
    ],
)
def test_a_difference_is_called_clear_by_its_interval_and_its_corrected_p(low, high, p, says):
    assert meaning({"low": low, "high": high, "p_holm": p}) == says


def test_of_the_questions_planned_it_says_how_many_were_written_and_accepted_as_asked(run):
    made, cells = run.read("boostqa"), qt.tables.accepted_by_cell(run)
    said = repr(qt.findings(run, "boostqa", "survival"))
    assert f"of {cells['budget'].sum():,} questions planned" in said
    assert f"{len(made.questions):,} accepted" in said
    assert f"{cells['accepted'].sum():,} of {cells['budget'].sum():,} questions, and " in said
    assert (cells["accepted"] <= len(made.questions)).all()


def test_questions_written_from_seeds_that_an_exam_has_are_counted(run):
    stored = run.read("curate")
    in_exam = set(stored.seeds_rejects.query("reason == 'contaminated'")["id"])
    count = sum(not in_exam.isdisjoint(parents) for parents in stored.boostqa["parents"])
    flagged = stored.report.query("dataset == 'boostqa' and outcome == 'flagged' and reason == 'exam_parent'")
    assert flagged["rows"].sum() == count
    assert (f"BoostQA {count:,} of {len(stored.boostqa):,}" in repr(qt.findings(run, "curate"))) == (count > 0)


def test_the_table_of_arms_has_what_each_read_and_reached(run):
    table = qt.tables.arms(run).set_index("arm")
    assert set(table.index) == {"base", *run.profile.arms}
    assert table["weak accuracy"].is_monotonic_decreasing
    samples = run.read("evaluate").samples.query("arm == 'linkqa' and exam != 'textbook_math'").drop_duplicates("id")
    assert table.loc["linkqa", "all accuracy"] == pytest.approx(samples["correct"].mean())
    assert table.loc["linkqa", "questions"] == len(run.read("curate").linkqa)
    assert table.loc["general_control", "questions"] == table.loc["base", "questions"] == 0
    assert (table["weak accuracy low"] <= table["weak accuracy"]).all()


def test_a_stage_without_findings_is_named_with_those_that_have_some(run):
    with pytest.raises(ValueError, match="no findings of 'nope'; choose from seeds, annotate, probe, pass_rates, plan"):
        qt.findings(run, "nope")


def test_findings_of_a_stage_that_is_not_done_say_what_makes_it(tmp_path):
    with pytest.raises(RuntimeError, match="03_probe"):
        qt.findings(open_run("new", profile="smoke", root=tmp_path), "probe")
    assert repr(qt.findings(open_run("new", profile="smoke", root=tmp_path))) == ""


def test_hostile_names_in_findings_stay_text(run, monkeypatch):
    quality = pd.DataFrame(
        {"source": ["a", "a"], "rows_in": [2, 2], "reason": ["accepted", "<script>alert(1)</script>"], "count": [1, 1]}
    )
    monkeypatch.setattr(type(run), "read", lambda self, stage: type("Found", (), {"quality": quality}))
    assert "<script" not in qt.findings(run, "seeds").html


def test_the_interval_of_two_independent_shares_is_newcombe_s():
    found = difference_of_shares(56, 70, 48, 80)  # his example (a), method 10
    assert found["difference"] == pytest.approx(0.2)
    assert (found["low"], found["high"]) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))
    assert difference_of_shares(0, 0, 1, 2)["difference"] is None
