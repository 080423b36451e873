"""Stages on data: exams, seeds, their labels, and what may be trained on."""

import pandas as pd

from qatoolkit.core.qa_table import COLUMNS
from qatoolkit.curate.curate import curate as curated
from qatoolkit.graph.knowledge_points import kps_from_column
from qatoolkit.run.profiles import SEEDS
from qatoolkit.run.stages.teachers import teachers
from qatoolkit.run.store import Outputs, Run, Stage, stage
from qatoolkit.seeds.read import quality_report, read_seeds
from qatoolkit.synthesis.annotate import annotate as label
from qatoolkit.synthesis.knowledge_points import extract


@stage("exams", settings=("world",))
def exams(run: Run, folder) -> dict:
    """The exams of the run's world, one table each."""
    return run.world.exams(run.seed)


def exam_tables(run: Run) -> dict[str, pd.DataFrame]:
    """The run's exams by name."""
    stored = run.read("exams")
    return {name: getattr(stored, name) for name in run.manifest("exams")["outputs"]}


def choice_exams(run: Run) -> list[str]:
    """The exams whose every question has choices."""
    return [name for name, table in exam_tables(run).items() if table["choices"].notna().all()]


@stage("seeds", settings=("world", "seeds"), files=("seeds.sources",))
def seeds(run: Run, folder) -> dict:
    """Seed QA from the profile's sources, else from the files of the run's world."""
    settings, outputs = run.profile.seeds, {}
    paths = list(settings.sources)
    if not paths:
        paths = run.world.seeds(folder / "raw", run.seed)
        outputs = {"raw": None} if (folder / "raw").is_dir() else {}
    table, rejects = read_seeds(paths, mapping=settings.mapping, licence=settings.licence)
    return outputs | {"seeds": table, "rejects": rejects, "quality": quality_report(table, rejects)}


@stage("annotate", reads=("seeds",), settings=("teacher", "annotate"), prompts=("annotate", "knowledge_points"))
def annotate(run: Run, folder) -> dict:
    """Discipline, difficulty and grade of every seed, by the annotator, and knowledge points: those that its source
    has, else by the annotator too (`AnnotateSettings`)."""
    settings, table = run.profile.annotate, run.read("seeds").seeds
    if settings.knowledge_points == "all":
        table = table.assign(knowledge_points=None)
    parting = {"levels": settings.levels, "under": settings.under}
    table = kps_from_column(table, "knowledge_points", settings.separator, **parting)
    with teachers(run, "annotate") as teacher:
        labelled, rejects = label(table, teacher.annotator, settings.samples)
        labelled, more = extract(labelled, teacher.annotator)
    return {"seeds": labelled, "rejects": pd.concat([rejects, more], ignore_index=True)}


_CURATE = Stage("curate", settings=("curate",))


def curate(run: Run, *, log=print) -> Outputs:
    """Filters, near-duplicates and decontamination against every exam, for each data set that an arm trains on."""
    used = run.profile.used_sets
    reads = ("exams", *("annotate" if name == SEEDS else name for name in used))

    def make(folder) -> dict:
        against, outputs, reports = exam_tables(run), {}, []
        for name in used:
            table = run.read("annotate").seeds if name == SEEDS else run.read(name).questions
            kept, rejects, report = curated(table, against, run.profile.curate)
            outputs |= {name: kept[list(COLUMNS)], f"{name}_rejects": rejects}
            reports.append(report.assign(dataset=name))
        return outputs | {"report": pd.concat(reports, ignore_index=True)}

    return run.complete("curate", _CURATE, make, reads=reads, log=log)
