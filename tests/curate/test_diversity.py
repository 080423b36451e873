"""Diversity: compared at equal size, the same for the same set, and lower for a set that repeats itself."""

import random

import numpy as np
import pandas as pd
import pytest

import qatoolkit as qt
from qatoolkit.curate.diversity import COLUMNS, diversity


def made(n: int, words: int, seed: int = 0, **columns) -> pd.DataFrame:
    chance = random.Random(seed)
    known = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(words)]
    rows = [{"question": " ".join(chance.choices(known, k=12)), "answer": chance.choice(known)} for _ in range(n)]
    return pd.DataFrame(rows).assign(**columns)


def test_a_set_and_a_sample_of_it_look_the_same_though_one_is_ten_times_larger():
    large = made(4000, 600)
    found = diversity({"large": large, "part": large.sample(400, random_state=1)}).set_index("set")
    assert found["compared_tokens"].nunique() == found["compared_rows"].nunique() == 1
    for column in ("distinct_1", "distinct_2", "distinct_3"):
        assert found.loc["large", column] == pytest.approx(found.loc["part", column], rel=0.03)
    assert found.loc["part", "low"] < found.loc["large", "self_similarity"] < found.loc["part", "high"]
    naive = large["question"].str.split().explode().nunique() / (12 * len(large))
    assert naive < found.loc["large", "distinct_1"] / 5  # without equal tokens the larger set would look poorer


def test_fewer_words_and_repeated_questions_are_less_varied():
    varied = made(300, 600)
    found = diversity({"varied": varied, "few words": made(300, 40), "twice": pd.concat([varied[:150]] * 2)})
    found = found.set_index("set")
    for other in ("few words", "twice"):
        assert (found.loc[other, ["distinct_1", "distinct_2", "distinct_3"]] < found.loc["varied", ["distinct_1", "distinct_2", "distinct_3"]]).all()  # fmt: skip
    assert found.loc["twice", "self_similarity"] == 1
    assert found.loc["varied", "self_similarity"] < 0.2


def test_n_grams_do_not_cross_rows():
    table = pd.DataFrame({"question": ["a b", "a b", "a b"], "answer": ["c", "c", "c"]})
    found = diversity({"one": table}).iloc[0]
    assert found[["distinct_1", "distinct_2", "distinct_3"]].tolist() == pytest.approx([3 / 9, 2 / 6, 1 / 3])


def test_entropy_is_in_nats_over_cells_and_its_maximum_is_all_cells():
    labels = {"discipline": ["physics", "physics", "law", "law"], "difficulty": ["H1", "H2", "H1", None]}
    found = diversity({"even": made(4, 9, **labels), "none": made(4, 9)}).set_index("set")
    assert found.loc["even", "entropy"] == pytest.approx(np.log(3))
    assert found.loc["even", "entropy_share"] == pytest.approx(
        np.log(3) / np.log(len(qt.core.taxonomy.DISCIPLINES) * 5)
    )
    assert np.isnan(found.loc["none", "entropy"])


def test_coverage_is_the_share_of_the_seeds_knowledge_points():
    seeds = made(2, 9, knowledge_points=[["Ohm's law", "charge"], ["torque", "Work"]])
    other = made(3, 9, knowledge_points=[["ohm's law"], None, ["work", "entropy"]])
    found = diversity({"seeds": seeds, "other": other, "bare": made(2, 9)}).set_index("set")
    assert found["kp_coverage"].tolist() == [1.0, 0.5, 0.0]
    assert diversity({"other": other})["kp_coverage"].isna().all()


def test_empty_sets_have_a_row_and_wrong_tables_are_named():
    found = diversity({"empty": made(3, 9)[:0], "one": made(1, 9)}).set_index("set")
    assert found.loc["empty", "rows"] == 0
    assert found.loc["empty", ["distinct_1", "self_similarity"]].isna().all()
    assert list(diversity({}).columns) == COLUMNS
    with pytest.raises(ValueError, match=r"diversity: odd is missing the columns \['answer'\]"):
        diversity({"odd": pd.DataFrame({"id": ["a"], "question": ["b"]})})


def test_the_seed_decides_the_samples():
    tables = {"a": made(500, 60), "b": made(80, 60, seed=1)}
    pd.testing.assert_frame_equal(diversity(tables, seed=3), diversity(tables, seed=3))
    assert not diversity(tables, seed=3).equals(diversity(tables, seed=4))
