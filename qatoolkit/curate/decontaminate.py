"""Decontamination: finds training rows that contain an exam question.

The rules are tried from the strictest to the loosest, and each hit names its rule. Coverage by n-grams follows Tulu 3
(arXiv 2411.15124); the other rules are ours, for what it misses: short items, sub-questions, replaced words."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pandas as pd

from qatoolkit.answers.same_answer import same_answer
from qatoolkit.core.qa_table import require
from qatoolkit.core.text import is_cjk
from qatoolkit.curate.comparison_text import SEPARATOR, comparable, read_tokens, stem, text_of, tokens, values_of
from qatoolkit.curate.exam_arrays import COVERAGE, EXACT, PARTS, REWORDED, SHORT, TEMPLATE
from qatoolkit.curate.exam_index import ExamIndex, answers_of
from qatoolkit.curate.settings import CurateSettings

RULES = {EXACT: "exact", COVERAGE: "coverage", SHORT: "short", REWORDED: "reworded", TEMPLATE: "template"}
SURE = 0.9  # below this score, a different answer means a different question
COLUMNS = ["row", "id", "exam", "exam_id", "rule", "part", "score", "matched"]
_COLUMNS = ("question", "choices", "rationale", "answer")
_CHUNK = 4000  # rows looked up together
_FUNCTIONS = frozenset(
    ("sin", "cos", "tan", "cot", "sec", "csc", "ln", "log", "lg", "exp", "sqrt", "lim", "max", "min")
)
_SIGN = re.compile(r"[+=<>≤≥≠×÷√]|(?<![^\W\d_])(?<!-)[-−](?=\s*(?:\d|\(|[^\W\d_](?![^\W\d_])))")


def decontaminate(
    table: pd.DataFrame,
    exams: Mapping[str, pd.DataFrame] | ExamIndex,
    *,
    n: int = 8,
    n_cjk: int = 13,
    min_overlap: float = 0.5,
    min_share: float = 0.7,
    evidence: float = 30.0,
    stock: int = 5,
    templates: bool = False,
) -> pd.DataFrame:
    """Rows that contain an exam question, the best hit per row and exam: row (position), id, exam, exam_id, rule, part,
    score, matched (the row's text, normalised).

    The question, choices, rationale and answer of a row are searched, normalised by `tokens`. An item is searched for
    in parts: the question, each sub-question, the last sentence of a passage. Rules:

    - `exact`: the same question, of any length, with half of the options where both have some;
    - `coverage`: `min_overlap` of the part's tokens are in n-grams that the row has too (n_cjk for mostly Chinese
      parts; stock phrases don't count), or the whole question occurs verbatim;
    - `reworded`, or `short` for items without n-grams: in an alignment with the row, `min_share` of the part's weight
      matches, or half of it and three of four options.

    Except for `exact`, the matching tokens must weigh `evidence` nats (sum of log inverse document frequencies) and
    their numbers and negations must be the same. Below a score of 0.9 the answers must not be certainly different, and
    then or where words are replaced the row must have half of the item's formulas, compared by three symbols in a row.
    Else the hit is a `template`: no contamination, listed only with `templates`. ValueError for an exam without a
    question column.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> exam = pd.DataFrame({"id": ["e1"], "question": ["Which animal sleeps for only thirty minutes a day?"]})
    >>> asked = "Explain your answer: which animal sleeps for only 30 minutes a day?"
    >>> table = qt.qa_table([{"question": asked, "answer": "the giraffe"}], language="en", source="zoo")
    >>> qt.curate.decontaminate(table, {"zoo exam": exam})[["row", "exam_id", "rule", "score"]]
       row exam_id      rule  score
    0    0      e1  coverage    1.0
    """
    from qatoolkit.curate.compiled.exam_rules import CANDIDATES, find

    require("the table to decontaminate", table, "id", "question")
    index = exams if isinstance(exams, ExamIndex) else ExamIndex.build(exams, n=n, n_cjk=n_cjk, stock=stock)
    found, ids, items = [], table["id"].to_numpy(), index.lists
    for start, rows, joined, spans, coded in _chunks(table, index) if len(index) else ():
        hits = np.zeros((len(rows) * CANDIDATES, 6))
        hits = hits[: find(*coded, index.arrays, min_overlap, min_share, evidence, hits)]
        best: dict[tuple[int, str], tuple] = {}
        for row, part, rule, score, first, last in hits[np.lexsort((-hits[:, 3], -hits[:, 2], hits[:, 0]))]:
            row, part, rule = int(row), int(part), int(rule)
            item = index.part_item[part]
            key = (row, items["exam"][item])
            if rule <= best.get(key, (0,))[0]:
                continue
            whole = PARTS[index.part_name[part]] == "question"
            item_of = (items[name][item] for name in ("question", "choices", "answer"))
            rule = _recheck(rule, whole, score < SURE, rows[row], *item_of)
            if rule > (0 if templates else TEMPLATE) and rule > best.get(key, (0,))[0]:
                begin, end = spans[0, coded[1][row] + int(first)], spans[1, coded[1][row] + int(last) - 1]
                best[key] = rule, score, item, part, " ".join(joined[begin:end].replace(SEPARATOR, " ").split())[:300]
        found += [
            (start + row, ids[start + row], exam, items["id"][item], RULES[rule], PARTS[index.part_name[part]],
             score, matched)
            for (row, exam), (rule, score, item, part, matched) in best.items()
        ]  # fmt: skip
    return pd.DataFrame(found, columns=COLUMNS).astype({"row": int, "score": float})


def exam_options(settings: CurateSettings) -> dict:
    """The thresholds of `decontaminate`, from the settings of curation."""
    return {"min_overlap": settings.exam_overlap, "min_share": settings.exam_share, "evidence": settings.exam_evidence}


def index_exams(
    exams: Mapping[str, pd.DataFrame],
    settings: CurateSettings,
    reference: Iterable[str] = (),
    folder: str | None = None,
) -> ExamIndex:
    """`ExamIndex.build` with the settings of curation."""
    sizes = {"n": settings.exam_n, "n_cjk": settings.exam_n_cjk, "stock": settings.exam_stock}
    return ExamIndex.build(exams, folder, **sizes, reference=reference)


def _chunks(table: pd.DataFrame, index: ExamIndex) -> Iterator[tuple]:
    """Rows in chunks: (first row, texts by column, all of them joined, where each token is in that, (token ids, offsets,
    number of tokens of the question))."""
    for start in range(0, len(table), _CHUNK):
        chunk = table.iloc[start : start + _CHUNK]
        rows = list(zip(*(values_of(chunk, name) for name in _COLUMNS), answers_of(chunk), strict=True))
        texts = ((stem(question), *(choices if choices is not None else ()), rationale, answer)
                 for question, choices, rationale, _, answer in rows)  # fmt: skip
        whole = (f" {SEPARATOR} ".join(map(text_of, each)) for each in texts)
        joined, coded, spans, counts = read_tokens(whole, index.vocabulary.__getitem__)
        offsets = np.r_[0, np.cumsum(counts)]
        separators = np.flatnonzero(coded == 0)
        asked = separators[np.searchsorted(separators, offsets[:-1])] - offsets[:-1]
        yield start, rows, joined, spans, (coded, offsets, asked)


def _recheck(rule: int, whole: bool, loose: bool, row: tuple, question: str, choices, answer: str) -> int:
    """The hit's rule after options and, for a `whole` question, signs, answers (if the match is `loose`) and formulas
    are compared; 0 if it is no hit.

    Many stems are only "Which of the following is true?", and a passage has several questions: where both have options,
    half of them must be shared, or the answer."""
    row_question, options, *others = row
    both = options is not None and choices is not None
    if both and _differ(options, choices) and _plain(others[-1]) != _plain(answer):
        return TEMPLATE if rule != EXACT else 0
    if rule == EXACT:
        row_signs, exam_signs = _signs(row_question), _signs(question)
        inlined = options is None and choices is not None
        return EXACT if row_signs == exam_signs or (inlined and not exam_signs - row_signs) else TEMPLATE
    reworded = rule in (SHORT, REWORDED)
    if not whole or not (loose or reworded):
        return rule
    if loose and same_answer(others[-1], answer) is False:
        return TEMPLATE
    text = SEPARATOR.join(map(text_of, (row_question, *(options if options is not None else ()), *others)))
    if reworded and _signs(question) - _signs(text):
        return TEMPLATE
    formulas = _formulas(stem(question))
    return TEMPLATE if len(formulas - _formulas(text)) > len(formulas) / 2 else rule


def _formulas(text: str) -> set[tuple[str, ...]]:
    """Every three symbols of a text that follow each other: numbers, letters, functions."""
    symbols = [
        word if word[0].isdigit() or (len(word) == 1 and not is_cjk(word)) or word in _FUNCTIONS else SEPARATOR
        for word in tokens(text)
    ]
    return {each for each in zip(symbols, symbols[1:], symbols[2:], strict=False) if SEPARATOR not in each}


def _signs(text) -> Counter:
    return Counter(_SIGN.findall(comparable(text).replace("−", "-")))


def _differ(options, others) -> bool:
    """Whether fewer than half of the options are shared."""
    options, others = ({_plain(option) for option in each} for each in (options, others))
    return 2 * len(options & others) < min(len(options), len(others))


def _plain(text) -> str:
    return re.sub(r"[\s$]", "", comparable(text))
