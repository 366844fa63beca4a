"""What is fitted on training rows: vocabularies, medians, scales, missing blocks, constants.

Every pass reads few columns at a time, so memory stays at a few columns however wide the log is.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from lib.data.vocabulary import Vocabulary, fit_buckets, fit_vocabulary

__all__ = ["Numeric", "NumericPlan", "Piece", "Recipe", "fit_numeric", "fit_vocabularies"]

COLUMNS_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A parquet and how its rows fall into splits: an expression giving 0 train, 1 valid, 2 test.

    Without ``label`` the rows are unlabelled (a published test set) and get -1.
    """

    name: str  # of the source file: train, valid or test
    path: Path
    split: pl.Expr
    n_rows: int
    label: str | None = "label"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Every choice between a table and a Clicks dataset; plain values, kept in the manifest."""

    categorical: tuple[str, ...]
    numeric: tuple[str, ...] = ()
    group: str | None = None
    sequence: str | None = None
    encoding: Literal["vocabulary", "hash"] = "vocabulary"
    min_count: int = 1
    hash_buckets: int = 1_000_000
    hash_margin: float = 0.2
    salt: str = ""
    impute: Literal["median", "mean", "zero"] = "median"
    transform: Literal["none", "log"] = "none"
    missing_indicators: bool = True
    drop_constants: bool = True

    def __post_init__(self) -> None:
        both = set(self.categorical) & set(self.numeric)
        if both:
            raise ValueError(f"{sorted(both)} are both categorical and numeric; choose one kind")
        if not self.categorical and not self.numeric:
            raise ValueError("no columns chosen; name at least one categorical or numeric column")


@dataclass(frozen=True, slots=True)
class Numeric:
    """One numeric column: what a missing value becomes, and mean and deviation after that."""

    name: str
    fill: float
    mean: float
    deviation: float
    n_missing: int
    n_infinite: int


@dataclass(frozen=True, slots=True)
class NumericPlan:
    """The kept columns, the constants that were dropped, and one indicator per null pattern."""

    columns: tuple[Numeric, ...]
    constants: tuple[str, ...]
    blocks: tuple[tuple[str, tuple[str, ...]], ...]  # indicator name, columns missing together


def transform(values: npt.NDArray[np.float64], kind: str) -> npt.NDArray[np.float64]:
    """``log`` is sign(x) log(1 + |x|), for counts that span orders of magnitude."""
    return np.sign(values) * np.log1p(np.abs(values)) if kind == "log" else values


def fit_vocabularies(
    pieces: Sequence[Piece], recipe: Recipe
) -> tuple[tuple[Vocabulary, ...], tuple[str, ...]]:
    """One vocabulary per categorical column from its training rows, and the constants dropped."""
    kept, constants = [], []
    for name in recipe.categorical:
        counts = _count_values(pieces, name)
        if recipe.drop_constants and len(counts) == 1:
            constants.append(name)
        elif recipe.encoding == "hash":
            buckets, margin, salt = recipe.hash_buckets, recipe.hash_margin, recipe.salt
            vocabulary = fit_buckets(name, counts, buckets=buckets, margin=margin, salt=salt)
            kept.append(vocabulary)
        else:
            kept.append(fit_vocabulary(name, counts, min_count=recipe.min_count))
    return tuple(kept), tuple(constants)


def fit_group(pieces: Sequence[Piece], name: str) -> Vocabulary:
    """Group numbers for grouped metrics and folds. All rows: a number carries no statistic."""
    counts = pl.concat([_count_piece(piece, name, pl.lit(True)) for piece in pieces])
    return fit_vocabulary(name, counts.group_by("value").agg(pl.col("count").sum()))


def fit_numeric(pieces: Sequence[Piece], recipe: Recipe) -> NumericPlan:
    """Medians, scales, constants and null patterns of the numeric columns, training rows only."""
    columns, constants = [], []
    patterns: dict[str, list[str]] = defaultdict(list)
    for series in _training_columns(pieces, recipe.numeric):
        raw = series.cast(pl.Float64).to_numpy()
        infinite = np.isinf(raw)
        missing = ~np.isfinite(raw)
        values = transform(raw[~missing], recipe.transform)
        if missing.any():
            pattern = hashlib.blake2b(np.packbits(missing).data, digest_size=16).hexdigest()
            patterns[pattern].append(series.name)
        if not len(values) or (recipe.drop_constants and values.min() == values.max()):
            constants.append(series.name)
            continue
        fill = _fill_value(values, recipe.impute)
        n, n_missing = len(raw), int(missing.sum())
        mean = (values.sum() + n_missing * fill) / n
        spread = ((values - mean) ** 2).sum() + n_missing * (fill - mean) ** 2
        deviation = float(np.sqrt(spread / n)) or 1.0
        columns.append(
            Numeric(
                series.name, float(fill), float(mean), deviation, n_missing, int(infinite.sum())
            )
        )
    blocks = tuple((f"missing:{names[0]}", tuple(names)) for names in patterns.values())
    return NumericPlan(
        tuple(columns), tuple(constants), blocks if recipe.missing_indicators else ()
    )


def _fill_value(values: npt.NDArray[np.float64], impute: str) -> float:
    if impute == "zero":
        return 0.0
    return float(np.median(values) if impute == "median" else np.mean(values))


def _count_values(pieces: Iterable[Piece], name: str) -> pl.DataFrame:
    parts = [_count_piece(piece, name, piece.split == 0) for piece in pieces]
    if sum(len(part) for part in parts) == 0:
        raise ValueError(f"no training rows to fit {name!r} on; give train files or another split")
    return pl.concat(parts).group_by("value").agg(pl.col("count").sum())


def _count_piece(piece: Piece, name: str, chosen: pl.Expr) -> pl.DataFrame:
    rows = pl.scan_parquet(piece.path).head(piece.n_rows).filter(chosen)
    counts = rows.group_by(pl.col(name).alias("value")).agg(pl.len().alias("count"))
    return counts.collect(engine="streaming")


def _training_columns(pieces: Sequence[Piece], names: Sequence[str]) -> Iterator[pl.Series]:
    for start in range(0, len(names), COLUMNS_AT_ONCE):
        some = list(names[start : start + COLUMNS_AT_ONCE])
        parts = [
            pl.scan_parquet(piece.path).head(piece.n_rows).filter(piece.split == 0).select(some)
            for piece in pieces
        ]
        frame = pl.concat(parts).collect()
        if frame.is_empty():
            raise ValueError(f"no training rows to fit {some[0]!r} on; give another split")
        yield from frame.iter_columns()
