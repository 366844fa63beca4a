"""Small worlds that the tests of the marketplace share."""

from pathlib import Path

import numpy as np

from lib.data.world.catalogue import END, START
from lib.data.world.choice import (
    FOLLOW,
    MEMORY,
    NEED_DECAY,
    REPEAT,
    REPEAT_DECAY,
    Law,
    State,
    whims,
)
from lib.data.world.config import WorldConfig
from lib.data.world.simulate import FOLDERS, World, make_world, write_world

SMALL = {"seed": 5, "n_users": 200, "n_items": 200, "mean_events": 9.0, "toss_tokens": 15.0}


def small_config(**changes) -> WorldConfig:
    return WorldConfig(**{**SMALL, **changes})


def write_small(folder: Path, **changes) -> World:
    world = make_world(small_config(**changes))
    write_world(world, {name: folder / name for name in FOLDERS})
    return world


def probabilities_by_loops(law: Law, state: State, affinity: float) -> np.ndarray:
    """The formula at the top of ``choice``, term by term in float64.  -> [B, V]"""
    catalogue, people = law.catalogue, law.people
    taste = catalogue.title_affinity.astype(float) + catalogue.hidden_affinity
    rows = []
    for user, time, recent in zip(state.users, state.times, state.recent, strict=True):
        share = (min(max(time, START), END) - START) / (END - START)
        here = catalogue.arrivals <= time
        types = [int(catalogue.types[item]) for item in recent if item >= 0]
        vector = (1 - share) * people.tastes[0, user] + share * people.tastes[1, user]
        logits = people.type_vectors.astype(float) @ vector + people.type_bias
        for age, kind in enumerate(types):
            logits = logits + NEED_DECAY**age * law.need[kind]
        kinds = np.exp(logits) / np.exp(logits).sum()
        styles = (1 - share) * people.styles[0, user] + share * people.styles[1, user]
        base = np.zeros(catalogue.n_items)
        for item in np.flatnonzero(here):
            kind = catalogue.types[item]
            rivals = here & (catalogue.types == kind)
            for style, weight in enumerate(styles):
                pull = catalogue.weights * np.exp(affinity * taste[style])
                base[item] += kinds[kind] * weight * pull[item] / pull[rivals].sum()
        row = np.zeros(catalogue.n_items)
        again = [law.used_up[kind] * REPEAT_DECAY**age for age, kind in enumerate(types)]
        repeat = REPEAT * sum(again) / (1 + sum(again))
        for item, part in zip(recent[recent >= 0], again, strict=True):
            row[item] += repeat * part / max(sum(again), 1e-9)
        partners = catalogue.companions[recent[0]] if recent[0] >= 0 else np.array([], int)
        partners = [item for item in partners if here[item]]
        private = [item for item in whims(law, np.array([user]))[0] if here[item]]
        follow, whim = FOLLOW * bool(partners), law.whim_share * bool(private)
        for item in partners:
            row[item] += follow / len(partners)
        for item in private:
            row[item] += whim / len(private)
        rows.append(row + (1 - repeat - follow - whim) * base)
    return np.array(rows)


def some_states(world: World, count: int, seed: int = 0) -> State:
    """States of every age: first purchases, short histories, long ones, any time."""
    rng = np.random.default_rng(seed)
    n_items = world.law.catalogue.n_items
    recent = rng.integers(0, n_items, (count, MEMORY)).astype(np.int32)
    ages = rng.integers(0, MEMORY + 1, count)
    recent[np.arange(MEMORY)[None, :] >= ages[:, None]] = -1
    return State(
        users=rng.integers(0, world.law.people.n_users, count),
        times=rng.integers(START, END, count),
        recent=recent,
    )
