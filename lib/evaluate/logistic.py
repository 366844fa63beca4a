"""Logistic regression on a few columns, by Newton's method: calibration and stacking need no more.

Minimises Σ w·(ln(1 + e^z) − y·z)/Σw + ½·ridge·Σ(θ − prior)², z = Xθ. Strictly convex, so the
answer does not depend on a start, a solver or its tolerance.
"""

import numpy as np
from scipy.special import expit

from lib.evaluate.checks import Bools, Floats

__all__ = ["clip_logits", "fit_logistic", "to_logits"]

LIMIT = 36.0  # a logit's size: e^-36 is beyond the clip of the losses, infinity is no regressor


def clip_logits(logits: Floats) -> Floats:
    """Logits with infinities brought to ±36, beyond which the losses see no difference."""
    return np.clip(logits, -LIMIT, LIMIT)


def to_logits(probabilities: Floats) -> Floats:
    """ln(p / (1 − p)), 0 and 1 at ±36."""
    with np.errstate(divide="ignore"):
        return clip_logits(np.log(probabilities) - np.log1p(-probabilities))


def fit_logistic(
    columns: Floats, labels: Bools, weights: Floats, prior: Floats, ridge: float
) -> Floats:
    """Coefficients that minimise the penalised log loss.  (N, P), (N,), (N,), (P,) -> (P,)"""
    theta = prior.astype(np.float64).copy()
    share = weights / weights.sum()
    loss = _loss(columns, labels, share, prior, ridge, theta)
    for _ in range(100):
        p = expit(columns @ theta)
        gradient = columns.T @ (share * (p - labels)) + ridge * (theta - prior)
        curvature = (columns * (share * p * (1 - p))[:, None]).T @ columns
        step = np.linalg.solve(curvature + ridge * np.eye(len(theta)), gradient)
        length = 1.0
        while length > 1e-10:  # halve until it descends: far from the optimum Newton overshoots
            trial = theta - length * step
            trial_loss = _loss(columns, labels, share, prior, ridge, trial)
            if trial_loss <= loss:
                break
            length /= 2
        else:
            return theta  # no descent left within rounding
        converged = float(np.abs(theta - trial).max()) < 1e-12
        theta, loss = trial, trial_loss
        if converged:
            break
    return theta


def _loss(
    columns: Floats, labels: Bools, share: Floats, prior: Floats, ridge: float, theta: Floats
) -> float:
    z = columns @ theta
    losses = np.logaddexp(0, z) - labels * z
    return float(share @ losses + ridge / 2 * ((theta - prior) ** 2).sum())
