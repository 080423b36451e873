import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from qatoolkit.graph import storage as kpgraph_store
from qatoolkit.graph.kp_graph import KPGraph, build_kp_graph, normalise_kp


def seeds(*kps, **columns):
    return pd.DataFrame({"id": [f"s{i}" for i in range(len(kps))], "knowledge_points": list(kps), **columns})


def weights(graph):
    """Edges as {(kp, kp): weight}, for comparison with counts made by hand."""
    upper = sparse.triu(graph.adjacency, format="coo")
    ends = zip(graph.names[upper.row], graph.names[upper.col], strict=True)
    return {tuple(sorted(pair)): weight for pair, weight in zip(ends, upper.data, strict=True)}


def mapped(array):
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        (" Newton’s  Laws. ", "newton's law"),
        ("Navier–Stokes equations", "navier-stokes equation"),
        ("Ｏｈｍ", "ohm"),
        ("(Ohm's law)", "ohm's law"),
        ("- photosynthesis", "photosynthesis"),
        ("f(x)", "f(x)"),
        ("牛顿第二定律。", "牛顿第二定律"),
        ("《红楼梦》", "红楼梦"),
        ("classes", "class"),
        ("theories", "theory"),
        ("branches", "branch"),
        ("caches", "cache"),
        ("peaches", "peach"),
        ("HTTP cookies", "http cookie"),
        ("matrices", "matrix"),
        ("hypotheses", "hypothesis"),
        ("diseases", "disease"),
        ("x-rays", "x-ray"),
        ("…", ""),
        ("", ""),
    ],
)
def test_spellings_of_one_knowledge_point_meet(raw, normal):
    assert normalise_kp(raw) == normal


@pytest.mark.parametrize(
    "kp",
    ["physics", "mass", "gas", "analysis", "calculus", "species", "lens", "bias", "c++", "n!", "cl-", "john rawls"],
)
def test_what_only_looks_like_a_plural_or_a_mark_stays(kp):
    assert normalise_kp(kp) == kp


@given(st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_normalisation_is_idempotent(text):
    assert normalise_kp(normalise_kp(text)) == normalise_kp(text)


def test_opposites_stay_apart():
    pairs = [("oxidation", "reduction"), ("mitosis", "meiosis"), ("sine", "cosine"), ("bases", "basis")]
    assert all(normalise_kp(a) != normalise_kp(b) for a, b in pairs)


def test_edges_count_seeds_that_hold_both():
    graph = build_kp_graph(seeds(["Force", "Mass"], ["masses", "force", "Energy"], ["energy", "energy"], None, []))
    assert weights(graph) == {("force", "mass"): 2, ("energy", "force"): 1, ("energy", "mass"): 1}
    assert dict(zip(graph.names, graph.popularity, strict=True)) == {"force": 2, "mass": 2, "energy": 2}
    assert (graph.adjacency != graph.adjacency.T).nnz == 0
    assert not graph.adjacency.diagonal().any()
    assert graph.summary()["seeds without KPs"] == 2


def test_graph_agrees_with_a_plain_count_on_random_seeds():
    rng = np.random.default_rng(0)
    table = seeds(*[[f"k{k}" for k in rng.integers(0, 12, rng.integers(0, 7))] for _ in range(200)])
    graph = build_kp_graph(table)
    count, holders = {}, {}
    for seed, kps in zip(table["id"], table["knowledge_points"], strict=True):
        for pair in itertools.combinations(sorted(set(kps)), 2):
            count[pair] = count.get(pair, 0) + 1
            holders.setdefault(pair, []).append(seed)
    assert weights(graph) == count
    upper = sparse.triu(graph.adjacency, format="csr").tocoo()
    for edge, (i, j) in enumerate(zip(upper.row, upper.col, strict=True)):
        row = graph.edge_seeds.indices[graph.edge_seeds.indptr[edge] : graph.edge_seeds.indptr[edge + 1]]
        assert graph.seeds["id"].iloc[row].tolist() == holders[tuple(sorted((graph.names[i], graph.names[j])))]
    ids = graph.adjacency.copy()
    ids.data = graph.edge_ids.astype(float) + 1
    assert (ids != ids.T).nnz == 0
    assert sparse.triu(ids, format="csr").data.tolist() == list(range(1, graph.n_edges + 1))


def test_pmi_weighs_against_popularity_and_drops_chance_pairs():
    graph = build_kp_graph(seeds(["all", "a", "b"], ["all", "a", "b"], ["all", "c"], ["all", "d"]), weight="pmi")
    assert weights(graph) == pytest.approx({("a", "b"): np.log(2 * 4 / (2 * 2))})
    assert set(graph.orphans) == {"all", "c", "d"}


def test_seeds_without_kps_are_no_evidence_for_pmi():
    kps = [["all", "a", "b"], ["all", "a", "b"], ["all", "c"], ["all", "d"]]
    graph = build_kp_graph(seeds(*kps), weight="pmi")
    assert weights(build_kp_graph(seeds(*kps, None, [], ["…"]), weight="pmi")) == weights(graph)


def test_min_count_drops_rare_pairs_and_keeps_their_kps():
    graph = build_kp_graph(seeds(["a", "b"], ["a", "b"], ["b", "c"]), min_count=2)
    assert weights(graph) == {("a", "b"): 2}
    assert graph.orphans == ["c"]
    assert graph.linked_seeds.tolist() == [True, True, False]


def test_rows_with_one_id_are_one_seed():
    table = seeds(["a", "b"], ["a", "b"], ["b", "c"], discipline=["physics", "law", "law"])
    table["id"] = ["x", "x", "y"]
    graph = build_kp_graph(table)
    assert weights(graph) == {("a", "b"): 1, ("b", "c"): 1}
    assert graph.seeds["discipline"].tolist() == ["physics", "law"]


def test_graph_in_pieces_is_counted_by_component():
    graph = build_kp_graph(seeds(["a", "b"], ["c", "d"], ["e"]))
    assert graph.summary()["components"] == 3
    degrees = graph.degrees()
    assert degrees["degree"].tolist() == [1, 1, 1, 1, 0]
    assert degrees.query("kp in ['c', 'd']")["component"].nunique() == 1


def test_one_kp_in_every_seed_is_the_hub():
    graph = build_kp_graph(seeds(*[["hub", f"k{i}"] for i in range(50)]))
    top = graph.degrees().iloc[0]
    assert (top["kp"], top["degree"], top["popularity"]) == ("hub", 50, 50)


@pytest.mark.parametrize(
    ("table", "kps"),
    [(seeds(), 0), (seeds(None, None), 0), (seeds(["only"]), 1), (seeds(["、"]), 0), (seeds([None, "a"]), 1)],
)
def test_graphs_without_an_edge_are_graphs(table, kps, tmp_path):
    graph = build_kp_graph(table)
    assert (len(graph.names), graph.n_edges, graph.summary()["orphan KPs"]) == (kps, 0, kps)
    assert "no edges" in graph._repr_html_()
    assert len(graph.degrees()) == kps
    assert repr(KPGraph.load(graph.save(tmp_path / "graph"))) == repr(graph)


def test_chinese_seeds_keep_their_names():
    graph = build_kp_graph(seeds(["欧姆定律", "电阻"], ["电阻。", "功率"]))
    assert weights(graph) == {tuple(sorted(("欧姆定律", "电阻"))): 1, tuple(sorted(("电阻", "功率"))): 1}


def test_a_null_in_a_list_is_no_knowledge_point():
    nulls = [None, float("nan"), pd.NA, np.float64("nan")]
    assert build_kp_graph(seeds(["a", *nulls, "b"], nulls)).names.tolist() == ["a", "b"]


def test_lists_read_back_from_parquet_give_the_same_graph(tmp_path):
    table = seeds(["a", "b"], None, ["b", "c"])
    table.to_parquet(tmp_path / "seeds.parquet")
    assert weights(build_kp_graph(pd.read_parquet(tmp_path / "seeds.parquet"))) == weights(build_kp_graph(table))


@pytest.mark.parametrize(
    ("table", "settings", "message"),
    [
        (pd.DataFrame({"id": ["a"]}), {}, "missing .*knowledge_points"),
        (seeds("a, b"), {}, "contains str; allowed: lists of text"),
        (seeds(["a", 3]), {}, "lists of int; allowed"),
        (seeds(["a"]).assign(id=None), {}, "id is null in 1 rows"),
        (seeds(["a"])[["id", "id", "knowledge_points"]], {}, r"several columns called \['id'\]; drop or rename"),
        (seeds(["good", "torn \ud83d"]), {}, r"the knowledge point 'torn \\ud83d' contains half a character"),
        (seeds(["a", 2.5]), {}, "lists of float; allowed"),
        (seeds(["a"]), {"weight": "tfidf"}, "weight='tfidf'; allowed: count, pmi"),
        (seeds(["a"]), {"min_count": 0}, "min_count=0; allowed"),
    ],
)
def test_a_wrong_table_or_setting_is_named(table, settings, message):
    with pytest.raises(ValueError, match=message):
        build_kp_graph(table, **settings)


def test_saved_graph_comes_back_whole_and_mapped(tmp_path):
    table = seeds(
        ["a", "b"],
        ["b", "力"],
        None,
        ["c"],
        discipline=["physics", None, "law", "law"],
        difficulty=["H1", "H5", "H1", "H1"],
    )
    graph = build_kp_graph(table, weight="pmi")
    again = KPGraph.load(graph.save(tmp_path / "graph"))
    for name in ("adjacency", "incidence", "edge_seeds"):
        old, new = getattr(graph, name), getattr(again, name)
        assert (old != new).nnz == 0
        assert old.indices.dtype == new.indices.dtype
    assert mapped(again.adjacency.indices)
    assert not mapped(graph.adjacency.indices)
    assert again.names.equals(graph.names)
    pd.testing.assert_frame_equal(again.seeds, graph.seeds)
    assert again.weight == "pmi"


def test_saving_again_replaces_the_graph_and_a_killed_save_is_harmless(tmp_path):
    first, second = build_kp_graph(seeds(["a", "b"])), build_kp_graph(seeds(["c", "d"], ["c", "e"]))
    first.save(tmp_path)
    (tmp_path / "kpgraph-2").mkdir()  # what a save leaves that is killed before its manifest
    (tmp_path / "kpgraph-2" / "adjacency.data.npy").write_bytes(b"half")
    assert weights(KPGraph.load(tmp_path)) == weights(first)
    loaded = KPGraph.load(second.save(tmp_path))
    assert weights(loaded) == weights(second)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "graph.json", "kpgraph-2"]
    assert weights(KPGraph.load(loaded.save(tmp_path))) == weights(second)


def test_graphs_saved_at_once_take_turns_and_a_reader_meets_a_whole_one(tmp_path):
    graphs = [build_kp_graph(seeds(*[["a", "b"]] * times)) for times in (1, 2, 3)]  # alike but for one weight
    graphs[0].save(tmp_path)
    with ThreadPoolExecutor(3) as pool:
        saves = [pool.submit(graph.save, tmp_path) for graph in graphs * 10]
        while not all(save.done() for save in saves):
            loaded = KPGraph.load(tmp_path)
            assert weights(loaded) == {("a", "b"): len(loaded.seeds)}
    assert [save.result() for save in saves] == [tmp_path] * 30


def test_a_graph_that_is_saved_anew_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    first, second = build_kp_graph(seeds(["a", "b"])), build_kp_graph(seeds(["c", "d"]))
    first.save(tmp_path)
    read = kpgraph_store._read_parts

    def slow(data, about):
        if data.name == "kpgraph-1":
            second.save(tmp_path)
        return read(data, about)

    monkeypatch.setattr(kpgraph_store, "_read_parts", slow)
    assert weights(KPGraph.load(tmp_path)) == weights(second)


def test_save_touches_no_foreign_folder_and_load_names_what_is_wrong(tmp_path):
    graph = build_kp_graph(seeds(["a", "b"]))
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"thesis\.txt.*which is not part of a KP graph"):
        graph.save(tmp_path)
    with pytest.raises(FileNotFoundError, match="no saved KP graph"):
        KPGraph.load(tmp_path)
    saved = graph.save(tmp_path / "graph")
    about = json.loads((saved / "graph.json").read_text())
    (saved / "graph.json").write_text(json.dumps(about | {"data": "../.."}))
    with pytest.raises(ValueError, match="not of format"):
        KPGraph.load(saved)
    (saved / "graph.json").write_text(json.dumps(about))
    np.save(saved / about["data"] / "adjacency.indices.npy", np.zeros(1, dtype=np.int32))
    with pytest.raises(ValueError, match="inconsistent lengths"):
        KPGraph.load(saved)


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: (data / "incidence.indptr.npy").write_bytes(b"half"),
        lambda data: (data / "incidence.indptr.npy").write_bytes(b""),
        lambda data: (data / "edge_seeds.data.npy").unlink(),
        lambda data: (data / "seeds.parquet").write_bytes(b"half"),
        lambda data: pd.DataFrame({"kp": ["a"]}).to_parquet(data / "names.parquet"),
        lambda data: pd.DataFrame({"name": ["a", "b"]}).to_parquet(data / "names.parquet"),
        lambda data: pd.read_parquet(data / "seeds.parquet")[:0].to_parquet(data / "seeds.parquet"),
    ],
)
def test_a_damaged_graph_is_named_and_saving_again_mends_it(harm, tmp_path):
    graph = build_kp_graph(seeds(["a", "b"], ["a", "b"]))
    harm(graph.save(tmp_path) / "kpgraph-1")
    with pytest.raises(ValueError, match=r"is damaged \(.*\); build and save the graph again"):
        KPGraph.load(tmp_path)
    assert weights(KPGraph.load(graph.save(tmp_path))) == weights(graph)


@pytest.mark.parametrize("content", ["{half", "[1]", "null"])
def test_an_unreadable_manifest_is_named(content, tmp_path):
    (build_kp_graph(seeds(["a", "b"])).save(tmp_path) / "graph.json").write_text(content)
    with pytest.raises(ValueError, match=r"not of format .* save it in a new folder"):
        KPGraph.load(tmp_path)


TORN = pd.Series(["a", "torn \ud83d"], dtype=object)


@pytest.mark.parametrize("columns", [{"id": [1, "one"]}, {"discipline": ["law", 3]}, {"id": TORN}])
def test_ids_and_labels_that_cannot_be_saved_are_refused_before_anything_is_written(columns, tmp_path):
    graph = build_kp_graph(seeds(["a", "b"], ["b", "c"]).assign(**columns))
    with pytest.raises(ValueError, match="ids or labels of the seeds cannot be saved"):
        graph.save(tmp_path / "graph")
    assert not (tmp_path / "graph").exists()


def test_reprs_say_what_is_there_and_escape_names():
    graph = build_kp_graph(seeds(["<script>alert(1)</script>", "b"], ["<b>lonely</b>"]))
    assert repr(graph) == "KPGraph(3 KPs, 1 edges by count, 2 seeds, 2 components, 1 orphans)"
    shown = graph._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "<b>lonely" not in shown


def test_networkx_graph_has_the_same_edges():
    graph = build_kp_graph(seeds(["a", "b"], ["a", "b", "c"], ["d"]))
    other = graph.to_networkx()
    assert {tuple(sorted(e)): w for *e, w in other.edges(data="weight")} == weights(graph)
    assert other.nodes["a"]["popularity"] == 2
    assert "d" in other


def test_building_stays_vectorised():
    rng = np.random.default_rng(0)
    names = np.array([f"knowledge point {i}" for i in range(20_000)], dtype=object)
    table = seeds(*names[rng.zipf(1.3, (50_000, 4)) % len(names)].tolist())
    start = time.process_time()
    graph = build_kp_graph(table)
    # about 0.3 s here; a Python loop over pairs takes far longer at 1M
    assert time.process_time() - start < 5
    assert graph.popularity.sum() == sum(len(set(kps)) for kps in table["knowledge_points"])
