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
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from qatoolkit import ladder
from qatoolkit.files import TIMING, remove
from qatoolkit.mixture import Mixture, mix
from qatoolkit.packing import pack
from qatoolkit.preflight import Needs, check_disk, disk_needed, matmul_rate, preflight
from qatoolkit.recipe import Job, identity, learning_rate, read_job
from qatoolkit.tokens import open_tokens, tokenizer_digest
from qatoolkit.trackers import tracker

TOLD = 5.0  # seconds between two lines of progress


class TrainingFailed(RuntimeError):
    """A job that can't go on; the message says where it stopped, why, and what to change."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those that train together: its `rank`, how many there are, and its device."""

    rank: int
    count: int
    device: str

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def total(self, value: float) -> float:
        """The sum of a number over all processes."""
        if self.count == 1:
            return value
        import torch

        found = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(found)
        return found.item()


def processes() -> Processes:
    """Join the processes that `accelerate launch` or `torchrun` started; a single process needs neither."""
    import torch

    count, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    device = "cpu"
    if torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)  # so that results do not depend on the machine's number of cores
    if count > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device != "cpu" else "gloo")
    return Processes(rank=rank, count=count, device=device)


def train(
    job: Job, *, hook: Callable[[dict], None] | None = None, log: Callable[[str], None] = print
) -> dict:
    """Run a job to its end, or go on with it, and return its manifest: tokens, FLOPs, parameters, mixture, final loss.

    `hook` gets every step's metrics as they come: `wandb.log`, say. `log` gets lines of progress. Raises TrainingFailed when
    the loss stops being a number, ValueError for what does not fit together, OSError for a checkpoint or disk that won't do."""
    import torch
    from transformers.utils import logging

    from qatoolkit import checkpoints
    from qatoolkit.losses import shortcuts_that_fit

    logging.disable_progress_bar()
    ours = processes()
    log = log if ours.leads else (lambda _: None)
    torch.manual_seed(job.seed)
    tokenizer = _tokenizer(job)
    data = mixture_of(job)
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
    for shortcut, fits in shortcuts_that_fit(scored, _on(first, ours.device)).items():
        if ours.total(not fits):
            log(f"{job.name}: {shortcut.replace('_', ' ')} would change this model's loss, so it is off")
            setattr(scored, shortcut, False)
    if ours.count > 1:
        scored.reshard()  # a forward pass without a backward one leaves the root's weights whole

    steps = math.ceil(len(data) / job.batch)
    inherited = _inherit(job, model, optimizer) if job.rate == "inherit" else None
    same = identity(
        job,
        tokenizer=tokenizer_digest(tokenizer),
        data=[s.source.about["digest"] for s in data.sources],
        start=_start_digest(job),
    )
    done, seen = checkpoints.load_state(job, model, optimizer, same)
    if done:
        log(f"{job.name}: goes on after step {done:,} of {steps:,}")
    marks = {max(1, round(share * steps)): share for share in job.keep}
    kind = _stored_dtype(job, config)
    about = _about(job, needs, data, steps)
    answers_only = job.loss_on == "answer"
    tokens, predicted = data.tokens, data.predicted(answers_only)
    out = Path(job.out)
    told = Telling(job, steps, about["flops_per_token"], ours, log)
    value = None
    with _Metrics(out, done, ours.leads) as metrics:
        for step in range(done, steps):
            places = np.arange(step * job.batch, min((step + 1) * job.batch, len(data)))
            rate = learning_rate(step, steps, job, inherited)
            for group in optimizer.param_groups:
                group["lr"] = rate
            scale = ours.count / max(
                1, int(predicted[places].sum())
            )  # sharding averages gradients over the processes
            summed = 0.0
            for part in _shares(places, job.micro_batch, ours):
                loss = _forward(scored, data.batch(part, answers_only), ours.device, job)
                (loss * scale).backward()
                summed += loss.item()
            value = ours.total(summed) / max(1, int(predicted[places].sum()))
            if not math.isfinite(value):
                raise TrainingFailed(_not_a_number(job, value, step, checkpoints.states(job.out)))
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), job.clip)
            optimizer.step()
            optimizer.zero_grad()
            seen += int(tokens[places].sum())
            norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
            row = {"step": step, "tokens": seen, "loss": value, "lr": rate, "gradient_norm": float(norm)}
            metrics.add(row)
            if hook and ours.leads:
                hook(row)
            told.step(row, int(tokens[places].sum()))
            if step + 1 in marks:
                folder = out / f"at-{marks[step + 1]:g}"
                manifest = about | {"tokens": seen, "flops": seen * about["flops_per_token"], "loss": value}
                _keep(job, model, optimizer, tokenizer, folder, manifest, kind, rate, ours)
            if job.save_every and (step + 1) % job.save_every == 0 and step + 1 < steps:
                checkpoints.save_state(job, step + 1, seen, model, optimizer, same, leader=ours.leads)
    manifest = about | {"tokens": seen, "flops": seen * about["flops_per_token"], "loss": value}
    _keep(
        job,
        model,
        optimizer,
        tokenizer,
        out,
        manifest,
        kind,
        learning_rate(steps - 1, steps, job, inherited),
        ours,
    )
    if ours.leads:
        remove(out / checkpoints.STATES)
    return manifest


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


def _shares(places: np.ndarray, micro_batch: int | None, ours: Processes) -> list[np.ndarray]:
    """This process's places in micro-batches: as many and as long for every process, filled up with -1 (padding)."""
    own = -(-len(places) // ours.count)
    filled = np.full(own * ours.count, -1, dtype=places.dtype)
    filled[: len(places)] = places
    own_places = filled[ours.rank :: ours.count]
    return np.split(own_places, range(micro_batch, own, micro_batch)) if micro_batch else [own_places]


def _forward(scored, batch, device: str, job: Job):
    """The summed loss of a micro-batch."""
    import torch

    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=device != "cpu" and job.memory == "standard"):
        return scored(*_on(batch, device))


def _on(batch, device: str) -> list:
    """A batch's arrays as tensors on a device, and the places of its documents."""
    import torch

    from qatoolkit.attention import documents_of

    parts = [torch.from_numpy(a) for a in (batch.ids, batch.positions, batch.where, batch.targets)]
    if device != "cpu":
        parts = [part.pin_memory().to(device, non_blocking=True) for part in parts]
    return [*parts, documents_of(batch.positions, device)]


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


def _keep(
    job: Job, model, optimizer, tokenizer, folder: Path, manifest: dict, kind, rate: float, ours: Processes
) -> None:
    """Export the model as it is, with its moments if a later run shall inherit them."""
    from safetensors.torch import save_file

    from qatoolkit import checkpoints

    if job.keep_optimizer:
        moments = checkpoints.optimizer_tensors(model, optimizer)
        if ours.leads:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(
                {name: value.clone() for name, value in moments.items()}, folder / "optimizer.safetensors"
            )
    checkpoints.export(model, tokenizer, folder, manifest | {"lr": rate}, dtype=kind, leader=ours.leads)


class _Metrics:
    """`metrics.jsonl`: one line a step, written as it comes. Lines of steps that a resumed run takes again are cut off."""

    def __init__(self, out: Path, done: int, leads: bool):
        self.path, self.leads = out / "metrics.jsonl", leads
        if leads:
            out.mkdir(parents=True, exist_ok=True)
            old = self.path.read_text().splitlines()[:done] if done else []
            self.path.write_text("".join(f"{line}\n" for line in old))

    def __enter__(self):
        self._file = open(self.path, "a") if self.leads else None
        return self

    def add(self, row: dict) -> None:
        if self._file:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()

    def __exit__(self, *_):
        if self._file:
            self._file.close()


class Telling:
    """Lines of progress every few seconds: loss, tokens a second, MFU, time left; the same figures go to `timing.jsonl`.

    MFU is the model's FLOPs per second over those of a large matrix product on the same device, measured once."""

    def __init__(
        self, job: Job, steps: int, flops_per_token: float, ours: Processes, log: Callable[[str], None]
    ):
        self.job, self.steps, self.per_token, self.ours, self.log = job, steps, flops_per_token, ours, log
        self.since, self.tokens, self.taken, self.ceiling = time.perf_counter(), 0, 0, None

    def step(self, row: dict, tokens: int) -> None:
        """Count a step of `tokens` tokens and tell if it is time."""
        self.tokens, self.taken = self.tokens + tokens, self.taken + 1
        seconds = time.perf_counter() - self.since
        if not self.ours.leads or seconds < TOLD:
            return
        if self.ceiling is None:
            self.ceiling = matmul_rate("fp32" if self.ours.device == "cpu" else "bf16")
        rate, left = self.tokens / seconds, (self.steps - row["step"] - 1) * seconds / self.taken
        mfu = rate * self.per_token / self.ours.count / self.ceiling
        told = {"step": row["step"], "seconds": round(seconds, 3), "tokens_per_second": rate, "mfu": mfu}
        if self.ours.device != "cpu":
            import torch

            told["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        with open(Path(self.job.out) / TIMING, "a") as file:
            file.write(json.dumps(told) + "\n")
        self.log(
            f"{self.job.name}: step {row['step'] + 1:,}/{self.steps:,}, loss {row['loss']:.3f}, {rate:,.0f} tokens/s, "
            f"MFU {mfu:.2f}, {left / 60:,.1f} min left"
        )
        self.since, self.tokens, self.taken = time.perf_counter(), 0, 0


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
