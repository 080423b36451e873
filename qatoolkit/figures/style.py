"""Helpers of all figures: the house style, saving, table checks, ordering, colours, label placement, number formats."""

import functools
import re
import warnings
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from qatoolkit.core.files import atomic
from qatoolkit.core.taxonomy import DISCIPLINES, LABELS

STYLE = Path(__file__).with_name("qatoolkit.mplstyle")
CJK_FONTS = ("Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "PingFang SC", "Microsoft YaHei")
plt.rcParams["pdf.fonttype"] = 42  # TrueType, for a plain savefig too: journals refuse Type 3 fonts

MARKERS = "osD^vPX"
# The place in the colour cycle of arms and data sets, so that each has one colour in all figures.
PLACES = {
    "boostqa": 0, "linkqa": 1, "seeds": 2, "seeds_only": 2, "boostqa_linkqa": 3, "general_control": 4,
    "boostqa_untargeted": 5, "base": 6,
}  # fmt: skip
METHODS = {"boostqa": "BoostQA", "linkqa": "LinkQA"}
LONGEST = 40  # characters of a name; longer ones are shortened
MUTED = "#666666"
# Of the cycle, by their values: matplotlib looks up "C0" when it draws, which may be outside the house style.
BLUE, ORANGE = "#0072B2", "#D55E00"
INTERVAL = "95% interval"
# A box behind text instead of a stroke around it, which would turn text into outlines in SVG.
BACKED = {"boxstyle": "square,pad=0.1", "facecolor": "white", "alpha": 0.85, "linewidth": 0}

# Positions for a point's label, best first: offset in points and alignment.
SIDES = [(0, 7, "center"), (0, -14, "center"), (8, -3, "left"), (-8, -3, "right"), (6, 5, "left"), (6, -12, "left")]
SIDES += [(-6, 5, "right"), (-6, -12, "right"), (0, 18, "center"), (0, -25, "center")]


def chinese_font():
    """The name of an installed font with Chinese glyphs, or None."""
    installed = set(font_manager.get_font_names())
    return next((name for name in CJK_FONTS if name in installed), None)


@contextmanager
def house_style():
    """Context manager that applies the style sheet, with a Chinese font as fallback if one is installed."""
    families = [family for family in ("DejaVu Sans", chinese_font(), "sans-serif") if family]
    with plt.style.context([STYLE, {"font.family": families}]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        yield


def width_of(text):
    """The width of a text in Latin letters; a Chinese character counts two."""
    return sum(1 + (character >= "\u2e80") for character in text)


def styled(draw):
    """Decorator that runs a drawing function in the house style and returns its finished Figure.

    The layout is computed and fixed inside the style, because ticks are created lazily and would later pick up the
    user's settings. A new figure is removed from pyplot's list, otherwise a notebook cell would show it twice; a figure
    drawn on the caller's `ax` is not. Warns if a text is Chinese and no font has the glyphs.
    """

    @functools.wraps(draw)
    def wrapper(*args, **kwargs):
        with house_style():
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()
            texts = [text.get_text() for text in figure.findobj(plt.Text)]
            if not chinese_font() and any(width_of(text) > len(text) for text in texts):
                message = "no Chinese font found, PNG shows boxes; install Noto Sans CJK (SVG is unaffected)"
                warnings.warn(message, stacklevel=2)
        if kwargs.get("ax") is None:
            figure.set_layout_engine("none")
            for axes in figure.axes:  # the layout solver's last bit varies between runs and would change the file
                axes.set_position(np.round(axes.get_position().bounds, 9))
            plt.close(figure)
        return figure

    return wrapper


WIDTHS = {"column": 3.03, "page": 6.30}  # inches: a column and the text width of the ACL style
NARROW = 0.5  # inches, the least width of a panel


def _count_overlaps(figure):
    """The number of overlapping pairs of texts within panels, tick labels included."""
    count = 0
    for axes in figure.axes:
        texts = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]
        shown = [text for text in texts if text.get_text() and text.get_visible()]
        boxes = np.array([text.get_window_extent().extents for text in shown]).reshape(-1, 4)
        boxes = boxes[np.isfinite(boxes).all(axis=1)]
        low, high = np.maximum(boxes[:, None, :2], boxes[:, :2]), np.minimum(boxes[:, None, 2:], boxes[:, 2:])
        count += int((high - low > 1).all(axis=2).sum() - len(boxes)) // 2
    return count


@contextmanager
def at_width(figure, width):
    """Context manager that lays the figure out for a width in inches with unchanged font sizes, and restores it
    afterwards. ValueError if the figure does not fit."""
    size, places = figure.get_size_inches(), [axes.get_position() for axes in figure.axes]
    panels = [axes for axes, place in zip(figure.axes, places, strict=True) if place.width * size[0] > NARROW]
    engine, before = figure.get_layout_engine(), _count_overlaps(figure)
    placed, wrapped = ({a: a.get_in_layout() for a in figure.axes}, {t: t.get_wrap() for t in figure.findobj(plt.Text)})
    try:
        figure.set_size_inches(width, size[1])
        for axes in figure.axes:
            axes.set_in_layout(True)
        for text in figure.findobj(plt.Text):  # titles and axis labels, not ticks
            text.set_wrap(text.get_text().count(" ") > 2)
        figure.set_layout_engine("constrained")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="constrained_layout not applied")
            figure.draw_without_rendering()
        box = figure.get_tightbbox()
        least = min((axes.get_position().width * width for axes in panels), default=width)
        if least < NARROW or box.x0 < -0.05 or box.x1 > width + 0.05 or _count_overlaps(figure) > before:
            raise ValueError(f"this figure has no room at {width:g} inches; it was drawn for {size[0]:.1f}, try more")
        yield
    finally:
        figure.set_size_inches(size)
        figure.set_layout_engine("none")
        for axes, place in zip(figure.axes, places, strict=True):
            axes.set_position(place)
            axes.set_in_layout(placed[axes])
        for text, wrap in wrapped.items():
            text.set_wrap(wrap)
        if engine is not None:
            figure.set_layout_engine(engine)


def save(figure, path, width=None):
    """Write `path`.png (160 dpi), `path`.svg and `path`.pdf atomically, with the same bytes for the same figure;
    returns the three paths.

    `width`: inches, "column" (3.03) or "page" (6.30, both of the ACL style); the figure is laid out again with the same
    font sizes. Default: the width it was drawn with. ValueError if the figure does not fit.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> rates = pd.DataFrame({"share": [0, 0.1, 1], "lr": [0, 3e-4, 0], "schedule": "linear"})
    >>> [file.name for file in qt.figures.save(qt.figures.schedules(rates), "rates")]
    ['rates.png', 'rates.svg', 'rates.pdf']
    """
    if width is not None:
        if isinstance(width, str) and width not in WIDTHS:
            raise ValueError(f"width is {width!r}; it must be inches, or {' or '.join(WIDTHS)}")
        with house_style(), at_width(figure, WIDTHS.get(width, width)):
            return save(figure, path)
    path = Path(path)
    stem = path.with_suffix("") if path.suffix in {".png", ".svg", ".pdf"} else path
    written = []
    undated = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None}}
    for kind, metadata in undated.items():
        written.append(stem.with_name(f"{stem.name}.{kind}"))
        with atomic(written[-1]) as partial, house_style():
            figure.savefig(partial, format=kind, metadata=metadata)
    return tuple(written)


def require(table, *columns, key=()):
    """Raise ValueError unless `table` has rows, all `columns`, and one row per `key`."""
    if len(table) == 0:
        raise ValueError("nothing to draw: the table has no rows; check the stage that wrote it")
    if missing := [column for column in columns if column not in table.columns]:
        raise ValueError(f"columns missing for this figure: {missing}; the table has {list(table.columns)}")
    if unnamed := [column for column in key if table[column].isna().any()]:
        raise ValueError(f"null values in {unnamed}; drop these rows or give them a name")
    repeated = table[table.duplicated(list(key))] if key else ()
    if len(repeated):
        found = repeated[list(key)].iloc[0].to_dict()
        raise ValueError(f"more than one row for {found}; give one row per {', '.join(key)}")


def canvas(ax, width, height):
    """The figure and axes to draw on: those of the caller's `ax` (for a subfigure, the whole figure), or new ones with
    sizes in inches."""
    return (ax.figure.figure, ax) if ax is not None else plt.subplots(figsize=(width, height))


def fill_unknown(table, *columns):
    """The table with nulls in `columns` replaced by "unknown"."""
    return table.assign(**{c: table[c].astype(object).where(table[c].notna(), "unknown") for c in columns})


def order(values, by=None):
    """The distinct values, in the taxonomy's order if column `by` has one, else in order of appearance."""
    seen, known = list(dict.fromkeys(values)), LABELS.get(by, ())
    return [v for v in known if v in seen] + [v for v in seen if v not in known]


def name(value):
    """The English name of a discipline; for any other identifier, its `arm_name`; then `shorten`."""
    return shorten(DISCIPLINES[value].en if value in DISCIPLINES else arm_name(value))


def arm_name(key):
    """An arm, data set or other identifier as it is shown: spaces for underscores, methods as their papers write them.

    >>> from qatoolkit.figures.style import arm_name
    >>> [arm_name(key) for key in ("boostqa_untargeted", "boostqa_linkqa", "general_control")]
    ['BoostQA untargeted', 'BoostQA + LinkQA', 'general control']
    """
    words = re.sub(r"\b(boostqa|linkqa)\b", lambda found: METHODS[found[0]], str(key).replace("_", " "))
    return re.sub(r"(BoostQA|LinkQA) (?=BoostQA|LinkQA)", r"\1 + ", words)


def dial_name(dials, arm=None):
    """The dials of an ablation as they are shown: each setting with its value, then its group in brackets, unless it is
    that of the `arm`.

    >>> from qatoolkit.figures.style import dial_name
    >>> dial_name("boostqa.refine=False"), dial_name("linkqa.alpha=0.0, linkqa.beta=1.0", "linkqa")
    ('refine off (BoostQA)', 'alpha 0, beta 1')
    """
    groups = {}
    for dial, value in re.findall(r"([\w.]+)=(.*?)(?=, [\w.]+=|$)", str(dials)):
        group, _, setting = dial.removeprefix("strategies.").rpartition(".")
        value = {"False": "off", "True": "on", "None": "unset"}.get(value) or re.sub(r"\.0$", "", value)
        groups.setdefault(group, []).append(f"{arm_name(setting)} {value}")
    shown = [
        ", ".join(settings) + (f" ({arm_name(group)})" if group not in ("", arm) else "")
        for group, settings in groups.items()
    ]
    return ", ".join(shown) or str(dials)


def shorten(text):
    """The text with its middle cut out if it is long, and $ escaped, so that matplotlib does not parse it as maths."""
    text = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 + 1 :]}"
    return text.replace("$", r"\$")


def text_width(texts, size=8.5):
    """The width in inches of the longest of `texts` in a font of `size` points."""
    return max(map(width_of, texts), default=0) * 0.6 * size / 72


def name_rows(ax, names, top=0.5):
    """Label the rows y = 0, 1, ... of a horizontal plot from the top down, with `top` rows of space above the first."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -top)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def line_styles(names):
    """The colour and marker of each name: those of `PLACES` for known arms and data sets, for the others what is left
    in their order. Once the colours repeat, markers distinguish the names."""
    colours, names = plt.rcParams["axes.prop_cycle"].by_key()["color"], list(dict.fromkeys(names))
    fixed = {key: PLACES[key] for key in names if key in PLACES}
    free = chain((i for i in range(len(colours)) if i not in fixed.values()), count(len(colours)))
    places = {key: fixed[key] if key in fixed else next(free) for key in names}
    return {
        key: {"color": colours[i % len(colours)], "marker": MARKERS[(i + i // len(colours)) % len(MARKERS)]}
        for key, i in places.items()
    }


def error_lengths(middle, low, high):
    """Error-bar lengths below and above `middle`, never negative: rounding can put a bound just inside it."""
    return np.clip((middle - low, high - middle), 0, None)


def n_text(counts):
    """Text such as "n = 400", or the range if counts differ."""
    counts = pd.Series(counts).dropna().astype(int)
    if counts.empty:
        return "n unknown"
    low, high = counts.min(), counts.max()
    return f"n = {low:,}" if low == high else f"n = {low:,} to {high:,}"


def short_count(x, _=None):
    """A count in short form: 50k, 160k, 2.1M, 1.24B, 40B."""
    size, unit = next((u for u in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")) if abs(x) >= u[0]), (1, ""))
    return f"{x / size:.3g}{unit}"


def power(x, _=None):
    """Compute in scientific notation: 1e12, 3.2e12."""
    mantissa, exponent = f"{x:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def signed(x, decimals=0):
    """A difference with its sign and a typographic minus; values that round to zero are +0."""
    return f"{round(x, decimals) + 0.0:+.{decimals}f}".replace("-", "−")


AXES = {
    "parameters": ("model size", "parameters", short_count),
    "tokens": ("mid-training data", "tokens", short_count),
    "initial_flops": ("initial compute", "FLOPs", power),
}


def log_ticks(axis, values):
    """Ticks at 1, 2, 5, 10, ... if `values` span few decades, else at powers of ten; plain numbers."""
    few = max(values) < 500 * min(values)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axis.set_major_formatter(FuncFormatter(short_count))
    axis.set_minor_formatter(NullFormatter())


def spread(values, gap, low=-np.inf, high=np.inf):
    """The positions moved to be at least `gap` apart, between `low` and `high`, in unchanged order (least squares)."""
    from scipy.optimize import isotonic_regression

    ranks, steps = np.argsort(values, kind="stable"), gap * np.arange(len(values))
    fitted = isotonic_regression(np.asarray(values, float)[ranks] - steps).x
    out = np.empty_like(fitted)
    out[ranks] = fitted.clip(low, max(low, high - steps[-1])) + steps
    return out


def label_ends(ax, ends):
    """Write each line's name to the right of its last known point; `ends` is a list of (xs, ys, name, colour).

    A line with missing values only is named at the bottom, with "no value".
    """
    low, high = ax.get_ylim()
    points = ax.bbox.height * 72 / ax.figure.dpi
    right = ax.get_xlim()[1]
    known = [np.flatnonzero(np.isfinite(ys)) for _, ys, _, _ in ends]
    ends = [
        (xs[at[-1]], ys[at[-1]], text, colour) if len(at) else (right, low, f"{text}: no value", colour)
        for at, (xs, ys, text, colour) in zip(known, ends, strict=True)
    ]
    places = spread([y for _, y, _, _ in ends], 12 * (high - low) / points, low, high)
    at = {"textcoords": "offset points", "va": "center", "annotation_clip": False, "bbox": BACKED}
    for (x, _, text, colour), place in zip(ends, places, strict=True):
        ax.annotate(text, (x, place), (9, 0), color=colour, **at)


def label_points(ax, labels, avoid=()):
    """Label points where the text overlaps least; `labels` is a list of (x, y, text, text properties), `avoid` a list
    of other places (x, y) to keep free.

    Earlier labels are placed first. The limits of the axes must be final.
    """
    ax.figure.figure.draw_without_rendering()
    dots = ax.transData.transform([*((x, y) for x, y, *_ in labels), *avoid])
    taken = [Bbox.from_extents(x - 5, y - 5, x + 5, y + 5) for x, y in dots]
    for x, y, text, properties in labels:
        label, tried = ax.annotate(text, (x, y), (0, 0), textcoords="offset points", **properties), []
        for i, (dx, dy, ha) in enumerate(SIDES):
            label.set(position=(dx, dy), ha=ha)
            box = label.get_window_extent()
            shared = (Bbox.intersection(box, other) for other in taken)
            tried.append((sum(part.width * part.height for part in shared if part), i, box))
        _, best, box = min(tried)
        dx, dy, ha = SIDES[best]
        label.set(position=(dx, dy), ha=ha)
        taken.append(box)
