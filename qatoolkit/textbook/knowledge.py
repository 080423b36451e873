"""The textbook's facts: CSV tables of entities, and relations, which name their columns.

A fact is one filled cell: (entity, relation, value). Tables, relations and wordings are data; questions about facts are
in `questions.py`.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import pandas as pd

FACTS = Path(__file__).parent / "facts"


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A column of a table and its names, as in "the {en} of {entity}" and "{entity}的{zh}"."""

    table: str
    column: str
    discipline: str
    grade: str
    kind: str
    en: str
    zh: str
    unit_en: str = ""
    unit_zh: str = ""

    @property
    def id(self) -> str:
        return f"{self.table}.{self.column}"

    @property
    def target(self) -> str | None:
        """The table that this relation refers to, or None."""
        return self.kind.removeprefix("ref:") if self.kind.startswith("ref:") else None

    @property
    def ordered(self) -> bool:
        return self.kind in ("number", "year")

    def name(self, language: str) -> str:
        return self.en if language == "en" else self.zh


@dataclass(frozen=True, kw_only=True)
class Entity:
    """A row of a table: its names, and its values by column; a reference is the other entity's `name_en`."""

    table: str
    en: str
    zh: str
    values: dict = field(hash=False, compare=False)

    def name(self, language: str) -> str:
        return self.en if language == "en" else self.zh


@dataclass(frozen=True, kw_only=True)
class Table:
    """One CSV file: the noun for its rows, its discipline, its relations and entities in file order."""

    id: str
    discipline: str
    en: str
    zh: str
    relations: tuple[Relation, ...]
    entities: tuple[Entity, ...]

    def noun(self, language: str) -> str:
        return self.en if language == "en" else self.zh

    def one(self, language: str) -> str:
        """The noun with its article, where the language has one: "an invention"."""
        article = "an " if self.en[0].casefold() in "aeio" else "a "  # "u" is that of "unit"
        return article + self.en if language == "en" else self.zh


class Textbook:
    """The knowledge base, or a part of it (`part`): tables by id, entities by English name."""

    def __init__(self, tables: dict[str, Table], whole: "Textbook | None" = None, families: int | None = None):
        self.tables, self.whole, self.families = tables, whole or self, families
        self.entities = {e.en: e for t in tables.values() for e in t.entities}
        self.relations = {r.id: r for t in tables.values() for r in t.relations}
        self._holders = defaultdict(list)
        for table in tables.values():
            for relation in table.relations:
                for entity in table.entities:
                    if relation.column in entity.values:
                        self._holders[relation.id, self.value(entity, relation, "en")].append(entity)

    def value(self, entity: Entity, relation: Relation, language: str) -> str | None:
        """The value of a fact as text in `language`, with its unit; None if the cell is empty."""
        raw = entity.values.get(relation.column)
        if raw is None:
            return None
        if relation.target:
            return self.entities[raw].name(language)
        if not relation.ordered:
            return raw[0 if language == "en" else 1]
        if relation.kind == "year":
            if raw >= 0:
                return str(raw)
            return f"{-raw} BC" if language == "en" else f"公元前{-raw}"
        unit = relation.unit_en if language == "en" else relation.unit_zh
        text = f"{raw:g}" if abs(raw) < 1e6 else f"{raw:.0f}"
        return f"{text} {unit}".strip() if language == "en" else f"{text}{unit}"

    def holders(self, relation: Relation, value_en: str) -> list[Entity]:
        """The entities of the relation's table that have this (English) value."""
        return self._holders.get((relation.id, value_en), [])

    def identifies(self, entity: Entity, relation: Relation) -> bool:
        """Whether no other entity of the whole book has the same value of `relation`, so that a question can identify
        the entity by it."""
        value = self.value(entity, relation, "en")
        return value is not None and not relation.target and len(self.whole.holders(relation, value)) == 1

    def part(self, entities: int | None, relations: int | None = None, families: int | None = None) -> "Textbook":
        """A stratified part of the book: `entities` rows in each discipline, first from tables that can be compared and
        have references, with at most `relations` columns each, closed under references so that every chain can be
        followed, and `families` kinds of formula problem in all. None takes everything."""
        if entities is None:
            return Textbook(self.tables, whole=self.whole, families=families)
        columns = {t.id: _choose_columns(t, relations) for t in self.tables.values()}
        chosen = {id: set() for id in self.tables}
        by_discipline = defaultdict(list)
        for table in self.tables.values():
            by_discipline[table.discipline].append(table)
        for tables in by_discipline.values():
            left = entities
            for table in sorted(tables, key=lambda t: -_kinds(columns[t.id])):
                chosen[table.id].update(e.en for e in _representative(table, columns[table.id])[:left])
                left -= min(left, len(table.entities))
        pending = [self.entities[name] for names in chosen.values() for name in names]
        while pending:
            e = pending.pop()
            for relation in columns[e.table]:
                name = e.values.get(relation.column) if relation.target else None
                if name and name not in chosen[relation.target]:
                    chosen[relation.target].add(name)
                    pending.append(self.entities[name])
        return Textbook(
            {
                t.id: replace(
                    t,
                    relations=columns[t.id],
                    entities=tuple(_keep_relations(e, columns[t.id]) for e in t.entities if e.en in chosen[t.id]),
                )
                for t in self.tables.values()
                if chosen[t.id]
            },
            whole=self.whole,
            families=families,
        )


def _representative(table: Table, columns: tuple[Relation, ...]) -> list[Entity]:
    """The entities of a table, the ones with the fewest empty cells first; of equally full ones, those that refer to
    different entities first, so that a small part has several answers to each kind of question."""
    seen, turns = Counter(), {}
    for e in table.entities:
        targets = tuple(e.values.get(r.column) for r in columns if r.target)
        turns[e.en], seen[targets] = seen[targets], seen[targets] + 1
    return sorted(table.entities, key=lambda e: (-sum(r.column in e.values for r in columns), turns[e.en]))


def _keep_relations(entity: Entity, relations: tuple[Relation, ...]) -> Entity:
    """An entity with only the values of these relations."""
    return replace(entity, values={r.column: entity.values[r.column] for r in relations if r.column in entity.values})


def _choose_columns(table: Table, limit: int | None) -> tuple[Relation, ...]:
    """At most `limit` relations of a table, including a reference and an ordered relation if it has any."""
    if limit is None or len(table.relations) <= limit:
        return table.relations
    first = [next((r for r in table.relations if test(r)), None) for test in (lambda r: r.target, lambda r: r.ordered)]
    must = [r for r in first if r is not None]
    rest = [r for r in table.relations if r not in must]
    chosen = (must + rest)[:limit]
    return tuple(r for r in table.relations if r in chosen)


def _kinds(relations: tuple[Relation, ...]) -> int:
    """The number of kinds of relation that a table has, of two: ordered (number, year) and reference to another
    table."""
    return any(r.ordered for r in relations) + any(r.target is not None for r in relations)


def _cell(raw_en: str, raw_zh: str, relation: dict):
    if relation["kind"] == "year":
        return int(raw_en)
    if relation["kind"] == "number":
        return float(raw_en)
    if relation["kind"].startswith("ref:"):
        return raw_en
    return (raw_en, raw_zh)


@lru_cache(maxsize=1)
def load() -> Textbook:
    """The whole textbook, read once from `facts/`; ValueError naming table and row for an inconsistent file."""
    options = {"dtype": str, "keep_default_na": False}
    relations = pd.read_csv(FACTS / "relations.csv", **options).to_dict("records")
    tables = {}
    for head in pd.read_csv(FACTS / "tables.csv", **options).to_dict("records"):
        table_relations = [r for r in relations if r["table"] == head["table"]]
        frame = pd.read_csv(FACTS / f"{head['table']}.csv", **options)
        entities = []
        for row in frame.to_dict("records"):
            values = {}
            for relation in table_relations:
                column = relation["column"]
                single = relation["kind"] != "text"
                en = row[column] if single else row[f"{column}_en"]
                zh = row[column] if single else row[f"{column}_zh"]
                if bool(en) != bool(zh):
                    raise ValueError(f"facts/{head['table']}.csv, {row['name_en']!r}: {column} is missing one language")
                if en:
                    values[column] = _cell(en, zh, relation)
            entities.append(Entity(table=head["table"], en=row["name_en"], zh=row["name_zh"], values=values))
        tables[head["table"]] = Table(
            id=head["table"],
            discipline=head["discipline"],
            en=head["noun_en"],
            zh=head["noun_zh"],
            relations=tuple(Relation(**r) for r in table_relations),
            entities=tuple(entities),
        )
    for language in ("en", "zh"):
        counts = Counter(e.name(language).casefold() for t in tables.values() for e in t.entities)
        twice = [name for name, n in counts.items() if n > 1]
        if twice:
            raise ValueError(f"facts/: these names belong to two entities: {', '.join(sorted(twice)[:5])}")
    return Textbook(tables)
