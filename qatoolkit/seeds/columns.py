"""From a record whose columns are known (`fitting`) to the fields of a seed."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from qatoolkit.core.taxonomy import LABELS
from qatoolkit.core.text import normalise
from qatoolkit.seeds.choices import (
    Choices,
    Fault,
    as_truth,
    clean,
    is_blank,
    make_choices,
    parse_literal,
    simplify,
    split_options,
)
from qatoolkit.seeds.fitting import Columns, get, read_choices, read_marked
from qatoolkit.seeds.layouts import POINTERS
from qatoolkit.seeds.open_answers import as_wordings, read_list, split_work, unwrap, with_unit
from qatoolkit.seeds.readings import find_readings, resolve

_LANGUAGES = dict.fromkeys(("en", "eng", "english", "英文"), "en")
_LANGUAGES |= dict.fromkeys(("zh", "cn", "zho", "chinese", "中文"), "zh")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z][a-z]+")  # neither LaTeX commands nor points such as ABC
_UNANSWERABLE = re.compile(
    r"(?i)no[ _]?answer(?:[ _](?:present|found|available))?\.?|un-?answerable|cannot ?answer|not ?found"
)
_ADDRESS = re.compile(r"https?://\S+")
_OTHER_SCRIPT = re.compile(r"[\u0400-\u07ff\u0900-\u0fff\u3040-\u30ff\uac00-\ud7af]")  # Cyrillic to Hangul


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A record as a row of the QA table. If it has choices, or its answer is a list of texts, the answer is resolved
    after its source has voted."""

    row: Mapping[str, object]
    choices: Choices | None
    readings: Mapping[str, tuple[int, ...]]
    texts: tuple[str, ...] = ()


def draft_row(record: Mapping, columns: Columns) -> Draft:
    """The fields of one record. Raises Fault if one is missing or unusable."""
    fields = columns.fields
    cell = {name: get(record, c) for name, c in fields.items() if name not in ("question", "choices", "wrong")}
    if "question" not in fields:
        raise _missing_field("question", record)
    question = _read_question(record, fields)
    if not any(c.isalnum() for c in question):
        raise Fault("empty_question", f"column {fields['question']} has {question[:60]!r}")
    value, rationale = unwrap(cell.get("answer")), _as_text(cell.get("rationale"))
    if "mark" in cell and as_truth(cell["mark"], fields["mark"]) is False:
        raise Fault("marked_wrong", f"column {fields['mark']} has {cell['mark']!r}")
    choices = _read_row_choices(record, fields, question, value)
    if not choices and (as_truth(cell.get("impossible")) or as_truth(cell.get("answerable")) is False):
        raise Fault("unanswerable", f"column {fields.get('impossible') or fields['answerable']}")
    texts, found = (), {}
    if choices:
        if isinstance(value, str) and "\\boxed" in value:
            value, rationale = split_work(value, rationale)
        found = _find_row_readings(value, choices, fields)
        for column, readings in columns.checks.items():
            named = find_readings(get(record, column), choices)
            named = {named[reading] for reading in readings if reading in named}
            if found and named and not named & set(found.values()):
                raise Fault("two_answers", f"{str(value)[:40]!r}, but {column} has {str(get(record, column))[:40]!r}")
    else:
        texts, kind = read_list(value, columns.lists)
        found = {kind: ()} if texts else {}
        if split := split_options(question):
            question, choices, found = _read_embedded(question, value, *split, found, fields.get("answer"))
    texts = () if choices else texts
    if not choices and (isinstance(value, dict) or (isinstance(value, list) and any(map(_is_nested, value)))):
        raise Fault("nested_answer", str(value)[:60])
    if not choices and not texts:
        value, rationale = split_work(value, rationale)
        value = _read_number(value, cell, fields)
    answer = ", ".join(map(clean, value)) if _is_texts(value) else clean(value)
    if not answer and "mark" not in found:
        raise Fault("empty_answer", f"column {fields['answer']} is empty")
    if not choices and _UNANSWERABLE.fullmatch(answer):
        raise Fault("unanswerable", f"the answer is {answer!r}")
    row = _read_labels(record, cell) | {"question": question, "answer": answer, "rationale": rationale or None}
    row["aliases"] = as_wordings(cell["aliases"]) if cell.get("aliases") else ()
    row["language"] = _read_language(cell.get("language"), question, choices)
    return Draft(row=row, choices=choices, readings=found, texts=texts)


def _read_row_choices(record, fields, question, value):
    """Choices of a record, or None. Raises Fault if there is neither an answer nor a mark."""
    if is_blank(value) or value == [] or value == {}:
        choices = (read_marked if "marks" in fields else read_choices)(record, fields)
        if choices and choices.right:
            return choices
        if "answer" not in fields:
            raise _missing_field("answer", record)
        raise Fault("empty_answer", f"column {fields['answer']} is empty")
    if "wrong" in fields and (wrong := _read_wrong(record, fields["wrong"])):
        return _add_wrong(question, clean(value), wrong)
    return (read_marked if "marks" in fields else read_choices)(record, fields)


def _find_row_readings(value, choices, fields):
    """The readings of an answer among choices: the source's mark, else all that fit. Raises Fault if answer and mark
    contradict each other."""
    names = fields.get("choices")
    if isinstance(names, tuple) and isinstance(value, str) and len(value) > 1:  # "option2"
        value = dict(zip(map(simplify, names), choices.labels, strict=False)).get(simplify(value), value)
    found = {} if choices.right and is_blank(value) else find_readings(value, choices)
    if choices.right and found and choices.right not in found.values():
        raise Fault("bad_choices", f"the answer {str(value)[:40]!r} is not the choice that is marked right")
    return {"mark": choices.right} if choices.right else found


def _read_number(value, cell, fields):
    """An open answer with its power of ten and its unit."""
    value = clean(value[0] if isinstance(value, list) and len(value) == 1 else value)
    if "unit" not in fields and "power" not in fields:
        return value
    factor = "power" in fields and simplify(fields["power"]) in ("multiplier", "factor")
    return with_unit(value, cell.get("unit"), cell.get("power"), factor=factor)


def _missing_field(field, record):
    names = ", ".join(map(str, record))[:200]
    return Fault(f"no_{field}", f"columns: {names}; name one by mapping={{'{field}': ...}}")


def _is_nested(item):
    return isinstance(item, dict) or (isinstance(item, list) and any(isinstance(i, str | list | dict) for i in item))


def _is_texts(value):
    return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)


def _as_text(cell):
    """A cell as text: the texts of lists, and of the lists in an object, one per line."""
    if isinstance(cell, dict):
        cell = [v for v in cell.values() if isinstance(v, list)]
    if isinstance(cell, list | tuple) and any(isinstance(c, str | list | tuple) for c in cell):
        return clean("\n".join(filter(None, map(_as_text, cell))))
    return clean(cell)


def _read_question(record, fields):
    """The question, after the passage it is about or before the input of its instruction."""
    column = fields["question"]
    cells = [get(record, c) for c in column] if isinstance(column, tuple) else [get(record, column)]
    if any(isinstance(a, list | dict) for a in cells):
        raise Fault("no_question", f"column {column} has a {type(cells[0]).__name__}, not a text")
    question, passages = " ".join(filter(None, map(clean, cells))), fields.get("context", ())
    passages = [get(record, c) for c in ([passages] if isinstance(passages, str) else passages)]
    context = "\n\n".join(filter(None, (_as_text(p) for p in passages if isinstance(p, str | list | tuple))))
    if not question or not context:
        return question
    first, second = (question, context) if simplify(fields["context"]) == "input" else (context, question)
    return clean(f"{first}\n\n{second}")


def _read_wrong(record, column):
    """The texts of the wrong answers, from one cell or several."""
    if isinstance(column, tuple):
        return [text for c in column if (text := clean(get(record, c)))]
    cell = get(record, column)
    return list(as_wordings(cell if isinstance(cell, str | list | tuple | dict) or is_blank(cell) else [cell]))


def _add_wrong(question, right, wrong):
    """Choices made of a right answer and wrong ones; the position of the right one is a hash of the question."""
    position = hashlib.sha256(normalise(question).encode()).digest()[0] % (len(wrong) + 1)
    return make_choices([*wrong[:position], right, *wrong[position:]], right=(position,))


def _read_embedded(question, value, stem, options, unread, column):
    """Stem, choices and readings if the answer names options in the question text; else the question unchanged.

    Letters out of order ("D, A, C") fill several blanks, so such a question keeps no choices. A number names an option
    only if its column is called so (label, correct_option), since it may be the answer itself."""
    names = isinstance(column, str) and simplify(column).endswith(
        ("label", "option", "choice", "cop", "key", "correct", *POINTERS)
    )
    blanks = isinstance(value, str) and re.search("[;；|]", value)  # "A; C" answers two of them
    try:
        choices = make_choices(options)
    except Fault:
        return question, None, unread
    found = {
        reading: positions
        for reading, positions in find_readings(value, choices).items()
        if (names or reading in ("letter", "text")) and list(positions) == sorted(positions) and not blanks
    }
    return (stem, choices, found) if found and any(c.isalnum() for c in stem) else (question, None, unread)


def _read_labels(record, cell):
    """The source's labels. Those with values from `LABELS` are used as they are (a QA table read again)."""
    labels = {f: clean(cell.get(f)) or None for f in ("subject", "level", "source_id", "licence", "source")}
    for column, allowed in LABELS.items():
        labels[column] = record[column] if record.get(column) in allowed else None
    labels["knowledge_points"] = _read_knowledge_points(cell.get("knowledge_points"))
    return labels


def _read_knowledge_points(cell):
    """The texts in a cell of knowledge points, unchanged; `graph.knowledge_points.kps_from_column` splits them."""
    if isinstance(cell, str) and isinstance(written := parse_literal(cell.strip()), list):
        cell = written
    cells = cell if isinstance(cell, list | tuple) else [cell]
    return [text for c in cells if (text := clean(c))] or None


def detect_language(text: str) -> str:
    """The language by script: zh if Han characters outnumber words in Latin letters, else en.

    LaTeX commands, names of points (ABC) and web addresses do not count as words. Every language in Latin script counts
    as English. Raises Fault if another script has the most letters."""
    if text.isascii():
        return "en"
    text = _ADDRESS.sub(" ", text)
    han, words, other = len(_HAN.findall(text)), _WORD.findall(text), len(_OTHER_SCRIPT.findall(text))
    if other > han / 2 + sum(map(len, words)):
        raise Fault("other_language", repr(text[:60]))
    return "zh" if han > len(words) else "en"


def _read_language(label, question, choices):
    """The source's label if it has one, else the language by the script of question and choices."""
    if is_blank(label):
        return detect_language(" ".join((question, *choices.texts)) if choices else question)
    code = re.split("[-_]", normalise(clean(label)))[0]
    if code not in _LANGUAGES:
        raise Fault("other_language", f"the source says {label!r}")
    return _LANGUAGES[code]


def finish_row(seed: Draft, order: tuple[str, ...]) -> dict[str, object]:
    """A draft as a row of the QA table, its answer resolved by the first reading of `order` that fits. Raises Fault if
    none does."""
    row, aliases = seed.row, seed.row["aliases"]
    if seed.texts and order[0] == "wordings of one answer":
        row, aliases = {**row, "answer": seed.texts[0]}, (*seed.texts[1:], *aliases)
    if seed.choices:
        answer, index = resolve(row["answer"], seed.choices, seed.readings, order)
        row = {**row, "answer": answer, "answer_index": index, "choices": list(seed.choices.texts)}
    aliases = [text for text in dict.fromkeys(aliases) if text != row["answer"]]
    return {"choices": None, "answer_index": None, **row, "aliases": aliases or None}
