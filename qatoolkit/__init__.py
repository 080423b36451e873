"""qatoolkit: which data makes a language model better at what it is bad at?

BoostQA (arXiv 2508.01326) and LinkSyn (arXiv 2508.01317), from seed questions to a mid-trained model. Notebooks use
three modules: `stages` computes results, `tables` and `figures` show them. The plain functions below them take your own
tables. All names load on first use, so `import qatoolkit` stays cheap."""

import importlib
import os

# Idle OpenMP threads of torch spin by default; on shared cores that made scoring 4 to 9 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

_ROOMS = {
    "stages": "qatoolkit.run.stages",
    "tables": "qatoolkit.run.tables",
    "figures": "qatoolkit.figures",
    "seeds": "qatoolkit.seeds",
    "curate": "qatoolkit.curate",
}
_NAMES = {
    "open_run": "run.store",
    "load_profile": "run.profiles",
    "browse": "run.browse",
    "compare": "run.compare",
    "draw": "run.figures",
    "findings": "run.findings",
    "save_figures": "run.figures",
    "lineage": "run.lineage",
    "preview": "run.preview",
    "cost_per_question": "run.lineage",
    "save_dataset": "core.cards",
    "release": "run.release",
    "push_to_hub": "run.release",
    "map_shards": "core.shards",
    "ask_shards": "run.shards",
    "read_shards": "core.shards",
    "write_shards": "core.shards",
    "qa_table": "core.qa_table",
    "qa": "core.display",
    "facts": "core.display",
    "table": "core.display",
    "read_seeds": "seeds.read",
    "Teacher": "teacher.client",
    "offline_teacher": "run.offline",
    "Endpoint": "teacher.client",
    "Ledger": "teacher.ledger",
    "annotate": "synthesis.annotate",
    "plan_budget": "synthesis.budget",
    "synthesise": "synthesis.strategies",
    "PlanSettings": "synthesis.settings",
    "register": "synthesis.strategies",
    "Strategy": "synthesis.strategies",
    "KPGraph": "graph.kp_graph",
    "build_kp_graph": "graph.kp_graph",
    "kp_graph_of_shards": "graph.from_shards",
    "kps_from_column": "graph.knowledge_points",
    "merge_candidates": "graph.merges",
    "apply_merges": "graph.merges",
    "sample_paths": "graph.walks",
    "coverage": "graph.coverage",
    "path_diagnostics": "graph.walks",
    "Job": "training.job",
    "train": "training.train",
    "evaluate": "evaluation.evaluate",
    "probe": "evaluation.probe",
    "probe_tasks": "evaluation.probe",
    "measure_difficulty": "evaluation.pass_rates",
    "blind_by_model": "evaluation.blind",
    "blind_to_training": "evaluation.blind",
    "fit_scaling": "scaling.fits",
    "forecast": "scaling.forecast",
    "check_forecast": "scaling.forecast",
    "forecast_errors": "scaling.forecast",
    "gain_by_scale": "scaling.forecast",
    "compute_optimal": "scaling.forecast",
    "propose_setting": "scaling.recipe",
    "same_answer": "answers.same_answer",
    "cells": "core.stats",
    "accuracy": "core.stats",
    "agreement": "core.stats",
    "paired_difference": "core.stats",
}
__all__ = ["__version__", *_ROOMS, *_NAMES]


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(importlib.import_module(f"qatoolkit.{_NAMES[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(_ROOMS[name])
    from qatoolkit.core.public import name_error

    raise name_error("qatoolkit", name, __all__)


def __dir__():
    return sorted(__all__)
