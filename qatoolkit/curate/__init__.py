"""Curation: which rows are trained on."""

from qatoolkit.curate.controls import controls, plant
from qatoolkit.curate.curate import curate, filters
from qatoolkit.curate.decontaminate import decontaminate
from qatoolkit.curate.exam_index import ExamIndex
from qatoolkit.curate.near_duplicates import near_duplicates
from qatoolkit.curate.settings import CurateSettings

__all__ = ["CurateSettings", "ExamIndex", "controls", "curate", "decontaminate", "filters", "near_duplicates", "plant"]


def __dir__():
    return __all__
