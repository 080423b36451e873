"""Digests of what a training writes and reads again: a flipped byte or a cut file is noticed and named, not trained on."""

from pathlib import Path

from qatoolkit.core.artifacts import read_sealed, write_sealed
from qatoolkit.core.files import Damaged, digest

DIGESTS = "digests.json"
MOMENTS = "optimizer.safetensors"
FREE = ("README.md", "metrics.jsonl", "probe.jsonl", "timing.jsonl", DIGESTS)  # may grow or be edited


def write_digests(folder: Path) -> None:
    """Record size and digest of every file in `folder` (`core.files.digest`: of large ones a sample)."""
    found = {
        path.name: {"bytes": path.stat().st_size, "digest": digest(path)}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in FREE and not path.name.startswith(".")
    }
    write_sealed({"files": found}, folder / DIGESTS)


def find_damage(folder: str | Path, *, without: tuple[str, ...] = ()) -> list[str]:
    """The files of `folder` that are not as they were written, each with what is wrong; none where no digests were
    recorded. `without`: endings of names that are not compared. Moments may be deleted to save space."""
    path = Path(folder) / DIGESTS
    if not path.is_file():
        return []
    try:
        return [
            f"{file} is damaged ({reason})"
            for name, about in read_sealed(path, "not what was written")["files"].items()
            if not name.endswith(without) and (reason := _compare(file := path.with_name(name), about))
        ]
    except (Damaged, KeyError, TypeError, AttributeError, ValueError):  # edited, or another tool's file of that name
        return [f"{path} is damaged (not what was written)"]


def require_undamaged(folder: str | Path, remedy: str, *, without: tuple[str, ...] = ()) -> None:
    """OSError for the first damaged file, with the remedy."""
    if damage := find_damage(folder, without=without):
        raise OSError(f"{damage[0]}; {remedy}")


def check_training(folder: str | Path) -> list[str]:
    """Everything damaged in the folder of a job, or of a token file: its model, kept checkpoints and states."""
    place = Path(folder)
    states = sorted(place.glob("states/[0-9]*"))
    lost = [f"{part / DIGESTS} is missing" for part in states if not (part / DIGESTS).is_file()]
    return lost + [line for part in (place, *sorted(place.glob("at-*")), *states) for line in find_damage(part)]


def _compare(file: Path, about: dict) -> str | None:
    if not file.is_file():
        return None if file.name == MOMENTS else "missing"
    if (size := file.stat().st_size) != about["bytes"]:
        return f"{size:,} bytes instead of {about['bytes']:,}"
    if digest(file) != about["digest"]:
        return "its content has changed"
    return None
