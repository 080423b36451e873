"""Tables of exams and seeds: where they come from, their quality, and the reliability of their labels."""

import os
import warnings
from pathlib import Path
from string import ascii_uppercase
from types import SimpleNamespace

import pandas as pd

from qatoolkit.core.display import facts
from qatoolkit.core.stats import agreement as label_agreement
from qatoolkit.core.stats import confusion as label_confusion
from qatoolkit.core.taxonomy import DIFFICULTIES, LABELS, RUBRIC
from qatoolkit.run import cost
from qatoolkit.run.cost import estimate_requests
from qatoolkit.run.stages.data import exam_tables, unlabelled, with_stated_points
from qatoolkit.run.stages.teachers import teachers
from qatoolkit.run.store import Run
from qatoolkit.seeds.read import layout_report, quality_report, read_seeds, summary
from qatoolkit.seeds.subjects import BENCHMARKS, with_disciplines
from qatoolkit.synthesis import annotate as annotation
from qatoolkit.synthesis import knowledge_points


def parts(run: Run) -> pd.DataFrame:
    """The parts that a run uses (`cost.parts`): part, where it comes from, its size, and the dial that sets it."""
    return cost.parts(run.profile)


def exams(run: Run) -> dict[str, pd.DataFrame]:
    """The run's exams by name, as QA tables."""
    return exam_tables(run)


def levels() -> pd.DataFrame:
    """The levels of difficulty as the annotator's prompt defines them (`core.taxonomy.RUBRIC`, our reading): level,
    meaning."""
    return pd.DataFrame([{"level": level, "meaning": RUBRIC[level]["en"]} for level in DIFFICULTIES])


def exam_summary(run: Run) -> pd.DataFrame:
    """Questions, choices, disciplines and difficulties of every exam."""
    rows = []
    for name, table in exam_tables(run).items():
        choices = table["choices"].map(len, na_action="ignore").max()
        row = {"exam": name, "questions": len(table), "choices": "open" if pd.isna(choices) else int(choices)}
        counts = table["difficulty"].value_counts().reindex(DIFFICULTIES, fill_value=0)
        rows.append(row | {"disciplines": table["discipline"].nunique()} | counts.to_dict())
    return pd.DataFrame(rows)


def seed_sources(table: pd.DataFrame, quality: pd.DataFrame) -> pd.DataFrame:
    """`seeds.summary` with how the files of each source were read, from a quality report."""
    return summary(table).merge(quality[["source", "read_as"]].drop_duplicates("source"), on="source")


def seed_choices(table: pd.DataFrame) -> pd.DataFrame:
    """Multiple-choice questions with one right answer, by source: questions, number of choices, the accuracy of
    guessing, and the share of right answers at each letter."""
    questions = table[table["choices"].notna() & table["answer_index"].notna()]
    n_choices = questions["choices"].map(len)
    letters = ascii_uppercase[: int(n_choices.max()) if len(questions) else 0]
    rows = []
    for source, part in questions.groupby("source", sort=False):
        counts, by_index = n_choices[part.index], part["answer_index"].value_counts(normalize=True)
        span = " to ".join(str(n) for n in sorted({counts.min(), counts.max()}))
        shares = (float(by_index.get(i, 0)) if i < counts.max() else None for i in range(len(letters)))
        rows.append((source, len(part), span, float((1 / counts).mean()), *shares))
    columns = ["source", "questions", "choices", "guessing accuracy", *(f"{c} share" for c in letters)]
    return pd.DataFrame(rows, columns=columns)


def seed_subjects(table: pd.DataFrame) -> pd.DataFrame:
    """Subjects that sources state themselves, and the benchmark whose subject map has most of them.

    Columns: source, rows, subjects (distinct), subject share (of rows that state one), map (null if no map has one of
    the subjects), map share (of rows that get a discipline from it)."""
    bare = table.assign(discipline=None)
    found = pd.DataFrame({name: with_disciplines(bare, name)["discipline"].notna() for name in BENCHMARKS})
    rows = []
    for source, part in table.groupby("source", sort=False):
        shares, stated = found.loc[part.index].mean(), part["subject"]
        best = shares.idxmax() if shares.max() else None
        rows.append((source, len(part), stated.nunique(), stated.notna().mean(), best, shares.max()))
    return pd.DataFrame(rows, columns=["source", "rows", "subjects", "subject share", "map", "map share"])


def real_seeds(folder: str | Path | None = None) -> SimpleNamespace:
    """Public question files on this machine: `found`, `seeds`, `rejects`, `quality`, `layouts`, and `said`, a sentence
    on what was read.

    `folder`: by default that of the environment variable QATOOLKIT_REAL_DATA. A missing or unreadable folder is no
    error: `found` is False, the tables are empty, and `said` gives the reason."""
    folder = folder or os.environ.get("QATOOLKIT_REAL_DATA")
    try:
        if not folder:
            raise ValueError("the environment variable QATOOLKIT_REAL_DATA is not set")
        with warnings.catch_warnings(action="ignore"):  # the quality report has them
            seeds, rejects = read_seeds(Path(folder))
        sentence = f"{len(seeds) + len(rejects):,} rows in = {len(seeds):,} accepted + {len(rejects):,} rejected."
    except (ValueError, OSError) as error:
        seeds, rejects = (t.iloc[:0] for t in read_seeds([{"question": "?", "answer": ""}]))  # the columns
        sentence = f"No real data: {error}. Name a folder of JSONL, JSON, CSV or Parquet files in QATOOLKIT_REAL_DATA."
    found, quality = bool(len(seeds) + len(rejects)), quality_report(seeds, rejects)
    tables = {"seeds": seeds, "rejects": rejects, "quality": quality, "layouts": layout_report(seeds)}
    return SimpleNamespace(found=found, said=facts({"real data": sentence}), **tables)


def annotation_estimate(run: Run, samples: int | None = None, n: int | None = None) -> dict:
    """What the stage `annotate` will take: labels and knowledge points of all seeds, labels of exam questions without
    them (`cost.estimate_requests`). With `n`, the labels of the first `n` seeds with `samples` answers each, as the
    stage `consensus` asks for."""
    seeds = table = with_stated_points(run)
    if samples is None and run.profile.annotate.labels == "missing":
        seeds = seeds[seeds[list(LABELS)].isna().any(axis=1)]
    tables = [seeds.iloc[:n], *([unlabelled(run)] if n is None else [])]
    messages = [m for rows in tables for m in annotation.requests(rows, samples or run.profile.annotate.samples)]
    messages += knowledge_points.requests(table) if n is None else []
    with teachers(run, "annotate") as roles:
        return estimate_requests(roles.annotator, messages, "annotate")


def _truth(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """The labels by construction of a table's questions; null for questions that the run's world does not know."""
    truth = run.world.truth()
    labels = [truth.labels(q) if truth else dict.fromkeys(LABELS) for q in table["question"]]
    return pd.DataFrame(labels, columns=list(LABELS), index=table.index)


def agreement(run: Run, table: pd.DataFrame | None = None) -> pd.DataFrame:
    """Agreement of labels (default: those of the run's seeds) with the labels by construction, by language and over
    all: n, accuracy, kappa, quadratic-weighted kappa."""
    labelled = run.read("annotate").seeds if table is None else table
    truth, rows = _truth(run, labelled), []
    for label, order in (LABELS | {"discipline": None}).items():
        for language in ("all", *sorted(labelled["language"].unique())):
            part = labelled["language"].eq(language) | (language == "all")
            found = label_agreement(labelled.loc[part, label], truth.loc[part, label], order)
            rows.append({"label": label, "language": language} | found)
    return pd.DataFrame(rows)


def confusion(run: Run, label: str) -> pd.DataFrame:
    """Seed questions by true label (rows) and annotated label (columns); `label` is difficulty, grade or discipline."""
    labelled = run.read("annotate").seeds
    return label_confusion(labelled[label], _truth(run, labelled)[label], LABELS[label])


def consensus_gain(run: Run, labels: pd.DataFrame) -> pd.DataFrame:
    """Agreement with the labels by construction, of one answer and of the consensus of several, with the number of
    requests. `labels` are those of `qt.stages.consensus`. Empty if the truth is unknown."""
    columns = ["label", "n", "accuracy", "kappa", "weighted_kappa", "samples", "requests"]
    rows = []
    for k, labelled in labels.groupby("samples"):
        found = agreement(run, labelled).query("language == 'all'").assign(samples=int(k))
        rows.append(found.assign(requests=int(k) * len(labelled))[columns])
    if not rows:
        return pd.DataFrame(columns=columns)
    return pd.concat(rows, ignore_index=True).sort_values(["label", "samples"], ignore_index=True)


def subject_agreement(run: Run) -> pd.DataFrame:
    """The annotator's discipline against that of the subject that the source states, by source and benchmark map: of
    (rows of the source), n (rows compared), accuracy, kappa; no rows if no seed states a subject of a map."""
    labelled, rows = run.read("annotate").seeds, []
    for source, part in labelled.groupby("source", sort=False):
        for benchmark in BENCHMARKS:
            mapped = with_disciplines(part.assign(discipline=None), benchmark)["discipline"]
            found = label_agreement(part["discipline"], mapped)
            rows += [{"source": source, "map": benchmark, "of": len(part)} | found] if found["n"] else []
    return pd.DataFrame(rows, columns=["source", "map", "of", "n", "accuracy", "kappa"])
