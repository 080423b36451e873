"""The probe of a running training: the cloze scorer applied to the live model.

train(job, probe=live_probe)
train_all(jobs, worker="qatoolkit.evaluation.live_probe")
"""

import functools
from collections.abc import Callable

import pandas as pd

from qatoolkit.core.qa_table import read_table, require
from qatoolkit.core.stats import CELL, cells
from qatoolkit.evaluation.cloze import score
from qatoolkit.training.job import Job
from qatoolkit.training.parallel import serve


def live_probe(job: Job, tokenizer) -> Callable[[object], pd.DataFrame]:
    """A function from the live model to one row per discipline and difficulty with n, accuracy and mean margin (nats),
    on the questions of `job.probe` that have choices and one right answer.

    ValueError for a missing table, one without choices, or with missing labels."""
    table = _read_questions(job)
    cached = _CachedTokenizer(tokenizer)

    def ask(model) -> pd.DataFrame:
        samples = score(model, cached, table)
        grid = cells(table[["id", *CELL]].merge(samples, on="id", validate="one_to_one"))
        return grid[[*CELL, "n", "accuracy", "margin"]]

    return ask


class _CachedTokenizer:
    """A tokenizer that encodes the same list of texts only once, for all probes."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self._encode = functools.cache(lambda texts: tokenizer(list(texts)))

    def __call__(self, texts):
        return self._tokenizer(texts) if isinstance(texts, str) else self._encode(tuple(texts))

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)


def _read_questions(job: Job) -> pd.DataFrame:
    where = f"job {job.name!r}: probe {job.probe}"
    try:
        table = read_table(job.probe)
    except (OSError, ValueError) as error:
        raise ValueError(f"{where} is not a Parquet table ({error}); write the questions with write_table") from None
    require(where, table, "id", "question", "language", "choices", "answer_index", *CELL)
    table = table[table[["choices", "answer_index"]].notna().all(axis=1)].reset_index(drop=True)
    if table.empty:
        raise ValueError(f"{where} has no row with choices; give multiple-choice questions")
    if table[CELL].isna().any(axis=None):
        raise ValueError(f"{where} has rows without discipline or difficulty; annotate it first")
    return table


if __name__ == "__main__":
    serve(probe=live_probe)
