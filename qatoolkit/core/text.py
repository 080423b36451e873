"""Text as it is compared: Unicode, case and white space; what counts as missing; which characters are Chinese, Japanese or Korean."""

import math
import re
import unicodedata

_POWER = re.compile(r"(?<=[A-Za-z\d)])(⁻?[⁰¹²³⁴-⁹]+)(?![⁺⁻])(?=([A-Za-z\d(]?))")


_MIXED = re.compile(r"(?<=\d)(?=[¼½¾⅐-⅞])")


def nfkc(text: str) -> str:
    """NFKC, but 2³ stays a power (2^3) and 1½ a mixed number (1 1/2), which NFKC alone would read as 23 and 11/2.

    The charges of ions, Fe²⁺, are no powers."""
    if not text.isascii():
        text = _MIXED.sub(" ", _POWER.sub(lambda m: f"^{m[1].replace('⁻', '-')}" + " " * bool(m[2]), text))
    return unicodedata.normalize("NFKC", text)


def normalise(text: str) -> str:
    """NFKC (`nfkc`), case-folded, white space collapsed: the form in which two texts count as the same."""
    return " ".join(nfkc(text).casefold().split())


CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"


def is_cjk(token: str) -> bool:
    """Whether a token is one Chinese, Japanese or Korean character."""
    return len(token) == 1 and re.match(f"[{CJK}]", token) is not None


def missing(value) -> bool:
    """Whether a cell holds nothing: None, NaN, or what pandas puts there."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or type(value).__name__ in ("NAType", "NaTType")
    )
