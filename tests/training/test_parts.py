"""A run in parts: one schedule over all of them, moments and weights handed on."""

import json
from dataclasses import replace

import pytest
from small_training import curve, job, weights

from qatoolkit.training import train as training
from qatoolkit.training.job import Job, learning_rate
from qatoolkit.training.train import train


def planned(schedule: str, **changes) -> Job:
    about = {"name": "a", "out": "a", "start": "b", "general": "g", "replay": 1.0, "tokens": 1, "warmup": 0.1}
    return Job(**about | {"schedule": schedule, "decay": 0.3, "keep_optimizer": True} | changes)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd"])
def test_the_rates_of_the_parts_are_those_of_the_whole(schedule):
    whole = [learning_rate(step, 90, planned(schedule)) for step in range(90)]
    parts = [planned(schedule, part=part) for part in ((0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1))]
    assert [learning_rate(step, 30, part, ends=30) for part in parts for step in range(30)] == whole


@pytest.mark.parametrize("schedule", ["linear", "wsd"])
def test_parts_over_the_same_blocks_are_one_uninterrupted_run_to_the_bit(world, tmp_path, monkeypatch, schedule):
    settings = {"schedule": schedule, "warmup": 0.4, "keep_optimizer": True, "tokens": 9_000}
    blocks = training.open_data(job(world, tmp_path / "whole", **settings))
    half = 8 * (len(blocks) // 16)  # whole steps
    orders = {"whole": blocks.order[: 2 * half], "first": blocks.order[:half], "second": blocks.order[half : 2 * half]}
    monkeypatch.setattr(training, "open_data", lambda job: replace(blocks, order=orders[job.name]))
    for name, more in {
        "whole": {},
        "first": {"part": (0, 0.5)},
        "second": {"part": (0.5, 1), "start": tmp_path / "first"},
    }.items():
        train(job(world, tmp_path / name, **settings | more | {"name": name}), log=str)
    steps = [{k: row[k] for k in ("loss", "lr", "gradient_norm")} for row in curve(tmp_path / "whole")]
    both = [*curve(tmp_path / "first"), *curve(tmp_path / "second")]
    assert [{k: row[k] for k in steps[0]} for row in both] == steps
    assert weights(tmp_path / "second") == weights(tmp_path / "whole")
    about = json.loads((tmp_path / "second" / "training.json").read_text())
    assert about["initial_tokens"] == json.loads((tmp_path / "first" / "training.json").read_text())["tokens"]


def test_a_part_that_makes_no_sense_is_refused(world, tmp_path):
    for wrong, said in (
        ({"part": (0.5, 0.5)}, "two shares, the second above the first"),
        ({"part": (0, 0.5), "keep_optimizer": False}, "keep_optimizer is False; it must be true in a part"),
        ({"part": (0.5, 1), "rate": "inherit"}, "rate is 'inherit'; it must be rewarm in a later part"),
        ({"part": (0.5, 1), "start": None, "size": "xxs", "tokenizer": "t"}, "a share from 0 where there is no start"),
        ({"part": (0, 0.5), "keep": (0.5,)}, "keep is .* it must be empty in a part of a run under wsd"),
    ):
        with pytest.raises(ValueError, match=said):
            planned("wsd", **wrong)
    short = {"tokens": 600, "block": 64, "batch": 8, "keep_optimizer": True}
    train(job(world, tmp_path / "first", part=(0, 0.5), **short), log=str)
    with pytest.raises(ValueError, match=r"part begins at 0\.25 of a run, and .* ends at 0\.5 of one"):
        train(job(world, tmp_path / "second", part=(0.25, 1), start=tmp_path / "first", **short), log=str)
    (tmp_path / "first" / "optimizer.safetensors").unlink()
    with pytest.raises(ValueError, match="has no moments; start from the part before this one"):
        train(job(world, tmp_path / "second", part=(0.5, 1), start=tmp_path / "first", **short), log=str)
