"""The training loop: one plain torch loop over Hugging Face causal models, for the base student and for mid-training.

    qatoolkit train run.yaml
    accelerate launch --use_fsdp --fsdp_version 2 --num_processes 8 -m qatoolkit.run.cli train run.yaml

A job (`training.job.Job`) writes a plain Hugging Face directory with metrics, and a manifest last. An interrupted job
that is run again resumes, bit for bit on a CPU. On several devices weights, gradients and moments are sharded by
torch's FSDP2; every step reads the same blocks and divides by the tokens of all devices, so the number of devices
changes results only by rounding (and by dropout, in a model that has it).
"""

import math
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from qatoolkit.core.files import digest, read_json, remove
from qatoolkit.core.text import first_line
from qatoolkit.training import checkpoints
from qatoolkit.training.digests import DIGESTS, require_undamaged
from qatoolkit.training.distributed import Processes, join, leave, on_device, processes, split_places
from qatoolkit.training.hub import COPY_AGAIN, checkpoint_name
from qatoolkit.training.job import WHOLE, Job, identity, learning_rate, read_job, side_branch
from qatoolkit.training.logging import ProgressLog, open_metrics, tracker
from qatoolkit.training.memory_estimate import missing_on_disk, size_text
from qatoolkit.training.probes import PROBES, open_probes, prepare_probe
from qatoolkit.training.setup import Setup, autocast, check_job, open_data, open_tokenizer, set_up
from qatoolkit.training.stops import Stopped, is_full, lock_folder, stop_requests
from qatoolkit.training.tokens import tokenizer_digest

GO_ON, SAVE, STOP = range(3)  # decided before each step: the maximum over all processes


class TrainingFailed(RuntimeError):
    """A job can't continue; the message says where it stopped, why, and what to change."""


def train(
    job: Job,
    *,
    probe: Callable | None = None,
    hook: Callable[[dict], None] | None = None,
    log: Callable[[str], None] = print,
    anyway: bool = False,
) -> dict:
    """Run or resume a job to its end and return its manifest: tokens, FLOPs, parameters, mixture, final loss.

    `probe` answers the questions of a job with `probe_every` (`evaluation.live_probe`): called with job and tokenizer,
    it returns a function from the live model to discipline, difficulty, n, accuracy and margin by cell, which go to
    `probe.jsonl` (`probes.read_probes`). `hook` (for example `wandb.log`) gets every step's metrics, and every few
    seconds tokens per second and MFU. `log` gets progress lines. `anyway` starts even if the memory estimate says that
    the job does not fit.

    Raises TrainingFailed if the loss is not finite, ValueError for parts that do not belong together, OSError for a
    damaged checkpoint or a full disk, InUse if another process is training in the job's folder. On SIGTERM or SIGUSR1
    it completes the step, saves the state and raises Stopped, a SystemExit with code 75 (`stops.AGAIN`)."""
    group = join(job.threads)
    log = log if group.leads else (lambda _: None)
    checkpoints.check_out(job)
    with stop_requests() as asked_to_stop, lock_folder(job, group.leads):
        return _run(job, group, probe, hook, log, anyway, asked_to_stop)


def _run(job: Job, group: Processes, probe, hook, log, anyway: bool, asked_to_stop: Callable[[], bool]) -> dict:
    """`train`, once the job's folder is locked."""
    out, tokenizer, data = Path(job.out), open_tokenizer(job), open_data(job)
    job_identity = identity(job, tokenizer=tokenizer_digest(tokenizer), data=data.identity, start=_start_digest(job))
    require_undamaged(out, f"delete {out} and run the job again to train it again")
    if finished := _manifest_of(job.out):
        checkpoints.require_same(job, finished.get("identity"), job_identity, "a finished run")
        checkpoints.require_kept(job)
        if job.probe_every and not (out / PROBES).is_file():
            raise ValueError(
                f"job {job.name!r}: {out} contains a finished run made without probes; set probe_every to 0, or give "
                "another `out` to train again"
            )
        if group.leads:
            remove(out / checkpoints.STATES)
        log(f"{job.name}: already finished, nothing to do")
        return finished
    ask = prepare_probe(probe, job, tokenizer)
    setup = set_up(job, tokenizer, data, group, log, anyway)
    steps = math.ceil(len(data) / job.batch)
    inherited = _inherit(job, setup) if job.rate == "inherit" or job.part[0] else None
    if group.leads:
        checkpoints.remove_leftovers(out)
    done, seen = checkpoints.load_state(job, setup.model, setup.optimizer, job_identity)
    if group.total(done) != done * group.count:
        raise OSError(
            f"job {job.name!r}: processes see different states in {out}; put it on a disk that all of them share"
        )
    marks = [(*side_branch(share, steps, job), out / f"at-{share:g}") for share in job.keep]
    if done:
        checkpoints.require_ahead(job, marks, done, steps)
        log(f"{job.name}: resumes after step {done:,} of {steps:,}")
    about = _describe(job, setup, steps) | {"identity": job_identity}
    tokens, loss, rate = data.tokens, None, None

    def manifest() -> dict:
        return about | {"tokens": seen, "flops": seen * about["flops_per_token"], "loss": loss, "lr": rate}

    progress = ProgressLog(job, steps, about["flops_per_token"], group, log)
    save_due = _save_timer(job)
    with (
        _full_disk_in_one_line(job, setup.needs.model.parameters),
        open_metrics(out, done, group.leads) as write_row,
        open_probes(job, ask, setup.scored, steps, done, group, progress, log) as probe_if_due,
    ):

        def take(step: int, ends: int) -> tuple[dict, int]:
            """Take a step of a run that ends at step `ends`; returns its metrics and its tokens."""
            nonlocal loss, rate, seen
            places = np.arange(step * job.batch, min((step + 1) * job.batch, len(data)))
            rate = learning_rate(step, steps, job, inherited, ends=ends)
            loss, norm = _take_step(job, setup, places, rate, group)
            if norm is None:
                raise TrainingFailed(_explain_not_finite(job, loss, step))
            new = int(tokens[places].sum())
            seen += new
            return {"step": step, "tokens": seen, "loss": loss, "lr": rate, "gradient_norm": norm}, new

        def decay_branch(step: int, ends: int, folder: Path) -> None:
            """Keep the model of a run that ends at step `ends`, then restore the trunk's state."""
            nonlocal loss, rate, seen
            if (_manifest_of(folder) or {}).get("identity") == job_identity:
                return  # written before the run was resumed
            since, trunk = time.perf_counter(), (loss, rate, seen)
            checkpoints.save_state(job, step, seen, setup.model, setup.optimizer, job_identity, leader=group.leads)
            for branch_step in range(step, ends):
                if group.highest(STOP if asked_to_stop() else GO_ON) == STOP:
                    raise _stopped(job, step, steps, group)
                take(branch_step, ends)
            _keep(job, setup, folder, manifest() | {"steps": ends}, group)
            log(f"{job.name}: {seen:,} tokens, decay branch, loss {loss:.3f}, written to {folder}")
            group.highest(0)  # wait until the leader has written the state
            checkpoints.load_state(job, setup.model, setup.optimizer, job_identity)
            loss, rate, seen = trunk
            progress.since += time.perf_counter() - since  # not training time of the trunk

        if not done:
            probe_if_due(0, 0, 0)
        for step in range(done, steps):
            action = group.highest(STOP if asked_to_stop() else SAVE if group.leads and save_due(step) else GO_ON)
            if action and step > done:
                checkpoints.save_state(job, step, seen, setup.model, setup.optimizer, job_identity, leader=group.leads)
            if action == STOP:
                raise _stopped(job, step, steps, group)
            for _, ends, folder in (mark for mark in marks if mark[0] == step < mark[1]):
                decay_branch(step, ends, folder)
            row, new = take(step, steps)
            write_row(row)
            timing = progress.step(row, new)
            if hook and group.leads:
                hook(row | timing)
            for leaves, ends, folder in marks:
                if leaves == ends == step + 1:
                    _keep(job, setup, folder, manifest(), group)
            probe_if_due(step + 1, seen, new)
        _keep(job, setup, out, manifest(), group)
    if group.leads:
        remove(out / checkpoints.STATES)
    log(f"{job.name}: {seen:,} tokens in {steps:,} steps, loss {loss:.3f}, written to {out}")
    return manifest()


def _stopped(job: Job, step: int, steps: int, group: Processes) -> Stopped:
    """The exception for a requested stop. Waits until the leader has written the state, since a launcher ends all
    processes when one has ended."""
    group.highest(0)
    return Stopped(
        f"job {job.name!r}: stopped on request after step {step:,} of {steps:,}"
        f"{f', its state is in {job.out}' * bool(step)}; run the same command again to continue"
    )


def _save_timer(job: Job) -> Callable[[int], bool]:
    """A function of the steps taken that says whether a state is due, by steps or by the time since the last one."""
    last = time.monotonic()

    def due(taken: int) -> bool:
        nonlocal last
        by_time = bool(job.save_minutes) and time.monotonic() - last >= 60 * job.save_minutes
        if by_time or (job.save_every and taken % job.save_every == 0):
            last = time.monotonic()
            return True
        return False

    return due


@contextmanager
def _full_disk_in_one_line(job: Job, parameters: int):
    """Turn a full disk at any write into a one-line error: how much is missing, and where a rerun resumes."""
    try:
        yield
    except Exception as error:  # tokenizers raises bare Exceptions
        if not is_full(error):
            raise
        needed, missing = missing_on_disk(job, parameters)
        states = checkpoints.states(job.out)
        raise OSError(
            f"job {job.name!r}: the disk or quota of {job.out} is full ({first_line(error)}): the job needs "
            f"{size_text(needed)} more there, {size_text(missing)} more than are free. Free that and run the same "
            f"command again: it resumes after step {int(states[-1].name) if states else 0:,}"
        ) from error


def _take_step(job: Job, setup: Setup, places: np.ndarray, rate: float, group: Processes) -> tuple[float, float | None]:
    """Take one step on the blocks at `places`: (loss in nats per token, norm of the gradient). If either is not finite,
    the weights are not updated and the norm is None."""
    import torch

    for param_group in setup.optimizer.param_groups:
        param_group["lr"] = rate
    predicted = max(1, int(setup.predicted[places].sum()))
    losses = []
    for part in split_places(places, job.micro_batch, group):
        batch = on_device(setup.data.batch(part, job.loss_on == "answer"), group.device)
        with autocast(job, group):
            loss = setup.scored(*batch)
        (loss * (group.count / predicted)).backward()  # sharding takes the mean over processes
        losses.append(loss.detach())
    value = group.total(sum(loss.item() for loss in losses)) / predicted
    if not math.isfinite(value):
        return value, None
    norm = torch.nn.utils.clip_grad_norm_(setup.model.parameters(), job.clip)
    norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
    if not math.isfinite(norm):
        return value, None
    setup.optimizer.step()
    setup.optimizer.zero_grad()
    return value, norm


def _explain_not_finite(job: Job, value: float, step: int) -> str:
    """The error message for a loss or gradient that is not finite."""
    states = checkpoints.states(job.out)
    resumed = (
        f"resuming starts after step {int(states[-1].name):,}, but will end here too"
        if states
        else "no state is stored"
    )
    return (
        f"job {job.name!r}: the loss is {value} at step {step}{', its gradient not finite' * math.isfinite(value)}; "
        f"the step was not taken. Lower learning_rate ({job.learning_rate:g}), lengthen warmup ({job.warmup:g}) or "
        f"look at the data of that step; {resumed}"
    )


def _describe(job: Job, setup: Setup, steps: int) -> dict:
    """The part of the manifest that is known before the first step."""
    import torch
    import transformers

    start = _manifest_of(job.start)
    hidden = ("qa", "general", "probe", "out", "tokenizer", "start")
    return {
        "name": job.name,
        "base_model": None if job.size else (start or {}).get("name") or checkpoint_name(job.start),
        "job": {k: v for k, v in dict(job).items() if k not in hidden},
        "parameters": setup.needs.model.parameters,
        "steps": steps,
        "mixture": setup.data.report,
        "flops_per_token": setup.needs.model.flops_per_token(setup.data.context()),
        "initial_flops": start["initial_flops"] + start["flops"] if start else 0.0,
        "initial_tokens": start["initial_tokens"] + start["tokens"] if start else 0,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def _manifest_of(folder: str | None) -> dict | None:
    """The training manifest of a checkpoint, None if it has none; its compute is then unknown and counts as 0."""
    path = Path(folder or "") / "training.json"
    return read_json(path) if folder and path.is_file() else None


def _start_digest(job: Job) -> str:
    """Identifies the start: digests of its configuration and weights, or its name."""
    if not job.start or not Path(job.start).is_dir():
        return job.start or job.size
    weights = sorted(p for p in Path(job.start).glob("*.safetensors") if p.name != "optimizer.safetensors")
    return ", ".join(f"{p.name} {digest(p)[:16]}" for p in (Path(job.start) / "config.json", *weights))


def _inherit(job: Job, setup: Setup) -> float | None:
    """Load the final moments of the start's training; returns its final learning rate, None in a later part of a run,
    which continues the schedule."""
    stored, manifest = Path(job.start) / "optimizer.safetensors", _manifest_of(job.start) or {}
    ended = manifest.get("job", {}).get("part", WHOLE)[1]
    if job.part[0] and not (stored.is_file() and math.isclose(ended, job.part[0])):
        raise ValueError(
            f"job {job.name!r}: part begins at {job.part[0]:g} of a run, and {job.start} "
            f"{f'ends at {ended:g} of one' if stored.is_file() else 'has no moments'}; start from the part before this "
            "one"
        )
    if not stored.is_file() or not manifest.get("lr"):
        raise ValueError(
            f"job {job.name!r}: rate is inherit, but {job.start} has no moments or ended at a rate of 0; train it with "
            "a constant schedule and keep_optimizer, or set rate to rewarm"
        )
    require_undamaged(job.start, f"{COPY_AGAIN}, or set rate to rewarm")
    with checkpoints.open_tensors(stored, "train that start again, or set rate to rewarm") as file:
        checkpoints.load_optimizer(setup.model, setup.optimizer, file)
    return None if job.part[0] else manifest["lr"]


def _keep(job: Job, setup: Setup, folder: Path, manifest: dict, group: Processes) -> None:
    """Export the model as it is now, with its moments if the job keeps them."""
    if group.leads:  # a resumed run writes this checkpoint again, which is incomplete meanwhile
        for name in ("training.json", DIGESTS):
            (folder / name).unlink(missing_ok=True)
    try:
        if job.keep_optimizer:
            moments = checkpoints.optimizer_tensors(setup.model, setup.optimizer, group.leads)
            if group.leads:
                folder.mkdir(parents=True, exist_ok=True)
                checkpoints.save_tensors(moments, folder / "optimizer.safetensors")
        checkpoints.export(setup.model, setup.tokenizer, folder, manifest, dtype=setup.dtype, leader=group.leads)
    except Exception:  # a full disk: half a checkpoint would take the space of a state
        for partial_file in folder.glob("*.safetensors") if group.leads else ():
            partial_file.unlink()
        raise


def train_file(
    path: str | Path,
    *,
    plan_only: bool = False,
    tracker_name: str | None = None,
    anyway: bool = False,
    probe: Callable | None = None,
) -> None:
    """Run the job of a YAML file, or with `plan_only` print its needs; called by every process of torchrun. `probe` as
    in `train`.

    Raises ValueError for a faulty file or a run that does not fit, ImportError for a tracker that is not installed, and
    what `train` raises."""
    try:
        job, group = read_job(path), processes()
        if plan_only:
            checkpoints.check_out(job)
            tokenizer = open_tokenizer(job)
            prepare_probe(probe, job, tokenizer)
            check_job(job, tokenizer, open_data(job), group, print, anyway)
            return
        hook = tracker(tracker_name, job) if tracker_name and group.leads else None
        train(job, probe=probe, hook=hook, anyway=anyway)
    finally:
        leave()
