"""What notebooks show besides figures: questions, key numbers, tables and progress.

JupyterLab strips `<style>` and scripts from the outputs of notebooks that ran elsewhere, so the HTML here uses only
inline styles and `<details>`. Everything from data is escaped, and long texts are visibly clipped.
"""

import html as markup
import math
import re
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import pandas as pd

from qatoolkit.core.text import is_missing

MUTED = "opacity:0.65"
CARD = "border-left:3px solid #0072B2;padding:4px 0 6px 12px;margin:0 0 14px 0;max-width:900px"
RIGHT = "background-color:rgba(0,158,115,0.18);font-weight:bold"
PROSE = "white-space:pre-wrap;word-wrap:break-word"
CELL = "padding:3px 10px;border-bottom:1px solid rgba(128,128,128,0.3)"
# Column names by how their values are written: shares in percent, differences in points, p-values.
PERCENT = re.compile(
    r"(.*[ _])?(accuracy|share|error_rate|degraded|guessing|chance|replay|recall|precision|packed|padded|untouched"
    r"|blind(_training|_model|_position)?|(coverage|wrong)(_before|_second|_after|_aimed)?)"
)
POINTS = re.compile(r"(.*[ _])?(difference|gain|slope)")
SCROLLS = '<div style="overflow-x:auto">'
P_VALUE = re.compile(r"p(_.+)?")
FORMULA_OR_DOLLAR = re.compile(r"\$\$.+?\$\$|\$(?!\s)[^$]*(?<!\s)\$(?!\d)|\$", re.DOTALL)


@dataclass(frozen=True)
class Rich:
    """The value of a cell: `html` for notebooks, `text` for consoles."""

    html: str
    text: str

    def _repr_html_(self):
        return self.html

    def __repr__(self):
        return self.text


class Sections:
    """A value shown as headings with a `table`, `facts` or `qa` below each: `_sections()` yields (title, part)."""

    def _repr_html_(self):
        head = '<div style="font-weight:bold;margin:8px 0 4px 0">'
        return "".join(f"{head}{escape(title)}</div>{part.html}" for title, part in self._sections())

    def __repr__(self):
        return "\n\n".join(f"{title}\n{part.text}".strip() for title, part in self._sections())


def escape(text):
    """HTML of a text. Jupyter typesets $...$; a tag around any other $ (a price) keeps it a dollar sign."""
    return FORMULA_OR_DOLLAR.sub(lambda m: "<span>$</span>" if m[0] == "$" else m[0], markup.escape(str(text)))


def _clip(value, limit):
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}… (+{len(text) - limit:,} characters)"


def _plain(value):
    """A value as text for readers: 1,234, 0.8125, yes, lists with commas."""
    if is_missing(value):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return f"{value:,.0f}" if 1e3 <= abs(value) < 1e15 else f"{value:.4g}"
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(map(_plain, value))
    return str(value)


def _choices(row, limit):
    """(text, is it right) for each choice of a row."""
    choices = row.get("choices")
    if not isinstance(choices, list | tuple | np.ndarray):
        return []
    right = row.get("answer_index")
    if is_missing(right):
        right = list(choices).index(row["answer"]) if row["answer"] in choices else -1
    return [(_clip(_plain(choice), limit), i == int(right)) for i, choice in enumerate(choices)]


def _card(row, hide, limit):
    question, answer = _clip(row["question"], limit), _clip(row["answer"], limit)
    html = [f'<div style="{CARD}"><div style="{PROSE};font-weight:bold">{escape(question)}</div>']
    text = [f"Q  {question}"]
    for choice, right in _choices(row, limit):
        mark = "✓" if right else "·"
        html.append(f'<div style="{PROSE};{RIGHT if right else ""}">{mark} {escape(choice)}</div>')
        text.append(f"   {mark} {choice}")
    html.append(_field("answer", answer))
    text.append(f"A  {answer}")
    shown = {"question", "answer", "choices", "answer_index", *hide}
    rest = {str(k): _clip(_plain(v), limit) for k, v in row.items() if k not in shown and not is_missing(v)}
    if rest:
        head = " · ".join(rest[k] for k in ("discipline", "difficulty", "grade", "source") if k in rest) or "more"
        fields = "".join(_field(*item) for item in rest.items())
        html.append(f'<details><summary style="{MUTED}">{escape(head)}</summary>{fields}</details>')
        text.append(f"   [{head}]")
    return "".join(html) + "</div>", "\n".join(text)


def _field(name, value):
    return f'<div style="{PROSE}"><span style="{MUTED}">{escape(name)}</span> {escape(value)}</div>'


def qa(table, n=5, seed=0, hide=(), limit=1200):
    """Show `n` questions of a QA table, sampled with `seed`: question and answer first, the other fields folded.

    `hide`: columns to leave out (question and answer are always shown). Texts are clipped after `limit` characters.
    Raises ValueError for an empty table or one without the columns question and answer.

    >>> import qatoolkit as qt
    >>> row = {"question": "How many legs has a spider?", "answer": "8", "choices": ["6", "8"], "answer_index": 1}
    >>> qt.qa(qt.qa_table([row], language="en", source="zoo"))
    Q  How many legs has a spider?
       · 6
       ✓ 8
    A  8
       [zoo]
    <BLANKLINE>
    1 of 1 questions
    """
    no_column = [column for column in ("question", "answer") if column not in table.columns]
    if len(table) == 0 or no_column:
        raise ValueError(f"no questions to show: {len(table)} rows, missing columns {no_column}; pass a QA table")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(table))[:n])
    cards = [_card(row, hide, limit) for row in table.iloc[chosen].to_dict("records")]
    count = f"{len(cards):,} of {len(table):,} questions"
    html = "".join(html for html, _ in cards) + f'<div style="{MUTED}">{count}</div>'
    return Rich(html, "\n\n".join([*(text for _, text in cards), count]))


def _line(cells, styles, tag="td"):
    pairs = zip(cells, styles, strict=True)
    return "<tr>" + "".join(f'<{tag} style="{CELL};{style}">{escape(cell)}</{tag}>' for cell, style in pairs) + "</tr>"


def _html_table(lines):
    """A table that scrolls if it is wider than the page."""
    return f'{SCROLLS}<table style="border-collapse:collapse">{"".join(lines)}</table></div>'


def facts(mapping, title=""):
    """Show key numbers as a two-column table under `title`. The names decide the number formats, as in `table`.

    >>> import qatoolkit as qt
    >>> qt.facts({"questions": 12000, "accuracy": 0.538, "gain": 0.126}, title="physics, second try")
    physics, second try
      questions  12,000
      accuracy   53.8%
      gain       +12.6
    """
    pairs = [(str(key), _clip(_formatter(key, list(mapping), {})(value), 300)) for key, value in mapping.items()]
    head = f'<div style="font-weight:bold;margin:0 0 4px 0">{escape(title)}</div>' if title else ""
    width = max((len(key) for key, _ in pairs), default=0)
    text = [*([title] if title else []), *(f"  {key.ljust(width)}  {value}" for key, value in pairs)]
    html = _html_table(_line(pair, ("text-align:left", "text-align:right;font-weight:bold")) for pair in pairs)
    return Rich(head + html, "\n".join(text))


def _points(value):
    return f"{round(100 * value, 1) + 0.0:+.1f}".replace("-", "−")  # + 0.0: no negative zero


def _formatter(column, columns, formats):
    """The function that formats a column: from `formats`, else by the column's name (percent, points, FLOPs,
    p-values)."""
    chosen, name = formats.get(column), str(column)
    if chosen is not None:
        write = chosen if callable(chosen) else lambda value: format(value, chosen)
        return lambda value: "–" if is_missing(value) else write(value)
    name = re.sub("[_ ](low|high)$", "", name)
    if name in {"low", "high"}:  # in the unit of the column that they bound
        earlier = map(str, reversed(list(columns)[: list(columns).index(column)]))
        name = next((other for other in earlier if PERCENT.fullmatch(other) or POINTS.fullmatch(other)), "")
    if POINTS.fullmatch(name):
        write = _points
    elif PERCENT.fullmatch(name):
        write = "{:.1%}".format
    elif name.endswith("flops"):
        write = "{:.3g}".format
    elif P_VALUE.fullmatch(name):
        write = _p
    else:
        return _plain
    return lambda value: (
        _plain(value) if is_missing(value) or isinstance(value, str | int | np.integer) else write(value)
    )


def _aligned(column):
    """The function that formats a column of plain fractions with the same number of decimals, so that the largest has
    four significant digits. None if the smallest would keep fewer than two, or if the column contains counts."""
    sizes = column.abs()[column.notna() & (column != 0)] if pd.api.types.is_float_dtype(column) else ()
    if not len(sizes) or not 1e-3 <= sizes.max() < 1e3 or sizes.max() > 100 * sizes.min():
        return None
    if (whole := sizes % 1 == 0).all() or (whole & (sizes > 1)).any():
        return None
    used = max(len(f"{size:.4g}".partition(".")[2]) for size in sizes)
    decimals = min(used, 3 - math.floor(math.log10(sizes.max())))
    return lambda value: _plain(value) if is_missing(value) else f"{round(value, decimals) + 0.0:.{decimals}f}"


def _p(value):
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


@dataclass(frozen=True)
class Table(Rich):
    """A table as shown: `cells` holds the formatted texts, `sides` an "l" or "r" per column."""

    cells: pd.DataFrame
    sides: str

    def __repr__(self):
        return self.text

    def to_latex(self) -> str:
        """The table as LaTeX: booktabs rules, numbers right-aligned, special characters escaped."""
        written = self.cells.to_latex(index=False, escape=True, column_format=self.sides)
        return written.replace("−", "$-$").replace("< ", "$<$ ").replace("–", "--")


def table(df, formats=None, *, limit=50):
    """Show a table: accuracies and shares in percent, differences and gains in points, FLOPs in powers of ten, p-values
    with three decimals. The result has `.to_latex()` for papers.

    `formats` overrides by column: a format spec such as ".2f", or a function of the value. `limit`: the maximum number
    of rows shown. An index that has a name or holds texts is shown as columns.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> scores = pd.DataFrame({"model": ["base", "tuned"], "accuracy": [0.412, 0.538], "gain": [None, 0.126]})
    >>> qt.table(scores)
    model accuracy gain (points)
     base    41.2%             –
    tuned    53.8%         +12.6
    >>> qt.table(scores[["model", "accuracy"]], {"accuracy": ".3f"})
    model accuracy
     base    0.412
    tuned    0.538
    """
    formats = formats or {}
    if df.index.names == [None] and pd.api.types.is_string_dtype(df.index):
        df = df.rename_axis("")
    if df.index.names != [None]:
        df = df.reset_index()
    columns = list(df.columns)
    writers = [_formatter(column, columns, formats) for column in columns]
    writers = [_aligned(df[c]) or w if w is _plain else w for c, w in zip(columns, writers, strict=True)]
    sides = [f"text-align:{'right' if pd.api.types.is_numeric_dtype(df[column]) else 'left'}" for column in columns]
    heads = [f"{c} (points)" if POINTS.fullmatch(str(c)) and c not in formats else str(c) for c in columns]
    body = [
        [_clip(write(value), 120) for write, value in zip(writers, row, strict=True)]
        for row in df.head(limit).itertuples(index=False, name=None)
    ]
    head = _line(heads, [f"font-weight:bold;{side}" for side in sides], "th")
    html = _html_table([head, *(_line(row, sides) for row in body)])
    cells = pd.DataFrame(body, columns=heads)
    text = cells.to_string(index=False) if body else "  ".join(heads)
    if len(body) < len(df) or not body:
        more = f"{len(df) - len(body):,} more rows" if body else "no rows"
        html, text = f'{html}<div style="{MUTED}">{more}</div>', f"{text}\n{more}"
    return Table(html, text, cells, "".join("r" if "right" in side else "l" for side in sides))


def _duration(seconds):
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def is_live():
    """True in an interactive notebook, where a person can answer a prompt.

    Front-ends allow cells to ask for input; nbclient, nbconvert and papermill forbid it in every request.
    """
    ipython = sys.modules.get("IPython")
    kernel = getattr(ipython.get_ipython(), "kernel", None) if ipython else None
    if kernel is None or find_spec("ipywidgets") is None:
        return False
    return bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin"))


class InOneLine:
    """An error that a notebook shows without a traceback, since its message says what to do."""

    def _render_traceback_(self):
        return [f"{type(self).__name__}: {self}"]


class Interrupted(InOneLine, KeyboardInterrupt):
    """A cell was interrupted; the message says what was kept."""


class Progress:
    """Context manager that shows progress through `total` items (None: unknown): a widget when live, else text.

    The rate covers the last `WINDOW` seconds and starts at the first finished item, so a slow start does not distort
    the estimate of the time left. Headless runs print a line at most every `every` seconds. A closing line is printed
    at the end, so that saved notebooks never show a frozen bar, unless the work succeeds within `brief` seconds.
    `update` may be called from any thread.
    """

    WINDOW = 30.0

    def __init__(self, total, label, unit="items", *, every=5.0, brief=0.0):
        self.total, self.label, self.unit, self.every, self.brief = total, label, unit, every, brief
        self.done, self.notes = 0, {}
        self._lock, self._widget = threading.Lock(), None
        self._marks = deque()  # (time, items done)

    def __enter__(self):
        self._start = self._shown = time.monotonic()
        if is_live():
            import ipywidgets
            from IPython.display import display

            self._bar = ipywidgets.IntProgress(max=self.total or 1)
            self._text = ipywidgets.Label(self._line())
            self._widget = ipywidgets.HBox([self._bar, self._text])
            self._shown_as = display(self._widget, display_id=True)
        return self

    def update(self, k=1, **notes):
        """Count `k` more items as done; `notes` (such as cost or loss) are shown beside the count."""
        with self._lock:
            self.done += k
            self.notes |= notes
            now = time.monotonic()
            if not self._marks or now - self._marks[-1][0] > self.WINDOW / 100:
                self._marks.append((now, self.done))
                while len(self._marks) > 2 and now - self._marks[1][0] > self.WINDOW:
                    self._marks.popleft()
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
                self._shown_as.update({"text/plain": ""}, raw=True)  # else a saved notebook looks for the closed widget
            seconds = time.monotonic() - self._start
            if kind is not None or seconds >= self.brief:
                if kind is None:
                    stopped = "in"
                elif issubclass(kind, KeyboardInterrupt):
                    stopped = "when it was interrupted after"
                else:
                    stopped = f"when {kind.__name__} stopped it after"
                print(self._line(f" {stopped} {_duration(seconds)}", self.done / max(seconds, 1e-9)), flush=True)

    def _rate(self):
        """Items per second within the window; None before there are two measurements to compare."""
        if not self._marks or (now := time.monotonic()) - self._marks[0][0] < 0.2 or self.done == self._marks[0][1]:
            return None
        return (self.done - self._marks[0][1]) / (now - self._marks[0][0])

    def _line(self, end="", rate=None):
        total, details = max(self.total, self.done) if self.total else None, []
        if rate := rate or self._rate():
            details.append(f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.3g}/s")
        if total and not end:
            details.append(f"{self.done / total:.0%}")
            if rate:
                details.append(f"{_duration((total - self.done) / rate)} left")
        details += [f"{key} {_plain(value)}" for key, value in self.notes.items()]
        of_total, details = f"/{total:,}" if total else "", f" ({', '.join(details)})" if details else ""
        return f"{self.label}: {self.done:,}{of_total} {self.unit}{end}{details}"
