"""Steps with a teacher over Parquet shards: one client per worker, one ledger for all.

The workers are on the machine of the ledger, also where Ray has joined a cluster: a core sends some thousand requests a
second, more than most endpoints answer. The ledger's leases keep two workers from sending the same request, divide the
teacher's limits among those that run, and are free at once when a worker is killed. So a kill costs what was in flight.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from qatoolkit.core.shards import ROWS, identity, map_shards
from qatoolkit.run.asked import Asked
from qatoolkit.teacher import prompts
from qatoolkit.teacher.client import Endpoint, Teacher
from qatoolkit.teacher.ledger import Ledger

SAMPLING = {"model": None, "max_tokens": 8192, "temperature": 0.6, "extra": None}  # what shapes an answer


def ask_shards(
    step: Callable[..., Any],
    source,
    out: str | Path,
    *,
    ledger: str | Path,
    teachers: Mapping[str, Mapping[str, Any]],
    key: Any = None,
    accept_missing: float = 0.0,
    engine: str = "local",
    workers: int = 2,
    rows_per_shard: int = ROWS,
    progress: bool = False,
) -> pd.DataFrame:
    """`map_shards` for a step that asks teachers: `step(table, **teachers)` with a `Teacher` for each name in `teachers`,
    made of these options (`Teacher`; one ledger and the division of limits are given). The limits are those of all
    workers together, and `budget` is shared through the ledger.

    `key` is what the result depends on beside the step's name, the models and their sampling, and the versions of the
    prompts, which are in it. Besides what `map_shards` raises: TeacherError, BudgetError, and Incomplete where a worker has
    more than the share `accept_missing` of its rows unanswered. What was answered is in the ledger, so the same call again
    asks for the rest alone.

    >>> import qatoolkit as qt
    >>> table = qt.qa_table([{"question": "What is the chemical formula of water?", "answer": "H2O"}], language="en", source="a")
    >>> with qt.offline_teacher("textbook") as there:
    ...     about = {"model": "textbook", "endpoint": there.endpoint}
    ...     done = qt.ask_shards(qt.annotate, table, "labelled", ledger="ledger.sqlite", teachers={"teacher": about})
    >>> [table["discipline"].tolist() for table in qt.read_shards("labelled")]
    [['chemistry']]
    """
    about = {name: _sampling(options) for name, options in teachers.items()}
    asking = _Asking(step, Path(ledger).absolute(), dict(teachers), accept_missing)
    return map_shards(
        asking, source, out, key=[identity(step, key), about, prompts.VERSIONS], engine=engine, workers=workers,
        rows_per_shard=rows_per_shard, progress=progress,
    )  # fmt: skip


def _sampling(options: Mapping) -> dict:
    """What of a teacher's options shapes its answers."""
    endpoint = options.get("endpoint") or Endpoint.from_env()
    return {name: options.get(name, default) for name, default in SAMPLING.items()} | {"endpoint": endpoint.name}


class _Asking:
    """A step with its teachers, opened in each worker."""

    here = True  # its workers are on the machine of the ledger

    def __init__(self, step, ledger: Path, teachers: dict, accept_missing: float):
        self._step, self._ledger, self._teachers, self._accept = step, ledger, teachers, accept_missing

    def __enter__(self) -> Callable[[pd.DataFrame], Any]:
        self._stack = ExitStack()
        ledger, asked = self._stack.enter_context(Ledger(self._ledger)), Asked()
        by = {name: asked.watch(Teacher(ledger=ledger, shared=True, **about)) for name, about in self._teachers.items()}
        return partial(self._answered, asked, by)

    def __exit__(self, *_) -> None:
        self._stack.close()

    def _answered(self, asked: Asked, by: dict[str, Teacher], table: pd.DataFrame):
        made = self._step(table, **by)
        asked.require(self._accept)
        return made
