"""Seeds: every row in is a row of the table or a reject with its reason, whatever the source looks like."""

import datetime
import gzip
import json
import lzma
import os
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REAL, ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from qatoolkit.core.qa_table import REQUIRED, validate
from qatoolkit.seeds.choices import REASONS, make_choices, parse_choices, split_options
from qatoolkit.seeds.columns import detect_language
from qatoolkit.seeds.files import READERS
from qatoolkit.seeds.layouts import LAYOUTS, Layout
from qatoolkit.seeds.read import REJECT_COLUMNS, layout_report, quality_report, read_seeds, summary
from qatoolkit.seeds.readings import find_readings

SAMPLES = ROOT / "data" / "samples"
needs_real_data = pytest.mark.skipif(
    not (REAL / "aqua.jsonl").exists(), reason=f"no real data in {REAL}; set QATOOLKIT_REAL_DATA"
)


def one(**record):
    """The table's only row for one record."""
    table, rejects = read_seeds([record])
    assert rejects.empty, rejects.iloc[0].to_dict()
    return table.iloc[0]


def reason(**record):
    """The reason for which one record is rejected."""
    table, rejects = read_seeds([record])
    assert table.empty
    return rejects["reason"].item()


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# The samples


@pytest.mark.parametrize(
    ("file", "accepted", "reasons"),
    [
        ("science_choices.jsonl", 12, ["answer_outside_choices", "not_json"]),
        ("general_columns.csv", 12, ["field_count"]),
        ("zh_embedded.jsonl", 12, ["duplicate", "empty_answer"]),
        ("instructions.json", 12, ["empty_question"]),
    ],
)
def test_each_sample_reads_with_its_known_faults(file, accepted, reasons):
    table, rejects = read_seeds(SAMPLES / file, licence="Apache-2.0")
    assert len(table) == accepted
    assert list(rejects["reason"]) == reasons
    assert set(table["strategy"]) == {"seed"}
    assert set(table["licence"]) == {"Apache-2.0"}
    assert set(table["source"]) == {Path(file).stem}


def test_a_folder_reads_as_its_files_joined():
    table, rejects = read_seeds(SAMPLES)
    parts = [read_seeds(file) for file in sorted(SAMPLES.iterdir())]
    assert list(table["id"]) == [id for part, _ in parts for id in part["id"]]
    assert len(rejects) == sum(len(part) for _, part in parts)


def test_sources_of_one_name_stay_apart():
    table, rejects = read_seeds([[{"question": f"q{i}?", "answer": "a"}] for i in range(2)])
    assert list(table["file"]) == ["rows", "rows (2)"]
    assert set(table["source"]) == {"rows"}
    assert rejects.empty


def test_several_sources_of_any_kind_join_in_one_call():
    rows = [{"question": "What is 1 + 1?", "answer": "2"}]
    table, _ = read_seeds([SAMPLES / "general_columns.csv", rows, pd.DataFrame(rows)])
    assert len(table) == 13  # the last row is a duplicate of the one before
    assert list(table["source"].unique()) == ["general_columns", "rows"]


def test_the_right_choice_is_the_answer_and_its_index():
    table, _ = read_seeds(SAMPLES)
    single = table[table["answer_index"].notna()]
    assert len(single) == 35
    assert all(row.choices[row.answer_index] == row.answer for row in single.itertuples())


def test_reading_a_saved_table_again_changes_no_id_and_no_source(tmp_path):
    table, _ = read_seeds(SAMPLES, licence="Apache-2.0")
    table.to_parquet(tmp_path / "seeds.parquet")
    again, rejects = read_seeds(tmp_path / "seeds.parquet")
    assert rejects.empty
    for column in (*REQUIRED, "answer_index", "licence"):
        assert list(again[column].fillna(-1)) == list(table[column].fillna(-1)), column


# Layouts


@pytest.mark.parametrize(
    "choices",
    [
        ["red", "green", "blue"],
        {"A": "red", "B": "green", "C": "blue"},
        {"text": ["red", "green", "blue"], "label": ["A", "B", "C"]},
        [{"label": "A", "text": "red"}, {"label": "B", "text": "green"}, {"label": "C", "text": "blue"}],
        ["A) red", "B) green", "C) blue"],
        "A. red\nB. green\nC. blue",
        "a ) red , b ) green , c ) blue",
        "['red', 'green', 'blue']",
        '["red", "green", "blue"]',
        "['red' 'green'\n 'blue']",
        "{'text': array(['red', 'green', 'blue'], dtype=object), 'label': array(['A', 'B', 'C'])}",
        "red|green|blue",
        np.array(["red", "green", "blue"]),
    ],
)
def test_choices_read_from_every_layout(choices):
    row = one(question="Which colour has grass?", choices=choices, answer="B")
    assert row["choices"] == ["red", "green", "blue"]
    assert (row["answer"], row["answer_index"]) == ("green", 1)


@pytest.mark.parametrize(
    "columns",
    ["A B C", "option_a option_b option_c", "opa opb opc", "Choice1 Choice2 Choice3", "ending0 ending1 ending2"],
)
def test_choices_read_from_a_column_each(columns):
    record = dict(zip(columns.split(), ["red", "green", "blue"], strict=True))
    assert one(question="Which colour has grass?", answer="B", **record)["choices"] == ["red", "green", "blue"]


@pytest.mark.parametrize(
    "answer",
    [
        "B",
        "b",
        "(B)",
        "B.",
        "B) green",
        "green",
        "Green",
        "Answer: B",
        "The answer is B",
        "答案：B",
        "故选：B",
        "**B**",
        ["B"],
    ],
)
def test_one_answer_reads_from_every_form(answer):
    row = one(question="Which colour has grass?", choices=["red", "green", "blue"], answer=answer)
    assert (row["answer"], row["answer_index"]) == ("green", 1)


@pytest.mark.parametrize("answer", ["AC", "A, C", "C、A", "A and C", "A和C", ["A", "C"], ["blue", "red"], "['A', 'C']"])
def test_several_right_choices_become_sorted_letters_without_an_index(answer):
    row = one(question="Which colours has the flag?", choices=["red", "green", "blue"], answer=answer)
    assert row["answer"] == "AC"
    assert pd.isna(row["answer_index"])


@pytest.mark.parametrize(
    ("record", "question", "answer", "rationale"),
    [
        ({"question": "q?", "answer": "2 + 3 = 5\n#### 5"}, "q?", "5", "2 + 3 = 5"),
        (
            {"problem": "q?", "solution": r"It is $\boxed{\frac{1}{2}}$."},
            "q?",
            r"\frac{1}{2}",
            r"It is $\boxed{\frac{1}{2}}$.",
        ),
        ({"problem": "q?", "solution": "long", "answer": "5"}, "q?", "5", "long"),
        ({"instruction": "Opposite?", "input": "hot", "output": "cold"}, "Opposite?\n\nhot", "cold", None),
        ({"input": "q?", "target": "5"}, "q?", "5", None),
        ({"passage": "Text.", "question": "q?", "answer": True}, "Text.\n\nq?", "true", None),
        ({"context": "Text.", "question": "q?", "answers": {"text": ["Rome", "rome"]}}, "Text.\n\nq?", "Rome", None),
        ({"题目": "多少？", "答案": "5", "解析": "因为"}, "多少？", "5", "因为"),
        ({"Question": "q?", "Correct Answer": "5", "Explanation": "so"}, "q?", "5", "so"),
        ({"question": "q?", "answer": [1, 2]}, "q?", "[1, 2]", None),
        ({"question": "q?", "answer": ["C", "C", "B"]}, "q?", "C, C, B", None),
    ],
)
def test_fields_map_from_the_names_benchmarks_use(record, question, answer, rationale):
    row = one(**record)
    assert (row["question"], row["answer"]) == (question, answer)
    assert row["rationale"] == rationale if rationale else pd.isna(row["rationale"])


def test_mapping_names_columns_and_nested_paths_and_is_checked():
    rows = [{"Frage": {"text": "q?"}, "x": "red", "y": "green", "S": "B", "Fach": "art"}]
    mapping = {"question": "Frage.text", "choices": ["x", "y"], "answer": "S", "subject": "Fach"}
    row = read_seeds(rows, mapping=mapping)[0].iloc[0]
    assert (row["question"], row["answer"], row["subject"]) == ("q?", "green", "art")
    with pytest.raises(ValueError, match="'Nope', but the seeds have Fach, Frage"):
        read_seeds(rows, mapping={"question": "Nope"})
    with pytest.raises(ValueError, match="field 'stem'; allowed: question"):
        read_seeds(rows, mapping={"stem": "Frage"})


def test_labels_of_the_source_are_kept_beside_ours():
    row = one(
        id="q-1", question="q?", answer="a", subject="botany", level="easy", licence="MIT", source="flora", grade="high"
    )
    assert tuple(row[["source_id", "subject", "level", "licence", "source"]]) == (
        "q-1",
        "botany",
        "easy",
        "MIT",
        "flora",
    )
    assert row["grade"] == "high"


def test_a_source_column_of_web_addresses_is_the_origin_not_the_source():
    rows = [{"question": f"q{i}?", "answer": "a", "source": f"https://example.org/{i}"} for i in range(2)]
    table, _ = read_seeds(rows, name="mine")
    assert list(table["source"]) == ["mine", "mine"]
    assert list(table["origin"]) == ["https://example.org/0", "https://example.org/1"]
    assert set(read_seeds(rows)[0]["source"]) == {"rows"}


# Layouts by columns that belong together


Q = "Which is a metal?"


@pytest.mark.parametrize(
    "record",
    [
        {"right_answer": "tin", "wrong_answer_1": "oak", "wrong_answer_2": "silk"},
        {"answer": "tin", "distractors": ["oak", "silk"]},
        {"answer": "tin", "distractors": '["oak", "silk"]'},
        {"correct": "tin", "wrong1": "oak", "wrong2": "silk", "wrong3": None},
        {"Best Answer": "tin", "Incorrect Answers": "oak; silk"},
        {"options": ["tin", "oak", "silk"], "gold_idx": 0},
        {"answers": ["oak", "tin", "silk"], "correctIndex": 1},
        {"answers": ["oak", "tin", "silk"], "correct_answer": "B"},
        {"answers": [{"text": "oak", "correct": False}, {"text": "silk"}, {"text": "tin", "correct": True}]},
        {"options": [{"option": t, "isCorrect": int(t == "tin")} for t in ("oak", "tin", "silk")]},
        {"choices": ["oak", "tin", "silk"], "is_correct": [0, 1, 0]},
        {"option_scores": {"oak": 0, "tin": 1, "silk": 0}},
        {"options": {"A": {"text": "oak"}, "B": {"text": "tin"}, "C": {"text": "silk"}}, "answer": "B"},
        {"options": {"choices": [{"id": c, "body": t} for c, t in zip("abc", ("oak", "silk", "tin"), strict=True)]}}
        | {"answer": "c"},
        {"options": [["A", "oak"], ["B", "tin"], ["C", "silk"]], "answer": "B"},
        {"options": [[["oak"]], [["tin"]], [["silk"]]], "answer": "B"},
        {"true_answer": "tin", "false_answer_1": "oak", "false_answer_2": "silk"},
        {"option1": "oak", "option2": "tin", "option3": "silk", "answer": "option2"},
        {"options": ["1. oak", "2. tin", "3. silk"], "answer_text": "2"},
        {"answers": [{"aid": 1, "atext": "oak"}, {"aid": 2, "atext": "tin"}, {"aid": 3, "atext": "silk"}], "ra": 2},
        {"answers": {"answer_a": "oak", "answer_b": "tin", "answer_c": "silk"}, "correct_answer": "answer_b"},
        {"options": {"option_a": "oak", "option_b": "tin", "option_c": "silk"}, "answer": "B"},
        {"options": [json.dumps({"label": c, "text": t}) for c, t in zip("ABC", ("oak", "tin", "silk"), strict=True)]}
        | {"answer": "B"},
        {"choices": ["oak", "tin", "silk"], "answer": None, "label": "B"},
        {"choices": ["oak", "tin", "silk"], "answer": "because it conducts", "label": "B"},
    ],
)
def test_right_choice_reads_from_columns_that_belong_together(record):
    row = one(question=Q, **record)
    assert sorted(row["choices"]) == ["oak", "silk", "tin"]
    assert (row["answer"], row["choices"][row["answer_index"]]) == ("tin", "tin")


def test_a_right_answer_beside_wrong_ones_is_a_text_even_where_it_is_a_letter():
    for i in range(9):
        row = one(question=f"Blood group {i}?", correct_answer="A", incorrect_answers=["B", "AB", "O"])
        assert (row["answer"], row["choices"][row["answer_index"]]) == ("A", "A")
    assert one(question="True?", correct_answer="True", incorrect_answer_1="False")["answer"] == "True"


def test_the_right_answer_beside_wrong_ones_has_no_fixed_place():
    rows = [{"question": f"q{i}?", "answer": "r", "distractors": ["x", "y", "z"]} for i in range(200)]
    shares = read_seeds(rows)[0]["answer_index"].value_counts(normalize=True)
    assert shares.between(0.15, 0.35).all()
    assert list(read_seeds(rows[::-1])[0]["id"])[::-1] == list(read_seeds(rows)[0]["id"])


@pytest.mark.parametrize(
    ("record", "answer", "aliases"),
    [
        ({"answer": ["Ann Lee", "A. Lee"]}, "Ann Lee", ["A. Lee"]),
        ({"answer": "Ann Lee", "aliases": "A. Lee; Annie"}, "Ann Lee", ["A. Lee", "Annie"]),
        ({"answer": [["Ann Lee", "A. Lee"]]}, "Ann Lee", ["A. Lee"]),
        ({"answer": "['Ann Lee', 'A. Lee']"}, "Ann Lee", ["A. Lee"]),
        ({"answers": [{"text": "Ann Lee", "answer_start": 3}, {"text": "A. Lee"}]}, "Ann Lee", ["A. Lee"]),
        ({"answers": [{"text": "Ann Lee"}, {"text": "Ann Lee"}]}, "Ann Lee", None),
        ({"answer": {"value": "Ann Lee", "aliases": ["A. Lee"]}}, "Ann Lee", ["A. Lee"]),
        ({"answer": ["1", "-1"]}, "1, -1", None),
        ({"answer": ["$x$", "$x$"]}, "$x$", None),
        ({"answer": ["A", "C"]}, "A, C", None),
    ],
)
def test_wordings_of_an_answer_are_aliases_and_parts_stay_one_answer(record, answer, aliases):
    row = one(question=Q, **record)
    assert row["answer"] == answer
    assert (row["aliases"] or None) == aliases


def test_a_list_beside_its_first_member_is_wordings_only_where_its_length_varies():
    rows = [{"question": "q1?", "answer": "tin", "answers": ["tin", "oak", "silk"]}]
    rows += [{"question": "q2?", "answer": "elm", "answers": ["elm", "lead", "wool"]}]
    table, rejects = read_seeds(rows)  # choices or wordings: nobody can tell
    assert table["aliases"].isna().all()
    assert quality_report(table, rejects)["unused"].iloc[0] == "answers"
    rows[1]["answers"] = ["elm", "elm tree"]
    assert read_seeds(rows)[0]["aliases"].tolist() == [["oak", "silk"], ["elm tree"]]
    assert (
        reason(question=Q, answer=[["a b", "c d"], ["e f"]]) == reason(question=Q, answer={"x": "y"}) == "nested_answer"
    )


def test_the_rows_of_a_source_decide_what_its_lists_hold_and_the_report_says_so():
    rows = [
        {"question": f"q{i}?", "answer": a} for i, a in enumerate((["in 1912", "1912"], ["1912", "1913"], ["x y", "z"]))
    ]
    table, rejects = read_seeds(rows)
    assert list(table["answer"]) == ["in 1912", "1912", "x y"]
    assert "lists of answers by wordings of one answer" in quality_report(table, rejects)["read_as"].iloc[0]


def test_aliases_change_no_id_and_survive_a_saved_table(tmp_path):
    table, _ = read_seeds([{"question": Q, "answer": "tin", "aliases": ["Sn"]}])
    assert table["id"].item() == read_seeds([{"question": Q, "answer": "tin"}])[0]["id"].item()
    table.to_parquet(tmp_path / "t.parquet")
    assert read_seeds(tmp_path / "t.parquet")[0]["aliases"].item() == ["Sn"]


@pytest.mark.parametrize(
    ("record", "answer"),
    [
        ({"answer": "5.0", "unit": "km"}, "5.0 km"),
        ({"answer": 3, "unit": "km"}, "3 km"),
        ({"answer": "3 km", "unit": "km"}, "3 km"),
        ({"answer": "the dog", "unit": "km"}, "the dog"),
        ({"answer": "5", "unit": "Unit 3: Motion"}, "5"),
        ({"answer": "5", "unit": "Fractions and decimals"}, "5"),
        ({"answer": "5", "scale": "4"}, "5"),
        ({"answer": "12.5", "scale": "percent"}, "12.5 percent"),
        ({"value": "5.0", "exponent": -3, "units": "m"}, r"5.0 \times 10^{-3} m"),
        ({"answer": "5.0", "power": "10^{3}", "unit": ""}, r"5.0 \times 10^{3}"),
        ({"answer": "5.0", "unit": "10⁻³ m"}, r"5.0 \times 10^{-3} m"),
        ({"answer": "5.0", "unit": r"$\times 10^{3} \mathrm{~Pa}$"}, r"5.0 \times 10^{3} $\mathrm{~Pa}$"),
        ({"answer": "$5.0$", "unit": "$10^2$ m"}, r"$5.0 \times 10^{2}$ m"),
        ({"answer": r"5 \times 10^{3}", "unit": "10^3 m"}, r"5 \times 10^{3} m"),
        ({"answer": "5", "unit": "m^2"}, "5 m^2"),
        ({"answer": "25", "unit": "%"}, "25 %"),
        ({"answer": [1.5], "scale": "million"}, "1.5 million"),
        ({"answer": {"number": "5", "unit": "kg"}}, "5 kg"),
        ({"answer": "3.5", "multiplier": "10^6", "unit": "Hz"}, r"3.5 \times 10^{6} Hz"),
        ({"answer": "3.5", "factor": 1000}, r"3.5 \times 10^{3}"),
    ],
)
def test_unit_and_power_of_ten_are_part_of_a_number(record, answer):
    assert one(question="How much?", **record)["answer"] == answer


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"so $\boxed 2$.", "2"),
        (r"\boxed 12", "12"),
        (r"$\boxed\frac{1}{2}$", r"\frac{1}{2}"),
        (r"we get \boxed x.", "x"),
        (r"$$\boxed{ \{1, 2\} }$$", r"\{1, 2\}"),
        (r"\fbox{7}", "7"),
        (r"\boxed{1}, \boxed{2}", "1, 2"),
        (r"$\boxed{x=1}$ \text{ or } $\boxed{x=2}$", "x=1, x=2"),
        (r"\boxed{4} hence \boxed{4}", "4"),
        (r"\boxed{3} is wrong. It is \boxed{4}", None),
        (r"\boxed{3 apples", None),
        (r"\boxed{}", None),
        (r"\boxed the end", None),
    ],
)
def test_a_box_is_read_whole_or_its_row_is_rejected(solution, answer):
    if answer is None:
        assert reason(problem="P?", solution=solution) == "unclear_box"
    else:
        assert one(problem="P?", solution=solution)["answer"] == answer


def test_keys_that_are_withheld_and_answers_marked_wrong_are_rejects():
    for key in (-1, "-1", "?", -1.0):
        assert reason(question=Q, choices=["tin", "oak"], label=key) == "withheld"
    assert reason(question=Q, choices=["tin", "oak"], answerKey="") == "empty_answer"
    table, rejects = read_seeds([{"question": Q, "answer": a, "label": k} for a, k in (("tin", 1), ("oak", 0))])
    assert (table["answer"].item(), rejects["reason"].item()) == ("tin", "marked_wrong")


def test_columns_that_look_like_answers_and_are_not_used_are_named():
    rows = [
        {"question": Q, "answer": "tin", "gold_answer_text": "b", "pool": ["x", "y"], "answer_type": "text", "n": 1}
    ]
    table, rejects = read_seeds(rows)
    assert quality_report(table, rejects)["unused"].iloc[0] == "gold_answer_text, pool"
    report = layout_report(table)
    assert report[["file", "rows", "layout", "question", "answer"]].values.tolist() == [
        ["rows", 1, "by names", "question", "answer"]
    ]


def test_a_layout_of_your_own_is_one_entry_and_comes_first():
    cards = [{"front": "Metal?", "Back Side": "tin", "bluffs": ["oak", "silk"], "answer": "n/a"}]
    assert read_seeds(cards)[1]["reason"].item() == "no_question"
    mine = Layout(name="flash cards", columns={"question": "front", "answer": "back_side", "wrong": "bluffs"})
    LAYOUTS.append(mine)
    try:
        table, _ = read_seeds(cards)
    finally:
        LAYOUTS.remove(mine)
    assert (table["answer"].item(), len(table["choices"].item())) == ("tin", 3)
    assert layout_report(table)["layout"].item() == "flash cards"
    with pytest.raises(ValueError, match=r"flash cards.*'stem'; allowed: question"):
        Layout(name="flash cards", columns={"stem": "front"})


# Letter, text or index: the rows of a source decide together


def answers(choices, given):
    table, _ = read_seeds([{"question": f"q{i}?", "choices": choices, "answer": a} for i, a in enumerate(given)])
    return list(table["answer"]), table.attrs["read_as"]["rows"]


@pytest.mark.parametrize(
    ("answers", "right"),
    [
        ([1, 2, 3, 4], ["4", "3", "2", "1"]),  # an index fits as often as the text
        ([1, 2, 3, 4, 22], ["1", "2", "3", "4", "22"]),  # the text fits one row more
        ([0, 1, 2, 3, 22], ["4", "3", "2", "1", None]),  # and here an index does
        ([2, 4, "3", 22], ["2", "4", "3", "22"]),
    ],
)
def test_a_number_beside_choices_of_numbers_is_read_one_way_in_all_rows(answers, right):
    rows = [
        {"question": f"What is {i} and {a}?", "choices": ["22" if a == 22 else "4", "3", "2", "1"], "answer": a}
        for i, a in enumerate(answers)
    ]
    table, rejects = read_seeds([rows])
    assert table["answer"].tolist() == [a for a in right if a]
    assert rejects["reason"].tolist() == ["answer_outside_choices"] * right.count(None)


def test_an_index_counts_from_where_most_rows_say():
    assert answers(["x", "y", "z"], [0, 1, 2]) == (["x", "y", "z"], "rows, answers by index from 0")
    assert answers(["x", "y", "z"], [1, 2, 3]) == (["x", "y", "z"], "rows, answers by index from 1")


def test_an_undecided_index_counts_from_0_and_the_report_says_so():
    assert answers(["x", "y", "z"], [1, 2]) == (["y", "z"], "rows, answers by index from 0 (index from 1 fits as well)")


def test_digits_among_numeric_choices_are_texts_where_the_source_writes_texts():
    assert answers(["3", "4", "5", "6"], ["3", "4", "5"])[0] == ["3", "4", "5"]
    assert answers([3, 4, 5, 6], [3, 4, 6])[0] == ["3", "4", "6"]
    assert answers(["3", "1", "5", "6"], [0, 1, 3])[0] == ["3", "1", "6"]


def test_an_index_of_the_other_base_is_rejected_not_guessed():
    rows = [{"question": f"q{i}?", "choices": ["x", "y", "z"], "answer": a} for i, a in enumerate([0, 0, 1, 3])]
    _, rejects = read_seeds(rows)
    assert list(rejects[["row", "reason"]].itertuples(index=False, name=None)) == [(4, "answer_outside_choices")]


def test_blood_groups_are_texts_and_not_letters():
    assert answers(["A", "B", "AB", "O"], ["AB", "O", "A"])[0] == ["AB", "O", "A"]


# Options in the stem


@pytest.mark.parametrize(
    "text",
    [
        "Which is a fruit?\nA. apple\nB. chair\nC. stone",
        "Which is a fruit? (A) apple (B) chair (C) stone",
        "Which is a fruit? A) apple B) chair C) stone",
        "Which is a fruit?A．apple B．chair C．stone",
        "Which is a fruit? A、apple B、chair C、stone",
        "Which is a fruit?\nA: apple\nB: chair\nC: stone",
    ],
)
def test_options_in_the_stem_become_choices(text):
    assert split_options(text) == ("Which is a fruit?", ["apple", "chair", "stone"])
    assert one(question=text, answer="A")["answer"] == "apple"


@pytest.mark.parametrize("column", ["label", "correct_option", "cop", "answer_key"])
def test_a_number_in_a_column_of_labels_names_an_option_in_the_stem(column):
    texts = [f"Which is number {i}?\nA. oak\nB. elm\nC. ash" for i in range(6)]
    read, _ = read_seeds([{"prompt": text, column: i % 3} for i, text in enumerate(texts)])
    assert read["answer"].tolist() == ["oak", "elm", "ash"] * 2
    open_answers, _ = read_seeds([{"prompt": text, "answer": i % 3 + 4} for i, text in enumerate(texts)])
    assert open_answers["answer"].tolist() == ["4", "5", "6"] * 2
    assert open_answers["choices"].isna().all()


@pytest.mark.parametrize("column", ["cop", "ans", "答案"])
def test_a_list_of_answers_beside_a_label_holds_the_choices(column):
    rows = [{"question": f"Tree {i}?", "answers": ["oak", "elm", "ash"], column: "ABC"[i % 3]} for i in range(6)]
    read, _ = read_seeds(rows)
    assert read["answer"].tolist() == ["oak", "elm", "ash"] * 2
    assert read["choices"].map(len).tolist() == [3] * 6


@pytest.mark.parametrize(
    "text",
    [
        "Vitamin A. is it a fruit?",
        "A. apple C. stone",
        "(1) A. a B. b C. c (2) A. d B. e C. f",
        "A.  B. chair",
        "The force $F_{A}$ and $\\mathrm{A}. B$",
        "no options",
    ],
)
def test_what_is_no_single_list_of_options_is_left_alone(text):
    assert split_options(text) is None


def test_points_named_in_chinese_do_not_hide_the_options():
    text = "A、B两点间的距离是（ ）\nA、1 B、2 C、3 D、4"
    assert split_options(text) == ("A、B两点间的距离是（ ）", ["1", "2", "3", "4"])


def test_options_stay_in_the_stem_where_the_answer_points_at_none():
    text = "Fill the blanks: __ and __.\nA. one\nB. two\nC. three"
    for answer in ("C, A", "A; C", "four", "E"):
        row = one(question=text, answer=answer)
        assert (row["question"], row["answer"]) == (text, answer)
        assert row["choices"] is None


WORDS = st.text("abcdefghijklmnop 0123456789山水火", min_size=1, max_size=12).map(str.strip).filter(bool)


@given(
    options=st.lists(WORDS, min_size=2, max_size=8, unique_by=lambda s: " ".join(s.split())),
    stem=WORDS,
    style=st.sampled_from(["\n{}. ", " ({}) ", " {}、", "\n{}：", " {}) "]),
)
def test_options_written_into_a_stem_come_back(options, stem, style):
    text = stem + "".join(style.format("ABCDEFGH"[i]) + option for i, option in enumerate(options))
    assert split_options(text) == (stem, options)


@given(st.text(max_size=200))
def test_splitting_any_text_loses_no_option(text):
    found = split_options(text)
    if found:
        stem, options = found
        assert len(options) > 1
        assert all(part in text for part in (stem, *options))


@given(
    options=st.lists(WORDS, min_size=2, max_size=10, unique_by=lambda s: " ".join(s.split())),
    data=st.data(),
    style=st.sampled_from(["{}", "({})", "{}.", "Answer: {}", "答案：{}", "[{}]"]),
)
def test_a_letter_in_any_dress_names_its_choice(options, data, style):
    choices = make_choices(options)
    index = data.draw(st.integers(0, len(choices.texts) - 1))
    assert find_readings(style.format("ABCDEFGHIJ"[index]), choices)["letter"] == (index,)


@given(count=st.integers(3, 10), data=st.data(), joint=st.sampled_from(["", ", ", "、", " and ", "/", " "]))
def test_several_letters_name_their_choices(count, data, joint):
    choices = make_choices([f"choice number {i}" for i in range(count)])
    chosen = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=2)))
    assert find_readings(joint.join("ABCDEFGHIJ"[i] for i in chosen), choices)["letter"] == tuple(chosen)


@given(st.lists(WORDS, min_size=2, max_size=6, unique_by=lambda s: " ".join(s.split())))
def test_choices_survive_being_written_as_json_and_as_python(options):
    expected = make_choices(options)
    assert parse_choices(json.dumps(options)) == expected
    assert parse_choices(repr(options)) == expected
    assert parse_choices(dict(zip("ABCDEF", options, strict=False))).texts == expected.texts


# Rejects

LINES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Z"]), min_size=1, max_size=60)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=30)
VALUES = st.recursive(
    LEAVES, lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=5), x, max_size=4), max_leaves=8
)
FIELDS = st.sampled_from(
    ["question", "answer", "choices", "A", "B", "C", "solution", "context", "language", "id", "grade"]
)


@settings(max_examples=120, deadline=None)
@given(st.lists(st.dictionaries(FIELDS, VALUES, max_size=7) | LEAVES, min_size=1, max_size=5))
def test_any_rows_are_accepted_or_rejected_and_never_lost(rows):
    if not any(isinstance(row, dict) for row in rows):
        rows.append({})
    table, rejects = read_seeds(rows)
    assert len(table) + len(rejects) == len(rows)
    assert sorted([*table["row"], *rejects["row"]]) == list(range(1, len(rows) + 1))
    assert set(rejects["reason"]) <= set(REASONS)
    for raw in rejects["raw"]:
        json.loads(raw)
    validate(table)


@settings(max_examples=100, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=6))
def test_any_lines_are_accepted_or_rejected_and_never_lost(tmp_path_factory, lines):
    file = tmp_path_factory.mktemp("lines") / "seeds.jsonl"
    good = json.dumps({"question": "What is 1 + 1?", "answer": "2"})
    file.write_bytes("\n".join([good * 3, *lines, good]).encode())
    table, rejects = read_seeds(file)
    assert len(table) + len(rejects) == len(lines) + 2
    assert len(table) == 1


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"text": "q?", "answer": "a"}, "no_question"),
        ({"question": "q?"}, "no_answer"),
        ({"question": " \u200b？", "answer": "a"}, "empty_question"),
        ({"question": "q?", "answer": " "}, "empty_answer"),
        ({"question": "q?", "answer": float("nan")}, "empty_answer"),
        ({"question": "q?", "answer": "work #### "}, "empty_answer"),
        ({"question": "a\0b", "answer": "a"}, "null_byte"),
        ({"question": "a \ud800", "answer": "a"}, "undecodable"),
        ({"question": "a" * 1_000_000, "answer": "a"}, "too_long"),
        ({"question": "q?", "choices": ["x"], "answer": "A"}, "one_choice"),
        ({"question": "q?", "choices": ["x", ""], "answer": "A"}, "empty_choice"),
        ({"question": "q?", "choices": ["x", " x"], "answer": "A"}, "duplicate_choices"),
        ({"question": "q?", "choices": "x, y", "answer": "A"}, "bad_choices"),
        ({"question": "q?", "choices": {"x": True, "y": False}, "answer": "x"}, "bad_choices"),
        ({"question": "q?", "choices": ["x", "y"], "answer": "C"}, "answer_outside_choices"),
        ({"question": "q?", "choices": ["x", "y"], "answer": "7"}, "answer_outside_choices"),
        ({"question": "q?", "choices": ["x", "y"], "answer": "none of them"}, "answer_not_in_choices"),
        ({"question": "q?", "choices": ["x", "y"], "answer": "B. x"}, "answer_not_in_choices"),
        ({"question": "Какой город столица?", "answer": "Москва"}, "other_language"),
        ({"question": "q?", "answer": "a", "language": "fr"}, "other_language"),
    ],
)
def test_every_fault_has_its_reason(record, expected):
    assert reason(**record) == expected


def test_choices_that_differ_in_case_or_exponent_are_no_duplicates():
    assert one(question="Which genotype?", choices=["AA", "Aa", "aa"], answer="Aa")["answer_index"] == 1
    assert one(question="Which area?", choices=["22", "2²"], answer="B")["answer"] == "2²"


def test_the_second_of_two_equal_questions_is_a_duplicate_and_says_of_which():
    rows = [{"question": "What is  ２?", "answer": "Two"}, {"question": "what is 2?", "answer": "two"}]
    table, rejects = read_seeds(rows)
    assert table["question"].item() == "What is  ２?"  # as written: NFKC only tells what is the same
    assert rejects[["reason", "detail"]].values.tolist() == [["duplicate", "of rows row 1"]]
    assert json.loads(rejects["raw"].item()) == rows[1]


def test_two_answers_to_the_same_choices_conflict():
    _, rejects = read_seeds([{"question": "q?", "choices": ["x", "y"], "answer": a} for a in "AB"])
    assert rejects["reason"].item() == "conflicting_answer"


def test_language_is_told_by_script():
    assert detect_language("What does 山 mean in English?") == "en"
    assert detect_language(r"已知点$\overrightarrow{PA}$在$\triangle ABC$内，求面积") == "zh"
    assert detect_language("1 + 1 = ?") == "en"


# Files


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
@pytest.mark.parametrize("delimiter", list(",;\t|^"))
def test_csv_reads_in_any_delimiter_and_encoding(tmp_path, delimiter, encoding):
    lines = [["题目", "A", "B", "C", "D", "答案"], ["中国的首都是哪里？", "上海", "北京", "广州", "深圳", "B"]]
    text = "\n".join(delimiter.join(line) for line in lines)
    table, _ = read_seeds(write(tmp_path / "zh.csv", text.encode(encoding)))
    assert (table["answer"].item(), table["language"].item()) == ("北京", "zh")


@pytest.mark.parametrize("encoding", ["cp1252", "mac_roman"])
def test_csv_in_a_western_encoding_keeps_accents_and_apostrophes(tmp_path, encoding):
    text = "question;answer\nWhat’s the author’s name of “La nausée”?;Sartre’s\n"
    table, _ = read_seeds(write(tmp_path / "en.csv", text.encode(encoding)))
    assert table["question"].item() == "What’s the author’s name of “La nausée”?"
    assert encoding in table.attrs["read_as"]["en.csv"]


def test_a_wrong_byte_costs_its_row_not_the_file(tmp_path):
    good = '{"question": "中国的首都是哪里？", "answer": "北京"}\n'.encode()
    table, rejects = read_seeds(write(tmp_path / "x.jsonl", good + b'{"question": "bad \xff byte", "answer": "x"}\n'))
    assert len(table) == 1
    assert rejects["reason"].item() == "undecodable"
    assert "1 wrong bytes" in table.attrs["read_as"]["x.jsonl"]


def test_rejects_of_undecodable_bytes_can_be_stored(tmp_path):
    text = "题目,答案\n中国的首都是哪里？,北京\n".encode().replace(b"\xe7\xad\x94", b"\xe7\xad")
    table, rejects = read_seeds(write(tmp_path / "x.csv", text))
    assert (len(table), rejects["reason"].item()) == (0, "no_answer")
    rejects.to_parquet(tmp_path / "rejects.parquet")


def test_an_open_quote_costs_its_line_not_the_rest(tmp_path):
    text = 'question,answer\n"an open quote,b\nq2 is?,c\n"q3, is?",d\nq4 is?,"open\nq5 is?,f\n'
    table, rejects = read_seeds(write(tmp_path / "x.csv", text))
    assert list(table["answer"]) == ["c", "d", "f"]
    assert list(rejects[["row", "reason"]].itertuples(index=False, name=None)) == [(2, "bad_quotes"), (5, "bad_quotes")]


def test_mmlu_without_a_header_is_recognised(tmp_path):
    table, _ = read_seeds(write(tmp_path / "x.csv", 'What is 2+2?,1,2,3,4,D\n"Which, then?",w,x,y,z,A\n'))
    assert list(table["answer"]) == ["4", "w"]


@pytest.mark.parametrize(
    "document",
    [
        [{"question": "q1?", "answer": "a"}, {"question": "q2?", "answer": "b"}],
        {"version": 1, "data": [{"question": "q1?", "answer": "a"}, {"question": "q2?", "answer": "b"}]},
        {"train": [{"question": "q1?", "answer": "a"}], "test": [{"question": "q2?", "answer": "b"}]},
        {"17": {"QUESTION": "q1?", "final_decision": "a"}, "18": {"QUESTION": "q2?", "final_decision": "b"}},
        {"question": ["q1?", "q2?"], "answer": ["a", "b"]},
        {"question": {"0": "q1?", "1": "q2?"}, "answer": {"0": "a", "1": "b"}},
    ],
)
def test_json_documents_of_every_shape_give_their_rows(tmp_path, document):
    table, _ = read_seeds(write(tmp_path / "x.json", json.dumps(document)))
    assert list(table["answer"]) == ["a", "b"]


def test_parquet_and_dataframes_read_alike(tmp_path):
    frame = pd.DataFrame({"question": ["q1?", None], "choices": [np.array(["x", "y"]), None], "answer": [1, np.nan]})
    frame.to_parquet(tmp_path / "x.parquet")
    for source in (frame, tmp_path / "x.parquet"):
        table, rejects = read_seeds(source)
        assert table["answer"].item() == "y"
        assert rejects["reason"].item() == "empty_question"


def test_hugging_face_data_sets_read_from_memory_and_by_name(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = datasets.Dataset.from_list([{"question": "q1?", "choices": ["x", "y"], "answer": 1}])
    assert read_seeds(data)[0]["answer"].item() == "y"
    assert list(read_seeds(datasets.DatasetDict(train=data, test=data))[1]["detail"]) == ["of train row 1"]
    (tmp_path / "hub").mkdir()
    pd.DataFrame(data.to_list()).to_parquet(tmp_path / "hub" / "train.parquet")
    assert read_seeds(f"hf:{tmp_path}/hub:train")[0]["answer"].item() == "y"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.jsonl", "", "the file is empty"),
        ("a.csv", b"\xef\xbb\xbf \n", "the file is empty"),
        ("a.json", bytes(range(256)) * 20, "it is binary"),
        ("a.json", '[{"question": ', "neither JSON nor JSON lines"),
        ("a.json", "[]", "has no rows"),
        ("a.csv", "question,answer\n", "has no rows"),
        ("a.parquet", b"PAR1 and no more", "broken Parquet"),
        ("a.csv", b"\xff\xfea", "broken UTF-16"),
    ],
)
def test_a_file_unreadable_as_a_whole_is_one_clear_line(tmp_path, file, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_seeds(write(tmp_path / file, content))
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["no/such.jsonl", [], {"question": "q?"}, 5])
def test_what_is_no_source_is_refused(source):
    with pytest.raises(ValueError, match="seeds"):
        read_seeds(source)


def test_a_folder_without_seeds_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no file ending in"):
        read_seeds(tmp_path)


def test_a_folder_is_read_whole_or_says_what_it_left(tmp_path):
    write(tmp_path / "a.jsonl", '{"question": "a?", "answer": "1"}\n')
    write(tmp_path / "b.jsonl.gz", gzip.compress(b'{"question": "b?", "answer": "2"}\n'))
    write(tmp_path / "c.CSV.xz", lzma.compress(b"question,answer\nc?,3\n"))
    write(tmp_path / "d.json", b'\xef\xbb\xbf[{"question": "d?", "answer": "4"}]')
    write(tmp_path / "e.jsonl", "")
    write(tmp_path / "f.csv", "question,answer\n")
    write(tmp_path / "g.json", "[]")
    write(tmp_path / "notes.docx", "x")
    (tmp_path / "old.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.warns(UserWarning, match="not read: e.jsonl .the file is empty.*notes.docx .no reader for .docx"):
        table, rejects = read_seeds(tmp_path)
    assert list(table["answer"]) == ["1", "2", "3", "4"]
    assert list(table["source"]) == ["a", "b", "c", "d"]
    report = quality_report(table, rejects)
    left = report[report["reason"] == "not_read"]
    assert list(left["source"]) == ["e.jsonl", "f.csv", "g.json", "notes.docx", "old.jsonl", "pipe.jsonl"]
    assert report["count"].sum() == 4


@pytest.mark.parametrize(
    "text",
    [
        '[{"question": "a?", "answer": "1"}, {"question": "b?", "answer": "2"}]',
        '[\n  {\n "question": "a?",\n "answer": "1"},\n {"question": "b?", "answer": "2"}\n]',
        '{\n"data": [{"question": "a?", "answer": "1"}, {"question": "b?", "answer": "2"}]}',
        '\ufeff{"question": "a?", "answer": "1"}\n{"question": "b?", "answer": "2"}',
    ],
)
def test_a_json_document_in_a_file_of_json_lines_gives_its_rows(tmp_path, text):
    assert list(read_seeds(write(tmp_path / "x.jsonl", text))[0]["answer"]) == ["1", "2"]


def test_squads_own_files_give_a_row_a_question_with_its_passage(tmp_path):
    qas = [{"question": "Whose hat?", "id": "1", "answers": [{"text": "Ann"}, {"text": "Annie"}]}]
    qas += [{"question": "Whose shoe?", "id": "2", "answers": [], "is_impossible": True}]
    document = {
        "version": "own",
        "data": [{"title": "Hats", "paragraphs": [{"context": "Ann has a hat.", "qas": qas}]}],
    }
    table, rejects = read_seeds(write(tmp_path / "x.json", json.dumps(document)))
    assert table[["question", "answer", "source_id"]].values.tolist() == [["Ann has a hat.\n\nWhose hat?", "Ann", "1"]]
    assert rejects["reason"].tolist() == ["empty_answer"]


def test_what_is_no_file_or_far_too_wide_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(ValueError, match=r"pipe.jsonl: it is not a regular file"):
        read_seeds(tmp_path / "pipe.jsonl")
    names = ",".join(f"c{i}" for i in range(50_000))
    start = time.process_time()
    with pytest.raises(ValueError, match="50,000 columns; a table of questions has at most 1,000"):
        read_seeds(write(tmp_path / "wide.csv", f"{names}\n" + "1," * 49_999 + "1\n"))
    with pytest.raises(ValueError, match="1,001 columns"):
        read_seeds(pd.DataFrame([range(1_001)]))
    assert time.process_time() - start < 5


def test_values_of_tables_read_as_they_are_written(tmp_path):
    days = [datetime.date(1969, 7, 20), datetime.date(2001, 1, 1)]
    columns = {"decimal": [Decimal("2.50"), Decimal("1.00")], "day": days, "clock": [datetime.time(9, 30)] * 2}
    columns |= {"whole": [3.0, None], "float": [2.5, None], "of two": [[Decimal("0.10")], None]}
    expected = {"decimal": ["2.50", "1.00"], "day": ["1969-07-20", "2001-01-01"], "clock": ["09:30:00"] * 2}
    expected |= {"whole": ["3"], "float": ["2.5"], "of two": ["0.10"]}
    for name, cells in columns.items():
        frame = pd.DataFrame({"question": ["a?", "b?"], "answer": cells})
        frame.to_parquet(tmp_path / "x.parquet")
        for source in (frame, tmp_path / "x.parquet"):
            table, rejects = read_seeds(source)
            assert list(table["answer"]) == expected[name], name
            assert len(table) + len(rejects) == 2
    stamps = pd.DataFrame(
        {"question": ["a?", "b?"], "answer": pd.to_datetime(["1969-07-20 00:00", "1969-07-20 20:17"])}
    )
    assert list(read_seeds(stamps)[0]["answer"]) == ["1969-07-20", "1969-07-20T20:17:00"]


def test_parquet_is_as_fast_as_csv(tmp_path):
    frame = pd.DataFrame({"question": [f"What is {i} + 1?" for i in range(5_000)], "A": "x", "B": "y", "answer": "B"})
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    seconds = {}
    for file in ("x.csv", "x.parquet") * 3:
        start = time.process_time()
        assert len(read_seeds(tmp_path / file)[0]) == 5_000
        seconds[file] = min(seconds.get(file, 60.0), time.process_time() - start)
    assert seconds["x.parquet"] < 1.5 * seconds["x.csv"]


# A reader from outside


def read_cards(path):
    """Records of `field: value` lines with a blank line between them; a block of another form as the text it is."""
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        pairs = [line.partition(":") for line in block.splitlines()]
        yield {name: value.strip() for name, _, value in pairs} if all(colon for _, colon, _ in pairs) else block


@pytest.fixture
def cards(monkeypatch, tmp_path):
    """A folder with a file of JSON lines and one in a format that only a reader from outside knows."""
    monkeypatch.setitem(READERS, ".cards", read_cards)
    write(tmp_path / "a.jsonl", '{"question": "What is 1 + 1?", "answer": "2"}\n')
    blocks = ["question: Even?\nA: 3\nB: 4\nanswer: B", "no field in this block", "question: Odd?\nanswer:"]
    write(tmp_path / "b.cards", "\n\n".join(blocks))
    return tmp_path


def test_one_line_adds_a_format_and_its_bad_rows_are_counted_rejects(cards):
    table, rejects = read_seeds(cards)
    assert list(table[["file", "row", "answer"]].itertuples(index=False, name=None)) == [
        ("a.jsonl", 1, "2"),
        ("b.cards", 1, "4"),
    ]
    assert rejects[["file", "row", "reason"]].values.tolist() == [
        ["b.cards", 2, "not_a_record"],
        ["b.cards", 3, "empty_answer"],
    ]
    assert json.loads(rejects["raw"].iloc[0]) == "no field in this block"
    assert table.attrs["read_as"]["b.cards"] == "cards, answers by letter"
    assert quality_report(table, rejects)["count"].sum() == 4


def test_a_file_that_an_added_reader_cannot_open_is_named(cards):
    write(cards / "c.cards", b"question: \xff?")
    with pytest.raises(ValueError, match=r"cannot read seeds from .*c\.cards: 'utf-8' codec"):
        read_seeds(cards)


def test_without_its_reader_a_format_is_left_out_of_folders(cards):
    del READERS[".cards"]
    assert list(read_seeds(cards)[0]["file"]) == ["a.jsonl"]


# Reports


def test_the_report_adds_up_to_the_rows_in():
    table, rejects = read_seeds(SAMPLES)
    report = quality_report(table, rejects)
    per_source = report.groupby("source")
    assert (per_source["count"].sum() == per_source["rows_in"].first()).all()
    assert report["count"].sum() == len(table) + len(rejects) == 54
    assert report["example"].notna().all()
    assert (
        report.loc[report["source"] == "general_columns", "read_as"].iloc[0] == "CSV, delimiter ';', answers by letter"
    )
    assert summary(table)["rows"].sum() == len(table)
    assert list(rejects.columns) == list(REJECT_COLUMNS)


def test_reports_of_nothing_accepted_or_nothing_rejected_work():
    table, rejects = read_seeds([{"question": "q?", "answer": ""}])
    assert quality_report(table, rejects)["count"].tolist() == [0, 1]
    assert summary(table).empty
    table, rejects = read_seeds([{"question": "q?", "answer": "a"}])
    assert quality_report(table, rejects)["reason"].tolist() == ["accepted"]


def test_a_qa_table_written_as_parquet_is_a_source_that_keeps_its_labels(tmp_path):
    paper = [{"question": "Which are prime? A. 2  B. 9  C. 11", "answer": "AC", "source": "paper"}]
    club = [{"text": "7 × 8?", "options": {"A": "54", "B": "56"}, "answer": "B", "source": "club", "subject": "sums"}]
    table, _ = read_seeds([club, paper], mapping={"question": "text"}, licence="CC-BY-4.0")
    table.to_parquet(tmp_path / "mine.parquet")
    again, rejects = read_seeds(tmp_path / "mine.parquet")
    assert rejects.empty
    kept = ["id", "question", "answer", "answer_index", "choices", "source", "licence", "subject", "language"]
    pd.testing.assert_frame_equal(again[kept], table[kept])


def test_ten_thousand_rows_take_seconds():
    rows = [{"question": f"What is {i} + 1?", "choices": [str(i), str(i + 1)], "answer": "B"} for i in range(10_000)]
    start = time.process_time()
    table, _ = read_seeds(rows)
    assert len(table) == 10_000
    assert time.process_time() - start < 10


# Real data


@pytest.fixture(scope="module")
def real():
    return read_seeds(REAL)


def records(file):
    with file.open(encoding="utf-8") as lines:  # not splitlines, which also splits at U+0085 inside a text
        return [json.loads(line) for line in lines]


@needs_real_data
def test_all_real_files_read_without_loss(real):
    table, rejects = real
    for file in sorted(REAL.glob("*.jsonl")):
        rows_out = (table["file"] == file.name).sum() + (rejects["file"] == file.name).sum()
        assert rows_out == len(records(file)), file.name
    assert table["file"].nunique() == 11
    assert len(rejects) < 0.02 * len(table)
    assert table["licence"].notna().all()


@needs_real_data
def test_real_rows_keep_text_answer_and_language(real):
    kept = real[0].set_index("source_id")
    for file in REAL.glob("*.jsonl"):
        for was in records(file):
            if was["id"] not in kept.index:
                continue
            row = kept.loc[was["id"]]
            assert row["language"] == was["language"]
            if was["choices"] is None and row["choices"] is None:
                assert (row["question"], row["answer"]) == (was["question"].strip(), was["answer"].strip())
            elif was["choices"] is not None and len(was["answer"]) == 1:
                assert row["question"] == was["question"].strip()
                assert row["answer_index"] == "ABCDEFGHIJ".index(was["answer"])
            else:
                assert row["answer"] == was["answer"] or row["answer_index"] == "ABCDEFGHIJ".index(was["answer"])


@needs_real_data
def test_real_rejects_are_the_faults_the_source_lists(real):
    problems = json.loads((REAL / "sidecar" / "problems.json").read_text(encoding="utf-8"))
    listed = {
        "duplicate_choices": "duplicate_choice",
        "empty_choice": "empty_choice",
        "one_choice": "one_choice",
        "duplicate": "duplicate",
        "conflicting_answer": "duplicate",
    }
    for row in real[1].itertuples():
        codes = problems[json.loads(row.raw)["id"]]
        assert any(code.startswith(listed[row.reason]) for code in codes), (row.reason, codes)


@needs_real_data
def test_script_agrees_with_the_language_of_real_questions():
    wrong = set()
    for file in REAL.glob("*.jsonl"):
        for row in records(file):
            if detect_language(" ".join((row["question"], *(row["choices"] or [])))) != row["language"]:
                wrong.add(row["id"])
    # Labelled "en", but one is Chinese and full of formulas, and the other stands there in both languages.
    assert wrong == {"gaokao-Chemistry_MCQs-008", "tal_scq5k-zh-train-2828"}


@needs_real_data
def test_raw_samples_of_awkward_formats_read_without_loss():
    table, rejects = read_seeds(REAL / "raw_samples")
    total = (table["file"].value_counts().add(rejects["file"].value_counts(), fill_value=0)).astype(int).to_dict()
    assert total == {
        "aqua_test.jsonl-named.json": 254,
        "gaokao_bench_Physics_MCQs.json": 64,
        "mmlu_redux_anatomy.semicolon.csv": 100,
        "mmlu_redux_moral_scenarios.not-utf8.csv": 100,
        "mmlu_redux_virology.csv": 100,
    }
    assert set(rejects["reason"]) == {"duplicate_choices"}
    assert table["choices"].notna().all()
    read_as = table.attrs["read_as"]
    assert read_as["mmlu_redux_anatomy.semicolon.csv"] == "CSV, delimiter ';', answers by index from 0"
    assert "mac_roman" in read_as["mmlu_redux_moral_scenarios.not-utf8.csv"]
    assert table["question"].str.contains("’").any()


PAIRS = list(zip("BAC", ("oak", "tin", "silk"), strict=True))


@pytest.mark.parametrize(
    "options",
    [
        [f"{c}. {t}" for c, t in PAIRS],
        [f"{c} {t}" for c, t in PAIRS],
        [[c, t] for c, t in PAIRS],
        [[t, c] for c, t in PAIRS],
        *(
            [{label: c, text: t} for c, t in PAIRS]
            for label, text in [("option", "description"), ("value", "label"), ("choice", "content"), ("opt", "val")]
        ),
        [{"选项": c, "内容": t} for c, t in PAIRS],
        [{"number": "ABC".index(c) + 1, "text": t} for c, t in PAIRS],
    ],
)
def test_a_choice_is_named_by_its_own_letter_or_number_not_by_its_place(options):
    rows = [{"question": f"Which is {t}?", "options": options, "answer": c} for c, t in PAIRS]
    if isinstance(options[0], dict) and "number" in options[0]:
        rows = [row | {"answer": "ABC".index(row["answer"]) + 1} for row in rows]
    table, rejects = read_seeds(rows)
    assert (table["answer"].tolist(), len(rejects)) == (["oak", "tin", "silk"], 0)
    assert {frozenset(c) for c in table["choices"]} == {frozenset({"oak", "tin", "silk"})}


@pytest.mark.parametrize(
    "options",
    [
        [{"label": "(i)", "statement": "oak"}, {"label": "(ii)", "statement": "tin"}],
        [{"label": "A", "wording": "oak"}, {"label": "B", "wording": "tin"}],
        [{"option": "A", "wording": "oak"}, {"option": "B", "wording": "tin"}],
        [{"index": 0, "text": "oak", "correct": None}, {"index": 1, "text": "tin", "correct": None}],
    ],
)
def test_objects_with_one_text_each_are_choices_whatever_its_name(options):
    assert one(question=Q, options=options, answer="tin")["choices"] == ["oak", "tin"]


def test_letters_of_choices_need_not_begin_at_a_and_initials_name_no_choice():
    assert one(question=Q, choices=["F. oak", "G. tin", "H. silk", "J. wool"], answer="J")["answer"] == "wool"
    assert one(question=Q, choices=["J. Oak", "T. Tin", "K. Silk"], answer="A")["answer"] == "J. Oak"
    assert reason(question=Q, choices=["J. Oak", "T. Tin", "A. Silk"], answer="A") == "answer_outside_choices"
    assert one(question=Q, choices="1. oak\n2. tin\n3. silk", answer="B")["answer"] == "tin"


@pytest.mark.parametrize(
    ("answer", "right"),
    [(a, "oak") for a in ("Ans: B", "Ans. B", "B选项", "$B$", "②", "The answer is (B) oak", "Option B: oak", "oak.")]
    + [(a, "AC") for a in ("A;C", "A|C", "(A) and (C)", "[A], [C]")],
)
def test_an_answer_names_choices_in_many_ways(answer, right):
    assert one(question=Q, choices=["tin", "oak", "silk", "wool"], answer=answer)["answer"] == right


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        ("Boil.\n\n#### Step 2\nAdd tea.", None),
        ("#### Step 1\nBoil.\n\n#### Step 2", None),
        ("The sign #### begins a heading.", None),
        ("2 + 3 #### 5", "5"),
        ("Look.\n#### an oak", "an oak"),
    ],
)
def test_only_a_last_line_after_four_signs_is_a_final_answer(answer, final):
    assert one(question=Q, answer=answer)["answer"] == (final or answer)


@pytest.mark.parametrize("kind", ["float32", "float16"])
@pytest.mark.parametrize("saved", [False, True])
def test_short_floats_read_as_they_are_written(kind, saved, tmp_path):
    if saved and kind == "float16":
        pytest.skip("pandas writes no float16")
    for cells, expected in (([0.1, 0.5], ["0.1", "0.5"]), ([3, None, 4], ["3", "4"])):
        frame = pd.DataFrame({"question": [f"Number {i}?" for i, _ in enumerate(cells)]})
        frame["answer"] = pd.Series(cells, dtype=kind)
        if saved:
            frame.to_parquet(tmp_path / "x.parquet")
        assert read_seeds(tmp_path / "x.parquet" if saved else frame)[0]["answer"].tolist() == expected


def test_a_table_with_two_columns_of_one_name_is_refused():
    with pytest.raises(ValueError, match="several columns named 'answer'"):
        read_seeds(pd.DataFrame([["Which?", "tin", "oak"]], columns=["question", "answer", "answer"]))


ASKED = {"question": "Whose hat?", "answer": "Ann"}
TOLD = "Ann has a hat.\n\nWhose hat?"


@pytest.mark.parametrize(
    ("document", "questions", "refused"),
    [
        ({"passage": "Ann has a hat.", "questions": [ASKED, {"note": "x"}]}, [TOLD], 1),
        ([{"id": 1, "dialogue": ["Ann has a hat."], "questions": [ASKED]}], [TOLD], 0),
        ({"data": [{"id": 1, "passage": {"text": "Ann has a hat."}, "questions": [ASKED]}]}, [TOLD], 0),
        (
            {
                "data": [
                    {
                        "title": "t",
                        "paragraphs": [{"context": "Ann has a hat.", "qas": [ASKED]}, {"context": "x", "qas": []}],
                    }
                ]
            },
            [TOLD],
            1,
        ),
        (
            {"train": [ASKED], "test": {"0": {"question": "Whose shoe?", "answer": "Bob"}}},
            ["Whose hat?", "Whose shoe?"],
            0,
        ),
        (
            {"questions": [ASKED], "bonus": {"question": "Whose shoe?", "answer": "Bob"}},
            ["Whose hat?", "Whose shoe?"],
            0,
        ),
        ({"id": 1, "questions": [{"question": "Whose hat?"}], "answers": [{"answer": "Ann"}]}, [], 2),
    ],
)
def test_nothing_beside_or_above_nested_questions_is_lost(document, questions, refused, tmp_path):
    table, rejects = read_seeds(write(tmp_path / "x.json", json.dumps(document)))
    assert (table["question"].tolist(), len(rejects)) == (questions, refused)


def test_a_table_of_mmlu_without_a_header_may_begin_with_the_answer_a(tmp_path):
    text = "".join(f"Which is {i}?,oak,tin,silk,wool,{c}\n" for i, c in enumerate("ABCD"))
    table, rejects = read_seeds(write(tmp_path / "x.csv", text))
    assert (table["answer"].tolist(), len(rejects)) == (["oak", "tin", "silk", "wool"], 0)
