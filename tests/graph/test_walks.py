import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare

from qatoolkit.graph.kp_graph import KPGraph, build_kp_graph
from qatoolkit.graph.proposals import Proposals, Threads
from qatoolkit.graph.walks import KnowledgeValue, path_diagnostics, sample_codes, sample_paths

DISCIPLINES = ["mathematics", "physics", "law", "history"]
EVEN = dict.fromkeys(DISCIPLINES, 0.25)


def seeds(*kps, **columns):
    return pd.DataFrame({"id": [f"s{i}" for i in range(len(kps))], "knowledge_points": list(kps), **columns})


@pytest.fixture(scope="module")
def world():
    """1,200 seeds of four disciplines, unequal in size; KPs of Zipf popularity, a tenth of them borrowed."""
    rng = np.random.default_rng(0)
    pop = 1 / np.arange(1, 61) ** 0.8
    rows = []
    for home in rng.choice(4, size=1200, p=[0.6, 0.25, 0.1, 0.05]):
        of = np.where(rng.random(3) < 0.1, rng.choice(4, 3), home)
        drawn = rng.choice(60, 3, p=pop / pop.sum())
        kps = [f"{DISCIPLINES[d]} kp{k}" for d, k in zip(of, drawn, strict=True)]
        rows.append((kps, DISCIPLINES[home], rng.choice(["H1", "H3", "H5"])))
    kps, discipline, difficulty = zip(*rows, strict=True)
    return build_kp_graph(seeds(*kps, discipline=discipline, difficulty=difficulty))


@pytest.fixture(scope="module")
def small():
    """Nine KPs with unequal weights, popularity and labels, small enough to count every step."""
    rng = np.random.default_rng(1)
    kps = [[f"k{k}" for k in rng.choice(9, 3, replace=False, p=np.arange(9, 0, -1) / 45)] for _ in range(60)]
    labels = {"discipline": rng.choice(DISCIPLINES, 60), "difficulty": rng.choice(["H1", "H5", None], 60)}
    return build_kp_graph(seeds(*kps, **labels))


def formula(graph, visits, alpha, beta, discipline=None, focus=None):
    """V(k) written out, KP by KP."""
    table = graph.seeds
    share = table["discipline"].value_counts(normalize=True)
    value = []
    for k, used in enumerate(visits):
        row = slice(*graph.incidence.indptr[k : k + 2])
        holders = table.iloc[graph.incidence.indices[row]]
        v = len(holders) ** float(alpha) * (1.0 + used) ** -beta
        if discipline:
            v *= np.mean([discipline.get(d, 0) / share[d] for d in holders["discipline"]])
        if focus:
            cells = zip(holders["discipline"], holders["difficulty"], strict=True)
            v *= np.mean([focus.get(cell, 1) for cell in cells])
        value.append(v)
    return np.array(value)


def steps_by(graph, alpha, beta, discipline=None, focus=None):
    """weight(u, k) times V(k) before any path, discipline and focus being those of the seeds that hold both, seed by
    seed."""
    discipline, focus = discipline or {}, focus or {}
    share = graph.seeds["discipline"].value_counts(normalize=True)
    pull = [
        (discipline.get(seed.discipline, 0) / share[seed.discipline] if discipline else 1)
        * focus.get((seed.discipline, seed.difficulty), 1)
        for seed in graph.seeds.itertuples()
    ]
    held = graph.incidence.toarray()
    both = held @ held.T
    shared = ((held * np.array(pull)) @ held.T) / np.maximum(both, 1)
    return graph.adjacency.toarray() * shared * formula(graph, np.zeros(len(graph.names)), alpha, beta)


TARGET = {"mathematics": 0.1, "law": 0.6, "physics": 0.3}
CASES = [(0, 0, None, None), (1, 0, None, None), (0.5, 1, None, None), (-1, 2, TARGET, None), (1, 1, TARGET, None)]
CASES += [(1, 0.5, None, {("law", "H5"): 20.0, ("history", "H1"): 0.0})]


@pytest.mark.parametrize(("alpha", "beta", "discipline", "focus"), CASES)
def test_value_follows_the_formula(small, alpha, beta, discipline, focus):
    visits = np.arange(len(small.names)) ** 2
    value = KnowledgeValue(small, alpha=alpha, beta=beta, discipline=discipline, focus=focus)(visits)
    expected = formula(small, visits, alpha, beta, discipline, focus)
    np.testing.assert_allclose(value / value.sum(), expected / expected.sum(), rtol=1e-9)


@pytest.mark.parametrize(("alpha", "beta", "discipline", "focus"), CASES)
def test_starts_and_steps_follow_the_formula(small, alpha, beta, discipline, focus):
    nodes, _ = sample_codes(
        small, 70_000, 4, alpha=alpha, beta=beta, discipline=discipline, focus=focus, rounds=1, seed=3
    )
    value = formula(small, np.zeros(len(small.names)), alpha, beta, discipline, focus)
    starts = np.bincount(nodes[:, 0], minlength=len(value))
    assert chisquare(starts[value > 0], len(nodes) * value[value > 0] / value.sum()).pvalue > 1e-4

    weight = steps_by(small, alpha, beta, discipline, focus)
    statistic = freedom = steps = 0
    for size in (1, 2, 3):  # given the whole path so far: this also tests that no KP comes twice
        for path, group in pd.DataFrame(nodes).groupby(list(range(size))):
            law = weight[path[-1]].copy()
            law[list(path)] = 0
            seen = np.bincount(group[size], minlength=len(law))
            assert not seen[law == 0].any()
            expected = len(group) * law / law.sum()
            if (common := expected >= 5).sum() > 1:
                rest = max(len(group) - expected[common].sum(), 0)
                of, got = [*expected[common], rest], [*seen[common], len(group) - seen[common].sum()]
                statistic += sum((g - e) ** 2 / e for g, e in zip(got, of, strict=True) if e > 1)
                freedom += sum(e > 1 for e in of) - 1
                steps += len(group)
    assert steps > 100_000
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


@pytest.fixture(scope="module")
def hub():
    """A KP of 400 neighbours, one of which has nearly all its weight, and a ring among them.

    A walk that came by the heavy neighbour has nearly all its proposals refused and scans the whole row.
    """
    rng = np.random.default_rng(2)
    kps = [["hub", "k0"]] * 20_000 + [["hub", f"k{i}"] for i in range(1, 400)]
    kps += [[f"k{i}", f"k{(i + 1) % 400}"] for i in range(400)]
    labels = {"discipline": rng.choice(DISCIPLINES, len(kps)), "difficulty": rng.choice(["H1", "H5"], len(kps))}
    return build_kp_graph(seeds(*kps, **labels))


def misfit(links, nodes, value):
    """Squared z-scores of the counts of starts, of steps from KP to KP and of steps to a KP, V being frozen at `value`.

    Paths differ in what they may not revisit, so a count is a sum of unequal chances: its mean and variance are summed
    over steps, and each squared z-score has a mean of exactly 1."""
    weight, size = links.toarray() * value, len(value)
    start = value / value.sum()
    cells = [(np.bincount(nodes[:, 0], minlength=size), len(nodes) * start, len(nodes) * start * (1 - start))]
    for step in range(1, nodes.shape[1]):
        path = nodes[nodes[:, step] >= 0, : step + 1]
        last, behind = path[:, -2], path[:, :-1]
        share = 1 / (weight[last].sum(axis=1) - weight[last[:, None], behind].sum(axis=1))

        # over the steps from a KP that could go to another
        def summed(chance, last=last, behind=behind, step=step):
            blocked = np.bincount((last[:, None] * size + behind).ravel(), np.repeat(chance, step), size**2)
            return np.maximum(np.bincount(last, chance, size)[:, None] - blocked.reshape(size, size), 0)

        expected = weight * summed(share)
        variance = expected - weight**2 * summed(share**2)
        seen = np.bincount(last * size + path[:, -1], minlength=size**2).reshape(size, size)
        assert not seen[expected == 0].any()
        cells.append([table.ravel() for table in (seen, expected, variance)])
        cells.append([table.sum(axis=0) for table in (seen, expected, variance)])
    seen, expected, variance = map(np.concatenate, zip(*cells, strict=True))
    common = variance >= 5
    return (seen - expected)[common] ** 2 / variance[common]


LAW_HARD = {"law": 3.0, "physics": 1.0}, {"H5": 3.0, "H1": 1.0}
STEERED = [
    {"alpha": 0, "beta": 0},
    {"alpha": 1, "beta": 1},
    {"alpha": -0.5, "beta": 2},
    {"alpha": 0.5, "beta": 1, "discipline": LAW_HARD[0], "difficulty": LAW_HARD[1]},
    {"alpha": 1, "beta": 0.5, "difficulty": LAW_HARD[1], "focus": {("law", "H5"): 20.0, ("history", "H1"): 0.0}},
]


@pytest.mark.parametrize("steered", STEERED, ids=str)
@pytest.mark.parametrize("name", ["small", "hub"])
def test_a_million_steps_follow_the_value_of_their_round_on_one_thread_and_on_two(name, steered, request):
    graph, rounds, per_round = request.getfixturevalue(name), 5, 70_000
    settings = steered | {"rounds": rounds, "seed": 11}
    nodes, drawn = sample_codes(graph, rounds * per_round, 5, threads=1, **settings)
    if len(os.sched_getaffinity(0)) > 1:
        for one, two in zip((nodes, drawn), sample_codes(graph, len(nodes), 5, threads=2, **settings), strict=True):
            np.testing.assert_array_equal(one, two)
    assert (nodes[:, 1:] >= 0).sum() >= 1_000_000
    value_after, visits = KnowledgeValue(graph, **steered), np.zeros(len(graph.names))
    squares = []
    for part, ids in zip(nodes.reshape(rounds, per_round, -1), drawn.reshape(rounds, per_round, -1), strict=True):
        squares.append(misfit(value_after.links(), part, value_after(visits)))
        visits += np.bincount(part[part >= 0], minlength=len(visits))
        value_after.learn(ids[ids >= 0])
    squares = np.concatenate(squares)
    assert len(squares) > 100
    assert abs(squares.mean() - 1) < 5 * np.sqrt(4 / len(squares))


def test_steps_follow_the_formula_where_proposals_are_stale_or_refused():
    # k0 is visited by every path, so that V falls there between rounds; the tables are not renewed each time.
    kps = [["k0", f"k{i}"] for i in range(1, 40) for _ in range(i)]
    graph = build_kp_graph(seeds(*kps))
    rounds, per_round = 40, 1500
    nodes, _ = sample_codes(graph, rounds * per_round, 3, alpha=0.5, beta=1, rounds=rounds, seed=5)
    visits = np.zeros(len(graph.names))
    seen, expected = np.zeros(len(visits)), np.zeros(len(visits))
    weight = graph.adjacency.toarray()
    for part in nodes.reshape(rounds, per_round, 3):
        value = formula(graph, visits, 0.5, 1)
        for third in np.flatnonzero(part[:, 1] == 0):
            law = weight[0] * value
            law[part[third, 0]] = 0
            expected += law / law.sum()
            seen[part[third, 2]] += 1
        visits += np.bincount(part[part >= 0], minlength=len(visits))
    assert chisquare(seen[1:], expected[1:]).pvalue > 1e-4


@pytest.fixture(scope="module")
def twigs():
    """A star whose rays branch once and end: most walks stop early, at different steps."""
    kps = [["star", f"ray{i}"] for i in range(20) for _ in range(i + 1)]
    kps += [[f"ray{i}", f"end{i}{side}"] for i in range(20) for side in "ab"[: i % 3]]
    return build_kp_graph(seeds(*kps))


def test_walks_end_only_where_no_unvisited_neighbour_is_left_and_follow_the_value_until_there(twigs):
    rounds, per_round, linked = 5, 20_000, twigs.adjacency.toarray() > 0
    nodes, _ = sample_codes(twigs, rounds * per_round, 6, alpha=0.5, beta=1, rounds=rounds, seed=3)
    value_after, visits = KnowledgeValue(twigs, alpha=0.5, beta=1), np.zeros(len(twigs.names))
    squares = []
    for part in nodes.reshape(rounds, per_round, -1):
        squares.append(misfit(twigs.adjacency, part, value_after(visits)))
        visits += np.bincount(part[part >= 0], minlength=len(visits))
    squares = np.concatenate(squares)
    assert abs(squares.mean() - 1) < 5 * np.sqrt(4 / len(squares))
    sizes = (nodes >= 0).sum(axis=1)
    assert set(sizes) == {2, 3, 4, 5}
    for path in np.unique(nodes, axis=0):
        path = path[path >= 0]
        assert set(np.flatnonzero(linked[path[-1]])) <= set(path)


@pytest.mark.parametrize("name", ["small", "hub", "twigs"])
def test_a_walk_does_not_depend_on_the_walks_taken_with_it(name, request):
    graph = request.getfixturevalue(name)
    many = sample_codes(graph, 3000, 5, alpha=0, beta=0, seed=4)
    for n in (1, 255, 257, 1400):
        for part, whole in zip(sample_codes(graph, n, 5, alpha=0, beta=0, seed=4), many, strict=True):
            np.testing.assert_array_equal(part, whole[:n])


def test_no_walk_starts_where_focus_leaves_no_step():
    kps = [["a", "b"], ["b"], *[["x", "y"], ["y", "z"]] * 2, ["x"], ["x"]]
    graph = build_kp_graph(seeds(*kps, discipline=["law"] + ["physics"] * 7, difficulty="H1"))
    focus = {("law", "H1"): 0.0}  # the only seed that links a and b
    nodes, _ = sample_codes(graph, 50_000, 3, alpha=1, beta=0, focus=focus)
    value = KnowledgeValue(graph, alpha=1, beta=0, focus=focus)(np.zeros(len(graph.names)))
    assert set(graph.names[value == 0]) == {"a", "b"}
    starts = np.bincount(nodes[:, 0], minlength=len(value))
    assert (nodes[:, 1] >= 0).all()
    assert not starts[value == 0].any()
    assert chisquare(starts[value > 0], len(nodes) * value[value > 0] / value.sum()).pvalue > 1e-4


@pytest.mark.parametrize("name", ["small", "hub", "twigs"])
def test_proposals_are_off_by_less_than_two_to_the_minus_31(name, request):
    graph = request.getfixturevalue(name)
    value = np.random.default_rng(0).pareto(0.5, len(graph.names)) + 1e-6
    value[::7] = 0.0
    with Threads(1) as pool:
        proposals = Proposals(graph.adjacency, pool)
        assert not len(proposals.towards(value))
    laws = np.vstack([graph.adjacency.toarray() * value, value])
    for row, (low, high) in enumerate(zip(proposals.rows, proposals.rows[1:], strict=False)):
        threshold, slot, own, other = proposals.table[low:high].astype(np.int64).T
        if not laws[row].any():
            assert set(own) == set(other) == {row}  # refused, since a walk at `row` has been there
            continue
        keep, size = threshold / 2**32, len(laws[row])
        law = (np.bincount(own, keep, size) + np.bincount(other, 1 - keep, size)) / (high - low)
        np.testing.assert_array_equal(own[slot], other)
        assert not law[laws[row] == 0].any()
        assert np.abs(law - laws[row] / laws[row].sum()).sum() / 2 < 2**-31


def test_same_seed_gives_the_same_table_for_any_number_of_threads(world):
    import numba

    settings = {"discipline": EVEN, "rounds": 4, "seed": 7}  # rounds large enough to be shared out
    one = sample_paths(world, 20_000, 5, threads=1, **settings)
    for threads in range(2, min(numba.config.NUMBA_NUM_THREADS, 4) + 1):
        pd.testing.assert_frame_equal(sample_paths(world, 20_000, 5, threads=threads, **settings), one)
    assert not sample_paths(world, 20_000, 5, **settings | {"seed": 8})["kps"].equals(one["kps"])


def test_a_loaded_graph_gives_the_same_paths(world, tmp_path):
    again = KPGraph.load(world.save(tmp_path))
    pd.testing.assert_frame_equal(sample_paths(again, 200, 4), sample_paths(world, 200, 4))


def test_paths_do_not_revisit_and_their_seeds_hold_both_kps(world):
    paths = sample_paths(world, 2000, 6, beta=0)
    assert paths["path"].tolist() == list(range(len(paths)))
    held = {
        (seed, kp)
        for kp, row in zip(world.names, np.split(world.incidence.indices, world.incidence.indptr[1:-1]), strict=True)
        for seed in world.seeds["id"].iloc[row]
    }
    for kps, ids in zip(paths["kps"], paths["seeds"], strict=True):
        assert 2 <= len(kps) <= 6
        assert len(set(kps)) == len(kps) == len(ids) + 1
        assert all({(seed, a), (seed, b)} <= held for a, b, seed in zip(kps, kps[1:], ids, strict=False))


def test_seeds_are_the_least_used_with_ties_in_table_order(small):
    nodes, drawn = sample_codes(small, 500, 4, seed=2)
    used = Counter()
    for path, row in zip(nodes, drawn, strict=True):
        for a, b, seed in zip(path, path[1:], row, strict=False):
            if b >= 0:
                both = np.flatnonzero(small.incidence[[a, b]].toarray().all(axis=0))
                assert seed == min(both, key=lambda s: (used[s], s))
                used[seed] += 1


def test_under_targets_an_edges_seeds_take_turns_by_websters_method(small):
    target = {"discipline": {"law": 3, "physics": 1}, "difficulty": {"H5": 0.9, "H1": 0.1}}
    wait = np.ones(len(small.seeds))
    for label, shares in target.items():
        current = small.seeds.loc[small.linked_seeds, label].value_counts(normalize=True)
        for value, share in current.items():
            times = shares.get(value, 0) / sum(shares.values()) / share
            wait[small.seeds[label] == value] /= max(times, 1e-9)
    nodes, drawn = sample_codes(small, 500, 4, seed=2, **target)
    used = np.zeros(len(wait))
    for path, row in zip(nodes, drawn, strict=True):
        for a, b, seed in zip(path, path[1:], row, strict=False):
            if b >= 0:
                both = np.flatnonzero(small.incidence[[a, b]].toarray().all(axis=0))
                assert (used[seed] + 0.5) * wait[seed] <= ((used + 0.5) * wait)[both].min() * (1 + 1e-9)
                used[seed] += 1


def test_beta_spreads_coverage_and_alpha_follows_popularity(world):
    n = len(world.names)

    def described(alpha, beta):
        return path_diagnostics(world, sample_paths(world, n, 4, alpha=alpha, beta=beta)).iloc[0]

    popular, spread = described(1, 0), described(0, 1)
    assert spread["coverage"] > 1.3 * popular["coverage"]
    assert spread["gini"] < popular["gini"]
    assert spread["evenness"] > popular["evenness"]
    assert popular["pearson"] > spread["pearson"]


@pytest.mark.parametrize("beta", [0, 1])
def test_a_discipline_target_takes_most_of_the_distance_away(world, beta):
    free = path_diagnostics(world, sample_paths(world, 2000, 4, beta=beta), discipline=EVEN)
    held = path_diagnostics(world, sample_paths(world, 2000, 4, beta=beta, discipline=EVEN), discipline=EVEN)
    assert held["kl_discipline"][0] < 0.2 * free["kl_discipline"][0]


def test_labels_without_a_target_share_are_left_out():
    graph = build_kp_graph(
        seeds(
            *[["a", "b"], ["b", "c"], ["x", "y"], ["y", "z"]] * 5, discipline=["law", "law", "physics", "physics"] * 5
        )
    )
    paths = sample_paths(graph, 200, 3, discipline={"physics": 2.0})
    assert set(paths["kps"].explode()) == {"x", "y", "z"}


@pytest.mark.parametrize("beta", [0, 1])
@pytest.mark.parametrize("alpha", [0, 1])
def test_a_target_is_met_where_every_kp_has_seeds_of_all_labels(world, alpha, beta):
    # Difficulty is drawn apart from the KPs, so no KP stands for a level: the seeds of a link have to be chosen.
    target = {"H1": 0.05, "H3": 0.15, "H5": 0.8}
    paths = sample_paths(world, 5000, 4, alpha=alpha, beta=beta, difficulty=target)
    drawn = world.seeds.set_index("id")["difficulty"][paths["seeds"].explode()].value_counts(normalize=True)
    assert all(abs(drawn[level] - share) < 0.03 for level, share in target.items())


@pytest.mark.parametrize("target", [{"difficulty": {"H5": 1}}, {"difficulty": {"H5": 1}, "discipline": EVEN}])
def test_seeds_of_labels_without_a_target_share_are_not_drawn(world, target):
    paths = sample_paths(world, 2000, 4, **target)
    assert set(world.seeds.set_index("id")["difficulty"][paths["seeds"].explode()]) == {"H5"}


def test_targets_that_no_seed_meets_together_are_refused():
    kps, disciplines = [["a", "b"], ["b", "c"], ["c", "a"]], ["law", "physics", "law"]
    graph = build_kp_graph(seeds(*kps, discipline=disciplines, difficulty=["H1", "H5", "H1"]))
    with pytest.raises(ValueError, match="targets and focus exclude them all"):
        sample_paths(graph, 10, 3, discipline={"law": 1}, difficulty={"H5": 1})


def test_targets_out_of_reach_are_reported(world):
    target = {"law": 0.5, "medicine": 0.5}
    with pytest.warns(UserWarning, match="no linked seed is .'medicine'."):
        paths = sample_paths(world, 100, 3, discipline=target)
    assert path_diagnostics(world, paths, discipline=target)["missing_discipline"][0] == 0.5


def test_focus_leans_to_the_weak_cells(world):
    def share(focus):
        ids = sample_paths(world, 2000, 4, focus=focus)["seeds"].explode()
        cells = world.seeds.set_index("id").loc[ids, ["discipline", "difficulty"]]
        return ((cells["discipline"] == "law") & (cells["difficulty"] == "H5")).mean()

    # Labels are drawn apart from the KPs here. A start counts all seeds of its KP, a step those of its link: so the
    # odds of a weak cell grow by nearly its weight.
    weak, plain = share({("law", "H5"): 10.0}), share(None)
    assert weak / (1 - weak) > 5 * plain / (1 - plain)


def test_walks_stay_in_their_component_and_end_where_it_ends():
    graph = build_kp_graph(seeds(["a", "b"], ["b", "c"], ["x", "y"], ["lonely"]))
    paths = sample_paths(graph, 300, 5)
    assert set(map(frozenset, paths["kps"])) <= {frozenset(s) for s in ("abc", "ab", "bc", "xy")}
    assert "lonely" not in set(paths["kps"].explode())


def test_a_focus_that_leaves_no_link_is_refused():
    graph = build_kp_graph(seeds(["a", "b"], ["b"], discipline=["law", "physics"], difficulty=["H1", "H1"]))
    assert len(sample_paths(graph, 20, 2)) == 20
    with pytest.raises(ValueError, match="targets and focus exclude them all"):
        sample_paths(graph, 20, 2, focus={("law", "H1"): 0.0})


def test_chinese_seeds_and_whole_number_ids_come_back_as_they_are():
    table = seeds(["欧姆定律", "电阻"], ["电阻", "功率"]).assign(id=[11, 12])
    paths = sample_paths(build_kp_graph(table), 10, 3)
    assert set(paths["kps"].explode()) == {"欧姆定律", "电阻", "功率"}
    assert set(paths["seeds"].explode()) == {11, 12}


@pytest.mark.parametrize("table", [seeds(), seeds(None), seeds(["one"]), seeds(["a"], ["b"])])
def test_a_graph_without_edges_says_so(table):
    with pytest.raises(ValueError, match="has no edge; give seeds with two or more KPs"):
        sample_paths(build_kp_graph(table), 1, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n=0; allowed"),
        ({"length": 1}, "length=1; allowed: a whole number from 2"),
        ({"rounds": 99}, "rounds=99; allowed: a whole number from 1 to 10"),
        ({"seed": -1}, "seed=-1"),
        ({"threads": 0}, "threads=0"),
        ({"alpha": float("nan")}, "alpha=nan"),
        ({"alpha": "1"}, "alpha='1'; allowed: a finite number"),
        ({"beta": None}, "beta=None; allowed: a finite number from 0"),
        ({"difficulty": "H1"}, "difficulty='H1'; allowed: label -> share"),
        ({"difficulty": ["H1"]}, r"difficulty=\['H1'\]; allowed: label -> share"),
        ({"difficulty": {"H1": "a"}}, "difficulty={'H1': 'a'}; allowed: label -> share"),
        ({"focus": "law"}, r"focus='law'; allowed: \(discipline, difficulty\) -> weight"),
        ({"focus": {("law", "H1"): "a"}}, r"focus\[\('law', 'H1'\)\]='a'; allowed"),
        ({"beta": -1}, "beta=-1"),
        ({"discipline": {}}, "discipline={}; allowed"),
        ({"discipline": {"law": -1}}, "discipline=.*from 0"),
        ({"discipline": {"medicine": 1}}, "no linked seed; allowed: .*'law'"),
        ({"focus": {"law": 2}}, r"focus\['law'\]=2; allowed"),
        ({"focus": {("medicine", "H9"): 2}}, "no seed there"),
        ({"difficulty": pd.Series({"H1": 1.0, "H5": np.nan})}, "difficulty=.*; allowed: label -> share"),
        ({"difficulty": pd.Series([1, 2, 3], ["H1", "H5", "H1"])}, "difficulty has several values for 'H1'"),
        ({"focus": pd.Series([1, 2], [("law", "H1")] * 2)}, r"focus has several values for \('law', 'H1'\)"),
        ({"focus": pd.DataFrame({"H1": {"law": 1.0, "history": 2.0}})}, r"focus\['H1'\]=.*; allowed"),
        ({"focus": {("law", "H1"): np.nan}}, r"focus\[\('law', 'H1'\)\]=nan; .*; leave out cells without one"),
        ({"focus": {("law", f"H{i}"): 1.0 for i in range(10, 99)}}, "^.{1,400}$"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(world, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        sample_paths(world, **{"n": 10, "length": 3} | settings)
    assert "\n" not in str(caught.value)


def test_extreme_exponents_neither_overflow_nor_stop():
    graph = build_kp_graph(seeds(*[["hub", f"k{i}"] for i in range(300)]))
    for alpha in (-300, 300):
        assert len(sample_paths(graph, 50, 3, alpha=alpha, beta=50)) == 50


def test_diagnostics_agree_with_hand_counts():
    graph = build_kp_graph(seeds(["a", "b"], ["b", "c"], ["d"], discipline=["law", "law", "physics"]))
    paths = pd.DataFrame({"path": [0, 1], "kps": [["a", "b"], ["b", "a"]], "seeds": [["s0"], ["s0"]]})
    row = path_diagnostics(graph, paths, discipline={"law": 0.5, "physics": 0.5}).iloc[0]
    assert row["coverage"] == pytest.approx(2 / 3)
    assert row["entropy_bits"] == pytest.approx(1.0)
    assert row["gini"] == pytest.approx(1 / 3)
    assert row["pearson"] == pytest.approx(0.5)
    assert row["distinct_seeds"] == 1
    assert row["mean_length"] == 2
    assert row["kl_discipline"] == pytest.approx(0.5 * np.log(0.5 / (2.5 / 3)) + 0.5 * np.log(0.5 / (0.5 / 3)))
    assert row["missing_discipline"] == 0.5
    assert np.isnan(row["kl_difficulty"])


def test_a_target_for_seeds_without_labels_says_what_they_lack():
    with pytest.raises(ValueError, match="no linked seed has a difficulty; give 'difficulty' to build_kp_graph"):
        sample_paths(build_kp_graph(seeds(["a", "b"])), 10, 3, difficulty={"H1": 1})


def test_divergence_is_null_where_no_drawn_seed_has_a_label():
    table = seeds(["a", "b"], ["x", "y"], discipline=[None, "law"])
    paths = pd.DataFrame({"path": [0], "kps": [["a", "b"]], "seeds": [["s0"]]})
    row = path_diagnostics(build_kp_graph(table), paths, discipline={"law": 1.0}).iloc[0]
    assert np.isnan(row["kl_discipline"])
    assert row["missing_discipline"] == 0


def test_a_target_may_be_a_series_and_more_threads_than_cores_are_as_many_as_there_are(world):
    as_dict = sample_paths(world, 500, 4, discipline=EVEN, threads=1)
    pd.testing.assert_frame_equal(sample_paths(world, 500, 4, discipline=pd.Series(EVEN), threads=10_000), as_dict)


def test_a_warning_about_a_target_points_at_the_call():
    graph = build_kp_graph(seeds(["a", "b"], ["c"], discipline=["law", "physics"]))
    with pytest.warns(UserWarning, match="no linked seed is") as caught:
        sample_paths(graph, 3, 2, discipline={"law": 1.0, "physics": 1.0})
    assert caught[0].filename == __file__


def test_diagnostics_of_foreign_or_no_paths(world):
    foreign = pd.DataFrame({"path": [0], "kps": [["nowhere", "b"]], "seeds": [["s0"]]})
    with pytest.raises(ValueError, match="KP 'nowhere' is not in the graph"):
        path_diagnostics(world, foreign)
    row = path_diagnostics(world, foreign.iloc[:0]).iloc[0]
    assert (row["paths"], row["coverage"]) == (0, 0)
    assert np.isnan(row["spearman"])


def test_importing_walks_does_not_load_numba():
    code = "import sys, qatoolkit.graph.walks; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_loops_are_compiled_once_on_a_machine(tmp_path):
    """A loop that numba can't find again costs every process seconds, and leaves a file in each."""
    code = (
        "import pandas as pd, qatoolkit as qt\n"
        "points = [['a', 'b'], ['b', 'c'], ['a', 'c']]\n"
        "table = pd.DataFrame({'id': ['q1', 'q2', 'q3'], 'knowledge_points': points})\n"
        "qt.sample_paths(qt.build_kp_graph(table), n=3, length=2)\n"
        "from qatoolkit.graph import kernels\n"
        "print(sum(sum(loop.stats.cache_misses.values()) for loop in (kernels.fill, kernels.walk, kernels.assign)))\n"
    )
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    missed = [
        int(subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout)
        for _ in range(2)
    ]
    assert missed == [3, 0]
