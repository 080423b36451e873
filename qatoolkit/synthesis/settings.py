"""Settings of annotation, the budget, and the two syntheses."""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from qatoolkit.core.settings import Amount, Place, Positive, Settings, Share
from qatoolkit.core.taxonomy import DIFFICULTIES, DISCIPLINES
from qatoolkit.graph.knowledge_points import check_parting

LINKED = DIFFICULTIES[2:]  # what a joined question can reach: joining two seeds takes two hops


class AnnotateSettings(Settings):
    """Labels of seed questions, and where their knowledge points come from."""

    samples: Positive = 1
    """Answers of the annotator per seed; with several the label is their consensus."""
    knowledge_points: Literal["missing", "all"] = "missing"
    """Ask for the knowledge points of seeds whose source has none, or of all."""
    separator: str | None = None
    """What separates the knowledge points of a source (`graph.knowledge_points.kps_from_column`)."""
    levels: str | int | None = None
    """Steps of a route that are knowledge points: leaf, all, or a number."""
    under: tuple[str, ...] = ()
    """Steps that a route must pass; what comes above them is dropped."""

    @model_validator(mode="after")
    def _parting(self):
        check_parting(self.separator, self.levels, under=self.under)
        return self


class PlanSettings(Settings):
    """From the probe's grid to a budget of questions (`budget.targeted`)."""

    questions: Positive = 2000
    """Questions in all."""
    target: Share = 0.75
    """Accuracy below which a cell is weak."""
    high: Share = 0.5
    """Share of the budget for H4 and H5 together, at most."""
    low_n: Positive = 5
    """Questions a cell needs before the plan acts on it."""
    targeted: bool = True
    """Spend in proportion to the root of the deficit; false spreads the budget evenly, the control."""


class BoostQASettings(Settings):
    """The parts of BoostQA, each of which an ablation can switch off."""

    multi_grade: bool = True
    """One question per grade in the cells up to H3."""
    high_difficulty: bool = True
    """The prompt for high difficulty in the cells of H4 and H5."""
    refine: bool = True
    """A second teacher answers every question again."""
    samples: Positive = 5
    """Fresh answers that decide where the two teachers differ."""
    trial: Positive = 600
    """Questions written at each error rate of an offline teacher, to see what refinement is worth."""


class LinkQASettings(Settings):
    """LinkSyn's walks and what is written along them."""

    length: int = Field(4, ge=3)
    """Knowledge points of a path: two seeds are two steps, so 3 or more."""
    alpha: Amount = 0.5
    """Exponent of popularity in the value of a knowledge point."""
    beta: Amount = 1.0
    """Exponent of coverage: how fast the value falls with visits."""
    min_count: Positive = 1
    """Seeds a knowledge point needs to become a node."""
    most_seeds: int = Field(4, ge=2, le=4)
    """Seeds of a path that the teacher is shown, at most; fewer than 2 join nothing (our reading: 2 to 4)."""
    questions_per_path: Positive = 3
    """Questions asked for per path."""
    focus: Amount = 4.0
    """How much more a seed of a cell that never answers right weighs in the walks (times 1 + focus * deficit)."""
    paths_per_question: Amount = Field(2.0, gt=0)
    """Paths sampled per path that the budget needs: some join seeds of two languages, or too few."""
    adjust: dict | None = None
    """Shares of difficulty to ask for within disciplines, from H3 up: {physics: {H4: 0.5, H5: 0.5}}."""
    refine: bool = True
    """A second teacher answers every question again."""
    samples: Positive = 5
    """Fresh answers that decide where the two teachers differ."""
    merges: Annotated[str, Place()] | None = None
    """CSV file of the near-identical knowledge points you decided to merge; null merges only two spellings of a
    name."""

    @model_validator(mode="after")
    def _adjustable(self):
        for discipline, shares in (self.adjust or {}).items():
            if discipline not in DISCIPLINES:
                raise ValueError(f"adjust is {discipline!r}; it must be one of {', '.join(DISCIPLINES)}")
            fits = isinstance(shares, dict) and set(shares) <= set(LINKED)
            fits = fits and all(isinstance(s, int | float) and 0 <= s < math.inf for s in shares.values())
            if not (fits and sum(shares.values()) > 0):
                raise ValueError(
                    f"adjust.{discipline} is {shares!r}; it must be shares of {', '.join(LINKED)}, not all 0: joining two seeds "
                    "takes two hops"
                )
        if self.merges is not None and not Path(self.merges).is_file():
            raise ValueError(
                f"merges is {self.merges!r}; it must be a CSV file that exists, with the columns kept and merged, or null"
            )
        return self
