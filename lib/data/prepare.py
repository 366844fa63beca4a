"""From raw files to Histories in steps that a notebook puts together: read, judge, build, describe.

Titles are matched and judged before anything is filtered, because a filter may ask for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lib.data.filters import Sequences, arrange
from lib.data.formats import nearest
from lib.data.histories import Histories, write_histories
from lib.data.interactions import Interactions, TimeUnit
from lib.data.sources import SourceName, find_files, read_interactions
from lib.data.splits import EIGHT_ONE_ONE, SplitName, split_histories
from lib.data.titles import (
    Cleaning,
    TitleReport,
    clean_titles,
    judge_titles,
    match_titles,
    read_titles,
)

__all__ = [
    "RawData",
    "build_histories",
    "count_table",
    "describe_targets",
    "judge_items",
    "read_raw",
    "sequence_lengths",
]

# Where each format keeps its interactions and its titles.
PATTERNS: Mapping[str, tuple[str, str]] = {
    "amazon-2023": ("*.jsonl*", "meta_*.jsonl*"),
    "amazon-csv": ("*.csv*", "meta_*.jsonl*"),
    "recbole": ("*.inter", "*.item"),
    "lines": ("*.txt", "items.tsv"),
    "pairs": ("*.txt", "items.tsv"),
}
ROLES = ("user", "item", "parent", "rating", "time")
TITLE_ROLES = ("key", "title", "group")


@dataclass(frozen=True)
class RawData:
    """Interactions with one row (key, title, group) for each item number, and what was counted."""

    rows: Interactions
    items: pl.DataFrame
    title_counts: Mapping[str, int]


def read_raw(
    folder: Path,
    source: SourceName,
    *,
    files: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    title_join: Literal["item", "parent"] = "item",
    unit: TimeUnit | None = None,
    max_bad_share: float = 0.0,
    row_limit: int = 0,
) -> RawData:
    """Read interactions and titles, from the usual file names of the format unless ``files`` says.

    ``files`` holds patterns for ``interactions`` and ``titles``; titles ``"none"`` are not read.
    ``columns`` names the roles of both kinds of file.
    """
    usual, usual_titles = PATTERNS.get(source, ("", ""))
    patterns = {"interactions": usual, "titles": usual_titles, **(files or {})}
    _known("files", patterns, ("interactions", "titles"))
    _known("columns", columns or {}, (*ROLES, *TITLE_ROLES))
    pick = {role: name for role, name in (columns or {}).items() if role in TITLE_ROLES}
    rows = read_interactions(
        find_files(folder, patterns["interactions"], without=patterns["titles"]),
        source,
        columns={role: name for role, name in (columns or {}).items() if role in ROLES},
        unit=unit,
        max_bad_share=max_bad_share,
        row_limit=row_limit,
    )
    counts: dict[str, int] = {}
    if patterns["titles"] == "none" or folder.is_file():
        table = pl.DataFrame(schema=dict.fromkeys(TITLE_ROLES, pl.String))
    else:
        paths = find_files(folder, patterns["titles"])
        table, counts = read_titles(paths, columns=pick, max_bad_share=max_bad_share)
    return RawData(rows, match_titles(rows, table, by=title_join), counts)


def _known(what: str, given: Mapping[str, str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"{what} names {name!r}; {nearest(name, known)}")


def judge_items(raw: RawData, cleaning: Cleaning, max_words: int) -> tuple[RawData, TitleReport]:
    """Clean the titles and say which items have a usable one."""
    title = clean_titles(raw.items["title"], cleaning)
    report = judge_titles(title, max_words=max_words)
    cleaned = RawData(raw.rows, raw.items.with_columns(title=title), raw.title_counts)
    return cleaned, report


def build_histories(
    folder: Path,
    rows: Interactions,
    items: pl.DataFrame,
    *,
    split: SplitName,
    ratios: Sequence[float] = EIGHT_ONE_ONE,
    max_history: int = 0,
    made: Mapping[str, object],
) -> Histories:
    """Sort, number, split and write what the filters left."""
    sequences: Sequences = arrange(rows, max_history)
    parts = split_histories(split, sequences.offsets, sequences.times, ratios)
    kept = items[sequences.item_numbers].fill_null("")
    return write_histories(
        folder,
        items=sequences.items,
        times=sequences.times,
        offsets=sequences.offsets,
        targets=parts.targets,
        train_lengths=parts.train_lengths,
        item_keys=["", *kept["key"]],
        titles=["", *kept["title"]],
        groups=["", *kept["group"]],
        made=made,
    )


def describe_targets(histories: Histories) -> pl.DataFrame:
    """For each split: how many targets are repeats, new to their user, or never trained."""
    table = []
    for name, targets in histories.targets.items():
        wanted = histories.target_items(targets)
        last, _ = histories.windows(targets.users, targets.positions, 1)
        offsets, before = histories.seen(targets.users, targets.positions)
        owner = np.repeat(np.arange(len(targets)), np.diff(offsets))
        again = np.bincount(owner[before == wanted[owner]], minlength=len(targets)) > 0
        table.append(
            {
                "split": name,
                "targets": len(targets),
                "users": len(np.unique(targets.users)),
                "items": len(np.unique(wanted)),
                "repeats the last item": int((last[:, 0] == wanted).sum()),
                "met before": int(again.sum()),
                "new to the user": int((~again).sum()),
                "never in training": int((histories.counts[wanted] == 0).sum()),
            }
        )
    return pl.DataFrame(table)


def sequence_lengths(histories: Histories) -> pl.DataFrame:
    """Lengths of sequences and counts of items, at the quantiles a reader asks for."""
    shares = {"least": 0.0, "median": 0.5, "90 %": 0.9, "99 %": 0.99, "most": 1.0}
    values: dict[str, NDArray[np.float64]] = {
        "interactions of a user": histories.lengths.astype(np.float64),
        "training interactions of an item": histories.counts[1:].astype(np.float64),
    }
    rows = [
        {"what": what, **{name: float(np.quantile(numbers, q)) for name, q in shares.items()}}
        | {"mean": float(numbers.mean())}
        for what, numbers in values.items()
    ]
    return pl.DataFrame(rows)


def count_table(**groups: Mapping[str, int]) -> pl.DataFrame:
    """Named counts as one long table; what was never seen is left out.

    >>> count_table(dropped={"no user id": 2, "no time": 0}).rows()
    [('dropped', 'no user id', 2)]
    """
    rows = [(group, kind, n) for group, counts in groups.items() for kind, n in counts.items() if n]
    schema = {"group": pl.String, "what": pl.String, "count": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")
