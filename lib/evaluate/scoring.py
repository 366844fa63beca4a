"""What ranking needs of a catalogue: scores of some users, a block of columns at a time.

``Scores`` asks a function, ``Products`` multiplies vectors. Columns are distinct item rows: items
with the same vector share one. Arrays may be NumPy's or torch's on any device; torch is never
imported.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lib.evaluate.checks import Ints

__all__ = [
    "BLOCK_BYTES", "Matrix", "Products", "Scorer", "Scores", "Seen", "as_numpy", "check_block",
    "count_true", "plain", "seen_pairs",
]  # fmt: skip

BLOCK_COLUMNS = 8192  # item rows of a block: 4 MB at a width of 128, read from the cache
BLOCK_BYTES = 16 * 2**20  # of scores at a time: stay in the last-level cache while counted
LARGEST = 1e37  # below, sums of products can neither overflow float32 nor become NaN
NOTHING: Ints = np.empty(0, dtype=np.int64)


class Matrix(Protocol):
    """What a NumPy array and a torch tensor share here."""

    @property
    def shape(self) -> Any: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: Any, /) -> Any: ...


Scorer = Callable[[Any], Any]  # a slice of users -> scores (b, V+1), column 0 is padding
Seen = tuple[NDArray[np.integer], NDArray[np.integer]]  # CSR: offsets (B+1,), item ids


class Scores:
    """Scores from a function: one block of columns for each slice of users."""

    step = 256  # users at a time

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.n_items = scorer, 0

    def score(self, users: Any, wanted: Ints) -> tuple[Any, Iterable[tuple[int, Any]]]:
        scores = plain(self.scorer(users))[:, 1:]
        self.n_items = check_block(scores, wanted, len(users))
        return scores[np.arange(len(wanted)), wanted - 1], [(0, scores)]

    def columns(self, items: Ints) -> Ints:
        return items - 1

    def times(self, columns: Ints) -> Ints:
        return np.ones(len(columns), dtype=np.int64)

    def repeated(self, _first: int, _last: int) -> tuple[Ints, Ints]:
        return NOTHING, NOTHING


class Products:
    """Scores by products of vectors, a block of distinct item rows at a time.

    Matrix products need not give bitwise equal results for equal rows (measured: OpenBLAS differs
    by one ulp between the columns of a small product), which would break the ties of items with
    the same text. So each distinct row is scored once, and its copies are counted with it.
    """

    def __init__(self, items: Matrix) -> None:
        self.table, self.n_items = plain(items)[1:], max(0, len(items) - 1)
        self.places, self.doubles = np.arange(self.n_items), NOTHING
        self.counts: Ints | None = None
        if self.n_items:
            self._merge(*_distinct_rows(as_numpy(self.table)))
        self.width = max(1, min(len(self.table), BLOCK_COLUMNS))
        self.step = max(16, BLOCK_BYTES // (4 * self.width))
        self.largest = _largest(self.table)

    def _merge(self, first: Ints, places: Ints) -> None:
        if len(first) < self.n_items:
            self.table, self.places, counts = self.table[first], places, np.bincount(places)
            self.counts, self.doubles = counts, np.flatnonzero(counts > 1)

    def score(self, users: Any, wanted: Ints) -> tuple[Any, Iterable[tuple[int, Any]]]:
        _check_ids(wanted, self.n_items)
        people, columns = plain(users), self.columns(wanted)
        safe = _largest(people) * self.largest * self.table.shape[1] < LARGEST  # false for NaN
        if len(self.table) <= self.width:
            scores = self._product(people, 0, safe)
            return scores[np.arange(len(wanted)), columns], [(0, scores)]
        own = people @ self.table[columns].T  # a product too: half precision must round it alike
        blocks = ((first, self._product(people, first, safe))
                  for first in range(0, len(self.table), self.width))  # fmt: skip
        return own.diagonal(), blocks

    def _product(self, people: Any, first: int, safe: bool) -> Any:
        with np.errstate(over="ignore", invalid="ignore"):
            scores = people @ self.table[first : first + self.width].T
        if not safe:
            _refuse_nan(scores)
        return scores

    def columns(self, items: Ints) -> Ints:
        return self.places[items - 1]

    def times(self, columns: Ints) -> Ints:
        return np.ones(len(columns), np.int64) if self.counts is None else self.counts[columns]

    def repeated(self, first: int, last: int) -> tuple[Ints, Ints]:
        """Columns of a block that stand for several items, and for how many more."""
        low, high = np.searchsorted(self.doubles, [first, last])
        doubles = self.doubles[low:high]
        return doubles - first, self.times(doubles) - 1


def _largest(values: Any) -> float:
    return float(abs(values).max()) if len(values) and values.shape[1] else 0.0


def _distinct_rows(table: NDArray[Any]) -> tuple[Ints, Ints]:
    """First occurrence of each distinct row, and for each row its place among those."""
    rows = np.ascontiguousarray(table) + table.dtype.type(0)  # -0.0 becomes 0.0: equal, not alike
    everyone = np.arange(len(rows))
    if len(np.unique(_sums(rows))) == len(rows):  # equal rows have equal sums: none is equal
        return everyone, everyone
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first, inverse


def _sums(rows: NDArray[Any]) -> NDArray[np.uint64]:
    """A number of 64 bits for each row, from its bits alone."""
    bits = rows.view(np.uint32 if rows.dtype.itemsize % 4 == 0 else np.uint8)
    drawn = np.random.default_rng(0).integers(0, 2**63, bits.shape[1], dtype=np.uint64)
    odd: NDArray[np.uint64] = np.bitwise_or(drawn << np.uint64(1), np.uint64(1))
    total = np.zeros(len(rows), dtype=np.uint64)
    for column in range(bits.shape[1]):  # wraps around, which is as good
        total += bits[:, column] * odd[column]
    return total


def plain(values: Any) -> Any:
    """Detached from a gradient; NumPy's half precision becomes float32: it has no fast product."""
    if hasattr(values, "detach"):
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind != "f":
        return array.astype(np.float64)
    return array if array.itemsize > 2 else array.astype(np.float32)


def as_numpy(values: Any) -> NDArray[Any]:
    if not hasattr(values, "cpu"):
        return np.asarray(values)
    on_cpu = values.cpu()
    return np.asarray(on_cpu.float() if "bfloat16" in str(on_cpu.dtype) else on_cpu)


def count_true(mask: Any) -> Ints:
    """True entries of each row.  (b, V) -> (b,)"""
    if not isinstance(mask, np.ndarray):
        if mask.device.type != "cpu":
            return as_numpy(mask.sum(1))
        mask = mask.numpy()
    # one call a row counts at memory speed; sum(1) takes four times as long
    return np.fromiter((np.count_nonzero(row) for row in mask), np.int64, len(mask))


def seen_pairs(seen: Seen, start: int, stop: int, targets: Ints, n_items: int) -> tuple[Ints, Ints]:
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


def check_block(scores: Any, wanted: Ints, n_users: int) -> int:
    """Number of items behind a block of scores, once it is sound."""
    if scores.shape[0] != n_users:
        raise ValueError(f"{scores.shape[0]} rows of scores for {n_users} users; expected one each")
    _check_ids(wanted, int(scores.shape[1]))
    _refuse_nan(scores)
    return int(scores.shape[1])


def _check_ids(wanted: Ints, n_items: int) -> None:
    if len(wanted) and (wanted.min() < 1 or wanted.max() > n_items):
        bad = wanted[(wanted < 1) | (wanted > n_items)][0]
        raise ValueError(f"target {bad} is no item; ids run from 1 to {n_items}, 0 is padding")


def _refuse_nan(scores: Any) -> None:
    if isinstance(scores, np.ndarray):
        has_nan = bool(scores.size) and bool(np.isnan(scores.max()))
    else:
        has_nan = bool((scores != scores).any())
    if has_nan:
        raise ValueError(
            "scores hold NaN; a comparison with NaN is false, so its target would rank first. "
            "Check the embeddings or the model's last loss"
        )
