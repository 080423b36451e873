"""Settings of data sets and of rounds."""

from typing import Any

from pydantic import Field

from qatoolkit.core.settings import Positive, Settings


class DataSettings(Settings):
    """A data set to synthesise: a strategy, and the dials that differ for it."""

    strategy: str | None = None
    """A registered strategy; null for the one named like the data set."""
    dials: dict[str, Any] = Field(default_factory=dict)
    """Dials turned for this data set only: {plan.rule: uniform}."""


class RoundsSettings(Settings):
    """Rounds of probe, plan, synthesis and training (stage `rounds`), against one pass."""

    n: Positive = 3
    """Rounds, each with an equal share of the questions (`plan.questions`) and tokens."""
    tokens: Positive | None = None
    """Training tokens of all rounds together; null for those of mid-training."""
    stop: float | None = None
    """Gain in accuracy on the probe's questions (a fraction): rounds end after one whose 95% interval is entirely below
    it. Null runs all rounds."""
    of: str | None = None
    """The data set whose strategy and dials write the questions; null for that of the main arm."""
    seeds: Positive = 1
    """Number of training seeds, from `midtrain.seed` on; each has its own rounds."""
