"""Finding and removing artifacts that no run points to."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from qatoolkit.core.artifacts import Artifact, read_sealed
from qatoolkit.core.files import Damaged
from qatoolkit.run.remembered import remedy_of
from qatoolkit.run.store import POINTERS, STAGES, results_root


def find_unused(root: Path | None = None) -> Iterator[Artifact]:
    """Artifacts that no run points to, directly or through another artifact that it uses; Damaged if what a run uses
    cannot be read."""
    root = root or results_root()
    reached, queue = set(), []
    for path in root.rglob(POINTERS):
        queue += read_sealed(path, remedy_of(path.parent)).values()
    queue += linked(root)
    while queue:
        name = queue.pop()
        if name in reached:
            continue
        reached.add(name)
        artifact = Artifact.named(root / STAGES, name)
        if artifact.folder.is_dir() and artifact.record is None:  # then what it uses is unknown
            raise Damaged(artifact.unfinished)
        queue += (artifact.record or {}).get("uses", [])
    folder = root / STAGES
    for path in sorted(folder.glob("*/*")):
        if path.is_dir() and not path.name.startswith(".") and path.relative_to(folder).as_posix() not in reached:
            yield Artifact(folder, path.parent.name, path.name)


def linked(folder: Path) -> set[str]:
    """The artifacts that the links below a folder lead to, as `kind/key`."""
    links = (os.readlink(path) for path in folder.rglob("*") if path.is_symlink())
    return {found[1] for link in links if (found := re.search(rf"{STAGES}/([\w.-]+/[0-9a-f]{{16}})$", link))}


def remove_artifact(artifact: Artifact) -> int:
    """Remove an artifact and return the number of bytes freed."""
    size = sum(p.stat().st_size for p in artifact.folder.rglob("*") if p.is_file() and not p.is_symlink())
    shutil.rmtree(artifact.folder, ignore_errors=True)
    artifact.folder.with_name(f".{artifact.folder.name}.lock").unlink(missing_ok=True)
    return size
