"""Compiled loops of `walks`: tables to propose a step from, walks, and the seeds of their steps.

Walks are memory-bound: a step reads two or three random places of tables far larger than a cache. So the loops advance
a batch of walks one step at a time, in short loops whose reads are independent (the idea of ThunderRW, Sun et al.
2021), and all that a proposal needs is one entry of 16 bytes. Importing this module loads numba; the loops are compiled
once on a machine and kept beside it."""

import numpy as np
from numba import njit

PROPOSALS = 32  # proposals refused before a step scans the whole row
BLOCKS = 64  # units of work in which rows are distributed to threads
BATCH = 256  # walks that advance together


@njit(nogil=True, cache=True)
def alias(share, kps, order, table):
    # Alias table (Walker 1977) of shares whose mean is 1. Entry: threshold, slot of the other, own KP, KP of the
    # other; slot i is its own below the threshold and the other's above. Givers, shares above 1, fill the slots of
    # the rest and, once used up, are filled by the next giver. Thresholds are multiples of 2^-32, so that the total
    # error of a draw is below 2^-31.
    takers, givers = 0, len(share)
    for i in range(len(share)):
        order[takers] = order[givers - 1] = i  # both, because the branch is unpredictable
        takers += share[i] <= 1.0
        givers -= share[i] > 1.0
        table[i, 0], table[i, 1], table[i, 2], table[i, 3] = 0, i, kps[i], kps[i]
    taker, left, last = 0, 1.0, order[-1]
    for giver in order[givers:]:
        table[last, 0] = min(left, 1.0) * (2.0**32 - 1)
        table[last, 1], table[last, 3] = giver, kps[giver]
        left += share[giver] - 1.0
        while left > 1.0 and taker < takers:
            slot = order[taker]
            table[slot, 0] = share[slot] * (2.0**32 - 1)
            table[slot, 1], table[slot, 3] = giver, kps[giver]
            left += share[slot] - 1.0
            taker += 1
        last = giver
    table[last, 1], table[last, 3] = last, kps[last]


@njit(nogil=True, cache=True)
def fill(rows, indices, weight, value, table, first, last):
    # Rows go to blocks in turn, because hubs tend to be neighbours.
    starts = len(rows) - 2
    everyone = np.arange(starts).astype(indices.dtype)
    most = max(1, np.diff(rows).max())
    space, order = np.empty(most), np.empty(most, np.int64)
    for block in range(first, last):
        for row in range(block, starts + 1, BLOCKS):
            low, high = rows[row], rows[row + 1]
            share, total = space[: high - low], 0.0
            kps = everyone if row == starts else indices[low:high]
            for j in range(len(share)):
                share[j] = value[kps[j]] * (1.0 if row == starts else weight[low + j])
                total += share[j]
            if total > 0.0:
                share *= len(share) / total
                alias(share, kps, order[: high - low], table[low:high])
            else:  # no way out: a walk at `row` refuses to step to `row`
                table[low:high] = row


@njit(nogil=True, cache=True)
def walk(rows, indices, weight, ids, turns, value, accept, table, key, first, nodes, drawn):
    gamma = np.uint64(0x9E3779B97F4A7C15)

    def mix(z):  # SplitMix64 (Steele, Lea and Flood 2014)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    def uniform(state):
        return (mix(state) >> np.uint64(11)) * 2.0**-53

    home, length = len(rows) - 2, nodes.shape[1]
    at, size, refused, low, slot, other, to = np.empty((7, BATCH), np.int64)
    part, chance, state = np.empty(BATCH), np.ones(BATCH), np.empty(BATCH, np.uint64)
    going = np.empty(BATCH, np.int64)
    for batch in range(0, len(nodes), BATCH):
        count = min(BATCH, len(nodes) - batch)
        for i in range(count):
            going[i], at[i], size[i], refused[i] = i, home, 0, 0
            state[i] = mix(key + gamma * np.uint64(first + batch + i + 1))
        while count:
            # Four short loops: a single one would have the reads of too few walks in flight.
            for i in going[:count]:
                low[i], degree = rows[at[i]], rows[at[i] + 1] - rows[at[i]]
                state[i] += gamma
                u = uniform(state[i]) * degree
                slot[i] = low[i] + int(u)  # u stays below degree: the largest product is rounded down
                part[i] = (u - int(u)) * 2.0**32
            for i in going[:count]:
                other[i] = part[i] >= table[slot[i], 0]
            for i in going[:count]:  # arithmetic in place of an unpredictable branch
                to[i] = table[slot[i], 2 + other[i]]
                slot[i] += other[i] * (low[i] + np.int64(table[slot[i], 1]) - slot[i])
            if len(accept):
                for i in going[:count]:
                    chance[i] = accept[to[i]]
            kept = 0
            for i in going[:count]:
                w, k = batch + i, to[i]
                refuse = False
                if len(accept):
                    state[i] += gamma
                    refuse = uniform(state[i]) >= chance[i]
                for step in range(size[i]):
                    refuse |= nodes[w, step] == k
                if refuse:
                    refused[i] += 1
                    begin, end = rows[at[i]], rows[at[i] + 1]
                    if at[i] == home or refused[i] < min(PROPOSALS, end - begin):
                        going[kept] = i
                        kept += 1
                        continue
                    # the same distribution over all unvisited neighbours, in one pass (reservoir sampling)
                    total, slot[i] = 0.0, -1
                    for j in range(begin, end):
                        gain = weight[j] * value[indices[j]]
                        for step in range(size[i]):
                            gain *= nodes[w, step] != indices[j]
                        total += gain
                        state[i] += gamma
                        if uniform(state[i]) * total < gain:
                            slot[i] = j
                    if slot[i] < 0:
                        continue
                    k = indices[slot[i]]
                if size[i]:
                    drawn[w, size[i] - 1] = slot[i]
                nodes[w, size[i]] = at[i] = k
                size[i] += 1
                refused[i] = 0
                if size[i] < length:
                    going[kept] = i
                    kept += 1
            count = kept
        for w in range(batch, min(batch + BATCH, len(nodes))):
            for step in range(length - 1):
                if drawn[w, step] >= 0:
                    drawn[w, step] = ids[drawn[w, step]]
        for w in range(batch, min(batch + BATCH, len(nodes))):
            for step in range(length - 1):
                if drawn[w, step] >= 0:
                    drawn[w, step] = turns[drawn[w, step]]


@njit(nogil=True, cache=True)
def assign(indptr, members, nodes, wait, due, cursor, level, seeds, visits):
    # The seed with the smallest due = (uses + 1/2) * wait comes next. All seeds of an edge are due at level[e] or
    # later, those before cursor[e] strictly later. So the next is found in a few reads, where a search for the
    # minimum would read thousands at every step of a hub.
    for w in range(len(seeds)):
        for k in nodes[w]:
            if k >= 0:
                visits[k] += 1
        for step in range(seeds.shape[1]):
            e = -2 - seeds[w, step]
            if e < 0:
                continue
            low, high = indptr[e], indptr[e + 1]
            j = low + cursor[e]
            while j < high and due[members[j]] > level[e]:
                j += 1
            if j == high:
                j = low + np.argmin(due[members[low:high]])
                level[e] = due[members[j]]
            seeds[w, step] = members[j]
            due[members[j]] += wait[members[j]]
            cursor[e] = j + 1 - low
