"""Acceptance by measured difficulty: what the bounds leave, with everything else a counted reject, in a run and by hand."""

import json
import warnings

import pandas as pd
import pytest
from own_world import ArithmeticTeacher, write_world
from scipy.stats import spearmanr
from teacher_server import failure

import qatoolkit as qt
from qatoolkit.core.qa_table import COLUMNS
from qatoolkit.core.stats import rank_correlation
from qatoolkit.evaluation.settings import MeasureSettings
from qatoolkit.run.answer_counts import Incomplete
from qatoolkit.run.cost import requests
from qatoolkit.run.lineage import rows_of
from qatoolkit.run.profiles import ARMS, load_profile
from qatoolkit.run.store import MissingUpstream
from qatoolkit.synthesis import boostqa
from qatoolkit.synthesis.settings import BoostQASettings, PlanSettings

GAP = {"measure.k": 2, "measure.strong_at_least": 0.75, "measure.student_at_most": 0.5}


class Strong(ArithmeticTeacher):
    """Knows sums and differences, gets products wrong, and fails on those that end in `fails`."""

    fails = None

    async def _handle(self, request):
        body = await request.json()
        task, question = body["messages"][0]["content"], json.loads(body["messages"][1]["content"]).get("question", "")
        if self.fails and "solve" in task and question.endswith(self.fails):
            return failure(503)
        return await super()._handle(request)

    def _solve(self, given):
        return {"answer": "0"} if "times" in given["question"] else super()._solve(given)


@pytest.fixture(scope="module")
def server():
    server = Strong()
    yield server
    server.close()


@pytest.fixture(scope="module")
def run(server, tmp_path_factory):
    """A run of the arithmetic world up to its plan, with a data set that is accepted by gap."""
    folder = tmp_path_factory.mktemp("measured")
    profile = write_world(folder, server.url)
    gap = {"strategy": "boostqa", "dials": GAP}
    arms = dict.fromkeys(ARMS) | {"gap": ["gap"]}
    few = {"arms": arms, "compare": (), "ablations": (), "plan.questions": 30}
    run = qt.open_run("gap", profile=profile, root=folder / "results", data={"gap": gap}, **few)
    qt.stages.run_to(run, "plan", log=str)
    return run


@pytest.fixture(scope="module")
def written(run):
    return qt.stages.synthesise(run, "gap", log=str)


def test_what_the_strong_model_does_not_pass_is_a_reject_with_both_rates(run, written):
    rejects = written.rejects[written.rejects["reason"] == "gap"]
    assert sorted([*written.questions["id"], *rejects["id"]]) == sorted(written.made["id"])  # nothing is lost
    assert rejects["question"].str.contains("times").all()
    assert not written.questions["question"].str.contains("times").any()
    assert len(rejects)
    assert len(written.questions)
    detail = rejects["detail"].iloc[0]
    assert detail.startswith("strong passes 0, student passes ")
    assert detail.endswith("; strong_at_least 0.75, student_at_most 0.5")
    assert written.refinement["rejected"] == 0  # of refinement alone
    assert "gap" in repr(qt.findings(run, "gap"))


def test_rates_stay_with_the_rows_through_curation_and_onto_the_card(run, written, tmp_path):
    kept = qt.stages.curate(run, log=str).gap
    assert list(kept)[: len(COLUMNS)] == list(COLUMNS)
    rates = kept.merge(written.questions[["id", "pass_student"]], on="id")
    assert (rates["pass_student_x"] == rates["pass_student_y"]).all()
    assert (kept["pass_strong"] == 1).all()
    card = (qt.release(run, "gap", tmp_path / "set") / "README.md").read_text()
    assert "`pass_strong_n` | measured pass rate" in card


def test_calls_that_measure_are_in_the_lineage_and_priced_before_and_after(run, written):
    steps = rows_of(run, "gap")["calls"].explode().str.split("/").str[0]
    assert (steps == "solve").sum() >= 2 * len(written.made)
    after = qt.tables.difficulty_estimate(run, "gap")
    assert after["requests"] == after["answered"] == 2 * len(written.questions)
    seeds = qt.tables.difficulty_estimate(run)
    assert seeds["requests"] == 0  # the profile itself does not measure
    planned = requests(run.profile).set_index(["stage", "task"])["requests"]
    assert planned["gap", "measure"] == 2 * 30
    assert ("boostqa", "measure") not in planned


def test_a_strong_model_that_is_out_of_reach_leaves_the_stage_incomplete(run, written, server, monkeypatch):
    monkeypatch.setattr(server, "fails", "7?")
    other = qt.open_run(
        "out", profile=run.profile, root=run.root, **GAP | {"measure.strong": "another", "teacher.attempts": 1}
    )
    with warnings.catch_warnings(action="ignore"):
        qt.stages.run_to(other, "plan", log=str)
        with pytest.raises(Incomplete, match=r"boostqa is incomplete: .*http_503"):
            qt.stages.synthesise(other, "boostqa", log=str)
    monkeypatch.setattr(server, "fails", None)
    asked = server.asked.count("solve")
    qt.stages.synthesise(other, "boostqa", log=str)
    assert 0 < server.asked.count("solve") - asked < 30  # what is missing alone


def test_seeds_are_measured_by_level_and_the_figure_draws_them(run):
    with pytest.raises(MissingUpstream, match=r"no measured seeds yet: run notebooks/03_probe\.ipynb"):
        qt.tables.difficulty_agreement(run)
    assert "not measured" in qt.draw(run, "pass_rates")
    measured = qt.stages.pass_rates(run, log=str).questions
    levels = qt.tables.pass_rates_by_level(run)
    assert levels["n"].sum() == len(measured)
    assert set(levels["form"]) == {"choices"}
    probed = run.read("probe").samples.set_index("id")["probability"]
    assert measured.set_index("id")["pass_student"].to_dict() == pytest.approx(probed.to_dict(), rel=1e-4)
    assert qt.draw(run, "pass_rates").axes
    assert "rank correlation" in repr(qt.findings(run, "pass_rates"))


def test_a_plan_by_measurement_spends_by_pass_rate_and_begins_with_the_hardest_seeds(run):
    other = qt.open_run("rates", profile=run.profile, root=run.root, **{"plan.by": "measured"})
    qt.stages.run_to(other, "plan", log=str)
    plan = other.read("plan").budget
    expected = (0.75 - plan["probability"]).clip(lower=0).where(plan["n"] >= 2, 0)
    assert plan["deficit"].tolist() == pytest.approx(expected.tolist())
    assert not plan["deficit"].equals(run.read("plan").budget["deficit"])
    made, samples = qt.stages.synthesise(other, "boostqa", log=str).made, other.read("probe").samples
    rates = samples.set_index("id")["probability"]
    easiest = samples.loc[samples.groupby("discipline")["probability"].idxmax(), "id"]
    assert not set(made["parents"].str[0]) & set(easiest)
    assert rates[made["parents"].str[0].unique()].mean() < rates.mean()


def test_seeds_without_a_rate_come_last_and_without_rates_nothing_changes():
    seeds = qt.qa_table(
        [{"question": f"{i}?", "answer": "1"} for i in range(4)],
        language="en", source="s", discipline="law", difficulty="H4", grade="high",
    )  # fmt: skip
    plan = pd.DataFrame({"discipline": ["law"], "difficulty": ["H4"], "budget": [8]})
    rated = boostqa.requests(seeds.assign(pass_student=[0.9, None, 0.1, 0.5]), plan, BoostQASettings())
    assert [p[0] for p in rated["parents"]] == [seeds["id"][i] for i in (2, 3, 0, 1)]
    plain, unrated = (boostqa.requests(s, plan, BoostQASettings()) for s in (seeds, seeds.assign(pass_student=None)))
    assert plain["parents"].tolist() == unrated["parents"].tolist()


def test_a_plan_by_measurement_needs_probabilities():
    grid = pd.DataFrame({"discipline": ["law"], "difficulty": ["H1"], "n": [40], "accuracy": [0.5]})
    with pytest.raises(ValueError, match=r"plan\.by is measured, but the probe has no probabilities"):
        qt.plan_budget(grid, PlanSettings(by="measured"))


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"strong_at_least": 0.5}, "strong_at_least is 0.5, but k is 0, so nothing is measured: set k too"),
        ({"student": "samples"}, "student is 'samples', but k is 0"),
        ({"k": 2, "student_at_least": 0.9, "student_at_most": 0.5}, "student_at_least is 0.9; it must be at most"),
        ({"k": 2, "student_at_most": 12}, "student_at_most is 12; it must be float between 0 and 1"),
    ],
)
def test_bounds_that_cannot_be_met_or_do_nothing_are_refused(settings, error):
    with pytest.raises(ValueError, match=error):
        MeasureSettings(**settings)
    with pytest.raises(ValueError, match=f"measure.{error}"):
        load_profile("smoke", measure=settings)


def test_agreement_is_spearman_by_form_and_says_nothing_of_what_does_not_vary():
    rows = [{"question": f"{i}?", "answer": "1", "difficulty": f"H{1 + i % 5}", "discipline": "law"} for i in range(40)]
    table = qt.qa_table(rows, language="en", source="s")
    table["choices"] = [["1", "2"] if i < 20 else None for i in range(40)]
    table["pass_m"] = [1 - (i % 5) / 10 if i < 20 else 0.0 for i in range(40)]
    table["pass_m_low"] = None
    found = qt.tables.difficulty_agreement(table).set_index(["form", "on"])
    assert found.loc[("choices", "all"), ["n", "correlation", "low", "high"]].tolist() == pytest.approx(
        [20, -1, -1, -1]
    )
    assert found.loc[("open", "law"), "n"] == 20
    assert found.loc[("open", "law"), ["correlation", "low", "high"]].isna().all()
    x, y = [1, 2, 2, 4, 5, 9], [3.0, 1.0, 4.0, 1.0, 5.0, 9.0]
    assert rank_correlation(x, y)["correlation"] == pytest.approx(spearmanr(x, y).statistic)
