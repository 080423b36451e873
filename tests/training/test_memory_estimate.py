"""What a training run takes is counted before it starts, on real models, and what cannot fit is refused with a way that can."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    Qwen2Config,
    Qwen3MoeConfig,
    T5Config,
)

from qatoolkit.training import ladder
from qatoolkit.training.flops import architecture
from qatoolkit.training.memory_estimate import (
    DoesNotFit,
    Settings,
    check_disk,
    device_memory,
    disk_needed,
    memory_of,
    preflight,
)

CARD = 85_000_000_000  # an "80 GB" card has 79.1 GiB
LLAMA_8B = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)
TINY = {"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8}
TINY |= {"bos_token_id": 1, "eos_token_id": 2}
LLAMA = LlamaConfig(**TINY, intermediate_size=224, num_key_value_heads=2)
QWEN = Qwen2Config(**TINY, intermediate_size=160, num_key_value_heads=4, tie_word_embeddings=True)
GPT2 = GPT2Config(**TINY, n_positions=64, attn_pdrop=0, resid_pdrop=0, embd_pdrop=0)
FAMILIES = pytest.mark.parametrize("config", [LLAMA, QWEN, GPT2], ids=["llama", "qwen2", "gpt2"])


def needs(config, **changes):
    given = {"tokens": 10**9, "block": 4096, "micro_batch": 1, "context": 1000.0, "device_bytes": CARD}
    return preflight(config, **given | changes)


@pytest.mark.parametrize("name", list(ladder.SIZES))
def test_flops_and_parameters_of_the_ladder_are_exact(name):
    size = ladder.size_of(name)
    found = architecture(ladder.llama_config(size, 768, 4096))
    attention = 2 * size.hidden * size.hidden * (1 + size.kv_heads / size.heads)
    matrices = size.layers * (attention + 3 * size.hidden * size.ffn) + 768 * size.hidden
    norms, untied = (2 * size.layers + 1) * size.hidden, 768 * size.hidden * (not size.tied)
    assert found.parameters == matrices + norms + untied
    assert found.flops_per_token(321.5) == 3 * (2 * matrices + 4 * size.layers * size.hidden * 321.5)


@FAMILIES
def test_flops_are_those_of_a_real_forward_and_backward(config):
    # Eager attention computes the full square, half of which the causal mask throws away: in that convention every token
    # sees all 32 of its row. A causal kernel does half: (32 - 1) / 2 earlier tokens on average.
    own = copy.deepcopy(config)  # transformers writes the kind of attention into it
    model = AutoModelForCausalLM.from_config(own, attn_implementation="eager")
    ids = torch.randint(0, 100, (2, 32))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    assert counter.get_total_flops() == pytest.approx(64 * architecture(config).flops_per_token(32), rel=1e-6)


def test_of_experts_only_the_activated_count():
    moe = Qwen3MoeConfig(
        **TINY, moe_intermediate_size=48, num_key_value_heads=2, num_experts=8, num_experts_per_tok=2, head_dim=8
    )
    found = architecture(moe)
    assert found.mlp_weights == 2 * (2 * 3 * 64 * 48 + 8 * 64)  # layers x (two experts and the router)
    real = AutoModelForCausalLM.from_config(moe)
    assert found.parameters == sum(p.numel() for p in real.parameters())
    assert found.not_covered == ()


def test_what_the_flops_leave_out_is_named():
    found = needs(MambaConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2))
    assert any("conv1d" in part.lower() or "A_log" in part for part in found.not_covered)
    assert "not in the FLOPs" in found.describe()


def test_recomputation_is_hardware_work_and_not_the_models():
    plain, again = needs(LLAMA), needs(LLAMA, checkpointing=True)
    assert again.flops == plain.flops == plain.hardware_flops
    assert plain.flops < again.hardware_flops < plain.flops * 4 / 3


def saved_bytes(config, ids, positions, arithmetic):
    """Distinct storages that autograd keeps for the decoder, without parameters and their bfloat16 copies."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).train()
    if arithmetic == "bf16":
        model = model.bfloat16()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    shapes = {tuple(p.shape) for p in model.parameters()} | {tuple(p.t().shape) for p in model.parameters()}
    kept, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tuple(tensor.shape) not in shapes:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no address is used twice
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=arithmetic == "autocast"),
    ):
        model.base_model(input_ids=ids, position_ids=positions, use_cache=False)
    return sum(kept.values())


@pytest.mark.parametrize("arithmetic", ["fp32", "autocast", "bf16"])
@pytest.mark.parametrize(("config", "off"), [(LLAMA, 0.03), (QWEN, 0.03), (GPT2, 0.3)], ids=["llama", "qwen2", "gpt2"])
def test_activations_are_those_that_autograd_keeps(config, off, arithmetic):
    # Three rows of 40 tokens in two packed documents: no weight has such a shape.
    positions = torch.cat([torch.arange(17), torch.arange(23)]).expand(3, -1)
    real = saved_bytes(config, torch.randint(0, 100, (3, 40)), positions, arithmetic)
    found = architecture(config)
    in_flight = 120 * 0.5 * found.layer_activations(40, arithmetic)
    assert found.activations(120, 40, arithmetic, False) - in_flight == pytest.approx(real, rel=off)


STEP = """
import gc, resource, sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM

def step(model, optimizer, rows, block):
    ids = torch.randint(0, 4000, (rows, block))
    positions = torch.arange(block // 2).repeat(2).expand(rows, -1)
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten()).backward()
    optimizer.step()

def student(config):
    model = LlamaForCausalLM(config).train()
    return model, torch.optim.AdamW(model.parameters(), fused=True)

torch.set_num_threads(1)
small = {"vocab_size": 4000, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
step(*student(LlamaConfig(**small, num_attention_heads=2)), 1, 16)  # libraries load and take their own memory
gc.collect()
before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
model, optimizer = student(LlamaConfig.from_json_file(sys.argv[1]))
model.gradient_checkpointing_enable()  # takes less, so it comes first: the peak only ever rises
for steps in (2, 1):
    for _ in range(steps):
        step(model, optimizer, 2, 384)
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # ru_maxrss remembers the parent's
    print("PEAK", int(peak.split()[1]) * 1024 - before)
    model.gradient_checkpointing_disable()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_real_step_takes_the_memory_foretold(tmp_path):
    config = LlamaConfig(
        vocab_size=4000,
        hidden_size=320,
        intermediate_size=960,
        num_hidden_layers=6,
        num_attention_heads=5,
        num_key_value_heads=1,
    )
    config.to_json_file(tmp_path / "config.json")
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # freed memory goes back at once
    command = [sys.executable, "-c", STEP, str(tmp_path / "config.json")]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    peaks = [int(line.split()[1]) for line in said.splitlines() if line.startswith("PEAK")]
    settings = {"block": 384, "micro_batch": 2, "compute_dtype": "fp32"}
    foretold = [needs(config, **settings, checkpointing=c).total_bytes for c in (True, False)]
    assert foretold == pytest.approx(peaks, rel=0.25)


def test_eight_billion_parameters_fit_one_card_in_low_memory_only():
    standard = needs(LLAMA_8B, checkpointing=True, fused_loss=True)
    assert standard.parameters == 8_030_261_248
    with pytest.raises(DoesNotFit, match="memory='low'"):
        standard.refuse()
    low = needs(LLAMA_8B, memory="low", checkpointing=True, fused_loss=True)
    low.refuse()
    assert low.memory.weights + low.memory.gradients + low.memory.optimizer == 8 * low.parameters
    assert low.total_bytes < 0.85 * CARD


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"micro_batch": 16},
        {"memory": "low", "micro_batch": 64},
        {"device_bytes": 24_000_000_000},
        {"compute_dtype": "fp32", "device_bytes": 50_000_000_000},
    ],
)
def test_the_remedy_named_fits_and_leaves_the_rest_alone(changes):
    refused = needs(LLAMA_8B, **changes)
    found = refused.remedy()
    assert memory_of(refused.model, found).total <= 0.95 * refused.device_bytes
    assert (found.block, found.compute_dtype) == (refused.settings.block, refused.settings.compute_dtype)
    with pytest.raises(DoesNotFit) as error:
        refused.refuse()
    for name in ("memory", "devices", "micro_batch", "checkpointing", "fused_loss"):
        changed = getattr(found, name) != getattr(refused.settings, name)
        assert (f"{name}={getattr(found, name)!r}" in str(error.value)) == changed


def test_the_mildest_remedy_comes_first():
    config = ladder.llama_config(ladder.size_of("1b"), 128256, 4096)
    wanted = Settings(block=4096, micro_batch=8, fused_loss=True)
    enough = int(memory_of(architecture(config), wanted).total / 0.95) + 1
    assert needs(config, micro_batch=8, device_bytes=enough).remedy() == wanted
    less = needs(config, micro_batch=8, device_bytes=enough - 2).remedy()
    assert less == Settings(block=4096, micro_batch=8, checkpointing=True)


def test_nothing_helps_is_said_too():
    with pytest.raises(DoesNotFit, match="smaller model or shorter rows"):
        needs(LLAMA_8B, device_bytes=10**8).refuse()


def test_devices_share_weights_gradients_and_moments():
    one, eight = needs(LLAMA_8B), needs(LLAMA_8B, devices=8)
    assert eight.memory.weights == pytest.approx(one.memory.weights / 8)
    assert eight.memory.optimizer == pytest.approx(one.memory.optimizer / 8)
    assert eight.memory.activations == one.memory.activations
    assert eight.memory.copies > 0


def test_hours_follow_from_a_rate_and_an_assumed_one_is_called_so():
    known = needs(LLAMA, flops_per_second=1e12, devices=2)
    assert known.hours == pytest.approx(known.flops / 2e12 / 3600)
    assert "assumed" not in known.describe()
    measured = needs(LLAMA, flops_per_second="measure", compute_dtype="fp32")
    assert measured.hours > 0
    assert "assumed" in measured.describe()
    assert needs(LLAMA).hours is None
    assert "hours unknown" in needs(LLAMA).describe()


def test_a_notebook_and_a_terminal_show_the_same_table():
    found = needs(LLAMA, device_bytes=None)
    assert found.device_bytes == pytest.approx(device_memory(), rel=0.5)
    assert all(name in found.describe() for name in ("weights", "gradients", "optimizer", "activations", "total"))
    assert found.describe() in found._repr_html_()


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory": "none"},
        {"compute_dtype": "fp8"},
        {"memory": "low", "compute_dtype": "fp32"},
        {"micro_batch": 0},
        {"tokens": -1},
        {"flops_per_second": "guess"},
        {"flops_per_second": 0},
    ],
)
def test_a_value_out_of_range_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        needs(LLAMA, **wrong)


def test_a_configuration_without_a_causal_model_is_refused():
    with pytest.raises(ValueError, match="T5Config has no causal language model"):
        needs(T5Config())


def test_a_full_disk_is_noticed_before_the_run(tmp_path):
    assert disk_needed(1000, states=0) == 4000
    assert disk_needed(1000, states=2) == 4000 + 3 * 12000
    assert disk_needed(1000, states=2, memory="low") == 2000 + 3 * 6000
    assert disk_needed(1000, states=0, exports=3, moments=True) == 3 * 12000
    check_disk(tmp_path / "not" / "yet", disk_needed(1000, states=2))
    with pytest.raises(OSError, match=r"not/yet.*needs.*are free: keep fewer") as error:
        check_disk(tmp_path / "not" / "yet", 10**18)
    assert "1000000000.00 GB" in str(error.value)


def test_importing_it_loads_neither_torch_nor_pandas():
    code = "import sys, qatoolkit.training.memory_estimate; sys.exit(bool({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_of_a_model_that_reads_images_too_text_meets_its_text_part_alone():
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 8}
    text = sizes | {"vocab_size": 100, "num_key_value_heads": 2, "head_dim": 8}
    both = architecture(Gemma3Config(text_config=text, vision_config=sizes))
    alone = architecture(Gemma3TextConfig(**text))
    assert both.flops_per_token(32) == alone.flops_per_token(32)
    assert both.parameters > alone.parameters
    assert both.not_covered == ()


def test_biases_of_experts_are_no_products():
    sizes = {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 96, "num_key_value_heads": 2}
    found = architecture(GptOssConfig(**TINY, **sizes, head_dim=8))
    assert found.mlp_weights == 2 * (4 * 64 + 2 * 3 * 64 * 96)  # the router, and two of the four experts
