"""Labels from a teacher: discipline, difficulty and grade of every question, and how well they agree with gold labels.

BoostQA's annotation system; the rubric behind the five levels is our reading (`taxonomy.RUBRIC`).
"""

import numpy as np
import pandas as pd

from qatoolkit import prompts
from qatoolkit.taxonomy import DIFFICULTIES, DISCIPLINES, GRADES
from qatoolkit.teacher import Teacher

LABELS = {"discipline": tuple(DISCIPLINES), "difficulty": DIFFICULTIES, "grade": tuple(GRADES)}


def annotate(table: pd.DataFrame, teacher: Teacher, progress=None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Label every row of a QA table; labels that a row had are replaced.

    Returns the labelled rows and the rejects (refused, failed or unreadable), which keep their columns plus `reason` and
    `detail`; together they are the rows that came in."""
    messages = [
        prompts.messages("annotate", row.language, question=row.question, answer=row.answer)
        for row in table.itertuples()
    ]
    said = teacher.ask(messages, parse=_labels, ids=list(table["id"]), progress=progress)
    return split_answers(table, said, lambda value: value)


def split_answers(table: pd.DataFrame, said: pd.DataFrame, columns) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide `table` by what the teacher said, row by row: answered rows with `columns(value)` set, and rejects.

    Raises KeyboardInterrupt when the answers were interrupted: half a table is not a stage."""
    stop_if_interrupted(said)
    ok = (said["outcome"] == "ok").to_numpy()
    answered, rejects = table[ok].copy(), table[~ok].copy()
    values = pd.DataFrame([columns(v) for v in said.loc[ok, "value"]], index=answered.index)
    for name in values:
        answered[name] = values[name]
    failed = said[~ok]
    rejects["reason"] = failed["outcome"].to_numpy()
    rejects["detail"] = failed["error"].fillna(failed["content"]).fillna("").str.slice(0, 300).to_numpy()
    return answered.reset_index(drop=True), rejects.reset_index(drop=True)


def stop_if_interrupted(said: pd.DataFrame) -> None:
    """KeyboardInterrupt when Ctrl-C cut a teacher's answers short."""
    if (said["outcome"] == "interrupted").any():
        raise KeyboardInterrupt


def _labels(content: str) -> dict:
    value = prompts.read_json(content)
    for name, allowed in LABELS.items():
        if value.get(name) not in allowed:
            raise ValueError(f"{name} is {value.get(name)!r}; it must be one of {', '.join(allowed)}")
    return {name: value[name] for name in LABELS}


def agreement(labels: pd.Series, gold: pd.Series, order: tuple[str, ...] | None = None) -> dict:
    """Agreement of labels with gold labels, row by row: n, accuracy, Cohen's kappa and, where the labels have an `order`,
    quadratic-weighted kappa. Rows without a gold label do not count."""
    known = gold.notna().to_numpy() & labels.notna().to_numpy()
    a, b = labels.to_numpy()[known], gold.to_numpy()[known]
    classes = list(order or sorted(set(a) | set(b)))
    index = {label: i for i, label in enumerate(classes)}
    table = np.zeros((len(classes), len(classes)))
    np.add.at(table, ([index[x] for x in a], [index[x] for x in b]), 1)
    ranks = np.arange(len(classes))
    result = {"n": len(a), "accuracy": float((a == b).mean()) if len(a) else None}
    result["kappa"] = _kappa(table, (ranks[:, None] != ranks).astype(float))
    result["weighted_kappa"] = _kappa(table, (ranks[:, None] - ranks) ** 2.0) if order else None
    return result


def _kappa(table: np.ndarray, cost: np.ndarray) -> float | None:
    """One minus observed over expected cost of disagreement; None when chance alone would agree."""
    n = table.sum()
    expected = (np.outer(table.sum(1), table.sum(0)) / n * cost).sum() if n else 0.0
    return float(1 - (table * cost).sum() / expected) if expected else None


def confusion(labels: pd.Series, gold: pd.Series, order: tuple[str, ...]) -> pd.DataFrame:
    """Counts of gold label (rows) against label given (columns)."""
    return pd.crosstab(gold.to_numpy(), labels.to_numpy()).reindex(index=order, columns=order, fill_value=0)
