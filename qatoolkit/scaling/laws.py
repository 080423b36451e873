"""Scaling laws: how loss and accuracy depend on parameters, tokens and compute.

Loss is the irreducible loss plus one falling power of each axis (Chinchilla, arXiv 2203.15556). Accuracy is a sigmoid
of such a sum, between a floor and 1: loss first, then accuracy (the two steps of arXiv 2412.04403), where the loss may
be measured or latent. All of this is our reading: the papers of this project state no law."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

USUAL = np.log(
    0.35
)  # log exponent of loss in parameters and tokens; both analyses of Chinchilla's runs have 0.28 to 0.37


@dataclass(frozen=True, kw_only=True)
class Law:
    """A law with p parameters over some axes, each in units of its centre (the geometric mean of the points).

    `value(theta, z)`: from theta (b, p) and z (n, axes), the natural logarithms of x / centre, to values (b, n).
    `reported(theta, centre)`: the parameters in the usual notation, in the order of `names`. `prior` and `spread` (p,)
    constrain the parameters if there are few points; spread is infinite without a prior. `at_level`: the theta (b, p)
    of constant accuracies (b,)."""

    formula: str
    names: tuple[str, ...]
    value: Callable[[np.ndarray, np.ndarray], np.ndarray]
    reported: Callable[[np.ndarray, np.ndarray], np.ndarray]
    prior: np.ndarray
    spread: np.ndarray
    start_spread: np.ndarray  # standard deviation of the starts around `prior`
    at_level: Callable[[np.ndarray], np.ndarray] | None = None


def _sum_of_powers(theta: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The sum over axes of exp(log A - alpha z); theta has (log A, log alpha) for each axis."""
    total = 0.0
    for axis in range(z.shape[1]):
        log_a, log_alpha = theta[:, 2 * axis : 2 * axis + 1], theta[:, 2 * axis + 1 : 2 * axis + 2]
        total = total + np.exp(np.clip(log_a - np.exp(np.clip(log_alpha, -20, 5)) * z[:, axis], -50, 50))
    return total


def _coefficients(theta: np.ndarray, centre: np.ndarray) -> list[np.ndarray]:
    """A and alpha of each axis, with A for x in its original unit."""
    coefficients = []
    for axis, middle in enumerate(centre):
        alpha = np.exp(theta[:, 2 * axis + 1])
        coefficients += [np.exp(theta[:, 2 * axis] + alpha * np.log(middle)), alpha]
    return coefficients


def _names(axes: tuple[str, ...]) -> tuple[str, ...]:
    letters = {"parameters": ("A", "alpha"), "tokens": ("B", "beta")}
    return tuple(name for axis in axes for name in letters.get(axis, ("C", "gamma")))


def _powers(axes: tuple[str, ...]) -> str:
    names = _names(axes)
    return " + ".join(f"{a} / {axis}^{b}" for axis, a, b in zip(axes, names[::2], names[1::2], strict=True))


def power_law(axes: tuple[str, ...], level: float) -> Law:
    """The law of log L, L = E + sum over axes of A / x^alpha; `level` is the lowest observed loss, around which starts
    are drawn. Priors, for few points: alpha 0.35 within a factor of 1.6, log A and log E around the level, ± 1.5 and ±
    1."""
    k = 2 * len(axes)
    prior = np.array([np.log(level) - 1, USUAL] * len(axes) + [np.log(level) - 0.3])
    return Law(
        formula=f"E + {_powers(axes)}",
        names=(*_names(axes), "E"),
        value=lambda theta, z: np.log(np.exp(np.clip(theta[:, k:], -50, 50)) + _sum_of_powers(theta, z)),
        reported=lambda theta, centre: np.stack([*_coefficients(theta, centre), np.exp(theta[:, k])], axis=1),
        prior=prior,
        spread=np.array([1.5, 0.5] * len(axes) + [1.0]),
        start_spread=np.array([1.0, 0.5] * len(axes) + [0.5]),
    )


def sigmoid_law(axes: tuple[str, ...], chance: float, below: bool) -> Law:
    """Accuracy = floor + (1 - floor) s(c - sum over axes of A / x^alpha), s the logistic function.

    The sum is a latent loss; at zero loss accuracy reaches the ceiling, floor + (1 - floor) s(c). The floor is
    `chance`; if accuracies are `below` it, as the length or frequency of choices can cause, a share of chance is fitted
    as the floor. Priors: alpha 0.35 within a factor of 1.6, log A 0 ± 1.5, c 2 ± 1.5."""
    k = 2 * len(axes)
    prior = np.array([0.0, USUAL] * len(axes) + [2.0] + [2.0] * below)
    spread = np.array([1.5, 0.5] * len(axes) + [1.5] + [1.5] * below)

    def floor(theta):
        return chance * logistic(theta[:, k + 1 :]) if below else np.full((len(theta), 1), chance)

    def value(theta, z):
        low = floor(theta)
        return low + (1 - low) * logistic(theta[:, k : k + 1] - _sum_of_powers(theta, z))

    def reported(theta, centre):
        low = floor(theta)[:, 0]
        ceiling = low + (1 - low) * logistic(theta[:, k])
        return np.stack([*_coefficients(theta, centre), ceiling, low], axis=1)

    def at_level(levels):
        head = np.tile([NOTHING, 0.0] * len(axes), (len(levels), 1))
        return np.column_stack([head, *_level(levels, chance, below)])

    return Law(
        formula=f"floor + (1 - floor) s(c - {_powers(axes).replace(' + ', ' - ')})",
        names=(*_names(axes), "ceiling", "floor"),
        at_level=at_level,
        value=value, reported=reported, prior=prior, spread=spread, start_spread=spread,
    )  # fmt: skip


def sigmoid_of_loss(chance: float, below: bool) -> Law:
    """Accuracy = floor + (1 - floor) s(c - k loss), for a measured loss such as bits per byte; floor as in
    `sigmoid_law`. Priors: log k (per loss at the centre) 1 ± 1, c 3 ± 3."""
    prior, spread = np.array([1.0, 3.0] + [2.0] * below), np.array([1.0, 3.0] + [1.5] * below)

    def floor(theta):
        return chance * logistic(theta[:, 2:]) if below else np.full((len(theta), 1), chance)

    def value(theta, z):
        low, loss = floor(theta), np.exp(np.clip(theta[:, :1] + z[:, 0], -50, 50))
        return low + (1 - low) * logistic(theta[:, 1:2] - loss)

    def reported(theta, centre):
        return np.stack([np.exp(theta[:, 0]) / centre[0], theta[:, 1], floor(theta)[:, 0]], axis=1)

    def at_level(levels):
        return np.column_stack([np.full(len(levels), NOTHING), *_level(levels, chance, below)])

    return Law(
        formula="floor + (1 - floor) s(c - k loss)",
        at_level=at_level,
        names=("k", "c", "floor"),
        value=value, reported=reported, prior=prior, spread=spread, start_spread=spread,
    )  # fmt: skip


def line(axes: tuple[str, ...], *, low: float = 0.0, loss: bool = False) -> Law:
    """A line in the logarithm of each axis, for log loss or for accuracy between `low` and 1, used if there are too few
    points for a law."""
    k = len(axes)

    def value(theta, z):
        values = theta[:, :1] + theta[:, 1:] @ z.T
        return values if loss else np.clip(values, low, 1.0)

    def reported(theta, centre):
        at_one = theta[:, 0] - theta[:, 1:] @ np.log(centre)
        return np.column_stack([theta[:, 1:] * (1 if loss else np.log(10)), at_one])

    slope = "exponent of" if loss else "per decade of"
    return Law(
        at_level=lambda levels: np.column_stack([levels, np.zeros((len(levels), k))]),
        formula=f"a line in log {' and log '.join(axes)}",
        names=(*(f"{slope} {axis}" for axis in axes), "at 1"),
        value=value, reported=reported,
        prior=np.array([0.0 if loss else 0.5] + [0.0] * k), spread=np.full(k + 1, np.inf), start_spread=np.full(k + 1, 0.1),
    )  # fmt: skip


NOTHING = -60.0  # the logarithm of a negligible coefficient


def _level(levels: np.ndarray, chance: float, below: bool) -> list[np.ndarray]:
    """c, and the parameter of the floor if it is fitted, for constant accuracies above or below chance."""
    low = np.minimum(levels, chance)
    c = _logit((levels - low) / (1 - low))
    return [c, _logit(low / chance)] if below else [c]


def _logit(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 1e-9, 1 - 1e-9)
    return np.log(share / (1 - share))


def logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), for any x."""
    return 0.5 * (1 + np.tanh(x / 2))
