"""Imports run one way between the rooms; read from the source, lazy imports included."""

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "qatoolkit"
FLOORS = (  # a room may import rooms of lower floors only
    ("core",),
    ("seeds", "teacher", "answers", "curate", "textbook"),
    ("graph", "training"),
    ("synthesis", "evaluation", "figures"),
    ("scaling",),
    ("run",),
)
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
BESIDE = {("curate", "answers")}  # the one arrow within a floor
TEXTBOOK = ("run/world.py", "run/cli.py", "run/profiles.py")  # profiles holds its settings, and nothing else of it


def imported(path: Path) -> set[str]:
    """The modules of this package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name.removeprefix("qatoolkit.") for name in found if name.startswith("qatoolkit.")}


MODULES = sorted(p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE)


def test_every_folder_is_a_room_of_the_house():
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and not p.name.startswith("__")}
    assert folders == set(FLOOR)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_rooms_below_its_own(module):
    room = module.split("/")[0]
    for name in imported(PACKAGE / module):
        other = name.split(".")[0]
        if other in FLOOR and other != room and (room, other) not in BESIDE:
            assert FLOOR[other] < FLOOR[room], f"{module} imports {name}"


def test_only_the_world_and_the_command_line_know_the_textbook():
    knowing = [m for m in MODULES if any(n.startswith("textbook") for n in imported(PACKAGE / m))]
    assert [m for m in knowing if not m.startswith("textbook/")] == sorted(TEXTBOOK)
    assert {n for n in imported(PACKAGE / "run/profiles.py") if n.startswith("textbook")} == {
        "textbook.settings.TextbookSettings"
    }


def test_modules_stay_short():
    long = {m: n for m in MODULES if (n := len((PACKAGE / m).read_text().splitlines())) > 400}
    assert not long


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after running `code`."""
    said = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(said.stdout.split())


def test_a_figure_of_a_saved_table_needs_neither_torch_nor_networkx_nor_lm_eval():
    code = """
import pandas as pd
import qatoolkit as qt
row = {"discipline": "physics", "difficulty": "H5", "n": 40, "accuracy": 0.5, "low": 0.4, "high": 0.6}
qt.figures.accuracy_grid(pd.DataFrame([row]))
"""
    assert not loaded_by(code) & {"torch", "networkx", "lm_eval", "transformers", "numba"}


def test_the_registry_of_figures_loads_without_torch():
    assert not loaded_by("import qatoolkit.run.figures") & {"torch", "networkx", "lm_eval", "transformers"}


@pytest.mark.parametrize(("given", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_that_wait_leave_their_core_to_others_unless_told_otherwise(given, policy):
    env = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | given
    code = "import qatoolkit, sys; assert 'torch' not in sys.modules; import os; print(os.environ['OMP_WAIT_POLICY'])"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == policy


def test_no_name_of_a_package_is_also_one_of_its_modules():
    """Importing such a module would put it in the place of what the name stands for."""
    for package in (
        "qatoolkit",
        "qatoolkit.run.stages",
        "qatoolkit.run.tables",
        "qatoolkit.figures",
        "qatoolkit.seeds",
    ):
        found = importlib.import_module(package)
        modules = {m.name for m in pkgutil.iter_modules(found.__path__)}
        modules -= {"curate", "figures", "seeds"} if package == "qatoolkit" else set()
        assert not modules & set(found.__all__), package
