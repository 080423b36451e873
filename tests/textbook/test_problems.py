"""The formula problems: every answer proven, every wording read back, training and exams kept apart."""

import random
import re
import time
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest

from qatoolkit.core.taxonomy import DISCIPLINES, HIGH, STEM
from qatoolkit.textbook import problems
from qatoolkit.textbook.family import WRONG, slots

NAMES = list(problems.FAMILIES)
SPLITS = ("train", "exam")
LANGUAGES = ("en", "zh")


def sample(name, split, n):
    sets = problems.parameter_sets(name, split)
    return random.Random(f"{name}/{split}").sample(sets, min(n, len(sets)))


def word_grams(template, n=5):
    words = re.findall(r"[a-z]+", re.sub(r"\{\w+\}", " ", template).lower())
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def character_grams(template, n=12):
    text = re.sub(r"\{\w+\}|[\s\d]", "", template)
    return {text[i : i + n] for i in range(len(text) - n + 1)}


def test_families_cover_disciplines_and_difficulties():
    families = problems.FAMILIES.values()
    per_discipline = Counter(f.discipline for f in families)
    assert len(families) >= 48
    assert set(per_discipline) == set(DISCIPLINES)
    assert all(per_discipline[d] >= 3 for d in STEM)
    assert {f.difficulty for f in families} == set(HIGH)  # a formula is one step at least (`taxonomy.RUBRIC`)


@pytest.mark.parametrize("name", NAMES)
def test_sympy_confirms_every_answer_and_no_wrong_one(name):
    family = problems.FAMILIES[name]
    for split in SPLITS:
        for params in sample(name, split, 30):
            answer = family.answer(**params)
            assert isinstance(answer, int | Fraction)
            assert family.check(answer, **params), (params, answer)
        for params in sample(name, split, 2):
            assert not any(family.check(value, **params) for value in family.wrong(**params)), params


@pytest.mark.parametrize("name", NAMES)
def test_wrong_values_are_distinct_and_never_the_answer(name):
    family = problems.FAMILIES[name]
    slipped = 0
    for split in SPLITS:
        for params in problems.parameter_sets(name, split):
            truth, wrong = family.answer(**params), family.wrong(**params)
            assert len(set(wrong)) == len(wrong) == WRONG
            assert truth not in wrong
            assert all(value > 0 for value in wrong)
            assert Fraction(truth).denominator > 1 or all(value.denominator == 1 for value in wrong)
            slipped += bool({Fraction(s) for s in family.slips(**params)} & set(wrong))
    assert slipped > 0, "no parameter set has a typical slip among its wrong values"


@pytest.mark.parametrize("name", NAMES)
def test_reading_inverts_writing(name):
    for split in SPLITS:
        for params in sample(name, split, 8):
            for language in LANGUAGES:
                for wording in SPLITS:
                    for variant in range(problems.variants(name, language, wording)):
                        text = problems.render(name, params, language, variant, wording)
                        found = problems.read(text)
                        assert found == (name, params, language, wording)
                        assert list(found[1]) == list(problems.FAMILIES[name].parameters)
                        assert problems.read(f"\n {text.upper().replace(' ', '  ')} ") == found


def test_reading_refuses_everything_else():
    family = problems.FAMILIES["multiplication"]
    assert family.train_en[0] == "What is {a} times {b}?"
    for text in (
        "",
        "What is the capital of France?",
        "What is 400 times 500?",  # outside the grid
        "What is 12 times 3?",  # the grid has it as 3 times 12
        "What is 03 times 12?",
        "What is # times 12?",
        "What is 3 times 12? And 4 times 5?",
        "Write 12 (base two) in base ten.",
        "9" * 100_000,
    ):
        assert problems.read(text) is None, text[:50]
    assert problems.read("What is ３ times 12？") == ("multiplication", {"a": 3, "b": 12}, "en", "train")


def test_numbers_that_belong_to_the_wording_must_be_exact():
    params = problems.parameter_sets("light_travel", "train")[0]
    text = problems.render("light_travel", params, "en", 0, "train")
    assert problems.read(text)
    assert problems.read(text.replace("300000", "300001")) is None


def test_reading_takes_well_under_a_millisecond():
    texts = [problems.render(n, problems.parameter_sets(n, "exam")[0], "en", 0, "exam") for n in NAMES]
    problems.read(texts[0])
    start = time.process_time()
    for text in texts:
        problems.read(text)
    assert (time.process_time() - start) / len(texts) < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_train_and_exam_share_no_parameters(name):
    sets = {s: {tuple(p.items()) for p in problems.parameter_sets(name, s)} for s in SPLITS}
    assert not sets["train"] & sets["exam"]
    assert 40 <= len(sets["train"] | sets["exam"]) <= 400
    assert len(sets["exam"]) >= 8
    for split in SPLITS:
        for params in problems.parameter_sets(name, split):
            assert problems.split(name, dict(reversed(params.items()))) == split


def test_about_one_parameter_set_in_four_is_for_the_exams():
    counts = {s: sum(len(problems.parameter_sets(n, s)) for n in NAMES) for s in SPLITS}
    assert 0.22 < counts["exam"] / sum(counts.values()) < 0.28


def test_the_split_is_the_same_on_every_machine():
    assert problems.split("multiplication", {"a": 4, "b": 12}) == "train"
    assert problems.split("multiplication", {"a": 2, "b": 6}) == "exam"


def test_no_exam_wording_shares_a_long_sequence_with_any_training_text():
    families = problems.FAMILIES.values()
    english, chinese = set(), set()
    for f in families:
        english.update(*map(word_grams, (*f.train_en, f.solution_en)))
        chinese.update(*map(character_grams, (*f.train_zh, f.solution_zh)))
    for f in families:
        assert not word_grams(f.exam_en) & english, f.name
        assert not character_grams(f.exam_zh) & chinese, f.name


@pytest.mark.parametrize("name", NAMES)
def test_wordings_are_short_and_in_their_language(name):
    family = problems.FAMILIES[name]
    assert (len(family.train_en), len(family.train_zh)) == (3, 2)
    for template in (*family.train_en, family.exam_en, family.solution_en):
        assert len(template.split()) < 25
        assert not re.search("[\u4e00-\u9fff]", template)
    for template in (*family.train_zh, family.exam_zh, family.solution_zh):
        assert re.search("[\u4e00-\u9fff]", template)
    for points in (family.kps_en, family.kps_zh):
        assert 2 <= len(points) <= 3
        assert len(points) == len(family.kps_en)


@pytest.mark.parametrize("name", NAMES)
def test_solutions_state_the_problem_and_end_in_the_answer(name):
    family = problems.FAMILIES[name]
    for params in sample(name, "train", 10):
        for language in LANGUAGES:
            text = problems.solution(name, params, language)
            answer = problems.answer_text(family.answer(**params), language)
            assert {str(v) for v in params.values()} <= set(re.findall(r"\d+", text))
            assert re.search(rf"(?<![\d/]){re.escape(answer)}\D*$", text), text


def test_answers_have_one_canonical_text():
    assert problems.answer_text(12, "en") == "12"
    assert problems.answer_text(Fraction(24, 2), "zh") == "12"
    assert problems.answer_text(Fraction(6, 8), "zh") == problems.answer_text(Fraction(3, 4), "en") == "3/4"


def test_a_parameter_list_handed_out_is_the_callers_own():
    problems.parameter_sets("multiplication", "train")[0]["a"] = 99
    assert problems.parameter_sets("multiplication", "train")[0]["a"] != 99


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("discipline", "alchemy"),
        ("difficulty", "H6"),
        ("grade", "nursery"),
        ("exam_en", "How much is {a}?"),
        ("solution_zh", "{a}乘以{c}等于{answer}。"),
        ("parameters", {"a": (-1,), "b": (2,)}),
    ],
)
def test_a_wrong_field_is_named_at_once(field, value):
    family = problems.FAMILIES["multiplication"]
    with pytest.raises(ValueError, match="multiplication"):
        replace(family, **{field: value})


def test_every_wording_names_every_parameter():
    for family in problems.FAMILIES.values():
        for template in (*family.train_en, *family.train_zh, family.exam_en, family.exam_zh):
            assert slots(template) == set(family.parameters)
