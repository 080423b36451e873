"""Heat-maps over discipline and difficulty (accuracy, margin, gain, synthesis budget), and of confusion tables.

The wider a cell's 95% interval, the paler its colour, so that strong colours are reliable. If most cells have few
questions, the pooled rows and columns come first."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, TwoSlopeNorm, to_rgb
from matplotlib.patches import Rectangle

from qatoolkit.core.stats import CELL, mcnemar, mcnemar_p
from qatoolkit.core.taxonomy import STEM
from qatoolkit.figures.style import (
    INTERVAL,
    MUTED,
    ORANGE,
    canvas,
    n_text,
    name,
    order,
    require,
    signed,
    styled,
    text_width,
)

PLAIN = to_rgb("#F2F2F2")
SMALL = 30  # questions; with fewer, the 95% interval of a share near one half is over 34 points wide


def _with_margins(cells, columns, summarise):
    """Append summaries of each row, each column and all cells, under the key "all"."""
    if cells[CELL].eq("all").any(axis=None):
        raise ValueError("rows of discipline or difficulty 'all': drop them, the figure computes them")
    cells = cells[[*CELL, *columns]].astype(dict.fromkeys(CELL, object))
    margins = [{key: value, other: "all"} | summarise(group)
               for key, other in (CELL, CELL[::-1]) for value, group in cells.groupby(key, sort=False)]  # fmt: skip
    margins.append(dict.fromkeys(CELL, "all") | summarise(cells))
    return pd.concat([cells, pd.DataFrame(margins)], ignore_index=True)


def _pool(value):
    """A function that pools a group's `value` by n."""

    def summarise(group):
        scored = group[group["n"].gt(0) & group[value].notna()]
        n = scored["n"].sum()
        return {"n": n, value: (scored[value] * scored["n"]).sum() / n if n else np.nan}

    return summarise


def _certainty(width):
    """The share of its colour that a cell keeps, from the width of its 95% interval (a fraction): all up to 0.17."""
    return np.clip(1.2 * (1 - width), 0.2, 1.0)


def _widest(n):
    """The width of Wilson's 95% interval of a share of one half, the widest for `n` questions."""
    return 1.96 / np.sqrt(np.asarray(n, float) + 1.96**2)


def _rows(disciplines, margin_first):
    """The positions of disciplines and of headings: STEM, a gap, the others; the margin first or last."""
    disciplines = order([d for d in disciplines if d != "all"], "discipline")
    stem = [d for d in disciplines if d in STEM]
    groups = {"STEM": stem, "Other disciplines": [d for d in disciplines if d not in stem]}
    places, headings, y = {"all": 0.0} if margin_first else {}, {}, 1.0 if margin_first else 0.0
    for heading, members in groups.items():
        if all(groups.values()):
            headings[heading] = y - 0.1
            y += 0.8
        for member in members:
            places[member] = y
            y += 1
    return places if margin_first else places | {"all": y + 0.2}, headings


def _draw_cell(ax, x, y, cell, colour):
    known = pd.notna(cell["value"])
    kept = 0.0 if cell.get("plain") or not known else cell.get("sure", 1.0)
    fill = PLAIN if not kept else kept * np.array(to_rgb(colour(cell["value"]))) + (1 - kept) * np.array(PLAIN)
    luminance = np.dot(np.power(fill, 2.2), (0.2126, 0.7152, 0.0722))  # relative luminance of WCAG
    ink = "white" if luminance < 0.18 else "#111111"
    ax.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=fill, linewidth=0))
    if cell.get("outlined"):
        box = {"fill": False, "edgecolor": ORANGE, "linewidth": 1.4, "zorder": 3, "gid": "outlined"}
        ax.add_patch(Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, **box))
    at = {"ha": "center", "va": "center", "color": ink}
    if not known:
        ax.text(x, y, "–", **at)
        return
    weight = "bold" if cell.get("bold") else "normal"
    ax.text(x, y - 0.14 * bool(cell["note"]), cell["text"], fontsize=9, weight=weight, **at)
    ax.text(x, y + 0.25, cell["note"], fontsize=6, **at)


def _mark_weak(table, weak):
    """The table with a column `outlined`: whether the cell is in the table `weak`, if given."""
    inside = set() if weak is None else set(map(tuple, weak[CELL].to_numpy()))
    return table.assign(outlined=[tuple(cell) in inside for cell in table[CELL].to_numpy()])


def _draw_grid(cells, *, cmap, norm, unit, title, ax, legend, margin="all", extend="neither"):
    """Draw cells with columns value (for the colour), text, note, and optionally sure (the share of the colour to
    keep), bold, plain, outlined."""
    inner = cells[~cells[CELL].eq("all").any(axis=1)]
    first = "sure" in cells and inner.loc[inner["n"] > 0, "n"].median() < SMALL
    places, headings = _rows(cells["discipline"], first)
    levels = order([d for d in cells["difficulty"] if d != "all"], "difficulty")
    across = {level: i + 1.2 * first for i, level in enumerate(levels)} | {"all": 0.0 if first else len(levels) + 0.2}
    bottom = max(places.values()) + 0.5
    labels = [*(margin if d == "all" else name(d) for d in places), *headings]
    width = max(2.6 + 0.98 * len(across), text_width(labels) + text_width([title], 10))
    figure, ax = canvas(ax, width, 1.2 + 0.36 * bottom)
    cmap = plt.get_cmap(cmap)
    for cell in cells.to_dict("records"):
        x, y = across[cell["difficulty"]], places[cell["discipline"]]
        _draw_cell(ax, x, y, cell, lambda value: cmap(norm(value)))
    ax.set_yticks([*places.values(), *headings.values()], labels, rotation=0)
    for label in ax.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() in {*headings, margin} else "normal")
    ax.set_xticks(list(across.values()), [*map(name, levels), margin], rotation=0)
    ax.set(xlim=(-0.55, max(across.values()) + 0.55), ylim=(bottom, -0.6))
    if "sure" in cells:
        legend += "; pale: wide interval"
    if "outlined" in cells and cells["outlined"].any():
        legend += "; framed: weak"
    return _finish(figure, ax, ScalarMappable(norm, cmap), title, legend, unit, extend)


def _finish(figure, ax, colours, title, legend, unit, extend):
    """Add title, legend and colour bar to a drawn grid; `extend` as in matplotlib: ends with values beyond the scale."""
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_title(title, pad=14)
    ax.set_xlabel(legend, fontsize=8, color=MUTED)
    bar = figure.colorbar(colours, ax=ax, fraction=0.035, pad=0.02, aspect=35, extend=extend)
    bar.set_label(unit)
    bar.outline.set_visible(False)
    return figure


def _centre_colours(cells, least):
    """A colour scale symmetric about zero, at least up to `least`: up to the 95th percentile of the sizes of cells that
    keep at least half their colour, so that one extreme cell does not pale all others."""
    sizes = cells["value"].abs()
    widest = np.nanmax([least, sizes[cells["sure"] >= 0.5].quantile(0.95, interpolation="lower")])
    extend = "both" if sizes.max() > widest else "neither"
    return {"cmap": "PuOr", "norm": TwoSlopeNorm(0, -widest, widest), "extend": extend}


@styled
def accuracy_grid(cells, *, weak=None, title=None, ax=None):
    """Heat-map of accuracy by discipline and difficulty, with interval and n in each cell, and pooled margins.

    `cells`: discipline, difficulty, n, accuracy, low, high (fractions). `weak`: a table of cells to frame, as in the
    plan. ValueError for an empty table, missing columns or a repeated cell.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> samples = pd.DataFrame({"discipline": ["physics", "law"] * 20, "difficulty": "H1"})
    >>> samples["correct"] = [True, False] * 20
    >>> figure = qt.figures.accuracy_grid(qt.cells(samples))
    >>> type(figure).__name__
    'Figure'
    """
    require(cells, *CELL, "n", "accuracy", "low", "high", key=CELL)
    table = _with_margins(cells, ["n", "accuracy", "low", "high"], _pool("accuracy"))
    table["value"] = 100 * table["accuracy"]
    table["sure"] = _certainty((table["high"] - table["low"]).fillna(pd.Series(_widest(table["n"]))))
    table["text"] = table["value"].map("{:.0f}%".format)
    table["note"] = [
        (f"{100 * low:.0f} to {100 * high:.0f}, " if low == low else "") + f"n {n:,.0f}"  # margins have no interval
        for low, high, n in table[["low", "high", "n"]].to_numpy(float)
    ]
    return _draw_grid(
        _mark_weak(table, weak), cmap="viridis", norm=Normalize(0, 100), unit="accuracy (%)", ax=ax,
        title=title or f"Accuracy by discipline and difficulty ({n_text([cells['n'].sum()])})",
        legend=f"small: {INTERVAL} and n",
    )  # fmt: skip


@styled
def margin_grid(cells, *, weak=None, title=None, ax=None):
    """Heat-map of the mean margin by discipline and difficulty.

    The margin is the log-likelihood of the right choice minus that of the best wrong one, in nats; below zero the model
    prefers a wrong answer. `cells`: discipline, difficulty, n, margin (`core.stats.cells`). Cells with few questions
    are pale. `weak` and errors as in `accuracy_grid`.
    """
    require(cells, *CELL, "n", "margin", key=CELL)
    table = _with_margins(cells, ["n", "margin"], _pool("margin"))
    table["value"], table["sure"] = table["margin"], _certainty(_widest(table["n"]))
    table["text"] = table["value"].map(lambda nats: signed(nats, 1))
    table["note"] = table["n"].map("n {:,.0f}".format)
    return _draw_grid(
        _mark_weak(table, weak), **_centre_colours(table, 1.0), unit="margin (nats)", ax=ax, legend="small: n",
        title=title or f"Mean margin by discipline and difficulty ({n_text([cells['n'].sum()])})",
    )  # fmt: skip


@styled
def grid_difference(before, after, *, weak=None, title="Gain in accuracy by discipline and difficulty", ax=None):
    """Heat-map of the gain in accuracy from `before` to `after`, in points, with pooled margins: samples of two models
    on the same questions.

    Both: id, correct, discipline, difficulty. Bold: p of McNemar's paired test is below 0.05, margins included (an
    exact test for few questions, of which a bootstrap interval is often a single point). Cells with few questions are
    pale. `weak` as in `accuracy_grid`. ValueError if the ids differ or a `correct` is null.
    """
    for samples in (before, after):
        require(samples, "id", "correct", *CELL, key=["id"])
    mcnemar(before, after)  # for its errors
    paired = before[["id", "correct", *CELL]].merge(after[["id", "correct"]], on="id", suffixes=("_a", "_b"))
    pooled = [dict.fromkeys(keys, "all") for keys in ([], CELL[:1], CELL[1:], CELL)]
    rows = []
    for cell, group in pd.concat([paired.assign(**keys) for keys in pooled]).groupby(CELL, sort=False):
        a, b = (group[f"correct_{side}"].to_numpy(bool) for side in "ab")
        shares, p = [100 * side.mean() for side in (a, b)], mcnemar_p(int((a & ~b).sum()), int((b & ~a).sum()))
        note = f"{shares[0]:.0f} → {shares[1]:.0f}, n {len(a):,}"
        about = {"n": len(a), "value": shares[1] - shares[0], "bold": p < 0.05, "note": note}
        rows.append(dict(zip(CELL, cell, strict=True)) | about)
    table = pd.DataFrame(rows)
    table["sure"], table["text"] = _certainty(_widest(table["n"])), table["value"].map(signed)
    return _draw_grid(
        _mark_weak(table, weak), **_centre_colours(table, 10.0), unit="gain (points)", title=title, ax=ax,
        legend="small: before → after (%), n; bold: p < 0.05 (McNemar's paired test)",
    )  # fmt: skip


@styled
def budget(plan, *, low_n=None, title=None, ax=None):
    """Heat-map of the synthesis budget by cell, with the deficit of the cell.

    `plan`: discipline, difficulty, budget (questions), deficit (fraction), and with `low_n` (the setting `plan.low_n`)
    n, the probe's questions: cells with fewer are marked as too few to judge, others without a deficit as on target.
    Errors as in `accuracy_grid`.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> grid = pd.DataFrame({"discipline": ["physics", "physics", "law"], "difficulty": ["H1", "H2", "H1"]})
    >>> grid = grid.assign(n=40, accuracy=[0.65, 0.35, 0.90])
    >>> figure = qt.figures.budget(qt.plan_budget(grid, qt.PlanSettings(questions=90)))
    >>> type(figure).__name__
    'Figure'
    """
    require(plan, *CELL, "budget", "deficit", *(["n"] if low_n else []), key=CELL)
    notes = plan["deficit"].map(lambda deficit: "" if pd.isna(deficit) else f"deficit {100 * deficit:.0f}")
    legend = "small: deficit, points below target"
    if low_n:
        notes = notes.mask(plan["deficit"] == 0, plan["n"].ge(low_n).map({True: "on target", False: "too few"}))
        legend += f"; too few: fewer than {low_n} questions to judge by"
    table = _with_margins(
        plan.assign(note=notes), ["budget", "note"], lambda group: {"budget": group["budget"].sum(), "note": ""}
    )
    # Totals are far above the budgets of cells and would take up the whole colour scale, so they are not coloured.
    table["value"], table["plain"] = table["budget"], table[CELL].eq("all").any(axis=1)
    table["text"] = table["budget"].map("{:,.0f}".format)
    return _draw_grid(
        table, cmap="YlGnBu", norm=Normalize(0, max(1.0, plan["budget"].max())), unit="budget (questions)", ax=ax,
        title=title or f"Synthesis budget by discipline and difficulty ({plan['budget'].sum():,.0f} questions)",
        legend=legend, margin="total",
    )  # fmt: skip


@styled
def confusion(table, *, title=None, ax=None):
    """Heat-map of a confusion table: true labels in rows, given labels in columns, coloured by share of the row.

    `table`: counts, with the same labels on both sides. Rows without questions are blank. ValueError for a table that
    is not square.
    """
    import seaborn as sns  # imported late, because it loads scipy.stats

    if list(table.index) != list(table.columns) or table.empty:
        raise ValueError(f"a confusion table has the same labels on both sides; this one is {table.shape}")
    labels = [name(label) for label in table.index]
    title = title or f"Questions by true and given label, {n_text([table.to_numpy().sum()])}"
    figure, ax = canvas(ax, max(1.9 + 0.42 * len(labels), text_width([title], 10)), 1.3 + 0.34 * len(labels))
    sns.heatmap(
        table.div(table.sum(axis=1), axis=0), vmin=0, vmax=1, cmap="Blues", cbar=False, ax=ax, fmt="",
        annot=table.map(lambda n: f"{n:,.0f}" if n else ""), annot_kws={"fontsize": 8},
        xticklabels=labels, yticklabels=labels,
    )  # fmt: skip
    ax.tick_params("x", rotation=45 if max(map(len, labels)) > 3 else 0, rotation_mode="xtick")
    ax.tick_params("y", rotation=0)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.set(xlabel="label given", ylabel="true label", title=title)
    return figure


@styled
def attribution(matrix, *, title=None, ax=None):
    """Heat-map of the effect of parts of the data on exam cells, in points: parts in rows, exam cells with n in
    columns.

    `matrix` from `qt.stages.attribution`: part, on, difference (with the part minus without it), low, high, n, and
    p_holm if tested. Bold: the interval excludes 0. Framed: p below 0.05 after Holm's correction. Cells without a p
    (few questions) are grey. ValueError for an empty table, missing columns or a repeated pair.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> matrix = pd.DataFrame({"part": ["physics", "law"], "on": "physics", "difference": [0.2, 0.0], "n": 80})
    >>> matrix = matrix.assign(low=[0.1, -0.05], high=[0.3, 0.05], p_holm=[0.01, 1.0])
    >>> type(qt.figures.attribution(matrix)).__name__
    'Figure'
    """
    require(matrix, "part", "on", "difference", "low", "high", "n", "p_holm", key=["part", "on"])
    table = matrix.assign(
        value=100 * matrix["difference"], note="", sure=_certainty(matrix["high"] - matrix["low"]),
        bold=(matrix["low"] > 0) | (matrix["high"] < 0), outlined=matrix["p_holm"] < 0.05, plain=matrix["p_holm"].isna(),
    )  # fmt: skip
    table["text"] = table["value"].map(signed)
    parts, columns = (order(order(table[key], "difficulty"), "discipline") for key in ("part", "on"))
    columns.sort(key=lambda on: on != "all")
    counts = dict(zip(table["on"], table["n"], strict=True))
    heads, labels = [f"{name(on)} (n {counts[on]:,})" for on in columns], [name(part) for part in parts]
    title = title or "Accuracy with a part of the data minus without it"
    legend = f"bold: {INTERVAL} excludes 0; framed: p < 0.05 (Holm)\npale: wide interval; grey: few questions"
    width = max(1.2 + text_width(labels) + 0.5 * len(columns), text_width([title], 10), 4.5)
    figure, ax = canvas(ax, width, 1.6 + text_width(heads) + 0.3 * len(parts))
    scale = _centre_colours(table[~table["plain"]], 10.0)
    cmap, norm = plt.get_cmap(scale["cmap"]), scale["norm"]
    for cell in table.to_dict("records"):
        _draw_cell(ax, columns.index(cell["on"]), parts.index(cell["part"]), cell, lambda value: cmap(norm(value)))
    ax.set_yticks(range(len(parts)), labels)
    ax.set_xticks(range(len(columns)), heads, rotation=90)
    ax.set(xlim=(-0.55, len(columns) - 0.45), ylim=(len(parts) - 0.4, -0.6))
    return _finish(figure, ax, ScalarMappable(norm, cmap), title, legend, "difference (points)", scale["extend"])
