"""Training documents from files: QA rows as a prompt and its answer, running text as it is."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from qatoolkit.textbook.corpus import as_prompt_and_answer
from qatoolkit.tokens import Document


def qa_documents(table: pd.DataFrame) -> Iterator[Document]:
    """The rows of a QA table as documents in two parts: the prompt, and the answer behind it."""
    rows = zip(table["question"], table["answer"], table["language"], strict=True)
    return (as_prompt_and_answer(*row) for row in rows)


def text_documents(paths: Iterable[str | Path], column: str = "text") -> Iterator[Document]:
    """The texts of Parquet and JSON-lines files (.jsonl, .jsonl.gz), a row at a time, so that they may be larger than memory.

    ValueError names the file, and the line, where there is no text in `column` or the file can't be read; empty texts are passed
    over."""
    for path in map(Path, paths):
        name = path.name.removesuffix(".gz")
        if not path.is_file():
            raise ValueError(f"{path} does not exist")
        if name.endswith(".parquet"):
            rows = _parquet(path, column)
        elif name.endswith((".jsonl", ".json", ".ndjson")):
            rows = _json_lines(path, column)
        else:
            raise ValueError(f"{path}: texts are read from .parquet and .jsonl files (.gz too)")
        try:
            yield from (text for text in rows if text.strip())
        except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is damaged, or no UTF-8: {error}; write it anew") from None


def _parquet(path: Path, column: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no whole Parquet file: {error}") from None
    if column not in file.schema_arrow.names:
        raise ValueError(f"{path} has no column {column!r}; it has {', '.join(file.schema_arrow.names)}")
    for batch in file.iter_batches(columns=[column]):
        for text in batch.column(0).to_pylist():
            if not isinstance(text, str | None):
                raise ValueError(f"{path}: column {column!r} holds {type(text).__name__}, no text")
            yield text or ""


def _json_lines(path: Path, column: str) -> Iterator[str]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                text = json.loads(line)[column] if line.strip() else ""
            except (ValueError, KeyError, TypeError):
                text = None
            if not isinstance(text, str):
                raise ValueError(f"{path}, line {number}: no JSON object with a text in {column!r}")
            yield text
