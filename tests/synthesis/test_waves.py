"""Budgets are met in accepted questions, wave by wave, or the reason is given; nothing is lost, nothing is paid twice."""

from collections import Counter

import pandas as pd
import pytest
from planned_run import Counting, plan_of, planned_run

import qatoolkit as qt
from qatoolkit.core.qa_table import qa_table
from qatoolkit.core.settings import Settings
from qatoolkit.run import stages
from qatoolkit.run.answer_counts import Incomplete
from qatoolkit.synthesis import linkqa
from qatoolkit.synthesis.strategies import Strategy, strategy


@pytest.fixture(scope="module")
def teacher():
    server = Counting()
    yield server
    server.close()


def toy(name: str, label):
    """A strategy that writes as many questions as a cell's budget; `label(level, nth)` is the level of the nth."""

    def write(context) -> dict:
        rows = []
        for cell in context.plan.itertuples():
            for nth in range(cell.budget):
                asked = f"What is {1000 * context.wave + nth} plus {ord(cell.difficulty[1]) * 10_007 + len(cell.discipline)}?"
                rows.append(
                    {"question": asked, "answer": f"{nth}{context.wave}", "discipline": cell.discipline}
                    | {"difficulty": label(cell.difficulty, nth), "strategy": name}
                    | {"asked_discipline": cell.discipline, "asked_difficulty": cell.difficulty}
                )
        made = qa_table(rows, language="en", source="synthetic", grade="high")
        made = made.join(pd.DataFrame(rows)[["asked_discipline", "asked_difficulty"]]).assign(attempt=1)
        made["calls"] = [[] for _ in rows]
        return {"made": made, "questions": made, "rejects": made[:0].assign(reason="", detail="")}

    qt.register(Strategy(name=name, settings=Settings, write=write, requests=lambda profile, n: (0, 0), prompts=()))


toy("halves", lambda level, nth: level if nth % 2 else "H5")
toy("lower", lambda level, nth: "H1")
toy("sure", lambda level, nth: level)
toy("once", lambda level, nth: "H5" if nth else level)


def made_by(tmp_path, teacher, name, plan, waves=6, **dials):
    """(run, outputs of the data set, counts by cell)."""
    data = {"set": {"strategy": name, "dials": {"plan.waves": waves} | dials}}
    taken = dict.fromkeys(
        ("seeds_only", "general_control", "boostqa_untargeted", "boostqa", "linkqa", "boostqa_linkqa")
    )
    found = planned_run(tmp_path, teacher.url, plan, data=data, arms=taken | {"set": ["set"]})
    out = stages.synthesise(found, "set", log=str)
    counts = out.counts.set_index(["discipline", "difficulty"]) if "counts" in out else None
    return found, out, counts


def test_a_strategy_that_brings_half_fills_every_cell_and_curation_rejects_nothing_more(tmp_path, teacher):
    run, out, counts = made_by(tmp_path, teacher, "halves", plan_of(mathematics_H1=30, mathematics_H3=7))
    assert counts["accepted"].tolist() == counts["budget"].tolist() == [30, 7]
    assert counts["reason"].isna().all()
    assert (counts["waves"] > 1).all()
    assert (counts["asked"] < 4 * counts["budget"]).all()  # by the yield, not by trying everything
    labels = out.questions.groupby(["discipline", "difficulty"]).size()
    assert labels.to_dict() == {("mathematics", "H1"): 30, ("mathematics", "H3"): 7}
    curated = stages.curate(run, log=str)
    assert len(curated.set) == 37
    assert curated.set_rejects.empty


def test_surplus_and_what_curation_rejects_are_kept_as_rejects_and_every_row_is_there_once(tmp_path, teacher):
    _, out, counts = made_by(tmp_path, teacher, "halves", plan_of(mathematics_H1=30, mathematics_H3=7))
    assert sorted(out.made["id"]) == sorted([*out.questions["id"], *out.rejects["id"]])
    assert set(out.rejects["reason"]) == {"over_budget"}
    assert len(out.made) == counts["asked"].sum()
    assert set(out.made["wave"]) == set(range(int(counts["waves"].max())))


def test_a_cell_that_fills_at_once_is_asked_once(tmp_path, teacher):
    _, out, counts = made_by(tmp_path, teacher, "sure", plan_of(mathematics_H2=9, mathematics_H5=4))
    assert counts[["asked", "waves", "yield"]].to_numpy().tolist() == [[9, 1, 1.0], [4, 1, 1.0]]
    assert out.rejects.empty


def test_cells_that_cannot_be_filled_say_why_and_are_given_up(tmp_path, teacher):
    plan = plan_of(mathematics_H1=6, mathematics_H4=20, law_H1=8)
    _, _, counts = made_by(tmp_path, teacher, "lower", plan)
    assert pd.isna(counts.loc[("mathematics", "H1"), "reason"])
    assert counts.loc[("law", "H1"), ["asked", "reason"]].tolist() == [0, "there are no seeds of law: add some"]
    assert counts.loc[("mathematics", "H4"), "asked"] == 20
    assert counts.loc[("mathematics", "H4"), "reason"].startswith("wave 1 asked for 20 and added nothing: give it more")


def test_waves_are_bounded(tmp_path, teacher):
    _, _, counts = made_by(tmp_path, teacher, "once", plan_of(mathematics_H1=50), waves=2)
    assert counts["accepted"].iloc[0] < 50
    assert counts[["waves", "reason"]].iloc[0].tolist() == [2, "2 waves are used up: raise plan.waves"]


def test_a_plan_no_cell_of_which_can_be_filled_is_explained(tmp_path, teacher):
    with pytest.raises(ValueError, match="no cell of the plan can be filled: there are no seeds of law: add some"):
        made_by(tmp_path, teacher, "lower", plan_of(law_H1=8))


def test_one_pass_has_no_counts_and_does_not_depend_on_exams(tmp_path, teacher):
    run, out, counts = made_by(tmp_path, teacher, "halves", plan_of(mathematics_H1=10), waves=1)
    assert counts is None
    assert len(out.questions) == len(out.made) == 10
    manifest = run.manifest("set")
    assert manifest["reads"] == ["annotate", "plan"]
    assert "curate" not in manifest["settings"]


def test_what_an_outage_cuts_short_goes_on_and_asks_nothing_twice(tmp_path, teacher):
    plan, once = plan_of(mathematics_H1=11, mathematics_H3=12, mathematics_H4=30), {"boostqa.attempts": 1}
    teacher.answered.clear()
    _, whole, _ = made_by(tmp_path / "whole", teacher, "boostqa", plan, **once)
    paid, teacher.answered = Counter(teacher.answered), Counter()
    assert max(whole.counts["waves"]) > 1
    for limit in (paid.total() // 3, paid.total() * 9 // 10):  # in the first wave, and in a later one
        teacher.limit = limit
        with pytest.raises(Incomplete):
            made_by(tmp_path / "cut", teacher, "boostqa", plan, **once)
    teacher.limit = None
    _, again, _ = made_by(tmp_path / "cut", teacher, "boostqa", plan, **once)
    assert teacher.answered == paid
    assert max(paid.values()) == 1
    for name in ("made", "questions", "rejects", "counts"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(whole, name))


def test_linkqa_asks_for_what_is_missing_by_discipline_and_says_what_it_cannot_write():
    assert set(strategy("linkqa").out_of_reach) == {"H1", "H2"}
    seeds = qa_table(
        [
            {
                "question": f"Question {i} of {d}?",
                "answer": str(i),
                "discipline": d,
                "difficulty": "H1",
                "grade": "high",
            }
            for d in ("physics", "law")
            for i in range(4)
        ],
        language="en",
        source="s",
    )
    ids = seeds.groupby("discipline")["id"].agg(list)
    paths = pd.DataFrame(
        [{"path": i, "kps": ["a", "b", "c"], "seeds": ids[d][i % 3 : i % 3 + 2]} for i in range(20) for d in ids.index]
    ).assign(path=range(40))
    plan = plan_of(physics_H4=6, physics_H3=3, law_H5=0)
    asked = linkqa.requests(paths, seeds, plan, linkqa.LinkQASettings(), wave=1)
    assert set(asked["asked_discipline"]) == {"physics"}
    assert asked["asked_difficulty"].value_counts().to_dict() == {"H4": 3, "H3": 1}  # of three questions each
    assert all(payload["wave"] == 1 for payload in asked["payload"])
