"""Run folders: atomic Parquet and JSON, a manifest written last, and stages that are skipped when nothing changed.

`results/<run>/<stage>/` holds what a stage wrote. Its `manifest.json` is written after everything else, so its presence
means complete; it records the stage's key (settings, seed, package version, and the content of every stage it read) and a
digest of every output. A stage whose key is unchanged is not run again and says so.
"""

import functools
import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from numbers import Integral
from operator import attrgetter
from pathlib import Path

import pandas as pd

from qatoolkit import __version__
from qatoolkit.config import Profile
from qatoolkit.files import atomic, digest, locked, plain, read_json, remove, write_json
from qatoolkit.profiles import load_profile
from qatoolkit.schema import as_lists

NOTEBOOKS = {
    "seeds": "01_seeds",
    "annotate": "02_annotate",
    "base": "03_probe",
    "probe": "03_probe",
    "plan": "03_probe",
    "boostqa": "04_boostqa",
    "error_rates": "04_boostqa",
    "linkqa": "05_linkqa",
    "curate": "06_curate",
    "midtrain": "07_midtrain",
    "evaluate": "08_evaluate",
    "scaling": "09_scaling",
    "ablations": "10_ablations",
    "summary": "11_figures",
}


class MissingUpstream(RuntimeError):
    """A stage was asked for before a stage it reads; the message names the notebook and the command that make it."""


def results_root() -> Path:
    """Where run folders live: $QATOOLKIT_RESULTS, else `results/` of the checkout, else of the working directory."""
    if root := os.environ.get("QATOOLKIT_RESULTS"):
        return Path(root)
    checkout = Path(__file__).resolve().parent.parent
    return (checkout if (checkout / "pyproject.toml").exists() else Path.cwd()) / "results"


def write_table(table: pd.DataFrame, path: Path) -> None:
    """A table as Parquet, atomically."""
    with atomic(path) as temporary:
        table.to_parquet(temporary, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """A Parquet table; list columns come back as Python lists."""
    return as_lists(pd.read_parquet(path))


FILES = ("seeds.sources", "linkqa.merges", "student.checkpoint")  # dials that name files whose content counts


def contents(profile: Profile, files: tuple[str, ...] = FILES) -> dict:
    """Digests of the files and folders here that the dials `files` of a profile name, by "content of" the dial."""
    found = {}
    for dial in files:
        named = attrgetter(dial)(profile) or ()
        here = [Path(p) for p in ((named,) if isinstance(named, str) else named) if Path(p).exists()]
        if here:
            found[f"content of {dial}"] = [digest(path) for path in here]
    return found


class Outputs:
    """What a stage wrote, read from disk on access: `.name` is a table (Parquet), a value (JSON) or a folder's path."""

    def __init__(self, folder: Path, names: list[str], skipped: bool):
        self._folder, self._names, self.skipped = folder, names, skipped

    def __dir__(self):
        return self._names

    def __getattr__(self, name: str):
        for suffix, read in ((".parquet", read_table), (".json", read_json)):
            if (path := self._folder / f"{name}{suffix}").is_file():
                return read(path)
        if (self._folder / name).is_dir():
            return self._folder / name
        if name in self._names:
            raise FileNotFoundError(
                f"{self._folder / name} is gone: remove {self._folder / 'manifest.json'} and run the stage again"
            )
        raise AttributeError(f"{self._folder.name} wrote no {name!r}; it wrote {', '.join(self._names)}")

    def __repr__(self):
        return f"{self._folder.name}: {', '.join(self._names)}"


class Run:
    """A named run: its folder, profile and seed. Opened by `open_run`."""

    def __init__(self, name: str, profile: Profile, seed: int, root: Path, source: str | None = None):
        self.name, self.profile, self.seed, self.folder = name, profile, seed, root / name
        self._source = source or profile.name

    def __repr__(self):
        return f"Run {self.name!r}: profile {self.profile.name}, seed {self.seed}, {len(self.done())} stages done"

    @property
    def command(self) -> str:
        """The command line that goes on with this run, its profile and seed."""
        seed = f" --seed {self.seed}" if self.seed else ""
        return f"qatoolkit run --profile {self._source} --run {self.name}{seed}"

    def stage(self, stage: str) -> Path:
        return self.folder / stage

    def manifest(self, stage: str) -> dict | None:
        """The manifest of a finished stage, or None."""
        path = self.stage(stage) / "manifest.json"
        return read_json(path) if path.exists() else None

    def done(self) -> list[str]:
        """Finished stages in the order of the flow."""
        found = [p.parent.relative_to(self.folder).as_posix() for p in self.folder.glob("**/manifest.json")]
        place = {stage: i for i, stage in enumerate(NOTEBOOKS)}
        return sorted(found, key=lambda s: (place.get(s.split("/")[0], len(place)), s))

    def read(self, stage: str) -> Outputs:
        """The outputs of a finished stage; MissingUpstream names the notebook to run."""
        manifest = self.manifest(stage)
        if manifest is None:
            notebook = NOTEBOOKS.get(stage.split("/")[0], stage)
            raise MissingUpstream(
                f"run {self.name!r} has no {stage!r} yet: run notebooks/{notebook}.ipynb, or "
                f"`{self.command} --only {notebook}`"
            )
        return Outputs(self.stage(stage), list(manifest["outputs"]), skipped=True)

    def key(self, stage: str, settings, reads: tuple[str, ...]) -> str:
        """Digest of everything the stage's result depends on."""
        upstream = {}
        for name in reads:
            self.read(name)
            upstream[name] = self.manifest(name)["outputs"]
        content = [stage, __version__, self.seed, json.loads(json.dumps(settings, default=plain)), upstream]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def changed(self, stage: str) -> list[str]:
        """What a finished stage was made with or from that is another now: parts of the profile, contents of files, "seed",
        "version" or "what it read", however far up the flow; empty where running all again would skip it."""
        if found := self._differs(stage):
            return found
        above = list(self.manifest(stage)["reads"])
        for name in above:  # grows as it goes
            if self.manifest(name) is None or self._differs(name):
                return ["what it read"]
            above += [further for further in self.manifest(name)["reads"] if further not in above]
        return [] if self._key_stands(stage) and all(map(self._key_stands, above)) else ["what it read"]

    def _differs(self, stage: str) -> list[str]:
        """Settings, contents of files, seed and version of a finished stage that are others now."""
        manifest = self.manifest(stage)
        used = tuple(dial for dial in FILES if f"content of {dial}" in manifest["settings"])
        now = (
            {"seed": self.seed, "version": __version__} | asdict(self.profile) | contents(self.profile, used)
        )
        now = json.loads(json.dumps(now, default=plain))
        made = manifest["settings"] | {name: manifest[name] for name in ("seed", "version")}
        return [name for name, value in made.items() if now.get(name) != value]

    def _key_stands(self, stage: str) -> bool:
        manifest = self.manifest(stage)
        return manifest["key"] == self.key(stage, manifest["settings"], tuple(manifest["reads"]))

    def _begin(self, folder: Path, key: str) -> None:
        """Keep what an interrupted attempt with the same key left, except half-written files; remove all else."""
        begun = folder / "begun.json"
        if not begun.exists() or read_json(begun) != key:
            remove(folder)
            write_json(key, begun)
        for leftover in list(folder.rglob(".*.tmp")):
            remove(leftover)

    def complete(
        self, name: str, settings, reads: tuple[str, ...], make: Callable[[Path], dict], log=print
    ) -> Outputs:
        """Run one stage unless it is done: `make(folder)` returns {name: table, JSON value or None for a folder that it
        wrote itself}; the manifest is written last."""
        key, folder = self.key(name, settings, reads), self.stage(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / ".lock"):
            manifest = self.manifest(name)
            if manifest and manifest["key"] == key:
                log(f"{name}: done before, nothing to do")
                return Outputs(folder, list(manifest["outputs"]), skipped=True)
            if manifest:
                log(f"{name}: settings or inputs changed, running again")
            for upstream in reads:
                if other := self.changed(upstream):
                    notebook = NOTEBOOKS.get(upstream, "01_seeds")
                    log(
                        f"{name}: reads {upstream} as it is, though {', '.join(other)} changed since: see {notebook}"
                    )
            self._begin(folder, key)
            started = time.perf_counter()
            outputs = make(folder)
            digests = {}
            for output, value in outputs.items():
                if isinstance(value, pd.DataFrame):
                    path = folder / f"{output}.parquet"
                    write_table(value, path)
                elif value is not None:
                    path = folder / f"{output}.json"
                    write_json(value, path)
                else:
                    path = folder / output
                digests[output] = digest(path)
            seconds = round(time.perf_counter() - started, 2)
            record = {
                "stage": name,
                "key": key,
                "version": __version__,
                "seed": self.seed,
                "settings": settings,
                "reads": list(reads),
                "outputs": digests,
                "seconds": seconds,
            }
            write_json(record, folder / "manifest.json")
        log(f"{name}: done in {seconds:.1f} s")
        return Outputs(folder, list(digests), skipped=False)


def stage(
    name: str, *, reads: tuple[str, ...] = (), settings: tuple[str, ...] = (), files: tuple[str, ...] = ()
):
    """Makes `function(run, folder) -> {output: table, value or None}` a stage that is skipped when nothing changed.

    `reads` names upstream stages, `settings` the parts of the profile it depends on, `files` settings among them, such as
    "linkqa.merges", that name files or folders whose content counts as well."""

    def wrap(function):
        @functools.wraps(function)
        def staged(run: Run, log=print) -> Outputs:
            chosen = {part: getattr(run.profile, part) for part in settings}
            chosen |= contents(run.profile, files)
            return run.complete(name, chosen, reads, functools.partial(function, run), log)

        return staged

    return wrap


def open_run(
    name: str | None = None, *, profile: str = "smoke", seed: int = 0, root: Path | None = None, **dials
) -> Run:
    """Open or start a run: `open_run("demo", profile="demo", seed=0)`; dials change one setting each, e.g.
    `open_run("no-refine", profile="demo", **{"boostqa.refine": False})`.

    Raises ValueError for a name that could leave the results folder, an unknown profile, a wrong setting or seed."""
    chosen = load_profile(profile, **dials)
    name = name or chosen.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError(
            f"run name {name!r}: use letters, digits, dot, dash and underscore, starting with a letter or digit"
        )
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed!r}; it must be a whole number from 0 to 2**32 - 1")
    source = None if isinstance(profile, Profile) else str(profile)
    return Run(name, chosen, int(seed), root or results_root(), source)
