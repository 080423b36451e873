"""Texts that are neither numbers, lists, dates nor ranges: words, formulas, relations and prose."""

import re
from collections.abc import Callable

from qatoolkit.answers.algebra import math_tokens
from qatoolkit.answers.formulas import is_reaction, is_symbol, read_orbitals, same_formula, same_isotope
from qatoolkit.answers.lists import read_list, read_ratio
from qatoolkit.answers.notation import (
    FUNCTION_WORDS,
    GREEK,
    PHRASES,
    ROMAN,
    is_cjk_text,
    roman_number,
    same_spelling,
    words,
)
from qatoolkit.answers.quantities import HAS_NUMBER, quantity
from qatoolkit.answers.ranges import RELATION, same_relation
from qatoolkit.answers.units import units
from qatoolkit.core.text import ONES, TENS

_PROSE_WORDS = 12  # longer texts may mean the same in different words: undecided
_LETTERS_ONLY = re.compile(r"[\W_]")
_SPELT = re.compile(
    rf"\b(?:{'|'.join((*ONES, *TENS, *GREEK))}|half|quarters?|hundred|thousand|million|squared?|cubed?|root|power|over|plus|minus"
    r"|times|log|factorial|choose|infinity|infinite|pi|past|noon|midnight)\b|根号|[次平立]方|无穷|阶乘|对数|分之|点|半|刻|[负零一二两三四五六七八九十百千万]",
    re.IGNORECASE,
)
_OF_CHOICES = re.compile(
    r"both|neither|either|(?:all|none|both|neither|any)(?: of (?:above|these|them|two))?|以上[都皆均].*", re.IGNORECASE
)
_NOTHING = re.compile(
    r"none|nothing|no (?:real )?(?:solutions?|roots?|such \w+)|empty set|∅|undefined|not defined|does not exist|dne|没有|无|无解|空集|不存在|无意义",
    re.IGNORECASE,
)
_IMPLIED = re.compile(r"none|nothing|nil|once|twice|thrice|single|double|triple|a pair|a couple|没有|无", re.IGNORECASE)
_LONG = 480
_CODE = re.compile(r"\d*[A-Za-z]+\d[A-Za-z\d]*")


def same_text(a: str, b: str, seconds: float, each: Callable[[list, list], list]) -> bool | None:
    """Compare texts that no other reader understands: by words, then as formulas, then by rules for prose. `each`
    compares the sides of relations."""
    words_a, words_b = words(a, fold=False), words(b, fold=False)
    if any({words_a.casefold(), words_b.casefold()} <= phrase for phrase in PHRASES):
        return True
    if not re.search("[+-]$", f"{a}\n{b}", re.MULTILINE) and units(a)[:1] == units(b)[:1] != ():
        return True
    if ("=" in a) != ("=" in b):  # 12 × 5 = 60, and 60
        equation, value = (a, b) if "=" in a else (b, a)
        if each([equation.rsplit("=", 1)[1].strip()], [value]) == [True]:
            return None
    chosen = [_OF_CHOICES.fullmatch(text) for text in (words_a, words_b)]
    if all(chosen) or (any(chosen) and (read_list(a) or read_list(b) or re.fullmatch("[A-J]", min(a, b, key=len)))):
        return None  # both, and A and B
    if all(_NOTHING.fullmatch(text) for text in (words_a, words_b)):
        return None
    if (isotope := same_isotope(a, b)) is not False:
        return isotope
    if is_reaction(a) and is_reaction(b):
        a, b = a.replace("=", "→"), b.replace("=", "→")
    tokens_a, tokens_b = math_tokens(a), math_tokens(b)
    if tokens_a or tokens_b:  # next to a*b, ab is mathematics
        tokens_a, tokens_b = tokens_a or math_tokens(a, evident=True), tokens_b or math_tokens(b, evident=True)
    equal = same_formula(a, b, tokens_a, tokens_b, seconds) if tokens_a and tokens_b else None
    if equal and a != b and _CODE.fullmatch(a) and _CODE.fullmatch(b):  # r2d2 and d2r2 are hardly products
        return None
    if equal and a != b and all(text.lstrip("{}").startswith("^") for text in (a, b)):  # ^3P_2 and ^3P_3 are terms
        return None
    if equal or words_a.casefold() == words_b.casefold():
        return equal or None
    if (shells := read_orbitals(a)) and shells == read_orbitals(b):
        return True
    if _is_spaced(a) and _is_spaced(b) and "".join(a.split()) == "".join(b.split()):
        return None if re.fullmatch(r"[A-Za-z]+(?:\s+[A-Za-z]+)*", min(a, b, key=len)) else True  # a moral, amoral
    if tokens_a and tokens_b:
        return equal
    if words_a.replace("~", "") == words_b.replace("~", ""):
        return None  # ~ is a negation, or a space in LaTeX
    if a.count("'") + a.count('"') > 1 and a.replace("'", '"') == b.replace("'", '"'):
        return True
    if (spelling := same_spelling(a, b)) is not False:
        return spelling
    if ("→" in a) != ("→" in b) and ("=" in a or "=" in b):  # a reaction
        return same_relation(a.replace("=", "→"), b.replace("=", "→"), each)
    if RELATION.search(a) and RELATION.search(b):
        return same_relation(a, b, each)
    numbers = [quantity(text) is not None for text in (a, b)]
    if max(len(a), len(b)) > _LONG or (
        True in numbers and any(_IMPLIED.fullmatch(text) for text in (words_a, words_b))
    ):
        return None
    if "..." in a + b or _LETTERS_ONLY.sub("", a).casefold() == _LETTERS_ONLY.sub("", b).casefold() != "":
        return None  # only marks differ: 东、北, 东北
    if _may_be_spelt_out(a, b) or _may_be_spelt_out(b, a):
        return None
    if re.findall(r"\d+", a) == re.findall(r"\d+", b) != [] and not re.search(r"[^\W\d]|[-+]", a + b):
        return None  # 1, 2 and 1 2
    if numbers[0] != numbers[1]:
        other = b if numbers[0] else a
        counted = re.search(r"\d", other) or (re.match("半|负|零下", other) or HAS_NUMBER.match(other))
        return None if counted and not read_ratio(other) else False
    if is_cjk_text(a) != is_cjk_text(b) and re.search(r"[A-Za-z]{2}", b if is_cjk_text(a) else a):
        return None  # two languages
    if min(len(re.findall(r"[\u3400-\u9fff]{2}|[a-zA-Z]+", t)) for t in (a, b)) > _PROSE_WORDS:
        return None
    if any(re.search(r"[\\^_=<>≤≥≠≡∪∩∈{}|/*+∨∧¬→√∛π%°]|\.\.\.|(?<=\d)-", text) for text in (a, b)):
        plain = [re.fullmatch(r"[^\W\d_]+(?:[\s-][^\W\d_]+)*", text) for text in (a, b)]
        return False if any(plain) and (tokens_a or tokens_b) else None
    bags = [sorted(text.casefold().split()) for text in (words_a, words_b)]
    if bags[0] != bags[1] and len(bags[0]) > 1 and _content(bags[0]) == _content(bags[1]):
        return None  # 20% increase, an increase of 20%
    if bags[0] == bags[1]:
        order_matters = (len(bags[0]) > 1 and FUNCTION_WORDS - {"then"} & set(bags[0])) or re.search(r"\d", words_a)
        return False if order_matters else None
    short, long = sorted((words_a.casefold(), words_b.casefold()), key=len)
    if (len(short) >= 2 or any(numbers) or re.fullmatch("[A-J]", min(words_a, words_b, key=len))) and re.search(
        rf"(?<![A-Za-z\d.]){re.escape(short)}(?![A-Za-z\d]|\.\d)" if short.isascii() else re.escape(short), long
    ):
        return None  # one is more specific: Paris, and Paris in France
    return (
        None
        if len(a) == len(b) < 5
        and a.isalpha()
        and (a.islower() or (len(a) == 2 and not roman_number(a)))
        and sorted(words_a) == sorted(words_b)
        else False
    )


def _may_be_spelt_out(short: str, long: str) -> bool:
    """Whether one text is a symbol, a number or mathematics, and the other may say it in words: CO2 and carbon dioxide,
    3:30 and half past three, Jan and January, World War I and World War 1, impossible and not possible."""
    in_words = re.search(r"\b(?!and\b)\w?[a-z]{3}|[\u3400-\u9fff]", long) and not re.search(r"[\d=^+*/<>]", long)
    if in_words and (
        (is_symbol(short) and not units(long))
        or _abbreviates(short, long)
        or (_SPELT.search(long) and re.search(r"[\d=^+*/∞π√!]|\\", short))
    ):
        return True
    one, two = (re.sub(r"\b[IVX]\b", lambda m: str(ROMAN[m[0]]), text) for text in (short, long))
    if one == two or (short.isalpha() and long.isalpha() and 3 <= len(short) < 5 and long.startswith(short)):
        return True
    if len(short) > 1 and is_cjk_text(short) and not re.search("[不没非无]", short + long) and _is_within(short, long):
        return True
    denied = long.casefold().removeprefix("not ")
    return (
        denied != long.casefold()
        and re.fullmatch(rf"(?:un|in|im|ir|il|non-?){re.escape(denied)}", short.casefold()) is not None
    )


def _abbreviates(short: str, long: str) -> bool:
    short = re.sub("^[Tt]he ", "", short)
    return re.fullmatch("[A-Z]{2,6}", short) is not None and _is_within(short.casefold(), long.casefold())


def _is_within(short: str, long: str) -> bool:
    """Whether the characters of a text are in another in this order: DNA, deoxyribonucleic acid."""
    rest = iter(long)
    return all(character in rest for character in short)


def _content(bag: list[str]) -> list[str]:
    return [word for word in bag if word not in ("of", "the", "a", "an")]


def _is_spaced(text: str) -> bool:
    """Whether spaces are only layout: they separate neither words nor digits."""
    return not re.search(r"[A-Za-z]{2,}\s+[A-Za-z]{2}|\d\s+\d|[\u3400-\u9fff]", text)
