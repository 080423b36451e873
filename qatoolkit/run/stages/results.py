"""The summary of a run: its numbers in one document."""

import json

import pandas as pd

from qatoolkit.core.files import write_json
from qatoolkit.core.stats import CELL
from qatoolkit.run.check import record_files
from qatoolkit.run.contracts import Stage
from qatoolkit.run.outputs import Outputs
from qatoolkit.run.profiles import BASE
from qatoolkit.run.store import Run
from qatoolkit.synthesis.write import degradation


def summary(run: Run, *, log=print) -> Outputs:
    """`results/<run>/summary.json`: the run's numbers in one document; accuracies and differences are fractions."""
    main = run.profile.main_set
    reads = ("annotate", "midtrain", "evaluate", "scaling", *([main] if main else []))
    spec = Stage("summary", reads=reads, settings=("teacher",))

    def make(folder) -> dict:
        return {"summary": document(run, main)}

    out = run.complete("summary", spec, make, asked={"run": run.name}, log=log)
    seconds = {name: run.manifest(name)["seconds"] for name in run.done()}
    write_json(out.summary | {"seconds": seconds}, run.folder / "summary.json")
    record_files(run.folder, [run.folder / "summary.json"])
    return out


def document(run: Run, main: str | None) -> dict:
    """The summary as JSON values."""
    evaluated, trained = run.read("evaluate"), run.read("midtrain").training
    trained = {BASE: run.read("base").training} | trained
    exams, cells = evaluated.exams, evaluated.cells
    arms = {}
    for arm, manifest in trained.items():
        arms[arm] = {
            "exams": records(exams[exams["arm"] == arm].set_index("exam"), "index"),
            "cells": records(cells[cells["arm"] == arm][[*CELL, "n", "accuracy"]]),
            "tokens": manifest["tokens"],
            "flops": manifest["flops"],
        }
        for exam in arms[arm]["exams"].values():
            del exam["arm"]
    points = run.read("scaling").points
    midtrained = points[points["arm"] != BASE]
    made = run.read(main) if main else None
    return {
        "run": run.name,
        "profile": run.profile.name,
        "seed": run.seed,
        "arms": arms,
        "comparisons": records(evaluated.comparisons),
        "over_blind": records(evaluated.over_blind),
        "gains_by_blind": records(evaluated.gains_by_blind),
        "refinement": {"teacher_error_rate": teacher_error(run)} | (made.refinement if made else {}),
        "degradation": degradation(made.made) if made and "asked_difficulty" in made.made else None,
        "scaling": {
            axis: records(rows[["x", "accuracy", "low", "high", "n"]])
            for axis, rows in midtrained.groupby("axis", sort=False)
        },
    }


def records(table: pd.DataFrame, orient: str = "records"):
    """A table as JSON values."""
    return json.loads(table.to_json(orient=orient, double_precision=15))


def teacher_error(run: Run) -> float | None:
    """The error rate that the synthesiser is built to have, None if the world does not know it."""
    truth = run.world.truth()
    return truth.teachers.get(run.profile.teacher.synthesiser) if truth else None
