"""What a visitor of the Toss-like log did: runs of tokens, oldest first, and what they say of ads.

A token is a page of a department. A visitor stays on one for a few steps, then turns to another,
in a department drawn from what they want. What calls for an ad are the latest steps in its own
department, and what these pages are worth: an order page speaks for it, a complaint against it.
So relevance and worth are two things, and the first depends on the ad.

intent = sum of DECAY^back · worth(page) / (CALM + sum of DECAY^back)     over relevant steps
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lib.data.world.clicks import Floats, draw_rows
from lib.data.world.words import DEPARTMENTS

__all__ = ["N_MEANINGS", "N_TOKENS", "RECENT", "Sequences", "call_for", "draw_sequences",
           "draw_worth", "print_sequences"]  # fmt: skip

N_TOKENS = 600  # token ids stay below, as published
N_PAGES = 72  # of a department
N_MEANINGS = len(DEPARTMENTS) * N_PAGES
LONGEST = 4_000
STAY = 0.7  # chance to stay on the page of the step before
STRAY = 0.1  # chance of a step into any department at all
RECENT = 20  # steps a click looks back
DECAY = 0.85
CALM = 0.5
POPULAR = 1.7  # how fast the frequency of pages falls: few are opened often, as published


@dataclass(frozen=True, slots=True)
class Sequences:
    """Token ids of S visits as one CSR; ``meaning`` is department · N_PAGES + page."""

    offsets: NDArray[np.int64]  # [S+1]
    meaning: NDArray[np.int32]  # [sum of lengths]


def draw_worth(rng: np.random.Generator) -> Floats:
    """What a step on each page says for or against an ad of its department.  -> [N_MEANINGS]"""
    return rng.standard_normal(N_MEANINGS, dtype=np.float32)


def draw_sequences(wants: Floats, mean_tokens: float, rng: np.random.Generator) -> Sequences:
    """A sequence for each visit; its length has a heavy tail and the mean asked for.

    ``wants``: share of each department in what a visitor wants, (S, departments).
    """
    n_visits, n_departments = wants.shape
    spread = 1.0
    lengths = np.exp(np.log(mean_tokens) - spread**2 / 2 + spread * rng.standard_normal(n_visits))
    lengths = np.clip(np.rint(lengths), 1, LONGEST).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    owner = np.repeat(np.arange(n_visits), lengths)
    begins = rng.random(len(owner)) > STAY
    begins[offsets[:-1]] = True
    run = np.cumsum(begins) - 1
    visit = owner[begins]
    wanted = draw_rows(_edges(wants), visit, rng.random(len(visit)))
    anything = rng.integers(0, n_departments, len(visit))
    department = np.where(rng.random(len(visit)) < STRAY, anything, wanted)
    popularity = np.cumsum((np.arange(N_PAGES) + 1.0) ** -POPULAR)
    page = np.searchsorted(popularity, rng.random(len(visit)) * popularity[-1])
    meaning = (department * N_PAGES + page)[run]
    return Sequences(offsets=offsets, meaning=meaning.astype(np.int32))


def _edges(shares: Floats) -> NDArray[np.float64]:
    edges = np.cumsum(shares.astype(np.float64), axis=1)
    return np.asarray(edges / edges[:, -1:])


def call_for(
    found: Sequences, worth: Floats, visits: NDArray[np.int64], departments: NDArray[np.int64]
) -> Floats:
    """How much the latest steps of a visit call for a department.  (B,), (B,) -> (B,)"""
    last = found.offsets[visits + 1]
    total = np.zeros(len(visits), dtype=np.float32)
    weight_sum = np.full(len(visits), CALM, dtype=np.float32)
    for back in range(RECENT):
        place = last - 1 - back
        here = place >= found.offsets[visits]
        meaning = found.meaning[np.where(here, place, 0)]
        weight = np.float32(DECAY**back) * (here & (meaning // N_PAGES == departments))
        total += weight * worth[meaning]
        weight_sum += weight
    return np.asarray(total / weight_sum, dtype=np.float32)


def print_sequences(
    found: Sequences, names: NDArray[np.int64], visits: NDArray[np.int64]
) -> pa.Array:
    """The `seq` column: comma-joined token ids for each row's visit."""
    words = pa.array(names.astype(str)).take(pa.array(found.meaning))
    lists = pa.ListArray.from_arrays(pa.array(found.offsets.astype(np.int32)), words)
    return pc.binary_join(lists, ",").take(pa.array(visits))
