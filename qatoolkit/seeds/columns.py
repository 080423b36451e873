"""From a record with any column names to the fields of a seed: layouts, languages, final answers.

Column names are compared without case, spaces and punctuation; of the names of a field, the first that a record has
wins. They are those of MMLU, MMLU-Pro, CMMLU, C-Eval, ARC, RACE, MedMCQA, HellaSwag, AQuA, MathQA, GSM8K, MATH,
TheoremQA, GAOKAO-Bench, PubMedQA, TAL-SCQ5K and instruction sets.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qatoolkit.core.taxonomy import LABELS
from qatoolkit.core.text import normalise
from qatoolkit.seeds.choices import (
    Choices,
    Fault,
    clean,
    find_readings,
    is_blank,
    make_choices,
    parse_choices,
    parse_literal,
    resolve,
    split_options,
)

NAMES = {
    "question": "question questiontext query questionstem stem problem problemstatement ctx prompt"
    " instruction body input 题目 題目 问题 問題 题干 q",
    "answer": "answer answerkey correctanswer correct correctoption correctchoice correctindex finalanswer"
    " finaldecision answervalue goldanswer gold target cop answerindex answeridx label output completion"
    " response answers solution 答案 正确答案",
    "context": "context contexts passage article background input 材料",
    "choices": "choices options candidates endings alternatives answerchoices answeroptionlist 选项 選項",
    "rationale": "rationale explanation analysis reasoning cot cotcontent chainofthought exp longanswer"
    " answeranalysis support solution 解析 解答",
    "language": "language lang",
    "licence": "licence license",
    "source": "source dataset",
    "source_id": "id questionid qid queid uid uuid index idx",
    "subject": "subject subjectname topicname topic category field type discipline 学科 科目",
    "level": "level difficulty difficultylevel grade 难度 年级",
    "knowledge_points": "knowledgepoints knowledgepoint knowledgepointroutes 知识点 知識點",
}
_NAMES = {field: names.split() for field, names in NAMES.items()}
_SHARED = ("context", "rationale")  # their names also occur in other fields: they take only a column that is still free
_LETTERED = re.compile(r"(?P<prefix>option|choice|opt|op|answer|ending|candidate|sol|选项|)(?P<mark>[a-j]|\d)")

_LANGUAGES = dict.fromkeys(("en", "eng", "english", "英文"), "en")
_LANGUAGES |= dict.fromkeys(("zh", "cn", "zho", "chinese", "中文"), "zh")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z][a-z]+")  # neither LaTeX commands nor points such as ABC
_ADDRESS = re.compile(r"https?://\S+")
_OTHER = re.compile(r"[\u0400-\u07ff\u0900-\u0fff\u3040-\u30ff\uac00-\ud7af]")  # Cyrillic to Tibetan, kana, Hangul


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A record as a row of the QA table, whose answer is read once its source has voted (only where it has choices)."""

    row: Mapping[str, object]
    choices: Choices | None
    readings: Mapping[str, tuple[int, ...]]


def find_layout(columns: tuple[str, ...], mapping: Mapping | None = None) -> dict[str, object]:
    """Field -> name of its column; for choices also a tuple of columns, one per choice.

    `mapping` takes precedence; its columns may be dotted paths into nested records."""
    by_name = {}
    for column in columns:
        by_name.setdefault(simplify(column), column)
    layout = {f: c if isinstance(c, str) else tuple(c) for f, c in (mapping or {}).items() if has(columns, c)}
    for field, names in _NAMES.items():
        if field in layout:
            continue
        free = [n for n in names if n in by_name and (field not in _SHARED or by_name[n] not in layout.values())]
        if free:
            layout[field] = by_name[free[0]]
    if "choices" not in layout and (lettered := _lettered(by_name)):
        layout["choices"] = lettered
    return layout


def simplify(name: object) -> str:
    """A name as it is compared: lower case, without spaces and punctuation."""
    return re.sub(r"[\W_]+", "", str(name).casefold())


def has(columns: tuple[str, ...], wanted: str | Iterable[str]) -> bool:
    """Whether records with these columns can have the wanted one, which may be a dotted path, or several."""
    wanted = [wanted] if isinstance(wanted, str) else wanted
    return all(w in columns or w.split(".")[0] in columns for w in wanted)


def _lettered(by_name):
    """The columns A, B, C, … or option1, option2, … in order; None if there are fewer than two."""
    marks = {}
    for name, column in by_name.items():
        if (m := _LETTERED.fullmatch(name)) and (m["prefix"] or m["mark"].isalpha()):
            marks.setdefault((m["prefix"], m["mark"].isalpha()), {})[m["mark"]] = column
    for (_, letters), found in marks.items():
        order = "abcdefghij" if letters else ("0123456789" if "0" in found else "123456789")
        run = [found[m] for i, m in enumerate(order) if all(k in found for k in order[: i + 1])]
        if len(run) > 1:
            return tuple(run)
    return None


def get(record: Mapping, column: str) -> object:
    """The cell of a column, or of a dotted path into nested objects; None if there is no such column."""
    if column in record:
        return record[column]
    for key in column.split("."):
        record = record.get(key) if isinstance(record, Mapping) else None
    return record


def unfold(record: dict) -> dict:
    """The record, with the fields of an object called "question" as its own: ARC keeps stem and choices there."""
    inner = record.get("question")
    if not isinstance(inner, Mapping):
        return record
    return {k: v for k, v in record.items() if k != "question"} | {str(k): v for k, v in inner.items()}


def draft(record: Mapping, layout: Mapping) -> Draft:
    """The fields of one record. Raises Fault where one is missing or unusable."""
    for field in ("question", "answer"):
        if field not in layout:
            columns = ", ".join(map(str, record))[:200]
            raise Fault(f"no_{field}", f"columns: {columns}; name one by mapping={{'{field}': ...}}")
    cell = {field: get(record, column) for field, column in layout.items() if isinstance(column, str)}
    question = _question(cell, layout)
    if not any(c.isalnum() for c in question):
        raise Fault("empty_question", f"column {layout['question']} has {question[:60]!r}")
    value, rationale = _answer(cell)
    answer = _joined(value)
    if not answer:
        raise Fault("empty_answer", f"column {layout['answer']} is empty")
    choices = _choices(record, layout)
    found = find_readings(value, choices) if choices else {}
    if not choices and (split := split_options(question)):
        question, choices, found = _embedded(question, value, *split)
    if not choices:
        answer, rationale = _boxed(answer, rationale)
    row = _own_labels(record, cell) | {"question": question, "answer": answer, "rationale": rationale or None}
    row["language"] = _language(cell.get("language"), question, choices)
    return Draft(row=row, choices=choices, readings=found)


def _question(cell, layout):
    """The question after the passage it is about, or before the input of its instruction."""
    if isinstance(cell["question"], list | dict):
        raise Fault("no_question", f"column {layout['question']} has a {type(cell['question']).__name__}, not a text")
    question, context = clean(cell["question"]), cell.get("context")
    if isinstance(context, list | tuple):
        context = "\n".join(clean(part) for part in context)
    context = clean(context) if isinstance(context, str) else ""
    if not question or not context:
        return question
    first, second = (question, context) if simplify(layout["context"]) == "input" else (context, question)
    return clean(f"{first}\n\n{second}")


def _answer(cell):
    """The answer's value (text, number or list) and the rationale; "… #### 12" is split into both."""
    value, rationale = cell["answer"], clean(cell.get("rationale"))
    if isinstance(value, str) and value.lstrip().startswith("["):
        written = parse_literal(value.strip())
        value = written if isinstance(written, list) and all(isinstance(w, str) for w in written) else value
    if isinstance(value, Mapping):  # SQuAD and TriviaQA: the first of several wordings
        value = next((value[k] for k in ("text", "value", "answer") if k in value), value)
        value = value[0] if isinstance(value, list | tuple) and value else value
    if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, str) and "####" in value:
        work, _, value = clean(value).rpartition("####")
        rationale = rationale or clean(work)
    return value, rationale


def _joined(value):
    """An answer as text: a list of texts joined by commas, other lists as JSON."""
    if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        return clean(", ".join(v.strip() for v in value))
    return clean(value)


def _boxed(answer, rationale):
    """The content of an open answer's last \\boxed{}, and the whole answer as rationale if it has none yet."""
    start = answer.rfind("\\boxed{")
    depth = 0
    for end in range(start + 6, len(answer) if start >= 0 else 0):
        depth += (answer[end] == "{") - (answer[end] == "}")
        if depth == 0:
            box = answer[start + 7 : end].strip()
            around = answer if (start, end) != (0, len(answer) - 1) else ""
            return (box, rationale or around) if box else (answer, rationale)
    return answer, rationale


def _choices(record, layout):
    """Choices of a record, or None; a short question may leave its last choice columns empty."""
    columns = layout.get("choices")
    if columns is None or isinstance(columns, str):
        return parse_choices(get(record, columns)) if columns else None
    cells = [get(record, column) for column in columns]
    while cells and is_blank(cells[-1]):
        cells.pop()
    return make_choices([clean(c) for c in cells]) if cells else None


def _embedded(question, value, stem, options):
    """Stem, choices and readings if the answer names options in the stem; else the question unchanged.

    Letters out of order ("D, A, C") fill several blanks: such an item stays open."""
    try:
        choices = make_choices(options)
    except Fault:
        return question, None, {}
    found = {
        reading: positions
        for reading, positions in find_readings(value, choices).items()
        if reading in ("letter", "text") and list(positions) == sorted(positions)
    }
    return (stem, choices, found) if found and any(c.isalnum() for c in stem) else (question, None, {})


def _own_labels(record, cell):
    """The source's own labels; those in the vocabulary of `LABELS` are kept as ours (a QA table read again)."""
    own = {f: clean(cell.get(f)) or None for f in ("subject", "level", "source_id", "licence", "source")}
    for column, allowed in LABELS.items():
        own[column] = record[column] if record.get(column) in allowed else None
    own["knowledge_points"] = _points(cell.get("knowledge_points"))
    return own


def _points(cell):
    """The texts of a cell of knowledge points, unchanged; `graph.knowledge_points.kps_from_column` splits them."""
    if isinstance(cell, str) and isinstance(written := parse_literal(cell.strip()), list):
        cell = written
    cells = cell if isinstance(cell, list | tuple) else [cell]
    return [text for c in cells if (text := clean(c))] or None


def detect_language(text: str) -> str:
    """The language by script: zh where Han characters outnumber words in Latin letters, else en.

    LaTeX commands, names of points (ABC) and web addresses do not count as words. Every language in Latin script counts
    as English. Raises Fault where another script has the most letters."""
    if text.isascii():
        return "en"
    text = _ADDRESS.sub(" ", text)
    han, words, other = len(_HAN.findall(text)), _WORD.findall(text), len(_OTHER.findall(text))
    if other > han / 2 + sum(map(len, words)):
        raise Fault("other_language", repr(text[:60]))
    return "zh" if han > len(words) else "en"


def _language(own, question, choices):
    """The source's own label if it has one, else by the script of question and choices."""
    if is_blank(own):
        return detect_language(" ".join((question, *choices.texts)) if choices else question)
    label = re.split("[-_]", normalise(clean(own)))[0]
    if label not in _LANGUAGES:
        raise Fault("other_language", f"the source says {own!r}")
    return _LANGUAGES[label]


def finish(seed: Draft, order: tuple[str, ...]) -> dict[str, object]:
    """A draft as a row of the QA table, its answer by the first reading of `order` that fits. Raises Fault if none."""
    if not seed.choices:
        return {**seed.row, "choices": None, "answer_index": None}
    answer, index = resolve(seed.row["answer"], seed.choices, seed.readings, order)
    return {**seed.row, "answer": answer, "answer_index": index, "choices": list(seed.choices.texts)}
