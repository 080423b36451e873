"""Settings of seed questions."""

from typing import Annotated

from qatoolkit.core.settings import Place, Settings


class SeedSettings(Settings):
    """Where seed questions come from (`read.read_seeds`)."""

    sources: tuple[Annotated[str, Place(words=("textbook",))], ...] = ()
    """Files, folders or `hf:` names; `textbook` means the built-in seeds."""
    mapping: dict | None = None
    """Field -> column, for layouts that are not recognised."""
    licence: str | None = None
    """Licence of rows that state none themselves."""
    languages: tuple[str, ...] = ()
    """Languages to keep (en, zh, ...); rows in others become rejects. Empty keeps all."""
