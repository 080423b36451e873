"""Lazy imports for packages: Tab completion lists all names, and importing stays cheap."""

import difflib
import importlib
from collections.abc import Iterable


def lazily(package: str, names: dict[str, str]):
    """`__getattr__`, `__dir__` and `__all__` of a package whose names are imported on first use. `names`: name ->
    module."""

    def get(name: str):
        if name not in names:
            raise name_error(package, name, names)
        return getattr(importlib.import_module(names[name]), name)

    return get, lambda: sorted(names), sorted(names)


def name_error(package: str, name: str, names: Iterable[str]) -> AttributeError:
    """The error for a name that a package does not have; it suggests the closest name, or lists all."""
    closest = difflib.get_close_matches(name, names, n=1)
    suggestion = f"did you mean {closest[0]}?" if closest else f"there are {', '.join(sorted(names))}"
    return AttributeError(f"module {package!r} has no attribute {name!r}; {suggestion}")


def by_module(package: str, modules: dict[str, str]) -> dict[str, str]:
    """The mapping for `lazily` from names by module: {"dots": "arms comparisons"} gives {"arms": "<package>.dots",
    ...}."""
    return {name: f"{package}.{module}" for module, names in modules.items() for name in names.split()}
