"""The stage on scaling: students along model size, mid-training tokens and initial FLOPs, the laws through them, and
what they would have forecast."""

from pathlib import Path

import pandas as pd

from qatoolkit.core.files import read_json
from qatoolkit.core.stats import accuracy, cells, paired_difference
from qatoolkit.evaluation.blind import blind_to_training
from qatoolkit.run.contracts import stage
from qatoolkit.run.profiles import BASE
from qatoolkit.run.stages.data import choice_exams, exam_tables
from qatoolkit.run.stages.evaluation import scored
from qatoolkit.run.stages.training import (
    Trained,
    adopted,
    arm_job,
    arm_table,
    midtrain_job,
    probed,
    token_file,
    trained,
)
from qatoolkit.run.store import Run
from qatoolkit.scaling import points as sweeps
from qatoolkit.scaling.fits import fit_scaling
from qatoolkit.scaling.forecast import check_forecast, gain_by_scale


@stage(
    "scaling",
    reads=("base", "curate", "midtrain", "exams", "annotate"),
    settings=("student", "midtrain", "scaling", "ladder"),
)
def scaling(run: Run, folder: Path, *, arm: str | None = None) -> dict:
    """Base and mid-trained students of one arm (default: the main one) and of the control against model size,
    mid-training tokens and initial FLOPs.

    `runs` has one row per trained or base student (`student_row`), `cells` its accuracy by cell, `points` the same by
    axis with paired gains, `fits` the parameters of a law per axis and arm, `gains` how the gain changes along each
    axis, `checks` what the largest point of each axis would have been forecast as. `left_out` names the axes on which
    nothing varies."""
    arm, starts = arm or run.profile.main_arm, rungs(run)
    arms = [arm] + [run.profile.control] * bool(run.profile.scaling.control and run.profile.control not in (None, arm))
    size, tokens = next(iter(starts))[0], run.profile.midtrain.tokens
    points = sweeps.points(size, tokens, run.profile.scaling, list(starts))
    jobs = {}
    for name in arms:
        qa = token_file(run, arm_table(run, name))
        for p in points.to_dict("records"):
            if (p["size"], p["initial"]) == (size, 1.0):  # the arm itself, or the reference of an ablation
                whole = probed(run) if p["tokens"] == tokens else {}
                jobs[p["point"], name] = arm_job(run, name, tokens=p["tokens"], **whole)
            else:
                start = starts[p["size"], p["initial"]]
                jobs[p["point"], name] = midtrain_job(run, f"{name} {p['point']}", start, qa, tokens=p["tokens"])
    found = dict(zip(jobs, trained(run, list(jobs.values())), strict=True))
    samples = scored(run, [path for t in found.values() for path in (t.job.start, t.job.out)])
    rows, by_cell, unread = [], [], unread_scores(run, arm)
    resampled = {"resamples": run.profile.evaluate.bootstrap, "seed": run.seed}
    for p in points.to_dict("records"):
        trainings = {name: found[p["point"], name] for name in arms}
        of = {BASE: samples[trainings[arm].job.start]} | {n: samples[t.job.out] for n, t in trainings.items()}
        for name in (*arms, BASE):
            row = p | {"arm": name} | student_row(trainings[arm if name == BASE else name], base=name == BASE)
            row |= accuracy(of[name]).iloc[0].to_dict() | unread
            if "bits_per_byte" in of[name]:
                row["bits_per_byte"] = of[name]["bits_per_byte"].mean()
            if name == arm:
                over = arms[-1] if len(arms) > 1 else BASE
                gain = paired_difference(of[arm], of[over], **resampled)
                row |= {"over": over, "gain": gain["difference"], "gain_low": gain["low"], "gain_high": gain["high"]}
            rows.append(row)
            about = {k: row[k] for k in ("point", "arm", "size", "tokens", "initial", "parameters", "initial_flops")}
            by_cell.append(cells(of[name]).assign(**about))
    runs = pd.DataFrame(rows)
    table = sweeps.by_axis(runs)
    left_out = [axis for axis in sweeps.AXES if axis not in set(table["axis"])]
    if left_out:
        print(
            f"scaling: nothing varies on {', '.join(left_out)} (`ladder` names checkpoints for sizes and initial FLOPs)"
        )
    uses = list(dict.fromkeys(t.artifact for t in found.values()))
    grids = pd.concat(by_cell, ignore_index=True)
    return (
        {"runs": runs, "cells": grids, "points": table} | laws(table, run.seed) | {"left_out": left_out, "uses": uses}
    )


def student_row(training: Trained, *, base: bool) -> dict:
    """Compute of a mid-trained student, or of the base it starts from: parameters; the FLOPs of pre-training
    (initial_flops, initial_6nd_flops) and of mid-training (flops, 6nd_flops), each counted exactly (`training.flops`)
    and as six times parameters times tokens; initial_tokens; tokens_share, mid-training tokens over those of
    pre-training, and rate_share, the peak rate over that of pre-training, by which recipes compare across scales
    (Marin's practice).

    A null where nobody knows it: the compute of an adopted checkpoint is 6ND of its published tokens."""
    about, job = training.manifest, training.job
    parameters, before = about["parameters"], about["initial_tokens"]
    started = read_json(Path(job.start) / "training.json").get("job", {}).get("learning_rate")
    return {
        "parameters": parameters,
        "initial_tokens": before or None,
        "initial_flops": about["initial_flops"],
        "initial_6nd_flops": 6.0 * parameters * before or None,
        "flops": 0.0 if base else about["flops"],
        "6nd_flops": 0.0 if base else 6.0 * parameters * about["tokens"],
        "tokens_share": None if base or not before else about["tokens"] / before,
        "rate_share": None if base or not started else job.learning_rate / started,
    }


def laws(points: pd.DataFrame, seed: int) -> dict[str, pd.DataFrame]:
    """`fits`, `gains` and `checks` of the points of all axes; no rows where an axis has too few points, or varies
    nothing (the base on the axis of tokens)."""
    fits, checks = [], []
    for (axis, arm), part in points.groupby(["axis", "arm"], sort=False):
        own = part.rename(columns={"x": axis})
        if part["accuracy"].nunique() < 2 or part["chance"].isna().any():
            continue
        fit = fit_scaling(own, by=axis, seed=seed)
        about = {"axis": axis, "arm": arm, "law": fit.says, "points": len(part), "scatter": fit.scatter}
        fits += [about | row for row in fit.parameters.to_dict("records")]
        if part["x"].nunique() >= 3:
            checked = check_forecast(own, 1, axis, seed=seed)
            checks.append(checked.assign(axis=axis, arm=arm, points=len(part) - 1))
    gains = points.dropna(subset="gain").drop(columns=["low", "high"])
    gains = gain_by_scale(gains.rename(columns={"gain_low": "low", "gain_high": "high"}))
    columns = ["axis", "arm", "law", "points", "scatter", "parameter", "value", "low", "high"]
    first = ["axis", "arm", "points"]
    checks = pd.concat(checks, ignore_index=True) if checks else pd.DataFrame(columns=first)
    return {
        "fits": pd.DataFrame(fits, columns=columns),
        "gains": gains,
        "checks": checks[[*first, *(c for c in checks if c not in first)]],
    }


def unread_scores(run: Run, arm: str) -> dict[str, float | None]:
    """On the multiple-choice exams: `chance`, the accuracy of guessing, and `blind`, that of always taking the choice
    that is most often right in an arm's data (null for an arm without)."""
    tables, data = exam_tables(run), arm_table(run, arm)
    asked = [tables[name] for name in choice_exams(run)]
    rows = (
        pd.concat(asked, ignore_index=True).drop_duplicates("id") if asked else pd.DataFrame(columns=["answer_index"])
    )
    rows = rows[rows["answer_index"].notna()]
    blind = float(blind_to_training(rows, data).mean()) if len(data) and len(rows) else None
    return {"chance": float((1 / rows["choices"].map(len)).mean()) if len(rows) else None, "blind": blind}


def rungs(run: Run) -> dict[tuple[str, float], Path]:
    """Where mid-training can start, by size and share of the pre-training tokens; the run's student first.

    Rungs that were trained here, or the profile's ladder: an entry with as many parameters as the student is an earlier
    checkpoint of it, any other another size."""
    base, student = run.read("base"), run.profile.student
    if "general" in base.places:
        found = {(student.size, 1.0): run.model(BASE)}
        names = [place.removeprefix("rung ") for place in base.places if place.startswith("rung ")]
        found |= {(size, 1.0): run.place("base", f"rung {size}") for size in names if size != student.size}
        return found | {(student.size, s): run.model(BASE) / f"at-{s:g}" for s in run.profile.scaling.initial if s < 1}
    about = base.training
    found = {(about["name"], 1.0): run.model(BASE)}
    for entry in run.world.ladder():
        folder = adopted(run, entry.checkpoint, entry.revision).folder / "model"
        other = read_json(folder / "training.json")
        if other["parameters"] != about["parameters"]:
            found[other["name"], 1.0] = folder
        elif entry.tokens and about["initial_tokens"] and entry.tokens != about["initial_tokens"]:
            found[about["name"], entry.tokens / about["initial_tokens"]] = folder
    return found
