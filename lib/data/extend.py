"""More numeric columns for a dataset that exists: a block of files beside its shards."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lib.data.clicks import Clicks
from lib.data.clicks_writer import seal_clicks
from lib.data.files import forget_manifest
from lib.data.sequences import STATISTICS, sequence_statistics
from lib.data.shards import NpyFile

__all__ = ["Block", "extend_numeric", "statistics_block"]

ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, slots=True)
class Block:
    """Columns computed from rows of the dataset; ``compute`` maps row numbers to (B, columns)."""

    name: str
    columns: tuple[str, ...]
    compute: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]
    scaled: bool = False  # standardise by the training rows; never for values made from labels


def extend_numeric(clicks: Clicks, blocks: list[Block]) -> Clicks:
    """Append blocks to ``numeric``; the dataset is incomplete until all are there."""
    folder = clicks.folder
    forget_manifest(folder)
    names, parts = list(clicks.numeric_names), list(clicks.parts.get("numeric", ("numeric",)))
    for block in blocks:
        if block.name in parts:
            raise ValueError(f"block {block.name!r} is there already; prepare the dataset again")
        paths = [folder / f"{n:05d}.{block.name}.npy" for n in range(len(clicks.shard_rows))]
        start = 0
        for path, size in zip(paths, clicks.shard_rows, strict=True):
            _write(path, block, start, start + size)
            start += size
        if block.scaled:
            _standardise(paths, clicks)
        names += block.columns
        parts.append(block.name)
    layout = replace(clicks.layout, numeric_names=tuple(names))
    seal_clicks(
        folder,
        layout,
        clicks.shard_rows,
        made=clicks.made,
        reports=clicks.reports,
        parts={**clicks.parts, "numeric": parts},
    )
    return Clicks.open(folder)


def statistics_block(clicks: Clicks) -> Block:
    """Statistics of each row's sequence, standardised by the training rows."""

    def raw(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        sequence = clicks.take(rows).sequence
        if sequence is None:
            raise ValueError("this dataset has no sequence; prepare it with a sequence column")
        return sequence_statistics(*sequence)

    return Block("statistics", tuple(f"sequence:{name}" for name in STATISTICS), raw, scaled=True)


def _write(path: Path, block: Block, first: int, last: int) -> None:
    file = NpyFile(path)
    try:
        for start in range(first, last, ROWS_AT_ONCE):
            rows = np.arange(start, min(start + ROWS_AT_ONCE, last))
            values = block.compute(rows)
            if values.shape != (len(rows), len(block.columns)) or not np.isfinite(values).all():
                raise ValueError(f"block {block.name!r}: {values.shape} or not finite values")
            file.append(values.astype(np.float32, copy=False))
    except BaseException:
        file.abandon()
        raise
    file.close()


def _standardise(paths: list[Path], clicks: Clicks) -> None:
    """Mean 0 and deviation 1 over the training rows, in place; the manifest is not there yet."""
    arrays = [np.load(path, mmap_mode="r+") for path in paths]
    train = np.split(clicks.split == 0, np.cumsum(clicks.shard_rows)[:-1])
    n = max(sum(int(rows.sum()) for rows in train), 1)
    mean = sum(a[r].sum(axis=0, dtype=np.float64) for a, r in zip(arrays, train, strict=True)) / n
    square = sum(((a[r] - mean) ** 2).sum(axis=0) for a, r in zip(arrays, train, strict=True))
    deviation = np.sqrt(square / n)
    deviation = np.where(deviation > 0, deviation, 1.0)
    for array in arrays:
        array[:] = (array - mean) / deviation
        array.flush()
