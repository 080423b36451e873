"""Exams and seed questions drawn from the textbook.

An exam uses wordings that no training text uses; questions with parameters (listed candidates, numbers) and the sets of
wrong answers come from a split that seeds, teacher and corpus never use. `n` is per cell of discipline and difficulty,
so that every cell has a usable accuracy; a cell that the textbook cannot fill has fewer. An item has as many choices as
its exam allows and there are plausible ones, but four or more.

Knowing how frequent answers are in the textbook, without reading the question, must not help: some values answer many
questions, others none. So the wrong answers of an item are drawn by their frequency as answers, such that in each cell
the right one is the most frequent of its choices, the second, and so on equally often (our design). Nor is it, more
often than by chance, the most frequent one among the answers of the seeds, which are few, and some of which an exam
asks again in other words. Nor must it help to read what kind of question it is: the wrong answers to "the capital of the
country of painting X" are capitals of other paintings' countries, since the kind alone rules out any other capital.
"""

import hashlib
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import product

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
EQUAL = 1e-9  # shares that differ by less count as equal
DRAWN = 40  # questions per relation or kind of problem with parameters
FEWEST = 4  # choices of an item


@dataclass(frozen=True, kw_only=True)
class Exam:
    """One exam: language, largest number of choices (0: open answer), difficulties, and whether it has formula problems
    only."""

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
    """Questions by cell (discipline, difficulty), each cell in random order: all questions about facts, and up to
    `size` questions with parameters per relation or kind of problem, from the `wanted` split ("train" or "exam")."""
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
    """Shuffle the questions of each form and take the forms in turn, so that a small sample has every form."""
    piles = [rng.sample(pile, len(pile)) for _, pile in sorted(by_form.items())]
    return [pile[i] for i in range(max(map(len, piles))) for pile in piles if i < len(pile)]


class _Cell:
    """Counts for balancing a cell: how often the right answer had each rank among its choices, by frequency as an
    answer.

    `used[r]`: number of items, starting from a random fraction, with r choices more frequent in training than the right
    one; `first`: items whose right answer is the most frequent one among the answers of the seeds (`read`, if
    given)."""

    def __init__(self, choices: int, rng: random.Random, read: Counter | None = None):
        self.used, self.read = [rng.random() for _ in range(choices)], read
        self.first = rng.random() if read is not None else 0.0

    def ranks(self) -> Iterator[int]:
        """Ranks that the next item may have, the least used first; the first and last rank only up to their fair
        share."""
        done, n = sum(map(int, self.used)), len(self.used)
        for rank in sorted(range(n), key=self.used.__getitem__):
            if 0 < rank < n - 1 or self.used[rank] <= (done + 1) / n:
                yield rank

    def turns(self) -> tuple[bool, ...]:
        """Options for whether the next right answer is the most frequent among the seeds' answers, the preferred
        first."""
        done, n = sum(map(int, self.used)), len(self.used)
        if self.read is None or self.first > (done + 1) / n:
            return (False,)
        return (True, False) if self.first <= done / n else (False, True)

    def take(self, rank: int, first: bool) -> None:
        self.used[rank] += 1
        self.first += first


def exam(book: Textbook, name: str, n: int, seed: int = 0, *, seeds: int = 0) -> pd.DataFrame:
    """An exam as a QA table with all labels: up to `n` questions per cell. The same seed gives the same exam. `seeds`:
    the number of seed questions per cell (`seed_questions`) whose answers must not help either.

    ValueError for an unknown name or an n below 1."""
    if name not in EXAMS:
        raise ValueError(f"unknown exam {name!r}; allowed: {', '.join(EXAMS)}")
    if n < 1:
        raise ValueError(f"n is {n}; it must be 1 or more questions per cell")
    spec = EXAMS[name]
    rng = random.Random(f"{name}/{seed}")
    rows = []
    for (_, difficulty), pool in pools(book, rng, "exam", max(spec.choices, 4), 4 * n).items():
        if difficulty not in spec.difficulties:
            continue
        if spec.problems_only:
            pool = [q for q in pool if q.form == "problem"]
        read = seed_answers(book, spec.language, seeds, seed) if seeds else None
        cell = cache(partial(_Cell, rng=rng, read=read))
        rows += _fill(pool, n, lambda q, cell=cell: _item(book, spec, q, cell, rng))
    return qa_table(rows, source=name, licence=LICENCE)


def _fill(pool: list[Question], n: int, make: Callable[[Question], dict | None]) -> list[dict]:
    """Up to `n` rows from a cell's questions. What would unbalance the cell at its turn is tried again after the
    others."""
    rows, left, before = [], deque(pool), -1
    while left and before < len(rows) < n:
        before = len(rows)
        for _ in range(len(left)):
            q = left.popleft()
            row = make(q) if len(rows) < n else None
            if row:
                rows.append(row)
            else:
                left.append(q)
    return rows


def _item(book: Textbook, spec: Exam, q: Question, cell: Callable[[int], _Cell], rng: random.Random) -> dict | None:
    """One exam row, or None if there are too few wrong answers."""
    row = question_row(book, q, spec.language, "exam", rng.randrange(variants(q, spec.language, "exam")))
    if not spec.choices:
        return row | {"answer": answer(book, q, spec.language)}
    choices = _with_choices(book, q, spec.language, spec.choices, cell, rng, "exam")
    return choices and row | choices


def _with_choices(
    book: Textbook,
    q: Question,
    language: str,
    most: int,
    cell_of: Callable[[int], _Cell],
    rng: random.Random,
    wanted: str,
) -> dict | None:
    """The answer, up to `most` choices in random order, and the answer's index; None if there are too few wrong answers,
    or only such that would give the right one a rank it had too often. `cell_of`: the counts by number of choices."""
    truth, common = answer(book, q, language), answer_shares(book, language)
    wrong = wrong_answers(book, q, language, None, rng)
    if len(wrong) < FEWEST - 1:
        return None
    n = max(FEWEST, min(most, len(wrong)))  # leaves one out, where possible: a set that is all there is tells its split
    cell = cell_of(n)
    above, below = [], []
    tie = rng.random()
    for w in wrong:
        (above if _ahead(common[w] - common[truth], tie, rng) else below).append(w)
    tie = rng.random()
    read = {w for w in wrong if cell.read is not None and _ahead(cell.read[w] - cell.read[truth], tie, rng)}
    for first, rank in product(cell.turns(), cell.ranks()):
        pools = [[w for w in pool if not (first and w in read)] for pool in (above, below)]
        if rank > len(pools[0]) or n - 1 - rank > len(pools[1]):
            continue
        for _ in range(30):
            chosen = rng.sample(pools[0], rank) + rng.sample(pools[1], n - 1 - rank)
            placed = cell.read is None or first != any(w in read for w in chosen)
            if placed and distractor_split(chosen) == wanted:
                cell.take(rank, first)
                choices = [truth, *chosen]
                rng.shuffle(choices)
                return {"answer": truth, "choices": choices, "answer_index": choices.index(truth)}
    return None


def _ahead(difference: float, tie: float, rng: random.Random) -> bool:
    """Whether a wrong answer counts as more frequent than the right one; ties are broken at random, with the
    probability `tie`, which an item draws once, so that among n equals each is first one time in n."""
    return difference > EQUAL or (abs(difference) <= EQUAL and rng.random() < tie)


@lru_cache(maxsize=8)
def answer_shares(book: Textbook, language: str) -> Counter:
    """How frequent each text is as an answer in training: its share of the questions of a cell, summed over cells."""
    shares = Counter()
    for pool in pools(book, random.Random("answers"), "train", 4, DRAWN).values():
        for q in pool:
            shares[answer(book, q, language)] += 1 / len(pool)
    return shares


@lru_cache(maxsize=8)
def seed_answers(book: Textbook, language: str, n: int, seed: int) -> Counter:
    """The number of seed questions that each text answers."""
    return Counter(seed_questions(book, language, n, seed)["answer"])


def distractor_split(wrong: list[str]) -> str:
    """ "exam" for half of all sets of wrong answers, else "train", by a stable hash: no seed has the set of an exam
    item."""
    return "exam" if hashlib.sha256("|".join(sorted(wrong)).encode()).digest()[0] < 128 else "train"


def question_row(book: Textbook, q: Question, language: str, split: str, variant: int) -> dict:
    """The question text and labels of `q`."""
    return {
        "question": write(book, q, language, split, variant),
        "language": language,
        "discipline": q.discipline,
        "difficulty": q.difficulty,
        "grade": q.grade,
        "knowledge_points": q.knowledge_points(language),
    }


def seed_questions(book: Textbook, language: str, n: int, seed: int = 0) -> pd.DataFrame:
    """Seed QA with four choices in training wordings: up to `n` questions per cell, with all labels by construction."""
    rng = random.Random(f"seeds/{language}/{seed}")
    rows = []
    for pool in pools(book, rng, "train", 4, 4 * n).values():
        cell = cache(partial(_Cell, rng=rng))
        rows += _fill(pool, n, lambda q, cell=cell: _seed(book, q, language, cell, rng))
    return qa_table(rows, source="textbook", licence=LICENCE, strategy="seed").drop_duplicates("id")


def _seed(book: Textbook, q: Question, language: str, cell: Callable[[int], _Cell], rng: random.Random) -> dict | None:
    """One seed row, or None if there are too few wrong answers."""
    choices = _with_choices(book, q, language, FEWEST, cell, rng, "train")
    if not choices:
        return None
    return question_row(book, q, language, "train", rng.randrange(variants(q, language, "train"))) | choices
