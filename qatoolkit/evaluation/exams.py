"""Exams by names of one's own: QA tables and lm-eval tasks side by side, and an exam in two parts, one to probe with and
one kept sealed for the result."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from qatoolkit.core.bounds import check_name
from qatoolkit.core.stats import CELL
from qatoolkit.core.text import normalise
from qatoolkit.evaluation.evaluate import Examinee, TasksUnavailable, check_counts
from qatoolkit.evaluation.suites import Suite, resolve_suite


@dataclass(frozen=True, kw_only=True)
class Exam:
    """An exam under the user's name for it: a QA table, or `suite`, what `resolve_suite` takes ("arc_easy", "paper12", a
    folder of task YAMLs, a file). `form` is for tables and files. `fewshot`, `metric`, `filter` and `limit` (the first
    questions of each task) hold for all of its tasks, None leaves them to the suite. `keep` are the ids whose samples count.

    ValueError for a name that cannot be a folder's (`check_name`), for both or neither of table and suite, and for counts that can't be."""

    name: str
    table: pd.DataFrame | None = None
    suite: str | Path | Suite | None = None
    form: str | None = None
    metric: str | None = None
    filter: str | None = None
    fewshot: int | None = None
    limit: int | None = None
    keep: frozenset[str] | None = None

    def __post_init__(self):
        check_name(self.name, "exam", "a folder")
        if (self.table is None) == (self.suite is None):
            raise ValueError(f"exam {self.name!r} needs a QA table or a suite, one of the two")
        check_counts(self.fewshot, self.limit)

    def resolve(self, workplace: Path, *, log=None) -> Suite:
        """The exam's tasks; those of a table are written to `workplace/NAME/tasks`. Errors as in `resolve_suite`."""
        what = {self.name: self.table} if self.suite is None else self.suite
        found = resolve_suite(what, Path(workplace) / self.name, form=self.form, log=log)
        changes = {k: v for k in ("fewshot", "metric", "filter") if (v := getattr(self, k)) is not None}
        return replace(found, entries=tuple(replace(entry, **changes) for entry in found.entries))


def evaluate_exams(model: str | Path, exams: Sequence[Exam], *, workplace: Path, log=None, **options) -> pd.DataFrame:
    """Samples of a model on a mixture of exams: those of `evaluate`, with a column `exam` before `task`.

    `options` are those of `Examinee`: folder, scorer, batch, dtype, seeds. The model is loaded once. Tables become tasks
    in `workplace`, which `lm_eval --include_path` reads; with `folder`,
    finished tasks are kept there, also for another exam that asks the same. Ids are unique within an exam.
    `attrs["evaluation"]` is that of `evaluate`, each of its tasks with its exam; `n` and `score` count what is kept.

    Raises the errors of `evaluate`, TasksUnavailable after all other exams have run, and ValueError for two exams of one
    name, for a metric that no task of the exam has, and for a `keep` without a sample."""
    names = [exam.name for exam in exams]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two exams are called {min(twice)!r}; rename one")
    if not exams:
        raise ValueError("there is no exam to evaluate on: name at least one")
    suites = [exam.resolve(workplace, log=log) for exam in exams]  # all of them first, since they may be wrong
    examinee = Examinee(model, log=log, **options)
    found, failures = [], []
    for exam, suite in zip(exams, suites, strict=True):
        try:
            samples = examinee.answer(suite, limit=exam.limit)
        except TasksUnavailable as error:
            failures.append(f"{exam.name}: {error}")
            samples = error.samples
        found.append(_kept(exam, samples))
    together = pd.concat(found, ignore_index=True)
    tasks = [task for samples in found for task in samples.attrs["evaluation"]["tasks"]]
    together.attrs["evaluation"] = examinee.about | {"suite": ",".join(names), "tasks": tasks}
    if failures:
        raise TasksUnavailable("; ".join(failures), together)
    return together


def _kept(exam: Exam, samples: pd.DataFrame) -> pd.DataFrame:
    """An exam's samples under its name, those of `keep` only, and their tasks."""
    about = samples.attrs["evaluation"]
    if exam.metric and len(samples) and exam.metric not in set(samples["metric"]):
        known = sorted({name.split(",")[0] for row in samples["scores"] for name in json.loads(row)})
        raise ValueError(f"exam {exam.name!r} has no metric {exam.metric!r}; its tasks have {', '.join(known)}")
    if exam.keep is not None and len(samples):
        samples = samples[samples["id"].isin(exam.keep)]
        if samples.empty:
            raise ValueError(f"exam {exam.name!r}: none of the {len(exam.keep):,} ids to keep is in its samples")
    samples = samples.copy()
    samples.insert(samples.columns.get_loc("task"), "exam", exam.name)
    scores, tasks = samples.groupby("task")["score"], []
    for task in about["tasks"]:
        if task["task"] in scores.groups:
            own = scores.get_group(task["task"])
            score = float(own.mean()) if own.notna().any() else None
            tasks.append({"exam": exam.name} | task | {"n": len(own), "score": score})
    samples.attrs["evaluation"] = about | {"tasks": tasks}
    return samples


def split_exam(table: pd.DataFrame, share: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(part to probe with, sealed part) of an exam: about `share` of its questions and the rest, in the table's order.

    Rows whose normalised question (`core.text.normalise`) is the same go to one side. Questions are stratified by
    discipline and difficulty, unlabelled ones together, and drawn by a hash of seed and question, so that the split does
    not depend on the order of the rows. Our reading: the papers probe and evaluate on different benchmarks.

    ValueError for a share that is not between 0 and 1, and for an exam too small to have both parts."""
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; it must lie between 0 and 1, both excluded")
    question = table["question"].map(normalise)
    labels = table.reindex(columns=CELL).astype(object).fillna("").agg("/".join, axis=1)
    order = question.map(lambda text: hashlib.sha256(f"{seed}/{text}".encode()).hexdigest())
    strata = pd.DataFrame({"question": question, "labels": labels, "order": order}).groupby("question").min()
    strata = strata.sort_values(["labels", "order"])
    passed = np.floor(np.arange(len(strata) + 1) * share + 1e-9)  # every 1/share-th question, so in each stratum too
    probing = question.isin(strata.index[np.diff(passed) > 0])
    if not 0 < probing.sum() < len(table):
        raise ValueError(
            f"an exam of {len(strata)} different questions has no part of {share} and a rest: take another share, or more "
            "questions"
        )
    return table[probing].reset_index(drop=True), table[~probing].reset_index(drop=True)
