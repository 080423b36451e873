"""Bounds on what users name: YAML that would grow without end, files that are none, names that become file names."""

import unicodedata
from pathlib import Path

MOST_BYTES = 1 << 20  # of a YAML file
MOST_NODES, DEEPEST, LONGEST = 20_000, 50, 10_000  # values of it with aliases written out; levels; characters of a word
LONGEST_NAME = 120  # bytes, so that what is put before and after it fits into a file name


def read_yaml(path: Path, expected: str) -> str:
    """The text of a YAML file, checked before it is built. ValueError, one line, where it is no regular file, not UTF-8,
    not YAML, or larger, deeper or with aliases more often repeated than any profile or job is."""
    import yaml

    if not path.is_file():
        found = "is no regular file" if path.exists() else "does not exist"
        raise ValueError(f"{path} {found}; give a YAML file with {expected}")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path} has {size:,} bytes; a YAML file may have {MOST_BYTES:,}")
    text = path.read_text(encoding="utf-8")
    if problem := _problem(yaml.parse(text, yaml.SafeLoader)):
        raise ValueError(f"{path}, line {problem[0] + 1}: {problem[1]}")
    return text


def _problem(events) -> tuple[int, str] | None:
    """The line, from 0, and the fault of the first bound that parse events go beyond."""
    import yaml

    sizes, open_ = {}, [[None, 0]]  # values by anchor; of the collections that are open, with their anchors
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
                return line, f"*{event.anchor} stands within what it names"
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
            if event.style is None and len(event.value) > LONGEST:
                return line, f"a word of {len(event.value):,} characters; put a text in quotes"
        else:
            continue
        if anchor:
            sizes[anchor] = size
        open_[-1][1] += size
        if open_[-1][1] > MOST_NODES:
            return line, f"more than {MOST_NODES:,} values, with *aliases written out; write less"
    return None


def check_name(name: str, what: str, becomes: str = "a file name") -> None:
    """ValueError, one line, for a name that could leave its folder, or is no name for a file everywhere: with a slash,
    a control character, a first dot or dash, blanks at an end, or more than `LONGEST_NAME` bytes."""
    problem = None
    if not isinstance(name, str) or not name.strip():
        problem = "is empty"
    elif len(name.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
        problem = f"is longer than {LONGEST_NAME} bytes"
    elif any(c in "/\\" or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in name):
        problem = "has a slash or a control character"
    elif name[0] in ".-" or name != name.strip():
        problem = "begins with a dot or dash, or has a blank at an end"
    if problem:
        shown = repr(name) if len(repr(name)) <= 60 else f"{name[:50]!r}..."
        raise ValueError(f"{what} {shown}: its name becomes {becomes}, and it {problem}; give another")
