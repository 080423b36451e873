"""Several training jobs at once, each in a worker process (one worker per core on a CPU, one in all on a GPU), or by other
means (`launch`)."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

from qatoolkit.core.display import Progress
from qatoolkit.core.files import read_json
from qatoolkit.training.job import Job, job_of
from qatoolkit.training.ladder import size_of
from qatoolkit.training.launch import LIST, launch_jobs, list_jobs
from qatoolkit.training.stops import Stopped, stop_requests


def train_all(
    jobs: Iterable[Job],
    *,
    worker: str = "qatoolkit.training.parallel",
    launch: str | None = None,
    folder: str | Path | None = None,
    log=print,
) -> list[dict]:
    """Run jobs and return their manifests in order. A finished job is not run again, an interrupted one resumes. Every
    job has its own `out`.

    Without `launch` they run side by side in processes of the module `worker`; "qatoolkit.evaluation.live_probe" also
    answers jobs that are probed. With the beginning of a command as `launch` they run one after another as
    `<launch> train JOB.yaml`, for example under "accelerate launch --use_fsdp --fsdp_version 2 --num_processes 8 -m
    qatoolkit.run.cli"; JOB.yaml and JOB.log are in `folder`, by default the one that the job's `out` is in. "list"
    writes `jobs.txt` there, a command per line, and `jobs.slurm`, an example of an array, and raises JobsToRun.

    If a job fails, raises RuntimeError after the running jobs have ended. SIGTERM and SIGUSR1 are passed on to the jobs
    and end them with their states saved; then it raises Stopped."""
    jobs = list(jobs)
    unfinished = [job for job in jobs if not (Path(job.out) / "training.json").is_file()]
    if unfinished and launch == LIST:
        list_jobs(unfinished, folder)
    elif unfinished and launch:
        launch_jobs(unfinished, launch, folder, log)
    elif unfinished:
        _work(unfinished, worker, log)
    return [read_json(Path(job.out) / "training.json") for job in jobs]


def _work(unfinished: list[Job], module: str, log: Callable[[str], None]) -> None:
    """Run jobs side by side in worker processes."""
    todo = iter(sorted(unfinished, key=_duration, reverse=True))  # so that no long one runs alone at the end
    failures, stops, running = [], [], []

    def work(progress: Progress) -> None:
        with _worker(module, running) as send:
            while not (failures or stops or asked_to_stop()) and (job := next(todo, None)):
                answer = send(job, progress.update)
                if ("error" in answer and (stops or asked_to_stop())) or "stopped" in answer:
                    stops.append(answer.get("stopped") or answer["error"])
                elif "error" in answer:
                    failures.append(answer["error"])
                else:
                    log(f"  {job.name}: {answer['tokens']:,} tokens, loss {answer['loss']:.3f}")

    with (
        stop_requests(lambda: [process.terminate() for process in list(running)]) as asked_to_stop,
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
            for process in list(running):
                process.terminate()  # saves its state
            for thread in threads:
                if thread.ident:
                    thread.join()
            raise
    if failures:
        raise RuntimeError(failures[0])
    if stops or asked_to_stop():
        raise Stopped(
            "; ".join(stops) or "stopped as asked, between two trainings; run the same command again to go on"
        )


def _duration(job: Job) -> int:
    """How long a job takes, as far as jobs need comparing: its tokens times the size of its model."""
    if job.size:
        size = size_of(job.size)
        return job.tokens * size.layers * size.hidden**2
    weights = sum(file.stat().st_size for file in Path(job.start).glob("*.safetensors"))
    return job.tokens * (weights or 1)  # none here: a name on a hub


@contextmanager
def _worker(module: str, running: list[subprocess.Popen]):
    """A process of `module` that trains one job after another, listed in `running` meanwhile. Yields `send(job, report)`,
    which waits for the job's manifest or error and passes on tokens and loss. It ends with its pipes, so it never
    outlives this process."""
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,  # Ctrl-C is for this process, which then stops its workers
        env=os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )

    running.append(process)

    def send(job: Job, report: Callable) -> dict:
        with suppress(BrokenPipeError):
            process.stdin.write(job.model_dump_json() + "\n")
            process.stdin.flush()
        for line in process.stdout:
            answer = json.loads(line)
            if "more" not in answer:
                return answer
            report(answer.pop("more"), **answer)
        return {"error": f"job {job.name!r}: its process ended with code {process.wait()}"}

    try:
        yield send
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()
        running.remove(process)
        process.stdout.close()


def serve(probe: Callable | None = None) -> None:
    """The worker's side: reads a job per line; writes lines of progress, then a manifest or an error; ends where a job was
    stopped. `probe` as in `train`."""
    from qatoolkit.training.train import TrainingFailed, train

    answers, sys.stdout = sys.stdout, sys.stderr  # keeps other output out of the answers
    for line in sys.stdin:
        job, tokens, sent, notes = job_of(json.loads(line)), 0, time.monotonic(), {}

        def say(answer: dict) -> None:
            print(json.dumps(answer), file=answers, flush=True)

        def hook(row: dict, last: bool = False, notes=notes) -> None:
            nonlocal tokens, sent
            notes.update({name: float(f"{row[name]:.3g}") for name in ("loss", "mfu") if name in row})
            if last or time.monotonic() - sent > 0.5:
                say({"more": row["tokens"] - tokens} | notes)
                tokens, sent = row["tokens"], time.monotonic()

        try:
            answer = train(job, probe=probe, hook=hook, log=lambda _: None)
            hook({"tokens": answer["tokens"]}, last=True)
        except Stopped as stop:
            answer = {"stopped": str(stop)}
        except (TrainingFailed, RuntimeError, ValueError, OSError) as error:
            named = repr(job.name) in str(error)
            answer = {"error": str(error) if named else f"job {job.name!r}: {type(error).__name__}: {error}"}
        say(answer)
        if "stopped" in answer:
            return


def default_workers() -> int:
    """Jobs at once: one on a GPU, else one per core."""
    import torch

    return 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))


if __name__ == "__main__":
    serve()
