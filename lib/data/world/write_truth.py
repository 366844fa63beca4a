"""Saves what is true of the world, apart from the raw files; ``truth`` opens it again."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib.data.files import forget_manifest, write_atomic, write_json, write_manifest
from lib.data.world.avazu_log import ClickLog
from lib.data.world.catalogue import Catalogue
from lib.data.world.choice import Law
from lib.data.world.config import WorldConfig
from lib.data.world.people import People
from lib.data.world.write_amazon import item_keys
from lib.data.world.write_toss import TossTruth

__all__ = ["KIND", "finish_truth", "save_avazu_truth", "save_toss_truth", "save_world"]

KIND = "truth"  # of the manifest


def save_world(folder: Path, config: WorldConfig, law: Law, items: NDArray[np.int32]) -> None:
    """Every array that the law of the next item reads, and what was bought."""
    folder.mkdir(parents=True, exist_ok=True)
    forget_manifest(folder)
    write_json(folder / "config.json", config.record())
    _save(folder / "purchases.npy", items)
    _save(folder / "item_keys.npy", item_keys(law.catalogue.n_items))
    for name, part in (("catalogue", law.catalogue), ("people", law.people)):
        _save_record(folder / name, part)


def _save_record(folder: Path, record: Catalogue | People) -> None:
    for field in fields(record):
        value = getattr(record, field.name)
        parts = value.items() if isinstance(value, dict) else [("", value)]
        for slot, array in parts:
            _save(folder / f"{field.name}{'-' + slot if slot else ''}.npy", array)


def save_avazu_truth(
    folder: Path, log: ClickLog, splits: Mapping[str, Mapping[str, NDArray[np.int64]]]
) -> None:
    """For each file of each variant: probability, expectation and label of every row, in order."""
    for variant, parts in splits.items():
        for name, rows in parts.items():
            columns = (log.probabilities[rows], log.expected[rows], log.labels[rows])
            _save(folder / "clicks" / f"{variant}-{name}.npy", np.stack(columns).astype(np.float32))


def save_toss_truth(folder: Path, toss: Mapping[str, TossTruth]) -> None:
    """For train and test: probability, expectation and label; the test labels exist only here."""
    for name, part in toss.items():
        columns = (part.probabilities, part.expected, part.labels)
        _save(folder / "clicks" / f"toss-{name}.npy", np.stack(columns).astype(np.float32))


def finish_truth(folder: Path, config: WorldConfig, counts: Mapping[str, int]) -> None:
    """The manifest, last: without it the truth does not open."""
    write_manifest(folder, KIND, {"counts": dict(counts), "made": config.record()})


def _save(path: Path, array: NDArray[np.generic]) -> None:
    write_atomic(path, lambda file: np.save(file, array, allow_pickle=False))
