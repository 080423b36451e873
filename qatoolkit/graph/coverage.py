"""The coverage ledger: which knowledge points have questions, at which levels, and which have none (our addition)."""

import math
from collections.abc import Iterable, Mapping
from functools import cache
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd

from qatoolkit.core.qa_table import require
from qatoolkit.core.taxonomy import DIFFICULTIES
from qatoolkit.graph.knowledge_points import cell_texts, normalise_kp
from qatoolkit.graph.merges import merge_candidates, read_csv, resolve

NAME = "knowledge_point"
COUNTS = ("seeds", "questions", "inherited", *DIFFICULTIES)


def coverage(
    seeds: pd.DataFrame,
    accepted: pd.DataFrame,
    syllabus: Iterable[str] | str | Path | None = None,
    *,
    merges: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """One row per knowledge point (KP) of the seeds, a syllabus and the questions: knowledge_point, in_seeds,
    in_syllabus; numbers of its seeds, of accepted questions and of those that inherit it; questions at H1 to H5.

    A question counts for its own KPs (LinkQA's are those of its path); one without any inherits those of the seeds
    that it was written from (`parents`), as BoostQA's do. A KP without a question is a blind spot.

    syllabus: names, or a CSV file of them (column `knowledge_point`, else the first). Names that are equal under
    `normalise_kp` or in two spellings are one KP; `merges` decides in place of the spellings (`merge_candidates`). A KP
    is called as the syllabus, else as the seeds spell it first. Most seeds first. ValueError for missing columns, cells
    that hold no names, and a syllabus without one.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> seeds = pd.DataFrame({"id": ["s1", "s2"], "knowledge_points": [["Ohm's law", "power"], ["power"]]})
    >>> accepted = pd.DataFrame({"knowledge_points": [["Power"], None], "parents": [None, ["s1"]]})
    >>> ledger = qt.coverage(seeds, accepted.assign(difficulty=["H4", "H2"]), ["Ohm’s laws", "heat"])
    >>> ledger[["knowledge_point", "in_syllabus", "seeds", "questions", "inherited", "H2", "H4"]]
      knowledge_point  in_syllabus  seeds  questions  inherited  H2  H4
    0           power        False      2          2          1   1   1
    1      Ohm’s laws         True      1          1          1   1   0
    2            heat         True      0          0          0   0   0
    """
    require("seeds", seeds, "id", "knowledge_points")
    require("accepted", accepted, "difficulty")
    listed = [] if syllabus is None else read_syllabus(syllabus)
    asked = points_of(accepted, seeds).assign(difficulty=accepted["difficulty"])
    parts = {
        "syllabus": pd.Series(listed, dtype=object),
        "seeds": _texts(seeds),
        "questions": asked["knowledge_points"],
    }
    names = pd.concat(list(parts.values())).explode().dropna()
    into = resolve(merge_candidates(names) if merges is None else merges)

    @cache
    def key(name: str) -> str:
        return normalise_kp(into.get(plain := normalise_kp(name), plain))

    keyed = {part: cells.explode().dropna().rename("name").to_frame() for part, cells in parts.items()}
    for part, rows in keyed.items():
        rows = rows.assign(key=rows["name"].map(key)).rename_axis("row").reset_index()
        keyed[part] = rows[rows["key"] != ""].drop_duplicates(["row", "key"])
    spelt = pd.concat(keyed.values()).drop_duplicates("key").set_index("key")["name"]
    of = keyed["questions"].join(asked[["inherited", "difficulty"]], on="row")
    counts = {"seeds": keyed["seeds"], "questions": of, "inherited": of[of["inherited"]]}
    counts |= {level: of[of["difficulty"] == level] for level in DIFFICULTIES}
    table = pd.DataFrame({NAME: spelt})
    for part in ("seeds", "syllabus"):
        table[f"in_{part}"] = table.index.isin(keyed[part]["key"])
    for column in COUNTS:
        table[column] = counts[column]["key"].value_counts().reindex(table.index, fill_value=0)
    return table.sort_values("seeds", ascending=False, kind="stable", ignore_index=True)


def points_of(questions: pd.DataFrame, seeds: pd.DataFrame) -> pd.DataFrame:
    """The knowledge points that every question counts for, in its order, and whether they are inherited:
    `knowledge_points` (lists), `inherited`. Its own, else those of its `parents` among the seeds; none where neither
    has any."""
    of_seed = dict(zip(seeds["id"], _texts(seeds), strict=True))
    own = _texts(questions) if "knowledge_points" in questions else pd.Series([[]] * len(questions), questions.index)
    parents = questions["parents"] if "parents" in questions else pd.Series([[]] * len(questions), questions.index)
    from_parents = [
        list(dict.fromkeys(point for id in cell_texts(ids, "parents") for point in of_seed.get(id, ())))
        for ids in parents
    ]
    inherits = [not mine and bool(theirs) for mine, theirs in zip(own, from_parents, strict=True)]
    points = [mine or theirs for mine, theirs in zip(own, from_parents, strict=True)]
    found = {"knowledge_points": pd.Series(points, questions.index, dtype=object), "inherited": inherits}
    return pd.DataFrame(found, index=questions.index)


def blind_spots(ledger: pd.DataFrame, levels: Iterable[str] = ()) -> pd.DataFrame:
    """The rows of a `coverage` table without any question or, with `levels`, without one at some of these levels."""
    columns = list(levels) or ["questions"]
    if unknown := set(columns) - set(COUNTS):
        raise ValueError(f"levels has {min(unknown)!r}; it must be some of {', '.join(DIFFICULTIES)}")
    return ledger[(ledger[columns] == 0).any(axis=1)].reset_index(drop=True)


def read_syllabus(syllabus: Iterable[str] | str | Path) -> list[str]:
    """The names of a syllabus: an iterable of texts, or a CSV file in UTF-8 (column `knowledge_point`, else the first);
    ValueError where it has none."""
    if isinstance(syllabus, str | Path):
        table = read_csv(syllabus)
        names = table[NAME if NAME in table else table.columns[0]].tolist()
    else:
        names = list(syllabus)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise ValueError(f"syllabus has {wrong[0]!r}; it must be names of knowledge points, or a CSV file of them")
    if not (names := [name.strip() for name in names if normalise_kp(name)]):
        raise ValueError(f"syllabus {str(syllabus)[:80]!r} names no knowledge point")
    return names


def in_reach(graph) -> pd.Index:
    """The KPs of a `KPGraph` that a question joining two seeds can hold. Of two points that are linked with no other
    there is one step, so one seed."""
    return graph.names[np.bincount(graph.components)[graph.components] >= 3]


def weights_of(names: pd.Index, aim: Mapping[str, float]) -> np.ndarray:
    """The weight of each normalised KP in `aim` (name -> weight above 0), 1 for the others. ValueError for a weight out
    of range, and if none of the names is known."""
    right = hasattr(aim, "items") and all(isinstance(w, Real) and 0 < w < math.inf for _, w in aim.items())
    if not right:
        raise ValueError(f"aim={str(aim)[:160]}; allowed: knowledge point -> weight, finite, above 0")
    wanted = {normalise_kp(name): float(weight) for name, weight in aim.items()}
    if not set(wanted) & set(names):
        raise ValueError(
            f"aim names {len(wanted):,} knowledge points, none of them in the graph, such as {list(aim)[:3]}"
        )
    return np.array([wanted.get(name, 1.0) for name in names])


def _texts(table: pd.DataFrame) -> pd.Series:
    """The knowledge points of every row, as lists."""
    cells = [cell_texts(cell, f"knowledge_points in row {row!r}") for row, cell in table["knowledge_points"].items()]
    return pd.Series(cells, index=table.index, dtype=object)
