"""Measured difficulty in a run: pass rates of its seeds and of what it writes, and acceptance by them."""

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
    """Pass rates of the annotated seeds (`questions`): of the base student and, where `measure.k` is set, of the strong
    model. `qt.tables.difficulty_estimate` says what it will take."""
    seeds, settings = run.read("annotate").seeds, run.profile.measure
    with teachers(run, "pass_rates") if settings.k else nullcontext() as by:
        return {"questions": measured(run, settings, by, seeds, run.model(BASE))}


def measured(run: Run, settings: MeasureSettings, by, table: pd.DataFrame, student: Path) -> pd.DataFrame:
    """A table with the pass rates of a student and, with `k`, of the strong model."""
    models = {STUDENT: student} | ({STRONG: strong_model(settings, by)} if settings.k else {})
    return measure_difficulty(table, models, settings.k or 1, student=settings.student, seed=run.seed)


def strong_model(settings: MeasureSettings, by):
    """The teacher that questions are measured with (`measure.strong`)."""
    return by.named(settings.strong) if settings.strong else by.refiner


def accept_measured(run: Run, profile: Profile, by, outputs: dict, student: Path | None = None) -> dict:
    """What a strategy returned, its questions with their pass rates (of `student`, by default the base); those outside
    the bounds of `profile.measure` are among the rejects, with the reason "gap". Unchanged where `measure.k` is 0."""
    settings = profile.measure
    if not settings.k:
        return outputs
    table = measured(run, settings, by, outputs["questions"], student or run.model(BASE))
    inside, details = within_bounds(table, settings)
    lost = table[~inside].assign(reason="gap", detail=details[~inside])
    return outputs | {
        "questions": table[inside].reset_index(drop=True),
        "rejects": pd.concat([outputs["rejects"], lost], ignore_index=True),
    }


def within_bounds(table: pd.DataFrame, settings: MeasureSettings) -> tuple[pd.Series, pd.Series]:
    """Which rows are within all bounds, [rows] bool, and in words what was measured of each row and the bounds. A row
    without a rate that a bound is on is outside."""
    inside, bounds = pd.Series(True, table.index), []
    for name in BOUNDS:
        if (bound := getattr(settings, name)) is not None:
            rate = table[PASS + name.split("_")[0]]
            inside &= rate >= bound if name.endswith("least") else rate <= bound
            bounds.append(f"{name} {bound:g}")
    rates = [[f"{who} {_said(rate)}" for rate in table[PASS + who]] for who in (STRONG, STUDENT)]
    details = [f"{strong}, {student}; {', '.join(bounds)}" for strong, student in zip(*rates, strict=True)]
    return inside, pd.Series(details, table.index, dtype=object)


def _said(rate: float) -> str:
    return "not measured" if pd.isna(rate) else f"passes {rate:.3g}"


def hardest_first(seeds: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """Seeds with the student's pass rate from the probe's samples, for a strategy that begins with those passed least."""
    return seeds.assign(**{PASS + STUDENT: seeds["id"].map(samples.set_index("id")["probability"])})
