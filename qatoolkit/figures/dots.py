"""One function per figure: a tidy table in, a matplotlib Figure out.

Accuracies, shares and differences come as fractions and are drawn in percent or points; `low` and `high`
bound the 95% interval that the caller computed. A missing value is drawn as missing, never as zero. Every
function raises ValueError for an empty table, for missing columns and for repeated rows, and applies the
house style inside the call only.
"""

from functools import partial
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from qatoolkit.figures.style import (
    BACKED,
    INTERVAL,
    MUTED,
    big,
    canvas,
    label_ends,
    labelled,
    looks,
    n_text,
    name,
    order,
    power,
    require,
    room,
    signed,
    styled,
    whiskers,
)

AXES = {
    "parameters": ("model size", "parameters", big),
    "tokens": ("mid-training data", "tokens", big),
    "initial_flops": ("initial compute", "FLOPs before mid-training", power),
}


def _dots(ax, rows, names, value, *, number="{:.1f}".format, hollow=()):
    """Dots with intervals on y = 0, 1, ...; a missing value is written out in words."""
    points, low, high = (100 * rows[column].to_numpy(float) for column in (value, "low", "high"))
    ax.hlines(np.arange(len(rows)), low, high, linewidth=1.4)
    for y, point in enumerate(points):
        if np.isnan(point):
            at = {"xycoords": ax.get_yaxis_transform(), "va": "center"}
            ax.annotate("no score", (0.03, y), color=MUTED, style="italic", **at)
            continue
        ax.plot(point, y, "o", color="C0", markerfacecolor="white" if y in hollow else "C0", zorder=4)
        at = {"textcoords": "offset points", "ha": "center", "fontsize": 8}
        ax.annotate(number(point), (point, y), (0, 4.5), bbox=BACKED, **at)
    ax.set_yticks(np.arange(len(rows)), names)
    ax.set_ylim(len(rows) - 0.5, -0.8)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(4))


def _panels(count, names, *, across=4, width=2.4, label=1.5):
    """Figure and `count` panels with a row of dots for each name, in a grid that shares both axes."""
    across = min(across, count)
    down = -(-count // across)
    size = (max(label, room(names)) + width * across, 0.8 + down * (0.45 + 0.36 * len(names)))
    figure, axes = plt.subplots(down, across, figsize=size, sharex=True, sharey=True, squeeze=False)
    for spare in axes.flat[count:]:
        spare.remove()
    for ax in axes.flat[max(0, count - across) : count]:
        ax.tick_params(labelbottom=True)
    return figure, list(axes.flat[:count])


@styled
def arms(table, *, chance=None, title="Accuracy by training arm"):
    """Dot plot of accuracy with intervals: one panel per exam, one row per arm in the order given.

    `table`: arm, exam, accuracy, low, high, n. `chance`: {exam: fraction} draws the guessing level.
    """
    require(table, "arm", "exam", "accuracy", "low", "high", "n", key=("arm", "exam"))
    exams, names = order(table["exam"]), order(table["arm"])
    shown = [name(arm) for arm in names]
    figure, axes = _panels(len(exams), shown)
    for ax, exam in zip(axes, exams, strict=True):
        rows = table[table["exam"] == exam].set_index("arm").reindex(names)
        _dots(ax, rows, shown, "accuracy")
        ax.set_title(f"{fill(name(exam), 34)}\n{n_text(rows['n'])}", fontsize=9)
        if exam in (chance or {}):
            level = 100 * chance[exam]
            ax.axvline(level, color=MUTED, linestyle=":", linewidth=1.2, zorder=0)
            at = {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points"}
            ax.annotate("chance", (level, 0), (3, 3), color=MUTED, fontsize=7.5, **at)
    figure.suptitle(title)
    figure.supxlabel(f"accuracy (%), {INTERVAL}", fontsize=9)
    return figure


@styled
def comparisons(table, *, title="Differences in accuracy"):
    """Forest plot of paired differences in points: one panel per exam or group, one row per pair.

    `table`: a, b, on, difference (accuracy of a minus accuracy of b), low, high, n.
    """
    require(table, "a", "b", "on", "difference", "low", "high", "n", key=("a", "b", "on"))
    pairs, groups = order(zip(table["a"], table["b"], strict=True)), order(table["on"])
    names = [f"{name(a)} − {name(b)}" for a, b in pairs]
    figure, axes = _panels(len(groups), names, across=3, width=2.6, label=2.2)
    for ax, group in zip(axes, groups, strict=True):
        rows = table[table["on"] == group].set_index(["a", "b"]).reindex(pairs)
        _dots(ax, rows, names, "difference", number=partial(signed, decimals=1))
        ax.axvline(0, color="#222222", linewidth=0.9, zorder=0)
        ax.set_title(f"{fill(name(group), 34)}\n{n_text(rows['n'])}", fontsize=9)
    figure.suptitle(title)
    figure.supxlabel(f"difference in accuracy (points), {INTERVAL}", fontsize=9)
    return figure


@styled
def ablations(table, *, title="Ablations: one dial turned, against the same arm untouched"):
    """Dot plot of paired differences with intervals, one panel per arm; filled where the corrected p is below 0.05.

    `table`: arm, ablation, difference, low, high, n, p_holm.
    """
    require(table, "arm", "ablation", "difference", "low", "high", "n", "p_holm", key=("arm", "ablation"))
    groups = order(table["arm"])
    sizes = [int((table["arm"] == group).sum()) for group in groups]
    figure, axes = plt.subplots(
        len(groups),
        figsize=(6.4, 0.9 + 0.42 * len(groups) + 0.36 * sum(sizes)),
        height_ratios=[size + 0.4 for size in sizes],
        sharex=True,
        squeeze=False,
    )
    for ax, group in zip(axes[:, 0], groups, strict=True):
        rows = table[table["arm"] == group].reset_index(drop=True)
        open_ones = set(rows.index[~(rows["p_holm"] < 0.05)])
        _dots(ax, rows, [name(v) for v in rows["ablation"]], "difference", number=signed, hollow=open_ones)
        ax.axvline(0, color=MUTED, linestyle="--", linewidth=0.9, zorder=0)
        ax.set_title(f"{name(group)}, {n_text(rows['n'])}", fontsize=9)
    axes[-1, 0].set_xlabel(f"difference in accuracy (points), {INTERVAL}\nfilled: p < 0.05 after Holm's correction")
    figure.suptitle(title)
    return figure


def _thinned(values, least=0.09):
    """The values far enough apart on a log axis to be labelled, as a fraction of its length."""
    values = sorted(set(values))
    gap = least * np.log(values[-1] / values[0])
    kept = values[-1:]
    for value in reversed(values[:-1]):
        if np.log(kept[-1] / value) >= gap:
            kept.append(value)
    return sorted(kept)


@styled
def scaling(table, *, value="accuracy", title=None):
    """Accuracy (or gain) against model size, data and initial compute: one panel per axis, log x, intervals.

    `table`: axis ("parameters", "tokens", "initial_flops"), arm, x, `value`, low, high, n; optionally fit,
    the fitted value at x. `value="gain"` draws points with a zero line.
    """
    require(table, "axis", "arm", "x", value, "low", "high", "n", key=("axis", "arm", "x"))
    fits = (table["x"] > 0) & np.isfinite(table["x"])
    if not fits.all():
        found = table.loc[~fits, "x"].iloc[0]
        raise ValueError(f"x must be positive and finite for a log axis, found {found}; drop the runs without a size")
    unknown = set(table["axis"]) - set(AXES)
    if unknown:
        raise ValueError(f"axis must be one of {list(AXES)}, found {sorted(map(str, unknown))}")
    axes_names, style = order(table["axis"]), looks(table["arm"])
    figure, axes = plt.subplots(
        1, len(axes_names), figsize=(0.6 + 3.1 * len(axes_names), 3.7), sharey=True, squeeze=False
    )
    for ax, axis in zip(axes[0], axes_names, strict=True):
        panel = table[table["axis"] == axis]
        for arm, rows in panel.sort_values("x").groupby("arm", sort=False):
            y, low, high = (100 * rows[column].to_numpy(float) for column in (value, "low", "high"))
            fitted = "fit" in rows and rows["fit"].notna().any()
            ax.errorbar(
                rows["x"], y, whiskers(y, low, high), linestyle="none" if fitted else "-", **style[arm], elinewidth=1
            )
            if fitted:
                ax.plot(rows["x"], 100 * rows["fit"], linestyle="--", color=style[arm]["color"])
        label, unit, text = AXES[axis]
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(_thinned(panel["x"])))
        ax.xaxis.set_major_formatter(FuncFormatter(text))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel(f"{label} ({unit})")
        ax.set_title(n_text(panel["n"]) + " per point", fontsize=9)
        if value != "accuracy":
            ax.axhline(0, color="#222222", linewidth=0.9, zorder=0)
    unit = "accuracy (%)" if value == "accuracy" else f"{name(value)} (points)"
    axes[0, 0].set_ylabel(f"{unit}, {INTERVAL}")
    handles = [plt.Line2D([], [], **style[arm], label=name(arm)) for arm in style]
    if "fit" in table and table["fit"].notna().any():
        handles.append(plt.Line2D([], [], linestyle="--", color=MUTED, label="fit"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 2 * len(axes_names)))
    against = ", ".join(AXES[axis][0] for axis in axes_names)
    figure.suptitle(title or f"{name(value).capitalize()} against {against}")
    return figure


@styled
def distribution(table, by, *, hue="source", title=None, ax=None):
    """Shares of `by` (difficulty, discipline, grade, ...) within each data set named by column `hue`.

    `table`: one row per question, or one per (`by`, `hue`) with its count in column n. Questions without a
    label or a data set count as "unknown", so that the shares of a data set add up to 100%.
    """
    require(table, by, hue)
    table = labelled(table, by, hue)
    groups = table.groupby([hue, by], sort=False)
    counts = (groups["n"].sum() if "n" in table else groups.size()).unstack(fill_value=0)
    levels, sets = order(table[by], by), order(table[hue])
    counts = counts.loc[sets, [*(v for v in levels if v != "unknown"), *(v for v in levels if v == "unknown")]]
    shares = 100 * counts.div(counts.sum(axis=1), axis=0)
    own = ax is None
    figure, ax = canvas(ax, 6.4, 1 + 0.2 * len(sets) + len(levels) * (0.1 + 0.14 * len(sets)))
    height = 0.82 / len(sets)
    for i, dataset in enumerate(sets):
        y = np.arange(len(levels)) + (i - (len(sets) - 1) / 2) * height
        n = counts.loc[dataset].sum()
        bars = ax.barh(y, shares.loc[dataset], height * 0.92, color=f"C{i}", label=f"{name(dataset)} (n = {n:,.0f})")
        ax.bar_label(bars, fmt="%.1f", padding=2, fontsize=7, color=MUTED)
    ax.set_yticks(np.arange(len(levels)), [name(level) for level in shares.columns])
    ax.set_ylim(len(levels) - 0.5, -0.5)
    ax.set_xlim(0, 1.08 * shares.to_numpy().max())
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("share of questions (%)")
    ax.set_title(title or f"Questions by {name(by)}")
    figure.legend(loc="outside lower center") if own else ax.legend()
    return figure


@styled
def refinement(table, *, title="Wrong answers before and after refinement", ax=None):
    """Share of wrong answers, before and after refinement, against the error rate set for the teacher.

    `table`: teacher_error_rate, stage ("before", "after"), wrong, low, high (fractions), n.
    """
    require(table, "teacher_error_rate", "stage", "wrong", "low", "high", "n", key=("teacher_error_rate", "stage"))
    figure, ax = canvas(ax, 5.2, 3.6)
    ends = []
    for stage, style in looks(order(["before", "after", *table["stage"]])).items():
        rows = table[table["stage"] == stage].sort_values("teacher_error_rate")
        if rows.empty:
            continue
        x = 100 * rows["teacher_error_rate"].to_numpy(float)
        y, low, high = (100 * rows[column].to_numpy(float) for column in ("wrong", "low", "high"))
        ax.errorbar(x, y, whiskers(y, low, high), elinewidth=1, clip_on=False, **style)
        ends.append((x, y, name(stage), style["color"]))
    ax.set_ylim(bottom=0)
    ax.set_xticks(100 * np.unique(table["teacher_error_rate"]))
    ax.margins(x=0.08)
    ax.set_xlabel(f"wrong answers asked of the teacher (%), {n_text(table['n'])} per point")
    ax.set_ylabel(f"wrong answers found (%), {INTERVAL}")
    ax.set_title(title)
    label_ends(ax, ends)
    return figure


@styled
def loss(metrics, *, title="Training loss and learning rate"):
    """Loss against tokens seen, with the learning rate below; one line per arm.

    `metrics`: step, tokens, loss (nats per token), lr, arm.
    """
    require(metrics, "step", "tokens", "loss", "lr", "arm", key=("arm", "step"))
    height = 4.4 + 0.1 * metrics["arm"].nunique()
    figure, (above, below) = plt.subplots(2, figsize=(6.4, height), height_ratios=[3, 1], sharex=True)
    for arm, rows in metrics.sort_values(["tokens", "step"]).groupby("arm", sort=False):
        color = looks(metrics["arm"])[arm]["color"]
        label = f"{name(arm)} ({rows['step'].max():,} steps, {big(rows['tokens'].max())} tokens)"
        above.plot(rows["tokens"], rows["loss"], color=color, label=label, linewidth=1.3)
        below.plot(rows["tokens"], rows["lr"], color=color, linewidth=1.3)
    above.set_ylabel("loss (nats per token)")
    above.set_title(title)
    below.set_ylabel("learning rate")
    below.set_ylim(bottom=0)
    below.set_xlabel("tokens seen")
    figure.legend(*above.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    below.xaxis.set_major_formatter(FuncFormatter(big))
    return figure


@styled
def schedules(table, *, title="Learning rate by schedule"):
    """Learning rate over a run, one line per schedule. `table`: share (of the steps, from 0 to 1), lr, schedule."""
    require(table, "share", "lr", "schedule", key=("schedule", "share"))
    figure, ax = plt.subplots(figsize=(6.4, 3.2))
    style = looks(table["schedule"])
    for schedule, rows in table.groupby("schedule", sort=False):
        dashed = "--" if "inherited" in str(schedule) else "-"
        ax.plot(
            100 * rows["share"],
            rows["lr"],
            color=style[schedule]["color"],
            label=name(schedule),
            linestyle=dashed,
            linewidth=1.4,
        )
    ax.set_xlabel("share of the steps (%)")
    ax.set_ylabel("learning rate")
    ax.set_ylim(bottom=0)
    ax.legend(loc="lower left")
    ax.set_title(title)
    return figure
