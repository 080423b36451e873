"""The flow, stage by stage: each function reads finished stages of a run, calls the library, and stores what it made.

Notebooks and the command line call these; every step inside is a plain function over tables that can be called by hand. A
stage whose settings and inputs have not changed is skipped (`store.stage`).
"""

import functools
import os
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd

from qatoolkit import boostqa as boost
from qatoolkit import linkqa as link
from qatoolkit import plan as planning
from qatoolkit import probe as probing
from qatoolkit.annotate import annotate as label
from qatoolkit.batches import BatchTeacher
from qatoolkit.config import TextbookSettings
from qatoolkit.curate import curate as curated
from qatoolkit.kp_merges import apply_merges, merge_candidates, read_merges
from qatoolkit.kpgraph import build_kp_graph
from qatoolkit.kps import kps_from_column
from qatoolkit.ledger import Ledger
from qatoolkit.schema import COLUMNS
from qatoolkit.seeds import quality_report, read_seeds
from qatoolkit.store import Run, results_root, stage
from qatoolkit.taxonomy import HIGH
from qatoolkit.teacher import Endpoint, Teacher
from qatoolkit.textbook import exams as textbook_exams
from qatoolkit.textbook import knowledge, sources
from qatoolkit.textbook.server import local_teacher, parts
from qatoolkit.textbook.tutor import MODELS, Tutor, error_rate
from qatoolkit.walks import path_diagnostics, sample_paths

BOOSTQA_ARMS = ("boostqa", "boostqa_untargeted")


@contextmanager
def teachers(run: Run, stage: str):
    """The run's synthesiser, refiner and annotator, and `named(model)` for any other, sharing one ledger; an offline teacher is
    started where no endpoint is set, and stopped afterwards."""
    settings = run.profile.teacher
    kind = BatchTeacher if settings.batch else Teacher
    with endpoint_of(run) as endpoint, Ledger(results_root() / "ledger.sqlite") as ledger:

        def named(model: str) -> Teacher:
            return kind(
                model,
                endpoint=endpoint,
                ledger=ledger,
                run=run.name,
                stage=stage,
                in_flight=settings.in_flight,
                timeout=settings.timeout,
                attempts=settings.attempts,
                max_tokens=settings.max_tokens,
                temperature=settings.temperature,
                budget=settings.budget,
                progress=True,
            )

        roles = {role: named(getattr(settings, role)) for role in ("synthesiser", "refiner", "annotator")}
        yield SimpleNamespace(**roles, named=named)


@contextmanager
def endpoint_of(run: Run):
    """The endpoint of the profile or of OPENAI_BASE_URL, else a local offline teacher."""
    settings = run.profile.teacher
    if settings.base_url:
        yield Endpoint(base_url=settings.base_url)
    elif not is_offline(run):
        yield Endpoint.from_env()
    else:
        with local_teacher(run.profile.textbook, log=results_root() / "teacher.log.jsonl") as url:
            yield Endpoint(base_url=url, name="offline-textbook")


def is_offline(run: Run) -> bool:
    """Whether the teachers of a run are the offline ones: neither the profile nor OPENAI_BASE_URL names an endpoint."""
    return not (run.profile.teacher.base_url or os.environ.get("OPENAI_BASE_URL"))


@stage("exams", settings=("textbook",))
def exams(run: Run, folder) -> dict:
    """The four exams of the textbook world, one table each."""
    books, n = parts(run.profile.textbook), run.profile.textbook.exam
    return {
        name: textbook_exams.exam(books[exam.language], name, n, run.seed)
        for name, exam in textbook_exams.EXAMS.items()
    }


def exam_tables(run: Run) -> dict[str, pd.DataFrame]:
    """The run's exams by name."""
    stored = run.read("exams")
    return {name: getattr(stored, name) for name in textbook_exams.EXAMS}


@stage("seeds", settings=("textbook", "seeds"), files=("seeds.sources",))
def seeds(run: Run, folder) -> dict:
    """Seed QA from the profile's sources, else from files written out of the textbook in several layouts."""
    settings, outputs = run.profile.seeds, {}
    paths = list(settings.sources)
    if not paths:
        paths = sources.write_sources(
            parts(run.profile.textbook), folder / "raw", run.profile.textbook.seeds, run.seed
        )
        outputs["raw"] = None
    table, rejects = read_seeds(paths, mapping=settings.mapping, licence=settings.licence)
    return outputs | {"seeds": table, "rejects": rejects, "quality": quality_report(table, rejects)}


@stage("annotate", reads=("seeds",), settings=("teacher", "annotate"))
def annotate(run: Run, folder) -> dict:
    """Discipline, difficulty and grade of every seed, by the annotator, and knowledge points: those that its source carries, else
    by the annotator too (`AnnotateSettings`)."""
    settings, table = run.profile.annotate, run.read("seeds").seeds
    if settings.knowledge_points == "all":
        table = table.assign(knowledge_points=None)
    parting = {"levels": settings.levels, "under": settings.under}
    table = kps_from_column(table, "knowledge_points", settings.separator, **parting)
    with teachers(run, "annotate") as teacher:
        labelled, rejects = label(table, teacher.annotator, settings.samples)
        labelled, more = link.extract(labelled, teacher.annotator)
    return {"seeds": labelled, "rejects": pd.concat([rejects, more], ignore_index=True)}


@stage("probe", reads=("base", "annotate"))
def probe(run: Run, folder) -> dict:
    """The base model's accuracy on the annotated seeds, by cell."""
    samples = probing.probe(run.read("base").model, run.read("annotate").seeds)
    return {"samples": samples, "cells": probing.cells(samples)}


@stage("plan", reads=("probe",), settings=("plan",))
def plan(run: Run, folder) -> dict:
    """The synthesis budget by cell, targeted at what the probe found, and the untargeted control."""
    grid, settings = run.read("probe").cells, run.profile.plan
    return {
        "targeted": planning.targeted(grid, settings),
        "untargeted": planning.untargeted(grid, settings),
        "weak": probing.weak(grid, settings.target, settings.low_n),
    }


@stage("boostqa", reads=("annotate", "plan"), settings=("teacher", "boostqa"))
def boostqa(run: Run, folder) -> dict:
    """BoostQA for the targeted plan and for the untargeted one: synthesis, then refinement."""
    seeds, plans, outputs = run.read("annotate").seeds, run.read("plan"), {}
    with teachers(run, "boostqa") as teacher:
        for arm, plan in zip(BOOSTQA_ARMS, (plans.targeted, plans.untargeted), strict=True):
            made, table, rejects = synthesise_and_refine(run, teacher, seeds, plan, run.profile.boostqa)
            outputs |= {f"{arm}_made": made, arm: table, f"{arm}_rejects": rejects}
    counted = refinement(run, *(outputs[f"boostqa{part}"] for part in ("_made", "", "_rejects")))
    return outputs | {"refinement": counted}


def synthesise_and_refine(run: Run, teacher, seeds: pd.DataFrame, plan: pd.DataFrame, settings):
    """(written, refined, rejects) of one BoostQA variant; `settings` says which parts are on."""
    made, rejects = boost.synthesise(seeds, plan, teacher.synthesiser, teacher.annotator, settings, run.seed)
    return made, *_refined(made, rejects, teacher, settings)


def _refined(made: pd.DataFrame, rejects: pd.DataFrame, teacher, settings):
    """(refined, rejects) of what was written, as it is where refinement is off."""
    if not settings.refine:
        return made, rejects
    table, unresolved = boost.refine(made, teacher.refiner, settings)
    return table, pd.concat([rejects, unresolved], ignore_index=True)


def refinement(run: Run, made: pd.DataFrame, table: pd.DataFrame, rejects: pd.DataFrame) -> dict:
    """Shares of wrong answers against the textbook's truth: as written, as the second teacher answered, and as decided; nulls
    where the truth is unknown (questions from a real teacher)."""
    before, n = wrong_answers(run, made)
    after, kept = wrong_answers(run, table)
    answered = [rows[rows["second_answer"].notna()] for rows in (table, rejects) if "second_answer" in rows]
    second = pd.concat(answered) if answered else made[:0].assign(second_answer=None)
    return {
        "wrong_before": before,
        "wrong_second": wrong_answers(run, second.assign(answer=second["second_answer"]))[0],
        "wrong_after": after,
        "n": n,
        "n_second": len(second),
        "n_after": kept,
        "rejected": len(made) - len(table),
    }


def wrong_answers(run: Run, table: pd.DataFrame) -> tuple[float | None, int]:
    """The share of a table's answers that are wrong, and how many the textbook could judge; None where it could judge none."""
    tutor = _tutor(run.profile.textbook)
    checks = [tutor.is_correct(q, a) for q, a in zip(table["question"], table["answer"], strict=True)]
    known = [not c for c in checks if c is not None]
    return (sum(known) / len(known) if known else None), len(known)


@functools.lru_cache(maxsize=1)
def _tutor(settings: TextbookSettings) -> Tutor:
    return Tutor(knowledge.load(), parts(settings))


@stage("error_rates", reads=("annotate", "probe"), settings=("teacher", "boostqa", "plan", "textbook"))
def error_rates(run: Run, folder) -> dict:
    """BoostQA in small with each offline synthesiser: what refinement and the check of difficulty are worth when the teacher
    errs more or less often. Empty tables for a real teacher, whose truth is unknown."""
    seeds, settings = run.read("annotate").seeds, run.profile.boostqa
    plan = planning.targeted(run.read("probe").cells, replace(run.profile.plan, questions=settings.trial))
    answers, levels = [], []
    if not is_offline(run):
        return {"answers": pd.DataFrame(answers), "levels": pd.DataFrame(levels)}
    with teachers(run, "error_rates") as teacher:
        for model in (model for model in MODELS if error_rate(model)):
            teacher.synthesiser = teacher.named(model)
            made, table, rejects = synthesise_and_refine(run, teacher, seeds, plan, settings)
            rate = {"teacher": model, "teacher_error_rate": error_rate(model)}
            answers.append(rate | refinement(run, made, table, rejects))
            levels.append(rate | high_shares(plan, made, table, rejects))
    return {"answers": pd.DataFrame(answers), "levels": pd.DataFrame(levels)}


def high_shares(plan: pd.DataFrame, made: pd.DataFrame, table: pd.DataFrame, rejects: pd.DataFrame) -> dict:
    """H4 and H5 together: share of the questions asked for, shares of those asked for there that were labelled lower at the
    first attempt and in the end, and share of the accepted questions by their labels."""
    asked = made[made["asked_difficulty"].isin(HIGH)]
    first = pd.concat([asked[asked["attempt"] == 1], rejects[rejects["reason"] == "degraded"]])
    budget = plan.groupby("difficulty")["budget"].sum()
    return {
        "asked_share": budget.reindex(HIGH, fill_value=0).sum() / budget.sum(),
        "first_n": len(first),
        "degraded_first_share": boost.degraded(first).mean(),
        "degraded_share": boost.degraded(asked).mean(),
        "accepted": len(table),
        "accepted_share": table["difficulty"].isin(HIGH).mean(),
    }


def merge_table(run: Run) -> pd.DataFrame:
    """Near-identical knowledge points of the annotated seeds, with what is decided about each pair: the reviewed file where
    `linkqa.merges` names one, else `merge_candidates`. It asks nobody, so it can be looked over before LinkQA is paid for."""
    names = run.read("annotate").seeds["knowledge_points"].explode().dropna()
    reviewed = run.profile.linkqa.merges
    return read_merges(reviewed, names) if reviewed else merge_candidates(names)


@stage(
    "linkqa",
    reads=("annotate", "plan"),
    settings=("teacher", "boostqa", "linkqa"),
    files=("linkqa.merges",),
)
def linkqa(run: Run, folder) -> dict:
    """LinkQA: graph without near-identical nodes, walks that lean to the weak cells, synthesis from the seeds of each path,
    refinement."""
    seeds, plan, merges = run.read("annotate").seeds, run.read("plan").targeted, merge_table(run)
    graph = build_kp_graph(apply_merges(seeds, merges), min_count=run.profile.linkqa.min_count)
    graph.save(folder / "graph")
    with teachers(run, "linkqa") as teacher:
        paths, made, table, rejects = link_and_refine(run, teacher, graph, seeds, plan, run.profile.linkqa)
    return {
        "merges": merges,
        "graph": None,
        "paths": paths,
        "diagnostics": path_diagnostics(graph, paths),
        "linkqa_made": made,
        "linkqa": table,
        "linkqa_rejects": rejects,
    }


def link_and_refine(run: Run, teacher, graph, seeds: pd.DataFrame, plan: pd.DataFrame, settings):
    """(paths, written, refined, rejects) of one LinkQA variant."""
    focus = {(r.discipline, r.difficulty): 1.0 + 4.0 * r.deficit for r in plan.itertuples()}
    n = -(-2 * run.profile.plan.questions // settings.questions_per_path)
    paths = sample_paths(
        graph, n, settings.length, alpha=settings.alpha, beta=settings.beta, focus=focus, seed=run.seed
    )
    asked = link.requests(paths, seeds, plan, settings, run.seed)
    made, rejects = link.synthesise(asked, teacher.synthesiser, teacher.annotator, run.profile.plan.questions)
    return paths, made, *_refined(made, rejects, teacher, run.profile.boostqa)


@stage("curate", reads=("annotate", "boostqa", "linkqa", "exams"), settings=("curate",))
def curate(run: Run, folder) -> dict:
    """Filters, near-duplicates and decontamination against every exam, for each data set that will be trained on."""
    tables = {"seeds": run.read("annotate").seeds, "linkqa": run.read("linkqa").linkqa}
    tables |= {arm: getattr(run.read("boostqa"), arm) for arm in BOOSTQA_ARMS}
    against, outputs, reports = exam_tables(run), {}, []
    for name, table in tables.items():
        kept, rejects, report = curated(table, against, run.profile.curate)
        outputs |= {name: kept[list(COLUMNS)], f"{name}_rejects": rejects}
        reports.append(report.assign(dataset=name))
    return outputs | {"report": pd.concat(reports, ignore_index=True)}
