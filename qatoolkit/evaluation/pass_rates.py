"""Measured difficulty: how often a model passes each question, by likelihood or by judged samples.

A rubric says how many steps an answer takes; what a model finds hard has to be asked of it. SwS (arXiv 2506.08989) keeps
questions that its student passes in 0.125 to 0.875 of the samples, Autodata (Meta) those that a strong solver gets and a
weak one does not: both are bounds on the columns that are made here (`MeasureSettings`).
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from qatoolkit.core.qa_table import PASS, as_lists, require
from qatoolkit.core.stats import wilson
from qatoolkit.evaluation.cloze import load_model, score
from qatoolkit.evaluation.probe import judge_answers, write_answers
from qatoolkit.evaluation.tasks import has_several_answers
from qatoolkit.teacher.calls import with_calls
from qatoolkit.teacher.client import Teacher
from qatoolkit.teacher.completions import ANSWERED
from qatoolkit.teacher.solve import solve

LIKELIHOOD, SAMPLES = "likelihood", "samples"
TYPES = {"": float, "_low": float, "_high": float, "_n": "Int64", "_unjudged": "Int64"}  # of pass_<name>...


def measure_difficulty(
    table: pd.DataFrame,
    models: Mapping[str, Teacher | str | Path],
    k: int = 4,
    *,
    student: str = LIKELIHOOD,
    seed: int = 0,
) -> pd.DataFrame:
    """A QA table with the pass rate of each model in `pass_<name>`, a share from 0 to 1: how hard its questions are for
    that model. Columns of a name that are there already are replaced.

    A `Teacher` answers every question `k` times with the prompt `solve` (answers in its ledger cost nothing again;
    calls are added to `calls`), judged by `same_answer`. A model in a directory, or of a name, is measured by
    likelihood: the probability of the right choice among the choices or, without choices, that its continuation begins
    with the answer, which other right wordings would raise. With `student="samples"` it writes `k` answers to the bare
    question at temperature 1, judged likewise.

    Of samples there are `pass_<name>_low` and `_high` (Wilson's 95% interval), `_n`, and `_unjudged`: samples that count
    as not passed since `same_answer` can't tell, or since they were refused, cut off or unreadable. A likelihood is no
    sample: these four are null. The rate is null, with a warning that counts the rows, where a teacher could not be
    reached for some sample of a row (ask again: only what is missing is sent), where a choice is longer than the model's
    context, and by likelihood where several choices are right.

    Raises ValueError for a table without the columns of a QA table, k below 1, an unknown way, and as `Teacher.ask`.

    >>> import qatoolkit as qt
    >>> row = {"question": "What is the chemical formula of water?", "answer": "H2O"}
    >>> table = qt.qa_table([row], language="en", source="mine")
    >>> with qt.offline_teacher("textbook") as teacher:
    ...     measured = qt.measure_difficulty(table, {"strong": teacher}, k=4)
    >>> measured[["pass_strong", "pass_strong_low", "pass_strong_high", "pass_strong_n"]].round(2)
       pass_strong  pass_strong_low  pass_strong_high  pass_strong_n
    0          1.0             0.51               1.0              4
    """
    if k < 1:
        raise ValueError(f"measure_difficulty: k is {k}; it must be 1 or more answers to each question")
    if student not in (LIKELIHOOD, SAMPLES):
        raise ValueError(f"measure_difficulty: student is {student!r}; it must be {LIKELIHOOD} or {SAMPLES}")
    require("measure_difficulty", table, "id", "question", "answer", "language", "choices", "answer_index")
    table = as_lists(table).reset_index(drop=True)
    for name, model in models.items():
        if isinstance(model, Teacher):
            said = solve(table, model, range(k))
            table = with_calls(table, "solve", [sum(keys, ()) for keys in _by_row(said["keys"], k)])
            table["calls"] = [list(dict.fromkeys(calls)) for calls in table["calls"]]  # refinement may have drawn some
            answered = [set(some) <= {*ANSWERED, "unparsed"} for some in _by_row(said["outcome"], k)]
            found, lost = _judged(table, list(said["value"]), k), "the model could not be reached: ask again"
            found = found.where(pd.Series(answered, table.index, dtype=bool))
        elif student == SAMPLES:
            asked = table.assign(answer=_right(table)).loc[table.index.repeat(k)]
            given = write_answers(*load_model(model), asked, seed=seed) if len(asked) else []
            found, lost = _judged(table, given, k), ""
        else:
            found, lost = pd.DataFrame({"": _likelihoods(model, table)}), "a choice is too long, or several are right"
        found = found.reindex(columns=list(TYPES)).astype(TYPES)
        if missing := int(found[""].isna().sum()):
            warnings.warn(f"{missing:,} of {len(table):,} questions have no pass rate of {name}: {lost}", stacklevel=2)
        table = table.assign(**{f"{PASS}{name}{column}": found[column] for column in found})
    return table


def _by_row(column: pd.Series, k: int) -> list[list]:
    """The values of `k` draws each, row by row."""
    values = list(column)
    return [values[at : at + k] for at in range(0, len(values), k)]


def _right(table: pd.DataFrame) -> list[str]:
    """The texts of the right answers, in place of the letters of choices."""
    rows = zip(table["choices"], table["answer_index"], table["answer"], strict=True)
    return [answer if choices is None or pd.isna(at) else choices[int(at)] for choices, at, answer in rows]


def _judged(table: pd.DataFrame, given: list[str | None], k: int) -> pd.DataFrame:
    """Pass rates of samples, `k` in turn for each row; None is a sample without a readable answer."""
    same = judge_answers(given, table.assign(answer=_right(table)).loc[table.index.repeat(k)])
    rows = []
    for at in range(0, len(given), k):
        each = list(zip(same[at : at + k], given[at : at + k], strict=True))
        passed = sum(verdict is True for verdict, _ in each)
        low, high = wilson(passed, k)
        unjudged = sum(verdict is None and text != "" for verdict, text in each)
        rows.append((passed / k, low, high, k, unjudged))
    return pd.DataFrame(rows, index=table.index, columns=list(TYPES))


def _likelihoods(model: str | Path, table: pd.DataFrame) -> pd.Series:
    """Probabilities of the right answers, by the table's index; null where there is none (`measure_difficulty`)."""
    network, tokenizer = load_model(model)
    choice, found = table["choices"].notna(), {}
    if len(rows := table[choice & ~has_several_answers(table)]):
        found |= score(network, tokenizer, rows).set_index("id")["probability"].to_dict()
    if len(rows := table[~choice]):
        alone = rows.assign(choices=[[answer] for answer in rows["answer"]], answer_index=0)
        bits = score(network, tokenizer, alone).set_index("id")["bits_per_byte"]
        sizes = rows.set_index("id")["answer"].map(lambda answer: max(1, len(answer.encode())))
        found |= np.exp2(-bits * sizes[bits.index]).to_dict()
    return table["id"].map(found)
