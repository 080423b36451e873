"""The notebooks in a real JupyterLab, driven through headless Chromium: the tour to its end, browsing and marking, an
interrupt and what comes after it, a notebook that is closed and opened again, two notebooks on one run, both themes."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import ROOT, needs_chromium

pytestmark = [pytest.mark.timeout(3000), needs_chromium]


@pytest.fixture(scope="module")
def jupyterlab(smoke, tmp_path_factory):
    """A JupyterLab over a copy of the notebooks, on a free port with a token."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    environment = smoke.environment | {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0",
        "--ServerApp.token=tour", "--allow-root", f"--ServerApp.root_dir={folder / 'notebooks'}",
    ]  # fmt: skip
    log = folder / "lab.log"
    with open(log, "w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT, cwd=folder)
    try:
        yield Lab(_url(log, process), folder / "notebooks", smoke.results)
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture
def lab(jupyterlab):
    """The JupyterLab, whose kernels end with the test."""
    yield jupyterlab
    jupyterlab.end_kernels()


def _url(log: Path, process) -> str:
    for _ in range(120):
        found = re.search(r"http://127\.0\.0\.1:(\d+)/lab", log.read_text())
        if found:
            base = f"http://127.0.0.1:{found[1]}"
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            opener.open(f"{base}/api/status?token=tour", timeout=30).read()
            return base
        assert process.poll() is None, log.read_text()[-2000:]
        time.sleep(0.5)
    raise AssertionError("JupyterLab did not start: " + log.read_text()[-2000:])


class Lab:
    """A JupyterLab with a browser in front of it."""

    def __init__(self, url: str, folder: Path, results: Path):
        self.url, self.folder, self.results = url, folder, results

    def write(self, name: str, *cells: str) -> None:
        """Write a notebook of code cells."""
        import nbformat

        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        nbformat.write(notebook, self.folder / name)

    def open(self, context, name: str):
        """A page with the notebook, its kernel idle."""
        page = context.new_page()
        page.goto(f"{self.url}/lab/tree/{name}?token=tour&reset", wait_until="domcontentloaded")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
        page.wait_for_selector("text=/Python 3.*\\| Idle/", timeout=90_000)
        return page

    def request(self, method: str, path: str):
        """The server's REST API."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        asked = urllib.request.Request(f"{self.url}/api/{path}?token=tour", method=method)
        return opener.open(asked, timeout=30).read()

    def end_kernels(self) -> None:
        for session in json.loads(self.request("GET", "sessions")):
            self.request("DELETE", f"sessions/{session['id']}")


def run_all(page):
    page.click("text=Run >> nth=0")
    page.click("text=Run All Cells >> nth=0")


def wait_for(page, text, timeout=120_000):
    page.wait_for_function(
        "text => document.querySelector('.jp-Notebook').innerText.includes(text)", arg=text, timeout=timeout
    )


def ended(page, cells=1, timeout=200_000):
    """Wait until so many cells, and every one there is, have run."""
    page.wait_for_function(
        "n => { const s = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.textContent);"
        " return s.length >= n && s.every(t => /\\[\\d+\\]/.test(t)); }",
        arg=cells,
        timeout=timeout,
    )


def keep(page, name, tmp_path):
    """A screenshot, in the folder that QATOOLKIT_SCREENSHOTS names."""
    page.screenshot(path=str(Path(os.environ.get("QATOOLKIT_SCREENSHOTS") or tmp_path) / f"{name}.png"))


def test_tour_runs_in_jupyterlab_and_shows_the_heat_map(lab, chromium, tmp_path):
    page = lab.open(chromium.new_context(viewport={"width": 1300, "height": 1000}), "00_tour.ipynb")
    run_all(page)
    ended(page, 9)
    stderr = page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']")
    assert not [e for e in stderr.all_inner_texts() if "Error" in e]
    # Cells out of view are in the page but not painted: ask the images themselves.
    drawn = page.evaluate(
        "() => [...document.querySelectorAll('.jp-RenderedImage img')].map(i => [i.naturalWidth, i.naturalHeight])"
    )
    assert len(drawn) >= 4
    assert all(width > 300 and height > 200 for width, height in drawn)
    page.evaluate("() => { document.querySelector('.jp-WindowedPanel-outer').scrollTop = 0; }")
    wait_for(page, "The smoke profile only shows that everything runs")
    page.evaluate("() => document.querySelector('.jp-RenderedImage img').scrollIntoView({block: 'center'})")
    page.wait_for_timeout(1000)
    assert page.locator(".jp-RenderedImage img").first.bounding_box()["width"] > 300
    keep(page, "tour", tmp_path)
    page.context.close()


def test_questions_are_browsed_and_marked_from_a_notebook_and_curation_honours_it(lab, chromium, tmp_path):
    lab.write(
        "browse.ipynb",
        "import qatoolkit as qt\nrun = qt.open_run('smoke')",
        "page = qt.browse(run, marks='marks.jsonl')\npage",
        "page.close()",
    )
    context = chromium.new_context(viewport={"width": 1300, "height": 900}, accept_downloads=True)
    notebook = lab.open(context, "browse.ipynb")
    for _ in range(2):  # not the last cell, which closes the page
        notebook.keyboard.press("Shift+Enter") if _ else notebook.click(".jp-CodeCell .cm-content >> nth=0")
        notebook.keyboard.press("Shift+Enter") if not _ else None
    wait_for(notebook, "Open the page")
    with context.expect_page() as opened:
        notebook.click("text=Open the page")
    page = opened.value
    page.wait_for_function("() => document.getElementById('count').textContent.includes('questions')")
    page.select_option("#filter-set", "boostqa")
    page.select_option("#filter-outcome", "kept")
    page.focus("#list")
    keep(page, "browse", tmp_path)
    page.keyboard.press("b")
    page.wait_for_function("() => document.getElementById('saved').textContent.includes('saved')")
    [mark] = [json.loads(line) for line in (lab.folder / "marks.jsonl").read_text().splitlines()]
    assert mark["mark"] == "bad"
    context.close()

    from qatoolkit.run import stages
    from qatoolkit.run.store import open_run

    marked = {"curate.marks": str(lab.folder / "marks.jsonl")}
    run = open_run("marked", profile="smoke", root=lab.results, **marked)
    stages.run_to(run, "curate", log=str)
    rejects = run.read("curate").boostqa_rejects.set_index("id")
    assert rejects.loc[mark["id"], "reason"] == "marked_bad"
    assert mark["id"] not in set(run.read("curate").boostqa["id"])


def test_an_interrupted_training_is_one_line_and_goes_on(lab, chromium, tmp_path):
    lab.write(
        "stop.ipynb",
        "import qatoolkit as qt\nrun = qt.open_run('stopped', profile='smoke', seed=71)",
        "qt.stages.base(run)\nprint('base', 'is there')",
    )
    page = lab.open(chromium.new_context(viewport={"width": 1300, "height": 900}), "stop.ipynb")
    run_all(page)
    wait_for(page, "tokens (")
    page.click("text=Kernel >> nth=0")
    page.click("text=Interrupt Kernel >> nth=0")
    wait_for(page, "Interrupted: base was interrupted")
    text = page.locator(".jp-Notebook").inner_text()
    assert "Traceback" not in text
    assert "base is there" not in text
    assert text.count("\n") < 40
    keep(page, "interrupted", tmp_path)
    run_all(page)
    wait_for(page, "base is there")
    page.context.close()


def test_a_notebook_that_is_saved_closed_and_opened_again_has_nothing_dead_in_it(lab, chromium, tmp_path):
    lab.write(
        "again.ipynb",
        "import qatoolkit as qt\nrun = qt.open_run('again', profile='smoke', seed=72)\nrun",
        "qt.stages.base(run)",
        "qt.findings(qt.open_run('smoke'), 'evaluate')",
        "qt.browse(qt.open_run('smoke'))",
    )
    context = chromium.new_context(viewport={"width": 1300, "height": 900})
    page = lab.open(context, "again.ipynb")
    run_all(page)
    ended(page, 4)
    page.keyboard.press("Control+s")
    page.wait_for_timeout(2000)
    page.close(run_before_unload=False)
    lab.end_kernels()
    page = lab.open(context, "again.ipynb")
    text = page.locator(".jp-Notebook").inner_text()
    assert "Error displaying widget" not in text
    assert "Loading widget" not in text
    wait_for(page, "BoostQA compared with base")
    wait_for(page, "while this kernel runs")
    wait_for(page, "training: ")
    keep(page, "reopened", tmp_path)
    context.close()


def test_the_second_of_two_notebooks_on_one_run_says_that_it_waits(lab, chromium, tmp_path):
    cells = (
        "import qatoolkit as qt\nrun = qt.open_run('shared', profile='smoke', seed=73)",
        "qt.stages.base(run)\nprint('base', 'is there')",
    )
    context = chromium.new_context(viewport={"width": 1300, "height": 900})
    pages = []
    for name in ("one.ipynb", "two.ipynb"):
        lab.write(name, *cells)
        pages.append(lab.open(context, name))
    run_all(pages[0])
    wait_for(pages[0], "tokens")
    run_all(pages[1])
    wait_for(pages[1], "waiting for another process that is making base")
    keep(pages[1], "waiting", tmp_path)
    for page in pages:
        wait_for(page, "base is there")
    context.close()


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_tables_and_questions_are_readable_in_both_themes(lab, chromium, tmp_path, theme):
    settings = lab.folder.parent / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "themes.jupyterlab-settings").write_text(json.dumps({"theme": theme}))
    lab.write(
        "theme.ipynb",
        "import qatoolkit as qt\nrun = qt.open_run('smoke')\nrun",
        "qt.qa(run.read('annotate').seeds, n=2)",
        "qt.table(run.read('evaluate').comparisons)",
        "qt.draw(run, 'probe')",
    )
    page = lab.open(chromium.new_context(viewport={"width": 1300, "height": 1100}), "theme.ipynb")
    run_all(page)
    ended(page, 4)
    wait_for(page, "difference (points)")
    ratio = page.evaluate(CONTRAST)
    assert ratio > 4.5
    wide = page.evaluate(
        "() => [...document.querySelectorAll('.jp-RenderedHTMLCommon')].every(o => o.scrollWidth <= o.clientWidth + 1)"
    )
    assert wide
    keep(page, theme.split()[1].lower(), tmp_path)
    page.context.close()


CONTRAST = """() => {
  const shade = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const cell = document.querySelector('.jp-RenderedHTMLCommon td'), ink = shade(getComputedStyle(cell).color);
  let under = cell; while (under && /rgba\\(0, 0, 0, 0\\)|transparent/.test(getComputedStyle(under).backgroundColor)) under = under.parentElement;
  const paper = shade(getComputedStyle(under || document.body).backgroundColor);
  return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
}"""
