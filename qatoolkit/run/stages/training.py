"""Stages on training: the base student, and one mid-trained model per arm; every training is an artifact of its own."""

import itertools
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from qatoolkit.core.artifacts import Artifact, as_json, key_of
from qatoolkit.core.files import digest, read_json
from qatoolkit.core.qa_table import COLUMNS, write_table
from qatoolkit.core.settings import replace
from qatoolkit.core.stats import CELL
from qatoolkit.run.contracts import Stage, stage
from qatoolkit.run.outputs import Outputs
from qatoolkit.run.stages.contents import artifact_of, content_of, make_once
from qatoolkit.run.stages.data import probe_questions
from qatoolkit.run.store import Run
from qatoolkit.training.defaults import Default, defaults
from qatoolkit.training.hub import load_config, load_tokenizer
from qatoolkit.training.job import Job, identity
from qatoolkit.training.ladder import llama_config, size_of
from qatoolkit.training.mixtures import write_mixture
from qatoolkit.training.parallel import train_all
from qatoolkit.training.probes import read_probes
from qatoolkit.training.settings import CourseSettings, StepSettings
from qatoolkit.training.tokens import qa_documents, train_tokenizer, write_tokens

READS = ("start", "qa", "general", "tokenizer")  # the fields of a job that name its inputs
METRICS = ["step", "tokens", "loss", "lr", "arm"]
TOKENIZER_TEXTS = 3000  # documents of general text that a tokenizer is trained on


def shared_fields(run: Run, tokenizer: Path, config) -> dict:
    """The fields that all of a run's jobs share: how a step is computed, the tokenizer, the seed. Settings that are
    null in the profile follow from the configuration of the model."""
    manner = {name: getattr(run.profile.student, name) for name in StepSettings.model_fields}
    if None in (manner["block"], manner["batch"], manner["memory"], manner["checkpointing"]):
        found = model_defaults(run, config)
        manner |= {name: found[name].value for name, value in manner.items() if value is None and name in found}
    return manner | {"tokenizer": str(tokenizer), "seed": run.seed, "out": "."}  # `train_jobs` sets `out`


def model_defaults(run: Run, config) -> dict[str, Default]:
    """The settings that follow from a model's configuration on this machine, each with its reason."""
    import torch

    gpu = torch.cuda.is_available()
    memory = torch.cuda.get_device_properties(0).total_memory if gpu else None
    student, tokens = run.profile.student, run.profile.midtrain.tokens
    return defaults(config, tokens=tokens, gpu=gpu, device_bytes=memory, block=student.block, batch=student.batch)


def base_job(run: Run, size: str, tokenizer: Path, general: Path, keep: tuple[float, ...] = ()) -> Job:
    """Pre-training of one rung on the run's general corpus, at a constant rate after warm-up."""
    student = run.profile.student
    config = llama_config(size_of(size), student.vocabulary, student.block or 1024)
    return Job(
        **shared_fields(run, tokenizer, config),
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
    """Mid-training of one arm from a checkpoint, with the rate decaying to zero; without QA all tokens are general
    replay."""
    settings, config = run.profile.midtrain, load_config(start)
    fields = {field: getattr(settings, field) for field in CourseSettings.model_fields}
    if settings.learning_rate is None:
        fields["learning_rate"] = model_defaults(run, config)["learning_rate"].value
    fields |= {
        "name": name,
        "start": str(start),
        "qa": None if qa is None else str(qa),
        "general": str(run.place("base", "replay")),
        "tokens": settings.tokens,
        "replay": settings.replay if qa else 1.0,
    }
    fields["seed"] = seed_range(run, 1)[0]
    return Job(**shared_fields(run, run.place("base", "tokenizer"), config) | fields | changes)


def seed_range(run: Run, k: int) -> range:
    """`k` training seeds, starting at that of the run's mid-training."""
    first = run.seed if run.profile.midtrain.seed is None else run.profile.midtrain.seed
    return range(first, first + k)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training: its job as it was run, its manifest, and the artifact's name for a stage's `uses`."""

    job: Job
    manifest: dict
    artifact: str

    @property
    def path(self) -> Path:
        """The Hugging Face directory."""
        return Path(self.job.out)

    def kept(self, share: float) -> "Trained":
        """The checkpoint kept at a share of its steps."""
        out = self.path / f"at-{share:g}"
        job = replace(self.job, out=str(out))
        return Trained(job=job, manifest=read_json(out / "training.json"), artifact=self.artifact)

    @property
    def metrics(self) -> pd.DataFrame:
        """Loss and learning rate by step."""
        return pd.read_json(self.path / "metrics.jsonl", lines=True).assign(arm=self.job.name)


def train_jobs(run: Run, jobs: list[Job]) -> list[Trained]:
    """Train jobs in parallel, each in the artifact of its content; a job that was trained before, in any run, is not
    trained again."""
    artifacts = [Artifact(run.artifacts, "train", training_key(job)) for job in jobs]
    placed = [replace(job, out=str(a.folder)) for job, a in zip(jobs, artifacts, strict=True)]
    todo = {a.folder: (a, job) for a, job in zip(artifacts, placed, strict=True) if a.manifest is None}
    with ExitStack() as locks:
        for folder in sorted(todo):  # in a fixed order, so that two runs never wait for each other
            locks.enter_context(todo[folder][0].making())
        manifests = train_all(
            [j for _, j in todo.values()], worker=WORKER, launch=run.profile.student.launch, folder=run.folder / "jobs"
        )
        for (artifact, job), manifest in zip(todo.values(), manifests, strict=True):
            inputs = filter(None, (artifact_of(getattr(job, field)) for field in (*READS, "probe")))
            uses = list(dict.fromkeys(source.name for source in inputs))
            artifact.finish({"outputs": {"training": key_of(manifest)}, "uses": uses})
    for tokens in {p for _, job in todo.values() for p in (job.qa, job.general) if p}:
        if packed := artifact_of(tokens):
            packed.add_files()  # packed blocks
    return [
        Trained(job=job, manifest=read_json(artifact.folder / "training.json"), artifact=artifact.name)
        for job, artifact in zip(placed, artifacts, strict=True)
    ]


def training_key(job: Job) -> str:
    """The key of a training: its name, everything that changes what is learned, and the content of its inputs."""
    paths = {field: getattr(job, field) for field in READS}
    content = {field: content_of(path) for field, path in paths.items() if path}
    extras = {"keep": job.keep, "keep_optimizer": job.keep_optimizer}
    if job.probe_every:
        extras |= {"probe": content_of(job.probe), "probe_every": job.probe_every}
    return key_of("train", 1, job.name, identity(job, **content), extras)


def token_file(run: Run, table: pd.DataFrame) -> Path | None:
    """The rows of a QA table as a token file of the run's tokenizer, in its own artifact; None for an empty table."""
    if table.empty:
        return None
    tokenizer, documents = run.place("base", "tokenizer"), list(qa_documents(table, run.profile.midtrain.document))
    return make_once(
        run,
        "tokens",
        [documents, content_of(str(tokenizer))],
        lambda folder: write_tokens(documents, load_tokenizer(tokenizer), folder),
    ).folder


def qa_of(run: Run, arm: str) -> Path | None:
    """The QA that an arm reads: one token file of all its sets or, if the profile gives ratios or a limit of epochs, a
    folder with one for each (`training.mixtures`), in its own artifact; None without questions."""
    sets = run.profile.arms[arm]
    if not isinstance(sets, Mapping):
        return qa_file(run, arm_table(run, arm))
    tables = {name: getattr(run.read("curate"), name) for name in sets}
    return mixture_of(run, tables, sets, run.profile.midtrain.max_epochs)


def qa_file(run: Run, table: pd.DataFrame) -> Path | None:
    """A QA table as the `qa` of a job, with the profile's limit of epochs; None for an empty table."""
    most = run.profile.midtrain.max_epochs
    if most is None or table.empty:
        return token_file(run, table)
    return mixture_of(run, {"together": table}, {"together": 1.0}, most)


def mixture_of(
    run: Run, tables: Mapping[str, pd.DataFrame], shares: Mapping[str, float], most: float | None
) -> Path | None:
    """QA tables by ratio of tokens as a mixture of the run's tokenizer, each read `most` times at most; None without
    tables. ValueError for an empty table."""
    if not tables:
        return None
    tokenizer, document = run.place("base", "tokenizer"), run.profile.midtrain.document
    documents = {name: list(qa_documents(table, document)) for name, table in tables.items()}
    return (
        make_once(
            run,
            "mixture",
            [documents, dict(shares), most, content_of(str(tokenizer))],
            lambda folder: write_mixture(documents, shares, load_tokenizer(tokenizer), folder / "qa", max_epochs=most),
        ).folder
        / "qa"
    )


@stage(
    "base",
    settings=(
        "world.general", "student", "midtrain.tokens", "midtrain.rate", "scaling.sizes", "scaling.initial", "ladder",
    ),
    files=("student.checkpoint",),
)  # fmt: skip
def base(run: Run, folder: Path) -> dict:
    """The base student: a trunk pre-trained here on the general corpus with checkpoints along the way, or a checkpoint
    of the profile or the world; with its tokenizer, the general corpus in blocks, and the other rungs of the scaling
    axis.

    `places` names the artifacts: model, tokenizer, replay and, if it was trained here, general and `rung <size>`."""
    student, world = run.profile.student, run.world.settings
    if student.checkpoint:
        model = adopt_checkpoint(run, student.checkpoint, student.revision)
        tokenizer = model.folder / "model"
        manifest, metrics = read_json(tokenizer / "training.json"), pd.DataFrame(columns=METRICS)
        places = {"model": f"{model.name}/model", "tokenizer": f"{model.name}/model"}
    else:
        about = [world.get("general", world), run.seed, student.vocabulary, student.tokens]
        made = make_once(run, "tokenizer", about, lambda to: _make_tokenizer(run).save_pretrained(to))
        tokenizer = made.folder
        general = _write_general(run, tokenizer, student.tokens, run.seed)
        sizes = [student.size, *(size for size in run.profile.scaling.sizes if size != student.size)]
        keep = run.profile.scaling.initial
        rungs = train_jobs(
            run, [base_job(run, s, tokenizer, general.folder, keep * (s == student.size)) for s in sizes]
        )
        manifest, metrics = rungs[0].manifest, rungs[0].metrics
        places = {"model": rungs[0].artifact, "tokenizer": made.name, "general": general.name}
        places |= {f"rung {size}": rung.artifact for size, rung in zip(sizes, rungs, strict=True)}
    places["replay"] = _write_general(run, tokenizer, 2 * run.profile.midtrain.tokens, run.seed + 1).name
    uses = [name.removesuffix("/model") for name in places.values()]
    return {"places": places, "training": manifest, "metrics": metrics, "uses": uses}


def adopt_checkpoint(run: Run, checkpoint: str, revision: str | None) -> Artifact:
    """A checkpoint that was not trained here, copied once; its compute is that of its entry in the ladder, if any."""
    known = [e for e in run.world.ladder() if (e.checkpoint, e.revision) == (checkpoint, revision)]
    tokens = known[0].tokens if known else None

    def make(folder: Path) -> None:
        from qatoolkit.training.checkpoints import adopt

        adopt(checkpoint, folder / "model", tokens=tokens, revision=revision)

    return make_once(run, "adopt", [content_of(checkpoint), revision, tokens], make)


def _make_tokenizer(run: Run):
    student = run.profile.student
    texts = itertools.islice(run.world.general_text(student.tokens, run.seed), TOKENIZER_TEXTS)
    return train_tokenizer(run.world.vocabulary() + list(texts), student.vocabulary)


def _write_general(run: Run, tokenizer: Path, tokens: int, seed: int) -> Artifact:
    """General text of the run's world as a token file: at most about `tokens` tokens, fewer if there is less."""
    world = run.world.settings
    about = [world.get("general", world), tokens, seed, content_of(str(tokenizer))]

    def make(folder: Path) -> None:
        found = run.world.general_text(tokens, seed)
        if isinstance(found, Path):
            for file in found.iterdir():
                (folder / file.name).symlink_to(file.resolve())
        else:
            write_tokens(found, load_tokenizer(tokenizer), folder, most=tokens if "general" in world else None)

    return make_once(run, "tokens", about, make)


def arm_table(run: Run, arm: str) -> pd.DataFrame:
    """The curated QA that an arm trains on."""
    data = run.read("curate")
    parts = [getattr(data, name) for name in run.profile.arms[arm]]
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]


def arm_job(run: Run, arm: str, **changes) -> Job:
    """The job that mid-trains an arm from the base student."""
    return midtrain_job(run, arm, run.model("base"), qa_of(run, arm), **changes)


def midtrain_job_of(run: Run, arm: str) -> Job:
    """The job of an arm as the stage `midtrain` trains it: with the checkpoints it keeps, and probed."""
    keep = trunk_shares(run) if arm in scaled_arms(run, run.profile.main_arm) else ()
    return arm_job(run, arm, keep=keep, **probe_fields(run))


def trunk_shares(run: Run) -> tuple[float, ...]:
    """The shares of the tokens at which an arm's own training gives points on the axis of tokens: all of them with the
    schedule wsd, whose trunk branches off a decay at each; else none, since those checkpoints have not decayed."""
    if run.profile.midtrain.schedule != "wsd":
        return ()
    shares = {*run.profile.scaling.tokens, run.profile.scaling.at}
    return tuple(sorted(share for share in shares if share < 1))


def scaled_arms(run: Run, arm: str) -> list[str]:
    """An arm, and the control if it is trained at the arm's points."""
    control = run.profile.control if run.profile.scaling.control else None
    return [arm] + [control] * (control not in (None, arm))


def probe_fields(run: Run) -> dict:
    """What a job needs to be probed while it trains: the run's probe questions with choices; nothing where
    `probe.every` is 0."""
    every = run.profile.probe.every
    if not every:
        return {}
    questions = probe_questions(run)
    questions = questions[questions[["choices", "answer_index"]].notna().all(axis=1)]
    made = make_once(
        run,
        "probe",
        [as_json(questions["id"].tolist()), as_json(questions[CELL].values.tolist())],
        lambda to: write_table(questions, to / "questions.parquet"),
    )
    return {"probe": str(made.folder / "questions.parquet"), "probe_every": every}


def shares_in(manifest: dict) -> dict:
    """What a training read, without the detail by set (`tables.mixture`)."""
    return {name: value for name, value in manifest["mixture"].items() if name != "parts"}


_MIDTRAIN = Stage(
    "midtrain",
    reads=("base", "curate", "annotate", "exams"),
    settings=("student", "midtrain", "probe", "scaling.tokens", "scaling.at", "scaling.control"),
)
WORKER = "qatoolkit.evaluation.live_probe"  # trains jobs, and probes those that ask for it


def midtrain(run: Run, *, log=print) -> Outputs:
    """Mid-train every arm from the same base checkpoint with the same number of tokens. `models` names each arm's
    artifact; `run.model(arm)` is its Hugging Face directory."""

    def make(folder: Path) -> dict:
        found = train_jobs(run, [midtrain_job_of(run, arm) for arm in run.profile.arms])
        mixtures = [
            {"arm": t.job.name, "documents": len(arm_table(run, t.job.name))} | shares_in(t.manifest) for t in found
        ]
        probes = [read_probes(t.path).assign(arm=t.job.name) for t in found if run.profile.probe.every]
        return ({"probes": pd.concat(probes)} if probes else {}) | {
            "models": {t.job.name: t.artifact for t in found},
            "mixtures": pd.DataFrame(mixtures),
            "metrics": pd.concat([t.metrics for t in found], ignore_index=True),
            "training": {t.job.name: t.manifest for t in found},
            "uses": [t.artifact for t in found],
        }

    out = run.complete("midtrain", _MIDTRAIN, make, log=log)
    for arm, name in out.models.items():
        run.point(f"models/{arm}", Artifact.named(run.artifacts, name))
    return out


@stage("resume_check", reads=("midtrain",), settings=("student", "midtrain"))
def resume_check(run: Run, folder: Path, *, arm: str | None = None, tokens: int = 8_000, at: int = 5) -> dict:
    """A short training of an arm, twice: uninterrupted, and stopped after step `at` and started again. One row each
    with steps, final loss and the digest of the weights, which must be equal (on a CPU)."""
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
