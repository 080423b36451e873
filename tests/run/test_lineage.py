"""Every question of the smoke run can be explained back to its seeds and calls, and every call is paid for by some question."""

import itertools
import math

import pandas as pd
import pytest

from qatoolkit.graph.kp_graph import KPGraph
from qatoolkit.graph.walks import path_diagnostics, sample_paths
from qatoolkit.run import lineage as provenance
from qatoolkit.run import stages
from qatoolkit.run import tables as views
from qatoolkit.run.lineage import cost_per_question, lineage
from qatoolkit.run.stages.variants import REFERENCE, ablation_name
from qatoolkit.run.store import MissingUpstream, open_run
from qatoolkit.teacher.ledger import Ledger
from qatoolkit.teacher.prices import price_of
from qatoolkit.teacher.settings import Price


@pytest.fixture
def run(smoke, monkeypatch):
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(smoke.results))
    return open_run(None, profile="smoke")


@pytest.fixture
def ledger(smoke):
    with Ledger(smoke.results / "ledger.sqlite") as ledger:
        yield ledger


def test_a_refined_question_shows_its_seed_its_calls_and_its_checks(run):
    table = run.read("boostqa").questions
    disputed = table[table["decided"] == "refined"].iloc[0]
    found = lineage(run, disputed["id"])
    assert found.seeds["id"].tolist() == list(disputed["parents"])
    assert found.calls["step"].tolist()[:3] == ["write", "annotate", "refine"]
    assert (found.calls["step"] == "solve").sum() == run.profile.boostqa.samples
    assert found.calls["response"].notna().all()
    steps = found.steps.set_index("step")["result"]
    assert repr(disputed["first_answer"]) in steps["refined"]
    assert "curated" in steps
    assert disputed["question"] in repr(found)
    html = found._repr_html_()
    assert "<script" not in html
    assert "Task: high_difficulty" in html or "Task: multi_grade" in html
    assert found.cost == 0.0


def test_a_linked_question_shows_all_its_seeds(run):
    row = run.read("linkqa").questions.iloc[0]
    found = lineage(run, row["id"])
    assert set(found.seeds["id"]) == set(row["parents"])
    assert 2 <= len(found.seeds) <= 4


def test_a_seed_and_a_rejected_question_have_a_lineage_too(run):
    seed = run.read("annotate").seeds.iloc[0]
    found = lineage(run, seed["id"])
    assert found.calls["step"].tolist() == ["annotate", "knowledge_points"]
    assert found.steps["step"].iloc[0] == "labelled"
    rejects = run.read("boostqa").rejects
    rejects = rejects[rejects["reason"].isin(("degraded", "degraded_again"))]
    fallen = lineage(run, rejects["id"].iloc[0])
    assert fallen.steps["step"].iloc[-1] == "rejected"


def test_an_unknown_id_is_explained(run):
    with pytest.raises(ValueError, match="no stage of 'smoke' knows a question with id 'nonsense'"):
        lineage(run, "nonsense")


@pytest.mark.parametrize("datasets", [("boostqa",), ("boostqa_untargeted",), ("linkqa",)])
def test_no_call_of_a_synthesis_is_left_unattributed(run, ledger, datasets):
    calls = pd.concat([provenance.rows_of(run, dataset)["calls"].explode() for dataset in datasets])
    keys = set(calls.dropna().str.split("/").str[1])
    attempts = ledger.attempts()
    assert keys >= set(attempts.loc[attempts["stage"] == datasets[-1], "key"])


def test_the_costs_of_strategies_add_up_to_those_of_the_calls(run, ledger):
    table = cost_per_question(run)
    for dataset, ours in table.groupby("dataset"):
        calls = provenance.rows_of(run, dataset)["calls"].explode().dropna()
        keys = set(calls.str.split("/").str[1])
        costs = ledger.costs(keys)
        assert set(costs["key"]) == keys
        assert ours["requests"].sum() == pytest.approx(len(keys), abs=len(ours))
        for count in ("attempts", "prompt_tokens", "completion_tokens"):
            assert ours[count].sum() == pytest.approx(costs[count].sum(), abs=len(ours)), (dataset, count)


def test_a_call_that_wrote_several_questions_is_shared_among_them(run):
    made = run.read("boostqa").made
    first = made["calls"].str[0]
    several = first[first.duplicated(keep=False)].iloc[0]
    ids = made.loc[first == several, "id"]
    rows = provenance.rows_of(run, "boostqa")
    bearers = rows["calls"].map(lambda calls: several in list(calls)).sum()
    for id in ids:
        calls = lineage(run, id).calls
        assert calls.loc[calls["key"] == several.split("/")[1], "share"].iloc[0] == pytest.approx(1 / bearers)


def test_costs_can_be_put_at_the_list_price_of_another_model(run):
    priced = {"textbook-err15": "deepseek-reasoner", "textbook-err05": "deepseek-chat"}
    free, paid = cost_per_question(run), cost_per_question(run, priced_as=priced)
    assert (free["usd"] == 0).all()
    assert (paid["usd"] > 0).all()
    price: Price = price_of("deepseek-reasoner")
    most = paid["prompt_tokens"] * price.input + paid["completion_tokens"] * price.output
    assert (paid["usd"] <= most / 1e6 + 1e-6).all()
    assert paid["usd_per_accepted"].iloc[0] == pytest.approx(paid["usd"].iloc[0] / paid["accepted"].iloc[0])
    with pytest.raises(ValueError, match=r"'nobody', which is not in prices\.csv"):
        cost_per_question(run, priced_as={"textbook-err15": "nobody"})


def test_refinement_is_counted_at_three_error_rates(run):
    table = views.refinement_by_error_rate(run)
    assert table["teacher_error_rate"].unique().tolist() == [0.05, 0.15, 0.30]
    wrong = table.pivot(index="teacher_error_rate", columns="stage", values="wrong")
    assert (wrong["after"] < wrong["before"]).all()
    assert table[["low", "high"]].notna().all(axis=None)
    assert run.read("error_rates").levels["asked_share"].between(0, 1).all()


def test_what_the_views_say_of_the_run_adds_up(run):
    shares = views.plan_shares(run)
    assert (shares["questions"] == run.profile.plan.questions).all()
    pooled = views.probe_summary(run).set_index(["field", "level"])["n"]
    assert pooled["all", "all"] == pooled["STEM", "all"] + pooled["other", "all"]
    assert pooled["all", "all"] == pooled["all", "H1-H3"] + pooled["all", "H4-H5"]
    assert (views.missed_questions(run)["margin"] < 0).all()
    counted = views.confusion(run, "grade").to_numpy().sum()
    assert counted == views.agreement(run).set_index(["label", "language"]).loc[("grade", "all"), "n"]
    again = views.annotation_estimate(run)
    assert again["requests"] == again["answered"] == 2 * len(run.read("seeds").seeds)  # labels and knowledge points
    assert math.isclose(again["usd"], 0.0)


def test_walks_and_difficulties_follow_the_dials(run):
    graph = KPGraph.load(run.read("linkqa").graph)
    control = stages.walk_control(run, difficulty={"H4": 0.5, "H5": 0.5}, n=300).walks
    assert control["kl"].iloc[1] < control["kl"].iloc[0]
    settings = views.walk_settings(graph).set_index("walks")
    assert settings.loc["coverage", "coverage"] > settings.loc["popularity", "coverage"]
    assert settings["kl_difficulty"].idxmin() == "coverage, even targets"
    counts = views.difficulty_counts(run)
    assert counts["accepted"].sum() == len(run.read("linkqa").questions)
    assert (counts.loc[["H1", "H2"], "asked"] == 0).all()
    target = {"physics": {"H4": 0.5, "H5": 0.5}}
    assert views.adjustment_estimate(run, target, n=60)["requests"] > 0
    table = stages.adjustment(run, adjust=target, n=60).levels
    kl = table.groupby("difficulties")["kl"].first()
    assert kl["adjusted"] < kl["plan"]


def test_coverage_grows_with_the_paths_sampled(run):
    graph = KPGraph.load(run.read("linkqa").graph)
    table = views.coverage(run, graph)
    assert set(table["policy"]) == {"balanced", "popularity", "coverage", "uniform"}
    for _, rows in table.groupby("policy"):
        assert rows["coverage"].is_monotonic_increasing
    n = int((graph.degree > 0).sum())
    walked = sample_paths(graph, n, run.profile.linkqa.length, alpha=0.0, beta=1.0, seed=run.seed)
    last = table[table["policy"] == "coverage"].iloc[-1]
    assert last["paths"] == n
    assert last["coverage"] == path_diagnostics(graph, walked)["coverage"][0]


def test_every_ablation_is_paired_with_its_arm_untouched_and_what_it_shares_is_trained_once(run):
    stored = run.read("ablations")
    table, named = stored.ablations, [ablation_name(dials) for dials in run.profile.ablations]
    assert table.loc[table["on"] == "all", "ablation"].tolist() == named
    assert set(table["arm"]) == {"boostqa", "linkqa"}
    for row in table[table["on"] == "all"].itertuples():
        both = [
            stored.samples.query(f"arm == {row.arm!r} and ablation == {name!r}") for name in (row.ablation, REFERENCE)
        ]
        assert row.difference == pytest.approx(both[0]["correct"].mean() - both[1]["correct"].mean())
        assert row.n == len(both[0]) == len(both[1])
    assert (table["p_holm"] >= table["p"].fillna(1)).all()
    assert len(set(run.manifest("ablations")["uses"])) == len(named) + 2  # one reference per arm


def test_an_ablation_is_a_run_that_shares_what_its_dials_do_not_touch(run):
    other = run.variant("boostqa-midtrain.replay_0.7", {"midtrain.replay": 0.7})
    assert {"base", "boostqa", "curate"} <= set(other.pointers())
    for stage in ("annotate", "boostqa", "exams", "curate"):  # training alone changes, so nothing is curated again
        assert other.stage(stage) == run.stage(stage)
    assert other.place("base", "model") == run.place("base", "model")


def test_a_drawing_shows_a_walk_among_its_strongest_neighbours(run):
    stored = run.read("linkqa")
    graph, walk = KPGraph.load(stored.graph), views.longest_walk(stored.paths)
    drawn = views.neighbourhood(graph, walk, most=12)
    assert len(drawn) <= 12
    assert set(walk) <= set(drawn)
    assert all(drawn.has_edge(a, b) for a, b in itertools.pairwise(walk))


def test_a_run_without_a_synthesis_says_which_notebook_makes_one(tmp_path, monkeypatch):
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path))
    with pytest.raises(MissingUpstream, match="04_boostqa"):
        cost_per_question(open_run("fresh", profile="smoke"))
