"""Settings of seed questions."""

from typing import Annotated

from qatoolkit.core.settings import Place, Settings


class SeedSettings(Settings):
    """Where seed questions come from (`read.read_seeds`)."""

    sources: tuple[Annotated[str, Place(words=("textbook",))], ...] = ()
    """Files, folders or `hf:` names; `textbook` for the embedded seeds."""
    mapping: dict | None = None
    """Columns by field, where a layout is not recognised."""
    licence: str | None = None
    """Licence of the sources, kept with every row."""
    languages: tuple[str, ...] = ()
    """Languages kept (en, zh, ...); rows in others are rejects. None keeps all."""
