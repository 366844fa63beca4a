"""Interactions and titles as notebook 10 reads them: tab-separated, or linked where they are so."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from lib.studies.proposal_convert import Delivery, check_size, link_file, told_bytes, write_whole
from lib.studies.proposal_files import Table
from lib.studies.proposal_sequences import SequenceLook

__all__ = ["deliver_sequences"]

BLANKS = r"[\s\x00-\x1f]+"


def deliver_sequences(
    table: Table, look: SequenceLook, folder: str, *, allowed: bool
) -> tuple[Delivery, dict[str, object]]:
    """What to do below data/raw, and the parameters of notebook 10 that fit it."""
    form = next((c.form for c in look.columns if c.name == look.roles.get("time")), "")
    linked = is_ready(table, form)
    columns = {"rating": "rating" if "rating" in look.rows.columns else "",
               "time": "timestamp" if "time" in look.rows.columns else ""}  # fmt: skip
    if linked:
        columns = {role: look.roles[role] for role in ("user", "item", "rating", "time")}
    else:
        check_size(table.n_bytes, allowed, "a tab-separated file with a header")
    first = f"link interactions.inter -> {table.paths[0]}"
    if not linked:
        size = told_bytes(len(look.rows) * 28)
        first = f"write interactions.inter ({len(look.rows):,} rows, about {size})"
    second = (
        f"write titles.item ({len(look.titles):,} titles)" if len(look.titles)
        else f"write titles.item (the ids of {look.n_items:,} items in place of titles)"
    )  # fmt: skip

    def carry_out(target: Path) -> None:
        if linked:
            link_file(table.paths[0], target / "interactions.inter")
        else:
            write_whole(interactions(look.rows).lazy(), target / "interactions.inter", tabs=True)
        write_whole(title_table(look).lazy(), target / "titles.item", tabs=True)

    source: dict[str, object] = {"source": "recbole", "columns": {**columns, "group": "group"}}
    if not columns["time"]:
        source["time_unit"] = "order"
    n_bytes = 0 if linked else table.n_bytes
    delivery = Delivery(folder=folder, steps=(first, second), carry_out=carry_out, n_bytes=n_bytes)
    return delivery, source


def is_ready(table: Table, form: str) -> bool:
    """Whether notebook 10 takes the file as it stands; it reads no quotes and times in seconds."""
    if table.kind != "csv" or table.separator != "\t" or not table.has_header:
        return False
    if not table.is_plain or len(table.paths) > 1 or form not in ("s", ""):
        return False
    with table.paths[0].open("rb") as file:
        head = file.read(1 << 20)
    return b'"' not in head and head[:2] != b"\x1f\x8b"


def interactions(rows: pl.DataFrame) -> pl.DataFrame:
    """user_id, item_id, and rating and timestamp (seconds) where known, without tabs."""
    columns: Mapping[str, pl.Expr] = {
        "user_id": pl.col("user").str.replace_all(BLANKS, " "),
        "item_id": pl.col("item").str.replace_all(BLANKS, " "),
        "rating": pl.col("rating") if "rating" in rows.columns else pl.lit(None),
        "timestamp": pl.col("time") / 1000 if "time" in rows.columns else pl.lit(None),
    }
    present = {"user_id", "item_id"} | ({"rating"} & set(rows.columns))
    present |= {"timestamp"} if "time" in rows.columns else set()
    return rows.select(expr.alias(name) for name, expr in columns.items() if name in present)


def title_table(look: SequenceLook) -> pl.DataFrame:
    """item_id, title, group; ids stand in where no titles are."""
    titles = look.titles
    if titles.is_empty():
        key = look.rows["item"].unique().sort()
        titles = pl.DataFrame({"key": key, "title": "item " + key, "group": [""] * len(key)})
    plain = [pl.col(name).str.replace_all(BLANKS, " ").str.strip_chars() for name in titles.columns]
    return titles.select(plain).rename({"key": "item_id"})
