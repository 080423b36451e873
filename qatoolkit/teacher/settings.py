"""Settings of the teachers and of their client."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from qatoolkit.core.settings import Amount, Positive, Rate, Settings, Share

OFFLINE = "offline"  # `base_url` of the run's built-in teacher
RESERVED = {"messages": "ask()", "model": "the model", "n": "samples=", "stream": "nothing"}  # what sets each field


class Price(Settings):
    """List price of a model in USD per one million tokens."""

    input: Amount
    """Of the prompt."""
    output: Amount
    """Of the answer, reasoning included."""
    cached_input: Amount | None = None
    """Of the part of a prompt that the server has cached; null for no discount."""

    def cost(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float:
        """USD for one call; `completion_tokens` include reasoning, `prompt_tokens` include cached ones."""
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = prompt_tokens - cached_tokens
        return (fresh * self.input + cached_tokens * cached + completion_tokens * self.output) / 1e6


def read_price(price: Price | Mapping[str, float] | None) -> Price | None:
    """A price given as such or as a mapping of its fields. ValueError, one line, for anything else."""
    if price is None or isinstance(price, Price):
        return price
    example = 'give {"input": 0.27, "output": 1.1}, USD per million tokens, or a qatoolkit.teacher.settings.Price'
    if not isinstance(price, Mapping):
        raise ValueError(f"Teacher price is {price!r}: {example}")
    try:
        return Price(**price)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Teacher price: {error}; {example}") from None


class TeacherSettings(Settings):
    """The models behind the endpoint and the client's limits."""

    base_url: str | None = None
    """OpenAI-compatible endpoint; `offline` for the built-in offline teacher; null for OPENAI_BASE_URL or, if that is
    not set, the offline teacher."""
    endpoint_name: str | None = None
    """Name of the endpoint in the ledger; null for its URL. With a name, answers stay valid if the server moves to
    another host or port."""
    key_env: str | None = "OPENAI_API_KEY"
    """Environment variable with the API key; null to send no Authorization header."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Further HTTP headers -> the environment variable with their value: {OpenAI-Organization: MY_ORG}."""
    synthesiser: str = "textbook-err15"
    """Reasoning model that writes questions."""
    refiner: str = "textbook-err05"
    """Model that answers every question a second time, to check it."""
    annotator: str = "textbook-err05"
    """Model that labels discipline, difficulty, grade and knowledge points."""
    in_flight: Positive = 64
    """Most requests in flight at once."""
    requests_per_minute: Rate | None = None
    """The provider's limit; null for none."""
    tokens_per_minute: Rate | None = None
    """The provider's limit; null for none."""
    timeout: Rate = 120.0
    """Most seconds a request may take."""
    attempts: Positive = 6
    """Attempts at a request before it counts as failed."""
    max_tokens: Positive | None = 4096
    """Most tokens per answer, reasoning included; null sends no limit."""
    temperature: Amount | None = 0.6
    """Sampling temperature; null sends none."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of every request: {enable_thinking: false, max_completion_tokens: 8000}."""
    price: dict[str, Price] = Field(default_factory=dict)
    """USD per million tokens for models that are not in prices.csv or cost something else: {my-model: {input: 0.27,
    output: 1.1}}."""
    budget: Amount | None = None
    """Most USD to spend on each model and stage; null for no limit."""
    accept_missing: Share = 0.0
    """Share of a stage's rows that may be missing because the teacher was unreachable or over its limits. With more,
    the stage is incomplete, and running it again requests only those."""
    batch: bool = False
    """Use the endpoint's Batch API: half the price, answers within a day."""

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, value):
        if value not in (None, OFFLINE):
            check_url(value)
        return value

    @field_validator("key_env", "headers")
    @classmethod
    def _check_variable_names(cls, value):
        check_variables(value.values() if isinstance(value, dict) else [value])
        return value

    @model_validator(mode="after")
    def _check_extra(self):
        if problem := problem_of(self.extra, self.max_tokens):
            raise ValueError(f"extra {problem}")
        return self


def check_url(url: str) -> None:
    """ValueError, worded to follow the setting's name, for an invalid base URL or one with a secret in it."""
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:  # they would appear in the ledger and in messages
        raise ValueError("contains credentials or a query: name the key's variable in key_env")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"is {url!r}: give http(s)://host/path, e.g. .../v1")


def check_variables(names: Iterable[str | None]) -> None:
    """ValueError, worded to follow the setting's name, for an invalid name of an environment variable. The text found
    is not shown, since it may be a key."""
    if not all(name is None or re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) for name in names):
        raise ValueError("does not name an environment variable: give that of the variable with the key, never the key")


def problem_of(extra: Mapping[str, Any], max_tokens: int | None) -> str | None:
    """What is wrong with `extra` as request fields, worded to follow its name; None if nothing is."""
    if reserved := sorted(RESERVED.keys() & extra.keys()):
        return f"may not set {reserved[0]!r}: {RESERVED[reserved[0]]} does"
    if max_tokens and extra.get("max_completion_tokens"):
        return "sets max_completion_tokens as well as max_tokens, and servers refuse both: set max_tokens to null"
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"has a value that JSON can't hold: {error}"
    return None
