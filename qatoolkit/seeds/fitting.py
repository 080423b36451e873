"""Matches columns to fields: by the names and layouts of `layouts`, and by content if names are ambiguous."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from qatoolkit.core.text import normalise
from qatoolkit.seeds.choices import (
    Choices,
    Fault,
    as_truth,
    clean,
    is_blank,
    make_choices,
    parse_choices,
    simplify,
    split_options,
)
from qatoolkit.seeds.layouts import ENDS, KEYS, LATE_QUESTIONS, LAYOUTS, NAMES, POINTERS
from qatoolkit.seeds.open_answers import is_power, is_unit
from qatoolkit.seeds.readings import find_readings

_INNER = ("wrong", "marks", "mark")  # fields that only a layout or a mapping can set
_WORK = ("solution", "output", "completion", "response")  # worked solutions, never a fallback for an empty answer key
_MARKS = re.compile(r"[a-j]|\d")
_KEYLIKE = re.compile(
    r"unit|answer|option|choice|distractor|solution|correct|wrong|label|target|gold|truth|alias|candidate|ending|table|passage"
    r"|答案|选项|選項|干扰项"
)
_WORDS = re.compile(r"(?:[^\W\d_]{2,}\W+){2}\w|[\u3400-\u9fff]{8}|\n")  # three words, eight Han characters or two lines
_METADATA = re.compile(
    r"(?:type|start|end|format|length|len|count|num|number|url|ids?|score|time|model)s?\Z|\An(?:um)?(?=answers|options|choices)"
)
SAMPLE = 200  # rows per layout that are inspected to choose its columns


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of one layout of records: field -> column, or several columns (one per choice, or by preference)."""

    fields: Mapping[str, str | tuple[str, ...]]
    layout: str = "by names"
    index_from: int | None = None
    lists: str | None = None
    unused: tuple[str, ...] = ()
    checks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further columns of the same answer -> the readings by which they name a choice."""


def has(columns: Iterable[str], wanted: str | Iterable[str]) -> bool:
    """Whether records with these columns can have all `wanted` columns, which may be dotted paths."""
    wanted = [wanted] if isinstance(wanted, str) else wanted
    return all(w in columns or w.split(".")[0] in columns for w in wanted)


def get(record: Mapping, column: str | tuple[str, ...]) -> object:
    """The cell of a column or of a dotted path into nested objects, None if missing; of several columns, the first cell
    that is not empty."""
    if isinstance(column, tuple):
        return next((cell for c in column if not is_blank(cell := get(record, c))), None)
    if column in record:
        return record[column]
    for key in column.split("."):
        record = (record if isinstance(record, dict) else _by_role(record)).get(key)
    return record


def _by_role(chat):
    """Role -> text of a list of messages; None for a role with several messages, since none alone is the question."""
    if not isinstance(chat, list) or not chat or not all(isinstance(m, dict) for m in chat):
        return {}
    messages = [(m.get("role", m.get("from")), m.get("content", m.get("value"))) for m in chat]
    roles = [role for role, _ in messages]
    return {role: text if roles.count(role) == 1 else None for role, text in messages if isinstance(role, str)}


def find_layout(columns: Iterable[str], mapping: Mapping | None = None, rows: Sequence[Mapping] = ()) -> Columns:
    """The columns of records by their names and, if several match, by the content of the first `rows`.

    `mapping` takes precedence; its columns may be dotted paths into nested objects."""
    columns, sample = tuple(columns), rows[:SAMPLE]
    by_name = _by_name(columns, sample)
    fields = {f: c if isinstance(c, str) else tuple(c) for f, c in (mapping or {}).items() if has(columns, c)}
    special = None
    for layout in reversed(LAYOUTS):
        if not set(layout.columns) & set(fields) and (found := _fit_layout(layout, by_name, sample)):
            fields, special = fields | found, layout
            break
    for name, names in NAMES.items():
        if name in fields or name in _INNER or (name == "choices" and {"wrong", "marks"} & set(fields)):
            continue
        used = _used_columns(fields)
        free = [c for n in names.split() if (c := _match(n, by_name)) and not used & set(_as_tuple(c))]
        if name == "answer" and not {"choices", "marks"} & set(fields) and not _has_options(fields, sample):
            free = [c for c in free if not _is_pointer(c, sample)]
        if found := _choose_column(name, free, fields, rows if name == "context" else sample):
            fields[name] = _with_fallbacks(found, free, rows) if name == "answer" else found
    for beside, names in LATE_QUESTIONS.items() if "question" not in fields else ():
        free = [c for n in names.split() if (c := _match(n, by_name)) and not _used_columns(fields) & set(_as_tuple(c))]
        if beside in fields and free and (beside == "choices" or _ask(sample, free[0])):
            fields["question"] = free[0]
            break
    base = None if special is None else special.index_from
    if isinstance(choices := fields.get("choices"), tuple) and choices[0].endswith(("0", "1")) and base is None:
        base = 0 if choices[0].endswith("0") else 1 if len(choices) > 2 else None
    known = {"layout": special.name, "lists": special.lists} if special else {}
    checks = _find_checks(by_name, fields, sample)
    unused = tuple(c for c in _find_unused(columns, fields, sample) if c not in checks)
    return Columns(fields=fields, index_from=base, unused=unused, checks=checks, **known)


def _by_name(columns, rows):
    """Simplified name -> column; fields of nested objects as name.name -> dotted path."""
    by_name = {}
    for column in columns:
        by_name.setdefault(simplify(column), column)
    for row in rows:
        for column, cell in row.items():
            _add_inner(column, cell, by_name)
    return by_name


def _add_inner(path, cell, by_name):
    inside = cell if isinstance(cell, dict) else _by_role(cell)
    for key, inner in inside.items() if len(inside) < 50 else ():
        name = ".".join(map(simplify, (*path.split("."), key)))
        by_name.setdefault(name, f"{path}.{key}")
        if isinstance(inner, dict) and path.count(".") == 0:
            _add_inner(f"{path}.{key}", inner, by_name)


def _match(name, by_name, least=2):
    """The column with a name, or the columns that a name with a star matches, in order; None for fewer than `least`.
    Names joined by a plus match only together."""
    if "+" in name:
        parts = tuple(_match(part, by_name) for part in name.split("+"))
        return parts if all(isinstance(part, str) for part in parts) else None
    name = name if name.isalnum() and name.islower() else re.sub(r"[^\w.*]|_", "", name.casefold())
    if not name.endswith("*"):
        return by_name.get(name)
    prefix, marks = name[:-1], {}
    for known, column in by_name.items():
        mark = known[len(prefix) :]
        if known.startswith(prefix) and _MARKS.fullmatch(mark) and (prefix or mark.isalpha()):
            marks[mark] = column
    for order in ("abcdefghij", "0123456789" if "0" in marks else "123456789"):
        run = [marks[m] for i, m in enumerate(order) if all(k in marks for k in order[: i + 1])]
        if len(run) >= least:
            return tuple(run)
    return None


def _as_tuple(column):
    return (column,) if isinstance(column, str) else column


def _used_columns(fields):
    used = {c for column in fields.values() for c in _as_tuple(column)}
    return used | {c.split(".")[0] for c in used}


def _fit_layout(layout, by_name, rows):
    """Field -> column for a layout; None if a column is missing or most rows do not fit."""
    found = {}
    if "wrong" in layout.columns:  # a published list of choices takes precedence
        whole = [c for n in NAMES["choices"].split() if (c := _match(n, by_name))]
        if any(sum(_suits("choices", row, c, {}) for row in rows) > 0.5 * len(rows) for c in whole):
            return None
    for name, names in layout.columns.items():
        least, used = 1 if name == "wrong" else 2, _used_columns(found)
        free = [c for n in names.split() if (c := _match(n, by_name, least)) and not used & set(_as_tuple(c))]
        if not free:
            return None
        best = _choose_column(name, free, found, rows)
        if best is None:
            return None
        found[name] = _with_fallbacks(best, free, rows) if name == "answer" else best
    fit = [row for row in rows if _row_fits(row, found)]
    if rows and len(fit) <= 0.5 * len(rows):
        return None
    if found.get("choices") and isinstance(found["choices"], str) and "answer" in found and _are_wordings(fit, found):
        return None
    return found


def _are_wordings(rows, found):
    """Whether lists are wordings of the answer, not choices: the answer is always the text of the first item."""
    keys = [find_readings(get(row, found["answer"]), read_choices(row, found)) for row in rows]
    return all(list(k) == ["text"] and k["text"] == (0,) for k in keys if k)


def _row_fits(row, found):
    """Whether a row fits a layout: choices with a key, marks of 0 and 1, wrong answers beside a right one."""
    values = {name: get(row, c) for name, c in found.items() if name not in ("choices", "wrong", "question")}
    try:
        choices = read_choices(row, found) if "choices" in found else None
        if "marks" in found:
            marked = read_marked(row, found)
            keys = [find_readings(cell, marked) for cell in _cells(row, KEYS)] if marked else []
            return bool(marked) and all(marked.right in key.values() for key in keys if key)
        if "mark" in found:
            has_choices = any(_cells(row, NAMES["choices"]))
            return as_truth(values["mark"], found["mark"]) is not None and not has_choices and _is_best(row, found)
        if "wrong" in found:
            wrong = values.pop("wrong", get(row, found["wrong"]))
            return (
                isinstance(wrong, str | list | int | float)
                and not isinstance(wrong, bool)
                and _is_single(values["answer"])
            )
        if "choices" in found and "answer" not in found:
            return choices is not None and bool(choices.right)
        if "choices" in found:
            return choices is not None and (is_blank(values["answer"]) or _is_key(values["answer"], choices))
        return not any(map(is_blank, values.values()))
    except Fault:
        return False


def _cells(row, names):
    """The non-empty cells of a row in columns with these names."""
    by_name = _by_name(tuple(row), ())
    return [cell for n in names.split() if (c := _match(n, by_name)) and not is_blank(cell := get(row, c))]


def _is_best(row, found):
    """Whether the answer that a mark is about is a text, and no other column has a better name for the answer."""
    by_name = _by_name(tuple(row), ())
    known = (c for n in NAMES["answer"].split() if (c := _match(n, by_name)) and c != found["mark"])
    best = next((c for c in known if not is_blank(get(row, c))), None)
    return isinstance(get(row, found["answer"]), str) and best in (None, found["answer"])


def _is_single(value):
    return not is_blank(value) and not isinstance(value, list | dict | bool)


def _is_key(value, choices):
    """Whether a value names a choice or says that the key is withheld."""
    return bool(find_readings(value, choices)) or clean(value).removesuffix(".0") == "-1"


def read_choices(record: Mapping, fields: Mapping) -> Choices | None:
    """Choices of a record, or None; the last choice columns may be empty. Raises Fault."""
    columns = fields.get("choices")
    if columns is None or isinstance(columns, str):
        return parse_choices(get(record, columns)) if columns else None
    cells = [get(record, column) for column in columns]
    while cells and is_blank(cells[-1]):
        cells.pop()
    return make_choices([clean(c) for c in cells]) if cells else None


def read_marked(record: Mapping, fields: Mapping) -> Choices | None:
    """Choices that each have a mark, or None if the record has none. Raises Fault for marks that are not 0 or 1."""
    marks = get(record, fields["marks"])
    if isinstance(marks, dict):
        marks = {text: mark for text, mark in marks.items() if mark is not None}
    texts = get(record, fields["choices"]) if "choices" in fields else marks
    if not isinstance(marks, list | dict) or not marks or not isinstance(texts, list | dict) or not texts:
        return None
    values = list(marks.values()) if isinstance(marks, dict) else marks
    right = [as_truth(m) for m in values] if isinstance(values, list | tuple) else [None]
    texts = list(texts)
    if None in right or len(right) != len(texts) or not any(right):
        raise Fault("bad_choices", f"marks {str(values)[:60]}")
    return make_choices([clean(t) for t in texts], right=tuple(i for i, is_right in enumerate(right) if is_right))


def _choose_column(name, candidates, fields, rows):
    """Of several columns for a field, the first that suits at least half as many rows as the best one."""
    if name in ("context", "unit", "power") and rows:
        filled = {c: [*islice((row for row in rows if not is_blank(get(row, c))), SAMPLE)] for c in candidates}
        candidates = [c for c in candidates if 2 * sum(_suits(name, r, c, fields) for r in filled[c]) > len(filled[c])]
    if name == "aliases":  # "answers" that all have the same length may be choices
        sizes = {c: {len(a) for row in rows if isinstance(a := get(row, c), list)} for c in candidates}
        candidates = [c for c in candidates if simplify(c) != "answers" or len(sizes[c]) != 1]
    if len(candidates) < 2 or name not in ("question", "choices", "answer", "context"):
        return candidates[0] if candidates else None
    scores = [sum(_suits(name, row, column, fields) for row in rows[:SAMPLE]) for column in candidates]
    return next(c for c, score in zip(candidates, scores, strict=True) if score >= 0.5 * max(scores))


def _with_fallbacks(best, candidates, rows):
    """The answer's column, followed by columns that have an answer where it is empty."""
    without = [row for row in rows if is_blank(get(row, best))] if len(candidates) > 1 else []
    parent = best.rpartition(".")[0]
    others = [c for c in candidates if c != best and simplify(c) not in _WORK and c.rpartition(".")[0] == parent]
    fallbacks = [c for c in others if any(_is_single(get(row, c)) or (parent and get(row, c)) for row in without)]
    return (best, *fallbacks) if fallbacks else best


def _suits(name, row, column, fields):
    """Whether a row's cell has content suitable for a field."""
    cell = get(row, column)
    try:
        if name == "question":
            return isinstance(column, tuple) or (isinstance(cell, str) and any(c.isalpha() for c in cell))
        if name == "context":
            return (
                isinstance(cell, str | list)
                and bool(cell)
                and not _repeats_row(row, cell, fields)
                and not _is_table(cell)
            )
        if name in ("unit", "power"):
            return (is_unit if name == "unit" else is_power)(cell)
        if name == "choices":
            return read_choices(row, {"choices": column}) is not None
        if is_blank(cell) or isinstance(cell, dict) or cell == []:
            return False
        choices = read_choices(row, fields)
        return bool(find_readings(cell, choices)) if choices else True
    except Fault:
        return name == "answer"


def _repeats_row(row, cell, fields):
    """Whether a text is no passage, but the row's question in a template, or its answer."""
    question, answer = (get(row, fields[f]) if f in fields else None for f in ("question", "answer"))
    if not isinstance(cell, str) or not isinstance(question, str):
        return False
    text = normalise(cell)
    return normalise(question) in text or (isinstance(answer, str) and normalise(answer) == text)


def _is_prose(cell):
    """Whether a cell holds a text of a few words, or several such texts."""
    if isinstance(cell, list | dict):
        return any(map(_is_prose, cell.values() if isinstance(cell, dict) else cell))
    return isinstance(cell, str) and bool(_WORDS.search(cell)) and not cell.startswith(("http://", "https://"))


def _has_options(fields, rows):
    """Whether the first questions have their options in the text."""
    cells = [get(row, fields["question"]) for row in rows[:20]] if "question" in fields else []
    return any(isinstance(cell, str) and split_options(cell) for cell in cells)


def _is_pointer(column, rows):
    """Whether a column names an answer only beside choices: an index, or labels that are all numbers of few classes."""
    name = simplify(column)
    cells = {str(get(row, column)) for row in rows if not isinstance(get(row, column), bool)} - {"None"}
    classes = name.endswith("label") and cells and cells <= {"-1", "0", "1", "2"}
    return classes or ("." not in column and name.endswith(POINTERS) and name != "answernumber")


def _ask(rows, column):
    """Whether most cells of a column are questions."""
    return sum("?" in str(get(row, column)) or "？" in str(get(row, column)) for row in rows) > 0.5 * len(rows)


def _find_checks(by_name, fields, rows):
    """Columns named like the answer's (answer, answer_index, answer_text), with the readings by which they name a
    choice. A number counts only as an index from the base that agrees with the answer in most rows."""
    if not {"answer", "choices"} <= set(fields):
        return {}
    best, *_ = _as_tuple(fields["answer"])
    stems = [simplify(best).removesuffix(end) for end in ENDS]
    others = {c for stem in stems if stem for end in ENDS if (c := _match(stem + end, by_name)) and c != best}
    return {c: ("letter", "text", *_agreeing(c, best, fields, rows)) for c in sorted(others)}


def _agreeing(column, best, fields, rows):
    agree = Counter()
    for row in rows:
        try:
            choices = read_choices(row, fields)
            keys = set(find_readings(get(row, best), choices).values()) if choices else ()
            agree.update(
                r for r, where in find_readings(get(row, column), choices).items() if where in keys
            ) if keys else 0
        except Fault:
            continue
    base = max(("index from 0", "index from 1"), key=lambda r: agree[r])
    return (base,) if 2 * agree[base] >= len(rows) else ()


def _is_table(cell):
    """Whether a list has rows of equal length, whose cells no longer belong together as lines of text."""
    rows = cell if isinstance(cell, list) and len(cell) > 1 else [[]]
    return all(isinstance(r, list) and len(r) == len(rows[0]) > 1 and all(isinstance(c, str) for c in r) for r in rows)


def _find_unused(columns, fields, rows):
    """Unused columns that look like options or answers, by name or by content, or that hold sentences."""
    used = _used_columns(fields)
    for column in columns:
        name = simplify(column)
        if column in used or _METADATA.search(name):
            continue
        cells = [row.get(column) for row in rows]
        lists = sum(isinstance(c, list) and 2 <= len(c) <= 10 and all(isinstance(t, str) for t in c) for c in cells)
        filled = any(not is_blank(c) and c not in ([], {}) for c in cells)
        texts = sum(map(_is_prose, cells))
        if filled and (_KEYLIKE.search(name) or lists > 0.5 * len(rows) or (texts and 2 * texts > len(rows))):
            yield column
