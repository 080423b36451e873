"""The tour in a real JupyterLab: opened in headless Chromium, run cell by cell, and the heat-map is there."""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import ROOT

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed (apt-get install chromium)"),
]


@pytest.fixture
def lab(smoke, tmp_path):
    """A JupyterLab over a copy of the notebooks, on a free port with a token; yields its URL."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    environment = smoke.environment | {
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
    }
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0",
        "--ServerApp.token=tour", "--allow-root", f"--ServerApp.root_dir={tmp_path / 'notebooks'}",
    ]  # fmt: skip
    log = tmp_path / "lab.log"
    with open(log, "w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT, cwd=tmp_path)
    try:
        yield _url(log, process)
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()


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


def test_tour_runs_in_jupyterlab_and_shows_the_heat_map(lab, tmp_path):
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.goto(f"{lab}/lab/tree/00_tour.ipynb?token=tour&reset", wait_until="domcontentloaded")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
        page.wait_for_selector("text=/Python 3.*\\| Idle/", timeout=90_000)
        page.click("text=Run >> nth=0")
        page.click("text=Run All Cells >> nth=0")
        # The last figure of the tour is the grid of gains; the probe's grid stands above it.
        page.wait_for_function(
            "() => { const s = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.textContent);"
            " return s.length > 8 && s.every(t => /\\[\\d+\\]/.test(t)); }",
            timeout=200_000,
        )
        errors = page.locator(
            ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']"
        ).all_inner_texts()
        assert not [e for e in errors if "Error" in e]
        # Cells out of view are in the page but not painted: ask the images themselves.
        drawn = page.evaluate(
            "() => [...document.querySelectorAll('.jp-RenderedImage img')].map(i => [i.naturalWidth, i.naturalHeight])"
        )
        assert len(drawn) >= 4
        assert all(width > 300 and height > 200 for width, height in drawn)
        page.evaluate("() => document.querySelector('.jp-RenderedImage img').scrollIntoView({block: 'center'})")
        page.wait_for_timeout(1000)
        box = page.locator(".jp-RenderedImage img").first.bounding_box()
        assert box["width"] > 300
        page.screenshot(path=str(os.environ.get("QATOOLKIT_SCREENSHOT") or tmp_path / "tour.png"))
        browser.close()
