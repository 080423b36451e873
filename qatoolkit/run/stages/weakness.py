"""Stages on weakness: where the base student is weak, and the synthesis budget that follows."""

from qatoolkit.core.stats import cells, weak
from qatoolkit.evaluation import probe as probing
from qatoolkit.run.store import Run, stage
from qatoolkit.synthesis import budget


@stage("probe", reads=("base", "annotate"))
def probe(run: Run, folder) -> dict:
    """The base model's accuracy on the annotated seeds, by cell."""
    samples = probing.probe(run.model("base"), run.read("annotate").seeds)
    return {"samples": samples, "cells": cells(samples)}


@stage("plan", reads=("probe",), settings=("plan",))
def plan(run: Run, folder) -> dict:
    """The synthesis budget by cell, targeted at what the probe found, and the untargeted control."""
    grid, settings = run.read("probe").cells, run.profile.plan
    return {
        "targeted": budget.targeted(grid, settings),
        "untargeted": budget.untargeted(grid, settings),
        "weak": weak(grid, settings.target, settings.low_n),
    }
