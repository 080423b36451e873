"""Are two answers the same answer?

Used wherever a row needs a check: refinement (does the second teacher agree?), voting over samples, conflicts between
rows, and consistency of multiple choice. Text is compared here, numbers in `quantities`, algebra in `algebra`. (Our
reading: neither paper describes its checker.)
"""

import re
from collections.abc import Mapping, Sequence

from qatoolkit.answers.algebra import WORKER, math_tokens
from qatoolkit.answers.quantities import decimal_places, quantity, same_number
from qatoolkit.core.text import missing, nfkc

_PROSE_WORDS = 12  # longer texts may agree in other words: undecided

_YES = {"yes", "true", "correct", "是", "是的", "对", "正确", "√", "✓"}
_NO = {"no", "false", "incorrect", "wrong", "否", "不是", "错", "错误", "不对", "不正确", "×", "✗"}
_PLAIN = str.maketrans("−–⁄’", "--/'")
_ARTICLE = re.compile(r"\b(?:a|an|the)\b(?=\s+\w)")
# Punctuation that never changes an answer: no decimal point, factorial, prime or minus sign.
_SOFT_PUNCTUATION = re.compile(
    r"[;:?\"`。，；：！？、“”‘《》「」]|[.,](?!\d)|(?<=[^\W\d_]{2})!|(?<!\w)'|(?<=[^\W\d_])-(?=[^\W\d_])"
)
_NAMED = re.compile(r"(?:(?P<name>[A-Za-zα-ω](?:_\{?\w+\}?)?(?:\([^()=]*\))?)\s*[=≈]|≈)\s*(?P<value>[^=≈<>]+)")
_WORD_OR_RANGE = re.compile(r"[A-Za-z]{2,3}|\d*(?:[A-Z][a-z]?\d*)+|\d+(?:\s*-\s*\d+)+")
_BRACKETS = re.compile(r"[()\[\]{}]")  # only style in words, but not next to digits: [0, 1) or 2(x+1)
_DECORATION = re.compile(
    r"(?<!\\)\\[()\[\]]|\\(?:left|right|displaystyle|quad|qquad|boldsymbol|[,;!: ])|\*\*|~|(?<!\\)\$"
)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})+)\}")
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mathbf|operatorname|mbox)\s*\{([^{}]*)\}")


def same_answer(a, b, *, aliases=()) -> bool | None:
    """Whether two final answers mean the same; None if that can't be decided here.

    Tolerates letter case, articles, punctuation, a unit on one side only, thousands separators, fractions, percent,
    scientific and LaTeX notation, Chinese numerals, decimals rounded to three digits or more, and equations times a
    constant. Undecided are an empty answer, two different texts of a sentence or more, quantities in different units
    (m, m/s), letter case that may be the difference (Co, CO), words, formulas and ranges that are equal only when read
    as algebra (AUG, GUA), and algebra that the worker did not decide in time.

    Raises RuntimeError if the sympy worker does not start."""
    if aliases:
        found = {same_answer(a, form) for form in (b, *aliases)}
        return True if True in found else None if None in found else False
    a, b = _clean(a), _clean(b)
    return _same_text(a, b) if a and b else None


def answer_key(text) -> str:
    """A canonical form: equal keys mean the same answer, unequal keys prove nothing. Empty if the answer is missing.

    Cheap and without sympy, for grouping large tables."""
    text = _clean(text)
    boolean = _boolean(text)
    if boolean is not None:
        return "yes" if boolean else "no"
    found = quantity(text)
    if found is not None and not found.units:
        return f"{found.value}{' %' if found.percent else ''}"
    return _words(text, fold=not _case_coded(text))


def consensus(answers: Sequence) -> tuple[str | None, float]:
    """The most frequent answer and its share of all samples, empty ones included; (None, share) for a tie.

    Votes are grouped by `same_answer`; the first form seen is returned."""
    groups: list[list[str]] = []
    for answer in answers:
        if not _clean(answer):
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
        return None  # another rule rejects empty answers
    chosen = _chosen(answer, options)
    if chosen == "ambiguous":
        return None
    if chosen is None:
        return f"answer {answer[:60]!r} is not among the choices"
    if index is not None and int(index) not in chosen:
        return f"answer {answer[:60]!r} is not choice {int(index)} ({options[int(index)][:60]!r})"
    return None


def _clean(text) -> str:
    """NFKC without LaTeX decoration and outer space, in the same letter case."""
    if missing(text):
        return ""
    text = nfkc(str(text)).translate(_PLAIN).replace("{,}", ",").replace("+∞", "∞")
    text = text.replace("\\%", "%").replace("\\$", " $ ") if "\\" in text else text
    currency = re.fullmatch(r"\s*\$\s*[\d.,]+\s*", text)  # "$18" is money, "$x$" is LaTeX
    if not currency:
        text = _DECORATION.sub(lambda m: " " if m[0] != "$" else "", _TEXT_COMMAND.sub(r" \1 ", text))
    text = text.strip().rstrip("。.;；,，").strip()
    boxed = _BOXED.fullmatch(text)
    return boxed[1].strip() if boxed else text


def _words(text: str, *, fold: bool = True) -> str:
    text = text.casefold() if fold else text
    text = text if re.search(r"\d", text) else _BRACKETS.sub(" ", text)
    return " ".join(_ARTICLE.sub(" ", _SOFT_PUNCTUATION.sub(" ", text)).split())


def _case_coded(text: str) -> bool:
    """Whether letter case matters: Co or CO, Aa or aa, NaCl, AaBb."""
    letters = [c for c in text if c.isalpha()]
    if " " in text or not letters or not text.isascii():
        return False
    return len(letters) <= 2 or not (text.isupper() or text.islower() or text[1:].islower())


def _boolean(text: str) -> bool | None:
    word = _words(text)
    return True if word in _YES else False if word in _NO else None


def _chosen(answer: str, options: list[str]) -> set[int] | str | None:
    """Indices of the options that are meant; "ambiguous" if the letter is also the text of another option."""
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
        by_text = {i for i, option in enumerate(options) if same_number(answer, option) is True}
    return by_text or by_letter or None


def _same_text(a: str, b: str) -> bool | None:
    if a == b:
        return True
    yes_a, yes_b = _boolean(a), _boolean(b)
    if yes_a is not None and yes_b is not None:
        return yes_a == yes_b
    equations = "=" in a and "=" in b
    named = [_NAMED.fullmatch(text) for text in (a, b)]
    same_name = all(named) and named[0]["name"] == named[1]["name"]
    if same_name or (any(named) and not equations):  # "x = 5" is the answer 5
        return _same_text(*(m["value"] if m else text for m, text in zip(named, (a, b), strict=True)))
    number = "not numbers" if equations else same_number(a, b)
    if number != "not numbers":
        return number
    parts_a, parts_b = _parts(a), _parts(b)
    if parts_a and parts_b:
        return _same_parts(parts_a, parts_b)
    if _words(a) == _words(b):
        return None if _words(a, fold=False) != _words(b, fold=False) and (_case_coded(a) or _case_coded(b)) else True
    tokens_a, tokens_b = math_tokens(a), math_tokens(b)
    if tokens_a and tokens_b:
        equal = WORKER.equal(tokens_a, tokens_b, decimal_places(a, b))
        return None if equal and not _is_algebra(a, b) else equal
    if min(len(re.findall(r"[\u3400-\u9fff]{2}|[a-zA-Z]+", t)) for t in (a, b)) > _PROSE_WORDS:
        return None
    return False


def _is_algebra(a: str, b: str) -> bool:
    """Whether two texts that are equal as algebra are meant as algebra: not AUG and GUA, CO2 and 2CO, 3-5 and -2."""
    return not any(_WORD_OR_RANGE.fullmatch(text) for text in (a, b))


def _parts(text: str) -> tuple[str, list[str]] | None:
    """Brackets and members of "(1, 2)", "[1, 2)", "{1, 2}" or "1, 2"; None if it is not a list."""
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
    # With two members, "(0, 1)" and "[0, 1]" are different intervals; otherwise brackets are only style.
    if len(members_a) == 2 and {brackets_a, brackets_b} <= {"()", "[]", "(]", "[)"} and brackets_a != brackets_b:
        return False
    if {brackets_a, brackets_b} <= {"", "{}"}:
        rest = list(members_b)
        for member in members_a:
            match = next((r for r in rest if _same_text(member, r)), None)
            if match is None:
                return False
            rest.remove(match)
        return True
    if len(members_a) == 2 and "{}" in (brackets_a, brackets_b) and {brackets_a, brackets_b} != {"{}"}:
        return None  # a set, or an interval
    verdicts = [_same_text(x, y) for x, y in zip(members_a, members_b, strict=True)]
    return False if False in verdicts else None if None in verdicts else True
