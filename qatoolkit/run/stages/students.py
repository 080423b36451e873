"""The stage `scaling`: students along model size, mid-training tokens and initial FLOPs, the laws fitted to them, and
what these would have forecast."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from qatoolkit.core.files import read_json
from qatoolkit.core.stats import accuracy, cells, difference_over_seeds, wilson
from qatoolkit.evaluation.blind import blind_to_training
from qatoolkit.run.contracts import stage
from qatoolkit.run.profiles import BASE
from qatoolkit.run.stages.data import choice_rows
from qatoolkit.run.stages.evaluation import score_models
from qatoolkit.run.stages.training import (
    Trained,
    adopt_checkpoint,
    arm_job,
    arm_table,
    midtrain_job,
    probe_fields,
    qa_of,
    scaled_arms,
    seed_range,
    train_jobs,
    trunk_shares,
)
from qatoolkit.run.store import Run
from qatoolkit.scaling import points as sweeps
from qatoolkit.scaling.fits import fit_scaling
from qatoolkit.scaling.forecast import check_forecast, gain_by_scale

ABOUT = ("point", "arm", "seed", "size", "tokens", "initial", "parameters", "initial_flops")  # of a grid of cells


@stage(
    "scaling",
    reads=("base", "curate", "midtrain", "exams", "annotate"),
    settings=("student", "midtrain", "scaling", "ladder"),
)
def scaling(run: Run, folder: Path, *, arm: str | None = None) -> dict:
    """Base and mid-trained students of one arm (default: the main one) and of the control against model size,
    mid-training tokens and initial FLOPs.

    With `midtrain.schedule: wsd` the points along tokens are checkpoints of the arm's own training, a trunk with a
    short decay for each; with another schedule each point is a separate training.

    `runs` has one row per base or mid-trained student and training seed (`student_row`, `scaling.seeds`); `cells` their
    accuracy by cell; `points` the means over seeds by axis with paired gains; `fits` the parameters of a law per axis
    and arm; `gains` how the gain changes along each axis; `checks` the forecast of each axis's largest point from the
    others. `left_out` names the axes on which nothing varies."""
    arm, starts = arm or run.profile.main_arm, rungs(run)
    arms, along = scaled_arms(run, arm), trunk_shares(run)
    size, tokens = next(iter(starts))[0], run.profile.midtrain.tokens
    on_trunk = {round(share * tokens): share for share in along}
    points = sweeps.points(size, tokens, run.profile.scaling, list(starts))
    jobs, kept, seeds = {}, {}, seed_range(run, run.profile.scaling.seeds)
    first = seeds[0]
    for name in arms:
        qa = qa_of(run, name)
        for p, seed in itertools.product(points.to_dict("records"), seeds):
            key, is_student = (p["point"], name, seed), (p["size"], p["initial"]) == (size, 1.0)
            if is_student and (p["tokens"] == tokens or p["tokens"] in on_trunk):  # the arm itself, or its checkpoint
                probe = probe_fields(run) if seed == first else {}
                jobs[key], kept[key] = arm_job(run, name, seed=seed, keep=along, **probe), on_trunk.get(p["tokens"])
            elif is_student:  # the reference of an ablation, if it has as many tokens
                jobs[key] = arm_job(run, name, tokens=p["tokens"], seed=seed)
            else:
                start = starts[p["size"], p["initial"]]
                jobs[key] = midtrain_job(run, f"{name} {p['point']}", start, qa, tokens=p["tokens"], seed=seed)
    found = dict(zip(jobs, train_jobs(run, list(jobs.values())), strict=True))
    found = {key: t.kept(kept[key]) if kept.get(key) else t for key, t in found.items()}
    samples = score_models(run, [path for t in found.values() for path in (t.job.start, t.job.out)])
    runs, means, by_cell, baselines = [], [], [], blind_scores(run, arm)
    over = arms[-1] if len(arms) > 1 else BASE
    for p in points.to_dict("records"):
        students = {(name, seed): found[p["point"], name, seed] for name in arms for seed in seeds}
        scores = {key: samples[t.job.out] for key, t in students.items()}
        scores |= {(BASE, first): samples[students[arm, first].job.start]}
        for name in (*arms, BASE):
            rows = []
            for seed in seeds[:1] if name == BASE else seeds:
                row = p | {"arm": name, "seed": None if name == BASE else seed} | baselines
                row |= student_row(students[arm if name == BASE else name, seed], base=name == BASE)
                row |= accuracy(scores[name, seed]).iloc[0].to_dict()
                if "bits_per_byte" in scores[name, seed]:
                    row["bits_per_byte"] = scores[name, seed]["bits_per_byte"].mean()
                rows.append(row)
                about = {k: row[k] for k in ABOUT}
                by_cell.append(cells(scores[name, seed]).assign(**about))
            runs += rows
            means.append(over_seeds(rows))
            if name == arm:
                pairs = [(scores[arm, seed], scores[over, first if over == BASE else seed]) for seed in seeds]
                gain = difference_over_seeds(pairs, resamples=run.profile.evaluate.bootstrap, seed=run.seed)
                means[-1] |= {"over": over, "gain": gain.pop("difference")}
                means[-1] |= {f"gain_{end}": gain[end] for end in gain if end.endswith(("low", "high"))}
    runs, table = pd.DataFrame(runs), sweeps.by_axis(pd.DataFrame(means))
    left_out = [axis for axis in sweeps.AXES if axis not in set(table["axis"])]
    if left_out:
        print(
            f"scaling: nothing varies on {', '.join(left_out)} (`ladder` names checkpoints for sizes and initial FLOPs)"
        )
    uses = list(dict.fromkeys(t.artifact for t in found.values()))
    grids = pd.concat(by_cell, ignore_index=True)
    return (
        {"runs": runs, "cells": grids, "points": table}
        | laws(table, sweeps.by_axis(runs), run.seed)
        | {"left_out": left_out, "uses": uses}
    )


def over_seeds(rows: list[dict]) -> dict:
    """One row for all training seeds of a student: accuracy and bits per byte are means; the half-widths of the
    intervals over the questions (Wilson's) and over the seeds (Student's t) are added in quadrature."""
    found = rows[0] | {"seeds": len(rows)}
    del found["seed"]
    if len(rows) == 1:
        return found
    table, mean = pd.DataFrame(rows), float(np.mean([row["accuracy"] for row in rows]))
    half = stdtrit(len(rows) - 1, 0.975) * table["accuracy"].std() / np.sqrt(len(rows))
    low, high = (
        mean + side * np.hypot(mean - end, half)
        for side, end in zip((-1, 1), wilson(mean * found["n"], found["n"]), strict=True)
    )
    found |= {"accuracy": mean, "low": max(0.0, low), "high": min(1.0, high)}
    return found | ({"bits_per_byte": table["bits_per_byte"].mean()} if "bits_per_byte" in table else {})


def student_row(training: Trained, *, base: bool) -> dict:
    """Compute of a mid-trained student, or of the base it starts from: parameters; the FLOPs of pre-training
    (initial_flops, initial_6nd_flops) and of mid-training (flops, 6nd_flops), each counted exactly (`training.flops`)
    and as six times parameters times tokens; initial_tokens; tokens_share, mid-training tokens over those of
    pre-training, and rate_share, the peak rate over that of pre-training, which make recipes comparable across scales
    (Marin's practice).

    Unknown values are null. The compute of an adopted checkpoint is 6ND of its published tokens."""
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


def laws(points: pd.DataFrame, by_seed: pd.DataFrame, seed: int) -> dict[str, pd.DataFrame]:
    """`fits` and `checks` of all axes from the rows of single seeds, `gains` from their means; no rows for an axis with
    too few points, or along which accuracy is constant (the base on the axis of tokens)."""
    fits, checks = [], []
    for (axis, arm), part in by_seed.groupby(["axis", "arm"], sort=False):
        rows = part.rename(columns={"x": axis})
        if part["accuracy"].nunique() < 2 or part["chance"].isna().any():
            continue
        losses = "bits_per_byte" in part and part["bits_per_byte"].notna().all()
        for y in ("accuracy", "bits_per_byte")[: 1 + losses]:
            fit = fit_scaling(rows, y, by=axis, seed=seed)
            about = {"axis": axis, "arm": arm, "of": y, "law": fit.says}
            about |= {"points": part["x"].nunique(), "scatter": fit.scatter}
            fits += [about | row for row in fit.parameters.to_dict("records")]
        if part["x"].nunique() >= 3:
            checked = check_forecast(rows, 1, axis, through="bits_per_byte" if losses else None, seed=seed)
            checks.append(checked.assign(axis=axis, arm=arm, points=part["x"].nunique() - 1))
    gains = points.dropna(subset="gain").drop(columns=["low", "high"])
    gains = gain_by_scale(gains.rename(columns={"gain_low": "low", "gain_high": "high"}))
    columns = ["axis", "arm", "of", "law", "points", "scatter", "parameter", "value", "low", "high"]
    first = ["axis", "arm", "points"]
    checks = pd.concat(checks, ignore_index=True) if checks else pd.DataFrame(columns=first)
    return {
        "fits": pd.DataFrame(fits, columns=columns),
        "gains": gains,
        "checks": checks[[*first, *(c for c in checks if c not in first)]],
    }


def blind_scores(run: Run, arm: str) -> dict[str, float | None]:
    """Baselines on the multiple-choice exams: `chance`, the accuracy of guessing, and `blind`, that of always taking
    the choice that is most often right in an arm's data (null for an arm without data)."""
    rows, data = choice_rows(run).drop_duplicates("id"), arm_table(run, arm)
    blind = float(blind_to_training(rows, data).mean()) if len(data) and len(rows) else None
    return {"chance": float((1 / rows["choices"].map(len)).mean()) if len(rows) else None, "blind": blind}


def rungs(run: Run) -> dict[tuple[str, float], Path]:
    """The models that mid-training can start from, by size and share of the pre-training tokens; the run's student
    first.

    They are rungs that were trained here, or the profile's ladder: an entry with as many parameters as the student is
    an earlier checkpoint of it, any other entry another size."""
    base, student = run.read("base"), run.profile.student
    if "general" in base.places:
        found = {(student.size, 1.0): run.model(BASE)}
        names = [place.removeprefix("rung ") for place in base.places if place.startswith("rung ")]
        found |= {(size, 1.0): run.place("base", f"rung {size}") for size in names if size != student.size}
        return found | {(student.size, s): run.model(BASE) / f"at-{s:g}" for s in run.profile.scaling.initial if s < 1}
    about = base.training
    found = {(about["name"], 1.0): run.model(BASE)}
    for entry in run.world.ladder():
        folder = adopt_checkpoint(run, entry.checkpoint, entry.revision).folder / "model"
        other = read_json(folder / "training.json")
        if other["parameters"] != about["parameters"]:
            found[other["name"], 1.0] = folder
        elif entry.tokens and about["initial_tokens"] and entry.tokens != about["initial_tokens"]:
            found[about["name"], entry.tokens / about["initial_tokens"]] = folder
    return found
