"""Settings of annotation, the budget, and the two syntheses."""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from qatoolkit.core.settings import Amount, Place, Positive, Rate, Settings, Share
from qatoolkit.core.taxonomy import DIFFICULTIES, DISCIPLINES
from qatoolkit.graph.knowledge_points import check_parting

LINKED = DIFFICULTIES[2:]  # levels of a joined question, because joining two seeds takes two hops


class AnnotateSettings(Settings):
    """Labels of seed questions, and where their knowledge points come from."""

    samples: Positive = 1
    """Answers of the annotator per seed; with several the label is their consensus."""
    labels: Literal["missing", "all"] = "missing"
    """Ask for the labels that the source of a seed does not state, or for all, in place of those that it does."""
    knowledge_points: Literal["missing", "all"] = "missing"
    """Ask for the knowledge points of seeds whose source has none, or of all."""
    separator: str | None = None
    """What separates the knowledge points of a source (`graph.knowledge_points.kps_from_column`)."""
    levels: str | int | None = None
    """Steps of a route that are knowledge points: leaf, all, or a number from the end."""
    under: tuple[str, ...] = ()
    """Steps of which a route must contain one; what precedes it is dropped."""

    @model_validator(mode="after")
    def _parting(self):
        check_parting(self.separator, self.levels, under=self.under)
        return self


class PlanSettings(Settings):
    """From the probe's grid to a budget of questions (`budget.plan_budget`).

    >>> import qatoolkit as qt
    >>> settings = qt.PlanSettings(questions=500, high=0.3)
    >>> settings.questions, settings.target
    (500, 0.75)
    >>> qt.PlanSettings(high=30)
    Traceback (most recent call last):
        ...
    ValueError: high is 30; it must be float between 0 and 1
    """

    questions: Positive = 2000
    """Total number of questions."""
    target: Share = 0.75
    """Accuracy below which a cell is weak."""
    above_chance: bool = False
    """Measure the target from guessing: a cell is weak below chance + target * (1 - chance), chance being the mean of
    one over the number of choices, 0 for open questions."""
    high: Share = 0.5
    """Maximum share of the budget for H4 and H5 together."""
    low_n: Positive = 5
    """Questions a cell needs before the plan acts on it."""
    rule: str = "root"
    """How the budget follows from weakness (`budget.RULES`): root of the deficit, linear in the failure ratio, margin in
    nats, gain expected from earlier rounds, or uniform, spread evenly, the control."""
    by: Literal["rubric", "measured"] = "rubric"
    """Whose difficulty the plan follows within a cell. rubric: accuracy makes its deficit, and its seeds take turns at
    random. measured (our reading): the mean probability of the right choice makes it, and with `probe.on: seeds` those
    seeds come first that the student passes least; both need probe questions with choices that are no lm-eval tasks."""
    waves: Positive = 1
    """With more than one, the budget of a cell counts accepted questions: what is missing is asked for again, up to so
    many waves in all. One asks once, whatever comes of it."""

    @field_validator("rule")
    @classmethod
    def _known(cls, rule):
        from qatoolkit.synthesis.budget import RULES  # which may have grown since

        if rule not in RULES:
            raise ValueError(f"rule is {rule!r}; it must be one of {', '.join(RULES)}")
        return rule


class VerifySettings(Settings):
    """How what a teacher wrote is verified, and how often it is asked again."""

    refine: bool = True
    """A second teacher answers every question again."""
    samples: Positive = 5
    """Fresh answers that decide a dispute between the two teachers."""
    most_samples: Positive | None = None
    """Fresh answers to a dispute at most: while no answer has the majority, `samples` more are drawn; null draws once."""
    attempts: Positive = 2
    """How often a question is asked for until it has its level; 1 keeps the first attempt as it is."""

    @model_validator(mode="after")
    def _bounded(self):
        if self.most_samples is not None and self.most_samples < self.samples:
            raise ValueError(
                f"most_samples is {self.most_samples}; it must be null, or at least samples ({self.samples})"
            )
        return self


class BoostQASettings(VerifySettings):
    """The parts of BoostQA, each of which an ablation can switch off."""

    multi_grade: bool = True
    """One question per grade in the cells up to H3."""
    high_difficulty: bool = True
    """Use the high-difficulty prompt in the cells of H4 and H5."""
    trial: Positive = 600
    """Questions written at each error rate of an offline teacher, to measure the value of refinement."""


class LinkQASettings(VerifySettings):
    """LinkSyn's walks and what is written along them."""

    length: int = Field(4, ge=3)
    """Knowledge points per path; two seeds are two steps, so at least 3."""
    alpha: Amount = 0.5
    """Exponent of popularity in the value of a knowledge point."""
    beta: Amount = 1.0
    """Exponent of coverage: how fast the value decreases with visits."""
    min_count: Positive = 1
    """Seeds that a pair of knowledge points needs for an edge."""
    most_seeds: int = Field(4, ge=2, le=4)
    """Maximum number of seeds of a path shown to the teacher (our reading: 2 to 4)."""
    questions_per_path: Positive = 3
    """Questions requested per path."""
    focus: Amount = 4.0
    """How strongly walks prefer seeds of weak cells: their weight is 1 + focus * deficit."""
    aim: Annotated[str, Place()] | None = None
    """CSV file of knowledge points, such as blind spots (`qt.tables.blind_spots`), that walks prefer; null: none."""
    aim_weight: Rate = 8.0
    """Factor of the value of a knowledge point that `aim` names."""
    paths_per_question: Rate = 2.0
    """Paths sampled per path that the budget needs; some are unusable (seeds of two languages, or fewer than two)."""
    adjust: dict | None = None
    """Shares of difficulty to request per discipline, from H3 up: {physics: {H4: 0.5, H5: 0.5}}."""
    merges: Annotated[str, Place()] | None = None
    """CSV file with your decisions on near-identical knowledge points; null merges spelling variants only."""

    @model_validator(mode="after")
    def _adjustable(self):
        for discipline, shares in (self.adjust or {}).items():
            if discipline not in DISCIPLINES:
                raise ValueError(f"adjust is {discipline!r}; it must be one of {', '.join(DISCIPLINES)}")
            fits = isinstance(shares, dict) and set(shares) <= set(LINKED)
            fits = fits and all(isinstance(s, int | float) and 0 <= s < math.inf for s in shares.values())
            if not (fits and sum(shares.values()) > 0):
                raise ValueError(
                    f"adjust.{discipline} is {shares!r}; it must be shares of {', '.join(LINKED)}, not all 0: "
                    "joining two seeds takes two hops"
                )
        for field, holds in (("merges", "columns kept and merged"), ("aim", "a column knowledge_point")):
            if (named := getattr(self, field)) is not None and not Path(named).is_file():
                raise ValueError(f"{field} is {named!r}; it must be a CSV file that exists, with {holds}, or null")
        return self
