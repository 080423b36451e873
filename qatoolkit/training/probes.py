"""Probes during mid-training: at regular token intervals the live model answers labelled questions.

BoostQA introduces model probes during mid-training (its ACL abstract). Their timing, and accuracy and margin by cell,
are our reading. A probe does not change the training.
"""

import json
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from qatoolkit.core.files import write_text
from qatoolkit.training.distributed import Processes
from qatoolkit.training.job import Job
from qatoolkit.training.logging import ProgressLog

PROBES = "probe.jsonl"  # in the job's folder
COLUMNS = ["step", "tokens", "discipline", "difficulty", "n", "accuracy", "margin"]


def read_probes(folder: str | Path) -> pd.DataFrame:
    """The probes of a finished or running training in `folder`: a row per probe and cell with `step` (steps taken so
    far), tokens, discipline, difficulty, n, accuracy and mean margin (nats). Empty if it was not probed."""
    return pd.DataFrame([json.loads(line) for line in _lines(Path(folder) / PROBES)], columns=COLUMNS)


def prepare_probe(probe: Callable | None, job: Job, tokenizer) -> Callable | None:
    """The function that lets a live model answer the job's questions, None for a job without probes. ValueError if the
    job has probes and `probe` is None."""
    if not job.probe_every:
        return None
    if probe is None:
        raise ValueError(
            f"job {job.name!r}: probe_every is {job.probe_every:,}, but nothing here can answer {job.probe}; pass "
            "qatoolkit.evaluation.live_probe.live_probe as `probe`, or set probe_every to 0"
        )
    return probe(job, tokenizer)


@contextmanager
def open_probes(
    job: Job, ask: Callable | None, scored, steps: int, done: int, group: Processes, progress: ProgressLog, log
):
    """Yields a function of (steps taken, tokens seen, tokens of the last step) that probes the model with `ask` if a
    probe is due, and appends a row per cell to `probe.jsonl`; rows that a resumed run will repeat are removed.

    Every process must answer, since each has a shard of the weights; the leader writes."""
    if ask is None:
        yield lambda *_: None
        return
    path = Path(job.out) / PROBES
    if group.leads:
        old = [line for line in _lines(path) if json.loads(line)["step"] <= done] if done else []
        write_text("".join(f"{line}\n" for line in old), path)

    def run(taken: int, seen: int, new: int) -> None:
        if 0 < taken < steps and seen // job.probe_every == (seen - new) // job.probe_every:
            return
        since = time.perf_counter()
        with reading(scored, group) as model:
            cells = ask(model)
        if group.leads:
            rows = [{"step": taken, "tokens": seen} | row for row in cells.to_dict("records")]
            with open(path, "a") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows))
            accuracy = (cells["accuracy"] * cells["n"]).sum() / cells["n"].sum()
            log(f"{job.name}: probe after {seen:,} tokens: accuracy {accuracy:.3f} (n = {cells['n'].sum():,})")
        progress.since += time.perf_counter() - since  # probing time is not training time

    yield run


@contextmanager
def reading(scored, group: Processes):
    """Yields the live model for reading only: in evaluation mode, with transformers' attention, in the dtype of its
    weights. Restores mode, attention and random generators."""
    import torch

    devices, packed = [] if group.device == "cpu" else [group.device], scored.packed_attention
    with torch.random.fork_rng(devices), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        scored.eval()
        scored.packed_attention = False
        if group.count > 1:
            scored.unshard()  # embeddings and head, which FSDP counts to the outer module; layers unshard themselves
        try:
            yield scored.model
        finally:
            if group.count > 1:
                scored.reshard()
            scored.packed_attention = packed
            scored.train()


def _lines(path: Path) -> list[str]:
    """The complete lines of a file, without a last one that a killed process was writing."""
    return path.read_text().rpartition("\n")[0].splitlines() if path.is_file() else []
