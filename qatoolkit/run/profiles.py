"""Profiles: all settings of a run; one profile sizes everything, one dial changes one thing.

`load_profile("demo")` returns a built-in profile, `load_profile("mine.yaml")` one from a file (`profile: demo` and the
settings that differ), and keyword dials override single settings:
`load_profile("demo", **{"boostqa.refine": False})`."""

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from qatoolkit.core.artifacts import as_json
from qatoolkit.core.bounds import check_name
from qatoolkit.core.settings import Positive, Rate, Settings, SomeShare, read_mapping, resolve_places, turn_dials
from qatoolkit.curate.settings import CurateSettings
from qatoolkit.evaluation.settings import EvaluateSettings, ExamSettings, MeasureSettings, ProbeSettings
from qatoolkit.run.contracts import BESIDE, NOTEBOOKS
from qatoolkit.run.settings import DataSettings, RoundsSettings
from qatoolkit.scaling.settings import LadderSettings, ScalingSettings
from qatoolkit.seeds.settings import SeedSettings
from qatoolkit.synthesis.settings import AnnotateSettings, BoostQASettings, LinkQASettings, PlanSettings
from qatoolkit.synthesis.strategies import PACKAGED, Strategy, is_known, strategy
from qatoolkit.teacher.settings import TeacherSettings
from qatoolkit.textbook.settings import TextbookSettings
from qatoolkit.training.settings import CHECKPOINT_DIALS, GeneralSettings, MidtrainSettings, StudentSettings

SEEDS = "seeds"  # the annotated seeds, as a data set
BASE = "base"  # the student before mid-training, compared like an arm
TAKEN = {  # names of stages, and of other entries in a run's folder or among the outputs of `curate`
    *(SEEDS, BASE, *NOTEBOOKS, *BESIDE),
    *("notebooks", "figures", "variants", "models", "export", "jobs", "report", "controls"),
}
ARMS = {
    "seeds_only": (SEEDS,),
    "general_control": (),
    "boostqa_untargeted": ("boostqa_untargeted",),
    "boostqa": ("boostqa",),
    "linkqa": ("linkqa",),
    "boostqa_linkqa": ("boostqa", "linkqa"),
}
COMPARE = (
    ("boostqa", "base"),
    ("boostqa", "general_control"),
    ("boostqa", "boostqa_untargeted"),
    ("boostqa", "seeds_only"),
    ("linkqa", "base"),
    ("linkqa", "general_control"),
    ("linkqa", "boostqa"),
    ("boostqa_linkqa", "boostqa"),
)
ABLATIONS = (
    {"boostqa.multi_grade": False},
    {"boostqa.high_difficulty": False},
    {"boostqa.refine": False},
    {"plan.rule": "uniform"},
    {"linkqa.alpha": 1.0, "linkqa.beta": 0.0},  # popularity alone
    {"linkqa.alpha": 0.0, "linkqa.beta": 1.0},  # coverage alone
    {"linkqa.alpha": 0.0, "linkqa.beta": 0.0},  # neither: edge weights
    {"midtrain.replay": 0.0},
    {"midtrain.replay": 0.7},
    {"midtrain.loss_on": "answer"},
)


class Profile(Settings):
    """All settings of a run."""

    name: str
    """Name of the profile, and of its run if no other is given."""
    world: Literal["textbook", "own"] = "textbook"
    """Source of the parts that are not named below: the embedded textbook, or none (own), so that a missing part is an
    error that names it."""
    textbook: TextbookSettings = TextbookSettings()
    exams: dict[str, ExamSettings] = Field(default_factory=dict)
    """Exams by name; models are evaluated on all of them, data is decontaminated against all of them."""
    general: GeneralSettings = GeneralSettings()
    seeds: SeedSettings = SeedSettings()
    teacher: TeacherSettings = TeacherSettings()
    annotate: AnnotateSettings = AnnotateSettings()
    probe: ProbeSettings = ProbeSettings()
    plan: PlanSettings = PlanSettings()
    boostqa: BoostQASettings = BoostQASettings()
    linkqa: LinkQASettings = LinkQASettings()
    strategies: dict[str, Any] = Field(default_factory=dict)
    """Settings of strategies registered from outside the package, by name."""
    measure: MeasureSettings = MeasureSettings()
    curate: CurateSettings = CurateSettings()
    student: StudentSettings = StudentSettings()
    ladder: tuple[LadderSettings, ...] = ()
    """Published checkpoints for the axes of model size and initial FLOPs."""
    midtrain: MidtrainSettings = MidtrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    scaling: ScalingSettings = ScalingSettings()
    rounds: RoundsSettings = RoundsSettings()
    data: dict[str, DataSettings] = Field(
        default_factory=lambda: {
            "boostqa": DataSettings(),
            "boostqa_untargeted": DataSettings(strategy="boostqa", dials={"plan.rule": "uniform"}),
            "linkqa": DataSettings(),
        }
    )
    """Data sets to synthesise, by name."""
    arms: dict[str, tuple[str, ...] | dict[str, Rate]] = Field(default_factory=lambda: dict(ARMS))
    """What is mid-trained: by arm, the data sets it reads ("seeds" among them), or their ratios of tokens, {boostqa:
    0.7, linkqa: 0.3}; an arm without data sets is the general-text control."""
    compare: tuple[tuple[str, ...], ...] = COMPARE
    """Pairs of arms ("base" among them) whose paired difference is reported, the first minus the second."""
    ablations: tuple[dict[str, Any], ...] = ABLATIONS
    """Dials to turn: each entry trains one arm with them and compares it with that arm untouched. `arm` names the arm;
    by default it is the one called like a group of the dials, else the main one."""
    ablation_tokens: SomeShare = 0.25
    """Tokens of an ablation, as a share of the mid-training tokens."""
    ablation_seeds: Positive = 1
    """Training seeds of each ablation and its untouched arm; with several, also of the main arm and the control."""
    beside: bool = False
    """Also run the notebooks beside the flow, 13_rounds and 14_attribution, which otherwise run only when named
    (`--only 13`)."""

    @property
    def main_arm(self) -> str:
        """The arm that a run is about: the first in `compare`, else the last of `arms`. ValueError without arms."""
        if not self.arms:
            raise ValueError(
                "this profile has no arms, so nothing is mid-trained; add one: `arms: {boostqa: [boostqa]}`"
            )
        return next((arm for pair in self.compare for arm in pair if arm in self.arms), list(self.arms)[-1])

    @property
    def control(self) -> str | None:
        """The first arm that reads no data set, if there is one: as many tokens of general text."""
        return next((arm for arm, sets in self.arms.items() if not sets), None)

    @property
    def main_set(self) -> str | None:
        """The first data set of the main arm that is synthesised, if it reads any."""
        return next((name for name in self.arms and self.arms[self.main_arm] if name in self.data), None)

    @property
    def used_sets(self) -> list[str]:
        """The data sets that some arm reads, the seeds first."""
        return [s for s in (SEEDS, *self.data) if any(s in sets for sets in self.arms.values())]

    def data_set(self, name: str) -> tuple[Strategy, "Profile"]:
        """The strategy that writes a data set, and the profile with the data set's dials turned; ValueError for an
        unknown name."""
        if name not in self.data:
            raise ValueError(f"no data set is called {name!r}; there are {', '.join(self.data)}")
        about = self.data[name]
        return strategy(about.strategy or name), turn_dials(self, about.dials)

    def arm_of(self, dials: dict) -> str:
        """The arm that an ablation is about: the one it names, else the arm called like a group of its dials (or like a
        strategy under `strategies`), else the main one."""
        groups = [dial.removeprefix("strategies.").split(".")[0] for dial in dials]
        named = [arm for arm in self.arms if arm in groups]
        return dials.get("arm") or (named[0] if named else self.main_arm)

    @model_validator(mode="before")
    @classmethod
    def _data_of_arms(cls, values):
        """An arm may read a strategy by its name, without an entry under `data`."""
        if not isinstance(values, dict) or not isinstance(arms := values.get("arms"), dict):
            return values
        for arm, sets in arms.items():
            ratios = sets.values() if isinstance(sets, dict) else ()
            listed = isinstance(sets, list | tuple | dict)
            if not listed or not all(isinstance(r, int | float) and r > 0 for r in ratios):
                raise ValueError(
                    f"arms.{arm} is {sets!r}; it must be a list of data sets, or ratios above 0 as in "
                    "{boostqa: 0.7, linkqa: 0.3}"
                )
        if isinstance(data := values.get("data"), dict):
            added = {s: DataSettings() for sets in arms.values() for s in sets if s not in data and is_known(s)}
            values = values | {"data": data | added}
        return values

    @model_validator(mode="after")
    def _names(self):
        for field in ("arms", "data", "exams", "strategies"):
            for name in getattr(self, field):
                check_name(name, field)
        if self.rounds.of not in (None, *(written := [s for s in self.used_sets if s in self.data])):
            raise ValueError(f"rounds.of is {self.rounds.of!r}; it must be a data set of an arm: {', '.join(written)}")
        for name, about in self.data.items():
            if name in TAKEN:
                raise ValueError(f"data.{name}: this name is taken; give the data set another")
            if (used := about.strategy or name) not in PACKAGED:
                strategy(used).checked(self.strategies.get(used, {}))
        for name, settings in self.strategies.items():
            strategy(name).checked(settings)
        for arm, sets in self.arms.items():
            if unknown := [s for s in sets if s != SEEDS and s not in self.data]:
                raise ValueError(f"arms.{arm} reads {unknown[0]!r}; there are {', '.join([SEEDS, *self.data])}")
        for pair in self.compare:
            models = [BASE, *self.arms]
            if len(pair) != 2 or not set(pair) <= set(models):
                raise ValueError(f"compare is {list(pair)!r}; it must be pairs of {', '.join(models)}")
        if self.ablations and not self.arms:
            raise ValueError("ablations need an arm: add one to `arms`, or set `ablations: []`")
        for entry in self.ablations:
            if entry.get("arm", next(iter(self.arms))) not in self.arms:
                raise ValueError(f"ablations: arm is {entry['arm']!r}; it must be one of {', '.join(self.arms)}")
            dials = {k: v for k, v in entry.items() if k != "arm"}
            if "midtrain.seed" in dials:
                raise ValueError(
                    "ablations: midtrain.seed is not an ablation; `ablation_seeds` trains several seeds of each"
                )
            try:
                turn_dials(self.model_copy(update={"ablations": ()}), dials)
            except ValueError as error:
                raise ValueError(f"ablations: {error}") from None
        return self


PROFILES = {
    name: Profile(name=name, **settings)
    for name, settings in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")).items()
}


@cache
def load_plugins() -> None:
    """Import the plugins of installed packages: the entry points `qatoolkit.plugins` (docs/extending.md).

    Raises ImportError naming the plugin that can't be imported."""
    for found in entry_points(group="qatoolkit.plugins"):
        try:
            found.load()
        except Exception as error:  # of a plugin's own code
            raise ImportError(f"plugin {found.name} ({found.value}) can't be imported: {error}") from error


def load_profile(source: str | Path | Profile = "demo", **dials) -> Profile:
    """A built-in profile by name, or one from a YAML file; dotted dials override single settings.

    Raises ValueError for an unknown profile or setting, a wrong type or value, or a file that is not YAML.

    >>> import qatoolkit as qt
    >>> profile = qt.load_profile("demo", **{"plan.questions": 800, "boostqa.refine": False})
    >>> profile.plan.questions, profile.boostqa.refine
    (800, False)
    >>> qt.load_profile("demo", **{"plan.question": 800})
    Traceback (most recent call last):
        ...
    ValueError: no setting is called 'plan.question'; did you mean plan.questions?; there are ...
    """
    load_plugins()
    if isinstance(source, Profile):
        profile = source
    elif str(source) in PROFILES:
        profile = PROFILES[str(source)]
    elif str(source).endswith((".yaml", ".yml")):
        profile = _from_yaml(Path(source))
    else:
        raise ValueError(f"no profile is called {str(source)!r}; there are {', '.join(PROFILES)}, or give a .yaml file")
    return _turned(profile, dials) if dials else profile


def _from_yaml(path: Path) -> Profile:
    content = read_mapping(path, "`profile: demo` and settings below it")
    base = content.pop("profile", "demo")
    if base not in tuple(PROFILES):
        raise ValueError(f"{path}: profile is {base!r}; it must be one of {', '.join(PROFILES)}")
    return _turned(PROFILES[base], {"name": path.stem} | resolve_places(Profile, content, path))


def _turned(profile: Profile, dials: dict) -> Profile:
    """A profile with dials turned. Settings that depend on the model (`CHECKPOINT_DIALS`) do not carry over to another
    checkpoint: unless they are given too, they follow from it."""
    named = {
        *dials,
        *(f"{group}.{name}" for group, value in dials.items() if isinstance(value, dict) for name in value),
    }
    changed = turn_dials(profile, dials)
    if "student.checkpoint" in named and changed.student.checkpoint not in (None, profile.student.checkpoint):
        changed = turn_dials(changed, {dial: None for dial in CHECKPOINT_DIALS if dial not in named})
    return changed


def as_yaml(profile: Profile) -> str:
    """A profile as a YAML file that `load_profile` reads: every setting, defaults included."""
    content = as_json(profile.model_dump())
    for field in ("arms", "data", "exams"):  # entries are added to those of the profile below; null removes those
        content[field] = dict.fromkeys(getattr(PROFILES["own"], field)) | content[field]
    return yaml.safe_dump({"profile": "own"} | content, sort_keys=False, allow_unicode=True)


def schema() -> dict:
    """The JSON schema of a profile's YAML file, for editors; groups may be dotted, null removes an arm or a data
    set."""
    found = Profile.model_json_schema()
    del found["required"]
    found["properties"] = {"profile": {"enum": list(PROFILES), "default": "demo"}} | found["properties"]
    found["patternProperties"] = {r"^[a-z_]+\.": {}}
    short = {"exams": [{"type": "string"}]}
    for name in ("arms", "data", "exams"):
        entries = found["properties"][name]
        allowed = [entries["additionalProperties"], *short.get(name, ()), {"type": "null"}]
        entries["additionalProperties"] = {"anyOf": allowed}
    return found | {"title": "qatoolkit profile"}
