"""The training loop: one plain torch loop over Hugging Face causal models, for the own trunk and for mid-training.

A job is a small frozen record; training it writes a Hugging Face directory with tokenizer, metrics and a manifest last.
A trunk trains at a constant rate after its warm-up, so that every kept checkpoint is an honest start for mid-training;
mid-training then decays to zero. On a CPU every job runs in one thread, so that results do not depend on the machine's
number of cores; several jobs run side by side instead.
"""

import json
import math
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from qatoolkit import ladder
from qatoolkit.mixture import IGNORED, Blocks


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run. `start` is a Hugging Face directory to continue from; without it a student of `size` starts from
    random weights. `keep` are the shares of the data after which a checkpoint is also written (`out/at-<share>`)."""

    name: str
    blocks: str
    out: str
    tokenizer: str
    start: str | None = None
    size: str | None = None
    learning_rate: float = 3e-3
    warmup: float = 0.02
    decay: float = 1.0
    weight_decay: float = 0.1
    batch: int = 16
    seed: int = 0
    keep: tuple[float, ...] = ()

    def __post_init__(self):
        if bool(self.start) == bool(self.size):
            raise ValueError(
                f"job {self.name!r}: give either a start checkpoint or a size, found {self.start!r} and {self.size!r}"
            )
        if self.batch < 1 or self.learning_rate <= 0:
            raise ValueError(
                f"job {self.name!r}: batch is {self.batch}, learning rate {self.learning_rate}; both must be above 0"
            )


def learning_rate(step: int, steps: int, job: Job) -> float:
    """Linear warm-up, constant, then linear decay to zero over the last share `decay` of the steps."""
    warm = max(1, round(job.warmup * steps))
    up = min(1.0, (step + 1) / warm)
    falling = job.decay * steps
    down = min(1.0, (steps - step) / falling) if falling else 1.0
    return job.learning_rate * min(up, down)


def train(job: Job) -> dict:
    """Runs a job to its end and returns its manifest: tokens, FLOPs, parameters, final loss.

    Raises RuntimeError when the loss stops being a number."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(job.seed)
    tokenizer = AutoTokenizer.from_pretrained(job.tokenizer)
    data = Blocks.load(Path(job.blocks))
    if job.start:
        model = AutoModelForCausalLM.from_pretrained(job.start, dtype=torch.float32)
    else:
        size = ladder.size_of(job.size)
        special = {
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
        }
        config = ladder.llama_config(size, len(tokenizer), data.input_ids.shape[1], **special)
        model = AutoModelForCausalLM.from_config(config)
    model.to(device).train()

    optimizer = torch.optim.AdamW(
        _groups(model, job.weight_decay), lr=job.learning_rate, betas=(0.9, 0.95), fused=True
    )
    order = np.random.default_rng(job.seed).permutation(len(data))
    steps = math.ceil(len(data) / job.batch)
    marks = {max(1, round(share * steps)): share for share in job.keep}
    per_token = _flops_per_token(model.config, data)
    metrics, seen = [], 0
    for step in range(steps):
        rows = order[step * job.batch : (step + 1) * job.batch]
        ids, labels, positions = (
            torch.from_numpy(a[rows].astype(np.int64)).to(device)
            for a in (data.input_ids, data.labels, data.position_ids)
        )
        rate = learning_rate(step, steps, job)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = _loss(model, ids, labels, positions)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seen += int((labels != IGNORED).sum())
        value = loss.item()
        if not math.isfinite(value):
            raise RuntimeError(
                f"job {job.name!r}: loss is {value} at step {step}; lower the learning rate ({job.learning_rate})"
            )
        metrics.append({"step": step, "tokens": seen, "loss": value, "lr": rate})
        if step + 1 in marks:
            share = marks[step + 1]
            _save(
                model,
                tokenizer,
                Path(job.out) / f"at-{share:g}",
                _manifest(job, model, seen, per_token, value),
            )
    manifest = _manifest(job, model, seen, per_token, metrics[-1]["loss"])
    _save(model, tokenizer, Path(job.out), manifest, metrics)
    return manifest


def _loss(model, ids, labels, positions):
    """Mean cross-entropy over the tokens of documents; the first token of a document is not predicted from the one before.

    No attention mask is given: with `position_ids` alone transformers keeps packed documents apart, and an all-ones mask
    would switch that off in silence."""
    from torch.nn.functional import cross_entropy

    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    targets = labels[:, 1:].masked_fill(positions[:, 1:] == 0, IGNORED)
    return cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED)


def _groups(model, weight_decay: float) -> list[dict]:
    """Weight decay on matrices only: not on norms, biases and embeddings."""
    embeddings = {
        id(p) for m in (model.get_input_embeddings(), model.get_output_embeddings()) for p in m.parameters()
    }
    decayed = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in embeddings]
    rest = [p for p in model.parameters() if p.ndim < 2 or id(p) in embeddings]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def adopt(checkpoint: str, out: Path):
    """Copy a Hugging Face checkpoint (directory or name; safetensors only, no remote code) to `out` as the start of
    mid-training; returns its tokenizer and a manifest. Its own pre-training compute is not known here and counts as 0."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, use_safetensors=True)
    manifest = {
        "name": "adopted",
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": 0,
        "flops": 0.0,
        "initial_flops": 0.0,
        "initial_tokens": 0,
        "loss": None,
    }
    _save(model, tokenizer, out, manifest)
    return tokenizer, manifest


def _flops_per_token(config, data: Blocks) -> float:
    """Exact for Llama-like configurations."""
    size = ladder.Size(
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=getattr(config, "num_key_value_heads", config.num_attention_heads),
        ffn=getattr(config, "intermediate_size", 4 * config.hidden_size),
        tied=config.tie_word_embeddings,
    )
    valid = data.labels != IGNORED
    return ladder.flops_per_token(size, config.vocab_size, float(data.position_ids[valid].mean()))


def _manifest(job: Job, model, tokens: int, per_token: float, loss: float) -> dict:
    start = (
        json.loads((Path(job.start) / "training.json").read_text())
        if job.start and _trained(job.start)
        else None
    )
    return {
        "name": job.name,
        "job": {k: v for k, v in asdict(job).items() if k not in ("blocks", "out", "tokenizer", "start")},
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": tokens,
        "flops": tokens * per_token,
        "initial_flops": start["initial_flops"] + start["flops"] if start else 0.0,
        "initial_tokens": start["initial_tokens"] + start["tokens"] if start else 0,
        "loss": loss,
    }


def _trained(folder: str) -> bool:
    return (Path(folder) / "training.json").exists()


def _save(model, tokenizer, folder: Path, manifest: dict, metrics: list[dict] | None = None) -> None:
    """A Hugging Face directory; `training.json` comes last, so that its presence means complete."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if metrics is not None:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in metrics))
    temporary = folder / ".training.json.tmp"
    temporary.write_text(json.dumps(manifest, indent=1) + "\n")
    os.replace(temporary, folder / "training.json")


def train_all(jobs: Iterable[Job], *, workers: int | None = None, log=print) -> list[dict]:
    """Runs jobs side by side and returns their manifests in order; a job whose directory is complete is not run again.

    One worker process per core on a CPU, one in all on a GPU. Raises RuntimeError, after the jobs under way have ended, when
    one fails. The caller keeps directories of changed jobs apart."""
    jobs = list(jobs)
    todo = queue.SimpleQueue()
    for job in jobs:
        if not _trained(job.out):
            todo.put(job)
    total, failures = todo.qsize(), []

    def work() -> None:
        with _worker() as send:
            while not failures:
                try:
                    job = todo.get_nowait()
                except queue.Empty:
                    return
                answer = send(job)
                if "error" in answer:
                    failures.append(answer["error"])
                else:
                    log(f"  {job.name}: {answer['tokens']:,} tokens, loss {answer['loss']:.3f}")

    threads = [threading.Thread(target=work) for _ in range(min(workers or default_workers(), total))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(failures[0])
    return [json.loads((Path(job.out) / "training.json").read_text()) for job in jobs]


@contextmanager
def _worker():
    """A process of its own that trains one job after another; yields a function that sends it a job and waits. It ends when
    its standard input closes, so it never outlives this process."""
    environment = os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.Popen(
        [sys.executable, "-m", "qatoolkit.midtrain"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )

    def send(job: Job) -> dict:
        process.stdin.write(json.dumps(asdict(job)) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        return (
            json.loads(line)
            if line
            else {"error": f"job {job.name!r}: its process ended with code {process.wait()}"}
        )

    try:
        yield send
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _serve() -> None:
    """The worker's side: a job per line in, a manifest or an error per line out."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever else prints must not get in between
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer = train(Job(**job | {"keep": tuple(job["keep"])}))
        except (RuntimeError, ValueError, OSError) as error:
            answer = {"error": f"job {job['name']!r}: {type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def default_workers() -> int:
    """Jobs side by side: one on a GPU, else one per core."""
    import torch

    return 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))


if __name__ == "__main__":
    _serve()
