"""What a run remembers in its folder (`run.json`): its profile with every setting, its seed, and the class of a world
given in code. It is written when the first stage finishes; another profile then needs `change=True`."""

from pathlib import Path

from qatoolkit.core.artifacts import as_json, read_sealed, write_sealed
from qatoolkit.core.settings import differences
from qatoolkit.run.profiles import Profile

FILE = "run.json"
SHOWN, CLIP = 4, 60  # differences that an error names, and characters of each value


def remembered(folder: Path) -> dict | None:
    """The content of `run.json`, or None before the first stage is finished."""
    path = Path(folder) / FILE
    return read_sealed(path, remedy_of(folder)) if path.exists() else None


def remedy_of(folder: Path) -> str:
    """The remedy for a damaged file of a run's folder."""
    return (
        f"remove it and run `qatoolkit run --run {Path(folder).name}` again with the run's profile and seed, which "
        "reuses the finished stages"
    )


def profile_of(about: dict, folder: Path) -> Profile:
    """The profile that a run remembers; ValueError names the file if this version cannot read it."""
    try:
        return Profile(**about["settings"])
    except ValueError as error:
        raise ValueError(f"{Path(folder) / FILE}: {error}; give the profile to open the run with") from None


def remember(run) -> None:
    """Write `run.json`, unless it is up to date."""
    about, stored = _describe(run), remembered(run.folder)
    if stored is None or stored | {"profile": run.source} != about:
        write_sealed(about, run.folder / FILE)


def refuse_other_settings(run) -> None:
    """ValueError that names the differences if a run remembers another profile, seed or world and was not opened with
    `change=True`."""
    if run.change or run.parent or (stored := remembered(run.folder)) is None:
        return
    now = _describe(run)
    settings = differences(stored["settings"], now["settings"], Profile).items()
    changes = [(name, *values) for name, values in settings if name != "name"]
    changes += [(name, stored[name], now[name]) for name in ("seed", "world") if stored[name] != now[name]]
    if not changes:
        return
    if stored["profile"] != now["profile"]:
        changes.insert(0, ("profile", stored["profile"], now["profile"]))
    listed = [f"{name} was {_clip(old)} and is {_clip(new)}" for name, old, new in changes]
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    raise ValueError(
        f"run {run.name!r} was made with other settings: {'; '.join(listed[:SHOWN])}{more}. Open it as it is with "
        "profile=None, seed=None (no --profile, no --seed), take another name, or change it with change=True (--change)"
    )


def _clip(value) -> str:
    text = repr(value)
    return text if len(text) <= CLIP else f"{text[: CLIP - 3]}..."


def _describe(run) -> dict:
    world = type(run.own_world).__qualname__ if run.own_world else None
    return {"profile": run.source, "seed": run.seed, "world": world, "settings": as_json(run.profile)}
