"""Attention within packed documents, without a block x block mask and without computing across documents.

transformers separates packed documents by a mask, so a block of 50 short documents costs as much as one long text. Here
each document attends only to itself: on a GPU by torch's variable-length flash attention, on a CPU in groups of similar
length. Models with anything but causal softmax attention (windows, capped scores, sinks), or with values narrower than
queries, are refused and use transformers' attention.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None

PACKED = "packed"  # the name as an `attn_implementation` of transformers
_WASTE = 1.1  # maximum ratio of padded to real tokens in a group


@dataclass(frozen=True)
class Documents:
    """The documents of a batch of blocks, as indices into its flattened tokens.

    GPU: `bounds` [documents + 1] int32, where each begins, and `longest`, the length of a block. CPU: `groups` of
    (documents, width, indices [documents * width] of the tokens gathered), and `back` [tokens], each token's index in
    the concatenated outputs of the groups."""

    bounds: object = None
    longest: int = 0
    groups: tuple = ()
    back: object = None


def documents_of(positions: np.ndarray, device: str) -> Documents:
    """The documents of blocks, from their positions [blocks, block], which restart at 0 with each document."""
    flat = positions.ravel()
    starts = np.flatnonzero(flat == 0)
    if device != "cpu":
        bounds = torch.from_numpy(np.append(starts, len(flat)).astype(np.int32))
        return Documents(bounds=bounds.pin_memory().to(device, non_blocking=True), longest=positions.shape[1])
    lengths = np.diff(np.append(starts, len(flat)))
    order = np.argsort(lengths, kind="stable")
    groups, back, done = [], np.empty(len(flat), dtype=np.int64), 0
    for ranks in _similar_lengths(lengths[order]):
        members = order[ranks]
        steps = np.arange(lengths[members].max())
        real = steps < lengths[members, None]
        gathered = np.where(real, starts[members, None] + steps, starts[members, None])
        groups.append((len(members), len(steps), torch.from_numpy(gathered.ravel())))
        back[gathered[real]] = done + np.flatnonzero(real)
        done += gathered.size
    return Documents(groups=tuple(groups), back=torch.from_numpy(back))


def _similar_lengths(lengths: np.ndarray):
    """Slices of ascending lengths that can share one width with little padding."""
    first, total = 0, 0
    for i, length in enumerate(lengths.tolist()):
        if i > first and length * (i + 1 - first) > _WASTE * (total + length) + 64:
            yield slice(first, i)
            first, total = i, 0
        total += length
    yield slice(first, len(lengths))


def attend(module, query, key, value, attention_mask, *, documents=None, scaling=None, dropout=0.0, **others):
    """transformers' attention interface: query [blocks, heads, tokens, width], key and value with as many heads or
    fewer; returns ([blocks, tokens, heads, width], None). ValueError for anything but causal softmax attention."""
    if documents is None or attention_mask is not None:
        raise ValueError("packed attention needs `documents` and no mask")
    unsupported = [n for n in ("sliding_window", "softcap", "s_aux", "position_bias") if others.get(n) is not None]
    if unsupported or not getattr(module, "is_causal", True):
        raise ValueError(
            f"packed attention is causal softmax only, without {', '.join(unsupported) or 'a bidirectional form'}; set "
            "attention to sdpa"
        )
    if value.shape[-1] != query.shape[-1]:
        raise ValueError("packed attention needs values as wide as queries")
    blocks, heads, tokens, width = query.shape
    grouped = key.shape[1] != heads  # grouped-query attention

    def flat(x):
        return x.transpose(1, 2).reshape(blocks * tokens, -1)

    if documents.bounds is not None:
        # autocast does not cast the inputs of a custom op, and rotary embeddings are computed in float32
        kind = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else value.dtype
        if dropout or varlen_attn is None or kind == torch.float32:
            raise ValueError(
                "packed attention on a GPU needs torch 2.10, bfloat16 and no dropout; set attention to sdpa"
            )
        q, k, v = (flat(x).view(blocks * tokens, -1, width).to(kind) for x in (query, key, value))
        bounds, longest = documents.bounds, documents.longest
        out = varlen_attn(
            q, k, v, bounds, bounds, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=grouped
        )
        return out.view(blocks, tokens, heads, width), None
    out = _attend_groups(documents, *(flat(x) for x in (query, key, value)), width, dropout, scaling, grouped)
    return out.view(blocks, tokens, heads, width), None


@torch.compiler.disable  # shapes change with every batch, so a compiled layer would be recompiled
def _attend_groups(documents: Documents, query, key, value, width: int, dropout: float, scaling, grouped: bool):
    """Attention over [tokens, heads * width], group by group."""
    outputs = []
    for count, length, gathered in documents.groups:
        parts = (
            x.index_select(0, gathered).view(count, length, -1, width).transpose(1, 2) for x in (query, key, value)
        )
        out = scaled_dot_product_attention(*parts, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped)
        outputs.append(out.transpose(1, 2).reshape(count * length, -1))
    return torch.cat(outputs).index_select(0, documents.back)


def register() -> None:
    """Register "packed" as an attention implementation of transformers that takes no mask."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(PACKED, attend)
    AttentionMaskInterface.register(PACKED, lambda *_, **__: None)
