"""Input and output of `Teacher.ask`: validated prompts, requests with their keys, ordered rows, one table."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pandas as pd

Messages = list[dict[str, Any]]
Job = tuple[int, Any, int, Messages]  # row, id, sample, messages


class Request(NamedTuple):
    """A request: its key in the ledger (the hash of `text`), the canonical `text` that is stored, and the body, as
    values and as the JSON that is sent."""

    key: str
    text: str
    body: dict[str, Any]
    sent: str


class Row(NamedTuple):
    """One answer to one prompt: a row of the table that `Teacher.ask` describes."""

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


# Statuses from 400 to 499 that concern the request itself. The others concern a key, an account, a limit, a proxy or an
# address, and may change.
_REQUEST_STATUSES = (400, 406, 411, 412, 413, 414, 415, 416, 417, 418, 422, 431, 451)


def is_transient(outcome: str) -> bool:
    """Whether the same request may be answered another time: after no connection, a timeout, an interruption, a batch
    that ended without it, a 200 without a completion, and any status that does not concern the request itself."""
    status = outcome.removeprefix("http_")
    if status != outcome and status.isdigit():
        return int(status) not in _REQUEST_STATUSES
    return outcome in ("connection", "timeout", "interrupted") or outcome.startswith("batch_")


class Call:
    """One call of ask(): its validated prompts, and the rows as they arrive."""

    def __init__(self, prompts, *, parse=None, samples: int = 1, ids=None):
        if isinstance(prompts, str):
            raise ValueError("prompts is one string: pass a list, ask([prompt])")
        if samples < 1:
            raise ValueError(f"samples is {samples!r}: give 1 or more")
        self._messages = [_to_messages(place, prompt) for place, prompt in enumerate(prompts)]
        self._ids = list(range(len(self._messages))) if ids is None else list(ids)
        if len(self._ids) != len(self._messages):
            raise ValueError(f"ids has {len(self._ids)} entries, prompts {len(self._messages)}: give one each")
        self.parse, self.samples = parse, samples
        self.done, self.cost = 0, 0.0
        self.total = len(self._messages) * samples
        self.rows: list[Row | None] = [None] * self.total
        self.tasks: set = set()  # that work on this call

    def jobs(self) -> Iterator[Job]:
        """(row, id, sample, messages) of every row, in order."""
        row = itertools.count()
        for id, messages in zip(self._ids, self._messages, strict=True):
            for sample in range(self.samples):
                yield next(row), id, sample, messages

    def put(self, index: int, row: Row) -> None:
        """Store a finished row and add its cost; the sum is NaN once a cost is unknown."""
        self.rows[index] = row
        self.done += 1
        self.cost += float("nan") if row.cost is None else row.cost

    def rows_so_far(self) -> list[Row]:
        """All rows; unanswered ones have the outcome "interrupted"."""
        error = "stopped before it was answered; ask again to continue"
        return [
            row or Row(id, sample, "", "interrupted", *(None,) * 7, False, 0, error, ())
            for row, (_, id, sample, _) in zip(self.rows, self.jobs(), strict=True)
        ]


def _to_messages(position: int, prompt: str | Messages) -> Messages:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if not (prompt and all("role" in message for message in prompt)):
        raise ValueError(f"prompt {position} is {prompt!r:.60}: give a string or role/content messages")
    return prompt


def parse_answer(parse: Callable[[str], Any], content: str, id: Any) -> tuple[Any, str | None]:
    """(value, None), or (None, error) if `parse` raises ValueError; other exceptions are bugs in `parse` and
    propagate."""
    try:
        return parse(content), None
    except ValueError as error:
        return None, str(error) or type(error).__name__
    except Exception as error:
        error.add_note(f"raised by parse() on the answer to id {id!r}; the answer is kept, so rerunning is free")
        raise


_DTYPES = {
    **dict.fromkeys(("sample", "attempts"), "int64"),
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "reasoning_tokens"), "Int64"),
    **dict.fromkeys(("key", "outcome", "content", "reasoning", "error"), "str"),
    **{"value": "object", "keys": "object", "cost": "float64", "cached": "bool"},
}


def to_table(rows: list[Row]) -> pd.DataFrame:
    """A table with one line per row; dtypes do not depend on the values."""
    columns = zip(*rows, strict=True) if rows else [()] * len(Row._fields)
    named = zip(Row._fields, columns, strict=True)
    return pd.DataFrame({name: pd.Series(column, dtype=_DTYPES.get(name)) for name, column in named})


def with_calls(table: pd.DataFrame, step: str, keys: Iterable[Iterable[str]]) -> pd.DataFrame:
    """A copy with the ledger keys of a step's requests for each row appended to `calls`."""
    earlier = table["calls"] if "calls" in table else [()] * len(table)
    calls = [[*old, *(f"{step}/{key}" for key in new)] for old, new in zip(earlier, keys, strict=True)]
    return table.assign(calls=pd.Series(calls, index=table.index, dtype=object))


def stop_if_interrupted(replies: pd.DataFrame) -> None:
    """Raise KeyboardInterrupt if Ctrl-C cut a teacher's answers short."""
    if (replies["outcome"] == "interrupted").any():
        raise KeyboardInterrupt
