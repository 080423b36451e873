"""Fits of scaling laws (`scaling.laws`) to measured points, with intervals that reflect what the points leave open.

A fit contains its points, residuals, bootstrap draws and parameters; it predicts with intervals and can be drawn. If
accuracy does not rise, no law is fitted."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from qatoolkit.core.display import Sections
from qatoolkit.core.display import table as shown
from qatoolkit.core.qa_table import require
from qatoolkit.scaling.laws import Law, line, power_law, sigmoid_law, sigmoid_of_loss
from qatoolkit.scaling.solve import least_squares

DRAWS, STARTS = 1000, 48
RUNS_APART = 0.01  # least spread of log loss between equal runs, assumed if there are few points (our reading)
HUBER = {"loss": 1e-3, "accuracy": 1.345}  # in log loss, as in Chinchilla; in standard errors, for 95% efficiency
LEAST = 3  # different x on an axis that a law needs; with fewer, a line in log x is fitted
SURE = 2.576  # standard errors (99%) for a rise, and for a difference from chance


@dataclass(frozen=True, kw_only=True, repr=False)
class Fit(Sections):
    """A law fitted to points. `points`: the data, with `fitted` and `residual`; `draws` (b, p): bootstrap draws of
    `theta` (p,), the law's internal parameters; `scatter`: the ratio of the points' deviations to their standard
    errors, at least 1, by which every interval is widened; `agreed`: the share of starts that reached the lowest cost;
    `flat`: accuracy does not rise along the axes by more than its noise, so its mean is fitted."""

    y: str
    by: tuple[str, ...]
    law: Law
    centre: np.ndarray
    theta: np.ndarray
    draws: np.ndarray
    points: pd.DataFrame
    scatter: float
    agreed: float
    flat: bool

    @property
    def says(self) -> str:
        """The formula of the law, or why none was fitted: "at chance" or "does not rise"."""
        if not self.flat:
            return self.law.formula
        above = (self.points[self.y] - self.points["chance"]) / self.points["se"] ** 2
        near = abs(above.sum()) < SURE * np.sqrt((self.points["se"] ** -2.0).sum()) * self.scatter
        return f"{'at chance' if near else 'does not rise'}, not fitted"

    @property
    def parameters(self) -> pd.DataFrame:
        """The law's parameters in the usual notation: name, value, low, high (95%)."""
        if self.flat:
            level = self.predict(pd.DataFrame([self.centre], columns=list(self.by)))
            return level.rename(columns={self.y: "value"}).assign(parameter=self.y)[
                ["parameter", "value", "low", "high"]
            ]
        low, high = np.quantile(self.law.reported(self.draws, self.centre), [0.025, 0.975], axis=0)
        value = self.law.reported(self.theta[None], self.centre)[0]
        return pd.DataFrame({"parameter": self.law.names, "value": value, "low": low, "high": high})

    def drawn(self, at: pd.DataFrame) -> np.ndarray:
        """The values of all draws (b, n) at the rows of `at`, which has the columns `by`."""
        return self._values(self.draws, at)

    def predict(self, at: pd.DataFrame, *, n: int | None = None, seed: int = 0) -> pd.DataFrame:
        """`at` with the predicted `y` and its 95% interval: of the law's value or, with `n`, of a new measurement with
        n questions (accuracy) or a new run (loss, for any n)."""
        drawn = self.drawn(at)
        if n is not None:
            drawn = self._add_noise(drawn, n, np.random.default_rng(seed))
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        return at.assign(**{self.y: self._values(self.theta[None], at)[0], "low": low, "high": high})

    def _values(self, theta: np.ndarray, at: pd.DataFrame) -> np.ndarray:
        require("at", at, *self.by)
        values = self.law.value(theta, np.log(at[list(self.by)].to_numpy(float) / self.centre))
        return np.exp(values) if is_loss(self.y) else values

    def _add_noise(self, drawn: np.ndarray, n: int, rng) -> np.ndarray:
        if is_loss(self.y):
            return drawn * np.exp(rng.choice(self.points["residual"], drawn.shape))
        share = np.clip(drawn, 0, 1)
        noise = self.scatter * np.sqrt(share * (1 - share) / n) * rng.standard_normal(share.shape)
        return np.clip(share + noise, 0, 1)

    def figure(self, **options):
        """The points, the law and its 95% band, against each axis."""
        from qatoolkit.figures import scaling_fit

        return scaling_fit(self, **options)

    def _sections(self):
        axes = " and ".join(name.replace("_", " ") for name in self.by)
        head = f"{self.y} against {axes}: {self.says}, {len(self.points)} points"
        if not self.flat:
            wide = f"; they scatter {self.scatter:.1f} times as far as their standard errors"
            head += f"{wide * (self.scatter > 1.05)}; {self.agreed:.0%} of the starts agree"
        yield head, shown(self.parameters)


def is_loss(y: str) -> bool:
    """Whether a column is a loss (smaller is better) and not an accuracy."""
    return y not in ("accuracy", "gain")


def fit_scaling(
    points: pd.DataFrame,
    y: str = "accuracy",
    by: str | tuple[str, ...] = ("parameters",),
    *,
    chance: float | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Fit:
    """Fit a law to one row per run: `accuracy` by a sigmoid between chance and 1, any other column, as a loss, by
    powers.

    `points`: the columns `by` (parameters, tokens, flops, ..., or `loss` for accuracy by loss), y, for accuracy also
    `n` (questions) or `se`, and `chance` unless it is given. Several rows at one x are training seeds: the variance
    between seeds is averaged over them, that of the questions, which they share, is not. Runs should have been trained
    to the end of their schedule: an intermediate checkpoint has a higher loss than a complete run of that length.

    With fewer than three x on an axis (accuracy), or too few points for the law's parameters (loss), a line in log x is
    fitted instead. ValueError for a point that can't be used.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> runs = pd.DataFrame({"parameters": [1e6, 4e6, 16e6, 64e6], "accuracy": [0.31, 0.42, 0.55, 0.64], "n": 2000})
    >>> fit = qt.fit_scaling(runs, chance=0.25)
    >>> bool(fit.predict(pd.DataFrame({"parameters": [256e6]}))["accuracy"].between(0.66, 0.74).all())
    True
    """
    by = (by,) if isinstance(by, str) else tuple(by)
    table, rng = prepare_points(points, y, by, chance), np.random.default_rng(seed)
    if len(table) < 2:
        raise ValueError(f"a fit needs two points or more, found {len(table)}")
    x = table[list(by)].to_numpy(float)
    centre = np.exp(np.log(x).mean(0))
    fields = (_fit_loss if is_loss(y) else _fit_accuracy)(table, y, by, np.log(x / centre), draws, rng)
    return Fit(y=y, by=by, centre=centre, **fields)


def _fit_loss(table: pd.DataFrame, y: str, by: tuple[str, ...], z: np.ndarray, draws: int, rng) -> dict:
    """The fields of a fit to log loss. With four or more points per parameter: Huber loss as in Chinchilla, no priors,
    and a bootstrap over runs; with fewer, the law's priors, and draws as for accuracies."""
    enough = all(table[axis].nunique() > LEAST for axis in by) and len(table) >= 2 * len(by) + 2
    law = power_law(by, table[y].min()) if enough else line(by, loss=True)
    observed, n, p = np.log(table[y].to_numpy(float)), len(table), len(law.prior)
    if n < 4 * p:
        se = RUNS_APART * _draw_residuals(law, z, observed, np.full(n, RUNS_APART), 1, rng)[0]["scatter"]
        fields, fitted = _draw_residuals(law, z, observed, np.full(n, se), draws, rng)
        fields["scatter"] *= se / RUNS_APART
    else:
        solve = partial(least_squares, lambda theta: law.value(theta, z), delta=HUBER["loss"], y=observed)
        best, agreed = _best_of_starts(law, solve, rng)
        weights = rng.multinomial(n, np.full(n, 1 / n), draws).astype(float)
        drawn = solve(np.repeat(best[None], draws, 0), weights=weights)[0]
        fields, fitted = {"theta": best, "draws": drawn, "scatter": 1.0, "agreed": agreed}, law.value(best[None], z)[0]
    table = table.assign(fitted=np.exp(fitted), residual=observed - fitted)
    return fields | {"law": law, "points": table, "flat": False}


def _draw_residuals(law: Law, z, observed: np.ndarray, se: np.ndarray, draws: int, rng) -> tuple[dict, np.ndarray]:
    """(theta, draws, scatter and agreement of a law with its priors, fitted to values with standard errors; the fitted
    values). Each draw refits the law to values with added noise and to priors moved by their spread."""
    solve = partial(least_squares, lambda theta: law.value(theta, z), delta=HUBER["accuracy"], spread=law.spread)
    best, agreed = _best_of_starts(law, partial(solve, y=observed, sigma=se, prior=law.prior), rng)
    fitted = law.value(best[None], z)[0]
    free = max(1.0, len(observed) - effective_parameters(lambda theta: law.value(theta, z), best, se, law.spread))
    scatter = max(1.0, float(np.sqrt(np.square((observed - fitted) / se).sum() / free)))
    noise = se * scatter * (_heavy_tails(rng, draws, free) if scatter > 1 else 1.0)
    noisy = fitted + noise * rng.standard_normal((draws, len(observed)))
    moved = law.prior + np.where(np.isfinite(law.spread), law.spread, 0.0) * rng.standard_normal((draws, len(best)))
    drawn = solve(np.repeat(best[None], draws, 0), noisy, sigma=se * scatter, prior=moved)[0]
    return {"theta": best, "draws": drawn, "scatter": scatter, "agreed": agreed}, fitted


def _fit_accuracy(table: pd.DataFrame, y: str, by: tuple[str, ...], z: np.ndarray, draws: int, rng) -> dict:
    """The fields of a fit to accuracies. If accuracy does not rise, its mean is fitted; half of the draws keep the law,
    because a rise that was not detected is not excluded."""
    chance, flat = float(table["chance"].mean()), not rises(table, by)
    below = bool(chance and (flat or (table[y] + 2 * table["se"] < chance).any()))
    if by == ("loss",):
        law = sigmoid_of_loss(chance, below)
    elif any(table[axis].nunique() < LEAST for axis in by):
        law = line(by, low=0.0 if below else chance)
    else:
        law = sigmoid_law(by, chance, below)
    observed, se = table[y].to_numpy(float), table["se"].to_numpy(float)
    fields, fitted = _draw_residuals(law, z, observed, se, draws, rng)
    if flat:
        weight = se**-2.0
        level, half = np.average(observed, weights=weight), draws // 2
        fields["theta"], fitted = law.at_level(np.array([level]))[0], np.full(len(table), level)
        noise = fields["scatter"] / np.sqrt(weight.sum()) * rng.standard_normal(half)
        fields["draws"][:half] = law.at_level(level + noise)
    table = table.assign(fitted=fitted, residual=observed - fitted)
    return fields | {"law": law, "points": table, "flat": flat}


def _best_of_starts(law: Law, solve, rng) -> tuple[np.ndarray, float]:
    """The parameters with the lowest cost over all starts, and the share of starts that reached it. ValueError if the
    best start did not converge."""
    starts = law.prior + law.start_spread * rng.standard_normal((STARTS, len(law.prior)))
    starts[0] = law.prior
    theta, cost, settled = solve(starts)
    if not settled[cost.argmin()]:
        raise ValueError("the fit did not converge; check that all points are from the same kind of run")
    return theta[cost.argmin()], float((cost <= cost.min() + 1e-6 * max(1e-9, abs(cost.min()))).mean())


def effective_parameters(value, theta: np.ndarray, se: np.ndarray, spread: np.ndarray) -> float:
    """The number of parameters determined by the points rather than the priors: the trace of the hat matrix."""
    steps = 1e-5 * np.eye(len(theta))
    slopes = np.stack(
        [(value((theta + s)[None])[0] - value((theta - s)[None])[0]) / (2e-5 * se) for s in steps], axis=1
    )
    curved = slopes.T @ slopes
    return float(np.trace(np.linalg.pinv(curved + np.diag(spread**-2.0)) @ curved))


def _heavy_tails(rng, draws: int, free: float) -> np.ndarray:
    """Factors (draws, 1) that turn normal noise into Student's t with `free` degrees of freedom, for a standard
    deviation that is estimated."""
    return np.sqrt(free / rng.chisquare(free, (draws, 1)))


def prepare_points(points: pd.DataFrame, y: str, by: tuple[str, ...], chance: float | None) -> pd.DataFrame:
    """The points to fit: for an accuracy one row per x, with `se` and `chance`. ValueError for a point that can't be
    used."""
    require("points", points, *by, y)
    loss = is_loss(y)
    valid = points[list(by)].gt(0).all(axis=1) & np.isfinite(points[[*by, y]]).all(axis=1)
    valid &= points[y].gt(0) if loss else points[y].between(0, 1)
    if not valid.all():
        found = points.loc[~valid, [*by, y]].iloc[0].to_dict()
        allowed = "above 0" if loss else "from 0 to 1"
        raise ValueError(f"a point needs {', '.join(by)} above 0 and {y} {allowed}, found {found}; drop it")
    if loss:
        return points.reset_index(drop=True)
    if "se" not in points:
        require("points", points, "n")
        if not points["n"].ge(1).all():
            raise ValueError(f"n must be 1 or more, found {points['n'].min()}; drop the points without questions")
    elif not points["se"].gt(0).all():
        raise ValueError("se must be above 0; give n in its place, by which accuracies of 0 and 1 have an error too")
    if chance is None and "chance" not in points:
        raise ValueError("the accuracy of guessing is unknown: give chance=, 0 for open answers, or the column chance")
    points = points.assign(chance=points["chance"] if chance is None else chance)
    return _over_seeds(points, y, by)


def _over_seeds(points: pd.DataFrame, y: str, by: tuple[str, ...]) -> pd.DataFrame:
    """One row per x: mean accuracy, its standard error `se` (from questions and, if there are several, seeds), n,
    chance and the number of seeds."""
    grouped = points.groupby(list(by), sort=True)
    table = grouped.agg(**{y: (y, "mean"), "chance": ("chance", "mean"), "seeds": (y, "size")}).reset_index()
    if "se" in points:
        of_questions = grouped["se"].mean().to_numpy(float)
        table["n"] = (table[y] * (1 - table[y]) / np.square(of_questions)).round()
    else:
        table["n"] = grouped["n"].min().to_numpy()
        share = (table[y] * table["n"] + 2) / (table["n"] + 4)  # Agresti and Coull: no error of 0 at 0 or 1
        of_questions = np.sqrt(share * (1 - share) / (table["n"] + 4))
    repeated = int((table["seeds"] - 1).sum())
    of_seeds = np.square(points[y] - grouped[y].transform("mean")).sum() / repeated if repeated else 0.0
    return table.assign(se=np.sqrt(np.square(of_questions) + of_seeds / table["seeds"]))


def rises(table: pd.DataFrame, by: tuple[str, ...]) -> bool:
    """Whether accuracy rises significantly (99%) along an axis, or falls along a loss."""
    weight = table["se"].to_numpy(float) ** -2.0
    for axis in by:
        x = np.log(table[axis].to_numpy(float)) * (-1 if axis == "loss" else 1)
        x = x - np.average(x, weights=weight)
        spread = np.sqrt((weight * x * x).sum())
        if spread and (weight * x * table["accuracy"]).sum() / spread > SURE:
            return True
    return False
