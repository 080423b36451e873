"""Curation: nothing lost, nothing leaked from exams, and templates not mistaken for duplicates."""

import json

import pandas as pd
import pytest
from conftest import REAL
from hypothesis import given, settings
from hypothesis import strategies as st

from qatoolkit.curate.comparison_text import shingles
from qatoolkit.curate.curate import curate
from qatoolkit.curate.decontaminate import decontaminate
from qatoolkit.curate.near_duplicates import near_duplicates
from qatoolkit.curate.settings import CurateSettings

real_data = pytest.mark.skipif(not (REAL / "sidecar").is_dir(), reason="real data not found; set QATOOLKIT_REAL_DATA")


def _qa(*rows: tuple, **columns) -> pd.DataFrame:
    """Rows of (question, answer)."""
    table = pd.DataFrame(rows, columns=["question", "answer"])
    table.insert(0, "id", [f"q{i}" for i in range(len(table))])
    return table.assign(language="en", source="test", **columns)


def _real(*names: str) -> pd.DataFrame:
    texts = [(REAL / f"{name}.jsonl").read_text(encoding="utf-8") for name in names]
    # Not splitlines(): some questions hold a raw U+0085.
    return pd.DataFrame([json.loads(line) for text in texts for line in text.split("\n") if line])


def test_shingles_take_one_cjk_character_or_one_word():
    assert shingles("The speed of light", 2) == {"the speed", "speed of", "of light"}
    assert shingles("光的速度", 2) == {"光 的", "的 速", "速 度"}
    assert shingles("ＡＢＣ Straße", 2) == {"abc strasse"}


def test_answers_that_cannot_be_told_apart_both_stay_and_are_counted():
    question = "A body falls freely from rest for one second near the ground; what is its acceleration or speed?"
    kept, rejects, report = curate(_qa((question, "9.8 m/s^2"), (question, "9.8 m/s")))
    assert kept["id"].tolist() == ["q0", "q1"]
    assert rejects.empty
    assert report.set_index("reason").loc["undecided_answer", ["outcome", "rows"]].tolist() == ["flagged", 1]
    _, rejects, _ = curate(_qa((question, "9.8 m/s^2"), (question, "7 m/s^2")))
    assert rejects["reason"].tolist() == ["conflicting_answer"]


def test_decontamination_finds_a_quoted_exam_question_in_both_languages():
    exam_en = _qa(("A train leaves the old station at noon and travels north at ninety km per hour until dusk", "x"))
    exam_zh = _qa(("小红已经写了八个字，还差五个字没有写完，请问小红一共要写多少个字？", "13"))
    table = _qa(
        ("Please solve: a TRAIN leaves the old station at noon, and travels north at ninety km per hour!", "x"),
        ("请解答：小红已经写了八个字，还差五个字没有写完，请问小红一共要写多少个字", "13"),
        ("A train is a vehicle. Which fuel does it burn?", "diesel"),
    )
    hits = decontaminate(table, {"en": exam_en, "zh": exam_zh})
    assert hits[["row", "exam", "exam_id"]].values.tolist() == [[0, "en", "q0"], [1, "zh", "q0"]]
    assert (hits["overlap"] > 0.7).all()
    assert hits["matched"].iloc[0].startswith("a train leaves the old station")


def test_short_exam_questions_count_only_when_identical():
    exam = {"e": _qa(("What is DNA?", "x"), ("3 + 5 = ?", "8"))}
    table = _qa(("what is dna", "y"), ("What is RNA?", "z"), ("3 - 5 = ?", "-2"), ("3+5=?", "8"))
    assert decontaminate(table, exam)["row"].tolist() == [0, 3]


def test_a_bare_stem_is_no_leak_when_the_choices_are_others():
    stem = "Which of the following is true?"
    exam = _qa((stem, "Ice floats"), choices=[["Ice floats", "Iron floats"]])
    table = _qa((stem, "Iron rusts"), (stem, "Ice floats"))
    table["choices"] = [["Iron rusts", "Gold rusts"], ["Iron floats", "Ice floats"]]
    assert decontaminate(table, {"e": exam})["row"].tolist() == [1]


def test_the_instructions_of_an_exam_are_not_its_items():
    instruction = "Read the following statement with care and then choose the one option that completes it best: "
    names = [f"substance{letter}" for letter in "abcdefghijklmnopqrstuvwxy"]
    exam = {"e": _qa(*((instruction + name, "x") for name in names))}
    hits = decontaminate(_qa((instruction + "plutonium", "y"), (instruction + "substancec", "z")), exam)
    assert hits["row"].tolist() == [1]


def _messy() -> pd.DataFrame:
    table = _qa(
        ("What is the capital of France?", "Paris"),
        ("What is the capital of France", "paris"),
        ("What is the capital of France?", "Lyon"),
        ("What is the capital of Spain?", "Madrid"),
        (None, "x"),
        ("What is the boiling point of water at sea level in degrees?", "100"),
    )
    return table.assign(strategy=["seed", "link", "link", "seed", "link", None], extra=range(6))


def test_rows_in_are_rows_kept_plus_rejects_and_rejects_keep_every_column():
    table = _messy()
    exam = {"e": _qa(("What is the boiling point of water at sea level in degrees?", "100"))}
    kept, rejects, report = curate(table, exam)
    assert kept["extra"].tolist() == [0, 3]
    assert rejects["reason"].tolist() == ["near_duplicate", "conflicting_answer", "empty_question", "contaminated"]
    assert rejects["detail"].str.len().gt(0).all()
    assert list(rejects.columns) == [*table.columns, "reason", "detail"]
    assert report.loc[report["outcome"] != "flagged", "rows"].sum() == len(table)
    by_reason = report.set_index(["outcome", "strategy", "reason"])["rows"]
    assert by_reason["kept", "seed", ""] == 2
    assert by_reason["rejected", "unknown", "contaminated"] == 1


def test_an_empty_table_and_one_without_optional_columns_pass():
    kept, rejects, report = curate(_messy().iloc[:0])
    assert len(kept) == len(rejects) == len(report) == 0
    kept, rejects, _ = curate(_qa(("Why is the sky blue?", "Rayleigh scattering")))
    assert (len(kept), len(rejects)) == (1, 0)


def test_parquet_gives_the_same_result(tmp_path):
    table = _qa(("Pick the largest planet of all.", "B"), ("Pick the smallest planet of all.", "A"))
    table["choices"] = [["Mars", "Jupiter"], ["Mercury", "Mercury"]]
    table.to_parquet(tmp_path / "t.parquet")
    for version in (table, pd.read_parquet(tmp_path / "t.parquet")):
        kept, rejects, _ = curate(version)
        assert kept["id"].tolist() == ["q0"]
        assert rejects["reason"].tolist() == ["choices"]


def test_repeated_ids_and_index_labels_lose_no_row():
    table = _messy()
    table["id"] = "same"
    kept, rejects, _ = curate(pd.concat([table, table]))
    assert len(kept) + len(rejects) == 12
    assert kept["extra"].tolist() == [0, 3, 5]


def test_same_seed_gives_same_table_and_other_seeds_agree_on_clear_cases():
    table = _messy()
    first, second = (curate(table, settings=CurateSettings(seed=7)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        pd.testing.assert_frame_equal(a, b)
    pd.testing.assert_frame_equal(first[0], curate(table)[0])


@pytest.mark.parametrize("wrong", [{"near_threshold": 0}, {"exam_overlap": 1.5}, {"shingle": 0}, {"on": "question"}])
def test_wrong_settings_name_the_field(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CurateSettings(**wrong)


def test_missing_columns_are_named():
    with pytest.raises(ValueError, match="answer"):
        near_duplicates(pd.DataFrame({"id": ["a"], "question": ["b"]}))
    with pytest.raises(ValueError, match="exam 'e'"):
        decontaminate(_messy(), {"e": pd.DataFrame({"text": ["x"]})})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=40), st.text(max_size=20)), max_size=12))
def test_any_text_is_curated_without_loss(rows):
    table = _qa(*rows) if rows else _messy().iloc[:0]
    kept, rejects, _ = curate(table, {"e": table.iloc[:2]})
    assert sorted([*kept["id"], *rejects["id"]]) == sorted(table["id"])


@real_data
def test_gsm8k_train_is_all_but_clean_against_its_test_set():
    hits = decontaminate(_real("gsm8k_train"), {"gsm8k_test": _real("gsm8k_test")})
    assert len(hits) <= 2  # measured: one pair, the same story about stamps with other numbers
    leaked = decontaminate(_real("gsm8k_test").sample(100, random_state=0), {"gsm8k_test": _real("gsm8k_test")})
    assert len(leaked) == 100
    assert (leaked["overlap"] == 1).all()
