"""The registry of synthesis strategies: their settings, how they write, and how many requests they send.

A strategy is one `Strategy` object; curation, lineage, cost, training, figures and the paired tables loop over the data
sets that a profile makes with it. `register` adds one, from inside the package or outside (docs/extending.md)."""

import importlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pandas as pd

from qatoolkit.core.bounds import check_name
from qatoolkit.core.qa_table import require
from qatoolkit.core.settings import Settings

# Modules of this package that register the strategy of the same name on import, and the notebook about each.
PACKAGED = {"boostqa": "04_boostqa", "linkqa": "05_linkqa"}


@dataclass(frozen=True, kw_only=True)
class Context:
    """Input of a strategy: annotated `seeds`, the `plan` (cells with `budget` and `deficit`), the `teachers`
    (synthesiser, refiner, annotator), all `profile` settings, the strategy's `settings`, the random `seed`, a `folder`
    for its files, and the number of the `wave`: each wave of a data set must send requests that no earlier one sent."""

    seeds: pd.DataFrame
    plan: pd.DataFrame
    teachers: Any
    profile: Any
    settings: Settings
    seed: int
    folder: Path
    wave: int = 0


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One way to write questions.

    `write(context)` returns {"made": questions as written and labelled, "questions": those accepted after refinement,
    "rejects": the rest with `reason` and `detail`} and further results (tables, JSON values, None for a folder it
    wrote). `requests(profile, questions)` returns (writing requests, questions to label) for the cost estimate.
    `settings` is its settings class, `prompts` the templates it sends, `reads` further groups of a profile that its
    result depends on. Optional: `asks(context)`, the table of requests that `write` would send first, for a preview;
    `out_of_reach`, the difficulties that it can't write with the reason, so that waves don't request them.

    >>> import qatoolkit as qt
    >>> from qatoolkit.core.settings import Positive, Settings
    >>> class Echo(Settings):
    ...     most: Positive = 100
    >>> def write(context):
    ...     made = context.seeds.head(context.settings.most)
    ...     return {"made": made, "questions": made, "rejects": made[:0]}
    >>> echo = qt.Strategy(name="echo", settings=Echo, write=write, requests=lambda profile, n: (0, 0), prompts=())
    >>> echo.checked({"most": 5})
    Echo(most=5)
    """

    name: str
    settings: type[Settings]
    write: Callable[[Context], dict]
    requests: Callable[[Any, int], tuple[float, float]]
    prompts: tuple[str, ...]
    reads: tuple[str, ...] = ()
    asks: Callable[[Context], pd.DataFrame] | None = None
    out_of_reach: Mapping[str, str] = field(default_factory=dict)

    def checked(self, values: dict) -> Settings:
        """Validate plain values as the strategy's settings; ValueError that names the field."""
        try:
            return self.settings(**values)
        except ValueError as error:
            raise ValueError(f"strategies.{self.name}: {error}") from None

    def groups(self, profile) -> tuple[str, ...]:
        """The groups of a profile that its result depends on."""
        group = self.name if hasattr(profile, self.name) else "strategies"
        return tuple(dict.fromkeys(["teacher", "plan", "measure", group, *self.reads]))

    def settings_in(self, profile) -> Settings:
        """Its settings in a profile: the group with its name, else the entry under `strategies`."""
        found = getattr(profile, self.name, None)
        return found if isinstance(found, self.settings) else self.checked(profile.strategies.get(self.name, {}))


_REGISTERED: dict[str, Strategy] = {}


def register(entry: Strategy) -> Strategy:
    """Register a strategy under its name, replacing an earlier one; ValueError for a name that can't name a folder.

    >>> import qatoolkit as qt
    >>> from qatoolkit.core.settings import Settings
    >>> def write(context):
    ...     return {"made": context.seeds, "questions": context.seeds, "rejects": context.seeds[:0]}
    >>> echo = qt.Strategy(name="echo", settings=Settings, write=write, requests=lambda profile, n: (0, 0), prompts=())
    >>> qt.register(echo).name
    'echo'
    >>> qt.load_profile("smoke", arms={"echo": ["echo"]}).arms["echo"]
    ('echo',)
    """
    check_name(entry.name, "strategy")
    _REGISTERED[entry.name] = entry
    return entry


def strategy(name: str) -> Strategy:
    """The strategy of this name; ValueError lists the available ones."""
    if name in PACKAGED and name not in _REGISTERED:
        importlib.import_module(f"qatoolkit.synthesis.{name}")
    if name not in _REGISTERED:
        available = ", ".join(dict.fromkeys([*PACKAGED, *_REGISTERED]))
        raise ValueError(
            f"no strategy is called {name!r}; available: {available} (register others before the profile is loaded)"
        )
    return _REGISTERED[name]


def is_known(name: str) -> bool:
    """Whether a strategy of this name is registered or part of the package."""
    return name in PACKAGED or name in _REGISTERED


def synthesise(
    seeds: pd.DataFrame,
    plan: pd.DataFrame,
    teacher,
    *,
    name: str = "boostqa",
    settings: Settings | None = None,
    refiner=None,
    annotator=None,
    seed: int = 0,
    folder: Path | None = None,
) -> dict:
    """Write the questions of a plan (`budget.plan_budget`) from annotated seeds, without a run; returns the result of
    the strategy's `write`: `made`, `questions`, `rejects` and more. Defaults: `teacher` for `refiner` and `annotator`,
    the strategy's default `settings`, a temporary `folder` for files that a strategy stores (LinkQA's graph).
    ValueError for seeds without labels.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> row = {"question": "What is the chemical formula of water?", "answer": "H2O", "grade": "middle"}
    >>> seeds = qt.qa_table([row], language="en", source="mine", discipline="chemistry", difficulty="H1")
    >>> plan = pd.DataFrame({"discipline": ["chemistry"], "difficulty": ["H1"], "deficit": [0.4], "budget": [2]})
    >>> with qt.offline_teacher("textbook") as teacher:
    ...     result = qt.synthesise(seeds, plan, teacher)
    >>> result["questions"]["question"].tolist()
    ['Which of the answers is the chemical formula of water?', 'Determine the chemical formula of water.']
    """
    chosen = strategy(name)
    require("synthesise", seeds, "id", "question", "language", "discipline", "difficulty", "grade")
    teachers = SimpleNamespace(synthesiser=teacher, refiner=refiner or teacher, annotator=annotator or teacher)
    with nullcontext(folder) if folder else TemporaryDirectory(prefix="qatoolkit-") as directory:
        return chosen.write(
            Context(
                seeds=seeds,
                plan=plan,
                teachers=teachers,
                profile=None,
                settings=settings or chosen.settings(),
                seed=seed,
                folder=Path(directory),
            )
        )
