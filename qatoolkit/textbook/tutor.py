"""The offline teacher's answers: it answers the toolkit's prompts from the textbook, and refuses everything else.

It parses a question (`reading.Reader`), so its answers follow from the facts. A tutor errs at a set rate: a wrong
answer of the right kind, or a label one level off. It also shows the degradation that BoostQA reports: when a hard
question is requested, it sometimes writes an easier one, less often when the request says that the last one was too
easy. All random choices are seeded by a hash of the request, so the same request always gets the same answer.
"""

import hashlib
import json
import random
import re
from collections.abc import Callable

from qatoolkit.core.taxonomy import DIFFICULTIES, DISCIPLINES, GRADES, HIGH, LABELS
from qatoolkit.core.text import normalise
from qatoolkit.textbook import problems
from qatoolkit.textbook.knowledge import Entity, Textbook
from qatoolkit.textbook.questions import (
    Question,
    answer,
    comparison,
    families,
    questions_about,
    state,
    variants,
    write,
    wrong_answers,
)
from qatoolkit.textbook.reading import Reader

DEGRADED, DEGRADED_AGAIN = 0.25, 0.08
MODELS = ("textbook", "textbook-err05", "textbook-err15", "textbook-err30")


class Refusal(Exception):
    """A request that can't be answered from the textbook."""


def error_rate(model: str) -> float:
    """The error rate in a model name: "textbook-err15" errs in 15% of its answers. ValueError for other names."""
    match = re.fullmatch(r"textbook(?:-err(\d\d))?", model)
    if not match:
        raise ValueError(f"the offline teacher serves {', '.join(MODELS)}; it has no model {model!r}")
    return int(match[1] or 0) / 100


class Tutor:
    """Reads questions of the whole textbook, and writes questions from the world's part of it (`parts`, by language).
    It also knows the truth, even where its own replies err."""

    def __init__(self, book: Textbook, parts: dict[str, Textbook]):
        self.book, self.parts, self.reader = book, parts, Reader(book)
        self.teachers = {model: error_rate(model) for model in MODELS}
        self.tasks: dict[str, Callable] = {
            "annotate": self.annotate,
            "knowledge_points": self.knowledge_points,
            "multi_grade": self.multi_grade,
            "high_difficulty": self.high_difficulty,
            "link": self.link,
            "refine": self.solve,
            "solve": self.solve,
        }

    def reply(self, messages: list[dict], model: str) -> tuple[dict, str]:
        """The answer to a task as a JSON value, and the reasoning before it; Refusal for anything but the toolkit's
        prompts."""
        rate = error_rate(model)
        system = next((m["content"] for m in messages if m["role"] == "system"), "")
        task = re.match(r"Task: (\w+), version \d+", system)
        if not task or task[1] not in self.tasks:
            raise Refusal("it answers only this toolkit's own prompts")
        request = next(m["content"] for m in reversed(messages) if m["role"] == "user" and m["content"].startswith("{"))
        rng = random.Random(hashlib.sha256(f"{model}|{task[1]}|{request}".encode()).digest())
        return self.tasks[task[1]](json.loads(request), rng, rate)

    def _read(self, text: str) -> tuple[Question, str]:
        found = self.reader.read(text)
        if found is None:
            raise Refusal("it knows only the bundled textbook, and this question is not from it")
        question, language, _ = found
        return question, language

    # --- labels ------------------------------------------------------------------------------------------------------

    def annotate(self, request: dict, rng: random.Random, rate: float) -> tuple[dict, str]:
        q, _ = self._read(request["question"])
        discipline, difficulty, grade = q.discipline, q.difficulty, q.grade
        if rng.random() < rate:
            at = DIFFICULTIES.index(difficulty)
            difficulty = rng.choice([DIFFICULTIES[i] for i in (at - 1, at + 1) if 0 <= i < len(DIFFICULTIES)])
        if rng.random() < rate / 3:
            discipline = rng.choice([d for d in DISCIPLINES if d != discipline])
        if rng.random() < rate:
            grade = rng.choice([g for g in GRADES if g != grade])
        labels = {"discipline": discipline, "difficulty": difficulty, "grade": grade}
        return labels, f"The question has the form {q.form}, which the rubric places at {difficulty}."

    def knowledge_points(self, request: dict, rng: random.Random, rate: float) -> tuple[dict, str]:
        q, language = self._read(request["question"])
        points = q.knowledge_points(language)
        return {"knowledge_points": points[:6]}, f"To solve it one must know: {'; '.join(points)}."

    # --- answers -----------------------------------------------------------------------------------------------------

    def _answer(self, q: Question, language: str, rng: random.Random, rate: float) -> tuple[str, str]:
        """An answer, wrong at the tutor's rate, and a rationale consistent with it."""
        wrong = wrong_answers(self.book, q, language, 1, rng)
        truth = answer(self.book, q, language)
        given = wrong[0] if wrong and rng.random() < rate else truth
        return given, state(self.book, q, language, rng.randrange(2), given)

    def solve(self, request: dict, rng: random.Random, rate: float) -> tuple[dict, str]:
        q, language = self._read(request["question"])
        given, rationale = self._answer(q, language, rng, rate)
        return {"answer": given, "rationale": rationale}, f"Recall what the textbook says. {rationale}"

    # --- the truth (`run.world.Truth`) -------------------------------------------------------------------------------

    def is_correct(self, question: str, given: str) -> bool | None:
        """Whether an answer is the true one; None for a question that is not from the textbook."""
        found = self.reader.read(question)
        if found is None:
            return None
        q, language, _ = found
        return normalise(given) == normalise(answer(self.book, q, language))

    def labels(self, question: str) -> dict[str, str | None]:
        """Discipline, difficulty and grade by construction; None for a question that is not from the textbook."""
        found = self.reader.read(question)
        return {name: getattr(found[0], name) if found else None for name in LABELS}

    def translation(self, question: str) -> dict[str, str] | None:
        """Question and answer in the other language, as an exam would word it; None for one that is not from the
        textbook."""
        if (found := self.reader.read(question)) is None:
            return None
        q, language, _ = found
        other = "en" if language == "zh" else "zh"
        return {"question": write(self.book, q, other, "exam"), "answer": answer(self.book, q, other)}

    # --- synthesis ---------------------------------------------------------------------------------------------------

    def multi_grade(self, request: dict, rng: random.Random, rate: float) -> tuple[dict, str]:
        q, language = self._read(request["seed"]["question"])
        made, taken = [], {request["seed"]["question"]}
        for wanted in request["wanted"]:
            level = wanted.get("difficulty")
            pool = [c for c in self._find_related(q, language, rng) if level is None or c.difficulty == level]
            suited = [c for c in pool if c.grade == wanted["grade"]] or pool
            if suited:
                chosen = rng.choice(suited)
                written = self._compose(chosen, language, rng, rate)
                if written["question"] not in taken:
                    taken.add(written["question"])
                    made.append(written | {"grade": chosen.grade})
        return {"questions": made}, f"The seed is about {'; '.join(q.knowledge_points(language))}."

    def high_difficulty(self, request: dict, rng: random.Random, rate: float) -> tuple[dict, str]:
        q, language = self._read(request["seed"]["question"])
        made, taken = [], {q.key()}
        for _ in range(request["count"]):
            pool = [c for c in self._find_related(q, language, rng) if c.key() not in taken]
            fits = [c for c in pool if c.difficulty == request["difficulty"]]
            easier = [c for c in pool if c.difficulty not in HIGH]
            slips = rng.random() < (DEGRADED_AGAIN if "too_easy" in request else DEGRADED)
            suited = (easier if slips else fits) or fits or easier
            if suited:
                chosen = rng.choice(suited)
                taken.add(chosen.key())
                made.append(self._compose(chosen, language, rng, rate))
        return {"questions": made}, f"To reach {request['difficulty']} the seed's knowledge must be combined with more."

    def link(self, request: dict, rng: random.Random, rate: float) -> tuple[dict, str]:
        read = [self._read(seed["question"]) for seed in request["seeds"]]
        language = read[0][1]
        seeds = [q for q, lang in read if lang == language]
        pool = {c.key(): c for c in self._find_joining(seeds, language, rng)}
        wanted = request.get("difficulty")
        suited = [c for k, c in pool.items() if k not in {q.key() for q in seeds}]
        suited = [c for c in suited if c.difficulty == wanted] or suited
        by_level = {}
        for c in rng.sample(suited, len(suited)):
            by_level.setdefault(c.difficulty, []).append(c)
        piles = rng.sample(list(by_level.values()), len(by_level))
        chosen = [pile.pop() for _ in range(request["count"]) for pile in piles if pile][: request["count"]]
        made = [self._compose(c, language, rng, rate) for c in chosen]
        return {"questions": made}, f"The seeds meet in {'; '.join(request['path'])}."

    def _compose(self, q: Question, language: str, rng: random.Random, rate: float) -> dict:
        given, rationale = self._answer(q, language, rng, rate)
        variant = rng.randrange(variants(q, language, "train"))
        return {"question": write(self.book, q, language, "train", variant), "answer": given, "rationale": rationale}

    def _find_related(self, q: Question, language: str, rng: random.Random) -> list[Question]:
        """Questions related to a seed: about its entities, comparisons with them, or of its kind of problem."""
        part = self.parts[language]
        if q.form == "problem":
            return self._problems(q, language, rng)
        found = []
        for entity in {e.en: e for e in (q.entity, *q.others) if e and e.en in part.entities}.values():
            found += self._around(part, part.entities[entity.en], rng)
        return found + self._problems(q, language, rng, 1)

    def _around(self, part: Textbook, entity: Entity, rng: random.Random) -> list[Question]:
        filled = [r for r in part.tables[entity.table].relations if r.column in entity.values and not r.target]
        drawn = [comparison(part, r, rng.choice((2, 3, 4)), rng, holding=entity, wanted="train") for r in filled * 2]
        return [*questions_about(part, entity), *(c for c in drawn if c)]

    def _problems(self, q: Question, language: str, rng: random.Random, each: int = 3) -> list[Question]:
        """Formula problems of the seed's discipline, twice as many of the seed's kind."""
        found = []
        for name in families(self.parts[language]):
            if problems.FAMILIES[name].discipline == q.discipline:
                sets = problems.parameter_sets(name, "train")
                drawn = rng.sample(sets, min(len(sets), 2 * each if name == q.family else each))
                found += [Question(form="problem", family=name, params=tuple(p.items())) for p in drawn]
        return found

    def _find_joining(self, seeds: list[Question], language: str, rng: random.Random) -> list[Question]:
        """Questions that need more than one seed: comparisons of their entities, chains from one seed's entity through
        another's relation or, if there are none, chains of two or more steps from any of them."""
        part = self.parts[language]
        entities = {
            e.en: part.entities[e.en] for q in seeds for e in (q.entity, *q.others) if e and e.en in part.entities
        }
        relations = {r.id for q in seeds for r in q.relations}
        found = []
        for entity in entities.values():
            several = [q for q in questions_about(part, entity) if len(q.relations) > 1]
            joined = [q for q in several if len(relations & {r.id for r in q.relations}) > 1]
            found += joined or several
            for relation in part.tables[entity.table].relations:
                others = [e for e in entities.values() if e.table == entity.table and e is not entity]
                if others and not relation.target and relation.column in entity.values:
                    drawn = comparison(part, relation, rng.choice((2, 3, 4)), rng, holding=entity, wanted="train")
                    found += [drawn] if drawn and set(drawn.others) & set(others) else []
        for q in seeds:
            if q.form == "problem":
                found += self._problems(q, language, rng)
        return found
