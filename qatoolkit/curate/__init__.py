"""Curation: which rows are trained on."""

from qatoolkit.curate.curate import curate, filters
from qatoolkit.curate.decontaminate import decontaminate
from qatoolkit.curate.near_duplicates import near_duplicates
from qatoolkit.curate.near_shards import near_duplicate_shards
from qatoolkit.curate.settings import CurateSettings

__all__ = ["CurateSettings", "curate", "decontaminate", "filters", "near_duplicate_shards", "near_duplicates"]


def __dir__():
    return __all__
