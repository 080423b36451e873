"""Releasing a data set: a folder with shards, packed tokens and a card made from the run's records, and its upload."""

import os
import tempfile
from pathlib import Path

import pandas as pd

from qatoolkit.core.cards import save_dataset
from qatoolkit.run.check import record_files
from qatoolkit.run.lineage import cost_per_question
from qatoolkit.run.store import Run


def release(
    run: Run, name: str, folder: str | Path | None = None, *, shard_rows: int | None = None, block: int | None = None
) -> Path:
    """Write a curated data set of a run as a Hugging Face dataset, by default into `export/<name>` of the run's folder,
    and return the folder.

    The card has sources, licences, those of the seeds behind the rows, teachers, prompts, costs, what curation removed
    and why, and how many planted exam questions decontamination found (`curate.controls`). `shard_rows` as in
    `save_dataset`; `block` adds the rows as packed blocks of that many tokens of the run's tokenizer. ValueError for a
    data set that was not curated or is empty; MissingUpstream before curation."""
    stored = run.read("curate")
    if f"{name}_rejects" not in stored or not len(table := getattr(stored, name)):
        sets = sorted(table.removesuffix("_rejects") for table in dir(stored) if table.endswith("_rejects"))
        raise ValueError(f"release: no curated questions of {name!r}; the run curated {', '.join(sets)}")
    folder = Path(folder) if folder else run.folder / "export" / name
    costs = cost_per_question(run) if name in run.profile.data else None
    about = {
        "name": f"{name}, run {run.name}",
        "settings": run.profile.curate,
        "report": stored.report[stored.report["dataset"] == name],
        "origins": _origins(run, table),
        "costs": None if costs is None else costs[costs["dataset"] == name],
        "controls": stored.controls if "controls" in stored else None,
    }
    with tempfile.TemporaryDirectory() as temporary:
        packed = _packed(run, table, Path(temporary) / "packed", block) if block else None
        save_dataset(table, folder, shard_rows=shard_rows, packed=packed, **about)
    if folder.resolve().is_relative_to(run.folder.resolve()):
        record_files(run.folder, [path for path in folder.rglob("*") if path.is_file()])
    return folder


def _origins(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """The seeds that rows were written from, by source and licence: source, licence, seeds, rows."""
    seeds = run.read("annotate").seeds.reindex(columns=["id", "source", "licence"]).fillna("unknown")
    pairs = table[["id", "parents"]].explode("parents").dropna().merge(seeds, left_on="parents", right_on="id")
    found = pairs.groupby(["source", "licence"]).agg(seeds=("parents", "nunique"), rows=("id_x", "nunique"))
    return found.reset_index()


def _packed(run: Run, table: pd.DataFrame, folder: Path, block: int) -> Path:
    from qatoolkit.training.hub import load_tokenizer
    from qatoolkit.training.packed import write_packed

    tokenizer = load_tokenizer(run.place("base", "tokenizer"))
    checkpoint = run.profile.student.checkpoint
    name = "tokenizer" if checkpoint is None or Path(checkpoint).exists() else checkpoint  # never a local path
    write_packed(table, tokenizer, folder, block=block, name=name, holds=run.profile.midtrain.document)
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder


def push_to_hub(folder: str | Path, repository: str, *, private: bool = True) -> str:
    """Upload a folder of `save_dataset` or `release` as a data set on the Hugging Face hub, and return its address.

    `repository` is "owner/name"; if it does not exist it is created, by default private. The token is read from
    HF_TOKEN and written nowhere; HF_ENDPOINT names another hub. ValueError without a token or a card; OSError, in one
    line, if the hub refuses or can't be reached."""
    from huggingface_hub import HfApi

    folder, token = Path(folder), os.environ.get("HF_TOKEN")
    if not (folder / "README.md").is_file() or not any(folder.glob("train*.parquet")):
        raise ValueError(f"push_to_hub: {folder} has no README.md and train*.parquet; qt.save_dataset writes them")
    if not token:
        raise ValueError("push_to_hub: no token: set HF_TOKEN in the environment to one with write access")
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    try:
        made = hub.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=made.repo_id, folder_path=folder, repo_type="dataset", commit_message="Upload with qatoolkit",
            delete_patterns=["train*.parquet", "packed/*"], ignore_patterns=[".*"],
        )  # fmt: skip
    except Exception as error:  # of the hub, the network, or the name
        why = " ".join(str(error).split()).replace(token, "(token)")[:300]
        raise OSError(f"push_to_hub: {repository} at {hub.endpoint}: {why}") from None
    return str(made)
