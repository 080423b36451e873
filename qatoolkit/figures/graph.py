"""Figures of the knowledge-point (KP) graph and of the paths sampled from it."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.ticker import FuncFormatter

from qatoolkit.figures.style import (
    BACKED,
    BLUE,
    ORANGE,
    canvas,
    label_ends,
    label_points,
    line_styles,
    log_ticks,
    name,
    name_rows,
    require,
    short_count,
    styled,
)

LARGEST_DRAWING = 80
PANELS = {  # column of `path_diagnostics`: title of its panel, format of its values
    "coverage": ("knowledge points reached", "{:.1%}"),
    "gini": ("Gini of visits", "{:.2f}"),
    "entropy_bits": ("entropy of visits (bits)", "{:.2f}"),
    "spearman": ("correlation with popularity", "{:.2f}"),
    "distinct_seeds": ("distinct seeds", "{:,.0f}"),
    "kl_discipline": ("KL of disciplines (nats)", "{:.3f}"),
    "kl_difficulty": ("KL of difficulties (nats)", "{:.3f}"),
}


@styled
def kp_degree(degrees, *, title="Degree of knowledge points", ax=None):
    """Share of KPs with at least each degree (complementary cumulative distribution), both axes logarithmic.

    `degrees`: column degree, one row per KP. KPs without neighbours can't be drawn on a log axis; a note counts them.
    ValueError if no KP has a neighbour.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> table = pd.DataFrame({"id": ["q1", "q2"], "knowledge_points": [["Ohm's law", "power"], ["power", "energy"]]})
    >>> figure = qt.figures.kp_degree(qt.build_kp_graph(table).degrees())
    >>> type(figure).__name__
    'Figure'
    """
    require(degrees, "degree")
    values = np.sort(degrees["degree"].to_numpy())
    if values[-1] <= 0:
        raise ValueError(f"none of {len(values)} knowledge points has a neighbour, so there is no degree to draw")
    levels, first = np.unique(values, return_index=True)
    share = 100 * (1 - first / len(values))
    figure, ax = canvas(ax, 5.2, 3.7)
    ax.plot(levels[levels > 0], share[levels > 0], "o-", color=BLUE, markersize=3.5, linewidth=1)
    ax.set_xscale("log")
    ax.set_yscale("log")
    log_ticks(ax.xaxis, levels[levels > 0])
    log_ticks(ax.yaxis, share[levels > 0])
    ax.set_xlabel("degree (knowledge points it is linked to)")
    ax.set_ylabel("share of knowledge points\nwith at least this degree (%)")
    facts = (
        f"n = {len(values):,} knowledge points",
        f"median {np.median(values):g}, largest {values[-1]:,}",
        f"{(values == 0).sum():,} without neighbours",
    )
    ax.text(0.97, 0.95, "\n".join(facts), transform=ax.transAxes, ha="right", va="top", fontsize=8)
    ax.set_title(title)
    return figure


@styled
def coverage(table, *, title="Knowledge points reached by sampled paths", ax=None):
    """Share of visited KPs against the number of sampled paths, one line per policy.

    `table`: paths, coverage (fraction), policy.
    """
    require(table, "paths", "coverage", "policy", key=("policy", "paths"))
    figure, ax = canvas(ax, 5.8, 3.6)
    ends = []
    for policy, style in line_styles(table["policy"]).items():
        rows = table[table["policy"] == policy].sort_values("paths")
        y = 100 * rows["coverage"].to_numpy(float)
        ax.plot(rows["paths"], y, color=style["color"])
        ends.append((rows["paths"].to_numpy(float), y, name(policy), style["color"]))
    ax.set_ylim(0, 102)
    ax.set_xlim(left=0)
    ax.xaxis.set_major_formatter(FuncFormatter(short_count))
    ax.set_xlabel("paths sampled (n)")
    ax.set_ylabel("knowledge points reached (%)")
    ax.set_title(title)
    label_ends(ax, ends)
    return figure


@styled
def diagnostics(table, *, title="What walks cover, and how evenly"):
    """One panel per measure of `path_diagnostics`, one bar per sample of walks.

    `table`: walks (name of the sample), paths, and columns of `path_diagnostics`; columns with only nulls are left out.
    """
    require(table, "walks", "paths", key=("walks",))
    shown = [column for column in PANELS if column in table and table[column].notna().any()]
    if not shown:
        raise ValueError(f"nothing to draw: the table has no values in any of {list(PANELS)}")
    across = min(len(shown), 4)
    down = -(-len(shown) // across)
    size = (1.6 + 2.1 * across, 0.5 + down * (0.6 + 0.24 * len(table)))
    figure, axes = plt.subplots(down, across, figsize=size, sharey=True, squeeze=False)
    names = [f"{name(row.walks)} (n = {row.paths:,.0f})" for row in table.itertuples()]
    colours = [look["color"] for look in line_styles(table["walks"]).values()]
    for ax, column in zip(axes.flat, shown, strict=False):
        text, form = PANELS[column]
        values = table[column].astype(float)
        bars = ax.barh(range(len(table)), values.fillna(0.0), color=colours, height=0.7)
        ax.bar_label(bars, [form.format(v) if v == v else "none" for v in values], padding=2, fontsize=8)
        ax.margins(x=0.25)
        ax.set_title(text, fontsize=9)
        name_rows(ax, names)
        ax.xaxis.set_visible(False)
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    figure.suptitle(title)
    return figure


@styled
def frontier(table, *, title="Coverage against popularity", ax=None):
    """Correlation of visits with popularity against KP coverage: one point per value function, one line per alpha.

    `table`: alpha, beta, coverage (fraction), popularity_correlation, and optionally n (sampled paths per point). A
    note counts the points without a correlation.
    """
    require(table, "alpha", "beta", "coverage", "popularity_correlation", key=("alpha", "beta"))
    rows = table.dropna(subset="popularity_correlation").sort_values("coverage", kind="stable")
    x, y = 100 * rows["coverage"].to_numpy(float), rows["popularity_correlation"].to_numpy(float)
    figure, ax = canvas(ax, 5.6, 3.9)
    for _, line in rows.groupby("alpha"):
        line = line.sort_values("beta")
        ax.plot(100 * line["coverage"], line["popularity_correlation"], color="#BBBBBB", linewidth=1, zorder=1)
    ax.plot(x, y, "o", color=BLUE)
    ax.margins(x=0.16, y=0.12)
    paths = f", n = {int(table['n'].min()):,} paths per point" if "n" in table else ""
    ax.set_xlabel(f"knowledge points reached (%){paths}")
    ax.set_ylabel("correlation of visits with popularity")
    if missing := len(table) - len(rows):
        note = f"{missing} of {len(table)} points have no correlation:\nvisits or popularity do not vary"
        ax.text(0.97, 0.95, note, transform=ax.transAxes, ha="right", va="top", fontsize=8)
    ax.set_title(title)
    texts = [f"α {alpha:g}, β {beta:g}" for alpha, beta in zip(rows["alpha"], rows["beta"], strict=True)]
    look = {"fontsize": 8, "bbox": BACKED}
    label_points(ax, [(px, py, text, look) for px, py, text in zip(x, y, texts, strict=True)])
    return figure


@styled
def graph_neighbourhood(graph, path=None, *, title=None, ax=None):
    """A small networkx graph of KPs, edge widths by weight, with a numbered and highlighted walk.

    `path`: node ids in the order of the walk. A node's attribute "label" replaces its id. ValueError for an empty
    graph, more than 80 nodes, and a path that leaves the graph.
    """
    import networkx as nx

    nodes, path = list(graph.nodes), list(path or [])
    if not 0 < len(nodes) <= LARGEST_DRAWING:
        raise ValueError(f"cannot draw {len(nodes)} nodes (1 to {LARGEST_DRAWING}); pass the subgraph around a walk")
    steps = list(pairwise(path))
    absent = [n for n in path if n not in graph] + [step for step in steps if not graph.has_edge(*step)]
    if absent:
        raise ValueError(f"the path leaves the graph at {absent[0]!r}; pass a subgraph with the whole path")
    links = dict(nx.all_pairs_shortest_path_length(graph))
    beyond = 1 + max(max(reached.values()) for reached in links.values())  # distance between components
    layout = nx.kamada_kawai_layout(graph, dist={a: {b: links[a].get(b, beyond) for b in nodes} for a in nodes})
    figure, ax = canvas(ax, 8, 6)
    edges = list(graph.edges(data="weight", default=1))
    heaviest = max((weight for *_, weight in edges), default=1)
    widths = [0.4 + 2 * weight / heaviest for *_, weight in edges]
    lines = [(layout[a], layout[b]) for a, b, _ in edges]
    ax.add_collection(LineCollection(lines, linewidths=widths, colors="#D8D8D8"))
    heads = [0.45 * layout[a] + 0.55 * layout[b] for a, b in steps]  # at the middle, clear of the labels of points
    for (a, b), head in zip(steps, heads, strict=True):
        ax.plot(*zip(layout[a], layout[b], strict=True), color=ORANGE, linewidth=2, zorder=2)
        arrow = {"arrowstyle": "-|>", "color": ORANGE, "linewidth": 2, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 16}
        ax.annotate("", head, layout[a], arrowprops=arrow)
    labels = []
    for node in [*path, *(node for node in nodes if node not in path)]:
        step = path.index(node) + 1 if node in path else 0
        ax.plot(*layout[node], "o", color=ORANGE if step else BLUE, markersize=8 if step else 5, zorder=3)
        text = str(graph.nodes[node].get("label", node))
        text = (f"{step}. " if step else "") + (text if len(text) <= 32 else text[:31] + "…")
        back = {"bbox": BACKED, "zorder": 5 if step else 4}
        font = {"fontsize": 8.5, "weight": "bold"} if step else {"fontsize": 7}
        labels.append((*layout[node], text, {**font, **back, "parse_math": False}))
    ax.margins(0.12)
    ax.set_axis_off()
    count = f"n = {len(nodes)} knowledge points, {len(edges)} links"
    ax.set_title(f"{title or ('A walk and its neighbours' if path else 'Part of the graph')} ({count})")
    label_points(ax, labels, heads)
    return figure
