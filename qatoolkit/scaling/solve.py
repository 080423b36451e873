"""Least squares for many small problems at once: every start and every bootstrap draw of a fit in one batch.

`scipy.optimize.least_squares` solves one at a time: 1,000 draws of one cell's fit take it 3 s, which 90 cells make
minutes; a batch is 50 times as fast, and finds the same (`benchmarks/scaling_fits.py`)."""

from collections.abc import Callable

import numpy as np

MOST_STEPS = 2000  # of stragglers: problems that have settled leave the batch
STEP = 1e-5  # of the central differences
SETTLED = 1e-9  # relative change of the cost, three accepted steps in a row


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
    (b, p). Returns theta (b, p), the cost (b,) and whether each problem settled (b,)."""
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
    given = [
        np.broadcast_to(np.asarray(a, float), (b, k))
        for a, k in ((y, n), (sigma, n), (weights, n), (prior, p), (spread, p))
    ]
    left, lowest, settled = np.arange(b), np.empty(b), np.zeros(b, dtype=bool)  # the problems that are still on
    theta, (y, sigma, weights, prior, spread) = best, given
    r = residuals(theta, y, sigma)
    cost, calm, damping = costs(r, theta, weights, prior, spread), np.zeros(b, dtype=int), np.full(b, 1e-3)
    for _ in range(MOST_STEPS):
        around = value((theta + steps[:, None]).reshape(-1, p)).reshape(2, p, *r.shape)
        slopes = np.moveaxis((around[0] - around[1]) / (2 * STEP * sigma), 0, 2)
        w = weights * np.minimum(1.0, delta / np.maximum(np.abs(r), 1e-300))
        gradient = np.einsum("bnp,bn->bp", slopes, w * r) + (theta - prior) / np.square(spread)
        curved = np.einsum("bnp,bn,bnq->bpq", slopes, w, slopes) + np.eye(p) / np.square(spread)[:, :, None]
        scale = np.maximum(np.einsum("bpp->bp", curved), 1e-12)
        step = np.linalg.solve(curved + np.eye(p) * (damping[:, None] * scale)[:, :, None], gradient[..., None])[..., 0]
        there = residuals(theta - step, y, sigma)
        reached = costs(there, theta - step, weights, prior, spread)
        better = reached < cost
        still = ~better | (cost - reached <= SETTLED * np.maximum(np.abs(cost), 1e-300))
        theta, r = np.where(better[:, None], theta - step, theta), np.where(better[:, None], there, r)
        # a step that is refused at heavy damping has nowhere left to go
        calm = np.where(better & ~still, 0, calm + (still & (better | (damping > 1e6))))
        cost = np.where(better, reached, cost)
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-9, 1e9)
        best[left], lowest[left], settled[left] = theta, cost, calm >= 3
        on = calm < 3
        if not on.any():
            break
        left, theta, r, cost, calm, damping = (a[on] for a in (left, theta, r, cost, calm, damping))
        y, sigma, weights, prior, spread = (a[on] for a in (y, sigma, weights, prior, spread))
    return best, lowest, settled
