"""Knowledge points of questions, extracted by a teacher if the source has none (LinkSyn, arXiv 2508.01317)."""

import numpy as np
import pandas as pd

from qatoolkit.graph.knowledge_points import cell_texts, normalise_kp
from qatoolkit.synthesis.annotate import split_answers
from qatoolkit.teacher import prompts
from qatoolkit.teacher.calls import with_calls
from qatoolkit.teacher.client import Teacher

MOST_POINTS = 6  # as in the prompt; it asks for at least 2, but one is accepted, because a second would be filler


def extract(table: pd.DataFrame, teacher: Teacher) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Extract the knowledge points of every question that has none; returns the table with `knowledge_points` set, and
    rejects.

    One to six per question, in the teacher's spelling, without duplicates under `normalise_kp`; for any other number
    the teacher is asked to correct its answer once. Rows that have knowledge points keep them at no cost:
    `kps_from_column` reads them from any column of a source, and `table.assign(knowledge_points=None)` requests them
    for all rows."""
    table = with_calls(table.reset_index(drop=True), "knowledge_points", [()] * len(table))
    missing = lacks_points(table)
    to_ask = table[missing]
    replies = teacher.ask(requests(to_ask), parse=_read_points, ids=list(to_ask["id"]), label="knowledge points")
    answered, rejects = split_answers(to_ask, replies, lambda value: {"knowledge_points": value}, "knowledge_points")
    return pd.concat([table[~missing], answered]).sort_index(ignore_index=True), rejects.reset_index(drop=True)


def requests(table: pd.DataFrame) -> list[list[dict]]:
    """The chat messages that `extract` sends for rows without knowledge points."""
    rows = table[lacks_points(table)].to_dict("records")
    return [prompts.messages("knowledge_points", row["language"], **prompts.shown(row)) for row in rows]


def lacks_points(table: pd.DataFrame) -> np.ndarray:
    """A mask of the rows without knowledge points."""
    cells = table["knowledge_points"] if "knowledge_points" in table else [None] * len(table)
    return np.array([not cell_texts(cell, "knowledge_points") for cell in cells], dtype=bool)


def _read_points(content: str) -> list[str]:
    points = prompts.read_json(content, "knowledge_points", bare_list=True).get("knowledge_points")
    if not isinstance(points, list) or not all(isinstance(p, str) and normalise_kp(p) for p in points):
        raise ValueError('the JSON object needs a non-empty list of texts "knowledge_points"')
    distinct = {}
    for point in points:
        distinct.setdefault(normalise_kp(point), point.strip())
    if not 1 <= len(distinct) <= MOST_POINTS:
        raise ValueError(
            f'"knowledge_points" names {len(distinct)} different knowledge points; '
            f"name the 2 to {MOST_POINTS} that a solver must know"
        )
    return list(distinct.values())
