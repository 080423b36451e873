"""LinkQA: questions that join several seeds linked by knowledge points along a walk through the graph.

Stated in arXiv 2508.01317: knowledge points are extracted from seeds, a walk under a value function picks paths, and a
teacher writes from the several seeds of a path. Our reading: 2 to 4 seeds a path, and the difficulty asked for follows the
plan's distribution from H3 up.
"""

import math
import warnings
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd

from qatoolkit import prompts
from qatoolkit.annotate import split_answers, with_calls
from qatoolkit.boostqa import carry_out
from qatoolkit.config import LINKED, LinkQASettings
from qatoolkit.kps import cell_texts, normalise_kp
from qatoolkit.plan import apportion
from qatoolkit.schema import require
from qatoolkit.taxonomy import DIFFICULTIES
from qatoolkit.teacher import Teacher

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
    """Name the knowledge points of every question that has none; returns the table with `knowledge_points` set, and the rejects.

    One to six for each question, in the teacher's spelling, those that `normalise_kp` makes alike once; none or more go back to
    the teacher for its one correction. Rows that carry knowledge points keep them and cost nothing: `kps.kps_from_column` takes
    them from any column of a source, and `table.assign(knowledge_points=None)` has all of them asked for."""
    table = with_calls(table.reset_index(drop=True), "knowledge_points", [()] * len(table))
    carried = table["knowledge_points"] if "knowledge_points" in table else [None] * len(table)
    missing = np.array([not cell_texts(cell, "knowledge_points") for cell in carried], dtype=bool)
    asked = table[missing]
    messages = [
        prompts.messages("knowledge_points", row["language"], **prompts.shown(row))
        for row in asked.to_dict("records")
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


def requests(
    paths: pd.DataFrame, seeds: pd.DataFrame, plan: pd.DataFrame, settings: LinkQASettings, seed: int = 0
) -> pd.DataFrame:
    """One request per path that found at least two different seeds; a path's other language is left out, since a question
    is in one language; of its knowledge points those stay that a seed shown holds, four seeds at most. A path belongs to the discipline that most of its seeds have, the first of them where several are.

    The difficulties asked for are dealt in random order within a discipline: where `settings.adjust` names the discipline, in
    its shares, and what misses its level is asked for once more, then kept under its true label (LinkSyn's difficulty adjustment
    in given disciplines; the rule is our reading); else in the proportions of the plan's budget for all disciplines, what it wants
    below H3 at H3: joining two seeds takes two hops.

    Seeds that share an id are one, as in the graph. Warns where more than half of the paths are left out, with their number.
    Raises ValueError for missing columns, seeds of a path that `seeds` lacks, and a plan without a budget."""
    require("paths", paths, "path", "kps", "seeds")
    require("seeds", seeds, "id", "question", "answer", "language", "discipline")
    require("plan", plan, "difficulty", "budget")
    by_id = seeds.drop_duplicates("id").set_index("id")
    walked = {id for ids in paths["seeds"] for id in ids}
    if unknown := walked - set(by_id.index):
        raise ValueError(
            f"seeds lacks {len(unknown):,} of those on the paths, {min(unknown, key=str)!r} for one; "
            "pass the table that the graph was built from"
        )
    row_of = by_id[by_id.index.isin(walked) & by_id["language"].notna()].to_dict("index")
    rows = []
    for path in paths.itertuples():
        found = {id: row_of[id] for id in path.seeds if id in row_of}
        language = next((row["language"] for row in found.values()), None)
        parents = [id for id, row in found.items() if row["language"] == language][: settings.most_seeds]
        if len(parents) < 2:
            continue
        ends = zip(path.kps, [None, *path.seeds], [*path.seeds, None], strict=False)
        kps = [kp for kp, *beside in ends if any(id in parents for id in beside)]
        disciplines = Counter(d for id in parents if pd.notna(d := found[id]["discipline"]))
        payload = {
            "path": kps,
            "seeds": [prompts.shown(found[id]) for id in parents],
            "count": settings.questions_per_path,
            "round": int(path.path),
        }
        rows.append(
            {
                "strategy": "link",
                "parents": parents,
                "language": language,
                "path": kps,
                "asked_discipline": max(disciplines, key=disciplines.get, default=None),
                "payload": payload,
            }
        )
    adjust, rng = settings.adjust or {}, np.random.default_rng(seed)
    free = [row for row in rows if row["asked_discipline"] not in adjust]
    reachable = plan["difficulty"].where(plan["difficulty"].isin(LINKED), LINKED[0])
    budget = plan.groupby(reachable)["budget"].sum()
    if free and not budget.sum() > 0:
        raise ValueError(
            f"plan has {len(plan)} rows and no budget above 0; ask for one question or more in it"
        )
    _deal(free, budget, rng, exact=False)
    for discipline, shares in adjust.items():
        chosen = [row for row in rows if row["asked_discipline"] == discipline]
        _deal(chosen, pd.Series(shares, dtype=float), rng, exact=True)
    if (left_out := len(paths) - len(rows)) > len(paths) / 2:
        warnings.warn(
            f"{left_out:,} of {len(paths):,} paths lead to fewer than two different seeds of one language and ask for nothing; "
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
    multi-hop items carry the knowledge points of their path.

    With `n`, requests are put in order, a part at a time, until `n` questions are written or, with a warning, none is left; those
    beyond `n` are rejects ("over_budget"), as are questions that an earlier part had written ("repeated"). Raises ValueError for
    an `n` that is no whole number from 1."""
    if n is None:
        return carry_out(asked, teacher, annotator)
    if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1:
        raise ValueError(f"n={n!r}; allowed: a whole number from 1, or None for all requests")
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
    if not made:  # no request at all: the empty tables, with their columns
        made, rejects = ([part] for part in carry_out(asked, teacher, annotator))
    table = pd.concat(made, ignore_index=True)
    if len(table) < n:
        warnings.warn(
            f"{len(table):,} of {n:,} questions were written, and all {len(asked):,} requests are used up; "
            "sample more paths, or ask for more questions a path",
            stacklevel=2,
        )
    spare = table[n:].assign(reason="over_budget", detail=f"{n:,} questions were asked for")
    return table[:n], pd.concat([*rejects, spare], ignore_index=True)


def control(made: pd.DataFrame, targets: Mapping[str, Mapping[str, float]] | None = None) -> pd.DataFrame:
    """Difficulty asked for against difficulty as labelled: discipline, difficulty, asked, got (questions), and for each discipline
    `kl`, the divergence in nats of the labels from the target (by discipline; where none is given, from what was asked), half
    a question added to each level. Raises ValueError for a target that names another level or has no share above 0."""
    for discipline, target in (targets or {}).items():
        right = set(target) <= set(DIFFICULTIES) and all(0 <= share < math.inf for _, share in target.items())
        if not right or not sum(share for _, share in target.items()) > 0:
            raise ValueError(
                f"targets[{discipline!r}]={dict(target)!r}; allowed: shares of {', '.join(DIFFICULTIES)}, not all 0"
            )
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
