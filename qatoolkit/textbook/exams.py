"""Exams and seed questions drawn from the textbook.

An exam asks in wordings that no training text uses; questions with parameters (listed candidates, numbers) come from a
split that seeds, teacher and corpus never draw from, and so do the sets of wrong answers. `n` is per cell of discipline
and difficulty, so that every cell can be read; a cell that the textbook cannot fill has fewer.

Who has read the textbook's answers but not the question must fare no better than by guessing: some values answer many
questions, others none. So the wrong answers of an item are drawn by how many questions they answer, such that in each
cell the right one is the most common of its choices, the second, and so on equally often (our design).
"""

import hashlib
import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import lru_cache
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
EQUAL = 1e-9  # shares this close are the same
DRAWN = 40  # questions per relation or kind of problem with parameters


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
    for (_, difficulty), pool in pools(book, rng, "exam", max(spec.choices, 4), 4 * n).items():
        if difficulty not in spec.difficulties:
            continue
        if spec.problems_only:
            pool = [q for q in pool if q.form == "problem"]
        ranks = [rng.random() for _ in range(spec.choices)]
        rows += islice((r for q in pool if (r := _item(book, spec, q, ranks, rng))), n)
    return qa_table(rows, source=name, licence=LICENCE)


def _item(book: Textbook, spec: Exam, q: Question, ranks: list[int], rng: random.Random) -> dict | None:
    """One exam row, or None if wrong answers are lacking."""
    row = labelled(book, q, spec.language, "exam", 0)
    if not spec.choices:
        return row | {"answer": answer(book, q, spec.language)}
    answered = _with_choices(book, q, spec.language, ranks, rng, "exam")
    return answered and row | answered


def _with_choices(
    book: Textbook, q: Question, language: str, ranks: list[int], rng: random.Random, wanted: str
) -> dict | None:
    """Answer, choices in random order, as many as `ranks` has places, and the answer's place; None where too few wrong
    answers exist, or those that do would make the rank of the answer one that the cell has too often.

    `ranks` counts the cell's items by how many of their choices are more common answers than the right one, from a
    random fraction on; an item takes the least used rank that it can have, and the first and the last only up to their
    fair share."""
    truth, common = answer(book, q, language), answer_shares(book, language)
    wrong = wrong_answers(book, q, language, None, rng)
    above, below = [], []
    for w in wrong:  # an equally common one goes to either side
        ahead = common[w] - common[truth]
        (above if ahead > EQUAL or (abs(ahead) <= EQUAL and rng.random() < 0.5) else below).append(w)
    n, done = len(ranks), sum(map(int, ranks))
    for rank in sorted(range(n), key=ranks.__getitem__):
        fair = 0 < rank < n - 1 or ranks[rank] <= (done + 1) / n
        if not fair or rank > len(above) or n - 1 - rank > len(below):
            continue
        for _ in range(30):
            chosen = rng.sample(above, rank) + rng.sample(below, n - 1 - rank)
            if distractor_split(chosen) == wanted:
                ranks[rank] += 1
                choices = [truth, *chosen]
                rng.shuffle(choices)
                return {"answer": truth, "choices": choices, "answer_index": choices.index(truth)}
    return None


@lru_cache(maxsize=8)
def answer_shares(book: Textbook, language: str) -> Counter:
    """How common each text is as an answer in training: its share of the questions of every cell, summed over cells."""
    shares = Counter()
    for pool in pools(book, random.Random("answers"), "train", 4, DRAWN).values():
        for q in pool:
            shares[answer(book, q, language)] += 1 / len(pool)
    return shares


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
    for pool in pools(book, rng, "train", 4, 4 * n).values():
        ranks = [rng.random() for _ in range(4)]
        rows += islice((row for q in pool if (row := _seed(book, q, language, ranks, rng))), n)
    return qa_table(rows, source="textbook", licence=LICENCE, strategy="seed").drop_duplicates("id")


def _seed(book: Textbook, q: Question, language: str, ranks: list[int], rng: random.Random) -> dict | None:
    """One seed row, or None where wrong answers are lacking."""
    answered = _with_choices(book, q, language, ranks, rng, "train")
    if not answered:
        return None
    return labelled(book, q, language, "train", rng.randrange(variants(q, language, "train"))) | answered
