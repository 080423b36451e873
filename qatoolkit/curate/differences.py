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
from pathlib import Path

import numpy as np

from qatoolkit.core.text import CJK
from qatoolkit.curate.comparison_text import stem, tokens

CONTENT, SOFT, MARK, DROPPED = range(4)
NAME = 1 << 30  # bit on the id of a word that is written as a name

_NAMES = re.compile(r"(?<=[^\s.!?:;]\s)[A-Z][a-z][^\W_]*")  # capitalised inside a sentence
_CJK = re.compile(f"[{CJK}]")
_LABEL = re.compile(
    r"\s*(?:(?:question|problem|exercise|example|q|no\.?|例|问题|题目|习题)\s*\d{1,3}\s*[.:、)]|第\s*[\d一二三四五六七八九十]{1,3}\s*题[.:、)]?"
    r"|[(\[]\s*(?:\d{1,3}|[a-h]|[ivx]{1,4})\s*[)\]](?=\s*[^\W\d])|[一二三四五六七八九十]{1,3}、|例\s*:)\s*",
    re.IGNORECASE,
)
_MINUS = re.compile(r"(?<![^\W\d_])-(?=\s*\w)")
_TILDE = re.compile(r"(?<![^\s(])~(?=[A-Za-z(])")
_OPERATORS = {"+": "plus", "*": "times", "/": "divided", "^": "power", "=": "equals", "<": "less", ">": "greater"}
_OPERATORS |= {"≤": "less equals", "≥": "greater equals", "≠": "not equals", "×": "times", "·": "times", "÷": "divided"}
_OPERATORS |= {"−": "minus", "%": "percent", "√": "sqrt", "¬": "not", "∧": "wedge", "∨": "vee", "⊃": "implies"}
_OPERATORS |= {"≡": "equiv", "∪": "cup", "∩": "cap", "∈": "elementof", "⊂": "subset"}
_TRANSLATED = str.maketrans({sign: f" {word} " for sign, word in _OPERATORS.items()})
_NEGATIVE = re.compile(r"(?:un|non|dis|mis|il|ir)[a-z]{3,}ly")
_DOUBLED = re.compile(r"([bdfgmnprt])\1$")


@cache
def _lists() -> tuple[dict[str, tuple[str, int]], dict[str, re.Pattern], dict[str, str]]:
    """Forms and kinds by word, patterns of phrases by name, and the words that stand for soft phrases."""
    with (Path(__file__).parent / "difference_words.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["kind"], row["language"], row["words"]) for row in csv.DictReader(file)]
    known: dict[str, tuple[str, int]] = {word: (word, MARK) for word in " ".join(_OPERATORS.values()).split()}
    phrases, polite = [], {}
    for kind, language, words in rows:
        if kind == "polite":
            polite[language] = words
            continue
        code = {"drop": DROPPED, "soft": SOFT, "mark": MARK, "form": CONTENT}[kind]
        for group in words.split():
            forms = group.split("/")
            phrases += [f for f in forms if "_" in f or (language == "zh" and len(f) > 1 and code == SOFT)]
            for form in forms:
                known.setdefault(form, (_stemmed(forms[0]) if kind == "form" else forms[0], code))
    phrases = sorted((phrase.replace("_", " ") for phrase in phrases), key=len, reverse=True)
    stands = {phrase: f"softphrase{chr(97 + i // 26)}{chr(97 + i % 26)}" for i, phrase in enumerate(phrases)}
    known |= {word: (word, SOFT) for word in stands.values()}
    en, zh = ([re.escape(p) for p in phrases if p.isascii() == ascii_] for ascii_ in (True, False))
    dropped = sorted((w for k, la, ws in rows if (k, la) == ("drop", "zh") for w in ws.split()), key=len, reverse=True)
    patterns = {
        "opening": re.compile(rf"\W*(?:(?:{polite['en']})\b\W*)+", re.IGNORECASE),
        "closing": re.compile(rf"\W*\b(?:{polite['en']})\W*$", re.IGNORECASE),
        "polite zh": re.compile(rf"(?:{polite['zh']})[:,]?"),
        "dropped zh": re.compile("|".join(dropped)),
        "soft en": re.compile(rf"\b(?:{'|'.join(en)})\b", re.IGNORECASE),
        "soft zh": re.compile("|".join(zh)),
    }
    return known, patterns, stands


def compared_words(text) -> tuple[list[str], frozenset[str]]:
    """Tokens of a question without its number and politeness, operators as words; and which of them are names.

    >>> compared_words("3. Please tell me: is x + 1 above Tom's x?")
    (['is', 'x', 'plus', '1', 'above', "tom's", 'x'], frozenset({'tom'}))
    """
    _, patterns, stands = _lists()
    text = stem(text)
    text = text[label.end() :] if (label := _LABEL.match(text)) else text
    names = frozenset() if text.islower() else frozenset(name.casefold() for name in _NAMES.findall(text))
    if not text.isascii():
        text = text.replace("’", "'")
        if _CJK.search(text):
            text = patterns["polite zh"].sub("", text)
            text = patterns["soft zh"].sub(lambda m: f" {stands[m[0]]} ", text)
            text = patterns["dropped zh"].sub("", text)
    opening = patterns["opening"].match(text)
    text = patterns["closing"].sub("", text[opening.end() :] if opening else text)
    text = patterns["soft en"].sub(lambda m: f" {stands[m[0].lower()]} ", text)
    if "'" in text:
        text = re.sub("n't(?![a-z])", " not", text).replace("'(", " prime (")
    if "-" in text:
        text = _MINUS.sub(" minus ", text)
    if "~" in text:
        text = _TILDE.sub(" not ", text)
    return tokens(text.replace("**", " ").translate(_TRANSLATED)), names


def form_and_kind(word: str) -> tuple[str, int]:
    """The form in which a token is compared, and its kind: CONTENT, SOFT, MARK or DROPPED.

    >>> [form_and_kind(word) for word in ("prepared", "quickly", "without", "the", "1,200.0")]
    [('prepar', 0), ('quickly', 1), ('without', 2), ('the', 3), ('1200', 2)]
    """
    known = _lists()[0]
    if word in known:
        return known[word]
    if word[0].isdigit():
        number = word.replace(",", "")
        return (number.rstrip("0").rstrip(".") if "." in number else number), MARK
    if word == "cannot":
        return "not", MARK
    word = word.split("'")[0] or word
    if word in known:
        return known[word]
    if word.isascii() and word.endswith("ly") and len(word) > 4:
        return word, MARK if _NEGATIVE.fullmatch(word) else SOFT
    return _stemmed(word), CONTENT


def _stemmed(word: str) -> str:
    """A word without the endings of plural and tense: boxes, box; stopped, stop; prepares, preparing, prepar."""
    if not word.isascii() or len(word) < 4:
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


class Vocabulary(dict):
    """Ids of tokens, given as they are met; equal forms share an id. `codes`, a hash of each form that is the same in
    every process, and `kinds`, by id. A dropped token has id -1."""

    def __init__(self, guard: bool = True):
        super().__init__()
        self.guard, self.codes, self.kinds, self._forms = guard, [], [], {}

    def __missing__(self, token: str) -> int:
        form, kind = form_and_kind(token) if self.guard else (token, CONTENT)
        if kind == DROPPED:
            self[token] = -1
            return -1
        if form not in self._forms:
            self._forms[form] = len(self.codes)
            self.codes.append(digest(form))
            self.kinds.append(kind)
        self[token] = self._forms[form]
        return self[token]

    def read(self, texts: Iterable) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the compared words of each text in one array, int32, and the number of words of each."""
        ids, counts = [], []
        for text in texts:
            if self.guard:
                words, names = compared_words(text)
                row = [i for i in map(self.__getitem__, words) if i >= 0]
                if names:
                    marked = {self[name] for name in names}
                    row = [i | NAME if i in marked else i for i in row]
                if not any(self.kinds[i & ~NAME] != SOFT for i in row):  # "Is there?": all there is
                    row = [self["=" + word] for word in words or stem(text).split()]
            else:
                text = stem(text)
                row = list(map(self.__getitem__, tokens(text) or text.split()))
            ids += row
            counts.append(len(row))
        return np.array(ids, dtype=np.int32), np.array(counts, dtype=np.int64)


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
        parts = [
            vocabulary.read([part])[0] & ~NAME for part in re.split(r"[,.;:?!，。；：？！、\n]+", text) if part.strip()
        ]
        ends = np.cumsum([len(part) for part in parts])
        sides.append((np.concatenate(parts).tolist() if parts else [], {0, *ends.tolist()}))
    (a, cuts_a), (b, cuts_b) = sides
    if len(a) != len(b):
        return False
    first = next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))
    last = len(a) - next((i for i, (x, y) in enumerate(zip(a[::-1], b[::-1], strict=True)) if x != y), 0)
    a, b = a[first:last], b[first:last]
    for size in range(2, len(a) - 1):
        if a[size:] + a[:size] == b:
            return {first, first + size} <= cuts_a or {last - size, last} <= cuts_b or {first + size, last} <= cuts_a
    return False
