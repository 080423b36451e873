"""One hook serves every tracker; one that is unknown or not installed is reported before training starts."""

import importlib.util
from pathlib import Path

import pytest
from small_training import curve, job

from qatoolkit.training.logging import TRACKERS, tracker
from qatoolkit.training.train import train


@pytest.fixture(scope="module")
def one(world, tmp_path_factory):
    return job(world, tmp_path_factory.mktemp("out") / "run", tokens=3_000)


def test_an_unknown_tracker_is_refused_with_the_known_ones(one):
    with pytest.raises(ValueError, match=", ".join(TRACKERS)):
        tracker("paper", one)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_is_reported_with_the_pip_line(one, name):
    if importlib.util.find_spec(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(ImportError, match=f"pip install {name}"):
        tracker(name, one)


def test_tensorboard_gets_every_step(one):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(one, hook=tracker("tensorboard", one), log=str)
    events = EventAccumulator(f"{one.out}/tensorboard").Reload()
    losses = [event.value for event in events.Scalars("loss")]
    assert losses == pytest.approx([row["loss"] for row in curve(Path(one.out))], abs=1e-4)
