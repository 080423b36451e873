"""Near-identical knowledge points: a table of merges to look at, to shorten and to apply before the graph is built.

Two knowledge points (KPs) become one only where rules make their names the same text: alternative spellings, hyphens and
spaces, ordinals, "law of X" for "X's law", or a line of the alias table. Nothing is joined because it looks alike, since
opposites and neighbours do ("intracellular", "intercellular"); a merge missed costs less than two subjects made one. Every
name is reduced by itself, so 200,000 names take seconds and the order of names plays no part. Our reading.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from pathlib import Path

import pandas as pd

from qatoolkit.kp_spelling import misspellings, order_key, spelling_words, written
from qatoolkit.kpgraph import KPGraph
from qatoolkit.kps import cell_texts, normalise_kp

COLUMNS = ("kept", "merged", "reason", "similarity", "kept_popularity", "merged_popularity")
REASONS = {
    "spelling": "one name in two spellings: British and American, hyphen or space, ordinal, accent, slip of the pen",
    "word order": 'one name with its words turned: "law of ohm", "ohm\'s law"',
    "alias": "two names of one thing in the alias table: a translation, an abbreviation, a synonym",
}
_EXPLAINED = re.compile(r"(.+?) ?\(([^()]+)\)")


def merge_candidates(names: KPGraph | Iterable[str], aliases: str | Path | pd.DataFrame | None = None):
    """KPs that are one under two names: a table of `COLUMNS`, the most popular first.

    names: a graph, or KPs as texts, each as often as it occurs. Of several names the most popular is kept, the first in
    alphabetical order among equals. reason: a key of `REASONS`; similarity: letters in common, from 0 to 1, of the two names,
    null for aliases; popularity: seeds that hold the KP, or how often it occurs in `names`.
    aliases: pairs of your own beside those of the package, as a table or CSV with the columns `name` and `alias`; each line
    says that both are one KP. Raises ValueError for a table without these columns or with an empty cell.

    Drop the rows that you do not want and pass the rest to `apply_merges`.
    """
    popularity = _popularity(names)
    words = {name: spelling_words(name) for name in popularity}
    right = misspellings(words, popularity)
    words = {name: tuple(right.get(word, word) for word in split) for name, split in words.items()}
    same = _alias_groups(aliases)

    groups, keys = defaultdict(list), {}
    for name, split in words.items():
        spelt, ordered = written(split), order_key(split)
        keys[name] = spelt, ordered
        groups[_concept(name, ordered, same)].append(name)
    rows = []
    for group in groups.values():
        kept, *others = sorted(group, key=lambda name: (-popularity[name], name))
        for name in others:
            reason = "alias" if keys[name][1] != keys[kept][1] else "word order"
            reason = "spelling" if keys[name][0] == keys[kept][0] else reason
            ratio = SequenceMatcher(None, kept, name, autojunk=False).ratio() if reason != "alias" else None
            rows.append((kept, name, reason, ratio, popularity[kept], popularity[name]))
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"similarity": float})
    table = table.sort_values(["kept", "merged"])
    popular = ["kept_popularity", "merged_popularity"]
    return table.sort_values(popular, ascending=False, kind="stable", ignore_index=True)


def _popularity(names) -> dict[str, int]:
    if isinstance(names, KPGraph):
        return dict(zip(names.names, names.popularity.tolist(), strict=True))
    if isinstance(names, str | pd.DataFrame):
        raise ValueError(f"names is a {type(names).__name__}; allowed: a KPGraph, or an iterable of texts")
    counts = Counter(names)
    if wrong := sorted({type(name).__name__ for name in counts if not isinstance(name, str)}):
        raise ValueError(
            f"names holds {', '.join(wrong)}; allowed: texts, such as table['knowledge_points'].explode()"
        )
    popularity = Counter()
    for name, count in counts.items():
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
    else:
        table, where = pd.read_csv(source, dtype=str, keep_default_na=False, encoding="utf-8-sig"), source
    if missing := {"name", "alias"} - set(table.columns):
        raise ValueError(f"{where} lacks {sorted(missing)}; it has {list(table.columns)}")
    table = table[["name", "alias"]]
    empty = ~table.map(lambda cell: isinstance(cell, str) and normalise_kp(cell) != "").all(axis=1)
    if empty.any():
        row = int(empty.to_numpy().argmax())
        raise ValueError(f"{where}: row {row + 1} is {table.iloc[row].tolist()}; both cells need a text")
    return table


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

    merges: rows of `merge_candidates` that you agree with; only `kept` and `merged` are read, so a table of your own does as
    well, and another name may be written into `kept`. A chain ends at its last name. Names are compared as `normalise_kp`
    writes them; other KPs stay as they are. Raises ValueError for missing columns, for a name that would be merged into two,
    and for names that are merged in a circle.
    """
    for given, needed, what in (
        (table, {"knowledge_points"}, "table"),
        (merges, {"kept", "merged"}, "merges"),
    ):
        if missing := needed - set(given.columns):
            raise ValueError(f"{what} lacks {sorted(missing)}; it has {list(given.columns)}")
    into = _targets(merges)

    def merged(row, cell):
        texts = cell_texts(cell, f"knowledge_points in row {row!r}")
        distinct = {}
        for text in texts:
            kept = into.get(normalise_kp(text), text)
            distinct.setdefault(normalise_kp(kept), kept)
        return list(distinct.values()) if texts else cell

    cells = [merged(row, cell) for row, cell in table["knowledge_points"].items()]
    return table.assign(knowledge_points=pd.Series(cells, index=table.index, dtype=object))


def _targets(merges) -> dict[str, str]:
    """Merged name -> the name at the end of its chain."""
    step, spelling = {}, {}
    for kept, merged in zip(merges["kept"], merges["merged"], strict=True):
        if not all(isinstance(name, str) and normalise_kp(name) for name in (kept, merged)):
            raise ValueError(f"merges has the row {kept!r} <- {merged!r}; both need a text")
        source, target = normalise_kp(merged), normalise_kp(kept)
        if step.setdefault(source, target) != target:
            raise ValueError(
                f"{merged!r} is merged into {step[source]!r} and into {target!r}; drop one of the rows"
            )
        spelling.setdefault(target, kept)
    into = {}
    for source in step:
        seen, name = [source], step[source]
        while name in step and name != step[name]:
            if name in seen:
                raise ValueError(
                    f"names are merged in a circle: {' -> '.join([*seen, name])}; drop one of the rows"
                )
            seen.append(name)
            name = step[name]
        into[source] = spelling[name]
    return into
