"""Curation: selects the rows to train on."""

from qatoolkit.curate.controls import controls, plant
from qatoolkit.curate.curate import curate
from qatoolkit.curate.decontaminate import decontaminate
from qatoolkit.curate.diversity import diversity
from qatoolkit.curate.exam_index import ExamIndex
from qatoolkit.curate.filters import filters
from qatoolkit.curate.meaning import same_meaning
from qatoolkit.curate.near_duplicates import near_duplicates
from qatoolkit.curate.near_shards import near_duplicate_shards
from qatoolkit.curate.settings import CurateSettings

__all__ = [
    "CurateSettings",
    "ExamIndex",
    "controls",
    "curate",
    "decontaminate",
    "diversity",
    "filters",
    "near_duplicate_shards",
    "near_duplicates",
    "plant",
    "same_meaning",
]


def __dir__():
    return __all__
