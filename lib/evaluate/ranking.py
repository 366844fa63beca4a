"""Rank of each user's target among all items, and every ranking measure from that one vector.

Law: rank = 1 + (items scored higher) + (other items scored equally) / 2, so a constant scorer gets
the middle rank and no order of the catalogue can flatter a model. Higher is better for every
measure except the rank itself. Population: all users handed in; a user for whom nothing could be
recommended has rank infinity and counts as zero. Values per user come first, means second.
Arrays may be NumPy arrays or torch tensors on any device: only operators are used, torch is never
imported, and the ranks come back as NumPy.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.evaluate.checks import Floats, Ints
from lib.evaluate.scoring import (
    BLOCK_BYTES,
    Matrix,
    Products,
    Scorer,
    Scores,
    Seen,
    as_numpy,
    check_block,
    count_true,
    plain,
    seen_pairs,
)

__all__ = ["hit", "mrr", "ndcg", "rank_targets", "recall", "summarise", "top_items"]


def rank_targets(
    users: Matrix,
    items: Matrix | Scorer,
    targets: ArrayLike,
    seen: Seen | None = None,
    *,
    chunk: int | None = None,
) -> Floats:
    """Rank of each target among all items.  (B, D), (V+1, D), (B,) -> (B,)

    Row 0 of ``items`` is padding and takes no part. ``items`` may be a function that scores a
    slice of users, (b, V+1). With ``seen`` the user's earlier items are left out of the count,
    except the target itself, which stays rankable when it is a repeat.

    >>> rank_targets(np.array([[1.0]]), np.array([[9.0], [0.9], [0.5], [0.5]]), [2]).tolist()
    [2.5]
    """
    wanted = _as_targets(targets, len(users), seen)
    catalogue = Scores(items) if callable(items) else Products(items)
    step = chunk or catalogue.step
    ranks = np.empty(len(wanted))
    for start in range(0, len(wanted), step):
        part = slice(start, min(start + step, len(wanted)))
        ranks[part] = _rank_part(users[part], catalogue, wanted[part], seen, part)
    return ranks


def _rank_part(
    users: Any, catalogue: Scores | Products, wanted: Ints, seen: Seen | None, part: slice
) -> Floats:
    """Ranks of some users' targets, a block of columns at a time.

    What takes no part (the target itself, seen items) is counted with the rest and then taken off
    again: a handful of scores instead of a mask over all of them.
    """
    n = len(wanted)
    own, blocks = catalogue.score(users, wanted)
    rows, beside = np.arange(n), own[:, None]
    target_columns = catalogue.columns(wanted)
    who, theirs = rows, target_columns
    taken = catalogue.times(target_columns)
    equal = taken - 1  # copies of the target's own row, whatever rounding makes of them
    higher = np.zeros(n, dtype=np.int64)
    if seen is not None:
        others, items = seen_pairs(seen, part.start, part.stop, wanted, catalogue.n_items)
        places = catalogue.columns(items)
        copies = places == target_columns[others]
        equal -= np.bincount(others[copies], minlength=n)
        who, theirs = np.r_[who, others[~copies]], np.r_[theirs, places[~copies]]
        taken = np.r_[taken, np.ones(len(who) - n, dtype=np.int64)]
    for first, scores in blocks:
        above, level = scores > beside, scores == beside
        higher += count_true(above)
        equal += count_true(level)
        doubles, extra = catalogue.repeated(first, first + scores.shape[1])
        if len(doubles):
            higher += as_numpy(above[:, doubles]) @ extra
            equal += as_numpy(level[:, doubles]) @ extra
        here = np.flatnonzero((theirs >= first) & (theirs < first + scores.shape[1]))
        row, column, times = who[here], theirs[here] - first, taken[here]
        higher -= np.bincount(row, as_numpy(above[row, column]) * times, n).astype(np.int64)
        equal -= np.bincount(row, as_numpy(level[row, column]) * times, n).astype(np.int64)
    return 1 + higher + equal / 2


def hit(ranks: ArrayLike, k: int) -> Floats:
    """1 where the target is among the first k, else 0.  (B,) -> (B,)"""
    return (_as_ranks(ranks) <= _as_cutoff(k)).astype(np.float64)


def recall(ranks: ArrayLike, k: int) -> Floats:
    """Share of a user's targets among the first k; with one target a user it is the hit."""
    return hit(ranks, k)


def ndcg(ranks: ArrayLike, k: int) -> Floats:
    """1 / log2(1 + rank) within the first k, else 0; the ideal gain of one target is 1. (B,)

    Järvelin and Kekäläinen (2002), binary gain.

    >>> ndcg([1.0, 3.0, 11.0], k=10).tolist()
    [1.0, 0.5, 0.0]
    """
    valid = _as_ranks(ranks)
    return np.where(valid <= _as_cutoff(k), 1 / np.log2(1 + valid), 0.0)


def mrr(ranks: ArrayLike, k: int | None = None) -> Floats:
    """1 / rank, cut to 0 behind k where a cut-off is given.  (B,) -> (B,)"""
    valid = _as_ranks(ranks)
    return 1 / valid if k is None else np.where(valid <= _as_cutoff(k), 1 / valid, 0.0)


def summarise(
    ranks: ArrayLike,
    ks: Sequence[int] = (1, 5, 10, 20),
    measures: Sequence[Literal["hit", "recall", "ndcg", "mrr"]] = ("hit", "ndcg", "mrr"),
) -> dict[str, float]:
    """Means over all users, ``{"hit@10": …, "ndcg@10": …, "mrr": …, "n_users": …}``.

    >>> summarise([1.0, 20.0], ks=[10], measures=["hit"])
    {'hit@10': 0.5, 'mrr': 0.525, 'n_users': 2.0}
    """
    valid = _as_ranks(ranks)
    if not len(valid):
        raise ValueError("no ranks to summarise; a mean over no users is not a result")
    functions = {"hit": hit, "recall": recall, "ndcg": ndcg, "mrr": mrr}
    means = {
        f"{name}@{k}": float(functions[name](valid, k).mean()) for name in measures for k in ks
    }
    return means | {"mrr": float(mrr(valid).mean()), "n_users": float(len(valid))}


def top_items(
    users: Matrix, items: Matrix | Scorer, k: int, seen: Seen | None = None, *,
    chunk: int | None = None,
) -> NDArray[np.int32]:  # fmt: skip
    """The k best items of each user, best first; 0 where fewer are left.  (B, D) -> (B, K)

    Equal scores come in order of item id: lists need an order, ranks above do not.
    """
    table: Any = None if callable(items) else plain(items)[1:]
    step = chunk or (256 if table is None else max(16, BLOCK_BYTES // (4 * max(1, len(table)))))
    best = np.zeros((len(users), _as_cutoff(k)), dtype=np.int32)
    for start in range(0, len(users), step):
        stop = min(start + step, len(users))
        part = users[start:stop]
        scores = plain(items(part))[:, 1:] if callable(items) else plain(part) @ table.T
        worth = -as_numpy(scores)  # a copy, ascending: the best is the smallest
        nobody = np.zeros(stop - start, dtype=np.int64)
        n_items = check_block(worth, nobody + 1, stop - start)
        if seen is not None:
            who, what = seen_pairs(seen, start, stop, nobody, n_items)
            worth[who, what - 1] = np.nan  # sorts behind everything, a score of -infinity included
        width = min(k, n_items)
        # a value at the border may be tied: everything as good as it must enter the sort
        border = np.partition(worth, width - 1, axis=1)[:, width - 1, None]
        rows, places = np.nonzero((worth <= border) | (np.isnan(border) & ~np.isnan(worth)))
        order = np.lexsort((places, worth[rows, places], rows))
        rows, places = rows[order], places[order]
        within = np.arange(len(rows)) - np.searchsorted(rows, np.arange(stop - start))[rows]
        kept = within < width
        best[start + rows[kept], within[kept]] = places[kept] + 1
    return best


def _as_targets(targets: ArrayLike, n_users: int, seen: Seen | None) -> Ints:
    ids = np.asarray(as_numpy(targets), dtype=np.int64)
    if ids.shape != (n_users,):
        raise ValueError(f"targets have shape {ids.shape}; expected ({n_users},), one a user")
    if seen is not None and len(seen[0]) != n_users + 1:
        raise ValueError(f"seen has {len(seen[0])} offsets; expected {n_users} users + 1")
    return ids


def _as_ranks(ranks: ArrayLike) -> Floats:
    array = np.asarray(ranks, dtype=np.float64)
    if not np.all(array >= 1):  # also false for NaN
        bad = array[~(array >= 1)].ravel()[0]
        raise ValueError(f"rank {bad} found; ranks start at 1 (infinity: nothing recommended)")
    return array


def _as_cutoff(k: int) -> int:
    if k < 1:
        raise ValueError(f"cut-off k={k}; expected at least 1")
    return k
