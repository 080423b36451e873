"""Settings of exams, probes and evaluation."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from qatoolkit.core.settings import NotNegative, Place, Positive, Settings, Share

TEXTBOOK = "textbook"  # the word for the embedded exams
MMLU_REDUX = "mmlu_redux"  # the word for MMLU-Redux 2.0, from the hub or from $QATOOLKIT_REAL_DATA


BOUNDS = ("strong_at_least", "student_at_most", "student_at_least")  # on the pass rates of accepted questions


class ExamSettings(Settings):
    """One exam; a plain string is its source."""

    shorthand: ClassVar[str] = "source"

    source: Annotated[str, Place(or_name=True, words=(TEXTBOOK, MMLU_REDUX))]
    """A QA file or folder of such files, `hf:` name, lm-eval task or group, folder of task YAMLs, `paper12`,
    `mmlu_redux`, or `textbook`."""
    form: Literal["cloze", "letter", "generative"] | None = None
    """Form in which a QA file is asked; null: cloze if every row has choices, else generative. Tasks define their
    own."""
    metric: str | None = None
    """A metric of the task; null for its first one."""
    fewshot: NotNegative | None = None
    """Few-shot examples; null for the number of the task, none for a QA file."""
    limit: Positive | None = None
    """Maximum number of questions: a random sample of a QA file, the first ones of a task."""
    optional: bool = False
    """Leave the exam out, with a note, if it can't be loaded."""
    subjects: str | None = None
    """Benchmark whose subject map assigns disciplines to the rows of a QA file: mmlu, cmmlu, ceval, mmlu_pro,
    agieval."""


class ProbeSettings(Settings):
    """The questions of the probe."""

    on: Literal["seeds", "exams"] = "seeds"
    """Annotated seeds, or a part of every exam (`share`), which is then excluded from the evaluation."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of an exam's questions for the probe; the others are sealed: no plan uses them."""
    open_answers: bool = False
    """Also ask questions without choices: the model writes an answer, which is compared with the right one."""
    every: NotNegative = 0
    """Mid-training tokens between probes of the live model; 0 for none."""


class MeasureSettings(Settings):
    """Measured difficulty of questions (`pass_rates.measure_difficulty`), and bounds on it for acceptance.

    A question with a missing rate that a bound applies to is not accepted. SwS (arXiv 2506.08989) keeps questions that
    its student passes in 0.125 to 0.875 of the samples; Autodata (Meta) those that a strong solver passes and a weak
    one does not."""

    k: NotNegative = 0
    """Answers of the strong model to each written question; 0 measures nothing and accepts regardless of difficulty."""
    strong: str | None = None
    """The strong model, by its name at the endpoint; null for the refiner."""
    student: Literal["likelihood", "samples"] = "likelihood"
    """How the base student's pass rate is measured: by the probability of the right answer, or as the share of right
    ones among `k` answers that it writes."""
    strong_at_least: Share | None = None
    """Lowest pass rate of the strong model at which a question is accepted; null for no bound."""
    student_at_most: Share | None = None
    """Highest pass rate of the base student; null for no bound."""
    student_at_least: Share | None = None
    """Lowest pass rate of the base student; null for no bound."""

    @model_validator(mode="after")
    def _check_bounds(self):
        used = [name for name in ("student", *BOUNDS) if getattr(self, name) not in (None, "likelihood")]
        if used and not self.k:
            raise ValueError(f"{used[0]} is {getattr(self, used[0])!r}, but k is 0, so nothing is measured: set k too")
        if None not in (self.student_at_least, self.student_at_most) and self.student_at_least > self.student_at_most:
            raise ValueError(
                f"student_at_least is {self.student_at_least}; it must be at most student_at_most "
                f"({self.student_at_most})"
            )
        return self


class EvaluateSettings(Settings):
    """Evaluation of the base and every arm on every exam, with intervals."""

    scorer: Literal["hf", "fast"] = "hf"
    """hf: lm-eval's model; fast: the fast scorer, which gives the same answers."""
    batch: Positive | None = None
    """lm-eval's batch size; null for as many as fit into memory (`lm_eval_models.MEMORY`)."""
    judge: Literal["same_answer", "exact"] = "same_answer"
    """When a written answer to a QA file is right: if it means the same (undecided answers count as wrong and are also
    counted separately), or by lm-eval's exact match, ignoring case and outer white space. Both are reported."""
    bootstrap: Positive = 2000
    """Bootstrap resamples of a paired difference."""
    label: NotNegative = 2000
    """Maximum number of exam questions without discipline or difficulty that the annotator labels, drawn at random; the
    others count as unlabelled."""
