"""Curation: which rows are trained on."""

from qatoolkit.curate.curate import curate
from qatoolkit.curate.decontaminate import decontaminate
from qatoolkit.curate.diversity import diversity
from qatoolkit.curate.filters import filters
from qatoolkit.curate.near_duplicates import near_duplicates
from qatoolkit.curate.near_shards import near_duplicate_shards
from qatoolkit.curate.settings import CurateSettings

__all__ = [
    "CurateSettings",
    "curate",
    "decontaminate",
    "diversity",
    "filters",
    "near_duplicate_shards",
    "near_duplicates",
]


def __dir__():
    return __all__
