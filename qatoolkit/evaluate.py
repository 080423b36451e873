"""Scoring: exams through lm-eval for every reported number, and a batched cloze scorer for probes and sweeps.

Both score the likelihood of each answer text after "Question: ... Answer:" (tiny models sit at chance when they must name
a letter). Exams are exported as ordinary lm-eval tasks, so the `lm_eval` command gives the same figures.
"""

import contextlib
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from qatoolkit.store import atomic

PROMPT = {"en": ("Question: {question}\nAnswer:", " "), "zh": ("问题：{question}\n答案：", "")}


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


# --- the cloze scorer ------------------------------------------------------------------------------------------------


def load_model(folder: str | Path):
    """A causal model and its tokenizer from a Hugging Face directory or name, ready to score; safetensors only, no remote
    code."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    if not torch.cuda.is_available():
        torch.set_num_threads(min(2, len(os.sched_getaffinity(0))))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True).to(device).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def score(model, tokenizer, table: pd.DataFrame, batch_tokens: int = 16_384) -> pd.DataFrame:
    """Cloze-score a multiple-choice QA table: columns id, predicted, correct, margin (log-likelihood of the right choice
    minus the best wrong one, in nats). Rows without choices raise ValueError."""
    import torch

    if table["choices"].isna().any():
        raise ValueError(
            f"score: row {table['choices'].isna().idxmax()} has no choices; open answers go through lm-eval"
        )
    contexts = [PROMPT[row.language][0].format(question=row.question) for row in table.itertuples()]
    wholes = [
        context + PROMPT[row.language][1] + choice
        for row, context in zip(table.itertuples(), contexts, strict=True)
        for choice in row.choices
    ]
    starts = [len(ids) for ids in tokenizer(contexts, add_special_tokens=False)["input_ids"]]
    starts = np.repeat(starts, [len(c) for c in table["choices"]])
    encoded = tokenizer(wholes, add_special_tokens=False)["input_ids"]
    likelihood = np.empty(len(encoded))
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    with torch.inference_mode():
        for rows in _batches(order, encoded, batch_tokens):
            width = len(encoded[rows[-1]])
            ids = torch.zeros((len(rows), width), dtype=torch.long)
            answer = torch.zeros((len(rows), width - 1), dtype=torch.bool)
            for k, i in enumerate(rows):
                ids[k, : len(encoded[i])] = torch.tensor(encoded[i])
                answer[k, starts[i] - 1 : len(encoded[i]) - 1] = True
            ids, answer = ids.to(model.device), answer.to(model.device)
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            logits = model.get_output_embeddings()(hidden[answer]).float()  # of the answers' tokens only
            each = torch.nn.functional.cross_entropy(logits, ids[:, 1:][answer], reduction="none").cpu()
            owner = answer.nonzero()[:, 0].cpu()
            likelihood[rows] = -torch.zeros(len(rows)).index_add_(0, owner, each).numpy()
    return _judge(table, likelihood)


def _batches(order: list[int], encoded: list, budget: int) -> Iterable[list[int]]:
    batch = []
    for i in order:
        if batch and len(encoded[i]) * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _judge(table: pd.DataFrame, likelihood: np.ndarray) -> pd.DataFrame:
    rows, at = [], 0
    for row in table.itertuples():
        values = likelihood[at : at + len(row.choices)]
        at += len(row.choices)
        truth = int(row.answer_index)
        margin = values[truth] - np.delete(values, truth).max()
        rows.append((row.id, int(values.argmax()), bool(values.argmax() == truth), float(margin)))
    return pd.DataFrame(rows, columns=["id", "predicted", "correct", "margin"])


# --- lm-eval ---------------------------------------------------------------------------------------------------------


def export_tasks(exams: dict[str, pd.DataFrame], folder: Path) -> Path:
    """Write exams as lm-eval tasks: per exam a JSONL and a YAML that `lm_eval --include_path FOLDER --tasks NAME` runs.

    Exams with choices become cloze multiple choice scored by `acc`, others are answered in one line and scored by
    `exact_match`."""
    import yaml

    with atomic(folder) as temporary:
        temporary.mkdir(parents=True)
        for name, table in exams.items():
            languages = table["language"].unique()
            if len(languages) != 1:
                raise ValueError(
                    f"exam {name!r} mixes languages {', '.join(languages)}; export one task per language"
                )
            prompt, delimiter = PROMPT[languages[0]]
            with open(temporary / f"{name}.jsonl", "w", encoding="utf-8") as file:
                for row in table.to_dict("records"):
                    keep = (
                        "id",
                        "question",
                        "choices",
                        "answer",
                        "answer_index",
                        "discipline",
                        "difficulty",
                        "grade",
                    )
                    row = {k: row[k] for k in keep if row[k] is not None and row[k] == row[k]}
                    row |= {"answer_index": int(row["answer_index"])} if "answer_index" in row else {}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
            task = {
                "task": name,
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str((folder / f"{name}.jsonl").resolve())}},
                "test_split": "test",
                "doc_to_text": prompt.format(question="{{question}}"),
                "target_delimiter": delimiter,
                "metadata": {"version": 1.0},
            }
            if table["choices"].notna().all():
                task |= {
                    "output_type": "multiple_choice",
                    "doc_to_choice": "choices",
                    "doc_to_target": "answer_index",
                    "metric_list": [{"metric": "acc"}],
                }
            else:
                task |= {
                    "output_type": "generate_until",
                    "doc_to_target": "answer",
                    "generation_kwargs": {"until": ["\n", "<eos>"], "max_gen_toks": 16, "do_sample": False},
                    "metric_list": [{"metric": "exact_match", "ignore_case": True}],
                }
            (temporary / f"{name}.yaml").write_text(
                yaml.safe_dump(task, sort_keys=False, allow_unicode=True), encoding="utf-8"
            )
    return folder


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
