"""Saves what is true of the world, apart from the raw files; ``truth`` opens it again."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib.data.files import write_atomic, write_json
from lib.data.world.avazu_log import ClickLog
from lib.data.world.choice import Law
from lib.data.world.config import WorldConfig
from lib.data.world.write_toss import TossTruth

__all__ = ["save_avazu_truth", "save_toss_truth", "save_world"]


def save_world(folder: Path, config: WorldConfig, law: Law, items: NDArray[np.int32]) -> None:
    """The record that makes the catalogue and the people again, and what was bought."""
    write_json(folder / "config.json", config.record())
    _save(folder / "purchases.npy", items)
    _save(folder / "times.npy", law.people.times)
    _save(folder / "offsets.npy", law.people.offsets)


def save_avazu_truth(
    folder: Path, log: ClickLog, splits: Mapping[str, Mapping[str, NDArray[np.int64]]]
) -> None:
    """For each file of each variant: probability, expectation and label of every row, in order."""
    for variant, parts in splits.items():
        for name, rows in parts.items():
            columns = (log.probabilities[rows], log.expected[rows], log.labels[rows])
            _save(folder / f"{variant}_{name}.npy", np.stack(columns).astype(np.float32))


def save_toss_truth(folder: Path, toss: Mapping[str, TossTruth]) -> None:
    """For train and test: probability, expectation and label; the test labels exist only here."""
    for name, part in toss.items():
        columns = (part.probabilities, part.expected, part.labels)
        _save(folder / f"toss_{name}.npy", np.stack(columns).astype(np.float32))


def _save(path: Path, array: NDArray[np.generic]) -> None:
    write_atomic(path, lambda file: np.save(file, array, allow_pickle=False))
