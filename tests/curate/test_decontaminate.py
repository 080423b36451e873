"""Decontamination: what is found in which disguise, what is no evidence, and an index that is built once."""

import random
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT
from curate_tables import qa, real, real_data

from qatoolkit.curate.comparison_text import stem, token_ids, tokens
from qatoolkit.curate.controls import KINDS, controls, plant
from qatoolkit.curate.curate import curate
from qatoolkit.curate.decontaminate import decontaminate
from qatoolkit.curate.exam_arrays import parts_of
from qatoolkit.curate.exam_index import ExamIndex

STORY = "A baker in the old town fills 36 trays with rolls before sunrise and sells 29 of them on the market square"
ASKED = f"{STORY}. How many trays are left for the afternoon guests?"
STORY_ZH = "果园里的老师傅早上摘了三十六筐苹果，中午卖给镇上的学校二十九筐，请问下午还剩下多少筐苹果没有卖出去？"
PIECES = """a b ' ’ . , - _ 1 2３ ½ ² ① ٣ 二 四十 一千 千克 千万别 〇 é Ω ﬁ ẞ \\frac &nbsp; <b> 1,200 1.2.3 don't 個
one hundred and twenty point zero million"""


def _rule(row, item, **options) -> str | None:
    """The rule by which a row, (question, answer) or a question, holds an exam item."""
    row, item = ((x, "") if isinstance(x, str) else x for x in (row, item))
    hits = decontaminate(qa(row), {"e": qa(item)}, **options)
    return hits["rule"].iloc[0] if len(hits) else None


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("twenty-one of three hundred and five", "21 of 305"),
        ("two million three hundred thousand and one", "2300001"),
        ("five and six, three point two five", "5 and 6 3.25"),
        ("1,200 but 1,2,3", "1200 but 1 2 3"),
        ("二十三個蘋果", "23个苹果"),
        ("一、二、三", "1 2 3"),
        ("五千人走了五千米", "5000人走了5千米"),
        ("千万别忘", "千 万 别 忘"),
        ("ex\u200bam so\u00adft exam-\nple", "exam soft example"),
        ("H<sub>2</sub>O&nbsp;&amp; ice", "H 2 O ice"),
        ("$\\left(\\frac{1}{2}\\right)\\times \\mathbf{x}$", "1 2 x"),
        ("ＡＢＣ Straße", "abc strasse"),
    ],
)
def test_tokens_are_the_same_however_a_text_is_written(text, same):
    assert tokens(text) == tokens(same)


def test_texts_read_together_have_the_tokens_they_have_alone():
    chance, words = random.Random(0), []
    pieces = [*PIECES.split(), "\0", "\n", "\u200b", "two hundred"]
    texts = ["".join(chance.choice(pieces) + chance.choice(["", " "]) for _ in range(12)) for _ in range(5000)]

    def number_of(word):
        words.append(word)
        return len(words) - 1

    together = [[words[i] for i in run.tolist()] for run in token_ids(texts, number_of)]
    assert together == list(map(tokens, texts))


@pytest.mark.parametrize("number", ["7. ", "(12) ", "Question 3: ", "Q3. ", "第5题 ", "例2：", "二、", "3. (5 分) "])
def test_the_number_of_a_question_is_not_part_of_it(number):
    assert stem(f"{number}Why") == "Why"
    assert stem("1.5 kg of") == "1.5 kg of"


def test_decontamination_finds_a_quoted_exam_question_in_both_languages():
    exam_en = qa(("A train leaves the old station at noon and travels north at ninety km per hour until dusk", "x"))
    exam_zh = qa(("小红已经写了八个字，还差五个字没有写完，请问小红一共要写多少个字？", "13"))
    table = qa(
        ("Please solve: a TRAIN leaves the old station at noon, and travels north at ninety km per hour!", "x"),
        ("请解答：小红已经写了八个字，还差五个字没有写完，请问小红一共要写多少个字", "13"),
        ("A train is a vehicle. Which fuel does it burn?", "diesel"),
    )
    hits = decontaminate(table, {"en": exam_en, "zh": exam_zh})
    assert hits[["row", "exam", "exam_id"]].values.tolist() == [[0, "en", "q0"], [1, "zh", "q0"]]
    assert (hits["score"] > 0.7).all()
    assert hits["matched"].iloc[0].startswith("a train leaves the old station")


def test_short_exam_questions_count_only_when_identical():
    exam = {"e": qa(("What is DNA?", "x"), ("3 + 5 = ?", "8"))}
    table = qa(("what is dna", "y"), ("What is RNA?", "z"), ("3 - 5 = ?", "-2"), ("3+5=?", "8"))
    assert decontaminate(table, exam)["row"].tolist() == [0, 3]


def test_a_bare_stem_is_no_leak_when_the_choices_are_others():
    stem = "Which of the following is true?"
    exam = qa((stem, "Ice floats"), choices=[["Ice floats", "Iron floats"]])
    table = qa((stem, "Iron rusts"), (stem, "Ice floats"))
    table["choices"] = [["Iron rusts", "Gold rusts"], ["Iron floats", "Ice floats"]]
    assert decontaminate(table, {"e": exam})["row"].tolist() == [1]


def test_the_instructions_of_an_exam_are_not_its_items():
    instruction = "Read the following statement with care and then choose the one option that completes it best: "
    names = [f"substance{letter}" for letter in "abcdefghijklmnopqrstuvwxy"]
    exam = {"e": qa(*((instruction + name, "x") for name in names))}
    hits = decontaminate(qa((instruction + "plutonium", "y"), (instruction + "substancec", "z")), exam)
    assert hits["row"].tolist() == [1]


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (ASKED, "exact"),
        (ASKED.upper().replace(".", " ;"), "exact"),
        (ASKED.replace("36", "thirty-six").replace("29", "twenty nine"), "exact"),
        (f"My friend sent me this. {ASKED} Please explain it to me.", "coverage"),
        (ASKED.replace("baker", "clerk").replace("rolls", "cakes").replace("square", "street").replace("old", "new")
         .replace("sells", "takes"), "reworded"),
        (("What did he teach?", ASKED), "coverage"),
    ],
)  # fmt: skip
def test_a_long_question_is_found_in_disguise_and_the_rule_is_named(row, rule):
    assert _rule(row, ASKED) == rule


def test_a_rationale_that_quotes_an_exam_question_counts():
    table = qa(("What is left?", "7"), rationale=[f"Compare: {ASKED} There it was 7."])
    assert decontaminate(table, {"e": qa((ASKED, "7"))})["exam_id"].tolist() == ["q0"]


def test_traditional_characters_numerals_and_one_other_character_are_seen_through():
    traditional = "果園裏的老師傅早上摘了36筐蘋果，中午賣給鎮上的學校29筐，請問下午還剩下多少筐蘋果沒有賣出去？"
    assert _rule(traditional, STORY_ZH) == "exact"
    assert _rule(STORY_ZH.replace("学校", "工厂").replace("早上", "清晨").replace("苹果", "香梨"), STORY_ZH) is not None


@pytest.mark.parametrize(
    "other", [ASKED.replace("36", "48").replace("29", "31"), ASKED.replace("are left", "are not left")]
)
def test_the_same_template_with_other_numbers_or_a_negation_is_told_apart(other):
    assert _rule(other, ASKED) is None
    assert _rule(other, ASKED, templates=True) == "template"
    kept, _, report = curate(qa((other, "17")), {"e": qa((ASKED, "7"))})
    assert len(kept) == 1
    assert "exam_template" in set(report["reason"])


def test_a_sub_question_of_a_passage_is_found_alone():
    passage = "The harbour of Lund was dug by hand in spring, and forty ships wintered behind its granite wall. " * 4
    second = "Which material of the harbour wall kept the ships safe from drifting ice in winter?"
    item = f"{passage} (1) Who dug the first basin of the harbour in those days? (2) {second}"
    assert [name for name, _ in parts_of(item)] == ["question", "sub-question", "sub-question"]
    hits = decontaminate(qa((f"Read and answer: {second}", "granite")), {"e": qa((item, "x"))})
    assert hits[["part", "exam_id"]].values.tolist() == [["sub-question", "q0"]]


def test_the_question_at_the_end_of_a_long_abstract_is_found_alone():
    last = "Does the early removal of kidney stones prevent chronic infections of the urinary tract?"
    abstract = " ".join(f"Patients of group w{i} were observed for some months." for i in range(20))
    assert _rule(last, f"{abstract} {last}") is not None


def test_options_in_another_order_or_in_the_text_are_the_same_item():
    exam = qa(("Which is a noble gas?", "Argon"), choices=[["Argon", "Copper", "Sodium chloride", "Ozone"]])
    table = qa(
        *[("Which is a noble gas?", gas) for gas in ("Argon", "Helium")],
        ("Which is a noble gas? A. Argon B. Copper C. Sodium chloride D. Ozone", ""),
    )
    table["choices"] = [["Ozone", "Copper", "Sodium chloride", "Argon"], ["Iron", "Helium", "Water", "Salt"], None]
    assert decontaminate(table, {"e": exam})["row"].tolist() == [0, 2]


def test_phrases_that_many_items_share_are_no_evidence():
    phrase = "which of the following values is closest to the correct value of the quantity"
    exam = {"e": qa(*((f"{phrase} x{chr(97 + i) * 3} in the table?", "1") for i in range(12)))}
    assert decontaminate(qa((f"{phrase} that we measured?", "2")), exam).empty
    digits = "Fill the cells with 1, 2, 3, 4, 5, 6, 7, 8 and 9."
    assert _rule("The list 1, 2, 3, 4, 5, 6, 7, 8 and 9 has which mean?", digits) is None


def test_phrases_of_the_seeds_are_no_evidence_but_a_repeated_exam_question_is():
    phrase = "please read the given statement with care and then choose the best possible answer about"
    exam = {"e": qa((f"{phrase} copper wire", "x"), (ASKED, "7"))}
    seeds = [f"{phrase} {word} today" for word in ("iron", "gold", "tin", "lead", "zinc", "salt", "milk", "wood")] + [
        ASKED
    ] * 50
    row = qa((f"{phrase} rubber", "x"), (f"I ask: {ASKED}", "7"))
    assert decontaminate(row, ExamIndex.build(exam))["row"].tolist() == [0, 1]
    assert decontaminate(row, ExamIndex.build(exam, reference=seeds))["row"].tolist() == [1]


def test_a_whole_question_counts_where_it_stands_word_for_word_even_if_its_words_are_a_template():
    template = (
        "Some {} lists {} as its maker: look up the home country of that maker and say which capital belongs to it"
    )
    things = [("painting", f"Maker{letter} Name{letter}") for letter in "abcdefghijkl"]
    exam = {"e": qa(*((template.format(*thing), "Rome") for thing in things))}
    planted = f"I would also like to know this. {template.format(*things[3])} Thank you, and see the next page."
    found = decontaminate(qa((planted, "Rome"), (template.format("statue", "Makerz Namez"), "Oslo")), exam)
    assert found[["row", "exam_id"]].values.tolist() == [[0, "q3"]]


def test_a_dash_is_no_minus_but_a_minus_is():
    exam = {"e": qa(("Look up the home country of the painter and answer: which capital belongs to it?", "Rome"))}
    for dash in (" -- ", " - ", " – "):
        row = qa((f"Look up the home country of the painter and answer{dash}which capital belongs to it?", "Rome"))
        assert decontaminate(row, exam)["rule"].tolist() == ["exact"]
    assert _rule("What is x - 3?", "What is x 3?") is None


def test_another_answer_or_another_number_makes_a_partly_matching_question_a_template():
    exam = {
        "e": qa(
            (
                "Starting from tuberculosis, go to the home country of its discoverer and report the capital found there",
                "Berlin",
            ),
            (
                "The year of death of the namesake was 1734: identify the theorem that is named after this person",
                "Stahl",
            ),
        )
    }
    rows = qa(
        ("Starting with leprosy, go to the home country of its discoverer and report the capital of it", "Oslo"),
        (
            "Starting with that bacillus, go to the home country of its discoverer and report the capital of it",
            "Berlin",
        ),
        ("1665 is the year of death of the namesake: identify the theorem that is named after this person", "Stahl"),
    )
    found = decontaminate(rows, exam, templates=True)
    assert found["rule"].isin(["template"]).tolist() == [True, False, True]
    assert decontaminate(rows, exam)["row"].tolist() == [1]


@pytest.mark.parametrize(
    ("row", "item", "same"),
    [
        (
            "Determine the largest eigenvalue of the symmetric matrix with rows (2, 1, 5) and (1, 4, 0)",
            "Determine the largest eigenvalue of the symmetric matrix with rows (4, 0, 1) and (2, 5, 1)",
            False,
        ),
        (
            "Simplify the Boolean expression A B + A C + B C as far as possible",
            "Simplify the Boolean expression P Q + Q R + R P S as far as possible",
            False,
        ),
        (
            "求函数 $y = a x^2 + b x + 3$ 的图象与坐标轴围成的三角形的面积",
            "求函数 $y = 3 \\sin x + \\cos x$ 的图象与坐标轴围成的三角形的面积",
            False,
        ),
        (
            "求函数 $y = a x^2 + b x + 3$ 的图象与坐标轴围成的三角形的面积",
            "试求函数 $y = a x^2 + b x + 3$ 的图形和两坐标轴所围成三角形的面积",
            True,
        ),
        (
            "Compute the derivative of the function f(x) = x^3 sin x at the point where the tangent is horizontal",
            "Find the derivative of the function f(x) = x^3 sin x at a point at which the tangent is horizontal",
            True,
        ),
    ],
)
def test_the_same_words_about_another_formula_are_another_question(row, item, same):
    for one, other in ((row, item), (item, row)):
        rule = _rule((one, "7"), (other, "7"), templates=True)
        assert (rule in ("coverage", "reworded")) if same else rule == "template"


def test_a_number_that_only_the_options_have_is_not_the_questions():
    rows = [
        qa((f"How many necklaces are there of two colours if each necklace has n beads and n is {n}?", "7"))
        for n in (9, 14)
    ]
    for table in rows:
        table["choices"] = [["9", "14", "21", "35"]]
    assert decontaminate(rows[0], {"e": rows[1]}, templates=True)["rule"].tolist() == ["template"]


def test_an_index_is_built_once_and_opened_by_another_process_with_the_same_hits(tmp_path):
    exams = {"en": qa((ASKED, "7"), ("What is DNA?", "x")), "zh": qa((STORY_ZH, "7"))}
    table = qa((f"I ask: {ASKED}", "7"), (STORY_ZH, "7"), ("what is dna", "y"))
    index = ExamIndex.build(exams, tmp_path / "index")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "index").iterdir()}
    pd.testing.assert_frame_equal(decontaminate(table, index), decontaminate(table, exams))
    again = ExamIndex.build(exams, tmp_path / "index")
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "index").iterdir()} == before
    assert len(again) == 3
    table.to_parquet(tmp_path / "rows.parquet")
    code = (
        "import sys, pandas as pd; from qatoolkit.curate import ExamIndex, decontaminate; "
        "print(*decontaminate(pd.read_parquet(sys.argv[1]), ExamIndex.open(sys.argv[2]))['exam_id'])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "rows.parquet"), str(tmp_path / "index")]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert said.split() == decontaminate(table, index)["exam_id"].tolist()
    assert len(ExamIndex.build({"en": exams["en"]}, tmp_path / "index")) == 2  # other exams, built anew


def test_a_folder_without_an_index_a_damaged_one_and_an_exam_without_questions_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no exam index"):
        ExamIndex.open(tmp_path)
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="thesis"):
        ExamIndex.build({"e": qa((ASKED, "7"))}, tmp_path)
    ExamIndex.build({"e": qa((ASKED, "7"))}, tmp_path / "index")
    (tmp_path / "index" / "parts.npy").write_bytes(b"x")
    with pytest.raises(ValueError, match="damaged"):
        ExamIndex.open(tmp_path / "index")
    with pytest.raises(ValueError, match="exam 'e'"):
        decontaminate(qa((ASKED, "7")), {"e": pd.DataFrame({"text": ["x"]})})


def test_no_exams_no_rows_and_empty_texts_pass():
    assert decontaminate(qa((ASKED, "7")), {}).empty
    assert decontaminate(qa((ASKED, "7")).iloc[:0], {"e": qa((ASKED, "7"))}).empty
    assert decontaminate(qa((None, None), ("", "7")), {"e": qa(("", ""), (None, None))}).empty


def test_controls_plant_each_kind_and_report_recall_and_precision():
    exam = qa(
        (ASKED, "7"), (STORY_ZH, "7"), ("Which is a noble gas?", "Argon"), choices=[None, None, ["Argon", "Copper"]]
    )
    exam["language"] = ["en", "zh", "en"]
    planted = plant(exam, n=5, translations={"q1": {"question": "An orchard question in English, please."}})
    assert set(planted["kind"]) == set(KINDS)
    assert planted["id"].is_unique
    changed = planted[planted["kind"].isin(["wraps", "zero-width", "digits as words", "embedded", "10% replaced"])]
    assert not set(changed["question"]) & set(exam["question"])
    clean = qa(("Why do leaves turn red?", "pigments"), ("Name a river of Poland.", "Vistula"))
    found = controls(clean, {"e": exam}, n=5)
    assert found.loc[found["kind"] == "verbatim", "recall"].tolist() == [1, 1]
    assert (found["lost"] == 0).all()
    none = found[found["n"] == 0]
    assert "translated" in set(none["kind"])
    assert none["recall"].isna().all()
    with pytest.raises(ValueError, match="upside down"):
        plant(exam, ["upside down"])


@real_data
def test_gsm8k_train_is_all_but_clean_against_its_test_set():
    hits = decontaminate(real("gsm8k_train"), {"gsm8k_test": real("gsm8k_test")})
    assert len(hits) <= 1  # measured: 0
    leaked = decontaminate(real("gsm8k_test").sample(100, random_state=0), {"gsm8k_test": real("gsm8k_test")})
    assert len(leaked) == 100
    assert (leaked["score"] == 1).all()


@real_data
@pytest.mark.slow
def test_recall_of_planted_real_items_reaches_the_promise_in_both_languages():
    names = ("gsm8k_test", "mmlu_redux", "gaokao_bench", "tal_scq5k_zh_train", "cmath")
    found = controls(real("gsm8k_train"), {name: real(name) for name in names}, n=100).set_index("kind")["recall"]
    least = dict.fromkeys(("verbatim", "re-punctuated", "renumbered", "zero-width", "wraps"), 0.98)  # n=100: one miss
    least |= dict.fromkeys(("inlined", "embedded", "choices reordered", "digits as words"), 0.95) | {
        "10% replaced": 0.85
    }
    assert {kind: recall for kind, low in least.items() if (recall := found[kind].min()) < low} == {}
