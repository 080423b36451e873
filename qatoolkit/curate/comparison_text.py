"""Normalises the texts of a QA table for comparison: tokens, shingles, stems, and marks that tell similar questions
apart.

QA rows are short and come from templates, so the usual recipe for documents fails: texts shorter than a shingle must
not share one empty signature, and two questions that differ in one number or name are different questions.
"""

import html
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from itertools import islice

import numpy as np
import pandas as pd

from qatoolkit.answers.readers import answer_key
from qatoolkit.core.text import CJK, ONES, TENS, is_missing, nfkc
from qatoolkit.curate.words import WordTable, plain_classes

_LETTER = rf"[^\W\d_〇{CJK}]"
SEPARATOR = "\0"  # a token of its own, between texts that are tokenised together
_NUMBER = r"\d+(?:\.\d+)*"
_GROUPED = re.compile(r",(?<=\d,)(?=\d{3}(?!\d))")
_NUMERALS = "零〇一二两三四五六七八九十百千万亿"
_NUMERAL = rf"(?:[{_NUMERALS}](?<!千)|千(?![米克瓦卡焦帕伏赫]))+"  # 五千米 is 5 km, not 5000 m
# Latin words come first: the most frequent case, matched without trying the other scripts.
_TOKEN = re.compile(
    rf"[a-z]++(?:'[a-z]++)*+(?!'?[^\x00-\x7f])|{_NUMERAL}|[{CJK}]|{_LETTER}+(?:'{_LETTER}+)*|{_NUMBER}|\0"
)
_ASCII = re.compile(rf"[a-z]+(?:'[a-z]+)*|{_NUMBER}|\0")  # the same for ASCII text
_BETWEEN = dict.fromkeys((i for i in range(128) if not re.match(r"[a-z\d'.\0]", chr(i))), " ")
_HIDDEN = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_TYPOGRAPHY = (("’", "'"), ("‘", "'"), ("“", '"'), ("”", '"'), ("–", "-"), ("—", "-"), ("−", "-"))
_WRAP = re.compile(rf"[-\u2010\n](?:(?<=[a-z][-\u2010])[ \t]*\n\s*(?=[a-z])|(?<=[{CJK}]\n)(?=[{CJK}]))")
_TAG = re.compile(
    r"</?(?:a|b|br|code|div|em|font|h[1-6]|hr|i|img|li|ol|p|pre|small|span|strong|sub|sup|t[drh]|table|tbody|thead|u|ul)"
    r"(?:\s[^<>]{0,300})?/?>",
    re.I,
)
_LAYOUT = re.compile(
    r"\\(?:(?:left|right|[bB]igg?[lr]?|text[a-z]*|math[a-z]+|boldsymbol|operatorname|vec|over[a-z]+|displaystyle|[dt]?frac"
    r"|q?quad|uline|rm|bf|times|cdot|div|[lg]eq?(?:slant)?|neq?)(?![a-z])|(?:begin|end)\s*\{[a-z*]+\}(?:\{[lcr|]+\})?"
    r"|\\\\|[,;:! ])"
)
_NUMBERING = re.compile(
    r"\s*(?:【[^】]{1,20}】\s*)?"
    r"(?:(?:(?:question|problem|exercise|example|item|q|no)(?![a-z])\s*\.?\s*|[例题]\s*)?(?:\d{1,3}\s*[.、):](?!\d)|\(\d{1,3}\))\s*"
    r"|第\s*\d{1,3}\s*[题问]\s*[.:、]?\s*|[一二三四五六七八九十]{1,3}\s*[.、]\s*)?"
    r"(?:\(\s*(?:\d+|[一二三四五六七八九十]+)\s*分\s*\)\s*)?",
    re.I,
)
_OPERATOR = re.compile(r"[+*/^=<>≤≥≠∧∨¬⊃≡·×÷√∪∩∈⊂]|(?<![^\s(])~(?=[A-Za-z(])|(?<![^\W\d_])-(?=\s*\w)")
_NEGATION = re.compile(r"\b(?:no|not|never|except|least|without|cannot|\w+n't)\b|[不没未非无]|除了|最[小少低]")
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6}
_HAN = frozenset(_NUMERALS)
_CHINESE = re.compile(_NUMERAL)
_NUMERAL_SIGN = re.compile(f"[{_NUMERALS}]")
_WORDED = frozenset([*ONES, *TENS])
_SPELT = _WORDED | {*SCALES, "and", "point"}
_BATCH = 4000  # texts
_LONGEST = 64  # words of a spelt-out number


def comparable(text) -> str:
    """Remove from a text what can hide a repeat: HTML, zero-width characters, soft and end-of-line hyphens, LaTeX
    layout, full-width and traditional characters (OpenCC t2s), case. Numbers are left as written; `tokens` normalises
    them."""
    text = without_markup(text)
    if not text.isascii():
        text = _HIDDEN.sub("", text)
    if "\n" in text:
        text = _WRAP.sub("", text)
    if "\\" in text:
        text = _LAYOUT.sub(" ", text)
    if not text.isascii():
        for sign, plain in _TYPOGRAPHY:
            text = text.replace(sign, plain)
    if not text.isascii():
        text = simplified(nfkc(text))
    return text.casefold()


def without_markup(text) -> str:
    """A text without HTML."""
    text = text_of(text)
    if "&" in text:
        text = html.unescape(text)
    return _TAG.sub(" ", text) if "<" in text else text


def simplified(text: str) -> str:
    """A text in simplified characters (OpenCC t2s)."""
    if text.isascii():
        return text
    convert, traditional = _simplifier()
    return convert(text) if traditional.search(text) else text


def tokens(text) -> list[str]:
    """Words, numbers and single CJK characters of a text normalised by `comparable`; spelt-out numbers become digits.

    >>> tokens("One hundred and five&nbsp;kg, 1,200 &lt; x; 二十三個")
    ['105', 'kg', '1200', 'x', '23', '个']
    """
    text = comparable(text)
    if "," in text:
        text = _GROUPED.sub("", text)
    words = _split(text) if text.isascii() else _TOKEN.findall(text)
    if not text.isascii() and _NUMERAL_SIGN.search(text):
        words = [number for word in words for number in (_read_chinese(word) if word[0] in _HAN else (word,))]
    return words if _WORDED.isdisjoint(words) else _read_numbers(words)


def _split(text: str) -> list[str]:
    """`_ASCII.findall`, in half of its time: most words are surrounded by spaces."""
    words = text.translate(_BETWEEN).replace(". ", " ").split()
    joined = {word for word in set(words) if not (word.isalpha() or word.isdigit() or word == SEPARATOR)}
    if not joined:
        return words
    found = []
    for word in words:
        if word in joined:
            found += _ASCII.findall(word)
        else:
            found.append(word)
    return found


def read_tokens(texts: Iterable[str], id_of: Callable[[str], int]) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """The ids of the `tokens` of many texts, each followed by a SEPARATOR: the texts as compared, joined; ids, int32;
    where each token begins and ends in the joined text, int64 [2, tokens]; how many each text has, int64."""
    plain = (_GROUPED.sub("", text) if "," in text else text for text in map(comparable, texts))
    joined, numbers, spans, counts, words = WordTable(plain_classes()).read(plain)
    ids = np.fromiter(map(id_of, words), np.int32, len(words))[numbers]
    kept = np.ones(len(ids), dtype=bool)
    for runs in (_english_runs(numbers, words), _chinese_runs(numbers, words, joined, spans)):
        for first, after, number in runs:
            ids[first], spans[1, first] = id_of(number), spans[1, after - 1]
            kept[first + 1 : after] = False
    counts = np.bincount(np.repeat(np.arange(len(counts)), counts)[kept], minlength=len(counts))
    return joined, ids[kept], spans[:, kept], counts


def token_ids(texts: Iterable[str], id_of: Callable[[str], int]) -> Iterator[np.ndarray]:
    """The ids of each text's `tokens`, int32."""
    texts = iter(texts)
    while batch := list(islice(texts, _BATCH)):
        _, ids, _, counts = read_tokens(batch, id_of)
        yield from (run[:-1] for run in np.split(ids, np.cumsum(counts)[:-1]))


def _english_runs(numbers: np.ndarray, words: list[str]) -> Iterator[tuple[int, int, str]]:
    begins, spelt = (np.fromiter((word in which for word in words), bool, len(words)) for which in (_WORDED, _SPELT))
    positions, ends = np.flatnonzero(begins[numbers]), np.flatnonzero(~spelt[numbers])
    done = 0
    for i, end in zip(positions.tolist(), ends[np.searchsorted(ends, positions)].tolist(), strict=True):
        if i >= done:
            run = [words[number] for number in numbers[i : min(end, i + _LONGEST)].tolist()]
            value, length = _read_english(run, 0)
            done = i + length
            yield i, done, value


def _chinese_runs(numbers: np.ndarray, words: list[str], joined: str, spans) -> Iterator[tuple[int, int, str]]:
    numeral = np.fromiter((word in _HAN for word in words), bool, len(words))
    done = 0
    for i in np.flatnonzero(numeral[numbers]).tolist():
        if i >= done and (found := _CHINESE.match(joined, spans[0, i])):
            done = i + len(found[0])  # each character is a word
            if len(value := _read_chinese(found[0])) == 1:
                yield i, done, value[0]


def _number_word_positions(words: list[str]) -> list[int]:
    found = []
    for word in _WORDED.intersection(words):
        at = -1
        for _ in range(words.count(word)):
            at = words.index(word, at + 1)
            found.append(at)
    return sorted(found)


def _read_numbers(words: list[str]) -> list[str]:
    """Replace each run of English number words, up to millions, by one number."""
    found, done = [], 0
    for i in _number_word_positions(words):
        if i >= done:
            value, end = _read_english(words, i)
            found += [*words[done:i], value]
            done = end
    return found + words[done:]


def _read_english(words: list[str], i: int) -> tuple[str, int]:
    """The number spelt out from words[i] on, and the index after its last word."""
    whole = part = 0
    # `room` bounds what may follow: ones after "twenty", hundreds after "two thousand", nothing after "two".
    room, largest = 100, 10**9
    while i < len(words):
        word = words[i]
        if word in TENS and room > 10:
            part, room = part + TENS[word], 10
        elif word in ONES and ONES[word] < room and (ONES[word] or not part + whole):
            part, room = part + ONES[word], 0
        elif word == "hundred" and 0 < part < 100:
            part, room = part * 100, 100
        elif word in SCALES and word != "hundred" and part and SCALES[word] < largest:
            largest = SCALES[word]
            whole, part, room = whole + part * largest, 0, 100
        elif not (word == "and" and room == 100 and i + 1 < len(words) and words[i + 1] in (ONES | TENS)):
            break
        i += 1
    if i + 1 < len(words) and words[i] == "point" and words[i + 1] in ONES:
        end = i + 1
        while end < len(words) and ONES.get(words[end], 10) < 10:
            end += 1
        return f"{whole + part}.{''.join(str(ONES[word]) for word in words[i + 1 : end])}", end
    return str(whole + part), i


@lru_cache(maxsize=100_000)
def _read_chinese(numeral: str) -> tuple[str, ...]:
    import cn2an

    try:
        return (str(cn2an.cn2an(numeral, "normal")),)
    except (ValueError, LookupError, TypeError):
        return tuple(numeral)  # not a number, as in 千万别


@cache
def _simplifier():
    """OpenCC's t2s converter, and a pattern of the characters it changes."""
    import opencc

    convert = opencc.OpenCC("t2s").convert
    han = "".join(map(chr, (*range(0x3400, 0x9FFF), *range(0xF900, 0xFAFF))))
    changed = "".join(a for a, b in zip(han, convert(han), strict=True) if a != b)
    return convert, re.compile(f"[{changed}]")


def shingles(text, n: int = 2) -> frozenset[str]:
    """Runs of n tokens. A shorter text is one shingle; only an empty text has none."""
    words = tokens(text)
    if len(words) >= n:
        return frozenset(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    whole = " ".join(words) or "".join(nfkc(text_of(text)).split())
    return frozenset([whole]) if whole else frozenset()


def stem(text) -> str:
    """The text in NFKC, without the leading question number, label in brackets or points of an exam paper."""
    text = text_of(text)
    if not text.isascii():
        text = nfkc(_HIDDEN.sub("", text))
    return text[_NUMBERING.match(text).end() :] or text


def distinguishing_marks(text: str) -> tuple[str, ...]:
    """Numbers, operators and negations of a text, sorted: they make different questions of otherwise equal words."""
    numbers = re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text))
    return tuple(sorted([*numbers, *_OPERATOR.findall(text), *_NEGATION.findall(text.casefold())]))


def answer_keys(table: pd.DataFrame) -> list[str]:
    """Canonical answers (`answer_key`); a letter or index is replaced by the text of its option."""
    columns = (values_of(table, name) for name in ("answer", "choices", "answer_index"))
    return [answer_key(option_of(*row)) for row in zip(*columns, strict=True)]


def option_of(answer, choices, index=None):
    """The option that `index` or, without it, an answer such as "(B)" names; the answer itself if it names none."""
    if choices is None:
        return answer
    if index is None and (letter := re.fullmatch(r"\(?([A-J])\)?\.?", text_of(answer).strip())):
        index = ord(letter[1]) - 65
    return choices[int(index)] if index is not None and 0 <= index < len(choices) else answer


def option_set(choices) -> frozenset[str] | None:
    """The canonical forms of the choices, unordered; None without choices."""
    return None if choices is None else frozenset(answer_key(choice) for choice in choices)


def values_of(table: pd.DataFrame, name: str) -> list:
    """The values of a column as a list: None where missing, all None if the table has no such column."""
    return (
        [None if is_missing(v) else v for v in table[name].to_numpy(object)] if name in table else [None] * len(table)
    )


def text_of(value) -> str:
    """A cell as text, empty if missing."""
    if value.__class__ is str:
        return value
    return "" if is_missing(value) else str(value)
