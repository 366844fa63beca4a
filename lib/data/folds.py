"""Cross-validation folds as one small integer per row.

The test rows of a click log lie after its training days, so the honest estimate is a day held out,
or folds by day; random folds are optimistic: good for averaging models, not for judging them.
"""

import heapq
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["FoldMethod", "assign_folds", "combine_keys", "fold_sizes"]

FoldMethod = Literal["kfold", "stratified", "grouped", "stratified_grouped", "by_day"]
Folds = npt.NDArray[np.int16]
Codes = npt.NDArray[np.integer]


def assign_folds(
    method: FoldMethod,
    *,
    n_rows: int,
    n_splits: int,
    seed: int,
    label: npt.NDArray[np.int8] | None = None,
    group: Codes | None = None,
    day: Codes | None = None,
) -> Folds:
    """A fold from 0 for each row; a composite group is ``combine_keys`` of its parts.  -> (N,)

    >>> assign_folds("by_day", n_rows=4, n_splits=2, seed=1, day=np.array([3, 1, 1, 7])).tolist()
    [0, 0, 0, 1]
    """
    if not 2 <= n_splits <= n_rows:
        raise ValueError(f"{n_splits=} for {n_rows} rows, expected from 2 to the number of rows")
    rng = np.random.default_rng(seed)
    if method == "kfold":
        return _deal(rng.permutation(n_rows), n_splits)
    if method == "stratified":
        known = _require("label", label, n_rows, method)
        order = rng.permutation(n_rows)
        return _deal(order[np.argsort(known[order], kind="stable")], n_splits)
    if method == "by_day":
        return _by_day(_require("day", day, n_rows, method), n_splits)
    groups = _require("group", group, n_rows, method)
    weight = None if method == "grouped" else _require("label", label, n_rows, method)
    return _by_group(groups, weight, n_splits, rng)


def combine_keys(*keys: Codes) -> npt.NDArray[np.int64]:
    """One group number per distinct combination of keys, numbered in sorted order.

    >>> combine_keys(np.array([5, 5, 9]), np.array([1, 2, 1])).tolist()
    [0, 1, 2]
    """
    table = np.stack([np.asarray(key, np.int64) for key in keys], axis=1)
    _, codes = np.unique(table, axis=0, return_inverse=True)
    return codes.reshape(-1)


def fold_sizes(folds: Folds, label: npt.NDArray[np.int8]) -> list[dict[str, float]]:
    """Rows and click rate of each fold, for the page and for refusing lopsided folds."""
    return [
        {
            "fold": fold,
            "rows": int((folds == fold).sum()),
            "ctr": float(label[folds == fold].mean()),
        }
        for fold in range(int(folds.max(initial=-1)) + 1)
        if (folds == fold).any()
    ]


def _deal(order: npt.NDArray[np.int64], n_splits: int) -> Folds:
    folds = np.empty(len(order), np.int16)
    folds[order] = np.arange(len(order)) % n_splits
    return folds


def _by_day(day: Codes, n_splits: int) -> Folds:
    """Neighbouring days share a fold when there are more days than folds."""
    days, codes = np.unique(day, return_inverse=True)
    if len(days) < n_splits:
        raise ValueError(
            f"{len(days)} distinct days for {n_splits=}; ask for at most one fold a day"
        )
    return (codes.reshape(-1) * n_splits // len(days)).astype(np.int16)


def _by_group(group: Codes, label: Codes | None, n_splits: int, rng: np.random.Generator) -> Folds:
    """Whole groups, heaviest first, each into the fold that has least so far."""
    _, codes = np.unique(group, return_inverse=True)
    codes = codes.reshape(-1)
    rows = np.bincount(codes)
    if len(rows) < n_splits:
        raise ValueError(f"{len(rows)} groups for {n_splits=}; choose a finer group or fewer folds")
    weight = rows / rows.sum()
    if label is not None:
        clicks = np.bincount(codes, weights=label == 1)
        weight = weight + clicks / max(clicks.sum(), 1)  # rows and clicks count alike
    order = np.lexsort((rng.permutation(len(rows)), -weight))
    heap = [(0.0, fold) for fold in range(n_splits)]
    fold_of = np.empty(len(rows), np.int16)
    for number in order.tolist():
        load, fold = heapq.heappop(heap)
        fold_of[number] = fold
        heapq.heappush(heap, (load + float(weight[number]), fold))
    return fold_of[codes]


def _require(
    name: str, values: npt.NDArray[np.generic] | None, n_rows: int, method: str
) -> npt.NDArray[np.integer]:
    if values is None:
        raise ValueError(f"folds {method!r} need {name}; pass it or choose another method")
    if len(values) != n_rows:
        raise ValueError(f"{len(values)} values of {name} for {n_rows} rows; expected one each")
    return np.asarray(values)
