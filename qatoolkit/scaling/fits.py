"""Scaling sweeps: which students to train for each axis, and simple fits through the results.

The axes are the paper's (BoostQA, arXiv 2508.01326): model size, data volume and initial FLOPs, that is, the
pre-training compute of the checkpoint at which mid-training starts.
"""

import numpy as np
import pandas as pd

from qatoolkit.scaling.settings import ScalingSettings

AXES = {"parameters": "size", "tokens": "tokens", "initial_flops": "initial"}


def points(size: str, tokens: int, scaling: ScalingSettings, rungs: list[tuple[str, float]]) -> pd.DataFrame:
    """The distinct training runs of all axes: columns point (name), size, tokens, initial (share of pre-training). The
    run of `size` with `tokens` and all pre-training is on every axis and comes first; `rungs` are the other starts, as
    (size, initial)."""
    wanted = [(size, tokens, 1.0)]
    wanted += [(other, tokens, initial) for other, initial in rungs]
    wanted += [(size, round(share * tokens), 1.0) for share in scaling.tokens]
    rows = list(dict.fromkeys(wanted))
    table = pd.DataFrame(rows, columns=["size", "tokens", "initial"])
    table.insert(0, "point", [f"{size}-{tokens}-{initial:g}" for size, tokens, initial in rows])
    return table


def by_axis(results: pd.DataFrame) -> pd.DataFrame:
    """Results of `points` (the full run first) as one row per axis, arm and x, by rising x. An axis on which nothing
    varies has no rows."""
    full = results.iloc[0]
    tables = []
    for axis, varied in AXES.items():
        fixed = [name for name in AXES.values() if name != varied]
        on_axis = results[(results[fixed] == full[fixed]).all(axis=1)]
        on_axis = on_axis.assign(axis=axis, x=on_axis[axis].astype(float))
        if on_axis["x"].nunique() < 2:
            continue
        tables.append(on_axis.sort_values(["arm", "x"], ascending=[False, True], kind="stable"))
    columns = ["axis", "arm", "x", "accuracy", "low", "high", "n", "point"]
    columns += [column for column in ("chance", "blind") if column in results]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def fits(table: pd.DataFrame, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Accuracy against log10 x by least squares for every axis and arm: slope per decade with a 95% interval from
    binomial resampling of each point, and rank correlation. A description of the points, not a law.

    `table`: axis, arm, x, accuracy (a fraction), n. ValueError for a point without x, accuracy or n."""
    usable = table["x"].between(0, np.inf, "neither") & table["accuracy"].between(0, 1) & table["n"].ge(1)
    if not usable.all():
        found = table.loc[~usable, ["axis", "arm", "x", "accuracy", "n"]].iloc[0].to_dict()
        raise ValueError(
            f"a point to fit needs x above 0, accuracy from 0 to 1 and n of 1 or more, found {found}; drop it"
        )
    rng, rows = np.random.default_rng(seed), []
    for (axis, arm), part in table.groupby(["axis", "arm"], sort=False):
        if part["x"].nunique() < 2:
            continue
        x = np.log10(part["x"].to_numpy())
        y, n = part["accuracy"].to_numpy(), part["n"].to_numpy(int)
        slope, intercept = np.polyfit(x, y, 1)
        drawn = rng.binomial(n, y, (resamples, len(y))) / n
        slopes = ((drawn - drawn.mean(1, keepdims=True)) * (x - x.mean())).sum(1) / ((x - x.mean()) ** 2).sum()
        low, high = np.quantile(slopes, [0.025, 0.975])
        rank = pd.Series(x).rank().corr(pd.Series(y).rank())
        rows.append(
            {"axis": axis, "arm": arm, "slope": slope, "low": low, "high": high, "intercept": intercept, "rank": rank}
        )
    return pd.DataFrame(rows)
