"""From weakness to a synthesis budget: how many questions to request in each cell of discipline and difficulty.

BoostQA derives its synthesis from the probe. How a budget follows from a grid is a rule, a function in `RULES`:

- root (our reading): shares proportional to the square root of the deficit below a target accuracy. The root reflects
  diminishing returns: if a cell's deficit d falls like d/n with its n questions, n proportional to the root of d
  minimises the sum.
- linear: shares proportional to the failure ratio, normalised over the weak cells, as SwS (arXiv 2506.08989) weighs its
  categories.
- margin (our reading): shares proportional to the nats by which the right choice is behind the best wrong one.
- gain (our reading): shares by what a question brought in earlier rounds (`gain_rates`).
- uniform: the same for every cell, the control for targeting.

All but uniform have a bound on high difficulty: the largest deficits are not where a question teaches most, since a
small student learns far less from a hard question than from an easy one (docs/LOG.md)."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from qatoolkit.core.stats import CELL, threshold
from qatoolkit.core.taxonomy import HIGH
from qatoolkit.synthesis.settings import PlanSettings

UNIFORM = "uniform"
HISTORY = (*CELL, "n", "deficit", "questions", "gain")


class NothingWeak(ValueError):
    """No cell is weak, so that there is nothing to plan."""


def plan_budget(grid: pd.DataFrame, settings: PlanSettings, history: pd.DataFrame | None = None) -> pd.DataFrame:
    """The probe grid with `deficit` below a cell's `threshold`, `budget`, its questions by the rule of the settings
    (`plan.rule`, a key of `RULES`), and `rule`, the one that was used: root where the rule of the settings weighs
    nothing, as gain does without `history`.

    `history` has one row per cell of earlier rounds: discipline, difficulty, n (probe questions), deficit (before),
    questions, gain (of accuracy, a fraction). H4 and H5 together get at most the share `high`, rounded to whole
    questions, unless no other cell is weak. Cells with fewer than `low_n` questions or without an accuracy get none.
    uniform spreads the budget over all cells, with a deficit of 1 each. Raises NothingWeak, a ValueError, if no cell is
    weak.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> grid = pd.DataFrame({"discipline": ["physics", "physics", "law"], "difficulty": ["H1", "H2", "H1"]})
    >>> grid = grid.assign(n=40, accuracy=[0.65, 0.35, 0.90])
    >>> plan = qt.plan_budget(grid, qt.PlanSettings(questions=90, target=0.75))
    >>> plan[["discipline", "difficulty", "deficit", "budget"]]
      discipline difficulty  deficit  budget
    0    physics         H1      0.1      30
    1    physics         H2      0.4      60
    2        law         H1      0.0       0
    >>> [qt.plan_budget(grid, qt.PlanSettings(questions=99, rule=r))["budget"].tolist() for r in ("linear", "uniform")]
    [[35, 64, 0], [33, 33, 33]]
    """
    if missing := {*CELL, "n", "accuracy"} - set(grid.columns):
        raise ValueError(f"a plan needs the grid of qt.cells(qt.probe(...)); this table lacks {sorted(missing)}")
    plan = grid.copy()
    if settings.rule == UNIFORM:
        plan["deficit"] = 1.0
    else:
        plan["deficit"] = _deficits(plan, settings)
    used, weights = settings.rule, RULES[settings.rule](plan, settings, history)
    if not weights.sum() > 0:
        used, weights = "root", root(plan, settings, history)
    if used != UNIFORM:
        weights = _bounded(plan, weights, settings.high)
    return plan.assign(budget=apportion(weights, settings.questions), rule=used)


def _deficits(plan: pd.DataFrame, settings: PlanSettings) -> np.ndarray:
    """How far each cell that can be judged is below its threshold: in accuracy, or in the mean probability of the right
    choice (`by: measured`)."""
    passed = plan["accuracy"]
    if settings.by == "measured":
        passed = plan.get("probability", np.nan * passed)
        if passed.isna().all():
            raise ValueError(
                "plan.by is measured, but the probe has no probability of right choices: probe with questions that have "
                "choices and are no lm-eval tasks"
            )
    judged = (plan["n"] >= settings.low_n) & passed.notna()
    wanted = threshold(plan, settings.target, settings.above_chance)
    deficit = np.where(judged, (wanted - passed).clip(lower=0), 0.0)
    if not judged.any():
        raise ValueError(
            f"the largest cell has {int(plan['n'].max() if len(plan) else 0)} questions, and plan.low_n is {settings.low_n}: "
            "lower it, or probe with more questions"
        )
    if deficit.sum() == 0:
        raise NothingWeak(
            f"no cell with n >= {settings.low_n} lies below the target accuracy {settings.target}"
            f"{' above chance' * settings.above_chance}, so there is nothing to plan; raise plan.target or probe "
            "with harder questions"
        )
    return deficit


def _bounded(plan: pd.DataFrame, weights: pd.Series, high: float) -> pd.Series:
    """Weights with those of H4 and H5 scaled down to at most the share `high` of the total."""
    hard = plan["difficulty"].isin(HIGH)
    above, below = weights[hard].sum(), weights[~hard].sum()
    if below == 0 or above <= high * (above + below):
        return weights
    return weights.where(~hard, weights * (below * high / (1 - high) / above))


def root(plan: pd.DataFrame, settings: PlanSettings, history: pd.DataFrame | None) -> pd.Series:
    """The root of the deficit."""
    return plan["deficit"] ** 0.5


def linear(plan: pd.DataFrame, settings: PlanSettings, history: pd.DataFrame | None) -> pd.Series:
    """The failure ratio of the weak cells."""
    return (1 - plan["accuracy"]).where(plan["deficit"] > 0, 0.0)


def margin(plan: pd.DataFrame, settings: PlanSettings, history: pd.DataFrame | None) -> pd.Series:
    """The mean nats of the right choice behind the best wrong one, in weak cells; none where it is ahead on average."""
    if "margin" not in plan:
        raise ValueError("plan.rule margin needs the margins of a probe with choices; this grid has no column margin")
    return (-plan["margin"].fillna(0.0)).clip(lower=0).where(plan["deficit"] > 0, 0.0)


def uniform(plan: pd.DataFrame, settings: PlanSettings, history: pd.DataFrame | None) -> pd.Series:
    """The same for every cell."""
    return plan["deficit"]


def gain(plan: pd.DataFrame, settings: PlanSettings, history: pd.DataFrame | None) -> pd.Series:
    """The budget that maximises the sum of the gains expected from earlier rounds: where n questions bring rate x deficit
    x the root of n, n is proportional to (rate x deficit) squared; nothing without earlier rounds."""
    if history is None or history.empty:
        return 0.0 * plan["deficit"]
    rates = gain_rates(history)
    return (plan["difficulty"].map(rates).fillna(rates["all"]).clip(lower=0) * plan["deficit"]) ** 2


def gain_rates(history: pd.DataFrame) -> pd.Series:
    """What questions brought in earlier rounds, by difficulty and over "all": the rate of gain = rate x deficit x root of
    the questions, by least squares weighted with the cells' probe questions.

    A level's rate is shrunk to that over all with the weight of an average level, so that one with few questions or
    cells follows the others (our reading). ValueError for a table without the columns of `HISTORY`.

    >>> import pandas as pd
    >>> from qatoolkit.synthesis.budget import gain_rates
    >>> past = pd.DataFrame({"discipline": "law", "difficulty": ["H1", "H4"], "n": 40, "deficit": 0.5, "questions": 100})
    >>> gain_rates(past.assign(gain=[0.2, 0.05])).round(3).to_dict()
    {'H1': 0.032, 'H4': 0.018, 'all': 0.025}
    """
    if missing := set(HISTORY) - set(history.columns):
        raise ValueError(f"the history of a plan needs {', '.join(HISTORY)}; this table lacks {sorted(missing)}")
    past = history.dropna(subset="gain")
    x = past["deficit"] * past["questions"] ** 0.5
    sums = pd.DataFrame({"xy": past["n"] * x * past["gain"], "xx": past["n"] * x * x}).groupby(past["difficulty"]).sum()
    total = sums.sum()
    overall = total["xy"] / total["xx"] if total["xx"] else 0.0
    prior = sums["xx"].mean()
    rates = (sums["xy"] + prior * overall) / (sums["xx"] + prior) if prior else sums["xx"]
    return pd.concat([rates, pd.Series({"all": overall})])


Rule = Callable[[pd.DataFrame, PlanSettings, pd.DataFrame | None], pd.Series]
RULES: dict[str, Rule] = {rule.__name__: rule for rule in (root, linear, uniform, margin, gain)}
"""By name, functions (plan, settings, history) -> weights: of the grid with its `deficit`, one weight per cell. Add your
own (docs/extending.md)."""


def apportion(weights: pd.Series, total: int) -> np.ndarray:
    """Whole numbers proportional to `weights` that add up to `total` (largest remainders, ties to the first)."""
    exact = weights.to_numpy(float) / weights.sum() * total
    whole = np.floor(exact).astype(int)
    first = np.argsort(-(exact - whole), kind="stable")[: total - whole.sum()]
    whole[first] += 1
    return whole
