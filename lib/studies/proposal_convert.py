"""A person's files as the preparation notebooks read them: linked where possible, or rewritten.

Linked: files that are already named, separated, labelled and numbered as the readers expect.
Rewritten: everything else, as parquet (clicks) or tab-separated text (sequences), streamed.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from lib.studies.proposal_clicks import PARTS, ClickLook
from lib.studies.proposal_columns import as_text, cleaned, number_of, time_of
from lib.studies.proposal_files import Table, collect
from lib.studies.proposal_roles import label_of
from lib.studies.proposal_split import part_of

__all__ = ["Delivery", "deliver_clicks", "field_names", "safe", "write_whole"]

MOST_UNASKED = 2 << 30  # bytes of a source that is rewritten without being asked
READABLE = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
RESERVED = {"row", "split", "part of", "row number"}
HOLDOUT = "part"  # the column of a log with sequences that says which rows are held out


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What has to be done below data/raw, said before and done after the person is told."""

    folder: str  # below data/raw
    steps: tuple[str, ...]
    carry_out: Callable[[Path], None]  # the folder -> files in it
    separator: str = ","
    n_bytes: int = 0  # that are rewritten


def safe(name: str) -> str:
    """A name of a column that is no pattern and no name of ours.

    >>> safe("price [EUR]"), safe("row")
    ('price (EUR)', 'row_')
    """
    plain = name.replace("[", "(").replace("]", ")").replace("*", "x").replace("?", "")
    plain = re.sub(r"[\x00-\x1f\"\\]", " ", plain).strip() or "unnamed"
    return f"{plain}_" if plain in RESERVED or plain == HOLDOUT else plain


def field_names(look: ClickLook) -> dict[str, str]:
    """The name in the dataset of each column that is used; no two the same."""
    found: dict[str, str] = {}
    for use in look.uses:
        name = safe(use.column.name)
        while name in found.values() or name in look.clock:
            name += "_"
        found[use.column.name] = name
    return found


def deliver_clicks(
    tables: Mapping[str, Table], look: ClickLook, folder: str, *, allowed: bool
) -> Delivery:
    """Link three ready files, or write train, valid and test as parquet."""
    n_bytes = sum(table.n_bytes for table in tables.values())
    if is_ready(tables, look):
        names = {part: f"{part}{suffix_of(table.paths[0])}" for part, table in tables.items()}

        def link(target: Path) -> None:
            for part, table in tables.items():
                link_file(table.paths[0], target / names[part])

        steps = tuple(f"link {names[part]} -> {table.paths[0]}" for part, table in tables.items())
        return Delivery(folder=folder, steps=steps, carry_out=link,
                        separator=next(iter(tables.values())).separator or ",")  # fmt: skip
    check_size(n_bytes, allowed, "a folder with train, valid and test files (UTF-8, label 0 and 1)")
    one = look.named("sequence")
    made = ["train.parquet"] if one else [f"{part}.parquet" for part in PARTS]
    steps = (
        f"write {', '.join(made)} (about {told_bytes(n_bytes / 3)}, from {told_bytes(n_bytes)})",
    )

    def write(target: Path) -> None:
        write_clicks(tables, look, target)

    return Delivery(folder=folder, steps=steps, carry_out=write, n_bytes=n_bytes)


def check_size(n_bytes: int, allowed: bool, instead: str) -> None:
    if n_bytes > MOST_UNASKED and not allowed:
        raise ValueError(
            f"{told_bytes(n_bytes)} would be rewritten below data/raw; say --rewrite to allow it, "
            f"or hand in {instead}, which is linked"
        )


def told_bytes(n: float) -> str:
    """A size for a reader.

    >>> told_bytes(2_500_000)
    '2.5 MB'
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{max(1, round(n / 1e3))} kB"


def suffix_of(path: Path) -> str:
    return next(
        (end for end in sorted(READABLE, key=len, reverse=True) if path.name.endswith(end)), ""
    )


def is_ready(tables: Mapping[str, Table], look: ClickLook) -> bool:
    """Whether the table reader takes the files as they stand."""
    numbers = [use.column for use in look.uses if use.use == "number"]
    return (
        look.split == "files"
        and set(tables) == set(PARTS)
        and not look.named("sequence") and not look.clock and not look.missing_labels
        and look.label.positive == ("1",)
        and set(next(u for u in look.uses if u.use == "label").column.values) == {"0", "1"}
        and all(safe(use.column.name) == use.column.name for use in look.uses)
        and all(column.form == "." and not column.missing for column in numbers)
        and len({(table.separator, table.kind) for table in tables.values()}) == 1
        and all(table.kind in ("csv", "parquet") and table.is_plain and table.has_header
                and len(table.paths) == 1 and suffix_of(table.paths[0])
                for table in tables.values())
    )  # fmt: skip


def link_file(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    target.symlink_to(source.resolve())


def write_clicks(tables: Mapping[str, Table], look: ClickLook, folder: Path) -> None:
    """Each part as parquet; a log with sequences as one file with a column that says which part."""
    names, pieces = field_names(look), []
    missing = [part for part in ("valid", "test") if part not in tables]
    for given, table in tables.items():
        if look.label.name not in table.names:
            continue
        frame = as_text(table.frame).with_row_index("row number")
        part = pl.lit(PARTS.index(given) if given != "all" else 0, dtype=pl.UInt8)
        if given in ("all", "train") and look.split != "files":
            part = part_of(look, missing if given == "train" else ("valid", "test"))
        kept = frame.filter(label_of(look.label).is_not_null())
        pieces.append(kept.select(*columns_of(look, names), part.alias("part of")))
    rows = pl.concat(pieces, how="vertical")
    sequences = look.named("sequence")
    if not sequences:
        for number, name in enumerate(PARTS):
            write_whole(
                rows.filter(pl.col("part of") == number).drop("part of"), folder / f"{name}.parquet"
            )
        return
    held = pl.when(pl.col("part of") == 0).then(pl.lit("training")).otherwise(pl.lit("held out"))
    rows = rows.with_columns(held.alias(HOLDOUT)).drop("part of")
    for column in sequences[:1]:
        rows = renumber(rows, names[column])
    write_whole(rows, folder / "train.parquet")


def columns_of(look: ClickLook, names: Mapping[str, str]) -> list[pl.Expr]:
    """Label, fields, numbers, the clock and one sequence, as the dataset will hold them."""
    found: list[pl.Expr] = []
    seen_sequence = False
    for use in look.uses:
        name, target = use.column.name, names[use.column.name]
        if use.use == "label":
            found.append(label_of(look.label).alias(target))
        elif use.use == "category":
            found.append(cleaned(name).alias(target))
        elif use.use == "number":
            found.append(number_of(name, use.column.form).alias(target))
        elif use.use == "sequence" and not seen_sequence:
            seen_sequence = True
            ids = pl.col(name).str.extract_all(r"\d+").list.join(",")
            found.append(ids.alias(target))
        elif use.use == "time" and look.clock:
            moment = pl.from_epoch(time_of(name, use.column.form), time_unit="ms")
            clock = {
                "hour": moment.dt.strftime("%H"),
                "weekday": moment.dt.weekday().cast(pl.String),
            }
            found += [clock[each.rpartition("_")[2]].alias(each) for each in look.clock]
    return found


def renumber(rows: pl.LazyFrame, name: str) -> pl.LazyFrame:
    """Ids of events from 0 without gaps, where gaps would make a table of empty rows."""
    tokens = collect(rows.select(pl.col(name).str.split(",").explode().alias("id")).unique(), name)
    old = tokens["id"].drop_nulls().filter(tokens["id"].drop_nulls() != "").sort()
    largest = int(old.cast(pl.Int64).max() or 0)  # type: ignore[arg-type]
    if largest < 4 * len(old) + 1000:
        return rows
    new = pl.Series([str(number) for number in range(len(old))])
    element = pl.element().replace_strict(old, new, default=None)
    return rows.with_columns(
        pl.col(name).str.split(",").list.eval(element).list.drop_nulls().list.join(",")
    )


def write_whole(rows: pl.LazyFrame, target: Path, *, tabs: bool = False) -> None:
    """Write under another name first: what bears its name is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    n_free = shutil.disk_usage(target.parent).free
    if n_free < 100 << 20:
        raise ValueError(f"{told_bytes(n_free)} free on the disk of data/raw; make room first")
    temporary = target.with_name(f".{target.name}.part")
    try:
        if tabs:
            rows.sink_csv(temporary, separator="\t", quote_style="never", include_header=True)
        else:
            rows.sink_parquet(temporary, compression="zstd")
        temporary.replace(target)
    except pl.exceptions.PolarsError as error:
        raise ValueError(
            f"{target.name}: could not be written: {str(error).splitlines()[0]}"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
