"""Figures of accuracies, differences, losses and rates: dots or lines with their intervals.

One function per figure, from a tidy table to a matplotlib Figure. Accuracies, shares and differences are fractions in
the table and percent or points in the figure; `low` and `high` bound the 95% interval that the caller computed. A
missing value is drawn as missing, never as zero. Every function raises ValueError for an empty table, missing columns
and repeated rows, and applies the house style only during the call.
"""

from functools import partial
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator, NullLocator

from qatoolkit.core.stats import CELL, wilson
from qatoolkit.figures.style import (
    AXES,
    BACKED,
    INTERVAL,
    MUTED,
    arm_name,
    canvas,
    dial_name,
    error_lengths,
    label_ends,
    line_styles,
    n_text,
    name,
    name_rows,
    order,
    require,
    short_count,
    shorten,
    signed,
    styled,
    text_width,
)

DASHES = ("-", (0, (4, 2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 3)), (0, (1, 1)))
PARTS = {"weak": "weak cells", "other": "other cells", "all": "all questions"}  # of the exams, as they are shown


def _draw_dots(ax, rows, names, value, colours, *, number="{:.1f}".format):
    """Draw dots with intervals at y = 0, 1, ..., in percent, hollow where a column `clear` is false; missing values as
    the text "no score"."""
    points, low, high = (100 * rows[column].to_numpy(float) for column in (value, "low", "high"))
    filled = rows["clear"] if "clear" in rows else [True] * len(rows)
    ax.hlines(np.arange(len(rows)), low, high, linewidth=1.4, color=colours)
    for y, (point, colour, is_clear) in enumerate(zip(points, colours, filled, strict=True)):
        if np.isnan(point):
            at = {"xycoords": ax.get_yaxis_transform(), "va": "center"}
            ax.annotate("no score", (0.03, y), color=MUTED, style="italic", **at)
            continue
        ax.plot(point, y, "o", color=colour, markerfacecolor=colour if is_clear else "white", zorder=4)
        at = {"textcoords": "offset points", "ha": "center", "fontsize": 8}
        ax.annotate(number(point), (point, y), (0, 4.5), bbox=BACKED, **at)
    name_rows(ax, names, top=0.8)


def _draw_dot_panels(table, panel, row, names, of, value, *, title, unit, note="", across=4, width=2.4, **dots):
    """A figure with one panel of dots per value of column `panel`, and {value: axes}. All panels have the same scale;
    a column of panels is as wide as its values and titles need, at most `width` inches.

    `row`: the column or columns that name a row; `names`: {value of `row`: label}; `of`: the arm of each row, for its
    colour.
    """
    groups, labels, style = order(table[panel]), list(names.values()), line_styles(of)
    titles = {g: f"{fill(PARTS.get(g) or name(g), 34)}\n{n_text(table.loc[table[panel] == g, 'n'])}" for g in groups}
    across = min(across, len(groups))
    down = -(-len(groups) // across)
    columns = [groups[i::across] for i in range(across)]
    low, high = np.transpose([_reach(table[table[panel].isin(column)], value) for column in columns])
    room = max(1.0, 0.1 * (high - low).max())  # for the number at the outermost dot
    low, high = low - room, high + room
    scale = width / (high - low).max()  # inches per point
    least = [text_width("\n".join(map(titles.get, column)).split("\n"), 9) for column in columns]
    high, about = np.maximum(high, low + np.divide(least, scale)), f"{unit}, {INTERVAL}{note}"
    wide = max(1.5, text_width(labels)) + scale * (high - low).sum()
    size = (max(wide, text_width([title], 11), text_width([about], 9)), 0.8 + down * (0.45 + 0.36 * len(names)))
    figure, axes = plt.subplots(
        down, across, figsize=size, width_ratios=high - low, sharex="col", sharey=True, squeeze=False
    )
    for spare in axes.flat[len(groups) :]:
        spare.remove()
    panels, step = dict(zip(groups, axes.flat, strict=False)), np.diff(MaxNLocator(4).tick_values(0, width / scale))[0]
    for i, (group, ax) in enumerate(panels.items()):
        rows = table[table[panel] == group].set_index(row).reindex(list(names))
        _draw_dots(ax, rows, labels, value, [style[arm]["color"] for arm in of], **dots)
        ax.set_title(titles[group], fontsize=9)
        ax.set_xlim(low[i % across], high[i % across])
        ax.xaxis.set_major_locator(MultipleLocator(step))
        ax.tick_params(labelbottom=i >= len(groups) - across)
    figure.suptitle(title)
    figure.supxlabel(about, fontsize=9)
    return figure, panels


def _reach(table, value):
    """The lowest and highest value to be drawn in percent, 0 among them."""
    drawn = [column for column in (value, "low", "high", "chance", "blind") if column in table]
    numbers = 100 * table[drawn].to_numpy(float, na_value=np.nan)
    return np.nanmin(numbers, initial=0.0), np.nanmax(numbers, initial=0.0)


@styled
def arms(table, *, title="Accuracy by training arm"):
    """Dot plot of accuracy with intervals: one panel per exam, one row per arm in the given order.

    `table`: arm, exam, accuracy, low, high, n. Optional, fractions: `chance` draws the level of guessing, `blind` a
    diamond for the score without reading the question.
    """
    require(table, "arm", "exam", "accuracy", "low", "high", "n", key=("arm", "exam"))
    names, marks = {arm: name(arm) for arm in order(table["arm"])}, {}
    if "chance" in table and table["chance"].max() > 0:
        marks["chance"] = "; dotted: guessing"
    if "blind" in table and table["blind"].notna().any():
        marks["blind"] = "; diamonds: question not read"
    figure, panels = _draw_dot_panels(
        table, "exam", "arm", names, list(names), "accuracy", title=title, unit="accuracy (%)",
        note="".join(marks.values()),
    )  # fmt: skip
    for exam, ax in panels.items():
        rows = table[table["exam"] == exam].set_index("arm").reindex(list(names))
        if "chance" in marks and rows["chance"].max() > 0:
            ax.axvline(100 * rows["chance"].mean(), color=MUTED, linestyle=":", linewidth=1.2, zorder=0)
        if "blind" in marks:
            look = {"color": MUTED, "markerfacecolor": "white", "markersize": 5, "zorder": 3}
            ax.plot(100 * rows["blind"].astype(float), range(len(rows)), "D", **look)
    return figure


@styled
def comparisons(table, *, title="Differences in accuracy"):
    """Forest plot of paired differences in points: one panel per exam or group, one row per pair of arms.

    `table`: a, b, on, difference (accuracy of a minus accuracy of b), low, high, n; with p_holm, a dot is filled if it
    is below 0.05.
    """
    require(table, "a", "b", "on", "difference", "low", "high", "n", key=("a", "b", "on"))
    names = {(a, b): f"{name(a)} − {name(b)}" for a, b in order(zip(table["a"], table["b"], strict=True))}
    return _draw_differences(table, ["a", "b"], names, title)


def _draw_differences(table, row, names, title):
    note = ""
    if "p_holm" in table:
        table, note = table.assign(clear=table["p_holm"] < 0.05), "; filled: p < 0.05 after Holm's correction"
    figure, panels = _draw_dot_panels(
        table, "on", row, names, [arm for arm, _ in names], "difference", title=title, note=note, across=3, width=2.6,
        unit="difference in accuracy (points)", number=partial(signed, decimals=1),
    )  # fmt: skip
    for ax in panels.values():
        ax.axvline(0, color="#222222", linewidth=0.9, zorder=0)
    return figure


@styled
def ablations(table, *, title="Ablations: one setting changed, against the same arm unchanged"):
    """Dot plot of paired differences in points with intervals: one row per arm and setting, one panel per part of the
    exams. A filled dot has a corrected p below 0.05.

    `table`: arm, ablation (its dials, "linkqa.alpha=0.0, linkqa.beta=1.0"), on ("weak", "all"), difference (a
    fraction), low, high, n, p_holm.
    """
    key = ["arm", "ablation", "on"]
    require(table, *key, "difference", "low", "high", "n", "p_holm", key=key)
    arms = order(table["arm"])
    rows = sorted(order(zip(table["arm"], table["ablation"], strict=True)), key=lambda row: arms.index(row[0]))
    names = {(arm, dials): shorten(f"{arm_name(arm)}: {dial_name(dials, arm)}") for arm, dials in rows}
    return _draw_differences(table, key[:2], names, title)


def _thin_ticks(values, least=0.09):
    """The values to label on a log axis: neighbours are at least the fraction `least` of the axis apart."""
    values = sorted(set(values))
    gap = least * np.log(values[-1] / values[0])
    kept = values[-1:]
    for value in reversed(values[:-1]):
        if np.log(kept[-1] / value) >= gap:
            kept.append(value)
    return sorted(kept)


@styled
def scaling(table, *, title=None):
    """Accuracy against model size, data and initial compute: one panel per axis, log x, intervals.

    `table`: axis ("parameters", "tokens", "initial_flops"), arm, x, accuracy, low, high, n; optional, fractions: chance
    (guessing) and blind (without reading the question), drawn as lines.
    """
    require(table, "axis", "arm", "x", "accuracy", "low", "high", "n", key=("axis", "arm", "x"))
    drawable = (table["x"] > 0) & np.isfinite(table["x"])
    if not drawable.all():
        bad_value = table.loc[~drawable, "x"].iloc[0]
        raise ValueError(
            f"x must be positive and finite for a log axis, found {bad_value}; drop the runs without a size"
        )
    unknown = set(table["axis"]) - set(AXES)
    if unknown:
        raise ValueError(f"axis must be one of {list(AXES)}, found {sorted(map(str, unknown))}")
    names, style = order(table["axis"]), line_styles(table["arm"])
    figure, axes = plt.subplots(1, len(names), figsize=(0.6 + 3.3 * len(names), 3.7), sharey=True, squeeze=False)
    for ax, axis in zip(axes[0], names, strict=True):
        panel = table[table["axis"] == axis]
        for arm, rows in panel.sort_values("x").groupby("arm", sort=False):
            y, low, high = (100 * rows[column].to_numpy(float) for column in ("accuracy", "low", "high"))
            ax.errorbar(rows["x"], y, error_lengths(y, low, high), elinewidth=1, **style[arm])
        label, unit, text = AXES[axis]
        ax.set_xscale("log")
        ax.margins(x=0.12)  # so that the last tick label does not touch the first one of the next panel
        ax.set_xticks(ticks := _thin_ticks(panel["x"]), map(text, ticks))
        ax.minorticks_off()
        ax.set_xlabel(f"{label} ({unit})")
        ax.set_title(n_text(panel["n"]) + " per point", fontsize=9)
    axes[0, 0].set_ylabel(f"accuracy (%), {INTERVAL}")
    handles = [plt.Line2D([], [], **style[arm], label=name(arm)) for arm in style]
    for column, label, line in (("chance", "guessing", ":"), ("blind", "question not read", "--")):
        if column in table and table[column].notna().any():
            look = {"color": MUTED, "linestyle": line, "linewidth": 1.1, "zorder": 0}
            for ax in axes[0]:
                ax.axhline(100 * float(table[column].mean()), **look)
            handles.append(plt.Line2D([], [], label=label, **look))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 2 * len(names)))
    figure.suptitle(title or f"Accuracy against {', '.join(AXES[axis][0] for axis in names)}")
    return figure


@styled
def refinement(table, *, title="Wrong answers before and after refinement", ax=None):
    """Share of wrong answers before and after refinement, against the error rate set for the teacher.

    `table`: teacher_error_rate, stage ("before", "after"), wrong, low, high (fractions), n.
    """
    require(table, "teacher_error_rate", "stage", "wrong", "low", "high", "n", key=("teacher_error_rate", "stage"))
    figure, ax = canvas(ax, 5.2, 3.6)
    ends = []
    for stage, style in line_styles(order(["before", "after", *table["stage"]])).items():
        rows = table[table["stage"] == stage].sort_values("teacher_error_rate")
        if rows.empty:
            continue
        x = 100 * rows["teacher_error_rate"].to_numpy(float)
        y, low, high = (100 * rows[column].to_numpy(float) for column in ("wrong", "low", "high"))
        ax.errorbar(x, y, error_lengths(y, low, high), elinewidth=1, clip_on=False, **style)
        ends.append((x, y, name(stage), style["color"]))
    ax.set_ylim(bottom=0)
    ax.set_xticks(100 * np.unique(table["teacher_error_rate"]))
    ax.margins(x=0.08)
    ax.set_xlabel(f"error rate set for the teacher (%), {n_text(table['n'])} per point")
    ax.set_ylabel(f"wrong answers found (%), {INTERVAL}")
    ax.set_title(title)
    label_ends(ax, ends)
    return figure


@styled
def pass_rates(table, *, title="Pass rate by level of the rubric", ax=None):
    """Mean pass rate against the level of difficulty, one line per model and form. It falls if the rubric agrees with
    what is hard for the model.

    `table`: model, form, difficulty, n, pass_rate, low, high (fractions), as `tables.pass_rates_by_level` returns it.
    """
    require(table, "model", "form", "difficulty", "n", "pass_rate", "low", "high", key=("model", "form", "difficulty"))
    figure, ax = canvas(ax, 5.2, 3.6)
    levels, ends = order(table["difficulty"], "difficulty"), []
    lines = table["model"].astype(str) + ", " + table["form"].astype(str)
    for line, style in line_styles(order(lines)).items():
        rows = table[lines == line].set_index("difficulty").reindex(levels)
        y, low, high = (100 * rows[column].to_numpy(float) for column in ("pass_rate", "low", "high"))
        ax.errorbar(range(len(levels)), y, error_lengths(y, low, high), elinewidth=1, clip_on=False, **style)
        ends.append((np.arange(len(levels)), y, name(line), style["color"]))
    counts = table.groupby("difficulty")["n"]
    ax.set_xticks(range(len(levels)), [f"{level}\n{n_text(counts.get_group(level))}" for level in levels])
    ax.set_ylim(0, 100)
    ax.margins(x=0.08)
    ax.set_xlabel("level of the rubric")
    ax.set_ylabel(f"pass rate (%), {INTERVAL}")
    ax.set_title(title)
    label_ends(ax, ends)
    return figure


@styled
def loss(metrics, *, title="Training loss and learning rate", points=25):
    """Loss against tokens seen on a log scale, as means over windows of steps, about `points` per arm, with the
    learning rate below; one line per arm, in the legend by the last mean.

    `metrics`: step, tokens, loss (nats per token), lr, arm.
    """
    require(metrics, "step", "tokens", "loss", "lr", "arm", key=("arm", "step"))
    metrics, arms = metrics.sort_values(["tokens", "step"], kind="stable"), order(metrics["arm"])
    counts = metrics.groupby("arm", sort=False)["step"].max()
    window, style = max(1, int(counts.max()) // points), line_styles(arms)
    drawn = {arm: _average(metrics[metrics["arm"] == arm], window) for arm in arms}
    figure, (above, below) = plt.subplots(2, figsize=(7.4, 4.4 + 0.1 * len(arms)), height_ratios=[3, 1], sharex=True)
    for arm in sorted(arms, key=lambda arm: -drawn[arm]["loss"].iloc[-1]):
        means, rows = drawn[arm], metrics[metrics["arm"] == arm]
        look = {"color": style[arm]["color"], "linewidth": 1.3}
        above.plot(means["tokens"], means["loss"], label=f"{name(arm)}: {means['loss'].iloc[-1]:.2f}", **look)
        below.plot(rows["tokens"], rows["lr"], **look)
    above.set_yscale("log")
    above.yaxis.set_major_locator(MaxNLocator(6))
    above.yaxis.set_major_formatter("{x:g}")
    above.yaxis.set_minor_locator(NullLocator())
    above.set_ylabel("loss (nats per token)" + f",\nmean over {window} steps" * (window > 1))
    above.set_title(title)
    below.set_ylabel("learning rate")
    below.set_ylim(bottom=0)
    below.set_xlabel(f"tokens seen ({n_text(counts).removeprefix('n = ')} steps)")
    figure.legend(*above.get_legend_handles_labels(), loc="outside right center", title="last loss")
    below.xaxis.set_major_formatter(FuncFormatter(short_count))
    return figure


def _average(metrics, steps):
    """The mean loss of every `steps` rows, at the tokens of the last; remaining rows join the last window."""
    window = (np.arange(len(metrics)) // steps).clip(max=max(0, len(metrics) // steps - 1))
    return metrics.groupby(window).agg({"tokens": "last", "loss": "mean"})


@styled
def probes_over_time(table, *, by="discipline", title=None):
    """Accuracy of probes during mid-training against tokens seen: a panel for all questions and one per discipline (or
    per value of another column `by`), pooled over the other labels by n, with a line per arm and Wilson intervals.

    `table`: tokens, discipline, difficulty, n, accuracy (`training.probes.read_probes`), and arm if there are several.
    """
    table = table if "arm" in table else table.assign(arm="")
    require(table, "tokens", *CELL, by, "n", "accuracy", "arm", key=("arm", "tokens", *CELL))
    table = table.dropna(subset="accuracy").assign(correct=(table["accuracy"] * table["n"]).round())
    style, groups = (
        line_styles(table["arm"]),
        {"All questions": table} | {v: table[table[by] == v] for v in order(table[by], by)},
    )
    across = min(4, len(groups))
    down = -(-len(groups) // across)
    figure, axes = plt.subplots(
        down, across, figsize=(1 + 2.1 * across, 1.2 + 1.5 * down), sharex=True, sharey=True, squeeze=False
    )
    for spare in axes.flat[len(groups) :]:
        spare.remove()
    for i, (group, ax) in enumerate(zip(groups, axes.flat, strict=False)):
        counts = groups[group].groupby(["arm", "tokens"], sort=False)[["n", "correct"]].sum().reset_index()
        for arm, rows in counts.sort_values("tokens").groupby("arm", sort=False):
            y = 100 * rows["correct"] / rows["n"]
            low, high = 100 * np.transpose([*map(wilson, rows["correct"], rows["n"])])
            ax.plot(rows["tokens"], y, markersize=3.5, linewidth=1.3, **style[arm])
            ax.fill_between(rows["tokens"], low, high, color=style[arm]["color"], alpha=0.15, linewidth=0)
        ax.set_title(f"{fill(name(group), 26)}\n{n_text(counts['n'])}", fontsize=9)
        ax.tick_params(labelbottom=i >= len(groups) - across)
        ax.set_xlabel("tokens seen" if i >= len(groups) - across else "")
    axes[0, 0].xaxis.set_major_formatter(FuncFormatter(short_count))
    axes[0, 0].xaxis.set_major_locator(MaxNLocator(3))
    figure.supylabel(f"accuracy (%), band: {INTERVAL}", fontsize=9)
    if len(style) > 1:
        handles = [plt.Line2D([], [], **style[arm], label=name(arm)) for arm in style]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), across))
    figure.suptitle(title or f"Accuracy during mid-training, by {name(by)}")
    return figure


@styled
def schedules(table, *, title="Learning rate by schedule"):
    """Learning rate over a run, one line per schedule. `table`: share (of the steps, from 0 to 1), lr, schedule."""
    require(table, "share", "lr", "schedule", key=("schedule", "share"))
    figure, ax = plt.subplots(figsize=(6.4, 3.6))
    style = line_styles(table["schedule"])
    for i, (schedule, rows) in enumerate(table.groupby("schedule", sort=False)):
        # later lines are thinner and have gaps, so that earlier ones with the same rates can be seen below them
        look = {"linestyle": DASHES[i % len(DASHES)], "linewidth": max(1.4, 3 - 0.5 * i)}
        ax.plot(100 * rows["share"], rows["lr"], label=name(schedule), color=style[schedule]["color"], **look)
    ax.set_xlabel("share of the steps (%)")
    ax.set_ylabel("learning rate")
    ax.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=3)
    ax.set_title(title)
    return figure
