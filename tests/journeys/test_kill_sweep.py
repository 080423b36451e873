"""A sweep that is killed (-9) again and again ends with the same table, and no training that was finished runs again."""

import os
import random
import shutil
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import ROOT
from test_kill import kill

KILLS = 6
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SWEEP = """
import sys
import qatoolkit as qt
run = qt.open_run("smoke", root=sys.argv[1])
grid = {"size": ["xxs", "xs"], "midtrain.replay": [0.2, 0.5], "midtrain.tokens": [12_000]}
qt.stages.sweep(run, grid).to_parquet(sys.argv[2])
"""


def begin(results, table):
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OPENAI_BASE_URL": "", "QATOOLKIT_RESULTS": str(results)}
    command = [sys.executable, "-c", SWEEP, str(results), str(table)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finished(results):
    """The trainings that are whole, and when."""
    return {path: path.stat().st_mtime_ns for path in (results / "stages" / "train").glob("*/training.json")}


def test_a_sweep_killed_at_any_moment_trains_nothing_twice_and_ends_with_the_same_table(smoke, tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    for copy in (unbroken, broken):
        shutil.copytree(smoke.results, copy, symlinks=True)
    begun = time.perf_counter()
    assert begin(unbroken, tmp_path / "unbroken.parquet").wait() == 0
    whole = time.perf_counter() - begun

    rng, known, killed = random.Random(0), finished(broken), 0
    for _ in range(KILLS):
        process = begin(broken, tmp_path / "broken.parquet")
        time.sleep(rng.uniform(0.15, 0.7) * whole)
        if process.poll() is None:
            kill(process)
            killed += 1
        now = finished(broken)
        assert {path: now.get(path) for path in known} == known
        known = now
    assert begin(broken, tmp_path / "broken.parquet").wait() == 0
    now = finished(broken)
    assert {path: now[path] for path in known} == known
    assert len(now) == len(finished(unbroken))
    assert killed >= 2
    pd.testing.assert_frame_equal(*(pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("broken", "unbroken")))
