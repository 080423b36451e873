"""Are two answers the same?

Used wherever a row is checked: refinement (does the second teacher agree?), voting over samples, conflicts between
rows, and consistency of multiple choice. `readers` decides by kind of answer, built on `notation` (spelling and words),
`lists`, `quantities` with `units`, `ranges`, `times`, `formulas` and `algebra`. (Our reading: neither paper describes
its checker.)
"""

import re
from collections.abc import Mapping, Sequence

from qatoolkit.answers.notation import LONGEST_NOTATION, clean, labelled, words
from qatoolkit.answers.quantities import same_number
from qatoolkit.answers.readers import same
from qatoolkit.core.text import is_missing


def same_answer(a, b, *, aliases: Sequence = ()) -> bool | None:
    """Whether two final answers mean the same: True, False (different), or None (undecided).

    Tolerates announcements ("The answer is 5"), letter case, articles, punctuation, a unit on one side only, equivalent
    units, thousands separators, fractions, percent, scientific and LaTeX notation, numerals in words (English,
    Chinese), decimals rounded to three digits or more, equations times a constant, and the order of items joined by
    and, or, 、 or set brackets. Undecided are empty answers, two different texts of a sentence or more, one number with
    different units (m, m/s), differences in letter case, order or inflection that may matter (Co, CO; "1, 2", "2, 1";
    proton, protons), answers that point to the choices ("both"), and anything that no reader understands or the worker
    does not decide in time.

    `aliases` are other correct forms of b: True if a is the same as any of them, False if it differs from all.

    Raises RuntimeError if the sympy worker does not start. The rules are our own; units come from pint, Chinese
    numerals from cn2an, algebra from sympy.

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
        verdict = _compare(clean(a), clean(form))
        if verdict:
            return True
        verdicts.append(verdict)
    return None if None in verdicts else False


def consensus(answers: Sequence) -> tuple[str | None, float]:
    """The most frequent answer and its share of all samples, including empty ones; (None, share) for a tie.

    Samples are grouped by `same_answer`; the first form seen is returned."""
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
    groups.sort(key=len, reverse=True)  # stable: on equal counts, the first seen stays first
    tied = len(groups) > 1 and len(groups[0]) == len(groups[1])
    return None if tied else groups[0][0], len(groups[0]) / len(answers)


def choice_consistent(row: Mapping) -> str | None:
    """How choices, `answer_index` and `answer` of a QA row contradict each other; None if they are consistent.

    `answer` is the text of an option or its letter (several letters for multi-select, with `answer_index` null)."""
    choices, index, answer = row.get("choices"), row.get("answer_index"), row.get("answer")
    index = None if is_missing(index) else index
    if is_missing(choices):
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
    chosen = _find_chosen(answer, options)
    if chosen == "ambiguous":
        return None
    if chosen is None:
        return f"answer {answer[:60]!r} is not among the choices"
    if index is not None and int(index) not in chosen:
        return f"answer {answer[:60]!r} is not choice {int(index)} ({options[int(index)][:60]!r})"
    return None


def _find_chosen(answer: str, options: list[str]) -> set[int] | str | None:
    """Indices of the options that the answer names; "ambiguous" if its letter is also the text of another option."""
    answer_words = words(answer, fold=False)
    by_text = {i for i, option in enumerate(options) if words(option, fold=False) == answer_words}
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


def _compare(a: str, b: str) -> bool | None:
    """`same_answer` for clean texts; a label ("C. Paris") counts if the other side has one or is one."""
    if not a or not b:
        return None
    if max(len(a), len(b)) > LONGEST_NOTATION:  # too long to be notation or a short answer
        return True if a == b or (words(a, fold=False) or a) == (words(b, fold=False) or b) else None
    label_a, label_b = labelled(a), labelled(b)
    if a == b or not (label_a or label_b):
        return same(a, b)
    if label_a and label_b:
        if label_a[0] == label_b[0]:
            return same(label_a[1], label_b[1])
        return None if same(label_a[1], label_b[1]) is not False else False
    (letter, text, certain), bare = (label_a, b) if label_a else (label_b, a)
    if re.fullmatch(r"[(\[]?[A-J][)\].]?", bare):
        return (certain or None) if bare.strip("()[].") == letter else False if certain else None
    return same(text, bare)
