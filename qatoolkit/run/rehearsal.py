"""A rehearsal: every stage of a profile at a tiny size, before anything is spent.

Arms, data sets, strategies, comparisons, ablations and scaling shares are those of the profile. Models are tiny, with
the same architecture and random weights; seeds and exams are the textbook's, and the teacher is the offline one."""

from operator import attrgetter
from pathlib import Path

from qatoolkit.core.settings import turn_dials
from qatoolkit.run.profiles import PROFILES, Profile, as_yaml
from qatoolkit.run.world import TextbookWorld
from qatoolkit.teacher.settings import OFFLINE, TeacherSettings
from qatoolkit.training.flops import architecture
from qatoolkit.training.hub import NoCheckpoint, load_config
from qatoolkit.training.ladder import llama_config, size_of
from qatoolkit.training.tokens import train_tokenizer

VOCABULARY, POSITIONS = 1024, 512
WIDER = 32  # added to the hidden size from one size of model to the next
SMALL = {  # settings of a model's configuration, if it has them
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "qk_rope_head_dim": 16,
    "max_position_embeddings": POSITIONS,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
}
AMOUNTS = {  # upper limits, for the profile and for the dials of its data sets and ablations
    "annotate.samples": 2,
    "probe.every": 2_000,
    "plan.questions": 80,
    "plan.low_n": 2,
    "boostqa.trial": 20,
    "midtrain.tokens": 4_000,
    "evaluate.bootstrap": 100,
    "ablation_seeds": 1,
    "scaling.seeds": 1,
}
HELD_OUT = 2_000  # characters of general text


def write_rehearsal(profile: Profile, folder: Path, log=print) -> Path:
    """Write the rehearsal of a profile, its tiny checkpoints and its held-out text below `folder`, and return the path
    of the profile. ValueError if no small model of an architecture can be made."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "held_out.txt").write_text(_held_out_text(), encoding="utf-8")
    tiny = _write_checkpoints(profile, folder / "checkpoints", log)
    student = {"size": "xs", "vocabulary": VOCABULARY, "tokens": 20_000, "compile": False, "launch": None}
    student |= {"block": profile.student.block and 128, "batch": profile.student.batch and 4}
    if profile.student.checkpoint:
        student |= tiny[profile.student.checkpoint, profile.student.revision]
    small = turn_dials(
        profile,
        {
            "name": f"{profile.name}-rehearsal",
            "textbook": dict(PROFILES["smoke"].textbook),
            "seeds": {"sources": ("textbook",), "mapping": None, "languages": ()},
            "exams": dict.fromkeys(profile.exams)
            | {e: {"source": "textbook"} for e in ("textbook_en", "textbook_pro")},
            "general": {"sources": ("python",), "held_out": (str(folder / "held_out.txt"),)},
            "teacher": dict(TeacherSettings(base_url=OFFLINE, batch=profile.teacher.batch)),
            "linkqa.merges": None,
            "rounds": dict(profile.rounds) | {"tokens": None, "seeds": 1},
            **{dial: _limit(dial, attrgetter(dial)(profile)) for dial in AMOUNTS},
            "data": {name: dict(about) | {"dials": _limit_dials(about.dials)} for name, about in profile.data.items()},
            "ablations": tuple(map(_limit_dials, profile.ablations)),
            "student": student,
            "ladder": [dict(entry) | tiny[entry.checkpoint, entry.revision] for entry in profile.ladder],
            "scaling.sizes": ("xxs", "xs") if profile.scaling.sizes else (),
        },
    )
    path = folder / "profile.yaml"
    path.write_text(as_yaml(small), encoding="utf-8")
    return path


def _limit(dial: str, value):
    """A dial's value, or the values nested below it, no larger than in `AMOUNTS`."""
    if isinstance(value, dict):
        return {name: _limit(f"{dial}.{name}", inner) for name, inner in value.items()}
    return min(value, AMOUNTS[dial]) if dial in AMOUNTS else value


def _limit_dials(dials: dict) -> dict:
    return {dial: _limit(dial, value) for dial, value in dials.items()}


def _held_out_text() -> str:
    from pydoc_data.topics import topics

    return "\n\n".join(topics.values())[:HELD_OUT]


def _write_checkpoints(profile: Profile, folder: Path, log) -> dict[tuple, dict]:
    """Write a tiny model for every checkpoint that a profile names; returns its settings by checkpoint and revision.

    Checkpoints of the same size get tiny ones of the same size, so the scaling axes are those of the profile."""
    textbook = TextbookWorld(PROFILES["smoke"].textbook, folder / "teacher.log.jsonl")
    named = {(entry.checkpoint, entry.revision): entry for entry in (*profile.ladder, profile.student)}
    tokenizer, tiny, sizes = train_tokenizer(textbook.vocabulary(), VOCABULARY), {}, {}
    for (checkpoint, revision), entry in named.items():
        if not checkpoint:
            continue
        try:
            config = load_config(checkpoint, revision)
            size = architecture(config).parameters
        except NoCheckpoint:
            log(f"rehearsal: {checkpoint} is not on this machine; a tiny Llama takes its place")
            config = llama_config(size_of("xs"), VOCABULARY, POSITIONS)
            size = getattr(entry, "parameters", None) or checkpoint
        place, wider = folder / str(len(tiny)), WIDER * sizes.setdefault(size, len(sizes))
        tiny[checkpoint, revision] = {"checkpoint": str(place), "revision": None}
        try:
            model = _make_tiny(config, wider, len(tiny), tokenizer)
        except (ValueError, TypeError, RuntimeError) as error:
            raise ValueError(f"rehearsal: no small model like {checkpoint} could be made: {error}") from None
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
    return tiny


def _make_tiny(config, wider: int, seed: int, tokenizer):
    """A small model of a configuration's class, with its Boolean settings; the other settings are the class's
    defaults."""
    import torch
    from transformers import AutoModelForCausalLM

    config = config.get_text_config(decoder=True)
    known = config.to_dict()
    switches = {name: value for name, value in known.items() if isinstance(value, bool)}
    sizes = {name: value for name, value in SMALL.items() if name in known or name in config.attribute_map}
    sizes["hidden_size"] += wider
    if "num_key_value_heads" in sizes and config.num_key_value_heads == config.num_attention_heads:
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    special = dict.fromkeys(("eos_token_id", "bos_token_id", "pad_token_id"), tokenizer.eos_token_id)
    torch.manual_seed(seed)
    small = type(config)(**switches, **sizes, **special, vocab_size=len(tokenizer))
    return AutoModelForCausalLM.from_config(small, trust_remote_code=False)
