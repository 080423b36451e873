"""Findings: what each stage of a run showed, in sentences with number, 95% interval, n and what it means.

Every sentence is computed from saved tables, and claims of a difference only what its interval shows."""

from collections.abc import Callable, Iterator
from functools import partial

from qatoolkit.core.display import MUTED, Rich, escape
from qatoolkit.run.findings import data, students
from qatoolkit.run.store import Run

TRIAL = "The smoke profile only shows that everything runs: its student is too small for its numbers to mean anything."


def findings(run: Run, *stages: str) -> Rich:
    """What stages showed, as sentences: `seeds`, `annotate`, `probe`, `pass_rates`, `plan`, a data set, `survival` of
    the main one, `adjustment`, `curate`, `midtrain`, `evaluate`, `scaling`, `ablations`, `rounds`, `attribution-*`;
    without a name, every stage that is done.

    Accuracies in percent with Wilson intervals, differences in points, paired over questions unless stated otherwise.
    ValueError for a stage without findings; MissingUpstream for one that is not done."""
    available = list_findings(run)
    for stage in stages:
        if stage not in available:
            raise ValueError(f"no findings of {stage!r}; choose from {', '.join(available)}")
    chosen = stages or finished(run)
    lines = [line for name in chosen for line in available[name]()]
    note = [TRIAL] if run.profile.name == "smoke" and chosen else []
    html = "".join(f"<p>{escape(line)}</p>" for line in lines)
    html += "".join(f'<p style="{MUTED}">{escape(line)}</p>' for line in note)
    return Rich(f'<div style="max-width:900px">{html}</div>', "\n".join(lines + note))


def list_findings(run: Run) -> dict[str, Callable[[], Iterator[str]]]:
    """The function that yields a stage's sentences, by stage in the order of the flow."""
    before = {
        "seeds": data.seeds,
        "annotate": data.annotate,
        "probe": students.probe,
        "pass_rates": students.pass_rates,
        "plan": data.plan,
    }
    sets = {name: partial(data.data_set, name=name) for name in run.profile.data}
    after = {
        "survival": data.survival,
        "curate": data.curate,
        "midtrain": students.midtrain,
        "evaluate": students.evaluate,
        "scaling": students.scaling,
        "ablations": students.ablations,
        "rounds": students.rounds,
    }
    if steered := _adjustment(run):
        sets["adjustment"] = partial(data.adjustment, name=steered)
    traced = [name for name in run.pointers() if name.startswith("attribution-")]
    after |= {name: partial(students.attribution, name=name) for name in traced}
    return {name: partial(write, run) for name, write in (before | sets | after).items()}


def finished(run: Run) -> list[str]:
    """The names of `list_findings` whose stage is done."""
    stage_of = {"survival": run.profile.main_set, "adjustment": _adjustment(run)}
    return [name for name in list_findings(run) if run.manifest(stage_of.get(name, name))]


def _adjustment(run: Run) -> str | None:
    """The last trial of the stage `adjustment`, whose name has a digest of its arguments."""
    return next((name for name in reversed(run.pointers()) if name.startswith("adjustment-")), None)
