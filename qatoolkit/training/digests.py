"""Digests of the files of a training, so that damaged or truncated files are reported and never trained on."""

from pathlib import Path

from qatoolkit.core.artifacts import read_sealed, write_sealed
from qatoolkit.core.files import Damaged, digest

DIGESTS = "digests.json"
MOMENTS = "optimizer.safetensors"
FREE = ("README.md", "metrics.jsonl", "probe.jsonl", "timing.jsonl", DIGESTS)  # may grow or be edited


def write_digests(folder: Path) -> None:
    """Record size and digest of every file in `folder` (`core.files.digest`: large files are sampled)."""
    found = {
        path.name: {"bytes": path.stat().st_size, "digest": digest(path)}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in FREE and not path.name.startswith(".")
    }
    write_sealed({"files": found}, folder / DIGESTS)


def find_damage(folder: str | Path, *, without: tuple[str, ...] = ()) -> list[str]:
    """One line for each changed or missing file of `folder`; none if no digests were recorded. `without`: suffixes of
    names to skip. Moments may be deleted to save space."""
    path = Path(folder) / DIGESTS
    if not path.is_file():
        return []
    try:
        return [
            f"{file} is damaged ({reason})"
            for name, about in read_sealed(path, "not what was written")["files"].items()
            if not name.endswith(without) and (reason := _compare(file := path.with_name(name), about))
        ]
    except (Damaged, KeyError, TypeError, AttributeError, ValueError):  # edited, or another tool's file
        return [f"{path} is damaged (not what was written)"]


def require_undamaged(folder: str | Path, remedy: str, *, without: tuple[str, ...] = ()) -> None:
    """OSError for the first damaged file, with the remedy."""
    if damage := find_damage(folder, without=without):
        raise OSError(f"{damage[0]}; {remedy}")


def check_training(folder: str | Path) -> list[str]:
    """One line for each damaged file in the folder of a job (model, kept checkpoints, states) or of a token file."""
    folder = Path(folder)
    states = sorted(folder.glob("states/[0-9]*"))
    missing = [f"{state / DIGESTS} is missing" for state in states if not (state / DIGESTS).is_file()]
    return missing + [line for part in (folder, *sorted(folder.glob("at-*")), *states) for line in find_damage(part)]


def _compare(file: Path, about: dict) -> str | None:
    if not file.is_file():
        return None if file.name == MOMENTS else "missing"
    if (size := file.stat().st_size) != about["bytes"]:
        return f"{size:,} bytes instead of {about['bytes']:,}"
    if digest(file) != about["digest"]:
        return "its content has changed"
    return None
