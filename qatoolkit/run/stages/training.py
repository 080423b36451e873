"""Stages on training: the base student, and one mid-trained model per arm; every training is an artifact of its own."""

import itertools
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from qatoolkit.core.artifacts import Artifact, as_json, key_of
from qatoolkit.core.files import digest, read_json
from qatoolkit.core.settings import replace
from qatoolkit.run.store import STAGES, Outputs, Run, Stage, stage
from qatoolkit.training.checkpoints import adopt
from qatoolkit.training.hub import load_tokenizer
from qatoolkit.training.job import Job, identity
from qatoolkit.training.parallel import train_all
from qatoolkit.training.settings import Course, Manner
from qatoolkit.training.tokens import qa_documents, train_tokenizer, write_tokens

VERSION = 1  # of what `_made` makes: raised when the same content would give other files
METRICS = ["step", "tokens", "loss", "lr", "arm"]
TOKENIZER_TEXTS = 3000  # documents of general text that a tokenizer is trained on


def shared(run: Run, tokenizer: Path) -> dict:
    """What all of a run's trainings share: how a step is computed, the tokenizer, the seed."""
    manner = {name: getattr(run.profile.student, name) for name in Manner.model_fields}
    return manner | {"tokenizer": str(tokenizer), "seed": run.seed, "out": "."}  # `trained` decides where it is written


def base_job(run: Run, size: str, tokenizer: Path, general: Path, keep: tuple[float, ...] = ()) -> Job:
    """Pre-training of one rung on the run's general corpus, at a constant rate after warm-up."""
    student = run.profile.student
    return Job(
        **shared(run, tokenizer),
        name=f"base {size}",
        size=size,
        general=str(general),
        replay=1.0,
        tokens=student.tokens,
        learning_rate=student.learning_rate,
        warmup=student.warmup,
        schedule="constant",
        keep=keep,
        keep_optimizer=run.profile.midtrain.rate == "inherit",
    )


def midtrain_job(run: Run, name: str, start: Path, qa: Path | None, **changes) -> Job:
    """Mid-training of one arm from a checkpoint, with the rate decaying to zero; without QA all of it is general
    replay."""
    settings = run.profile.midtrain
    fields = {field: getattr(settings, field) for field in Course.model_fields}
    fields |= {
        "name": name,
        "start": str(start),
        "qa": None if qa is None else str(qa),
        "general": str(run.place("base", "replay")),
        "tokens": settings.tokens,
        "replay": settings.replay if qa else 1.0,
    }
    return Job(**shared(run, run.place("base", "tokenizer")) | fields | changes)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training: its job, as it was run, its manifest, and the artifact's name for a stage's `uses`."""

    job: Job
    manifest: dict
    artifact: str

    @property
    def path(self) -> Path:
        """The Hugging Face directory."""
        return Path(self.job.out)

    @property
    def metrics(self) -> pd.DataFrame:
        """Loss and learning rate by step."""
        return pd.read_json(self.path / "metrics.jsonl", lines=True).assign(arm=self.job.name)


def trained(run: Run, jobs: list[Job]) -> list[Trained]:
    """Train jobs side by side, each in the artifact of its content: what was trained before, in any run, is not trained
    again."""
    artifacts = [Artifact(run.root / STAGES, "train", training_key(job)) for job in jobs]
    placed = [replace(job, out=str(a.folder)) for job, a in zip(jobs, artifacts, strict=True)]
    todo = {a.folder: (a, job) for a, job in zip(artifacts, placed, strict=True) if a.manifest is None}
    with ExitStack() as held:
        for folder in sorted(todo):  # in one order, so that two runs never wait for each other
            held.enter_context(todo[folder][0].making())
        for (artifact, _), manifest in zip(todo.values(), train_all([j for _, j in todo.values()]), strict=True):
            artifact.finish({"outputs": {"training": key_of(manifest)}})
    return [
        Trained(job=job, manifest=read_json(artifact.folder / "training.json"), artifact=artifact.name)
        for job, artifact in zip(placed, artifacts, strict=True)
    ]


def training_key(job: Job) -> str:
    """The key of a training: its name, everything that changes what is learned, and the content of what it reads."""
    places = {field: getattr(job, field) for field in ("start", "qa", "general", "tokenizer")}
    content = {f: _content(p) for f, p in places.items() if p}
    keeps = {"keep": job.keep, "keep_optimizer": job.keep_optimizer}
    return key_of("train", 1, job.name, identity(job, **content), keeps)


def _content(path: str) -> str:
    """What represents a place in the key of a training: the artifact that it is part of, else its content."""
    folder = Path(path)
    above = next((p for p in (folder, *folder.parents) if p.parent.parent.name == STAGES), None)
    if above is not None and (above / "manifest.json").is_file():
        return f"{above.parent.name}/{above.name}/{folder.relative_to(above).as_posix()}"
    return digest(folder) if folder.exists() else str(path)


def token_file(run: Run, table: pd.DataFrame) -> Path | None:
    """The rows of a QA table as a token file of the run's tokenizer, an artifact of its own; None for an empty
    table."""
    if table.empty:
        return None
    tokenizer = run.place("base", "tokenizer")
    return _made(
        run,
        "tokens",
        [list(qa_documents(table)), _content(str(tokenizer))],
        lambda folder: write_tokens(qa_documents(table), load_tokenizer(tokenizer), folder),
    ).folder


def _made(run: Run, kind: str, content, make) -> Artifact:
    """The artifact of this content, made by `make(folder)` unless it is there."""
    artifact = Artifact(run.root / STAGES, kind, key_of(kind, VERSION, as_json(content)))
    if artifact.manifest is None:
        with artifact.making() as folder:
            if artifact.manifest is None:
                make(folder)
                artifact.finish({"outputs": {}})
    return artifact


@stage("base", settings=("world", "student", "midtrain", "scaling"), files=("student.checkpoint",))
def base(run: Run, folder: Path) -> dict:
    """The base student: a trunk pre-trained here on the general corpus with checkpoints along the way, or a checkpoint
    of the profile or the world; with its tokenizer, the general corpus in blocks, and the other rungs of the scaling
    axis.

    `places` names the artifacts: model, tokenizer, replay and, where it was trained here, general and `rung <size>`."""
    student, world = run.profile.student, run.world.settings
    checkpoint = student.checkpoint or run.world.ladder().get(student.size)
    if checkpoint:
        model = _made(run, "adopt", [_content(checkpoint)], lambda to: adopt(checkpoint, to / "model"))
        tokenizer = model.folder / "model"
        manifest, metrics = read_json(tokenizer / "training.json"), pd.DataFrame(columns=METRICS)
        places = {"model": f"{model.name}/model", "tokenizer": f"{model.name}/model"}
    else:
        about = [world, run.seed, student.vocabulary, student.tokens]
        own = _made(run, "tokenizer", about, lambda to: _own_tokenizer(run).save_pretrained(to))
        tokenizer = own.folder
        general = _general(run, tokenizer, student.tokens, run.seed)
        sizes = [student.size, *(size for size in run.profile.scaling.sizes if size != student.size)]
        keep = run.profile.scaling.initial
        rungs = trained(run, [base_job(run, s, tokenizer, general.folder, keep * (s == student.size)) for s in sizes])
        manifest, metrics = rungs[0].manifest, rungs[0].metrics
        places = {"model": rungs[0].artifact, "tokenizer": own.name, "general": general.name}
        places |= {f"rung {size}": rung.artifact for size, rung in zip(sizes, rungs, strict=True)}
    places["replay"] = _general(run, tokenizer, 2 * run.profile.midtrain.tokens, run.seed + 1).name
    uses = [name.removesuffix("/model") for name in places.values()]
    return {"places": places, "training": manifest, "metrics": metrics, "uses": uses}


def _own_tokenizer(run: Run):
    student = run.profile.student
    texts = itertools.islice(run.world.general_text(student.tokens, run.seed), TOKENIZER_TEXTS)
    return train_tokenizer(run.world.vocabulary() + list(texts), student.vocabulary)


def _general(run: Run, tokenizer: Path, tokens: int, seed: int) -> Artifact:
    """General text of the run's world as a token file."""
    about = [run.world.settings, tokens, seed, _content(str(tokenizer))]
    return _made(
        run,
        "tokens",
        about,
        lambda folder: write_tokens(run.world.general_text(tokens, seed), load_tokenizer(tokenizer), folder),
    )


def arm_table(run: Run, arm: str) -> pd.DataFrame:
    """The curated QA that an arm trains on."""
    data = run.read("curate")
    parts = [getattr(data, name) for name in run.profile.arms[arm]]
    if not parts:
        return getattr(data, run.manifest("curate")["asked"]["sets"][0])[:0]
    return pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]


def arm_job(run: Run, arm: str, **changes) -> Job:
    """The job that mid-trains an arm from the base student."""
    return midtrain_job(run, arm, run.model("base"), token_file(run, arm_table(run, arm)), **changes)


_MIDTRAIN = Stage("midtrain", reads=("base", "curate"), settings=("student", "midtrain"))


def midtrain(run: Run, *, log=print) -> Outputs:
    """Every arm from the same base checkpoint with the same number of tokens. `models` gives each arm's artifact;
    `run.model(arm)` its Hugging Face directory."""

    def make(folder: Path) -> dict:
        found = trained(run, [arm_job(run, arm) for arm in run.profile.arms])
        mixtures = [
            {"arm": t.job.name, "documents": len(arm_table(run, t.job.name))} | t.manifest["mixture"] for t in found
        ]
        return {
            "models": {t.job.name: t.artifact for t in found},
            "mixtures": pd.DataFrame(mixtures),
            "metrics": pd.concat([t.metrics for t in found], ignore_index=True),
            "training": {t.job.name: t.manifest for t in found},
            "uses": [t.artifact for t in found],
        }

    out = run.complete("midtrain", _MIDTRAIN, make, log=log)
    for arm, name in out.models.items():
        kind, _, key = name.rpartition("/")
        run.point(f"models/{arm}", Artifact(run.root / STAGES, kind, key))
    return out


@stage("resume_check", reads=("midtrain",), settings=("student", "midtrain"))
def resume_check(run: Run, folder: Path, *, arm: str | None = None, tokens: int = 12_000, at: int = 5) -> dict:
    """A short training of an arm twice: undisturbed, and stopped after step `at`, then started again. One row each with
    steps, final loss and the weights' digest, which must be equal (on a CPU)."""
    from qatoolkit.training.train import train

    class Stopped(Exception):
        pass

    def stop(row: dict) -> None:
        if row["step"] == at:
            raise Stopped

    rows = []
    for name, hook in (("undisturbed", None), (f"stopped after step {at}, started again", stop)):
        job = arm_job(
            run, arm or run.profile.main_arm, out=str(folder / f"try-{len(rows)}"), tokens=tokens, save_every=2
        )
        try:
            manifest = train(job, hook=hook, log=str)
        except Stopped:
            manifest = train(job, log=str)
        weights = digest(Path(job.out) / "model.safetensors")[:12]
        rows.append({"run": name, "steps": manifest["steps"], "final loss": manifest["loss"], "weights": weights})
    return {"runs": pd.DataFrame(rows)}
