"""What the click notebooks prepare and show: any source to Clicks, and tables that describe it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from lib.data.avazu import FEATURES, Extra, prepare_avazu
from lib.data.clicks import SPLITS, Clicks
from lib.data.fit import Recipe
from lib.data.overlap import Overlap, measure_overlap
from lib.data.tabular import find_sources, prepare_table
from lib.data.unzip import unpack_sources
from lib.studies.figures import style

__all__ = [
    "Source",
    "TableOptions",
    "field_table",
    "length_figure",
    "measure_overlaps",
    "missing_table",
    "near_duplicates",
    "overlap_columns",
    "overlap_table",
    "prepare_source",
    "split_table",
    "unseen_figure",
]

Source = Literal["x1", "x2", "x4", "table"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TableOptions:
    """How the files of one click table become a dataset; ``fields`` and below: any other table."""

    source: Source
    extra: Extra = "hour"
    min_count: int = 2
    valid_share: float = 0.125
    row_limit: int = 0
    shard_rows: int = 2_000_000
    seed: int = 1
    fields: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    label: str = "label"
    group: str = ""
    separator: str = ","
    transform: Literal["none", "log"] = "none"
    duplicate_ids: Literal["report", "refuse"] = "report"


def prepare_source(
    folder: Path, raw: Path, options: TableOptions, *, tables: Path, scratch: Path
) -> Clicks:
    """Normalise the files of ``raw`` into ``tables`` and encode them into ``folder``.

    Where ``raw`` holds only a zip, its files are unpacked into ``scratch`` first.
    """
    sources = find_sources(unpack_sources(raw, scratch))
    max_rows = options.row_limit or None
    if options.source != "table":
        return prepare_avazu(
            folder,
            sources,
            variant=options.source,
            scratch=tables,
            extra=options.extra,
            min_count=options.min_count,
            valid_share=options.valid_share,
            seed=options.seed,
            max_rows=max_rows,
            shard_rows=options.shard_rows,
            duplicate_ids=options.duplicate_ids,
        )
    recipe = Recipe(
        categorical=options.fields,
        numeric=options.numeric,
        group=options.group or None,
        min_count=options.min_count,
        transform=options.transform,
    )
    return prepare_table(
        folder,
        sources,
        recipe,
        scratch=tables,
        label=options.label,
        separator=options.separator,
        valid_share=options.valid_share,
        seed=options.seed,
        max_rows=max_rows,
        shard_rows=options.shard_rows,
    )


def split_table(clicks: Clicks) -> pl.DataFrame:
    """Rows and click rate of each split; unlabelled rows have no rate."""
    rows = []
    for split in SPLITS:
        label = clicks.label[clicks.rows(split)]
        known = label[label >= 0]
        rate = float(known.mean()) if len(known) else None
        rows.append({"split": split, "rows": len(label), "click rate": rate})
    return pl.DataFrame(
        rows, schema={"split": pl.String, "rows": pl.Int64, "click rate": pl.Float64}
    )


def field_table(clicks: Clicks, *, most: int = 200_000) -> pl.DataFrame:
    """Ids of each field, and the share of valid or test rows whose value training never kept."""
    report = cast(list[dict[str, object]], clicks.reports["fields"])
    held = np.concatenate([clicks.rows("valid"), clicks.rows("test")])[:most]
    local = clicks.take(held).categorical - clicks.field_offsets
    shares = (local == 1).mean(axis=0) if len(held) else np.full(len(report), np.nan)
    return pl.DataFrame(
        {
            "field": [row["field"] for row in report],
            "distinct in train": [row["distinct_in_train"] for row in report],
            "ids": [row["ids"] for row in report],
            "rare or unseen in held-out rows": shares,
        }
    )


def unseen_figure(fields: pl.DataFrame) -> Figure:
    """Bars of the last column of ``field_table``, first field on top."""
    shown = fields.reverse()
    with style():
        figure = Figure(figsize=(7, 0.8 + 0.22 * len(shown)))
        axes = figure.subplots()
        axes.barh(shown["field"].to_list(), shown["rare or unseen in held-out rows"].to_list())
        axes.set_xlabel("share of held-out rows with a rare or unseen value")
    return figure


def length_figure(clicks: Clicks) -> Figure:
    """How many events the rows have."""
    lengths = [
        np.diff(np.load(clicks.folder / f"{shard:05d}.offsets.npy", mmap_mode="r"))
        for shard in range(len(clicks.shard_rows) if clicks.n_tokens else 0)
    ]
    with style():
        figure = Figure(figsize=(7, 3))
        axes = figure.subplots()
        axes.hist(np.concatenate(lengths) if lengths else np.zeros(len(clicks)), bins=40, log=True)
        axes.set(xlabel="events of a row", ylabel="rows")
    return figure


def missing_table(clicks: Clicks) -> pl.DataFrame:
    """One line for each set of columns that are missing together."""
    blocks = cast(dict[str, list[str]], clicks.reports["missing_blocks"])
    return pl.DataFrame(
        {
            "indicator": list(blocks),
            "columns": [len(names) for names in blocks.values()],
            "last of them": [names[-1] for names in blocks.values()],
        },
        schema={"indicator": pl.String, "columns": pl.Int64, "last of them": pl.String},
    )


def near_duplicates(clicks: Clicks, *, least: float = 0.995, most: int = 50_000) -> pl.DataFrame:
    """Pairs of numeric columns whose correlation over training rows is at least ``least``."""
    numbers = clicks.take(clicks.rows("train")[:most]).numeric.astype(np.float64)
    names = clicks.numeric_names
    alive = np.flatnonzero(numbers.std(axis=0) > 0) if len(numbers) else np.zeros(0, int)
    size = (
        np.atleast_2d(np.corrcoef(numbers[:, alive], rowvar=False))
        if len(alive)
        else np.zeros((0, 0))
    )
    left, right = np.nonzero(np.triu(np.abs(size) >= least, 1))
    return pl.DataFrame(
        {
            "column": [names[alive[i]] for i in left],
            "and": [names[alive[i]] for i in right],
            "correlation": [float(size[i, j]) for i, j in zip(left, right, strict=True)],
        },
        schema={"column": pl.String, "and": pl.String, "correlation": pl.Float64},
    )


def measure_overlaps(own: Path, others: Mapping[str, Path]) -> dict[str, Overlap]:
    """Test rows of this variant inside the train file of each other one, by folder of tables."""
    return {
        name: measure_overlap("test", _tables(own), ["train"], _tables(folder), columns=FEATURES)
        for name, folder in others.items()
    }


def overlap_table(overlaps: Mapping[str, Overlap]) -> pl.DataFrame:
    """Share of the identified test rows that stand in each training file, and in any of them."""
    rows = [
        {
            "training file of": name,
            "test rows": len(overlap.found),
            "identified": float(overlap.identified.mean()),
            "found": overlap.found_share,
        }
        for name, overlap in overlaps.items()
    ]
    if len(overlaps) > 1:
        sure = np.logical_and.reduce([overlap.identified for overlap in overlaps.values()])
        found = np.logical_or.reduce([overlap.found for overlap in overlaps.values()])
        share = float(found[sure].mean()) if sure.any() else float("nan")
        rows.append({"training file of": "any", "test rows": len(sure),
                     "identified": float(sure.mean()), "found": share})  # fmt: skip
    return pl.DataFrame(rows)


def overlap_columns(overlaps: Mapping[str, Overlap]) -> pl.DataFrame:
    """Share of test rows whose value can be compared, by column; 0 says: not comparable."""
    names: Sequence[str] = list(next(iter(overlaps.values())).columns)
    columns = {f"with {name}": [o.columns[n] for n in names] for name, o in overlaps.items()}
    return pl.DataFrame({"column": names, **columns})


def _tables(folder: Path) -> dict[str, Path]:
    """Normalised parquets of a variant by file: ``x4_train.parquet`` is train."""
    return {path.stem.partition("_")[2]: path for path in sorted(folder.glob("x?_*.parquet"))}
