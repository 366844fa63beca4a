"""The law of the next item, explicit and exact. Events are drawn from it; the truth recomputes it.

    p(i | u, h, t) = r(h)·repeat(i | h) + f(h, t)·follow(i | h, t) + w(u, t)·whim(i | u, t)
                   + (1 - r - f - w) · p(c_i | u, h, t) · Σ_m π_um(t) q_m(i | c_i, t)
    p(c | u, h, t) ∝ exp(bias_c + taste_u(t)·v_c + Σ_k NEED_DECAY^k · need[c_k, c])
    q_m(i | c, t)  ∝ popularity_i · exp(affinity · affinity_mi)   over items of type c in shop at t

h is the user's last ``MEMORY`` purchases, k = 0 the latest; ``need`` says what follows what.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lib.data.world.catalogue import BRANDED, END, START, Catalogue
from lib.data.world.config import WorldConfig
from lib.data.world.people import People
from lib.data.world.rng import hash_pairs
from lib.data.world.words import TYPES, type_index

__all__ = ["MEMORY", "Known", "Law", "State", "Weights", "item_probabilities", "make_law"]
__all__ += ["component_weights", "state_at", "type_probabilities", "whims"]

MEMORY = 6  # purchases the law looks back
REPEAT = 0.14  # at most this share of choices is something used up and bought again
REPEAT_DECAY = 0.6
FOLLOW = 0.16  # share of choices that are companions of the last item, where one is in shop
NEED_DECAY = 0.55
NEED_FOLLOWS, NEED_AGAIN, NEED_ENOUGH, NEED_NEAR = 2.4, 0.6, -1.5, 0.6
N_WHIMS = 6  # length of a user's private list

Known = Literal["title", "behaviour", "whims"]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Law:
    """Tables from which every probability follows; T types, M styles, V items."""

    catalogue: Catalogue
    people: People
    known: frozenset[Known]
    whim_share: float
    need: Floats  # [T+1, T], the last row for "no purchase"
    used_up: Floats  # [T+1]
    weights: NDArray[np.float64]  # [M, V] popularity times affinity
    cumulative: NDArray[np.float64]  # [M·V+1] running sum over the flattened weights
    shelf: NDArray[np.int64]  # [V] type and arrival as one sorted key


@dataclass(frozen=True, slots=True)
class State:
    """What the next choice of B users depends on."""

    users: NDArray[np.int64]  # [B]
    times: NDArray[np.int64]  # [B] ms
    recent: NDArray[np.int32]  # [B, MEMORY] items, the latest first, -1 for none


@dataclass(frozen=True, slots=True)
class Weights:
    """Shares of the four components and what they are made of."""

    repeat: Floats  # [B]
    follow: Floats  # [B]
    whim: Floats  # [B]
    repeat_by_place: Floats  # [B, MEMORY] not normalised
    companions: NDArray[np.int32]  # [B, C]
    companion_here: NDArray[np.bool_]  # [B, C]
    whims: NDArray[np.int64]  # [B, N_WHIMS]
    whim_here: NDArray[np.bool_]  # [B, N_WHIMS]


def make_law(
    config: WorldConfig,
    catalogue: Catalogue,
    people: People,
    known: frozenset[Known] = frozenset({"title", "behaviour", "whims"}),
) -> Law:
    """The tables of the law; ``known`` leaves parts out, for ceilings of those who lack them."""
    affinity = np.zeros_like(catalogue.title_affinity)
    if "title" in known:
        affinity = affinity + catalogue.title_affinity
    if "behaviour" in known:
        affinity = affinity + catalogue.hidden_affinity
    weights = catalogue.weights * np.exp(config.affinity * affinity.astype(np.float64))
    weights /= weights.sum(axis=1, keepdims=True)
    shelf = catalogue.types.astype(np.int64) * (END - START + 1) + (catalogue.arrivals - START)
    used_up = [float(kind.consumable) for kind in TYPES]
    return Law(
        catalogue=catalogue,
        people=people,
        known=known,
        whim_share=config.whim_share,
        need=_need(config.n_types),
        used_up=np.array([*used_up, 0.0], dtype=np.float32),
        weights=weights,
        cumulative=np.concatenate([[0.0], np.cumsum(weights.reshape(-1))]),
        shelf=shelf,
    )


def _need(n_types: int) -> Floats:
    need = np.zeros((n_types + 1, n_types), dtype=np.float32)
    for index, kind in enumerate(TYPES):
        for other, near in enumerate(TYPES):
            need[index, other] = NEED_NEAR * (near.department == kind.department)
        need[index, index] = NEED_AGAIN if kind.consumable else NEED_ENOUGH
        for place, noun in enumerate(kind.follows):
            need[index, type_index(noun)] += NEED_FOLLOWS * 0.8**place
    return need


def in_shop(law: Law, types: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """One past the last item of each type that the shop has at each time."""
    moment = np.clip(times, START, END) - START
    return np.searchsorted(law.shelf, types * (END - START + 1) + moment, side="right")


def drift(times: NDArray[np.int64]) -> Floats:
    """How far between the two tastes of a user a moment lies.  -> [B, 1] in 0..1"""
    return ((np.clip(times, START, END) - START) / (END - START)).astype(np.float32)[:, None]


def state_at(
    offsets: NDArray[np.int64],
    items: NDArray[np.int32],
    times: NDArray[np.int64],
    users: NDArray[np.int64],
    positions: NDArray[np.int64],
) -> State:
    """The state in which each user chose the item at a position of their own history."""
    places = positions[:, None] - 1 - np.arange(MEMORY)
    found = items[offsets[users][:, None] + np.maximum(places, 0)]
    return State(
        users=users,
        times=times[offsets[users] + positions],
        recent=np.where(places >= 0, found, -1).astype(np.int32),
    )


def recent_types(law: Law, recent: NDArray[np.int32]) -> NDArray[np.int32]:
    """Types of the last purchases, T for none.  -> [B, MEMORY]"""
    padded = np.append(law.catalogue.types, len(law.need) - 1)  # index -1 is "none"
    return padded[recent]


def styles_at(law: Law, users: NDArray[np.int64], times: NDArray[np.int64]) -> Floats:
    """Each user's mixture of styles at a moment.  -> [B, M]"""
    share = drift(times)
    return (1 - share) * law.people.styles[0, users] + share * law.people.styles[1, users]


def type_probabilities(law: Law, state: State) -> Floats:
    """p(c | u, h, t): what kind of thing comes next.  -> [B, T]"""
    share = drift(state.times)
    people = law.people
    taste = (1 - share) * people.tastes[0, state.users] + share * people.tastes[1, state.users]
    logits = taste @ people.type_vectors.T + people.type_bias
    kinds = recent_types(law, state.recent)
    for place in range(MEMORY):
        logits += np.float32(NEED_DECAY**place) * law.need[kinds[:, place]]
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits


def whims(law: Law, users: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each user's private list of items.  -> [B, N_WHIMS]"""
    drawn = hash_pairs(users[:, None], np.arange(N_WHIMS)[None, :], 11)
    return (drawn % np.uint64(law.catalogue.n_items)).astype(np.int64)


def component_weights(law: Law, state: State) -> Weights:
    """How likely each of the four components is to make the next choice."""
    catalogue, kinds = law.catalogue, recent_types(law, state.recent)
    decay = (REPEAT_DECAY ** np.arange(MEMORY)).astype(np.float32)
    repeat_by_place = law.used_up[kinds] * decay
    strength = repeat_by_place.sum(axis=1)
    companions = catalogue.companions[state.recent[:, 0]]
    here = catalogue.arrivals[companions] <= state.times[:, None]
    here &= state.recent[:, :1] >= 0
    private = whims(law, state.users)
    private_here = catalogue.arrivals[private] <= state.times[:, None]
    return Weights(
        repeat=(REPEAT * strength / (1 + strength)).astype(np.float32),
        follow=np.asarray(FOLLOW * here.any(axis=1), dtype=np.float32),
        whim=np.asarray(law.whim_share * private_here.any(axis=1), dtype=np.float32),
        repeat_by_place=repeat_by_place,
        companions=companions,
        companion_here=here,
        whims=private,
        whim_here=private_here,
    )


def item_probabilities(law: Law, state: State) -> Floats:
    """p(i | u, h, t) for all items in the order of the catalogue.  -> [B, V], rows sum to one"""
    weights = component_weights(law, state)
    rest = 1 - weights.repeat - weights.follow - weights.whim
    found = rest[:, None] * _taste_probabilities(law, state)
    rows = np.arange(len(state.users))[:, None]
    if "whims" in law.known:
        _spread(found, rows, weights.whims, weights.whim_here, weights.whim)
    else:  # those who do not know the list can only expect anything in the shop
        here = law.catalogue.arrivals[None, :] <= state.times[:, None]
        found += weights.whim[:, None] * here / here.sum(axis=1, keepdims=True)
    if "behaviour" in law.known:
        _spread(found, rows, weights.companions, weights.companion_here, weights.follow)
    else:
        found += weights.follow[:, None] * _guessed_companions(law, state)
    _spread(found, rows, np.maximum(state.recent, 0), weights.repeat_by_place, weights.repeat)
    return found


def _spread(
    found: Floats,
    rows: NDArray[np.int64],
    items: NDArray[np.integer],
    shares: NDArray[np.bool_] | Floats,
    weight: Floats,
) -> None:
    """Add ``weight`` to each row of ``found``, over ``items`` in proportion to ``shares``."""
    total = np.maximum(shares.sum(axis=1, keepdims=True), 1e-9)
    np.add.at(found, (rows, items), (weight[:, None] * shares / total).astype(np.float32))


def _taste_probabilities(law: Law, state: State) -> Floats:
    """The fourth component: a type by need and taste, then an item of it by style."""
    starts, n_items = law.catalogue.starts, law.catalogue.n_items
    n_styles, n_types = len(law.weights), len(starts) - 1
    kinds = type_probabilities(law, state)
    styles = styles_at(law, state.users, state.times)
    ends = in_shop(law, np.arange(n_types)[None, :], state.times[:, None])  # [B, T]
    base = (np.arange(n_styles) * n_items)[None, :, None]
    total = law.cumulative[base + ends[:, None]] - law.cumulative[base + starts[None, None, :-1]]
    share = styles[:, :, None] * kinds[:, None, :] / total  # [B, M, T]
    found = np.empty((len(state.users), n_items), dtype=np.float32)
    for kind in range(n_types):
        block = slice(int(starts[kind]), int(starts[kind + 1]))
        found[:, block] = share[:, :, kind] @ law.weights[:, block]
    found *= law.catalogue.arrivals[None, :] <= state.times[:, None]
    return found


def _guessed_companions(law: Law, state: State) -> Floats:
    """Companions as one expects them who knows what follows what, and titles, but no behaviour."""
    catalogue = law.catalogue
    last = state.recent[:, 0]
    here = catalogue.arrivals[None, :] <= state.times[:, None]
    brands = catalogue.properties["brand"]
    n_places = catalogue.companions.shape[1]
    found = np.zeros(here.shape, dtype=np.float32)
    for place in range(n_places):
        wanted = catalogue.types[catalogue.companions[last, place]]
        mask = here & (catalogue.types[None, :] == wanted[:, None])
        if place < BRANDED and "title" in law.known:
            branded = mask & (brands[None, :] == brands[last][:, None])
            mask = np.where(branded.any(axis=1, keepdims=True), branded, mask)
        found += mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return found / n_places
