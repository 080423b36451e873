"""Artifacts: folders of finished work, each named by the digest of everything it was made from.

Stages of runs, token files, trained models, task scores and executed notebooks all use this to ask "is it already
finished, from the same inputs?". `manifest.json` is written last, so its presence means complete. It holds a
fingerprint of every file and a digest of itself, so reading it detects damage.

"""

import hashlib
import json
import os
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from qatoolkit.core.files import (
    Damaged,
    describe_difference,
    fingerprint,
    locked,
    read_json,
    remove,
    to_json,
    to_jsonable,
    write_json,
)

MANIFEST = "manifest.json"
SEAL = "sha256"  # key in a sealed document: the digest of its other keys
_verified: dict[str, tuple] = {}  # path -> stat of a file when it was last verified
_sealed: dict[str, tuple] = {}  # path -> stat and content of a verified sealed document


def as_json(value):
    """A value after a round trip through JSON: tuples become lists, settings and numpy values plain ones."""
    return json.loads(json.dumps(value, default=to_jsonable))


def key_of(*content) -> str:
    """The digest of everything a result depends on: 64 hex digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=to_jsonable).encode()).hexdigest()


def write_sealed(value: dict, path: Path) -> None:
    """Write a JSON object together with its digest."""
    value = as_json(value)
    write_json(value | {SEAL: key_of(value)}, path)


def read_sealed(path: Path, remedy: str) -> dict:
    """Read a file that `write_sealed` wrote. If it has changed since, raises Damaged with the file and the remedy."""
    stat = _stat(path)
    if (known := _sealed.get(str(path))) and known[0] == stat:
        return json.loads(known[1])
    try:
        found = read_json(path)
        text, seal = to_json(found), found.pop(SEAL, None)
        if key_of(found) != seal or path.read_bytes() != text.encode():
            raise Damaged
    except (Damaged, AttributeError, TypeError, UnicodeError):
        raise Damaged(f"{path} is damaged or was edited: {remedy}") from None
    _sealed[str(path)] = stat, json.dumps(found)
    return found


def _stat(path: Path | str) -> tuple:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ino


def inventory(folder: Path, known: Container[str] = (MANIFEST,)) -> dict[str, dict]:
    """Relative path -> fingerprint of every file in an artifact's folder, except `known` files, locks and temporary
    files."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.endswith((".lock", ".tmp")))
    paths = ((p.relative_to(folder).as_posix(), p) for p in files)
    return {name: fingerprint(path) for name, path in paths if name not in known}


class Artifact:
    """A folder `root/kind/key`, where the last part is the first 16 digits of the key."""

    def __init__(self, root: Path, kind: str, key: str):
        self.kind, self.key = kind, key
        self.folder = Path(root) / kind / key[:16]

    def __repr__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """`kind/key`, as runs and manifests name it."""
        return f"{self.kind}/{self.folder.name}"

    @classmethod
    def named(cls, root: Path, name: str) -> "Artifact":
        """The artifact with this `name`; longer paths that begin with a name work too."""
        return cls(root, *name.split("/")[:2])

    @property
    def remedy(self) -> str:
        """What to do when one of its files is damaged."""
        return f"remove {self.folder} and run again what made it; teacher replies come free from the ledger"

    @property
    def unfinished(self) -> str:
        """The message when the manifest is missing."""
        return f"{self.folder / MANIFEST} is missing: {self.remedy}"

    @property
    def record(self) -> dict | None:
        """The manifest's content without checking the files, None if unfinished. Damaged if the manifest was
        changed."""
        path = self.folder / MANIFEST
        return read_sealed(path, self.remedy) if path.exists() else None

    @property
    def manifest(self) -> dict | None:
        """Its `record` after checking the files, None if unfinished. Damaged names the first file that has changed.
        Small files are compared whole, large ones by samples; each file is checked once per process unless it
        changes."""
        record = self.record
        for path, difference in self.damage(record or {}):
            raise Damaged(f"{path} {difference}: {self.remedy}")
        return record

    def damage(self, record: dict, *, whole: bool = False) -> Iterator[tuple[Path, str]]:
        """The files that differ from the record, and how they differ; `whole` reads every byte."""
        for name, known in record.get("files", {}).items():
            path = f"{self.folder}/{name}"
            try:
                stat = _stat(path)
            except OSError:
                stat = None
            if not whole and stat and _verified.get(path) == stat:
                continue
            if difference := describe_difference(Path(path), known, whole=whole):
                yield Path(path), difference
            else:
                _verified[path] = stat

    @contextmanager
    def making(self) -> Iterator[Path]:
        """The folder to write into, locked to one process at a time. Complete files of an interrupted attempt are kept,
        half-written ones removed."""
        holder = f"another process that is making {self.kind}"
        with locked(self.folder.with_name(f".{self.folder.name}.lock"), holder):
            for leftover in list(self.folder.rglob(".*.tmp")):
                remove(leftover)
            self.folder.mkdir(parents=True, exist_ok=True)
            yield self.folder

    def finish(self, record: dict) -> dict:
        """Write the manifest, which marks the artifact as complete."""
        record = {"kind": self.kind, "key": self.key} | record | {"files": inventory(self.folder)}
        write_sealed(record, self.folder / MANIFEST)
        return record

    def add_files(self) -> None:
        """Add files to the manifest that were written after it was finished, such as packed tokens."""
        with locked(self.folder.with_name(f".{self.folder.name}.lock")):
            record = self.record
            if added := inventory(self.folder, {MANIFEST, *record["files"]}):
                write_sealed(record | {"files": record["files"] | added}, self.folder / MANIFEST)
