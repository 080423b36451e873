"""The pages for contributors are true: the arrows between rooms, the files and names that they point to, the schema."""

import ast
import importlib.util
import json
import re

import pytest
from conftest import ROOT

from qatoolkit.core.settings import read_mapping

PACKAGE = ROOT / "qatoolkit"
PAGES = [
    "README.md",
    "AGENTS.md",
    "CONTRIBUTING.md",
    *(f"docs/{n}.md" for n in ("architecture", "extending", "reliability")),
]
POINTER = re.compile(r"`([\w./-]+\.(?:py|csv|toml|txt|mplstyle|md|json|yaml|yml)|(?:[\w-]+/)+)`")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def test_the_arrows_between_rooms_are_those_of_the_sources():
    spec = importlib.util.spec_from_file_location("draw_rooms", ROOT / "docs" / "draw_rooms.py")
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    (block,) = re.findall(r"^```text\n(.*?)\n```", text_of("docs/architecture.md"), re.DOTALL | re.MULTILINE)
    said = "run python docs/draw_rooms.py, and with --list for the text in docs/architecture.md"
    assert block == drawing.listed(drawing.arrows()), said
    assert set(drawing.PLACE) == {room for floor in drawing.floors()[1:-1] for room in floor}
    picture = text_of("docs/rooms.svg")
    assert all(f">{room}</text>" in picture for floor in drawing.floors() for room in floor)


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md"])
def test_a_page_names_only_files_that_exist(page):
    """Paths in code style, from the top of the repository or of the package; what a run makes is left out."""
    prose = without_code(text_of(page))
    links = [name for name in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", prose)]
    assert [name for name in links if not (ROOT / page).parent.joinpath(name).exists()] == []
    names = [name for name in POINTER.findall(prose) if "/" in name and not name.startswith(("results/", "models/"))]
    assert [name for name in names if not ((ROOT / name).exists() or (PACKAGE / name).exists())] == []


def defined(path) -> set[str]:
    """Names that a module defines, methods as `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_where_to_find_things_points_at_names_that_are_there():
    pointers = re.findall(r"`([\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)", text_of("docs/architecture.md"))
    assert len(pointers) > 20
    for path, names in pointers:
        assert set(re.findall(r"`([\w.]+)`", names)) <= defined(PACKAGE / path), path


def test_every_room_is_described():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert set(re.findall(r"^\| `(\w+)` \|", text_of("docs/architecture.md"), re.MULTILINE)) == rooms


def test_the_schema_for_editors_is_up_to_date():
    from qatoolkit.run.profiles import schema

    written = json.loads(text_of("qatoolkit.schema.json"))
    assert written == schema(), "run `make schema`"


@pytest.mark.parametrize("page", ["README.md", "docs/extending.md"])
def test_profiles_shown_in_a_page_satisfy_the_schema(page, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(text_of("qatoolkit.schema.json"))
    blocks = re.findall(r"^```yaml\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)
    shown = [block for block in blocks if "run.yaml" not in block]
    assert shown
    for block in shown:
        (tmp_path / "shown.yaml").write_text(block, encoding="utf-8")
        jsonschema.validate(read_mapping(tmp_path / "shown.yaml", "a profile"), schema)
