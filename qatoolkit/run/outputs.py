"""What a stage wrote: tables, values and folders in the folder of its artifact."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from qatoolkit.core.display import table
from qatoolkit.core.files import read_json, write_json
from qatoolkit.core.qa_table import read_table, write_table


class Outputs:
    """What a stage wrote, read from disk on access: `.name` is a table (Parquet), a value (JSON) or a folder's path."""

    def __init__(self, stage: str, folder: Path, names: list[str], skipped: bool):
        self._stage, self._folder, self._names, self.skipped = stage, folder, names, skipped

    def __dir__(self):
        return self._names

    def __getattr__(self, name: str):
        for suffix, read in ((".parquet", read_table), (".json", read_json)):
            if (path := self._folder / f"{name}{suffix}").is_file():
                return read(path)
        if (self._folder / name).is_dir():
            return self._folder / name
        if name in self._names:
            raise FileNotFoundError(f"{self._folder / name} is missing: remove {self._folder} and run the stage again")
        raise AttributeError(f"{self._stage} wrote no {name!r}; it wrote {', '.join(self._names)}")

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __repr__(self):
        return f"{self._stage}: {', '.join(self._names)}"

    def _repr_html_(self) -> str:
        """Each output with its size, and the columns of a table."""
        rows = []
        for name in self._names:
            size, columns = "value" if (self._folder / f"{name}.json").is_file() else "folder", []
            if (path := self._folder / f"{name}.parquet").is_file():
                size, columns = f"{pq.read_metadata(path).num_rows:,} rows", pq.read_schema(path).names
            rows.append((name, size, ", ".join(columns)))
        return table(pd.DataFrame(rows, columns=[self._stage, "is", "columns"])).html


def write_output(folder: Path, name: str, value) -> Path:
    """Write an output of a stage and return its path; None means a folder that the stage wrote itself."""
    if isinstance(value, pd.DataFrame):
        write_table(value, folder / f"{name}.parquet")
        return folder / f"{name}.parquet"
    if value is not None:
        write_json(value, folder / f"{name}.json")
        return folder / f"{name}.json"
    return folder / name
