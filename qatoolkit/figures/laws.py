"""Figures of scaling laws: measured points, the fitted law with its band, and the errors of forecasts."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from qatoolkit.figures.style import (
    BLUE,
    INTERVAL,
    MUTED,
    ORANGE,
    label_ends,
    line_styles,
    log_ticks,
    name,
    require,
    short_count,
    signed,
    styled,
)

BEYOND = 4.0  # a law is drawn up to this many times the largest point


@styled
def scaling_fit(fit, *, beyond=BEYOND, title=None):
    """A `scaling.fits.Fit`: points with 95% intervals against its first axis, and the law with its 95% band, drawn up
    to `beyond` times the largest point (dashed beyond it). With a second axis, one line for each of up to five of its
    values; points have the colour of the nearest value."""
    first, *others = fit.by
    points, accuracy = fit.points, "se" in fit.points
    unit = 100 if accuracy else 1
    figure, ax = plt.subplots(figsize=(5.6, 4.0))
    levels, nearest = _pick_levels(points[others[0]]) if others else ([None], np.zeros(len(points), dtype=int))
    ends, style = [], line_styles([str(level) for level in levels])
    for i, level in enumerate(levels):
        rows = points[nearest == i]
        look = style[str(level)]
        x = np.geomspace(points[first].min(), beyond * points[first].max(), 200)
        at = pd.DataFrame({first: x}).assign(**({others[0]: level} if others else {}))
        for axis in others[1:]:
            at[axis] = points[axis].max()
        law, inside = fit.predict(at), x <= points[first].max()
        y, low, high = (unit * law[column].to_numpy() for column in (fit.y, "low", "high"))
        ax.plot(x[inside], y[inside], color=look["color"], linewidth=1.3)
        ax.plot(x[~inside], y[~inside], color=look["color"], linewidth=1.3, linestyle="--")
        ax.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)
        observed = unit * rows[fit.y].to_numpy(float)
        half = unit * 1.96 * rows["se"].to_numpy(float) if accuracy else np.zeros(len(rows))
        size = {"linestyle": "none", "markersize": 3} if len(points) > 60 else {"linestyle": "none"}
        ax.errorbar(rows[first], observed, np.stack([half, half]), **(look | size))
        if level is not None:
            ends.append((x, y, f"{short_count(level)} {others[0].replace('_', ' ')}", look["color"]))
    if accuracy:
        chance = 100 * points["chance"].mean()
        ax.axhline(chance, color=MUTED, linestyle=":", linewidth=1.1)
        ax.annotate(
            "guessing", (points[first].min(), chance), (0, 2), textcoords="offset points", color=MUTED, fontsize=8
        )
    ax.set_xscale("log")
    log_ticks(ax.xaxis, [points[first].min(), beyond * points[first].max()])
    ax.set_xlabel(first.replace("_", " "))
    ax.set_ylabel(f"accuracy (%), {INTERVAL}" if accuracy else fit.y.replace("_", " "))
    ax.set_title(
        title or f"{fit.y.replace('_', ' ').capitalize()} against {' and '.join(fit.by)}: {len(points)} points"
    )
    if ends:
        label_ends(ax, ends)
    return figure


@styled
def by_size(table, *, each="subject", title="Accuracy of published models by size"):
    """Accuracy above guessing by model size (columns) and subject (rows), scaled so that 0 is guessing and 1 is all
    right. Cells that do not differ significantly (95%) from guessing are grey.

    `table`: parameters, the column `each`, accuracy, n, chance (fractions)."""
    require(table, "parameters", each, "accuracy", "n", "chance", key=("parameters", each))
    table = table.assign(above=(table["accuracy"] - table["chance"]) / (1 - table["chance"]))
    noise = 1.96 * np.sqrt(table["chance"].clip(lower=0.02) * (1 - table["chance"]) / table["n"])
    table = table.assign(differs=(table["accuracy"] - table["chance"]).abs() > noise)
    above, differs = (table.pivot(index=each, columns="parameters", values=column) for column in ("above", "differs"))
    ranked = above[above.columns[-1]].sort_values(ascending=False).index
    above, differs = above.loc[ranked], differs.loc[ranked].to_numpy(dtype=float) == 1
    values = above.to_numpy(float)
    figure, ax = plt.subplots(figsize=(1.8 + 0.72 * values.shape[1], 1.3 + 0.27 * len(values)))
    shades = plt.get_cmap("viridis")(np.clip(values, 0, 1))
    shades[~differs] = (0.9, 0.9, 0.9, 1.0)
    ax.imshow(shades, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        dark = differs[row, column] and value < 0.55
        text = signed(100 * value).removeprefix("+")
        ax.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    ax.set_xticks(range(values.shape[1]), [short_count(x) for x in above.columns])
    ax.set_yticks(range(len(values)), [name(subject) for subject in above.index])
    ax.grid(visible=False)
    ax.set_xlabel("parameters")
    ax.set_title(f"{title}:\nshare of the headroom above guessing (%), grey: not significant", fontsize=10)
    return figure


def _pick_levels(values, most=5):
    """Up to `most` representative values, spread over the logarithms, and the index of the nearest one to each
    value."""
    logs = np.log(values.to_numpy(float))
    distinct = np.unique(logs)
    if len(distinct) > most:
        distinct = np.unique(np.quantile(logs, (np.arange(most) + 0.5) / most))
    return np.exp(distinct), np.abs(logs[:, None] - distinct).argmin(axis=1)


@styled
def forecasts(table, *, each=None, title="Forecasts of held-out points"):
    """Forecasts of held-out points with 95% intervals, and the measured values.

    `table`: from `scaling.forecast.check_forecast`: x, measured_accuracy, forecast_accuracy, low, high,
    repeated_accuracy (fractions), and the column `each` that names the group."""
    columns = ["forecast_accuracy", "low", "high", "measured_accuracy", "repeated_accuracy"]
    require(table, "x", *columns, *([each] if each else []))
    rows = table.sort_values([each, "x"] if each else ["x"], kind="stable").to_dict("records")
    labels = [f"{name(row[each])}, {short_count(row['x'])}" if each else short_count(row["x"]) for row in rows]
    figure, ax = plt.subplots(figsize=(6.2, 1.4 + 0.26 * len(rows)))
    predicted, low, high, measured, repeated = (np.array([100 * row[c] for row in rows]) for c in columns)
    places = np.arange(len(rows))
    errors = np.abs(np.stack([low, high]) - predicted)
    ax.errorbar(predicted, places, xerr=errors, fmt="o", color=BLUE, markerfacecolor="white", label="forecast")
    ax.plot(measured, places, "o", color=ORANGE, label="measured", zorder=5)
    ax.plot(repeated, places, "|", color=MUTED, markersize=9, label="largest point repeated")
    ax.set_yticks(places, labels)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel(f"accuracy (%), {INTERVAL}")
    ax.set_title(title)
    figure.legend(loc="outside lower center", ncols=3)
    return figure
