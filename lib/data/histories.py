"""Histories: who met which item in which order, memory-mapped, with splits as sets of targets.

One CSR holds all interactions; a split never copies a prefix, it names (user, position) targets.
Leakage rule: a target is predicted from the positions before it, and only the first
``train_lengths[u]`` positions of user u may be counted, fitted or trained on.
Ids: items from 1, 0 is padding. Oldest first. Windows are padded on the right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lib.data.files import forget_manifest, open_manifest, write_atomic, write_manifest

__all__ = ["Histories", "Targets", "write_histories"]

KIND = "histories"
SPLITS = ("train", "valid", "test")
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Targets:
    """What is to be predicted: ``positions[i]`` within the sequence of ``users[i]``; both [T]."""

    users: Int32
    positions: Int64

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Histories:
    """Interactions of all users as CSR: user u owns ``items[offsets[u]:offsets[u + 1]]``."""

    folder: Path
    items: Int32  # [E], from 1
    times: Int64  # [E], milliseconds since 1970, or the order in the file where none are known
    offsets: Int64  # [U + 1]
    train_lengths: Int64  # [U], leading interactions that belong to training
    counts: Int32  # [V + 1], training interactions per item; row 0 is padding
    targets: Mapping[str, Targets]
    made: Mapping[str, Any]

    @staticmethod
    def open(folder: Path) -> "Histories":
        """Map a folder that ``write_histories`` finished; reads no array and no title."""
        folder = Path(folder)
        manifest = open_manifest(folder, KIND)
        return Histories(
            folder=folder,
            items=_map(folder, "items"),
            times=_map(folder, "times"),
            offsets=_map(folder, "offsets"),
            train_lengths=_map(folder, "train_lengths"),
            counts=_map(folder, "counts"),
            targets={
                name: Targets(_map(folder, f"{name}_users"), _map(folder, f"{name}_positions"))
                for name in SPLITS
            },
            made=cast(Mapping[str, Any], manifest["made"]),
        )

    @property
    def n_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_items(self) -> int:
        """V, the size of the catalogue; ids run from 1 to V."""
        return len(self.counts) - 1

    @cached_property
    def _catalogue(self) -> pl.DataFrame:
        return pl.read_parquet(self.folder / "catalogue.parquet", memory_map=False)

    @cached_property
    def item_keys(self) -> list[str]:
        """Names of the items in the raw data, by id; entry 0 is empty."""
        return cast(list[str], self._catalogue["key"].to_list())

    @cached_property
    def titles(self) -> list[str]:
        """Titles by id; empty where none is known."""
        return cast(list[str], self._catalogue["title"].to_list())

    @cached_property
    def groups(self) -> list[str]:
        """Category by id; empty where none is known."""
        return cast(list[str], self._catalogue["group"].to_list())

    @property
    def lengths(self) -> Int64:
        """Interactions per user, [U]."""
        return cast(Int64, np.diff(self.offsets))

    def target_items(self, targets: Targets) -> Int32:
        """The item at each target.  T targets -> (T,)"""
        return cast(Int32, self.items[self.offsets[targets.users] + targets.positions])

    def windows(self, users: Int32, positions: Int64, max_len: int) -> tuple[Int32, Int32]:
        """The last ``max_len`` items before each position.  (B,), (B,) -> (B, max_len), (B,)"""
        self._check(users, positions, max_len)
        lengths = np.minimum(positions, max_len).astype(np.int64)
        starts = self.offsets[users] + positions - lengths
        return _padded(self.items, starts, lengths, max_len), lengths.astype(np.int32)

    def seen(self, users: Int32, positions: Int64) -> tuple[Int64, Int32]:
        """Everything before each position, as CSR (offsets [B + 1], items), for filtering."""
        self._check(users, positions, 1)
        offsets = np.concatenate([[0], np.cumsum(positions, dtype=np.int64)])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], positions)
        return offsets, self.items[np.repeat(self.offsets[users], positions) + within]

    def training_sequences(self, max_len: int) -> tuple[Int32, Int32, Int32]:
        """All training targets at once.  -> inputs (U', max_len), targets (U', max_len), users

        ``targets[i, l]`` follows ``inputs[i, l]`` and is 0 where nothing is to be predicted. A user
        with more targets than ``max_len`` keeps the last ones.
        """
        train = self.targets["train"]
        users = np.unique(train.users).astype(np.int32)
        self._check(users, np.ones(len(users), dtype=np.int64), max_len)
        last = np.zeros(self.n_users, dtype=np.int64)
        np.maximum.at(last, train.users, train.positions)
        first = np.maximum(last[users] - max_len, 0)
        lengths = last[users] - first
        starts = self.offsets[users] + first
        inputs = _padded(self.items, starts, lengths, max_len)
        targets = np.zeros_like(inputs)
        rows = np.full(self.n_users, -1, dtype=np.int64)
        rows[users] = np.arange(len(users))
        row = rows[train.users]
        column = train.positions - 1 - first[row]
        kept = column >= 0
        targets[row[kept], column[kept]] = self.target_items(train)[kept]
        return inputs, targets, users

    def _check(self, users: Int32, positions: Int64, max_len: int) -> None:
        if max_len < 1:
            raise ValueError(f"max_len is {max_len}, expected at least 1")
        if len(users) != len(positions):
            raise ValueError(f"{len(users)} users but {len(positions)} positions; expected as many")
        if len(users) and (np.min(users) < 0 or np.max(users) >= self.n_users):
            raise ValueError(f"users must lie in 0..{self.n_users - 1}, got {np.max(users)}")
        if len(users) and (
            np.min(positions) < 0
            or np.any(positions > self.offsets[users + 1] - self.offsets[users])
        ):
            raise ValueError("a position lies outside its user's sequence; expected 0..length")


def _map(folder: Path, name: str) -> NDArray[Any]:
    return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))


def _padded(items: Int32, starts: Int64, lengths: Int64, width: int) -> Int32:
    """Slices of ``items`` as rows, right-padded with 0.  (B,), (B,) -> (B, width)"""
    out = np.zeros((len(starts), width), dtype=np.int32)
    columns = np.arange(width)
    filled = columns < lengths[:, None]
    out[filled] = items[(starts[:, None] + columns)[filled]]
    return out


def write_histories(
    folder: Path,
    *,
    items: NDArray[Any],
    times: NDArray[Any],
    offsets: NDArray[Any],
    targets: Mapping[str, Targets],
    item_keys: Sequence[str],
    titles: Sequence[str],
    groups: Sequence[str] | None = None,
    made: Mapping[str, object],
    train_lengths: NDArray[Any] | None = None,
) -> Histories:
    """Check, write and open a dataset; the manifest comes last, so a part of one never opens.

    ``item_keys``, ``titles`` and ``groups`` have an empty entry for padding at index 0.
    Without ``train_lengths``, training is all that precedes a user's first valid or test target.
    """
    folder = Path(folder)
    items, times = np.asarray(items, dtype=np.int32), np.asarray(times, dtype=np.int64)
    offsets = np.asarray(offsets, dtype=np.int64)
    full = {name: targets.get(name, _no_targets()) for name in SPLITS}
    n_items = len(item_keys) - 1
    _check_sequences(items, times, offsets, n_items)
    _check_targets(offsets, full)
    groups = [""] * len(item_keys) if groups is None else groups
    if not len(titles) == len(groups) == len(item_keys) or item_keys[0] or titles[0]:
        raise ValueError(
            f"{len(item_keys)} item keys, {len(titles)} titles, {len(groups)} groups: expected as "
            "many of each, with an empty entry for padding at index 0"
        )
    lengths = _leading(offsets, full) if train_lengths is None else np.asarray(train_lengths)
    _check_training(lengths, offsets, full)
    within = np.arange(len(items)) - np.repeat(offsets[:-1], np.diff(offsets))
    training = within < np.repeat(lengths, np.diff(offsets))
    counts = np.bincount(items[training], minlength=n_items + 1).astype(np.int32)
    arrays = {"items": items, "times": times, "offsets": offsets, "counts": counts}
    arrays["train_lengths"] = lengths.astype(np.int64)
    for name, split in full.items():
        arrays[f"{name}_users"] = np.asarray(split.users, dtype=np.int32)
        arrays[f"{name}_positions"] = np.asarray(split.positions, dtype=np.int64)
    forget_manifest(folder)
    for name, array in arrays.items():
        write_atomic(folder / f"{name}.npy", lambda file, array=array: np.save(file, array))  # type: ignore[misc]
    catalogue = pl.DataFrame(
        {"key": list(item_keys), "title": list(titles), "group": list(groups)},
        schema={"key": pl.String, "title": pl.String, "group": pl.String},
    )
    write_atomic(folder / "catalogue.parquet", lambda file: catalogue.write_parquet(file))
    sizes = {"users": len(offsets) - 1, "items": n_items, "interactions": len(items)}
    sizes |= {f"{name}_targets": len(split) for name, split in full.items()}
    write_manifest(folder, KIND, {"counts": sizes, "made": dict(made)})
    return Histories.open(folder)


def _no_targets() -> Targets:
    return Targets(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64))


def _leading(offsets: Int64, targets: Mapping[str, Targets]) -> Int64:
    """Positions before each user's first valid or test target."""
    lengths = np.diff(offsets)
    for name in ("valid", "test"):
        np.minimum.at(lengths, targets[name].users, targets[name].positions)
    return lengths


def _check_sequences(items: Int32, times: Int64, offsets: Int64, n_items: int) -> None:
    if (
        len(offsets) < 1
        or offsets[0] != 0
        or offsets[-1] != len(items)
        or (np.diff(offsets) < 0).any()
    ):
        raise ValueError(
            f"offsets must rise from 0 to the number of interactions ({len(items)}); got "
            f"{offsets[:1]}..{offsets[-1:]}"
        )
    if len(times) != len(items):
        raise ValueError(f"{len(times)} times for {len(items)} interactions; expected as many")
    if len(items) and not (items.min() >= 1 and items.max() <= n_items):
        raise ValueError(
            f"item ids run from {items.min()} to {items.max()}; expected 1..{n_items}, 0 is padding"
        )
    backwards = np.diff(times) < 0
    starts = offsets[1:-1]  # a step between two users may go back in time
    backwards[starts[(starts > 0) & (starts < len(items))] - 1] = False
    if backwards.any():
        row = int(np.argmax(backwards))
        user = int(np.searchsorted(offsets, row, side="right")) - 1
        raise ValueError(f"user {user}: times go back at interaction {row}; sort oldest first")


def _check_targets(offsets: Int64, targets: Mapping[str, Targets]) -> None:
    flat = []
    for name, split in targets.items():
        users, positions = split.users, split.positions
        if len(users) != len(positions):
            raise ValueError(f"{name}: {len(users)} users but {len(positions)} positions")
        if not len(users):
            continue
        if users.min() < 0 or users.max() >= len(offsets) - 1:
            raise ValueError(f"{name}: users must lie in 0..{len(offsets) - 2}, got {users.max()}")
        if positions.min() < 1 or (positions >= np.diff(offsets)[users]).any():
            raise ValueError(f"{name}: a target needs a history, so 1 <= position < length")
        flat.append(offsets[users] + positions)
    every = np.concatenate(flat) if flat else np.zeros(0, dtype=np.int64)
    if len(np.unique(every)) != len(every):
        raise ValueError("a (user, position) is a target twice; splits must be disjoint")


def _check_training(lengths: Int64, offsets: Int64, targets: Mapping[str, Targets]) -> None:
    if len(lengths) != len(offsets) - 1:
        raise ValueError(f"{len(lengths)} train_lengths for {len(offsets) - 1} users")
    train = targets["train"]
    if (train.positions >= lengths[train.users]).any():
        raise ValueError("a training target lies outside its user's training part")
    if (lengths > _leading(offsets, targets)).any():
        raise ValueError("a user's training part reaches a valid or test target: that is leakage")
