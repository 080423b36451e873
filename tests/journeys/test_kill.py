"""Killed (-9) at ten random moments and started again, a run ends with the same summary, and nothing is paid for twice.

The profile is smoke unless QATOOLKIT_KILL_PROFILE says demo; `pytest -m slow tests/test_kill.py`.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest
from conftest import ROOT

from qatoolkit.run.profiles import load_profile

PROFILE = os.environ.get("QATOOLKIT_KILL_PROFILE", "smoke")
KILLS = 10
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * 3600)]


def start(results):
    environment = os.environ | {"QATOOLKIT_RESULTS": str(results), "HF_HUB_OFFLINE": "1", "OPENAI_BASE_URL": ""}
    command = [sys.executable, "-m", "qatoolkit.run.cli", "run", "--profile", PROFILE]
    log = open(results / "said.log", "a")  # noqa: SIM115 (the process keeps it)
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def kill(process):
    """The whole tree at once: command, kernel, training workers, teacher."""
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def summary(results):
    document = json.loads((results / PROFILE / "summary.json").read_text())
    del document["seconds"]  # wall-clock times are the one thing that differs
    return document


def test_ten_kills_change_nothing_and_pay_for_nothing_twice(tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    for folder in (unbroken, broken):
        folder.mkdir()
    begun = time.perf_counter()
    assert start(unbroken).wait() == 0
    whole = time.perf_counter() - begun

    rng, in_flight = random.Random(0), 0
    for _ in range(KILLS):
        process = start(broken)
        time.sleep(rng.uniform(2, whole / 6))
        if process.poll() is None:
            kill(process)
            in_flight += load_profile(PROFILE).teacher.in_flight
    assert start(broken).wait() == 0

    assert summary(broken) == summary(unbroken)
    lines = (broken / "teacher.log.jsonl").read_text().splitlines()
    answered = Counter(json.loads(line)["request"] for line in lines if line.endswith("}"))
    twice = sum(n - 1 for n in answered.values())
    print(f"{KILLS} kills, {len(answered)} requests, {twice} answered twice (at most {in_flight} were in flight)")
    assert twice <= in_flight
