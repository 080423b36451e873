"""Tables that notebooks show: each reads finished stages of a run and computes nothing that is stored."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from qatoolkit import annotate as annotation
from qatoolkit import plan as planning
from qatoolkit.boostqa import degraded
from qatoolkit.decontaminate import decontaminate
from qatoolkit.display import Rich, facts, qa
from qatoolkit.estimate import asking, estimate
from qatoolkit.evaluate import accuracy, wilson
from qatoolkit.kpgraph import KPGraph
from qatoolkit.ledger import Ledger
from qatoolkit.seeds import quality_report, read_seeds, summary
from qatoolkit.stages import exam_tables, teachers, textbook_world
from qatoolkit.store import Run, results_root
from qatoolkit.subjects import BENCHMARKS, with_disciplines
from qatoolkit.taxonomy import DIFFICULTIES, DISCIPLINES, GRADES, HIGH, STEM
from qatoolkit.textbook.questions import Reader
from qatoolkit.walks import path_diagnostics, sample_paths

LABEL_ORDERS = {"discipline": None, "difficulty": DIFFICULTIES, "grade": tuple(GRADES)}
PAPER_REFERENCE = Path(__file__).resolve().parent.parent / "data" / "paper_reference.csv"


def exam_summary(run: Run) -> pd.DataFrame:
    """Questions, choices, disciplines and difficulties of every exam."""
    rows = []
    for name, table in exam_tables(run).items():
        counts = table["difficulty"].value_counts().reindex(DIFFICULTIES, fill_value=0)
        choices = table["choices"].map(len, na_action="ignore").max()
        rows.append(
            {
                "exam": name,
                "questions": len(table),
                "choices": "open" if pd.isna(choices) else int(choices),
                "disciplines": table["discipline"].nunique(),
            }
            | counts.to_dict()
        )
    return pd.DataFrame(rows)


def seed_sources(table: pd.DataFrame, quality: pd.DataFrame) -> pd.DataFrame:
    """`seeds.summary` with how the files of each source were read, from a quality report."""
    return summary(table).merge(quality[["source", "read_as"]].drop_duplicates("source"), on="source")


def seed_choices(table: pd.DataFrame) -> pd.DataFrame:
    """Multiple-choice questions with one right answer, by source: how many, their choices, the accuracy of guessing, and the
    share of right answers at each letter. Open questions and those with several right answers are left out."""
    one = table[table["choices"].notna() & table["answer_index"].notna()]
    many = one["choices"].map(len)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: int(many.max()) if len(one) else 0]
    rows = []
    for source, part in one.groupby("source", sort=False):
        counts, at = many[part.index], part["answer_index"].value_counts(normalize=True)
        row = {"source": source, "questions": len(part), "choices": _span(counts)}
        row |= {"guessing accuracy": float((1 / counts).mean())}
        rows.append(
            row
            | {f"{c} share": float(at.get(i, 0)) if i < counts.max() else None for i, c in enumerate(letters)}
        )
    columns = ["source", "questions", "choices", "guessing accuracy", *(f"{c} share" for c in letters)]
    return pd.DataFrame(rows, columns=columns)


def _span(counts):
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low} to {high}"


def seed_subjects(table: pd.DataFrame) -> pd.DataFrame:
    """Subjects that sources state themselves, and the benchmark whose subject map knows most of them.

    Columns: source, rows, subjects (different ones), subject share (of rows that state one), map, map share (of rows that
    get a discipline from it); map is null where no map knows a subject."""
    bare = table.assign(discipline=None)
    found = pd.DataFrame({name: with_disciplines(bare, name)["discipline"].notna() for name in BENCHMARKS})
    rows = []
    for source, part in table.groupby("source", sort=False):
        shares = found.loc[part.index].mean()
        rows.append(
            {
                "source": source,
                "rows": len(part),
                "subjects": part["subject"].nunique(),
                "subject share": part["subject"].notna().mean(),
                "map": shares.idxmax() if shares.max() else None,
                "map share": shares.max(),
            }
        )
    return pd.DataFrame(rows, columns=["source", "rows", "subjects", "subject share", "map", "map share"])


def real_seeds(folder: str | Path | None = None) -> SimpleNamespace:
    """Question files at hand: `found`, `seeds`, `rejects`, `quality` and `said`, a sentence on what was read.

    `folder`: else that of the environment variable QATOOLKIT_REAL_DATA. Nothing is raised where there is no such folder, or
    one that cannot be read: then `found` is False, the tables are empty, and `said` gives the reason."""
    folder = folder or os.environ.get("QATOOLKIT_REAL_DATA")
    try:
        if not folder:
            raise ValueError("the environment variable QATOOLKIT_REAL_DATA is not set")
        seeds, rejects = read_seeds(Path(folder))
        said = f"{len(seeds) + len(rejects):,} rows in = {len(seeds):,} accepted + {len(rejects):,} rejected."
    except (ValueError, OSError) as error:
        seeds, rejects = (t.iloc[:0] for t in read_seeds([{"question": "?", "answer": ""}]))  # the columns
        said = f"No real data here: {error}. Name a folder of JSONL, JSON, CSV or Parquet files in QATOOLKIT_REAL_DATA."
    return SimpleNamespace(
        found=bool(len(seeds) + len(rejects)),
        seeds=seeds,
        rejects=rejects,
        quality=quality_report(seeds, rejects),
        said=facts({"real data": said}),
    )


def gold(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """The labels by construction of a table's questions, row by row; null where the textbook does not know a question."""
    reader = Reader(textbook_world(run)[0])
    found = [reader.read(q) for q in table["question"]]
    columns = ("discipline", "difficulty", "grade")
    return pd.DataFrame(
        [{c: getattr(f[0], c) if f else None for c in columns} for f in found],
        columns=columns,
        index=table.index,
    )


def annotation_estimate(run: Run) -> dict:
    """What labelling the seeds will take, before anything is spent; requests that the ledger has answered are free."""
    messages = annotation.requests(run.read("seeds").seeds, run.profile.annotate.samples)
    with teachers(run, "annotate") as teacher:
        return asking(teacher.annotator, messages, "annotate")


def agreement(run: Run, table: pd.DataFrame | None = None) -> pd.DataFrame:
    """Agreement of an annotator (default: of the run's seeds) with the labels by construction, by language and over all: n,
    accuracy, kappa, quadratic-weighted kappa."""
    labelled = run.read("annotate").seeds if table is None else table
    truth, rows = gold(run, labelled), []
    for label, order in LABEL_ORDERS.items():
        for language in ("all", *sorted(labelled["language"].unique())):
            part = labelled["language"].eq(language) | (language == "all")
            found = annotation.agreement(labelled.loc[part, label], truth.loc[part, label], order)
            rows.append({"label": label, "language": language} | found)
    return pd.DataFrame(rows)


def confusion(run: Run, label: str) -> pd.DataFrame:
    """True labels (rows) against the annotator's (columns), in seed questions; `label` is difficulty, grade or discipline."""
    labelled, order = run.read("annotate").seeds, LABEL_ORDERS[label] or tuple(DISCIPLINES)
    return annotation.confusion(labelled[label], gold(run, labelled)[label], order)


def consensus_gain(run: Run, samples: int = 5, n: int = 200) -> pd.DataFrame:
    """What more samples are worth: agreement with the labels by construction of one answer and of the consensus of several,
    on the first `n` seeds, with the requests that each took. Empty where the truth is unknown."""
    table, rows = run.read("seeds").seeds.head(n), []
    if gold(run, table)["difficulty"].isna().all():
        return pd.DataFrame(rows)
    with teachers(run, "annotate") as teacher:
        for k in (1, samples):
            labelled, _ = annotation.annotate(table, teacher.annotator, k)
            found = agreement(run, labelled)
            found = found[found["language"] == "all"].drop(columns="language")
            rows.append(found.assign(samples=k, requests=k * len(table)))
    return pd.concat(rows, ignore_index=True).sort_values(["label", "samples"], ignore_index=True)


def subject_agreement(run: Run) -> pd.DataFrame:
    """The annotator's discipline against that of the subject which a seed's source names, by source and benchmark map: rows of
    the source, rows compared, accuracy, kappa; no rows where no seed names a subject of a map."""
    labelled, rows = run.read("annotate").seeds, []
    for source, part in labelled.groupby("source", sort=False):
        for benchmark in BENCHMARKS:
            mapped = with_disciplines(part.assign(discipline=None), benchmark)["discipline"]
            found = annotation.agreement(part["discipline"], mapped)
            rows += [{"source": source, "map": benchmark, "of": len(part)} | found] if found["n"] else []
    return pd.DataFrame(rows, columns=["source", "map", "of", "n", "accuracy", "kappa"])


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
    samples = run.read("probe").samples.nsmallest(n, "margin")
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
    rows = pd.concat([f[f["decided"] != "agreed"].reindex(columns=columns).head(n) for f in found])
    return rows.groupby("decided", sort=False).head(-(-n // 3)).head(n).reset_index(drop=True)


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
    (Wilson 95%), n. Empty for a real teacher."""
    rows = []
    for found in run.read("error_rates").answers.to_dict("records"):
        stages = {
            "before": ("wrong_before", "n"),
            "second answer": ("wrong_second", "n_second"),
            "after": ("wrong_after", "n_after"),
        }
        for stage, (share, count) in stages.items():
            low, high = wilson(round(found[share] * found[count]), found[count])
            place = {"teacher_error_rate": found["teacher_error_rate"], "stage": stage}
            rows.append(place | {"wrong": found[share], "low": low, "high": high, "n": found[count]})
    return pd.DataFrame(rows)


def spend(run: Run) -> pd.DataFrame:
    """The run's requests, tokens and cost in US dollars, by model and stage, over all sessions."""
    with Ledger(results_root() / "ledger.sqlite") as ledger:
        return ledger.spend(run.name)


def path_story(run: Run, seed: int = 0) -> Rich:
    """One question that was written along a path, with the path and the seeds it came from."""
    table = run.read("linkqa").linkqa
    row = table.sample(1, random_state=seed)
    seeds = run.read("annotate").seeds
    parents = seeds[seeds["id"].isin(row["parents"].iloc[0])]
    told = pd.concat([row, parents]).assign(
        role=["written from the path", *["seed on the path"] * len(parents)]
    )
    return qa(told, n=len(told), seed=None)


def frontier(run: Run, graph: KPGraph) -> pd.DataFrame:
    """Coverage and correlation with popularity of as many walks as there are linked KPs, over a grid of exponents."""
    rows = []
    n = max(1, int((graph.degree > 0).sum()))
    for alpha in (0.0, 0.5, 1.0):
        for beta in (0.0, 0.5, 1.0, 2.0):
            paths = sample_paths(graph, n, run.profile.linkqa.length, alpha=alpha, beta=beta, seed=run.seed)
            found = path_diagnostics(graph, paths).iloc[0]
            rows.append(
                {
                    "alpha": alpha,
                    "beta": beta,
                    "coverage": found["coverage"],
                    "popularity_correlation": found["spearman"],
                }
            )
    return pd.DataFrame(rows)


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


def paper_reference() -> pd.DataFrame:
    """The papers' published headline numbers with their source."""
    return pd.read_csv(PAPER_REFERENCE)
