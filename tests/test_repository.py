"""The repository keeps its promises: one environment, a light import, clean notebooks, names that exist."""

import json
import re
import resource
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.~}-])/(?:work|root|home|tmp)/")
REPOSITORY_NAME = re.compile(r"\.?[\w-][\w./-]*(?:/|\.(?:ipynb|py|toml|txt|yml|yaml|md|csv|png))|Makefile|LICENSE")


def pins() -> dict[str, str]:
    """Pinned version by canonical name; every line but comments must be name==version."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line) for line in lines if line[:1] != "#"]
    assert all(found), "constraints.txt holds a line that is not name==version"
    return {canonicalize_name(match[1]): match[2] for match in found}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def committed() -> list[Path]:
    """Files that git tracks, or would on the next `git add`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout, so nothing says which files belong to it")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_every_dependency_is_pinned():
    extras = project()["optional-dependencies"]
    needed = [*project()["dependencies"], *(need for needs in extras.values() for need in needs)]
    assert {
        Requirement(need).name for need in needed if canonicalize_name(Requirement(need).name) not in pins()
    } == set()


def test_pins_satisfy_the_project():
    for need in map(Requirement, [*project()["dependencies"], *project()["optional-dependencies"]["all"]]):
        assert need.specifier.contains(pins()[canonicalize_name(need.name)]), f"{need} against its pin"


def test_torch_is_pinned_alike_everywhere():
    assert pins()["torch"] == "2.13.0"
    assert re.findall(r"torch==(\S+)", (ROOT / "Makefile").read_text(encoding="utf-8")) == ["2.13.0"]


def test_conda_installs_the_same_environment():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert environment["name"] == project()["name"]
    assert conda == ["python=3.11", "pip"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[all]"]}


def test_import_is_light():
    def load() -> tuple[float, str]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        command = [sys.executable, "-X", "importtime", "-c", "import qatoolkit"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before, done.stderr

    seconds, imported = zip(*(load() for _ in range(3)), strict=True)
    modules = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in imported[0].splitlines()}
    assert "qatoolkit" in modules
    assert not modules & {"torch", "transformers", "lm_eval", "pandas"}
    assert statistics.median(seconds) < 0.3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_without_outputs_and_takes_parameters(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert len({cell["id"] for cell in cells}) == len(cells)
    (parameters,) = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert re.findall(r"^(\w+) =", "".join(parameters["source"]), re.MULTILINE) == ["PROFILE", "RUN", "SEED"]


def test_notebooks_are_those_that_the_runner_knows():
    from qatoolkit.run.notebooks import ORDER

    assert [path.stem for path in NOTEBOOKS] == sorted(ORDER)


def test_no_file_names_a_path_of_one_machine():
    found = []
    for path in committed():
        if path.is_relative_to(ROOT / "tests"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert found == []


@pytest.mark.parametrize("page", ["README.md", "notebooks/README.md", "data/README.md"])
def test_readme_names_only_files_that_exist(page):
    """Links, and in README.md also code that looks like a file or folder; what a run makes is left out."""
    text = (ROOT / page).read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", prose)
    names = (
        [n for n in re.findall(r"`([^`\n]+)`", prose) if REPOSITORY_NAME.fullmatch(n)] if page == "README.md" else []
    )
    made = re.compile(r"results/(?!reference/|README)")
    missing = {
        name for name in links + names if not made.match(name) and not (ROOT / page).parent.joinpath(name).exists()
    }
    assert missing == set()


def test_ruff_finds_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--output-format", "concise", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
