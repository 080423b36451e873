"""Fits with bootstrap intervals: the batched solver of `qt.fit_scaling` against `scipy.optimize.least_squares`.

    python benchmarks/scaling_fits.py [--quick]

scipy solves one problem at a time. Both minimise the same losses from the same starts: a loss law E + A / N^alpha + B /
D^beta on 196 runs (Huber, delta 1e-3, of log loss, bootstrap weights), and a sigmoid of size on five accuracies with
priors, as on an axis of a run. They must find the same parameters.
"""

import argparse
import json
import statistics
import time

import numpy as np
import scipy.optimize

from qatoolkit.scaling.fits import HUBER
from qatoolkit.scaling.laws import power_law, sigmoid_law
from qatoolkit.scaling.solve import least_squares


def loss_problems(count: int, rng) -> tuple:
    """Law, points and problems: bootstrap samples of a noisy grid of 14 x 14 runs."""
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(2e7, 3e9, 14), np.geomspace(5e8, 1e11, 14)))
    loss = (1.8 + 480 / n**0.35 + 2000 / d**0.37) * np.exp(0.004 * rng.standard_normal(n.size))
    z = np.log(np.stack([n, d], axis=1))
    law = power_law(("parameters", "tokens"), loss.min())
    weights = rng.multinomial(n.size, np.full(n.size, 1 / n.size), count).astype(float)
    return law, z - z.mean(0), np.log(np.tile(loss, (count, 1))), np.ones(n.size), weights, HUBER["loss"]


def accuracy_problems(count: int, rng) -> tuple:
    """Law, points and problems: random accuracies of five sizes on 1,000 questions each."""
    z = np.log(np.geomspace(7e7, 1.4e9, 5))[:, None]
    z, law = z - z.mean(0), sigmoid_law(("parameters",), 0.25, False)
    true = law.value(np.array([[0.3, np.log(0.3), 1.2]]), z)
    return (
        law,
        z,
        rng.binomial(1000, np.tile(true, (count, 1))) / 1000,
        np.full(5, 0.015),
        np.ones((count, 5)),
        HUBER["accuracy"],
    )


def by_scipy(law, z, y, sigma, weight, delta, start) -> np.ndarray:
    """Solve one problem with the Huber loss as squared residuals, so that weights do not change its threshold."""
    free = np.isfinite(law.spread)

    def residuals(theta):
        size = np.abs((law.value(theta[None], z)[0] - y) / sigma)
        robust = np.sqrt(weight * np.where(size <= delta, size**2, 2 * delta * size - delta**2) / delta**2)
        return np.concatenate([robust, (theta - law.prior)[free] / law.spread[free] / delta])

    return scipy.optimize.least_squares(residuals, start, method="trf", max_nfev=400).x


def timed(make, count: int, rounds: int) -> tuple[float, float]:
    """How many times faster the batch is (median of rounds), and the agreement of the median fitted values (1:
    equal)."""
    rng = np.random.default_rng(0)
    law, z, y, sigma, weights, delta = make(count, rng)
    starts, seconds = law.prior + 0.2 * law.start_spread * rng.standard_normal((count, len(law.prior))), []
    for _ in range(rounds):
        begun = time.perf_counter()
        found = least_squares(
            lambda theta: law.value(theta, z), starts, y,
            sigma=sigma, delta=delta, weights=weights, prior=law.prior, spread=law.spread,
        )[0]  # fmt: skip
        middle = time.perf_counter()
        rows = zip(y, weights, starts, strict=True)
        other = np.stack([by_scipy(law, z, one, sigma, weight, delta, start) for one, weight, start in rows])
        seconds.append((middle - begun, time.perf_counter() - middle))
    ours, peer = map(statistics.median, zip(*seconds, strict=True))
    print(f"{make.__name__}: {count} in {ours:.2f} s as a batch, in {peer:.2f} s by scipy")
    off = np.abs(np.median(law.value(found, z) - law.value(other, z), axis=0)).max()
    return peer / ours, 1 - float(off)


def main() -> None:
    """Print the ratios for both kinds of problem."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer problems")
    quick = parser.parse_args().quick
    loss, same_loss = timed(loss_problems, 60 if quick else 400, 2 if quick else 3)
    accuracy, same_accuracy = timed(accuracy_problems, 300 if quick else 1000, 2 if quick else 3)
    ratios = {"loss_vs_scipy": loss, "accuracy_vs_scipy": accuracy, "agreement": min(same_loss, same_accuracy)}
    print(json.dumps({"benchmark": "scaling_fits", "ratios": ratios, "quick": quick}))


if __name__ == "__main__":
    main()
