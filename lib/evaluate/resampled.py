"""Measures of clicks that are no mean over rows, on rows drawn with replacement.

Average precision, weighted log loss and Score of one model on the same draws as those of another:
their difference is paired. Draws depend on the number of rows and the seed alone, so two models
that are resampled one after the other still see the same rows.
"""

import numpy as np
from numpy.typing import ArrayLike

from lib.evaluate.checks import Floats, as_labels, as_probabilities, require_same_length
from lib.evaluate.clicks import average_precision, row_log_loss, score, weighted_log_loss
from lib.evaluate.uncertainty import Interval, interval_of_draws

__all__ = ["Resampled", "compare_clicks", "interval_of", "pr_auc", "resample_clicks"]

Resampled = dict[str, tuple[float, Floats]]  # metric -> its value, and its value on each draw


def pr_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall points joined by straight lines; higher is better.

    Joined points flatter: average precision, which steps, is the figure to quote. NaN without
    a positive.

    >>> pr_auc([0, 1], [0.2, 0.9])
    1.0
    """
    clicked, values = as_labels(labels), np.asarray(scores, np.float64)
    require_same_length(labels=clicked, scores=values)
    if not clicked.any():
        return float("nan")
    order = np.argsort(-values, kind="stable")
    last = np.r_[np.flatnonzero(np.diff(values[order])), len(values) - 1]
    true = np.cumsum(clicked[order])[last]
    precision, recall = true / (last + 1), true / clicked.sum()
    precision, recall = np.r_[1.0, precision], np.r_[0.0, recall]
    return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))


def resample_clicks(
    labels: ArrayLike, p_true: ArrayLike, p_balanced: ArrayLike, *, draws: int, seed: int
) -> Resampled:
    """Log loss and AP of the true, WLL and Score of the balanced probabilities, draw by draw.

    A draw is a count per row: rows are sorted once, and each draw costs two running sums.
    A draw that misses a class is NaN.
    """
    clicked = as_labels(labels)
    true, balanced = as_probabilities("p_true", p_true), as_probabilities("p_balanced", p_balanced)
    n = require_same_length(labels=clicked, p_true=true, p_balanced=balanced)
    if not n or draws < 1:
        raise ValueError(f"{n} rows and {draws} draws; expected at least one of each")
    plain, weighted = row_log_loss(clicked, true), row_log_loss(clicked, balanced)
    order = np.argsort(-true, kind="stable")
    last = np.r_[np.flatnonzero(np.diff(true[order])), n - 1]  # last row of each tie
    found = np.empty((4, draws))
    for draw, child in enumerate(np.random.SeedSequence(seed).spawn(draws)):
        drawn = np.random.default_rng(child).integers(0, n, n)
        counts = np.bincount(drawn, minlength=n).astype(np.float64)
        found[:, draw] = _measure(counts, clicked, plain, weighted, order, last)
    return {
        "log_loss": (float(plain.mean()), found[0]),
        "average_precision": (average_precision(clicked, true), found[1]),
        "weighted_log_loss": (weighted_log_loss(clicked, balanced), found[2]),
        "score": (score(clicked, balanced), found[3]),
    }


def compare_clicks(candidate: Resampled, baseline: Resampled, metric: str, n: int) -> Interval:
    """Candidate − baseline with its paired interval."""
    (new, new_draws), (old, old_draws) = candidate[metric], baseline[metric]
    drawn = new_draws - old_draws
    return interval_of_draws(new - old, _defined(drawn), n)


def interval_of(resampled: Resampled, metric: str, n: int) -> Interval:
    """The interval of one model's measure."""
    value, drawn = resampled[metric]
    return interval_of_draws(value, _defined(drawn), n)


def _defined(drawn: Floats) -> Floats:
    kept = drawn[~np.isnan(drawn)]
    if len(kept) < len(drawn) / 2:
        raise ValueError(
            f"{len(drawn) - len(kept)} of {len(drawn)} draws hold one class only: too few clicks "
            "for an interval"
        )
    return kept


def _measure(
    counts: Floats,
    clicked: np.ndarray[tuple[int], np.dtype[np.bool_]],
    plain: Floats,
    weighted: Floats,
    order: np.ndarray[tuple[int], np.dtype[np.intp]],
    last: np.ndarray[tuple[int], np.dtype[np.intp]],
) -> tuple[float, float, float, float]:
    positive = counts * clicked
    n_all, n_positive = float(counts.sum()), float(positive.sum())
    log_loss = float(counts @ plain) / n_all
    if not 0 < n_positive < n_all:
        return log_loss, float("nan"), float("nan"), float("nan")
    below = np.cumsum(counts[order])[last]
    true = np.cumsum(positive[order])[last]
    steps = np.diff(true, prepend=0.0)
    precision = float(np.sum(steps * true / np.maximum(below, 1))) / n_positive
    of_clicks = float(positive @ weighted) / n_positive
    of_rest = float((counts - positive) @ weighted) / (n_all - n_positive)
    wll = (of_clicks + of_rest) / 2
    return log_loss, precision, wll, precision / 2 + 0.5 / (1 + wll)
