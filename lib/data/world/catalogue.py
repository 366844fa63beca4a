"""Items: what they are, when they arrive, how popular they are, which styles want them and why.

Items are kept in the order (type, arrival), so the items of a type that a shop has at some moment
are a prefix of that type's block. An item's affinity to style m has two parts of stated variance:

    affinity_mi = sqrt(text_share) · title_mi + sqrt(1 - text_share) · hidden_mi

``title`` is a sum of effects of the words its title shows; ``hidden`` only behaviour can tell.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.data.world.config import WorldConfig
from lib.data.world.rng import generator
from lib.data.world.words import (
    AUDIENCES,
    BRANDS,
    BRANDS_EVERYWHERE,
    BRANDS_PER_DEPARTMENT,
    COLOURS,
    FEATURES,
    MATERIALS,
    SERIES,
    SIZES,
    SIZES_OF_DURABLES,
    TYPES,
    VARIETIES,
    type_index,
)

__all__ = ["BRANDED", "END", "ODDITIES", "PROPERTIES", "START", "Catalogue", "make_catalogue"]

START = 1_325_376_000_000  # 2012-01-01 UTC in ms: the first day of the reviews
END = 1_420_070_400_000  # 2015-01-01 UTC in ms
PROPERTIES = {  # slot: (words, share of items whose title shows one)
    "brand": (BRANDS, 1.0),
    "colour": (COLOURS, 0.7),
    "material": (MATERIALS, 0.6),
    "feature": (FEATURES, 0.8),
    "variety": (VARIETIES, 0.9),
    "audience": (AUDIENCES, 0.5),
    "series": (SERIES, 0.6),
    "size": (SIZES, 0.4),
}
OF_DURABLES, OF_CONSUMABLES = {"colour", "material", "feature"}, {"variety"}
PLAIN = {"size"}  # shown, but nobody's taste depends on it
ODDITIES = {  # kind of title: share of items
    "plain": 0.0,  # the rest
    "duplicate": 0.03,
    "overlong": 0.015,
    "empty": 0.008,
    "broken": 0.004,  # a piece of HTML instead of a title
    "entities": 0.04,
    "script": 0.012,
    "emoji": 0.015,
}
UNREADABLE = ("empty", "broken")
COMPANIONS = 4  # items that an item leads to, of types that follow its own
BRANDED = 3  # the first so many are of its brand, where there is one; the others of any


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The item table in the order (type, arrival); V items, T types, M styles."""

    types: NDArray[np.int32]  # [V]
    starts: NDArray[np.int64]  # [T+1]: block of each type
    arrivals: NDArray[np.int64]  # [V] ms; the first days' items are at START
    weights: NDArray[np.float64]  # [V] popularity before taste
    properties: dict[str, NDArray[np.int16]]  # slot -> [V] word index or -1
    oddity: NDArray[np.int8]  # [V] index into ODDITIES
    title_affinity: NDArray[np.float32]  # [M, V] scaled so that the two parts add up
    hidden_affinity: NDArray[np.float32]  # [M, V]
    companions: NDArray[np.int32]  # [V, COMPANIONS] items of a type that follows
    prices: NDArray[np.float64]  # [V]

    @property
    def n_items(self) -> int:
        """V."""
        return len(self.types)


def make_catalogue(config: WorldConfig) -> Catalogue:
    """Build the catalogue; every type has at least two items on the first day."""
    rng = generator(config.seed, "catalogue")
    types, arrivals = _types_and_arrivals(config, rng)
    starts = np.searchsorted(types, np.arange(config.n_types + 1))
    properties, oddity = _properties(types, rng)
    weights = _popularity(types, starts, rng)
    title, hidden = _affinities(config, properties, rng)
    unreadable = np.isin(oddity, [list(ODDITIES).index(kind) for kind in UNREADABLE])
    hidden[:, unreadable] += title[:, unreadable]  # what no title shows, only behaviour tells
    title[:, unreadable] = 0
    base = np.array([kind.price for kind in TYPES])[types]
    prices = np.round(base * np.exp(0.35 * rng.standard_normal(len(types))), 2) - 0.01
    return Catalogue(
        types=types,
        starts=starts.astype(np.int64),
        arrivals=arrivals,
        weights=weights,
        properties=properties,
        oddity=oddity,
        title_affinity=title,
        hidden_affinity=hidden,
        companions=_companions(types, starts, properties["brand"], rng),
        prices=np.maximum(prices, 0.99),
    )


def _types_and_arrivals(
    config: WorldConfig, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    n_types, n_items = config.n_types, config.n_items
    shares = rng.dirichlet(np.full(n_types, 6.0))
    types = np.concatenate(
        [np.repeat(np.arange(n_types), 2), rng.choice(n_types, n_items - 2 * n_types, p=shares)]
    )
    late = rng.random(n_items) < config.new_item_share
    late[: 2 * n_types] = False
    arrivals = np.where(late, rng.integers(START, END - 86_400_000, n_items), START)
    order = np.lexsort((arrivals, types))
    return types[order].astype(np.int32), arrivals[order]


def _properties(
    types: NDArray[np.int32], rng: np.random.Generator
) -> tuple[dict[str, NDArray[np.int16]], NDArray[np.int8]]:
    n_items = len(types)
    shares = list(ODDITIES.values())
    shares[0] = 1 - sum(shares)
    oddity = rng.choice(len(shares), n_items, p=shares).astype(np.int8)
    previous_same = np.r_[False, types[1:] == types[:-1]]
    duplicate = (oddity == list(ODDITIES).index("duplicate")) & previous_same
    source = np.where(duplicate, np.arange(n_items) - 1, np.arange(n_items))
    source = source[source]  # a copy of a copy is a copy of the first, two deep is enough
    used_up = np.array([kind.consumable for kind in TYPES])[types]
    found: dict[str, NDArray[np.int16]] = {}
    for slot, (words, share) in PROPERTIES.items():
        values = rng.integers(0, len(words), n_items)
        if slot == "brand":
            department = np.array([kind.department for kind in TYPES])[types]
            own = BRANDS_EVERYWHERE + department * BRANDS_PER_DEPARTMENT
            own = own + rng.integers(0, BRANDS_PER_DEPARTMENT, n_items)
            everywhere = rng.integers(0, BRANDS_EVERYWHERE, n_items)
            values = np.where(rng.random(n_items) < 0.45, own, everywhere)
        if slot == "size":
            values = values % SIZES_OF_DURABLES + np.where(used_up, SIZES_OF_DURABLES, 0)
        shown = rng.random(n_items) < share
        if slot in OF_DURABLES | OF_CONSUMABLES:
            shown &= used_up == (slot in OF_CONSUMABLES)
        values = np.where(shown, values, -1)
        found[slot] = values[source].astype(np.int16)
    return found, oddity


def _popularity(
    types: NDArray[np.int32], starts: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Zipf within each type: weight (rank + 2)^-0.8, ranks in random order."""
    ranks = np.empty(len(types))
    for low, high in itertools.pairwise(starts):
        ranks[low:high] = rng.permutation(high - low)
    return np.asarray((ranks + 2.0) ** -0.8)


def _affinities(
    config: WorldConfig, properties: dict[str, NDArray[np.int16]], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    n_styles, n_items = config.n_styles, config.n_items
    title = np.zeros((n_styles, n_items), dtype=np.float32)
    for slot, (words, _) in PROPERTIES.items():
        if slot not in PLAIN:
            effects = rng.standard_normal((n_styles, len(words) + 1)).astype(np.float32)
            effects[:, -1] = 0  # index -1: the title shows none
            title += effects[:, properties[slot]]
    title -= title.mean(axis=1, keepdims=True)
    title *= np.sqrt(config.text_share) / (title.std(axis=1, keepdims=True) + 1e-6)
    hidden = rng.standard_normal((n_styles, n_items), dtype=np.float32)
    return title, hidden * np.float32(np.sqrt(1 - config.text_share))


def _companions(
    types: NDArray[np.int32],
    starts: NDArray[np.int64],
    brands: NDArray[np.int16],
    rng: np.random.Generator,
) -> NDArray[np.int32]:
    """For each item, items of types that follow its own, most of them of its brand."""
    n_items = len(types)
    follows = [[type_index(noun) for noun in kind.follows] for kind in TYPES]
    first = np.array([options[0] for options in follows])[types]
    second = np.array([options[-1] for options in follows])[types]
    groups = types.astype(np.int64) * len(BRANDS) + brands
    order = np.argsort(groups, kind="stable")
    found = np.empty((n_items, COMPANIONS), dtype=np.int32)
    for place in range(COMPANIONS):
        target = first if place % 2 == 0 else second
        draw = rng.random(n_items)
        sizes = starts[target + 1] - starts[target]
        anything = starts[target] + (draw * sizes).astype(np.int64)
        low = np.searchsorted(groups[order], target * len(BRANDS) + brands, side="left")
        high = np.searchsorted(groups[order], target * len(BRANDS) + brands, side="right")
        branded = order[np.minimum(low + (draw * (high - low)).astype(np.int64), n_items - 1)]
        use_brand = (place < BRANDED) & (high > low)
        found[:, place] = np.where(use_brand, branded, anything)
    return found
