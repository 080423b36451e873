"""Scaling sweeps: every run is trained once, and a fit describes the points it is given and no others."""

import numpy as np
import pandas as pd
import pytest

from qatoolkit.scaling.fits import by_axis, fits, points
from qatoolkit.scaling.settings import ScalingSettings

TABLE = pd.DataFrame(
    {"axis": "tokens", "arm": "boostqa", "x": [1e5, 1e6, 1e7], "accuracy": [0.3, 0.4, 0.6], "n": [400, 400, 400]}
)


def test_a_slope_is_per_decade_with_the_interval_of_its_points():
    [fit] = fits(TABLE, resamples=20_000).to_dict("records")
    assert fit["slope"] == pytest.approx(0.15)
    assert fit["intercept"] + 6 * fit["slope"] == pytest.approx(0.4333, abs=1e-4)
    error = np.sqrt(0.3 * 0.7 / 400 + 0.6 * 0.4 / 400) / 2  # the middle point has no lever
    assert (fit["low"], fit["high"]) == pytest.approx((0.15 - 1.96 * error, 0.15 + 1.96 * error), abs=2e-3)
    assert fit["rank"] == pytest.approx(1)


def test_one_point_has_no_slope():
    assert fits(TABLE.iloc[:1]).empty


@pytest.mark.parametrize(
    ("column", "value"), [("x", 0.0), ("x", np.inf), ("accuracy", np.nan), ("accuracy", 40.0), ("n", 0)]
)
def test_a_point_without_size_or_score_is_named(column, value):
    table = TABLE.astype({"n": float})
    table.loc[1, column] = value
    with pytest.raises(ValueError, match=rf"n of 1 or more, found .*'{column}': {value}.*; drop it"):
        fits(table)


def test_the_full_run_is_trained_once_and_stands_on_every_axis():
    settings = ScalingSettings(tokens=(0.5, 1.0))
    table = points("m", 1000, settings, [("m", 1.0), ("xs", 1.0), ("m", 0.25)])
    assert table["point"].tolist() == ["m-1000-1", "xs-1000-1", "m-1000-0.25", "m-500-1"]
    results = table.assign(
        parameters=[2, 1, 2, 2], initial_flops=[4, 2, 1, 4], arm="boostqa", accuracy=0.5, low=0.4, high=0.6, n=9
    )
    shown = by_axis(results)
    assert shown.groupby("axis", sort=False)["x"].agg(list).to_dict() == {
        "parameters": [1, 2], "tokens": [500, 1000], "initial_flops": [1, 4],
    }  # fmt: skip
