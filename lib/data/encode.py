"""From parquet tables to a Clicks dataset, streamed in batches of bounded memory."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from lib.data.clicks import Clicks, Layout
from lib.data.clicks_writer import check_batches, seal_clicks
from lib.data.fit import NumericPlan, Piece, Recipe, fit_group, fit_numeric, fit_vocabularies
from lib.data.fit import transform as transformed
from lib.data.sequences import parse_sequences
from lib.data.shards import Arrays, Batch, map_npy, write_shards
from lib.data.vocabulary import Vocabulary, save_vocabularies

__all__ = ["encode_table", "find_wrong_labels", "iterate_parquet"]

BATCH_ROWS = 65_536
READ_BUFFER = 1 << 20  # bytes per column: one row group may hold the whole file


@dataclass(frozen=True, slots=True)
class _Fitted:
    vocabularies: tuple[Vocabulary, ...]
    constants: tuple[str, ...]
    numeric: NumericPlan
    group: Vocabulary | None
    layout: Layout


def encode_table(
    folder: Path,
    pieces: Sequence[Piece],
    recipe: Recipe,
    *,
    folds: npt.NDArray[np.int16] | None = None,
    shard_rows: int = 2_000_000,
    made: Mapping[str, object],
    reports: Mapping[str, object] | None = None,
) -> Clicks:
    """Fit on the training rows of ``pieces``, encode all their rows in order, write the shards.

    ``folds`` holds a fold for each row; without it every training row is in fold 0. A second call
    with the same recipe on the same files keeps complete shards and rebuilds damaged ones only.
    """
    n_rows = sum(piece.n_rows for piece in pieces)
    if n_rows < 1:
        raise ValueError(f"{folder.name}: no rows to encode; the sources are empty")
    if folds is not None and len(folds) != n_rows:
        raise ValueError(f"{len(folds)} folds for {n_rows} rows; give one for each row")
    fitted = _fit(pieces, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    save_vocabularies(folder / "vocabulary.parquet", fitted.vocabularies)
    identity = {
        "recipe": asdict(recipe),
        "made": made,
        "layout": asdict(fitted.layout),
        "numeric": asdict(fitted.numeric),
        "vocabulary": hashlib.sha256((folder / "vocabulary.parquet").read_bytes()).hexdigest(),
        "folds": None if folds is None else hashlib.sha256(folds.tobytes()).hexdigest(),
        "sources": [(piece.path.stat().st_size, piece.n_rows) for piece in pieces],
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    batches = check_batches(fitted.layout, _batches(pieces, recipe, fitted, folds))
    done = write_shards(folder, batches, n_rows=n_rows, shard_rows=shard_rows, recipe=key)
    layout = fitted.layout
    if recipe.sequence is not None:
        layout = replace(layout, n_tokens=_count_tokens(folder, len(done.rows)))
    report = {**_report(pieces, fitted), **(reports or {}), "shards_built": list(done.built)}
    seal_clicks(folder, layout, done.rows, made={**made, "recipe": asdict(recipe)}, reports=report)
    return Clicks.open(folder)


def iterate_parquet(
    path: Path, columns: Sequence[str], *, n_rows: int, batch_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """The first ``n_rows`` rows in batches; pages are read as needed, even of one row group."""
    left = n_rows
    with pq.ParquetFile(path, buffer_size=READ_BUFFER, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=batch_rows, columns=list(dict.fromkeys(columns))):
            if left <= 0:
                return
            yield batch.slice(0, left)
            left -= len(batch)


def _fit(pieces: Sequence[Piece], recipe: Recipe) -> _Fitted:
    vocabularies, constants = fit_vocabularies(pieces, recipe)
    numeric = fit_numeric(pieces, recipe)
    layout = Layout(
        fields=tuple(vocabulary.field for vocabulary in vocabularies),
        field_sizes=tuple(vocabulary.size for vocabulary in vocabularies),
        numeric_names=tuple(column.name for column in numeric.columns),
        missing_names=tuple(name for name, _ in numeric.blocks),
    )
    group = None if recipe.group is None else fit_group(pieces, recipe.group)
    return _Fitted(vocabularies, constants, numeric, group, layout)


def _batches(
    pieces: Sequence[Piece],
    recipe: Recipe,
    fitted: _Fitted,
    folds: npt.NDArray[np.int16] | None,
) -> Iterator[Batch]:
    row = 0
    for piece in pieces:
        start = row
        own = [*fitted.layout.fields, *fitted.layout.numeric_names]
        own += [columns[0] for _, columns in fitted.numeric.blocks]
        own += [name for name in (recipe.group, recipe.sequence, piece.label) if name is not None]
        columns = [*own, *piece.split.meta.root_names()]
        for batch in iterate_parquet(piece.path, columns, n_rows=piece.n_rows):
            some = None if folds is None else folds[row : row + len(batch)]
            yield len(batch), partial(_encode, batch, piece, recipe, fitted, some, row - start)
            row += len(batch)


def _encode(
    batch: pa.RecordBatch,
    piece: Piece,
    recipe: Recipe,
    fitted: _Fitted,
    folds: npt.NDArray[np.int16] | None,
    first_row: int,
) -> Arrays:
    names = [name for name in batch.schema.names if name != recipe.sequence]
    frame = pl.DataFrame(pl.from_arrow(batch.select(names)))
    n = len(frame)
    split = frame.select(piece.split.cast(pl.UInt8).alias("split"))["split"].to_numpy()
    split = np.broadcast_to(split, n)
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "categorical": _encode_fields(frame, fitted),
        "numeric": _encode_numbers(frame, fitted.numeric, recipe),
        "missing": _encode_missing(frame, fitted.numeric),
        "label": _labels(frame, piece),
        "fold": np.where(split == 0, 0 if folds is None else folds, -1).astype(np.int16),
        "group": np.zeros(n, np.int32)
        if fitted.group is None
        else fitted.group.encode(frame[fitted.group.field]),
        "split": split,
    }
    if recipe.sequence is not None:
        arrays["lengths"], arrays["tokens"] = parse_sequences(
            batch.column(recipe.sequence), first_row=first_row
        )
    return arrays


def find_wrong_labels(label: pl.Series) -> pl.Series:
    """Which labels are neither 0 nor 1, whatever their type."""
    number = label.cast(pl.Float64, strict=False)
    return ~((number == 0) | (number == 1)).fill_null(False)


def _labels(frame: pl.DataFrame, piece: Piece) -> npt.NDArray[np.int8]:
    if piece.label is None:
        return np.full(len(frame), -1, np.int8)
    label = frame[piece.label]
    wrong = find_wrong_labels(label)
    if wrong.any():
        raise ValueError(
            f"{piece.path.name}: label {piece.label!r} is {label.filter(wrong)[0]!r} in "
            f"{wrong.sum()} row(s) of one batch, expected 0 or 1; map or remove those rows"
        )
    return label.cast(pl.Int8).to_numpy()


def _encode_fields(frame: pl.DataFrame, fitted: _Fitted) -> npt.NDArray[np.int32]:
    ids = np.empty((len(frame), len(fitted.vocabularies)), np.int32)
    for column, vocabulary in enumerate(fitted.vocabularies):
        offset = int(fitted.layout.field_offsets[column])
        ids[:, column] = vocabulary.encode(frame[vocabulary.field]) + offset
    return ids


def _encode_numbers(
    frame: pl.DataFrame, plan: NumericPlan, recipe: Recipe
) -> npt.NDArray[np.float32]:
    numbers = np.empty((len(frame), len(plan.columns)), np.float32)
    for index, column in enumerate(plan.columns):
        values = frame[column.name].cast(pl.Float64).to_numpy()
        finite = np.isfinite(values)
        if not finite.all():
            values = np.where(
                finite, transformed(np.where(finite, values, 0), recipe.transform), column.fill
            )
        else:
            values = transformed(values, recipe.transform)
        numbers[:, index] = (values - column.mean) / column.deviation
    return numbers


def _encode_missing(frame: pl.DataFrame, plan: NumericPlan) -> npt.NDArray[np.uint8]:
    masks = [
        ~np.isfinite(frame[columns[0]].cast(pl.Float64).to_numpy()) for _, columns in plan.blocks
    ]
    return (
        np.stack(masks, axis=1).astype(np.uint8) if masks else np.zeros((len(frame), 0), np.uint8)
    )


def _count_tokens(folder: Path, n_shards: int) -> int:
    """Rows of the token table: the largest token of any training row, and one more."""
    largest = 1
    for shard in range(n_shards):
        tokens = map_npy(folder / f"{shard:05d}.tokens.npy")
        offsets = np.load(folder / f"{shard:05d}.offsets.npy")
        train = np.load(folder / f"{shard:05d}.split.npy") == 0
        for first in range(0, len(train), BATCH_ROWS):
            ends = offsets[first : first + BATCH_ROWS + 1]
            kept = np.repeat(train[first : first + BATCH_ROWS], np.diff(ends))
            largest = max(largest, int(tokens[ends[0] : ends[-1]][kept].max(initial=0)))
    return largest + 1


def _report(pieces: Sequence[Piece], fitted: _Fitted) -> dict[str, object]:
    numeric = fitted.numeric
    return {
        "file_rows": [[piece.name, piece.n_rows] for piece in pieces],  # in the order of the rows
        "fields": [
            {
                "field": vocabulary.field,
                "ids": vocabulary.size,
                "distinct_in_train": vocabulary.n_distinct,
                "kind": "hash" if vocabulary.values is None else "vocabulary",
            }
            for vocabulary in fitted.vocabularies
        ],
        "constants_dropped": [*fitted.constants, *numeric.constants],
        "missing_blocks": {name: list(columns) for name, columns in numeric.blocks},
        "infinite_as_missing": sum(column.n_infinite for column in numeric.columns),
    }
