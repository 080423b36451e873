"""Texts of a QA table as they are compared: words, shingles, stems, and what makes two similar questions different.

QA rows are short and come from templates, so the usual recipe for documents fails: texts shorter than a shingle must
not share one empty signature, and two questions that differ in one number or name are different questions.
"""

import re
from collections.abc import Sequence

import pandas as pd

from qatoolkit.answers.same_answer import answer_key
from qatoolkit.core.text import CJK, missing, nfkc

_TOKEN = re.compile(rf"\d+(?:[.,]\d+)*|[{CJK}]|[^\W\d_{CJK}]+(?:'[^\W\d_{CJK}]+)*")
_LAYOUT = re.compile(r"\\(?:left|right|text[a-z]*|math[a-z]+|displaystyle|quad|qquad|uline)(?![a-z])")
_NUMBERING = re.compile(r"\s*(?:【[^】]{1,20}】\s*)?(?:\d{1,3}\s*(?:[.、)](?!\d))\s*)?(?:\(\s*\d+\s*分\s*\)\s*)?")
_OPERATOR = re.compile(r"[+*/^=<>≤≥≠∧∨¬⊃≡·×÷√∪∩∈⊂]|(?<![^\s(])~(?=[A-Za-z(])|(?<![^\W\d_])-(?=\s*\w)")
_NEGATION = re.compile(r"\b(?:no|not|never|except|least|without|cannot|\w+n't)\b|[不没未非无]|除了|最[小少低]")


def tokens(text) -> list[str]:
    """Words, numbers and single CJK characters after NFKC and case folding."""
    text = nfkc(text_of(text)).replace("’", "'").casefold()
    return _TOKEN.findall(_LAYOUT.sub(" ", text) if "\\" in text else text)


def shingles(text, n: int = 2) -> frozenset[str]:
    """Runs of n tokens. A shorter text is one shingle; only an empty text has none."""
    words = tokens(text)
    if len(words) >= n:
        return frozenset(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    own = " ".join(words) or "".join(nfkc(text_of(text)).split())
    return frozenset([own]) if own else frozenset()


def stem(text) -> str:
    """NFKC without a leading question number, label in brackets or number of marks, as in exam papers."""
    text = nfkc(text_of(text))
    return text[_NUMBERING.match(text).end() :] or text


def marks(text: str) -> tuple[str, ...]:
    """What makes a different question of the same words: numbers, operators, negations. Sorted."""
    numbers = re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text))
    return tuple(sorted([*numbers, *_OPERATOR.findall(text), *_NEGATION.findall(text.casefold())]))


def answer_keys(table: pd.DataFrame) -> list[str]:
    """Canonical answers (`answer_key`), with the text of the option in place of its letter or index."""
    keys = []
    columns = (values_of(table, name) for name in ("answer", "choices", "answer_index"))
    for answer, choices, index in zip(*columns, strict=True):
        if choices is not None:
            letter = re.fullmatch(r"\(?([A-J])\)?\.?", text_of(answer).strip())
            index = ord(letter[1]) - 65 if index is None and letter else index
            answer = choices[int(index)] if index is not None and 0 <= index < len(choices) else answer
        keys.append(answer_key(answer))
    return keys


def option_set(choices) -> frozenset[str] | None:
    """The canonical forms of the choices in no order; None without choices."""
    return None if choices is None else frozenset(answer_key(choice) for choice in choices)


def join(words: Sequence[str]) -> str:
    """Tokens as readable text, without spaces between CJK characters."""
    return re.sub(rf"(?<=[{CJK}]) (?=[{CJK}])", "", " ".join(words))


def values_of(table: pd.DataFrame, name: str) -> list:
    """The values of a column, None for missing ones and if the table has no such column."""
    return [None if missing(v) else v for v in table[name]] if name in table.columns else [None] * len(table)


def text_of(value) -> str:
    """A cell as text, empty if missing."""
    return "" if missing(value) else str(value)
