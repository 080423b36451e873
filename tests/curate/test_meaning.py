"""Questions that mean the same in other words: found by vectors, kept apart by numbers, negations and choices."""

import pandas as pd
import pytest

from qatoolkit.curate.curate import curate
from qatoolkit.curate.meaning import same_meaning
from qatoolkit.curate.settings import CurateSettings

pytest.importorskip("wordllama", reason="the extra `meaning` is not installed")


def _qa(*questions: str, **columns) -> pd.DataFrame:
    table = pd.DataFrame({"id": [f"q{i}" for i in range(len(questions))], "question": questions, "answer": "x"})
    return table.assign(language="en", source="test", **columns)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("What is the capital city of Portugal?", "Which city is the capital of Portugal?"),
        ("How many legs do three spiders have?", "How many legs have 3 spiders got?"),
        ("小红写了八个字，还差五个字，一共要写几个字？", "小红写了八个字，还差五个字，她一共要写多少个字？"),
    ],
)
def test_other_words_for_the_same_question_are_found(one, two):
    found = same_meaning(_qa("Why do leaves turn red in autumn?", one, two), threshold=0.85)
    assert found["row"].tolist() == [2]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("How many legs do three spiders have?", "How many legs do four spiders have?"),
        ("Which of these animals can fly?", "Which of these animals can not fly?"),
    ],
)
def test_other_numbers_and_negations_are_other_questions(one, two):
    assert same_meaning(_qa(one, two), threshold=0.5).empty


def test_a_stem_that_says_nothing_is_told_apart_by_its_choices():
    stem = "Which of the following is true?"
    table = _qa(stem, stem, choices=[["Ice floats", "Iron floats"], ["Iron rusts", "Gold rusts"]])
    assert same_meaning(table).empty
    assert len(same_meaning(table.assign(choices=None))) == 1


def test_curation_flags_them_where_the_setting_asks_for_it_and_rejects_none():
    exam = pd.DataFrame({"id": ["e1"], "question": ["Which planet is the largest?"]})
    table = _qa("What is the largest planet?", "Why is the sea salty?", "Why is the sea so salty?")
    kept, _, report = curate(table, {"e": exam}, CurateSettings(meaning=0.85))
    flagged = report[report["outcome"] == "flagged"].set_index("reason")["rows"].to_dict()
    assert flagged["exam_meaning"] == 1
    assert len(kept) == 3 - report.loc[report["outcome"] == "rejected", "rows"].sum()
    _, _, without = curate(table, {"e": exam})
    assert not set(without["reason"]) & {"exam_meaning", "same_meaning"}


def test_any_function_that_embeds_serves(tmp_path):
    def by_length(texts):
        return [[len(text), 1.0] for text in texts]

    found = same_meaning(_qa("aaaa?", "bbbb?"), threshold=0.999, embed=by_length)
    assert found["other_id"].notna().tolist() == [True]
    with pytest.raises(ValueError, match="threshold=2"):
        same_meaning(_qa("a?"), threshold=2)
    assert same_meaning(_qa("a?"), _qa("b?").iloc[:0]).empty
