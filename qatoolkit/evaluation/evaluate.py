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
from qatoolkit.evaluation.samples import (
    COLUMNS,
    VERSION,
    RandomSeeds,
    describe_task,
    digest_model,
    keep,
    load,
    sample_id,
    tidy,
)
from qatoolkit.evaluation.suites import Entry, Suite, list_tasks, resolve_suite
from qatoolkit.training.hub import check_causal, load_config, load_tokenizer

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")
_REPORTED = (
    "benchmark", "task", "version", "form", "fewshot", "cut", "unfinished", "not_asked", "metric", "n", "limit", "score",
    "key",
)  # fmt: skip


class TasksUnavailable(RuntimeError):
    """Some tasks of a suite could not be loaded; `samples` has the samples of the other tasks, if any."""

    def __init__(self, message: str, samples: pd.DataFrame | None = None):
        super().__init__(message)
        self.samples = samples


@dataclass(frozen=True, kw_only=True)
class PlannedTask:
    """One task to run: `spec` is for lm-eval's `TaskManager.load`, `key` the digest of everything that the result
    depends on."""

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
    batch: int | str | None = None,
    dtype: str = "float32",
    seeds: RandomSeeds = RandomSeeds(),  # noqa: B008 (frozen)
    log=None,
) -> pd.DataFrame:
    """Run lm-eval on a suite, task by task: one row per sample, with the columns `samples.COLUMNS`.

    `model` is a Hugging Face directory or name. `suite`, `names`, `run` and `form` select the tasks (`resolve_suite`).
    `fewshot` overrides the number of examples of every task, except tasks that fix it at 0; for your own examples,
    write a folder with `export_tasks(examples=)` and pass it as the suite. `limit` takes the first questions of each
    task. `scorer` is "hf" (lm-eval's HFLM, for reported numbers), "fast" (`lm_eval_models.FastScorer`), or your own
    lm-eval model, for which `model` is only the name. `dtype` is one of `DTYPES`.

    With `folder`, every finished task becomes an artifact `folder/KEY` and is not run again while model, task, data,
    examples, seeds and lm-eval stay the same; a kill loses only the task being run.

    The result's `attrs["evaluation"]` has the model, seeds, versions and, for each task, its settings, `left_out` (rows
    of a QA file that were not asked, by reason), `cut` (prompts truncated on the left to the model's context),
    `unfinished` (replies that reached their limit of tokens) and `not_asked` (ids of questions with a choice longer
    than the model's context; they have no sample); the last three are None for your own lm-eval model.

    Raises ValueError for an unknown suite, task, model, scorer or dtype, for more examples than a task has, for a model
    that is not causal, has no end-of-text token, missing weights or NaN outputs, for an answer of zero tokens, and for
    a task without a question that can be asked. Raises TasksUnavailable for tasks whose data or packages are missing,
    after all others have run."""
    examinee = Examinee(model, scorer=scorer, batch=batch, dtype=dtype, seeds=seeds, folder=folder, log=log)
    check_counts(fewshot, limit)
    with tempfile.TemporaryDirectory() as workplace:
        found = resolve_suite(suite, Path(workplace), names=names, run=run, form=form, log=log)
        return examinee.answer(found, fewshot=fewshot, limit=limit)


class Examinee:
    """A model that answers suites; loaded when the first unfinished task needs it. Arguments and errors are those of
    `evaluate`."""

    def __init__(self, model, *, scorer="hf", batch=None, dtype="float32", seeds=RandomSeeds(), folder=None, log=None):  # noqa: B008
        if isinstance(scorer, str) and scorer not in ("hf", "fast"):
            raise ValueError(f"scorer is {scorer!r}; it must be 'hf', 'fast' or an lm-eval model")
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
        self.seeds, self.folder, self.log = seeds, folder, log or (lambda message: None)
        self.lm = functools.cache(lambda: load_lm(model, scorer, batch, dtype))
        self.about = {
            "model": str(model),
            "digest": digest_model(model) if isinstance(scorer, str) else str(model),
            "scorer": scorer if isinstance(scorer, str) else type(scorer).__name__,
            "dtype": dtype,
            "lm_eval": version("lm_eval"),
            "samples": VERSION,
            "seeds": asdict(seeds),
        }

    def answer(self, suite: Suite, *, fewshot: int | None = None, limit: int | None = None) -> pd.DataFrame:
        """The samples of a suite, as `evaluate` returns them."""
        silence_libraries()
        finished, failed, manager = [], {}, suite.manager()
        with tempfile.TemporaryDirectory() as temporary:
            kept = Path(self.folder or Path(temporary) / "finished")
            for planned in plan_tasks(suite, manager, self.about, fewshot=fewshot, limit=limit):
                artifact = Artifact(kept.parent, kept.name, planned.key)
                if artifact.manifest is None:
                    if planned.entry.task in failed:
                        continue  # another task of a group whose data is missing
                    started = time.perf_counter()
                    try:
                        task = load_task(manager, planned)
                    except Exception as error:  # from lm-eval, datasets, the hub, or the task's own code
                        failed[planned.entry.task] = describe_failure(planned, error)
                        continue
                    _set_examples(task, planned.fewshot)
                    table, record = run_task(planned, task, self.lm(), self.seeds)
                    seconds = round(time.perf_counter() - started, 2)
                    more = {"left_out": suite.left_out.get(planned.name, {}), "seconds": seconds}
                    keep(artifact, table, record | self.about | more | {"config": planned.config})
                    self.log(f"{planned.name}: {len(table):,} questions in {seconds:.1f} s{_describe_losses(record)}")
                finished.append(load(artifact))
        samples = collect(suite, finished, self.about)
        if failed:
            raise TasksUnavailable(_remedy(failed, len(finished), self.folder), samples)
        return samples


def check_counts(fewshot: int | None, limit: int | None) -> None:
    """ValueError for an impossible number of examples or questions."""
    if fewshot is not None and fewshot < 0:
        raise ValueError(f"fewshot is {fewshot}; it must be a number of examples, 0 or more")
    if limit is not None and limit <= 0:
        raise ValueError(f"limit is {limit}; it must be a number of questions, 1 or more, or None for all")


def plan_tasks(suite: Suite, manager, about: dict, *, fewshot: int | None, limit: int | None) -> list[PlannedTask]:
    """The single tasks of a suite in order, each with its key. `about` describes model, scorer and seeds; the key
    contains the model's digest, not its path or name."""
    check_counts(fewshot, limit)
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


def load_task(manager, planned: PlannedTask):
    """Load a planned task with its data by lm-eval; raises whatever its data or code raise."""
    with no_progress_bars():
        [task] = manager.load([planned.spec])["tasks"].values()
    return task


def describe_failure(planned: PlannedTask, error: Exception) -> str:
    """The reason why a task could not be loaded, in one line."""
    return f"{planned.name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def run_task(planned: PlannedTask, task, lm, seeds: RandomSeeds) -> tuple[pd.DataFrame, dict]:
    """Run one loaded task as lm-eval's `simple_evaluate` does; returns its samples and its record. Seeds are set first,
    so the result does not depend on which tasks ran before."""
    import lm_eval
    import torch

    from qatoolkit.evaluation.lm_eval_models import CountingHFLM

    random.seed(seeds.random)
    np.random.seed(seeds.numpy)
    torch.manual_seed(seeds.torch)
    task.set_fewshot_seed(seed=seeds.fewshot)
    counts = isinstance(lm, CountingHFLM)
    if counts:
        lm.start_counts()
    with no_progress_bars():
        result = lm_eval.evaluate(
            lm, {"tasks": {task.task_name: task}}, limit=planned.limit, log_samples=True, bootstrap_iters=0
        )
    not_asked = _leave_out(task, result, lm.unasked) if counts else None
    table = tidy(task, result, planned.entry, lm.lengths if counts else None)
    first = table.iloc[0]
    return table, {
        "benchmark": planned.entry.task,
        "task": planned.name,
        "version": first["version"],
        "form": (task.config.metadata or {}).get("form"),
        "fewshot": int(first["fewshot"]),
        "cut": len(lm.cut) if counts else None,
        "unfinished": lm.unfinished if counts else None,
        "not_asked": not_asked,
        "metric": f"{first['metric']},{first['filter']}",
        "n": len(table),
        "limit": planned.limit,
        "score": float(table["score"].mean()) if table["score"].notna().any() else None,
    }


def _leave_out(task, result: dict, unasked: set) -> list[str]:
    """Remove from `result` the samples of questions with an unasked request; returns the ids of these questions."""
    logged = result["samples"][task.task_name]
    long = (
        {sample["doc_id"] for sample in logged if unasked.intersection(map(tuple, sample["arguments"]))}
        if unasked
        else ()
    )
    ids = {s["doc_id"]: sample_id(task, s["doc_id"], s["doc"]) for s in logged if s["doc_id"] in long}
    result["samples"][task.task_name] = [sample for sample in logged if sample["doc_id"] not in ids]
    if len(ids) and not result["samples"][task.task_name]:
        raise ValueError(
            f"task {task.task_name!r}: every question has a choice that is longer than the model's context; leave the "
            "task out, or use another model"
        )
    return list(ids.values())


def _describe_losses(record: dict) -> str:
    losses = []
    if record["cut"]:
        losses.append(f"; {record['cut']:,} prompts were truncated on the left to the model's context")
    if record["unfinished"]:
        losses.append(f"; {record['unfinished']:,} replies reached their limit of tokens")
    if ids := record["not_asked"]:
        named = ", ".join(ids[:5]) + " ..." * (len(ids) > 5)
        losses.append(f"; {len(ids):,} not asked, since a choice is longer than the model's context: {named}")
    return "".join(losses)


def collect(suite: Suite, finished: list[tuple[pd.DataFrame, dict]], about: dict) -> pd.DataFrame:
    """Concatenate the samples of finished tasks; `attrs["evaluation"]` describes them."""
    tables = [table for table, _ in finished] or [pd.DataFrame(columns=COLUMNS)]
    samples = pd.concat(tables, ignore_index=True)
    tasks = [{k: m.get(k) for k in _REPORTED} | {"left_out": suite.left_out.get(m["task"], {})} for _, m in finished]
    samples.attrs["evaluation"] = about | {"suite": suite.name, "tasks": tasks}
    return samples


def _remedy(failed: dict[str, str], finished: int, folder: Path | None) -> str:
    where = f"in {folder}" if folder else "in `samples` of this error"
    return (
        f"{len(failed)} of the suite's tasks could not be loaded ({'; '.join(failed.values())}). Data sets come from "
        "the Hugging Face Hub: run once where it can be reached (HF_HUB_OFFLINE unset; HF_TOKEN for gated ones) or "
        f"copy its cache ($HF_HOME) here; missing packages are named above. Finished: {finished} tasks, {where}."
    )


def silence_libraries() -> None:
    """Silence lm-eval, which logs every default, and progress bars, which in notebooks are widgets that stay."""
    import datasets
    import lm_eval  # noqa: F401 (sets its level on import)
    from transformers.utils import logging as bars

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    bars.disable_progress_bar()


@contextlib.contextmanager
def no_progress_bars():
    """Discard the progress bars that lm-eval and its libraries print to stderr; warnings are shown afterwards."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings(record=True) as caught:
        yield
    for warning in caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def load_lm(model, scorer, batch, dtype):
    """The lm-eval model for a scorer name, or `scorer` itself if it is one."""
    if not isinstance(scorer, str):
        return scorer
    from qatoolkit.evaluation.lm_eval_models import CountingHFLM, FastScorer

    tokenizer, config = load_tokenizer(model), load_config(model)
    check_causal(model, config)
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer of {model} has no end-of-text token, so nothing can be asked or written with it; name one "
            "as eos_token in its tokenizer_config.json"
        )
    with no_progress_bars():
        lm = {"hf": CountingHFLM, "fast": FastScorer}[scorer](pretrained=str(model), batch_size=batch, dtype=dtype)
    check_causal(model, config, lm.model)
    check_fit(model, lm.model, tokenizer)
    return lm


def _set_examples(task, shots: int | None) -> None:
    """Set how many examples a task shows; ValueError if it has fewer."""
    fixed = task.get_config("num_fewshot")
    if fixed == 0:  # a task that is meant to be asked without examples
        return
    shots = (fixed or 0) if shots is None else shots
    task.set_config(key="num_fewshot", value=shots)
    pool = getattr(getattr(task, "sampler", None), "df", None)
    if shots and pool is not None:
        from_test = task.fewshot_cfg.split == task.config.test_split  # then a question is not its own example
        most = len(pool) - from_test
        if shots > most:
            raise ValueError(
                f"fewshot is {shots}, but task {task.task_name!r} has {max(most, 0)} examples to show: ask for fewer, "
                "give it other examples (export_tasks(examples=)), or leave it out by names="
            )
