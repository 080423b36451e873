"""Are two answers the same answer?

Used wherever a row is believed only after a check: refinement (does the second teacher agree?), voting over
fresh samples, multiple-choice consistency, and scoring of open answers. Text and numbers are compared here;
algebra goes to a sympy worker process. Answers come from models and from the web, so an expression is never
evaluated as code: it is cut into allowed tokens in this process and built into sympy objects by a small
parser in the worker, which has a memory limit and is killed when it overruns its time. (Our reading: neither
paper describes its checker.)
"""

import atexit
import json
import math
import os
import re
import select
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Mapping, Sequence
from fractions import Fraction

SYMBOLIC_SECONDS = 2.0
SYMBOLIC_BYTES = 1 << 30
_START_SECONDS = 30.0
_MAX_TOKENS = 120
_PROSE_WORDS = 12  # longer texts that differ may still agree: undecided, not different
_MAX_EXACT_DIGITS = 400  # beyond this a number is text: 1e999999999 must not be expanded

_YES = {"yes", "true", "correct", "是", "对", "正确", "√", "✓"}
_NO = {"no", "false", "incorrect", "wrong", "否", "错", "错误", "不对", "不正确", "×", "✗"}
_PLAIN = str.maketrans("−⁄’", "-/'")
_ARTICLE = re.compile(r"\b(?:a|an|the)\b(?=\s+\w)")
# Punctuation that never changes an answer: not a decimal point, a factorial, a prime or a minus sign.
_SOFT_PUNCTUATION = re.compile(
    r"[;:?\"`。，；：！？、“”‘《》「」]|[.,](?!\d)|(?<=[^\W\d_]{2})!|(?<!\w)'|(?<=[^\W\d_])-(?=[^\W\d_])"
)
_BRACKETS = re.compile(r"[()\[\]{}]")  # style in words, meaning next to digits: [0, 1) or 2(x+1)
_DECORATION = re.compile(r"\\(?:left|right|displaystyle|quad|qquad|boldsymbol|[,;!: ])|\*\*|~|(?<!\\)\$")
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mathbf|operatorname|mbox)\s*\{([^{}]*)\}")

_NUMBER = r"[+-]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"
_HAS_NUMBER = re.compile(r"[\d零一二两三四五六七八九十百千万]")
_SCIENTIFIC = re.compile(r"\s*(?:\\times|\\cdot|[×·*x])\s*10\s*(?:\^|\*\*)\s*\{?\s*([+-]?\d+)\s*\}?")
_FRACTION = re.compile(r"([+-]?)\s*(\d+)?\s*\\[dt]?frac\s*\{?(\d+)\}?\s*\{?(\d+)\}?")
_QUANTITY = re.compile(
    rf"(?P<currency>[$€£¥]?)\s*(?:(?P<whole>[+-]?\d+)\s+(?=\d+/))?(?P<top>{_NUMBER})(?:\s*/\s*(?P<bottom>\d+(?:\.\d+)?))?"
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
    **dict.fromkeys(("h", "hr", "hour", "小时"), "h"),
    **dict.fromkeys(("°", "deg", "degree", "度"), "degree"),
    **dict.fromkeys(("j", "joule", "焦耳"), "j"),
    **dict.fromkeys(("n", "newton", "牛顿"), "n"),
    **dict.fromkeys(("w", "watt", "瓦特"), "w"),
}
# After a number these are algebra and no unit: 2x, 3i, 2 pi. Any single letter is a unit only after a space.
_ALGEBRA = re.compile(r"(?:[xyzabcknpqrtuvwi]|pi|sqrt|sin|cos|tan|ln|log|exp|π|√)\b.*")
_ZH_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_ZH_UNITS = {"十": 10, "百": 100, "千": 1000}

_FUNCTIONS = (
    "sqrt",
    "sinh",
    "cosh",
    "tanh",
    "arcsin",
    "arccos",
    "arctan",
    "asin",
    "acos",
    "atan",
    "sin",
    "cos",
)
_FUNCTIONS += ("tan", "cot", "sec", "csc", "ln", "log", "exp", "abs")
_GREEK = ("alpha", "beta", "gamma", "delta", "theta", "lambda", "mu", "rho", "sigma", "phi", "omega")
_MATH_TOKEN = re.compile(
    r"\s*(?:(\d+(?:\.\d+)?|\.\d+)|("
    + "|".join((*_FUNCTIONS, "pi", *_GREEK))
    + r")(?![A-Za-z])|([A-Za-z])(?:_\{?(\w{1,3})\}?)?"
    r"|(\*\*|[-+*/^(),=]))"
)
_LATEX = (
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (re.compile(r"\\(?=(?:" + "|".join((*_FUNCTIONS, "pi", *_GREEK)) + r")(?![A-Za-z]))"), " "),
)


def same_answer(a, b, *, choices: Sequence | None = None) -> bool | None:
    """Whether two final answers mean the same; None when that cannot be decided here.

    Tolerates letter case, articles, punctuation, a unit given on one side only, thousands separators,
    fractions, percent, scientific and LaTeX notation, Chinese numerals, and decimals rounded to three digits
    or more. With `choices`, letters ("B", "(B)", "BD") and option texts are resolved first. Undecided: an
    empty answer, two different texts of a sentence or more, quantities in different units, case that may
    carry the meaning (Co, CO), and algebra that the worker could not settle in time.

    Raises RuntimeError when the sympy worker does not start.
    """
    a, b = _clean(a), _clean(b)
    if not a or not b:
        return None
    if choices is not None:
        options = [_clean(choice) for choice in choices]
        chosen_a, chosen_b = _chosen(a, options), _chosen(b, options)
        if chosen_a == "ambiguous" or chosen_b == "ambiguous":
            return True if a == b else None
        if chosen_a is not None and chosen_b is not None:
            return chosen_a == chosen_b
        # One side is neither a letter nor an option: compare what the options say.
        a = options[min(chosen_a)] if chosen_a and len(chosen_a) == 1 else a
        b = options[min(chosen_b)] if chosen_b and len(chosen_b) == 1 else b
    return _same_text(a, b)


def answer_key(text) -> str:
    """A canonical form such that equal keys mean the same answer; unequal keys prove nothing.

    Cheap and free of sympy, for grouping large tables. Empty when the answer is missing.
    """
    text = _clean(text)
    boolean = _boolean(text)
    if boolean is not None:
        return "yes" if boolean else "no"
    quantity = _quantity(text)
    if quantity is not None and not quantity[2]:
        return f"{quantity[0]}{' %' if quantity[3] else ''}"
    return _words(text, fold=not _case_coded(text))


def consensus(answers: Sequence, *, choices: Sequence | None = None) -> tuple[str | None, float]:
    """The answer most samples agree on, and its share of all samples (empty ones count against it).

    Votes are grouped by `same_answer`; the form returned is the first one seen. A tie gives (None, share).
    """
    groups: list[list[str]] = []
    for answer in answers:
        if not _clean(answer):
            continue
        group = next(
            (g for g in groups if g[0] == answer or same_answer(g[0], answer, choices=choices)), None
        )
        if group is None:
            groups.append([str(answer)])
        else:
            group.append(str(answer))
    if not groups:
        return None, 0.0
    groups.sort(key=len, reverse=True)  # stable: the first seen leads among equals
    tied = len(groups) > 1 and len(groups[0]) == len(groups[1])
    return None if tied else groups[0][0], len(groups[0]) / len(answers)


def choice_consistent(row: Mapping) -> str | None:
    """Why choices, `answer_index` and `answer` of a QA row contradict each other; None when they agree.

    `answer` may be the option's text or its letter (several for multi-select, then `answer_index` is null).
    """
    choices, index, answer = row.get("choices"), row.get("answer_index"), row.get("answer")
    index = None if _missing(index) else index
    if _missing(choices):
        return None if index is None else f"answer_index {index} without choices"
    options = [_clean(choice) for choice in choices]
    if len(options) < 2:
        return f"{len(options)} choice(s), at least 2 needed"
    if not all(options):
        return f"choice {options.index('')} is empty"
    plain = [" ".join(option.split()) for option in options]
    if len(set(plain)) < len(plain):
        repeated = next(p for i, p in enumerate(plain) if p in plain[:i])
        return f"choice repeated: {repeated[:60]!r}"
    if index is not None and (int(index) != index or not 0 <= index < len(options)):
        return f"answer_index {index} outside 0..{len(options) - 1}"
    answer = _clean(answer)
    if not answer:
        return None  # an empty answer is another rule's business
    chosen = _chosen(answer, options)
    if chosen == "ambiguous":
        return None
    if chosen is None:
        return f"answer {answer[:60]!r} is not among the choices"
    if index is not None and int(index) not in chosen:
        return f"answer {answer[:60]!r} is not choice {int(index)} ({options[int(index)][:60]!r})"
    return None


_ANNOUNCED = re.compile(
    r"(?:(?:the\s+)?(?:final\s+|correct\s+)?answer(?:\s+choice)?\s*(?:is\b|:|=)|(?:最终)?答案\s*(?:是|为|[:：])|故?(?:本题)?(?:应)?选\s*[:：]?\s*(?=[A-J]))"
    r"[\s:：*_]*([^\n]+)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(
    r"(?<!\b[A-Z])(?<!\b[A-Z][a-z])(?<!\b[A-Z][a-z]{2})[.!?]\s+(?=[A-Z])|[。！？；]|\s+(?:because|since)\s"
)


def final_answer(text) -> str:
    """The final answer inside what a model wrote; empty when there is none.

    Looks, in this order, for the last `\\boxed{}`, the last `#### `, the last announcement ("The answer is",
    "答案：", "故选"), and else takes the last line that says anything. A <think> block is ignored.
    """
    text = "" if _missing(text) else str(text)
    text = re.sub(r"^.*</think>", "", text, flags=re.DOTALL)
    boxed = _last_boxed(text)
    if boxed is not None:
        return _trim(boxed)
    marked = re.findall(r"^####\s*(.+)$", text, flags=re.MULTILINE)
    if marked:
        return _trim(marked[-1])
    flat = re.sub(r"\*\*|__", "", text)
    announced = list(_ANNOUNCED.finditer(flat))
    if announced:
        return _trim(_SENTENCE_END.split(announced[-1].group(1), maxsplit=1)[0])
    lines = [line for line in flat.splitlines() if re.search(r"\w", line)]
    return _trim(re.sub(r"^\s*(?:[-*>]\s+)", "", lines[-1])) if lines else ""


def _last_boxed(text: str) -> str | None:
    start = text.rfind("\\boxed")
    opening = text.find("{", start) if start >= 0 else -1
    if opening < 0:
        return None
    depth = 0
    for i in range(opening, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[opening + 1 : i]
    return text[opening + 1 :]  # truncated output: keep what is there


def _trim(text: str) -> str:
    text = text.strip().strip("*_` \t")
    text = re.sub(r"^\$+(.*?)\$+[.。]?$", r"\1", text)
    text = re.sub(r"[.。．,，;；]+$", "", text).strip()
    text = re.sub(r"^\\(?:text|textbf|mathrm)\{([^{}]*)\}$", r"\1", text)
    return re.sub(r"^[(（\[]\s*([A-Ja-j])\s*[)）\]]$", r"\1", text)


def _missing(value) -> bool:
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or type(value).__name__ in ("NAType", "NaTType")
    )


def _clean(text) -> str:
    """NFKC, LaTeX decoration and outer space gone; letter case kept."""
    if _missing(text):
        return ""
    text = unicodedata.normalize("NFKC", str(text)).translate(_PLAIN)
    text = text.replace("\\%", "%").replace("\\$", " $ ") if "\\" in text else text
    currency = re.fullmatch(r"\s*\$\s*[\d.,]+\s*", text)  # "$18" is money, "$x$" is LaTeX
    if not currency:
        text = _DECORATION.sub(lambda m: " " if m[0] != "$" else "", _TEXT_COMMAND.sub(r" \1 ", text))
    return text.strip().rstrip("。.;；,，").strip()


def _words(text: str, *, fold: bool = True) -> str:
    text = text.casefold() if fold else text
    text = text if re.search(r"\d", text) else _BRACKETS.sub(" ", text)
    return " ".join(_ARTICLE.sub(" ", _SOFT_PUNCTUATION.sub(" ", text)).split())


def _case_coded(text: str) -> bool:
    """Whether letter case carries meaning: Co or CO, Aa or aa, NaCl, AaBb."""
    letters = [c for c in text if c.isalpha()]
    if " " in text or not letters or not text.isascii():
        return False
    return len(letters) <= 2 or not (text.isupper() or text.islower() or text[1:].islower())


def _boolean(text: str) -> bool | None:
    word = _words(text)
    return True if word in _YES else False if word in _NO else None


def _chosen(answer: str, options: list[str]) -> set[int] | str | None:
    """Indices of the options meant; "ambiguous" when the letter is itself the text of another option."""
    words = [_words(option, fold=not _case_coded(option)) for option in options]
    own = _words(answer, fold=not _case_coded(answer))
    by_text = {i for i, word in enumerate(words) if word == own}
    letter = answer.upper() if len(answer.strip("()[]. ")) == 1 else answer[:40]
    letters = re.fullmatch(r"[(\[]?\s*([A-Z](?:[\s,、&和]*[A-Z])*)\s*[)\].:]?", letter)
    by_letter = {ord(c) - 65 for c in re.findall("[A-Z]", letters[1])} if letters else set()
    by_letter = by_letter if by_letter and max(by_letter) < len(options) else set()
    if by_letter and by_text and by_letter != by_text:
        return "ambiguous"
    labelled = re.match(r"(?:[(\[]\s*([A-Z])\s*[)\]]|([A-Z])\s*[.):、])\s*(.+)", answer, flags=re.DOTALL)
    if not by_letter and not by_text and labelled:
        index = ord(labelled[1] or labelled[2]) - 65
        if index < len(options) and _words(labelled[3]) == _words(options[index]):
            return {index}
    if not by_letter and not by_text:  # "1200" for the option "1,200 km"
        by_text = {i for i, option in enumerate(options) if _same_number(answer, option)}
    return by_text or by_letter or None


def _same_text(a: str, b: str) -> bool | None:
    if a == b:
        return True
    yes_a, yes_b = _boolean(a), _boolean(b)
    if yes_a is not None and yes_b is not None:
        return yes_a == yes_b
    number = _same_number(a, b, undecided=True)
    if number != "not numbers":
        return number
    parts_a, parts_b = _parts(a), _parts(b)
    if parts_a and parts_b:
        return _same_parts(parts_a, parts_b)
    if _words(a) == _words(b):
        return (
            None
            if _words(a, fold=False) != _words(b, fold=False) and (_case_coded(a) or _case_coded(b))
            else True
        )
    tokens_a, tokens_b = _math_tokens(a), _math_tokens(b)
    if tokens_a and tokens_b:
        return _WORKER.equal(tokens_a, tokens_b, _decimal_places(a, b))
    if min(len(re.findall(r"[\u3400-\u9fff]{2}|[a-zA-Z]+", t)) for t in (a, b)) > _PROSE_WORDS:
        return None
    return False


def _decimal_places(a: str, b: str) -> int | None:
    """Places to which a closed form may be rounded: those of the one side that is a decimal of 3+ digits."""
    decimals = [q for q in (_quantity(a), _quantity(b)) if q is not None and q[1] is not None]
    if len(decimals) != 1 or abs(decimals[0][0]) < 100 * Fraction(10) ** -decimals[0][1]:
        return None
    return decimals[0][1]


def _parts(text: str) -> tuple[str, list[str]] | None:
    """Brackets and members of "(1, 2)", "[1, 2)", "{1, 2}" or "1, 2"; None when it is not a list."""
    text = text.replace("\\{", "{").replace("\\}", "}")
    if len(text) > 1 and text[0] in "([{" and text[-1] in ")]}":
        brackets, inner = text[0] + text[-1], text[1:-1]
    else:
        brackets, inner = "", text
    members, depth, start = [], 0, 0
    for i, character in enumerate(inner + ","):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            members.append(inner[start:i].strip())
            start = i + 1
    return (brackets, members) if 2 <= len(members) <= 20 and all(members) else None


def _same_parts(a: tuple[str, list[str]], b: tuple[str, list[str]]) -> bool | None:
    (brackets_a, members_a), (brackets_b, members_b) = a, b
    if len(members_a) != len(members_b):
        return False
    # Two members: "(0, 1)" and "[0, 1]" are different intervals. Otherwise brackets are only style.
    if (
        len(members_a) == 2
        and {brackets_a, brackets_b} <= {"()", "[]", "(]", "[)"}
        and brackets_a != brackets_b
    ):
        return False
    if {brackets_a, brackets_b} <= {"", "{}"}:
        rest = list(members_b)
        for member in members_a:
            match = next((r for r in rest if _same_text(member, r)), None)
            if match is None:
                return False
            rest.remove(match)
        return True
    verdicts = [_same_text(x, y) for x, y in zip(members_a, members_b, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def _quantity(text: str) -> tuple[Fraction, int | None, frozenset[str], bool] | None:
    """(value, decimal places or None when exact, unit words, percent?) of "1,200 km", "3/4", "三十五"."""
    if len(text) > _MAX_EXACT_DIGITS or not _HAS_NUMBER.search(text):
        return None
    text = text[1:-1].strip() if re.fullmatch(r"\([^()]*\)", text) else text
    text = re.sub(r"^[a-zA-Zα-ω]\s*(?:=|≈)\s*", "", text)
    text = _FRACTION.sub(lambda m: f"{m[1]}{m[2] + ' ' if m[2] else ''}{m[3]}/{m[4]}", text)
    text = _SCIENTIFIC.sub(r"e\1", text)
    text = re.sub(r"\s*\^\s*\{?\\circ\}?", "°", text)
    found = _QUANTITY.fullmatch(text)
    if found and found["unit"]:
        glued = re.fullmatch("[A-Za-z]", found["unit"]) and text[found.start("unit") - 1].isdigit()
        if glued or _ALGEBRA.fullmatch(found["unit"]):
            return None
    if not found:
        value = _chinese_number(text)
        return None if value is None else (Fraction(value), None, frozenset(), False)
    top = found["top"].replace(",", "")
    mantissa, _, exponent = top.lower().partition("e")
    if (
        len(mantissa) + abs(int(exponent or 0)) > _MAX_EXACT_DIGITS
        or len(found["bottom"] or "") > _MAX_EXACT_DIGITS
    ):
        return None
    value = Fraction(top)
    places = (
        len(mantissa.partition(".")[2]) - int(exponent or 0)
        if "." in mantissa and not found["bottom"]
        else None
    )
    if found["bottom"]:
        if Fraction(found["bottom"]) == 0:
            return None
        value /= Fraction(found["bottom"])
    if found["whole"]:
        whole = int(found["whole"])
        value = whole - value if found["whole"].startswith("-") else whole + value
    words = re.findall(
        r"°|[\u3400-\u9fff]+|[^\W\d_]+", f"{found['currency']} {(found['unit'] or '').casefold()}"
    )
    words = [found["currency"]] * bool(found["currency"]) + words
    singular = (w if w in _UNIT_ALIASES or len(w) < 4 else w.removesuffix("s") for w in words)
    return value, places, frozenset(_UNIT_ALIASES.get(w, w) for w in singular), bool(found["percent"])


def _chinese_number(text: str) -> int | None:
    if not re.fullmatch(r"[零〇一二两三四五六七八九十百千万]{1,12}", text):
        return None
    total = section = digit = 0
    for character in text:
        if character in _ZH_DIGITS:
            digit = _ZH_DIGITS[character]
        elif character == "万":
            total, section, digit = (total + section + digit) * 10_000, 0, 0
        else:
            section += (digit or 1) * _ZH_UNITS[character]
            digit = 0
    return total + section + digit


def _same_number(a: str, b: str, *, undecided: bool = False):
    """Whether two quantities agree; False (or "not numbers" when `undecided`) if either is not a quantity."""
    x, y = _quantity(a), _quantity(b)
    if x is None or y is None:
        return "not numbers" if undecided else False
    (value_a, places_a, unit_a, percent_a), (value_b, places_b, unit_b, percent_b) = x, y
    equal = _rounds_to(value_a, places_a, value_b, places_b)
    if percent_a != percent_b:  # "50%" answers "what share" as 0.5 and "what percentage" as 50
        scaled_a, scaled_b = (value_a / 100, value_b) if percent_a else (value_a, value_b / 100)
        shift_a, shift_b = 2 * percent_a, 2 * percent_b
        places = [None if p is None else p + s for p, s in ((places_a, shift_a), (places_b, shift_b))]
        equal = equal or _rounds_to(scaled_a, places[0], scaled_b, places[1])
    units_agree = unit_a <= unit_b or unit_b <= unit_a  # a missing unit, or "eggs" for "duck eggs"
    if units_agree:
        return equal
    return False if equal or not undecided else None  # 1 km and 1000 m: no conversion here


def _rounds_to(a: Fraction, places_a: int | None, b: Fraction, places_b: int | None) -> bool:
    """Equal, or the coarser decimal is the other one rounded, with three significant digits or more."""
    if a == b:
        return True
    written = [(p, v, other) for p, v, other in ((places_a, a, b), (places_b, b, a)) if p is not None]
    if not written:
        return False
    places, value, other = min(written, key=lambda w: w[0])
    unit = Fraction(10) ** -places
    return abs(value) >= 100 * unit and abs(value - other) <= unit / 2


def _math_tokens(text: str) -> list[str] | None:
    """Allowed tokens of an expression, or None when anything else is in it."""
    if len(text) > 4 * _MAX_TOKENS:
        return None
    text = re.sub(r"\\sqrt\s*\[(\d+)\]\s*\{", r"root(\1,{", text)  # closed by the parser's `root`
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    for _ in range(8):  # innermost first; eight levels are plenty
        text = re.sub(r"root\((\d+),\{([^{}]*)\}", r"((\2)^(1/(\1)))", text)
        text, n = re.subn(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))", text)
        text, m = re.subn(r"(\^|sqrt\s*)\{([^{}]*)\}", r"\1(\2)", text)
        if not n + m:
            break
    text = re.sub(r"(?<![A-Za-z])([A-Za-z])\s*=\s*(?=[^=]+$)", "", text, count=1)  # "x = 5" answers 5
    tokens, position = [], 0
    while position < len(text.rstrip()) and len(tokens) <= _MAX_TOKENS:
        match = _MATH_TOKEN.match(text, position)
        if not match:
            return None
        number, name, letter, index, sign = match.groups()
        tokens.append(
            number
            or name
            or (letter + (f"_{index}" if index else "") if letter else "^" if sign == "**" else sign)
        )
        position = match.end()
    letters = sum(len(t) == 1 and t.isalpha() for t in tokens)
    wordy = re.search(r"[A-Za-z]{4,}", re.sub("|".join((*_FUNCTIONS, *_GREEK)), "", text))
    return tokens if 0 < len(tokens) <= _MAX_TOKENS and letters <= 12 and not wordy else None


class _Worker:
    """One warm sympy process; killed and replaced when it overruns its time or dies."""

    def __init__(self):
        self.process, self.owner, self.lock = None, None, threading.Lock()

    def equal(self, a: list[str], b: list[str], places: int | None = None) -> bool | None:
        with self.lock:
            if self.process is None or self.owner != os.getpid() or self.process.poll() is not None:
                self._start()
            try:
                self.process.stdin.write(json.dumps([a, b, places]).encode() + b"\n")
                self.process.stdin.flush()
                return json.loads(self._line(SYMBOLIC_SECONDS))
            except (OSError, ValueError, TimeoutError):
                self.stop()
                return None

    def stop(self) -> None:
        if self.process is not None and self.owner == os.getpid():
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                pipe.close()
        self.process = None

    def _start(self) -> None:
        # Only what Python needs to start: no key of the user's environment reaches the process.
        wanted = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME", "LANG")
        env = {name: os.environ[name] for name in wanted if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-P", os.path.abspath(__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
        )
        self.owner = os.getpid()
        if self._line(_START_SECONDS) != b"ready":
            self.stop()
            raise RuntimeError("the sympy worker did not start; check that `python -c 'import sympy'` works")

    def _line(self, seconds: float) -> bytes:
        deadline, received = time.monotonic() + seconds, b""
        while not received.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise TimeoutError(f"no reply from the sympy worker within {seconds} s")
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                raise OSError("the sympy worker died")
            received += chunk
        return received.strip()


_WORKER = _Worker()
atexit.register(_WORKER.stop)


def _build(tokens: list[str]):
    """A sympy expression from allowed tokens: sums, (implied) products, powers and calls."""
    import sympy

    inverse = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "ln": "log", "abs": "Abs"}
    position = 0

    def peek():
        return tokens[position] if position < len(tokens) else None

    def take(expected=None):
        nonlocal position
        token = peek()
        if token is None or (expected and token != expected):
            raise ValueError(f"expected {expected or 'a term'}, found {token}")
        position += 1
        return token

    def total():
        value = product()
        while peek() in ("+", "-"):
            value = value + product() if take() == "+" else value - product()
        return value

    def product():
        value = signed()
        while peek() is not None and peek() not in ("+", "-", ")", ",", "="):
            if peek() == "/":
                take()
                value = value / signed()
            else:
                if peek() == "*":
                    take()
                value = value * signed()
        return value

    def signed():
        if peek() in ("+", "-"):
            return signed() if take() == "+" else -signed()
        value = atom()
        if peek() == "^":
            take()
            return value ** signed()  # right-associative, and the exponent may carry a sign
        return value

    def atom():
        token = take()
        if token == "(":
            value = total()
            take(")")
            return value
        if token in _FUNCTIONS:
            function = getattr(sympy, inverse.get(token, token))
            if peek() == "^":  # sin^2(x)
                take()
                power = atom()
                return function(atom()) ** power
            return function(atom())
        if token == "pi":
            return sympy.pi
        if token[0].isdigit() or token[0] == ".":
            return sympy.Rational(token)
        if token[0].isalpha():
            return sympy.E if token == "e" else sympy.I if token == "i" else sympy.Symbol(token)
        raise ValueError(f"unexpected {token!r}")

    value = total()
    if peek() == "=":  # an equation: both sides on one
        take()
        value = value - total()
    if peek() is not None:
        raise ValueError(f"unexpected {peek()!r}")
    return value


def _equivalent(a, b, places: int | None) -> bool | None:
    """Equal as expressions, or to `places` decimals when one side was rounded; None when unsettled.

    Numeric probes refute in no time; sympy confirms; agreement at all probes stands in when it cannot.
    """
    import random

    import sympy

    difference, agreed = a - b, 0
    if difference == 0:
        return True
    if places is not None and not difference.free_symbols:
        return bool(abs(sympy.N(difference, 30)) <= sympy.Rational(1, 2) * sympy.Integer(10) ** -places)
    symbols, numbers = sorted(a.free_symbols | b.free_symbols, key=str), random.Random(0)
    for _ in range(6 if symbols else 1):
        point = {s: sympy.Rational(numbers.randint(101, 999), 313) for s in symbols}
        x, y = (sympy.N(side.subs(point), 30) for side in (a, b))
        if not (x.is_number and y.is_number and x.is_finite and y.is_finite):
            continue
        if abs(x - y) > sympy.Float("1e-20") * max(1, abs(x)):
            return False
        agreed += 1
    return True if sympy.simplify(difference) == 0 or agreed >= (4 if symbols else 1) else None


def _serve() -> None:
    """The worker: one JSON line of two token lists in, one JSON verdict out."""
    import contextlib
    import resource

    for limit, most in ((resource.RLIMIT_AS, SYMBOLIC_BYTES), (resource.RLIMIT_FSIZE, 0)):
        with contextlib.suppress(ValueError, OSError):  # macOS has no RLIMIT_AS; the time limit stands there
            resource.setrlimit(limit, (most, most))
    import sympy  # noqa: F401  (its import is the slow part: do it before the first question)

    print("ready", flush=True)
    for line in sys.stdin:
        try:
            a, b, places = json.loads(line)
            verdict = _equivalent(_build(a), _build(b), places)
        except Exception:
            verdict = None
        print(json.dumps(None if verdict is None else bool(verdict)), flush=True)


if __name__ == "__main__":
    _serve()
