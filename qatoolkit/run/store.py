"""Runs and their stages: each finished stage is an artifact addressed by content, and a run points to the ones it uses.

`results/stages/<stage>/<key>/` has what a stage wrote. The key is the digest of its settings, of the content of what it
read, of the seed, of the prompts it sends and of the version of the stage's own contract, so a second run with one dial
changed reuses every stage that the dial does not touch. `results/<run>/stages.json` points to a run's artifacts by
name; links beside it open them in a file browser if the file system has links."""

import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from numbers import Integral
from operator import attrgetter
from pathlib import Path

from qatoolkit.core.artifacts import Artifact, as_json, key_of, read_sealed, write_sealed
from qatoolkit.core.display import InOneLine, Interrupted, facts
from qatoolkit.core.files import digest, locked, remove
from qatoolkit.core.settings import turn_dials
from qatoolkit.run.answer_counts import STOPS, AnswerCounts, Incomplete, Notes, describe
from qatoolkit.run.contracts import BESIDE, NOTEBOOKS, VERSIONS, Stage, lists_of, prompt_version
from qatoolkit.run.outputs import Outputs, write_output
from qatoolkit.run.profiles import PROFILES, Profile, load_profile
from qatoolkit.run.provenance import provenance
from qatoolkit.run.remembered import FILE as REMEMBERED
from qatoolkit.run.remembered import profile_of, refuse_other_settings, remedy_of, remember, remembered
from qatoolkit.run.world import World, world_of
from qatoolkit.synthesis.strategies import PACKAGED
from qatoolkit.teacher.ledger import Ledger

POINTERS, DEFAULT = "stages.json", "smoke"
STAGES = "stages"  # the folder of artifacts among the run folders
CONTENT = "content of "  # begins the name of a setting that is the content of a file
LEDGER, TEACHER_LOG = "ledger.sqlite", "teacher.log.jsonl"  # files of all runs beside it


class MissingUpstream(InOneLine, RuntimeError):
    """A stage that is needed is not made yet; the message names the notebook and the command that make it."""


def results_root() -> Path:
    """The folder of run folders: $QATOOLKIT_RESULTS, else `results/` in the checkout, else in the working directory."""
    if root := os.environ.get("QATOOLKIT_RESULTS"):
        return Path(root)
    checkout = Path(__file__).resolve().parents[2]
    return (checkout if (checkout / "pyproject.toml").exists() else Path.cwd()) / "results"


def contents(profile: Profile, names: Iterable[str]) -> dict:
    """Digests of the files and folders that the dials `names` of a profile point to, by "content of <dial>"."""
    digests = {}
    for name in names:
        value = attrgetter(name)(profile) or ()
        existing = [Path(p) for p in ((value,) if isinstance(value, str) else value) if Path(p).exists()]
        if existing:
            digests[f"{CONTENT}{name}"] = [digest(path) for path in existing]
    return digests


class Run:
    """A named run: its folder, profile, seed and world. Opened by `open_run`."""

    def __init__(
        self,
        name: str,
        profile: Profile,
        seed: int,
        root: Path,
        source: str | None = None,
        world: World | None = None,
        parent: "Run | None" = None,
        change: bool = False,
    ):
        self.name, self.profile, self.seed, self.root, self.folder = name, profile, seed, Path(root), Path(root) / name
        self.world = world or world_of(profile, self.root / TEACHER_LOG)
        self.source, self.own_world, self.parent, self.change = source or profile.name, world, parent, change
        self.artifacts = self.root / STAGES  # of all runs
        self._checked, self.answer_counts, self.notes = False, AnswerCounts(), Notes(self.folder)

    def __repr__(self):
        return f"Run {self.name!r}: profile {self.profile.name}, seed {self.seed}, {len(self.done())} stages done"

    def _repr_html_(self) -> str:
        todo = [stage for stage in self.stages() if not self.manifest(stage)]
        about = {"profile": self.profile.name, "seed": self.seed, "folder": os.path.relpath(self.folder)}
        about["stages done"] = f"{len(self.stages()) - len(todo)} of {len(self.stages())}"
        about |= {"next": f"{todo[0]}, in {self.stages()[todo[0]]}"} if todo else {}
        notes = {f"{stage} is incomplete": note for stage, note in self.notes.read().items()}
        return facts(about | notes, title=f"Run {self.name}").html

    @property
    def billed_to(self) -> str:
        """The name under which teacher calls are counted: a variant's calls are its run's."""
        return self.parent.billed_to if self.parent else self.name

    def ledger(self) -> Ledger:
        """The ledger of all runs in the results folder, opened; to be closed, as in `with run.ledger() as ledger`."""
        return Ledger(self.root / LEDGER)

    @property
    def command(self) -> str:
        """The command line that continues this run, with its profile and seed; a variant's is that of its run."""
        if self.parent:
            return self.parent.command
        if (self.folder / REMEMBERED).exists():  # which has its dials too
            return f"qatoolkit run --run {self.name}"
        seed = f" --seed {self.seed}" if self.seed else ""
        return f"qatoolkit run --profile {self.source} --run {self.name}{seed}"

    def variant(self, name: str, dials: dict) -> "Run":
        """This run with dials turned, in a folder below its own; it shares every stage that the dials do not touch."""
        name, profile = f"{self.name}/variants/{name}", turn_dials(self.profile, dials)
        return Run(name, profile, self.seed, self.root, self.source, self.own_world, self)

    def pointers(self) -> dict[str, str]:
        """The artifacts of this run by stage, as `kind/key`."""
        path = self.folder / POINTERS
        return read_sealed(path, remedy_of(self.folder)) if path.exists() else {}

    def artifact(self, stage: str) -> Artifact | None:
        """The artifact that a stage of this run points to, or None; a variant falls back on that of its run."""
        name = self.pointers().get(stage)
        if name is None:
            return self.parent.artifact(stage) if self.parent else None
        return Artifact.named(self.artifacts, name)

    def stage(self, stage: str) -> Path:
        """The folder of a stage; before it is finished, a path in the run's folder that does not exist."""
        found = self.artifact(stage)
        return found.folder if found else self.folder / stage

    def manifest(self, stage: str) -> dict | None:
        """The manifest of a finished stage, or None."""
        found = self.artifact(stage)
        return found.manifest if found else None

    def stages(self) -> dict[str, str]:
        """The stages of this run's flow in order, its data sets among them, each with the notebook that makes it."""
        made = {name: PACKAGED.get(about.strategy or name, "06_curate") for name, about in self.profile.data.items()}
        after_plan = list(NOTEBOOKS).index("error_rates")
        items = list(NOTEBOOKS.items())
        return dict([*items[:after_plan], *made.items(), *items[after_plan:]])

    def done(self) -> list[str]:
        """Finished stages in the order of the flow."""
        place = {stage: i for i, stage in enumerate(self.stages())}
        found = [name for name in self.pointers() if "stage" in (self.manifest(name) or {})]
        return sorted(found, key=lambda s: (place.get(s, len(place)), s))

    def read(self, stage: str) -> Outputs:
        """The outputs of a finished stage; MissingUpstream names the notebook to run."""
        manifest = self.manifest(stage)
        if manifest is None:
            flow = self.stages() | BESIDE
            if stage not in flow:
                raise MissingUpstream(f"run {self.name!r} has no stage {stage!r}; there are {', '.join(flow)}")
            how = f"run notebooks/{flow[stage]}.ipynb, or `{self.command} --only {flow[stage]}`"
            if note := self.notes.read().get(stage):
                raise MissingUpstream(
                    f"{stage!r} of run {self.name!r} is incomplete: {note}; {how} to request only those"
                )
            raise MissingUpstream(f"run {self.name!r} has no {stage!r} yet: {how}")
        return Outputs(stage, self.stage(stage), list(manifest["outputs"]), skipped=True)

    def model(self, name: str) -> Path:
        """The Hugging Face directory of the base student ("base") or of an arm; MissingUpstream if it is not trained
        yet."""
        if name == "base":
            return self.place("base", "model")
        models = self.read("midtrain").models
        if name not in models:
            raise ValueError(f"run {self.name!r} has no arm {name!r}; there are base, {', '.join(models)}")
        return self._artifact_folder(models[name])

    def place(self, stage: str, name: str) -> Path:
        """The folder of an artifact that a finished stage names in its `places`."""
        return self._artifact_folder(self.read(stage).places[name])

    def _artifact_folder(self, name: str) -> Path:
        """The folder of an artifact, or a folder in it, by name; Damaged or MissingUpstream if the artifact is damaged
        or gone."""
        artifact = Artifact.named(self.artifacts, name)
        if artifact.manifest is None:
            raise MissingUpstream(artifact.unfinished)
        return self.artifacts / name

    def settings_of(self, parts: Iterable[str], files: Iterable[str], profile: Profile) -> dict:
        """What a stage's key takes from the `parts` of the profile and the world, and from the files and folders that
        the dials `files` name."""
        return {part: self._setting(part, profile) for part in parts} | contents(profile, files)

    def _setting(self, name: str, profile: Profile):
        """A part of the profile by its dotted name, or of the world's settings (`world`, `world.exams`)."""
        if name != "world" and not name.startswith("world."):
            return attrgetter(name)(profile)
        known = self.world.settings
        return known.get(name.removeprefix("world."), known)

    def key(self, spec: Stage, settings: dict, asked: dict) -> str:
        """Digest of everything the result of a stage depends on."""
        upstream = {}
        for name in spec.reads:
            self.read(name)
            upstream[name] = self.manifest(name)["outputs"]
        asking = {name: prompt_version(name) for name in spec.prompts}
        return key_of(spec.kind, spec.version, self.seed, as_json(settings), upstream, asking, as_json(asked))

    def changed(self, stage: str) -> list[str]:
        """What has changed since a finished stage was made: parts of the profile, contents of files, "seed",
        "contract", "prompts" or "what it read", however far up the flow; empty if running everything again would skip
        it."""
        if changes := self._own_changes(stage):
            return changes
        above = list(self.manifest(stage)["reads"])
        for name in above:  # grows while it is read
            if self.manifest(name) is None or self._own_changes(name):
                return ["what it read"]
            above += [further for further in self.manifest(name)["reads"] if further not in above]
        return (
            [] if self._upstream_is_current(stage) and all(map(self._upstream_is_current, above)) else ["what it read"]
        )

    def _own_changes(self, stage: str) -> list[str]:
        """`changed` without what the stage read: its settings, contents of files, seed, contract and prompts."""
        made = self.manifest(stage)
        profile = turn_dials(self.profile, made["dials"])
        parts = [name for name in made["settings"] if not name.startswith(CONTENT)]
        files = [name.removeprefix(CONTENT) for name in made["settings"] if name.startswith(CONTENT)]
        now = as_json(self.settings_of(parts, files, profile))
        found = [name for name, value in made["settings"].items() if now.get(name) != value]
        lists = as_json(lists_of(made["kind"], profile)).items()
        found += [name for name, value in lists if made["asked"].get(name) != value]
        found += ["seed"] if made["seed"] != self.seed else []
        found += ["contract"] if made["version"] != VERSIONS.get(made["kind"], made["version"]) else []
        return found + (["prompts"] if any(prompt_version(n) != v for n, v in made["prompts"].items()) else [])

    def _upstream_is_current(self, stage: str) -> bool:
        """Whether the upstream stages of a finished stage still have the outputs that it read."""
        made = self.manifest(stage)
        return all(self.manifest(name)["outputs"] == outputs for name, outputs in made["upstream"].items())

    def point(self, stage: str, artifact: Artifact) -> None:
        """Make an artifact the one that a stage of this run uses, with a link to it if the file system has links."""
        with locked(self.folder / f".{POINTERS}.lock"):
            if not self.parent:
                remember(self)
            pointers = self.pointers()
            if pointers.get(stage) != artifact.name:
                write_sealed(pointers | {stage: artifact.name}, self.folder / POINTERS)
            self.notes.put(stage, None)
            link = self.folder / stage
            target = os.path.relpath(artifact.folder, link.parent)
            with suppress(OSError):
                if not link.is_symlink() or os.readlink(link) != target:
                    link.parent.mkdir(parents=True, exist_ok=True)
                    remove(link) if link.is_symlink() or not link.is_dir() else None
                    link.symlink_to(target, target_is_directory=True)

    def complete(
        self, name: str, spec: Stage, make: Callable[[Path], dict], *, dials=None, asked=None, log=print
    ) -> Outputs:
        """Run one stage unless it is done: `make(folder)` returns {name: table, JSON value, or None for a folder that
        it wrote itself}; the manifest is written last. `dials` are turned for this stage only; `asked` are arguments
        that its result depends on."""
        refuse_other_settings(self)
        if not self._checked:
            if self.change or self.parent or self.own_world or not remembered(self.folder):
                self.world.check()  # models take seconds to open: not again for a run that remembers the same profile
            self._checked = True
        dials, asked = dials or {}, asked or lists_of(spec.kind, self.profile)
        settings = self.settings_of(spec.settings, spec.files, turn_dials(self.profile, dials))
        key = self.key(spec, settings, asked)
        artifact, previous = Artifact(self.artifacts, spec.kind, key), self.artifact(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        if (manifest := artifact.manifest) is None:
            if name in self.pointers() and previous.manifest:
                log(f"{name}: {', '.join(self.changed(name)) or 'settings or inputs'} changed, running again")
            for upstream in spec.reads:
                if changes := self.changed(upstream):
                    notebook = self.stages().get(upstream, "01_seeds")
                    note = f" ({notes[upstream]})" if upstream in (notes := self.notes.read()) else ""
                    since = f"{', '.join(changes)} changed since{note}"
                    log(f"{name}: reads {upstream} as it is, although {since}: see {notebook}")
        with artifact.making() as folder:
            if (manifest := artifact.manifest) is not None:
                self.point(name, artifact)
                log("; ".join([f"{name}: done before, nothing to do", *describe(manifest)]))
                return Outputs(name, folder, list(manifest["outputs"]), skipped=True)
            started = time.perf_counter()
            outputs = self._make(name, make, folder, turn_dials(self.profile, dials).teacher.accept_missing)
            uses = outputs.pop("uses", [])
            digests = {output: digest(write_output(folder, output, value)) for output, value in outputs.items()}
            seconds = round(time.perf_counter() - started, 2)
            artifact.finish(
                {
                    "stage": name, "version": spec.version, "seed": self.seed, "settings": settings, "dials": dials,
                    "asked": asked, "reads": list(spec.reads),
                    "upstream": {n: self.manifest(n)["outputs"] for n in spec.reads},
                    "prompts": {n: prompt_version(n) for n in spec.prompts}, "uses": uses, "outputs": digests,
                    "seconds": seconds, "made": provenance(),
                } | self.answer_counts.record()
            )  # fmt: skip
        self.point(name, artifact)
        log("; ".join([f"{name}: done in {seconds:.1f} s", *describe(self.answer_counts.record(), outputs)]))
        return Outputs(name, artifact.folder, list(digests), skipped=False)

    def _make(self, name: str, make: Callable[[Path], dict], folder: Path, accepted: float) -> dict:
        """What `make(folder)` returns; Incomplete, and a note with the reasons, if rows are missing."""
        self.answer_counts = AnswerCounts()
        try:
            outputs = make(folder)
            self.answer_counts.require(accepted)
            return outputs
        except BaseException as error:
            missing = str(self.answer_counts) if self.answer_counts.missing else ""
            reason = f"{error}" if isinstance(error, STOPS) and str(error) != missing else ""
            if isinstance(error, KeyboardInterrupt):
                if missing:
                    self.notes.put(name, missing)
                message = f"{name} was interrupted; finished work is kept: run it again to continue"
                raise Interrupted(message) from None
            if not missing and not isinstance(error, Incomplete):
                raise
            self.notes.put(name, "; ".join(filter(None, [missing, reason])))
            if reason or not isinstance(error, Exception):
                raise
            cause = error if not isinstance(error, Incomplete) else None
            raise Incomplete(f"{name} is incomplete: {missing}; {self._remedy(name)}") from cause

    def _remedy(self, stage: str) -> str:
        """How to request the missing rows of a stage."""
        notebook = NOTEBOOKS["ablations"] if self.parent else (self.stages() | BESIDE).get(stage)
        how = (
            f"run notebooks/{notebook}.ipynb again, or `{self.command} --only {notebook}`"
            if notebook
            else "run it again"
        )
        return f"answers are kept: {how}, to request only the missing rows"


def is_finished(name: str, root: Path, seed: int | None = None) -> bool:
    """Whether a results folder has a run of this name, with this seed if one is given, whose stages are all done."""
    try:
        run = open_run(name, root=root) if remembered(root / name) else None
    except ValueError:  # damaged, or of another version
        return False
    return run is not None and seed in (None, run.seed) and all(map(run.manifest, run.stages()))


def open_run(
    name: str | None = None,
    *,
    profile: str | Path | Profile | None = None,
    seed: int | None = None,
    root: Path | None = None,
    world: World | None = None,
    change: bool = False,
    **dials,
) -> Run:
    """Open or start a run: `open_run("demo", profile="demo", seed=0)`; dials change one setting each, e.g.
    `open_run("no-refine", profile="demo", **{"boostqa.refine": False})`. `world` gives it a world of its own.

    A run remembers its profile, dials and seed once its first stage is finished: `open_run("demo")` opens it with those
    (a new run takes the profile of its name, else smoke, and seed 0). `open_run()` is the demo if that is finished,
    else smoke. Opening a run with other settings raises a ValueError that names the differences, unless `change`;
    earlier results are kept, for other runs and for changing back.

    Also raises ValueError for a name that could leave the results folder, an unknown profile, a wrong setting or seed.

    >>> import qatoolkit as qt
    >>> run = qt.open_run("no-refine", profile="smoke", root="results", **{"boostqa.refine": False})
    >>> run
    Run 'no-refine': profile smoke, seed 0, 0 stages done
    >>> run.command
    'qatoolkit run --profile smoke --run no-refine'
    """
    root = Path(root or results_root())
    default = name if name in PROFILES else DEFAULT
    base = load_profile(default if profile is None else profile)
    bare = name is None and profile is None and world is None and not dials
    name = name or ("demo" if bare and is_finished("demo", root, seed) else base.name)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or name == STAGES:
        raise ValueError(
            f"run name {name!r}: use letters, digits, dot, dash and underscore, starting with a letter or digit; "
            f"{STAGES!r} is taken"
        )
    source, about = None if isinstance(profile, Profile) else str(profile or default), remembered(root / name)
    if source and source.endswith((".yaml", ".yml")):
        source = str(Path(source).resolve())
    if about and profile is None:
        base, source = profile_of(about, root / name), about["profile"]
    if seed is None:
        seed = about["seed"] if about else 0
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed!r}; it must be a whole number from 0 to 2**32 - 1")
    run = Run(name, load_profile(base, **dials), int(seed), root, source, world, change=change)
    refuse_other_settings(run)
    return run
