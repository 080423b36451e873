"""Named exams: QA tables and lm-eval tasks evaluated together, and the split of an exam into a part to probe with and a
sealed part for the result."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from qatoolkit.core.bounds import check_name
from qatoolkit.core.stats import CELL
from qatoolkit.core.text import normalise
from qatoolkit.evaluation.evaluate import Examinee, TasksUnavailable, check_counts
from qatoolkit.evaluation.suites import Suite, resolve_suite


@dataclass(frozen=True, kw_only=True)
class Exam:
    """An exam with a name of your choice: a QA `table`, or a `suite` as `resolve_suite` takes it ("arc_easy",
    "paper12", a folder of task YAMLs, a file). `form` is for tables and files. `fewshot`, `metric`, `filter` and
    `limit` (the first questions of each task) apply to all of its tasks; None leaves them to the suite. With `keep`,
    only the samples of these ids count.

    ValueError for a name that can't name a folder (`check_name`), for both or neither of table and suite, and for
    impossible counts."""

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
            raise ValueError(f"exam {self.name!r} needs either a QA table or a suite")
        check_counts(self.fewshot, self.limit)

    def resolve(self, workplace: Path, *, log=None) -> Suite:
        """The exam's tasks; those of a table are written to `workplace/NAME/tasks`. Errors as in `resolve_suite`."""
        what = {self.name: self.table} if self.suite is None else self.suite
        found = resolve_suite(what, Path(workplace) / self.name, form=self.form, log=log)
        changes = {k: v for k in ("fewshot", "metric", "filter") if (v := getattr(self, k)) is not None}
        return replace(found, entries=tuple(replace(entry, **changes) for entry in found.entries))


def evaluate_exams(
    model: str | Path, exams: Sequence[Exam], *, workplace: Path | None = None, log=None, **options
) -> pd.DataFrame:
    """Evaluate a model on several exams: samples as `evaluate` returns them, with a column `exam` before `task`.

    `options` are those of `Examinee`: folder, scorer, batch, dtype, seeds. The model is loaded once. Tables become
    tasks in `workplace` (default: a temporary folder), which `lm_eval --include_path` can read; finished tasks are kept
    in `folder`, if given, and reused by other exams with the same questions. Ids are unique within an exam.
    `attrs["evaluation"]` is that of `evaluate`, with the exam of each task; `n` and `score` count the samples of
    `keep`.

    Raises the errors of `evaluate`, TasksUnavailable after all other exams have run, and ValueError for two exams with
    the same name, a metric that no task of the exam has, and a `keep` without a sample."""
    if workplace is None:
        with TemporaryDirectory(prefix="qatoolkit-") as folder:
            return evaluate_exams(model, exams, workplace=Path(folder), log=log, **options)
    names = [exam.name for exam in exams]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two exams are called {min(twice)!r}; rename one")
    if not exams:
        raise ValueError("no exam to evaluate on; name at least one")
    suites = [exam.resolve(workplace, log=log) for exam in exams]  # all before the first runs, to find errors early
    examinee = Examinee(model, log=log, **options)
    found, failures = [], []
    for exam, suite in zip(exams, suites, strict=True):
        try:
            samples = examinee.answer(suite, limit=exam.limit)
        except TasksUnavailable as error:
            failures.append(f"{exam.name}: {error}")
            samples = error.samples
        found.append(_select_kept(exam, samples))
    together = pd.concat(found, ignore_index=True)
    tasks = [task for samples in found for task in samples.attrs["evaluation"]["tasks"]]
    together.attrs["evaluation"] = examinee.about | {"suite": ",".join(names), "tasks": tasks}
    if failures:
        raise TasksUnavailable("; ".join(failures), together)
    return together


def _select_kept(exam: Exam, samples: pd.DataFrame) -> pd.DataFrame:
    """The samples of an exam with its name, only those of `keep`, and their tasks."""
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
            task_scores = scores.get_group(task["task"])
            score = float(task_scores.mean()) if task_scores.notna().any() else None
            tasks.append({"exam": exam.name} | task | {"n": len(task_scores), "score": score})
    samples.attrs["evaluation"] = about | {"tasks": tasks}
    return samples


def split_exam(table: pd.DataFrame, share: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(part to probe with, sealed part) of an exam: about `share` of its questions and the others, in table order.

    Rows with the same normalised question (`core.text.normalise`) go to the same part. Questions are stratified by
    discipline and difficulty, unlabelled ones together, and drawn by a hash of seed and question, so the split does not
    depend on the order of rows. Our reading: the papers probe and evaluate on different benchmarks.

    ValueError for a share that is not between 0 and 1, and for an exam too small to have both parts."""
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; it must be above 0 and below 1")
    question = table["question"].map(normalise)
    labels = table.reindex(columns=CELL).astype(object).fillna("").agg("/".join, axis=1)
    order = question.map(lambda text: hashlib.sha256(f"{seed}/{text}".encode()).hexdigest())
    strata = pd.DataFrame({"question": question, "labels": labels, "order": order}).groupby("question").min()
    strata = strata.sort_values(["labels", "order"])
    cumulative = np.floor(
        np.arange(len(strata) + 1) * share + 1e-9
    )  # every 1/share-th question, so in each stratum too
    probing = question.isin(strata.index[np.diff(cumulative) > 0])
    if not 0 < probing.sum() < len(table):
        raise ValueError(
            f"an exam of {len(strata)} different questions can't be split by share {share} into two non-empty parts: "
            "take another share, or more questions"
        )
    return table[probing].reset_index(drop=True), table[~probing].reset_index(drop=True)
