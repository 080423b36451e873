"""Findings are computed from saved tables, and say of a difference what its interval shows."""

import re

import pandas as pd
import pytest

import qatoolkit as qt
from qatoolkit.core.stats import difference_of_shares
from qatoolkit.run.findings import TRIAL, list_findings
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
    told = "a gain" if row["low"] > 0 else "a loss" if row["high"] < 0 else "no clear difference"
    assert f"in weak cells ({told})" in said


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
