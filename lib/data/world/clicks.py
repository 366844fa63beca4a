"""What click laws share: ads over the catalogue, the remainder nobody can explain, the mean rate.

A click has probability sigmoid(m + s·ε), ε standard normal and seen by nobody: m is all that user,
ad, context and history determine. Who knew m exactly would state its mean over ε,
``expected_probability``; no model can beat that, so it is the ceiling.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.data.world.catalogue import ODDITIES, UNREADABLE, Catalogue
from lib.data.world.choice import MEMORY, Law, State, type_probabilities
from lib.data.world.rng import generator

__all__ = ["Ads", "draw_ads", "expected_probability", "find_intercept", "make_ads", "sigmoid"]
__all__ += ["draw_rows", "history_counts", "wants"]

Floats = NDArray[np.float32]
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(9)  # mean over a standard normal
WORDS = 0.7  # share of the variance of what a creative adds that its words tell


@dataclass(frozen=True, slots=True)
class Ads:
    """Ads in the order in which their campaigns begin."""

    items: NDArray[np.int64]  # [A] what is advertised, an index of the catalogue
    begins: NDArray[np.float64]  # [A] share of the log's span that is over when the ad starts
    edges: NDArray[np.float64]  # [A+1] running sum of how often each is shown
    quality: Floats  # [A] what the creative adds to the logit, most of it by its words


def make_ads(catalogue: Catalogue, n_ads: int, seed: int, name: str) -> Ads:
    """Ads for popular and new items alike; two in five begin while the log is running."""
    rng = generator(seed, "ads", name)
    unreadable = [list(ODDITIES).index(kind) for kind in UNREADABLE]
    readable = np.flatnonzero(~np.isin(catalogue.oddity, unreadable))
    items = rng.permutation(np.resize(rng.permutation(readable), n_ads))
    begins = np.sort(np.where(rng.random(n_ads) < 0.6, 0.0, rng.random(n_ads)))
    begins[0] = 0.0
    weights = (rng.permutation(n_ads) + 3.0) ** -0.9
    said = rng.standard_normal(len(catalogue.title_affinity)) @ catalogue.title_affinity[:, items]
    said = said / (said.std() + 1e-6)  # a sum of effects of the title's words
    unsaid = rng.standard_normal(n_ads)
    return Ads(
        items=items,
        begins=begins,
        edges=np.concatenate([[0.0], np.cumsum(weights)]),
        quality=np.asarray(np.sqrt(WORDS) * said + np.sqrt(1 - WORDS) * unsaid, dtype=np.float32),
    )


def draw_ads(ads: Ads, moments: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """One running ad for each moment, often-shown ones more often.  -> [B]"""
    running = np.searchsorted(ads.begins, moments, side="right")
    place = rng.random(len(moments)) * ads.edges[running]
    return np.clip(np.searchsorted(ads.edges, place, side="right") - 1, 0, running - 1)


def draw_rows(
    edges: NDArray[np.float64], rows: NDArray[np.int64], draw: NDArray[np.float64]
) -> NDArray[np.int64]:
    """One column of ``edges[row]`` for each row, where ``edges`` are running sums that end at 1.

    >>> draw_rows(np.array([[0.5, 1.0], [0.0, 1.0]]), np.array([0, 1]), np.array([0.4, 0.4]))
    array([0, 1])
    """
    n_rows, n_columns = edges.shape
    flat = (edges + np.arange(n_rows)[:, None]).reshape(-1)
    place = np.searchsorted(flat, rows + np.minimum(draw, 1 - 1e-9), side="right")
    return np.clip(place - rows * n_columns, 0, n_columns - 1)


def history_counts(law: Law, moment: int) -> NDArray[np.int64]:
    """How many purchases each user made before a moment.  -> [U]"""
    before = np.concatenate([[0], np.cumsum(law.people.times < moment)])
    return np.asarray(before[law.people.offsets[1:]] - before[law.people.offsets[:-1]])


def wants(
    law: Law,
    items: NDArray[np.int32],
    users: NDArray[np.int64],
    counts: NDArray[np.int64],
    moment: int,
) -> Floats:
    """p(type) of each user's next purchase at a moment: taste and what recent ones call for."""
    places = counts[users][:, None] - 1 - np.arange(MEMORY)
    found = items[law.people.offsets[users][:, None] + np.maximum(places, 0)]
    recent = np.where(places >= 0, found, -1).astype(np.int32)
    return type_probabilities(law, State(users, np.full(len(users), moment), recent))


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), dtype=np.float32)


def expected_probability(logits: Floats, remainder: float) -> Floats:
    """The mean of sigmoid(m + remainder·ε) over ε, by Gauss-Hermite quadrature.

    >>> expected_probability(np.zeros(1, np.float32), 2.0).round(3).tolist()
    [0.5]
    """
    total = np.zeros_like(logits)
    for node, weight in zip(NODES, NODE_WEIGHTS / NODE_WEIGHTS.sum(), strict=True):
        total += np.float32(weight) * sigmoid(logits + np.float32(node * remainder))
    return total


def find_intercept(logits: Floats, remainder: float, rate: float) -> float:
    """The constant that, added to the logits, makes the mean probability ``rate``."""
    low, high = -20.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        if expected_probability(logits + np.float32(middle), remainder).mean() < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2
