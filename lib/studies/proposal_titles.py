"""Titles of items: from a file of their own, found by the items it holds, or beside the items."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from lib.studies.proposal_columns import Column, as_text, cleaned, describe_column
from lib.studies.proposal_files import Table, collect
from lib.studies.proposal_roles import find_column, find_role

__all__ = ["count_titles", "no_titles", "read_titles", "titles_inside"]


def no_titles() -> pl.DataFrame:
    return pl.DataFrame(schema={"key": pl.String, "title": pl.String, "group": pl.String})


def titles_inside(
    table: Table, columns: Sequence[Column], roles: Mapping[str, str]
) -> tuple[pl.DataFrame, dict[str, str]] | None:
    """Titles that stand beside the items in the interactions; one title for each item."""
    left = [c for c in columns if c.name not in roles.values() and c.kind in ("text", "category")]
    column = find_role(left, "title", lambda c: c.distinct > 10)
    if column is None:
        return None
    pair = [cleaned(roles["item"]).alias("key"), cleaned(column.name).alias("title")]
    found = collect(as_text(table.frame).select(pair).drop_nulls().unique(), column.name)
    if len(found) > 1.2 * found["key"].n_unique():
        return None  # the name of something else
    single = found.unique("key", keep="first", maintain_order=True)
    return single.with_columns(group=pl.lit("")), {"title": column.name}


def read_titles(
    table: Table, items: pl.Series, wanted_key: str, wanted_title: str, wanted_group: str
) -> tuple[pl.DataFrame, dict[str, str]]:
    """Key, title and group; the key is the column that holds the items of the interactions."""
    name = table.paths[0].name
    if table.kind == "words":
        raise ValueError(f"{name}: lines of words; expected a table with an item and a title")
    frame = collect(as_text(table.frame).select(cleaned(each) for each in table.names), name)
    columns = [describe_column(frame[each]) for each in frame.columns]
    shares = {each: float(items.is_in(frame[each].drop_nulls().implode()).mean() or 0)  # type: ignore[arg-type]
              for each in table.names}  # fmt: skip
    key = find_column(table.names, wanted_key, "--key") if wanted_key else max(
        shares, key=lambda each: shares[each])  # fmt: skip
    if shares[key] < 0.01:
        raise ValueError(
            f"{name}: none of its columns ({', '.join(table.names[:8])}) holds the items of the "
            f"interactions, such as {items.head(3).to_list()}; name the right file, or --key COLUMN"
        )
    left = [c for c in columns if c.name != key and c.kind in ("category", "text", "row id")]
    title = choose_title(left, wanted_title, table.names, name)
    rest = [c for c in left if c.name != title and 2 <= c.distinct <= 500]
    group = find_role(rest, "group", lambda _: True)
    wanted = "" if wanted_group == "none" else wanted_group or (group.name if group else "")
    if wanted:
        find_column(table.names, wanted, "--group")
    grouped = pl.col(wanted).fill_null("") if wanted else pl.lit("")
    told = frame.select(pl.col(key).alias("key"), pl.col(title).alias("title"),
                        grouped.alias("group"))  # fmt: skip
    told = told.drop_nulls().unique("key", keep="first", maintain_order=True)
    return told, {"key": key, "title": title, "group": wanted}


def choose_title(columns: Sequence[Column], wanted: str, names: Sequence[str], file: str) -> str:
    """By name (title, name, …_title), else the words of the most values."""
    if wanted:
        return find_column(names, wanted, "--title")
    column = find_role(columns, "title", lambda _: True)
    ending = [c for c in columns if c.name.lower().endswith(("title", "titel", "name"))]
    best = (
        column or next(iter(ending), None) or max(columns, key=lambda c: c.distinct, default=None)
    )
    if best is None:
        raise ValueError(f"{file}: no column of words for the title; name it with --title COLUMN")
    return best.name


def count_titles(items: pl.Series, titles: pl.DataFrame) -> tuple[float, int]:
    """Share of the items with a title, and the words of a long one."""
    if titles.is_empty():
        return 0.0, 0
    known = titles.filter(pl.col("title").str.len_chars() > 1)
    share = float(items.is_in(known["key"].implode()).mean() or 0)  # type: ignore[arg-type]
    words = known["title"].str.count_matches(r"\S+")
    return share, int(np.quantile(words.to_numpy(), 0.95)) if len(words) else 0
