"""The offline teacher for your own table, without a run."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from qatoolkit.run.profiles import TextbookSettings
from qatoolkit.run.world import TextbookWorld
from qatoolkit.teacher.client import Teacher
from qatoolkit.teacher.ledger import Ledger


class OfflineTeacher(Teacher):
    """A `Teacher` with its own offline server, which ends with `close()`, the `with` block, or the session."""

    def __init__(self, model: str, *, ledger: Ledger | None = None, **options: Any):
        self._stack = ExitStack()
        try:
            endpoint = self._stack.enter_context(TextbookWorld(TextbookSettings(), None).endpoint())
            if ledger is None:
                folder = self._stack.enter_context(TemporaryDirectory(prefix="qatoolkit-"))
                ledger = self._stack.enter_context(Ledger(Path(folder) / "ledger.sqlite"))
            super().__init__(model, ledger=ledger, endpoint=endpoint, **options)
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Stop the server and, if it is the teacher's own, close the ledger; safe to call twice."""
        self._stack.close()

    def __enter__(self) -> "OfflineTeacher":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def offline_teacher(model: str = "textbook-err05", **options: Any) -> OfflineTeacher:
    """Start the offline teacher on a free port of this machine, for a `with` block or until the session ends:
    `with qt.offline_teacher() as teacher: qt.annotate(table, teacher)`.

    It knows the whole embedded textbook and refuses anything else; it needs no key and no network. `textbook-err05` is
    wrong 5 times in 100, `textbook` never. `options` are those of `Teacher`; without `ledger` the answers are kept
    until the teacher is closed. RuntimeError if the server does not start.

    >>> import qatoolkit as qt
    >>> with qt.offline_teacher() as teacher:
    ...     answers = teacher.ask(["Who chairs our chess club?"])
    >>> answers["outcome"].tolist()
    ['refusal']
    """
    return OfflineTeacher(model, **options)
