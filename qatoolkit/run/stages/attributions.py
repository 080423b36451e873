"""Gains traced to data: an arm trained without a part of its data, or with only that part, and the change in the
exams."""

from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import pandas as pd

from qatoolkit.core.settings import replace
from qatoolkit.core.stats import CELL, difference_over_seeds, holm
from qatoolkit.evaluation.probe import UNLABELLED
from qatoolkit.graph.coverage import kps_of_questions
from qatoolkit.graph.kp_graph import build_kp_graph
from qatoolkit.run.contracts import Stage
from qatoolkit.run.outputs import Outputs
from qatoolkit.run.stages.evaluation import score_models
from qatoolkit.run.stages.training import arm_job, midtrain_job, mixture_of, seed_range, token_file, train_jobs
from qatoolkit.run.store import Run
from qatoolkit.training.job import Job
from qatoolkit.training.tokens import open_tokens

By = Literal["discipline", "difficulty", "cell", "strategy", "dataset", "kps"]
How, Fill = Literal["without", "alone"], Literal["replay", "repeat"]
On = Literal["discipline", "difficulty", "cell"]
FEW = 20  # questions: a smaller part is not trained on its own, a smaller exam cell gets no p
ALL = "all"
_ATTRIBUTION = Stage(
    "attribution", reads=("exams", "annotate", "base", "curate"), settings=("student", "midtrain", "evaluate")
)


def attribution(
    run: Run,
    by: By = "discipline",
    *,
    arm: str | None = None,
    how: How = "without",
    fill: Fill = "replay",
    on: On | None = None,
    only: Collection[str] | None = None,
    tokens: int | None = None,
    seeds: int = 1,
    log=print,
) -> Outputs:
    """Which part of an arm's curated data (default: the main arm's) moves which exam cells: for each part a training
    without it, compared with the whole arm, or with only that part, compared with general text only.

    by: the column that divides the data into parts; "kps" are communities of linked knowledge points (Louvain's). on:
    the exam cells, by default those of `by`, else disciplines. fill: what replaces the tokens that are left out:
    general text, so that the other parts keep their number of tokens, or the remaining questions, read more often, so
    that general text keeps its. only: parts by name. tokens: of each training, by default those of an ablation. seeds:
    number of training seeds.

    A part with fewer than 20 questions is not trained unless it is named; `parts` lists it with the `reason`. `matrix`
    has a row per part and exam cell ("all" among them): `difference` is the accuracy with the part minus that without
    it, positive if the part helps, with low and high over questions and seeds (`core.stats.difference_over_seeds`), n,
    and p with Holm's correction over the matrix: McNemar's for one seed, else from the interval; null if n is below 20.
    `contrast` compares, on the questions of the parts' own cells, each question's own part with the mean of the others.
    With one seed, chance in the one reference training affects a whole column of the matrix; it cancels in `contrast`.
    `samples` has every answer. ValueError, before anything is trained, for an unknown part, column or arm."""
    arm = arm or run.profile.main_arm
    for name, value, kind, *more in (("by", by, By), ("how", how, How), ("fill", fill, Fill), ("on", on, On, None)):
        if value not in (allowed := (*get_args(kind), *more)):
            raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(str, allowed))}")
    if not run.profile.arms.get(arm):
        known = [name for name, sets in run.profile.arms.items() if sets]
        raise ValueError(f"arm is {arm!r}; it must be one that trains on data: {', '.join(known)}")
    for name, value in (("seeds", seeds), ("tokens", 1 if tokens is None else tokens)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}; it must be a whole number from 1")
    on = on or on_of(by)
    tokens = tokens or round(run.profile.midtrain.tokens * run.profile.ablation_tokens)
    rows = parts_of(run, arm, by)
    if unknown := [part for part in only or () if part not in set(rows["part"])]:
        raise ValueError(f"no part is called {unknown[0]!r}; there are {', '.join(sorted(rows['part'].unique()))}")

    def make(folder) -> dict:
        parts = sizes(run, rows, only)
        chosen = parts.loc[parts["reason"].isna(), "part"].tolist()
        control = midtrain_job(run, run.profile.control or "general_control", run.model("base"), None, tokens=tokens)
        plans = {None: arm_job(run, arm, tokens=tokens) if how == "without" else control} if chosen else {}
        for part in chosen:
            kept = rows[(rows["part"] == part) == (how == "alone")]
            name = f"{arm} without {part}" if how == "without" else f"{arm}, {part} alone"
            plans[part] = part_job(run, arm, name, kept, rows, fill, tokens)
        jobs = {(seed, part): replace(job, seed=seed) for seed in seed_range(run, seeds) for part, job in plans.items()}
        log(f"attribution: {len(jobs)} trainings of {tokens:,} tokens")
        found = dict(zip(jobs, train_jobs(run, list(jobs.values())), strict=True))
        answers = score_models(run, [t.job.out for t in found.values()])
        tables = [answers[t.job.out].assign(part=part, seed=seed) for (seed, part), t in found.items()]
        samples = (
            pd.concat(tables, ignore_index=True) if chosen else pd.DataFrame(columns=["part", "seed", "id", *CELL])
        )
        samples = samples.drop_duplicates(["part", "seed", "id"], ignore_index=True)
        gains = gains_by_part(samples, 1.0 if how == "alone" else -1.0)
        cells = labels(samples.drop_duplicates("id").set_index("id"), on)
        resampled = {"resamples": run.profile.evaluate.bootstrap, "seed": run.seed}
        return {
            "parts": parts,
            "matrix": matrix(gains, cells, chosen, **resampled),
            "contrast": contrast(gains, cells, chosen, **resampled),
            "samples": samples,
            "about": {"arm": arm, "by": by, "on": on, "how": how, "fill": fill, "tokens": tokens, "seeds": seeds},
            "uses": [t.artifact for t in found.values()],
        }

    asked = {"by": by, "arm": arm, "sets": run.profile.arms[arm], "how": how, "fill": fill, "on": on}
    asked |= {"only": sorted(only) if only else None, "tokens": tokens, "seeds": seeds}
    defaults = ((arm, run.profile.main_arm), (fill, "replay"), (on, on_of(by)))
    name = "-".join(["attribution", by, how, *(chosen for chosen, default in defaults if chosen != default)])
    return run.complete(name, _ATTRIBUTION, make, asked=asked, log=log)


def on_of(by: By) -> str:
    """The exam cells that parts are compared on by default."""
    return by if by in get_args(On) else "discipline"


def labels(table: pd.DataFrame, by: str) -> pd.Series:
    """A column of a QA or samples table, or discipline and difficulty together ("cell"), with "unlabelled" for null."""
    known = table[CELL if by == "cell" else [by]].astype(object).fillna(UNLABELLED)
    return known.agg(" ".join, axis=1) if len(known) else pd.Series(dtype=object)


def parts_of(run: Run, arm: str, by: By) -> pd.DataFrame:
    """An arm's curated questions with their data set and part."""
    curated = run.read("curate")
    rows = pd.concat([getattr(curated, name).assign(dataset=name) for name in run.profile.arms[arm]], ignore_index=True)
    return rows.assign(part=communities(run, rows) if by == "kps" else labels(rows, by))


def communities(run: Run, rows: pd.DataFrame) -> list[str]:
    """For each question the community that most of its knowledge points are in, named after the community's most
    frequent point; "unlabelled" without points. Communities are Louvain's, on the graph that links points of the same
    question."""
    import networkx as nx

    points = kps_of_questions(rows, run.read("annotate").seeds)["knowledge_points"]
    graph = build_kp_graph(pd.DataFrame({"id": range(len(rows)), "knowledge_points": points.to_numpy()}))
    community = {}
    for members in nx.community.louvain_communities(graph.to_networkx(), weight="weight", seed=run.seed):
        codes = graph.names.get_indexer(sorted(members))
        community |= dict.fromkeys(codes, graph.names[codes[np.argmax(graph.popularity[codes])]])
    by_question = graph.incidence.T.tocsr()
    found = [[community[code] for code in by_question.indices[a:b]] for a, b in pairwise(by_question.indptr)]
    return [max(sorted(set(names)), key=names.count, default=UNLABELLED) for names in found]


def sizes(run: Run, rows: pd.DataFrame, only: Collection[str] | None) -> pd.DataFrame:
    """One row per part, the largest first: questions, share of them, and why it is not trained, if it is not."""
    table = rows["part"].value_counts().rename_axis("part").rename("questions").reset_index()
    few = [f"{n} questions: fewer than {FEW}" if n < FEW else None for n in table["questions"]]
    named = [None if part in only else "not asked for" for part in table["part"]] if only else few
    return table.assign(share=table["questions"] / len(rows), reason=pd.Series(named, dtype=object))


def part_job(run: Run, arm: str, name: str, kept: pd.DataFrame, rows: pd.DataFrame, fill: str, tokens: int) -> Job:
    """The training of an arm on the rows that are kept. Each set gets its share of the QA tokens times the share of its
    tokens that is kept; `fill` decides what gets the rest."""
    sets, most = run.profile.arms[arm], run.profile.midtrain.max_epochs
    mixed = isinstance(sets, Mapping)
    shares, tables, left = dict(sets) if mixed else {"together": 1.0}, {}, {}
    for dataset, share in shares.items():
        whole, part = (t[t["dataset"] == dataset] if mixed else t for t in (rows, kept))
        if len(part):
            tables[dataset] = part
            left[dataset] = share * tokens_of(run, part) / tokens_of(run, whole)
    if not tables:
        return midtrain_job(run, name, run.model("base"), None, tokens=tokens)
    qa = mixture_of(run, tables, left, most) if mixed or most is not None else token_file(run, tables["together"])
    qa_share = (1 - run.profile.midtrain.replay) * (
        sum(left.values()) / sum(shares.values()) if fill == "replay" else 1
    )
    return midtrain_job(run, name, run.model("base"), qa, tokens=tokens, replay=round(1 - qa_share, 6))


def tokens_of(run: Run, table: pd.DataFrame) -> int:
    """The number of tokens in a table's documents."""
    return len(open_tokens(token_file(run, table)).tokens)


def gains_by_part(samples: pd.DataFrame, sign: float) -> list[pd.DataFrame]:
    """For each training seed, the change that each part makes to each question, with minus without it: ids by part, -1,
    0 or 1."""
    found = []
    for _, rows in samples.groupby("seed"):
        reference = rows[rows["part"].isna()].set_index("id")["correct"].astype(float)
        wide = rows[rows["part"].notna()].astype({"correct": float}).pivot(index="id", columns="part", values="correct")
        found.append(sign * wide.sub(reference, axis=0))
    return found


def mean_gain(gains: list[pd.Series], **resampled) -> dict:
    """Mean gain over questions and training seeds, with its interval."""
    frames = [gain.rename("correct").rename_axis("id").reset_index() for gain in gains]
    found = difference_over_seeds([(frame, frame.assign(correct=0.0)) for frame in frames], **resampled)
    return {name: found[name] for name in ("difference", "low", "high", "n", "seeds", "p")}


def matrix(gains: list[pd.DataFrame], cells: pd.Series, parts: list[str], **resampled) -> pd.DataFrame:
    """One row per part and exam cell, and per part over all questions (`attribution`)."""
    rows = []
    for part in parts:
        for on in [ALL, *sorted(cells.unique())]:
            ids = cells.index if on == ALL else cells.index[cells == on]
            gain = mean_gain([by_part.loc[ids, part] for by_part in gains], **resampled)
            rows.append({"part": part, "on": on, "own": part == on} | gain)
    columns = ["part", "on", "own", "difference", "low", "high", "n", "seeds", "p"]
    table = pd.DataFrame(rows, columns=columns).astype({"p": float}).assign(p_holm=float("nan"))
    table["p"] = table["p"].where(table["n"] >= FEW)
    for whole in (True, False):
        known = table[(table["on"] == ALL).eq(whole) & table["p"].notna()]
        table.loc[known.index, "p_holm"] = holm(known["p"].tolist())
    return table


def contrast(gains: list[pd.DataFrame], cells: pd.Series, parts: list[str], **resampled) -> pd.DataFrame:
    """On the questions of the parts' own exam cells: the gain from a question's own part, the mean gain from the other
    parts, and the difference of the two, paired by question. No rows if no part is named like a cell, or only one is
    trained."""
    inside, rows = cells[cells.isin(parts)], []
    if inside.empty or len(parts) < 2:
        return pd.DataFrame(columns=["of", "difference", "low", "high", "n", "seeds"])
    own, others = [], []
    for gain in gains:
        values = gain.loc[inside.index, parts]
        from_own = values.to_numpy()[np.arange(len(values)), values.columns.get_indexer(inside)]
        own.append(pd.Series(from_own, index=values.index))
        others.append((values.sum(axis=1) - own[-1]) / (len(parts) - 1))
    differences = [a - b for a, b in zip(own, others, strict=True)]
    for name, values in (("own part", own), ("other parts", others), ("own minus others", differences)):
        rows.append({"of": name} | mean_gain(values, **resampled))
    return pd.DataFrame(rows).drop(columns="p")
