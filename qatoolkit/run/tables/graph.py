"""Tables of walks through the knowledge-point graph, how they are steered, and the questions written along them."""

import os
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from qatoolkit.core.display import Rich, facts, qa
from qatoolkit.core.files import read_json
from qatoolkit.core.taxonomy import DIFFICULTIES
from qatoolkit.graph.coverage import blind_spots as without_questions
from qatoolkit.graph.coverage import coverage as covered
from qatoolkit.graph.coverage import kps_of_questions, reachable_kps
from qatoolkit.graph.knowledge_points import kps_from_column, normalise_kp
from qatoolkit.graph.kp_graph import KPGraph, build_kp_graph
from qatoolkit.graph.merges import read_merges
from qatoolkit.graph.walks import POLICIES, path_diagnostics, sample_paths
from qatoolkit.run.cost import estimate_requests
from qatoolkit.run.stages.synthesis import adjustment_requests
from qatoolkit.run.stages.teachers import teachers
from qatoolkit.run.store import Run
from qatoolkit.run.tables.seeds import real_seeds
from qatoolkit.synthesis.linkqa import requests
from qatoolkit.teacher import prompts

TAL_ROUTES = "tal_scq5k_knowledge_points.json"


def path_example(run: Run, seed: int = 0) -> Rich:
    """One question written along a path, with its path and seeds."""
    table = run.read("linkqa").questions
    english = table[table["language"] == "en"]
    row = (english if len(english) else table).sample(1, random_state=seed)
    seeds = run.read("annotate").seeds
    parents = seeds[seeds["id"].isin(row["parents"].iloc[0])]
    shown = pd.concat([row, parents]).assign(role=["written from the path", *["seed on the path"] * len(parents)])
    return qa(shown, n=len(shown), seed=None, hide=("calls",))


def _linked_count(graph: KPGraph) -> int:
    """The number of linked KPs, and so the number of walks that could reach each of them once."""
    return max(1, int((graph.degree > 0).sum()))


def frontier(run: Run, graph: KPGraph) -> pd.DataFrame:
    """Coverage and correlation with popularity for as many walks as there are linked KPs, over a grid of exponents."""
    rows = []
    for alpha, beta in product((0.0, 0.5, 1.0), (0.0, 0.5, 1.0, 2.0)):
        length = run.profile.linkqa.length
        paths = sample_paths(graph, _linked_count(graph), length, alpha=alpha, beta=beta, seed=run.seed)
        rows.append((alpha, beta, *path_diagnostics(graph, paths).iloc[0][["coverage", "spearman"]]))
    return pd.DataFrame(rows, columns=["alpha", "beta", "coverage", "popularity_correlation"])


def coverage(run: Run, graph: KPGraph) -> pd.DataFrame:
    """Share of linked KPs reached by the first 1 to n of n walks, where n is the number of linked KPs, under the run's
    own exponents and under `walks.POLICIES`: paths, coverage, policy."""
    n, settings, tables = _linked_count(graph), run.profile.linkqa, []
    for policy, dials in {"balanced": {"alpha": settings.alpha, "beta": settings.beta}, **POLICIES}.items():
        paths = sample_paths(graph, n, settings.length, **dials, seed=run.seed)
        reached = paths.explode("kps").drop_duplicates("kps")["path"].to_numpy()
        counts = np.unique(np.linspace(1, n, 100).astype(int))
        share = np.searchsorted(reached, counts) / n
        tables.append(pd.DataFrame({"paths": counts, "coverage": share, "policy": policy}))
    return pd.concat(tables, ignore_index=True)


def longest_walk(paths: pd.DataFrame) -> list[str]:
    """The knowledge points of the first longest walk; if possible one in Latin letters, which every font has."""
    kps = paths["kps"].map(list)
    latin = kps[kps.map(lambda names: all(name.isascii() for name in names))]
    return max(latin if len(latin) else kps, key=len)


def neighbourhood(graph: KPGraph, path: list[str], most: int = 24):
    """A path's knowledge points and their most strongly linked neighbours, as a networkx graph with at most `most`
    nodes.

    Raises ValueError for a name that is not in the graph."""
    if unknown := [kp for kp in path if kp not in graph.names]:
        raise ValueError(f"path names {unknown[0]!r}, which is not in the graph; take names from `graph.names`")
    import networkx as nx

    codes = list(dict.fromkeys(graph.names.get_indexer(list(path))))
    links = graph.adjacency[codes].tocoo()
    near = pd.Series(links.data, index=links.col).groupby(level=0).sum().drop(codes, errors="ignore")
    chosen = codes + near.sort_values(ascending=False, kind="stable").index[: most - len(codes)].tolist()
    part = graph.adjacency[chosen][:, chosen].tocoo()
    drawn = nx.Graph()
    drawn.add_nodes_from(graph.names[chosen])
    drawn.add_weighted_edges_from(
        (graph.names[chosen[a]], graph.names[chosen[b]], w)
        for a, b, w in zip(part.row, part.col, part.data, strict=True)
        if a < b
    )
    return drawn


def difficulty_counts(run: Run, name: str = "linkqa") -> pd.DataFrame:
    """Questions of a data set by difficulty: asked for, labelled, and accepted after refinement."""
    stored = run.read(name)
    made, accepted = stored.made, stored.questions["difficulty"]
    columns = {"asked": made["asked_difficulty"], "labelled": made["difficulty"], "accepted": accepted}
    counts = {column: levels.value_counts() for column, levels in columns.items()}
    return pd.DataFrame(counts, index=pd.Index(DIFFICULTIES, name="difficulty")).fillna(0).astype(int)


def adjustment_estimate(run: Run, adjust: Mapping[str, Mapping[str, float]], n: int = 200) -> dict:
    """What the first attempts of `qt.stages.adjustment` will take, before anything is spent: `cost.estimate_requests`."""
    rows = pd.concat(adjustment_requests(run, dict(adjust), n).values())
    messages = [prompts.messages(row.strategy, row.language, **row.payload) for row in rows.itertuples()]
    with teachers(run, "adjustment") as roles:
        return estimate_requests(roles.synthesiser, messages, "synthesise")


def real_graph(folder: str | Path | None = None) -> SimpleNamespace:
    """The graph of labelled knowledge points of real questions: the routes of TAL-SCQ5K, joined by the source's id,
    with its levels as difficulties.

    `said` counts the questions whose routes name a knowledge point, and the others. `found` is False if `real_seeds`
    finds no folder or the folder has no routes; `said` then gives the reason."""
    real = real_seeds(folder)
    routes = Path(folder or os.environ.get("QATOOLKIT_REAL_DATA", "")) / "sidecar" / TAL_ROUTES
    if not real.found or not routes.is_file():
        said = facts({"real data": f"no {routes}: no labelled knowledge points"}) if real.found else real.said
        return SimpleNamespace(found=False, said=said, graph=None)
    labels = read_json(routes)
    table = real.seeds[real.seeds["source_id"].isin(list(labels))]
    table = table.assign(routes=[labels[id]["knowledge_point_routes"] for id in table["source_id"]])
    table = kps_from_column(table, "routes", levels="all", under=("Knowledge Point", "知识点"))
    named = int(table["knowledge_points"].notna().sum())
    counts = {"routes name a knowledge point": named, "routes name none": len(table) - named}
    graph = build_kp_graph(table.assign(difficulty=table["level"]))
    return SimpleNamespace(found=True, said=facts({"questions with routes": len(table)} | counts), graph=graph)


def walk_settings(graph: KPGraph, length: int = 4, seed: int = 0) -> pd.DataFrame:
    """`path_diagnostics` of as many walks as there are linked KPs under each of `walks.POLICIES` and, if seeds have
    disciplines or difficulties, under coverage with uniform targets for them; divergences are from the uniform
    targets."""
    labels = {label: graph.seeds[label].cat.categories for label in ("discipline", "difficulty")}
    even = {label: dict.fromkeys(values, 1.0) for label, values in labels.items() if len(values)}
    settings, rows = dict(POLICIES), []
    if even:
        settings["coverage, even targets"] = POLICIES["coverage"] | even
    for name, dials in settings.items():
        paths = sample_paths(graph, _linked_count(graph), length, seed=seed, **dials)
        rows.append(path_diagnostics(graph, paths, **even).assign(walks=name))
    return pd.concat(rows, ignore_index=True)


def coverage_of_set(run: Run, name: str, syllabus=None) -> pd.DataFrame:
    """`qt.coverage` of the accepted questions of a data set, with the run's reviewed merges if it has any."""
    seeds, reviewed = run.read("annotate").seeds, run.profile.linkqa.merges
    merges = read_merges(reviewed, seeds["knowledge_points"].explode().dropna()) if reviewed else None
    return covered(seeds, run.read(name).questions, syllabus, merges=merges)


def coverage_by_set(run: Run, syllabus=None) -> pd.DataFrame:
    """The finished data sets side by side: questions, how many of them have no knowledge point and how many inherit
    theirs from seeds; of the knowledge points of the seeds (or of `syllabus`), their number, how many have a question,
    and how many have none (blind) and none at each level."""
    seeds, rows = run.read("annotate").seeds, []
    for name in (name for name in run.profile.data if run.manifest(name)):
        questions, table = run.read(name).questions, coverage_of_set(run, name, syllabus)
        table, points = (
            table[table["in_seeds" if syllabus is None else "in_syllabus"]],
            kps_of_questions(questions, seeds),
        )
        blind = {f"none at {level}": int((table[level] == 0).sum()) for level in DIFFICULTIES}
        about = {"dataset": name, "questions": len(questions), "inherit": int(points["inherited"].sum())}
        about |= {"of no point": int((points["knowledge_points"].map(len) == 0).sum()), "points": len(table)}
        without = int((table["questions"] == 0).sum())
        rows.append(about | {"covered": len(table) - without, "blind": without} | blind)
    return pd.DataFrame(rows)


def blind_spots(run: Run, name: str, levels=(), syllabus=None) -> pd.DataFrame:
    """The rows of a data set's coverage without an accepted question or, with `levels`, without one at some of them;
    saved as CSV, a file for `linkqa.aim`."""
    return without_questions(coverage_of_set(run, name, syllabus), levels)


def aimed_walks(
    run: Run, graph: KPGraph, points, *, walks: int | None = None, weight: float | None = None, seeds: int = 5
) -> pd.DataFrame:
    """How many of the knowledge points `points` (names) LinkQA could write about, without an aim and aimed at them,
    along the same number of walks (default: one per point in reach): one row per seed with walks, points, in_reach
    (`coverage.reachable_kps`), before and aimed (points in reach on paths that join two seeds), and the shares of all points
    in reach on those paths, coverage_before and coverage_aimed. No rows if no point is in reach."""
    settings, plan, table = run.profile.linkqa, run.read("plan").budget, run.read("annotate").seeds
    possible, named = reachable_kps(graph), pd.Index([normalise_kp(point) for point in points])
    wanted = possible.intersection(named)
    aims = {"before": None, "aimed": dict.fromkeys(wanted, weight or settings.aim_weight)}
    rows, n = [], walks or len(wanted)
    for seed in range(run.seed, run.seed + seeds * bool(len(wanted))):
        row = {"seed": seed, "walks": n, "points": len(named), "in_reach": len(wanted)}
        for name, aim in aims.items():
            dials = {"alpha": settings.alpha, "beta": settings.beta, "aim": aim, "seed": seed}
            paths = sample_paths(graph, n, settings.length, **dials)
            used = pd.Index(requests(paths, table, plan, settings)["path"].explode().unique())
            row |= {name: len(wanted.intersection(used)), f"coverage_{name}": len(used) / len(possible)}
        rows.append(row)
    columns = ["seed", "walks", "points", "in_reach", "before", "aimed", "coverage_before", "coverage_aimed"]
    return pd.DataFrame(rows, columns=columns)
