"""Compiled tokeniser of `differences`: words of many texts from their code points, and ids for them.

A word is a run of letters with inner apostrophes, a number, one CJK character, a command of LaTeX, or an operator."""

import numpy as np
from numba import njit

OTHER, LETTER, DIGIT, CJK, SPACE, UNDERSCORE = range(6)
APOSTROPHE, POINT, OPERATOR, BACKSLASH, HYPHEN, TILDE, STAR = range(6, 13)


@njit(nogil=True, cache=True)
def run(points, classes, i, what):
    while i < len(points) and classes[points[i]] == what:
        i += 1
    return i


@njit(nogil=True, cache=True)
def split(points, classes, ends, first, last, hashes, counts):
    # Words of the texts that end at `ends` (each with one code point 0 behind it): first, last, a hash; words by text.
    m = text = 0
    i = 0
    while i < len(points):
        while i >= ends[text]:
            text += 1
        what = classes[points[i]]
        before = classes[points[i - 1]] if i else OTHER
        j = i
        if what == LETTER:
            j = run(points, classes, i, LETTER)
            while j + 1 < len(points) and classes[points[j]] == APOSTROPHE and classes[points[j + 1]] == LETTER:
                j = run(points, classes, j + 1, LETTER)
        elif what == DIGIT:
            j = run(points, classes, i, DIGIT)
            while j + 1 < len(points) and classes[points[j]] == POINT and classes[points[j + 1]] == DIGIT:
                j = run(points, classes, j + 1, DIGIT)
        elif what in (CJK, OPERATOR):
            j = i + 1
        elif what == BACKSLASH:
            j = i + 1
            while j < len(points) and points[j] < 128 and classes[points[j]] == LETTER:
                j += 1
            j = j if j > i + 1 else i
        elif what == HYPHEN and before != LETTER:
            k = run(points, classes, i + 1, SPACE)
            if k < len(points) and classes[points[k]] == DIGIT:
                j = i + 1
            elif k < len(points) and classes[points[k]] == LETTER:  # "- x"; a dash where a longer word follows
                j = i + (k + 1 == len(points) or classes[points[k + 1]] != LETTER)
        elif what == TILDE and i + 1 < len(points) and (i == 0 or before == SPACE or points[i - 1] in (0, 40)):
            j = i + (points[i + 1] == 40 or (points[i + 1] < 128 and classes[points[i + 1]] == LETTER))
        elif what == STAR and before != STAR:
            j = i + (i + 1 == len(points) or classes[points[i + 1]] != STAR)
        if j == i:
            i += 1
            continue
        h = np.uint64(0xCBF29CE484222325)  # FNV-1a
        for k in range(i, j):
            h = (h ^ np.uint64(points[k])) * np.uint64(0x100000001B3)
        first[m], last[m], hashes[m] = i, j, h ^ (h >> np.uint64(32))
        counts[text] += 1
        m += 1
        i = j
    return m


@njit(nogil=True, cache=True)
def number(hashes, keys, ids, known, out, new):
    # Ids of words by their hash: `keys` and `ids` are an open-addressing table, 0 is free. Writes the ids to `out`, the
    # positions of words met for the first time to `new`, and returns the number of words known.
    mask = np.uint64(len(keys) - 1)
    for i in range(len(hashes)):
        key = hashes[i] | np.uint64(1)
        slot = (key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20) & mask
        while keys[slot] != key and keys[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        if keys[slot] == 0:
            keys[slot], ids[slot] = key, known
            new[known] = i
            known += 1
        out[i] = ids[slot]
    return known
