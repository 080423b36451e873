"""Training: packed documents do not see one another, equal jobs give equal weights, checkpoints are plain directories."""

import hashlib
import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qatoolkit import ladder
from qatoolkit.midtrain import Job, adopt, learning_rate, train_all
from qatoolkit.mixture import pack, tokenise, train_tokenizer

TEXTS = [f"Question: What is {i} plus {j}?\nAnswer: {i + j}" for i in range(60) for j in range(20)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tokenizer = train_tokenizer(TEXTS, 320)
    tokenizer.save_pretrained(folder / "tokenizer")
    pack(tokenise(TEXTS, tokenizer, 64)[0], 64, tokenizer.pad_token_id).save(folder / "blocks.npz")
    return folder


def job(data, out, **changes):
    settings = {"name": "trunk", "size": "xxs", "decay": 0.0, "batch": 8} | changes
    return Job(blocks=str(data / "blocks.npz"), tokenizer=str(data / "tokenizer"), out=str(out), **settings)


def weights(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def trunk(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("trunk")
    manifest = train_all(
        [job(data, out / "a", keep=(0.5, 1.0)), job(data, out / "b", keep=(0.5, 1.0))], log=str
    )[0]
    return out, manifest


def test_equal_jobs_give_bit_identical_weights(trunk):
    out, _ = trunk
    assert weights(out / "a") == weights(out / "b")


def test_checkpoints_on_the_way_say_what_they_cost(trunk):
    out, manifest = trunk
    half = json.loads((out / "a" / "at-0.5" / "training.json").read_text())
    assert half["tokens"] == pytest.approx(manifest["tokens"] / 2, rel=0.15)
    assert half["flops"] == pytest.approx(manifest["flops"] / 2, rel=0.15)
    assert weights(out / "a" / "at-1") == weights(out / "a")


def test_midtraining_remembers_the_compute_it_started_from(trunk, data, tmp_path):
    out, manifest = trunk
    mid = train_all(
        [job(data, tmp_path / "mid", name="mid", size=None, start=str(out / "a"), decay=1.0)], log=str
    )[0]
    assert mid["initial_flops"] == manifest["flops"]
    assert mid["initial_tokens"] == manifest["tokens"]
    assert weights(tmp_path / "mid") != weights(out / "a")


def test_a_finished_job_is_not_run_again(trunk, data):
    out, _ = trunk
    before = (out / "a" / "model.safetensors").stat().st_mtime_ns
    train_all([job(data, out / "a", keep=(0.5, 1.0))], log=str)
    assert (out / "a" / "model.safetensors").stat().st_mtime_ns == before


def test_a_failing_job_is_named(data, tmp_path):
    with pytest.raises(RuntimeError, match="'broken'"):
        train_all(
            [job(data, tmp_path / "x", name="broken", size=None, start=str(tmp_path / "nowhere"))], log=str
        )


def test_packed_logits_equal_solo_logits(data):
    tokenizer = AutoTokenizer.from_pretrained(data / "tokenizer")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        ladder.llama_config(ladder.size_of("xs"), len(tokenizer), 64)
    ).eval()
    documents, _ = tokenise(TEXTS[:2], tokenizer, 64)
    ids = torch.tensor(np.concatenate(documents)[None], dtype=torch.long)
    positions = torch.tensor(np.concatenate([np.arange(len(d)) for d in documents])[None])
    with torch.inference_mode():
        packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
        solo = [model(input_ids=torch.tensor(d[None], dtype=torch.long)).logits[0] for d in documents]
    assert torch.allclose(packed, torch.cat(solo), atol=1e-5)


@pytest.mark.parametrize("name", ["xxs", "m"])
def test_parameters_are_counted_exactly(name):
    model = AutoModelForCausalLM.from_config(ladder.llama_config(ladder.size_of(name), 500, 64))
    assert ladder.parameters(ladder.size_of(name), 500) == sum(p.numel() for p in model.parameters())


def test_the_rate_warms_up_and_decays_to_zero():
    one = Job(name="j", blocks="", out="", tokenizer="", size="xxs", learning_rate=1.0, warmup=0.1, decay=1.0)
    rates = [learning_rate(step, 100, one) for step in range(100)]
    assert rates[0] < rates[9]
    assert rates[-1] == pytest.approx(0.01)
    trunk = Job(
        name="j", blocks="", out="", tokenizer="", size="xxs", learning_rate=1.0, warmup=0.1, decay=0.0
    )
    assert learning_rate(99, 100, trunk) == 1.0


@pytest.mark.parametrize("wrong", [{"start": "a", "size": "xxs"}, {}, {"size": "xxs", "batch": 0}])
def test_a_job_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="'j'"):
        Job(name="j", blocks="", out="", tokenizer="", **wrong)


def test_a_checkpoint_of_plain_transformers_is_adopted_and_one_of_pickles_is_not(data, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(data / "tokenizer")
    model = AutoModelForCausalLM.from_config(ladder.llama_config(ladder.size_of("xxs"), len(tokenizer), 64))
    for name in ("plain", "pickled"):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    _, manifest = adopt(str(tmp_path / "plain"), tmp_path / "base")
    assert manifest["parameters"] == sum(p.numel() for p in model.parameters())
    AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    torch.save(model.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        adopt(str(tmp_path / "pickled"), tmp_path / "never")
