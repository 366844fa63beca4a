"""Embeddings in the plane, and what the picture may be trusted with.

A t-SNE plot is an illustration: sizes of clusters and distances between them mean nothing, and
another perplexity or seed draws another map. So the coordinates are returned for two settings at
least, and beside them numbers of the *original* space: how many neighbours survive, how pure the
groups are against chance, how many dimensions are used, and how the vectors fill the sphere.

scikit-learn's Barnes-Hut t-SNE does it here. openTSNE's interpolation is linear in the points and
would win at 100,000; plots hold a few thousand points, seen by eye, and another compiled package
is no fair price for the rest (see the decision in docs/decisions/0011).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

from lib.evaluate.checks import Floats, Ints, require_no_nan

__all__ = [
    "Projection", "alignment", "anisotropy", "effective_rank", "group_purity",
    "neighbourhood_preservation", "project", "sample_rows", "uniformity",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Projection:
    """Coordinates (N, 2) of one setting, its divergence, and the share of neighbours it kept."""

    coordinates: Floats
    perplexity: float
    seed: int
    divergence: float
    preservation: float


def project(
    vectors: ArrayLike,
    settings: Sequence[tuple[float, int]] = ((15.0, 0), (50.0, 0)),
    *,
    neighbours: int = 10,
    iterations: int = 1000,
) -> list[Projection]:
    """t-SNE from a PCA start for each (perplexity, seed).  (N, D) -> list of (N, 2)

    Two settings at least: what only one of them shows is the setting, not the data.
    """
    x = _vectors(vectors)
    if len(settings) < 2 or len(set(settings)) < len(settings):
        raise ValueError(f"settings={list(settings)}; expected two or more different ones")
    worst = max(perplexity for perplexity, _ in settings)
    if len(x) <= max(3 * worst, neighbours + 1):
        raise ValueError(
            f"{len(x)} points are too few for perplexity {worst:g}; expected more than "
            f"{3 * worst:g}. Lower the perplexity or project more points"
        )
    plots = []
    for perplexity, seed in settings:
        model = TSNE(
            perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed,
            max_iter=iterations,
        )  # fmt: skip
        coordinates = np.asarray(model.fit_transform(x), dtype=np.float64)
        kept = neighbourhood_preservation(x, coordinates, neighbours)
        divergence = float(model.kl_divergence_)
        plots.append(
            Projection(
                coordinates=coordinates, perplexity=perplexity, seed=seed, divergence=divergence,
                preservation=kept,
            )
        )  # fmt: skip
    return plots


def sample_rows(n: int, most: int, generator: np.random.Generator) -> Ints:
    """Up to ``most`` of n rows, in order: t-SNE of more points than the eye can tell is waste."""
    if n <= most:
        return np.arange(n)
    return np.sort(generator.choice(n, size=most, replace=False))


def neighbourhood_preservation(vectors: ArrayLike, plane: ArrayLike, k: int = 10) -> float:
    """Mean share of a point's k nearest neighbours that are among its k nearest in the plane.

    By chance it is k / (N − 1).
    """
    high, low = _neighbours(_vectors(vectors), k), _neighbours(_vectors(plane), k)
    if len(high) != len(low):
        raise ValueError(f"{len(high)} vectors but {len(low)} points in the plane")
    shared = (high[:, :, None] == low[:, None, :]).any(2)
    return float(shared.mean())


def group_purity(vectors: ArrayLike, groups: ArrayLike, k: int = 10) -> dict[str, float]:
    """Share of a point's k nearest neighbours in its own group, and what chance would give."""
    x, names = _vectors(vectors), np.asarray(groups)
    if len(x) != len(names):
        raise ValueError(f"{len(x)} vectors but {len(names)} groups")
    _, group, sizes = np.unique(names, return_inverse=True, return_counts=True)
    purity = float((group[_neighbours(x, k)] == group[:, None]).mean())
    chance = float((sizes * (sizes - 1)).sum() / (len(x) * (len(x) - 1)))
    return {"purity": purity, "chance": chance}


def effective_rank(vectors: ArrayLike) -> float:
    """exp of the entropy of the normalised singular values, between 1 and D.

    Roy and Vetterli (2007), of the centred vectors; small means collapsed.
    """
    x = _vectors(vectors)
    values = np.linalg.svd(x - x.mean(0), compute_uv=False)
    total = values.sum()
    if not total > 0:
        return 1.0  # all points are one
    shares = values[values > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def anisotropy(vectors: ArrayLike) -> float:
    """Mean cosine of two different vectors: 0 fills the sphere, near 1 a narrow cone.

    Ethayarajh (2019); exact over all pairs, since Σ pairs = |Σ unit vectors|² − N.
    """
    unit = _unit(vectors)
    n = len(unit)
    if n < 2:
        raise ValueError(f"{n} vectors; a pair needs two")
    total = unit.sum(0)
    return float((total @ total - n) / (n * (n - 1)))


def alignment(left: ArrayLike, right: ArrayLike) -> float:
    """Mean squared distance of unit vectors that belong together; lower is closer.

    Wang and Isola (2020).  (P, D), (P, D) -> number
    """
    a, b = _unit(left), _unit(right)
    if a.shape != b.shape:
        raise ValueError(f"pairs of shapes {a.shape} and {b.shape}; expected the same")
    return float(((a - b) ** 2).sum(1).mean())


def uniformity(vectors: ArrayLike, *, block: int = 2048) -> float:
    """ln of the mean of exp(−2·squared distance) over all pairs of unit vectors; lower is fuller.

    Wang and Isola (2020).
    """
    unit = _unit(vectors)
    n = len(unit)
    if n < 2:
        raise ValueError(f"{n} vectors; a pair needs two")
    total = 0.0
    for start in range(0, n, block):
        cosines = unit[start : start + block] @ unit.T
        total += float(np.exp(-4 * (1 - cosines)).sum())
    return float(np.log((total - n) / (n * (n - 1))))  # less the pairs of a point with itself


def _vectors(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"vectors have shape {array.shape}; expected (points, dimensions)")
    require_no_nan("vectors", array)
    return array


def _unit(values: ArrayLike) -> Floats:
    array = _vectors(values)
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    if not (lengths > 0).all():
        n_zero = int((lengths == 0).sum())
        raise ValueError(f"{n_zero} vectors are all zeros and have no direction; leave them out")
    unit: Floats = array / lengths
    return unit


def _neighbours(vectors: Floats, k: int) -> NDArray[np.integer]:
    """Ids of the k nearest other points.  (N, D) -> (N, K)"""
    if not 1 <= k < len(vectors):
        raise ValueError(f"k={k} neighbours among {len(vectors)} points; expected 1 to N - 1")
    search = NearestNeighbors(n_neighbors=k).fit(vectors)
    found: NDArray[np.integer] = search.kneighbors(return_distance=False)  # never the point itself
    return found
