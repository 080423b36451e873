"""Least squares for many small problems at once: every start and every bootstrap draw of a fit in one batch.

`scipy.optimize.least_squares` solves one at a time: 1,000 draws of one cell's fit take it 3 s, which 90 cells make
minutes; a batch is about 50 times as fast, and finds the same (`benchmarks/scaling_fits.py`)."""

from collections.abc import Callable

import numpy as np

MOST_STEPS = 300
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
    theta = np.array(start, dtype=float)
    b, p = theta.shape
    steps, damping = 1e-5 * np.eye(p), np.full(b, 1e-3)

    def residuals(theta):
        return (value(theta) - y) / sigma

    def costs(r, theta):
        size = np.abs(r)
        huber = (
            np.where(size <= delta, r * r / 2, delta * size - delta * delta / 2) if np.isfinite(delta) else r * r / 2
        )
        return (weights * huber).sum(1) + (np.square((theta - prior) / spread) / 2).sum(1)

    r = residuals(theta)
    cost, calm = costs(r, theta), np.zeros(b, dtype=int)
    for _ in range(MOST_STEPS):
        if (calm >= 3).all():
            break
        slopes = np.stack([(residuals(theta + s) - residuals(theta - s)) / (2 * s.sum()) for s in steps], axis=2)
        w = weights * np.minimum(1.0, delta / np.maximum(np.abs(r), 1e-300))
        pull = np.broadcast_to((theta - prior) / np.square(spread), (b, p))
        gradient = np.einsum("bnp,bn->bp", slopes, w * r) + pull
        curved = np.einsum("bnp,bn,bnq->bpq", slopes, np.broadcast_to(w, r.shape), slopes)
        curved += np.eye(p) / np.square(np.broadcast_to(spread, (b, p)))[:, :, None]
        scale = np.maximum(np.einsum("bpp->bp", curved), 1e-12)
        step = np.linalg.solve(curved + np.eye(p) * (damping[:, None] * scale)[:, :, None], gradient[..., None])[..., 0]
        tried = theta - step
        there = residuals(tried)
        reached = costs(there, tried)
        better = reached < cost
        still = ~better | (cost - reached <= SETTLED * np.maximum(np.abs(cost), 1e-300))
        theta, r = np.where(better[:, None], tried, theta), np.where(better[:, None], there, r)
        # a step that is refused at heavy damping has nowhere left to go
        calm = np.where(better & ~still, 0, calm + (still & (better | (damping > 1e6))))
        cost = np.where(better, reached, cost)
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-9, 1e9)
    return theta, cost, calm >= 3
