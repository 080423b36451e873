"""Normalises how answers are written: LaTeX and Unicode, announcements, articles, letter case.

Nothing here knows about numbers, units or algebra.
"""

import re
import unicodedata

from qatoolkit.core.text import CJK, is_missing, nfkc

LONGEST_NOTATION = 2_000  # characters: longer texts are not notation and are only stripped

# Function words that relate, count or negate: next to a number they change its meaning.
_FUNCTION_WORDS = (
    "a an and as at before after between by each every few for from half if in into is least less many more most no "
    "not nor of off on or other out over per plus minus than then the through times to under up vs versus with without "
    "squared cubed factorial negative either neither both below above fewer upto about"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
_LETTERS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi omega"
GREEK = {
    name: unicodedata.lookup(f"GREEK {kind} LETTER {'LAMDA' if name.casefold() == 'lambda' else name.upper()}")
    for lower in _LETTERS.split()
    for name, kind in ((lower, "SMALL"), (lower.title(), "CAPITAL"))
}
_SIGNS = GREEK | {
    "varepsilon": "ε", "vartheta": "θ", "varphi": "φ", "infty": "∞", "angle": "∠", "triangle": "△", "pm": "±",
    "times": "×", "cdot": "·", "div": "÷", "le": "≤", "leq": "≤", "leqslant": "≤", "ge": "≥", "geq": "≥",
    "geqslant": "≥", "lt": "<", "gt": ">", "ne": "≠", "neq": "≠", "approx": "≈", "cup": "∪", "cap": "∩", "in": "∈",
    "to": "→", "rightarrow": "→", "longrightarrow": "→", "perp": "⊥", "parallel": "∥", "circ": "°", "degree": "°",
    "langle": "(", "rangle": ")", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "lbrace": "{", "rbrace": "}", "ldots": "...", "dots": "...",
    "cdots": "...", "prime": "'", "textgreater": ">", "textless": "<", "lor": "∨", "therefore": "∴", "rightleftharpoons": "⇌", "vee": "∨", "land": "∧", "wedge": "∧", "neg": "¬", "lnot": "¬",
    "overrightarrow": r"\vec", "overline": r"\bar", "dfrac": r"\frac", "tfrac": r"\frac", "cfrac": r"\frac",
    "dbinom": r"\binom", "tbinom": r"\binom", "ohm": "Ω", "lg": r"\log_{10}", "micro": "μ", "euro": "€", "pounds": "£",
}  # fmt: skip
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_SIZED = re.compile(r"\\(?:left|right|bigl?|bigr|Bigl?|Bigr)(?![a-z])\s*\.?")
_DECORATION = re.compile(
    r"(?<!\\)\\[()\[\]]|\\(?:(?:displaystyle|quad|qquad|boldsymbol|limits)(?![a-z])|[,;!: ])|(?<!\\)\$"
)
_BOLD = re.compile(r"(?<![\w)])\*\*\s*([^*]+?)\s*\*\*(?![\w(])")
GROUP = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"  # three levels
_BOXED = re.compile(rf"\\f?boxed\s*({GROUP})")
_ONE_BOX = re.compile(r"(?:(?!.*boxed.*boxed).*[=≈:\s])?\\f?boxed.*")
_TEXT_COMMAND = re.compile(
    r"\\(?:text|textbf|textrm|mathrm|mathbf|mathit|rm|bf|operatorname|mbox|ce|mathsf)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_SINGLE = r"(?:\d|[A-Za-zα-ωπ]|\\sqrt\s*(?:\d|\{[^{}]*\}))"
_BARE_TOP = re.compile(rf"\\(frac|binom)\s*({_SINGLE})\s*")
_BARE_BOTTOM = re.compile(rf"\\(frac|binom)\s*({GROUP})\s*({_SINGLE})")
_PLAIN_CHARACTERS = str.maketrans("−–—⁄∕’‘′∶⋅∙•㏒≦≧⩽⩾", "---//''':···l≤≥≤≥")
_CIRCLED = re.compile("[①-⑳]")  # names of statements, not numbers
_GROUPED_TERMS = re.compile(
    r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s*[-+*/×÷^]\s*(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)+"
)
_NUMBERED = re.compile(r"(?:\(\d\)\s*(?:(?:[,、;和与]|and\s)\s*)?){2,9}")  # the same: (1)(3), not a product
_NUMBER = r"(?=[-+±]?\s*[$€£¥]?\s*\.?\d|[-+]?\\frac|[零一二两三四五六七八九十百千半])"
_ANNOUNCED = re.compile(
    r"(?:i\s+(?:think|believe)\s+(?:that\s+)?)?(?:(?:so|thus|hence|therefore|then|and)\b\s*,?\s*)*(?:(?:(?:the|my|our)\s+)?(?:(?:final|correct|right|best)\s+)?"
    r"(?:answers?|results?|solutions?|(?:choice|option)s?(?=\s+(?:is|are|:)))(?:\s+to\s+(?:this|the)\s+(?:question|problem))?"
    r"\s*(?::|=|(?:is|are|equals|will be|would be|must be|should be)\b)|(?:choice|option)s?(?=\s*\(?[A-J]\)?(?:\s*(?:,|and|&)\s*\(?[A-J]\)?)*$))\s*:?\s*"
    r"|(?:the|this)\s+(?:statement|claim|assertion)\s+is\s+(?=(?:true|false|correct|incorrect)$)"
    r"|(?:so|thus|hence|therefore)\s*,\s*|(?:so\s+)?we\s+(?:get|have|find|obtain)\s+(?=\S{1,9}\s*=)|(?:∴|解:|综上所述|即)\s*[,:]?\s*(?=[A-Za-z\d])|(?:ans|final)\s*:\s*|(?:final\s+)?answer\s*\n\s*|(?:解得|可得|求得)\s*[:,]?\s*|####\s+"
    r"|(?:所以|因此|因而|故|综上|则)?\s*[,:]?\s*(?:(?:本题|该题)?(?:的)?(?:正确|最终|最后)?(?:的)?(?:答案|结果|选项)\s*"
    r"(?:就是|应该是|应为|等于|是|为|选)?\s*:?(?<!案)(?<!果)(?<!项)|答\s*:|(?:本题|该题|此题)?(?:应选|选择?|选项)(?=\s*:?\s*[A-J]{1,5}$))\s*:?\s*|(?:所以|因此|故)\s*,?\s*(?=[A-Za-z\d])",
    re.IGNORECASE,
)
_APPROXIMATE = re.compile(
    rf"(?:approximately|approx\.?|about|around|roughly|circa|exactly|a total of|(?:so|thus|hence|therefore)(?=\s)|there\s+(?:are|is|were)|it(?:'s|\s+(?:is|was|equals))|in(?=\s+\d{{4}}$)|总共有?|一共有?|共[有计]?|合计|~|大约[为是]?|约等于|约为|约是|约|大概是?|≈|=)\s*{_NUMBER}",
    re.IGNORECASE,
)
_APPROXIMATE_AFTER = re.compile(r"(?<=[\d\u4e00-\u9fff])\s*(?:左右|上下|or so)$|(?<=\d)\s*(?:approximately|approx\.?)$")
_ONLY = re.compile(
    r"(?<=[A-Z\d])\s+only$|^only\s+(?=[A-Z\d]{1,4}$)|(?<=^[A-J])\s*选?项$|^both\s+(?=\S+\s+and\s)", re.IGNORECASE
)
_QUOTED = re.compile(r"'([^']+)'|([*_])([^*_]{2,})\2")
_MATRIX = re.compile(r"\\begin\{([pbB]?matrix|array)\}(?:\{[lcr|]+\})?(.{1,300}?)\\end\{\1\}", re.DOTALL)
_LABELLED = re.compile(r"(?:[(\[]\s*([A-J])\s*[)\]]|([A-J])\s*([.):、]))\s*(?=\S)(.+)", re.DOTALL)

_ARTICLE = re.compile(
    r"(?:(?<!\S)(?:a|an|the)|^(?:A|An)|\bThe|\bTHE)(?=\s+(?!(?:third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth)\b)(?:[^\W\d_]{3}|\d+(?:s|st|nd|rd|th)\b))"
)
# Punctuation that never changes an answer; not decimal points, factorials, primes or minus signs.
_SOFT_PUNCTUATION = re.compile(
    r"[;?\"`。，；：！？、“”《》「」]|[.,:](?=\s|$)|(?<=[^\W\d_]{2})[.,:](?!\d)|(?<=[^\W\d_]{3})!|(?<![\w'])'"
    r"|(?<=[^\W\d_]{3})-(?=[^\W\d_]{2})|(?<=[^\W\d_]{2})-(?=[^\W\d_]{3})"
)
_BRACKETS = re.compile(r"[()\[\]{}]")  # only style among words, but not if they group: 2(x+1), p and (q or r)
_GROUPED = re.compile(r"[\d=+*/^<>|∨∧¬]|\b(?:and|or|not|[A-Za-z])\b|[且或非]")
_WORDS_ONLY = re.compile(r"[^\W_]+(?:[\s.'-]+[^\W_]+)*\.?")
_HYPHEN = re.compile(
    r"(?<=[A-Za-z]{2})-(?=[A-Za-z])|(?<=[A-Za-z]{4})-(?=\d)|(?<=\d)-(?=[a-z]{3})|(?<=\b[A-Za-z])-(?=[A-Za-z]{3})"
)
_INITIALS = re.compile(r"(?<=\b[A-Z])\.\s*(?=[A-Z])|(?<=[a-z])\.(?=\s)")
_INFLECTIONS = ["es", "s", "a", "um", "us", "i", "on", "ed", "ing", "d"]
ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_ROMAN_NUMERAL = re.compile(r"(?=[IVXLCDM]{2})M{0,3}(?:C[MD]|D?C{0,3})(?:X[CL]|L?X{0,3})(?:I[XV]|V?I{0,3})")
_BRITISH = [
    (re.compile(british), american)
    for british, american in (
        (r"(?<=[a-z]{3})our(?=s?\b|ed|ing|ful)", "or"), (r"(?<=[a-z]{3})is(?=e[sd]?\b|ing\b|ation)", "iz"), (r"(?<=[a-z]{2}[bt])re(?=s?\b)", "er"),
        (r"(?<=[a-z]{2})ae(?=m|o)|\bae(?=s)|(?<=\bh)ae|(?<=\bp)ae(?=d)|\boe(?=s|d)", "e"), (r"(?<=[a-z]{4})ll(?=ed\b|ing\b)", "l"), (r"\bsulph", "sulf"), (r"\balumini", "alumin"),
    )
]  # fmt: skip
_YES = {"yes", "true", "correct", "是", "是的", "对", "对的", "没错", "正确", "正确的", "√", "✓", "✔"}
_NO = {
    "no",
    "false",
    "incorrect",
    "wrong",
    "untrue",
    "not true",
    "not correct",
    "否",
    "不是",
    "错",
    "错的",
    "错误",
    "错误的",
    "不对",
    "不正确",
    "×",
    "✗",
    "✘",
}
PHRASES = (
    {
        "no solution",
        "no solutions",
        "no real solution",
        "no real solutions",
        "no real roots",
        "无解",
        "没有解",
        "无实数解",
    },
    {"none of above", "none of these", "以上都不是", "以上都不对", "都不对"},
    {"all of above", "all of these", "以上都是", "以上皆是"},
    {"cannot be determined", "can't be determined", "can not be determined", "无法确定", "不能确定"},
    {"does not exist", "dne", "不存在"},
    {"infinity", "∞", "无穷大", "无穷"},
    {"infinitely many solutions", "infinite solutions", "无数解", "无穷多解", "无数个解", "无穷多个解"},
    {"infinitely many", "无数个", "无穷多个"},
    {
        "all real numbers",
        "all reals",
        "r",
        "\\mathbb r",
        "\\mathbb{r}",
        "(-∞, ∞)",
        "(-∞,∞)",
        "全体实数",
        "一切实数",
        "任意实数",
    },
    {"empty set", "∅", r"\emptyset", "\\varnothing", "空集", "{}"},
)
_BESIDE_CJK = re.compile(rf"(?<=[{CJK}])\s+|\s+(?=[{CJK}])")
_DOUBLED = re.compile(r"(?:([A-Z])\1)+|([A-Z])\2{2}", re.IGNORECASE)
_BETWEEN = re.compile(r"\s*([;、]|[:,.](?=\s))\s*(?=\S)")
_ATOM = rf"(?:\d|(?<![^\W_])[A-Za-z](?![^\W_])|[{CJK}])"
_MARKED = re.compile(rf"{_ATOM}\s*(?:[;、]|[:,.](?=\s))\s*{_ATOM}")


def clean(text, *, unwrap: bool = True) -> str:
    """A text in normal form: NFKC, LaTeX without decoration, signs as Unicode; `unwrap` also removes announcements."""
    if is_missing(text):
        return ""
    text = nfkc(_CIRCLED.sub(lambda m: f"#{ord(m[0]) - 0x245F}", str(text))).translate(_PLAIN_CHARACTERS)
    if len(text) > LONGEST_NOTATION:
        return text.strip().rstrip("。.;；,，").strip()
    text = text.replace("{,}", ",").replace("+∞", "∞").replace("-->", "→").replace("->", "→").replace(" != ", " ≠ ")
    text = re.sub(r"(?<=\d\d0)'(?=s\b)", "", text)  # the 1990's
    text = _MATRIX.sub(_matrix_as_list, text) if "matrix" in text or "{array}" in text else text
    if "\\" in text:
        text = text.replace("\\%", "%").replace("\\$", "\0")
        text = text.replace("~", " ")  # a space in LaTeX, elsewhere a negation
        text = _SIZED.sub("", text.replace("\\textless{}", "<").replace("\\textgreater{}", ">"))
        text = _TEXT_COMMAND.sub(lambda m: m[1] if len(m[1]) <= 2 or m[1] != m[1].strip() else f" {m[1]} ", text)
    if text.count("$") % 2 == 0 or text.count("$$"):  # an odd number of $ means money
        text = _DECORATION.sub(lambda m: "" if m[0] == "$" else " ", text)
    else:
        text = _DECORATION.sub(lambda m: m[0] if m[0] == "$" else " ", text)
    if "\\" in text:  # braces that only group; set braces are escaped
        text = re.sub(r"^\s*\{([^{},]*)\}\s*$", r"\1", text)
    text = text.replace("\0", "$").replace("\\{", "{").replace("\\}", "}")
    if "\\" in text or "√" in text or "^" in text or "_" in text:
        text = _simplify_latex(text.strip())
    text = _BOLD.sub(r"\1", re.sub(r"^#{1,6}\s+", "", text.strip()))
    text = text.rstrip("。.;；,，~ ").strip() + "..." * bool(re.search(r"\.\d+\.{3}$", text))
    for _ in range(3 if unwrap else 0):
        before = text
        text = _APPROXIMATE_AFTER.sub("", _strip_prefix(_APPROXIMATE, _strip_prefix(_ANNOUNCED, text)))
        text = _ONLY.sub("", text)
        text = (quoted[1] or quoted[3]).strip() if (quoted := _QUOTED.fullmatch(text)) else text
        text = _BOXED.sub(lambda m: m[1][1:-1].strip(), text) if _ONE_BOX.fullmatch(text) else text
        if text == before:
            break
    if "," in text and _GROUPED_TERMS.fullmatch(text):
        text = text.replace(",", "")
    if _NUMBERED.fullmatch(text):
        text = re.sub(r"\((\d+)\)", r"#\1", text)
    return text


def _strip_prefix(prefix: re.Pattern, text: str) -> str:
    found = prefix.match(text)
    rest = text[found.end() :].strip() if found else ""
    return rest or text


def _matrix_as_list(found: re.Match) -> str:
    """A matrix as a list of its rows, a single column as a vector."""
    rows = [[cell.strip() for cell in row.split("&")] for row in re.split(r"\\\\", found[2]) if row.strip()]
    if all(len(row) == 1 for row in rows):
        return f"({', '.join(row[0] for row in rows)})"
    return "[" + ", ".join("[" + ", ".join(row) + "]" for row in rows) + "]"


def _simplify_latex(text: str) -> str:
    text = re.sub(r"\^?(?<!\\)\{\}(?=.)", "", _COMMAND.sub(_replace_command, text))
    if "\\frac" in text or "\\binom" in text:
        text = _BARE_TOP.sub(r"\\\1{\2}", text)
        text = _BARE_BOTTOM.sub(r"\\\1\2{\3}", text)
    text = re.sub(r"(?<=[A-Za-zα-ω])_\{([A-Za-z])\}", r"_\1", re.sub(r"\^\{?\s*°\s*\}?", "°", text))
    text = re.sub(r"\^\{(\d*[+-])\}|\^(\d*[+-])$", r"\1\2", text)  # the charge of an ion
    text = re.sub(r"(?<=[A-Za-z)\]])_(?:\{(\d+)\}|(\d+))(?![.\d])", _join_subscript, text)
    return re.sub(r"\^\{\s*(-?\w)\s*\}", r"^\1", text)


def _replace_command(found: re.Match) -> str:
    plain = _SIGNS.get(found[1])
    if plain is None:
        return found[0]
    after = found.string[found.end() : found.end() + 1]
    return plain + (" " if plain[0] != "\\" and found[1] in GREEK and after.isalpha() else "")


def _join_subscript(found: re.Match) -> str:
    """H_2 becomes H2, but a logarithm keeps the subscript of its base."""
    before = found.string[: found.start()]
    is_base = before.endswith(("log", "ln")) or re.search(r"\([\dA-F]+\)$", before)  # (1010)_2
    return found[0] if is_base else found[1] or found[2]


def labelled(text: str) -> tuple[str, str, bool] | None:
    """(letter, text, whether the letter is certainly a label) of "C. Paris"; None if there is no label."""
    found = _LABELLED.fullmatch(text)
    if not found:
        return None
    rest = found[4].strip()
    initial = found[3] == "." and re.fullmatch(r"[A-Za-z]+", rest)  # E. coli, A. Smith
    if re.fullmatch(r"[A-J](?:[\s,、;&]*[A-J])*|[A-Z]\.\s.+", rest):
        return None  # several letters, or initials
    spaced = found[3] != "." or not rest[:1].isascii() or found.string[found.start(4) - 1].isspace()
    return (found[1] or found[2], rest, not initial) if spaced and (found[3] != ":" or len(rest) > 1) else None


def words(text: str, *, fold: bool = True) -> str:
    """The words without articles and soft punctuation. With `fold` all are case-folded, else only those whose case is
    mere style. Marks between numbers, single letters and Chinese terms stay: 3, 4 is not 3: 4, nor 二十、三 二十三."""
    if _MARKED.search(text):
        pieces = (piece if i % 2 else words(piece, fold=fold) for i, piece in enumerate(_BETWEEN.split(text)))
        return " ".join(piece for piece in pieces if piece)
    text = _ARTICLE.sub(" ", text)
    text = re.sub(r"^[(\[]?\s*([A-Za-z]+)\s*[)\]]$", r"\1", text)
    text = text if _GROUPED.search(text) else _BRACKETS.sub(" ", text)
    text = _SOFT_PUNCTUATION.sub(" ", re.sub(r"(?<=\b[A-Z])\.(?=[A-Z]\b)", "", text))  # U.S.A.
    text = _BESIDE_CJK.sub("", text) if not text.isascii() else text
    return " ".join(word.casefold() if fold or not case_coded(word) else word for word in text.split())


def same_spelling(a: str, b: str) -> bool | None:
    """Whether two texts are spellings of the same words: accents, hyphens, dots in initials, British or American, XIV
    or 14. None if the difference may matter (now here, nowhere), an inflection or an acronym; else False."""
    if not all(_WORDS_ONLY.fullmatch(text) for text in (a, b)):
        return False
    plain_a, plain_b = (" ".join(map(_spell_plainly, _INITIALS.sub("", text).split())) for text in (a, b))
    if len(plain_a) > 3 and plain_a == plain_b:
        accents = [re.sub(r"[^\u0300-\u036f]", "", unicodedata.normalize("NFD", text)) for text in (a, b)]
        return None if all(accents) and accents[0] != accents[1] else True
    if len({words(_HYPHEN.sub(" ", text), fold=False) for text in (a, b)}) == 1:
        return True
    if "".join(plain_a.split()) == "".join(plain_b.split()) or _differ_by_inflection(plain_a.split(), plain_b.split()):
        return None
    pairs = list(zip(a.split(), b.split(), strict=False))
    if len(a.split()) == len(b.split()) > 1 and all(
        x.casefold() == y.casefold() or _abbreviates(x, y) for x, y in pairs
    ):
        return None
    short, long = sorted((a.replace(".", ""), b), key=len)
    capitals = "".join(word[0] for word in long.split() if word[0].isupper() or " " not in short)
    initials = "".join(word[0] for word in long.split() if word.casefold() not in FUNCTION_WORDS)
    acronym = (
        short.isupper() and len(short) > 1 and {capitals.upper(), initials.upper()} & {short, short.removesuffix("A")}
    )
    return None if acronym and " " in long else False


def _differ_by_inflection(a: list[str], b: list[str]) -> bool:
    """Whether words differ in number or tense alone: electron and electrons, increase and increases."""
    return len(a) == len(b) and all(x == y or _stems(x) & _stems(y) for x, y in zip(a, b, strict=True))


def _stems(word: str) -> set[str]:
    """A word without each ending that it may have, and without the e or y that such an ending replaces."""
    stems = {word} | {word.removesuffix(ending) for ending in _INFLECTIONS if word.endswith(ending)}
    stems |= {stem[:-1] for stem in stems if stem[-1:] in ("e", "i", "y")}
    return {stem for stem in stems if len(stem) > 2}


def _abbreviates(x: str, y: str) -> bool:
    """Whether one word is a dotted abbreviation of the other: S. and Staphylococcus, Mt. and Mount."""
    short, long = sorted((x.casefold(), y.casefold()), key=len)
    return short.endswith(".") and re.match(".*?".join(map(re.escape, short[:-1])), long) is not None


def _spell_plainly(word: str) -> str:
    if number := roman_number(word):
        return str(number)
    if case_coded(word) and len(word) < 4:
        return word
    plain = unicodedata.normalize("NFC", re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFD", word))).casefold()
    for british, american in _BRITISH:
        plain = british.sub(american, plain)
    return re.sub(
        r"(?<=[A-Za-z]{3})-|(?<=[A-Za-z])-(?=[A-Za-z]{3})|(?<!\d)\.|\.(?!\d)", "", plain
    )  # but -5, 3-6 and 3.6 keep their marks


def roman_number(word: str) -> int | None:
    """The value of a Roman numeral of two letters or more, XIV; None for any other text."""
    if not _ROMAN_NUMERAL.fullmatch(word):
        return None
    values = [ROMAN[letter] for letter in word]
    return sum(v if v >= after else -v for v, after in zip(values, [*values[1:], 0], strict=True))


def case_coded(word: str) -> bool:
    """Whether letter case may carry meaning: Co or CO, Aa or aa, AABB or aabb, NaCl; not in Paris, PARIS or Of."""
    if is_cjk_text(word):  # Aa型
        return any(map(case_coded, re.findall("[A-Za-z]+", word)))
    letters = "".join(c for c in word if c.isalpha())
    if not letters or not letters.isascii() or word.casefold() in FUNCTION_WORDS - {"a", "an", "as", "at", "no"}:
        return False
    plain = letters.isupper() or letters.islower() or letters[1:].islower()
    return len(letters) <= 2 or not plain or _DOUBLED.fullmatch(letters) is not None  # AABB, Aabb, Bbb


def boolean(text: str) -> bool | None:
    """True for yes, true, 对 and similar words, False for no, false, 错 and similar words; None for any other text."""
    if text in ("T", "F", "Y", "N"):
        return text in "TY"
    word = words(text) if len(text) <= 12 else text
    return True if word in _YES else False if word in _NO else None


def is_cjk_text(text: str) -> bool:
    return re.search(f"[{CJK}]", text) is not None
