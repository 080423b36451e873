"""The recipe of one training run: where it starts, what it reads, how the learning rate moves; checked before anything loads."""

import dataclasses
import json
import math
import typing
from dataclasses import asdict, dataclass
from pathlib import Path

from qatoolkit.yaml_file import read_mapping, typed

SCHEDULES = ("constant", "linear", "cosine", "wsd")
_PLACES = ("out", "qa", "general", "tokenizer", "start")  # where things lie, which a resumed run may change
_MANNERS = (  # how a run is carried out and what it keeps, which may change too
    "name", "keep", "save_every", "keep_states", "keep_optimizer", "micro_batch", "checkpointing", "compile", "fused_loss",
    "attention", "threads",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run; `run.yaml` holds the same fields.

    Begins: `start` is a Hugging Face directory or name whose weights the run begins with, `size` a rung of `ladder.SIZES` with
    random weights; one of the two. Neither resumes a run: that happens by itself where `out` holds an interrupted one.
    `tokenizer` is by default that of `start`.

    Reads: `qa` and `general` are token files (`tokens.write_tokens`); `tokens` in all, of which the share `replay` is general
    text; `block` tokens a sequence, `batch` sequences a step over all devices, `micro_batch` at once on one device (default: as
    many as come to it). `loss_on` "answer" takes no loss on prompts.

    Learns: `learning_rate` is the peak; `rate` "rewarm" climbs to it from 0 over the share `warmup` of the steps, "inherit"
    goes on with the moments and at the rate of `start`, which an own trunk stored. `schedule`: then constant, linear or cosine
    to zero, or wsd: constant until the last share `decay`, then linear to zero. AdamW with `betas`, `weight_decay` on matrices
    only (not on norms and embeddings), gradients clipped to the norm `clip`, `z_loss` times the mean square of log Z.

    Keeps: checkpoints at the shares `keep` of the steps (`out/at-<share>`), the state to resume from every `save_every` steps
    (0: never) and the last `keep_states` of them, and with `keep_optimizer` the moments, for a later "inherit".

    Runs: `memory` "standard" (float32 weights; bfloat16 products on a GPU) or "low" (all bfloat16); `checkpointing` reads the
    layers again in the backward pass instead of keeping their insides; `compile` compiles the layers; `fused_loss` never
    holds all logits at once; `attention` "packed" works within documents alone (`attention`), other names are transformers';
    `threads` of a CPU, one by default so that results do not depend on the machine.
    A fused loss or packed attention that would change the loss of the first block is left off, and says so."""

    name: str
    out: str
    start: str | None = None
    size: str | None = None
    tokenizer: str | None = None
    qa: str | None = None
    general: str | None = None
    tokens: int
    replay: float = 0.35
    block: int = 1024
    batch: int = 16
    micro_batch: int | None = None
    loss_on: str = "all"
    learning_rate: float = 3e-4
    rate: str = "rewarm"
    schedule: str = "linear"
    warmup: float = 0.02
    decay: float = 0.2
    betas: tuple[float, ...] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    z_loss: float = 0.0
    seed: int = 0
    keep: tuple[float, ...] = ()
    save_every: int = 0
    keep_states: int = 2
    keep_optimizer: bool = False
    memory: str = "standard"
    checkpointing: bool = False
    compile: bool = False
    fused_loss: bool = True
    attention: str = "packed"
    threads: int = 1

    def __post_init__(self):
        def require(ok: bool, field: str, allowed: str) -> None:
            if not ok:
                raise ValueError(
                    f"job {self.name!r}: {field} is {getattr(self, field)!r}; it must be {allowed}"
                )

        if bool(self.start) == bool(self.size):
            raise ValueError(
                f"job {self.name!r}: give either start, a checkpoint, or size, a rung to train from scratch; found "
                f"{self.start!r} and {self.size!r}"
            )
        if self.size and not self.tokenizer:
            raise ValueError(f"job {self.name!r}: a model trained from scratch needs a tokenizer")
        for field in ("tokens", "batch", "learning_rate", "clip", "keep_states", "threads"):
            require(getattr(self, field) > 0, field, "above 0")
        require(self.block >= 2, "block", "2 or more")
        require(self.micro_batch is None or self.micro_batch > 0, "micro_batch", "above 0, or null")
        for field in ("replay", "warmup", "decay"):
            require(0 <= getattr(self, field) <= 1, field, "between 0 and 1")
        for field in ("weight_decay", "z_loss", "save_every", "seed"):
            require(getattr(self, field) >= 0, field, "0 or more")
        require(
            len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas),
            "betas",
            "two numbers from 0 to below 1",
        )
        require(all(0 < share <= 1 for share in self.keep), "keep", "shares above 0, at most 1")
        require(self.schedule in SCHEDULES, "schedule", f"one of {', '.join(SCHEDULES)}")
        if self.schedule == "wsd":
            require(self.warmup + self.decay <= 1, "decay", f"at most 1 - warmup ({self.warmup:g})")
        require(self.rate in ("rewarm", "inherit"), "rate", "rewarm or inherit")
        require(
            not (self.rate == "inherit" and self.size),
            "rate",
            "rewarm where there is no start to inherit from",
        )
        require(self.loss_on in ("all", "answer"), "loss_on", "all or answer")
        require(self.memory in ("standard", "low"), "memory", "standard or low")
        require(self.qa or self.replay == 1, "replay", "1 where there is no qa")
        require(self.general or self.replay == 0, "replay", "0 where there is no general text")


def read_job(path: str | Path) -> Job:
    """A job from a YAML file; `qa`, `general`, `tokenizer` and `out` are relative to the file, as is `start` where it is a
    folder there. Raises ValueError for anything but the fields of `Job`, naming the file and the field."""
    path = Path(path)
    content = read_mapping(path, "the fields of a job (name, start, qa, tokens, ...)")
    for field in _PLACES:
        if isinstance(content.get(field), str):
            here = path.resolve().parent / content[field]
            content[field] = str(here) if field != "start" or here.is_dir() else content[field]
    return job_of({"name": path.stem} | content, str(path))


def job_of(fields: dict, where: str = "job") -> Job:
    """A job from plain fields; ValueError names a field that is unknown, missing or of the wrong type."""
    hints = typing.get_type_hints(Job)
    needed = [f.name for f in dataclasses.fields(Job) if f.default is dataclasses.MISSING]
    if unknown := sorted(set(fields) - set(hints)):
        raise ValueError(f"{where}: no field is called {', '.join(unknown)}; there are {', '.join(hints)}")
    if missing := [name for name in needed if name not in fields]:
        raise ValueError(f"{where}: {', '.join(missing)} must be given")
    return Job(**{name: typed(f"{where}: {name}", value, hints[name]) for name, value in fields.items()})


def identity(job: Job, **digests) -> dict:
    """What a resumed run must share with the interrupted one: every setting that changes what is learnt, and the digests of what
    lies at the places it names. How a step is computed may change; then the result is the same but for rounding."""
    settings = {k: v for k, v in asdict(job).items() if k not in _PLACES + _MANNERS}
    return json.loads(json.dumps(settings | digests))


def learning_rate(step: int, steps: int, job: Job, inherited: float | None = None) -> float:
    """The rate of a step, counted from 0, of `steps`; `inherited` is the rate at which the start's own training ended."""
    peak, warm = (job.learning_rate, round(job.warmup * steps)) if inherited is None else (inherited, 0)
    if step < warm:
        return peak * (step + 1) / warm
    left = (steps - step) / max(1, steps - warm)  # from 1 to just above 0
    if job.schedule == "linear":
        return peak * left
    if job.schedule == "cosine":
        return peak * 0.5 * (1 - math.cos(math.pi * left))
    if job.schedule == "wsd":
        return peak * min(1.0, (steps - step) / max(1, round(job.decay * steps)))
    return peak
