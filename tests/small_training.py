"""A small world to train in: a tokenizer, token files, and jobs on them."""

import hashlib
import json
import multiprocessing
from pathlib import Path

import pandas as pd

from qatoolkit.core.qa_table import qa_table
from qatoolkit.evaluation.live_probe import live_probe
from qatoolkit.training.job import Job
from qatoolkit.training.tokens import train_tokenizer, write_tokens
from qatoolkit.training.train import train

QA = [(f"Question: What is {i} plus {j}?\nAnswer:", f" {i + j}") for i in range(60) for j in range(20)]
GENERAL = [f"The number {i} comes after {i - 1} and before {i + 1}, as everyone knows." for i in range(400)]

# A server of processes that has the imports behind it, so that a run starts in a moment and a kill hits the training.
STARTER = multiprocessing.get_context("forkserver")
STARTER.set_forkserver_preload(
    [
        "qatoolkit.training.train",
        "qatoolkit.training.checkpoints",
        "qatoolkit.training.losses",
        "transformers.models.gpt2",
    ]
)


def make_world(folder: Path) -> Path:
    """Tokenizer, QA and general text as token files in `folder`."""
    tokenizer = train_tokenizer([a + b for a, b in QA] + GENERAL, 320)
    tokenizer.save_pretrained(folder / "tokenizer")
    write_tokens(QA, tokenizer, folder / "qa")
    write_tokens(GENERAL, tokenizer, folder / "general")
    return folder


def sums(n: int = 40) -> pd.DataFrame:
    """Sums as multiple-choice questions, half of them of each difficulty and discipline."""
    rows = [
        {
            "question": f"What is {i} plus {j}?",
            "answer": f"{i + j}",
            "choices": [f"{i + j}", f"{i + j + 7}", f"{i + j + 30}"],
            "answer_index": 0,
            "discipline": ("mathematics", "physics")[i % 2],
            "difficulty": ("H1", "H4")[j % 2],
        }
        for i, j in [(i, (7 * i) % 20) for i in range(n)]
    ]
    return qa_table(rows, language="en", source="sums")


def job(world: Path, out: Path, **changes) -> Job:
    """A job of a few seconds in that world."""
    settings = {
        "name": "trunk",
        "size": "xxs",
        "tokenizer": world / "tokenizer",
        "qa": world / "qa",
        "general": world / "general",
        "tokens": 20_000,
        "block": 64,
        "batch": 8,
        "learning_rate": 3e-3,
    } | changes
    if settings.get("start"):
        settings["size"] = None
    return Job(out=str(out), **{k: str(v) if isinstance(v, Path) else v for k, v in settings.items()})


def train_here(jobs: list[Job], **_) -> list[dict]:
    """`train_all` in this process, one job after another: a worker takes longer to load torch than to train one of these."""
    return [train(one, probe=live_probe, log=str) for one in jobs]


# The beginning of code for a process of its own that is to train there.
TRAIN_HERE = """
from qatoolkit.run.stages import training
from small_training import train_here

training.train_all = train_here
"""


def weights(folder: Path) -> str:
    """sha256 of a checkpoint's weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def curve(folder: Path) -> list[dict]:
    """The metrics of a job, step by step."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
