"""Rank of each user's target among all items, and every ranking measure from that one vector.

Law: rank = 1 + (items scored higher) + (other items scored equally) / 2, so a constant scorer gets
the middle rank and no order of the catalogue can flatter a model. Higher is better for every
measure except the rank itself. Population: all users handed in; a user for whom nothing could be
recommended has rank infinity and counts as zero. Values per user come first, means second.
Arrays may be NumPy arrays or torch tensors on any device: only operators are used, torch is never
imported, and the ranks come back as NumPy.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.evaluate.checks import Floats, Ints

__all__ = ["hit", "mrr", "ndcg", "rank_targets", "recall", "summarise", "top_items"]

BLOCK_BYTES = 16 * 2**20  # of scores at a time: stays in the last-level cache while it is counted


class Matrix(Protocol):
    """What a NumPy array and a torch tensor share here."""

    @property
    def shape(self) -> Any: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: Any, /) -> Any: ...


Scorer = Callable[[Any], Any]  # a slice of users -> scores (b, V+1), column 0 is padding
Seen = tuple[NDArray[np.integer], NDArray[np.integer]]  # CSR: offsets (B+1,), item ids


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
    target_ids = _as_targets(targets, len(users), seen)
    score, columns, repeated, extra = _scorer(items)
    step = chunk or _chunk(items)
    ranks = np.empty(len(target_ids))
    for start in range(0, len(target_ids), step):
        stop = min(start + step, len(target_ids))
        scores, wanted = score(users[start:stop]), target_ids[start:stop]
        n_items = _check_block(scores, wanted, stop - start, columns)
        rows = np.arange(stop - start)
        own = scores[rows, _column(columns, wanted)]
        beside = own[:, None]
        higher = _count(scores > beside)
        equal = _count(scores == beside) - 1  # the target equals itself
        if len(repeated):
            copies = scores[:, repeated]
            higher += _numpy(copies > beside) @ extra
            equal += _numpy(copies == beside) @ extra
        if seen is not None:
            who, what = _seen_pairs(seen, start, stop, wanted, n_items)
            theirs = scores[who, _column(columns, what)]
            n = stop - start
            higher -= np.bincount(who[_numpy(theirs > own[who])], minlength=n)
            equal -= np.bincount(who[_numpy(theirs == own[who])], minlength=n)
        ranks[start:stop] = 1 + higher + equal / 2
    return ranks


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
    step = chunk or _chunk(items)
    score, columns, _, _ = _scorer(items, merge=False)
    best = np.zeros((len(users), _as_cutoff(k)), dtype=np.int32)
    for start in range(0, len(users), step):
        stop = min(start + step, len(users))
        worth = -_numpy(score(users[start:stop]))  # a copy, ascending: the best is the smallest
        nobody = np.zeros(stop - start, dtype=np.int64)
        n_items = _check_block(worth, nobody + 1, stop - start, columns)
        if seen is not None:
            who, what = _seen_pairs(seen, start, stop, nobody, n_items)
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


def _scorer(items: Matrix | Scorer, merge: bool = True) -> tuple[Scorer, Ints | None, Ints, Ints]:
    """Function that scores a slice of users, each item's column, and columns that count more often.

    Matrix products need not give bitwise equal results for equal rows (measured: OpenBLAS differs
    by one ulp between the columns of a small product), which would break the ties of items with
    the same text. So each distinct row is scored once, and its copies are counted with it.
    """
    none = np.empty(0, dtype=np.int64)
    if callable(items):
        return (lambda users: _plain(items(users))[:, 1:]), None, none, none
    table = _plain(items)[1:]
    columns, repeated, extra = np.arange(len(table)), none, none
    if merge and len(table):
        first, inverse = _distinct_rows(_numpy(table))
        if len(first) < len(table):
            times = np.bincount(inverse)
            columns, table, repeated = inverse, table[first], np.flatnonzero(times > 1)
            extra = times[repeated] - 1

    def score(users: Any) -> Any:
        with np.errstate(over="ignore", invalid="ignore"):  # NaN and overflow are refused later
            return _plain(users) @ table.T

    return score, columns, repeated, extra


def _distinct_rows(table: NDArray[Any]) -> tuple[Ints, Ints]:
    """First occurrence of each distinct row, and for each row its place among those."""
    rows = np.ascontiguousarray(table) + table.dtype.type(0)  # -0.0 becomes 0.0: equal, not alike
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first, inverse


def _plain(values: Any) -> Any:
    """Detached from a gradient; NumPy's half precision becomes float32: it has no fast product."""
    if hasattr(values, "detach"):
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind != "f":
        return array.astype(np.float64)
    return array if array.itemsize > 2 else array.astype(np.float32)


def _numpy(values: Any) -> NDArray[Any]:
    if not hasattr(values, "cpu"):
        return np.asarray(values)
    on_cpu = values.cpu()
    return np.asarray(on_cpu.float() if "bfloat16" in str(on_cpu.dtype) else on_cpu)


def _count(mask: Any) -> Ints:
    """True entries of each row.  (b, V) -> (b,)"""
    if isinstance(mask, np.ndarray):  # one call a row counts at memory speed; sum(1) takes 4 x
        return np.fromiter((np.count_nonzero(row) for row in mask), np.int64, len(mask))
    return _numpy(mask.sum(1))


def _column(columns: Ints | None, item_ids: Ints) -> Ints:
    return item_ids - 1 if columns is None else columns[item_ids - 1]


def _chunk(items: Matrix | Scorer) -> int:
    return 256 if callable(items) else max(16, BLOCK_BYTES // (4 * max(1, len(items))))


def _seen_pairs(
    seen: Seen, start: int, stop: int, targets: Ints, n_items: int
) -> tuple[Ints, Ints]:
    """Distinct (row, item) of the seen items of users start:stop, without padding and targets."""
    offsets, items = seen
    lengths = np.diff(offsets[start : stop + 1])
    rows = np.repeat(np.arange(stop - start), lengths)
    ids = np.asarray(items[offsets[start] : offsets[stop]], dtype=np.int64)
    if len(ids) and (ids.min() < 0 or ids.max() > n_items):
        raise ValueError(f"seen items run from {ids.min()} to {ids.max()}; there are {n_items}")
    keep = (ids != targets[rows]) & (ids != 0)
    base = n_items + 1
    keys = np.unique(rows[keep] * base + ids[keep])
    return keys // base, keys % base


def _as_targets(targets: ArrayLike, n_users: int, seen: Seen | None) -> Ints:
    ids = np.asarray(_numpy(targets), dtype=np.int64)
    if ids.shape != (n_users,):
        raise ValueError(f"targets have shape {ids.shape}; expected ({n_users},), one a user")
    if seen is not None and len(seen[0]) != n_users + 1:
        raise ValueError(f"seen has {len(seen[0])} offsets; expected {n_users} users + 1")
    return ids


def _check_block(scores: Any, targets: Ints, n_users: int, columns: Ints | None) -> int:
    """Number of items behind a block of scores, once it is sound."""
    width = int(scores.shape[1]) if columns is None else len(columns)
    if scores.shape[0] != n_users:
        raise ValueError(f"{scores.shape[0]} rows of scores for {n_users} users; expected one each")
    if len(targets) and (targets.min() < 1 or targets.max() > width):
        bad = targets[(targets < 1) | (targets > width)][0]
        raise ValueError(f"target {bad} is no item; ids run from 1 to {width}, 0 is padding")
    if isinstance(scores, np.ndarray):
        has_nan = bool(scores.size) and bool(np.isnan(scores.max()))
    else:
        has_nan = bool((scores != scores).any())
    if has_nan:
        raise ValueError(
            "scores hold NaN; a comparison with NaN is false, so its target would rank first. "
            "Check the embeddings or the model's last loss"
        )
    return width


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
