"""The coverage ledger counts every question for its knowledge points once, and walks aimed at blind spots reach more of
them."""

import numpy as np
import pandas as pd
import pytest

import qatoolkit as qt
from qatoolkit.core.settings import list_places
from qatoolkit.graph.coverage import blind_spots, kps_of_questions, reachable_kps, read_syllabus
from qatoolkit.graph.kp_graph import build_kp_graph
from qatoolkit.graph.walks import KnowledgeValue, sample_paths
from qatoolkit.run.profiles import Profile
from qatoolkit.synthesis.linkqa import walk
from qatoolkit.synthesis.settings import LinkQASettings

SEEDS = pd.DataFrame(
    {
        "id": ["s1", "s2", "s3", "s4"],
        "knowledge_points": [["Newton's Laws", "Colour"], ["Newton’s law", "energy"], ["entropy"], None],
    }
)
ACCEPTED = pd.DataFrame(
    {
        "knowledge_points": [["newton's law", "color"], None, [], None],
        "parents": [["s3"], ["s2", "s1"], ["s4"], None],
        "difficulty": ["H3", "H5", "H1", "H1"],
    }
)


@pytest.fixture(scope="module")
def ledger():
    return qt.coverage(SEEDS, ACCEPTED).set_index("knowledge_point")


def test_spelling_variants_are_one_point_and_counted_once_per_question(ledger):
    assert ledger.index.tolist() == ["Newton's Laws", "Colour", "energy", "entropy"]
    assert ledger["seeds"].tolist() == [2, 1, 1, 1]
    assert ledger["questions"].tolist() == [2, 2, 1, 0]


def test_a_question_with_points_of_its_own_inherits_none(ledger):
    assert ledger["inherited"].tolist() == [1, 1, 1, 0]  # the second question alone; the first one's parent has entropy
    points = kps_of_questions(ACCEPTED, SEEDS)
    assert points["inherited"].tolist() == [False, True, False, False]
    assert points["knowledge_points"].tolist()[2:] == [[], []]


def test_levels_add_up_to_the_questions(ledger):
    assert ledger[["H1", "H2", "H3", "H4", "H5"]].sum(axis=1).tolist() == ledger["questions"].tolist()
    assert ledger.loc["Colour", ["H3", "H5"]].tolist() == [1, 1]


def test_blind_spots_are_points_without_a_question_or_without_one_at_a_level(ledger):
    table = ledger.reset_index()
    assert blind_spots(table)["knowledge_point"].tolist() == ["entropy"]
    assert blind_spots(table, ["H3", "H5"])["knowledge_point"].tolist() == ["energy", "entropy"]
    with pytest.raises(ValueError, match="levels has 'H6'; allowed: H1, H2, H3, H4, H5"):
        blind_spots(table, ["H6"])


def test_a_syllabus_is_a_list_or_a_file_and_its_spelling_is_shown(tmp_path):
    names = ["colors", "Heat", "newton's laws", "Heat "]
    table = qt.coverage(SEEDS, ACCEPTED, names).set_index("knowledge_point")
    inside = table[table["in_syllabus"]]
    assert inside["in_seeds"].to_dict() == {"newton's laws": True, "colors": True, "Heat": False}
    assert inside["questions"].to_dict() == {"newton's laws": 2, "colors": 2, "Heat": 0}
    assert table.loc["entropy", "in_syllabus"] == False  # noqa: E712, a numpy bool
    file = tmp_path / "syllabus.csv"
    pd.DataFrame({"week": range(4), "knowledge_point": names}).to_csv(file, index=False)
    pd.testing.assert_frame_equal(qt.coverage(SEEDS, ACCEPTED, file).set_index("knowledge_point"), table)


def test_reviewed_merges_decide_in_place_of_spellings():
    merges = pd.DataFrame({"kept": ["energy"], "merged": ["entropy"]})
    table = qt.coverage(SEEDS, ACCEPTED, merges=merges).set_index("knowledge_point")
    assert table.loc["energy", ["seeds", "questions"]].tolist() == [2, 1]
    assert {"Colour", "color"} <= set(table.index)


@pytest.mark.parametrize(
    ("syllabus", "says"), [([], "names no knowledge point"), (["Heat", 3], "syllabus has 3"), ([" . "], "names no")]
)
def test_a_syllabus_without_names_is_refused(syllabus, says):
    with pytest.raises(ValueError, match=says):
        read_syllabus(syllabus)


@pytest.fixture(scope="module")
def graph():
    """200 points in a ring of seeds, of which the first twenty are in most seeds."""
    rng = np.random.default_rng(0)
    kps = [[f"k{i}", f"k{(i + 1) % 200}", f"k{rng.integers(20)}"] for i in range(200)]
    seeds = pd.DataFrame({"id": [f"s{i}" for i in range(200)], "knowledge_points": kps})
    return build_kp_graph(seeds.assign(language="en", discipline="physics", difficulty="H1"))


def test_walks_without_an_aim_and_with_one_that_prefers_nothing_are_the_same(graph):
    plain, even = (sample_paths(graph, 60, 4, seed=3, aim=aim) for aim in (None, {"k5": 1.0}))
    pd.testing.assert_frame_equal(plain, even)


def test_value_is_multiplied_by_the_weight_of_the_point(graph):
    value, aimed = (KnowledgeValue(graph, alpha=0.5, aim=aim)(0) for aim in (None, {"K150": 8.0, "k151": 0.5}))
    ratio = pd.Series(aimed / value, graph.names)
    assert ratio["k150"] / ratio["k0"] == pytest.approx(8.0)
    assert ratio["k151"] / ratio["k0"] == pytest.approx(0.5)


def test_as_many_walks_reach_more_of_what_they_are_aimed_at(graph):
    blind = {f"k{i}" for i in range(100, 140)}
    reached = []
    for seed in range(5):
        paths = [sample_paths(graph, 40, 4, seed=seed, aim=aim) for aim in (None, dict.fromkeys(blind, 8.0))]
        reached.append([len(blind & set(table["kps"].explode())) for table in paths])
    before, after = np.array(reached).T
    assert (after > before).all()
    assert after.mean() > 1.3 * before.mean()


@pytest.mark.parametrize("aim", [{"k1": 0.0}, {"k1": float("nan")}, ["k1"], {"elsewhere": 2.0}])
def test_an_aim_that_can_not_be_followed_is_refused(graph, aim):
    with pytest.raises(ValueError, match="aim"):
        sample_paths(graph, 5, 3, aim=aim)


def test_the_walks_of_linkqa_are_aimed_at_the_points_of_a_file(graph, tmp_path):
    file = tmp_path / "blind.csv"
    pd.DataFrame({"knowledge_point": [f"K{i}" for i in range(100, 140)], "questions": 0}).to_csv(file, index=False)
    plan = pd.DataFrame({"discipline": ["physics"], "difficulty": ["H1"], "deficit": [0.1], "budget": [60]})
    share = []
    for settings in (LinkQASettings(), LinkQASettings(aim=str(file), aim_weight=20.0)):
        visits = walk(graph, plan, settings)["kps"].explode()
        share.append(visits.isin([f"k{i}" for i in range(100, 140)]).mean())
    assert share[1] > 1.5 * share[0]
    assert "linkqa.aim" in list_places(Profile)  # so that LinkQA is made again when the file changes
    pd.DataFrame({"knowledge_point": ["heat", *(f"K{i}" for i in range(100, 140))]}).to_csv(file, index=False)
    with pytest.warns(UserWarning, match="1 of the 41 points of linkqa.aim are left out"):
        again = walk(graph, plan, LinkQASettings(aim=str(file), aim_weight=20.0))
    assert again["kps"].explode().tolist() == visits.tolist()
    with pytest.raises(ValueError, match=r"aim is 'gone\.csv'; it must be an existing CSV file"):
        LinkQASettings(aim="gone.csv")


def test_two_points_that_are_linked_with_each_other_alone_are_out_of_reach():
    kps = [["work", "energy"], ["work", "energy"], ["mass", "force"], ["force", "speed"]]
    graph = build_kp_graph(pd.DataFrame({"id": list("abcd"), "knowledge_points": kps}))
    assert sorted(reachable_kps(graph)) == ["force", "mass", "speed"]
