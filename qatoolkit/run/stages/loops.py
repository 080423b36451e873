"""The stage `rounds`: probe the current checkpoint, plan for the cells that are weak now, write, train the next part of
one schedule, and repeat; compared with one pass over the same number of tokens and questions."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from qatoolkit.core.files import read_json
from qatoolkit.core.qa_table import COLUMNS
from qatoolkit.core.settings import replace
from qatoolkit.core.stats import CELL, accuracy, cells, difference_over_seeds, in_cells, paired_difference
from qatoolkit.evaluation.probe import only_labelled
from qatoolkit.run.outputs import Outputs
from qatoolkit.run.profiles import BASE, Profile
from qatoolkit.run.stages.data import judge_of
from qatoolkit.run.stages.evaluation import by_weakness, score_models
from qatoolkit.run.stages.measured import accept_measured
from qatoolkit.run.stages.synthesis import context_of, writing_stage
from qatoolkit.run.stages.teachers import teachers
from qatoolkit.run.stages.training import (
    Trained,
    arm_job,
    midtrain_job,
    midtrain_job_of,
    qa_file,
    seed_range,
    train_jobs,
)
from qatoolkit.run.stages.weakness import probe_samples, weak_cells, weak_parts
from qatoolkit.run.store import Run
from qatoolkit.synthesis.budget import NothingWeak, plan_budget
from qatoolkit.synthesis.strategies import Strategy
from qatoolkit.training.job import WHOLE, Job

ROUNDS, ONE_PASS = "rounds", "one_pass"  # as arms in the tables
AS_MANY = 0.01  # share by which the sizes of two data sets may differ and still count as equal


def rounds(run: Run, *, log=print) -> Outputs:
    """`rounds.n` rounds from the base student for each training seed, with the strategy and dials of one data set:
    probe the current checkpoint on the probe's questions, plan by the profile's rule for the cells that are weak now
    (gain is fitted from the previous rounds), write the round's share of `plan.questions`, curate against the exams,
    the seeds and the previous rounds, and train on the round's share of tokens, as a part of one schedule that keeps
    the moments of the optimizer.

    Rounds end when all are done, when no cell is weak any more or no question was accepted, or after a round whose
    paired gain on all of the probe's questions has a 95% interval entirely below `rounds.stop`. The exams are answered
    once, after the last round, by the last checkpoints, by one pass over the same number of tokens and questions, by
    the base, and by the control on general text. One pass is the arm that reads only the data set: rounds accept no
    more questions than it has, and if they accept fewer it reads a sample.

    `rounds`: a row per seed and round (0 is the base) with the number of cells that are weak then, questions asked for,
    accepted and rejected, tokens so far, US dollars paid (null if a price is unknown), accuracy on the probe's
    questions and its paired gain over the previous round, over all and in the weak cells of the run's plan (`weak_`),
    and in `stopped` why the rounds ended. `cells`: the input of `budget.gain_rates`, by seed, round and cell. `probes`:
    the grids of rounds and one pass by tokens, with the cells that are weak there. `samples`, `accuracies` and
    `comparisons`: the exams; `comparisons` are paired, over the seeds. `questions` and `rejects` of all rounds.

    Every part is a separate training: a stage that was killed continues, and nothing is requested or trained twice."""
    of = run.profile.rounds.of or run.profile.main_set
    if of is None:
        raise ValueError("rounds write a data set, and the main arm reads none: name one in rounds.of")
    chosen, profile = run.profile.data_set(of)
    reads = ("exams", "annotate", "base", "probe", "plan", "curate")
    more = ("rounds", "curate", "probe", "student", "midtrain", "evaluate")
    spec = writing_stage(ROUNDS, chosen, profile, reads, more)

    def make(folder: Path) -> dict:
        loops, judge, most = start_loops(run), judge_of(run, run.profile.curate), len(getattr(run.read("curate"), of))
        for nth in range(run.profile.rounds.n):
            jobs = {}
            for loop in (loop for loop in loops if not loop.stopped):
                new = write_round(run, loop, nth, chosen, profile, judge, most)
                if not loop.stopped:
                    jobs[loop.seed] = round_job(run, loop, nth, f"{of} round {nth + 1}", new)
            found = dict(zip(jobs, train_jobs(run, list(jobs.values())), strict=True))
            for loop in (loop for loop in loops if loop.seed in found):
                finish_round(run, loop, nth, found[loop.seed])
        if not loops[0].trainings:  # the first round is the same for all
            raise ValueError(
                f"rounds: {loops[0].stopped}, so there is nothing to train on; see run.read({of!r}).rejects"
            )
        return compare_with_one_pass(run, of, loops)

    asked = {"data set": of, "strategy": chosen.name, "arms": run.profile.arms}
    return run.complete(ROUNDS, spec, make, dials=run.profile.data[of].dials, asked=asked, log=log)


@dataclass(kw_only=True)
class Loop:
    """The rounds of one training seed: the current checkpoint, its answers to the probe, and the results so far."""

    seed: int
    model: Path
    samples: pd.DataFrame
    trainings: list[Trained] = field(default_factory=list)
    questions: list[pd.DataFrame] = field(default_factory=list)
    rejects: list[pd.DataFrame] = field(default_factory=list)
    plan: pd.DataFrame | None = None
    rows: list[dict] = field(default_factory=list)
    cells: list[pd.DataFrame] = field(default_factory=list)
    probes: list[pd.DataFrame] = field(default_factory=list)
    stopped: str | None = None

    @property
    def tokens(self) -> int:
        """Tokens that the trainings so far were asked to read."""
        return sum(training.job.tokens for training in self.trainings)

    @property
    def done(self) -> float:
        """The share of the schedule that is trained."""
        return self.trainings[-1].job.part[1] if self.trainings else 0.0


def start_loops(run: Run) -> list[Loop]:
    """A loop for each training seed, starting from the base student and the run's probe."""
    samples, seeds = run.read("probe").samples, seed_range(run, run.profile.rounds.seeds)
    loops = [Loop(seed=seed, model=run.model(BASE), samples=samples) for seed in seeds]
    for loop in loops:
        record_probe(run, loop, {"round": 0}, None)
    return loops


def write_round(
    run: Run, loop: Loop, nth: int, chosen: Strategy, profile: Profile, judge: Callable, most: int
) -> pd.DataFrame | None:
    """Plan, write and curate round `nth`, and return its questions: over all rounds at most `most`, in equal shares.
    None if there are none; `stopped` then has the reason."""
    share = replace(profile.plan, questions=share_of(profile.plan.questions, nth, run.profile.rounds.n))
    try:
        grid = only_labelled(cells(loop.samples))
        loop.plan = plan_budget(grid, share, pd.concat(loop.cells) if nth else None)
    except NothingWeak as error:
        if not nth:
            raise
        loop.stopped = str(error)
        return None
    with TemporaryDirectory(prefix="qatoolkit-") as place, teachers(run, billed(loop, nth)) as roles:
        context = context_of(run, profile, chosen, roles, Path(place), loop.plan, nth, loop.samples)
        written = accept_measured(run, profile, roles, chosen.write(context), loop.model)
    run.answer_counts.require(profile.teacher.accept_missing)  # before training on too few questions
    new, repeated = curate_round(run, loop, written["questions"], judge)
    limit = most * (nth + 1) // run.profile.rounds.n - sum(map(len, loop.questions))
    over = new.sample(max(0, len(new) - limit), random_state=run.seed)
    new, over = new.drop(over.index), over.assign(reason="over_budget", detail=f"one pass has {most:,} questions")
    loop.rejects += [rows.assign(round=nth + 1) for rows in (written["rejects"], repeated, over)]
    if new.empty:
        loop.stopped = f"no question of round {nth + 1} was accepted"
        return None
    loop.questions.append(new.reindex(columns=list(COLUMNS)).assign(round=nth + 1))
    return new


def round_job(run: Run, loop: Loop, nth: int, name: str, new: pd.DataFrame) -> Job:
    """The training of round `nth` on its questions, from the current checkpoint."""
    n, settings, changes = run.profile.rounds.n, run.profile.midtrain, {}
    if nth and settings.rate == "inherit":  # the schedule continues from the last rate of the base
        last_rate = read_json(run.model(BASE) / "training.json")["lr"]
        changes = {"rate": "rewarm", "warmup": 0.0, "learning_rate": last_rate}
    return midtrain_job(
        run,
        name,
        loop.model,
        qa_file(run, new),
        tokens=share_of(run.profile.rounds.tokens or settings.tokens, nth, n),
        part=(nth / n, (nth + 1) / n),
        keep_optimizer=nth + 1 < n,
        seed=loop.seed * n + nth,  # another order of the general text in each part
        **changes,
    )


def share_of(total: int, nth: int, n: int) -> int:
    """The `nth` of `n` nearly equal integers that add up to `total`."""
    return total * (nth + 1) // n - total * nth // n


def billed(loop: Loop, nth: int) -> str:
    """The name under which the ledger counts the requests of a round."""
    return f"{ROUNDS}/seed {loop.seed} round {nth + 1}"


def curate_round(run: Run, loop: Loop, new: pd.DataFrame, judge: Callable) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(accepted, rejected) questions of a round, curated together with the seeds and the previous rounds, which a new
    question never displaces."""
    before = pd.concat([run.read("annotate").seeds, *loop.questions], ignore_index=True)
    both = pd.concat([before.assign(verified=True), new.assign(verified=None)], ignore_index=True)
    both["place"] = range(-len(before), len(new))
    verified = pd.Series(new["verified"].to_numpy() if "verified" in new else None, range(len(new)), dtype=object)

    def select_new(rows: pd.DataFrame) -> pd.DataFrame:
        rows = rows[rows["place"] >= 0]
        return rows.assign(verified=rows["place"].map(verified)).drop(columns="place")

    kept, rejects, _ = judge(both)
    return select_new(kept), select_new(rejects)


def finish_round(run: Run, loop: Loop, nth: int, part: Trained) -> None:
    """Make a trained checkpoint the current one: probe it and record the round; stop if its gain is below the bound."""
    before, loop.samples = loop.samples, probe_samples(run, part.path)
    loop.trainings.append(part)
    loop.model = part.path
    new = loop.questions[-1]
    about = {
        "round": nth + 1,
        "asked": int(loop.plan["budget"].sum()),
        "questions": len(new),
        "rejected": sum(len(table) for table in loop.rejects[-3:]),
        "usd": spent(run, billed(loop, nth)),
    }
    found = record_probe(run, loop, about, before)
    grid = loop.plan.merge(cells(loop.samples)[[*CELL, "accuracy"]], on=CELL, suffixes=("", "_after"))
    counts = new.groupby(CELL).size().rename("questions").reset_index()
    grid = grid.merge(counts, on=CELL, how="left").fillna({"questions": 0}).astype({"questions": int})
    grid["gain"] = grid["accuracy_after"] - grid["accuracy"]
    loop.cells.append(grid.assign(seed=loop.seed, round=nth + 1))
    stop, n = run.profile.rounds.stop, run.profile.rounds.n
    if stop is not None and found["gain_high"] < stop:
        loop.stopped = f"the gain of round {nth + 1} is below {stop:g}: its interval ends at {found['gain_high']:.3f}"
    elif nth + 1 == n:
        loop.stopped = f"all {n} rounds are used up"


def record_probe(run: Run, loop: Loop, about: dict, before: pd.DataFrame | None) -> dict:
    """Add the current checkpoint's answers to the probe to the loop's rows, paired with those of the previous one,
    `before`."""
    grid, planned = only_labelled(cells(loop.samples)), weak_parts(run)
    now = weak_cells(grid, run.profile.plan)
    row = {"seed": loop.seed, "tokens": loop.tokens, "weak_cells": len(now)} | about
    for prefix, on in (("", "all"), ("weak_", "weak")):
        samples = by_weakness(loop.samples, planned)[on]
        row |= {f"{prefix}{name}": value for name, value in accuracy(samples).iloc[0].items()}
        if before is not None:
            paired = paired_difference(
                samples, by_weakness(before, planned)[on], resamples=run.profile.evaluate.bootstrap, seed=run.seed
            )
            row[f"{prefix}gain"] = paired["difference"]
            row |= {f"{prefix}gain_{end}": paired[end] for end in ("low", "high")}
    loop.rows.append(row)
    loop.probes.append(mark_weak(grid, now, arm=ROUNDS, seed=loop.seed, round=row["round"], tokens=loop.tokens))
    return row


def mark_weak(grid: pd.DataFrame, now: pd.DataFrame, **columns) -> pd.DataFrame:
    """A grid with a column `weak`, whether each of its cells is in `now`, and further `columns`."""
    return grid.assign(weak=in_cells(grid, now), **columns)


def spent(run: Run, stage: str) -> float | None:
    """US dollars of the requests that the ledger counts under a name, None if a price is unknown."""
    with run.ledger() as ledger:
        sent = ledger.spend(run.billed_to)
    sent = sent[sent["stage"].str.endswith(stage)]
    return None if sent["unpriced"].sum() else float(sent["cost"].sum())


def comparison_jobs(run: Run, of: str, loop: Loop) -> dict[str, tuple[Job, int | None]]:
    """The trainings that a loop is compared with, each with its number of questions: one pass over the data set, and
    the control, both on as many tokens; the run's own training if it is the same."""
    sets, control = run.profile.arms, run.profile.control
    arm_of_set = next((arm for arm, names in sets.items() if tuple(names) == (of,)), None)
    table, found = getattr(run.read("curate"), of), {}
    n = sum(map(len, loop.questions))
    fewer = n < (1 - AS_MANY) * len(table)
    part = {} if loop.done == 1 else {"part": (WHOLE[0], loop.done), "keep_optimizer": True}
    for name, arm in ((ONE_PASS, None if fewer else arm_of_set), (control, control)):
        if name is None:
            continue
        if arm is None:
            read = table.sample(n, random_state=run.seed) if fewer else table
            job = midtrain_job(run, f"{of} one pass", run.model(BASE), qa_file(run, read))
        else:
            job = midtrain_job_of(run, arm)
            if (job.tokens, job.seed) != (loop.tokens, loop.seed) or part:
                job = arm_job(run, arm)
        questions = (n if fewer else len(table)) if name == ONE_PASS else None
        found[name] = replace(job, tokens=loop.tokens, seed=loop.seed, **part), questions
    return found


def compare_with_one_pass(run: Run, of: str, loops: list[Loop]) -> dict:
    """The outputs of the stage; the exams are answered here, once."""
    jobs = {(name, loop.seed): job for loop in loops for name, job in comparison_jobs(run, of, loop).items()}
    others = dict(zip(jobs, train_jobs(run, [job for job, _ in jobs.values()]), strict=True))
    questions = {key: n for key, (_, n) in jobs.items()}
    questions |= {(ROUNDS, loop.seed): sum(map(len, loop.questions)) for loop in loops}
    paths = {(ROUNDS, loop.seed): loop.model for loop in loops} | {key: other.path for key, other in others.items()}
    paths |= {(BASE, loop.seed): run.model(BASE) for loop in loops}
    answered = score_models(run, paths.values())
    samples = {key: answered[path].drop_duplicates("id") for key, path in paths.items()}
    probes = [grid for loop in loops for grid in loop.probes]
    for loop in loops:
        one_pass = others[ONE_PASS, loop.seed]
        grid = only_labelled(cells(probe_samples(run, one_pass.path)))
        where = {"seed": loop.seed, "round": len(loop.trainings), "tokens": loop.tokens}
        probes += [
            loop.probes[0].assign(arm=ONE_PASS),
            mark_weak(grid, weak_cells(grid, run.profile.plan), arm=ONE_PASS, **where),
        ]
    planned, names = weak_parts(run), list(dict.fromkeys(name for name, _ in paths))
    seeds = [loop.seed for loop in loops]
    split = {key: by_weakness(rows, planned) for key, rows in samples.items()}
    compared = [(ROUNDS, other) for other in names if other != ROUNDS] + [(ONE_PASS, BASE)]
    return {
        "rounds": pd.DataFrame([row | {"stopped": loop.stopped} for loop in loops for row in loop.rows]),
        "cells": pd.concat([grid for loop in loops for grid in loop.cells], ignore_index=True),
        "probes": pd.concat(probes, ignore_index=True),
        "questions": with_seed(loops, lambda loop: loop.questions),
        "rejects": with_seed(loops, lambda loop: loop.rejects),
        "samples": pd.concat([rows.assign(arm=a, seed=s) for (a, s), rows in samples.items()], ignore_index=True),
        "accuracies": pd.DataFrame(
            [
                {"arm": arm, "seed": seed, "questions": questions.get((arm, seed)), "on": on}
                | accuracy(rows).iloc[0].to_dict()
                for (arm, seed), by_part in split.items()
                for on, rows in by_part.items()
            ]
        ),
        "comparisons": pd.DataFrame(
            [
                {"a": a, "b": b, "on": on}
                | difference_over_seeds(
                    [(split[a, seed][on], split[b, seed][on]) for seed in seeds],
                    resamples=run.profile.evaluate.bootstrap,
                    seed=run.seed,
                )
                for a, b in compared
                for on in ("weak", "other", "all")
            ]
        ),
        "uses": [t.artifact for loop in loops for t in loop.trainings] + [t.artifact for t in others.values()],
    }


def with_seed(loops: list[Loop], tables) -> pd.DataFrame:
    """Tables of all loops in one, with the training seed."""
    return pd.concat([table.assign(seed=loop.seed) for loop in loops for table in tables(loop)], ignore_index=True)
