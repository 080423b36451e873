"""Stages on data: exams, seeds, their labels, and curation."""

from collections.abc import Callable, Mapping
from functools import partial

import pandas as pd

from qatoolkit.core.qa_table import qa_columns
from qatoolkit.core.stats import CELL
from qatoolkit.core.taxonomy import LABELS
from qatoolkit.curate.controls import controls
from qatoolkit.curate.curate import curate as curated
from qatoolkit.curate.decontaminate import decontaminate, exam_options, index_exams
from qatoolkit.curate.exam_index import ExamIndex
from qatoolkit.curate.settings import CurateSettings
from qatoolkit.evaluation.exams import Exam, split_exam
from qatoolkit.evaluation.probe import fill_labels
from qatoolkit.evaluation.task_tables import task_tables
from qatoolkit.graph.knowledge_points import kps_from_column
from qatoolkit.run.contracts import Stage, stage
from qatoolkit.run.outputs import Outputs
from qatoolkit.run.profiles import SEEDS
from qatoolkit.run.stages.teachers import teachers
from qatoolkit.run.store import Run
from qatoolkit.seeds.read import layout_report, quality_report, read_seeds
from qatoolkit.synthesis.annotate import annotate as label
from qatoolkit.synthesis.knowledge_points import extract
from qatoolkit.teacher.calls import with_calls

OPTIONS = ("suite", "form", "metric", "filter", "fewshot", "limit")  # how an exam is asked
NOT_EXAMS = ("about", "probe_questions")  # outputs of the stage `exams` that are not exams


@stage("exams", settings=("world.exams", "probe.on", "probe.share"))
def exams(run: Run, folder) -> dict:
    """The exams of the run's world, one table each; `about` has how each is asked. If the probe is on exams, its part
    of them goes to `probe_questions`, and the exams keep only the rest, so that no evaluation question is planned
    from."""
    tables, about, probed = {}, {}, []
    for name, given in run.world.exams(run.seed).items():
        exam = given if isinstance(given, Exam) else Exam(name=name, table=given)
        if name in NOT_EXAMS:
            raise ValueError(f"exams.{name}: this name is taken; give the exam another")
        about[name] = {field: getattr(exam, field) for field in OPTIONS}
        table = exam.table
        if exam.suite:
            found = task_tables(exam.resolve(folder / "tasks"), limit=exam.limit)
            table = pd.concat(found.values(), ignore_index=True)
        if run.profile.probe.on == "exams":
            try:
                part, table = split_exam(table, run.profile.probe.share, run.seed)
            except ValueError as error:
                raise ValueError(f"exams.{name}: {error}") from None
            probed.append(part.assign(exam=name))
        tables[name] = table
    if not tables:
        raise ValueError("no exam is left: each one is optional and could not be opened (see above)")
    more = {"probe_questions": pd.concat(probed, ignore_index=True)} if probed else {}
    return tables | more | {"about": about}


def exam_tables(run: Run) -> dict[str, pd.DataFrame]:
    """The run's exams by name; questions without labels have those of the annotator."""
    stored = run.read("exams")
    names = [name for name in run.manifest("exams")["outputs"] if name not in NOT_EXAMS]
    labels = run.read("annotate").exam_labels if run.manifest("annotate") else None
    return {name: with_labels(getattr(stored, name), labels) for name in names}


def with_labels(table: pd.DataFrame, labels: pd.DataFrame | None) -> pd.DataFrame:
    """A table with missing labels taken from `labels` (id, discipline, difficulty, grade)."""
    table = table.assign(**{label: None for label in LABELS if label not in table})
    if labels is None or labels.empty:
        return table
    found = labels.set_index("id")
    return table.assign(**{label: table[label].fillna(table["id"].map(found[label])) for label in LABELS})


def exams_to_evaluate(run: Run) -> list[Exam]:
    """The run's exams as they are evaluated: tables, or tasks restricted to the questions that the probe does not
    use."""
    tables, about = exam_tables(run), run.read("exams").about
    sealed = run.profile.probe.on == "exams"
    return [
        Exam(
            name=name,
            table=None if about[name]["suite"] else table,
            keep=frozenset(table["id"]) if sealed and about[name]["suite"] else None,
            **about[name],
        )
        for name, table in tables.items()
    ]


def task_ids(run: Run) -> frozenset:
    """The ids of the probe's questions that come from lm-eval tasks."""
    if run.profile.probe.on == "seeds":
        return frozenset()
    about, questions = run.read("exams").about, run.read("exams").probe_questions
    return frozenset(questions.loc[questions["exam"].map(lambda name: bool(about[name]["suite"])), "id"])


def choice_tables(run: Run) -> dict[str, pd.DataFrame]:
    """The exams in which every question has choices, by name."""
    return {name: table for name, table in exam_tables(run).items() if table["choices"].notna().all()}


def choice_exams(run: Run) -> list[str]:
    """The names of `choice_tables`."""
    return list(choice_tables(run))


def choice_rows(run: Run) -> pd.DataFrame:
    """The questions of `choice_tables` that have one right answer, in one table, each with its `exam`."""
    tables = [table.assign(exam=name) for name, table in choice_tables(run).items()]
    rows = pd.concat(tables or [pd.DataFrame(columns=["exam", "id", "choices", "answer_index"])], ignore_index=True)
    return rows[rows["answer_index"].notna()].reset_index(drop=True)


@stage("seeds", settings=("world.seeds", "seeds"))
def seeds(run: Run, folder) -> dict:
    """Seed QA of the run's world."""
    settings = run.profile.seeds
    paths = run.world.seeds(folder / "raw", run.seed)
    table, rejects = read_seeds(paths, mapping=settings.mapping, licence=settings.licence)
    layouts = layout_report(table)
    if settings.languages:
        table, rejects = keep_languages(table, rejects, settings.languages)
    outputs = {"raw": None} if (folder / "raw").is_dir() else {}
    quality = quality_report(table, rejects)
    return outputs | {"seeds": table, "rejects": rejects, "quality": quality, "layouts": layouts}


def keep_languages(table: pd.DataFrame, rejects: pd.DataFrame, languages: tuple[str, ...]):
    """The seeds in `languages`; the others are added to the rejects."""
    other = ~table["language"].isin(languages)
    more = table.loc[other, ["source", "file", "row", "question"]].rename(columns={"question": "raw"})
    more = more.assign(reason="language", detail=table.loc[other, "language"])
    return table[~other].reset_index(drop=True), pd.concat([rejects, more[list(rejects)]], ignore_index=True)


@stage(
    "annotate",
    reads=("seeds", "exams"),
    settings=("teacher", "annotate", "evaluate.label"),
    prompts=("annotate", "knowledge_points"),
)
def annotate(run: Run, folder) -> dict:
    """Discipline, difficulty, grade and knowledge points of every seed: those that its source states, else the
    annotator's (`AnnotateSettings`). `exam_labels` has the annotator's labels of exam questions without labels (at most
    `evaluate.label`)."""
    settings, table = run.profile.annotate, with_stated_points(run)
    with teachers(run, "annotate") as roles:
        labelled, rejects = label_missing(table, roles.annotator, settings)
        if labelled.empty and len(table) and run.profile.probe.on == "seeds":
            why = rejects["reason"].value_counts().to_dict()
            raise ValueError(
                f"none of the {len(table):,} seeds could be labelled by {run.profile.teacher.annotator} ({why}); the "
                "offline teacher only knows its textbook: name a teacher of your own (teacher.base_url)"
            )
        labelled, more = extract(labelled, roles.annotator)
        exam = unlabelled(run)
        exam, refused = label(exam, roles.annotator, settings.samples) if len(exam) else (exam, exam)
    rejects = [rows for rows in (rejects, more, refused) if len(rows)] or [rejects]
    labels = exam.reindex(columns=["id", *LABELS])
    return {"seeds": labelled, "rejects": pd.concat(rejects, ignore_index=True), "exam_labels": labels}


def with_stated_points(run: Run) -> pd.DataFrame:
    """The seeds with the knowledge points that their sources state; none with `annotate.knowledge_points: all`."""
    settings, table = run.profile.annotate, run.read("seeds").seeds
    if settings.knowledge_points == "all":
        table = table.assign(knowledge_points=None)
    return kps_from_column(table, "knowledge_points", settings.separator, levels=settings.levels, under=settings.under)


def label_missing(table: pd.DataFrame, annotator, settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows with all labels, in the table's order, and rejects (`synthesis.annotate`): labels that a source states are
    kept, unless `annotate.labels` is all, and no request is sent for a row that states all of them."""
    stated = (
        table[list(LABELS)] if settings.labels == "missing" else table[list(LABELS)].assign(**dict.fromkeys(LABELS))
    )
    complete = stated.notna().all(axis=1)
    labelled, rejects = label(table[~complete], annotator, settings.samples)
    by_id = stated.set_index(table["id"])
    for name in LABELS:
        from_source = labelled["id"].map(by_id[name])
        labelled[name] = from_source.where(from_source.notna(), labelled[name])
    if complete.any():
        labelled = pd.concat([labelled, with_calls(table[complete], "annotate", [()] * int(complete.sum()))])
        position = pd.Series(range(len(table)), table["id"])
        labelled = labelled.sort_values("id", key=lambda ids: ids.map(position), ignore_index=True)
    return labelled, rejects


def probe_questions(run: Run) -> pd.DataFrame:
    """The questions that the model is probed with: the annotated seeds, or the probe's part of the exams, with
    "unlabelled" for a missing label."""
    if run.profile.probe.on == "seeds":
        return run.read("annotate").seeds
    return fill_labels(with_labels(run.read("exams").probe_questions, run.read("annotate").exam_labels))


def unlabelled(run: Run) -> pd.DataFrame:
    """The exam questions that the annotator labels: those without a discipline or difficulty, at most
    `evaluate.label`."""
    stored = run.read("exams")
    names = [name for name in run.manifest("exams")["outputs"] if name != "about"]
    rows = pd.concat([getattr(stored, name) for name in names], ignore_index=True).drop_duplicates("id")
    rows = rows.reindex(columns=list(dict.fromkeys([*rows, *CELL])))
    rows = rows[rows[CELL].isna().any(axis=1)]
    most = run.profile.evaluate.label
    return rows.sample(most, random_state=run.seed) if most < len(rows) else rows


def index_all_exams(run: Run, settings: CurateSettings) -> tuple[dict[str, pd.DataFrame], ExamIndex]:
    """The tables that no training data may repeat (every exam, and the probe's part of them), by name, and their
    index."""
    against = exam_tables(run)
    if run.profile.probe.on == "exams":
        against |= {"probe_questions": run.read("exams").probe_questions}
    return against, index_exams(against, settings, run.read("annotate").seeds["question"])


def exam_seeds(run: Run, index: ExamIndex, settings: CurateSettings) -> frozenset[str]:
    """The ids of the seeds that an exam has: questions written from them are counted (`exam_parent`)."""
    seeds = run.read("annotate").seeds
    hits = decontaminate(seeds, index, **exam_options(settings))
    return frozenset(seeds["id"].iloc[hits["row"].unique()])


def judge_of(run: Run, settings: CurateSettings) -> Callable[[pd.DataFrame], tuple[pd.DataFrame, ...]]:
    """`curate.curate` as the stage `curate` calls it, against every exam of the run."""
    _, index = index_all_exams(run, settings)
    return partial(curated, exams=index, settings=settings, exam_parents=exam_seeds(run, index, settings))


def curate(run: Run, *, log=print) -> Outputs:
    """Filters, near-duplicates and decontamination against every exam, for each data set that an arm trains on; and
    `controls`, how many exam questions planted in the main set decontamination finds."""
    used = run.profile.used_sets
    reads = ("exams", "annotate", *(name for name in used if name != SEEDS))
    spec = Stage("curate", reads=reads, settings=("curate",), files=("curate.marks",))

    def make(folder) -> dict:
        (against, index), outputs, reports = index_all_exams(run, run.profile.curate), {}, []
        parents, seeds = exam_seeds(run, index, run.profile.curate), run.read("annotate").seeds
        for name in used:
            table = seeds if name == SEEDS else run.read(name).questions
            kept, rejects, report = curated(table, index, run.profile.curate, parents)
            outputs |= {name: kept.reindex(columns=[*qa_columns(kept), "flagged"]), f"{name}_rejects": rejects}
            reports.append(report.assign(dataset=name))
        outputs["report"] = pd.concat(reports, ignore_index=True) if reports else pd.DataFrame()
        if used and against and (n := run.profile.curate.controls):
            clean = outputs[run.profile.main_set or used[0]]
            beside = {"n": n, "seed": run.seed, "translations": _translations(run, against)}
            outputs["controls"] = controls(clean, against, run.profile.curate, index=index, **beside)
        return outputs

    return run.complete("curate", spec, make, log=log)


def _translations(run: Run, exams: Mapping[str, pd.DataFrame]) -> dict[str, dict]:
    """Exam questions in another language, by id, as far as the world knows them."""
    truth = run.world.truth()
    if truth is None:
        return {}
    asked = pd.concat(exams.values()).set_index("id")["question"].map(truth.translation)
    return asked.dropna().to_dict()
