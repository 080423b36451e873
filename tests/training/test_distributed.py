"""Two processes that share a model by FSDP2 learn what one does, and leave a plain checkpoint."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT
from small_training import curve, job
from transformers import AutoModelForCausalLM

from qatoolkit.training.checkpoints import states
from qatoolkit.training.train import train

ACCELERATE = Path(sys.executable).parent / "accelerate"


def launched(file: Path, *, processes: int = 2) -> dict:
    """`accelerate launch` as the docs show it, on this machine's CPU, as arguments of a subprocess."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [ACCELERATE, "launch", "--use_fsdp", "--fsdp_version", "2", "--num_processes", str(processes)]
    command += ["--main_process_port", str(port), "-m", "qatoolkit.run.cli", "train", str(file)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return {"args": command, "text": True, "env": environment}


def launch(file: Path, **how) -> subprocess.CompletedProcess:
    return subprocess.run(**launched(file, **how), capture_output=True, timeout=240)


def written(one, file: Path) -> Path:
    """A job as the YAML file that the command reads."""
    fields = {k: v for k, v in vars(one).items() if v is not None}
    file.write_text(yaml.safe_dump(json.loads(json.dumps(fields))))
    return file


@pytest.mark.parametrize("start", [pytest.param("scratch", marks=pytest.mark.slow), "checkpoint"])
def test_two_processes_lose_what_one_loses(world, tmp_path, start):
    # 9 blocks a step, 2 at a time: uneven between the processes, with padding for the one that has none left
    settings = {"batch": 9, "micro_batch": 2, "tokens": 12_000, "z_loss": 1e-4, "loss_on": "answer"}
    if start == "checkpoint":
        train(job(world, tmp_path / "start", tokens=4_000), log=str)
        settings |= {"start": tmp_path / "start", "checkpointing": True}
    alone, shared = (job(world, tmp_path / name, name="j", **settings) for name in ("alone", "shared"))
    train(alone, log=str)
    done = launch(written(shared, tmp_path / "shared.yaml"))
    assert done.returncode == 0, done.stderr[-3000:]
    found, expected = curve(tmp_path / "shared"), curve(tmp_path / "alone")
    for key in ("loss", "tokens", "lr"):
        assert [row[key] for row in found] == pytest.approx([row[key] for row in expected], abs=1e-5)
    models = [AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("alone", "shared")]
    for ours, theirs in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert "2 devices" in done.stdout


def test_a_run_of_one_process_goes_on_with_two(world, tmp_path):
    one = job(world, tmp_path / "out", save_every=4, tokens=12_000, keep_optimizer=True)
    train(job(world, tmp_path / "whole", save_every=4, tokens=12_000), log=str)

    def stop(row):
        if row["step"] == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(one, log=str, hook=stop)
    assert states(one.out)
    done = launch(written(one, tmp_path / "run.yaml"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resumes after step 12" in done.stdout
    found, expected = curve(tmp_path / "out"), curve(tmp_path / "whole")
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in expected], abs=1e-5)
    assert (tmp_path / "out" / "optimizer.safetensors").exists()


@pytest.mark.slow
def test_a_stop_of_the_launcher_saves_the_state_and_the_same_command_goes_on(world, tmp_path):
    train(job(world, tmp_path / "whole", tokens=12_000), log=str)
    file = written(job(world, tmp_path / "out", tokens=12_000), tmp_path / "run.yaml")
    with subprocess.Popen(**launched(file), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        metrics, since = tmp_path / "out" / "metrics.jsonl", time.monotonic()
        while not metrics.is_file() or metrics.read_text().count("\n") < 3:
            assert process.poll() is None
            assert time.monotonic() - since < 120
            time.sleep(0.02)
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode != 0
    [last] = states(tmp_path / "out")[-1:]
    assert int(last.name) < len(curve(tmp_path / "whole"))
    done = launch(file)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"resumes after step {int(last.name)}" in done.stdout
    found, expected = curve(tmp_path / "out"), curve(tmp_path / "whole")
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in expected], abs=1e-5)


def test_a_faulty_file_ends_every_process_with_the_reason(world, tmp_path):
    (tmp_path / "run.yaml").write_text("out: o\ntokens: 5\n")
    done = launch(tmp_path / "run.yaml")
    assert done.returncode != 0
    assert "job 'run': give either start" in done.stderr
