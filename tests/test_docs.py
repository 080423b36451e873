"""The pages are true: arrows between rooms, files, names and links that they point to, profiles, jobs and calls that they
show, the schema. The site that is made of them opens in a browser without network, on wide and narrow screens, and can be
read by everyone (slow)."""

import ast
import html
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from qatoolkit.core.settings import read_mapping

PACKAGE = ROOT / "qatoolkit"
DOCS = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
PAGES = ["README.md", "AGENTS.md", "CONTRIBUTING.md", *DOCS]
LINKED = [*PAGES, "CHANGELOG.md", "data/README.md", "results/README.md", "notebooks/README.md"]
OF_THEIR_DAY = "docs/LOG.md"  # its entries are not edited later, so files that they name may be gone
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
POINTER = re.compile(r"`([\w./-]+\.(?:py|csv|toml|txt|mplstyle|md|json|yaml|yml)|(?:[\w-]+/)+)`")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    """The blocks of code in a language that a page shows."""
    return [block for _, kind, block in BLOCK.findall(text_of(page)) if kind == language]


def with_blocks(language: str) -> list[str]:
    return [page for page in PAGES if page != OF_THEIR_DAY and blocks(page, language)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    heads = re.findall(r"^#+ (.+)$", re.sub(BLOCK, "", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}


def script(name: str):
    """A module of docs/."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "docs"))


def test_the_readme_is_short():
    assert len(text_of("README.md").splitlines()) <= 120


def test_the_list_of_pages_has_every_page():
    listed = re.findall(r"^- \[[^\]]+\]\(([^)#]+)\)", text_of("docs/index.md"), re.MULTILINE)
    assert {f"docs/{name}" for name in listed if "/" not in name} == {*DOCS} - {"docs/index.md"}
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("page", LINKED)
def test_every_relative_link_resolves(page):
    links = re.findall(r"\]\((?![a-z]+:)([^)\s]+)\)", without_code(text_of(page)))
    broken = []
    for link in links:
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        found = target.exists() and (not anchor or anchor in anchors(target))
        broken += [] if found else [link]
    assert broken == []


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


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ("README.md", OF_THEIR_DAY)])
def test_a_page_names_only_files_that_exist(page):
    """Paths in code style, from the top of the repository or of the package; what a run makes is left out."""
    prose = without_code(text_of(page))
    links = [name for name in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", prose)]
    assert [name for name in links if not (ROOT / page).parent.joinpath(name).exists()] == []
    names = [
        name
        for name in POINTER.findall(prose)
        if "/" in name and not name.startswith(("results/", "models/", "docs/_build/"))
    ]
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


@pytest.mark.parametrize("page", with_blocks("yaml"))
def test_profiles_and_jobs_shown_in_a_page_are_right(page, tmp_path):
    """Profiles satisfy the schema; a block that calls itself run.yaml is a job."""
    from qatoolkit.training.job import read_job

    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(text_of("qatoolkit.schema.json"))
    for block in blocks(page, "yaml"):
        is_job = block.startswith("# run.yaml")
        place = tmp_path / ("run.yaml" if is_job else "shown.yaml")
        place.write_text(block, encoding="utf-8")
        if is_job:
            assert read_job(place).tokens == 40_000_000_000
        else:
            jsonschema.validate(read_mapping(place, "a profile"), schema)


def test_the_start_page_shows_a_profile_and_a_job_and_so_do_the_pages_on_them():
    for page in ("README.md", "docs/own_model.md", "docs/extending.md", "docs/cluster.md"):
        assert blocks(page, "yaml"), page
    for page in ("README.md", "docs/cluster.md"):
        assert any(block.startswith("# run.yaml") for block in blocks(page, "yaml")), page


def public(dotted: str):
    """What a dotted name after `qt.` is."""
    import qatoolkit

    found = qatoolkit
    for part in dotted.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("page", with_blocks("python"))
def test_calls_shown_in_a_page_are_possible(page):
    """Every `qt.` name exists, and takes the arguments that it is shown with."""
    for block in blocks(page, "python"):
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and re.fullmatch(r"qt\.[\w.]+", ast.unparse(node)):
                public(ast.unparse(node).removeprefix("qt."))
            called = isinstance(node, ast.Call) and ast.unparse(node.func)
            if called and re.fullmatch(r"qt\.[\w.]+", called):
                given = [object() for argument in node.args if not isinstance(argument, ast.Starred)]
                named = {keyword.arg: object() for keyword in node.keywords if keyword.arg}
                inspect.signature(public(called.removeprefix("qt."))).bind(*given, **named)


def test_names_in_prose_that_begin_with_qt_exist():
    for page in PAGES:
        if page != OF_THEIR_DAY:
            for name in re.findall(r"`qt\.([\w.]*\w)", without_code(text_of(page))):
                public(name)


def test_the_glossary_has_every_level():
    from qatoolkit.core.taxonomy import DIFFICULTIES

    assert tuple(re.findall(r"^\| (H\d) \|", text_of("docs/glossary.md"), re.MULTILINE)) == DIFFICULTIES


def public_names() -> dict[str, object]:
    """What a user reaches with `qt.`, by name, that of rooms too; rooms themselves are left out."""
    import qatoolkit

    rooms = [name for name in qatoolkit.__all__ if inspect.ismodule(getattr(qatoolkit, name))]
    assert set(rooms) == {"stages", "tables", "figures", "seeds", "curate"}
    names = [name for name in qatoolkit.__all__ if name not in rooms]
    names += [f"{room}.{name}" for room in rooms for name in getattr(qatoolkit, room).__all__]
    return {name: public(name) for name in names}


def test_the_api_page_has_every_public_name_with_signature_and_docstring():
    page = script("build_site").with_entries(text_of("docs/api.md"))
    assert "<!-- names of" not in page
    heads = dict(re.findall(r"^:::::\{py:\w+\} qt\.([\w.]+)(.*)$", page, re.MULTILINE))
    known = public_names()
    assert set(heads) == set(known)
    assert len(known) > 120
    for name, thing in known.items():
        if callable(thing):
            assert heads[name].startswith("("), name
            assert inspect.getdoc(thing), name
    assert heads["open_run"] == "(name=None, *, profile=None, seed=None, root=None, world=None, change=False, **dials)"
    assert "Open or start a run: `open_run(" in page


# ---- the site ----

CHROMIUM = Path("/usr/bin/chromium")
NARROW, WIDE = {"width": 400, "height": 800}, {"width": 1280, "height": 900}
SERIOUS = {"moderate", "serious", "critical"}
NOTEBOOK = "01_seeds"


def executed(folder: Path) -> None:
    """A results folder with an executed copy of one notebook: a wide table, a figure, a warning and printed text."""
    import base64

    import matplotlib.pyplot as plt
    import nbformat
    import pandas as pd
    from nbformat.v4 import new_output

    import qatoolkit as qt
    from qatoolkit import figures

    notebook = nbformat.read(ROOT / "notebooks" / f"{NOTEBOOK}.ipynb", 4)
    wide = qt.table(pd.DataFrame({f"a column with a long name {i}": ["some words " * 6] for i in range(12)}))
    plt.switch_backend("agg")
    drawn = figures.save(
        figures.distribution(pd.DataFrame({"source": ["mine", "mine"], "difficulty": ["H1", "H5"]}), "difficulty"),
        folder / "drawn.png",
    )
    picture = next(path for path in drawn if path.suffix == ".png").read_bytes()
    outputs = [
        new_output("stream", name="stdout", text=f"{'a long line ' * 40}\n"),
        new_output("execute_result", {"text/html": wide.html, "text/plain": wide.text}, execution_count=2),
        new_output("display_data", {"image/png": base64.b64encode(picture).decode(), "text/plain": "Figure"}),
        new_output("stream", name="stderr", text="UserWarning: something\n"),
    ]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = outputs
    place = folder / "demo" / "notebooks" / f"{NOTEBOOK}.ipynb"
    place.parent.mkdir(parents=True)
    nbformat.write(notebook, place)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site, with one executed notebook; Sphinx takes every warning for an error."""
    pytest.importorskip("myst_nb", reason="the pages are built with the extra `docs` (make docs installs it)")
    folder = tmp_path_factory.mktemp("site")
    executed(folder / "results")
    nowhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    before = set(ROOT.rglob("*.ipynb"))
    done = subprocess.run(
        [sys.executable, "docs/build_site.py", str(folder)],
        cwd=ROOT,
        env=os.environ | nowhere | {"QATOOLKIT_RESULTS": str(folder / "results")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "WARNING" not in done.stdout + done.stderr
    assert set(ROOT.rglob("*.ipynb")) == before
    return folder / "site"


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def opened(browser, path: Path, size: dict, **options):
    """A page of the site from its file, without network; `problems` lists failed requests, errors, and anything that was
    asked of a host."""
    context = browser.new_context(viewport=size, offline=True, **options)
    page = context.new_page()
    page.problems = []
    page.on("console", lambda said: page.problems.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("requestfailed", lambda request: page.problems.append(f"failed: {request.url}"))
    page.on(
        "request", lambda r: page.problems.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None
    )
    page.goto(path.as_uri(), wait_until="load")
    page.wait_for_timeout(50)
    return page


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_page_of_the_site_opens_without_network(site, browser):
    pages = sorted(site.rglob("*.html"))
    assert {"index.html", "docs/api.html", "docs/glossary.html", f"notebooks/{NOTEBOOK}.html", "CHANGELOG.html"} <= {
        path.relative_to(site).as_posix() for path in pages
    }
    found = {}
    for path in pages:
        if "_static" in path.parts:
            continue
        for size in (WIDE, NARROW):
            page = opened(browser, path, size)
            width = page.evaluate("document.documentElement.scrollWidth")
            problems = page.problems + ([f"{width} pixels wide"] if width > size["width"] else [])
            found |= {(path.name, size["width"]): problems} if problems else {}
            page.context.close()
    assert found == {}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", ["index", "docs/own_model", "docs/glossary", "docs/api", f"notebooks/{NOTEBOOK}"])
def test_a_page_can_be_read_by_everyone(site, browser, name, size, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = opened(browser, site / f"{name}.html", size, color_scheme=scheme)
    found = [v for v in axe.run(page).response["violations"] if v["impact"] in SERIOUS]
    page.context.close()
    assert [(v["id"], v["impact"], v["nodes"][0]["html"][:200], len(v["nodes"])) for v in found] == []


@pytest.mark.slow
def test_the_site_shows_names_with_their_docstrings_and_executed_notebooks(site):
    text = html.unescape(re.sub(r"<[^>]+>", "", (site / "docs" / "api.html").read_text(encoding="utf-8")))
    text = re.sub(r"\s+", " ", text)
    for name, thing in public_names().items():
        assert f"qt.{name}" in text
        if callable(thing):
            first = re.sub(r"[`\s]+", " ", inspect.getdoc(thing).split("\n\n")[0].split(". ")[0])
            assert first.split(" ")[0] in text, name
    assert "Open or start a run" in text
    for notebook in ("05_linkqa", "09_scaling"):  # browsers draw formulas themselves
        formula = (site / "notebooks" / f"{notebook}.html").read_text(encoding="utf-8")
        assert "<math" in formula, notebook
        assert "mathjax" not in formula.lower(), notebook
    assert "a column with a long name 11" in (site / "notebooks" / f"{NOTEBOOK}.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_site_can_be_searched(site, browser):
    page = opened(browser, site / "search.html", WIDE)
    page.goto(f"{(site / 'search.html').as_uri()}?q=blind+reader")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    assert page.problems == []
    page.context.close()
