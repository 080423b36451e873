"""Text helpers: normalisation for comparison, CJK characters, missing values, one-line errors."""

import re
import unicodedata

import numpy as np
import pandas as pd

_POWER = re.compile(r"(?<=[A-Za-z\d)])(⁻?[⁰¹²³⁴-⁹]+)(?![⁺⁻])(?=([A-Za-z\d(]?))")
_RAISED = re.compile("[⁰¹²³⁴-⁹¼½¾⅐-⅞]")
_MIXED = re.compile(r"(?<=\d)(?=[¼½¾⅐-⅞])")
_SMALL = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"""
ONES = {word: i for i, word in enumerate(_SMALL.split()[:20])}  # English number words
TENS = {word: 10 * i for i, word in enumerate(_SMALL.split()[20:], 2)}


def nfkc(text: str) -> str:
    """NFKC, but 2³ stays a power (2^3) and 1½ a mixed number (1 1/2), where NFKC alone gives 23 and 11/2.

    The charges of ions, as in Fe²⁺, are not powers."""
    if not text.isascii() and _RAISED.search(text):
        text = _MIXED.sub(" ", _POWER.sub(lambda m: f"^{m[1].replace('⁻', '-')}" + " " * bool(m[2]), text))
    return unicodedata.normalize("NFKC", text)


def normalise(text: str) -> str:
    """`nfkc`, case-folded, white space collapsed. Texts that are equal in this form count as the same."""
    return " ".join(nfkc(text).casefold().split())


CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"


def is_cjk(token: str) -> bool:
    """Whether a token is one Chinese, Japanese or Korean character."""
    return len(token) == 1 and re.match(f"[{CJK}]", token) is not None


def first_line(error: Exception) -> str:
    """The first line of an error's message; its type if there is no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_FLOATS = (float, np.floating)


def is_missing(value) -> bool:
    """Whether a cell is empty: None, NaN, pd.NA or pd.NaT."""
    if isinstance(value, str):  # fast path: most cells are texts
        return False
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, _FLOATS) and value != value)
