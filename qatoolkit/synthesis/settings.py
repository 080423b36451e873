"""Settings of annotation, the budget, BoostQA and LinkQA."""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from qatoolkit.core.settings import Amount, Place, Positive, Rate, Settings, Share
from qatoolkit.core.taxonomy import DIFFICULTIES, DISCIPLINES
from qatoolkit.graph.knowledge_points import check_split_settings

LINKED = DIFFICULTIES[2:]  # levels a joined question can have, because joining two seeds takes two hops


class AnnotateSettings(Settings):
    """Labels of seed questions, and where their knowledge points come from."""

    samples: Positive = 1
    """Answers of the annotator per seed; with several the label is their consensus."""
    labels: Literal["missing", "all"] = "missing"
    """Ask the annotator only for labels that the seed's source does not state, or for all, replacing those of the
    source."""
    knowledge_points: Literal["missing", "all"] = "missing"
    """Ask for the knowledge points of seeds whose source has none, or of all seeds."""
    separator: str | None = None
    """Separator of the knowledge points in a source's column (`graph.knowledge_points.kps_from_column`)."""
    levels: str | int | None = None
    """Levels of a hierarchical path that are knowledge points: leaf, all, or a number counted from the end."""
    under: tuple[str, ...] = ()
    """Levels of which a path must contain one; those before it are dropped."""

    @model_validator(mode="after")
    def _check_parting(self):
        check_split_settings(self.separator, self.levels, self.under)
        return self


class PlanSettings(Settings):
    """The budget of questions by cell, from the probe's grid (`budget.plan_budget`).

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
    """Count the target from chance: a cell is weak below chance + target * (1 - chance), where chance is the mean of
    1 / number of choices, 0 for open questions."""
    high: Share = 0.5
    """Maximum share of the budget for H4 and H5 together."""
    low_n: Positive = 5
    """Least number of probe questions for a cell to get a budget."""
    rule: str = "root"
    """How the budget follows from weakness (`budget.RULES`): root of the deficit, linear in the failure ratio, margin
    in nats, gain expected from earlier rounds, or uniform (evenly spread, the control)."""
    by: Literal["rubric", "measured"] = "rubric"
    """How a cell's weakness and its seeds' difficulty are measured. rubric: the deficit is in accuracy, and seeds are
    used in random order. measured (our reading): the deficit is in the mean probability of the right choice, and with
    `probe.on: seeds` the seeds with the student's lowest pass rates come first; both need probe questions that have
    choices and are not lm-eval tasks."""
    waves: Positive = 1
    """With more than one, the budget of a cell counts accepted questions: missing ones are requested again, up to this
    many waves in all. With one, the budget is requested once, however many questions are accepted."""

    @field_validator("rule")
    @classmethod
    def _check_rule(cls, rule):
        from qatoolkit.synthesis.budget import RULES  # at validation, when plugins have added theirs

        if rule not in RULES:
            raise ValueError(f"rule is {rule!r}; it must be one of {', '.join(RULES)}")
        return rule


class VerifySettings(Settings):
    """How written questions are verified, and how often they are requested."""

    refine: bool = True
    """Let a second teacher answer every question again."""
    samples: Positive = 5
    """Fresh answers that decide a dispute between the two teachers."""
    most_samples: Positive | None = None
    """Maximum fresh answers to a dispute: `samples` more are drawn while no answer has a majority; null draws once."""
    attempts: Positive = 2
    """Maximum requests for a question until it has its level; 1 keeps the first attempt."""

    @model_validator(mode="after")
    def _check_samples(self):
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
    """LinkSyn's walks, and the questions written along them."""

    length: int = Field(4, ge=3)
    """Knowledge points per path; two seeds are two steps, so at least 3."""
    alpha: Amount = 0.5
    """Exponent of popularity in the value of a knowledge point."""
    beta: Amount = 1.0
    """Exponent of coverage: how fast the value decreases with visits."""
    min_count: Positive = 1
    """Least number of seeds that contain both of two knowledge points, for an edge between them."""
    most_seeds: int = Field(4, ge=2, le=4)
    """Maximum number of seeds of a path shown to the teacher (our reading: 2 to 4)."""
    questions_per_path: Positive = 3
    """Questions requested per path."""
    focus: Amount = 4.0
    """How strongly walks prefer seeds of weak cells: their weight is 1 + focus * deficit."""
    aim: Annotated[str, Place()] | None = None
    """CSV file of knowledge points that walks prefer, such as blind spots (`qt.tables.blind_spots`); null for none."""
    aim_weight: Rate = 8.0
    """Factor on the value of a knowledge point listed in `aim`."""
    paths_per_question: Rate = 2.0
    """Paths sampled per path that the budget needs; some are unusable (fewer than two seeds in one language)."""
    adjust: dict | None = None
    """Shares of difficulty to request per discipline, from H3 up: {physics: {H4: 0.5, H5: 0.5}}."""
    merges: Annotated[str, Place()] | None = None
    """CSV file with your decisions on near-identical knowledge points; null merges spelling variants only."""

    @model_validator(mode="after")
    def _check_adjust_and_files(self):
        for discipline, shares in (self.adjust or {}).items():
            if discipline not in DISCIPLINES:
                raise ValueError(f"adjust is {discipline!r}; it must be one of {', '.join(DISCIPLINES)}")
            valid = isinstance(shares, dict) and set(shares) <= set(LINKED)
            valid = valid and all(isinstance(s, int | float) and 0 <= s < math.inf for s in shares.values())
            if not (valid and sum(shares.values()) > 0):
                raise ValueError(
                    f"adjust.{discipline} is {shares!r}; it must be shares of {', '.join(LINKED)}, not all 0: "
                    "joining two seeds takes two hops"
                )
        for field, columns in (("merges", "columns kept and merged"), ("aim", "a column knowledge_point")):
            if (path := getattr(self, field)) is not None and not Path(path).is_file():
                raise ValueError(f"{field} is {path!r}; it must be an existing CSV file with {columns}, or null")
        return self
