"""The cost of an architecture: parameters, FLOPs per token, bytes of activations.

A transformers configuration is measured on the model itself, built on the meta device, which takes no memory:
parameters are counted exactly, and matrix products are found by their weights. Weights that are not recognised are
reported, not estimated.
"""

import json
from dataclasses import dataclass
from functools import lru_cache

UNSHARDED = 3  # layers gathered at a time in a fully sharded run: the current, the prefetched, one set of gradients
IN_FLIGHT = 0.5  # gradients in the backward pass, as a share of one layer's activations


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Measurements of a model. `attention_weights` and `mlp_weights`: weights of the matrix products computed for a
    token (of experts, the activated share), summed over layers. `matrices`: weights of all matrix products, every
    expert included. `widths`: per layer, query heads x head size (mean of key and value sizes if they differ), 0
    without softmax attention. `windows`: per layer, its attention window or None. `unit`: parameters of the largest
    part that a sharded model gathers. `not_covered`: descriptions of what the FLOPs leave out."""

    parameters: int
    hidden: int
    vocabulary: int
    attention_weights: float
    mlp_weights: float
    head_weights: int
    matrices: int
    gated: bool
    widths: tuple[float, ...]
    windows: tuple[int | None, ...]
    unit: int
    not_covered: tuple[str, ...]

    @property
    def layers(self) -> int:
        return len(self.widths)

    def flops_per_token(self, context: float) -> float:
        """Training FLOPs of a token that attends to `context` earlier ones: forward, and twice that backward; a
        multiply-add counts 2.

        Norms, activations, softmax, look-ups and biases are left out, as usual; the 6 N D rule also leaves out
        attention, and counts the embedding table although it is only looked up."""
        return 3 * (self.layer_flops(context) + 2 * self.head_weights)

    def layer_flops(self, context: float) -> float:
        """Forward FLOPs of a token in all layers, without the output head: what activation checkpointing recomputes.

        A layer with a window counts min(context, window), an upper bound of the mean."""
        attended = sum(
            width * (context if window is None else min(context, window))
            for width, window in zip(self.widths, self.windows, strict=True)
        )
        return 2 * (self.attention_weights + self.mlp_weights) + 4 * attended

    def layer_activations(self, block: int, arithmetic: str) -> float:
        """Bytes that autograd keeps for one token in one layer, with packed documents and SDPA.

        With h the hidden size, a the attention width, f the feed-forward width (sum over activated experts), e bytes
        per element: 4 a e for query, key, value (repeated for grouped heads, since packed documents need a mask) and
        output; 4 f e for a gated feed-forward net (gate, its activation, up, their product), 5 f e with tanh-GELU;
        `block` e for the token's row of the mask, which SDPA copies once per layer, not per head. The two norms and the
        inputs of the products, counted on Llama: 24 h in float32; 26 h under bfloat16 autocast, which keeps residual
        stream and norms in float32 and casts the input of each product; 16 h with bfloat16 weights, whose norms compute
        in float32. Autograd keeps within 3 % of this on Llama and Qwen2, and up to 27 % less on GPT-2."""
        norms, size = {"fp32": (24, 4), "autocast": (26, 2), "bf16": (16, 2)}[arithmetic]
        layers = max(1, self.layers)
        width = sum(self.widths) / layers
        mlp = self.mlp_weights / layers / self.hidden * (4 / 3 if self.gated else 5 / 2)
        return norms * self.hidden + size * (4 * width + mlp + (block if width else 0))

    def activations(self, tokens: int, block: int, arithmetic: str, checkpointing: bool) -> float:
        """Bytes of activations for a micro-batch of `tokens` in rows of `block`, without the output head.

        With checkpointing: the input of every layer, and the activations of one layer with their gradients."""
        residual = self.hidden * (2 if arithmetic == "bf16" else 4)
        layer = self.layer_activations(block, arithmetic)
        outside = 3 * residual  # embeddings and the last norm
        kept = self.layers * residual + layer if checkpointing else self.layers * layer
        return tokens * (outside + kept + IN_FLIGHT * layer)


def architecture(config) -> Architecture:
    """Measure the causal model of a transformers configuration; ValueError if it has none."""
    return _measure(type(config), config.to_json_string(use_diff=False))


@lru_cache(maxsize=32)
def _measure(config_class, text: str) -> Architecture:
    import torch
    from transformers import AutoModelForCausalLM

    config = config_class.from_dict(json.loads(text))
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except ValueError as error:
        raise ValueError(
            f"{config_class.__name__} has no causal language model in transformers; give the configuration of one"
        ) from error
    full_config, config = config, config.get_text_config()
    decoder = model if config is full_config else model.get_decoder()  # text does not pass through an image encoder
    experts, active = _count_experts(config)
    head = model.get_output_embeddings()
    weights, not_covered = {"attention": 0.0, "mlp": 0.0}, []
    matrices = head.weight.numel() if head is not None else 0
    for path, module in decoder.named_modules():
        if module is head or isinstance(module, torch.nn.Embedding):
            continue
        parts = path.lower().split(".")
        part = "attention" if any("attn" in p or "attention" in p for p in parts) else "mlp"
        product = isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim < 2 or name.endswith("bias"):
                continue
            stacked = experts and parameter.shape[0] == experts
            if stacked and parameter.ndim == 3:
                weights[part] += parameter.numel() * active / experts
            elif product or (stacked and parameter.ndim == 2):  # a router is a plain parameter
                share = active / experts if experts and "experts" in parts else 1.0
                weights[part] += parameter.numel() * share
            else:
                not_covered.append(f"{type(module).__name__}.{name}")
                continue
            matrices += parameter.numel()
    widths, windows, other_layers = _measure_attention(config)
    mlp_width = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    layers = max(1, len(widths))
    return Architecture(
        parameters=sum(p.numel() for p in model.parameters()),
        hidden=config.hidden_size,
        vocabulary=config.vocab_size,
        attention_weights=weights["attention"],
        mlp_weights=weights["mlp"],
        head_weights=head.weight.numel() if head is not None else 0,
        matrices=matrices,
        gated=bool(experts) or weights["mlp"] / layers > 2.5 * config.hidden_size * mlp_width,
        widths=widths,
        windows=windows,
        unit=_largest_unit(model),
        not_covered=tuple(dict.fromkeys(not_covered)) + other_layers,
    )


def _count_experts(config) -> tuple[int, int]:
    """Experts per layer, and those that a token activates; (0, 0) for a dense model."""
    for name in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"):
        if count := getattr(config, name, None):
            for chosen in ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"):
                if active := getattr(config, chosen, None):
                    return int(count), int(active)
    return 0, 0


def _measure_attention(config) -> tuple[tuple[float, ...], tuple[int | None, ...], tuple[str, ...]]:
    """Attention width and window per layer, and descriptions of the layers that are not softmax attention."""
    layers = config.num_hidden_layers
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        return (0.0,) * layers, (None,) * layers, ("layers without attention heads",)
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    if getattr(config, "qk_nope_head_dim", None):  # latent attention: keys and values differ in size
        size = (config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim) / 2
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        window_used = window if getattr(config, "use_sliding_window", True) else None
        return (heads * float(size),) * layers, (window_used,) * layers, ()
    soft = {"full_attention", "sliding_attention", "chunked_attention", "attention"}
    widths = tuple(heads * float(size) if kind in soft else 0.0 for kind in kinds)
    windows = tuple(window if kind == "sliding_attention" else None for kind in kinds)
    return (widths, windows, tuple(f"state of {kind} layers" for kind in dict.fromkeys(kinds) if kind not in soft))


def _largest_unit(model) -> int:
    """Parameters of the largest layer, or of everything outside the layers (embeddings, head) if that is more."""
    from torch.nn import ModuleList

    stacks = [m for m in model.modules() if isinstance(m, ModuleList) and len(m)]
    if not stacks:
        return sum(p.numel() for p in model.parameters())
    stack = max(stacks, key=lambda s: sum(p.numel() for p in s.parameters()))
    layers = [sum(p.numel() for p in layer.parameters()) for layer in stack]
    return max(*layers, sum(p.numel() for p in model.parameters()) - sum(layers))
