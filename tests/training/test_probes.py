"""Probes inside a training: asked when due, written once, and without a trace in what is learned."""

import json
import shutil

import pandas as pd
import pytest
import torch
import yaml
from small_training import GENERAL, QA, curve, job, sums, weights
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

from qatoolkit.core.qa_table import write_table
from qatoolkit.core.stats import cells
from qatoolkit.evaluation.live_probe import live_probe
from qatoolkit.evaluation.probe import probe
from qatoolkit.training.job import read_job
from qatoolkit.training.parallel import train_all
from qatoolkit.training.probes import COLUMNS, PROBES, read_probes
from qatoolkit.training.tokens import write_tokens
from qatoolkit.training.train import train, train_file

LIVE = "qatoolkit.evaluation.live_probe"


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    path = tmp_path_factory.mktemp("asked") / "questions.parquet"
    write_table(sums(), path)
    return path


@pytest.fixture(scope="module")
def start(world, tmp_path_factory):
    """A model with dropout, so that its training draws random numbers."""
    folder, tokenizer = tmp_path_factory.mktemp("start"), AutoTokenizer.from_pretrained(world / "tokenizer")
    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=128, vocab_size=384)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_tokens(QA, tokenizer, folder / "qa-tokens")
    write_tokens(GENERAL, tokenizer, folder / "general-tokens")
    return folder


def probed(start, out, asked, **changes):
    data = {"qa": start / "qa-tokens", "general": start / "general-tokens", "tokenizer": None, "tokens": 8_000}
    return job(out.parent, out, name="mid", start=start, **data | {"probe": asked, "probe_every": 1_000} | changes)


@pytest.fixture(scope="module")
def undisturbed(start, asked, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    train(probed(start, out, asked, save_every=3), probe=live_probe, log=str)
    return out


def careless(job, tokenizer):
    """A probe that draws random numbers and leaves gradients, where it can."""
    ask = live_probe(job, tokenizer)

    def answer(model):
        torch.rand(7)
        loss = model(torch.arange(1, 9)[None], labels=torch.arange(1, 9)[None]).loss
        assert not loss.requires_grad
        assert not model.training
        return ask(model)

    return answer


@pytest.mark.parametrize("settings", [{}, {"checkpointing": True, "memory": "low"}], ids=str)
def test_a_probe_changes_no_bit_of_what_is_learned(start, asked, tmp_path, settings):
    train(probed(start, tmp_path / "with", asked, **settings), probe=careless, log=str)
    train(probed(start, tmp_path / "without", None, probe_every=0, **settings), log=str)
    assert weights(tmp_path / "with") == weights(tmp_path / "without")
    assert curve(tmp_path / "with") == curve(tmp_path / "without")


def test_it_is_asked_at_the_start_every_so_many_tokens_and_at_the_end(undisturbed):
    rows = read_probes(undisturbed)
    steps = {row["step"] + 1: row["tokens"] for row in curve(undisturbed)}
    due = {}
    for step, tokens in steps.items():
        due.setdefault(tokens // 1_000, step)
    expected = sorted({0, *(step for passed, step in due.items() if passed), max(steps)})
    assert sorted(set(rows["step"])) == expected
    assert len(expected) > 4
    assert list(rows.columns) == COLUMNS
    assert all(tokens == steps.get(step, 0) for step, tokens in zip(rows["step"], rows["tokens"], strict=True))
    assert (rows.groupby("step")["n"].sum() == 40).all()
    assert not rows.duplicated(["step", "discipline", "difficulty"]).any()


def test_the_last_probe_is_what_a_probe_of_the_checkpoint_finds(undisturbed):
    rows = read_probes(undisturbed)
    last = rows[rows["step"] == rows["step"].max()].reset_index(drop=True)
    later = cells(probe(undisturbed, sums()))
    pd.testing.assert_frame_equal(last[COLUMNS[2:]], later[COLUMNS[2:]], rtol=1e-4)


@pytest.mark.parametrize("at", [0, 3, 8])
def test_a_resumed_run_has_no_probe_twice_and_none_missing(start, asked, undisturbed, tmp_path, at):
    one = probed(start, tmp_path / "out", asked, save_every=3)

    def stop(row):
        if row["step"] == at:
            with open(tmp_path / "out" / PROBES, "a") as file:
                file.write('{"step": 9, "tok')  # a kill in the middle of a line
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(one, probe=live_probe, hook=stop, log=str)
    assert not (tmp_path / "out" / "training.json").exists()
    assert len(read_probes(tmp_path / "out"))
    train(one, probe=live_probe, log=str)
    assert (tmp_path / "out" / PROBES).read_text() == (undisturbed / PROBES).read_text()
    assert weights(tmp_path / "out") == weights(undisturbed)


def test_probes_are_no_part_of_what_a_resumed_run_must_share(start, asked, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "out")
    train(probed(start, tmp_path / "out", asked, probe_every=7), log=str, probe=live_probe)
    (tmp_path / "out" / PROBES).unlink()
    train(probed(start, tmp_path / "out", None, probe_every=0), log=str)
    with pytest.raises(ValueError, match="made without probes"):
        train(probed(start, tmp_path / "out", asked), log=str, probe=live_probe)
    assert str(asked) not in (tmp_path / "out" / "training.json").read_text()
    assert read_probes(tmp_path / "out").empty


def test_a_worker_probes_the_jobs_that_ask_for_it(world, asked, tmp_path, monkeypatch):
    monkeypatch.setattr("qatoolkit.training.parallel.default_workers", lambda: 1)
    jobs = [job(world, tmp_path / "a", name="a", tokens=3_000, probe=asked, probe_every=10_000)]
    jobs += [job(world, tmp_path / "b", name="b", tokens=3_000)]
    train_all(jobs, worker=LIVE, log=str)
    assert read_probes(tmp_path / "a")["step"].nunique() == 2
    assert read_probes(tmp_path / "b").empty
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    with pytest.raises(ValueError, match=r"pass qatoolkit\.evaluation\.live_probe"):
        train(job(world, tmp_path / "c", name="c", probe=asked, probe_every=1), log=str)


def test_a_file_names_its_probe_beside_it(world, tmp_path, capsys):
    write_table(sums(6), tmp_path / "six.parquet")
    content = {"size": "xxs", "tokenizer": f"{world}/tokenizer", "qa": f"{world}/qa", "replay": 0, "tokens": 2_000}
    content |= {"block": 64, "out": "out", "probe": "six.parquet", "probe_every": 1_000}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    assert read_job(tmp_path / "run.yaml").probe == str(tmp_path / "six.parquet")
    with pytest.raises(ValueError, match="nothing here can answer"):
        train_file(tmp_path / "run.yaml", plan_only=True)
    train_file(tmp_path / "run.yaml", probe=live_probe)
    assert "probe after 0 tokens: accuracy" in capsys.readouterr().out
    assert read_probes(tmp_path / "out")["tokens"].iloc[-1] == curve(tmp_path / "out")[-1]["tokens"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (None, "is not a Parquet table"),
        ({"choices": None}, "has no row with choices"),
        ({"difficulty": None}, "has rows without discipline or difficulty"),
    ],
)
def test_a_table_that_cannot_be_asked_is_refused_before_anything_is_trained(world, tmp_path, change, expected):
    if change:
        write_table(sums().assign(**change), tmp_path / "table.parquet")
    asks = job(world, tmp_path / "out", probe=tmp_path / "table.parquet", probe_every=1_000)
    with pytest.raises(ValueError, match=f"job 'trunk': probe .*table.parquet {expected}"):
        train(asks, probe=live_probe, log=str)
    assert not (tmp_path / "out").exists()


def test_a_rate_of_probes_needs_sums(world, tmp_path):
    with pytest.raises(ValueError, match="probe_every is 5; it must be 0 where there is no probe"):
        job(world, tmp_path / "out", probe_every=5)


def test_every_line_of_the_file_is_one_cell(undisturbed):
    for line in (undisturbed / PROBES).read_text().splitlines():
        assert list(json.loads(line)) == COLUMNS
