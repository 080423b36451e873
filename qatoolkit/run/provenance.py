"""Provenance of results: the commit, the machine and the versions that a stage was made with."""

import functools
import os
import platform
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from qatoolkit import __version__

LIBRARIES = ("torch", "transformers", "lm_eval", "datasets", "openai", "pandas")


def provenance() -> dict[str, str]:
    """`finished` (UTC), `commit`, `machine` and `versions`, for the manifest of a stage and the report. The GPU is
    named if this process has loaded torch, as every stage that uses one does."""
    return {
        "finished": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        "commit": _commit() or "no git checkout",
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {_gpu()}",
        "versions": ", ".join([f"qatoolkit {__version__}", f"Python {platform.python_version()}", *_versions()]),
    }


def _gpu() -> str:
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else "no GPU used"


@functools.cache
def _versions() -> tuple[str, ...]:
    found = []
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return tuple(found)


@functools.cache
def _commit() -> str | None:
    """The present commit of the checkout that this package is in, with "changed" if files differ from it; None outside
    a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed, perhaps inside another checkout
        return None
    try:
        head, changes = (
            subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=True
            ).stdout.strip()
            for arguments in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head + (", changed" if changes else "")
