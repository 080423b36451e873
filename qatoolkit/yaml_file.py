"""Settings from YAML: one reading of a file, one check of a value against a field's type."""

import contextlib
import types
import typing
from pathlib import Path


def read_mapping(path: Path, expected: str) -> dict:
    """The names and values of a YAML file; ValueError where it is missing, not YAML (with the line), no mapping, or gives a name
    twice, of which YAML would drop the first; `expected` says what it should hold."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            seen = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key.value!r} is given twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    if not path.is_file():
        raise ValueError(f"{path} does not exist; give a YAML file with {expected}")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path}{where}: not valid YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected {expected}, found {type(content).__name__}")
    return content


def typed(name: str, value, hint):
    """`value` as the type of a dataclass field: lists become tuples, whole numbers floats where floats are wanted, and texts
    like 3e-4, which YAML 1.1 takes for no number, numbers (whole ones too: 40e9 tokens). ValueError says what is allowed."""
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name} is {value!r}; it must be a list")
        return tuple(typed(name, v, typing.get_args(hint)[0]) for v in value)
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    found = value
    if isinstance(value, str) and str not in options and {int, float} & set(options):
        with contextlib.suppress(ValueError):
            found = float(value) if "e" in value.lower() else value
            found = int(found) if float not in options and found == int(found) else found
    if float in options and isinstance(found, int) and not isinstance(found, bool):
        found = float(found)
    if not any(isinstance(found, o) and (o is bool or not isinstance(found, bool)) for o in options):
        allowed = " or ".join("null" if o is type(None) else o.__name__ for o in options)
        raise ValueError(f"{name} is {value!r}; it must be {allowed}")
    return found
