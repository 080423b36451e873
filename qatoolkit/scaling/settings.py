"""Settings of the scaling axes."""

from typing import Annotated

from qatoolkit.core.settings import Place, Positive, Settings, SomeShare
from qatoolkit.training.settings import SizeName


class ScalingSettings(Settings):
    """Points on the three axes."""

    sizes: tuple[SizeName, ...] = ("xxs", "xs")
    """Model sizes: rungs of the ladder, pre-trained from scratch."""
    tokens: tuple[SomeShare, ...] = (0.25, 1.0)
    """Data volume: shares of the mid-training tokens. With `midtrain.schedule: wsd` they are short decay branches of
    the arm's training; with another schedule each is a separate training."""
    initial: tuple[SomeShare, ...] = (0.25, 1.0)
    """Initial FLOPs: shares of the pre-training tokens at which a checkpoint is kept."""
    at: SomeShare = 1.0
    """Share of the mid-training tokens at which sizes and initial FLOPs are compared; this point is on every axis."""
    seeds: Positive = 1
    """Training seeds at every point, for intervals over seeds in addition to those over questions."""
    control: bool = True
    """Train the control (the first arm without a data set) at every point too, on as many tokens."""


class LadderSettings(Settings):
    """A published checkpoint on the axes of model size and initial FLOPs, instead of rungs pre-trained from scratch."""

    checkpoint: Annotated[str, Place(or_name=True)]
    """Hugging Face directory or name."""
    revision: str | None = None
    """Revision of a name on the hub, such as a training step."""
    tokens: Positive | None = None
    """Published number of pre-training tokens; needed for the axis of initial FLOPs."""
    parameters: Positive | None = None
    """Published number of parameters, for `qatoolkit plan`; runs count those of the model."""
