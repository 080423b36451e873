"""Heat-maps over discipline and difficulty: accuracy, gain and synthesis budget."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, TwoSlopeNorm, to_rgb
from matplotlib.patches import Rectangle

from qatoolkit.core.taxonomy import STEM
from qatoolkit.figures.style import INTERVAL, MUTED, canvas, n_text, name, order, require, room, signed, styled

PLAIN, GREY = to_rgb("#F2F2F2"), to_rgb("#DADADA")
LOW_N = (
    30  # at 30 questions the 95% interval of a share near one half is 34 points wide: below, a colour would show noise
)


def _with_margins(cells, columns, summarise):
    """Append the summary of every row, every column and everything under the key "all"; ValueError where that is there."""
    if cells[["discipline", "difficulty"]].eq("all").any(axis=None):
        raise ValueError("rows of discipline or difficulty 'all': drop them, the figure adds its own")
    cells = cells[["discipline", "difficulty", *columns]].astype({"discipline": object, "difficulty": object})
    margins = []
    for key in (["discipline"], ["difficulty"], []):
        for values, group in cells.groupby(key, sort=False) if key else [((), cells)]:
            place = {"discipline": "all", "difficulty": "all", **dict(zip(key, values, strict=True))}
            margins.append(place | summarise(group))
    return pd.concat([cells, pd.DataFrame(margins)], ignore_index=True)


def _pooled(*values):
    def summarise(group):
        scored = group[group["n"].gt(0) & group[[*values]].notna().all(axis=1)]
        n = scored["n"].sum()
        return {"n": n} | {value: (scored[value] * scored["n"]).sum() / n if n else np.nan for value in values}

    return summarise


def _rows(disciplines):
    """Position of every discipline and heading: STEM first, a gap, the others, and the margin last."""
    disciplines = order([d for d in disciplines if d != "all"], "discipline")
    groups = {
        "STEM": [d for d in disciplines if d in STEM],
        "Other disciplines": [d for d in disciplines if d not in STEM],
    }
    places, headings, y = {}, {}, 0.0
    for heading, members in groups.items():
        if members and all(groups.values()):
            headings[heading] = y - 0.1
            y += 0.8
        for member in members:
            places[member] = y
            y += 1
    return places | {"all": y + 0.2}, headings


def _cell(ax, x, y, cell, colour):
    known = not pd.isna(cell["value"])
    grey = known and cell["thin"]
    fill = GREY if grey else PLAIN if cell["plain"] or not known else to_rgb(colour(cell["value"]))
    ink = "white" if np.dot(fill, (0.299, 0.587, 0.114)) < 0.5 else "#4A4A4A" if grey else "#111111"
    ax.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=fill, linewidth=0, gid="thin" if grey else None))
    at = {"ha": "center", "va": "center", "color": ink}
    if not known:
        ax.text(x, y, "–", **at)
        return
    ax.text(
        x, y - 0.14 * bool(cell["note"]), cell["text"], fontsize=9, weight="bold" if cell["bold"] else "normal", **at
    )
    ax.text(x, y + 0.25, cell["note"], fontsize=6, **at)


def _grid(cells, *, cmap, norm, unit, title, ax, margin="all", legend=()):
    """Draw cells with columns value (for the colour), text, note, and the marks thin, bold, plain."""
    places, headings = _rows(cells["discipline"])
    levels = order([d for d in cells["difficulty"] if d != "all"], "difficulty")
    across = {level: float(i) for i, level in enumerate(levels)} | {"all": len(levels) + 0.2}
    bottom = places["all"] + 0.5
    labels = [*(margin if d == "all" else name(d) for d in places), *headings]
    width = max(2.6 + 0.98 * len(across), room(labels) + room([title], 10))
    figure, ax = canvas(ax, width, 1.2 + 0.36 * bottom)
    for cell in cells.to_dict("records"):
        marks = {"thin": False, "bold": False, "plain": False}
        x, y = across[cell["difficulty"]], places[cell["discipline"]]
        _cell(ax, x, y, marks | cell, lambda value: cmap(norm(value)))
    ax.set_yticks([*places.values(), *headings.values()], labels, rotation=0)
    for label in ax.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() in {*headings, margin} else "normal")

    ax.set_xticks(list(across.values()), [*map(name, levels), margin], rotation=0)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set(xlim=(-0.55, across["all"] + 0.55), ylim=(bottom, -0.6))
    ax.set_title(title, pad=14)
    ax.set_xlabel("; ".join(filter(None, legend)), fontsize=8, color=MUTED)
    bar = figure.colorbar(ScalarMappable(norm, cmap), ax=ax, fraction=0.035, pad=0.02, aspect=35)
    bar.set_label(unit)
    bar.outline.set_visible(False)
    return figure


def _bounds(cell):
    return f"{100 * cell['low']:.0f} to {100 * cell['high']:.0f}, " if pd.notna(cell.get("low")) else ""


def _widest(cells, least):
    """The largest size of a value that is shown in colour, at least `least`."""
    values = cells.loc[~cells["thin"].astype(bool), "value"].abs()
    return max(least, values.max()) if values.notna().any() else least


def _thin_note(cells, low_n):
    return f"grey: fewer than {low_n} questions" if cells["thin"].any() else ""


@styled
def accuracy_grid(cells, *, value="accuracy", title=None, low_n=LOW_N, ax=None):
    """Heat-map of accuracy by discipline and difficulty, with interval and n in each cell and pooled margins.

    `cells`: discipline, difficulty, n, `value` (a fraction), and low, high where known. Cells with n below
    `low_n` are grey instead of coloured, with their number: their intervals are wide (`LOW_N` says how wide).
    Raises ValueError for an empty table, missing columns or a repeated cell.
    """
    require(cells, "discipline", "difficulty", "n", value, key=("discipline", "difficulty"))
    bounds = [bound for bound in ("low", "high") if bound in cells]
    table = _with_margins(cells, ["n", value, *bounds], _pooled(value))
    table["value"], table["thin"] = 100 * table[value], table["n"] < low_n
    table["text"] = table["value"].map("{:.0f}%".format)
    table["note"] = [f"{_bounds(cell)}n {cell['n']:,.0f}" for cell in table.to_dict("records")]
    small = f"small: {INTERVAL} and n" if bounds else "small: n"
    title = title or f"{name(value).capitalize()} by discipline and difficulty ({n_text([cells['n'].sum()])})"
    return _grid(
        table, cmap=plt.get_cmap("viridis"), norm=Normalize(0, 100), unit=f"{name(value)} (%)",
        title=title, ax=ax, legend=[small, _thin_note(table, low_n)],
    )  # fmt: skip


@styled
def margin_grid(cells, *, title=None, low_n=LOW_N, ax=None):
    """Heat-map of the mean margin by discipline and difficulty: log-likelihood of the right choice minus that of the best wrong
    one, in nats; below zero the model prefers a wrong answer.

    `cells`: discipline, difficulty, n, margin (`probe.cells`). Cells with n below `low_n` are grey. Raises ValueError as
    `accuracy_grid` does.
    """
    require(cells, "discipline", "difficulty", "n", "margin", key=("discipline", "difficulty"))
    table = _with_margins(cells, ["n", "margin"], _pooled("margin"))
    table["value"], table["thin"] = table["margin"], table["n"] < low_n
    table["text"] = (table["value"].round(1) + 0.0).map(lambda nats: f"{nats:+.1f}".replace("-", "−"))
    table["note"] = table["n"].map("n {:,.0f}".format)
    widest = _widest(table, 1.0)
    title = title or f"Mean margin by discipline and difficulty ({n_text([cells['n'].sum()])})"
    return _grid(
        table, cmap=plt.get_cmap("PuOr"), norm=TwoSlopeNorm(0, -widest, widest), unit="margin (nats)",
        title=title, ax=ax, legend=["small: n", _thin_note(table, low_n)],
    )  # fmt: skip


@styled
def grid_difference(cells_a, cells_b, *, value="accuracy", title=None, low_n=LOW_N, ax=None):
    """Heat-map of the gain from `cells_a` (before) to `cells_b` (after), in points.

    Tables as for `accuracy_grid`. Bold: the two intervals do not overlap. n is the smaller of the two. Raises
    ValueError as `accuracy_grid` does.
    """
    columns = ["n", value, "low", "high"]
    for cells in (cells_a, cells_b):
        require(cells, "discipline", "difficulty", *columns, key=("discipline", "difficulty"))
    sides = [cells[["discipline", "difficulty", *columns]] for cells in (cells_a, cells_b)]
    table = sides[0].merge(sides[1], on=["discipline", "difficulty"], how="outer", suffixes=("_a", "_b"), sort=False)
    table["n"] = table[["n_a", "n_b"]].min(axis=1, skipna=False)
    # Both sides of a margin pool the same cells with the same weights, so that a change of mix is no gain.
    bounds = ["low_a", "high_a", "low_b", "high_b"]
    table = _with_margins(table, ["n", f"{value}_a", f"{value}_b", *bounds], _pooled(f"{value}_a", f"{value}_b"))
    table["value"] = 100 * (table[f"{value}_b"] - table[f"{value}_a"])
    table["thin"] = ~(table["n"] >= low_n)
    table["bold"] = (table["low_b"] > table["high_a"]) | (table["high_b"] < table["low_a"])
    table["text"] = table["value"].map(signed)
    table["note"] = [
        f"{100 * a:.0f}% → {100 * b:.0f}%, n {n:,.0f}"
        for a, b, n in zip(table[f"{value}_a"], table[f"{value}_b"], table["n"], strict=True)
    ]
    widest = _widest(table, 10.0)
    legend = ["small: before → after, n", f"bold: {INTERVAL}s do not overlap", _thin_note(table, low_n)]
    title = title or f"Gain in {name(value)} by discipline and difficulty"
    return _grid(
        table, cmap=plt.get_cmap("PuOr"), norm=TwoSlopeNorm(0, -widest, widest), unit="gain (points)",
        title=title, ax=ax, legend=legend,
    )  # fmt: skip


@styled
def budget(plan, *, title=None, ax=None):
    """Heat-map of the synthesis budget by cell, with the deficit that earned it.

    `plan`: discipline, difficulty, budget (questions), deficit (fraction). Raises ValueError as
    `accuracy_grid` does.
    """
    require(plan, "discipline", "difficulty", "budget", "deficit", key=("discipline", "difficulty"))
    table = _with_margins(plan, ["budget", "deficit"], lambda group: {"budget": group["budget"].sum()})
    # Totals would swallow the colour scale, so the margins stay uncoloured.
    table["value"], table["plain"] = (table["budget"], table[["discipline", "difficulty"]].eq("all").any(axis=1))
    table["text"] = table["budget"].map("{:,.0f}".format)
    table["note"] = ["" if pd.isna(deficit) else f"deficit {100 * deficit:.0f}" for deficit in table["deficit"]]
    largest = max(1.0, plan["budget"].max())
    title = title or f"Synthesis budget by discipline and difficulty ({plan['budget'].sum():,.0f} questions)"
    return _grid(
        table, cmap=plt.get_cmap("YlGnBu"), norm=Normalize(0, largest), unit="budget (questions)",
        margin="total", title=title, ax=ax, legend=["small: deficit, points below target"],
    )  # fmt: skip


@styled
def confusion(table, *, title=None, ax=None):
    """Heat-map of a confusion table: true labels in rows, labels given in columns, counts written, colour by share of the row.

    `table`: square, counts, labelled alike on both sides. Rows without a question stay blank. Raises ValueError
    for a table that is not square.
    """
    if list(table.index) != list(table.columns) or table.empty:
        raise ValueError(f"a confusion table has the same labels on both sides; this one is {table.shape}")
    counts = table.to_numpy(float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    size = len(table)
    figure, ax = canvas(ax, 1.9 + 0.42 * size, 1.3 + 0.34 * size)
    colours = plt.get_cmap("Blues")
    ax.imshow(100 * shares, cmap=colours, vmin=0, vmax=100, aspect="auto")
    for (y, x), count in np.ndenumerate(counts):
        if count:
            dark = shares[y, x] > 0.55
            ax.text(x, y, f"{count:,.0f}", ha="center", va="center", fontsize=8, color="white" if dark else "#111111")
    labels = [name(label) for label in table.index]
    upright = max(map(len, labels)) > 3
    ax.set_xticks(range(size), labels, rotation=45 if upright else 0, ha="right" if upright else "center")
    ax.set_yticks(range(size), labels)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.set_xlabel("label given")
    ax.set_ylabel("true label")
    ax.set_title(title or f"Questions by true and given label, {n_text([counts.sum()])}")
    return figure
