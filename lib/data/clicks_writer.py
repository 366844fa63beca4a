"""Writing a Clicks dataset: shards first, the manifest last, every batch checked in between."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from lib.data.clicks import KIND, Clicks, Layout
from lib.data.files import open_manifest, write_manifest
from lib.data.shards import Arrays, Batch, write_shards

__all__ = ["check_batches", "publish_clicks", "seal_clicks", "write_clicks"]


def write_clicks(
    folder: Path,
    layout: Layout,
    batches: Iterable[Batch],
    *,
    n_rows: int,
    shard_rows: int = 2_000_000,
    recipe: str = "",
    made: Mapping[str, object] | None = None,
    reports: Mapping[str, object] | None = None,
) -> Clicks:
    """Write a dataset from batches of ``ROW_ARRAYS`` (and ``lengths``, ``tokens``) and open it."""
    if n_rows < 1:
        raise ValueError(f"{folder.name}: no rows to write; an empty dataset is never made")
    checked = check_batches(layout, batches)
    done = write_shards(folder, checked, n_rows=n_rows, shard_rows=shard_rows, recipe=recipe)
    seal_clicks(folder, layout, done.rows, made=made or {}, reports=reports or {})
    return Clicks.open(folder)


def check_batches(layout: Layout, batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same batches; each is checked when it is encoded."""
    return ((size, partial(_checked, layout, encode)) for size, encode in batches)


def seal_clicks(
    folder: Path,
    layout: Layout,
    shard_rows: Sequence[int],
    *,
    made: Mapping[str, object],
    reports: Mapping[str, object],
    parts: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write the manifest, the last file of a dataset."""
    extra = {
        "counts": {"rows": sum(shard_rows), "shards": len(shard_rows), "ids": layout.n_ids},
        "layout": asdict(layout),
        "shard_rows": list(shard_rows),
        "parts": {name: list(blocks) for name, blocks in (parts or {}).items()},
        "made": made,
        "reports": reports,
    }
    write_manifest(folder, KIND, extra)


def publish_clicks(folder: Path, target: Path) -> Clicks:
    """Move a finished dataset from where its shards survive a kill to where it is an output."""
    open_manifest(folder, KIND)
    if target.exists():
        raise FileExistsError(f"{target.name} is there already; a dataset is never overwritten")
    shutil.move(folder, target)
    return Clicks.open(target)


def _checked(layout: Layout, encode: Callable[[], Arrays]) -> Arrays:
    """What one batch must fulfil; a wrong id here would be a silently wrong row of a table."""
    arrays = encode()
    ids = np.asarray(arrays["categorical"], np.int32)
    numbers = np.asarray(arrays["numeric"], np.float32)
    low = layout.field_offsets
    outside = ((ids < low) | (ids >= low + np.array(layout.field_sizes))).any(axis=0)
    if outside.any():
        name = layout.fields[int(np.argmax(outside))]
        raise ValueError(f"field {name!r} has ids outside its range; encode with its vocabulary")
    if not np.isfinite(numbers).all():
        bad = ~np.isfinite(numbers).all(axis=0)
        name = layout.numeric_names[int(np.argmax(bad))]
        raise ValueError(f"numeric column {name!r} has NaN or infinity; impute before writing")
    label = np.asarray(arrays["label"], np.int8)
    if label.min(initial=0) < -1 or label.max(initial=0) > 1:
        raise ValueError(f"labels from {label.min()} to {label.max()}, expected 0, 1 (-1 unknown)")
    return arrays
