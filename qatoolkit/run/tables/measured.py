"""Tables on measured difficulty: the cost of measuring, pass rates by the rubric's levels, and how far the two
agree."""

import pandas as pd

from qatoolkit.core.qa_table import PASS
from qatoolkit.core.stats import rank_correlation, wilson
from qatoolkit.core.taxonomy import DIFFICULTIES
from qatoolkit.run.cost import estimate_requests
from qatoolkit.run.profiles import SEEDS
from qatoolkit.run.stages.measured import strong_model
from qatoolkit.run.stages.teachers import teachers
from qatoolkit.run.store import MissingUpstream, Run
from qatoolkit.teacher.solve import requests


def difficulty_estimate(run: Run, name: str = SEEDS) -> dict:
    """What `measure.k` answers of the strong model to each annotated seed, or to each question of a finished data set,
    will take: `cost.estimate_requests`."""
    table = run.read("annotate").seeds if name == SEEDS else run.read(name).questions
    profile = run.profile if name == SEEDS else run.profile.data_set(name)[1]
    with teachers(run, "pass_rates") as roles:
        return estimate_requests(
            strong_model(profile.measure, roles), requests(table, range(profile.measure.k)), "measure"
        )


def _measured(run: Run | pd.DataFrame) -> pd.DataFrame:
    """The measured seeds of a run, or a measured table as it is."""
    if isinstance(run, pd.DataFrame):
        return run
    if run.manifest("pass_rates") is None:
        raise MissingUpstream(
            f"run {run.name!r} has no measured seeds yet: run notebooks/03_probe.ipynb, or qt.stages.pass_rates(run)"
        )
    return run.read("pass_rates").questions


def _parts(run: Run | pd.DataFrame):
    """(model, form, measured rows with their `rate`) for each model and form; rates of choices and of written answers
    are not comparable, so they are not pooled."""
    table = _measured(run)
    form = table["choices"].notna().map({True: "choices", False: "open"})
    for model in (c.removeprefix(PASS) for c in table if c.startswith(PASS) and f"{c}_low" in table):
        for name, part in table.assign(rate=table[PASS + model]).groupby(form, sort=True):
            yield model, name, part.dropna(subset=["rate", "difficulty"])


def pass_rates_by_level(run: Run | pd.DataFrame) -> pd.DataFrame:
    """Mean pass rate by model, form (choices, open) and level of the rubric, of a run's seeds or of a table of
    `measure_difficulty`: model, form, difficulty, n, pass_rate, low, high. The interval is Wilson's for a share with
    that mean; for graded rates, which vary less than right or wrong, it is conservative. Rows without a rate do not
    count."""
    rows = []
    for model, form, part in _parts(run):
        for level in (level for level in DIFFICULTIES if part["difficulty"].eq(level).any()):
            rates = part.loc[part["difficulty"] == level, "rate"]
            rows.append((model, form, level, len(rates), rates.mean(), *wilson(rates.sum(), len(rates))))
    return pd.DataFrame(rows, columns=["model", "form", "difficulty", "n", "pass_rate", "low", "high"])


def difficulty_agreement(run: Run | pd.DataFrame) -> pd.DataFrame:
    """Do the rubric's levels agree with what a model passes? Spearman's rank correlation of level and pass rate, of a
    run's seeds or of a table of `measure_difficulty`, by model and form (choices, open), over all, by language and by
    discipline: model, form, on, n, correlation, low, high (95%, bootstrap over the questions). It is below zero if
    higher levels are passed less often, and null if one of the two does not vary."""
    rows = []
    for model, form, part in _parts(run):
        groups = {"all": part} | {v: rows for by in ("language", "discipline") for v, rows in part.groupby(by)}
        for on, rows_on in groups.items():
            found = rank_correlation(rows_on["difficulty"].map(DIFFICULTIES.index), rows_on["rate"])
            rows.append({"model": model, "form": form, "on": on} | found)
    return pd.DataFrame(rows, columns=["model", "form", "on", "n", "correlation", "low", "high"])
