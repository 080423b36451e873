"""Filters: faults that can be seen in a single row, each with its reason."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import pairwise

import pandas as pd

from qatoolkit.answers.same_answer import choice_consistent
from qatoolkit.core.prompt_format import needs_choices
from qatoolkit.core.text import CJK, is_missing
from qatoolkit.curate.comparison_text import text_of, tokens, values_of
from qatoolkit.curate.settings import REJECTED, CurateSettings
from qatoolkit.curate.text_faults import cut_off, private_data, refusal, unbalanced_latex

_UNREADABLE = re.compile("[\ufffd\ue000-\uf8ff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_READ = ("question", "answer", "choices", "answer_index", "language", "rationale", "finish_reason")
_MOSTLY = 0.9  # share of an echo's word pairs that are in the question


def filters(
    table: pd.DataFrame,
    *,
    max_question: int = 20_000,
    max_answer: int = 20_000,
    echo: float = 0.8,
    reject: Collection[str] = REJECTED,
) -> pd.DataFrame:
    """Faults of rows, possibly several per row: (row, id, reason, detail, reject); `row` is the position in the table,
    `reject` whether the reason is one of those in `reject`.

    empty_question, empty_answer, too_long; choices (fewer than two, an empty or repeated one, the answer not among
    them); no_choices (the question refers to choices and has none); language (the text is not in the stated language);
    echo, rationale_echo (the text repeats the share `echo` of the question and adds almost nothing); refusal (the
    answer is a refusal); truncated (a text is cut off, or `finish_reason` is length); latex (unbalanced); private
    (e-mail, phone, card, IBAN, Chinese identity number); answer_in_question; unreadable (replacement or control
    characters). Our reading.

    >>> import qatoolkit as qt
    >>> rows = [{"question": "Which of the following lives in water?", "answer": "carp"}]
    >>> qt.curate.filters(qt.qa_table(rows, language="en", source="zoo"))[["reason", "detail", "reject"]]
           reason                                  detail  reject
    0  no_choices  Which of the following lives in water?    True
    """
    found, ids = [], table["id"].to_numpy()
    for row, values in enumerate(zip(*(values_of(table, column) for column in _READ), strict=True)):
        faults = _faults(dict(zip(_READ, values, strict=True)), max_question, max_answer, echo)
        found += [(row, ids[row], reason, detail, reason in reject) for reason, detail in faults]
    return flags(found)


def options(settings: CurateSettings) -> dict:
    """The keyword arguments of `filters`, from the settings of curation."""
    return {name: getattr(settings, name) for name in ("max_question", "max_answer", "echo", "reject")}


def flags(rows: Iterable[tuple]) -> pd.DataFrame:
    """Faults as `filters` returns them, from (row, id, reason, detail, reject)."""
    columns = ["row", "id", "reason", "detail", "reject"]
    return pd.DataFrame(list(rows), columns=columns).astype({"row": int, "reject": bool})


def _faults(entry: Mapping, max_question: int, max_answer: int, echo: float) -> Iterator[tuple[str, str]]:
    question, answer, rationale = (text_of(entry[name]) for name in ("question", "answer", "rationale"))
    if not re.search(r"\w", question):
        yield "empty_question", repr(question[:40])
    if not answer.strip():
        yield "empty_answer", repr(answer[:40])
    long = [
        (n, t, m) for n, t, m in (("question", question, max_question), ("answer", answer, max_answer)) if len(t) > m
    ]
    for name, text, limit in long:
        yield "too_long", f"{name} has {len(text)} characters, {limit} allowed"
    if long:
        return  # the other checks are too slow for texts of a million characters
    if fault := choice_consistent(entry):
        yield "choices", fault
    if fault := _wrong_language(question, entry["language"]):
        yield "language", fault
    alone = is_missing(entry["choices"])
    if alone and needs_choices(question):
        yield "no_choices", question[:80]
    answer_words = tokens(answer)
    question_words = tokens(question) if len(answer_words) > 1 or rationale else []
    for reason, text in (("echo", answer), ("rationale_echo", rationale)):
        if len(question) < 2 * len(text) < 8 * len(question) and _echoes(question_words, tokens(text), echo):
            yield reason, text[:80]
    if alone and (start := refusal(answer)):
        yield "refusal", start
    texts = {"question": question, "answer": answer} | ({"rationale": rationale} if rationale else {})
    cut = {
        name: cut_off(text, sentence=name == "rationale" or (alone and name == "answer"))
        for name, text in texts.items()
    }
    cut["finish_reason"] = "length" if entry["finish_reason"] == "length" else None
    for reason, found in (
        ("truncated", cut),
        ("latex", {name: unbalanced_latex(text) for name, text in texts.items()}),
        ("private", {name: private_data(text) for name, text in texts.items()}),
    ):
        if detail := "; ".join(f"{name}: {fault}" for name, fault in found.items() if fault):
            yield reason, detail
    # Single words often occur by chance.
    if len(answer_words) > 1 and f" {' '.join(answer_words)} " in f" {' '.join(question_words)} ":
        yield "answer_in_question", answer[:80]
    if unreadable := _UNREADABLE.search(question + answer):
        yield "unreadable", f"U+{ord(unreadable[0]):04X}"


def _wrong_language(question: str, language: str | None) -> str | None:
    text = re.sub(r"\\[A-Za-z]+|\$[^$]*\$", " ", question)
    cjk, latin = len(re.findall(f"[{CJK}]", text)), len(re.findall(r"[A-Za-z]{2,}", text))
    if language == "en" and cjk > latin:
        return f"stated en, found {cjk} CJK characters and {latin} Latin words"
    if language == "zh" and not cjk and latin >= 4:
        return f"stated zh, found no CJK character and {latin} Latin words"
    return None


def _echoes(question: list[str], text: list[str], share: float) -> bool:
    """Whether a text repeats the question and adds almost nothing, by pairs of words. A text of fewer than six words
    may be an answer that the question happens to contain."""
    if len(text) < 6:
        return False
    question_pairs, text_pairs = (set(pairwise(words)) for words in (question, text))
    both = len(question_pairs & text_pairs)
    return both >= share * len(question_pairs) and both >= _MOSTLY * len(text_pairs)
