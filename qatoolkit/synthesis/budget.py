"""The synthesis budget: how many questions to request in each cell of discipline and difficulty.

BoostQA derives its synthesis from the probe. A rule, a function in `RULES`, computes the budget from the probe's grid:

- root (our reading): shares proportional to the square root of the deficit below a target accuracy. The root reflects
  diminishing returns: if a cell's deficit d falls like d/n with its n questions, n proportional to the root of d
  minimises the sum.
- linear: shares proportional to the failure ratio, normalised over the weak cells, as SwS (arXiv 2506.08989) weights
  its categories.
- margin (our reading): shares proportional to the nats by which the right choice trails the best wrong one.
- gain (our reading): shares by the gain per question measured in earlier rounds (`gain_rates`).
- uniform: the same for every cell, the control for targeting.

All but uniform bound the share of high difficulty: the cells with the largest deficits are not those where a question
teaches most, since a small student learns far less from a hard question than from an easy one (docs/LOG.md)."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from qatoolkit.core.stats import CELL, threshold
from qatoolkit.core.taxonomy import HIGH
from qatoolkit.synthesis.settings import PlanSettings

UNIFORM = "uniform"
HISTORY = (*CELL, "n", "deficit", "questions", "gain")


class NothingWeak(ValueError):
    """No cell is weak, so there is nothing to plan."""


def plan_budget(grid: pd.DataFrame, settings: PlanSettings, history: pd.DataFrame | None = None) -> pd.DataFrame:
    """The probe grid plus `deficit` (how far the cell is below its `threshold`), `budget` (questions by the rule in
    `plan.rule`, a key of `RULES`), and `rule`, the rule used: root if that rule gives no cell any weight, as gain
    without `history`.

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
        raise ValueError(f"a plan needs the grid of qt.cells(qt.probe(...)); columns missing: {sorted(missing)}")
    plan = grid.copy()
    if settings.rule == UNIFORM:
        plan["deficit"] = 1.0
    else:
        plan["deficit"] = _deficits(plan, settings)
    rule, weights = settings.rule, RULES[settings.rule](plan, settings, history)
    if not weights.sum() > 0:
        rule, weights = "root", root(plan, settings, history)
    if rule != UNIFORM:
        weights = _bound_high(plan, weights, settings.high)
    return plan.assign(budget=apportion(weights, settings.questions), rule=rule)


def _deficits(plan: pd.DataFrame, settings: PlanSettings) -> np.ndarray:
    """How far each cell is below its threshold, in accuracy or in the mean probability of the right choice (`by:
    measured`); 0 for cells with too few questions."""
    score = plan["accuracy"]
    if settings.by == "measured":
        score = plan.get("probability", np.nan * score)
        if score.isna().all():
            raise ValueError(
                "plan.by is measured, but the probe has no probabilities of the right choice: probe with questions "
                "that have choices and are not lm-eval tasks"
            )
    judged = (plan["n"] >= settings.low_n) & score.notna()
    wanted = threshold(plan, settings.target, settings.above_chance)
    deficit = np.where(judged, (wanted - score).clip(lower=0), 0.0)
    if not judged.any():
        raise ValueError(
            f"the largest cell has {int(plan['n'].max() if len(plan) else 0)} questions, and plan.low_n is "
            f"{settings.low_n}: lower plan.low_n, or probe with more questions"
        )
    if deficit.sum() == 0:
        raise NothingWeak(
            f"no cell with n >= {settings.low_n} is below the target accuracy {settings.target}"
            f"{' above chance' * settings.above_chance}, so there is nothing to plan; raise plan.target or probe "
            "with harder questions"
        )
    return deficit


def _bound_high(plan: pd.DataFrame, weights: pd.Series, high: float) -> pd.Series:
    """The weights, those of H4 and H5 scaled down to at most the share `high` of the total."""
    hard = plan["difficulty"].isin(HIGH)
    high_weight, low_weight = weights[hard].sum(), weights[~hard].sum()
    if low_weight == 0 or high_weight <= high * (high_weight + low_weight):
        return weights
    return weights.where(~hard, weights * (low_weight * high / (1 - high) / high_weight))


def root(plan: pd.DataFrame, settings: PlanSettings, history: pd.DataFrame | None) -> pd.Series:
    """The square root of the deficit."""
    return plan["deficit"] ** 0.5


def linear(plan: pd.DataFrame, settings: PlanSettings, history: pd.DataFrame | None) -> pd.Series:
    """The failure ratio of the weak cells."""
    return (1 - plan["accuracy"]).where(plan["deficit"] > 0, 0.0)


def margin(plan: pd.DataFrame, settings: PlanSettings, history: pd.DataFrame | None) -> pd.Series:
    """The mean nats by which the right choice trails the best wrong one, in weak cells; 0 where it leads on average."""
    if "margin" not in plan:
        raise ValueError("plan.rule margin needs the margins of a probe with choices; this grid has no column margin")
    return (-plan["margin"].fillna(0.0)).clip(lower=0).where(plan["deficit"] > 0, 0.0)


def uniform(plan: pd.DataFrame, settings: PlanSettings, history: pd.DataFrame | None) -> pd.Series:
    """The same for every cell."""
    return plan["deficit"]


def gain(plan: pd.DataFrame, settings: PlanSettings, history: pd.DataFrame | None) -> pd.Series:
    """The budget that maximises the total gain expected from earlier rounds: if n questions gain rate x deficit x
    sqrt(n), n is proportional to (rate x deficit)^2. All 0 without earlier rounds."""
    if history is None or history.empty:
        return 0.0 * plan["deficit"]
    rates = gain_rates(history)
    return (plan["difficulty"].map(rates).fillna(rates["all"]).clip(lower=0) * plan["deficit"]) ** 2


def gain_rates(history: pd.DataFrame) -> pd.Series:
    """The gain from questions in earlier rounds, by difficulty and for "all": the rate in gain = rate x deficit x
    sqrt(questions), fitted by least squares weighted with the cells' probe questions.

    Each level's rate is shrunk towards the rate of "all" with the weight of an average level, so levels with few
    questions or cells follow the others (our reading). ValueError for a table without the columns of `HISTORY`.

    >>> import pandas as pd
    >>> from qatoolkit.synthesis.budget import gain_rates
    >>> past = pd.DataFrame({"discipline": "law", "difficulty": ["H1", "H4"], "n": 40, "deficit": 0.5, "questions": 100})
    >>> gain_rates(past.assign(gain=[0.2, 0.05])).round(3).to_dict()
    {'H1': 0.032, 'H4': 0.018, 'all': 0.025}
    """
    if missing := set(HISTORY) - set(history.columns):
        raise ValueError(f"the history of a plan needs {', '.join(HISTORY)}; columns missing: {sorted(missing)}")
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
"""Rules by name: functions (plan, settings, history) -> one weight per cell, from the grid with its `deficit`. Add your
own (docs/extending.md)."""


def apportion(weights: pd.Series, total: int) -> np.ndarray:
    """Whole numbers proportional to `weights` that add up to `total` (largest remainders, ties to the first)."""
    exact = weights.to_numpy(float) / weights.sum() * total
    whole = np.floor(exact).astype(int)
    largest = np.argsort(-(exact - whole), kind="stable")[: total - whole.sum()]
    whole[largest] += 1
    return whole
