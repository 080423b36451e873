"""Curation: nothing lost, nothing leaked from exams, and templates not mistaken for duplicates."""

import pandas as pd
import pytest
from curate_tables import qa
from hypothesis import given, settings
from hypothesis import strategies as st

from qatoolkit.curate.comparison_text import shingles
from qatoolkit.curate.curate import curate
from qatoolkit.curate.near_duplicates import near_duplicates
from qatoolkit.curate.settings import CurateSettings


def test_shingles_take_one_cjk_character_or_one_word():
    assert shingles("The speed of light", 2) == {"the speed", "speed of", "of light"}
    assert shingles("光的速度", 2) == {"光 的", "的 速", "速 度"}
    assert shingles("ＡＢＣ Straße", 2) == {"abc strasse"}


def test_answers_that_cannot_be_told_apart_both_stay_and_are_counted():
    question = "A body falls freely from rest for one second near the ground; what is its acceleration or speed?"
    kept, rejects, report = curate(qa((question, "9.8 m/s^2"), (question, "9.8 m/s")))
    assert kept["id"].tolist() == ["q0", "q1"]
    assert rejects.empty
    assert report.set_index("reason").loc["undecided_answer", ["outcome", "rows"]].tolist() == ["flagged", 1]
    _, rejects, _ = curate(qa((question, "9.8 m/s^2"), (question, "7 m/s^2")))
    assert rejects["reason"].tolist() == ["conflicting_answer"]


def test_rows_written_from_a_seed_that_an_exam_has_are_counted_or_removed_on_demand():
    table = qa(("Which bird lays the largest egg?", "the ostrich"), ("Which mammal lays eggs?", "the platypus"))
    table = table.assign(parents=[["s1", "s2"], "s20"])
    kept, rejects, report = curate(table, exam_parents=["s2", "s9"])
    assert kept["flagged"].fillna("").tolist() == ["exam_parent", ""]
    assert rejects.empty
    assert report.set_index("reason").loc["exam_parent", ["outcome", "rows"]].tolist() == ["flagged", 1]
    kept, rejects, _ = curate(table, None, CurateSettings(reject=["exam_parent"]), exam_parents={"s2"})
    assert kept["id"].tolist() == ["q1"]
    assert rejects[["reason", "detail"]].to_numpy().tolist() == [["exam_parent", "s2"]]


def _messy() -> pd.DataFrame:
    table = qa(
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
    exam = {"e": qa(("What is the boiling point of water at sea level in degrees?", "100"))}
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
    kept, rejects, _ = curate(qa(("Why is the sky blue?", "Rayleigh scattering")))
    assert (len(kept), len(rejects)) == (1, 0)


def test_parquet_gives_the_same_result(tmp_path):
    table = qa(("Pick the largest planet of all.", "B"), ("Pick the smallest planet of all.", "A"))
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


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=40), st.text(max_size=20)), max_size=12))
def test_any_text_is_curated_without_loss(rows):
    table = qa(*rows) if rows else _messy().iloc[:0]
    kept, rejects, _ = curate(table, {"e": table.iloc[:2]})
    assert sorted([*kept["id"], *rejects["id"]]) == sorted(table["id"])
