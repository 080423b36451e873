"""An exam set, indexed once for decontamination: parts of its items, their n-grams and what is a stock phrase.

Arrays on the disk are memory-mapped, so that workers of one machine share them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from qatoolkit.core.artifacts import MANIFEST, key_of
from qatoolkit.core.files import atomic, read_json, write_json
from qatoolkit.core.text import is_cjk
from qatoolkit.curate.comparison_text import SEPARATOR, stem, text_of, tokens, values_of

VERSION = 1  # of the files
PARTS = ("question", "sub-question", "last sentence")
_FLAT = 2000  # items from which document frequencies say how rare a word is; of fewer all words are about equal
_FREQUENT = 64  # items above which a seed finds no candidates; of more than 64,000 items a thousandth
_PASSAGE = 120  # tokens from which the last sentence of a question is looked for alone
_NUMBERED = re.compile(r"[(（]\s*[1-9]\s*[)）]|[①-⑨]")
_ASKING = re.compile(r"(?:^|\s)(?:question|q|问题)\s*\d*\s*[:：]", re.I)
_SENTENCE = re.compile(r"(?<=[.?!])\s+|(?<=[。？！])\s*")
NEGATIONS = frozenset(["no", "not", "never", "except", "without", "cannot", "none", "neither", "nor", *"不没未非无"])


def parts_of(question, choices=None) -> list[tuple[str, str]]:
    """The texts of a question that are looked for: itself, its sub-questions, the last sentence of a long passage.

    With choices, numbered pieces are statements to choose from and no questions of their own.

    >>> [text for _, text in parts_of("A train leaves. (1) When does it stop? (2) Where?")][1:]
    [' When does it stop? ', ' Where?']
    """
    text = text_of(question)
    found = [("question", stem(text))]
    pieces = next((p for p in (_NUMBERED.split(text), _ASKING.split(text)) if len(p) > 1), [])
    if (len(pieces) > 2 and choices is None) or (pieces and _ASKING.search(text)):
        found += [("sub-question", piece) for piece in pieces[1:]]
    elif len(text) > _PASSAGE:
        last = [sentence for sentence in _SENTENCE.split(text.strip()) if sentence]
        if len(last) > 1 and last[-1].rstrip()[-1:] in "?？" and len(tokens(text)) > _PASSAGE:
            found.append(("last sentence", last[-1]))
    return found


class ExamIndex:
    """Items of exams, ready to be looked for in rows (`decontaminate`). Made by `build`, or `open` of a folder.

    `items`: a table (exam, id, question, choices, answer). `about`: the settings, a digest of the exams, how many there are."""

    def __init__(self, about: dict, items: pd.DataFrame, words: Sequence[str], arrays: Mapping[str, np.ndarray]):
        from qatoolkit.curate.compiled.exam_rules import Arrays

        self.about, self.items = about, items
        self.vocabulary = _Vocabulary(zip([SEPARATOR, *words], [0, *range(3, len(words) + 3)], strict=True))
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
        """Index exams by name (tables with question, and id and choices where there are). In a folder it is written once:
        built from the same exams and settings it is opened.

        n, n_cjk: n-grams of the coverage rule in tokens, for mostly Chinese parts the second. stock: an n-gram in more
        items is a stock phrase and no evidence; `reference` are texts (seeds) that count too, where different words
        follow it, so that a repeated exam question is not taken for a phrase. ValueError for an exam without questions,
        and for a folder that holds something else."""
        items = _items(exams)
        texts = list(reference)
        about = {"version": VERSION, "n": n, "n_cjk": n_cjk, "stock": stock, "exams": list(exams), "items": len(items)}
        about["digest"] = key_of(about, items.to_dict("list"), texts)
        manifest = None if folder is None else Path(folder) / MANIFEST
        if manifest and manifest.is_file() and read_json(manifest).get("digest") == about["digest"]:
            return cls.open(folder)
        words, arrays = _arrays(items, n, n_cjk, stock, texts)
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
        """The index in a folder, memory-mapped. FileNotFoundError where there is none, ValueError where it is damaged or
        of another version."""
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
            arrays = {name: _mapped(folder / f"{name}.npy") for name in about["arrays"]}
            items = pd.read_parquet(folder / "items.parquet")
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{folder} is damaged ({error}); remove it and build it again") from None
        return cls(about, items, words if words != [""] else [], arrays)

    def encode(self, texts: Iterable[Sequence[str]]) -> np.ndarray:
        """Token ids of tokenised texts, a separator after each, in one array."""
        id_of, ids = self.vocabulary.__getitem__, []
        for words in texts:
            ids.extend(map(id_of, words))
            ids.append(0)
        return np.array(ids, dtype=np.int32)


class _Vocabulary(dict):
    def __missing__(self, word: str) -> int:
        return 2 if word[0].isdigit() else 1


def _mapped(file: Path) -> np.ndarray:
    # Copy-on-write: numba would compile again for read-only arrays. An empty array cannot be mapped.
    return np.asarray(np.load(file, mmap_mode="c" if file.stat().st_size > 128 else None))


def answers_of(table: pd.DataFrame) -> list[str]:
    """Answers of a table, empty where there is none; of a letter the text of its option."""
    found = []
    for answer, choices in zip(values_of(table, "answer"), values_of(table, "choices"), strict=True):
        letter = re.fullmatch(r"\(?([A-J])\)?\.?", text_of(answer).strip()) if choices is not None else None
        place = ord(letter[1]) - 65 if letter else len(choices if choices is not None else ())
        found.append(text_of(choices[place] if letter and place < len(choices) else answer))
    return found


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


def _arrays(items: pd.DataFrame, n: int, n_cjk: int, stock: int, reference: list[str]) -> tuple[list[str], dict]:
    from qatoolkit.curate.compiled import exam_rules as rules

    numbers: dict[str, int] = {}

    def ids_of(words: Iterable[str]) -> list[int]:
        return [numbers.setdefault(word, len(numbers) + 3) for word in words]

    ids_of(sorted(NEGATIONS))
    parts, part_item, part_name, options, part_options = [], [], [], [], [0]
    for item, (question, choices) in enumerate(zip(items["question"], items["choices"], strict=True)):
        seen = set()
        for name, text in parts_of(question, choices):
            words = ids_of(tokens(text))
            least = 1 if name == "question" else (n_cjk if is_cjk(text.strip()[:1]) else n)
            if len(words) < least or tuple(words) in seen:
                continue
            seen.add(tuple(words))
            parts.append(np.array(words, np.int32))
            part_item.append(item)
            part_name.append(PARTS.index(name))
            if name == "question" and choices is not None:
                options += [np.array(ids_of(tokens(choice)), np.int32) for choice in choices]
            part_options.append(len(options))
    words, size = list(numbers), len(numbers) + 3
    part_item, part_name = np.array(part_item, np.int32), np.array(part_name, np.uint8)
    kind = np.array([0, 0, rules.NUMBER, *map(_kind, words)], np.uint8)
    flat, offsets = _flat(parts)
    flat_options, option_offsets = _flat(options)
    part_options = np.array(part_options, np.int64)

    # Document frequencies: of words over items, their options and the reference; of n-grams over items.
    option_part = np.repeat(np.arange(len(parts)), np.diff(part_options))
    owner = np.r_[part_item[_owners(offsets)], part_item[option_part[_owners(option_offsets)]]]
    frequency = np.bincount(_distinct(np.r_[flat, flat_options], owner)[0], minlength=size).astype(float)
    coded = [np.array(ids_of(tokens(text)), np.int32) for text in reference]  # with words that no exam has
    for row in coded:
        there = np.unique(row)
        frequency[there[there < size]] += 1
    documents = max(_FLAT, len(items) + len(coded))
    weight = np.log(documents / np.maximum(frequency, 1)).clip(0.05)
    plain = (kind & (rules.NUMBER | rules.LETTER)) > 0
    weight[plain] = np.minimum(weight, [0, 0, 0, *map(len, words)])[plain]  # runs of digits are alike everywhere
    weight = weight.astype(np.float32)

    cjk = (kind & rules.HAN) > 0
    share = np.bincount(_owners(offsets), cjk[flat], minlength=len(parts))
    part_size = np.where(2 * share > np.diff(offsets), n_cjk, n).astype(np.int64)
    keys = rules.own_ngrams(flat, offsets, part_size)
    common = _stock(keys, part_item[_owners(offsets)], stock)
    for length in (n, n_cjk):
        common |= np.isin(keys, _phrases(coded, length, stock, keys))
    common &= keys > 0
    worth = np.where(rules.cover(np.where(common, keys, 0), offsets, part_size), 0, weight[flat]).astype(np.float32)
    keys[common] = 0
    counted = rules.cover(keys, offsets, part_size)

    own = rules.own_seeds(flat, offsets, kind)
    of_options = rules.own_seeds(flat_options, option_offsets, kind)
    seed = np.r_[own, of_options]
    owner = np.r_[_owners(offsets), option_part[_owners(option_offsets)]]
    seed, owner = _distinct(seed[seed > 0], owner[seed > 0])
    seed_keys, times = np.unique(seed, return_counts=True)
    rare = times <= max(_FREQUENT, len(items) // 1000)
    seed_parts = owner[np.repeat(rare, times)].astype(np.int32)
    seed_keys, times = seed_keys[rare], times[rare]
    there = np.isin(own, seed_keys) & (own > 0)
    part_seeds = np.bincount(_owners(offsets)[there], minlength=len(parts)).astype(np.int32)
    buckets = np.searchsorted(
        seed_keys >> np.uint64(64 - rules.BUCKETS), np.arange(2**rules.BUCKETS + 1, dtype=np.uint64)
    )

    whole = []
    for part in np.flatnonzero(part_name == 0):
        words_of = flat[offsets[part] : offsets[part + 1]]
        whole.append((rules.run_hash(words_of, 0, len(words_of)), part))
        if part_options[part + 1] > part_options[part]:
            both = np.concatenate([words_of, *options[part_options[part] : part_options[part + 1]]])
            both = both[(kind[both] & rules.LETTER) == 0]
            whole.append((rules.run_hash(both, 0, len(both)) ^ 0xD6E8FEB86659FD93, part))
    whole.sort()
    keys_of, whole_first = np.unique(np.array([key for key, _ in whole], np.uint64), return_index=True)
    return words, {
        "part_item": part_item,
        "part_name": part_name,
        "kind": kind,
        "weight": weight,
        "parts": flat,
        "part_offsets": offsets,
        "part_size": part_size,
        "part_whole": part_name == 0,
        "part_keys": keys,
        "counted": counted,
        "worth": worth,
        "part_weight": np.bincount(_owners(offsets), worth, minlength=len(parts)).astype(np.float64),
        "part_seeds": part_seeds,
        "part_options": part_options,
        "options": flat_options,
        "option_offsets": option_offsets,
        "seed_keys": seed_keys,
        "seed_buckets": buckets.astype(np.int64),
        "seed_offsets": np.r_[0, np.cumsum(times)].astype(np.int64),
        "seed_parts": seed_parts,
        "whole_keys": keys_of,
        "whole_offsets": np.r_[whole_first, len(whole)].astype(np.int64),
        "whole_parts": np.array([part for _, part in whole], np.int32),
    }


def _kind(word: str) -> int:
    from qatoolkit.curate.compiled.exam_rules import HAN, LETTER, NEGATION, NUMBER

    negation = NEGATION * (word in NEGATIONS or word.endswith("n't"))
    if is_cjk(word):
        return HAN | negation
    return NUMBER * word[0].isdigit() | LETTER * (len(word) == 1 and word.isalpha()) | negation


def _flat(runs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.r_[0, np.cumsum([len(run) for run in runs])].astype(np.int64)
    return np.concatenate([*runs, np.zeros(0, np.int32)]).astype(np.int32), offsets


def _owners(offsets: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def _stock(keys: np.ndarray, owner: np.ndarray, most: int) -> np.ndarray:
    """Where an n-gram begins that is in more than `most` items."""
    found, times = np.unique(_distinct(keys, owner)[0], return_counts=True)
    return np.isin(keys, found[times > most])


def _phrases(texts: list[np.ndarray], n: int, most: int, known: np.ndarray) -> np.ndarray:
    """Known n-grams that go on in more than `most` ways in texts: what follows a repeated question is always the same."""
    from qatoolkit.curate.compiled.exam_rules import ngrams

    known, found = np.unique(known), []
    for text in texts:
        keys = ngrams(text, n)
        there = np.flatnonzero(np.isin(keys, known) & (keys > 0))
        padded, after = np.r_[text, np.zeros(2 * n, np.int32)].astype(np.uint64), np.zeros(len(there), np.uint64)
        for place in range(n, 2 * n):
            after = after * np.uint64(1_000_003) + padded[there + place]
        found.append((keys[there], after))
    if not found:
        return known[:0]
    keys, times = np.unique(_distinct(*map(np.concatenate, zip(*found, strict=True)))[0], return_counts=True)
    return keys[times > most]


def _distinct(keys: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs, each once, in order."""
    order = np.lexsort((owners, keys))
    keys, owners = keys[order], owners[order]
    new = np.r_[True, (keys[1:] != keys[:-1]) | (owners[1:] != owners[:-1])][: len(keys)]
    return keys[new], owners[new]
