"""Training jobs as commands: run one after another under a launcher (several devices), or listed for a cluster."""

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

from qatoolkit.core.files import read_json, write_text
from qatoolkit.training.job import Job, write_job
from qatoolkit.training.stops import AGAIN, Stopped, stop_requests

LIST = "list"  # in place of a launcher
REASON = "qatoolkit: "  # how the command line begins an error
SHOWN = 20  # last lines of a failed job's output

SLURM = Path(__file__).with_name("jobs.slurm")  # the example of an array; LAST and FILES are filled in


class JobsToRun(RuntimeError):
    """Jobs were listed, to be run by other means; the message says how many, and where the list is."""


def launch_jobs(jobs: list[Job], launch: str, folder: str | Path | None, log: Callable[[str], None]) -> None:
    """Run jobs one after another as `<launch> train JOB.yaml`, with the output in JOB.log beside it.

    A SIGTERM or SIGUSR1 is passed on to the launcher as SIGTERM; Stopped when it has ended. RuntimeError for the first
    that fails, with the reason that it gave, or else the last lines of its output."""
    for job, file in zip(jobs, write_jobs(jobs, folder), strict=True):
        _run(job, [*shlex.split(launch), "train", str(file)], file.with_suffix(".log"), log)


def list_jobs(jobs: list[Job], folder: str | Path | None) -> None:
    """Write `jobs.txt`, a command per line, and `jobs.slurm`, an example of an array, beside the jobs' YAML files; raise
    JobsToRun."""
    files = [*map(str, write_jobs(jobs, folder))]
    place = Path(files[0]).parent
    array = SLURM.read_text(encoding="utf-8")
    # the array has the files in itself: the list may be written again, shorter, while it waits
    texts = {
        "jobs.txt": "".join(f"{shlex.join(['qatoolkit', 'train', file])}\n" for file in files),
        "jobs.slurm": array.replace("LAST", str(len(files) - 1)).replace("FILES", "\n".join(map(shlex.quote, files))),
    }
    for name, text in texts.items():
        write_text(text, place / name)
    raise JobsToRun(
        f"{len(files)} training {'job' if len(files) == 1 else 'jobs'} to run: {place / 'jobs.txt'} has a command per "
        "line, and jobs.slurm beside it is an example of a Slurm array; when they are done, run the same command again: "
        "it goes on with the finished models"
    )


def write_jobs(jobs: list[Job], folder: str | Path | None) -> list[Path]:
    """Every job as a YAML file named like its `out`, in `folder`, by default beside `out`. ValueError for two jobs that
    would share a file."""
    outs = [Path(job.out).absolute() for job in jobs]
    files = [Path(folder or out.parent).absolute() / f"{out.name}.yaml" for out in outs]
    if twice := next((file for file in files if files.count(file) > 1), None):
        raise ValueError(f"two jobs would be written to {twice}; give their `out` different names")
    for job, file in zip(jobs, files, strict=True):
        write_job(job, file)
    return files


def _run(job: Job, command: list[str], output: Path, log: Callable[[str], None]) -> None:
    log(f"  {job.name}: runs under {command[0]}, its output is in {output}")
    with open(output, "w") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
        try:
            # a launcher that is terminated ends its processes; if killed it would leave them running
            with stop_requests(process.terminate) as asked_to_stop:
                code = process.wait()
        except BaseException:
            process.terminate()
            raise
    if asked_to_stop() or code == AGAIN:
        raise Stopped(f"job {job.name!r}: stopped as asked (see {output}); run the same command again to go on")
    written = Path(job.out) / "training.json"
    if code or not written.is_file():
        lines = output.read_text(errors="replace").splitlines()
        reasons = [*dict.fromkeys(line for line in lines if line.startswith(REASON))]
        said = "\n".join(reasons or lines[-SHOWN:])
        raise RuntimeError(
            f"job {job.name!r}: {shlex.join(command)} ended with code {code}; all that it said is in {output}:\n{said}"
        )
    manifest = read_json(written)
    log(f"  {job.name}: {manifest['tokens']:,} tokens, loss {manifest['loss']:.3f}")
