"""Settings for the next size from sweeps of small ones: learning rate, replay or length, with an interval and a check.

Our reading: near its best the metric is a parabola in the dial (in its logarithm, but for shares), as curved at every
size, whose lowest point moves in a line with the logarithm of size. Small rungs pay for the sweep; what does not
transfer shows in the check, which holds out the largest of them."""

import numpy as np
import pandas as pd

from qatoolkit.core.qa_table import require
from qatoolkit.scaling.forecast import FURTHEST

LOGARITHMIC = ("learning_rate", "tokens", "batch")  # endings of dials that are compared by ratios; others are shares


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

    `runs`: one row per run (of `qt.stages.sweep`, sizes put together): `by`, dial, y; `y` is the smaller the better
    unless it is an accuracy or a gain; rows with a null y are left out. Three values of the dial or more at each size.

    Returns {dial, to, value, low, high (95%, residuals drawn again; a share is kept between 0 and 1, a logarithmic dial
    within ten times of the values tried), moves: change of the best value per tenfold size (a factor for logarithmic
    dials, else a difference) with moves_low, moves_high, interior: the share of the draws that have a best value at all, edge: whether `value` lies outside the values tried, and of the check: held_out (the
    largest size), predicted, best_tried there, and cost, how much worse y is at the tried value nearest to the
    prediction than at the best}. With one size there is no line and no check: the value is that size's, nulls in their
    place.

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
    """Between what a best value can be said to lie, as a logarithm where ratios count."""
    if ratio:
        return np.log(tried.min() / FURTHEST), np.log(tried.max() * FURTHEST)
    return (0.0, 1.0) if tried.between(0, 1).all() else (-np.inf, np.inf)


def _vertex(table, dial, y, by, to, better, ratio, draws, rng) -> tuple[float, np.ndarray, np.ndarray]:
    """Where the parabola of size `to` is lowest: its value, the draws' (nan without a lowest point), and the slopes of
    value (first) and draws per tenfold size."""
    u = np.log(table[dial].to_numpy()) if ratio else table[dial].to_numpy()
    size, seen = np.log10(table[by].to_numpy()), better * table[y].to_numpy()
    levels = np.unique(size)
    own = (size[:, None] == levels).astype(float)  # a level for each size
    line = [u * (size - size.mean())] if len(levels) > 1 else []
    design = np.column_stack([own, u**2, u, *line])
    found, *_ = np.linalg.lstsq(design, seen, rcond=None)
    fitted, free = design @ found, len(seen) - np.linalg.matrix_rank(design)
    noise = np.sqrt(np.square(seen - fitted).sum() / max(1, free)) * np.sqrt(
        max(1, free) / rng.chisquare(max(1, free), (draws, 1))
    )
    again = fitted + noise * rng.standard_normal((draws, len(seen)))
    every = np.vstack([found, (np.linalg.pinv(design) @ again.T).T])
    curve, level = every[:, len(levels)], every[:, len(levels) + 1]
    tilt = every[:, len(levels) + 2] if line else np.zeros(len(every))
    with np.errstate(divide="ignore", invalid="ignore"):
        lowest = np.where(curve > 0, -(level + tilt * (np.log10(to) - size.mean())) / (2 * curve), np.nan)
        slopes = np.where(curve > 0, -tilt / (2 * curve), np.nan)
    if not np.isfinite(lowest[0]):  # no lowest point: the best value tried at the largest size
        last = table[table[by] == table[by].max()]
        best = last.loc[(better * last[y]).idxmin(), dial]
        lowest[0] = np.log(best) if ratio else best
    return lowest[0], lowest[1:], slopes


def _check(table, dial, y, by, sizes, better, ratio, rng) -> dict:
    """What the smaller sizes would have proposed for the largest, and what it would have cost."""
    last, smaller = table[table[by] == sizes[-1]], table[table[by] < sizes[-1]]
    value, *_ = _vertex(smaller, dial, y, by, sizes[-1], better, ratio, 1, rng)
    value = np.clip(value, *_bounds(smaller[dial], ratio))
    predicted = float(np.exp(value) if ratio else value)
    means = better * last.groupby(dial)[y].mean()
    away = np.abs(np.log(means.index / predicted)) if ratio else np.abs(means.index - predicted)
    return dict(
        zip(CHECK, (sizes[-1], predicted, means.idxmin(), means.iloc[away.argmin()] - means.min()), strict=True)
    )
