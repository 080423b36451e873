"""Measured numbers in the repository, with their sources (`data/README.md`)."""

from pathlib import Path

import pandas as pd

DATA = Path(__file__).resolve().parents[3] / "data"


def paper_reference() -> pd.DataFrame:
    """The papers' published headline numbers with their source."""
    return pd.read_csv(DATA / "paper_reference.csv")


def pythia() -> pd.DataFrame:
    """Zero-shot accuracy of the eight deduplicated Pythia models after 300B tokens, as published by EleutherAI: model,
    parameters, subject (an exam, or a discipline of MMLU), accuracy, n, chance. `accuracy` is lm-eval's acc; MMLU's
    subjects are pooled over their questions by this package's map of subjects."""
    table = pd.read_csv(DATA / "pythia.csv", keep_default_na=False)
    return table.assign(subject=table["exam"].where(table["discipline"] == "", "MMLU " + table["discipline"]))


def recipe_sweep() -> pd.DataFrame:
    """The demo's student mid-trained on BoostQA at four sizes with one setting varied, measured once with
    `qt.stages.sweep`: size, parameters, the dials (null if another is varied), accuracy, bits_per_byte of the right
    choice, n questions. One training seed."""
    return pd.read_csv(DATA / "recipe_sweep.csv")
