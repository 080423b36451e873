"""The general corpus of pre-training, sparse where the papers find models weak.

Statements and review questions over the textbook. Every fact outside STEM is covered, most of them also reversed, fewer
linked with others; of STEM and of high difficulty only a small share is, chosen by a stable hash, so that a base model
has real gaps (our reading of BoostQA's finding that models are weak in STEM and on hard material).
"""

import hashlib
import random
from collections import defaultdict

import pandas as pd

from qatoolkit.core.prompt_format import as_document
from qatoolkit.core.taxonomy import HIGH, STEM
from qatoolkit.textbook import frames, problems
from qatoolkit.textbook.exams import pools
from qatoolkit.textbook.knowledge import Textbook
from qatoolkit.textbook.questions import Question, answer, families, state, variants, write
from qatoolkit.textbook.settings import TextbookSettings

# Texts state a fact more often than they reverse it or link it with another (our reading).
RARER = {"H2": 0.85, "H3": 0.7}


def share_covered(settings: TextbookSettings, discipline: str, difficulty: str) -> float:
    """The share of a cell's questions that the general corpus covers."""
    stem, high = discipline in STEM, difficulty in HIGH
    share = {
        (False, False): settings.plain,
        (True, False): settings.stem,
        (False, True): settings.high,
        (True, True): settings.stem_high,
    }[stem, high]
    return share * RARER.get(difficulty, 1.0)


def covered(book: Textbook, settings: TextbookSettings) -> list[Question]:
    """The questions whose content is in the general corpus: of a fact either all questions or none."""
    rng = random.Random("corpus/0")
    chosen = []
    for cell, pool in pools(book, rng, "train", 3, 40).items():
        share = share_covered(settings, *cell)
        chosen += [q for q in pool if _fraction(q) < share]
    return chosen


def _fraction(q: Question) -> float:
    """A stable hash from 0 to 1, the same for all questions about a fact."""
    if q.entity is None:
        anchor = q.key()
    else:
        anchor = f"{q.entity.en}|{q.relations[0].id if q.form in ('recall', 'reverse', 'hop') else q.key()}"
    return int.from_bytes(hashlib.sha256(anchor.encode()).digest()[:8], "big") / 2**64


def documents(books: dict[str, Textbook], n: int, settings: TextbookSettings, seed: int = 0) -> pd.DataFrame:
    """`n` documents drawn with replacement: columns text, language, discipline, difficulty, kind (statement, review).

    Cells of discipline and difficulty are drawn in proportion to the share of them that is covered, regardless of their
    number of questions; within a cell all covered questions of both languages are equally likely."""
    cells = defaultdict(list)
    for language, book in books.items():
        for q in covered(book, settings):
            cells[q.discipline, q.difficulty].append((language, q))
    weights = [share_covered(settings, *cell) for cell in cells]
    rng = random.Random(f"documents/{seed}")
    rows = []
    for cell in rng.choices(list(cells), weights, k=n):
        language, q = rng.choice(cells[cell])
        book = books[language]
        if rng.random() < settings.review:
            variant = rng.randrange(variants(q, language, "train"))
            text = as_document(write(book, q, language, "train", variant), answer(book, q, language), language)
            kind = "review"
        else:
            text, kind = state(book, q, language, rng.randrange(4)), "statement"
        rows.append((text, language, q.discipline, q.difficulty, kind))
    return pd.DataFrame(rows, columns=["text", "language", "discipline", "difficulty", "kind"])


def vocabulary(books: dict[str, Textbook]) -> list[str]:
    """Every name, value, relation and training frame once, as texts to train a tokenizer on: the words, but not the
    facts."""
    texts = {}
    for language, book in books.items():
        for table in book.tables.values():
            texts[table.noun(language)] = None
            for relation in table.relations:
                texts[relation.name(language)] = None
            for entity in table.entities:
                texts[entity.name(language)] = None
                for relation in table.relations:
                    texts[book.value(entity, relation, language) or ""] = None
        for by_language in frames.FRAMES.values():
            for split in ("train", "statement"):
                texts.update(dict.fromkeys(by_language[language][split]))
        for family in (problems.FAMILIES[name] for name in families(book)):
            texts.update(dict.fromkeys(family.train_en if language == "en" else family.train_zh))
        texts[as_document("", "", language)] = None
    return [t for t in texts if t]
