"""Ablations: runs with dials turned, each paired with its untouched arm over training seeds, at a share of the
mid-training tokens."""

import re

import pandas as pd

from qatoolkit.core.artifacts import key_of
from qatoolkit.core.stats import accuracy, corrected, difference_over_seeds
from qatoolkit.run.contracts import stage
from qatoolkit.run.stages.evaluation import by_weakness, score_models
from qatoolkit.run.stages.flow import run_to
from qatoolkit.run.stages.training import arm_job, arm_table, seed_range, shares_in, train_jobs
from qatoolkit.run.stages.weakness import weak_parts
from qatoolkit.run.store import Run

REFERENCE = "reference"
KEY = ["arm", "ablation", "seed"]
READ_BY_BASE = ("midtrain.tokens", "midtrain.rate")  # a new base can mean a new plan, and so new questions
LONGEST = 60  # characters in the name of a variant's folder


def ablation_name(dials: dict) -> str:
    """The name of an ablation: `boostqa.refine=False`."""
    return ", ".join(f"{name}={value}" for name, value in dials.items() if name != "arm")


def variant(run: Run, dials: dict) -> tuple[Run, str]:
    """The run with an ablation's dials turned and its stages made up to curation, and the ablation's arm."""
    arm = run.profile.arm_of(dials)
    turned = {name: value for name, value in dials.items() if name != "arm"}
    only_trained = all(dial.startswith("midtrain.") and dial not in READ_BY_BASE for dial in turned)
    sets = {} if only_trained else {name: None for name in run.profile.arms if name != arm}  # {}: as curated in the run
    name = re.sub(r"[^\w.-]+", "_", f"{arm}-{ablation_name(dials)}")
    name = name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{key_of(dials)[:8]}"
    other = run.variant(name, turned | {"arms": sets, "compare": (), "ablations": ()})
    print(f"{arm} with {ablation_name(dials)}:")
    run_to(other, "curate")
    return other, arm


@stage(
    "ablations",
    reads=("exams", "annotate", "base", "plan", "curate"),
    settings=(
        *("world", "seeds", "teacher", "annotate", "plan", "boostqa", "linkqa", "strategies", "measure", "curate"),
        *("student", "midtrain", "evaluate"),
    ),
)
def ablations(run: Run, folder) -> dict:
    """Every ablation of the profile: its arm trained with the dials turned and untouched, on the same tokens and with
    the same training seeds (`ablation_seeds`), and compared on the same questions. With several seeds the main arm and
    the control are also trained, for `qt.tables.training_seeds`.

    `ablations` has the paired differences (turned minus untouched; intervals and p as in
    `core.stats.difference_over_seeds`, Holm-corrected within weak and all), `samples` the answers, by arm, ablation and
    seed."""
    tokens, profile = round(run.profile.midtrain.tokens * run.profile.ablation_tokens), run.profile
    variants = [(ablation_name(dials), *variant(run, dials)) for dials in profile.ablations]
    run_of = {(arm, name): other for name, other, arm in variants}
    sets = [{"arm": arm, "ablation": name, "questions": len(arm_table(other, arm))} for name, other, arm in variants]
    untouched = [arm for _, _, arm in variants]
    if profile.ablation_seeds > 1:
        untouched += [arm for arm in (profile.main_arm, profile.control) if arm]
    run_of |= {(arm, REFERENCE): run for arm in untouched}
    jobs = {
        (*key, seed): arm_job(other, key[0], tokens=tokens, seed=seed)
        for key, other in run_of.items()
        for seed in seed_range(run, profile.ablation_seeds)
    }
    found = dict(zip(jobs, train_jobs(run, list(jobs.values())), strict=True))
    scores = score_models(run, [t.job.out for t in found.values()])
    keys = [dict(zip(KEY, key, strict=True)) for key in jobs]
    tables = [scores[t.job.out].assign(**key) for key, t in zip(keys, found.values(), strict=True)]
    samples = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*KEY, "id"])
    samples = samples.drop_duplicates([*KEY, "id"], ignore_index=True)
    return {
        "ablations": _compare(sets, samples, weak_parts(run), profile.evaluate.bootstrap, run.seed),
        "samples": samples,
        "mixtures": pd.DataFrame([key | shares_in(t.manifest) for key, t in zip(keys, found.values(), strict=True)]),
        "uses": [t.artifact for t in found.values()],
    }


def _compare(sets: list[dict], samples: pd.DataFrame, weak: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """One row per ablation on weak cells and on all: accuracy, and the paired difference to the untouched arm over the
    training seeds, with corrected p."""
    rows, columns = [], ("difference", "low", "high", "n", "seeds", "p")
    split = {key: by_weakness(group, weak) for key, group in samples.groupby(KEY)}
    for row in sets:
        for on in ("weak", "all"):
            turned, untouched = (
                [part[on] for (arm, ablation, _), part in split.items() if (arm, ablation) == (row["arm"], name)]
                for name in (row["ablation"], REFERENCE)
            )
            found = difference_over_seeds(list(zip(turned, untouched, strict=True)), resamples=resamples, seed=seed)
            both = [accuracy(pd.concat(tables)).iloc[0]["accuracy"] for tables in (turned, untouched)]
            rows.append(row | {"on": on, "accuracy": both[0], "untouched": both[1]} | {k: found[k] for k in columns})
    table = pd.DataFrame(rows, columns=["arm", "ablation", "questions", "on", "accuracy", "untouched", *columns])
    return table.assign(p_holm=corrected(table, "p", "on"))
