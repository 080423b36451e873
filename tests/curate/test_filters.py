"""Filters: every reason has its rows, and what only looks like a fault has none. The rows are invented."""

import json

import pandas as pd
import pytest
from conftest import REAL

from qatoolkit.curate.curate import curate
from qatoolkit.curate.filters import filters
from qatoolkit.curate.settings import FLAGGED, REJECTED, CurateSettings

LONG = "How many litres of paint does a painter need for the four walls of a hall that is nine metres long?"


def row(question: str, answer: str, **more) -> pd.DataFrame:
    return pd.DataFrame([{"id": "r", "question": question, "answer": answer, "language": "en", "source": "own"} | more])


def reasons(question: str, answer: str = "a plain answer", **more) -> set[str]:
    return set(filters(row(question, answer, **more))["reason"])


def test_an_empty_or_long_text_choices_language_and_signs_have_their_reasons():
    assert reasons("", "x") == {"empty_question"}
    assert reasons("Good question here?", " ") == {"empty_answer"}
    assert reasons("Which one?", "six", choices=["one", "two"]) == {"choices"}
    assert reasons("这是一个用中文写的问题，对吗？", "对的") == {"language"}
    assert reasons("Is the boiling point one hundred degrees or less?", "one hundred degrees") == {"answer_in_question"}
    assert reasons("What does \ufffd mean?") == {"unreadable"}
    assert set(filters(row("x" * 50, "y"), max_question=49)["reason"]) == {"too_long"}


@pytest.mark.parametrize(
    ("answer", "echo"),
    [
        (LONG, True),
        (f"{LONG} Twelve.", True),
        ("A painter needs twelve litres of paint for the four walls of such a hall.", False),
        ("nine metres long", False),
        (
            "Multiply the length by the height, double it for the opposite walls, and divide by the cover per litre.",
            False,
        ),
    ],
)
def test_an_answer_that_only_repeats_the_question_is_an_echo(answer, echo):
    assert ("echo" in reasons(LONG, answer)) == echo
    assert ("rationale_echo" in reasons(LONG, "12", rationale=answer)) == echo


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't assist with that request.",
        "As an AI language model, I have no opinion on this.",
        "I cannot provide medical advice.",
        "Unfortunately, I am unable to complete this task.",
        "抱歉，我无法回答这个问题。",
        "作为一个人工智能语言模型，我没有个人看法。",
        "很遗憾，我不能为您提供这方面的信息。",
    ],
)
def test_a_refusal_is_rejected(answer):
    language = "en" if answer.isascii() else "zh"
    question = "What is the dose?" if language == "en" else "剂量是多少？"
    assert reasons(question, answer, language=language) == {"refusal"}


@pytest.mark.parametrize(
    "answer",
    [
        "It cannot be determined from the data given.",
        "I cannot swim.",
        'The assistant said: "I cannot help you with that."',
        "“我无法回答”是他的原话。",
        "As an air-breathing animal it surfaces every hour.",
        "Sorry is an apology.",
        "无法确定",
        "作为一个国家的首都，它位于北方。",
    ],
)
def test_words_of_a_refusal_inside_an_answer_are_none(answer):
    assert "refusal" not in reasons("What does it say?", answer)


def test_a_choice_that_reads_like_a_refusal_is_none():
    choices = ["I can't help it.", "I can help it."]
    assert reasons("How does Tom answer?", choices[0], choices=choices, answer_index=0) == set()


@pytest.mark.parametrize(
    "text",
    [
        "The reaction releases heat, and so the temperature of the water rises because the",
        "First we add the two numbers (which are both odd",
        "The poet writes “the sea is calm",
        'He then shouted "stop the',
        "The next step would be to divide both sides by the...",
        "```python\nfor i in range(3):\n    print(i)",
        "首先把两个数相加，然后再把所得的结果乘以三，因为",
        "由题意可知每个同学都有三支铅笔和两块橡皮，",
    ],
)
def test_a_text_that_ends_too_early_is_truncated(text):
    assert reasons("What happens?", "x", rationale=text) == {"truncated"}


@pytest.mark.parametrize(
    "text",
    [
        "The interval is [0, 1)",
        "It lies in ]0, 1[ and nowhere else",
        "The series goes on: 2, 4, 8, ...",
        "0.333...",
        "a) first b) second",
        'The plank is 5" wide',
        "因此选择乙，故丙错误；",
        'He said "stop" and left',
        "on\noff\nthe",
        "and",
        "Let (a, b be given. Then a + b is even.",
        "$(0, 1]$ is half open",
    ],
)
def test_an_unusual_end_is_not_truncated(text):
    assert "truncated" not in reasons("What happens?", "x", rationale=text)


def test_a_question_may_end_on_a_blank_and_a_column_tells_of_the_token_limit():
    for blank in (
        "它的体积是（ ）",
        "它的体积是（",
        "它的体积是 ( $\\quad)$",
        "The largest organ is the",
        "Water boils at ...",
    ):
        assert "truncated" not in reasons(blank, "x", language="zh")
    assert reasons("What happens next", "x", finish_reason="length") == {"truncated"}
    assert reasons("What happens next", "x", finish_reason="stop") == set()


@pytest.mark.parametrize(
    "text",
    [
        r"The root is $\frac{1}{2",
        r"\begin{cases} x \\ y",
        r"\begin{cases} x \end{matrix}",
        r"$\left( x + 1$",
        r"So \( x^2 is even",
        r"$x^2 + 1 is prime",
        r"$\sqrt{2}}$",
    ],
)
def test_latex_that_does_not_close_is_flagged(text):
    assert "latex" in reasons("What is it?", text)


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and not $6.50, or $7.",
        r"For $5 you get $x^2$ apples.",
        r"$\left\{ 1, 2 \right.$",
        r"\begin{cases} x \\[2pt] y \end{cases}",
        r"An arrow \leftarrow and \rightarrow",
        r"\$3 and \{ alone",
        "if (a) { b = 1; }",
        r"`$x^{`",
        "$5x+3$",
        r"(c\) crossed out",
    ],
)
def test_prices_code_and_closed_latex_are_not(text):
    assert "latex" not in reasons("What is it?", text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to jane.doe@mail.ru today", "e-mail"),
        ("Call me at +44 20 7946 0958", "phone"),
        ("His office is (212) 736-5000", "phone"),
        ("请拨打手机13812345678", "phone"),
        ("card 4539 1488 0343 6467", "card"),
        ("银行卡号6011000990139424", "card"),
        ("Pay to DE89 3704 0044 0532 0130 00", "IBAN"),
        ("身份证11010519491231002X", "Chinese id"),
    ],
)
def test_private_data_is_named_by_kind_and_not_repeated(text, kind):
    found = filters(row("Who is it?", text, language="zh")).query("reason == 'private'")
    assert kind in found["detail"].item()
    assert not any(
        part in found["detail"].item() for part in ("jane.doe", "0958", "5000", "5678", "6467", "0130", "1231")
    )


@pytest.mark.parametrize(
    "text",
    [
        "me@example.com or you@school.test",
        "A@B is a matrix product",
        "1234 5678 9012 3456",  # no Luhn digit
        "4111 1111 1111 1111",  # the number of every test
        "The number 4539148803436467 is even",  # nothing says that it is a card
        "The population grew from 13812345678 to 13912345678",
        "12 + 345 678 901 = x",
        "110105194912310021",  # wrong check digit
        "DE88 3704 0044 0532 0130 00",
        "3.14159265358979323846",
        "(555) 555-1234",
    ],
)
def test_numbers_that_are_not_private_are_not(text):
    assert "private" not in reasons("What is it?", text)


def test_the_profile_says_which_reasons_reject():
    asked = row("What is it?", r"$\frac{1}{2", rationale="Because of the two numbers and of the sum and of the")
    kept, rejects, report = curate(asked)
    assert (len(kept), len(rejects)) == (1, 0)
    assert set(report.loc[report["outcome"] == "flagged", "reason"]) == {"latex", "truncated"}
    kept, rejects, report = curate(asked, settings=CurateSettings(reject=("latex",)))
    assert (len(kept), rejects["reason"].tolist()) == (0, ["latex"])
    kept, _, report = curate(row("", "x"), settings=CurateSettings(reject=()))
    assert (len(kept), report["outcome"].tolist()) == (1, ["kept", "flagged"])
    with pytest.raises(ValueError, match=r"reject.*'latec'"):
        CurateSettings(reject=("latec",))


def test_every_reason_is_a_setting_and_rejected_or_flagged():
    assert not set(REJECTED) & set(FLAGGED)
    assert set(CurateSettings(reject=(*REJECTED, *FLAGGED)).reject) == {*REJECTED, *FLAGGED}


@pytest.mark.skipif(not (REAL / "sidecar").is_dir(), reason="real data not found; set QATOOLKIT_REAL_DATA")
def test_few_rows_of_published_data_are_rejected_or_flagged():
    texts = [path.read_text(encoding="utf-8") for path in sorted(REAL.glob("*.jsonl"))]
    table = pd.DataFrame([json.loads(line) for text in texts for line in text.split("\n") if line])
    found = filters(table).drop_duplicates(["row", "reason"])["reason"].value_counts() / len(table)
    assert found.get("latex", 0) < 0.008  # measured 0.54%, in sample: 64 of 11,765, 14 read, all unbalanced
    assert found.get("truncated", 0) < 0.002  # measured 7 rows, 4 of them badly set rather than cut
    assert not {"echo", "refusal", "private"} & set(found.index)  # measured none
