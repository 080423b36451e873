"""Budget rules: what each spends, what bounds them, and that others can be added."""

import numpy as np
import pandas as pd
import pytest

from qatoolkit.core.settings import replace
from qatoolkit.core.taxonomy import HIGH
from qatoolkit.synthesis.budget import HISTORY, RULES, NothingWeak, gain_rates, plan_budget
from qatoolkit.synthesis.settings import PlanSettings

GRID = pd.DataFrame(
    [
        ("physics", "H1", 40, 0.70, 0.5),
        ("physics", "H3", 40, 0.39, -0.5),
        ("physics", "H5", 40, 0.11, -2.0),
        ("law", "H1", 40, 0.95, 1.0),
        ("law", "H4", 3, 0.00, -3.0),  # too few to judge
    ],
    columns=["discipline", "difficulty", "n", "accuracy", "margin"],
)
OPEN = PlanSettings(questions=1000, high=1.0)  # without the bound on H4 and H5


def spent(rule: str, history=None, grid=GRID, **settings) -> list[int]:
    return plan_budget(grid, replace(OPEN, rule=rule, **settings), history)["budget"].tolist()


def test_each_rule_spends_as_it_says():
    roots = np.sqrt([0.05, 0.36, 0.64])
    assert spent("root") == pytest.approx([*(1000 * roots / roots.sum()), 0, 0], abs=1)
    assert spent("linear") == pytest.approx([*(1000 * np.array([0.30, 0.61, 0.89]) / 1.8), 0, 0], abs=1)
    assert spent("margin") == [0, 200, 800, 0, 0]  # nats; the right choice of physics H1 is ahead
    assert spent("uniform") == [200] * 5


@pytest.mark.parametrize("rule", RULES)
def test_only_the_even_rule_is_free_of_the_bound_on_high_difficulty(rule):
    plan = plan_budget(GRID, replace(OPEN, rule=rule, high=0.25))
    assert plan["budget"].sum() == 1000
    assert plan.loc[plan["difficulty"].isin(HIGH), "budget"].sum() == (400 if rule == "uniform" else 250)


@pytest.mark.parametrize("rule", RULES)
def test_a_plan_plans_again_from_what_it_holds(rule):
    """A data set with a rule of its own reads the run's plan."""
    own = replace(OPEN, rule=rule)
    pd.testing.assert_frame_equal(
        plan_budget(plan_budget(GRID, replace(OPEN, rule="uniform")), own), plan_budget(GRID, own)
    )


def test_a_rule_that_weighs_nothing_is_root_and_says_so():
    for rule, grid in (("gain", GRID), ("margin", GRID.assign(margin=1.0))):
        plan = plan_budget(grid, replace(OPEN, rule=rule))
        assert set(plan["rule"]) == {"root"}
        assert plan["budget"].tolist() == spent("root")
    assert set(plan_budget(GRID, replace(OPEN, rule="margin"))["rule"]) == {"margin"}
    with pytest.raises(ValueError, match="no column margin"):
        spent("margin", grid=GRID.drop(columns="margin"))
    with pytest.raises(NothingWeak, match="nothing to plan"):
        spent("linear", grid=GRID.assign(accuracy=1.0))


def past(rates: dict, noise: float = 0.0, **columns) -> pd.DataFrame:
    """Earlier rounds in which a question brought exactly these rates, or about them."""
    rng = np.random.default_rng(0)
    cells = pd.DataFrame(
        [
            (d, level, q, deficit)
            for d in ("physics", "law")
            for level in rates
            for q, deficit in ((100, 0.4), (25, 0.2))
        ],
        columns=["discipline", "difficulty", "questions", "deficit"],
    ).assign(n=50)
    gain = cells["difficulty"].map(rates) * cells["deficit"] * cells["questions"] ** 0.5
    return cells.assign(gain=gain + noise * rng.standard_normal(len(cells)), **columns)[list(HISTORY)]


def test_the_fit_of_earlier_rounds_finds_what_a_question_brings_shrunk_to_the_mean():
    rates = gain_rates(past({"H1": 0.04, "H5": 0.01}))
    assert rates["all"] == pytest.approx(0.025)
    # levels with as much evidence as the average are moved half of the way
    assert rates[["H1", "H5"]].tolist() == pytest.approx([0.0325, 0.0175])
    known = pd.concat([past({"H1": 0.04})] * 9 + [past({"H5": 0.01})])
    assert gain_rates(known)["H1"] == pytest.approx(0.04, rel=0.06)
    assert gain_rates(known)["H5"] == pytest.approx(gain_rates(known)["all"], rel=0.15)  # little evidence
    assert (
        gain_rates(past({"H1": 0.04, "H5": 0.01}, noise=0.02))["H1"]
        > gain_rates(past({"H1": 0.04, "H5": 0.01}, noise=0.02))["H5"]
    )
    with pytest.raises(ValueError, match="columns missing: \\['gain'\\]"):
        gain_rates(known.drop(columns="gain"))


def test_the_gain_rule_maximises_the_expected_gain():
    history = past({"H1": 0.04, "H3": 0.03, "H5": 0.005})
    plan = plan_budget(GRID, replace(OPEN, rule="gain"), history)
    rates = gain_rates(history)
    worth = (plan["difficulty"].map(rates).fillna(rates["all"]) * plan["deficit"]).to_numpy()

    def expected(budget) -> float:
        return float((worth * np.sqrt(budget)).sum())

    best = expected(plan["budget"])
    rng = np.random.default_rng(0)
    for _ in range(200):
        other = rng.multinomial(1000, rng.dirichlet([1.0] * 3))
        assert expected(np.append(other, [0, 0])) <= best * (1 + 1e-4)
    assert best > expected(spent("root")) * 1.01
    assert spent("gain", past({"H1": 0.04, "H3": 0.03, "H5": -0.1}))[2] == 0  # what loses gets nothing
    assert spent("gain", past({"H1": -0.1})) == spent("root")


def test_a_rule_from_outside_is_taken_by_its_name(monkeypatch):
    with pytest.raises(ValueError, match=r"rule is 'deepest'; it must be one of root, linear"):
        PlanSettings(rule="deepest")
    monkeypatch.setitem(
        RULES, "deepest", lambda plan, settings, history: (plan["deficit"] == plan["deficit"].max()) * 1.0
    )
    assert spent("deepest") == [0, 0, 1000, 0, 0]
