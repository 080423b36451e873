"""qatoolkit: which data makes a language model better at what it is bad at?

BoostQA (arXiv 2508.01326) and LinkSyn (arXiv 2508.01317), from seed questions to a mid-trained model. Notebooks use
three modules: `stages` computes results, `tables` and `figures` show them. The plain functions below them take your own
tables. All names load on first use, so `import qatoolkit` stays cheap."""

import os

from qatoolkit.core.public import lazily

# Idle OpenMP threads of torch spin by default; on shared cores that made scoring 4 to 9 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "run.store": "open_run",
        "run.profiles": "load_profile",
        "run.browse": "browse",
        "run.compare": "compare",
        "run.figures": "draw save_figures",
        "run.findings": "findings",
        "run.lineage": "lineage cost_per_question",
        "run.preview": "preview",
        "core.cards": "save_dataset",
        "run.release": "release push_to_hub",
        "core.shards": "map_shards read_shards write_shards",
        "run.shards": "ask_shards",
        "core.qa_table": "qa_table",
        "core.display": "qa facts table",
        "seeds.read": "read_seeds",
        "teacher.client": "Teacher Endpoint",
        "run.offline": "offline_teacher",
        "teacher.ledger": "Ledger",
        "synthesis.annotate": "annotate",
        "synthesis.budget": "plan_budget",
        "synthesis.strategies": "synthesise register Strategy",
        "synthesis.settings": "PlanSettings",
        "graph.kp_graph": "KPGraph build_kp_graph",
        "graph.from_shards": "kp_graph_of_shards",
        "graph.knowledge_points": "kps_from_column",
        "graph.merges": "merge_candidates apply_merges",
        "graph.walks": "sample_paths path_diagnostics",
        "graph.coverage": "coverage",
        "training.job": "Job",
        "training.train": "train",
        "evaluation.evaluate": "evaluate",
        "evaluation.probe": "probe probe_tasks",
        "evaluation.pass_rates": "measure_difficulty",
        "evaluation.blind": "blind_by_model blind_to_position blind_to_training",
        "scaling.fits": "fit_scaling",
        "scaling.forecast": "forecast check_forecast forecast_errors gain_by_scale compute_optimal",
        "scaling.recipe": "propose_setting",
        "answers.same_answer": "same_answer",
        "core.stats": "cells accuracy agreement paired_difference",
    },
    "run.stages run.tables figures seeds curate",
)
__all__.insert(0, "__version__")
