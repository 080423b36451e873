"""The words by which questions are compared: two rows ask the same thing if these are the same.

Only words known not to change the question are left out: question numbers, articles, "do", 的 and 了, a few particles,
and instructions to the reader ("Please answer the question.", 请选出正确答案。). Every other word counts, whether it is
inserted, missing or replaced, so no list of opposites, negations or quantifiers is needed. Inflections count as one
word. The words are in `difference_words.csv`. (Our reading; public tools give all words the same weight.)
"""

import csv
import re
from collections.abc import Iterable
from functools import cache
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np

from qatoolkit.core.text import CJK
from qatoolkit.curate.comparison_text import simplified, stem, without_markup
from qatoolkit.curate.words import WordTable, plain_classes

_OPERATORS = {"+": "plus", "*": "times", "/": "divided", "^": "power", "=": "equals", "<": "less", ">": "greater"}
_OPERATORS |= {"≤": "leq", "≥": "geq", "≠": "neq", "×": "times", "·": "cdot", "÷": "div", "−": "minus", "-": "minus"}
_OPERATORS |= {"%": "percent", "√": "sqrt", "¬": "not", "~": "not", "∧": "wedge", "∨": "vee", "⊃": "supset"}
_OPERATORS |= {"≡": "equiv", "∪": "cup", "∩": "cap", "∈": "in_set", "⊂": "subset"}
_LAYOUT = re.compile(r"\\(?:left|right|text[a-z]*|math[a-z]+|displaystyle|quad|qquad|uline)")
_LABEL = (  # of a question: "Question 3:", "第三题", "(2)", "(a)", "二、"
    r"(?:(?:question|problem|exercise|example|q|ex\.|no\.?|例|问题|题目|习题|练习)\s*#?\s*\d{1,3}\s*[.:、)]"
    r"|q\s*:|第\s*[\d一二三四五六七八九十]{1,3}\s*题[.:、)]?|[一二三四五六七八九十]{1,3}、"
    r"|[(\[]\s*(?:\d{1,3}|[a-h]|[ivx]{1,4})\s*[)\]](?=\s*[^\W\d]|\s*\$|\s+\d))\s*"
)
_ENDS = r",.:;!?。…\n"  # of a clause, NFKC
_CJK = re.compile(f"[{CJK}]")
_WRAP = re.compile(rf"\s+(?=[{CJK}])")  # Chinese needs no spaces, and PDFs wrap lines inside a phrase
_DOUBLED = re.compile(r"([bdfgmnprt])\1$")
_SHORT = re.compile(r"[^aeiouy]*[aeiouy][^aeiouwxy]")  # plan and hop are not plane and hope
_CONTRACTED = (
    (re.compile(r"\bcan(?:['’]t|not)\b", re.IGNORECASE), "can not"),
    (re.compile(r"\bwon['’]t\b", re.IGNORECASE), "will not"),
    (re.compile(r"n['’]t\b", re.IGNORECASE), " not"),
    (re.compile(r"\b(it|what|who|where|how|that|there|here)['’]s\b", re.IGNORECASE), r"\1 is"),
)


@cache
def _lists() -> tuple[dict[str, str | None], dict[str, re.Pattern]]:
    """The form of each word, None for those left out; and patterns of the clauses left out."""
    with (Path(__file__).parent / "difference_words.csv").open(encoding="utf-8", newline="") as file:
        lists = {(row["kind"], row["language"]): row["words"] for row in csv.DictReader(file)}
    forms: dict[str, str | None] = {word: word for word in _OPERATORS.values()} | _OPERATORS
    for (kind, _), words in lists.items():
        for first, *others in (group.split("/") for group in words.split() if kind in ("drop", "form")):
            forms |= dict.fromkeys([first, *others], _stemmed(first) if kind == "form" else None)

    def any_of(*kinds: str) -> str:
        words = {language: " ".join(lists[kind, language] for kind in kinds).split() for language in ("en", "zh")}
        return rf"(?:\b(?:{'|'.join(words['en'])})\b|{'|'.join(sorted(words['zh'], key=len, reverse=True))})"

    words = rf"(?:(?>{any_of('ask', 'beside')})[ '\"]*+)++"
    start, end = (
        rf"(?={words}{ends})(?=[^{_ENDS}]*?{any_of('ask')}){words}" for ends in (f"[{_ENDS}]", f"(?:[{_ENDS}]|$)")
    )
    patterns = {
        "opening": rf"\s*(?:{_LABEL}|{start}(?:[{_ENDS}]\s*)+|(?:{lists['request', 'en']})\b[,:\s]*)+",
        "closing": rf"(?:(?<=[^\w \t'\"(\[,-])|(?=请|谢谢))\s*(?:{end}[,.:!。…\s]*)+$",
        "filler": lists["filler", "zh"],
    }
    return forms, {name: re.compile(pattern) for name, pattern in patterns.items()}


def without_asking(text) -> str:
    """A question without its number, requests, fillers and the article "a".

    >>> without_asking("3. Please tell me: is x + 1 above Tom's x? Choose the best answer.")
    "is x + 1 above Tom's x?"
    """
    patterns = _lists()[1]
    text = simplified(stem(without_markup(text)))
    for _ in range(4):  # numbers and requests in any order: "Please answer: 3. (5 分)"
        start = patterns["opening"].match(_lower(text))
        rest = text[start.end() :].strip() if start else ""
        if not rest:
            break
        text = stem(rest)
    end = patterns["closing"].search(_lower(text), max(0, len(text) - 120))
    text = text[: end.start()] if end else text
    if "'" in text or "’" in text or "cannot" in text:
        for pattern, written in _CONTRACTED:
            text = pattern.sub(written, text)
    if text.isascii() or not _CJK.search(text):  # elsewhere "A" and "a" are letters
        text = f" {text}".replace(" a ", " ").replace(". A ", ". ").replace("? A ", "? ").replace("\nA ", "\n")
        return text[3:] if text.startswith(" A ") else text[1:]
    return patterns["filler"].sub("", _WRAP.sub("", text))


def _lower(text: str) -> str:
    """The text in lower case if that keeps its length, else unchanged: matches must have the text's positions."""
    lower = text.lower()
    return lower if len(lower) == len(text) else text


def form_of(word: str) -> str | None:
    """The form under which a token is compared; None if it is left out.

    >>> [form_of(word) for word in ("Prepared", "the", "ran", "1,200.0", "AaBb")]
    ['prepar', None, 'run', '1200', 'AaBb']
    """
    forms = _lists()[0]
    if word in forms:
        return forms[word]
    if word[0] == "\\" and _LAYOUT.fullmatch(word):
        return None
    word = word.lstrip("\\").replace("’", "'")
    word = word.split("'")[0]
    mixed = word.upper() != word != word.lower() and not word.istitle()  # AaBb, pH
    word = word if mixed or len(word) == 1 else word.casefold()
    if word[0].isdigit():
        number = word.replace(",", "")
        return number.rstrip("0").rstrip(".") if "." in number else number
    return forms[word] if word in forms else _stemmed(word)


def _stemmed(word: str) -> str:
    """A word without its plural or past ending: boxes, box; stopped, stop; prepares, prepar. -ing stays: "chasing" and
    "chased" are different roles."""
    if len(word) < 4 or word[-1] not in "sde" or not word.isascii():
        return word
    if word.endswith(("ies", "ied")) and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "zes", "ches", "shes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    base = word.removesuffix("ed")
    if base != word and len(base) >= 3 and re.search("[aeiouy]", base):
        word = base + "e" if _SHORT.fullmatch(base) else _DOUBLED.sub(r"\1", base)
    return word[:-1] if word.endswith("e") and len(word) >= 4 and not _SHORT.fullmatch(word[:-1]) else word


class Vocabulary:
    """Ids of words in the order they are first seen; words with the same form share one. `codes` has, by id, a hash of
    the form that is the same in every process. Without `guard`, words are in lower case, as in `comparison_text`,
    without operators."""

    def __init__(self, guard: bool = True):
        self.guard, self.codes = guard, []
        self._forms: dict[str, int] = {}
        self._ids: list[int] = []  # by number of the word; -1 is dropped
        self._table = WordTable(_classes())

    def read(self, texts: Iterable) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the words of each text in one array, int32, and the number of words of each, int64.

        Articles and the like are left out, unless a text has no other words ("Is there?", "???"): then all are kept."""
        texts = [without_asking(text) if self.guard else stem(text) for text in texts]
        _, numbers, _, counts, new = self._table.read(texts)
        self._ids += map(self._id, new)
        ids = np.array(self._ids, dtype=np.int32)[numbers]
        rows = np.repeat(np.arange(len(texts)), counts)[ids >= 0]
        ids = ids[ids >= 0]
        counts = np.bincount(rows, minlength=len(texts))
        bare = np.flatnonzero(counts == 0)
        if len(bare):
            parts = np.split(ids, np.cumsum(counts)[:-1])
            for row in bare:
                parts[row] = np.array([self._id("=" + word) for word in texts[row].split()], dtype=np.int32)
                counts[row] = len(parts[row])
            ids = np.concatenate(parts)
        return ids, counts

    def _id(self, word: str) -> int:
        if self.guard:
            form = form_of(word)
        else:
            layout = word in _OPERATORS or (word[0] == "\\" and _LAYOUT.fullmatch(word))
            form = None if layout else word.lstrip("\\").casefold()
        if form is None:
            return -1
        if form not in self._forms:
            self._forms[form] = len(self.codes)
            self.codes.append(digest(form))
        return self._forms[form]


@cache
def _classes() -> np.ndarray:
    """The class of every code point, as `compiled.words` names them."""
    from qatoolkit.curate.compiled import words as loops

    classes = plain_classes().copy()
    classes[0] = loops.OTHER
    for sign in _OPERATORS:
        classes[ord(sign)] = loops.OPERATOR
    signs = {"_": loops.UNDERSCORE, "’": loops.APOSTROPHE, ",": loops.POINT}
    signs |= {"\\": loops.BACKSLASH, "-": loops.HYPHEN, "~": loops.TILDE, "*": loops.STAR}
    for sign, what in signs.items():
        classes[ord(sign)] = what
    return classes


def digest(text: str) -> int:
    """64 bits of a text, the same in every process."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def moved_clause(one: str, two: str) -> bool:
    """Whether two texts of the same words differ only in the position of one clause of two words or more.

    Clauses end at commas and full stops, so "A beats B" and "B beats A" differ in more.

    >>> moved_clause("In the year 1999, who won the cup?", "Who won the cup in the year 1999?")
    True
    >>> moved_clause("Does the cat bite the dog?", "Does the dog bite the cat?")
    False
    """
    vocabulary, texts = Vocabulary(), []  # word ids and clause boundaries of each
    for text in (one, two):
        clauses = [part for part in re.split(r"[,.;:?!，。；：？！、\n]+", text) if part.strip()]
        words, counts = vocabulary.read(clauses)
        texts.append((words.tolist(), np.cumsum([0, *counts]).tolist()))
    return _moved(*texts) or _moved(*texts[::-1])


def _moved(one: tuple[list[int], list[int]], two: tuple[list[int], list[int]]) -> bool:
    """Whether `two` is `one` with a clause moved to the end or start of another; both are (words, clause
    boundaries)."""
    (a, cuts_a), (b, cuts_b) = one, two
    for first, last in pairwise(cuts_a):
        clause, rest, size = a[first:last], a[:first] + a[last:], last - first
        for cut in cuts_b if size >= 2 else ():
            for start in (cut, cut - size):
                if start >= 0 and b[start : start + size] == clause and b[:start] + b[start + size :] == rest:
                    return True
    return False
