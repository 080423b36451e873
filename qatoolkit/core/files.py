"""Files that are either complete or absent: atomic writes, locks, JSON, digests, and detection of damage. Standard
library only."""

import fcntl
import hashlib
import json
import os
import shutil
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path

TIMING = "timing.jsonl"  # wall-clock times, which differ between equal runs and are left out of digests
PIECE, PIECES = 1 << 16, 4096  # bytes, number: what `digest` reads of a file above 1 GiB
SAMPLED = 1 << 26  # bytes: a larger file is checked on a sample of this total size


class Damaged(ValueError):
    """A file has changed since it was written; the message names it and says what to do."""


def fingerprint(path: Path) -> dict:
    """Size and digest by which damage to a file is detected: bytes, sha256 and, above 64 MiB, `sample`, the digest of
    evenly spread pieces."""
    size = path.stat().st_size
    found = {"bytes": size, "sha256": _sha256(path)}
    return found | ({"sample": _sha256(path, SAMPLED // PIECE)} if size > SAMPLED else {})


def describe_difference(path: Path, known: dict, *, whole: bool = False) -> str | None:
    """How a file differs from its `fingerprint`, in words; None if it is the same. A large file is compared by size and
    sample unless `whole`."""
    if not path.is_file():
        return "is no longer a regular file" if path.exists() else "is missing"
    if (size := path.stat().st_size) != known["bytes"]:
        return f"has {size:,} bytes, but {known['bytes']:,} were written"
    sampled = not whole and "sample" in known
    found = _sha256(path, SAMPLED // PIECE) if sampled else _sha256(path)
    return None if found == known["sample" if sampled else "sha256"] else "has changed since it was written"


def _sha256(path: Path, pieces: int | None = None) -> str:
    """sha256 of a file, or of `pieces` evenly spread pieces from its first byte to its last."""
    with open(path, "rb") as content:
        if pieces is None:
            return hashlib.file_digest(content, "sha256").hexdigest()
        sha = hashlib.sha256()
        _add_pieces(sha, content, path.stat().st_size, pieces)
        return sha.hexdigest()


def _add_pieces(sha, content, size: int, pieces: int) -> None:
    for i in range(pieces):
        content.seek(i * (size - PIECE) // (pieces - 1))
        sha.update(content.read(PIECE))


def digest(path: Path) -> str:
    """sha256 of a file, or of the names and contents of a folder's files (except timings).

    Of a file above 1 GiB, only the size and 256 MiB of evenly spread pieces count: large weights take a second, but a
    single changed byte may go unnoticed."""
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
            else:
                sha.update(str(size).encode())
                _add_pieces(sha, content, size, PIECES)
    return sha.hexdigest()


@contextmanager
def atomic(path: Path, *, over: str | None = None):
    """Yields a temporary path beside `path`. On success it is synced to disk and replaces `path` in one step; on error
    it is removed.

    With `over`, an existing folder is replaced only if it is empty or contains a file of that name; else ValueError
    before anything is written."""
    if over and path.is_dir() and not (path / over).is_file() and (content := sorted(path.iterdir())):
        raise ValueError(
            f"{path} contains {content[0].name!r} and no {over}, so it is not replaced; give a new or an empty folder"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    remove(temporary)
    try:
        yield temporary
        _sync_all(temporary)
        if temporary.is_dir() and path.is_dir():
            old = path.with_name(f".{path.name}.{os.getpid()}.before.tmp")
            os.replace(path, old)
            os.replace(temporary, path)
            remove(old)
        else:
            os.replace(temporary, path)
        with suppress(OSError):  # some file systems cannot sync folders
            _sync(path.parent)
    finally:
        remove(temporary)


def _sync_all(path: Path) -> None:
    """Sync a file, or a folder with its contents, to disk, so that it survives a power cut."""
    for inner in path.rglob("*") if path.is_dir() else ():
        if inner.is_file() and not inner.is_symlink():
            _sync(inner)
    if path.is_file():
        _sync(path)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def locked(path: Path, holder: str = ""):
    """Holds the lock file `path`, one process at a time; the lock is released however the process ends. With `holder`,
    prints what it is waiting for after one second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(10 if holder else 0):
        with suppress(BlockingIOError):
            file = hold_lock(path, wait=False)
            break
        time.sleep(0.1)
    else:
        if holder:
            print(f"waiting for {holder}", flush=True)
        file = hold_lock(path)
    with file:
        yield


def hold_lock(path: Path, *, wait: bool = True):
    """The lock file `path`, open and locked until it is closed; its holder may remove it. Without `wait`,
    BlockingIOError if another process has the lock."""
    while True:
        with ExitStack() as closing:
            file = closing.enter_context(open(path, "a+"))
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):  # the previous holder has just removed it: try again
                if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    closing.pop_all()
                    return file


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its contents, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(text: str, path: Path) -> None:
    """Write a text as UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(value, path: Path) -> None:
    """Write a JSON document atomically; dataclasses become objects, NaN raises ValueError."""
    write_text(to_json(value), path)


def to_json(value) -> str:
    """The text that `write_json` writes."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=to_jsonable) + "\n"


def read_json(path: Path):
    """Read a JSON document as UTF-8, whatever the locale; Damaged if it is not valid JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        cause = "it is empty" if not path.stat().st_size else str(error).splitlines()[0]
        raise Damaged(f"{path} is damaged, not valid JSON ({cause}): remove it and rerun what writes it") from None


def to_jsonable(value):
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
