"""Settings of the embedded textbook world."""

from qatoolkit.core.settings import Positive, Settings, Share


class TextbookSettings(Settings):
    """Size of the textbook world, and how much of it the general corpus covers."""

    entities: Positive | None = None
    """Entities per discipline; null for all."""
    entities_zh: Positive | None = None
    """The same in Chinese."""
    relations: Positive | None = None
    """Relations per table; null for all."""
    families: Positive | None = None
    """Kinds of formula problem; null for all."""
    seeds: Positive = 40
    """Seed questions per cell of discipline and difficulty."""
    exam: Positive = 20
    """Exam questions per cell."""
    plain: Share = 1.0
    """Share of questions outside STEM, at H1, that the general corpus covers; 0.85 of it at H2 and 0.7 at H3."""
    stem: Share = 0.12
    """The same in STEM."""
    high: Share = 0.06
    """The same outside STEM, at H4 and H5."""
    stem_high: Share = 0.04
    """The same in STEM, at H4 and H5."""
    review: Share = 0.5
    """Share of the general corpus that is review questions; the others are statements."""
