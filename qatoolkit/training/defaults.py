"""Safe defaults for mid-training by model and device, each with its reason, and a check of learning rates.

Computed from a transformers configuration alone; nothing is loaded or measured.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

from qatoolkit.core.settings import replace
from qatoolkit.training.flops import architecture
from qatoolkit.training.memory_estimate import Needs, estimate_needs
from qatoolkit.training.settings import StepSettings

SMALL, LARGE = (135e6, 3e-4), (8e9, 3e-5)  # (parameters, peak rate): two points that define the line of `usual_rate`
HIGHEST = 1e-2  # peak rate
HIGHEST_RATE = 10.0  # times the usual rate, without `accept_rate`
STEPS = 200  # steps that even a short run should have
STEP_TOKENS = 1024  # least tokens of a step
CAPS = ((7e9, 2**22), (1e9, 2**19), (0, 2**15))  # (parameters, most tokens of a step), largest model first


@dataclass(frozen=True)
class Default:
    """A value for a setting, and the reason in words and numbers."""

    value: Any
    reason: str


def usual_rate(parameters: float) -> float:
    """The usual peak learning rate of mid-training for a number of parameters, to 2 digits and at most 1e-2.

    Our reading: a line on log-log axes through 3e-4 at 135M, measured on SmolLM2-135M (accuracy on 156 unseen questions
    rose from 46.8 to 70.5 %), and 3e-5 at 8B, the rate of Llama-3 8B in the profile `paper`."""
    (small, high), (large, low) = SMALL, LARGE
    slope = math.log(low / high) / math.log(large / small)
    return float(f"{min(HIGHEST, high * (parameters / small) ** slope):.1e}")


def check_rate(rate: float, parameters: float, *, accepted: bool = False, where: str) -> None:
    """ValueError if a learning rate is above ten times the usual one, unless it is `accepted`; `where` names the
    setting it comes from."""
    usual = usual_rate(parameters)
    if rate > HIGHEST_RATE * usual and not accepted:
        raise ValueError(
            f"{where} is {rate:g}, {rate / usual:,.0f} times the {usual:g} that is usual for {_count(parameters)} "
            "parameters, and would destroy what the model knows; lower it, or confirm it: midtrain.accept_rate: true"
        )


def defaults(
    config,
    *,
    tokens: int,
    gpu: bool,
    device_bytes: int | None = None,
    block: int | None = None,
    batch: int | None = None,
) -> dict[str, Default]:
    """Defaults for mid-training the causal model of a transformers `config` on `tokens` on one device, by field of
    `training.settings`: learning_rate, block, batch, micro_batch, memory, checkpointing.

    `device_bytes`: memory of the device; None reads this machine's. `block` and `batch`, where they are set, are what the
    rest has to fit. If nothing fits, the least demanding settings are
    returned and the reason says so. ValueError for a configuration without a causal model."""
    parameters = architecture(config).parameters
    step, why = _step_tokens(parameters, tokens)
    usual_block = _block(config, parameters, step, gpu)
    block = block or usual_block.value
    usual_batch = Default(max(1, step // block), f"{why}, in blocks of {block:,}")
    batch = batch or usual_batch.value
    manner, needs = _first_that_fits(config, StepSettings(block=block, batch=batch), tokens, gpu, device_bytes)
    return {
        "learning_rate": Default(usual_rate(parameters), _why_rate(parameters)),
        "block": usual_block,
        "batch": usual_batch,
        "micro_batch": Default(manner.micro_batch, f"{_why_fits(needs)}, of {batch:,} rows in a step"),
        "memory": Default(manner.memory, f"{_why_fits(needs)}; standard is kept where it fits"),
        "checkpointing": Default(manner.checkpointing, f"{_why_fits(needs)}; off where it fits without"),
    }


def _why_rate(parameters: float) -> str:
    rate = usual_rate(parameters)
    if math.isclose(parameters, SMALL[0], rel_tol=0.05):
        why = f"{rate:g} measured on SmolLM2-135M"
    elif math.isclose(parameters, LARGE[0], rel_tol=0.05):
        why = f"{rate:g} as for Llama-3 8B in the profile paper"
    elif rate == HIGHEST:
        why = f"not above {HIGHEST:g}"
    else:
        why = f"{rate:g}, on the line through {SMALL[1]:g} at 135M and {LARGE[1]:g} at 8B"
    return f"{_count(parameters)} parameters: {why}"


def _step_tokens(parameters: float, tokens: int) -> tuple[int, str]:
    """Tokens of a step, and why."""
    cap = next(most for least, most in CAPS if parameters >= least)
    wanted = tokens // STEPS
    if wanted > cap:
        return cap, f"{cap:,} tokens a step, the most for {_count(parameters)} parameters"
    if wanted < STEP_TOKENS:
        return STEP_TOKENS, f"{STEP_TOKENS:,} tokens a step, the fewest, so about {-(-tokens // STEP_TOKENS):,} steps"
    return wanted, f"{wanted:,} tokens a step: {tokens:,} in {STEPS} steps"


def _block(config, parameters: float, step: int, gpu: bool) -> Default:
    """The largest power of two within every limit."""
    device = (512, "a CPU") if not gpu else (4096, "1B parameters or more") if parameters >= 1e9 else (1024, "below 1B")
    limits = {f"the usual block for {device[1]}": device[0], "the tokens of a step": step}
    if context := getattr(config.get_text_config(), "max_position_embeddings", None):
        limits["the model's context"] = context
    reason, least = min(limits.items(), key=lambda limit: limit[1])
    return Default(2 ** int(math.log2(least)), f"the largest power of two within {reason}, {least:,}")


def _first_that_fits(
    config, manner: StepSettings, tokens: int, gpu: bool, device_bytes: int | None
) -> tuple[StepSettings, Needs]:
    """The first settings that fit the device, and what they need: standard memory with fewer and fewer rows at once,
    then with checkpointing, then low memory; the last ones if none fit."""
    rows = dict.fromkeys(-(-manner.batch // 2**k) for k in range(manner.batch.bit_length() + 1))
    for memory, checkpointing, micro_batch in itertools.product(("standard", "low"), (False, True), rows):
        candidate = replace(manner, memory=memory, checkpointing=checkpointing, micro_batch=micro_batch)
        # context and rate change FLOPs and hours only
        needs = estimate_needs(
            config, candidate, tokens=tokens, context=0, gpu=gpu, flops_per_second=1.0, device_bytes=device_bytes
        )
        if needs.fits:
            break
    return candidate, needs


def _why_fits(needs: Needs) -> str:
    need, manner = f"{needs.total_bytes / 1e9:,.2f} GB", needs.manner
    kind = f"{manner.memory} memory{', checkpointing' * manner.checkpointing}, {manner.micro_batch:,} rows at once"
    if needs.device_bytes is None:
        return f"needs {need} ({kind}); the device's memory is unknown"
    verdict = "fits" if needs.fits else "does not fit"
    return f"{need} ({kind}) {verdict} {needs.device_bytes / 1e9:,.1f} GB"


def _count(parameters: float) -> str:
    """A number of parameters in short form: 13M, 8B."""
    for name, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if parameters >= size:
            return f"{float(f'{parameters / size:.3g}'):g}{name}"
    return f"{parameters:g}"
