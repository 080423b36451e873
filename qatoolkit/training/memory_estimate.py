"""What mid-training a causal language model will take, before anything is spent: FLOPs, hours, memory by part, disk.

Bytes a parameter, by `memory` and `compute_dtype`:

    standard, fp32   weights 4, gradients 4, AdamW's two moments 8                                   16   (a CPU)
    standard, bf16   the same, and bfloat16 copies of the matrices that autocast keeps, 2            18   (a GPU)
    low, bf16        weights 2, gradients 2, moments 4, all bfloat16 (qatoolkit/low_memory.py)        8   (a GPU, large model)

So Llama-3-8B (8.03e9 parameters) takes 64.2 GB in low memory before activations, and fits an 80 GB card with rows of 4096
tokens, checkpointing and a fused loss. On several devices weights, gradients and moments are sharded in full (FSDP2).
Gradients accumulated over several micro-batches are summed in bfloat16 in low memory, which costs some of their precision.
Activations are estimated (qatoolkit/model_costs.py); a reserve is left for the driver and fragmentation.
"""

import html
import os
import shutil
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from time import perf_counter

from qatoolkit.training.flops import UNSHARDED, Architecture, architecture

RESERVE = 0.05  # share of a device that is left free
UTILISATION = 0.4  # of the measured matrix-product rate; assumed where no rate is given
MOST_DEVICES = 1024
MEMORIES = ("standard", "low")
DTYPES = ("bf16", "fp32")


class DoesNotFit(ValueError):
    """A run needs more memory than its devices have; the message names what is needed, what there is, and a remedy."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on each device. `copies`: autocast's bfloat16 matrices, layers gathered from other devices, and what the
    optimizer computes in for a moment."""

    weights: int
    gradients: int
    optimizer: int
    copies: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return sum(getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a run is carried out: tokens in a packed row (`block`), rows at a time on a device (`micro_batch`), devices, memory
    mode, activation checkpointing, fused loss, and the dtype it computes in. ValueError names a value out of range."""

    block: int
    micro_batch: int
    devices: int = 1
    memory: str = "standard"
    checkpointing: bool = False
    fused_loss: bool = False
    compute_dtype: str = "bf16"

    def __post_init__(self):
        for name in ("block", "micro_batch", "devices"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name, allowed in (("memory", MEMORIES), ("compute_dtype", DTYPES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")
        if self.memory == "low" and self.compute_dtype != "bf16":
            raise ValueError("memory='low' keeps weights in bfloat16, so compute_dtype must be 'bf16', not 'fp32'")


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a run takes. `flops`: of the model, for the whole run, as MFU is defined; `hardware_flops` adds the layers that
    checkpointing computes again. `rate`: model FLOPs per second and device, None where unknown, and then `hours` too.
    `device_bytes`: what one device has, None where unknown. `not_covered`: what the FLOPs leave out."""

    settings: Settings
    model: Architecture
    tokens: int
    context: float
    flops: float
    hardware_flops: float
    memory: Memory
    device_bytes: int | None
    rate: float | None
    rate_assumed: bool

    @property
    def parameters(self) -> int:
        return self.model.parameters

    @property
    def not_covered(self) -> tuple[str, ...]:
        return self.model.not_covered

    @property
    def total_bytes(self) -> int:
        """Per device."""
        return self.memory.total

    @property
    def hours(self) -> float | None:
        return None if self.rate is None else self.flops / (self.rate * self.settings.devices) / 3600

    @property
    def fits(self) -> bool:
        return _fits(self.memory, self.device_bytes)

    def describe(self) -> str:
        """A short table for a terminal or a notebook."""
        s = self.settings
        lines = [
            f"{self.parameters:,} parameters, {self.tokens:,} tokens: {self.flops:.3g} FLOPs"
            + (f", {self.hardware_flops:.3g} with recomputation" if s.checkpointing else ""),
            f"on each of {s.devices} device{'s' * (s.devices > 1)}: {_how(s)}",
        ]
        lines += [f"  {f.name:<12} {_gb(getattr(self.memory, f.name))}" for f in fields(self.memory)]
        lines.append(f"  {'total':<12} {_gb(self.total_bytes)}")
        if self.device_bytes is not None:
            verdict = "fits" if self.fits else "does not fit"
            lines.append(f"  {'there are':<12} {_gb(self.device_bytes)}, {RESERVE:.0%} of it reserved: {verdict}")
        if self.hours is None:
            lines.append("hours unknown: no rate is given")
        else:
            source = f" (assumed: {UTILISATION:.0%} of the matrix products measured here)"
            lines.append(
                f"{_time(self.hours)} at {self.rate / 1e12:,.3g} TFLOP/s a device" + source * self.rate_assumed
            )
        if self.not_covered:
            lines.append(f"not in the FLOPs: {', '.join(self.not_covered)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f'<pre style="font-family: monospace">{html.escape(self.describe())}</pre>'

    def refuse(self) -> None:
        """DoesNotFit where the run needs more than a device has; the remedy named is the first that fits. See `remedy`."""
        if self.fits:
            return
        found = self.remedy()
        if found is None:
            way = f"nothing up to {MOST_DEVICES} devices helps: a smaller model or shorter rows (block) are needed"
        else:
            changed = [
                f"{f.name}={getattr(found, f.name)!r}"
                for f in fields(found)
                if getattr(found, f.name) != getattr(self.settings, f.name)
            ]
            less = self.settings.micro_batch * self.settings.devices / (found.micro_batch * found.devices)
            needed = memory_of(self.model, found).total
            way = f"this fits, with {_gb(needed).strip()}: {', '.join(changed)}"
            if less > 1:
                way += f" (and {less:g} times the gradient accumulation, for the same batch)"
        parts = ", ".join(f"{f.name} {_gb(getattr(self.memory, f.name)).strip()}" for f in fields(self.memory))
        raise DoesNotFit(
            f"training {self.parameters:,} parameters with {_how(self.settings)} on {self.settings.devices} device(s) "
            f"needs {_gb(self.total_bytes).strip()} on each ({parts}); a device has "
            f"{_gb(self.device_bytes).strip()}, of which {RESERVE:.0%} stay free; {way}"
        )

    def remedy(self) -> Settings | None:
        """The first settings that fit, or None. Tried in this order, what comes first changing fastest: fused loss, activation
        checkpointing, smaller micro-batches (halved), low memory (for bf16), more devices (doubled)."""
        s = self.settings
        kinds = (s.memory, "low") if (s.memory, s.compute_dtype) == ("standard", "bf16") else (s.memory,)
        ways = product(
            _doubled(s.devices, MOST_DEVICES),
            kinds,
            _halved(s.micro_batch),
            dict.fromkeys((s.checkpointing, True)),
            dict.fromkeys((s.fused_loss, True)),
        )
        names = ("devices", "memory", "micro_batch", "checkpointing", "fused_loss")
        tried = (replace(s, **dict(zip(names, way, strict=True))) for way in ways)
        return next((t for t in tried if _fits(memory_of(self.model, t), self.device_bytes)), None)


def preflight(
    config,
    *,
    tokens: int,
    block: int,
    micro_batch: int,
    context: float,
    devices: int = 1,
    memory: str = "standard",
    checkpointing: bool = False,
    fused_loss: bool = False,
    compute_dtype: str = "bf16",
    flops_per_second: float | str | None = None,
    device_bytes: int | None = None,
) -> Needs:
    """What training the causal model of a transformers `config` on `tokens` takes; nothing is loaded or trained.

    `context`: earlier tokens a token attends to on average (the mean position id of packed documents). `flops_per_second`:
    model FLOPs a device sustains, from an earlier run; "measure" takes `UTILISATION` of a quick matrix product here, None
    leaves the hours unknown. `device_bytes`: None looks at this machine. The rest are the fields of `Settings`.
    ValueError for a value out of range or a configuration without a causal model."""
    chosen = Settings(
        block=block,
        micro_batch=micro_batch,
        devices=devices,
        memory=memory,
        checkpointing=checkpointing,
        fused_loss=fused_loss,
        compute_dtype=compute_dtype,
    )
    if tokens < 0 or context < 0:
        raise ValueError(f"tokens is {tokens} and context {context}; both must be 0 or more")
    if isinstance(flops_per_second, str) and flops_per_second != "measure":
        raise ValueError(f"flops_per_second is {flops_per_second!r}; give a number, 'measure' or None")
    if not isinstance(flops_per_second, str | None) and flops_per_second <= 0:
        raise ValueError(f"flops_per_second is {flops_per_second}; it must be above 0")
    model = architecture(config)
    flops = tokens * model.flops_per_token(context)
    again = tokens * model.layer_flops(context) if chosen.checkpointing else 0.0
    assumed = flops_per_second == "measure"
    if assumed:  # what is computed again takes its share of the device's time
        useful = flops / (flops + again) if flops else 1.0
        flops_per_second = UTILISATION * matmul_rate(chosen.compute_dtype) * useful
    return Needs(
        settings=chosen,
        model=model,
        tokens=tokens,
        context=context,
        flops=flops,
        hardware_flops=flops + again,
        memory=memory_of(model, chosen),
        device_bytes=device_memory() if device_bytes is None else device_bytes,
        rate=flops_per_second,
        rate_assumed=assumed,
    )


def memory_of(model: Architecture, settings: Settings) -> Memory:
    """Bytes on each device for these settings; see the top of the module."""
    from qatoolkit.training.losses import chunk_of

    low, bf16 = settings.memory == "low", settings.compute_dtype == "bf16"
    each, element = (2 if low else 4), (2 if bf16 else 4)
    shard = -(-model.parameters // settings.devices)
    rows = settings.micro_batch * settings.block
    copies = 0.0
    if settings.devices > 1:
        copies = UNSHARDED * model.unit * element
    elif bf16 and not low:
        copies = 2 * model.matrices
    if low:
        from qatoolkit.training.bf16_adamw import CHUNK, SCRATCH

        copies += SCRATCH * min(CHUNK, model.parameters)
    arithmetic = "fp32" if not bf16 else "bf16" if low else "autocast"
    held, gradient = rows, 0
    if settings.fused_loss:  # which also sums the output matrix's gradient in float32 on its own
        held, gradient = min(rows, chunk_of(model.vocabulary, on_cpu=not bf16)), 4 * model.head_weights
    # Logits and gradient in the compute dtype, logits and log-probabilities in float32; in float32 three of them.
    return Memory(
        weights=shard * each,
        gradients=shard * each,
        optimizer=shard * each * 2,
        copies=round(copies),
        activations=round(model.activations(rows, settings.block, arithmetic, settings.checkpointing)),
        logits=held * model.vocabulary * (10 if bf16 else 12) + gradient,
    )


def device_memory() -> int | None:
    """Bytes one device here has: of the first GPU in all, else of main memory what is available; None where unknown."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    found = []
    try:
        available = next(
            line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable")
        )
        found.append(int(available.split()[1]) * 1024)
    except (OSError, StopIteration):  # not Linux
        names = getattr(os, "sysconf_names", {})
        if "SC_PHYS_PAGES" in names:
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():  # a container's own limit
        found.append(int(text))
    return min(found, default=None)


def matmul_rate(compute_dtype: str = "bf16") -> float:
    """FLOPs per second of a square matrix product on this device, the best of three; some 50 ms."""
    import torch

    cuda = torch.cuda.is_available()
    side, repeats = (8192, 10) if cuda else (512, 2)
    dtype = torch.bfloat16 if compute_dtype == "bf16" else torch.float32
    # ones: random numbers would move the generator of the run that is measured for
    a, b = (torch.ones(side, side, dtype=dtype, device="cuda" if cuda else "cpu") for _ in range(2))
    best = float("inf")
    for _ in range(4):  # the first warms up
        if cuda:
            torch.cuda.synchronize()
        start = perf_counter()
        for _ in range(repeats):
            a @ b
        if cuda:
            torch.cuda.synchronize()
        best = min(best, (perf_counter() - start) / repeats)
    return 2 * side**3 / best


def disk_needed(
    parameters: int, *, states: int, exports: int = 1, moments: bool = False, memory: str = "standard"
) -> int:
    """Bytes on disk of a run: `exports` finished directories, each with the optimizer's moments if `moments`, and `states` to
    resume from, weights and both moments each.

    One state more is counted, since a new one is complete before the oldest goes."""
    if memory not in MEMORIES or states < 0 or exports < 1:
        raise ValueError(
            f"memory is {memory!r} (one of {', '.join(MEMORIES)}), states {states} (0 or more), exports {exports} (1 or more)"
        )
    each = 4 if memory == "standard" else 2
    return parameters * each * (exports * (3 if moments else 1) + 3 * (states + 1 if states else 0))


def check_disk(folder: str | Path, needed: int) -> None:
    """OSError where the disk of `folder`, which need not exist yet, has less free than `needed` bytes."""
    folder = Path(folder).absolute()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(
            f"{folder} needs {_gb(needed).strip()} for checkpoints and {_gb(free).strip()} are free: keep fewer "
            "checkpoints, free space, or choose a folder on a larger disk"
        )


def _fits(needed: Memory, device_bytes: int | None) -> bool:
    return device_bytes is None or needed.total <= device_bytes * (1 - RESERVE)


def _doubled(first: int, last: int) -> list[int]:
    found = [first]
    while found[-1] * 2 <= last:
        found.append(found[-1] * 2)
    return found


def _halved(first: int) -> list[int]:
    found = [first]
    while found[-1] > 1:
        found.append(found[-1] // 2)
    return found


def _how(s: Settings) -> str:
    """The settings in words."""
    return (
        f"memory {s.memory}, {s.compute_dtype}, {s.micro_batch} row(s) of {s.block} tokens, "
        f"{'checkpointing' if s.checkpointing else 'no checkpointing'}, "
        f"{'fused loss' if s.fused_loss else 'whole logits'}"
    )


def _time(hours: float) -> str:
    """Hours, or minutes or seconds where that reads better."""
    for unit, size in (("hours", 1), ("minutes", 60)):
        if hours * size >= 2:
            return f"{hours * size:,.1f} {unit}"
    return f"{hours * 3600:,.1f} seconds"


def _gb(count: float) -> str:
    return f"{count / 1e9:8.2f} GB" if count >= 1e7 else f"{count / 1e6:8.2f} MB"
