"""KP graphs on disk: matrices as memory-mapped npy files, names and seeds as Parquet, and a manifest written last."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from scipy import sparse

from qatoolkit.core.files import locked, read_json

_FORMAT = "qatoolkit-kpgraph-1"
_MATRICES = ("adjacency", "incidence", "edge_seeds")
_PARTS = ("data", "indices", "indptr")
_OWN_FILES = re.compile(r"graph\.json(\.tmp)?|\.lock|kpgraph-\d+")


def save(graph, folder: Path) -> Path:
    """Write the graph and return the folder; ValueError if it contains other files."""
    if folder.exists() and (others := sorted(p.name for p in folder.iterdir() if not _OWN_FILES.fullmatch(p.name))):
        raise ValueError(f"{folder} contains {others[0]!r}, which is not part of a KP graph; save into an empty folder")
    try:
        seeds = pa.Table.from_pandas(graph.seeds, preserve_index=False)
    except (pa.ArrowException, UnicodeError) as error:
        raise ValueError(
            f"ids or labels of the seeds cannot be saved ({error}); use one type per column, such as text"
        ) from None
    with locked(folder / ".lock"):
        _write(graph, seeds, folder)
    return folder


def _write(graph, seeds, folder):
    manifest = folder / "graph.json"
    old = _read_manifest(folder)["data"] if manifest.exists() else "kpgraph-0"
    data = folder / f"kpgraph-{int(old.removeprefix('kpgraph-')) + 1}"
    if data.exists():  # left by a save that was killed
        shutil.rmtree(data)
    data.mkdir(parents=True)
    for name in _MATRICES:
        matrix = getattr(graph, name)
        for part in _PARTS:
            np.save(data / f"{name}.{part}.npy", getattr(matrix, part), allow_pickle=False)
    graph.names.to_frame(index=False).to_parquet(data / "names.parquet", index=False)
    parquet.write_table(seeds, data / "seeds.parquet")
    about = {"format": _FORMAT, "data": data.name, "weight": graph.weight, "min_count": graph.min_count}
    about["shapes"] = {name: [int(n) for n in getattr(graph, name).shape] for name in _MATRICES}
    new = folder / "graph.json.tmp"
    new.write_text(json.dumps(about, indent=1))
    os.replace(new, manifest)
    shutil.rmtree(folder / old, ignore_errors=True)


def load(folder: Path) -> dict:
    """The fields of the graph saved in a folder. Raises FileNotFoundError and ValueError as `KPGraph.load` does."""
    manifest = _read_manifest(folder)
    try:
        return _read_parts(folder / manifest["data"], manifest)
    except (OSError, EOFError, LookupError, TypeError, ValueError, pa.ArrowException) as error:
        if _read_manifest(folder) != manifest:  # another process saved in the meantime
            return load(folder)
        raise ValueError(f"{folder} is damaged ({error}); build and save the graph again") from None


def _read_parts(data, manifest):
    def mapped(file):
        # Copy-on-write, because numba would compile again for read-only arrays. An empty array (a header of 128 bytes)
        # cannot be mapped.
        return np.asarray(np.load(file, mmap_mode="c" if file.stat().st_size > 128 else None))

    def matrix(name):
        values, indices, indptr = (mapped(data / f"{name}.{part}.npy") for part in _PARTS)
        rows, _ = shape = tuple(manifest["shapes"][name])
        if len(indptr) != rows + 1 or not indptr[-1] == len(indices) == len(values):
            raise ValueError(f"{name}.*.npy have inconsistent lengths")
        return sparse.csr_matrix((values, indices, indptr), shape=shape, copy=False)

    matrices = {name: matrix(name) for name in _MATRICES}
    names, seeds = (pd.read_parquet(data / f"{name}.parquet") for name in ("names", "seeds"))
    if matrices["incidence"].shape != (len(names), len(seeds)):
        raise ValueError(f"{len(names)} names and {len(seeds)} seeds for an incidence of {matrices['incidence'].shape}")
    return matrices | {
        "names": pd.Index(names["kp"]),
        "seeds": seeds.astype(
            dict.fromkeys(("discipline", "difficulty"), "category")  # Parquet loses the type if all are null
        ),
        "weight": manifest["weight"],
        "min_count": manifest["min_count"],
    }


def _read_manifest(folder):
    if not (folder / "graph.json").exists():
        raise FileNotFoundError(f"{folder} contains no saved KP graph; write one with KPGraph.save")
    try:
        manifest = read_json(folder / "graph.json")
    except ValueError:
        manifest = None
    named = isinstance(manifest, dict) and re.fullmatch(r"kpgraph-\d+", str(manifest.get("data")))
    if not named or manifest.get("format") != _FORMAT:
        raise ValueError(
            f"{folder}/graph.json is not of format {_FORMAT!r}: {manifest}; "
            "build the graph again and save it in a new folder"
        )
    return manifest
