"""Tables of notebook 05: walks through the knowledge-point graph, what steers them, and what was written along them."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from qatoolkit.core.display import Rich, facts, qa
from qatoolkit.core.files import read_json
from qatoolkit.core.taxonomy import DIFFICULTIES
from qatoolkit.graph.knowledge_points import kps_from_column
from qatoolkit.graph.kp_graph import KPGraph, build_kp_graph
from qatoolkit.graph.walks import POLICIES, path_diagnostics, sample_paths
from qatoolkit.run.cost import asking
from qatoolkit.run.stages.synthesis import adjustment_requests
from qatoolkit.run.stages.teachers import teachers
from qatoolkit.run.store import Run
from qatoolkit.run.tables.seeds import real_seeds
from qatoolkit.teacher import prompts

TAL_ROUTES = "tal_scq5k_knowledge_points.json"


def path_story(run: Run, seed: int = 0) -> Rich:
    """One question that was written along a path, with the path and the seeds it came from."""
    table = run.read("linkqa").questions
    english = table[table["language"] == "en"]
    row = (english if len(english) else table).sample(1, random_state=seed)
    seeds = run.read("annotate").seeds
    parents = seeds[seeds["id"].isin(row["parents"].iloc[0])]
    told = pd.concat([row, parents]).assign(role=["written from the path", *["seed on the path"] * len(parents)])
    return qa(told, n=len(told), seed=None)


def frontier(run: Run, graph: KPGraph) -> pd.DataFrame:
    """Coverage and correlation with popularity of as many walks as there are linked KPs, over a grid of exponents."""
    rows = []
    n = max(1, int((graph.degree > 0).sum()))
    for alpha in (0.0, 0.5, 1.0):
        for beta in (0.0, 0.5, 1.0, 2.0):
            paths = sample_paths(graph, n, run.profile.linkqa.length, alpha=alpha, beta=beta, seed=run.seed)
            found = path_diagnostics(graph, paths).iloc[0]
            rows.append(
                {
                    "alpha": alpha,
                    "beta": beta,
                    "coverage": found["coverage"],
                    "popularity_correlation": found["spearman"],
                }
            )
    return pd.DataFrame(rows)


def coverage(run: Run, graph: KPGraph) -> pd.DataFrame:
    """Share of linked KPs that the first 1 to n of n walks reached, n being their number, under the run's own exponents and under
    `walks.POLICIES`: paths, coverage, policy."""
    n = max(1, int((graph.degree > 0).sum()))
    settings = run.profile.linkqa
    tables = []
    for policy, dials in {"balanced": {"alpha": settings.alpha, "beta": settings.beta}, **POLICIES}.items():
        paths = sample_paths(graph, n, settings.length, **dials, seed=run.seed)
        reached = paths.explode("kps").drop_duplicates("kps")["path"].to_numpy()
        counts = np.unique(np.linspace(1, n, 100).astype(int))
        share = np.searchsorted(reached, counts) / n
        tables.append(pd.DataFrame({"paths": counts, "coverage": share, "policy": policy}))
    return pd.concat(tables, ignore_index=True)


def longest_walk(paths: pd.DataFrame) -> list[str]:
    """The knowledge points of the first of the longest walks, one in Latin letters where there is one: every font has these."""
    kps = paths["kps"].map(list)
    latin = kps[kps.map(lambda names: all(name.isascii() for name in names))]
    return max(latin if len(latin) else kps, key=len)


def around(graph: KPGraph, path: list[str], most: int = 24):
    """The networkx graph of a path's knowledge points and of their most strongly linked neighbours, `most` nodes at the most.
    ValueError for a name that the graph does not hold."""
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


def asked_and_got(run: Run, name: str = "linkqa") -> pd.DataFrame:
    """Questions of a data set by difficulty: asked for, labelled so, and accepted after refinement."""
    stored = run.read(name)
    return (
        pd.DataFrame(
            {
                "asked": stored.made["asked_difficulty"].value_counts(),
                "labelled": stored.made["difficulty"].value_counts(),
                "accepted": stored.questions["difficulty"].value_counts(),
            },
            index=pd.Index(DIFFICULTIES, name="difficulty"),
        )
        .fillna(0)
        .astype(int)
    )


def adjustment_estimate(run: Run, adjust: Mapping[str, Mapping[str, float]], n: int = 200) -> dict:
    """What `qt.stages.adjustment` will take, before anything is spent: the first attempts of the synthesiser."""
    asked = pd.concat(adjustment_requests(run, dict(adjust), n).values())
    messages = [prompts.messages(row.strategy, row.language, **row.payload) for row in asked.itertuples()]
    with teachers(run, "adjustment") as by:
        return asking(by.synthesiser, messages, "synthesise")


def real_graph(folder: str | Path | None = None) -> SimpleNamespace:
    """The graph of the labelled knowledge points among real questions: routes of TAL-SCQ5K, joined by the source's id, with its
    levels as difficulties. `found` is False where `views.real_seeds` finds no folder or it holds no routes; `said` says so, and else
    of how many questions the routes name a knowledge point, and of how many they name none."""
    real = real_seeds(folder)
    routes = Path(folder or os.environ.get("QATOOLKIT_REAL_DATA", "")) / "sidecar" / TAL_ROUTES
    if not real.found or not routes.is_file():
        said = real.said if not real.found else facts({"real data": f"no {routes}: no labelled knowledge points"})
        return SimpleNamespace(found=False, said=said, graph=None)
    labels = read_json(routes)
    table = real.seeds[real.seeds["source_id"].isin(list(labels))]
    table = table.assign(routes=[labels[id]["knowledge_point_routes"] for id in table["source_id"]])
    table = kps_from_column(table, "routes", levels="all", under=("Knowledge Point", "知识点"))
    named = int(table["knowledge_points"].notna().sum())
    said = facts(
        {
            "questions with routes": len(table),
            "routes name a knowledge point": named,
            "routes name none": len(table) - named,
        }
    )
    graph = build_kp_graph(table.assign(difficulty=table["level"]))
    return SimpleNamespace(found=True, said=said, graph=graph)


def walk_settings(graph: KPGraph, length: int = 4, seed: int = 0) -> pd.DataFrame:
    """As many walks as there are linked KPs under each of `walks.POLICIES` and, where seeds have disciplines or difficulties, under
    coverage with even targets for them: `path_diagnostics` of each, the divergences from the even targets."""
    n = int((graph.degree > 0).sum())
    labels = {label: graph.seeds[label].cat.categories for label in ("discipline", "difficulty")}
    even = {label: dict.fromkeys(values, 1.0) for label, values in labels.items() if len(values)}
    settings = dict(POLICIES)
    if even:
        settings["coverage, even targets"] = POLICIES["coverage"] | even
    rows = []
    for name, dials in settings.items():
        paths = sample_paths(graph, n, length, seed=seed, **dials)
        rows.append(path_diagnostics(graph, paths, **even).assign(walks=name))
    return pd.concat(rows, ignore_index=True)
