"""Stages on evaluation: lm-eval on every exam for base and arms, paired differences, and the scaling axes."""

import warnings
from pathlib import Path

import pandas as pd

from qatoolkit.core.artifacts import Artifact
from qatoolkit.core.stats import CELL, accuracy, cells, mcnemar, paired_difference
from qatoolkit.evaluation.cloze import load_model, score
from qatoolkit.evaluation.evaluate import evaluate as ask
from qatoolkit.evaluation.tasks import export_tasks
from qatoolkit.run.profiles import BASE
from qatoolkit.run.stages.data import choice_exams, exam_tables
from qatoolkit.run.stages.training import arm_table, midtrain_job, token_file, trained
from qatoolkit.run.store import STAGES, Outputs, Run, Stage, stage
from qatoolkit.scaling import fits as sweeps

_EVALUATE = Stage("evaluate", reads=("base", "midtrain", "exams", "plan"), settings=("evaluate",))


def exam_rows(run: Run) -> pd.DataFrame:
    """The questions of all multiple-choice exams in one table, for the cloze scorer."""
    tables = exam_tables(run)
    return pd.concat([tables[name] for name in choice_exams(run)], ignore_index=True)


def evaluate(run: Run, *, log=print) -> Outputs:
    """lm-eval on every exam for the base and every arm; accuracy by exam and cell, and the paired differences of the
    profile's `compare`. Tasks that a model was scored on before, in any run, are not run again."""

    def make(folder: Path) -> dict:
        settings, exams = run.profile.evaluate, exam_tables(run)
        tasks = export_tasks(exams, folder / "tasks")
        done = run.root / STAGES / "scores"
        models = {arm: run.model(arm) for arm in (BASE, *run.profile.arms)}
        answered = {
            arm: ask(model, tasks, list(exams), batch=settings.batch, folder=done) for arm, model in models.items()
        }
        scores = [task["key"] for rows in answered.values() for task in rows.attrs["evaluation"]["tasks"]]
        samples = pd.concat([rows.assign(arm=arm) for arm, rows in answered.items()], ignore_index=True)
        samples = samples.rename(columns={"task": "exam"})
        choice = samples[samples["exam"].isin(choice_exams(run))]
        grids = [cells(rows).assign(arm=arm) for arm, rows in choice.groupby("arm", sort=False)]
        return {
            "tasks": None,
            "samples": samples,
            "exams": accuracy(samples, ["arm", "exam"]),
            "cells": pd.concat(grids, ignore_index=True),
            "comparisons": comparisons(
                choice, run.read("plan").weak, run.profile.compare, settings.bootstrap, run.seed
            ),
            "uses": [Artifact(done.parent, done.name, key).name for key in scores],
        }

    return run.complete("evaluate", _EVALUATE, make, log=log)


def comparisons(samples: pd.DataFrame, weak: pd.DataFrame, pairs, resamples: int, seed: int) -> pd.DataFrame:
    """Paired differences between arms on the multiple-choice exams, with McNemar's p: in the cells the probe found
    weak, in the others (strong), and over all."""
    rows = []
    for a, b in pairs:
        for on, group in parts(samples, weak).items():
            pair = [group[group["arm"] == arm] for arm in (a, b)]
            found = paired_difference(*pair, resamples=resamples, seed=seed)
            rows.append({"a": a, "b": b, "on": on} | found | {"p_mcnemar": mcnemar(*pair)["p"]})
    return pd.DataFrame(rows)


def parts(samples: pd.DataFrame, weak: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Samples in the weak cells, in the others (strong), and all."""
    is_weak = pd.MultiIndex.from_frame(samples[CELL]).isin(pd.MultiIndex.from_frame(weak[CELL]))
    return {"weak": samples[is_weak], "strong": samples[~is_weak], "all": samples}


def scored(run: Run, paths) -> dict[str, pd.DataFrame]:
    """Cloze samples of some models on the multiple-choice exams, by path, each scored once; with the labels of the
    questions."""
    exam = exam_rows(run)
    labels = exam[["id", *CELL]]
    return {path: labels.merge(score(*load_model(path), exam), on="id") for path in dict.fromkeys(paths)}


@stage("scaling", reads=("base", "curate", "midtrain", "exams"), settings=("student", "midtrain", "scaling"))
def scaling(run: Run, folder: Path, *, arm: str | None = None) -> dict:
    """Accuracy of base and mid-trained students of one arm (default: the main one) against model size, mid-training
    tokens and initial FLOPs.

    A user's own checkpoint has no rungs trained here: its points are those of the token axis, with a warning."""
    profile, arm = run.profile, arm or run.profile.main_arm
    points = sweeps.points(profile.scaling, profile.student, profile.midtrain)
    places = run.read("base").places
    there = points["size"].map(lambda size: f"rung {size}" in places) | (points.index == 0)
    if "general" not in places:
        there = (points["size"] == profile.student.size) & (points["initial"] == 1)
    if not there.all():
        warnings.warn(
            f"{(~there).sum()} of {len(points)} points need other sizes or earlier checkpoints of the student, which this "
            "run does not have; they are left out",
            stacklevel=2,
        )
    points = points[there].reset_index(drop=True)
    qa = token_file(run, arm_table(run, arm))
    jobs = []
    for p in points.to_dict("records"):
        full = p["size"] == profile.student.size
        start = run.model(BASE) if full else run.place("base", f"rung {p['size']}")
        start = start / f"at-{p['initial']:g}" if p["initial"] < 1 else start
        name = arm if not jobs else p["point"]  # the full run is the arm, trained already
        jobs.append(midtrain_job(run, name, start, qa, tokens=p["tokens"]))
    found = trained(run, jobs)
    points["parameters"] = [t.manifest["parameters"] for t in found]
    points["initial_flops"] = [t.manifest["initial_flops"] for t in found]
    samples = scored(run, [path for t in found for path in (t.job.out, t.job.start)])
    rows = []
    for p, t in zip(points.to_dict("records"), found, strict=True):
        for name, path in ((arm, t.job.out), (BASE, t.job.start)):
            rows.append(p | {"arm": name} | accuracy(samples[path]).iloc[0].to_dict())
    table = sweeps.by_axis(pd.DataFrame(rows))
    return {"points": table, "fits": sweeps.fits(table), "uses": [t.artifact for t in found]}
