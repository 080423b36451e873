"""What survives each step is counted by what was asked for, and paid for once; a preview is part of the whole."""

import pandas as pd
import pytest
from planned_run import Counting, plan_of, planned_run

import qatoolkit as qt
from qatoolkit.core.stats import wilson
from qatoolkit.run import stages
from qatoolkit.run.cost import YIELD, requests, yields
from qatoolkit.teacher.ledger import Ledger

PRICES = {"writer": "deepseek-reasoner", "checker": "deepseek-chat"}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The run, its outputs of BoostQA, a preview made before them, and requests by text."""
    server = Counting()
    plan = plan_of(mathematics_H3=15, mathematics_H4=40, law_H1=5)
    arms = dict.fromkeys(("seeds_only", "general_control", "boostqa_untargeted", "linkqa", "boostqa_linkqa"))
    run = planned_run(tmp_path_factory.mktemp("survival"), server.url, plan, arms=arms)
    preview = qt.preview(run, 3)
    before = run.done()
    outputs = stages.synthesise(run, "boostqa", log=str)
    yield run, outputs, preview, before, server.answered
    server.close()


def test_steps_are_nested_and_counted_by_what_was_asked_for(found):
    run, outputs, *_ = found
    table = qt.tables.survival(run).set_index(["difficulty", "step"])
    assert table.loc[("all", "asked"), "n"] == 60
    assert table.loc[("H1", "written"), "n"] == 0  # law has no seeds
    levels = table["n"].unstack()
    assert levels.drop("all").sum().tolist() == levels.loc["all"].tolist()
    assert (levels["written"] >= levels["read"]).all()
    assert (levels["read"] >= levels["at its level"]).all()
    assert (levels["at its level"] >= levels["refined"]).all()
    made = outputs.made
    hard = made[made["asked_difficulty"] == "H4"]
    assert levels.loc["H4", "at its level"] == (hard["difficulty"] >= "H4").sum() < len(hard) + 1
    assert levels.loc["H4", "written"] == len(hard)  # a question asked for again counts once
    row = table.loc[("H4", "refined")]
    assert (row["low"], row["high"]) == wilson(row["n"], len(hard))


def test_every_request_is_counted_at_one_step_and_has_its_price(found):
    run, outputs, *_ = found
    table = qt.tables.survival(run, priced_as=PRICES).set_index(["difficulty", "step"])
    whole = qt.cost_per_question(run, priced_as=PRICES)
    assert table.loc["all", "requests"].sum() == pytest.approx(whole["requests"].sum())
    assert table.loc["all", "usd"].sum() == pytest.approx(whole["usd"].sum())
    again = outputs.made["attempt"].eq(2).sum() + outputs.rejects["reason"].eq("degraded_again").sum()
    assert again
    assert table.loc[("H4", "at its level"), "requests"] == pytest.approx(2 * again)  # written and labelled once more
    assert table.loc["H3", "requests"].drop(["written", "read", "refined"]).sum() == 0


def test_cells_survive_too_and_curation_adds_its_steps(found):
    run = found[0]
    assert set(qt.tables.survival(run)["step"]) == {"asked", "written", "read", "at its level", "refined"}
    assert "refined at the level" in repr(qt.findings(run, "survival"))
    stages.curate(run, log=str)
    table = qt.tables.survival(run, by=["discipline", "difficulty"]).set_index(["discipline", "difficulty", "step"])[
        "n"
    ]
    kept = run.read("curate").boostqa
    total = table.sort_index()["all", "all"]
    assert total["accepted"] + total["elsewhere"] == len(kept)
    assert total["accepted"] <= total["curated"] <= total["refined"]
    assert qt.draw(run, "survival").axes


def test_a_preview_makes_no_stage_and_is_paid_for_once(found):
    _, _, preview, before, answered = found
    assert "boostqa" not in before
    assert max(answered.values()) == 1
    assert len(preview.questions) == len(preview.lineages) >= 3
    assert (preview.questions["asked_difficulty"].iloc[0], preview.questions["asked_discipline"].iloc[0]) == (
        "H4",  # the weakest cell that can be asked for
        "mathematics",
    )
    assert set(preview.questions["outcome"]) <= {"accepted", "degraded", "degraded_again"}


def test_a_preview_prices_the_whole_by_what_it_took(found):
    preview = found[2]
    assert preview.planned == 60
    ratio = preview.whole["prompt_tokens"] / preview.spent["prompt_tokens"]
    assert ratio.round(6).unique().tolist() == [round(60 / preview.asked, 6)]
    calls = pd.concat([one.calls for one in preview.lineages])
    assert preview.spent["requests"].sum() == calls["key"].nunique()
    assert preview._repr_html_().count("<details>") > len(preview.questions)


def test_a_preview_of_what_is_not_there_is_explained(found):
    run = found[0]
    with pytest.raises(ValueError, match="no data set is called 'nonsense'; there are boostqa"):
        qt.preview(run, name="nonsense")


def test_the_estimate_counts_accepted_questions_where_there_are_waves(found):
    run = found[0]
    waves = qt.load_profile("smoke", **{"plan.waves": 4, "plan.questions": 700})
    table = requests(waves).set_index(["stage", "task"])
    written = table.loc[["boostqa", "boostqa_untargeted", "linkqa", "variants/linkqa"]]
    assert set(written["source"]) == {"assumed"}
    asked = int(-(-700 // YIELD))
    assert table.loc[("boostqa", "refine"), "requests"] == asked * 2
    known = yields(run.root)
    kept = run.read("boostqa").questions
    as_asked = (kept["discipline"] == kept["asked_discipline"]) & (kept["difficulty"] == kept["asked_difficulty"])
    assert known["boostqa"] == as_asked.sum() / len(run.read("boostqa").made)
    with Ledger(run.root / "ledger.sqlite") as ledger:
        estimated = qt.tables.spend_estimate(run)
        assert "yield" not in estimated  # one pass
        measured = requests(waves, known).set_index(["stage", "task"])
        assert measured.loc[("boostqa", "refine"), "source"] == "measured"
        assert ledger.spend()["attempts"].sum() == sum(found[-1].values())
