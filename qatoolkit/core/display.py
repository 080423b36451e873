"""What notebooks show besides figures: questions, key numbers, tables and progress.

JupyterLab strips `<style>` and scripts from the outputs of a notebook that ran elsewhere, so the HTML here has inline
styles only and folds with `<details>`. Everything that comes from data is escaped and, where long, visibly clipped.
"""

import sys
import threading
import time
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec

import numpy as np
import pandas as pd

from qatoolkit.core.text import missing

MUTED = "opacity:0.65"
CARD = "border-left:3px solid #0072B2;padding:4px 0 6px 12px;margin:0 0 14px 0;max-width:900px"
RIGHT = "background-color:rgba(0,158,115,0.18);font-weight:bold"
PROSE = "white-space:pre-wrap;word-wrap:break-word"
CELL = "padding:3px 10px;border-bottom:1px solid rgba(128,128,128,0.3)"
PERCENT = ("accuracy", "share", "coverage", "wrong", "error_rate", "degradation_rate")
POINTS = ("difference", "gain")


@dataclass(frozen=True)
class Rich:
    """The value of a notebook cell: `html` for notebooks, `text` for consoles."""

    html: str
    text: str

    def _repr_html_(self):
        return self.html

    def __repr__(self):
        return self.text


def _clip(value, limit):
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}… (+{len(text) - limit:,} characters)"


def _plain(value):
    """A value as text for people: 1,234, 0.8125, yes, a list with commas."""
    if missing(value):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(map(_plain, value))
    return str(value)


def _choices(row, limit):
    """Pairs (text, whether it is the right one) for a row with choices."""
    choices = row.get("choices")
    if not isinstance(choices, list | tuple | np.ndarray):
        return []
    index = row.get("answer_index")
    right = list(choices).index(row["answer"]) if missing(index) and row["answer"] in choices else index
    return [(_clip(_plain(choice), limit), not missing(right) and i == int(right)) for i, choice in enumerate(choices)]


def _card(row, hide, limit):
    question, answer = _clip(row["question"], limit), _clip(row["answer"], limit)
    html = [f'<div style="{CARD}"><div style="{PROSE};font-weight:bold">{escape(question)}</div>']
    text = [f"Q  {question}"]
    for choice, right in _choices(row, limit):
        mark = "✓" if right else "·"
        html.append(f'<div style="{PROSE};{RIGHT if right else ""}">{mark} {escape(choice)}</div>')
        text.append(f"   {mark} {choice}")
    html.append(f'<div style="{PROSE}"><span style="{MUTED}">answer</span> {escape(answer)}</div>')
    text.append(f"A  {answer}")
    shown = {"question", "answer", "choices", "answer_index", *hide}
    rest = {k: _clip(_plain(v), limit) for k, v in row.items() if k not in shown and not missing(v)}
    if rest:
        head = " · ".join(rest[k] for k in ("discipline", "difficulty", "grade", "source") if k in rest) or "more"
        items = "".join(
            f'<div style="{PROSE}"><span style="{MUTED}">{escape(str(k))}</span> {escape(v)}</div>'
            for k, v in rest.items()
        )
        html.append(f'<details><summary style="{MUTED}">{escape(head)}</summary>{items}</details>')
        text.append(f"   [{head}]")
    return "".join(html) + "</div>", "\n".join(text)


def qa(table, n=5, seed=0, hide=(), limit=1200):
    """Show `n` questions of a QA table, drawn with `seed`: question and answer first, the rest folded away.

    `hide` names columns to leave out (question and answer are always shown); texts are clipped after `limit`
    characters. Raises ValueError for an empty table or one without question and answer."""
    absent = [column for column in ("question", "answer") if column not in table.columns]
    if len(table) == 0 or absent:
        raise ValueError(f"no questions to show: {len(table)} rows, missing columns {absent}; pass a QA table")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(table))[:n])
    cards = [_card(row, hide, limit) for row in table.iloc[chosen].to_dict("records")]
    count = f"{len(cards):,} of {len(table):,} questions"
    html = "".join(html for html, _ in cards) + f'<div style="{MUTED}">{count}</div>'
    return Rich(html, "\n\n".join([*(text for _, text in cards), count]))


def facts(mapping, title=""):
    """Show key numbers as a small two-column table under `title`."""
    pairs = [(str(key), _clip(_plain(value), 300)) for key, value in mapping.items()]
    rows = "".join(
        f'<tr><td style="{CELL};text-align:left">{escape(key)}</td>'
        f'<td style="{CELL};text-align:right;font-weight:bold">{escape(value)}</td></tr>'
        for key, value in pairs
    )
    head = f'<div style="font-weight:bold;margin:0 0 4px 0">{escape(title)}</div>' if title else ""
    width = max((len(key) for key, _ in pairs), default=0)
    lines = [*([title] if title else []), *(f"  {key.ljust(width)}  {value}" for key, value in pairs)]
    return Rich(f'{head}<table style="border-collapse:collapse">{rows}</table>', "\n".join(lines))


def _points(value):
    return f"{100 * value:+.1f}".replace("-", "−")


def _formatter(column, columns, formats):
    """How to write the values of a column: by `formats`, else by its name (percent, points, powers of ten)."""
    asked = formats.get(column)
    if asked is not None:
        write = asked if callable(asked) else lambda value: format(value, asked)
    elif str(column).endswith(POINTS):
        write = _points
    elif str(column).endswith(PERCENT):
        write = "{:.1%}".format
    elif str(column).endswith("flops"):
        write = "{:.3g}".format
    elif column in {"low", "high"}:
        # Bounds have the unit of what they bound.
        bounded = [name for name in columns if str(name).endswith((*PERCENT, *POINTS))]
        return _formatter(bounded[0], [], {}) if bounded else _plain
    else:
        return _plain
    named = asked is None  # text in such a column is already formatted
    return lambda value: "–" if missing(value) else value if named and isinstance(value, str) else write(value)


def table(df, formats=None, *, limit=50):
    """Show at most `limit` rows of a table: accuracies and shares in percent, differences and gains in points, FLOPs in
    powers of ten.

    `formats` overrides by column: a format spec such as ".2f", or a function of the value. An index with a name or of
    strings is shown as columns."""
    if df.index.names == [None] and pd.api.types.is_string_dtype(df.index):
        df = df.rename_axis("")
    if df.index.names != [None]:
        df = df.reset_index()
    columns = list(df.columns)
    writers = [_formatter(column, columns, formats or {}) for column in columns]
    sides = ["right" if pd.api.types.is_numeric_dtype(df[column]) else "left" for column in columns]
    units = [" (points)" if str(c).endswith(POINTS) and c not in (formats or {}) else "" for c in columns]
    heads = [f"{column}{unit}" for column, unit in zip(columns, units, strict=True)]
    body = [
        [_clip(write(value), 120) for write, value in zip(writers, row, strict=True)]
        for row in df.head(limit).itertuples(index=False, name=None)
    ]

    def line(cells, tag, weight):
        style = f"{CELL};font-weight:{weight};text-align:"
        pairs = zip(cells, sides, strict=True)
        return "<tr>" + "".join(f'<{tag} style="{style}{s}">{escape(c)}</{tag}>' for c, s in pairs) + "</tr>"

    html = line(heads, "th", "bold") + "".join(line(row, "td", "normal") for row in body)
    html = f'<table style="border-collapse:collapse">{html}</table>'
    text = pd.DataFrame(body, columns=heads).to_string(index=False) if body else "  ".join(heads)
    if len(body) < len(df) or not body:
        more = f"{len(df) - len(body):,} more rows" if body else "no rows"
        html, text = f'{html}<div style="{MUTED}">{more}</div>', f"{text}\n{more}"
    return Rich(html, text)


def _duration(seconds):
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def is_live():
    """Whether a person is using this notebook: front-ends allow a cell to ask for input, while nbclient, nbconvert and
    papermill forbid it in every request."""
    ipython = sys.modules.get("IPython")
    kernel = getattr(ipython.get_ipython(), "kernel", None) if ipython else None
    if kernel is None or find_spec("ipywidgets") is None:
        return False
    return bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin"))


class Progress:
    """Progress of `total` items (None: unknown), as a context manager: a widget when live, else text.

    Headless runs print a line at most every `every` seconds. Every run prints a closing line, so a saved notebook never
    shows a frozen bar, unless it succeeds within `brief` seconds. `update` may be called from any thread."""

    def __init__(self, total, label, unit="items", *, every=5.0, brief=0.0):
        self.total, self.label, self.unit, self.every, self.brief = total, label, unit, every, brief
        self.done, self.notes = 0, {}
        self._lock, self._widget = threading.Lock(), None

    def __enter__(self):
        self._start = self._shown = time.monotonic()
        if is_live():
            import ipywidgets
            from IPython.display import display

            self._bar = ipywidgets.IntProgress(max=self.total or 1)
            self._text = ipywidgets.Label(self._line())
            self._widget = ipywidgets.HBox([self._bar, self._text])
            display(self._widget)
        return self

    def update(self, k=1, **notes):
        """Count `k` more items as done; `notes` (such as cost or loss) are shown beside the count."""
        with self._lock:
            self.done += k
            self.notes |= notes
            now = time.monotonic()
            if now - self._shown < (0.2 if self._widget else self.every):
                return
            self._shown = now
            if self._widget:
                self._bar.value, self._text.value = self.done if self.total else 0, self._line()
            else:
                print(self._line(), flush=True)

    def __exit__(self, kind, error, trace):
        with self._lock:
            if self._widget:
                self._widget.close()
            seconds = time.monotonic() - self._start
            if kind is None and seconds < self.brief:
                return
            took = _duration(seconds)
            end = f"in {took}" if kind is None else f"when {kind.__name__} stopped it after {took}"
            print(f"{self._count()} {end}{self._aside(self._rate())}", flush=True)

    def _count(self):
        of = f"/{self.total:,}" if self.total else ""
        return f"{self.label}: {self.done:,}{of} {self.unit}"

    def _rate(self):
        return self.done / max(time.monotonic() - self._start, 1e-9)

    def _aside(self, rate, *more):
        notes = (f"{key} {_plain(value)}" for key, value in self.notes.items())
        return f" ({', '.join([f'{rate:,.3g}/s', *more, *notes])})"

    def _line(self):
        rate = self._rate()
        more = []
        if self.total:
            more = [f"{self.done / self.total:.0%}"]
            if self.done:
                more.append(f"{_duration(max(0, self.total - self.done) / rate)} left")
        return self._count() + self._aside(rate, *more)
