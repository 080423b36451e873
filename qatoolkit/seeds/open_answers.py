"""Answers without choices: lists of wordings or parts, final answers in a box, numbers with their unit or power of ten
in another column."""

import re
from itertools import pairwise

from qatoolkit.core.text import normalise
from qatoolkit.seeds.choices import FLAGS, Fault, as_truth, clean, is_blank, parse_literal, simplify

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_REPEATED_ANSWER = re.compile(
    r"\n\s*(?:So )?(?:the )?answer is\b.*", re.IGNORECASE | re.DOTALL
)  # "#### 12, The answer is: 12"
_FINAL = re.compile(  # "… #### 12", or a last line "#### twelve" without headings before it
    r"(?P<work>.*)####\s*(?P<number>[-+$]*[\d.,/:]*%?)|(?P<lines>(?:(?!####).)*(?:\A|\n)[ \t]*)####\s*(?P<text>[^\n]+)",
    re.DOTALL,
)
_BARE = re.compile(r"-?\d+(?:[.,]\d+)*%?|[A-Za-z](?![A-Za-z])")  # the content of a box without braces or an end
_FORMULA_END = re.compile(r"\$|\\[)\]]")
_BETWEEN = re.compile(r"(?:[\s$,;&、，和与或]|\band\b|\bor\b|\\text\{ ?(?:and|or) ?\}|\\q?quad\b|\\[()\[\],; ])*")
_NUMBER = re.compile(
    r"[-+−]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?|[-+−]?\\[dt]?frac\{?\d+\}?\{?\d+\}?|[-+−]?(?:\\sqrt\{\d+\}|\\pi)"
)
_POWER = re.compile(r"(?:\\times|\\cdot|[×x*·])?\s*10\s*(?:\^|\*\*)\s*\{?\s*([-+−]?\d+)\s*\}?|(?<=\d)[eE]([-+]?\d+)")
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_UNIT_WORD = re.compile(  # unit words of more than three letters
    r"(?:kilo|milli|centi|micro|nano|mega|giga)?(?:met(?:er|re)|gram|lit(?:er|re)|second|minute|hour|week|month|year|dollar"
    r"|cent|euro|pound|percent|thousand|million|billion|hundred|degree|radian|mole|mile|feet|foot|inch|yard|acre|ounce"
    r"|byte|volt|watt|joule|newton|pascal|hertz|kelvin|celsius|fahrenheit|ampere|coulomb|ohms|tesla|calorie|people"
    r"|person|times|units|square|cubic|days|tons|bits|kcal|mmhg)",
    re.IGNORECASE,
)
_NO_UNIT = re.compile(r"(?i)[\s.,;:()$–-]*\d*[\s.,;:()$–-]*|.*\b(?:unit|chapter|lesson|module|week)\b.*")


def unwrap(value: object) -> object:
    """The answer in a cell: lists and objects written as text are parsed, objects become their text or value, and a
    list with one item becomes the item."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        written = parse_literal(value.strip())
        texts = isinstance(written, list) and all(isinstance(w, str) for w in written)
        value = written if texts or (isinstance(written, dict) and _get_text(written) is not None) else value
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if isinstance(value, dict):
        value = value if _get_text(value) is None else _get_text(value)
    if isinstance(value, list | tuple):
        _check_marks([v for v in value if isinstance(v, dict)])
        value = [_get_text(v) if isinstance(v, dict) and _get_text(v) is not None else v for v in value]
        value = (
            list(dict.fromkeys(value))
            if value and all(isinstance(v, str) for v in value[1:]) and _all_equal(value)
            else value
        )
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str) else value


def _check_marks(answers):
    """Raises Fault if some answers are marked wrong, or by a word that is neither right nor wrong."""
    marks = [as_truth(v[k]) for v in answers for k in v if simplify(k) in FLAGS and v[k] is not None]
    if not all(marks):
        raise Fault("bad_choices" if True in marks or None in marks else "marked_wrong", f"answers {str(answers)[:60]}")


def _get_text(cell):
    return next((cell[k] for k in ("text", "value", "answer", "content", "spans") if k in cell), None)


def _all_equal(texts):
    return len({normalise(t) if isinstance(t, str) else None for t in texts}) == 1 and isinstance(texts[0], str)


def as_wordings(value: object) -> tuple[str, ...]:
    """The texts in a cell of aliases: a list, a list written as text, or texts separated by semicolons or bars."""
    value = unwrap(value)
    if isinstance(value, str):
        value = re.split(r"\s*[;|]\s*", value)
    texts = [clean(v) for v in value if not isinstance(v, list | dict)] if isinstance(value, list | tuple) else []
    return tuple(dict.fromkeys(filter(None, texts)))


def read_list(value: object, known: str | None = None) -> tuple[tuple[str, ...], str]:
    """The texts of a list of several answers, and whether they are parts or wordings of one answer: `known`, else by
    content (letters, numbers and repeated texts are parts, other texts wordings). ((), "") for any other value."""
    if not isinstance(value, list | tuple) or len(value) < 2 or not all(isinstance(v, str) for v in value):
        return (), ""
    texts = tuple(text for v in value if (text := clean(v)))
    plain = [t.strip(" $") for t in texts]
    parts = len(set(texts)) < len(texts) or all(re.fullmatch("[A-Za-z]", t) or _NUMBER.fullmatch(t) for t in plain)
    return texts, f"{known or ('parts' if parts else 'wordings')} of one answer"


def split_work(value: object, rationale: str) -> tuple[object, str]:
    """The final answer and the rationale of "… #### 12" or of a text with \\boxed{}.

    Raises Fault for a box without a clear end, and for several boxes with text between them."""
    if not isinstance(value, str):
        return value, rationale
    text = clean(value)
    if final := _FINAL.fullmatch(_REPEATED_ANSWER.sub("", text)):
        work, value = (final["lines"], final["text"]) if final["text"] else (final["work"], final["number"])
        return value, rationale or clean(work)
    boxes = [_read_box(text, mark) for mark in _BOX.finditer(text)]
    found = list(dict.fromkeys(content for content, *_ in boxes))
    if not found:
        return value, rationale
    if "" in found:
        raise Fault("unclear_box", "an empty box")
    gaps = [text[a[2] : b[1]] for a, b in pairwise(boxes)]
    if len(found) > 1 and not all(_BETWEEN.fullmatch(gap) for gap in gaps):
        raise Fault("unclear_box", f"{len(found)} boxes: {', '.join(found)[:60]}")
    whole = text[: boxes[0][1]].strip("$ ") == text[boxes[-1][2] :].strip("$ .") == ""
    return ", ".join(found), rationale or ("" if whole else text)


def _read_box(text, mark):
    """Content, start and end of a box; one without braces extends to the end of its formula."""
    start = mark.end()
    if text[start : start + 1] == "{":
        depth = 0
        for brace in re.finditer(r"(?<!\\)[{}]", text[start:]):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                return text[start + 1 : start + brace.start()].strip(), mark.start(), start + brace.end()
        raise Fault("unclear_box", repr(text[mark.start() :][:60]))
    end = _FORMULA_END.search(text, start)
    content = text[start : end.start()].strip() if end else ""
    if not content or "\n" in content or re.search("[A-Za-z]{2,} [A-Za-z]{2,}", content):
        bare = _BARE.match(text, start)
        if not bare:
            raise Fault("unclear_box", repr(text[mark.start() :][:60]))
        content, end = bare[0], re.compile("").match(text, bare.end())
    return content.rstrip(".,"), mark.start(), end.start()


def is_unit(cell: object) -> bool:
    """Whether a cell is a unit ("nm", "$10^3$ J", "million"), not a chapter ("Unit 3", "Fractions")."""
    text = cell.strip() if isinstance(cell, str) else ""
    words = re.findall(r"(?<![\\A-Za-z])[A-Za-z]{4,}", text)
    return 0 < len(text) <= 60 and not _NO_UNIT.fullmatch(text) and all(map(_UNIT_WORD.match, words))


def is_power(cell: object) -> bool:
    """Whether a cell is an exponent or a written power of ten."""
    return bool(re.fullmatch(r"[-+−]?\d+(?:\.0)?", text := clean(cell)) or _POWER.fullmatch(text.strip("$ ")))


def with_unit(answer: str, unit: object, power: object, *, factor: bool = False) -> str:
    """A number with the power of ten and the unit from other columns appended; any other answer is returned unchanged.
    With `factor`, the power is given as a number (1000 for 10^3).

    Raises Fault if answer, unit and power give different powers."""
    unit, inner = clean(unit), answer.strip("$ ")
    number = _NUMBER.match(inner)
    if not number or (inner[number.end() :] and not _POWER.match(inner[number.end() :].strip())):
        return answer
    if is_blank(power) and (not unit or _NO_UNIT.fullmatch(unit)):
        return answer
    head = _POWER.match(unit.lstrip("$ ").translate(_RAISED if re.match(r"\W*10[⁰-⁹⁻⁺¹²³]", unit) else {}))
    superscript = re.match(r"\W*10([⁻⁺]?[⁰¹²³⁴-⁹]+)", unit)
    power = clean(power).removesuffix(".0")
    if factor and power.isdigit():
        if not re.fullmatch("10*", power):
            raise Fault("unclear_number", f"{answer[:40]!r} with the factor {power}")
        power = str(len(power) - 1)
    powers = {"answer": _power(inner), "unit": head and (head[1] or head[2]), "power": _power(power, alone=True)}
    if superscript:
        powers["unit"], unit = superscript[1].translate(_RAISED), unit[superscript.end() :]
    elif head:
        unit = unit.lstrip("$ ")[head.end() :].lstrip().removeprefix("$")
    unit = ("$" + unit if unit.count("$") % 2 else unit).strip()
    exponents = {int(p.replace("−", "-")) for p in powers.values() if p}
    if len(exponents) > 1:
        raise Fault("unclear_number", f"{answer[:40]!r} with the powers {sorted(exponents)}")
    if exponents and not powers["answer"]:
        inner = f"{inner} \\times 10^{{{exponents.pop()}}}"
        answer = f"${inner}$" if answer.startswith("$") else inner
    return answer if not unit or answer.endswith(unit) else f"{answer} {unit}"


def _power(text, *, alone=False):
    """The exponent in a text such as 1.5 \\times 10^{3} or, alone, 10^3 or 3."""
    if alone and re.fullmatch(r"[-+−]?\d+(?:\.0)?", text):
        return text.removesuffix(".0")
    found = _POWER.search(text)
    return found and (found[1] or found[2])
