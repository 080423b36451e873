"""What a training run reports: every step's metrics in a file, a line of progress every few seconds, and experiment trackers."""

import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from qatoolkit.core.files import TIMING, atomic
from qatoolkit.training.distributed import Processes
from qatoolkit.training.job import Job
from qatoolkit.training.memory_estimate import matmul_rate

TOLD = 5.0  # seconds between two lines of progress


class Metrics:
    """`metrics.jsonl`: one line a step, written as it comes. Lines of steps that a resumed run takes again are cut off."""

    def __init__(self, out: Path, done: int, leads: bool):
        self.path, self.leads = out / "metrics.jsonl", leads
        if leads:
            out.mkdir(parents=True, exist_ok=True)
            old = self.path.read_text().splitlines()[:done] if done else []
            with atomic(self.path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in old))

    def __enter__(self):
        self._file = open(self.path, "a") if self.leads else None
        return self

    def add(self, row: dict) -> None:
        if self._file:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()

    def __exit__(self, *_):
        if self._file:
            self._file.close()


class Telling:
    """Lines of progress every few seconds: loss, tokens a second, MFU, time left; the same figures go to `timing.jsonl`.

    MFU is the model's FLOPs per second over those of a large matrix product on the same device: the fastest seen so far, for
    other work may slow one down."""

    def __init__(self, job: Job, steps: int, flops_per_token: float, ours: Processes, log: Callable[[str], None]):
        self.job, self.steps, self.per_token, self.ours, self.log = job, steps, flops_per_token, ours, log
        self.since, self.tokens, self.taken, self.ceiling = time.perf_counter(), 0, 0, 0.0

    def step(self, row: dict, tokens: int) -> dict:
        """Count a step of `tokens` tokens; where it is time to tell, the figures told, else nothing."""
        self.tokens, self.taken = self.tokens + tokens, self.taken + 1
        seconds = time.perf_counter() - self.since
        if not self.ours.leads or seconds < TOLD:
            return {}
        self.ceiling = max(self.ceiling, matmul_rate("fp32" if self.ours.device == "cpu" else "bf16"))
        rate, left = self.tokens / seconds, (self.steps - row["step"] - 1) * seconds / self.taken
        mfu = rate * self.per_token / self.ours.count / self.ceiling
        told = {"seconds": round(seconds, 3), "tokens_per_second": rate, "mfu": mfu}
        if self.ours.device != "cpu":
            import torch

            told["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        with open(Path(self.job.out) / TIMING, "a") as file:
            file.write(json.dumps({"step": row["step"]} | told) + "\n")
        self.log(
            f"{self.job.name}: step {row['step'] + 1:,}/{self.steps:,}, loss {row['loss']:.3f}, {rate:,.0f} tokens/s, "
            f"MFU {mfu:.2f}, {left / 60:,.1f} min left"
        )
        self.since, self.tokens, self.taken = time.perf_counter(), 0, 0
        return told


TRACKERS = ("tensorboard", "trackio", "wandb")


def tracker(name: str, job: Job) -> Callable[[dict], None]:
    """A hook for `train` that reports to TensorBoard (files in the job's folder), trackio or wandb (project "qatoolkit").

    Raises ValueError for another name, ImportError with the pip line where the package is missing."""
    if name not in TRACKERS:
        raise ValueError(f"tracker is {name!r}; it must be one of {', '.join(TRACKERS)}")
    try:
        module = importlib.import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
    except ImportError:
        raise ImportError(f"the tracker {name} is not installed: pip install {name}") from None
    if name == "tensorboard":
        writer = module.SummaryWriter(Path(job.out) / "tensorboard")

        def report(row: dict) -> None:
            for key in row.keys() - {"step"}:
                writer.add_scalar(key, row[key], row["step"])
            writer.flush()

        return report
    module.init(project="qatoolkit", name=job.name, config=dict(job))
    return lambda row: module.log(row, step=row["step"])
