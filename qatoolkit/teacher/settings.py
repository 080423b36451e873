"""Settings of the teachers and of the client that asks them."""

from qatoolkit.core.settings import Amount, Positive, Rate, Settings


class TeacherSettings(Settings):
    """The models behind the endpoint and the client's limits."""

    base_url: str | None = None
    """OpenAI-compatible endpoint; null takes OPENAI_BASE_URL, and without that the offline teacher."""
    synthesiser: str = "textbook-err15"
    """Reasoning model that writes questions."""
    refiner: str = "textbook-err05"
    """Model that answers every question again."""
    annotator: str = "textbook-err05"
    """Model that labels discipline, difficulty, grade and knowledge points."""
    in_flight: Positive = 64
    """Requests under way at once."""
    timeout: Rate = 120.0
    """Seconds a request may take."""
    attempts: Positive = 6
    """Attempts at a request before it is given up."""
    max_tokens: Positive = 4096
    """Tokens of an answer, reasoning included."""
    temperature: Amount = 0.6
    """Sampling temperature."""
    budget: Amount | None = None
    """US dollars for each model and stage; null for no limit."""
    batch: bool = False
    """Ask through the endpoint's Batch API: half the price, answers within a day."""
