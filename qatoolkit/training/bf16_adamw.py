"""AdamW in 8 bytes per parameter: weights, gradients and both moments in bfloat16, rounded stochastically.

bfloat16 has 8 bits of mantissa, so rounding to nearest loses every update below 2^-9 of a weight: at mid-training's
learning rates that is most of them, and training stalls. Stochastic rounding, up or down with probabilities that keep
the mean, preserves them on average (Gupta et al., "Deep Learning with Limited Numerical Precision", 2015; for bfloat16
training Zamirai et al., "Revisiting BFloat16 Training", 2020). The moments are rounded the same way: with a beta2 of
0.999 a second moment rounded to nearest would never decrease (in torchao's AdamW, which rounds only weights
stochastically, it does not).

The noise of an update depends only on seed, parameter and step. So states need no generator, an interrupted run resumes
bit for bit, replicas on several devices stay equal, and the order of updates does not matter.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch

CHUNK = 2**22  # elements updated at a time
SCRATCH = 42  # bytes of scratch memory per element of a chunk: float32 values and noise


class LowMemoryAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter, 2019) whose moments have the dtype of their parameter.

    bfloat16 parameters are rounded stochastically; float32 parameters are updated as by torch.optim.AdamW. `params` are
    parameters or groups, which may set their own `weight_decay` and `lr`; `seed` is part of `state_dict`. Sharded
    parameters (DTensor) are updated shard by shard. Raises ValueError for settings out of range, TypeError for a
    parameter of another dtype."""

    def __init__(
        self,
        params: Iterable,
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        seed: int = 0,
    ):
        if lr < 0 or eps <= 0 or weight_decay < 0 or not all(0 <= b < 1 for b in betas) or seed < 0:
            raise ValueError(
                f"lr is {lr}, betas {betas}, eps {eps}, weight_decay {weight_decay}, seed {seed}; lr, weight_decay and "
                "seed must be 0 or more, eps above 0, betas in [0, 1)"
            )
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "seed": seed})
        for p in (p for group in self.param_groups for p in group["params"]):
            if p.dtype not in (torch.bfloat16, torch.float32):
                raise TypeError(f"a parameter of shape {tuple(p.shape)} is {p.dtype}; it must be bfloat16 or float32")

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        parameters = ((p, group) for group in self.param_groups for p in group["params"])
        for index, (p, group) in enumerate(parameters):  # the index is part of the noise's seed
            if p.grad is not None:
                self._update(p, group, index)

    def _update(self, p: torch.Tensor, group: dict, index: int) -> None:
        """One step of one parameter, a chunk at a time to limit the float32 scratch memory."""
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.int64)
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(p, memory_format=torch.contiguous_format)
        state["step"] += 1
        step, noise = int(state["step"]), None
        if p.dtype is torch.bfloat16:
            entropy = np.random.SeedSequence((group["seed"], index, step))
            noise = torch.Generator(p.device).manual_seed(int(entropy.generate_state(1, np.uint32)[0]))
        weights, first, second = (_local(t).view(-1) for t in (p, state["exp_avg"], state["exp_avg_sq"]))
        parts = weights, _local(p.grad).reshape(-1), first, second
        for chunks in zip(*(t.split(CHUNK) for t in parts), strict=True):
            _update_chunk(*chunks, step, group, noise)


def round_stochastically(values: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Round float32 `values` to bfloat16, up or down with probabilities that keep the mean; exact values don't change.

    `noise`: int32 of the same shape, uniform on 0 .. 65535. It is added to the 16 bits that bfloat16 drops, which are
    then cut off: a carry rounds away from zero, for either sign."""
    bits = values.contiguous().view(torch.int32)
    rounded = ((bits + noise) & -65536).view(torch.float32)
    # a carry could turn a NaN into a number
    return torch.where(values.isfinite(), rounded, values).to(torch.bfloat16)


def _update_chunk(weights, gradient, first, second, step: int, group: dict, noise: torch.Generator | None) -> None:
    """AdamW on one chunk, computed in float32 and written back in place."""
    beta1, beta2 = group["betas"]
    g = gradient.float()
    m = first.float().lerp_(g, 1 - beta1)
    v = second.float().mul_(beta2).addcmul_(g, g, value=1 - beta2)
    scale = (v.sqrt() / math.sqrt(1 - beta2**step)).add_(group["eps"])
    w = weights.float().mul_(1 - group["lr"] * group["weight_decay"])
    w.addcdiv_(m, scale, value=-group["lr"] / (1 - beta1**step))
    if noise is None:
        for old, new in ((weights, w), (first, m), (second, v)):
            old.copy_(new)
        return
    bits = torch.empty(w.shape, dtype=torch.int32, device=w.device).random_(-(2**31), 2**31, generator=noise)
    low, high = bits & 0xFFFF, (bits >> 16) & 0xFFFF  # two independent draws from one
    weights.copy_(round_stochastically(w, low))
    first.copy_(round_stochastically(m, high))  # both moments use the same draw: each is still unbiased
    second.copy_(round_stochastically(v, high))


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This device's shard of a distributed tensor; other tensors unchanged."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
