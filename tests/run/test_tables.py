"""Tables about seeds say what was read, and a folder that is not there is a sentence, not an error."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest

from qatoolkit.graph.kp_graph import KPGraph, build_kp_graph
from qatoolkit.run import tables as views
from qatoolkit.run.profiles import load_profile
from qatoolkit.run.store import open_run
from qatoolkit.run.tables.graph import TAL_ROUTES
from qatoolkit.seeds.read import quality_report, read_seeds

ROWS = [
    {"question": "2 + 2?", "choices": ["4", "5"], "answer": "A", "source": "sums", "subject": "college_physics"},
    {"question": "3 + 2?", "choices": ["4", "5", "6"], "answer": "B", "source": "sums", "subject": "keyboard"},
    {"question": "Even?", "choices": ["4", "5", "6"], "answer": "AC", "source": "sums"},
    {"question": "1 + 1?", "answer": "2", "source": "open"},
    {"question": "", "answer": "2", "source": "open"},
]


@pytest.fixture
def read():
    return read_seeds(ROWS)


def test_sources_show_how_each_was_read(read):
    table = views.seed_sources(read[0], quality_report(*read)).set_index("source")
    assert table["rows"].to_dict() == {"sums": 3, "open": 1}
    assert table["multi_select"].to_dict() == {"sums": 1, "open": 0}
    assert table["read_as"].str.startswith("rows, answers by letter").all()


def test_choices_show_the_accuracy_of_guessing_and_where_right_answers_stand(read):
    [row] = views.seed_choices(read[0]).to_dict("records")
    assert (row["source"], row["questions"], row["choices"]) == ("sums", 2, "2 to 3")
    assert row["guessing accuracy"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert [row[f"{letter} share"] for letter in "ABC"] == [0.5, 0.5, 0]
    assert views.seed_choices(read[0].iloc[3:]).empty


def test_subjects_name_the_map_that_knows_most_of_them(read):
    table = views.seed_subjects(read[0]).set_index("source")
    assert table.loc["sums", ["rows", "subjects", "map"]].tolist() == [3, 2, "mmlu"]
    assert table.loc["sums", "map share"] == pytest.approx(1 / 3)
    assert table.loc["sums", "subject share"] == pytest.approx(2 / 3)
    assert pd.isna(table.loc["open", "map"])
    assert table.loc["open", "map share"] == 0


def test_real_seeds_count_every_row_of_the_folder(tmp_path, monkeypatch):
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "mine.jsonl").write_text(lines, encoding="utf-8")
    monkeypatch.setenv("QATOOLKIT_REAL_DATA", str(tmp_path))
    real = views.real_seeds()
    assert real.found
    assert real.quality["count"].sum() == len(real.seeds) + len(real.rejects) == 5
    assert "5 rows in = 4 accepted + 1 rejected" in repr(real.said)


@pytest.mark.parametrize("what", ["unset", "missing", "empty", "broken"])
def test_real_seeds_that_are_not_there_are_a_sentence_and_empty_tables(what, tmp_path, monkeypatch):
    monkeypatch.delenv("QATOOLKIT_REAL_DATA", raising=False)
    if what == "broken":
        (tmp_path / "mine.parquet").write_bytes(b"no Parquet")
    folder = {"unset": None, "missing": tmp_path / "none"}.get(what, tmp_path)
    real = views.real_seeds(folder)
    assert not real.found
    assert real.seeds.empty
    assert real.quality.empty
    assert "QATOOLKIT_REAL_DATA" in repr(real.said)
    assert views.seed_subjects(real.seeds).empty


ROUTES = [
    ["拓展思维->知识点->计数->加法", "拓展思维->知识点->计数->乘法"],
    ["拓展思维->能力->运算求解"],
    ["拓展思维->拓展思维->计算模块"],
]


def test_a_graph_of_real_routes_says_how_many_questions_they_name_no_knowledge_point_of(tmp_path):
    rows = [{"id": f"q{i}", "question": f"{i} + 1?", "answer": "5"} for i in range(len(ROUTES))]
    (tmp_path / "tal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    missing = views.real_graph(tmp_path)
    assert not missing.found
    assert "no labelled knowledge points" in repr(missing.said)
    (tmp_path / "sidecar").mkdir()
    labels = {row["id"]: {"knowledge_point_routes": r} for row, r in zip(rows, ROUTES, strict=True)}
    (tmp_path / "sidecar" / TAL_ROUTES).write_text(json.dumps(labels), encoding="utf-8")
    real = views.real_graph(tmp_path)
    assert set(real.graph.names) == {"计数", "加法", "乘法"}
    said = " ".join(repr(real.said).split())
    assert "questions with routes 3" in said
    assert "routes name a knowledge point 1" in said
    assert "routes name none 2" in said
    assert views.walk_settings(real.graph)["kl_difficulty"].isna().all()  # no source level, so no target


def test_a_name_outside_the_graph_is_refused():
    graph = build_kp_graph(pd.DataFrame({"id": [1], "knowledge_points": [["a", "b"]]}))
    with pytest.raises(ValueError, match="path names 'c', which is not in the graph"):
        views.neighbourhood(graph, ["a", "c"])


def run_of(**stages):
    """What views read of a run: outputs by stage."""
    return SimpleNamespace(read=lambda stage: SimpleNamespace(**stages[stage]))


def test_refinement_that_is_off_has_no_second_answers_and_is_shown_without_them():
    answers = {"teacher_error_rate": 0.15, "wrong_before": 0.2, "wrong_second": None, "wrong_after": 0.2}
    answers |= {"n": 20, "n_second": 0, "n_after": 20}
    table = views.refinement_by_error_rate(run_of(error_rates={"answers": pd.DataFrame([answers])}))
    assert table["stage"].tolist() == ["before", "after"]
    assert table["n"].tolist() == [20, 20]


def test_missed_questions_are_only_those_that_were_missed():
    samples = pd.DataFrame({"id": ["a", "b"], "correct": [True, False], "given": ["x", "y"], "margin": [0.5, -2.0]})
    samples = samples.assign(discipline="law", difficulty="H1")
    seeds = pd.DataFrame([{"id": i, "question": f"{i}?", "answer": "x"} for i in "ab"])
    run = run_of(probe={"samples": samples}, annotate={"seeds": seeds})
    run.profile = load_profile("smoke")
    table = views.missed_questions(run)
    assert table[["question", "model says"]].to_numpy().tolist() == [["b?", "y"]]


def test_data_sets_are_set_side_by_side_by_the_knowledge_points_that_they_cover(smoke):
    run = open_run("smoke", profile="smoke", root=smoke.results)
    table = views.coverage_by_set(run).set_index("dataset")
    assert table.index.tolist() == ["boostqa", "boostqa_untargeted", "linkqa"]
    assert (table["covered"] + table["blind"] == table["points"]).all()
    assert table.loc["linkqa", "inherit"] == 0
    assert table.loc["boostqa", "inherit"] == table.loc["boostqa", "questions"]
    assert len(views.blind_spots(run, "linkqa")) == table.loc["linkqa", "blind"]
    assert len(views.blind_spots(run, "linkqa", ["H1", "H3"])) >= table.loc["linkqa", "none at H1"]
    missing = views.coverage_by_set(run, ["capital", "heat death"]).set_index("dataset")
    assert missing["points"].eq(2).all()
    assert missing["blind"].ge(1).all()


def test_aimed_walks_reach_more_blind_spots_than_as_many_without_an_aim(smoke):
    run = open_run("smoke", profile="smoke", root=smoke.results)
    graph = KPGraph.load(run.read("linkqa").graph)
    table = views.aimed_walks(run, graph, views.blind_spots(run, "linkqa")["knowledge_point"])
    assert table["seed"].nunique() == 5
    assert table["in_reach"].between(1, table["points"]).all()
    assert (table["walks"] == table["in_reach"]).all()
    assert table["aimed"].mean() > table["before"].mean()
    assert table[["before", "aimed"]].le(table["in_reach"], axis=0).all(axis=None)
    assert views.aimed_walks(run, graph, ["heat death"]).empty
