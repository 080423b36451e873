"""Artifacts that are addressed by content only: made once, whichever stage or run needs them."""

from pathlib import Path

from qatoolkit.core.artifacts import MANIFEST, Artifact, as_json, key_of
from qatoolkit.core.files import digest
from qatoolkit.run.store import STAGES, Run
from qatoolkit.training.gguf_files import find_gguf

VERSION = 1  # of the artifacts of `make_once`: raised when the same content would give other files


def make_once(run: Run, kind: str, content, make, uses: list[str] | None = None) -> Artifact:
    """The artifact of this content, made by `make(folder)` unless it exists; `uses` names artifacts that it depends on,
    so that they are kept."""
    artifact = Artifact(run.artifacts, kind, key_of(kind, VERSION, as_json(content)))
    if artifact.manifest is None:
        with artifact.making() as folder:
            if artifact.manifest is None:
                make(folder)
                artifact.finish({"outputs": {}, "uses": uses or []})
    return artifact


def content_of(path: str) -> str:
    """What represents a path in the key of a training: the artifact that it is part of, else its content."""
    folder = find_gguf(path) or Path(path)
    if artifact := artifact_of(folder):
        return f"{artifact.name}/{folder.relative_to(artifact.folder).as_posix()}"
    return digest(folder) if folder.exists() else str(path)


def artifact_of(path: Path | str | None) -> Artifact | None:
    """The finished artifact that a path is part of, or None."""
    folder = Path(path or "")
    above = next((p for p in (folder, *folder.parents) if p.parent.parent.name == STAGES), None)
    if above is None or not (above / MANIFEST).is_file():
        return None
    return Artifact(above.parents[1], above.parent.name, above.name)
