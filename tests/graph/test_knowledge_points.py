"""Knowledge points from sources and teachers, and seeds at the edge of what a graph can hold."""

import json
import warnings

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from conftest import REAL
from scipy import sparse

import qatoolkit as qt
from qatoolkit.graph.knowledge_points import kps_from_column
from qatoolkit.graph.kp_graph import KPGraph, build_kp_graph
from qatoolkit.graph.walks import path_diagnostics, sample_paths
from qatoolkit.seeds.read import read_seeds
from qatoolkit.synthesis import knowledge_points

ROUTES = REAL / "sidecar" / "tal_scq5k_knowledge_points.json"
needs_routes = pytest.mark.skipif(not ROUTES.exists(), reason=f"no {ROUTES}; set QATOOLKIT_REAL_DATA")


def seeds(*kps, **columns):
    return pd.DataFrame({"id": [f"s{i}" for i in range(len(kps))], "knowledge_points": list(kps), **columns})


def assert_same(a: KPGraph, b: KPGraph):
    assert a.names.equals(b.names)
    assert (a.weight, a.min_count) == (b.weight, b.min_count)
    pd.testing.assert_frame_equal(a.seeds, b.seeds)
    for name in ("adjacency", "incidence", "edge_seeds"):
        one, other = getattr(a, name), getattr(b, name)
        assert one.shape == other.shape
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))
            assert getattr(one, part).dtype == getattr(other, part).dtype


# --- What a source carries -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "settings", "points"),
    [
        ("Force; Mass", {"separator": ";"}, ["Force", "Mass"]),
        ("Force; Mass", {}, ["Force; Mass"]),
        ("力、质量", {"separator": "、"}, ["力", "质量"]),
        (["Force", " masses", "Mass", ""], {}, ["Force", "masses"]),
        (np.array(["a", None], dtype=object), {}, ["a"]),
        (["a", pd.NA, float("nan")], {}, ["a"]),
        ("A->B->", {"levels": "leaf"}, ["B"]),
        ("A-> ->B->->", {"levels": 2}, ["A", "B"]),
        ("Algebra->Equations->Roots", {}, ["Algebra->Equations->Roots"]),
        ("Algebra->Equations->Roots", {"levels": "leaf"}, ["Roots"]),
        ("Algebra->Equations->Roots", {"levels": "all"}, ["Algebra", "Equations", "Roots"]),
        ("Algebra->Equations->Roots", {"levels": 2}, ["Equations", "Roots"]),
        (["A->B->C", "A->D"], {"levels": "all"}, ["A", "B", "C", "D"]),
        (["A->KP->C", "A->skill->D"], {"levels": "all", "under": ("KP",)}, ["C"]),
        (["A->KP"], {"levels": "leaf", "under": ("KP",)}, None),
        *((nothing, {}, None) for nothing in (None, float("nan"), pd.NA, "", [], ["…"])),
        (" ; ", {"separator": ";"}, None),
    ],
)
def test_a_cell_becomes_knowledge_points(cell, settings, points):
    table = pd.DataFrame({"id": ["x"], "source_kps": pd.Series([cell], dtype=object)})
    assert kps_from_column(table, "source_kps", **settings)["knowledge_points"].tolist() == [points]


def test_rows_without_keep_what_they_had_and_the_table_itself_stays():
    table = seeds(["had"], None, ["had"], theorem=["Lah number", None, None])
    done = kps_from_column(table, "theorem")
    assert done["knowledge_points"].tolist() == [["Lah number"], None, ["had"]]
    assert table["knowledge_points"].tolist() == [["had"], None, ["had"]]
    assert qt.kps_from_column is kps_from_column


@pytest.mark.parametrize(
    ("column", "settings", "message"),
    [
        ("kps", {}, r"no column 'kps'.*there are \['id'"),
        ("other", {}, r"other in row 0 is of type int; allowed: a text, a list of texts, or null"),
        ("lists", {}, r"lists in row 0 is a list of int"),
        ("id", {"separator": ""}, "separator=''; allowed: a text of one character or more"),
        ("id", {"separator": [";", "；"]}, "separator=.*; allowed: a text"),
        ("twice", {}, "several columns called 'twice'; drop or rename all but one"),
        ("id", {"levels": "top"}, "levels='top'; allowed: 'leaf', 'all', a whole number"),
        ("id", {"levels": 0}, "levels=0; allowed"),
        ("id", {"levels": True}, "levels=True; allowed"),
        ("id", {"levels": 1, "under": "KP"}, "under='KP'; allowed: several steps"),
        ("id", {"under": ("KP",)}, "applies to routes; give levels"),
    ],
)
def test_a_wrong_column_or_setting_is_named(column, settings, message):
    table = seeds(["a"], other=[3], lists=[[1]], twice=["a"], again=["b"]).rename(columns={"again": "twice"})
    with pytest.raises(ValueError, match=message):
        kps_from_column(table, column, **settings)


def test_seeds_keep_the_column_and_a_mapping_names_any_other():
    item = {"question": "What is 6 times 7?", "answer": "42"}
    record = item | {"knowledge_point_routes": ["Maths->Arithmetic->Products"]}
    table, _ = read_seeds([record])
    assert table["knowledge_points"].tolist() == [["Maths->Arithmetic->Products"]]
    assert kps_from_column(table, "knowledge_points", levels="leaf")["knowledge_points"].tolist() == [["Products"]]
    for cell, points in [("product; sum", ["product; sum"]), ('["product", "sum"]', ["product", "sum"]), (None, None)]:
        table, _ = read_seeds([item | {"meta": {"theorem": cell}}], mapping={"knowledge_points": "meta.theorem"})
        assert table["knowledge_points"].tolist() == [points]
    assert read_seeds([item])[0]["knowledge_points"].tolist() == [None]


@needs_routes
def test_real_routes_make_a_graph_of_real_knowledge_points(tmp_path):
    routes = json.loads(ROUTES.read_text(encoding="utf-8"))
    lines = (REAL / "tal_scq5k_zh_train.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        record["knowledge_point_routes"] = routes[record["id"]]["knowledge_point_routes"]
    table, _ = read_seeds(records)
    assert table["knowledge_points"].notna().mean() > 0.9
    done = kps_from_column(table, "knowledge_points", levels="all", under=("知识点", "Knowledge Point"))
    points = set(done["knowledge_points"].dropna().explode())
    leaves = kps_from_column(table, "knowledge_points", levels="leaf")
    assert not any("->" in point for point in leaves["knowledge_points"].dropna().explode())
    assert not any("->" in point or point == "知识点" for point in points)
    graph = build_kp_graph(leaves)
    assert graph.n_edges > 100
    assert_same(KPGraph.load(graph.save(tmp_path / "graph")), graph)


# --- What a teacher names ------------------------------------------------------------------------------


def test_one_to_six_different_points_are_taken():
    assert knowledge_points._read_points('{"knowledge_points": ["Force", " forces", "Mass."]}') == ["Force", "Mass."]
    six = [f"kp {i}" for i in range(6)]
    assert knowledge_points._read_points(json.dumps({"knowledge_points": [*six, "KP 0"]})) == six
    assert knowledge_points._read_points('{"knowledge_points": ["one"]}') == ["one"]


@pytest.mark.parametrize(
    ("points", "told"),
    [
        ([], r"names 0 different knowledge points; name the 2 to 6"),
        ([f"kp {i}" for i in range(7)], r"names 7 different knowledge points; name the 2 to 6"),
        (["a", " "], "non-empty list of texts"),
        (["a", "…"], "non-empty list of texts"),
        (["a", 1], "non-empty list of texts"),
        ("a", "non-empty list of texts"),
    ],
)
def test_too_many_or_no_points_are_told_to_the_model(points, told):
    with pytest.raises(ValueError, match=told):
        knowledge_points._read_points(json.dumps({"knowledge_points": points}))


# --- Seeds at the edge ---------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [seeds(), seeds(None, None), seeds(["only"]), seeds(["a"], ["b"])])
def test_graphs_without_an_edge_travel_and_say_why_they_cannot_be_walked(table, tmp_path):
    graph = build_kp_graph(table)
    with pytest.raises(ValueError, match="no edge; give seeds with two or more KPs"):
        sample_paths(graph, 3, 3)
    nx.write_graphml(graph.to_networkx(), tmp_path / "g.graphml")
    assert set(nx.read_graphml(tmp_path / "g.graphml")) == set(graph.names)


def test_walks_pass_a_kp_of_every_seed_once_and_reach_the_others_through_it():
    graph = build_kp_graph(seeds(*[["hub", f"k{i}"] for i in range(50)]))
    paths = sample_paths(graph, 300, 4, alpha=0.0, beta=1.0, seed=0)
    assert all(path.count("hub") == 1 for path in paths["kps"])
    assert path_diagnostics(graph, paths)["coverage"].item() == 1.0
    assert build_kp_graph(seeds(["hub", "a"], ["hub", "b"]), weight="pmi").n_edges == 0  # no more than chance


def test_walks_in_a_graph_in_pieces_reach_every_piece_and_cross_none():
    graph = build_kp_graph(seeds(["a", "b"], ["c", "d"], ["e", "f", "g"], ["alone"]))
    paths = sample_paths(graph, 200, 5, seed=0)
    piece = dict(zip(graph.names, graph.components, strict=True))
    assert all(len({piece[kp] for kp in path}) == 1 for path in paths["kps"])
    assert {kp for path in paths["kps"] for kp in path} == set("abcdefg")


def test_duplicated_seeds_count_once_and_are_drawn_as_one():
    table = pd.concat([seeds(["a", "b"], ["b", "c"])] * 3, ignore_index=True)
    graph = build_kp_graph(table)
    assert_same(graph, build_kp_graph(table[:2]))
    paths = sample_paths(graph, 20, 3, seed=0)
    assert {seed for drawn in paths["seeds"] for seed in drawn} == {"s0", "s1"}
    assert all(len(drawn) == len(set(drawn)) for drawn in paths["seeds"])


def test_chinese_seeds_alone_make_graph_walks_and_export(tmp_path):
    table = seeds(["欧姆定律", "电阻"], ["电阻", "电功率", "电流"], ["电流", "电压"], discipline=["physics"] * 3)
    graph = build_kp_graph(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = sample_paths(graph, 30, 3, discipline={"physics": 1.0}, seed=0)
    assert {kp for path in paths["kps"] for kp in path} == set(graph.names)
    assert "电阻" in graph._repr_html_()
    nx.write_graphml(graph.to_networkx(), tmp_path / "图.graphml")
    back = nx.read_graphml(tmp_path / "图.graphml")
    assert nx.get_node_attributes(back, "popularity")["电阻"] == 2
    assert back.edges["电阻", "欧姆定律"]["weight"] == 1.0
    assert set(back) == set(graph.names)
    upper = sparse.triu(graph.adjacency)
    assert upper.nnz == graph.n_edges == 5
