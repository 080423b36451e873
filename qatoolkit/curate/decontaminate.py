"""Decontamination: training rows that contain a question of an exam."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from qatoolkit.core.qa_table import require
from qatoolkit.core.text import is_cjk
from qatoolkit.curate.comparison_text import join, marks, option_set, stem, tokens, values_of

_BOILERPLATE = 20  # an n-gram in more items of one exam than this belongs to its instructions


def decontaminate(
    table: pd.DataFrame, exams: Mapping[str, pd.DataFrame], *, n: int = 8, n_cjk: int = 13, min_overlap: float = 0.5
) -> pd.DataFrame:
    """Rows that contain an exam question, best hit per row and exam: (row, id, exam, exam_id, overlap, matched).

    `overlap` is the share of the exam question's tokens in n-grams that also occur in the row's question (n_cjk
    characters for mostly Chinese exam questions). A hit needs `min_overlap`, or the same normalised question of any
    length (overlap 1). If both have choices, the same question must also share half of them: many stems are only "Which
    of the following is true?". N-grams in more than 20 items of one exam are boilerplate and not counted. `row` is the
    position in `table`. ValueError for an exam without a question column.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> exam = pd.DataFrame({"id": ["e1"], "question": ["Which animal sleeps for only thirty minutes a day?"]})
    >>> asked = "Explain your answer: which animal sleeps for only thirty minutes a day?"
    >>> table = qt.qa_table([{"question": asked, "answer": "the giraffe"}], language="en", source="zoo")
    >>> qt.curate.decontaminate(table, {"zoo exam": exam})[["row", "exam", "exam_id", "overlap"]]
       row      exam exam_id  overlap
    0    0  zoo exam      e1      1.0
    """
    require("the table to decontaminate", table, "id", "question")
    items, grams, exact = _exam_index(exams, n, n_cjk)
    vocabulary = {word for item in items for word in item.words}
    found = []
    for row, (text, choices) in enumerate(zip(table["question"], values_of(table, "choices"), strict=True)):
        words = tokens(stem(text))
        best: dict[str, tuple[float, int, str]] = {}
        for item in exact.get(tuple(words), ()):
            same_stem = items[item].marks == marks(stem(text))
            if same_stem and _share_options(option_set(choices), option_set(items[item].choices)):
                best[items[item].exam] = (1.0, item, join(words))
        places = defaultdict(set)
        for start, end in _known_runs(words, vocabulary):
            for size, index in grams.items():
                for first in range(start, end - size + 1):
                    for item, place in index.get(" ".join(words[first : first + size]), ()):
                        places[item].add(place)
        for item, starts in places.items():
            entry = items[item]
            covered = sorted({p + k for p in starts for k in range(entry.size)})
            overlap = len(covered) / entry.counted
            if overlap >= min_overlap and overlap > best.get(entry.exam, (0.0,))[0]:
                best[entry.exam] = (overlap, item, join(_longest_run(covered, entry.words)))
        found += [
            (row, exam, items[item].id, overlap, matched[:300]) for exam, (overlap, item, matched) in best.items()
        ]
    hits = pd.DataFrame(found, columns=["row", "exam", "exam_id", "overlap", "matched"])
    hits.insert(1, "id", table["id"].to_numpy()[hits["row"].to_numpy(dtype=int)])
    return hits.astype({"row": int, "overlap": float})


@dataclass
class _Item:
    exam: str
    id: str
    words: list[str]
    marks: tuple[str, ...]
    choices: Sequence | None
    size: int
    counted: int = 0  # tokens in n-grams that are not boilerplate


def _exam_index(exams: Mapping[str, pd.DataFrame], n: int, n_cjk: int):
    """Exam items, their n-grams (size -> n-gram -> [(item, start)]) and their whole questions."""
    items: list[_Item] = []
    grams: dict[int, dict[str, list]] = {n: {}, n_cjk: {}}
    exact = defaultdict(list)
    for exam, questions in exams.items():
        if "question" not in questions.columns:
            raise ValueError(f"exam {exam!r} has no column 'question'; it has {list(questions.columns)}")
        own: dict[int, dict[str, list]] = {n: defaultdict(list), n_cjk: defaultdict(list)}
        start, seen = len(items), {}
        ids = values_of(questions, "id") if "id" in questions.columns else range(len(questions))
        for name, text, choices in zip(ids, questions["question"], values_of(questions, "choices"), strict=True):
            words = tokens(stem(text))
            if not words:
                continue
            size = n_cjk if 2 * sum(map(is_cjk, words)) > len(words) else n
            items.append(_Item(exam, str(name), words, marks(stem(text)), choices, size))
            exact[tuple(words)].append(len(items) - 1)
            if seen.setdefault(tuple(words), len(items) - 1) == len(items) - 1:
                for place in range(len(words) - size + 1):
                    own[size][" ".join(words[place : place + size])].append((len(items) - 1, place))
        covered = [set() for _ in items[start:]]
        for size, index in own.items():
            for gram, postings in index.items():
                if len({item for item, _ in postings}) > _BOILERPLATE:
                    continue
                grams[size].setdefault(gram, []).extend(postings)
                for item, place in postings:
                    covered[item - start].update(range(place, place + size))
        for item, places in zip(items[start:], covered, strict=True):
            item.counted = len(places)
    return items, grams, exact


def _known_runs(words: list[str], vocabulary: set[str]):
    """(start, end) of the runs of words that occur in exams; a matching n-gram lies within one of them."""
    edges = [-1, *(i for i, word in enumerate(words) if word not in vocabulary), len(words)]
    return [(a + 1, b) for a, b in pairwise(edges) if b - a > 1]


def _longest_run(covered: list[int], words: list[str]) -> list[str]:
    runs = np.split(np.array(covered), np.flatnonzero(np.diff(covered) > 1) + 1)
    longest = max(runs, key=len)
    return words[longest[0] : longest[-1] + 1]


def _share_options(a: frozenset | None, b: frozenset | None) -> bool:
    return a is None or b is None or 2 * len(a & b) >= min(len(a), len(b))
