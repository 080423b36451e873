"""Exams and seed questions drawn from the textbook.

An exam asks in wordings that no training text uses; questions with parameters (listed candidates, numbers) come from a
split that seeds, teacher and corpus never draw from, and so do the sets of wrong answers. `n` is per cell of discipline
and difficulty, so that every cell can be read; a cell that the textbook cannot fill has fewer.

Who has read the textbook's answers but not the question must fare no better than by guessing: some values answer many
questions, others none. So the wrong answers of an item are drawn by how many questions they answer, such that in each
cell the right one is the most common of its choices, the second, and so on equally often (our design). The same holds
for who has read the answers of the seeds alone, which are few, and of which an exam asks some again in other words.
"""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, product

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


def exam(book: Textbook, name: str, n: int, seed: int = 0, *, seeds: int = 0) -> pd.DataFrame:
    """An exam as a QA table with every label set: up to `n` questions a cell. The same seed gives the same exam. `seeds`
    are the seed questions a cell (`seed_questions`) whose answers must not help either.

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
        readings = [answer_shares(book, spec.language)]
        readings += [seed_answers(book, spec.language, seeds, seed)] if seeds else []
        ranks = [(common, [rng.random() for _ in range(spec.choices)]) for common in readings]
        rows += islice((r for q in pool if (r := _item(book, spec, q, ranks, rng))), n)
    return qa_table(rows, source=name, licence=LICENCE)


def _item(book: Textbook, spec: Exam, q: Question, cell: list, rng: random.Random) -> dict | None:
    """One exam row, or None if wrong answers are lacking."""
    row = labelled(book, q, spec.language, "exam", 0)
    if not spec.choices:
        return row | {"answer": answer(book, q, spec.language)}
    answered = _with_choices(book, q, spec.language, cell, rng, "exam")
    return answered and row | answered


def _with_choices(
    book: Textbook, q: Question, language: str, cell: list[tuple[Counter, list[float]]], rng: random.Random, wanted: str
) -> dict | None:
    """Answer, choices in random order, and the answer's place; None where too few wrong answers exist, or those that do
    would give the answer ranks that the cell has too often.

    `cell` has for each reading (how common every text is as an answer) the cell's ranks so far: at place r the number of
    items, from a random fraction on, of whose choices r are more common than the right one. An item takes the least used
    ranks that it can have, and the first and the last only up to their fair share."""
    truth = answer(book, q, language)
    sides: dict[tuple[bool, ...], list[str]] = defaultdict(list)
    for w in wrong_answers(book, q, language, None, rng):
        sides[tuple(_above(common[w] - common[truth], rng) for common, _ in cell)].append(w)
    n = len(cell[0][1])
    for ranks in sorted(product(range(n), repeat=len(cell)), key=lambda ranks: _used(cell, ranks)):
        if not all(_fair(used, rank) for (_, used), rank in zip(cell, ranks, strict=True)):
            continue
        for counts in _divisions(ranks, n - 1):
            if any(count > len(sides[side]) for side, count in counts.items()):
                continue
            for _ in range(30):
                chosen = [w for side, count in counts.items() for w in rng.sample(sides[side], count)]
                if distractor_split(chosen) == wanted:
                    for (_, used), rank in zip(cell, ranks, strict=True):
                        used[rank] += 1
                    choices = [truth, *chosen]
                    rng.shuffle(choices)
                    return {"answer": truth, "choices": choices, "answer_index": choices.index(truth)}
    return None


def _above(ahead: float, rng: random.Random) -> bool:
    """Whether a wrong answer counts as more common than the right one; an equally common one goes to either side."""
    return ahead > EQUAL or (abs(ahead) <= EQUAL and rng.random() < 0.5)


def _used(cell: list[tuple[Counter, list[float]]], ranks: tuple[int, ...]) -> float:
    return sum(used[rank] for (_, used), rank in zip(cell, ranks, strict=True))


def _fair(used: list[float], rank: int) -> bool:
    return 0 < rank < len(used) - 1 or used[rank] <= (sum(map(int, used)) + 1) / len(used)


def _divisions(ranks: tuple[int, ...], n: int) -> Iterator[dict[tuple[bool, ...], int]]:
    """How many of `n` wrong answers to take from each side so that the right one gets these ranks, the ways that chance
    would make most often first."""
    if len(ranks) == 1:
        yield {(True,): ranks[0], (False,): n - ranks[0]}
        return
    a, b = ranks
    for both in sorted(range(max(0, a + b - n), min(a, b) + 1), key=lambda both: abs(both - a * b / n)):
        yield {(True, True): both, (True, False): a - both, (False, True): b - both, (False, False): n - a - b + both}


@lru_cache(maxsize=8)
def answer_shares(book: Textbook, language: str) -> Counter:
    """How common each text is as an answer in training: its share of the questions of every cell, summed over cells."""
    shares = Counter()
    for pool in pools(book, random.Random("answers"), "train", 4, DRAWN).values():
        for q in pool:
            shares[answer(book, q, language)] += 1 / len(pool)
    return shares


@lru_cache(maxsize=8)
def seed_answers(book: Textbook, language: str, n: int, seed: int) -> Counter:
    """How many seed questions each text answers."""
    return Counter(seed_questions(book, language, n, seed)["answer"])


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
        cell = [(answer_shares(book, language), [rng.random() for _ in range(4)])]
        rows += islice((row for q in pool if (row := _seed(book, q, language, cell, rng))), n)
    return qa_table(rows, source="textbook", licence=LICENCE, strategy="seed").drop_duplicates("id")


def _seed(book: Textbook, q: Question, language: str, cell: list, rng: random.Random) -> dict | None:
    """One seed row, or None where wrong answers are lacking."""
    answered = _with_choices(book, q, language, cell, rng, "train")
    if not answered:
        return None
    return labelled(book, q, language, "train", rng.randrange(variants(q, language, "train"))) | answered
