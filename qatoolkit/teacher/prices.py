"""List prices of models, from prices.csv."""

import csv
import functools
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from types import MappingProxyType

from qatoolkit.teacher.settings import Price


def price_of(
    model: str, on: date | str | None = None, *, own: Mapping[str, Price] = MappingProxyType({})
) -> Price | None:
    """The price of `model` in `own`, else its list price in prices.csv on a day (default today, UTC); None if it is in
    neither.

    Names must match exactly, because a dated snapshot may have another price. `textbook*`, the offline teacher, is
    free.
    """
    if model in own:
        return own[model]
    if model.startswith("textbook"):
        return Price(input=0.0, output=0.0)
    day = str(on or datetime.now(UTC).date())
    in_force = (row for row in _price_table() if row["model"] == model and row["date"] <= day)
    if (row := max(in_force, key=lambda row: row["date"], default=None)) is None:
        return None
    cached = float(row["cached_input"]) if row["cached_input"] else None
    return Price(input=float(row["input"]), output=float(row["output"]), cached_input=cached)


@functools.cache
def _price_table() -> list[dict[str, str]]:
    with (Path(__file__).parent / "prices.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
