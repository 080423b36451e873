"""Settings of curation."""

from typing import Annotated, Literal

from pydantic import Field

from qatoolkit.core.settings import Amount, NotNegative, Place, Positive, Settings, SomeShare

REJECTED = (
    "empty_question", "empty_answer", "too_long", "choices", "no_choices", "language", "echo", "refusal",
)  # fmt: skip
FLAGGED = (
    "rationale_echo", "truncated", "latex", "private", "answer_in_question", "unreadable", "exam_parent",
)  # fmt: skip


class CurateSettings(Settings):
    """Filters, near-duplicates and decontamination. N-grams are counted in tokens: a word or one CJK character."""

    max_question: Positive = 20_000
    """Maximum characters of a question."""
    max_answer: Positive = 20_000
    """Maximum characters of an answer."""
    echo: SomeShare = 0.8
    """An answer or rationale is an echo if it repeats this share of the question and adds almost nothing."""
    reject: tuple[Literal[(*REJECTED, *FLAGGED)], ...] = REJECTED
    """Filter reasons that reject a row; rows with the other reasons are kept and counted as flagged. Of these,
    exam_parent is a row written from a seed that an exam has."""
    near_threshold: SomeShare | None = None
    """Jaccard similarity of shingles at which two rows are near-duplicates, opposites too; null compares questions word
    by word instead, ignoring only requests, articles, punctuation and the like."""
    shingle: Positive = 2
    """Tokens of a shingle; used with near_threshold."""
    on: tuple[str, ...] = Field(("question", "answer"), min_length=1)
    """Columns compared for near-duplicates: the first by its words, the others must be equal."""
    exam_n: Positive = 8
    """Tokens of an n-gram in decontamination."""
    exam_n_cjk: Positive = 13
    """The same for Chinese, Japanese and Korean."""
    exam_overlap: SomeShare = 0.5
    """Share of an exam question's tokens covered by common n-grams that counts as contamination."""
    exam_share: SomeShare = 0.7
    """Share, by weight of its words, of an exam question that must match where words were replaced."""
    exam_evidence: Amount = 30.0
    """Least total weight of the matching words (nats, log inverse document frequency), except for an identical
    question."""
    exam_stock: Positive = 5
    """Exam items that may share an n-gram; an n-gram in more items is a stock phrase and no evidence."""
    meaning: SomeShare | None = None
    """Cosine of embeddings at which a question is flagged as meaning the same as an exam question or an earlier row
    (exam_meaning, same_meaning); null to skip. Start with 0.95; needs the extra `meaning`."""
    controls: NotNegative = 20
    """Exam questions planted for each disguise and language, to measure what decontamination finds; 0 for none."""
    conflicts: bool = True
    """Reject questions that occur with different answers."""
    seed: NotNegative = 0
    """Random seed of MinHash; used with near_threshold."""
    marks: Annotated[str, Place()] | None = None
    """File of marks (`qt.browse`): rows marked bad are rejected, edits applied, good ones counted."""
