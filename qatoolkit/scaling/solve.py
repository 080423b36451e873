"""Least squares for many small problems at once: all starts and all bootstrap draws of a fit in one batch.

`scipy.optimize.least_squares` solves one problem at a time: 3 s for 1,000 draws of one cell's fit, minutes for 90
cells. A batch is 50 times as fast, with the same results (`benchmarks/scaling_fits.py`)."""

from collections.abc import Callable

import numpy as np

MOST_STEPS = 2000  # for the slowest problems; converged ones leave the batch
STEP = 1e-5  # for central differences
SETTLED = 1e-9  # relative change of the cost below which, three steps in a row, a problem has converged


def least_squares(
    value: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    y: np.ndarray,
    *,
    sigma: np.ndarray | float = 1.0,
    delta: float = np.inf,
    weights: np.ndarray | float = 1.0,
    prior: np.ndarray | float = 0.0,
    spread: np.ndarray | float = np.inf,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minimise, for each of b problems, the Huber loss of (value - y) / sigma, quadratic up to `delta`, plus half the
    square of (theta - prior) / spread. Levenberg-Marquardt; Huber by reweighting.

    `value` maps theta (b, p) to (b, n); `start` (b, p); y, sigma, weights broadcast to (b, n), prior and spread to
    (b, p). Returns theta (b, p), the cost (b,) and whether each problem converged (b,)."""
    best = np.array(start, dtype=float)
    b, p = best.shape
    steps = STEP * np.vstack([np.eye(p), -np.eye(p)])

    def residuals(theta, y, sigma):
        return (value(theta) - y) / sigma

    def costs(r, theta, weights, prior, spread):
        size = np.abs(r)
        huber = (
            np.where(size <= delta, r * r / 2, delta * size - delta * delta / 2) if np.isfinite(delta) else r * r / 2
        )
        return (weights * huber).sum(1) + (np.square((theta - prior) / spread) / 2).sum(1)

    n = residuals(best, y, sigma).shape[1]
    broadcast = [
        np.broadcast_to(np.asarray(a, float), (b, k))
        for a, k in ((y, n), (sigma, n), (weights, n), (prior, p), (spread, p))
    ]
    active, lowest, settled = np.arange(b), np.empty(b), np.zeros(b, dtype=bool)  # `active`: not yet converged
    theta, (y, sigma, weights, prior, spread) = best, broadcast
    r = residuals(theta, y, sigma)
    cost, small_steps, damping = costs(r, theta, weights, prior, spread), np.zeros(b, dtype=int), np.full(b, 1e-3)
    for _ in range(MOST_STEPS):
        around = value((theta + steps[:, None]).reshape(-1, p)).reshape(2, p, *r.shape)
        slopes = np.moveaxis((around[0] - around[1]) / (2 * STEP * sigma), 0, 2)
        w = weights * np.minimum(1.0, delta / np.maximum(np.abs(r), 1e-300))
        gradient = np.einsum("bnp,bn->bp", slopes, w * r) + (theta - prior) / np.square(spread)
        hessian = np.einsum("bnp,bn,bnq->bpq", slopes, w, slopes) + np.eye(p) / np.square(spread)[:, :, None]
        scale = np.maximum(np.einsum("bpp->bp", hessian), 1e-12)
        step = np.linalg.solve(hessian + np.eye(p) * (damping[:, None] * scale)[:, :, None], gradient[..., None])[
            ..., 0
        ]
        new_residuals = residuals(theta - step, y, sigma)
        new_cost = costs(new_residuals, theta - step, weights, prior, spread)
        better = new_cost < cost
        still = ~better | (cost - new_cost <= SETTLED * np.maximum(np.abs(cost), 1e-300))
        theta, r = np.where(better[:, None], theta - step, theta), np.where(better[:, None], new_residuals, r)
        # a step rejected at heavy damping counts as small: there is no better point nearby
        small_steps = np.where(better & ~still, 0, small_steps + (still & (better | (damping > 1e6))))
        cost = np.where(better, new_cost, cost)
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-9, 1e9)
        best[active], lowest[active], settled[active] = theta, cost, small_steps >= 3
        go_on = small_steps < 3
        if not go_on.any():
            break
        active, theta, r, cost, small_steps, damping = (
            a[go_on] for a in (active, theta, r, cost, small_steps, damping)
        )
        y, sigma, weights, prior, spread = (a[go_on] for a in (y, sigma, weights, prior, spread))
    return best, lowest, settled
