"""From weakness to a synthesis budget: how many questions to request in each cell of discipline and difficulty.

BoostQA derives its synthesis from the probe. The rule is our reading: shares proportional to the square root of the
deficit below a target accuracy, with a bound on high difficulty. The root reflects diminishing returns: if a cell's
deficit d falls like d/n with its n questions, n proportional to the root of d minimises the sum. The bound reflects
that the largest deficits are not where a question teaches most: a small student learns far less from a hard question
than from an easy one (docs/LOG.md)."""

import numpy as np
import pandas as pd

from qatoolkit.core.stats import CELL, threshold
from qatoolkit.core.taxonomy import HIGH
from qatoolkit.synthesis.settings import PlanSettings


def targeted(grid: pd.DataFrame, settings: PlanSettings) -> pd.DataFrame:
    """The probe grid with `deficit` and `budget`: questions in proportion to the root of a cell's deficit below its
    `threshold`, of accuracy or (`by: measured`) of the mean probability of the right choice.

    H4 and H5 together get at most the share `high`, rounded to whole questions, unless no other cell is weak. Cells
    with fewer than `low_n` questions or without an accuracy get none. Raises ValueError if no cell is weak.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> grid = pd.DataFrame({"discipline": ["physics", "physics", "law"], "difficulty": ["H1", "H2", "H1"]})
    >>> grid = grid.assign(n=40, accuracy=[0.65, 0.35, 0.90])
    >>> qt.targeted(grid, qt.PlanSettings(questions=90, target=0.75))[["discipline", "difficulty", "deficit", "budget"]]
      discipline difficulty  deficit  budget
    0    physics         H1      0.1      30
    1    physics         H2      0.4      60
    2        law         H1      0.0       0
    """
    plan = _grid(grid)
    passed = plan.get("probability", np.nan * plan["accuracy"]) if settings.by == "measured" else plan["accuracy"]
    judged = (plan["n"] >= settings.low_n) & passed.notna()
    wanted = threshold(plan, settings.target, settings.above_chance)
    plan["deficit"] = np.where(judged, (wanted - passed).clip(lower=0), 0.0)
    if passed.isna().all() and settings.by == "measured":
        raise ValueError(
            "plan.by is measured, but the probe has no probability of right choices: probe with questions that have choices "
            "and are no lm-eval tasks"
        )
    if not judged.any():
        raise ValueError(
            f"the largest cell has {int(plan['n'].max() if len(plan) else 0)} questions, and plan.low_n is {settings.low_n}: "
            "lower it, or probe with more questions"
        )
    if plan["deficit"].sum() == 0:
        raise ValueError(
            f"no cell with n >= {settings.low_n} lies below the target accuracy {settings.target}"
            f"{' above chance' * settings.above_chance}, so there is nothing to plan; raise plan.target or probe "
            "with harder questions"
        )
    plan["budget"] = apportion(_weights(plan, settings.high), settings.questions)
    return plan


def _grid(grid: pd.DataFrame) -> pd.DataFrame:
    if missing := {*CELL, "n", "accuracy"} - set(grid.columns):
        raise ValueError(f"a plan needs the grid of qt.cells(qt.probe(...)); this table lacks {sorted(missing)}")
    return grid.copy()


def _weights(plan: pd.DataFrame, high: float) -> pd.Series:
    """Roots of the deficits, with H4 and H5 scaled down to at most the share `high` of the total."""
    roots, hard = plan["deficit"] ** 0.5, plan["difficulty"].isin(HIGH)
    above, below = roots[hard].sum(), roots[~hard].sum()
    if below == 0 or above <= high * (above + below):
        return roots
    return roots.where(~hard, roots * (below * high / (1 - high) / above))


def untargeted(grid: pd.DataFrame, settings: PlanSettings) -> pd.DataFrame:
    """The same number of questions spread evenly over all cells, the control for targeting.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> grid = pd.DataFrame({"discipline": ["physics", "physics", "law"], "difficulty": ["H1", "H2", "H1"]})
    >>> grid = grid.assign(n=40, accuracy=[0.65, 0.35, 0.90])
    >>> qt.untargeted(grid, qt.PlanSettings(questions=90))[["discipline", "difficulty", "budget"]]
      discipline difficulty  budget
    0    physics         H1      30
    1    physics         H2      30
    2        law         H1      30
    """
    plan = _grid(grid)
    plan["deficit"] = 1.0
    plan["budget"] = apportion(plan["deficit"], settings.questions)
    return plan


def apportion(weights: pd.Series, total: int) -> np.ndarray:
    """Whole numbers proportional to `weights` that add up to `total` (largest remainders, ties to the first)."""
    exact = weights.to_numpy(float) / weights.sum() * total
    whole = np.floor(exact).astype(int)
    first = np.argsort(-(exact - whole), kind="stable")[: total - whole.sum()]
    whole[first] += 1
    return whole
