"""Estimates the needs of a training run before it starts: FLOPs, hours, memory by part, disk.

Bytes per parameter, by the setting `memory` and the dtype of the matrix products:

    standard, fp32   weights 4, gradients 4, AdamW's two moments 8                                   16   (a CPU)
    standard, bf16   the same, and bfloat16 copies of the matrices that autocast keeps, 2            18   (a GPU)
    low, bf16        weights 2, gradients 2, moments 4, all bfloat16 (`training.bf16_adamw`)          8   (large models)

So Llama-3-8B (8.03e9 parameters) needs 64.2 GB in low memory before activations, and fits an 80 GB card with rows of
4096 tokens, checkpointing and the fused loss. On several devices weights, gradients and moments are fully sharded
(FSDP2). With several micro-batches, low memory accumulates gradients in bfloat16 and loses some of their precision.
Activations are estimated (`training.flops`); a reserve is left for the driver and fragmentation.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from qatoolkit.training.flops import UNSHARDED, Architecture, architecture
from qatoolkit.training.settings import StepSettings

RESERVE = 0.05  # share of a device's memory that is left free
UTILISATION = 0.4  # share of the measured matrix-product rate, assumed if no rate is given


class DoesNotFit(ValueError):
    """A run needs more memory than its devices have; the message gives both figures and what to change."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Needs:
    """The needs of a run. `memory`: bytes on each device, by part; `device_bytes`: memory of a device, None if unknown.
    `flops`: model FLOPs of the whole run, as in MFU; `hardware_flops` adds what checkpointing recomputes. `rate`: model
    FLOPs per second and device, assumed or given."""

    manner: StepSettings
    model: Architecture
    tokens: int
    devices: int
    dtype: str
    flops: float
    hardware_flops: float
    memory: dict[str, int]
    device_bytes: int | None
    rate: float
    rate_assumed: bool

    @property
    def total_bytes(self) -> int:
        """Total bytes per device."""
        return sum(self.memory.values())

    @property
    def hours(self) -> float:
        return self.flops / (self.rate * self.devices) / 3600

    @property
    def fits(self) -> bool:
        return self.device_bytes is None or self.total_bytes <= self.device_bytes * (1 - RESERVE)

    def _settings(self) -> str:
        manner = self.manner
        return (
            f"memory {manner.memory}, {self.dtype}, {rows_at_once(manner, self.devices)} row(s) of {manner.block} "
            f"tokens, {'checkpointing' if manner.checkpointing else 'no checkpointing'}, "
            f"{'fused loss' if manner.fused_loss else 'whole logits'}"
        )

    def describe(self) -> str:
        """A short table for a terminal or a notebook."""
        recomputed = f", {self.hardware_flops:.3g} with recomputation" * self.manner.checkpointing
        lines = [
            f"{self.model.parameters:,} parameters, {self.tokens:,} tokens: {self.flops:.3g} FLOPs{recomputed}",
            f"on each of {self.devices} device{'s' * (self.devices > 1)}: {self._settings()}",
        ]
        lines += [
            f"  {part:<12} {size_text(count):>11}" for part, count in {**self.memory, "total": self.total_bytes}.items()
        ]
        if self.device_bytes is not None:
            verdict = "fits" if self.fits else "does not fit"
            lines.append(
                f"  {'available':<12} {size_text(self.device_bytes):>11}, {RESERVE:.0%} of it reserved: {verdict}"
            )
        source = f" (assumed: {UTILISATION:.0%} of the matrix products measured here)" * self.rate_assumed
        lines.append(f"{_time(self.hours)} at {self.rate / 1e12:,.3g} TFLOP/s per device{source}")
        if self.model.not_covered:
            lines.append(f"not in the FLOPs: {', '.join(self.model.not_covered)}")
        return "\n".join(lines)

    __repr__ = describe

    def require_fit(self) -> None:
        """DoesNotFit if the run needs more than a device has."""
        if self.fits:
            return
        manner = self.manner
        remedies = {
            "fused_loss: true": not manner.fused_loss,
            "checkpointing: true": not manner.checkpointing,
            "a smaller micro_batch": rows_at_once(manner, self.devices) > 1,
            "memory: low": manner.memory == "standard" and self.dtype == "bf16",
            "more devices": True,
            "a shorter block or a smaller model": True,
        }
        parts = ", ".join(f"{part} {size_text(count)}" for part, count in self.memory.items())
        raise DoesNotFit(
            f"training {self.model.parameters:,} parameters with {self._settings()} on {self.devices} device(s) needs "
            f"{size_text(self.total_bytes)} on each ({parts}); a device has {size_text(self.device_bytes)}, of which "
            f"{RESERVE:.0%} stay free. Try {', or '.join([remedy for remedy, helps in remedies.items() if helps][:3])}"
        )


def estimate_needs(
    config,
    manner: StepSettings,
    *,
    tokens: int,
    context: float,
    gpu: bool,
    devices: int = 1,
    flops_per_second: float | None = None,
    device_bytes: int | None = None,
) -> Needs:
    """Estimate the needs of training the causal model of a transformers `config` on `tokens`; loads and trains nothing.

    `context`: earlier tokens that a token attends to on average. `flops_per_second`: model FLOPs per second of a
    device, from an earlier run; None assumes `UTILISATION` of a quick matrix product on this machine. `device_bytes`:
    None reads this machine's. ValueError for a configuration without a causal model."""
    model = architecture(config)
    flops = tokens * model.flops_per_token(context)
    recomputed = tokens * model.layer_flops(context) if manner.checkpointing else 0.0
    # part of the device's time goes into recomputation
    assumed = UTILISATION * matmul_rate() * flops / (flops + recomputed) if flops_per_second is None else None
    return Needs(
        manner=manner,
        model=model,
        tokens=tokens,
        devices=devices,
        dtype="bf16" if gpu or manner.memory == "low" else "fp32",
        flops=flops,
        hardware_flops=flops + recomputed,
        memory=memory_by_part(model, manner, gpu=gpu, devices=devices),
        device_bytes=device_memory() if device_bytes is None else device_bytes,
        rate=assumed or flops_per_second,
        rate_assumed=assumed is not None,
    )


def rows_at_once(manner: StepSettings, devices: int) -> int:
    """Packed rows that one device computes at once."""
    return min(manner.micro_batch or manner.batch, -(-manner.batch // devices))


def memory_by_part(model: Architecture, manner: StepSettings, *, gpu: bool, devices: int = 1) -> dict[str, int]:
    """Bytes on each device, by part. `copies`: autocast's bfloat16 matrices, layers gathered from other devices, and
    the optimizer's scratch memory."""
    from qatoolkit.training.bf16_adamw import CHUNK, SCRATCH
    from qatoolkit.training.losses import chunk_of

    low = manner.memory == "low"
    bf16 = gpu or low
    parameter_bytes, compute_bytes = (2 if low else 4), (2 if bf16 else 4)
    shard = -(-model.parameters // devices)
    rows = rows_at_once(manner, devices) * manner.block
    copies = 2 * model.matrices * (bf16 and not low)
    if devices > 1:
        copies = UNSHARDED * model.unit * compute_bytes
    if low:
        copies += SCRATCH * min(CHUNK, model.parameters)
    arithmetic = "fp32" if not bf16 else "bf16" if low else "autocast"
    logits, gradient = rows, 0
    if manner.fused_loss:  # accumulates the output matrix's gradient separately, in float32
        logits, gradient = min(rows, chunk_of(model.vocabulary, on_cpu=not gpu)), 4 * model.head_weights
    # bf16: logits and their gradient in bfloat16, logits and log-probabilities in float32; fp32: three arrays
    return {
        "weights": shard * parameter_bytes,
        "gradients": shard * parameter_bytes,
        "optimizer": shard * parameter_bytes * 2,
        "copies": round(copies),
        "activations": round(model.activations(rows, manner.block, arithmetic, manner.checkpointing)),
        "logits": logits * model.vocabulary * (10 if bf16 else 12) + gradient,
    }


def device_memory() -> int | None:
    """Memory of one device in bytes: all of the first GPU, else the available main memory; None if unknown."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    limits = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits.append(int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024)
    except (OSError, StopIteration):  # not Linux
        if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():  # a container's own limit
        limits.append(int(text))
    return min(limits, default=None)


def matmul_rate() -> float:
    """FLOPs per second of a square matrix product on this device (bfloat16 on a GPU, float32 on a CPU): the best of
    three; takes about 50 ms."""
    import torch

    cuda = torch.cuda.is_available()
    side, repeats = (8192, 10) if cuda else (512, 2)
    options = {"dtype": torch.bfloat16, "device": "cuda"} if cuda else {"dtype": torch.float32}
    a, b = (torch.ones(side, side, **options) for _ in range(2))  # random numbers would advance the run's generator
    best = float("inf")
    for _ in range(4):  # the first is a warm-up
        if cuda:
            torch.cuda.synchronize()
        start = perf_counter()
        for _ in range(repeats):
            a @ b
        if cuda:
            torch.cuda.synchronize()
        best = min(best, (perf_counter() - start) / repeats)
    return 2 * side**3 / best


def disk_needed(job, parameters: int) -> int:
    """Bytes that a job writes: its checkpoints, with both moments if `keep_optimizer`, and weights and moments for each
    state. One extra state is counted, since a new one is complete before the oldest is removed."""
    parameter_bytes = 4 if job.memory == "standard" else 2
    branches = job.schedule == "wsd" and any(share < 1 for share in job.keep)
    states = job.keep_states + 1 if job.save_every or job.save_minutes or branches else 0
    return parameters * parameter_bytes * ((len(job.keep) + 1) * (3 if job.keep_optimizer else 1) + 3 * states)


def missing_on_disk(job, parameters: int) -> tuple[int, int]:
    """(bytes that `job.out`, which need not exist yet, still needs, how many of them do not fit on the disk)."""
    folder = Path(job.out).absolute()
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = max(0, disk_needed(job, parameters) - written)
    free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    return needed, max(0, needed - free)


def check_disk(job, parameters: int) -> None:
    """OSError if the disk of `job.out`, which need not exist yet, has too little space."""
    needed, missing = missing_on_disk(job, parameters)
    if missing:
        raise OSError(
            f"{Path(job.out).absolute()} needs {size_text(needed)} for checkpoints and {size_text(needed - missing)} "
            f"are free, {size_text(missing)} too little: keep fewer checkpoints, free space, or choose a folder on a "
            "larger disk"
        )


def _time(hours: float) -> str:
    """A duration in hours, minutes or seconds."""
    for unit, size in (("hours", 1), ("minutes", 60)):
        if hours * size >= 2:
            return f"{hours * size:,.1f} {unit}"
    return f"{hours * 3600:,.1f} seconds"


def size_text(count: float) -> str:
    """A number of bytes in GB, or in MB below 10 MB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"
