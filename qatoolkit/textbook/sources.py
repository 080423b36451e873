"""Writes seed files from the textbook in layouts of real benchmarks, with a few faulty rows.

Users rarely have one clean table, so the demo does not start from one either. Labels are left out on purpose: the
annotator has to find them, and the true ones are known by construction.
"""

import json
import random
from pathlib import Path

import pandas as pd

from qatoolkit.textbook.exams import seed_questions
from qatoolkit.textbook.knowledge import Textbook

LETTERS = "ABCDEFGHIJ"


def write_sources(books: dict[str, Textbook], folder: Path, n: int, seed: int = 0) -> list[Path]:
    """Write up to `n` seed questions per cell and language as four files; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(f"sources/{seed}")
    english = seed_questions(books["en"], "en", n, seed).sample(frac=1, random_state=seed)
    chinese = seed_questions(books["zh"], "zh", n, seed)
    third = -(-len(english) // 3)
    thirds = [english.iloc[i * third : (i + 1) * third] for i in range(3)]
    return [
        _write_lines(
            folder / "choices_list.jsonl", [_as_list_row(r) for r in thirds[0].to_dict("records")] + _faulty(rng)
        ),
        _write_lettered_columns(folder / "lettered_columns.csv", thirds[1]),
        _write_table(folder / "choice_dict.parquet", thirds[2]),
        _write_lines(folder / "chinese.jsonl", [_as_list_row(r) for r in chinese.to_dict("records")]),
    ]


def _as_list_row(row: dict) -> dict:
    return {"question": row["question"], "choices": list(row["choices"]), "answer": LETTERS[int(row["answer_index"])]}


def _faulty(rng: random.Random) -> list[dict]:
    """Faulty rows as in real files: no question, no answer, an answer letter without a choice."""
    rows = [
        {"question": "", "choices": ["1", "2", "3", "4"], "answer": "A"},
        {
            "question": "What is the capital of the country that has no name?",
            "choices": ["a", "b", "c", "d"],
            "answer": "",
        },
        {"question": "Which option is the right one?", "choices": ["first", "second"], "answer": "E"},
    ]
    return rng.sample(rows, len(rows))


def _write_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


def _write_lettered_columns(path: Path, table: pd.DataFrame) -> Path:
    rows = [
        {"question": r["question"]}
        | dict(zip(LETTERS, r["choices"], strict=False))
        | {"answer": LETTERS[int(r["answer_index"])]}
        for r in table.to_dict("records")
    ]
    pd.DataFrame(rows).to_csv(path, index=False, sep=";")
    return path


def _write_table(path: Path, table: pd.DataFrame) -> Path:
    rows = [
        {
            "query": r["question"],
            "options": {"label": list(LETTERS[: len(r["choices"])]), "text": list(r["choices"])},
            "answerKey": LETTERS[int(r["answer_index"])],
        }
        for r in table.to_dict("records")
    ]
    pd.DataFrame(rows).to_parquet(path, index=False)
    return path
