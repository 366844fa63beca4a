"""Titles of items: read from metadata or a title file, matched to items, cleaned, judged.

The cleaning ``d3`` is the one behind the published LLM2Rec and D3 data: titles with ``<span id``
are refused, two HTML entities are undone, blanks and then quotes are cut from both ends; usable is
a title of more than one character and at most 20 words. ``full`` also undoes every other entity
and makes each run of white space one blank, because a title must be one line for a language model.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lib.data.blocks import RowCheck, read_blocks
from lib.data.formats import nearest, read_header
from lib.data.interactions import Interactions

__all__ = [
    "Cleaning",
    "TitleReport",
    "clean_titles",
    "judge_titles",
    "match_titles",
    "read_titles",
]

Cleaning = Literal["none", "d3", "full"]
TITLES = {"key": pl.String, "title": pl.String, "group": pl.String}
AMAZON = {"key": "parent_asin", "title": "title", "group": "main_category"}


@dataclass(frozen=True)
class TitleReport:
    """What judging the titles of the items found, as counts of items."""

    usable: NDArray[np.bool_]  # by item number
    counts: Mapping[str, int]


def read_titles(
    paths: Sequence[Path], *, columns: Mapping[str, str] | None = None, max_bad_share: float = 0.0
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Read (key, title, group) from JSON lines or tab-separated tables; the first of a key counts.

    ``columns`` names the columns of key, title and group. Amazon's are known; in a table, the first
    column is the key and the first one whose name ends in ``title`` is the title.
    """
    frames, counts = [], {"titles read": 0}
    for path in paths:
        check = RowCheck(path, max_bad_share)
        json_lines = ".jsonl" in path.name or ".json" in path.suffixes
        reader = _json_titles if json_lines else _table_titles
        frames.append(reader(path, columns or {}, check))
        check.stop_if_too_many(final=True)
        for kind, count in (check.dropped + check.repaired).items():
            counts[kind] = counts.get(kind, 0) + count
    table = pl.concat(frames) if frames else pl.DataFrame(schema=TITLES)
    counts["titles read"] = len(table)
    table = table.filter(pl.col("key").is_not_null() & (pl.col("key") != ""))
    single = table.unique(maintain_order=True).unique("key", keep="first", maintain_order=True)
    different = table.unique().group_by("key").len().filter(pl.col("len") > 1).height
    counts["same id twice, same title"] = len(table) - len(table.unique())
    counts["same id twice, another title (first kept)"] = different
    return single, counts


def match_titles(
    rows: Interactions, titles: pl.DataFrame, *, by: Literal["item", "parent"] = "item"
) -> pl.DataFrame:
    """One row (key, title, group) for each item number; null where no title is known.

    With ``by="parent"`` a single variant (asin) takes the title of its parent_asin.
    """
    if by not in ("item", "parent"):
        raise ValueError(f"title join is {by!r}, expected 'item' or 'parent'")
    if by == "parent" and rows.parents is None:
        raise ValueError(
            "titles by parent, but the source names no parent of an item; join by 'item'"
        )
    wanted = rows.item_keys if by == "item" or rows.parents is None else rows.parents
    left = pl.DataFrame({"item": rows.item_keys, "key": wanted})
    joined = left.join(titles, on="key", how="left", maintain_order="left")
    return joined.select(pl.col("item").alias("key"), "title", "group")


def clean_titles(titles: pl.Series, how: Cleaning) -> pl.Series:
    """Clean titles; a refused one becomes null.

    >>> clean_titles(pl.Series(["Tom &amp; Jerry", "<span id=1>"]), "d3").to_list()
    ['Tom & Jerry', None]
    """
    if how == "none":
        return titles
    if how not in ("d3", "full"):
        raise ValueError(f"cleaning is {how!r}, expected 'none', 'd3' or 'full'")
    text = pl.col("title")
    text = pl.when(text.str.contains("<span id", literal=True)).then(None).otherwise(text)
    text = text.str.replace_all("&quot;", '"', literal=True)
    text = text.str.replace_all("&amp;", "&", literal=True)
    cleaned = titles.alias("title").to_frame().select(text.alias("title"))["title"]
    if how == "full":
        distinct = cleaned.filter(cleaned.str.contains("&", literal=True)).unique().drop_nulls()
        plain = [html.unescape(html.unescape(title)) for title in distinct]  # twice: "&amp;#39;"
        cleaned = cleaned.replace(distinct, pl.Series(plain, dtype=pl.String))
        cleaned = cleaned.str.replace_all(r"[\s\p{Cc}\x{200B}\x{FEFF}]+", " ")
    return cleaned.str.strip_chars(" ").str.strip_chars('"').alias("title")


def judge_titles(titles: pl.Series, *, max_words: int) -> TitleReport:
    """Which titles are usable: longer than one character, at most ``max_words`` words (0: any)."""
    words = titles.str.strip_chars().str.count_matches(r"\S+").fill_null(0).to_numpy()
    length = titles.str.len_chars().fill_null(0).to_numpy()
    missing = (titles.fill_null("") == "").to_numpy()
    short, long = ~missing & (length <= 1), (words > max_words) & (max_words > 0)
    usable = ~missing & ~short & ~long
    named = titles.filter(pl.Series(usable))
    counts = {
        "items": len(titles),
        "no title": int(missing.sum()),
        "title of at most one character": int(short.sum()),
        f"more than {max_words} words": int(long.sum()),
        "usable": int(usable.sum()),
        "usable, title shared with another item": int(named.is_duplicated().sum()),
    }
    return TitleReport(usable, counts)


def _json_titles(path: Path, columns: Mapping[str, str], check: RowCheck) -> pl.DataFrame:
    names = {**AMAZON, **columns}
    schema = {name: pl.String for name in names.values() if name}
    parts = []
    for block in read_blocks(path, check):
        check.n_rows += block.n_lines
        try:
            frame = pl.read_ndjson(BytesIO(block.data), schema=schema)
        except pl.exceptions.PolarsError:
            frame = _whole_lines(block.data, block.first_line, schema, check)
        parts.append(_as_titles(frame, names))
    table = pl.concat(parts)
    if table["key"].is_null().all():
        raise ValueError(f"{path}: no record has the field {names['key']!r}; name it in `columns`")
    return table


def _whole_lines(
    data: bytes, first: int, schema: Mapping[str, Any], check: RowCheck
) -> pl.DataFrame:
    frames = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=first):
        try:
            frames.append(pl.read_ndjson(BytesIO(line), schema=schema))
        except pl.exceptions.PolarsError:
            check.drop("broken JSON", number)
    return pl.concat(frames) if frames else pl.DataFrame(schema=schema)


def _table_titles(path: Path, columns: Mapping[str, str], check: RowCheck) -> pl.DataFrame:
    header = read_header(path, "\t")
    guess = next((name for name in header if name.endswith("title")), "")
    names = {"key": header[0], "title": guess, "group": "", **columns}
    for role in ("key", "title", "group"):
        if names[role] not in header and (names[role] or role != "group"):
            hint = nearest(names[role] or "title", header)
            raise ValueError(f"{path}: no column {names[role] or 'title'!r} for {role}; {hint}")
    rows: list[list[str]] = []
    for block in read_blocks(path, check):
        lines = block.data.decode().split("\n")[:-1]
        for number, line in enumerate(lines, start=block.first_line):
            fields = line.rstrip("\r").split("\t")
            if number == 1 or fields == [""]:
                continue
            check.n_rows += 1
            if len(fields) == len(header):
                rows.append(fields)
            else:
                check.drop("wrong number of fields", number)
    return _as_titles(pl.DataFrame(rows, dict.fromkeys(header, pl.String), orient="row"), names)


def _as_titles(frame: pl.DataFrame, names: Mapping[str, str]) -> pl.DataFrame:
    picked = {role: pl.col(names[role]) if names[role] else pl.lit(None) for role in TITLES}
    return frame.select(picked[role].cast(kind).alias(role) for role, kind in TITLES.items())
