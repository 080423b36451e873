"""Settings of seed questions."""

from typing import Annotated

from qatoolkit.core.settings import Place, Settings


class SeedSettings(Settings):
    """Where seed questions come from (`read.read_seeds`)."""

    sources: tuple[Annotated[str, Place()], ...] = ()
    """Files, folders or `hf:` names; none means the seeds of the world."""
    mapping: dict | None = None
    """Columns by field, where a layout is not recognised."""
    licence: str | None = None
    """Licence of the sources, kept with every row."""
