"""Decontamination: training rows that contain a question of an exam.

Rules in layers, the surest first; what a hit rests on is named in it. Coverage by n-grams follows Tulu 3 (arXiv
2411.15124); the other rules are our reading of what it misses: short items, sub-questions, replaced words."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from qatoolkit.core.qa_table import require
from qatoolkit.curate.comparison_text import comparable, join, option_set, stem, text_of, tokens, values_of
from qatoolkit.curate.exam_index import PARTS, SEPARATOR, ExamIndex
from qatoolkit.curate.settings import CurateSettings

RULES = {5: "exact", 4: "coverage", 3: "short", 2: "reworded", 1: "template"}
COLUMNS = ["row", "id", "exam", "exam_id", "rule", "part", "score", "overlap", "matched"]
_CHUNK = 10_000  # rows that are looked up together
_SIGN = re.compile(r"[+=<>≤≥≠×÷√]|(?<![^\W\d_])[-−](?=\s*\w)")


def decontaminate(
    table: pd.DataFrame,
    exams: Mapping[str, pd.DataFrame] | ExamIndex,
    *,
    n: int = 8,
    n_cjk: int = 13,
    min_overlap: float = 0.5,
    min_share: float = 0.7,
    evidence: float = 30.0,
    stock: int = 8,
    templates: bool = False,
) -> pd.DataFrame:
    """Rows that contain an exam question, the best hit per row and exam: row (position), id, exam, exam_id, rule, part,
    score, overlap (the same as score), matched (tokens of the row).

    Question, choices, rationale and answer of a row are looked at, as `tokens` reads them. Rules: `exact`, the same
    question of any length, with half of the options where both have some; `coverage`, `min_overlap` of the tokens of a
    part of the item are in n-grams that the row has too (n_cjk for mostly Chinese parts; stock phrases don't count);
    `reworded` and, of items without n-grams, `short`: aligned with the row, `min_share` of the part by weight, or half
    of it and three of four options. A part is the question, a sub-question or the last sentence of a passage. Except
    for `exact`, what matches must weigh `evidence` nats (sums of log inverse document frequencies), and the numbers
    and negations in it must be the same; where they are others, it is a `template`: no contamination, listed with
    `templates`. ValueError for an exam without a question column.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> exam = pd.DataFrame({"id": ["e1"], "question": ["Which animal sleeps for only thirty minutes a day?"]})
    >>> asked = "Explain your answer: which animal sleeps for only 30 minutes a day?"
    >>> table = qt.qa_table([{"question": asked, "answer": "the giraffe"}], language="en", source="zoo")
    >>> qt.curate.decontaminate(table, {"zoo exam": exam})[["row", "exam_id", "rule", "score"]]
       row exam_id      rule  score
    0    0      e1  coverage    1.0
    """
    from qatoolkit.curate.compiled.exam_rules import CANDIDATES, TEMPLATE, find

    require("the table to decontaminate", table, "id", "question")
    index = exams if isinstance(exams, ExamIndex) else ExamIndex.build(exams, n=n, n_cjk=n_cjk, stock=stock)
    found, ids = [], table["id"].to_numpy()
    for start, rows, words, coded in _chunks(table, index) if len(index) else ():
        hits = np.zeros((len(rows) * CANDIDATES, 6))
        count = find(*coded, index.arrays, min_overlap, min_share, evidence, hits)
        best: dict[tuple[int, str], tuple] = {}
        for row, part, rule, score, first, last in hits[:count]:
            row, part, item = int(row), int(part), int(index.part_item[int(part)])
            rule = _checked(int(rule), rows.iloc[row], index.items, item)
            place, rank = (row, index.items["exam"].iat[item]), (rule, score)
            if rule and (templates or rule > TEMPLATE) and rank > best.get(place, ((0, 0),))[0]:
                best[place] = rank, item, part, join(words[row][int(first) : int(last)])[:300]
        found += [
            (start + row, ids[start + row], exam, index.items["id"].iat[item], RULES[rule],
             PARTS[index.part_name[part]], score, score, matched)
            for (row, exam), ((rule, score), item, part, matched) in sorted(best.items())
        ]  # fmt: skip
    return pd.DataFrame(found, columns=COLUMNS).astype({"row": int, "score": float, "overlap": float})


def exam_options(settings: CurateSettings) -> dict:
    """The arguments of `decontaminate` in the settings of curation."""
    return {
        "n": settings.exam_n,
        "n_cjk": settings.exam_n_cjk,
        "min_overlap": settings.exam_overlap,
        "min_share": settings.exam_share,
        "evidence": settings.exam_evidence,
        "stock": settings.exam_stock,
    }


def _chunks(table: pd.DataFrame, index: ExamIndex) -> Iterator[tuple]:
    """Rows in chunks: (first row, rows, their tokens, (ids, offsets, tokens of the question))."""
    columns = [name for name in ("question", "choices", "rationale", "answer") if name in table.columns]
    for start in range(0, len(table), _CHUNK):
        rows = table.iloc[start : start + _CHUNK]
        words, asked = [], []
        for values in zip(*(values_of(rows, column) for column in columns), strict=True):
            row = dict(zip(columns, values, strict=True))
            question = tokens(stem(row["question"]))
            asked.append(len(question))
            choices = row.get("choices")
            texts = [*(choices if choices is not None else ()), row.get("rationale"), row.get("answer")]
            for text in texts:
                if text is not None:
                    question += [SEPARATOR, *tokens(text)]
            words.append(question)
        ids = index.encode(words)
        offsets = np.r_[0, np.cumsum([len(text) + 1 for text in words])].astype(np.int64)
        yield start, rows, words, (ids, offsets, np.array(asked, dtype=np.int64))


def _checked(rule: int, row: pd.Series, items: pd.DataFrame, item: int) -> int:
    """The rule that remains of a hit once signs and options are compared, 0 for none."""
    question, choices = items["question"].iat[item], items["choices"].iat[item]
    own, theirs = _signs(row["question"]), _signs(question)
    if rule in (5, 3, 2) and not _share_options(option_set(_value(row, "choices")), option_set(choices)):
        return 0
    if rule == 5:
        return 5 if own == theirs else 1
    if rule in (3, 2) and theirs - _signs(" ".join(_texts(row))):
        return 1
    return rule


def _signs(text) -> Counter:
    return Counter(_SIGN.findall(comparable(text).replace("−", "-")))


def _texts(row: pd.Series) -> list[str]:
    choices = _value(row, "choices")
    return [*map(text_of, choices if choices is not None else ()), *(text_of(_value(row, c)) for c in ("question", "rationale", "answer"))]


def _value(row: pd.Series, column: str):
    return values_of(row.to_frame().T, column)[0]


def _share_options(a: frozenset | None, b: frozenset | None) -> bool:
    return a is None or b is None or 2 * len(a & b) >= min(len(a), len(b))
