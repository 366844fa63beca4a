"""K trainings of one kind, each on all folds but one; a finished fold is not trained again."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from lib.data.files import read_json, write_atomic, write_json

__all__ = ["train_folds"]

Arrays = Mapping[str, np.ndarray[Any, Any]]
DONE = "done.json"  # written last


def train_folds(
    folds: int,
    fit: Callable[[int, Path | None], Arrays],
    *,
    scratch: Path | None = None,
    report: Callable[..., object] | None = None,
) -> list[dict[str, np.ndarray[Any, Any]]]:
    """What ``fit(fold, scratch of the fold)`` answers for each fold: arrays by name.

    ``fit`` trains with the scratch folder it is given, so that an interrupted fold resumes too.
    """
    if folds < 2:
        raise ValueError(f"{folds=} must be at least 2: each fold is predicted by the others")
    answers = []
    for fold in range(folds):
        folder = None if scratch is None else scratch / f"fold-{fold}"
        if folder is not None and (folder / DONE).is_file():
            answers.append(read_arrays(folder))
        else:
            answers.append(dict(fit(fold, folder)))
            if folder is not None:
                write_arrays(folder, answers[-1])
        if report:
            report(fold + 1, folds)
    return answers


def write_arrays(folder: Path, arrays: Arrays) -> None:
    for name, array in arrays.items():
        write_atomic(folder / f"{name}.npy", lambda file, a=array: np.save(file, a))  # type: ignore[misc]
    write_json(folder / DONE, {"arrays": sorted(arrays)})


def read_arrays(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    names = cast(dict[str, list[str]], read_json(folder / DONE))["arrays"]
    return {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in names}
