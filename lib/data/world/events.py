"""Purchases, drawn from the law of the next item for all users of a block at once."""

import numpy as np
from numpy.typing import NDArray

from lib.data.world.choice import (
    MEMORY,
    Law,
    State,
    Weights,
    component_weights,
    in_shop,
    styles_at,
    type_probabilities,
)
from lib.data.world.rng import generator

__all__ = ["draw_next", "simulate_purchases"]

BLOCK = 16_384  # users stepped together; each block has its own random stream


def simulate_purchases(law: Law, seed: int) -> NDArray[np.int32]:
    """Every purchase of every user, in the order of ``people.times``.  -> items [E]"""
    offsets, times = law.people.offsets, law.people.times
    items = np.empty(len(times), dtype=np.int32)
    lengths = np.diff(offsets)
    for low in range(0, law.people.n_users, BLOCK):
        rng = generator(seed, "purchases", low)
        block = lengths[low : low + BLOCK]  # longest first, so those still buying are a prefix
        recent = np.full((len(block), MEMORY), -1, dtype=np.int32)
        for step in range(int(block[0])):
            active = int(np.searchsorted(-block, -step))  # lengths above ``step``
            users = np.arange(low, low + active)
            places = offsets[users] + step
            state = State(users=users, times=times[places], recent=recent[:active])
            chosen = draw_next(law, state, rng)
            items[places] = chosen
            recent[:active, 1:] = recent[:active, :-1]
            recent[:active, 0] = chosen
    return items


def draw_next(law: Law, state: State, rng: np.random.Generator) -> NDArray[np.int32]:
    """One next item for each user.  -> [B]"""
    weights = component_weights(law, state)
    draw = rng.random((4, len(state.users)))
    chosen = _draw_by_taste(law, state, draw[1:])
    edge = weights.repeat.astype(np.float64)
    repeats = draw[0] < edge
    follows = ~repeats & (draw[0] < edge + weights.follow)
    whim = ~repeats & ~follows & (draw[0] < edge + weights.follow + weights.whim)
    for mask, items, shares in _sparse(state, weights, repeats, follows, whim):
        if mask.any():
            place = _pick(shares[mask].astype(np.float64), draw[1][mask])
            chosen[mask] = items[mask][np.arange(int(mask.sum())), place]
    return chosen


def _sparse(
    state: State,
    weights: Weights,
    repeats: NDArray[np.bool_],
    follows: NDArray[np.bool_],
    whim: NDArray[np.bool_],
) -> tuple[tuple[NDArray[np.bool_], NDArray[np.integer], NDArray[np.generic]], ...]:
    """The three components with a short list of items: who uses it, the list, its shares."""
    return (
        (repeats, state.recent, weights.repeat_by_place),
        (follows, weights.companions, weights.companion_here),
        (whim, weights.whims, weights.whim_here),
    )


def _pick(shares: NDArray[np.float64], draw: NDArray[np.float64]) -> NDArray[np.int64]:
    """One column of each row, with probability in proportion to its share.  (B, N) -> (B,)"""
    edges = np.cumsum(shares, axis=1)
    return np.asarray((edges <= draw[:, None] * edges[:, -1:]).sum(axis=1), dtype=np.int64)


def _draw_by_taste(law: Law, state: State, draw: NDArray[np.float64]) -> NDArray[np.int32]:
    """A type, a style, then an item among those of the type in shop, by one search each."""
    kinds = _pick(type_probabilities(law, state).astype(np.float64), draw[0])
    styles = _pick(styles_at(law, state.users, state.times).astype(np.float64), draw[1])
    base = styles * law.catalogue.n_items
    low = base + law.catalogue.starts[kinds]
    high = base + in_shop(law, kinds, state.times)
    start, end = law.cumulative[low], law.cumulative[high]
    place = np.searchsorted(law.cumulative, start + draw[2] * (end - start), side="right") - 1
    return (np.clip(place, low, high - 1) - base).astype(np.int32)
