"""Settings of the scaling axes."""

from typing import Annotated

from qatoolkit.core.settings import Place, Positive, Settings, SomeShare
from qatoolkit.training.settings import SizeName


class ScalingSettings(Settings):
    """Points on the three axes."""

    sizes: tuple[SizeName, ...] = ("xxs", "xs")
    """Model sizes: rungs that are trained here."""
    tokens: tuple[SomeShare, ...] = (0.25, 1.0)
    """Data volume: shares of the mid-training tokens. With `midtrain.schedule: wsd` they are short decays beside the arm's
    own training; with another schedule each is a training of its own."""
    initial: tuple[SomeShare, ...] = (0.25, 1.0)
    """Initial FLOPs: shares of the pre-training tokens at which a checkpoint is kept."""
    at: SomeShare = 1.0
    """Where sizes and initial FLOPs are compared: a share of the mid-training tokens, which is a point of every
    axis."""
    seeds: Positive = 1
    """Training seeds at every point, for intervals over seeds beside those over questions."""
    control: bool = True
    """Whether the control (the first arm that reads no data set) is trained at every point too, on as many tokens."""


class LadderSettings(Settings):
    """A published checkpoint on the axes of model size and initial FLOPs, in place of rungs that are trained here."""

    checkpoint: Annotated[str, Place(or_name=True)]
    """Hugging Face directory or name."""
    revision: str | None = None
    """Of a name on the hub, such as a training step."""
    tokens: Positive | None = None
    """Tokens it was pre-trained on, as published; needed for the axis of initial FLOPs."""
    parameters: Positive | None = None
    """As published, for `qatoolkit plan`; the model itself is counted."""
