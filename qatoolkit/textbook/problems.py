"""Formula problems of the textbook: the list of families, their split, writing and reading.

A stable hash assigns each parameter set to training or to the exams, regardless of the wording. Reading inverts
writing: a question without its numbers is looked up among the templates without their slots.
"""

import hashlib
import re
import unicodedata
from fractions import Fraction
from functools import lru_cache
from itertools import product

from qatoolkit.textbook import families_applied, families_science
from qatoolkit.textbook.family import Family

_NUMBER = re.compile(r"[0-9]+")
_SLOT_OR_NUMBER = re.compile(r"\{(\w+)\}|([0-9]+)")
_LONGEST = 1000  # characters; all questions are far shorter, so longer texts are not read

FAMILIES: dict[str, Family] = {one.name: one for one in (*families_science.FAMILIES, *families_applied.FAMILIES)}


def split(name: str, params: dict[str, int]) -> str:
    """ "exam" for about one parameter set in four, else "train"; the order of `params` does not matter."""
    key = f"{name}|{sorted(params.items())}"
    return "exam" if hashlib.sha256(key.encode()).digest()[0] < 64 else "train"


@lru_cache
def _grid(name: str) -> dict[str, tuple[dict[str, int], ...]]:
    family = FAMILIES[name]
    points = (dict(zip(family.parameters, values, strict=True)) for values in product(*family.parameters.values()))
    points = [p for p in points if family.allows(p)]
    return {wanted: tuple(p for p in points if split(name, p) == wanted) for wanted in ("train", "exam")}


def parameter_sets(name: str, split: str) -> list[dict[str, int]]:
    """Every parameter set of a family in one split ("train" or "exam"), in the order of the grid."""
    return [dict(p) for p in _grid(name)[split]]


def variants(name: str, language: str, split: str) -> int:
    """The number of wordings of a family in a language and split."""
    return len(FAMILIES[name].wordings(language, split))


def render(name: str, params: dict[str, int], language: str, variant: int, split: str) -> str:
    """The question in words; `variant` counts modulo the number of wordings."""
    wordings = FAMILIES[name].wordings(language, split)
    return wordings[variant % len(wordings)].format(**params)


def solution(name: str, params: dict[str, int], language: str) -> str:
    """The worked solution in one line that ends in the answer."""
    family = FAMILIES[name]
    return family.solution(language).format(**params, answer=answer_text(family.answer(**params), language))


def answer_text(value: int | Fraction, language: str) -> str:
    """The canonical text of a value, "12" or "3/4": the same digits in every `language`."""
    return str(Fraction(value))


# --- reading ------------------------------------------------------------------------------------------


def _skeleton(text: str, cut: re.Pattern) -> str:
    """`text` without white space and case, with "#" for every match of `cut`."""
    return "".join(cut.sub("#", text).split()).casefold()


def _plain(text: str) -> str:
    """NFKC: one form for look-alike characters such as full-width digits and superscripts."""
    return unicodedata.normalize("NFKC", text)


@lru_cache(maxsize=1)
def _forms() -> dict[str, tuple[str, str, str, tuple[str, ...]]]:
    """By skeleton: family, language, split, and the role of each number (a parameter, or itself if fixed)."""
    forms = {}
    for name, family in FAMILIES.items():
        for language, wanted in product(("en", "zh"), ("train", "exam")):
            for template in map(_plain, family.wordings(language, wanted)):
                skeleton = _skeleton(template, _SLOT_OR_NUMBER)
                if skeleton in forms:
                    raise ValueError(f"families {forms[skeleton][0]!r} and {name!r} share the wording {template!r}")
                roles = tuple(m[1] or m[2] for m in _SLOT_OR_NUMBER.finditer(template))
                forms[skeleton] = (name, language, wanted, roles)
    return forms


def read(text: str) -> tuple[str, dict[str, int], str, str] | None:
    """The family, parameters, language and split of a rendered question; None for any other text.

    White space, case and character width are ignored; numbers outside the family's grid give None."""
    if len(text) > _LONGEST or not (text := _plain(text)) or not _NUMBER.search(text):
        return None
    form = _forms().get(_skeleton(text, _NUMBER))
    if form is None:
        return None
    name, language, wanted, roles = form
    numbers, family = _NUMBER.findall(text), FAMILIES[name]
    if len(numbers) != len(roles):  # the text itself contains "#"
        return None
    params = {role: int(n) for role, n in zip(roles, numbers, strict=True) if role in family.parameters}
    if numbers != [str(params.get(role, role)) for role in roles] or not family.allows(params):
        return None
    return name, {p: params[p] for p in family.parameters}, language, wanted
