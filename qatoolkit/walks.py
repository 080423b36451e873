"""Value-guided walks over the KP graph: LinkSyn's second step (arXiv 2508.01317; formulas are our reading).

The value of a knowledge point k after some paths,

    V(k) = popularity(k)^alpha * (1 + visits(k))^-beta * discipline(k) * difficulty(k),

weighs popularity against coverage and steers the seeds' discipline and difficulty. A walk starts in
proportion to V and steps from u to an unvisited k in proportion to weight(u, k) * V(k). V is frozen within a
round, and every walk has its own random stream: paths depend on the seed, not on the number of threads.
"""

import functools
import math
import os
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise

import numpy as np
import pandas as pd

from qatoolkit.kpgraph import KPGraph

_RESTARTS = 16  # starts a walk may try before it is given up as shorter than two KPs
_PROPOSALS = 32  # proposals refused before a step scans the whole row
_ACCEPTANCE = 0.5  # expected share of proposals accepted below which the tables are made anew
_BLOCKS = 64  # in which rows are dealt to threads
_RARELY = 1e-9  # how often a seed of a label without a target share is drawn, where an edge has no other
_LEAN = 30.0  # how far control may move a factor: a label out of reach must not starve the rest


def sample_paths(
    graph: KPGraph,
    n: int,
    length: int,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    discipline: Mapping[str, float] | None = None,
    difficulty: Mapping[str, float] | None = None,
    focus: Mapping[tuple[str, str], float] | None = None,
    rounds: int | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> pd.DataFrame:
    """Sample `n` paths of at most `length` KPs: `path` (int), `kps` (names), `seeds` (ids, one per step).

    Our reading of LinkSyn's knowledge distribution value function; see the module's formula.

    alpha: pull of popularity. beta: push towards KPs that few paths used. discipline, difficulty: target
    shares by label, scaled to sum to 1; labels left out get none. focus: weight by (discipline, difficulty),
    such as the probe's weak cells; V is multiplied by the mean weight of the KP's seeds, cells left out weigh
    1 (our own addition, not LinkSyn's). rounds: how often V is renewed, by default 16 to 256 times.

    A step's seed holds both its KPs: the least used so far, ties by table order; targets divide the steps of an
    edge between its seeds in proportion to target over current share, by Webster's method of dividing seats. A path ends early where no
    neighbour is left; walks without a second KP after 16 starts are left out with a warning. Raises
    ValueError for a setting out of range, a graph without edges, and targets or focus that leave no value.
    """
    nodes, seeds = sample_codes(
        graph, n, length, alpha=alpha, beta=beta, discipline=discipline, difficulty=difficulty, focus=focus,
        rounds=rounds, seed=seed, threads=threads,
    )  # fmt: skip
    walked = nodes[:, 1] >= 0
    if lost := int(n - walked.sum()):
        warnings.warn(f"{lost} of {n} walks found no second KP of value above 0: left out", stacklevel=2)
    paths = pd.DataFrame({"path": np.arange(n - lost)})
    paths["kps"] = _as_lists(graph.names, nodes[walked])
    paths["seeds"] = _as_lists(graph.seeds["id"], seeds[walked])
    return paths


def sample_codes(graph, n, length, *, rounds=None, seed=0, threads=None, **value_settings):
    """`sample_paths` as int32 codes, for timing and for tens of millions of paths.

    Returns KPs, n x length, and seeds, n x (length - 1), filled up with -1; walks of one KP stay in.
    """
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = most if threads is None else threads
    _check_whole("n", n, 1)
    _check_whole("length", length, 2)
    _check_whole("seed", seed, 0)
    _check_whole("threads", threads, 1, most)
    if not graph.n_edges:
        raise ValueError(f"{graph!r} has no edge; give seeds with two or more KPs, or a lower min_count")
    if rounds is None:
        rounds = min(n, max(16, min(256, math.ceil(4 * n * length / (graph.degree > 0).sum()))))
    _check_whole("rounds", rounds, 1, n)
    value_after = KnowledgeValue(graph, **value_settings)
    _, walk, assign = _kernels()

    nodes, edges, seeds = (np.full((n, width), -1, np.int32) for width in (length, length - 1, length - 1))
    wait = value_after.wait_per_seed()
    due = wait / 2
    cursor, level = np.zeros(graph.n_edges, dtype=np.int32), np.zeros(graph.n_edges)
    visits = np.zeros(len(graph.names), dtype=np.int64)
    key = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    links = graph.adjacency.indptr, graph.adjacency.indices, graph.adjacency.data, graph.edge_ids
    members = graph.edge_seeds.indptr, graph.edge_seeds.indices
    work = max(n * length // rounds, graph.adjacency.nnz)  # waking a thread costs more than a few walks
    with _Threads(int(min(threads, 1 + work // 20_000))) as pool:
        proposals = _Proposals(graph.adjacency, pool)
        for first, last in pairwise(np.linspace(0, n, rounds + 1).astype(np.int64)):
            kps, steps, drawn = nodes[first:last], edges[first:last], seeds[first:last]
            value = value_after(visits)
            state = value, np.cumsum(value), *proposals.towards(value), key
            pool.over(first, last, lambda a, b, state=state: walk(*links, *state, a, nodes[a:b], edges[a:b]))
            assign(*members, steps, wait, due, cursor, level, drawn)
            visits += np.bincount(kps[kps >= 0], minlength=len(visits))
            value_after.learn(drawn[drawn >= 0])
    return nodes, seeds


def _check_whole(name, number, least, most=math.inf):
    if not isinstance(number, int | np.integer) or not least <= number <= most:
        raise ValueError(f"{name}={number!r}; allowed: a whole number from {least} to {most}")


class KnowledgeValue:
    """V of every KP as a function of `visits`, up to a common factor; 0 for KPs without a link.

    Settings as in `sample_paths`. `KnowledgeValue(graph, alpha=0.5)(0)` is V before any path.
    """

    def __init__(self, graph, *, alpha=1.0, beta=1.0, discipline=None, difficulty=None, focus=None):
        if not math.isfinite(alpha):
            raise ValueError(f"alpha={alpha!r}; allowed: a finite number")
        if not (math.isfinite(beta) and beta >= 0):
            raise ValueError(f"beta={beta!r}; allowed: a finite number from 0")
        targets = {"discipline": discipline, "difficulty": difficulty}
        self.controls = [_Control(graph, *item) for item in targets.items() if item[1] is not None]
        self.beta, self.seeds = beta, graph.seeds
        with np.errstate(divide="ignore"):  # log 0 is minus infinity, as it should be
            self.log_static = alpha * np.log(graph.popularity) + np.log(_focus_per_kp(graph, focus))
        self.log_static[graph.degree == 0] = -np.inf

    def __call__(self, visits) -> np.ndarray:
        log_value = self.log_static - self.beta * np.log1p(visits)
        alive = log_value > -np.inf
        top = log_value.max(initial=-np.inf, where=alive)
        value = np.zeros(len(log_value))  # kept above the smallest float: an underflow would cut links
        value[alive] = np.exp(np.maximum(log_value[alive] - top, -600.0))
        for control in self.controls:
            value *= control.per_kp()
        if not value.any():
            raise ValueError("every linked KP has value 0: targets and focus exclude them all; widen them")
        return value

    def wait_per_seed(self) -> np.ndarray:
        """Draws of a common seed for one of each seed: current share over target share of its labels; 1 without targets."""
        wait = np.ones(len(self.seeds))
        for control in self.controls:
            wait /= np.maximum(np.append(control.first, 1.0)[control.codes], _RARELY)  # code -1: unlabelled
        return wait

    def learn(self, seeds):
        """Correct the factors by the seeds that a round drew."""
        for control in self.controls:
            control.learn(seeds)


class _Control:
    """Target share over current share of one label, averaged over a KP's seeds; unlabelled seeds count 1.

    The current share is what walks show without this factor: at first the share among linked seeds, later the
    share drawn in a round divided by the factor it was drawn under. So the factor moves until the drawn share
    meets the target; target over drawn share would settle halfway, at their geometric mean.
    """

    def __init__(self, graph, label, target):
        labels = graph.seeds[label].cat.categories
        self.codes = graph.seeds[label].cat.codes.to_numpy()
        one_hot = (self.codes[:, None] == np.arange(len(labels))).astype(np.float64)
        self.shares = _mean_over_seeds(graph, one_hot)
        self.unlabelled = 1.0 - self.shares.sum(axis=1)
        current = one_hot[graph.linked_seeds].sum(axis=0)
        have = labels[current > 0]
        target = _shares(label, target)
        reachable = target[target.index.isin(have)]
        if not reachable.sum():
            raise ValueError(f"{label}={target.to_dict()}: no linked seed; allowed: {have.tolist()}")
        if beyond := sorted(target.index[target > 0].difference(have)):
            warnings.warn(f"{label}: no linked seed is {beyond}; the rest takes their share", stacklevel=5)
        self.target = (reachable / reachable.sum()).reindex(labels, fill_value=0.0).to_numpy()
        self.first = self.factor = self.target * current.sum() / np.maximum(current, 1)

    def per_kp(self):
        return np.einsum("kl,l->k", self.shares, self.factor) + self.unlabelled  # no BLAS, as in _Proposals

    def learn(self, seeds):
        drawn = np.bincount(self.codes[seeds][self.codes[seeds] >= 0], minlength=len(self.target))
        calm = 8 * len(self.target)  # seeds' worth of belief that the target is met: small rounds are noisy
        share = (drawn + calm * self.target) / (drawn.sum() + calm)
        change = np.divide(self.target, share, out=np.ones(len(share)), where=share > 0)
        self.factor = np.clip(self.factor * change, self.first / _LEAN, self.first * _LEAN)


def _mean_over_seeds(graph, values):
    """Mean over each KP's seeds of `values`, S or S x L."""
    return ((graph.incidence @ values).T / graph.popularity).T


def _shares(label, target):
    """A target as shares that sum to 1."""
    weights = pd.Series(dict(target), dtype=float)
    if not len(weights) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum():
        raise ValueError(f"{label}={dict(target)!r}; allowed: label -> share, finite, from 0, not all 0")
    return weights / weights.sum()


def _focus_per_kp(graph, focus):
    """Mean focus weight of each KP's seeds."""
    if focus is None:
        return np.ones(len(graph.names))
    focus = dict(focus)
    for cell, weight in focus.items():
        if not isinstance(cell, tuple) or len(cell) != 2 or not 0 <= weight < math.inf:
            raise ValueError(f"focus[{cell!r}]={weight!r}; allowed: (discipline, difficulty) -> from 0")
    cells = pd.MultiIndex.from_frame(graph.seeds[["discipline", "difficulty"]].astype(object))
    code, distinct = cells.factorize()
    if not set(distinct) & set(focus):
        raise ValueError(f"focus={focus!r}: no seed there; allowed, for instance: {distinct[:3].tolist()}")
    return _mean_over_seeds(graph, np.array([focus.get(cell, 1.0) for cell in distinct])[code])


class _Threads(ThreadPoolExecutor):
    """Python threads for kernels that release the lock. Numba's own threads switch nested OpenMP on for the whole process,
    which made scoring with torch twenty times slower afterwards (docs/LOG.md)."""

    def over(self, first: int, last: int, call) -> None:
        """`call(a, b)` over consecutive stretches of first..last, several a thread since their lengths are uneven."""
        parts = 1 if self._max_workers == 1 else min(4 * self._max_workers, last - first)
        stretches = pairwise(np.linspace(first, last, parts + 1).astype(np.int64).tolist())
        if parts == 1:
            call(first, last)
        else:
            list(self.map(lambda stretch: call(*stretch), stretches))


class _Proposals:
    """Tables that draw a neighbour in proportion to weight * V, V being that of this or an earlier round.

    Making them takes a pass over all edges, so they are kept while V moves little: a proposed k is then
    accepted in proportion to V now over V then, and the draw stays exact.
    """

    def __init__(self, adjacency, pool):
        self.adjacency, self.pool = adjacency, pool
        self.strength = np.asarray(adjacency.sum(axis=1)).ravel()
        self.cumulative, self.guide = np.empty(adjacency.nnz), np.empty(adjacency.nnz, dtype=np.int32)
        self.then = np.zeros(len(self.strength))

    def towards(self, value):
        """Probability to accept each KP, and the tables it is proposed from, so that steps follow `value`."""
        ratio = np.divide(value, self.then, out=np.zeros(len(value)), where=self.then > 0)
        mass = self.then * self.strength
        # Not mass @ ratio: BLAS threads wait for each other, and round as their number is.
        accepted = (mass * ratio).sum()
        if value[self.then == 0].any() or accepted < _ACCEPTANCE * mass.sum() * ratio.max():
            fill, of = _kernels()[0], self.adjacency
            tables = of.indptr, of.indices, of.data, value, self.cumulative, self.guide
            self.pool.over(0, _BLOCKS, lambda a, b: fill(*tables, a, b))
            self.then, ratio = value, np.ones(len(value))
        return ratio / ratio.max(), self.cumulative, self.guide


@functools.cache
def _kernels():
    """The compiled loops; in a function, so that numba loads on the first walk and not on import."""
    from numba import njit

    @njit(nogil=True, cache=True)
    def fill(indptr, indices, weight, value, cumulative, guide, first, last):
        # Guide table (Chen and Asau 1974): for u in [b/d, (b+1)/d) the search starts at guide[b] and takes
        # about two looks. Rows are dealt out to blocks in turn, since hubs tend to stand together.
        for block in range(first, last):
            for row in range(block, len(indptr) - 1, _BLOCKS):
                low, degree = indptr[row], indptr[row + 1] - indptr[row]
                total = 0.0
                for j in range(low, low + degree):
                    total += weight[j] * value[indices[j]]
                    cumulative[j] = total
                j = 0
                for b in range(degree):
                    while j < degree - 1 and cumulative[low + j] <= total * (b / degree):
                        j += 1
                    guide[low + b] = j

    @njit(nogil=True, cache=True)
    def walk(indptr, indices, weight, ids, value, start, accept, cumulative, guide, key, first, nodes, edges):
        gamma = np.uint64(0x9E3779B97F4A7C15)

        def mix(z):  # SplitMix64 (Steele, Lea and Flood 2014)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            return z ^ (z >> np.uint64(31))

        def uniform(state):
            return (mix(state) >> np.uint64(11)) * 2.0**-53

        for w in range(len(nodes)):
            path = nodes[w]
            state = mix(key + gamma * np.uint64(first + w + 1))
            for _ in range(_RESTARTS):
                state += gamma
                k = np.searchsorted(start, uniform(state) * start[-1], side="right")
                path[0] = min(k, len(start) - 1)
                size = 1
                while size < len(path):
                    low, high = indptr[path[size - 1]], indptr[path[size - 1] + 1]
                    degree = high - low
                    total = cumulative[high - 1] if degree else 0.0
                    chosen = -1
                    for _ in range(min(degree, _PROPOSALS) if total > 0.0 else 0):
                        state += gamma
                        u = uniform(state)
                        j = low + guide[low + min(int(u * degree), degree - 1)]
                        while j < high - 1 and cumulative[j] <= u * total:
                            j += 1
                        state += gamma
                        fresh = uniform(state) < accept[indices[j]]
                        for k in path[:size]:
                            fresh = fresh and k != indices[j]
                        if fresh:
                            chosen = j
                            break
                    if chosen < 0:  # the same law over all unvisited neighbours, in one pass (a reservoir)
                        total = 0.0
                        for j in range(low, high):
                            gain = weight[j] * value[indices[j]]
                            for k in path[:size]:
                                gain *= k != indices[j]
                            total += gain
                            state += gamma
                            if uniform(state) * total < gain:
                                chosen = j
                    if chosen < 0:
                        break
                    path[size] = indices[chosen]
                    edges[w, size - 1] = ids[chosen]
                    size += 1
                if size > 1:
                    break

    @njit(cache=True)
    def assign(indptr, members, edges, wait, due, cursor, level, seeds):
        # The seed with the smallest due = (uses + 1/2) * wait comes next. All of an edge's seeds are due at level[e]
        # or later, those before cursor[e] later. So the next is found in a few looks; a search for the minimum would
        # read thousands at every step of a hub.
        for w in range(len(edges)):
            for step in range(edges.shape[1]):
                e = edges[w, step]
                if e < 0:
                    break
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


def _as_lists(values, codes):
    """Rows of codes as lists of values, without the -1 at the end."""
    present = codes >= 0
    flat = np.asarray(values, dtype=object)[codes[present]].tolist()
    return [flat[low:high] for low, high in pairwise([0, *present.sum(axis=1).cumsum().tolist()])]


def path_diagnostics(graph, paths: pd.DataFrame, *, discipline=None, difficulty=None) -> pd.DataFrame:
    """One row that describes a table of `sample_paths`: coverage, balance, popularity, control, reuse.

    coverage: share of linked KPs visited. gini, entropy_bits, evenness (entropy over its maximum): of visits
    over linked KPs. spearman, pearson: visits against popularity. kl_*: KL(target || seeds drawn) in nats,
    half a seed added to each label; missing_*: target share on labels of no linked seed, beyond any walk's
    reach. Null where no target is given or nothing varies. Raises ValueError for names not in the graph.
    """
    linked = graph.degree > 0
    visits = np.bincount(_codes(graph.names, paths["kps"], "KP"), minlength=len(linked))[linked]
    seeds = _codes(graph.seeds["id"], paths["seeds"], "seed")
    both = pd.DataFrame({"visits": visits, "popularity": graph.popularity[linked]})
    count, total = len(visits), visits.sum()
    share = visits[visits > 0] / total
    entropy = float(-(share * np.log2(share)).sum())
    row = {
        "paths": len(paths),
        "mean_length": paths["kps"].map(len).mean(),
        "kps_visited": len(share),
        "coverage": len(share) / count if count else np.nan,
        "gini": (2 * np.arange(count) + 1 - count) @ np.sort(visits) / (count * total) if total else np.nan,
        "entropy_bits": entropy,
        "evenness": entropy / math.log2(count) if count > 1 else np.nan,
        "spearman": both.corr("spearman").iloc[0, 1],
        "pearson": both.corr("pearson").iloc[0, 1],
        "distinct_seeds": np.count_nonzero(np.bincount(seeds)),
    }
    for label, target in (("discipline", discipline), ("difficulty", difficulty)):
        row[f"kl_{label}"] = row[f"missing_{label}"] = np.nan
        if target is not None:
            target = _shares(label, target)
            drawn = graph.seeds[label].iloc[seeds].astype(object).value_counts()
            drawn = drawn.reindex(drawn.index.union(target.index), fill_value=0) + 0.5
            target = target[target > 0]
            row[f"kl_{label}"] = (target * np.log(target * drawn.sum() / drawn[target.index])).sum()
            there = graph.seeds.loc[graph.linked_seeds, label].unique()
            row[f"missing_{label}"] = target[~target.index.isin(there)].sum()
    return pd.DataFrame([row])


def _codes(index, lists, what):
    code = dict(
        zip(pd.Index(index).tolist(), range(len(index)), strict=True)
    )  # ids and names hash faster here than in pandas
    flat = chain.from_iterable(lists)
    try:
        return np.fromiter(map(code.__getitem__, flat), dtype=np.int64)
    except KeyError as error:
        unknown = error.args[0]
        raise ValueError(
            f"{what} {unknown!r} is not in the graph; pass the graph that the paths came from"
        ) from None
