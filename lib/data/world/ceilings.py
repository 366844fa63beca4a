"""Ceilings: what the true probabilities reach on a metric, exactly or by draws from the truth.

Ranking: ranking the items by their true probability is best for every metric whose gain falls with
the rank, and its expectation is a sum. Clicks, and whatever else has no closed form: draw the
answers from the truth many times and score the truth on each.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lib.data.world.rng import generator

__all__ = ["Ceiling", "Gains", "click_ceiling", "expected_gains", "mean_ceiling"]

Array = NDArray[np.float32]


class Ceiling(NamedTuple):
    """The mean of a metric over what might have happened, and where 95 % of the values lie."""

    value: float
    low: float
    high: float


class Gains(NamedTuple):
    """What each user's realised gain is in the mean, and its variance; both [B]."""

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]


def expected_gains(
    probabilities: Array, ks: Sequence[int], scores: Array | None = None
) -> dict[str, Gains]:
    """Expected hit@k, ndcg@k and mrr of each user, ranked by ``scores`` or by the truth itself.

    >>> gains = expected_gains(np.array([[0.1, 0.6, 0.3]], np.float32), ks=[1, 2])
    >>> gains["hit@1"].mean.round(3).tolist(), gains["hit@2"].mean.round(3).tolist()
    ([0.6], [0.9])
    """
    order = np.argsort(-(probabilities if scores is None else scores), axis=1, kind="stable")
    by_rank = np.take_along_axis(probabilities, order, axis=1).astype(np.float64)
    ranks = np.arange(1, by_rank.shape[1] + 1)
    gains = {"mrr": 1.0 / ranks}
    for k in ks:
        gains[f"hit@{k}"] = (ranks <= k).astype(np.float64)
        gains[f"ndcg@{k}"] = np.where(ranks <= k, 1.0 / np.log2(ranks + 1), 0.0)
    found = {}
    for name, gain in gains.items():
        mean = by_rank @ gain
        found[name] = Gains(mean, np.maximum(by_rank @ gain**2 - mean**2, 0))
    return found


def mean_ceiling(gains: Gains) -> Ceiling:
    """The mean over users; 95 % of test sets of these users would show a value inside."""
    half = 1.96 * float(np.sqrt(gains.variance.sum())) / len(gains.mean)
    mean = float(gains.mean.mean())
    return Ceiling(mean, mean - half, mean + half)


def click_ceiling(
    expected: Array,
    metric: Callable[[NDArray[np.int8], Array], float],
    *,
    draws: int,
    seed: int,
    scores: Array | None = None,
) -> Ceiling:
    """A metric of the truth (or of ``scores``) over labels drawn again and again from it."""
    rng = generator(seed, "labels")
    stated = expected if scores is None else scores
    values = [
        metric((rng.random(len(expected), dtype=np.float32) < expected).astype(np.int8), stated)
        for _ in range(draws)
    ]
    low, high = np.quantile(values, [0.025, 0.975])
    return Ceiling(float(np.mean(values)), float(low), float(high))
