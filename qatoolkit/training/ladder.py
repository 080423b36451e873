"""The ladder of student sizes.

Sizes up to `m` train on a CPU in seconds to minutes; the others need a GPU. All have the Llama architecture, so the
same code trains small and large rungs.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Size:
    """One rung: width, depth, attention heads, key-value heads, feed-forward width, tied embeddings."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    tied: bool = True


SIZES = {
    "xxs": Size(hidden=32, layers=2, heads=4, kv_heads=4, ffn=96),
    "xs": Size(hidden=64, layers=2, heads=4, kv_heads=4, ffn=192),
    "s": Size(hidden=96, layers=2, heads=4, kv_heads=4, ffn=288),
    "m": Size(hidden=128, layers=2, heads=4, kv_heads=4, ffn=384),
    "130m": Size(hidden=768, layers=12, heads=12, kv_heads=12, ffn=2048),
    "350m": Size(hidden=1024, layers=24, heads=16, kv_heads=16, ffn=2816),
    "1b": Size(hidden=2048, layers=22, heads=32, kv_heads=4, ffn=5632),
    "8b": Size(hidden=4096, layers=32, heads=32, kv_heads=8, ffn=14336, tied=False),
}


def size_of(name: str) -> Size:
    """A rung by name; ValueError lists the rungs."""
    if name not in SIZES:
        raise ValueError(f"unknown student size {name!r}; allowed: {', '.join(SIZES)}")
    return SIZES[name]


def llama_config(size: Size, vocabulary: int, positions: int, **special):
    """The transformers configuration of a rung.

    Weights are initialised with a standard deviation of 0.9 / sqrt(hidden), at most 0.08 and at least the usual 0.02:
    narrow students initialised at 0.02 learn facts far more slowly (docs/LOG.md)."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.ffn,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=positions,
        tie_word_embeddings=size.tied,
        initializer_range=min(0.08, max(0.02, 0.9 * size.hidden**-0.5)),
        **special,
    )
