"""Pass rates are what a model is: probabilities of a hand count, shares of judged answers, and nothing asked twice."""

import json

import numpy as np
import pytest
from teacher_server import completion, failure
from test_blind import exam, likelihood, model  # noqa: F401 (a fixture)

import qatoolkit as qt
from qatoolkit.evaluation.cloze import load_model
from qatoolkit.evaluation.pass_rates import _judge_samples
from qatoolkit.evaluation.probe import write_answers
from qatoolkit.synthesis.refine import refine
from qatoolkit.synthesis.settings import BoostQASettings
from qatoolkit.teacher.client import Endpoint, Teacher
from qatoolkit.teacher.ledger import Ledger
from qatoolkit.textbook import exams
from qatoolkit.textbook.server import local_teacher, parts
from qatoolkit.textbook.settings import TextbookSettings

RATE = ["pass_m", "pass_m_low", "pass_m_high", "pass_m_n", "pass_m_unjudged"]


@pytest.fixture
def asked(server, tmp_path):
    """A teacher behind the test's server."""
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield Teacher("m", ledger=ledger, endpoint=Endpoint(base_url=server.url), attempts=1)


def capitals(n=2, **more):
    return qt.qa_table(
        [{"question": f"Capital {i}?", "answer": "Oslo"} | more for i in range(n)], language="en", source="s"
    )


def test_a_likelihood_is_that_of_a_hand_count_among_choices_and_of_open_answers(model):  # noqa: F811
    table = exam(2)
    table.loc[1, ["choices", "answer_index"]] = None
    found = qt.measure_difficulty(table, {"m": model}, 1)
    for row, rate in zip(table.itertuples(), found["pass_m"], strict=True):
        own = np.exp(likelihood(model, row.question, row.answer)[0])
        if row.choices is not None:
            own /= sum(np.exp(likelihood(model, row.question, choice)[0]) for choice in row.choices)
        assert rate == pytest.approx(own, rel=1e-3)
    assert found[RATE[1:]].isna().all(axis=None)  # no sample, so no interval


def test_what_has_no_likelihood_is_counted_and_null(model):  # noqa: F811
    table = exam(2)
    table.loc[0, "answer_index"] = None
    table.loc[0, "answer"] = "AB"
    with pytest.warns(UserWarning, match="1 of 2 questions have no pass rate of m: .*several are right"):
        found = qt.measure_difficulty(table, {"m": model}, 1)
    assert found["pass_m"].isna().tolist() == [True, False]


def test_a_student_that_writes_is_measured_by_its_own_draws(model):  # noqa: F811
    table = exam(2).assign(choices=None, answer_index=None)
    drawn = [write_answers(*load_model(model), table, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    found = qt.measure_difficulty(table, {"m": model}, 3, student="samples")
    assert found["pass_m_n"].tolist() == [3, 3]
    assert (found["pass_m_low"] <= found["pass_m"]).all()
    assert (found["pass_m"] <= found["pass_m_high"]).all()


def test_samples_are_judged_by_meaning_and_what_cannot_be_judged_is_counted():
    table = capitals(2, aliases=["Christiania"])
    given = ["oslo", "Rome", None, "Christiania", "", "Bergen", "Bergen", "Bergen"]
    found = _judge_samples(table, given, 4)
    assert found[""].tolist() == [0.5, 0]
    assert found["_unjudged"].tolist() == [
        1,
        0,
    ]  # an empty answer is none, one that could not be read may have been right
    unsure = _judge_samples(capitals(1).assign(answer="CO"), ["Co", "CO"], 2)
    assert unsure[["", "_unjudged"]].values.tolist() == [[0.5, 1]]


def test_choices_are_shown_to_the_teacher_and_letters_stand_for_their_text(server, asked):
    shown = []

    def answer(prompt, nth):
        shown.append(json.loads(prompt).get("choices"))
        return completion(json.dumps({"answer": "Oslo"}))

    server.answer = answer
    with_choices = capitals(1, answer="B", choices=["Rome", "Oslo"], answer_index=1)
    assert qt.measure_difficulty(with_choices, {"m": asked}, 2)["pass_m"].tolist() == [1.0]
    assert shown == [["Rome", "Oslo"]] * 2


def test_a_row_that_a_teacher_was_not_reached_for_has_no_rate_until_it_is_asked_again(server, asked):
    broken = [True]

    def answer(prompt, nth):
        task = json.loads(prompt)
        if broken[0] and task["question"] == "Capital 0?" and task["draw"] == 1:
            return failure(500)
        return completion("no JSON" if task["draw"] == 0 else json.dumps({"answer": "Oslo"}))

    server.answer = lambda prompt, nth: completion("no JSON") if "read" in prompt else answer(prompt, nth)
    with pytest.warns(UserWarning, match="1 of 2 questions have no pass rate of m: the model could not be reached"):
        first = qt.measure_difficulty(capitals(), {"m": asked}, 4)
    assert first["pass_m"].isna().tolist() == [True, False]
    assert first.loc[1, ["pass_m", "pass_m_n", "pass_m_unjudged"]].tolist() == [0.75, 4, 1]
    broken[0], before = False, len(server.requests)
    again = qt.measure_difficulty(first, {"m": asked}, 4)
    assert again["pass_m"].tolist() == [0.75, 0.75]
    assert len(server.requests) == before + 1
    assert again["calls"].map(len).tolist() == [5, 5]  # four draws and a correction, each once


def test_a_teacher_that_errs_passes_at_its_rate_and_shares_the_draws_of_refinement(tmp_path):
    settings = TextbookSettings(entities=3, entities_zh=2, relations=3)
    seeds = exams.seed_questions(parts(settings)["en"], "en", 2).assign(choices=None, answer_index=None)
    with local_teacher(settings) as url, Ledger(tmp_path / "ledger.sqlite") as ledger:
        teacher = Teacher("textbook-err30", endpoint=Endpoint(base_url=url, name="offline"), ledger=ledger)
        refine(seeds, teacher, BoostQASettings(samples=3))  # asks its disputed third of the questions three times
        drawn = len(ledger.attempts())
        found = qt.measure_difficulty(seeds, {"m": teacher}, 4)
        fresh = len(ledger.attempts()) - drawn
        assert fresh < 4 * len(seeds) - 3 * 0.15 * len(seeds)
        assert 0.62 < found["pass_m"].mean() < 0.8, len(seeds)
        again = qt.measure_difficulty(seeds, {"m": teacher}, 4)
        assert len(ledger.attempts()) == drawn + fresh
    assert again[RATE].equals(found[RATE])
    inside = (found["pass_m_low"] <= 0.7) & (found["pass_m_high"] >= 0.7)
    assert inside.mean() > 0.8


@pytest.mark.parametrize(
    ("table", "options", "error"),
    [
        (capitals(), {"k": 0}, "k is 0; it must be 1 or more"),
        (capitals(), {"student": "guess"}, "student is 'guess'; it must be likelihood or samples"),
        (capitals().drop(columns="choices"), {}, r"measure_difficulty is missing the columns \['choices'\]"),
        ([{"question": "?"}], {}, "measure_difficulty is a list"),
    ],
)
def test_a_wrong_input_is_named(table, options, error):
    with pytest.raises(ValueError, match=error):
        qt.measure_difficulty(table, {"m": "nowhere"}, **options)


def test_an_empty_table_is_measured_too(asked, model):  # noqa: F811
    found = qt.measure_difficulty(exam()[:0], {"m": asked, "w": model}, 2)
    assert {*RATE, "pass_w"} < set(found)
    assert not len(qt.measure_difficulty(exam()[:0], {"w": model}, 2, student="samples"))
