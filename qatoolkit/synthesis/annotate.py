"""Labels from a teacher: discipline, difficulty and grade of every question.

BoostQA's annotation system; the rubric behind the five levels is our reading (`taxonomy.RUBRIC`).
"""

import statistics
from collections import Counter

import numpy as np
import pandas as pd

from qatoolkit.core.qa_table import require
from qatoolkit.core.taxonomy import LABELS
from qatoolkit.teacher import prompts
from qatoolkit.teacher.calls import stop_if_interrupted, with_calls
from qatoolkit.teacher.client import Teacher


def annotate(table: pd.DataFrame, teacher: Teacher, samples: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Label every row of a QA table of seeds, synthetic or benchmark questions; existing labels are replaced.

    With several `samples` the labels are their consensus (our reading: the most frequent discipline, the median of
    difficulty and grade), and `label_agreement` is the share of samples that gave all three labels of the consensus.
    Returns the labelled rows and the rejects (refused, failed or unreadable in at least half of the samples), which
    have all columns plus `reason` and `detail`. Every input row is in one of the two tables.

    >>> import qatoolkit as qt
    >>> rows = [{"question": "What is the chemical formula of water?", "answer": "H2O"}]
    >>> rows += [{"question": "Who chairs our chess club?", "answer": "Ada"}]
    >>> with qt.offline_teacher("textbook") as teacher:
    ...     labelled, rejects = qt.annotate(qt.qa_table(rows, language="en", source="mine"), teacher)
    >>> labelled[["question", "discipline", "difficulty", "grade"]]
                                     question discipline difficulty   grade
    0  What is the chemical formula of water?  chemistry         H1  middle
    >>> rejects[["question", "reason"]]
                         question   reason
    0  Who chairs our chess club?  refusal
    """
    ids = np.repeat(table["id"], samples)
    replies = teacher.ask(requests(table, samples), parse=_read_labels, ids=ids, label="annotate")
    answered, rejects = split_answers(table, _merge_samples(replies, samples), lambda v: v, "annotate")
    if samples == 1:
        answered = answered.drop(columns="label_agreement", errors="ignore")
    return answered.reset_index(drop=True), rejects.reset_index(drop=True)


def requests(table: pd.DataFrame, samples: int = 1) -> list[list[dict]]:
    """The chat messages that `annotate` sends, `samples` per row. From the second on they are numbered, because a cache
    or a deterministic server would repeat its answer."""
    require("the table to annotate", table, "id", "question", "answer", "language")
    return [
        prompts.messages("annotate", row["language"], **prompts.shown(row), **({"draw": sample} if sample else {}))
        for row in table.to_dict("records")
        for sample in range(samples)
    ]


def _merge_samples(replies: pd.DataFrame, samples: int) -> pd.DataFrame:
    """One row per question, from its `samples` replies: their consensus if the majority is readable, else the first
    unreadable reply. The ledger keys of all replies are kept."""
    rows, all_rows = [], replies.to_dict("records")
    for first in range(0, len(all_rows), samples):
        part = all_rows[first : first + samples]
        values = [row["value"] for row in part if row["outcome"] == "ok"]
        row = dict(next((row for row in part if row["outcome"] != "ok"), part[0]))
        if 2 * len(values) > samples:
            row |= {"outcome": "ok", "value": _consensus(values)}
        rows.append(row | {"keys": tuple(key for reply in part for key in reply["keys"])})
    return pd.DataFrame(rows, columns=replies.columns).astype(replies.dtypes)


def _consensus(values: list[dict]) -> dict:
    chosen = {"discipline": Counter(v["discipline"] for v in values).most_common(1)[0][0]}
    for name in ("difficulty", "grade"):
        order = LABELS[name]
        chosen[name] = order[statistics.median_low(order.index(v[name]) for v in values)]
    return chosen | {"label_agreement": sum(v == chosen for v in values) / len(values)}


def split_answers(table: pd.DataFrame, replies: pd.DataFrame, columns, step: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split `table` by the teacher's replies, one per row: answered rows with `columns(value)` set, and rejects.

    Both keep their index and list their calls in `calls` as "step/ledger key". Raises KeyboardInterrupt if the replies
    were interrupted: half a table must not pass for a finished stage."""
    stop_if_interrupted(replies)
    table = with_calls(table, step, replies["keys"])
    ok = (replies["outcome"] == "ok").to_numpy()
    answered, rejects = table[ok].copy(), table[~ok].copy()
    values = pd.DataFrame([columns(v) for v in replies.loc[ok, "value"]], index=answered.index)
    for name in values:
        answered[name] = values[name]
    failed = replies[~ok]
    rejects["reason"] = failed["outcome"].to_numpy()
    rejects["detail"] = failed["error"].fillna(failed["content"]).fillna("").str.slice(0, 300).to_numpy()
    return answered, rejects


def _read_labels(content: str) -> dict:
    value = prompts.read_json(content, "discipline")
    for name, allowed in LABELS.items():
        if value.get(name) not in allowed:
            raise ValueError(f"{name} is {value.get(name)!r}; it must be one of {', '.join(allowed)}")
    return {name: value[name] for name in LABELS}
