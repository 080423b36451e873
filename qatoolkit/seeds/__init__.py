"""Seeds: published question files of any layout, read into one table."""

from qatoolkit.core.public import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "read": "read_seeds quality_report layout_report summary",
        "files": "READERS",
        "layouts": "LAYOUTS NAMES Layout",
        "subjects": "with_disciplines BENCHMARKS",
    },
)
