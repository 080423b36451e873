"""The figures of a run: for each a name, its caption and how it is drawn from the run's saved tables.

They follow the papers' figures (probe, data, main table, scaling, ablations, graph). To add one, write a function of
the run whose docstring is the caption, and enter it in `FIGURES`.
"""

from inspect import getdoc

import pandas as pd

from qatoolkit import figures
from qatoolkit.core.files import write_json
from qatoolkit.figures.style import name as label
from qatoolkit.graph.kp_graph import KPGraph
from qatoolkit.run import tables
from qatoolkit.run.profiles import BASE, SEEDS
from qatoolkit.run.store import Run


def probe(run: Run):
    """Base student by discipline and difficulty, on annotated seed questions."""
    return figures.accuracy_grid(run.read("probe").cells, title="Where the base student is weak")


def budget(run: Run):
    """Questions to synthesise per cell, in proportion to the root of the deficit."""
    return figures.budget(run.read("plan").targeted, title="Synthesis budget that follows")


def difficulty(run: Run):
    """Difficulty of seeds and synthetic data sets, as annotated."""
    return figures.distribution(join_datasets(run), "difficulty", hue="dataset")


def discipline(run: Run):
    """Disciplines of seeds and synthetic data sets, as annotated."""
    return figures.distribution(join_datasets(run), "discipline", hue="dataset")


def arms(run: Run):
    """Accuracy of every arm on every exam, scored by lm-eval."""
    return figures.arms(run.read("evaluate").exams, chance=tables.guessing_accuracy(run))


def comparisons(run: Run):
    """Paired differences in weak cells, strong cells and over all."""
    return figures.comparisons(run.read("evaluate").comparisons.dropna(subset="difference"))


def gain(run: Run):
    """Gain of the first arm compared over the base student, in each cell of the exams."""
    cells, arm = run.read("evaluate").cells, run.profile.main_arm
    before, after = (cells[cells["arm"] == name] for name in (BASE, arm))
    # Coloured from as many questions as the plan acts on: both models answer the same ones.
    low_n = run.profile.plan.low_n
    return figures.grid_difference(before, after, title=f"Gain of {label(arm)} over the base student", low_n=low_n)


def loss(run: Run):
    """Loss of the mid-training arms."""
    return figures.loss(smooth(run.read("midtrain").metrics), title="Mid-training loss (mean over 10 steps)")


def scaling(run: Run):
    """Base and mid-trained students against model size, tokens and initial FLOPs."""
    return figures.scaling(run.read("scaling").points)


def ablations(run: Run):
    """Paired differences in the weak cells of arms with one setting changed, against the same arm unchanged."""
    return figures.ablations(run.read("ablations").ablations.query("on == 'weak'"))


def kp_degree(run: Run):
    """Degree distribution of the knowledge-point graph."""
    return figures.kp_degree(KPGraph.load(run.read("linkqa").graph).degrees())


def kp_coverage(run: Run):
    """Knowledge points reached as paths are sampled, by value function."""
    return figures.coverage(tables.coverage(run, KPGraph.load(run.read("linkqa").graph)))


_ALL = (
    probe,
    budget,
    difficulty,
    discipline,
    arms,
    comparisons,
    gain,
    loss,
    scaling,
    ablations,
    kp_degree,
    kp_coverage,
)
FIGURES = {figure.__name__: figure for figure in _ALL}


def draw(run: Run, name: str):
    """Draw the figure `name` of a run; ValueError lists the names if there is none."""
    if name not in FIGURES:
        raise ValueError(f"no figure {name!r}; choose from {', '.join(FIGURES)}")
    return FIGURES[name](run)


def save_figures(run: Run) -> list[str]:
    """Draw every figure of the run into `results/<run>/figures/`, with `captions.json`; return their names."""
    folder = run.folder / "figures"
    for name, figure in FIGURES.items():
        figures.save(figure(run), folder / f"{name}.png")
    write_json({name: getdoc(figure) for name, figure in FIGURES.items()}, folder / "captions.json")
    return list(FIGURES)


def join_datasets(run: Run) -> pd.DataFrame:
    """The curated seeds and data sets in one table with a column `dataset`, without controls (those with dials)."""
    stored, data = run.read("curate"), run.profile.data
    names = [SEEDS, *(name for name, about in data.items() if not about.dials)]
    return pd.concat([getattr(stored, name).assign(dataset=name) for name in names if name in stored])


def smooth(metrics: pd.DataFrame, steps: int = 10) -> pd.DataFrame:
    """Every `steps`-th row with the mean loss of the steps since the last one; steps left over join the last row."""
    last = metrics.groupby("arm")["step"].transform("max")
    group = (metrics["step"] // steps).clip(upper=((last + 1) // steps - 1).clip(lower=0))
    columns = {"step": "last", "tokens": "last", "loss": "mean", "lr": "last"}
    return metrics.groupby(["arm", group.rename("group")], sort=False).agg(columns).reset_index()
