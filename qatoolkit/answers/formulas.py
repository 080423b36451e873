"""Formulas in answers: compared by the worker of `algebra`, with what a formula alone leaves open."""

import re
from collections.abc import Callable

from qatoolkit.answers.algebra import WORKER, has_names, math_tokens
from qatoolkit.answers.quantities import decimal_places, quantity
from qatoolkit.answers.units import Unit, units

_RANGE = re.compile(r"\d+(?:\s*-\s*\d+)+")
_MEASURED = re.compile(
    r"(?P<value>.*(?:π|√|\\sqrt|\\frac)(?:.*?[\dπ)}])?)(?P<unit>\s+[^\W\d_].{0,20}|[a-zΩ°][A-Za-z²³Ω].{0,20}|°)"
)
_UNKNOWN = re.compile(r"(?<![A-Za-z\\])(?!pi\b|sqrt|frac)[A-Za-z]")
_SYMBOLS = """H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr
Nb Mo Ag Cd Sn Sb Te I Xe Cs Ba La Ce W Pt Au Hg Pb Bi U"""
_ELEMENTS = frozenset(_SYMBOLS.split())
_ORBITALS = re.compile(r"(?:\[[A-Z][a-z]\]\s*)?(?:[1-7][spdf]\^?\{?\d{1,2}\}?\s*)+|d?sp(?:\^?\{?\d\}?d?)*")


def same_formula(a: str, b: str, tokens_a: list[str], tokens_b: list[str], seconds: float) -> bool | None:
    """Whether formulas are equal; None too where letter case, a base or the order of letters may be the difference."""
    equal = WORKER.equal(tokens_a, tokens_b, decimal_places(a, b), seconds)
    logs = [any(t == "log" and n != "_" for t, n in zip(ts, (*ts[1:], ""), strict=True)) for ts in (tokens_a, tokens_b)]
    if equal:  # 3-5 is a range or -2
        called = [re.findall(r"[fgFG](?=\()", text) for text in (a, b)]  # f(g(x)) is no product
        open_ = _RANGE.fullmatch(a) or _RANGE.fullmatch(b) or called[0] != called[1] or logs[0] != logs[1]
        return None if open_ else True
    atoms = composition(a), composition(b)
    if all(atoms) and equal is not True:
        return None if atoms[0] == atoms[1] else False
    bare = [re.sub(r"\\(?:vec|bar|hat)|\((?:aq|s|l|g)\)|[{}\s]", "", text) for text in (a, b)]
    if equal is False and (
        logs[0] != logs[1]
        or (_letters(a) == _letters(b) and (has_names(tokens_a) or has_names(tokens_b)))
        or bare[0].casefold() == bare[1].casefold()
    ):
        return None
    return equal


def composition(text: str) -> dict[str, int] | None:
    """The atoms of a chemical formula with an index (C2H5OH); None for any other text."""
    if len(text) > 60 or not re.fullmatch(r"(?:[A-Z][a-z]?\d*|\(|\)\d*)+", text) or not re.search(r"\d", text):
        return None
    groups: list[dict[str, int]] = [{}]
    for symbol, mark, index in re.findall(r"([A-Z][a-z]?)(\d*)|([()]\d*)", text):
        if symbol and symbol not in _ELEMENTS:
            return None
        if symbol:
            groups[-1][symbol] = groups[-1].get(symbol, 0) + int(mark or 1)
        elif index == "(":
            groups.append({})
        elif len(groups) > 1:
            for name, n in groups.pop().items():
                groups[-1][name] = groups[-1].get(name, 0) + n * int(index[1:] or 1)
    return groups[0] if len(groups) == 1 else None


def _letters(text: str) -> list[str]:
    return sorted(c for c in text if c.isalnum())


def measured(text: str) -> tuple[str, tuple[Unit, ...]] | None:
    """A closed form and the units after it: "36π cm^2", "5\\sqrt{3} cm"; None for any other text."""
    found = _MEASURED.fullmatch(text) if len(text) <= 80 and not quantity(text) else None
    known = units(found["unit"].strip()) if found else ()
    if not known or _UNKNOWN.search(re.sub(r"\\[a-z]+", "", found["value"])) or not math_tokens(found["value"]):
        return None
    return found["value"].strip(), known


def orbitals(text: str) -> str | None:
    """An electron configuration or hybridisation in one spelling: 1s^2 2s^2, sp^3; None for any other text."""
    return re.sub(r"[\^{}\s]", "", text) if _ORBITALS.fullmatch(text) else None


def same_measured(a: str, b: str, one, other, same: Callable[[str, str], bool | None]) -> bool | None:
    """Closed forms with units: 36π cm^2 beside 36π, 4π m beside 12.57 m, π/2 rad beside 90°."""
    bare = [(form or (text, ())) for form, text in ((one, a), (other, b))]
    if not (one and other) and (number := quantity(b if one else a)) and number.unit:
        value, unit = re.match(r"\s*([-+\d.,/]*)(.*)", b if one else a).groups()
        bare = [bare[0], (value, units(unit))] if one else [(value, units(unit)), bare[1]]
    (x, units_x), (y, units_y) = bare
    if units_x and units_y and set(units_x) != set(units_y):
        degrees, radians = units("°"), units("rad")
        if {units_x, units_y} != {degrees, radians}:
            return None
        x, y = (f"({v})°" if u == degrees else v for v, u in bare)
    verdict = same(x, y)
    alone = (a if one else b).split()[-1] if not (units_x and units_y) else ""
    return None if verdict and len(alone) == 1 and alone.isalpha() else verdict  # √2 g
