"""Any click table, CSV or parquet with named fields, to a Clicks dataset.

Each source file is first normalised into a parquet and then encoded. What is repaired is counted in
the report, nothing is silent.
"""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from lib.data.clicks import SPLITS, Clicks, SplitName
from lib.data.encode import encode_table
from lib.data.fit import Piece, Recipe
from lib.data.normalise import ROW, columns_of, normalise

__all__ = ["carve_valid", "find_sources", "prepare_table"]

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")


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
        labelled = split != "test" or label in columns_of(path, separator)
        schema = _schema(recipe, label if labelled else None)
        rule = pl.lit(SPLITS.index(split), dtype=pl.UInt8)
        if split == "train" and "valid" not in sources:
            rule = carve_valid(pl.col(ROW), share=valid_share, seed=seed)
        target = scratch / f"{split}.parquet"
        done = normalise(
            path,
            target,
            schema=schema,
            columns=[*map(pl.col, schema), rule.alias("split")],
            separator=separator,
            max_rows=max_rows,
        )
        filled[split] = done.empty
        own, n_rows = label if labelled else None, done.n_rows
        pieces.append(
            Piece(name=split, path=target, split=pl.col("split"), n_rows=n_rows, label=own)
        )
    made = {"max_rows": max_rows, "valid_share": valid_share, "seed": seed}
    return encode_table(
        folder, pieces, recipe, shard_rows=shard_rows, made=made, reports={"empty_cells": filled}
    )


def _schema(recipe: Recipe, label: str | None) -> dict[str, type[pl.DataType]]:
    """Fields stay text, so "01" and "1" remain two values; numbers must parse as numbers."""
    schema: dict[str, type[pl.DataType]] = {} if label is None else {label: pl.Int64}
    extra = [name for name in (recipe.group, recipe.sequence) if name is not None]
    schema |= dict.fromkeys([*recipe.categorical, *extra], pl.String)
    return schema | dict.fromkeys(recipe.numeric, pl.Float64)
