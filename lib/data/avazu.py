"""Avazu as x1, x2 and x4 publish it, to one schema: label, feat_1 … feat_21, the hour if asked.

The three variants re-split the same 40,428,967 impressions, with other ids and other columns:

    x1   label, feat_1 … feat_22: re-encoded integers; feat_22 is the hour of the day, no date
    x2   click, C1, banner_pos, …, C21, hour, mday, wday: re-encoded integers; no valid split
    x4   id, click, hour (YYMMDDHH), C1, banner_pos, …, C21: the raw hexadecimal ids

feat_1 … feat_21 are, in this order, the columns of ``CONTENT``. Ids of two variants never align, so
every dataset has a vocabulary of its own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from lib.data.clicks import SPLITS, Clicks, SplitName
from lib.data.encode import encode_table
from lib.data.fit import Piece, Recipe
from lib.data.normalise import ROW, normalise, read_header
from lib.data.tabular import carve_valid

__all__ = [
    "CONTENT",
    "FEATURES",
    "Extra",
    "Variant",
    "find_duplicates",
    "normalise_avazu",
    "prepare_avazu",
]

Variant = Literal["x1", "x2", "x4"]
Extra = Literal["none", "hour", "calendar"]
CONTENT = (
    "C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain",
    "app_category", "device_id", "device_ip", "device_model", "device_type", "device_conn_type",
    *(f"C{number}" for number in range(14, 22)),
)  # fmt: skip
FEATURES = tuple(f"feat_{number}" for number in range(1, len(CONTENT) + 1))
TEXT = frozenset(CONTENT[2:11])  # hexadecimal in x4
RAW_HEADER = ("id", "click", "hour", *CONTENT)
FIRST_HOUR = {"x1": 1_544_248, "x2": 645_164}  # the re-encoded id of hour 0
FIRST_MDAY, FIRST_DAY = 645_154, 21  # x2's id of the first day, 21 October 2014
IDS_AT_ONCE = 8_000_000
KEY = "row_key"  # hash of an x4 row's id, compared within one preparation only


def normalise_avazu(
    source: Path,
    target: Path,
    *,
    variant: Variant,
    extra: Extra = "hour",
    max_rows: int | None = None,
    split: pl.Expr | None = None,
) -> int:
    """Stream one published file into a parquet of the common schema; returns its rows.

    ``extra`` keeps the hour of day, or with ``calendar`` also weekday and weekend, which x1 cannot
    give because it has no date. ``split`` is kept as a column of that name.
    """
    if extra == "calendar" and variant == "x1":
        raise ValueError("extra='calendar' needs a date, and x1 has none; use 'hour' or 'none'")
    schema, header = _schema_of(source, variant)
    names = FEATURES if variant == "x1" else CONTENT
    columns = [pl.col("label" if variant == "x1" else "click").alias("label")]
    columns += [pl.col(name).alias(feature) for name, feature in zip(names, FEATURES, strict=True)]
    columns += [pl.lit(0, pl.UInt8).alias("split") if split is None else split.alias("split")]
    clock = {"hour": _hour(variant).cast(pl.Int32)}
    if extra == "calendar":
        weekday = _date(variant).dt.weekday()
        clock |= {"weekday": weekday.cast(pl.Int32), "weekend": (weekday > 5).cast(pl.Int32)}
    columns += [column.alias(name) for name, column in clock.items()]
    if variant == "x4":
        columns.append(pl.col("id").hash().alias(KEY))
    done = normalise(
        source, target, schema=schema, columns=columns, header=header, max_rows=max_rows
    )
    try:
        _check(source, target, variant, done.empty)
    except ValueError:
        target.unlink()
        raise
    return done.n_rows


def prepare_avazu(
    folder: Path,
    sources: Mapping[SplitName, Path],
    *,
    variant: Variant,
    scratch: Path,
    extra: Extra = "hour",
    min_count: int = 2,
    valid_share: float = 0.125,
    seed: int = 1,
    max_rows: int | None = None,
    shard_rows: int = 2_000_000,
    duplicate_ids: Literal["report", "refuse"] = "report",
) -> Clicks:
    """Normalise the files of a variant into ``scratch`` and encode them into ``folder``.

    x2 is published without a valid file: ``valid_share`` of its training rows is carved out by a
    hash of the row number, so valid has the click rate of chance and not a tail of either label.
    """
    pieces: list[Piece] = []
    for split, path in sources.items():
        rule = pl.lit(SPLITS.index(split), dtype=pl.UInt8)
        if split == "train" and "valid" not in sources:
            rule = carve_valid(pl.col(ROW), share=valid_share, seed=seed)
        target = scratch / f"{variant}_{split}.parquet"
        n_rows = normalise_avazu(
            path, target, variant=variant, extra=extra, max_rows=max_rows, split=rule
        )
        pieces.append(Piece(name=split, path=target, split=pl.col("split"), n_rows=n_rows))
    clock = {"none": (), "hour": ("hour",), "calendar": ("hour", "weekday", "weekend")}[extra]
    recipe = Recipe(categorical=(*FEATURES, *clock), min_count=min_count, drop_constants=False)
    made = {"variant": variant, "max_rows": max_rows, "valid_share": valid_share, "seed": seed}
    reports: dict[str, object] = {}
    if variant == "x4":
        twice = {piece.name: find_duplicates(piece.path) for piece in pieces}
        reports["duplicate_ids"] = twice
        if duplicate_ids == "refuse" and any(twice.values()):
            raise ValueError(f"ids occur twice: {twice}; expected none. Remove the second rows")
    return encode_table(folder, pieces, recipe, shard_rows=shard_rows, made=made, reports=reports)


def find_duplicates(table: Path) -> int:
    """Rows of a normalised x4 file whose id came before; a part of the hash space at a time."""
    keys = pl.scan_parquet(table).select(KEY)
    parts = -(-keys.select(pl.len()).collect().item() // IDS_AT_ONCE)
    twice = 0
    for part in range(parts):
        some = keys.filter(pl.col(KEY) % parts == part).select(pl.len() - pl.col(KEY).n_unique())
        twice += some.collect(engine="streaming").item()
    return int(twice)


def _schema_of(
    source: Path, variant: Variant
) -> tuple[dict[str, type[pl.DataType]], Sequence[str] | None]:
    """Types of the columns to read, and names where an x4 file has no header line."""
    bare = None
    schema: dict[str, type[pl.DataType]]
    if variant == "x1":
        schema = dict.fromkeys(("label", *FEATURES, "feat_22"), pl.Int32)
    elif variant == "x2":
        schema = dict.fromkeys(("click", *CONTENT, "hour", "mday", "wday"), pl.Int32)
    else:
        schema = {name: pl.String if name in TEXT else pl.Int32 for name in RAW_HEADER[1:]}
        schema |= {"id": pl.String}
        if source.suffix != ".parquet" and source.is_file():
            first = read_header(source, ",")
            bare = RAW_HEADER if len(first) == len(RAW_HEADER) and first[0].isdigit() else None
    return schema, bare


def _hour(variant: Variant) -> pl.Expr:
    if variant == "x4":
        stamp, month, day = (
            pl.col("hour"),
            pl.col("hour") // 10_000 % 100,
            pl.col("hour") // 100 % 100,
        )
        dated = stamp.is_between(10**7, 10**8) & month.is_between(1, 12) & day.is_between(1, 31)
        return pl.when(dated).then(stamp % 100).otherwise(-1)
    return pl.col("feat_22" if variant == "x1" else "hour") - FIRST_HOUR[variant]


def _date(variant: Variant) -> pl.Expr:
    if variant == "x2":
        return pl.date(2014, 10, pl.col("mday") - FIRST_MDAY + FIRST_DAY)
    stamp = pl.col("hour") // 100
    return pl.date(2000 + stamp // 10_000, stamp // 100 % 100, stamp % 100)


def _check(source: Path, target: Path, variant: Variant, empty: Mapping[str, int]) -> None:
    """What every row must fulfil, from statistics of the written columns."""
    if empty:
        raise ValueError(
            f"{source.name}: empty cells in {empty}; Avazu has none, so rows were cut off or the "
            "date is not one. Fetch the file again"
        )
    table = pl.scan_parquet(target)
    wrong = {
        "label": ~pl.col("label").is_in([0, 1]),
        "hour": ~pl.col("hour").is_between(0, 23),
    }
    if variant != "x4":
        wrong |= {name: pl.col(name) < 0 for name in FEATURES}
    expected = {
        "label": "0 or 1",
        "hour": "0..23 after decoding (x4: of YYMMDDHH, not of seconds); is the variant right?",
    }
    counts = table.select(test.sum().alias(name) for name, test in wrong.items()).collect()
    for name, count in counts.row(0, named=True).items():
        if count:
            row = table.with_row_index("row").filter(wrong[name]).select("row", name).head(1)
            place, value = row.collect().row(0)
            raise ValueError(
                f"{source.name}: {name} is {value} in data row {place + 1} ({count} such rows), "
                f"expected {expected.get(name, 'an id from 0')}"
            )
