"""Figures: one function each, a tidy table in and a matplotlib figure out. They need saved tables and nothing else."""

from qatoolkit.figures.dots import ablations, arms, comparisons, distribution, loss, refinement, scaling, schedules
from qatoolkit.figures.graph import coverage, diagnostics, frontier, graph_neighbourhood, kp_degree
from qatoolkit.figures.heatmaps import accuracy_grid, budget, confusion, grid_difference, margin_grid
from qatoolkit.figures.seeds import lengths, seed_quality
from qatoolkit.figures.style import save

__all__ = [
    "ablations",
    "accuracy_grid",
    "arms",
    "budget",
    "comparisons",
    "confusion",
    "coverage",
    "diagnostics",
    "distribution",
    "frontier",
    "graph_neighbourhood",
    "grid_difference",
    "kp_degree",
    "lengths",
    "loss",
    "margin_grid",
    "refinement",
    "save",
    "scaling",
    "schedules",
    "seed_quality",
]


def __dir__():
    return __all__
