"""AdamW in 8 bytes a parameter: weights, gradients and both moments in bfloat16, rounded stochastically.

bfloat16 keeps 8 bits of mantissa, so rounding to the nearest loses every update below 2^-9 of a weight: at mid-training's
learning rates that is most of them, and training stalls. Rounding up or down with the probability that makes the result right
on average keeps them (Gupta et al., "Deep Learning with Limited Numerical Precision", 2015; for bfloat16 training Zamirai et
al., "Revisiting BFloat16 Training", 2020). The moments are rounded the same way: with a beta2 of 0.999 a second moment
rounded to the nearest would never fall.

The noise of an update is a function of seed, parameter and step alone. So resuming needs nothing beyond `state_dict`, a run
that was interrupted goes on bit for bit, replicas on several devices stay equal, and the order of updates does not matter.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch

CHUNK = 2**22  # elements updated at a time
SCRATCH = 42  # bytes that each of them takes for that long: float32 values and noise


class LowMemoryAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter, 2019) that stores what it keeps in the dtype of the parameter.

    bfloat16 parameters get bfloat16 moments and stochastic rounding; float32 parameters get float32 moments and are updated
    as by torch.optim.AdamW. `params` are parameters or groups, each with its own `weight_decay` and `lr` if it wants; `seed`
    belongs to the state and comes back with `load_state_dict`. Sharded parameters (DTensor) are updated shard by shard.
    Raises ValueError for settings out of range, TypeError for a parameter of another dtype."""

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
                f"lr is {lr}, betas {betas}, eps {eps}, weight_decay {weight_decay}, seed {seed}; lr, weight_decay and seed must "
                "be 0 or more, eps above 0, betas in [0, 1)"
            )
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "seed": seed})
        for p in self._places:
            if p.dtype not in (torch.bfloat16, torch.float32):
                raise TypeError(
                    f"a parameter of shape {tuple(p.shape)} is {p.dtype}; only bfloat16 and float32 can be trained here"
                )

    def add_param_group(self, param_group: dict) -> None:
        """As torch.optim.Optimizer, which also calls it when it starts."""
        super().add_param_group(param_group)
        self._note_places()

    def load_state_dict(self, state_dict: dict) -> None:
        """As torch.optim.Optimizer; the seed comes back with the rest."""
        super().load_state_dict(state_dict)
        self._note_places()  # groups are made anew

    def _note_places(self) -> None:
        """The number of each parameter, which its noise depends on, and its group, which a hook needs."""
        places = enumerate((p, g) for g in self.param_groups for p in g["params"])
        self._places = {p: (index, group) for index, (p, group) in places}

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        """One step of every parameter that has a gradient; returns the closure's loss if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for p in self._places:
            if p.grad is not None:
                self.update(p)
        return loss

    @torch.no_grad()
    def update(self, p: torch.Tensor) -> None:
        """One step of one parameter from its `.grad`, a chunk at a time, so that little float32 exists at once."""
        index, group = self._places[p]
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.int64)
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(p, memory_format=torch.contiguous_format)
        state["step"] += 1
        step = int(state["step"])
        noise = None
        if p.dtype is torch.bfloat16:
            noise = torch.Generator(p.device).manual_seed(_noise_seed(group["seed"], index, step))
        parts = [_local(t) for t in (p, p.grad, state["exp_avg"], state["exp_avg_sq"])]
        # what is written must be a view
        parts = [t.reshape(-1) if t is parts[1] else t.view(-1) for t in parts]
        for chunks in zip(*(t.split(CHUNK) for t in parts), strict=True):
            _update(*chunks, step, group, noise)


def round_stochastically(values: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """float32 `values` to bfloat16, up or down with the probabilities that keep the mean; values of bfloat16 stay as they are.

    `noise`: int32 of the same shape, uniform on 0 .. 65535. It is added to the 16 bits that bfloat16 lacks, which then are
    cut off: the carry is the rounding up, away from zero for either sign."""
    bits = values.contiguous().view(torch.int32)
    rounded = ((bits + noise) & -65536).view(torch.float32)
    # the carry would turn a NaN into a number
    return torch.where(values.isfinite(), rounded, values).to(torch.bfloat16)


def _update(weights, gradient, first, second, step: int, group: dict, noise: torch.Generator | None) -> None:
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
    low, high = bits & 0xFFFF, (bits >> 16) & 0xFFFF  # two independent draws out of one
    weights.copy_(round_stochastically(w, low))
    first.copy_(round_stochastically(m, high))  # the moments share theirs: each is still right on average
    second.copy_(round_stochastically(v, high))


def _noise_seed(seed: int, index: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, index, step)).generate_state(1, np.uint32)[0])


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """The shard that lies on this device, of a distributed tensor; others as they are."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
