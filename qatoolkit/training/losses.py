"""Cross-entropy from hidden states, without all logits in memory at once.

The logits of a chunk of tokens are computed, turned into gradients and dropped before the next chunk. A model whose
logits are not just `hidden @ weight.T` (scaled or capped ones) is detected and its own logits are used. torch's
`linear_cross_entropy` has no z-loss, is slower in chunks and rounds differently (docs/LOG.md).
"""

import torch
from torch.nn.functional import cross_entropy

from qatoolkit.training.attention import PACKED

CHUNK_ON_CPU, CHUNK_ON_GPU = 1 << 21, 1 << 28  # logits at once: about a CPU's cache; 1 GiB


class _FusedCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies plus `z_loss` times log Z squared; gradients are computed in the forward pass."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, z_loss, chunk):
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        with torch.autocast(device, enabled=False):
            matrix = weight.to(dtype)
            for a in range(0, len(targets), chunk):
                states, labels = hidden[a : a + chunk].to(dtype), targets[a : a + chunk, None]
                logits = (states @ matrix.t()).float()
                if bias is not None:
                    logits += bias
                highest = logits.amax(-1, keepdim=True)
                label_logits = logits.gather(1, labels)
                # in place: another array of [chunk, vocabulary] would not fit the cache
                grad_logits = logits.sub_(highest).exp_()
                mass = grad_logits.sum(-1, keepdim=True)
                log_z = mass.log() + highest
                total += (log_z - label_logits).sum() + z_loss * log_z.square().sum()
                grad_logits.mul_((1 + 2 * z_loss * log_z) / mass)
                grad_logits.scatter_add_(1, labels, grad_logits.new_full((len(labels), 1), -1.0))
                if bias is not None:
                    grad_bias += grad_logits.sum(0)
                grad_logits = grad_logits.to(dtype)
                grad_hidden[a : a + chunk] = grad_logits @ matrix
                if dtype == torch.float32:
                    grad_weight.addmm_(grad_logits.t(), states)
                else:
                    grad_weight += grad_logits.t() @ states
        # plain attributes: final values, which autograd need not track
        ctx.gradients = [grad_hidden, grad_weight, grad_bias]
        ctx.weight_dtype, ctx.bias_dtype = weight.dtype, None if bias is None else bias.dtype
        return total

    @staticmethod
    def backward(ctx, scale):
        grad_hidden, grad_weight, grad_bias = ctx.gradients
        ctx.gradients = None
        bias = None if grad_bias is None else (grad_bias * scale).to(ctx.bias_dtype)
        weight = grad_weight.mul_(scale).to(ctx.weight_dtype)  # in place: it is as large as the output matrix
        return grad_hidden.mul_(scale.to(grad_hidden.dtype)), weight, bias, None, None, None


def chunk_of(vocabulary: int, on_cpu: bool) -> int:
    """Tokens per chunk of the fused loss."""
    return max(128, (CHUNK_ON_CPU if on_cpu else CHUNK_ON_GPU) // vocabulary)


def fused_cross_entropy(hidden, weight, targets, *, bias=None, z_loss: float = 0.0, chunk: int | None = None):
    """Sum over tokens of cross-entropy in nats, plus `z_loss` times the square of log Z, the log of the softmax's sum.

    hidden: [tokens, width] states that predict `targets` [tokens] through `weight` [vocabulary, width] and `bias`.
    Under autocast, products run in its dtype; sums are float32. chunk: tokens at once, by default `chunk_of`."""
    chunk = chunk or chunk_of(len(weight), hidden.device.type == "cpu")
    return _FusedCrossEntropy.apply(hidden, weight, bias, targets, z_loss, chunk)


def plain_cross_entropy(logits, targets, *, z_loss: float = 0.0):
    """The same sum from logits [tokens, vocabulary]."""
    logits = logits.float()
    total = cross_entropy(logits, targets, reduction="sum")
    return total + z_loss * logits.logsumexp(-1).square().sum() if z_loss else total


SHORTCUTS = ("fused_loss", "packed_attention")


class Scored(torch.nn.Module):
    """A causal model with its loss, sharded as one module so that the loss has the whole output matrix.

    `fused_loss` and `packed_attention` are shortcuts that can be switched on and off; the latter replaces the model's
    attention."""

    def __init__(self, model, *, fused_loss: bool = True, packed_attention: bool = False, z_loss: float = 0.0):
        super().__init__()
        self.model, self.z_loss, self.own_attention = model, z_loss, model.config._attn_implementation
        self.fused_loss, self.packed_attention = fused_loss, packed_attention

    @property
    def packed_attention(self) -> bool:
        return self.model.config._attn_implementation == PACKED

    @packed_attention.setter
    def packed_attention(self, on: bool) -> None:
        if on != self.packed_attention:
            self.model.set_attn_implementation(PACKED if on else self.own_attention)

    def forward(self, ids, positions, where, targets=None, documents=None):
        """Summed loss at the flat indices `where`, or the logits there [indices, vocabulary] without `targets`. `ids`
        and `positions` are [blocks, block]; `documents` is for packed attention.

        No attention mask is passed: from `position_ids` alone transformers separates packed documents, and an all-ones
        mask would silently switch that off."""
        inputs = {"input_ids": ids, "position_ids": positions, "use_cache": False}
        if self.packed_attention:
            inputs["documents"] = documents
        if not self.fused_loss:
            logits = self.model(**inputs).logits.flatten(0, 1)[where]
            return logits if targets is None else plain_cross_entropy(logits, targets, z_loss=self.z_loss)
        states = self.model.base_model(**inputs).last_hidden_state.flatten(0, 1)[where]
        head = self.model.get_output_embeddings()
        if targets is None:
            return head(states)
        return fused_cross_entropy(states, head.weight, targets, bias=getattr(head, "bias", None), z_loss=self.z_loss)


def shortcuts_that_fit(scored: Scored, ids, positions, documents, alone) -> dict[str, bool]:
    """Whether packed documents are read independently of each other (`apart`, with transformers' attention), and for
    each shortcut that is on, whether it gives the same logits.

    `ids` and `positions` are one packed block [1, tokens] with its `documents`; `alone` is (begin, end) of one
    document, whose logits are compared with those of the document alone. The module is left unchanged. `apart` is
    False, for instance, if positions do not come from position ids. ValueError for logits that are not finite."""
    before, training = {name: getattr(scored, name) for name in SHORTCUTS}, scored.training
    first, last = alone
    place = torch.arange(first, last, device=ids.device)
    coarse = torch.is_autocast_enabled(ids.device.type) or scored.model.dtype != torch.float32

    def logits(only: str | None, *inputs):
        for name in SHORTCUTS:
            setattr(scored, name, name == only)
        return scored(*inputs).float()

    def fits(name: str) -> bool:
        try:
            return same(logits(name, ids, positions, place, None, documents))
        except (AttributeError, KeyError, TypeError, ValueError):  # the model does not support the shortcut
            return False

    def same(found) -> bool:
        return bool((found - exact).abs().max() <= (0.1 if coarse else 1e-3) * exact.std())

    scored.eval()
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        exact = logits(None, ids[:, first:last], positions[:, first:last], place - first)
        if not exact.isfinite().all():
            raise ValueError("the model's first logits are not finite: its weights are damaged")
        found = {"apart": same(logits(None, ids, positions, place))}
        if before["packed_attention"]:
            found["packed_attention"] = fits("packed_attention")
        if before["fused_loss"]:
            exact = logits(None, ids, positions, place)
            found["fused_loss"] = not changes_logits(scored.model.config) and fits("fused_loss")
    for name, on in before.items():
        setattr(scored, name, on)
    scored.train(training)
    return found


def changes_logits(config) -> bool:
    """Whether the configuration caps or scales logits; with random weights a comparison would hardly show it."""
    config = config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    return bool(cap) or any(getattr(config, name, 1) not in (None, 1) for name in ("logit_scale", "logits_scaling"))
