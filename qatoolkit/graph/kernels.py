"""Compiled loops of `walks`: proposal tables, walks, and the choice of a seed for each step.

Walks are memory-bound: a step reads two or three random positions in tables far larger than a cache. So a batch of
walks advances one step at a time, in short loops whose reads are independent (the idea of ThunderRW, Sun et al. 2021),
and a proposal reads a single entry of 16 bytes. Importing this module loads numba; the loops are compiled once per
machine and cached beside the module."""

import numpy as np
from numba import njit

PROPOSALS = 32  # refused proposals before a step scans the whole row
BLOCKS = 64  # units of work into which rows are divided for threads
BATCH = 256  # walks that advance together


@njit(nogil=True, cache=True)
def alias(share, kps, order, table):
    # Alias table (Walker 1977) of shares with mean 1. Entry: threshold, alias slot, own KP, alias KP; a draw in slot i
    # means i itself below the threshold and the alias above it. Givers (shares above 1) fill the slots of the others
    # and, once used up, are filled by the next giver. Thresholds are multiples of 2^-32, so the total error of a draw
    # is below 2^-31.
    takers, givers = 0, len(share)
    for i in range(len(share)):
        order[takers] = order[givers - 1] = i  # both, because the branch is unpredictable
        takers += share[i] <= 1.0
        givers -= share[i] > 1.0
        table[i, 0], table[i, 1], table[i, 2], table[i, 3] = 0, i, kps[i], kps[i]
    taker, remaining, last = 0, 1.0, order[-1]
    for giver in order[givers:]:
        table[last, 0] = min(remaining, 1.0) * (2.0**32 - 1)
        table[last, 1], table[last, 3] = giver, kps[giver]
        remaining += share[giver] - 1.0
        while remaining > 1.0 and taker < takers:
            slot = order[taker]
            table[slot, 0] = share[slot] * (2.0**32 - 1)
            table[slot, 1], table[slot, 3] = giver, kps[giver]
            remaining += share[slot] - 1.0
            taker += 1
        last = giver
    table[last, 1], table[last, 3] = last, kps[last]


@njit(nogil=True, cache=True)
def fill(rows, indices, weight, value, table, first, last):
    # Rows are dealt to blocks in turn, because hubs tend to be neighbours.
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
            else:  # dead end: a walk at `row` refuses to step to `row`
                table[low:high] = row


@njit(nogil=True, cache=True)
def walk(rows, indices, weight, ids, choices, value, accept, table, key, first, nodes, drawn):
    gamma = np.uint64(0x9E3779B97F4A7C15)

    def mix(z):  # SplitMix64 (Steele, Lea and Flood 2014)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    def uniform(state):
        return (mix(state) >> np.uint64(11)) * 2.0**-53

    start_row, length = len(rows) - 2, nodes.shape[1]
    position, size, refused, low, slot, is_alias, target = np.empty((7, BATCH), np.int64)
    fraction, chance, state = np.empty(BATCH), np.ones(BATCH), np.empty(BATCH, np.uint64)
    active = np.empty(BATCH, np.int64)
    for batch in range(0, len(nodes), BATCH):
        count = min(BATCH, len(nodes) - batch)
        for i in range(count):
            active[i], position[i], size[i], refused[i] = i, start_row, 0, 0
            state[i] = mix(key + gamma * np.uint64(first + batch + i + 1))
        while count:
            # Four short loops: a single one would have too few memory reads in flight.
            for i in active[:count]:
                low[i], degree = rows[position[i]], rows[position[i] + 1] - rows[position[i]]
                state[i] += gamma
                u = uniform(state[i]) * degree
                slot[i] = low[i] + int(u)  # u stays below degree, because the largest product is rounded down
                fraction[i] = (u - int(u)) * 2.0**32
            for i in active[:count]:
                is_alias[i] = fraction[i] >= table[slot[i], 0]
            for i in active[:count]:  # arithmetic instead of an unpredictable branch
                target[i] = table[slot[i], 2 + is_alias[i]]
                slot[i] += is_alias[i] * (low[i] + np.int64(table[slot[i], 1]) - slot[i])
            if len(accept):
                for i in active[:count]:
                    chance[i] = accept[target[i]]
            kept = 0
            for i in active[:count]:
                w, k = batch + i, target[i]
                refuse = False
                if len(accept):
                    state[i] += gamma
                    refuse = uniform(state[i]) >= chance[i]
                for step in range(size[i]):
                    refuse |= nodes[w, step] == k
                if refuse:
                    refused[i] += 1
                    begin, end = rows[position[i]], rows[position[i] + 1]
                    if position[i] == start_row or refused[i] < min(PROPOSALS, end - begin):
                        active[kept] = i
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
                nodes[w, size[i]] = position[i] = k
                size[i] += 1
                refused[i] = 0
                if size[i] < length:
                    active[kept] = i
                    kept += 1
            count = kept
        for w in range(batch, min(batch + BATCH, len(nodes))):
            for step in range(length - 1):
                if drawn[w, step] >= 0:
                    drawn[w, step] = ids[drawn[w, step]]
        for w in range(batch, min(batch + BATCH, len(nodes))):
            for step in range(length - 1):
                if drawn[w, step] >= 0:
                    drawn[w, step] = choices[drawn[w, step]]


@njit(nogil=True, cache=True)
def assign(indptr, members, nodes, wait, due, cursor, level, seeds, visits):
    # The seed with the smallest due = (uses + 1/2) * wait is chosen. All seeds of an edge are due at level[e] or later,
    # those before cursor[e] strictly later. So the next one is found in a few reads; searching for the minimum would
    # read thousands at every step from a hub.
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
