"""Measured difficulty: how often a model passes each question, by likelihood or by judged samples.

A rubric rates how many steps an answer takes; what a model finds hard must be measured on the model. SwS (arXiv
2506.08989) keeps questions that its student passes in 0.125 to 0.875 of the samples, Autodata (Meta) those that a
strong solver passes and a weak one does not: both are bounds on the columns computed here (`MeasureSettings`).
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
    """Measure how hard each question is for each model: the QA table plus the pass rate in `pass_<name>`, from 0 to 1.
    Existing columns of a name are replaced.

    A `Teacher` answers every question `k` times with the prompt `solve` (answers in its ledger are not paid again;
    calls are added to `calls`), judged by `same_answer`. A model given by directory or name is measured by likelihood:
    the probability of the right choice among the choices; without choices, the probability that its continuation begins
    with the answer, a lower bound since other wordings may be right. With `student="samples"` it writes `k` answers to
    the bare question at temperature 1, judged in the same way.

    Sampled rates also have `pass_<name>_low` and `_high` (Wilson's 95% interval), `_n`, and `_unjudged`: samples that
    count as not passed because `same_answer` can't tell, or because they were refused, cut off or unreadable. For
    likelihoods these four are null. The rate is null, with a warning that counts the rows, if a teacher could not be
    reached for a sample of the row (call again: only missing samples are requested), if a choice is longer than the
    model's context, and by likelihood if several choices are right.

    Raises ValueError for a table without the columns of a QA table, k below 1, an unknown `student`, and as
    `Teacher.ask`.

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
            replies = solve(table, model, range(k))
            table = with_calls(table, "solve", [sum(keys, ()) for keys in _by_row(replies["keys"], k)])
            table["calls"] = [list(dict.fromkeys(calls)) for calls in table["calls"]]  # refinement may have made some
            answered = [set(outcomes) <= {*ANSWERED, "unparsed"} for outcomes in _by_row(replies["outcome"], k)]
            rates, reason = (
                _judge_samples(table, list(replies["value"]), k),
                "the model could not be reached: ask again",
            )
            rates = rates.where(pd.Series(answered, table.index, dtype=bool))
        elif student == SAMPLES:
            repeated = table.assign(answer=_answer_texts(table)).loc[table.index.repeat(k)]
            answers = write_answers(*load_model(model), repeated, seed=seed) if len(repeated) else []
            rates, reason = _judge_samples(table, answers, k), ""
        else:
            rates, reason = pd.DataFrame({"": _likelihoods(model, table)}), "a choice is too long, or several are right"
        rates = rates.reindex(columns=list(TYPES)).astype(TYPES)
        if missing := int(rates[""].isna().sum()):
            warnings.warn(
                f"{missing:,} of {len(table):,} questions have no pass rate of {name}: {reason}", stacklevel=2
            )
        table = table.assign(**{f"{PASS}{name}{column}": rates[column] for column in rates})
    return table


def _by_row(column: pd.Series, k: int) -> list[list]:
    """The values in lists of `k`, one for each row."""
    values = list(column)
    return [values[at : at + k] for at in range(0, len(values), k)]


def _answer_texts(table: pd.DataFrame) -> list[str]:
    """The texts of the right answers, not the letters of choices."""
    rows = zip(table["choices"], table["answer_index"], table["answer"], strict=True)
    return [answer if choices is None or pd.isna(at) else choices[int(at)] for choices, at, answer in rows]


def _judge_samples(table: pd.DataFrame, answers: list[str | None], k: int) -> pd.DataFrame:
    """Pass rates from samples, `k` consecutive ones for each row; None is a sample without a readable answer."""
    same = judge_answers(answers, table.assign(answer=_answer_texts(table)).loc[table.index.repeat(k)])
    rows = []
    for at in range(0, len(answers), k):
        each = list(zip(same[at : at + k], answers[at : at + k], strict=True))
        passed = sum(verdict is True for verdict, _ in each)
        low, high = wilson(passed, k)
        unjudged = sum(verdict is None and text != "" for verdict, text in each)
        rows.append((passed / k, low, high, k, unjudged))
    return pd.DataFrame(rows, index=table.index, columns=list(TYPES))


def _likelihoods(model: str | Path, table: pd.DataFrame) -> pd.Series:
    """Probabilities of the right answers, by the table's index; null where undefined (`measure_difficulty`)."""
    network, tokenizer = load_model(model)
    choice, by_id = table["choices"].notna(), {}
    if len(rows := table[choice & ~has_several_answers(table)]):
        by_id |= score(network, tokenizer, rows).set_index("id")["probability"].to_dict()
    if len(rows := table[~choice]):
        single_choice = rows.assign(choices=[[answer] for answer in rows["answer"]], answer_index=0)
        bits = score(network, tokenizer, single_choice).set_index("id")["bits_per_byte"]
        sizes = rows.set_index("id")["answer"].map(lambda answer: max(1, len(answer.encode())))
        by_id |= np.exp2(-bits * sizes[bits.index]).to_dict()
    return table["id"].map(by_id)
