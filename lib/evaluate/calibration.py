"""Do predicted probabilities happen as often as they say, and a repair where they do not.

Law: a calibrator is fitted on an *inner* set of rows, judged on an *outer* one, and adopted only
where a gate says so. One that is judged on the rows it was fitted on always looks good. Bins hold
equal numbers of rows; equal predictions always share a bin, so the order of rows never matters.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from scipy.stats import rankdata
from sklearn.isotonic import IsotonicRegression

from lib.evaluate.checks import (
    Bools,
    Floats,
    Ints,
    as_labels,
    as_probabilities,
    as_values,
    require_same_length,
)
from lib.evaluate.clicks import balanced_weights, row_log_loss
from lib.evaluate.gates import Decision, Gate, decide
from lib.evaluate.logistic import clip_logits, fit_logistic

__all__ = [
    "Calibrator", "Choice", "Steps", "Temperature", "choose_calibrator", "ece", "fit_isotonic",
    "fit_temperature", "predicted_over_observed", "reliability_table",
]  # fmt: skip

RIDGE = 1e-3  # pulls the scale to 1 and the bias to 0: separable rows would send them to infinity
SCALES = (0.2, 5.0)  # of 1/T: beyond it a handful of rows, not the model, is being described


def reliability_table(
    labels: ArrayLike, probabilities: ArrayLike, bins: int = 15
) -> dict[str, Floats]:
    """Per bin of equal mass: rows, mean prediction, observed rate and its Wilson 95 % interval."""
    clicked, p = as_labels(labels), as_probabilities("probabilities", probabilities)
    place = _bin_of(clicked, p, bins)
    rows = np.bincount(place, minlength=bins)
    kept = rows > 0
    count = rows[kept].astype(np.float64)
    predicted = np.bincount(place, weights=p, minlength=bins)[kept] / count
    observed = np.bincount(place, weights=clicked, minlength=bins)[kept] / count
    z2 = 1.959963984540054**2
    middle = (observed + z2 / (2 * count)) / (1 + z2 / count)
    spread = observed * (1 - observed) / count + z2 / (4 * count**2)
    half = np.sqrt(z2 * spread) / (1 + z2 / count)
    return {
        "rows": count, "predicted": predicted, "observed": observed,
        "low": np.maximum(0, middle - half), "high": np.minimum(1, middle + half),
    }  # fmt: skip


def ece(labels: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error: Σ share of rows · |mean prediction − observed rate|.

    Equal mass: with a click rate of 2 % bins of equal width would hold everything in the first.
    """
    table = reliability_table(labels, probabilities, bins)
    gap = np.abs(table["predicted"] - table["observed"])
    return float((table["rows"] * gap).sum() / table["rows"].sum())


def predicted_over_observed(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Sum of predictions over number of clicks; 1 is right on average, NaN without a click."""
    clicked, p = as_labels(labels), as_probabilities("probabilities", probabilities)
    require_same_length(labels=clicked, probabilities=p)
    return float(p.sum() / clicked.sum()) if clicked.any() else float("nan")


@dataclass(frozen=True, kw_only=True, slots=True)
class Temperature:
    """p = sigmoid(logit / T + bias)."""

    scale: float = 1.0  # 1 / T
    bias: float = 0.0

    def __call__(self, logits: ArrayLike) -> Floats:
        """Probabilities of the logits.  (N,) -> (N,)"""
        values = as_values("logits", logits)
        if (self.scale, self.bias) != (1.0, 0.0):
            values = self.scale * values + self.bias
        return np.asarray(expit(values))


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """p = a non-decreasing line through (logit, probability) points, flat beyond its ends."""

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __call__(self, logits: ArrayLike) -> Floats:
        """Probabilities of the logits.  (N,) -> (N,)"""
        values = clip_logits(as_values("logits", logits))
        return np.interp(values, self.logits, self.probabilities)


Calibrator = Temperature | Steps


def fit_temperature(
    labels: ArrayLike, logits: ArrayLike, *, bias: bool = False, balanced: bool = False
) -> Temperature:
    """Scale (and bias) with the least log loss, or with ``balanced`` the least WLL.

    The scale stays within 1/T = 0.2 … 5 and never turns the order around.
    """
    clicked, values, weights = _training_rows(labels, logits, balanced)
    columns = np.stack([values, np.ones_like(values)], axis=1)[:, : 2 if bias else 1]
    prior = np.array([1.0, 0.0])[: columns.shape[1]]
    theta = fit_logistic(columns, clicked, weights, prior, RIDGE)
    scale = float(np.clip(theta[0], *SCALES))
    if bias and scale != theta[0]:  # the bias that belongs to the scale at its border
        theta[1] = _fit_bias(scale * values, clicked, weights)
    return Temperature(scale=scale, bias=float(theta[1]) if bias else 0.0)


def fit_isotonic(labels: ArrayLike, logits: ArrayLike, *, balanced: bool = False) -> Steps:
    """Best non-decreasing probabilities (pool adjacent violators), clipped by support.

    Pooling ends in exact 0 and 1 where the outermost rows have one class, and one click in such a
    place costs the whole clip of the loss. A block of n rows without a click is therefore read as
    half a click in n + ½ rows, yet never above its neighbour.
    """
    clicked, values, weights = _training_rows(labels, logits, balanced)
    model = IsotonicRegression(out_of_bounds="clip", increasing=True)
    fitted = np.asarray(model.fit(values, clicked, sample_weight=weights).predict(values))
    low, high = float(fitted.min()), float(fitted.max())
    w_click, w_none = _class_weights(clicked, weights)
    if low <= 0:
        n_rows = np.count_nonzero(fitted <= 0)
        floor = 0.5 * w_click / (0.5 * w_click + (n_rows + 0.5) * w_none)
        fitted = np.maximum(fitted, min(floor, float(fitted[fitted > 0].min(initial=floor))))
    if high >= 1:
        n_rows = np.count_nonzero(fitted >= 1)
        ceiling = (n_rows + 0.5) * w_click / ((n_rows + 0.5) * w_click + 0.5 * w_none)
        fitted = np.minimum(fitted, max(ceiling, float(fitted[fitted < 1].max(initial=ceiling))))
    points, first = np.unique(values, return_index=True)
    heights = fitted[first]
    # of a flat stretch only its two ends are needed
    corner = np.r_[True, heights[1:] != heights[:-1]] | np.r_[heights[1:] != heights[:-1], True]
    return Steps(
        logits=tuple(points[corner].tolist()), probabilities=tuple(heights[corner].tolist())
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The calibrator in use, its name, and the decision about each candidate in turn."""

    name: str
    calibrator: Calibrator
    decisions: dict[str, Decision]
    losses: dict[str, float]  # on the outer rows


def choose_calibrator(
    inner: tuple[ArrayLike, ArrayLike],
    outer: tuple[ArrayLike, ArrayLike],
    gate: Gate,
    *,
    balanced: bool = False,
    draws: int = 10_000,
    seed: int = 0,
) -> Choice:
    """Fit on inner (labels, logits), judge on outer; each step up must pass the gate.

    From none over temperature and temperature with bias to isotonic: a more flexible one replaces
    the one in use only where the gate on the metric ``loss`` says adopted.
    """
    options: dict[str, Calibrator] = {
        "temperature": fit_temperature(*inner, balanced=balanced),
        "temperature with bias": fit_temperature(*inner, bias=True, balanced=balanced),
        "isotonic": fit_isotonic(*inner, balanced=balanced),
    }
    labels, logits = outer
    weights = balanced_weights(labels) if balanced else 1.0
    name, used = "none", Temperature()
    chosen: Calibrator = used
    decisions: dict[str, Decision] = {}
    current = weights * row_log_loss(labels, chosen(logits))
    losses = {name: float(current.mean())}
    for option, calibrator in options.items():
        rows = weights * row_log_loss(labels, calibrator(logits))
        losses[option] = float(rows.mean())
        decisions[option] = decide(gate, {"loss": current}, {"loss": rows}, draws=draws, seed=seed)
        if decisions[option].answer == "adopted":
            name, chosen, current = option, calibrator, rows
    return Choice(name=name, calibrator=chosen, decisions=decisions, losses=losses)


def _bin_of(clicked: Bools, p: Floats, bins: int) -> Ints:
    n = require_same_length(labels=clicked, probabilities=p)
    if n < 1 or bins < 1:
        raise ValueError(f"{n} rows in {bins} bins; expected at least one of each")
    middle = (rankdata(p) - 0.5) / n  # of all rows that share this prediction
    return np.minimum((middle * bins).astype(np.int64), bins - 1)


def _training_rows(
    labels: ArrayLike, logits: ArrayLike, balanced: bool
) -> tuple[Bools, Floats, Floats]:
    clicked, values = as_labels(labels), clip_logits(as_values("logits", logits))
    require_same_length(labels=clicked, logits=values)
    if not clicked.any() or clicked.all():
        raise ValueError(
            f"{clicked.sum()} clicks in {len(clicked)} rows; a calibrator needs both classes"
        )
    return clicked, values, balanced_weights(clicked) if balanced else np.ones(len(values))


def _fit_bias(scaled: Floats, clicked: Bools, weights: Floats) -> float:
    """Bias that makes the weighted mean prediction the weighted click rate, by bisection."""
    low, high = -400.0, 400.0  # beyond any scaled logit
    goal = float(weights @ clicked)
    for _ in range(100):  # the mean prediction rises with the bias, so this cannot fail
        middle = (low + high) / 2
        below = float(weights @ expit(scaled + middle)) < goal
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2


def _class_weights(clicked: Bools, weights: Floats) -> tuple[float, float]:
    return float(weights[clicked][0]), float(weights[~clicked][0])
