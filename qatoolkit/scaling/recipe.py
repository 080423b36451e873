"""Proposes a setting for the next size from sweeps of small ones: learning rate, replay or length, with an interval and
a check.

Our reading: near its optimum the metric is a parabola in the dial (in its logarithm, except for shares) with the same
curvature at every size, and the optimum moves linearly with the logarithm of size. The sweep is cheap on small rungs;
the check holds out the largest of them to show whether the proposal transfers."""

import numpy as np
import pandas as pd

from qatoolkit.core.qa_table import require
from qatoolkit.scaling.forecast import FURTHEST

LOGARITHMIC = ("learning_rate", "tokens", "batch")  # suffixes of dials compared by ratios; others are shares


def propose_setting(
    runs: pd.DataFrame,
    dial: str,
    to: float,
    *,
    y: str = "bits_per_byte",
    by: str = "parameters",
    draws: int = 1000,
    seed: int = 0,
) -> dict:
    """The value of a dial that a sweep over small sizes proposes for size `to`.

    `runs`: one row per run (of `qt.stages.sweep`, all sizes together): `by`, dial, y. A smaller `y` is better unless it
    is an accuracy or a gain; rows with a null y are left out. Needs three or more values of the dial at each size.

    Returns a dict:

    - dial, to, and value with low and high (95%, residual bootstrap). Shares are limited to 0 to 1, logarithmic dials
      to ten times beyond the values tried;
    - moves: change of the best value per tenfold size (a factor for logarithmic dials, else a difference), with
      moves_low and moves_high;
    - interior: share of draws that have an optimum at all; edge: whether `value` is outside the values tried;
    - of the check: held_out (the largest size), predicted, best_tried there, and cost: how much worse y is at the tried
      value nearest to the prediction than at the best.

    With a single size there is no line and no check: the value is that of this size, and their entries are null.

    ValueError for too few values, or a size more than ten times beyond the largest."""
    require("runs", runs, by, dial, y)
    table = runs[[by, dial, y]].dropna().astype(float)
    better = -1.0 if y.endswith(("accuracy", "gain")) else 1.0
    sizes = np.sort(table[by].unique())
    few = [f"{size:,.0f}" for size in sizes if table.loc[table[by] == size, dial].nunique() < 3]
    if few or not len(sizes):
        raise ValueError(f"a best {dial} needs three of its values at each size; too few at {', '.join(few) or 'all'}")
    if not to <= FURTHEST * sizes[-1]:
        raise ValueError(f"to is {to:,.0f}, more than {FURTHEST:g} times the largest size swept, {sizes[-1]:,.0f}")
    ratio = dial.endswith(LOGARITHMIC)
    rng = np.random.default_rng(seed)
    best, drawn, slopes = _vertex(table, dial, y, by, to, better, ratio, draws, rng)
    within = _bounds(table[dial], ratio)
    best, drawn = np.clip(best, *within), np.clip(drawn, *within)
    write = np.exp if ratio else (lambda value: value)
    inside = np.isfinite(drawn)
    low, high = np.quantile(drawn[inside], [0.025, 0.975]) if inside.any() else (np.nan, np.nan)
    moves = np.nanquantile(slopes[1:], [0.025, 0.975]) if len(sizes) > 1 and inside.any() else None
    row = {"dial": dial, "to": to, "value": write(best), "low": write(low), "high": write(high)}
    row |= {"moves": None, "moves_low": None, "moves_high": None}
    if moves is not None:
        row |= {"moves": write(slopes[0]), "moves_low": write(moves[0]), "moves_high": write(moves[1])}
    tried = table[dial]
    row |= {"interior": float(inside.mean()), "edge": not tried.min() <= row["value"] <= tried.max()}
    return row | (_check(table, dial, y, by, sizes, better, ratio, rng) if len(sizes) > 1 else dict.fromkeys(CHECK))


CHECK = ("held_out", "predicted", "best_tried", "cost")


def _bounds(tried: pd.Series, ratio: bool) -> tuple[float, float]:
    """The limits for a proposed value, as logarithms if the dial is logarithmic."""
    if ratio:
        return np.log(tried.min() / FURTHEST), np.log(tried.max() * FURTHEST)
    return (0.0, 1.0) if tried.between(0, 1).all() else (-np.inf, np.inf)


def _vertex(table, dial, y, by, to, better, ratio, draws, rng) -> tuple[float, np.ndarray, np.ndarray]:
    """The minimum of the parabola at size `to`: the fitted one, those of the draws (nan without a minimum), and their
    slopes per tenfold size (the fitted one first)."""
    u = np.log(table[dial].to_numpy()) if ratio else table[dial].to_numpy()
    size, observed = np.log10(table[by].to_numpy()), better * table[y].to_numpy()
    levels = np.unique(size)
    size_dummies = (size[:, None] == levels).astype(float)  # one intercept per size
    line = [u * (size - size.mean())] if len(levels) > 1 else []
    design = np.column_stack([size_dummies, u**2, u, *line])
    coefficients, *_ = np.linalg.lstsq(design, observed, rcond=None)
    fitted, free = design @ coefficients, len(observed) - np.linalg.matrix_rank(design)
    noise = np.sqrt(np.square(observed - fitted).sum() / max(1, free)) * np.sqrt(
        max(1, free) / rng.chisquare(max(1, free), (draws, 1))
    )
    noisy = fitted + noise * rng.standard_normal((draws, len(observed)))
    every = np.vstack([coefficients, (np.linalg.pinv(design) @ noisy.T).T])
    curve, level = every[:, len(levels)], every[:, len(levels) + 1]
    tilt = every[:, len(levels) + 2] if line else np.zeros(len(every))
    with np.errstate(divide="ignore", invalid="ignore"):
        lowest = np.where(curve > 0, -(level + tilt * (np.log10(to) - size.mean())) / (2 * curve), np.nan)
        slopes = np.where(curve > 0, -tilt / (2 * curve), np.nan)
    if not np.isfinite(lowest[0]):  # no minimum: take the best value tried at the largest size
        last = table[table[by] == table[by].max()]
        best = last.loc[(better * last[y]).idxmin(), dial]
        lowest[0] = np.log(best) if ratio else best
    return lowest[0], lowest[1:], slopes


def _check(table, dial, y, by, sizes, better, ratio, rng) -> dict:
    """What the smaller sizes propose for the largest, and how much worse that is than the best value tried there."""
    last, smaller = table[table[by] == sizes[-1]], table[table[by] < sizes[-1]]
    value, *_ = _vertex(smaller, dial, y, by, sizes[-1], better, ratio, 1, rng)
    value = np.clip(value, *_bounds(smaller[dial], ratio))
    predicted = float(np.exp(value) if ratio else value)
    means = better * last.groupby(dial)[y].mean()
    away = np.abs(np.log(means.index / predicted)) if ratio else np.abs(means.index - predicted)
    return dict(
        zip(CHECK, (sizes[-1], predicted, means.idxmin(), means.iloc[away.argmin()] - means.min()), strict=True)
    )
