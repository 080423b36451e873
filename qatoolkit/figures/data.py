"""Figures of data sets: rows accepted and rejected, composition by label, lengths of questions and answers."""

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from qatoolkit.core.stats import wilson
from qatoolkit.figures.style import (
    BACKED,
    INTERVAL,
    MUTED,
    canvas,
    error_lengths,
    fill_unknown,
    line_styles,
    log_ticks,
    name,
    name_rows,
    order,
    require,
    styled,
    text_width,
)

REASONS_SHOWN = 6
BESIDE = {"textcoords": "offset points", "va": "center_baseline", "fontsize": 8}


@styled
def seed_quality(report, *, title=None):
    """Bars of accepted and rejected rows by source: one panel for accepted rows, one per reason, most frequent first.

    `report`: source, rows_in, reason (including "accepted"), count, as `seeds.quality_report` returns it. The panels of
    reasons share one scale. With more than six reasons, the rarest share a panel.
    """
    require(report, "source", "rows_in", "reason", "count", key=("source", "reason"))
    report = report[report["rows_in"] > 0]  # drops folders, of which no rows are read
    sources = order(report["source"])
    rows_in = report.groupby("source")["rows_in"].first().reindex(sources)
    counts = report.pivot(index="source", columns="reason", values="count").reindex(sources).fillna(0)
    accepted = counts.pop("accepted") if "accepted" in counts else 0 * rows_in
    counts = counts[counts.sum().sort_values(ascending=False, kind="stable").index]
    if len(counts.columns) > REASONS_SHOWN:
        rare = counts.columns[REASONS_SHOWN - 1 :]
        counts = counts.drop(columns=rare).assign(**{"other reasons": counts[rare].sum(axis=1)})
    panels = 1 + len(counts.columns)
    names = [f"{name(s)} (n = {rows_in[s]:,})" for s in sources]
    size, widths = (
        (max(3.2, 0.6 + text_width(names)) + 1.2 * panels, 1.3 + 0.27 * len(sources)),
        [1.3] + [1] * (panels - 1),
    )
    figure, axes = plt.subplots(1, panels, figsize=size, width_ratios=widths, sharey=True, squeeze=False)
    figure.get_layout_engine().set(w_pad=0.08)
    longest = 100 * (counts.div(rows_in, axis=0)).max(axis=None) if panels > 1 else 0
    for ax, reason in zip(axes[0], ["accepted", *counts.columns], strict=True):
        first = reason == "accepted"
        n = accepted if first else counts[reason]
        shares = (100 * n / rows_in).to_numpy(float)
        ax.barh(range(len(sources)), shares, 0.62, color=MUTED if first else "#AAAAAA")
        for y, (share, rows) in enumerate(zip(shares, n, strict=True)):
            inside = first and share > 50
            at = {"ha": "right" if inside else "left", "color": "white" if inside else MUTED, **BESIDE}
            if first or rows:
                ax.annotate(f"{share:.1f}" if first else f"{rows:,.0f}", (share, y), (-4 if inside else 3, 0), **at)
        name_rows(ax, names)
        ax.set_xlim(0, 100 if first else max(5, 1.5 * longest))  # a rare reason has a short bar
        ax.xaxis.set_major_locator(MaxNLocator(2))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_title(f"{fill(name(reason), 15)}\nn = {n.sum():,.0f}", fontsize=8.5)
    figure.suptitle(title or f"{accepted.sum():,.0f} of {rows_in.sum():,} rows accepted")
    rejected = "; beside the bars of reasons: rows" if panels > 1 else ""
    figure.supxlabel(f"share of the rows of a source (%){rejected}", fontsize=9)
    return figure


@styled
def distribution(table, by, *, hue="source", title=None, ax=None):
    """Shares of `by` (difficulty, discipline, grade, ...) within each data set, named by column `hue`.

    `table`: one row per question, or one per (`by`, `hue`) with its count in column n. Missing labels and data sets
    count as "unknown", so the shares of a data set add up to 100%.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> table = pd.DataFrame({"source": ["zoo", "zoo", "school"], "difficulty": ["H1", "H2", "H1"]})
    >>> type(qt.figures.distribution(table, "difficulty")).__name__
    'Figure'
    """
    import seaborn as sns  # imported late, because it loads scipy.stats

    require(table, by, hue)
    table = fill_unknown(table, by, hue).astype({by: str, hue: str})
    levels, sets = sorted(order(table[by], by), key=lambda v: v == "unknown"), order(table[hue])
    table = table.assign(n=table.get("n", 1), **{by: pd.Categorical(table[by], levels)})
    totals = table.groupby(hue)["n"].sum()
    figure, ax_used = canvas(ax, 6.4, 1 + 0.2 * len(sets) + len(levels) * (0.1 + 0.14 * len(sets)))
    palette = {dataset: style["color"] for dataset, style in line_styles(sets).items()}
    sns.histplot(
        table, y=by, hue=hue, hue_order=sets, palette=palette, weights="n", stat="percent", common_norm=False, multiple="dodge",
        shrink=0.82, alpha=1, linewidth=0.5, edgecolor="white", legend=False, ax=ax_used,
    )  # fmt: skip
    for bars, dataset in zip(ax_used.containers, reversed(sets), strict=True):
        bars.set_label(f"{name(dataset)} (n = {totals[dataset]:,.0f})")
        ax_used.bar_label(bars, fmt="%.1f", padding=2, fontsize=7, color=MUTED)
    name_rows(ax_used, [name(level) for level in levels])
    ax_used.margins(x=0.08)
    ax_used.set(xlabel="share of questions (%)", ylabel="", title=title or f"Questions by {name(by)}")
    ax_used.legend(reverse=True) if ax else figure.legend(loc="outside lower center", reverse=True)
    return figure


@styled
def lengths(table, by="source", *, title="Length of questions and answers"):
    """Lengths of questions and answers in characters, on a log axis: median, middle half and middle 90%.

    `table`: question, answer, language and `by`, one row per question. One line per value of `by` and language; colour
    and marker show the language, because a Chinese character carries more information than a Latin letter.
    """
    require(table, "question", "answer", "language", by)
    keys = list(dict.fromkeys([by, "language"]))
    table = fill_unknown(table, *keys)
    groups = list(table.groupby(keys, sort=False))
    names = [f"{', '.join(map(name, key))} (n = {len(rows):,})" for key, rows in groups]
    style = line_styles(sorted(set(table["language"])))
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 1.0 + 0.36 * len(names)), sharey=True, width_ratios=[1.2, 1])
    for ax, column in zip(axes, ("question", "answer"), strict=True):
        ends = []
        for y, ((*_, language), rows) in enumerate(groups):
            low, first, median, third, high = np.quantile(rows[column].str.len(), (0.05, 0.25, 0.5, 0.75, 0.95))
            look = style[language]
            ax.hlines(y, low, high, linewidth=1.2, color=look["color"])
            ax.hlines(y, first, third, linewidth=4.5, color=look["color"], alpha=0.45)
            ax.plot(median, y, linestyle="none", zorder=4, **look)
            at = {"textcoords": "offset points", "ha": "center", "fontsize": 8, "bbox": BACKED}
            ax.annotate(f"{median:,.0f}", (median, y), (0, 5), **at)
            ends += [low, high]
        ax.set(xscale="log", xlim=(min(ends) / 1.3, 1.3 * max(ends)), xlabel=f"characters of the {column}")
        log_ticks(ax.xaxis, ends)
        name_rows(ax, names, top=0.9)
    axes[0].set_title("dot: median; thick: middle half; thin: middle 90%", fontsize=8.5)
    figure.suptitle(title)
    return figure


@styled
def survival(table, *, title="What is left of the questions after each step", ax=None):
    """Share of the questions of the first step that remain after each step, with Wilson intervals: one line per
    requested level.

    `table`: difficulty (or "all"), step, n, as `tables.survival` returns it; the steps from `asked` to `accepted` are
    drawn in order.
    """
    require(table, "difficulty", "step", "n", key=("difficulty", "step"))
    table = table[table["step"] != "elsewhere"]
    steps, levels = order(table["step"]), order(table["difficulty"], "difficulty")
    counts = table.pivot(index="difficulty", columns="step", values="n").reindex(index=levels, columns=steps)
    # LinkQA moves levels, so more may be written for a level than planned.
    if len(steps) > 1 and (counts[steps[1]] > counts[steps[0]]).any():
        counts = counts.drop(columns=steps.pop(0))
    counts = counts[counts[steps[0]] > 0]
    figure, ax = canvas(ax, 7.2, 3.8)
    lowest = 100.0
    for i, (level, style) in enumerate(line_styles(counts.index).items()):
        n, first = counts.loc[level], counts.loc[level, steps[0]]
        low, high = 100 * np.transpose([wilson(min(k, first), first) for k in n])
        x = np.arange(len(steps)) + 0.07 * (i - (len(counts) - 1) / 2)  # so that intervals do not overlap
        label = f"{name(level)} (n = {first:,.0f})"
        y = (100 * n / first).to_numpy(float)
        ax.errorbar(x, y, error_lengths(y, low, high), elinewidth=1, **style | {"label": label})
        lowest = min(lowest, np.nanmin(low))
    ax.set_xticks(range(len(steps)), steps)
    ax.set_ylim(bottom=max(0, 10 * (lowest // 10)))
    ax.set_ylabel(f"share of those {steps[0]} (%), {INTERVAL}")
    ax.set_title(title)
    ax.legend(title="level asked for", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
