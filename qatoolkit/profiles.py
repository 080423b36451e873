"""The built-in profiles, and others as what differs from them: one profile sizes everything, one dial changes one thing.

`load_profile("demo")` gives a built-in profile, `load_profile("mine.yaml")` one from a file (`profile: demo` plus the
settings that differ), and keyword dials override single settings: `load_profile("demo", **{"boostqa.refine": False})`.
"""

import dataclasses
import typing
from pathlib import Path

from qatoolkit.config import (
    AblationSettings,
    BoostQASettings,
    EvaluateSettings,
    MidtrainSettings,
    PlanSettings,
    Profile,
    ScalingSettings,
    StudentSettings,
    TeacherSettings,
    TextbookSettings,
)
from qatoolkit.yaml_file import read_mapping, typed

PROFILES = {
    "smoke": Profile(
        name="smoke",
        textbook=TextbookSettings(entities=4, entities_zh=2, relations=3, families=4, seeds=2, exam=1),
        plan=PlanSettings(questions=120, low_n=2),
        boostqa=BoostQASettings(trial=60),
        student=StudentSettings(size="xs", tokens=60_000, vocabulary=1024),
        midtrain=MidtrainSettings(tokens=30_000),
        ablations=AblationSettings(lengths=(3,)),
        evaluate=EvaluateSettings(bootstrap=200),
    ),
    "demo": Profile(
        name="demo",
        textbook=TextbookSettings(entities=6, entities_zh=2, relations=3, families=4, seeds=10, exam=8),
        plan=PlanSettings(questions=5000, high=0.35),
        student=StudentSettings(size="m", tokens=950_000),
        midtrain=MidtrainSettings(tokens=650_000, replay=0.3, learning_rate=5e-3),
        ablations=AblationSettings(tokens=0.2, lengths=(), most_seeds=()),  # they would take a minute
        scaling=ScalingSettings(
            sizes=("xxs", "xs", "s", "m"), tokens=(0.125, 0.25, 0.5, 1.0), initial=(0.125, 0.25, 0.5, 1.0)
        ),
    ),
    "gpu": Profile(
        name="gpu",
        textbook=TextbookSettings(seeds=60, exam=20),
        plan=PlanSettings(questions=40_000),
        student=StudentSettings(
            size="130m",
            tokens=200_000_000,
            vocabulary=8192,
            block=1024,
            batch=64,
            learning_rate=6e-4,
            compile=True,
            save_every=500,
        ),
        midtrain=MidtrainSettings(tokens=50_000_000, learning_rate=6e-4),
        scaling=ScalingSettings(
            sizes=("s", "m", "130m", "350m"), tokens=(0.125, 0.25, 0.5, 1.0), initial=(0.125, 0.25, 0.5, 1.0)
        ),
    ),
    "paper": Profile(
        name="paper",
        textbook=TextbookSettings(seeds=60, exam=20),
        teacher=TeacherSettings(
            base_url="https://api.deepseek.com/v1",
            synthesiser="deepseek-reasoner",
            refiner="deepseek-chat",
            annotator="deepseek-chat",
            in_flight=4096,
            timeout=900.0,
            max_tokens=32_768,
        ),
        plan=PlanSettings(questions=100_000_000),
        student=StudentSettings(
            size="8b",
            checkpoint="meta-llama/Meta-Llama-3-8B",
            vocabulary=128_256,
            block=4096,
            batch=256,
            micro_batch=1,
            memory="low",
            checkpointing=True,
            compile=True,
            save_every=500,
        ),
        midtrain=MidtrainSettings(tokens=40_000_000_000, learning_rate=3e-5),
        scaling=ScalingSettings(sizes=(), tokens=(0.125, 0.25, 0.5, 1.0), initial=()),
    ),
}


def load_profile(source: str | Path | Profile = "demo", **dials) -> Profile:
    """A built-in profile by name, or one from a YAML file, with single settings overridden by dotted dials.

    Raises ValueError for an unknown profile or setting, a wrong type or value, or a file that is not YAML."""
    if isinstance(source, Profile):
        profile = source
    elif str(source) in PROFILES:
        profile = PROFILES[str(source)]
    elif str(source).endswith((".yaml", ".yml")):
        profile = _from_yaml(Path(source))
    else:
        raise ValueError(
            f"no profile is called {str(source)!r}; there are {', '.join(PROFILES)}, or give a .yaml file"
        )
    for dial, value in dials.items():
        profile = _override(profile, {dial: value} if "." not in dial else _nested(dial, value), "")
    return profile


def _nested(dial: str, value) -> dict:
    head, _, rest = dial.partition(".")
    return {head: _nested(rest, value) if rest else value}


def _from_yaml(path: Path) -> Profile:
    content = read_mapping(path, "`profile: demo` and settings below it")
    folder = path.resolve().parent  # paths are relative to the file, not to who reads it
    seeds, linkqa, student = (content.get(part) for part in ("seeds", "linkqa", "student"))
    if isinstance(seeds, dict) and isinstance(seeds.get("sources"), list):
        here = [s if str(s).startswith("hf:") else str(folder / str(s)) for s in seeds["sources"]]
        content["seeds"] = seeds | {"sources": here}
    if isinstance(linkqa, dict) and isinstance(linkqa.get("merges"), str):
        content["linkqa"] = linkqa | {"merges": str(folder / linkqa["merges"])}
    if isinstance(student, dict) and (folder / str(student.get("checkpoint"))).is_dir():
        content["student"] = student | {"checkpoint": str(folder / student["checkpoint"])}
    base = content.pop("profile", "demo")
    if base not in tuple(PROFILES):
        raise ValueError(f"{path}: profile is {base!r}; it must be one of {', '.join(PROFILES)}")
    return _override(PROFILES[base], {"name": path.stem} | content, "")


def _override(settings, changes: dict, where: str):
    """A copy of a settings object with nested `changes`, each checked against the field's type."""
    hints = typing.get_type_hints(type(settings))
    values = {}
    for name, value in changes.items():
        full = f"{where}{name}"
        if name not in hints:
            raise ValueError(
                f"no setting is called {full!r}; there are {', '.join(where + f for f in hints)}"
            )
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, dict):
                group = ", ".join(typing.get_type_hints(hints[name]))
                raise ValueError(f"{full} is {value!r}; it must be a group of {group}")
            values[name] = _override(getattr(settings, name), value, f"{full}.")
        else:
            values[name] = typed(full, value, hints[name])
    try:
        return dataclasses.replace(settings, **values)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None
