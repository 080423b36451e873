"""Opens checkpoints: a Hugging Face folder, a name on its hub, or a GGUF file (`training.gguf_files`).

Weights must be safetensors or GGUF. Code of a checkpoint never runs, and no prompt asks to run it. Errors say what is
wrong, where, and what to do.
"""

import json
import re
from pathlib import Path

from qatoolkit.core.text import first_line
from qatoolkit.training.digests import MOMENTS, require_undamaged
from qatoolkit.training.gguf_files import NoCheckpoint, find_gguf, read_gguf, split_as_trained

COPY_AGAIN = "copy or train it again, or, if the change is intended, delete digests.json there"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
LAYERS, LARGEST = 4_096, 1 << 26  # maximum number of layers, and of any other size, in a configuration
SIZES = ("layers", "n_layer", "_size", "_heads", "_dim", "n_embd", "d_model", "experts")
MERGE = (
    'python -c "from peft import PeftModel; from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
    "PeftModel.from_pretrained(M.from_pretrained({base!r}), {folder!r}).merge_and_unload().save_pretrained('merged'); "
    "T.from_pretrained({base!r}).save_pretrained('merged')\""
)


def load_tokenizer(checkpoint: str | Path, revision: str | None = None):
    """The tokenizer of a checkpoint; `revision` is a branch, tag or commit on the hub. ValueError if there is no such
    checkpoint, or it has no tokenizer (for some architectures transformers then makes up an empty one)."""
    from transformers import AutoTokenizer

    source = _locate(checkpoint, revision)
    message = f"{checkpoint} has no readable tokenizer; save the one it was trained with there, or name another folder"
    try:
        tokenizer = _open(AutoTokenizer.from_pretrained, checkpoint, source)
    except NoCheckpoint:
        raise
    except Exception as error:  # tokenizers raises bare Exceptions
        raise ValueError(f"{message} ({first_line(error)})") from None
    if len(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)) < 2:
        raise ValueError(message)
    if "gguf_file" in source[1]:
        split_as_trained(tokenizer, find_gguf(checkpoint))
    # transformers would save these with the tokenizer
    for option in ("is_local", "local_files_only", "vocab_file"):
        tokenizer.init_kwargs.pop(option, None)
    return tokenizer


def load_config(checkpoint: str | Path, revision: str | None = None):
    """The configuration of a checkpoint's model. ValueError if there is no such checkpoint, or transformers does not
    have its architecture."""
    from transformers import AutoConfig

    source = _locate(checkpoint, revision)
    if Path(checkpoint).is_dir():
        _check_config(Path(checkpoint))
    return _open(AutoConfig.from_pretrained, checkpoint, source)


def load_causal_lm(checkpoint: str | Path, revision: str | None = None, **settings):
    """The causal model of a checkpoint; `settings` are those of transformers. The default `dtype` is the checkpoint's,
    float32 for a GGUF file, to avoid rounding its weights again.

    ValueError if there is no such checkpoint, it is not a causal model or weights are missing; OSError if it is damaged
    or not in safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig, modeling_gguf_pytorch_utils
    from transformers.utils import logging

    logging.disable_progress_bar()
    modeling_gguf_pytorch_utils.tqdm = logging.tqdm  # the module's progress bar can't be switched off
    config = settings.pop("config", None) or load_config(checkpoint, revision)
    check_causal(checkpoint, config)
    source = _locate(checkpoint, revision)
    require_safe(checkpoint)
    settings = {"dtype": "auto", "use_safetensors": True, "config": config} | COMPLETE | settings
    if "gguf_file" in source[1]:
        settings |= {"quantization_config": GgufConfig(dequantize=True)}
        settings["dtype"] = torch.float32 if settings["dtype"] == "auto" else settings["dtype"]
    model, info = _open(AutoModelForCausalLM.from_pretrained, checkpoint, source, **settings)
    check_causal(checkpoint, config, model)
    return require_all_weights(checkpoint, model, info)


def check_checkpoint(checkpoint: str | Path, revision: str | None = None):
    """The configuration of a checkpoint that a training could start from. Its weights are not loaded, so that this
    takes seconds for a model of any size; of a model on the hub only the small files are fetched.

    Raises what `load_causal_lm` and `load_tokenizer` raise, and ValueError for a tokenizer without an end-of-text token
    or with ids beyond the model's embedding."""
    config = load_config(checkpoint, revision)
    check_causal(checkpoint, config)
    require_safe(checkpoint)
    tokenizer = load_tokenizer(checkpoint, revision)
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"{checkpoint}: its tokenizer has no end-of-text token to end documents with; name one as eos_token in "
            "its tokenizer_config.json"
        )
    highest = max(i for token, i in tokenizer.get_vocab().items() if token != tokenizer.pad_token)
    rows = getattr(config.get_text_config(decoder=True), "vocab_size", None)
    if rows and highest >= rows:
        raise ValueError(
            f"{checkpoint}: its tokenizer has ids up to {highest:,}, but its embedding has {rows:,} rows; save the "
            "tokenizer it was trained with there"
        )
    return config


def check_causal(checkpoint: str | Path, config, model=None) -> None:
    """ValueError if transformers has no causal model for the configuration, or the `model` reads ahead."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING as MODELS

    unknown = type(config) not in MODELS and type(config.get_text_config(decoder=True)) not in MODELS
    if unknown or (model is not None and getattr(config, "is_decoder", None) is False and _reads_ahead(model)):
        architecture = (getattr(config, "architectures", None) or [config.model_type])[0]
        raise ValueError(
            f"{checkpoint} is a {architecture}, not a causal language model (left to right); name one that is"
        )


# for `from_pretrained`, which fills in missing weights at random
COMPLETE = {"output_loading_info": True, "ignore_mismatched_sizes": True}


def disable_code_prompt() -> None:
    """Keep transformers from asking on the terminal whether to run a checkpoint's code when `trust_remote_code` is
    unset."""
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0


def require_safe(checkpoint: str | Path) -> None:
    """Check a folder's configuration and safetensors; raises what `load_causal_lm` raises."""
    disable_code_prompt()
    if Path(checkpoint).is_dir():
        _check_config(Path(checkpoint))
        _check_weights(Path(checkpoint))
        require_undamaged(checkpoint, COPY_AGAIN, without=(MOMENTS,))


def require_all_weights(checkpoint: str | Path, model, info: dict):
    """Return the model that `from_pretrained` loaded with `COMPLETE`; ValueError if weights are missing."""
    missing = sorted({*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])})
    if missing:
        raise ValueError(
            f"{checkpoint} is missing {len(missing):,} weights of a {type(model).__name__}, or has them in another "
            f"shape, the first is {missing[0]}; they would be random: save the whole model there, with its config.json"
        )
    return model


def checkpoint_name(checkpoint: str | Path) -> str:
    """A checkpoint's name in manifests and model cards: the folder's name, the GGUF file's name without suffix, or the
    full name on a hub."""
    path = Path(checkpoint)
    if path.is_dir():
        return path.name
    return path.stem if path.suffix.lower() == ".gguf" else str(checkpoint)


def _locate(checkpoint: str | Path, revision: str | None) -> tuple[str, dict]:
    """The name and keyword arguments of a checkpoint for `from_pretrained`, after checking that it exists undamaged."""
    if file := find_gguf(checkpoint):
        read_gguf(file)
        return str(file.parent), {"gguf_file": file.name}
    if Path(checkpoint).is_dir():
        _check_folder(Path(checkpoint))
        require_undamaged(checkpoint, COPY_AGAIN, without=(".safetensors",))
        return str(checkpoint), {}
    if Path(checkpoint).is_file():
        raise ValueError(f"{checkpoint} is a file; name the folder of the model that it belongs to, or a .gguf file")
    if not _on_a_hub(str(checkpoint)):
        raise NoCheckpoint(
            f"{str(checkpoint)!r} is not a folder in {Path.cwd()}, and it is a path, not a name on a hub, so the hub "
            "was not asked"
        )
    return str(checkpoint), {"revision": revision} if revision else {}


def _on_a_hub(name: str) -> bool:
    """Whether a text can be a model's name on a hub, "owner/name" or "name", and is not a path on this machine."""
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        return False
    return "/" not in name or not Path(name).parent.is_dir()


def _open(load, checkpoint: str | Path, source: tuple[str, dict], **settings):
    """Call `load` without remote code; errors in one line: what is wrong, where, what to do."""
    from safetensors import SafetensorError

    name, options = source
    disable_code_prompt()
    try:
        return load(name, trust_remote_code=False, **options, **settings)
    except SafetensorError as error:
        raise OSError(f"the weights of {checkpoint} are damaged ({error}); copy them again") from None
    except Exception as error:
        cause = first_line(error) if first_line(error)[-1:] != ":" else " ".join(str(error).split())[:300]
        if "trust_remote_code" in str(error):
            raise ValueError(_needs_code(checkpoint)) from None
        if "gguf_file" in options:  # an unsupported architecture or quantisation type raises any error
            raise ValueError(
                f"transformers can't read {checkpoint} ({cause}); convert it to a folder of safetensors"
            ) from None
        if Path(checkpoint).is_dir():  # a hostile configuration can raise any error
            kind = OSError if isinstance(error, OSError) else ValueError
            raise kind(f"{checkpoint} can't be opened ({cause}); copy it again, or name another model") from None
        if not isinstance(error, OSError | ValueError):
            raise
        raise NoCheckpoint(
            f"{str(checkpoint)!r} is not a folder in {Path.cwd()}, and no model of that name"
            f"{' and revision ' + options['revision'] if options else ''} is in the local cache or on the Hugging Face "
            f"Hub ({cause})"
        ) from None


def _check_folder(folder: Path) -> None:
    """ValueError for an empty folder, and for an adapter, which is not a whole model."""
    if not any(folder.iterdir()):
        raise ValueError(f"{folder} is empty; copy the checkpoint there, or name another folder")
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = str(_json_object(adapter).get("base_model_name_or_path") or "BASE")
        raise ValueError(
            f"{folder} is an adapter of {base}, not a model; merge the two (pip install peft) and name the folder "
            f"`merged`: {MERGE.format(base=base, folder=str(folder))}"
        )


def _check_config(folder: Path) -> None:
    """ValueError if the folder's config.json is missing, damaged, or names a model that transformers does not have."""
    from transformers import CONFIG_MAPPING, __version__

    path = folder / "config.json"
    if not path.is_file():
        files = sorted(folder.glob("*.gguf"))
        hint = f"; for its GGUF file name {files[0]}" if files else ""
        raise ValueError(
            f"{folder} has no config.json, so it is not a Hugging Face checkpoint{hint or '; copy it whole'}"
        )
    config = _json_object(path)
    _check_sizes(folder, config)
    kind = config.get("model_type")
    if isinstance(kind, str) and kind in CONFIG_MAPPING:
        return
    if config.get("auto_map"):
        raise ValueError(_needs_code(folder))
    raise ValueError(
        f"{path} names the model_type {kind!r}, which transformers {__version__} does not have; correct it, or install "
        "a newer transformers: pip install -U transformers"
    )


def _check_sizes(folder: Path, config: dict) -> None:
    """ValueError for sizes that no model has, for more weights than the files have bits, and for a kernel, which is
    code."""
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for name, value in part.items():
            most = LAYERS if name in ("num_hidden_layers", "num_layers", "n_layer") else LARGEST
            if isinstance(value, int | float) and name.endswith(SIZES) and not 0 <= value <= most:
                raise ValueError(f"{folder}/config.json says {name} {value:.4g}, which no model has; copy it again")
            if name.endswith("attn_implementation") and "/" in str(value):
                raise ValueError(
                    f"{folder}/config.json names the kernel {str(value)[:100]!r}, and code of a checkpoint is never "
                    f"run; delete {name} there"
                )
        width, stored = part.get("hidden_size"), sum(p.stat().st_size for p in folder.glob("*.safetensors"))
        for name in ("vocab_size", "intermediate_size"):
            if (
                stored
                and isinstance(width, int)
                and isinstance(part.get(name), int)
                and width * part[name] > 8 * stored
            ):
                raise ValueError(
                    f"{folder}/config.json says hidden_size {width:,} and {name} {part[name]:,}: more weights than its "
                    f"files of {stored:,} bytes can contain; copy it again"
                )


def _needs_code(checkpoint: str | Path) -> str:
    return (
        f"{checkpoint} needs Python code of its own (auto_map), and code of a checkpoint is never run; use a model "
        "whose architecture transformers has"
    )


def _json_object(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({first_line(error)}); copy it again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is not a JSON object; copy it again")
    return value


def _check_weights(folder: Path) -> None:
    """OSError naming the file if the folder's safetensors are missing or damaged."""
    from safetensors import SafetensorError, safe_open

    names = ["model.safetensors"]
    if not (folder / names[0]).is_file() and (folder / INDEX).is_file():
        try:
            names = sorted({str(name) for name in _json_object(folder / INDEX)["weight_map"].values()})
        except (ValueError, KeyError, AttributeError):
            raise OSError(f"the weights of {folder} are damaged: {INDEX} has no weight_map; copy it again") from None
    missing = [name for name in names if not (folder / name).is_file()]
    if len(names) > 1 and missing:
        raise OSError(
            f"{folder} is missing {len(missing)} of {len(names)} weight files, the first is {missing[0]}; copy it again"
        )
    if missing:
        pickles = sorted(path.name for kind in PICKLES for path in folder.glob(kind))
        raise OSError(
            f"{folder} has its weights only in the pickle {pickles[0]}, which could run code; if you trust it, load it "
            "with transformers and save it as safetensors"
            if pickles
            else f"{folder} has no weights ({missing[0]}); copy it again"
        )
    for name in names:
        try:
            with safe_open(folder / name, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise OSError(f"the weights of {folder} are damaged: {name} ({error}); copy it again") from None


def _reads_ahead(model) -> bool:
    """Whether a token's logits depend on the next token, as in BERT-like models, which transformers also opens as
    causal. Called only if the configuration leaves it open (`is_decoder: false`, which GPT-NeoX has too)."""
    import torch

    with torch.no_grad():
        one, other = (
            model(input_ids=torch.tensor([[5, last]], device=model.device)).logits[0, 0].float() for last in (6, 7)
        )
    return bool((one - other).abs().max() > 1e-4 * one.abs().max())
