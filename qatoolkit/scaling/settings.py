"""Settings of the scaling axes."""

from qatoolkit.core.settings import Settings, SomeShare
from qatoolkit.training.settings import SizeName


class ScalingSettings(Settings):
    """Points on the three axes."""

    sizes: tuple[SizeName, ...] = ("xxs", "xs")
    """Model sizes: rungs of the ladder."""
    tokens: tuple[SomeShare, ...] = (0.25, 1.0)
    """Data volume: shares of the mid-training tokens."""
    initial: tuple[SomeShare, ...] = (0.25, 1.0)
    """Initial FLOPs: shares of the pre-training tokens at which a checkpoint is kept."""
