"""The figures of a run: a registry of name, caption, the table each is drawn from, and how (`qatoolkit.figures`).

These are the papers' figures in kind (probe, data, main table, scaling, ablations, graph) on the run at hand. Adding one is an
entry here and a function in `figures/`; `FIGURES` may be added to from anywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from qatoolkit import figures
from qatoolkit.core.files import write_json
from qatoolkit.figures.style import name as shown
from qatoolkit.graph.kp_graph import KPGraph
from qatoolkit.run.profiles import BASE, SEEDS
from qatoolkit.run.store import Run
from qatoolkit.run.tables import evaluation
from qatoolkit.run.tables import graph as walks


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of a run: a file name, what it shows, the table it is drawn from, and the function that draws that table."""

    name: str
    caption: str
    table: Callable[[Run], Any]
    draw: Callable[[Any], object]


def datasets(run: Run) -> pd.DataFrame:
    """The curated data sets one below the other, those with dials of their own (controls) left out, with a column `dataset`."""
    stored, names = run.read("curate"), [SEEDS, *run.profile.data]
    controls = {name for name, about in run.profile.data.items() if about.dials}
    main = [name for name in names if name in stored and name not in controls]
    return pd.concat([getattr(stored, name).assign(dataset=name) for name in main])


def smoothed(metrics: pd.DataFrame, steps: int = 10) -> pd.DataFrame:
    """Every `steps`-th row with the mean loss of the steps since the last one; steps left over join the last row."""
    last = metrics.groupby("arm")["step"].transform("max")
    metrics = metrics.assign(group=(metrics["step"] // steps).clip(upper=((last + 1) // steps - 1).clip(lower=0)))
    return (
        metrics.groupby(["arm", "group"], sort=False)
        .agg(step=("step", "last"), tokens=("tokens", "last"), loss=("loss", "mean"), lr=("lr", "last"))
        .reset_index()
    )


def _gain(run: Run) -> dict:
    """Grids of base and the first arm compared. Cells are coloured from as many questions as the plan acts on: both models answer
    the same ones."""
    cells, arm = run.read("evaluate").cells, run.profile.compare[0][0]
    grids = {name: rows.drop(columns="arm") for name, rows in cells.groupby("arm")}
    return {"cells_a": grids[BASE], "cells_b": grids[arm], "arm": arm, "low_n": run.profile.plan.low_n}


def _draw_gain(found: dict):
    title = f"Gain of {shown(found['arm'])} over the base student"
    return figures.grid_difference(found["cells_a"], found["cells_b"], title=title, low_n=found["low_n"])


def _arms(run: Run) -> dict:
    return {"exams": run.read("evaluate").exams, "chance": evaluation.guessing_accuracy(run)}


def _graph(run: Run) -> KPGraph:
    return KPGraph.load(run.read("linkqa").graph)


FIGURES = [
    Figure(
        name="probe",
        caption="Base student by discipline and difficulty, on annotated seed questions.",
        table=lambda run: run.read("probe").cells,
        draw=lambda cells: figures.accuracy_grid(cells, title="Where the base student is weak"),
    ),
    Figure(
        name="budget",
        caption="Questions to synthesise per cell, in proportion to the root of the deficit.",
        table=lambda run: run.read("plan").targeted,
        draw=lambda plan: figures.budget(plan, title="Synthesis budget that follows"),
    ),
    Figure(
        name="difficulty",
        caption="Difficulty of seeds and synthetic data sets, as annotated.",
        table=datasets,
        draw=lambda table: figures.distribution(table, "difficulty", hue="dataset"),
    ),
    Figure(
        name="discipline",
        caption="Disciplines of seeds and synthetic data sets, as annotated.",
        table=datasets,
        draw=lambda table: figures.distribution(table, "discipline", hue="dataset"),
    ),
    Figure(
        name="arms",
        caption="Accuracy of every arm on every exam, scored by lm-eval.",
        table=_arms,
        draw=lambda found: figures.arms(found["exams"], chance=found["chance"]),
    ),
    Figure(
        name="comparisons",
        caption="Paired differences in weak cells, strong cells and over all.",
        table=lambda run: run.read("evaluate").comparisons.dropna(subset="difference"),
        draw=figures.comparisons,
    ),
    Figure(
        name="gain",
        caption="Gain of the first arm compared over the base student, in each cell of the exams.",
        table=_gain,
        draw=_draw_gain,
    ),
    Figure(
        name="loss",
        caption="Loss of the mid-training arms.",
        table=lambda run: smoothed(run.read("midtrain").metrics),
        draw=lambda metrics: figures.loss(metrics, title="Mid-training loss (mean over 10 steps)"),
    ),
    Figure(
        name="scaling",
        caption="Base and mid-trained students against model size, tokens and initial FLOPs.",
        table=lambda run: run.read("scaling").points,
        draw=figures.scaling,
    ),
    Figure(
        name="ablations",
        caption="Paired differences of runs with one dial turned to the arm untouched, in the weak cells.",
        table=lambda run: run.read("ablations").ablations.query("on == 'weak'"),
        draw=figures.ablations,
    ),
    Figure(
        name="kp_degree",
        caption="Degree distribution of the knowledge-point graph.",
        table=lambda run: _graph(run).degrees(),
        draw=figures.kp_degree,
    ),
    Figure(
        name="kp_coverage",
        caption="Knowledge points reached as paths are sampled, by value function.",
        table=lambda run: walks.coverage(run, _graph(run)),
        draw=figures.coverage,
    ),
]


def draw(run: Run, name: str):
    """A figure of a run by its name; ValueError names those there are."""
    found = {figure.name: figure for figure in FIGURES}
    if name not in found:
        raise ValueError(f"no figure is called {name!r}; there are {', '.join(found)}")
    return found[name].draw(found[name].table(run))


def save_figures(run: Run) -> list[str]:
    """Draw every figure of the run into `results/<run>/figures/` with their captions; returns the names."""
    folder = run.folder / "figures"
    for figure in FIGURES:
        figures.save(draw(run, figure.name), folder / f"{figure.name}.png")
    write_json({figure.name: figure.caption for figure in FIGURES}, folder / "captions.json")
    return [figure.name for figure in FIGURES]
