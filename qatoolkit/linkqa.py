"""LinkQA: questions that join several seeds linked by knowledge points along a walk through the graph.

Stated in arXiv 2508.01317: knowledge points are extracted from seeds, a walk under a value function picks paths, and a
teacher writes from the several seeds of a path. Our reading: 2 to 4 seeds a path, and the difficulty asked for follows the
plan's distribution.
"""

import numpy as np
import pandas as pd

from qatoolkit import prompts
from qatoolkit.annotate import annotate, split_answers
from qatoolkit.boostqa import write
from qatoolkit.config import LinkQASettings
from qatoolkit.kps import normalise_kp
from qatoolkit.plan import apportion
from qatoolkit.teacher import Teacher

MOST_SEEDS = 4
MOST_POINTS = 6  # as the prompt says; it asks for 2 at least, but where one fact is all there is, a second would be filler


def extract(table: pd.DataFrame, teacher: Teacher) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Name the knowledge points of every question; returns the table with `knowledge_points` set, and the rejects.

    One to six for each question, in the teacher's spelling, those that `normalise_kp` makes alike once; none or more go back to
    the teacher for its one correction. Where a source carries KPs of its own, `kps.kps_from_column` takes them without a call."""
    messages = [
        prompts.messages("knowledge_points", r.language, question=r.question, answer=r.answer)
        for r in table.itertuples()
    ]
    said = teacher.ask(messages, parse=_read_points, ids=list(table["id"]), label="knowledge points")
    return split_answers(table, said, lambda value: {"knowledge_points": value}, "knowledge_points")


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


def requests(
    paths: pd.DataFrame, seeds: pd.DataFrame, plan: pd.DataFrame, settings: LinkQASettings, seed: int = 0
) -> pd.DataFrame:
    """One request per path that found at least two different seeds; a path's other language is left out, since a question
    is in one language. The difficulties asked for stand in the proportions of the plan's budget, dealt in random order."""
    by_id = seeds.set_index("id")
    rows = []
    for path in paths.itertuples():
        found = by_id.loc[list(dict.fromkeys(path.seeds))]
        found = found[found["language"] == found["language"].iloc[0]] if len(found) else found
        found = found[:MOST_SEEDS]
        if len(found) < 2:
            continue
        payload = {
            "path": list(path.kps),
            "seeds": found[["question", "answer"]].to_dict("records"),
            "count": settings.questions_per_path,
            "round": int(path.path),
        }
        rows.append(
            {
                "strategy": "link",
                "parents": list(found.index),
                "language": found["language"].iloc[0],
                "path": list(path.kps),
                "payload": payload,
            }
        )
    budget = plan.groupby("difficulty")["budget"].sum()
    wanted = np.repeat(budget.index.to_numpy(str), apportion(budget, len(rows)))
    for row, difficulty in zip(rows, np.random.default_rng(seed).permutation(wanted), strict=True):
        row["asked_difficulty"] = row["payload"]["difficulty"] = str(difficulty)
    return pd.DataFrame(rows)


def synthesise(
    asked: pd.DataFrame, teacher: Teacher, annotator: Teacher
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write from the paths' seeds and label what came out; multi-hop items carry their whole path as knowledge points."""
    made, rejects = write(asked, teacher)
    made, unlabelled = annotate(made, annotator)
    return made.drop(columns=["replaces", "seed"]), pd.concat([rejects, unlabelled], ignore_index=True)
