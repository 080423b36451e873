"""From seeds to refined questions against a real offline teacher on a tiny part of the textbook."""

import json
import re
import sqlite3
from collections import Counter

import pandas as pd
import pytest

from qatoolkit.core.qa_table import qa_id, qa_table, validate
from qatoolkit.core.settings import replace
from qatoolkit.core.stats import agreement, confusion
from qatoolkit.core.taxonomy import DIFFICULTIES, DISCIPLINES, HIGH
from qatoolkit.graph.kp_graph import build_kp_graph
from qatoolkit.graph.walks import sample_paths
from qatoolkit.synthesis import boostqa, knowledge_points, linkqa, refine, write
from qatoolkit.synthesis import budget as plan
from qatoolkit.synthesis.annotate import annotate
from qatoolkit.synthesis.settings import BoostQASettings, LinkQASettings, PlanSettings
from qatoolkit.teacher import prompts
from qatoolkit.teacher.client import Endpoint, Teacher
from qatoolkit.teacher.completions import read_completion
from qatoolkit.teacher.ledger import Ledger
from qatoolkit.textbook import exams, knowledge
from qatoolkit.textbook.server import local_teacher, parts
from qatoolkit.textbook.settings import TextbookSettings
from qatoolkit.textbook.tutor import Tutor

SETTINGS = TextbookSettings(entities=3, entities_zh=2, relations=3)
OUTSIDE = qa_table([{"question": "Who let the dogs out?", "answer": "Who?", "language": "en", "source": "radio"}])


@pytest.fixture(scope="module")
def books():
    return parts(SETTINGS)


@pytest.fixture(scope="module")
def tutor(books):
    return Tutor(knowledge.load(), books)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    with Ledger(tmp_path_factory.mktemp("synthesis") / "ledger.sqlite") as ledger:
        yield ledger


@pytest.fixture(scope="module")
def teacher(ledger):
    """A function from a model's name to a Teacher of it."""
    with local_teacher(SETTINGS) as url:
        endpoint = Endpoint(base_url=url, name="offline")
        yield lambda model: Teacher(model, endpoint=endpoint, ledger=ledger)


@pytest.fixture(scope="module")
def seeds(books):
    """Seeds as they come: in two languages, with no label the annotator could copy."""
    tables = [exams.seed_questions(books[language], language, 2) for language in ("en", "zh")]
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def labelled(seeds, teacher):
    return annotate(seeds.assign(discipline=None, difficulty=None, grade=None), teacher("textbook"))[0]


@pytest.fixture(scope="module")
def grid(labelled):
    """A probe grid of a model that is weak where the papers say."""
    rows = [
        {"discipline": d, "difficulty": level, "n": 10, "accuracy": 0.4 if level in HIGH else 0.7}
        for d in DISCIPLINES
        for level in DIFFICULTIES
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def targeted(grid):
    return plan.plan_budget(grid, PlanSettings(questions=300))


@pytest.fixture(scope="module")
def written(labelled, targeted, teacher):
    """(questions, rejects) of BoostQA with a teacher that errs in 15% of its answers."""
    asked = boostqa.requests(labelled, targeted, BoostQASettings())
    return write.write_and_label(asked, teacher("textbook-err15"), teacher("textbook"))


@pytest.fixture(scope="module")
def refined(written, teacher):
    return refine.refine(written[0], teacher("textbook-err05"), BoostQASettings())


def wrong_share(tutor, table):
    return 1 - sum(map(tutor.is_correct, table["question"], table["answer"])) / len(table)


# --- annotate ------------------------------------------------------------------------------------------


def test_a_teacher_without_errors_finds_the_labels_by_construction(seeds, labelled):
    for name in ("discipline", "difficulty", "grade"):
        assert labelled[name].tolist() == seeds[name].tolist()


def test_rows_in_are_rows_labelled_plus_rejects(seeds, teacher):
    mixed = pd.concat([seeds[:20], OUTSIDE, seeds[20:40]], ignore_index=True)
    done, rejects = annotate(mixed, teacher("textbook-err30"))
    assert [*done["id"], *rejects["id"]] == [*seeds["id"][:40], *OUTSIDE["id"]]
    assert rejects["reason"].tolist() == ["refusal"]
    assert "OPENAI_BASE_URL" in rejects["detail"].item()
    assert validate(done) is done


def test_a_teacher_that_errs_agrees_less_but_mostly_within_one_level(seeds, teacher):
    done, _ = annotate(seeds, teacher("textbook-err30"))
    exact = agreement(done["difficulty"], seeds["difficulty"], DIFFICULTIES)
    assert 0.55 < exact["accuracy"] < 0.85
    assert exact["weighted_kappa"] > exact["kappa"]


def test_a_label_outside_the_order_is_named_and_no_row_leaves_the_counts_in_silence():
    labels, gold = pd.Series(["H1", "H2"]), pd.Series(["H1", "h2"])
    for compare in (agreement, confusion):
        with pytest.raises(ValueError, match="'h2' is not a label of order"):
            compare(labels, gold, DIFFICULTIES)


def test_an_empty_table_is_annotated_too(seeds, teacher):
    done, rejects = annotate(seeds[:0], teacher("textbook"))
    assert len(done) == len(rejects) == 0


# --- plan ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("questions", [1, 89, 300, 2001])
def test_plans_by_deficit_and_even_ones_have_equal_totals(grid, questions):
    settings = PlanSettings(questions=questions)
    plans = [plan.plan_budget(grid, settings), plan.plan_budget(grid, replace(settings, rule="uniform"))]
    bounded = plan.plan_budget(grid, replace(settings, high=0.2))
    hard = bounded["difficulty"].isin(HIGH)
    assert bounded["budget"].sum() == questions
    # whole questions
    assert bounded.loc[hard, "budget"].sum() == pytest.approx(0.2 * questions, abs=hard.sum() / 2)
    assert [int(p["budget"].sum()) for p in plans] == [questions, questions]
    assert plans[1]["budget"].max() - plans[1]["budget"].min() <= 1
    deepest = plans[0].loc[plans[0]["deficit"].idxmax(), "budget"]
    assert deepest == plans[0]["budget"].max()


def test_cells_too_small_to_judge_or_above_the_target_get_no_budget(grid):
    known = grid.assign(n=[2, *grid["n"][1:]], accuracy=[0.0, 1.0, *grid["accuracy"][2:]])
    assert plan.plan_budget(known, PlanSettings())["budget"][:2].tolist() == [0, 0]


def test_a_cell_without_an_accuracy_gets_no_budget_and_the_others_all_of_it(grid):
    known = grid.assign(n=50, accuracy=[float("nan"), *[0.3] * (len(grid) - 1)])
    budget = plan.plan_budget(known, PlanSettings(questions=100))["budget"]
    assert (budget[0], budget.sum(), budget.min()) == (0, 100, 0)


def test_a_model_without_weakness_has_no_plan(grid):
    with pytest.raises(ValueError, match="nothing to plan"):
        plan.plan_budget(grid.assign(accuracy=1.0), PlanSettings())


# --- BoostQA -------------------------------------------------------------------------------------------


def test_requests_spend_the_budget_of_every_cell_that_has_seeds(labelled, targeted):
    asked = boostqa.requests(labelled, targeted, BoostQASettings())
    counts = [p.get("count") or len(p["wanted"]) for p in asked["payload"]]
    spent = asked.assign(n=counts).groupby(["asked_discipline", "asked_difficulty"])["n"].sum().to_dict()
    held = set(labelled["discipline"])
    due = {(r.discipline, r.difficulty): r.budget for r in targeted.itertuples() if r.discipline in held}
    assert spent == {cell: n for cell, n in due.items() if n}
    high = asked["asked_difficulty"].isin(HIGH)
    assert set(asked[high]["strategy"]) == {"high_difficulty"}
    assert set(asked[~high]["strategy"]) == {"multi_grade"}


def test_a_strategy_that_is_off_is_asked_for_the_plain_way(labelled, targeted):
    asked = boostqa.requests(labelled, targeted, BoostQASettings(high_difficulty=False, multi_grade=False))
    assert set(asked["strategy"]) == {"multi_grade"}
    assert all("difficulty" not in w for p in asked["payload"] for w in p["wanted"])
    assert asked["payload"].map(str).is_unique  # or cells would share answers and the budget shrink


def test_what_is_written_carries_its_lineage(written, labelled):
    made, _ = written
    assert validate(made) is made
    known = set(labelled["id"])
    assert all(len(p) == 1 and set(p) <= known for p in made["parents"])
    assert set(made["teacher"]) == {"textbook-err15"}
    assert set(made["strategy"]) == {"multi_grade", "high_difficulty"}
    assert made["prompt_version"].tolist() == [prompts.version(s) for s in made["strategy"]]
    assert made[["discipline", "difficulty", "grade", "rationale"]].notna().all(axis=None)
    parents = made["parents"].str[0].map(labelled.set_index("id")["language"])
    assert parents.tolist() == made["language"].tolist()


def test_every_question_the_teacher_wrote_is_kept_or_rejected(written, ledger):
    made, rejects = written
    ledger.flush()
    with sqlite3.connect(ledger.path) as connection:
        rows = connection.execute("SELECT request, response FROM responses").fetchall()
    said = set()
    for request, response in rows:
        body = json.loads(request)["body"]
        if body["model"] == "textbook-err15" and '"path"' not in body["messages"][1]["content"]:
            value = prompts.read_json(read_completion(json.loads(response)).content)
            said |= {qa_id(q["question"], q["answer"]) for q in value.get("questions", [])}
    assert said
    assert said == {*made["id"], *rejects["id"].dropna()}


def test_degraded_questions_are_asked_for_once_more(written):
    made, rejects = written
    assert set(made["attempt"]) == {1, 2}
    second = made[made["attempt"] == 2]
    assert not write.degraded(second).any()
    replaced = rejects[rejects["reason"] == "degraded"]
    assert len(replaced) == len(second)
    assert write.degraded(replaced).all()
    first = pd.concat([made[made["attempt"] == 1], replaced])
    first = first[first["asked_difficulty"].isin(HIGH)]
    final = made[made["asked_difficulty"].isin(HIGH)]
    assert write.degraded(final).mean() < write.degraded(first).mean() / 2


def test_the_same_seed_and_ledger_give_the_same_table_for_no_request(written, labelled, targeted, teacher):
    synthesiser = teacher("textbook-err15")
    before = len(synthesiser.ledger.attempts())
    asked = boostqa.requests(labelled, targeted, BoostQASettings())
    made, rejects = write.write_and_label(asked, synthesiser, teacher("textbook"))
    assert len(synthesiser.ledger.attempts()) == before
    pd.testing.assert_frame_equal(made, written[0])
    pd.testing.assert_frame_equal(rejects, written[1])


def test_a_failed_request_is_a_reject_with_its_reason(labelled, targeted, teacher):
    strange = OUTSIDE.assign(discipline="physics", difficulty="H1", grade="high")
    asked = boostqa.requests(strange, targeted, BoostQASettings())
    made, rejects = write.write_and_label(asked, teacher("textbook"), teacher("textbook"))
    assert len(made) == 0
    assert len(rejects) == len(asked)
    assert set(rejects["reason"]) == {"refusal"}


def test_no_seeds_for_the_plan_give_an_empty_table(labelled, targeted, teacher):
    asked = boostqa.requests(labelled[:0], targeted, BoostQASettings())
    made, rejects = write.write_and_label(asked, teacher("textbook"), teacher("textbook"))
    assert len(made) == len(rejects) == 0


# --- refinement ----------------------------------------------------------------------------------------


def test_refinement_lowers_the_share_of_wrong_answers_at_err15(written, refined, tutor):
    before, after = wrong_share(tutor, written[0]), wrong_share(tutor, refined[0])
    assert 0.08 < before < 0.22
    assert after < before / 3


def test_rows_in_are_rows_refined_plus_rejects(written, refined):
    table, rejects = refined
    assert sorted([*table["id"], *rejects["id"]]) == sorted(written[0]["id"])
    assert validate(table) is table
    assert table["verified"].all()


def test_decisions_tell_what_happened_to_the_answer(written, refined):
    table, _ = refined
    first = written[0].set_index("id")["answer"]
    assert table["first_answer"].tolist() == first[table["id"]].tolist()
    kept = table["answer"] == table["first_answer"]
    assert kept[table["decided"].isin(["agreed", "first"])].all()
    assert not kept[table["decided"].isin(["refined", "other"])].any()
    counts = Counter(table["decided"])
    assert counts["agreed"] > counts["refined"] > 0


def test_refinement_keeps_lineage(written, refined):
    columns = ["parents", "teacher", "prompt_version", "strategy", "question"]
    before = written[0].set_index("id")[columns]
    after = refined[0].set_index("id")[columns]
    pd.testing.assert_frame_equal(after, before.loc[after.index])


# --- LinkQA --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def linked(labelled, targeted, teacher):
    """(requests, questions, rejects) of LinkQA."""
    extracted, rejects = knowledge_points.extract(labelled, teacher("textbook"))
    assert len(rejects) == 0
    paths = sample_paths(build_kp_graph(extracted), 60, 4, alpha=0.5, beta=1.0, seed=0)
    asked = linkqa.requests(paths, extracted, targeted, LinkQASettings())
    made, rejects = linkqa.synthesise(asked, teacher("textbook-err15"), teacher("textbook"))
    return asked, made, rejects


def test_extraction_names_points_for_every_row_or_rejects_it(seeds, teacher):
    mixed = pd.concat([seeds[:10], OUTSIDE], ignore_index=True)
    done, rejects = knowledge_points.extract(mixed.assign(knowledge_points=None), teacher("textbook"))
    assert [*done["id"], *rejects["id"]] == mixed["id"].tolist()
    assert done["knowledge_points"].tolist() == [p[:6] for p in seeds["knowledge_points"][:10]]


def test_paths_ask_with_two_to_four_seeds_of_one_language(linked, labelled):
    asked, _, _ = linked
    language = labelled.set_index("id")["language"]
    assert len(asked) > 10
    for row in asked.itertuples():
        assert 2 <= len(row.parents) == len(set(row.parents)) <= 4
        assert {language[p] for p in row.parents} == {row.language}
        assert len(row.payload["seeds"]) == len(row.parents)


def test_linked_questions_carry_their_whole_path_and_all_parents(linked):
    asked, made, _ = linked
    assert len(made) > 10
    assert validate(made) is made
    paths = {(tuple(r.parents), tuple(r.path)) for r in asked.itertuples()}
    assert {(tuple(p), tuple(k)) for p, k in zip(made["parents"], made["knowledge_points"], strict=True)} <= paths
    assert set(made["strategy"]) == {"link"}
    assert set(made["teacher"]) == {"textbook-err15"}
    assert set(made["prompt_version"]) == {prompts.version("link")}
    assert made[["discipline", "difficulty", "grade"]].notna().all(axis=None)


def test_linked_questions_are_none_of_their_seeds(linked, labelled):
    _, made, _ = linked
    asked = labelled.set_index("id")["question"]
    assert not any(row.question in set(asked[list(row.parents)]) for row in made.itertuples())
    assert made["id"].is_unique


def test_the_difficulty_asked_for_follows_the_plan(linked, targeted):
    asked, _, _ = linked
    budget = targeted.groupby("difficulty")["budget"].sum()
    shares = asked["asked_difficulty"].value_counts(normalize=True)
    high = budget[budget.index.isin(HIGH)].sum() / budget.sum()
    assert shares[shares.index.isin(HIGH)].sum() == pytest.approx(high, abs=1 / len(asked))
    assert set(shares.index) <= {"H3", *HIGH}  # joining two seeds takes two hops


def test_links_are_asked_for_until_there_are_enough_and_no_longer(linked, teacher):
    asked, _, _ = linked
    most, _ = linkqa.synthesise(asked, teacher("textbook"), teacher("textbook"))
    few, rejects = linkqa.synthesise(asked, teacher("textbook"), teacher("textbook"), n=20)
    assert len(few) == 20
    assert few["id"].is_unique
    spare = rejects["reason"].isin(("over_budget", "repeated")).sum()
    assert len(few) + spare < len(most)
    with pytest.warns(UserWarning, match=rf"{len(most)} of 10,000 questions were written, and all {len(asked)}"):
        every, rejects = linkqa.synthesise(asked, teacher("textbook"), teacher("textbook"), n=10_000)
    assert set(every["id"]) == set(most["id"])
    assert "over_budget" not in set(rejects["reason"])
    with pytest.warns(UserWarning, match="0 of 5 questions were written"):
        nothing, rejects = linkqa.synthesise(asked[:0], teacher("textbook"), teacher("textbook"), n=5)
    assert len(nothing) == len(rejects) == 0
    assert set(most) == set(nothing)


def test_the_consensus_of_samples_errs_less_than_one_answer(seeds, teacher, tutor):
    rough = teacher("textbook-err30")
    truth = pd.Series([tutor.reader.read(q)[0].difficulty for q in seeds["question"]])
    right = {}
    for samples in (1, 5):
        labelled, rejects = annotate(seeds, rough, samples)
        assert len(rejects) == 0
        right[samples] = (labelled["difficulty"] == truth).mean()
    assert right[5] > right[1] + 0.05
    assert labelled["label_agreement"].between(0, 1).all()
    assert labelled["label_agreement"].nunique() > 2
    assert {len(calls) for calls in labelled["calls"]} == {5}


def test_a_row_that_most_samples_refuse_is_a_reject_with_all_its_calls(teacher):
    labelled, rejects = annotate(OUTSIDE, teacher("textbook"), samples=3)
    assert len(labelled) == 0
    assert rejects[["reason"]].to_dict("list") == {"reason": ["refusal"]}
    assert len(rejects.loc[0, "calls"]) == 3


def test_difficulty_is_adjusted_within_the_chosen_disciplines_and_checked_by_annotation(
    linked, labelled, targeted, teacher
):
    extracted, _ = knowledge_points.extract(labelled, teacher("textbook"))
    graph, target = (build_kp_graph(extracted), pd.Series({"H3": 0.5, "H4": 0.5}).reindex(DIFFICULTIES, fill_value=0))
    adjusted, free = [], []  # distances from the target, a dozen questions each, so several walks
    for seed in range(3):
        paths = sample_paths(graph, 60, 3, seed=seed)
        plain = linkqa.requests(paths, extracted, targeted, LinkQASettings())
        busiest = plain["asked_discipline"].value_counts().index[0]
        shares = {busiest: {"H3": 0.5, "H4": 0.5}}
        asked = linkqa.requests(paths, extracted, targeted, LinkQASettings(adjust=shares))
        ours = asked["asked_discipline"] == busiest
        counts = asked.loc[ours, "asked_difficulty"].value_counts()
        assert set(counts.index) == {"H3", "H4"}
        assert abs(counts["H3"] - counts["H4"]) <= 1
        assert asked["exact"].tolist() == ours.tolist()

        made, rejects = linkqa.synthesise(asked, teacher("textbook"), teacher("textbook"))
        got = linkqa.control(made).set_index(["discipline", "difficulty"]).loc[busiest, "got"]
        adjusted.append(abs(got.reindex(DIFFICULTIES, fill_value=0) / got.sum() - target).sum())
        unasked, _ = linkqa.synthesise(plain, teacher("textbook"), teacher("textbook"))
        level = unasked.loc[unasked["asked_discipline"] == busiest, "difficulty"].value_counts(normalize=True)
        free.append(abs(level.reindex(DIFFICULTIES, fill_value=0) - target).sum())
        second = made[(made["attempt"] == 2) & (made["asked_discipline"] == busiest)]
        assert (second["difficulty"] == second["asked_difficulty"]).all()
        assert {"degraded", "degraded_again", "repeated", "nothing_written"} >= set(rejects["reason"])
    assert sum(adjusted) < sum(free)


@pytest.mark.parametrize(
    ("adjust", "message"),
    [
        ({"alchemy": {"H1": 1.0}}, "adjust is 'alchemy'"),
        ({"physics": {"H9": 1.0}}, "adjust.physics is"),
        ({"physics": {"H3": 0.0}}, "not all 0"),
        ({"physics": "H1"}, "adjust.physics is 'H1'"),
        ({"physics": {"H2": 0.5, "H4": 0.5}}, "it must be shares of H3, H4, H5"),
    ],
)
def test_an_impossible_adjustment_is_explained(adjust, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LinkQASettings(adjust=adjust)
