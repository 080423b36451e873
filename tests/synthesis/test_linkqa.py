"""Seeds at the edge, from the graph over walks and diagnostics to the requests: what comes out, or one line that says
why not."""

import itertools
import json
import warnings

import numpy as np
import pandas as pd
import pytest

from qatoolkit.graph.kp_graph import KPGraph, build_kp_graph
from qatoolkit.graph.walks import path_diagnostics, sample_paths
from qatoolkit.run import stages, tables
from qatoolkit.run.contracts import stage as staged
from qatoolkit.run.profiles import PROFILES
from qatoolkit.run.store import open_run
from qatoolkit.synthesis import annotate, boostqa, linkqa
from qatoolkit.synthesis.settings import BoostQASettings, LinkQASettings
from qatoolkit.teacher import prompts
from qatoolkit.textbook.server import local_teacher

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
TWICE = [pd.concat([seeds(["a", "b"], ["b", "c"])] * 3, ignore_index=True), {("s0", "s1"), ("s1", "s0")}, "abc"]
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
    with pytest.warns(UserWarning, match="60 of 60 paths have fewer than two different seeds in one"):
        *_, found, asked = chain(UNJOINED[name], adjust=adjust)
    assert found["coverage"] == 1.0
    assert len(asked) == 0
    assert {"parents", "asked_discipline", "asked_difficulty", "payload"} <= set(asked)


def test_paths_left_out_are_counted_where_they_are_the_most():
    table = seeds(["a", "b"], ["b", "c"])
    joined, lone = [["a", "b", "c"], ["s0", "s1"]], [["a", "b"], ["s0"]]
    with pytest.warns(UserWarning, match=r"^2 of 3 paths have fewer than two") as caught:
        assert len(requests([joined, lone, lone], table)) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(requests([joined, lone], table)) == 1


def test_a_path_between_two_disciplines_belongs_to_that_of_its_first_seed():
    table = seeds(["a", "b"], ["b", "c"], ["c", "d"], discipline=["physics", "biology", "biology"])
    there, back = [["a", "b", "c"], ["s0", "s1"]], [["c", "b", "a"], ["s1", "s0"]]
    most = [["a", "b", "c", "d"], ["s0", "s1", "s2"]]
    for given in (table, table.astype({"discipline": "category"})):
        assert requests([there, back, most], given)["asked_discipline"].tolist() == ["physics", "biology", "biology"]


def test_a_request_names_only_knowledge_points_that_a_seed_shown_holds():
    names = [f"k{i}" for i in range(8)]
    table = seeds(*itertools.pairwise(names), language=["en", "zh", "en", "en", "en", "en", "zh"])
    walked = [names, table["id"].tolist()]
    asked = requests([walked, [names[:4], ["s0", "s2", "s1"]]], table).iloc
    assert (asked[0]["parents"], asked[0]["path"]) == (["s0", "s2", "s3", "s4"], names[:6])
    assert asked[0]["payload"]["path"] == names[:6]
    assert (asked[1]["parents"], asked[1]["path"]) == (["s0", "s2"], names[:3])


@pytest.mark.parametrize("most", [2, 3, 4])
def test_the_teacher_is_shown_as_many_seeds_of_a_path_as_the_dial_says(most):
    names = [f"k{i}" for i in range(8)]
    table = seeds(*itertools.pairwise(names))
    asked = requests([[names, table["id"].tolist()]], table, most_seeds=most).iloc[0]
    assert asked["parents"] == [f"s{i}" for i in range(most)]
    assert len(asked["payload"]["seeds"]) == most
    assert asked["path"] == names[: most + 1]


def requests(paths, table, plan=PLAN, **settings):
    kps, ids = zip(*paths, strict=True)
    walked = pd.DataFrame({"path": range(len(paths)), "kps": kps, "seeds": ids})
    return linkqa.requests(walked, table, plan, LinkQASettings(length=3, **settings))


PATHS = [[["a", "b", "c"], ["s0", "s1"]]]
JOINED = seeds(["a", "b"], ["b", "c"])


@pytest.mark.parametrize(
    ("table", "plan", "message"),
    [
        (JOINED[:1], PLAN, r"1 seeds of the paths are missing from seeds, for instance 's1'; pass the table"),
        (JOINED.drop(columns="language"), PLAN, r"seeds is missing the columns \['language'\]; it has"),
        (JOINED, PLAN[["difficulty"]], r"plan is missing the columns \['budget'\]; it has"),
        (JOINED, PLAN[:0], r"plan has 0 rows and no budget above 0"),
        (JOINED, PLAN.assign(budget=0), r"plan has 1 rows and no budget above 0"),
    ],
)
def test_what_requests_lack_is_named(table, plan, message):
    with pytest.raises(ValueError, match=message):
        requests(PATHS, table, plan)


CHOICES = {
    "Paris or Rome?": (np.array(["Paris", "Rome"], dtype=object), {"A": "Paris", "B": "Rome"}),
    "Which are even?": (["1", "2", "3", "4"], dict(zip("ABCD", "1234", strict=True))),
    "Open?": (None, None),
    "Open too?": (float("nan"), None),
}


@pytest.mark.parametrize("column", [True, False])
def test_a_teacher_is_shown_the_choices_of_a_seed_by_letter(column):
    table = seeds(["a", "b"], ["b", "c"], ["c", "d"], ["d", "e"]).assign(question=list(CHOICES), grade="high")
    if column:
        table["choices"] = pd.Series([cell for cell, _ in CHOICES.values()], dtype=object)
    path = [["a", "b", "c", "d", "e"], list(table["id"])]
    [payload] = requests([path], table)["payload"]
    boost = boostqa.requests(table, PLAN.assign(budget=8), BoostQASettings())["payload"]
    asked = [json.loads(messages[1]["content"]) for messages in annotate.requests(table)]
    for told in (payload["seeds"], [one["seed"] for one in boost], asked):
        assert {one["question"] for one in told} <= set(CHOICES)
        for one in told:
            assert one.get("choices") == (CHOICES[one["question"]][1] if column else None)
            assert set(one) - {"choices"} == {"question", "answer"}
    for name in ("annotate", "knowledge_points", "link", "multi_grade", "high_difficulty"):
        assert "choices" in prompts.template(name, "en")
        assert "选项" in prompts.template(name, "zh")


@pytest.mark.parametrize("n", [0, -1, 2.5, "9", True])
def test_a_number_of_questions_that_is_none_asks_for_nothing(n):
    with pytest.raises(ValueError, match=r"n=.*; allowed: a whole number from 1, or None"):
        linkqa.synthesise(requests(PATHS, JOINED), None, None, n)


@pytest.mark.parametrize("target", [{"H6": 1.0}, {"H3": 0.0}, {"H3": 2.0, "H4": -1.0}, {}])
def test_a_target_of_unknown_or_no_levels_is_refused(target):
    made = pd.DataFrame({"asked_discipline": ["physics"], "asked_difficulty": ["H3"], "difficulty": ["H3"]})
    with pytest.raises(ValueError, match=r"targets\['physics'\]=.*; allowed: shares of H1, H2, H3, H4, H5"):
        linkqa.control(made, {"physics": target})


# --- The stage -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def offline():
    """The URL of the smoke profile's own teacher, started once."""
    with local_teacher(PROFILES["smoke"].textbook) as url:
        yield url


@pytest.fixture
def run(offline, tmp_path, monkeypatch):
    """A function that opens a run in which half of the seeds spell their first knowledge point another way."""
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("OPENAI_BASE_URL", offline)

    def opened(**dials):
        dials = {"plan.questions": 12} | dials
        run = open_run("edges", profile="smoke", change=True, **dials)
        stages.exams(run)
        stages.seeds(run)
        if run.manifest("annotate") is None:
            table = stages.annotate(run).seeds
            odd = [
                [f"the {kps[0]}", *kps[1:]] if i % 2 else list(kps) for i, kps in enumerate(table["knowledge_points"])
            ]
            table = table.assign(knowledge_points=odd)
            cells = table[["discipline", "difficulty"]].drop_duplicates().assign(budget=1, deficit=0.2)
            staged("annotate", reads=("seeds",))(lambda run, folder: {"seeds": table})(run)
            staged("plan", reads=("annotate",))(lambda run, folder: {"budget": cells})(run)
        return run

    return opened


def test_the_stage_merges_spellings_and_then_what_a_reviewed_file_says(run, tmp_path):
    first = run()
    proposed = tables.merges(first)
    sure = proposed["decision"] == "merge"
    assert sure.sum() > 10
    assert proposed.loc[sure, "reason"].eq("spelling").all()
    asked = set(proposed.loc[~sure, ["kept", "merged"]].stack())
    assert "动能" in asked
    english = min(asked & {"kinetic energy", "the kinetic energy"})  # as most questions of this draw write it
    out = stages.synthesise(first, "linkqa")
    names = set(KPGraph.load(out.graph).names)
    assert not names & set(proposed.loc[sure, "merged"])
    assert {english, "动能"} <= names
    pd.testing.assert_frame_equal(out.merges, proposed, check_dtype=False)

    review = tmp_path / "merges.csv"
    flipped = {"merge": "apart", "review": "merge"}
    out.merges.assign(decision=proposed["decision"].map(flipped)).to_csv(review, index=False)
    said = []
    again = stages.synthesise(run(**{"linkqa.merges": str(review)}), "linkqa", log=said.append)
    names = set(KPGraph.load(again.graph).names)
    assert set(proposed.loc[sure, "merged"]) <= names
    assert len({english, "动能"} & names) == 1
    assert len(again.made) > 0

    stages.synthesise(run(**{"linkqa.merges": str(review)}), "linkqa", log=said.append)
    assert "nothing to do" in said[-1]
    review.write_text(f"kept,merged\n动能,{english}\n", encoding="utf-8")
    edited = stages.synthesise(run(**{"linkqa.merges": str(review)}), "linkqa", log=said.append)
    assert "changed" in said[-2]
    assert edited.merges[["kept", "merged", "decision"]].values.tolist() == [["动能", english, "merge"]]
    assert "content of linkqa.merges" in json.dumps(
        run(**{"linkqa.merges": str(review)}).manifest("linkqa")["settings"]
    )


def test_knowledge_points_that_the_source_carries_are_kept_and_only_the_others_asked_for(run):
    bare = run()
    table = bare.read("seeds").seeds
    assert table["knowledge_points"].isna().all()
    routes = pd.Series([["Maths->Sums->Products"] if i % 3 == 0 else None for i in range(len(table))])
    carrying = staged("seeds")(lambda run, folder: {"seeds": table.assign(knowledge_points=routes)})
    carrying(bare)

    def annotated(**dials):
        again = open_run("edges", profile="smoke", change=True, **{f"annotate.{name}": v for name, v in dials.items()})
        out = stages.annotate(again, log=lambda said: None)
        assert (out.seeds["id"] == table["id"]).all()
        paid = out.seeds["calls"].map(lambda calls: any(c.startswith("knowledge_points/") for c in calls))
        return out.seeds["knowledge_points"].map(list)[:2].tolist()[0], paid

    carries = routes.notna()
    kept, paid = annotated()
    assert (kept, paid.tolist()) == (["Maths->Sums->Products"], (~carries).tolist())
    kept, paid = annotated(levels="leaf", under=("Sums",))
    assert (kept, paid.tolist()) == (["Products"], (~carries).tolist())
    kept, paid = annotated(levels="leaf", under=("elsewhere",))
    assert paid.all()
    kept, paid = annotated(knowledge_points="all")
    assert "Maths->Sums->Products" not in kept
    assert paid.all()
