"""Seed questions from heterogeneous sources: each row becomes a row of the QA table, or a reject with a reason.

`read_seeds` reads; `quality_report`, `layout_report` and `summary` count. No row is silently dropped, repaired or
invented: question texts are only stripped, and NFKC is used only to detect duplicates.
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
from qatoolkit.seeds.choices import REASONS, Fault, escape_surrogates, is_blank
from qatoolkit.seeds.columns import Draft, draft_row, finish_row
from qatoolkit.seeds.files import SUB_FOLDER, Source, read_sources
from qatoolkit.seeds.fitting import Columns, find_layout, get, has
from qatoolkit.seeds.layouts import NAMES
from qatoolkit.seeds.readings import vote_on_order

EXTRA = ("source_id", "subject", "level", "origin", "file", "row")
REJECT_COLUMNS = ("source", "file", "row", "reason", "detail", "raw")


def read_seeds(
    source: object, *, mapping: Mapping | None = None, name: str | None = None, licence: str | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Seeds as a QA table, and the rejects: rows in = rows of the table + rows of the rejects.

    `source`: a JSONL, JSON, CSV or Parquet file, or one with a custom reader (`files.READERS`); a folder of these,
    without sub-folders; a list of dicts; a DataFrame; a Dataset; "hf:org/name:split" or "hf:org/name:config:split"; or
    a list of several of these, read in order.
    `mapping`: field -> column, for when automatic mapping fails, such as {"question": "Body", "choices": ["opt1",
    "opt2"]}. A column may be a dotted path into nested objects; the fields are the keys of `layouts.NAMES`.
    `name`: source of all rows; else the row's own source if it is a plain label, else the file's name. `licence`:
    licence of rows that state none.

    The table has the columns of `core.qa_table` with strategy "seed", and `EXTRA`: the source's own id, subject, level
    and source text, the file, and the row (line in JSONL and CSV, position elsewhere, from 1). With choices, `answer`
    is the text of the right one and `answer_index` its position from 0; if several are right, `answer` is their letters
    ("BD") and `answer_index` is null. Options in the question text become choices if the answer names one of them, and
    labels inside choices ("A) 5") are removed. An answer that may be a text or an index, from 0 or 1, is read as most
    rows of its source suggest; `attrs["read_as"]` of the table says how.
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
    mapping = _check_mapping(mapping)
    skipped = {}
    files = [_draft_file(entry, read, mapping) for entry, read in read_sources(source, skipped)]
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
    settled = {group: vote_on_order(found, bases[group]) for group, found in votes.items()}
    columns, rows, rejects, seen = [*COLUMNS, *EXTRA], [], [], {}
    for file in files:
        default, known = _labels(file, name)
        for row in file.rows:
            label = row.item.row["source"] if isinstance(row.item, Draft) else None
            place = {"source": label if label in known else default, "file": file.read.name, "row": row.number}
            try:
                if isinstance(row.item, Fault):
                    raise row.item
                seed = finish_row(row.item, settled[file.entry, row.key][0]) | place
                seed |= {"origin": None if label == place["source"] else label, "strategy": "seed"}
                seed |= {"licence": seed["licence"] or licence, "id": _new_id(seed, seen)}
                rows.append({column: seed.get(column) for column in columns})
            except Fault as fault:
                rejects.append(place | {"reason": fault.reason, "detail": fault.detail, "raw": _dump(row.record)})
    table = pd.DataFrame(rows, columns=columns).astype({"answer_index": "Int64"})
    table.attrs["read_as"] = {file.read.name: _describe_reading(file, settled) for file in files}
    table.attrs["layouts"] = [line for file in files for line in _describe_layouts(file, settled)]
    table.attrs["left"] = skipped
    if unread := [f"{name} ({why})" for name, why in skipped.items() if why != SUB_FOLDER]:
        warnings.warn(f"seed files not read: {', '.join(unread)}", stacklevel=2)
    return validate(table), pd.DataFrame(rejects, columns=list(REJECT_COLUMNS))


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A record with its draft or fault, its columns, and the key that groups the rows of a source for voting."""

    number: int
    record: object
    columns: tuple | None
    key: tuple | None
    item: Draft | Fault


@dataclass(frozen=True, kw_only=True)
class _File:
    """One source: its rows, and columns -> layout for its records."""

    entry: int
    read: Source
    layouts: Mapping[tuple, Columns]
    rows: list[_Row]

    @property
    def drafts(self) -> list[_Row]:
        return [row for row in self.rows if isinstance(row.item, Draft)]


def _check_mapping(mapping):
    for field, column in (mapping or {}).items():
        if field not in NAMES:
            raise ValueError(f"mapping has the field {field!r}; allowed: {', '.join(NAMES)}")
        if not isinstance(column, str) and (field != "choices" or not all(isinstance(c, str) for c in column)):
            raise ValueError(f"mapping gives {field} the column {column!r}; a name is needed, or names for choices")
    return dict(mapping or {})


def _draft_file(entry, read: Source, mapping) -> _File:
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
                item = draft_row(record, layout)
                kind = "choices" if item.choices else "list" if item.texts else None
                key = kind, *(layout.fields.get(name) for name in ("question", "answer", "choices"))
            except Fault as found:
                item = found
        rows.append(_Row(number=number, record=record, columns=columns, key=key, item=item))
    return _File(entry=entry, read=read, layouts=layouts, rows=rows)


def _describe_reading(file, settled):
    """How a file was read: its format, and the readings of its multiple-choice answers and lists of answers."""
    keys = dict.fromkeys(row.key for row in file.drafts if row.item.readings)
    return ", ".join(dict.fromkeys([file.read.how, *(_describe_votes(settled[file.entry, key], key) for key in keys)]))


def _describe_votes(settled, key):
    return f"{'answers' if key[0] == 'choices' else 'lists of answers'} by {settled[1]}"


def _describe_layouts(file, settled):
    """One dict per layout of a file's rows: which column was used for which field."""
    by_columns = defaultdict(list)
    for row in file.rows:
        by_columns[row.columns].append(row)
    for columns, layout in file.layouts.items():
        rows = by_columns[columns]
        drafts = [row for row in rows if isinstance(row.item, Draft)]
        keys = dict.fromkeys(row.key for row in drafts if row.item.readings)
        answers = [*(_describe_votes(settled[file.entry, key], key) for key in keys)]
        marked = {"wrong", "marks"} & set(layout.fields) or layout.fields.get("choices")
        if any(
            row.item.choices and (not marked or (isinstance(marked, str) and is_blank(get(row.record, marked))))
            for row in drafts
        ):
            answers.append("options in the stem")
        fields = {name: _join_columns(column) for name, column in layout.fields.items()}
        line = {"file": file.read.name, "rows": len(rows), "layout": layout.layout}
        yield line | fields | {"answers": "; ".join(answers) or None, "unused": ", ".join(layout.unused) or None}


def _join_columns(column):
    return column if isinstance(column, str) else ", ".join(column)


def _labels(file, name):
    """The default label of a file's rows, and the labels in the rows that are used instead.

    Labels in rows are used only if all of them in a file are plain and few: MMLU-Redux has web addresses in
    `source`."""
    labels = {row.item.row["source"] for row in file.drafts} - {None}
    if name is not None or len(labels) > 100 or not all(re.fullmatch(r"[^\s:]{1,64}", text) for text in labels):
        labels = set()
    return name or (next(iter(labels)) if len(labels) == 1 else file.read.label), labels


def _new_id(row, seen):
    """The id of a row. Raises Fault if it is a duplicate or conflicts with a row in `seen` (id or question ->
    place)."""
    id, place = qa_id(row["question"], row["answer"], row["choices"]), f"{row['file']} row {row['row']}"
    if id in seen:
        raise Fault("duplicate", f"of {seen[id]}")
    if row["choices"]:
        key = normalise(row["question"]), *map(normalise, row["choices"])
        if key in seen:
            raise Fault("conflicting_answer", f"{row['answer'][:60]!r} here, another in {seen[key]}")
        seen[key] = place
    seen[id] = place
    return id


def _dump(record):
    """A rejected row as JSON text."""
    try:
        text = json.dumps(record, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        text = json.dumps(str(type(record)))
    return escape_surrogates(text)


def quality_report(table: pd.DataFrame, rejects: pd.DataFrame) -> pd.DataFrame:
    """Accepted and rejected rows of every source: one row per source and reason, with "accepted" as the first reason.

    Columns: source, rows_in, accepted, rejected (of the source), reason, meaning, count, share (of rows_in), example,
    read_as (how its files were read) and unused (unused columns that look like options or answers, or hold sentences); the last two are
    None if the table lost its attrs. `count` adds up to rows_in. A folder entry that was not read has its own row with
    the reason "not_read" and a count of 0.

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
    """How columns were interpreted: one row per file and layout of its rows, from the attrs of a table of `read_seeds`.

    Columns: file, rows, layout (an entry of `layouts.LAYOUTS`, or "by names"), the columns of question, options and
    answer, others (further fields, with their column if its name differs), answers (how they were read), and unused
    (unused columns that look like options or answers, or hold sentences). Empty if the table lost its attrs."""
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
    """Seeds per source and language: rows, with_choices, multi_select (several right choices), with_rationale, licence.

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
