"""Probing: where is a model weak? Accuracy by discipline and difficulty, with intervals.

BoostQA probes models with annotated QA and finds them weak in STEM and at high difficulty; the grid over both at once and
the margin are our reading.
"""

import pandas as pd

from qatoolkit.evaluate import accuracy
from qatoolkit.scorer import load_model, score

CELL = ["discipline", "difficulty"]


def probe(model, table: pd.DataFrame) -> pd.DataFrame:
    """Score an annotated multiple-choice table with a model (a directory or name): one row per question with its labels,
    `correct` and `margin`. Rows without choices are left out; ValueError if none has choices or labels are missing."""
    asked = table[table["choices"].notna()].reset_index(drop=True)
    if asked.empty:
        raise ValueError("nothing to probe with: no row of the table has choices")
    if asked[CELL].isna().any(axis=None):
        raise ValueError("the probe needs discipline and difficulty in every row: annotate the table first")
    network, tokenizer = load_model(model)
    samples = score(network, tokenizer, asked)
    return asked[["id", "language", *CELL]].merge(samples, on="id", validate="one_to_one")


def cells(samples: pd.DataFrame) -> pd.DataFrame:
    """The grid: one row per discipline and difficulty with n, accuracy, low, high and the mean margin in nats."""
    grid = accuracy(samples, CELL)
    if "margin" in samples:
        margin = samples.groupby(CELL, observed=True)["margin"].mean().rename("margin").reset_index()
        grid = grid.merge(margin, on=CELL)
    return grid.sort_values(CELL, ignore_index=True)


def weak(grid: pd.DataFrame, target: float, low_n: int) -> pd.DataFrame:
    """The cells below `target` accuracy that at least `low_n` questions speak for."""
    return grid[(grid["accuracy"] < target) & (grid["n"] >= low_n)].reset_index(drop=True)
