"""What a profile's synthesis will take, before anything is spent: requests, tokens, money and hours.

Counts follow from the settings; tokens and seconds of a request are those of earlier requests to the same model where a
ledger has them, else `USUAL`, round figures of ours for a question of some hundred words and a reasoning synthesiser.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from qatoolkit.config import Profile
from qatoolkit.ledger import Ledger, price_of
from qatoolkit.linkqa import SPARE
from qatoolkit.taxonomy import GRADES
from qatoolkit.teacher import Teacher

DEGRADED = 0.25  # share of high-difficulty questions asked for once more
DISPUTED = 0.2  # share of answers on which the two teachers differ
QA_TOKENS = 1000  # of a question with answer and rationale, as it is trained on
ARMS = 6  # data sets that are mid-trained and compared
LARGE = 50_000_000  # parameters beyond which a training is reckoned for a GPU, at hand or not
H100 = {"device_bytes": 80 * 2**30, "flops_per_second": 0.4 * 989e12}
ENOUGH = 30  # requests to a model before its ledger's means replace `USUAL`


@dataclass(frozen=True, kw_only=True)
class Usual:
    """A request as assumed where nothing was measured: tokens in, tokens out (reasoning included), seconds."""

    prompt: int
    completion: int
    seconds: float


USUAL = {
    "synthesise": Usual(prompt=700, completion=4000, seconds=90.0),
    "annotate": Usual(prompt=600, completion=60, seconds=4.0),
    "refine": Usual(prompt=600, completion=800, seconds=25.0),
}


def requests(profile: Profile) -> pd.DataFrame:
    """Requests by arm, task and model: one row each with arm, task, model, requests."""
    n, high, boost, teacher = profile.plan.questions, profile.plan.high, profile.boostqa, profile.teacher
    hard = n * high if boost.high_difficulty else 0
    again = DEGRADED * hard
    written = {
        "boostqa": ((n - hard) / len(GRADES) + hard / 2 + again, n + again),
        "boostqa_untargeted": (
            0.6 * n / len(GRADES) + 0.4 * n / 2 + DEGRADED * 0.4 * n,
            n + DEGRADED * 0.4 * n,
        ),
        "linkqa": (SPARE * n / profile.linkqa.questions_per_path, SPARE * n),
    }
    rows = []
    for arm, (asked, labelled) in written.items():
        rows += [
            (arm, "synthesise", teacher.synthesiser, asked),
            (arm, "annotate", teacher.annotator, labelled),
        ]
        if boost.refine:
            rows.append((arm, "refine", teacher.refiner, n * (1 + DISPUTED * boost.samples)))
    return pd.DataFrame(rows, columns=["arm", "task", "model", "requests"]).astype({"requests": int})


def estimate(profile: Profile, ledger: Ledger | None = None) -> pd.DataFrame:
    """`requests` with prompt and completion tokens, USD (NaN where a price is unknown), hours at the profile's number of
    requests in flight, and whether tokens and seconds of the model were measured."""
    table, known = requests(profile), {} if ledger is None else measured(ledger)
    rows = []
    for row in table.itertuples():
        each, price = known.get(row.model, USUAL[row.task]), price_of(row.model)
        prompt, completion = row.requests * each.prompt, row.requests * each.completion
        cost = float("nan") if price is None else price.cost(prompt, completion)
        hours = row.requests * each.seconds / profile.teacher.in_flight / 3600
        rows.append((prompt, completion, cost, hours, row.model in known))
    table[["prompt_tokens", "completion_tokens", "usd", "hours", "measured"]] = pd.DataFrame(rows)
    return table


def training(profile: Profile):
    """Where mid-training one arm is reckoned to run, in words, and what it takes there (`preflight.Needs`).

    That is this machine where it has a GPU or the student is small (`LARGE`), else one H100, assumed. A checkpoint that is no
    folder here counts as the rung `student.size` of the ladder with `student.vocabulary`."""
    import torch

    from qatoolkit.hub import load_config
    from qatoolkit.ladder import llama_config, size_of
    from qatoolkit.model_costs import architecture
    from qatoolkit.preflight import preflight

    student = profile.student
    here = bool(student.checkpoint) and Path(student.checkpoint).is_dir()
    if here:
        config = load_config(student.checkpoint)
    else:
        config = llama_config(size_of(student.size), student.vocabulary, student.block)
    cuda = torch.cuda.is_available()
    large = architecture(config).parameters > LARGE
    if cuda or not large:
        where, device = "on this machine", {"flops_per_second": "measure"}
    else:
        where, device = "on one H100, assumed: 80 GiB, 0.4 of its 989 TFLOP/s in dense bfloat16", H100
    if student.checkpoint and not here:
        where += f" ({student.checkpoint} is no folder here and counts as the rung {student.size})"
    return where, preflight(
        config,
        tokens=profile.midtrain.tokens,
        block=student.block,
        micro_batch=student.micro_batch or student.batch,
        context=QA_TOKENS / 2 if large else student.block / 4,
        memory=student.memory,
        checkpointing=student.checkpointing,
        fused_loss=True,
        compute_dtype="bf16" if cuda or large else "fp32",
        **device,
    )


def asking(teacher: Teacher, messages: list, task: str = "annotate") -> dict:
    """What putting these messages to a teacher will take, beyond what its ledger has answered already: requests, answered,
    prompt_tokens (4 bytes each), completion_tokens, usd (NaN where the price is unknown), minutes, and whether tokens and
    seconds of an answer were measured. `task` is a key of `USUAL`."""
    keys = teacher.keys(messages)
    done = teacher.ledger.answered(keys)
    fresh = [m for m, key in zip(messages, keys, strict=True) if key not in done]
    known = measured(teacher.ledger)
    each = known.get(teacher.model, USUAL[task])
    prompt = sum(len(part["content"].encode()) for m in fresh for part in m) // 4
    completion = len(fresh) * each.completion
    return {
        "requests": len(messages),
        "answered": len(messages) - len(fresh),
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "usd": float("nan") if teacher.price is None else teacher.price.cost(prompt, completion),
        "minutes": len(fresh) * each.seconds / teacher.in_flight / 60,
        "measured": teacher.model in known,
    }


def measured(ledger: Ledger) -> dict[str, Usual]:
    """Mean tokens and seconds of the answered requests to each model that has enough of them."""
    attempts = ledger.attempts().dropna(subset=["prompt_tokens", "completion_tokens"])
    return {
        model: Usual(
            prompt=round(rows["prompt_tokens"].mean()),
            completion=round(rows["completion_tokens"].mean()),
            seconds=float(rows["seconds"].mean()),
        )
        for model, rows in attempts.groupby("model")
        if len(rows) >= ENOUGH
    }
