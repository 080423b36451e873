"""What a training run needs is estimated before it starts and checked on real models; what does not fit is refused."""

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

from qatoolkit.core.settings import replace
from qatoolkit.training import ladder
from qatoolkit.training.flops import architecture
from qatoolkit.training.job import Job
from qatoolkit.training.memory_estimate import DoesNotFit, check_disk, device_memory, disk_needed, estimate_needs
from qatoolkit.training.settings import StepSettings

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


def needs(config, *, devices=1, gpu=True, device_bytes=CARD, flops_per_second=1e12, **changes):
    manner = StepSettings(**{"block": 4096, "batch": 64, "micro_batch": 1, "fused_loss": False} | changes)
    given = {"tokens": 10**9, "context": 1000.0, "flops_per_second": flops_per_second, "device_bytes": device_bytes}
    return estimate_needs(config, manner, gpu=gpu, devices=devices, **given)


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
    # Eager attention computes the full square, half of which the causal mask discards: in that convention every token
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
    assert any("conv1d" in part.lower() or "A_log" in part for part in found.model.not_covered)
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
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # ru_maxrss: the parent's
    print("PEAK", int(peak.split()[1]) * 1024 - before)
    model.gradient_checkpointing_disable()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_real_step_takes_the_memory_estimated(tmp_path):
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
    settings = {"block": 384, "micro_batch": 2, "gpu": False}
    estimated = [needs(config, **settings, checkpointing=c).total_bytes for c in (True, False)]
    assert estimated == pytest.approx(peaks, rel=0.25)


def test_eight_billion_parameters_fit_one_card_in_low_memory_only():
    standard = needs(LLAMA_8B, checkpointing=True, fused_loss=True)
    assert standard.model.parameters == 8_030_261_248
    with pytest.raises(DoesNotFit, match="Try memory: low, or more devices, or a shorter block"):
        standard.require_fit()
    low = needs(LLAMA_8B, memory="low", checkpointing=True, fused_loss=True)
    low.require_fit()
    assert sum(low.memory[part] for part in ("weights", "gradients", "optimizer")) == 8 * low.model.parameters
    assert low.total_bytes < 0.85 * CARD


def test_what_does_not_fit_names_the_part_the_device_and_what_to_change():
    with pytest.raises(DoesNotFit) as error:
        needs(LLAMA_8B, micro_batch=16).require_fit()
    assert "optimizer 64.24 GB" in str(error.value)
    assert "a device has 85.00 GB, of which 5% stay free" in str(error.value)
    assert str(error.value).endswith("Try fused_loss: true, or checkpointing: true, or a smaller micro_batch")
    with pytest.raises(DoesNotFit, match=r"Try more devices, or a shorter block or a smaller model$"):
        needs(LLAMA_8B, memory="low", checkpointing=True, fused_loss=True, device_bytes=10**8).require_fit()


@pytest.mark.parametrize("remedy", [{"fused_loss": True}, {"checkpointing": True}, {"micro_batch": 1}, {"devices": 8}])
def test_every_remedy_saves_memory(remedy):
    before = needs(LLAMA_8B, micro_batch=8)
    assert needs(LLAMA_8B, **{"micro_batch": 8} | remedy).total_bytes < before.total_bytes


def test_a_device_takes_its_share_of_the_batch_at_most():
    whole = needs(LLAMA_8B, micro_batch=None, batch=8, devices=4)
    assert whole.memory == needs(LLAMA_8B, micro_batch=2, batch=8, devices=4).memory
    assert whole.memory == needs(LLAMA_8B, micro_batch=5, batch=8, devices=4).memory


def test_devices_share_weights_gradients_and_moments():
    one, eight = needs(LLAMA_8B), needs(LLAMA_8B, devices=8)
    assert eight.memory["weights"] == pytest.approx(one.memory["weights"] / 8)
    assert eight.memory["optimizer"] == pytest.approx(one.memory["optimizer"] / 8)
    assert eight.memory["activations"] == one.memory["activations"]
    assert eight.memory["copies"] > 0


def test_hours_follow_from_a_rate_and_an_assumed_one_is_marked():
    known = needs(LLAMA, flops_per_second=1e12, devices=2)
    assert known.hours == pytest.approx(known.flops / 2e12 / 3600)
    assert "assumed" not in known.describe()
    measured = needs(LLAMA, flops_per_second=None)
    assert measured.hours > 0
    assert "assumed" in measured.describe()


def test_a_notebook_and_a_terminal_show_the_same_table():
    found = needs(LLAMA, device_bytes=None)
    assert found.device_bytes == pytest.approx(device_memory(), rel=0.5)
    assert all(name in repr(found) for name in ("weights", "gradients", "optimizer", "activations", "total"))


def test_a_configuration_without_a_causal_model_is_refused():
    with pytest.raises(ValueError, match="T5Config has no causal language model"):
        needs(T5Config())


def test_a_full_disk_is_noticed_before_the_run(tmp_path):
    one = Job(name="j", out=str(tmp_path / "not" / "yet"), start="s", qa="q", replay=0.0, tokens=1000, save_minutes=0)
    assert disk_needed(one, 1000) == 4000
    resumable = replace(one, save_every=5)
    assert disk_needed(resumable, 1000) == 4000 + 3 * 12000
    assert disk_needed(replace(resumable, memory="low"), 1000) == 2000 + 3 * 6000
    assert disk_needed(replace(one, keep=(0.25, 0.5), keep_optimizer=True), 1000) == 3 * 12000
    check_disk(resumable, 1000)
    with pytest.raises(OSError, match=r"not/yet needs 4000000000.00 GB .*are free, .* too little: keep fewer"):
        check_disk(one, 10**18)


def test_importing_it_loads_neither_torch_nor_pandas():
    code = (
        "import sys, qatoolkit.training.memory_estimate; print(*{'torch', 'transformers', 'pandas'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


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
