"""Quantities in answers: the number, its precision and its unit, in the notations that people and models use.

Thousands separators, fractions, percent, scientific and LaTeX notation, Chinese and English numerals, and sums such as
"2 h 30 min". Units are read by `units`, Chinese numerals by cn2an.
"""

import functools
import itertools
import re
from fractions import Fraction
from typing import NamedTuple

from qatoolkit.answers.notation import FUNCTION_WORDS, GREEK, is_cjk_text
from qatoolkit.answers.numerals import ENGLISH, LARGE, ORDINALS, read_cardinal, read_numeral
from qatoolkit.answers.units import Unit, units
from qatoolkit.core.text import TENS

_MAX_EXACT_DIGITS = 400  # longer numbers count as text: 1e999999999 must not be expanded

_NUMBER = r"[+-]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,2}(?:,\d\d)+,\d{3}|\d{1,3}(?:\.\d{3})+,\d{1,2}(?!\d)|\d{1,3}(?:\.\d{3}){2,}|\d{1,3}(?:_\d{3})+|\d{1,3}(?:'\d{3})+|\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+(?![\d.]))?"
_ZH = "零〇一二两三四五六七八九十百千万亿壹贰叁肆伍陆柒捌玖拾佰仟廿卅幺"
HAS_NUMBER = re.compile(rf"[\d{_ZH}半]")
_SCIENTIFIC = re.compile(r"(?<=\d)\s*[×·*x]\s*10\s*(?:\^|\*\*)\s*\{?\s*\(?([+-]?\d+)\)?(?:\s*\})?")
_FRACTION = re.compile(r"([+-]?)\s*(\d+)?\s*\\frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_QUANTITY = re.compile(
    rf"(?P<currency>(?:US|A|C)?\$|[€£¥₹]|(?:USD|EUR|GBP|CNY|RMB|JPY|INR|Rs\.?)(?=\s*\d))?\s*"
    rf"(?:(?P<whole>[+-]?\d+)\s+(?:and\s+)?(?=\d+\s*/))?(?P<top>{_NUMBER})(?:\s*/\s*(?P<bottom>\d+(?:\.\d+)?)(?![\d.]))?"
    r"\s*(?P<times>万亿|[千百十]?万|亿|[千百](?=[个只名位人元]|\s|$)|(?:hundred|thousand|million|billion|trillion|quadrillion|lakh|crore|dozen)s?\b)?"
    r"\s*(?P<percent>(?:%|‰|percent\b|per cent\b)?)(?P<unit>.{0,60})",
    re.IGNORECASE,
)
_TIMES = {  # powers of ten
    "万亿": 12, "亿": 8, "千万": 7, "百万": 6, "十万": 5, "万": 4, "千": 3, "百": 2, "hundred": 2, "thousand": 3, "million": 6, "billion": 9,
    "trillion": 12, "quadrillion": 15, "lakh": 5, "crore": 7,
}  # fmt: skip
# What may follow a number as its unit or noun; anything else is algebra (2x, 3i, 2 pi, 5!, 2(x+1)) or several numbers.
_UNIT = re.compile(
    r"'{1,2}|\"|(?:[^\W\d_]|°|[$€£¥₹¢]|\((?=[^\W\d_])|/\s*(?=[^\W\d_]))(?:[^\d=<>≤≥≠≈±√∪∩∈∠→!|\\\[\]+,;:_]|(?<=[\^\-{²A-Za-z])\d)*"
)
_ALGEBRA = re.compile(
    r"(?:pi|sqrt|sin|cos|tan|ln|log|exp|and|or|to|vs|π)(?![A-Za-z])|.*\b(?:and|or|to|vs)\b|.*[或和与及到至比]\s*[-√π\d]|[a-z]\s*[*(]|[a-z]\s+[a-z]\b|x\s"
)
_PLAIN_UNITS = frozenset(("kg", "cm", "km", "mm", "ml", "dm", "mi", "ft", "lb", "hr", "in", "oz"))
_MEASURES = re.compile(
    "[个只名位条张本棵辆][^以之分倍折成多余半点上下内外到至比数]{0,3}|"
    "[支次种人天年月日元米克秒度倍岁页份件台间套枚颗块筐袋盒瓶杯组头匹朵根片双对户家层步行列排队吨艘架首笔]"
)
_COUNTERS = frozenset("个只名位人条头匹张件")
_NOT_NOUN = re.compile(
    "[以之分倍折成多余半点时上下内外到至比十百千万亿的]|[次平立]方|未满|不足|超过"
)  # 5 or more, 5的平方
_PARTS = {
    "half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9,
    "tenth": 10, "hundredth": 100,
}  # fmt: skip
_NO_UNIT = re.compile(  # next to a number these change its value
    rf"(?:{'|'.join(w for w in (*_PARTS, *LARGE, *GREEK, 'ten', 'score', 'gross', 'pair', 'couple', 'infinity'))})(?:th)?s?"
    r"|squared|cubed|doubled|tripled|quadrupled|halved|thrice|twice"
)
_NO_MEASURE = re.compile(f"^[的来多余几]|方根|阶乘|[相倒]反?数|未满|^(?:pi|{'|'.join(GREEK)})$")  # 5的立方, 50来个
_PART = re.compile(rf"(?:(?P<whole>[a-z ]+) and )?(?:(?P<top>[a-z]+) )?(?P<part>{'|'.join(_PARTS)})s?")
_NUMERAL = rf"[{_ZH}]{{1,24}}"
_CHINESE = re.compile(
    rf"(?P<ordinal>第)?(?P<minus>负)?(?P<percent>百分之)?(?:(?:(?P<mixed>{_NUMERAL}|\d+)又)?(?P<bottom>{_NUMERAL}|\d+)分之)?(?:(?P<half>一?半)|"
    rf"(?P<whole>{_NUMERAL}|\d+(?:\.\d+)?)(?:点(?P<part>[零〇一二三四五六七八九]{{1,16}}))?(?P<tenths>[成折])?)(?P<unit>.{{0,12}})"
)


_SHARE = re.compile(r"(\w+) (?:in|out of|in every|out of every) (\w+)", re.IGNORECASE)
_CODE = re.compile(r"0x[0-9a-fA-F]{1,16}|0b[01]{1,64}")
_REPEATING = re.compile(r"([+-]?\d*)\.(\d*?)(?:\\bar\s*\{?(\d+)\}?|\((\d+)\)|(\d{1,6}?)\5+(?:\.{3}|…))")
_MIXED_NUMERAL = re.compile(r"(?:\d[千百十]?[万亿千百十]){2,}\d?")
_MONEY = re.compile(r"([kKmM]|[bB]n?)\.?")
_MONEY_TIMES = {"k": 3, "m": 6, "b": 9, "bn": 9}
_SPACED = re.compile(r"^[+-]?\d{1,3}(?: \d{3})+(?:,\d{1,2})?(?![\d/ ,])")
_NO_FRACTION = re.compile("time|vision|eyesight|mm ?Hg", re.IGNORECASE)
_PIECE = re.compile(r"(\d+(?:\.\d+)?)\s*([^\W\d_]+|°|['\"])(?:\s+(?:and\s+)?|,\s*(?:and\s+)?|(?=\d)|$)")


class Quantity(NamedTuple):
    """An exact value, its decimal places as written (None: exact), whether it is a percentage, and the text of its
    unit.

    `doubtful`: the unit may not be one, as the m of 5m may be a variable."""

    value: Fraction
    places: int | None = None
    percent: bool = False
    unit: str = ""
    doubtful: bool = False


@functools.lru_cache(8192)
def quantity(text: str) -> Quantity | None:
    """The quantity that a whole text denotes: "1,200 km", "3/4", "thirty-five", "三十五"; None for any other text."""
    if len(text) > _MAX_EXACT_DIGITS or re.search(
        r"[CA]\d{1,3}\^\d|\d\s?[CP]\s?\d", text
    ):  # 5C2, 2C4^2: combinations, no units
        return None
    text = re.sub(r"^[Tt]he\s+(?=\S+\s)", "", text)
    if share := _SHARE.fullmatch(text):  # one in five, 2 out of 3
        top, whole = quantity(share[1]), quantity(share[2])
        if top and whole and not (top.unit or whole.unit) and 0 < top.value < whole.value:
            return Quantity(top.value / whole.value)
    if not HAS_NUMBER.search(text):
        return _read_english(text)
    text = text[1:-1].strip() if re.fullmatch(r"\([^()]*\)", text) else text
    text = _SPACED.sub(lambda m: m[0].replace(" ", "").replace(",", "."), text)
    text = _FRACTION.sub(lambda m: f"{m[1]}{m[2] + ' ' if m[2] else ''}{m[3]}/{m[4]}", text)
    text = re.sub(r"(?<=\d)又(?=\d+/\d)", " ", text)
    text = re.sub(r"^(?:minus\s+|negative\s+|负\s*|零下\s*)(?=[\d.$])", "-", text, flags=re.IGNORECASE)
    text = (
        re.sub(r"(?<![^+-])10\^\{?([+-]?\d{1,3})\}?(?![\d.])", r"1e\1", text)
        if text.lstrip("+-").startswith("10^")
        else text
    )
    text = _SCIENTIFIC.sub(r"e\1", text)
    text = re.sub(r"^([+-]?\d+)(?:st|nd|rd|th)(?![^\W_])", r"\1 th", text)
    if _CODE.fullmatch(text):
        return Quantity(Fraction(int(text, 0)))
    if repeated := _REPEATING.fullmatch(text):
        return _read_repeating(*repeated.groups())
    if _MIXED_NUMERAL.fullmatch(text):  # 1亿2千万
        text = re.sub(r"\d", lambda m: "零一二三四五六七八九"[int(m[0])], text)
    text = re.sub(r"^([+-])\s+(?=\d)", r"\1", text)
    text = re.sub(r"^-\s*(?=[$€£¥]\s*\d)(.)", r"\1-", text)
    found = _QUANTITY.fullmatch(text)
    if not found or (not text.isascii() and re.match(rf"[{_ZH}第负半]", text)):
        return _read_chinese(text)
    unit = found["unit"]
    glued = bool(unit) and not text[found.start("unit") - 1].isspace() and not found["percent"]
    unit = unit.strip()
    if _NO_MEASURE.search(unit):
        return None
    if unit and (not _UNIT.fullmatch(unit) or _ALGEBRA.match(unit)):
        return _read_chinese(text) if "分之" in unit else None
    money = _MONEY.fullmatch(unit) if found["currency"] else None  # $1.2M
    unit = "" if money else unit
    short = re.fullmatch(r"([a-zA-Zα-ωΑ-Ω]{1,3})(?:\^.*|\d)?", unit)  # 5m, 3m^2 and 1s2 may be something else
    if ((short and (unit[1:2] in ("", "^") or glued)) or unit[:1] == "/") and not units(unit):
        return None
    doubtful = unit == "角" or (
        bool(short) and (unit in ("t", "d") or (glued and short[1] not in _PLAIN_UNITS and len(short[1]) <= 2))
    )
    if len(found["top"]) + len(found["bottom"] or "") > _MAX_EXACT_DIGITS:
        return None
    top = found["top"]
    if re.search(r"\.\d{3},\d", top):  # 1.234,56
        top = top.replace(".", "").replace(",", ".")
    top = re.sub(r"[,'_]", "", top).casefold()
    mantissa, _, exponent = top.partition("e")
    if mantissa.count(".") > 1:
        mantissa = mantissa.replace(".", "")
    if len(mantissa) + abs(int(exponent or 0)) > _MAX_EXACT_DIGITS:
        return None
    value = Fraction(mantissa) * Fraction(10) ** int(exponent or 0)
    places = len(mantissa.partition(".")[2]) - int(exponent or 0) if "." in mantissa and not found["bottom"] else None
    if found["bottom"]:
        if Fraction(found["bottom"]) == 0:
            return None
        value /= Fraction(found["bottom"])
    if found["whole"]:
        whole = int(found["whole"])
        value = whole - value if found["whole"].startswith("-") else whole + value
    if found["percent"] == "‰":
        value, places = value / 10, None if places is None else places + 1
    if money:
        value, places = value * 10 ** _MONEY_TIMES[money[1].casefold()], None
    times = (found["times"] or "").casefold().removesuffix("s")
    if times == "dozen":
        value, places = value * 12, None
    elif times:
        value, places = value * 10 ** _TIMES[times], None if places is None else places - _TIMES[times]
    if found["currency"]:
        unit = f"{found['currency'].replace('US$', '$').rstrip('.')} {unit}".strip()
    return Quantity(value, places, bool(found["percent"]), unit, doubtful)


def _read_repeating(whole: str, fixed: str, *repetends: str | None) -> Quantity:
    """0.1(6), 0.1\\bar{6} and 0.1666... as exact fractions."""
    repetend = next(filter(None, repetends))
    size = Fraction(int(repetend), (10 ** len(repetend) - 1) * 10 ** len(fixed))
    value = abs(int(whole.strip("+-") or 0)) + Fraction(int(fixed or 0), 10 ** len(fixed)) + size
    return Quantity(-value if whole.startswith("-") else value)


def same_number(a: str, b: str) -> bool | str | None:
    """Whether two quantities agree; None if undecided (units), "not numbers" if either is not a quantity."""
    x, y = quantity(a) or _read_sum(a), quantity(b) or _read_sum(b)
    if x is None or y is None:
        return "not numbers"
    equal = _rounds_to(x.value, x.places, y.value, y.places)
    if equal and a != b and _NO_FRACTION.fullmatch(x.unit or y.unit) and "/" in a + b:  # 120/80 mmHg, 3/4 time
        return None
    if x.percent != y.percent:  # "50%" answers "what share" as 0.5 and "what percentage" as 50
        scaled = [q.value / 100 if q.percent else q.value for q in (x, y)]
        places = [None if q.places is None else q.places + 2 * q.percent for q in (x, y)]
        equal = equal or _rounds_to(scaled[0], places[0], scaled[1], places[1])
    if x.percent != y.percent and (x.unit or y.unit):
        return None if equal else False
    if x.unit == y.unit:
        return equal
    if not x.unit or not y.unit:
        return _compare_with_bare(y if not x.unit else x, equal)
    return _compare_units(x, y, equal)


def _compare_with_bare(other: Quantity, equal: bool) -> bool | None:
    """Compare a quantity with a unit and a bare number: the same if the rest is a unit or a noun, unlike "3
    quarters"."""
    words = re.findall(r"[^\W\d_]+", other.unit.casefold())
    if other.unit == "th":  # 3rd, third
        return equal
    if other.doubtful:
        return None if equal else False
    if any(_NO_UNIT.fullmatch(w) for w in words):
        return None
    if units(other.unit) or other.unit.casefold() in ("in total", "in all", "altogether", "of them", "each"):
        return equal
    if is_cjk_text(other.unit):
        noun = _MEASURES.fullmatch(other.unit) or (len(other.unit) <= 4 and not _NOT_NOUN.search(other.unit))
    else:
        noun = len(words) <= 4 and min(map(len, words), default=0) >= 3 and not FUNCTION_WORDS.intersection(words)
    return equal if noun and re.fullmatch(r"\(?[^\W\d_][^\d+*=<>^.]{0,40}", other.unit) else None


def _compare_units(x: Quantity, y: Quantity, equal: bool) -> bool | None:
    """Compare two quantities whose units are written differently."""
    known_x, known_y = units(x.unit), units(y.unit)
    if known_x and known_y:
        comparable = [(unit_x, unit_y) for unit_x in known_x for unit_y in known_y if unit_x.bases == unit_y.bases]
        if any(equal if unit_x == unit_y else _same_size(x, unit_x, y, unit_y) for unit_x, unit_y in comparable):
            return True
        if any(dict(unit_x.bases).keys() & {"bit"} for unit_x, _ in comparable):  # 1 KB has 1000 or 1024 bytes
            factor = _base_size(x, comparable[0][0]) / (_base_size(y, comparable[0][1]) or 1)
            return None if 0.85 < factor < 1.18 else False
        if comparable and re.search("month|year|yr|月|年", f"{x.unit} {y.unit}", re.IGNORECASE):  # 3 months, 90 days
            factor = _base_size(x, comparable[0][0]) / (_base_size(y, comparable[0][1]) or 1)
            return None if 0.97 < factor < 1.03 else False
        return False if not equal or (comparable and not x.doubtful and not y.doubtful) else None
    languages = is_cjk_text(x.unit) != is_cjk_text(y.unit)
    if not equal:
        other = "" if bool(known_x) == bool(known_y) else y.unit if known_x else x.unit
        return None if (languages and (known_x or known_y)) or re.fullmatch("[A-Za-z]{1,4}", other) else False
    if known_x or known_y or languages or {x.unit, y.unit} <= _COUNTERS:
        return None
    words = [re.findall(r"[^\W\d_]+", q.unit.casefold()) for q in (x, y)]
    nouns = [frozenset(w.removesuffix("s") if len(w) > 3 else w for w in found) for found in words]
    if FUNCTION_WORDS.intersection(words[0] + words[1]) or any(re.search(r"[\d/^*·-]", q.unit) for q in (x, y)):
        return None
    if nouns[0] <= nouns[1] or nouns[1] <= nouns[0]:
        return None if any(len(w) < 3 or units(w) for w in nouns[0] ^ nouns[1]) else True
    return False


def _base_size(x: Quantity, unit: Unit) -> float:
    return float(x.value) * unit.factor + unit.offset


def _same_size(x: Quantity, unit_x: Unit, y: Quantity, unit_y: Unit) -> bool:
    """Whether quantities with different units agree, exactly or rounded to the decimals of either side."""
    y_in_x = Fraction(f"{(_base_size(y, unit_y) - unit_x.offset) / unit_x.factor:.12g}")
    x_in_y = Fraction(f"{(_base_size(x, unit_x) - unit_y.offset) / unit_y.factor:.12g}")
    close = abs(_base_size(x, unit_x) - _base_size(y, unit_y)) <= 1e-6 * abs(_base_size(x, unit_x))
    return close or _rounds_to(x.value, x.places, y_in_x, None) or _rounds_to(y.value, y.places, x_in_y, None)


@functools.lru_cache(1024)
def _read_sum(text: str) -> Quantity | None:
    """The sum of "2 h 30 min", "1 m 80 cm" or "5 ft 10 in", in the first unit."""
    parts = _PIECE.findall(text) if len(text) <= 60 else []
    joined = "".join(n + u for n, u in parts)
    if not 2 <= len(parts) <= 4 or joined != re.sub(r"[\s,]|(?<=\s)and(?=\s)", "", text):
        return None
    sizes = [next(iter(units(unit)), None) for _, unit in parts]
    if None in sizes or len({size.bases for size in sizes}) > 1:
        return None
    parts_of_first = [Fraction(size.factor / sizes[0].factor).limit_denominator(10**6) for size in sizes]
    if any(a <= b for a, b in itertools.pairwise(parts_of_first)):
        return None
    total = sum(Fraction(n) * part for (n, _), part in zip(parts, parts_of_first, strict=True))
    return Quantity(total, None, False, parts[0][1])


def decimal_places(a: str, b: str) -> int | None:
    """Decimals to which a closed form may be rounded: those of the only side that is a decimal with 3 digits or
    more."""
    decimals = [q for q in (quantity(a), quantity(b)) if q is not None and q.places is not None]
    if len(decimals) != 1 or abs(decimals[0].value) < 100 * Fraction(10) ** -decimals[0].places:
        return None
    return decimals[0].places


def _rounds_to(a: Fraction, places_a: int | None, b: Fraction, places_b: int | None) -> bool:
    """Whether two values are equal, or the coarser decimal, with three significant digits or more, is the other
    rounded."""
    if a == b:
        return True
    written = [(p, v, other) for p, v, other in ((places_a, a, b), (places_b, b, a)) if p is not None]
    if not written:
        return False
    places, value, other = min(written, key=lambda w: w[0])
    unit = Fraction(10) ** -places
    return abs(value) >= 100 * unit and abs(value - other) <= unit / 2


def _read_english(text: str) -> Quantity | None:
    """thirty-five, one hundred and five, two-thirds, three and a half, a dozen, minus four; a noun may follow."""
    text = " ".join(text.casefold().replace("-", " ").split())
    sign = -1 if re.match("(?:minus|negative) ", text) else 1
    text = text.split(" ", 1)[1] if sign < 0 else text
    words = text.split()
    position = next((i for i, word in enumerate(words[:6]) if word in ORDINALS), 0)
    if words and words[position] in ORDINALS and (position == 0 or words[position - 1] in TENS):
        number = read_cardinal([*words[:position], ORDINALS[words[position]]])
        return None if number is None else Quantity(Fraction(number), unit=" ".join(["th", *words[position + 1 :]]))
    if found := _PART.fullmatch(text):
        top = 1 if found["top"] in ("a", "one") or text == "half" else read_cardinal([found["top"]])
        whole = read_cardinal(found["whole"].split()) if found["whole"] else 0
        return None if top is None or whole is None else Quantity(sign * (whole + Fraction(top, _PARTS[found["part"]])))
    if re.fullmatch(f"half a (?:{'|'.join(LARGE)})", text):
        return Quantity(sign * Fraction(LARGE[text.split()[-1]], 2))
    words = ["one", *text.split()[1:]] if re.match(f"a (?:{'|'.join(LARGE)})", text) else text.split()
    if words.count("point") == 1 and (at := words.index("point")) and len(words) - at <= 9:  # one point five
        digits = [ENGLISH.get(word, 10) for word in words[at + 1 :]]
        whole = read_cardinal(words[:at])
        if whole is None or not digits or max(digits) > 9:
            return None
        return Quantity(sign * Fraction(f"{whole}.{''.join(map(str, digits))}"), len(digits))
    n = next((i for i, w in enumerate(words[:12]) if w not in ENGLISH and w not in LARGE and w != "and"), len(words))
    value, rest = read_cardinal(words[:n]), words[n:]
    if value is None or len(rest) > 3 or FUNCTION_WORDS.intersection(rest):
        return None
    return Quantity(sign * Fraction(value), None, rest == ["percent"], "" if rest == ["percent"] else " ".join(rest))


def _read_chinese(text: str) -> Quantity | None:
    """三十五, 负三, 三点一四, 三分之一, 一又二分之一, 百分之五十, 三成, 半; a measure word or unit may follow, as in 三个."""
    found = _CHINESE.fullmatch(text)
    if not found:
        return None
    unit = found["unit"].strip()
    percent = bool(found["percent"]) or unit in ("%", "%的")
    unit = "" if percent and unit[0:1] == "%" else unit
    if unit and not _MEASURES.fullmatch(unit) and not units(unit):
        return None
    if found["half"]:
        value = Fraction(-1 if found["minus"] else 1, 2)
        return None if found["ordinal"] or (unit and not units(unit)) else Quantity(value, None, False, unit)
    value, bottom, mixed = (read_numeral(found[name]) for name in ("whole", "bottom", "mixed"))
    if value is None or bottom == 0 or (found["bottom"] and bottom is None) or (found["mixed"] and mixed is None):
        return None
    places = None
    if found["part"]:
        places = len(found["part"])
        value += Fraction(read_numeral(found["part"]), 10**places)
    if bottom:
        value = value / bottom + (mixed or 0)
    if found["tenths"]:  # 八折 is 80%, 七五折 75%
        value, percent = value * 10 if value < 10 else value, True
    doubtful = found["whole"][-1] in "千百" and bool(units(found["whole"][-1] + unit)) if unit else False
    doubtful = doubtful or unit == "角"  # 三角
    return Quantity(-value if found["minus"] else value, places, percent, unit, doubtful)
