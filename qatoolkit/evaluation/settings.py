"""Settings of evaluation."""

from qatoolkit.core.settings import Positive, Settings


class EvaluateSettings(Settings):
    """lm-eval on every exam, and the intervals of what comes out."""

    batch: Positive = 64
    """lm-eval's batch size."""
    bootstrap: Positive = 2000
    """Resamples of a paired difference."""
