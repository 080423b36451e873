"""What a training step needs, loaded and checked: tokenizer, data, the model with its loss, the optimizer."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qatoolkit.training import ladder
from qatoolkit.training.distributed import Processes, on_device
from qatoolkit.training.hub import load_causal_lm, load_config, load_tokenizer
from qatoolkit.training.job import Job
from qatoolkit.training.memory_estimate import Needs, check_disk, disk_needed, preflight
from qatoolkit.training.packing import Mixture, mix, pack
from qatoolkit.training.tokens import open_tokens, tokenizer_digest

CHECKED = 2048  # tokens of a block that the shortcuts are checked on


@dataclass(frozen=True)
class Trainee:
    """A job ready to train: `predicted` [blocks] counts the tokens that the loss is taken on, `dtype` is what its directory is
    written in."""

    tokenizer: object
    data: Mixture
    needs: Needs
    model: object
    scored: object
    optimizer: object
    dtype: object
    predicted: np.ndarray


def open_trainee(
    job: Job, tokenizer, data: Mixture, ours: Processes, log: Callable[[str], None], anyway: bool = False
) -> Trainee:
    """Load and check everything; says what the run takes, and which shortcuts this model does not allow. `anyway` goes on
    although memory is reckoned too small.

    Raises ValueError for what does not fit together or into the device, OSError for a disk that is too small or a checkpoint
    that is not safetensors."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(job.seed)
    config = configuration(job, tokenizer)
    check(job, config, data, tokenizer)
    needs = plan(job, config, data, ours)
    log(f"{needs.describe()}\n{data.describe()}")
    if not anyway:
        needs.refuse()
    exports = {"exports": len(job.keep) + 1, "moments": job.keep_optimizer}
    check_disk(
        job.out,
        disk_needed(needs.parameters, states=job.keep_states if job.save_every else 0, memory=job.memory, **exports),
    )
    model = _load(job, config, ours)
    scored = _with_loss(job, model, ours)
    for shortcut in _refused(job, scored, data, ours):
        log(f"{job.name}: {shortcut.replace('_', ' ')} would change this model's logits, so it is off")
        setattr(scored, shortcut, False)
        if shortcut == "fused_loss" and not anyway:
            plan(job.model_copy(update={"fused_loss": False}), config, data, ours).refuse()
    return Trainee(
        tokenizer, data, needs, model, scored, _optimizer(job, model), _stored_dtype(job, config),
        data.predicted(job.loss_on == "answer"),
    )  # fmt: skip


def mixture_of(job: Job) -> Mixture:
    """The blocks of a job in the order in which it reads them."""
    qa, general = (pack(open_tokens(path), job.block) if path else None for path in (job.qa, job.general))
    return mix(qa, general, job.tokens, job.replay, job.seed)


def tokenizer_of(job: Job):
    """The job's tokenizer, by default that of its start. ValueError where the start is no checkpoint but an interrupted run."""
    from qatoolkit.training.checkpoints import states

    if job.start and states(job.start):
        raise ValueError(
            f"job {job.name!r}: start {job.start} is an interrupted run, no checkpoint; to go on with it start its own job again "
            "(the same `out`), or wait until it has ended"
        )
    return load_tokenizer(job.tokenizer or job.start)


def configuration(job: Job, tokenizer):
    """The transformers configuration of the model to train."""
    if job.start:
        return load_config(job.start)
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return ladder.llama_config(ladder.size_of(job.size), len(tokenizer), job.block, **special)


def check(job: Job, config, data: Mixture, tokenizer) -> None:
    """ValueError where tokenizer, data and model do not belong together."""
    ours = tokenizer_digest(tokenizer)
    for source in data.sources:
        if source.source.about["tokenizer"] != ours:
            raise ValueError(
                f"job {job.name!r}: {source.source.folder} was tokenised with another tokenizer than "
                f"{job.tokenizer or job.start}; tokenise it again with that one"
            )
    config = config.get_text_config()
    vocabulary = max(source.source.about["vocabulary"] for source in data.sources)
    if vocabulary > config.vocab_size:
        raise ValueError(
            f"job {job.name!r}: the tokenizer has ids up to {vocabulary - 1:,} and {job.start or job.size} rows for "
            f"{config.vocab_size:,}: they do not belong together; give the model's own tokenizer"
        )
    longest = getattr(config, "max_position_embeddings", None)
    if longest and job.block > longest:
        raise ValueError(
            f"job {job.name!r}: block is {job.block:,} tokens and the model reads at most {longest:,}; set block to that or less"
        )
    if not data.predicted(job.loss_on == "answer").any():
        raise ValueError(f"job {job.name!r}: the data holds no token to learn from")


def plan(job: Job, config, data: Mixture, ours: Processes) -> Needs:
    """What the job takes on these devices: parameters, FLOPs, memory by part, hours at the speed of a product measured here."""
    return preflight(
        config,
        tokens=int(data.tokens.sum()),
        block=job.block,
        micro_batch=min(job.micro_batch or job.batch, -(-job.batch // ours.count)),
        context=data.context(),
        devices=ours.count,
        memory=job.memory,
        checkpointing=job.checkpointing,
        fused_loss=job.fused_loss,
        compute_dtype="fp32" if ours.device == "cpu" and job.memory == "standard" else "bf16",
        flops_per_second="measure",
    )


def _load(job: Job, config, ours: Processes):
    """The model to train, on its device; sharding moves it there a layer at a time, so several processes leave it in main
    memory. Random weights are drawn on the CPU, so that they are the same everywhere."""
    import torch
    from transformers import AutoModelForCausalLM

    from qatoolkit.training.attention import PACKED

    settings = {"config": copy.deepcopy(config), "dtype": torch.bfloat16 if job.memory == "low" else torch.float32}
    if job.attention != PACKED:
        settings["attn_implementation"] = job.attention
    if job.start:
        model = load_causal_lm(job.start, **settings)
    else:
        model = AutoModelForCausalLM.from_config(**settings)
    model.train()
    return model if ours.count > 1 else model.to(ours.device)


def _stored_dtype(job: Job, config):
    """The dtype that the job's directory is written in: that of the checkpoint it started from."""
    import torch
    from safetensors import safe_open

    if job.size:
        return torch.bfloat16 if job.memory == "low" else torch.float32
    if isinstance(config.dtype, torch.dtype):
        return config.dtype
    for path in sorted(Path(job.start).glob("model*.safetensors")):  # old configurations do not say
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(next(iter(file.keys()))).dtype
    return torch.float32


def _with_loss(job: Job, model, ours: Processes):
    """The model with its loss, layers compiled and sharded as the job and the processes want it."""
    import torch

    from qatoolkit.training.attention import PACKED, register
    from qatoolkit.training.losses import Scored

    register()
    if job.checkpointing:  # the second is the name before transformers 5.20
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable()
    layers = [m for m in model.modules() if type(m).__name__ in set(model._no_split_modules or ())]
    if job.compile:
        torch._dynamo.reset()  # layers of all models share their code, and dynamo compiles no code more than 8 times
        for layer in layers:
            layer.compile()
    scored = Scored(model, fused_loss=job.fused_loss, packed_attention=job.attention == PACKED, z_loss=job.z_loss)
    if ours.count > 1:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        half = ours.device != "cpu" and job.memory == "standard"
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if half else None, reduce_dtype=torch.float32)
        mesh = init_device_mesh(ours.device.split(":")[0], (ours.count,))
        for part in (*layers, scored):
            fully_shard(part, mesh=mesh, mp_policy=policy)
    return scored


def _refused(job: Job, scored, data: Mixture, ours: Processes) -> list[str]:
    """The shortcuts that would change the logits of a document in the first block that holds several. ValueError for a model
    that reads one packed document into another."""
    from qatoolkit.training.losses import shortcuts_that_fit

    for place in range(min(100, len(data))):
        batch = data.batch(np.array([place]))
        begins = np.flatnonzero(batch.positions[0] == 0)
        if len(begins) > 2:
            break
    # a part that holds the end of the first document, which then begins there, and the beginning of the second
    second = int(begins[1]) if len(begins) > 1 else 0
    first = max(0, second - CHECKED // 2)
    part = slice(first, first + CHECKED)
    batch = replace(batch, ids=batch.ids[:, part], positions=batch.positions[:, part])
    batch.positions[0, : second - first] -= first
    begins = np.flatnonzero(batch.positions[0] == 0)
    ends = np.append(begins[1:], batch.ids.shape[1])
    # not the first: it sees no other
    longest = 1 + int(np.argmax((ends - begins)[1:])) if len(begins) > 1 else 0
    ids, positions, _, _, documents = on_device(batch, ours.device)
    with arithmetic(job, ours):
        fits = shortcuts_that_fit(scored, ids, positions, documents, (int(begins[longest]), int(ends[longest])))
    if ours.count > 1:
        scored.reshard()  # a forward pass without a backward one leaves the root's weights whole
    refused = [name for name, fit in fits.items() if ours.total(not fit)]
    if "apart" in refused and (not scored.packed_attention or "packed_attention" in refused):
        raise ValueError(
            f"job {job.name!r}: {type(scored.model).__name__} reads packed documents into one another: it is not causal, or "
            "places tokens otherwise than by position ids; train a model of another architecture"
        )
    return [name for name in refused if name != "apart"]


def arithmetic(job: Job, ours: Processes):
    """The context that a forward pass computes in: bfloat16 products on a GPU, everything as it is otherwise."""
    import torch

    return torch.autocast("cuda", dtype=torch.bfloat16, enabled=ours.device != "cpu" and job.memory == "standard")


def _optimizer(job: Job, model):
    import torch

    groups = parameter_groups(model, job.weight_decay)
    if job.memory == "low":
        from qatoolkit.training.bf16_adamw import LowMemoryAdamW

        return LowMemoryAdamW(groups, lr=job.learning_rate, betas=job.betas, seed=job.seed)
    return torch.optim.AdamW(groups, lr=job.learning_rate, betas=job.betas, fused=True)


def parameter_groups(model, weight_decay: float) -> list[dict]:
    """Weight decay on matrices only: not on norms, biases and embeddings."""
    heads = (model.get_input_embeddings(), model.get_output_embeddings())
    embeddings = {id(p) for module in heads if module is not None for p in module.parameters()}
    decayed = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in embeddings]
    rest = [p for p in model.parameters() if p.ndim < 2 or id(p) in embeddings]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
