"""Knowledge points and their graph: LinkSyn's first step (arXiv 2508.01317; details are our reading).

A knowledge point (KP) is a node; an edge joins two KPs that occur in the same seed question, weighted by the number of
such seeds or by PMI. The graph also records the seeds of each KP and each edge, so that a walk over KPs leads back to
questions."""

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from qatoolkit.core.display import facts
from qatoolkit.core.qa_table import require
from qatoolkit.graph import storage
from qatoolkit.graph.knowledge_points import normalise_kp

WEIGHTS = ("count", "pmi")
_LABELS = ("discipline", "difficulty")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class KPGraph:
    """Knowledge points, their links, and the seeds of both. K KPs, S seeds, E edges.

    adjacency: K x K symmetric CSR of edge weights (float64), sorted, no self loops.
    incidence: K x S CSR, one where the seed contains the KP.
    edge_seeds: E x S CSR, one where the seed contains both ends; rows as in the upper triangle of `adjacency`. names: K
    normalised KPs. seeds: S rows of `id` and the categories `discipline`, `difficulty`.
    weight: how edges are weighted, "count" or "pmi". min_count: seeds that a pair needs for an edge.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> table = pd.DataFrame({"id": ["q1", "q2"], "knowledge_points": [["Ohm's law", "power"], ["power", "energy"]]})
    >>> graph = qt.build_kp_graph(table)
    >>> graph.degrees()[["kp", "degree", "popularity"]]
              kp  degree  popularity
    0      power       2           2
    1  ohm's law       1           1
    2     energy       1           1
    """

    adjacency: sparse.csr_matrix
    incidence: sparse.csr_matrix
    edge_seeds: sparse.csr_matrix
    names: pd.Index
    seeds: pd.DataFrame
    weight: str
    min_count: int

    @property
    def n_edges(self) -> int:
        return self.edge_seeds.shape[0]

    @cached_property
    def popularity(self) -> np.ndarray:
        """Number of seeds that contain each KP, int64 of length K."""
        return np.diff(self.incidence.indptr).astype(np.int64)

    @cached_property
    def degree(self) -> np.ndarray:
        """Number of neighbours of each KP, int64 of length K."""
        return np.diff(self.adjacency.indptr).astype(np.int64)

    @cached_property
    def components(self) -> np.ndarray:
        """Connected component of each KP, numbered from 0."""
        if not len(self.names):
            return np.zeros(0, dtype=np.int32)
        return connected_components(self.adjacency, directed=False)[1]

    @property
    def orphans(self) -> list[str]:
        """KPs without an edge, which no walk reaches."""
        return self.names[self.degree == 0].tolist()

    @cached_property
    def linked_seeds(self) -> np.ndarray:
        """Whether each seed belongs to an edge, so that walks can draw it; bool of length S."""
        return np.bincount(self.edge_seeds.indices, minlength=len(self.seeds)) > 0

    @cached_property
    def edge_ids(self) -> np.ndarray:
        """Row of `edge_seeds` for every stored entry of `adjacency`, in its order."""
        upper = sparse.triu(self.adjacency, format="csr")
        # numbered from 1: the sum would drop a stored 0
        upper.data = np.arange(1, upper.nnz + 1, dtype=np.int64)
        return ((upper + upper.T).tocsr().data - 1).astype(np.int32)

    def degrees(self) -> pd.DataFrame:
        """One row per KP, most linked first: `kp`, `degree`, `strength`, `popularity`, `component`."""
        table = pd.DataFrame(
            {
                "kp": self.names,
                "degree": self.degree,
                "strength": np.asarray(self.adjacency.sum(axis=1)).ravel(),
                "popularity": self.popularity,
                "component": self.components,
            }
        )
        return table.sort_values(["degree", "popularity"], ascending=False, kind="stable", ignore_index=True)

    def to_networkx(self):
        """The graph as `networkx.Graph`: `popularity` on nodes, `weight` on edges. For small graphs, and for
        other tools: `networkx.write_graphml(graph.to_networkx(), path)`."""
        import networkx as nx

        upper = sparse.triu(self.adjacency, format="coo")
        graph = nx.Graph(weight=self.weight)
        graph.add_nodes_from((kp, {"popularity": int(p)}) for kp, p in zip(self.names, self.popularity, strict=True))
        ends = self.names[upper.row], self.names[upper.col]
        graph.add_weighted_edges_from(zip(*ends, upper.data.tolist(), strict=True))
        return graph

    def summary(self) -> dict:
        """Counts of the graph, and degree quantiles over KPs with an edge."""
        linked = self.degree[self.degree > 0]
        quantiles = np.quantile(linked, (0, 0.25, 0.5, 0.75, 0.99, 1)).astype(int).tolist() if len(linked) else []
        return {
            "knowledge points": len(self.names),
            "edges": self.n_edges,
            "seeds": len(self.seeds),
            "seeds without KPs": len(self.seeds) - len(np.unique(self.incidence.indices)),
            "components": int(self.components.max(initial=-1)) + 1,
            "orphan KPs": int((self.degree == 0).sum()),
            "degree (min, 25%, 50%, 75%, 99%, max)": ", ".join(map(str, quantiles)) or "no edges",
        }

    def __repr__(self) -> str:
        s = self.summary()
        return (
            f"KPGraph({s['knowledge points']} KPs, {s['edges']} edges by {self.weight}, {s['seeds']} seeds, "
            f"{s['components']} components, {s['orphan KPs']} orphans)"
        )

    def _repr_html_(self) -> str:
        hubs, orphans = self.degrees().query("degree > 0")["kp"].head(5), self.orphans
        named = {"hubs": [*hubs], "orphans": orphans[:5] + ["…"] * (len(orphans) > 5)}
        short = {what: [kp if len(kp) <= 60 else kp[:59] + "…" for kp in kps] for what, kps in named.items() if kps}
        return facts(self.summary() | short, f"KP graph, edges weighted by {self.weight}").html

    def save(self, folder) -> Path:
        """Write the graph into `folder` (npy and Parquet) and return the folder.

        The manifest `graph.json` is replaced last, so a reader gets either the old graph or the new one; concurrent
        saves take turns. Raises ValueError if `folder` contains other files, and for ids or labels of mixed types."""
        return storage.save(self, Path(folder))

    @classmethod
    def load(cls, folder) -> "KPGraph":
        """Read a saved graph; the matrices are memory-mapped, so pages load on use.

        Raises FileNotFoundError if there is no complete graph, ValueError for another format or damage."""
        return cls(**storage.load(Path(folder)))


def build_kp_graph(table: pd.DataFrame, *, weight: str = "count", min_count: int = 1) -> KPGraph:
    """The KP graph of a QA table.

    table: `id`, `knowledge_points` (list or null) and, optionally, `discipline` and `difficulty`. Rows with the same
    `id` are one seed, with the labels of the first row. weight="count": number of seeds that contain both KPs.
    weight="pmi": log of that count over the count expected of independent KPs among the seeds with any KP; pairs at or
    below chance get no edge. Nor do pairs in fewer than `min_count` seeds; their KPs stay in the graph. Raises
    ValueError for a missing or duplicated column, a null id, or KPs that are not lists of text. Our reading of
    LinkSyn's KP graph.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> points = [["Ohm's law", "power"], ["power", "energy"], ["Ohm's law", "energy"], ["magnetism"]]
    >>> table = pd.DataFrame({"id": ["q1", "q2", "q3", "q4"], "knowledge_points": points})
    >>> graph = qt.build_kp_graph(table)
    >>> graph
    KPGraph(4 KPs, 3 edges by count, 4 seeds, 2 components, 1 orphans)
    >>> graph.orphans
    ['magnetism']
    """
    if weight not in WEIGHTS:
        raise ValueError(f"weight={weight!r}; allowed: {', '.join(WEIGHTS)}")
    if not isinstance(min_count, int | np.integer) or min_count < 1:
        raise ValueError(f"min_count={min_count!r}; allowed: a whole number from 1")
    return _assemble(*_read_seeds(table), weight, int(min_count))


def _read_seeds(table):
    """The distinct seeds of a table, their memberships (sorted codes of seed and KP), and the KP names."""
    require("table", table, "id", "knowledge_points")
    twice = {"id", "knowledge_points", *_LABELS} & set(table.columns[table.columns.duplicated()])
    if twice:
        raise ValueError(f"table has several columns called {sorted(twice)}; drop or rename all but one of each")
    seed_of_row, _ = pd.factorize(table["id"])
    if (seed_of_row < 0).any():
        raise ValueError(f"id is null in {(seed_of_row < 0).sum()} rows; every seed needs an id")
    seeds = table.loc[~table["id"].duplicated().to_numpy()].reindex(columns=["id", *_LABELS]).reset_index(drop=True)
    return _as_categories(seeds), *_memberships(seed_of_row, table["knowledge_points"])


def _as_categories(seeds):
    return seeds.astype(dict.fromkeys(_LABELS, object)).astype(dict.fromkeys(_LABELS, "category"))


def _assemble(seeds, seed, kp, names, weight, min_count):
    """The graph from distinct memberships: int64 codes sorted by seed, then KP."""
    n_kps, n_seeds = len(names), len(seeds)
    incidence = _ones_matrix(kp, seed, (n_kps, n_seeds))

    low, high, pair_seeds = _pairs(seed, kp)
    edges, edge_of_pair, count = np.unique(low * n_kps + high, return_inverse=True, return_counts=True)
    low, high = np.divmod(edges, max(n_kps, 1))
    strength = count.astype(np.float64)
    if weight == "pmi":
        popularity = np.diff(incidence.indptr).astype(np.float64)
        strength = np.log(count * float(len(np.unique(seed))) / (popularity[low] * popularity[high]))
    keep = (count >= min_count) & (strength > 0)
    new_id = np.cumsum(keep) - 1
    kept_pairs = keep[edge_of_pair]
    low, high, strength = low[keep], high[keep], strength[keep]

    ends = np.concatenate([low, high]), np.concatenate([high, low])
    adjacency = sparse.csr_matrix((np.tile(strength, 2), ends), shape=(n_kps, n_kps))
    adjacency.sort_indices()
    return KPGraph(
        adjacency=adjacency,
        incidence=incidence,
        edge_seeds=_ones_matrix(new_id[edge_of_pair[kept_pairs]], pair_seeds[kept_pairs], (len(low), n_seeds)),
        names=pd.Index(names, dtype="str", name="kp"),
        seeds=seeds,
        weight=weight,
        min_count=min_count,
    )


def _memberships(seed_of_row, column):
    """Distinct (seed, KP) pairs, sorted, and the KP names in order of first appearance."""
    lists = column.astype(object).to_numpy()
    filled = column.notna().to_numpy()
    lists, seed_of_row = lists[filled], seed_of_row[filled]
    if wrong := set(map(type, lists)) - {list, tuple, np.ndarray}:
        raise ValueError(f"knowledge_points contains {_type_names(wrong)}; allowed: lists of text and null")
    sizes = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
    flat = np.fromiter(chain.from_iterable(lists), dtype=object, count=int(sizes.sum()))
    flat[pd.isna(flat)] = None
    if wrong := {kind for kind in set(map(type, flat)) if not issubclass(kind, str | type(None))}:
        raise ValueError(f"knowledge_points contains lists of {_type_names(wrong)}; allowed: lists of text and null")
    raw, spellings = pd.factorize(flat)
    code, names = pd.factorize(np.array([normalise_kp(s) or None for s in spellings], dtype=object))
    if broken := next(filter(_SURROGATE.search, names), None):
        raise ValueError(f"the knowledge point {broken!r} contains half a character (an unpaired surrogate); fix it")
    kp = np.append(code, -1)[raw]  # a null within a list has raw == -1
    member = np.repeat(seed_of_row, sizes)[kp >= 0].astype(np.int64) * max(len(names), 1) + kp[kp >= 0]
    member.sort()
    member = member[np.diff(member, prepend=-1) > 0]
    return *np.divmod(member, max(len(names), 1)), names


def _type_names(types):
    return ", ".join(sorted(kind.__name__ for kind in types))


def _pairs(seed, kp):
    """Every pair of KPs (low < high) within a seed, and the seed; input sorted by seed, then KP."""
    parts, first, gap = [(np.zeros(0, dtype=np.int64),) * 3], np.arange(len(seed)), 1
    while len(first):
        first = first[first + gap < len(seed)]
        first = first[seed[first] == seed[first + gap]]
        parts.append((kp[first], kp[first + gap], seed[first]))
        gap += 1
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _ones_matrix(rows, columns, shape):
    """CSR matrix of ones with sorted columns."""
    matrix = sparse.csr_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=shape)
    matrix.sort_indices()
    return matrix
