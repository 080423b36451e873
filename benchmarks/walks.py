"""Walks per second on two cores: ours against PecanPy, igraph and networkx; then building a graph and sampling paths.

    python benchmarks/walks.py [--quick]

One graph for all: 200,000 KPs, 4 million weighted edges, power-law degrees with a hub above 40,000 (20,000, 300,000 and
about 5,900 with --quick). Walks have 8 KPs. Every contender is a fresh process, compiled by a first run that is not
timed; the median of the rounds is reported. The peers take part if `PEERS_PYTHON` names the Python of an environment
with pecanpy, igraph and networkx. What each one does:

- static, guided: `sample_codes` with alpha=beta=0 (edge weights only), and with alpha=0.5, beta=1. No walk revisits a
  KP, and every step gets a seed; the peers do neither. `*_names`: `sample_paths`, a table of names and ids.
- pecanpy, pecanpy_otf: p=q=1 by PreCompFirstOrder (alias tables, built before the clock starts) and by SparseOTF. The
  rate is that of `simulate_walks`, lists of ids, which compiles its loop again in every call; `*_loop` is the compiled
  loop alone, an array of codes. PreComp is left out: its tables grow with the square of the degree, 2 billion entries
  for the hub alone.
- igraph: `random_walk` with weights, one call per walk; igraph_cut: one long walk, cut into pieces.
- networkx: has no weighted walk for graphs of this size, so `random.choices` over `graph.adj[kp]` at each step.

Among the ratios, *_vs_pecanpy compares tables of names with lists of ids, *_vs_pecanpy_loop arrays with arrays, each
with the faster of the two modes. SparseOTF makes fewer walks, and igraph and networkx walk for two seconds.

The last line is one JSON object; peers that are not installed are null.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CORES, LENGTH = 2, 8
OURS = {"static": {"alpha": 0, "beta": 0}, "guided": {"alpha": 0.5, "beta": 1}}
PEERS = ("pecanpy", "pecanpy_otf", "igraph", "networkx")


def make_graph(file: Path, kps: int, edges: int) -> int:
    """Write a weighted power-law graph to `file` as CSR; returns the hub's degree."""
    import numpy as np
    from scipy import sparse

    rng = np.random.default_rng(0)
    chance = np.cumsum((np.arange(kps) + 1.0) ** -0.75)
    pairs = np.zeros(0, dtype=np.int64)
    while len(pairs) < edges:
        ends = np.sort(np.searchsorted(chance, rng.random((2, edges)) * chance[-1]), axis=0)
        low, high = ends[:, ends[0] < ends[1]]
        pairs = np.union1d(pairs, low * kps + high)
    low, high = np.divmod(np.sort(rng.choice(pairs, edges, replace=False)), kps)
    weight = rng.zipf(2.0, edges).clip(max=1000).astype(np.float64)
    ends = np.concatenate([low, high]), np.concatenate([high, low])
    adjacency = sparse.csr_matrix((np.tile(weight, 2), ends), shape=(kps, kps))
    np.savez(file, indptr=adjacency.indptr, indices=adjacency.indices, data=adjacency.data)
    return int(np.diff(adjacency.indptr).max())


def read_edges(file):
    """The ends and weights of all edges, each edge once."""
    import numpy as np

    parts = np.load(file)
    first = np.repeat(np.arange(len(parts["indptr"]) - 1), np.diff(parts["indptr"]))
    once = first < parts["indices"]
    return first[once], parts["indices"][once].astype(np.int64), parts["data"][once]


def clock(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def ours(file: str, n: int, name: str) -> dict:
    import numpy as np
    import pandas as pd
    from scipy import sparse

    from qatoolkit.graph.kp_graph import KPGraph
    from qatoolkit.graph.walks import sample_codes, sample_paths

    parts = np.load(file)
    low, high, _ = read_edges(file)
    kps, edges = len(parts["indptr"]) - 1, len(low)
    ids = np.arange(edges, dtype=np.int32)
    ones = np.ones(2 * edges, dtype=np.int8)
    seeds = pd.DataFrame({"id": ids, "discipline": None, "difficulty": None})  # one seed an edge
    graph = KPGraph(
        adjacency=sparse.csr_matrix((parts["data"], parts["indices"], parts["indptr"]), shape=(kps, kps)),
        incidence=sparse.csr_matrix((ones, (np.r_[low, high], np.r_[ids, ids])), shape=(kps, edges)),
        edge_seeds=sparse.csr_matrix((ones[:edges], ids, np.arange(edges + 1, dtype=np.int32)), shape=(edges, edges)),
        names=pd.Index([f"knowledge point {k}" for k in range(kps)]),
        seeds=seeds.astype({"discipline": "category", "difficulty": "category"}),
        weight="count",
        min_count=1,
    )
    settings = OURS[name] | {"threads": CORES}
    sample_codes(graph, 1000, LENGTH, **settings)
    codes = clock(lambda: sample_codes(graph, n, LENGTH, **settings))
    names = clock(lambda: sample_paths(graph, n, LENGTH, **settings))
    return {name: n / codes, f"{name}_names": n / names}


def pecanpy(file: str, n: int, name: str) -> dict:
    import numpy as np
    from numba_progress import ProgressBar
    from pecanpy import pecanpy as modes

    mode = {"pecanpy": modes.PreCompFirstOrder, "pecanpy_otf": modes.SparseOTF}[name]
    graph = mode(p=1, q=1, workers=CORES, random_state=0)
    graph.read_npz(file, weighted=True, implicit_ids=True)
    times = max(1, n // graph.num_nodes // (10 if name == "pecanpy_otf" else 1))
    graph._preprocess_transition_probs()
    starts = np.random.default_rng(0).permutation(np.tile(np.arange(graph.num_nodes, dtype=np.uint32), times))
    step, has_neighbours = graph.get_move_forward(), graph.get_has_nbrs()
    with ProgressBar(total=len(starts), disable=True) as bar:
        for _ in range(2):  # the first compiles
            loop = clock(lambda: graph._random_walks(len(starts), LENGTH - 1, 0, starts, has_neighbours, step, bar))
    walks = []
    whole = clock(lambda: walks.extend(graph.simulate_walks(times, LENGTH - 1)))
    assert len(walks) == len(starts)
    assert len(walks[0]) == LENGTH
    return {name: len(walks) / whole, f"{name}_loop": len(walks) / loop}


def igraph(file: str, n: int, name: str) -> dict:
    import igraph as ig
    import numpy as np

    low, high, weight = read_edges(file)
    kps = int(high.max()) + 1
    graph = ig.Graph(n=kps, edges=np.c_[low, high])
    weight = weight.tolist()
    starts = iter(np.random.default_rng(0).integers(kps, size=n).tolist())
    graph.random_walk(0, LENGTH - 1, weights=weight)
    done, began = 0, time.perf_counter()
    for start in starts:
        graph.random_walk(start, LENGTH - 1, weights=weight)
        done += 1
        if time.perf_counter() - began > 2:
            break
    once = done / (time.perf_counter() - began)
    return {"igraph": once, "igraph_cut": n / clock(lambda: graph.random_walk(0, n * LENGTH - 1, weights=weight))}


def networkx(file: str, n: int, name: str) -> dict:
    import random

    import networkx as nx

    graph = nx.Graph()
    graph.add_weighted_edges_from(zip(*(part.tolist() for part in read_edges(file)), strict=True))
    nodes, random = list(graph), random.Random(0)

    def walk():
        path = [random.choice(nodes)]
        while len(path) < LENGTH:
            around = graph.adj[path[-1]]
            path += random.choices(list(around), [edge["weight"] for edge in around.values()])

    walk()
    done, began = 0, time.perf_counter()
    while done < n and time.perf_counter() - began < 2:
        walk()
        done += 1
    return {"networkx": done / (time.perf_counter() - began)}


def synthesis(file: str, n: int, name: str) -> dict:
    """Build a graph from `n` seeds of 4 KPs, sample `n` guided paths of 6 KPs, and compute their diagnostics."""
    import numpy as np
    import pandas as pd

    from qatoolkit.graph.kp_graph import build_kp_graph
    from qatoolkit.graph.walks import path_diagnostics, sample_paths

    rng = np.random.default_rng(0)
    chance = np.cumsum(np.arange(1, 200_001) ** -0.8)
    kps = np.array([f"knowledge point {k}" for k in range(len(chance))], dtype=object)
    table = pd.DataFrame(
        {
            "id": [f"seed {i}" for i in range(n)],
            "knowledge_points": kps[np.searchsorted(chance, rng.random((n, 4)) * chance[-1])].tolist(),
            "discipline": rng.choice(["law", "physics"], n),
            "difficulty": rng.choice(["H1", "H5"], n),
        }
    )
    made = []
    build = clock(lambda: made.append(build_kp_graph(table)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    settings = {"alpha": 0.5, "beta": 1, "threads": CORES}
    sample_paths(made[0], 1000, 6, **settings)
    paths = clock(lambda: made.append(sample_paths(made[0], n, 6, **settings)))
    described = clock(lambda: path_diagnostics(*made, discipline={"law": 1, "physics": 1}))
    return {"build_s": build, "build_mib": memory, "paths_s": paths, "diagnostics_s": described}


def contend(name: str, file: str, n: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    call = {"igraph": igraph, "networkx": networkx, "synthesis": synthesis}.get(name, ours if name in OURS else pecanpy)
    print(json.dumps(call(file, n, name)))


def measure(name: str, file: Path, n: int) -> dict:
    python = os.environ.get("PEERS_PYTHON") if name in PEERS else sys.executable
    if not python:
        return {}
    command = [python, __file__, "--contender", name, str(file), str(n)]
    environment = os.environ | {"NUMBA_NUM_THREADS": str(CORES)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        print(f"{name}: {(done.stderr.strip().splitlines() or ['killed'])[-1]}", file=sys.stderr)
        return {}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small graph, one round, under 50 s")
    parser.add_argument("--contender", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        name, file, n = arguments.contender
        return contend(name, file, int(n))

    kps, edges, n, rounds = (20_000, 300_000, 200_000, 1) if arguments.quick else (200_000, 4_000_000, 1_000_000, 3)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph.npz"
        hub = make_graph(file, kps, edges)
        print(f"{kps:,} KPs, {edges:,} edges, hub of {hub:,}; {n:,} walks of {LENGTH} KPs", flush=True)
        for _ in range(rounds):
            for name in (*OURS, *PEERS):
                for key, rate in measure(name, file, n).items():
                    found.setdefault(key, []).append(rate)
                    print(f"{key}: {rate:,.0f} walks/s", flush=True)
        other = measure("synthesis", file, n // (2 if arguments.quick else 1))
    rates = {key: statistics.median(several) for key, several in found.items()}
    print(", ".join(f"{key} {value:,.1f}" for key, value in other.items()))

    def ratio(ours: str, *peers: str) -> float | None:
        there = [rates[peer] for peer in peers if peer in rates]
        return round(rates[ours] / max(there), 2) if there and ours in rates else None

    ratios = {f"{name}_vs_pecanpy": ratio(f"{name}_names", "pecanpy", "pecanpy_otf") for name in OURS}
    ratios |= {f"{name}_vs_pecanpy_loop": ratio(name, "pecanpy_loop", "pecanpy_otf_loop") for name in OURS}
    ratios |= {f"{name}_vs_pecanpy_otf_loop": ratio(name, "pecanpy_otf_loop") for name in OURS}
    ratios |= {
        "static_vs_networkx": ratio("static", "networkx"),
        "static_vs_igraph": ratio("static", "igraph", "igraph_cut"),
    }
    rates = {key: float(f"{rate:.4g}") for key, rate in rates.items()}
    other = {key: round(value, 1) for key, value in other.items()}
    print(json.dumps({"benchmark": "walks", "ratios": ratios | other, "rates": rates, "hub": hub, "rounds": rounds}))


if __name__ == "__main__":
    main()
