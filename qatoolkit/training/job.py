"""The settings of one training run: start, data, learning-rate schedule; validated before anything loads."""

import json
import math
from pathlib import Path
from typing import ClassVar

import yaml
from pydantic import model_validator

from qatoolkit.core.files import write_text
from qatoolkit.core.settings import NotNegative, Positive, Share, SomeShare, read_mapping
from qatoolkit.training.settings import CourseSettings, SizeName, StepSettings

# A resumed run may differ in these: where its files are ...
_PLACES = ("out", "qa", "general", "probe", "tokenizer", "start")
_OR_NAMES = ("tokenizer", "start")  # may also be names of models on a hub
_FREE = (  # ... how a step is computed, what is kept and what is reported
    "name", "keep", "save_minutes", "save_every", "keep_states", "keep_optimizer", "micro_batch", "checkpointing", "compile",
    "fused_loss", "attention", "threads", "probe_every",
)  # fmt: skip


WHOLE = (0.0, 1.0)


class Job(StepSettings, CourseSettings):
    """One training run; a YAML file for `qatoolkit train` has the same fields.

    It starts either from the checkpoint `start`, or from random weights of the rung `size`. An interrupted run in `out`
    is resumed.

    >>> import qatoolkit as qt
    >>> job = qt.Job(name="zoo", out="models/zoo", start="models/base", qa="tokens/zoo", tokens=50_000, replay=0)
    >>> job.learning_rate, job.schedule
    (0.0003, 'linear')
    >>> qt.Job(name="zoo", out="models/zoo", start="models/base", qa="tokens/zoo", tokens=50_000)
    Traceback (most recent call last):
        ...
    ValueError: job 'zoo': replay is 0.35; it must be 0 where there is no general text
    """

    kind: ClassVar[str] = "job"

    name: str
    """Name used in messages."""
    out: str
    """Folder to write to."""
    start: str | None = None
    """Hugging Face directory or name to start from."""
    size: SizeName | None = None
    """Rung of the ladder to train from scratch."""
    tokenizer: str | None = None
    """Hugging Face directory or name of the tokenizer; null takes that of `start`."""
    qa: str | None = None
    """Token file of QA (`tokens.write_tokens`), or several sets by ratio (`mixtures.write_mixture`)."""
    general: str | None = None
    """Token file of general text."""
    tokens: Positive
    """Training tokens in all; the share `replay` of them is general text."""
    part: tuple[Share, Share] = WHOLE
    """Where this job begins and ends in a longer run, as shares of its steps. The rate follows the schedule of the
    whole run. A part that begins after 0 continues with the moments of its `start`, the part that ends there; a part
    that ends before 1 needs `keep_optimizer`, and stores weights in the training dtype. (0, 0.5) and (0.5, 1) over the
    same blocks in the same order equal one uninterrupted run, bit for bit on a CPU (in standard memory, without
    dropout)."""
    seed: NotNegative = 0
    """Random seed of the order of blocks and of random weights."""
    keep: tuple[SomeShare, ...] = ()
    """Shares of the steps at which a checkpoint is kept, in `out/at-<share>`. Under wsd each is the model of a run that
    ends there: a side branch decays the rate to zero over the last `decay` of its steps, and the trunk continues
    unchanged."""
    keep_optimizer: bool = False
    """Keep the optimizer's moments, for a later `rate: inherit`."""
    probe: str | None = None
    """Parquet QA table with choices, discipline and difficulty that the model answers during training."""
    probe_every: NotNegative = 0
    """Tokens between two probes; the model is also probed at the start and the end. 0 for none."""

    @model_validator(mode="after")
    def _check_consistency(self):
        def require(ok: bool, field: str, allowed: str) -> None:
            if not ok:
                raise ValueError(f"{field} is {getattr(self, field)!r}; it must be {allowed}")

        if bool(self.start) == bool(self.size):
            raise ValueError(
                f"give either start, a checkpoint, or size, a rung to train from scratch; found "
                f"{self.start!r} and {self.size!r}"
            )
        if self.size and not self.tokenizer:
            raise ValueError("a model trained from scratch needs a tokenizer")
        if self.schedule == "wsd":
            require(self.warmup + self.decay <= 1, "decay", f"at most 1 - warmup ({self.warmup:g})")
        require(self.part[0] < self.part[1], "part", "two shares, the second above the first")
        require(self.part[1] == 1 or self.keep_optimizer, "keep_optimizer", "true in a part that another follows")
        if self.part[0]:
            require(not self.size, "part", "a share from 0 where there is no start to continue from")
            require(self.rate != "inherit", "rate", "rewarm in a later part, whose peak is learning_rate")
        if self.schedule == "wsd" and self.part != WHOLE:
            require(not self.keep, "keep", "empty in a part of a run under wsd")
        inherits = self.rate == "inherit" and self.size
        require(not inherits, "rate", "rewarm where there is no start to inherit from")
        require(self.qa or self.replay == 1, "replay", "1 where there is no qa")
        require(self.general or self.replay == 0, "replay", "0 where there is no general text")
        require(self.probe or not self.probe_every, "probe_every", "0 where there is no probe")
        return self


def read_job(path: str | Path) -> Job:
    """Read a job from a YAML file. `qa`, `general`, `probe` and `out` are relative to the file, and so are `start` and
    `tokenizer` if they exist there. ValueError naming file and field for anything but the fields of `Job`."""
    path = Path(path)
    content = read_mapping(path, "the fields of a job (name, start, qa, tokens, ...)")
    for field in _PLACES:
        if isinstance(content.get(field), str):
            beside = path.resolve().parent / content[field]
            content[field] = str(beside) if field not in _OR_NAMES or beside.exists() else content[field]
    return job_of({"name": path.stem} | content, str(path))


def write_job(job: Job, path: Path) -> None:
    """Write a job as a YAML file for `read_job`, with absolute paths."""
    content = job.model_dump(mode="json", exclude_none=True)
    for field in content.keys() & set(_PLACES):
        if field not in _OR_NAMES or Path(content[field]).is_dir():
            content[field] = str(Path(content[field]).absolute())
    write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), path)


def job_of(fields: dict, where: str = "job") -> Job:
    """A job from plain fields; ValueError names a field that is unknown, missing or of the wrong type."""
    try:
        return Job(**fields)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def identity(job: Job, **digests) -> dict:
    """What a resumed run must have in common with the interrupted one: every setting that changes what is learned, and
    the digests of its inputs. How a step is computed may change; results then differ only by rounding."""
    settings = {k: v for k, v in dict(job).items() if k not in _PLACES + _FREE}
    if job.part == WHOLE:
        del settings["part"]  # so that runs of earlier versions can be resumed
    return json.loads(json.dumps(settings | digests))


def side_branch(share: float, steps: int, job: Job) -> tuple[int, int]:
    """(step where it leaves the trunk, step where it ends) of the branch for a checkpoint kept at `share` of `steps`;
    both are the same without a decay branch."""
    ends = max(1, round(share * steps))
    branches = job.schedule == "wsd" and ends < steps
    return ends - max(1, round(job.decay * ends)) * branches, ends


def learning_rate(step: int, steps: int, job: Job, inherited: float | None = None, *, ends: int | None = None) -> float:
    """The learning rate of `step` (counted from 0) of the job's `steps`; `inherited` is the final rate of the start,
    `ends` the step at which a side branch of wsd ends."""
    if job.part != WHOLE:
        begin, end = job.part
        steps, ends = round(steps / (end - begin)), None
        step += round(begin * steps)
    peak, warm = (job.learning_rate, round(job.warmup * steps)) if inherited is None else (inherited, 0)
    if step < warm:
        return peak * (step + 1) / warm
    left = (steps - step) / max(1, steps - warm)  # from 1 to just above 0
    if job.schedule == "linear":
        return peak * left
    if job.schedule == "cosine":
        return peak * 0.5 * (1 - math.cos(math.pi * left))
    if job.schedule == "wsd":
        ends = ends or steps
        return peak * min(1.0, (ends - step) / max(1, round(job.decay * ends)))
    return peak
