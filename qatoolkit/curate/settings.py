"""Settings of curation."""

from typing import Annotated, Literal

from pydantic import Field

from qatoolkit.core.settings import Amount, NotNegative, Place, Positive, Settings, SomeShare

REJECTED = (
    "empty_question", "empty_answer", "too_long", "choices", "no_choices", "language", "echo", "refusal",
)  # fmt: skip
FLAGGED = ("rationale_echo", "truncated", "latex", "private", "answer_in_question", "unreadable")


class CurateSettings(Settings):
    """Filters, near-duplicates and decontamination. N-grams are counted in tokens: a word or one CJK character."""

    max_question: Positive = 20_000
    """Characters of a question."""
    max_answer: Positive = 20_000
    """Characters of an answer."""
    echo: SomeShare = 0.8
    """Share of the question that an answer or rationale without anything else must repeat to be an echo."""
    reject: tuple[Literal[(*REJECTED, *FLAGGED)], ...] = REJECTED
    """Reasons of filters that reject a row; for the others it is kept and counted as flagged."""
    near_threshold: SomeShare | None = None
    """Jaccard similarity of shingles from which two rows are near-duplicates, opposites among them; null compares what
    questions ask: rows that differ in more than requests, articles, punctuation and the like stay apart."""
    shingle: Positive = 2
    """Tokens of a shingle, where there is a near_threshold."""
    on: tuple[str, ...] = Field(("question", "answer"), min_length=1)
    """Columns that are compared, the compared text first."""
    exam_n: Positive = 8
    """N-gram of decontamination."""
    exam_n_cjk: Positive = 13
    """The same for Chinese, Japanese and Korean."""
    exam_overlap: SomeShare = 0.5
    """Share of an exam question's n-grams that counts as contamination."""
    exam_share: SomeShare = 0.7
    """Share, by weight of its words, of an exam question that must be found where words were replaced."""
    exam_evidence: Amount = 30.0
    """Weight of the words (nats, log inverse document frequency) that must match for anything but the same question."""
    exam_stock: Positive = 5
    """Exam items that may have an n-gram in common; one in more is a stock phrase and no evidence."""
    meaning: SomeShare | None = None
    """Cosine of embeddings from which a question that means the same as an exam's or an earlier row's is flagged
    (exam_meaning, same_meaning); null for neither. 0.95 is a start; it takes the extra `meaning`."""
    controls: NotNegative = 20
    """Exam questions that a run plants for each disguise and language, to tell what decontamination finds; 0 for none."""
    conflicts: bool = True
    """Reject questions that occur with different answers."""
    seed: NotNegative = 0
    """Random seed of MinHash, where there is a near_threshold."""
    marks: Annotated[str, Place()] | None = None
    """File of marks (`qt.browse`): bad rows are rejected, edits made, good ones counted."""
