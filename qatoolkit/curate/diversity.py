"""How varied data sets are, compared at equal size: a larger set repeats itself more and would look less varied."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from qatoolkit.core.qa_table import require
from qatoolkit.core.stats import CELL
from qatoolkit.core.taxonomy import LABELS
from qatoolkit.core.text import normalise
from qatoolkit.curate.comparison_text import shingles, text_of, tokens, values_of

COLUMNS = [
    "set", "rows", "tokens", "distinct_1", "distinct_2", "distinct_3", "compared_tokens", "self_similarity", "low", "high",
    "compared_rows", "entropy", "entropy_share", "kp_coverage",
]  # fmt: skip
_CELLS = len(LABELS["discipline"]) * len(LABELS["difficulty"])


def diversity(
    tables: Mapping[str, pd.DataFrame],
    *,
    seeds: str | None = "seeds",
    most_tokens: int = 100_000,
    most_rows: int = 1000,
    draws: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """How varied QA tables are, one row each: set, rows, tokens, distinct_1, distinct_2, distinct_3, compared_tokens,
    self_similarity, low, high, compared_rows, entropy, entropy_share, kp_coverage; null where undefined.

    `distinct_n`: different n-grams over all n-grams of questions and answers (Li et al., arXiv 1510.03055), in random
    rows with `compared_tokens` tokens in total, the same for every set: the size of the smallest, at most
    `most_tokens`; mean of `draws`. `self_similarity`: mean Jaccard similarity of a question's word pairs to its nearest
    neighbour's, among `compared_rows` random rows of every set, with a normal 95% interval. `entropy`: of the cells of
    discipline and difficulty, in nats, over rows that have both labels; `entropy_share` divides it by the logarithm of
    the number of cells, its maximum. `kp_coverage`: share of the knowledge points of the table `seeds` that the set has
    too. Our reading, except distinct-n. ValueError for a table without question and answer.

    >>> import qatoolkit as qt
    >>> pairs = [("What do pandas eat?", "bamboo"), ("What do koalas eat?", "leaves"), ("Who sleeps least?", "giraffe")]
    >>> zoo = qt.qa_table([{"question": q, "answer": a} for q, a in pairs], language="en", source="zoo")
    >>> found = qt.curate.diversity({"zoo": zoo, "first row thrice": zoo.iloc[[0, 0, 0]]})
    >>> found[["set", "rows", "distinct_1", "self_similarity"]].round(2)
                    set  rows  distinct_1  self_similarity
    0               zoo     3        0.79             0.13
    1  first row thrice     3        0.36             1.00
    """
    vocabulary, words = {}, {}
    for name, table in tables.items():
        require(f"diversity: {name}", table, "question", "answer")
        texts = (f"{text_of(q)}\n{text_of(a)}" for q, a in zip(table["question"], table["answer"], strict=True))
        words[name] = [
            np.array([vocabulary.setdefault(word, len(vocabulary)) for word in tokens(text)], dtype=np.int64)
            for text in texts
        ]
    counts = {name: sum(map(len, rows)) for name, rows in words.items()}
    budget = min([most_tokens, *filter(None, counts.values())])
    rows = min([most_rows, *(len(table) for table in tables.values() if len(table))])
    seed_points = _points(tables[seeds]) if seeds in tables else set()
    found = []
    for name, table in tables.items():
        rng = np.random.default_rng(seed)
        about = {"set": name, "rows": len(table), "tokens": counts[name]} | _entropy(table)
        if counts[name]:
            about |= _distinct(words[name], len(vocabulary), budget, draws, rng) | _nearest(table, rows, rng)
        about["kp_coverage"] = len(seed_points & _points(table)) / len(seed_points) if seed_points else None
        found.append(about)
    return pd.DataFrame(found, columns=COLUMNS)


def _distinct(words: list[np.ndarray], vocabulary: int, budget: int, draws: int, rng) -> dict:
    """Different n-grams over all n-grams, n from 1 to 3, in random rows with `budget` tokens in all (the last is
    cut)."""
    shares = np.zeros((draws, 3))
    for draw in range(draws):
        order = rng.permutation(len(words))
        lengths = np.cumsum([len(words[row]) for row in order])
        order = order[: int(np.searchsorted(lengths, budget)) + 1]
        flat = np.concatenate([words[row] for row in order])[:budget]
        owner = np.repeat(np.arange(len(order)), [len(words[row]) for row in order])[:budget]
        grams, ends = flat, owner
        for n in range(3):
            if n:  # an n-gram lies within one row
                grams, ends = grams[:-1] * vocabulary + flat[n:], ends[:-1]
            inside = grams[ends == owner[n:]]
            shares[draw, n] = len(np.unique(inside)) / len(inside) if len(inside) else np.nan
    means = shares.mean(axis=0).tolist()
    return {f"distinct_{n + 1}": share for n, share in enumerate(means)} | {"compared_tokens": budget}


def _nearest(table: pd.DataFrame, rows: int, rng) -> dict:
    from scipy import sparse

    if rows < 2:
        return {}
    sets = [shingles(text) for text in table["question"].iloc[rng.permutation(len(table))[:rows]]]
    ids: dict[str, int] = {}
    columns = [ids.setdefault(shingle, len(ids)) for members in sets for shingle in sorted(members)]
    starts = np.cumsum([0, *map(len, sets)])
    ones = sparse.csr_matrix((np.ones(len(columns)), columns, starts), shape=(len(sets), max(1, len(ids))))
    both = (ones @ ones.T).toarray()
    sizes = np.diff(starts)
    similarity = both / np.maximum(1, sizes[:, None] + sizes - both)
    np.fill_diagonal(similarity, 0)
    nearest = similarity.max(axis=1)
    half = 1.96 * nearest.std(ddof=1) / np.sqrt(rows)
    mean = float(nearest.mean())
    return {"self_similarity": mean, "low": max(0.0, mean - half), "high": min(1.0, mean + half), "compared_rows": rows}


def _entropy(table: pd.DataFrame) -> dict:
    if not set(CELL) <= set(table) or not len(table := table.dropna(subset=CELL)):
        return {}
    shares = table.groupby(CELL, observed=True).size().to_numpy() / len(table)
    entropy = float(-(shares * np.log(shares)).sum()) + 0.0
    return {"entropy": entropy, "entropy_share": entropy / np.log(_CELLS)}


def _points(table: pd.DataFrame) -> set[str]:
    return {
        normalise(text_of(point))
        for points in values_of(table, "knowledge_points")
        if points is not None
        for point in points
    }
