"""Lazy imports for packages: Tab completion lists all names, and importing stays cheap."""

import difflib
import importlib


def lazily(package: str, modules: dict[str, str], whole: str = ""):
    """`__getattr__`, `__dir__` and `__all__` of a package whose names are imported on first use.

    `modules`: names by module: {"dots": "arms comparisons"}. `whole`: modules that are themselves names, by their last
    part: "run.stages" gives `stages`. The error for another name suggests the closest one, or lists all."""
    module_of = {name: module for module, names in modules.items() for name in names.split()}
    rooms = {module.split(".")[-1]: module for module in whole.split()}
    names = [*rooms, *module_of]

    def get(name: str):
        if name in rooms:
            return importlib.import_module(f"{package}.{rooms[name]}")
        if name in module_of:
            return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        closest = difflib.get_close_matches(name, names, n=1)
        suggestion = f"did you mean {closest[0]}?" if closest else f"there are {', '.join(sorted(names))}"
        raise AttributeError(f"module {package!r} has no attribute {name!r}; {suggestion}")

    return get, lambda: names, names
