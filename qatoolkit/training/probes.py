"""Probes inside mid-training: every so many tokens the live model answers labelled questions.

BoostQA introduces model probes during mid-training (its ACL abstract). When they are asked, and that they give accuracy
and margin by cell, is our reading. A probe changes nothing that is learned.
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
    """The probes of a training in `folder`, also of a running one: a row per probe and cell with `step` (steps taken so
    far), tokens, discipline, difficulty, n, accuracy and mean margin (nats). Empty if it was not probed."""
    return pd.DataFrame([json.loads(line) for line in _lines(Path(folder) / PROBES)], columns=COLUMNS)


def prepare_probe(probe: Callable | None, job: Job, tokenizer) -> Callable | None:
    """The function of the live model that answers the job's questions, or None for a job that is not probed.
    ValueError if it is to be probed and `probe` is None."""
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
    job: Job, ask: Callable | None, scored, steps: int, done: int, ours: Processes, progress: ProgressLog, log
):
    """Yields a function of (steps taken, tokens seen, tokens of the last step) that probes the model with `ask` if a
    probe is due, and appends a row per cell to `probe.jsonl`; rows that a resumed run repeats are cut off.

    Every process answers, since all hold a part of the weights; the leader writes."""
    if ask is None:
        yield lambda *_: None
        return
    path = Path(job.out) / PROBES
    if ours.leads:
        old = [line for line in _lines(path) if json.loads(line)["step"] <= done] if done else []
        write_text("".join(f"{line}\n" for line in old), path)

    def run(taken: int, seen: int, new: int) -> None:
        if 0 < taken < steps and seen // job.probe_every == (seen - new) // job.probe_every:
            return
        since = time.perf_counter()
        with reading(scored, ours) as model:
            cells = ask(model)
        if ours.leads:
            rows = [{"step": taken, "tokens": seen} | row for row in cells.to_dict("records")]
            with open(path, "a") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows))
            accuracy = (cells["accuracy"] * cells["n"]).sum() / cells["n"].sum()
            log(f"{job.name}: probe after {seen:,} tokens: accuracy {accuracy:.3f} (n = {cells['n'].sum():,})")
        progress.since += time.perf_counter() - since  # a probe is no training

    yield run


@contextmanager
def reading(scored, ours: Processes):
    """The live model, to be read only: in evaluation mode, with transformers' own attention, in the dtype of its weights;
    afterwards mode, attention and random generators are as before."""
    import torch

    devices, packed = [] if ours.device == "cpu" else [ours.device], scored.packed_attention
    with torch.random.fork_rng(devices), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        scored.eval()
        scored.packed_attention = False
        if ours.count > 1:
            scored.unshard()  # embeddings and head, which belong to the module around the model; layers do it themselves
        try:
            yield scored.model
        finally:
            if ours.count > 1:
                scored.reshard()
            scored.packed_attention = packed
            scored.train()


def _lines(path: Path) -> list[str]:
    """The whole lines of a file; what a killed process was writing is left out."""
    return path.read_text().rpartition("\n")[0].splitlines() if path.is_file() else []
