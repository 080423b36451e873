"""The words of a text in which two questions are compared, and whether their difference matters.

Two rows ask the same thing if one has the words of the other with something inserted that changes nothing. Words are
of four kinds: dropped (articles, politeness, 的, 了), soft (auxiliaries, adverbs: may be inserted or missing), marks
(negations, quantifiers, comparatives, directions, numbers, operators: both rows have the same) and all others. So a
*replaced* word is a difference whatever it means, and no list of opposites is needed: increase and decrease, 增 and 减,
or any pair that nobody thought of. Inflections count as one word. Words by kind are in `difference_words.csv`.
(Our reading; public tools compare all words alike.)
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
from qatoolkit.curate.comparison_text import stem

CONTENT, SOFT, MARK, DROPPED = range(4)
NAME = 1 << 30  # bit on the id of a word that is written as a name

_OPERATORS = {"+": "plus", "*": "times", "/": "divided", "^": "power", "=": "equals", "<": "less", ">": "greater"}
_OPERATORS |= {"≤": "leq", "≥": "geq", "≠": "neq", "×": "times", "·": "cdot", "÷": "div", "−": "minus", "-": "minus"}
_OPERATORS |= {"%": "percent", "√": "sqrt", "¬": "not", "~": "not", "∧": "wedge", "∨": "vee", "⊃": "supset"}
_OPERATORS |= {"≡": "equiv", "∪": "cup", "∩": "cap", "∈": "in_set", "⊂": "subset"}
_LAYOUT = re.compile(r"\\(?:left|right|text[a-z]*|math[a-z]+|displaystyle|quad|qquad|uline)")
_LABEL = (  # of a question: "Question 3:", "第三题", "(2)", "(a)", "二、"
    r"(?:(?:question|problem|exercise|example|q|no\.?|例|问题|题目|习题)\s*\d{1,3}\s*[.:、)]"
    r"|第\s*[\d一二三四五六七八九十]{1,3}\s*题[.:、)]?|[一二三四五六七八九十]{1,3}、"
    r"|[(\[]\s*(?:\d{1,3}|[a-h]|[ivx]{1,4})\s*[)\]](?=\s*[^\W\d]|\s*\$|\s+\d))\s*"
)
_CJK = re.compile(f"[{CJK}]")
_WRAP = re.compile(rf"\s+(?=[{CJK}])")  # Chinese needs no spaces, and PDFs wrap lines inside a phrase
_NEGATIVE = re.compile(r"(?:un|non|dis|mis|il|ir)[a-z]{3,}ly")
_DOUBLED = re.compile(r"([bdfgmnprt])\1$")
_PHRASE = "phrase"  # with two letters: the token that stands for a soft phrase


@cache
def _lists() -> tuple[dict[str, tuple[str, int]], dict[str, str], dict[str, re.Pattern]]:
    """Form and kind by word; the token that stands for each soft phrase; patterns of phrases and politeness."""
    with (Path(__file__).parent / "difference_words.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["kind"], row["language"], row["words"]) for row in csv.DictReader(file)]
    known = {sign: (word, MARK) for sign, word in _OPERATORS.items()}
    known |= {word: (word, MARK) for word in _OPERATORS.values()}
    spans = {f"{kind} {language}": words for kind, language, words in rows if kind in ("polite", "closing", "phrase")}
    phrases = "|".join(spans[name] for name in ("phrase en", "phrase zh")).split("|")
    tokens = {phrase: f" {_PHRASE}{chr(97 + i // 26)}{chr(97 + i % 26)} " for i, phrase in enumerate(phrases)}
    known |= {token.strip(): (token.strip(), SOFT) for token in tokens.values()}
    codes = {"drop": DROPPED, "soft": SOFT, "mark": MARK, "form": CONTENT}
    for kind, _, words in rows:
        for first, *forms in (group.split("/") for group in words.split() if kind in codes):
            form = _stemmed(first) if kind == "form" else first
            known |= {word: (form, codes[kind]) for word in (first, *forms) if word not in known}
    en, zh = spans["polite en"], spans["polite zh"]
    patterns = {
        "opening": re.compile(rf"\s*(?:{_LABEL}|(?:\b(?:{en})\b|{zh})[,:\s]*)+", re.IGNORECASE),
        "closing": re.compile(rf"(?:{spans['closing en']})\W*$"),
        "polite zh": re.compile(rf"(?:{zh})[:,]?"),
        "phrase en": re.compile(rf"\b(?:{spans['phrase en']})\b"),
        "phrase zh": re.compile(spans["phrase zh"]),
    }
    return known, tokens, patterns


def without_politeness(text) -> str:
    """A question without its number, politeness and the article "a"; soft phrases as one word.

    >>> without_politeness("3. Please tell me: is x + 1 above Tom's x?")
    "is x + 1 above Tom's x?"
    """
    _, stands, patterns = _lists()
    text = stem(text)
    for _ in range(3):  # numbers and politeness in any order: "Please answer: 3. (5 分)"
        start = patterns["opening"].match(text)
        if not start:
            break
        text = stem(text[start.end() :])
    end = patterns["closing"].search(text[-30:].lower())
    text = text[: end.start() - end.endpos] if end else text
    if text.isascii() or not _CJK.search(text):  # elsewhere "A" and "a" are letters
        text = f" {text}".replace(" a ", " ").replace(". A ", ". ").replace("? A ", "? ").replace("\nA ", "\n")
        text = text[3:] if text.startswith(" A ") else text[1:]
    else:
        text = patterns["polite zh"].sub("", _WRAP.sub("", text))
        text = patterns["phrase zh"].sub(lambda found: stands[found[0]], text)
    return patterns["phrase en"].sub(lambda found: stands[found[0]], text)


def form_and_kind(word: str) -> tuple[str, int]:
    """The form in which a token is compared, and its kind: CONTENT, SOFT, MARK or DROPPED.

    >>> [form_and_kind(word) for word in ("Prepared", "quickly", "without", "the", "1,200.0")]
    [('prepar', 0), ('quickly', 1), ('without', 2), ('the', 3), ('1200', 2)]
    """
    known = _lists()[0]
    if word in known:
        return known[word]
    if word[0] == "\\" and _LAYOUT.fullmatch(word):
        return word, DROPPED
    if not word.islower():  # numbers and Chinese too
        mixed = word.upper() != word != word.lower() and not word.istitle()  # AaBb, pH
        word = word if mixed or len(word) == 1 else word.casefold()
    word = word.lstrip("\\").replace("’", "'")
    if word in known:
        return known[word]
    if word[0].isdigit():
        number = word.replace(",", "")
        return (number.rstrip("0").rstrip(".") if "." in number else number), MARK
    if word == "cannot" or word.endswith("n't"):
        return "not", MARK
    word = word.split("'")[0]
    if word in known:
        return known[word]
    if word.isascii() and word.endswith("ly") and len(word) > 4:
        return word, MARK if _NEGATIVE.fullmatch(word) else SOFT
    return _stemmed(word), CONTENT


def _stemmed(word: str) -> str:
    """A word without the endings of plural and tense: boxes, box; stopped, stop; prepares, preparing, prepar."""
    if len(word) < 4 or word[-1] not in "sdge" or not word.isascii():
        return word
    if word.endswith(("ies", "ied")) and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "zes", "ches", "shes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        base = word.removesuffix(ending)
        if base != word and len(base) >= 3 and re.search("[aeiouy]", base):
            word = _DOUBLED.sub(r"\1", base)
            break
    return word[:-1] if word.endswith("e") and len(word) >= 4 else word


class Vocabulary:
    """Ids of words, given as they are met: words of one form share an id, and capitalised ones have the bit NAME.
    `codes`, a hash of the form that is the same in every process, and `kinds`, by id. Without `guard` every word is
    content, in lower case, and operators are left out: the tokens of `comparison_text`."""

    def __init__(self, guard: bool = True):
        self.guard, self.codes, self.kinds = guard, [], []
        self._forms: dict[str, int] = {}
        self._ids: list[int] = []  # by number of the word; -1 is dropped
        self._keys, self._numbers = np.zeros(1 << 16, dtype=np.uint64), np.zeros(1 << 16, dtype=np.int32)

    def read(self, texts: Iterable) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the words of each text in one array, int32, and the number of words of each, int64.

        Articles and the like are left out; a text without content ("Is there?", "???") is all that is there."""
        from qatoolkit.curate.compiled import words as loops

        texts = [without_politeness(text) if self.guard else stem(text) for text in texts]
        joined = "".join(f"{text}\0" for text in texts)
        points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        ends = np.cumsum([len(text) + 1 for text in texts])
        first, last = np.empty((2, len(points)), dtype=np.int64)
        hashes, counts = np.empty(len(points), dtype=np.uint64), np.zeros(len(texts), dtype=np.int64)
        found = loops.split(points, _classes(), ends, first, last, hashes, counts)
        known = len(self._ids)
        self._grow(known + found)
        numbers, new = np.empty(found, dtype=np.int32), np.empty(known + found, dtype=np.int64)
        now = loops.number(hashes[:found], self._keys, self._numbers, known, numbers, new)
        self._ids += [self._id(joined[first[i] : last[i]]) for i in new[known:now]]
        ids = np.array(self._ids, dtype=np.int32)[numbers]
        rows = np.repeat(np.arange(len(texts)), counts)[ids >= 0]
        ids = ids[ids >= 0]
        content = np.array(self.kinds, dtype=np.uint8)[ids & ~NAME] != SOFT
        counts = np.bincount(rows, minlength=len(texts))
        bare = np.flatnonzero(np.bincount(rows[content], minlength=len(texts)) == 0)
        if len(bare):
            parts = np.split(ids, np.cumsum(counts)[:-1])
            for row in bare:
                parts[row] = np.array([self._id("=" + word) for word in texts[row].split()], dtype=np.int32)
                counts[row] = len(parts[row])
            ids = np.concatenate(parts)
        return ids, counts

    def _id(self, word: str) -> int:
        if self.guard:
            form, kind = form_and_kind(word)
        else:
            form, kind = word.lstrip("\\").casefold(), CONTENT
            if word in _OPERATORS or (word[0] == "\\" and _LAYOUT.fullmatch(word)):
                kind = DROPPED
        if kind == DROPPED:
            return -1
        if form not in self._forms:
            self._forms[form] = len(self.codes)
            self.codes.append(digest(form))
            self.kinds.append(kind)
        return self._forms[form] | (NAME if word[0].isupper() else 0)

    def _grow(self, words: int) -> None:
        """Make the table at least twice as long as the words that may be in it."""
        from qatoolkit.curate.compiled import words as loops

        if 2 * words <= len(self._keys):
            return
        keys, numbers = self._keys, self._numbers
        size = 1 << (2 * words).bit_length()
        self._keys, self._numbers = np.zeros(size, dtype=np.uint64), np.zeros(size, dtype=np.int32)
        full = keys != 0
        order = np.argsort(numbers[full])
        out, new = np.empty(len(order), dtype=np.int32), np.empty(len(order), dtype=np.int64)
        loops.number(keys[full][order], self._keys, self._numbers, 0, out, new)


@cache
def _classes() -> np.ndarray:
    """The class of every code point, as `compiled.words` names them."""
    from qatoolkit.curate.compiled import words as loops

    classes = np.zeros(0x110000, dtype=np.uint8)
    every = "".join(map(chr, range(len(classes))))
    for what, pattern in (
        (loops.LETTER, r"[^\W\d_]+"),
        (loops.DIGIT, r"\d+"),
        (loops.SPACE, r"\s+"),
        (loops.CJK, f"[{CJK}]+"),
    ):
        for found in re.finditer(pattern, every):
            classes[found.start() : found.end()] = what
    for sign in _OPERATORS:
        classes[ord(sign)] = loops.OPERATOR
    signs = {"_": loops.UNDERSCORE, "'": loops.APOSTROPHE, "’": loops.APOSTROPHE, ".": loops.POINT, ",": loops.POINT}
    signs |= {"\\": loops.BACKSLASH, "-": loops.HYPHEN, "~": loops.TILDE, "*": loops.STAR}
    for sign, what in signs.items():
        classes[ord(sign)] = what
    return classes


def digest(text: str) -> int:
    """64 bits of a text, the same in every process."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def moved_clause(one: str, two: str) -> bool:
    """Whether two texts of the same words differ by one clause, of two words or more, that stands elsewhere.

    Commas and full stops tell what a clause is: "A beats B" and "B beats A" differ in more.

    >>> moved_clause("In the year 1999, who won the cup?", "Who won the cup in the year 1999?")
    True
    >>> moved_clause("Does the cat bite the dog?", "Does the dog bite the cat?")
    False
    """
    vocabulary, sides = Vocabulary(), []
    for text in (one, two):
        clauses = [part for part in re.split(r"[,.;:?!，。；：？！、\n]+", text) if part.strip()]
        words, counts = vocabulary.read(clauses)
        sides.append(((words & ~NAME).tolist(), np.cumsum([0, *counts]).tolist()))
    return _moved(*sides) or _moved(*sides[::-1])


def _moved(one: tuple[list[int], list[int]], two: tuple[list[int], list[int]]) -> bool:
    """Whether `two` is `one` with a clause at the end or start of another clause; sides are words and cuts."""
    (a, cuts_a), (b, cuts_b) = one, two
    for first, last in pairwise(cuts_a):
        clause, rest, size = a[first:last], a[:first] + a[last:], last - first
        for cut in cuts_b if size >= 2 else ():
            for start in (cut, cut - size):
                if start >= 0 and b[start : start + size] == clause and b[:start] + b[start + size :] == rest:
                    return True
    return False
