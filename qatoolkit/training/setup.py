"""Loads and checks everything a training step needs: tokenizer, data, the model with its loss, the optimizer."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qatoolkit.training import checkpoints, ladder
from qatoolkit.training.distributed import Processes, on_device
from qatoolkit.training.hub import load_causal_lm, load_config, load_tokenizer
from qatoolkit.training.job import Job
from qatoolkit.training.memory_estimate import Needs, check_disk, estimate_needs
from qatoolkit.training.mixtures import open_qa
from qatoolkit.training.packing import Mixture, mix, pack
from qatoolkit.training.tokens import open_tokens, tokenizer_digest

CHECKED = 2048  # tokens of a block that the shortcuts are checked on


@dataclass(frozen=True)
class Setup:
    """A job ready to train. `scored` is the model with its loss; `predicted` [blocks] counts the tokens with a loss;
    checkpoints are written in `dtype`."""

    tokenizer: object
    data: Mixture
    needs: Needs
    model: object
    scored: object
    optimizer: object
    dtype: object
    predicted: np.ndarray


def set_up(
    job: Job, tokenizer, data: Mixture, group: Processes, log: Callable[[str], None], anyway: bool = False
) -> Setup:
    """Load and check everything; logs the needs of the run, and the shortcuts that this model does not allow. `anyway`
    continues even if the memory estimate says that it does not fit.

    Raises ValueError for parts that do not belong together or do not fit the device, OSError for a disk that is too
    small or a checkpoint that is not safetensors."""
    import torch

    torch.manual_seed(job.seed)
    config, needs = check_job(job, tokenizer, data, group, log, anyway)
    check_disk(job, needs.model.parameters)
    model = _load_model(job, config, group)
    scored = _add_loss(job, model, group)
    for shortcut in _refused_shortcuts(job, scored, data, group):
        log(f"{job.name}: {shortcut.replace('_', ' ')} would change this model's logits, so it is off")
        setattr(scored, shortcut, False)
        if shortcut == "fused_loss" and not anyway:
            estimate_job(job.model_copy(update={"fused_loss": False}), config, data, group).require_fit()
    return Setup(
        tokenizer, data, needs, model, scored, _make_optimizer(job, model), _stored_dtype(job, config),
        data.predicted(job.loss_on == "answer"),
    )  # fmt: skip


def check_job(job: Job, tokenizer, data: Mixture, group: Processes, log: Callable[[str], None], anyway: bool):
    """(transformers configuration, `Needs`) of a job; logs its needs and its data.

    ValueError if tokenizer, data and model do not belong together, or, unless `anyway`, if the run does not fit."""
    config = _configuration(job, tokenizer)
    digest = tokenizer_digest(tokenizer)
    for source in data.sources:
        if source.source.about["tokenizer"] != digest:
            raise ValueError(
                f"job {job.name!r}: {source.source.folder} was tokenised with another tokenizer than "
                f"{job.tokenizer or job.start}; tokenise it again with that tokenizer"
            )
    text_config = config.get_text_config()
    vocabulary = max(source.source.about["vocabulary"] for source in data.sources)
    if vocabulary > text_config.vocab_size:
        raise ValueError(
            f"job {job.name!r}: the tokenizer has ids up to {vocabulary - 1:,}, but {job.start or job.size} has only "
            f"{text_config.vocab_size:,} embeddings; give the model's own tokenizer"
        )
    longest = getattr(text_config, "max_position_embeddings", None)
    if longest and job.block > longest:
        raise ValueError(
            f"job {job.name!r}: block is {job.block:,} tokens and the model reads at most {longest:,}; set block to "
            f"{longest} or less"
        )
    if not data.predicted(job.loss_on == "answer").any():
        raise ValueError(
            f"job {job.name!r}: no token of the data has a loss (loss_on is {job.loss_on!r}); give longer documents, "
            "or set loss_on to all"
        )
    needs = estimate_job(job, config, data, group)
    log(f"{needs.describe()}\n{data.describe()}")
    if not anyway:
        needs.require_fit()
    return config, needs


def open_data(job: Job) -> Mixture:
    """The blocks of a job in training order."""
    qa = open_qa(job.qa, job.block) if job.qa else None
    general = pack(open_tokens(job.general), job.block) if job.general else None
    return mix(qa, general, job.tokens, job.replay, job.seed)


def open_tokenizer(job: Job):
    """The job's tokenizer, by default that of `start`. ValueError if `start` is an interrupted run."""
    if job.start and checkpoints.states(job.start):
        raise ValueError(
            f"job {job.name!r}: start {job.start} is an interrupted run, not a checkpoint; run the job with that `out` "
            "again to resume it, or wait until it has ended"
        )
    return load_tokenizer(job.tokenizer or job.start)


def _configuration(job: Job, tokenizer):
    """The transformers configuration of the model to train."""
    if job.start:
        return load_config(job.start)
    special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "bos", "eos")}
    return ladder.llama_config(ladder.size_of(job.size), len(tokenizer), job.block, **special)


def estimate_job(job: Job, config, data: Mixture, group: Processes) -> Needs:
    """The needs of the job on these devices, at the speed of a matrix product measured here."""
    tokens, gpu = int(data.tokens.sum()), group.device != "cpu"
    return estimate_needs(config, job, tokens=tokens, context=data.context(), gpu=gpu, devices=group.count)


def _load_model(job: Job, config, group: Processes):
    """The model to train, on its device. With several processes it stays in main memory: sharding moves it layer by
    layer. Random weights are drawn on the CPU, so they are the same on every device."""
    import torch
    from transformers import AutoModelForCausalLM

    from qatoolkit.training.attention import PACKED

    settings = {"config": copy.deepcopy(config), "dtype": torch.bfloat16 if job.memory == "low" else torch.float32}
    if job.attention != PACKED:
        settings["attn_implementation"] = job.attention
    if job.start:
        model = load_causal_lm(job.start, **settings)
    else:
        model = AutoModelForCausalLM.from_config(**settings, trust_remote_code=False)
    model.train()
    return model if group.count > 1 else model.to(group.device)


def _stored_dtype(job: Job, config):
    """The dtype of the checkpoints: that of the start."""
    import torch

    if job.size or job.part[1] < 1:  # the next part must continue from unrounded weights
        return torch.bfloat16 if job.memory == "low" else torch.float32
    if isinstance(config.dtype, torch.dtype):
        return config.dtype
    for path in sorted(Path(job.start).glob("model*.safetensors")):  # old configurations have no dtype
        with checkpoints.open_tensors(path, "copy it again") as file:
            return file.get_tensor(next(iter(file.keys()))).dtype
    return torch.float32


def _add_loss(job: Job, model, group: Processes):
    """The model with its loss; layers compiled and sharded if job and processes require it."""
    import torch

    from qatoolkit.training.attention import PACKED, register
    from qatoolkit.training.losses import Scored

    register()
    if job.checkpointing:  # the second name is that before transformers 5.20
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable()
    layers = [m for m in model.modules() if type(m).__name__ in set(model._no_split_modules or ())]
    if job.compile:
        torch._dynamo.reset()  # layers of all models share code, and dynamo compiles the same code at most 8 times
        for layer in layers:
            layer.compile()
    scored = Scored(model, fused_loss=job.fused_loss, packed_attention=job.attention == PACKED, z_loss=job.z_loss)
    if group.count > 1:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        half = group.device != "cpu" and job.memory == "standard"
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if half else None, reduce_dtype=torch.float32)
        mesh = init_device_mesh(group.device.split(":")[0], (group.count,))
        for part in (*layers, scored):
            fully_shard(part, mesh=mesh, mp_policy=policy)
    return scored


def _refused_shortcuts(job: Job, scored, data: Mixture, group: Processes) -> list[str]:
    """The shortcuts that would change this model's logits, tested on the first block with several documents. ValueError
    for a model that does not separate packed documents."""
    from qatoolkit.training.losses import shortcuts_that_fit

    for place in range(min(100, len(data))):
        batch = data.batch(np.array([place]))
        begins = np.flatnonzero(batch.positions[0] == 0)
        if len(begins) > 2:
            break
    # cut out the end of the first document, with positions restarting at 0, and the start of the second
    second = int(begins[1]) if len(begins) > 1 else 0
    first = max(0, second - CHECKED // 2)
    part = slice(first, first + CHECKED)
    batch = replace(batch, ids=batch.ids[:, part], positions=batch.positions[:, part])
    batch.positions[0, : second - first] -= first
    begins = np.flatnonzero(batch.positions[0] == 0)
    ends = np.append(begins[1:], batch.ids.shape[1])
    # the longest document except the first, which has none before it
    longest = 1 + int(np.argmax((ends - begins)[1:])) if len(begins) > 1 else 0
    ids, positions, _, _, documents = on_device(batch, group.device)
    with autocast(job, group):
        fits = shortcuts_that_fit(scored, ids, positions, documents, (int(begins[longest]), int(ends[longest])))
    if group.count > 1:
        scored.reshard()  # a forward pass without a backward one leaves the root's weights gathered
    refused = [name for name, fit in fits.items() if group.total(not fit)]
    if "apart" in refused and (not scored.packed_attention or "packed_attention" in refused):
        raise ValueError(
            f"job {job.name!r}: {type(scored.model).__name__} mixes packed documents: it is not causal, or its "
            "positions do not come from position ids; train a model of another architecture"
        )
    return [name for name in refused if name != "apart"]


def autocast(job: Job, group: Processes):
    """The context manager for a forward pass: bfloat16 products on a GPU in standard memory, else no casts."""
    import torch

    return torch.autocast("cuda", dtype=torch.bfloat16, enabled=group.device != "cpu" and job.memory == "standard")


def _make_optimizer(job: Job, model):
    """AdamW with weight decay on matrices, but not on norms, biases and embeddings."""
    import torch

    from qatoolkit.training.bf16_adamw import LowMemoryAdamW

    heads = (model.get_input_embeddings(), model.get_output_embeddings())
    embeddings = {id(p) for module in heads if module is not None for p in module.parameters()}
    decayed = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in embeddings]
    not_decayed = [p for p in model.parameters() if p.ndim < 2 or id(p) in embeddings]
    groups = [{"params": decayed, "weight_decay": job.weight_decay}, {"params": not_decayed, "weight_decay": 0.0}]
    if job.memory == "low":
        return LowMemoryAdamW(groups, lr=job.learning_rate, betas=job.betas, seed=job.seed)
    return torch.optim.AdamW(groups, lr=job.learning_rate, betas=job.betas, fused=True)
