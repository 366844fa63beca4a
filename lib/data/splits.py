"""Three protocols that name what is predicted, and from what.

Each takes CSR offsets (and times) and returns targets plus, for each user, how many leading
interactions are training. Targets have a history, so position 0 is never one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lib.data.histories import Targets

__all__ = ["Split", "SplitName", "split_histories", "split_last", "split_ratio", "split_temporal"]

SplitName = Literal["last", "temporal", "ratio"]
Int64 = NDArray[np.int64]
EIGHT_ONE_ONE = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class Split:
    """Disjoint targets; the first ``train_lengths[u]`` interactions of user u are training."""

    targets: Mapping[str, Targets]
    train_lengths: Int64


def split_histories(
    name: SplitName, offsets: Int64, times: Int64, ratios: Sequence[float] = EIGHT_ONE_ONE
) -> Split:
    """The protocol of that name; ``ratios`` is not used by ``last``."""
    if name == "last":
        return split_last(offsets)
    if name == "temporal":
        return split_temporal(offsets, times, ratios)
    if name == "ratio":
        return split_ratio(offsets, ratios)
    raise ValueError(f"split is {name!r}, expected 'last', 'temporal' or 'ratio'")


def split_last(offsets: Int64) -> Split:
    """Leave-last-out: a user's last item is test, the one before is valid, the rest is training.

    Users with fewer than three interactions are training only.

    >>> split_last(np.array([0, 4, 6])).targets["test"].positions
    array([3])
    """
    lengths = np.diff(offsets)
    train = np.where(lengths >= 3, lengths - 2, lengths)
    return _by_lengths(offsets, train, np.where(lengths >= 3, lengths - 1, lengths))


def split_ratio(offsets: Int64, ratios: Sequence[float] = EIGHT_ONE_ONE) -> Split:
    """Each user's own sequence cut by ``ratios``; valid and test get at least one item each.

    Counts are rounded down in favour of training. Fewer than three interactions: training only.
    """
    _check_ratios(ratios)
    lengths = np.diff(offsets)
    test = np.maximum(np.floor(lengths * ratios[2] + 1e-9), 1).astype(np.int64)
    valid = np.maximum(np.floor(lengths * ratios[1] + 1e-9), 1).astype(np.int64)
    long = lengths >= 3
    test, valid = np.where(long, test, 0), np.where(long, valid, 0)
    train = np.maximum(lengths - test - valid, np.minimum(lengths, 1))
    return _by_lengths(offsets, train, np.maximum(lengths - test, train))


def split_temporal(offsets: Int64, times: Int64, ratios: Sequence[float] = EIGHT_ONE_ONE) -> Split:
    """All (user, position >= 1) rows sorted by time and cut at int(.8 N) and int(.9 N).

    Ties keep the order of users and positions, so a user's training rows are always the first
    ones. A user's first interaction, never a target, is training unless it is younger than the
    last training row.
    """
    _check_ratios(ratios)
    lengths = np.diff(offsets)
    owner = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    within = np.arange(len(times)) - np.repeat(offsets[:-1], lengths)
    rows = np.flatnonzero(within >= 1)
    rows = rows[np.argsort(times[rows], kind="stable")]
    ends = [int(ratios[0] * len(rows)), int((ratios[0] + ratios[1]) * len(rows) + 1e-9)]
    parts = [np.sort(part) for part in np.split(rows, ends)]
    names = ("train", "valid", "test")
    targets = {
        name: Targets(owner[part], within[part]) for name, part in zip(names, parts, strict=True)
    }
    train_lengths = np.zeros(len(lengths), dtype=np.int64)
    if ends[0]:
        young = times[offsets[:-1][lengths > 0]] <= times[rows[ends[0] - 1]]
        train_lengths[lengths > 0] = young
    np.maximum.at(train_lengths, targets["train"].users, targets["train"].positions + 1)
    return Split(targets, train_lengths)


def _by_lengths(offsets: Int64, train: Int64, valid: Int64) -> Split:
    """Each user's positions in three runs: [0, train) training, [train, valid) valid, then test."""
    lengths = np.diff(offsets)
    owner = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    after_train, after_valid = within >= train[owner], within >= valid[owner]
    masks: dict[str, NDArray[Any]] = {
        "train": (within >= 1) & ~after_train,
        "valid": after_train & ~after_valid,
        "test": after_valid,
    }
    targets = {name: Targets(owner[mask], within[mask]) for name, mask in masks.items()}
    return Split(targets, train.astype(np.int64))


def _check_ratios(ratios: Sequence[float]) -> None:
    if len(ratios) != 3 or min(ratios) <= 0 or abs(sum(ratios) - 1) > 1e-9:
        raise ValueError(f"ratios are {list(ratios)}, expected three positive numbers with sum 1")
