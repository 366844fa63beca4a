"""A click dataset seen through a feature step: columns left out, rare ids merged, fields crossed.

The data on disk stay as they are, the same for every rung; a view changes what a batch holds.
Counts are taken over training rows and never look at a label, so nothing can leak.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lib.data.clicks import ClickRows, Clicks, Layout, SplitName

__all__ = ["ClickView", "ReadsClicks", "ViewSettings", "append_numbers", "view_clicks"]

Ints = npt.NDArray[np.int64]
RARE = 1  # local id of a rare or unseen value, as in lib.data.clicks
ROWS_AT_ONCE = 200_000


class ReadsClicks(Protocol):
    """What training reads of a click dataset."""

    @property
    def layout(self) -> Layout: ...
    @property
    def label(self) -> npt.NDArray[np.int8]: ...
    @property
    def fold(self) -> npt.NDArray[np.int16]: ...
    def rows(self, split: SplitName | None = None) -> Ints: ...
    def take(self, rows: npt.ArrayLike, *, max_len: int | None = None) -> ClickRows: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewSettings:
    """``drop``: names or patterns of numeric columns; ``rare``: an id seen less often in training
    joins the rare id of its field; ``crosses``: pairs of fields that become a field together."""

    drop: tuple[str, ...] = ()
    rare: int = 0
    crosses: tuple[tuple[str, str], ...] = ()
    cross_rare: int = 5  # rows a crossed value needs to have an id of its own


@dataclass(frozen=True)
class ClickView:
    """The reading side of ``Clicks`` after a feature step."""

    clicks: Clicks
    settings: ViewSettings
    layout: Layout
    numeric: Ints  # columns that stay
    new_id: npt.NDArray[np.int32]  # of each old id
    cross_keys: tuple[Ints, ...]  # per cross: sorted keys with an id of their own
    cross_columns: tuple[tuple[int, int], ...]
    added: npt.NDArray[np.float32] | None = None  # (N, A) numbers of all rows of the dataset

    @property
    def label(self) -> npt.NDArray[np.int8]:
        return self.clicks.label

    @property
    def fold(self) -> npt.NDArray[np.int16]:
        return self.clicks.fold

    def rows(self, split: SplitName | None = None) -> Ints:
        return self.clicks.rows(split)

    def take(self, rows: npt.ArrayLike, *, max_len: int | None = None) -> ClickRows:
        """Rows as the step leaves them."""
        found = self.clicks.take(rows, max_len=max_len)
        ids = self.new_id[found.categorical]
        crossed = [self._cross(number, found.categorical) for number in range(len(self.cross_keys))]
        if crossed:
            ids = np.concatenate([ids, np.stack(crossed, axis=1)], axis=1)
        numeric = found.numeric[:, self.numeric]
        if self.added is not None:
            numeric = np.concatenate([numeric, self.added[found.index]], axis=1)
        return replace(found, categorical=ids, numeric=numeric)

    def _cross(self, number: int, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        known, keys = self.cross_keys[number], _keys(ids, self.cross_columns[number])
        place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        local = np.where(known[place] == keys, place + RARE + 1, RARE) if len(known) else RARE
        start = self._starts[len(self.clicks.fields) + number]
        return np.asarray(start + local + np.zeros(len(ids)), dtype=np.int32)

    @cached_property
    def _starts(self) -> Ints:
        return self.layout.field_offsets


def view_clicks(clicks: Clicks, settings: ViewSettings) -> ClickView:
    """Fit the step on the training rows."""
    layout = clicks.layout
    for pattern in settings.drop:
        if not any(fnmatch(name, pattern) for name in layout.numeric_names):
            raise ValueError(f"drop: {pattern!r} is no numeric column of this dataset")
    numeric = np.array(
        [i for i, name in enumerate(layout.numeric_names)
         if not any(fnmatch(name, pattern) for pattern in settings.drop)], np.int64,
    )  # fmt: skip
    columns = tuple(_columns(clicks, cross) for cross in settings.crosses)
    id_counts = np.zeros(clicks.n_ids, np.int64)
    counted: list[list[tuple[Ints, Ints]]] = [[] for _ in columns]
    train = clicks.rows("train")
    for first in range(0, len(train), ROWS_AT_ONCE):
        ids = clicks.take(train[first : first + ROWS_AT_ONCE], max_len=1).categorical
        id_counts += np.bincount(ids.ravel(), minlength=clicks.n_ids)
        for pair, parts in zip(columns, counted, strict=True):
            parts.append(np.unique(_keys(ids, pair), return_counts=True))
    keys = tuple(_frequent(parts, settings.cross_rare) for parts in counted)
    new_id, sizes = _merge_rare(clicks, id_counts, settings.rare)
    layout = replace(
        layout,
        fields=(*layout.fields, *("×".join(cross) for cross in settings.crosses)),
        field_sizes=(*sizes, *(len(known) + RARE + 1 for known in keys)),
        numeric_names=tuple(layout.numeric_names[i] for i in numeric),
    )
    return ClickView(clicks, settings, layout, numeric, new_id, keys, columns)


def append_numbers(view: ClickView, columns: Mapping[str, npt.NDArray[np.floating]]) -> ClickView:
    """More numbers of every row, such as another model's score; standardised over training rows.

    What is given for a training row must come from a model that never saw it.
    """
    train = view.rows("train")
    table = np.stack(list(columns.values()), axis=1).astype(np.float64)
    middle, spread = table[train].mean(axis=0), table[train].std(axis=0)
    layout = replace(view.layout, numeric_names=(*view.layout.numeric_names, *columns))
    scaled = (table - middle) / np.maximum(spread, 1e-9)
    return replace(view, layout=layout, added=scaled.astype(np.float32))


def _merge_rare(
    clicks: Clicks, counts: Ints, rare: int
) -> tuple[npt.NDArray[np.int32], tuple[int, ...]]:
    """New id of each old one, and the fields' new sizes; missing and rare keep their places."""
    new_id, sizes, start = np.empty(clicks.n_ids, np.int32), [], 0
    for offset, size in zip(clicks.field_offsets, clicks.field_sizes, strict=True):
        kept = counts[offset : offset + size] >= rare
        kept[: RARE + 1] = True
        local = np.where(kept, np.cumsum(kept) - 1, RARE)
        new_id[offset : offset + size] = start + local
        sizes.append(int(kept.sum()))
        start += sizes[-1]
    return new_id, tuple(sizes)


def _columns(clicks: Clicks, cross: Sequence[str]) -> tuple[int, int]:
    for name in cross:
        if name not in clicks.fields:
            raise ValueError(f"crosses: {name!r} is not a field: {', '.join(clicks.fields)}")
    first, second = cross
    return clicks.fields.index(first), clicks.fields.index(second)


def _keys(ids: npt.NDArray[np.int32], pair: tuple[int, int]) -> Ints:
    return ids[:, pair[0]].astype(np.int64) << 32 | ids[:, pair[1]]


def _frequent(parts: list[tuple[Ints, Ints]], least: int) -> Ints:
    if not parts:
        return np.zeros(0, np.int64)
    keys, place = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
    times: npt.NDArray[Any] = np.bincount(
        place.reshape(-1), weights=np.concatenate([part[1] for part in parts])
    )
    return np.asarray(keys[times >= least], dtype=np.int64)
