"""Entries of the API page: every public name of a room with its signature and docstring, as MyST Markdown.

Docstrings here are Markdown in plain prose with names in backticks, so they are parsed as that. Names load lazily (a
module's `__getattr__`), so they are taken from the room's `__all__` and imported one by one."""

import importlib
import inspect
import re
from pathlib import Path

from pydantic import BaseModel

VALUES = {  # names that are no function or class, and what they are
    "__version__": "The version of the package.",
    "seeds.READERS": "The reader of each suffix, a function from a path to the file's rows; append to it for a format of "
    "your own ([how](extending.md#a-seed-reader)). Suffixes: {keys}.",
    "seeds.LAYOUTS": "The table of layouts, columns that mean something only together; append a `Layout` "
    "([how](extending.md#a-layout-of-columns)). The last one that fits the rows comes first. {n} entries.",
    "seeds.NAMES": "The names by which columns are known, in order of preference, for each field: {keys}.",
    "seeds.BENCHMARKS": "The benchmarks with a map from subjects to disciplines: {keys}.",
}


def entries(room: str) -> str:
    """The entries of a room, `qatoolkit` or one in it such as `qatoolkit.stages`, in the order of its `__all__`."""
    return "\n\n".join(entry(path, thing) for path, thing in public(room).items())


def public(room: str) -> dict[str, object]:
    """What a room holds, by name as a user writes it after `qt.`; rooms in it are left out."""
    module, _, name = room.partition(".")
    module = importlib.import_module(module)
    module = getattr(module, name) if name else module
    found = {f"{name}.{one}".strip("."): getattr(module, one) for one in module.__all__}
    return {path: thing for path, thing in found.items() if not inspect.ismodule(thing)}


def entry(path: str, thing) -> str:
    """One entry; `path` is the name as a user writes it after `qt.`."""
    if path in VALUES:
        keys = ", ".join(f"`{key}`" for key in thing) if isinstance(thing, dict | tuple) else ""
        n = len(thing) if hasattr(thing, "__len__") else 0
        return directive("data", f"qt.{path}", VALUES[path].format(keys=keys, n=n))
    if not inspect.isclass(thing):
        return directive("function", f"qt.{path}{signature(thing)}", prose(thing))
    parts = [prose(thing), *(fields(thing) if issubclass(thing, BaseModel) else methods(thing))]
    named = "(**fields)" if issubclass(thing, BaseModel) else signature(thing)
    return directive("class", f"qt.{path}{named}", "\n\n".join(parts))


def directive(kind: str, head: str, body: str) -> str:
    fence = "::::" if kind in ("method", "property") else ":::::"
    return f"{fence}{{py:{kind}}} {head}\n\n{body}\n{fence}"


def fields(settings: type[BaseModel]):
    """The fields of a settings class with their defaults and meanings, those of its bases too."""
    for name, field in settings.model_fields.items():
        default = "" if field.is_required() else f" = {shown(field.get_default(call_default_factory=True))}"
        yield f"- `{name}{default}`: {escaped(' '.join((field.description or '').split()))}"


def methods(kind: type):
    """The public methods and properties that a class itself defines and documents."""
    for name, member in vars(kind).items():
        if name.startswith("_") or not inspect.getdoc(member):
            continue
        if isinstance(member, property):
            yield directive("property", name, prose(member))
        elif callable(member) or isinstance(member, classmethod | staticmethod):
            yield directive("method", f"{name}{signature(getattr(kind, name), bound=True)}", prose(member))


def signature(thing, bound: bool = False) -> str:
    """The parameters and defaults of a function, without types, which the docstring has in words."""
    parameters = list(inspect.signature(thing).parameters.values())
    if bound and parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    plain = [
        p.replace(annotation=p.empty, default=_Shown(p.default) if p.default is not p.empty else p.empty)
        for p in parameters
    ]
    return str(inspect.Signature(plain))


class _Shown:
    """A default value that prints itself as Python that can be read."""

    def __init__(self, value):
        self.value = value

    def __repr__(self) -> str:
        return shown(self.value)


def shown(value) -> str:
    """A value in Python's notation; three dots for one that has none, and the name of a function or class."""
    if isinstance(value, BaseModel):
        return f"{type(value).__name__}()"
    if isinstance(value, Path):
        return repr(str(value))
    if callable(value):
        return getattr(value, "__name__", "...")
    text = repr(value)
    return "..." if "<" in text or len(text) > 60 else text


def prose(thing) -> str:
    """A docstring as Markdown, examples as blocks of code."""
    blocks = re.split(r"\n\n+", inspect.getdoc(thing) or "")
    return "\n\n".join(f"```pycon\n{b}\n```" if b.startswith(">>>") else escaped(b) for b in blocks)


def escaped(text: str) -> str:
    """Text in which only backticks, lists and indented blocks keep a meaning in Markdown."""
    lines = []
    for line in text.splitlines():
        parts = [line] if line.startswith("    ") else re.split(r"(`[^`]*`)", line)
        plain = re.compile(r"([\\*_<>\[\]{}$#|])")
        keep = line.startswith("    ")
        lines.append("".join(part if keep or part[:1] == "`" else plain.sub(r"\\\1", part) for part in parts))
    return "\n".join(re.sub(r"^(\d+)([.)])", r"\1\\\2", line) for line in lines)
