"""The wording of the textbook: sentence frames by form, language and split.

Corpus, seeds and teacher use only `train` frames; `exam` frames are for exams only; `statement` frames are statements
that end in the answer. Slots: {e} entity, {r} {r1} {r2} {r3} relation names, {v} a value, {noun} the type of thing,
{one} the same with its article, {list} a list of entities, {top} the superlative, {a} the answer.
"""

from pathlib import Path

from qatoolkit.core.files import read_json

FRAMES: dict[str, dict[str, dict[str, list[str]]]] = read_json(Path(__file__).parent / "facts" / "frames.json")
TOP = {
    "number": {"en": ("largest", "smallest"), "zh": ("最大", "最小")},
    "year": {"en": ("latest", "earliest"), "zh": ("最晚", "最早")},
}
