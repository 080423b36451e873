"""A training on a cluster: one job per folder, stops that a scheduler requeues, disks that fill up."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from conftest import ROOT
from small_training import STARTER, curve, job, weights

from qatoolkit.run import notebooks
from qatoolkit.run.cli import main
from qatoolkit.training.checkpoints import states
from qatoolkit.training.job import write_job
from qatoolkit.training.launch import JobsToRun
from qatoolkit.training.parallel import train_all
from qatoolkit.training.stops import AGAIN, LOCK, InUse, Stopped
from qatoolkit.training.train import train

HERE = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
}


def wait_for(what, process=None, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it never came"
        assert process is None or process.poll() is None, "the process ended before"
        time.sleep(0.005)


def steps_of(folder: Path) -> int:
    metrics = folder / "metrics.jsonl"
    return len(metrics.read_bytes().splitlines()) if metrics.exists() else 0


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    """The weights of a job that nothing disturbed."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    train(job(world, out, keep=(0.5,)), log=str)
    return weights(out)


@contextmanager
def started(one, file: Path):
    """`qatoolkit train` of a job in its own process."""
    write_job(one, file)
    command = [sys.executable, "-m", "qatoolkit.run.cli", "train", str(file)]
    process = subprocess.Popen(command, env=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


# --- one job per folder ---


def test_the_second_job_in_a_folder_is_refused_and_names_the_first(world, tmp_path, capsys):
    one = job(world, tmp_path / "out", tokens=400_000)
    write_job(one, tmp_path / "run.yaml")
    first = STARTER.Process(target=train, args=(one,), kwargs={"log": str}, daemon=True)
    first.start()
    wait_for(lambda: steps_of(tmp_path / "out") > 2)
    since = time.monotonic()
    with pytest.raises(InUse, match=rf"process {first.pid} on \S+ is already training in {tmp_path}/out"):
        train(one, log=str)
    assert time.monotonic() - since < 5
    assert main(["train", str(tmp_path / "run.yaml")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert first.is_alive()
    first.kill()
    first.join()
    with pytest.raises(Stopped):  # the lock went with the process that was killed
        train(one, log=str, hook=stop_after(0))


def stop_after(step: int):
    """A hook that asks this process to stop, as a scheduler does."""

    def hook(row):
        if row["step"] >= step:
            os.kill(os.getpid(), signal.SIGTERM)

    return hook


def test_a_job_leaves_no_lock_and_one_that_is_refused_no_folder(world, tmp_path, undisturbed):
    train(job(world, tmp_path / "out", keep=(0.5,)), log=str)
    assert not (tmp_path / "out" / LOCK).exists()
    with pytest.raises(ValueError, match="nowhere"):
        train(job(world, tmp_path / "other", start=tmp_path / "nowhere"), log=str)
    assert not (tmp_path / "other").exists()


# --- stops ---


def test_a_stop_before_the_first_step_speaks_of_no_state(world, tmp_path):
    def log(line):
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match=r"after step 0 of [0-9]+; run the same"):
        train(job(world, tmp_path / "out"), log=log)


def test_the_command_ends_with_the_code_of_a_temporary_failure_and_one_line(world, tmp_path, undisturbed):
    one = job(world, tmp_path / "out", keep=(0.5,))
    with started(one, tmp_path / "run.yaml") as process:
        wait_for(lambda: steps_of(tmp_path / "out") > 2, process)
        process.terminate()
        said = process.communicate(timeout=30)[0]
    assert process.returncode == AGAIN
    assert "Traceback" not in said
    assert "stopped on request after step" in said.splitlines()[-1]
    assert main(["train", str(tmp_path / "run.yaml")]) == 0
    assert weights(tmp_path / "out") == undisturbed


def test_handlers_are_as_before_when_a_training_ends(world, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped):
        train(job(world, tmp_path / "out"), log=str, hook=stop_after(2))
    assert signal.getsignal(signal.SIGTERM) is before
    assert [int(p.name) for p in states(tmp_path / "out")] == [3]


@pytest.mark.slow
@pytest.mark.parametrize("launch", [None, f"{sys.executable} -m qatoolkit.run.cli"])
def test_a_stop_reaches_the_processes_that_train_for_a_stage(world, tmp_path, undisturbed, launch, monkeypatch):
    for name in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, HERE[name])
    jobs = [job(world, tmp_path / name, name=name, keep=(0.5,)) for name in "abc"]
    process = multiprocessing.get_context("fork").Process(target=stage_of, args=(jobs, launch))
    process.start()
    wait_for(lambda: steps_of(tmp_path / "a") > 2)
    os.kill(process.pid, signal.SIGTERM)
    process.join(30)
    assert process.exitcode == AGAIN
    assert states(tmp_path / "a")
    assert not (tmp_path / "c" / "metrics.jsonl").exists()
    train_all(jobs, launch=launch, log=str)
    assert weights(tmp_path / "a") == undisturbed


@pytest.mark.slow
def test_a_stop_of_a_run_reaches_the_training_in_its_notebook(world, tmp_path, undisturbed, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    one = job(world, tmp_path / "out", keep=(0.5,))
    write_job(one, tmp_path / "run.yaml")
    cell = nbformat.v4.new_code_cell(
        "from qatoolkit.training.job import read_job\nfrom qatoolkit.training.parallel import train_all\n"
        f"train_all([read_job({str(tmp_path / 'run.yaml')!r})])"
    )
    nbformat.write(
        nbformat.v4.new_notebook(cells=[cell], metadata={"language_info": {"name": "python"}}), tmp_path / "one.ipynb"
    )
    process = multiprocessing.get_context("fork").Process(target=notebook_in, args=(tmp_path,))
    process.start()
    wait_for(lambda: steps_of(tmp_path / "out") > 2)
    os.kill(process.pid, signal.SIGUSR1)
    process.join(40)
    assert process.exitcode == AGAIN
    assert (
        (tmp_path / "said").read_text().startswith("one stopped on request (job 'trunk': stopped on request after step")
    )
    assert states(tmp_path / "out")
    assert not list(tmp_path.glob("*.failed.ipynb"))
    train(one, log=str)
    assert weights(tmp_path / "out") == undisturbed


def notebook_in(folder: Path) -> None:
    run = SimpleNamespace(name="smoke", seed=0)
    try:
        with notebooks.SharedKernel() as kernel:
            notebooks._execute(run, "smoke", folder / "one.ipynb", folder / "done" / "one.ipynb", "key", kernel)
    except Stopped as stop:
        (folder / "said").write_text(str(stop))
        raise


def stage_of(jobs, launch) -> None:
    train_all(jobs, launch=launch, log=str)


@pytest.mark.slow
def test_the_slurm_example_asks_to_be_requeued_and_goes_on(world, tmp_path, undisturbed):
    one = job(world, tmp_path / "out", keep=(0.5,))
    with pytest.raises(JobsToRun):
        train_all([one], launch="list", log=str)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    here = HERE | {"PATH": f"{tmp_path}/bin:{HERE['PATH']}", "SLURM_ARRAY_TASK_ID": "0", "SLURM_JOB_ID": "17"}
    for number in (signal.SIGUSR1, signal.SIGTERM):
        taken = steps_of(tmp_path / "out")
        script = subprocess.Popen(["bash", tmp_path / "jobs.slurm"], env=here, stdout=subprocess.DEVNULL)
        wait_for(lambda taken=taken: steps_of(tmp_path / "out") > taken + 2, script)
        script.send_signal(number)
        assert script.wait(30) == AGAIN
    assert (tmp_path / "asked").read_text() == "requeue 17\n" * 2
    assert subprocess.run(["bash", tmp_path / "jobs.slurm"], env=here, capture_output=True).returncode == 0
    assert (tmp_path / "asked").read_text() == "requeue 17\n" * 2
    assert weights(tmp_path / "out") == undisturbed


# --- full disks ---


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place]).returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(place: Path, leave: int) -> None:
    """Fill a disk up to `leave` bytes."""
    free = shutil.disk_usage(place).free
    (place / "ballast").write_bytes(b"x" * max(0, free - leave))


@pytest.mark.parametrize(
    ("step", "room", "changes"),
    [
        (3, 0, {"save_every": 5}),  # metrics.jsonl, or a state
        (3, 100_000, {"save_every": 5}),  # a state
        (30, 100_000, {"save_every": 5, "keep_states": 1}),  # at-0.5 or a state
        (16, 60_000, {"save_every": 0}),  # at-0.5
        (25, 60_000, {"save_every": 24, "keep_states": 1}),  # the model at the end
        (25, 300_000, {"save_every": 24, "keep_states": 1, "keep_optimizer": True}),  # its moments
    ],
)
def test_a_disk_that_fills_up_keeps_the_last_state_and_says_what_is_missing(
    world, small_disk, undisturbed, step, room, changes
):
    one = job(world, small_disk / "out", keep=(0.5,), **changes)

    def hook(row):
        if row["step"] == step:
            fill(small_disk, room)

    before = None
    with pytest.raises(
        OSError, match=r"is full .*: the job needs .* more than are free\. Free that .* after step"
    ) as e:
        train(one, log=str, hook=hook)
    assert "\n" not in str(e.value)
    before = states(small_disk / "out")
    assert not (small_disk / "out" / "training.json").exists()
    (small_disk / "ballast").unlink()
    lines = []
    train(one, log=lines.append)
    assert bool(before) == any("resumes after step" in line for line in lines)
    assert weights(small_disk / "out") == undisturbed
    assert len(curve(small_disk / "out")) == len({row["step"] for row in curve(small_disk / "out")})
