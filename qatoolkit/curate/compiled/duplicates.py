"""Compiled loops of `near_duplicates`: hashes of rows, MinHash bands and exact Jaccard.

Rows are runs of word ids in one flat array: row i is words[starts[i]:starts[i + 1]]. `code` is looked up by id: a hash
that is the same in every process."""

import numpy as np
from numba import njit

NEIGHBOURS = 32  # earlier rows of a bucket compared with a row: bounds the work on a template with 100,000 fillings


@njit(nogil=True, cache=True)
def mix(x):
    # The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(nogil=True, cache=True)
def shingle(words, first, last, code, n, out):
    # Hashes of runs of n words into `out`; a shorter text is one shingle. Returns their number.
    m = last - first
    width = min(n, m)
    if m == 0:
        return 0
    for s in range(m - width + 1):
        h = np.uint64(width)
        for t in range(first + s, first + s + width):
            h = mix(h ^ code[words[t]]) + np.uint64(0x9E3779B97F4A7C15)
        out[s] = h
    return m - width + 1


@njit(nogil=True, cache=True)
def read_rows(words, starts, code, block, order, bag):
    # `order` is a hash of each row's words and its block, `bag` one that ignores the order of the words.
    for row in range(len(starts) - 1):
        o, b = np.uint64(0), np.uint64(0)
        for t in range(starts[row], starts[row + 1]):
            h = mix(code[words[t]])
            o = mix(o ^ h) + np.uint64(0x9E3779B97F4A7C15)
            b += h
        order[row], bag[row] = mix(o ^ block[row]), mix(b ^ block[row])


@njit(nogil=True, cache=True)
def sign(words, starts, rows, code, n, block, a, b, width, keys):
    # Band keys [bands, rows]: MinHash by h(x) = a x + b modulo 2^32 of mixed shingles, `width` values to a band.
    longest = 1
    for row in rows:
        longest = max(longest, starts[row + 1] - starts[row])
    found = np.empty(longest, np.uint64)
    least = np.empty(len(a), np.uint32)
    for r in range(len(rows)):
        row = rows[r]
        m = shingle(words, starts[row], starts[row + 1], code, n, found)
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
def jaccard(words, starts, i, j, code, n):
    one, two = np.empty(starts[i + 1] - starts[i], np.uint64), np.empty(starts[j + 1] - starts[j], np.uint64)
    one = np.unique(one[: shingle(words, starts[i], starts[i + 1], code, n, one)])
    two = np.unique(two[: shingle(words, starts[j], starts[j + 1], code, n, two)])
    s = t = both = 0
    while s < len(one) and t < len(two):
        both += one[s] == two[t]
        step = one[s] <= two[t]
        t += two[t] <= one[s]
        s += step
    every = len(one) + len(two) - both
    return both / every if every else 1.0


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
def join_near(parent, rows, keys, words, starts, code, n, threshold):
    # `rows` as in `join_equal`; runs of equal keys are the buckets.
    first = 0
    for r in range(1, len(rows)):
        if keys[r] != keys[r - 1]:
            first = r
        j = rows[r]
        for i in rows[max(first, r - NEIGHBOURS) : r]:
            if find(parent, i) != find(parent, j) and jaccard(words, starts, i, j, code, n) >= threshold:
                join(parent, i, j)


@njit(nogil=True, cache=True)
def similarities(words, starts, kept, order, code, n, out):
    # Jaccard similarity of each row to the kept row of its cluster, kept[row].
    for row in range(len(kept)):
        other = kept[row]
        out[row] = 1.0 if order[row] == order[other] else jaccard(words, starts, row, other, code, n)
