"""What notebook 06 shows: every row once, by its reason; pairs that were merged beside pairs that were kept apart; mixtures and
releases of a finished run."""

from types import SimpleNamespace

import pandas as pd
import pytest

import qatoolkit as qt
from qatoolkit.core.qa_table import read_table
from qatoolkit.curate.settings import CurateSettings
from qatoolkit.run import tables as views
from qatoolkit.run.browse import questions
from qatoolkit.run.store import open_run

PLANET = "Which planet of the solar system has the {} mean distance from the sun, as far as is known today?"
WALL = "A painter paints a wall of {} metres in one hour; how many metres are painted in three hours of work?"


@pytest.fixture
def run():
    """Enough of a run for the tables: its curated sets, made by curation itself."""
    seeds = [
        (WALL.format(4), "12"),
        (WALL.format(5), "15"),
        ("Please tell me: " + WALL.format(4), "12"),
        (WALL.format(4), "13"),
    ]
    made = [
        (PLANET.format("smallest"), "Mercury"),
        (PLANET.format("largest"), "Neptune"),
        ("", "x"),
        ("What is DNA?", ""),
    ]
    outputs, reports = {}, []
    for name, rows in (("seeds", seeds), ("link", made)):
        table = pd.DataFrame(rows, columns=["question", "answer"])
        table = table.assign(id=[f"{name}{i}" for i in range(len(table))], language="en", source="own", strategy=name)
        outputs[name], outputs[f"{name}_rejects"], report = qt.curate.curate(table)
        reports.append(report.assign(dataset=name))
    stored = type("Stored", (SimpleNamespace,), {"__contains__": lambda self, name: hasattr(self, name)})(
        **outputs, report=pd.concat(reports, ignore_index=True)
    )
    profile = SimpleNamespace(used_sets=["seeds", "link"], curate=CurateSettings())
    return SimpleNamespace(read=lambda stage: stored, profile=profile, seed=0)


def test_removals_count_every_row_once_and_a_figure_draws_them(run):
    counts = views.removals(run)
    assert counts.set_index(["source", "reason"])["count"].to_dict() == {
        ("seeds", "accepted"): 2,
        ("seeds", "conflicting_answer"): 1,
        ("seeds", "near_duplicate"): 1,
        ("link", "accepted"): 2,
        ("link", "empty_answer"): 1,
        ("link", "empty_question"): 1,
    }
    assert (counts["rows_in"] == 4).all()
    qt.figures.seed_quality(counts)


def test_removed_questions_show_each_reason_and_near_pairs_both_outcomes(run):
    shown = views.removed_questions(run, "seeds", each=1)
    assert sorted(shown["reason"]) == ["conflicting_answer", "near_duplicate"]
    assert shown["detail"].str.contains("seeds0").all()
    pairs = views.near_pairs(run)
    assert pairs["set"].tolist() == ["seeds", "seeds", "link"]
    assert pairs["outcome"].iloc[2] == "kept apart"
    pairs = pairs[:2].set_index("outcome")
    assert pairs.loc["merged", ["first", "second"]].tolist() == [WALL.format(4), "Please tell me: " + WALL.format(4)]
    assert {*pairs.loc["kept apart", ["first", "second"]]} == {WALL.format(4), WALL.format(5)}


def test_diversity_has_a_line_for_each_set(run):
    found = views.diversity(run).set_index("set")
    assert list(found.index) == ["seeds", "link"]
    assert found["rows"].tolist() == [2, 2]


def test_a_finished_run_says_what_its_arms_read_and_what_other_ratios_would_give(smoke):
    run = open_run("smoke", root=smoke.results)
    table = views.mixture(run)
    assert set(table["arm"]) == {arm for arm, sets in run.profile.arms.items() if sets}
    assert table.groupby("arm")["realised share"].sum().tolist() == pytest.approx([1.0] * table["arm"].nunique())
    mixed = views.mixture(run, {"boostqa": 3, "linkqa": 1})
    assert mixed["requested share"].tolist() == [0.75, 0.25]
    assert mixed["realised share"].tolist() == pytest.approx([0.75, 0.25], abs=0.03)
    with pytest.raises(ValueError, match=r"max_epochs 0\.01 allows"):
        views.mixture(run, {"boostqa": 3, "linkqa": 1}, max_epochs=0.01)
    with pytest.raises(ValueError, match="no curated set 'other'"):
        views.mixture(run, {"other": 1})


def test_a_release_of_a_finished_run_has_what_the_run_recorded(smoke, tmp_path):
    run = open_run("smoke", root=smoke.results)
    folder = qt.release(run, "boostqa", tmp_path / "out", shard_rows=30, block=64)
    kept = run.read("curate").boostqa
    assert sum(len(read_table(path)) for path in folder.glob("train-*.parquet")) == len(kept)
    card = (folder / "README.md").read_text(encoding="utf-8")
    for part in (
        "Seeds that rows were written from",
        "## Costs",
        "## Contamination",
        "| verbatim | en |",
        "## Packed tokens",
        "Prompts they were written with",
        "Teachers",
        "| rejected |",
    ):
        assert part in card
    assert str(tmp_path) not in card
    with pytest.raises(ValueError, match="no curated questions of 'nothing'; the run curated boostqa"):
        qt.release(run, "nothing")


def test_browsing_a_finished_run_shows_why_curation_removed_a_question(smoke):
    run = open_run("smoke", root=smoke.results)
    shown, lost = questions(run), run.read("curate").boostqa_rejects
    found = shown[(shown["set"] == "boostqa") & shown["id"].isin(lost["id"])].set_index("id")
    for row in lost.to_dict("records"):
        assert found.loc[row["id"], ["outcome", "detail"]].tolist() == [row["reason"], row["detail"]]
    assert (shown.loc[shown["set"] == "boostqa", "outcome"] == "kept").sum() == len(run.read("curate").boostqa)


def test_a_run_tells_what_decontamination_finds_of_planted_exam_questions(smoke):
    run = open_run("smoke", root=smoke.results)
    found = run.read("curate").controls.set_index(["kind", "language"])
    plain = found.loc[["verbatim", "re-punctuated", "renumbered", "zero-width", "wraps"]]
    assert (plain["n"] > 0).all()
    assert (plain["recall"] >= 0.95).all()
    assert (found.loc["translated", "n"] > 0).all()  # all twelve kinds are planted
    assert (found.loc["translated", "recall"] < 0.9).all()  # a translation has no words of the exam
    assert (found["lost"] == 0).all()  # the curated set was cleaned before
    report = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Decontamination" in report
    assert "re-punctuated" in report
