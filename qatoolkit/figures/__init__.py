"""Figures, one function each, from a tidy table to a matplotlib figure. They need only saved tables."""

from qatoolkit.core.public import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "data": "distribution lengths seed_quality survival",
        "dots": "ablations arms comparisons loss pass_rates probes_over_time refinement scaling schedules",
        "graph": "coverage diagnostics frontier graph_neighbourhood kp_degree",
        "laws": "by_size forecasts scaling_fit",
        "heatmaps": "accuracy_grid attribution budget confusion grid_difference margin_grid",
        "style": "save",
    },
)
