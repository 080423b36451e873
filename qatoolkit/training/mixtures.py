"""Mixtures of QA sets by ratio: a folder of token files, the share of tokens from each, and a limit of epochs."""

from collections.abc import Mapping
from pathlib import Path

from qatoolkit.core.files import atomic, read_json, write_json
from qatoolkit.training.packing import Packed, Parts, pack
from qatoolkit.training.tokens import Document, open_tokens, write_tokens

MIXTURE_FILE = "mixture.json"  # in a finished folder of token files


def write_mixture(
    documents: Mapping[str, list[Document]],
    shares: Mapping[str, float],
    tokenizer,
    folder: Path,
    *,
    max_epochs: float | None = None,
) -> Path:
    """Write sets of documents as token files in one folder, which a job takes as its `qa` instead of a single token
    file.

    `shares` are ratios of tokens and need not add up to one; `max_epochs` limits how often a set is read. ValueError
    for a set without documents or without a share above 0, and as `write_tokens`."""
    if incomplete := [name for name in {*documents, *shares} if not documents.get(name) or not shares.get(name, 0) > 0]:
        raise ValueError(f"mixture: {sorted(incomplete)[0]!r} needs documents and a share above 0")
    with atomic(Path(folder), over=MIXTURE_FILE) as temporary:
        temporary.mkdir(parents=True)
        for name, texts in documents.items():
            write_tokens(texts, tokenizer, temporary / name)
        total = sum(shares.values())
        about = {"shares": {name: shares[name] / total for name in documents}, "max_epochs": max_epochs}
        write_json(about, temporary / MIXTURE_FILE)
    return Path(folder)


def open_qa(path: str | Path, block: int) -> Packed | Parts:
    """The QA blocks of a job, from a token file or a folder of `write_mixture`. ValueError for anything else."""
    path = Path(path)
    if not (path / MIXTURE_FILE).is_file():
        return pack(open_tokens(path), block)
    about = read_json(path / MIXTURE_FILE)
    sources = {name: pack(open_tokens(path / name), block) for name in about["shares"]}
    return Parts(sources=sources, shares=about["shares"], max_epochs=about["max_epochs"])
