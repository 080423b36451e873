"""A family of formula problems: one formula, a grid of small whole numbers, and wordings in two languages.

Our reading: seed questions include problems of this kind as well as facts. Each family comes with a check: an answer
counts because sympy confirms it in another way, not because the formula was typed correctly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import count
from pathlib import Path
from string import Formatter

import pandas as pd

from qatoolkit.core.taxonomy import LABELS

WRONG = 9  # wrong answers; with the true one, ten choices


def span(first: int, last: int, step: int = 1) -> tuple[int, ...]:
    """The allowed values first, first + step, ... up to and including `last`."""
    return tuple(range(first, last + 1, step))


def slots(template: str) -> set[str]:
    """The names in braces of a template."""
    return {field for _, field, _, _ in Formatter().parse(template) if field is not None}


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of problems; its callables take the parameters by name.

    `parameters` has the allowed values of each parameter; `valid` excludes combinations without a round result.
    `answer` is exact (int or Fraction); `check` confirms it in another way; `slips` are results of typical mistakes.
    Wordings contain every parameter as digits: `train` wordings are for corpus, seeds and synthesis, `exam` wordings
    for exams only; the `solution` states the problem with its answer, for the corpus. ValueError naming the family and
    the field that is wrong.
    """

    name: str
    discipline: str
    difficulty: str
    grade: str
    kps_en: tuple[str, ...]
    kps_zh: tuple[str, ...]
    parameters: dict[str, tuple[int, ...]]
    answer: Callable[..., int | Fraction]
    check: Callable[..., bool]
    slips: Callable[..., tuple[int | Fraction, ...]]
    train_en: tuple[str, ...]
    train_zh: tuple[str, ...]
    exam_en: str
    exam_zh: str
    solution_en: str
    solution_zh: str
    valid: Callable[..., bool] = lambda **_: True

    def __post_init__(self):
        for field, allowed in LABELS.items():
            if getattr(self, field) not in allowed:
                self._refuse(field, getattr(self, field), f"one of {', '.join(allowed)}")
        for name, values in self.parameters.items():
            if not values or min(values) < 0:
                self._refuse(f"parameters[{name!r}]", values, "one or more whole numbers from 0 up")
        for language in ("en", "zh"):
            for template in (*self.wordings(language, "train"), *self.wordings(language, "exam")):
                if slots(template) != set(self.parameters):
                    self._refuse("wording", template, f"a text with the slots {', '.join(self.parameters)}")
            if not slots(self.solution(language)) <= {*self.parameters, "answer"}:
                self._refuse("solution", self.solution(language), "a text with slots for parameters and answer only")

    def _refuse(self, field: str, found, allowed: str):
        raise ValueError(f"family {self.name!r}: {field} is {found!r}; it must be {allowed}")

    def wordings(self, language: str, split: str) -> tuple[str, ...]:
        """The question templates of a language ("en" or "zh") and a split ("train" or "exam")."""
        if split == "exam":
            return (self.exam_en if language == "en" else self.exam_zh,)
        return self.train_en if language == "en" else self.train_zh

    def solution(self, language: str) -> str:
        """The template of the worked solution."""
        return self.solution_en if language == "en" else self.solution_zh

    def allows(self, params: dict[str, int]) -> bool:
        """Whether `params` is a valid point of the grid."""
        return all(params[p] in self.parameters[p] for p in self.parameters) and bool(self.valid(**params))

    def wrong(self, **params: int) -> list[int | Fraction]:
        """Nine distinct wrong values of the same kind as the answer: slips first, then values near the answer."""
        truth = Fraction(self.answer(**params))
        found = []
        for value in _candidates(truth, self.slips(**params)):
            if value != truth and value not in found and _same_kind(value, truth):
                found.append(value)
            if len(found) == WRONG:
                return found


def family(name: str, **formula) -> Family:
    """A family with its formula, and with labels and wordings from the row of that name in `facts/families.csv`, where
    a vertical bar separates the texts of a cell."""
    row = _rows()[name]
    lists = {column: tuple(row[column].split("|")) for column in row if column.startswith(("kps", "train"))}
    return Family(name=name, **row | lists, **formula)


@cache
def _rows() -> dict[str, dict[str, str]]:
    path = Path(__file__).parent / "facts" / "families.csv"
    return pd.read_csv(path, dtype=str, keep_default_na=False, index_col="name").to_dict("index")


def _same_kind(value: Fraction, truth: Fraction) -> bool:
    """Whether a wrong value is as plausible as the truth: whole, positive or below one if the truth is."""
    if truth.denominator == 1 and value.denominator > 1:
        return False
    return (value > 0 or truth < 0) and (value < 1 or truth >= 1 or truth.denominator == 1)


def _candidates(truth: Fraction, slips):
    """The slips, then values further and further from the truth, round ones if the truth is round."""
    yield from map(Fraction, slips)
    step = Fraction(1, truth.denominator)
    while abs(truth) >= 100 and truth % (10 * step) == 0:
        step *= 10
    for distance in count(1):
        yield truth + distance * step
        yield truth - distance * step
        if truth.denominator > 1:
            yield Fraction(truth.numerator, truth.denominator + distance)
