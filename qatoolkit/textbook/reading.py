"""Parses questions of the textbook from their wording: the inverse of `questions.write`."""

import re
from collections import defaultdict
from functools import cached_property

from qatoolkit.textbook import problems
from qatoolkit.textbook.frames import FRAMES, TOP
from qatoolkit.textbook.knowledge import Entity, Relation, Textbook
from qatoolkit.textbook.questions import SEPARATOR, Question


class Reader:
    """Parses the wording of a question: `read(text)` returns (Question, language, split), or None for any other
    text."""

    def __init__(self, book: Textbook):
        self.book = book
        self.names, self.nouns, self.relations = {}, {}, {}
        self.wordings = []
        for language in ("en", "zh"):
            self.names[language] = {e.name(language).casefold(): e for e in book.entities.values()}
            self.nouns[language] = _group((t.noun(language).casefold(), t.id) for t in book.tables.values())
            self.relations[language] = _group((r.name(language).casefold(), r) for r in book.relations.values())
            slots = {
                "e": self.names[language],
                "noun": self.nouns[language],
                "top": {word for kind in TOP.values() for word in kind[language]},
                **dict.fromkeys(("r", "r1", "r2", "r3"), self.relations[language]),
            }
            slots = {name: _alternatives(words) for name, words in slots.items()} | {"v": ".+?", "list": ".+?"}
            for form, frames in FRAMES.items():
                for split in ("train", "exam"):
                    for frame in frames[language][split]:
                        self.wordings.append(_Wording(form, language, split, frame, slots))
        self._value_index = defaultdict(list)
        for table in book.tables.values():
            for relation in table.relations:
                for entity in table.entities:
                    for language in ("en", "zh"):
                        value = book.value(entity, relation, language)
                        if value is not None:
                            self._value_index[relation.id, language, value.casefold()].append(entity)

    def read(self, text: str) -> tuple[Question, str, str] | None:
        text = " ".join(text.split())
        problem = problems.read(text)
        if problem:
            family, params, language, split = problem
            return Question(form="problem", family=family, params=tuple(params.items())), language, split
        folded = text.casefold()
        for wording in self.wordings:
            found = wording.match(text, folded)
            question = found and self._resolve(wording.form, wording.language, found)
            if question:
                return question, wording.language, wording.split
        return None

    def _resolve(self, form: str, language: str, found: dict[str, str]) -> Question | None:
        """The question whose relations fit together: each must belong to the table reached so far."""
        found = {k: v.casefold() for k, v in found.items()}
        firsts = self.relations[language][found.get("r1") or found["r"]]
        others = ()
        if "list" in found:
            names = [name.strip() for name in found["list"].split(SEPARATOR[language].strip())]
            others = tuple(self.names[language].get(name) for name in names)
            if None in others or len(others) < 2:
                return None
        for first in firsts:
            entity = self._entity(first, language, found)
            if entity is None and form != "compare":
                continue
            anchor = others[0] if form == "compare" else entity
            if anchor.table != first.table or first.column not in anchor.values:
                continue
            if form in ("compare", "alike"):
                if any(e.table != first.table or first.column not in e.values for e in others):
                    continue
                top = TOP[first.kind][language].index(found["top"]) if form == "compare" and first.ordered else 0
                return Question(form=form, entity=entity, relations=(first,), others=others, top=top)
            rest = self._walk(form, first, entity, language, found)
            if rest is not None:
                return Question(form=form, entity=entity, relations=(first, *rest))
        return None

    def _entity(self, first: Relation, language: str, found: dict[str, str]) -> Entity | None:
        if "e" in found:
            return self.names[language][found["e"]]
        holders = self._value_index.get((first.id, language, found.get("v", "")), [])
        if len(holders) == 1 and first.table in self.nouns[language].get(found["noun"], ()):
            return holders[0]
        return None

    def _walk(self, form: str, first: Relation, entity: Entity, language: str, found: dict) -> tuple | None:
        """The relations after the first, each from the table that the previous one refers to; None if they don't
        fit."""
        steps, current = [], entity
        if form == "follow":
            current = self.book.entities.get(entity.values[first.column]) if first.target else None
        for name in [found[k] for k in ("r2", "r3") if k in found]:
            fits = current and [
                r for r in self.relations[language][name] if r.table == current.table and r.column in current.values
            ]
            if not fits:
                return None
            steps.append(fits[0])
            current = self.book.entities.get(current.values[fits[0].column]) if fits[0].target else None
        return tuple(steps)


def _group(pairs) -> dict[str, list]:
    groups = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return dict(groups)


def _alternatives(words) -> str:
    return "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))


class _Wording:
    """One frame to match texts against. Patterns contain every name of the textbook and are slow to compile, so a
    pattern is compiled only when a text has all fixed parts of its frame."""

    def __init__(self, form: str, language: str, split: str, frame: str, slots: dict[str, str]):
        self.form, self.language, self.split, self._slots = form, language, split, slots
        self._pieces = re.split(r"\{(\w+)\}", frame)
        self._fixed = [piece.casefold() for piece in self._pieces[::2]]

    def match(self, text: str, folded: str) -> dict[str, str] | None:
        """The contents of the frame's slots in `text`, or None; `folded` is `text` with its case folded."""
        if not all(piece in folded for piece in self._fixed):
            return None
        found = self._pattern.fullmatch(text)
        return found and found.groupdict()

    @cached_property
    def _pattern(self) -> re.Pattern:
        named = (re.escape(p) if i % 2 == 0 else f"(?P<{p}>{self._slots[p]})" for i, p in enumerate(self._pieces))
        return re.compile("".join(named), re.IGNORECASE)
