"""Several training jobs at once in worker processes (one per core on a CPU, a single one on a GPU), or as commands
(`launch`)."""

import atexit
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from qatoolkit.core.display import Progress
from qatoolkit.core.files import read_json
from qatoolkit.training.job import Job, job_of
from qatoolkit.training.ladder import size_of
from qatoolkit.training.launch import LIST, launch_jobs, list_jobs
from qatoolkit.training.stops import Stopped, stop_requests

IDLE = 20.0  # seconds that a worker waits for another job: starting one takes eight; meanwhile it holds 0.3 GiB


def train_all(
    jobs: Iterable[Job],
    *,
    worker: str = "qatoolkit.training.parallel",
    launch: str | None = None,
    folder: str | Path | None = None,
    log=print,
) -> list[dict]:
    """Run jobs, each with its own `out`, and return their manifests in order. Finished jobs are not run again,
    interrupted ones resume.

    Without `launch` they run side by side in processes of the module `worker`, which on a CPU wait some seconds for
    further jobs; "qatoolkit.evaluation.live_probe" is the one that can probe. With `launch`, the beginning of a
    command, they run one after another as `<launch> train JOB.yaml`, for example under "accelerate launch --use_fsdp
    --fsdp_version 2 --num_processes 8 -m qatoolkit.run.cli"; JOB.yaml and JOB.log are in `folder`, by default the
    parent folder of the job's `out`. `launch="list"` writes `jobs.txt` there, a command per line, and `jobs.slurm`, an
    example of a job array, and raises JobsToRun.

    If a job fails, raises RuntimeError once the running jobs have ended. SIGTERM and SIGUSR1 are passed on to the jobs,
    which save their states and end; then raises Stopped."""
    jobs = list(jobs)
    unfinished = [job for job in jobs if not (Path(job.out) / "training.json").is_file()]
    if unfinished and launch == LIST:
        list_jobs(unfinished, folder)
    elif unfinished and launch:
        launch_jobs(unfinished, launch, folder, log)
    elif unfinished:
        _run_in_workers(unfinished, worker, log)
    return [read_json(Path(job.out) / "training.json") for job in jobs]


def _run_in_workers(unfinished: list[Job], module: str, log: Callable[[str], None]) -> None:
    """Run jobs side by side in worker processes."""
    todo = iter(sorted(unfinished, key=_duration, reverse=True))  # longest first, so that none runs alone at the end
    failures, stops, running = [], [], []

    def work(progress: Progress) -> None:
        worker = _Worker.get(module)
        running.append(worker)
        try:
            while not (failures or stops or asked_to_stop()) and (job := next(todo, None)):
                result = worker.train(job, progress.update)
                if ("error" in result and (stops or asked_to_stop())) or "stopped" in result:
                    stops.append(result.get("stopped") or result["error"])
                elif "error" in result:
                    failures.append(result["error"])
                else:
                    log(f"  {job.name}: {result['tokens']:,} tokens, loss {result['loss']:.3f}")
        finally:
            if worker.spare and not stops and not asked_to_stop() and not on_gpu():
                running.remove(worker)
                worker.wait()
            else:
                worker.end()
                running.remove(worker)

    def terminate() -> None:
        for worker in list(running):
            worker.process.terminate()  # it saves its state

    with (
        stop_requests(terminate) as asked_to_stop,
        Progress(sum(job.tokens for job in unfinished), "training", "tokens", every=10.0) as progress,
    ):
        count = min(default_workers(), len(unfinished))
        threads = [threading.Thread(target=work, args=(progress,)) for _ in range(count)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            stops.append("interrupted")
            terminate()
            for thread in threads:
                if thread.ident:
                    thread.join()
            raise
    if failures:
        raise RuntimeError(failures[0])
    if stops or asked_to_stop():
        raise Stopped(
            "; ".join(stops) or "stopped on request, between two trainings; run the same command again to continue"
        )


def _duration(job: Job) -> int:
    """A measure of how long a job takes, for sorting: its tokens times the size of its model."""
    if job.size:
        size = size_of(job.size)
        return job.tokens * size.layers * size.hidden**2
    weights = sum(file.stat().st_size for file in Path(job.start).glob("*.safetensors"))
    return job.tokens * (weights or 1)  # no files: a name on a hub


class _Worker:
    """A process of `module` that trains one job after another. It ends when its pipes close, so it never outlives this
    one. `spare` unless it is at work or was told to stop."""

    waiting: ClassVar[list["_Worker"]] = []
    changes = threading.Lock()  # of `waiting`

    def __init__(self, module: str):
        self.kind, self.spare = _kind(module), True
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,  # Ctrl-C must reach this process only, which then stops its workers
            env=os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )

    @classmethod
    def get(cls, module: str) -> "_Worker":
        """A worker that waits for a job, else a new one."""
        with cls.changes:
            found = next((w for w in cls.waiting if w.kind == _kind(module) and w.process.poll() is None), None)
            if found:
                cls.waiting.remove(found)
                found.timer.cancel()
        return found or cls(module)

    def wait(self) -> None:
        """Wait for another job, IDLE seconds at most."""
        self.timer = threading.Timer(IDLE, self.end_if_waiting)
        self.timer.daemon = True
        with self.changes:
            self.waiting.append(self)
        self.timer.start()

    def train(self, job: Job, report: Callable) -> dict:
        """The manifest or the error of a job; calls `report` with tokens and loss meanwhile."""
        self.spare = False
        with suppress(BrokenPipeError):
            self.process.stdin.write(job.model_dump_json() + "\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            message = json.loads(line)
            if "more" not in message:
                self.spare = "stopped" not in message
                return message
            report(message.pop("more"), **message)
        return {"error": f"job {job.name!r}: its process ended with code {self.process.wait()}"}

    def end_if_waiting(self) -> None:
        with self.changes:
            if self not in self.waiting:
                return
            self.waiting.remove(self)
        self.end()

    def end(self) -> None:
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def _kind(module: str) -> tuple:
    """What a worker takes over when it starts: its module, the working directory, the environment."""
    return module, os.getcwd(), dict(os.environ)


@atexit.register
def _end_waiting() -> None:
    for worker in list(_Worker.waiting):
        worker.end_if_waiting()


def serve(probe: Callable | None = None) -> None:
    """The worker's side: reads a job per line; writes lines of progress, then a manifest or an error; ends when a job
    was stopped. `probe` as in `train`."""
    from qatoolkit.training.train import TrainingFailed, train

    replies, sys.stdout = sys.stdout, sys.stderr  # keeps other output out of the replies
    for line in sys.stdin:
        job, tokens, sent, notes = job_of(json.loads(line)), 0, time.monotonic(), {}

        def reply(message: dict) -> None:
            print(json.dumps(message), file=replies, flush=True)

        def hook(row: dict, last: bool = False, notes=notes) -> None:
            nonlocal tokens, sent
            notes.update({name: float(f"{row[name]:.3g}") for name in ("loss", "mfu") if name in row})
            if last or time.monotonic() - sent > 0.5:
                reply({"more": row["tokens"] - tokens} | notes)
                tokens, sent = row["tokens"], time.monotonic()

        try:
            result = train(job, probe=probe, hook=hook, log=lambda _: None)
            hook({"tokens": result["tokens"]}, last=True)
        except Stopped as stop:
            result = {"stopped": str(stop)}
        except (TrainingFailed, RuntimeError, ValueError, OSError) as error:
            named = repr(job.name) in str(error)
            result = {"error": str(error) if named else f"job {job.name!r}: {type(error).__name__}: {error}"}
        reply(result)
        if "stopped" in result:
            return


def default_workers() -> int:
    """Jobs at once: one on a GPU, else one per core."""
    return 1 if on_gpu() else len(os.sched_getaffinity(0))


def on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    serve()
