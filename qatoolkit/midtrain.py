"""The training loop: one plain torch loop over Hugging Face causal models, for the own trunk and for mid-training.

    python -m qatoolkit.midtrain run.yaml
    accelerate launch --use_fsdp --fsdp_version 2 --num_processes 8 -m qatoolkit.midtrain run.yaml

A job (`recipe.Job`) writes a plain Hugging Face directory with metrics and a manifest last. Started again it goes on where it
was interrupted, to the bit on a CPU. On several devices weights, gradients and moments are sharded by torch's FSDP2; every
step reads the same blocks and divides by the tokens of all devices, so that their number does not change what is learnt.
A trunk trains at a constant rate after its warm-up, so that every kept checkpoint is an honest start for mid-training.
"""

import copy
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from qatoolkit import ladder
from qatoolkit.devices import Processes, on_device, processes, shares_of
from qatoolkit.files import remove
from qatoolkit.mixture import Mixture, mix
from qatoolkit.packing import pack
from qatoolkit.preflight import Needs, check_disk, disk_needed, preflight
from qatoolkit.recipe import Job, identity, learning_rate, read_job
from qatoolkit.tokens import open_tokens, tokenizer_digest
from qatoolkit.trackers import tracker
from qatoolkit.training_log import Metrics, Telling


class TrainingFailed(RuntimeError):
    """A job that can't go on; the message says where it stopped, why, and what to change."""


def train(
    job: Job, *, hook: Callable[[dict], None] | None = None, log: Callable[[str], None] = print
) -> dict:
    """Run a job to its end, or go on with it, and return its manifest: tokens, FLOPs, parameters, mixture, final loss.

    `hook` gets every step's metrics as they come, and every few seconds tokens a second and MFU: `wandb.log`, say. `log` gets lines of progress. Raises TrainingFailed when
    the loss stops being a number, ValueError for what does not fit together, OSError for a checkpoint or disk that won't do."""
    from qatoolkit import checkpoints

    ours = processes()
    log = log if ours.leads else (lambda _: None)
    run = _open(job, ours, log)
    steps = math.ceil(len(run.data) / job.batch)
    inherited = _inherit(job, run.model, run.optimizer) if job.rate == "inherit" else None
    same = identity(
        job,
        tokenizer=tokenizer_digest(run.tokenizer),
        data=[s.source.about["digest"] for s in run.data.sources],
        start=_start_digest(job),
    )
    done, seen = checkpoints.load_state(job, run.model, run.optimizer, same)
    if done:
        log(f"{job.name}: goes on after step {done:,} of {steps:,}")
    about = _about(job, run.needs, run.data, steps)
    tokens, out, value, rate = run.data.tokens, Path(job.out), None, None
    marks = {max(1, round(share * steps)): out / f"at-{share:g}" for share in job.keep}

    def manifest() -> dict:
        return about | {"tokens": seen, "flops": seen * about["flops_per_token"], "loss": value, "lr": rate}

    told = Telling(job, steps, about["flops_per_token"], ours, log)
    with Metrics(out, done, ours.leads) as metrics:
        for step in range(done, steps):
            places = np.arange(step * job.batch, min((step + 1) * job.batch, len(run.data)))
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
            if step + 1 in marks:
                _keep(job, run, marks[step + 1], manifest(), ours)
            if job.save_every and (step + 1) % job.save_every == 0 and step + 1 < steps:
                checkpoints.save_state(job, step + 1, seen, run.model, run.optimizer, same, leader=ours.leads)
    _keep(job, run, out, manifest(), ours)
    if ours.leads:
        remove(out / checkpoints.STATES)
    return manifest()


def _open(job: Job, ours: Processes, log: Callable[[str], None]) -> SimpleNamespace:
    """Everything that a step needs, loaded and checked: tokenizer, data, what the run takes, the model with its loss, the
    optimizer, and the dtype to write."""
    import torch
    from transformers.utils import logging

    from qatoolkit.losses import shortcuts_that_fit

    logging.disable_progress_bar()
    torch.manual_seed(job.seed)
    tokenizer, data = _tokenizer(job), mixture_of(job)
    _check_tokens(job, data, tokenizer)
    config = _config(job, tokenizer)
    _check_config(job, config, data)
    needs = plan(job, config, data, ours)
    log(needs.describe())
    needs.refuse()
    check_disk(job.out, disk_needed(needs.parameters, job.keep_states if job.save_every else 0, job.memory))
    model = _model(job, config, ours)
    scored, optimizer = _prepare(job, model, ours)
    first = data.batch(np.arange(1), job.loss_on == "answer")
    with _arithmetic(job, ours):
        fitting = shortcuts_that_fit(scored, on_device(first, ours.device))
    for shortcut, fits in fitting.items():
        if ours.total(not fits):
            log(f"{job.name}: {shortcut.replace('_', ' ')} would change this model's loss, so it is off")
            setattr(scored, shortcut, False)
    if ours.count > 1:
        scored.reshard()  # a forward pass without a backward one leaves the root's weights whole
    return SimpleNamespace(
        tokenizer=tokenizer, data=data, needs=needs, model=model, scored=scored, optimizer=optimizer,
        dtype=_stored_dtype(job, config), predicted=data.predicted(job.loss_on == "answer"),
    )  # fmt: skip


def _step(
    job: Job, run: SimpleNamespace, places: np.ndarray, rate: float, ours: Processes
) -> tuple[float, float | None]:
    """Take one step on the blocks at `places`: (loss in nats a token, norm of the gradient). A loss that is no number takes no
    step, and its norm is None."""
    import torch

    for group in run.optimizer.param_groups:
        group["lr"] = rate
    learnt = max(1, int(run.predicted[places].sum()))
    losses = []
    for part in shares_of(places, job.micro_batch, ours):
        batch = on_device(run.data.batch(part, job.loss_on == "answer"), ours.device)
        with _arithmetic(job, ours):
            loss = run.scored(*batch)
        (loss * (ours.count / learnt)).backward()  # sharding takes the mean over processes
        losses.append(loss.detach())
    value = ours.total(sum(loss.item() for loss in losses)) / learnt
    if not math.isfinite(value):
        return value, None
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), job.clip)
    run.optimizer.step()
    run.optimizer.zero_grad()
    return value, float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def _arithmetic(job: Job, ours: Processes):
    """The context that a forward pass computes in: bfloat16 products on a GPU, everything as it is otherwise."""
    import torch

    return torch.autocast(
        "cuda", dtype=torch.bfloat16, enabled=ours.device != "cpu" and job.memory == "standard"
    )


def mixture_of(job: Job) -> Mixture:
    """The blocks of a job in the order in which it reads them."""
    qa, general = (pack(open_tokens(path), job.block) if path else None for path in (job.qa, job.general))
    return mix(qa, general, job.tokens, job.replay, job.seed)


def _tokenizer(job: Job):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(job.tokenizer or job.start)


def _check_tokens(job: Job, data: Mixture, tokenizer) -> None:
    ours = tokenizer_digest(tokenizer)
    for source in data.sources:
        if source.source.about["tokenizer"] != ours:
            raise ValueError(
                f"job {job.name!r}: {source.source.folder} was tokenised with another tokenizer than "
                f"{job.tokenizer or job.start}; tokenise it again with that one"
            )


def _config(job: Job, tokenizer):
    """The transformers configuration of the model to train."""
    from transformers import AutoConfig

    if job.start:
        return AutoConfig.from_pretrained(job.start)
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return ladder.llama_config(ladder.size_of(job.size), len(tokenizer), job.block, **special)


def _check_config(job: Job, config, data: Mixture) -> None:
    vocabulary = data.sources[0].source.about["vocabulary"]
    if vocabulary > config.vocab_size:
        raise ValueError(
            f"job {job.name!r}: the tokenizer has {vocabulary:,} tokens and {job.start or job.size} rows for "
            f"{config.vocab_size:,}: they do not belong together; give the model's own tokenizer"
        )
    longest = getattr(config, "max_position_embeddings", None)
    if longest and job.block > longest:
        raise ValueError(
            f"job {job.name!r}: block is {job.block:,} tokens and the model reads at most {longest:,}; set block to that or less"
        )


def plan(job: Job, config, data: Mixture, ours: Processes, **settings) -> Needs:
    """What the job takes on these devices: parameters, FLOPs, memory by part; `settings` as for `preflight`."""
    return preflight(
        config,
        tokens=int(data.tokens.sum()),
        block=job.block,
        micro_batch=min(job.micro_batch or job.batch, -(-job.batch // ours.count)),
        context=data.context(),
        devices=ours.count,
        memory=job.memory,
        checkpointing=job.checkpointing,
        fused_loss=job.fused_loss,
        compute_dtype="fp32" if ours.device == "cpu" and job.memory == "standard" else "bf16",
        **settings,
    )


def _model(job: Job, config, ours: Processes):
    """The model to train, on its device."""
    import torch
    from transformers import AutoModelForCausalLM

    from qatoolkit.attention import register

    register()
    kind = torch.bfloat16 if job.memory == "low" else torch.float32
    settings = {"config": copy.deepcopy(config), "dtype": kind, "attn_implementation": job.attention}
    if job.start:
        model = AutoModelForCausalLM.from_pretrained(job.start, use_safetensors=True, **settings)
    else:
        with torch.device(ours.device if ours.count == 1 else "cpu"):
            model = AutoModelForCausalLM.from_config(**settings)
    model.train()
    return model if ours.count > 1 else model.to(ours.device)  # sharding moves a layer at a time


def _stored_dtype(job: Job, config):
    """The dtype that the job's directory is written in: that of the checkpoint it started from."""
    import torch

    if job.start:
        return config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    return torch.bfloat16 if job.memory == "low" else torch.float32


def _prepare(job: Job, model, ours: Processes):
    """The model with its loss, sharded where there are several processes, and its optimizer."""
    import torch

    from qatoolkit.losses import Scored

    if job.checkpointing:
        getattr(
            model, "activation_checkpointing_enable", model.gradient_checkpointing_enable
        )()  # a new name of one thing
    layers = [m for m in model.modules() if type(m).__name__ in set(model._no_split_modules or ())]
    if job.compile:
        for layer in layers:
            layer.compile()
    scored = Scored(model, fused_loss=job.fused_loss, z_loss=job.z_loss)
    if ours.count > 1:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        on_gpu = ours.device != "cpu"
        mesh = init_device_mesh(ours.device.split(":")[0], (ours.count,))
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        settings = {"mesh": mesh} | ({"mp_policy": policy} if on_gpu and job.memory == "standard" else {})
        for layer in layers:
            fully_shard(layer, **settings)
        fully_shard(scored, **settings)
    groups = parameter_groups(model, job.weight_decay)
    if job.memory == "low":
        from qatoolkit.low_memory import LowMemoryAdamW

        optimizer = LowMemoryAdamW(groups, lr=job.learning_rate, betas=job.betas, seed=job.seed)
    else:
        optimizer = torch.optim.AdamW(groups, lr=job.learning_rate, betas=job.betas, fused=True)
    return scored, optimizer


def parameter_groups(model, weight_decay: float) -> list[dict]:
    """Weight decay on matrices only: not on norms, biases and embeddings."""
    heads = (model.get_input_embeddings(), model.get_output_embeddings())
    embeddings = {id(p) for module in heads if module is not None for p in module.parameters()}
    decayed = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in embeddings]
    rest = [p for p in model.parameters() if p.ndim < 2 or id(p) in embeddings]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def _not_a_number(job: Job, value: float, step: int, states: list[Path]) -> str:
    back = (
        f"starting the job again goes on after step {int(states[-1].name):,}, but will end here too"
        if states
        else "no state is stored"
    )
    return (
        f"job {job.name!r}: the loss is {value} at step {step}, and the step was not taken. Lower learning_rate "
        f"({job.learning_rate:g}), lengthen warmup ({job.warmup:g}) or look at the data of that step; {back}"
    )


def _about(job: Job, needs: Needs, data: Mixture, steps: int) -> dict:
    """The manifest's part that is known before the first step."""
    import torch
    import transformers

    start = _manifest_of(job.start)
    hidden = ("qa", "general", "out", "tokenizer", "start")
    return {
        "name": job.name,
        "base_model": None if job.size else (start or {}).get("name", Path(job.start).name),
        "job": {k: v for k, v in asdict(job).items() if k not in hidden},
        "parameters": needs.parameters,
        "steps": steps,
        "mixture": data.report,
        "flops_per_token": needs.model.flops_per_token(data.context()),
        "initial_flops": start["initial_flops"] + start["flops"] if start else 0.0,
        "initial_tokens": start["initial_tokens"] + start["tokens"] if start else 0,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def _manifest_of(start: str | None) -> dict | None:
    """The training manifest of a checkpoint of ours; None of any other, whose own compute is not known and counts as 0."""
    path = Path(start or "") / "training.json"
    return json.loads(path.read_text()) if start and path.is_file() else None


def _start_digest(job: Job) -> str:
    """Names and sizes of the start's files: enough to notice another checkpoint without reading all of it."""
    if not job.start or not Path(job.start).is_dir():
        return job.start or job.size
    files = sorted(p for p in Path(job.start).iterdir() if p.suffix in (".safetensors", ".json"))
    return ", ".join(f"{p.name} {p.stat().st_size}" for p in files)


def _inherit(job: Job, model, optimizer) -> float:
    """Take over the moments that the start's training ended with; returns the rate that it ended at."""
    from safetensors.torch import load_file

    from qatoolkit import checkpoints

    stored, manifest = Path(job.start) / "optimizer.safetensors", _manifest_of(job.start)
    if not stored.is_file() or not (manifest or {}).get("lr"):
        raise ValueError(
            f"job {job.name!r}: rate is inherit, but {job.start} holds no moments or ended at a rate of 0; train it with a "
            "constant schedule and keep_optimizer, or set rate to rewarm"
        )
    checkpoints.load_optimizer(model, optimizer, load_file(stored))
    return manifest["lr"]


def _keep(job: Job, run: SimpleNamespace, folder: Path, manifest: dict, ours: Processes) -> None:
    """Export the model as it is, with its moments if a later run shall inherit them."""
    from safetensors.torch import save_file

    from qatoolkit import checkpoints

    if job.keep_optimizer:
        moments = checkpoints.optimizer_tensors(run.model, run.optimizer)
        if ours.leads:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(
                {name: value.clone() for name, value in moments.items()}, folder / "optimizer.safetensors"
            )
    checkpoints.export(run.model, run.tokenizer, folder, manifest, dtype=run.dtype, leader=ours.leads)


def main(argv: list[str] | None = None) -> int:
    """The command line: runs the job of a YAML file, or says what it would take."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m qatoolkit.midtrain", description=main.__doc__)
    parser.add_argument("job", help="a YAML file with the fields of a job")
    parser.add_argument("--plan", action="store_true", help="only print what the run takes")
    parser.add_argument("--tracker", help="also report to tensorboard, trackio or wandb")
    arguments = parser.parse_args(argv)
    try:
        job = read_job(arguments.job)
        if _finished(job):
            print(f"{job.name}: done before, nothing to do")
            return 0
        if arguments.plan:
            ours, tokenizer, data = processes(), _tokenizer(job), mixture_of(job)
            print(plan(job, _config(job, tokenizer), data, ours, flops_per_second="measure").describe())
            return 0
        hook = tracker(arguments.tracker, job) if arguments.tracker else None
        train(job, hook=hook)
    except (TrainingFailed, ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _finished(job: Job) -> bool:
    return (Path(job.out) / "training.json").is_file()


if __name__ == "__main__":
    sys.exit(main())
