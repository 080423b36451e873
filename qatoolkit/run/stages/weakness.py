"""Stages `probe` and `plan`: where the base student is weak, and the synthesis budget that follows."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from qatoolkit.core.stats import CELL, cells, weak
from qatoolkit.evaluation import probe as probing
from qatoolkit.evaluation.exams import evaluate_exams
from qatoolkit.run.contracts import stage
from qatoolkit.run.stages.data import exams_to_evaluate, probe_questions, task_ids
from qatoolkit.run.store import Run
from qatoolkit.synthesis.budget import plan_budget
from qatoolkit.synthesis.settings import PlanSettings


@stage("probe", reads=("base", "annotate", "exams"), settings=("probe.on", "probe.open_answers"))
def probe(run: Run, folder) -> dict:
    """The base student's accuracy by cell, on the annotated seeds or on the probe's part of the exams."""
    samples = probe_samples(run, run.model("base"))
    return {"samples": samples, "cells": cells(samples)}


def probe_samples(run: Run, model: Path) -> pd.DataFrame:
    """A model's answers to the probe's questions."""
    questions = probe_questions(run)
    from_tasks = questions["id"].isin(task_ids(run))  # lm-eval tasks have their own form
    if questions.empty:
        raise ValueError(
            "there is no question to probe with: qt.findings(run, 'annotate') shows why the seeds were rejected"
        )
    parts = []
    if not from_tasks.all():
        parts.append(probing.probe(model, questions[~from_tasks], open_answers=run.profile.probe.open_answers))
    if from_tasks.any():
        parts.append(_probe_tasks(run, model, questions[from_tasks]))
    return pd.concat(parts, ignore_index=True)


def _probe_tasks(run: Run, model, questions: pd.DataFrame) -> pd.DataFrame:
    """Samples of the probe's part of the exams that are lm-eval tasks."""
    exams = [replace(exam, keep=frozenset(questions["id"])) for exam in exams_to_evaluate(run) if exam.suite]
    samples = evaluate_exams(model, exams, scorer="fast")
    chance = (1 / questions["choices"].map(len, na_action="ignore")).fillna(0.0).astype(float)
    labels = questions.assign(chance=chance)[["id", "language", *CELL, "chance"]]
    return labels.merge(samples[["id", "given", "correct", "margin"]].dropna(subset=["correct"]), on="id")


@stage("plan", reads=("probe",), settings=("plan",))
def plan(run: Run, folder) -> dict:
    """The synthesis `budget` by cell that follows from the probe; `weak`, the weak cells; and `weak_disciplines`, for
    exam questions whose difficulty is unknown."""
    grid, settings = run.read("probe").cells, run.profile.plan
    known = probing.only_labelled(grid)
    if known.empty:
        raise ValueError(
            "the probe has no question with discipline and difficulty, so nothing can be planned: let the annotator "
            "label exam questions (evaluate.label), or probe on seeds (probe.on)"
        )
    pooled = run.read("probe").samples.assign(difficulty=probing.UNLABELLED)
    return {
        "budget": plan_budget(known, settings),
        "weak": weak_cells(grid, settings),
        "weak_disciplines": weak_cells(cells(pooled), settings),
    }


def weak_cells(grid: pd.DataFrame, settings: PlanSettings) -> pd.DataFrame:
    """The cells of a grid that are weak by the settings of a plan."""
    return weak(grid, settings.target, settings.low_n, settings.above_chance)


def weak_parts(run: Run) -> pd.DataFrame:
    """The cells that count as weak in an evaluation: those of the plan, and the weak disciplines for questions without
    a difficulty."""
    found = run.read("plan")
    return pd.concat([found.weak[CELL], found.weak_disciplines[CELL]], ignore_index=True)
