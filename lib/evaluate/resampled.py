"""Measures of clicks that are no mean over rows, on rows drawn with replacement.

Average precision, weighted log loss and Score of one model on the same draws as those of another:
their difference is paired. Draws depend on the number of rows and the seed alone, so two models
that are resampled one after the other still see the same rows.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.evaluate.checks import Floats, as_labels, as_probabilities, require_same_length
from lib.evaluate.clicks import average_precision, row_log_loss, score, weighted_log_loss
from lib.evaluate.uncertainty import Interval, interval_of_draws

__all__ = ["Resampled", "compare_clicks", "interval_of", "pr_auc", "resample_clicks"]

Resampled = dict[str, tuple[float, Floats]]  # metric -> its value, and its value on each draw
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Counts = NDArray[np.uint8]
KEPT_BYTES = 64_000_000  # of one set of draws


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

    A draw is a count per row: rows are sorted once, and each draw costs a gather, a running sum
    and three products. A draw that misses a class is NaN.
    """
    clicked = as_labels(labels)
    true, balanced = as_probabilities("p_true", p_true), as_probabilities("p_balanced", p_balanced)
    n = require_same_length(labels=clicked, p_true=true, p_balanced=balanced)
    if not n or draws < 1:
        raise ValueError(f"{n} rows and {draws} draws; expected at least one of each")
    order = np.argsort(-true, kind="stable")
    rows = sort_rows(clicked, true, balanced, order)
    found = np.empty((4, draws))
    for draw, counts in enumerate(draw_counts(n, draws, seed)):
        found[:, draw] = _measure(counts[order], rows)
    return {
        "log_loss": (float(rows.plain.mean()), found[0]),
        "average_precision": (average_precision(clicked, true), found[1]),
        "weighted_log_loss": (weighted_log_loss(clicked, balanced), found[2]),
        "score": (score(clicked, balanced), found[3]),
    }


@dataclass(frozen=True)
class Sorted:
    """Rows by falling probability, and the M clicked ones among them with the ends of their ties.

    Precision changes at clicked rows only, so nothing else is looked up there.
    """

    plain: Floats  # (N,) log loss of the true probability
    weighted: Floats  # (N,) log loss of the balanced one
    clicks: Ints  # (M,) places of clicked rows
    ends: Ints  # (M,) the last place of the same probability
    last_clicks: Ints  # (M,) which of the M clicks is the last of the same probability


def sort_rows(clicked: Bools, true: Floats, balanced: Floats, order: Ints) -> Sorted:
    places = np.flatnonzero(clicked[order])
    last = np.r_[np.flatnonzero(np.diff(true[order])), len(order) - 1]
    ends = last[np.searchsorted(last, places)]
    return Sorted(
        plain=row_log_loss(clicked, true)[order],
        weighted=row_log_loss(clicked, balanced)[order],
        clicks=places,
        ends=ends,
        last_clicks=np.searchsorted(ends, ends, side="right") - 1,
    )


def draw_counts(n: int, draws: int, seed: int) -> Iterable[Counts]:
    """How often each of ``n`` rows is drawn, draw by draw; what fits into 64 MB is kept."""
    return kept_counts(n, draws, seed) if n * draws <= KEPT_BYTES else make_counts(n, draws, seed)


@lru_cache(maxsize=8)  # every model of a table is judged on the same draws of two or three parts
def kept_counts(n: int, draws: int, seed: int) -> tuple[Counts, ...]:
    return tuple(make_counts(n, draws, seed))


def make_counts(n: int, draws: int, seed: int) -> Iterator[Counts]:
    for child in np.random.SeedSequence(seed).spawn(draws):
        drawn = np.random.default_rng(child).integers(0, n, n)
        yield np.bincount(drawn, minlength=n).astype(np.uint8)  # more than 255 of one never occur


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


def _measure(counts: Counts, rows: Sorted) -> tuple[float, float, float, float]:
    n, weights, clicks = len(counts), counts.astype(np.float64), counts[rows.clicks].astype(float)
    n_clicks, log_loss = float(clicks.sum()), float(weights @ rows.plain) / n
    if not 0 < n_clicks < n:
        return log_loss, float("nan"), float("nan"), float("nan")
    below = np.cumsum(counts, dtype=np.int64)[rows.ends]
    true = np.cumsum(clicks)[rows.last_clicks]
    precision = float(np.sum(clicks * true / np.maximum(below, 1))) / n_clicks
    of_clicks = float(clicks @ rows.weighted[rows.clicks])
    of_rest = float(weights @ rows.weighted) - of_clicks
    wll = (of_clicks / n_clicks + of_rest / (n - n_clicks)) / 2
    return log_loss, precision, wll, precision / 2 + 0.5 / (1 + wll)
