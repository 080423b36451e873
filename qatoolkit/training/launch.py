"""Training jobs as commands: run one after another under a launcher (for several devices), or listed for a cluster."""

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

from qatoolkit.core.files import read_json, write_text
from qatoolkit.training.job import Job, write_job
from qatoolkit.training.stops import AGAIN, Stopped, stop_requests

LIST = "list"  # as `launch`, writes the jobs to a list instead
REASON = "qatoolkit: "  # prefix of errors on the command line
SHOWN = 20  # lines shown from the end of a failed job's output

SLURM = Path(__file__).with_name("jobs.slurm")  # example of a job array; LAST and FILES are filled in


class JobsToRun(RuntimeError):
    """Jobs were listed, to be run by the user; the message says how many, and where the list is."""


def launch_jobs(jobs: list[Job], launch: str, folder: str | Path | None, log: Callable[[str], None]) -> None:
    """Run jobs one after another as `<launch> train JOB.yaml`, with the output in JOB.log beside it.

    SIGTERM and SIGUSR1 are passed on to the launcher as SIGTERM; raises Stopped when it has ended. RuntimeError for the
    first job that fails, with its error message or else the last lines of its output."""
    for job, file in zip(jobs, write_jobs(jobs, folder), strict=True):
        _run(job, [*shlex.split(launch), "train", str(file)], file.with_suffix(".log"), log)


def list_jobs(jobs: list[Job], folder: str | Path | None) -> None:
    """Write `jobs.txt`, a command per line, and `jobs.slurm`, an example of a job array, beside the jobs' YAML files;
    raises JobsToRun."""
    files = [*map(str, write_jobs(jobs, folder))]
    directory = Path(files[0]).parent
    array = SLURM.read_text(encoding="utf-8")
    # the array contains the file names: jobs.txt may be rewritten, shorter, while the array waits in the queue
    texts = {
        "jobs.txt": "".join(f"{shlex.join(['qatoolkit', 'train', file])}\n" for file in files),
        "jobs.slurm": array.replace("LAST", str(len(files) - 1)).replace("FILES", "\n".join(map(shlex.quote, files))),
    }
    for name, text in texts.items():
        write_text(text, directory / name)
    raise JobsToRun(
        f"{len(files)} training {'job' if len(files) == 1 else 'jobs'} to run: {directory / 'jobs.txt'} has a command "
        "per line, and jobs.slurm beside it is an example of a Slurm array; when they are done, run the same command "
        "again to continue with the finished models"
    )


def write_jobs(jobs: list[Job], folder: str | Path | None) -> list[Path]:
    """Write every job as a YAML file named like its `out`, in `folder` or else beside `out`. ValueError for two jobs
    that would share a file."""
    outs = [Path(job.out).absolute() for job in jobs]
    files = [Path(folder or out.parent).absolute() / f"{out.name}.yaml" for out in outs]
    if twice := next((file for file in files if files.count(file) > 1), None):
        raise ValueError(f"two jobs would be written to {twice}; give their `out` different names")
    for job, file in zip(jobs, files, strict=True):
        write_job(job, file)
    return files


def _run(job: Job, command: list[str], output: Path, log: Callable[[str], None]) -> None:
    log(f"  {job.name}: running under {command[0]}, output in {output}")
    with open(output, "w") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
        try:
            # a terminated launcher ends its processes; a killed one would leave them running
            with stop_requests(process.terminate) as asked_to_stop:
                code = process.wait()
        except BaseException:
            process.terminate()
            raise
    if asked_to_stop() or code == AGAIN:
        raise Stopped(f"job {job.name!r}: stopped on request (see {output}); run the same command again to continue")
    written = Path(job.out) / "training.json"
    if code or not written.is_file():
        lines = output.read_text(errors="replace").splitlines()
        reasons = [*dict.fromkeys(line for line in lines if line.startswith(REASON))]
        excerpt = "\n".join(reasons or lines[-SHOWN:])
        raise RuntimeError(
            f"job {job.name!r}: {shlex.join(command)} ended with code {code}; full output in {output}:\n{excerpt}"
        )
    manifest = read_json(written)
    log(f"  {job.name}: {manifest['tokens']:,} tokens, loss {manifest['loss']:.3f}")
