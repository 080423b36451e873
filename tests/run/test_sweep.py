"""Sweeps: every combination is trained once, failures are kept with their reason, and a second call makes nothing
again."""

import pandas as pd
import pytest

from qatoolkit.run import stages
from qatoolkit.run.stages import grids
from qatoolkit.run.stages.flow import run_to
from qatoolkit.run.stages.grids import sweep
from qatoolkit.run.store import open_run

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("trained_here")]


def test_a_grid_is_trained_once_and_what_fails_is_told_and_tried_again_on_demand(smoke, monkeypatch):
    run = open_run("smoke", profile="smoke", root=smoke.results)
    counted, real = [], grids.train_jobs

    def train_jobs(run, jobs):
        counted.append(len(jobs))
        if any(job.replay == 0.6 for job in jobs):
            raise RuntimeError("job 'boostqa': the loss is not finite at step 3")
        return real(run, jobs)

    monkeypatch.setattr(grids, "train_jobs", train_jobs)
    grid = {"midtrain.replay": [0.2, 0.6], "midtrain.tokens": [6_000]}
    table = sweep(run, grid)
    assert table["midtrain.replay"].tolist() == [0.2, 0.6]
    assert "not finite" in table["reason"][1]
    assert pd.isna(table["gain"][1])
    row = table.iloc[0]
    assert pd.isna(row["reason"])
    assert (row["tokens"], row["weak_n"] <= row["n"]) == (6_000, True)
    assert row["gain"] == pytest.approx(row["accuracy"] - row["control_accuracy"])
    assert row["gain_low"] <= row["gain"] <= row["gain_high"]

    counted.clear()
    again = sweep(run, grid)  # a failure is not tried again unasked, what was trained is read
    pd.testing.assert_frame_equal(again, table)
    assert counted == [2]

    monkeypatch.setattr(grids, "train_jobs", real)
    mended = sweep(run, grid, retry=True)
    assert mended["reason"].isna().all()
    pd.testing.assert_series_equal(mended.iloc[0], table.iloc[0], check_dtype=False)


def test_a_wrong_grid_is_refused_before_anything_is_trained(smoke):
    run = open_run("smoke", profile="smoke", root=smoke.results)
    with pytest.raises(ValueError, match=r"did you mean midtrain\.replay"):
        sweep(run, {"midtrain.repley": [0.2]})
    with pytest.raises(ValueError, match=r"must be a list of values, such as \[0\.1, 0\.3\]"):
        sweep(run, {"midtrain.replay": 0.2})


def test_rungs_are_swept_on_the_same_data_and_an_unknown_one_is_named(smoke):
    run = open_run("smoke", profile="smoke", root=smoke.results)
    table = sweep(run, {"size": ["xxs", "xs"], "midtrain.tokens": [6_000]})
    assert table["parameters"].is_monotonic_increasing
    assert table["parameters"].nunique() == 2
    assert table["bits_per_byte"].notna().all()
    with pytest.raises(ValueError, match="no rung is called m; the run has xs, xxs"):
        sweep(run, {"size": ["xxs", "m"]})


def test_every_point_of_the_axes_can_have_several_training_seeds(smoke):
    run = open_run("smoke", profile="smoke", root=smoke.results)
    other = run.variant("two-seeds", {"scaling.seeds": 2})
    run_to(other, "midtrain", log=lambda line: None)
    out = stages.scaling(other)
    trained = out.runs[out.runs["arm"] != "base"]
    assert trained.groupby(["point", "arm"])["seed"].apply(list).map(len).eq(2).all()
    assert out.runs[out.runs["arm"] == "base"].groupby("point").size().eq(1).all()
    of_arm = out.points[out.points["gain"].notna()]
    assert of_arm["seeds"].eq(2).all()
    for row in of_arm.itertuples():
        arms = trained[trained["point"] == row.point].groupby("arm")["accuracy"].mean()
        assert row.accuracy == pytest.approx(arms[row.arm])
        assert row.gain == pytest.approx(arms[row.arm] - arms[row.over])
        assert row.gain_high - row.gain_low >= row.gain_questions_high - row.gain_questions_low
    assert set(out.fits["of"]) == {"accuracy", "bits_per_byte"}
