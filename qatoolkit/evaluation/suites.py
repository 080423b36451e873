"""What to evaluate on: the run's exams, the papers' twelve benchmarks, lm-eval's task names, a folder of YAMLs, or QA tables.

`paper12.csv` lists twelve benchmarks with the customary number of examples and metric of each. Which twelve the papers used is
not in their abstracts: list, examples and metrics are our reading.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from qatoolkit.evaluation.tasks import checked, export_tasks, form_of, several
from qatoolkit.seeds.files import READERS
from qatoolkit.seeds.read import read_seeds

PAPER12 = Path(__file__).with_name("paper12.csv")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One entry of a suite: a task or group by lm-eval's name; None leaves number of examples, metric or filter to the task,
    whose first metric and filter then count."""

    task: str
    fewshot: int | None = None
    metric: str | None = None
    filter: str | None = None


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tasks to run, and where lm-eval finds them: in a folder of YAMLs, among its own (`defaults`, slow to index), or both.

    `left_out` counts, by task and reason, the rows of an exam that are not asked."""

    name: str
    asked: tuple[Asked, ...]
    include: Path | None = None
    defaults: bool = False
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)

    def manager(self):
        """lm-eval's TaskManager over the suite's places."""
        from lm_eval.tasks import TaskManager

        include = str(self.include) if self.include else None
        return TaskManager(include_path=include, include_defaults=self.defaults)


def paper12() -> tuple[Asked, ...]:
    """The twelve benchmarks of our reading, in its order."""
    with PAPER12.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(Asked(task=r["task"], fewshot=int(r["fewshot"]), metric=r["metric"], filter=r["filter"]) for r in rows)


def suite_of(
    what, workplace: Path, *, names: list[str] | None = None, run=None, form: str | None = None, log=None
) -> Suite:
    """The suite that `what` names: "paper12"; "textbook" (the exported exams of `run`); one or more task names of lm-eval, as a
    list or with commas; a folder of task YAMLs; a QA file that `read_seeds` reads or a list of them, a QA table, or a dict of
    tables by name, asked in `form` (`export_tasks`), for which tasks are written to `workplace`; or a Suite. `names` picks tasks
    of it.

    A file's task has its stem as name. An exam in two languages becomes two tasks: the one of fewer questions adds its language
    ("mine", "mine_zh"). Rows that can't be read, stand twice, or have several right choices where the form needs one are left out
    and counted in `left_out`; `log` is told of all this.

    Raises ValueError for what is none of these and for a `form` of tasks that have one, MissingUpstream for a run that has not
    been evaluated."""
    if isinstance(what, Suite):
        found = what
    elif isinstance(what, str) and what == "paper12":
        found = Suite(name=what, asked=paper12(), defaults=True)
    elif isinstance(what, str) and what == "textbook":
        if run is None:
            raise ValueError("suite 'textbook' is a run's exported exams: pass run=open_run(...)")
        found = _folder(run.read("evaluate").tasks, what)
    elif isinstance(what, pd.DataFrame | dict):
        found = _tables(what if isinstance(what, dict) else {"table": what}, workplace, form, {}, log)
    elif isinstance(what, list | tuple) and any(map(_is_file, what)):
        found = _files(what, workplace, form, log)
    elif isinstance(what, list | tuple):
        if odd := [name for name in what if not isinstance(name, str)]:
            raise ValueError(f"a list of a suite holds task names or QA files, not {type(odd[0]).__name__}")
        found = Suite(name="tasks", asked=tuple(Asked(task=name) for name in what), defaults=True)
    elif isinstance(what, str | Path) and Path(what).is_dir():
        found = _folder(Path(what), Path(what).name)
    elif _is_file(what):
        found = _files([what], workplace, form, log)
    elif isinstance(what, str):
        found = Suite(name=what, asked=tuple(Asked(task=n.strip()) for n in what.split(",")), defaults=True)
    else:
        raise ValueError(f"a suite is a name, a path, a QA table or a Suite, not {type(what).__name__}")
    if form is not None and found.include != workplace / "tasks":
        raise ValueError(
            f"form is {form!r}, but the tasks of suite {found.name!r} have a form of their own; it is for QA files and tables"
        )
    if names is None:
        return found
    known = {asked.task: asked for asked in found.asked}
    return replace(found, asked=tuple(known.get(name, Asked(task=name)) for name in names))


def _is_file(what) -> bool:
    return isinstance(what, Path) or (isinstance(what, str) and (Path(what).suffix in READERS or Path(what).is_file()))


def _files(files, workplace: Path, form: str | None, log) -> Suite:
    """The suite of QA files, each a task by its stem."""
    tables, rejected = {}, {}
    for file in files:
        if not isinstance(file, str | Path) or not Path(file).is_file():
            mixed = "; a list holds QA files alone or task names alone" if len(files) > 1 else ""
            raise ValueError(f"suite {file}: there is no such file or folder{mixed}")
        name = Path(file).stem
        if name in tables:
            raise ValueError(f"suite {file}: another file is called {name!r} too, the name of its task; rename one")
        table, rejects = read_seeds([str(file)])
        rejected[name] = rejects["reason"].value_counts().to_dict()
        if table.empty:
            raise ValueError(f"suite {file}: no question could be read, {told(rejected[name])}")
        tables[name] = table
    return _tables(tables, workplace, form, rejected, log)


def _tables(tables: dict, workplace: Path, form: str | None, left_out: dict, log) -> Suite:
    """The suite of QA tables by name, of which `left_out` counts what has been left out already."""
    log, parts, left_out = log or (lambda said: None), {}, dict(left_out)
    if lost := [name for name, table in tables.items() if table.empty]:
        raise ValueError(f"QA tables without a question: {', '.join(lost)}")
    for name, table in tables.items():
        own = _by_language(name, checked(name, table))
        if taken := [task for task in own if task in parts or (task != name and task in tables)]:
            raise ValueError(f"suite: two exams would be tasks of the name {taken[0]!r}; rename one")
        if len(own) > 1:
            log(f"{name}: a task for each language, {', '.join(own)}")
        parts |= own
    for task, table in parts.items():
        chosen, many, lacking = form_of(table, form), several(table), table["choices"].isna()
        if chosen != "generative" and many.any() and not many.all():
            parts[task] = table[~many]
            left_out[task] = left_out.get(task, {}) | {"several_answers": int(many.sum())}
        if form is None and lacking.any() and not lacking.all():
            log(
                f"{task}: {lacking.sum():,} of {len(table):,} questions have no choices, so all are asked in form 'generative'; "
                "those with choices can be a file of their own"
            )
        if left_out.get(task):
            log(f"{task}: {told(left_out[task])}")
    return Suite(
        name=",".join(tables),
        asked=tuple(Asked(task=task) for task in parts),
        include=export_tasks(parts, workplace / "tasks", form=form),
        left_out=left_out,
    )


def _by_language(name: str, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The exam as one of each language: the commonest keeps the name, others add theirs to it."""
    languages = table["language"].value_counts().index
    return {
        f"{name}_{language}" if i else name: table[table["language"] == language]
        for i, language in enumerate(languages)
    }


def told(counts: dict[str, int]) -> str:
    """Counts by reason as a sentence: "3 rows left out (2 duplicate, 1 no_answer)"."""
    return f"{sum(counts.values()):,} rows left out ({', '.join(f'{n:,} {reason}' for reason, n in counts.items())})"


def _folder(folder: Path, name: str) -> Suite:
    found = Suite(name=name, asked=(), include=folder)
    tasks = found.manager().all_subtasks
    if not tasks:
        raise ValueError(f"suite {folder}: no task YAML there that lm-eval can read")
    return replace(found, asked=tuple(Asked(task=task) for task in tasks))


def leaves(manager, name: str, changes: dict | None = None) -> Iterator[tuple[str, str | dict]]:
    """(name, what `manager.load` takes) of every single task of a task, group or tag, from the index alone: no data is read.

    ValueError for a name that the index does not hold, with the nearest ones."""
    from lm_eval.tasks._yaml_loader import load_yaml

    entry, changes = manager.task_index.get(name), changes or {}
    if entry is None:
        near = get_close_matches(name, manager.all_tasks, n=3)
        raise ValueError(
            f"no lm-eval task or group is called {name!r}" + (f"; did you mean {', '.join(near)}?" if near else "")
        )
    if entry.kind.name == "TAG":
        for task in sorted(entry.tags):
            yield from leaves(manager, task, changes)
    elif entry.kind.name == "GROUP":
        yield from _members(manager, name, load_yaml(entry.yaml_path) if entry.yaml_path else entry.cfg, changes)
    else:
        yield name, (load_yaml(entry.yaml_path) | changes | {"task": name} if changes else name)


def _members(manager, group: str, config: dict, changes: dict) -> Iterator[tuple[str, str | dict]]:
    """The single tasks of a group, with what the group changes in them."""
    from lm_eval.config.group import GroupConfig

    own = {f.name for f in fields(GroupConfig)} | {"tag"}
    shared = {k: v for k, v in config.items() if k not in own} | changes
    for member in config["task"]:
        member = {"task": member} if isinstance(member, str) else member
        name = member.get("group", member.get("task"))
        more = shared | {k: v for k, v in member.items() if k not in ("group", "task")}
        if name in manager.task_index:
            yield from leaves(manager, name, more)
        elif "group" in member:
            yield from _members(manager, f"{group}::{name}", member, shared)
        else:
            yield f"{group}::{name}", more | {"task": f"{group}::{name}"}
