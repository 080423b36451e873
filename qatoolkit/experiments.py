"""The training half of the flow: base student, arms, evaluation, scaling, ablations and the summary of a run.

Same contract as `stages`: read finished stages, call the library, store the result, skip what has not changed.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from qatoolkit import scaling as sweeps
from qatoolkit import stages
from qatoolkit.boostqa import degraded
from qatoolkit.checkpoints import adopt
from qatoolkit.curate import curate
from qatoolkit.documents import qa_documents
from qatoolkit.evaluate import accuracy, evaluate, export_tasks, mcnemar, paired_difference
from qatoolkit.files import write_json
from qatoolkit.hub import load_tokenizer
from qatoolkit.kpgraph import KPGraph
from qatoolkit.probe import CELL
from qatoolkit.probe import cells as grid_of
from qatoolkit.recipe import Job
from qatoolkit.scorer import load_model, score
from qatoolkit.store import Run, stage
from qatoolkit.taxonomy import HIGH
from qatoolkit.textbook import corpus
from qatoolkit.textbook.server import parts
from qatoolkit.textbook.tutor import error_rate
from qatoolkit.tokens import train_tokenizer, write_tokens
from qatoolkit.walks import POLICIES
from qatoolkit.workers import train_all

ARMS = ("seeds_only", "general_control", "boostqa_untargeted", "boostqa", "linkqa", "boostqa_linkqa")
TOKENS_PER_DOCUMENT = 16  # a lower bound, so that enough documents are drawn for a token budget


def general_text(run: Run, tokens: int, seed: int) -> list[str]:
    """Documents of the general corpus worth at least `tokens` tokens."""
    books = parts(run.profile.textbook)
    return list(
        corpus.documents(books, tokens // TOKENS_PER_DOCUMENT + 1, run.profile.textbook, seed)["text"]
    )


def recipe(run: Run, **fields) -> Job:
    """A job with what all of a run's trainings share; `fields` are the rest."""
    student = run.profile.student
    shared = {
        "tokenizer": str(run.stage("base") / "tokenizer"),
        "block": student.block,
        "batch": student.batch,
        "micro_batch": student.micro_batch,
        "weight_decay": student.weight_decay,
        "memory": student.memory,
        "checkpointing": student.checkpointing,
        "compile": student.compile,
        "save_every": student.save_every,
        "seed": run.seed,
    }
    return Job(**{name: str(v) if isinstance(v, Path) else v for name, v in (shared | fields).items()})


def base_job(run: Run, folder: Path, size: str, keep: tuple[float, ...] = ()) -> Job:
    """Pre-training of one rung on the run's general corpus, at a constant rate after warm-up."""
    student = run.profile.student
    return recipe(
        run,
        name=f"base {size}",
        out=folder,
        size=size,
        general=run.stage("base") / "data" / "general",
        replay=1.0,
        tokens=student.tokens,
        learning_rate=student.learning_rate,
        warmup=student.warmup,
        schedule="constant",
        keep=keep,
        keep_optimizer=run.profile.midtrain.rate == "inherit",
    )


def midtrain_job(run: Run, name: str, start: Path, qa: Path | None, out: Path, **changes) -> Job:
    """Mid-training of one arm from a checkpoint, with the rate decaying to zero; without QA all of it is general replay."""
    settings = run.profile.midtrain
    fields = {
        "name": name,
        "start": start,
        "out": out,
        "qa": qa,
        "general": run.stage("base") / "data" / "replay",
        "tokens": settings.tokens,
        "replay": settings.replay if qa else 1.0,
        "learning_rate": settings.learning_rate,
        "rate": settings.rate,
        "schedule": settings.schedule,
        "warmup": settings.warmup,
        "loss_on": settings.loss_on,
        "z_loss": settings.z_loss,
    }
    return recipe(run, **fields | changes)


def qa_tokens(run: Run, table: pd.DataFrame, folder: Path) -> Path | None:
    """The rows of a QA table as a token file of the run's tokenizer, made unless it is there; None for an empty table."""
    if table.empty:
        return None
    if not (folder / "tokens.json").exists():
        write_tokens(qa_documents(table), load_tokenizer(run.read("base").tokenizer), folder)
    return folder


@stage("base", settings=("textbook", "student", "midtrain", "scaling"), files=("student.checkpoint",))
def base(run: Run, folder: Path) -> dict:
    """The base student: a trunk pre-trained here on the general corpus with checkpoints along the way, or the profile's
    checkpoint; with its tokenizer, the general corpus in blocks, and the other rungs of the scaling axis."""
    student, data = run.profile.student, folder / "data"
    texts = general_text(run, student.tokens, run.seed)
    if student.checkpoint:
        tokenizer, manifest = adopt(student.checkpoint, folder / "model")
        metrics = pd.DataFrame(columns=["step", "tokens", "loss", "lr", "arm"])
    else:
        words = corpus.vocabulary(parts(run.profile.textbook))
        tokenizer = train_tokenizer(words + texts[:3000], student.vocabulary)
    tokenizer.save_pretrained(folder / "tokenizer")
    write_tokens(general_text(run, 2 * run.profile.midtrain.tokens, run.seed + 1), tokenizer, data / "replay")
    if not student.checkpoint:
        write_tokens(texts, tokenizer, data / "general")
        job = base_job(run, folder / "model", student.size, run.profile.scaling.initial)
        others = [size for size in run.profile.scaling.sizes if size != student.size]
        rungs = [base_job(run, folder / "rungs" / size, size) for size in others]
        manifest, metrics = train_all([job, *rungs])[0], metrics_of(job)
    folders = [name for name in ("tokenizer", "data", "model", "rungs") if (folder / name).is_dir()]
    return dict.fromkeys(folders) | {"training": manifest, "metrics": metrics}


def metrics_of(job: Job) -> pd.DataFrame:
    """Loss and learning rate by step of a finished job."""
    return pd.read_json(Path(job.out) / "metrics.jsonl", lines=True).assign(arm=job.name)


def arm_tables(run: Run) -> dict[str, pd.DataFrame]:
    """The QA of every arm."""
    data = run.read("curate")
    return {
        "seeds_only": data.seeds,
        "general_control": data.seeds[:0],
        "boostqa_untargeted": data.boostqa_untargeted,
        "boostqa": data.boostqa,
        "linkqa": data.linkqa,
        "boostqa_linkqa": pd.concat([data.boostqa, data.linkqa], ignore_index=True),
    }


@stage("midtrain", reads=("base", "curate"), settings=("student", "midtrain"))
def midtrain(run: Run, folder: Path) -> dict:
    """Every arm from the same base checkpoint with the same number of tokens."""
    start, tables = run.read("base").model, arm_tables(run)
    jobs = [
        midtrain_job(run, arm, start, qa_tokens(run, table, folder / "data" / arm), folder / arm)
        for arm, table in tables.items()
    ]
    manifests = train_all(jobs)
    mixtures = [
        {"arm": job.name, "documents": len(tables[job.name])} | manifest["mixture"]
        for job, manifest in zip(jobs, manifests, strict=True)
    ]
    metrics = pd.concat([metrics_of(job) for job in jobs], ignore_index=True)
    return {
        **dict.fromkeys(ARMS),
        "mixtures": pd.DataFrame(mixtures),
        "metrics": metrics,
        "training": {job.name: m for job, m in zip(jobs, manifests, strict=True)},
    }


@stage("evaluate", reads=("base", "midtrain", "exams", "plan"), settings=("evaluate",))
def evaluation(run: Run, folder: Path) -> dict:
    """lm-eval on every exam for the base and every arm; accuracy by exam and cell, and paired differences."""
    settings, exams = run.profile.evaluate, stages.exam_tables(run)
    tasks = export_tasks(exams, folder / "tasks")
    models = {"base": run.read("base").model} | {arm: getattr(run.read("midtrain"), arm) for arm in ARMS}
    samples = pd.concat(
        [
            evaluate(model, tasks, list(exams), batch=settings.batch, folder=folder / "tasks_done").assign(
                arm=arm
            )
            for arm, model in models.items()
        ],
        ignore_index=True,
    ).rename(columns={"task": "exam"})
    choice = samples[samples["exam"] != "textbook_math"]
    return {
        "tasks": None,
        "samples": samples,
        "exams": accuracy(samples, ["arm", "exam"]),
        "cells": pd.concat(
            [grid_of(s).assign(arm=a) for a, s in choice.groupby("arm", sort=False)], ignore_index=True
        ),
        "comparisons": comparisons(choice, run.read("plan").weak, settings.bootstrap, run.seed),
    }


COMPARED = (
    ("boostqa", "base"),
    ("boostqa", "general_control"),
    ("boostqa", "boostqa_untargeted"),
    ("boostqa", "seeds_only"),
    ("linkqa", "base"),
    ("linkqa", "general_control"),
    ("linkqa", "boostqa"),
    ("boostqa_linkqa", "boostqa"),
)


def comparisons(samples: pd.DataFrame, weak: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Paired differences between arms on the multiple-choice exams, with McNemar's p: in the cells the probe found weak, in the
    others (strong), and over all."""
    is_weak = pd.MultiIndex.from_frame(samples[CELL]).isin(pd.MultiIndex.from_frame(weak[CELL]))
    groups = {"weak": samples[is_weak], "strong": samples[~is_weak], "all": samples}
    rows = []
    for a, b in COMPARED:
        for on, group in groups.items():
            pair = [group[group["arm"] == arm] for arm in (a, b)]
            found = paired_difference(*pair, resamples=resamples, seed=seed)
            rows.append({"a": a, "b": b, "on": on} | found | {"p_mcnemar": mcnemar(*pair)["p"]})
    return pd.DataFrame(rows)


def exam_rows(run: Run) -> pd.DataFrame:
    """The questions of all multiple-choice exams in one table, for the cloze scorer."""
    choice = [e for e in stages.exam_tables(run).values() if e["choices"].notna().all()]
    return pd.concat(choice, ignore_index=True)


@stage(
    "scaling",
    reads=("base", "curate", "midtrain", "exams"),
    settings=("student", "midtrain", "scaling"),
)
def scaling(run: Run, folder: Path) -> dict:
    """Accuracy of base and BoostQA-mid-trained students against model size, mid-training tokens and initial FLOPs."""
    points = sweeps.points(run.profile.scaling, run.profile.student, run.profile.midtrain)
    stored = run.read("base")
    qa = qa_tokens(run, run.read("curate").boostqa, folder / "data" / "boostqa")
    rungs = {s: stored.rungs / s for s in points["size"].unique() if s != run.profile.student.size}
    rungs[run.profile.student.size] = stored.model
    jobs = []
    for p in points.to_dict("records"):
        start = rungs[p["size"]] / (f"at-{p['initial']:g}" if p["initial"] < 1 else "")
        jobs.append(midtrain_job(run, p["point"], start, qa, folder / p["point"], tokens=p["tokens"]))
    # the full run is the arm, trained already
    jobs[0] = replace(jobs[0], out=str(run.read("midtrain").boostqa))
    trained = train_all(jobs)
    points["parameters"] = [m["parameters"] for m in trained]
    points["initial_flops"] = [m["initial_flops"] for m in trained]
    exam = exam_rows(run)
    scored = {
        path: score(*load_model(path), exam) for path in {p for job in jobs for p in (job.out, job.start)}
    }
    rows = []
    for p, job in zip(points.to_dict("records"), jobs, strict=True):
        for arm, path in (("boostqa", job.out), ("base", job.start)):
            rows.append(p | {"arm": arm} | accuracy(scored[path]).iloc[0].to_dict())
    table = sweeps.by_axis(pd.DataFrame(rows))
    return {"points": table, "fits": sweeps.fits(table)}


@stage(
    "ablations",
    reads=("annotate", "plan", "boostqa", "linkqa", "base", "exams"),
    settings=("teacher", "boostqa", "linkqa", "plan", "curate", "student", "midtrain", "ablations"),
)
def ablations(run: Run, folder: Path) -> dict:
    """One part of BoostQA switched off at a time, LinkSyn's value function in four settings, the length of paths and the seeds
    shown of one, the share of replay, and what the loss is taken on; every variant with the same number of tokens."""
    tables, variants = ablation_variants(run)
    exams, exam = stages.exam_tables(run), exam_rows(run)
    tokens = round(run.profile.midtrain.tokens * run.profile.ablations.tokens)
    kept = {name: curate(table, exams, run.profile.curate)[0] for name, table in tables.items()}
    qa = {name: qa_tokens(run, table, folder / "data" / _slug(name)) for name, table in kept.items()}
    jobs = {}  # by name: what two ablations have in common is trained once
    for row in variants:
        row["job"] = _slug("-".join([row["data"], *(f"{k}-{v}" for k, v in row["change"].items())]))
        jobs[row["job"]] = midtrain_job(
            run, row["job"], run.read("base").model, qa[row["data"]], folder / row["job"],
            **{"tokens": tokens} | row["change"],
        )  # fmt: skip
    mixtures = {m["name"]: m["mixture"] for m in train_all(list(jobs.values()))}
    scored = {
        name: exam[["id", *CELL]].merge(score(*load_model(job.out), exam), on="id")
        for name, job in jobs.items()
    }
    weak = pd.MultiIndex.from_frame(run.read("plan").weak[CELL])
    results = []
    for row in variants:
        about = {"ablation": row["ablation"], "variant": row["variant"], "questions": len(kept[row["data"]])}
        samples = scored[row["job"]]
        on_weak = samples[pd.MultiIndex.from_frame(samples[CELL]).isin(weak)]
        for on, part in (("weak", on_weak), ("all", samples)):
            results.append(about | mixtures[row["job"]] | {"on": on} | accuracy(part).iloc[0].to_dict())
    return {"ablations": pd.DataFrame(results)}


def ablation_variants(run: Run) -> tuple[dict[str, pd.DataFrame], list[dict]]:
    """QA tables by name, and the variants, the reference first in each ablation: ablation, variant, the name of its data, and what
    differs in its job."""
    profile, seeds, plans = run.profile, run.read("annotate").seeds, run.read("plan")
    full = run.read("boostqa")
    tables = {"full": full.boostqa}
    linked = {name: replace(profile.linkqa, **dials) for name, dials in POLICIES.items()}
    paths = [replace(profile.linkqa, length=n) for n in profile.ablations.lengths]
    paths += [replace(profile.linkqa, most_seeds=n) for n in profile.ablations.most_seeds]
    paths = {shape: s for s in paths if (shape := path_shape(s)) != path_shape(profile.linkqa)}
    with stages.teachers(run, "ablations") as teacher:
        for part in ("multi_grade", "high_difficulty"):
            settings = replace(profile.boostqa, **{part: False})
            _, table, _ = stages.synthesise_and_refine(run, teacher, seeds, plans.targeted, settings)
            tables[f"no {part}"] = table
        tables |= {"no refinement": full.boostqa_made, "untargeted": full.boostqa_untargeted}
        variants = [("BoostQA", name, name, {}) for name in tables]
        graph = KPGraph.load(run.read("linkqa").graph)
        tables["balanced"] = run.read("linkqa").linkqa
        for name, settings in (linked | paths).items():
            _, _, tables[name], _ = stages.link_and_refine(
                run, teacher, graph, seeds, plans.targeted, settings
            )
    variants += [("LinkSyn", name, name, {}) for name in ("balanced", *linked)]
    if paths:
        variants += [("path", path_shape(profile.linkqa), "balanced", {})]
        variants += [("path", name, name, {}) for name in paths]
    for share in (profile.midtrain.replay, *profile.ablations.replay):
        variants.append(("replay", f"{share:.0%}", "full", _changed(profile, replay=share)))
    for part, on in (("all", "all"), ("answers", "answer")):
        variants.append(("recipe", f"loss on {part}", "full", _changed(profile, loss_on=on)))
    names = ("ablation", "variant", "data", "change")
    return tables, [dict(zip(names, variant, strict=True)) for variant in variants]


def path_shape(settings) -> str:
    """A path in words: its knowledge points, and the seeds shown of it."""
    return f"{settings.length} points, {min(settings.length - 1, settings.most_seeds)} seeds"


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


def _changed(profile, **settings) -> dict:
    """The settings that differ from the profile's."""
    return {name: value for name, value in settings.items() if value != getattr(profile.midtrain, name)}


@stage("summary", reads=("annotate", "boostqa", "midtrain", "evaluate", "scaling"), settings=("teacher",))
def summary(run: Run, folder: Path) -> dict:
    """`results/<run>/summary.json`: the run's figures in one document; accuracies and differences are fractions."""
    evaluated, trained = run.read("evaluate"), run.read("midtrain").training
    trained = {"base": run.read("base").training} | trained
    exams, cells = evaluated.exams, evaluated.cells
    arms = {}
    for arm, manifest in trained.items():
        arms[arm] = {
            "exams": records(exams[exams["arm"] == arm].set_index("exam"), "index"),
            "cells": records(cells[cells["arm"] == arm][[*CELL, "n", "accuracy"]]),
            "tokens": manifest["tokens"],
            "flops": manifest["flops"],
        }
        for exam in arms[arm]["exams"].values():
            del exam["arm"]
    points = run.read("scaling").points
    boosted = points[points["arm"] == "boostqa"]
    document = {
        "run": run.name,
        "profile": run.profile.name,
        "seed": run.seed,
        "arms": arms,
        "comparisons": records(evaluated.comparisons),
        "refinement": {"teacher_error_rate": teacher_error(run)} | run.read("boostqa").refinement,
        "degradation": degradation(run.read("boostqa").boostqa_made),
        "scaling": {
            axis: records(rows[["x", "accuracy", "low", "high", "n"]])
            for axis, rows in boosted.groupby("axis", sort=False)
        },
        "seconds": {name: run.manifest(name)["seconds"] for name in run.done()},
    }
    write_json(document, run.folder / "summary.json")
    return {"summary": {k: v for k, v in document.items() if k != "seconds"}}


def records(table: pd.DataFrame, orient: str = "records"):
    """A table as plain JSON values."""
    return json.loads(table.to_json(orient=orient, double_precision=15))


def teacher_error(run: Run) -> float | None:
    """The offline synthesiser's built-in error rate, None for a real teacher."""
    try:
        return error_rate(run.profile.teacher.synthesiser)
    except ValueError:
        return None


def degradation(made: pd.DataFrame) -> dict:
    """How many questions asked for at H4 or H5 were kept, and the share of them labelled lower after the second try."""
    asked = made[made["asked_difficulty"].isin(HIGH)]
    return {"n": len(asked), "degraded": float(degraded(asked).mean()) if len(asked) else None}
