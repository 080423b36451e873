"""The text that all spellings of one knowledge point share: keys for `kp_merges`, never shown.

A key keeps what tells neighbours apart: numbers, signs, formulas, prefixes, and every letter that is not a known
variant."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import lru_cache
from itertools import combinations, pairwise

from qatoolkit.core.text import CJK
from qatoolkit.graph.knowledge_points import singular

_ORDINALS = {
    word: f"{i}th"
    for i, word in enumerate(
        ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"), 1
    )
}
_NUMBERS = {
    word: str(i)
    for i, word in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), 1)
}
_ROMAN = {
    r: str(i) for i, r in enumerate(["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii"], 1)
}
_HAN_NUMBERS = {n: str(i) for i, n in enumerate("一二三四五六七八九十", 1)}
_NUMBERED = {
    "type", "phase", "stage", "class", "group", "war", "photosystem", "complex", "part", "grade", "level",
    "angiotensin", "calculus",
}  # fmt: skip
_GREEK = {
    unicodedata.lookup(f"GREEK SMALL LETTER {name.upper()}"): name for name in (
        "alpha", "beta", "gamma", "delta", "epsilon", "theta", "lamda", "mu", "pi", "rho", "sigma", "tau", "phi", "chi",
        "psi", "omega",
    )
} | {"λ": "lambda"}  # fmt: skip
# Prefixes that never stand alone in a name; not re- and un-, for "re-creation" is no recreation.
_PREFIXES = {
    "anti", "auto", "bi", "bio", "co", "counter", "di", "electro", "extra", "geo", "hetero", "homo",
    "hydro", "hyper", "hypo", "inter", "intra", "iso", "macro", "micro", "mid", "mono", "multi", "neo",
    "neuro", "non", "para", "photo", "poly", "post", "pre", "pseudo", "quasi", "semi", "socio", "sub",
    "super", "supra", "tetra", "thermo", "trans", "tri", "ultra",
}  # fmt: skip
_HYPHEN = re.compile(r"(?<=[^\W_])-(?=[^\W_])")
_FUNCTIONS = {"arcsin", "arccos", "arctan"}

_BRITISH = tuple(
    (re.compile(pattern), american)
    for pattern, american in (
        (
            r"(^|^un|^dis|^multi)(arm|col|fav|hon|lab|hum|rum|tum|vap|vig|sav|od|behavi|neighb|flav|harb|ferv|endeav)our",
            r"\1\2or",
        ),
        (r"(cent|met|theat|calib|spect|meag|lust|sab|lit|fib)re(s?)$", r"\1er\2"),
        (r"(?<=....)is(e|ed|er|ers|es|ing|ation|ations|ational|able)$", r"iz\1"),
        (r"(anal|paral|catal|electrol|hydrol|dial)ys(e|ed|er|ers|es|ing)$", r"\1yz\2"),
        (r"(mode|labe|trave|signa|cance|counse|leve|channe|tunne|fue|quarre|tota)ll(ed|er|ers|ing)$", r"\1l\2"),
        (r"(cata|dia|ana|homo|mono|pro)logue(s?)$", r"\1log\2"),
        (r"haemo", "hemo"),
        (r"aemi", "emi"),
        (r"anaesth", "anesth"),
        (r"^aesth", "esth"),
        (r"^oest", "est"),
        (r"oedema", "edema"),
        (r"^oesoph", "esoph"),
        (r"^foet", "fet"),
        (r"^paed", "ped"),
        (r"^orthopaed", "orthoped"),
        (r"^gynaec", "gynec"),
        (r"^palaeo", "paleo"),
        (r"^archaeo", "archeo"),
        (r"^caesium", "cesium"),
        (r"^aetio", "etio"),
        (r"^faec", "fec"),
        (r"^coeliac", "celiac"),
        (r"^diarrhoea", "diarrhea"),
        (r"^amoeb", "ameb"),
        (r"^manoeuv(?:re|er)", "maneuver"),
        (r"^encyclopaed", "encycloped"),
        (r"^mediaev", "mediev"),
        (r"sulph", "sulf"),
        (r"^aluminium", "aluminum"),
        (r"^programme(s?)$", r"program\1"),
        (r"^(def|off)ence(s?)$", r"\1ense\2"),
        (r"^licence", "license"),
        (r"^practis", "practic"),
        (r"^sceptic", "skeptic"),
        (r"^grey", "gray"),
        (r"^mould", "mold"),
        (r"^plough", "plow"),
        (r"^artefact", "artifact"),
        (r"(judg|ledg)ement", r"\1ment"),
        (r"^ageing$", "aging"),
        (r"^maths$", "math"),
        (r"^enrolment", "enrollment"),
        (r"^fulfilment", "fulfillment"),
    )
)
# "X of Y" is "Y X" where X is one of these; "number of primes" is no prime number.
_HEADS = {
    "axiom", "conjecture", "conservation", "criterion", "effect", "hypothesis", "law", "lemma", "paradox",
    "postulate", "principle", "rate", "theorem",
}  # fmt: skip


def spelling_words(name: str) -> tuple[str, ...]:
    """The words of a normalised KP without what spellings differ in."""
    name = _plain_latin(name)
    if re.search(f"[{CJK}]", name):
        name = _plain_han(name)
    words = [word for word in name.replace(" & ", " and ").split() if word != "the"] or [name]
    words = [part for word in words for part in _parts(word)]
    if len(words) > 2 and words[-1] == f"({''.join(word[0] for word in words[:-1])})":
        words.pop()  # "ordinary differential equation (ode)"
    return tuple(_word(word, before) for word, before in zip(words, ["", *words], strict=False))


def _plain_latin(name: str) -> str:
    """Without accents on Latin letters, and with Greek letters by name where they stand alone."""
    if name.isascii():
        return name
    letters = []
    for i, letter in enumerate(name):
        base = unicodedata.normalize("NFKD", letter)
        if letter in _GREEK and not any(n.isalpha() for n in name[max(i - 1, 0) : i] + name[i + 1 : i + 2]):
            letters.append(_GREEK[letter])
        else:
            letters.append(base[0] if "a" <= base[0] <= "z" and len(name) > 2 else letter)
    return "".join(letters)


def _plain_han(name: str) -> str:
    """Without spaces and dots next to Chinese characters, hyphens and the particle 的 between them; 第一 as 第1."""
    name = re.sub(rf"(?<=[{CJK}])[ ·]+|[ ·]+(?=[{CJK}])|(?<=[{CJK}])-(?=[{CJK}])", "", name)
    name = re.sub(rf"(?<=[{CJK}]{{2}})的(?=[{CJK}]{{2}})", "", name)
    return re.sub(r"(?<=第)[一二三四五六七八九十](?![一二三四五六七八九十百])", lambda m: _HAN_NUMBERS[m[0]], name)


def _parts(word: str) -> list[str]:
    """A word parted at hyphens that another spelling leaves out; "x-1" and "c-14" keep theirs."""
    parts = _HYPHEN.split(word)
    if len(parts) == 1:
        return parts
    for left, right in pairwise(parts):
        words = sum(len(side) >= 3 and side.isalpha() for side in (left, right))
        plain = all(side.replace("'", "").isalpha() or side.isdigit() for side in (left, right))
        if not (words and plain) or (right.isdigit() and (len(left) < 5 or left in _FUNCTIONS)):
            return [word]
    return parts


@lru_cache(maxsize=1_000_000)
def _word(word: str, before: str) -> str:
    if word in _ORDINALS:
        word = _ORDINALS[word]
    elif re.fullmatch(r"\d+(?:st|nd|rd|th)", word):
        word = f"{int(word[:-2])}th"
    elif word in _NUMBERS:
        word = _NUMBERS[word]
    elif word in _ROMAN and before and (len(word) > 1 or before in _NUMBERED):
        word = _ROMAN[word]
    elif len(word) > 3 and word.endswith(("'s", "s'")):
        word = word[:-2] + ("s" if word.endswith("s'") else "")
    word = singular(word)
    if len(word) > 3 and word.isascii() and word.isalpha():
        for pattern, american in _BRITISH:
            word = pattern.sub(american, word)
    return word


def written(words: tuple[str, ...]) -> str:
    """Words as one text; those of three letters or more, and prefixes, run together: "eigen value" is "eigenvalue"."""
    text = ""
    closed = False
    for word in words:
        plain = word.isascii() and word.isalpha()
        long = plain and (len(word) >= 3 or word in _PREFIXES)
        text += word if not text or (closed and plain and len(word) >= 3) else f" {word}"
        closed = long
    return text


def order_key(words: tuple[str, ...]) -> str:
    """The same text for "law of ohm" and "ohm's law", where the first noun is one of a few that allow it."""
    if words.count("of") == 1 and 0 < (of := words.index("of")) < len(words) - 1 and words[of - 1] in _HEADS:
        words = words[of + 1 :] + words[:of]
    return written(words)


_REAL_WORDS = {
    frozenset(pair)
    for pair in (
        ("ailments", "aliments"),
        ("causally", "casually"),
        ("complaint", "compliant"),
        ("discreetly", "discretely"),
        ("trailing", "trialing"),
        ("unsigned", "unsinged"),
    )
}


def misspellings(words_of: Mapping[str, tuple[str, ...]], popularity: Mapping[str, int]) -> dict[str, str]:
    """Word -> the word that it is a slip of: two neighbouring letters swapped, or a doubled letter written once.

    Words of eight letters or more, for shorter ones are words as well ("farming", "framing"); the first and last letter
    are the same, pairs of real words and endings such as -pping are left out, and the slip is the rarer of the two."""
    count = Counter()
    for name, words in words_of.items():
        for word in words:
            if len(word) >= 8 and word.isascii() and word.isalpha():
                count[word] += popularity[name]
    buckets = defaultdict(list)
    for word in sorted(count):
        buckets[word[0], word[-1], "".join(sorted(word))].append(word)
        buckets[re.sub(r"(.)\1", r"\1", word)].append(word)
    right = {}
    for bucket in buckets.values():
        bucket = sorted(bucket, key=lambda word: (-count[word], word))[:50]
        for word, slip in combinations(bucket, 2):
            if slip not in right and word not in right and _is_slip(word, slip):
                right[slip] = word
    return right


def _is_slip(a: str, b: str) -> bool:
    if frozenset((a, b)) in _REAL_WORDS:
        return False
    if len(a) == len(b):
        at = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
        if len(at) != 2 or at[1] != at[0] + 1 or a[at[0]] != b[at[1]]:
            return False
        return not (at[0] == 1 and {a[1], a[2]} == {"e", "r"})  # perform, preform
    if abs(len(a) - len(b)) != 1:
        return False
    long, short = sorted((a, b), key=len, reverse=True)
    at = next((i for i, (x, y) in enumerate(zip(long, short, strict=False)) if x != y), len(short))
    if long[:at] + long[at + 1 :] != short or at == 0 or long[at] != long[at - 1]:
        return False
    return re.match(r"(?:ing|ed|ers?)$", long[at + 1 :]) is None
