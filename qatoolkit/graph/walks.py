"""Value-guided walks over the KP graph: LinkSyn's second step (arXiv 2508.01317; formulas are our reading).

The value of a knowledge point k after some paths,

    V(k) = popularity(k)^alpha * (1 + visits(k))^-beta * discipline(k) * difficulty(k) * aim(k),

weighs popularity against coverage and steers the discipline and difficulty of the seeds. A walk starts in proportion to
V and steps from u to an unvisited k in proportion to weight(u, k) * V(k); in a step, discipline, difficulty and focus
are those of the seeds that contain both u and k, one of which will be drawn (focus and aim are our additions). V is
frozen within a round, and every walk has its own random stream, so paths depend on the seed but not on the number of
threads."""

import gc
import math
import os
import textwrap
import warnings
from collections import Counter
from collections.abc import Mapping
from itertools import chain, pairwise
from numbers import Real

import numpy as np
import pandas as pd
from scipy import sparse

from qatoolkit.graph.coverage import aim_weights
from qatoolkit.graph.kp_graph import KPGraph
from qatoolkit.graph.proposals import Proposals, Threads

# Value functions that LinkSyn's balance is compared with.
POLICIES = {
    "popularity": {"alpha": 1.0, "beta": 0.0},
    "coverage": {"alpha": 0.0, "beta": 1.0},
    "uniform": {"alpha": 0.0, "beta": 0.0},
}
_TINY_SHARE = 1e-9  # replaces a target share of 0 in divisions
_MAX_CHANGE = 30.0  # most by which control may change a factor: an unreachable label must not starve the rest


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
    aim: Mapping[str, float] | None = None,
    rounds: int | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> pd.DataFrame:
    """Sample `n` paths of at most `length` KPs: `path` (int), `kps` (names), `seeds` (ids, one per step).

    Our reading of LinkSyn's knowledge distribution value function; the formula is in the module's docstring.

    alpha: exponent of popularity. beta: exponent of coverage, towards KPs that few paths used. discipline, difficulty:
    target shares by label, scaled to sum to 1; missing labels get 0. focus: weight by (discipline, difficulty), such as
    the probe's weak cells; V is multiplied by the mean weight of the seeds, missing cells weigh 1 (our addition to
    LinkSyn). aim: weight above 0 by KP, such as the blind spots of `qt.coverage`, 1 for others; V is multiplied by it
    (our addition). rounds: how often V is updated, 16 to 256 times by default; without beta and targets V is constant.
    threads: at most, and by default, one per available core.

    The seed of a step contains both its KPs: the least used so far, on ties the first in the table. With targets and
    focus, the steps of an edge are divided among its seeds in proportion to target over current share and to weight, by
    Webster's method for apportioning seats. A path has at least two KPs; it ends early if no neighbour is left, or none
    through a seed whose labels have a target share. Raises ValueError for a setting out of range, a graph without
    edges, and targets or focus that exclude every KP.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> points = [["Ohm's law", "power"], ["power", "energy"], ["Ohm's law", "energy"], ["magnetism"]]
    >>> table = pd.DataFrame({"id": ["q1", "q2", "q3", "q4"], "knowledge_points": points})
    >>> qt.sample_paths(qt.build_kp_graph(table), n=3, length=2, seed=1)
       path                  kps seeds
    0     0      [energy, power]  [q2]
    1     1   [power, ohm's law]  [q1]
    2     2  [ohm's law, energy]  [q3]
    """
    nodes, seeds = sample_codes(
        graph, n, length, alpha=alpha, beta=beta, discipline=discipline, difficulty=difficulty, focus=focus,
        aim=aim, rounds=rounds, seed=seed, threads=threads,
    )  # fmt: skip
    paths = pd.DataFrame({"path": np.arange(n)})
    paths["kps"] = _as_lists(graph.names, nodes)
    paths["seeds"] = _as_lists(graph.seeds["id"], seeds)
    return paths


def sample_codes(graph, n, length, *, rounds=None, seed=0, threads=None, **value_settings):
    """`sample_paths` as int32 codes, for timing and for tens of millions of paths: KPs (n x length) and seeds (n x
    (length - 1)), padded with -1."""
    from qatoolkit.graph.kernels import assign, walk

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = cores if threads is None else threads
    _check_whole("n", n, 1)
    _check_whole("length", length, 2)
    _check_whole("seed", seed, 0)
    _check_whole("threads", threads, 1)
    if not graph.n_edges:
        raise ValueError(f"{graph!r} has no edge; give seeds with two or more KPs, or a lower min_count")
    if rounds is None:
        rounds = min(n, max(16, min(256, math.ceil(4 * n * length / (graph.degree > 0).sum()))))
    _check_whole("rounds", rounds, 1, n)
    value_after = KnowledgeValue(graph, **value_settings)
    rounds = 1 if value_after.constant else rounds

    nodes, seeds = np.full((n, length), -1, np.int32), np.full((n, length - 1), -1, np.int32)
    wait = value_after.wait_per_seed()
    due = wait / 2
    cursor, level = np.zeros(graph.n_edges, dtype=np.int32), np.zeros(graph.n_edges)
    visits = np.zeros(len(graph.names), dtype=np.int64)
    key = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    choices, learned, renew = _choices_per_edge(graph.edge_seeds), 0, 1
    members = graph.edge_seeds.indptr, graph.edge_seeds.indices
    work = max(n * length // rounds, graph.adjacency.nnz)  # starting a thread costs more than a few walks
    with Threads(int(min(threads, cores, 1 + work // 20_000))) as pool:
        proposals = Proposals(value_after.links(), pool)
        for done, (first, last) in enumerate(pairwise(np.linspace(0, n, rounds + 1).astype(np.int64)), 1):
            value, links = value_after(visits), proposals.adjacency
            state = proposals.rows, links.indices, links.data, graph.edge_ids, choices
            state += value, proposals.towards(value), proposals.table, key
            pool.over(first, last, lambda a, b, state=state: walk(*state, a, nodes[a:b], seeds[a:b]))
            assign(*members, nodes[first:last], wait, due, cursor, level, seeds[first:last], visits)
            # at growing intervals, because new tables take a pass over all edges
            if value_after.controls and renew <= done < rounds:
                value_after.learn(seeds[learned:last])
                proposals, learned = Proposals(value_after.links(), pool), last
                renew = done + 1 + done // 4
    return nodes, seeds


def _choices_per_edge(edge_seeds):
    """What a walk records for a step along each edge: its only seed, else -2 - edge, so that `assign` chooses one.

    `assign` also handles an only seed that other edges could choose, because it counts uses."""
    edge = np.arange(edge_seeds.shape[0], dtype=np.int32)
    sizes = np.diff(edge_seeds.indptr)
    only = edge_seeds.indices[edge_seeds.indptr[:-1]]
    contested = np.zeros(edge_seeds.shape[1], dtype=bool)
    contested[edge_seeds.indices[np.repeat(sizes > 1, sizes)]] = True
    return np.where((sizes == 1) & ~contested[only], only, -2 - edge)


def _check_whole(name, number, least, most=math.inf):
    if not isinstance(number, int | np.integer) or not least <= number <= most:
        raise ValueError(f"{name}={number!r}; allowed: a whole number from {least} to {most}")


def _is_finite(number):
    return isinstance(number, Real) and math.isfinite(number)


class KnowledgeValue:
    """V of every KP as a function of `visits`, up to a common factor; 0 for KPs without an edge that walks can use.

    Settings as in `sample_paths`. `KnowledgeValue(graph, alpha=0.5)(0)` is V before any path."""

    def __init__(self, graph, *, alpha=1.0, beta=1.0, discipline=None, difficulty=None, focus=None, aim=None):
        if not _is_finite(alpha):
            raise ValueError(f"alpha={alpha!r}; allowed: a finite number")
        if not (_is_finite(beta) and beta >= 0):
            raise ValueError(f"beta={beta!r}; allowed: a finite number from 0")
        self.controls = []
        for label, target in (("discipline", discipline), ("difficulty", difficulty)):
            if target is not None:
                self.controls.append(_Control(graph, label, target))
        self.beta, self.graph = beta, graph
        self.focus = None if focus is None else _compute_focus(graph, focus)
        self.log_static = alpha * np.log(graph.popularity)
        if aim is not None:
            self.log_static += np.log(aim_weights(graph.names, aim))
        self.log_static[np.asarray(self.links().sum(axis=1)).ravel() == 0] = -np.inf
        self.worthless = np.flatnonzero(self.log_static == -np.inf)

    def __call__(self, visits) -> np.ndarray:
        with np.errstate(divide="ignore"):  # log 0 = -inf is intended
            log_value = self.log_static + np.log(self._per_kp())
        log_value -= self.beta * np.log(1.0 + visits)  # log1p is slower, and not needed for integers
        log_value -= log_value.max(initial=-1e300)
        # keep above the smallest float: underflow would remove edges
        value = np.exp(np.maximum(log_value, -600.0))
        value[self.worthless] = 0.0
        if not value.any():
            raise ValueError("every linked KP has value 0: targets and focus exclude them all; widen them")
        return value

    @property
    def constant(self) -> bool:
        """Whether V does not depend on visits, so that one round suffices."""
        return not self.beta and not self.controls

    def links(self):
        """The adjacency whose weights, times V, walks follow. Targets and focus act through the seeds that both KPs
        share, not through all seeds of a KP."""
        links = self.graph.adjacency
        if not self.controls and self.focus is None:
            return links
        members = self.graph.edge_seeds
        shared = (members @ self._per_seed()) / np.diff(members.indptr)
        per_kp = self._per_kp()
        lift = shared[self.graph.edge_ids] / np.where(per_kp > 0, per_kp, 1.0)[links.indices]
        return sparse.csr_matrix((links.data * lift, links.indices, links.indptr), shape=links.shape)

    def wait_per_seed(self) -> np.ndarray:
        """Draws of an average seed per draw of each seed: before learning, current over target share of its labels,
        divided by its focus; 1 without either."""
        return 1.0 / np.maximum(self._per_seed(), _TINY_SHARE)

    def _per_seed(self):
        focus = np.ones(len(self.graph.seeds)) if self.focus is None else self.focus
        return math.prod((control.per_seed() for control in self.controls), start=focus)

    def _per_kp(self):
        focus = np.ones(len(self.graph.names)) if self.focus is None else _mean_over_seeds(self.graph, self.focus)
        return math.prod((control.per_kp() for control in self.controls), start=focus)

    def learn(self, seeds):
        """Correct the factors by the seeds drawn so far (-1: padding)."""
        for control in self.controls:
            control.learn(seeds[seeds >= 0])


class _Control:
    """Target share over current share for one label column, averaged over a KP's seeds; unlabelled seeds count 1.

    The current share is what walks would draw without this factor: at first the share among linked seeds, later the
    share drawn in a round divided by the factor used in it. So the factor changes until the drawn share meets the
    target; target over drawn share would converge halfway, at their geometric mean."""

    def __init__(self, graph, label, target):
        labels = graph.seeds[label].cat.categories
        self.codes = graph.seeds[label].cat.codes.to_numpy()
        one_hot = (self.codes[:, None] == np.arange(len(labels))).astype(np.float64)
        self.shares = _mean_over_seeds(graph, one_hot)
        self.unlabelled = 1.0 - self.shares.sum(axis=1)
        current = one_hot[graph.linked_seeds].sum(axis=0)
        have = labels[current > 0]
        target = _normalise_target(label, target)
        reachable = target[target.index.isin(have)]
        if not reachable.sum():
            allowed = have.tolist() or f"none, since no linked seed has a {label}; give {label!r} to build_kp_graph"
            raise ValueError(f"{label}={target.to_dict()}: no linked seed; allowed: {allowed}")
        if beyond := sorted(target.index[target > 0].difference(have)):
            warnings.warn(f"{label}: no linked seed is {beyond}; the others take their share", stacklevel=5)
        self.target = (reachable / reachable.sum()).reindex(labels, fill_value=0.0).to_numpy()
        self.first = self.factor = self.target * current.sum() / np.maximum(current, 1)

    def per_seed(self):
        return np.append(self.factor, 1.0)[self.codes]  # code -1 is unlabelled

    def per_kp(self):
        # no BLAS, as in `Proposals`
        return np.einsum("kl,l->k", self.shares, self.factor) + self.unlabelled

    def learn(self, seeds):
        drawn = np.bincount(self.codes[seeds][self.codes[seeds] >= 0], minlength=len(self.target))
        calm = 8 * len(self.target)  # pseudo-count of seeds at the target shares, because small rounds are noisy
        share = (drawn + calm * self.target) / (drawn.sum() + calm)
        change = np.divide(self.target, share, out=np.ones(len(share)), where=share > 0)
        self.factor = np.clip(self.factor * change, self.first / _MAX_CHANGE, self.first * _MAX_CHANGE)


def _mean_over_seeds(graph, values):
    """Mean of `values` (S or S x L) over each KP's seeds."""
    return ((graph.incidence @ values).T / graph.popularity).T


def _normalise_target(label, target):
    """A target as shares that sum to 1."""
    shares = _unique_items(label, target) if hasattr(target, "items") else {}
    valid = all(_is_finite(share) and share >= 0 for share in shares.values())
    if not valid or not any(shares.values()):
        raise ValueError(f"{label}={_shorten(target)}; allowed: label -> share, finite, from 0, not all 0")
    weights = pd.Series(shares, dtype=float)
    return weights / weights.sum()


def _unique_items(name, mapping):
    """A dict or Series as a dict; ValueError if a Series has several values for a key."""
    pairs = list(mapping.items())
    if len(dict(pairs)) < len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(
            f"{name} has several values for {key!r}; give one, such as their sum by .groupby(level=...).sum()"
        )
    return dict(pairs)


def _shorten(value):
    return textwrap.shorten(repr(value), 160, placeholder=" …")


def _compute_focus(graph, focus):
    if not hasattr(focus, "items"):
        raise ValueError(f"focus={_shorten(focus)}; allowed: (discipline, difficulty) -> weight from 0")
    focus = _unique_items("focus", focus)
    for cell, weight in focus.items():
        if not isinstance(cell, tuple) or len(cell) != 2 or not _is_finite(weight) or weight < 0:
            raise ValueError(
                f"focus[{cell!r}]={_shorten(weight)}; allowed: (discipline, difficulty) -> weight from 0; "
                "leave out cells without one"
            )
    cells = pd.MultiIndex.from_frame(graph.seeds[["discipline", "difficulty"]].astype(object))
    code, distinct = cells.factorize()
    if not set(distinct) & set(focus):
        raise ValueError(f"focus={_shorten(focus)}: no seed there; allowed, for instance: {distinct[:3].tolist()}")
    return np.array([focus.get(cell, 1.0) for cell in distinct], dtype=np.float64)[code]


def _as_lists(values, codes):
    """Rows of codes as lists of values, without the -1 padding."""
    values = values.to_numpy()
    if values.dtype.kind not in "iu":
        values = values.astype(object)
    sizes, lists = (codes >= 0).sum(axis=1), []
    # Pause the cyclic GC: while a million lists are made it would scan them again and again, tripling the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        for first in range(0, len(codes), 4096):  # small enough to stay in a cache
            rows = values[codes[first : first + 4096]].tolist()
            for row in np.flatnonzero(sizes[first : first + 4096] < codes.shape[1]).tolist():
                del rows[row][sizes[first + row] :]
            lists += rows
    finally:
        if collects:
            gc.enable()
    return lists


def path_diagnostics(graph, paths: pd.DataFrame, *, discipline=None, difficulty=None) -> pd.DataFrame:
    """One row that describes a table of `sample_paths`: coverage, balance, popularity, control, reuse.

    coverage: share of linked KPs visited. gini, entropy_bits, evenness (entropy over its maximum): of visits over
    linked KPs. spearman, pearson: visits against popularity. kl_*: KL(target || drawn seeds) in nats, with half a seed
    added to each label. missing_*: target share of labels that no linked seed has, so no walk can reach them. Null if
    no target is given, no drawn seed has a label, or nothing varies. Raises ValueError for names that are not in the
    graph.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> points = [["Ohm's law", "power"], ["power", "energy"], ["Ohm's law", "energy"], ["magnetism"]]
    >>> table = pd.DataFrame({"id": ["q1", "q2", "q3", "q4"], "knowledge_points": points})
    >>> graph = qt.build_kp_graph(table)
    >>> found = qt.path_diagnostics(graph, qt.sample_paths(graph, n=10, length=2, seed=0))
    >>> qt.table(found[["paths", "mean_length", "coverage", "gini", "distinct_seeds"]])
    paths mean_length coverage   gini distinct_seeds
       10           2   100.0% 0.1333              3
    """
    linked = graph.degree > 0
    visits = np.bincount(_to_codes(graph.names, paths["kps"], "KP"), minlength=len(linked))[linked]
    seeds = _to_codes(graph.seeds["id"], paths["seeds"], "seed")
    pairs = pd.DataFrame({"visits": visits, "popularity": graph.popularity[linked]})
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
        "spearman": pairs.corr("spearman").iloc[0, 1],
        "pearson": pairs.corr("pearson").iloc[0, 1],
        "distinct_seeds": np.count_nonzero(np.bincount(seeds)),
    }
    for label, target in (("discipline", discipline), ("difficulty", difficulty)):
        row[f"kl_{label}"] = row[f"missing_{label}"] = np.nan
        if target is not None:
            target = _normalise_target(label, target)
            drawn = graph.seeds[label].iloc[seeds].astype(object).value_counts()
            drawn = drawn.reindex(drawn.index.union(target.index), fill_value=0)
            target = target[target > 0]
            if drawn.any():
                drawn += 0.5
                row[f"kl_{label}"] = (target * np.log(target * drawn.sum() / drawn[target.index])).sum()
            reachable = graph.seeds.loc[graph.linked_seeds, label].unique()
            row[f"missing_{label}"] = target[~target.index.isin(reachable)].sum()
    return pd.DataFrame([row])


def _to_codes(index, lists, kind):
    # a dict is faster than pandas here
    code = dict(zip(pd.Index(index).tolist(), range(len(index)), strict=True))
    flat = chain.from_iterable(lists)
    try:
        return np.fromiter(map(code.__getitem__, flat), dtype=np.int64)
    except KeyError as error:
        unknown = error.args[0]
        raise ValueError(f"{kind} {unknown!r} is not in the graph; pass the graph that the paths came from") from None
