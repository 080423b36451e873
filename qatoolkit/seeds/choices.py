"""The choices of one seed row in the layouts of benchmarks, and the faults for which a row is rejected."""

import ast
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from string import ascii_uppercase as LETTERS

from qatoolkit.core.text import is_missing

MAX_CHARS = 20_000  # per text; longer ones are dumps or attacks, not questions

REASONS = {
    "not_json": "the line is not JSON",
    "not_a_record": "the row is not an object with named fields",
    "field_count": "the row has more or fewer fields than the header",
    "bad_quotes": "a quoted field is not closed, or goes on after its closing quote",
    "undecodable": "bytes that are not text in the file's encoding, or half of a surrogate pair",
    "null_byte": "a null byte in the text",
    "too_long": f"a text of more than {MAX_CHARS:,} characters",
    "no_question": "no column that holds a question",
    "empty_question": "the question has no letter or digit",
    "no_answer": "no column that holds an answer",
    "empty_answer": "the answer is empty",
    "withheld": "the answer key is withheld (-1, ? or the like)",
    "marked_wrong": "the row says that its answer is wrong",
    "unanswerable": "the row says that its question has no answer",
    "two_answers": "two columns name different choices as the answer",
    "unclear_box": "a box (\\boxed) without a clear end, or several with text between them",
    "unclear_number": "answer, unit and power of ten contradict each other",
    "nested_answer": "the answer is an object, or a list of lists of texts",
    "bad_choices": "the choices are in an unknown layout",
    "one_choice": "fewer than two choices",
    "empty_choice": "a choice has no text",
    "duplicate_choices": "two choices have the same text",
    "answer_outside_choices": "the answer's letter or index is outside the choices",
    "answer_not_in_choices": "the answer's text is not among the choices",
    "other_language": "neither English nor Chinese",
    "duplicate": "question, choices and answer are those of a row already accepted",
    "conflicting_answer": "an accepted row gives another answer to the same question and choices",
}

_EDGES = " \t\r\n\f\v\u00a0\u3000\u200b\u2060\ufeff"
_UNPAIRED = re.compile("[\ud800-\udfff]")
_MARK = r"(?:[(（【\[]\s?(?P<a>[{0}])\s?[)）】\]]|(?P<b>[{0}])\s?(?P<c>[.．、:：)）]))"  # (A) or A.
_OPTION = {
    lower: re.compile(r"(?<![A-Za-z0-9\\{$^_])" + _MARK.replace("{0}", letters))
    for lower, letters in ((False, "A-J"), (True, "A-Ja-j"))
}
INLINE_LETTER = re.compile(_MARK.replace("{0}", "A-Za-z") + r"\s*(?P<text>.*)", re.DOTALL)
FLAGS = [
    "correct", "iscorrect", "isanswer", "isright", "right", "istrue", "iscorrectanswer", "correctans", "selected",
    "isselected",
]  # fmt: skip
_SCORES = ("label", "score", "weight", "fraction", "answer")  # marks if they are 0 and 1, or 0 and 100
_TEXT_KEYS = [
    "text", "content", "value", "option", "choice", "answer", "body", "optiontext", "choicetext", "answertext",
    "description", "val", "内容", "选项", "label", "name",
]  # fmt: skip
_LABEL_KEYS = ("label", "name")  # texts only beside other labels
_NUMBER_KEYS = ["index", "idx", "order", "number", "num", "no", "position", "pos", "value", "序号", "编号"]
_MARK_KEY = re.compile("(?:label|key|id|letter|aoval|identifier)$")
_LINE_LETTER = re.compile(r"(?P<mark>[A-Z])\s+(?P<text>.+)", re.DOTALL)
_NUMBERED = re.compile(r"[(（]?(?P<mark>[1-9]\d?)(?:[)）、]\s*|\.\s+)(?P<text>.+)", re.DOTALL)
_TEXTS = re.compile(r"(?:answer|option|choice)?(?:text|str|content|value|option|choice)s?")
_REPLIES = {"yes": True, "y": True, "是": True, "no": False, "n": False, "否": False}
_TRUTH = _REPLIES | dict.fromkeys(["1", "true", "correct", "right", "t", "对", "正确"], True)
_TRUTH |= dict.fromkeys(["0", "false", "incorrect", "wrong", "f", "错", "错误"], False)
_LABEL = re.compile(r"(?i:option|choice|answer|opt)?[ _]?\(?([A-Za-z])[).]?")
_ARRAY = re.compile(r"array\((\[.*?\])(?:,\s*dtype=\w+)?\)", re.DOTALL)
_QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)


def escape_surrogates(text: str) -> str:
    """The text with unpaired surrogates escaped, which neither files nor table columns can store."""
    return text.encode("utf-8", "backslashreplace").decode()


class Fault(ValueError):
    """Why a row is rejected: `reason` is a key of `REASONS`, `detail` names the value found."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{REASONS[reason]}: {detail}")
        self.reason, self.detail = reason, escape_surrogates(detail)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The choices of a row: their texts, the labels by which an answer may name them, whether the source gives them as
    numbers, and the positions that the source marks as right."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    numbers: bool = False
    right: tuple[int, ...] = ()


def as_truth(value: object, column: str = "") -> bool | None:
    """True or False for 1, 0, "true", "correct", "no" and the like; None for anything else, and for yes and no in a
    column of labels."""
    if isinstance(value, str):
        word = value.strip().casefold()
        return None if word in _REPLIES and simplify(column) == "label" else _TRUTH.get(word)
    return bool(value) if isinstance(value, bool | int | float) and value in (0, 1) else None


def simplify(name: object) -> str:
    """A name in the form used for comparison: case-folded, without spaces and punctuation."""
    return re.sub(r"[\W_]+", "", str(name).casefold())


def is_blank(value: object) -> bool:
    """Whether a cell is empty: None, NaN or blank text."""
    return is_missing(value) or (isinstance(value, str) and not value.strip(_EDGES))


def clean(value: object) -> str:
    """A cell as text: text is only stripped, other values become JSON, missing ones "".

    Raises Fault for null bytes, unpaired surrogates, texts over `MAX_CHARS` and values that JSON cannot represent."""
    if type(value) is int:
        return str(value) if abs(value) < 10**15 else clean(json.dumps(value))
    if is_missing(value):
        return ""
    try:
        text = value.strip(_EDGES) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        raise Fault("not_a_record", f"a cell of type {type(value).__name__}") from None
    if len(text) > MAX_CHARS:
        raise Fault("too_long", f"{len(text):,} characters")
    if "\0" in text:
        raise Fault("null_byte", repr(text[:60]))
    if not text.isascii() and _UNPAIRED.search(text):
        raise Fault("undecodable", ascii(text[:60]))
    return text


def parse_literal(text: str) -> object:
    """The list or dict in a CSV cell, written as JSON, Python or numpy text; None for any other text."""
    if not text.startswith(("[", "{")) or len(text) > MAX_CHARS:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        text = _ARRAY.sub(r"\1", text)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    if isinstance(value, dict):
        return value
    # numpy writes ['a' 'b'] without commas, which Python reads as one text.
    quoted = [a or b for a, b in _QUOTED.findall(text)] if isinstance(value, list) and len(value) == 1 else []
    return quoted if len(quoted) > 1 else value


def split_options(text: str, *, lower: bool = False) -> tuple[str, list[str]] | None:
    """Stem and options of "Which …? A. … B. …"; None if the text has no list of options, or several.

    Letters start at A (with `lower` also at a) and are followed by . 、 : or ), or are in brackets."""
    found = {}
    for mark in _OPTION[lower].finditer(text):
        style = "()" if mark["a"] else {"．": ".", "：": ":", "）": ")"}.get(mark["c"], mark["c"])
        letter = mark["a"] or mark["b"]
        found.setdefault((style, letter.isupper()), []).append((letter.upper(), mark.start(), mark.end()))
    lists = []
    for marks in found.values():
        starts = [i for i, (letter, *_) in enumerate(marks) if letter == "A"]
        for first, after in pairwise([*starts, len(marks)]):
            letters, begins, ends = zip(*marks[first:after], strict=True)
            stops = [*begins[1:], marks[after][1] if after < len(marks) else len(text)]
            options = [text[end:stop].strip(_EDGES) for end, stop in zip(ends, stops, strict=True)]
            if len(options) > 1 and LETTERS.startswith("".join(letters)) and all(options):
                lists.append((len(options), begins[0], stops[-1], options))
    most = max((n for n, *_ in lists), default=0)
    longest = [x for x in lists if x[0] == most]
    if len(longest) != 1 or longest[0][2] != len(text):
        return None
    _, start, _, options = longest[0]
    return text[:start].strip(_EDGES), options


def parse_choices(value: object) -> Choices | None:
    """Choices from a list, a dict, a list of dicts, a text that holds one of these, or a text of lettered options; None
    for an empty value.

    Raises Fault for any other layout, for fewer than two choices, and for empty or repeated ones."""
    if isinstance(value, str):
        value = _split_cell(value.strip(_EDGES))
    value = _flatten(value)
    if is_missing(value) or (isinstance(value, list | tuple | dict) and not value):
        return None
    texts, labels, right = value, None, ()
    if isinstance(value, dict):
        texts, labels = _from_dict(value)
        if all(isinstance(text, bool) for text in texts):  # {"Paris": true, "Rome": false}
            raise Fault("bad_choices", f"truth values {str(value)[:60]}")
    elif isinstance(value, list | tuple) and all(isinstance(v, dict) for v in value):
        texts, labels, right = _from_dicts(value)
    elif not isinstance(value, list | tuple):
        raise Fault("bad_choices", f"{type(value).__name__} {str(value)[:60]!r}")
    numbers = not any(isinstance(t, str) for t in texts)
    return make_choices([clean(t) for t in texts], labels, numbers=numbers, right=right)


def make_choices(
    texts: list[str], labels: Iterable[str] | None = None, *, numbers: bool = False, right: tuple[int, ...] = ()
) -> Choices:
    """Validated choices, with labels inside the texts ("A) 5", "B) 6") removed. Raises Fault as `parse_choices`
    does."""
    usual, given = list(LETTERS[: len(texts)]), labels
    for pattern in (INLINE_LETTER, _LINE_LETTER, _NUMBERED):
        found = [pattern.fullmatch(t) for t in texts]
        if not all(found) or (pattern is _LINE_LETTER and len(texts) < 3):
            continue
        marks = [next(filter(None, m.groups())).upper() for m in found]
        first = usual if pattern is not _NUMBERED else [str(i + 1) for i in range(len(texts))]
        if marks == first or (not given and (sorted(marks) == sorted(first) or _is_series(marks))):
            texts = [m["text"].strip(_EDGES) for m in found]
            labels = labels or (None if marks == usual else marks)
        elif not given and pattern is INLINE_LETTER:  # "A" is neither the first choice nor the one with "A." before it
            labels = [f"{u}?" if u in marks and u != mark else u for u, mark in zip(usual, marks, strict=False)]
    if len(texts) < 2:
        raise Fault("one_choice", repr(texts[0][:60]) if texts else "none")
    if not all(texts):
        raise Fault("empty_choice", f"choice {texts.index('') + 1} of {len(texts)}")
    if len(texts) > len(LETTERS):
        raise Fault("bad_choices", f"{len(texts)} choices, more than there are letters")
    # Compared without case folding or NFKC: Aa and AA are different choices, as are 2² and 22.
    plain = [" ".join(t.split()) for t in texts]
    if len(set(plain)) < len(plain):
        raise Fault("duplicate_choices", repr(next(p for p in plain if plain.count(p) > 1)[:60]))
    labels = tuple(labels or LETTERS[: len(texts)])
    if len(set(labels)) != len(texts):
        raise Fault("bad_choices", f"{len(texts)} texts and the labels {', '.join(labels)[:60]}")
    return Choices(texts=tuple(texts), labels=labels, numbers=numbers, right=right)


def _is_series(marks):
    """Whether three marks or more are letters in a row, with or without the I: F, G, H, J."""
    return len(marks) > 2 and any("".join(marks) in letters for letters in (LETTERS, LETTERS.replace("I", "")))


def _split_cell(text):
    """The choices in a text cell, as a list or dict; the text itself if it cannot be split."""
    if not text:
        return None
    if (value := parse_literal(text)) is not None:
        return value
    if split := split_options(text, lower=True):
        return [option.rstrip(" ,;") for option in split[1]]
    for mark in ("\n", "|", ";", "；"):
        if len(parts := [p for p in text.split(mark) if p.strip()]) > 1:
            return parts
    return text


def _flatten(value):
    """The value without one-item lists and objects around it or its members. Members that are JSON objects as text are
    parsed, and pairs of letter and text become an object."""
    while (isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], list | tuple | dict)) or (
        isinstance(value, dict) and len(value) == 1 and isinstance(next(iter(value.values())), list | tuple | Mapping)
    ):
        value = next(iter(value.values() if isinstance(value, dict) else value))
    if isinstance(value, dict):
        return {k: _unwrap_single(v) for k, v in value.items()}
    if not isinstance(value, list | tuple):
        return value
    items = [w if isinstance(v, str) and isinstance(w := parse_literal(v), dict) else _unwrap_single(v) for v in value]
    if items and all(isinstance(v, list | tuple) and len(v) == 2 for v in items):
        for pairs in (items, [v[::-1] for v in items]):
            names = [str(v[0]).strip("()[]. ").upper() for v in pairs]
            if sorted(names) == list(LETTERS[: len(items)]):
                return dict(zip(names, (v[1] for v in pairs), strict=True))
    return items


def _unwrap_single(value):
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return value


def _from_dict(value):
    """Texts and labels of {"text": […], "label": […]}, {"A": …, "B": …} or {"A": {"text": …}, …}."""
    value = {k: v for k, v in value.items() if v is not None}  # Parquet gives every object the union of all keys
    names = {simplify(k): v for k, v in value.items() if isinstance(v, list | tuple)}
    text = next((k for k in names if _TEXTS.fullmatch(k)), None)
    if text:
        labels = next((v for k, v in names.items() if k != text and re.search("label|key|id|letter", k)), None)
        return names[text], None if labels is None else [normalise_label(x) for x in labels]
    keys = sorted(value, key=lambda k: (len(str(k)), str(k)))
    while len(keys) > 2 and is_blank(value[keys[-1]]):  # questions with fewer options leave the last ones empty
        keys.pop()
    texts, labels = [value[k] for k in keys], [normalise_label(k) for k in keys]
    return _from_dicts(texts)[0] if texts and all(isinstance(t, dict) for t in texts) else texts, labels


def _from_dicts(value):
    """Texts, labels and marked positions of [{"label": "A", "text": …, "correct": true}, …]. A key with a name for texts
    is a label if it holds A, B, C beside another text. If no key has a known name for the text, the only other key with
    texts is used."""
    rows = [{simplify(k): v for k, v in row.items()} for row in value]
    cells = {k: [row.get(k) for row in rows] for k in rows[0]}
    flag = next((k for k in (*FLAGS, *_SCORES) if k in cells and _are_marks(k, cells)), None)
    keys = [k for k in cells if k != flag and _are_labels(cells[k], k)]
    names = [k for k in _TEXT_KEYS if k in cells and k != flag and (keys or k not in _LABEL_KEYS)]
    others = [k for k in cells if k not in (flag, *keys) and all(isinstance(c, str) for c in cells[k])]
    others = [k for k in others if not _MARK_KEY.search(k)] if len(others) > 1 else others
    sure = [k for k in names if k in ("text", "content")] or (others if len(others) == 1 else [])
    text = next(iter([k for k in names if k not in keys] or sure or [k for k in names if k not in _LABEL_KEYS]), None)
    if text is None:
        raise Fault("bad_choices", f"objects with the keys {', '.join(cells)[:60]}")
    label = next((k for k in cells if k not in (text, flag) and (_MARK_KEY.search(k) or k in keys)), None)
    labels = [normalise_label(c) for c in cells[label]] if label else None
    return cells[text], labels, tuple(i for i, c in enumerate(cells.get(flag, ())) if _as_mark(c))


def _are_labels(cells, key):
    """Whether the cells of a key are A, B, C in any order, or 1, 2, 3 where its name allows numbers."""
    texts = sorted(normalise_label(c) for c in cells) if all(len(str(c)) < 12 for c in cells) else []
    numbers = [[str(i + base) for i in range(len(texts))] for base in (0, 1)] if key in _NUMBER_KEYS else []
    return bool(texts) and (texts in (list(LETTERS[: len(texts)]), *numbers) or _is_series(texts))


def _are_marks(key, cells):
    """Whether a key marks objects as right and wrong. A score or label does so only if it tells them apart, and is no
    numbering, beside another key with texts."""
    marks = [_as_mark(c) for c in cells[key]]
    if None in marks or key in FLAGS:
        return None not in marks
    ids = [k for k in cells if (k != key and _MARK_KEY.search(k)) or k in _NUMBER_KEYS]
    numbering = [str(c) for c in cells[key]] == ["0", "1"] and key == "label" and not ids
    return len(set(marks)) == 2 and not numbering and any(k in cells for k in _TEXT_KEYS if k not in _SCORES)


def _as_mark(cell):
    return False if cell is None else True if cell == 100 and cell is not True else as_truth(cell)


def normalise_label(value: object) -> str:
    """A label in the form used by answers: "a" and "option_a" become "A"."""
    found = _LABEL.fullmatch(text := clean(value))
    return found[1].upper() if found else text
