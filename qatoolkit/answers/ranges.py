"""Ranges of numbers in answers: "5 to 10", and intervals as brackets, inequalities or words ("at least 5")."""

import functools
import itertools
import re
from collections.abc import Callable

from qatoolkit.answers.quantities import quantity

_N = r"[+-]?(?:[$€£¥]\s*)?\d[\d,.]*(?:\s*(?:%|million|billion|万|亿))?"
_SPAN = re.compile(
    rf"(?P<from>from\s+|between\s+|从|介于)?(?P<low>{_N})(?P<unit>\s*[^\W\d_]{{1,12}}|°)??\s*(?P<mark>-|~|to|and|至|到|和|与)\s*"
    rf"(?P<high>{_N})(?P<last>\s*[^\d].{{0,20}}?)?(?:之间)?",
    re.IGNORECASE,
)
_WORDS = {
    "≥": r"at least|no less than|not less than|no fewer than|a minimum of|至少|不少于|不小于|不低于|大于等于|大于或等于",
    "≤": r"at most|no more than|not more than|a maximum of|至多|最多|不超过|不多于|不大于|不高于|小于等于|小于或等于",
    ">": r"more than|greater than|larger than|over|above|大于|多于|超过|高于",
    "<": r"less than|fewer than|smaller than|under|below|小于|少于|低于|不足",
}
_BOUND = re.compile("|".join(f"(?P<_{i}>{words})" for i, words in enumerate(_WORDS.values())), re.IGNORECASE)
_BRACKETS = re.compile(r"([(\[])\s*([^,;()\[\]]+)[,;]\s*([^,;()\[\]]+)([)\]])")
_SIGN = re.compile("([<>≤≥])")
_FLIPPED = str.maketrans("<>≤≥→∈", "><≥≤←∋")
RELATION = re.compile(r"(<=|>=|[<>≤≥≠∈→])")


def read_range(text: str) -> tuple[str, str] | None:
    """Both ends, each with the unit, of "5-10 km", "5 to 10 km", "between 5 and 10 km", "5～10千米"; None otherwise."""
    found = _SPAN.fullmatch(text) if len(text) <= 60 else None
    if not found or (found["mark"] in ("and", "和", "与")) != (
        (found["from"] or "").strip().casefold() in ("between", "介于")
    ):
        return None
    last = found["last"] or ""
    low, high = found["low"] + (found["unit"] or last), found["high"] + last
    ends = [quantity(low), quantity(high)]
    if not all(ends) or (found["mark"] in "-~" and ends[0].value >= ends[1].value):
        return None
    return low, high


def intervals(text: str) -> tuple[str, list[tuple[str, str, bool, bool]]] | None:
    """The variable ("" for words, "[" for brackets) and the intervals of a union, each as (lower end, upper end, lower
    included, upper included): "[2, 5)", "2 ≤ x < 5", "x < 1 or x > 2", "{x | x > 3}", "at least 5"; None for other
    texts."""
    if len(text) > 120:
        return None
    text = re.sub(r"^\{\s*[a-z]\s*[|:](.*)\}$", r"\1", text).strip()
    text = re.sub(r"^[a-z]\s*∈\s*", "", text).replace("<=", "≤").replace(">=", "≥")
    if (bound := _BOUND.match(text)) and re.match(r"\s*[是为]?\s*(?:[-+$€£¥.\d√π]|\\frac)", text[bound.end() :]):
        text = f"{list(_WORDS)[int(bound.lastgroup[1:])]} {text[bound.end() :].strip().lstrip('是为')}"
    names, found = set(), []
    if re.search(r"\)\s*(?:or|或)\s*\(", text):  # two points, or two intervals
        return None
    for part in re.split(r"∪|\bor\b|或", text):
        if brackets := _BRACKETS.fullmatch(part.strip()):
            names.add("[")
            found.append((brackets[2].strip(), brackets[3].strip(), brackets[1] == "[", brackets[4] == "]"))
            continue
        sides = [side.strip() for side in _SIGN.split(part)]
        if any(sign in ">≥" for sign in sides[1::2]):
            sides = [side.translate(_FLIPPED) for side in reversed(sides)]
        if not set(sides[1::2]) <= {"<", "≤"} or len(sides) not in (3, 5):
            return None
        if len(sides) == 3:  # x < 5 or 5 < x
            is_name = [re.fullmatch("[A-Za-zα-ω]?", side) is not None for side in sides[::2]]
            if is_name[0] == is_name[1]:
                return None
            sides = ["-∞", "<", *sides] if is_name[0] else [*sides, "<", "∞"]
        if not re.fullmatch("[A-Za-zα-ω]?", sides[2]):
            return None
        names.add(sides[2])
        found.append((sides[0], sides[4], sides[1] == "≤", sides[3] == "≤"))
    return (names.pop(), found) if len(names) == 1 and len(found) <= 3 else None


def same_ranges(a: str, b: str, same: Callable[[str, str], bool | None]) -> bool | str | None:
    """Whether two ranges or intervals agree; "no ranges" if there are none, or both are inequalities."""
    spans, both = (read_range(a), read_range(b)), (intervals(a), intervals(b))
    if all(spans):
        ends = [same(x, y) for x, y in zip(*spans, strict=True)]
        return False if False in ends else None if None in ends else True
    kinds = {found[0] for found in both if found}
    if all(both) and (kinds & {"[", ""} if len(kinds) > 1 else kinds == {""} or re.search("[∪∈{]", a + b)):
        return same_intervals(both[0][1], both[1][1], same)
    if any(spans) and re.search("[:比]", a + b):
        return None  # 3 to 4 may be a ratio
    bound = "" in kinds and re.findall(r"\d+", a) == re.findall(r"\d+", b)
    return None if bound else "no ranges"  # at least 5, 5 and more


def same_intervals(a: list, b: list, same: Callable[[str, str], bool | None]) -> bool | None:
    """Compare unions of intervals, in any order, by their ends (with `same`) and whether the ends are included."""
    if len(a) != len(b):
        return None
    verdicts, same = [], functools.cache(same)
    for order in itertools.permutations(b):
        ends = [
            False if (x[2], x[3]) != (y[2], y[3]) else same(x[0], y[0]) and same(x[1], y[1])
            for x, y in zip(a, order, strict=True)
        ]
        verdicts.append(False if False in ends else None if None in ends else True)
    return True if True in verdicts else None if None in verdicts else False


def same_relation(a: str, b: str, each: Callable[[list, list], list]) -> bool | None:
    """Compare inequalities, read in either direction. Undecided if they differ in more than a number or a letter."""
    (sides_a, signs_a), (sides_b, signs_b) = (
        ([side.strip() for side in parts[::2]], parts[1::2])
        for parts in (re.split(RELATION, t.replace("<=", "≤").replace(">=", "≥")) for t in (a, b))
    )
    if len(sides_a) != len(sides_b) or not all(sides_a + sides_b) or len(sides_a) > 6:
        return None
    results = []
    flipped = [s.translate(_FLIPPED) for s in reversed(signs_b)]
    for sides, signs in ((sides_b, signs_b), (sides_b[::-1], flipped)):
        verdicts = each(sides_a, sides)
        different = [p for p, v in zip(zip(sides_a, sides, strict=True), verdicts, strict=True) if v is False]
        simple = all(quantity(side) or re.fullmatch(r"[^\W\d_]", side) for pair in different for side in pair)
        verdict = True if all(verdicts) else False if different and simple else None
        results.append(signs_a == signs if verdict else verdict)
    return True if True in results else None if None in results else False
