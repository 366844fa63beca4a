"""Interactions: who met what when, as integers, whatever file they came from.

Readers yield frames of text ids; ``collect_interactions`` checks each row, counts what it drops,
and gives every user and item a number: numeric order where all ids are numbers, else sorted order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lib.data.blocks import RowCheck

__all__ = ["Interactions", "TimeUnit", "collect_interactions"]

TimeUnit = Literal["s", "ms", "us", "ns", "order"]
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
EARLIEST, LATEST = 631_152_000, 4_102_444_800  # 1990 and 2100, in seconds since 1970
FRAME = {
    "line": pl.UInt32,
    "user": pl.String,
    "item": pl.String,
    "parent": pl.String,
    "rating": pl.Float64,
    "time": pl.Float64,
}


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """Rows in the order of the file; ``users`` and ``items`` count from 0 into their keys."""

    users: NDArray[np.int32]  # [E]
    items: NDArray[np.int32]  # [E]
    times: NDArray[np.int64]  # [E], milliseconds since 1970, or the row number
    ratings: NDArray[np.float32] | None  # [E], NaN where unknown; None where the file has none
    user_keys: pl.Series
    item_keys: pl.Series
    parents: pl.Series | None  # parent_asin of each item key, where items are single variants
    has_times: bool
    n_raw: int  # rows in the files, before anything was dropped
    dropped: Mapping[str, int]
    repaired: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.users)

    def select(self, kept: NDArray[Any]) -> "Interactions":
        """The rows of a mask or an index; ids keep their numbers."""
        ratings = None if self.ratings is None else self.ratings[kept]
        return replace(
            self,
            users=self.users[kept],
            items=self.items[kept],
            times=self.times[kept],
            ratings=ratings,
        )

    def count_users(self) -> int:
        """Users with at least one row."""
        return int(np.count_nonzero(np.bincount(self.users)))

    def count_items(self) -> int:
        """Items with at least one row."""
        return int(np.count_nonzero(np.bincount(self.items)))


def collect_interactions(
    frames: Iterable[tuple[pl.DataFrame, RowCheck]], *, unit: TimeUnit, rated: bool
) -> Interactions:
    """Check and number the rows of all blocks; ``unit`` is what the file's times are given in."""
    kept: list[pl.DataFrame] = []
    checks: dict[int, RowCheck] = {}
    has_parents = False
    for frame, check in frames:
        checks[id(check)] = check
        good = _checked(frame, check, unit)
        if rated and good["rating"].has_nulls():
            unrated = good.filter(pl.col("rating").is_null())["line"]
            check.repair("no rating, read as unknown", unrated[0], len(unrated))
        has_parents = has_parents or not good["parent"].is_null().all()
        kept.append(good.drop("line"))
        check.stop_if_too_many()
    for check in checks.values():
        check.stop_if_too_many(final=True)
    table = pl.concat(kept, rechunk=False) if kept else pl.DataFrame(schema=FRAME)
    if table.is_empty():
        names = ", ".join(str(check.path) for check in checks.values()) or "no file"
        raise ValueError(f"{names}: not one usable row; expected interactions")
    users, user_keys = _numbered(table["user"])
    items, item_keys = _numbered(table["item"])
    parents = _parents_of(table, items, len(item_keys)) if has_parents else None
    return Interactions(
        users=users,
        items=items,
        times=_milliseconds(table["time"], unit),
        ratings=table["rating"].cast(pl.Float32).fill_null(np.nan).to_numpy() if rated else None,
        user_keys=user_keys,
        item_keys=item_keys,
        parents=parents,
        has_times=unit != "order",
        n_raw=sum(check.n_rows for check in checks.values()),
        dropped=_total([check.dropped for check in checks.values()]),
        repaired=_total([check.repaired for check in checks.values()]),
    )


def _checked(frame: pl.DataFrame, check: RowCheck, unit: TimeUnit) -> pl.DataFrame:
    """Drop and count rows without user, item or believable time."""
    user, item, time = pl.col("user"), pl.col("item"), pl.col("time")
    problems = {
        "no user id": user.is_null() | (user.str.strip_chars() == ""),
        "no item id": item.is_null() | (item.str.strip_chars() == ""),
        "negative id": user.str.contains(r"^\s*-\d+\s*$") | item.str.contains(r"^\s*-\d+\s*$"),
    }
    if unit != "order":
        _refuse_other_unit(frame["time"], check, unit)
        low, high = EARLIEST * PER_SECOND[unit], LATEST * PER_SECOND[unit]
        problems["no time"] = time.is_null() | time.is_nan()
        problems[f"time outside 1990..2100 in {unit}"] = ~time.is_between(low, high)
    for kind, problem in problems.items():
        wrong = frame.select(problem.fill_null(False).alias("wrong"))["wrong"]
        if wrong.any():
            check.drop(kind, cast(int, frame.filter(wrong)["line"][0]), int(wrong.sum()))
            frame = frame.filter(~wrong)
    return frame


def _refuse_other_unit(times: pl.Series, check: RowCheck, unit: TimeUnit) -> None:
    known = times.drop_nulls()
    for other, factor in PER_SECOND.items():
        fits = int(known.is_between(EARLIEST * factor, LATEST * factor).sum())
        if other != unit and fits > len(known) / 2:
            raise ValueError(
                f"{check.path}: times look like {other!r} (for example {known[0]:.0f}), not "
                f"{unit!r}. Set time_unit to {other!r}"
            )


def _numbered(keys: pl.Series) -> tuple[NDArray[np.int32], pl.Series]:
    """Number the distinct keys; numeric order where all are whole numbers, else sorted."""
    distinct = keys.unique()
    numeric = distinct.str.contains(r"^\d{1,18}$").all()
    order = distinct.cast(pl.Int64).arg_sort() if numeric else distinct.arg_sort()
    distinct = distinct.gather(order).alias("key")
    if len(distinct) >= 2**31:
        raise ValueError(f"{len(distinct)} distinct ids, expected fewer than 2^31")
    lookup = distinct.to_frame().with_columns(
        pl.int_range(len(distinct), dtype=pl.Int32).alias("number")
    )
    joined = keys.alias("key").to_frame().join(lookup, on="key", how="left", maintain_order="left")
    return joined["number"].to_numpy(), distinct


def _parents_of(table: pl.DataFrame, items: NDArray[np.int32], n_items: int) -> pl.Series:
    """The first parent that the file gives for each item."""
    first = (
        pl.DataFrame({"item": items, "parent": table["parent"]})
        .drop_nulls()
        .unique("item", keep="first", maintain_order=True)
    )
    every = pl.DataFrame({"item": np.arange(n_items, dtype=np.int32)})
    return every.join(first, on="item", how="left", maintain_order="left")["parent"]


def _milliseconds(times: pl.Series, unit: TimeUnit) -> NDArray[np.int64]:
    values = times.to_numpy()
    if unit == "order":
        return np.arange(len(values), dtype=np.int64)
    # A double holds whole microseconds until the year 2255, and nanoseconds to a quarter of one.
    return np.rint(values * (1000 / PER_SECOND[unit])).astype(np.int64)


def _total(counters: list[Any]) -> dict[str, int]:
    out: dict[str, int] = {}
    for counter in counters:
        for kind, count in counter.items():
            out[kind] = out.get(kind, 0) + count
    return dict(sorted(out.items()))
