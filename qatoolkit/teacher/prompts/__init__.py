"""Versioned prompt templates in English and Chinese: text files `<language>/<name>.v<version>.txt`.

A template is the system message; the user message is the task's input as one JSON object. `$rubric`, `$disciplines`,
`$grades` and `$grade_rubric` are filled from `taxonomy`, so that annotator, synthesiser and checker read the same
words."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from string import Template

from qatoolkit.core.taxonomy import DISCIPLINES, GRADE_RUBRIC, GRADES, RUBRIC
from qatoolkit.teacher.reply_json import as_text, read_json

__all__ = ["VERSIONS", "add", "as_text", "messages", "read_json", "shown", "template", "version"]

HERE = Path(__file__).parent

VERSIONS = {
    "annotate": 4,
    "knowledge_points": 2,
    "multi_grade": 3,
    "high_difficulty": 3,
    "link": 4,
    "refine": 1,
    "solve": 1,
}
_FOLDERS: dict[str, Path] = {}  # of the templates that `add` found, by name


def add(folder: Path) -> None:
    """Make the templates of another folder known, `<language>/<name>.v<version>.txt` in it, the latest version of
    each."""
    for path in sorted(Path(folder).glob("*/*.v*.txt")):
        name, _, number = path.stem.rpartition(".v")
        latest = VERSIONS.get(name, 0) if _FOLDERS.get(name) == Path(folder) else 0
        _FOLDERS[name], VERSIONS[name] = Path(folder), max(latest, int(number))
    template.cache_clear()


def version(name: str) -> str:
    """The version in use, as stored with every row: "annotate.v4"."""
    return f"{name}.v{VERSIONS[name]}"


@lru_cache
def template(name: str, language: str) -> str:
    """The system message of a task, filled in; ValueError if the task or language has no template."""
    path = _FOLDERS.get(name, HERE) / language / f"{version(name)}.txt" if name in VERSIONS else None
    if path is None or not path.is_file():
        raise ValueError(f"no prompt {name!r} in {language!r}; there are {', '.join(VERSIONS)}, each in en and zh")
    en = language == "en"
    return Template(path.read_text(encoding="utf-8").strip()).substitute(
        rubric="\n".join(f"- {level}: {text[language]}" for level, text in RUBRIC.items()),
        disciplines=", ".join(DISCIPLINES) if en else "、".join(f"{id}（{d.zh}）" for id, d in DISCIPLINES.items()),
        grades=", ".join(GRADES) if en else "、".join(f"{id}（{zh}）" for id, zh in GRADES.items()),
        grade_rubric="\n".join(
            f"- {id}: {text['en']}" if en else f"- {id}（{GRADES[id]}）：{text['zh']}"
            for id, text in GRADE_RUBRIC.items()
        ),
    )


def messages(name: str, language: str, **payload) -> list[dict]:
    """The chat messages of a task; `payload` is its input."""
    return [
        {"role": "system", "content": template(name, language)},
        {"role": "user", "content": json.dumps(payload, ensure_ascii=False)},
    ]


def shown(row: Mapping) -> dict:
    """A row of a QA table as it goes into a prompt: question, answer and, if there are any, choices by letter, which
    answers such as "BD" refer to."""
    choices = row.get("choices")
    there = hasattr(choices, "__len__") and not isinstance(choices, str) and len(choices)
    lettered = {"choices": {chr(ord("A") + i): str(c) for i, c in enumerate(choices)}} if there else {}
    return {"question": row["question"], "answer": row["answer"]} | lettered
