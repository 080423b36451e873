"""Blind baselines of an exam: the scores reached without reading its questions, to compare an accuracy with besides
guessing.

Three baselines: always the choice that is most often the answer in the training data, always the position that is
most often right there, and the model itself, prompted without the question. The second is our reading: with choices in
a fixed order, saying "A" can pass for knowledge."""

import hashlib
from collections import Counter
from collections.abc import Iterable
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
    rows = list(_checked_rows(exam))
    found = [_most_common(row, counts, map(normalise, row.choices)) == int(row.answer_index) for row in rows]
    return pd.Series(found, exam.index, dtype=bool)


def blind_to_position(exam: pd.DataFrame, training: pd.DataFrame) -> pd.Series:
    """For every row of a multiple-choice exam, whether the position that is most often right in `training`, among its
    questions with as many choices, is right (both QA tables): [rows] bool, by the exam's index; null for all rows if
    `training` has no question with choices and a single right one. Ties are broken as in `blind_to_training`, so where
    no training question has as many choices, the reader guesses.

    The position comes from the training data and not from the exam, whose own most frequent position is above guessing
    by chance. ValueError for rows without a single right choice."""
    rows, given = list(_checked_rows(exam)), training.reindex(columns=["choices", "answer_index"]).dropna()
    counts = Counter((len(row.choices), int(row.answer_index)) for row in given.itertuples())
    if not counts:
        return pd.Series(None, exam.index, dtype=object)
    keys = {n: [(n, i) for i in range(n)] for n in {len(row.choices) for row in rows}}
    found = [_most_common(row, counts, keys[len(row.choices)]) == int(row.answer_index) for row in rows]
    return pd.Series(found, exam.index, dtype=bool)


def blind_by_model(model: str | Path, exam: pd.DataFrame, *, form: str = "cloze") -> pd.Series:
    """For every row, whether the choice that a model (directory or name) finds most likely after a prompt without the
    question is right (`cloze.score`, in the `form` "cloze" or "letter"). As `blind_to_training`, but null for rows with
    a choice longer than the model's context."""
    if exam.empty:
        return pd.Series(dtype=object)
    _checked_rows(exam)
    correct = score(*load_model(model), exam, blind=True, form=form).set_index("id")["correct"]
    return exam["id"].map(correct)


def _checked_rows(exam: pd.DataFrame):
    if (without := exam[["choices", "answer_index"]].isna().any(axis=1)).any():
        raise ValueError(f"blind: row {without.idxmax()} has no single right choice; leave such rows out")
    return exam.itertuples()


def _most_common(row, counts: Counter, keys: Iterable) -> int:
    """The index of the choice whose key (one for each choice) has the highest count."""
    keys = list(keys)

    def order(i: int) -> tuple[int, str]:
        return counts[keys[i]], hashlib.sha256(f"{row.id}/{row.choices[i]}".encode()).hexdigest()

    return max(range(len(row.choices)), key=order)
