"""Which choices the answer of a seed row names.

An answer such as "2" can be a choice's text, an index from 0 or an index from 1. One row cannot decide this, but all
rows of a source can: `find_readings` lists every reading that fits a row, `vote_on_order` lets the rows vote, and
`resolve` applies the result (our reading: the papers do not say how their seeds were read).
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from numbers import Integral

from qatoolkit.core.text import normalise
from qatoolkit.seeds.choices import INLINE_LETTER, LETTERS, Choices, Fault, as_truth, clean, normalise_label

READINGS = (  # on a tie, the first wins
    "mark", "letter", "text", "index from 0", "index from 1", "number as text", "wordings of one answer",
    "parts of one answer",
)  # fmt: skip

_ANNOUNCED = (  # before an answer: "The correct answer is", "答案：", "故选"
    r"(?:(?:the\s+)?(?:correct\s+)?(?:answer|option|choice|ans\b\.?)s?(?:\s+is)?"
    r"|(?:正确)?答案(?:是|为)?|[故应]*选项?)\s*[:：]?\s*"
)
_ANNOUNCEMENT = re.compile(rf"(?i:\A{_ANNOUNCED})")
_LETTER = r"[\[(（【*]*[A-Z][\])）】*]*"
_LETTER_ANSWER = re.compile(
    rf"(?i:{_ANNOUNCED})?\s*(?P<letters>{_LETTER}(?:(?:\s*(?:[,，、/&+;；|和与或]|\band\b)\s*|\s*){_LETTER})*)\s*(?:选项)?\s*[.．。]?"
)
_ONE_LETTER = re.compile(r"[(（\[]?([a-z])[)）\].]*|\$([A-Z])\$")
_WITHHELD = re.compile(r"(?i)-1(?:\.0)?|\?+|n/?a|hidden|withheld|unknown|null|none")
_INTEGER = re.compile(r"\d{1,3}(?:\.0)?")
_CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩"


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
    if len(parts) == len(choices.texts) and None not in (marks := [as_truth(p, "label") for p in parts]) and any(marks):
        result["mark"] = tuple(i for i, is_right in enumerate(marks) if is_right)  # [0, 1, 0, 0]
    for reading, positions in found.items():
        flat = tuple(p for ps in positions for p in ps)
        if positions and all(positions) and len(set(flat)) == len(flat):
            result[reading] = flat
    if numbers and not choices.numbers and "text" in result:
        # beside choices written as text a number is rather an index, unless it is a choice's text in more rows
        result["number as text"] = result.pop("text")
    return result


def _match_letter(text, choices):
    if (label := text if text in choices.labels else normalise_label(text)) in choices.labels:
        return (choices.labels.index(label),)
    if m := INLINE_LETTER.fullmatch(_unannounced(text)):
        letter = (m["a"] or m["b"]).upper()
        if m["text"] and letter in choices.labels:
            position = choices.labels.index(letter)
            if _without_stop(m["text"]) == _without_stop(choices.texts[position]):
                return (position,)
    if len(text) > 80:
        return ()
    if m := _LETTER_ANSWER.fullmatch(text):
        letters = re.findall("[A-Z]", m["letters"])
    elif m := _ONE_LETTER.fullmatch(text):
        letters = [(m[1] or m[2]).upper()]
    else:
        return ()
    numbered = all(label.isdecimal() for label in choices.labels) and [*choices.labels] == sorted(choices.labels)
    labels = LETTERS[: len(choices.texts)] if numbered else choices.labels
    if len(set(letters)) < len(letters) or not set(letters) <= set(labels):
        return ()
    return tuple(labels.index(letter) for letter in letters)


def _unannounced(text):
    """A text without "The answer is" before it."""
    return _ANNOUNCEMENT.sub("", text, count=1)


def _without_stop(text):
    return normalise(text).rstrip(".。")


def _match_text(text, choices):
    if text in choices.texts:
        return (choices.texts.index(text),)
    plain = normalise(text)
    same = [i for i, choice in enumerate(choices.texts) if normalise(choice) == plain]
    if not same and len(text) < 200:
        plain = {_without_stop(text), _without_stop(_unannounced(text))}
        same = [i for i, choice in enumerate(choices.texts) if _without_stop(choice) in plain]
    return tuple(same) if len(same) == 1 else ()


def _match_index(text, choices, base):
    if text and text in _CIRCLED:
        text = str(_CIRCLED.index(text) + 1) if base else ""
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
    if votes["number as text"]:
        votes["number as text"] += votes["text"]
    best = max(READINGS, key=lambda r: (votes[r], r == f"index from {base}", -READINGS.index(r)))
    tied = [r for r in READINGS if r.startswith("index") and r != best and votes[r] == votes[best]]
    note = f" ({', '.join(tied)} fits as well)" if tied and best.startswith("index") and base is None else ""
    texts = ("text",) if best.startswith("index") else ("text", "number as text")
    return tuple(dict.fromkeys((best, "letter", *texts))), best + note


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
    return "".join(LETTERS[p] for p in sorted(positions)), None
