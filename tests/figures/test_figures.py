"""Every figure draws from a small table, says what it must, and is saved with the same bytes each time."""

import functools
from itertools import combinations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from matplotlib.transforms import Bbox

from qatoolkit import figures as plots
from qatoolkit.figures import heatmaps as plots_grid
from qatoolkit.figures import style as plots_style
from qatoolkit.figures.style import power, short_count, signed, spread
from qatoolkit.scaling.fits import fit_scaling
from qatoolkit.scaling.forecast import check_forecast
from qatoolkit.seeds.read import quality_report, read_seeds


def frame(columns, *rows):
    return pd.DataFrame(rows, columns=columns.split())


def cells(shift=0.0):
    table = frame(
        "discipline difficulty n accuracy low high",
        ("law", "H1", 40, 0.9, 0.77, 0.96),
        ("physics", "H1", 40, 0.4, 0.26, 0.55),
        ("physics", "H5", 12, 0.25, 0.09, 0.53),
        ("chemistry", "H2", 0, np.nan, np.nan, np.nan),
    )
    return table.assign(accuracy=table["accuracy"] + shift)


def answers(right, cell=("physics", "H1"), offset=0):
    """Samples of one cell: `right` is a string of 1 and 0."""
    rows = [(f"{cell}-{i + offset}", mark == "1", *cell) for i, mark in enumerate(right)]
    return frame("id correct discipline difficulty", *rows)


BEFORE = pd.concat([answers("0" * 30 + "1" * 10), answers("01", ("physics", "H5")), answers("1" * 40, ("law", "H1"))])
AFTER = BEFORE.assign(correct=[True] * 12 + [False] * 18 + [True] * 10 + [True] * 2 + [True] * 38 + [False] * 2)

ARMS = frame(
    "arm exam accuracy low high n",
    ("base", "textbook_en", 0.3, 0.26, 0.35, 400),
    ("boostqa", "textbook_en", 0.7, 0.65, 0.74, 400),
    ("base", "textbook_zh", 0.31, 0.26, 0.36, 380),
    ("boostqa", "textbook_zh", np.nan, np.nan, np.nan, 0),
)
COMPARISONS = frame("a b on difference low high n", ("boostqa", "base", "textbook_en", -0.02, -0.05, 0.01, 400))
SCALING = frame(
    "axis arm x accuracy low high n",
    ("parameters", "base", 160_000, 0.3, 0.26, 0.35, 400),
    ("parameters", "base", 740_000, 0.4, 0.35, 0.45, 400),
    ("initial_flops", "base", 1e12, 0.3, 0.26, 0.35, 400),
)
REFINEMENT = frame(
    "teacher_error_rate stage wrong low high n",
    (0.1, "before", 0.1, 0.08, 0.12, 500),
    (0.1, "after", 0.01, 0.0, 0.02, 500),
    (0.3, "before", 0.3, 0.27, 0.33, 500),
    (0.3, "after", 0.04, 0.02, 0.06, 500),
)
CONFUSION = pd.DataFrame([[8, 2, 0], [1, 9, 0], [0, 0, 0]], index=list("abc"), columns=list("abc"))
ABLATIONS = frame(
    "arm ablation on difference low high n p_holm",
    *((arm, dials, on, difference, difference - 0.04, difference + 0.04, 600, p)
      for on in ("weak", "all")
      for arm, dials, difference, p in (("boostqa", "boostqa.refine=False", -0.06, 0.01 if on == "all" else 0.06),
                                        ("linkqa", "linkqa.length=3", -0.02, 0.6),
                                        ("boostqa", "midtrain.replay=0.7", 0.01, 1.0))),
)  # fmt: skip
SCHEDULES = frame("share lr schedule", (0.0, 1e-3, "linear"), (1.0, 0.0, "linear"), (0.0, 5e-4, "linear, inherited"))
LOSS = frame("step tokens loss lr arm", (1, 4096, 6.0, 1e-3, "boostqa"), (2, 8192, 5.0, 5e-4, "boostqa"))
PROBES = frame(
    "arm tokens discipline difficulty n accuracy",
    *((arm, tokens, *cell) for arm in ("boostqa", "linkqa") for tokens, *cell in (
        (0, "physics", "H1", 40, 0.25), (0, "physics", "H5", 10, 0.5), (0, "law", "H1", 20, 0.5),
        (50_000, "physics", "H1", 40, 0.75), (50_000, "physics", "H5", 10, 0.5), (50_000, "law", "H1", 20, np.nan),
    )),
)  # fmt: skip
SURVIVAL = frame(
    "difficulty step n share low high",
    *((level, step, n, n / 40, max(n / 40 - 0.1, 0), min(n / 40 + 0.1, 1))
      for level, counts in (("H1", (40, 40, 38)), ("H5", (40, 25, 20)), ("all", (40, 33, 29)))
      for step, n in zip(("written", "at its level", "refined"), counts, strict=True)),
)  # fmt: skip
RATES = frame(
    "model form difficulty n pass_rate low high",
    *((model, form, level, 40, rate, rate - 0.1, rate + 0.1)
      for model, form, rates in (("student", "choices", (0.6, 0.3)), ("strong", "open", (0.8, 0.7)))
      for level, rate in zip(("H1", "H5"), rates, strict=True)),
)  # fmt: skip
MATRIX = frame(
    "part on difference low high n p_holm",
    ("physics", "physics", 0.2, 0.1, 0.3, 80, 0.01),
    ("physics", "law", -0.01, -0.1, 0.1, 12, np.nan),
    ("law", "physics", 0.0, 0.0, 0.0, 80, 1.0),
)
PLAN = frame("discipline difficulty budget deficit", ("physics", "H5", 300, 0.4), ("law", "H1", 0, 0.0))
QUESTIONS = pd.DataFrame({"source": ["seeds"] * 3 + ["linkqa"] * 2, "difficulty": ["H1", "H5", None, "H1", "H1"]})
DEGREES = pd.DataFrame({"degree": [0, 1, 1, 2, 3, 9]})
COVERAGE = frame("paths coverage policy", (0, 0.0, "uniform"), (10, 0.5, "uniform"), (10, 0.6, "balanced"))
DIAGNOSTICS = frame(
    "walks paths coverage gini kl_difficulty kl_discipline",
    ("popularity", 500, 0.4, 0.7, 0.5, None),
    ("coverage", 500, 0.95, 0.2, None, None),
)
FRONTIER = frame("alpha beta coverage popularity_correlation", (1, 0, 0.3, 0.9), (0, 1, 0.9, 0.1))
SEEDS, REJECTS = read_seeds(
    [
        [{"question": "ab", "answer": "1"}, {"question": "abcd", "answer": "12"}],
        [
            {"question": "二加三等于几？", "answer": "5", "source": "chinese"},
            {"question": "二加三等于几？", "answer": "5", "source": "chinese"},
            {"question": "", "answer": "5", "source": "chinese"},
        ],
    ]
)
QUALITY = quality_report(SEEDS, REJECTS)

SIZES = pd.DataFrame(
    {"parameters": [1e6, 4e6, 16e6, 64e6], "accuracy": [0.26, 0.4, 0.5, 0.58], "n": 900, "chance": 0.25}
)

FIGURES = {
    "accuracy_grid": lambda: plots.accuracy_grid(cells()),
    "margin_grid": lambda: plots.margin_grid(cells().assign(margin=[0.5, -1.25, 3.0, np.nan])),
    "grid_difference": lambda: plots.grid_difference(BEFORE, AFTER),
    "attribution": lambda: plots.attribution(MATRIX),
    "budget": lambda: plots.budget(PLAN),
    "arms": lambda: plots.arms(ARMS.assign(chance=0.25, blind=0.3)),
    "comparisons": lambda: plots.comparisons(COMPARISONS),
    "scaling": lambda: plots.scaling(SCALING),
    "scaling_fit": lambda: plots.scaling_fit(fit_scaling(SIZES, draws=40)),
    "by_size": lambda: plots.by_size(SIZES.assign(subject="physics")),
    "forecasts": lambda: plots.forecasts(check_forecast(SIZES.assign(subject="physics"), each="subject", draws=40)),
    "ablations": lambda: plots.ablations(ABLATIONS),
    "distribution": lambda: plots.distribution(QUESTIONS, "difficulty"),
    "refinement": lambda: plots.refinement(REFINEMENT),
    "confusion": lambda: plots.confusion(CONFUSION),
    "loss": lambda: plots.loss(LOSS),
    "probes_over_time": lambda: plots.probes_over_time(PROBES),
    "schedules": lambda: plots.schedules(SCHEDULES),
    "pass_rates": lambda: plots.pass_rates(RATES),
    "survival": lambda: plots.survival(SURVIVAL),
    "seed_quality": lambda: plots.seed_quality(QUALITY),
    "lengths": lambda: plots.lengths(SEEDS),
    "kp_degree": lambda: plots.kp_degree(DEGREES),
    "coverage": lambda: plots.coverage(COVERAGE),
    "diagnostics": lambda: plots.diagnostics(DIAGNOSTICS),
    "frontier": lambda: plots.frontier(FRONTIER),
    "graph_neighbourhood": lambda: plots.graph_neighbourhood(nx.path_graph(5), [1, 2, 3]),
}


@pytest.fixture(autouse=True)
def _leaves_no_trace():
    settings = dict(plt.rcParams)
    yield
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == settings


@functools.cache
def drawn(name):
    return FIGURES[name]()


def texts(figure):
    return [text.get_text() for text in figure.findobj(plt.Text)]


def says(figure, part):
    return any(part in text for text in texts(figure))


def test_every_public_figure_is_covered_here():
    assert {*FIGURES, "save"} == set(plots.__all__)


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_is_saved_with_the_same_bytes_twice(figure, tmp_path):
    first = plots.save(drawn(figure), tmp_path / "a" / "first")
    second = plots.save(FIGURES[figure](), tmp_path / "b" / "second.png")
    assert [path.name for path in second] == ["second.png", "second.svg", "second.pdf"]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
    pixels = imread(first[0])
    assert min(pixels.shape[:2]) > 200
    assert len(np.unique((255 * pixels[..., :3]).astype(int) @ [65536, 256, 1])) > 20  # colours
    assert sorted(path.name for path in first[0].parent.iterdir()) == ["first.pdf", "first.png", "first.svg"]


def drawn_texts(ax):
    """Annotations and the tick labels within the axes' limits."""
    for axis in (ax.xaxis, ax.yaxis) if ax.axison else ():
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if low <= tick.get_loc() <= high:
                yield from (label for label in (tick.label1, tick.label2) if label.get_visible())
    yield from ax.texts


@pytest.mark.parametrize("figure", FIGURES)
def test_no_text_leaves_the_figure_or_covers_other_text_in_its_axes(figure):
    for ax in drawn(figure).axes:
        shown = [text for text in drawn_texts(ax) if text.get_text()]
        boxes = [text.get_window_extent().padded(-1) for text in shown]
        for text, box in zip(shown, boxes, strict=True):
            assert box.x0 >= 0, text
            assert box.x1 <= ax.figure.bbox.x1, text
        for (one, a), (two, b) in combinations(zip(shown, boxes, strict=True), 2):
            assert Bbox.intersection(a, b) is None, (one, two)


@pytest.mark.parametrize("figure", FIGURES)
def test_lines_keep_their_colours_outside_the_house_style(figure):
    assert not [line for line in drawn(figure).findobj(plt.Line2D) if str(line.get_color()).startswith("C")]


@pytest.mark.parametrize(
    ("draw", "table"),
    [
        (plots.accuracy_grid, cells()),
        (lambda table: plots.grid_difference(BEFORE, table), AFTER),
        (plots.budget, PLAN),
        (plots.arms, ARMS),
        (plots.comparisons, COMPARISONS),
        (plots.scaling, SCALING),
        (plots.ablations, ABLATIONS),
        (lambda table: plots.distribution(table, "difficulty"), QUESTIONS),
        (plots.refinement, REFINEMENT),
        (plots.loss, LOSS),
        (plots.probes_over_time, PROBES.drop(columns="arm").iloc[:6]),
        (plots.schedules, SCHEDULES),
        (plots.seed_quality, QUALITY),
        (plots.lengths, SEEDS[["question", "answer", "language", "source"]]),
        (plots.kp_degree, DEGREES),
        (plots.coverage, COVERAGE),
        (plots.diagnostics, DIAGNOSTICS),
        (plots.frontier, FRONTIER),
    ],
)
def test_an_empty_table_or_a_missing_column_is_a_clear_error(draw, table):
    with pytest.raises(ValueError, match="no rows"):
        draw(table.iloc[:0])
    lost = table.columns[0]
    with pytest.raises(ValueError, match=rf"columns missing.*{lost}"):
        draw(table.drop(columns=lost))


def test_repeated_and_unnamed_rows_are_refused():
    with pytest.raises(ValueError, match=r"more than one row for .*physics"):
        plots.accuracy_grid(pd.concat([cells(), cells().iloc[[1]]]))
    with pytest.raises(ValueError, match=r"null values in \['exam'\]"):
        plots.arms(ARMS.assign(exam=None))


def test_a_figure_can_be_drawn_on_given_axes():
    own, ax = plt.subplots()
    try:
        assert plots.kp_degree(DEGREES, ax=ax) is own
        assert plt.get_fignums() == [own.number]
    finally:
        plt.close(own)


def test_a_figure_can_be_drawn_on_the_axes_of_a_subfigure():
    own = plt.figure()
    left, right = own.subfigures(1, 2)
    try:
        assert plots.coverage(COVERAGE, ax=left.subplots()) is own
        assert plots.frontier(FRONTIER, ax=right.subplots()) is own
    finally:
        plt.close(own)


def test_a_dollar_in_a_name_is_a_dollar_and_no_mathematics(tmp_path):
    table = ARMS.assign(arm=["$5 to $10", "$\\frac{$"] * 2, exam=["a $x$", "a $x$", "b", "b"])
    _, svg, _ = plots.save(plots.arms(table), tmp_path / "dollars")
    said = svg.read_text(encoding="utf-8")
    assert all(text in said for text in (">$5 to $10<", ">$\\frac{$<", ">a $x$"))
    assert "cost \\$" in plots_style.name("cost_$")


def test_long_names_keep_both_ends_and_their_figure_its_shape():
    exam, arm = "an_exam_with_a_very_long_name_" * 3 + "v2", "an_arm_with_a_very_long_name_" * 3 + "v2"
    for figure in (
        plots.arms(ARMS.iloc[:1].assign(exam=exam, arm=arm)),
        plots.comparisons(COMPARISONS.assign(a=arm, b=exam, on=exam)),
        plots.distribution(QUESTIONS.assign(source=arm, difficulty=exam), "difficulty"),
        plots.accuracy_grid(cells().iloc[:1].assign(discipline=arm, difficulty="H1")),
        plots.seed_quality(QUALITY.assign(source=QUALITY["source"] + arm)),
    ):
        [ax, *_] = figure.axes
        assert ax.bbox.width > 100
        labels = [label for label in ax.get_yticklabels() if "…" in label.get_text()]
        assert labels
        assert all(label.get_text().split(" (n")[0].endswith("v2") for label in labels)
        assert all(label.get_window_extent().x0 >= 0 for label in [*labels, ax.title])
        assert all(text.get_window_extent().x1 <= figure.bbox.x1 for text in (ax.title, ax._left_title))


def test_the_names_of_many_arms_do_not_cover_their_losses():
    many = pd.concat([LOSS.assign(arm=f"arm {i}") for i in range(40)])
    figure = plots.loss(many)
    [legend] = figure.legends
    assert len(legend.get_texts()) == 40
    assert Bbox.intersection(legend.get_window_extent(), figure.axes[1].get_tightbbox()) is None
    assert figure.bbox.y0 <= legend.get_window_extent().y0


def test_a_line_that_ends_in_missing_values_keeps_its_name_and_one_without_any_says_so():
    lost = REFINEMENT.assign(wrong=[0.1, np.nan, np.nan, np.nan])
    texts = {text.get_text(): text for text in plots.refinement(lost).axes[0].texts}
    assert texts["before"].xy == (10, 10)
    assert "after: no value" in texts


def test_a_data_set_without_a_name_is_counted_as_unknown():
    figure = plots.distribution(QUESTIONS.assign(source=["seeds", None, None, "linkqa", "linkqa"]), "difficulty")
    assert says(figure, "unknown (n = 2)")
    unlabelled = plots.lengths(SEEDS.assign(difficulty=None), by="difficulty")
    assert [t.get_text() for t in unlabelled.axes[0].get_yticklabels()] == [
        "unknown, en (n = 2)",
        "unknown, zh (n = 1)",
    ]


def test_a_grid_refuses_margins_that_it_would_count_twice():
    with pytest.raises(ValueError, match="rows of discipline or difficulty 'all'"):
        plots.accuracy_grid(cells().replace({"difficulty": {"H5": "all"}}))


def test_a_schedule_may_be_named_by_a_number():
    assert says(plots.schedules(SCHEDULES.assign(schedule=[1, 1, 2])), "2")


def test_every_figure_warns_of_chinese_that_no_font_holds(monkeypatch):
    monkeypatch.setattr(plots_style, "chinese_font", lambda: None)
    with pytest.warns(UserWarning, match="no Chinese font found"):
        plots.arms(ARMS.assign(exam=["英语", "英语", "中文", "中文"]))


def test_grid_puts_stem_first_pools_margins_by_n_and_shows_a_missing_score_as_missing():
    grid = drawn("accuracy_grid")
    labels = [label.get_text() for label in grid.axes[0].get_yticklabels()]
    assert labels == ["Physics", "Chemistry", "Law", "all", "STEM", "Other disciplines"]
    positions = dict(zip(labels, grid.axes[0].get_yticks(), strict=True))
    assert positions["STEM"] < positions["Physics"] < positions["Chemistry"] < positions["Law"] < positions["all"]
    pooled = (40 * 0.4 + 12 * 0.25) / 52
    assert says(grid, f"{100 * pooled:.0f}%")
    assert says(grid, "–")
    assert "0%" not in texts(grid.axes[0])
    assert says(grid, "25%")  # pale, still read
    assert says(grid, "pale: wide interval")


def strength(figure, x, y):
    """How far the colour of the cell at a place is from that of an empty one."""
    [patch] = [p for p in figure.axes[0].patches if p.get_xy() == pytest.approx((x - 0.48, y - 0.46))]
    return np.abs(np.array(patch.get_facecolor()[:3]) - plots_grid.PLAIN).sum()


def test_a_wide_interval_pales_the_colour_and_never_hides_it():
    even = cells().iloc[:1].assign(difficulty="H1", accuracy=0.5)
    shown = [
        plots.accuracy_grid(even.assign(n=n, low=0.5 - half, high=0.5 + half))
        for n, half in ((1000, 0.03), (100, 0.1), (30, 0.17), (5, 0.35), (1, 0.45))
    ]
    places = [(0.0, 0.0) if n >= plots_grid.SMALL else (1.2, 1.0) for n in (1000, 100, 30, 5, 1)]
    found = [strength(figure, *place) for figure, place in zip(shown, places, strict=True)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 3 * found[-1] > 0


def test_the_cells_of_the_plan_are_framed_whatever_their_number_of_questions():
    weak = cells().iloc[[1, 2]]
    for grid in (
        plots.accuracy_grid(cells(), weak=weak),
        plots.margin_grid(cells().assign(margin=0.1), weak=weak),
        plots.grid_difference(BEFORE, AFTER, weak=weak),
    ):
        framed = [patch for patch in grid.axes[0].patches if patch.get_gid() == "outlined"]
        assert len(framed) == 2
        assert says(grid, "framed: weak")
    assert not says(drawn("accuracy_grid"), "framed")


def test_pooled_margins_come_first_where_most_cells_are_small():
    small = plots.accuracy_grid(cells().assign(n=[5, 6, 12, 0])).axes[0]
    assert [label.get_text() for label in small.get_xticklabels()][-1] == "all"
    assert dict(zip([t.get_text() for t in small.get_xticklabels()], small.get_xticks(), strict=True))["all"] == 0
    large = plots.accuracy_grid(cells().assign(n=[50, 60, 120, 40])).axes[0]
    ticks = dict(zip([t.get_text() for t in large.get_xticklabels()], large.get_xticks(), strict=True))
    assert ticks["all"] == max(ticks.values())


def test_margin_grid_is_signed_and_centred_on_zero():
    grid = drawn("margin_grid")
    assert says(grid, "−1.2")
    assert says(grid, "+0.5")
    assert says(grid, "margin (nats)")


def bold(figure):
    return [text.get_text() for text in figure.axes[0].texts if text.get_weight() == "bold"]


def test_a_gain_is_bold_in_cells_and_margins_if_the_paired_test_is_below_one_in_twenty():
    # 12 of 40 gained in physics H1; 1 of 2 in physics H5; 2 of 40 lost in law
    grid = drawn("grid_difference")
    assert sorted(bold(grid)) == sorted(["+30", "+31", "+12", "+13"])  # the cell; physics, H1, all
    assert {"+50", "−5"} <= set(texts(grid.axes[0]))
    assert says(grid, "25 → 55, n 40")


def test_two_questions_that_both_gained_are_no_clear_gain():
    assert bold(plots.grid_difference(answers("00"), answers("11"))) == []


def test_a_gain_is_refused_between_answers_to_different_questions():
    with pytest.raises(ValueError, match="share only 1 ids"):
        plots.grid_difference(answers("01"), answers("01", offset=1))


def test_an_extreme_cell_does_not_pale_the_others():
    disciplines = ["physics", "law", "arts", "history", "medicine"]
    table = pd.DataFrame([(d, level, 50, 4.0) for d in disciplines for level in ("H1", "H2", "H3", "H4", "H5")],
                         columns=["discipline", "difficulty", "n", "margin"])  # fmt: skip
    even, extreme = (plots.margin_grid(table.assign(margin=[first] + [4.0] * 24)) for first in (4.0, -40.0))
    assert strength(extreme, 1, 0.8) == pytest.approx(strength(even, 1, 0.8), rel=0.3)
    assert says(extreme, "−40.0")


def test_a_budget_tells_cells_on_target_from_cells_with_too_few_questions():
    plan = frame("discipline difficulty n budget deficit", ("physics", "H5", 9, 300, 0.4), ("law", "H1", 9, 0, 0.0),
                 ("law", "H2", 4, 0, 0.0))  # fmt: skip
    judged = plots.budget(plan, low_n=5)
    assert [t.get_text() for t in judged.axes[0].texts if t.get_fontsize() == 6 and t.get_text()] == [
        "deficit 40", "on target", "too few",
    ]  # fmt: skip
    assert says(judged, "fewer than 5 questions")
    assert not says(plots.budget(plan), "too few")


def test_an_arm_has_one_colour_and_marker_in_every_figure():
    arms = ["base", "seeds_only", "general_control", "boostqa_untargeted", "boostqa", "linkqa", "boostqa_linkqa"]
    every = plots_style.line_styles(arms)
    assert len({look["color"] for look in every.values()}) == len(arms)
    for some in (["linkqa", "mine", "base"], ["general_control", "boostqa"], ["seeds", "boostqa", "linkqa"]):
        found = plots_style.line_styles(some)
        assert len({look["color"] for look in found.values()}) == len(some)
        assert all(found[arm] == every[arm] for arm in some if arm in every)
    assert plots_style.line_styles(["seeds"])["seeds"] == every["seeds_only"]


def test_other_names_take_the_colours_that_are_left_and_then_other_markers():
    found = plots_style.line_styles(["boostqa", *range(8)])
    looks = [(look["color"], look["marker"]) for look in found.values()]
    assert len(set(looks)) == len(looks)
    assert looks[0][0] not in [colour for colour, _ in looks[1:7]]


def test_arms_are_named_as_their_papers_write_them_and_stay_close_to_their_keys():
    names = ("boostqa", "boostqa_linkqa", "boostqa_untargeted", "general_control", "my_linkqa_2", "boostqa2")
    assert [plots_style.arm_name(key) for key in names] == [
        "BoostQA", "BoostQA + LinkQA", "BoostQA untargeted", "general control", "my LinkQA 2", "boostqa2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("dials", "arm", "shown"),
    [
        ("boostqa.refine=False", "boostqa", "refine off"),
        ("boostqa.multi_grade=True", "linkqa", "multi grade on (BoostQA)"),
        ("linkqa.alpha=0.0, linkqa.beta=0.5", None, "alpha 0, beta 0.5 (LinkQA)"),
        ("midtrain.replay=0.0, plan.rule=uniform", "boostqa", "replay 0 (midtrain), rule uniform (plan)"),
        ("strategies.mine.kinds=['a', 'b']", None, "kinds ['a', 'b'] (mine)"),
        ("midtrain.learning_rate=None", None, "learning rate unset (midtrain)"),
        ("ablation_tokens=1e-05", None, "ablation tokens 1e-05"),
        ("a note without dials", None, "a note without dials"),
    ],
)
def test_a_dial_is_shown_as_setting_and_value_and_its_group_where_it_is_not_the_arm(dials, arm, shown):
    assert plots_style.dial_name(dials, arm) == shown


def test_ablations_show_weak_cells_and_all_with_shared_rows_and_fill_clear_dots():
    weak, every = drawn("ablations").axes
    assert [ax.get_title(loc="left") for ax in (weak, every)] == ["weak cells\nn = 600", "all questions\nn = 600"]
    rows = [label.get_text() for label in weak.get_yticklabels()]
    assert rows == ["BoostQA: refine off", "BoostQA: replay 0.7 (midtrain)", "LinkQA: length 3"]

    def filled(ax):
        dots = [line for line in ax.lines if line.get_marker() == "o"]
        return [dot.get_markerfacecolor() == dot.get_color() for dot in dots]

    assert filled(weak) == [False, False, False]
    assert filled(every) == [True, False, False]


def test_panels_of_accuracies_have_one_scale_and_an_exam_of_zeros_takes_little_room():
    rows = [(arm, exam, a, max(a - 0.05, 0), a + 0.05, 400) for arm in ("base", "boostqa")
            for exam, a in (("wide", 0.1 if arm == "base" else 0.9), ("zeros", 0.0))]  # fmt: skip
    wide, zeros = plots.arms(frame("arm exam accuracy low high n", *rows)).axes
    scales = [np.ptp(ax.get_xlim()) / ax.get_position().width for ax in (wide, zeros)]
    assert scales[0] == pytest.approx(scales[1], rel=0.02)
    assert zeros.get_position().width < 0.4 * wide.get_position().width


def test_survival_starts_at_the_first_step_and_computes_shares_of_it():
    asked = frame("difficulty step n", ("H1", "asked", 50), ("all", "asked", 100))
    table = pd.concat([asked, SURVIVAL[SURVIVAL["difficulty"] != "H5"][["difficulty", "step", "n"]]])
    [ax] = plots.survival(table).axes
    assert ax.get_ylabel() == "share of those asked (%), 95% interval"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["asked", "written", "at its level", "refined"]
    lines = {bars.get_label(): bars.lines[0].get_ydata() for bars in ax.containers}
    assert lines["H1 (n = 50)"] == pytest.approx([100, 80, 80, 76])
    assert lines["all (n = 100)"] == pytest.approx([100, 40, 33, 29])


def test_the_legend_of_losses_follows_the_order_of_the_lines_at_their_end():
    steps = np.arange(1, 401)
    ends = {"boostqa": 0.4, "general_control": 0.9, "linkqa": 0.6}
    metrics = pd.concat([
        pd.DataFrame({"step": steps, "tokens": steps * 1000, "loss": end + 1 / steps, "lr": 1e-3, "arm": arm})
        for arm, end in ends.items()
    ])  # fmt: skip
    figure = plots.loss(metrics)
    [legend] = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["general control: 0.90", "LinkQA: 0.60", "BoostQA: 0.40"]
    assert says(figure, "mean over 16 steps")
    line = figure.axes[0].lines[0]
    assert len(line.get_xdata()) == 25
    assert line.get_ydata()[0] == pytest.approx(0.9 + (1 / steps[:16]).mean())


def test_means_of_losses_leave_no_step_out():
    table = LOSS.loc[[0] * 7].assign(step=range(7), tokens=range(7), loss=[1.0, 2, 3, 4, 5, 6, 7.0])
    [line] = plots.loss(table, points=2).axes[0].lines
    assert line.get_ydata() == pytest.approx([2.0, 5.5])
    assert line.get_xdata().tolist() == [2, 6]


def test_schedules_that_share_a_rate_have_different_dashes_and_widths():
    steps = np.linspace(0, 1, 5)
    table = pd.concat([pd.DataFrame({"share": steps, "lr": 1e-3, "schedule": s}) for s in ("constant", "wsd")])
    lines = plots.schedules(table).axes[0].lines
    assert lines[0].get_linewidth() > lines[1].get_linewidth()
    assert lines[0].get_linestyle() != lines[1].get_linestyle()


def test_an_arrow_of_a_walk_is_not_covered_by_a_label():
    figure = drawn("graph_neighbourhood")
    [ax] = figure.axes
    labels = [text.get_window_extent() for text in ax.texts if text.get_text()]
    heads = [ax.transData.transform(text.xy) for text in ax.texts if text.arrow_patch]
    assert len(heads) == 2
    assert not any(box.contains(*head) for box in labels for head in heads)


def test_a_rare_reason_has_a_short_bar():
    report = frame("source rows_in reason count", ("a", 1000, "accepted", 996), ("a", 1000, "empty", 4))
    _, rejected = plots.seed_quality(report).axes
    assert rejected.get_xlim() == (0, 5)


def test_figures_state_n_and_interval():
    assert says(drawn("arms"), "n = 400")
    assert says(drawn("arms"), "no score")
    assert says(drawn("arms"), "95% interval")
    assert says(drawn("comparisons"), "−2.0")
    assert says(drawn("distribution"), "seeds (n = 3)")
    assert says(drawn("distribution"), "unknown")


def test_diagnostics_have_a_panel_for_every_number_that_is_there():
    figure = drawn("diagnostics")
    assert [ax.get_title(loc="left") for ax in figure.axes if ax.axison] == [
        "knowledge points reached", "Gini of visits", "KL of difficulties (nats)",
    ]  # fmt: skip
    assert says(figure, "popularity (n = 500)")
    assert {"40.0%", "95.0%", "0.70", "0.500", "none"} <= set(texts(figure))


def test_probes_over_time_pool_cells_by_n_and_leave_out_what_was_not_scored():
    every, physics, law = drawn("probes_over_time").axes
    assert [ax.get_title(loc="left") for ax in (every, physics, law)] == [
        "All questions\nn = 50 to 70", "Physics\nn = 50", "Law\nn = 20",
    ]  # fmt: skip
    assert len(physics.lines) == 2
    assert physics.lines[0].get_ydata() == pytest.approx([100 * 15 / 50, 100 * 35 / 50])
    assert every.lines[0].get_ydata()[0] == pytest.approx(100 * 25 / 70)
    assert len(law.lines[0].get_ydata()) == 1
    one = plots.probes_over_time(PROBES[PROBES["arm"] == "linkqa"].drop(columns="arm"), by="difficulty")
    assert [ax.get_title(loc="left").split("\n")[0] for ax in one.axes] == ["All questions", "H1", "H5"]
    assert not one.legends


def test_seed_quality_counts_every_row_once_and_names_every_reason():
    figure = drawn("seed_quality")
    titles = [ax.get_title(loc="left").replace("\n", " ") for ax in figure.axes]
    assert titles == ["accepted n = 3", "duplicate n = 1", "empty question n = 1"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["rows (n = 2)", "chinese (n = 3)"]
    assert says(figure, "3 of 5 rows accepted")
    assert {"100.0", "33.3"} <= set(texts(figure.axes[0]))
    assert figure.axes[1].get_xlim() == figure.axes[2].get_xlim()


def test_seed_quality_pools_the_rarest_reasons_and_draws_sources_without_faults():
    counts = [("a", 100, "accepted", 64), *(("a", 100, f"reason_{i}", i) for i in range(1, 9))]
    report = frame("source rows_in reason count", *counts, ("b", 7, "accepted", 7))
    panels = plots.seed_quality(report).axes
    assert len(panels) == 7
    assert panels[-1].get_title(loc="left") == "other reasons\nn = 6"
    assert sum(bar.get_width() for ax in panels for bar in ax.patches) == pytest.approx(200)
    assert len(plots.seed_quality(report[report["source"] == "b"]).axes) == 1


def test_lengths_show_the_median_of_every_source_and_language():
    figure = drawn("lengths")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["rows, en (n = 2)", "chinese, zh (n = 1)"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "7"]
    assert says(figure, "characters of the answer")
    one = plots.lengths(SEEDS, by="language")
    assert [label.get_text() for label in one.axes[0].get_yticklabels()] == ["en (n = 2)", "zh (n = 1)"]


def test_distribution_takes_counts_as_well_as_questions():
    counts = frame("source difficulty n", ("seeds", "H1", 1), ("seeds", "H5", 1), ("linkqa", "H1", 2))
    rows = QUESTIONS.dropna()
    assert texts(plots.distribution(counts, "difficulty")) == texts(plots.distribution(rows, "difficulty"))


def test_scaling_refuses_unknown_axes_and_sizes_without_logarithm():
    with pytest.raises(ValueError, match="axis must be one of"):
        plots.scaling(SCALING.assign(axis="epochs"))
    with pytest.raises(ValueError, match="positive"):
        plots.scaling(SCALING.iloc[:1].assign(x=0.0))
    with pytest.raises(ValueError, match="found inf"):
        plots.scaling(SCALING.assign(x=[1.0, np.inf, 1e12]))


def test_graph_refuses_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="81 nodes"):
        plots.graph_neighbourhood(nx.path_graph(81))
    with pytest.raises(ValueError, match="leaves the graph"):
        plots.graph_neighbourhood(nx.path_graph(3), [0, 2])


@pytest.mark.filterwarnings("ignore:no Chinese font")
def test_chinese_labels_stay_text_in_svg(tmp_path):
    graph = nx.path_graph(["牛顿第二定律", "$m$ and < &"])
    _, svg, _ = plots.save(plots.graph_neighbourhood(graph), tmp_path / "graph")
    assert "牛顿第二定律" in svg.read_text(encoding="utf-8")
    assert "$m$ and &lt; &amp;" in svg.read_text(encoding="utf-8")


def test_degrees_of_a_graph_without_links_are_refused():
    with pytest.raises(ValueError, match="none of 2 knowledge points has a neighbour"):
        plots.kp_degree(pd.DataFrame({"degree": [0, 0]}))


@pytest.mark.parametrize("lost", [1, len(FRONTIER)])
def test_points_without_a_correlation_are_counted_in_the_figure(lost):
    table = FRONTIER.reset_index(drop=True)
    table.loc[: lost - 1, "popularity_correlation"] = np.nan
    texts = [text.get_text() for text in plots.frontier(table).axes[0].texts]
    assert any(text.startswith(f"{lost} of {len(table)} points have no correlation") for text in texts)


def test_a_failed_save_leaves_the_old_figure(tmp_path):
    png, *_ = plots.save(plots.kp_degree(DEGREES), tmp_path / "figure")
    old = png.read_bytes()
    broken = plots.kp_degree(DEGREES)
    broken.axes[0].set_title("$\\frac{$")
    with pytest.raises(ValueError, match="frac"):
        plots.save(broken, tmp_path / "figure")
    assert png.read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.pdf", "figure.png", "figure.svg"]


def test_numbers_read_as_the_field_writes_them():
    assert [short_count(x) for x in (50_000, 160_000, 2.1e6, 1.24e9, 40e9)] == ["50k", "160k", "2.1M", "1.24B", "40B"]
    assert [power(x) for x in (1e12, 3.2e12)] == ["1e12", "3.2e12"]
    assert [signed(x) for x in (-0.2, 0.2, -3.6)] == ["+0", "+0", "−4"]
    assert [signed(x, 1) for x in (-0.2, -0.04)] == ["−0.2", "+0.0"]


def test_spread_labels_keep_order_distance_and_bounds():
    placed = spread([5.0, 5.1, 0.0, 4.9], 1.0, 0.0, 5.5)
    assert list(np.argsort(placed)) == [2, 3, 0, 1]
    assert np.diff(np.sort(placed)).min() >= 0.98
    assert placed.max() <= 5.5


def test_a_confusion_figure_writes_the_counts_and_leaves_empty_cells_blank():
    axes = plots.confusion(CONFUSION).axes[0]
    assert sorted(filter(None, (text.get_text() for text in axes.texts))) == ["1", "2", "8", "9"]
    assert "n = 20" in axes.get_title("left")
    with pytest.raises(ValueError, match="same labels on both sides"):
        plots.confusion(CONFUSION.iloc[:2])


def test_a_distribution_takes_labels_of_any_type_and_an_empty_data_set():
    table = frame("source difficulty n", (1, 3, 2), ("x", 4, 3), (1, None, 2), ("empty", 3, 0))
    figure = plots.distribution(table, "difficulty")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1 (n = 4)", "x (n = 3)", "empty (n = 0)"]
    assert says(figure, "unknown")
