"""Tables as lists of dicts with plain Python values."""

import datetime
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal

import numpy as np
import pandas as pd

NARROW = (np.dtype("float32"), np.dtype("float16"))  # 0.1 in them is not 0.1 as a float, but is written so
_NARROW_TYPES = {"float": np.float32, "halffloat": np.float16}  # by their names in Parquet
MAX_COLUMNS = 1_000  # wider tables are not tables of questions, and take minutes


def check_width(columns: int) -> None:
    """ValueError for a table of more than `MAX_COLUMNS` columns."""
    if columns > MAX_COLUMNS:
        raise ValueError(f"{columns:,} columns; a table of questions has at most {MAX_COLUMNS:,}")


def as_native(value: object) -> object:
    """A record or cell as plain Python values: arrays become lists, pandas nulls None, field names text; decimals,
    dates and times become text (2.50, 1969-07-20)."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {str(k): as_native(v) for k, v in value.items()}
    if value is pd.NA or value is pd.NaT:
        return None
    if type(value).__name__ == "datetime64":
        value = pd.Timestamp(value)
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        value = value.date()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if hasattr(value, "tolist"):
        short = getattr(value, "dtype", None) in NARROW
        value = (value.astype(str).astype(float) if short else value).tolist()
    if isinstance(value, list | tuple):
        return [as_native(v) for v in value]
    return value


def as_integers(cells: list) -> list:
    """Floats as whole numbers if all in the column are whole and some are missing: pandas turns such integer columns
    into floats."""
    known = [cell for cell in cells if cell is not None and cell == cell]
    if len(known) == len(cells) or not all(cell % 1 == 0 and abs(cell) < 2**53 for cell in known):
        return cells
    return [int(cell) if cell is not None and cell == cell else None for cell in cells]


def frame_records(frame: pd.DataFrame) -> list[dict]:
    """The rows of a DataFrame. ValueError for one that is too wide or has two columns of one name."""
    check_width(frame.shape[1])
    if twice := [name for name, n in Counter(map(str, frame.columns)).items() if n > 1]:
        raise ValueError(f"the table has several columns named {twice[0]!r}")
    floats = [i for i, kind in enumerate(frame.dtypes) if kind in (np.dtype(float), *NARROW)]
    cells = {i: as_integers(as_native(frame.iloc[:, i].to_numpy())) for i in floats}
    columns = [cells.get(i, frame.iloc[:, i].array) for i in range(frame.shape[1])]
    return [dict(zip(frame.columns, row, strict=True)) for row in zip(*columns, strict=True)]


def parquet_records(data: bytes) -> list[dict]:
    """The rows of a Parquet file. ValueError for one that is broken or too wide."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"broken Parquet ({str(error)[:200]})") from None
    check_width(table.num_columns)
    columns = []
    for column in table.columns:
        cells = column.to_pylist()
        if narrow := _NARROW_TYPES.get(str(column.type)):
            cells = [None if cell is None else float(str(narrow(cell))) for cell in cells]
        if pa.types.is_floating(column.type):
            cells = as_integers(cells)
        elif not _is_plain(column.type):
            cells = list(map(as_native, cells))
        columns.append(cells)
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _is_plain(kind):
    """Whether cells of a Parquet type already are plain Python values."""
    import pyarrow.types as is_

    if is_.is_list(kind) or is_.is_large_list(kind):
        return _is_plain(kind.value_type)
    if is_.is_struct(kind):
        return all(_is_plain(kind.field(i).type) for i in range(kind.num_fields))
    kinds = (is_.is_string, is_.is_large_string, is_.is_integer, is_.is_floating, is_.is_boolean, is_.is_null)
    return any(is_kind(kind) for is_kind in kinds)
