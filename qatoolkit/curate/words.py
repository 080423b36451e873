"""Words of many texts at once, as the compiled loops read them: from code points, without a string for each word."""

import re
from collections.abc import Iterable
from functools import cache

import numpy as np

from qatoolkit.core.text import CJK


class WordTable:
    """Numbers for words, in the order they are first seen, by the classes of code points in `compiled.words`."""

    def __init__(self, classes: np.ndarray):
        self._classes, self._known = classes, 0
        self._keys, self._numbers = np.zeros(1 << 16, dtype=np.uint64), np.zeros(1 << 16, dtype=np.int32)

    def read(self, texts: Iterable[str]) -> tuple[str, np.ndarray, np.ndarray, np.ndarray, list[str]]:
        """The texts joined, a NUL after each; the number of every word, int32; where each begins and ends in the joined
        text, int64 [2, words]; how many words each text has, int64; and the words that had no number before."""
        from qatoolkit.curate.compiled import words as loops

        texts = list(texts)
        joined = "".join(f"{text}\0" for text in texts)
        points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        ends = np.cumsum([len(text) + 1 for text in texts])
        spans, hashes = np.empty((2, len(points)), dtype=np.int64), np.empty(len(points), dtype=np.uint64)
        counts = np.zeros(len(texts), dtype=np.int64)
        found = loops.split(points, self._classes, ends, *spans, hashes, counts)
        spans = spans[:, :found]
        self._grow(self._known + found)
        numbers, new = np.empty(found, dtype=np.int32), np.empty(self._known + found, dtype=np.int64)
        now = loops.number(hashes[:found], self._keys, self._numbers, self._known, numbers, new)
        words = [joined[first:last] for first, last in spans[:, new[self._known : now]].T.tolist()]
        self._known = now
        return joined, numbers, spans, counts, words

    def _grow(self, words: int) -> None:
        """Make the table at least twice as long as the words that may be in it."""
        from qatoolkit.curate.compiled import words as loops

        if 2 * words <= len(self._keys):
            return
        keys, numbers = self._keys, self._numbers
        size = 1 << (2 * words).bit_length()
        self._keys, self._numbers = np.zeros(size, dtype=np.uint64), np.zeros(size, dtype=np.int32)
        full = keys != 0
        order = np.argsort(numbers[full])
        out, new = np.empty(len(order), dtype=np.int32), np.empty(len(order), dtype=np.int64)
        loops.number(keys[full][order], self._keys, self._numbers, 0, out, new)


@cache
def plain_classes() -> np.ndarray:
    """Classes for words without operators: letters with inner apostrophes, decimal numbers, CJK characters, and NUL,
    which separates texts that are read together."""
    from qatoolkit.curate.compiled import words as loops

    classes = np.zeros(0x110000, dtype=np.uint8)
    every = "".join(map(chr, range(len(classes))))
    for what, pattern in (
        (loops.LETTER, r"[^\W\d_]+"),
        (loops.DIGIT, r"\d+"),
        (loops.SPACE, r"\s+"),
        (loops.CJK, f"[{CJK}]+"),
    ):
        for found in re.finditer(pattern, every):
            classes[found.start() : found.end()] = what
    classes[[0, ord("〇")]] = loops.CJK
    classes[[ord("'"), ord(".")]] = loops.APOSTROPHE, loops.POINT
    return classes
