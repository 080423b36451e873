"""Which rows of a QA table go into training, and why the others do not.

Filters, decontamination, conflicts, near-duplicates. `curate` splits a table into kept and rejected rows, and every
rejected row has a reason. (Our reading: neither paper describes its curation; the coverage rule of decontamination
follows Tulu 3, arXiv 2411.15124.)
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import pandas as pd

from qatoolkit.answers.same_answer import choice_consistent, same_answer
from qatoolkit.core.prompt_format import lacks_choices
from qatoolkit.core.qa_table import require
from qatoolkit.core.text import CJK, missing
from qatoolkit.curate.comparison_text import answer_keys, marks, option_set, stem, text_of, tokens, values_of
from qatoolkit.curate.decontaminate import decontaminate, exam_options, index_exams
from qatoolkit.curate.exam_index import ExamIndex
from qatoolkit.curate.marks import apply_marks, read_marks
from qatoolkit.curate.near_duplicates import near_duplicates
from qatoolkit.curate.settings import CurateSettings

_UNREADABLE = re.compile("[\ufffd\ue000-\uf8ff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def curate(
    table: pd.DataFrame,
    exams: Mapping[str, pd.DataFrame] | ExamIndex | None = None,
    settings: CurateSettings | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Split a QA table into (kept, rejects, report); rows in = kept + rejects, both in table order.

    Order: marks of a person (`settings.marks`: edits, and what is marked bad), filters, decontamination against every exam, conflicts (question and choices of an earlier row with a
    surely different answer), near-duplicates. Where it can't be told whether the answers differ, both rows stay, flagged
    as undecided_answer. `rejects` have all columns plus `reason` and `detail`, for the first reason
    found. `report`: rows and share of the strategy's rows by outcome (kept, rejected, flagged), reason and strategy.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> said = [("What do pandas eat?", "bamboo"), ("What do pandas eat?", "meat"), ("Who sleeps least?", "giraffe")]
    >>> table = qt.qa_table([{"question": q, "answer": a} for q, a in said], language="en", source="zoo")
    >>> exam = pd.DataFrame({"id": ["e1"], "question": ["Who sleeps least?"]})
    >>> kept, rejects, report = qt.curate.curate(table, {"zoo exam": exam})
    >>> len(kept), rejects[["answer", "reason"]].to_dict("records")
    (1, [{'answer': 'meat', 'reason': 'conflicting_answer'}, {'answer': 'giraffe', 'reason': 'contaminated'}])
    """
    settings = settings or CurateSettings()
    require("curate", table, "id", "question", "answer", "language", "source")
    table = table.reset_index(drop=True)
    reasons: dict[int, tuple[str, str]] = {}

    marked = []
    if settings.marks:
        table, reasons, marked = apply_marks(table, read_marks(settings.marks))
    faults = filters(table, max_question=settings.max_question, max_answer=settings.max_answer)
    faults = pd.concat([faults, flags((row, id, mark, "", False) for row, id, mark in marked)], ignore_index=True)
    for fault in faults[faults["reject"]].itertuples():
        reasons.setdefault(fault.row, (fault.reason, fault.detail))

    rest = _without(table, reasons)
    index = exams if isinstance(exams, ExamIndex) else index_exams(exams or {}, settings)
    hits = decontaminate(rest, index, templates=True, **exam_options(settings))
    details = [
        f"{h.exam} {h.exam_id}, {h.rule} {h.score:.0%} of the {h.part}: {h.matched[:120]!r}" for h in hits.itertuples()
    ]
    for hit, detail in zip(hits.itertuples(), details, strict=True):
        if hit.rule != "template":
            reasons.setdefault(int(rest.index[hit.row]), ("contaminated", detail))
    same = hits.assign(detail=details)[hits["rule"] == "template"]
    faults = pd.concat(
        [faults, flags((int(rest.index[h.row]), h.id, "exam_template", h.detail, False) for h in same.itertuples())],
        ignore_index=True,
    )

    if settings.conflicts:
        rest = _without(table, reasons)
        undecided = []
        for row, first, surely in _conflicts(rest):
            other = text_of(rest["answer"].iloc[first])[:80]
            detail = f"same question as {rest['id'].iloc[first]}, which answers {other!r}"
            if surely:
                reasons[int(rest.index[row])] = ("conflicting_answer", detail)
            else:
                undecided.append((int(rest.index[row]), rest["id"].iloc[row], "undecided_answer", detail, False))
        faults = pd.concat([faults, flags(undecided)], ignore_index=True)

    rest = _without(table, reasons)
    near = near_duplicates(
        rest, threshold=settings.near_threshold, on=settings.on, n=settings.shingle, seed=settings.seed
    )
    kept_ids = near[near["keep"]].set_index("cluster")["id"]
    for position, row in near[~near["keep"]].iterrows():
        detail = f"of {kept_ids[row['cluster']]}, Jaccard {row['similarity']:.2f}"
        reasons[int(rest.index[position])] = ("near_duplicate", detail)

    rejected = sorted(reasons)
    kept = _without(table, reasons).reset_index(drop=True)
    rejects = table.iloc[rejected].reset_index(drop=True)
    rejects["reason"] = pd.Series([reasons[row][0] for row in rejected], dtype="str")
    rejects["detail"] = pd.Series([reasons[row][1] for row in rejected], dtype="str")
    return kept, rejects, _report(table, reasons, faults)


def filters(table: pd.DataFrame, *, max_question: int = 20_000, max_answer: int = 20_000) -> pd.DataFrame:
    """Faults of rows, possibly several per row: (row, id, reason, detail, reject); `row` is the position in the table.

    Rejected: empty_question, empty_answer, too_long, choices (they contradict the answer), no_choices (the question
    speaks of choices and there are none), language (the text is not in the stated language). Only flagged: answer_in_question, unreadable (replacement or control characters).

    >>> import qatoolkit as qt
    >>> rows = [{"question": "Which of the following lives in water?", "answer": "carp"}]
    >>> qt.curate.filters(qt.qa_table(rows, language="en", source="zoo"))[["reason", "detail", "reject"]]
           reason                                  detail  reject
    0  no_choices  Which of the following lives in water?    True
    """
    found = []
    columns = ("question", "answer", "choices", "answer_index", "language")
    for row, values in enumerate(zip(*(values_of(table, column) for column in columns), strict=True)):
        entry = dict(zip(columns, values, strict=True))
        question, answer = text_of(entry["question"]), text_of(entry["answer"])
        if not re.search(r"\w", question):
            found.append((row, "empty_question", repr(question[:40]), True))
        if not answer.strip():
            found.append((row, "empty_answer", repr(answer[:40]), True))
        for name, text, limit in (("question", question, max_question), ("answer", answer, max_answer)):
            if len(text) > limit:
                found.append((row, "too_long", f"{name} has {len(text)} characters, {limit} allowed", True))
        if len(question) > max_question or len(answer) > max_answer:
            continue  # skip the slower checks for texts of a million characters
        for reason, fault in (("choices", choice_consistent(entry)), ("language", _wrong_language(entry))):
            if fault:
                found.append((row, reason, fault, True))
        if missing(entry["choices"]) and lacks_choices(question):
            found.append((row, "no_choices", question[:80], True))
        if _repeats(question, answer):
            found.append((row, "answer_in_question", answer[:80], False))
        unreadable = _UNREADABLE.search(question + answer)
        if unreadable:
            found.append((row, "unreadable", f"U+{ord(unreadable[0]):04X}", False))
    table_ids = table["id"].to_numpy()
    return flags((row, table_ids[row], reason, detail, reject) for row, reason, detail, reject in found)


def flags(rows: Iterable[tuple]) -> pd.DataFrame:
    """Faults as `filters` returns them, from (row, id, reason, detail, reject)."""
    columns = ["row", "id", "reason", "detail", "reject"]
    return pd.DataFrame(list(rows), columns=columns).astype({"row": int, "reject": bool})


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
    """(row, earlier row, whether surely) with the same question and choices, and answers that are or may be different."""
    firsts, found = {}, []
    keys = answer_keys(table)
    options = [option_set(choices) for choices in values_of(table, "choices")]
    for row, text in enumerate(table["question"]):
        asked = stem(text)
        first = firsts.setdefault((tuple(tokens(asked)), marks(asked), options[row]), row)
        if keys[first] != keys[row]:
            same = same_answer(keys[first], keys[row])
            if not same:
                found.append((row, first, same is False))
    return found


def _without(table: pd.DataFrame, reasons: Mapping) -> pd.DataFrame:
    return table.drop(index=list(reasons))


def _wrong_language(row: Mapping) -> str | None:
    text = re.sub(r"\\[A-Za-z]+|\$[^$]*\$", " ", text_of(row["question"]))
    cjk, latin = len(re.findall(f"[{CJK}]", text)), len(re.findall(r"[A-Za-z]{2,}", text))
    if row["language"] == "en" and cjk > latin:
        return f"stated en, found {cjk} CJK characters and {latin} Latin words"
    if row["language"] == "zh" and not cjk and latin >= 4:
        return f"stated zh, found no CJK character and {latin} Latin words"
    return None


def _repeats(question: str, answer: str) -> bool:
    """Whether the question contains the answer; not for single words, which often occur by chance."""
    words = tokens(answer)
    return len(words) >= 2 and f" {' '.join(words)} " in f" {' '.join(tokens(question))} "
