"""Questions as language-independent objects, with their true answer, plausible wrong ones, and wordings.

A question is a form filled with entities and relations of the textbook (or a formula problem with parameters). Writing
fills a frame; reading is its inverse, so the offline teacher recognises exactly the questions that corpus, seeds and
synthesis can contain. Difficulty follows from the form (our reading of H1 to H5, see `taxonomy.RUBRIC`).
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest

from qatoolkit.core.taxonomy import DIFFICULTIES, DISCIPLINES, GRADES
from qatoolkit.textbook import problems
from qatoolkit.textbook.frames import FRAMES, TOP
from qatoolkit.textbook.knowledge import Entity, Relation, Textbook

LEVEL = {"recall": "H1", "reverse": "H2", "hop": "H3", "follow": "H3", "chain": "H4", "compare": "H5", "alike": "H5"}
SEPARATOR = {"en": ", ", "zh": "、"}


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question about the textbook: `entity` and the `relations` followed from it, in order; `others` are the listed
    candidates of compare and alike; `top` is the index of the superlative; `family` and `params` define a formula
    problem."""

    form: str
    entity: Entity | None = None
    relations: tuple[Relation, ...] = ()
    others: tuple[Entity, ...] = ()
    top: int = 0
    family: str = ""
    params: tuple[tuple[str, int], ...] = ()

    @property
    def difficulty(self) -> str:
        return self._family.difficulty if self.form == "problem" else LEVEL[self.form]

    @property
    def discipline(self) -> str:
        return self._family.discipline if self.form == "problem" else self.relations[0].discipline

    @property
    def grade(self) -> str:
        """The higher of the grades of the relations and the grade that fits the difficulty (our reading)."""
        if self.form == "problem":
            return self._family.grade
        stages = list(GRADES)
        return stages[max([DIFFICULTIES.index(self.difficulty), *(stages.index(r.grade) for r in self.relations)])]

    @property
    def _family(self) -> problems.Family:
        return problems.FAMILIES[self.family]

    def knowledge_points(self, language: str) -> list[str]:
        """The knowledge points involved: entities by name, then relations."""
        if self.form == "problem":
            return list(self._family.kps_en if language == "en" else self._family.kps_zh)
        entities = [self.entity] if self.entity else []
        points = [e.name(language) for e in (*entities, *self.others)] + [r.name(language) for r in self.relations]
        return list(dict.fromkeys(points))

    def key(self) -> str:
        """A stable text that identifies the question, in any language and wording."""
        names = "|".join([self.entity.en if self.entity else "", *sorted(e.en for e in self.others)])
        relations = "|".join(r.id for r in self.relations)
        return f"{self.form}|{names}|{relations}|{self.top}|{self.family}|{self.params}"


def _draw(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def split(question: Question) -> str:
    """ "exam" or "train" for questions with parameters (listed candidates, numbers), by a stable hash; "both" for
    facts."""
    if question.form == "problem":
        return problems.split(question.family, dict(question.params))
    if question.others:
        names = sorted(e.en for e in (question.entity, *question.others) if e)
        return "exam" if _draw(f"{question.relations[0].id}|{names}") % 4 == 0 else "train"
    return "both"


def answer(book: Textbook, q: Question, language: str) -> str:
    """The true answer as text."""
    if q.form == "problem":
        family = problems.FAMILIES[q.family]
        return problems.answer_text(family.answer(**dict(q.params)), language)
    if q.form == "reverse":
        return q.entity.name(language)
    if q.form == "compare":
        column = q.relations[0].column
        return (max, min)[q.top](q.others, key=lambda e: e.values[column]).name(language)
    if q.form == "alike":
        target = book.value(q.entity, q.relations[0], "en")
        return next(e for e in q.others if book.value(e, q.relations[0], "en") == target).name(language)
    holder, relation = _last_step(book, q)
    return book.value(holder, relation, language)


def _last_step(book: Textbook, q: Question) -> tuple[Entity, Relation]:
    """The entity whose value is asked for, and the relation of that value."""
    if q.form == "recall":
        return q.entity, q.relations[0]
    if q.form == "hop":
        return q.entity, q.relations[1]
    reference, relation = q.relations[-2:]
    return book.entities[q.entity.values[reference.column]], relation


def _ends(book: Textbook, q: Question) -> tuple[Entity, ...]:
    """The entities whose value answers this kind of question: what no other entity refers to would be ruled out without
    reading the question."""
    if q.form in ("recall", "hop"):
        return book.tables[q.entity.table].entities
    asked = [e for e in book.tables[q.entity.table].entities if q.form != "chain" or book.identifies(e, q.relations[0])]
    referring = (e.values.get(q.relations[-2].column) for e in asked)
    return tuple(book.entities[name] for name in dict.fromkeys(referring) if name)


def wrong_answers(book: Textbook, q: Question, language: str, n: int | None, rng: random.Random) -> list[str]:
    """Up to `n` wrong answers (None: all there are) of the same kind as the true one, in random order."""
    truth = answer(book, q, language)
    if q.form == "problem":
        family = problems.FAMILIES[q.family]
        pool = [problems.answer_text(v, language) for v in family.wrong(**dict(q.params))]
    elif q.form in ("compare", "alike"):
        pool = [e.name(language) for e in q.others]
    elif q.form == "reverse":
        # An empty cell is an unknown value, so its entity could be a second right answer.
        entities = book.tables[q.entity.table].entities
        pool = [e.name(language) for e in entities if q.relations[0].column in e.values]
    else:
        pool = [book.value(e, q.relations[-1], language) for e in _ends(book, q)]
    pool = sorted({p for p in pool if p is not None and p != truth})
    return rng.sample(pool, len(pool) if n is None else min(n, len(pool)))


# --- writing ---------------------------------------------------------------------------------------------------------


def _slots(book: Textbook, q: Question, language: str) -> dict[str, str]:
    names = [r.name(language) for r in q.relations]
    slots = {"r": names[0], **{f"r{i + 1}": name for i, name in enumerate(names)}}
    if q.entity:
        table = book.tables[q.entity.table]
        slots |= {"e": q.entity.name(language), "noun": table.noun(language), "one": table.one(language)}
    if q.form in ("reverse", "hop", "chain"):
        slots["v"] = book.value(q.entity, q.relations[0], language)
    if q.others:
        slots["list"] = SEPARATOR[language].join(e.name(language) for e in q.others)
    if q.form == "compare":
        slots["top"] = TOP[q.relations[0].kind][language][q.top]
    return slots


def _fill(frame: str, slots: dict[str, str]) -> str:
    text = frame.format(**slots)
    return text[0].upper() + text[1:]


def variants(q: Question, language: str, split: str) -> int:
    """The number of wordings."""
    if q.form == "problem":
        return problems.variants(q.family, language, split)
    return len(FRAMES[q.form][language][split])


def write(book: Textbook, q: Question, language: str, split: str = "train", variant: int = 0) -> str:
    """The question in words; `variant` counts modulo the number of wordings."""
    variant %= variants(q, language, split)
    if q.form == "problem":
        return problems.render(q.family, dict(q.params), language, variant, split)
    return _fill(FRAMES[q.form][language][split][variant], _slots(book, q, language))


def state(book: Textbook, q: Question, language: str, variant: int = 0, given: str | None = None) -> str:
    """The question with its answer (or the answer `given`) as one statement, as in a textbook."""
    if q.form == "problem":
        return problems.solution(q.family, dict(q.params), language)
    frames = FRAMES[q.form][language]["statement"]
    slots = _slots(book, q, language) | {"a": given or answer(book, q, language)}
    return _fill(frames[variant % len(frames)], slots)


# --- enumeration -----------------------------------------------------------------------------------------------------


def questions(book: Textbook) -> Iterator[Question]:
    """Every question of the forms recall, reverse, hop, follow and chain that the book can answer, in file order."""
    for table in book.tables.values():
        for entity in table.entities:
            yield from questions_about(book, entity)


def families(book: Textbook) -> list[str]:
    """The kinds of formula problem in the book: `book.families` of them, taken from its disciplines in turn, or all."""
    disciplines = {table.discipline for table in book.tables.values()}
    by_discipline = defaultdict(list)
    for family in problems.FAMILIES.values():
        if family.discipline in disciplines:
            by_discipline[family.discipline].append(family.name)
    ordered = [by_discipline[d] for d in DISCIPLINES if d in by_discipline]
    return [name for turn in zip_longest(*ordered) for name in turn if name][: book.families]


def questions_about(book: Textbook, entity: Entity) -> Iterator[Question]:
    """The questions of `questions` that start from one entity."""
    filled = [r for r in book.tables[entity.table].relations if r.column in entity.values]
    keys = [r for r in filled if book.identifies(entity, r)]
    for r in filled:
        yield Question(form="recall", entity=entity, relations=(r,))
    for key in keys:
        yield Question(form="reverse", entity=entity, relations=(key,))
        for r in filled:
            if r is not key:
                yield Question(form="hop", entity=entity, relations=(key, r))
    for reference in (r for r in filled if r.target):
        target = book.entities[entity.values[reference.column]]
        for last in book.tables[target.table].relations:
            if last.column in target.values and not last.target:
                yield Question(form="follow", entity=entity, relations=(reference, last))
                for key in keys:
                    yield Question(form="chain", entity=entity, relations=(key, reference, last))


def comparison(
    book: Textbook,
    relation: Relation,
    n: int,
    rng: random.Random,
    *,
    holding: Entity | None = None,
    wanted: str | None = None,
) -> Question | None:
    """A random question over `n` entities of the relation's table: which is largest (number, year), or which has the
    same category as another entity. `holding` must be one of them; `wanted` is the split it must be in. None if there
    is no such question."""
    pool = [entity for entity, _ in _valued(book, relation)]
    if len(pool) < n + (not relation.ordered):
        return None
    for _ in range(40):
        q = (_ordered if relation.ordered else _alike)(book, relation, n, rng, pool, holding)
        if q and (wanted is None or split(q) == wanted):
            return q
    return None


@cache
def _valued(book: Textbook, relation: Relation) -> list[tuple[Entity, str]]:
    """The entities that have a value of the relation, with the value in English."""
    entities = book.tables[relation.table].entities
    return [(e, book.value(e, relation, "en")) for e in entities if relation.column in e.values]


def _ordered(book, relation, n, rng, pool, holding) -> Question | None:
    chosen = rng.sample(pool, n)
    if holding and holding not in chosen:
        chosen[rng.randrange(n)] = holding
    if len({e.values[relation.column] for e in chosen}) < n:
        return None
    return Question(form="compare", relations=(relation,), others=tuple(chosen), top=rng.randrange(2))


def _alike(book, relation, n, rng, pool, holding) -> Question | None:
    entity = holding or rng.choice(pool)
    category = book.value(entity, relation, "en")
    same = [e for e, value in _valued(book, relation) if e is not entity and value == category]
    different = [e for e, value in _valued(book, relation) if value != category]
    if not same or len(different) < n - 1:
        return None
    chosen = [rng.choice(same), *rng.sample(different, n - 1)]
    rng.shuffle(chosen)
    return Question(form="alike", entity=entity, relations=(relation,), others=tuple(chosen))
