"""Which interactions are kept: each step is a pure function, and the funnel counts what it leaves.

The order is fixed: rating, titles, repeats, then time window and k-core together (a window that is
too small moves its start back by years), and at last the clipping of long histories.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lib.data.interactions import Interactions

__all__ = [
    "Filters",
    "Funnel",
    "Sequences",
    "arrange",
    "deduplicate",
    "filter_interactions",
    "k_core",
]

Repeats = Literal["keep", "exact", "first", "last"]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
EARLIEST_YEAR = 1996


@dataclass(frozen=True, kw_only=True, slots=True)
class Filters:
    """What is kept; 0 or an empty text switches a filter off."""

    min_rating: float
    repeats: Repeats  # of one user and item: keep all, drop exact copies, keep first or last
    user_core: int  # interactions that each user must have left
    item_core: int
    start: str  # ISO date, inclusive, UTC
    end: str  # ISO date, exclusive, UTC
    min_items: int  # a window with fewer items begins a year earlier, back to 1996
    max_users: int = 0  # a fixed random sample of the users that are left

    def __post_init__(self) -> None:
        numbers = ("min_rating", "user_core", "item_core", "min_items", "max_users")
        for name in numbers:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 (off) or more")
        if self.min_items and not self.start:
            raise ValueError(f"min_items is {self.min_items} but start is empty; name a first date")


class Funnel:
    """Rows, users and items after each step, from the raw file to the kept sequences."""

    def __init__(self) -> None:
        self.steps: list[dict[str, object]] = []

    def add(self, step: str, kept: Interactions) -> None:
        """Note what is left after ``step``."""
        counts = {"rows": len(kept), "users": kept.count_users(), "items": kept.count_items()}
        self.steps.append({"step": step, **counts})

    def frame(self) -> pl.DataFrame:
        """One row a step, with the share of raw rows that is left."""
        table = pl.DataFrame(self.steps)
        share = pl.col("rows") / pl.col("rows").first()
        return table.with_columns(share.alias("share of rows"))


@dataclass(frozen=True)
class Sequences:
    """Kept interactions as CSR, items from 1; ``item_numbers[i - 1]`` is item i's number before."""

    items: Int32
    times: Int64
    offsets: Int64
    item_numbers: Int64


def filter_interactions(
    raw: Interactions, filters: Filters, allowed: NDArray[np.bool_] | None = None
) -> tuple[Interactions, Funnel]:
    """Apply all filters in order; ``allowed`` says for each item whether it may stay."""
    funnel, kept = Funnel(), raw
    funnel.steps.append(
        {"step": "rows in the files", "rows": raw.n_raw, "users": None, "items": None}
    )
    for problem, count in raw.dropped.items():
        rest = cast(int, funnel.steps[-1]["rows"]) - count
        funnel.steps.append(
            {"step": f"without: {problem}", "rows": rest, "users": None, "items": None}
        )
    funnel.add("readable", kept)
    if filters.min_rating:
        if kept.ratings is None:
            raise ValueError(f"min_rating is {filters.min_rating} but the source has no ratings")
        kept = kept.select(kept.ratings >= filters.min_rating)
        funnel.add(f"rating at least {filters.min_rating:g}", kept)
    if allowed is not None:
        kept = kept.select(allowed[kept.items])
        funnel.add("items with a usable title", kept)
    if filters.repeats != "keep":
        kept = deduplicate(kept, filters.repeats)
        funnel.add(f"repeats: {filters.repeats}", kept)
    kept = _window_and_core(kept, filters, funnel)
    if filters.max_users and kept.count_users() > filters.max_users:
        kept = _sample_users(kept, filters.max_users)
        funnel.add(f"{filters.max_users:,} users, drawn at random", kept)
    if not len(kept):
        left = ", ".join(f"{step['step']}: {step['rows']}" for step in funnel.steps)
        raise ValueError(
            f"no interaction is left ({left}). Loosen the filter that removed the last"
        )
    return kept, funnel


def deduplicate(rows: Interactions, repeats: Repeats) -> Interactions:
    """Keep one row of each user and item: the first or last in time, or all but exact copies.

    Rows of equal time count in the order of the file.
    """
    if repeats == "keep":
        return rows
    if repeats not in ("exact", "first", "last"):
        raise ValueError(f"repeats is {repeats!r}, expected 'keep', 'exact', 'first' or 'last'")
    order = np.lexsort((rows.times, rows.items, rows.users))
    fresh = np.ones(len(rows) + 1, dtype=bool)  # does a new (user, item) begin here?
    same = (np.diff(rows.users[order]) == 0) & (np.diff(rows.items[order]) == 0)
    if repeats == "exact":
        same &= np.diff(rows.times[order]) == 0
    fresh[1:-1] = ~same
    kept = fresh[1:] if repeats == "last" else fresh[:-1]
    return rows.select(np.sort(order[kept[: len(rows)]]))


def k_core(rows: Interactions, user_core: int, item_core: int) -> Interactions:
    """Drop users and items below their minimum until none is left that is."""
    users, items = rows.users, rows.items
    index = np.arange(len(rows))
    while len(index):
        good = np.bincount(users)[users] >= user_core
        good &= np.bincount(items)[items] >= item_core
        if good.all():
            break
        users, items, index = users[good], items[good], index[good]
    return rows.select(index)


def arrange(rows: Interactions, max_history: int = 0) -> Sequences:
    """Sort by user and time, equal times in the order of the file, and number what is left.

    ``max_history``: newest interactions kept of each user; 0 keeps all.
    """
    if max_history < 0:
        raise ValueError(f"max_history is {max_history}, expected 0 (all) or more")
    order = np.lexsort((rows.times, rows.users))
    users, items, times = rows.users[order], rows.items[order], rows.times[order]
    if max_history:
        ends = np.cumsum(np.bincount(users))
        recent = ends[users] - np.arange(len(users)) <= max_history
        users, items, times = users[recent], items[recent], times[recent]
    lengths = np.bincount(users)
    present = np.flatnonzero(np.bincount(items))
    numbers = np.zeros(int(items.max()) + 1, dtype=np.int32)
    numbers[present] = np.arange(1, len(present) + 1)
    offsets = np.concatenate([[0], np.cumsum(lengths[lengths > 0])]).astype(np.int64)
    return Sequences(numbers[items], times, offsets, present)


def _window_and_core(rows: Interactions, filters: Filters, funnel: Funnel) -> Interactions:
    dated = filters.start or filters.end
    if dated and not rows.has_times:
        raise ValueError(
            f"start={filters.start!r}, end={filters.end!r} but the source has no times"
        )
    start = datetime.fromisoformat(filters.start) if filters.start else None
    end = datetime.fromisoformat(filters.end) if filters.end else None
    while True:
        windowed = _between(rows, start, end) if dated else rows
        kept = k_core(windowed, filters.user_core, filters.item_core)
        if start is None or kept.count_items() >= filters.min_items or start.year <= EARLIEST_YEAR:
            break
        start = start.replace(year=start.year - 1, day=min(start.day, 28))
    if dated:
        first = start.date().isoformat() if start else "the beginning"
        last = end.date().isoformat() if end else "the end"
        funnel.add(f"from {first} to {last}", windowed)
    if filters.user_core > 1 or filters.item_core > 1:
        funnel.add(f"{filters.user_core}-core of users, {filters.item_core}-core of items", kept)
    return kept


def _sample_users(rows: Interactions, n: int) -> Interactions:
    """Whole users, always the same ones; items that only others had are gone."""
    users = np.unique(rows.users)
    drawn = np.random.default_rng(0).choice(users, n, replace=False)
    return rows.select(np.isin(rows.users, drawn))


def _between(rows: Interactions, start: datetime | None, end: datetime | None) -> Interactions:
    low = _milliseconds(start) if start else np.iinfo(np.int64).min
    high = _milliseconds(end) if end else np.iinfo(np.int64).max
    return rows.select((rows.times >= low) & (rows.times < high))


def _milliseconds(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)
