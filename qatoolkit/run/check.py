"""Find damaged files: every file that a run wrote is compared with what was recorded when it was written.

Artifacts record their files in their manifests. What a run writes beside them (executed notebooks, figures, the report,
the summary, exports) is recorded in `files.json` of its folder."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from qatoolkit.core.artifacts import MANIFEST, Artifact, read_sealed, write_sealed
from qatoolkit.core.files import Damaged, describe_difference, fingerprint, locked
from qatoolkit.run.answer_counts import NOTES
from qatoolkit.run.clean import linked
from qatoolkit.run.remembered import FILE as RUN_FILE
from qatoolkit.run.remembered import remedy_of
from qatoolkit.run.store import LEDGER, POINTERS, STAGES
from qatoolkit.teacher.ledger import Ledger

FILES = "files.json"
REMEDIES = {  # by the first part of a path in a run's folder
    "notebooks": "remove it and run the notebook again",
    "figures": "`qatoolkit report --run {run}` draws it again",
    "report.html": "`qatoolkit report --run {run}` writes it again",
    "summary.json": "run notebooks/11_figures.ipynb again",
    "export": "remove its folder and run the notebook that exported it again",
}


def record_files(folder: Path, paths: Iterable[Path]) -> None:
    """Record the present state of files that a run wrote into its folder."""
    with locked(folder / f".{FILES}.lock"):
        now = {path.relative_to(folder).as_posix(): fingerprint(path) for path in paths if path.is_file()}
        known = recorded(folder)
        if any(known.get(name) != state for name, state in now.items()):
            write_sealed(known | now, folder / FILES)


def recorded(folder: Path) -> dict[str, dict]:
    """The recorded state of the files in a run's folder, by path."""
    path = folder / FILES
    return read_sealed(path, remedy_of(folder)) if path.exists() else {}


def is_whole(folder: Path, path: Path) -> bool:
    """Whether a file in a run's folder exists and matches its record, if it has one."""
    known = recorded(folder).get(path.relative_to(folder).as_posix())
    return path.is_file() and (known is None or describe_difference(path, known) is None)


def find_damage(root: Path, name: str | None = None) -> Iterator[str]:
    """A line for each damaged, edited or missing file of a run (by default of all runs and artifacts in `root`) and of
    the ledger: what is wrong and what to do. ValueError for an unknown run."""
    runs = sorted(p.name for p in root.glob("*") if (p / POINTERS).exists() or (p / RUN_FILE).exists())
    if name is not None and name not in runs:
        raise ValueError(f"no run is called {name!r} in {root}; there are {', '.join(runs) or 'none'}")
    reached = set()
    for run in runs if name is None else [name]:
        yield from _check_run(root / run, reached)
    if name is None:
        everything = (p for p in (root / STAGES).glob("*/*") if p.is_dir() and not p.name.startswith("."))
        reached |= {p.relative_to(root / STAGES).as_posix() for p in everything if (p / MANIFEST).exists()}
    queue, seen = sorted(reached), set()
    for artifact in queue:  # grows while it is read
        if artifact not in seen:
            seen.add(artifact)
            yield from _check_artifact(root / STAGES, artifact, queue)
    yield from _check_ledger(root / LEDGER)


def _check_run(folder: Path, reached: set[str]) -> Iterator[str]:
    """Damage in a run's folder; the artifacts that it points to are added to `reached`."""
    for path in sorted(folder.rglob("*")):
        if path.name in (POINTERS, RUN_FILE, NOTES, FILES) and not path.is_symlink():
            try:
                found = read_sealed(path, remedy_of(folder))
            except (Damaged, OSError) as error:
                yield str(error)
                continue
            if path.name == POINTERS:
                reached |= set(found.values())
                yield from _check_links(path.parent, found)
    reached |= linked(folder)
    needed = [folder / POINTERS, folder / RUN_FILE, *(p / POINTERS for p in folder.glob("variants/*/"))]
    needed += [folder / FILES] if any((folder / place).exists() for place in REMEDIES) else []
    for path in needed:
        if not path.exists():
            yield f"{path} is missing: {remedy_of(folder)}"
    with contextlib.suppress(Damaged):
        for file, known in recorded(folder).items():
            if why := describe_difference(folder / file, known, whole=True):
                remedy = REMEDIES.get(file.split("/")[0], "run what writes it again").format(run=folder.name)
                yield f"{folder / file} {why}: {remedy}"


def _check_links(folder: Path, pointers: dict[str, str]) -> Iterator[str]:
    """Links that do not lead to the artifacts of their stages; none on a file system without links."""
    links = {stage: folder / stage for stage in pointers}
    if any(link.is_symlink() for link in links.values()):
        for stage, link in links.items():
            if not link.is_symlink() or not os.readlink(link).endswith(f"{STAGES}/{pointers[stage]}"):
                yield f"{link} is not a link to {STAGES}/{pointers[stage]}: remove it and run the stage again"


def _check_artifact(stages: Path, name: str, queue: list[str]) -> Iterator[str]:
    """Damage in an artifact; the artifacts that it uses are added to `queue`."""
    artifact = Artifact.named(stages, name)
    try:
        record = artifact.record
    except (Damaged, OSError) as error:
        yield str(error)
        return
    if record is None:
        yield artifact.unfinished
        return
    queue += record.get("uses", [])
    for path, why in artifact.damage(record, whole=True):
        yield f"{path} {why}: {artifact.remedy}"


def _check_ledger(path: Path) -> Iterator[str]:
    if not path.exists():
        return
    try:
        with Ledger(path) as ledger:
            yield from ledger.check()
    except ValueError as error:  # it can't be opened
        yield str(error)
