"""Recipes from small runs: a known best value is found again and moved to the next size, and its check says what it
costs."""

import numpy as np
import pandas as pd
import pytest

from qatoolkit.scaling.recipe import propose_setting


def swept(slope: float, noise: float = 0.0, sizes=(1e5, 3e5, 1e6)) -> pd.DataFrame:
    """Runs whose best rate is 4e-3 at a million parameters and moves by a factor 10^slope per tenfold size."""
    rng, rows = np.random.default_rng(0), []
    for size in sizes:
        best = np.log(4e-3) + slope * np.log(10) * (np.log10(size) - 6)
        for rate in (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2):
            loss = 2.0 - 0.1 * np.log10(size) + 0.05 * (np.log(rate) - best) ** 2 + noise * rng.standard_normal()
            rows.append({"parameters": size, "midtrain.learning_rate": rate, "bits_per_byte": loss})
    return pd.DataFrame(rows)


def test_a_best_rate_that_falls_with_size_is_moved_to_the_next_size():
    found = propose_setting(swept(-0.4, 0.005), "midtrain.learning_rate", 4e6)
    true = 4e-3 * 4**-0.4
    assert found["value"] == pytest.approx(true, rel=0.1)
    assert found["low"] < true < found["high"]
    assert found["moves_low"] < 10**-0.4 < found["moves_high"] < 1
    assert found["predicted"] == pytest.approx(4e-3, rel=0.25)
    assert (found["held_out"], found["best_tried"], found["edge"]) == (1e6, 4e-3, False)
    assert found["cost"] < 0.02
    assert found["interior"] == 1


def test_a_share_that_does_not_move_stays_where_it_is():
    runs = swept(0.0).rename(columns={"midtrain.learning_rate": "midtrain.replay"})
    runs["midtrain.replay"] = np.tile([0.0, 0.1, 0.3, 0.5, 0.7, 0.9], 3)
    runs["weak_gain"] = 0.2 - (runs["midtrain.replay"] - 0.4) ** 2 + 0.001 * np.sin(np.arange(18))
    found = propose_setting(runs, "midtrain.replay", 5e6, y="weak_gain")
    assert found["value"] == pytest.approx(0.4, abs=0.02)
    assert found["moves_low"] < 0 < found["moves_high"]


def test_noise_is_told_by_a_wide_interval_and_few_best_values():
    found = propose_setting(swept(0.0, 2.0), "midtrain.learning_rate", 4e6)
    assert found["interior"] < 0.98 or found["high"] / found["low"] > 10


def test_one_size_has_no_line_and_too_few_values_or_too_far_a_size_are_refused():
    alone = swept(0.0, 0.001, sizes=(1e6,))
    found = propose_setting(alone, "midtrain.learning_rate", 4e6)
    assert found["value"] == pytest.approx(4e-3, rel=0.05)
    assert found["moves"] is found["held_out"] is None
    with pytest.raises(ValueError, match="needs three of its values at each size; too few at 1,000,000"):
        propose_setting(alone.iloc[:2], "midtrain.learning_rate", 4e6)
    with pytest.raises(ValueError, match="more than 10 times"):
        propose_setting(alone, "midtrain.learning_rate", 4e7)


def test_a_best_beyond_what_was_tried_is_an_edge_and_stays_within_reach():
    runs = swept(-0.4, 0.005)
    runs["bits_per_byte"] = -np.log(runs["midtrain.learning_rate"]) + 0.01 * np.log(runs["midtrain.learning_rate"]) ** 2
    found = propose_setting(runs, "midtrain.learning_rate", 4e6)
    assert found["edge"]
    most = 10 * runs["midtrain.learning_rate"].max()
    assert found["value"] == pytest.approx(most)
    assert found["high"] <= most * (1 + 1e-9)
