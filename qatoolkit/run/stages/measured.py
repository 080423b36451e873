"""Measured difficulty in a run: pass rates of its seeds and of the questions it writes, and acceptance by them."""

from contextlib import nullcontext
from pathlib import Path

import pandas as pd

from qatoolkit.core.qa_table import PASS
from qatoolkit.evaluation.pass_rates import measure_difficulty
from qatoolkit.evaluation.settings import BOUNDS, MeasureSettings
from qatoolkit.run.contracts import stage
from qatoolkit.run.profiles import BASE, Profile
from qatoolkit.run.stages.teachers import teachers
from qatoolkit.run.store import Run

STUDENT, STRONG = "student", "strong"


@stage("pass_rates", reads=("base", "annotate"), settings=("measure", "teacher"), prompts=("solve",))
def pass_rates(run: Run, folder) -> dict:
    """Pass rates of the annotated seeds (`questions`): of the base student and, if `measure.k` is set, of the strong
    model. `qt.tables.difficulty_estimate` estimates the cost."""
    seeds, settings = run.read("annotate").seeds, run.profile.measure
    with teachers(run, "pass_rates") if settings.k else nullcontext() as roles:
        return {"questions": measured(run, settings, roles, seeds, run.model(BASE))}


def measured(run: Run, settings: MeasureSettings, roles, table: pd.DataFrame, student: Path) -> pd.DataFrame:
    """A table with the pass rates of a student and, with `k`, of the strong model."""
    models = {STUDENT: student} | ({STRONG: strong_model(settings, roles)} if settings.k else {})
    return measure_difficulty(table, models, settings.k or 1, student=settings.student, seed=run.seed)


def strong_model(settings: MeasureSettings, roles):
    """The teacher that questions are measured with: `measure.strong`, else the refiner."""
    return roles.named(settings.strong) if settings.strong else roles.refiner


def accept_measured(run: Run, profile: Profile, roles, outputs: dict, student: Path | None = None) -> dict:
    """The outputs of a strategy, with pass rates of the questions (of `student`, by default the base); questions
    outside the bounds of `profile.measure` move to the rejects, with the reason "gap". Unchanged if `measure.k` is
    0."""
    settings = profile.measure
    if not settings.k:
        return outputs
    table = measured(run, settings, roles, outputs["questions"], student or run.model(BASE))
    inside, details = within_bounds(table, settings)
    lost = table[~inside].assign(reason="gap", detail=details[~inside])
    return outputs | {
        "questions": table[inside].reset_index(drop=True),
        "rejects": pd.concat([outputs["rejects"], lost], ignore_index=True),
    }


def within_bounds(table: pd.DataFrame, settings: MeasureSettings) -> tuple[pd.Series, pd.Series]:
    """Whether each row is within all bounds, [rows] bool, and its rates and the bounds in words. A row without the rate
    of a bound is outside."""
    inside, bounds = pd.Series(True, table.index), []
    for name in BOUNDS:
        if (bound := getattr(settings, name)) is not None:
            rate = table[PASS + name.split("_")[0]]
            inside &= rate >= bound if name.endswith("least") else rate <= bound
            bounds.append(f"{name} {bound:g}")
    rates = [[f"{who} {_in_words(rate)}" for rate in table[PASS + who]] for who in (STRONG, STUDENT)]
    details = [f"{strong}, {student}; {', '.join(bounds)}" for strong, student in zip(*rates, strict=True)]
    return inside, pd.Series(details, table.index, dtype=object)


def _in_words(rate: float) -> str:
    return "not measured" if pd.isna(rate) else f"passes {rate:.3g}"


def hardest_first(seeds: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """Seeds with the student's pass rate from the probe's samples, for a strategy that starts with those passed
    least."""
    return seeds.assign(**{PASS + STUDENT: seeds["id"].map(samples.set_index("id")["probability"])})
