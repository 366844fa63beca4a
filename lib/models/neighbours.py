"""Ranking without learning: popularity, first-order Markov, and time-decayed item neighbours.

Counted in seconds from the training part, and a bar for everything that learns. Each function
takes the training sequences as CSR (offsets [U+1], items [E]) and returns a scorer: right-padded
windows of item ids, oldest first, (B, L) -> scores (B, V+1); column 0 is padding.

Neighbours, for a history h_1 ... h_n and each later item b:

    S[a, b]  = sum over training pairs of  gap_decay^(gap-1), times backward where b came before a
    score(b) = sum_k history_decay^(n-k)  S[h_k, b] / (n_a^source_power (n_b + 2)^target_power)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

__all__ = ["NeighbourConfig", "count_pairs", "markov", "neighbours", "popularity"]

Scores = NDArray[np.floating[Any]]
Ties = Literal["shared", "popular", "first"]
Scorer = Callable[[NDArray[Any]], Scores]
Matrix = Any  # scipy's csr_array has no type stubs
PAIRS_AT_ONCE = 4_000_000  # merged into the table together: a merge costs as much as the table
ADDED = 2  # keeps an item seen once from being all neighbours' best target


@dataclass(frozen=True, kw_only=True, slots=True)
class NeighbourConfig:
    """The recipe of ``neighbours``; tune it on validation targets."""

    gap_decay: float  # per step between the two items of a pair
    backward: float  # weight of pairs against the order of time
    source_power: float
    target_power: float
    history_decay: float  # per step back in the user's history
    max_gap: int  # pairs further apart are not counted

    def __post_init__(self) -> None:
        for name in ("gap_decay", "history_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, expected more than 0, at most 1"
                )
        if self.backward < 0 or self.max_gap < 1:
            raise ValueError(
                f"backward is {self.backward}, max_gap is {self.max_gap}; expected >= 0 and >= 1"
            )


def popularity(counts: NDArray[Any], *, ties: Ties = "shared") -> Scorer:
    """The training count of each item, whoever asks; ``first`` prefers the lower id.

    >>> popularity(np.array([0, 3, 1]))(np.array([[2], [1]])).tolist()
    [[0.0, 3.0, 1.0], [0.0, 3.0, 1.0]]
    """
    row = np.asarray(counts, dtype=np.float64)
    if _checked(ties) == "first":
        row = row - np.arange(len(row)) / len(row)  # less than one count

    def score(windows: NDArray[Any]) -> Scores:
        return np.tile(row, (len(windows), 1))

    return score


def markov(
    offsets: NDArray[Any], items: NDArray[Any], counts: NDArray[Any], *, ties: Ties = "shared"
) -> Scorer:
    """How often each item followed the last one, as a share of all that followed it.

    Items that followed equally often share a rank, or come in order of their training counts
    (``popular``), or of which transition the training part shows first (``first``).
    """
    table = count_pairs(offsets, items, n_items=len(counts) - 1, weights=[1.0]).astype(np.float64)
    totals = np.maximum(np.asarray(table.sum(axis=1)).ravel(), 1)
    if _checked(ties) == "first":
        table = table - 0.5 * _first_seen(offsets, items, table.shape[0])  # less than one count
    popular = np.asarray(counts, dtype=np.float64) / max(1, int(np.max(counts)))
    # one step of a share is at least 1 / total of the row: popularity must stay below that
    share_of_popularity = 0.5 / float(totals.max()) if ties == "popular" else 0.0

    def score(windows: NDArray[Any]) -> Scores:
        last = _newest(windows, 1)[:, 0]
        shares = table[last].toarray() / totals[last][:, None]
        return cast(Scores, shares + popular * share_of_popularity)

    return score


def neighbours(
    offsets: NDArray[Any], items: NDArray[Any], counts: NDArray[Any], config: NeighbourConfig
) -> Scorer:
    """Item-kNN over training pairs, with decay along time on both sides."""
    weights = [config.gap_decay**gap for gap in range(config.max_gap)]
    forward = count_pairs(offsets, items, n_items=len(counts) - 1, weights=weights)
    table = forward + config.backward * forward.T.tocsr() if config.backward else forward
    seen = np.asarray(counts, dtype=np.float64)
    left = sparse.diags_array(np.maximum(seen, 1) ** -config.source_power)
    right = sparse.diags_array((seen + ADDED) ** -config.target_power)
    table = (left @ table @ right).tocsr().astype(np.float32)

    def score(windows: NDArray[Any]) -> Scores:
        newest = _newest(windows, windows.shape[1])  # (B, L), newest first
        decays = config.history_decay ** np.arange(newest.shape[1])
        rows, columns = np.nonzero(newest)
        history = sparse.csr_array(
            (decays[columns].astype(np.float32), (rows, newest[rows, columns])),
            shape=(len(windows), table.shape[0]),
        )
        return cast(Scores, (history @ table).toarray())

    return score


def count_pairs(
    offsets: NDArray[Any], items: NDArray[Any], *, n_items: int, weights: list[float]
) -> Matrix:
    """Ordered pairs of one user, weighted by their gap.  -> sparse (V+1, V+1), [earlier, later]

    ``weights[g - 1]`` belongs to pairs g steps apart; an item beside itself is no pair.
    """
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    longest = int(np.diff(offsets).max(initial=0))
    shape = (n_items + 1, n_items + 1)
    total = sparse.csr_array(shape, dtype=np.float32)
    pending: list[tuple[NDArray[Any], ...]] = []
    for gap, weight in enumerate(weights[: max(0, longest - 1)], start=1):
        same = (owner[gap:] == owner[:-gap]) & (items[gap:] != items[:-gap])
        values = np.full(int(same.sum()), weight, dtype=np.float32)
        pending.append((items[:-gap][same], items[gap:][same], values))
        if sum(len(part[0]) for part in pending) >= PAIRS_AT_ONCE:
            total, pending = total + _summed(pending, shape), []
    return total + _summed(pending, shape)


def _summed(parts: list[tuple[NDArray[Any], ...]], shape: tuple[int, int]) -> Matrix:
    if not parts:
        return sparse.csr_array(shape, dtype=np.float32)
    rows, columns, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    return sparse.csr_array((values, (rows, columns)), shape)


def _first_seen(offsets: NDArray[Any], items: NDArray[Any], n_rows: int) -> Matrix:
    """Where each transition first occurs in the training part, 0..1.  -> sparse (V+1, V+1)"""
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    same = (owner[1:] == owner[:-1]) & (items[1:] != items[:-1])
    keys = items[:-1][same].astype(np.int64) * n_rows + items[1:][same]
    distinct, first = np.unique(keys, return_index=True)
    share = (first + 1) / (len(keys) + 1)
    return sparse.csr_array((share, (distinct // n_rows, distinct % n_rows)), (n_rows, n_rows))


def _checked(ties: Ties) -> Ties:
    if ties not in ("shared", "popular", "first"):
        raise ValueError(f"ties is {ties!r}, expected 'shared', 'popular' or 'first'")
    return ties


def _newest(windows: NDArray[Any], n: int) -> NDArray[Any]:
    """The last ``n`` items of right-padded windows, newest first, 0 where there are fewer."""
    lengths = np.count_nonzero(windows, axis=1)
    columns = lengths[:, None] - 1 - np.arange(n)
    newest = np.take_along_axis(windows, np.maximum(columns, 0), axis=1)
    return np.where(columns >= 0, newest, 0)
