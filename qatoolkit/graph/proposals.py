"""Tables from which walks propose steps, reused while values change little, and the threads that fill and use them."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

_ACCEPTANCE = 0.3  # expected acceptance rate below which the tables are rebuilt


class Threads(ThreadPoolExecutor):
    """Python threads for kernels that release the GIL. Numba's own threads enable nested OpenMP for the whole process,
    which made later scoring with torch twenty times slower (docs/LOG.md)."""

    def over(self, first: int, last: int, call) -> None:
        """Run `call(a, b)` on consecutive parts of first..last, several per thread because their costs differ."""
        parts = 1 if self._max_workers == 1 else min(4 * self._max_workers, last - first)
        stretches = pairwise(np.linspace(first, last, parts + 1).astype(np.int64).tolist())
        if parts == 1:
            call(first, last)
        else:
            list(self.map(lambda stretch: call(*stretch), stretches))


class Proposals:
    """Tables that draw a neighbour in proportion to weight * V, and a start in proportion to V, for the V of the
    current or an earlier round.

    Building them takes a pass over all edges, so they are kept while V changes little: a proposed k is then accepted in
    proportion to current V over the V of the tables, which keeps the draw exact. `rows`: where the entries of each KP
    begin; the last row is for starts."""

    def __init__(self, adjacency, pool):
        self.adjacency, self.pool = adjacency, pool
        self.strength = np.asarray(adjacency.sum(axis=1)).ravel()
        self.rows = np.append(adjacency.indptr.astype(np.int64), adjacency.nnz + len(self.strength))
        self.table = np.empty((self.rows[-1], 4), dtype=np.uint32)
        self.per_old_value = None

    def towards(self, value):
        """Probability of accepting each KP proposed from `table`, so that steps follow `value`; empty if all are 1."""
        # Not value @ strength: BLAS threads wait for each other, and rounding would depend on their number.
        mass = np.array([value.sum(), np.einsum("k,k", value, self.strength)])  # totals for starts and steps
        if self.per_old_value is not None:
            ratio = value * self.per_old_value
            top = ratio.max()
            if (mass >= _ACCEPTANCE * top * self.mass).all() and not value[self.absent].any():
                return ratio / top
        from qatoolkit.graph.kernels import BLOCKS, fill

        links = self.adjacency
        self.pool.over(0, BLOCKS, lambda a, b: fill(self.rows, links.indices, links.data, value, self.table, a, b))
        self.mass, self.absent = mass, np.flatnonzero(value == 0)
        self.per_old_value = np.divide(1.0, value, out=np.zeros(len(value)), where=value > 0)
        return np.zeros(0)
