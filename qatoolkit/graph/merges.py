"""Near-identical knowledge points: a table of merges to look at, to shorten and to apply before the graph is built.

Two knowledge points (KPs) become one only where rules make their names the same text: alternative spellings, hyphens
and spaces, ordinals, "law of X" for "X's law", or a line of the alias table. Nothing is joined because it looks alike,
since opposites and neighbours do ("intracellular", "intercellular"); a merge missed costs less than two subjects made
one. Every name is reduced by itself, so 200,000 names take seconds and the order of names plays no part. Our reading.

The table's column `decision` says what becomes of a row: two spellings are decided as "merge", since their rules keep
opposites and numbers apart; all else is up for "review" and stays apart until somebody writes "merge" there."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path

import pandas as pd

from qatoolkit.core.qa_table import require
from qatoolkit.graph.knowledge_points import cell_texts, normalise_kp
from qatoolkit.graph.kp_graph import KPGraph
from qatoolkit.graph.spelling import misspellings, order_key, spelling_words, written

COLUMNS = ("kept", "merged", "reason", "decision", "similarity", "kept_popularity", "merged_popularity")
REASONS = {
    "spelling": "one name in two spellings: British and American, hyphen or space, ordinal, accent",
    "slip": "one name, once with a slip of the pen: two letters swapped, a doubled letter written once",
    "word order": 'one name with its words turned: "law of ohm", "ohm\'s law"',
    "alias": "two names of one thing in the alias table: a translation, an abbreviation, a synonym",
}
DECISIONS = {
    "merge": "the two become one node",
    "review": "nobody has decided yet: they stay apart",
    "apart": "somebody looked at them: they stay apart",
}
# The others can be wrong: a slip may be a word, "energy conservation" may save power, an alias may say more or less
# than the name.
SURE = ("spelling",)
_EXPLAINED = re.compile(r"(.+?) ?\(([^()]+)\)")


def merge_candidates(names: KPGraph | Iterable[str], aliases: str | Path | pd.DataFrame | None = None):
    """KPs that are one under two names: a table of `COLUMNS`, the most popular first.

    names: a graph, or KPs as texts, each as often as it occurs. Of several names the most popular is kept, counted with
    the names that a surer reason has joined to it, the first in alphabetical order among equals. reason: a key of
    `REASONS`; similarity: letters in common, from 0 to 1, of the two names, null for aliases; popularity: seeds that
    hold the KP, or how often it occurs in `names`; decision: a key of `DECISIONS`, "merge" for the reasons in `SURE`,
    else "review". Where several reasons join a group, its names are joined step by step, the surest first, so that each
    step can be turned down by itself. aliases: pairs of your own beside those of the package, as a table or CSV with
    the columns `name` and `alias`; each line says that both are one KP. Raises ValueError for a table without these
    columns or with an empty cell.

    Drop the rows that you do not want, or change their `decision`, and pass the rest to `apply_merges`.
    """
    popularity = _popularity(names)
    words = {name: spelling_words(name) for name in popularity}
    right = misspellings(words, popularity)
    same = _alias_groups(aliases)

    keys = {}
    for name, split in words.items():
        corrected = tuple(right.get(word, word) for word in split)
        ordered = order_key(corrected)
        keys[name] = _concept(name, ordered, same), ordered, written(corrected), written(split)
    rows, heads, weight = [], list(popularity), dict(popularity)
    for shared, reason in zip((4, 3, 2, 1), REASONS, strict=True):  # how much of the key has to be the same
        kept_of = {}
        for name in sorted(heads, key=lambda name: (-weight[name], name)):
            kept = kept_of.setdefault(keys[name][:shared], name)
            if kept != name:
                ratio = SequenceMatcher(None, kept, name, autojunk=False).ratio() if reason != "alias" else None
                decision = "merge" if reason in SURE else "review"
                rows.append((kept, name, reason, decision, ratio, popularity[kept], popularity[name]))
                weight[kept] += weight[name]
        heads = list(kept_of.values())
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"similarity": float})
    table = table.sort_values(["kept", "merged"])
    popular = ["kept_popularity", "merged_popularity"]
    return table.sort_values(popular, ascending=False, kind="stable", ignore_index=True)


def _popularity(names) -> dict[str, int]:
    if isinstance(names, KPGraph):
        return dict(zip(names.names, names.popularity.tolist(), strict=True))
    if isinstance(names, str | pd.DataFrame):
        raise ValueError(f"names is a {type(names).__name__}; allowed: a KPGraph, or an iterable of texts")
    names = list(names)
    if wrong := sorted({type(name).__name__ for name in names if not isinstance(name, str)}):
        raise ValueError(
            f"names holds {', '.join(wrong)}; allowed: texts, such as table['knowledge_points'].explode().dropna()"
        )
    popularity = Counter()
    for name, count in Counter(names).items():
        popularity[normalise_kp(name)] += count
    popularity.pop("", None)
    return dict(popularity)


def _alias_groups(own) -> dict[str, str]:
    """Key of every alias -> key that stands for its group."""
    tables = [_read_aliases(Path(__file__).with_name("kp_aliases.csv"))]
    tables += [] if own is None else [_read_aliases(own)]
    parent = {}

    def root(key):
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    for name, alias in pd.concat(tables).itertuples(index=False):
        parent[root(_key(alias))] = root(_key(name))
    return {key: root(key) for key in parent}


def _read_aliases(source) -> pd.DataFrame:
    if isinstance(source, pd.DataFrame):
        table, where = source, "aliases"
    elif not isinstance(source, str | Path):
        raise ValueError(
            f"aliases is a {type(source).__name__}; allowed: a table or a CSV file with the columns name and alias"
        )
    else:
        table, where = _read_csv(source), source
    require(where, table, "name", "alias")
    table = table[["name", "alias"]]
    empty = ~table.map(lambda cell: isinstance(cell, str) and normalise_kp(cell) != "").all(axis=1)
    if empty.any():
        row = int(empty.to_numpy().argmax())
        raise ValueError(f"{where}: row {row + 1} is {table.iloc[row].tolist()}; both cells need a text")
    return table


def _read_csv(path) -> pd.DataFrame:
    """The cells of a CSV file as texts, without the empty rows that spreadsheets leave; ValueError says what is
    wrong."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path} is no CSV file in UTF-8 ({error}); save it as CSV in UTF-8") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes the first cells of longer rows for an index
        raise ValueError(
            f"{path} has rows of more cells than its header; name every column, and quote cells with commas"
        )
    return table[(table != "").any(axis=1)].reset_index(drop=True)


def _concept(name: str, key: str, same: Mapping[str, str]) -> str:
    """What a name stands for: its key's group; that of x where it is written "x (y)" and x and y are of one group."""
    if key not in same and (match := _EXPLAINED.fullmatch(name)):
        outer, inner = (same.get(_key(part)) for part in match.groups())
        return outer if outer is not None and outer == inner else key
    return same.get(key, key)


def _key(name: str) -> str:
    return order_key(spelling_words(normalise_kp(name)))


def apply_merges(table: pd.DataFrame, merges: pd.DataFrame) -> pd.DataFrame:
    """A copy of a QA table with every merged knowledge point replaced by the one that is kept, each once in a row.

    merges: rows of `merge_candidates`, of which those decided as "merge" are applied; a table of your own needs `kept`
    and `merged` only, and without `decision` all its rows are. Another name may be written into `kept`. A chain ends at
    its last name. Names are compared as `normalise_kp` writes them; other KPs stay as they are. Raises ValueError for
    missing columns, for an unknown decision, for a name that would be merged into two, for names that are merged in a
    circle, and for two that are decided as "apart" and yet merged into one."""
    require("table", table, "knowledge_points")
    require("merges", merges, "kept", "merged")
    into, normal = _agreed(merges), cache(normalise_kp)

    def merged(row, cell):
        texts = cell_texts(cell, f"knowledge_points in row {row!r}")
        distinct = {}
        for text in texts:
            kept = into.get(normal(text), text)
            distinct.setdefault(normal(kept), kept)
        return list(distinct.values()) if texts else cell

    cells = [merged(row, cell) for row, cell in table["knowledge_points"].items()]
    return table.assign(knowledge_points=pd.Series(cells, index=table.index, dtype=object))


def read_merges(path: str | Path, names: KPGraph | Iterable[str]) -> pd.DataFrame:
    """A reviewed table of merges from a CSV file, in UTF-8, for `apply_merges`: `kept`, `merged`, `decision`, and what
    else it holds.

    Without the column `decision` every row is decided as "merge". The popularities are counted anew among `names`, so
    that a merged name that occurs nowhere shows a 0. Raises ValueError, with the file's name, as `apply_merges` does.
    """
    table = _read_csv(path)
    require(path, table, "kept", "merged")
    if "similarity" in table:
        table["similarity"] = pd.to_numeric(table["similarity"], errors="coerce")
    if "decision" not in table:
        table.insert(2, "decision", "merge")
    table["decision"] = table["decision"].str.strip().str.lower()  # spreadsheets turn "merge" into "Merge"
    try:
        _agreed(table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    popularity = _popularity(names)
    counted = {f"{side}_popularity": table[side].map(normalise_kp).map(popularity) for side in ("kept", "merged")}
    return table.assign(**{column: count.fillna(0).astype(int) for column, count in counted.items()})


def _agreed(merges) -> dict[str, str]:
    """Merged name -> the name at the end of its chain, by the rows that are decided as "merge"; by all where there is
    no such column."""
    if "decision" not in merges:
        return _targets(merges)
    wrong = merges[~merges["decision"].isin(list(DECISIONS))]
    if len(wrong):
        kept, merged, decision = wrong.iloc[0][["kept", "merged", "decision"]]
        raise ValueError(f"the decision about {kept!r} <- {merged!r} is {decision!r}; allowed: {', '.join(DECISIONS)}")
    into = _targets(merges[merges["decision"] == "merge"])
    apart = merges[merges["decision"] == "apart"]
    for kept, merged in _pairs(apart):
        ends = {normalise_kp(into.get(name, name)) for name in (normalise_kp(kept), normalise_kp(merged))}
        if len(ends) == 1:
            raise ValueError(
                f"{kept!r} and {merged!r} are decided as apart, and other rows merge them into {ends.pop()!r}; "
                "change one of the rows"
            )
    return into


def _pairs(merges):
    """The two names of every row; ValueError for one that is no text."""
    for kept, merged in zip(merges["kept"], merges["merged"], strict=True):
        if not all(isinstance(name, str) and normalise_kp(name) for name in (kept, merged)):
            raise ValueError(f"merges has the row {kept!r} <- {merged!r}; both need a text")
        yield kept, merged


def _targets(merges) -> dict[str, str]:
    """Merged name -> the name at the end of its chain."""
    step, spelling = {}, {}
    for kept, merged in _pairs(merges):
        source, target = normalise_kp(merged), normalise_kp(kept)
        if step.setdefault(source, target) != target:
            raise ValueError(f"{merged!r} is merged into {step[source]!r} and into {target!r}; drop one of the rows")
        spelling.setdefault(target, kept)
    into = {}
    for source in step:
        seen, name = [source], step[source]
        while name in step and name != step[name]:
            if name in seen:
                raise ValueError(f"names are merged in a circle: {' -> '.join([*seen, name])}; drop one of the rows")
            seen.append(name)
            name = step[name]
        into[source] = spelling[name]
    return into
