"""Cheap text: TF-IDF of title words, reduced by SVD.  The row that a language model must beat."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["lexical_embeddings"]


def lexical_embeddings(
    titles: Sequence[str], *, n_dims: int, seed: int, min_count: int = 2
) -> NDArray[np.float32]:
    """Words and word pairs, sublinear TF-IDF, truncated SVD.  (N,) -> (N, n_dims)

    Titles without a known word become zero rows.  Fewer words than dimensions leave the last
    dimensions at zero.

    >>> lexical_embeddings(["red mug", "red cup", "", "blue mug"], n_dims=2, seed=1).shape
    (4, 2)
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(
        ngram_range=(1, 2), min_df=min_count, sublinear_tf=True, strip_accents="unicode"
    )
    try:
        table = words.fit_transform(titles)
    except ValueError as error:
        raise ValueError(
            f"{len(titles)} titles share no word that occurs {min_count} times; lower min_count"
        ) from error
    n_kept = min(n_dims, min(table.shape) - 1)
    if n_kept < 1:
        raise ValueError(f"{table.shape} titles and words are too few for an embedding")
    reduced = TruncatedSVD(n_kept, random_state=seed).fit_transform(table)
    return np.pad(reduced, ((0, 0), (0, n_dims - n_kept))).astype(np.float32)
