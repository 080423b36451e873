"""The ground truth of the textbook: right answers, labels by construction, error rates of the offline teachers."""

import functools

from qatoolkit.core.taxonomy import LABELS
from qatoolkit.textbook import knowledge
from qatoolkit.textbook.server import parts
from qatoolkit.textbook.settings import TextbookSettings
from qatoolkit.textbook.tutor import MODELS, Tutor, error_rate


class TextbookTruth:
    """The ground truth of a textbook world (`run.world.Truth`)."""

    def __init__(self, settings: TextbookSettings):
        self.teachers = {model: error_rate(model) for model in MODELS}
        self._tutor = Tutor(knowledge.load(), parts(settings))

    def is_correct(self, question: str, answer: str) -> bool | None:
        """Whether an answer is right; None for a question that is not from the textbook."""
        return self._tutor.is_correct(question, answer)

    def labels(self, question: str) -> dict[str, str | None]:
        """Discipline, difficulty and grade by construction; None for a question that is not from the textbook."""
        found = self._tutor.reader.read(question)
        return {name: getattr(found[0], name) if found else None for name in LABELS}


truth_of = functools.lru_cache(maxsize=1)(TextbookTruth)
