"""Ablations: runs with a dial turned, each paired with its arm untouched, at a share of the mid-training tokens."""

import re

import pandas as pd

from qatoolkit.core.artifacts import key_of
from qatoolkit.core.stats import accuracy, holm, mcnemar, paired_difference
from qatoolkit.run.contracts import Stage
from qatoolkit.run.outputs import Outputs
from qatoolkit.run.profiles import Profile
from qatoolkit.run.stages.evaluation import parts, scored
from qatoolkit.run.stages.flow import run_to
from qatoolkit.run.stages.teachers import keep_endpoint
from qatoolkit.run.stages.training import arm_job, arm_table, shares_in, trained
from qatoolkit.run.stages.weakness import weak_parts
from qatoolkit.run.store import Run

REFERENCE = "reference"
LONGEST = 60  # characters of a variant's folder
_ABLATIONS = Stage(
    "ablations",
    reads=("exams", "annotate", "base", "plan", "curate"),
    settings=(
        *("world", "seeds", "teacher", "annotate", "plan", "boostqa", "linkqa", "strategies", "measure", "curate"),
        *("student", "midtrain", "evaluate"),
    ),
)


def called(dials: dict) -> str:
    """An ablation in words: `boostqa.refine=False`."""
    return ", ".join(f"{name}={value}" for name, value in dials.items() if name != "arm")


def arm_of(profile: Profile, dials: dict) -> str:
    """The arm that an ablation is about: the one it names, else the arm called like a group of its dials (or like a
    strategy under `strategies`), else the main one."""
    groups = [dial.removeprefix("strategies.").split(".")[0] for dial in dials]
    own = [arm for arm in profile.arms if arm in groups]
    return dials.get("arm") or (own[0] if own else profile.main_arm)


def variant(run: Run, dials: dict) -> tuple[Run, str]:
    """The run with an ablation's dials turned, its stages made up to curation, and its arm."""
    arm = arm_of(run.profile, dials)
    turned = {name: value for name, value in dials.items() if name != "arm"}
    sets = {name: None for name in run.profile.arms if name != arm}
    name = re.sub(r"[^\w.-]+", "_", f"{arm}-{called(dials)}")
    name = name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{key_of(dials)[:8]}"
    other = run.variant(name, turned | {"arms": sets, "compare": (), "ablations": ()})
    run_to(other, "curate", log=quiet)
    return other, arm


def quiet(line: str) -> None:
    """A log that leaves out what was done before."""
    if "done before" not in line:
        print(line)


def ablations(run: Run, *, log=print) -> Outputs:
    """Every ablation of the profile: its arm trained with the dials turned and untouched, on the same tokens, and
    compared on the same questions. `ablations` has the paired differences (turned minus untouched; Holm-corrected
    within weak and all), `samples` the questions, by job."""

    def make(folder) -> dict:
        tokens = round(run.profile.midtrain.tokens * run.profile.ablation_tokens)
        jobs, about = {}, []
        with keep_endpoint(run):
            variants = [variant(run, dials) for dials in run.profile.ablations]
        for dials, (other, arm) in zip(run.profile.ablations, variants, strict=True):
            name = called(dials)
            jobs.setdefault((arm, REFERENCE), arm_job(run, arm, tokens=tokens))
            jobs[arm, name] = arm_job(other, arm, tokens=tokens)
            about.append({"arm": arm, "ablation": name, "questions": len(arm_table(other, arm))})
        found = dict(zip(jobs, trained(run, list(jobs.values())), strict=True))
        samples = scored(run, [t.job.out for t in found.values()])
        of = {key: samples[t.job.out] for key, t in found.items()}
        table = _paired(about, of, weak_parts(run), run.profile.evaluate.bootstrap, run.seed)
        kept = [rows.assign(arm=arm, ablation=name) for (arm, name), rows in of.items()]
        mixtures = [{"arm": a, "ablation": n} | shares_in(t.manifest) for (a, n), t in found.items()]
        return {
            "ablations": table,
            "samples": pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=["arm", "ablation", "id"]),
            "mixtures": pd.DataFrame(mixtures),
            "uses": [t.artifact for t in found.values()],
        }

    return run.complete("ablations", _ABLATIONS, make, log=log)


def _paired(about: list[dict], of: dict, weak: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """One row per ablation on weak cells and on all: accuracy, and the paired difference to the untouched arm with p
    corrected."""
    rows = []
    for row in about:
        turned, untouched = of[row["arm"], row["ablation"]], of[row["arm"], REFERENCE]
        for on in ("weak", "all"):
            a, b = (parts(samples, weak)[on] for samples in (turned, untouched))
            both = accuracy(a).iloc[0]["accuracy"], accuracy(b).iloc[0]["accuracy"]
            found = paired_difference(a, b, resamples=resamples, seed=seed) | {"p": mcnemar(a, b)["p"]}
            rows.append(row | {"on": on, "accuracy": both[0], "untouched": both[1]} | found)
    columns = ["arm", "ablation", "questions", "on", "accuracy", "untouched", "difference", "low", "high", "n", "p"]
    table = pd.DataFrame(rows, columns=columns).assign(p_holm=float("nan"))
    for _, part in table[~table["ablation"].str.startswith("midtrain.seed=")].groupby("on"):  # a seed is no hypothesis
        table.loc[part.index, "p_holm"] = holm([1.0 if p is None else p for p in part["p"]])
    return table
