"""Seeds at the edge, from the graph over walks and diagnostics to the requests: what comes out, or one line that says why not."""

import json
import warnings

import pandas as pd
import pytest

from qatoolkit import linkqa, stages
from qatoolkit.config import LinkQASettings
from qatoolkit.kpgraph import KPGraph, build_kp_graph
from qatoolkit.store import open_run
from qatoolkit.walks import path_diagnostics, sample_paths

PLAN = pd.DataFrame({"discipline": ["physics"], "difficulty": ["H3"], "budget": [10], "deficit": [0.2]})


def seeds(*kps, language="en", **columns):
    n = len(kps)
    return pd.DataFrame(
        {
            "id": [f"s{i}" for i in range(n)],
            "question": [f"Question {i}?" for i in range(n)],
            "answer": [f"Answer {i}." for i in range(n)],
            "language": language,
            "discipline": "physics",
            "difficulty": "H3",
            "knowledge_points": list(kps),
        }
        | columns
    )


def chain(table, n=60, **settings):
    """(graph, paths, diagnostics, requests) of a table of seeds."""
    graph = build_kp_graph(table)
    paths = sample_paths(graph, n, 3, alpha=0.0, seed=0)
    asked = linkqa.requests(paths, table, PLAN, LinkQASettings(**settings))
    return graph, paths, path_diagnostics(graph, paths).iloc[0], asked


WITHOUT = [seeds(["a", "b"], None, ["b", "c"], [], ["…"]), {("s0", "s2"), ("s2", "s0")}, "abc"]
HUB = [seeds(*[["hub", f"k{i}"] for i in range(4)]), None, {"hub", "k0", "k1", "k2", "k3"}]
PIECES = [
    seeds(["a", "b"], ["b", "c"], ["x", "y"], ["y", "z"], ["alone"]),
    {("s0", "s1"), ("s1", "s0"), ("s2", "s3"), ("s3", "s2")},
    "abcxyz",
]
TWICE = [
    pd.concat([seeds(["a", "b"], ["b", "c"])] * 3, ignore_index=True),
    {("s0", "s1"), ("s1", "s0")},
    "abc",
]
CHINESE = [
    seeds(["欧姆定律", "电阻"], ["电阻。", "电功率"], language="zh"),
    {("s0", "s1"), ("s1", "s0")},
    {"欧姆定律", "电阻", "电功率"},
]
NO_DISCIPLINE = [seeds(["a", "b"], ["b", "c"], discipline=None), {("s0", "s1"), ("s1", "s0")}, "abc"]
WALKED = {
    "some seeds without knowledge points": WITHOUT,
    "a knowledge point in every seed": HUB,
    "a graph in pieces": PIECES,
    "every seed three times": TWICE,
    "Chinese only": CHINESE,
    "no discipline known": NO_DISCIPLINE,
}


@pytest.mark.parametrize("name", WALKED)
def test_what_can_be_walked_is_covered_and_joins_different_seeds(name):
    table, joined, linked = WALKED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, paths, found, asked = chain(table)
    assert (len(paths), found["coverage"]) == (60, 1.0)
    assert {kp for path in paths["kps"] for kp in path} == set(linked)
    assert len(asked) > 0
    parents = {tuple(ids) for ids in asked["parents"]}
    assert all(len(set(ids)) == len(ids) >= 2 for ids in parents)
    assert parents == (joined or parents)
    assert set(asked["language"]) == set(table["language"])
    assert all(len(p["seeds"]) == len(ids) for p, ids in zip(asked["payload"], asked["parents"], strict=True))
    assert set(asked["asked_difficulty"]) == {"H3"}


EMPTY = {
    "no seeds": seeds(),
    "no seed with a knowledge point": seeds(None, [], ["…"]),
    "one node": seeds(["only"]),
    "one node in every seed": seeds(*[["only"]] * 5),
    "nodes without a link": seeds(["a"], ["b"]),
    "Chinese nodes without a link": seeds(["电阻"], ["电流"], language="zh"),
}


@pytest.mark.parametrize("name", EMPTY)
def test_what_cannot_be_walked_says_what_seeds_are_needed(name):
    with pytest.raises(ValueError, match=r"has no edge; give seeds with two or more KPs") as caught:
        chain(EMPTY[name])
    assert "\n" not in str(caught.value)
    nothing = pd.DataFrame({"path": [], "kps": [], "seeds": []})
    found = path_diagnostics(build_kp_graph(EMPTY[name]), nothing).iloc[0]
    assert (found["paths"], found["distinct_seeds"]) == (0, 0)
    assert linkqa.requests(nothing, EMPTY[name], PLAN, LinkQASettings()).empty


UNJOINED = {
    "one seed": seeds(["a", "b"]),
    "one seed, many times": pd.concat([seeds(["a", "b", "c"])] * 3, ignore_index=True),
    "pieces of one seed each": seeds(["a", "b"], ["x", "y", "z"]),
    "two languages that meet in one node": seeds(["a", "b"], ["b", "c"], language=["en", "zh"]),
}


@pytest.mark.parametrize("adjust", [None, {"physics": {"H4": 1.0}}])
@pytest.mark.parametrize("name", UNJOINED)
def test_paths_that_join_nothing_are_reported_and_ask_for_nothing(name, adjust):
    with pytest.warns(UserWarning, match="none of 60 paths leads to two different seeds of one language"):
        *_, found, asked = chain(UNJOINED[name], adjust=adjust)
    assert found["coverage"] == 1.0
    assert len(asked) == 0
    assert {"parents", "asked_discipline", "asked_difficulty", "payload"} <= set(asked)


# --- The stage -----------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that opens a run in which half of the seeds spell their first knowledge point another way."""
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("OPENAI_BASE_URL", "")

    def opened(**dials):
        dials = {"plan.questions": 12} | dials
        run = open_run("edges", profile="smoke", **dials)
        stages.seeds(run)
        if run.manifest("annotate") is None:
            table = stages.annotate(run).seeds
            odd = [
                [f"the {kps[0]}", *kps[1:]] if i % 2 else list(kps)
                for i, kps in enumerate(table["knowledge_points"])
            ]
            table = table.assign(knowledge_points=odd)
            cells = table[["discipline", "difficulty"]].drop_duplicates().assign(budget=1, deficit=0.2)
            run.complete("annotate", {}, ("seeds",), lambda folder: {"seeds": table})
            run.complete("plan", {}, ("annotate",), lambda folder: {"targeted": cells})
        return run

    return opened


def test_the_stage_merges_spellings_and_then_what_a_reviewed_file_says(run, tmp_path):
    first = run()
    proposed = stages.merge_table(first)
    sure = proposed["decision"] == "merge"
    assert sure.sum() > 10
    assert proposed.loc[sure, "reason"].eq("spelling").all()
    assert {"kinetic energy", "动能"} <= set(proposed.loc[~sure, ["kept", "merged"]].stack())
    out = stages.linkqa(first)
    names = set(KPGraph.load(out.graph).names)
    assert not names & set(proposed.loc[sure, "merged"])
    assert {"kinetic energy", "动能"} <= names
    pd.testing.assert_frame_equal(out.merges, proposed, check_dtype=False)

    review = tmp_path / "merges.csv"
    flipped = {"merge": "apart", "review": "merge"}
    out.merges.assign(decision=proposed["decision"].map(flipped)).to_csv(review, index=False)
    said = []
    again = stages.linkqa(run(**{"linkqa.merges": str(review)}), log=said.append)
    names = set(KPGraph.load(again.graph).names)
    assert set(proposed.loc[sure, "merged"]) <= names
    assert len({"kinetic energy", "动能"} & names) == 1
    assert len(again.linkqa_made) > 0

    stages.linkqa(run(**{"linkqa.merges": str(review)}), log=said.append)
    assert "nothing to do" in said[-1]
    review.write_text("kept,merged\n动能,kinetic energy\n", encoding="utf-8")
    edited = stages.linkqa(run(**{"linkqa.merges": str(review)}), log=said.append)
    assert "changed" in said[-2]
    assert edited.merges[["kept", "merged", "decision"]].values.tolist() == [
        ["动能", "kinetic energy", "merge"]
    ]
    assert "content of linkqa.merges" in json.dumps(
        run(**{"linkqa.merges": str(review)}).manifest("linkqa")["settings"]
    )
