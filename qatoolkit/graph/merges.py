"""Near-identical knowledge points: a table of merge candidates to review and apply before the graph is built.

Two knowledge points (KPs) are candidates only if rules reduce their names to the same key: alternative spellings
(`kp_spellings.csv`), hyphens and spaces, plurals, "law of X" for "X's law", or a row of `kp_aliases.csv`. String
similarity is not used, because opposites can look similar ("intracellular", "intercellular"), and a missed merge costs
less than two merged subjects. Each name is reduced independently, so the cost is linear and the order of names does not
matter. Our reading: the papers do not say how KPs are deduplicated.

The column `decision` says what happens to a row. Spelling variants get "merge"; everything else gets "review" and stays
apart until someone changes it to "merge".
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from difflib import SequenceMatcher
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from qatoolkit.core.qa_table import require
from qatoolkit.graph.knowledge_points import cell_texts, normalise_kp, singular
from qatoolkit.graph.kp_graph import KPGraph

COLUMNS = ("kept", "merged", "reason", "decision", "similarity", "kept_popularity", "merged_popularity")
REASONS = {  # most reliable first
    "spelling": "one name in two spellings: British and American, hyphen or space, ordinal, accent",
    "word order": 'one name with its words reordered: "law of ohm", "ohm\'s law"',
    "alias": "two names of one thing in the alias table: a translation, an abbreviation, a synonym",
}
DECISIONS = {
    "merge": "the two become one node",
    "review": "not decided yet: they stay apart",
    "apart": "reviewed: they stay apart",
}
_HERE = Path(__file__).parent
_WITH_BRACKETS = re.compile(r"(.+?) ?\(([^()]+)\)")
_SEPARATED = re.compile(r"(?<![^ ])([a-z]{3,}|bi|co|di) (?=[a-z]{3,}(?![^ ]))")
# "X of Y" equals "Y X" only for these X: "number of primes" is not "prime number".
_HEADS = {
    "axiom", "conjecture", "conservation", "criterion", "effect", "hypothesis", "law", "lemma", "paradox",
    "postulate", "principle", "rate", "theorem",
}  # fmt: skip


def merge_candidates(names: KPGraph | Iterable[str]) -> pd.DataFrame:
    """Pairs of names that mean the same KP: a table of `COLUMNS`, most popular first.

    names: a graph, or KPs as texts, each as often as it occurs; ValueError for anything else.

    Of several names the most popular is kept (on a tie, the alphabetically first); the count of a name includes those
    already joined to it for a more reliable reason. reason: a key of `REASONS`. decision: a key of `DECISIONS`.
    similarity: `SequenceMatcher` ratio of the two names, 0 to 1, null for aliases. popularity: seeds that contain the
    KP, or occurrences in `names`. Groups with several reasons are joined step by step, most reliable first, so that
    each step can be rejected by itself. Drop rows, change their `decision` or add your own pairs (`kept`, `merged`,
    `decision`), then pass the table to `apply_merges`.

    >>> import qatoolkit as qt
    >>> names = ["ohm's law", "ohm's law", "law of ohm", "energy", "behaviour", "behavior", "behavior"]
    >>> qt.merge_candidates(names)[["kept", "merged", "reason", "decision"]]
            kept      merged      reason decision
    0   behavior   behaviour    spelling    merge
    1  ohm's law  law of ohm  word order   review
    """
    popularity = _popularity(names)
    group_of = _alias_groups()
    keys = {}
    for name in popularity:
        spelling, order = _keys(name)
        keys[name] = _concept(name, order, group_of), order, spelling
    rows, heads, weight = [], list(popularity), dict(popularity)
    for shared, reason in zip((3, 2, 1), REASONS, strict=True):  # number of key parts that must be equal
        kept_of = {}
        for name in sorted(heads, key=lambda name: (-weight[name], name)):
            kept = kept_of.setdefault(keys[name][:shared], name)
            if kept != name:
                ratio = SequenceMatcher(None, kept, name, autojunk=False).ratio() if reason != "alias" else None
                # "energy conservation" may mean saving power, and an alias may be narrower than the name
                decision = "merge" if reason == "spelling" else "review"
                rows.append((kept, name, reason, decision, ratio, popularity[kept], popularity[name]))
                weight[kept] += weight[name]
        heads = list(kept_of.values())
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"similarity": float}).sort_values(["kept", "merged"])
    popular = ["kept_popularity", "merged_popularity"]
    return table.sort_values(popular, ascending=False, kind="stable", ignore_index=True)


def apply_merges(table: pd.DataFrame, merges: pd.DataFrame) -> pd.DataFrame:
    """A copy of a QA table with merged knowledge points replaced by the kept ones, each once per row.

    merges: rows of `merge_candidates`, of which those with the decision "merge" are applied; your own table only needs
    `kept` and `merged`, and without `decision` all its rows are applied. `kept` may be any name. Chains are followed to
    their last name. Names are compared after `normalise_kp`; other KPs do not change. Raises ValueError for missing
    columns, an unknown decision, a name merged into two, a cycle, and two names with the decision "apart" that other
    rows merge.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> table = pd.DataFrame({"id": ["q1", "q2"], "knowledge_points": [["law of ohm", "power"], ["Ohm's law"]]})
    >>> merges = pd.DataFrame({"kept": ["Ohm's law"], "merged": ["law of ohm"]})
    >>> qt.apply_merges(table, merges)["knowledge_points"].tolist()
    [["Ohm's law", 'power'], ["Ohm's law"]]
    """
    require("table", table, "knowledge_points")
    require("merges", merges, "kept", "merged")
    targets, normal = resolve(merges), cache(normalise_kp)

    def replace(row, cell):
        texts = cell_texts(cell, f"knowledge_points in row {row!r}")
        distinct = {}
        for text in texts:
            kept = targets.get(normal(text), text)
            distinct.setdefault(normal(kept), kept)
        return list(distinct.values()) if texts else cell

    cells = [replace(row, cell) for row, cell in table["knowledge_points"].items()]
    return table.assign(knowledge_points=pd.Series(cells, index=table.index, dtype=object))


def read_merges(path: str | Path, names: KPGraph | Iterable[str]) -> pd.DataFrame:
    """A reviewed merge table from a CSV file in UTF-8, for `apply_merges`: `kept`, `merged`, `decision` and other
    columns.

    Without the column `decision`, every row gets "merge". Popularities are counted again in `names`, so a merged name
    that no longer occurs has 0. Raises ValueError, with the file's name, as `apply_merges` does."""
    table = read_csv(path)
    require(path, table, "kept", "merged")
    if "similarity" in table:
        table["similarity"] = pd.to_numeric(table["similarity"], errors="coerce")
    if "decision" not in table:
        table.insert(2, "decision", "merge")
    table["decision"] = table["decision"].str.strip().str.lower()  # spreadsheets turn "merge" into "Merge"
    try:
        resolve(table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    popularity = _popularity(names)
    counted = {f"{side}_popularity": table[side].map(normalise_kp).map(popularity) for side in ("kept", "merged")}
    return table.assign(**{column: count.fillna(0).astype(int) for column, count in counted.items()})


def _popularity(names) -> dict[str, int]:
    if isinstance(names, KPGraph):
        return dict(zip(names.names, names.popularity.tolist(), strict=True))
    if isinstance(names, str | pd.DataFrame):
        raise ValueError(f"names is a {type(names).__name__}; allowed: a KPGraph, or an iterable of texts")
    names = list(names)
    if wrong := sorted({type(name).__name__ for name in names if not isinstance(name, str)}):
        raise ValueError(
            f"names contains {', '.join(wrong)}; allowed: texts, such as table['knowledge_points'].explode().dropna()"
        )
    popularity = Counter()
    for name, count in Counter(names).items():
        popularity[normalise_kp(name)] += count
    popularity.pop("", None)
    return dict(popularity)


def _keys(name: str) -> tuple[str, str]:
    """Two keys of a normalised KP: one that all its spellings share, and one that all its word orders share as well."""
    if not name.isascii() and len(name) > 2:  # accents on Latin letters
        bases = (unicodedata.normalize("NFD", letter)[0] for letter in name)
        name = "".join(base if "a" <= base <= "z" else letter for base, letter in zip(bases, name, strict=True))
    words = [part for word in _standard(name, "name").split() for part in _split_at_hyphens(word)]
    if len(words) > 2 and words[-1] == f"({''.join(word[0] for word in words[:-1])})":
        words.pop()  # "ordinary differential equation (ode)"
    ordered = words = [_standard_word(word) for word in words]
    if words.count("of") == 1 and 0 < (of := words.index("of")) < len(words) - 1 and words[of - 1] in _HEADS:
        ordered = words[of + 1 :] + words[:of]
    # words of three letters or more run together: "eigen value" equals "eigenvalue"
    return _SEPARATED.sub(r"\1", " ".join(words)), _SEPARATED.sub(r"\1", " ".join(ordered))


def _split_at_hyphens(word: str) -> list[str]:
    """The parts of "non-linear" and "carbon-14"; "x-1", "sin-1" and "n-1" stay whole, since their hyphen is a minus."""
    parts = word.split("-")
    plain = all(part.replace("'", "").isalpha() or part.isdigit() for part in parts)
    named = any(len(part) >= 3 and part.isalpha() for part in parts)
    minus = any(right.isdigit() and len(left) < 5 for left, right in pairwise(parts))
    return parts if plain and named and not minus else [word]


@lru_cache(maxsize=1_000_000)
def _standard_word(word: str) -> str:
    """A word in the singular, without a possessive ending, in its standard spelling."""
    if len(word) > 3:
        word = re.sub(r"'s$|(?<=s)'$", "", word)
    return _standard(singular(word), "word")


def _standard(text: str, scope: str) -> str:
    for pattern, standard in _spellings(scope):
        text = pattern.sub(standard, text)
    return text


@cache
def _spellings(scope: str) -> list[tuple[re.Pattern, str]]:
    """The patterns of `kp_spellings.csv` for whole names or single words, each with its standard spelling."""
    rows = read_csv(_HERE / "kp_spellings.csv").itertuples()
    return [(re.compile(row.pattern), row.standard) for row in rows if row.scope == scope]


@cache
def _alias_groups() -> dict[str, int]:
    """Key of every name in `kp_aliases.csv` -> number of its group of synonyms."""
    pairs = read_csv(_HERE / "kp_aliases.csv").map(lambda name: _keys(normalise_kp(name))[1])
    codes, keys = pd.factorize(pairs.to_numpy().ravel())
    links = coo_matrix((np.ones(len(pairs)), codes.reshape(-1, 2).T), shape=(len(keys), len(keys)))
    return dict(zip(keys, connected_components(links, directed=False)[1].tolist(), strict=True))


def _concept(name: str, order: str, group_of: dict[str, int]) -> str | int:
    """The alias group of a name, or of x if the name is "x (y)" and both are in the same group; else its own key."""
    if order not in group_of and (match := _WITH_BRACKETS.fullmatch(name)):
        outer, inner = (group_of.get(_keys(normalise_kp(part))[1]) for part in match.groups())
        return outer if outer is not None and outer == inner else order
    return group_of.get(order, order)


def read_csv(path) -> pd.DataFrame:
    """A CSV file with cells as texts, without the empty rows that spreadsheets leave; ValueError if malformed."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8 ({error}); save it as CSV in UTF-8") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas makes the first cells of longer rows the index
        raise ValueError(f"{path} has rows longer than its header; name every column, and quote cells with commas")
    return table[(table != "").any(axis=1)].reset_index(drop=True)


def resolve(merges: pd.DataFrame) -> dict[str, str]:
    """Merged name -> the name at the end of its chain, by the rows with the decision "merge" (all, if there is
    none)."""
    step, spelling, apart = {}, {}, []
    decisions = merges["decision"] if "decision" in merges else ["merge"] * len(merges)
    for kept, merged, decision in zip(merges["kept"], merges["merged"], decisions, strict=True):
        if decision not in DECISIONS:
            raise ValueError(f"the decision on {kept!r} <- {merged!r} is {decision!r}; allowed: {', '.join(DECISIONS)}")
        if not all(isinstance(name, str) and normalise_kp(name) for name in (kept, merged)):
            raise ValueError(f"merges has the row {kept!r} <- {merged!r}; both need a text")
        source, target = normalise_kp(merged), normalise_kp(kept)
        if decision == "apart":
            apart.append((kept, merged))
        elif decision == "merge":
            spelling.setdefault(target, kept)
            if step.setdefault(source, target) != target:
                raise ValueError(
                    f"{merged!r} is merged into {step[source]!r} and into {target!r}; drop one of the rows"
                )
    targets = {}
    for source in step:
        chain = [source, step[source]]
        while (name := step.get(chain[-1], chain[-1])) != chain[-1]:
            if name in chain:
                raise ValueError(f"names are merged in a cycle: {' -> '.join([*chain, name])}; drop one of the rows")
            chain.append(name)
        targets[source] = spelling[chain[-1]]
    for pair in apart:
        ends = {normalise_kp(targets.get(name, name)) for name in map(normalise_kp, pair)}
        if len(ends) == 1:
            raise ValueError(
                f"{pair[0]!r} and {pair[1]!r} have the decision apart, but other rows merge them into {ends.pop()!r}; "
                "change one of the rows"
            )
    return targets
