"""Compiled loops of decontamination: n-grams of token ids, candidates by rare short n-grams, and the rules on a
candidate.

Token ids are those of an `ExamIndex`: 0 separates texts, 1 is any word and 2 any number that is in no exam, the others
are its vocabulary."""

from typing import NamedTuple

import numpy as np
from numba import njit

from qatoolkit.curate.exam_arrays import COVERAGE, EXACT, REWORDED, SHORT, TEMPLATE

SEED_WORDS, SEED_CJK = 3, 5  # tokens of a seed (an n-gram that finds candidates), by the script of its first token
WORD, NUMBER, NEGATION, HAN, LETTER = 0, 1, 2, 4, 8  # kinds of a token, as flags
CANDIDATES = 16  # parts judged for a row
CELLS = 1_000_000  # of an alignment; a longer item is found by coverage alone
KNOWN = 3  # the first id of the vocabulary
BUCKETS = 20  # bits: sorted keys are looked up in the bucket of their first bits
FEW = 12  # one in so many numbers or negations may differ: in a long passage some are written in another way
WHOLE = 0.95  # share required of a sub-question, which is short and often a phrase
CLAUSE = 4  # words that are enough for a different question
GAP, BREAK = 0.3, 3.0  # nats that an inserted token, or a change of text, costs in an alignment

_A, _B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_29, _SHIFT = np.uint64(29), np.uint64(64 - BUCKETS)


class Arrays(NamedTuple):
    """An exam index as the loops read it. A part is a text of an item: a question, a sub-question."""

    kind: np.ndarray  # uint8 [vocabulary]
    weight: np.ndarray  # float32 [vocabulary], nats
    worth: np.ndarray  # float32 [tokens], the weight of a part's token, 0 in a stock phrase
    parts: np.ndarray  # int32 [tokens of all parts]
    part_offsets: np.ndarray  # int64 [parts + 1]
    part_size: np.ndarray  # int64 [parts], n of its n-grams
    part_whole: np.ndarray  # bool [parts], whether it is the item's whole question
    part_keys: np.ndarray  # uint64 [tokens], the n-gram that begins here; 0 for stock phrases
    counted: np.ndarray  # bool [tokens], whether an n-gram that is no stock phrase covers it
    part_weight: np.ndarray  # float64 [parts]
    part_seeds: np.ndarray  # int32 [parts], seeds of its own text
    part_options: np.ndarray  # int64 [parts + 1], into option_offsets
    options: np.ndarray  # int32 [tokens of all options]
    option_offsets: np.ndarray  # int64 [options + 1]
    seed_keys: np.ndarray  # uint64, sorted
    seed_buckets: np.ndarray  # int64 [2**BUCKETS + 1]
    seed_offsets: np.ndarray  # int64 [seeds + 1], into seed_parts
    seed_parts: np.ndarray  # int32
    whole_keys: np.ndarray  # uint64, sorted: hashes of whole questions, without and with their options
    whole_offsets: np.ndarray  # int64
    whole_parts: np.ndarray  # int32


@njit(nogil=True, cache=True)
def run_hash(ids, start, end):
    # Hash of ids[start:end]; 0 if a separator or an unknown word is among them.
    key = np.uint64(end - start) * _B
    for i in range(start, end):
        if ids[i] < KNOWN:
            return np.uint64(0)
        key = (key ^ np.uint64(ids[i])) * _A
        key ^= key >> _29
    return key if key else np.uint64(1)


@njit(nogil=True, cache=True)
def ngrams(ids, size):
    # Hash of the n-gram that begins at each position; 0 where none does.
    keys = np.zeros(len(ids), np.uint64)
    for i in range(len(ids) - size + 1):
        keys[i] = run_hash(ids, i, i + size)
    return keys


@njit(nogil=True, cache=True)
def seeds(ids, kind, out):
    # The same for seeds, whose size depends on the script: three words, or five characters.
    for i in range(len(ids)):
        size = SEED_CJK if kind[ids[i]] & HAN else SEED_WORDS
        out[i] = run_hash(ids, i, i + size) if i + size <= len(ids) else np.uint64(0)
    return out


@njit(nogil=True, cache=True)
def own_ngrams(ids, offsets, sizes):
    # `ngrams` of each part ids[offsets[p]:offsets[p + 1]], of its own size.
    keys = np.zeros(len(ids), np.uint64)
    for part in range(len(sizes)):
        for i in range(offsets[part], offsets[part + 1] - sizes[part] + 1):
            keys[i] = run_hash(ids, i, i + sizes[part])
    return keys


@njit(nogil=True, cache=True)
def own_seeds(ids, offsets, kind):
    keys = np.zeros(len(ids), np.uint64)
    for part in range(len(offsets) - 1):
        seeds(ids[offsets[part] : offsets[part + 1]], kind, keys[offsets[part] : offsets[part + 1]])
    return keys


@njit(nogil=True, cache=True)
def cover(keys, offsets, sizes):
    # Which tokens of each part lie in an n-gram with a key.
    covered = np.zeros(len(keys), np.bool_)
    for part in range(len(sizes)):
        for i in range(offsets[part], offsets[part + 1]):
            if keys[i]:
                for k in range(i, i + sizes[part]):
                    covered[k] = True
    return covered


@njit(nogil=True, cache=True)
def place_of(key, keys, buckets):
    # Position of a key among sorted ones, or -1.
    bucket = key >> _SHIFT
    for i in range(buckets[bucket], buckets[bucket + np.uint64(1)]):
        if keys[i] == key:
            return i
    return -1


@njit(nogil=True, cache=True)
def place_in(sorted_keys, key):
    # Position of a key among sorted ones, or -1. Shorter to compile than numpy's.
    first, last = 0, len(sorted_keys)
    while first < last:
        middle = (first + last) // 2
        if sorted_keys[middle] < key:
            first = middle + 1
        else:
            last = middle
    return first if first < len(sorted_keys) and sorted_keys[first] == key else -1


@njit(nogil=True, cache=True)
def position(ids, wanted):
    # Where the run of ids `wanted` begins in `ids`, or -1.
    for i in range(len(ids) - len(wanted) + 1):
        k = 0
        while k < len(wanted) and ids[i + k] == wanted[k]:
            k += 1
        if k == len(wanted):
            return i
    return -1


@njit(nogil=True, cache=True)
def has_clause(ids, kind, step):
    # Whether a run of ids begins (ends, if step is -1) with CLAUSE words, or twice as many characters, of one text.
    length = 0.0
    for token in ids[::step]:
        if token == 0:
            break
        length += 0.5 if kind[token] & HAN else 1.0
    return length >= CLAUSE


@njit(nogil=True, cache=True)
def align(part, worth, row, kind, scores, moves):
    # The best alignment of a whole part within a row: matched weight and tokens, the matched span of the row, and
    # whether it is another question. A skipped token of the part costs nothing.
    m, n = len(part), len(row)
    scores[: n + 1] = 0.0
    for i in range(1, m + 1):
        corner, scores[0] = scores[0], 0.0
        moves[i * (n + 1)] = 1
        token = part[i - 1]
        for j in range(1, n + 1):
            best, move = scores[j], np.uint8(1)  # skip the part's token
            through = corner + (worth[i - 1] if token == row[j - 1] else 0.0)
            if through >= best and row[j - 1]:
                best, move = through, np.uint8(0)
            insert = scores[j - 1] - (GAP if row[j - 1] else BREAK)
            if insert > best:
                best, move = insert, np.uint8(2)
            corner, scores[j] = scores[j], best
            moves[i * (n + 1) + j] = move
    j = np.argmax(scores[: n + 1])
    i, first, last, before, after = m, -1, -1, 0, 0
    found, count, numbers, negations = 0.0, 0, 0, 0
    while i > 0 and j > 0:
        move = moves[i * (n + 1) + j]
        if move == 2:
            j -= 1
            continue
        if move == 0:
            if part[i - 1] == row[j - 1]:
                token = part[i - 1]
                found, count = found + worth[i - 1], count + 1
                numbers += (kind[token] & NUMBER) != 0
                negations += (kind[token] & NEGATION) != 0
                first, before = j - 1, i - 1
                if last < 0:
                    last, after = j, m - i
            j -= 1
        i -= 1
    if last < 0:
        return 0.0, 0, 0, 0, False
    start, end = max(0, first - before), min(n, last + after)
    part_numbers, part_negations, row_numbers, row_negations = 0, 0, 0, 0
    for token in part:
        part_numbers += (kind[token] & NUMBER) != 0
    for token in part[before : m - after]:
        part_negations += (kind[token] & NEGATION) != 0
    for token in row[start:end]:
        row_numbers += (kind[token] & NUMBER) != 0
        row_negations += (kind[token] & NEGATION) != 0
    changed_numbers = min(part_numbers, row_numbers) - numbers
    changed_negations = max(part_negations, row_negations) - negations
    other = changed_numbers * FEW > part_numbers or changed_negations * FEW > max(part_negations, row_negations)
    # The same premise with another question: part and row both continue after the match, or before it.
    other |= has_clause(part[m - after :], kind, 1) and has_clause(row[last:], kind, 1)
    other |= has_clause(part[:before], kind, -1) and has_clause(row[:first], kind, -1)
    return found, count, first, last, other


@njit(nogil=True, cache=True)
def put(hits, at, row, part, rule, score, first, last):
    hits[at, 0], hits[at, 1], hits[at, 2], hits[at, 3], hits[at, 4], hits[at, 5] = row, part, rule, score, first, last
    return at + 1


@njit(nogil=True, cache=True)
def same_wholes(row, asked, x):
    # Ranges of x.whole_parts: those equal to the row's question, and those equal to it once their options are appended.
    letterless, n_words = np.empty(asked, row.dtype), 0
    for token in row[:asked]:
        if not x.kind[token] & LETTER:
            letterless[n_words] = token
            n_words += 1
    ranges = np.zeros((2, 2), np.int64)
    for k in range(2):
        words = letterless[:n_words] if k else row[:asked]
        key = run_hash(words, 0, len(words))
        if len(words) and key:
            key = key ^ _B if k else key
            at = place_in(x.whole_keys, key)
            if at >= 0:
                ranges[k, 0], ranges[k, 1] = x.whole_offsets[at], x.whole_offsets[at + 1]
    return ranges


@njit(nogil=True, cache=True)
def candidates(row, x, count, low, high, touched):
    # Parts that share an eighth of their seeds with the row, those with the largest share first. `low` and `high` are
    # where the first of these seeds begins and the last ends. `count` is 0 before and after.
    n_touched, chosen = 0, 0
    for i in range(len(row)):
        size = SEED_CJK if x.kind[row[i]] & HAN else SEED_WORDS
        key = run_hash(row, i, i + size) if i + size <= len(row) else np.uint64(0)
        at = place_of(key, x.seed_keys, x.seed_buckets) if key else -1
        if at < 0:
            continue
        for p in x.seed_parts[x.seed_offsets[at] : x.seed_offsets[at + 1]]:
            if count[p] == 0:
                touched[n_touched], low[p] = p, i
                n_touched += 1
            count[p] += 1
            high[p] = i + size
    for p in touched[:n_touched]:
        if count[p] * 8 >= x.part_seeds[p]:
            touched[chosen] = p
            chosen += 1
        else:
            count[p] = 0
    ranks = np.zeros(chosen)
    for k in range(chosen):
        p = touched[k]
        ranks[k] = -min(1.0, count[p] / max(1, x.part_seeds[p])) * min(count[p], 50)
        count[p] = 0
    return touched[:chosen][np.argsort(ranks, kind="mergesort")]


@njit(nogil=True, cache=True)
def coverage(p, x, grams):
    # Of a part: the share of counted tokens that n-grams of the row (sorted `grams`) cover, whether any token counts,
    # and the weight of the covered ones.
    begin, end = x.part_offsets[p], x.part_offsets[p + 1]
    until, n_counted, n_covered, weight = 0, 0, 0, 0.0
    for at in range(begin, end):
        if x.part_keys[at] and place_in(grams, x.part_keys[at]) >= 0:
            until = at + x.part_size[p]
        if x.counted[at]:
            n_counted += 1
            if at < until:
                n_covered, weight = n_covered + 1, weight + x.weight[x.parts[at]]
    return n_covered / max(1, n_counted), n_counted > 0, weight


@njit(nogil=True, cache=True)
def match_options(p, row, x):
    # The number of options of the part's item, how many of them are in the row, and the weight of these.
    same, weight, begin, end = 0, 0.0, x.part_options[p], x.part_options[p + 1]
    for option in range(begin, end):
        wanted = x.options[x.option_offsets[option] : x.option_offsets[option + 1]]
        if len(wanted) and position(row, wanted) >= 0:
            same += 1
            for token in wanted:
                weight += x.weight[token]
    return end - begin, same, weight


@njit(nogil=True, cache=True)
def judge(p, row, low, high, absent, heavy, x, grams, min_overlap, min_share, evidence, scores, moves):
    # The rule by which a row contains a part (0: none), its score, and the span of the row. `absent`: the row is
    # missing numbers of the part. `heavy`: the part weighs enough for a verbatim occurrence to count.
    begin, end = x.part_offsets[p], x.part_offsets[p + 1]
    part, worth, total = x.parts[begin:end], x.worth[begin:end], x.part_weight[p]
    at = position(row, part) if heavy and x.part_whole[p] else -1
    if at >= 0:
        return COVERAGE, 1.0, at, at + len(part)
    overlap, long, sure = coverage(p, x, grams)
    start, stop = max(0, low - len(part) - 8), min(len(row), high + len(part) + 8)
    if (len(part) + 1) * (stop - start + 1) <= CELLS:
        found, matched, first, last, other = align(part, worth, row[start:stop], x.kind, scores, moves)
        first, last = first + start, last + start
    else:
        found, matched, first, last, other = sure, 0, low, high, False
    other |= absent
    share = found / total if total else 0.0
    dense = matched >= 0.5 * (last - first)
    n_options, same, extra = match_options(p, row, x) if share >= 0.5 or total < evidence else (0, 0, 0.0)
    enough = evidence if same < n_options or share < 0.9 else evidence / 2
    by_options = n_options > 1 and same * 4 >= n_options * 3 and found + extra >= enough
    by_options &= share >= 0.5 or 4 * total < extra
    by_words = share >= min_share and found >= evidence
    if not x.part_whole[p]:
        by_options, by_words = False, share >= WHOLE and found >= 2 * evidence
        min_overlap, evidence = WHOLE, 1.5 * evidence
    if not other:
        if overlap >= min_overlap and sure >= evidence:
            return COVERAGE, overlap, first, last
        if dense and (by_options or by_words):
            return REWORDED if long else SHORT, share, first, last
    elif dense and by_words:
        return TEMPLATE, share, first, last
    return 0, 0.0, 0, 0


@njit(nogil=True, cache=True)
def find(ids, offsets, asked, x, min_overlap, min_share, evidence, hits):
    # Hits of rows ids[offsets[r]:offsets[r + 1]], the first asked[r] tokens of which are the question, against the
    # index `x`, as (row, part, rule, score, first, last token) in `hits`, which has room for CANDIDATES a row. Returns
    # their number.
    n_parts, n_hits = len(x.part_size), 0
    count, low, high = np.zeros(n_parts, np.int32), np.zeros(n_parts, np.int32), np.zeros(n_parts, np.int32)
    touched = np.zeros(n_parts, np.int32)
    stamp = np.full(len(x.kind), -1, np.int32)
    scores, moves = np.zeros(CELLS), np.zeros(CELLS, np.uint8)
    for r in range(len(offsets) - 1):
        row, room = ids[offsets[r] : offsets[r + 1]], CANDIDATES
        for begin, end in same_wholes(row, asked[r], x):
            for p in x.whole_parts[begin : min(end, begin + room)]:
                n_hits, room = put(hits, n_hits, r, p, EXACT, 1.0, 0, asked[r]), room - 1
        chosen = candidates(row, x, count, low, high, touched)
        if len(chosen):
            for token in row:
                stamp[token] = r
        grams, size = np.zeros(0, np.uint64), 0
        for p in chosen:
            begin, end = x.part_offsets[p], x.part_offsets[p + 1]
            bag, raw, numbers, absent = 0.0, 0.0, 0, 0
            for at in range(begin, end):
                token = x.parts[at]
                number = (x.kind[token] & NUMBER) != 0 and x.weight[
                    token
                ] > 1  # no single digit: 一 is one in 哪一个 too
                present = stamp[token] == r
                bag, raw = bag + x.worth[at] * present, raw + x.weight[token]
                numbers, absent = numbers + number, absent + (number and not present)
            if room <= 0 or bag < 0.5 * x.part_weight[p]:
                continue
            room -= 1
            if x.part_size[p] != size:
                size = x.part_size[p]
                grams = np.sort(ngrams(row, size))
            rule, score, first, last = judge(
                p,
                row,
                low[p],
                high[p],
                absent * FEW > numbers,
                raw >= evidence,
                x,
                grams,
                min_overlap,
                min_share,
                evidence,
                scores,
                moves,
            )
            if rule:
                n_hits = put(hits, n_hits, r, p, rule, score, first, last)
    return n_hits
