"""JSON as models write it: with text and fences around it, Python quotes, trailing commas, LaTeX with single
backslashes.

Only spelling is repaired, never structure. An object that was cut off stays an error, so that the teacher is asked
again and a list is never shorter than the model meant. (Libraries that repair JSON close what is open, and read
"\\frac" as a form feed and "rac", which is what the JSON grammar says and no model means.)
"""

import json
import re
from typing import Any

DEPTH = 64  # no prompt of ours needs deeper nesting

_QUOTE = "[\"'“”]"
_KEY = rf"(?:\s|//[^\n]*\n)*+{_QUOTE}[^\"'“”{{}}\n]*+{_QUOTE}\s*[:：]"
_START = re.compile(rf"\{{(?=\s*\}}|{_KEY})|\[(?=\s*(?:{_QUOTE}|\{{{_KEY}))")
_TOKEN = re.compile(
    r"\s++|//[^\n]*+|/\*.*?\*/|(?P<bracket>[{}\[\]])|(?P<mark>[,，:：])"
    r'|"(?P<double>[^"\\]*+(?:\\.[^"\\]*+)*+)"|\'(?P<single>[^\'\\]*+(?:\\.[^\'\\]*+)*+)\''
    r'|[“”](?P<curly>[^"“”\\]*+(?:\\.[^"“”\\]*+)*+)["“”]|(?P<bare>[\w.+-]++)',
    re.DOTALL,
)
_BARE = {"True": "true", "False": "false", "None": "null"}
_MARK = {"，": ",", "：": ":"}

_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_CONTROL = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
# Commands whose first letter a JSON escape would swallow. No text has a backspace or a form feed before a letter; what
# else stands here leaves no word behind ("\times" a tab and "imes").
_COMMAND = re.compile(
    r"""\\(?:[bf][A-Za-z]|(?:
    r(?:aise|angle|brace|brack|ceil|floor|ho|ight|ightarrow|ightharpoonup|ightleftharpoons|m|oot)
    |t(?:anh|binom|ext|extbf|extit|extrm|extsf|extstyle|exttt|frac|herefore|heta|hinspace|ilde|imes|riangle|riangleq)
    |n(?:abla|cong|earrow|eq|exists|geq|leftarrow|leq|mid|ot|otin|parallel|rightarrow|sim|subseteq|supseteq|warrow)
    )(?![A-Za-z]))""",
    re.VERBOSE,
)
# A tab or a line feed before a short word is a command only where nothing is escaped, and \n only inside $...$, next to
# other bare commands, or alone between the symbols of a formula ("E = h\nu", "x \ne 0").
_PERHAPS = re.compile(r"\\(?:t(?:o|op|an|au)|n(?:u|e|i|eg|less))(?![A-Za-z])")
_SYMBOL = re.compile(r"(?:\A|[^A-Za-z])[A-Za-z] ?\Z")
_GOES_ON = re.compile(r"\\nu[\s.,;)]*\Z|\\ne ?-?(?:\d+|[A-Za-z])(?![A-Za-z])")


def read_json(content: str, key: str | None = None, *, bare_list: bool = False) -> dict[str, Any]:
    """The first JSON object in a model's text that has `key`, else the first that is not empty, else the first.

    With `bare_list`, a list in place of the object is taken as the value of `key`. ValueError, worded for the model, if
    there is no object, if one is cut off, if none can be read, or if several have `key` with different values: a draft
    and its correction, or questions in two parts."""
    _, closed, answer = content.rpartition("</think>")
    if closed and "{" in answer:
        content = answer
    objects, asked, bare, problem, at = [], [], None, "", 0
    while start := _START.search(content, at):
        if start[0] == "[" and not bare_list:
            at = start.end()
            continue
        try:
            text, at = _strict(content, start.start())
        except ValueError:
            if asked:  # text after the object that was asked for
                break
            raise
        try:
            value = json.loads(text, parse_constant=str)
        except ValueError as error:  # a set, or a format that was only described
            problem = problem or str(error)
            continue
        if isinstance(value, list):
            bare = bare or value
        else:
            objects.append(value)
            if key in value:
                asked.append(value)
    if any(value[key] != asked[0][key] for value in asked):
        raise ValueError(f"several JSON objects have {key!r}, and differ; answer with exactly one, the one that counts")
    if asked:
        return asked[0]
    if bare:
        return {key: bare}
    if not objects and problem:
        raise ValueError(f"the JSON object cannot be read ({problem}); answer with one valid JSON object")
    if not objects:
        raise ValueError("the answer holds no JSON object; answer with exactly one JSON object and nothing else")
    return next(filter(None, objects), objects[0])


def as_text(value: Any) -> str:
    """A JSON value as text: numbers, booleans and lists of them written out, null as the empty text; ValueError for
    nested values."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list) and not any(isinstance(part, list | dict) for part in value):
        return ", ".join(filter(None, map(as_text, value)))
    if isinstance(value, list | dict):
        raise ValueError(f"{json.dumps(value, ensure_ascii=False)[:100]} is no text; write it as one text")
    return json.dumps(value)


def _strict(content: str, start: int) -> tuple[str, int]:
    """The object or list that begins at `start`, as strict JSON, and its end; ValueError if it does not end."""
    written, open_brackets, at = [], [], start
    while True:
        token = _TOKEN.match(content, at)
        if not token:
            rest = content[at : at + 20]
            if rest[:1] in "\"'“”":  # the empty rest too
                raise ValueError("the JSON object is cut off; answer with one complete JSON object, shorter if need be")
            raise ValueError(f"the JSON object cannot be read from {rest!r} on; answer with valid JSON")
        at, kind = token.end(), token.lastgroup
        if kind is None:
            continue
        text = token[kind]
        if kind == "bracket" and text in "{[":
            open_brackets.append("}" if text == "{" else "]")
            if len(open_brackets) > DEPTH:
                raise ValueError(f"the JSON object is nested deeper than {DEPTH}; answer with a flat one")
        elif kind == "bracket":
            if open_brackets.pop() != text:
                raise ValueError(f"the JSON object has a {text!r} that closes nothing; balance its brackets")
            if written[-1] == ",":
                written.pop()
        elif kind == "mark":
            text = _MARK.get(text, text)
        elif kind == "bare":
            text = _BARE.get(text, text)
        else:
            text = json.dumps(_unescaped(text))
        written.append(text)
        if not open_brackets:
            return "".join(written), at


def _unescaped(body: str) -> str:
    """The text of a JSON string, with LaTeX commands kept and lone surrogates replaced."""
    if "\\" in body:
        found = list(_ESCAPE.finditer(body))
        # Does the model escape backslashes? Then one before a letter, a bracket or another backslash is doubled.
        escaped = any(e[1] == "\\" and re.match(r"[A-Za-z(\[{]|\\\\", body[e.end() : e.end() + 2]) for e in found)
        bare = not escaped and any(e[1][0] not in "\"'\\/bfnrtu" or _COMMAND.match(body, e.start()) for e in found)

        def meant(escape: re.Match) -> str:
            said = escape[1]
            if len(said) == 5:
                return chr(int(said[1:], 16))
            if said == "\\":  # two in a text without escapes end the row of a matrix
                return "\\\\" if bare else "\\"
            if said in _CONTROL and not _is_command(body, escape.start(), escaped, bare):
                return _CONTROL[said]
            return said if said in "\"'/" else escape[0]

        body = _ESCAPE.sub(meant, body)
    return body.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_command(body: str, at: int, escaped: bool, bare: bool) -> bool:
    if escaped or not _PERHAPS.match(body, at):
        return bool(_COMMAND.match(body, at))
    if body[at + 1] == "t" or bare or (body.count("$", 0, at) % 2 and body.find("$", at) > 0):
        return True
    return bool(_SYMBOL.search(body[max(0, at - 3) : at]) and _GOES_ON.match(body, at))
