"""An exam set, indexed once for decontamination: parts of its items, their n-grams and what is a stock phrase.

Arrays on the disk are memory-mapped, so that workers of one machine share them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from qatoolkit.core.artifacts import MANIFEST, key_of
from qatoolkit.core.files import atomic, read_json, write_json
from qatoolkit.curate.comparison_text import SEPARATOR, option_of, text_of, values_of
from qatoolkit.curate.exam_arrays import build_arrays

VERSION = 2  # of the files
_BLOCK = 10_000  # items that are digested together


class ExamIndex:
    """Items of exams, indexed for `decontaminate`. Created by `build`, or by `open` from a folder.

    `items`: a table (exam, id, question, choices, answer); `lists`: its columns. `about`: the settings, a digest of the exams, their
    number."""

    def __init__(self, about: dict, items: pd.DataFrame, words: Sequence[str], arrays: Mapping[str, np.ndarray]):
        from qatoolkit.curate.compiled.exam_rules import Arrays

        self.about, self.items = about, items
        self.vocabulary = _Vocabulary(zip([SEPARATOR, *words], [0, *range(3, len(words) + 3)], strict=True))
        self.lists = {name: items[name].tolist() for name in items}
        rest = dict(arrays)
        self.part_item, self.part_name = rest.pop("part_item"), rest.pop("part_name")
        self.arrays = Arrays(**rest)

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def build(
        cls,
        exams: Mapping[str, pd.DataFrame],
        folder: str | Path | None = None,
        *,
        n: int = 8,
        n_cjk: int = 13,
        stock: int = 5,
        reference: Iterable[str] = (),
    ) -> "ExamIndex":
        """Index exams by name (tables with question, optionally id and choices). With a `folder` the index is written
        there; an index of the same exams and settings is opened instead of built again.

        n, n_cjk: tokens of the n-grams of the coverage rule, n_cjk for mostly Chinese parts. stock: an n-gram in more
        items is a stock phrase and no evidence; so is one with more different continuations in the texts of `reference`
        (seeds). ValueError for an exam without questions, and for a folder with other content."""
        items = _items(exams)
        texts = list(reference)
        about = {"version": VERSION, "n": n, "n_cjk": n_cjk, "stock": stock, "exams": list(exams), "items": len(items)}
        blocks = [key_of(items[start : start + _BLOCK].to_dict("list")) for start in range(0, len(items), _BLOCK)]
        about["digest"] = key_of(about, blocks, texts)
        manifest = None if folder is None else Path(folder) / MANIFEST
        if manifest and manifest.is_file() and read_json(manifest).get("digest") == about["digest"]:
            return cls.open(folder)
        words, arrays = build_arrays(items, n, n_cjk, stock, texts)
        if folder is None:
            return cls(about, items, words, arrays)
        with atomic(Path(folder), over=MANIFEST) as temporary:
            temporary.mkdir(parents=True)
            items.to_parquet(temporary / "items.parquet")
            (temporary / "vocabulary.txt").write_text("\n".join(words), encoding="utf-8")
            for name, array in arrays.items():
                np.save(temporary / f"{name}.npy", array)
            write_json(about | {"arrays": list(arrays)}, temporary / MANIFEST)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: str | Path) -> "ExamIndex":
        """The index in a folder, memory-mapped. FileNotFoundError where there is none, ValueError where it is damaged
        or of another version."""
        folder = Path(folder)
        if not (folder / MANIFEST).is_file():
            raise FileNotFoundError(f"{folder} has no exam index; write one with ExamIndex.build(exams, folder)")
        about = read_json(folder / MANIFEST)
        if about.get("version") != VERSION:
            raise ValueError(
                f"{folder}: version {about.get('version')}, this is {VERSION}; remove it and build it again"
            )
        try:
            words = (folder / "vocabulary.txt").read_text(encoding="utf-8").split("\n")
            arrays = {name: _map_array(folder / f"{name}.npy") for name in about["arrays"]}
            items = pd.read_parquet(folder / "items.parquet")
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{folder} is damaged ({error}); remove it and build it again") from None
        return cls(about, items, words if words != [""] else [], arrays)


class _Vocabulary(dict):
    def __missing__(self, word: str) -> int:
        return 2 if word[0].isdigit() else 1


def _map_array(path: Path) -> np.ndarray:
    # Copy-on-write: numba would compile again for read-only arrays. An empty array cannot be mapped.
    return np.asarray(np.load(path, mmap_mode="c" if path.stat().st_size > 128 else None))


def answers_of(table: pd.DataFrame) -> list[str]:
    """Answers of a table, empty where missing; a letter is replaced by the text of its option."""
    rows = zip(values_of(table, "answer"), values_of(table, "choices"), strict=True)
    return [text_of(option_of(*row)) for row in rows]


def _items(exams: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    found = []
    for exam, table in exams.items():
        if "question" not in table.columns:
            raise ValueError(f"exam {exam!r} has no column 'question'; it has {list(table.columns)}")
        ids = values_of(table, "id") if "id" in table.columns else range(len(table))
        choices = (None if c is None else [text_of(option) for option in c] for c in values_of(table, "choices"))
        columns = {"question": map(text_of, table["question"]), "choices": choices, "answer": answers_of(table)}
        columns = {name: list(values) for name, values in columns.items()}
        found.append(pd.DataFrame({"exam": exam, "id": list(map(str, ids))} | columns))
    columns = ["exam", "id", "question", "choices", "answer"]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns, dtype=object)
