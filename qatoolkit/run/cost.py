"""Estimates before anything is spent: what a profile's run will send to its teachers (requests, tokens, money, hours),
and what training takes.

Counts follow from the settings; tokens and seconds of a request are those of earlier requests to the same model if a
ledger has enough of them, else `USUAL`: round figures of ours for a question of a few hundred tokens and a reasoning
synthesiser."""

import math
import os
import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from qatoolkit.core.qa_table import read_table
from qatoolkit.core.settings import replace, turn_dials
from qatoolkit.core.stats import CELL
from qatoolkit.core.taxonomy import LABELS
from qatoolkit.evaluation.settings import TEXTBOOK
from qatoolkit.evaluation.suites import paper12
from qatoolkit.run.profiles import Profile
from qatoolkit.run.store import STAGES
from qatoolkit.run.world import world_of
from qatoolkit.seeds.read import read_seeds
from qatoolkit.synthesis.strategies import Strategy
from qatoolkit.teacher.client import Teacher
from qatoolkit.teacher.ledger import Ledger
from qatoolkit.teacher.prices import price_of

YIELD = 0.4  # accepted share of the questions asked for in waves; 0.41 (BoostQA) and 0.44 (LinkQA) in the demo
DISPUTED = 0.2  # share of answers on which the two teachers differ
MISSING = "missing"
COUNTED = 2**26  # bytes of files up to which their questions are counted
POSITIONS = 1024  # assumed block of a model whose configuration is not on this machine
QA_TOKENS = 1000  # of a question with answer and rationale, as it is trained on
LARGE = 1e16  # FLOPs, about a day of a CPU: a larger training is estimated for a GPU even if this machine has none
H100 = {"device_bytes": 80 * 2**30, "flops_per_second": 0.4 * 989e12}
TRIAL, CONSENSUS = 200, 4  # of the stages `adjustment` and `consensus`: questions; further answers to each (consensus)
UPSTREAM = ("world", "textbook", "exams", "seeds", "annotate", "probe", "student")  # of a plan and its seeds
ENOUGH = 30  # requests to a model before its means in the ledger replace `USUAL`


@dataclass(frozen=True, kw_only=True)
class Usual:
    """An average request: tokens in, tokens out (reasoning included), seconds."""

    prompt: int
    completion: int
    seconds: float


USUAL = {
    "synthesise": Usual(prompt=700, completion=4000, seconds=90.0),
    "annotate": Usual(prompt=600, completion=60, seconds=4.0),
    "refine": Usual(prompt=600, completion=800, seconds=25.0),
    "measure": Usual(prompt=200, completion=800, seconds=25.0),
}


def parts(profile: Profile) -> pd.DataFrame:
    """The parts that a profile uses: part, from (path or name, "missing" if the profile names none), size (of files on
    this machine), and the dial that sets it. The hub is not queried."""
    other = "textbook" if profile.world == "textbook" else MISSING
    teacher, student = profile.teacher, profile.student
    where = teacher.base_url or os.environ.get("OPENAI_BASE_URL") or ("offline" if other == "textbook" else other)
    named = [("seeds", source, "seeds.sources") for source in profile.seeds.sources or (other,)]
    named += [(f"exam {name}", one.source, "exams") for name, one in profile.exams.items()]
    named += [] if profile.exams else [("exams", other, "exams")]
    named += [("general text", source, "general.sources") for source in profile.general.sources or (other,)]
    model = f"trained here, size {student.size}" if other == "textbook" else other
    models = [" ".join(filter(None, (one.checkpoint, one.revision))) for one in (student, *profile.ladder)]
    named.append(("model", models[0] if student.checkpoint else model, "student.checkpoint"))
    named += [("on the scaling axes", one, "ladder") for one in models[1:]]
    named.append(("teacher", where, "teacher.base_url"))
    rows = [(part, source, _size(source, dial), dial) for part, source, dial in named]
    return pd.DataFrame(rows, columns=["part", "from", "size", "dial"])


def _size(source: str, dial: str) -> str:
    """What a source has on this machine: questions of seeds and exams (up to `COUNTED` bytes), else files and bytes."""
    if source == "paper12":
        return f"{len(paper12())} benchmarks"
    if not (files := _files(source)):
        return ""
    if dial in ("seeds.sources", "exams") and _is_countable(files):
        table, rejects = read_seeds(source)
        return f"{len(table):,} questions, {len(rejects):,} rejects"
    return f"{len(files):,} files, {sum(p.stat().st_size for p in files) / 1e6:,.1f} MB"


def _is_countable(files: list[Path]) -> bool:
    """Whether files are question sets (no lm-eval tasks) that are small enough to be read for an estimate."""
    return sum(p.stat().st_size for p in files) <= COUNTED and not any(p.suffix == ".yaml" for p in files)


def _files(source: str) -> list[Path]:
    """The files of a source; none if it is a name."""
    if source in (TEXTBOOK, MISSING) or not Path(source).exists():
        return []
    return [p for p in Path(source).rglob("*") if p.is_file()] if Path(source).is_dir() else [Path(source)]


def read_local_seeds(profile: Profile) -> pd.DataFrame | None:
    """The seeds that a profile names, as its run will read them; None if a source is not on this machine or too large
    to read for an estimate."""
    named = [source for source in profile.seeds.sources if source != TEXTBOOK]
    if not all(_files(one) for one in named) or sum(p.stat().st_size for one in named for p in _files(one)) > COUNTED:
        return None
    with TemporaryDirectory(prefix="qatoolkit-") as folder:
        sources = world_of(profile, Path(folder) / "log").seeds(Path(folder), 0)
        if not sources:
            return None
        table, _ = read_seeds(sources, mapping=profile.seeds.mapping)
    return table[table["language"].isin(profile.seeds.languages)] if profile.seeds.languages else table


def requests(
    profile: Profile, shares: Mapping[str, float] | None = None, seeds: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Requests that a run sends, one row per stage (named as in the ledger), task and model: stage, task, model,
    requests (for labels null without `seeds`). For a data set with several `plan.waves`, whose planned questions are
    accepted ones, also `yield`, the accepted share of the questions asked for, and its `source`: "measured" (`yields`)
    or "assumed".

    Ablations that need new questions are `variants/<data set>`; rounds are counted if the profile runs them (`beside`).
    A request that two stages share is counted in both and sent once. Trials that only use the offline teacher
    (`error_rates`) are not counted."""
    teacher, shares, rows = profile.teacher, shares or {}, _count_on_seeds(profile, seeds)
    for name in (name for name in profile.used_sets if name in profile.data):
        rows += _count_writing(name, *profile.data_set(name), shares)
    if "linkqa" in profile.used_sets:  # the trial of notebook 05b: every question may be requested once more, alone
        walks = 2 * math.ceil(TRIAL / 2 / profile.linkqa.questions_per_path)
        n = walks * profile.linkqa.questions_per_path
        rows.append(("adjustment", "synthesise", teacher.synthesiser, walks + n))
        rows.append(("adjustment", "annotate", teacher.annotator, 2 * n))
    for dials in profile.ablations:
        for name, chosen, other in rewritten(profile, dials):
            rows += _count_writing(f"variants/{name}", chosen, other, shares)
    if profile.beside and (of := profile.rounds.of or profile.main_set):
        chosen, other = profile.data_set(of)
        n, k = other.plan.questions, profile.rounds.seeds
        n = n * k - n // profile.rounds.n * (k - 1)  # the first round is the same for all seeds
        rows += _count_writing("rounds", chosen, replace(other, plan=replace(other.plan, questions=n, waves=1)), shares)
    rows = [(*row, None, "")[:6] for row in rows]
    table = pd.DataFrame(rows, columns=["stage", "task", "model", "requests", "yield", "source"])
    table = table.astype({"requests": float, "yield": float})
    keys = ["stage", "task", "model", "yield", "source"]
    table = table.groupby(keys, sort=False, dropna=False)["requests"].sum(min_count=1).round().astype("Int64")
    return table.reset_index()[["stage", "task", "model", "requests", "yield", "source"]]


def _count_on_seeds(profile: Profile, seeds: pd.DataFrame | None) -> list[tuple]:
    """Requests of the stages on seeds: labels (for exam questions an upper bound), knowledge points, measurements."""
    settings, teacher, measure = profile.annotate, profile.teacher, profile.measure
    n = None if seeds is None else len(seeds)
    if n is not None:
        stated = seeds[list(LABELS)].notna().all(axis=1).sum() if settings.labels == "missing" else 0
        named = seeds["knowledge_points"].notna().sum() if settings.knowledge_points == "missing" else 0
        labels = settings.samples * (n - stated + _count_exam_labels(profile)) + n - named
    rows = [("annotate", "annotate", teacher.annotator, None if n is None else labels)]
    if profile.world == TEXTBOOK or TEXTBOOK in profile.seeds.sources:  # notebook 02 tries a consensus
        rows.append(("consensus", "annotate", teacher.annotator, TRIAL * CONSENSUS))
    if measure.k:
        rows.append(("pass_rates", "measure", measure.strong or teacher.refiner, None if n is None else n * measure.k))
    return rows


def _count_exam_labels(profile: Profile) -> int:
    """The most exam questions that the annotator can be asked to label: those of files on this machine without
    discipline or difficulty, at most `evaluate.label`; that number if an exam is optional or not on this machine."""
    most, found = profile.evaluate.label, 0
    for exam in (exam for exam in profile.exams.values() if exam.source != TEXTBOOK):  # whose exams are labelled
        if exam.optional or not (files := _files(exam.source)) or not _is_countable(files):
            return most
        unlabelled = int(read_seeds(exam.source)[0][CELL].isna().any(axis=1).sum())
        found += min(unlabelled, exam.limit or unlabelled)
    return min(most, found)


def _count_writing(stage: str, chosen: Strategy, profile: Profile, shares: Mapping[str, float]) -> list[tuple]:
    """Requests of writing a data set; `profile` has its dials turned."""
    settings, teacher = chosen.settings_in(profile), profile.teacher
    n, share, source = profile.plan.questions, None, ""
    if profile.plan.waves > 1:
        known = shares.get(chosen.name)
        share, source = known or YIELD, "measured" if known else "assumed"
        n = math.ceil(n / share)
    written, labelled = chosen.requests(profile, n)
    rows = [("synthesise", teacher.synthesiser, written), ("annotate", teacher.annotator, labelled)]
    if getattr(settings, "refine", False):
        rows.append(("refine", teacher.refiner, n * (1 + DISPUTED * settings.samples)))
    if profile.measure.k:
        rows.append(("measure", profile.measure.strong or teacher.refiner, n * profile.measure.k))
    return [(stage, *row, share, source) for row in rows]


def rewritten(profile: Profile, dials: Mapping) -> list[tuple[str, Strategy, Profile]]:
    """The data sets for which an ablation needs new questions: name, strategy, and the profile with all dials turned.
    They are those of its arm that depend on its dials, unless another data set is written with the same settings;
    switching refinement off needs no new request."""
    written = [name for name in profile.used_sets if name in profile.data]
    known = [_request_settings(*profile.data_set(name)) for name in written]
    arm, found = profile.arm_of(dials), []
    other = turn_dials(profile, {name: value for name, value in dials.items() if name != "arm"})
    for name in (name for name in other.arms[arm] if name in other.data):
        chosen, after = other.data_set(name)
        settings = _request_settings(chosen, after)
        refined = [
            settings | {key: replace(value, refine=True)} for key, value in settings.items() if hasattr(value, "refine")
        ]
        if not any(one in known for one in (settings, *refined)):
            found.append((name, chosen, after))
    return found


def _request_settings(chosen: Strategy, profile: Profile) -> dict:
    """The settings that determine the requests of a data set."""
    return {group: getattr(profile, group) for group in (*UPSTREAM, *chosen.groups(profile))}


def yields(root: Path) -> dict[str, float]:
    """By strategy, the accepted share of the questions asked for, in its latest finished data set of a results folder:
    from `counts` if one was written in several waves; else the share of the questions of one pass that are labelled as
    asked for, before curation."""
    found = {}
    for manifest in sorted((Path(root) / STAGES).glob("*/*/manifest.json"), key=lambda path: path.stat().st_mtime):
        folder, kind = manifest.parent, manifest.parent.parent.name
        if (folder / "counts.parquet").exists():
            counts = read_table(folder / "counts.parquet")
            found[kind] = True, counts["accepted"].sum() / max(counts["asked"].sum(), 1)
        elif (folder / "made.parquet").exists() and not found.get(kind, (False,))[0]:
            kept, made = read_table(folder / "questions.parquet"), read_table(folder / "made.parquet")
            as_asked = [kept[c] == kept[f"asked_{c}"] for c in CELL if f"asked_{c}" in kept]
            if len(as_asked) == len(CELL):
                found[kind] = False, (as_asked[0] & as_asked[1]).sum() / max(len(made), 1)
    return {kind: float(share) for kind, (_, share) in found.items() if share > 0}


def estimate(profile: Profile, ledger: Ledger | None = None, seeds: pd.DataFrame | None = None) -> pd.DataFrame:
    """`requests` with prompt and completion tokens, USD (NaN if a price or the number of requests is unknown), hours at
    the profile's number of requests in flight, and whether the model's tokens and seconds were measured."""
    known = {} if ledger is None else mean_usage(ledger)
    table, rows = requests(profile, {} if ledger is None else yields(Path(ledger.path).parent), seeds), []
    for row in table.itertuples():
        each, price = known.get(row.model, USUAL[row.task]), price_of(row.model, own=profile.teacher.price)
        prompt, completion = row.requests * each.prompt, row.requests * each.completion
        cost = float("nan") if price is None or pd.isna(row.requests) else price.cost(prompt, completion)
        hours = row.requests * each.seconds / profile.teacher.in_flight / 3600
        rows.append((prompt, completion, cost, hours, row.model in known))
    named = {"prompt_tokens": "Int64", "completion_tokens": "Int64", "usd": float, "hours": "Float64", "measured": bool}
    table[list(named)] = pd.DataFrame(rows, columns=list(named)).astype(named)
    return table if table["yield"].notna().any() else table.drop(columns=["yield", "source"])


def estimate_training(profile: Profile):
    """Where mid-training one arm would run, in words, what it takes there (`memory_estimate.Needs`), and the settings
    that follow from the model (`training.defaults.Default` by name).

    It is estimated for this machine if it has a GPU or the training is small (`LARGE`), else for one H100. A checkpoint
    that is not on this machine counts as the rung `student.size` of the ladder with `student.vocabulary`; ValueError if
    the size in its name is not about that."""
    import torch

    from qatoolkit.training.defaults import defaults
    from qatoolkit.training.flops import architecture
    from qatoolkit.training.hub import load_config
    from qatoolkit.training.ladder import llama_config, size_of
    from qatoolkit.training.memory_estimate import estimate_needs

    student = profile.student
    here = bool(student.checkpoint) and _is_here(student.checkpoint, student.revision)
    if here:
        config = load_config(student.checkpoint, student.revision)
    else:
        config = llama_config(size_of(student.size), student.vocabulary, student.block or POSITIONS)
    if student.checkpoint and not here:
        named = re.search(r"(?<![\d.])(\d+(?:\.\d+)?)([mb])(?![a-z])", student.checkpoint, re.IGNORECASE)
        size = float(named[1]) * {"m": 1e6, "b": 1e9}[named[2].casefold()] if named else 0
        if not 0.5 <= size / architecture(config).parameters <= 2:
            raise ValueError(
                f"{student.checkpoint} is not on this machine, and its name does not say that it has size "
                f"{student.size}: load it once, or set student.size to the nearest rung"
            )
    cuda = torch.cuda.is_available()
    large = 6 * architecture(config).parameters * profile.midtrain.tokens > LARGE
    where, device = "on this machine", {}
    if large and not cuda:
        where, device = "on one H100, assumed: 80 GiB, 0.4 of its 989 TFLOP/s in dense bfloat16", H100
    if student.checkpoint and not here:
        where += f" ({student.checkpoint} is not on this machine and counts as the rung {student.size})"
    tokens, gpu = profile.midtrain.tokens, cuda or large
    fixed = {"block": student.block, "batch": student.batch}
    found = defaults(config, tokens=tokens, gpu=gpu, device_bytes=device.get("device_bytes"), **fixed)
    manner = {name: getattr(student, name) for name in found if name != "learning_rate"}
    if all(value is not None for name, value in manner.items() if name != "micro_batch"):
        manner = {}
    given = {"learning_rate": profile.midtrain.learning_rate} | manner
    found = {name: one for name, one in found.items() if given.get(name, 0) is None}
    student = replace(student, **{name: one.value for name, one in found.items() if name in manner})
    context = QA_TOKENS / 2 if large else student.block / 4
    return where, estimate_needs(config, student, tokens=tokens, context=context, gpu=gpu, **device), found


def _is_here(checkpoint: str, revision: str | None) -> bool:
    """Whether a model's configuration is on this machine: in a folder, a GGUF file or the cache of the hub."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    from qatoolkit.training.gguf_files import find_gguf

    if Path(checkpoint).is_dir() or find_gguf(checkpoint):
        return True
    try:
        return isinstance(try_to_load_from_cache(checkpoint, "config.json", revision=revision), str)
    except HFValidationError:  # not a valid name on the hub
        return False


def estimate_requests(teacher: Teacher, messages: list, task: str = "annotate") -> dict:
    """What sending these messages to a teacher will take, beyond the answers in its ledger: requests, answered,
    prompt_tokens (4 bytes each), completion_tokens, usd (NaN if the price is unknown), minutes, and whether tokens and
    seconds of an answer were measured. `task` is a key of `USUAL`."""
    keys = teacher.keys(messages)
    done = teacher.ledger.answered(keys)
    new = [m for m, key in zip(messages, keys, strict=True) if key not in done]
    known = mean_usage(teacher.ledger)
    each = known.get(teacher.model, USUAL[task])
    prompt = sum(len(part["content"].encode()) for m in new for part in m) // 4
    completion = len(new) * each.completion
    return {
        "requests": len(messages),
        "answered": len(messages) - len(new),
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "usd": float("nan") if teacher.price is None else teacher.price.cost(prompt, completion),
        "minutes": len(new) * each.seconds / teacher.in_flight / 60,
        "measured": teacher.model in known,
    }


def mean_usage(ledger: Ledger) -> dict[str, Usual]:
    """Mean tokens and seconds of the answered requests to each model that has enough of them."""
    columns = ["prompt_tokens", "completion_tokens", "seconds"]
    return {
        model: Usual(prompt=round(prompt), completion=round(completion), seconds=float(seconds))
        for model, rows in ledger.attempts().dropna(subset=columns).groupby("model")
        if len(rows) >= ENOUGH
        for prompt, completion, seconds in [rows[columns].mean()]
    }


def describe(profile: Profile, ledger: Path) -> str:
    """The estimate of a profile in words: requests by stage, their sum, and what mid-training one arm takes."""
    seeds = read_local_seeds(profile)
    with Ledger(ledger) if ledger.exists() else nullcontext() as opened:
        table = estimate(profile, opened, seeds)
    whole = dict.fromkeys(("requests", "prompt_tokens", "completion_tokens"), "{:,}")
    shown = {
        name: lambda value, how=how: value if isinstance(value, str) else how.format(value)
        for name, how in (whole | {"usd": "${:,.2f}", "hours": "{:,.1f}"}).items()
    }
    lines = [parts(profile).to_string(index=False, justify="left"), ""]
    lines += [table.astype(object).where(table.notna(), "unknown").to_string(index=False, formatters=shown)]
    counted, of_variants = table.dropna(subset="requests"), table["stage"].str.startswith("variants/")
    cost = "a price is unknown" if counted["usd"].isna().any() else f"${counted['usd'].sum():,.2f}"
    tokens = counted["prompt_tokens"].sum() + counted["completion_tokens"].sum()
    lines.append(
        f"in all at most {counted['requests'].sum():,} requests, {tokens:,} tokens, {cost}, "
        f"{counted['hours'].sum():,.1f} hours with {profile.teacher.in_flight:,} in flight; {profile.plan.questions:,} "
        f"questions per data set ({profile.plan.questions * QA_TOKENS:,} tokens of QA at {QA_TOKENS:,} each)"
    )
    if of_variants.any():
        lines.append(
            f"of these, {counted.loc[of_variants[counted.index], 'requests'].sum():,} requests are for ablations that "
            "need new questions, as if they shared none with the data sets"
        )
    if len(counted) < len(table):
        lines.append("unknown: seeds not on this machine; qt.tables.spend_estimate(run) counts them once they are read")
    if not table["measured"].all():
        lines.append("tokens and seconds of models without earlier requests are assumptions (qatoolkit/run/cost.py)")
    if "yield" in table:
        known = table[["stage", "yield", "source"]].dropna().drop_duplicates()
        lines += [
            f"{stage}: questions are accepted ones; a yield of {share:.0%}, {source}, takes "
            f"{math.ceil(profile.plan.questions / share):,} asked for"
            for stage, share, source in known.itertuples(index=False)
        ]
    try:
        where, needs, follows = estimate_training(profile)
    except ValueError as error:
        return "\n".join([*lines, f"\nmid-training: {error}"])
    lines.append(f"\nmid-training, one arm of {len(profile.arms)}, {where}:\n{needs.describe()}")
    if follows:
        lines.append("settings that follow from the model:")
        lines += [f"  {name:<13} {one.value!s:>8}  ({one.reason})" for name, one in follows.items()]
    return "\n".join(lines)
