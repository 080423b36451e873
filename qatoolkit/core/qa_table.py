"""The QA table: one row per question; its columns, its validation, and its Parquet files."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from qatoolkit.core.files import Damaged, atomic
from qatoolkit.core.taxonomy import LABELS
from qatoolkit.core.text import normalise

REQUIRED = ("id", "question", "answer", "language", "source")
OPTIONAL = (
    "choices", "answer_index", "aliases", "rationale", "discipline", "difficulty", "grade", "knowledge_points", "strategy",
    "parents", "teacher", "prompt_version", "licence", "verified",
)  # fmt: skip
COLUMNS = REQUIRED + OPTIONAL
PASS = "pass_"  # prefix of measured columns: pass rates by model (`evaluation.pass_rates`)
LISTS = ("choices", "aliases", "knowledge_points", "parents", "calls")
_ALLOWED = {"language": ("en", "zh"), **LABELS}


def qa_id(question: str, answer: str, choices: Iterable[str] | None = None) -> str:
    """The id of a question: 16 hex digits of the sha256 of its normalised content, without aliases."""
    content = [normalise(question), normalise(answer), [normalise(c) for c in choices] if choices is not None else None]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:16]


def qa_table(rows: Iterable[dict], **constant) -> pd.DataFrame:
    """A QA table with all columns from dicts with question, answer and other fields. `constant` sets fields of all
    rows; a missing id is computed. Raises ValueError as `validate` does.

    >>> import qatoolkit as qt
    >>> rows = [{"question": "Which gas do plants take in?", "answer": "carbon dioxide"}]
    >>> table = qt.qa_table(rows, language="en", source="greenhouse")
    >>> table[["id", "question", "answer", "language", "source"]]
                     id                      question          answer language      source
    0  0cc69a136acbdbbb  Which gas do plants take in?  carbon dioxide       en  greenhouse
    """
    full = []
    for row in rows:
        row = constant | dict(row)
        row.setdefault("id", qa_id(row["question"], row["answer"], row.get("choices")))
        full.append({c: row.get(c) for c in COLUMNS})
    return validate(pd.DataFrame(full, columns=list(COLUMNS)))


def validate(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the table if it is a QA table; else ValueError with column, row and value of the first fault."""
    missing = [c for c in REQUIRED if c not in table.columns]
    if missing:
        raise ValueError(f"not a QA table: no column {missing[0]!r}; it has {', '.join(map(str, table.columns))}")
    for column in REQUIRED:
        empty = table[column].isna() | (table[column].astype(str).str.strip() == "")
        if empty.any():
            raise ValueError(f"QA table: {column} is empty in row {empty.idxmax()}; reject such rows when reading")
    for column, allowed in _ALLOWED.items():
        if column in table:
            wrong = table[column].notna() & ~table[column].isin(allowed)
            if wrong.any():
                raise ValueError(
                    f"QA table: {column} is {table.loc[wrong.idxmax(), column]!r} in row {wrong.idxmax()}; "
                    f"allowed: {', '.join(allowed)}"
                )
    if table["id"].duplicated().any():
        raise ValueError(f"QA table: id {table.loc[table['id'].duplicated(), 'id'].iloc[0]!r} occurs twice")
    return table


def qa_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a QA table that are kept with its rows: `COLUMNS` and measured pass rates."""
    return [*COLUMNS, *(name for name in table if name.startswith(PASS))]


def require(where, table: pd.DataFrame, *columns: str) -> None:
    """ValueError if a table is missing any of these columns; `where` names the table in the error. Raw rows are
    referred to `read_seeds`."""
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f"{where} is a {type(table).__name__}; make a QA table of rows or files with qt.read_seeds")
    if missing := set(columns) - set(table.columns):
        raw = "; make a QA table of raw rows with qt.read_seeds" if "id" in missing else ""
        raise ValueError(f"{where} is missing the columns {sorted(missing)}; it has {list(table.columns)}{raw}")


def as_lists(table: pd.DataFrame) -> pd.DataFrame:
    """A copy with Python lists or None in the list columns, which Parquet returns as arrays."""
    table = table.copy()
    for column in LISTS:
        if column in table:
            values = [list(v) if hasattr(v, "__len__") and not isinstance(v, str) else None for v in table[column]]
            table[column] = pd.Series(values, index=table.index, dtype=object)
    return table


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, atomically."""
    with atomic(path) as temporary:
        table.to_parquet(temporary, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """Read a Parquet table, list columns as Python lists. Damaged names a file that is not Parquet."""
    path = Path(path)
    try:
        return as_lists(pd.read_parquet(path))
    except (ValueError, OSError) as error:
        if not path.is_file():
            raise
        cause = "it is empty" if not path.stat().st_size else " ".join(str(error).split())[:200]
        raise Damaged(f"{path} is damaged, not a Parquet table ({cause}): remove it and rerun what writes it") from None
