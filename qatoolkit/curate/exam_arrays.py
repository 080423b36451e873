"""Builds the arrays of an exam index: parts of items, document frequencies, stock phrases, n-grams and their places."""

import itertools
import re

import numpy as np
import pandas as pd

from qatoolkit.core.text import is_cjk
from qatoolkit.curate.comparison_text import SEPARATOR, stem, text_of, token_ids, tokens

PARTS = ("question", "sub-question", "last sentence")
EXACT, COVERAGE, SHORT, REWORDED, TEMPLATE = 5, 4, 3, 2, 1  # rules of decontamination, the strictest first
_FLAT = 2000  # the least number of documents assumed: in a few items, frequencies don't tell how rare a word is
_FREQUENT = 32  # a seed that occurs in more parts finds no candidates
_PASSAGE = 120  # in a question with more tokens the last sentence is searched for on its own too
_NUMBERED = re.compile(r"[(（]\s*[1-9]\s*[)）]|[①-⑨]")
_ASKING = re.compile(r"(?:^|\s)(?:question|q|问题)\s*\d*\s*[:：]", re.I)
_SENTENCE = re.compile(r"(?<=[.?!])\s+|(?<=[。？！])\s*")
NEGATIONS = frozenset(["no", "not", "never", "except", "without", "cannot", "none", "neither", "nor", *"不没未非无"])


def parts_of(question, choices=None) -> list[tuple[str, str]]:
    """The texts of a question to search for: itself, its sub-questions, the last sentence of a long passage.

    With choices, numbered pieces are statements to choose from, not questions.

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


def build_arrays(items: pd.DataFrame, n: int, n_cjk: int, stock: int, reference: list[str]) -> tuple[list[str], dict]:
    """The vocabulary of exam items (question, choices) and the arrays of `exam_rules.Arrays`, with the item and the
    name of each part."""
    from qatoolkit.curate.compiled import exam_rules as rules

    numbers = _Numbers()
    for word in sorted(NEGATIONS):
        numbers[word]
    asked = [parts_of(*row) for row in zip(items["question"], items["choices"], strict=True)]
    coded = token_ids((text for pieces in asked for _, text in pieces), numbers.__getitem__)
    every = (text for choices in items["choices"] if choices is not None for text in choices)
    coded_options = token_ids(every, numbers.__getitem__)
    parts, part_item, part_name, options, part_options, documents = [], [], [], [], [0], []
    for item, (pieces, choices) in enumerate(zip(asked, items["choices"], strict=True)):
        own = list(itertools.islice(coded_options, 0 if choices is None else len(choices)))
        for name, text in pieces:
            words = next(coded)
            if len(words) < (1 if name == "question" else (n_cjk if is_cjk(text.strip()[:1]) else n)):
                continue
            parts.append(words)
            part_item.append(item)
            part_name.append(PARTS.index(name))
            if name == "question":
                options += own
                documents.append(np.unique(np.concatenate([words, *own])))
            part_options.append(len(options))
    words, size = list(numbers), len(numbers) + 3
    part_item, part_name = np.array(part_item, np.int32), np.array(part_name, np.uint8)
    kind = np.array([0, 0, rules.NUMBER, *map(_kind, words)], np.uint8)
    flat, offsets = _flat(parts)
    flat_options, option_offsets = _flat(options)
    part_options = np.array(part_options, np.int64)

    coded = list(token_ids((f"{text} {SEPARATOR}" for text in reference), numbers.__getitem__))  # with words of no exam
    documents += map(np.unique, coded)
    frequency = np.bincount(_flat(documents)[0], minlength=size)[:size]
    documents = max(_FLAT, len(documents))
    weight = np.log(documents / np.maximum(frequency, 1)).clip(0.05)
    plain = (kind & (rules.NUMBER | rules.LETTER)) > 0
    weight[plain] = np.minimum(weight, [0, 0, 0, *map(len, words)])[plain]  # short numbers coincide by chance
    weight = weight.astype(np.float32)

    cjk = (kind & rules.HAN) > 0
    share = np.bincount(_owners(offsets), cjk[flat], minlength=len(parts))
    part_size = np.where(2 * share > np.diff(offsets), n_cjk, n).astype(np.int64)
    keys = rules.own_ngrams(flat, offsets, part_size)
    common = _stock(keys, part_item[_owners(offsets)], stock)
    for length in (n, n_cjk) if coded else ():
        common |= np.isin(keys, _phrases(_flat(coded)[0], length, stock, keys))
    common &= keys > 0
    worth = np.where(rules.cover(np.where(common, keys, 0), offsets, part_size), 0, weight[flat]).astype(np.float32)
    keys[common] = 0
    counted = rules.cover(keys, offsets, part_size)

    option_part = np.repeat(np.arange(len(parts), dtype=np.int32), np.diff(part_options))
    seed = np.concatenate([rules.own_seeds(flat, offsets, kind), rules.own_seeds(flat_options, option_offsets, kind)])
    owner = np.concatenate([_owners(offsets), option_part[_owners(option_offsets)]])
    order, starts = _runs(seed)
    times = np.diff(np.r_[starts, len(order)])
    rare = (times <= _FREQUENT) & (seed[order[starts]] > 0)
    seed_keys, occurrences = seed[order[starts[rare]]], order[np.repeat(rare, times)]
    seed_parts, times = owner[occurrences], times[rare]
    part_seeds = np.bincount(owner[occurrences[occurrences < len(flat)]], minlength=len(parts)).astype(np.int32)
    del seed, owner, order, occurrences
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
    """The index of the run that each element is in."""
    return np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets))


def _runs(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The stable order that sorts the keys, and the position in it where each distinct key begins."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(keys)])


def _stock(keys: np.ndarray, owner: np.ndarray, most: int) -> np.ndarray:
    """A mask of positions where an n-gram begins that is in more than `most` items; `owner` must be ascending."""
    order, starts = _runs(keys)
    owner, first = owner[order], np.zeros(len(keys), bool)
    first[starts] = True
    new = first | np.r_[True, owner[1:] != owner[:-1]][: len(keys)]
    items = np.add.reduceat(new, starts, dtype=np.int64) if len(starts) else starts
    found = np.zeros(len(keys), bool)
    found[order] = np.repeat(items > most, np.diff(np.r_[starts, len(keys)]))
    return found


def _phrases(text: np.ndarray, n: int, most: int, known: np.ndarray) -> np.ndarray:
    """Known n-grams with more than `most` different continuations in a text; a repeated question has just one."""
    from qatoolkit.curate.compiled.exam_rules import ngrams

    text = np.r_[text, np.zeros(2 * n, np.int32)]
    keys = ngrams(text, n)
    positions = np.flatnonzero(np.isin(keys, known) & (keys > 0))
    after = np.zeros(len(positions), np.uint64)
    for offset in range(n, 2 * n):
        after = after * np.uint64(1_000_003) + text[positions + offset].astype(np.uint64)
    pairs = np.unique(np.stack([keys[positions], after]), axis=1)
    found, times = np.unique(pairs[0], return_counts=True)
    return found[times > most]


class _Numbers(dict):
    """Word ids in the order words are first seen, from 3 (`exam_rules.KNOWN`); the separator is 0."""

    def __missing__(self, word: str) -> int:
        if word == SEPARATOR:
            return 0
        self[word] = len(self) + 3
        return self[word]
