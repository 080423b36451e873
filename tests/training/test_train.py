"""Training: equal jobs give equal weights, a checkpoint in gives a checkpoint out, and what does not fit is refused."""

import contextlib
import json
import shutil
import time

import psutil
import pytest
import torch
from small_training import QA, curve, job, make_world, weights
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    Gemma3Config,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    Qwen2Config,
)

from qatoolkit.run.cli import main
from qatoolkit.training import logging as training_log
from qatoolkit.training import memory_estimate, parallel, setup
from qatoolkit.training import train as training_loop
from qatoolkit.training.checkpoints import adopt, soup, states
from qatoolkit.training.parallel import train_all
from qatoolkit.training.tokens import train_tokenizer, write_tokens
from qatoolkit.training.train import TrainingFailed, train


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A world that nobody has trained in, so that the jobs of `trunk`, side by side, pack its data at once."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def trunk(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("trunk")
    settings = {"schedule": "constant", "keep": (0.5, 1.0), "keep_optimizer": True}
    manifest = train_all([job(world, out / name, **settings) for name in "ab"], log=str)[0]
    return out, manifest


def quietly(*arguments, **settings):
    return train(*arguments, log=str, **settings)


def test_equal_jobs_side_by_side_give_bit_identical_weights(trunk):
    out, _ = trunk
    assert weights(out / "a") == weights(out / "b")
    assert curve(out / "a") == curve(out / "b")


def test_checkpoints_on_the_way_say_what_they_cost(trunk):
    out, manifest = trunk
    half = json.loads((out / "a" / "at-0.5" / "training.json").read_text())
    assert half["tokens"] == pytest.approx(manifest["tokens"] / 2, rel=0.15)
    assert half["flops"] == pytest.approx(manifest["flops"] / 2, rel=0.15)
    assert weights(out / "a" / "at-1") == weights(out / "a")


def test_tokens_add_up_to_the_mixture(trunk):
    out, manifest = trunk
    assert manifest["tokens"] == manifest["mixture"]["qa"] + manifest["mixture"]["general"]
    assert curve(out / "a")[-1]["tokens"] == manifest["tokens"]
    assert manifest["mixture"]["realised_replay"] == pytest.approx(0.35, abs=0.01)


def test_midtraining_remembers_the_compute_it_started_from(trunk, world, tmp_path):
    out, manifest = trunk
    mid = quietly(job(world, tmp_path / "mid", name="mid", start=out / "a"))
    assert mid["initial_flops"] == manifest["flops"]
    assert mid["initial_tokens"] == manifest["tokens"]
    assert mid["base_model"] == "trunk"
    assert weights(tmp_path / "mid") != weights(out / "a")


def test_an_inherited_run_goes_on_where_the_trunk_ended(trunk, world, tmp_path):
    out, _ = trunk
    rewarmed = quietly(job(world, tmp_path / "r", start=out / "a", seed=1))
    inherited = quietly(job(world, tmp_path / "i", start=out / "a", rate="inherit", seed=1))
    assert curve(tmp_path / "i")[0]["lr"] == curve(out / "a")[-1]["lr"]
    assert curve(tmp_path / "r")[0]["loss"] == curve(tmp_path / "i")[0]["loss"]
    assert weights(tmp_path / "r") != weights(tmp_path / "i")
    assert rewarmed["tokens"] == inherited["tokens"]
    quietly(job(world, tmp_path / "low", start=out / "a", rate="inherit", memory="low", tokens=2_000))
    shutil.copytree(out / "a", tmp_path / "bare")
    (tmp_path / "bare" / "optimizer.safetensors").write_bytes(b"cut")
    with pytest.raises(OSError, match=r"optimizer.safetensors is damaged .* set rate to rewarm"):
        quietly(job(world, tmp_path / "x", start=tmp_path / "bare", rate="inherit"))
    (tmp_path / "bare" / "optimizer.safetensors").unlink()
    with pytest.raises(ValueError, match="rewarm"):
        quietly(job(world, tmp_path / "x", start=tmp_path / "bare", rate="inherit"))


def test_a_finished_job_is_not_run_again(trunk, world):
    out, _ = trunk
    before = (out / "a" / "model.safetensors").stat().st_mtime_ns
    train_all([job(world, out / "a", keep=(0.5, 1.0))], log=str)
    assert (out / "a" / "model.safetensors").stat().st_mtime_ns == before


def test_workers_wait_for_another_job_and_end_after_a_while(world, tmp_path, monkeypatch):
    def workers():
        found = set()
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile
                found |= {process.pid} if "qatoolkit.training.parallel" in process.cmdline() else set()
        return found

    monkeypatch.setenv("OF_THIS_TEST", "1")  # workers with another environment are not used
    before = workers()
    train_all([job(world, tmp_path / "a")], log=str)
    (worker,) = workers() - before
    monkeypatch.setattr(parallel, "IDLE", 0.2)
    train_all([job(world, tmp_path / "b")], log=str)
    assert workers() - before <= {worker}
    for _ in range(100):
        if not workers() - before:
            break
        time.sleep(0.1)
    assert not workers() - before
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_a_failing_job_is_named(world, tmp_path):
    with pytest.raises(RuntimeError, match="'broken'"):
        train_all([job(world, tmp_path / "x", name="broken", start=tmp_path / "nowhere")], log=str)


@pytest.mark.parametrize(
    "changes", [{"micro_batch": 3}, {"checkpointing": True}, {"fused_loss": False}], ids=lambda c: next(iter(c))
)
def test_how_a_step_is_computed_does_not_change_what_is_learnt(world, trunk, tmp_path, changes):
    expected = [row["loss"] for row in curve(trunk[0] / "a")]
    quietly(job(world, tmp_path / "out", schedule="constant", **changes))
    assert [row["loss"] for row in curve(tmp_path / "out")] == pytest.approx(expected, abs=2e-4)


@pytest.mark.slow
def test_compiled_layers_learn_the_same(world, trunk, tmp_path):
    expected = [row["loss"] for row in curve(trunk[0] / "a")][:4]
    quietly(job(world, tmp_path / "out", schedule="constant", compile=True, tokens=2_000, warmup=0.2))
    quietly(job(world, tmp_path / "eager", schedule="constant", tokens=2_000, warmup=0.2))
    found, eager = ([row["loss"] for row in curve(tmp_path / name)][:4] for name in ("out", "eager"))
    assert found == pytest.approx(eager, abs=2e-4)
    assert found[0] == pytest.approx(expected[0], abs=0.2)


def test_low_memory_learns_nearly_the_same_in_half_the_bytes(world, trunk, tmp_path):
    manifest = quietly(job(world, tmp_path / "low", schedule="constant", memory="low"))
    assert manifest["loss"] == pytest.approx(trunk[1]["loss"], rel=0.1)
    ours, theirs = ((folder / "model.safetensors").stat().st_size for folder in (tmp_path / "low", trunk[0] / "a"))
    assert ours < 0.6 * theirs


def test_loss_on_answers_is_another_loss_over_the_same_tokens(world, tmp_path):
    settings = {"replay": 0.0, "tokens": 8_000}
    everywhere = quietly(job(world, tmp_path / "all", **settings))
    answers = quietly(job(world, tmp_path / "answer", loss_on="answer", **settings))
    assert everywhere["tokens"] == answers["tokens"]
    assert curve(tmp_path / "all")[-1]["loss"] != curve(tmp_path / "answer")[-1]["loss"]


def test_the_z_loss_pulls_the_softmax_sum_towards_one(world, tmp_path):
    def log_z(folder):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        with torch.inference_mode():
            logits = model(**tokenizer("Question: What is 3 plus 4?", return_tensors="pt")).logits
        return logits.logsumexp(-1).abs().mean().item()

    for z_loss in (0.0, 1.0):
        quietly(job(world, tmp_path / f"{z_loss}", z_loss=z_loss, tokens=10_000))
    assert log_z(tmp_path / "1.0") < log_z(tmp_path / "0.0") - 0.3


def test_a_hook_sees_every_step_and_changes_nothing(world, trunk, tmp_path):
    seen = []
    quietly(job(world, tmp_path / "out", schedule="constant", keep=(0.5, 1.0), keep_optimizer=True), hook=seen.append)
    kept = [{name: row[name] for name in expected} for row, expected in zip(seen, curve(trunk[0] / "a"), strict=True)]
    assert kept == curve(tmp_path / "out") == curve(trunk[0] / "a")


def test_a_soup_is_the_mean_of_its_checkpoints(trunk, tmp_path):
    out, _ = trunk
    parts = [AutoModelForCausalLM.from_pretrained(out / "a" / name) for name in ("at-0.5", "at-1")]
    soup([out / "a" / "at-0.5", out / "a" / "at-1"], tmp_path / "soup")
    mixed = AutoModelForCausalLM.from_pretrained(tmp_path / "soup")
    for p, a, b in zip(mixed.parameters(), *(m.parameters() for m in parts), strict=True):
        torch.testing.assert_close(p, (a + b) / 2)
    AutoTokenizer.from_pretrained(tmp_path / "soup")
    with pytest.raises(ValueError, match="two or more"):
        soup([out / "a"], tmp_path / "x")
    both = [out / "a" / "at-0.5", out / "a"]
    soup(both, tmp_path / "soup")  # a soup may be made again, other things are left alone
    before = weights(out / "a")
    with pytest.raises(ValueError, match="is not replaced"):
        soup(both, out / "a")
    assert weights(out / "a") == before


FOREIGN = {
    "llama": LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4),
    "qwen": Qwen2Config(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=128),
}  # fmt: skip


@pytest.fixture(scope="module")
def foreign(world, tmp_path_factory):
    """Checkpoints that plain transformers made, weights in bfloat16 for one of them."""
    folder, tokenizer = tmp_path_factory.mktemp("foreign"), AutoTokenizer.from_pretrained(world / "tokenizer")
    for name, config in FOREIGN.items():
        config.vocab_size = 384  # some more than the tokenizer has, as is usual
        torch.manual_seed(0)
        dtype = torch.bfloat16 if name == "qwen" else torch.float32
        AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        write_tokens(QA, AutoTokenizer.from_pretrained(folder / name), folder / f"{name}-qa")
    return folder


@pytest.mark.parametrize("name", FOREIGN)
def test_a_checkpoint_of_plain_transformers_comes_back_better_and_as_plain(foreign, world, tmp_path, name):
    data = {"qa": foreign / f"{name}-qa", "general": None, "replay": 0.0, "tokenizer": None}
    manifest = quietly(job(world, tmp_path / "out", name="mid", start=foreign / name, **data))
    before, after = (AutoModelForCausalLM.from_pretrained(f / n) for f, n in ((foreign, name), (tmp_path, "out")))
    assert type(after) is type(before)
    assert after.dtype == before.dtype
    assert after.config.tie_word_embeddings == before.config.tie_word_embeddings
    assert manifest["loss"] < curve(tmp_path / "out")[0]["loss"] - 0.2
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("plus").input_ids
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"base_model: {name}" in card
    assert str(tmp_path) not in card


def test_the_start_itself_is_left_alone(foreign, world, tmp_path):
    before = weights(foreign / "llama"), sorted(p.name for p in (foreign / "llama").iterdir())
    quietly(job(world, tmp_path / "out", start=foreign / "llama", tokens=2_000))
    assert (weights(foreign / "llama"), sorted(p.name for p in (foreign / "llama").iterdir())) == before


def test_weights_in_pickles_are_not_loaded(foreign, world, tmp_path):
    shutil.copytree(foreign / "llama", tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    model = AutoModelForCausalLM.from_pretrained(foreign / "llama")
    torch.save(model.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        quietly(job(world, tmp_path / "out", start=tmp_path / "pickled"))
    with pytest.raises(OSError, match="safetensors"):
        adopt(str(tmp_path / "pickled"), tmp_path / "never")
    assert not (tmp_path / "out").exists()


def test_an_adopted_checkpoint_is_a_plain_copy_under_its_own_name(foreign, tmp_path):
    adopt(str(foreign / "gpt2"), tmp_path / "base")
    manifest = json.loads((tmp_path / "base" / "training.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert manifest["parameters"] == sum(p.numel() for p in model.parameters())
    assert manifest["name"] == "gpt2"


def test_a_folder_with_a_model_of_other_making_is_not_taken_for_a_finished_run(foreign, world, tmp_path):
    adopt(str(foreign / "gpt2"), tmp_path / "out")
    before = weights(tmp_path / "out")
    with pytest.raises(ValueError, match="already contains a model"):
        quietly(job(world, tmp_path / "out", start=foreign / "gpt2"))
    assert weights(tmp_path / "out") == before


def test_a_model_that_no_job_wrote_is_not_written_over(foreign, world, tmp_path):
    shutil.copytree(foreign / "gpt2", tmp_path / "mine")
    before = weights(tmp_path / "mine")
    with pytest.raises(ValueError, match="which no job wrote"):
        quietly(job(world, tmp_path / "mine", start=foreign / "gpt2"))
    with pytest.raises(ValueError, match="out and start are both"):
        quietly(job(world, tmp_path / "mine", start=tmp_path / "mine"))
    assert weights(tmp_path / "mine") == before
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="must be a folder"):
        quietly(job(world, tmp_path / "file", start=foreign / "gpt2"))


def test_another_start_of_the_same_size_is_noticed(foreign, world, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(foreign / "llama")
    shutil.copytree(foreign / "llama", tmp_path / "start")
    quietly(job(world, tmp_path / "out", start=tmp_path / "start", tokens=2_000))
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[3, 5] += 1.0
    model.save_pretrained(tmp_path / "start")
    with pytest.raises(ValueError, match=r"start was 'config\.json .*model\.safetensors"):
        quietly(job(world, tmp_path / "out", start=tmp_path / "start", tokens=2_000))


def test_a_finished_job_that_is_asked_for_more_says_that_it_has_not_kept_it(trunk, world, tmp_path):
    shutil.copytree(trunk[0] / "a", tmp_path / "a")
    asked = {"schedule": "constant", "keep_optimizer": True}
    with pytest.raises(ValueError, match=r"made without keep 0\.25"):
        quietly(job(world, tmp_path / "a", keep=(0.25, 0.5), **asked))
    (tmp_path / "a" / "optimizer.safetensors").unlink()
    with pytest.raises(ValueError, match="made without keep_optimizer"):
        quietly(job(world, tmp_path / "a", keep=(0.5,), **asked))


def test_tokens_of_another_tokenizer_are_refused(foreign, world, tmp_path):
    other = train_tokenizer(["quite other words " * 5], 300)
    write_tokens(["quite other words"] * 50, other, tmp_path / "other")
    with pytest.raises(ValueError, match="another tokenizer"):
        quietly(job(world, tmp_path / "out", start=foreign / "llama", qa=tmp_path / "other", replay=0.0, general=None))
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_larger_than_the_model_is_refused(world, tmp_path):
    config = LlamaConfig(
        vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "small")
    with pytest.raises(ValueError, match="only 100 embeddings"):
        quietly(job(world, tmp_path / "out", start=tmp_path / "small"))


def test_a_block_longer_than_the_model_reads_is_refused(foreign, world, tmp_path):
    with pytest.raises(ValueError, match="at most 128"):
        quietly(job(world, tmp_path / "out", start=foreign / "gpt2", block=256))


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_what_was_good(world, tmp_path):
    broken = job(world, tmp_path / "out", learning_rate=1e18, clip=1e30, save_every=1)
    with pytest.raises(TrainingFailed, match="Lower learning_rate"):
        quietly(broken)
    assert not (tmp_path / "out" / "training.json").exists()
    assert [p.name for p in states(tmp_path / "out")] == [f"{len(curve(tmp_path / 'out')):09d}"] or states(
        tmp_path / "out"
    )
    assert all(row["loss"] == row["loss"] for row in curve(tmp_path / "out"))


def test_a_gradient_that_is_no_number_stops_the_run_before_it_does_harm(world, tmp_path):
    one = job(world, tmp_path / "out", save_every=1)

    def spoil(row):
        if row["step"] == 2:
            spoilt["weight"].register_hook(lambda gradient: gradient * float("inf"))

    spoilt, load = {}, setup._load_model

    def remember(*arguments):
        model = load(*arguments)
        spoilt["weight"] = model.model.norm.weight
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "_load_model", remember)
        with pytest.raises(TrainingFailed, match="gradient not finite"):
            quietly(one, hook=spoil)
    assert [int(p.name) for p in states(one.out)] == [2, 3]
    quietly(one)
    quietly(job(world, tmp_path / "whole"))
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_a_model_that_reads_packed_documents_into_one_another_is_refused(world, tmp_path):
    config = OPTConfig(
        vocab_size=384, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, ffn_dim=64, word_embed_proj_dim=32
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "opt")
    with pytest.raises(ValueError, match="OPTForCausalLM mixes packed documents"):
        quietly(job(world, tmp_path / "out", start=tmp_path / "opt", attention="sdpa"))
    assert not (tmp_path / "out" / "training.json").exists()


def test_progress_draws_no_random_numbers(foreign, world, tmp_path, monkeypatch):
    data = {"qa": foreign / "gpt2-qa", "general": None, "replay": 0.0, "tokenizer": None, "tokens": 4_000}
    quietly(job(world, tmp_path / "silent", start=foreign / "gpt2", **data))
    monkeypatch.setattr(training_log, "EVERY", 0.0)
    lines = []
    train(job(world, tmp_path / "logged", start=foreign / "gpt2", **data), log=lines.append)
    assert any("tokens/s, MFU" in line for line in lines)
    assert weights(tmp_path / "logged") == weights(tmp_path / "silent")
    timing = [json.loads(line) for line in (tmp_path / "logged" / "timing.jsonl").read_text().splitlines()]
    assert timing[0].keys() == {"step", "seconds", "tokens_per_second", "mfu", "peak_gib"}
    assert 0.1 < timing[0]["peak_gib"] < 64


def test_what_cannot_fit_is_refused_before_it_starts(world, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_estimate, "device_memory", lambda: 5_000_000)
    with pytest.raises(memory_estimate.DoesNotFit, match="Try checkpointing: true, or a smaller micro_batch, or"):
        quietly(job(world, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    quietly(job(world, tmp_path / "out", tokens=2_000), anyway=True)


def test_a_job_runs_from_a_file_and_only_once(world, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(
        f"size: xxs\ntokenizer: {world}/tokenizer\nqa: {world}/qa\ngeneral: {world}/general\ntokens: 3000\n"
        "block: 64\nout: done\n"
    )
    assert main(["train", str(tmp_path / "run.yaml"), "--plan"]) == 0
    said = capsys.readouterr().out
    assert "parameters" in said
    assert "times over) and" in said
    assert not (tmp_path / "done").exists()
    assert main(["train", str(tmp_path / "run.yaml")]) == 0
    assert f"written to {tmp_path / 'done'}" in capsys.readouterr().out
    assert main(["train", str(tmp_path / "run.yaml")]) == 0
    assert "nothing to do" in capsys.readouterr().out
    with open(tmp_path / "run.yaml", "a") as file:
        file.write("learning_rate: 0.1\n")
    assert main(["train", str(tmp_path / "run.yaml")]) == 2
    assert "a finished run with other settings: learning_rate was" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "absent.yaml")]) == 2
    assert "absent.yaml does not exist" in capsys.readouterr().err


def test_a_plan_refuses_what_training_would_refuse(foreign, world, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(
        f"start: {foreign}/gpt2\nqa: {foreign}/gpt2-qa\nreplay: 0\ntokens: 3000\nblock: 256\nout: done\n"
    )
    assert main(["train", str(tmp_path / "run.yaml"), "--plan"]) == 2
    assert "block is 256 tokens and the model reads at most 128" in capsys.readouterr().err


def test_a_run_that_is_interrupted_by_hand_says_how_to_go_on(world, tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(training_loop, "train", interrupt)
    (tmp_path / "run.yaml").write_text(
        f"size: xxs\ntokenizer: {world}/tokenizer\nqa: {world}/qa\nreplay: 0\ntokens: 3000\nout: done\n"
    )
    assert main(["train", str(tmp_path / "run.yaml")]) == 130
    assert "run the same command again to continue" in capsys.readouterr().err


@pytest.fixture(scope="module")
def images(world, tmp_path_factory):
    """A model that reads images too, in bfloat16."""
    folder = tmp_path_factory.mktemp("images") / "start"
    tokenizer = AutoTokenizer.from_pretrained(world / "tokenizer")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    text = sizes | {"vocab_size": 384, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}
    config = Gemma3Config(text_config=text, vision_config=sizes | {"image_size": 28, "patch_size": 14})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_that_reads_images_too_is_trained_on_text_and_goes_on_after_a_stop(images, world, tmp_path):
    def stop(row):
        if row["step"] == 4:
            raise KeyboardInterrupt

    whole, broken = (job(world, tmp_path / name, start=images, save_every=2, tokens=4_000) for name in "ab")
    with pytest.raises(ValueError, match="the model reads at most 128"):
        quietly(job(world, tmp_path / "x", start=images, block=256))
    quietly(whole)
    with pytest.raises(KeyboardInterrupt):
        quietly(broken, hook=stop)
    quietly(broken)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert "float32" not in (tmp_path / "a" / "config.json").read_text()


def test_a_tokenizer_whose_padding_lies_beyond_the_model_is_no_hindrance(world, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(world / "tokenizer")
    config = FOREIGN["llama"].__class__(**FOREIGN["llama"].to_dict() | {"vocab_size": len(tokenizer)})
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    write_tokens(QA, tokenizer, tmp_path / "qa")
    data = {"qa": tmp_path / "qa", "general": None, "replay": 0.0, "tokenizer": None, "tokens": 2_000}
    quietly(job(world, tmp_path / "out", start=tmp_path / "start", **data))


def test_a_checkpoint_that_does_not_name_its_dtype_keeps_it(foreign, world, tmp_path):
    shutil.copytree(foreign / "qwen", tmp_path / "start")
    config = json.loads((tmp_path / "start" / "config.json").read_text())
    del config["dtype"]
    (tmp_path / "start" / "config.json").write_text(json.dumps(config))
    data = {"qa": foreign / "qwen-qa", "general": None, "replay": 0.0, "tokenizer": None, "tokens": 2_000}
    quietly(job(world, tmp_path / "out", start=tmp_path / "start", **data))
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_weights_that_are_no_numbers_are_called_so(foreign, world, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(foreign / "llama")
    model.model.norm.weight.data[0] = float("nan")
    model.save_pretrained(tmp_path / "start")
    with pytest.raises(ValueError, match="logits are not finite: its weights are damaged"):
        quietly(job(world, tmp_path / "out", start=tmp_path / "start"))


def test_documents_longer_than_the_checked_part_are_checked_where_they_meet(world, tmp_path, monkeypatch):
    config = BloomConfig(vocab_size=384, hidden_size=32, n_layer=1, n_head=4, initializer_range=0.2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "bloom")
    tokenizer = AutoTokenizer.from_pretrained(world / "tokenizer")
    write_tokens(["The number 7 comes after 6. " * 3] * 50, tokenizer, tmp_path / "long")
    monkeypatch.setattr(setup, "CHECKED", 16)
    with pytest.raises(ValueError, match="mixes packed documents"):
        quietly(job(world, tmp_path / "out", start=tmp_path / "bloom", qa=tmp_path / "long", block=256))


def test_every_share_to_keep_is_kept_in_a_run_of_few_steps(world, tmp_path):
    one = job(world, tmp_path / "out", tokens=1_000, keep=(0.1, 0.2))
    quietly(one)
    quietly(one)
    assert weights(tmp_path / "out" / "at-0.1") == weights(tmp_path / "out" / "at-0.2")


def test_a_plan_that_cannot_fit_ends_with_what_to_change(world, tmp_path, capsys, monkeypatch):
    (tmp_path / "run.yaml").write_text(
        f"size: xxs\ntokenizer: {world}/tokenizer\nqa: {world}/qa\nreplay: 0\ntokens: 3000\nblock: 64\nout: out\n"
    )
    monkeypatch.setattr(memory_estimate, "device_memory", lambda: 5_000_000)
    assert main(["train", str(tmp_path / "run.yaml"), "--plan"]) == 2
    said = capsys.readouterr()
    assert "does not fit" in said.out
    assert "Try checkpointing: true" in said.err
    assert main(["train", str(tmp_path / "run.yaml"), "--plan", "--anyway"]) == 0
