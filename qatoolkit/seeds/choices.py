"""Choices and answer of one seed row in the layouts of benchmarks, and the faults for which a row is rejected.

An answer such as "2" can be a choice's text, an index from 0 or an index from 1. One row cannot decide this, but all
rows of a source can: `find_readings` lists every reading that fits a row, `vote_on_order` lets the rows vote, and `resolve`
applies the result (our reading: the papers do not say how their seeds were read).
"""

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from string import ascii_uppercase as _LETTERS

from qatoolkit.core.text import is_missing, normalise

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

READINGS = (  # on a tie, the first wins
    "mark", "letter", "text", "index from 0", "index from 1", "wordings of one answer", "parts of one answer",
)  # fmt: skip

_EDGES = " \t\r\n\f\v\u00a0\u3000\u200b\u2060\ufeff"
_UNPAIRED = re.compile("[\ud800-\udfff]")
_MARK = r"(?:[(（【\[]\s?(?P<a>[{0}])\s?[)）】\]]|(?P<b>[{0}])\s?(?P<c>[.．、:：)）]))"  # (A) or A.
_OPTION = {
    lower: re.compile(r"(?<![A-Za-z0-9\\{$^_])" + _MARK.replace("{0}", letters))
    for lower, letters in ((False, "A-J"), (True, "A-Ja-j"))
}
_INLINE_LETTER = re.compile(_MARK.replace("{0}", "A-Za-z") + r"\s*(?P<text>.*)", re.DOTALL)
_ANNOUNCED = (  # before a letter: "The correct answer is", "答案：", "故选"
    r"(?:(?:(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)s?(?:\s+is)?"
    r"|(?:正确)?答案(?:是|为)?|[故应]*选项?)\s*[:：]?)?"
)
_LETTER_ANSWER = re.compile(  # no semicolons: "B; C" answers two blanks
    rf"(?i:{_ANNOUNCED})[\s\[(（【*]*(?P<letters>[A-Z](?:(?:\s*(?:[,，、/&+和与]|\band\b)\s*|\s*)[A-Z])*)[\])）】*]*\s*[.．。]?"
)
_ONE_LETTER = re.compile(r"[(（\[]?([a-z])[)）\].]*")
_MARK_KEY = re.compile("(?:label|key|id|letter|aoval|identifier)$")
_LINE_LETTER = re.compile(r"(?P<mark>[A-Z])\s+(?P<text>.+)", re.DOTALL)
_NUMBERED = re.compile(r"[(（]?(?P<mark>[1-9]\d?)(?:[)）、]\s*|\.\s+)(?P<text>.+)", re.DOTALL)
_TEXTS = re.compile(r"(?:answer|option|choice)?(?:text|str|content|value|option|choice)s?")
_LABEL = re.compile(r"(?i:option|choice|answer|opt)?[ _]?\(?([A-Za-z])[).]?")
_WITHHELD = re.compile(r"(?i)-1(?:\.0)?|\?+|n/?a|hidden|withheld|unknown|null|none")
_INTEGER = re.compile(r"\d{1,3}(?:\.0)?")
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
            if len(options) > 1 and _LETTERS.startswith("".join(letters)) and all(options):
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
    labelled = [_INLINE_LETTER.fullmatch(t) for t in texts]
    if all(labelled) and [(m["a"] or m["b"]).upper() for m in labelled] == list(_LETTERS[: len(labelled)]):
        texts = [m["text"].strip(_EDGES) for m in labelled]
    lettered = [_LINE_LETTER.fullmatch(t) for t in texts]
    if len(texts) > 2 and all(lettered) and [m["mark"] for m in lettered] == list(_LETTERS[: len(texts)]):
        texts = [m["text"].strip(_EDGES) for m in lettered]
    numbered = [_NUMBERED.fullmatch(t) for t in texts]
    if all(numbered) and [m["mark"] for m in numbered] == [str(i + 1) for i in range(len(texts))]:
        texts, labels = [m["text"].strip(_EDGES) for m in numbered], labels or [m["mark"] for m in numbered]
    if len(texts) < 2:
        raise Fault("one_choice", repr(texts[0][:60]) if texts else "none")
    if not all(texts):
        raise Fault("empty_choice", f"choice {texts.index('') + 1} of {len(texts)}")
    if len(texts) > len(_LETTERS):
        raise Fault("bad_choices", f"{len(texts)} choices, more than there are letters")
    # Compared without case folding or NFKC: Aa and AA are different choices, as are 2² and 22.
    plain = [" ".join(t.split()) for t in texts]
    if len(set(plain)) < len(plain):
        raise Fault("duplicate_choices", repr(next(p for p in plain if plain.count(p) > 1)[:60]))
    labels = tuple(labels or _LETTERS[: len(texts)])
    if len(set(labels)) != len(texts):
        raise Fault("bad_choices", f"{len(texts)} texts and the labels {', '.join(labels)[:60]}")
    return Choices(texts=tuple(texts), labels=labels, numbers=numbers, right=right)


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
        names = [str(v[0]).strip("()[]. ").upper() for v in items]
        if names == list(_LETTERS[: len(items)]):
            return dict(zip(names, (v[1] for v in items), strict=True))
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
        return names[text], None if labels is None else [_normalise_label(x) for x in labels]
    keys = sorted(value, key=lambda k: (len(str(k)), str(k)))
    while len(keys) > 2 and is_blank(value[keys[-1]]):  # questions with fewer options leave the last ones empty
        keys.pop()
    texts, labels = [value[k] for k in keys], [_normalise_label(k) for k in keys]
    return _from_dicts(texts)[0] if texts and all(isinstance(t, dict) for t in texts) else texts, labels


def _from_dicts(value):
    """Texts, labels and marked positions of [{"label": "A", "text": …, "correct": true}, …]. If no key has a known name
    for the text, the only other key with texts is used."""
    rows = [{simplify(k): v for k, v in row.items()} for row in value]
    names = ("text", "content", "value", "option", "choice", "answer", "body", "optiontext", "choicetext", "answertext")
    flags = ("correct", "iscorrect", "isanswer", "isright", "right", "istrue")
    text = next((k for k in names if k in rows[0]), None)
    label = next((k for k in rows[0] if k not in names and _MARK_KEY.search(k)), None)
    flag = next((k for k in flags if k in rows[0]), None)
    others = [k for k in rows[0] if k not in (label, flag) and all(isinstance(row.get(k), str) for row in rows)]
    if text is None and len(others) != 1:
        raise Fault("bad_choices", f"objects with the keys {', '.join(rows[0])[:60]}")
    right = tuple(i for i, row in enumerate(rows) if flag and row.get(flag) in (True, 1, "true", "True", "1"))
    labels = [_normalise_label(row.get(label)) for row in rows] if label else None
    return [row.get(text or others[0]) for row in rows], labels, right


def _normalise_label(value):
    """A label in the form used by answers: "a" and "option_a" become "A"."""
    found = _LABEL.fullmatch(text := clean(value))
    return found[1].upper() if found else text


def find_readings(answer: object, choices: Choices) -> dict[str, tuple[int, ...]]:
    """Every reading that fits an answer (a value or a list) -> the positions of the choices it then names."""
    parts = list(answer) if isinstance(answer, list | tuple) else [answer]
    numbers = all(isinstance(p, Integral) and not isinstance(p, bool) for p in parts)
    texts = [clean(p) for p in parts]
    found = {
        "letter": [_match_letter(t, choices) for t in texts],
        "text": [_match_text(t, choices) for t in texts],
        "index from 0": [_match_index(t, choices, 0) for t in texts],
        "index from 1": [_match_index(t, choices, 1) for t in texts],
    }
    result = {}
    for reading, positions in found.items():
        flat = tuple(p for ps in positions for p in ps)
        if positions and all(positions) and len(set(flat)) == len(flat):
            result[reading] = flat
    if numbers and not choices.numbers and "index from 0" in result:
        # a number beside choices written as text is an index, even where it equals the text of a choice
        result.pop("text", None)
    return result


def _match_letter(text, choices):
    if (label := text if text in choices.labels else _normalise_label(text)) in choices.labels:
        return (choices.labels.index(label),)
    if m := _INLINE_LETTER.fullmatch(text):
        letter = (m["a"] or m["b"]).upper()
        if m["text"] and letter in choices.labels:
            position = choices.labels.index(letter)
            if normalise(m["text"]) == normalise(choices.texts[position]):
                return (position,)
    if len(text) > 80:
        return ()
    if m := _LETTER_ANSWER.fullmatch(text):
        letters = re.findall("[A-Z]", m["letters"])
    elif m := _ONE_LETTER.fullmatch(text):
        letters = [m[1].upper()]
    else:
        return ()
    if len(set(letters)) < len(letters) or not set(letters) <= set(choices.labels):
        return ()
    return tuple(choices.labels.index(letter) for letter in letters)


def _match_text(text, choices):
    if text in choices.texts:
        return (choices.texts.index(text),)
    plain = normalise(text)
    same = [i for i, choice in enumerate(choices.texts) if normalise(choice) == plain]
    return tuple(same) if len(same) == 1 else ()


def _match_index(text, choices, base):
    if not _INTEGER.fullmatch(text):
        return ()
    position = math.floor(float(text)) - base
    return (position,) if 0 <= position < len(choices.texts) else ()


def vote_on_order(
    rows: Iterable[Mapping[str, tuple[int, ...]]], base: int | None = None
) -> tuple[tuple[str, ...], str]:
    """The readings to try, best first, by the votes of one source's rows, and a description of the best with any tie.

    All indices of a source have the same base. If both bases fit equally well, the layout's `base` is used, else 0."""
    votes = Counter(reading for found in rows for reading in found)
    best = max(READINGS, key=lambda r: (votes[r], r == f"index from {base}", -READINGS.index(r)))
    tied = [r for r in READINGS if r.startswith("index") and r != best and votes[r] == votes[best]]
    note = f" ({', '.join(tied)} fits as well)" if tied and best.startswith("index") and base is None else ""
    return tuple(dict.fromkeys((best, "letter", "text"))), best + note


def resolve(answer: str, choices: Choices, found: Mapping, order: Iterable[str]) -> tuple[str, int | None]:
    """The text of the right choice and its index, or letters ("BD") and None if several are right.

    Raises Fault if no reading in `order` fits."""
    positions = next((found[reading] for reading in order if reading in found), None)
    if positions is None:
        if _WITHHELD.fullmatch(answer):
            raise Fault("withheld", f"{answer!r} with {len(choices.texts)} choices")
        pointer = _INTEGER.fullmatch(answer) or _LETTER_ANSWER.fullmatch(answer[:80]) or _ONE_LETTER.fullmatch(answer)
        reason = "answer_outside_choices" if pointer else "answer_not_in_choices"
        raise Fault(reason, f"{answer[:60]!r} with {len(choices.texts)} choices")
    if len(positions) == 1:
        return choices.texts[positions[0]], positions[0]
    return "".join(_LETTERS[p] for p in sorted(positions)), None
