"""Which rows of a QA table go into training, and why the others do not.

Filters, decontamination, conflicts, near-duplicates. Nothing is dropped in silence: `curate` splits a table
into kept and rejected rows, and every rejected row carries its reason. QA rows are short and come from
templates, so the usual document recipe fails on them: texts shorter than a shingle must not share one empty
signature, and two questions that differ in one number or name are two questions. (Our reading: neither paper
describes its curation; the coverage rule follows Tulu 3, arXiv 2411.15124.)
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from qatoolkit.verify import answer_key, choice_consistent, same_answer

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"\d+(?:[.,]\d+)*|[{_CJK}]|[^\W\d_{_CJK}]+(?:'[^\W\d_{_CJK}]+)*")
_LAYOUT = re.compile(r"\\(?:left|right|text[a-z]*|math[a-z]+|displaystyle|quad|qquad|uline)(?![a-z])")
_NUMBERING = re.compile(
    r"\s*(?:【[^】]{1,20}】\s*)?(?:\d{1,3}\s*(?:[.、)](?!\d))\s*)?(?:\(\s*\d+\s*分\s*\)\s*)?"
)
_OPERATOR = re.compile(r"[+*/^=<>≤≥≠∧∨¬⊃≡·×÷√∪∩∈⊂]|(?<![^\s(])~(?=[A-Za-z(])|(?<![^\W\d_])-(?=\s*\w)")
_NEGATION = re.compile(
    r"\b(?:no|not|never|except|least|without|cannot|\w+n't)\b|[不没未非无]|除了|最[小少低]"
)
_NAME = re.compile(r"(?<=[^\s.!?:;]\s)[A-Z][^\W_]*")  # capitalised inside a sentence
# Answers that say nothing about the question: such rows are duplicates only when the questions are identical.
_WEAK_ANSWERS = {"", "yes", "no", "both", "neither", "maybe", "unknown", "all of above", "none of above"}
_WEAK_ANSWERS |= {"以上都是", "以上都不是", "不确定", *"abcdefghij", *"ABCDEFGHIJ"}
_UNREADABLE = re.compile("[\ufffd\ue000-\uf8ff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BOILERPLATE = 20  # an n-gram in more items of one exam than this is its instructions, not an item
_PERMUTATIONS = 128
_NEIGHBOURS = (
    32  # earlier rows that a row meets in one bucket: bounds the work on one template filled 100,000 times
)


@dataclass(frozen=True, kw_only=True)
class CurateSettings:
    """Every dial of `curate`: lengths in characters, n-grams in tokens (a word or one CJK character)."""

    max_question: int = 20_000
    max_answer: int = 20_000
    near_threshold: float = 0.8
    shingle: int = 2
    on: tuple[str, ...] = ("question", "answer")
    exam_n: int = 8
    exam_n_cjk: int = 13
    exam_overlap: float = 0.5
    conflicts: bool = True
    seed: int = 0

    def __post_init__(self):
        for field in ("max_question", "max_answer", "shingle", "exam_n", "exam_n_cjk"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)}: must be at least 1")
        for field in ("near_threshold", "exam_overlap"):
            if not 0 < getattr(self, field) <= 1:
                raise ValueError(f"{field}={getattr(self, field)}: must be in (0, 1]")
        if not self.on or isinstance(self.on, str):
            raise ValueError(f"on={self.on!r}: must be a tuple of column names, the compared text first")


def tokens(text) -> list[str]:
    """Words, numbers and single CJK characters after NFKC and case folding."""
    text = unicodedata.normalize("NFKC", _text(text)).replace("’", "'").casefold()
    return _TOKEN.findall(_LAYOUT.sub(" ", text) if "\\" in text else text)


def shingles(text, n: int = 2) -> frozenset[str]:
    """Runs of n tokens. A shorter text is its own single shingle; only a text without content has none."""
    words = tokens(text)
    if len(words) >= n:
        return frozenset(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    own = " ".join(words) or "".join(unicodedata.normalize("NFKC", _text(text)).split())
    return frozenset([own]) if own else frozenset()


def near_duplicates(
    table: pd.DataFrame,
    *,
    threshold: float = 0.8,
    on: Sequence[str] = ("question", "answer"),
    n: int = 2,
    guard: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """Clusters of rows that ask the same thing, one line per row, in order: (id, cluster, keep, similarity).

    The first column of `on` is compared by shingle Jaccard, which must reach `threshold`; every further
    column must be equal (answers by meaning, choices resolved). `guard` also asks for the same numbers,
    operators, negations and names, and for an identical question when the answer says nothing (yes, true,
    "all of the above"). MinHash (rensa) with banding proposes pairs, exact Jaccard decides, union-find
    joins; the first row of a cluster is kept and `similarity` is to it. Raises ValueError for a missing
    column or a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold}: must be in (0, 1]")
    absent = [column for column in on if column not in table.columns]
    if absent or not on:
        raise ValueError(f"on={tuple(on)!r}: table has no column {absent}; it has {list(table.columns)}")
    texts = [_stem(text) for text in table[on[0]]]
    words = [tuple(tokens(text)) or tuple(text.split()) for text in texts]
    answers = _answer_keys(table) if "answer" in on[1:] else [""] * len(table)
    others = zip(*(map(_text, table[column]) for column in on[1:] if column != "answer"), strict=True)
    others = list(others) or [()] * len(table)
    marks = [_marks(text) if guard else () for text in texts]
    choices = _column(table, "choices")
    weak = [guard and "answer" in on[1:] and answer in _WEAK_ANSWERS for answer in answers]

    clusters = _Clusters(len(table))
    firsts: dict[tuple, int] = {}
    for i, text in enumerate(words):
        if text:  # an empty question is the filters' business and duplicates nothing
            key = (text, answers[i], others[i], marks[i], _option_set(choices[i]) if weak[i] else None)
            clusters.join(firsts.setdefault(key, i), i)
    single = np.array([i for i in sorted(firsts.values()) if not weak[i]], dtype=np.int64)
    # Rows that the guards would part never meet: a template with thousands of fillings stays linear.
    block = pd.factorize(pd.Series([(answers[i], others[i], marks[i]) for i in single], dtype=object))[0]

    sets: dict[int, frozenset[str]] = {}
    names: dict[int, frozenset[str]] = {}

    def shingle_set(i: int) -> frozenset[str]:
        if i not in sets:
            sets[i] = shingles(texts[i], n)
        return sets[i]

    def same_names(i: int, j: int) -> bool:
        for k in (i, j):
            if k not in names:
                names[k] = frozenset(m.casefold() for m in _NAME.findall(" ".join(texts[k].split())))
        return names[i] <= set(words[j]) and names[j] <= set(words[i])

    refused: set[tuple[int, int]] = set()
    for bucket in _buckets((shingles(texts[i], n) for i in single), block, threshold, seed):
        members = single[bucket].tolist()
        for b, j in enumerate(members):
            for i in members[max(0, b - _NEIGHBOURS) : b]:
                if clusters.find(i) == clusters.find(j) or (i, j) in refused:
                    continue
                if _jaccard(shingle_set(i), shingle_set(j)) >= threshold and (not guard or same_names(i, j)):
                    clusters.join(i, j)
                else:
                    refused.add((i, j))

    roots = [clusters.find(i) for i in range(len(table))]
    similarity = [
        1.0 if root == i or words[root] == words[i] else _jaccard(shingle_set(root), shingle_set(i))
        for i, root in enumerate(roots)
    ]
    return pd.DataFrame(
        {
            "id": table["id"].to_numpy(),
            "cluster": pd.factorize(np.array(roots, dtype=np.int64))[0],
            "keep": np.array([root == i for i, root in enumerate(roots)], dtype=bool),
            "similarity": np.array(similarity, dtype=float),
        }
    )


def decontaminate(
    table: pd.DataFrame,
    exams: Mapping[str, pd.DataFrame],
    *,
    n: int = 8,
    n_cjk: int = 13,
    min_overlap: float = 0.5,
) -> pd.DataFrame:
    """Rows that hold an exam question, best hit per row and exam: (row, id, exam, exam_id, overlap, matched).

    `overlap` is the share of the exam question's tokens that lie in n-grams found in the row's question
    (n_cjk characters for mostly Chinese exam questions); a hit needs `min_overlap`, or an identical
    normalised question of any length (overlap 1). Where both have choices, an identical question must
    share half of them: many stems are only "Which of the following is true?". N-grams in more than 20
    items of one exam are its boilerplate and count nowhere. `row` is the position in `table`. Raises
    ValueError for an exam without a question column.
    """
    items, grams, exact = _exam_index(exams, n, n_cjk)
    vocabulary = {word for item in items for word in item.words}
    found = []
    for row, (text, choices) in enumerate(zip(table["question"], _column(table, "choices"), strict=True)):
        words = tokens(_stem(text))
        best: dict[str, tuple[float, int, str]] = {}
        for item in exact.get(tuple(words), ()):
            same_stem = items[item].marks == _marks(_stem(text))
            if same_stem and _share_options(_option_set(choices), _option_set(items[item].choices)):
                best[items[item].exam] = (1.0, item, _join(words))
        places = defaultdict(set)
        for start, end in _known_runs(words, vocabulary):
            for size, index in grams.items():
                for first in range(start, end - size + 1):
                    for item, place in index.get(" ".join(words[first : first + size]), ()):
                        places[item].add(place)
        for item, starts in places.items():
            entry = items[item]
            covered = sorted({p + k for p in starts for k in range(entry.size)})
            overlap = len(covered) / entry.counted
            if overlap >= min_overlap and overlap > best.get(entry.exam, (0.0,))[0]:
                best[entry.exam] = (overlap, item, _join(_longest_run(covered, entry.words)))
        found += [
            (row, exam, items[item].id, overlap, matched[:300])
            for exam, (overlap, item, matched) in best.items()
        ]
    hits = pd.DataFrame(found, columns=["row", "exam", "exam_id", "overlap", "matched"])
    hits.insert(1, "id", table["id"].to_numpy()[hits["row"].to_numpy(dtype=int)])
    return hits.astype({"row": int, "overlap": float})


def filters(table: pd.DataFrame, *, max_question: int = 20_000, max_answer: int = 20_000) -> pd.DataFrame:
    """Rule breaks, several per row if so: (row, id, reason, detail, reject); `row` is the position.

    Rejecting: empty_question, empty_answer, too_long, choices (they contradict the answer), language (the
    text is not in the language stated). Only flagged: answer_in_question, unreadable (replacement,
    private-use or control characters).
    """
    found = []
    columns = ("question", "answer", "choices", "answer_index", "language")
    for row, values in enumerate(zip(*(_column(table, column) for column in columns), strict=True)):
        entry = dict(zip(columns, values, strict=True))
        question, answer = _text(entry["question"]), _text(entry["answer"])
        if not re.search(r"\w", question):
            found.append((row, "empty_question", repr(question[:40]), True))
        if not answer.strip():
            found.append((row, "empty_answer", repr(answer[:40]), True))
        for name, text, limit in (("question", question, max_question), ("answer", answer, max_answer)):
            if len(text) > limit:
                found.append((row, "too_long", f"{name} has {len(text)} characters, {limit} allowed", True))
        if len(question) > max_question or len(answer) > max_answer:
            continue  # a text of a million characters is not worth reading further
        for reason, fault in (("choices", choice_consistent(entry)), ("language", _wrong_language(entry))):
            if fault:
                found.append((row, reason, fault, True))
        if _repeats(question, answer):
            found.append((row, "answer_in_question", answer[:80], False))
        unreadable = _UNREADABLE.search(question + answer)
        if unreadable:
            found.append((row, "unreadable", f"U+{ord(unreadable[0]):04X}", False))
    table_ids = table["id"].to_numpy()
    faults = pd.DataFrame(found, columns=["row", "reason", "detail", "reject"])
    faults.insert(1, "id", table_ids[faults["row"].to_numpy(dtype=int)])
    return faults.astype({"row": int, "reject": bool})


def curate(
    table: pd.DataFrame,
    exams: Mapping[str, pd.DataFrame] | None = None,
    settings: CurateSettings | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Split a QA table into (kept, rejects, report); rows in = kept + rejects, both in table order.

    Order: filters, decontamination against every exam, conflicts (the question and choices of an earlier
    row with another answer), near-duplicates. `rejects` keep every column plus `reason` and `detail`, the
    first reason found. `report`: rows and share of the strategy's rows by outcome (kept, rejected,
    flagged), reason and strategy.
    """
    settings = settings or CurateSettings()
    table = table.reset_index(drop=True)
    reasons: dict[int, tuple[str, str]] = {}

    faults = filters(table, max_question=settings.max_question, max_answer=settings.max_answer)
    for fault in faults[faults["reject"]].itertuples():
        reasons.setdefault(fault.row, (fault.reason, fault.detail))

    rest = _without(table, reasons)
    hits = decontaminate(
        rest, exams or {}, n=settings.exam_n, n_cjk=settings.exam_n_cjk, min_overlap=settings.exam_overlap
    )
    for hit in hits.itertuples():
        detail = f"{hit.exam} {hit.exam_id}: {hit.overlap:.0%} covered, {hit.matched[:120]!r}"
        reasons.setdefault(int(rest.index[hit.row]), ("contaminated", detail))

    if settings.conflicts:
        rest = _without(table, reasons)
        for row, first in _conflicts(rest):
            other = _text(rest["answer"].iloc[first])[:80]
            detail = f"same question as {rest['id'].iloc[first]}, which answers {other!r}"
            reasons[int(rest.index[row])] = ("conflicting_answer", detail)

    rest = _without(table, reasons)
    near = near_duplicates(
        rest, threshold=settings.near_threshold, on=settings.on, n=settings.shingle, seed=settings.seed
    )
    kept_ids = near[near["keep"]].set_index("cluster")["id"]
    for position, row in near[~near["keep"]].iterrows():
        detail = f"of {kept_ids[row['cluster']]}, Jaccard {row['similarity']:.2f}"
        reasons[int(rest.index[position])] = ("near_duplicate", detail)

    rejected = sorted(reasons)
    kept = _without(table, reasons).reset_index(drop=True)
    rejects = table.iloc[rejected].reset_index(drop=True)
    rejects["reason"] = pd.Series([reasons[row][0] for row in rejected], dtype="str")
    rejects["detail"] = pd.Series([reasons[row][1] for row in rejected], dtype="str")
    return kept, rejects, _report(table, reasons, faults)


def _report(table: pd.DataFrame, reasons: Mapping, faults: pd.DataFrame) -> pd.DataFrame:
    strategy = [_text(value) or "unknown" for value in _column(table, "strategy")]
    counts = Counter(
        (("rejected", reasons[row][0]) if row in reasons else ("kept", "")) + (strategy[row],)
        for row in range(len(table))
    )
    flagged = faults[~faults["reject"] & ~faults["row"].isin(list(reasons))]
    counts.update(("flagged", fault.reason, strategy[fault.row]) for fault in flagged.itertuples())
    order = {"kept": 0, "rejected": 1, "flagged": 2}
    rows = sorted(((*key, n) for key, n in counts.items()), key=lambda r: (order[r[0]], r[1], r[2]))
    report = pd.DataFrame(rows, columns=["outcome", "reason", "strategy", "rows"])
    report["share"] = report["rows"] / report["strategy"].map(Counter(strategy)).astype(float)
    return report


def _conflicts(table: pd.DataFrame) -> list[tuple[int, int]]:
    """(row, earlier row): same question and choices, answers that differ for certain."""
    firsts, found = {}, []
    keys = _answer_keys(table)
    options = [_option_set(choices) for choices in _column(table, "choices")]
    for row, text in enumerate(table["question"]):
        stem = _stem(text)
        first = firsts.setdefault((tuple(tokens(stem)), _marks(stem), options[row]), row)
        if keys[first] != keys[row] and same_answer(keys[first], keys[row]) is False:
            found.append((row, first))
    return found


@dataclass
class _Item:
    exam: str
    id: str
    words: list[str]
    marks: tuple[str, ...]
    choices: Sequence | None
    size: int
    counted: int = 0  # tokens in n-grams that are not boilerplate


def _exam_index(exams: Mapping[str, pd.DataFrame], n: int, n_cjk: int):
    """Exam items, their n-grams (size -> n-gram -> [(item, start)]) and their whole questions."""
    items: list[_Item] = []
    grams: dict[int, dict[str, list]] = {n: {}, n_cjk: {}}
    exact = defaultdict(list)
    for exam, questions in exams.items():
        if "question" not in questions.columns:
            raise ValueError(f"exam {exam!r} has no column 'question'; it has {list(questions.columns)}")
        own: dict[int, dict[str, list]] = {n: defaultdict(list), n_cjk: defaultdict(list)}
        start, seen = len(items), {}
        ids = _column(questions, "id") if "id" in questions.columns else range(len(questions))
        for name, text, choices in zip(
            ids, questions["question"], _column(questions, "choices"), strict=True
        ):
            words = tokens(_stem(text))
            if not words:
                continue
            size = n_cjk if 2 * sum(map(_is_cjk, words)) > len(words) else n
            items.append(_Item(exam, str(name), words, _marks(_stem(text)), choices, size))
            exact[tuple(words)].append(len(items) - 1)
            if seen.setdefault(tuple(words), len(items) - 1) == len(items) - 1:
                for place in range(len(words) - size + 1):
                    own[size][" ".join(words[place : place + size])].append((len(items) - 1, place))
        covered = [set() for _ in items[start:]]
        for size, index in own.items():
            for gram, postings in index.items():
                if len({item for item, _ in postings}) > _BOILERPLATE:
                    continue
                grams[size].setdefault(gram, []).extend(postings)
                for item, place in postings:
                    covered[item - start].update(range(place, place + size))
        for item, places in zip(items[start:], covered, strict=True):
            item.counted = len(places)
    return items, grams, exact


def _known_runs(words: list[str], vocabulary: set[str]):
    """(start, end) of the stretches that hold only words of the exams: no n-gram reaches beyond them."""
    edges = [-1, *(i for i, word in enumerate(words) if word not in vocabulary), len(words)]
    return [(a + 1, b) for a, b in pairwise(edges) if b - a > 1]


class _Clusters:
    """Union-find over row positions; the root of a cluster is its first row."""

    def __init__(self, n: int):
        self.parent = list(range(n))

    def find(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        first, second = sorted((self.find(i), self.find(j)))
        self.parent[second] = first


def _buckets(sets, block: np.ndarray, threshold: float, seed: int):
    """Groups of positions that share a MinHash band within a block; a pair may come in several groups."""
    if len(block) < 2:
        return
    signatures = _signatures(sets, seed)
    width = _band_width(threshold)
    for band in range(_PERMUTATIONS // width):
        key = block.astype(np.uint64)
        for column in signatures[:, band * width : (band + 1) * width].T:
            key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)  # wraps; a collision only costs a comparison
            key ^= key >> np.uint64(29)
        order = np.argsort(key, kind="stable")
        edges = np.flatnonzero(np.diff(key[order])) + 1
        starts, ends = np.r_[0, edges], np.r_[edges, len(order)]
        for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
            yield order[start:end]


def _signatures(sets, seed: int) -> np.ndarray:
    """MinHash signatures, uint64 (rows, permutations), in chunks: not all shingles are held at once."""
    from rensa import RMinHash

    parts, chunk = [], []

    def flush():
        matrix = RMinHash.digest_matrix_from_token_sets(chunk, _PERMUTATIONS, seed)
        parts.append(np.array(matrix.to_rows(), dtype=np.uint64))
        chunk.clear()

    for shingle_set in sets:
        chunk.append(shingle_set)
        if len(chunk) == 5000:
            flush()
    if chunk:
        flush()
    return np.concatenate(parts)


def _band_width(threshold: float) -> int:
    """Widest band that still proposes 99 % of the pairs that lie exactly at the threshold."""
    widths = range(_PERMUTATIONS, 0, -1)
    return next((w for w in widths if 1 - (1 - threshold**w) ** (_PERMUTATIONS // w) >= 0.99), 1)


def _jaccard(a: frozenset, b: frozenset) -> float:
    return len(a & b) / len(a | b) if a or b else 0.0


def _missing(value) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


def _text(value) -> str:
    return "" if _missing(value) else str(value)


def _column(table: pd.DataFrame, name: str) -> list:
    """Values with None for anything missing, also when the table lacks the column."""
    return [None if _missing(v) else v for v in table[name]] if name in table.columns else [None] * len(table)


def _without(table: pd.DataFrame, reasons: Mapping) -> pd.DataFrame:
    return table.drop(index=list(reasons))


def _stem(text) -> str:
    """NFKC without a leading question number, bracketed label or mark count, as exam papers carry them."""
    text = unicodedata.normalize("NFKC", _text(text))
    return text[_NUMBERING.match(text).end() :] or text


def _marks(text: str) -> tuple[str, ...]:
    """What makes another question of the same words: numbers, operators, negations. Sorted."""
    numbers = re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text))
    return tuple(sorted([*numbers, *_OPERATOR.findall(text), *_NEGATION.findall(text.casefold())]))


def _answer_keys(table: pd.DataFrame) -> list[str]:
    """Canonical answers; a letter or an index is replaced by the text of its option."""
    keys = []
    columns = (_column(table, name) for name in ("answer", "choices", "answer_index"))
    for answer, choices, index in zip(*columns, strict=True):
        if choices is not None:
            letter = re.fullmatch(r"\(?([A-J])\)?\.?", _text(answer).strip())
            index = ord(letter[1]) - 65 if index is None and letter else index
            answer = choices[int(index)] if index is not None and 0 <= index < len(choices) else answer
        keys.append(answer_key(answer))
    return keys


def _option_set(choices) -> frozenset[str] | None:
    return None if choices is None else frozenset(answer_key(choice) for choice in choices)


def _share_options(a: frozenset | None, b: frozenset | None) -> bool:
    return a is None or b is None or 2 * len(a & b) >= min(len(a), len(b))


def _is_cjk(token: str) -> bool:
    return len(token) == 1 and re.match(f"[{_CJK}]", token) is not None


def _longest_run(covered: list[int], words: list[str]) -> list[str]:
    runs = np.split(np.array(covered), np.flatnonzero(np.diff(covered) > 1) + 1)
    longest = max(runs, key=len)
    return words[longest[0] : longest[-1] + 1]


def _join(words: Sequence[str]) -> str:
    return re.sub(rf"(?<=[{_CJK}]) (?=[{_CJK}])", "", " ".join(words))


def _wrong_language(row: Mapping) -> str | None:
    text = re.sub(r"\\[A-Za-z]+|\$[^$]*\$", " ", _text(row["question"]))
    cjk, latin = len(re.findall(f"[{_CJK}]", text)), len(re.findall(r"[A-Za-z]{2,}", text))
    if row["language"] == "en" and cjk > latin:
        return f"stated en, found {cjk} CJK characters and {latin} Latin words"
    if row["language"] == "zh" and not cjk and latin >= 4:
        return f"stated zh, found no CJK character and {latin} Latin words"
    return None


def _repeats(question: str, answer: str) -> bool:
    """Whether the question says the answer; single words and numbers are too often there by chance."""
    words = tokens(answer)
    return len(words) >= 2 and f" {' '.join(words)} " in f" {' '.join(tokens(question))} "
