"""Hugging Face checkpoints, from a folder or by name: safetensors only, no remote code, errors that name the place."""

from pathlib import Path


def load_tokenizer(checkpoint: str | Path):
    """The tokenizer of a checkpoint. ValueError if there is no such checkpoint, or it has no tokenizer, for which
    transformers makes up an empty one with some architectures."""
    from transformers import AutoTokenizer

    none = f"{checkpoint} has no readable tokenizer; save the one it was trained with there, or name another folder"
    try:
        tokenizer = _opened(AutoTokenizer.from_pretrained, checkpoint)
    except (OSError, ValueError) as error:
        if isinstance(error, NoCheckpoint):
            raise
        raise ValueError(f"{none} ({str(error).splitlines()[0]})") from None
    if len(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)) < 2:
        raise ValueError(none)
    # transformers would save how it was loaded
    for how in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(how, None)
    return tokenizer


def load_config(checkpoint: str | Path):
    """The configuration of a checkpoint's model. ValueError if there is no such checkpoint."""
    from transformers import AutoConfig

    return _opened(AutoConfig.from_pretrained, checkpoint)


def load_causal_lm(checkpoint: str | Path, **settings):
    """The causal model of a checkpoint; `settings` are those of transformers, `dtype` is the checkpoint's by default.
    ValueError if there is no such checkpoint or weights are missing, OSError if it is not in safetensors or damaged."""
    from transformers import AutoModelForCausalLM

    settings = {"dtype": "auto", "use_safetensors": True} | COMPLETE | settings
    return complete(checkpoint, *_opened(AutoModelForCausalLM.from_pretrained, checkpoint, **settings))


# for `from_pretrained`, which fills in missing weights at random
COMPLETE = {"output_loading_info": True, "ignore_mismatched_sizes": True}


def complete(checkpoint: str | Path, model, info: dict):
    """The model that `from_pretrained` returned under `COMPLETE`; ValueError if weights are missing."""
    missing = sorted({*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])})
    if missing:
        raise ValueError(
            f"{checkpoint} lacks {len(missing):,} weights of a {type(model).__name__}, or has them in another shape, "
            f"the first is {missing[0]}; they would be random: save the whole model there, with its own config.json"
        )
    return model


def called(checkpoint: str | Path) -> str:
    """A checkpoint's name in manifests and model cards: its folder's name, or its full name on a hub."""
    return Path(checkpoint).name if Path(checkpoint).is_dir() else str(checkpoint)


class NoCheckpoint(ValueError):
    """A checkpoint that is neither a folder nor available by its name."""


def _opened(load, checkpoint: str | Path, **settings):
    from safetensors import SafetensorError

    try:
        return load(str(checkpoint), **settings)
    except SafetensorError as error:
        raise OSError(f"the weights of {checkpoint} are damaged ({error}); copy them again") from None
    except (OSError, ValueError) as error:
        if Path(checkpoint).is_dir():
            raise
        raise NoCheckpoint(
            f"{str(checkpoint)!r} is not a folder in {Path.cwd()}, and no model of that name is in the local cache or "
            f"on the Hugging Face Hub ({str(error).strip().splitlines()[0]})"
        ) from None
