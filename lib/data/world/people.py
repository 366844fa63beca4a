"""Users: what styles they like, what kinds of things they want, how both drift, when they buy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.data.world.catalogue import END, START
from lib.data.world.config import WorldConfig
from lib.data.world.rng import generator

__all__ = ["TASTE", "People", "make_people"]

TASTE = 8  # size of the space in which users want types
MAX_EVENTS = 300
BURST = 0.35  # share of purchases within minutes of the one before
DRIFT = 0.4  # how much of a user's taste is another one at the end of the three years
DEPARTMENT_PULL = 1.4
TYPE_PULL = 0.9


@dataclass(frozen=True, slots=True)
class People:
    """U users, those with most purchases first; tastes at START and at END, linear between."""

    offsets: NDArray[np.int64]  # [U+1]: purchases of each user in ``times``
    times: NDArray[np.int64]  # [E] ms, rising within a user
    styles: NDArray[np.float32]  # [2, U, M], rows sum to one
    tastes: NDArray[np.float32]  # [2, U, TASTE]
    type_vectors: NDArray[np.float32]  # [T, TASTE]
    type_bias: NDArray[np.float32]  # [T]

    @property
    def n_users(self) -> int:
        """U."""
        return len(self.offsets) - 1


def make_people(config: WorldConfig) -> People:
    """Draw users and the hours of their purchases; what they buy comes later."""
    rng = generator(config.seed, "people")
    lengths = _lengths(config, rng)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    first = _concentrated(rng, config.n_users, config.n_styles)
    other = _concentrated(rng, config.n_users, config.n_styles)
    styles = np.stack([first, (1 - DRIFT) * first + DRIFT * other])
    start = rng.standard_normal((config.n_users, TASTE), dtype=np.float32)
    change = rng.standard_normal((config.n_users, TASTE), dtype=np.float32)
    end = np.float32(np.sqrt(1 - DRIFT**2)) * start + np.float32(DRIFT) * change
    return People(
        offsets=offsets,
        times=_times(lengths, offsets, rng),
        styles=styles.astype(np.float32),
        tastes=np.stack([start, end]),
        type_vectors=_type_vectors(config, rng),
        type_bias=(0.4 * rng.standard_normal(config.n_types)).astype(np.float32),
    )


def _lengths(config: WorldConfig, rng: np.random.Generator) -> NDArray[np.int64]:
    """At least 4 purchases, then a heavy tail with the mean asked for; sorted, longest first."""
    extra = config.mean_events - 4
    scale = extra / np.exp(0.5 * 0.9**2)
    drawn = 4 + scale * np.exp(0.9 * rng.standard_normal(config.n_users))
    floor = np.floor(drawn)
    lengths = floor + (rng.random(config.n_users) < drawn - floor)
    return -np.sort(-np.minimum(lengths, MAX_EVENTS).astype(np.int64))


def _concentrated(rng: np.random.Generator, n_users: int, n_styles: int) -> NDArray[np.float32]:
    """Mixtures with one or two strong styles.  -> [U, M], rows sum to one"""
    drawn = rng.standard_gamma(0.12, (n_users, n_styles)).astype(np.float32) + np.float32(1e-6)
    return np.asarray(drawn / drawn.sum(axis=1, keepdims=True), dtype=np.float32)


def _type_vectors(config: WorldConfig, rng: np.random.Generator) -> NDArray[np.float32]:
    """Types of a department stand close together, so users have favourite departments."""
    per_department = 6
    departments = rng.standard_normal((config.n_types // per_department, TASTE))
    own = rng.standard_normal((config.n_types, TASTE))
    vectors = DEPARTMENT_PULL * np.repeat(departments, per_department, axis=0) + TYPE_PULL * own
    return (vectors / np.sqrt(TASTE)).astype(np.float32)


def _times(
    lengths: NDArray[np.int64], offsets: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Bursts of minutes between pauses of weeks, inside each user's own span of the calendar."""
    n_events, n_users = int(offsets[-1]), len(lengths)
    first = START + (rng.beta(1.0, 1.6, n_users) * 0.9 * (END - START)).astype(np.int64)
    span = (0.25 + 0.75 * rng.random(n_users)) * (END - first - 1)
    pause = rng.standard_exponential(n_events)
    burst = rng.random(n_events) < BURST
    pause[burst] = 0
    pause[offsets[:-1]] = 0
    seconds = rng.integers(2, 600, n_events)  # within a burst, and never the same instant
    seconds[offsets[:-1]] = 0
    owner = np.repeat(np.arange(n_users), lengths)
    elapsed = np.cumsum(pause)
    elapsed -= elapsed[offsets[:-1]][owner]
    minutes = np.cumsum(seconds * 1000 + rng.integers(0, 999, n_events))
    minutes -= minutes[offsets[:-1]][owner]
    total = np.maximum(elapsed[offsets[1:] - 1], 1e-9)
    slack = np.maximum(span - minutes[offsets[1:] - 1], 0)
    return np.asarray(first[owner] + minutes + (elapsed * (slack / total)[owner]).astype(np.int64))
