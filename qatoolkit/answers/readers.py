"""Readers, one per kind of answer, tried in order: the first that applies decides whether two answers are the same. A
reader that does not apply returns OPEN."""

import re
from collections import Counter

from qatoolkit.answers.algebra import WORKER, math_tokens
from qatoolkit.answers.formulas import read_measured, same_measured
from qatoolkit.answers.lists import Several, read_list, read_ratio
from qatoolkit.answers.notation import boolean, clean, roman_number, words
from qatoolkit.answers.prose import same_text
from qatoolkit.answers.quantities import quantity, same_number
from qatoolkit.answers.ranges import same_ranges
from qatoolkit.answers.times import read_clock, read_date, same_date, same_time
from qatoolkit.answers.units import units

OPEN = "open"

_LIST_SECONDS = 0.5  # for all algebra in one list; after that it is undecided

_NAMED = re.compile(
    r"(?:(?:the\s+value\s+of\s+)?(?P<name>[∠△]?\s*[A-Z]{1,4}|[A-Za-zα-ωΑ-Ω]'?(?:_\{?\w+\}?|\d)?(?:\^-1)?(?:\([^()=]*\))?|dy/dx|\\frac\{dy\}\{dx\}"
    r"|pH|(?:[A-Za-z][a-z]{2,}(?:\s+[a-z]+){0,3})(?=\s*[=≈]))\s*(?:的值)?(?:[=≈为是]|等于|(?:is|equals)\s|(?<=pH )(?=\d)))\s*(?P<value>[^=≈<>]+)"
)
_SIZE = re.compile(r"(\d{1,9})\s*x\s*(\d{1,9})")
_SHORT = re.compile(r"([+-]?(?:\d{1,3}(?:,\d{3})+|\d{1,15})(?:\.\d{1,15})?)([kKmM]|[bB]n?)")
_SHORT_TIMES = {"k": 3, "m": 6, "b": 9, "bn": 9}
_EXPLAINED = re.compile(r"(\w{1,9})(?:\s*[,;:-]|\.(?=\s+[A-Z]))\s*(\S.*)", re.DOTALL)  # Yes, it is
_NEGATES = re.compile(r"\b(?:not|true|false|yes|no)\b|[不非]", re.IGNORECASE)
_POINT = re.compile(r"([A-Z]'?)(\([^()]*,[^()]*\))")
_DESCRIBED = re.compile(
    r"(?P<name>(?:the|its|their|his|her)\s+[a-z][a-z ]{1,40}?(?=\s)|[\u4e00-\u9fff]{1,10}(?<!不))"
    r"(?:\s+(?:is|was|are|were|equals)\s|是|为|等于)\s*(?P<value>[-+$€£¥.\d].*)",
    re.IGNORECASE,
)
_QUALIFIED = re.compile(  # "all but x = 3", 至少是5: not the value itself
    r"\b(?:not|but|except|besides|unless|when|if|without|false|undefined)\b"
    r"|(?:至[少多]|最[多少]|[不没].{0,3}|未必|也许|可能|超过的?|分别|依次)$",
    re.IGNORECASE,
)
_FUNCTION = re.compile(r"^(?:[fghy]\([a-z]\)|([fghy]'(?:\([a-z]\))?|dy/dx|\\frac\{dy\}\{dx\}))$")


def same(a: str, b: str, seconds: float = 0.0) -> bool | None:
    """Whether two clean texts mean the same, with at most `seconds` of algebra (0: the worker's default)."""
    verdicts = (read(a, b, seconds) for read in READERS)
    return next(verdict for verdict in verdicts if verdict != OPEN)


def answer_key(text) -> str:
    """A canonical form: equal keys mean the same answer, different keys prove nothing. Empty for a missing answer.

    Cheap and without sympy, for grouping large tables."""
    text = clean(text)
    truth = boolean(text)
    if truth is not None:
        return "yes" if truth else "no"
    found = quantity(text)
    if found is not None and not found.unit:
        return f"{found.value}{' %' if found.percent else ''}"
    return words(text, fold=False)


def _words(a: str, b: str, _):
    words_a = words(a, fold=False)
    return True if a == b or (words_a and words_a == words(b, fold=False)) else OPEN


def _yes_or_no(a: str, b: str, _):
    yes_a, yes_b = boolean(a), boolean(b)
    if (yes_a is None) != (yes_b is None) and (reason := _EXPLAINED.match(b if yes_b is None else a)):
        if any(boolean(part.strip()) is not None for part in re.split(r"[,;、/]|\band\b", reason[2])):
            return None  # True, False: one verdict for each of two statements
        yes_a, yes_b = (boolean(reason[1]) if yes is None else yes for yes in (yes_a, yes_b))
    if yes_a is not None and yes_b is not None and not re.fullmatch("[A-Z]{2}", a + b):  # N and F are elements too
        return yes_a == yes_b
    return None if (yes_a is None) != (yes_b is None) and _NEGATES.search(b if yes_b is None else a) else OPEN


def _dates(a: str, b: str, _):
    days = read_date(a), read_date(b)
    return same_date(*days) if all(days) else OPEN


def _ratios(a: str, b: str, _):
    ratio_a, ratio_b = read_ratio(a), read_ratio(b)
    if not (ratio_a and ratio_b):
        return OPEN
    if ratio_a[0] != ratio_b[0]:
        return (
            OPEN if read_clock(a) and read_clock(b) else False
        )  # 1:10 and 2:20 are the same ratio, or two times of day
    plain = [re.sub("[^\\d.]+", ":", text) for text in (a, b)]
    return None if plain[0] != plain[1] and (ratio_a[1] or ratio_b[1]) else True


def _times(a: str, b: str, _):
    times = read_clock(a), read_clock(b)
    if all(times):
        return same_time(a, b)
    return OPEN


def _ranges(a: str, b: str, _):
    verdict = same_ranges(a, b, lambda x, y: same(x, y, _LIST_SECONDS))
    return OPEN if verdict == "no ranges" else verdict


def _points(a: str, b: str, seconds: float):
    points = [_POINT.fullmatch(text) for text in (a, b)]
    if not any(points) or quantity(a) or quantity(b):  # next to a number, P(4, 2) may be one
        return OPEN
    if not all(points) and any(m and m[1] in "NU" for m in points):  # N(0, 1) may be a distribution
        return None
    values = [m[2] if m else text for m, text in zip(points, (a, b), strict=True)]
    return same(*values, seconds) if len({m[1] for m in points if m}) < 2 else None


def _closed_forms(a: str, b: str, seconds: float):
    forms = read_measured(a), read_measured(b)
    return same_measured(a, b, *forms, lambda x, y: same(x, y, seconds)) if any(forms) else OPEN


def _hours(a: str, b: str, _):
    """A time of day and a number: 3 pm and 3."""
    time_a, time_b = read_clock(a), read_clock(b)
    if bool(time_a) == bool(time_b) or not (quantity(a) or quantity(b)):
        return OPEN
    other = quantity(b) if time_a else quantity(a)
    if other is None:
        return OPEN
    hour = not other.unit and other.value % 12 == (time_a or time_b)[0] // 60 % 12
    lasts = ":" in a + b and {unit.bases for unit in units(other.unit)} == {units("s")[0].bases}  # 1:30, 90 minutes
    return None if hour or lasts else False


def _sizes(a: str, b: str, _):
    sizes = [_SIZE.fullmatch(text) for text in (a, b)]
    if not all(sizes):
        return OPEN
    (one, two), (three, four) = ((int(m[1]), int(m[2])) for m in sizes)
    return None if one * two == three * four and (one, two) != (three, four) else (one, two) == (three, four)


def _names(a: str, b: str, seconds: float):
    """A named value: "x = 5" is the answer 5."""
    names = [m["name"] for m in map(_named, (a, b)) if m]
    if any(name[0] in "yd" for name in names):  # y is f(x), y' is dy/dx
        names = [_FUNCTION.sub(lambda m: "y'" if m[1] else "y", name) for name in names]
    same_name, equations = len(names) == 2 and names[0] == names[1], "=" in a and "=" in b
    if not same_name and (equations or not names):
        return OPEN
    verdict = same(*_values(a, b), seconds)
    if len(names) == 2 and not same_name:  # the minimum is 5, the maximum is 5
        return False if verdict is False else None
    return verdict


def _named(text: str) -> re.Match | None:
    found = _NAMED.fullmatch(text) or _DESCRIBED.fullmatch(text)
    return None if found and _QUALIFIED.search(found["name"]) else found


def _values(a: str, b: str) -> list[str]:
    """The texts, without the name if they are named values."""
    return [m["value"].strip() if (m := _named(text)) else text for text in (a, b)]


def _numbers(a: str, b: str, _):
    number = "not numbers" if "=" in a or "=" in b else same_number(a, b)
    return OPEN if number == "not numbers" else number


def _shortened(a: str, b: str, _):
    """A number in another form than digits: XIV, 5k."""
    for text, other in ((a, b), (b, a)):
        number = quantity(other)
        if number is None or number.unit or number.percent:
            continue
        value = roman_number(text)
        if value is None and (found := _SHORT.fullmatch(text)):
            value = quantity(found[1]).value * 10 ** _SHORT_TIMES[found[2].casefold()]
            if found[2] in "KMm" and value == number.value:  # kelvin, molar, metre
                return None
        if value == number.value:
            return True
    return OPEN


def _option_letters(a: str, b: str, _):
    if re.search(r"\bII+\b", f"{a} {b}"):  # numbers of statements
        return OPEN
    letters = [re.sub(r"[\s,、;&]|and|和|^[Bb]oth", "", text) for text in (a, b)]
    if not all(re.fullmatch("(?:[A-J]|#\\d+){2,10}", text) for text in letters) or not set(letters) & {a, b}:
        return OPEN
    return letters[0] == letters[1] or (None if sorted(letters[0]) == sorted(letters[1]) else False)


def _lists(a: str, b: str, seconds: float):
    list_a, list_b = read_list(a), read_list(b)
    if list_a and list_b and (quantity(a) is None) == (quantity(b) is None):  # 3,003 is a number, 003,3 is not
        return _same_lists(list_a, list_b, seconds or _LIST_SECONDS)
    single = _values(a, b)
    for found, text in ((list_a, single[1]), (list_b, single[0])):
        if found and all(quantity(m) or math_tokens(m, evident=True) for m in found.members):
            other = quantity(text)  # "1,5" may be a decimal, 3 ± 0.1 a number
            if other or (found.free and math_tokens(text)):
                undecided = (
                    (other and _decimal(found) == other.value) or re.search(r"[^\s=] *±", f"{a}\n{b}") or "=" in text
                )
                return None if undecided else False
    return OPEN


def _decimal(found: Several):
    number = quantity(".".join(found.members)) if all(m[0].isdigit() for m in found.members) else None
    return number and number.value


def _same_lists(a: Several, b: Several, seconds: float) -> bool | None:
    """Compare lists in linear time: in order and, if the order is free, by value or words."""
    if len(a.members) != len(b.members):
        surplus = max(a.members, b.members, key=len)[min(len(a.members), len(b.members)) :]
        return None if any(re.search(r"[^\W\d_]{2}", member) and not quantity(member) for member in surplus) else False
    brackets = {a.brackets, b.brackets}
    # With two members, "(0, 1)" and "[0, 1]" are different intervals; otherwise brackets are only style.
    if len(a.members) == 2 and brackets <= {"()", "[]", "(]", "[)"} and len(brackets) == 2:
        return False
    if a.named and b.named:  # x = 1, y = 2 in any order
        a, b = a.by_name(), b.by_name()
    elif a.coordinates != b.coordinates:
        named, other = (a, b) if a.coordinates else (b, a)
        if not other.names and all(quantity(m) or math_tokens(m, evident=True) for m in other.members):
            return _same_coordinates(named, other, seconds)
    elif a.subject and b.subject and a.subject != b.subject:  # 长和宽分别为5和3, 宽和长分别为5和3
        return None
    values_a, values_b = a.values(b), b.values(a)
    verdicts = _compare_each(values_a, values_b, seconds)
    if False not in verdicts:
        style = "{}" not in brackets or brackets <= {"{}", ""}
        joined = {a.joiner, b.joiner} != {"and", "or"} and (
            (a.joiner == "or") == (b.joiner == "or")
            or all(((q := quantity(m)) and not q.unit) or math_tokens(m) for m in values_a)
        )  # 1、3 may be 1 or 3, but "both" is not "either"
        return True if None not in verdicts and joined and style else None
    if a.named and b.named:  # either root may be called x1
        roots = len({name[0] for name in a.names}) == 1 and a.names[0][1:].strip("_{}").isdigit()
        return (
            None
            if roots
            and _same_members(
                *(s._replace(members=[m.split("=")[1].strip() for m in s.members]).members for s in (a, b))
            )
            else False
        )
    if a.brackets and b.brackets and not (a.free and b.free):
        return None if "{}" in brackets and _same_members(values_a, values_b) is not False else False
    blanks = any(boolean(member) is not None for member in a.members)  # 对、错、对
    free = ((a.free or b.free) and not {"()", "[]"} & brackets and not blanks) or (
        not any(brackets) and _differ_by_unit(a.members) and _differ_by_unit(b.members)
    )
    permuted = _same_members(values_a, values_b)
    return permuted if permuted is False or (free and {a.joiner, b.joiner} != {"and", "or"}) else None


def _same_coordinates(named: Several, other: Several, seconds: float) -> bool | None:
    """Compare x = 1, y = 2 and values without names: (1, 2)."""
    axes = set(named.names) <= {"x", "y", "z"}
    in_order = named.by_name() if axes else named
    verdicts = _compare_each(in_order.values(other), other.members, seconds)
    if all(verdicts) and (other.brackets == "()" or in_order.members == named.members):
        return True
    if axes and other.brackets == "()":
        return False if False in verdicts else None
    return None if _same_members(named.values(other), other.members) is not False else False


def _differ_by_unit(members: list[str]) -> bool:
    """Whether all members have different units (3 red, 2 blue), so that their order does not matter."""
    found = [q.unit if (q := quantity(m)) else "" for m in members]
    return all(found) and len(set(found)) == len(found)


def _compare_each(a: list[str], b: list[str], seconds: float) -> list[bool | None]:
    """Verdicts member by member; undecided once the worker has used up `seconds`."""
    deadline, verdicts = WORKER.seconds + seconds, []
    for x, y in zip(a, b, strict=True):
        remaining = deadline - WORKER.seconds
        verdicts.append(same(x, y, remaining) if remaining > 0 else None)
    return verdicts


def _same_members(a: list[str], b: list[str]) -> bool | None:
    """Whether the members agree in some order: numbers by value, others by their words."""
    numbers = [[quantity(m) for m in members] for members in (a, b)]
    if all(all(side) for side in numbers):
        order = [sorted(range(len(side)), key=lambda i, side=side: (side[i].value, side[i].unit)) for side in numbers]
        verdicts = [same_number(a[i], b[j]) for i, j in zip(*order, strict=True)]
        return False if False in verdicts else None if None in verdicts else True
    keys = [Counter(answer_key(m) for m in members) for members in (a, b)]
    if keys[0] == keys[1]:
        return True
    plain = all(quantity(m) or re.fullmatch(r"[\w\s]+", m) for m in (*a, *b))
    unmatched = [list((x - y).elements()) for x, y in (keys, keys[::-1])]
    if len(unmatched[0]) == 1:
        return same(unmatched[0][0], unmatched[1][0], _LIST_SECONDS)
    return False if plain else None


def _texts(a: str, b: str, seconds: float):
    return same_text(a, b, seconds, lambda x, y: _compare_each(x, y, seconds or _LIST_SECONDS))


READERS = (
    _words, _yes_or_no, _shortened, _dates, _ratios, _times, _ranges, _points, _closed_forms, _hours, _sizes, _names,
    _numbers, _option_letters, _lists, _texts,
)  # fmt: skip
