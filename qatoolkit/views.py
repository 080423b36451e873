"""Tables that notebooks show: each reads finished stages of a run and computes nothing that is stored."""

import os
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from qatoolkit import annotate as annotation
from qatoolkit.boostqa import degraded
from qatoolkit.decontaminate import decontaminate
from qatoolkit.display import Rich, facts, qa
from qatoolkit.kpgraph import KPGraph
from qatoolkit.ledger import Ledger
from qatoolkit.seeds import quality_report, read_seeds, summary
from qatoolkit.stages import exam_tables, textbook_world
from qatoolkit.store import Run, results_root
from qatoolkit.subjects import BENCHMARKS, with_disciplines
from qatoolkit.taxonomy import DIFFICULTIES, GRADES, HIGH, STEM
from qatoolkit.textbook.questions import Reader
from qatoolkit.walks import path_diagnostics, sample_paths

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


def agreement(run: Run) -> pd.DataFrame:
    """Agreement of the annotator with the labels by construction: n, accuracy, kappa, quadratic-weighted kappa."""
    labelled = run.read("annotate").seeds
    truth = gold(run, labelled)
    orders = {"discipline": None, "difficulty": DIFFICULTIES, "grade": tuple(GRADES)}
    return pd.DataFrame(
        [{"label": c} | annotation.agreement(labelled[c], truth[c], order) for c, order in orders.items()]
    )


def difficulty_confusion(run: Run) -> pd.DataFrame:
    """True difficulty (rows) against the annotator's (columns), in questions."""
    labelled = run.read("annotate").seeds
    return annotation.confusion(labelled["difficulty"], gold(run, labelled)["difficulty"], DIFFICULTIES)


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
