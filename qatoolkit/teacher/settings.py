"""Settings of the teachers and of their client."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from qatoolkit.core.settings import Amount, Positive, Rate, Settings, Share

OFFLINE = "offline"  # as `base_url`: the teacher of the run's own world
BY_ASK = {"messages": "ask()", "model": "the model", "n": "samples=", "stream": "nothing"}  # what sets these fields


class Price(Settings):
    """List price of a model in USD per one million tokens."""

    input: Amount
    """Of the prompt."""
    output: Amount
    """Of the answer, reasoning included."""
    cached_input: Amount | None = None
    """Of the part of a prompt that the server had cached; null for no discount."""

    def cost(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float:
        """USD for one call; `completion_tokens` include reasoning, `prompt_tokens` include cached ones."""
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = prompt_tokens - cached_tokens
        return (fresh * self.input + cached_tokens * cached + completion_tokens * self.output) / 1e6


class TeacherSettings(Settings):
    """The models behind the endpoint and the client's limits."""

    base_url: str | None = None
    """OpenAI-compatible endpoint; offline for the teacher of the run's own world; null for OPENAI_BASE_URL or, if that
    is not set, the teacher of the run's own world."""
    endpoint_name: str | None = None
    """Name of the endpoint in the ledger; null for its URL. With a name, a server that moves to another host or port
    keeps its answers."""
    key_env: str | None = "OPENAI_API_KEY"
    """Environment variable with the API key; null for a server that wants no Authorization header."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Further HTTP headers, each with the environment variable that has its value: {OpenAI-Organization: MY_ORG}."""
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
    max_tokens: Positive | None = 4096
    """Most tokens of an answer, reasoning included; null sends no limit."""
    temperature: Amount | None = 0.6
    """Sampling temperature; null sends none."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of every request: {enable_thinking: false, max_completion_tokens: 8000}."""
    price: dict[str, Price] = Field(default_factory=dict)
    """US dollars per million tokens of models that are not listed in prices.csv or cost something else:
    {my-model: {input: 0.27, output: 1.1}}."""
    budget: Amount | None = None
    """Most US dollars to spend on each model and stage; null for no limit."""
    accept_missing: Share = 0.0
    """Share of the rows a stage asks for that may be missing because the teacher could not be reached or was over its
    limits; with more, the stage is incomplete, and running it again asks for those alone."""
    batch: bool = False
    """Ask through the endpoint's Batch API: half the price, answers within a day."""

    @field_validator("base_url")
    @classmethod
    def _url(cls, value):
        if value not in (None, OFFLINE):
            check_url(value)
        return value

    @field_validator("key_env", "headers")
    @classmethod
    def _variables(cls, value):
        check_variables(value.values() if isinstance(value, dict) else [value])
        return value

    @model_validator(mode="after")
    def _body(self):
        if problem := problem_of(self.extra, self.max_tokens):
            raise ValueError(f"extra {problem}")
        return self


def check_url(url: str) -> None:
    """ValueError, worded to follow the setting's name, for a base URL that is none or has a secret in it."""
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:  # they would end up in the ledger and in messages
        raise ValueError("contains credentials or a query: name the key's variable in key_env")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"is {url!r}: give http(s)://host/path, e.g. .../v1")


def check_variables(names: Iterable[str | None]) -> None:
    """ValueError, worded to follow the setting's name and without the text found, which may be a key, where one of the
    names is no environment variable's."""
    if not all(name is None or re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) for name in names):
        raise ValueError("names no environment variable: give the name of the variable that has the key, never the key")


def problem_of(extra: Mapping[str, Any], max_tokens: int | None) -> str | None:
    """What is wrong with `extra` as further fields of a request, worded to follow its name; None if nothing is."""
    if reserved := sorted(BY_ASK.keys() & extra.keys()):
        return f"may not set {reserved[0]!r}: {BY_ASK[reserved[0]]} does"
    if max_tokens and extra.get("max_completion_tokens"):
        return "sets max_completion_tokens beside max_tokens, and servers refuse both: set max_tokens to null"
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"has a value that JSON can't hold: {error}"
    return None
