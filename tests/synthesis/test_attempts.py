"""Asking again until it is right, within bounds: attempts at a level, and samples of a disputed answer."""

import json

import pandas as pd
import pytest
from teacher_server import completion

from qatoolkit.core.qa_table import qa_table
from qatoolkit.synthesis.refine import refine
from qatoolkit.synthesis.settings import BoostQASettings, LinkQASettings
from qatoolkit.synthesis.write import write_and_label
from qatoolkit.teacher.client import Endpoint, Teacher
from qatoolkit.teacher.ledger import Ledger


@pytest.fixture
def teacher(server, tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield Teacher("m", ledger=ledger, endpoint=Endpoint(base_url=server.url))


ASKED = pd.DataFrame(
    {
        "strategy": "high_difficulty",
        "parents": [["s"]],
        "language": "en",
        "asked_discipline": "physics",
        "asked_difficulty": "H5",
        "payload": [{"seed": {"question": "Why?", "answer": "So."}, "round": 0, "difficulty": "H5", "count": 1}],
    }
)


def writes(levels):
    """A teacher whose nth question is at the nth of some levels; `sent` are the requests to write."""
    sent = []

    def answer(prompt, nth):
        given = json.loads(prompt)
        if "seed" in given:
            sent.append(given)
            question = {"question": f"Question {len(sent)}?", "answer": "42"}
            return completion(json.dumps({"questions": [question]}))
        level = levels[int(given["question"].split()[1].strip("?")) - 1]
        return completion(json.dumps({"discipline": "physics", "difficulty": level, "grade": "high"}))

    return answer, sent


@pytest.mark.parametrize(
    ("attempts", "levels", "kept", "rejected"),
    [
        (1, ["H1", "H5"], "H1", []),
        (2, ["H1", "H5"], "H5", ["degraded"]),
        (2, ["H1", "H2", "H5"], "H1", ["degraded_again"]),
        (3, ["H1", "H2", "H5"], "H5", ["degraded_again", "degraded"]),
        (4, ["H1", "H2", "H3", "H4"], "H1", ["degraded_again"] * 3),
    ],
)
def test_a_level_is_asked_for_until_it_is_reached_within_the_attempts(
    server, teacher, attempts, levels, kept, rejected
):
    server.answer, sent = writes(levels)
    made, rejects = write_and_label(ASKED, teacher, teacher, attempts)
    assert (made["difficulty"].tolist(), sorted(rejects["reason"])) == ([kept], sorted(rejected))
    assert len(sent) == 1 + len(rejected)
    told = [given.get("too_easy", {}).get("question") for given in sent]
    assert told == [None, *(f"Question {nth}?" for nth in range(1, len(sent)))]  # of the attempt before
    assert [given.get("round") for given in sent] == [0, None, 3, 4][: len(sent)]  # as ever up to the second


def test_an_attempt_that_repeats_a_known_question_is_not_the_last(server, teacher):
    answer = writes(["H1"] * 9)[0]

    def repeats(prompt, nth):
        given = json.loads(prompt)
        if "too_easy" in given and "round" not in given:
            return completion(json.dumps({"questions": [{"question": "Question 1?", "answer": "42"}]}))
        return answer(prompt, nth)

    server.answer = repeats
    _, rejects = write_and_label(ASKED, teacher, teacher, 3)
    assert sorted(rejects["reason"]) == ["degraded_again", "repeated"]
    assert rejects.set_index("reason")["attempt"].to_dict() == {"repeated": 2, "degraded_again": 3}


VOTES = ["Oslo", "Oslo", "Rome", "Rome", "Oslo", "Oslo", "Bonn", "Oslo"]


@pytest.mark.parametrize(
    ("most", "decided", "draws"),
    [(None, [], 4), (4, [], 4), (6, ["refined"], 6), (8, ["refined"], 8), (9, ["refined"], 8)],
)
def test_samples_are_added_until_one_answer_has_the_majority(server, teacher, most, decided, draws):
    drawn = []

    def answer(prompt, nth):
        task = json.loads(prompt)
        if "draw" in task:
            drawn.append(task["draw"])
        said = VOTES[task["draw"]] if "draw" in task else "Oslo"
        return completion(json.dumps({"answer": said, "rationale": "r"}))

    server.answer = answer
    table = qa_table([{"question": "Capital?", "answer": "Bergen", "language": "en"}], source="s")
    kept, rejects = refine(table, teacher, BoostQASettings(samples=4, most_samples=most))
    assert list(kept["decided"]) == decided
    assert len(rejects) == (not decided)
    assert sorted(drawn) == list(range(draws))
    row = (kept if decided else rejects).iloc[0]
    assert sum(call.startswith("solve/") for call in row["calls"]) == draws


def test_most_samples_below_the_first_draw_are_explained():
    with pytest.raises(ValueError, match="most_samples is 3; it must be null, or at least samples \\(5\\)"):
        LinkQASettings(most_samples=3)
