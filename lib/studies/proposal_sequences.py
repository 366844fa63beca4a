"""A person's interactions looked at: who met what and when, how much there is, what has a title.

Everything is counted on the whole file, because a core (users and items with enough rows each)
can only be found on all of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from lib.data.sources import read_interactions
from lib.studies.proposal_columns import (
    Column,
    as_text,
    cleaned,
    describe_column,
    number_of,
    time_of,
)
from lib.studies.proposal_files import Table, collect
from lib.studies.proposal_roles import find_column, find_role
from lib.studies.proposal_titles import count_titles, no_titles, read_titles, titles_inside

__all__ = ["SequenceChoices", "SequenceLook", "look_at_sequences"]

CORES = ((5, 5), (3, 3), (3, 2), (2, 2), (2, 1))
KEPT = 0.7  # share of the rows that a core should leave
LEAST_USERS, LEAST_ITEMS = 20, 10
SAMPLE_ROWS = 200_000  # that kinds of columns are judged on
DAY = 86_400_000
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SequenceChoices:
    """What a person decides; empty is left to the proposal, "none" says there is no such column."""

    user: str = ""
    item: str = ""
    time: str = ""
    rating: str = ""
    key: str = ""
    title: str = ""
    group: str = ""
    split: str = ""


@dataclass(frozen=True, kw_only=True)
class SequenceLook:
    """``rows``: user, item, and where known rating and time (milliseconds), as text and numbers.

    ``titles``: key, title, group of items.
    """

    columns: tuple[Column, ...]
    roles: Mapping[str, str]
    rows: pl.DataFrame
    titles: pl.DataFrame
    title_roles: Mapping[str, str]
    n_users: int
    n_items: int
    repeats: float  # share of rows whose user has met the item before
    core: tuple[int, int]
    kept: tuple[int, int, int]  # rows, users, items that the core leaves
    length: int  # of nine in ten histories, at most
    titled: float  # share of the kept items with a title
    words: int  # of nineteen in twenty titles, at most
    split: str
    why_split: str


def look_at_sequences(table: Table, titles: Table | None, choices: SequenceChoices) -> SequenceLook:
    """Choose the roles, read the rows, count."""
    name = table.paths[0].name
    if table.kind == "words":
        columns: tuple[Column, ...] = ()
        roles: dict[str, str] = {"user": "the first id", "item": "the ids behind it"}
        rows, inside = read_words(table.paths), None
    else:
        columns, roles = choose_roles(table, choices)
        rows = read_rows(table, columns, roles)
        inside = titles_inside(table, columns, roles) if titles is None else None
    if titles is None:
        found, title_roles = inside if inside is not None else (no_titles(), {})
    else:
        found, title_roles = read_titles(
            titles, rows["item"].unique(), choices.key, choices.title, choices.group
        )
    users, items = codes(rows["user"]), codes(rows["item"])
    n_users, n_items = int(users.max()) + 1, int(items.max()) + 1
    core, kept = choose_core(users, items)
    if len(np.unique(users[kept])) < LEAST_USERS or len(np.unique(items[kept])) < LEAST_ITEMS:
        raise ValueError(
            f"{name}: {len(rows):,} rows of {n_users:,} users and {n_items:,} items; at least "
            f"{LEAST_USERS} users with two rows or more and {LEAST_ITEMS} items are needed"
        )
    lengths = np.bincount(users[kept])
    titled, words = count_titles(rows["item"].filter(pl.Series(kept)).unique(), found)
    split, why = choose_split(rows, choices.split)
    again = 1 - rows.select("user", "item").n_unique() / len(rows)
    return SequenceLook(
        columns=tuple(columns), roles=roles, rows=rows, titles=found, title_roles=title_roles,
        n_users=n_users, n_items=n_items, repeats=again, core=core,
        kept=(int(kept.sum()), len(np.unique(users[kept])), len(np.unique(items[kept]))),
        length=int(np.quantile(lengths[lengths > 0], 0.9)), titled=titled, words=words,
        split=split, why_split=why,
    )  # fmt: skip


def choose_roles(
    table: Table, choices: SequenceChoices
) -> tuple[tuple[Column, ...], dict[str, str]]:
    """User, item, time and rating by name; by place in a file without a header."""
    name = table.paths[0].name
    sample = collect(as_text(table.frame).head(SAMPLE_ROWS), name)
    if not len(sample):
        raise ValueError(f"{name} has a header and no rows; expected a user and an item in each")
    columns = tuple(describe_column(sample[column]) for column in sample.columns)
    found: dict[str, str] = {}
    kinds = {
        "time": ("time",), "user": ("category", "number", "row id", "constant"),
        "item": ("category", "number", "row id", "text", "constant"),
        "rating": ("category", "number"),
    }  # fmt: skip
    for role in ("time", "user", "item", "rating"):
        wanted = getattr(choices, role)
        if wanted:
            found[role] = "" if wanted == "none" else find_column(table.names, wanted, f"--{role}")
            continue
        left = [c for c in columns if c.name not in found.values() and c.kind in kinds[role]]
        column = find_role(left, role, lambda _: True)
        if column is None and role == "time" and len(left) == 1:
            column = left[0]
        if column is None and not table.has_header and left and role != "time":
            column = left[0]
        found[role] = column.name if column else ""
    for role in ("user", "item"):
        if not found[role]:
            names = ", ".join(table.names[:12])
            raise ValueError(
                f"{name}: no column looks like the {role}; there are {names}. Say which: "
                f"--{role} COLUMN"
            )
    kind = next((c.kind for c in columns if c.name == found["time"]), "time")
    if kind != "time":
        raise ValueError(
            f"--time {found['time']}: does not read as a time in every row; expected ISO dates, "
            "31.12.2024, or seconds since 1970. --time none takes the order of the file"
        )
    rated = next((c for c in columns if c.name == found["rating"]), None)
    if rated and not all(value.replace(".", "", 1).isdigit() for value in rated.values):
        found["rating"] = ""
    return columns, found


def read_rows(table: Table, columns: Sequence[Column], roles: Mapping[str, str]) -> pl.DataFrame:
    """user, item, rating, time of every row that has the first two; file order where no time is."""
    form = {column.name: column.form for column in columns}
    picked = [cleaned(roles[role]).alias(role) for role in ("user", "item")]
    if roles["rating"]:
        picked.append(number_of(roles["rating"], form[roles["rating"]] or ".").alias("rating"))
    if roles["time"]:
        picked.append(time_of(roles["time"], form[roles["time"]]).alias("time"))
    name = table.paths[0].name
    rows = collect(as_text(table.frame).select(picked), name)
    rows = rows.filter(pl.all_horizontal(pl.col("user", "item").is_not_null()))
    if roles["time"]:
        rows = rows.filter(pl.col("time").is_not_null()).sort("time", maintain_order=True)
    if not len(rows):
        raise ValueError(f"{name}: not one row has a user, an item and a time; name the columns")
    return rows


def read_words(paths: Sequence[Path]) -> pl.DataFrame:
    """``user item item …``: one row for each item, in order."""
    found = read_interactions(paths, "lines")
    users, items = (pl.Series(keys) for keys in (found.user_keys, found.item_keys))
    return pl.DataFrame({"user": users.gather(found.users), "item": items.gather(found.items)})


def codes(series: pl.Series) -> Ints:
    return np.asarray(series.rank("dense").to_numpy(), dtype=np.int64) - 1


def choose_core(users: Ints, items: Ints) -> tuple[tuple[int, int], npt.NDArray[np.bool_]]:
    """The strictest core that leaves seven rows in ten, else the loosest."""
    for core in CORES:
        kept = core_rows(users, items, *core)
        if kept.mean() >= KEPT:
            return core, kept
    return CORES[-1], kept


def core_rows(users: Ints, items: Ints, user_core: int, item_core: int) -> npt.NDArray[np.bool_]:
    """Rows left when users and items with too few of them go, until none has too few.

    >>> core_rows(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1]), 2, 2).tolist()
    [True, True, True, True, False]
    """
    kept = np.ones(len(users), dtype=bool)
    while True:
        by_user = np.bincount(users[kept], minlength=int(users.max()) + 1)
        by_item = np.bincount(items[kept], minlength=int(items.max()) + 1)
        still = kept & (by_user[users] >= user_core) & (by_item[items] >= item_core)
        if still.sum() == kept.sum():
            return kept
        kept = still


def choose_split(rows: pl.DataFrame, wanted: str) -> tuple[str, str]:
    """By time where there are times, else each user's last item."""
    if wanted not in ("", "last", "temporal", "ratio"):
        raise ValueError(f"--split {wanted}: expected last, temporal or ratio")
    timed = "time" in rows.columns
    if wanted == "temporal" and not timed:
        raise ValueError("--split temporal: there is no time; name it with --time COLUMN")
    if wanted:
        return wanted, "as asked for"
    if not timed:
        return "last", "each user's last item is the test: there is no time, file order counts"
    distinct = rows["time"].n_unique()
    if distinct < 100:
        told = f"only {distinct} different times: too few to cut by, so each user's last item is it"
        return "last", told
    return "temporal", "8:1:1 by time, for all users at once: nothing later is trained on"
