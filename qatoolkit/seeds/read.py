"""Seed questions from heterogeneous sources: a row becomes a row of the QA table, or a reject with a reason.

`read_seeds` reads, `quality_report` and `summary` show what came of it. Nothing is dropped in silence,
repaired or invented: a question is kept as it was written, apart from stripping; NFKC serves only to tell
whether two questions are the same.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from qatoolkit.core.qa_table import COLUMNS, qa_id, validate
from qatoolkit.core.text import normalise
from qatoolkit.seeds.choices import REASONS, Fault, settle, escape_surrogates
from qatoolkit.seeds.columns import NAMES, Draft, draft, find_layout, finish, flat, has
from qatoolkit.seeds.files import Source, read_sources

EXTRA = ("source_id", "subject", "level", "origin", "file", "row")
REJECT_COLUMNS = ("source", "file", "row", "reason", "detail", "raw")


def read_seeds(
    source: object, *, mapping: Mapping | None = None, name: str | None = None, licence: str | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Seeds as a QA table, and the rejects: rows in = rows of the table + rows of the rejects.

    `source`: a JSONL, JSON, CSV or Parquet file, a folder of these (sub-folders are left out), a list of
    dicts, a DataFrame, a Dataset, "hf:org/name:split" or "hf:org/name:config:split", or a list of several of
    these, read in order.
    `mapping`: field -> column, where automatic mapping fails: {"question": "Body", "choices": ["opt1",
    "opt2"]}; a column may be a dotted path into nested objects; fields are those of `NAMES`.
    `name`: source of all rows; else the row's own source where it is a plain label, else the file's name.
    `licence`: licence of rows that state none.

    The table has the columns of `schema` with strategy "seed", and `EXTRA`: the source's own id, subject,
    level and source text, file and row (line in JSONL and CSV, position elsewhere, from 1). With choices,
    `answer` is the text of the right one and `answer_index` its position from 0; where several are right,
    `answer` is their letters ("BD") and `answer_index` is null. Options in the stem become choices where the
    answer points at one of them, and letters that choices carry ("A) 5") are taken off. An answer that may be
    text or index, from 0 or 1, is read as most rows of its source suggest; `attrs["read_as"]` of the table
    says how.
    Rejects: source, file, row, reason (a key of `REASONS`), detail, and raw (the row as JSON text).

    Raises ValueError for a source that is missing, empty or unreadable as a whole, and for a mapping to no
    column."""
    mapping = _checked(mapping)
    files = [_drafts(entry, read, mapping) for entry, read in read_sources(source)]
    layouts = [columns for file in files for columns in file.layouts]
    for column in mapping.values():
        if not any(has(columns, column) for columns in layouts):
            known = ", ".join(sorted({c for columns in layouts for c in columns}))[:300]
            raise ValueError(f"mapping names the column {column!r}, but the seeds have {known or 'no columns'}")
    settled = _settle(files)
    columns, rows, rejects, seen = [*COLUMNS, *EXTRA], [], [], {}
    for file in files:
        labels = _labels(file, name)
        for number, record, key, item in file.rows:
            label, origin = labels(item)
            place = {"source": label, "file": file.name, "row": number}
            try:
                if isinstance(item, Fault):
                    raise item
                row = finish(item, settled[file.entry, key][0]) | place
                row |= {"origin": origin, "strategy": "seed", "licence": row["licence"] or licence}
                row["id"] = _new_id(row, seen)
                rows.append({column: row.get(column) for column in columns})
            except Fault as fault:
                rejects.append(place | {"reason": fault.reason, "detail": fault.detail, "raw": _raw(record)})
    table = pd.DataFrame(rows, columns=columns).astype({"answer_index": "Int64"})
    table.attrs["read_as"] = {file.name: _how(file, settled) for file in files}
    return validate(table), pd.DataFrame(rejects, columns=list(REJECT_COLUMNS))


@dataclass(frozen=True, kw_only=True)
class _File:
    """One source with a draft or a fault for every row: (number, record, layout key, Draft or Fault)."""

    entry: int
    name: str
    label: str
    how: str
    layouts: Mapping[tuple, Mapping]
    rows: list[tuple[int, object, tuple | None, Draft | Fault]]


def _checked(mapping):
    mapping = dict(mapping or {})
    for field in mapping:
        if field not in NAMES:
            raise ValueError(f"mapping has the field {field!r}; allowed: {', '.join(NAMES)}")
        whole = isinstance(mapping[field], str)
        if not whole and (field != "choices" or not all(isinstance(c, str) for c in mapping[field])):
            raise ValueError(
                f"mapping gives {field} the column {mapping[field]!r}; a name is needed, or names for choices"
            )
    return mapping


def _drafts(entry, read: Source, mapping) -> _File:
    layouts, rows = {}, []
    for number, record, fault in read.rows:
        key, item = None, fault
        if fault is None:
            columns = tuple(fields := record if "question" in mapping else flat(record))
            if columns not in layouts:
                layouts[columns] = find_layout(columns, mapping)
            layout = layouts[columns]
            key = tuple(layout.get(field) for field in ("question", "answer", "choices"))
            try:
                item = draft(fields, layout)
            except Fault as found:
                item = found
        rows.append((number, record, key, item))
    return _File(entry=entry, name=read.name, label=read.label, how=read.how, layouts=layouts, rows=rows)


def _settle(files):
    """(entry, layout key) -> how its answers are read, after its rows voted."""
    votes = defaultdict(list)
    for file in files:
        for _, _, key, item in file.rows:
            if isinstance(item, Draft):
                votes[file.entry, key].append(item.readings)
    return {group: settle(rows) for group, rows in votes.items()}


def _how(file, settled):
    """How a file was read, with how the answers of its multiple-choice rows were read."""
    keys = dict.fromkeys(key for _, _, key, item in file.rows if isinstance(item, Draft) and item.choices)
    return ", ".join(dict.fromkeys([file.how, *(f"answers by {settled[file.entry, key][1]}" for key in keys)]))


def _labels(file, name):
    """A function from a draft to its source and origin.

    Own labels count where all of a file are plain and few: MMLU-Redux keeps web addresses in `source`."""
    own = {item.labels["source"] for _, _, _, item in file.rows if isinstance(item, Draft)} - {None}
    plain = name is None and len(own) <= 100 and all(re.fullmatch(r"[^\s:]{1,64}", text) for text in own)
    default = name or (own.pop() if plain and len(own) == 1 else file.label)

    def labels(item):
        text = item.labels["source"] if isinstance(item, Draft) else None
        source = text if plain and text else default
        return source, None if text == source else text

    return labels


def _new_id(row, seen):
    """The id of a row that is not yet among `seen`: id or question -> where it stands. Raises Fault."""
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
    """What came of every source: one row per source and reason, with "accepted" as the first reason.

    Columns: source, rows_in, accepted, rejected (of the source), reason, meaning, count, share (of rows_in),
    example, and read_as (how its files were read; None where the table lost its attrs). `count` adds up to
    rows_in."""
    read_as, rows = table.attrs.get("read_as", {}), []
    for source in dict.fromkeys([*table["source"], *rejects["source"]]):
        good, bad = table[table["source"] == source], rejects[rejects["source"] == source]
        files = dict.fromkeys([*good["file"], *bad["file"]])
        counts = {"rows_in": len(good) + len(bad), "accepted": len(good), "rejected": len(bad)}
        whole = {"source": source} | counts
        how = "; ".join(dict.fromkeys(read_as[f] for f in files if f in read_as)) or None
        first = good["question"].iloc[0][:100] if len(good) else None
        rows.append(whole | {"reason": "accepted", "count": len(good), "example": first, "read_as": how})
        for reason, part in sorted(bad.groupby("reason"), key=lambda p: (-len(p[1]), p[0])):
            example = f"{part['file'].iloc[0]} row {part['row'].iloc[0]}: {part['detail'].iloc[0]}"[:200]
            rows.append(whole | {"reason": reason, "count": len(part), "example": example, "read_as": how})
    columns = ["source", "rows_in", "accepted", "rejected", "reason", "count", "example", "read_as"]
    report = pd.DataFrame(rows, columns=columns)
    report.insert(5, "meaning", report["reason"].map(REASONS | {"accepted": "a row of the table"}))
    report.insert(7, "share", report["count"] / report["rows_in"])
    return report


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Seeds per source and language: rows, those with choices, several right ones, a rationale; licences."""
    counts = pd.DataFrame(
        {
            "source": table["source"],
            "language": table["language"],
            "rows": 1,
            "with_choices": table["choices"].notna(),
            "multi_select": table["choices"].notna() & table["answer_index"].isna(),
            "with_rationale": table["rationale"].notna(),
            "licence": table["licence"],
        }
    )
    grouped = counts.groupby(["source", "language"], sort=False)
    numbers = grouped[["rows", "with_choices", "multi_select", "with_rationale"]].sum().astype(int)
    licences = grouped["licence"].agg(lambda x: ", ".join(sorted(set(x.dropna()))) or None)
    return numbers.join(licences).reset_index()
