"""Files, folders, tables and data sets as numbered records. An item that is not a record keeps its number and its
fault.

The built-in readers look at a file's content, not its name: benchmarks ship JSON lines as .json, semicolons as .csv,
and tables that are not UTF-8. `READERS` maps suffixes to readers and can be extended:

    def read_xlsx(path):
        return pd.read_excel(path).to_dict("records")

    qt.seeds.READERS[".xlsx"] = read_xlsx

Then `read_seeds` reads .xlsx files, alone and in folders. A reader takes a path and returns the file's records as a
list or an iterator of dicts; rows are numbered from 1. An item that is not a dict becomes a reject with its row number,
so yield the text of a line that cannot be parsed. ValueError or OSError from a reader means that the whole file is
unreadable. The built-in readers, and only these, unpack .gz, .bz2 and .xz files, so .jsonl.gz is read like .jsonl.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import pandas as pd

from qatoolkit.seeds.choices import Fault, escape_surrogates, simplify
from qatoolkit.seeds.decoding import decode
from qatoolkit.seeds.fitting import find_layout
from qatoolkit.seeds.layouts import NAMES
from qatoolkit.seeds.tables import as_native, check_width, frame_records, parquet_records

SUB_FOLDER = "a sub-folder"
MAX_BYTES = 4 << 30  # per unpacked file
_COMPRESSED = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_PASSAGES = {name.split(".")[0] for name in NAMES["context"].split()}
_DELIMITERS = ",;\t|^~:"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file or table: its rows, how it was read, its name, and the label of its rows.

    A row is (number, record, fault). The number is the line in JSON lines and CSV, else the position, both from 1. The
    record is a dict and the fault None, or the record is whatever was found instead of a dict, with a Fault."""

    rows: list[tuple[int, object, Fault | None]]
    how: str
    name: str = ""
    label: str = ""


def read_sources(source: object, skipped: dict[str, str] | None = None) -> Iterator[tuple[int, Source]]:
    """Every file or table of a source as (entry, Source); the entry numbers the items of a list of sources.

    Folder entries that are not read are added to `skipped`, with the reason: files without rows or without a reader,
    and sub-folders. Raises ValueError for a source that is missing, empty, binary, or of an unknown type."""
    several = isinstance(source, list | tuple) and not any(isinstance(x, Mapping) and not _is_hub(x) for x in source)
    if several and not source:
        raise ValueError("no seeds: the list of sources is empty")
    names = Counter()
    for entry, one in enumerate(source if several else [source]):
        for read in _read_one(one, {} if skipped is None else skipped):
            names[read.name] += 1
            repeat = f" ({names[read.name]})" if names[read.name] > 1 else ""
            name, label = escape_surrogates(read.name + repeat), escape_surrogates(read.label)
            yield entry, replace(read, name=name, label=label)


def _read_one(source, skipped):
    if isinstance(source, str) and source.startswith("hf:"):
        yield from _read_hub(source)
    elif isinstance(source, str | Path):
        path = Path(source).expanduser()
        yield from _read_folder(path, skipped) if path.is_dir() else [read_file(path)]
    elif isinstance(source, pd.DataFrame):
        yield _from_memory("table", "table", frame_records(source))
    elif _is_hub(source) and isinstance(source, Mapping):  # a DatasetDict: its splits
        for split, part in source.items():
            yield _from_memory(str(split), "datasets", part)
    elif _is_hub(source) or isinstance(source, list | tuple):
        yield _from_memory("rows", "datasets" if _is_hub(source) else "rows", source)
    else:
        raise ValueError(
            f"no seeds: a source is a path, a list of dicts, a DataFrame, a Dataset or 'hf:org/name:split', "
            f"not {type(source).__name__}"
        )


def _from_memory(name, how, records):
    rows = _numbered(map(as_native, records))
    if not rows:
        raise ValueError(f"no seeds: {name} has no rows")
    return Source(name=name, label=name, how=how, rows=rows)


def _is_hub(source):
    return type(source).__module__.split(".")[0] == "datasets"


def _read_hub(name):
    """Splits of a data set on the hub: hf:org/name, hf:org/name:split or hf:org/name:config:split."""
    try:
        import datasets
    except ImportError:
        raise ValueError(f"{name} needs the package datasets: pip install 'qatoolkit[all]'") from None
    path, *rest = name.removeprefix("hf:").split(":")
    config, split = (None, *rest)[-2:] if rest else (None, None)
    try:
        data = datasets.load_dataset(path, config, split=split)
    except Exception as error:  # network, hub and loader each raise their own exceptions
        raise ValueError(f"cannot load {name}: {' '.join(str(error).split())[:300]}") from None
    for part, rows in ({split: data} if split else data).items():
        yield replace(_from_memory(f"{path}:{part}", "datasets", rows), label=path)


class _NoRows(ValueError):
    """A file is readable but has nothing in it."""


def _read_folder(folder, skipped):
    """The files of a folder, without its sub-folders; entries that are not read are added to `skipped`."""
    read = 0
    for path in sorted(p for p in folder.iterdir() if not p.name.startswith(".")):
        if reason := _reason_unread(path):
            skipped[path.name] = reason
            continue
        try:
            found = read_file(path)
        except _NoRows as error:
            skipped[path.name] = str(error).rpartition(": ")[2]
            continue
        read += 1
        yield found
    if not read:
        raise ValueError(
            f"no seeds: the folder {folder} has no file ending in {', '.join(READERS)}, or only empty ones"
        )


def _reason_unread(path):
    """Why a folder's entry is not read; None for a file with a reader."""
    if not path.is_file():
        return SUB_FOLDER if path.is_dir() else "no regular file"
    return None if _suffix(path) in READERS else f"no reader for {path.suffix or 'a name without an ending'}"


def _suffix(path):
    """The suffix of a name in lower case, without that of a compressed file: .jsonl for a.JSONL.gz."""
    *_, before, last = ["", *(s.casefold() for s in path.suffixes)] if path.suffixes else ["", ""]
    return before if last in _COMPRESSED and before else last


def read_file(path: Path) -> Source:
    """The rows of one file, by the reader for its suffix, else by its content.

    Raises ValueError, naming the file, if it is missing, empty, not a regular file (a pipe would block for ever) or
    unreadable as a whole."""
    suffix = _suffix(path)
    try:
        if path.exists() and not path.is_file():
            raise ValueError(
                "it is a folder" if path.is_dir() else "it is not a regular file but a pipe, socket or device"
            )
        found = READERS.get(suffix, read_by_content)(path)
        if not isinstance(found, Source):
            found = Source(how=suffix[1:], rows=_numbered(map(as_native, found)))
        if not found.rows:
            raise _NoRows("it has no rows")
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        cause = " ".join(str(getattr(error, "strerror", None) or error).split())
        kind = _NoRows if isinstance(error, _NoRows) else ValueError
        raise kind(f"cannot read seeds from {path}: {cause}") from error
    packed = path.suffix.casefold() in _COMPRESSED
    return replace(found, name=path.name, label=Path(path.stem).stem if packed else path.stem)


def _read_bytes(path):
    """The bytes of a file, unpacked if its suffix is that of a compressed file."""
    unpack = _COMPRESSED.get(path.suffix.casefold())
    if unpack is None:
        return path.read_bytes()
    with unpack(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"unpacked it has more than {MAX_BYTES >> 30} GiB")
    return data


def _numbered(records: Iterable) -> list:
    return [_as_row(number, record) for number, record in enumerate(records, 1)]


def _as_row(number, record):
    if isinstance(record, dict):
        return number, record, None
    return number, record, Fault("not_a_record", f"{type(record).__name__}: {str(record)[:60]!r}")


def read_by_content(path: Path) -> Source:
    """Read a Parquet, JSON, JSON lines or CSV file, whatever its name."""
    data = _read_bytes(path)
    if data.startswith(b"PAR1"):
        return Source(how="Parquet", rows=_numbered(parquet_records(data)))
    text, encoding = _read_text(data)
    return _parse_json(text, encoding) if text.lstrip()[0] in "{[" else _parse_csv(text, encoding)


def read_json_lines(path: Path) -> Source:
    """Read a file of JSON lines; a line that is not JSON becomes a fault. A file that is a single JSON document is read
    as one."""
    text, encoding = _read_text(_read_bytes(path))
    rows = _parse_lines(text)
    if rows[0][2]:
        try:
            return Source(how=f"JSON{encoding}", rows=_numbered(_read_document(text)))
        except (ValueError, RecursionError):
            pass  # keep the lines and their faults
    return Source(how=f"JSON lines{encoding}", rows=rows)


def _read_text(data):
    """A file's text and a note on its encoding (empty for UTF-8); ValueError if there is no text."""
    text, encoding = decode(data) if data.strip(b" \t\r\n\0\xef\xbb\xbf") else ("", "utf-8")
    if not text.strip():
        raise _NoRows("the file is empty")
    return text, "" if encoding == "utf-8" else f", {encoding}"


def _parse_json(text, encoding):
    """A JSON document, or JSON lines."""
    try:
        return Source(how=f"JSON{encoding}", rows=_numbered(_read_document(text)))
    except (ValueError, RecursionError) as error:
        rows = _parse_lines(text)
        if all(fault for _, _, fault in rows):
            raise ValueError(f"neither JSON nor JSON lines ({error})") from None
        return Source(how=f"JSON lines{encoding}", rows=rows)


def _parse_lines(text):
    rows = []
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if not line.strip():
            continue
        try:
            rows.append(_as_row(number, json.loads(line)))
        except (ValueError, RecursionError) as error:
            reason = "null_byte" if "\0" in line else "not_json"
            rows.append((number, line.rstrip("\n"), Fault(reason, f"{error}: {line.strip()[:60]!r}")))
    return rows


def _read_document(text):
    _has_question.cache_clear()  # a layout may have been added
    return _records(json.loads(text))


def _records(document):
    """The records of a JSON document: a list, lists in an object, id -> record, or name -> column."""
    if isinstance(document, list):
        return [inner for record in document for inner in _unnest(record) or [record]]
    if not isinstance(document, Mapping):
        return [document]
    if nested := _unnest(document):
        return nested
    values, layout = list(document.values()), find_layout(document).fields
    if isinstance(document.get(layout.get("question")), str):
        return [document]
    if values and all(isinstance(v, list | dict) and len(v) == len(values[0]) for v in values) and "question" in layout:
        columns = [v if isinstance(v, list) else list(v.values()) for v in values]
        return [dict(zip(document, row, strict=True)) for row in zip(*columns, strict=True)]
    if any(map(_has_records, values)):
        return [record for v in values if _has_records(v) for record in v]
    if values and all(isinstance(v, Mapping) for v in values):
        if any(map(_asks, values)):
            return [{"id": key, **value} for key, value in document.items()]
        return [record for value in values for record in _records(value)]
    return [document]


def _unnest(record):
    """The questions nested in a record without a question, each with the record's other texts and its passage: SQuAD's
    paragraphs and qas. Other members of the lists with questions, and of lists beside them, are kept as they are."""
    if not isinstance(record, Mapping) or not any(map(_has_records, record.values())) or _asks(record):
        return []
    passage = [k for k in record if simplify(k) in _PASSAGES]
    parts = {k: v if isinstance(v, list) else _records(v) for k, v in record.items() if k not in passage and _holds(v)}
    nested = [(r, [r] if _asks(r) else _unnest(r)) for part in parts.values() for r in part]
    if not any(inner for _, inner in nested):
        return []
    cells = {k: v for k, v in record.items() if k in passage or not isinstance(v, list | Mapping)}
    return [row for r, inner in nested for row in [cells | x for x in inner] or [r]]


def _holds(value):
    """Whether a value is a list with records, or an object with questions in it."""
    return _has_records(value) or (isinstance(value, Mapping) and any(map(_asks, _records(value))))


def _has_records(value):
    return isinstance(value, list) and any(isinstance(x, Mapping) for x in value)


def _asks(record):
    return isinstance(record, Mapping) and _has_question(tuple(record))


@lru_cache(maxsize=1000)
def _has_question(columns):
    return "question" in find_layout(columns).fields


def _parse_csv(text, encoding):
    """A CSV table with a header, or one of MMLU's original files, which have none."""
    lines = list(io.StringIO(text, newline=""))
    limit = csv.field_size_limit(max(len(text), csv.field_size_limit()))
    try:
        most = max(_DELIMITERS, key=lines[0].count)
        check_width(max(map(len, csv.reader(lines[:1], delimiter=most)), default=0))
        delimiter = max(_DELIMITERS, key=lambda d: _fitness(lines[:200], d))
        parsed = list(_csv_rows(lines, delimiter))
    finally:
        csv.field_size_limit(limit)
    _, header, fault = parsed[0]
    if fault:
        raise ValueError(f"its first line is not a CSV header ({fault.detail})")
    if _is_mmlu(header, parsed):
        header = ["question", *"ABCDEFGHIJ"[: len(header) - 2], "answer"]
    else:
        parsed = parsed[1:]
        header = [name.strip() for name in header]
        header = [f"{n}.{i}" if n in header[:i] else n for i, n in enumerate(header)]
    rows = [(i, cells if fault else dict(zip(header, cells, strict=True)), fault) for i, cells, fault in parsed]
    return Source(how=f"CSV, delimiter {delimiter!r}{encoding}", rows=rows)


def _csv_rows(lines, delimiter):
    """(line, cells, fault) of every record; a quote that is never closed costs only its own line."""
    position, width = 0, None
    while position < len(lines):
        first = position
        reader = csv.reader((lines[i] for i in range(first, len(lines))), delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                start, position = position, first + reader.line_num
                if len(cells) < 2 and not any(cells):
                    continue  # a blank line
                width = width or len(cells)
                if len(cells) == width:
                    yield start + 1, cells, None
                elif position == start + 1:
                    yield position, cells, Fault("field_count", f"{len(cells)} fields, the header has {width}")
                else:
                    fault = Fault("bad_quotes", f"a quote opened here runs on to line {position}")
                    yield start + 1, lines[start].rstrip("\r\n"), fault
                    position = start + 1
                    break
        except csv.Error as error:
            fault = Fault("bad_quotes", f"{error}: {lines[position].strip()[:60]!r}")
            yield position + 1, lines[position].rstrip("\r\n"), fault
            position += 1


def _fitness(lines, delimiter):
    """How well a delimiter suits the first lines: by known names, several columns, and rows of equal width."""
    parsed = list(_csv_rows(lines, delimiter))
    if not parsed or parsed[0][2]:
        return (0, False, 0.0, 0)
    header = parsed[0][1]
    known = len({"question", "answer", "choices"} & set(find_layout(header).fields))
    return known, len(header) > 1, sum(fault is None for *_, fault in parsed) / len(parsed), len(header)


def _is_mmlu(header, parsed):
    """Whether the first line is a row of question, choices and letter instead of a header."""
    fields = find_layout(header).fields
    if len(header) < 4 or "question" in fields or fields.get("answer", header[-1]) != header[-1]:
        return False
    whole = [cells for _, cells, fault in parsed if fault is None]
    letters = sum(cells[-1].strip() in tuple("ABCDEFGHIJ"[: len(header) - 2]) for cells in whole)
    return header[-1].strip() in tuple("ABCDEFGHIJ") and letters >= 0.9 * len(whole)


READERS: dict[str, Callable[[Path], Source | Iterable]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_by_content,
    ".csv": read_by_content,
    ".tsv": read_by_content,
    ".parquet": read_by_content,
}
