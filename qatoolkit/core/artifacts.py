"""Finished work addressed by content: a folder named by the digest of all it was made from, whole or not there.

One mechanism for "is it finished, from the same inputs?": stages of runs, token files, trained models, scores of a task
and executed notebooks. `manifest.json` is written last, so that its presence means complete.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qatoolkit.core.files import locked, plain, read_json, remove, write_json

MANIFEST = "manifest.json"


def as_json(value):
    """A value as JSON gives it back: tuples as lists, settings and numpy values as plain ones."""
    return json.loads(json.dumps(value, default=plain))


def key_of(*content) -> str:
    """The digest that stands for everything a result depends on: 64 hex digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=plain).encode()).hexdigest()


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

    @property
    def manifest(self) -> dict | None:
        """What was written last, or None while it is not finished."""
        path = self.folder / MANIFEST
        return read_json(path) if path.is_file() else None

    @contextmanager
    def making(self) -> Iterator[Path]:
        """The folder to write into, for one process at a time. What an interrupted attempt finished in it is kept; its
        half-written files go."""
        with locked(self.folder.with_name(f".{self.folder.name}.lock")):
            for leftover in list(self.folder.rglob(".*.tmp")):
                remove(leftover)
            self.folder.mkdir(parents=True, exist_ok=True)
            yield self.folder

    def finish(self, record: dict) -> dict:
        """Write the manifest: from now on it is complete."""
        record = {"kind": self.kind, "key": self.key} | record
        write_json(record, self.folder / MANIFEST)
        return record
