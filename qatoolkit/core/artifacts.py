"""Finished work addressed by content: a folder named by the digest of all it was made from, whole or not there.

One mechanism for "is it finished, from the same inputs?": stages of runs, token files, trained models, scores of a task
and executed notebooks. `manifest.json` is written last, so that its presence means complete. It has the fingerprint of
every file, and one of itself; whoever reads a manifest learns of damage.
"""

import hashlib
import json
import os
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from qatoolkit.core.files import Damaged, differs, fingerprint, locked, plain, read_json, remove, to_json, write_json

MANIFEST = "manifest.json"
SEAL = "sha256"  # in a sealed document: the digest of the rest of it
_whole: dict[str, tuple] = {}  # by path: what stat said of a file when it was last found whole
_read: dict[str, tuple] = {}  # by path: the same of a sealed document, and its content


def as_json(value):
    """A value as JSON gives it back: tuples as lists, settings and numpy values as plain ones."""
    return json.loads(json.dumps(value, default=plain))


def key_of(*content) -> str:
    """The digest that stands for everything a result depends on: 64 hex digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=plain).encode()).hexdigest()


def write_sealed(value: dict, path: Path) -> None:
    """Write a JSON object with its own digest in it."""
    value = as_json(value)
    write_json(value | {SEAL: key_of(value)}, path)


def read_sealed(path: Path, remedy: str) -> dict:
    """Read what `write_sealed` wrote; Damaged, with the file and the remedy, where it is not that any more."""
    stat = _stat(path)
    if (known := _read.get(str(path))) and known[0] == stat:
        return json.loads(known[1])
    try:
        found = read_json(path)
        text, seal = to_json(found), found.pop(SEAL, None)
        if key_of(found) != seal or path.read_bytes() != text.encode():
            raise Damaged
    except (Damaged, AttributeError, TypeError, UnicodeError):
        raise Damaged(f"{path} is damaged or was edited: {remedy}") from None
    _read[str(path)] = stat, json.dumps(found)
    return found


def _stat(path: Path | str) -> tuple:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ino


def inventory(folder: Path, known: Container[str] = (MANIFEST,)) -> dict[str, dict]:
    """The fingerprint of every file of an artifact by its path there, without those that are `known`, locks and
    leftovers."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.endswith((".lock", ".tmp")))
    named = ((p.relative_to(folder).as_posix(), p) for p in files)
    return {name: fingerprint(path) for name, path in named if name not in known}


class Artifact:
    """A folder `root/kind/key`, its last part the first 16 digits of the key."""

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
        """The artifact that a `name`, or a path that begins with one, stands for."""
        return cls(root, *name.split("/")[:2])

    @property
    def remedy(self) -> str:
        """What to do when a file of it is damaged."""
        return f"remove {self.folder} and run again what made it; what teachers answered is in the ledger, and free"

    @property
    def unfinished(self) -> str:
        """What is said where it has no manifest."""
        return f"{self.folder / MANIFEST} is missing: {self.remedy}"

    @property
    def record(self) -> dict | None:
        """What was written last, or None while it is not finished; Damaged where it is not as it was written."""
        path = self.folder / MANIFEST
        return read_sealed(path, self.remedy) if path.exists() else None

    @property
    def manifest(self) -> dict | None:
        """Its record, or None while it is not finished. Damaged names the first file that is not as it was written:
        small ones are compared whole, large ones by pieces, and each once in a process unless it changes."""
        record = self.record
        for path, why in self.damage(record or {}):
            raise Damaged(f"{path} {why}: {self.remedy}")
        return record

    def damage(self, record: dict, *, whole: bool = False) -> Iterator[tuple[Path, str]]:
        """The files that are not as its record says, with how they differ; all bytes are read where `whole`."""
        for name, known in record.get("files", {}).items():
            path = f"{self.folder}/{name}"
            try:
                stat = _stat(path)
            except OSError:
                stat = None
            if not whole and stat and _whole.get(path) == stat:
                continue
            if why := differs(Path(path), known, whole=whole):
                yield Path(path), why
            else:
                _whole[path] = stat

    @contextmanager
    def making(self) -> Iterator[Path]:
        """The folder to write into, for one process at a time. What an interrupted attempt finished in it is kept; its
        half-written files go."""
        holder = f"another process, which makes {self.kind}"
        with locked(self.folder.with_name(f".{self.folder.name}.lock"), holder):
            for leftover in list(self.folder.rglob(".*.tmp")):
                remove(leftover)
            self.folder.mkdir(parents=True, exist_ok=True)
            yield self.folder

    def finish(self, record: dict) -> dict:
        """Write the manifest: from now on it is complete."""
        record = {"kind": self.kind, "key": self.key} | record | {"files": inventory(self.folder)}
        write_sealed(record, self.folder / MANIFEST)
        return record

    def add_files(self) -> None:
        """Take files into the manifest that were added since it was finished, such as packed tokens."""
        with locked(self.folder.with_name(f".{self.folder.name}.lock")):
            record = self.record
            if added := inventory(self.folder, {MANIFEST, *record["files"]}):
                write_sealed(record | {"files": record["files"] | added}, self.folder / MANIFEST)
