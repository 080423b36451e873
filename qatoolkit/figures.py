"""The figures of a run, each drawn from saved results: name, caption, and how to draw it.

These are the papers' figures in kind (probe, data, main table, scaling, ablations, graph) on the run at hand.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from qatoolkit import plots, views
from qatoolkit.files import write_json
from qatoolkit.kpgraph import KPGraph
from qatoolkit.store import Run

CHANCE = {"textbook_en": 0.25, "textbook_zh": 0.25, "textbook_pro": 0.1}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of a run: a file name, what it shows, and a function from the run to a matplotlib figure."""

    name: str
    caption: str
    draw: Callable[[Run], object]


def probe_grid(run: Run):
    """Base accuracy by discipline and difficulty."""
    return plots.accuracy_grid(run.read("probe").cells, title="Where the base student is weak")


def budget(run: Run):
    """Questions planned for each cell."""
    return plots.budget(run.read("plan").targeted, title="Synthesis budget that follows")


def data_difficulty(run: Run):
    """Difficulty shares of seeds, BoostQA and LinkQA."""
    return plots.distribution(datasets(run), "difficulty", hue="dataset")


def data_discipline(run: Run):
    """Discipline shares of seeds, BoostQA and LinkQA."""
    return plots.distribution(datasets(run), "discipline", hue="dataset")


def datasets(run: Run) -> pd.DataFrame:
    """The curated data sets one below the other, with a column `dataset`."""
    stored = run.read("curate")
    return pd.concat([getattr(stored, name).assign(dataset=name) for name in ("seeds", "boostqa", "linkqa")])


def main_table(run: Run):
    """Accuracy of every arm on every exam."""
    return plots.arms(run.read("evaluate").exams, chance=CHANCE)


def differences(run: Run):
    """Paired differences on weak and strong cells."""
    return plots.comparisons(run.read("evaluate").comparisons.dropna(subset="difference"))


def gain_grid(run: Run):
    """What BoostQA adds in each cell of the exams; cells are coloured from as many questions as the plan acts on, for both
    models answer the same ones."""
    cells = run.read("evaluate").cells
    by_arm = {arm: rows.drop(columns="arm") for arm, rows in cells.groupby("arm")}
    return plots.grid_difference(
        by_arm["base"],
        by_arm["boostqa"],
        title="Gain of BoostQA over the base student",
        low_n=run.profile.plan.low_n,
    )


def losses(run: Run):
    """Training loss of the mid-training arms."""
    return plots.loss(smoothed(run.read("midtrain").metrics), title="Mid-training loss (mean over 10 steps)")


def smoothed(metrics: pd.DataFrame, steps: int = 10) -> pd.DataFrame:
    """Every `steps`-th row with the mean loss of the steps since the last one; steps left over join the last row."""
    last = metrics.groupby("arm")["step"].transform("max")
    metrics = metrics.assign(
        group=(metrics["step"] // steps).clip(upper=((last + 1) // steps - 1).clip(lower=0))
    )
    return (
        metrics.groupby(["arm", "group"], sort=False)
        .agg(step=("step", "last"), tokens=("tokens", "last"), loss=("loss", "mean"), lr=("lr", "last"))
        .reset_index()
    )


def scaling(run: Run):
    """Accuracy against model size, tokens and initial FLOPs."""
    return plots.scaling(run.read("scaling").points)


def ablations(run: Run):
    """Accuracy on the weak cells with one part changed at a time."""
    table = run.read("ablations").ablations
    table = table[table["on"] == "weak"]
    first = ~table.duplicated("ablation")
    return plots.ablation(table.assign(reference=first), title="Ablations, accuracy in the weak cells")


def kp_degree(run: Run):
    """Degree distribution of the knowledge-point graph."""
    return plots.kp_degree(KPGraph.load(run.read("linkqa").graph).degrees())


def kp_coverage(run: Run):
    """Knowledge points reached as paths are sampled, by value function."""
    return plots.coverage(views.coverage(run, KPGraph.load(run.read("linkqa").graph)))


FIGURES = (
    Figure(
        name="probe",
        caption="Base student by discipline and difficulty, on annotated seed questions.",
        draw=probe_grid,
    ),
    Figure(
        name="budget", caption="Questions to synthesise per cell, in proportion to the deficit.", draw=budget
    ),
    Figure(
        name="difficulty",
        caption="Difficulty of seeds, BoostQA and LinkQA, as annotated.",
        draw=data_difficulty,
    ),
    Figure(
        name="discipline",
        caption="Disciplines of seeds, BoostQA and LinkQA, as annotated.",
        draw=data_discipline,
    ),
    Figure(name="arms", caption="Accuracy of every arm on every exam, scored by lm-eval.", draw=main_table),
    Figure(
        name="comparisons",
        caption="Paired differences in weak cells, strong cells and over all.",
        draw=differences,
    ),
    Figure(
        name="gain",
        caption="Gain of BoostQA over the base student in each cell of the exams.",
        draw=gain_grid,
    ),
    Figure(name="loss", caption="Loss of the mid-training arms.", draw=losses),
    Figure(
        name="scaling", caption="Base and BoostQA against model size, tokens and initial FLOPs.", draw=scaling
    ),
    Figure(name="ablations", caption="One part of the method changed at a time.", draw=ablations),
    Figure(name="kp_degree", caption="Degree distribution of the knowledge-point graph.", draw=kp_degree),
    Figure(
        name="kp_coverage",
        caption="Knowledge points reached as paths are sampled, by value function.",
        draw=kp_coverage,
    ),
)


def save_all(run: Run) -> list[str]:
    """Draw every figure of the run into `results/<run>/figures/` with their captions; returns the names."""
    folder = run.folder / "figures"
    for figure in FIGURES:
        plots.save(figure.draw(run), folder / f"{figure.name}.png")
    write_json({figure.name: figure.caption for figure in FIGURES}, folder / "captions.json")
    return [figure.name for figure in FIGURES]
