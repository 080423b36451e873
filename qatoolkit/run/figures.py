"""The figures of a run, drawn from its saved tables, by name.

They follow the papers' figures (probe, data, main table, scaling, ablations, graph). To add one, write a function of
the run whose docstring is the caption, and enter it in `FIGURES`; if the run has nothing to draw, it returns a sentence
instead."""

from inspect import getdoc

import pandas as pd

from qatoolkit import figures
from qatoolkit.core.files import write_json
from qatoolkit.figures.style import name as label
from qatoolkit.graph.kp_graph import KPGraph
from qatoolkit.run import tables
from qatoolkit.run.check import record_files
from qatoolkit.run.profiles import BASE, SEEDS
from qatoolkit.run.store import MissingUpstream, Run


def probe(run: Run):
    """Base student by discipline and difficulty, on the probe's questions; once there is a plan, weak cells are
    framed."""
    cells, title = run.read("probe").cells, "Where the base student is weak"
    return figures.accuracy_grid(cells, weak=run.read("plan").weak if run.manifest("plan") else None, title=title)


def budget(run: Run):
    """Questions to synthesise per cell, by the rule of the plan from the deficit of the cell."""
    low_n = run.profile.plan.low_n
    return figures.budget(run.read("plan").budget, low_n=low_n, title="Synthesis budget that follows")


def pass_rates(run: Run):
    """Mean pass rate of the seeds by level of the rubric: of the base student, and of the strong model if it was
    measured."""
    if run.manifest("pass_rates") is None:
        return "The seeds were not measured (`qt.stages.pass_rates(run)`)."
    return figures.pass_rates(tables.pass_rates_by_level(run))


def survival(run: Run):
    """What each step of verification leaves of the questions of the main data set, by the difficulty asked for."""
    name = run.profile.main_set
    if name is None or "asked_difficulty" not in run.read(name).made:
        return "The main arm reads no questions that record what was asked for."
    return figures.survival(tables.survival(run, name))


def curation(run: Run):
    """Rows of each data set that may be trained on, and those removed by reason."""
    return figures.seed_quality(tables.removals(run))


def difficulty(run: Run):
    """Difficulty of seeds and synthetic data sets, as annotated."""
    return figures.distribution(join_datasets(run), "difficulty", hue="dataset")


def discipline(run: Run):
    """Disciplines of seeds and synthetic data sets, as annotated."""
    return figures.distribution(join_datasets(run), "discipline", hue="dataset")


def arms(run: Run):
    """Accuracy of every arm on every exam, scored by lm-eval, beside guessing and the blind readers, which do not see
    the question."""
    return figures.arms(run.read("evaluate").exams)


def comparisons(run: Run):
    """Paired differences in weak cells, other cells and over all."""
    return figures.comparisons(run.read("evaluate").comparisons.dropna(subset="difference"))


def gain(run: Run):
    """Gain of the main arm over the base student on the same questions, in each cell of the exams."""
    from qatoolkit.run.tables.evaluation import choice_samples

    samples, arm = choice_samples(run).drop_duplicates(["arm", "id"]), run.profile.main_arm
    before, after = (samples[samples["arm"] == name] for name in (BASE, arm))
    title = f"Gain of {label(arm)} over the base student"
    return figures.grid_difference(before, after, weak=run.read("plan").weak, title=title)


def loss(run: Run):
    """Loss of the mid-training arms."""
    return figures.loss(run.read("midtrain").metrics, title="Mid-training loss")


def scaling(run: Run):
    """Base and mid-trained students against model size, tokens and initial FLOPs."""
    points = run.read("scaling").points
    return figures.scaling(points) if len(points) else "Nothing varies on any axis: see `scaling` and `ladder`."


def ablations(run: Run):
    """Paired differences, in the weak cells and over all, of arms with one setting changed, against the same arm
    unchanged."""
    table = run.read("ablations").ablations.dropna(subset="difference")
    return figures.ablations(table) if len(table) else "This profile has no ablations."


def attribution(run: Run):
    """What the questions of each discipline in the main arm's data do to each discipline of the exams: trainings with
    them minus trainings without."""
    name = "attribution-discipline-without"
    if not run.manifest(name):
        return "Gains were not traced to data; notebook 14_attribution does so."
    table = run.read(name).matrix
    return figures.attribution(table) if len(table) else "Every part of the data is too small to be left out."


def kp_degree(run: Run):
    """Degree distribution of the knowledge-point graph."""
    return figures.kp_degree(_graph(run).degrees()) if _linked(run) else NO_GRAPH


def kp_coverage(run: Run):
    """Knowledge points reached as paths are sampled, by value function."""
    return figures.coverage(tables.coverage(run, _graph(run))) if _linked(run) else NO_GRAPH


def probes(run: Run):
    """Accuracy of the arms on the probe's questions while they are trained."""
    if not run.profile.probe.every:
        return "The arms were not probed while they were trained (`probe.every`)."
    return figures.probes_over_time(run.read("midtrain").probes)


NO_GRAPH = "This profile has no data set `linkqa`, so no graph."


def _linked(run: Run) -> bool:
    return "linkqa" in run.profile.data


def _graph(run: Run) -> KPGraph:
    return KPGraph.load(run.read("linkqa").graph)


_ALL = (
    probe,
    budget,
    pass_rates,
    survival,
    curation,
    difficulty,
    discipline,
    arms,
    comparisons,
    gain,
    loss,
    probes,
    scaling,
    ablations,
    attribution,
    kp_degree,
    kp_coverage,
)
FIGURES = {figure.__name__: figure for figure in _ALL}


def draw(run: Run, name: str):
    """Draw the figure `name` of a run, or return a sentence that says why there is nothing to draw. ValueError, with
    the known names, for an unknown one."""
    if name not in FIGURES:
        raise ValueError(f"no figure {name!r}; choose from {', '.join(FIGURES)}")
    return FIGURES[name](run)


def save_figures(run: Run) -> list[str]:
    """Draw every figure of the run into `results/<run>/figures/`, with `captions.json`, and return the names of those
    drawn. A figure whose stage is not made yet is left out with a message."""
    folder, captions = run.folder / "figures", {}
    for name, figure in FIGURES.items():
        try:
            drawn = figure(run)
        except MissingUpstream as error:
            print(f"{name} is left out: {error}")
            continue
        if not isinstance(drawn, str):
            record_files(run.folder, figures.save(drawn, folder / f"{name}.png"))
            captions[name] = getdoc(figure)
    write_json(captions, folder / "captions.json")
    record_files(run.folder, [folder / "captions.json"])
    return list(captions)


def join_datasets(run: Run) -> pd.DataFrame:
    """The curated seeds and data sets in one table with a column `dataset`, without the controls (data sets with
    dials)."""
    stored, data = run.read("curate"), run.profile.data
    names = [SEEDS, *(name for name, about in data.items() if not about.dials)]
    return pd.concat([getattr(stored, name).assign(dataset=name) for name in names if name in stored])
