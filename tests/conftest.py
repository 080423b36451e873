"""Shared by the tests: one smoke run of all notebooks in a results folder of its own, and where the real data lies."""

import gc
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_training import make_world, train_here
from teacher_server import Server

ROOT = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get("QATOOLKIT_REAL_DATA", ROOT.parent / "shared" / "data"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Where several processes run the tests, a file stays in one, and so do all files that read the smoke run, which is
    made once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            reads = re.search(r"def \w+\([^)]*\bsmoke\b", (ROOT / file).read_text(encoding="utf-8"))
            return "smoke" if reads else file

    return ByFile(config, log)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """All notebooks executed once by the command line in the smoke profile: `folder` (the run), `environment`, `said`. In
    the results folder that QATOOLKIT_SMOKE names, if it does: what is done there is not done again."""
    results = Path(os.environ.get("QATOOLKIT_SMOKE") or tmp_path_factory.mktemp("results"))
    environment = os.environ | {
        "QATOOLKIT_RESULTS": str(results),
        "HF_HUB_OFFLINE": "1",
        "OPENAI_BASE_URL": "",
        # Any connection that leaves the machine goes to a proxy that is not there, and fails.
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "no_proxy": "127.0.0.1,localhost",
    }
    command = [sys.executable, "-m", "qatoolkit.run.cli", "run", "--profile", "smoke"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return SimpleNamespace(folder=results / "smoke", results=results, environment=environment, said=done.stdout)


CHROMIUM = Path("/usr/bin/chromium")
needs_chromium = pytest.mark.skipif(
    not CHROMIUM.exists(), reason="Chromium is not installed (apt-get install chromium)"
)


@pytest.fixture(scope="module")
def chromium():
    """A headless browser that calls nobody by itself."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield browser
        browser.close()


@pytest.fixture
def server():
    """A real HTTP server that answers as the test says (`teacher_server`)."""
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Tokenizer, QA and general text as token files, for training jobs of a few seconds."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def trained_here():
    """What stages train is trained in this process; that workers train the same is seen in the smoke run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qatoolkit.run.stages.training.train_all", train_here)
        yield


@pytest.fixture
def lm_eval_command(tmp_path, monkeypatch):
    """A function that gives lm-eval's command its arguments, in this process, which has loaded torch."""
    from lm_eval._cli import HarnessCLI

    def call(*arguments) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # which it sets
        monkeypatch.setattr(sys, "argv", ["lm_eval", "run", "--model", "hf", "--device", "cpu", *map(str, arguments)])
        command = HarnessCLI()
        command.execute(command.parse_args())

    return call


@pytest.fixture
def traceback_of():
    """A function that writes out an exception that pytest.raises caught, with all local values.

    No garbage is collected meanwhile: when another thread runs during a collection and parses too, CPython 3.11 fails to parse the
    source ("AST constructor recursion depth mismatch")."""

    def written(caught) -> str:
        gc.disable()
        try:
            return str(caught.getrepr(showlocals=True))
        finally:
            gc.enable()

    return written
