"""The QA table: its ids, what is refused and how the refusal reads, and the way through Parquet."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qatoolkit.core.qa_table import (
    COLUMNS,
    OPTIONAL,
    REQUIRED,
    as_lists,
    qa_id,
    qa_table,
    read_table,
    validate,
    write_table,
)
from qatoolkit.core.text import normalise

ROW = {"question": "What is 2 + 2?", "answer": "4", "language": "en", "source": "hand"}
TEXT = st.text(st.characters(max_codepoint=0x24F) | st.characters(min_codepoint=0x3000, max_codepoint=0x9FFF))


def table(**changes):
    return qa_table([ROW | changes])


def test_a_table_has_all_columns_and_null_where_nothing_is_known():
    made = table()
    assert tuple(made.columns) == COLUMNS
    assert made[list(REQUIRED)].notna().all(axis=None)
    assert made[list(OPTIONAL)].isna().all(axis=None)


def test_constants_fill_columns_and_rows_win_over_them():
    made = qa_table([ROW, ROW | {"question": "And 3 + 3?", "licence": "CC0-1.0"}], licence="Apache-2.0")
    assert list(made["licence"]) == ["Apache-2.0", "CC0-1.0"]


def test_unknown_columns_do_not_enter_the_table():
    assert "colour" not in table(colour="red")


def test_no_rows_are_a_table_too():
    assert tuple(qa_table([]).columns) == COLUMNS
    assert len(validate(qa_table([]))) == 0


@given(TEXT)
def test_normalising_twice_changes_nothing(text):
    once = normalise(text)
    assert normalise(once) == once


@pytest.mark.parametrize("other", ["what is 2 + 2?", "  What  is\t2 + 2?\n", "What is ２ + ２?", "WHAT IS 2 + 2?"])
def test_case_width_and_blanks_do_not_change_an_id(other):
    assert qa_id(other, "4") == qa_id("What is 2 + 2?", "4")


def test_powers_and_mixed_numbers_are_not_read_as_other_numbers():
    assert qa_id("What is 2³?", "no") != qa_id("What is 23?", "no")
    assert [normalise(text) for text in ("10⁻³ m²s", "1½", "(a+b)²")] == ["10^-3 m^2 s", "1 1⁄2", "(a+b)^2"]
    assert normalise("Fe²⁺, ¹⁴C and H₂O") == "fe2+, 14c and h2o"


def test_question_answer_and_choices_change_an_id():
    ids = {
        qa_id("a", "b"),
        qa_id("a", "c"),
        qa_id("ab", ""),
        qa_id("a", "b", ["b", "c"]),
        qa_id("a", "b", ["c", "b"]),
        qa_id("a", "b", []),
    }
    assert len(ids) == 6
    assert all(len(id) == 16 and int(id, 16) >= 0 for id in ids)


def test_ids_are_the_same_in_every_session():
    assert qa_id("What is 2 + 2?", "4") == "a17c1986c3cc832b"


def test_a_given_id_is_kept():
    assert table(id="mine")["id"].item() == "mine"


@pytest.mark.parametrize("column", REQUIRED)
def test_a_missing_required_column_is_named(column):
    with pytest.raises(ValueError, match=f"no column '{column}'"):
        validate(table().drop(columns=column))


@pytest.mark.parametrize("column", ["question", "answer", "language", "source"])
@pytest.mark.parametrize("value", [None, "", "  "])
def test_an_empty_required_value_is_named_with_its_row(column, value):
    made = pd.concat([table(), table(question="Another?")], ignore_index=True)
    made.loc[1, column] = value
    with pytest.raises(ValueError, match=f"{column} is empty in row 1"):
        validate(made)


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("language", "fr", "en, zh"),
        ("discipline", "alchemy", "mathematics"),
        ("difficulty", "H6", "H1, H2, H3, H4, H5"),
        ("grade", "kindergarten", "primary, middle"),
    ],
)
def test_a_wrong_label_is_named_with_what_is_allowed(column, value, allowed):
    with pytest.raises(ValueError, match=f"{column} is '{value}' in row 0; allowed: .*{allowed}"):
        table(**{column: value})


def test_an_id_that_stands_twice_is_named():
    with pytest.raises(ValueError, match=r"id 'x' occurs twice"):
        qa_table([ROW | {"id": "x"}, ROW | {"id": "x", "question": "Another?"}])


def test_lists_survive_parquet_as_lists_and_nulls_as_nulls(tmp_path):
    made = qa_table(
        [
            ROW | {"choices": ["3", "4"], "answer_index": 1, "knowledge_points": ["sums"], "parents": []},
            ROW | {"question": "Another?"},
        ]
    )
    write_table(made, tmp_path / "t.parquet")
    back = read_table(tmp_path / "t.parquet")
    assert back["choices"].tolist() == [["3", "4"], None]
    assert back["knowledge_points"].tolist() == [["sums"], None]
    assert back["parents"].tolist() == [[], None]
    assert validate(back)["question"].tolist() == made["question"].tolist()


def test_as_lists_leaves_its_input_alone():
    made = table(choices=("3", "4"))
    assert as_lists(made)["choices"].item() == ["3", "4"]
    assert made["choices"].item() == ("3", "4")
