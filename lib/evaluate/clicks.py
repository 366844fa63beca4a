"""Measures of click predictions, each from (labels, scores) or (labels, probabilities).

Law: higher is better except the losses. Ties share their rank, so the order of rows never matters.
AUC and average precision need an order only and take any score, infinities included; the losses
need probabilities. A measure that one class alone cannot define is NaN, never a made-up number.

Two outputs are kept apart everywhere: the *true* probability (log loss, calibration) and the
*balanced* one, as if clicks were half of the rows (WLL, Score). ``shift_prior`` relates the two.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.evaluate.checks import (
    Floats,
    as_labels,
    as_probabilities,
    as_scores,
    require_same_length,
)

__all__ = [
    "GroupedAuc", "accuracy", "auc", "average_precision", "balanced_weights", "choose_threshold",
    "circulating_shorthand", "describe_predictions", "grouped_auc", "log_loss",
    "normalised_entropy", "prior_offset", "rank_quality", "row_log_loss", "score", "shift_prior",
    "summarise", "weighted_log_loss",
]  # fmt: skip

CLIP = 1e-15  # of probabilities in the losses, as the competition's own formula has it


def rank_quality(labels: ArrayLike, scores: ArrayLike) -> tuple[float, float]:
    """AUC and average precision from one sort of each class.  (N,), (N,) -> two numbers

    AUC = P(positive above negative) + P(equal) / 2 (Mann and Whitney). Average precision =
    Σ over distinct scores of (new recall) · (precision down to that score).

    >>> rank_quality([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    (0.75, 0.8333333333333333)
    """
    positives, negatives = _sorted_classes(labels, scores)
    if not len(positives):
        return float("nan"), float("nan")
    first = np.flatnonzero(np.r_[True, positives[1:] != positives[:-1]])
    counts = np.diff(np.r_[first, len(positives)])
    distinct = positives[first]  # ascending: also makes the searches below walk in order
    below = np.searchsorted(negatives, distinct, side="left")
    to_equal = np.searchsorted(negatives, distinct, side="right")
    twice_won = int((counts * (below + to_equal)).sum())  # an integer: no rounding at any size
    pairs = len(positives) * len(negatives)
    area = twice_won / (2 * pairs) if pairs else float("nan")
    true_above, false_above = len(positives) - first, len(negatives) - below
    precision = true_above / (true_above + false_above)
    return area, float((counts * precision).sum() / len(positives))


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Chance that a random positive scores above a random negative; NaN with one class."""
    return rank_quality(labels, scores)[0]


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean precision at each recalled positive; NaN without positives."""
    return rank_quality(labels, scores)[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupedAuc:
    """AUC within groups: weighted by rows, plain mean, and how many groups have both classes."""

    weighted: float
    mean: float
    n_groups: int
    n_used: int


def grouped_auc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> GroupedAuc:
    """AUC inside each group, averaged over the groups that hold both classes.

    >>> grouped_auc([0, 1, 0, 1, 1], [0.1, 0.2, 0.8, 0.5, 0.5], [7, 7, 8, 8, 9]).weighted
    0.5
    """
    clicked, values = as_labels(labels), as_scores("scores", scores)
    group_of = np.asarray(groups)
    n = require_same_length(labels=clicked, scores=values, groups=group_of)
    order = np.lexsort((values, group_of))
    clicked, values, group_of = clicked[order], values[order], group_of[order]
    new_group = np.r_[True, group_of[1:] != group_of[:-1]][:n]
    new_value = new_group | np.r_[True, values[1:] != values[:-1]][:n]
    starts, tie_starts = np.flatnonzero(new_group), np.flatnonzero(new_value)
    tie_sizes = np.diff(np.r_[tie_starts, n])
    mean_rank = np.repeat(tie_starts + (tie_sizes + 1) / 2, tie_sizes)  # from 1, over all rows
    sizes = np.diff(np.r_[starts, n])
    if not n:
        return GroupedAuc(weighted=float("nan"), mean=float("nan"), n_groups=0, n_used=0)
    n_positive = np.add.reduceat(clicked.astype(np.int64), starts)
    rank_sum = np.add.reduceat(np.where(clicked, mean_rank, 0.0), starts) - n_positive * starts
    pairs = n_positive * (sizes - n_positive)
    used = pairs > 0
    if not used.any():
        return GroupedAuc(weighted=float("nan"), mean=float("nan"), n_groups=len(starts), n_used=0)
    won = rank_sum[used] - n_positive[used] * (n_positive[used] + 1) / 2
    areas = won / pairs[used]
    return GroupedAuc(
        weighted=float(np.average(areas, weights=sizes[used])),
        mean=float(areas.mean()),
        n_groups=len(starts),
        n_used=int(used.sum()),
    )


def row_log_loss(labels: ArrayLike, probabilities: ArrayLike) -> Floats:
    """−ln of the probability given to what happened, clipped at 1e-15.  (N,), (N,) -> (N,)"""
    clicked, p = as_labels(labels), as_probabilities("probabilities", probabilities)
    require_same_length(labels=clicked, probabilities=p)
    clipped = np.clip(p, CLIP, 1 - CLIP)
    return -np.log(np.where(clicked, clipped, 1 - clipped))


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean of −ln of the probability given to what happened; lower is better."""
    losses = row_log_loss(labels, probabilities)
    return float(losses.mean()) if len(losses) else float("nan")


def normalised_entropy(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Log loss over that of the constant that knows the click rate; 1 means nothing learnt.

    He et al. (2014). NaN with one class, where the constant makes no error.
    """
    rate = float(as_labels(labels).mean()) if np.size(labels) else float("nan")
    if not 0 < rate < 1:
        return float("nan")
    constant = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    return log_loss(labels, probabilities) / float(constant)


def balanced_weights(labels: ArrayLike) -> Floats:
    """Row weights with mean 1 that give each class half: mean(weights · losses) = WLL.  (N,)"""
    clicked = as_labels(labels)
    share = np.array([np.mean(~clicked), np.mean(clicked)]) if len(clicked) else np.zeros(2)
    if not share.all():
        raise ValueError("balanced weights need both classes; these labels hold one at most")
    return np.where(clicked, 0.5 / share[1], 0.5 / share[0])


def weighted_log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """WLL = ½·mean over positives of −ln p + ½·mean over negatives of −ln(1−p); lower is better.

    Hand in balanced probabilities (``shift_prior``): their optimum is the 50:50 world.
    """
    clicked, losses = as_labels(labels), row_log_loss(labels, probabilities)
    if not clicked.any() or clicked.all():
        return float("nan")
    return float((losses[clicked].mean() + losses[~clicked].mean()) / 2)


def score(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Score = ½·AP + ½/(1 + WLL), the competition's own formula; higher is better.

    >>> labels = np.arange(100_000) < 1_907
    >>> [round(score(labels, np.full(100_000, p)), 4) for p in (0.5, 0.01907)]
    [0.3048, 0.1768]
    """
    wll = weighted_log_loss(labels, probabilities)
    return average_precision(labels, probabilities) / 2 + 0.5 / (1 + wll)


def circulating_shorthand(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """½·AP + ½·WLL: a wrong formula in circulation, reported under this name only.

    It rises when WLL gets *worse*, so a model chosen by it is chosen for bad probabilities.
    """
    wll = weighted_log_loss(labels, probabilities)
    return (average_precision(labels, probabilities) + wll) / 2


def prior_offset(from_rate: float, to_rate: float) -> float:
    """What to add to a logit when the click rate changes; 3.940 from .01907 to ½.

    >>> round(prior_offset(0.0190747, 0.5), 3)
    3.94
    """
    for name, rate in (("from_rate", from_rate), ("to_rate", to_rate)):
        if not 0 < rate < 1:
            raise ValueError(f"{name}={rate}; expected a click rate strictly between 0 and 1")
    return float(np.log(to_rate / (1 - to_rate)) - np.log(from_rate / (1 - from_rate)))


def shift_prior(probabilities: ArrayLike, from_rate: float, to_rate: float = 0.5) -> Floats:
    """The same evidence under another click rate: true <-> balanced.  (N,) -> (N,)

    Order, and with it AUC and AP, stays; ``shift_prior(…, 0.5, rate)`` goes back.
    """
    prior_offset(from_rate, to_rate)  # refuses impossible rates
    p = as_probabilities("probabilities", probabilities)
    yes = p * (to_rate / from_rate)
    no = (1 - p) * ((1 - to_rate) / (1 - from_rate))
    return yes / (yes + no)


def choose_threshold(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Threshold of the best accuracy; choose it on other rows than those it is judged on."""
    clicked, p = as_labels(labels), as_probabilities("probabilities", probabilities)
    if not require_same_length(labels=clicked, probabilities=p):
        raise ValueError("no rows to choose a threshold from")
    order = np.argsort(-p, kind="stable")
    p, clicked = p[order], clicked[order]
    # saying "click" down to and including row i wins its positives and pays its negatives
    gain = np.r_[0, np.cumsum(np.where(clicked, 1, -1))]
    whole_ties = np.r_[True, p[1:] != p[:-1], True]
    best = int(np.argmax(np.where(whole_ties, gain, -len(p) - 1)))
    if best == 0:
        return float(np.nextafter(p[0], np.inf))  # never say "click"
    return float(p[best - 1])


def accuracy(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> float:
    """Share of rows where (p >= threshold) is the label; compare it with the majority's share."""
    clicked, p = as_labels(labels), as_probabilities("probabilities", probabilities)
    n = require_same_length(labels=clicked, probabilities=p)
    return float(np.mean((p >= threshold) == clicked)) if n else float("nan")


def describe_predictions(probabilities: ArrayLike) -> dict[str, float]:
    """Mean, spread, quantiles and share of exact 0 or 1 of the predictions."""
    p = as_probabilities("probabilities", probabilities)
    if not len(p):
        raise ValueError("no predictions to describe")
    levels = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
    quantiles = dict(zip(levels, np.quantile(p, levels), strict=True))
    return {
        "mean": float(p.mean()),
        "std": float(p.std()),
        "min": float(p.min()),
        **{f"q{100 * level:02.0f}": float(value) for level, value in quantiles.items()},
        "max": float(p.max()),
        "share_extreme": float(np.mean((p == 0) | (p == 1))),
    }


def summarise(labels: ArrayLike, p_true: ArrayLike, p_balanced: ArrayLike) -> dict[str, float]:
    """All single numbers: order and log loss from ``p_true``, WLL and Score from ``p_balanced``."""
    clicked = as_labels(labels)
    area, precision = rank_quality(clicked, p_true)
    return {
        "auc": area,
        "average_precision": precision,
        "log_loss": log_loss(clicked, p_true),
        "normalised_entropy": normalised_entropy(clicked, p_true),
        "weighted_log_loss": weighted_log_loss(clicked, p_balanced),
        "score": score(clicked, p_balanced),
        "click_rate": float(clicked.mean()),
        "mean_prediction": float(np.mean(as_probabilities("p_true", p_true))),
        "n_rows": float(len(clicked)),
    }


def _sorted_classes(
    labels: ArrayLike, scores: ArrayLike
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    clicked, values = as_labels(labels), as_scores("scores", scores)
    require_same_length(labels=clicked, scores=values)
    return np.sort(values[clicked]), np.sort(values[~clicked])
