"""A run's exams: QA tables and lm-eval tasks, by the name that the user gives each, evaluated together."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from qatoolkit.core.qa_table import COLUMNS, qa_id
from qatoolkit.core.stats import CELL
from qatoolkit.core.text import normalise
from qatoolkit.evaluation.evaluate import evaluate
from qatoolkit.evaluation.suites import Suite, by_language, list_tasks, resolve_suite
from qatoolkit.seeds.columns import detect_language
from qatoolkit.seeds.subjects import discipline_of


@dataclass(frozen=True, kw_only=True)
class Exam:
    """One exam: either a QA `table`, asked in a `form`, or lm-eval tasks (`suite`, as `evaluate` takes it). None leaves
    form, metric, filter and number of examples to the task; `limit` keeps the first questions, `keep` those ids."""

    name: str
    table: pd.DataFrame | None = None
    suite: str | None = None
    form: str | None = None
    metric: str | None = None
    filter: str | None = None
    fewshot: int | None = None
    limit: int | None = None
    keep: frozenset | None = None


def evaluate_exams(model, exams: list[Exam], *, workplace: Path, **options) -> pd.DataFrame:
    """`evaluate` on several exams: its samples with the column `exam` first. Tables are exported below `workplace`;
    `options` are those of `evaluate`. Exams that are asked alike share one call, so that the model is loaded once."""
    alike: dict[tuple, list[Exam]] = {}
    for exam in exams:
        how = (exam.form, exam.limit, exam.suite and exam.name)
        alike.setdefault(how, []).append(exam)
    parts = []
    for i, group in enumerate(alike.values()):
        parts.append(_evaluate_alike(model, group, workplace / f"exams-{i}" if i else workplace, options))
    samples = pd.concat(parts, ignore_index=True)
    first = parts[0].attrs["evaluation"]
    samples.attrs["evaluation"] = first | {"tasks": [t for part in parts for t in part.attrs["evaluation"]["tasks"]]}
    return samples


def _evaluate_alike(model, exams: list[Exam], workplace: Path, options: dict) -> pd.DataFrame:
    """Samples of tables that are asked alike, or of the tasks of one exam."""
    one = exams[0]
    if one.suite:
        suite = resolve_suite(one.suite, workplace)
        about = {entry.task: one for entry in suite.entries}
    else:
        suite = resolve_suite({exam.name: exam.table for exam in exams}, workplace, form=one.form)
        about = {task: exam for exam in exams for task in by_language(exam.name, exam.table)}
    entries = []
    for entry in suite.entries:
        exam = about[entry.task]
        own = {field: getattr(exam, field) for field in ("metric", "filter", "fewshot")}
        entries.append(replace(entry, **{field: value for field, value in own.items() if value is not None}))
    suite = replace(suite, entries=tuple(entries))
    found = evaluate(model, suite, limit=one.limit, **options)
    samples = found.assign(exam=[about[benchmark].name for benchmark in found["benchmark"]])
    for exam in exams:
        if exam.keep is not None:
            samples = samples[(samples["exam"] != exam.name) | samples["id"].isin(exam.keep)]
    samples = samples[["exam", *found]].reset_index(drop=True)
    samples.attrs = found.attrs
    return samples


def task_tables(suite: Suite, *, limit: int | None = None) -> dict[str, pd.DataFrame]:
    """The questions of every single task of a suite as a QA table, by task: what it asks, without examples, with its
    choices where it has any. Ids are those of `evaluate`'s samples; the discipline is that of the task, where known.

    ValueError names a task whose data can't be loaded."""
    manager, tables = suite.manager(), {}
    for entry in suite.entries:
        for name, spec in list_tasks(manager, entry.task):
            try:
                [task] = manager.load([spec])["tasks"].values()
                documents = list(task.eval_docs)[:limit]
            except Exception as error:  # of lm-eval, datasets, the hub, or the task's own code
                message = " ".join(str(error).split())[:300]
                raise ValueError(
                    f"the questions of task {name!r} can't be loaded ({type(error).__name__}: {message}): run once where "
                    "the Hugging Face Hub can be reached, or copy its cache ($HF_HOME) here"
                ) from None
            tables[name] = _task_table(task, name, documents)
    return tables


def _task_table(task, name: str, documents: list[dict]) -> pd.DataFrame:
    ours, rows = "form" in (task.config.metadata or {}), []
    for number, doc in enumerate(documents):
        question, choices, right = _asked(task, doc)
        answer = choices[right] if choices and right is not None else str(right)
        own = {label: doc.get(label) if ours else None for label in ("discipline", "difficulty", "grade")}
        rows.append(
            {
                "id": doc["id"] if ours else f"{name}/{number}",
                "question": question,
                "answer": answer,
                "language": _language(question),
                "source": name,
                "choices": choices,
                "answer_index": right if choices else None,
            }
            | own
            | ({} if own["discipline"] else {"discipline": discipline_of(name)})
        )
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS)).astype({"answer_index": "Int64"})


def _asked(task, doc: dict) -> tuple[str, list[str] | None, object]:
    """Question, choices and right choice (or answer) of a task's document."""
    if task.OUTPUT_TYPE != "multiple_choice":
        target = task.doc_to_target(doc)
        return str(task.doc_to_text(doc)), None, target[0] if isinstance(target, list) and target else target
    choices = [str(choice) for choice in task.doc_to_choice(doc)]
    if task.multiple_input:  # the choices are contexts, and what follows them is the same
        right = task.doc_to_text(doc)
        return f"{choices[right]} {task.doc_to_target(doc)}".strip(), choices, right
    right = task.doc_to_target(doc)
    right = right[0] if isinstance(right, list) and right else right
    right = choices.index(right) if isinstance(right, str) and right in choices else right
    return str(task.doc_to_text(doc)), choices, right if isinstance(right, int) and right < len(choices) else None


def _language(text: str) -> str:
    try:
        return detect_language(text)
    except Exception:  # neither English nor Chinese
        return "en"


def split_exam(table: pd.DataFrame, share: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """An exam in two parts that share no question: the share for the probe, and the rest. Rows whose questions are the
    same but for case, spacing and punctuation stay together; disciplines and difficulties are split alike. The split
    depends on the questions and the seed alone, not on their order."""
    keys = table["question"].map(normalise)
    first = table.assign(**{label: table.get(label) for label in CELL}, key=keys).drop_duplicates("key")
    first = first.assign(**first[CELL].astype(object).fillna(""), draw=[qa_id(key, str(seed)) for key in first["key"]])
    place = np.arange(len(first))
    taken = np.floor((place + 1) * share) > np.floor(place * share)
    probed = keys.isin(first.sort_values([*CELL, "draw"])["key"].to_numpy()[taken])
    return table[probed].reset_index(drop=True), table[~probed].reset_index(drop=True)
