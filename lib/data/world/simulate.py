"""The whole marketplace in order: catalogue, people, purchases, clicks, files, truth."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from lib.data.world.avazu_log import ClickLog, simulate_avazu
from lib.data.world.catalogue import make_catalogue
from lib.data.world.choice import Law, make_law
from lib.data.world.config import WorldConfig
from lib.data.world.events import simulate_purchases
from lib.data.world.people import make_people
from lib.data.world.titles import make_titles
from lib.data.world.write_amazon import write_amazon
from lib.data.world.write_avazu import SPLITS, split_rows, write_avazu
from lib.data.world.write_toss import TossTruth, write_toss
from lib.data.world.write_truth import (
    finish_truth,
    save_avazu_truth,
    save_toss_truth,
    save_world,
)

__all__ = ["FOLDERS", "World", "make_world", "timed", "write_world"]

Given = ParamSpec("Given")
Result = TypeVar("Result")

FOLDERS = ("amazon", *SPLITS, "toss", "truth")


@dataclass(frozen=True, slots=True)
class World:
    """The marketplace in memory: the law and what was bought under it."""

    config: WorldConfig
    law: Law
    items: NDArray[np.int32]  # [E] purchases in the order of ``law.people.times``


def make_world(config: WorldConfig) -> World:
    """Draw catalogue, people and purchases."""
    law = make_law(config, make_catalogue(config), make_people(config))
    return World(config, law, simulate_purchases(law, config.seed))


def write_world(world: World, folders: Mapping[str, Path]) -> dict[str, int]:
    """Write every raw format and the truth; return the number of rows of each."""
    missing = [name for name in FOLDERS if name not in folders]
    if missing:
        raise ValueError(f"folders lacks {missing}, expected {list(FOLDERS)}; name each of them")
    config, law, items = world.config, world.law, world.items
    counts = write_amazon(folders["amazon"], config, law, items, config.seed)
    save_world(folders["truth"], world.config, law, items)
    if config.n_avazu:
        log: ClickLog = simulate_avazu(config, law, items)
        splits = split_rows(log, config.seed)
        write_avazu(folders, log, make_titles(law.catalogue), splits, config)
        save_avazu_truth(folders["truth"], log, splits)
        counts["avazu"] = config.n_avazu
    if config.n_toss:
        toss: dict[str, TossTruth] = write_toss(folders["toss"], config, law, items)
        save_toss_truth(folders["truth"], toss)
        counts |= {f"toss_{name}": len(part.labels) for name, part in toss.items()}
    finish_truth(folders["truth"], config, counts)
    return counts


def timed(
    work: Callable[Given, Result], *given: Given.args, **named: Given.kwargs
) -> tuple[Result, float]:
    """The result of a call, and how many seconds it took."""
    started = time.perf_counter()
    result = work(*given, **named)
    return result, time.perf_counter() - started
