"""What goes into a call of `Teacher.ask` and what comes out of it: prompts checked, rows in order, one table."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pandas as pd

Messages = list[dict[str, Any]]
Job = tuple[int, Any, int, Messages]  # row, id, sample, messages


class Row(NamedTuple):
    """One answer to one prompt; the columns of what `Teacher.ask` returns, described there."""

    id: Any
    sample: int
    key: str
    outcome: str
    value: Any
    content: str | None
    reasoning: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    cost: float | None
    cached: bool
    attempts: int
    error: str | None
    keys: tuple[str, ...]


class Ask:
    """One call of ask(): its jobs, checked, and the rows as they come."""

    def __init__(self, prompts, *, parse=None, samples: int = 1, ids=None):
        if isinstance(prompts, str):
            raise ValueError("prompts is one string: pass a list, ask([prompt])")
        self.prompts = list(prompts)
        self.ids = list(range(len(self.prompts))) if ids is None else list(ids)
        if len(self.ids) != len(self.prompts):
            raise ValueError(f"ids has {len(self.ids)} entries, prompts {len(self.prompts)}: give one each")
        self.parse, self.samples = parse, checked(samples)
        self.done, self.cost = 0, 0.0
        for place, prompt in enumerate(self.prompts):
            _as_messages(place, prompt)
        self.total = len(self.prompts) * samples
        self.rows: list[Row | None] = [None] * self.total

    def jobs(self) -> Iterator[Job]:
        return jobs_of(self.prompts, self.ids, self.samples)

    def put(self, index: int, row: Row) -> None:
        """A row is answered; its cost counts, NaN once one is unknown."""
        self.rows[index] = row
        self.done += 1
        self.cost += float("nan") if row.cost is None else row.cost

    def finished(self) -> list[Row]:
        """The rows, those that were not answered marked as interrupted."""
        told = "stopped before it was answered; ask again to go on"
        missing = (None,) * 7
        return [
            row or Row(id, sample, "", "interrupted", *missing, False, 0, told, ())
            for row, (_, id, sample, _) in zip(self.rows, self.jobs(), strict=True)
        ]


def jobs_of(prompts: Iterable[str | Messages], ids: Iterable[Any], samples: int) -> Iterator[Job]:
    """(row, id, sample, messages) of every row, in order; ValueError for something that is no prompt."""
    for place, (prompt, id) in enumerate(zip(prompts, ids, strict=False)):
        messages = _as_messages(place, prompt)
        for sample in range(samples):
            yield place * samples + sample, id, sample, messages


def _as_messages(place: int, prompt: str | Messages) -> Messages:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if not (prompt and all("role" in message for message in prompt)):
        raise ValueError(f"prompt {place} is {prompt!r:.60}: give a string or role/content messages")
    return prompt


def checked(samples: int) -> int:
    """`samples`, or ValueError when it is below 1."""
    if samples < 1:
        raise ValueError(f"samples is {samples!r}: give 1 or more")
    return samples


def parsed(parse: Callable[[str], Any], content: str, id: Any) -> tuple[Any, str | None]:
    """The parsed value, or the parser's complaint (ValueError); any other error is the parser's bug."""
    try:
        return parse(content), None
    except ValueError as error:
        return None, str(error) or type(error).__name__
    except Exception as error:
        error.add_note(f"raised by parse() on the answer to id {id!r}; the answer is kept: rerunning is free")
        raise


_DTYPES = {
    **dict.fromkeys(("sample", "attempts"), "int64"),
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "reasoning_tokens"), "Int64"),
    **dict.fromkeys(("key", "outcome", "content", "reasoning", "error"), "str"),
    **{"value": "object", "keys": "object", "cost": "float64", "cached": "bool"},
}


def table_of(rows: list[Row]) -> pd.DataFrame:
    """Rows as a table, the same types whatever is in them."""
    columns = zip(*rows, strict=True) if rows else [()] * len(Row._fields)
    named = zip(Row._fields, columns, strict=True)
    return pd.DataFrame({name: pd.Series(column, dtype=_DTYPES.get(name)) for name, column in named})
