"""Answers with several members: lists, sets, intervals, ratios."""

import re
from fractions import Fraction
from typing import NamedTuple

_MOST_MEMBERS, _DEEPEST = 100, 4
_SEPARATOR = re.compile(r"[(\[{]|[)\]}]|[,;、]|\s(?:and|or|&)\s|[和或与及]|以及")
_SEMICOLON = re.compile(r"[(\[{]|[)\]}]|;")
_NAME = re.compile(r"([A-Za-zα-ω]\w{0,3})\s*=\s*([^=]+)")
_ROOT = re.compile(r"([A-Za-z])_?\{?\d\}?")
_IN_ORDER = re.compile(r"^([\u4e00-\u9fff]{0,8})(?:分别|依次)(?:等于|[是为])?\s*:?\s*|,?\s+respectively$")
_RATIO_WORDS = re.compile(
    r"(?:in\s+)?(?:(?:the|a)\s+)?ratio\s+(?:(?:is|of)\s+)?(?=\d)|\s+(?:is\s+)?to\s+(?=\d)", re.IGNORECASE
)
_A_TO_B = re.compile(r"(\d+(?:\.\d+)?) to (\d+(?:\.\d+)?)")
_RATIO = re.compile(r"\d+(?:\.\d+)?(?:\s*[:比]\s*\d+(?:\.\d+)?){1,7}")


class Several(NamedTuple):
    """The members of a list, the brackets around it ("" for none), the joiner ("and", "or", "、" or ",") and what is
    before 分别."""

    members: list[str]
    brackets: str
    joiner: str
    subject: str = ""

    @property
    def free(self) -> bool:
        """Whether the order does not matter."""
        return self.brackets == "{}" or (not self.brackets and self.joiner != ",")

    @property
    def names(self) -> list[str]:
        """The names in "x = 1, y = 2"; empty if any member has none."""
        found = [_NAME.fullmatch(member) for member in self.members]
        return [m[1] for m in found] if all(found) else []

    @property
    def named(self) -> bool:
        return len(set(self.names)) == len(self.members)

    @property
    def coordinates(self) -> bool:
        """Whether the names are different letters, as in x = 1, y = 2, not x1 = 1, x2 = 2."""
        return self.named and len({_ROOT.sub(r"\1", name) for name in self.names}) == len(self.members)

    def are_roots(self, other: "Several") -> bool:
        """Whether one list numbers its names (x1 = 1, x2 = 2) and the other does not (x = 1 or x = 2)."""
        bare = [{_ROOT.sub(r"\1", name) for name in found.names} for found in (self, other)]
        return len(bare[0]) == 1 and bare[0] == bare[1] and set(self.names) != set(other.names)

    def by_name(self) -> "Several":
        return self._replace(members=sorted(self.members))

    def values(self, other: "Several") -> list[str]:
        """The members; without names if they all have the same one ("x = 1 or x = 2") or the other list has none."""
        names = [_ROOT.sub(r"\1", name) for name in self.names] if self.are_roots(other) else self.names
        if names and (
            not other.names or (len(set(names)) == 1 and (set(names) == set(other.names) or self.are_roots(other)))
        ):
            return [_NAME.fullmatch(member)[2].strip() for member in self.members]
        return self.members


def read_list(text: str) -> Several | None:
    """The members of "(1, 2)", "{1, 2}", "1, 2 and 3", "x = 1 or x = 2", "1、2" or "±5"; None if it is not a list."""
    if len(text) > 1 and text.count("±") == 1 and len(text) <= 60:
        return Several([text.replace("±", "+").lstrip("+ "), text.replace("±", "-")], "", "、")
    brackets, inner = "", text
    subject = ""
    if in_order := _IN_ORDER.search(text):
        subject, brackets = in_order[1] or "", "()"
        text = inner = _IN_ORDER.sub("", text)
    if len(text) > 1 and text[0] in "([{" and text[-1] in ")]}" and _closes_last(text):
        brackets, inner = text[0] + text[-1], text[1:-1]
    grouped = re.search(r"\d,\d{3}(?!\d)", inner) and re.search(r",\s", inner)  # 1,200, 1,300
    members, joiners, depth, start = [], [], 0, 0
    separators = _SEMICOLON if ";" in inner else _SEPARATOR
    inner = re.sub(r"^(?:either|both)\s+", "", inner)
    for found in separators.finditer(inner):
        mark = found[0].strip()
        if mark in "([{":
            depth += 1
        elif mark in ")]}":
            depth -= 1
        elif depth == 0 and not (grouped and mark == "," and re.match(r"\d{3}(?!\d)", inner[found.end() :])):
            member = inner[start : found.start()].strip()
            if member or not members:  # ", and" is one separator
                members.append(member)
            joiners.append(
                {"和": "and", "与": "and", "及": "and", "以及": "and", "&": "and", "或": "or", ";": ","}.get(mark, mark)
            )
            start = found.end()
        if not 0 <= depth <= _DEEPEST or len(members) > _MOST_MEMBERS:
            return None
    members.append(inner[start:].strip())
    if (
        not 2 - (brackets == "{}") <= len(members) <= _MOST_MEMBERS
        or not all(members)
        or {"and", "or"} <= set(joiners)
        or depth
    ):
        return None
    if (
        "," in joiners and set(joiners[:-1]) - {","} and joiners[-2:] != [",", joiners[-1]]
    ):  # a, b and c; but not a and b, c
        return None
    if any(len(m.split()) > 6 for m in members) or any(re.match(r"(?:then|but|not)\b", m) for m in members):
        return None
    joiner = next((j for j in ("and", "or", "、") if j in joiners), ",")
    head = _NAME.fullmatch(members[0])
    if head and not any("=" in m for m in members[1:]):  # x = 1 or 2
        members = [f"{head[1]} = {member}" for member in (head[2].strip(), *members[1:])]
    return Several(members, brackets, joiner, subject)


def _closes_last(text: str) -> bool:
    """Whether the last bracket closes the first one, unlike in "(1, 2), (3, 4)"."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth <= 0:
            return i == len(text) - 1
    return False


def read_ratio(text: str) -> tuple[tuple[Fraction, ...], bool] | None:
    """The terms of "5:2", "3:6:9" or "5 to 2" divided by the first, and whether it may be a time of day."""
    found = _A_TO_B.fullmatch(text)
    if not (found and float(found[1]) <= float(found[2])):  # 2 to 3 is a range
        text = _RATIO_WORDS.sub(lambda m: ":" if m[0][0].isspace() else "", text)
    if not _RATIO.fullmatch(text) or len(text) > 40:
        return None
    terms = [Fraction(term) for term in re.findall(r"\d+(?:\.\d+)?", text)]
    if not all(terms):
        return None
    return tuple(term / terms[0] for term in terms), re.fullmatch(r"\d{1,2}:[0-5]\d(?::[0-5]\d)?", text) is not None
