"""The examples in the docstrings of public names run and show what they print, as a user would type them."""

import doctest

import pandas as pd
import pytest

import qatoolkit as qt

ROOMS = ("stages", "tables", "figures", "seeds", "curate")
NAMES = [
    *(name for name in qt.__all__ if name not in (*ROOMS, "__version__")),
    *(f"{room}.{name}" for room in ROOMS for name in getattr(qt, room).__all__),
]
SHOWN = [
    "qa_table",
    "read_seeds",
    "same_answer",
    "cells",
    "accuracy",
    "agreement",
    "paired_difference",
    "table",
    "facts",
    "qa",
    "build_kp_graph",
    "KPGraph",
    "sample_paths",
    "path_diagnostics",
    "kps_from_column",
    "merge_candidates",
    "apply_merges",
    "plan_budget",
    "PlanSettings",
    "load_profile",
    "open_run",
    "Strategy",
    "register",
    "synthesise",
    "annotate",
    "Endpoint",
    "Ledger",
    "Teacher",
    "offline_teacher",
    "Job",
    "save_dataset",
    "map_shards",
    "ask_shards",
    "blind_to_training",
    "seeds.quality_report",
    "seeds.summary",
    "seeds.with_disciplines",
    "curate.curate",
    "curate.filters",
    "curate.decontaminate",
    "curate.near_duplicates",
    "curate.near_duplicate_shards",
    "figures.accuracy_grid",
    "figures.budget",
    "figures.distribution",
    "figures.kp_degree",
    "figures.save",
]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples(name: str) -> list[doctest.DocTest]:
    """The docstrings with examples of a public function or class and its methods; they see no names but their own."""
    found = qt
    for part in name.split("."):
        found = getattr(found, part)
    if not callable(found) or isinstance(found, dict):
        return []
    tests = doctest.DocTestFinder(exclude_empty=True).find(found, name, globs={})
    return [test for test in tests if test.examples]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working directory, no endpoint in the environment, wide tables, and strategies as they were before."""
    from qatoolkit.synthesis import strategies

    monkeypatch.chdir(tmp_path)
    for variable in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    before = set(strategies._REGISTERED)
    with pd.option_context("display.width", 120, "display.max_columns", 20):
        yield tmp_path
    for name in strategies._REGISTERED.keys() - before - strategies.PACKAGED.keys():
        del strategies._REGISTERED[name]


@pytest.mark.parametrize("name", NAMES)
def test_examples_of_a_public_name_run_as_shown(name, place):
    for test in examples(name):
        said = []
        result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append)
        assert result.failed == 0, "".join(said)
        assert test.examples[0].source == "import qatoolkit as qt\n", f"{test.name} does not begin with the import"


@pytest.mark.parametrize("name", SHOWN)
def test_what_users_call_first_has_an_example(name):
    assert name in NAMES
    assert name in [test.name for test in examples(name)]
