"""Settings of training, shared by jobs and profiles: how a step is computed (`Manner`), what is learned (`Course`)."""

from typing import Annotated, Literal

from pydantic import Field

from qatoolkit.core.settings import NotNegative, Place, Positive, Rate, Settings, Share
from qatoolkit.training.ladder import SIZES

SCHEDULES = ("constant", "linear", "cosine", "wsd")
SizeName = Literal[tuple(SIZES)]
Block = Annotated[int, Field(ge=2)]


class Manner(Settings):
    """How a step is computed and the optimizer set."""

    block: Block = 1024
    """Tokens of a packed sequence."""
    batch: Positive = 16
    """Sequences of a step, over all devices."""
    micro_batch: Positive | None = None
    """Sequences at once on one device; null takes the device's whole share of the batch."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field((0.9, 0.95), min_length=2, max_length=2)
    """AdamW's two decays."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Of matrices; norms and embeddings have none."""
    clip: Rate = 1.0
    """Norm to which gradients are clipped."""
    memory: Literal["standard", "low"] = "standard"
    """standard: float32 weights, bfloat16 products on a GPU; low: all bfloat16."""
    checkpointing: bool = False
    """Compute layers again in the backward pass instead of keeping their activations."""
    compile: bool = False
    """Compile the layers (torch.compile)."""
    fused_loss: bool = True
    """Never keep all logits in memory; off, with a note, where it would change the loss."""
    attention: str = "packed"
    """packed computes within documents only; other names are transformers'. Off where it would change the loss."""
    threads: Positive = 1
    """CPU threads; one by default, so that results do not depend on the machine."""
    save_minutes: Annotated[float, Field(ge=0)] = 10.0
    """Minutes between states to resume from; 0 for none. A stop that is asked for (SIGTERM) saves one in any case."""
    save_every: NotNegative = 0
    """Steps between states, beside those by time; 0 for none."""
    keep_states: Positive = 2
    """States kept, the last ones."""


class Course(Settings):
    """What is learned: tokens, learning rate, loss."""

    learning_rate: Rate = 3e-4
    """Peak."""
    rate: Literal["rewarm", "inherit"] = "rewarm"
    """rewarm climbs from 0 to the peak; inherit continues with the moments and the rate of the start."""
    schedule: Literal[SCHEDULES] = "linear"
    """After warm-up: constant, linear or cosine to zero, or wsd (constant, then linear to zero over `decay`)."""
    warmup: Share = 0.02
    """Share of the steps."""
    decay: Share = 0.2
    """Share of the steps, for wsd."""
    replay: Share = 0.35
    """Share of the tokens that is general text."""
    loss_on: Literal["all", "answer"] = "all"
    """answer takes no loss on prompts."""
    z_loss: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the mean square of log Z."""


class StudentSettings(Manner):
    """The model that is mid-trained, and how every training of a run is computed. Null follows from the checkpoint
    (`training.defaults`)."""

    size: SizeName = "xs"
    """Rung of the ladder, trained from scratch here."""
    checkpoint: Annotated[str, Place(or_name=True)] | None = None
    """Hugging Face directory or name, or GGUF file, to start from instead."""
    revision: str | None = None
    """Of a checkpoint on the hub."""
    vocabulary: Positive = 2048
    """Of the own tokenizer."""
    tokens: Positive = 1_000_000
    """Pre-training tokens of the own student."""
    block: Block | None = 128
    """Tokens of a packed sequence."""
    batch: Positive | None = 8
    """Sequences of a step, over all devices."""
    memory: Literal["standard", "low"] | None = "standard"
    """standard: float32 weights, bfloat16 products on a GPU; low: all bfloat16."""
    checkpointing: bool | None = False
    """Compute layers again in the backward pass instead of keeping their activations."""
    learning_rate: Rate = 4e-3
    """Of pre-training, constant after warm-up."""
    warmup: Share = 0.05
    """Share of the pre-training steps."""
    launch: str | None = None
    """Command under which trainings run, such as `accelerate launch ... -m qatoolkit.run.cli`; `list` writes them as a
    list of jobs instead. Null runs them here."""


class MidtrainSettings(Course):
    """Mid-training of every arm."""

    tokens: Positive = 400_000
    """Tokens in all, replay included; the same for every arm."""
    learning_rate: Rate | None = 3e-3
    """Peak; null follows from the size of the checkpoint (`training.defaults`)."""
    max_epochs: Rate | None = None
    """How often an arm reads a data set at most; null for any number. What a set in an arm with ratios can't give, the
    others do."""
    accept_rate: bool = False
    """Accept a learning rate above ten times the usual one for the model's size."""
    seed: NotNegative | None = None
    """Of the order of the data; null for the run's."""
    document: tuple[Literal["choices", "rationale"], ...] = ()
    """What a training document holds beside question and answer. The choices of a question that means nothing without
    them are always there."""


class GeneralSettings(Settings):
    """General text of the user's own, for replay and the control."""

    sources: tuple[Annotated[str, Place(words=("textbook", "python"))], ...] = ()
    """A token folder; or text: .txt, .parquet and .jsonl files (.gz too), folders of them, `hf:` names; `textbook`;
    `python`, the language reference that comes with Python."""
    held_out: tuple[Annotated[str, Place()], ...] = ()
    """Text that is not trained on, to measure bits per byte; none takes every 20th document of the sources."""
    column: str = "text"
    """Of Parquet, JSON lines and `hf:` sources."""


CHECKPOINT_DIALS = ("student.block", "student.batch", "student.micro_batch", "student.memory", "student.checkpointing", "midtrain.learning_rate")  # fmt: skip
