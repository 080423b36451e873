"""One trunk with short decays: under wsd every checkpoint on the way is the model of a run that ends there."""

import json
import time

import pytest
from small_training import GENERAL, STARTER, curve, job, weights
from test_stops import Stopped, stop_after

from qatoolkit.training.checkpoints import states
from qatoolkit.training.hub import load_tokenizer
from qatoolkit.training.job import learning_rate, side_branch
from qatoolkit.training.tokens import write_tokens
from qatoolkit.training.train import train

WSD = {"schedule": "wsd", "decay": 0.3}


def finished(world, out, **settings):
    train(job(world, out, **WSD | settings), log=str)
    return json.loads((out / "training.json").read_text())


def test_what_is_kept_on_the_way_leaves_the_trunk_as_it_was(world, tmp_path):
    whole = finished(world, tmp_path / "kept", keep=(0.25, 0.5, 1.0))
    finished(world, tmp_path / "plain")
    assert weights(tmp_path / "kept") == weights(tmp_path / "plain") == weights(tmp_path / "kept" / "at-1")
    assert curve(tmp_path / "kept") == curve(tmp_path / "plain")
    assert states(tmp_path / "kept") == []
    half = json.loads((tmp_path / "kept" / "at-0.5" / "training.json").read_text())
    assert half["tokens"] == pytest.approx(whole["tokens"] / 2, rel=0.1)
    assert half["flops"] == pytest.approx(whole["flops"] / 2, rel=0.1)
    assert half["steps"] == round(whole["steps"] / 2)
    assert 0 < half["lr"] < 3e-3 / 4
    assert curve(tmp_path / "plain")[half["steps"] - 1]["lr"] == 3e-3


def test_a_branch_is_a_run_of_fewer_tokens_to_the_bit(world, tmp_path):
    """Where every block is the same, a run of half the tokens reads what the trunk had read."""
    tokenizer = load_tokenizer(world / "tokenizer")
    text = " ".join(GENERAL[:4])
    write_tokens([text] * 400, tokenizer, tmp_path / "same")
    block = len(tokenizer(text)["input_ids"]) + 1
    alike = {"qa": None, "replay": 1.0, "general": tmp_path / "same", "warmup": 0.0, "block": block}
    finished(world, tmp_path / "trunk", keep=(0.5,), tokens=160 * block, **alike)
    short = finished(world, tmp_path / "short", tokens=80 * block, **alike)
    half = json.loads((tmp_path / "trunk" / "at-0.5" / "training.json").read_text())
    assert (half["steps"], half["tokens"], half["loss"]) == (short["steps"], short["tokens"], short["loss"])
    assert weights(tmp_path / "trunk" / "at-0.5") == weights(tmp_path / "short")


def test_a_run_killed_beside_its_trunk_ends_with_the_same_bits(world, tmp_path):
    settings = WSD | {"tokens": 100_000, "keep": (0.5,), "save_minutes": 0}
    one = job(world, tmp_path / "out", **settings)
    process = STARTER.Process(target=train, args=(one,), kwargs={"log": str})
    process.start()
    while not states(tmp_path / "out"):  # written where the branch leaves the trunk
        assert process.is_alive()
        time.sleep(0.001)
    process.kill()
    process.join()
    assert not (tmp_path / "out" / "at-0.5" / "training.json").exists()
    train(one, log=str)
    train(job(world, tmp_path / "whole", **settings), log=str)
    for place in ("", "at-0.5"):
        assert weights(tmp_path / "out" / place) == weights(tmp_path / "whole" / place)
    assert curve(tmp_path / "out") == curve(tmp_path / "whole")


def test_a_run_that_has_passed_the_branch_says_so(world, tmp_path):
    with pytest.raises(Stopped):
        train(job(world, tmp_path / "out", **WSD), log=str, hook=stop_after(20))
    with pytest.raises(ValueError, match=r"keep asks for 0\.5"):
        train(job(world, tmp_path / "out", **WSD, keep=(0.5,)), log=str)


def test_a_branch_takes_the_last_share_of_its_own_steps(world, tmp_path):
    one = job(world, tmp_path, schedule="wsd", decay=0.2, learning_rate=1.0, warmup=0.0)
    assert side_branch(0.5, 100, one) == (40, 50)
    rates = [learning_rate(step, 100, one, ends=50) for step in range(40, 50)]
    assert rates == pytest.approx([learning_rate(step, 50, one) for step in range(40, 50)])
    assert [side_branch(share, 100, one) for share in (0.001, 1.0)] == [(0, 1), (100, 100)]
    assert side_branch(0.5, 100, job(world, tmp_path, schedule="constant")) == (50, 50)
