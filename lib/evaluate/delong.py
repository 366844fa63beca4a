"""Confidence interval of an AUC, and of the difference of two on the same rows.

DeLong, DeLong and Clarke-Pearson (1988): the AUC is a mean over pairs, and its variance follows
from two vectors, the share of negatives that each positive beats and the share of positives that
beat each negative. Both come from sorted searches here (Sun and Xu, 2014), so ten million rows
take seconds and no pair is ever formed.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from lib.evaluate.checks import Bools, Floats, as_labels, as_scores, require_same_length
from lib.evaluate.uncertainty import Interval

__all__ = ["auc_difference", "auc_interval"]


def auc_interval(labels: ArrayLike, scores: ArrayLike, *, level: float = 0.95) -> Interval:
    """AUC with DeLong's interval; the p-value is that of "AUC is ½".  (N,), (N,) -> Interval"""
    clicked, values = as_labels(labels), as_scores("scores", scores)
    require_same_length(labels=clicked, scores=values)
    return _interval([_placements(clicked, values)], against=0.5, level=level)


def auc_difference(
    labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike, *, level: float = 0.95
) -> Interval:
    """AUC(a) − AUC(b) on the same rows with DeLong's interval.  (N,) three times -> Interval"""
    clicked = as_labels(labels)
    a, b = as_scores("scores_a", scores_a), as_scores("scores_b", scores_b)
    require_same_length(labels=clicked, scores_a=a, scores_b=b)
    return _interval([_placements(clicked, a), _placements(clicked, b)], against=0.0, level=level)


def _placements(clicked: Bools, scores: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Share of negatives below each positive, share of positives above each negative; ties half."""
    positives, negatives = scores[clicked], scores[~clicked]
    if len(positives) < 2 or len(negatives) < 2:
        raise ValueError(
            f"{len(positives)} positives, {len(negatives)} negatives; a variance needs 2 of each"
        )
    below = _mean_place(np.sort(negatives), positives)
    above = 1 - _mean_place(np.sort(positives), negatives)
    return below, above


def _mean_place(ordered: NDArray[np.floating], values: NDArray[np.floating]) -> Floats:
    """Share of ``ordered`` below each value, ties half."""
    distinct, inverse = np.unique(values, return_inverse=True)  # searched in order, so in cache
    left = np.searchsorted(ordered, distinct, side="left")
    right = np.searchsorted(ordered, distinct, side="right")
    places: Floats = np.asarray((left + right) / (2 * len(ordered)))
    return places[inverse]


def _interval(parts: list[tuple[Floats, Floats]], *, against: float, level: float) -> Interval:
    """Mean and normal interval of the first AUC, less the second where there is one."""
    of_positives, of_negatives = parts[0]
    if len(parts) == 2:
        of_positives, of_negatives = of_positives - parts[1][0], of_negatives - parts[1][1]
    value = float(of_positives.mean())
    variance = of_positives.var(ddof=1) / len(of_positives)
    variance += of_negatives.var(ddof=1) / len(of_negatives)
    se = float(np.sqrt(variance))
    half = float(ndtri((1 + level) / 2)) * se
    distance = abs(value - against)
    of_a_constant = 1.0 if distance == 0 else 0.0
    p_value = float(2 * ndtr(-distance / se)) if se > 0 else of_a_constant
    n = len(of_positives) + len(of_negatives)
    return Interval(value=value, low=value - half, high=value + half, p_value=p_value, n=n)
