"""Settings: frozen pydantic models with one-line errors (field, value, what is allowed), read from YAML files."""

import difflib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from qatoolkit.core.bounds import read_yaml

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
SomeShare = Annotated[float, Field(gt=0, le=1)]


class Place:
    """Marks a setting that names a file or folder, relative to the YAML file it is in. Its content counts as an input.

    With `or_name`, a value that does not exist as a path is kept as it is: the name of a model on a hub, or of a task.
    Values in `words`, and those that begin with `hf:` or `package:`, are always kept as they are."""

    def __init__(self, or_name: bool = False, words: tuple[str, ...] = ()):
        self.or_name, self.words = or_name, words


class _OneLine(type(BaseModel)):
    def __call__(cls, **values):
        try:
            return super().__call__(**values)
        except ValidationError as error:
            prefix = f"{cls.kind} {values.get('name')!r}: " if cls.kind else ""
            raise ValueError(f"{prefix}{one_line(error, cls)}") from None


class Settings(BaseModel, metaclass=_OneLine):
    """Base of all settings: frozen, unknown names are errors, and the docstring under a field is its description.

    Lists become tuples, whole numbers floats, and texts such as 3e-4 (a string in YAML 1.1) numbers. Raises a one-line
    ValueError for values that are not allowed."""

    kind: ClassVar[str] = ""  # what errors call settings that have a name
    shorthand: ClassVar[str] = ""  # the field that a plain text sets, for entries of lists and mappings

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, value):
        return {cls.shorthand: value} if cls.shorthand and isinstance(value, str) else value

    @field_validator("*", mode="before")
    @classmethod
    def _convert(cls, value, info):
        return _coerce(value, cls.model_fields[info.field_name].annotation)


def _coerce(value, hint):
    """`value`, as YAML or a user writes it, converted to the field's type if nothing is lost."""
    if len(options := _options(hint)) > 1 and isinstance(value, list | tuple | dict):
        kind = dict if isinstance(value, dict) else tuple
        hint = next((option for option in options if typing.get_origin(option) is kind), hint)
    if typing.get_origin(hint) is tuple and isinstance(value, list | tuple):
        element = typing.get_args(hint)[0]
        return tuple(_coerce(v, element) for v in value)
    if typing.get_origin(hint) is dict and isinstance(value, dict):
        element = typing.get_args(hint)[1]
        return {name: _coerce(v, element) for name, v in value.items()}
    numbers = {float, int} & {_bare(option) for option in _options(hint)}
    if isinstance(value, str) and numbers and str not in _options(hint) and "e" in value.lower():
        try:
            number = float(value)
        except ValueError:
            return value
        return int(number) if float not in numbers and number == int(number) else number
    return value


def _bare(hint):
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def _options(hint) -> tuple:
    """The types that a hint allows."""
    hint = _bare(hint)
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return typing.get_args(hint) if union else (hint,)


def replace(settings: Settings, **changes) -> Settings:
    """A copy with some fields changed, validated again."""
    return type(settings)(**dict(settings) | changes)


def turn_dials(settings: Settings, dials: dict) -> Settings:
    """A copy with dials (nested fields) changed: `{"boostqa.refine": False}` or `{"boostqa": {"refine": False}}`, to
    any depth.

    Raises ValueError with the dotted name for an unknown dial, a wrong type or a value that is not allowed."""
    values = dict(settings)
    for dial, value in dials.items():
        name, _, rest = str(dial).partition(".")
        _set_dial(values, type(settings), name, {rest: value} if rest else value)
    return type(settings)(**values)


def _set_dial(values: dict, model: type[Settings], name: str, value) -> None:
    field = model.model_fields.get(name)
    if field is not None and typing.get_origin(field.annotation) is dict and isinstance(value, dict):
        merged = dict(values[name])  # named entries are added; null removes one
        kind = typing.get_args(field.annotation)[1]
        for key, entry in value.items():
            head, _, rest = str(key).partition(".")
            dotted = rest and key not in merged and head in merged  # a field of an entry: strategies.mine.each
            if _is_group(kind):  # a name may contain a dot: gpt-4.1 beside gpt-4 is an entry
                dotted = dotted and rest.partition(".")[0] in kind.model_fields
            merged |= {head: dict(merged[head]) | {rest: entry}} if dotted else {key: entry}
        values[name] = {key: entry for key, entry in merged.items() if entry is not None}
        return
    if field is None or not _is_group(field.annotation) or not isinstance(value, dict):
        values[name] = value
        return
    group = dict(values[name])
    for dial, inner in value.items():
        head, _, rest = str(dial).partition(".")
        _set_dial(group, field.annotation, head, {rest: inner} if rest else inner)
    values[name] = group


def _is_group(hint) -> bool:
    return isinstance(hint, type) and issubclass(hint, Settings)


def _group_in(hint) -> type[Settings] | None:
    """The settings class of a hint, or of the entries of its mapping or list; None for any other hint."""
    if _is_group(hint):
        return hint
    if typing.get_origin(hint) in (dict, tuple):
        inner = [a for a in typing.get_args(hint) if a is not Ellipsis][-1]
        return inner if _is_group(inner) else None
    return None


FAULTS = 3  # shown in one error


def one_line(error: ValidationError, model: type[Settings]) -> str:
    """A validation error in one line; for each of the first three faults the dotted name, the value found and what is
    allowed."""
    messages = list(dict.fromkeys(_describe_fault(fault, model) for fault in error.errors()))
    more = f"; and {len(messages) - FAULTS} more" if len(messages) > FAULTS else ""
    return "; ".join(messages[:FAULTS]) + more


def _describe_fault(fault: dict, model: type[Settings]) -> str:
    names, owner, hint, field = [], model, model, None
    for part in fault["loc"]:
        group = _group_in(hint)
        if group is None:
            break
        names.append(str(part))
        if hint is group:
            owner, field = group, group.model_fields.get(part)
            hint = field.annotation if field else None
        else:  # an entry of a mapping or list of groups
            hint = group
    full, above = ".".join(names), "".join(f"{n}." for n in names[:-1])
    if fault["type"] == "extra_forbidden":
        known = list(owner.model_fields)
        close = difflib.get_close_matches(names[-1], known, 1)
        suggestion = f"; did you mean {above}{close[0]}?" if close else ""
        return f"no setting is called {full!r}{suggestion}; there are {', '.join(above + f for f in known)}"
    if fault["type"] == "missing":
        return f"{full} must be given"
    if fault["type"] == "value_error":  # raised by our validators, which name the field
        message = str(fault["ctx"]["error"])
        return f"{full}.{message}" if names and _is_group(hint) else f"{full} {message}".strip()
    metadata = field.metadata if field is not None and hint is field.annotation else ()
    return f"{full} is {fault['input']!r}; it must be {_describe_hint(hint, metadata)}"


def allowed(field) -> str:
    """What a field accepts, in words: "int above 0, or null"."""
    return _describe_hint(field.annotation, field.metadata)


def _describe_hint(hint, metadata=()) -> str:
    if _is_group(hint):
        return f"a group of {', '.join(hint.model_fields)}"
    if typing.get_origin(hint) is Annotated:
        base, *more = typing.get_args(hint)
        bounds = [m for found in more for m in getattr(found, "metadata", [found])]
        return _describe_hint(base, [*metadata, *bounds])
    options = _options(hint)
    if len(options) > 1 or type(None) in options:
        kinds = [o for o in options if o is not type(None)]
        text = " or ".join(_describe_hint(o, metadata) for o in kinds)
        return f"{text}, or null" if type(None) in options else text
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    if typing.get_origin(hint) is tuple:
        return f"a list of {_describe_hint(typing.get_args(hint)[0], metadata)}"
    if typing.get_origin(hint) is dict:
        return "a mapping"
    return " ".join(part for part in (getattr(hint, "__name__", str(hint)), _describe_range(metadata, hint)) if part)


def _describe_range(metadata, hint) -> str:
    words = {"gt": "above {:g}", "ge": "{:g} or more", "lt": "below {:g}", "le": "at most {:g}"}
    bounds = {name: getattr(m, name) for name in words for m in metadata if hasattr(m, name)}
    if bounds.keys() == {"ge", "le"}:
        return f"between {bounds['ge']:g} and {bounds['le']:g}"
    finite = ["finite" if bounds else "(finite)"] * (hint is float and not bounds.keys() & {"lt", "le"})
    return ", ".join([words[name].format(bound) for name, bound in bounds.items()] + finite)


def dials(model: type[Settings], prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted name, field) of every dial, group by group."""
    for name, field in model.model_fields.items():
        if _is_group(field.annotation):
            yield from dials(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def differences(a: dict, b: dict, model: type[Settings]) -> dict[str, tuple]:
    """Dial -> (value in a, value in b) where two JSON objects of the same settings differ; dials missing from `a` are
    left out."""
    found = {}
    for dial, _ in dials(model):
        values = []
        for value in (a, b):
            for part in dial.split("."):
                value = value.get(part, differences) if isinstance(value, dict) else differences
            values.append(value)
        if values[0] != values[1] and values[0] is not differences:
            found[dial] = tuple(values)
    return found


def describe_dials(settings: Settings, group: str | None = None) -> str:
    """Every dial with its name, current value, allowed values and meaning. ValueError for an unknown group."""
    if group and group not in type(settings).model_fields:
        raise ValueError(
            f"no group of settings is called {group!r}; there are {', '.join(type(settings).model_fields)}"
        )
    lines = []
    for name, field in dials(type(settings)):
        if group and name.split(".")[0] != group:
            continue
        value = settings
        for part in name.split("."):
            value = getattr(value, part)
        meaning = " ".join((field.description or "").split())
        lines.append(f"{name} = {value!r}  [{allowed(field)}]\n    {meaning}")
    return "\n".join(lines)


def list_places(model: type[Settings]) -> dict[str, Place]:
    """The dials that name files or folders, with their `Place`; those inside a mapping or list of groups are not
    listed."""
    return {name: mark for name, field in dials(model) if (mark := _find_place(field.annotation, field.metadata))}


def _find_place(hint, metadata=()) -> Place | None:
    for found in (*metadata, *(typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ())):
        if isinstance(found, Place):
            return found
    return next((mark for inner in typing.get_args(hint) if (mark := _find_place(inner))), None)


def resolve_places(model: type[Settings], content: dict, path: Path) -> dict:
    """The values in a YAML file for `model`, with every `Place` at any depth made an absolute path."""
    found = {}
    for name, value in content.items():
        head, _, rest = str(name).partition(".")
        field = model.model_fields.get(head)
        found[name] = value if field is None else _place_value(field.annotation, field.metadata, value, rest, path)
    return found


def _place_value(hint, metadata, value, rest: str, path: Path):
    group = _group_in(hint)
    if group is hint and group is not None:
        if rest:
            return resolve_places(group, {rest: value}, path)[rest]
        return resolve_places(group, value, path) if isinstance(value, dict) else value
    if group is not None and isinstance(value, dict):  # a mapping of groups, or a field of one of its entries
        if rest:
            _, _, inner = rest.partition(".")
            return resolve_places(group, {inner: value}, path)[inner] if inner else resolve_places(group, value, path)
        return {entry: _place_entry(group, one, path) for entry, one in value.items()}
    if group is not None and isinstance(value, list | tuple):
        return [_place_entry(group, one, path) for one in value]
    mark = _find_place(hint, metadata)
    return _absolute(path, value, mark) if mark else value


def _place_entry(group: type[Settings], value, path: Path):
    """An entry of a mapping or list of groups; a plain text sets the group's `shorthand`."""
    if isinstance(value, str) and group.shorthand:
        return resolve_places(group, {group.shorthand: value}, path)
    return resolve_places(group, value, path) if isinstance(value, dict) else value


def _absolute(path: Path, value, mark: Place):
    """A `Place` in a YAML file, or a list of them, as an absolute path."""
    if isinstance(value, list | tuple):
        return [_absolute(path, v, mark) for v in value]
    if not isinstance(value, str) or value.startswith(("hf:", "package:")) or value in mark.words:
        return value
    candidate = path.resolve().parent / value
    return value if mark.or_name and not candidate.exists() else str(candidate)


def read_mapping(path: Path, expected: str) -> dict:
    """The names and values of a YAML file; `expected` describes its content in errors.

    ValueError if it is missing, not valid YAML (with the line), not a mapping, outside the bounds of `read_yaml`, or
    gives a name twice (YAML itself would silently drop the first)."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            seen = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.tag.endswith(":bool"):  # YAML 1.1 reads the name `on` as true
                    key.tag = "tag:yaml.org,2002:str"
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    try:
        text = read_yaml(path, expected)
        try:
            content = yaml.load(text, Loader)
        except ValueError as error:  # an impossible number or date
            raise yaml.YAMLError(str(error)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path}{line}: not valid YAML ({getattr(error, 'problem', None) or error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected {expected}, found {type(content).__name__}")
    return content
