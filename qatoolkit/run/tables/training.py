"""Tables of training: its data, its cost, schedules and averaged models."""

import tempfile
from pathlib import Path

import pandas as pd
import yaml

from qatoolkit.core.artifacts import as_json
from qatoolkit.core.settings import replace
from qatoolkit.core.stats import accuracy
from qatoolkit.evaluation.cloze import load_model, score
from qatoolkit.run.stages.evaluation import exam_rows
from qatoolkit.run.stages.training import arm_job, model_defaults, qa_of
from qatoolkit.run.store import Run
from qatoolkit.training.job import learning_rate
from qatoolkit.training.settings import SCHEDULES


def job_file(run: Run, arm: str | None = None) -> str:
    """The job of an arm (default: the main one) as YAML for `qatoolkit train`, run from the results folder; settings at
    their defaults are left out."""
    arm = arm or run.profile.main_arm
    kept = arm_job(run, arm, out=str(run.root / arm)).model_dump(exclude_defaults=True)
    for place in {"out", "qa", "general", "tokenizer", "start"} & set(kept):
        kept[place] = Path(kept[place]).relative_to(run.root).as_posix()
    return yaml.safe_dump(as_json(kept), sort_keys=False)


def training_needs(run: Run, arm: str | None = None):
    """What training an arm (default: the main one) takes: parameters, FLOPs, memory by part, hours at this machine's
    assumed rate."""
    from qatoolkit.training.distributed import processes
    from qatoolkit.training.hub import load_config
    from qatoolkit.training.setup import estimate_job, open_data

    job = arm_job(run, arm or run.profile.main_arm)
    return estimate_job(job, load_config(job.start), open_data(job), processes())


def packing(run: Run) -> pd.DataFrame:
    """The packed QA of every arm and the packed general text: documents, tokens, blocks, and the share of positions
    that have a token, packed and if each document were padded to the longest."""
    from qatoolkit.training.mixtures import open_qa

    folders = {arm: qa_of(run, arm) for arm in sorted(run.profile.arms)}
    rows, block = [], arm_job(run, run.profile.main_arm).block
    opened = {name: open_qa(folder, block) for name, folder in folders.items() if folder}
    opened |= {"replay": open_qa(run.place("base", "replay"), block)}
    flat = {name: packed.sources if hasattr(packed, "sources") else {"": packed} for name, packed in opened.items()}
    for name, packed in (
        (f"{arm} {part}".strip(), packed) for arm, parts in flat.items() for part, packed in parts.items()
    ):
        documents, tokens = len(packed.source), packed.tokens.sum()
        padded = tokens / (len(packed.lengths) * int(packed.lengths.max()))
        rows.append((name, documents, int(tokens), tokens / documents, len(packed), packed.efficiency, padded))
    columns = ["data", "documents", "tokens", "tokens a document", "blocks", "packed", "padded"]
    return pd.DataFrame(rows, columns=columns)


def schedules(run: Run, arm: str | None = None, steps: int = 200) -> pd.DataFrame:
    """Learning rate by share of the run under each schedule, and with an inherited rate: share, lr, schedule."""
    job = arm_job(run, arm or run.profile.main_arm)
    shapes = {name: (replace(job, schedule=name, rate="rewarm"), None) for name in SCHEDULES}
    shapes["linear, inherited"] = (replace(job, schedule="linear"), run.profile.student.learning_rate)
    rows = [
        (step / steps, learning_rate(step, steps, shape, inherited), name)
        for name, (shape, inherited) in shapes.items()
        for step in range(steps)
    ]
    return pd.DataFrame(rows, columns=["share", "lr", "schedule"])


def averaged_models(run: Run, n: int = 300) -> pd.DataFrame:
    """Exam accuracy, by the cloze scorer on at most `n` questions, of the first two arms that read one synthetic data
    set each, and of the average of their weights; no rows if there are not two such arms."""
    from qatoolkit.training.checkpoints import soup

    data = run.profile.data
    arms = [
        a
        for a, sets in run.profile.arms.items()
        if len(sets) == 1 and {*sets} <= {*data} and not any(data[s].dials for s in sets)
    ]
    arms, exam = arms[:2], exam_rows(run)
    if len(arms) < 2 or exam.empty:
        return pd.DataFrame(columns=["model", "n", "accuracy", "low", "high"])
    exam = exam.sample(min(n, len(exam)), random_state=run.seed)
    with tempfile.TemporaryDirectory() as folder:
        models = {arm: run.model(arm) for arm in arms}
        models[" + ".join(arms) + ", averaged"] = soup(list(models.values()), Path(folder) / "soup")
        found = [accuracy(score(*load_model(path), exam)).assign(model=name) for name, path in models.items()]
    return pd.concat(found, ignore_index=True)[["model", "n", "accuracy", "low", "high"]]


def chosen_settings(run: Run) -> pd.DataFrame:
    """How the main arm is trained: setting, value, and why: set in the profile, or derived from the model
    (`training.defaults`)."""
    from qatoolkit.training.hub import load_config

    job, profile = arm_job(run, run.profile.main_arm), run.profile
    found, rows = model_defaults(run, load_config(run.model("base"))), []
    for name, default in found.items():
        group = profile.midtrain if name == "learning_rate" else profile.student
        derived = getattr(group, name) is None
        rows.append((name, getattr(job, name), default.reason if derived else f"profile; usual here: {default.value}"))
    return pd.DataFrame(rows, columns=["setting", "value", "why"])
