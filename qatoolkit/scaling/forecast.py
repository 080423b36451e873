"""Forecasts from fits: the gain from more parameters or tokens, and the errors of such forecasts on held-out points."""

import numpy as np
import pandas as pd

from qatoolkit.core.qa_table import require
from qatoolkit.scaling.fits import DRAWS, Fit, fit_scaling, is_loss, prepare_points

FURTHEST = 10.0  # times the largest point: about as far as errors are known from `check_forecast`


def forecast(
    points: pd.DataFrame,
    times: float = 4.0,
    of: str = "parameters",
    *,
    y: str = "accuracy",
    by: str | tuple[str, ...] | None = None,
    each: str | list[str] = (),
    over: str | None = None,
    chance: float | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Forecast the gain from `times` as many parameters (or tokens, or another axis `of`) as the largest point, all
    else equal: one row per group `each` (for example ["discipline", "difficulty"]).

    Points and laws as in `fit_scaling`; `by` (default: `of` alone) are the axes of the law. Columns: the groups, `x`
    (the largest) and `to`, `accuracy` at x and `forecast_accuracy` at to (of the law) with low and high, `gain` with
    gain_low and gain_high, and `law`; for a loss `loss`, `forecast_loss` and `change`. With `over`, a value of the
    column `arm`, rows are the other arms and values are differences from this arm; the interval treats the two as
    independent, so it is wide if they answered the same questions.

    ValueError for more than 10 times (`FURTHEST`), since the errors of forecasts beyond that are not known.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> runs = pd.DataFrame({"parameters": [1e6, 4e6, 16e6, 64e6], "accuracy": [0.31, 0.42, 0.55, 0.64], "n": 2000})
    >>> qt.forecast(runs, 4, "parameters", chance=0.25)[["x", "to", "accuracy"]].round(2).values.tolist()
    [[64000000.0, 256000000.0, 0.64]]
    """
    if not 1 < times <= FURTHEST:
        raise ValueError(
            f"times is {times:g}; a forecast reaches at most {FURTHEST:g} times beyond the largest point, since its "
            "errors further out are unknown: train one more point"
        )
    by = (of,) if by is None else (by,) if isinstance(by, str) else tuple(by)
    if of not in by:
        raise ValueError(f"of is {of!r}; it must be one of the law's axes {', '.join(by)}")
    each = [each] if isinstance(each, str) else list(each)
    require("points", points, *each, *(["arm"] if over else []))
    rows = []
    for key, part in points.groupby(each, sort=True, observed=True) if each else [((), points)]:
        arms = list(dict.fromkeys(part["arm"])) if over else [None]
        if over and over not in arms:
            raise ValueError(f"over is {over!r}; it must be one of the arms {', '.join(map(str, arms))}")
        fits = {}
        for i, arm in enumerate(arms):
            of_arm = part if arm is None else part[part["arm"] == arm]
            fits[arm] = fit_scaling(of_arm, y, by, chance=chance, draws=draws, seed=seed + i)  # independent draws
        for arm, fit in fits.items():
            if over and arm == over:
                continue
            at = _ends(fit, of, times)
            row = dict(zip(each, key, strict=True)) | ({"arm": arm} if over else {})
            rows.append(
                row | {"x": at[of].iloc[0], "to": at[of].iloc[1]} | _forecast_row(fit, fits[over] if over else None, at)
            )
    return pd.DataFrame(rows)


def _ends(fit: Fit, of: str, times: float) -> pd.DataFrame:
    """The largest point on the axis `of`, and the same point with `times` that value."""
    largest = fit.points.sort_values(list(fit.by)).sort_values(of, kind="stable")[list(fit.by)].iloc[[-1]]
    return pd.concat([largest, largest.assign(**{of: largest[of] * times})], ignore_index=True)


def _forecast_row(fit: Fit, other: Fit | None, at: pd.DataFrame) -> dict:
    """The columns of `forecast` from a fit at two points, minus those of the fit `other`, if given."""
    value, drawn = fit.predict(at)[fit.y].to_numpy(), fit.drawn(at)
    if other:
        value, drawn = value - other.predict(at)[fit.y].to_numpy(), drawn - other.drawn(at)
    low, high = np.quantile(drawn[:, 1], [0.025, 0.975])
    gain_low, gain_high = np.quantile(drawn[:, 1] - drawn[:, 0], [0.025, 0.975])
    gain = "change" if is_loss(fit.y) else "gain"
    return {
        fit.y: value[0], f"forecast_{fit.y}": value[1], "low": low, "high": high,
        gain: value[1] - value[0], f"{gain}_low": gain_low, f"{gain}_high": gain_high,
        "law": fit.says,
    }  # fmt: skip


def check_forecast(
    points: pd.DataFrame,
    held_out: int = 1,
    of: str = "parameters",
    *,
    y: str = "accuracy",
    by: str | tuple[str, ...] | None = None,
    each: str | list[str] = (),
    through: str | None = None,
    chance: float | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Hold out the `held_out` largest x of the axis `of`, forecast them from the others, and compare with the measured
    values: one row per held-out point and group `each`.

    Columns: the groups, x, `measured_accuracy`, `forecast_accuracy` with low and high (95%, of a measurement with as
    many questions), `covered`, and two baselines, `repeated_accuracy` (the largest remaining point) and `line_accuracy`
    (a line in log x); `fitted` is false where accuracy does not rise, and the forecast is its mean. With another y,
    such as loss, the columns end in its name. `through`, a loss such as bits_per_byte, adds a forecast in two steps:
    the loss along the axis, then accuracy from the loss (through_accuracy with through_low and through_high, intervals
    as above). `forecast_errors` pools the rows.

    ValueError if fewer than two x are left to fit."""
    by = (of,) if by is None else (by,) if isinstance(by, str) else tuple(by)
    each = [each] if isinstance(each, str) else list(each)
    require("points", points, *each, *by, y)
    tables = []
    for key, part in points.groupby(each, sort=False, observed=True) if each else [((), points)]:
        xs = np.sort(part[of].unique())
        if len(xs) < held_out + 2:
            raise ValueError(f"{len(xs)} different {of} leave {len(xs) - held_out} to fit; two or more are needed")
        held = part[of] > xs[-held_out - 1]
        fit = fit_scaling(part[~held], y, by, chance=chance, draws=draws, seed=seed)
        measured = prepare_points(part[held], y, by, chance)
        n = int(measured["n"].median()) if "n" in measured else 1
        predicted = fit.predict(measured[list(by)], n=n, seed=seed)
        remaining = fit.points.sort_values(of, kind="stable")
        rows = pd.DataFrame(dict(zip(each, key, strict=True)), index=measured.index) if each else measured[[]]
        if through:
            two_steps = forecast_through(part[~held], measured, through, by, chance, draws, seed)
            rows = rows.assign(**two_steps)
        line = np.polyval(np.polyfit(np.log(remaining[of]), remaining[y], 1), np.log(measured[of]))
        rows = rows.assign(
            **{"x": measured[of], f"measured_{y}": measured[y], f"forecast_{y}": predicted[y]},
            **{
                "low": predicted["low"],
                "high": predicted["high"],
                "covered": measured[y].between(predicted["low"], predicted["high"]),
            },
            **{f"repeated_{y}": remaining[y].iloc[-1], f"line_{y}": line, "fitted": not fit.flat},
        )
        tables.append(rows)
    return pd.concat(tables, ignore_index=True)


def forecast_through(points: pd.DataFrame, at: pd.DataFrame, loss: str, by, chance, draws: int, seed: int) -> dict:
    """Forecast accuracy at `at` through a loss: a fit of the loss along the axes `by`, and one of accuracy to the loss.
    Returns through_accuracy, through_low and through_high, for a measurement with as many questions."""
    loss_fit = fit_scaling(points, loss, by, draws=draws, seed=seed)
    accuracy_fit = fit_scaling(
        points.assign(loss=points[loss]), "accuracy", "loss", chance=chance, draws=draws, seed=seed
    )
    losses = np.vstack([loss_fit.predict(at)[loss].to_numpy(), loss_fit.drawn(at)])
    thetas = np.vstack([accuracy_fit.theta, accuracy_fit.draws])
    z = np.log(losses / accuracy_fit.centre)
    drawn = np.stack(
        [accuracy_fit.law.value(theta[None], row[:, None])[0] for theta, row in zip(thetas, z, strict=True)]
    )
    shares = np.clip(drawn[1:], 0, 1)
    rng = np.random.default_rng(seed)
    noise = (
        accuracy_fit.scatter * np.sqrt(shares * (1 - shares) / at["n"].to_numpy()) * rng.standard_normal(shares.shape)
    )
    low, high = np.quantile(np.clip(shares + noise, 0, 1), [0.025, 0.975], axis=0)
    return {"through_accuracy": drawn[0], "through_low": low, "through_high": high}


def forecast_errors(checked: pd.DataFrame, y: str = "accuracy") -> dict:
    """Mean absolute errors over the fitted rows of `check_forecast`, of the law, both baselines and, if present, the
    forecast in two steps (through); and the share covered by the law's 95% intervals: {n, law, repeated, line,
    covered_share, not_fitted}."""
    fitted = checked[checked["fitted"]]
    kinds = {"law": "forecast", "repeated": "repeated", "line": "line"}
    kinds |= {"through": "through"} if f"through_{y}" in checked else {}
    errors = {
        name: float((fitted[f"{kind}_{y}"] - fitted[f"measured_{y}"]).abs().mean()) for name, kind in kinds.items()
    }
    covered, left = float(fitted["covered"].mean()), int((~checked["fitted"]).sum())
    return {"n": len(fitted)} | errors | {"covered_share": covered, "not_fitted": left}


def gain_by_scale(gains: pd.DataFrame) -> pd.DataFrame:
    """How a gain changes along each axis: its slope per decade of x, the interaction of gain and scale.

    `gains`: axis, arm, x, gain, low, high (95%), one row per point. Returns one row per axis and arm with at least two
    different x: slope, low, high, n (points) and `says` ("grows", "shrinks", "no clear change"). Weighted least squares;
    if the points scatter more than their intervals imply, the slope's interval is widened accordingly, with Student's
    t."""
    require("gains", gains, "axis", "arm", "x", "gain", "low", "high")
    from scipy import stats

    rows = []
    for (axis, arm), part in gains.dropna(subset="gain").groupby(["axis", "arm"], sort=False):
        if part["x"].nunique() < 2:
            continue
        x, y = np.log10(part["x"].to_numpy(float)), part["gain"].to_numpy(float)
        se = np.maximum((part["high"] - part["low"]).to_numpy(float) / (2 * 1.96), 1e-6)
        w = se**-2.0
        middle, free = np.average(x, weights=w), len(x) - 2
        spread = (w * (x - middle) ** 2).sum()
        slope = (w * (x - middle) * y).sum() / spread
        residuals = y - np.average(y, weights=w) - slope * (x - middle)
        scatter = np.sqrt((w * residuals**2).sum() / free) if free else 1.0
        half = (stats.t.ppf(0.975, free) * scatter if scatter > 1 else 1.96) / np.sqrt(spread)
        low, high = slope - half, slope + half
        says = "grows" if low > 0 else "shrinks" if high < 0 else "no clear change"
        rows.append({"axis": axis, "arm": arm, "slope": slope, "low": low, "high": high, "n": len(x), "says": says})
    return pd.DataFrame(rows, columns=["axis", "arm", "slope", "low", "high", "n", "says"])


def compute_optimal(fit: Fit, flops: float | list[float]) -> pd.DataFrame:
    """The parameters and tokens with the lowest loss under a fitted law at each compute, 6 N D = flops: flops,
    parameters, tokens, loss, each with low and high (95%, over the draws), and `edge`, true if the optimum is an
    extrapolation beyond the sizes or tokens of the points. ValueError for a fit without E + A / N^alpha + B /
    D^beta."""
    if fit.by != ("parameters", "tokens") or "E" not in fit.law.names:
        raise ValueError("an optimum needs a loss fitted by=('parameters', 'tokens') with four or more of each")
    rows = []
    for budget in np.atleast_1d(np.asarray(flops, dtype=float)):
        row = {"flops": budget}
        for theta in (fit.theta[None], fit.draws):
            a, alpha, b, beta, e = fit.law.reported(theta, fit.centre).T
            n = (alpha * a / (beta * b)) ** (1 / (alpha + beta)) * (budget / 6) ** (beta / (alpha + beta))
            d = budget / 6 / n
            values = {"parameters": n, "tokens": d, fit.y: e + a / n**alpha + b / d**beta}
            if len(theta) == 1:
                row |= {name: value[0] for name, value in values.items()}
            else:
                ends = {name: np.quantile(value, [0.025, 0.975]) for name, value in values.items()}
                row |= {
                    f"{name}_{end}": v
                    for name, pair in ends.items()
                    for end, v in zip(("low", "high"), pair, strict=True)
                }
        inside = [fit.points[axis].min() <= row[axis] <= fit.points[axis].max() for axis in fit.by]
        rows.append(row | {"edge": not all(inside)})
    return pd.DataFrame(rows)
