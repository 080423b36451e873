"""Suites to evaluate on: a run's exams, the papers' twelve benchmarks, lm-eval tasks, a folder of task YAMLs, or QA
tables.

`paper12.csv` lists twelve benchmarks with the usual number of examples and metric of each. The papers' abstracts do not
name the twelve: benchmarks, examples and metrics are our reading.
"""

import csv
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path

import pandas as pd
import yaml

from qatoolkit.core.bounds import read_yaml
from qatoolkit.evaluation.tasks import check_exam, choose_form, export_tasks, has_several_answers
from qatoolkit.seeds.files import READERS
from qatoolkit.seeds.read import read_seeds

PAPER12 = Path(__file__).with_name("paper12.csv")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of a suite: a task or group by its lm-eval name. None takes the task's number of examples, first metric
    or first filter."""

    task: str
    fewshot: int | None = None
    metric: str | None = None
    filter: str | None = None


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tasks to run, and where lm-eval finds them: in the folder `include`, among its built-in tasks (`defaults`, slow
    to index), or both.

    `left_out` counts, by task and reason, the rows of an exam that are not asked."""

    name: str
    entries: tuple[Entry, ...]
    include: Path | None = None
    defaults: bool = False
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)

    def manager(self):
        """lm-eval's TaskManager for this suite."""
        from lm_eval.tasks import TaskManager

        include = str(self.include) if self.include else None
        return TaskManager(include_path=include, include_defaults=self.defaults)


def paper12() -> tuple[Entry, ...]:
    """The twelve benchmarks of our reading, in the order of `paper12.csv`."""
    with PAPER12.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(Entry(task=r["task"], fewshot=int(r["fewshot"]), metric=r["metric"], filter=r["filter"]) for r in rows)


def resolve_suite(
    what, workplace: Path, *, names: list[str] | None = None, run=None, form: str | None = None, log=None
) -> Suite:
    """The suite that `what` describes, restricted to the tasks `names` if given. `what` is one of:

    - "paper12", or "exams", the exported QA tables among the exams of `run`;
    - lm-eval task names, as a list or separated by commas; or a folder of task YAMLs;
    - a QA file that `read_seeds` reads, a list of such files, a QA table, or a dict of tables by name: tasks for these
      are written to `workplace`, asked in `form` (`export_tasks`);
    - a Suite, returned unchanged.

    A file's task is named after the file, without suffix. An exam in two languages becomes two tasks; the language with
    fewer questions adds its code to the name ("mine", "mine_zh"). Rows that can't be read, are duplicates, or have
    several right choices where the form needs one are left out and counted in `left_out`; `log` receives a line about
    each task.

    Raises ValueError for anything else and for a `form` with tasks that define their own, MissingUpstream for a run
    without results."""
    if isinstance(what, Suite):
        found = what
    elif isinstance(what, pd.DataFrame | dict):
        if odd := [
            name for name, table in what.items() if isinstance(what, dict) and not isinstance(table, pd.DataFrame)
        ]:
            raise ValueError(f"{odd[0]!r} of the suite is not a table; qt.read_seeds(path)[0] reads one from a file")
        found = _from_tables(what if isinstance(what, dict) else {"table": what}, workplace, form, {}, log)
    elif isinstance(what, list | tuple) and any(map(_is_file, what)):
        found = _from_files(what, workplace, form, log)
    elif isinstance(what, list | tuple):
        if odd := [name for name in what if not isinstance(name, str)]:
            raise ValueError(
                f"a suite given as a list must contain task names or QA files, not {type(odd[0]).__name__}"
            )
        found = _from_names("tasks", what)
    elif isinstance(what, str) and what == "paper12":
        found = Suite(name=what, entries=paper12(), defaults=True)
    elif isinstance(what, str) and what == "exams":
        if run is None:
            raise ValueError("suite 'exams' needs the run that exported them: pass run=open_run(...)")
        found = _from_folder(run.read("evaluate").tasks, what)
    elif isinstance(what, str | Path) and Path(what).is_dir():
        found = _from_folder(Path(what), Path(what).name)
    elif _is_file(what):
        found = _from_files([what], workplace, form, log)
    elif isinstance(what, str):
        found = _from_names(what, what.split(","))
    else:
        raise ValueError(f"a suite must be a name, a path, a QA table or a Suite, not {type(what).__name__}")
    if form is not None and found.include != workplace / "tasks":
        raise ValueError(
            f"form is {form!r}, but the tasks of suite {found.name!r} define theirs; form= is for QA files and tables"
        )
    if names is None:
        return found
    known = {entry.task: entry for entry in found.entries}
    return replace(found, entries=tuple(known.get(name, Entry(task=name)) for name in names))


def _is_file(what) -> bool:
    return isinstance(what, Path) or (isinstance(what, str) and (Path(what).suffix in READERS or Path(what).is_file()))


def _from_names(name: str, tasks) -> Suite:
    return Suite(name=name, entries=tuple(Entry(task=task.strip()) for task in tasks), defaults=True)


def _from_folder(folder: Path, name: str) -> Suite:
    for path in sorted((*folder.rglob("*.yaml"), *folder.rglob("*.yml"))):
        with suppress(yaml.YAMLError, UnicodeDecodeError):  # lm-eval skips what it can't read
            read_yaml(path, "a task")
    found = Suite(name=name, entries=(), include=folder)
    tasks = found.manager().all_subtasks
    if not tasks:
        raise ValueError(f"suite {folder}: contains no task YAML that lm-eval can read")
    return replace(found, entries=tuple(Entry(task=task) for task in tasks))


def _from_files(files, workplace: Path, form: str | None, log) -> Suite:
    """The suite of QA files, each a task named after the file."""
    tables, rejected = {}, {}
    for file in files:
        if not isinstance(file, str | Path) or not Path(file).is_file():
            mixed = "; a list contains only QA files or only task names" if len(files) > 1 else ""
            raise ValueError(f"suite {file}: no such file or folder{mixed}")
        name = Path(file).stem
        if name in tables:
            raise ValueError(f"suite {file}: another file also becomes task {name!r}; rename one")
        table, rejects = read_seeds([str(file)])
        rejected[name] = rejects["reason"].value_counts().to_dict()
        if table.empty:
            raise ValueError(f"suite {file}: no question could be read, {_describe(rejected[name])}")
        tables[name] = table
    return _from_tables(tables, workplace, form, rejected, log)


def _from_tables(tables: dict, workplace: Path, form: str | None, left_out: dict, log) -> Suite:
    """The suite of QA tables by name; `left_out` counts the rows left out before."""
    log, parts, left_out = log or (lambda message: None), {}, dict(left_out)
    if empty := [name for name, table in tables.items() if table.empty]:
        raise ValueError(f"QA tables without questions: {', '.join(empty)}; leave them out")
    for name, table in tables.items():
        by_task = by_language(name, check_exam(name, table))
        if taken := [task for task in by_task if task in parts or (task != name and task in tables)]:
            raise ValueError(f"suite: two exams both become task {taken[0]!r}; rename one")
        if len(by_task) > 1:
            log(f"{name}: a task for each language, {', '.join(by_task)}")
        parts |= by_task
    for task, table in parts.items():
        several, without = has_several_answers(table), table["choices"].isna()
        if choose_form(table, form) != "generative" and several.any() and not several.all():
            parts[task] = table[~several]
            left_out[task] = left_out.get(task, {}) | {"several_answers": int(several.sum())}
        if form is None and without.any() and not without.all():
            log(
                f"{task}: {without.sum():,} of {len(table):,} questions have no choices, so all are asked in form "
                "'generative'; to score choices, put the questions with choices into a separate file"
            )
        if left_out.get(task):
            log(f"{task}: {_describe(left_out[task])}")
    return Suite(
        name=",".join(tables),
        entries=tuple(Entry(task=task) for task in parts),
        include=export_tasks(parts, workplace / "tasks", form=form),
        left_out=left_out,
    )


def by_language(name: str, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The exam split by language: the most frequent language keeps the name, the others add their code to it."""
    languages = table["language"].value_counts().index
    return {
        f"{name}_{language}" if i else name: table[table["language"] == language]
        for i, language in enumerate(languages)
    }


def _describe(counts: dict[str, int]) -> str:
    """Counts by reason as text: "3 rows left out (2 duplicate, 1 no_answer)"."""
    return f"{sum(counts.values()):,} rows left out ({', '.join(f'{n:,} {reason}' for reason, n in counts.items())})"


def list_tasks(manager, name: str, changes: dict | None = None) -> Iterator[tuple[str, str | dict]]:
    """(name, argument of `manager.load`) of every single task of a task, group or tag, from the index; reads no data.

    ValueError with the nearest names for a name that is not in the index."""
    from lm_eval.tasks._yaml_loader import load_yaml

    entry, changes = manager.task_index.get(name), changes or {}
    if entry is None:
        near = get_close_matches(name, manager.all_tasks, n=3)
        raise ValueError(
            f"no lm-eval task or group is called {name!r}" + (f"; did you mean {', '.join(near)}?" if near else "")
        )
    if entry.kind.name == "TAG":
        for task in sorted(entry.tags):
            yield from list_tasks(manager, task, changes)
    elif entry.kind.name == "GROUP":
        yield from _members(manager, name, load_yaml(entry.yaml_path) if entry.yaml_path else entry.cfg, changes)
    else:
        changes = _relocate_data(entry.cfg or {}, Path(entry.yaml_path or ".").parent) | changes
        yield name, (load_yaml(entry.yaml_path) | changes | {"task": name} if changes else name)


def _relocate_data(config: dict, folder: Path) -> dict:
    """The change to a task whose data files are not at the paths it names but beside its YAML: exported tasks name
    absolute paths, and a results folder may be moved."""
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    if not isinstance(files, dict) or all(isinstance(file, list) or Path(file).exists() for file in files.values()):
        return {}
    moved = {split: str(folder / Path(str(file)).name) for split, file in files.items()}
    exist = all(Path(file).is_file() for file in moved.values())
    return {"dataset_kwargs": config["dataset_kwargs"] | {"data_files": moved}} if exist else {}


def _members(manager, group: str, config: dict, changes: dict) -> Iterator[tuple[str, str | dict]]:
    """The single tasks of a group, with the group's changes to them."""
    from lm_eval.config.group import GroupConfig

    group_fields = {f.name for f in fields(GroupConfig)} | {"tag"}
    shared = {k: v for k, v in config.items() if k not in group_fields} | changes
    for member in config["task"]:
        member = {"task": member} if isinstance(member, str) else member
        name = member.get("group", member.get("task"))
        more = shared | {k: v for k, v in member.items() if k not in ("group", "task")}
        if name in manager.task_index:
            yield from list_tasks(manager, name, more)
        elif "group" in member:
            yield from _members(manager, f"{group}::{name}", member, shared)
        else:
            yield f"{group}::{name}", more | {"task": f"{group}::{name}"}
