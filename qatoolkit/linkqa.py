"""LinkQA: questions that join several seeds linked by knowledge points along a walk through the graph.

Stated in arXiv 2508.01317: knowledge points are extracted from seeds, a walk under a value function picks paths, and a
teacher writes from the several seeds of a path. Our reading: 2 to 4 seeds a path, and the difficulty asked for follows the
plan's distribution from H3 up.
"""

import math
import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd

from qatoolkit import prompts
from qatoolkit.annotate import split_answers
from qatoolkit.boostqa import carry_out
from qatoolkit.config import LinkQASettings
from qatoolkit.kps import normalise_kp
from qatoolkit.plan import apportion
from qatoolkit.taxonomy import DIFFICULTIES
from qatoolkit.teacher import Teacher

MOST_SEEDS = 4
# Requests put for each question still needed: some are repeated, some cannot be labelled.
SPARE = 1.1
_ASKED = [
    "strategy",
    "parents",
    "language",
    "path",
    "asked_discipline",
    "payload",
    "asked_difficulty",
    "exact",
]
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
    is in one language. A path belongs to the discipline that most of its seeds have.

    The difficulties asked for are dealt in random order within a discipline: where `settings.adjust` names the discipline, in
    its shares, to be met exactly (LinkSyn's difficulty adjustment in given disciplines; the rule is our reading); else in the
    proportions of the plan's budget for all disciplines, what it wants below H3 at H3: joining two seeds takes two hops.

    Seeds that share an id are one, as in the graph. Warns where no path found two different seeds, and returns no request."""
    by_id = seeds.drop_duplicates("id").set_index("id")
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
                "asked_discipline": next(iter(found["discipline"].mode()), None),
                "payload": payload,
            }
        )
    adjust, rng = settings.adjust or {}, np.random.default_rng(seed)
    free = [row for row in rows if row["asked_discipline"] not in adjust]
    reachable = plan["difficulty"].where(~plan["difficulty"].isin(("H1", "H2")), "H3")
    _deal(free, plan.groupby(reachable)["budget"].sum(), rng, exact=False)
    for discipline, shares in adjust.items():
        chosen = [row for row in rows if row["asked_discipline"] == discipline]
        _deal(chosen, pd.Series(shares, dtype=float), rng, exact=True)
    if len(paths) and not rows:
        warnings.warn(
            f"none of {len(paths)} paths leads to two different seeds of one language, so there is nothing to join; "
            "give more seeds that share a knowledge point with others, or longer paths",
            stacklevel=2,
        )
    return pd.DataFrame(rows, columns=_ASKED)


def _deal(rows: list[dict], shares: pd.Series, rng: np.random.Generator, *, exact: bool) -> None:
    wanted = np.repeat(shares.index.to_numpy(str), apportion(shares, len(rows)))
    for row, difficulty in zip(rows, rng.permutation(wanted), strict=True):
        row["asked_difficulty"] = row["payload"]["difficulty"] = str(difficulty)
        row["exact"] = exact


def synthesise(
    asked: pd.DataFrame, teacher: Teacher, annotator: Teacher, n: int | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write from the paths' seeds, label what came out and ask once more for what missed its level (`boostqa.carry_out`);
    multi-hop items carry their whole path as knowledge points.

    With `n`, requests are put in order, a part at a time, until `n` questions are written or none is left; those beyond `n`
    are rejects ("over_budget"), as are questions that an earlier part had written ("repeated")."""
    if n is None:
        return carry_out(asked, teacher, annotator)
    each = max((payload["count"] for payload in asked["payload"]), default=1) if len(asked) else 1
    made, rejects, at = [], [], 0
    while at < len(asked) and (short := n - sum(map(len, made))) > 0:
        part = asked.iloc[at : at + math.ceil(SPARE * short / each)]
        at += len(part)
        written, failed = carry_out(part, teacher, annotator)
        known = written["id"].isin([id for table in made for id in table["id"]])
        repeated = written[known].assign(reason="repeated", detail="an earlier request wrote it")
        made.append(written[~known])
        rejects += [failed, repeated]
    if not made:
        return carry_out(asked, teacher, annotator)
    table = pd.concat(made, ignore_index=True)
    spare = table[n:].assign(reason="over_budget", detail=f"{n:,} questions were asked for")
    return table[:n], pd.concat([*rejects, spare], ignore_index=True)


def control(made: pd.DataFrame, targets: Mapping[str, Mapping[str, float]] | None = None) -> pd.DataFrame:
    """Difficulty asked for against difficulty as labelled: discipline, difficulty, asked, got (questions), and for each discipline
    `kl`, the divergence in nats of the labels from the target (by discipline; where none is given, from what was asked), half
    a question added to each level."""
    tables = []
    for discipline, rows in made.groupby("asked_discipline"):
        asked, got = (
            rows[c].value_counts().reindex(DIFFICULTIES, fill_value=0)
            for c in ("asked_difficulty", "difficulty")
        )
        wanted = pd.Series((targets or {}).get(discipline, asked), dtype=float)
        wanted, found = wanted[wanted > 0] / wanted.sum(), (got + 0.5) / (got + 0.5).sum()
        kl = float((wanted * np.log(wanted / found[wanted.index])).sum())
        table = pd.DataFrame({"asked": asked, "got": got}).rename_axis("difficulty").reset_index()
        tables.append(table.assign(discipline=discipline, kl=kl))
    columns = ["discipline", "difficulty", "asked", "got", "kl"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
