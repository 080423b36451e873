"""Counts of what the teachers of a stage answered: missing rows make it incomplete, rejected ones are counted by
reason.

A row is missing if the same request may be answered later: no connection, a timeout, a limit, a server error. Answers
are in the ledger, so running the stage again requests only the missing rows."""

import functools
from collections import Counter
from pathlib import Path

import pandas as pd

from qatoolkit.core.artifacts import read_sealed, write_sealed
from qatoolkit.core.display import InOneLine
from qatoolkit.core.files import locked
from qatoolkit.teacher.calls import is_transient
from qatoolkit.teacher.client import Teacher, TeacherError
from qatoolkit.teacher.transport import explain_failure


class Incomplete(InOneLine, RuntimeError):
    """Rows of a stage are missing that its teachers may answer later; the message counts them by reason."""


NOTES = "incomplete.json"
STOPS = (TeacherError, Incomplete)  # errors whose message says what to do


class AnswerCounts:
    """Counts what the teachers of one stage answered: `rows` asked for, `rejected` and `missing` by reason."""

    def __init__(self):
        self.rows, self.rejected, self.missing, self.at = 0, Counter(), Counter(), ""
        self._why = ""  # what was wrong with the first call that got no answer at all, always for the same reason

    def watch(self, teacher: Teacher) -> Teacher:
        """The teacher, with every table that its `ask` returns counted here."""
        ask, self.at = teacher.ask, teacher.endpoint.base_url

        @functools.wraps(ask)
        def counted(prompts, *, samples: int = 1, **how):
            prompts = list(prompts) if not isinstance(prompts, str) else prompts
            try:
                answers = ask(prompts, samples=samples, **how)
            except TeacherError:
                keys = teacher.keys(prompts, samples)
                answered = teacher.ledger.answered(set(keys))
                self.rows += len(keys)
                self.missing["not asked"] += sum(key not in answered for key in keys)
                raise
            self.count(answers)
            if not self._why and is_useless(answers):
                outcome, error = answers[["outcome", "error"]].iloc[0]
                self._why = "; " + explain_failure(teacher.endpoint, outcome, error)
            return answers

        teacher.ask = counted
        return teacher

    def count(self, answers: pd.DataFrame) -> None:
        """Add the rows of a table that `Teacher.ask` returned."""
        self.rows += len(answers)
        failed = answers[answers["outcome"] != "ok"]
        reasons = Counter(failed["outcome"])
        # if every row got an HTTP error, the endpoint is at fault, not the rows
        endpoint_failed = len(failed) == len(answers) and all(reason.startswith("http_") for reason in reasons)
        for reason, n in reasons.items():
            (self.missing if endpoint_failed or is_transient(reason) else self.rejected)[reason] += n

    def __str__(self) -> str:
        where = self._why or (f"; no connection to {self.at}" if self.missing["connection"] else "")
        return f"{self.missing.total():,} of {self.rows:,} rows are missing ({_listed(self.missing)}){where}"

    def require(self, accepted: float) -> None:
        """Incomplete if more than the share `accepted` of the rows is missing."""
        if self.missing.total() > accepted * self.rows:
            raise Incomplete(str(self))

    def record(self) -> dict:
        """The counts for a manifest: rows asked for, rejected and missing; empty if nothing was asked."""
        counts = {"rows": self.rows, "rejected": dict(self.rejected), "missing": dict(self.missing)}
        return {"teachers": counts} if self.rows else {}


def is_useless(answers: pd.DataFrame) -> bool:
    """Whether all rows of a call failed in one way that is the endpoint's fault: no connection, no answer in time, or
    an HTTP error."""
    reasons = set(answers["outcome"])
    return len(reasons) == 1 and reasons.pop().startswith(("http_", "connection", "timeout"))


def _listed(counts: dict) -> str:
    return ", ".join(f"{reason} {n:,}" for reason, n in sorted(counts.items(), key=lambda item: -item[1]))


def describe(counted: dict, outputs: dict | None = None) -> list[str]:
    """Lines on the rows that a finished stage lacks: rejects by reason, from its table of rejects if it has one, and
    the missing ones that were accepted."""
    about, lines = counted.get("teachers", {}), []
    table = (outputs or {}).get("rejects")
    if isinstance(table, pd.DataFrame) and "reason" in table:
        rejected, of = table["reason"].value_counts().to_dict(), ""
    else:
        rejected, of = about.get("rejected", {}), f" of {about.get('rows', 0):,}"
    if rejected:
        lines.append(f"{sum(rejected.values()):,}{of} rows rejected ({_listed(rejected)})")
    if missing := about.get("missing"):
        lines.append(
            f"{sum(missing.values()):,} of {about['rows']:,} rows missing ({_listed(missing)}), as "
            "teacher.accept_missing allows"
        )
    return lines


class Notes:
    """Why stages of a run are not finished, in `incomplete.json` of its folder: one line by stage."""

    def __init__(self, folder: Path):
        self._path = Path(folder) / NOTES

    def read(self) -> dict[str, str]:
        """All notes."""
        return read_sealed(self._path, "remove it and run the stage again") if self._path.exists() else {}

    def put(self, stage: str, note: str | None) -> None:
        """Set the note of a stage; None removes it."""
        if note is None and stage not in self.read():
            return
        with locked(self._path.with_name(".incomplete.json.lock")):
            write_sealed({name: n for name, n in (self.read() | {stage: note}).items() if n}, self._path)
