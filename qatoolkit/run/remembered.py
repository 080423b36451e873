"""What a run remembers in its folder (`run.json`): its profile with every setting, its seed, and whether its world was
given in code. It is written when the first stage is finished; another profile then takes an explicit word."""

from pathlib import Path

from qatoolkit.core.artifacts import as_json, read_sealed, write_sealed
from qatoolkit.core.settings import differences
from qatoolkit.run.profiles import Profile

FILE = "run.json"
SHOWN, CLIP = 4, 60  # differences that an error names, and characters of each value


def remembered(folder: Path) -> dict | None:
    """What a run's folder says of it, or None before its first stage is finished."""
    path = Path(folder) / FILE
    return read_sealed(path, again(folder)) if path.exists() else None


def again(folder: Path) -> str:
    """What to do where a file that says what a run is was damaged."""
    return (
        f"remove it and run `qatoolkit run --run {Path(folder).name}` with the run's profile and seed again, which finds "
        "what was finished"
    )


def profile_of(about: dict, folder: Path) -> Profile:
    """The profile that a run remembers; ValueError names the file where this version cannot read it."""
    try:
        return Profile(**about["settings"])
    except ValueError as error:
        raise ValueError(f"{Path(folder) / FILE}: {error}; name the profile to open the run with") from None


def remember(run) -> None:
    """Write what a run is, unless its folder says so already."""
    about, before = _about(run), remembered(run.folder)
    if before is None or before | {"profile": run.source} != about:
        write_sealed(about, run.folder / FILE)


def check(run) -> None:
    """ValueError, one line that names what differs and the word, where a run's folder remembers another profile, seed
    or world."""
    if run.change or run.parent or (before := remembered(run.folder)) is None:
        return
    now = _about(run)
    found = [(name, *two) for name, two in differences(before["settings"], now["settings"], Profile).items()]
    found = [one for one in found if one[0] != "name"]
    found += [(name, before[name], now[name]) for name in ("seed", "world") if before[name] != now[name]]
    if not found:
        return
    if before["profile"] != now["profile"]:
        found.insert(0, ("profile", before["profile"], now["profile"]))
    listed = [f"{name} was {_short(was)} and is {_short(new)}" for name, was, new in found]
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    raise ValueError(
        f"run {run.name!r} was made otherwise: {'; '.join(listed[:SHOWN])}{more}. Open it as it is with profile=None, "
        "seed=None (no --profile, no --seed), take another name, or say change=True (--change) to change it"
    )


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= CLIP else f"{text[: CLIP - 3]}..."


def _about(run) -> dict:
    world = type(run.own_world).__qualname__ if run.own_world else None
    return {"profile": run.source, "seed": run.seed, "world": world, "settings": as_json(run.profile)}
