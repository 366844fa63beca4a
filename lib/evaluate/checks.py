"""What every measure asks of its input: right shapes, no NaN, labels that are 0 or 1."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Bools", "Floats", "Ints", "as_labels", "as_probabilities", "as_scores", "as_values",
    "require_no_nan", "require_same_length",
]  # fmt: skip

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


def require_no_nan(name: str, values: NDArray[np.floating]) -> None:
    """Refuse NaN: every comparison with it is false, so a NaN score would rank first unnoticed."""
    # max() carries a NaN through in one pass and needs no temporary mask
    if values.size and np.isnan(values.max()):
        n_bad = int(np.isnan(values).sum())
        raise ValueError(
            f"{name} holds {n_bad} NaN of {values.size} values; a measure of them would look "
            "like a result. Find where they arise (a diverged model, a missing row) first"
        )


def require_same_length(**arrays: Sequence[object] | NDArray[np.generic]) -> int:
    """Length shared by all the named arrays."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"lengths differ: {lengths}; every array must have one entry per row")
    return next(iter(lengths.values()))


def as_scores(name: str, values: ArrayLike) -> NDArray[np.floating]:
    """One-dimensional scores without NaN; infinities are legal, float32 stays. (N,) -> (N,)"""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}; expected one dimension, one entry a row")
    if array.dtype != np.float32:  # half of the bytes to sort
        array = array.astype(np.float64, copy=False)
    require_no_nan(name, array)
    return array


def as_values(name: str, values: ArrayLike) -> Floats:
    """One-dimensional float64 without NaN. (N,) -> (N,)"""
    return as_scores(name, values).astype(np.float64, copy=False)


def as_labels(labels: ArrayLike) -> Bools:
    """Labels 0/1 or False/True as booleans. (N,) -> (N,)

    >>> as_labels([0, 1, 1]).tolist()
    [False, True, True]
    """
    array = np.asarray(labels)
    if array.ndim != 1:
        raise ValueError(f"labels have shape {array.shape}; expected one dimension")
    if array.dtype == np.bool_:
        return array
    positive = array == 1
    if not bool(np.all(positive | (array == 0))):
        odd = array[~(positive | (array == 0))][0]
        raise ValueError(f"labels hold {odd!r}; expected only 0 (no click) and 1 (click)")
    return positive


def as_probabilities(name: str, probabilities: ArrayLike) -> Floats:
    """Probabilities in [0, 1] as float64. (N,) -> (N,)"""
    array = as_values(name, probabilities)
    if array.size and (array.min() < 0 or array.max() > 1):
        raise ValueError(
            f"{name} spans {array.min():.4g} to {array.max():.4g}; expected probabilities in "
            "[0, 1]. Logits go through a sigmoid first"
        )
    return array
