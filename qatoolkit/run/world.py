"""The one place where things come from: seeds, exams, general text, teachers, checkpoints and, where it is known, the
truth.

A world is any object with the attributes of `World`; `open_run(world=...)` takes one. The textbook, which needs no key,
GPU or download, is the default; only this module and the command line know that it exists."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import pandas as pd

from qatoolkit.teacher.client import Endpoint


class Truth(Protocol):
    """What a world knows about its questions beyond what a teacher says."""

    teachers: dict[str, float]
    """Models of the world's endpoint with the share of wrong answers they are built to give."""

    def is_correct(self, question: str, answer: str) -> bool | None:
        """Whether an answer is right; None for a question the world does not know."""

    def labels(self, question: str) -> dict[str, str | None]:
        """Discipline, difficulty and grade by construction."""


class World(Protocol):
    """Where a run's seeds, exams, general text, teachers and checkpoints come from."""

    @property
    def settings(self) -> dict:
        """What the world's content depends on, by name: part of the key of every stage that reads it."""

    def seeds(self, folder: Path, seed: int) -> list[str | Path]:
        """Files of seed questions, written below `folder` where they do not exist yet."""

    def exams(self, seed: int) -> dict[str, pd.DataFrame]:
        """Exams by name, as QA tables; all of them are decontaminated against."""

    def general_text(self, tokens: int, seed: int) -> Iterator[str]:
        """Documents of general text worth at least `tokens` tokens, one at a time."""

    def vocabulary(self) -> list[str]:
        """Texts to train a tokenizer on beside general text, for a student trained from scratch."""

    def endpoint(self) -> AbstractContextManager[Endpoint]:
        """The endpoint that answers as teacher where neither the profile nor OPENAI_BASE_URL names one."""

    def ladder(self) -> dict[str, str]:
        """Checkpoints by the name of their size; sizes that are not in it are trained from scratch."""

    def truth(self) -> Truth | None:
        """What is known to be right, or None."""


class TextbookWorld:
    """The embedded world: facts and formula problems, an offline teacher that knows them, a general corpus thin in
    STEM."""

    TOKENS_PER_DOCUMENT = 16  # a lower bound, so that enough documents are drawn for a token budget

    def __init__(self, settings, log: Path):
        self._settings, self._log = settings, log

    @property
    def settings(self) -> dict:
        return {"textbook": self._settings}

    @property
    def _books(self):
        from qatoolkit.textbook.server import parts

        return parts(self._settings)

    def seeds(self, folder: Path, seed: int) -> list[str | Path]:
        from qatoolkit.textbook.sources import write_sources

        return write_sources(self._books, folder, self._settings.seeds, seed)

    def exams(self, seed: int) -> dict[str, pd.DataFrame]:
        from qatoolkit.textbook.exams import EXAMS, exam

        books, n = self._books, self._settings.exam
        return {name: exam(books[about.language], name, n, seed) for name, about in EXAMS.items()}

    def general_text(self, tokens: int, seed: int) -> Iterator[str]:
        from qatoolkit.textbook.corpus import documents

        n = tokens // self.TOKENS_PER_DOCUMENT + 1
        return iter(documents(self._books, n, self._settings, seed)["text"])

    def vocabulary(self) -> list[str]:
        from qatoolkit.textbook.corpus import vocabulary

        return vocabulary(self._books)

    @contextmanager
    def endpoint(self):
        from qatoolkit.textbook.server import local_teacher

        with local_teacher(self._settings, log=self._log) as url:
            yield Endpoint(base_url=url, name="offline-textbook")

    def ladder(self) -> dict[str, str]:
        return {}

    def truth(self) -> Truth:
        from qatoolkit.textbook.truth import truth_of

        return truth_of(self._settings)
