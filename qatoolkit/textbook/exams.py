"""Exams and seed questions drawn from the textbook.

An exam asks in wordings that no training text uses; questions with parameters (listed candidates, numbers) come from a
split that seeds, teacher and corpus never draw from, and so do the sets of wrong answers. `n` is per cell of discipline
and difficulty, so that every cell can be read; a cell that the textbook cannot fill has fewer.
"""

import hashlib
import random
from collections import defaultdict
from dataclasses import dataclass
from itertools import islice

import pandas as pd

from qatoolkit.core.qa_table import qa_table
from qatoolkit.core.taxonomy import DIFFICULTIES, HIGH
from qatoolkit.textbook import problems
from qatoolkit.textbook.knowledge import Textbook
from qatoolkit.textbook.questions import (
    Question,
    answer,
    comparison,
    families,
    questions,
    variants,
    write,
    wrong_answers,
)

LICENCE = "Apache-2.0"


@dataclass(frozen=True, kw_only=True)
class Exam:
    """One exam: language, number of choices (0: open answer), difficulties, and how many candidates a comparison
    lists."""

    name: str
    language: str
    choices: int
    difficulties: tuple[str, ...] = DIFFICULTIES
    problems_only: bool = False


EXAMS = {
    e.name: e
    for e in (
        Exam(name="textbook_en", language="en", choices=4),
        Exam(name="textbook_zh", language="zh", choices=4),
        Exam(name="textbook_pro", language="en", choices=10, difficulties=HIGH),
        Exam(name="textbook_math", language="en", choices=0, problems_only=True),
    )
}


def pools(book: Textbook, rng: random.Random, wanted: str, candidates: int, size: int) -> dict[tuple, list[Question]]:
    """Questions by cell (discipline, difficulty), each cell in random order: all those about facts, and up to `size`
    per relation or kind of problem of those with parameters, taken from the `wanted` split ("train" or "exam")."""
    cells = defaultdict(dict)
    for q in questions(book):
        cells[q.discipline, q.difficulty].setdefault(q.form, []).append(q)
    for relation in book.relations.values():
        drawn = {}
        for _ in range(size):
            q = None if relation.target else comparison(book, relation, candidates, rng, wanted=wanted)
            if q:
                drawn[q.key()] = q
        for q in drawn.values():
            cells[q.discipline, q.difficulty].setdefault(q.form, []).append(q)
    for family in families(book):
        sets = problems.parameter_sets(family, wanted)
        for params in rng.sample(sets, min(size, len(sets))):
            q = Question(form="problem", family=family, params=tuple(params.items()))
            cells[q.discipline, q.difficulty].setdefault(q.form, []).append(q)
    return {cell: _alternate(by_form, rng) for cell, by_form in sorted(cells.items())}


def _alternate(by_form: dict[str, list[Question]], rng: random.Random) -> list[Question]:
    """Shuffle each form and deal them in turn, so that a small sample has every form of its cell."""
    piles = [rng.sample(pile, len(pile)) for _, pile in sorted(by_form.items())]
    return [pile[i] for i in range(max(map(len, piles))) for pile in piles if i < len(pile)]


def exam(book: Textbook, name: str, n: int, seed: int = 0) -> pd.DataFrame:
    """An exam as a QA table with every label set: up to `n` questions a cell. The same seed gives the same exam.

    Raises ValueError for an unknown name or an n below 1."""
    if name not in EXAMS:
        raise ValueError(f"no exam is called {name!r}; there are {', '.join(EXAMS)}")
    if n < 1:
        raise ValueError(f"n is {n}; an exam needs at least one question a cell")
    spec = EXAMS[name]
    rng = random.Random(f"{name}/{seed}")
    rows = []
    for (_, difficulty), pool in pools(book, rng, "exam", max(spec.choices, 4), 2 * n).items():
        if difficulty not in spec.difficulties:
            continue
        if spec.problems_only:
            pool = [q for q in pool if q.form == "problem"]
        rows += islice((r for q in pool if (r := _item(book, spec, q, rng))), n)
    return qa_table(rows, source=name, licence=LICENCE)


def _item(book: Textbook, spec: Exam, q: Question, rng: random.Random) -> dict | None:
    """One exam row, or None if there are too few wrong answers for the number of choices."""
    row = labelled(book, q, spec.language, "exam", 0)
    if not spec.choices:
        return row | {"answer": answer(book, q, spec.language)}
    answered = _with_choices(book, q, spec.language, spec.choices, rng, "exam")
    return answered and row | answered


def _with_choices(book: Textbook, q: Question, language: str, n: int, rng: random.Random, wanted: str) -> dict | None:
    """Answer, `n` choices in random order and the answer's place; None where too few wrong answers exist."""
    wrong = distractors(book, q, language, n - 1, rng, wanted)
    if not wrong:
        return None
    truth = answer(book, q, language)
    choices = [truth, *wrong]
    rng.shuffle(choices)
    return {"answer": truth, "choices": choices, "answer_index": choices.index(truth)}


def distractors(
    book: Textbook, q: Question, language: str, n: int, rng: random.Random, wanted: str
) -> list[str] | None:
    """`n` wrong answers whose set falls into the `wanted` split ("train" or "exam"); None if no such set is found."""
    for _ in range(30):
        wrong = wrong_answers(book, q, language, n, rng)
        if len(wrong) < n:
            return None
        if distractor_split(wrong) == wanted:
            return wrong
    return None


def distractor_split(wrong: list[str]) -> str:
    """ "exam" for half of all sets of wrong answers, else "train", by a stable hash: no seed offers an exam item's
    set."""
    return "exam" if hashlib.sha256("|".join(sorted(wrong)).encode()).digest()[0] < 128 else "train"


def labelled(book: Textbook, q: Question, language: str, split: str, variant: int) -> dict:
    """Question text and labels of `q`."""
    return {
        "question": write(book, q, language, split, variant),
        "language": language,
        "discipline": q.discipline,
        "difficulty": q.difficulty,
        "grade": q.grade,
        "knowledge_points": q.knowledge_points(language),
    }


def seed_questions(book: Textbook, language: str, n: int, seed: int = 0) -> pd.DataFrame:
    """Seed QA with four choices in training wordings: up to `n` questions a cell, every label set by construction."""
    rng = random.Random(f"seeds/{language}/{seed}")
    rows = []
    for pool in pools(book, rng, "train", 4, 2 * n).values():
        rows += islice((row for q in pool if (row := _seed(book, q, language, rng))), n)
    return qa_table(rows, source="textbook", licence=LICENCE, strategy="seed").drop_duplicates("id")


def _seed(book: Textbook, q: Question, language: str, rng: random.Random) -> dict | None:
    """One seed row, or None where too few wrong answers exist."""
    answered = _with_choices(book, q, language, 4, rng, "train")
    if not answered:
        return None
    return labelled(book, q, language, "train", rng.randrange(variants(q, language, "train"))) | answered
