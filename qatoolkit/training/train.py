"""The training loop: one plain torch loop over Hugging Face causal models, for the own trunk and for mid-training.

    python -m qatoolkit.training.train run.yaml
    accelerate launch --use_fsdp --fsdp_version 2 --num_processes 8 -m qatoolkit.training.train run.yaml

A job (`recipe.Job`) writes a plain Hugging Face directory with metrics and a manifest last. Started again it goes on where it
was interrupted, to the bit on a CPU. On several devices weights, gradients and moments are sharded by torch's FSDP2; every
step reads the same blocks and divides by the tokens of all devices, so that their number changes what is learnt by rounding
alone (and by dropout, where a model has it).
A trunk trains at a constant rate after its warm-up, so that every kept checkpoint is an honest start for mid-training.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from qatoolkit.core.files import digest, read_json, remove
from qatoolkit.training import checkpoints
from qatoolkit.training.distributed import Processes, join, leave, on_device, processes, shares_of
from qatoolkit.training.hub import called
from qatoolkit.training.job import Job, identity, learning_rate, read_job
from qatoolkit.training.logging import Metrics, Telling, tracker
from qatoolkit.training.setup import (
    Trainee,
    arithmetic,
    check,
    configuration,
    mixture_of,
    open_trainee,
    plan,
    tokenizer_of,
)
from qatoolkit.training.tokens import tokenizer_digest


class TrainingFailed(RuntimeError):
    """A job that can't go on; the message says where it stopped, why, and what to change."""


def train(
    job: Job, *, hook: Callable[[dict], None] | None = None, log: Callable[[str], None] = print, anyway: bool = False
) -> dict:
    """Run a job to its end, or go on with it, and return its manifest: tokens, FLOPs, parameters, mixture, final loss.

    `hook` gets every step's metrics as they come, and every few seconds tokens a second and MFU: `wandb.log`, say. `log` gets lines of progress.
    `anyway` starts although memory is reckoned too small (the reckoning is an estimate). Raises TrainingFailed when
    the loss stops being a number, ValueError for what does not fit together, OSError for a checkpoint or disk that won't do."""
    ours = join(job.threads)
    log = log if ours.leads else (lambda _: None)
    out, tokenizer, data = Path(job.out), tokenizer_of(job), mixture_of(job)
    same = identity(
        job,
        tokenizer=tokenizer_digest(tokenizer),
        data=[s.source.about["digest"] for s in data.sources],
        start=_start_digest(job),
    )
    checkpoints.check_place(job)
    if finished := _manifest_of(job.out):
        checkpoints.require_same(job, finished.get("identity"), same, "a finished run")
        checkpoints.require_kept(job)
        if ours.leads:
            remove(out / checkpoints.STATES)
        log(f"{job.name}: done before, nothing to do")
        return finished
    run = open_trainee(job, tokenizer, data, ours, log, anyway)
    steps = math.ceil(len(data) / job.batch)
    inherited = _inherit(job, run) if job.rate == "inherit" else None
    if ours.leads:
        checkpoints.tidy(out)
    done, seen = checkpoints.load_state(job, run.model, run.optimizer, same)
    if ours.total(done) != done * ours.count:
        raise OSError(
            f"job {job.name!r}: processes see different states in {out}; it must be on a disk that they share"
        )
    marks = [(max(1, round(share * steps)), out / f"at-{share:g}") for share in job.keep]
    if done:
        checkpoints.require_ahead(job, marks, done, steps)
        log(f"{job.name}: goes on after step {done:,} of {steps:,}")
    about = _about(job, run, steps) | {"identity": same}
    tokens, value, rate = data.tokens, None, None

    def manifest() -> dict:
        return about | {"tokens": seen, "flops": seen * about["flops_per_token"], "loss": value, "lr": rate}

    told = Telling(job, steps, about["flops_per_token"], ours, log)
    with Metrics(out, done, ours.leads) as metrics:
        for step in range(done, steps):
            places = np.arange(step * job.batch, min((step + 1) * job.batch, len(data)))
            rate = learning_rate(step, steps, job, inherited)
            value, norm = _step(job, run, places, rate, ours)
            if norm is None:
                raise TrainingFailed(_not_a_number(job, value, step, checkpoints.states(out)))
            seen += int(tokens[places].sum())
            row = {"step": step, "tokens": seen, "loss": value, "lr": rate, "gradient_norm": norm}
            metrics.add(row)
            timing = told.step(row, int(tokens[places].sum()))
            if hook and ours.leads:
                hook(row | timing)
            for folder in (folder for mark, folder in marks if mark == step + 1):
                _keep(job, run, folder, manifest(), ours)
            if job.save_every and (step + 1) % job.save_every == 0 and step + 1 < steps:
                checkpoints.save_state(job, step + 1, seen, run.model, run.optimizer, same, leader=ours.leads)
    _keep(job, run, out, manifest(), ours)
    if ours.leads:
        remove(out / checkpoints.STATES)
    log(f"{job.name}: {seen:,} tokens in {steps:,} steps, loss {value:.3f}, written to {out}")
    return manifest()


def _step(job: Job, run: Trainee, places: np.ndarray, rate: float, ours: Processes) -> tuple[float, float | None]:
    """Take one step on the blocks at `places`: (loss in nats a token, norm of the gradient). Where either is no number no step
    is taken, and the norm is None."""
    import torch

    for group in run.optimizer.param_groups:
        group["lr"] = rate
    learnt = max(1, int(run.predicted[places].sum()))
    losses = []
    for part in shares_of(places, job.micro_batch, ours):
        batch = on_device(run.data.batch(part, job.loss_on == "answer"), ours.device)
        with arithmetic(job, ours):
            loss = run.scored(*batch)
        (loss * (ours.count / learnt)).backward()  # sharding takes the mean over processes
        losses.append(loss.detach())
    value = ours.total(sum(loss.item() for loss in losses)) / learnt
    if not math.isfinite(value):
        return value, None
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), job.clip)
    norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
    if not math.isfinite(norm):
        return value, None
    run.optimizer.step()
    run.optimizer.zero_grad()
    return value, norm


def _not_a_number(job: Job, value: float, step: int, states: list[Path]) -> str:
    back = (
        f"starting the job again goes on after step {int(states[-1].name):,}, but will end here too"
        if states
        else "no state is stored"
    )
    return (
        f"job {job.name!r}: the loss is {value} at step {step}{', its gradient no number' * math.isfinite(value)}; the step was not taken. Lower learning_rate "
        f"({job.learning_rate:g}), lengthen warmup ({job.warmup:g}) or look at the data of that step; {back}"
    )


def _about(job: Job, run: Trainee, steps: int) -> dict:
    """The manifest's part that is known before the first step."""
    import torch
    import transformers

    start = _manifest_of(job.start)
    hidden = ("qa", "general", "out", "tokenizer", "start")
    return {
        "name": job.name,
        "base_model": None if job.size else (start or {}).get("name") or called(job.start),
        "job": {k: v for k, v in dict(job).items() if k not in hidden},
        "parameters": run.needs.parameters,
        "steps": steps,
        "mixture": run.data.report,
        "flops_per_token": run.needs.model.flops_per_token(run.data.context()),
        "initial_flops": start["initial_flops"] + start["flops"] if start else 0.0,
        "initial_tokens": start["initial_tokens"] + start["tokens"] if start else 0,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def _manifest_of(start: str | None) -> dict | None:
    """The training manifest of a checkpoint of ours; None of any other, whose own compute is not known and counts as 0."""
    path = Path(start or "") / "training.json"
    return read_json(path) if start and path.is_file() else None


def _start_digest(job: Job) -> str:
    """What tells the start from other checkpoints: digests of its weights and configuration, or its name."""
    if not job.start or not Path(job.start).is_dir():
        return job.start or job.size
    weights = sorted(p for p in Path(job.start).glob("*.safetensors") if p.name != "optimizer.safetensors")
    return ", ".join(f"{p.name} {digest(p)[:16]}" for p in (Path(job.start) / "config.json", *weights))


def _inherit(job: Job, run: Trainee) -> float:
    """Take over the moments that the start's training ended with; returns the rate that it ended at."""
    stored, manifest = Path(job.start) / "optimizer.safetensors", _manifest_of(job.start)
    if not stored.is_file() or not (manifest or {}).get("lr"):
        raise ValueError(
            f"job {job.name!r}: rate is inherit, but {job.start} holds no moments or ended at a rate of 0; train it with a "
            "constant schedule and keep_optimizer, or set rate to rewarm"
        )
    with checkpoints.open_tensors(stored, "train that start again, or set rate to rewarm") as file:
        checkpoints.load_optimizer(run.model, run.optimizer, file)
    return manifest["lr"]


def _keep(job: Job, run: Trainee, folder: Path, manifest: dict, ours: Processes) -> None:
    """Export the model as it is, with its moments if a later run shall inherit them."""
    from safetensors.torch import save_file

    if ours.leads:
        # left by a run that was killed later: no longer complete
        (folder / "training.json").unlink(missing_ok=True)
    if job.keep_optimizer:
        moments = checkpoints.optimizer_tensors(run.model, run.optimizer, ours.leads)
        if ours.leads:
            folder.mkdir(parents=True, exist_ok=True)
            save_file({name: value.contiguous() for name, value in moments.items()}, folder / "optimizer.safetensors")
    checkpoints.export(run.model, run.tokenizer, folder, manifest, dtype=run.dtype, leader=ours.leads)


def train_file(
    path: str | Path, *, plan_only: bool = False, tracker_name: str | None = None, anyway: bool = False
) -> None:
    """Run the job of a YAML file, or with `plan_only` print what it would take; every process of torchrun calls this.

    Raises ValueError for a faulty file and a run that does not fit the memory, what `train` raises, and ImportError for a tracker
    that is not installed."""
    try:
        job, ours = read_job(path), processes()
        if plan_only:
            checkpoints.check_place(job)
            tokenizer, data = tokenizer_of(job), mixture_of(job)
            config = configuration(job, tokenizer)
            check(job, config, data, tokenizer)
            needs = plan(job, config, data, ours)
            print(f"{needs.describe()}\n{data.describe()}")
            if not anyway:
                needs.refuse()
            return
        hook = tracker(tracker_name, job) if tracker_name and ours.leads else None
        train(job, hook=hook, anyway=anyway)
    finally:
        leave()
