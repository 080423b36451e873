"""Settings of what joins the rooms: data sets, and rounds."""

from typing import Any

from pydantic import Field

from qatoolkit.core.settings import Positive, Settings


class DataSettings(Settings):
    """A data set to synthesise: a strategy, and the dials that differ for it."""

    strategy: str | None = None
    """A registered strategy; null takes the one of the data set's own name."""
    dials: dict[str, Any] = Field(default_factory=dict)
    """Dials turned for this data set alone: {plan.rule: uniform}."""


class RoundsSettings(Settings):
    """Rounds of probe, plan, synthesis and training (stage `rounds`), against one pass."""

    n: Positive = 3
    """Rounds, each with an equal share of the questions (`plan.questions`) and tokens."""
    tokens: Positive | None = None
    """Of all rounds together; null for the mid-training tokens."""
    stop: float | None = None
    """Gain of accuracy on the probe's questions (a fraction) that a round must be able to bring: rounds end after one whose
    95% interval lies below it. Null makes all rounds."""
    of: str | None = None
    """The data set whose strategy and dials write the questions; null for the main one."""
    seeds: Positive = 1
    """Training seeds, from `midtrain.seed` on; each has rounds of its own."""
