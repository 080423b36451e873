"""From weakness to a synthesis budget: how many questions to ask for in each cell of discipline and difficulty.

BoostQA sets its synthesis by what the probe found; the rule (shares proportional to the deficit below a target accuracy) is
our reading.
"""

import numpy as np
import pandas as pd

from qatoolkit.config import PlanSettings


def targeted(grid: pd.DataFrame, settings: PlanSettings) -> pd.DataFrame:
    """The probe grid with `deficit` and `budget`: questions in proportion to how far a cell lies below the target.

    Cells with too few questions to judge get none. ValueError when no cell is weak."""
    plan = grid.copy()
    judged = plan["n"] >= settings.low_n
    plan["deficit"] = np.where(judged, (settings.target - plan["accuracy"]).clip(lower=0), 0.0)
    if plan["deficit"].sum() == 0:
        raise ValueError(
            f"no cell with n >= {settings.low_n} lies below the target accuracy {settings.target}: nothing to plan for; "
            "raise plan.target or probe with harder questions"
        )
    plan["budget"] = apportion(plan["deficit"], settings.questions)
    return plan


def untargeted(grid: pd.DataFrame, settings: PlanSettings) -> pd.DataFrame:
    """The same number of questions spread evenly over all cells: the control for targeting."""
    plan = grid.copy()
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
