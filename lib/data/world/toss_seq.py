"""What a visitor of the Toss-like log looked at: runs of tokens, oldest first, and what they say.

A token stands for a type of thing in a style. A visitor stays with one for a few steps, then turns
to another, drawn from what they want. The latest steps are what calls for one ad and not another.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lib.data.world.choice import Law
from lib.data.world.clicks import Floats, draw_rows
from lib.data.world.words import TYPES

__all__ = ["N_TOKENS", "RECENT", "Sequences", "draw_sequences", "match_ads", "print_sequences"]

N_TOKENS = 600  # token ids stay below, as published
LONGEST = 4_000
STAY = 0.75  # chance to stay with the token of the step before
STRAY = 0.12  # chance of a token that means nothing
RECENT = 20  # steps a click looks back
DECAY = 0.88
TYPE_MATCH, NEAR_MATCH, STYLE_MATCH = 0.8, 1.2, 0.4


@dataclass(frozen=True, slots=True)
class Sequences:
    """Token ids of S visits as one CSR; ``meaning`` is type · M + style before renaming."""

    offsets: NDArray[np.int64]  # [S+1]
    meaning: NDArray[np.int32]  # [sum of lengths]


def draw_sequences(
    want: Floats, styles: Floats, mean_tokens: float, rng: np.random.Generator
) -> Sequences:
    """A sequence for each visit; its length has a heavy tail and the mean asked for."""
    n_visits, n_styles = styles.shape
    spread = 1.0
    lengths = np.exp(np.log(mean_tokens) - spread**2 / 2 + spread * rng.standard_normal(n_visits))
    lengths = np.clip(np.rint(lengths), 1, LONGEST).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    owner = np.repeat(np.arange(n_visits), lengths)
    begins = rng.random(len(owner)) > STAY
    begins[offsets[:-1]] = True
    run = np.cumsum(begins) - 1
    visit = owner[begins]
    kinds = draw_rows(_edges(want), visit, rng.random(len(visit)))
    tastes = draw_rows(_edges(styles), visit, rng.random(len(visit)))
    meaning = (kinds * n_styles + tastes)[run]
    stray = rng.random(len(owner)) < STRAY
    meaning[stray] = rng.integers(0, want.shape[1] * n_styles, int(stray.sum()))
    return Sequences(offsets=offsets, meaning=meaning.astype(np.int32))


def _edges(shares: Floats) -> NDArray[np.float64]:
    edges = np.cumsum(shares.astype(np.float64), axis=1)
    return np.asarray(edges / edges[:, -1:])


def match_ads(
    law: Law, found: Sequences, visits: NDArray[np.int64], items: NDArray[np.int64]
) -> Floats:
    """How well the latest steps of a visit call for an item.  (B,), (B,) -> (B,)

    A weighted mean over the last ``RECENT`` steps of need[c_step, c_ad], being of one department,
    and affinity[m_step, ad].
    """
    catalogue = law.catalogue
    n_styles = len(law.weights)
    affinity = catalogue.title_affinity + catalogue.hidden_affinity
    kinds = catalogue.types[items]
    departments = np.array([kind.department for kind in TYPES])
    last = found.offsets[visits + 1]
    total = np.zeros(len(visits), dtype=np.float32)
    weight_sum = np.zeros(len(visits), dtype=np.float32)
    for back in range(RECENT):
        place = last - 1 - back
        here = place >= found.offsets[visits]
        token = found.meaning[np.where(here, place, 0)]
        weight = np.float32(DECAY**back) * here
        value = TYPE_MATCH * law.need[token // n_styles, kinds]
        value += np.float32(NEAR_MATCH) * (departments[token // n_styles] == departments[kinds])
        value += STYLE_MATCH * affinity[token % n_styles, items]
        total += weight * value
        weight_sum += weight
    return np.asarray(total / weight_sum, dtype=np.float32)


def print_sequences(
    found: Sequences, names: NDArray[np.int64], visits: NDArray[np.int64]
) -> pa.Array:
    """The `seq` column: comma-joined token ids for each row's visit."""
    words = pa.array(names.astype(str)).take(pa.array(found.meaning))
    lists = pa.ListArray.from_arrays(pa.array(found.offsets.astype(np.int32)), words)
    return pc.binary_join(lists, ",").take(pa.array(visits))
