"""What no run needs any more: finding and removing artifacts that nothing points to."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from qatoolkit.core.artifacts import MANIFEST, Artifact
from qatoolkit.core.files import read_json
from qatoolkit.run.store import POINTERS, STAGES, results_root


def find_unused(root: Path | None = None) -> Iterator[Artifact]:
    """Artifacts that no run points to, directly or through another artifact that it uses."""
    root = root or results_root()
    reached, to_do = set(), []
    for path in root.rglob(POINTERS):
        to_do += read_json(path).values()
    while to_do:
        name = to_do.pop()
        if name in reached:
            continue
        reached.add(name)
        path = root / STAGES / name / MANIFEST
        to_do += read_json(path).get("uses", []) if path.is_file() else []
    folder = root / STAGES
    for path in sorted(folder.glob("*/*")):
        if path.is_dir() and not path.name.startswith(".") and path.relative_to(folder).as_posix() not in reached:
            yield Artifact(folder, path.parent.name, path.name)


def remove_artifact(artifact: Artifact) -> int:
    """Remove an artifact; returns the bytes that were freed."""
    size = sum(p.stat().st_size for p in artifact.folder.rglob("*") if p.is_file() and not p.is_symlink())
    shutil.rmtree(artifact.folder, ignore_errors=True)
    artifact.folder.with_name(f".{artifact.folder.name}.lock").unlink(missing_ok=True)
    return size
