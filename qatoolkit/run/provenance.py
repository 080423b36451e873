"""Where results come from: the commit, the machine and the versions that a stage was made with."""

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from qatoolkit import __version__

LIBRARIES = ("torch", "transformers", "lm_eval", "datasets", "openai", "pandas")


def provenance() -> dict[str, str]:
    """`finished` (UTC), `commit`, `machine` and `versions`, as the manifest of a stage and the report state them. The
    GPU is named where this process has loaded torch, which a stage that uses one has."""
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
    def found() -> Iterator[str]:
        for name in LIBRARIES:
            with suppress(PackageNotFoundError):
                yield f"{name} {version(name)}"

    return tuple(found())


@functools.cache
def _commit() -> str | None:
    """The commit of the checkout that this package is in, as it is now, with "changed" where files differ from it; None
    outside one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed, perhaps inside another checkout
        return None
    try:
        said = [
            subprocess.run(
                ["git", "-C", str(root), *asked], capture_output=True, text=True, timeout=20, check=True
            ).stdout
            for asked in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return said[0].strip() + (", changed" if said[1].strip() else "")
