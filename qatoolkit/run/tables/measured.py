"""Tables on measured difficulty: what measuring takes, pass rates by the rubric's levels, and how far the two agree."""

import pandas as pd

from qatoolkit.core.qa_table import PASS
from qatoolkit.core.settings import turned
from qatoolkit.core.stats import rank_correlation, wilson
from qatoolkit.core.taxonomy import DIFFICULTIES
from qatoolkit.run.cost import asking
from qatoolkit.run.profiles import SEEDS
from qatoolkit.run.stages.measured import strong_model
from qatoolkit.run.stages.teachers import teachers
from qatoolkit.run.store import MissingUpstream, Run
from qatoolkit.teacher.solve import requests


def difficulty_estimate(run: Run, name: str = SEEDS) -> dict:
    """What `measure.k` answers of the strong model to each annotated seed, or to each question of a finished data set,
    will take: `cost.asking`."""
    table = run.read("annotate").seeds if name == SEEDS else run.read(name).questions
    profile = turned(run.profile, run.profile.data[name].dials) if name in run.profile.data else run.profile
    with teachers(run, "pass_rates") as by:
        return asking(strong_model(profile.measure, by), requests(table, profile.measure.k), "measure")


def measured_models(table: pd.DataFrame) -> list[str]:
    """The models whose pass rates a table has (`pass_<name>` and its interval)."""
    return [c.removeprefix(PASS) for c in table if c.startswith(PASS) and f"{c}_low" in table]


def _measured(run: Run | pd.DataFrame) -> pd.DataFrame:
    """The measured seeds of a run, or a measured table as it is."""
    if isinstance(run, pd.DataFrame):
        return run
    if run.manifest("pass_rates") is None:
        raise MissingUpstream(
            f"run {run.name!r} has no measured seeds yet: run notebooks/03_probe.ipynb, or qt.stages.pass_rates(run)"
        )
    return run.read("pass_rates").questions


def pass_rates_by_level(run: Run | pd.DataFrame) -> pd.DataFrame:
    """Mean pass rate by model and level of the rubric, of a run's seeds or of a table of `measure_difficulty`: model,
    difficulty, n, pass_rate, low, high. The interval is Wilson's of a share with that mean: for graded rates, which vary
    less than right and wrong, it is a wide one. Rows without a rate are not counted."""
    table, rows = _measured(run), []
    for model in measured_models(table):
        for level in DIFFICULTIES:
            rates = table.loc[table["difficulty"] == level, PASS + model].dropna()
            if len(rates):
                low, high = wilson(rates.sum(), len(rates))
                rows.append((model, level, len(rates), rates.mean(), low, high))
    return pd.DataFrame(rows, columns=["model", "difficulty", "n", "pass_rate", "low", "high"])


def difficulty_agreement(run: Run | pd.DataFrame) -> pd.DataFrame:
    """Do the rubric's levels order what a model passes? Spearman's rank correlation of level and pass rate, of a run's
    seeds or of a table of `measure_difficulty`, over all, by language and by discipline: model, on, n, correlation, low,
    high (95%, bootstrap over the questions). It is below zero where higher levels are passed less often; null where one
    of the two does not vary."""
    table, rows = _measured(run), []
    level = table["difficulty"].map({level: i for i, level in enumerate(DIFFICULTIES)})
    parts = {"all": pd.Series(True, table.index)}
    for column in ("language", "discipline"):
        values = sorted(table[column].dropna().unique())
        parts |= {value: table[column] == value for value in values if len(values) > 1}
    for model in measured_models(table):
        for on, part in parts.items():
            found = rank_correlation(level[part], table.loc[part, PASS + model])
            rows.append({"model": model, "on": on} | found)
    return pd.DataFrame(rows, columns=["model", "on", "n", "correlation", "low", "high"])
