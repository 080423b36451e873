"""Settings of exams, probes and evaluation."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from qatoolkit.core.settings import NotNegative, Place, Positive, Settings, Share

TEXTBOOK = "textbook"  # the word for the embedded exams
MMLU_REDUX = "mmlu_redux"  # the word for MMLU-Redux 2.0, from the hub or from $QATOOLKIT_REAL_DATA


BOUNDS = ("strong_at_least", "student_at_most", "student_at_least")  # of pass rates, for acceptance


class ExamSettings(Settings):
    """One exam; a bare text is its source."""

    shorthand: ClassVar[str] = "source"

    source: Annotated[str, Place(or_name=True, words=(TEXTBOOK, MMLU_REDUX))]
    """A QA file or folder of such files, `hf:` name, lm-eval task or group, folder of task YAMLs, `paper12`,
    `mmlu_redux`, or `textbook`."""
    form: Literal["cloze", "letter", "generative"] | None = None
    """How a QA file is asked; null: cloze where every row has choices, else generative. Tasks have their own."""
    metric: str | None = None
    """A metric of the task; null for its first one."""
    fewshot: NotNegative | None = None
    """Examples shown; null for the task's own number, none for a QA file."""
    limit: Positive | None = None
    """Most questions: a random sample of a QA file, the first ones of a task."""
    optional: bool = False
    """Leave the exam out, with a line that says so, where it can't be loaded."""
    subjects: str | None = None
    """Benchmark whose subject map gives the rows of a QA file their discipline: mmlu, cmmlu, ceval, mmlu_pro, agieval."""


class ProbeSettings(Settings):
    """What the model is probed with."""

    on: Literal["seeds", "exams"] = "seeds"
    """Annotated seeds, or a part of every exam that is then no longer examined (`share`)."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of an exam's questions that the probe takes; the rest is sealed: nothing is planned from it."""
    open_answers: bool = False
    """Also ask questions without choices: the model writes an answer, which is compared with the right one."""
    every: NotNegative = 0
    """Mid-training tokens between probes of the live model; 0 for none."""


class MeasureSettings(Settings):
    """How hard questions are for the models themselves (`pass_rates.measure_difficulty`), and which are accepted by that.

    A question without a rate that a bound is on is not accepted. SwS (arXiv 2506.08989) keeps what its student passes in
    0.125 to 0.875 of the samples; Autodata (Meta) keeps what a strong solver passes and a weak one does not."""

    k: NotNegative = 0
    """Answers of the strong model to each written question; 0 measures none, and accepts without regard to difficulty."""
    strong: str | None = None
    """The strong model, by its name at the endpoint; null for the refiner."""
    student: Literal["likelihood", "samples"] = "likelihood"
    """The base student's pass rate: the probability of the right answer, or the share of `k` answers that it writes."""
    strong_at_least: Share | None = None
    """Lowest pass rate of the strong model at which a question is accepted; null for no bound."""
    student_at_most: Share | None = None
    """Highest pass rate of the base student; null for no bound."""
    student_at_least: Share | None = None
    """Lowest pass rate of the base student; null for no bound."""

    @model_validator(mode="after")
    def _measures(self):
        asked = [name for name in ("student", *BOUNDS) if getattr(self, name) not in (None, "likelihood")]
        if asked and not self.k:
            raise ValueError(
                f"{asked[0]} is {getattr(self, asked[0])!r}, but k is 0, so nothing is measured: set k too"
            )
        if None not in (self.student_at_least, self.student_at_most) and self.student_at_least > self.student_at_most:
            raise ValueError(
                f"student_at_least is {self.student_at_least}; it must be at most student_at_most, {self.student_at_most}"
            )
        return self


class EvaluateSettings(Settings):
    """Every exam for the base and every arm, and the intervals of what comes out."""

    scorer: Literal["hf", "fast"] = "hf"
    """lm-eval's own model, or the fast one that gives the same answers."""
    batch: Positive | None = None
    """lm-eval's batch size; null for as many as fit into memory (`lm_eval_models.MEMORY`)."""
    judge: Literal["same_answer", "exact"] = "same_answer"
    """What makes a written answer to a QA file right: that it means the same (what can't be told counts as wrong and is
    counted apart), or lm-eval's exact match without case and outer white space. Both are reported."""
    bootstrap: Positive = 2000
    """Resamples of a paired difference."""
    label: NotNegative = 2000
    """Most exam questions without discipline or difficulty that the annotator labels, drawn at random; others count as
    unlabelled."""
