"""Tables of notebook 07: what is trained on, what it takes, and whether a run goes on as if nothing had happened."""

import tempfile
from pathlib import Path

import pandas as pd
import yaml

from qatoolkit.core.artifacts import as_json
from qatoolkit.core.settings import replace
from qatoolkit.core.stats import accuracy
from qatoolkit.evaluation.cloze import load_model, score
from qatoolkit.run.stages.evaluation import exam_rows
from qatoolkit.run.stages.training import arm_job, arm_table, token_file
from qatoolkit.run.store import Run
from qatoolkit.training.job import learning_rate
from qatoolkit.training.settings import SCHEDULES


def job_file(run: Run, arm: str = "boostqa") -> str:
    """An arm's job as the YAML file that `qatoolkit train` takes, put into the results folder; what is at its default is left out."""
    kept = arm_job(run, arm, out=str(run.root / arm)).model_dump(exclude_defaults=True)
    for place in {"out", "qa", "general", "tokenizer", "start"} & set(kept):
        kept[place] = Path(kept[place]).relative_to(run.root).as_posix()
    return yaml.safe_dump(as_json(kept), sort_keys=False)


def needs(run: Run, arm: str = "boostqa"):
    """What training an arm needs: parameters, FLOPs, memory by part, hours at a rate assumed from this machine."""
    from qatoolkit.training.distributed import processes
    from qatoolkit.training.hub import load_config
    from qatoolkit.training.setup import estimate_job, open_data

    job = arm_job(run, arm)
    return estimate_job(job, load_config(job.start), open_data(job), processes())


def packing(run: Run) -> pd.DataFrame:
    """Every arm's QA and the general text as packed: documents, tokens, blocks, share of places that hold a token, and what
    padding each document to the longest would leave of it."""
    from qatoolkit.training.packing import pack
    from qatoolkit.training.tokens import open_tokens

    folders = {arm: token_file(run, arm_table(run, arm)) for arm in sorted(run.profile.arms)}
    folders = {arm: folder for arm, folder in folders.items() if folder} | {"replay": run.place("base", "replay")}
    rows = []
    for name, folder in folders.items():
        packed = pack(open_tokens(folder), run.profile.student.block)
        longest = int(packed.lengths.max())
        rows.append(
            {
                "data": name,
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


def averaged_models(run: Run, arms: tuple[str, ...] = ("boostqa", "linkqa")) -> pd.DataFrame:
    """Exam accuracy of some arms and of the average of their weights, by the cloze scorer."""
    from qatoolkit.training.checkpoints import soup

    exam = exam_rows(run)
    with tempfile.TemporaryDirectory() as folder:
        models = {arm: run.model(arm) for arm in arms}
        models[" + ".join(arms) + ", averaged"] = soup(list(models.values()), Path(folder) / "soup")
        rows = [
            {"model": name} | accuracy(score(*load_model(path), exam)).iloc[0].to_dict()
            for name, path in models.items()
        ]
    return pd.DataFrame(rows)
