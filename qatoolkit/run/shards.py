"""Steps with a teacher over Parquet shards: one client per worker, one ledger for all.

All workers run on the machine of the ledger, even if Ray has joined a cluster: a core sends about a thousand requests
per second, more than most endpoints answer. The ledger's leases keep two workers from sending the same request, divide
the teacher's limits among the running workers, and are released at once when a worker is killed, so that a kill costs
only the requests in flight."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import pandas as pd

from qatoolkit.core.shards import ROWS, identity, map_shards
from qatoolkit.run.answer_counts import AnswerCounts
from qatoolkit.teacher import prompts
from qatoolkit.teacher.client import Endpoint, Teacher
from qatoolkit.teacher.ledger import Ledger

SAMPLING = ("model", "max_tokens", "temperature", "extra")  # the options of a teacher that shape its answers


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
    """`map_shards` for a step that asks teachers: `step(table, **teachers)` gets a `Teacher` for each name in
    `teachers`, made with these options (the ledger and the division of limits are set here). The limits are those of
    all workers together, and `budget` is shared through the ledger.

    `key` is what the result depends on besides the step's name, the models, their sampling and the versions of the
    prompts, which are always part of it. Raises what `map_shards` raises, TeacherError, BudgetError, and Incomplete if
    a worker has more than the share `accept_missing` of its rows unanswered. Answers are in the ledger, so the same
    call again requests only the rest.

    >>> import qatoolkit as qt
    >>> table = qt.qa_table([{"question": "What is the chemical formula of water?", "answer": "H2O"}], language="en", source="a")
    >>> with qt.offline_teacher("textbook") as offline:
    ...     options = {"model": "textbook", "endpoint": offline.endpoint}
    ...     done = qt.ask_shards(qt.annotate, table, "labelled", ledger="ledger.sqlite", teachers={"teacher": options})
    >>> [table["discipline"].tolist() for table in qt.read_shards("labelled")]
    [['chemistry']]
    """
    sampling = {name: _sampling(options) for name, options in teachers.items()}
    asking = _Asking(step, Path(ledger).absolute(), dict(teachers), accept_missing)
    return map_shards(
        asking, source, out, key=[identity(step, key), sampling, prompts.VERSIONS], engine=engine, workers=workers,
        rows_per_shard=rows_per_shard, progress=progress,
    )  # fmt: skip


def _sampling(options: Mapping) -> dict:
    """The options of `SAMPLING`, where they are not given those of `Teacher`, and the endpoint's name."""
    defaults = {name: option.default for name, option in signature(Teacher).parameters.items()} | {"model": None}
    endpoint = options.get("endpoint") or Endpoint.from_env()
    return {name: options.get(name, defaults[name]) for name in SAMPLING} | {"endpoint": endpoint.name}


class _Asking:
    """A step with its teachers, opened in each worker."""

    here = True  # its workers are on the machine of the ledger

    def __init__(self, step, ledger: Path, teachers: dict, accept_missing: float):
        self._step, self._ledger, self._teachers, self._accept = step, ledger, teachers, accept_missing

    def __enter__(self) -> Callable[[pd.DataFrame], Any]:
        self._stack = ExitStack()
        ledger, asked = self._stack.enter_context(Ledger(self._ledger)), AnswerCounts()
        clients = {
            name: asked.watch(Teacher(ledger=ledger, shared=True, **options))
            for name, options in self._teachers.items()
        }
        return partial(self._run_step, asked, clients)

    def __exit__(self, *_) -> None:
        self._stack.close()

    def _run_step(self, asked: AnswerCounts, clients: dict[str, Teacher], table: pd.DataFrame):
        made = self._step(table, **clients)
        asked.require(self._accept)
        return made
