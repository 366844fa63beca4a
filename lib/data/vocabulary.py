"""From values to ids: a vocabulary with a rare bucket, or a salted hash whose rule never changes.

Both are fitted on training rows and give ids inside one field: 0 missing, 1 rare or unseen, then
the values in sorted order (vocabulary) or ``2 + hash % buckets`` (hash).

The hash, version 1: 64-bit FNV-1a over the UTF-8 bytes of ``salt, 0x1F, field, 0x1F, text``, then
the finaliser of splitmix64. The text of a string is itself; of a whole number its decimal digits
(14.0 and 14 are both ``14``); of any other float ``f`` and its 64 bits as 16 hexadecimal digits.

>>> [f"{stable_hash(text):016x}" for text in ("", "a", "foobar")]
['c3817c016ba4ff30', '5f29c2aadd9b8527', '5df295413403de4f']
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from lib.data.files import write_atomic

__all__ = [
    "FIRST_VALUE",
    "Vocabulary",
    "fit_buckets",
    "fit_vocabulary",
    "hash_series",
    "save_vocabularies",
    "stable_hash",
]

MISSING, RARE, FIRST_VALUE = 0, 1, 2
FNV_OFFSET, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
MASK = 2**64 - 1
LOOKUP_SPAN = 2**24  # integers within this span are looked up in an array, others by bisection


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Ids of one field. ``values`` is sorted and unique; None means hashed into ``buckets``."""

    field: str
    values: pl.Series | None
    counts: npt.NDArray[np.int64]  # training rows per value; empty when hashed
    n_distinct: int  # values seen in training, rare ones included
    buckets: int = 0
    salt: str = ""

    @property
    def size(self) -> int:
        """Rows this field needs in an embedding table, missing and rare included."""
        return FIRST_VALUE + (self.buckets if self.values is None else len(self.values))

    def encode(self, series: pl.Series) -> npt.NDArray[np.int32]:
        """Ids of the values of a column.  (N,) -> (N,)

        >>> vocabulary = fit_vocabulary("os", pl.DataFrame({"value": ["b", "a"], "count": [3, 2]}))
        >>> vocabulary.encode(pl.Series(["a", None, "c", "b"])).tolist()
        [2, 0, 1, 3]
        """
        if self.values is None:
            hashed = hash_series(series, salt=self.salt, field=self.field)
            ids = (FIRST_VALUE + hashed % np.uint64(self.buckets)).astype(np.int32)
        elif self.values.dtype == pl.String:
            codes = series.cast(pl.String).cast(self._enum, strict=False).to_physical()
            ids = codes.cast(pl.Int64).fill_null(RARE - FIRST_VALUE).to_numpy().astype(np.int32)
            ids += FIRST_VALUE
        else:
            ids = self._find_numbers(series)
        missing = _missing(series)
        if missing.any():
            ids[missing] = MISSING
        return ids

    @cached_property
    def _enum(self) -> pl.Enum:
        return pl.Enum(self.values if self.values is not None else [])

    @cached_property
    def _lookup(self) -> tuple[int, npt.NDArray[np.int32]] | None:
        """Array from value to id, padded by one rare id on either side."""
        numbers = self._numbers
        if not len(numbers) or not np.issubdtype(numbers.dtype, np.integer):
            return None
        low, span = int(numbers[0]), int(numbers[-1]) - int(numbers[0])
        if span > LOOKUP_SPAN:
            return None
        table = np.full(span + 3, RARE, np.int32)
        table[numbers - low + 1] = np.arange(len(numbers), dtype=np.int32) + FIRST_VALUE
        return low, table

    @cached_property
    def _numbers(self) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
        return self.values.to_numpy() if self.values is not None else np.zeros(0, np.int64)

    def _find_numbers(self, series: pl.Series) -> npt.NDArray[np.int32]:
        known = self._numbers
        whole = np.issubdtype(known.dtype, np.integer)
        if series.dtype == pl.String:
            series = series.cast(pl.Int64 if whole else pl.Float64, strict=False)
        found = series.fill_null(0).to_numpy()
        broken = np.zeros(len(found), bool)
        if whole and np.issubdtype(found.dtype, np.floating):
            rounded = np.where(np.abs(found) < 2**62, np.round(np.nan_to_num(found)), 0)
            broken, found = rounded != found, rounded.astype(np.int64)
        if self._lookup is not None:
            low, table = self._lookup
            ids = table[np.clip(found.astype(np.int64) - low + 1, 0, len(table) - 1)]
        elif len(known):
            position = np.minimum(np.searchsorted(known, found), len(known) - 1)
            ids = np.where(known[position] == found, position + FIRST_VALUE, RARE).astype(np.int32)
        else:
            ids = np.full(len(found), RARE, np.int32)
        ids[broken] = RARE
        return ids


def fit_vocabulary(field: str, counts: pl.DataFrame, *, min_count: int = 1) -> Vocabulary:
    """Keep each training value seen ``min_count`` times; ``counts`` has columns value and count."""
    if min_count < 1:
        raise ValueError(f"{min_count=}, expected at least 1")
    known = counts.drop_nulls("value")
    if known["value"].dtype.is_float():
        known = known.filter(pl.col("value").is_not_nan())
        if (known["value"] == known["value"].round()).all():
            known = known.with_columns(pl.col("value").cast(pl.Int64))
    elif known["value"].dtype.is_integer():
        known = known.with_columns(pl.col("value").cast(pl.Int64))
    kept = known.filter(pl.col("count") >= min_count).sort("value")
    return Vocabulary(
        field=field,
        values=kept["value"],
        counts=kept["count"].cast(pl.Int64).to_numpy(),
        n_distinct=len(known),
    )


def fit_buckets(
    field: str, counts: pl.DataFrame, *, buckets: int, margin: float, salt: str
) -> Vocabulary:
    """Hash into ``(1 + margin)`` times the distinct training values, at most ``buckets``."""
    if buckets < 1 or margin < 0:
        raise ValueError(f"{buckets=}, {margin=}, expected at least 1 bucket and a margin from 0")
    distinct = counts["value"].drop_nulls().n_unique()
    needed = max(int(np.ceil(distinct * (1 + margin))), 1)
    return Vocabulary(
        field=field,
        values=None,
        counts=np.zeros(0, np.int64),
        n_distinct=distinct,
        buckets=min(needed, buckets),
        salt=salt,
    )


def stable_hash(text: str | bytes) -> int:
    """Hash version 1 of one text, in plain Python: the specification of ``hash_series``."""
    state = _fnv(FNV_OFFSET, text.encode() if isinstance(text, str) else text)
    state = (state + 0x9E3779B97F4A7C15) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def hash_series(series: pl.Series, *, salt: str, field: str) -> npt.NDArray[np.uint64]:
    """Hash version 1 of each value; what stands at a null is arbitrary.  (N,) -> (N,)"""
    start = _fnv(FNV_OFFSET, f"{salt}\x1f{field}\x1f".encode())
    array = _texts(series).fill_null("").to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer or b"\0", np.uint8)
    state = np.full(len(array), start, np.uint64)
    lengths = np.diff(offsets)
    prime = np.uint64(FNV_PRIME)
    for position in range(int(lengths.max(initial=0))):
        longer = np.flatnonzero(lengths > position)
        state[longer] = (state[longer] ^ data[offsets[longer] + position]) * prime
    state += np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def save_vocabularies(path: Path, vocabularies: Sequence[Vocabulary]) -> None:
    """One parquet of field, value (as text), id inside the field, training count."""
    frames = [
        pl.DataFrame(
            {
                "field": [vocabulary.field] * len(vocabulary.counts),
                "value": vocabulary.values.cast(pl.String),
                "id": np.arange(len(vocabulary.counts), dtype=np.int32) + FIRST_VALUE,
                "count": vocabulary.counts,
            }
        )
        for vocabulary in vocabularies
        if vocabulary.values is not None
    ]
    schema = {"field": pl.String, "value": pl.String, "id": pl.Int32, "count": pl.Int64}
    table = pl.concat(frames) if frames else pl.DataFrame(schema=schema)
    write_atomic(path, lambda file: table.write_parquet(file))


def _fnv(state: int, data: bytes) -> int:
    for byte in data:
        state = ((state ^ byte) * FNV_PRIME) & MASK
    return state


def _missing(series: pl.Series) -> npt.NDArray[np.bool_]:
    missing = series.is_null()
    if series.dtype.is_float():
        missing = missing | series.is_nan().fill_null(True)
    return missing.to_numpy()


def _texts(series: pl.Series) -> pl.Series:
    if not series.dtype.is_float():
        return series.cast(pl.String)
    numbers = series.cast(pl.Float64).fill_nan(None).fill_null(0.0)
    whole = (numbers == numbers.round()) & (numbers.abs() < 2**53)
    text = numbers.cast(pl.Int64, strict=False).cast(pl.String)
    if whole.all():
        return text
    bits = numbers.to_numpy().view(np.uint64)
    exact = pl.Series([f"f{value:016x}" for value in bits.tolist()], dtype=pl.String)
    return text.zip_with(whole, exact)
