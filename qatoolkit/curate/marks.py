"""Marks given to questions by hand (`qt.browse`): good, bad or edited, with a note. Curation applies them."""

import json
from pathlib import Path

import pandas as pd

from qatoolkit.core.files import atomic
from qatoolkit.core.text import is_missing

MARKS = ("good", "bad", "edit")
COLUMNS = ["id", "mark", "note", "question", "answer"]


def read_marks(path: str | Path) -> pd.DataFrame:
    """Read a file of marks (JSON lines): id, mark (good, bad, edit or null), note, and the question and answer of an
    edit; the last mark of an id counts. ValueError for a missing file, and naming the line for an invalid mark."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file of marks; qt.browse writes one")
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), 1):
        if line.strip():
            rows.append(check_mark(line, f"{path} line {number}"))
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.drop_duplicates("id", keep="last", ignore_index=True)


def check_mark(line: str, where: str) -> dict:
    """Parse a line of JSON as a mark; ValueError, starting with `where`, if it is none."""
    try:
        found = json.loads(line)
        row = {name: found.get(name) or None for name in COLUMNS}
    except (ValueError, AttributeError, RecursionError):
        raise ValueError(f"{where}: not a JSON object: {line[:60]!r}") from None
    if not row["id"] or any(not isinstance(v, str) for v in row.values() if v is not None):
        raise ValueError(f"{where}: a mark needs an id, and all its values must be strings: {line[:60]!r}")
    if row["mark"] not in (None, *MARKS):
        raise ValueError(f"{where}: mark is {row['mark']!r}; allowed: {', '.join(MARKS)}")
    if row["mark"] == "edit" and not (row["question"] and row["answer"]):
        raise ValueError(f"{where}: an edit needs the corrected question and answer")
    return row


def write_marks(marks: pd.DataFrame, path: str | Path) -> None:
    """Write marks as JSON lines, atomically."""
    lines = marks[COLUMNS].astype(object).where(marks[COLUMNS].notna(), None).to_dict("records")
    with atomic(Path(path)) as temporary:
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines), encoding="utf-8")


def apply_marks(
    table: pd.DataFrame, marks: pd.DataFrame
) -> tuple[pd.DataFrame, dict[int, tuple[str, str]], list[tuple]]:
    """The edited table, the rows marked bad as {row: (reason, detail)}, and (row, id, "marked_good" or "marked_edit")
    for the other marked rows.

    An edited question keeps its id, so its lineage stays intact; with choices, the correct one becomes the new
    answer."""
    table, bad, flagged = table.copy(), {}, []
    by_id = {mark["id"]: mark for mark in marks.dropna(subset="mark").to_dict("records")}
    for row, id in enumerate(table["id"].astype(str)):
        mark = by_id.get(id)
        if mark is None:
            continue
        if mark["mark"] == "bad":
            bad[row] = ("marked_bad", mark["note"] or "marked bad by hand")
            continue
        flagged.append((row, id, f"marked_{mark['mark']}"))
        if mark["mark"] == "edit":
            _edit(table, row, mark)
    return table, bad, flagged


def _edit(table: pd.DataFrame, row: int, mark: dict) -> None:
    index = table.index[row]
    choices, right = (table.at[index, c] if c in table else None for c in ("choices", "answer_index"))
    if not is_missing(choices) and len(choices) and not is_missing(right):
        choices = list(choices)
        if mark["answer"] in choices:
            table.at[index, "answer_index"] = choices.index(mark["answer"])
        else:
            choices[int(right)] = mark["answer"]
            table.at[index, "choices"] = choices
    table.at[index, "question"], table.at[index, "answer"] = mark["question"], mark["answer"]
