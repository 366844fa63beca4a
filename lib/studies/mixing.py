"""A sequence model's probabilities of the next item and its counted neighbours', mixed.

    score(j) = exp(h · E[j]) / Σ exp(h · E)  +  w · k(j) / Σ k

k is what item-kNN gives (lib/models/neighbours.py); the sums run over what can be recommended. A
trained model smooths rare pairs away, which counting remembers. w is chosen on validation targets,
with 0 among the choices, so that mixing can be refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.data.histories import Histories, Targets
from lib.evaluate import ranking
from lib.models.neighbours import Scorer

__all__ = ["WEIGHTS", "Asked", "choose_weight", "mix", "mixed_ranks", "mixed_scores"]

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Asked:
    """Targets, and the state of the model after the history before each.  (N), (N, D)"""

    targets: Targets
    states: Floats


def mixed_scores(
    states: Floats, items: Floats, windows: NDArray[Any], neighbours: Scorer, weight: float, *,
    filter_seen: bool,
) -> NDArray[np.float64]:  # fmt: skip
    """Scores of the catalogue, column 0 for padding.  (B, D), (V + 1, D), (B, L) -> (B, V + 1)

    >>> states, items = np.zeros((1, 1), "f"), np.zeros((3, 1), "f")
    >>> counted = lambda windows: np.array([[0.0, 1.0, 3.0]])
    >>> mixed_scores(states, items, np.zeros((1, 1), int), counted, 2.0, filter_seen=True)
    array([[0., 1., 2.]])
    """
    logits = (states @ items.T).astype(np.float64)
    free = np.ones(logits.shape, dtype=bool)
    if filter_seen:
        np.put_along_axis(free, windows.astype(np.int64), False, axis=1)
    free[:, 0] = False
    top = np.max(logits, axis=1, keepdims=True, where=free, initial=-np.inf)
    learnt = np.exp(logits - np.where(np.isfinite(top), top, 0.0))
    counted = np.asarray(neighbours(windows), dtype=np.float64)
    scores = _shares(learnt, free) + weight * _shares(counted, free)
    scores[:, 0] = 0.0
    return scores


def _shares(values: NDArray[np.float64], free: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Each value over the row's sum of what is free; nothing, where that sum is zero."""
    total = values.sum(axis=1, keepdims=True, where=free)
    return np.divide(values, total, out=np.zeros_like(values), where=total > 0)


def mixed_ranks(
    asked: Asked, items: Floats, histories: Histories, neighbours: Scorer, weight: float, *,
    max_len: int, filter_seen: bool,
) -> NDArray[np.float64]:  # fmt: skip
    """Rank of each target among all items.  -> (N,)"""
    targets, width = asked.targets, asked.states.shape[1]
    windows, _ = histories.windows(targets.users, targets.positions, max_len)
    joined = np.hstack([asked.states.astype(np.float64), windows])

    def score(part: NDArray[np.float64]) -> NDArray[np.float64]:
        states, read = part[:, :width].astype(np.float32), part[:, width:].astype(np.int64)
        return mixed_scores(states, items, read, neighbours, weight, filter_seen=filter_seen)

    seen = histories.seen(targets.users, targets.positions) if filter_seen else None
    return ranking.rank_targets(joined, score, histories.target_items(targets), seen)


def mix(
    valid: Asked, test: Asked, items: Floats, histories: Histories, neighbours: Scorer, *,
    max_len: int, filter_seen: bool,
) -> tuple[NDArray[np.float64], float]:  # fmt: skip
    """Choose the weight on ``valid``, then rank ``test`` with it.  -> ranks (N,), weight"""
    weight = choose_weight(valid, items, histories, neighbours, max_len=max_len,
                           filter_seen=filter_seen)  # fmt: skip
    return mixed_ranks(test, items, histories, neighbours, weight, max_len=max_len,
                       filter_seen=filter_seen), weight  # fmt: skip


def choose_weight(
    asked: Asked, items: Floats, histories: Histories, neighbours: Scorer, *, max_len: int,
    filter_seen: bool, weights: Sequence[float] = WEIGHTS,
) -> float:  # fmt: skip
    """The weight with the best NDCG@10; of equals the smallest."""
    found = {}
    for weight in sorted(weights):
        ranks = mixed_ranks(asked, items, histories, neighbours, weight, max_len=max_len,
                            filter_seen=filter_seen)  # fmt: skip
        found[weight] = float(ranking.ndcg(ranks, 10).mean())
    return max(found, key=found.__getitem__)
