"""Probing: where is a model weak? Accuracy by discipline and difficulty, with intervals.

BoostQA probes models with annotated QA and finds them weak in STEM and at high difficulty; crossing the two in one grid
and the margin are our reading.
"""

import pandas as pd

from qatoolkit.core.stats import CELL
from qatoolkit.evaluation.cloze import load_model, score
from qatoolkit.evaluation.evaluate import evaluate

UNLABELLED = "unlabelled"


def probe(model, table: pd.DataFrame) -> pd.DataFrame:
    """Score an annotated multiple-choice table with a model (directory or name): one row per question with its labels,
    `correct` and `margin` (nats). Rows without choices are left out. ValueError for an empty table, a table without
    choices, and missing labels."""
    if table.empty:
        raise ValueError(
            "nothing to probe with: the table has no annotated seeds; for the reasons see run.read('annotate').rejects"
        )
    asked = table[table["choices"].notna()].reset_index(drop=True)
    if asked.empty:
        raise ValueError("nothing to probe with: no row of the table has choices")
    if asked[CELL].isna().any(axis=None):
        raise ValueError("the probe needs discipline and difficulty in every row: annotate the table first")
    network, tokenizer = load_model(model)
    samples = score(network, tokenizer, asked)
    return asked[["id", "language", *CELL]].merge(samples, on="id", validate="one_to_one")


def probe_tasks(model, suite, names: list[str] | None = None, **options) -> pd.DataFrame:
    """Probe a model (directory or name) with lm-eval tasks: samples as `evaluate` returns them, for `cells`.

    Discipline and difficulty are the question's own if it has them. Otherwise the discipline is that of the benchmark's
    subject (`seeds.subjects`), or "unlabelled". Takes `evaluate`'s suites and options and raises its errors; the
    default scorer is the fast one. Tasks with a graded metric are left out."""
    samples = evaluate(model, suite, names, **{"scorer": "fast"} | options)
    samples = samples[samples["correct"].notna()].reset_index(drop=True)
    if samples.empty:
        raise ValueError(f"nothing to probe with: no task of suite {suite!r} is scored as right or wrong")
    labels = samples[CELL].astype(object).fillna(UNLABELLED)
    return samples.assign(**labels, correct=samples["correct"].astype(bool))
