"""Evaluation: exams through lm-eval, for every reported number.

Exams are exported as ordinary lm-eval tasks, so the `lm_eval` command gives the same figures.
"""

import contextlib
import functools
import io
import logging
import random
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from qatoolkit.core.artifacts import Artifact, key_of
from qatoolkit.evaluation.cloze import check_fit
from qatoolkit.evaluation.samples import COLUMNS, RandomSeeds, describe_task, digest_model, keep, load, tidy
from qatoolkit.evaluation.suites import Entry, Suite, list_tasks, resolve_suite
from qatoolkit.training.hub import load_tokenizer

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")
_REPORTED = ("benchmark", "task", "version", "form", "fewshot", "cut", "metric", "n", "limit", "score", "key")


class TasksUnavailable(RuntimeError):
    """Some tasks of a suite could not be loaded; `samples` has those of the tasks that were evaluated."""

    def __init__(self, message: str, samples: pd.DataFrame):
        super().__init__(message)
        self.samples = samples


@dataclass(frozen=True, kw_only=True)
class PlannedTask:
    """One task to run: `spec` is for lm-eval's `TaskManager.load`, `key` the digest of all that the result depends
    on."""

    name: str
    entry: Entry
    spec: str | dict
    config: dict
    fewshot: int | None
    limit: int | None
    key: str


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
    seeds: RandomSeeds = RandomSeeds(),  # noqa: B008 (frozen)
    log=None,
) -> pd.DataFrame:
    """Run lm-eval on a suite, task by task: one row per sample, with the columns `samples.COLUMNS`.

    `model` is a Hugging Face directory or name. `suite`, `names`, `run` and `form` choose the tasks (`resolve_suite`).
    `fewshot` overrides the number of examples of every task, except tasks that fix it at 0; for examples of your own,
    write a folder with `export_tasks(examples=)` and pass it as the suite. `limit` keeps the first questions of each
    task. `scorer` is "hf" (lm-eval's HFLM, for reported numbers), "fast" (`lm_eval_models.FastScorer`), or an lm-eval
    model of your own; then that model runs, and `model` is only its name. `dtype` is one of `DTYPES`.

    With `folder`, every finished task becomes an artifact `folder/KEY` and is not run again while model, task, data,
    examples, seeds and lm-eval stay the same; a kill loses only the task being run.

    The result's `attrs["evaluation"]` has the model, seeds, versions and, for each task, its settings, `left_out` (rows
    of a QA file that were not asked, by reason) and `cut` (prompts that lost their beginning to the model's length;
    None for an lm-eval model of your own).

    Raises ValueError for an unknown suite, task, model, scorer or dtype, for more examples than a task has, for a model
    that lacks weights or produces NaN, and for an answer of zero tokens. Raises TasksUnavailable for tasks whose data
    or packages are missing, after all others have run."""
    if isinstance(scorer, str) and scorer not in ("hf", "fast"):
        raise ValueError(f"scorer {scorer!r} is neither 'hf' nor 'fast', nor an lm-eval model")
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")
    if fewshot is not None and fewshot < 0:
        raise ValueError(f"fewshot is {fewshot}; it is a number of examples, 0 or more")
    if limit is not None and limit <= 0:
        raise ValueError(f"limit is {limit}; it is a number of questions, 1 or more, or None for all")
    _silence_libraries()
    finished, failed = [], {}
    load_once = functools.cache(lambda: load_lm(model, scorer, batch, dtype))
    with tempfile.TemporaryDirectory() as temporary:
        workplace = Path(temporary)
        found = resolve_suite(suite, workplace, names=names, run=run, form=form, log=log)
        manager = found.manager()
        about = {
            "model": str(model),
            "digest": digest_model(model) if isinstance(scorer, str) else str(model),
            "scorer": scorer if isinstance(scorer, str) else type(scorer).__name__,
            "dtype": dtype,
            "lm_eval": version("lm_eval"),
            "seeds": asdict(seeds),
        }
        kept = Path(folder or workplace / "finished")
        for planned in plan_tasks(found, manager, about, fewshot=fewshot, limit=limit):
            artifact = Artifact(kept.parent, kept.name, planned.key)
            if artifact.manifest is None:
                if planned.entry.task in failed:
                    continue  # the rest of a group whose data is missing
                started = time.perf_counter()
                try:
                    with no_progress_bars():
                        [task] = manager.load([planned.spec])["tasks"].values()
                except Exception as error:  # from lm-eval, datasets, the hub, or the task's own code
                    message = " ".join(str(error).split())[:300]
                    failed[planned.entry.task] = f"{planned.name}: {type(error).__name__}: {message}"
                    continue
                _set_examples(task, planned.fewshot)
                table, record = run_task(planned, task, load_once(), seeds)
                seconds = round(time.perf_counter() - started, 2)
                more = {"left_out": found.left_out.get(planned.name, {}), "seconds": seconds, "config": planned.config}
                keep(artifact, table, record | about | more)
                if log:
                    cut = f"; {n:,} prompts lost their beginning to the model's length" if (n := record["cut"]) else ""
                    log(f"{planned.name}: {len(table):,} questions in {seconds:.1f} s{cut}")
            finished.append(load(artifact))
    samples = collect(found, finished, about)
    if failed:
        raise TasksUnavailable(_remedy(failed, len(finished), folder), samples)
    return samples


def plan_tasks(suite: Suite, manager, about: dict, *, fewshot: int | None, limit: int | None) -> list[PlannedTask]:
    """The single tasks of a suite in order, each with its key. `about` describes model, scorer and seeds; the model's
    path or name is not part of the key, its digest is."""
    same_model = {k: v for k, v in about.items() if k != "model"}
    planned = {}
    for entry in suite.entries:
        shots = entry.fewshot if fewshot is None else fewshot
        for name, spec in list_tasks(manager, entry.task):
            config = describe_task(manager.task_index.get(name), spec)
            content = {"task": name, "entry": entry, "config": config, "fewshot": shots, "limit": limit} | same_model
            planned[name] = PlannedTask(
                name=name, entry=entry, spec=spec, config=config, fewshot=shots, limit=limit, key=key_of(content)
            )
    return list(planned.values())


def run_task(planned: PlannedTask, task, lm, seeds: RandomSeeds) -> tuple[pd.DataFrame, dict]:
    """Run one loaded task as lm-eval's `simple_evaluate` does: its samples and its record.

    Seeds are set first, so the result does not depend on which tasks ran before."""
    import lm_eval
    import torch

    from qatoolkit.evaluation.lm_eval_models import CountingHFLM

    random.seed(seeds.random)
    np.random.seed(seeds.numpy)
    torch.manual_seed(seeds.torch)
    task.set_fewshot_seed(seed=seeds.fewshot)
    counts_cuts = isinstance(lm, CountingHFLM)
    if counts_cuts:
        lm.cut = set()
    with no_progress_bars():
        result = lm_eval.evaluate(
            lm, {"tasks": {task.task_name: task}}, limit=planned.limit, log_samples=True, bootstrap_iters=0
        )
    table = tidy(task, result, planned.entry)
    first = table.iloc[0]
    return table, {
        "benchmark": planned.entry.task,
        "task": planned.name,
        "version": first["version"],
        "form": (task.config.metadata or {}).get("form"),
        "fewshot": int(first["fewshot"]),
        "cut": len(lm.cut) if counts_cuts else None,
        "metric": f"{first['metric']},{first['filter']}",
        "n": len(table),
        "limit": planned.limit,
        "score": float(table["score"].mean()) if table["score"].notna().any() else None,
    }


def collect(suite: Suite, finished: list[tuple[pd.DataFrame, dict]], about: dict) -> pd.DataFrame:
    """The samples of finished tasks in one table, described in `attrs["evaluation"]`."""
    tables = [table for table, _ in finished] or [pd.DataFrame(columns=COLUMNS)]
    samples = pd.concat(tables, ignore_index=True)
    tasks = [{k: m.get(k) for k in _REPORTED} | {"left_out": suite.left_out.get(m["task"], {})} for _, m in finished]
    samples.attrs["evaluation"] = about | {"suite": suite.name, "tasks": tasks}
    return samples


def _remedy(failed: dict[str, str], finished: int, folder: Path | None) -> str:
    where = f"the {finished} finished tasks are in {folder}" if folder else "`samples` of this error has them"
    return (
        f"{len(failed)} of the suite's tasks could not be loaded ({'; '.join(failed.values())}). Data sets come from "
        "the Hugging Face Hub: run once where it can be reached (HF_HUB_OFFLINE unset; HF_TOKEN for gated ones) or "
        f"copy its cache ($HF_HOME) here; missing packages are named above. Finished: {finished} tasks, {where}."
    )


def _silence_libraries() -> None:
    """lm-eval logs every default it uses, and in notebooks the progress bars of its libraries are widgets that stay."""
    import datasets
    import lm_eval  # noqa: F401 (sets its level on import)
    from transformers.utils import logging as bars

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    bars.disable_progress_bar()


@contextlib.contextmanager
def no_progress_bars():
    """Drop the progress bars that lm-eval and its libraries print to stderr for each task; show warnings after."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings(record=True) as caught:
        yield
    for warning in caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def load_lm(model, scorer, batch, dtype):
    """The lm-eval model that answers."""
    if not isinstance(scorer, str):
        return scorer
    from qatoolkit.evaluation.lm_eval_models import CountingHFLM, FastScorer

    tokenizer = load_tokenizer(model)
    with no_progress_bars():
        lm = {"hf": CountingHFLM, "fast": FastScorer}[scorer](pretrained=str(model), batch_size=batch, dtype=dtype)
    check_fit(model, lm.model, tokenizer)
    return lm


def _set_examples(task, shots: int | None) -> None:
    """Set how many examples a task shows; ValueError if it has fewer."""
    fixed = task.get_config("num_fewshot")
    if fixed == 0:  # such a task is meant to be asked without examples
        return
    shots = (fixed or 0) if shots is None else shots
    task.set_config(key="num_fewshot", value=shots)
    pool = getattr(getattr(task, "sampler", None), "df", None)
    if shots and pool is not None:
        own = task.fewshot_cfg.split == task.config.test_split  # then a question is never its own example
        most = len(pool) - own
        if shots > most:
            raise ValueError(
                f"fewshot is {shots}, but task {task.task_name!r} has {max(most, 0)} examples to show: ask for fewer, "
                "give it examples of its own (export_tasks(examples=)), or leave it out by names="
            )
