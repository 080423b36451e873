"""Scaling sweeps: the students to train for each axis.

The axes are the paper's (BoostQA, arXiv 2508.01326): model size, data volume and initial FLOPs, that is, the
pre-training compute of the checkpoint at which mid-training starts.
"""

import pandas as pd

from qatoolkit.scaling.settings import ScalingSettings

BESIDE = ("chance", "blind", "bits_per_byte", "seeds", "seed", "over", "gain", "gain_low", "gain_high")
BESIDE += tuple(f"gain_{of}_{end}" for of in ("questions", "seeds") for end in ("low", "high"))
AXES = {"parameters": "size", "tokens": "tokens", "initial_flops": "initial"}


def points(size: str, tokens: int, scaling: ScalingSettings, rungs: list[tuple[str, float]]) -> pd.DataFrame:
    """The distinct training runs of all axes: columns point (name), size, tokens, initial (share of pre-training). The
    run of `size` with the share `at` of `tokens` and full pre-training is on every axis and comes first; `rungs` are
    the other starts, as (size, initial)."""
    shared = round(scaling.at * tokens)
    runs = [(size, shared, 1.0)]
    runs += [(other, shared, initial) for other, initial in rungs]
    runs += [(size, round(share * tokens), 1.0) for share in scaling.tokens]
    rows = list(dict.fromkeys(runs))
    table = pd.DataFrame(rows, columns=["size", "tokens", "initial"])
    table.insert(0, "point", [f"{size}-{tokens}-{initial:g}" for size, tokens, initial in rows])
    return table


def by_axis(results: pd.DataFrame) -> pd.DataFrame:
    """The results of `points` (the run that all axes share first) as one row per axis, arm and x, sorted by x. An axis
    with only one value has no rows."""
    full = results.iloc[0]
    tables = []
    for axis, varied in AXES.items():
        fixed = [name for name in AXES.values() if name != varied]
        on_axis = results[(results[fixed] == full[fixed]).all(axis=1)]
        on_axis = on_axis.assign(axis=axis, x=on_axis[axis].astype(float))
        if on_axis["x"].nunique() < 2:
            continue
        order = {arm: i for i, arm in enumerate(dict.fromkeys(results["arm"]))}
        on_axis = on_axis.assign(rank=on_axis["arm"].map(order))
        tables.append(on_axis.sort_values(["rank", "x"], kind="stable").drop(columns="rank"))
    columns = ["axis", "arm", "x", "accuracy", "low", "high", "n", "point"]
    columns += [column for column in BESIDE if column in results]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
