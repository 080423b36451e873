"""Samples of one lm-eval task as a tidy table, the digests of models and tasks, and the storage of finished tasks.

A finished task is an artifact with its samples. Its key contains everything the result depends on: model, task
configuration and data, few-shot examples, seeds and lm-eval's version.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from qatoolkit.answers.same_answer import same_answer
from qatoolkit.core.artifacts import Artifact
from qatoolkit.core.files import digest
from qatoolkit.core.qa_table import read_table, write_table
from qatoolkit.core.taxonomy import LABELS
from qatoolkit.evaluation.cloze import CHOSEN, score_choices
from qatoolkit.evaluation.suites import Entry
from qatoolkit.seeds.subjects import discipline_of
from qatoolkit.training.hub import load_config

COLUMNS = (
    "benchmark", "task", "id", "doc_id", "discipline", "difficulty", "grade", "metric", "filter", "score", "correct",
    "given", *CHOSEN, "same", "chance", "scores", "fewshot", "version",
)  # fmt: skip
MODEL_FILES = (
    "*config.json", "*.safetensors", "*.index.json", "*.bin", "tokenizer*", "vocab*", "merges.txt", "*.model",
    "*tokens*.json", "*.jinja",
)  # fmt: skip
SAMPLES = "samples.parquet"
VERSION = 3  # of the samples: raise it when the same task and model give different ones


@dataclass(frozen=True, kw_only=True)
class RandomSeeds:
    """lm-eval's four random seeds with its defaults: Python's random, NumPy, torch, the choice of few-shot examples."""

    random: int = 0
    numpy: int = 1234
    torch: int = 1234
    fewshot: int = 1234


def tidy(task, result: dict, entry: Entry, lengths: Mapping | None = None) -> pd.DataFrame:
    """One row per sample of a task, with the columns `COLUMNS`; `result` is what `lm_eval.evaluate` returned for it.

    `score` is lm-eval's per-sample value of the entry's metric after its filter (the task's first ones if the entry
    names none, or names one that the task does not have); `scores` has all of them as JSON. `correct` is null for the
    whole task if the metric is graded, that is, not always 0 or 1. `given` is the chosen or written answer; `margin`,
    `per_byte`, `per_token` (with `lengths`, the tokens of every (context, continuation)) and `bits_per_byte` are those
    of `cloze.score_choices`, null for written answers; `same` is "same", "different" or "undecided" by `same_answer` for
    written answers to exported exams; `chance` is one over the number of choices (0 for written answers). A row without
    a discipline takes that of the task (`seeds.subjects`). Rows of `export_tasks` keep their ids, others get
    TASK/NUMBER."""
    name, exported = task.task_name, is_exported(task)
    logged = result["samples"][name]
    filters, metrics = [sample["filter"] for sample in logged], logged[0]["metrics"]
    chosen = entry.filter if entry.filter in filters else filters[0]
    metric = entry.metric if entry.metric in metrics else metrics[0]
    scores: dict[int, dict] = {}
    for sample in logged:
        values = {f"{m},{sample['filter']}": _number(sample[m]) for m in sample["metrics"]}
        scores.setdefault(sample["doc_id"], {}).update(values)
    rows = []
    for sample in (s for s in logged if s["filter"] == chosen):
        doc, score = sample["doc"], _number(sample[metric])
        score = float(score) if isinstance(score, int | float) else None
        given, scored = _read_answer(task, sample, metric, lengths)
        rows.append(
            {
                "benchmark": entry.task,
                "task": name,
                "id": sample_id(task, sample["doc_id"], doc),
                "doc_id": sample["doc_id"],
                **{label: (doc.get(label) or None) if exported else None for label in LABELS},
                "metric": metric,
                "filter": chosen,
                "score": score,
                "correct": bool(score) if score in (0, 1) else None,
                "given": given,
                **scored,
                "same": _same(given, doc) if exported and task.OUTPUT_TYPE == "generate_until" else None,
                "chance": 1 / len(task.doc_to_choice(doc)) if task.OUTPUT_TYPE == "multiple_choice" else 0.0,
                "scores": json.dumps(scores[sample["doc_id"]]),
                "fewshot": int(result["n-shot"][name]),
                "version": str(result["versions"][name]),
            }
        )
    table = pd.DataFrame(rows, columns=COLUMNS)
    if known := discipline_of(name):
        table["discipline"] = table["discipline"].astype(object).fillna(known)
    # The types that Parquet returns, so that a stored task is the same table.
    numbers = dict.fromkeys(("score", "margin", "bits_per_byte"), float)
    table = table.astype(dict.fromkeys([*LABELS, "given", "same"], "str") | numbers)
    for column in ("correct", "per_byte", "per_token"):
        if table[column].isna().any():
            table[column] = None
    return table


def _same(given: str, doc: dict) -> str:
    """The verdict of `same_answer` on a written answer; an empty one is different."""
    found = same_answer(given, doc["answer"], aliases=doc.get("answers") or ())
    return {True: "same", False: "different", None: "undecided" if given.strip() else "different"}[found]


def is_exported(task) -> bool:
    """Whether a task was written by `export_tasks`."""
    return "form" in (task.config.metadata or {})


def sample_id(task, number: int, doc: dict) -> str:
    """The id of a task's question: that of an exported exam, else TASK/NUMBER, counted from 0."""
    return doc["id"] if is_exported(task) else f"{task.task_name}/{number}"


def _number(value):
    """A metric's value for JSON: numbers stay numbers, anything else becomes text."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, int | float | None) else str(value)


def _read_answer(task, sample: dict, metric: str, lengths: Mapping | None) -> tuple[str, dict]:
    """(the answer, the columns of `score_choices`, None unless answers are chosen by log-likelihood)."""
    replies = sample["filtered_resps"]
    if task.OUTPUT_TYPE != "multiple_choice":
        reply = replies[0]
        return (reply if isinstance(reply, str) else json.dumps(reply, default=str)), dict.fromkeys(CHOSEN)
    choices = task.doc_to_choice(sample["doc"])
    likelihood = np.array([reply[0] for reply in replies[: len(choices)]])
    normalised = {"acc_norm": [len(c) for c in choices], "acc_bytes": [len(c.encode()) for c in choices]}
    given = choices[int(np.argmax(likelihood / np.array(normalised.get(metric, 1.0))))]
    right = task.doc_to_text(sample["doc"]) if task.multiple_input else sample["target"]
    right = right if isinstance(right, list) else [right]
    right = {choices.index(r) if isinstance(r, str) and r in choices else r for r in right}
    pairs = [tuple(arguments) for arguments in sample["arguments"][: len(choices)]]
    texts = [more.strip() for _, more in pairs] if task.multiple_input else choices
    tokens = [lengths.get(pair) for pair in pairs] if lengths else [None]
    found = score_choices(likelihood, right, texts, None if None in tokens else tokens)
    return given, {column: found[column] for column in CHOSEN}


def digest_model(model: str | Path) -> str:
    """Identifies a model in keys: a directory by the sha256 of its configuration, tokenizer and weights (by content: a
    copied checkpoint is the same model, a retrained one is not), a hub name by its commit; else ValueError."""
    folder = Path(model)
    if folder.is_dir():
        sha = hashlib.sha256()
        for path in sorted({path for kind in MODEL_FILES for path in folder.glob(kind)}):
            sha.update(path.name.encode())
            with path.open("rb") as file:
                sha.update(hashlib.file_digest(file, "sha256").digest())
        return sha.hexdigest()
    return f"{model}@{getattr(load_config(model), '_commit_hash', None)}"


def describe_task(entry, spec) -> dict:
    """A task's configuration for its key, with local data and code identified by content instead of path."""
    config = dict(spec if isinstance(spec, dict) else entry.cfg or {})
    arguments = dict(config.get("dataset_kwargs") or {})
    files = arguments.get("data_files")
    if files:
        files = files if isinstance(files, dict) else {"data": files}
        parts = {k: v if isinstance(v, list) else [v] for k, v in files.items()}
        arguments["data_files"] = {
            k: [digest(Path(p)) if Path(p).is_file() else str(p) for p in v] for k, v in parts.items()
        }
        config["dataset_kwargs"] = arguments
    local = Path(str(config.get("dataset_path", "")))
    if local.is_dir() and local.name:  # may be large, so sizes and dates instead of contents
        files = sorted(p for p in local.rglob("*") if p.is_file())
        config["dataset_files"] = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    path = getattr(entry, "yaml_path", None)
    if path:
        config["code"] = {p.name: digest(p) for p in sorted(Path(path).parent.glob("*.py"))}
        config = json.loads(json.dumps(config, default=str).replace(str(Path(path).parent), "."))
    return json.loads(json.dumps(config, default=str))


def keep(artifact: Artifact, table: pd.DataFrame, record: dict) -> None:
    """Store the samples and the record of a finished task."""
    with artifact.making() as folder:
        write_table(table, folder / SAMPLES)
        artifact.finish(record)


def load(artifact: Artifact) -> tuple[pd.DataFrame, dict]:
    """The samples and the manifest of a finished task."""
    return read_table(artifact.folder / SAMPLES), artifact.manifest
