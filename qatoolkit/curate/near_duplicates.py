"""Near-duplicates of a QA table: rows that ask the same thing in almost the same words."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from qatoolkit.curate.comparison_text import answer_keys, marks, option_set, shingles, stem, text_of, tokens, values_of

_NAME = re.compile(r"(?<=[^\s.!?:;]\s)[A-Z][^\W_]*")  # capitalised inside a sentence
# Answers that say nothing about the question: such rows are duplicates only if the questions are identical.
_WEAK_ANSWERS = {"", "yes", "no", "both", "neither", "maybe", "unknown", "all of above", "none of above"}
_WEAK_ANSWERS |= {"以上都是", "以上都不是", "不确定", *"abcdefghij", *"ABCDEFGHIJ"}
_PERMUTATIONS = 128
_NEIGHBOURS = 32  # earlier rows compared with a row in one bucket: bounds the work on a template filled 100,000 times


def near_duplicates(
    table: pd.DataFrame,
    *,
    threshold: float = 0.8,
    on: Sequence[str] = ("question", "answer"),
    n: int = 2,
    guard: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """Clusters of rows that ask the same thing, one line per row, in order: (id, cluster, keep, similarity).

    The first column of `on` is compared by the Jaccard similarity of its shingles, which must reach `threshold`; the
    other columns must be equal (answers by meaning, letters replaced by choices). `guard` also requires the same
    numbers, operators, negations and names, and an identical question if the answer says nothing (yes, true, "all of
    the above"). MinHash (rensa) with banding proposes pairs, exact Jaccard decides, union-find joins. The first row of
    a cluster is kept; `similarity` is to that row. ValueError for a missing column or a threshold outside (0, 1].

    >>> import qatoolkit as qt
    >>> asked = "Which animal of the savanna has the longest neck?"
    >>> said = [(asked, "giraffe"), (f"Tell me: {asked}", "the giraffe"), ("What do pandas eat?", "bamboo")]
    >>> table = qt.qa_table([{"question": q, "answer": a} for q, a in said], language="en", source="zoo")
    >>> qt.curate.near_duplicates(table, threshold=0.8)[["cluster", "keep", "similarity"]]
       cluster   keep  similarity
    0        0   True         1.0
    1        0  False         0.8
    2        1   True         1.0
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold}: must be in (0, 1]")
    absent = [column for column in on if column not in table.columns]
    if absent or not on:
        raise ValueError(f"on={tuple(on)!r}: table has no column {absent}; it has {list(table.columns)}")
    texts = [stem(text) for text in table[on[0]]]
    words = [tuple(tokens(text)) or tuple(text.split()) for text in texts]
    answers = answer_keys(table) if "answer" in on[1:] else [""] * len(table)
    others = zip(*(map(text_of, table[column]) for column in on[1:] if column != "answer"), strict=True)
    others = list(others) or [()] * len(table)
    signs = [marks(text) if guard else () for text in texts]
    choices = values_of(table, "choices")
    weak = [guard and "answer" in on[1:] and answer in _WEAK_ANSWERS for answer in answers]

    clusters = _Clusters(len(table))
    firsts: dict[tuple, int] = {}
    for i, text in enumerate(words):
        if text:  # the filters handle empty questions
            key = (text, answers[i], others[i], signs[i], option_set(choices[i]) if weak[i] else None)
            clusters.join(firsts.setdefault(key, i), i)
    single = np.array([i for i in sorted(firsts.values()) if not weak[i]], dtype=np.int64)
    # Rows that the guards keep apart share no block, so a template with thousands of fillings takes linear time.
    block = pd.factorize(pd.Series([(answers[i], others[i], signs[i]) for i in single], dtype=object))[0]

    sets: dict[int, frozenset[str]] = {}
    names: dict[int, frozenset[str]] = {}

    def shingle_set(i: int) -> frozenset[str]:
        if i not in sets:
            sets[i] = shingles(texts[i], n)
        return sets[i]

    def same_names(i: int, j: int) -> bool:
        for k in (i, j):
            if k not in names:
                names[k] = frozenset(m.casefold() for m in _NAME.findall(" ".join(texts[k].split())))
        return names[i] <= set(words[j]) and names[j] <= set(words[i])

    refused: set[tuple[int, int]] = set()
    for bucket in _buckets((shingles(texts[i], n) for i in single), block, threshold, seed):
        members = single[bucket].tolist()
        for b, j in enumerate(members):
            for i in members[max(0, b - _NEIGHBOURS) : b]:
                if clusters.find(i) == clusters.find(j) or (i, j) in refused:
                    continue
                if _jaccard(shingle_set(i), shingle_set(j)) >= threshold and (not guard or same_names(i, j)):
                    clusters.join(i, j)
                else:
                    refused.add((i, j))

    roots = [clusters.find(i) for i in range(len(table))]
    similarity = [
        1.0 if root == i or words[root] == words[i] else _jaccard(shingle_set(root), shingle_set(i))
        for i, root in enumerate(roots)
    ]
    return pd.DataFrame(
        {
            "id": table["id"].to_numpy(),
            "cluster": pd.factorize(np.array(roots, dtype=np.int64))[0],
            "keep": np.array([root == i for i, root in enumerate(roots)], dtype=bool),
            "similarity": np.array(similarity, dtype=float),
        }
    )


class _Clusters:
    """Union-find over row positions; the root of a cluster is its first row."""

    def __init__(self, n: int):
        self.parent = list(range(n))

    def find(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        first, second = sorted((self.find(i), self.find(j)))
        self.parent[second] = first


def _buckets(sets, block: np.ndarray, threshold: float, seed: int):
    """Groups of positions with the same MinHash band in the same block; a pair may be in several groups."""
    if len(block) < 2:
        return
    signatures = _signatures(sets, seed)
    width = _band_width(threshold)
    for band in range(_PERMUTATIONS // width):
        key = block.astype(np.uint64)
        for column in signatures[:, band * width : (band + 1) * width].T:
            key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)  # wraps; a collision only costs a comparison
            key ^= key >> np.uint64(29)
        order = np.argsort(key, kind="stable")
        edges = np.flatnonzero(np.diff(key[order])) + 1
        starts, ends = np.r_[0, edges], np.r_[edges, len(order)]
        for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
            yield order[start:end]


def _signatures(sets, seed: int) -> np.ndarray:
    """MinHash signatures, uint64 [rows, permutations], in chunks, so that not all shingles are in memory at once."""
    from rensa import RMinHash

    parts, chunk = [], []

    def flush():
        matrix = RMinHash.digest_matrix_from_token_sets(chunk, _PERMUTATIONS, seed)
        parts.append(np.array(matrix.to_rows(), dtype=np.uint64))
        chunk.clear()

    for shingle_set in sets:
        chunk.append(shingle_set)
        if len(chunk) == 5000:
            flush()
    if chunk:
        flush()
    return np.concatenate(parts)


def _band_width(threshold: float) -> int:
    """The widest band that still proposes 99% of the pairs exactly at the threshold."""
    widths = range(_PERMUTATIONS, 0, -1)
    return next((w for w in widths if 1 - (1 - threshold**w) ** (_PERMUTATIONS // w) >= 0.99), 1)


def _jaccard(a: frozenset, b: frozenset) -> float:
    return len(a & b) / len(a | b) if a or b else 0.0
