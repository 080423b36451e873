"""Compiled loops of `near_duplicates`: MinHash bands, exact Jaccard, and whether two rows differ in what matters.

Rows are runs of word ids in one flat array: row i is words[starts[i]:starts[i + 1]]. The bit NAME on an id says that
the word is written as a name in this row. `code` and `kind` are looked up by id: a hash that is the same in every
process, and CONTENT, SOFT or MARK. Only what is not SOFT goes into shingles."""

import numpy as np
from numba import njit

NAME = np.int32(1 << 30)
CONTENT, SOFT, MARK = 0, 1, 2
NEIGHBOURS = 32  # earlier rows compared with a row in one bucket: bounds the work on a template filled 100,000 times
CELLS = 1 << 20  # of the table in which two texts are aligned; longer rests are different


@njit(nogil=True, cache=True)
def mix(x):
    # The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(nogil=True, cache=True)
def shingle(words, first, last, code, kind, n, out):
    # Hashes of runs of n words into `out`; a shorter text is one shingle. Returns their number.
    m = 0
    for t in range(first, last):
        word = words[t] & ~NAME
        if kind[word] != SOFT:
            out[m] = code[word]
            m += 1
    width = min(n, m)
    if m == 0:
        return 0
    for s in range(m - width + 1):
        h = np.uint64(width)
        for t in range(s, s + width):
            h = mix(h ^ out[t]) + np.uint64(0x9E3779B97F4A7C15)
        out[s] = h  # read no more: later shingles start further right
    return m - width + 1


@njit(nogil=True, cache=True)
def read_rows(words, starts, code, kind, block, order, bag):
    # Adds the marks of each row to `block`; `order` is a hash of its words, `bag` one that ignores their order.
    for row in range(len(starts) - 1):
        marks, o, b = np.uint64(0), np.uint64(0), np.uint64(0)
        for t in range(starts[row], starts[row + 1]):
            word = words[t] & ~NAME
            h = mix(code[word])
            o = mix(o ^ h) + np.uint64(0x9E3779B97F4A7C15)
            b += h
            if kind[word] == MARK:
                marks += h
        block[row] = mix(block[row] ^ mix(marks))
        order[row], bag[row] = mix(o ^ block[row]), mix(b ^ block[row])


@njit(nogil=True, cache=True)
def sign(words, starts, rows, code, kind, n, block, a, b, width, keys):
    # Band keys [bands, rows]: MinHash by h(x) = a x + b modulo 2^32 of mixed shingles, `width` values to a band.
    longest = 1
    for row in rows:
        longest = max(longest, starts[row + 1] - starts[row])
    found = np.empty(longest, np.uint64)
    least = np.empty(len(a), np.uint32)
    for r in range(len(rows)):
        row = rows[r]
        m = shingle(words, starts[row], starts[row + 1], code, kind, n, found)
        least[:] = np.uint32(0xFFFFFFFF)
        for s in range(m):
            x = np.uint32(found[s] >> np.uint64(32))
            for p in range(len(a)):
                least[p] = min(least[p], np.uint32(a[p] * x + b[p]))
        for band in range(len(keys)):
            h = block[row]
            for p in range(band * width, (band + 1) * width):
                h = mix(h ^ np.uint64(least[p])) + np.uint64(0x9E3779B97F4A7C15)
            keys[band, r] = h


@njit(nogil=True, cache=True)
def jaccard(words, starts, i, j, code, kind, n):
    one, two = np.empty(starts[i + 1] - starts[i], np.uint64), np.empty(starts[j + 1] - starts[j], np.uint64)
    one = np.unique(one[: shingle(words, starts[i], starts[i + 1], code, kind, n, one)])
    two = np.unique(two[: shingle(words, starts[j], starts[j + 1], code, kind, n, two)])
    s = t = both = 0
    while s < len(one) and t < len(two):
        both += one[s] == two[t]
        step = one[s] <= two[t]
        t += two[t] <= one[s]
        s += step
    every = len(one) + len(two) - both
    return both / every if every else 1.0


@njit(nogil=True, cache=True)
def contains(words, i, i_end, j, j_end, kind, weak):
    # Whether words[i:i_end] are words[j:j_end] with words inserted that change nothing. A gap in the alignment is on
    # one side only, so a replaced word is a difference. Soft words may be missing on either side, content only in the
    # second text, marks and names in neither; where the answer is weak no content either.
    while i < i_end and j < j_end and (words[i] ^ words[j]) & ~NAME == 0:
        i, j = i + 1, j + 1
    while i < i_end and j < j_end and (words[i_end - 1] ^ words[j_end - 1]) & ~NAME == 0:
        i_end, j_end = i_end - 1, j_end - 1
    rows, columns = i_end - i, j_end - j
    if rows * columns > CELLS:
        return False
    # Bits of what came last: 1 a match, 2 words of the first text alone, 4 words of the second alone.
    above, now = np.zeros(columns + 1, np.uint8), np.zeros(columns + 1, np.uint8)
    for r in range(rows + 1):
        any_left = False
        for c in range(columns + 1):
            bits = np.uint8(1 if r == 0 and c == 0 else 0)
            if r and c and above[c - 1] and (words[i + r - 1] ^ words[j + c - 1]) & ~NAME == 0:
                bits |= np.uint8(1)
            if r and above[c] & 3:
                word = words[i + r - 1]
                what = kind[word & ~NAME]
                if what == SOFT or (what == CONTENT and not weak and not word & NAME):
                    bits |= np.uint8(2)
            if c and now[c - 1] & 5 and kind[words[j + c - 1] & ~NAME] == SOFT:
                bits |= np.uint8(4)
            now[c] = bits
            any_left |= bits != 0
        if not any_left:
            return False
        above, now = now, above
    return above[columns] != 0


@njit(nogil=True, cache=True)
def find(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(nogil=True, cache=True)
def join(parent, i, j):
    i, j = find(parent, i), find(parent, j)
    parent[max(i, j)] = min(i, j)


@njit(nogil=True, cache=True)
def join_equal(parent, rows, keys):
    # `rows` are sorted by keys, and by position where keys are equal.
    for r in range(1, len(rows)):
        if keys[r] == keys[r - 1]:
            join(parent, rows[r - 1], rows[r])


@njit(nogil=True, cache=True)
def join_near(parent, rows, keys, words, starts, code, kind, weak, n, threshold, guard):
    # `rows` as above: runs of equal keys are the buckets.
    first = 0
    for r in range(1, len(rows)):
        if keys[r] != keys[r - 1]:
            first = r
        j = rows[r]
        for i in rows[max(first, r - NEIGHBOURS) : r]:
            if find(parent, i) == find(parent, j):
                continue
            a, b, c, d = starts[i], starts[i + 1], starts[j], starts[j + 1]
            if guard and not (contains(words, a, b, c, d, kind, weak[i]) or contains(words, c, d, a, b, kind, weak[i])):
                continue
            if jaccard(words, starts, i, j, code, kind, n) >= threshold:
                join(parent, i, j)


@njit(nogil=True, cache=True)
def similarities(words, starts, kept, order, code, kind, n, out):
    # Jaccard of each row to row kept[row] of its cluster.
    for row in range(len(kept)):
        other = kept[row]
        out[row] = 1.0 if order[row] == order[other] else jaccard(words, starts, row, other, code, kind, n)
