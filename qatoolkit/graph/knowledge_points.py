"""Knowledge points as text: normal form, and reading them from columns of a source.

`normalise_kp` decides which texts are the same knowledge point (KP); `kps_from_column` fills `knowledge_points` from a
column. `graph.merges` handles near-identical KPs that remain distinct."""

import re
import unicodedata
from collections.abc import Collection
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

# Symbols such as + - * # ! stay: "c" and "c++", "cl" and "cl-", "n" and "n!" are different knowledge points.
_EDGE_MARKS = ' "`,;:?·•。、“”「」『』《》〈〉【】'
_BULLET = re.compile(r"^[-*]+ ")
_BRACKETS = {"(": ")", "[": "]", "{": "}", "'": "'"}
_VARIANTS = str.maketrans(
    dict.fromkeys("‘’‛′ʼ", "'") | dict.fromkeys("‐‑‒–—−", "-") | dict.fromkeys("\u200b\ufeff\u00ad\u2060")
)

# Plurals that the rules below get wrong, and words that look like plurals but are not.
_EXCEPTIONS = pd.read_csv(Path(__file__).with_name("kp_plurals.csv"), index_col="word")["singular"].to_dict()
_LAST_WORD = re.compile(r"(?<![^\s\-/])[a-z]{4,}$")
_SAME_IN_PLURAL = re.compile(r"(ss|us|is|as|os|ics|oes|oses|zzes|lves|(?<![ao])uses)$")
_PLURAL_RULES = (
    (re.compile(r"(?<=thes)es$|(?<=ys)es$"), "is"),  # hypotheses, analyses
    (re.compile(r"(?<=[a-z][a-z])ies$"), "y"),  # theories
    (re.compile(r"(?<=ss|sh)es$|(?<=x)es$|(?<=[^aeiou]ch)es$|(?<=[eo]ach|eech)es$"), ""),  # classes, peaches
    (re.compile(r"s$"), ""),
)


def _singular(match):
    word = match[0]
    if word in _EXCEPTIONS:
        return _EXCEPTIONS[word]
    if not word.endswith("s") or _SAME_IN_PLURAL.search(word):
        return word
    for pattern, ending in _PLURAL_RULES:
        singular, changed = pattern.subn(ending, word)
        if changed:
            return singular
    return word


def singular(text: str) -> str:
    """A lower-case text with its last word made singular if the ending is unambiguous."""
    return _LAST_WORD.sub(_singular, text)


def normalise_kp(text: str) -> str:
    """The normal form of a knowledge point: " Newton’s Laws. " becomes "newton's law"; Chinese is not changed.

    NFKC, case folding, one kind of apostrophe and hyphen, white space and punctuation trimmed at the ends, and the last
    English word made singular if the ending is unambiguous: a missed plural costs less than two merged subjects. "" if
    nothing is left. Our reading."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_VARIANTS)
    text = " ".join(text.split())
    while True:
        trimmed = _BULLET.sub("", text).lstrip(_EDGE_MARKS).rstrip(_EDGE_MARKS + ".")
        closing = _BRACKETS.get(trimmed[:1])
        if len(trimmed) > 1 and trimmed[-1] == closing and trimmed[1:-1].count(closing) == 0:
            trimmed = trimmed[1:-1]
        if trimmed == text:
            return singular(text)
        text = trimmed


def kps_from_column(
    table: pd.DataFrame,
    column: str,
    separator: str | None = None,
    *,
    levels: str | int | None = None,
    under: Collection[str] = (),
) -> pd.DataFrame:
    """A copy of a QA table with `knowledge_points` filled from another column of its source.

    A cell is a text, a list of texts or null. separator: splits a text into several KPs, such as ";"; without it, a
    text is one KP. levels: for routes such as "Algebra->Equations->Roots", split at "->": "leaf" takes the last step,
    "all" every step, a number that many from the end; without it, a text is not split. under: keep only routes that
    contain one of these steps, and only the part after the last of them.

    In TAL-SCQ5K, under=("Knowledge Point", "知识点") drops the headings above the KPs and all routes without that step:
    abilities ("拓展思维->能力->运算求解") and others ("拓展思维->拓展思维->计算模块"). 711 of 2,332 questions get no KP there, so count what
    is left.

    Texts equal under `normalise_kp` are one KP, in the first spelling. Rows with an empty cell keep their knowledge
    points (null if `column` is `knowledge_points` itself). Raises ValueError for an unknown column, an invalid setting,
    and cells of another type.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> topics = ["Algebra->Equations; Algebra->Roots", "Geometry->Circles", None]
    >>> table = pd.DataFrame({"id": ["q1", "q2", "q3"], "topics": topics})
    >>> qt.kps_from_column(table, "topics", separator=";", levels="leaf")["knowledge_points"].tolist()
    [['Equations', 'Roots'], ['Circles'], None]
    """
    if column not in table:
        raise ValueError(f"no column {column!r} to take knowledge points from; there are {list(table.columns)}")
    if (table.columns == column).sum() > 1:
        raise ValueError(f"table has several columns called {column!r}; drop or rename all but one")
    check_split_settings(separator, levels, under)
    last = {None: None, "leaf": 1, "all": 0}.get(levels, levels)

    kept = "knowledge_points" in table and column != "knowledge_points"
    earlier = table["knowledge_points"] if kept else [None] * len(table)
    filled, normal = [], cache(normalise_kp)
    for row, cell, old in zip(table.index, table[column], earlier, strict=True):
        texts = cell_texts(cell, f"{column} in row {row!r}")
        parts = [part for text in texts for part in (text.split(separator) if separator else [text])]
        if last is not None:
            parts = [step for part in parts for step in _steps(part.split("->"), last, under)]
        distinct = {}
        for part in parts:
            distinct.setdefault(normal(part), part.strip())
        distinct.pop("", None)
        filled.append(list(distinct.values()) or (old if cell_texts(old, "knowledge_points") else None))
    return table.assign(knowledge_points=pd.Series(filled, index=table.index, dtype=object))


def check_split_settings(separator: str | None, levels: str | int | None, under: Collection[str]) -> None:
    """Raise ValueError if these settings of `kps_from_column` are invalid."""
    if separator is not None and not (isinstance(separator, str) and separator):
        raise ValueError(f"separator={separator!r}; allowed: a text of one character or more, such as ';', or None")
    if isinstance(under, str):
        raise ValueError(f"under={under!r}; allowed: several steps, such as ({under!r},)")
    whole = isinstance(levels, int | np.integer) and not isinstance(levels, bool) and levels >= 1
    if not (levels in (None, "leaf", "all") or whole):
        raise ValueError(f"levels={levels!r}; allowed: 'leaf', 'all', a whole number from 1, or None")
    if under and levels is None:
        raise ValueError(f"under={tuple(under)!r} applies to routes; give levels as well, such as levels='leaf'")


def _steps(route, last, under):
    """The `last` steps of a route (0: all) after the last step that is in `under`."""
    steps = [text for step in route if (text := step.strip())]
    passed = [i for i, step in enumerate(steps) if step in under]
    if under and not passed:
        return []
    return steps[passed[-1] + 1 if passed else 0 :][-last:]


def cell_texts(cell, where) -> list[str]:
    """The texts in a cell; an empty list for null."""
    if isinstance(cell, str):
        return [cell]
    if isinstance(cell, list | tuple | np.ndarray):
        texts = [part for part in cell if not _is_null(part)]
        if all(isinstance(part, str) for part in texts):
            return texts
        kinds = ", ".join(sorted({type(part).__name__ for part in texts} - {"str"}))
        raise ValueError(f"{where} is a list of {kinds}; allowed: a text, a list of texts, or null")
    if _is_null(cell):
        return []
    raise ValueError(f"{where} is of type {type(cell).__name__}; allowed: a text, a list of texts, or null")


def _is_null(cell):
    return cell is None or cell is pd.NA or cell != cell
