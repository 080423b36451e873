"""Experiment trackers as one hook: a function that takes a step's metrics. None is needed, for `metrics.jsonl` is always written."""

import importlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from qatoolkit.recipe import Job

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
    module.init(project="qatoolkit", name=job.name, config=asdict(job))
    return lambda row: module.log(row, step=row["step"])
