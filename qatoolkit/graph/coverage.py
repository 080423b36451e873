"""Coverage of knowledge points: which have questions, at which difficulties, and which have none (our addition)."""

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
    in_syllabus; the number of its seeds, of accepted questions, and of questions that inherit it; questions at H1 to
    H5.

    A question counts for its own KPs (in LinkQA, those of its path). One without KPs inherits those of the seeds it was
    written from (`parents`), as in BoostQA. A KP without questions is a blind spot.

    syllabus: names, or a CSV file of them (column `knowledge_point`, else the first). Names that are equal under
    `normalise_kp`, or spelling variants, are one KP; `merges`, if given, replaces the spelling rules
    (`merge_candidates`). A KP has the name used in the syllabus, else the first in the seeds. KPs with most seeds come
    first. ValueError for missing columns, cells that are not names, and a syllabus without names.

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
    questions = kps_of_questions(accepted, seeds).assign(difficulty=accepted["difficulty"])
    parts = {
        "syllabus": pd.Series(listed, dtype=object),
        "seeds": _texts(seeds),
        "questions": questions["knowledge_points"],
    }
    names = pd.concat(list(parts.values())).explode().dropna()
    targets = resolve(merge_candidates(names) if merges is None else merges)

    @cache
    def key(name: str) -> str:
        return normalise_kp(targets.get(plain := normalise_kp(name), plain))

    keyed = {part: cells.explode().dropna().rename("name").to_frame() for part, cells in parts.items()}
    for part, rows in keyed.items():
        rows = rows.assign(key=rows["name"].map(key)).rename_axis("row").reset_index()
        keyed[part] = rows[rows["key"] != ""].drop_duplicates(["row", "key"])
    spellings = pd.concat(keyed.values()).drop_duplicates("key").set_index("key")["name"]
    counted = keyed["questions"].join(questions[["inherited", "difficulty"]], on="row")
    counts = {"seeds": keyed["seeds"], "questions": counted, "inherited": counted[counted["inherited"]]}
    counts |= {level: counted[counted["difficulty"] == level] for level in DIFFICULTIES}
    table = pd.DataFrame({NAME: spellings})
    for part in ("seeds", "syllabus"):
        table[f"in_{part}"] = table.index.isin(keyed[part]["key"])
    for column in COUNTS:
        table[column] = counts[column]["key"].value_counts().reindex(table.index, fill_value=0)
    return table.sort_values("seeds", ascending=False, kind="stable", ignore_index=True)


def kps_of_questions(questions: pd.DataFrame, seeds: pd.DataFrame) -> pd.DataFrame:
    """The KPs that every question counts for, and whether they are inherited: `knowledge_points` (lists), `inherited`;
    rows as in `questions`. KPs are its own, else those of its `parents` among the seeds, else none."""
    points_of_seed = dict(zip(seeds["id"], _texts(seeds), strict=True))
    none = pd.Series([[]] * len(questions), questions.index)
    own = _texts(questions) if "knowledge_points" in questions else none
    parents = questions.get("parents", none)
    from_parents = [
        list(dict.fromkeys(point for id in cell_texts(ids, "parents") for point in points_of_seed.get(id, ())))
        for ids in parents
    ]
    inherits = [not kps and bool(inherited) for kps, inherited in zip(own, from_parents, strict=True)]
    points = [kps or inherited for kps, inherited in zip(own, from_parents, strict=True)]
    found = {"knowledge_points": pd.Series(points, questions.index, dtype=object), "inherited": inherits}
    return pd.DataFrame(found, index=questions.index)


def blind_spots(ledger: pd.DataFrame, levels: Iterable[str] = ()) -> pd.DataFrame:
    """The rows of a `coverage` table without questions or, with `levels`, without questions at any one of these
    levels."""
    columns = list(levels) or ["questions"]
    if unknown := set(columns) - set(COUNTS):
        raise ValueError(f"levels has {min(unknown)!r}; allowed: {', '.join(DIFFICULTIES)}")
    return ledger[(ledger[columns] == 0).any(axis=1)].reset_index(drop=True)


def read_syllabus(syllabus: Iterable[str] | str | Path) -> list[str]:
    """The names in a syllabus: an iterable of texts, or a CSV file in UTF-8 (column `knowledge_point`, else the first).
    ValueError if there are none."""
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


def reachable_kps(graph) -> pd.Index:
    """The KPs of a `KPGraph` that a question from two seeds can contain: those in components of three or more KPs. With
    two, a path has one step, so only one seed."""
    return graph.names[np.bincount(graph.components)[graph.components] >= 3]


def aim_weights(names: pd.Index, aim: Mapping[str, float]) -> np.ndarray:
    """The weight of each normalised KP by `aim` (name -> weight above 0), 1 for others. ValueError for a weight out of
    range and if no name is known."""
    valid = hasattr(aim, "items") and all(isinstance(w, Real) and 0 < w < math.inf for _, w in aim.items())
    if not valid:
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
