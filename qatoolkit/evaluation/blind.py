"""Blind baselines of an exam: the scores reached without reading its questions, to compare an accuracy with besides
guessing.

Two baselines: always the choice that is most often the answer in the training data, and the model itself, prompted
without the question."""

import hashlib
from collections import Counter
from pathlib import Path

import pandas as pd

from qatoolkit.core.text import normalise
from qatoolkit.evaluation.cloze import load_model, score


def blind_to_training(exam: pd.DataFrame, training: pd.DataFrame) -> pd.Series:
    """For every row of a multiple-choice exam, whether its most frequent choice among the answers of `training` is
    right (both QA tables): [rows] bool, by the exam's index. Texts are compared normalised (`core.text.normalise`);
    ties are broken by a hash of question and choice. ValueError for rows without a single right choice.

    >>> import qatoolkit as qt
    >>> row = {"question": "Who sleeps least?", "answer": "giraffe", "choices": ["koala", "giraffe"], "answer_index": 1}
    >>> exam = qt.qa_table([row], language="en", source="zoo exam")
    >>> training = qt.qa_table([{"question": "Who is tallest?", "answer": "giraffe"}], language="en", source="zoo")
    >>> qt.blind_to_training(exam, training).tolist()
    [True]
    """
    counts = Counter(map(normalise, training["answer"]))
    return pd.Series(
        [_most_common(row, counts) == int(row.answer_index) for row in _checked_rows(exam)], exam.index, dtype=bool
    )


def blind_by_model(model: str | Path, exam: pd.DataFrame) -> pd.Series:
    """For every row, whether the choice that a model (directory or name) finds most likely after a prompt without the
    question is right (`cloze.score`). As `blind_to_training`, but null for rows with a choice longer than the model's
    context."""
    if exam.empty:
        return pd.Series(dtype=object)
    _checked_rows(exam)
    correct = score(*load_model(model), exam, blind=True).set_index("id")["correct"]
    return exam["id"].map(correct)


def _checked_rows(exam: pd.DataFrame):
    if (without := exam[["choices", "answer_index"]].isna().any(axis=1)).any():
        raise ValueError(f"blind: row {without.idxmax()} has no single right choice; leave such rows out")
    return exam.itertuples()


def _most_common(row, counts: Counter) -> int:
    """The index of the choice with the highest count."""

    def order(i: int) -> tuple[int, str]:
        return counts[normalise(row.choices[i])], hashlib.sha256(f"{row.id}/{row.choices[i]}".encode()).hexdigest()

    return max(range(len(row.choices)), key=order)
