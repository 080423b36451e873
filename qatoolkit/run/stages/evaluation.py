"""Stages on evaluation: every exam for base and arms, paired differences, and the scaling axes."""

import tempfile
from pathlib import Path

import pandas as pd

from qatoolkit.core.artifacts import Artifact
from qatoolkit.core.stats import CELL, accuracy, cells, mcnemar, paired_difference
from qatoolkit.core.taxonomy import LABELS
from qatoolkit.evaluation.bits import bits_difference, bits_per_byte, mean_bits_per_byte
from qatoolkit.evaluation.blind import blind_by_model, blind_to_training
from qatoolkit.evaluation.cloze import load_model, score
from qatoolkit.evaluation.exams import evaluate_exams
from qatoolkit.evaluation.probe import UNLABELLED
from qatoolkit.run.contracts import stage
from qatoolkit.run.profiles import BASE
from qatoolkit.run.stages.data import choice_exams, choice_rows, exam_tables, examined
from qatoolkit.run.stages.training import arm_table
from qatoolkit.run.stages.weakness import weak_parts
from qatoolkit.run.store import STAGES, Run

BLIND = ["blind_training", "blind_model"]
BESIDE = ["exact", "undecided", "per_byte", "per_token", "bits_per_byte", "chance", *BLIND]


def exam_rows(run: Run) -> pd.DataFrame:
    """The questions of all multiple-choice exams that are asked in cloze form and have one right answer, in one table,
    for the cloze scorer."""
    rows, about = choice_rows(run), run.read("exams").about
    cloze = [name for name, how in about.items() if not how["suite"] and how["form"] in (None, "cloze")]
    rows = rows[rows["exam"].isin(cloze)].drop_duplicates("id").reset_index(drop=True)
    return labelled(rows.reindex(columns=list(dict.fromkeys([*rows, *CELL]))))


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with "unlabelled" where discipline or difficulty is unknown."""
    return rows.assign(**rows[CELL].astype(object).fillna(UNLABELLED))


@stage(
    "evaluate",
    reads=("base", "curate", "midtrain", "exams", "annotate", "plan"),
    settings=("evaluate", "world.general"),
)
def evaluate(run: Run, folder: Path) -> dict:
    """lm-eval on every exam for the base and every arm; accuracy by exam and cell, and the paired differences of the
    profile's `compare`. `general` has bits per byte of held-out general text, where the world has some. Tasks that a
    model was scored on before, in any run, are not run again.

    `over_blind` and `gains_by_blind` set accuracies and differences against who does not read the question.
    `exams` has beside accuracy the means of `BESIDE`: for written answers exact match and the share that could not be
    judged, for choices accuracy per byte and per token, bits per byte of the right one, guessing, and the two scores of
    who does not read the question (`evaluation.blind`)."""
    settings, exams = run.profile.evaluate, examined(run)
    done = run.root / STAGES / "scores"
    models = {arm: run.model(arm) for arm in (BASE, *run.profile.arms)}
    how = {"scorer": settings.scorer, "batch": settings.batch, "folder": done, "workplace": folder / "tasks"}
    answered = {arm: evaluate_exams(model, exams, **how) for arm, model in models.items()}
    scores = [task["key"] for rows in answered.values() for task in rows.attrs["evaluation"]["tasks"]]
    samples = with_exam_labels(
        run, pd.concat([rows.assign(arm=arm) for arm, rows in answered.items()], ignore_index=True)
    )
    samples = judged(samples, settings.judge).merge(blind(run, models), on=["arm", "exam", "id"], how="left")
    choice = samples[samples["exam"].isin(choice_exams(run))]
    resampled = {"resamples": settings.bootstrap, "seed": run.seed}
    grids = [cells(rows).assign(arm=arm) for arm, rows in choice.groupby("arm", sort=False)]
    return {
        "tasks": None,
        "samples": samples,
        "exams": exam_scores(samples),
        "cells": pd.concat(grids, ignore_index=True),
        "comparisons": comparisons(choice, weak_parts(run), run.profile.compare, **resampled),
        "over_blind": over_blind(choice, weak_parts(run), **resampled),
        "gains_by_blind": gains_by_blind(choice, weak_parts(run), run.profile.compare, **resampled),
        "general": held_out(run, models),
        "uses": [Artifact(done.parent, done.name, key).name for key in scores],
    }


def exam_scores(samples: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by arm and exam, with the means of `BESIDE`, and in `blind` the higher of the two blind scores."""
    beside = samples.astype(dict.fromkeys(BESIDE, float)).groupby(["arm", "exam"])[BESIDE].mean().reset_index()
    return accuracy(samples, ["arm", "exam"]).merge(beside.assign(blind=beside[BLIND].max(axis=1)))


def judged(samples: pd.DataFrame, judge: str) -> pd.DataFrame:
    """Samples whose written answers to exported exams are right by exact match or by meaning (`evaluate.judge`), with
    `exact` and `undecided`, null for others."""
    written = samples["same"].notna()
    more = {"exact": samples["correct"].where(written), "undecided": (samples["same"] == "undecided").where(written)}
    samples = samples.assign(**more)
    if judge == "same_answer":
        samples["correct"] = samples["correct"].mask(written, samples["same"] == "same")
    return samples


def blind(run: Run, models: dict[str, Path]) -> pd.DataFrame:
    """For every arm and multiple-choice question with one right choice (arm, exam, id): `blind_training`, whether the
    choice most often right in the arm's data is right, null for an arm without, and `blind_model`, whether the one is
    that its model finds most likely without the question."""
    rows, parts = choice_rows(run), []
    unique = rows.drop_duplicates("id")
    for arm, model in models.items():
        data = arm_table(run, arm) if arm in run.profile.arms else pd.DataFrame()
        found = rows[["exam", "id"]].assign(arm=arm, blind_training=None)
        if len(data) and len(rows):
            found["blind_training"] = blind_to_training(rows, data)
        by_model = pd.Series(blind_by_model(model, unique).to_numpy(), unique["id"], dtype=object)
        parts.append(found.assign(blind_model=rows["id"].map(by_model)))
    return pd.concat(parts, ignore_index=True).astype(dict.fromkeys(BLIND, "boolean"))


def with_exam_labels(run: Run, samples: pd.DataFrame) -> pd.DataFrame:
    """Samples with the labels of their exam's questions."""
    labels = pd.concat([t.assign(exam=name)[["exam", "id", *LABELS]] for name, t in exam_tables(run).items()])
    found = samples.drop(columns=list(LABELS)).merge(labels, on=["exam", "id"], how="left", validate="many_to_one")
    return labelled(found)[list(samples)]


def held_out(run: Run, models: dict[str, Path]) -> pd.DataFrame:
    """Bits per byte of held-out general text by model, and the difference to the base, paired over documents: arm,
    documents, bytes, bits_per_byte, difference, low, high. No rows where the world has no such text."""
    documents, rows, base = run.world.held_out(), [], None
    for arm, model in models.items() if documents else ():
        found = bits_per_byte(model, documents)
        base = found if base is None else base
        apart = bits_difference(found, base, resamples=run.profile.evaluate.bootstrap, seed=run.seed)
        about = {"arm": arm, "documents": len(found), "bytes": int(found["bytes"].sum())}
        rows.append(
            about | {"bits_per_byte": mean_bits_per_byte(found)} | {k: apart[k] for k in ("difference", "low", "high")}
        )
    columns = ["arm", "documents", "bytes", "bits_per_byte", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def comparisons(samples: pd.DataFrame, weak: pd.DataFrame, pairs, *, resamples: int, seed: int) -> pd.DataFrame:
    """Paired differences between arms on the multiple-choice exams, with McNemar's p: in the cells the probe found
    weak, in the others (strong), and over all."""
    rows = []
    samples = samples.drop_duplicates(["arm", "id"])  # a question of two exams counts once
    for a, b in pairs:
        for on, group in parts(samples, weak).items():
            pair = [group[group["arm"] == arm] for arm in (a, b)]
            found = paired_difference(*pair, resamples=resamples, seed=seed)
            rows.append({"a": a, "b": b, "on": on} | found | {"p_mcnemar": mcnemar(*pair)["p"]})
    return pd.DataFrame(rows)


def over_blind(samples: pd.DataFrame, weak: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """What every arm scores on the multiple-choice exams beside who does not read the question, in the weak cells and
    over all: arm, on, n, accuracy, guessing, blind (the better of the two readers of `evaluation.blind`; which, in
    `reader`), and the paired difference of accuracy and blind score, with its 95% bootstrap interval."""
    rows = []
    for arm, mine in samples[samples["blind_model"].notna()].groupby("arm", sort=False):
        for on, part in parts(mine.drop_duplicates("id"), weak).items():
            if on == "strong" or part.empty:
                continue
            readers = {name: part[name].astype(float).mean() for name in BLIND if part[name].notna().all()}
            reader = max(readers, key=readers.get)
            unread = part.assign(correct=part[reader].astype(bool))
            found = paired_difference(part, unread, resamples=resamples, seed=seed)
            about = {"arm": arm, "on": on, "n": found.pop("n"), "accuracy": part["correct"].astype(float).mean()}
            about |= {"guessing": part["chance"].mean(), "blind": readers[reader], "reader": reader.split("_")[1]}
            rows.append(about | found)
    columns = ["arm", "on", "n", "accuracy", "guessing", "blind", "reader", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def gains_by_blind(samples: pd.DataFrame, weak: pd.DataFrame, pairs, *, resamples: int, seed: int) -> pd.DataFrame:
    """Paired differences between arms in the weak cells, apart for questions whose right choice is the one most often
    right in the first arm's data (blind right) and others (blind wrong): what is gained on the latter does not come
    from taking the most common answer. a, b, blind, difference, low, high, n; no rows where the first arm has no data."""
    samples, rows = parts(samples.drop_duplicates(["arm", "id"]), weak)["weak"], []
    for a, b in pairs:
        one, other = (samples[samples["arm"] == arm] for arm in (a, b))
        for right in (True, False):
            first = one[one["blind_training"].eq(right).fillna(False).astype(bool)]
            pair = (first, other[other["id"].isin(first["id"])])
            found = paired_difference(*pair, resamples=resamples, seed=seed)
            rows += [{"a": a, "b": b, "blind": "right" if right else "wrong"} | found] if len(first) else []
    return pd.DataFrame(rows, columns=["a", "b", "blind", "difference", "low", "high", "n"])


def parts(samples: pd.DataFrame, weak: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Samples in the weak cells, in the others (strong), and all; those without a discipline are only in the last."""
    is_weak = pd.MultiIndex.from_frame(samples[CELL]).isin(pd.MultiIndex.from_frame(weak[CELL]))
    known = samples["discipline"] != UNLABELLED
    return {"weak": samples[is_weak], "strong": samples[known & ~is_weak], "all": samples}


def scored(run: Run, paths) -> dict[str, pd.DataFrame]:
    """Samples of some models on the multiple-choice exams, by path, each scored once; with the labels of the questions.

    Exams in cloze form go through the cloze scorer, others through lm-eval with the fast one."""
    rows, found = exam_rows(run), {}
    cloze = set(rows["exam"])
    others = [exam for exam in examined(run) if exam.name in choice_exams(run) and exam.name not in cloze]
    done = run.root / STAGES / "scores"
    for path in dict.fromkeys(paths):
        parts = [rows[["id", *CELL]].merge(score(*load_model(path), rows), on="id")] if len(rows) else []
        if others:
            with tempfile.TemporaryDirectory() as folder:
                asked = evaluate_exams(path, others, scorer="fast", folder=done, workplace=Path(folder))
            parts.append(with_exam_labels(run, asked)[["id", *CELL, "correct", "margin"]])
        found[path] = pd.concat(parts, ignore_index=True)
    return found
