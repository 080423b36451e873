"""qatoolkit: which data makes a language model better at what it is bad at?

BoostQA (arXiv 2508.01326) and LinkSyn (arXiv 2508.01317) from seed questions to a mid-trained model. The names below load
on first use, so that `import qatoolkit` stays cheap.
"""

import importlib

__version__ = "0.1.0"

_MODULES = (
    "annotate",
    "boostqa",
    "cards",
    "curate",
    "evaluate",
    "experiments",
    "figures",
    "linkqa",
    "midtrain",
    "plots",
    "probe",
    "provenance",
    "report",
    "seeds",
    "stages",
    "subjects",
    "views",
)
_NAMES = {
    "open_run": "store",
    "load_profile": "profiles",
    "read_seeds": "seeds",
    "qa_table": "schema",
    "Teacher": "teacher",
    "Endpoint": "teacher",
    "Ledger": "ledger",
    "KPGraph": "kpgraph",
    "build_kp_graph": "kpgraph",
    "kps_from_column": "kps",
    "merge_candidates": "kp_merges",
    "apply_merges": "kp_merges",
    "sample_paths": "walks",
    "path_diagnostics": "walks",
    "lineage": "provenance",
    "qa": "display",
    "facts": "display",
    "table": "display",
}
__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(importlib.import_module(f"qatoolkit.{_NAMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"qatoolkit.{name}")
    raise AttributeError(f"module 'qatoolkit' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
