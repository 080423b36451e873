"""Checks of user input: the size of YAML files, and names that become file names."""

import unicodedata
from pathlib import Path

MOST_BYTES = 1 << 20  # of a YAML file
MOST_NODES, DEEPEST, LONGEST = 20_000, 50, 10_000  # values, aliases expanded; nesting; characters without quotes
LONGEST_NAME = 120  # bytes: leaves room in a file name for a prefix and a suffix


def read_yaml(path: Path, expected: str) -> str:
    """The text of a YAML file, checked before it is loaded. ValueError, one line, if it is not a regular file or
    exceeds the bounds on size, depth or expanded aliases; text that is not UTF-8 or not YAML raises its own error."""
    import yaml

    if not path.is_file():
        found = "is not a regular file" if path.exists() else "does not exist"
        raise ValueError(f"{path} {found}; give a YAML file with {expected}")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path} has {size:,} bytes; a YAML file may have at most {MOST_BYTES:,}")
    text = path.read_text(encoding="utf-8")
    if problem := _problem(yaml.parse(text, yaml.SafeLoader)):
        raise ValueError(f"{path}, line {problem[0] + 1}: {problem[1]}")
    return text


def _problem(events) -> tuple[int, str] | None:
    """The line (from 0) and the fault where parse events first exceed a bound; None if they do not."""
    import yaml

    sizes, open_ = {}, [[None, 0]]  # anchor -> number of values; [anchor, number of values] of each open collection
    for event in events:
        line = event.start_mark.line if event.start_mark else 0
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append([event.anchor, 1])
            if len(open_) > DEEPEST:
                return line, f"nested more than {DEEPEST} levels deep"
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_.pop()
        elif isinstance(event, yaml.AliasEvent):
            anchor, size = None, sizes.get(event.anchor, 1)
            if event.anchor in (name for name, _ in open_):
                return line, f"*{event.anchor} refers to a value that contains it"
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
            if event.style is None and len(event.value) > LONGEST:
                return line, f"an unquoted text of {len(event.value):,} characters; put it in quotes"
        else:
            continue
        if anchor:
            sizes[anchor] = size
        open_[-1][1] += size
        if open_[-1][1] > MOST_NODES:
            return line, f"more than {MOST_NODES:,} values with *aliases expanded; write less"
    return None


def check_name(name: str, what: str, becomes: str = "a file name") -> None:
    """ValueError, one line, for a name that could leave its folder or is not a valid file name on every system: one
    with a slash or control character, a leading dot or dash, a leading or trailing blank, or more than `LONGEST_NAME`
    bytes."""
    problem = None
    if not isinstance(name, str) or not name.strip():
        problem = "is empty"
    elif len(name.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
        problem = f"is longer than {LONGEST_NAME} bytes"
    elif any(c in "/\\" or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in name):
        problem = "has a slash or a control character"
    elif name[0] in ".-" or name != name.strip():
        problem = "begins with a dot or dash, or begins or ends with a blank"
    if problem:
        shown = repr(name) if len(repr(name)) <= 60 else f"{name[:50]!r}..."
        raise ValueError(f"{what} {shown}: its name becomes {becomes}, but it {problem}; give another name")
