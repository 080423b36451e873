"""From files, folders, tables and data sets to numbered records; what is no record keeps place and fault.

What a file is, its encoding and its delimiter are decided by its content, not by its name: benchmarks ship
JSON lines as .json, semicolons as .csv, and tables that are not UTF-8.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from qatoolkit.seeds.choices import Fault, storable
from qatoolkit.seeds.columns import find_layout

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_DELIMITERS = ",;\t|^~:"
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f"))
_WRONG, _BEYOND = re.compile("[\ud800-\udfff]"), re.compile("[^\x00-\x7f]")
_COMMON = {"gb18030": (*range(0xA1, 0xA4), *range(0xB0, 0xD8)), "big5": range(0xA1, 0xC7)}  # lead bytes
_SIGNS = set("“”‘’–—…°·•€£©®«»§±×÷¼½¾²³µ")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What was read from one file or table: its name, the label of its rows, how it was read, and its rows.

    A row is (number, record, fault): the line in JSON lines and CSV, the position elsewhere, both from 1; the
    record as a dict, or whatever stands in its place beside a Fault."""

    name: str
    label: str
    how: str
    rows: list[tuple[int, object, Fault | None]]


def sources(source: object) -> Iterator[tuple[int, Source]]:
    """Every file or table of a source as (entry, Source); the entry numbers the items of a list of sources.

    Raises ValueError for a source that is missing, empty, binary, or of no known kind."""
    several = isinstance(source, list | tuple) and not any(isinstance(x, Mapping) and not _is_hub(x) for x in source)
    if several and not source:
        raise ValueError("no seeds: the list of sources is empty")
    names = Counter()
    for entry, one in enumerate(source if several else [source]):
        for read in _one(one):
            if not read.rows:
                raise ValueError(f"no seeds: {read.name} holds no rows")
            names[read.name] += 1
            again = f" ({names[read.name]})" if names[read.name] > 1 else ""
            yield entry, replace(read, name=storable(read.name + again), label=storable(read.label))


def _one(source):
    if isinstance(source, str) and source.startswith("hf:"):
        yield from _hub(source)
    elif isinstance(source, str | Path):
        path = Path(source).expanduser()
        files = _folder(path) if path.is_dir() else [path]
        for file in files:
            yield read_file(file)
    elif isinstance(source, pd.DataFrame):
        yield Source(name="table", label="table", how="table", rows=_numbered(map(_native, source.to_dict("records"))))
    elif _is_hub(source) and isinstance(source, Mapping):  # a DatasetDict: its splits
        for split, part in source.items():
            yield Source(name=str(split), label=str(split), how="datasets", rows=_numbered(map(_native, part)))
    elif _is_hub(source) or isinstance(source, list | tuple):
        how = "datasets" if _is_hub(source) else "rows"
        yield Source(name="rows", label="rows", how=how, rows=_numbered(map(_native, source)))
    else:
        raise ValueError(
            f"no seeds: a source is a path, a list of dicts, a DataFrame, a Dataset or 'hf:org/name:split', "
            f"not {type(source).__name__}"
        )


def _is_hub(source):
    return type(source).__module__.split(".")[0] == "datasets"


def _hub(name):
    """Splits of a data set on the hub: hf:org/name, hf:org/name:split or hf:org/name:config:split."""
    try:
        import datasets
    except ImportError:
        raise ValueError(f"{name} needs the package datasets: pip install 'qatoolkit[all]'") from None
    path, *rest = name.removeprefix("hf:").split(":")
    config, split = (None, *rest)[-2:] if rest else (None, None)
    try:
        data = datasets.load_dataset(path, config, split=split)
    except Exception as error:  # network, hub and loader each have their own exceptions
        raise ValueError(f"cannot load {name}: {' '.join(str(error).split())[:300]}") from None
    for part, rows in ({split: data} if split else data).items():
        rows = _numbered(map(_native, rows))
        yield Source(name=f"{path}:{part}", label=path, how="datasets", rows=rows)


def _folder(path):
    files = sorted(f for f in path.iterdir() if f.suffix.casefold() in SUFFIXES and not f.name.startswith("."))
    if not files:
        raise ValueError(f"no seeds: the folder {path} has no file ending in {', '.join(SUFFIXES)}")
    return files


def _numbered(records: Iterable) -> list:
    return [_row(number, record) for number, record in enumerate(records, 1)]


def _row(number, record):
    if isinstance(record, dict):
        return number, record, None
    return number, record, Fault("not_a_record", f"{type(record).__name__}: {str(record)[:60]!r}")


def _native(value):
    """A record or cell in Python's own types: arrays as lists, nothing as None, names of fields as text."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {str(k): _native(v) for k, v in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_native(v) for v in value]
    return None if value is pd.NA or value is pd.NaT else value


def read_file(path: Path) -> Source:
    """The rows of a JSONL, JSON, CSV or Parquet file, told apart by content.

    Raises ValueError for a file that is missing, empty, binary, or broken as a whole."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read seeds from {path}: {error.strerror}") from None
    if data.startswith(b"PAR1"):
        return _parquet(path)
    if not data.strip(b" \t\r\n\0\xef\xbb\xbf"):
        raise ValueError(f"cannot read seeds from {path}: the file is empty")
    text, encoding = decode(data, path)
    how = [] if encoding == "utf-8" else [encoding]
    start = text.lstrip()[:1]
    if not start:
        raise ValueError(f"cannot read seeds from {path}: the file is empty")
    if path.suffix.casefold() in (".jsonl", ".ndjson"):
        rows, how = _json_lines(text), ["JSON lines", *how]
    elif start in ("{", "["):
        rows, kind = _json(text, path)
        how = [kind, *how]
    else:
        rows, delimiter = _csv(text, path)
        how = ["CSV", f"delimiter {delimiter!r}", *how]
    return Source(name=path.name, label=path.stem, how=", ".join(how), rows=rows)


def decode(data: bytes, path: Path) -> tuple[str, str]:
    """Text and encoding: by its mark, else UTF-8, else the likeliest of cp1252, Mac Roman, GB18030 and Big5.

    A few wrong bytes become unpaired surrogates, so that only the rows that hold them are rejected.
    Raises ValueError for binary files."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16"), "utf-16"
        except UnicodeDecodeError as error:
            raise ValueError(f"cannot read seeds from {path}: broken UTF-16 ({error.reason})") from None
    head = data[: 1 << 16]
    if len(head.translate(None, _CONTROL)) < 0.95 * len(head):
        raise ValueError(f"cannot read seeds from {path}: it is binary, neither text nor Parquet")
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    wrong = len(_WRONG.findall(text))
    if not wrong:
        return text, "utf-8"
    if len(_BEYOND.findall(text)) > 2 * wrong:
        return text, f"utf-8 with {wrong} wrong bytes"
    best = min(("cp1252", "mac_roman", "gb18030", "big5"), key=lambda encoding: _oddness(data, encoding))
    text = data.decode(best, "surrogateescape")
    wrong = len(_WRONG.findall(text))
    return text, f"{best} with {wrong} wrong bytes" if wrong else best


def _oddness(data, encoding):
    """The share of characters beyond ASCII that are unlikely in text of this encoding.

    These are rare Han characters and, in single byte encodings, signs and capitals after small letters: the
    apostrophe of Mac Roman is a capital O in cp1252."""
    text = data.decode(encoding, "surrogateescape")
    beyond = [m.start() for m in _BEYOND.finditer(text)]
    if encoding not in _COMMON:
        odd = sum(
            not (text[i] in _SIGNS or text[i].islower() or (text[i].isupper() and not text[i - 1 : i].islower()))
            for i in beyond
        )
        return odd / len(beyond)
    likely = {c for c in {text[i] for i in beyond} if _is_common(c, encoding)}
    return sum(text[i] not in likely for i in beyond) / len(beyond)


def _is_common(character, encoding):
    code = character.encode(encoding, "surrogateescape")
    return len(code) == 2 and code[0] in _COMMON[encoding] and (encoding == "big5" or code[1] > 0xA0)


def _json(text, path):
    """Rows of a JSON document, or of JSON lines under another name."""
    try:
        return _numbered(_records(json.loads(text))), "JSON"
    except (ValueError, RecursionError) as error:
        rows = _json_lines(text)
        if all(fault for _, _, fault in rows):
            raise ValueError(f"cannot read seeds from {path}: neither JSON nor JSON lines ({error})") from None
        return rows, "JSON lines"


def _json_lines(text):
    rows = []
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if not line.strip():
            continue
        try:
            rows.append(_row(number, json.loads(line)))
        except (ValueError, RecursionError) as error:
            reason = "null_byte" if "\0" in line else "not_json"
            rows.append((number, line.rstrip("\n"), Fault(reason, f"{error}: {line.strip()[:60]!r}")))
    return rows


def _records(document):
    """The records of a JSON document: a list, lists in an object, records by id, columns by name."""
    if not isinstance(document, Mapping):
        return document if isinstance(document, list) else [document]
    values, layout = list(document.values()), find_layout(tuple(document))
    if isinstance(document.get(layout.get("question")), str):
        return [document]
    if values and all(isinstance(v, list | dict) and len(v) == len(values[0]) for v in values) and "question" in layout:
        columns = [v if isinstance(v, list) else list(v.values()) for v in values]
        return [dict(zip(document, row, strict=True)) for row in zip(*columns, strict=True)]
    lists = [v for v in values if isinstance(v, list) and any(isinstance(x, Mapping) for x in v)]
    if lists:
        return [record for part in lists for record in part]
    if values and all(isinstance(v, Mapping) for v in values):
        if any("question" in find_layout(tuple(v)) for v in values):
            return [{"id": key, **value} for key, value in document.items()]
        return [record for value in values for record in _records(value)]
    return [document]


def _parquet(path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = _numbered(pq.read_table(path).to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"cannot read seeds from {path}: broken Parquet ({str(error)[:200]})") from None
    return Source(name=path.name, label=path.stem, how="Parquet", rows=rows)


def _csv(text, path):
    """Rows and delimiter of a CSV table with a header, or of MMLU's own files, which have none."""
    lines = list(io.StringIO(text, newline=""))
    limit = csv.field_size_limit(max(len(text), csv.field_size_limit()))
    try:
        delimiter = max(_DELIMITERS, key=lambda d: _fitness(lines[:200], d))
        parsed = list(_csv_rows(lines, delimiter))
    finally:
        csv.field_size_limit(limit)
    _, header, fault = parsed[0]
    if fault:
        raise ValueError(f"cannot read seeds from {path}: its first line is no CSV header ({fault.detail})")
    if _is_mmlu(header, parsed):
        header = ["question", *"ABCDEFGHIJ"[: len(header) - 2], "answer"]
    else:
        parsed = parsed[1:]
        header = [name.strip() for name in header]
        header = [f"{n}.{i}" if n in header[:i] else n for i, n in enumerate(header)]
    rows = []
    for number, cells, fault in parsed:
        rows.append((number, cells if fault else dict(zip(header, cells, strict=True)), fault))
    return rows, delimiter


def _csv_rows(lines, delimiter):
    """(line, cells, fault) of every record; a quote that is never closed costs its own line, not the file."""
    at, width = 0, None
    while at < len(lines):
        first = at
        reader = csv.reader((lines[i] for i in range(first, len(lines))), delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                start, at = at, first + reader.line_num
                if len(cells) < 2 and not any(cells):
                    continue  # a blank line
                width = width or len(cells)
                if len(cells) == width:
                    yield start + 1, cells, None
                elif at == start + 1:
                    fault = Fault("field_count", f"{len(cells)} fields, the header has {width}")
                    yield start + 1, cells, fault
                else:
                    fault = Fault("bad_quotes", f"a quote opened here runs on to line {at}")
                    yield start + 1, lines[start].rstrip("\r\n"), fault
                    at = start + 1
                    break
        except csv.Error as error:
            fault = Fault("bad_quotes", f"{error}: {lines[at].strip()[:60]!r}")
            yield at + 1, lines[at].rstrip("\r\n"), fault
            at += 1


def _fitness(lines, delimiter):
    """How well a delimiter suits the first lines: known names, then columns, then rows of equal width."""
    parsed = list(_csv_rows(lines, delimiter))
    if not parsed or parsed[0][2]:
        return (0, False, 0.0, 0)
    header = parsed[0][1]
    known = len({"question", "answer", "choices"} & set(find_layout(tuple(header))))
    return known, len(header) > 1, sum(fault is None for *_, fault in parsed) / len(parsed), len(header)


def _is_mmlu(header, parsed):
    """Whether the first line is no header but a row of question, choices and letter."""
    if len(header) < 4 or {"question", "answer"} & set(find_layout(tuple(header))):
        return False
    whole = [cells for _, cells, fault in parsed if fault is None]
    letters = sum(cells[-1].strip() in tuple("ABCDEFGHIJ"[: len(header) - 2]) for cells in whole)
    return header[-1].strip() in tuple("ABCDEFGHIJ") and letters >= 0.9 * len(whole)
