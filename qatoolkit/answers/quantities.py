"""Quantities in answers: the number, its precision and its unit, as people and models write them.

Thousands separators, fractions, percent, scientific and LaTeX notation, Chinese numerals, English ones up to
ninety-nine, currencies and common units.
"""

import re
from fractions import Fraction
from typing import NamedTuple

_MAX_EXACT_DIGITS = 400  # longer numbers are text: 1e999999999 must not be expanded

_NUMBER = r"[+-]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"
_HAS_NUMBER = re.compile(r"[\d零〇一二两三四五六七八九十百千万亿]")
_SCIENTIFIC = re.compile(r"\s*(?:\\times|\\cdot|[×·*x])\s*10\s*(?:\^|\*\*)\s*\{?\s*([+-]?\d+)(?:\s*\})?")
_FRACTION = re.compile(r"([+-]?)\s*(\d+)?\s*\\[dt]?frac\s*\{?(\d+)\}?\s*\{?(\d+)\}?")
_QUANTITY = re.compile(
    rf"(?P<currency>[$€£¥]?)\s*(?:(?P<whole>[+-]?\d+)\s+(?=\d+/))?(?P<top>{_NUMBER})"
    r"(?:\s*/\s*(?P<bottom>\d+(?:\.\d+)?))?"
    r"\s*(?P<times>万亿|[千百十]?万|亿|(?:thousand|million|billion|trillion)\b)?"
    r"\s*(?P<percent>(?:\\?%|percent\b|per cent\b)?)\s*(?P<unit>°|°?[^\W\d_][^\d+=*^\\(){}\[\]<>,;]{0,30})?",
    re.IGNORECASE,
)
_UNIT_ALIASES = {
    **dict.fromkeys(("$", "usd", "dollar", "美元"), "dollar"),
    **dict.fromkeys(("¥", "rmb", "cny", "yuan", "元"), "yuan"),
    **dict.fromkeys(("km", "kilometer", "kilometre", "千米", "公里"), "km"),
    **dict.fromkeys(("m", "meter", "metre", "米"), "m"),
    **dict.fromkeys(("cm", "centimeter", "centimetre", "厘米"), "cm"),
    **dict.fromkeys(("kg", "kilogram", "千克", "公斤"), "kg"),
    **dict.fromkeys(("g", "gram", "克"), "g"),
    **dict.fromkeys(("s", "sec", "second", "秒"), "s"),
    **dict.fromkeys(("min", "minute", "分钟", "分"), "min"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "小时"), "h"),
    **dict.fromkeys(("°", "deg", "degree", "度"), "degree"),
    **dict.fromkeys(("j", "joule", "焦耳"), "j"),
    **dict.fromkeys(("n", "newton", "牛顿"), "n"),
    **dict.fromkeys(("w", "watt", "瓦特"), "w"),
    **dict.fromkeys(("/", "per"), "/"),
}
# An additional unit changes the quantity if it is one of these: m/s is not m, but "duck eggs" are eggs.
_TELLING = {*_UNIT_ALIASES.values(), "mol", "square", "cubic", "dozen", "bc", "bce"}
# After a number these are algebra, not units: 2x, 3i, 2 pi. Any other single letter is a unit only after a space.
_ALGEBRA = re.compile(r"(?:[xyzabcknpqrtuvwi]|pi|sqrt|sin|cos|tan|ln|log|exp|π|√)\b.*")
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ENGLISH = {word: str(i) for i, word in enumerate(_ONES)} | {
    f"{word} {one}".removesuffix(" zero"): str(10 * i + j)
    for i, word in enumerate(_TENS, 2)
    for j, one in enumerate(_ONES[:10])
}
_ZH_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_ZH_UNITS = {"亿": 10**8, "万": 10**4, "千": 1000, "百": 100, "十": 10}
_ZH = "[零〇一二两三四五六七八九十百千万亿]{1,16}"
_CHINESE = re.compile(
    rf"(?P<minus>负)?(?:(?P<bottom>{_ZH})分之)?(?P<whole>{_ZH})(?:点(?P<part>[零〇一二三四五六七八九]{{1,16}}))?(?P<percent>%)?"
    "(?P<unit>[个只条张本支次种人天年月日元米克秒度倍岁页]|千米|公里|厘米|千克|公斤|分钟|小时)?"
)
_TIMES = {  # powers of ten
    "万亿": 12, "亿": 8, "千万": 7, "百万": 6, "十万": 5, "万": 4, "thousand": 3, "million": 6, "billion": 9, "trillion": 12,
}  # fmt: skip


class Quantity(NamedTuple):
    """An exact value, its written decimal places (None: exact), its unit words, and whether it is a percentage."""

    value: Fraction
    places: int | None = None
    units: frozenset[str] = frozenset()
    percent: bool = False


def quantity(text: str) -> Quantity | None:
    """The quantity that a text consists of: "1,200 km", "3/4", "thirty-five", "三十五"; None for any other text."""
    text = _ENGLISH.get(text.casefold().replace("-", " "), text)
    if len(text) > _MAX_EXACT_DIGITS or not _HAS_NUMBER.search(text):
        return None
    text = text[1:-1].strip() if re.fullmatch(r"\([^()]*\)", text) else text
    text = re.sub(r"^[a-zA-Zα-ω]\s*(?:=|≈)\s*", "", text)
    text = re.sub(r"^百分之(.+)", r"\1%", text)
    text = re.sub(r"^[+-]?\d{1,3}(?: \d{3})+(?![\d/ ])", lambda m: m[0].replace(" ", ""), text)
    text = _FRACTION.sub(lambda m: f"{m[1]}{m[2] + ' ' if m[2] else ''}{m[3]}/{m[4]}", text)
    text = _SCIENTIFIC.sub(r"e\1", text)
    text = re.sub(r"\s*\^\s*\{?\\circ\}?", "°", text)
    found = _QUANTITY.fullmatch(text)
    if found and found["unit"]:
        glued = re.fullmatch("[A-Za-z]", found["unit"]) and text[found.start("unit") - 1].isdigit()
        if glued or _ALGEBRA.fullmatch(found["unit"]):
            return None
    if not found:
        return _chinese(text)
    top = found["top"].replace(",", "")
    mantissa, _, exponent = top.lower().partition("e")
    if len(mantissa) + abs(int(exponent or 0)) > _MAX_EXACT_DIGITS or len(found["bottom"] or "") > _MAX_EXACT_DIGITS:
        return None
    value = Fraction(top)
    places = len(mantissa.partition(".")[2]) - int(exponent or 0) if "." in mantissa and not found["bottom"] else None
    if found["bottom"]:
        if Fraction(found["bottom"]) == 0:
            return None
        value /= Fraction(found["bottom"])
    if found["whole"]:
        whole = int(found["whole"])
        value = whole - value if found["whole"].startswith("-") else whole + value
    if found["times"]:
        power = _TIMES[found["times"].casefold()]
        value, places = value * 10**power, None if places is None else places - power
    words = re.findall(r"°|/|[\u3400-\u9fff]+|[^\W\d_]+", f"{found['currency']} {(found['unit'] or '').casefold()}")
    words = [found["currency"]] * bool(found["currency"]) + words
    singular = (w if w in _UNIT_ALIASES or len(w) < 4 else w.removesuffix("s") for w in words)
    units = frozenset(_UNIT_ALIASES.get(w, w) for w in singular)
    return Quantity(value, places, units, bool(found["percent"]))


def same_number(a: str, b: str) -> bool | str | None:
    """Whether two quantities agree; None if undecided (units), "not numbers" if either is not a quantity."""
    x, y = quantity(a), quantity(b)
    if x is None or y is None:
        return "not numbers"
    (value_a, places_a, unit_a, percent_a), (value_b, places_b, unit_b, percent_b) = x, y
    equal = _rounds_to(value_a, places_a, value_b, places_b)
    if percent_a != percent_b:  # "50%" answers "what share" as 0.5 and "what percentage" as 50
        scaled_a, scaled_b = (value_a / 100, value_b) if percent_a else (value_a, value_b / 100)
        shift_a, shift_b = 2 * percent_a, 2 * percent_b
        places = [None if p is None else p + s for p, s in ((places_a, shift_a), (places_b, shift_b))]
        equal = equal or _rounds_to(scaled_a, places[0], scaled_b, places[1])
    related = unit_a <= unit_b or unit_b <= unit_a  # a missing unit, or "eggs" for "duck eggs"
    if related and not (unit_a and unit_b and (unit_a ^ unit_b) & _TELLING):
        return equal
    return None if related or not equal else False  # 1 km and 1000 m: no conversion here


def decimal_places(a: str, b: str) -> int | None:
    """Decimals to which a closed form may be rounded: those of the one side that is a decimal with 3 digits or more."""
    decimals = [q for q in (quantity(a), quantity(b)) if q is not None and q.places is not None]
    if len(decimals) != 1 or abs(decimals[0].value) < 100 * Fraction(10) ** -decimals[0].places:
        return None
    return decimals[0].places


def _rounds_to(a: Fraction, places_a: int | None, b: Fraction, places_b: int | None) -> bool:
    """Whether they are equal, or the coarser decimal, of three significant digits or more, is the other one rounded."""
    if a == b:
        return True
    written = [(p, v, other) for p, v, other in ((places_a, a, b), (places_b, b, a)) if p is not None]
    if not written:
        return False
    places, value, other = min(written, key=lambda w: w[0])
    unit = Fraction(10) ** -places
    return abs(value) >= 100 * unit and abs(value - other) <= unit / 2


def _chinese(text: str) -> Quantity | None:
    """三十五, 负三, 三点一四, 三分之一, 百分之五十, and 三个 with one of the common measures."""
    found = _CHINESE.fullmatch(text)
    if not found:
        return None
    value, places = Fraction(_chinese_number(found["whole"])), None
    if found["part"]:
        places = len(found["part"])
        value += Fraction(_chinese_number(found["part"]), 10**places)
    if found["bottom"]:
        bottom = _chinese_number(found["bottom"])
        if bottom == 0:
            return None
        value /= bottom
    unit = found["unit"]
    units = frozenset([_UNIT_ALIASES.get(unit, unit)] if unit else [])
    return Quantity(-value if found["minus"] else value, places, units, bool(found["percent"]))


def _chinese_number(text: str) -> int:
    """The integer that Chinese numerals write: 两千零二十, 一亿三千万, 二〇二四, and 一百五 for 150."""
    if all(character in _ZH_DIGITS for character in text):
        return int("".join(str(_ZH_DIGITS[character]) for character in text) or 0)
    mark = next(mark for mark in _ZH_UNITS if mark in text)
    head, _, tail = text.partition(mark)
    worth = _ZH_UNITS[mark]
    value = (_chinese_number(head) if head else 1) * worth
    if len(tail) == 1 and tail in _ZH_DIGITS and worth > 10:
        return value + _ZH_DIGITS[tail] * worth // 10
    return value + _chinese_number(tail.lstrip("零〇"))
