"""Jobs as commands: listed for a cluster, or run under a launcher, and then taken for finished."""

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from small_training import curve, job, sums, weights

from qatoolkit.core.qa_table import write_table
from qatoolkit.evaluation.live_probe import live_probe
from qatoolkit.training.job import read_job, write_job
from qatoolkit.training.launch import JobsToRun
from qatoolkit.training.parallel import train_all
from qatoolkit.training.probes import read_probes
from qatoolkit.training.train import train

CLI = f"{shlex.quote(sys.executable)} -m qatoolkit.run.cli"
HERE = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(autouse=True)
def _this_package(monkeypatch):
    for name in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, HERE[name])


def test_a_job_comes_back_from_its_file(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = job(world, Path("out"), keep=(0.5, 1.0), learning_rate=3e-5, probe="asked.parquet", probe_every=7)
    write_job(one, tmp_path / "elsewhere" / "run.yaml")
    places = {"out": str(tmp_path / "out"), "probe": str(tmp_path / "asked.parquet")}
    assert read_job(tmp_path / "elsewhere" / "run.yaml") == one.model_copy(update=places)
    named = job(world, Path("out"), size="xxs", tokenizer="organisation/model")
    write_job(named, tmp_path / "elsewhere" / "run.yaml")
    assert read_job(tmp_path / "elsewhere" / "run.yaml").tokenizer == "organisation/model"


def test_the_lines_of_a_list_train_its_jobs_and_the_same_call_goes_on(world, tmp_path):
    place = tmp_path / "a folder"
    jobs = [job(world, place / name, name=name, tokens=2_000, seed=i) for i, name in enumerate("abc")]
    train(jobs[0], log=str)
    with pytest.raises(JobsToRun, match=r"^2 training jobs to run: .*jobs\.txt .* run the same command again"):
        train_all(jobs, launch="list", log=str)
    lines = (place / "jobs.txt").read_text().splitlines()
    assert [shlex.split(line) for line in lines] == [["qatoolkit", "train", str(place / f"{n}.yaml")] for n in "bc"]
    subprocess.run(["bash", "-e", place / "jobs.txt"], env=HERE, check=True, capture_output=True)
    manifests = train_all(jobs, launch="list", log=str)
    assert [m["name"] for m in manifests] == list("abc")
    train(job(world, place / "d", name="b", tokens=2_000, seed=1), log=str)
    assert weights(place / "b") == weights(place / "d")


def test_an_element_of_the_array_is_one_job(world, tmp_path):
    jobs = [job(world, tmp_path / "outs" / name, name=name, tokens=1_000) for name in ("x", "y")]
    with pytest.raises(JobsToRun):
        train_all(jobs, launch="list", folder=tmp_path / "lists", log=str)
    script = tmp_path / "lists" / "jobs.slurm"
    assert "#SBATCH --array=0-1\n" in script.read_text()
    done = subprocess.run(["bash", "-e", script], env=HERE | {"SLURM_ARRAY_TASK_ID": "1"}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert [(Path(one.out) / "training.json").is_file() for one in jobs] == [False, True]
    assert not (tmp_path / "outs" / "x.yaml").exists()


def test_jobs_that_would_share_a_file_are_refused(world, tmp_path):
    jobs = [job(world, tmp_path / name / "out") for name in "ab"]
    with pytest.raises(ValueError, match=r"two jobs would be written to .*out\.yaml"):
        train_all(jobs, launch="list", folder=tmp_path)
    with pytest.raises(JobsToRun):
        train_all(jobs, launch="list")


def test_a_job_that_fails_under_a_launcher_ends_with_the_reason_that_it_gave(world, tmp_path):
    jobs = [job(world, tmp_path / "a", name="broken", start=tmp_path / "nowhere"), job(world, tmp_path / "b")]
    with pytest.raises(RuntimeError, match=r"job 'broken': .*a\.yaml ended with code 2; .*\nqatoolkit: .*nowhere"):
        train_all(jobs, launch=CLI, log=str)
    assert not (tmp_path / "b").exists()


def test_a_launcher_that_trains_nothing_is_no_success(world, tmp_path):
    with pytest.raises(RuntimeError, match=r"job 'trunk': echo train .*ended with code 0.*\ntrain .*out\.yaml"):
        train_all([job(world, tmp_path / "out")], launch="echo", log=str)


@pytest.mark.slow
def test_two_processes_train_and_probe_what_one_does(world, tmp_path):
    write_table(sums(), tmp_path / "asked.parquet")
    asks = {"probe": tmp_path / "asked.parquet", "probe_every": 3_000, "tokens": 12_000, "z_loss": 1e-4}
    shared, silent = (
        job(world, tmp_path / "shared", **asks),
        job(world, tmp_path / "silent", **asks | {"probe_every": 0}),
    )
    (tmp_path / "probed_cli.py").write_text(
        "import sys\nfrom qatoolkit.evaluation.live_probe import live_probe\n"
        "from qatoolkit.training.train import train_file\ntrain_file(sys.argv[2], probe=live_probe)\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        free_port = free.getsockname()[1]
    accelerate = f"{shlex.quote(str(Path(sys.executable).parent / 'accelerate'))} launch --use_fsdp --fsdp_version 2"
    launch = f"{accelerate} --num_processes 2 --main_process_port {free_port} {tmp_path / 'probed_cli.py'}"
    train_all([shared, silent], launch=launch, log=str)
    alone = job(world, tmp_path / "alone", **asks)
    train(alone, probe=live_probe, log=str)
    assert "faster modes failed" not in (tmp_path / "shared.log").read_text()
    assert weights(tmp_path / "shared") == weights(tmp_path / "silent")
    losses = [[row["loss"] for row in curve(Path(one.out))] for one in (shared, alone)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    ours, theirs = read_probes(shared.out), read_probes(alone.out)
    labels = ["step", "tokens", "discipline", "difficulty", "n"]
    assert ours[labels].equals(theirs[labels])
    assert ours["margin"].tolist() == pytest.approx(theirs["margin"].tolist(), abs=1e-3)
