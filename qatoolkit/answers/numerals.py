"""Numerals in words, English and Chinese (by cn2an)."""

from fractions import Fraction

from qatoolkit.core.text import ONES, TENS

ENGLISH = ONES | TENS
LARGE = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
LARGE |= {"quadrillion": 10**15, "lakh": 10**5, "crore": 10**7}
ORDINALS = {
    "first": "one", "second": "two", "third": "three", "fifth": "five", "eighth": "eight", "ninth": "nine",
    "twelfth": "twelve",
}  # fmt: skip
ORDINALS |= {f"{word}th": word for word in ONES if word not in ("three", "five", "eight", "nine", "twelve")}
ORDINALS |= {f"{word[:-1]}ieth": word for word in TENS}


def read_cardinal(words: list[str | None]) -> int | None:
    """The value of English numerals: one hundred and five; None for other words."""
    total = group = 0
    for word in words:
        value = ENGLISH.get(word)
        if value is not None:
            if group % 10 or (group % 100 and value > 9):  # five thirty
                return None
            group += value
        elif word in LARGE and group:
            group *= LARGE[word]
            total, group = (total + group, 0) if LARGE[word] > 100 else (total, group)
        elif word != "and" or not total + group:
            return None
    return total + group if words and words[-1] != "and" else None


def read_numeral(text: str | None) -> Fraction | None:
    """The value of Chinese numerals: 两千零二十, 一亿三千万, 二〇二四, 壹佰, and 一百五 for 150."""
    if not text:
        return None
    if text[0].isdigit():
        return Fraction(text)
    text = f"一{text}" if text[0] in "百千万亿" else text
    digits = "零一二三四五六七八九"
    if all(c in digits + "〇幺" for c in text):
        return Fraction(int("".join(str(digits.index({"〇": "零", "幺": "一"}.get(c, c))) for c in text)))
    import cn2an

    try:
        return Fraction(cn2an.cn2an(text, "normal"))
    except ValueError:
        return None
