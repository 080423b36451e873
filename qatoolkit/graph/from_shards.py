"""The KP graph of questions that do not fit in memory: of each shard, only ids, labels and coded knowledge points
stay."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from qatoolkit.graph.kp_graph import WEIGHTS, KPGraph, _as_categories, _assemble, _read_seeds


def kp_graph_of_shards(tables: Iterable[pd.DataFrame], *, weight: str = "count", min_count: int = 1) -> KPGraph:
    """`build_kp_graph` for tables that come one at a time (`qt.read_shards`): the same graph as from all rows together.

    Memory holds one table, the ids and labels of all seeds, 16 bytes per knowledge point of a seed, and the graph.
    Raises ValueError as `build_kp_graph` does.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> one = pd.DataFrame({"id": ["q1", "q2"], "knowledge_points": [["Ohm's law", "power"], ["power", "energy"]]})
    >>> two = pd.DataFrame({"id": ["q3"], "knowledge_points": [["energy", "heat"]]})
    >>> qt.kp_graph_of_shards([one, two])
    KPGraph(4 KPs, 3 edges by count, 3 seeds, 1 components, 0 orphans)
    """
    if weight not in WEIGHTS:
        raise ValueError(f"weight={weight!r}; allowed: {', '.join(WEIGHTS)}")
    seed_numbers, kp_numbers = {}, {}  # id -> number and name -> number, by first appearance
    parts, members = [], []
    for table in tables:
        seeds, seed, kp, names = _read_seeds(table)
        parts.append(seeds[[one not in seed_numbers for one in seeds["id"]]])
        numbers = [np.fromiter((known.setdefault(one, len(known)) for one in values), np.int64, len(values))
               for known, values in ((seed_numbers, seeds["id"]), (kp_numbers, names))]  # fmt: skip
        members.append(np.column_stack([numbers[0][seed], numbers[1][kp]]))
    if not parts:
        raise ValueError("there are no tables: pass those of qt.read_shards(folder)")
    seed, kp = np.concatenate(members).T
    member = np.unique(seed * max(len(kp_numbers), 1) + kp)
    names = np.array(list(kp_numbers), dtype=object)
    seeds = _as_categories(pd.concat(parts, ignore_index=True))
    return _assemble(seeds, *np.divmod(member, max(len(kp_numbers), 1)), names, weight, int(min_count))
