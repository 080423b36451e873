"""Knowledge points and their graph: LinkSyn's first step (arXiv 2508.01317; details are our reading).

A knowledge point (KP) is a node; an edge joins two KPs that occur in one seed question, weighted by the
number of such seeds or by PMI. Beside the adjacency the graph keeps which seeds hold a KP and which seeds
make an edge, so that a walk over KPs leads back to questions.
"""

import html
import json
import os
import re
import shutil
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components

WEIGHTS = ("count", "pmi")
_FORMAT = "qatoolkit-kpgraph-1"
_MATRICES = ("adjacency", "incidence", "edge_seeds")
_PARTS = ("data", "indices", "indptr")
_LABELS = ("discipline", "difficulty")

# Symbols such as + - * # ! stay: "c" and "c++", "cl" and "cl-", "n" and "n!" are different knowledge points.
_EDGE_MARKS = ' "`,;:?·•。、“”「」『』《》〈〉【】'
_BULLET = re.compile(r"^[-*]+ ")
_BRACKETS = {"(": ")", "[": "]", "{": "}", "'": "'"}
_VARIANTS = str.maketrans(
    dict.fromkeys("‘’‛′ʼ", "'") | dict.fromkeys("‐‑‒–—−", "-") | dict.fromkeys("\u200b\ufeff\u00ad\u2060")
)

_LAST_WORD = re.compile(r"(?<![^\s\-/])[a-z]{4,}$")
_SAME_IN_PLURAL = re.compile(r"(ss|us|is|as|os|ics|oes|oses|zzes|lves|(?<![ao])uses)$")
_NOT_PLURAL = {
    "aids", "alps", "andes", "archimedes", "arms", "athens", "axes", "bases", "biceps", "brussels",
    "ceres", "commons", "customs", "descartes", "diabetes", "earnings", "euripides", "forceps", "ganges",
    "goods", "halves", "hercules", "herpes", "hippocrates", "kubernetes", "leaves", "lens", "lives",
    "maldives", "mars", "maths", "means", "measles", "mumps", "netherlands", "news", "odds", "pericles",
    "philippines", "proceeds", "rabies", "sales", "scabies", "scissors", "series", "socrates",
    "sophocles", "species", "states", "stokes", "triceps", "wales",
}  # fmt: skip
_IRREGULAR = {
    "areas": "area", "bacteria": "bacterium", "biases": "bias", "calories": "calorie", "crises": "crisis",
    "criteria": "criterion", "equilibria": "equilibrium", "formulae": "formula", "formulas": "formula",
    "gases": "gas", "indices": "index", "lenses": "lens", "matrices": "matrix", "momenta": "momentum",
    "movies": "movie", "nuclei": "nucleus", "phenomena": "phenomenon", "radii": "radius", "ratios": "ratio",
    "spectra": "spectrum", "valves": "valve", "vertices": "vertex", "viruses": "virus",
}  # fmt: skip
_PLURAL_RULES = (
    (re.compile(r"(?<=thes)es$|(?<=ys)es$"), "is"),  # hypotheses, analyses
    (re.compile(r"(?<=[a-z][a-z])ies$"), "y"),  # theories
    (re.compile(r"(?<=ss|sh)es$|(?<=x)es$|(?<=[^aeiou]ch)es$|(?<=oach|eech)es$"), ""),  # classes, branches
    (re.compile(r"s$"), ""),
)


def _singular(match):
    word = match[0]
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word in _NOT_PLURAL or not word.endswith("s") or _SAME_IN_PLURAL.search(word):
        return word
    for pattern, ending in _PLURAL_RULES:
        singular, changed = pattern.subn(ending, word)
        if changed:
            return singular
    return word


def normalise_kp(text: str) -> str:
    """One spelling for a knowledge point: " Newton’s Laws. " becomes "newton's law"; Chinese stays as it is.

    NFKC, casefold, one kind of apostrophe and hyphen, white space and marks trimmed at the ends, and the last
    English word made singular where the ending leaves little doubt: a plural missed costs less than two
    subjects merged. Returns "" where nothing is left. Our reading.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_VARIANTS)
    text = " ".join(text.split())
    while True:
        trimmed = _BULLET.sub("", text).lstrip(_EDGE_MARKS).rstrip(_EDGE_MARKS + ".")
        closing = _BRACKETS.get(trimmed[:1])
        if len(trimmed) > 1 and trimmed[-1] == closing and trimmed[1:-1].count(closing) == 0:
            trimmed = trimmed[1:-1]
        if trimmed == text:
            return _LAST_WORD.sub(_singular, text)
        text = trimmed


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class KPGraph:
    """Knowledge points, their links, and the seeds behind both. K KPs, S seeds, E edges.

    adjacency: K x K symmetric CSR of edge weights (float64), sorted, no self loops.
    incidence: K x S CSR, one where the seed holds the KP.
    edge_seeds: E x S CSR, one where the seed holds both ends; rows as in the upper triangle of `adjacency`.
    names: K normalised KPs. seeds: S rows of `id` and the categories `discipline`, `difficulty`.
    weight: what the edge weights are, "count" or "pmi".
    """

    adjacency: sparse.csr_matrix
    incidence: sparse.csr_matrix
    edge_seeds: sparse.csr_matrix
    names: pd.Index
    seeds: pd.DataFrame
    weight: str

    @property
    def n_edges(self) -> int:
        return self.edge_seeds.shape[0]

    @cached_property
    def popularity(self) -> np.ndarray:
        """Seeds that hold each KP, int64 of length K."""
        return np.diff(self.incidence.indptr).astype(np.int64)

    @cached_property
    def degree(self) -> np.ndarray:
        """Linked KPs of each KP, int64 of length K."""
        return np.diff(self.adjacency.indptr).astype(np.int64)

    @cached_property
    def components(self) -> np.ndarray:
        """Connected component of each KP, numbered from 0."""
        if not len(self.names):
            return np.zeros(0, dtype=np.int32)
        return connected_components(self.adjacency, directed=False)[1]

    @property
    def orphans(self) -> list[str]:
        """KPs without a link: no walk reaches them."""
        return self.names[self.degree == 0].tolist()

    @cached_property
    def linked_seeds(self) -> np.ndarray:
        """Whether each seed makes an edge, bool of length S: walks draw from these."""
        return np.bincount(self.edge_seeds.indices, minlength=len(self.seeds)) > 0

    @cached_property
    def edge_ids(self) -> np.ndarray:
        """Row of `edge_seeds` for every stored entry of `adjacency`, in its order."""
        upper = sparse.triu(self.adjacency, format="csr")
        upper.data = np.arange(
            1, upper.nnz + 1, dtype=np.int64
        )  # from 1: a stored 0 would not survive the sum
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
        """The graph as `networkx.Graph`: `popularity` on nodes, `weight` on edges. For small graphs."""
        import networkx as nx

        upper = sparse.triu(self.adjacency, format="coo")
        graph = nx.Graph(weight=self.weight)
        graph.add_nodes_from(
            (kp, {"popularity": int(p)}) for kp, p in zip(self.names, self.popularity, strict=True)
        )
        ends = self.names[upper.row], self.names[upper.col]
        graph.add_weighted_edges_from(zip(*ends, upper.data.tolist(), strict=True))
        return graph

    def summary(self) -> dict:
        """Counts that describe the graph, and degree quantiles over linked KPs."""
        linked = self.degree[self.degree > 0]
        quantiles = (
            np.quantile(linked, (0, 0.25, 0.5, 0.75, 0.99, 1)).astype(int).tolist() if len(linked) else []
        )
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
        def listed(kps):
            return html.escape(", ".join(kp if len(kp) <= 60 else kp[:59] + "…" for kp in kps))

        rows = [(k, f"{v:,}" if isinstance(v, int) else v) for k, v in self.summary().items()]
        hubs, orphans = self.degrees().query("degree > 0")["kp"].head(5), self.orphans
        rows += [("hubs", listed(hubs))] if len(hubs) else []
        rows += [("orphans", listed(orphans[:5]) + (" …" if len(orphans) > 5 else ""))] if orphans else []
        cell = '<td style="text-align:left;padding:1px 12px 1px 0">'
        body = "".join(f"<tr>{cell}{name}</td>{cell}{value}</td></tr>" for name, value in rows)
        return f"<b>KP graph</b>, edges weighted by {html.escape(self.weight)}<table>{body}</table>"

    def save(self, folder) -> Path:
        """Write the graph under `folder` (npy and Parquet) and return the folder.

        The manifest `graph.json` is replaced last, so a reader meets the old graph or the new one, never a
        half. Raises ValueError where `folder` holds something else.
        """
        folder = Path(folder)
        manifest = folder / "graph.json"
        old = _read_manifest(folder)["data"] if manifest.exists() else "kpgraph-0"
        data = folder / f"kpgraph-{int(old.removeprefix('kpgraph-')) + 1}"
        ours = {"graph.json", "graph.json.tmp", old, data.name}
        if folder.exists() and (others := sorted({p.name for p in folder.iterdir()} - ours)):
            raise ValueError(f"{folder} holds {others[0]!r}, not a KP graph; save into a folder of its own")
        if data.exists():  # left by a save that was killed
            shutil.rmtree(data)
        data.mkdir(parents=True)
        for name in _MATRICES:
            matrix = getattr(self, name)
            for part in _PARTS:
                np.save(data / f"{name}.{part}.npy", getattr(matrix, part), allow_pickle=False)
        self.names.to_frame(index=False).to_parquet(data / "names.parquet", index=False)
        self.seeds.to_parquet(data / "seeds.parquet", index=False)
        about = {"format": _FORMAT, "data": data.name, "weight": self.weight}
        about["shapes"] = {name: [int(n) for n in getattr(self, name).shape] for name in _MATRICES}
        new = folder / "graph.json.tmp"
        new.write_text(json.dumps(about, indent=1))
        os.replace(new, manifest)
        shutil.rmtree(folder / old, ignore_errors=True)
        return folder

    @classmethod
    def load(cls, folder) -> "KPGraph":
        """Read a saved graph; the matrices are memory-mapped, so pages load as they are used.

        Raises FileNotFoundError where no complete graph was saved, ValueError for another format or damage.
        """
        about = _read_manifest(Path(folder))
        data = Path(folder) / about["data"]

        def mapped(file):
            # Copy-on-write, for numba would compile anew for read-only arrays. Empty arrays, no more than
            # a header of 128 bytes, cannot be mapped.
            return np.asarray(np.load(file, mmap_mode="c" if file.stat().st_size > 128 else None))

        def matrix(name):
            values, indices, indptr = (mapped(data / f"{name}.{part}.npy") for part in _PARTS)
            rows, _ = shape = tuple(about["shapes"][name])
            if len(indptr) != rows + 1 or not indptr[-1] == len(indices) == len(values):
                raise ValueError(f"{data}/{name}.*.npy do not fit together; build and save the graph again")
            return sparse.csr_matrix((values, indices, indptr), shape=shape, copy=False)

        return cls(
            **{name: matrix(name) for name in _MATRICES},
            names=pd.Index(pd.read_parquet(data / "names.parquet")["kp"]),
            seeds=pd.read_parquet(data / "seeds.parquet"),
            weight=about["weight"],
        )


def _read_manifest(folder):
    if not (folder / "graph.json").exists():
        raise FileNotFoundError(f"{folder} holds no saved KP graph; write one with KPGraph.save")
    about = json.loads((folder / "graph.json").read_text())
    if about.get("format") != _FORMAT or not re.fullmatch(r"kpgraph-\d+", str(about.get("data"))):
        raise ValueError(
            f"{folder}/graph.json is not of format {_FORMAT!r}: {about}; build and save it again"
        )
    return about


def build_kp_graph(table: pd.DataFrame, *, weight: str = "count", min_count: int = 1) -> KPGraph:
    """The KP graph of a QA table.

    table: `id`, `knowledge_points` (list or null) and, optionally, `discipline` and `difficulty`. Rows that
    share an `id` are one seed. weight="count": seeds that hold both KPs. weight="pmi": log of that count over
    the count expected of independent KPs; pairs at or below chance get no edge. Pairs in fewer than
    `min_count` seeds get no edge either; their KPs stay. Raises ValueError for a missing column, a null id,
    or KPs that are not lists of text. Our reading of LinkSyn's KP graph.
    """
    if weight not in WEIGHTS:
        raise ValueError(f"weight={weight!r}; allowed: {', '.join(WEIGHTS)}")
    if not isinstance(min_count, int | np.integer) or min_count < 1:
        raise ValueError(f"min_count={min_count!r}; allowed: a whole number from 1")
    missing = {"id", "knowledge_points"} - set(table.columns)
    if missing:
        raise ValueError(f"table lacks {sorted(missing)}; it has {list(table.columns)}")

    seed_of_row, _ = pd.factorize(table["id"])
    if (seed_of_row < 0).any():
        raise ValueError(f"id is null in {(seed_of_row < 0).sum()} rows; give every seed an id")
    seeds = (
        table.loc[~table["id"].duplicated().to_numpy()]
        .reindex(columns=["id", *_LABELS])
        .reset_index(drop=True)
    )
    seeds = seeds.astype(dict.fromkeys(_LABELS, "category"))

    seed, kp, names = _memberships(seed_of_row, table["knowledge_points"])
    n_kps, n_seeds = len(names), len(seeds)
    incidence = _pattern(kp, seed, (n_kps, n_seeds))

    low, high, both = _pairs(seed, kp)
    edges, edge_of_pair, count = np.unique(low * n_kps + high, return_inverse=True, return_counts=True)
    low, high = np.divmod(edges, max(n_kps, 1))
    strength = count.astype(np.float64)
    if weight == "pmi":
        popularity = np.diff(incidence.indptr).astype(np.float64)
        strength = np.log(count * float(n_seeds) / (popularity[low] * popularity[high]))
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
        edge_seeds=_pattern(new_id[edge_of_pair[kept_pairs]], both[kept_pairs], (len(low), n_seeds)),
        names=pd.Index(names, dtype="str", name="kp"),
        seeds=seeds,
        weight=weight,
    )


def _memberships(seed_of_row, column):
    """Distinct (seed, KP) pairs sorted by both, and the KP names in order of first appearance."""
    lists = column.astype(object).to_numpy()
    given = column.notna().to_numpy()
    lists, seed_of_row = lists[given], seed_of_row[given]
    if wrong := set(map(type, lists)) - {list, tuple, np.ndarray}:
        raise ValueError(f"knowledge_points holds {_names(wrong)}; allowed: lists of text and null")
    sizes = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
    flat = np.fromiter(chain.from_iterable(lists), dtype=object, count=int(sizes.sum()))
    if wrong := {kind for kind in set(map(type, flat)) if not issubclass(kind, str | type(None))}:
        raise ValueError(f"knowledge_points holds lists of {_names(wrong)}; allowed: lists of text and null")
    raw, spellings = pd.factorize(flat)
    code, names = pd.factorize(np.array([normalise_kp(s) or None for s in spellings], dtype=object))
    kp = np.append(code, -1)[raw]  # a null within a list has raw == -1
    member = np.repeat(seed_of_row, sizes)[kp >= 0].astype(np.int64) * max(len(names), 1) + kp[kp >= 0]
    member.sort()
    member = member[np.diff(member, prepend=-1) > 0]
    return *np.divmod(member, max(len(names), 1)), names


def _names(types):
    return ", ".join(sorted(kind.__name__ for kind in types))


def _pairs(seed, kp):
    """Every pair of KPs (low < high) within a seed, with the seed; input sorted by seed, then KP."""
    parts = []
    left = np.arange(len(seed))
    gap = 1
    while True:
        left = left[left + gap < len(seed)]
        left = left[seed[left] == seed[left + gap]]
        if not len(left):
            break
        parts.append((kp[left], kp[left + gap], seed[left]))
        gap += 1
    if not parts:
        return (np.zeros(0, dtype=np.int64),) * 3
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _pattern(rows, columns, shape):
    """CSR of ones with sorted columns."""
    matrix = sparse.csr_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=shape)
    matrix.sort_indices()
    return matrix
