"""Parses questions of the textbook from their wording: the inverse of `questions.write`."""

import re
from collections import defaultdict
from collections.abc import Container

from qatoolkit.textbook import problems
from qatoolkit.textbook.frames import FRAMES, TOP
from qatoolkit.textbook.knowledge import Entity, Relation, Textbook
from qatoolkit.textbook.questions import SEPARATOR, Question


class Reader:
    """Parses the wording of a question: `read(text)` returns (Question, language, split), or None for any other
    text."""

    def __init__(self, book: Textbook):
        self.book = book
        self.names, self.nouns, self.ones, self.relations = {}, {}, {}, {}
        self.wordings = []
        for language in ("en", "zh"):
            self.names[language] = {e.name(language).casefold(): e for e in book.entities.values()}
            self.nouns[language] = _group((t.noun(language).casefold(), t.id) for t in book.tables.values())
            self.ones[language] = _group((t.one(language).casefold(), t.id) for t in book.tables.values())
            self.relations[language] = _group((r.name(language).casefold(), r) for r in book.relations.values())
            slots = {
                "e": self.names[language],
                "noun": self.nouns[language],
                "one": self.ones[language],
                "top": {word for kind in TOP.values() for word in kind[language]},
                **dict.fromkeys(("r", "r1", "r2", "r3"), self.relations[language]),
            }
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
            found = wording.match(folded)
            question = found and self._resolve(wording.form, wording.language, found)
            if question:
                return question, wording.language, wording.split
        return None

    def _resolve(self, form: str, language: str, found: dict[str, str]) -> Question | None:
        """The question whose relations fit together: each must belong to the table reached so far."""
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
        slot, kinds = ("one", self.ones) if "one" in found else ("noun", self.nouns)
        if len(holders) == 1 and first.table in kinds[language][found[slot]]:
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


class _Wording:
    """One frame to match texts against. The names that fit its slots are looked up: a pattern with every name of the
    textbook takes longer to compile than a thousand texts take to read."""

    def __init__(self, form: str, language: str, split: str, frame: str, slots: dict[str, Container[str]]):
        self.form, self.language, self.split = form, language, split
        first, *others = re.split(r"\{(\w+)\}", frame.casefold())
        self._first = first
        self._rest = tuple(
            (name, slots.get(name), after) for name, after in zip(others[::2], others[1::2], strict=True)
        )

    def match(self, folded: str) -> dict[str, str] | None:
        """The contents of the frame's slots in a case-folded text, or None."""
        if not folded.startswith(self._first) or not all(after in folded for _, _, after in self._rest):
            return None
        return self._fill(folded, len(self._first), 0)

    def _fill(self, folded: str, start: int, nth: int) -> dict[str, str] | None:
        """The slots from the `nth` on, filled with the text from `start` on; of several ways, names as long as possible,
        free text as short as possible, the first slot first."""
        if nth == len(self._rest):
            return {} if start == len(folded) else None
        name, known, after = self._rest[nth]
        ends = [end for end in range(start + 1, len(folded) - len(after) + 1) if folded.startswith(after, end)]
        for end in ends if known is None else reversed(ends):
            if known is None or folded[start:end] in known:
                found = self._fill(folded, end + len(after), nth + 1)
                if found is not None:
                    return {name: folded[start:end]} | found
        return None
