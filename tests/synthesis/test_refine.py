"""Refinement against a server whose every answer is set: what decides a dispute."""

import json

import pytest
from teacher_server import completion

from qatoolkit.core.qa_table import qa_table
from qatoolkit.synthesis.refine import refine
from qatoolkit.synthesis.settings import BoostQASettings
from qatoolkit.teacher.client import Endpoint, Teacher
from qatoolkit.teacher.ledger import Ledger


@pytest.mark.parametrize(
    ("votes", "decided"),
    [
        (["Oslo", "Oslo", "Oslo", "Rome"], "refined"),
        (["Oslo", "Oslo", "no JSON", "no JSON"], None),
        (["Oslo", "no JSON", "no JSON", "no JSON"], None),  # one that can be read is no majority of four
        (["no JSON"] * 4, None),
    ],
)
def test_a_dispute_needs_a_majority_of_all_samples_not_of_those_that_can_be_read(server, tmp_path, votes, decided):
    def answer(prompt, nth):
        if "read" in prompt:  # the correction of an answer without JSON
            return completion("no JSON")
        task = json.loads(prompt)
        said = votes[task["draw"]] if "draw" in task else "Oslo"
        return completion(said if said == "no JSON" else json.dumps({"answer": said, "rationale": "r"}))

    server.answer = answer
    table = qa_table([{"question": "Capital?", "answer": "Bergen", "language": "en"}], source="s")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        teacher = Teacher("m", ledger=ledger, endpoint=Endpoint(base_url=server.url))
        kept, rejects = refine(table, teacher, BoostQASettings(samples=4))
    assert list(kept["decided"]) == ([decided] if decided else [])
    assert list(rejects["reason"]) == ([] if decided else ["unresolved"])


@pytest.mark.parametrize(
    ("second", "votes", "same", "decided"),
    [
        ("7.0 m", [], True, "agreed"),
        ("7 m/s", ["7 m"] * 4, None, "first"),  # it can't be told whether 7 m is 7 m/s: fresh samples are asked
        ("7 m/s", ["7 m/s"] * 4, None, "refined"),
        ("7 m/s", ["7 J"] * 4, None, "undecided"),
        ("8 m", ["9 m"] * 4, False, "other"),
    ],
)
def test_what_cannot_be_told_apart_is_asked_again_and_said(server, tmp_path, second, votes, same, decided):
    def answer(prompt, nth):
        task = json.loads(prompt)
        return completion(json.dumps({"answer": votes[task["draw"]] if "draw" in task else second, "rationale": "r"}))

    server.answer = answer
    table = qa_table([{"question": "How far?", "answer": "7 m", "language": "en"}], source="s")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        teacher = Teacher("m", ledger=ledger, endpoint=Endpoint(base_url=server.url))
        kept, _ = refine(table, teacher, BoostQASettings(samples=4))
    assert (kept["same_answers"].astype(object).where(kept["same_answers"].notna(), None)[0], kept["decided"][0]) == (
        same,
        decided,
    )
