"""Reports of a training run: metrics of every step in a file, progress lines, experiment trackers."""

import importlib
import json
import resource
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from qatoolkit.core.files import TIMING, write_text
from qatoolkit.training.distributed import Processes
from qatoolkit.training.job import Job
from qatoolkit.training.memory_estimate import matmul_rate

EVERY = 5.0  # seconds between two progress lines
TRACKERS = ("tensorboard", "trackio", "wandb")


@contextmanager
def open_metrics(out: Path, done: int, leads: bool):
    """Yields a function that writes a step's row to `metrics.jsonl` immediately; rows of steps that a resumed run will
    repeat are removed. Only the leading process writes."""
    if not leads:
        yield lambda row: None
        return
    path = out / "metrics.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    try:
        old = path.read_text(encoding="utf-8").splitlines()[:done] if done and path.is_file() else []
    except UnicodeDecodeError:
        raise OSError(f"{path} is damaged; delete it: only its metrics are lost, not the training") from None
    write_text("".join(f"{line}\n" for line in old), path)
    with open(path, "a", buffering=1) as file:  # line-buffered
        yield lambda row: file.write(json.dumps(row) + "\n")


class ProgressLog:
    """A progress line every few seconds: loss, tokens per second, MFU, time left; the same figures go to
    `timing.jsonl`.

    MFU is the model's FLOPs per second over those of a large matrix product on the same device, the fastest measured so
    far, since other processes may slow a single measurement down."""

    def __init__(self, job: Job, steps: int, flops_per_token: float, group: Processes, log: Callable[[str], None]):
        self.job, self.steps, self.per_token, self.group, self.log = job, steps, flops_per_token, group, log
        self.since, self.tokens, self.taken, self.ceiling = time.perf_counter(), 0, 0, 0.0

    def step(self, row: dict, tokens: int) -> dict:
        """Count a step of `tokens` tokens; returns the figures if a line is due, else an empty dict."""
        self.tokens, self.taken = self.tokens + tokens, self.taken + 1
        seconds = time.perf_counter() - self.since
        if not self.group.leads or seconds < EVERY:
            return {}
        self.ceiling = max(self.ceiling, matmul_rate())
        rate, left = self.tokens / seconds, (self.steps - row["step"] - 1) * seconds / self.taken
        mfu = rate * self.per_token / self.group.count / self.ceiling
        figures = {"seconds": round(seconds, 3), "tokens_per_second": rate, "mfu": mfu}
        figures["peak_gib"] = peak_gib(self.group.device)
        with open(Path(self.job.out) / TIMING, "a") as file:
            file.write(json.dumps({"step": row["step"]} | figures) + "\n")
        self.log(
            f"{self.job.name}: step {row['step'] + 1:,}/{self.steps:,}, loss {row['loss']:.3f}, {rate:,.0f} tokens/s, "
            f"MFU {mfu:.2f}, at most {figures['peak_gib']:.1f} GiB, {left / 60:,.1f} min left"
        )
        self.since, self.tokens, self.taken = time.perf_counter(), 0, 0
        return figures


def peak_gib(device: str) -> float:
    """Peak memory so far in GiB: of tensors on a GPU, of this process on a CPU."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # ru_maxrss is in KiB
    import torch

    return torch.cuda.max_memory_allocated() / 2**30


def tracker(name: str, job: Job) -> Callable[[dict], None]:
    """A hook for `train` that reports to TensorBoard (files in the job's folder), trackio or wandb (project
    "qatoolkit").

    Raises ValueError for another name, ImportError with the pip line if the package is missing."""
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
