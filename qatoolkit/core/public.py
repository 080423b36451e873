"""Packages whose names are imported on first use, so that Tab completion shows them and importing stays cheap."""

import importlib


def lazily(package: str, names: dict[str, str]):
    """`__getattr__`, `__dir__` and `__all__` for a package: each name is imported from the module given for it."""

    def get(name: str):
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(names[name]), name)

    return get, lambda: sorted(names), sorted(names)


def by_module(package: str, modules: dict[str, str]) -> dict[str, str]:
    """Names by module as a mapping for `lazily`: {"dots": "arms comparisons"} gives {"arms": "<package>.dots", ...}."""
    return {name: f"{package}.{module}" for module, names in modules.items() for name in names.split()}
