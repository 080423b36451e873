"""What a machine has: the checks behind `qatoolkit doctor`. No value of a key is ever read out."""

import importlib.util
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import version

from qatoolkit.run.store import results_root

LIBRARIES = ("torch", "transformers", "datasets", "lm_eval", "openai", "jupyterlab", "papermill", "numba")
LEAST_FREE = 2 * 2**30


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report: whether it is fine, what was looked at, what was found."""

    ok: bool
    what: str
    found: str


def checks() -> list[Finding]:
    """All checks, in the order a newcomer would ask them."""
    root = results_root()
    existing = next(p for p in (root, *root.parents) if p.exists())
    usable = existing.is_dir() and os.access(existing, os.W_OK)
    free = shutil.disk_usage(existing).free
    found = [
        Finding(ok=sys.version_info >= (3, 11), what="Python", found=f"{platform.python_version()} (3.11 or newer)"),
        Finding(ok=True, what="cores", found=str(len(os.sched_getaffinity(0)))),
        Finding(
            ok=free > LEAST_FREE, what="free disk", found=f"{free / 2**30:.0f} GiB where results go (2 GiB or more)"
        ),
        Finding(
            ok=usable,
            what="results folder",
            found=f"{root}" if usable else f"{existing} is no folder that can be written: set QATOOLKIT_RESULTS",
        ),
    ]
    for name in LIBRARIES:
        there = importlib.util.find_spec(name) is not None
        found.append(Finding(ok=there, what=name, found=version(name) if there else "missing: pip install -e '.[all]'"))
    found.append(Finding(ok=True, what="GPU", found=gpu_name()))
    url = re.sub(r"//[^/@]*@", "//", os.environ.get("OPENAI_BASE_URL", ""))  # without a name and password
    found.append(Finding(ok=True, what="teacher", found=url or "offline teacher (OPENAI_BASE_URL is not set)"))
    key = "set" if os.environ.get("OPENAI_API_KEY") else "not set (the offline teacher needs none)"
    found.append(Finding(ok=True, what="OPENAI_API_KEY", found=key))
    return found


def gpu_name() -> str:
    """The GPU that training would use, or why there is none."""
    if importlib.util.find_spec("torch") is None:
        return "unknown without torch"
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none: training runs on the CPU"
