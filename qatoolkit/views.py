"""Tables that notebooks show: each reads finished stages of a run and computes nothing that is stored."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from qatoolkit import plan as planning
from qatoolkit.boostqa import degraded
from qatoolkit.decontaminate import decontaminate
from qatoolkit.estimate import estimate
from qatoolkit.evaluate import accuracy, paired_difference, wilson
from qatoolkit.ledger import Ledger
from qatoolkit.stages import exam_tables
from qatoolkit.store import Run, results_root
from qatoolkit.taxonomy import DIFFICULTIES, HIGH, STEM
from qatoolkit.views_evaluate import changed, evaluated, forms, paper12, scorers
from qatoolkit.views_links import (
    adjusted,
    around,
    asked_and_got,
    coverage,
    frontier,
    path_story,
    real_graph,
    told_walk,
    walk_control,
    walk_settings,
)
from qatoolkit.views_seeds import (
    agreement,
    annotation_estimate,
    confusion,
    consensus_gain,
    exam_summary,
    gold,
    real_seeds,
    seed_choices,
    seed_sources,
    seed_subjects,
    subject_agreement,
)
from qatoolkit.views_training import interrupted, job_file, needs, packing, schedules, souped

__all__ = [
    "adjusted",
    "against_seeds",
    "agreement",
    "annotation_estimate",
    "around",
    "asked_and_got",
    "by_level",
    "changed",
    "confusion",
    "consensus_gain",
    "coverage",
    "decisions",
    "degradation",
    "disputes",
    "evaluated",
    "exam_summary",
    "forms",
    "frontier",
    "gold",
    "interrupted",
    "job_file",
    "missed",
    "needs",
    "packing",
    "paper12",
    "paper_reference",
    "path_story",
    "plan_shares",
    "planted_contamination",
    "probe_summary",
    "real_graph",
    "real_seeds",
    "refinement_by_error_rate",
    "schedules",
    "scorers",
    "seed_choices",
    "seed_sources",
    "seed_subjects",
    "souped",
    "spend",
    "subject_agreement",
    "synthesis_counts",
    "synthesis_estimate",
    "told_walk",
    "walk_control",
    "walk_settings",
]

PAPER_REFERENCE = Path(__file__).resolve().parent.parent / "data" / "paper_reference.csv"


def synthesis_estimate(run: Run) -> pd.DataFrame:
    """Requests, tokens, money and hours of the synthesis that the run's profile asks for, by arm and task."""
    with Ledger(results_root() / "ledger.sqlite") as ledger:
        return estimate(run.profile, ledger)


def probe_summary(run: Run) -> pd.DataFrame:
    """The probe pooled over STEM and the rest, and over H1-H3 and H4-H5: n, accuracy with interval, mean margin in nats."""
    samples = run.read("probe").samples
    field = samples["discipline"].isin(STEM).map({True: "STEM", False: "other"})
    level = samples["difficulty"].isin(HIGH).map({True: "H4-H5", False: "H1-H3"})
    keyed = samples.assign(field=field, level=level)
    parts = [
        keyed,
        keyed.assign(level="all"),
        keyed.assign(field="all"),
        keyed.assign(field="all", level="all"),
    ]
    pooled = pd.concat(parts, ignore_index=True)
    margin = pooled.groupby(["field", "level"])["margin"].mean().rename("margin").reset_index()
    return (
        accuracy(pooled, ["field", "level"]).merge(margin).sort_values(["field", "level"], ignore_index=True)
    )


def missed(run: Run, n: int = 8) -> pd.DataFrame:
    """The seed questions that the base model missed with the widest margin (nats), with the answer it preferred."""
    samples = run.read("probe").samples
    samples = samples[~samples["correct"].astype(bool)].nsmallest(n, "margin")
    found = run.read("annotate").seeds.merge(samples[["id", "predicted", "margin"]], on="id")
    said = [choices[i] for choices, i in zip(found["choices"], found["predicted"], strict=True)]
    columns = ["discipline", "difficulty", "question", "answer", "model says", "margin"]
    return found.assign(**{"model says": said}).sort_values("margin")[columns]


def plan_shares(run: Run) -> pd.DataFrame:
    """The targeted plan beside the untargeted one, and beside what other targets would have planned: cells that get questions,
    shares of the budget in STEM and at H4-H5, and the largest cell."""
    grid, settings, stored = run.read("probe").cells, run.profile.plan, run.read("plan")
    plans = {f"targeted, {settings.target:g}": stored.targeted, "untargeted": stored.untargeted}
    for target in (0.5, 0.9):
        if ((grid["accuracy"] < target) & (grid["n"] >= settings.low_n)).any():
            plans[f"if the target were {target:g}"] = planning.targeted(
                grid, replace(settings, target=target)
            )
    rows = []
    for name, plan in plans.items():
        budget, top = plan["budget"], plan.loc[plan["budget"].idxmax()]
        rows.append(
            {
                "plan": name,
                "questions": int(budget.sum()),
                "cells": int((budget > 0).sum()),
                "STEM share": budget[plan["discipline"].isin(STEM)].sum() / budget.sum(),
                "H4-H5 share": budget[plan["difficulty"].isin(HIGH)].sum() / budget.sum(),
                "largest cell": f"{top['discipline']} {top['difficulty']} ({top['budget']})",
            }
        )
    return pd.DataFrame(rows)


def disputes(run: Run, n: int = 8) -> pd.DataFrame:
    """Answers on which the two teachers differed: the first, the second, what fresh samples decided, or that they could not."""
    stored = run.read("boostqa")
    columns = ["question", "first_answer", "second_answer", "answer", "decided"]
    unresolved = stored.boostqa_rejects
    unresolved = unresolved[unresolved["reason"] == "unresolved"]
    open_ones = unresolved.assign(first_answer=unresolved["answer"], answer=None, decided="no majority")
    found = [rows for rows in (stored.boostqa, open_ones) if "second_answer" in rows]
    if not found:
        return pd.DataFrame(columns=columns)
    rows = pd.concat([f[f["decided"] != "agreed"].reindex(columns=columns) for f in found])
    some = rows.sample(frac=1, random_state=0).groupby("decided").head(-(-n // 3))
    return some.sort_values("decided", kind="stable").head(n).reset_index(drop=True)


def synthesis_counts(run: Run, name: str) -> dict:
    """From questions written to questions kept, for "boostqa" or "linkqa"."""
    stored = run.read(name)
    made, kept, rejects = (getattr(stored, n) for n in (f"{name}_made", name, f"{name}_rejects"))
    return {
        "asked for": int(run.read("plan").targeted["budget"].sum()),
        "written, each once": len(made),
        "kept after refinement": len(kept),
        "STEM share": float(kept["discipline"].isin(STEM).mean()),
        "H4-H5 share": float(kept["difficulty"].isin(HIGH).mean()),
    } | {f"rejected: {reason}": int(n) for reason, n in rejects["reason"].value_counts().items()}


def against_seeds(run: Run, name: str) -> pd.DataFrame:
    """The annotated seeds and a synthetic data set one below the other, with a column `dataset`."""
    return pd.concat(
        [
            run.read("annotate").seeds.assign(dataset="seeds"),
            getattr(run.read(name), name).assign(dataset=name),
        ]
    )


def degradation(run: Run) -> pd.DataFrame:
    """Questions asked for at H4 and H5: how many, and the share labelled lower at the first attempt and in the end.

    The first attempts are those kept plus those that a better second attempt replaced."""
    stored = run.read("boostqa")
    kept = stored.boostqa_made
    replaced = stored.boostqa_rejects
    replaced = replaced[replaced["reason"] == "degraded"]
    rows = []
    for level in HIGH:
        final = kept[kept["asked_difficulty"] == level]
        first = pd.concat([final[final["attempt"] == 1], replaced[replaced["asked_difficulty"] == level]])
        rows.append(
            {
                "asked": level,
                "first n": len(first),
                "degraded at first (share)": degraded(first).mean(),
                "final n": len(final),
                "degraded in the end (share)": degraded(final).mean(),
            }
        )
    return pd.DataFrame(rows)


def decisions(run: Run) -> pd.DataFrame:
    """How refinement settled each answer: agreed at once, first, refined or other answer by majority, or rejected."""
    stored = run.read("boostqa")
    if "decided" not in stored.boostqa:
        return pd.DataFrame({"decided": ["refinement is switched off"], "questions": [len(stored.boostqa)]})
    counts = stored.boostqa["decided"].value_counts()
    counts["rejected, no majority"] = int((stored.boostqa_rejects["reason"] == "unresolved").sum())
    return counts.rename("questions").rename_axis("decided").reset_index()


def refinement_by_error_rate(run: Run) -> pd.DataFrame:
    """Wrong answers at each error rate of the offline synthesiser: stage (before, second answer, after), wrong, low, high
    (Wilson 95%), n. A stage without answers, as the second where refinement is off, has no row. Empty for a real teacher."""
    rows = []
    for found in run.read("error_rates").answers.to_dict("records"):
        stages = {
            "before": ("wrong_before", "n"),
            "second answer": ("wrong_second", "n_second"),
            "after": ("wrong_after", "n_after"),
        }
        for stage, (share, count) in stages.items():
            if not found[count]:
                continue
            low, high = wilson(round(found[share] * found[count]), found[count])
            place = {"teacher_error_rate": found["teacher_error_rate"], "stage": stage}
            rows.append(place | {"wrong": found[share], "low": low, "high": high, "n": found[count]})
    return pd.DataFrame(rows)


def spend(run: Run) -> pd.DataFrame:
    """The run's requests, tokens and cost in US dollars, by model and stage, over all sessions."""
    with Ledger(results_root() / "ledger.sqlite") as ledger:
        return ledger.spend(run.name)


def planted_contamination(run: Run, n: int = 20, seed: int = 0) -> pd.DataFrame:
    """A positive control: `n` exam questions per exam planted in the curated BoostQA, as they are and disguised by case and
    spacing; one row per kind with how many were planted and found."""
    clean = run.read("curate").boostqa
    against = exam_tables(run)
    rows = []
    for kind, disguise in (
        ("verbatim", str),
        ("upper case, double spaces", lambda q: q.upper().replace(" ", "  ")),
    ):
        planted = pd.concat([t.sample(min(n, len(t)), random_state=seed) for t in against.values()])
        planted = planted.assign(question=[disguise(q) for q in planted["question"]])
        found = set(decontaminate(pd.concat([clean, planted], ignore_index=True), against)["id"])
        rows.append(
            {
                "planted": kind,
                "questions": len(planted),
                "found": int(planted["id"].isin(found).sum()),
                "clean rows lost": int(clean["id"].isin(found).sum()),
            }
        )
    return pd.DataFrame(rows)


def by_level(run: Run) -> pd.DataFrame:
    """Paired differences on the multiple-choice exams by difficulty: BoostQA and LinkQA over the base student, and LinkQA over
    BoostQA, with 95% bootstrap intervals."""
    samples, settings = run.read("evaluate").samples, run.profile.evaluate
    samples = samples[samples["exam"] != "textbook_math"]
    rows = []
    for level in DIFFICULTIES:
        part = samples[samples["difficulty"] == level]
        for a, b in (("boostqa", "base"), ("linkqa", "base"), ("linkqa", "boostqa")):
            pair = [part[part["arm"] == arm] for arm in (a, b)]
            found = paired_difference(*pair, resamples=settings.bootstrap, seed=run.seed)
            rows.append({"difficulty": level, "a": a, "b": b} | found)
    return pd.DataFrame(rows)


def paper_reference() -> pd.DataFrame:
    """The papers' published headline numbers with their source."""
    return pd.read_csv(PAPER_REFERENCE)
