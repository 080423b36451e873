"""Sweeps over dials: an arm and its control at every combination, one row each."""

import itertools
import re
from pathlib import Path

import pandas as pd

from qatoolkit.core.artifacts import key_of
from qatoolkit.core.files import read_json, write_json
from qatoolkit.core.stats import CELL, paired_difference
from qatoolkit.run.stages.contents import make_once
from qatoolkit.run.stages.evaluation import by_weakness, score_models
from qatoolkit.run.stages.flow import run_to
from qatoolkit.run.stages.students import blind_scores, rungs
from qatoolkit.run.stages.training import Trained, midtrain_job, qa_of, train_jobs, training_key
from qatoolkit.run.stages.variants import ablation_name
from qatoolkit.run.stages.weakness import weak_parts
from qatoolkit.run.store import Run
from qatoolkit.training.job import Job
from qatoolkit.training.launch import JobsToRun

SWEEPS = "sweeps.json"  # in the run's folder: the reasons of failed trainings
SWEPT = [  # columns after the dials
    *("arm", "tokens", "parameters", "learning_rate", "accuracy", "control_accuracy", "bits_per_byte", "chance"),
    *("gain", "gain_low", "gain_high", "n", "weak_gain", "weak_gain_low", "weak_gain_high", "weak_n", "reason"),
]


def sweep(run: Run, grid: dict[str, list], *, arm: str | None = None, retry: bool = False, log=print) -> pd.DataFrame:
    """Train an arm (default: the main one) and the control at every combination of dials, and score both: one row per
    combination.

    `grid`: values by dial, such as {"midtrain.replay": [0.1, 0.3], "midtrain.seed": [0, 1]}. A combination is this run
    with those dials: stages that they do not touch are shared, and nothing that was trained and scored before, in any
    sweep, is done again. Besides dials there is `size`: rungs of the run's ladder to mid-train from, on the same data
    ({"size": ["xxs", "xs"]}). Columns: the dials, arm, tokens, parameters, learning_rate, accuracy, control_accuracy,
    bits_per_byte (of the right choice), the paired gain over the control on all exam questions with low and high,
    weak_gain with its interval in the run's weak cells, n, weak_n. If the run has no control, or `scaling.control` is
    off, gains are over the base.

    A training that fails leaves its `reason` in its row, and the others continue; it is tried again only with `retry`.
    ValueError for a dial or value that does not exist, before anything is trained."""
    arm, names = arm or run.profile.main_arm, list(grid)
    for name, values in grid.items():
        if not isinstance(values, list | tuple) or not values:
            raise ValueError(f"grid[{name!r}] is {values!r}; it must be a list of values, such as [0.1, 0.3]")
    combinations = [dict(zip(names, values, strict=True)) for values in itertools.product(*grid.values())]
    control = run.profile.control if run.profile.scaling.control and run.profile.control != arm else None
    kept = {a: None for a in run.profile.arms if a not in (arm, control)}
    starts = {size: path for (size, initial), path in rungs(run).items() if initial == 1.0} if "size" in grid else {}
    if unknown := [str(size) for size in grid.get("size", ()) if size not in starts]:
        raise ValueError(
            f"size: no rung is called {', '.join(unknown)}; the run has {', '.join(starts)} (`scaling.sizes`, `ladder`)"
        )
    without_size = [{name: value for name, value in dials.items() if name != "size"} for dials in combinations]
    others = [variant_of(run, arm, dials, kept) for dials in without_size]
    jobs, failed = [], read_failures(run)
    for dials, other in zip(combinations, others, strict=True):
        run_to(other, "curate")
        start = starts[dials["size"]] if "size" in dials else run.model("base")
        files = {name: qa_of(other, name) for name in (arm, control) if name}
        jobs.append({name: midtrain_job(other, name, start, qa) for name, qa in files.items()})
    if retry:
        retried = {training_key(job) for pair in jobs for job in pair.values()}
        failed = {key: reason for key, reason in failed.items() if key not in retried}
    todo = {key: job for pair in jobs for job in pair.values() if (key := training_key(job)) not in failed}
    found, reasons = trained_or_reason(run, todo)
    failed |= reasons
    write_json(failed, run.folder / SWEEPS)
    rows = []
    for dials, pair in zip(combinations, jobs, strict=True):
        about = {name: value if isinstance(value, int | float | str) else str(value) for name, value in dials.items()}
        about |= {"arm": arm, "tokens": pair[arm].tokens, "learning_rate": pair[arm].learning_rate}
        if errors := [failed[key] for key in map(training_key, pair.values()) if key in failed]:
            rows.append(about | {"reason": errors[0]})
            log(f"sweep: {ablation_name(dials)} failed: {errors[0]}")
            continue
        rows.append(
            about | score_combination(run, {name: found[training_key(job)] for name, job in pair.items()}, arm, control)
        )
    return pd.DataFrame(rows, columns=[*names, *SWEPT])


def variant_of(run: Run, arm: str, dials: dict, arms: dict) -> Run:
    """The run with dials turned and its arms changed by `arms`."""
    name = re.sub(r"[^\w.-]+", "_", f"sweep-{arm}-{key_of(dials)[:12]}")
    return run.variant(name, dials | {"arms": arms, "compare": (), "ablations": ()})


def read_failures(run: Run) -> dict[str, str]:
    """The reasons why trainings of earlier sweeps failed, by key."""
    path = run.folder / SWEEPS
    return read_json(path) if path.exists() else {}


def trained_or_reason(run: Run, jobs: dict[str, Job]) -> tuple[dict[str, Trained], dict[str, str]]:
    """The trainings by key, and the reasons of those that failed; after a failure they are trained one by one."""
    try:
        return dict(zip(jobs, train_jobs(run, list(jobs.values())), strict=True)), {}
    except JobsToRun:
        raise
    except RuntimeError:
        found, reasons = {}, {}
    for key, job in jobs.items():
        try:
            [found[key]] = train_jobs(run, [job])
        except JobsToRun:
            raise
        except RuntimeError as error:
            reasons[key] = str(error)
    return found, reasons


def score_combination(run: Run, pair: dict[str, Trained], arm: str, control: str | None) -> dict:
    """The scores of one combination; models that answered the same questions before are not scored again."""
    weak = weak_parts(run)
    over = pair[control].job.out if control else pair[arm].job.start
    artifacts = [t.artifact for t in pair.values()]
    about = [*artifacts, run.manifest("exams")["outputs"], weak[CELL].values.tolist()]

    def make(folder: Path) -> None:
        samples = score_models(run, [pair[arm].job.out, over])
        of_arm, reference = samples[pair[arm].job.out], samples[over]
        row = {"parameters": pair[arm].manifest["parameters"], "accuracy": float(of_arm["correct"].mean())}
        row |= {"control_accuracy": float(reference["correct"].mean()), "chance": blind_scores(run, arm)["chance"]}
        row |= {"bits_per_byte": float(of_arm["bits_per_byte"].mean()) if "bits_per_byte" in of_arm else None}
        for prefix, on in (("", "all"), ("weak_", "weak")):
            gain = paired_difference(*(by_weakness(model, weak)[on] for model in (of_arm, reference)), seed=run.seed)
            row |= {f"{prefix}gain": gain["difference"], f"{prefix}n": gain["n"]}
            row |= {f"{prefix}gain_{end}": gain[end] for end in ("low", "high")}
        write_json(row, folder / "row.json")

    made = make_once(run, "sweep", about, make, uses=artifacts)
    run.point(f"sweeps/{made.key[:12]}", made)
    return read_json(made.folder / "row.json")
