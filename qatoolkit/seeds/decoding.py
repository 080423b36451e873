"""Decoding of text files in the encodings that benchmarks use."""

import re
from collections import Counter

_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f"))
_INVALID, _NON_ASCII = re.compile("[\ud800-\udfff]"), re.compile("[^\x00-\x7f]")
_COMMON = {"gb18030": (*range(0xA1, 0xA4), *range(0xB0, 0xD8)), "big5": range(0xA1, 0xC7)}  # lead bytes
_SIGNS = set("“”‘’–—…°·•€£©®«»§±×÷¼½¾²³µ")


def decode(data: bytes) -> tuple[str, str]:
    """Text and encoding: by byte order mark, else UTF-8, else the likeliest of cp1252, Mac Roman, GB18030 and Big5.

    A few invalid bytes become unpaired surrogates, so that only their rows are rejected. charset-normalizer is right
    less often on these encodings (docs/LOG.md). Raises ValueError for binary data."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16"), "utf-16"
        except UnicodeDecodeError as error:
            raise ValueError(f"broken UTF-16 ({error.reason})") from None
    head = data[: 1 << 16]
    if len(head.translate(None, _CONTROL)) < 0.95 * len(head):
        raise ValueError("it is binary, neither text nor Parquet; save it as .jsonl, .csv or .parquet")
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    invalid = len(_INVALID.findall(text))
    if not invalid:
        return text, "utf-8"
    if len(_NON_ASCII.findall(text)) > 2 * invalid:
        return text, f"utf-8 with {invalid} wrong bytes"
    decoded = {name: data.decode(name, "surrogateescape") for name in ("cp1252", "mac_roman", "gb18030", "big5")}
    best = min(decoded, key=lambda encoding: _oddness(decoded[encoding], encoding))
    invalid = len(_INVALID.findall(decoded[best]))
    return decoded[best], f"{best} with {invalid} wrong bytes" if invalid else best


def _oddness(text, encoding):
    """The share of non-ASCII characters that are unlikely in text of this encoding."""
    counts = Counter((m[0], text[m.start() - 1 : m.start()]) for m in _NON_ASCII.finditer(text))
    return sum(n for pair, n in counts.items() if not _is_likely(*pair, encoding)) / counts.total()


def _is_likely(character, before, encoding):
    """Whether a character is likely: not a rare Han character nor, in a single-byte encoding, an unusual sign or a
    capital after a lower-case letter (the apostrophe of Mac Roman is a capital O in cp1252)."""
    if encoding not in _COMMON:
        return character in _SIGNS or character.islower() or (character.isupper() and not before.islower())
    code = character.encode(encoding, "surrogateescape")
    return len(code) == 2 and code[0] in _COMMON[encoding] and (encoding == "big5" or code[1] > 0xA0)
