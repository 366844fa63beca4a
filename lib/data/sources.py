"""Readers: five public formats in, ``Interactions`` out.

json     one JSON object a line (Amazon Reviews 2023 as published; other years by naming columns)
table    delimited with a header (Amazon's 5-core CSV; RecBole's .inter with typed column names)
lines    ``user item item ...``, oldest first, one user a line
pairs    ``user item``, oldest first
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from lib.data.blocks import RowCheck
from lib.data.formats import Frames, json_frames, table_frames, word_frames
from lib.data.interactions import Interactions, TimeUnit, collect_interactions

__all__ = ["SOURCES", "SourceName", "find_files", "read_interactions"]

SourceName = Literal["amazon-2023", "amazon-csv", "recbole", "lines", "pairs"]

# What each public format calls its columns, and the unit of its times.
SOURCES: Mapping[str, tuple[Mapping[str, str], TimeUnit]] = {
    "amazon-2023": (
        {"user": "user_id", "item": "parent_asin", "parent": "parent_asin"}
        | {"rating": "rating", "time": "timestamp"},
        "ms",
    ),
    "amazon-csv": (
        {"user": "user_id", "item": "parent_asin", "rating": "rating", "time": "timestamp"},
        "ms",
    ),
    "recbole": (
        {"user": "user_id", "item": "item_id", "rating": "rating", "time": "timestamp"},
        "s",
    ),
    "lines": ({}, "order"),
    "pairs": ({}, "order"),
}


def read_interactions(
    paths: Sequence[Path],
    source: SourceName,
    *,
    columns: Mapping[str, str] | None = None,
    unit: TimeUnit | None = None,
    max_bad_share: float = 0.0,
    row_limit: int = 0,
) -> Interactions:
    """Read files of one format, in the order given.

    ``columns`` renames roles (user, item, parent, rating, time) to the file's own names; an empty
    name says that the file has no such column. ``row_limit`` stops after that many rows (0: none).
    """
    if source not in SOURCES:
        raise ValueError(f"source is {source!r}, expected one of {sorted(SOURCES)}")
    named, documented = SOURCES[source]
    unknown = set(columns or {}) - {"user", "item", "parent", "rating", "time"}
    if unknown:
        raise ValueError(
            f"columns names {sorted(unknown)}; known: user, item, parent, rating, time"
        )
    roles = {role: name for role, name in {**named, **(columns or {})}.items() if name}
    if roles.get("parent") == roles.get("item"):
        roles.pop("parent", None)  # an item that is its own parent: do not keep it twice
    unit = documented if unit is None else unit
    if unit != "order" and "time" not in roles:
        raise ValueError(f"time_unit is {unit!r} but no time column is named; set it to 'order'")
    frames = _limited(_frames(paths, source, roles, max_bad_share), row_limit)
    return collect_interactions(frames, unit=unit, rated="rating" in roles)


def find_files(raw: Path, pattern: str, *, without: str = "") -> list[Path]:
    """The files below ``raw`` that match, sorted; ``raw`` itself where it is a file."""
    if raw.is_file():
        return [raw]
    found = sorted(path for path in raw.rglob(pattern) if path.is_file())
    found = [path for path in found if not path.name.startswith(".")]  # half a download
    found = [path for path in found if not (without and path.match(without))]
    if not found:
        there = sorted(path.name for path in raw.rglob("*") if path.is_file())[:8]
        raise FileNotFoundError(f"{raw}: no file matches {pattern!r}; it holds {there}")
    return found


def _frames(paths: Sequence[Path], source: str, roles: Mapping[str, str], share: float) -> Frames:
    for path in paths:
        check = RowCheck(path, share)
        if source == "amazon-2023":
            yield from json_frames(path, roles, check)
        elif source == "amazon-csv":
            yield from table_frames(path, roles, check, ",")
        elif source == "recbole":
            yield from table_frames(path, roles, check, "\t")
        else:
            yield from word_frames(path, check, pairs=source == "pairs")


def _limited(frames: Frames, limit: int) -> Frames:
    left = limit
    for frame, check in frames:
        if limit and len(frame) >= left:
            check.n_rows -= len(frame) - left
            yield frame.head(left), check
            return
        left -= len(frame)
        yield frame, check
