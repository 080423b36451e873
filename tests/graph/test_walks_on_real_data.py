"""What the walks promise, on labels that people gave: knowledge-point routes of TAL-SCQ5K, theorems of TheoremQA."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import REAL

from qatoolkit import kps_from_column
from qatoolkit.graph.kp_graph import build_kp_graph
from qatoolkit.graph.walks import path_diagnostics, sample_paths

pytestmark = pytest.mark.skipif(
    not (REAL / "sidecar").is_dir(), reason=f"no real data in {REAL}; set QATOOLKIT_REAL_DATA"
)


def labelled(name, sidecar):
    rows = [json.loads(line) for line in (REAL / f"{name}.jsonl").open(encoding="utf-8")]
    beside = json.loads((REAL / "sidecar" / f"{sidecar}.json").read_text(encoding="utf-8"))
    return [(row, beside[row["id"]]) for row in rows]


def tal(language):
    """Names on the routes below the heading that says knowledge point; stage of school as discipline."""
    table = pd.DataFrame(
        {
            "id": row["id"],
            "routes": more["knowledge_point_routes"],
            "discipline": more["dataset_name"].split("_")[0],
            "difficulty": row["level"],
        }
        for row, more in labelled(f"tal_scq5k_{language}_train", "tal_scq5k_knowledge_points")
    )
    return kps_from_column(table, "routes", levels="all", under=("Knowledge Point", "知识点"))


def theoremqa():
    """Theorem and subfield, since an item has one theorem; its field as discipline; no difficulty is given."""
    table = pd.DataFrame(
        {
            "id": row["id"],
            "labels": [more["theorem"], more["subfield"]],
            "discipline": more["field"],
            "difficulty": None,
        }
        for row, more in labelled("theoremqa", "theoremqa_theorems")
    )
    return kps_from_column(table, "labels")


TABLES = {
    "tal-en": lambda: tal("en"),
    "tal-zh": lambda: tal("zh"),
    "theoremqa": theoremqa,
    "all": lambda: pd.concat([tal("en"), tal("zh"), theoremqa()], ignore_index=True),
}


@pytest.fixture(scope="module", params=TABLES)
def graph(request):
    return build_kp_graph(TABLES[request.param]())


def coverage(graph, alpha, beta):
    """Share of linked KPs that as many paths of 4 KPs as there are linked KPs visit; mean of three seeds."""
    n = int((graph.degree > 0).sum())
    tables = (sample_paths(graph, n, 4, alpha=alpha, beta=beta, seed=seed) for seed in range(3))
    return np.mean([path_diagnostics(graph, table)["coverage"][0] for table in tables])


def test_beta_covers_half_as_much_again_as_walks_that_follow_popularity(graph):
    covered, followed = coverage(graph, 0, 1), coverage(graph, 1, 0)
    # TheoremQA's items have one theorem each, so that its graph is a forest of stars; there 1.54 would be every KP.
    assert covered >= min(1.5 * followed, 0.95)


def test_beta_leaves_out_a_third_at_most_of_what_plain_weighted_walks_leave_out(graph):
    # Plain walks (alpha=beta=0: even starts, steps by edge weight) visit 0.88 to 0.93 of the KPs: 1.5 times that is
    # more than all.
    assert 1 - coverage(graph, 0, 1) <= (1 - coverage(graph, 0, 0)) / 3


@pytest.mark.parametrize("beta", [0, 1])
@pytest.mark.parametrize("shape", ["even", "rising", "falling", "reversed"])
@pytest.mark.parametrize("label", ["discipline", "difficulty"])
def test_a_target_takes_four_fifths_of_the_distance_away(graph, label, shape, beta):
    shares = graph.seeds.loc[graph.linked_seeds, label].value_counts(normalize=True)
    have = sorted(shares.index[shares > 0])
    if len(have) < 2:
        pytest.skip(f"{label} has {len(have)} values here: nothing to steer")
    up = range(1, len(have) + 1)
    weights = {"even": [1] * len(have), "rising": up, "falling": up[::-1], "reversed": shares[have][::-1]}
    target = {label: dict(zip(have, weights[shape], strict=True))}
    free, held = (
        path_diagnostics(graph, sample_paths(graph, 2000, 4, beta=beta, **steered), **target).iloc[0]
        for steered in ({}, target)
    )
    assert held[f"missing_{label}"] == 0
    assert held[f"kl_{label}"] <= 0.2 * free[f"kl_{label}"]


def test_targets_for_discipline_and_difficulty_hold_together():
    graph = build_kp_graph(tal("zh"))
    targets = {"discipline": {"prime": 1, "mid": 1, "high": 2}, "difficulty": {"difficulty 2": 1, "difficulty 3": 1}}
    free, held = (
        path_diagnostics(graph, sample_paths(graph, 2000, 4, **steered), **targets).iloc[0] for steered in ({}, targets)
    )
    for label in targets:
        assert held[f"kl_{label}"] <= 0.2 * free[f"kl_{label}"]
