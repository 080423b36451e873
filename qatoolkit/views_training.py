"""Tables of notebook 07: what is trained on, what it takes, and whether a run goes on as if nothing had happened."""

import json
import tempfile
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd
import yaml

from qatoolkit.evaluate import accuracy
from qatoolkit.experiments import exam_rows, midtrain_job
from qatoolkit.files import digest
from qatoolkit.recipe import SCHEDULES, Job, learning_rate
from qatoolkit.scorer import load_model, score
from qatoolkit.store import Run


def arm_job(run: Run, arm: str = "boostqa") -> Job:
    """The job that trained an arm."""
    stored = run.stage("midtrain")
    return midtrain_job(run, arm, run.read("base").model, stored / "data" / arm, stored / arm)


def job_file(run: Run, arm: str = "boostqa") -> str:
    """An arm's job as the YAML file that `python -m qatoolkit.midtrain` takes; what is at its default is left out."""
    job = arm_job(run, arm)
    kept = {f.name: getattr(job, f.name) for f in fields(Job) if getattr(job, f.name) != f.default}
    kept = json.loads(json.dumps(kept))  # lists for tuples
    for place in {"out", "qa", "general", "tokenizer", "start"} & set(kept):
        kept[place] = Path(kept[place]).relative_to(run.folder).as_posix()
    return yaml.safe_dump(kept, sort_keys=False)


def needs(run: Run, arm: str = "boostqa"):
    """What training an arm takes: parameters, FLOPs, memory by part, hours at a rate assumed from this machine."""
    from qatoolkit.devices import processes
    from qatoolkit.hub import load_config
    from qatoolkit.trainee import mixture_of, plan

    job = arm_job(run, arm)
    return plan(job, load_config(job.start), mixture_of(job), processes())


def packing(run: Run) -> pd.DataFrame:
    """Every arm's QA and the general text as packed: documents, tokens, blocks, share of places that hold a token, and what
    padding each document to the longest would leave of it."""
    from qatoolkit.packing import pack
    from qatoolkit.tokens import open_tokens

    folders = [*sorted((run.stage("midtrain") / "data").iterdir()), run.read("base").data / "replay"]
    rows = []
    for folder in folders:
        packed = pack(open_tokens(folder), run.profile.student.block)
        longest = int(packed.lengths.max())
        rows.append(
            {
                "data": folder.name,
                "documents": len(packed.source),
                "tokens": int(packed.tokens.sum()),
                "tokens a document": packed.tokens.sum() / len(packed.source),
                "blocks": len(packed),
                "packed": packed.efficiency,
                "padded": packed.tokens.sum() / (len(packed.lengths) * longest),
            }
        )
    return pd.DataFrame(rows)


def schedules(run: Run, arm: str = "boostqa", steps: int = 200) -> pd.DataFrame:
    """Learning rate by share of the run under each schedule, and under an inherited rate: columns share, lr, schedule."""
    job = arm_job(run, arm)
    shapes = {name: (replace(job, schedule=name, rate="rewarm"), None) for name in SCHEDULES}
    shapes["linear, inherited"] = (replace(job, schedule="linear"), run.profile.student.learning_rate)
    return pd.DataFrame(
        [
            {"share": step / steps, "lr": learning_rate(step, steps, one, inherited), "schedule": name}
            for name, (one, inherited) in shapes.items()
            for step in range(steps)
        ]
    )


def interrupted(run: Run, arm: str = "boostqa", tokens: int = 12_000, at: int = 5) -> pd.DataFrame:
    """A short training of an arm twice: undisturbed, and stopped after step `at`, then started again. One row each with steps,
    final loss and the weights' digest, which must be equal (on a CPU)."""
    from qatoolkit.midtrain import train

    rows = []

    class Stopped(Exception):
        pass

    def stop(row: dict) -> None:
        if row["step"] == at:
            raise Stopped

    with tempfile.TemporaryDirectory() as folder:
        for name, hook in (("undisturbed", None), (f"stopped after step {at}, started again", stop)):
            job = replace(arm_job(run, arm), out=f"{folder}/{len(rows)}", tokens=tokens, save_every=2)
            try:
                manifest = train(job, hook=hook, log=str)
            except Stopped:
                manifest = train(job, log=str)
            rows.append(
                {
                    "run": name,
                    "steps": manifest["steps"],
                    "final loss": manifest["loss"],
                    "weights": digest(Path(job.out) / "model.safetensors")[:12],
                }
            )
    return pd.DataFrame(rows)


def souped(run: Run, arms: tuple[str, ...] = ("boostqa", "linkqa")) -> pd.DataFrame:
    """Exam accuracy of some arms and of the average of their weights, by the cloze scorer."""
    from qatoolkit.checkpoints import soup

    exam, stored = exam_rows(run), run.read("midtrain")
    with tempfile.TemporaryDirectory() as folder:
        models = {arm: getattr(stored, arm) for arm in arms}
        models[" + ".join(arms) + ", averaged"] = soup(list(models.values()), Path(folder) / "soup")
        rows = [
            {"model": name} | accuracy(score(*load_model(path), exam)).iloc[0].to_dict()
            for name, path in models.items()
        ]
    return pd.DataFrame(rows)
