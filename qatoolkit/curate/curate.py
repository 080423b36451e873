"""Selects the rows of a QA table to train on: filters, decontamination, conflicts, near-duplicates.

`curate` splits a table into kept and rejected rows; every rejected row has a reason. (Our reading: neither paper
describes its curation; the coverage rule of decontamination follows Tulu 3, arXiv 2411.15124.)
"""

from collections import Counter
from collections.abc import Collection, Mapping

import pandas as pd

from qatoolkit.answers.same_answer import same_answer
from qatoolkit.core.qa_table import require
from qatoolkit.core.text import is_missing
from qatoolkit.curate.comparison_text import (
    answer_keys,
    distinguishing_marks,
    option_set,
    stem,
    text_of,
    tokens,
    values_of,
)
from qatoolkit.curate.decontaminate import decontaminate, exam_options, index_exams
from qatoolkit.curate.exam_index import ExamIndex
from qatoolkit.curate.filters import filters, flags, options
from qatoolkit.curate.marks import apply_marks, read_marks
from qatoolkit.curate.meaning import same_meaning
from qatoolkit.curate.near_duplicates import near_duplicates
from qatoolkit.curate.settings import CurateSettings

Reasons = dict[int, tuple[str, str]]  # row -> reason and detail of its rejection


def curate(
    table: pd.DataFrame,
    exams: Mapping[str, pd.DataFrame] | ExamIndex | None = None,
    settings: CurateSettings | None = None,
    exam_parents: Collection[str] = (),
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Split a QA table into (kept, rejects, report); rows in = kept + rejects, both in table order.

    Order: marks made by hand (`settings.marks`: edits, rows marked bad), filters (reasons in `settings.reject` reject,
    the others flag), decontamination against every exam, conflicts (question and choices of an earlier row with a
    certainly different answer), near-duplicates. If the answers can't be compared, both rows are kept and the later one
    is flagged as undecided_answer. Rows with one of `exam_parents` (ids of seeds that an exam has) among their parents are
    flagged, or rejected, as exam_parent. `kept` has all columns plus `flagged`, the reasons that flag a row, joined by
    commas, null without any; `rejects` have all columns plus `reason` and `detail`, for the first reason found.
    `report`: rows and share of the strategy's rows by outcome (kept, rejected, flagged), reason and strategy.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> pairs = [("What do pandas eat?", "bamboo"), ("What do pandas eat?", "meat"), ("Who sleeps least?", "giraffe")]
    >>> table = qt.qa_table([{"question": q, "answer": a} for q, a in pairs], language="en", source="zoo")
    >>> exam = pd.DataFrame({"id": ["e1"], "question": ["Who sleeps least?"]})
    >>> kept, rejects, report = qt.curate.curate(table, {"zoo exam": exam})
    >>> len(kept), rejects[["answer", "reason"]].to_dict("records")
    (1, [{'answer': 'meat', 'reason': 'conflicting_answer'}, {'answer': 'giraffe', 'reason': 'contaminated'}])
    """
    settings = settings or CurateSettings()
    require("curate", table, "id", "question", "answer", "language", "source")
    table = table.reset_index(drop=True)
    reasons: Reasons = {}
    marked = []
    if settings.marks:
        table, reasons, marked = apply_marks(table, read_marks(settings.marks))
    by_hand = flags((row, id, mark, "", False) for row, id, mark in marked)
    found = [filters(table, **options(settings)), by_hand, _flag_parents(table, set(exam_parents), settings.reject)]
    for faults in found:
        for fault in faults[faults["reject"]].itertuples():
            reasons.setdefault(fault.row, (fault.reason, fault.detail))

    index = exams if isinstance(exams, ExamIndex) else index_exams(exams or {}, settings)
    contaminated, similar = _contaminated(_without(table, reasons), index, settings)
    reasons |= contaminated
    found.append(similar)
    if settings.conflicts:
        conflicting, undecided = _conflicting(_without(table, reasons))
        reasons |= conflicting
        found.append(undecided)
    reasons |= _repeated(_without(table, reasons), settings)
    if settings.meaning:
        found.append(_flag_meanings(_without(table, reasons), index.items, settings.meaning))
    faults = pd.concat(found, ignore_index=True)

    rejected = sorted(reasons)
    kept = _without(table, reasons)
    flagged = faults[~faults["reject"]].drop_duplicates(["row", "reason"]).groupby("row")["reason"].agg(", ".join)
    kept = kept.assign(flagged=pd.Series(flagged, dtype=object).reindex(kept.index)).reset_index(drop=True)
    rejects = table.iloc[rejected].reset_index(drop=True)
    rejects["reason"] = pd.Series([reasons[row][0] for row in rejected], dtype="str")
    rejects["detail"] = pd.Series([reasons[row][1] for row in rejected], dtype="str")
    return kept, rejects, _report(table, reasons, faults)


def _flag_parents(table: pd.DataFrame, ids: set[str], reject: Collection[str]) -> pd.DataFrame:
    """Faults of the rows with one of `ids` among their parents."""
    found = []
    for row, parents in enumerate(values_of(table, "parents") if ids else ()):
        parents = () if is_missing(parents) else {parents} if isinstance(parents, str) else parents
        if shared := ids.intersection(parents):
            detail = ", ".join(sorted(shared))
            found.append((row, table["id"].iloc[row], "exam_parent", detail, "exam_parent" in reject))
    return flags(found)


def _contaminated(table: pd.DataFrame, index: ExamIndex, settings: CurateSettings) -> tuple[Reasons, pd.DataFrame]:
    """Reasons for the rows that contain an exam question, and flags for those that only share a template with one."""
    reasons, similar = {}, []
    for hit in decontaminate(table, index, templates=True, **exam_options(settings)).itertuples():
        row = int(table.index[hit.row])
        detail = f"{hit.exam} {hit.exam_id}, {hit.rule} {hit.score:.0%} of the {hit.part}: {hit.matched[:120]!r}"
        if hit.rule == "template":
            similar.append((row, hit.id, "exam_template", detail, False))
        else:
            reasons.setdefault(row, ("contaminated", detail))
    return reasons, flags(similar)


def _conflicting(table: pd.DataFrame) -> tuple[Reasons, pd.DataFrame]:
    """Reasons for the rows with the question and choices of an earlier row and certainly another answer, and flags for
    those whose answer may differ."""
    reasons, undecided = {}, []
    for row, first, certain in _conflicts(table):
        other = text_of(table["answer"].iloc[first])[:80]
        detail = f"same question as {table['id'].iloc[first]}, which answers {other!r}"
        if certain:
            reasons[int(table.index[row])] = ("conflicting_answer", detail)
        else:
            undecided.append((int(table.index[row]), table["id"].iloc[row], "undecided_answer", detail, False))
    return reasons, flags(undecided)


def _repeated(table: pd.DataFrame, settings: CurateSettings) -> Reasons:
    """Reasons for the near-duplicates of rows that are kept."""
    near = near_duplicates(
        table, threshold=settings.near_threshold, on=settings.on, n=settings.shingle, seed=settings.seed
    )
    kept_ids = near[near["keep"]].set_index("cluster")["id"]
    return {
        int(table.index[position]): (
            "near_duplicate", f"of {kept_ids[row['cluster']]}, Jaccard {row['similarity']:.2f}"
        )
        for position, row in near[~near["keep"]].iterrows()
    }  # fmt: skip


def _flag_meanings(table: pd.DataFrame, items: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Flags for rows that mean the same as an exam item or an earlier row."""
    found = []
    for reason, others in (("exam_meaning", items), ("same_meaning", None)):
        for hit in same_meaning(table, others, threshold=threshold).itertuples():
            detail = f"cosine {hit.cosine:.2f} with {hit.other_id}"
            found.append((int(table.index[hit.row]), hit.id, reason, detail, False))
    return flags(found)


def _report(table: pd.DataFrame, reasons: Mapping, faults: pd.DataFrame) -> pd.DataFrame:
    strategy = [text_of(value) or "unknown" for value in values_of(table, "strategy")]
    counts = Counter(
        (("rejected", reasons[row][0]) if row in reasons else ("kept", "")) + (strategy[row],)
        for row in range(len(table))
    )
    flagged = faults[~faults["reject"] & ~faults["row"].isin(list(reasons))]
    counts.update(("flagged", fault.reason, strategy[fault.row]) for fault in flagged.itertuples())
    order = {"kept": 0, "rejected": 1, "flagged": 2}
    rows = sorted(((*key, n) for key, n in counts.items()), key=lambda r: (order[r[0]], r[1], r[2]))
    report = pd.DataFrame(rows, columns=["outcome", "reason", "strategy", "rows"])
    report["share"] = report["rows"] / report["strategy"].map(Counter(strategy)).astype(float)
    return report


def _conflicts(table: pd.DataFrame) -> list[tuple[int, int, bool]]:
    """(row, earlier row, certain): the same question and choices, and answers that differ (certain) or may differ."""
    firsts, found = {}, []
    keys = answer_keys(table)
    options = [option_set(choices) for choices in values_of(table, "choices")]
    for row, text in enumerate(table["question"]):
        question = stem(text)
        first = firsts.setdefault((tuple(tokens(question)), distinguishing_marks(question), options[row]), row)
        if keys[first] != keys[row]:
            same = same_answer(keys[first], keys[row])
            if not same:
                found.append((row, first, same is False))
    return found


def _without(table: pd.DataFrame, reasons: Mapping) -> pd.DataFrame:
    return table.drop(index=list(reasons))
