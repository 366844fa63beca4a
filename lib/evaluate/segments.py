"""Who is served well: groups of users and targets, and how concentrated recommendations are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.evaluate.checks import as_values, require_same_length
from lib.evaluate.scoring import Seen
from lib.evaluate.uncertainty import bootstrap_mean

__all__ = [
    "average_popularity", "by_number", "by_segment", "coverage", "gini", "history_length",
    "novelty", "popularity", "tail_share", "warmth",
]  # fmt: skip

Labels = NDArray[np.str_]


def novelty(targets: ArrayLike, seen: Seen) -> Labels:
    """ "repeat" where the user had the target before, else "novel".  (B,), CSR -> (B,)"""
    wanted = np.asarray(targets)
    offsets, items = seen
    if len(offsets) != len(wanted) + 1:
        raise ValueError(f"seen has {len(offsets)} offsets; expected {len(wanted)} users + 1")
    rows = np.repeat(np.arange(len(wanted)), np.diff(offsets))
    inside = np.asarray(items[offsets[0] : offsets[-1]])
    before = np.bincount(rows[inside == wanted[rows]], minlength=len(wanted)) > 0
    return np.where(before, "repeat", "novel")


def popularity(
    targets: ArrayLike, counts: NDArray[np.integer], edges: Sequence[int] = (1, 5, 20, 100)
) -> Labels:
    """How often the target was in training: "0", "1-4", "5-19", "20-99", "100+".  (B,) -> (B,)"""
    return _bucket(counts[np.asarray(targets)], edges)


def history_length(lengths: ArrayLike, edges: Sequence[int] = (5, 10, 20, 50)) -> Labels:
    """How many items came before the target: "0-4", "5-9", …, "50+".  (B,) -> (B,)"""
    return _bucket(np.asarray(lengths), edges)


def warmth(events: ArrayLike, at_least: int = 3) -> Labels:
    """ "warm" with three training events or more, else "cold" (as in CoLLM).  (B,) -> (B,)"""
    return np.where(np.asarray(events) >= at_least, "warm", "cold")


def by_number(name: str) -> tuple[int, str]:
    """Sorts names of segments by their first number; those without one come last, by name.

    >>> sorted(["20-99", "novel", "100+", "5-19"], key=by_number)
    ['5-19', '20-99', '100+', 'novel']
    """
    digits = "".join(letter for letter in name.split("-")[0] if letter.isdigit())
    return (int(digits) if digits else 2**31, name)


def by_segment(
    values: ArrayLike, labels: ArrayLike, order: Sequence[str] | None = None, *,
    draws: int = 10_000, seed: int = 0,
) -> list[dict[str, str | float]]:  # fmt: skip
    """One row a segment: n, share of users, mean and interval.  (B,), (B,) -> rows

    A segment named in ``order`` but empty keeps a row whose mean is NaN.
    """
    array, names = as_values("values", values), np.asarray(labels).astype(str)
    n = require_same_length(values=array, labels=names)
    rows: list[dict[str, str | float]] = []
    for name in order if order is not None else sorted(set(names.tolist()), key=by_number):
        inside = array[names == name]
        row: dict[str, str | float] = {"segment": name, "n": len(inside)}
        row |= {"share": len(inside) / n if n else float("nan")}
        if len(inside):
            mean = bootstrap_mean(inside, draws, seed)
            row |= {"mean": mean.value, "low": mean.low, "high": mean.high}
        else:
            row |= dict.fromkeys(("mean", "low", "high"), float("nan"))
        rows.append(row)
    return rows


def coverage(lists: NDArray[np.integer], n_items: int) -> float:
    """Share of the catalogue that is in at least one list; 0 in a list is padding.  (B, K)"""
    return float(np.count_nonzero(_exposure(lists, n_items)) / n_items)


def gini(lists: NDArray[np.integer], n_items: int) -> float:
    """How unequal exposure is: 0 all items alike, near 1 one item everywhere.  (B, K)

    Σ (2i − V − 1) x_i / (V Σ x), over items i = 1 … V in ascending order of exposure x.

    >>> gini(np.array([[1, 2], [3, 4]]), 4)
    0.0
    """
    exposure = np.sort(_exposure(lists, n_items))
    total = exposure.sum()
    if not total:
        return float("nan")
    place = 2 * np.arange(1, n_items + 1) - n_items - 1
    return float((place * exposure).sum() / (n_items * total))


def average_popularity(lists: NDArray[np.integer], counts: NDArray[np.integer]) -> float:
    """Mean training count of what is recommended.  (B, K), (V+1,)"""
    shown = np.asarray(lists)[np.asarray(lists) > 0]
    return float(counts[shown].mean()) if shown.size else float("nan")


def tail_share(lists: NDArray[np.integer], counts: NDArray[np.integer], head: float = 0.2) -> float:
    """Share of recommended places that go to items outside the most popular ``head``.  (B, K)"""
    if not 0 <= head <= 1:
        raise ValueError(f"head={head}; expected a share of the items between 0 and 1")
    n_items = len(counts) - 1
    by_count = np.argsort(-counts[1:], kind="stable") + 1
    in_head = np.zeros(len(counts), dtype=bool)
    in_head[by_count[: round(head * n_items)]] = True
    shown = np.asarray(lists)[np.asarray(lists) > 0]
    return float(1 - in_head[shown].mean()) if shown.size else float("nan")


def _exposure(lists: NDArray[np.integer], n_items: int) -> NDArray[np.intp]:
    ids = np.asarray(lists).ravel()
    if ids.size and (ids.min() < 0 or ids.max() > n_items):
        raise ValueError(f"lists hold ids from {ids.min()} to {ids.max()}; there are {n_items}")
    return np.bincount(ids, minlength=n_items + 1)[1:]


def _bucket(numbers: NDArray[np.integer], edges: Sequence[int]) -> Labels:
    if list(edges) != sorted(set(edges)) or not edges or edges[0] < 1:
        raise ValueError(f"edges={list(edges)}; expected ascending numbers from 1")
    borders = [0, *edges]
    names = [str(a) if b - a == 1 else f"{a}-{b - 1}" for a, b in zip(borders, edges, strict=False)]
    return np.array([*names, f"{edges[-1]}+"])[np.searchsorted(edges, numbers, side="right")]
