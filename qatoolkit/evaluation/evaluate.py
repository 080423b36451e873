"""Evaluation: exams through lm-eval for every reported number; intervals and paired differences.

Exams are exported as ordinary lm-eval tasks, so the `lm_eval` command gives the same figures.
"""

import contextlib
import io
import logging
import random
import tempfile
import time
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from qatoolkit.evaluation.cloze import check_fit
from qatoolkit.evaluation.samples import COLUMNS, Seeds, keep, key_of, load, model_digest, task_content, tidy
from qatoolkit.evaluation.suites import Asked, leaves, suite_of
from qatoolkit.training.hub import load_tokenizer

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


class TasksUnavailable(RuntimeError):
    """Tasks of a suite could not be loaded; `samples` holds those of the tasks that were evaluated."""

    def __init__(self, message: str, samples: pd.DataFrame):
        super().__init__(message)
        self.samples = samples


def evaluate(
    model: str | Path,
    suite="paper12",
    names: list[str] | None = None,
    *,
    run=None,
    form: str | None = None,
    fewshot: int | None = None,
    limit: int | None = None,
    folder: Path | None = None,
    scorer="hf",
    batch: int | str = 64,
    dtype: str = "float32",
    seeds: Seeds = Seeds(),  # noqa: B008 (frozen)
    log=None,
) -> pd.DataFrame:
    """Run lm-eval on a suite, task by task: one row per sample, `eval_samples.COLUMNS`.

    `model` is a Hugging Face directory or name; `suite`, `names`, `run` and `form` say what is asked (`suites.suite_of`).
    `fewshot` overrides the number of examples of every task that does not fix it at 0; for examples of their own write a folder
    with `export_tasks(examples=)`, which is a suite. `limit` takes the first questions of each. `scorer` is "hf" (lm-eval's
    HFLM, for reported numbers), "fast" (`fast_scorer.FastScorer`) or an lm-eval model of yours, which then is what runs, and
    `model` the name that stands for it. `dtype` is one of `DTYPES`. With `folder` every finished task is kept there and not run
    again while model, task, data, examples, seeds and lm-eval are the same; a kill loses the task under way.

    The result's `attrs["evaluation"]` holds model, seeds, versions and each task's settings, among them `left_out`, how many rows
    of a QA file were not asked, by reason, and `cut`, how many prompts lost their beginning to the model's length (None for an
    lm-eval model of yours). Raises ValueError for an unknown suite, task, model, scorer or dtype, for more examples than there
    are, for a model that lacks weights or gives no numbers, and for an answer that no token is left of; TasksUnavailable, after all others have run, for tasks whose data or packages are missing."""
    if isinstance(scorer, str) and scorer not in ("hf", "fast"):
        raise ValueError(f"scorer {scorer!r} is neither 'hf' nor 'fast', nor an lm-eval model")
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")
    if fewshot is not None and fewshot < 0:
        raise ValueError(f"fewshot is {fewshot}; it is a number of examples, 0 or more")
    if limit is not None and limit <= 0:
        raise ValueError(f"limit is {limit}; it is a number of questions, 1 or more, or None for all")
    _quiet()
    kept, told, lost, machine = [], [], {}, None
    with tempfile.TemporaryDirectory() as workplace:
        found = suite_of(suite, Path(workplace), names=names, run=run, form=form, log=log)
        manager = found.manager()
        work = {name: (asked, spec) for asked in found.asked for name, spec in leaves(manager, asked.task)}
        about = {
            "model": str(model),
            "digest": model_digest(model) if isinstance(scorer, str) else str(model),
            "scorer": scorer if isinstance(scorer, str) else type(scorer).__name__,
            "dtype": dtype,
            "lm_eval": version("lm_eval"),
            "seeds": asdict(seeds),
        }
        for name, (asked, spec) in work.items():
            shots = asked.fewshot if fewshot is None else fewshot
            content = task_content(manager.task_index.get(name), spec)
            fixed = {k: v for k, v in about.items() if k != "model"}
            key = key_of(asked=asdict(asked), config=content, fewshot=shots, limit=limit, **fixed)
            done = load(folder, name, key)
            if done is None and asked.task in lost:
                continue  # the rest of a group that has no data
            if done is None:
                started = time.perf_counter()
                try:
                    with _hushed():
                        [task] = manager.load([spec])["tasks"].values()
                except Exception as error:  # of lm-eval, datasets, the hub, or a task's own code
                    lost[asked.task] = f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
                    continue
                _examples(task, shots)
                machine = machine or _machine(model, scorer, batch, dtype)
                table, cut = _run(machine, task, asked, limit, seeds)
                about_task = {
                    "benchmark": asked.task,
                    "task": name,
                    "version": table["version"].iloc[0],
                    "form": (task.config.metadata or {}).get("form"),
                    "fewshot": int(table["fewshot"].iloc[0]),
                    "cut": cut,
                    "metric": f"{table['metric'].iloc[0]},{table['filter'].iloc[0]}",
                    "n": len(table),
                    "left_out": found.left_out.get(name, {}),
                    "limit": limit,
                    "score": float(table["score"].mean()) if table["score"].notna().any() else None,
                }
                seconds = round(time.perf_counter() - started, 2)
                keep(folder, name, key, table, about_task | about | {"seconds": seconds, "config": content})
                done = table, about_task
                if log:
                    short = f"; {cut:,} prompts lost their beginning to the model's length" if cut else ""
                    log(f"{name}: {len(table):,} questions in {seconds:.1f} s{short}")
            kept.append(done[0])
            told.append({k: done[1].get(k) for k in _TOLD} | {"left_out": found.left_out.get(name, {})})
    samples = pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=COLUMNS)
    samples.attrs["evaluation"] = about | {"suite": found.name, "tasks": told}
    if lost:
        raise TasksUnavailable(_remedy(lost, len(kept), folder), samples)
    return samples


_TOLD = ("benchmark", "task", "version", "form", "fewshot", "cut", "metric", "n", "limit", "score")


def _remedy(lost: dict[str, str], finished: int, folder: Path | None) -> str:
    kept = f"the {finished} finished tasks are in {folder}" if folder else "`samples` of this error holds them"
    return (
        f"{len(lost)} of the suite's tasks could not be loaded ({'; '.join(lost.values())}). Data sets come from the Hugging Face "
        "Hub: run once where it can be reached (HF_HUB_OFFLINE unset; HF_TOKEN for gated ones) or copy its cache ($HF_HOME) "
        f"here; missing packages are named above. Finished: {finished} tasks, {kept}."
    )


def _quiet() -> None:
    """lm-eval logs every default that it takes, and in notebooks the bars of its libraries are widgets that stay."""
    import datasets
    import lm_eval  # noqa: F401 (sets its level on import)
    from transformers.utils import logging as bars

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    bars.disable_progress_bar()


@contextlib.contextmanager
def _hushed():
    """Without the dozen progress bars that lm-eval and its libraries draw for each task; warnings come after."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings(record=True) as caught:
        yield
    for warning in caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _machine(model, scorer, batch, dtype):
    """The lm-eval model that answers."""
    if not isinstance(scorer, str):
        return scorer
    from qatoolkit.evaluation.lm_eval_models import CountingHFLM, FastScorer

    tokenizer = load_tokenizer(model)
    with _hushed():
        machine = {"hf": CountingHFLM, "fast": FastScorer}[scorer](pretrained=str(model), batch_size=batch, dtype=dtype)
    check_fit(model, machine.model, tokenizer)
    return machine


def _examples(task, shots: int | None) -> None:
    """Set how many examples a task shows; ValueError where it has fewer."""
    fixed = task.get_config("num_fewshot")
    if fixed == 0:  # a task that says 0 means it
        return
    shots = (fixed or 0) if shots is None else shots
    task.set_config(key="num_fewshot", value=shots)
    there = getattr(getattr(task, "sampler", None), "df", None)
    if shots and there is not None:
        own = task.fewshot_cfg.split == task.config.test_split  # then no question is its own example
        most = len(there) - own
        if shots > most:
            raise ValueError(
                f"fewshot is {shots}, but task {task.task_name!r} has {max(most, 0)} examples to show: ask for fewer, give it "
                "examples of its own (export_tasks(examples=)), or leave it out by names="
            )


def _run(machine, task, asked: Asked, limit: int | None, seeds: Seeds) -> tuple[pd.DataFrame, int | None]:
    """One task through lm-eval, as `simple_evaluate` runs it, and how many prompts were cut (None: not known). Seeds are set
    before, so that a task's result does not depend on which tasks ran before it."""
    import lm_eval
    import torch

    from qatoolkit.evaluation.lm_eval_models import CountingHFLM

    random.seed(seeds.random)
    np.random.seed(seeds.numpy)
    torch.manual_seed(seeds.torch)
    task.set_fewshot_seed(seed=seeds.fewshot)
    name = task.task_name
    counted = isinstance(machine, CountingHFLM)
    if counted:
        machine.cut = set()
    with _hushed():
        result = lm_eval.evaluate(machine, {"tasks": {name: task}}, limit=limit, log_samples=True, bootstrap_iters=0)
    table = tidy(task, result["samples"][name], asked.task, asked.metric, asked.filter)
    table = table.assign(fewshot=int(result["n-shot"][name]), version=str(result["versions"][name]))
    return table[[*COLUMNS]], len(machine.cut) if counted else None
