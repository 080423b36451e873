"""Reads JSON as models write it: inside text and fences, with Python quotes, trailing commas, and LaTeX with single
backslashes.

Only spelling is repaired, never structure: numbers stay as written, and a repeated key or what may mean two things is
an error. A truncated object is one too, so that the teacher is asked again and a list is never shorter than the model
meant. (Libraries that repair JSON close open brackets, and read "\\frac" as a form feed and "rac", as the JSON grammar
says but no model means.)
"""

import json
import re
from bisect import bisect_right
from typing import Any

DEPTH = 64  # none of our prompts needs deeper nesting

_QUOTE = "[\"'“”]"
_SPACE = "[\\s\u200b\u2060\ufeff]"
_KEY = rf"(?:{_SPACE}|(?://|#)[^\n]*\n)*+(?:{_QUOTE}[^\"'“”{{}}\n]*+{_QUOTE}|‘[^‘’{{}}\n]*+’){_SPACE}*[:：]"
_VALUE = rf"{_SPACE}*+[:：]{_SPACE}*+(?:\Z|(?!{_QUOTE}?(?:\.\.\.|…|<))[\[{{\d\-\"'“‘])"  # not that of a mere form
_START = re.compile(rf"[{{｛](?={_SPACE}*[}}｝]|{_KEY})|\[(?={_SPACE}*(?:{_QUOTE}|‘|\{{{_KEY}))")
_SEVERAL = "several JSON objects have {!r}, and differ; answer with exactly one, the one that counts"
_THOUGHT = re.compile(r"</(?:think|thinking|thought|thoughts|reasoning|scratchpad)>|◁/think▷|\[/THINK\]", re.IGNORECASE)
_DRAFT = re.compile(r"\A\s*<(analysis|reflection)>.*?</\1>", re.IGNORECASE | re.DOTALL)
_TOKEN = re.compile(
    rf"{_SPACE}++|(?://|#)[^\n]*+|/\*.*?\*/|(?P<bracket>[{{}}\[\]｛｝])|(?P<mark>[,，:：])"
    r'|"(?P<double>[^"\\]*+(?:\\.[^"\\]*+)*+)"|\'(?P<single>[^\'\\]*+(?:\\.[^\'\\]*+)*+)\''
    r'|[“”](?P<curly>[^"“”\\]*+(?:\\.[^"“”\\]*+)*+)["“”]|‘(?P<bent>[^"‘’\\]*+)’(?=\s*[,，:：\]}])|(?P<bare>[\w.+-]++)',
    re.DOTALL,
)
_BARE = {"True": "true", "False": "false", "None": "null"}
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")  # other languages too: +5, .5, 5., 007
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
# 1,000 in a list, or 1,250 where other commas have a space behind them.
_COMMAS = re.compile(r"-?\d{1,3}(?:,0\d\d(?!\d)|,\d{3}, )|(?<=, )-?\d{1,3},\d{3}(?!\d)")
_MARK = {"，": ",", "：": ":", "｛": "{", "｝": "}"}

_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|xa[0d]|\\{3}|.)", re.DOTALL)  # \xa0 and \xad are Python's
_CONTROL = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ENVIRONMENT = re.compile(r"(?<!\\)\\(?:begin|end)\{")  # with one backslash
_WITH_ARGUMENT = re.compile(r"[A-Za-z]{2,}\{")
_LETTERS = re.compile("[A-Za-z]{3}")
_NAME = re.compile("[A-Za-z]+")
_CERTAIN = re.compile(r"\\[bf](?:[A-Za-z]|\{)")  # texts never have a backspace or form feed before a letter
# Start and end of formulae, with or without escaped backslashes.
_EDGE = re.compile(
    r"(?P<dollar>(?<!\\)\$\$?)|\\{1,2}(?:(?P<open>[(\[]|begin\{)|(?P<close>[)\]]|end\{))|(?P<brace>(?<!\\)[{}])"
)
_PROSE = re.compile(r"(?<![\\A-Za-z])(?:[A-Za-z]{2,} [a-z]{3,}|[A-Za-z]{3,} [a-z]{2,})")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_SHORT = {"ne", "ni", "nu", "to", "tr", "rm", "tt"}  # two-letter commands that look like an escape and a letter
# Known commands decide only if the context does not: without their first letter no word is left ("\times" is not a tab
# and "imes").
_KNOWN = re.compile(
    r"""\\(?:
    r(?:aise|angle|brace|brack|ceil|floor|ho|ight|ightarrow|ightharpoonup|ightleftharpoons|m|oot|vert|Vert|times)
    |t(?:anh|hetasym|hick(?:sim|approx)|iny|tfamily|wohead[a-z]+|binom|ext|ext[b-df-hj-np-qs-tv-z][a-z]*|extit|extrm|extup|ext(?:ascii|under)[a-z]+|ext(?:ellipsis|e[mn]dash)|frac|herefore|heta|hinspace|ilde|imes|riangle|riangleq)
    |n(?:abla|atural|cong|earrow|eq|ewcommand|ewline|geq|gtr|leftarrow|leq|oindent|olimits|onumber|ot|otag|otin|rightarrow|sim|subseteq|supseteq|warrow)
    )(?![A-Za-z])""",
    re.VERBOSE,
)
# Without their first letter these leave a word or a symbol: commands if nothing is escaped; those with \n only next to
# other bare commands or alone between the symbols of a formula ("E = h\nu", "x \ne 0").
_PERHAPS = re.compile(r"\\(?:t(?:o|op|an|au)|n(?:u|e|i(?![).])|eg|less|mid|exists|parallel))(?![A-Za-z])")
# What stands before or after a command in a formula, and hardly around a line feed or tab.
_OPERATOR = re.compile(r"(?:[~=+^]|(?<![A-Za-z])\() ?\Z")
_SYMBOL = re.compile(r"(?:(?:\A|[^A-Za-z])[A-Za-z\d]|[A-Za-z]\([^()]*\)) ?\Z|(?<![A-Za-z])[A-Z]{2} \Z")
_GOES_ON = re.compile(r"\\nu[\s.,;)]*\Z|\\n(?:e|mid|parallel) ?-?(?:\d+|[A-Za-z]|[A-Z]{2})(?![A-Za-z])")
_WITH_INDEX = re.compile(r"\\n(?:u|i)[_^](?![^.]{0,40}=)")
_LINE = re.compile(r"(?:\$|\\\\|\\n) *\Z")  # after these a formula has a line feed
_FIRST = re.compile(r"\\(?:n[uie]|t[rt]|n[a-z]{2,}+) *(?:\Z|[\d_^{(=]|[A-Za-z](?![A-Za-z]))")
_LEFT = re.compile(r"(?:(?:\A|[^A-Za-z])[A-Za-z\d)}]|\\\\[A-Za-z]+) \Z")
_RIGHT = re.compile(r"\\[nrt][A-Za-z]+ (?:\\\\|(?:-?\d|[A-Za-z\\(])(?![A-Za-z]))")


def read_json(content: str, key: str | None = None, *, bare_list: bool = False) -> dict[str, Any]:
    """The first JSON object in a model's text that has `key`, else the first non-empty one, else the first.

    With `bare_list`, a list instead of an object becomes the value of `key`. ValueError, worded for the model, if there
    is no object, one is cut off, none can be read, or several have `key` with different values or the last is broken: a
    draft and its correction, or questions in two parts."""
    content = _DRAFT.sub("", content)
    answer = _THOUGHT.split(content)[-1]
    content = answer if "{" in answer or "｛" in answer else content
    if '{\\"' in content and not _START.search(content):  # written as if inside a string
        content = re.sub(r'\\(["\\])', r"\1", content)
    objects, with_key, bare, problem, position = [], [], None, "", 0
    again = re.compile(rf"{_QUOTE}{re.escape(str(key))}{_QUOTE}{_VALUE}")
    while start := _START.search(content, position):
        if start[0] == "[" and not bare_list:
            position = start.end()
            continue
        try:
            text, position = _to_strict(content, start.start())
        except ValueError:
            if not with_key or again.search(content, start.start()):
                raise
            break  # it is text after an object with the key
        try:
            value = json.loads(
                text, parse_constant=str, parse_int=_read_number, parse_float=_read_number, object_pairs_hook=_unique
            )
        except RepeatedKey:
            raise
        except ValueError as error:  # a set, or a mere description of the format
            problem = problem or str(error)
            if with_key and again.search(text):
                raise ValueError(_SEVERAL.format(key)) from error
            continue
        if isinstance(value, list):
            if bare and value not in ([], bare):
                raise ValueError("several JSON lists that differ; answer with exactly one, the one that counts")
            bare = bare or value
        else:
            objects.append(value)
            if key in value:
                with_key.append(value)
    cut = with_key and re.search(rf"\{{{_SPACE}*+{_QUOTE}(\w*)\Z", content)  # in its first key
    if (cut and key.startswith(cut[1])) or any(value[key] != with_key[0][key] for value in with_key):
        raise ValueError(_SEVERAL.format(key))
    if with_key:
        return with_key[0]
    if bare:
        return {key: bare}
    if not objects and problem:
        raise ValueError(f"the JSON object cannot be read ({problem}); answer with one valid JSON object")
    if not objects:
        raise ValueError("the answer holds no JSON object; answer with exactly one JSON object and nothing else")
    return next(filter(None, objects), objects[0])


def as_text(value: Any) -> str:
    """A JSON value as text: numbers, booleans and flat lists written out, null as ""; ValueError for nested values."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list) and not any(isinstance(part, list | dict) for part in value):
        return ", ".join(filter(None, map(as_text, value)))
    if isinstance(value, list | dict):
        raise ValueError(f"{json.dumps(value, ensure_ascii=False)[:100]} is no text; write it as one text")
    return json.dumps(value)


def _to_strict(content: str, start: int) -> tuple[str, int]:
    """The object or list that begins at `start`, as strict JSON, and its end; ValueError if it is not complete."""
    written, open_brackets, position = [], [], start
    while True:
        token = _TOKEN.match(content, position)
        if not token:
            rest = content[position : position + 20]
            if rest[:1] in "\"'“”":  # true for an empty rest too
                raise ValueError("the JSON object is cut off; answer with one complete JSON object, shorter if need be")
            raise ValueError(f"the JSON object cannot be read from {rest!r} on; answer with valid JSON")
        position, kind = token.end(), token.lastgroup
        if kind is None:
            continue
        text = _MARK.get(token[kind], token[kind]) if kind in ("bracket", "mark") else token[kind]
        if kind == "bracket" and text in "{[":
            open_brackets.append("}" if text == "{" else "]")
            if len(open_brackets) > DEPTH:
                raise ValueError(f"the JSON object is nested deeper than {DEPTH}; answer with a flat one")
        elif kind == "bracket":
            if open_brackets.pop() != text:
                raise ValueError(f"the JSON object has a {text!r} that closes nothing; balance its brackets")
            if written[-1] == ",":
                written.pop()
        elif kind == "bare":
            text = (written.pop() if written[-1] == "-" else "") + _BARE.get(text, text)
            if open_brackets[-1] == "]" and _COMMAS.match(content, token.start()):
                raise ValueError("commas in numbers look like those between them; write numbers without, as in 1000")
            if _NUMBER.fullmatch(text) and not _JSON_NUMBER.fullmatch(text):
                text = json.dumps(text)
        elif kind != "mark":
            text = json.dumps(_unescape(text))
        written.append(text)
        if not open_brackets:
            return " ".join(written), position


def _unescape(body: str) -> str:
    """The unescaped text of a JSON string, keeping LaTeX commands and replacing lone surrogates; ValueError if a command
    may be the end of a matrix row."""
    if "\\" in body:
        escapes = list(_ESCAPE.finditer(body))
        formulae, words = _find_formulae(body), bool(_WORD.search(body))
        # Does the model escape backslashes? Then they are doubled before a letter, a bracket or another backslash. In a
        # text with bare commands, a single letter may also follow the end of a matrix row, and in a bare environment
        # all but a command may.
        bare = any((len(e[1]) == 1 and e[1] not in "\"'\\/bfnrtu") or _CERTAIN.match(body, e.start()) for e in escapes)
        escaped = any(e[1] == "\\\\\\" for e in escapes)
        edges = [edge.start() for edge in _ENVIRONMENT.finditer(body)]
        rows = range(edges[0], edges[-1]) if edges and not escaped else range(0)
        doubled = [e for e in escapes if e[1] == "\\"]
        rows = {e.start() for e in doubled if e.start() in rows and not _WITH_ARGUMENT.match(body, e.end())}
        if any(_LETTERS.match(body, at + 2) for at in rows):
            raise ValueError("some LaTeX commands have two backslashes and some one; write two, and four to end a row")
        sign = re.compile(r"[A-Za-z]{2}|[(\[{]" if bare else r"[A-Za-z(\[{]")
        escaped = escaped or any(sign.match(body, e.end()) for e in doubled if e.start() not in rows)
        bare = not escaped and (bare or any(_KNOWN.match(body, e.start()) for e in escapes))

        def replace(escape: re.Match) -> str:
            code = escape[1]
            if code == "\\" * 3:
                return "\\\\"
            if len(code) > 1:
                return chr(int(code[1:], 16))
            if code == "\\":  # in a text without escapes, two end a matrix row
                return "\\\\" if bare or escape.start() in rows else "\\"
            if code in _CONTROL and not _is_command(body, escape.start(), formulae, words, escaped, bare):
                return _CONTROL[code]
            return code if code in "\"'/" else escape[0]

        body = _ESCAPE.sub(replace, body)
    return body.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_command(body: str, at: int, formulae: list, words: bool, escaped: bool, bare: bool) -> bool:
    r"""Whether \b, \f, \n, \r or \t at this position begins a LaTeX command: by its context, else by its name."""
    name = _NAME.match(body, at + 1)[0]
    after = body[at + 1 + len(name) : at + 2 + len(name)]
    if name[0] in "bf":
        return len(name) > 1 or after == "{"
    if len(name) == 1:
        return False
    known, perhaps, short = bool(_KNOWN.match(body, at)), bool(_PERHAPS.match(body, at)), name in _SHORT
    before = body[max(0, at - 12) : at]
    # Between two symbols, in a text of symbols alone: "p \nrightarrow q".
    between = not words and (len(name) > 2 or short) and bool(_LEFT.search(before) and _RIGHT.match(body, at))
    index = bisect_right(formulae, (at, len(body), True, True)) - 1
    _, end, lines, mixed = formulae[index] if index >= 0 else (0, 0, False, False)
    if escaped and at < end and mixed and not lines and not _LINE.search(before):
        return known or perhaps or short or (len(name) > 2 and before[-1:] == " ")
    if escaped:
        return between if perhaps else known
    if known or (name[0] == "t" and perhaps):
        return True
    if after == "{" and len(name) > 2 and (at == 0 or body[at - 1] not in "};{"):  # it has an argument, and is not code
        return True
    if at < end:  # in a multi-line formula only known short ones are certain
        return short if len(name) == 2 or lines else True
    if perhaps and (bare or _OPERATOR.search(before) or (_SYMBOL.search(before) and _GOES_ON.match(body, at))):
        return True
    if between or (at == 0 and (perhaps or short) and _FIRST.match(body)):
        return True
    if re.search("[a-z] $", before) and _WITH_INDEX.match(body, at):
        return True
    return name[0] == "r" and len(name) > 2 and name[1:].islower() and (at == 0 or body[at - 1] in " $({=+-")


def _find_formulae(body: str) -> list[tuple[int, int, bool, bool]]:
    r"""Start and end of every formula ($…$, $$…$$, \(…\), \[…\], \begin…\end, the braces of a command), and whether it
    contains line feeds or tabs, and for dollars, doubled backslashes. Two prices ("$5 and $3") are not a formula."""
    found, opened, kind, depth = [], None, "", 0
    for edge in _EDGE.finditer(body):
        if kind == "" and edge["brace"] == "{" and re.match(r"[A-Za-z}\]^_]", body[max(0, edge.start() - 1) :][:1]):
            opened, kind, depth = edge.end(), "{", 1
        elif kind == "{" and edge["brace"]:
            depth += 1 if edge["brace"] == "{" else -1
        elif kind == "" and (edge["dollar"] or edge["open"]):
            opened, kind = edge.end(), edge["dollar"] or "\\"
            continue
        elif kind and kind == edge["dollar"]:
            if not _is_formula(body[opened : edge.start()], body[edge.end() : edge.end() + 1]):
                opened = edge.end()
                continue
        elif not (kind == "\\" and edge["close"]):
            continue
        if kind == "{" and depth:
            continue
        inside = body[opened : edge.start()]
        lines = bool(re.search(r"[\n\t]|(?<!\\)\\[nt](?![A-Za-z])", inside))
        found.append((opened, edge.start(), lines, kind[0] == "$" and "\\\\" in inside))
        opened, kind = None, ""
    return found


def _is_formula(inside: str, after: str) -> bool:
    """Whether the text between two dollar signs is a formula: padded on both sides or neither, and not prose."""
    if not inside or inside[0].isspace() != inside[-1].isspace() or after.isdigit():
        return False
    bare = re.sub(r"\\[nrt]", " ", re.sub(r"\{[^{}]*\}", "{}", inside))
    return not _PROSE.search(bare)


def _read_number(text: str) -> int | float | str:
    """A number, or its text if Python would write it differently: 2.50, 1e400, -0."""
    try:
        number = int(text) if text.lstrip("-").isdigit() else float(text)
        return number if repr(number) == text else text
    except ValueError:  # more digits than Python converts
        return text


class RepeatedKey(ValueError):
    """An object has the same key twice, with different values."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object as a dict; RepeatedKey if a key has two different values."""
    value = dict(pairs)
    for name, one in pairs:
        if value[name] != one or type(value[name]) is not type(one):
            raise RepeatedKey(
                f"a JSON object has the key {name[:60]!r} twice, with different values; "
                f"give each its own object, every key once"
            )
    return value
