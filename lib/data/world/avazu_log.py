"""The Avazu-like log: ten days of impressions in apps and on sites, as codes, before any format.

m = place + position + hour + trend + connection + creative
  + USER·<styles_u, affinity_ad> + PLACE·<audience_place, affinity_ad> + WANT·want_u[type_ad]
  + pairs: place category × department, position × creative size, hour × department
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.data.world.choice import Law, styles_at
from lib.data.world.clicks import (
    Ads,
    Floats,
    draw_ads,
    draw_rows,
    expected_probability,
    find_intercept,
    history_counts,
    make_ads,
    sigmoid,
    wants,
)
from lib.data.world.config import WorldConfig
from lib.data.world.rng import generator, hash_pairs
from lib.data.world.words import TYPES

__all__ = ["FIELDS", "ClickLog", "n_ads_for", "simulate_avazu"]

FIELDS = (
    "C1",
    "banner_pos",
    "site_id",
    "site_domain",
    "site_category",
    "app_id",
    "app_domain",
    "app_category",
    "device_id",
    "device_ip",
    "device_model",
    "device_type",
    "device_conn_type",
    *(f"C{number}" for number in range(14, 22)),
)
MOMENT = 1_413_849_600_000  # 2014-10-21 00:00 UTC, the first hour of the log
N_HOURS = 240
CHUNK = 100_000
USER, PLACE, WANT, PAIR, CREATIVE = 0.9, 0.9, 0.25, 0.4, 0.6
OF_TYPE, OF_ITEM = 0.8, 0.6  # squares sum to one
SIZES = ((320, 50), (300, 250), (216, 36), (728, 90), (300, 50))
N_CATEGORIES = 20


@dataclass(frozen=True, slots=True)
class ClickLog:
    """N impressions in time order: codes, hour, label, and both probabilities."""

    codes: NDArray[np.int32]  # [N, F]
    hours: NDArray[np.int32]  # [N] 0..239
    labels: NDArray[np.int8]  # [N]
    logits: Floats  # [N] m: everything but the remainder
    probabilities: Floats  # [N] with the remainder: what the label was drawn from
    expected: Floats  # [N] mean over the remainder: the best any model can state
    ads: Ads


@dataclass(frozen=True, slots=True)
class _Places:
    """Sites (first half) and apps: whom they attract and what they add."""

    edges: NDArray[np.float64]  # [2M, S]: for sites and apps, running sums by style
    audience: Floats  # [2, S, M]
    bias: Floats  # [2, S]
    category: NDArray[np.int64]  # [2, S]


def n_ads_for(n_rows: int) -> int:
    """About 250 impressions an ad, at most as many ads as the real log has.

    >>> n_ads_for(100_000)
    400
    """
    return int(np.clip(n_rows // 250, 40, 2600))


def simulate_avazu(config: WorldConfig, law: Law, items: NDArray[np.int32]) -> ClickLog:
    """Draw the log in time order, chunk by chunk, each from its own stream."""
    n_rows = config.n_avazu
    rng = generator(config.seed, "avazu")
    ads = make_ads(law.catalogue, n_ads_for(n_rows), config.seed, "avazu")
    places = _make_places(config, max(20, int(2.0 * n_rows**0.33)), rng)
    profile = 1 + 0.5 * np.sin((np.arange(N_HOURS) % 24 - 7) / 24 * 2 * np.pi)
    hours = np.repeat(np.arange(N_HOURS), rng.multinomial(n_rows, profile / profile.sum()))
    tables = _Tables(config.n_styles, rng)
    counts = history_counts(law, MOMENT)
    activity = np.cumsum(rng.pareto(1.5, law.people.n_users) + 0.3)
    codes = np.empty((n_rows, len(FIELDS)), dtype=np.int32)
    logits = np.empty(n_rows, dtype=np.float32)
    for low in range(0, n_rows, CHUNK):
        part = slice(low, low + CHUNK)
        stream = generator(config.seed, "avazu rows", low)
        users = np.searchsorted(activity, stream.random(len(hours[part])) * activity[-1])
        want = wants(law, items, users, counts, MOMENT)
        codes[part], logits[part] = _impressions(
            law, users, hours[part], want, ads, places, tables, stream
        )
    logits += np.float32(
        find_intercept(logits[:: max(1, n_rows // 200_000)], config.remainder, config.avazu_ctr)
    )
    noise = rng.standard_normal(n_rows, dtype=np.float32)
    probabilities = sigmoid(logits + np.float32(config.remainder) * noise)
    return ClickLog(
        codes=codes,
        hours=hours.astype(np.int32),
        labels=(rng.random(n_rows, dtype=np.float32) < probabilities).astype(np.int8),
        logits=logits,
        probabilities=probabilities,
        expected=expected_probability(logits, config.remainder),
        ads=ads,
    )


def _make_places(config: WorldConfig, n_places: int, rng: np.random.Generator) -> _Places:
    audience = rng.dirichlet(np.full(config.n_styles, 0.25), (2, n_places)).astype(np.float32)
    size = (rng.permuted(np.tile(np.arange(n_places), (2, 1)), axis=1) + 2.0) ** -1.0
    visits = (audience + 0.02) * size[:, :, None]  # [2, S, M]
    by_style = visits.transpose(0, 2, 1).reshape(2 * config.n_styles, n_places)
    return _Places(
        edges=np.cumsum(by_style / by_style.sum(axis=1, keepdims=True), axis=1),
        audience=audience,
        bias=(0.5 * rng.standard_normal((2, n_places))).astype(np.float32),
        category=rng.integers(0, N_CATEGORIES, (2, n_places)),
    )


class _Tables:
    """Effects of context on the logit, and of pairs of context and ad."""

    def __init__(self, n_styles: int, rng: np.random.Generator) -> None:
        n_departments = 1 + max(kind.department for kind in TYPES)
        self.position = np.array([0.0, 0.35, -0.3, -0.2, 0.1, -0.4, 0.2, 0.6], np.float32)
        self.connection = np.array([0.0, -0.35, -0.5, -0.7], np.float32)
        self.hour = (0.15 * rng.standard_normal(24)).astype(np.float32)
        self.size = np.array([0.0, 0.55, -0.4, -0.2, 0.15], np.float32)
        self.category_department = self._pairs(rng, N_CATEGORIES, n_departments)
        self.position_size = self._pairs(rng, 8, len(SIZES))
        self.hour_department = self._pairs(rng, 24, n_departments)
        own = rng.standard_normal((len(TYPES), n_styles), dtype=np.float32)
        shared = rng.standard_normal((n_departments, n_styles), dtype=np.float32)
        department = [kind.department for kind in TYPES]
        self.style_type = np.float32(0.55) * own + np.float32(0.83) * shared[department]

    @staticmethod
    def _pairs(rng: np.random.Generator, rows: int, columns: int) -> Floats:
        return np.asarray(PAIR * rng.standard_normal((rows, columns)), dtype=np.float32)


def _impressions(
    law: Law,
    users: NDArray[np.int64],
    hours: NDArray[np.int64],
    want: Floats,
    ads: Ads,
    places: _Places,
    tables: _Tables,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int32], Floats]:
    """Codes [B, F] and logits [B] of one chunk of impressions."""
    n = len(users)
    rows = np.arange(n)
    styles = styles_at(law, users, np.full(n, MOMENT))
    n_styles = styles.shape[1]
    mixed = np.cumsum(styles.astype(np.float64), axis=1)
    style = draw_rows(mixed / mixed[:, -1:], rows, rng.random(n))
    in_app = (rng.random(n) < 0.15 + 0.45 * (hash_pairs(users, 0, 31) % np.uint64(2) == 0)).astype(
        int
    )
    place = draw_rows(places.edges, in_app * n_styles + style, rng.random(n))
    ad = draw_ads(ads, hours / N_HOURS, rng)
    size = (hash_pairs(ad, 0, 32) % np.uint64(len(SIZES))).astype(np.int64)
    size = np.where(hash_pairs(ad, 1, 32) % np.uint64(10) < 6, 0, size)
    position = np.where(rng.random(n) < 0.7, 0, 1)
    position = np.where(rng.random(n) < 0.04, rng.integers(2, 8, n), position)
    connection = np.where(rng.random(n) < 0.8, 0, rng.integers(0, 4, n))
    model, device_type = _device(users, styles)
    item = ads.items[ad]
    affinity = (law.catalogue.title_affinity + law.catalogue.hidden_affinity).T[item]  # [B, M]
    kind = law.catalogue.types[item].astype(np.int64)
    appeal = OF_TYPE * tables.style_type[kind] + OF_ITEM * affinity
    department = np.array([each.department for each in TYPES])[kind]
    category = places.category[in_app, place]
    logits = places.bias[in_app, place] + tables.position[position] + tables.size[size]
    logits += tables.hour[hours % 24] - np.float32(0.2) * (hours / N_HOURS).astype(np.float32)
    logits += tables.connection[connection] + np.float32(CREATIVE) * ads.quality[ad]
    logits += np.float32(USER) * np.einsum("bm,bm->b", styles, appeal)
    logits += np.float32(PLACE) * np.einsum("bm,bm->b", places.audience[in_app, place], appeal)
    logits += np.float32(WANT) * np.clip(np.log(want[rows, kind] * want.shape[1] + 1e-3), -3, 3)
    logits += tables.category_department[category, department]
    logits += tables.position_size[position, size] + tables.hour_department[hours % 24, department]
    brand = law.catalogue.properties["brand"][item].astype(np.int64)
    own_device = (hash_pairs(users, 2, 33) % np.uint64(6) == 0) & (in_app == 1)
    columns = {
        "C1": np.where(device_type == 0, 1, np.where(in_app == 1, 0, 2) * (rng.random(n) < 0.1)),
        "banner_pos": position,
        "site_id": np.where(in_app == 0, place + 1, 0),
        "site_domain": np.where(in_app == 0, place * 3 // 4 + 1, 0),
        "site_category": np.where(in_app == 0, category + 1, 0),
        "app_id": np.where(in_app == 1, place + 1, 0),
        "app_domain": np.where(in_app == 1, place // 6 + 1, 0),
        "app_category": np.where(in_app == 1, category + 1, 0),
        "device_id": np.where(own_device, users + 1, 0),
        "device_ip": users * 3 + np.where(rng.random(n) < 0.75, 0, rng.integers(1, 3, n)),
        "device_model": model,
        "device_type": device_type,
        "device_conn_type": connection,
        "C14": ad,
        "C15": size,
        "C16": size,
        "C17": kind * 64 + brand,
        "C18": department % 4,
        "C19": (hash_pairs(item, 3, 34) % np.uint64(40)).astype(np.int64),
        "C20": np.where(rng.random(n) < 0.45, 0, 1 + place % 120),
        "C21": kind,
    }
    return np.stack([columns[name] for name in FIELDS], axis=1).astype(np.int32), logits


def _device(
    users: NDArray[np.int64], styles: Floats
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each user's phone: most of those who share a favourite style have one of its five models."""
    favourite = styles.argmax(axis=1)
    own = (hash_pairs(users, 3, 35) % np.uint64(5)).astype(np.int64)
    group = np.where(
        hash_pairs(users, 4, 35) % np.uint64(4) > 0,
        favourite,
        (hash_pairs(users, 5, 35) % np.uint64(styles.shape[1])).astype(np.int64),
    )
    model = group * 5 + own
    return model, np.where(model % 23 == 0, 0, np.where(model % 17 == 0, 2, 1))
