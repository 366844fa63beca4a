"""The law of a click in the Toss-like log; every part of it shows in the columns.

m = slot + hour + weekday + creative of the ad set + gender × department
  + AFFINITY · <styles_u, affinity_ad>                history_a shows it, blurred a little
  + WANT · (how much u wants the ad's department)     feat_b tells it, feat_a by department
  + PLACE · <a_slot, b_department> + age × department ids that mean something together only
  + MATCH · intent(latest steps of seq, ad)           nothing but seq shows it, see toss_seq
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.data.world.clicks import Ads, Floats
from lib.data.world.words import DEPARTMENTS

__all__ = ["N_AGES", "SLOTS", "Row", "Weights", "draw_weights", "logits_of"]

SLOTS = (2, 3, 5, 8, 11, 13, 17, 19, 21, 24, 29, 31, 36, 37, 39, 42, 43, 46)
N_AGES = 8
SLOT, HOUR, DAY, CREATIVE, PAIR = 0.6, 0.4, 0.08, 0.3, 0.2
AFFINITY, WANT, PLACE, MATCH = 2.4, 0.8, 0.5, 2.8
TASTES = 2  # in which places and departments agree or not


@dataclass(frozen=True, slots=True)
class Weights:
    """What the law adds for ids and pairs of ids."""

    slot: Floats  # [S]
    hour: Floats  # [24]
    place: Floats  # [S, departments]
    age_department: Floats  # [ages, departments]
    gender_department: Floats  # [2, departments]


@dataclass(frozen=True, slots=True)
class Row:
    """What the law asks of B rows."""

    slot: NDArray[np.int64]
    hour: NDArray[np.int64]
    day: NDArray[np.int64]
    ad: NDArray[np.int64]
    department: NDArray[np.int64]
    age: NDArray[np.int64]
    gender: NDArray[np.int64]
    liking: Floats  # of the visitor's styles for the item
    wanted: Floats  # share of the visitor's wants that is the ad's department
    intent: Floats  # of the latest steps towards the ad's department


def draw_weights(rng: np.random.Generator) -> Weights:
    """All tables of the law."""
    n_slots, n_departments = len(SLOTS), len(DEPARTMENTS)
    hours = 2 * np.pi * (np.arange(24) - 21) / 24  # most clicks in the evening
    place = rng.standard_normal((n_slots, TASTES)) @ rng.standard_normal((TASTES, n_departments))
    return Weights(
        slot=_floats(SLOT * rng.standard_normal(n_slots)),
        hour=_floats(HOUR * np.cos(hours)),
        place=_floats(PLACE * place / place.std()),
        age_department=_floats(PAIR * rng.standard_normal((N_AGES, n_departments))),
        gender_department=_floats(PAIR * rng.standard_normal((2, n_departments))),
    )


def logits_of(weights: Weights, ads: Ads, row: Row) -> Floats:
    """The logit of each row before the constant that sets the click rate.  -> [B]"""
    total = weights.slot[row.slot] + weights.hour[row.hour] + CREATIVE * ads.quality[row.ad]
    total = total + weights.place[row.slot, row.department]
    total += weights.age_department[row.age, row.department]
    total += weights.gender_department[row.gender, row.department]
    total += np.float32(AFFINITY) * row.liking + np.float32(MATCH) * row.intent
    usual = np.sqrt(1 / len(DEPARTMENTS))
    total += np.float32(WANT) * (np.sqrt(row.wanted) - np.float32(usual)) / np.float32(0.2)
    total += np.float32(DAY) * np.sin(row.day).astype(np.float32)
    return _floats(total)


def _floats(values: NDArray[np.floating]) -> Floats:
    return np.asarray(values, dtype=np.float32)
