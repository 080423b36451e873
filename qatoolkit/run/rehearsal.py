"""A rehearsal: every stage of a profile in small, before anything is spent.

Arms, data sets, strategies, comparisons, ablations and scaling shares are the profile's own. Models are tiny ones of the
same architecture with random weights, seeds and exams those of the textbook, the teacher the offline one."""

from pathlib import Path

from qatoolkit.core.settings import turned
from qatoolkit.run.profiles import PROFILES, Profile, as_yaml
from qatoolkit.run.world import TextbookWorld
from qatoolkit.teacher.settings import TeacherSettings
from qatoolkit.training.hub import NoCheckpoint, load_config
from qatoolkit.training.ladder import llama_config, size_of
from qatoolkit.training.tokens import train_tokenizer

POSITIONS = 512
SMALL = {  # names of these in a configuration, where it has them
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": POSITIONS,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
}


def write_rehearsal(profile: Profile, folder: Path) -> Path:
    """Write the rehearsal of a profile and its tiny checkpoints below `folder`; returns the profile's YAML file."""
    smoke = PROFILES["smoke"]
    named = [profile.student.checkpoint, *(entry.checkpoint for entry in profile.ladder)]
    tokenizer = train_tokenizer(TextbookWorld(smoke.textbook, folder / "teacher.log.jsonl").vocabulary(), 1024)
    tiny = {
        name: str(_write_tiny(name, i, profile.student.size, tokenizer, folder / "checkpoints" / f"{i}"))
        for i, name in enumerate(dict.fromkeys(n for n in named if n))
    }
    student = {"block": 128, "batch": 8, "compile": False, "launch": None, "vocabulary": 1024, "tokens": 60_000}
    if profile.student.checkpoint:
        student |= {"checkpoint": tiny[profile.student.checkpoint], "revision": None}
    else:
        student |= {"size": "xs"}
    offline = TeacherSettings(base_url="offline", batch=profile.teacher.batch)
    small = turned(
        profile,
        {
            "name": f"{profile.name}-rehearsal",
            "textbook": dict(smoke.textbook),
            "seeds": {"sources": ("textbook",), "mapping": None, "languages": ()},
            "exams": dict.fromkeys(profile.exams) | {"textbook": {"source": "textbook"}},
            "general": {"sources": ("python",), "held_out": ()},
            "teacher": dict(offline),
            "annotate": {"samples": min(2, profile.annotate.samples)},
            "probe": {"every": min(10_000, profile.probe.every)},
            "plan": {"questions": smoke.plan.questions, "low_n": smoke.plan.low_n},
            "boostqa.trial": smoke.boostqa.trial,
            "student": student,
            "midtrain": {"tokens": smoke.midtrain.tokens, "learning_rate": None},
            "ladder": [
                dict(entry) | {"checkpoint": tiny[entry.checkpoint], "revision": None} for entry in profile.ladder
            ],
            "scaling.sizes": tuple(size for size in ("xxs", "xs") if profile.scaling.sizes),
            "evaluate": {"bootstrap": smoke.evaluate.bootstrap, "batch": smoke.evaluate.batch},
        },
    )
    path = folder / "profile.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_yaml(small), encoding="utf-8")
    return path


def _write_tiny(checkpoint: str, number: int, size: str, tokenizer, folder: Path) -> Path:
    """A tiny model with random weights of a checkpoint's architecture (of the Llama rung `size` where the checkpoint is not
    at hand), each a little wider than the one before, so that a ladder has sizes."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        config = load_config(checkpoint)
    except NoCheckpoint:
        config = llama_config(size_of(size), 1024, POSITIONS)
    known = config.to_dict() | {key: None for key in config.attribute_map}
    small = {name: value for name, value in SMALL.items() if name in known}
    small["hidden_size"] += 16 * number
    special = {name: tokenizer.eos_token_id for name in ("eos_token_id", "bos_token_id", "pad_token_id")}
    torch.manual_seed(number)
    try:
        model = AutoModelForCausalLM.from_config(type(config)(vocab_size=len(tokenizer), **small, **special))
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"rehearsal: no small model of the architecture of {checkpoint} could be made: {error}"
        ) from None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
