"""Seed questions from heterogeneous sources: each row becomes a row of the QA table, or a reject with a reason.

`read_seeds` reads, `quality_report` and `summary` count. No row is dropped in silence, repaired or invented: a question
is kept as it was written, apart from stripping; NFKC serves only to tell whether two questions are the same.
"""

import json
import re
import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from qatoolkit.core.qa_table import COLUMNS, qa_id, validate
from qatoolkit.core.text import normalise
from qatoolkit.seeds.choices import REASONS, Fault, escape_surrogates, is_blank, settle
from qatoolkit.seeds.columns import Draft, draft, finish
from qatoolkit.seeds.files import SUB_FOLDER, Source, read_sources
from qatoolkit.seeds.fitting import Columns, find_layout, get, has
from qatoolkit.seeds.layouts import NAMES

EXTRA = ("source_id", "subject", "level", "origin", "file", "row")
REJECT_COLUMNS = ("source", "file", "row", "reason", "detail", "raw")


def read_seeds(
    source: object, *, mapping: Mapping | None = None, name: str | None = None, licence: str | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Seeds as a QA table, and the rejects: rows in = rows of the table + rows of the rejects.

    `source`: a JSONL, JSON, CSV or Parquet file, or one with a reader of yours (`files.READERS`), a folder of these
    without its sub-folders, a list of dicts, a DataFrame, a Dataset, "hf:org/name:split" or "hf:org/name:config:split",
    or a list of several of these, read in order.
    `mapping`: field -> column, where automatic mapping fails: {"question": "Body", "choices": ["opt1", "opt2"]}; a
    column may be a dotted path into nested objects; fields are those of `columns.NAMES`.
    `name`: source of all rows; else the row's own source where it is a plain label, else the file's name.
    `licence`: licence of rows that state none.

    The table has the columns of `core.qa_table` with strategy "seed", and `EXTRA`: the source's own id, subject, level
    and source text, file and row (line in JSONL and CSV, position elsewhere, from 1). With choices, `answer` is the
    text of the right one and `answer_index` its position from 0; where several are right, `answer` is their letters
    ("BD") and `answer_index` is null. Options in the stem become choices where the answer names one of them, and
    choices lose letters of their own ("A) 5"). An answer that may be text or index, from 0 or 1, is read as most rows
    of its source suggest; `attrs["read_as"]` of the table says how.
    Rejects: source, file, row, reason (a key of `choices.REASONS`), detail, and raw (the row as JSON text).

    Raises ValueError for a source that is missing, empty or unreadable as a whole, and for a mapping to an unknown
    column.

    >>> import qatoolkit as qt
    >>> rows = [
    ...     {"question": "How many legs does a spider have?", "A": "6", "B": "8", "answer": "B"},
    ...     {"question": "How many legs does a crab have?", "A": "10", "B": "8", "answer": "C"},
    ... ]
    >>> table, rejects = qt.read_seeds(rows, name="zoo")
    >>> table[["question", "choices", "answer"]].to_dict("records")
    [{'question': 'How many legs does a spider have?', 'choices': ['6', '8'], 'answer': '8'}]
    >>> rejects[["row", "reason", "detail"]]
       row                  reason              detail
    0    2  answer_outside_choices  'C' with 2 choices
    """
    mapping = _checked(mapping)
    left = {}
    files = [_drafts(entry, read, mapping) for entry, read in read_sources(source, left)]
    layouts = [columns for file in files for columns in file.layouts]
    for column in mapping.values():
        if not any(has(columns, column) for columns in layouts):
            known = ", ".join(sorted({c for columns in layouts for c in columns}))[:300]
            raise ValueError(f"mapping names the column {column!r}, but the seeds have {known or 'no columns'}")
    votes = defaultdict(list)
    for file in files:
        for row in file.drafts:
            votes[file.entry, row.key].append(row.item.readings)
    bases = {(f.entry, row.key): f.layouts[row.columns].index_from for f in files for row in f.drafts}
    settled = {group: settle(found, bases[group]) for group, found in votes.items()}
    columns, rows, rejects, seen = [*COLUMNS, *EXTRA], [], [], {}
    for file in files:
        default, known = _labels(file, name)
        for row in file.rows:
            own = row.item.row["source"] if isinstance(row.item, Draft) else None
            place = {"source": own if own in known else default, "file": file.read.name, "row": row.number}
            try:
                if isinstance(row.item, Fault):
                    raise row.item
                seed = finish(row.item, settled[file.entry, row.key][0]) | place
                seed |= {"origin": None if own == place["source"] else own, "strategy": "seed"}
                seed |= {"licence": seed["licence"] or licence, "id": _new_id(seed, seen)}
                rows.append({column: seed.get(column) for column in columns})
            except Fault as fault:
                rejects.append(place | {"reason": fault.reason, "detail": fault.detail, "raw": _raw(row.record)})
    table = pd.DataFrame(rows, columns=columns).astype({"answer_index": "Int64"})
    table.attrs["read_as"] = {file.read.name: _how(file, settled) for file in files}
    table.attrs["layouts"] = [line for file in files for line in _understood(file, settled)]
    table.attrs["left"] = left
    if files_left := [f"{name} ({why})" for name, why in left.items() if why != SUB_FOLDER]:
        warnings.warn(f"seed files that are not read: {', '.join(files_left)}", stacklevel=2)
    return validate(table), pd.DataFrame(rejects, columns=list(REJECT_COLUMNS))


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A record with its draft or fault, its columns, and the key by which rows of a source vote together."""

    number: int
    record: object
    columns: tuple | None
    key: tuple | None
    item: Draft | Fault


@dataclass(frozen=True, kw_only=True)
class _File:
    """One source, the layouts of its records by their columns, and its rows."""

    entry: int
    read: Source
    layouts: Mapping[tuple, Columns]
    rows: list[_Row]

    @property
    def drafts(self) -> list[_Row]:
        return [row for row in self.rows if isinstance(row.item, Draft)]


def _checked(mapping):
    for field, column in (mapping or {}).items():
        if field not in NAMES:
            raise ValueError(f"mapping has the field {field!r}; allowed: {', '.join(NAMES)}")
        if not isinstance(column, str) and (field != "choices" or not all(isinstance(c, str) for c in column)):
            raise ValueError(f"mapping gives {field} the column {column!r}; a name is needed, or names for choices")
    return dict(mapping or {})


def _drafts(entry, read: Source, mapping) -> _File:
    records = defaultdict(list)
    for _, record, fault in read.rows:
        if fault is None:
            records[tuple(record)].append(record)
    layouts, rows = {c: find_layout(c, mapping, part) for c, part in records.items()}, []
    for number, record, fault in read.rows:
        columns, key, item = None, None, fault
        if fault is None:
            layout = layouts[columns := tuple(record)]
            try:
                item = draft(record, layout)
                kind = "choices" if item.choices else "list" if item.texts else None
                key = kind, *(layout.fields.get(name) for name in ("question", "answer", "choices"))
            except Fault as found:
                item = found
        rows.append(_Row(number=number, record=record, columns=columns, key=key, item=item))
    return _File(entry=entry, read=read, layouts=layouts, rows=rows)


def _how(file, settled):
    """How a file was read, and how the answers of its multiple-choice rows and of its lists were."""
    keys = dict.fromkeys(row.key for row in file.drafts if row.item.readings)
    return ", ".join(dict.fromkeys([file.read.how, *(_by(settled[file.entry, key], key) for key in keys)]))


def _by(settled, key):
    return f"{'answers' if key[0] == 'choices' else 'lists of answers'} by {settled[1]}"


def _understood(file, settled):
    """A line for each layout of a file's rows: what its columns were taken for."""
    by_columns = defaultdict(list)
    for row in file.rows:
        by_columns[row.columns].append(row)
    for columns, layout in file.layouts.items():
        mine = by_columns[columns]
        drafts = [row for row in mine if isinstance(row.item, Draft)]
        keys = dict.fromkeys(row.key for row in drafts if row.item.readings)
        by = [*(_by(settled[file.entry, key], key) for key in keys)]
        own = {"wrong", "marks"} & set(layout.fields) or layout.fields.get("choices")
        if any(
            row.item.choices and (not own or (isinstance(own, str) and is_blank(get(row.record, own))))
            for row in drafts
        ):
            by.append("options in the stem")
        fields = {name: _shown(column) for name, column in layout.fields.items()}
        line = {"file": file.read.name, "rows": len(mine), "layout": layout.layout}
        yield line | fields | {"answers": "; ".join(by) or None, "unused": ", ".join(layout.unused) or None}


def _shown(column):
    return column if isinstance(column, str) else ", ".join(column)


def _labels(file, name):
    """The label of rows without one of their own, and the own labels that count.

    They count where all of a file are plain and few: MMLU-Redux keeps web addresses in `source`."""
    own = {row.item.row["source"] for row in file.drafts} - {None}
    if name is not None or len(own) > 100 or not all(re.fullmatch(r"[^\s:]{1,64}", text) for text in own):
        own = set()
    return name or (next(iter(own)) if len(own) == 1 else file.read.label), own


def _new_id(row, seen):
    """The id of a row that is not in `seen` (id or question -> where it was read) yet. Raises Fault."""
    id, where = qa_id(row["question"], row["answer"], row["choices"]), f"{row['file']} row {row['row']}"
    if id in seen:
        raise Fault("duplicate", f"of {seen[id]}")
    if row["choices"]:
        key = normalise(row["question"]), *map(normalise, row["choices"])
        if key in seen:
            raise Fault("conflicting_answer", f"{row['answer'][:60]!r} here, another in {seen[key]}")
        seen[key] = where
    seen[id] = where
    return id


def _raw(record):
    """A rejected row as JSON text."""
    try:
        text = json.dumps(record, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        text = json.dumps(str(type(record)))
    return escape_surrogates(text)


def quality_report(table: pd.DataFrame, rejects: pd.DataFrame) -> pd.DataFrame:
    """What became of every source: one row per source and reason, with "accepted" as the first reason.

    Columns: source, rows_in, accepted, rejected (of the source), reason, meaning, count, share (of rows_in), example,
    read_as (how its files were read) and unused (columns that look like options or answers and are not used); both are
    None where the table lost its attrs. `count` adds up to rows_in. An entry of a folder that was not read has a row of
    its own with the reason "not_read" and a count of 0.

    >>> import qatoolkit as qt
    >>> rows = [{"question": "What do pandas eat?", "answer": "bamboo"}, {"question": "And bees?", "answer": ""}]
    >>> report = qt.seeds.quality_report(*qt.read_seeds(rows, name="zoo"))
    >>> report[["source", "reason", "count", "share"]]
      source        reason  count  share
    0    zoo      accepted      1    0.5
    1    zoo  empty_answer      1    0.5
    """
    read_as, rows = table.attrs.get("read_as", {}), []
    columns = {line["file"]: line["unused"] for line in table.attrs.get("layouts", []) if line["unused"]}
    for source in dict.fromkeys([*table["source"], *rejects["source"]]):
        good, bad = table[table["source"] == source], rejects[rejects["source"] == source]
        total, files = len(good) + len(bad), dict.fromkeys([*good["file"], *bad["file"]])
        how = "; ".join(dict.fromkeys(read_as[f] for f in files if f in read_as)) or None
        unused = ", ".join(dict.fromkeys(columns[f] for f in files if f in columns)) or None
        counts = [("accepted", len(good), good["question"].iloc[0][:100] if len(good) else None)]
        for reason, part in sorted(bad.groupby("reason"), key=lambda p: (-len(p[1]), p[0])):
            first = part.iloc[0]
            counts.append((reason, len(part), f"{first['file']} row {first['row']}: {first['detail']}"[:200]))
        for reason, count, example in counts:
            meaning = REASONS.get(reason, "a row of the table")
            about = (reason, meaning, count, count / total, example, how, unused)
            rows.append((source, total, len(good), len(bad), *about))
    for name, why in table.attrs.get("left", {}).items():
        meaning = "an entry of a folder that is not read"
        rows.append((name, 0, 0, 0, "not_read", meaning, 0, 0.0, why, None, None))
    names = "source rows_in accepted rejected reason meaning count share example read_as unused"
    return pd.DataFrame(rows, columns=names.split())


def layout_report(table: pd.DataFrame) -> pd.DataFrame:
    """What was understood how: one row per file and layout of its rows, from the attrs of a table of `read_seeds`.

    Columns: file, rows, layout (an entry of `layouts.LAYOUTS`, or "by names"), the columns of question, options and
    answer, others (further fields, with their column where its name differs), answers (how they were read), and unused
    (columns that look like options or answers and are not used). Empty where the table lost its attrs."""
    rows = []
    for line in table.attrs.get("layouts", []):
        known = {name: line[name] for name in NAMES if name in line}
        question, options, answer = (known.pop(name, None) for name in ("question", "choices", "answer"))
        options = f"{answer} and {known.pop('wrong')}" if "wrong" in known else options
        others = ", ".join(n if n == column else f"{n} ({column})" for n, column in known.items()) or None
        about = {name: line[name] for name in ("file", "rows", "layout")}
        about |= {"question": question, "options": options, "answer": answer}
        rows.append(about | {"others": others, "answers": line["answers"], "unused": line["unused"]})
    names = "file rows layout question options answer others answers unused"
    return pd.DataFrame(rows, columns=names.split())


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Seeds per source and language: rows, with_choices, multi_select (several right ones), with_rationale,
    licences.

    >>> import qatoolkit as qt
    >>> rows = [{"question": "What do pandas eat?", "answer": "bamboo"}]
    >>> table, rejects = qt.read_seeds(rows, name="zoo", licence="cc-by-4.0")
    >>> qt.seeds.summary(table)[["source", "language", "rows", "with_choices", "licence"]]
      source language  rows  with_choices    licence
    0    zoo       en     1             0  cc-by-4.0
    """
    choices = table["choices"].notna()
    counts = {"rows": 1, "with_choices": choices, "multi_select": choices & table["answer_index"].isna()}
    counted = table[["source", "language", "licence"]].assign(**counts, with_rationale=table["rationale"].notna())
    grouped = counted.groupby(["source", "language"], sort=False)
    numbers = grouped[[*counts, "with_rationale"]].sum().astype(int)
    licences = grouped["licence"].agg(lambda x: ", ".join(sorted(set(x.dropna()))) or None)
    return numbers.join(licences).reset_index()
