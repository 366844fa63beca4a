"""Rows for users and items that were not in training, in closed form.

    user row  ≈  [mean of the item rows of the history, 1] · W_u     ridge over training users
    item row  ≈  [hashed words of the title, 1] · W_t                ridge over training items

Words are hashed and not counted, so that a title needs no vocabulary beside it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.data.histories import Histories

__all__ = [
    "TITLE_FEATURES", "fit_titles", "fit_users", "hash_titles", "history_means", "ridge_map",
    "title_rows", "user_rows",
]  # fmt: skip

TITLE_FEATURES = 4_096
Floats = NDArray[np.float32]


def ridge_map(x: Any, y: NDArray[Any], ridge: float) -> Floats:
    """argmin_W |[x, 1] W − y|² + ridge · |W|², the last row of W (the mean) unpunished.

    (N, A) dense or sparse, (N, D) -> (A + 1, D); solved in the smaller of A and N dimensions.

    >>> ridge_map(np.array([[0.0], [1.0]]), np.array([[1.0], [3.0]]), 1e-9).round(3).tolist()
    [[2.0], [1.0]]
    """
    if ridge <= 0:
        raise ValueError(f"ridge={ridge} must be above 0, or few rows have no single answer")
    n, width = x.shape
    if n == 0:
        return np.zeros((width + 1, y.shape[1]), dtype=np.float32)
    mean_x = np.asarray(x.mean(axis=0), dtype=np.float64).ravel()
    mean_y = y.mean(axis=0, dtype=np.float64)
    right = y - mean_y
    dense = isinstance(x, np.ndarray)
    if width <= n:
        gram = x.T @ x if dense else (x.T @ x).toarray()
        gram = gram - n * np.outer(mean_x, mean_x) + ridge * np.eye(width)
        weights = np.linalg.solve(gram, x.T @ right)  # the means of `right` are zero
    else:
        cross = x @ x.T if dense else (x @ x.T).toarray()
        shift = x @ mean_x
        centred = cross - shift[:, None] - shift[None, :] + mean_x @ mean_x
        dual = np.linalg.solve(centred + ridge * np.eye(n), right)
        weights = x.T @ dual - np.outer(mean_x, dual.sum(axis=0))
    return np.vstack([weights, mean_y - mean_x @ weights]).astype(np.float32)


def history_means(items: NDArray[Any], rows: Floats) -> Floats:
    """Mean of the rows of each history, zero without one.  (B, L) right-padded, (V + 1, D)"""
    found = np.zeros((len(items), rows.shape[1]), dtype=np.float32)
    for start in range(0, len(items), 1024):
        part = items[start : start + 1024]
        real = (part > 0)[..., None]
        total = (rows[part] * real).sum(axis=1)
        found[start : start + 1024] = total / np.maximum(real.sum(axis=1), 1)
    return found


def fit_users(
    histories: Histories,
    item_rows: Floats,
    users: Floats,
    *,
    ridge: float,
    left_out: NDArray[np.int32] | None = None,
    max_len: int = 200,
) -> Floats:
    """The map from histories to user rows, over users with a training part.  -> (d + 1, d)"""
    known = np.flatnonzero(histories.train_lengths > 0).astype(np.int32)
    if left_out is not None:
        known = np.setdiff1d(known, left_out).astype(np.int32)
    windows, _ = histories.windows(known, histories.train_lengths[known], max_len)
    means = history_means(windows, item_rows).astype(np.float64)
    return ridge_map(means, users[known].astype(np.float64), ridge)


def user_rows(items: NDArray[Any], item_rows: Floats, user_map: Floats) -> Floats:
    """Rows for people who were not in training, from what they bought.  (B, L) -> (B, d)"""
    return np.asarray(history_means(items, item_rows) @ user_map[:-1] + user_map[-1])


def hash_titles(titles: Sequence[str]) -> Any:
    """Words and word pairs, hashed, of length one; an empty title is a zero row.  -> sparse"""
    from sklearn.feature_extraction.text import HashingVectorizer

    words = HashingVectorizer(
        n_features=TITLE_FEATURES, ngram_range=(1, 2), strip_accents="unicode", norm="l2"
    )
    return words.transform(titles).astype(np.float64)


def fit_titles(
    titles: Sequence[str], item_rows: Floats, counts: NDArray[Any], *, ridge: float
) -> Floats:
    """The map from titles to item rows, over items in training with a title; entry 0 is padding."""
    named = np.array([bool(title.strip()) for title in titles])
    known = np.flatnonzero((np.asarray(counts) > 0) & named)
    texts = [titles[int(item)] for item in known]
    if not texts:
        mean = item_rows[1:].mean(axis=0, keepdims=True)
        zeros = np.zeros((TITLE_FEATURES, item_rows.shape[1]), dtype=np.float32)
        return np.vstack([zeros, mean]).astype(np.float32)
    return ridge_map(hash_titles(texts), item_rows[known].astype(np.float64), ridge)


def title_rows(titles: Sequence[str], title_map: Floats) -> Floats:
    """Rows for items that were not in training.  (N,) -> (N, d)"""
    if not titles:
        return np.zeros((0, title_map.shape[1]), dtype=np.float32)
    return np.asarray(hash_titles(titles) @ title_map[:-1] + title_map[-1], dtype=np.float32)
