"""Several training jobs side by side, each in a worker process: one per core on a CPU, one in all on a GPU."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path

from qatoolkit.core.display import Progress
from qatoolkit.core.files import read_json
from qatoolkit.training.job import Job, job_of


def train_all(jobs: Iterable[Job], *, log=print) -> list[dict]:
    """Runs jobs side by side and returns their manifests in order; a job whose directory is complete is not run again, one that
    was interrupted goes on.

    Raises RuntimeError, after the jobs under way have ended, when one fails. The caller keeps directories of changed jobs
    apart."""
    jobs = list(jobs)
    todo = queue.SimpleQueue()
    open_jobs = [job for job in jobs if not (Path(job.out) / "training.json").is_file()]
    largest_first = sorted(open_jobs, key=lambda job: -job.tokens)  # nobody waits for a long one at the end
    for job in largest_first:
        todo.put(job)
    failures = []

    def work(progress: Progress) -> None:
        with _worker() as send:
            while not failures:
                try:
                    job = todo.get_nowait()
                except queue.Empty:
                    return
                answer = send(job, progress.update)
                if "error" in answer:
                    failures.append(answer["error"])
                else:
                    log(f"  {job.name}: {answer['tokens']:,} tokens, loss {answer['loss']:.3f}")

    if open_jobs:
        with Progress(sum(job.tokens for job in open_jobs), "training", "tokens", every=10.0) as progress:
            count = min(default_workers(), len(open_jobs))
            threads = [threading.Thread(target=work, args=(progress,)) for _ in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    if failures:
        raise RuntimeError(failures[0])
    return [read_json(Path(job.out) / "training.json") for job in jobs]


@contextmanager
def _worker():
    """A process of its own that trains one job after another; yields a function that sends it a job and waits, passing on
    tokens and loss as they come. It ends when its standard input closes, so it never outlives this process."""
    environment = os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.Popen(
        [sys.executable, "-m", "qatoolkit.training.parallel"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )

    def send(job: Job, told: Callable) -> dict:
        process.stdin.write(job.model_dump_json() + "\n")
        process.stdin.flush()
        for line in process.stdout:
            answer = json.loads(line)
            if "more" not in answer:
                return answer
            told(answer.pop("more"), **answer)
        return {"error": f"job {job.name!r}: its process ended with code {process.wait()}"}

    try:
        yield send
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _serve() -> None:
    """The worker's side: a job per line in; lines of progress, then a manifest or an error out."""
    from qatoolkit.training.train import TrainingFailed, train

    answers, sys.stdout = sys.stdout, sys.stderr  # whatever else prints must not get in between

    def say(answer: dict) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    for line in sys.stdin:
        job = job_of(json.loads(line))
        last, notes = {"tokens": 0, "at": time.monotonic()}, {}

        def hook(row: dict, last=last, notes=notes) -> None:
            notes.update({name: float(f"{row[name]:.3g}") for name in ("loss", "mfu") if name in row})
            if time.monotonic() - last["at"] > 0.5:
                say({"more": row["tokens"] - last["tokens"]} | notes)
                last.update(tokens=row["tokens"], at=time.monotonic())

        try:
            answer = train(job, hook=hook, log=lambda _: None)
            say({"more": answer["tokens"] - last["tokens"]} | notes)
        except (TrainingFailed, RuntimeError, ValueError, OSError) as error:
            told = str(error) if repr(job.name) in str(error) else f"job {job.name!r}: {type(error).__name__}: {error}"
            answer = {"error": told}
        say(answer)


def default_workers() -> int:
    """Jobs side by side: one on a GPU, else one per core."""
    import torch

    return 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))


if __name__ == "__main__":
    _serve()
