"""Statistics of samples: accuracy with intervals, paired differences, the grid of cells, agreement of labels."""

import warnings

import numpy as np
import pandas as pd


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95% Wilson interval of a share; (nan, nan) for n = 0."""
    if n == 0:
        return float("nan"), float("nan")
    z = 1.96
    p, centre = correct / n, (correct + z * z / 2) / (n + z * z)
    half = z * ((p * (1 - p) + z * z / (4 * n)) / n) ** 0.5 / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def difference_of_shares(right_a: int, n_a: int, right_b: int, n_b: int) -> dict:
    """Share of `a` minus share of `b`, taken as independent samples: {difference, low, high, n}, n being the smaller of
    the two. On the same questions `paired_difference` gives a narrower interval.

    95% interval by Newcombe's hybrid score method (Statistics in Medicine 17, 1998, method 10). Nulls if either side
    has no questions."""
    if not (n_a and n_b):
        return {"difference": None, "low": None, "high": None, "n": 0}
    (a, low_a, high_a), (b, low_b, high_b) = ((x / n, *wilson(x, n)) for x, n in ((right_a, n_a), (right_b, n_b)))
    below, above = np.hypot(a - low_a, high_b - b), np.hypot(high_a - a, b - low_b)
    return {"difference": a - b, "low": float(a - b - below), "high": float(a - b + above), "n": min(n_a, n_b)}


def accuracy(samples: pd.DataFrame, by: list[str] | str | None = None) -> pd.DataFrame:
    """Accuracy with its Wilson interval: the columns of `by`, n, accuracy, low, high. `samples` has a boolean
    `correct`; rows where it is null (graded metrics) are not counted in n.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> samples = pd.DataFrame({"model": ["base", "tuned"] * 4})
    >>> samples["correct"] = [True, True, False, True, False, True, False, False]
    >>> qt.table(qt.accuracy(samples, "model"))
    model n accuracy   low  high
     base 4    25.0%  4.6% 69.9%
    tuned 4    75.0% 30.1% 95.4%
    """
    groups = samples.groupby(by, sort=False, observed=True)["correct"] if by else [((), samples["correct"])]
    keys = [by] if isinstance(by, str) else (by or [])
    rows = []
    for key, correct in groups:
        key, correct = key if isinstance(key, tuple) else (key,), correct.dropna().astype(bool)
        low, high = wilson(int(correct.sum()), len(correct))
        rows.append(
            dict(zip(keys, key, strict=True))
            | {"n": len(correct), "accuracy": correct.mean(), "low": low, "high": high}
        )
    return pd.DataFrame(rows, columns=[*keys, "n", "accuracy", "low", "high"])


def paired_difference(a: pd.DataFrame, b: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> dict:
    """Mean of `a` minus `b` over the same questions with a paired-bootstrap 95% interval: {difference, low, high, n}.

    Both have `id` and `correct`. ValueError if their ids differ or any `correct` is null.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> before = pd.DataFrame({"id": range(5), "correct": [True, False, False, False, True]})
    >>> after = before.assign(correct=[True, True, True, False, True])
    >>> qt.paired_difference(after, before)
    {'difference': 0.4, 'low': 0.0, 'high': 0.8, 'n': 5}
    """
    joined = _paired(a, b)
    if joined.empty:
        return {"difference": None, "low": None, "high": None, "n": 0}
    gain = joined["correct_a"].to_numpy(float) - joined["correct_b"].to_numpy(float)
    draws = np.random.default_rng(seed).integers(0, len(gain), (resamples, len(gain)))
    low, high = np.quantile(gain[draws].mean(axis=1), [0.025, 0.975])
    return {"difference": float(gain.mean()), "low": float(low), "high": float(high), "n": len(gain)}


def difference_over_seeds(
    pairs: list[tuple[pd.DataFrame, pd.DataFrame]], *, resamples: int = 2000, seed: int = 0
) -> dict:
    """Mean of `a` minus `b` over k training seeds, one pair of samples per seed, all on the same questions:
    {difference, low, high, n, seeds, p, questions_low, questions_high, seeds_low, seeds_high}.

    There are three 95% intervals: over questions (bootstrap of each question's mean over seeds), over seeds (Student's
    t on the means of the seeds; null for one seed), and `low` to `high` over both, whose half-widths add in quadrature.
    p is McNemar's for one seed, else the p-value of the interval over both.

    Tables and errors as in `paired_difference`; ValueError if the pairs answered different questions."""
    from scipy import stats

    joined = [_paired(a, b).set_index("id").sort_index() for a, b in pairs]
    if any(not table.index.equals(joined[0].index) for table in joined):
        raise ValueError("difference over seeds: the pairs answered different questions")
    gains = np.stack([table["correct_a"].to_numpy(float) - table["correct_b"].to_numpy(float) for table in joined])
    (k, n), mean = gains.shape, float(gains.mean()) if gains.size else None
    if not n:
        ends = ("low", "high", "questions_low", "questions_high", "seeds_low", "seeds_high", "p")
        return {"difference": None, "n": 0, "seeds": k} | dict.fromkeys(ends)
    draws = np.random.default_rng(seed).integers(0, n, (resamples, n))
    ends = np.quantile(gains.mean(0)[draws].mean(axis=1), [0.025, 0.975])
    half = stats.t.ppf(0.975, k - 1) * gains.mean(1).std(ddof=1) / np.sqrt(k) if k > 1 else None
    halves = np.hypot(ends - mean, half or 0.0)
    if k == 1:
        p = mcnemar_p(int((gains > 0).sum()), int((gains < 0).sum()))
    else:
        p = float(2 * stats.norm.sf(1.96 * abs(mean) / halves.mean())) if halves.any() else 1.0
    return {
        "difference": mean, "low": mean - float(halves[0]), "high": mean + float(halves[1]), "n": n, "seeds": k,
        "questions_low": float(ends[0]), "questions_high": float(ends[1]),
        "seeds_low": None if half is None else mean - half, "seeds_high": None if half is None else mean + half, "p": p,
    }  # fmt: skip


def mcnemar(a: pd.DataFrame, b: pd.DataFrame) -> dict:
    """McNemar's test of two models on the same questions: {a_only, b_only, p}. `a_only` and `b_only` count the
    questions that only one of them answers correctly; p is two-sided.

    Exact binomial below 25 discordant questions, else chi-square with continuity correction. p is 1 if there are no
    discordant questions, None if there are no questions. Tables and errors as in `paired_difference`."""
    joined = _paired(a, b)
    first, second = (joined[f"correct_{side}"].to_numpy(bool) for side in "ab")
    a_only, b_only = int((first & ~second).sum()), int((second & ~first).sum())
    return {"a_only": a_only, "b_only": b_only, "p": mcnemar_p(a_only, b_only) if len(joined) else None}


def mcnemar_p(a_only: int, b_only: int) -> float:
    """The two-sided p of `mcnemar` from its counts."""
    from scipy import stats

    n = a_only + b_only
    if n < 25:
        return float(stats.binomtest(a_only, n).pvalue) if n else 1.0
    return float(stats.chi2.sf((abs(a_only - b_only) - 1) ** 2 / n, df=1)) if a_only != b_only else 1.0


def _paired(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    joined = a[["id", "correct"]].merge(b[["id", "correct"]], on="id", suffixes=("_a", "_b"), validate="one_to_one")
    if not len(joined) == len(a) == len(b):
        raise ValueError(f"paired difference: {len(a)} and {len(b)} samples share only {len(joined)} ids")
    if graded := int(joined[["correct_a", "correct_b"]].isna().any(axis=1).sum()):
        raise ValueError(
            f"paired difference: {graded:,} samples have no right or wrong (their metric is graded); leave them out"
        )
    return joined


CELL = ["discipline", "difficulty"]


def cells(samples: pd.DataFrame) -> pd.DataFrame:
    """The grid: one row per discipline and difficulty with n, accuracy, low, high and, if the samples have them, the
    means of margin (nats), chance (accuracy of guessing) and probability (of the right choice).

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> samples = pd.DataFrame({"discipline": ["physics"] * 3 + ["law"], "difficulty": ["H1", "H1", "H4", "H1"]})
    >>> samples["correct"] = [True, False, False, True]
    >>> qt.table(qt.cells(samples))
    discipline difficulty n accuracy   low   high
           law         H1 1   100.0% 20.7% 100.0%
       physics         H1 2    50.0%  9.5%  90.5%
       physics         H4 1     0.0%  0.0%  79.3%
    """
    if missing := {*CELL, "correct"} - set(samples.columns):
        raise ValueError(
            f"cells: the samples are missing the columns {sorted(missing)}; use a table that qt.probe returns"
        )
    grid = accuracy(samples, CELL)
    for column in ("margin", "chance", "probability"):
        if column in samples:
            mean = samples.groupby(CELL, observed=True)[column].mean().rename(column).reset_index()
            grid = grid.merge(mean, on=CELL)
    return grid.sort_values(CELL, ignore_index=True)


def threshold(grid: pd.DataFrame, target: float, above_chance: bool = False) -> pd.Series:
    """The accuracy below which each cell of the grid is weak: `target`, or chance + target x (1 - chance) with
    `above_chance`, which needs the column `chance` (else ValueError)."""
    if not above_chance:
        return pd.Series(target, index=grid.index, dtype=float)
    if "chance" not in grid:
        raise ValueError(
            "a target above chance needs the chance of each cell: probe again, or set above_chance to false"
        )
    return grid["chance"] + target * (1 - grid["chance"])


def weak(grid: pd.DataFrame, target: float, low_n: int, above_chance: bool = False) -> pd.DataFrame:
    """The cells below their `threshold` with at least `low_n` questions."""
    below = grid["accuracy"] < threshold(grid, target, above_chance)
    return grid[below & (grid["n"] >= low_n)].reset_index(drop=True)


def in_cells(table: pd.DataFrame, cells: pd.DataFrame) -> np.ndarray:
    """Whether the discipline and difficulty of each row are those of a row of `cells`, [rows] bool."""
    return pd.MultiIndex.from_frame(table[CELL]).isin(pd.MultiIndex.from_frame(cells[CELL]))


def agreement(labels: pd.Series, gold: pd.Series, order: tuple[str, ...] | None = None) -> dict:
    """Agreement of labels with gold labels, row by row: n, accuracy, Cohen's kappa and, given an `order`,
    quadratic-weighted kappa. Rows missing either label are not counted. ValueError for a label not in `order`.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> given, gold = pd.Series(["H1", "H2", "H3", "H3", None]), pd.Series(["H1", "H2", "H3", "H4", "H5"])
    >>> qt.facts(qt.agreement(given, gold, order=("H1", "H2", "H3", "H4", "H5")))
      n               4
      accuracy        75.0%
      kappa           0.6667
      weighted_kappa  0.875
    """
    _in_order(order, labels, gold)
    known = gold.notna().to_numpy() & labels.notna().to_numpy()
    a, b = labels.to_numpy()[known], gold.to_numpy()[known]
    classes = list(order or sorted(set(a) | set(b)))
    index = {label: i for i, label in enumerate(classes)}
    table = np.zeros((len(classes), len(classes)))
    np.add.at(table, ([index[x] for x in a], [index[x] for x in b]), 1)
    ranks = np.arange(len(classes))
    result = {"n": len(a), "accuracy": float((a == b).mean()) if len(a) else None}
    result["kappa"] = _kappa(table, (ranks[:, None] != ranks).astype(float))
    result["weighted_kappa"] = _kappa(table, (ranks[:, None] - ranks) ** 2.0) if order else None
    return result


def _kappa(table: np.ndarray, cost: np.ndarray) -> float | None:
    """One minus observed over expected cost of disagreement; None if the expected cost is zero."""
    n = table.sum()
    expected = (np.outer(table.sum(1), table.sum(0)) / n * cost).sum() if n else 0.0
    return float(1 - (table * cost).sum() / expected) if expected else None


def confusion(labels: pd.Series, gold: pd.Series, order: tuple[str, ...]) -> pd.DataFrame:
    """Counts by gold label (rows) and assigned label (columns); ValueError for a label not in `order`."""
    _in_order(order, labels, gold)
    return pd.crosstab(gold.to_numpy(), labels.to_numpy()).reindex(index=order, columns=order, fill_value=0)


def _in_order(order: tuple[str, ...] | None, *columns: pd.Series) -> None:
    for column in columns if order else ():
        if unknown := set(column.dropna()) - set(order):
            raise ValueError(f"{min(map(str, unknown))!r} is not a label of order={order}: map or drop it first")


def rank_correlation(x, y) -> dict:
    """Spearman's rank correlation of two series, paired row by row, with its 95% bootstrap interval over the rows: {n,
    correlation, low, high}. Rows missing either value are not counted. Nulls if one of the series is constant.

    >>> from qatoolkit.core.stats import rank_correlation
    >>> found = rank_correlation([1, 2, 3, 4, 5, 5], [0.9, 0.8, 0.6, 0.7, 0.2, 0.1])
    >>> found["n"], round(found["correlation"], 2)
    (6, -0.93)
    """
    from scipy.stats import bootstrap, pearsonr, rankdata

    pairs = np.column_stack([np.asarray(v, float) for v in (x, y)])
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    found = {"n": len(pairs), "correlation": None, "low": None, "high": None}

    def spearman(x, y, axis):
        return pearsonr(rankdata(x, axis=axis), rankdata(y, axis=axis), axis=axis).statistic

    if len(pairs) > 1 and np.ptp(pairs, axis=0).all():
        options = {"paired": True, "n_resamples": 1000, "batch": 100, "method": "percentile", "rng": 0}
        with warnings.catch_warnings(action="ignore"):  # about resamples that are constant
            draws = bootstrap(tuple(pairs.T), spearman, **options).bootstrap_distribution
        found["correlation"] = float(spearman(*pairs.T, axis=0))
        found["low"], found["high"] = map(float, np.nanquantile(draws, [0.025, 0.975]))
    return found


def share(flags: pd.Series) -> float | None:
    """The share of true values; None for an empty series."""
    return float(flags.mean()) if len(flags) else None


def holm(p: list[float]) -> list[float]:
    """p-values corrected for multiple testing by Holm's step-down method (Holm 1979), in the order given."""
    values = np.array(p, dtype=float)
    order, found = np.argsort(values, kind="stable"), np.empty(len(p))
    found[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(p), 0, -1) * values[order]))
    return found.tolist()


def corrected(table: pd.DataFrame, p: str, within: str) -> pd.Series:
    """The column `p` of a table after `holm`, in each group of the column `within`; a missing p counts as 1."""
    return (
        table.groupby(within)[p].transform(lambda values: holm(values.astype(float).fillna(1.0).tolist())).astype(float)
    )
