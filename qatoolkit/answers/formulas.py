"""Formulas in answers: compared by the worker of `algebra`, with rules for ambiguous notation."""

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
_ISOTOPE = re.compile(r"([A-Z][a-z]?|[A-Za-z][a-z]{2,})-(\d{1,3})|(\d{1,3})([A-Z][a-z]?)")
_MASSES = ("10", "11", "18", "19", "39", "40", "41")  # of boron, fluorine and potassium: B-12, F-16 and K-9 are codes
_SHELL = re.compile(r"[1-7][spdf]\d{1,2}(?![spdf])")
_ORBITALS = re.compile(r"(?:\[[A-Z][a-z]\]\s*)?(?:[1-7][spdf]\^?\{?\d{1,2}\}?\s*)+|d?sp(?:\^?\{?\d\}?d?)*")


def same_formula(a: str, b: str, tokens_a: list[str], tokens_b: list[str], seconds: float) -> bool | None:
    """Whether formulas are equal; None also if they may differ only in letter case, a base or the order of letters."""
    equal = WORKER.equal(tokens_a, tokens_b, decimal_places(a, b), seconds)
    logs = [any(t == "log" and n != "_" for t, n in zip(ts, (*ts[1:], ""), strict=True)) for ts in (tokens_a, tokens_b)]
    if equal:  # 3-5 is a range or -2
        functions = [re.findall(r"[fgFG](?=\()", text) for text in (a, b)]  # f(g(x)) is not a product
        ambiguous = _RANGE.fullmatch(a) or _RANGE.fullmatch(b) or functions[0] != functions[1] or logs[0] != logs[1]
        return None if ambiguous else True
    atoms = composition(a), composition(b)
    if all(atoms) and equal is not True:
        return None if atoms[0] == atoms[1] else False
    plain = [re.sub(r"\\(?:vec|bar|hat)|\((?:aq|s|l|g)\)|[{}\s]", "", text) for text in (a, b)]
    if equal is False and (
        logs[0] != logs[1]
        or (_letters(a) == _letters(b) and (has_names(tokens_a) or has_names(tokens_b)))
        or plain[0].casefold() == plain[1].casefold()
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


def is_reaction(text: str) -> bool:
    """Whether a text with one "=" is a chemical reaction, which has a direction: 2H2 + O2 = 2H2O."""
    sides = [re.sub(r"^\d+", "", part.strip()) for part in re.split(r"[+=]", re.sub(r"\((?:aq|s|l|g)\)", "", text))]
    elements = set(re.findall("[A-Z][a-z]?", text))
    formulas = (re.fullmatch(r"(?:[A-Z][a-z]?\d*|\(|\)\d*)+", side) for side in sides)
    balanced = "+" in text or re.search(r"(?:^|=)\s*\d", text)  # P1V1 = P2V2 and V = V1 + V2 are physics
    return bool(
        text.count("=") == 1
        and balanced
        and 1 < len(elements & _ELEMENTS) == len(elements)
        and any(map(composition, sides))
        and all(formulas)
    )


def is_symbol(text: str) -> bool:
    """Whether a text is the formula of a compound, an element or a Greek letter, which also has a name."""
    plain = re.sub(r"[+-]$", "", text)
    parts = re.findall(r"[A-Z][a-z]?|[()\d]", plain)
    elements = {part for part in parts if part.isalpha()}
    compound = "".join(parts) == plain and set() < elements <= _ELEMENTS
    named = compound and (len(plain) < 2 or re.search(r"[a-z\d]", plain))
    return bool(named or re.fullmatch("[α-ωΑ-ΩΩ]", plain))


def _letters(text: str) -> list[str]:
    return sorted(c for c in text if c.isalnum())


def read_measured(text: str) -> tuple[str, tuple[Unit, ...]] | None:
    """A closed form and its units: "36π cm^2", "5\\sqrt{3} cm"; None for any other text."""
    found = _MEASURED.fullmatch(text) if len(text) <= 80 and not quantity(text) else None
    known = units(found["unit"].strip()) if found else ()
    if not known or _UNKNOWN.search(re.sub(r"\\[a-z]+", "", found["value"])) or not math_tokens(found["value"]):
        return None
    return found["value"].strip(), known


def read_orbitals(text: str) -> str | None:
    """An electron configuration or hybridisation in normal form: 1s^2 2s^2, sp^3; None for any other text."""
    if not _ORBITALS.fullmatch(text):
        return None
    plain = re.sub(r"[\^{}\s]", "", text)
    shells = _SHELL.findall(plain)
    return " ".join([_SHELL.sub("", plain), *sorted(shells)])


def same_isotope(a: str, b: str) -> bool | None:
    """Whether two isotopes are the same: carbon-14, C-14, 14C; None if one is a symbol and the other a name; False if
    either text is no isotope."""
    found = [_ISOTOPE.fullmatch(re.sub(r"[\^{}\s]", "", text)) for text in (a, b)]
    if not all(found):
        return False
    (name_a, mass_a), (name_b, mass_b) = ((m[1] or m[4], m[2] or m[3]) for m in found)
    if any(len(name) < 3 and name not in _ELEMENTS for name in (name_a, name_b)):
        return False
    if bool(found[0][1]) != bool(found[1][1]) and {name_a, name_b} & {"B", "F", "K"} and mass_a not in _MASSES:
        return None
    if mass_a != mass_b or name_a.casefold() == name_b.casefold():
        return mass_a == mass_b
    return None if (len(name_a) < 3) != (len(name_b) < 3) else False


def same_measured(a: str, b: str, form_a, form_b, same: Callable[[str, str], bool | None]) -> bool | None:
    """Compare closed forms with units: 36π cm^2 and 36π, 4π m and 12.57 m, π/2 rad and 90°."""
    forms = [(form or (text, ())) for form, text in ((form_a, a), (form_b, b))]
    if not (form_a and form_b) and (number := quantity(b if form_a else a)) and number.unit:
        value, unit = re.match(r"\s*([-+\d.,/]*)(.*)", b if form_a else a).groups()
        forms = [forms[0], (value, units(unit))] if form_a else [(value, units(unit)), forms[1]]
    (x, units_x), (y, units_y) = forms
    if units_x and units_y and set(units_x) != set(units_y):
        degrees, radians = units("°"), units("rad")
        if {units_x, units_y} != {degrees, radians}:
            return None
        x, y = (f"({v})°" if u == degrees else v for v, u in forms)
    verdict = same(x, y)
    last_word = (a if form_a else b).split()[-1] if not (units_x and units_y) else ""
    return None if verdict and len(last_word) == 1 and last_word.isalpha() else verdict  # √2 g
