"""Knowledge points of questions, named by a teacher where a source provides none (LinkSyn, arXiv 2508.01317)."""

import numpy as np
import pandas as pd

from qatoolkit.graph.knowledge_points import cell_texts, normalise_kp
from qatoolkit.synthesis.annotate import split_answers
from qatoolkit.teacher import prompts
from qatoolkit.teacher.calls import with_calls
from qatoolkit.teacher.client import Teacher

MOST_POINTS = 6  # as in the prompt, which asks for at least 2; one is accepted, because a second would be filler


def extract(table: pd.DataFrame, teacher: Teacher) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Name the knowledge points of every question that has none; returns the table with `knowledge_points` set, and
    rejects.

    One to six per question, in the teacher's spelling, without duplicates under `normalise_kp`; any other number goes
    back to the teacher for its one correction. Rows that have knowledge points keep them at no cost: `kps_from_column`
    takes them from any column of a source, and `table.assign(knowledge_points=None)` requests all of them."""
    table = with_calls(table.reset_index(drop=True), "knowledge_points", [()] * len(table))
    carried = table["knowledge_points"] if "knowledge_points" in table else [None] * len(table)
    missing = np.array([not cell_texts(cell, "knowledge_points") for cell in carried], dtype=bool)
    asked = table[missing]
    messages = [
        prompts.messages("knowledge_points", row["language"], **prompts.shown(row)) for row in asked.to_dict("records")
    ]
    said = teacher.ask(messages, parse=_read_points, ids=list(asked["id"]), label="knowledge points")
    named, rejects = split_answers(asked, said, lambda value: {"knowledge_points": value}, "knowledge_points")
    return pd.concat([table[~missing], named]).sort_index(ignore_index=True), rejects.reset_index(drop=True)


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
