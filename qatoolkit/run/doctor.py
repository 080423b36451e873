"""The checks of this machine behind `qatoolkit doctor`. The value of a key is never shown."""

import importlib.util
import os
import platform
import re
import shutil
import sys
from importlib.metadata import version
from typing import NamedTuple

from qatoolkit.run.store import results_root

LIBRARIES = ("torch", "transformers", "datasets", "lm_eval", "openai", "jupyterlab", "papermill", "numba")
LEAST_FREE = 2 * 2**30
UNUSABLE = "is not a writable folder: set QATOOLKIT_RESULTS"


class Finding(NamedTuple):
    """One line of the report: whether it is fine, what was checked, what was found."""

    ok: bool
    what: str
    found: str


def checks() -> list[Finding]:
    """All checks, the basic ones first."""
    root = results_root()
    existing = next(p for p in (root, *root.parents) if p.exists())
    usable = existing.is_dir() and os.access(existing, os.W_OK)
    free = shutil.disk_usage(existing).free
    found = [
        Finding(sys.version_info >= (3, 11), "Python", f"{platform.python_version()} (3.11 or newer)"),
        Finding(True, "cores", str(len(os.sched_getaffinity(0)))),
        Finding(free > LEAST_FREE, "free disk", f"{free / 2**30:.0f} GiB where results go (2 GiB or more)"),
        Finding(usable, "results folder", f"{root}" if usable else f"{existing} {UNUSABLE}"),
    ]
    for name in LIBRARIES:
        there = importlib.util.find_spec(name) is not None
        found.append(Finding(there, name, version(name) if there else "missing: pip install -e '.[all]'"))
    url = re.sub(r"//[^/@]*@", "//", os.environ.get("OPENAI_BASE_URL", ""))  # without user name and password
    key = "set" if os.environ.get("OPENAI_API_KEY") else "not set (the offline teacher needs none)"
    return [
        *found,
        Finding(True, "GPU", gpu_name()),
        Finding(True, "teacher", url or "offline teacher (OPENAI_BASE_URL is not set)"),
        Finding(True, "OPENAI_API_KEY", key),
    ]


def gpu_name() -> str:
    """The GPU that training would use, or why there is none."""
    if importlib.util.find_spec("torch") is None:
        return "unknown without torch"
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none: training runs on the CPU"
