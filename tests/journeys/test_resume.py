"""A run that is killed goes on to the bit; a changed one is refused; a full disk leaves what was whole."""

import json
import os
import re
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import STARTER, curve, job, weights
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

from qatoolkit.core.settings import replace
from qatoolkit.training.checkpoints import states
from qatoolkit.training.digests import check_training
from qatoolkit.training.hub import load_causal_lm
from qatoolkit.training.stops import AGAIN
from qatoolkit.training.tokens import open_tokens
from qatoolkit.training.train import train


@pytest.fixture(scope="module")
def unbroken(world, tmp_path_factory):
    """A run with dropout, so that its random numbers matter, and what it wrote when nothing disturbed it."""
    folder = tmp_path_factory.mktemp("unbroken")
    tokenizer = AutoTokenizer.from_pretrained(world / "tokenizer")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "start")

    def settings(out):
        return job(world, out, start=folder / "start", save_every=2, tokens=30_000, keep=(0.5,))

    train(settings(folder / "out"), log=str)
    return folder / "out", settings


def signal_at(one, step: int, delay: float, number=signal.SIGKILL) -> int:
    """Start the job and send it a signal some milliseconds after it has taken a step; returns how it ended."""
    process = STARTER.Process(target=train, args=(one,), kwargs={"log": str})
    process.start()
    metrics = Path(one.out) / "metrics.jsonl"
    while process.is_alive() and not (metrics.exists() and len(metrics.read_bytes().splitlines()) > step):
        time.sleep(0.001)
    time.sleep(delay)
    assert process.is_alive(), "the run ended before it was killed"
    os.kill(process.pid, number)
    process.join()
    return process.exitcode


def ends_in_the_same_bits(one, expected: Path, told: str) -> None:
    """Run the job to its end and compare it with the one that nothing broke."""
    train(one, log=str)
    assert curve(Path(one.out)) == curve(expected), told
    for name in ("", "at-0.5"):
        assert weights(Path(one.out) / name) == weights(expected / name), told
    assert not states(Path(one.out))


def test_a_run_killed_at_five_random_moments_ends_in_the_same_bits(unbroken, tmp_path):
    expected, settings = unbroken
    one, rng = settings(tmp_path / "out"), np.random.default_rng()
    moments = sorted(rng.choice(len(curve(expected)) - 10, 5, replace=False).tolist())
    for step in moments:
        signal_at(one, step, delay=0.02 * rng.random())
    ends_in_the_same_bits(one, expected, f"killed after steps {moments}")


def test_a_run_stopped_at_five_random_moments_saves_within_seconds_and_ends_in_the_same_bits(unbroken, tmp_path):
    expected, settings = unbroken
    one, rng = replace(settings(tmp_path / "out"), save_every=0), np.random.default_rng()
    moments = sorted(rng.choice(len(curve(expected)) - 20, 5, replace=False).tolist())
    taken = 0  # by the runs before: until this one has taken a step it does not answer signals
    for i, step in enumerate(moments):
        since = time.monotonic()
        number = (signal.SIGTERM, signal.SIGUSR1)[i % 2]
        assert signal_at(one, max(step, taken), 0.02 * rng.random(), number) == AGAIN
        assert time.monotonic() - since < 30
        taken = len(curve(tmp_path / "out"))
        assert [int(p.name) for p in states(tmp_path / "out")][-1:] == [taken], "a step was lost"
        assert taken > step
    ends_in_the_same_bits(one, expected, f"stopped after steps {moments}")


def test_states_by_time_change_no_bit(unbroken, tmp_path):
    expected, settings = unbroken
    saved = []
    one = replace(settings(tmp_path / "out"), save_every=0, save_minutes=0.0005)
    train(one, log=str, hook=lambda row: saved.extend(p.name for p in states(tmp_path / "out")))
    assert len({*saved}) > 2
    assert weights(tmp_path / "out") == weights(expected)


def interrupted(one, at: int):
    """Run a job up to a step, where an error stops it."""

    def stop(row):
        if row["step"] == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(one, log=str, hook=stop)


def test_a_run_says_from_where_it_goes_on_and_keeps_the_last_states(unbroken, tmp_path):
    expected, settings = unbroken
    interrupted(settings(tmp_path / "out"), 11)
    assert [int(p.name) for p in states(tmp_path / "out")] == [8, 10]
    lines = []
    train(settings(tmp_path / "out"), log=lines.append)
    assert any("resumes after step 10" in line for line in lines)
    assert weights(tmp_path / "out") == weights(expected)


def test_an_interrupted_run_is_no_checkpoint_to_start_from(unbroken, world, tmp_path):
    interrupted(unbroken[1](tmp_path / "out"), 5)
    with pytest.raises(ValueError, match="is an interrupted run, not a checkpoint"):
        train(job(world, tmp_path / "next", start=tmp_path / "out"), log=str)


def test_a_half_written_state_is_not_read(unbroken, tmp_path):
    expected, settings = unbroken
    interrupted(settings(tmp_path / "out"), 5)
    broken = tmp_path / "out" / "states" / "000000099"
    broken.mkdir()
    (broken / "state.safetensors").write_bytes(b"half")
    train(settings(tmp_path / "out"), log=str)
    assert weights(tmp_path / "out") == weights(expected)


def test_a_damaged_state_is_named_with_the_way_back(unbroken, tmp_path):
    expected, settings = unbroken
    interrupted(settings(tmp_path / "out"), 5)
    last = states(tmp_path / "out")[-1]
    (last / "state.safetensors").write_bytes(b"half")
    with pytest.raises(OSError, match=f"{last}/state.safetensors is damaged .* the state before it"):
        train(settings(tmp_path / "out"), log=str)
    shutil.rmtree(last)
    train(settings(tmp_path / "out"), log=str)
    assert weights(tmp_path / "out") == weights(expected)


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "digests.json"])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.99])
def test_a_flipped_bit_in_a_state_is_noticed(interrupted_once, name, place):
    one, last = interrupted_once
    flip(last / name, place)
    try:
        with pytest.raises(OSError, match=f"{last}/{name} is damaged .* the state before it"):
            train(one, log=str)
        assert check_training(one.out)
    finally:
        flip(last / name, place)


def test_a_state_whose_digests_are_lost_is_not_read(interrupted_once):
    one, last = interrupted_once
    content = (last / "digests.json").read_bytes()
    (last / "digests.json").unlink()
    try:
        with pytest.raises(OSError, match=f"{last}/digests.json is missing; delete .* the state before it"):
            train(one, log=str)
        assert check_training(one.out) == [f"{last}/digests.json is missing"]
    finally:
        (last / "digests.json").write_bytes(content)


def test_a_damaged_curve_is_named_and_may_be_deleted(unbroken, tmp_path):
    one = unbroken[1](tmp_path / "out")
    interrupted(one, 5)
    metrics = tmp_path / "out" / "metrics.jsonl"
    metrics.write_bytes(b"\xff" + metrics.read_bytes())
    with pytest.raises(OSError, match=f"{metrics} is damaged; delete it"):
        train(one, log=str)
    metrics.unlink()
    train(one, log=str)
    assert weights(tmp_path / "out") == weights(unbroken[0])


@pytest.fixture(scope="module")
def interrupted_once(unbroken, tmp_path_factory):
    """An interrupted job and its last state."""
    one = unbroken[1](tmp_path_factory.mktemp("interrupted") / "out")
    interrupted(one, 5)
    return one, states(one.out)[-1]


def flip(file: Path, place: float) -> None:
    """Flip a bit of the byte at a share of a file."""
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "training.json", "tokenizer.json"])
def test_a_flipped_bit_in_a_finished_training_is_noticed(unbroken, tmp_path, name):
    shutil.copytree(unbroken[0], tmp_path / "out")
    assert check_training(tmp_path / "out") == []
    flip(tmp_path / "out" / name, 0.6)
    assert len(check_training(tmp_path / "out")) == 1
    with pytest.raises(OSError, match=f"out/{name} is damaged"):
        load_causal_lm(tmp_path / "out")
    with pytest.raises(OSError, match=f"out/{name} is damaged .* train it again"):
        train(unbroken[1](tmp_path / "out"), log=str)


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.npy", "given.npy", "tokens.json", "digests.json"])
def test_a_flipped_bit_in_a_token_file_is_noticed(world, tmp_path, name):
    shutil.copytree(world / "qa", tmp_path / "qa")
    flip(tmp_path / "qa" / name, 0.5)
    with pytest.raises(ValueError, match=f"qa/{name} is damaged .*; make it again"):
        open_tokens(tmp_path / "qa")


def test_changed_settings_are_refused_by_name_until_they_are_set_back(unbroken, world, tmp_path):
    expected, settings = unbroken
    one = settings(tmp_path / "out")
    interrupted(one, 5)
    changed = job(
        world, tmp_path / "out", start=one.start, save_every=2, tokens=30_000, keep=(0.5,), learning_rate=1e-3
    )
    with pytest.raises(ValueError, match=r"learning_rate was 0\.003 and is 0\.001"):
        train(changed, log=str)
    train(one, log=str)
    assert weights(tmp_path / "out") == weights(expected)


def test_how_a_step_is_computed_may_change_on_the_way(unbroken, tmp_path):
    expected, settings = unbroken
    one = settings(tmp_path / "out")
    interrupted(one, 5)
    train(replace(one, micro_batch=2, fused_loss=False, attention="sdpa", save_every=3, keep=()), log=str)
    assert len(curve(tmp_path / "out")) == len(curve(expected))


def test_a_share_that_the_interrupted_run_went_past_cannot_be_kept_any_more(unbroken, tmp_path):
    _, settings = unbroken
    one = settings(tmp_path / "out")
    interrupted(one, 5)
    with pytest.raises(ValueError, match=r"keep asks for 0\.01, but the interrupted run .* has taken 4 of"):
        train(replace(one, keep=(0.01, 0.5)), log=str)


def test_a_checkpoint_that_is_written_again_is_not_complete_until_it_is(unbroken, tmp_path):
    expected, settings = unbroken
    middle = round(len(curve(expected)) / 2)
    # so that the checkpoint comes after the last state
    one = replace(settings(tmp_path / "out"), save_every=middle - 1)
    interrupted(one, middle)
    (tmp_path / "out" / "at-0.5" / "model.safetensors").write_bytes(b"half")
    train(one, log=str)
    assert weights(tmp_path / "out" / "at-0.5") == weights(expected / "at-0.5")


def test_states_hold_no_pickle(unbroken, tmp_path):
    interrupted(unbroken[1](tmp_path / "out"), 5)
    files = {p.name for p in states(tmp_path / "out")[-1].iterdir()}
    assert files == {"state.safetensors", "state.json", "digests.json"}
    assert json.loads((states(tmp_path / "out")[-1] / "state.json").read_text())["step"] == 4


def limited(one, out, pipe):
    """Train where no file may grow past what a state needs."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    try:
        train(one, log=str)
    except OSError as error:
        pipe.send(str(error))


def test_a_disk_that_fills_up_leaves_no_half_state(unbroken, tmp_path):
    expected, settings = unbroken
    ours, theirs = STARTER.Pipe()
    process = STARTER.Process(target=limited, args=(settings(tmp_path / "out"), tmp_path / "out", theirs))
    process.start()
    process.join(120)
    assert ours.poll(), "the run did not fail"
    assert re.search(r"is full .* needs .* more there, .* Free that and run .* after step 0", ours.recv())
    assert not states(tmp_path / "out")
    assert not [p for p in (tmp_path / "out").rglob("*.tmp")]
    train(settings(tmp_path / "out"), log=str)
    assert weights(tmp_path / "out") == weights(expected)


def test_a_disk_with_too_little_room_is_refused_before_the_first_step(unbroken, tmp_path, monkeypatch):
    import shutil

    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(OSError, match="free"):
        train(unbroken[1](tmp_path / "out"), log=str)
    assert not (tmp_path / "out").exists()
