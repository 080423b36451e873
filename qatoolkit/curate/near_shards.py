"""Near-duplicates in tables larger than memory: rows that could form a cluster are grouped by shared keys.

Two rows can only be in one cluster if they are connected by rows that share keys pairwise: the bag of words, or a
MinHash band (`band_keys`). So keys are sorted one part of their range at a time, rows with a common key are joined into
groups, and `near_duplicates` runs on each group alone. Its result for a group is the same as within the whole table.
"""

import math
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qatoolkit.core.files import atomic
from qatoolkit.core.qa_table import as_lists
from qatoolkit.core.shards import ROWS, Shard, content_of, each, list_shards, make_shards, read_shard, write_shard
from qatoolkit.curate.near_duplicates import band_keys, near_duplicates

PAIRS = 1 << 25  # (key, row) pairs sorted at a time, 16 bytes each
GROUP = 1024  # rows of a Parquet row group of the groups, small because a batch reads only a few of them


def near_duplicate_shards(
    source, out: str | Path, *, engine: str = "local", workers: int = 2, rows_per_shard: int = ROWS, **options
) -> pd.DataFrame:
    """`near_duplicates` over all rows of Parquet shards; returns one line per shard: shard, rows, kept, rejects.

    `source`, `engine`, `workers` and the folder `out` are as for `map_shards`; rejects have `reason` (near_duplicate)
    and `detail` (the kept row of the cluster, and the similarity). `options` are those of `near_duplicates`. Folders
    beside `out` keep intermediate results (`out_bands`, `out_groups`, `out_clusters`), so an interrupted call resumes;
    they may be removed afterwards.

    Memory: one shard per worker, `PAIRS` keys, about 30 bytes per row of all shards, and one group of rows at a time; a
    group is larger than a shard only if one template has that many fillings.

    >>> import qatoolkit as qt
    >>> asked = "Which animal of the savanna has the longest neck?"
    >>> pairs = [(asked, "giraffe"), ("What do pandas eat?", "bamboo"), (f"Tell me: {asked}", "the giraffe")]
    >>> table = qt.qa_table([{"question": q, "answer": a} for q, a in pairs], language="en", source="zoo")
    >>> source = qt.write_shards([table], "zoo", rows_per_shard=2)
    >>> qt.curate.near_duplicate_shards(source, "distinct")[["kept", "rejects"]]
       kept  rejects
    0     2        0
    1     0        1
    """
    shards, run_with = list_shards(source, rows_per_shard), {"engine": engine, "workers": workers}
    first = dict(
        zip((shard.name for shard in shards), np.cumsum([0, *(s.rows for s in shards)]).tolist(), strict=False)
    )
    key, folder = [content_of(shards), options], lambda name: Path(f"{out}_{name}")

    bands = make_shards(partial(_write_bands, options), shards, folder("bands"), [key, "bands"], **run_with)
    files = {str(folder("bands") / "kept" / name): first[name] for name in bands["shard"]}
    parts = max(1, math.ceil(bands["kept"].sum() / PAIRS))
    edges = each(partial(_join_rows, files), _ranges(parts), **run_with)
    batch = _assign_batches(np.concatenate(list(edges)), sum(shard.rows for shard in shards), rows_per_shard)

    with atomic(folder("batches.npy")) as temporary, open(temporary, "wb") as file:
        np.save(file, batch)
    gather = partial(_gather, first, str(folder("batches.npy")))
    groups = make_shards(gather, shards, folder("groups"), [key, "groups"], group=GROUP, **run_with)
    files = [str(folder("groups") / "kept" / name) for name in groups["shard"][groups["kept"] > 0]]
    sizes = np.bincount(batch[batch >= 0])
    todo = [Shard(f"batch-{i:05d}.parquet", str(folder("groups")), i, int(n)) for i, n in enumerate(sizes) if n]
    clusters = make_shards(partial(_cluster, files, options), todo, folder("clusters"), [key, "clusters"], **run_with)

    found = [pd.read_parquet(folder("clusters") / "kept" / name) for name in clusters["shard"]]
    found = pd.concat(found).sort_values("row") if found else _NO_CLUSTERS
    write_shard(found, folder("clusters.parquet"))
    return make_shards(partial(_split, first, str(folder("clusters.parquet"))), shards, out, [key, "split"], **run_with)


def _write_bands(options: Mapping, shard: Shard) -> pd.DataFrame:
    return band_keys(read_shard(shard), **options)


def _ranges(parts: int) -> list[tuple[int, int]]:
    """The range of 64-bit keys in equal parts: the first and last key of each."""
    edges = [(i << 64) // parts for i in range(parts + 1)]
    return [(low, high - 1) for low, high in pairwise(edges)]


def _join_rows(files: Mapping[str, int], key_range: tuple[int, int]) -> np.ndarray:
    """Pairs of rows [pairs, 2] that share a key in the range, consecutive rows of each key; `files` has the first row
    of each file's shard."""
    low, high = (pa.scalar(key, pa.uint64()) for key in key_range)
    keys, rows = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for file, first in files.items():
        found = pq.read_table(file, filters=(pc.field("key") >= low) & (pc.field("key") <= high))
        keys.append(found["key"].to_numpy())
        rows.append(found["row"].to_numpy() + np.int64(first))
    key, row = np.concatenate(keys), np.concatenate(rows)
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(np.diff(key[order]) == 0)
    return np.unique(np.column_stack([row[order[same]], row[order[same + 1]]]), axis=0)


def _assign_batches(edges: np.ndarray, rows: int, size: int) -> np.ndarray:
    """The batch of every row, int32, -1 for rows joined to no other: whole groups in order of their first rows, about
    `size` rows to a batch."""
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    links = sparse.coo_matrix((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(rows, rows))
    group = pd.factorize(connected_components(links, directed=False)[1])[0]  # numbered by first row
    sizes = np.bincount(group, minlength=1)
    together = np.where(sizes > 1, sizes, 0)
    number = (np.cumsum(together) - together) // size
    return np.where(sizes > 1, number, -1).astype(np.int32)[group] if rows else np.zeros(0, np.int32)


def _gather(first: Mapping[str, int], batches: str, shard: Shard) -> pd.DataFrame:
    """The rows of a shard that are joined to others, with their `_batch` and global `_row`, sorted by batch."""
    start = first[shard.name]
    batch = np.load(batches, mmap_mode="r")[start : start + shard.rows]
    rows = np.flatnonzero(batch >= 0)
    rows = rows[np.argsort(batch[rows], kind="stable")]
    table = read_shard(shard).iloc[rows]
    return table.assign(_batch=np.asarray(batch[rows]), _row=rows.astype(np.int64) + start)


_NO_CLUSTERS = pd.DataFrame(
    {"row": pd.Series(dtype="int64"), "of": pd.Series(dtype="str"), "similarity": pd.Series(dtype=float)}
)


def _cluster(files: list[str], options: Mapping, shard: Shard) -> pd.DataFrame:
    """The rows of a batch that `near_duplicates` rejects: `row`, `of` (the id of the kept one), `similarity`."""
    in_batch = pc.field("_batch") == shard.first
    found = [pq.read_table(file, filters=in_batch).to_pandas() for file in files]
    table = as_lists(pd.concat([part for part in found if len(part)]).sort_values("_row", ignore_index=True))
    near = near_duplicates(table, **options)
    kept = near[near["keep"]].set_index("cluster")["id"]
    near = near.assign(row=table["_row"], of=near["cluster"].map(kept))
    return near.loc[~near["keep"], ["row", "of", "similarity"]].reset_index(drop=True)


def _split(first: Mapping[str, int], clusters: str, shard: Shard) -> tuple[pd.DataFrame, pd.DataFrame]:
    start, table = first[shard.name], read_shard(shard)
    in_shard = (pc.field("row") >= start) & (pc.field("row") < start + shard.rows)
    found = pq.read_table(clusters, filters=in_shard).to_pandas()
    positions = found["row"].to_numpy() - start
    details = [
        f"of {of}, Jaccard {similarity:.2f}" for of, similarity in zip(found["of"], found["similarity"], strict=True)
    ]
    rejects = table.iloc[positions].assign(reason="near_duplicate", detail=details)
    return table.drop(index=positions), rejects
