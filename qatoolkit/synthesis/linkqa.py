"""LinkQA: questions that join several seeds linked by knowledge points along a walk through the graph.

Stated in arXiv 2508.01317: knowledge points are extracted from seeds, walks under a value function pick paths, and a
teacher writes questions from the seeds of a path. Our reading: 2 to 4 seeds per path, and the requested difficulty
follows the plan's distribution from H3 up."""

import math
import warnings
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd

from qatoolkit.core.qa_table import require
from qatoolkit.core.taxonomy import DIFFICULTIES
from qatoolkit.graph.coverage import reachable_kps, read_syllabus
from qatoolkit.graph.knowledge_points import normalise_kp
from qatoolkit.graph.kp_graph import build_kp_graph
from qatoolkit.graph.merges import apply_merges, merge_candidates, read_merges
from qatoolkit.graph.walks import path_diagnostics, sample_paths
from qatoolkit.synthesis.budget import apportion
from qatoolkit.synthesis.refine import refine_or_keep
from qatoolkit.synthesis.settings import LINKED, LinkQASettings
from qatoolkit.synthesis.strategies import Context, Strategy, register
from qatoolkit.synthesis.write import write_and_label
from qatoolkit.teacher import prompts
from qatoolkit.teacher.calls import is_transient
from qatoolkit.teacher.client import Teacher

SPARE = 1.1  # questions requested per question needed: some are repeated, some cannot be labelled
_COLUMNS = ["strategy", "parents", "language", "path", "asked_discipline", "payload", "asked_difficulty", "exact"]


def requests(
    paths: pd.DataFrame, seeds: pd.DataFrame, plan: pd.DataFrame, settings: LinkQASettings, seed: int = 0, wave: int = 0
) -> pd.DataFrame:
    """One request per path with at least two different seeds in one language, that of its first seed.

    Seeds in another language and beyond `most_seeds` are dropped, and with them the knowledge points that no remaining
    seed contains. A path belongs to the most frequent discipline of its seeds, the first of them in a tie.

    Requested difficulties are assigned in random order. In the disciplines of `settings.adjust` they follow its shares,
    and a question that misses its level is requested once more, then kept under its true label (LinkSyn's difficulty
    adjustment in given disciplines; the rule is our reading). Elsewhere they follow the plan's budget over all
    disciplines, with everything below H3 raised to H3, because joining two seeds takes two hops.

    A later `wave` sends different requests, even along the same path, and only for what is missing: in each discipline
    as many requests as its budget needs, at the levels of its cells. Rows of `seeds` that share an id are one seed, as
    in the graph. Warns if more than half of the paths are unusable. Raises ValueError for missing columns, seeds of a
    path missing from `seeds`, and a plan without a budget."""
    require("paths", paths, "path", "kps", "seeds")
    require("seeds", seeds, "id", "question", "answer", "language", "discipline")
    require("plan", plan, "difficulty", "budget")
    by_id = seeds.drop_duplicates("id").set_index("id")
    path_seeds = {id for ids in paths["seeds"] for id in ids}
    if unknown := path_seeds - set(by_id.index):
        raise ValueError(
            f"{len(unknown):,} seeds of the paths are missing from seeds, for instance {min(unknown, key=str)!r}; "
            "pass the table that the graph was built from"
        )
    row_of = by_id[by_id.index.isin(path_seeds) & by_id["language"].notna()].to_dict("index")
    rows = []
    for path in paths.itertuples():
        found = {id: row_of[id] for id in path.seeds if id in row_of}
        language = next((row["language"] for row in found.values()), None)
        parents = [id for id, row in found.items() if row["language"] == language][: settings.most_seeds]
        if len(parents) < 2:
            continue
        ends = zip(path.kps, [None, *path.seeds], [*path.seeds, None], strict=False)
        kps = [kp for kp, *neighbours in ends if any(id in parents for id in neighbours)]
        disciplines = Counter(d for id in parents if pd.notna(d := found[id]["discipline"]))
        payload = {
            "path": kps,
            "seeds": [prompts.shown(found[id]) for id in parents],
            "count": settings.questions_per_path,
            "round": int(path.path),
        } | ({"wave": wave} if wave else {})
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
    left_out = len(paths) - len(rows)
    adjust, rng = settings.adjust or {}, np.random.default_rng(seed)
    reachable = plan.assign(difficulty=plan["difficulty"].where(plan["difficulty"].isin(LINKED), LINKED[0]))
    if wave:
        rows = _requests_by_discipline(rows, reachable, settings, rng)
    else:
        free = [row for row in rows if row["asked_discipline"] not in adjust]
        budget = reachable.groupby("difficulty")["budget"].sum()
        if free and not budget.sum() > 0:
            raise ValueError(f"plan has {len(plan)} rows and no budget above 0; it must ask for at least one question")
        _assign_levels(free, budget, rng, exact=False)
        for discipline, shares in adjust.items():
            chosen = [row for row in rows if row["asked_discipline"] == discipline]
            _assign_levels(chosen, pd.Series(shares, dtype=float), rng, exact=True)
    if left_out > len(paths) / 2:
        warnings.warn(
            f"{left_out:,} of {len(paths):,} paths have fewer than two different seeds in one language; skipping them. "
            "Use more seeds that share a knowledge point with others, or longer paths",
            stacklevel=2,
        )
    return pd.DataFrame(rows, columns=_COLUMNS)


def _requests_by_discipline(rows: list[dict], plan: pd.DataFrame, settings: LinkQASettings, rng) -> list[dict]:
    """The requests of a wave after the first: in each discipline as many as its budget needs, at its levels."""
    requested = []
    for discipline, cells in plan[plan["budget"] > 0].groupby("discipline"):
        budget = cells.groupby("difficulty")["budget"].sum()
        n = math.ceil(SPARE * budget.sum() / settings.questions_per_path)
        chosen = [row for row in rows if row["asked_discipline"] == discipline][:n]
        shares = (settings.adjust or {}).get(discipline)
        _assign_levels(chosen, pd.Series(shares, dtype=float) if shares else budget, rng, exact=shares is not None)
        requested += chosen
    return requested


def _assign_levels(rows: list[dict], shares: pd.Series, rng: np.random.Generator, *, exact: bool) -> None:
    """Set the requested difficulty of the rows, in random order and proportional to `shares`."""
    wanted = np.repeat(shares.index.to_numpy(str), apportion(shares, len(rows)))
    for row, difficulty in zip(rows, rng.permutation(wanted), strict=True):
        row["asked_difficulty"] = row["payload"]["difficulty"] = str(difficulty)
        row["exact"] = exact


def synthesise(
    request_table: pd.DataFrame, teacher: Teacher, annotator: Teacher, n: int | None = None, attempts: int = 2
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write questions from the paths' seeds (`write.write_and_label`); they have the knowledge points of their path.

    With `n`, requests are sent in order and in parts until `n` questions are written or, with a warning, no request is
    left. Requests lost to an outage are not replaced by further ones, since the next run sends them again. Questions
    beyond `n` are rejects ("over_budget"), as are those that an earlier part wrote ("repeated"). Raises ValueError if
    `n` is not a whole number from 1."""
    if n is None:
        return write_and_label(request_table, teacher, annotator, attempts)
    if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1:
        raise ValueError(f"n={n!r}; allowed: a whole number from 1, or None for all requests")
    each = max((payload["count"] for payload in request_table["payload"]), default=1) if len(request_table) else 1
    made, rejects, at, outage = [], [], 0, False
    while not outage and at < len(request_table) and (short := n - sum(map(len, made))) > 0:
        part = request_table.iloc[at : at + math.ceil(SPARE * short / each)]
        at += len(part)
        written, failed = write_and_label(part, teacher, annotator, attempts)
        known = written["id"].isin([id for table in made for id in table["id"]])
        repeated = written[known].assign(reason="repeated", detail="an earlier request wrote it")
        made.append(written[~known])
        rejects += [failed, repeated]
        outage = failed["reason"].map(is_transient).any()
    if not made:  # no requests: empty tables with their columns
        made, rejects = ([part] for part in write_and_label(request_table, teacher, annotator))
    table = pd.concat(made, ignore_index=True)
    if len(table) < n:
        why = f"all {len(request_table):,} requests are used up; sample more paths, or request more questions per path"
        why = "the teacher did not answer all requests; run it again to send the others" if outage else why
        warnings.warn(f"{len(table):,} of {n:,} questions were written, and {why}", stacklevel=2)
    spare = table[n:].assign(reason="over_budget", detail=f"{n:,} questions were asked for")
    return table[:n], pd.concat([*rejects, spare], ignore_index=True)


def control(made: pd.DataFrame, targets: Mapping[str, Mapping[str, float]] | None = None) -> pd.DataFrame:
    """Requested and labelled difficulty compared: discipline, difficulty, asked, got (numbers of questions), and `kl`
    per discipline.

    `kl` is KL(target || labels) in nats with half a question added to each level; without a target for the discipline,
    the requested levels are the target. Raises ValueError for a target with an unknown level or without a share above
    0."""
    for discipline, target in (targets or {}).items():
        valid = set(target) <= set(DIFFICULTIES) and all(0 <= share < math.inf for _, share in target.items())
        if not valid or not sum(share for _, share in target.items()) > 0:
            raise ValueError(
                f"targets[{discipline!r}]={dict(target)!r}; allowed: shares of {', '.join(DIFFICULTIES)}, not all 0"
            )
    tables = []
    for discipline, rows in made.groupby("asked_discipline"):
        requested, labelled = (
            rows[c].value_counts().reindex(DIFFICULTIES, fill_value=0) for c in ("asked_difficulty", "difficulty")
        )
        wanted = pd.Series((targets or {}).get(discipline, requested), dtype=float)
        wanted, label_shares = wanted[wanted > 0] / wanted.sum(), (labelled + 0.5) / (labelled + 0.5).sum()
        kl = float((wanted * np.log(wanted / label_shares[wanted.index])).sum())
        table = pd.DataFrame({"asked": requested, "got": labelled}).rename_axis("difficulty").reset_index()
        tables.append(table.assign(discipline=discipline, kl=kl))
    columns = ["discipline", "difficulty", "asked", "got", "kl"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def merge_table(seeds: pd.DataFrame, settings: LinkQASettings) -> pd.DataFrame:
    """Near-identical knowledge points of annotated seeds with the decision on each pair: the reviewed file
    `settings.merges`, else `merge_candidates`. Sends no requests, so it can be reviewed before any LinkQA request."""
    names = seeds["knowledge_points"].explode().dropna()
    return read_merges(settings.merges, names) if settings.merges else merge_candidates(names)


def walk(graph, plan: pd.DataFrame, settings: LinkQASettings, seed: int = 0) -> pd.DataFrame:
    """Sample the paths to write along: `paths_per_question` times as many as the plan's budget needs. `focus` weights
    seeds of its weak cells, `aim_weight` the knowledge points listed in the file `aim` (our additions)."""
    aim = _aim_weights(graph, settings) if settings.aim else None
    focus = {(r.discipline, r.difficulty): 1.0 + settings.focus * r.deficit for r in plan.itertuples()}
    n = math.ceil(settings.paths_per_question * plan["budget"].sum() / settings.questions_per_path)
    exponents = {"alpha": settings.alpha, "beta": settings.beta}
    return sample_paths(graph, n, settings.length, **exponents, focus=focus, aim=aim, seed=seed)


def _aim_weights(graph, settings: LinkQASettings) -> dict[str, float]:
    """The weights of the knowledge points in the file `aim`; warns about those that no path can contain."""
    names, possible = read_syllabus(settings.aim), set(reachable_kps(graph))
    aim = {name: settings.aim_weight for name in names if normalise_kp(name) in possible}
    if not aim:
        raise ValueError(
            f"linkqa.aim: none of the {len(names):,} knowledge points of {settings.aim} can be in a joined question: "
            "no seed has them, or they are linked with fewer than two others"
        )
    if len(aim) < len(names):
        warnings.warn(
            f"{len(names) - len(aim):,} of the {len(names):,} points of linkqa.aim are left out: no seed has them, or "
            "they are linked with fewer than two others, so that no path through them joins two seeds",
            stacklevel=2,
        )
    return aim


def _prepare(context: Context) -> tuple:
    """Merges, graph, paths, and the requests along them."""
    seeds, plan, settings = context.seeds, context.plan, context.settings
    merges = merge_table(seeds, settings)
    graph = build_kp_graph(apply_merges(seeds, merges), min_count=settings.min_count)
    seed = context.seed + (context.wave << 32)  # a run's seed is below 2**32
    paths = walk(graph, plan, settings, seed)
    return merges, graph, paths, requests(paths, seeds, plan, settings, seed, context.wave)


def first_requests(context: Context) -> pd.DataFrame:
    """All requests; `write` sends as many as the budget needs."""
    return _prepare(context)[-1]


def write(context: Context) -> dict:
    """LinkQA: merges, graph, walks, synthesis from the seeds of each path, refinement (`strategies.Strategy.write`)."""
    teachers, settings = context.teachers, context.settings
    merges, graph, paths, request_table = _prepare(context)
    graph.save(context.folder / "graph")
    n = int(context.plan["budget"].sum())
    made, rejects = synthesise(request_table, teachers.synthesiser, teachers.annotator, n, settings.attempts)
    questions, rejects = refine_or_keep(made, rejects, teachers.refiner, settings)
    kept = {"merges": merges, "graph": None, "paths": paths, "diagnostics": path_diagnostics(graph, paths)}
    return {"made": made, "questions": questions, "rejects": rejects} | kept


def expected(profile, questions: int) -> tuple[float, float]:
    """Requests needed to write `questions` questions, and questions to label, both with the reserve `SPARE`."""
    return SPARE * questions / profile.linkqa.questions_per_path, SPARE * questions


register(
    Strategy(
        name="linkqa",
        settings=LinkQASettings,
        write=write,
        requests=expected,
        asks=first_requests,
        out_of_reach={
            level: f"LinkQA joins two seeds: nothing below {LINKED[0]}; write these with another strategy"
            for level in DIFFICULTIES
            if level not in LINKED
        },
        prompts=("link", "annotate", "refine", "solve"),
    )
)
