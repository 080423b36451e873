"""The fused loss is the loss: same value, same gradients, for every model it is used on."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    DeepseekV3Config,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
)

from qatoolkit.training.attention import documents_of, register
from qatoolkit.training.losses import Scored, fused_cross_entropy, plain_cross_entropy, shortcuts_that_fit

register()

TINY = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
CONFIGS = {
    "llama": lambda: LlamaConfig(**TINY, intermediate_size=64, num_key_value_heads=2),
    "qwen": lambda: Qwen2Config(**TINY, intermediate_size=64, num_key_value_heads=2, tie_word_embeddings=True),
    "gpt2": lambda: GPT2Config(
        vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    ),
}  # fmt: skip


def batch(blocks=2, length=24):
    torch.manual_seed(1)
    ids = torch.randint(0, 97, (blocks, length))
    positions = torch.arange(length).repeat(blocks, 1) % 9
    where = (positions[:, 1:] > 0).nonzero() @ torch.tensor([length, 1])
    return ids, positions, where, ids.flatten()[where + 1]


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("with_bias", [False, True])
def test_value_and_gradients_equal_those_of_the_whole_logits(z_loss, chunk, with_bias):
    torch.manual_seed(0)
    parts = [torch.randn(50, 16), torch.randn(31, 16)] + [torch.randn(31)] * with_bias
    targets = torch.randint(0, 31, (50,))

    def grown(loss):
        leaves = [p.clone().requires_grad_() for p in parts]
        value = loss(*leaves)
        (value * 0.37).backward()
        return [value.detach(), *(leaf.grad for leaf in leaves)]

    fused = grown(lambda h, w, b=None: fused_cross_entropy(h, w, targets, bias=b, z_loss=z_loss, chunk=chunk))
    plain = grown(lambda h, w, b=0.0: plain_cross_entropy(h @ w.t() + b, targets, z_loss=z_loss))
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_learns_the_same_through_either_loss(name):
    torch.manual_seed(0)
    scored = Scored(AutoModelForCausalLM.from_config(CONFIGS[name]()))
    found = {}
    for scored.fused_loss in (True, False):
        scored.zero_grad()
        loss = scored(*batch())
        loss.backward()
        found[scored.fused_loss] = loss.detach(), [p.grad.clone() for p in scored.parameters()]
    torch.testing.assert_close(found[True], found[False], rtol=1e-5, atol=1e-4)
    scored.fused_loss = True
    assert fits(scored) == {"apart": True, "fused_loss": True}


def fits(scored, tokens=24):
    """The check of a block whose documents have 9 tokens, on its second one."""
    ids, positions, *_ = batch(1, tokens)
    return shortcuts_that_fit(scored, ids, positions, documents_of(positions.numpy(), "cpu"), (9, 18))


ODD = {
    "scaled logits": (
        CohereConfig(**TINY, intermediate_size=64, logit_scale=0.5),
        {"apart": True, "fused_loss": False},
    ),
    "capped logits": (
        Gemma2Config(**TINY, intermediate_size=64, head_dim=8, num_key_value_heads=2, final_logit_softcapping=30.0),
        {"apart": True, "fused_loss": False, "packed_attention": False},
    ),
    "windows": (
        MistralConfig(**TINY, intermediate_size=64, num_key_value_heads=2, sliding_window=4),
        {"apart": True, "fused_loss": True, "packed_attention": False},
    ),
    "values narrower than queries": (
        DeepseekV3Config(
            **TINY,
            intermediate_size=64,
            moe_intermediate_size=32,
            num_key_value_heads=4,
            n_routed_experts=4,
            n_group=1,
            topk_group=1,
            num_experts_per_tok=2,
            q_lora_rank=16,
            kv_lora_rank=16,
            qk_rope_head_dim=4,
            qk_nope_head_dim=8,
            v_head_dim=8,
        ),
        {"apart": True, "fused_loss": True, "packed_attention": False},
    ),
    "positions of its own": (BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4), {"apart": False}),
    "positions by mask": (OPTConfig(**TINY, ffn_dim=64, word_embed_proj_dim=32), {"apart": False}),
}


@pytest.mark.parametrize("name", ODD)
def test_what_a_model_does_otherwise_is_noticed_and_it_is_left_as_it_was(name):
    torch.manual_seed(0)
    config, expected = ODD[name]
    scored = Scored(AutoModelForCausalLM.from_config(config), packed_attention=True)
    before = scored.packed_attention
    found = fits(scored)
    assert {key: found[key] for key in expected} == expected
    assert (scored.fused_loss, scored.packed_attention, scored.training) == (True, before, True)


def test_nothing_to_learn_is_a_loss_of_zero_with_gradients_of_zero():
    scored = Scored(AutoModelForCausalLM.from_config(CONFIGS["llama"]()))
    ids, positions, _, _ = batch()
    none = torch.empty(0, dtype=torch.long)
    loss = scored(ids, positions, none, none)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in scored.parameters())


def test_under_bfloat16_the_fused_loss_is_as_close_as_the_whole_one():
    torch.manual_seed(0)
    scored = Scored(AutoModelForCausalLM.from_config(CONFIGS["llama"]()))
    exact = scored(*batch()).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fused = scored(*batch())
        fused.backward()
    assert fused.item() == pytest.approx(exact, rel=2e-3)
    assert all(p.grad.dtype == torch.float32 for p in scored.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_documents_are_read_as_if_each_stood_alone(name):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()
    documents = [torch.randint(0, 97, (1, n)) for n in (5, 17, 1, 9)]
    ids = torch.cat(documents, dim=1)
    positions = torch.cat([torch.arange(d.shape[1]) for d in documents])[None]
    with torch.inference_mode():
        packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        alone = torch.cat([model(input_ids=d, use_cache=False).logits for d in documents], dim=1)
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-5)
