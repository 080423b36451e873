"""Compiled loops of `walks`: tables to propose a step from, walks, and the seeds of their steps.

Walks wait for memory: a step reads two or three random places of tables far larger than a cache. So the loops take
a batch of walks one step further at a time, in short loops whose reads do not depend on each other (the idea of
ThunderRW, Sun et al. 2021), and what a proposal needs lies in one entry of 16 bytes. Threads are Python's own.
"""

import functools
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

_PROPOSALS = 32  # proposals refused before a step scans the whole row
_ACCEPTANCE = 0.3  # expected share of proposals accepted below which the tables are made anew
_BLOCKS = 64  # in which rows are dealt to threads
_BATCH = 256  # walks that take their steps together


class Threads(ThreadPoolExecutor):
    """Python threads for kernels that release the lock. Numba's own threads switch nested OpenMP on for the whole
    process, which made scoring with torch twenty times slower afterwards (docs/LOG.md)."""

    def over(self, first: int, last: int, call) -> None:
        """`call(a, b)` over consecutive stretches of first..last, several a thread since their lengths are uneven."""
        parts = 1 if self._max_workers == 1 else min(4 * self._max_workers, last - first)
        stretches = pairwise(np.linspace(first, last, parts + 1).astype(np.int64).tolist())
        if parts == 1:
            call(first, last)
        else:
            list(self.map(lambda stretch: call(*stretch), stretches))


class Proposals:
    """Tables that draw a neighbour in proportion to weight * V, and a start in proportion to V, V being that of this
    or an earlier round.

    Making them takes a pass over all edges, so they are kept while V moves little: a proposed k is then
    accepted in proportion to V now over V then, and the draw stays exact. `rows`: where the entries of each KP begin;
    behind them come those of a further row, the starts.
    """

    def __init__(self, adjacency, pool):
        self.adjacency, self.pool = adjacency, pool
        self.strength = np.asarray(adjacency.sum(axis=1)).ravel()
        self.rows = np.append(adjacency.indptr.astype(np.int64), adjacency.nnz + len(self.strength))
        self.table = np.empty((self.rows[-1], 4), dtype=np.uint32)
        self.per_then = None

    def towards(self, value):
        """Probability to accept each KP proposed from `table` so that steps follow `value`; of length 0 where all are
        1."""
        # Not value @ strength: BLAS threads wait for each other, and round as their number is.
        mass = np.array([value.sum(), np.einsum("k,k", value, self.strength)])  # of starts, of steps
        if self.per_then is not None:
            ratio = value * self.per_then
            top = ratio.max()
            if (mass >= _ACCEPTANCE * top * self.mass).all() and not value[self.absent].any():
                return ratio / top
        fill, of = kernels()[0], self.adjacency
        self.pool.over(0, _BLOCKS, lambda a, b: fill(self.rows, of.indices, of.data, value, self.table, a, b))
        self.mass, self.absent = mass, np.flatnonzero(value == 0)
        self.per_then = np.divide(1.0, value, out=np.zeros(len(value)), where=value > 0)
        return np.zeros(0)


@functools.cache
def kernels():
    """The compiled loops `fill`, `walk` and `assign`; in a function, so that numba loads on the first walk and not on
    import."""
    from numba import njit

    @njit(nogil=True, cache=True)
    def alias(share, kps, order, table):
        # Alias table (Walker 1977) of shares whose mean is 1. Entry: threshold, the other's slot, own KP, the other's
        # KP; slot i is its own below the threshold and another's above. Givers, those above 1, fill up the slots of the
        # rest and, when they have no more to give, are filled up by the next. Thresholds come in steps of 2^-32: a draw
        # is
        # off by less than 2^-31 in total.
        takers, givers = 0, len(share)
        for i in range(len(share)):
            order[takers] = order[givers - 1] = i  # both, since no processor can guess which
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
        # Rows are dealt out to blocks in turn, since hubs tend to stand together.
        starts = len(rows) - 2
        everyone = np.arange(starts).astype(indices.dtype)
        most = max(1, np.diff(rows).max())
        space, order = np.empty(most), np.empty(most, np.int64)
        for block in range(first, last):
            for row in range(block, starts + 1, _BLOCKS):
                low, high = rows[row], rows[row + 1]
                share, total = space[: high - low], 0.0
                kps = everyone if row == starts else indices[low:high]
                for j in range(len(share)):
                    share[j] = value[kps[j]] * (1.0 if row == starts else weight[low + j])
                    total += share[j]
                if total > 0.0:
                    share *= len(share) / total
                    alias(share, kps, order[: high - low], table[low:high])
                else:  # nowhere to go: a walk at `row` refuses to step to `row`
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
        at, size, refused, low, slot, other, to = np.empty((7, _BATCH), np.int64)
        part, chance, state = np.empty(_BATCH), np.ones(_BATCH), np.empty(_BATCH, np.uint64)
        going = np.empty(_BATCH, np.int64)
        for batch in range(0, len(nodes), _BATCH):
            count = min(_BATCH, len(nodes) - batch)
            for i in range(count):
                going[i], at[i], size[i], refused[i] = i, home, 0, 0
                state[i] = mix(key + gamma * np.uint64(first + batch + i + 1))
            while count:
                # Four short loops: in a single one, the reads of too few walks would be under way at once.
                for i in going[:count]:
                    low[i], degree = rows[at[i]], rows[at[i] + 1] - rows[at[i]]
                    state[i] += gamma
                    u = uniform(state[i]) * degree
                    slot[i] = low[i] + int(u)  # u stays below degree: the largest product is rounded down
                    part[i] = (u - int(u)) * 2.0**32
                for i in going[:count]:
                    other[i] = part[i] >= table[slot[i], 0]
                for i in going[:count]:  # by arithmetic: a branch would have to be guessed
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
                        if at[i] == home or refused[i] < min(_PROPOSALS, end - begin):
                            going[kept] = i
                            kept += 1
                            continue
                        # the same law over all unvisited neighbours, in one pass (a reservoir)
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
            for w in range(batch, min(batch + _BATCH, len(nodes))):
                for step in range(length - 1):
                    if drawn[w, step] >= 0:
                        drawn[w, step] = ids[drawn[w, step]]
            for w in range(batch, min(batch + _BATCH, len(nodes))):
                for step in range(length - 1):
                    if drawn[w, step] >= 0:
                        drawn[w, step] = turns[drawn[w, step]]

    @njit(nogil=True, cache=True)
    def assign(indptr, members, nodes, wait, due, cursor, level, seeds, visits):
        # The seed with the smallest due = (uses + 1/2) * wait comes next. All of an edge's seeds are due at level[e]
        # or later, those before cursor[e] later. So the next is found in a few looks; a search for the minimum would
        # read thousands at every step of a hub.
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

    return fill, walk, assign
