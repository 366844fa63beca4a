"""Several models' probabilities into one.  (M, N) -> (N,)

``rank_average`` returns an order only and must not meet a loss. Weights and stackers learn from
rows that the models did not train on; the stacker is fitted out of fold, so what comes back for a
row never saw its label.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from scipy.stats import rankdata

from lib.evaluate.checks import Floats, as_labels, as_probabilities
from lib.evaluate.logistic import fit_logistic, to_logits

__all__ = [
    "Stack", "geometric", "logit_mean", "mean", "median", "rank_average", "stack", "trimmed",
    "validation_weights", "weighted",
]  # fmt: skip

Models = Sequence[ArrayLike] | Floats


def mean(models: Models) -> Floats:
    """Arithmetic mean of the probabilities."""
    return np.asarray(_table(models).mean(axis=0))


def logit_mean(models: Models) -> Floats:
    """Sigmoid of the mean logit.

    >>> logit_mean([[0.5], [0.9]]).round(6).tolist()
    [0.75]
    """
    return np.asarray(expit(to_logits(_table(models)).mean(axis=0)))


def geometric(models: Models) -> Floats:
    """Geometric mean of p and of 1 − p, renormalised to sum 1.

    Without the second half the mean sinks below what every model says of the negatives. With it
    the result is the logit mean, except that a certain 0 or 1 of one model wins outright; two
    models certain of opposite things have no geometric mean and give ½.
    """
    table = _table(models)
    with np.errstate(divide="ignore"):
        yes, no = np.log(table).mean(axis=0), np.log1p(-table).mean(axis=0)
    contradict = np.isneginf(yes) & np.isneginf(no)
    return np.asarray(expit(np.where(contradict, 0, yes) - np.where(contradict, 0, no)))


def median(models: Models) -> Floats:
    """Median of the probabilities."""
    return np.asarray(np.median(_table(models), axis=0))


def trimmed(models: Models, share: float = 0.2) -> Floats:
    """Mean without the ``share`` lowest and the ``share`` highest models of each row."""
    if not 0 <= share < 0.5:
        raise ValueError(f"share={share}; expected 0 up to, not including, 0.5")
    table = np.sort(_table(models), axis=0)
    cut = int(share * len(table))
    return np.asarray(table[cut : len(table) - cut].mean(axis=0))


def rank_average(models: Models) -> Floats:
    """Mean over models of the rank within the model, as a share in (0, 1]: an order, no chance."""
    table = _table(models)
    return np.asarray(np.mean([rankdata(row) for row in table], axis=0) / max(1, table.shape[1]))


def weighted(models: Models, weights: ArrayLike) -> Floats:
    """Mean of the probabilities with the given weights, brought to sum 1."""
    table, shares = _table(models), np.asarray(weights, dtype=np.float64)
    if shares.shape != (len(table),) or not (shares >= 0).all() or not shares.sum() > 0:
        raise ValueError(
            f"weights={shares.tolist()} for {len(table)} models; expected one each, none negative, "
            "not all 0"
        )
    return np.asarray(shares / shares.sum() @ table)


def validation_weights(scores: ArrayLike, temperature: float = 0.01) -> Floats:
    """Softmax of validation scores (higher is better) over a temperature.  (M,) -> (M,)

    Scores of good models differ in the third digit, so a temperature near 1 means equal weights.

    >>> validation_weights([0.35, 0.35, 0.30], temperature=0.01).round(3).tolist()
    [0.498, 0.498, 0.003]
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or temperature <= 0:
        raise ValueError(
            f"scores={values.tolist()}, temperature={temperature}; expected finite scores, one a "
            "model, and a temperature above 0"
        )
    shares = np.exp((values - values.max()) / temperature)
    return np.asarray(shares / shares.sum())


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """A fitted stacker: out-of-fold probabilities, and weights (bias last) for new rows."""

    out_of_fold: Floats
    weights: Floats

    def __call__(self, models: Models) -> Floats:
        """Probabilities of rows outside the fit.  (M, N) -> (N,)"""
        return np.asarray(expit(_design(_table(models)) @ self.weights))


def stack(models: Models, labels: ArrayLike, folds: ArrayLike, *, ridge: float = 1e-3) -> Stack:
    """Logistic regression on the models' logits, fitted without the fold it predicts.

    ``folds`` (N,) names each row's fold. The ridge pulls towards the mean logit, so models that
    say the same share their weight.
    """
    table, clicked, fold_of = _table(models), as_labels(labels), np.asarray(folds)
    if not table.shape[1] == len(clicked) == len(fold_of):
        raise ValueError(
            f"{table.shape[1]} predictions, {len(clicked)} labels, {len(fold_of)} folds differ"
        )
    if len(np.unique(fold_of)) < 2:
        raise ValueError("one fold only; out of fold needs at least two")
    design, prior = _design(table), np.r_[np.full(len(table), 1 / len(table)), 0.0]
    ones = np.ones(len(clicked))
    out_of_fold = np.empty(len(clicked))
    for fold in np.unique(fold_of):
        inside = fold_of == fold
        theta = fit_logistic(design[~inside], clicked[~inside], ones[~inside], prior, ridge)
        out_of_fold[inside] = expit(design[inside] @ theta)
    return Stack(out_of_fold=out_of_fold, weights=fit_logistic(design, clicked, ones, prior, ridge))


def _design(table: Floats) -> Floats:
    return np.concatenate([to_logits(table), np.ones((1, table.shape[1]))]).T


def _table(models: Models) -> Floats:
    rows = [as_probabilities(f"model {i}", row) for i, row in enumerate(models)]
    if not rows:
        raise ValueError("no models to combine")
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"models predict {[len(row) for row in rows]} rows; expected as many each")
    return np.stack(rows)
