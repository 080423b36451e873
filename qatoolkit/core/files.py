"""Files that are complete or absent: atomic writes, locks, JSON and digests. Standard library only."""

import fcntl
import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path

TIMING = "timing.jsonl"  # wall-clock figures, which differ between equal runs and so are left out of digests
PIECE, PIECES = 1 << 16, 4096  # a file above 1 GiB is sampled: that many pieces of that many bytes


def digest(path: Path) -> str:
    """sha256 of a file, or of the names and contents of a folder's files (except timings).

    Of a file above 1 GiB only the size and 256 MiB, evenly spread, are read: large weights are identified in a second,
    but a single changed byte may go unnoticed."""
    sha = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        if file.name == TIMING:
            continue
        sha.update(file.relative_to(path).as_posix().encode())
        size = file.stat().st_size
        with open(file, "rb") as content:
            if size <= 1 << 30:
                while piece := content.read(1 << 22):
                    sha.update(piece)
                continue
            sha.update(str(size).encode())
            for i in range(PIECES):
                content.seek(i * (size - PIECE) // (PIECES - 1))
                sha.update(content.read(PIECE))
    return sha.hexdigest()


@contextmanager
def atomic(path: Path, *, over: str | None = None):
    """Yields a temporary path beside `path`; on success it replaces `path` in one step, on error it is removed.

    With `over`, an existing folder is replaced only if it is empty or contains a file of that name; else ValueError,
    before anything is written."""
    if over and path.is_dir() and not (path / over).is_file() and (held := sorted(path.iterdir())):
        raise ValueError(
            f"{path} contains {held[0].name!r} and no {over}, so it is not replaced; give a new or an empty folder"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    remove(temporary)
    try:
        yield temporary
        if temporary.is_dir():
            remove(path)
        os.replace(temporary, path)
    finally:
        remove(temporary)


@contextmanager
def locked(path: Path):
    """Holds the lock file `path`, one process at a time; the lock is released however the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove(path: Path) -> None:
    """Remove a file, or a folder with its contents, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(value, path: Path) -> None:
    """Write a JSON document atomically; dataclasses become objects, NaN raises ValueError."""
    with atomic(path) as temporary:
        temporary.write_text(
            json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=plain) + "\n", encoding="utf-8"
        )


def read_json(path: Path):
    """Read a JSON document in UTF-8, whatever the locale."""
    return json.loads(path.read_text(encoding="utf-8"))


def plain(value):
    """For `json.dumps(default=...)`: dataclasses and settings become objects, paths strings, arrays lists."""
    if is_dataclass(value):
        return asdict(value)
    if hasattr(value, "model_dump"):  # settings
        return value.model_dump()
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy, scalars included
        return value.tolist()
    raise TypeError(f"{type(value).__name__} can't be written as JSON")
