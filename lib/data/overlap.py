"""How many rows of one Avazu variant stand in another: a check for leakage between variants.

Ids of two variants never align, so contents cannot be compared as they are. But when both hold the
same rows, a value keeps its number of rows. A value whose number is unique in its column, in both
variants, is thus recognised; every other value is unknown. The fingerprint of a row is a hash of
label, hour and what is recognised; only rows whose fingerprint occurs once count as identified.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

__all__ = ["Overlap", "measure_overlap"]

UNKNOWN = -1
MIX = np.uint64(0x9E3779B97F4A7C15)
Prints = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Of the rows asked for: which can be identified, and which of those stand elsewhere."""

    identified: npt.NDArray[np.bool_]  # the fingerprint belongs to no other row of the variant
    found: npt.NDArray[np.bool_]  # identified, and in the other files
    columns: dict[str, float]  # share of rows whose value is recognised; 0: not comparable

    @property
    def found_share(self) -> float:
        """Share of the identified rows that were found; not a number without any."""
        n = int(self.identified.sum())
        return int(self.found.sum()) / n if n else float("nan")


def measure_overlap(
    asked: str,
    own: dict[str, Path],
    seen: Sequence[str],
    other: dict[str, Path],
    *,
    columns: Sequence[str],
) -> Overlap:
    """Rows of file ``asked`` of variant ``own`` that stand in the files ``seen`` of ``other``.

    Both map the names of all their files to normalised parquets; numbers of rows are counted over
    all files of a variant, because only the union of its splits is the same in both.
    """
    total = {name: sum(_count(path) for path in files.values()) for name, files in
             (("own", own), ("other", other))}  # fmt: skip
    if total["own"] != total["other"]:
        raise ValueError(
            f"{total['own']:,} and {total['other']:,} rows are not the same rows in two splits; "
            "prepare both variants whole, without a row limit"
        )
    mine = {name: np.zeros(_count(path), np.uint64) for name, path in own.items()}
    theirs = {name: np.zeros(_count(path), np.uint64) for name, path in other.items()}
    recognised = {}
    for column in ("label", "hour", *columns):
        known = None if column in ("label", "hour") else _unique_counts(own, other, column)
        values = {name: _values(path, own, column, known) for name, path in own.items()}
        for name, path in other.items():
            _mix(theirs[name], _values(path, other, column, known))
        for name, value in values.items():
            _mix(mine[name], value)
        recognised[column] = float((values[asked] != UNKNOWN).mean())
    everything = np.sort(np.concatenate(list(mine.values())))
    left = np.searchsorted(everything, mine[asked], side="left")
    right = np.searchsorted(everything, mine[asked], side="right")
    identified = right - left == 1
    pool = np.concatenate([theirs[name] for name in seen])
    return Overlap(identified, identified & np.isin(mine[asked], pool), recognised)


def _count(path: Path) -> int:
    return int(pl.scan_parquet(path).select(pl.len()).collect().item())


def _counts(files: dict[str, Path], column: str) -> pl.DataFrame:
    rows = pl.concat([pl.scan_parquet(path).select(column) for path in files.values()])
    return rows.group_by(column).agg(pl.len().alias("n")).collect(engine="streaming")


def _unique_counts(own: dict[str, Path], other: dict[str, Path], column: str) -> pl.Series:
    """Numbers of rows that exactly one value has, in either variant."""
    single = [
        _counts(files, column)
        .group_by("n")
        .agg(pl.len().alias("values"))
        .filter(pl.col("values") == 1)
        for files in (own, other)
    ]
    return single[0].join(single[1], on="n")["n"]


def _values(
    path: Path, files: dict[str, Path], column: str, known: pl.Series | None
) -> npt.NDArray[np.int64]:
    """What each row of a column is recognised as: its value where comparable, else its count."""
    rows = pl.scan_parquet(path).select(column)
    if known is None:
        return rows.select(pl.col(column).cast(pl.Int64)).collect()[column].to_numpy()
    counts = _counts(files, column).filter(pl.col("n").is_in(known.implode()))
    joined = rows.join(counts.lazy(), on=column, how="left", maintain_order="left")
    return joined.select(pl.col("n").cast(pl.Int64).fill_null(UNKNOWN)).collect()["n"].to_numpy()


def _mix(prints: Prints, values: npt.NDArray[np.int64]) -> None:
    """One more column into the fingerprints, in place."""
    prints ^= values.astype(np.uint64) + MIX + (prints << np.uint64(6)) + (prints >> np.uint64(2))
    prints *= np.uint64(0xBF58476D1CE4E5B9)
    prints ^= prints >> np.uint64(31)
