"""Text of files in any encoding that benchmarks come in."""

import re
from collections import Counter

_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f"))
_WRONG, _BEYOND = re.compile("[\ud800-\udfff]"), re.compile("[^\x00-\x7f]")
_COMMON = {"gb18030": (*range(0xA1, 0xA4), *range(0xB0, 0xD8)), "big5": range(0xA1, 0xC7)}  # lead bytes
_SIGNS = set("“”‘’–—…°·•€£©®«»§±×÷¼½¾²³µ")


def decode(data: bytes) -> tuple[str, str]:
    """Text and encoding: by byte order mark, else UTF-8, else the likeliest of cp1252, Mac Roman, GB18030 and Big5.

    A few wrong bytes become unpaired surrogates, so that only their rows are rejected. On text in these encodings
    charset-normalizer guesses right less often (docs/LOG.md). Raises ValueError for binary data."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16"), "utf-16"
        except UnicodeDecodeError as error:
            raise ValueError(f"broken UTF-16 ({error.reason})") from None
    head = data[: 1 << 16]
    if len(head.translate(None, _CONTROL)) < 0.95 * len(head):
        raise ValueError("it is binary, neither text nor Parquet")
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    wrong = len(_WRONG.findall(text))
    if not wrong:
        return text, "utf-8"
    if len(_BEYOND.findall(text)) > 2 * wrong:
        return text, f"utf-8 with {wrong} wrong bytes"
    decoded = {name: data.decode(name, "surrogateescape") for name in ("cp1252", "mac_roman", "gb18030", "big5")}
    best = min(decoded, key=lambda encoding: _oddness(decoded[encoding], encoding))
    wrong = len(_WRONG.findall(decoded[best]))
    return decoded[best], f"{best} with {wrong} wrong bytes" if wrong else best


def _oddness(text, encoding):
    """The share of characters beyond ASCII that are unlikely in text of this encoding."""
    beyond = Counter((m[0], text[m.start() - 1 : m.start()]) for m in _BEYOND.finditer(text))
    return sum(n for pair, n in beyond.items() if not _is_likely(*pair, encoding)) / beyond.total()


def _is_likely(character, before, encoding):
    """Not likely: rare Han characters; in single-byte encodings signs, and capitals after small letters.

    The apostrophe of Mac Roman is a capital O in cp1252."""
    if encoding not in _COMMON:
        return character in _SIGNS or character.islower() or (character.isupper() and not before.islower())
    code = character.encode(encoding, "surrogateescape")
    return len(code) == 2 and code[0] in _COMMON[encoding] and (encoding == "big5" or code[1] > 0xA0)
