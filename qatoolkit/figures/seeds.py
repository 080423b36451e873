"""Figures of the seeds: what was accepted or rejected and why, and how long questions and answers are."""

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from qatoolkit.figures.style import BACKED, MUTED, labelled, log_ticks, looks, name, order, require, room, styled

REASONS_SHOWN = 6
OTHER = "other reasons"
BESIDE = {"textcoords": "offset points", "va": "center_baseline", "fontsize": 8}


@styled
def seed_quality(report, *, title=None):
    """Bars of what came of every source: one panel for the rows accepted and one per reason to reject, most rows first.

    `report`: source, rows_in, reason ("accepted" among them), count, as `seeds.quality_report` makes it. All panels of
    reasons share one scale, which is not that of the accepted rows. Reasons beyond the six with most rows share a panel.
    """
    require(report, "source", "rows_in", "reason", "count", key=("source", "reason"))
    sources = order(report["source"])
    rows_in = report.groupby("source")["rows_in"].first().reindex(sources)
    counts = report.pivot(index="source", columns="reason", values="count").reindex(sources).fillna(0)
    accepted = counts.pop("accepted") if "accepted" in counts else 0 * rows_in
    counts = counts[counts.sum().sort_values(ascending=False, kind="stable").index]
    if len(counts.columns) > REASONS_SHOWN:
        rare = counts.columns[REASONS_SHOWN - 1 :]
        counts = counts.drop(columns=rare).assign(**{OTHER: counts[rare].sum(axis=1)})
    panels = 1 + len(counts.columns)
    names = [f"{name(s)} (n = {rows_in[s]:,})" for s in sources]
    figure, axes = plt.subplots(
        1,
        panels,
        figsize=(max(3.2, 0.6 + room(names)) + 1.2 * panels, 1.3 + 0.27 * len(sources)),
        width_ratios=[1.3] + [1] * (panels - 1),
        sharey=True,
        squeeze=False,
    )
    figure.get_layout_engine().set(w_pad=0.08)
    longest = 100 * (counts.div(rows_in, axis=0)).max(axis=None) if panels > 1 else 0
    for ax, reason in zip(axes[0], ["accepted", *counts.columns], strict=True):
        n = accepted if reason == "accepted" else counts[reason]
        shares = (100 * n / rows_in).to_numpy(float)
        ax.barh(range(len(sources)), shares, 0.62, color="C0" if reason == "accepted" else "C1")
        for y, (share, rows) in enumerate(zip(shares, n, strict=True)):
            if reason == "accepted":
                at = {"ha": "right" if share > 50 else "left", "color": "white" if share > 50 else MUTED}
                ax.annotate(f"{share:.1f}", (share, y), (-4 if share > 50 else 3, 0), **at, **BESIDE)
            elif rows:
                ax.annotate(f"{rows:,.0f}", (share, y), (3, 0), color=MUTED, **BESIDE)
        ax.set_xlim(0, 100 if reason == "accepted" else 1.5 * longest)
        ax.xaxis.set_major_locator(MaxNLocator(2))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_title(f"{fill(name(reason), 15)}\nn = {n.sum():,.0f}", fontsize=8.5)
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
    axes[0, 0].set_yticks(range(len(sources)), names)
    axes[0, 0].set_ylim(len(sources) - 0.5, -0.5)
    figure.suptitle(title or f"{accepted.sum():,.0f} of {rows_in.sum():,} rows accepted")
    figure.supxlabel(
        "share of the rows of a source (%)" + ("; beside the orange bars: rows" if panels > 1 else ""), fontsize=9
    )
    return figure


@styled
def lengths(table, by="source", *, title="Length of questions and answers"):
    """Lengths of question and answer in characters: median, middle half and middle 90%, on a log axis.

    `table`: question, answer, language and `by`, one row per question. One line per value of `by` and language; colour and
    marker tell languages apart, because a Chinese character says more than a Latin letter.
    """
    require(table, "question", "answer", "language", by)
    keys = list(dict.fromkeys([by, "language"]))
    table = labelled(table, *keys)
    groups = list(table.groupby(keys, sort=False))
    style = looks(sorted(set(table["language"])))
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 1.0 + 0.36 * len(groups)), sharey=True, width_ratios=[1.2, 1])
    for ax, column in zip(axes, ("question", "answer"), strict=True):
        ends = []
        for y, ((*_, language), rows) in enumerate(groups):
            low, first, median, third, high = np.quantile(rows[column].str.len(), (0.05, 0.25, 0.5, 0.75, 0.95))
            colour = style[language]["color"]
            ax.hlines(y, low, high, linewidth=1.2, color=colour)
            ax.hlines(y, first, third, linewidth=4.5, color=colour, alpha=0.45)
            ax.plot(median, y, linestyle="none", zorder=4, **style[language])
            at = {"textcoords": "offset points", "ha": "center", "fontsize": 8, "bbox": BACKED}
            ax.annotate(f"{median:,.0f}", (median, y), (0, 5), **at)
            ends += [low, high]
        ax.set_xscale("log")
        ax.set_xlim(min(ends) / 1.3, 1.3 * max(ends))
        log_ticks(ax.xaxis, ends)
        ax.set_xlabel(f"characters of the {column}")
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
    names = [f"{', '.join(name(k) for k in key)} (n = {len(rows):,})" for key, rows in groups]
    axes[0].set_yticks(range(len(groups)), names)
    axes[0].set_ylim(len(groups) - 0.5, -0.9)
    axes[0].set_title("dot: median; thick: middle half; thin: middle 90%", fontsize=8.5)
    figure.suptitle(title)
    return figure
