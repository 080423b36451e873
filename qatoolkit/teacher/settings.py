"""Settings of the teachers and of their client."""

from qatoolkit.core.settings import Amount, Positive, Rate, Settings


class TeacherSettings(Settings):
    """The models behind the endpoint and the client's limits."""

    base_url: str | None = None
    """OpenAI-compatible endpoint; null for OPENAI_BASE_URL or, if that is not set, the offline teacher."""
    synthesiser: str = "textbook-err15"
    """Reasoning model that writes questions."""
    refiner: str = "textbook-err05"
    """Model that answers every question a second time."""
    annotator: str = "textbook-err05"
    """Model that labels discipline, difficulty, grade and knowledge points."""
    in_flight: Positive = 64
    """Most requests in flight at a time."""
    requests_per_minute: Rate | None = None
    """The provider's limit; null for none."""
    tokens_per_minute: Rate | None = None
    """The provider's limit; null for none."""
    timeout: Rate = 120.0
    """Seconds a request may take."""
    attempts: Positive = 6
    """Attempts at a request before it counts as failed."""
    max_tokens: Positive = 4096
    """Most tokens of an answer, reasoning included."""
    temperature: Amount = 0.6
    """Sampling temperature."""
    budget: Amount | None = None
    """Most US dollars to spend on each model and stage; null for no limit."""
    batch: bool = False
    """Ask through the endpoint's Batch API: half the price, answers within a day."""
