"""Near-duplicates: harmless edits are one question; opposites, swaps, other numbers and other choices are two."""

import json
import random
import re
import time

import numpy as np
import pandas as pd
import pytest
from conftest import REAL
from curate_tables import qa, real, real_data
from hypothesis import given, settings
from hypothesis import strategies as st

from qatoolkit.core.text import CJK, nfkc
from qatoolkit.curate.comparison_text import shingles, stem
from qatoolkit.curate.differences import Vocabulary
from qatoolkit.curate.near_duplicates import band_keys, near_duplicates


def _kept(table: pd.DataFrame, **options) -> list[str]:
    found = near_duplicates(table, **options)
    return found.loc[found["keep"], "id"].tolist()


def _merged(pairs: list[tuple[str, str]], answers=None) -> np.ndarray:
    """Which pairs of questions are merged, each compared with its partner alone."""
    table = qa(*((text, "17") for pair in pairs for text in pair))
    table["answer"] = np.repeat(answers, 2) if answers is not None else "17"
    table["pair"] = np.repeat(range(len(pairs)), 2)
    cluster = near_duplicates(table, on=("question", "answer", "pair"))["cluster"].to_numpy()
    return cluster[::2] == cluster[1::2]


STORY = "At the harbour of a small town, {} Each ferry takes the same number of people. How many people cross the bay on a calm Sunday?"
TALE = "在海边的一个小镇上，{}每艘渡船坐的人数是一样的，风平浪静的星期日有几个人渡过海湾？"
EN = """more less/increases decreases/before after/maximum minimum/oxidised reduced/correct incorrect/with without/legal illegal/
upstream downstream/all none/first last/hotter colder/arrive depart/possible impossible/clockwise anticlockwise/smooth rough/
convex concave/tenants landlords/employer employee/careful careless/wins loses/her his/always never/some every/above below"""
ZH = """增加 减少/大于 小于/最多 最少/正确 错误/左 右/顺风 逆风/买进 卖出/是 不是/有规则 无规则/氧化 还原/相遇 相离/晴天 雨天/甲 乙/早于 晚于/吸热 放热/每 某/哥哥 弟弟"""


@pytest.mark.parametrize(("text", "words"), [(STORY, EN), (TALE, ZH)])
def test_a_replaced_word_is_another_question_whether_or_not_it_is_in_a_list(text, words):
    gap = "the {} ones count." if text is STORY else "只看{}的。"
    pairs = [pair.split() for pair in words.replace("\n", "").split("/")]
    assert not _merged([tuple(text.format(gap.format(word)) for word in pair) for pair in pairs]).any()


@pytest.mark.parametrize(
    "pair",
    [
        ("the boats are full.", "the boats are not full."),
        ("the boats are full.", "the boats are at least full."),
        ("the boats are full.", "the boats are half full."),
        ("the boats aren't full.", "the boats are full."),
        ("the red boat tows the blue canoe.", "the blue canoe tows the red boat."),
        ("Anna rows faster than Otto.", "Otto rows faster than Anna."),
        ("3 boats carry 5 nets.", "5 boats carry 3 nets."),
        ("the crew is chasing.", "the crew is chased."),
        ("the plane is late.", "the plan is late."),
        ("the crew of Anna waits.", "the crew waits."),
        ("the boat is charged.", "the boat is charged twice."),
        ("the toll is y - 4.", "the toll is y + 4."),
        ("the flower is AaBb.", "the flower is AABB."),
    ],
)
def test_what_is_inserted_or_swapped_can_be_another_question(pair):
    assert not _merged([tuple(STORY.format(part) for part in pair)])[0]


@pytest.mark.parametrize(
    "pair",
    [
        ("船满了。", "船没满。"),
        ("甲队比乙队快。", "乙队比甲队快。"),
        ("船长是船员的哥哥。", "船员的哥哥是船长的。"),
        ("三条船带五张网。", "五条船带三张网。"),
        ("船都是红色的。", "船不都是红色的。"),
        ("船不都是红色的。", "船都不是红色的。"),
        ("人数增加了一倍。", "人数增加到一倍。"),
        ("只有红船载客。", "红船载客。"),
    ],
)
def test_what_is_inserted_or_swapped_can_be_another_question_in_chinese(pair):
    assert not _merged([tuple(TALE.format(part) for part in pair)])[0]


@pytest.mark.parametrize(
    ("text", "start", "words"),
    [
        (
            STORY,
            "each ferry takes the same",
            "already always exactly integer together quickly wooden perhaps can had very once",
        ),
        (TALE, "坐的人数", "曾 会 可以 已经 一起 过 着 很 必须 也许 红色 整数 慢慢地 千米"),
    ],
)
def test_any_inserted_word_is_another_question(text, start, words):
    plain = text.format("")
    pairs = [(plain, re.sub(start, lambda m, word=word: f"{word} {m[0]}", plain, flags=re.I)) for word in words.split()]
    assert all(one != two for one, two in pairs)
    assert not _merged(pairs).any()


def test_harmless_edits_are_one_question():
    plain = STORY.format("the boats carry 40 people and the sailors prepare a barrel of tea.")
    edits = {
        "politeness": f"Could you please tell me: {plain}",
        "thanks": f"{plain} Thank you!",
        "number": f"Problem 14. {plain}",
        "article": plain.replace(" the bay", " bay"),
        "tense": plain.replace("carry", "carried").replace("prepare", "prepared"),
        "requests": f"Hi! Could you help me with this problem? {plain} Show your work, and choose the best answer. Thanks!",
        "filler": plain.replace("prepare", "then prepare"),
        "auxiliary": plain.replace("carry", "do carry"),
        "case": plain.replace("carry", "CARRY"),
        "punctuation": plain.replace(",", " -").replace("?", ""),
        "clause": plain.replace("At the harbour of a small town, the boats carry", "The boats carry").replace(
            "of tea.", "of tea at the harbour of a small town."
        ),
    }
    assert dict(zip(edits, _merged([(plain, edit) for edit in edits.values()]), strict=True)) == dict.fromkeys(
        edits, True
    )
    written = (
        "What is loose can not sail, and the crew does not know.",
        "What's loose can't sail, and the crew doesn't know.",
    )
    assert _merged([tuple(STORY.format(part) for part in written)])[0]
    plain = TALE.format("四十个水手准备了一桶茶，")
    edits = {
        "politeness": f"请问：{plain}",
        "number": f"第6题 {plain}",
        "particle": plain.replace("准备了", "准备").replace("？", "呢？"),
        "de": plain.replace("海边的", "海边"),
        "requests": f"老师您好，麻烦帮忙看看下面的题目：{plain}请选出正确答案，并写出步骤。谢谢！",
        "filler": plain.replace("有几个", "究竟有几个"),
        "traditional": plain.replace("个", "個").replace("准备", "準備"),
        "punctuation": plain.replace("，", "、"),
        "clause": plain.replace(
            "在海边的一个小镇上，四十个水手准备了一桶茶，", "四十个水手准备了一桶茶，在海边的一个小镇上，"
        ),
    }
    assert dict(zip(edits, _merged([(plain, edit) for edit in edits.values()]), strict=True)) == dict.fromkeys(
        edits, True
    )


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Which boat is first? Choose the best answer.", "Which boat is first? Choose the wrong answer."),
        ("Which boat is first? Explain.", "Which boat is first? Explain why it lost."),
        ("Solve the problem.", "Answer the question."),
        ("If Q, the boat is first. Is it?", "The boat is first. Is it?"),
        ("哪条船先到？请选出正确答案。", "哪条船先到？请选出错误答案。"),
        ("请回答问题。", "请解答下面的题目。"),
    ],
)
def test_a_request_that_says_more_is_part_of_the_question(one, two):
    assert not _merged([(one, two)])[0]


def test_short_texts_do_not_share_an_empty_signature():
    short = ["pH?", "DNA?", "光?", "2+2", "???", "!"]
    assert all(shingles(text, 3) for text in short)
    assert len({shingles(text, 3) for text in short}) == len(short)
    assert shingles("  ", 3) == frozenset()
    assert len(_kept(qa(*((text, "x") for text in short)))) == len(short)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (("What is the capital of France?", "Paris"), ("What is the capital of Spain?", "Madrid")),
        (("法国的首都是哪里？", "巴黎"), ("德国的首都是哪里？", "柏林")),
        (
            ("A car goes 120 km in 2 hours on a straight dry road. How fast is it?", "60 km/h"),
            ("A car goes 180 km in 3 hours on a straight dry road. How fast is it?", "60 km/h"),
        ),
        (
            ("On a short trip through the country, which currency would a traveller use in France today?", "euro"),
            ("On a short trip through the country, which currency would a traveller use in Spain today?", "euro"),
        ),
        (
            ("Which of these is a property that every noble gas has at room temperature?", "inert"),
            ("Which of these is not a property that every noble gas has at room temperature?", "inert"),
        ),
        (
            ("Is the Fourier transform of this real and odd signal x(t) on the given interval even?", "no"),
            ("Is the Fourier transform of this real and odd signal x(t) on the given interval real?", "no"),
        ),
        (("What is x + 1 when x is 3?", "4"), ("What is x - 1 when x is 3?", "4")),
        (("Is the number 2³ a power of two?", "yes"), ("Is the number 23 a power of two?", "yes")),
    ],
)
def test_questions_that_differ_in_one_entity_number_or_sign_both_survive(one, two):
    assert _kept(qa(one, two)) == ["q0", "q1"]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (("What is the capital of France?", "Paris"), ("what is  the CAPITAL of France", "paris.")),
        (("How many legs do 3 spiders have?", "24"), ("How many legs do 3 spiders have?", "24.0")),
        (
            ("Leo prepares 400 cupcakes for a party of 20 and puts them into 5 boxes. How many per box?", "80"),
            ("Leo prepared 400 cupcakes for a party of 20 and puts them into 5 boxes. How many per box?", "80"),
        ),
        (
            ("13. (5 分) 小明家到学校，乘地铁需要30分钟，乘公交车需要50分钟，相差多少分钟？", "20"),
            ("15．（5分）小明家到学校，乘地铁需要30分钟，乘公交车需要50分钟。相差多少分钟？", "20.0"),
        ),
    ],
)
def test_rewordings_with_the_same_answer_are_one_question(one, two):
    assert _kept(qa(one, two)) == ["q0"]


def test_the_same_choices_in_another_order_are_one_question_and_other_choices_are_two():
    table = qa(("Which planet is the largest?", "B"), ("Which planet is the largest?", "Jupiter"))
    table["choices"] = [np.array(["Mars", "Jupiter"], dtype=object), np.array(["Jupiter", "Mars"], dtype=object)]
    assert _kept(table) == ["q0"]
    table["choices"] = [["Mars", "Jupiter"], ["Jupiter", "Earth"]]
    assert _kept(table) == ["q0", "q1"]


def test_a_stem_that_says_nothing_is_no_duplicate_when_choices_differ():
    table = qa(*[("Which of the following is true?", "All of the above")] * 2)
    table["choices"] = [["Ice floats", "All of the above"], ["Iron rusts", "All of the above"]]
    assert _kept(table) == ["q0", "q1"]


def test_clusters_keep_the_first_row_and_give_exact_jaccard():
    text = "Alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau"
    table = qa(("Something else entirely?", "n"), (text, "y1"), (text + " phi", "y1"), (text, "y1"))
    found = near_duplicates(table, threshold=0.8)
    assert found["cluster"].tolist() == [0, 1, 1, 1]
    assert found["keep"].tolist() == [True, True, False, False]
    a, b = shingles(text), shingles(text + " phi")
    assert found["similarity"].tolist() == pytest.approx([1, 1, len(a & b) / len(a | b), 1])


def test_banding_finds_the_pairs_that_exact_comparison_finds():
    chance = random.Random(3)
    words = [f"w{i:03d}".translate(str.maketrans("0123456789", "abcdefghij")) for i in range(400)]
    rows = []
    for _ in range(150):
        base = chance.choices(words, k=40)
        changed = list(base)
        for _ in range(chance.randint(0, 6)):
            changed[chance.randrange(40)] = chance.choice(words)
        rows += [(" ".join(base), "same"), (" ".join(changed), "same")]
    table = qa(*rows)
    sets = [shingles(question) for question in table["question"]]
    exact = [(i, i + 1) for i in range(0, 300, 2) if len(sets[i] & sets[i + 1]) / len(sets[i] | sets[i + 1]) >= 0.8]
    cluster = near_duplicates(table, threshold=0.8)["cluster"]
    assert len(exact) > 50
    assert sum(cluster[i] == cluster[j] for i, j in exact) >= 0.99 * len(exact)
    assert cluster.nunique() == 300 - len(exact)


def test_the_best_verified_row_is_kept_then_one_with_a_rationale_then_the_first():
    table = qa(*[("Which planet is the largest of all in our solar system?", "Jupiter")] * 5)
    table["verified"] = [False, None, None, True, True]
    table["rationale"] = ["x", None, "x", None, "x"]
    for rows, best in (([0, 1, 2, 3, 4], "q4"), ([0, 1, 2, 3], "q3"), ([0, 1, 2], "q2"), ([0, 1], "q1")):
        assert _kept(table.iloc[rows]) == [best]
    assert _kept(table.drop(columns=["verified", "rationale"])) == ["q0"]


def test_similarity_is_to_the_row_that_is_kept():
    words = [f"{a}{b}oun" for a in "bcdfg" for b in "lrtvx"]
    texts = [" ".join(words[:i]) for i in (23, 24, 25)]
    found = near_duplicates(qa(*((text, "y") for text in texts), verified=[None, None, True]), threshold=0.8)
    assert found["cluster"].tolist() == [0, 0, 0]
    assert found["similarity"].tolist() == pytest.approx([22 / 24, 23 / 24, 1])


WORD = re.compile(rf"\d+(?:[.,]\d+)*|[{CJK}]|[^\W\d_{CJK}]+(?:'[^\W\d_{CJK}]+)*")


def test_a_compiled_text_has_the_words_that_a_pattern_finds():
    @settings(max_examples=200, deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
    def check(text):
        text = "".join(c for c in nfkc(text) if c in " ,.'\n" or c.casefold().isalnum())  # operators are words of ours
        vocabulary = Vocabulary(guard=False)
        ids, counts = vocabulary.read([text, "two words"])
        words = WORD.findall(stem(text).casefold()) or [f"={word}" for word in stem(text).split()]
        forms = {form: i for i, form in enumerate(vocabulary._forms)}
        assert counts.tolist() == [len(words), 2]
        assert [forms[w] for w in words] == ids[: len(words)].tolist()

    check()


@pytest.mark.parametrize("options", [{}, {"threshold": 0.8}])
def test_band_keys_are_the_same_in_shards_and_propose_the_pairs(options):
    table = qa(*((STORY.format(f"{i} boats wait." + " Now and then the gulls cry." * (i % 2)), "9") for i in range(40)))
    table = pd.concat([table, table.assign(question="Please: " + table["question"])], ignore_index=True)
    whole, last = band_keys(table, **options), band_keys(table.iloc[60:], **options)
    parts = pd.concat([band_keys(table.iloc[:60], **options), last.assign(row=last["row"] + 60)])
    ours = [set(map(tuple, keys.itertuples(index=False))) for keys in (whole, parts)]
    assert ours[0] == ours[1]
    keys = whole.groupby("row")["key"].agg(set)
    cluster = near_duplicates(table, **options)["cluster"].to_numpy()
    for i in range(40):
        assert cluster[i] == cluster[i + 40]
        assert keys[i] & keys[i + 40]


def test_a_bad_threshold_or_column_is_named():
    with pytest.raises(ValueError, match=r"threshold=1.5: must be in \(0, 1\]"):
        near_duplicates(qa(("a", "b")), threshold=1.5)
    with pytest.raises(ValueError, match="title"):
        near_duplicates(qa(("a", "b")), on=("title",))


def test_one_template_filled_many_times_stays_fast():
    question = "In the town library, which shelf number holds the book that was written by author {} in the year {}?"
    table = qa(*((question.format(f"Name{i}", 1000 + i), str(i % 9)) for i in range(5000)))
    start = time.process_time()
    assert len(_kept(table)) == 5000
    assert time.process_time() - start < 10


@real_data
def test_known_near_duplicates_of_real_data_are_found():
    table = real(*(path.stem for path in REAL.glob("*.jsonl")))
    pairs = json.loads((REAL / "sidecar/near_duplicate_pairs.json").read_text(encoding="utf-8"))
    found = near_duplicates(table, on=("question",), threshold=0.8)
    cluster = dict(zip(found["id"], found["cluster"], strict=True))
    recall = np.mean([cluster[a] == cluster[b] for a, b, _ in pairs])
    assert recall >= 0.85  # measured 0.90; the pairs were made with character shingles, ours are words


@real_data
def test_exact_duplicates_of_real_data_are_found_and_distinct_answers_survive():
    table = real(*(path.stem for path in REAL.glob("*.jsonl")))
    problems = json.loads((REAL / "sidecar/problems.json").read_text(encoding="utf-8"))
    other = ("duplicate_conflicting_answer", "duplicate_other_answer_text")
    exact = {i for i, codes in problems.items() if "duplicate_exact" in codes and not set(other) & set(codes)}
    found = near_duplicates(table)
    shared = set(found.loc[found["cluster"].duplicated(keep=False), "id"])
    assert len(exact & shared) >= 0.99 * len(exact)  # measured 125 of 126; the other has "day time" for "daytime"
    dropped = set(found.loc[~found["keep"], "id"])
    # Pairs that share a long template and ask different things: both stay.
    for kept in ("theoremqa-0344", "theoremqa-0727", "mmlu_redux-abstract_algebra-091", "mmlu_redux-formal_logic-046"):
        assert kept not in dropped


@real_data
@pytest.mark.parametrize("language", ["en", "zh"])
def test_opposites_in_real_questions_stay_apart_and_harmless_edits_merge(language):
    words = [pair.split() for pair in (EN if language == "en" else ZH).replace("\n", "").split("/")]
    table = real(*(path.stem for path in REAL.glob("*.jsonl")))
    table = table[(table["language"] == language) & (table["question"].str.len() < 1500)].sample(900, random_state=0)
    opposites, edits, answers, right = [], [], [], []
    for question, answer in zip(table["question"], table["answer"], strict=True):
        for pair in (*words, *(pair[::-1] for pair in words)):
            pattern = rf"(?<!\\)\b{pair[0]}\b" if language == "en" else pair[0]
            if re.search(pattern, question):
                opposites.append((question, re.sub(pattern, pair[1], question, count=1)))
                answers.append(answer)
        if language == "en":
            changed = [
                f"Could you tell me: {question}",
                question.replace(" the ", " a "),
                question.replace(" is ", " was "),
            ]
            changed += [f"{question} Explain your answer briefly, please.", question.rstrip("?. ")]
        else:
            changed = [f"请问：{question}", question.replace("的", ""), f"同学们，请看下面的题目：{question}"]
            changed += [question.replace("了", ""), question.rstrip("？。．")]
        edits += [(question, edit) for edit in changed if edit != question]
        right += [answer] * sum(edit != question for edit in changed)
    assert len(opposites) > 150
    assert len(edits) > 1500
    assert _merged(opposites, answers).mean() <= 0.01  # measured 0 of 718 and 0 of 975
    assert _merged(edits, right).mean() >= 0.95  # measured 0.9986 and 0.9985
