"""Fits: known laws are found again, intervals cover them as often as they say, and nothing is fitted to noise."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from qatoolkit.run.tables.published import pythia
from qatoolkit.scaling.fits import fit_scaling
from qatoolkit.scaling.forecast import check_forecast, compute_optimal, forecast, forecast_errors, gain_by_scale

REAL = Path(os.environ.get("QATOOLKIT_REAL_DATA", ROOT / "../shared/data")) / "scaling"
TRUTH = {"A": 480.0, "alpha": 0.35, "B": 2000.0, "beta": 0.37, "E": 1.8}
GRID = pd.DataFrame(
    [(n, d) for n in np.geomspace(2e7, 3e9, 7) for d in np.geomspace(5e8, 1e11, 7)], columns=["parameters", "tokens"]
)
LOSS = TRUTH["E"] + TRUTH["A"] / GRID["parameters"] ** 0.35 + TRUTH["B"] / GRID["tokens"] ** 0.37


def with_noise(sd: float, seed: int) -> pd.DataFrame:
    return GRID.assign(loss=LOSS * np.exp(sd * np.random.default_rng(seed).standard_normal(len(GRID))))


def simulated(sims: int, draws: int) -> pd.DataFrame:
    """Parameters of fits to `sims` noisy tables of a known law, and whether their intervals cover it."""
    tables = []
    for seed in range(sims):
        found = fit_scaling(with_noise(0.003, seed), "loss", ("parameters", "tokens"), draws=draws).parameters
        true = found["parameter"].map(TRUTH)
        tables.append(found.assign(error=found["value"] / true - 1, covered=true.between(found["low"], found["high"])))
    return pd.concat(tables).set_index("parameter")


def test_exponents_are_found_and_covered_in_a_few_simulations():
    found = simulated(8, 60)
    assert found.loc[["alpha", "beta", "E"], "error"].abs().groupby("parameter").mean().max() < 0.05
    assert found["covered"].mean() > 0.8


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_exponents_are_found_and_covered_in_two_hundred_simulations():
    found = simulated(200, 200)
    covered = found.groupby("parameter")["covered"].mean()
    print(covered.to_dict(), found.groupby("parameter")["error"].apply(lambda e: (e**2).mean() ** 0.5).to_dict())
    assert found.loc[["alpha", "beta", "E"], "error"].abs().groupby("parameter").mean().max() < 0.05
    assert covered.loc[["alpha", "beta", "E"]].between(0.90, 0.98).all()


def test_the_published_analysis_of_chinchillas_runs_is_found_again():
    if not REAL.is_dir():
        pytest.skip(f"no published scaling measurements at {REAL}")
    runs = pd.read_csv(REAL / "chinchilla_figure4.csv")
    runs = runs.assign(tokens=runs["training_flop"] / (6 * runs["parameters"])).sort_values("loss").iloc[:-5]
    fit = fit_scaling(runs, "loss", ("parameters", "tokens"), draws=300)
    found = fit.parameters.set_index("parameter")
    for name, value, error in (("E", 1.8172, 0.03), ("alpha", 0.3478, 0.02), ("beta", 0.3658, 0.02)):
        assert abs(found.loc[name, "value"] - value) < error
        width = (found.loc[name, "high"] - found.loc[name, "low"]) / 3.92
        assert 0.5 * error < width < 1.6 * error
    assert fit.agreed > 0.5
    [best] = compute_optimal(fit, 5.76e23).to_dict("records")  # Chinchilla's compute: 70B parameters, 1.4T tokens
    assert 2e10 < best["parameters"] < 2e11
    assert best["parameters"] * best["tokens"] * 6 == pytest.approx(5.76e23)
    assert best["edge"]  # no run was that large
    assert not compute_optimal(fit, 1e21)["edge"].iloc[0]


def test_forecasts_of_the_largest_pythia_models_beat_both_baselines_and_their_intervals_cover():
    table = pythia()
    named = table[table["exam"].isin(["ARC-Easy", "ARC-Challenge", "SciQ", "PIQA", "LAMBADA"])]
    checked = check_forecast(named, 3, each="subject", draws=100)  # from 1.4B and below to 2.8B, 6.9B and 12B
    errors = forecast_errors(checked)
    assert errors["n"] == 15
    assert errors["law"] < min(errors["repeated"], errors["line"])
    assert errors["covered_share"] >= 0.9
    assert (checked[["forecast_accuracy", "low", "high"]].max() <= 1).all()
    assert (checked["low"] >= 0).all()
    subjects = check_forecast(table[table["exam"] == "MMLU"], 3, each="subject", draws=60)
    assert subjects.groupby("subject")["fitted"].first().mean() < 0.2  # near guessing at these sizes
    assert subjects["covered"].mean() >= 0.9


def test_a_subject_at_chance_is_called_that_and_not_fitted():
    rng = np.random.default_rng(0)
    runs = pd.DataFrame(
        {"parameters": np.geomspace(1e6, 1e9, 6), "accuracy": rng.binomial(400, 0.25, 6) / 400, "n": 400}
    )
    fit = fit_scaling(runs, chance=0.25)
    assert fit.flat
    assert "at chance, not fitted" in repr(fit)
    assert fit.predict(pd.DataFrame({"parameters": [1e10]}))["accuracy"].iloc[0] == pytest.approx(
        runs["accuracy"].mean(), abs=0.01
    )
    above = fit_scaling(runs.assign(accuracy=runs["accuracy"] + 0.3), chance=0.25)
    assert "does not rise, not fitted" in repr(above)


def test_accuracy_stays_between_floor_and_one_and_covers_a_known_law():
    sizes, hits = np.geomspace(1e6, 1e9, 6), []
    truth = lambda x: 0.25 + 0.75 / (1 + np.exp(-(2.2 - (x / 3e7) ** -0.4)))  # noqa: E731
    for seed in range(30):
        runs = pd.DataFrame({"parameters": sizes, "n": 800})
        runs["accuracy"] = np.random.default_rng(seed).binomial(800, truth(sizes)) / 800
        fit = fit_scaling(runs, chance=0.25, draws=80, seed=seed)
        at = fit.predict(pd.DataFrame({"parameters": [4e9, 1e12]}))
        assert at[["accuracy", "low", "high"]].stack().between(0.25, 1).all()
        hits.append(at["low"].iloc[0] <= truth(4e9) <= at["high"].iloc[0])
    assert np.mean(hits) >= 0.85


def test_training_seeds_widen_the_interval_and_questions_do_not_average_out():
    rng = np.random.default_rng(1)
    sizes = np.repeat(np.geomspace(1e6, 1e8, 4), 3)
    level = 0.3 + 0.1 * np.log10(sizes / 1e6)
    quiet = pd.DataFrame({"parameters": sizes, "accuracy": level, "n": 500})
    loud = quiet.assign(accuracy=level + rng.normal(0, 0.05, len(sizes)))
    quiet, loud = (fit_scaling(t, chance=0.0).points for t in (quiet, loud))
    assert (quiet["seeds"] == 3).all()
    assert quiet["se"].to_numpy() == pytest.approx(np.sqrt(quiet["accuracy"] * (1 - quiet["accuracy"]) / 500), rel=0.03)
    assert (loud["se"] > 1.3 * quiet["se"]).all()


def test_accuracy_follows_a_measured_loss():
    loss = np.linspace(2.0, 0.8, 7)
    runs = pd.DataFrame({"loss": loss, "accuracy": 0.25 + 0.75 / (1 + np.exp(-(4 - 3 * loss))), "n": 2000})
    fit = fit_scaling(runs, by="loss", chance=0.25)
    assert fit.parameters.set_index("parameter").loc["k", "value"] == pytest.approx(3, abs=0.3)
    assert fit.predict(pd.DataFrame({"loss": [0.5]}))["accuracy"].iloc[0] > 0.9


def test_too_few_points_get_a_line_and_one_gets_an_error():
    two = pd.DataFrame({"tokens": [1e5, 1e7], "accuracy": [0.3, 0.5], "n": 4000})
    fit = fit_scaling(two, by="tokens", chance=0.25)
    assert "line" in fit.law.formula
    assert fit.parameters.iloc[0]["value"] == pytest.approx(0.1, abs=1e-3)  # per decade
    with pytest.raises(ValueError, match="two points or more, found 1"):
        fit_scaling(two.iloc[:1], by="tokens", chance=0.25)
    with pytest.raises(ValueError, match="guessing is unknown"):
        fit_scaling(two, by="tokens")


def test_an_accuracy_of_one_whose_published_error_is_zero_is_not_taken_for_certain():
    table = pd.DataFrame({"tokens": [1e5, 1e6, 1e7], "accuracy": [0.3, 0.6, 1.0], "se": [0.02, 0.02, 0.0]})
    with pytest.raises(ValueError, match="se must be above 0; give n in its place"):
        fit_scaling(table, by="tokens", chance=0.25)
    whole = table.drop(columns="se").assign(n=500)  # far from any law: slow to settle, and it has to
    assert fit_scaling(whole, by="tokens", chance=0.25, draws=100).points["se"].gt(0).all()


@pytest.mark.parametrize(
    ("column", "value"), [("tokens", 0.0), ("tokens", np.inf), ("accuracy", np.nan), ("accuracy", 40.0), ("n", 0.0)]
)
def test_a_point_that_cannot_be_used_is_named(column, value):
    table = pd.DataFrame({"tokens": [1e5, 1e6, 1e7], "accuracy": [0.3, 0.4, 0.6], "n": 400.0})
    table.loc[1, column] = value
    with pytest.raises(ValueError, match=r"drop (it|the points)"):
        fit_scaling(table, by="tokens", chance=0.25)


def test_what_more_would_buy_is_one_call_and_refuses_to_reach_too_far():
    sizes = np.geomspace(1e6, 64e6, 4)
    cells = pd.concat(
        pd.DataFrame({"discipline": d, "arm": arm, "parameters": sizes, "accuracy": start + slope * np.log10(sizes / 1e6), "n": 900})
        for d, arm, start, slope in (
            ("physics", "boostqa", 0.35, 0.2), ("physics", "base", 0.3, 0.1), ("law", "boostqa", 0.5, 0.1), ("law", "base", 0.5, 0.1)
        )
    )  # fmt: skip
    bought = forecast(cells[cells["arm"] == "boostqa"], 4, "parameters", each="discipline", chance=0.25)
    assert bought["discipline"].tolist() == ["law", "physics"]
    assert (bought["to"] == 4 * 64e6).all()
    assert bought["gain"].between(0.01, 0.15).all()
    assert (bought["gain_low"] <= bought["gain"]).all()
    gains = forecast(cells, 4, "parameters", each="discipline", over="base", chance=0.25).set_index("discipline")
    assert gains.loc["physics", "forecast_accuracy"] > gains.loc["law", "forecast_accuracy"] + 0.1
    assert gains.loc["law", "low"] < 0 < gains.loc["law", "high"]
    with pytest.raises(ValueError, match="at most 10 times"):
        forecast(cells, 40, "parameters", chance=0.25)


def test_the_slope_of_a_gain_has_a_sign_or_is_not_told_apart():
    x = np.geomspace(1e9, 1e12, 4)
    rows = pd.DataFrame({"axis": "initial_flops", "arm": "boostqa", "x": x})
    rising = rows.assign(gain=0.05 * np.arange(4), low=0.05 * np.arange(4) - 0.02, high=0.05 * np.arange(4) + 0.02)
    [row] = gain_by_scale(rising).to_dict("records")
    assert (row["slope"], row["says"], row["n"]) == (pytest.approx(0.05), "grows", 4)
    flat = rows.assign(gain=[0.1, 0.12, 0.09, 0.11], low=0.05, high=0.16)
    assert gain_by_scale(flat)["says"].tolist() == ["no clear change"]
    scattered = rows.assign(gain=[0.0, 0.3, 0.1, 0.4], low=0.0, high=0.04)
    scattered[["low", "high"]] = np.stack([scattered["gain"] - 0.02, scattered["gain"] + 0.02], axis=1)
    assert gain_by_scale(scattered)["says"].tolist() == ["no clear change"]  # the points say less than their intervals


def test_a_fit_draws_itself():
    runs = pd.DataFrame({"parameters": np.geomspace(1e6, 1e8, 5), "accuracy": [0.3, 0.4, 0.5, 0.55, 0.6], "n": 900})
    assert fit_scaling(runs, chance=0.25).figure().axes[0].lines
    figure = fit_scaling(with_noise(0.01, 0), "loss", ("parameters", "tokens"), draws=50).figure()
    assert len(figure.axes[0].texts) == 5  # lines named by tokens


def test_a_loss_of_four_sizes_forecasts_the_next_and_an_accuracy_through_it():
    """Four points leave three parameters open: priors keep the interval finite, and it still covers."""
    sizes, covered, widths, errors = np.array([1e6, 3e6, 1e7, 3e7]), [], [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = np.append(sizes, 1.2e8)
        loss = (1.0 + 90 / x**0.35) * np.exp(0.01 * rng.standard_normal(5))
        table = pd.DataFrame({"parameters": x, "loss_now": loss, "n": 2000})
        table["accuracy"] = rng.binomial(2000, 0.25 + 0.75 / (1 + np.exp(4 * (loss - 1.3)))) / 2000
        fit = fit_scaling(table.iloc[:4], "loss_now", draws=80)
        at = fit.predict(table.iloc[[4]][["parameters"]], n=1).iloc[0]
        covered.append(at["low"] <= loss[4] <= at["high"])
        widths.append(at["high"] / at["low"])
        checked = check_forecast(table, through="loss_now", chance=0.25, draws=80).iloc[0]
        errors.append(abs(checked["through_accuracy"] - checked["measured_accuracy"]))
        assert 0.25 <= checked["through_low"] <= checked["through_high"] <= 1
    print(np.mean(covered), np.median(widths), np.mean(errors))
    assert np.mean(covered) >= 0.85
    assert np.median(widths) < 1.3
    assert np.mean(errors) < 0.05
