"""Tables larger than memory: a step runs shard by shard, in this process or on Ray, and writes the same files either
way.

A shard is a Parquet file, or a part of a larger one. It is the unit of memory and of work, and the most that a kill can
cost. The output folder is an artifact (`core.artifacts`): `kept/` and `rejects/` have a file per shard, `done/` a
record per shard, and `manifest.json` is written last. A restarted step does only the shards without a record.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from qatoolkit.core.artifacts import MANIFEST, Artifact, as_json, key_of, read_sealed, write_sealed
from qatoolkit.core.display import Progress
from qatoolkit.core.files import Damaged, atomic, digest, fingerprint
from qatoolkit.core.qa_table import LISTS, as_lists

ROWS = 50_000  # per shard: about 50 MB of questions in memory
GROUP = 1 << 16  # rows per row group, so that parts of a file can be read alone
ENGINES = ("local", "ray")
_TYPES = {"answer_index": pa.int64(), "verified": pa.bool_(), **dict.fromkeys(LISTS, pa.list_(pa.string()))}


class Shard(NamedTuple):
    """`rows` rows of the Parquet file `path`, from row `first`; its output files are called `name`."""

    name: str
    path: str
    first: int
    rows: int


def map_shards(
    step: Callable[[pd.DataFrame], Any],
    source,
    out: str | Path,
    *,
    key: Any = None,
    engine: str = "local",
    workers: int = 2,
    rows_per_shard: int = ROWS,
    progress: bool = False,
) -> pd.DataFrame:
    """Apply `step` to every shard of `source`; returns one row per shard, in order: shard, rows, kept, rejects.

    `step` takes a table and returns a table, or (kept, rejects). If it is a context manager, each worker enters it once
    and calls what it returns. `source` is a folder of Parquet files, a list of them, the folder of another step, or a
    table; files of more than `rows_per_shard` rows are processed in parts. `out/kept` and `out/rejects` get a file per
    shard; a shard without rejects has no rejects file. Each worker holds at most one shard in memory.

    `key` is what the result depends on besides the source and the name of the function: version and settings of the
    step, any JSON value. A finished folder for the same source and key is left as it is, an interrupted one is resumed.
    `engine="ray"` (extra `ray`) runs `workers` actors on this machine or on the cluster that `ray.init` has joined; all
    machines must then see the same file system.

    ValueError for an unknown engine, an empty source, a step without a name and no `key`, or a folder made from other
    inputs; Damaged names a file that is not a Parquet table. Errors of the step carry a note that names the shard.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> def shorten(table):
    ...     long = table["question"].str.len() > 20
    ...     return table[~long], table[long].assign(reason="too_long")
    >>> table = pd.DataFrame({"id": range(4), "question": ["What is pH?", "Why?", "How far is the Moon from here?", "Who?"]})
    >>> qt.map_shards(shorten, table, "short", key="shorten 1", rows_per_shard=2)
                   shard  rows  kept  rejects
    0  part-00000.parquet     2     2        0
    1  part-00001.parquet     2     1        1
    >>> pd.concat(qt.read_shards("short"))["id"].tolist()
    [0, 1, 3]
    """
    if isinstance(source, pd.DataFrame):
        source = write_shards([source], Path(out).with_name(f"{Path(out).name}_source"), rows_per_shard)
    shards = list_shards(source, rows_per_shard)
    made_of = [identity(step, key), content_of(shards)]
    return make_shards(_Reading(step), shards, out, made_of, engine=engine, workers=workers, progress=progress)


def make_shards(
    make, shards: Sequence[Shard], out: str | Path, key, *, engine="local", workers=2, group=GROUP, progress=False
) -> pd.DataFrame:
    """Like `map_shards`, but `make` takes a `Shard` instead of its table. `key` is everything the result depends on
    besides the names and rows of the shards; `group` is the number of rows per row group."""
    artifact = _Folder(Path(out), key_of(key, [shard._replace(path="") for shard in shards]))
    with artifact.making(), Progress(len(shards), Path(out).name, "shards") if progress else nullcontext() as bar:
        artifact.begin()
        if (found := artifact.manifest) is None:
            records = {shard.name: artifact.done(shard) for shard in shards}
            todo = [shard for shard in shards if not records[shard.name]]
            for record in each(_Writing(make, artifact.folder, group), todo, engine=engine, workers=workers):
                records[record["shard"]] = record
                if bar:
                    bar.update()
            found = artifact.finish({"shards": list(records.values())})
    return pd.DataFrame(found["shards"], columns=["shard", "rows", "kept", "rejects"])


def content_of(shards: Iterable[Shard]) -> dict[str, str]:
    """File name -> digest, for every file that the shards come from."""
    return {Path(path).name: digest(Path(path)) for path in dict.fromkeys(shard.path for shard in shards)}


def each(step, items: Sequence, *, engine: str = "local", workers: int = 2) -> Iterator:
    """The result of `step` for each item, in order; a step that is a context manager is entered once per worker."""
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r}; allowed: {', '.join(ENGINES)}")
    if engine == "ray" and len(items):
        from qatoolkit.core.ray_engine import each_on_ray

        yield from each_on_ray(step, items, workers)
        return
    with ExitStack() as stack:
        function = enter(step, stack)
        for item in items:
            yield function(item)


def enter(step, stack: ExitStack) -> Callable:
    """The function to call for a step, entered if it is a context manager; `stack` closes it."""
    return stack.enter_context(step) if hasattr(step, "__enter__") else step


def read_shards(source, rows_per_shard: int = ROWS) -> Iterator[pd.DataFrame]:
    """The tables of a folder or list of Parquet files, or of a step's output folder, one shard at a time."""
    return map(read_shard, list_shards(source, rows_per_shard))


def write_shards(tables: Iterable[pd.DataFrame], folder: str | Path, rows_per_shard: int = ROWS) -> Path:
    """Write tables as `part-00000.parquet` and so on, each of `rows_per_shard` rows; returns the folder. At most one
    table and one shard are in memory. ValueError if the folder has other files."""
    with atomic(Path(folder), over="part-00000.parquet") as temporary:
        temporary.mkdir(parents=True)
        number, waiting = 0, []
        for table in tables:
            for first in range(0, len(table), rows_per_shard):
                waiting.append(table.iloc[first : first + rows_per_shard])
                while sum(map(len, waiting)) >= rows_per_shard:
                    merged = pd.concat(waiting, ignore_index=True)
                    write_shard(merged[:rows_per_shard], temporary / f"part-{number:05d}.parquet")
                    number, waiting = number + 1, [merged[rows_per_shard:]]
        if sum(map(len, waiting)) or not number:
            rest = pd.concat(waiting, ignore_index=True) if waiting else pd.DataFrame()
            write_shard(rest, temporary / f"part-{number:05d}.parquet")
    return Path(folder)


def list_shards(source, rows_per_shard: int = ROWS) -> list[Shard]:
    """The shards of a folder (files sorted by name) or list of Parquet files. ValueError if there are none, or two have
    the same name; Damaged names a file that is not a Parquet table."""
    where = "the list"
    if isinstance(source, str | Path):
        folder = Path(source)
        if (folder / MANIFEST).is_file() and (folder / "kept").is_dir():
            folder = folder / "kept"
        where, source = folder, sorted(folder.glob("*.parquet")) if folder.is_dir() else [folder]
    if not (paths := [Path(path) for path in source]):
        raise ValueError(f"no shards: {where} has no *.parquet files")
    shards = []
    for path in paths:
        try:
            rows = pq.read_metadata(path).num_rows
        except (OSError, pa.ArrowException) as error:
            reason = (
                "is missing" if not path.exists() else f"is not a Parquet table ({' '.join(str(error).split())[:120]})"
            )
            raise Damaged(f"{path} {reason}: write it again, or leave it out of the source") from None
        firsts = range(0, max(rows, 1), rows_per_shard)
        for part, first in enumerate(firsts):
            name = path.name if len(firsts) == 1 else f"{path.stem}-{part:05d}.parquet"
            shards.append(Shard(name, str(path), first, min(rows_per_shard, rows - first)))
    if len(names := [shard.name for shard in shards]) != len(set(names)):
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two shards would be called {repeated!r}: give files of different names")
    return shards


def read_shard(shard: Shard) -> pd.DataFrame:
    """The rows of a shard, list columns as Python lists. Of a larger file, only the row groups it needs are read, in
    batches."""
    with pq.ParquetFile(shard.path) as file:
        groups, start, skip = [], 0, 0
        for number in range(file.num_row_groups):
            end = start + file.metadata.row_group(number).num_rows
            if end > shard.first and start < shard.first + shard.rows:
                skip = skip if groups else shard.first - start
                groups.append(number)
            start = end
        parts, remaining = [], shard.rows
        for batch in file.iter_batches(min(max(shard.rows, 1), GROUP), row_groups=groups):
            part = batch.slice(skip, remaining)
            skip = max(0, skip - len(batch))
            parts += [part] if len(part) else []
            remaining -= len(part)
            if not remaining:
                break
        return as_lists(pa.Table.from_batches(parts, file.schema_arrow).to_pandas())


def write_shard(table: pd.DataFrame, path: Path, group: int = GROUP) -> None:
    """Write a table as Parquet, atomically. A column of nulls gets its type from the QA table, so that all shards of a
    folder have one schema."""
    made = pa.Table.from_pandas(table, preserve_index=False)
    for i, field in enumerate(made.schema):
        empty = pa.types.is_null(field.type) or (
            pa.types.is_list(field.type) and pa.types.is_null(field.type.value_type)
        )
        if empty or pa.types.is_large_string(field.type):
            typed = _TYPES.get(field.name, pa.string())
            made = made.set_column(i, field.name, made.column(i).cast(typed))
    with atomic(path) as temporary:
        pq.write_table(made, temporary, row_group_size=group)


class _Folder(Artifact):
    """The output folder of a step, at a path the user chose."""

    def __init__(self, folder: Path, key: str):
        self.kind, self.key, self.folder = "shards", key, folder

    def begin(self) -> None:
        """Claim the folder. ValueError if it was made from other inputs or contains other files."""
        begun = self.folder / "begun.json"
        if not begun.exists():
            if unexpected := sorted(path.name for path in self.folder.iterdir()):
                raise ValueError(
                    f"{self.folder} contains {unexpected[0]!r}, which no step wrote: give a new or an empty folder"
                )
            write_sealed({"key": self.key}, begun)
        if read_sealed(begun, self.remedy)["key"] != self.key:
            raise ValueError(
                f"{self.folder} was made from other files, by another step or with another key: give a new folder or "
                "remove this one"
            )

    @property
    def remedy(self) -> str:
        return f"remove {self.folder} and run the step again"

    def done(self, shard: Shard) -> dict | None:
        """The record of a finished shard, None if it is unfinished or damaged."""
        path = self.folder / "done" / f"{shard.name}.json"
        record = read_sealed(path, self.remedy) if path.exists() else None
        return record if record and not any(self.damage(record)) else None


class _Wrapped:
    """A step around another one, which may be a context manager; `here` says whether it must run on this machine."""

    def __init__(self, step):
        self._step, self.here = step, getattr(step, "here", False)

    def __enter__(self) -> Callable:
        self._stack = ExitStack()
        return partial(self._do, enter(self._step, self._stack))

    def __exit__(self, *_) -> None:
        self._stack.close()


class _Reading(_Wrapped):
    """Makes a step on tables take shards."""

    def _do(self, function: Callable, shard: Shard):
        return function(read_shard(shard))


class _Writing(_Wrapped):
    """Makes a step on shards write its result and return the record."""

    def __init__(self, step, folder: Path, group: int):
        super().__init__(step)
        self._folder, self._group = folder.absolute(), group

    def _do(self, function: Callable, shard: Shard) -> dict:
        try:
            made = function(shard)
        except Exception as error:
            error.add_note(f"in shard {shard.name}: {shard.path}, {shard.rows:,} rows from row {shard.first:,}")
            raise
        kept, rejects = made if isinstance(made, tuple) else (made, ())
        tables = {f"kept/{shard.name}": kept} | ({f"rejects/{shard.name}": rejects} if len(rejects) else {})
        for name, table in tables.items():
            write_shard(table, self._folder / name, self._group)
        record = {"shard": shard.name, "rows": shard.rows, "kept": len(kept), "rejects": len(rejects)}
        record["files"] = {name: fingerprint(self._folder / name) for name in tables}
        write_sealed(record, self._folder / "done" / f"{shard.name}.json")
        return record


def identity(step, key) -> list:
    """A step's part of the key of its result."""
    name = getattr(step, "__qualname__", "")
    if key is None and (not name or "<" in name):
        raise ValueError(
            f"{step!r:.80} has no name: give key= with what its result depends on, such as its version and settings"
        )
    return [f"{step.__module__}.{name}" if name and "<" not in name else "", as_json(key)]
