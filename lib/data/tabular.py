"""Any click table, CSV or parquet with named fields, to a Clicks dataset.

Each source file is first normalised into a parquet (streamed, so memory does not grow with rows),
checked on the way, and then encoded. What is repaired is counted in the report, nothing is silent.
"""

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from lib.data.clicks import SPLITS, Clicks, SplitName
from lib.data.encode import encode_table
from lib.data.files import TEMPORARY
from lib.data.fit import Piece, Recipe

__all__ = [
    "carve_valid",
    "find_sources",
    "normalise",
    "prepare_table",
    "read_header",
    "require_columns",
    "scan_table",
    "unchanged",
]

SEPARATORS = (",", "\t", ";", "|", " ")
SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
ROW_GROUP = 262_144


def find_sources(folder: Path) -> dict[SplitName, Path]:
    """The files ``train.*``, ``valid.*`` and ``test.*`` of a folder; train is required."""
    found: dict[SplitName, Path] = {}
    for split in SPLITS:
        paths = [folder / f"{split}{suffix}" for suffix in SUFFIXES]
        present = [path for path in paths if path.is_file()]
        if len(present) > 1:
            names = ", ".join(path.name for path in present)
            raise ValueError(f"{folder}: {names} all offer split {split!r}; keep one of them")
        if present:
            found[split] = present[0]
    if "train" not in found:
        there = (
            sorted(path.name for path in folder.glob("*"))[:10] if folder.is_dir() else "nothing"
        )
        raise FileNotFoundError(f"{folder}: no train file ({', '.join(SUFFIXES)}); found {there}")
    return found


@contextmanager
def unchanged(path: Path) -> Iterator[None]:
    """Raise if a file is not the same at the end of the block as at its start."""
    before = path.stat()
    yield
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ValueError(
            f"{path.name} changed while it was read ({before.st_size} to {after.st_size} bytes); "
            "wait until its writer is done and prepare it again"
        )


def read_header(path: Path, separator: str) -> list[str]:
    """The first line of a CSV, split; an empty file or a wrong separator is an error here."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            line = file.readline(1 << 20)
        text = line.decode("utf-8-sig").strip()
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path.name}: not a whole gzip file ({error}); fetch it again") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: header is not UTF-8 ({error}); convert the file") from error
    if not text:
        raise ValueError(f"{path.name} is empty; expected a header line and rows")
    names = [name.strip('"') for name in text.split(separator)]
    if len(names) == 1:
        better = [sep for sep in SEPARATORS if sep != separator and len(text.split(sep)) > 1]
        hint = f" It seems to be separated by {better[0]!r}." if better else ""
        raise ValueError(
            f"{path.name}: one column {text[:60]!r} when split at {separator!r}.{hint} "
            "Give the right separator"
        )
    return names


def require_columns(path: Path, present: Sequence[str], wanted: Sequence[str]) -> None:
    """Name the first missing column and the nearest present one."""
    twice = sorted({name for name in present if list(present).count(name) > 1})
    if twice:
        raise ValueError(f"{path.name}: column {twice[0]!r} occurs twice; rename one of them")
    for name in wanted:
        if name not in present:
            near = get_close_matches(name, present, n=1, cutoff=0.4) or list(present)[:8]
            raise ValueError(
                f"{path.name}: no column {name!r}; nearest present: {', '.join(near)}. "
                "Expected all of the fields asked for; correct the names or the file"
            )


def scan_table(
    path: Path,
    schema: Mapping[str, pl.DataType | type[pl.DataType]],
    *,
    separator: str = ",",
    header: Sequence[str] | None = None,
) -> pl.LazyFrame:
    """A lazy table of exactly these columns and types; ``header`` names those of a bare CSV."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; expected a click table")
    if path.suffix == ".parquet":
        require_columns(path, pq.read_schema(path).names, list(schema))
        return pl.scan_parquet(path).select(
            pl.col(name).cast(dtype) for name, dtype in schema.items()
        )
    present = list(header) if header is not None else read_header(path, separator)
    require_columns(path, present, list(schema))
    types = {name: schema.get(name, pl.String) for name in present}
    table = pl.scan_csv(
        path,
        separator=separator,
        has_header=header is None,
        schema=types,
        glob=False,
    )
    return table.select(list(schema))


def normalise(source: Path, table: pl.LazyFrame, target: Path, *, max_rows: int | None) -> int:
    """Stream a lazy table into a parquet and return its rows; an error names the source."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{TEMPORARY}{target.name}")
    rows = table if max_rows is None else table.head(max_rows)
    try:
        with unchanged(source):
            rows.sink_parquet(
                temporary, compression="lz4", row_group_size=ROW_GROUP, engine="streaming"
            )
        temporary.replace(target)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{source.name}: cannot be read as a click table: {reason}. Expected UTF-8 rows of "
            "the header's width and types; repair the line or fetch the file again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    n_rows = int(pq.read_metadata(target).num_rows)
    if n_rows == 0:
        raise ValueError(f"{source.name} has a header but no rows; fetch it again")
    return n_rows


def carve_valid(row: pl.Expr, *, share: float, seed: int) -> pl.Expr:
    """1 (valid) for a share of rows chosen by a hash of the row number alone, else 0 (train).

    splitmix64 of ``row + seed * 2**32``: the same rows on every machine and in every version.
    """
    if not 0 <= share < 1:
        raise ValueError(f"valid {share=}, expected a share from 0 up to, but not including, 1")

    def lit(value: int) -> pl.Expr:
        return pl.lit(value, dtype=pl.UInt64)

    state = row.cast(pl.UInt64) + lit(((seed << 32) + 0x9E3779B97F4A7C15) % 2**64)
    state = (state ^ (state // lit(1 << 30))) * lit(0xBF58476D1CE4E5B9)
    state = (state ^ (state // lit(1 << 27))) * lit(0x94D049BB133111EB)
    state = state ^ (state // lit(1 << 31))
    return (state % lit(1_000_000) < lit(round(share * 1_000_000))).cast(pl.UInt8)


def prepare_table(
    folder: Path,
    sources: Mapping[SplitName, Path],
    recipe: Recipe,
    *,
    scratch: Path,
    label: str = "label",
    separator: str = ",",
    valid_share: float = 0.1,
    seed: int = 1,
    max_rows: int | None = None,
    shard_rows: int = 2_000_000,
) -> Clicks:
    """Normalise the files of a click table into ``scratch`` and encode them into ``folder``.

    Without a valid file, ``valid_share`` of the training rows is carved out by a hash of the row
    number. A test file without the label column is taken as unlabelled. ``max_rows`` limits each
    file to its first rows.
    """
    pieces, filled = [], {}
    for split, path in sources.items():
        present = _columns_of(path, separator)
        labelled = split != "test" or label in present
        table = scan_table(path, _schema(recipe, label if labelled else None), separator=separator)
        rule = pl.lit(SPLITS.index(split), dtype=pl.UInt8)
        if split == "train" and "valid" not in sources:
            rule = carve_valid(pl.int_range(pl.len()), share=valid_share, seed=seed)
        target = scratch / f"{split}.parquet"
        n_rows = normalise(path, table.with_columns(rule.alias("split")), target, max_rows=max_rows)
        filled[split] = count_nulls(target)
        own_label = label if labelled else None
        pieces.append(
            Piece(name=split, path=target, split=pl.col("split"), n_rows=n_rows, label=own_label)
        )
    made = {"max_rows": max_rows, "valid_share": valid_share, "seed": seed}
    return encode_table(
        folder, pieces, recipe, shard_rows=shard_rows, made=made, reports={"empty_cells": filled}
    )


def count_nulls(path: Path) -> dict[str, int]:
    """Empty cells per column, from the parquet's own statistics; columns without any left out."""
    metadata = pq.read_metadata(path)
    counts = dict.fromkeys(metadata.schema.names, 0)
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            counts[chunk.path_in_schema] += chunk.statistics.null_count
    return {name: count for name, count in counts.items() if count}


def _columns_of(path: Path, separator: str) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; expected a click table")
    if path.suffix == ".parquet":
        return list(pq.read_schema(path).names)
    return read_header(path, separator)


def _schema(recipe: Recipe, label: str | None) -> dict[str, type[pl.DataType]]:
    """Fields stay text, so "01" and "1" remain two values; numbers must parse as numbers."""
    schema: dict[str, type[pl.DataType]] = {} if label is None else {label: pl.Int64}
    extra = [name for name in (recipe.group, recipe.sequence) if name is not None]
    schema |= dict.fromkeys([*recipe.categorical, *extra], pl.String)
    return schema | dict.fromkeys(recipe.numeric, pl.Float64)
