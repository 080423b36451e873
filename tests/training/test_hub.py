"""Checkpoints by folder or name: what is not there is said in our words, and an empty tokenizer is none."""

import json
import shutil

import pytest
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from qatoolkit.run.cli import main
from qatoolkit.training.hub import called, load_causal_lm, load_config, load_tokenizer
from qatoolkit.training.tokens import train_tokenizer


@pytest.fixture(scope="module", params=[LlamaConfig, Qwen2Config])
def bare(request, tmp_path_factory):
    """A model that was saved without its tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "bare"
    config = request.param(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("load", [load_tokenizer, load_config, load_causal_lm])
@pytest.mark.parametrize("name", ["./nothere", "nothere", "some/model", "/nowhere/at/all"])
def test_a_checkpoint_that_is_nowhere_is_named_with_where_it_was_looked_for(load, name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=f"'{name}' is not a folder in"):
        load(name)


def test_a_model_without_a_tokenizer_tokenises_nothing(bare, tmp_path, capsys):
    with pytest.raises(ValueError, match="has no readable tokenizer"):
        load_tokenizer(bare)
    (tmp_path / "qa.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    out = tmp_path / "out"
    assert main(["tokenise", str(tmp_path / "qa.jsonl"), "--tokenizer", str(bare), "--out", str(out)]) == 2
    assert "has no readable tokenizer" in capsys.readouterr().err
    assert not out.exists()


def test_a_small_tokenizer_is_one(tmp_path):
    train_tokenizer(["a b"], 260).save_pretrained(tmp_path / "small")
    assert load_tokenizer(tmp_path / "small")("a b").input_ids


def test_a_checkpoint_goes_by_its_folder_or_its_whole_name(bare):
    assert called(bare) == "bare"
    assert called("meta-llama/Meta-Llama-3-8B") == "meta-llama/Meta-Llama-3-8B"


@pytest.mark.parametrize("change", [{"num_hidden_layers": 2}, {"intermediate_size": 48}])
def test_a_checkpoint_that_lacks_weights_is_refused_with_the_first(bare, tmp_path, change):
    shutil.copytree(bare, tmp_path / "bare")
    config = json.loads((bare / "config.json").read_text())
    config.pop("layer_types", None)
    (tmp_path / "bare" / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=r"lacks \d+ weights .* the first is model.layers.[01]"):
        load_causal_lm(tmp_path / "bare")


def test_damaged_weights_are_reported(bare, tmp_path):
    shutil.copytree(bare, tmp_path / "bare")
    file = tmp_path / "bare" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(OSError, match="bare are damaged"):
        load_causal_lm(tmp_path / "bare")


def test_a_tokenizer_is_stored_as_it_was(tmp_path):
    train_tokenizer(["a b"], 260).save_pretrained(tmp_path / "one")
    load_tokenizer(tmp_path / "one").save_pretrained(tmp_path / "two")
    for file in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / file.name).read_bytes() == file.read_bytes()
