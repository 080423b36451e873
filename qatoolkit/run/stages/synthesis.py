"""Stages on synthesis: the data sets of the profile, each written with its strategy, and the effect of a teacher's
errors."""

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from qatoolkit.core.settings import list_places, replace
from qatoolkit.core.stats import CELL
from qatoolkit.core.taxonomy import DIFFICULTIES, HIGH
from qatoolkit.graph.kp_graph import KPGraph
from qatoolkit.graph.walks import path_diagnostics, sample_paths
from qatoolkit.run.contracts import Stage, stage
from qatoolkit.run.outputs import Outputs
from qatoolkit.run.profiles import Profile
from qatoolkit.run.stages.data import judge_of
from qatoolkit.run.stages.measured import accept_measured, hardest_first
from qatoolkit.run.stages.teachers import is_offline, teachers
from qatoolkit.run.stages.waves import fill
from qatoolkit.run.store import Run
from qatoolkit.synthesis import annotate as annotation
from qatoolkit.synthesis import linkqa
from qatoolkit.synthesis.budget import plan_budget
from qatoolkit.synthesis.strategies import Context, Strategy, strategy
from qatoolkit.synthesis.write import attempts, degraded


def synthesise(run: Run, name: str, *, log=print) -> Outputs:
    """One data set of the profile (`Profile.data`): `made` (written and labelled), `questions` (accepted after
    refinement and, with `measure.k`, by their measured pass rates), `rejects`, `refinement` if the truth is known, and
    the strategy's other outputs. With several `plan.waves` also `counts`, and `questions` are those that curation
    accepts, within the budget of their cell (`waves.fill`).

    Raises ValueError for a name that the profile does not have, MissingUpstream before seeds and plan are made."""
    chosen, profile = run.profile.data_set(name)
    exact, by_rate, measures = profile.plan.waves > 1, profile.plan.by == "measured", profile.measure.k > 0
    reads = ("annotate", "plan", *["exams"] * exact, *["base"] * measures, *["probe"] * by_rate)
    spec = writing_stage(chosen.name, chosen, profile, reads, ["curate"] * exact)
    dials = run.profile.data[name].dials

    def make(folder) -> dict:
        plan = plan_of(run, profile)
        with teachers(run, name) as roles:

            def write(plan: pd.DataFrame, wave: int = 0) -> dict:
                outputs = chosen.write(context_of(run, profile, chosen, roles, folder, plan, wave))
                return accept_measured(run, profile, roles, outputs)

            outputs = write_exactly(run, profile, chosen, plan, write, log) if exact else write(plan)
        if run.parent or (dials and name != run.profile.main_set):
            return outputs  # an ablation or a control: its refinement is reported nowhere
        return outputs | {"refinement": refinement(run, outputs["made"], outputs["questions"], outputs["rejects"])}

    return run.complete(name, spec, make, dials=dials, log=log)


def writing_stage(kind: str, chosen: Strategy, profile: Profile, reads: tuple[str, ...], more: Iterable[str]) -> Stage:
    """A stage that writes with a strategy: it depends on everything that writing uses, and on the groups of settings
    `more`."""
    groups = tuple(dict.fromkeys([*chosen.groups(profile), *more]))
    files = tuple(dial for dial in list_places(type(profile)) if dial.split(".")[0] in groups)
    prompts = tuple(dict.fromkeys([*chosen.prompts, *["solve"] * (profile.measure.k > 0)]))
    return Stage(kind, reads=reads, settings=groups, files=files, prompts=prompts)


def plan_of(run: Run, profile: Profile) -> pd.DataFrame:
    """The plan that a data set with this profile is written for: the run's, unless its dials change the plan."""
    plan, default = run.read("plan").budget, run.profile.plan
    return plan if replace(profile.plan, waves=default.waves) == default else plan_budget(plan, profile.plan)


def context_of(
    run: Run,
    profile: Profile,
    chosen: Strategy,
    roles,
    folder: Path,
    plan: pd.DataFrame,
    wave: int = 0,
    samples: pd.DataFrame | None = None,
) -> Context:
    """The input of a strategy for one wave of a plan; with `plan.by: measured` its seeds have the student's pass rates
    from a probe's `samples` (default: the run's)."""
    seeds = run.read("annotate").seeds
    if profile.plan.by == "measured":
        seeds = hardest_first(seeds, run.read("probe").samples if samples is None else samples)
    return Context(
        seeds=seeds,
        plan=plan,
        teachers=roles,
        profile=profile,
        settings=chosen.settings_in(profile),
        seed=run.seed,
        folder=folder,
        wave=wave,
    )


def write_exactly(run: Run, profile: Profile, chosen: Strategy, plan: pd.DataFrame, write, log) -> dict:
    """`waves.fill` for a data set, judged by the run's curation against its exams, as in the stage `curate`."""
    seeds = run.read("annotate").seeds
    known = set(seeds["discipline"])
    without_seeds = {d: f"there are no seeds of {d}: add some" for d in plan["discipline"] if d not in known}
    cells = plan[CELL].itertuples(index=False, name=None)
    reasons = {(d, level): without_seeds.get(d) or chosen.out_of_reach.get(level) for d, level in cells}
    closed = {cell: reason for cell, reason in reasons.items() if reason}
    curated = judge_of(run, profile.curate)

    def write_wave(plan: pd.DataFrame, wave: int) -> dict:
        outputs = write(plan, wave)
        run.answer_counts.require(
            profile.teacher.accept_missing
        )  # before a later wave asks for more in place of missing rows
        return outputs

    def judge(questions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        return curated(questions)[:2]

    return fill(plan, write_wave, judge, waves=profile.plan.waves, closed=closed, log=log)


def synthesise_all(run: Run, *, log=print) -> list[Outputs]:
    """Every data set that an arm of the profile trains on, in the profile's order."""
    return [synthesise(run, name, log=log) for name in run.profile.used_sets if name in run.profile.data]


def refinement(run: Run, made: pd.DataFrame, table: pd.DataFrame, rejects: pd.DataFrame) -> dict:
    """Shares of wrong answers against the world's truth: as written, as the second teacher answered, and as decided,
    including rows that were rejected afterwards; null if the truth is unknown."""
    if "decided" in rejects:  # rejected for gap or budget: refinement accepted them
        table = pd.concat([table, rejects[rejects["decided"].notna()]], ignore_index=True)
        rejects = rejects[rejects["decided"].isna()]
    before, n = wrong_answers(run, made)
    after, kept = wrong_answers(run, table)
    answered = [rows[rows["second_answer"].notna()] for rows in (table, rejects) if "second_answer" in rows]
    second = pd.concat(answered) if answered else made[:0].assign(second_answer=None)
    return {
        "wrong_before": before,
        "wrong_second": wrong_answers(run, second.assign(answer=second["second_answer"]))[0],
        "wrong_after": after,
        "n": n,
        "n_second": len(second),
        "n_after": kept,
        "rejected": len(made) - len(table),
    }


def wrong_answers(run: Run, table: pd.DataFrame) -> tuple[float | None, int]:
    """The share of wrong answers in a table, None if the world can judge none of them, and the number that it can."""
    if (truth := run.world.truth()) is None:
        return None, 0
    checks = [truth.is_correct(q, a) for q, a in zip(table["question"], table["answer"], strict=True)]
    known = [not c for c in checks if c is not None]
    return (sum(known) / len(known) if known else None), len(known)


@stage(
    "error_rates",
    reads=("annotate", "probe"),
    settings=("teacher", "boostqa", "plan", "world"),
    prompts=("multi_grade", "high_difficulty", "annotate", "refine", "solve"),
)
def error_rates(run: Run, folder) -> dict:
    """A small BoostQA with each of the world's own teachers: the benefit of refinement and of checking difficulty at
    different error rates of the teacher. Empty tables for a real teacher, whose truth is unknown."""
    truth, answers, levels = run.world.truth(), [], []
    if truth is None or not is_offline(run):
        return {"answers": pd.DataFrame(answers), "levels": pd.DataFrame(levels)}
    plan = plan_budget(run.read("probe").cells, replace(run.profile.plan, questions=run.profile.boostqa.trial))
    boostqa = strategy("boostqa")
    with teachers(run, "error_rates") as roles:
        for model in (model for model, rate in truth.teachers.items() if rate):
            roles.synthesiser = roles.named(model)
            found = boostqa.write(context_of(run, run.profile, boostqa, roles, folder, plan))
            made, table, rejects = found["made"], found["questions"], found["rejects"]
            rate = {"teacher": model, "teacher_error_rate": truth.teachers[model]}
            answers.append(rate | refinement(run, made, table, rejects))
            levels.append(rate | high_shares(plan, made, table, rejects))
    return {"answers": pd.DataFrame(answers), "levels": pd.DataFrame(levels)}


def high_shares(plan: pd.DataFrame, made: pd.DataFrame, table: pd.DataFrame, rejects: pd.DataFrame) -> dict:
    """H4 and H5 together: their share of the questions asked for, the shares of those that were labelled lower at the
    first attempt and in the end, and their share of the accepted questions by label."""
    asked, first = attempts(made, rejects, HIGH)
    budget = plan.groupby("difficulty")["budget"].sum()
    return {
        "asked_share": budget.reindex(HIGH, fill_value=0).sum() / budget.sum(),
        "first_n": len(first),
        "degraded_first_share": degraded(first).mean(),
        "degraded_share": degraded(asked).mean(),
        "accepted": len(table),
        "accepted_share": table["difficulty"].isin(HIGH).mean(),
    }


@stage("consensus", reads=("seeds",), settings=("teacher", "world"), prompts=("annotate",))
def consensus(run: Run, folder, *, samples: int = 5, n: int = 200) -> dict:
    """Labels of the first `n` seeds by one answer of the annotator and by the consensus of several; empty if the truth
    is unknown. `qt.tables.annotation_estimate` estimates the cost."""
    table = run.read("seeds").seeds.head(n)
    if run.world.truth() is None:
        return {"labels": table[:0].assign(samples=None)}
    labelled = []
    with teachers(run, "consensus") as roles:
        for k in (1, samples):
            labelled.append(annotation.annotate(table, roles.annotator, k)[0].assign(samples=k))
    return {"labels": pd.concat(labelled, ignore_index=True)}


@stage("walk_control", reads=("linkqa",), settings=("linkqa",))
def walk_control(run: Run, folder, *, difficulty: dict, n: int = 2000) -> dict:
    """The effect of a target distribution of difficulty on `n` walks with the run's exponents: without the target, with
    it, and with it at twice the coverage exponent, the divergence from the target (nats), coverage of KPs, and the
    share of drawn seeds at each level."""
    graph, settings, rows = KPGraph.load(run.read("linkqa").graph), run.profile.linkqa, []
    levels = graph.seeds.set_index("id")["difficulty"]
    for name, target, beta in (
        ("none", None, settings.beta),
        ("set", difficulty, settings.beta),
        ("set", difficulty, 2 * settings.beta),
    ):
        paths = sample_paths(
            graph, n, settings.length, alpha=settings.alpha, beta=beta, difficulty=target, seed=run.seed
        )
        found = path_diagnostics(graph, paths, difficulty=difficulty).iloc[0]
        drawn = levels[[id for ids in paths["seeds"] for id in ids]].value_counts(normalize=True)
        rows.append(
            {"target": name, "beta": beta, "kl": found["kl_difficulty"], "coverage": found["coverage"]}
            | {f"{level} share": float(drawn.get(level, 0.0)) for level in DIFFICULTIES}
        )
    return {"walks": pd.DataFrame(rows)}


@stage("adjustment", reads=("annotate", "plan", "linkqa"), settings=("teacher", "linkqa"), prompts=("link", "annotate"))
def adjustment(run: Run, folder, *, adjust: dict, n: int = 200) -> dict:
    """A trial of difficulty adjustment with about `n` questions along walks that favour the disciplines of `adjust`:
    questions asked for, labelled, and the divergence of the labels from the target in nats, by discipline and
    difficulty, half of them with the plan's difficulties, half with `adjust`. A question that misses its level is
    requested once more. `qt.tables.adjustment_estimate` estimates the cost."""
    tables = []
    with teachers(run, "adjustment") as roles:
        for name, asked in adjustment_requests(run, adjust, n).items():
            made, _ = linkqa.synthesise(asked, roles.synthesiser, roles.annotator)
            tables.append(linkqa.control(made, adjust).assign(difficulties=name))
    table = pd.concat(tables, ignore_index=True)
    return {"levels": table[["difficulties", "discipline", "difficulty", "asked", "got", "kl"]]}


def adjustment_requests(run: Run, adjust: dict, n: int) -> dict[str, pd.DataFrame]:
    """The requests of the stage `adjustment`, with the plan's difficulties and with those of `adjust`: along the same
    walks, the first of `n` that are in the disciplines of `adjust` and suffice for `n` / 2 questions."""
    seeds, plan, settings = run.read("annotate").seeds, run.read("plan").budget, run.profile.linkqa
    focus = {(d, level): 20.0 for d in adjust for level in DIFFICULTIES}
    graph = KPGraph.load(run.read("linkqa").graph)
    paths = sample_paths(
        graph, n, settings.length, alpha=settings.alpha, beta=settings.beta, focus=focus, seed=run.seed
    )
    asked = linkqa.requests(paths, seeds, plan, replace(settings, adjust=None), run.seed)
    walks = [row["round"] for row in asked.loc[asked["asked_discipline"].isin(list(adjust)), "payload"]]
    paths = paths[paths["path"].isin(walks[: math.ceil(n / 2 / settings.questions_per_path)])]
    return {
        name: linkqa.requests(paths, seeds, plan, replace(settings, adjust=shares), run.seed)
        for name, shares in (("plan", None), ("adjusted", {d: dict(s) for d, s in adjust.items()}))
    }
