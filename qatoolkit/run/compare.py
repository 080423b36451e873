"""Two runs side by side: the settings that differ, paired differences, the gain by cell, and the questions that
changed."""

from dataclasses import dataclass

import pandas as pd

from qatoolkit.core import display
from qatoolkit.core.artifacts import as_json
from qatoolkit.core.settings import differences
from qatoolkit.core.stats import cells, corrected
from qatoolkit.run.profiles import BASE, Profile
from qatoolkit.run.stages.evaluation import comparisons
from qatoolkit.run.stages.weakness import weak_parts
from qatoolkit.run.store import Run
from qatoolkit.run.tables.evaluation import changed_between, choice_samples


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(display.Sections):
    """Run `a` minus run `b`, on the questions that both answered.

    `settings`: one row per dial that differs, with its value in each run. `paired`: one row per model and part (weak
    cells of `b`, other cells, all) with difference, interval, n and McNemar's p, also Holm-corrected for the models.
    `cells`: accuracy of one arm by cell in each run, `samples` its answers. `questions`: exam questions that only one of the two runs answers right. `weak`: the weak cells of `b`.
    `same`: arms that have the same model and answers in both runs, and so no row in `paired`."""

    names: tuple[str, str]
    settings: pd.DataFrame
    paired: pd.DataFrame
    cells: pd.DataFrame
    samples: pd.DataFrame
    questions: pd.DataFrame
    weak: pd.DataFrame
    same: tuple[str, ...] = ()

    def figure(self):
        """The gain of `a` over `b` in each cell."""
        from qatoolkit.figures import grid_difference

        sides = [self.samples[self.samples["run"] == name] for name in reversed(self.names)]
        return grid_difference(*sides, title=f"Gain of {self.names[0]} over {self.names[1]}", weak=self.weak)

    def _sections(self):
        a, b = self.names
        if self.same:
            yield f"the same model in both: {', '.join(self.same)}", display.Rich("", "")
        yield f"settings that differ: {a} and {b}", display.table(self.settings)
        yield f"{a} minus {b}, paired over the same questions", display.table(self.paired)
        yield "questions that only one answers right", display.table(self.questions)


def compare(a: Run, b: Run, *, arm: str | None = None, n: int = 10) -> Comparison:
    """Compare two evaluated runs: `qt.compare(run, reference)`. `arm` is the one shown by cell and question (default:
    the first that `b` compares), `n` the number of changed questions.

    Raises MissingUpstream if a run is not evaluated yet, ValueError if they share no exam question or arm."""
    if wrong := [run for run in (a, b) if not isinstance(run, Run)]:
        raise ValueError(f"{wrong[0]!r} is not a run: qt.open_run(name) opens one")
    samples = [choice_samples(run) for run in (a, b)]
    shared = set(samples[0]["id"]) & set(samples[1]["id"])
    if not shared:
        raise ValueError(f"runs {a.name!r} and {b.name!r} share no exam question: give both the same exams")
    samples = [rows[rows["id"].isin(shared)] for rows in samples]
    models = [m for m in (BASE, *a.profile.arms) if m == BASE or m in b.profile.arms]
    arm = arm or b.profile.main_arm
    if arm not in models:
        raise ValueError(f"arm is {arm!r}; the runs share {', '.join(models)}")
    weak, settings = weak_parts(b), b.profile.evaluate
    tables, same = [], []
    for model in models:
        both = [rows[rows["arm"] == model].assign(arm=side) for rows, side in zip(samples, "ab", strict=True)]
        found = comparisons(pd.concat(both), weak, [("a", "b")], resamples=settings.bootstrap, seed=b.seed)
        if model != arm and _artifact(a, model) == _artifact(b, model) and (found["difference"] == 0).all():
            same.append(model)
        else:
            tables.append(found.drop(columns=["a", "b"]).assign(arm=model))
    paired = pd.concat(tables, ignore_index=True)
    paired["p_holm"] = corrected(paired, "p_mcnemar", "on")
    of_arm, names = [rows[rows["arm"] == arm] for rows in samples], (a.name, b.name)
    named = [rows.assign(run=name) for rows, name in zip(of_arm, names, strict=True)]
    return Comparison(
        names=names,
        settings=differing(a.profile, b.profile, names),
        paired=paired[["arm", *(c for c in paired if c != "arm")]],
        cells=pd.concat([cells(rows).assign(run=name) for rows, name in zip(of_arm, names, strict=True)]),
        samples=pd.concat([rows.drop_duplicates("id") for rows in named], ignore_index=True),
        questions=changed_between(b, *of_arm, names, n),
        weak=b.read("plan").weak,
        same=tuple(same),
    )


def _artifact(run: Run, model: str) -> str:
    """The name of a model's artifact, which may have been removed."""
    return run.read("base").places["model"] if model == BASE else run.read("midtrain").models[model]


def differing(a: Profile, b: Profile, names: tuple[str, str] = ("a", "b")) -> pd.DataFrame:
    """The dials in which two profiles differ: dial, and the value in each."""
    found = differences(as_json(a), as_json(b), Profile)
    rows = [(dial, *map(str, values)) for dial, values in found.items() if dial != "name"]
    return pd.DataFrame(rows, columns=["dial", *names])
