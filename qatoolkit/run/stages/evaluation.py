"""The stage `evaluate`: every exam for base and arms, paired differences, and scores of other models for later
stages."""

from pathlib import Path

import pandas as pd

from qatoolkit.core.artifacts import Artifact
from qatoolkit.core.stats import CELL, accuracy, cells, corrected, in_cells, mcnemar, paired_difference
from qatoolkit.core.taxonomy import LABELS
from qatoolkit.evaluation.bits import bits_difference, bits_per_byte, mean_bits_per_byte
from qatoolkit.evaluation.blind import blind_by_model, blind_to_position, blind_to_training
from qatoolkit.evaluation.cloze import load_model, score
from qatoolkit.evaluation.exams import evaluate_exams
from qatoolkit.evaluation.probe import UNLABELLED, fill_labels
from qatoolkit.run.contracts import stage
from qatoolkit.run.profiles import BASE
from qatoolkit.run.stages.data import choice_exams, choice_rows, exam_tables, exams_to_evaluate
from qatoolkit.run.stages.training import arm_table
from qatoolkit.run.stages.weakness import weak_parts
from qatoolkit.run.store import Run

BLIND = ["blind_training", "blind_model", "blind_position"]
EXTRAS = ["exact", "undecided", "per_byte", "per_token", "bits_per_byte", "chance", *BLIND]


def exam_rows(run: Run) -> pd.DataFrame:
    """The questions for the cloze scorer in one table: those with one right answer, of all multiple-choice exams in
    cloze form."""
    rows, about = choice_rows(run), run.read("exams").about
    cloze = [name for name, options in about.items() if not options["suite"] and options["form"] in (None, "cloze")]
    rows = rows[rows["exam"].isin(cloze)].drop_duplicates("id").reset_index(drop=True)
    return fill_labels(rows.reindex(columns=list(dict.fromkeys([*rows, *CELL]))))


@stage(
    "evaluate",
    reads=("base", "curate", "midtrain", "exams", "annotate", "plan"),
    settings=("evaluate", "world.general"),
)
def evaluate(run: Run, folder: Path) -> dict:
    """lm-eval on every exam for the base and every arm; accuracy by exam and cell, and the paired differences of the
    profile's `compare`. `general` has bits per byte of held-out general text, if the world has some. Tasks that a model
    was scored on before, in any run, are not run again.

    `over_blind` and `gains_by_blind` compare accuracies and differences with the blind readers (`evaluation.blind`),
    which do not see the question. Besides accuracy, `exams` has the means of `EXTRAS`: for written answers exact
    match and the share that could not be judged; for choices accuracy per byte and per token, bits per byte of the
    right choice, guessing, and the scores of the blind readers (`BLIND`)."""
    settings, exams = run.profile.evaluate, exams_to_evaluate(run)
    done = run.artifacts / "scores"
    models = {arm: run.model(arm) for arm in (BASE, *run.profile.arms)}
    options = {"scorer": settings.scorer, "batch": settings.batch, "folder": done, "workplace": folder / "tasks"}
    answered = {arm: evaluate_exams(model, exams, **options) for arm, model in models.items()}
    scores = [task["key"] for rows in answered.values() for task in rows.attrs["evaluation"]["tasks"]]
    samples = with_exam_labels(
        run, pd.concat([rows.assign(arm=arm) for arm, rows in answered.items()], ignore_index=True)
    )
    samples = judge_samples(samples, settings.judge).merge(blind(run, models), on=["arm", "exam", "id"], how="left")
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
    """Accuracy by arm and exam, with the means of `EXTRAS`, and in `blind` the highest of the blind scores."""
    means = samples.astype(dict.fromkeys(EXTRAS, float)).groupby(["arm", "exam"])[EXTRAS].mean().reset_index()
    return accuracy(samples, ["arm", "exam"]).merge(means.assign(blind=means[BLIND].max(axis=1)))


def judge_samples(samples: pd.DataFrame, judge: str) -> pd.DataFrame:
    """Samples with written answers to exported exams judged by exact match or by meaning (`evaluate.judge`), and
    columns `exact` and `undecided`, null for other samples."""
    written = samples["same"].notna()
    more = {"exact": samples["correct"].where(written), "undecided": (samples["same"] == "undecided").where(written)}
    samples = samples.assign(**more)
    if judge == "same_answer":
        samples["correct"] = samples["correct"].mask(written, samples["same"] == "same")
    return samples


def blind(run: Run, models: dict[str, Path]) -> pd.DataFrame:
    """Whether the blind readers answer right, for every arm and multiple-choice question with one right choice (arm,
    exam, id): `blind_training` takes the choice most often right in the arm's data (null for an arm without data),
    `blind_position` the position most often right there (null for one without choices), `blind_model` the choice that
    the arm's model finds most likely without the question, by letter in exams of the form `letter`."""
    rows, about, parts = choice_rows(run), run.read("exams").about, []
    forms = rows["exam"].map(lambda name: "letter" if about[name]["form"] == "letter" else "cloze")
    by_form = {form: part.drop_duplicates("id") for form, part in rows.groupby(forms.to_numpy())}
    for arm, model in models.items():
        data = arm_table(run, arm) if arm in run.profile.arms else pd.DataFrame()
        found = rows[["exam", "id"]].assign(arm=arm, **dict.fromkeys(BLIND))
        if len(data) and len(rows):
            found["blind_training"], found["blind_position"] = (
                blind_to_training(rows, data),
                blind_to_position(rows, data),
            )
        for form, unique in by_form.items():
            by_model = pd.Series(blind_by_model(model, unique, form=form).to_numpy(), unique["id"], dtype=object)
            found.loc[forms == form, "blind_model"] = rows["id"].map(by_model)
        parts.append(found)
    return pd.concat(parts, ignore_index=True).astype(dict.fromkeys(BLIND, "boolean"))


def with_exam_labels(run: Run, samples: pd.DataFrame) -> pd.DataFrame:
    """Samples with the labels of their exam's questions."""
    labels = pd.concat([t.assign(exam=name)[["exam", "id", *LABELS]] for name, t in exam_tables(run).items()])
    found = samples.drop(columns=list(LABELS)).merge(labels, on=["exam", "id"], how="left", validate="many_to_one")
    return fill_labels(found)[list(samples)]


def held_out(run: Run, models: dict[str, Path]) -> pd.DataFrame:
    """Bits per byte of held-out general text by model, and the difference to the base, paired over documents: arm,
    documents, bytes, bits_per_byte, difference, low, high. No rows if the world has no such text."""
    documents, rows, base = run.world.held_out(), [], None
    for arm, model in models.items() if documents else ():
        found = bits_per_byte(model, documents)
        base = found if base is None else base
        paired = bits_difference(found, base, resamples=run.profile.evaluate.bootstrap, seed=run.seed)
        about = {"arm": arm, "documents": len(found), "bytes": int(found["bytes"].sum())}
        rows.append(
            about | {"bits_per_byte": mean_bits_per_byte(found)} | {k: paired[k] for k in ("difference", "low", "high")}
        )
    columns = ["arm", "documents", "bytes", "bits_per_byte", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def comparisons(samples: pd.DataFrame, weak: pd.DataFrame, pairs, *, resamples: int, seed: int) -> pd.DataFrame:
    """Paired differences between arms on the multiple-choice exams, with McNemar's p, in the weak cells of the plan, in
    the others, and over all; `p_holm` is corrected for the number of pairs, within each of these (Holm)."""
    rows = []
    samples = samples.drop_duplicates(["arm", "id"])  # a question of two exams counts once
    for a, b in pairs:
        for on, group in by_weakness(samples, weak).items():
            pair = [group[group["arm"] == arm] for arm in (a, b)]
            found = paired_difference(*pair, resamples=resamples, seed=seed)
            rows.append({"a": a, "b": b, "on": on} | found | {"p_mcnemar": mcnemar(*pair)["p"]})
    table = pd.DataFrame(rows)
    return table.assign(p_holm=corrected(table, "p_mcnemar", "on")) if len(table) else table


def over_blind(samples: pd.DataFrame, weak: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """The accuracy of every arm on the multiple-choice exams compared with the blind readers (`evaluation.blind`), in
    the weak cells and over all: arm, on, n, accuracy, guessing, blind (the best reader's score; `reader` names it),
    and the paired difference of accuracy and blind score, with its 95% bootstrap interval."""
    rows = []
    for arm, of_arm in samples[samples["blind_model"].notna()].groupby("arm", sort=False):
        for on, part in by_weakness(of_arm.drop_duplicates("id"), weak).items():
            if on == "other" or part.empty:
                continue
            readers = {name: part[name].astype(float).mean() for name in BLIND if part[name].notna().all()}
            reader = max(readers, key=readers.get)
            blind_answers = part.assign(correct=part[reader].astype(bool))
            found = paired_difference(part, blind_answers, resamples=resamples, seed=seed)
            about = {"arm": arm, "on": on, "n": found.pop("n"), "accuracy": part["correct"].astype(float).mean()}
            about |= {"guessing": part["chance"].mean(), "blind": readers[reader], "reader": reader.split("_")[1]}
            rows.append(about | found)
    columns = ["arm", "on", "n", "accuracy", "guessing", "blind", "reader", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def gains_by_blind(samples: pd.DataFrame, weak: pd.DataFrame, pairs, *, resamples: int, seed: int) -> pd.DataFrame:
    """Paired differences between arms in the weak cells, separately for questions whose right choice is the one most
    often right in the first arm's data (blind right) and the others (blind wrong): gains on the latter do not come from
    choosing the most common answer. a, b, blind, difference, low, high, n, p_mcnemar, p_holm (corrected for the number
    of pairs); no rows if the first arm has no data."""
    samples, rows = by_weakness(samples.drop_duplicates(["arm", "id"]), weak)["weak"], []
    for a, b in pairs:
        of_a, of_b = (samples[samples["arm"] == arm] for arm in (a, b))
        for right in (True, False):
            chosen = of_a[of_a["blind_training"].eq(right).fillna(False).astype(bool)]
            pair = (chosen, of_b[of_b["id"].isin(chosen["id"])])
            found = paired_difference(*pair, resamples=resamples, seed=seed) | {"p_mcnemar": mcnemar(*pair)["p"]}
            rows += [{"a": a, "b": b, "blind": "right" if right else "wrong"} | found] if len(chosen) else []
    table = pd.DataFrame(rows, columns=["a", "b", "blind", "difference", "low", "high", "n", "p_mcnemar"])
    return table.assign(p_holm=corrected(table, "p_mcnemar", "blind"))


def by_weakness(samples: pd.DataFrame, weak: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Samples in the weak cells, in the others, and all; samples without a discipline are only in the last."""
    is_weak, known = in_cells(samples, weak), samples["discipline"] != UNLABELLED
    return {"weak": samples[is_weak], "other": samples[known & ~is_weak], "all": samples}


def score_models(run: Run, paths) -> dict[str, pd.DataFrame]:
    """Samples of models on the multiple-choice exams, by path, each scored once, with the labels of the questions.

    Exams in cloze form are scored with the cloze scorer, others by lm-eval with the fast one."""
    rows, found = exam_rows(run), {}
    not_cloze = set(choice_exams(run)) - set(rows["exam"])
    others = [exam for exam in exams_to_evaluate(run) if exam.name in not_cloze]
    done = run.artifacts / "scores"
    for path in dict.fromkeys(paths):
        parts = [rows[["id", *CELL]].merge(score(*load_model(path), rows), on="id")] if len(rows) else []
        if others:
            samples = evaluate_exams(path, others, scorer="fast", folder=done)
            parts.append(with_exam_labels(run, samples)[["id", *CELL, "correct", "margin"]])
        found[path] = pd.concat(parts, ignore_index=True)
    return found
