"""Evaluation: exams through lm-eval for every reported number; intervals and paired differences.

Exams are exported as ordinary lm-eval tasks, so the `lm_eval` command gives the same figures.
"""

import contextlib
import io
import os
from pathlib import Path

import numpy as np
import pandas as pd

from qatoolkit.exam_tasks import export_tasks


def wilson(correct: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson 95% interval of a share; (nan, nan) for n = 0."""
    if n == 0:
        return float("nan"), float("nan")
    p, centre = correct / n, (correct + z * z / 2) / (n + z * z)
    half = z * ((p * (1 - p) + z * z / (4 * n)) / n) ** 0.5 / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy(samples: pd.DataFrame, by: list[str] | str | None = None) -> pd.DataFrame:
    """Accuracy with Wilson interval: columns of `by`, n, accuracy, low, high. `samples` has a boolean `correct`."""
    groups = samples.groupby(by, sort=False, observed=True)["correct"] if by else [((), samples["correct"])]
    keys = [by] if isinstance(by, str) else (by or [])
    rows = []
    for key, correct in groups:
        key = key if isinstance(key, tuple) else (key,)
        low, high = wilson(int(correct.sum()), len(correct))
        rows.append(
            dict(zip(keys, key, strict=True))
            | {"n": len(correct), "accuracy": correct.mean(), "low": low, "high": high}
        )
    return pd.DataFrame(rows, columns=[*keys, "n", "accuracy", "low", "high"])


def paired_difference(a: pd.DataFrame, b: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> dict:
    """Mean of `a` minus `b` over the same questions with a paired-bootstrap 95% interval.

    Both have `id` and `correct`; ValueError if they do not hold the same ids. Returns {difference, low, high, n}."""
    joined = a[["id", "correct"]].merge(
        b[["id", "correct"]], on="id", suffixes=("_a", "_b"), validate="one_to_one"
    )
    if not len(joined) == len(a) == len(b):
        raise ValueError(f"paired difference: {len(a)} and {len(b)} samples share only {len(joined)} ids")
    if joined.empty:
        return {"difference": None, "low": None, "high": None, "n": 0}
    gain = joined["correct_a"].to_numpy(float) - joined["correct_b"].to_numpy(float)
    draws = np.random.default_rng(seed).integers(0, len(gain), (resamples, len(gain)))
    low, high = np.quantile(gain[draws].mean(axis=1), [0.025, 0.975])
    return {"difference": float(gain.mean()), "low": float(low), "high": float(high), "n": len(gain)}


def evaluate(model: str | Path, tasks: Path, names: list[str], *, batch: int = 64) -> pd.DataFrame:
    """Run lm-eval on exported tasks: one row per sample with exam, id, discipline, difficulty, correct, answer given."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    import logging

    import lm_eval
    import torch
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from lm_eval.models.huggingface import HFLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    with contextlib.redirect_stderr(io.StringIO()):  # a dozen progress bars for each model
        result = lm_eval.simple_evaluate(
            model=HFLM(pretrained=str(model), batch_size=batch, dtype="float32", device=device),
            tasks=names,
            task_manager=manager,
            log_samples=True,
            bootstrap_iters=0,
        )
    rows = []
    for name in names:
        for sample in result["samples"][name]:
            doc, response = sample["doc"], sample["filtered_resps"]
            open_answer = "choices" not in doc
            rows.append(
                {
                    "exam": name,
                    "id": doc["id"],
                    "discipline": doc["discipline"],
                    "difficulty": doc["difficulty"],
                    "correct": bool(sample["exact_match" if open_answer else "acc"]),
                    "given": response[0]
                    if open_answer
                    else doc["choices"][int(np.argmax([r[0] for r in response]))],
                }
            )
    return pd.DataFrame(rows)
