"""Are two answers the same answer?

Used wherever a row needs a check: refinement (does the second teacher agree?), voting over samples, conflicts between
rows, and consistency of multiple choice. The decision is made here, over readers that know one kind each: `notation`
(spelling and words), `lists`, `quantities` with `units`, and `algebra`. (Our reading: neither paper describes its
checker.)
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from qatoolkit.answers.algebra import WORKER, has_names, math_tokens
from qatoolkit.answers.lists import Several, clock, ratio, several
from qatoolkit.answers.notation import FUNCTION_WORDS, MOST, clean, is_cjk_text, labelled, words
from qatoolkit.answers.quantities import HAS_NUMBER, decimal_places, quantity, same_number
from qatoolkit.core.text import missing

_PROSE_WORDS = 12  # longer texts may agree in other words: undecided
_LIST_SECONDS = 0.5  # for all algebra in a list, which is undecided after that

_YES = {"yes", "true", "correct", "是", "是的", "对", "正确", "√", "✓", "✔"}
_NO = {"no", "false", "incorrect", "wrong", "否", "不是", "错", "错误", "不对", "不正确", "×", "✗", "✘"}
_PHRASES = (
    {"no solution", "no solutions", "no real solution", "无解", "没有解"},
    {"none of above", "none of these", "以上都不是", "以上都不对", "都不对"},
    {"all of above", "all of these", "以上都是", "以上皆是"},
    {"cannot be determined", "can't be determined", "can not be determined", "无法确定", "不能确定"},
    {"does not exist", "dne", "不存在"},
    {"infinity", "∞", "无穷大", "无穷"},
    {"infinitely many solutions", "无数解", "无穷多解"},
    {"empty set", "∅", r"\emptyset", "\\varnothing", "空集", "{}"},
)
_NAMED = re.compile(
    r"(?:(?P<name>[∠△]?\s*[A-Z]{1,4}|[A-Za-zα-ωΑ-Ω]'?(?:_\{?\w+\}?|\d)?(?:\([^()=]*\))?)\s*(?:[=≈]|(?:is|equals)\s))\s*(?P<value>[^=≈<>]+)"
)
_RANGE = re.compile(r"\d+(?:\s*-\s*\d+)+")
_SIZE = re.compile(r"(\d{1,9})\s*x\s*(\d{1,9})")
_TURNED = str.maketrans("<>≤≥→∈", "><≥≤←∋")
_RELATION = re.compile(r"(<=|>=|[<>≤≥≠∈→])")


def same_answer(a, b, *, aliases: Sequence = ()) -> bool | None:
    """Whether two final answers mean the same: True, False (different), or None if it can't be told here.

    Tolerates announcements ("The answer is 5"), style of letters, articles, punctuation, a unit on one side only,
    units in other words or of other size, thousands separators, fractions, percent, scientific and LaTeX notation,
    numerals in words (English, Chinese), decimals rounded to three digits or more, equations times a constant, and the
    order of what is joined by and, or, 、 or set brackets. Undecided are an empty answer, two different texts of a
    sentence or more, different units with one number (m, m/s), letter case or order that may be the difference (Co, CO;
    "1, 2", "2, 1"), and what no reader understands or the worker did not decide in time.

    `aliases` are further right forms of b: True if a is the same as any of them, False if it differs from all.

    Raises RuntimeError if the sympy worker does not start. The decision is our own; units are pint's, Chinese numerals
    cn2an's, algebra sympy's.

    >>> import qatoolkit as qt
    >>> qt.same_answer("The answer is 0.5 km.", "500 m"), qt.same_answer("x^2 - 1", "(x-1)(x+1)")
    (True, True)
    >>> qt.same_answer("a spider", "a crab")
    False
    >>> print(qt.same_answer("Co", "CO"))  # cobalt, or carbon monoxide: undecided
    None
    >>> qt.same_answer("Holland", "the Netherlands", aliases=["Holland"])
    True
    """
    verdicts = []
    for form in (b, *aliases):
        verdict = _same_answer(clean(a), clean(form))
        if verdict:
            return True
        verdicts.append(verdict)
    return None if None in verdicts else False


def answer_key(text) -> str:
    """A canonical form: equal keys mean the same answer, unequal keys prove nothing. Empty if the answer is missing.

    Cheap and without sympy, for grouping large tables."""
    text = clean(text)
    boolean = _boolean(text)
    if boolean is not None:
        return "yes" if boolean else "no"
    found = quantity(text)
    if found is not None and not found.unit:
        return f"{found.value}{' %' if found.percent else ''}"
    return words(text, fold=False)


def consensus(answers: Sequence) -> tuple[str | None, float]:
    """The most frequent answer and its share of all samples, empty ones included; (None, share) for a tie.

    Votes are grouped by `same_answer`; the first form seen is returned."""
    groups: list[list[str]] = []
    for answer in answers:
        if not clean(answer):
            continue
        group = next((g for g in groups if g[0] == answer or same_answer(g[0], answer)), None)
        if group is None:
            groups.append([str(answer)])
        else:
            group.append(str(answer))
    if not groups:
        return None, 0.0
    groups.sort(key=len, reverse=True)  # stable: among equals the first seen comes first
    tied = len(groups) > 1 and len(groups[0]) == len(groups[1])
    return None if tied else groups[0][0], len(groups[0]) / len(answers)


def choice_consistent(row: Mapping) -> str | None:
    """How choices, `answer_index` and `answer` of a QA row contradict each other; None if they agree.

    `answer` is the text of an option or its letter (several letters for multi-select, with `answer_index` null)."""
    choices, index, answer = row.get("choices"), row.get("answer_index"), row.get("answer")
    index = None if missing(index) else index
    if missing(choices):
        return None if index is None else f"answer_index {index} without choices"
    options = [clean(choice, unwrap=False) for choice in choices]
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
    answer = clean(answer)
    if not answer:
        return None  # another rule rejects empty answers
    chosen = _chosen(answer, options)
    if chosen == "ambiguous":
        return None
    if chosen is None:
        return f"answer {answer[:60]!r} is not among the choices"
    if index is not None and int(index) not in chosen:
        return f"answer {answer[:60]!r} is not choice {int(index)} ({options[int(index)][:60]!r})"
    return None


def _chosen(answer: str, options: list[str]) -> set[int] | str | None:
    """Indices of the options that are meant; "ambiguous" if the letter is also the text of another option."""
    own = words(answer, fold=False)
    by_text = {i for i, option in enumerate(options) if words(option, fold=False) == own}
    letter = answer.upper() if len(answer.strip("()[]. ")) == 1 else answer[:40]
    letters = re.fullmatch(r"[(\[]?\s*([A-Z](?:[\s,、&和]*[A-Z])*)\s*[)\].:]?", letter)
    by_letter = {ord(c) - 65 for c in re.findall("[A-Z]", letters[1])} if letters else set()
    by_letter = by_letter if by_letter and max(by_letter) < len(options) else set()
    if by_letter and by_text and by_letter != by_text:
        return "ambiguous"
    label = labelled(answer)
    if not by_letter and not by_text and label:
        index = ord(label[0]) - 65
        if index < len(options) and words(label[1]) == words(options[index]):
            return {index}
    if not by_letter and not by_text:  # "1200" for the option "1,200 km"
        by_text = {i for i, option in enumerate(options) if same_number(answer, option) is True}
    return by_text or by_letter or None


def _boolean(text: str) -> bool | None:
    if text in ("T", "F"):
        return text == "T"
    word = words(text) if len(text) <= 12 else text
    return True if word in _YES else False if word in _NO else None


def _same_answer(a: str, b: str) -> bool | None:
    """As `same_answer`, of clean texts; a label as in "C. Paris" counts where the other side has one, or is one."""
    if not a or not b:
        return None
    if max(len(a), len(b)) > MOST:  # no notation, and no short answer either
        return True if a == b or words(a, fold=False) == words(b, fold=False) else None
    label_a, label_b = labelled(a), labelled(b)
    if a == b or not (label_a or label_b):
        return _same(a, b)
    if label_a and label_b:
        if label_a[0] == label_b[0]:
            return _same(label_a[1], label_b[1])
        return None if _same(label_a[1], label_b[1]) is not False else False
    (letter, text, sure), bare = (label_a, b) if label_a else (label_b, a)
    if re.fullmatch(r"[(\[]?[A-J][)\].]?", bare):
        return (sure or None) if bare.strip("()[].") == letter else False if sure else None
    return _same(text, bare)


def _same(a: str, b: str, seconds: float = 0.0) -> bool | None:
    own, other = words(a, fold=False), words(b, fold=False)
    if a == b or (own and own == other):
        return True
    yes_a, yes_b = _boolean(a), _boolean(b)
    if yes_a is not None and yes_b is not None:
        return yes_a == yes_b
    time_a, time_b, ratio_a, ratio_b = clock(a), clock(b), ratio(a), ratio(b)
    if ratio_a and ratio_b:
        equal = ratio_a[0] * ratio_b[1] == ratio_a[1] * ratio_b[0]
        if equal or not (time_a and time_b):  # 1:10 and 2:20 are one ratio, or two times
            return equal and (None if ratio_a != ratio_b and (ratio_a[2] or ratio_b[2]) else True)
    if time_a and time_b:
        return _same_time(time_a, time_b)
    if bool(time_a) != bool(time_b) and (quantity(a) or quantity(b)):
        other = quantity(b) if time_a else quantity(a)
        hour = other is not None and not other.unit and other.value % 12 == (time_a or time_b)[0] // 60 % 12
        return None if hour else False
    sizes = [_SIZE.fullmatch(text) for text in (a, b)]
    if all(sizes):
        (one, two), (three, four) = ((int(m[1]), int(m[2])) for m in sizes)
        return None if one * two == three * four and (one, two) != (three, four) else (one, two) == (three, four)
    named = [_NAMED.fullmatch(text) for text in (a, b)]
    same_name = all(named) and named[0]["name"] == named[1]["name"]
    if same_name or (any(named) and not ("=" in a and "=" in b)):  # "x = 5" is the answer 5
        return _same(*(m["value"].strip() if m else text for m, text in zip(named, (a, b), strict=True)), seconds)
    number = "not numbers" if "=" in a or "=" in b else same_number(a, b)
    if number != "not numbers":
        return number
    letters = [re.sub(r"[\s,、;&]|and|和", "", text) for text in (a, b)]
    if all(re.fullmatch("(?:[A-J]|#\\d+){2,10}", text) for text in letters) and set(letters) & {a, b}:
        return letters[0] == letters[1] or (None if sorted(letters[0]) == sorted(letters[1]) else False)
    list_a, list_b = several(a), several(b)
    if list_a and list_b and (quantity(a) is None) == (quantity(b) is None):  # 3,003 is a number, 003,3 is none
        return _same_lists(list_a, list_b, seconds or _LIST_SECONDS)
    single = [m["value"].strip() if m else text for m, text in zip(named, (a, b), strict=True)]
    for found, text in ((list_a, single[1]), (list_b, single[0])):
        if found and all(quantity(m) or math_tokens(m, evident=True) for m in found.members):
            other = quantity(text)  # "1,5" may be a decimal, 3 ± 0.1 a number
            if other or (found.free and math_tokens(text)):
                unsure = (other and _decimal(found) == other.value) or re.search(r"[^\s=] *±", f"{a}\n{b}")
                return None if unsure else False
    return _same_text(a, b, seconds)


def _decimal(found: Several):
    number = quantity(".".join(found.members)) if all(m.isdigit() for m in found.members) else None
    return number and number.value


def _same_time(a: tuple[int, bool], b: tuple[int, bool]) -> bool | None:
    """Minutes of the day; without am, pm or an hour after twelve the half of the day is open."""
    if a[0] == b[0]:
        return True if a[1] == b[1] else None
    return None if a[1] != b[1] and a[0] % 720 == b[0] % 720 else False


def _same_lists(a: Several, b: Several, seconds: float) -> bool | None:
    """Lists of members, in linear time: in order, and where the order is free by value or by words."""
    if len(a.members) != len(b.members):
        rest = max(a.members, b.members, key=len)[min(len(a.members), len(b.members)) :]
        return None if any(re.search(r"[^\W\d_]{2}", member) and not quantity(member) for member in rest) else False
    brackets = {a.brackets, b.brackets}
    # With two members, "(0, 1)" and "[0, 1]" are different intervals; otherwise brackets are only style.
    if len(a.members) == 2 and brackets <= {"()", "[]", "(]", "[)"} and len(brackets) == 2:
        return False
    if a.named and b.named:  # x = 1, y = 2 in any order
        a, b = a.by_name(), b.by_name()
    one, other = a.values(b), b.values(a)
    verdicts = _each(one, other, seconds)
    if False not in verdicts:
        style = "{}" not in brackets or brackets <= {"{}", ""}
        joined = {a.joiner, b.joiner} != {"and", "or"}
        return True if None not in verdicts and joined and style else None
    if a.named and b.named:
        return False
    if a.brackets and b.brackets and not (a.free and b.free):
        return None if "{}" in brackets and _same_members(one, other) is not False else False
    free = a.free or b.free
    permuted = _same_members(one, other)
    return permuted if permuted is False or (free and {a.joiner, b.joiner} != {"and", "or"}) else None


def _each(a: list[str], b: list[str], seconds: float) -> list[bool | None]:
    """Verdicts of members one by one; undecided when the worker has spent the seconds."""
    until, verdicts = WORKER.seconds + seconds, []
    for x, y in zip(a, b, strict=True):
        left = until - WORKER.seconds
        verdicts.append(_same(x, y, left) if left > 0 else None)
    return verdicts


def _same_members(a: list[str], b: list[str]) -> bool | None:
    """Whether the members agree in some order: numbers sorted by value, all else by its words."""
    numbers = [[quantity(m) for m in members] for members in (a, b)]
    if all(all(side) for side in numbers):
        order = [sorted(range(len(side)), key=lambda i, side=side: (side[i].value, side[i].unit)) for side in numbers]
        verdicts = [same_number(a[i], b[j]) for i, j in zip(*order, strict=True)]
        return False if False in verdicts else None if None in verdicts else True
    keys = [Counter(answer_key(m) for m in members) for members in (a, b)]
    if keys[0] == keys[1]:
        return True
    plain = all(quantity(m) or re.fullmatch(r"[\w\s]+", m) for m in (*a, *b))
    left = [list((one - other).elements()) for one, other in (keys, keys[::-1])]
    if len(left[0]) == 1:
        return _same(left[0][0], left[1][0], _LIST_SECONDS)
    return False if plain else None


def _same_text(a: str, b: str, seconds: float) -> bool | None:
    """Texts that are neither quantities nor lists: words, then formulas, and what no reader understands."""
    own, other = words(a, fold=False), words(b, fold=False)
    tokens_a, tokens_b = math_tokens(a), math_tokens(b)
    if tokens_a or tokens_b:  # ab is mathematics beside a*b
        tokens_a, tokens_b = tokens_a or math_tokens(a, evident=True), tokens_b or math_tokens(b, evident=True)
    equal = _same_formula(a, b, tokens_a, tokens_b, seconds) if tokens_a and tokens_b else None
    if equal or own.casefold() == other.casefold():
        return equal or None
    if tokens_a and tokens_b:
        return equal
    if own.replace("~", "") == other.replace("~", ""):
        return None  # a negation, or a blank of LaTeX
    if any({own.casefold(), other.casefold()} <= phrase for phrase in _PHRASES):
        return True
    if _is_spaced(a) and _is_spaced(b) and "".join(a.split()) == "".join(b.split()):
        return True
    if _RELATION.search(a) and _RELATION.search(b):
        return _same_relation(a, b, seconds)
    numbers = [quantity(text) is not None for text in (a, b)]
    if numbers[0] != numbers[1] and not HAS_NUMBER.search(b if numbers[0] else a):
        return False
    if is_cjk_text(a) != is_cjk_text(b) and re.search(r"[A-Za-z]{2}", b if is_cjk_text(a) else a):
        return None  # two languages
    if min(len(re.findall(r"[\u3400-\u9fff]{2}|[a-zA-Z]+", t)) for t in (a, b)) > _PROSE_WORDS:
        return None
    if any(re.search(r"[\\^_=<>≤≥≠∪∩∈{}|/*+]|(?<=\d)-", text) for text in (a, b)):
        plain = [re.fullmatch(r"[^\W\d_]+(?:[\s-][^\W\d_]+)*", text) for text in (a, b)]
        return False if any(plain) and (tokens_a or tokens_b) else None
    bags = [sorted(text.casefold().split()) for text in (own, other)]
    if bags[0] == bags[1]:
        relates = (len(bags[0]) > 1 and FUNCTION_WORDS - {"then"} & set(bags[0])) or re.search(r"\d", own)
        return False if relates else None
    short, long = sorted((own.casefold(), other.casefold()), key=len)
    if (len(short) >= 2 or any(numbers) or re.fullmatch("[A-J]", min(own, other, key=len))) and re.search(
        rf"(?<![A-Za-z\d.]){re.escape(short)}(?![A-Za-z\d]|\.\d)" if short.isascii() else re.escape(short), long
    ):
        return None  # one says more: Paris, and Paris in France
    return None if len(a) == len(b) == 2 and a.isalpha() and a.islower() and sorted(own) == sorted(other) else False


def _is_spaced(text: str) -> bool:
    """Whether blanks are only layout: no words and no digits are next to each other."""
    return not re.search(r"[A-Za-z]{2,}\s+[A-Za-z]{2}|\d\s+\d|[\u3400-\u9fff]", text)


def _same_formula(a: str, b: str, tokens_a: list[str], tokens_b: list[str], seconds: float) -> bool | None:
    equal = WORKER.equal(tokens_a, tokens_b, decimal_places(a, b), seconds)
    if equal:  # 3-5 is a range or -2
        called = [re.findall(r"[fgFG](?=\()", text) for text in (a, b)]  # f(g(x)) is no product
        return None if _RANGE.fullmatch(a) or _RANGE.fullmatch(b) or called[0] != called[1] else True
    logs = [any(t == "log" and n != "_" for t, n in zip(ts, (*ts[1:], ""), strict=True)) for ts in (tokens_a, tokens_b)]
    if equal is False and (
        logs[0] != logs[1] or (_letters(a) == _letters(b) and (has_names(tokens_a) or has_names(tokens_b)))
    ):
        return None
    return equal


def _letters(text: str) -> list[str]:
    return sorted(c for c in text if c.isalnum())


def _same_relation(a: str, b: str, seconds: float) -> bool | None:
    """Inequalities: the same sides and signs, read in either direction. Different only by a number or a letter."""
    (sides_a, signs_a), (sides_b, signs_b) = (
        ([side.strip() for side in parts[::2]], parts[1::2])
        for parts in (re.split(_RELATION, t.replace("<=", "≤").replace(">=", "≥")) for t in (a, b))
    )
    if len(sides_a) != len(sides_b) or not all(sides_a + sides_b) or len(sides_a) > 6:
        return None
    found = []
    turned = [s.translate(_TURNED) for s in reversed(signs_b)]
    for sides, signs in ((sides_b, signs_b), (sides_b[::-1], turned)):
        verdicts = _each(sides_a, sides, seconds or _LIST_SECONDS)
        unlike = [p for p, v in zip(zip(sides_a, sides, strict=True), verdicts, strict=True) if v is False]
        simple = all(quantity(side) or re.fullmatch(r"[^\W\d_]", side) for pair in unlike for side in pair)
        agree = True if all(verdicts) else False if unlike and simple else None
        found.append(signs_a == signs if agree else agree)
    return True if True in found else None if None in found else False
