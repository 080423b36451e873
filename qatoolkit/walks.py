"""Value-guided walks over the KP graph: LinkSyn's second step (arXiv 2508.01317; the formulas are our reading).

The value of a knowledge point k after some paths,

    V(k) = popularity(k)^alpha * (1 + visits(k))^-beta * discipline(k) * difficulty(k),

balances popularity against coverage and holds the discipline and difficulty shares of the seeds under control. A walk
starts in proportion to V and steps from u to an unvisited k in proportion to weight(u, k) * V(k). V is frozen within a
round; every walk has a random stream of its own, so the paths depend on the seed and not on the number of threads.
"""

import functools
import math
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pandas as pd

from qatoolkit.kpgraph import KPGraph

_RESTARTS = 16  # starts a walk may try before it is given up as shorter than two KPs
_PROPOSALS = 32  # proposals refused before a step scans the whole row
_ACCEPTANCE = 0.5  # expected share of proposals accepted below which the proposals are made anew
_FACTOR_LIMIT = 1e4  # how far control may lean on a label that hardly any walk reaches


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
    """Sample `n` paths of at most `length` KPs: a table of `path` (int), `kps` (names) and `seeds` (ids, one per step).

    alpha: pull of popularity. beta: push towards KPs that few paths used. discipline, difficulty: target shares by
    label, scaled to sum to 1, labels left out get none. focus: weight by (discipline, difficulty), such as the probe's
    weak cells; V is multiplied by the mean weight of the KP's seeds, cells left out weigh 1 (our own addition, not
    LinkSyn's). rounds: how often V is renewed, by default 16 to 256 times.

    A step's seed holds both its KPs: the least used so far, ties by table order. Paths end early where no neighbour is
    left. Walks that find no second KP after 16 starts are left out with a warning. Raises ValueError for a setting out
    of range, for a graph without edges, and where targets and focus leave no KP any value. Our reading of LinkSyn.
    """
    nodes, seeds = sample_codes(
        graph, n, length, alpha=alpha, beta=beta, discipline=discipline, difficulty=difficulty, focus=focus,
        rounds=rounds, seed=seed, threads=threads,
    )  # fmt: skip
    walked = nodes[:, 1] >= 0
    if lost := int(n - walked.sum()):
        warnings.warn(f"{lost} of {n} walks found no second KP of value above 0 and are left out", stacklevel=2)
    nodes, seeds = nodes[walked], seeds[walked]
    return pd.DataFrame(
        {
            "path": np.arange(len(nodes)),
            "kps": _as_lists(graph.names, nodes),
            "seeds": _as_lists(graph.seeds["id"], seeds),
        }
    )


def sample_codes(
    graph, n, length, *, alpha=1.0, beta=1.0, discipline=None, difficulty=None, focus=None, rounds=None, seed=0,
    threads=None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """`sample_paths` as int32 codes: KPs, n x length, and seeds, n x (length - 1), both filled up with -1.

    For millions of paths and for timing; a row with one KP is a walk that found no second.
    """
    for name, number, least in (("n", n, 1), ("length", length, 2), ("seed", seed, 0)):
        if not isinstance(number, int | np.integer) or number < least:
            raise ValueError(f"{name}={number!r}; allowed: a whole number from {least}")
    if rounds is None:
        linked = max(int((graph.degree > 0).sum()), 1)
        rounds = min(n, max(16, min(256, math.ceil(4 * n * length / linked))))
    if not isinstance(rounds, int | np.integer) or not 1 <= rounds <= n:
        raise ValueError(f"rounds={rounds!r}; allowed: a whole number from 1 to n={n}")
    if not graph.n_edges:
        raise ValueError(f"{graph!r} has no edge to walk; it takes seeds with two or more KPs (and a lower min_count)")
    value = _Value(graph, alpha, beta, discipline, difficulty, focus)
    proposals = _Proposals(graph)
    _, walk, assign = _kernels()

    nodes = np.full((n, length), -1, dtype=np.int32)
    edges = np.full((n, length - 1), -1, dtype=np.int32)
    seeds = np.full((n, length - 1), -1, dtype=np.int32)
    used = np.zeros(len(graph.seeds), dtype=np.int32)
    cursor, level = np.zeros((2, graph.n_edges), dtype=np.int32)
    adjacency, edge_seeds = graph.adjacency, graph.edge_seeds
    key = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    visits = np.zeros(len(graph.names), dtype=np.int64)
    with _numba_threads(threads):
        for first, last in pairwise(np.linspace(0, n, rounds + 1).astype(np.int64)):
            now = value(visits)
            accept = proposals.towards(now)
            part = slice(first, last)
            walk(
                adjacency.indptr, adjacency.indices, adjacency.data, graph.edge_ids, now, np.cumsum(now), accept,
                proposals.cumulative, proposals.guide, key, first, nodes[part], edges[part],
            )  # fmt: skip
            assign(edge_seeds.indptr, edge_seeds.indices, edges[part], used, cursor, level, seeds[part])
            visits += np.bincount(nodes[part][nodes[part] >= 0], minlength=len(visits))
            value.learn(seeds[part][seeds[part] >= 0])
    return nodes, seeds


def knowledge_value(
    graph, visits=0, *, alpha=1.0, beta=1.0, discipline=None, difficulty=None, focus=None
) -> np.ndarray:
    """V of every KP (float64, up to a common factor) before any path, or after `visits` paths used it.

    KPs without a link get 0. The current shares are those of the graph's linked seeds, as in the first round.
    """
    visits = np.broadcast_to(np.asarray(visits), len(graph.names))
    return _Value(graph, alpha, beta, discipline, difficulty, focus)(visits)


class _Value:
    """V(k), with the state that control needs."""

    def __init__(self, graph, alpha, beta, discipline, difficulty, focus):
        if not math.isfinite(alpha):
            raise ValueError(f"alpha={alpha!r}; allowed: a finite number")
        if not (math.isfinite(beta) and beta >= 0):
            raise ValueError(f"beta={beta!r}; allowed: a finite number from 0")
        targets = {"discipline": discipline, "difficulty": difficulty}
        self.controls = [_Control(graph, *item) for item in targets.items() if item[1] is not None]
        self.beta = beta
        self.linked = graph.degree > 0
        with np.errstate(divide="ignore"):  # a focus of 0 is a log value of minus infinity, as it should be
            self.log_static = alpha * np.log(graph.popularity) + np.log(_focus_per_kp(graph, focus))

    def __call__(self, visits):
        log_value = np.where(self.linked, self.log_static - self.beta * np.log1p(visits), -np.inf)
        top = log_value.max(initial=-np.inf)
        value = np.exp(log_value - top) if np.isfinite(top) else np.zeros(len(log_value))
        for control in self.controls:
            value *= control.per_kp()
        if not value.any():
            raise ValueError("no linked KP has a value above 0: the targets and the focus exclude them all; widen them")
        return value

    def learn(self, seeds):
        for control in self.controls:
            control.learn(seeds)


class _Control:
    """Target share over current share of one label, averaged over each KP's seeds; seeds without the label count 1.

    The current share is what walks show without this factor: at first the share among the linked seeds, then the share
    drawn in a round divided by the factor it was drawn under. The factor so keeps moving until the drawn share meets
    the target; were it target over drawn share, it would settle halfway (their geometric mean).
    """

    def __init__(self, graph, label, target):
        category = graph.seeds[label].cat
        self.codes = category.codes.to_numpy()
        linked = self.codes[graph.linked_seeds & (self.codes >= 0)]
        current = pd.Series(np.bincount(linked, minlength=len(category.categories)), index=category.categories)
        target = _shares(label, target)
        reachable = target[target.index.isin(current.index[current > 0])]
        if not reachable.sum():
            have = current.index[current > 0].tolist()
            raise ValueError(f"{label} target {target.to_dict()} names no label of a linked seed; the graph has {have}")
        if beyond := sorted(set(target.index[target > 0]) - set(reachable.index)):
            warnings.warn(f"{label} target: no linked seed is {beyond}; the other shares grow", stacklevel=5)
        self.target = (reachable / reachable.sum()).reindex(current.index, fill_value=0.0).to_numpy()
        self.factor = self.target * current.sum() / np.maximum(current.to_numpy(), 1)

        one_hot = np.zeros((len(self.codes), len(current)))
        one_hot[np.flatnonzero(self.codes >= 0), self.codes[self.codes >= 0]] = 1.0
        self.shares = (graph.incidence @ one_hot) / graph.popularity[:, None]
        self.unlabelled = 1.0 - self.shares.sum(axis=1)

    def per_kp(self):
        return self.shares @ self.factor + self.unlabelled

    def learn(self, seeds):
        drawn = np.bincount(self.codes[seeds][self.codes[seeds] >= 0], minlength=len(self.target))
        calm = 8 * len(self.target)  # seeds' worth of belief that the target is met: small rounds are noisy
        share = (drawn + calm * self.target) / (drawn.sum() + calm)
        change = np.divide(self.target, share, out=np.ones(len(share)), where=share > 0)
        self.factor = np.minimum(self.factor * change, _FACTOR_LIMIT)


def _shares(label, target):
    """A target as shares that sum to 1."""
    weights = pd.Series(dict(target), dtype=float)
    if not len(weights) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum():
        raise ValueError(f"{label}={dict(target)!r}; allowed: label -> share, finite, not negative, not all 0")
    return weights / weights.sum()


def _focus_per_kp(graph, focus):
    """Mean focus weight of each KP's seeds."""
    if focus is None:
        return np.ones(len(graph.names))
    for cell, weight in (focus := dict(focus)).items():
        if not isinstance(cell, tuple) or len(cell) != 2 or not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"focus holds {cell!r}: {weight!r}; allowed: (discipline, difficulty) -> weight from 0")
    cells = pd.MultiIndex.from_frame(graph.seeds[["discipline", "difficulty"]].astype(object))
    code, distinct = cells.factorize()
    if not set(distinct) & set(focus):
        raise ValueError(f"focus names {len(focus)} cells and no seed lies in any of them; check labels, e.g. {cell}")
    weights = np.array([focus.get(cell, 1.0) for cell in distinct])[code]
    return (graph.incidence @ weights) / graph.popularity


class _Proposals:
    """Row-wise tables from which a step draws a neighbour in proportion to weight * V, V being that of some round.

    Renewing them costs a pass over all edges, so they are kept while V has moved little: a proposal k is then accepted
    in proportion to V now over V then, which leaves the draw exact.
    """

    def __init__(self, graph):
        self.adjacency = graph.adjacency
        self.strength = np.asarray(graph.adjacency.sum(axis=1)).ravel()
        self.cumulative = np.empty(graph.adjacency.nnz)
        self.guide = np.empty(graph.adjacency.nnz, dtype=np.int32)
        self.then = np.zeros(len(self.strength))

    def towards(self, value):
        """Probability to accept each KP once proposed, such that steps follow `value`."""
        ratio = np.divide(value, self.then, out=np.zeros(len(value)), where=self.then > 0)
        mass = self.then * self.strength
        fits = not (value[self.then == 0] > 0).any() and mass @ ratio >= _ACCEPTANCE * mass.sum() * ratio.max()
        if fits:
            return ratio / ratio.max()
        fill = _kernels()[0]
        fill(self.adjacency.indptr, self.adjacency.indices, self.adjacency.data, value, self.cumulative, self.guide)
        self.then = value
        return np.ones(len(value))


@functools.cache
def _kernels():
    """The compiled loops. In a function, so that numba loads on the first walk and not on import."""
    from numba import njit, prange

    @njit(parallel=True, cache=True)
    def fill(indptr, indices, weight, value, cumulative, guide):
        # Guide table (Chen and Asau 1974): for u in [b/d, (b+1)/d) the search starts at guide[b]; two looks on average.
        rows = len(indptr) - 1
        blocks = 64  # rows are dealt out in turn, as hubs tend to stand together
        for block in prange(blocks):
            for row in range(block, rows, blocks):
                low, degree = indptr[row], indptr[row + 1] - indptr[row]
                total = 0.0
                for j in range(low, low + degree):
                    total += weight[j] * value[indices[j]]
                    cumulative[j] = total
                j = 0
                for b in range(degree):
                    floor = total * (b / degree)
                    while j < degree - 1 and cumulative[low + j] <= floor:
                        j += 1
                    guide[low + b] = j

    @njit(parallel=True, cache=True)
    def walk(
        indptr, indices, weight, edge_ids, value, start, accept, cumulative, guide, key, first, nodes, edges
    ):  # fmt: skip
        gamma = np.uint64(0x9E3779B97F4A7C15)

        def mix(z):  # SplitMix64's finaliser
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            return z ^ (z >> np.uint64(31))

        def uniform(state):
            return (mix(state) >> np.uint64(11)) * 2.0**-53

        length = nodes.shape[1]
        for w in prange(len(nodes)):
            path = nodes[w]
            state = mix(key + gamma * np.uint64(first + w + 1))
            for _ in range(_RESTARTS):
                state += gamma
                u = uniform(state) * start[-1]
                path[0] = min(np.searchsorted(start, u, side="right"), len(start) - 1)
                size = 1
                while size < length:
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
                    if chosen < 0:  # the same law over the unvisited neighbours, in one pass (weighted reservoir)
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
                    edges[w, size - 1] = edge_ids[chosen]
                    size += 1
                if size > 1:
                    break

    @njit(cache=True)
    def assign(indptr, members, edges, used, cursor, level, seeds):
        # Of an edge's seeds all are used at least level[e] times and those before cursor[e] more often: the next seed
        # is found in a few looks, where a search for the minimum would pass over thousands at every step of a hub.
        for w in range(len(edges)):
            for step in range(edges.shape[1]):
                e = edges[w, step]
                if e < 0:
                    break
                low, high = indptr[e], indptr[e + 1]
                j = low + cursor[e]
                while j < high and used[members[j]] > level[e]:
                    j += 1
                if j == high:
                    j = low
                    for other in range(low, high):
                        if used[members[other]] < used[members[j]]:
                            j = other
                    level[e] = used[members[j]]
                seeds[w, step] = members[j]
                used[members[j]] += 1
                cursor[e] = j + 1 - low

    return fill, walk, assign


@contextmanager
def _numba_threads(threads):
    import numba

    before, most = numba.get_num_threads(), numba.config.NUMBA_NUM_THREADS
    if threads is not None and not (isinstance(threads, int | np.integer) and 1 <= threads <= most):
        raise ValueError(f"threads={threads!r}; allowed: None or a whole number from 1 to {most} on this machine")
    numba.set_num_threads(threads or before)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _as_lists(values, codes):
    """Rows of codes as lists of values, without the -1 at the end."""
    present = codes >= 0
    flat = np.asarray(values, dtype=object)[codes[present]].tolist()
    ends = present.sum(axis=1).cumsum().tolist()
    return [flat[low:high] for low, high in pairwise([0, *ends])]


def path_diagnostics(graph: KPGraph, paths: pd.DataFrame, *, discipline=None, difficulty=None) -> pd.DataFrame:
    """One row that describes a table of `sample_paths`: coverage, balance, popularity, control and reuse.

    coverage: share of linked KPs visited. gini, entropy_bits (and evenness, over its maximum): of visits over linked
    KPs. spearman, pearson: visits against popularity over linked KPs. kl_discipline, kl_difficulty: KL(target || seeds
    drawn) in nats, half a seed added to each label; missing_*: target share on labels of no linked seed, out of any
    walk's reach. Null where no target is given or a correlation is undefined. Raises ValueError for names that are not
    in the graph.
    """
    kps = _codes(graph.names, paths["kps"], "KP")
    seeds = _codes(graph.seeds["id"], paths["seeds"], "seed")
    linked = graph.degree > 0
    visits = np.bincount(kps, minlength=len(linked))[linked]
    popularity = pd.Series(graph.popularity[linked])
    count, total = len(visits), max(visits.sum(), 1)
    share = visits[visits > 0] / total
    entropy = float(-(share * np.log2(share)).sum())
    ranked = np.sort(visits)
    row = {
        "paths": len(paths),
        "mean_length": paths["kps"].map(len).mean(),
        "kps_visited": int((visits > 0).sum()),
        "coverage": (visits > 0).mean() if count else np.nan,
        "gini": ((2 * np.arange(1, count + 1) - count - 1) @ ranked) / (count * total) if count else np.nan,
        "entropy_bits": entropy,
        "evenness": entropy / math.log2(count) if count > 1 else np.nan,
        "spearman": _correlation(pd.Series(visits).rank(), popularity.rank()),
        "pearson": _correlation(pd.Series(visits), popularity),
        "distinct_seeds": len(np.unique(seeds)),
    }
    for label, target in (("discipline", discipline), ("difficulty", difficulty)):
        row[f"kl_{label}"] = row[f"missing_{label}"] = np.nan
        if target is not None:
            target = _shares(label, target)
            drawn = graph.seeds[label].iloc[seeds].value_counts()
            drawn = drawn.reindex(drawn.index.union(target.index), fill_value=0) + 0.5
            target = target[target > 0]
            row[f"kl_{label}"] = float((target * np.log(target / (drawn / drawn.sum())[target.index])).sum())
            there = graph.seeds.loc[graph.linked_seeds, label].unique()
            row[f"missing_{label}"] = target[~target.index.isin(there)].sum()
    return pd.DataFrame([row])


def _correlation(one, other):
    """Pearson's r; null, not 0, where either side does not vary."""
    return one.corr(other) if one.nunique() > 1 and other.nunique() > 1 else np.nan


def _codes(index, lists, what):
    flat = [name for names in lists for name in names]
    codes = pd.Index(index, dtype=object).get_indexer(np.fromiter(flat, dtype=object, count=len(flat)))
    if (codes < 0).any():
        raise ValueError(f"{what} {flat[int(np.argmin(codes))]!r} is not in the graph; pass the graph the paths came from")
    return codes
