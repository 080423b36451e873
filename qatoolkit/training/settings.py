"""Settings of training, shared by jobs and profiles: how a step is computed (`StepSettings`) and what is learned
(`CourseSettings`)."""

from typing import Annotated, Literal

from pydantic import Field

from qatoolkit.core.settings import NotNegative, Place, Positive, Rate, Settings, Share
from qatoolkit.training.ladder import SIZES

SCHEDULES = ("constant", "linear", "cosine", "wsd")
SizeName = Literal[tuple(SIZES)]
Block = Annotated[int, Field(ge=2)]


class StepSettings(Settings):
    """How a step is computed, and the optimizer's settings."""

    block: Block = 1024
    """Tokens of a packed sequence."""
    batch: Positive = 16
    """Sequences of a step, over all devices."""
    micro_batch: Positive | None = None
    """Sequences computed at once on one device; null for the device's whole share of the batch."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field((0.9, 0.95), min_length=2, max_length=2)
    """AdamW's two decay rates."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Weight decay of matrices; norms and embeddings have none."""
    clip: Rate = 1.0
    """Norm to which gradients are clipped."""
    memory: Literal["standard", "low"] = "standard"
    """standard: float32 weights, bfloat16 products on a GPU; low: all bfloat16."""
    checkpointing: bool = False
    """Recompute layers in the backward pass instead of keeping their activations."""
    compile: bool = False
    """Compile the layers (torch.compile)."""
    fused_loss: bool = True
    """Never keep all logits in memory; switched off, with a note, for models whose loss it would change."""
    attention: str = "packed"
    """packed computes within documents only; other names are those of transformers. packed is switched off, with a
    note, for models whose loss it would change."""
    threads: Positive = 1
    """CPU threads; one by default, so that results do not depend on the machine."""
    save_minutes: Annotated[float, Field(ge=0)] = 10.0
    """Minutes between states to resume from; 0 for none. A requested stop (SIGTERM) always saves one."""
    save_every: NotNegative = 0
    """Steps between states, in addition to those by time; 0 for none."""
    keep_states: Positive = 2
    """Number of most recent states to keep."""


class CourseSettings(Settings):
    """What is learned: tokens, learning rate, loss."""

    learning_rate: Rate = 3e-4
    """Peak learning rate."""
    rate: Literal["rewarm", "inherit"] = "rewarm"
    """rewarm warms up from 0 to the peak; inherit continues with the start's moments and final rate."""
    schedule: Literal[SCHEDULES] = "linear"
    """After warm-up: constant, linear or cosine to zero, or wsd (constant, then linear to zero over `decay`)."""
    warmup: Share = 0.02
    """Share of the steps for warm-up."""
    decay: Share = 0.2
    """Share of the steps for the decay of wsd."""
    replay: Share = 0.35
    """Share of the tokens that is general text."""
    loss_on: Literal["all", "answer"] = "all"
    """Tokens with a loss: all, or answer for those after the prompt only."""
    z_loss: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the mean square of log Z in the loss."""


class StudentSettings(StepSettings):
    """The model to mid-train, and how every training of a run is computed. Null takes the default for the checkpoint
    (`training.defaults`)."""

    size: SizeName = "xs"
    """Rung of the ladder, pre-trained from scratch."""
    checkpoint: Annotated[str, Place(or_name=True)] | None = None
    """Hugging Face directory or name, or GGUF file, to start from instead."""
    revision: str | None = None
    """Branch, tag or commit of a checkpoint on the hub."""
    vocabulary: Positive = 2048
    """Vocabulary size of the tokenizer trained for a student from scratch."""
    tokens: Positive = 1_000_000
    """Pre-training tokens of a student from scratch."""
    block: Block | None = 128
    """Tokens of a packed sequence."""
    batch: Positive | None = 8
    """Sequences of a step, over all devices."""
    memory: Literal["standard", "low"] | None = "standard"
    """standard: float32 weights, bfloat16 products on a GPU; low: all bfloat16."""
    checkpointing: bool | None = False
    """Recompute layers in the backward pass instead of keeping their activations."""
    learning_rate: Rate = 4e-3
    """Learning rate of pre-training, constant after warm-up."""
    warmup: Share = 0.05
    """Share of the pre-training steps for warm-up."""
    launch: str | None = None
    """Command under which trainings run, such as `accelerate launch ... -m qatoolkit.run.cli`; `list` writes a list of
    jobs instead. Null runs them in worker processes."""


class MidtrainSettings(CourseSettings):
    """Mid-training of every arm."""

    tokens: Positive = 400_000
    """Training tokens in all, replay included; the same for every arm."""
    learning_rate: Rate | None = 3e-3
    """Peak learning rate; null takes the usual one for the size of the checkpoint (`training.defaults`)."""
    max_epochs: Rate | None = None
    """Maximum epochs of a data set in an arm; null for any number. In an arm with ratios, the other sets fill in for
    one that has too few tokens."""
    accept_rate: bool = False
    """Accept a learning rate above ten times the usual one for the model's size."""
    seed: NotNegative | None = None
    """Random seed of the data order; null takes the run's."""
    document: tuple[Literal["choices", "rationale"], ...] = ()
    """What a training document contains besides question and answer. Choices are always included if the question can't
    be understood without them."""


class GeneralSettings(Settings):
    """Your own general text, for replay and the control."""

    sources: tuple[Annotated[str, Place(words=("textbook", "python"))], ...] = ()
    """A folder of tokens; or text: .txt, .parquet and .jsonl files (.gz too), folders of them, `hf:` names; `textbook`;
    `python`, the language reference that comes with Python."""
    held_out: tuple[Annotated[str, Place()], ...] = ()
    """Text held out from training to measure bits per byte; if empty, every 20th document of the sources is held
    out."""
    column: str = "text"
    """Text column of Parquet, JSON lines and `hf:` sources."""


CHECKPOINT_DIALS = ("student.block", "student.batch", "student.micro_batch", "student.memory", "student.checkpointing", "midtrain.learning_rate")  # fmt: skip
