"""The parts of findings: shares and differences with interval and n, and what they mean."""

import pandas as pd

from qatoolkit.core.stats import difference_of_shares, wilson
from qatoolkit.figures.style import signed

WHERE = {"weak": "in weak cells", "other": "in the other cells", "all": "over all"}


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def right(samples: pd.DataFrame) -> str:
    """The share of samples that are correct."""
    known = samples["correct"].dropna()
    return counted(float(known.mean()), len(known))


def counted(share: float, n: int) -> str:
    """A share of `n` with its Wilson interval."""
    low, high = wilson(round(share * n), n)
    return f"{percent(share)} ({100 * low:.1f} to {100 * high:.1f}, n {n:,})"


def points(found) -> str:
    """A difference with its interval and n, for example +28.6 points (22.1 to 35.4, n 308)."""
    low, high = (signed(100 * found[k], 1).removeprefix("+") for k in ("low", "high"))
    n = found["n"] if isinstance(found["n"], str) else f"{int(found['n']):,}"
    return f"{signed(100 * found['difference'], 1)} points ({low} to {high}, n {n})"


def unpaired(a: pd.DataFrame, b: pd.DataFrame) -> dict:
    """The difference of two groups of samples in the share of correct ones, with both sizes."""
    found = difference_of_shares(int(a["correct"].sum()), len(a), int(b["correct"].sum()), len(b))
    return found | {"n": f"{len(a):,} and {len(b):,}"}


def in_each(rows: pd.DataFrame) -> str:
    """Differences, each with its part of the exams and what its interval shows."""
    return ", ".join(
        f"{points(row)} {WHERE.get(row['on'], row['on'])} ({meaning(row)})" for row in rows.to_dict("records")
    )


def meaning(found, gain: str = "a gain", loss: str = "a loss") -> str:
    """What the interval of a difference shows, and its p after Holm's correction if it has one."""
    if not found["low"] > 0 and not found["high"] < 0:
        return "no clear difference"
    if (p := found.get("p_holm", 0.0)) >= 0.05:
        return f"not clear once corrected for the number of comparisons, p {p:.2f}"
    return gain if found["low"] > 0 else loss


def without_repeats(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `on` and `n` without those of weak cells where these are all cells, so that nothing is said twice."""
    n = rows.groupby("on")["n"].max() if len(rows) else {}
    same = "weak" in n and "all" in n and n["weak"] == n["all"]
    return rows[rows["on"] != "weak"] if same else rows


def by_reason(counts: pd.DataFrame, column: str = "count") -> str:
    """Counts by reason, the three most frequent first."""
    ranked = counts.groupby("reason")[column].sum().sort_values(ascending=False, kind="stable")
    rest = f", other {ranked.iloc[3:].sum():,}" if len(ranked) > 3 else ""
    return ", ".join(f"{reason.replace('_', ' ')} {n:,}" for reason, n in ranked.iloc[:3].items()) + rest
