"""Running the notebooks in order, outside Jupyter: executed copies go to `results/<run>/notebooks/`, finished ones are
skipped."""

import gc
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from qatoolkit import __version__
from qatoolkit.core.artifacts import key_of
from qatoolkit.core.files import locked, read_json, write_text
from qatoolkit.run.answer_counts import NOTES
from qatoolkit.run.check import FILES, is_whole, record_files
from qatoolkit.run.contracts import BESIDE, NOTEBOOKS
from qatoolkit.run.remembered import FILE as RUN_FILE
from qatoolkit.run.store import POINTERS, Run
from qatoolkit.synthesis.strategies import PACKAGED
from qatoolkit.training.stops import Stopped, stop_requests

# Own model and tour come last: they read what the others made, and compute nothing twice.
FLOW = sorted({*NOTEBOOKS.values(), *PACKAGED.values(), "05b_steering"})
ORDER = (*FLOW, *sorted({*BESIDE.values()}), "12_own_model", "00_tour")
SECONDS = 60.0  # that a kernel has to answer between two notebooks


class NotebookFailed(RuntimeError):
    """A notebook stopped with an error; the message has the error and the path of the executed copy."""


def notebooks_folder() -> Path:
    """The `notebooks/` folder of the checkout; ValueError if the package was installed without one."""
    folder = Path(__file__).resolve().parents[2] / "notebooks"
    if not folder.is_dir():
        raise ValueError("the notebooks are not part of an installed package: run from a checkout (pip install -e .)")
    return folder


def chosen(only: list[str], beside: bool = True) -> list[str]:
    """The notebooks to run, in order: those picked in `only` by number, name or the beginning of a name; else all,
    those beside the flow only with `beside`. ValueError for a name that does not pick one notebook."""
    picked = []
    for name in only:
        start = name.removesuffix(".ipynb")
        found = [n for n in ORDER if start in (n, n.split("_")[0])] or [n for n in ORDER if n.startswith(start)]
        if len(found) != 1:
            raise ValueError(f"--only {name!r} fits {len(found)} notebooks; there are {', '.join(sorted(ORDER))}")
        picked += found
    return [n for n in ORDER if (n in picked if only else beside or n not in BESIDE.values())]


def run_notebooks(run: Run, profile: str | None, only: list[str] | None = None, log=print) -> int:
    """Execute notebooks for a run and return how many were not done before.

    A notebook is done if its executed copy was made from the same source with the same settings, seed and version, and
    its stages are unchanged (`Run.changed`). If two commands run at once, each notebook is executed by one of them
    while the other waits. `profile` is what the notebooks get as PROFILE, None for the one that the run remembers.
    Raises NotebookFailed at the first error; finished notebooks are kept. SIGTERM and SIGUSR1 are passed on to the
    running notebook as SIGTERM: a training saves its state, calls of a teacher are completed, and Stopped is raised."""
    names = chosen(only or [], run.profile.beside)
    folder = run.folder / "notebooks"
    started, executed = time.perf_counter(), 0
    with SharedKernel() as kernel:
        for position, name in enumerate(names, 1):
            source, target = notebooks_folder() / f"{name}.ipynb", folder / f"{name}.ipynb"
            with locked(folder / ".lock", f"another command, which runs a notebook of run {run.name!r}"):
                key = _key(run, source)
                if target.exists() and not is_whole(run.folder, target):
                    aside = target.with_name(f"{name}.changed.ipynb")
                    os.replace(target, aside)
                    log(f"{os.path.relpath(target)} was damaged or edited: kept as {aside.name}, executing it again")
                if _key_of(target) == key and _is_current(run, name):
                    continue
                log(f"[{position}/{len(names)}] {name}")
                begun, begun_at = time.perf_counter(), time.time()
                _execute(run, profile, source, target, key, kernel)
                record_files(run.folder, _written_since(run.folder, begun_at))
                executed += 1
                log(f"[{position}/{len(names)}] {name} done in {time.perf_counter() - begun:.0f} s")
    where = os.path.relpath(run.folder)
    if executed:
        log(f"run {run.name!r}: {executed} notebooks in {time.perf_counter() - started:.0f} s, results in {where}")
    else:
        log(f"run {run.name!r}: nothing to do, all {len(names)} notebooks are done; results in {where}")
    return executed


def _written_since(folder: Path, moment: float) -> list[Path]:
    """The files that a notebook has written into a run's folder since a moment: its executed copy, figures, exports."""
    places = [folder / "notebooks", folder / "figures", folder / "export"]
    files = [*folder.glob("*.json"), *folder.glob("*.html"), *(p for place in places for p in place.rglob("*"))]
    skip = {POINTERS, NOTES, FILES, RUN_FILE}  # these carry their own digest
    return [p for p in files if p.is_file() and p.name[0] != "." and p.name not in skip and p.stat().st_mtime >= moment]


def _key(run: Run, source: Path) -> str:
    return key_of("notebook", __version__, run.name, run.seed, run.profile, source.read_text(encoding="utf-8"))


def _is_current(run: Run, notebook: str) -> bool:
    """Whether all stages that a notebook makes are done and unchanged."""
    made = [stage for stage, maker in (run.stages() | BESIDE).items() if maker == notebook]
    return all(run.manifest(stage) and not run.changed(stage) for stage in made)


def _key_of(executed: Path) -> str | None:
    if not executed.exists():
        return None
    return read_json(executed)["metadata"].get("qatoolkit", {}).get("key")


def _reason(error: Exception) -> str:
    """The message of a notebook that was stopped."""
    return getattr(error, "evalue", None) or "its kernel has ended; run the same command again to continue"


class SharedKernel:
    """One kernel for the notebooks of a command: torch, transformers and what a run reads are loaded once.

    Every notebook finds it without names, figures or history. A kernel that has used a GPU is replaced, since it would
    keep memory there that the next notebook's trainings need."""

    def __init__(self):
        self.manager = _kernel_manager()

    def __enter__(self) -> "SharedKernel":
        return self

    def __exit__(self, *_) -> None:
        if self.manager.has_kernel:
            self.manager.shutdown_kernel()

    def empty(self) -> None:
        """Take names, figures and history from the kernel, if it runs; one that can't be emptied is replaced."""
        if not self.manager.has_kernel:
            return
        client = self.manager.blocking_client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=SECONDS)
            code, asked = f"from {__name__} import empty_kernel", {"used_gpu": "empty_kernel()"}
            reply = client.execute_interactive(code, silent=True, user_expressions=asked, timeout=SECONDS)
            unusable = reply["content"]["user_expressions"]["used_gpu"]["data"]["text/plain"] != "False"
        except (RuntimeError, TimeoutError, KeyError):  # it has ended, or does not answer
            unusable = True
        finally:
            client.stop_channels()
        if unusable:
            self.manager.shutdown_kernel(now=True)
            self.manager = _kernel_manager()

    def terminate(self) -> None:
        """Pass a request to stop on to the kernel."""
        provisioner = self.manager.provisioner
        if provisioner and provisioner.pid:
            with suppress(ProcessLookupError):
                os.kill(provisioner.pid, signal.SIGTERM)


def _kernel_manager():
    from jupyter_client import KernelManager

    client = "jupyter_client.asynchronous.client.AsyncKernelClient"
    return KernelManager(kernel_name="python3", client_class=client)


def empty_kernel() -> bool:
    """Called in a kernel: close all figures, forget all names and outputs. Returns whether it has used a GPU."""
    from IPython import get_ipython

    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
    get_ipython().reset()
    gc.collect()
    return "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized()


def _execute(run: Run, profile: str | None, source: Path, target: Path, key: str, kernel: SharedKernel) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    target.parent.mkdir(parents=True, exist_ok=True)
    working = target.with_name(f".{source.stem}.running.ipynb")
    try:
        with stop_requests(kernel.terminate) as asked_to_stop:
            kernel.empty()
            if asked_to_stop():
                raise Stopped(f"stopped on request before {source.stem}; run the same command again to continue")
            papermill.execute_notebook(
                str(source),
                str(working),
                parameters={"PROFILE": profile, "RUN": run.name, "SEED": run.seed},
                kernel_name="python3",
                cwd=str(source.parent),
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
                extra_arguments=["--log-level=ERROR"],  # the kernel warns of its plain local socket at every start
                km=kernel.manager,
            )
    except (PapermillExecutionError, DeadKernelError) as error:
        if asked_to_stop():
            working.unlink(missing_ok=True)
            raise Stopped(f"{source.stem} stopped on request ({_reason(error)})") from None
        if isinstance(error, DeadKernelError):
            raise
        failed = target.with_name(f"{source.stem}.failed.ipynb")
        os.replace(working, failed)
        raise NotebookFailed(
            f"{source.stem} stopped: {error.ename}: {error.evalue} (executed copy: {os.path.relpath(failed)})"
        ) from None
    notebook = read_json(working)
    notebook["metadata"]["qatoolkit"] = {"key": key}
    notebook["metadata"].pop("papermill", None)
    write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", target)
    working.unlink()
    if asked_to_stop():
        raise Stopped(f"stopped on request after {source.stem}, which is done; run the same command again to continue")
