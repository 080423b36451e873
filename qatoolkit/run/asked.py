"""What the teachers of a stage answered: rows that are missing make it incomplete, rejected ones are counted by reason.

A row is missing where the same request may be answered another time: no connection, a timeout, a limit, an error of the
server. What was answered is in the ledger, so running the stage again asks for the missing rows alone."""

import functools
from collections import Counter
from pathlib import Path

import pandas as pd

from qatoolkit.core.artifacts import read_sealed, write_sealed
from qatoolkit.core.display import InOneLine
from qatoolkit.core.files import locked
from qatoolkit.teacher.calls import is_transient
from qatoolkit.teacher.client import Teacher, TeacherError


class Incomplete(InOneLine, RuntimeError):
    """A stage that lacks rows which its teachers may answer another time; the message counts them by reason."""


NOTES = "incomplete.json"
STOPS = (TeacherError, Incomplete)  # errors that say themselves what to do


class Asked:
    """Counts what the teachers of one stage answered: `rows` asked for, `rejected` and `missing` by reason."""

    def __init__(self):
        self.rows, self.rejected, self.missing, self.at = 0, Counter(), Counter(), ""

    def watch(self, teacher: Teacher) -> Teacher:
        """The teacher, with every table that its `ask` returns counted here."""
        ask, self.at = teacher.ask, teacher.endpoint.base_url

        @functools.wraps(ask)
        def counted(prompts, *, samples: int = 1, **how):
            prompts = list(prompts) if not isinstance(prompts, str) else prompts
            try:
                said = ask(prompts, samples=samples, **how)
            except TeacherError:
                keys = teacher.keys(prompts, samples)
                answered = teacher.ledger.answered(set(keys))
                self.rows += len(keys)
                self.missing["not asked"] += sum(key not in answered for key in keys)
                raise
            self.count(said)
            return said

        teacher.ask = counted
        return teacher

    def count(self, said: pd.DataFrame) -> None:
        """Add the rows of a table that `Teacher.ask` returned."""
        self.rows += len(said)
        failed = said[said["outcome"] != "ok"]
        reasons = Counter(failed["outcome"])
        for reason, n in reasons.items():
            # where nothing at all was answered, it is not the rows
            nothing = reason.startswith("http_") and len(failed) == len(said) and all(r[:5] == "http_" for r in reasons)
            (self.missing if nothing or is_transient(reason) else self.rejected)[reason] += n

    def __str__(self) -> str:
        cut_off = f"; no connection to {self.at}" if self.missing["connection"] else ""
        return f"{self.missing.total():,} of {self.rows:,} rows are missing ({_listed(self.missing)}){cut_off}"

    def require(self, accepted: float) -> None:
        """Incomplete where more than the share `accepted` of the rows is missing."""
        if self.missing.total() > accepted * self.rows:
            raise Incomplete(str(self))

    def record(self) -> dict:
        """For a manifest: rows asked for, rejected and missing; empty where nobody was asked."""
        counts = {"rows": self.rows, "rejected": dict(self.rejected), "missing": dict(self.missing)}
        return {"teachers": counts} if self.rows else {}


def _listed(counts: dict) -> str:
    return ", ".join(f"{reason} {n:,}" for reason, n in sorted(counts.items(), key=lambda item: -item[1]))


def describe(counted: dict, outputs: dict | None = None) -> list[str]:
    """Lines on the rows that a finished stage does not have: rejects by reason, of its table of rejects where it has
    one, and the missing ones that were accepted."""
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
            f"{sum(missing.values()):,} of {about['rows']:,} rows missing ({_listed(missing)}), as teacher.accept_missing "
            "allows"
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
        """Set the note of a stage, or with None take it away."""
        if note is None and stage not in self.read():
            return
        with locked(self._path.with_name(".incomplete.json.lock")):
            write_sealed({name: n for name, n in (self.read() | {stage: note}).items() if n}, self._path)
