"""The flow, stage by stage: each function reads finished stages of a run, calls the library, and stores the result.

Notebooks and the command line call these; every step in them is a plain function over tables that you can call
yourself."""

from qatoolkit.core.public import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "data": "exams seeds annotate curate",
        "weakness": "probe plan",
        "measured": "pass_rates",
        "synthesis": "synthesise synthesise_all error_rates consensus walk_control adjustment",
        "training": "base midtrain resume_check",
        "evaluation": "evaluate",
        "students": "scaling",
        "grids": "sweep",
        "loops": "rounds",
        "variants": "ablations",
        "attributions": "attribution",
        "results": "summary",
        "flow": "run_to",
    },
)
