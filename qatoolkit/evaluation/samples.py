"""What lm-eval logged of one task, as a tidy table of samples, and where finished tasks are kept.

A finished task is a Parquet of its samples and a JSON written after it, so that its presence means complete. Both are named
after the task and a key of everything the result depends on: model, task configuration and data, examples, seeds, lm-eval.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from qatoolkit.core.files import digest, read_json, write_json
from qatoolkit.core.qa_table import read_table, write_table
from qatoolkit.core.taxonomy import LABELS
from qatoolkit.seeds.subjects import discipline_of
from qatoolkit.training.hub import load_config

COLUMNS = (
    "benchmark", "task", "id", "doc_id", "discipline", "difficulty", "grade", "metric", "filter", "score", "correct", "given",
    "margin", "scores", "fewshot", "version",
)  # fmt: skip
MODEL_FILES = (
    "*config.json", "*.safetensors", "*.index.json", "*.bin", "tokenizer*", "vocab*", "merges.txt", "*.model", "*tokens*.json",
    "*.jinja",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """lm-eval's four seeds, with its own values: Python's random, NumPy, torch, and the drawing of few-shot examples."""

    random: int = 0
    numpy: int = 1234
    torch: int = 1234
    fewshot: int = 1234


def tidy(task, logged: list[dict], benchmark: str, metric: str | None, chosen: str | None) -> pd.DataFrame:
    """One row per sample of a task: `COLUMNS` without fewshot and version.

    `score` is lm-eval's per-sample value of `metric` under the filter `chosen` (None, or one the task lacks: its first), and
    `scores` has all as JSON. `correct` is null where a metric is not 0 or 1. `given` is the choice or text answered, `margin`
    the log-likelihood of the right choice minus the best wrong one, in nats. Without a discipline of its own a row takes that
    of the task (`subjects`); rows of tasks that `export_tasks` wrote keep their ids, others get TASK/NUMBER."""
    filters = list(dict.fromkeys(sample["filter"] for sample in logged))
    chosen = chosen if chosen in filters else filters[0]
    metric = metric if metric in logged[0]["metrics"] else logged[0]["metrics"][0]
    ours, name = "form" in (task.config.metadata or {}), task.task_name
    every: dict[int, dict] = {}
    for sample in logged:
        values = {f"{m},{sample['filter']}": _number(sample[m]) for m in sample["metrics"]}
        every.setdefault(sample["doc_id"], {}).update(values)
    rows = []
    for sample in (s for s in logged if s["filter"] == chosen):
        doc, score = sample["doc"], _number(sample[metric])
        score = float(score) if isinstance(score, int | float) else None
        given, margin = _answer(task, sample, metric)
        rows.append(
            {
                "benchmark": benchmark,
                "task": name,
                "id": doc["id"] if ours else f"{name}/{sample['doc_id']}",
                "doc_id": sample["doc_id"],
                **{label: doc.get(label) if ours else None for label in LABELS},
                "metric": metric,
                "filter": chosen,
                "score": score,
                "correct": bool(score) if score in (0, 1) else None,
                "given": given,
                "margin": margin,
                "scores": json.dumps(every[sample["doc_id"]]),
            }
        )
    table = pd.DataFrame(rows)
    if known := discipline_of(name):
        table["discipline"] = table["discipline"].astype(object).fillna(known)
    # The types that Parquet gives back, so that a stored task is the same table.
    table = table.astype(dict.fromkeys([*LABELS, "given"], "str") | {"score": float})
    if table["correct"].isna().any():  # a graded metric: 0 and 1 are only its ends
        table["correct"] = None
    return table


def _number(value):
    """A metric's value as JSON takes it; what is no number stays as text."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, int | float | None) else str(value)


def _answer(task, sample: dict, metric: str) -> tuple[str, float]:
    """(what was answered, margin); the margin is nan where answers are not chosen by log-likelihood."""
    replies = sample["filtered_resps"]
    if task.OUTPUT_TYPE != "multiple_choice":
        reply = replies[0]
        return (reply if isinstance(reply, str) else json.dumps(reply, default=str)), float("nan")
    choices = task.doc_to_choice(sample["doc"])
    likelihood = np.array([reply[0] for reply in replies[: len(choices)]])
    normalised = {"acc_norm": [len(c) for c in choices], "acc_bytes": [len(c.encode()) for c in choices]}
    given = choices[int(np.argmax(likelihood / np.array(normalised.get(metric, 1.0))))]
    right = task.doc_to_text(sample["doc"]) if task.multiple_input else sample["target"]
    right = right if isinstance(right, list) else [right]
    right = {choices.index(r) if isinstance(r, str) and r in choices else r for r in right}
    truth = np.array([i in right for i in range(len(choices))])
    margin = likelihood[truth].max() - likelihood[~truth].max() if 0 < truth.sum() < len(truth) else float("nan")
    return given, float(margin)


def model_digest(model: str | Path) -> str:
    """What stands for a model in keys: of a directory the sha256 of its configuration, tokenizer and weights (content, not
    dates: a copied checkpoint is the same model, a retrained one is not), of a hub name its commit. ValueError for neither."""
    folder = Path(model)
    if folder.is_dir():
        sha = hashlib.sha256()
        for path in sorted({path for kind in MODEL_FILES for path in folder.glob(kind)}):
            sha.update(path.name.encode())
            with path.open("rb") as file:
                sha.update(hashlib.file_digest(file, "sha256").digest())
        return sha.hexdigest()
    return f"{model}@{getattr(load_config(model), '_commit_hash', None)}"


def task_content(entry, spec) -> dict:
    """A task's configuration as its key takes it: local data and code by content instead of by path."""
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
    if local.is_dir() and local.name:  # may be large: sizes and dates, not contents
        files = sorted(p for p in local.rglob("*") if p.is_file())
        config["dataset_files"] = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    path = getattr(entry, "yaml_path", None)
    if path:
        config["code"] = {p.name: digest(p) for p in sorted(Path(path).parent.glob("*.py"))}
        config = json.loads(json.dumps(config, default=str).replace(str(Path(path).parent), "."))
    return json.loads(json.dumps(config, default=str))


def key_of(**content) -> str:
    """A digest of everything a task's samples depend on."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _place(folder: Path, task: str, key: str) -> Path:
    return Path(folder) / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', task)}-{key[:16]}"


def load(folder: Path | None, task: str, key: str) -> tuple[pd.DataFrame, dict] | None:
    """The samples and manifest of a finished task, or None."""
    if folder is None:
        return None
    place = _place(folder, task, key)
    manifest = place.with_name(f"{place.name}.json")
    if not manifest.exists():
        return None
    table = read_table(place.with_name(f"{place.name}.parquet"))
    return table, read_json(manifest)


def keep(folder: Path | None, task: str, key: str, table: pd.DataFrame, manifest: dict) -> None:
    """Store a finished task: samples first, manifest last, each in one step."""
    if folder is not None:
        place = _place(folder, task, key)
        write_table(table, place.with_name(f"{place.name}.parquet"))
        write_json(manifest, place.with_name(f"{place.name}.json"))


def manifests(folder: Path) -> pd.DataFrame:
    """One row per finished task of an evaluation folder: benchmark, task, version, form, examples, prompts cut, metric,
    questions, rows left out by reason, score, model, scorer, lm-eval version, seeds, seconds."""
    found = [read_json(p) for p in sorted(Path(folder).glob("*.json"))]
    return pd.DataFrame(found).drop(columns="config", errors="ignore")
