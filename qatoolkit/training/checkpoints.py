"""The files a training run writes: Hugging Face directories, states to resume from, and averages of checkpoints.

A state has everything that the next step depends on: weights, the optimizer's moments, every random generator, and the
position in the order of blocks. It is complete or absent, contains no pickle, and does not depend on the number of
devices.
"""

import json
import os
from pathlib import Path

import torch

from qatoolkit.core.files import atomic, read_json, remove, write_json
from qatoolkit.training.digests import DIGESTS, require_undamaged, write_digests
from qatoolkit.training.gguf_files import describe_loss, find_gguf
from qatoolkit.training.hub import checkpoint_name, load_causal_lm, load_config, load_tokenizer

STATES = "states"  # in the job's folder


def gather_tensor(tensor: torch.Tensor, leader: bool) -> torch.Tensor | None:
    """The whole tensor in the leader's main memory, None in other processes. All must call this, to gather shards."""
    tensor = tensor.detach()
    tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return tensor.cpu() if leader else None


def place_like(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A whole tensor moved to the device, dtype and sharding of `parameter`."""
    value = value.to(parameter.device, parameter.dtype)
    if not hasattr(parameter, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, parameter.device_mesh, parameter.placements)


def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file."""
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def open_tensors(path: Path, remedy: str):
    """An open safetensors file; OSError with the remedy if it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise OSError(f"{path} is damaged ({error}); {remedy}") from None


def optimizer_tensors(model, optimizer, leader: bool) -> dict[str, torch.Tensor]:
    """The optimizer's state by `parameter/entry`, whole and in the leader's main memory."""
    return {
        f"{name}/{entry}": gather_tensor(value, leader)
        for name, parameter in model.named_parameters()
        for entry, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer(model, optimizer, file, prefix: str = "") -> None:
    """Set the optimizer's state from the tensors of an open safetensors file whose names begin with `prefix`.

    Moments are converted to the dtype of their weights, so a run may start from one in another memory mode. Weights
    that never got a gradient (of the image encoder in a multimodal model) have none. ValueError for another model's
    state."""
    fused = any(group.get("fused") for group in optimizer.param_groups)
    stored = {key[len(prefix) :].rpartition("/")[0] for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
    parameters = dict(model.named_parameters())
    if differing := sorted(stored - parameters.keys()) or sorted(parameters) * (not stored):
        raise ValueError(f"the stored optimizer belongs to another model: they differ in {differing[0]}")
    for name, parameter in parameters.items():  # in the same order on every device
        if name not in stored:
            continue
        state = {entry: file.get_tensor(f"{prefix}{name}/{entry}") for entry in ("exp_avg", "exp_avg_sq", "step")}
        for entry in ("exp_avg", "exp_avg_sq"):
            state[entry] = place_like(parameter, state[entry])
        # fused AdamW counts steps in a float on the weights' device, LowMemoryAdamW in an integer
        state["step"] = state["step"].to(parameter.device, torch.float32) if fused else state["step"].to(torch.int64)
        optimizer.state[parameter] = state


def export(model, tokenizer, folder: Path, manifest: dict, *, dtype, leader: bool = True) -> None:
    """Write the model as a plain Hugging Face directory: weights in `dtype`, tokenizer, model card, `training.json`.

    The manifest is written last, so its presence means complete. Every process must call this; the leader writes."""
    found, casts = {}, {}
    for name, value in model.state_dict(keep_vars=True).items():  # tied weights stay one tensor
        if id(value) not in casts:
            tensor = gather_tensor(value, leader)
            casts[id(value)] = tensor.to(dtype) if leader and tensor.is_floating_point() else tensor
        found[name] = casts[id(value)]
    if not leader:
        return
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, state_dict=found)
    # the dtype of these weights, not that of training; a composite model's configuration names one in each part
    stored = {"dtype": str(dtype).removeprefix("torch.")}
    config = (folder / "config.json").read_text(encoding="utf-8")
    config = json.loads(config, object_hook=lambda part: part | stored if "dtype" in part else part)
    write_json(config, folder / "config.json")
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card(manifest), encoding="utf-8")
    for file in folder.iterdir():
        if file.is_file():
            with open(file, "rb") as content:
                os.fsync(content)  # on the disk before the manifest
    write_json(manifest, folder / "training.json")
    write_digests(folder)


def card(manifest: dict) -> str:
    """The model card of a training manifest."""
    from qatoolkit.core.cards import model_card

    known = ("name", "parameters", "tokens", "flops", "initial_flops", "initial_tokens", "loss")
    mixture = manifest["mixture"]
    return model_card(
        {name: manifest[name] for name in known if manifest.get(name) is not None}
        | {"QA_epochs": mixture["epochs"], "general_epochs": mixture["general_epochs"]}
        | {"mixture": {"QA": 1 - mixture["realised_replay"], "general": mixture["realised_replay"]}}
        | {"base_model": manifest["base_model"], "settings": manifest["job"], "versions": manifest.get("versions")}
    )


def save_state(job, step: int, seen: int, model, optimizer, identity: dict, *, leader: bool = True) -> None:
    """Write the state after `step` steps, then remove all but the last `job.keep_states`; if the disk is full, earlier
    states stay."""
    tensors = {f"model/{name}": gather_tensor(value, leader) for name, value in model.named_parameters()}
    tensors |= {f"buffer/{name}": gather_tensor(value, leader) for name, value in model.named_buffers()}
    moments = optimizer_tensors(model, optimizer, leader)
    tensors |= {f"optimizer/{name}": value for name, value in moments.items()}
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    if not leader:
        return
    with atomic(Path(job.out) / STATES / f"{step:09d}") as temporary:
        temporary.mkdir()
        save_tensors(tensors, temporary / "state.safetensors")
        write_json({"step": step, "tokens": seen, "identity": identity}, temporary / "state.json")
        write_digests(temporary)
    for old in states(job.out)[: -job.keep_states]:
        remove(old)


def remove_leftovers(out: Path) -> None:
    """Remove half-written states of a killed process."""
    for leftover in (out / STATES).glob(".*.tmp"):
        remove(leftover)


def states(out: str | Path) -> list[Path]:
    """The complete states in a job's folder, oldest first."""
    return sorted(p for p in (Path(out) / STATES).glob("[0-9]*") if (p / "state.json").is_file())


def load_state(job, model, optimizer, identity: dict) -> tuple[int, int]:
    """Resume from the last state of the job: sets weights, moments and random generators, and returns (steps, tokens)
    done, (0, 0) without a state. ValueError names the settings that differ from the interrupted run's."""
    saved = states(job.out)
    if not saved:
        return 0, 0
    last = saved[-1]
    remedy = f"delete {last} and run the job again: it resumes from the state before it"
    if not (last / DIGESTS).is_file():
        raise OSError(f"{last / DIGESTS} is missing; {remedy}")
    require_undamaged(last, remedy)
    about = read_json(last / "state.json")
    require_same(job, about["identity"], identity, "an interrupted run")
    with open_tensors(last / "state.safetensors", remedy) as file, torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(place_like(parameter, file.get_tensor(f"model/{name}")))
        for name, buffer in model.named_buffers():
            buffer.copy_(file.get_tensor(f"buffer/{name}"))
        load_optimizer(model, optimizer, file, "optimizer/")
        torch.set_rng_state(file.get_tensor("random/cpu"))
        if torch.cuda.is_available() and "random/cuda" in file.keys():  # noqa: SIM118 (no mapping)
            torch.cuda.set_rng_state(file.get_tensor("random/cuda"))
    return about["step"], about["tokens"]


def require_same(job, before: dict | None, now: dict, what: str) -> None:
    """ValueError naming every setting in which `now` differs from the run in the job's folder; `before` is None for a
    model that no job wrote."""
    if before is None:
        raise ValueError(
            f"job {job.name!r}: {job.out} already contains a model, which no job with these settings wrote; give "
            "another `out`"
        )
    differ = [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if differ:
        raise ValueError(
            f"job {job.name!r}: {job.out} contains {what} with other settings: {'; '.join(differ)}. Set them back, "
            "give another `out`, or delete that folder to start over"
        )


def check_out(job) -> None:
    """ValueError if the job's folder is a file, the job's start, or contains a model that no job wrote."""
    out = Path(job.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"job {job.name!r}: out is the file {out}; it must be a folder")
    if job.start and out.is_dir() and Path(job.start).is_dir() and out.samefile(job.start):
        raise ValueError(f"job {job.name!r}: out and start are both {out}; the start is kept, so give another `out`")
    written = any((out / name).is_file() for name in ("training.json", "metrics.jsonl"))
    if not written and (foreign := [p.name for p in (*out.glob("config.json"), *out.glob("*.safetensors"))]):
        raise ValueError(
            f"job {job.name!r}: {out} already contains {foreign[0]}, which no job wrote; give another `out`"
        )


def require_kept(job) -> None:
    """ValueError if a finished job did not keep something that its settings now require."""
    out = Path(job.out)
    missing = [f"keep {share:g}" for share in job.keep if not (out / f"at-{share:g}").is_dir()]
    missing += ["keep_optimizer"] * (job.keep_optimizer and not (out / "optimizer.safetensors").is_file())
    if missing:
        raise ValueError(
            f"job {job.name!r}: {out} contains a finished run made without {', '.join(missing)}; delete it, or give "
            "another `out`, to train again"
        )


def require_ahead(job, marks: list[tuple[int, int, Path]], done: int, steps: int) -> None:
    """ValueError if `keep` requires a checkpoint whose branch starts at a step that the interrupted run has passed
    without keeping it; `marks` are (step where the branch starts, step where it ends, folder)."""
    passed = [folder for leaves, ends, folder in marks if (leaves < done if leaves < ends else ends <= done)]
    missing = [folder.name.removeprefix("at-") for folder in passed if not folder.is_dir()]
    if missing:
        raise ValueError(
            f"job {job.name!r}: keep asks for {', '.join(missing)}, but the interrupted run in {job.out} has taken "
            f"{done:,} of {steps:,} steps without it; remove it from keep, or delete that folder to start over"
        )


def adopt(checkpoint: str, out: Path, *, tokens: int | None = None, revision: str | None = None) -> None:
    """Copy a checkpoint (`training.hub`: folder, name on a hub, GGUF file) to `out` as a Hugging Face directory with a
    manifest, as the start of mid-training. A GGUF file is dequantised; the manifest describes the loss in `lost`.

    `tokens`: published number of pre-training tokens. Initial compute is then 6 x parameters x tokens, the usual rule
    (Kaplan et al., "Scaling Laws for Neural Language Models", 2020), since document lengths are unknown; without
    `tokens` both count as 0. `revision`: a branch, tag or commit on the hub. ValueError for a model that does not
    separate packed documents, or whose weights are not finite."""
    config, tokenizer = load_config(checkpoint, revision), load_tokenizer(checkpoint, revision)
    model = load_causal_lm(checkpoint, revision, config=config)
    _require_apart(checkpoint, model)
    parameters, file = sum(p.numel() for p in model.parameters()), find_gguf(checkpoint)
    manifest = {
        "name": checkpoint_name(checkpoint),
        "base_model": str(checkpoint),
        "revision": getattr(config, "_commit_hash", None) or revision,
        "parameters": parameters,
        "tokens": 0,
        "flops": 0.0,
        "initial_flops": 6.0 * parameters * (tokens or 0),
        "initial_tokens": tokens or 0,
        "loss": None,
        "lost": describe_loss(file) if file else None,
    }
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    write_json(manifest, Path(out) / "training.json")
    write_digests(Path(out))


def _require_apart(checkpoint: str, model) -> None:
    """ValueError unless two packed documents are read as each of them alone, with transformers' attention or ours:
    mid-training packs documents."""
    from qatoolkit.training.attention import documents_of, register
    from qatoolkit.training.losses import Scored, shortcuts_that_fit

    length, vocabulary = 8, model.get_input_embeddings().weight.shape[0]
    ids, positions = (torch.arange(2 * length)[None] + 5) % vocabulary, torch.arange(length).repeat(2)[None]
    register()
    scored = Scored(model, fused_loss=False, packed_attention=True)
    try:
        documents, second = documents_of(positions.numpy(), "cpu"), (length, 2 * length)
        fits = shortcuts_that_fit(scored, ids, positions, documents, second)
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}; copy it again") from None
    scored.packed_attention = False
    if not any(fits.values()):
        raise ValueError(
            f"{checkpoint} is a {type(model).__name__}, which mixes packed documents: its positions do not come from "
            "position ids; name a model of another architecture"
        )


def soup(checkpoints: list[str | Path], out: str | Path) -> Path:
    """Average checkpoints of one architecture ("model soup") into a Hugging Face directory with the first one's
    tokenizer. `soup.json` records the checkpoints.

    Raises ValueError for fewer than two checkpoints, models of different shape, or an `out` with anything but a soup in
    it."""
    if len(checkpoints) < 2:
        raise ValueError(f"soup: give two or more checkpoints; found {len(checkpoints)}")
    share = 1 / len(checkpoints)
    model = load_causal_lm(checkpoints[0])
    total = {name: p.detach().double() * share for name, p in model.named_parameters()}
    for checkpoint in checkpoints[1:]:
        parts = dict(load_causal_lm(checkpoint).named_parameters())
        if {n: p.shape for n, p in parts.items()} != {n: p.shape for n, p in total.items()}:
            raise ValueError(f"soup: {checkpoint} is not of the same architecture as {checkpoints[0]}")
        for name, value in total.items():
            value += parts[name].detach().double() * share
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(total[name])
    out = Path(out)
    with atomic(out, over="soup.json") as temporary:
        model.save_pretrained(temporary)
        load_tokenizer(checkpoints[0]).save_pretrained(temporary)
        write_json({"checkpoints": [checkpoint_name(c) for c in checkpoints]}, temporary / "soup.json")
    return out
