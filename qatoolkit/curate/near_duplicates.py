"""Near-duplicates of a QA table: rows that ask the same thing in almost the same words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from qatoolkit.curate.comparison_text import answer_keys, option_set, text_of, values_of
from qatoolkit.curate.differences import Vocabulary, digest, moved_clause

_PERMUTATIONS = 128
_CHUNK = 20_000  # rows held as Python objects at a time


def near_duplicates(
    table: pd.DataFrame,
    *,
    threshold: float | None = None,
    on: Sequence[str] = ("question", "answer"),
    n: int = 2,
    seed: int = 0,
) -> pd.DataFrame:
    """Clusters of rows that ask the same thing, one line per row, in order: (id, cluster, keep, similarity).

    Two rows are the same question if the first column of `on` has the same words and the other columns are equal
    (answers by meaning, letters replaced by choices). Question numbers, articles, requests ("Please answer", "Show your
    work."), punctuation, inflections (`differences`), the position of a clause and the order of the choices make no
    difference. Any other word does, whether inserted, missing or replaced: negations, opposites, names and numbers too.

    With a `threshold`, strings are compared instead, and opposites may be merged: the first column must reach this
    Jaccard similarity of shingles (runs of `n` words). MinHash with banding proposes pairs (128 permutations, 99% of
    the pairs exactly at the threshold); exact Jaccard decides.

    The kept row of a cluster is chosen by `verified` (true, then unknown, then false), then by having a rationale, then
    by order; `similarity` is to the kept row. ValueError for a missing column or a threshold outside (0, 1].

    >>> import qatoolkit as qt
    >>> asked = "Which animal of the savanna has the longest neck?"
    >>> pairs = [(asked, "giraffe"), (f"Tell me: {asked}", "the giraffe"), (asked.replace("long", "short"), "giraffe")]
    >>> table = qt.qa_table([{"question": q, "answer": a} for q, a in pairs], language="en", source="zoo")
    >>> qt.curate.near_duplicates(table)[["cluster", "keep", "similarity"]]
       cluster   keep  similarity
    0        0   True         1.0
    1        0  False         1.0
    2        1   True         1.0
    """
    from qatoolkit.curate.compiled import duplicates as loops

    rows = _read(table, threshold, on)
    parent = np.arange(len(table))
    present = np.flatnonzero(np.diff(rows.starts))  # empty questions are left to the filters
    loops.join_equal(parent, *_sorted(present, rows.order[present]))
    if threshold is None:
        for i, j in _same_words(rows, present):
            if moved_clause(*(text_of(table[on[0]].iloc[row]) for row in (i, j))):
                loops.join(parent, i, j)
    else:
        single = present[parent[present] == present]
        for keys in _band_keys(rows, single, threshold, n, seed):
            loops.join_near(parent, *_sorted(single, keys), rows.words, rows.starts, rows.codes, n, threshold)

    roots = np.array([loops.find(parent, i) for i in range(len(table))], dtype=np.int64)
    cluster, firsts = pd.factorize(roots)
    best = np.lexsort((np.arange(len(table)), -_rank(table), cluster))
    kept = best[np.searchsorted(cluster[best], np.arange(len(firsts)))][cluster]
    similarity = np.ones(len(table))
    loops.similarities(rows.words, rows.starts, kept, rows.order, rows.codes, n, similarity)
    keep = kept == np.arange(len(table))
    return pd.DataFrame({"id": table["id"].to_numpy(), "cluster": cluster, "keep": keep, "similarity": similarity})


def band_keys(
    table: pd.DataFrame,
    *,
    threshold: float | None = None,
    on: Sequence[str] = ("question", "answer"),
    n: int = 2,
    seed: int = 0,
) -> pd.DataFrame:
    """The keys by which `near_duplicates` with these options may join rows: `key` (uint64: the bag of words or a
    MinHash band; the same in every process) and `row` (position), sorted by key. Rows that are not connected by shared
    keys, directly or through other rows, are never in one cluster."""
    rows = _read(table, threshold, on)
    present = np.flatnonzero(np.diff(rows.starts))
    keys = rows.bag[present][None]
    if threshold is not None:
        keys = np.vstack([keys, _band_keys(rows, present, threshold, n, seed)])
    row, key = _sorted(np.tile(present.astype(np.int32), len(keys)), keys.ravel())
    return pd.DataFrame({"key": key, "row": row})


@dataclass
class _Rows:
    """Rows as the compiled loops read them: `words` of row i from starts[i]; `order` and `bag` are hashes of `block`
    (the columns that must be equal) and of its words, in order and in any order."""

    words: np.ndarray
    starts: np.ndarray
    codes: np.ndarray
    block: np.ndarray
    order: np.ndarray
    bag: np.ndarray


def _read(table: pd.DataFrame, threshold: float | None, on: Sequence[str]) -> _Rows:
    if threshold is not None and not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold}: must be in (0, 1]")
    absent = [column for column in on if column not in table.columns]
    if absent or not on:
        raise ValueError(f"on={tuple(on)!r}: table has no column {absent}; it has {list(table.columns)}")
    from qatoolkit.curate.compiled import duplicates as loops

    guard = threshold is None
    vocabulary = Vocabulary(guard)
    words, counts = [], [np.zeros(1, dtype=np.int64)]
    block = np.zeros(len(table), dtype=np.uint64)
    for start in range(0, len(table), _CHUNK):
        part = table.iloc[start : start + _CHUNK]
        for into, found in zip((words, counts), vocabulary.read(part[on[0]].tolist()), strict=True):
            into.append(found)
        if guard or on[1:]:
            block[start : start + _CHUNK] = np.fromiter(_blocks(part, on[1:], guard), np.uint64, len(part))
    starts = np.cumsum(np.concatenate(counts))
    flat = np.concatenate(words) if words else np.zeros(0, dtype=np.int32)
    codes = np.array(vocabulary.codes, dtype=np.uint64)
    order, bag = np.zeros(len(table), dtype=np.uint64), np.zeros(len(table), dtype=np.uint64)
    loops.read_rows(flat, starts, codes, block, order, bag)
    return _Rows(flat, starts, codes, block, order, bag)


def _blocks(table: pd.DataFrame, others: Sequence[str], guard: bool) -> Iterator[int]:
    """A 64-bit hash of the columns that must be equal, by row. Rows of different blocks share no bucket, so a template
    with thousands of fillings takes linear time."""
    answers = answer_keys(table) if "answer" in others else [""] * len(table)
    texts = [[text_of(value) for value in table[column]] for column in others if column != "answer"]
    choices = values_of(table, "choices") if guard else [None] * len(table)
    for answer, options, *rest in zip(answers, choices, *texts, strict=True):
        yield digest(repr((answer, rest, None if options is None else sorted(option_set(options)))))


def _band_keys(rows: _Rows, which: np.ndarray, threshold: float, n: int, seed: int) -> np.ndarray:
    """Band keys of the rows `which`, uint64 [bands, rows]."""
    from qatoolkit.curate.compiled import duplicates as loops

    width = _band_width(threshold)
    keys = np.empty((_PERMUTATIONS // width, len(which)), dtype=np.uint64)
    rng = np.random.default_rng(seed)
    a = rng.integers(2**31, size=_PERMUTATIONS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)  # odd: a bijection
    b = rng.integers(2**32, size=_PERMUTATIONS, dtype=np.uint32)
    loops.sign(rows.words, rows.starts, which, rows.codes, n, rows.block, a, b, width, keys)
    return keys


def _band_width(threshold: float) -> int:
    """The widest band that still proposes 99% of the pairs exactly at the threshold."""
    widths = range(_PERMUTATIONS, 0, -1)
    return next((w for w in widths if 1 - (1 - threshold**w) ** (_PERMUTATIONS // w) >= 0.99), 1)


def _sorted(rows: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    by_key = np.argsort(keys, kind="stable")
    return rows[by_key], keys[by_key]


def _same_words(rows: _Rows, present: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of rows, adjacent after sorting by bag of words, with the same words in different orders."""
    which, keys = _sorted(present, rows.bag[present])
    for r in np.flatnonzero((keys[1:] == keys[:-1]) & (rows.order[which[1:]] != rows.order[which[:-1]])):
        yield which[r], which[r + 1]


def _rank(table: pd.DataFrame) -> np.ndarray:
    """A score for choosing the kept row: verified true 4, unknown 2, false 0; one more with a rationale."""
    verified = np.array([2 if value is None else 4 * bool(value) for value in values_of(table, "verified")])
    return verified + np.array([bool(text_of(value).strip()) for value in values_of(table, "rationale")])
