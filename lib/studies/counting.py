"""The rows that count instead of learning: rank with them, tune the neighbours, tell them apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lib.data.files import read_json
from lib.data.histories import Histories, Targets
from lib.evaluate import ranking, segments
from lib.evaluate.uncertainty import Interval, bootstrap_mean
from lib.models.neighbours import NeighbourConfig, markov, neighbours, popularity

__all__ = [
    "CountingRow",
    "counting_rows",
    "measure",
    "rank_scorer",
    "read_neighbours",
    "sample_of",
    "segment_table",
    "tune_neighbours",
]

Ranks = NDArray[np.float64]
Scorer = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class CountingRow:
    """A named scorer, how much of the history it reads, and whether seen items are left out."""

    name: str
    scorer: Scorer
    max_len: int
    filter_seen: bool


def counting_rows(
    histories: Histories, config: NeighbourConfig, *, max_len: int, filter_seen: bool
) -> list[CountingRow]:
    """Popularity, Markov and neighbours, then two rows that repeat published conventions.

    Published figures of trivial baselines hang on how ties are broken: most rows of a Markov chain
    hold a handful of transitions seen once.
    """
    offsets, items = training_part(histories)
    counts = histories.counts
    first = markov(offsets, items, counts, ties="first")
    popular = markov(offsets, items, counts, ties="popular")
    return [
        CountingRow("popularity", popularity(counts), 1, filter_seen),
        CountingRow("Markov", markov(offsets, items, counts), 1, filter_seen),
        CountingRow("Markov, ties by popularity", popular, 1, filter_seen),
        CountingRow("item-kNN", neighbours(offsets, items, counts, config), max_len, filter_seen),
        CountingRow("popularity, ties by id", popularity(counts, ties="first"), 1, filter_seen),
        CountingRow("Markov, ties by first seen, history not filtered", first, 1, False),
    ]


def training_part(histories: Histories) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The training sequences as CSR."""
    users = np.arange(histories.n_users, dtype=np.int32)
    return histories.seen(users, histories.train_lengths)


def read_neighbours(folder: Path, histories: Histories) -> Scorer:
    """Item-kNN with the settings that 13 chose, counted anew from the training part."""
    config = NeighbourConfig(**cast(dict[str, Any], read_json(folder / "item_knn.json")))
    return neighbours(*training_part(histories), histories.counts, config)


def rank_scorer(
    histories: Histories, targets: Targets, scorer: Scorer, max_len: int, filter_seen: bool
) -> Ranks:
    """Rank each target among all items, given the last ``max_len`` items before it."""
    windows, _ = histories.windows(targets.users, targets.positions, max_len)
    seen = histories.seen(targets.users, targets.positions) if filter_seen else None
    return ranking.rank_targets(windows, scorer, histories.target_items(targets), seen)


def sample_of(targets: Targets, n: int, *, seed: int) -> Targets:
    """At most ``n`` targets (0: all), in their order."""
    if not n or len(targets) <= n:
        return targets
    rows = np.sort(np.random.default_rng(seed).choice(len(targets), n, replace=False))
    return Targets(targets.users[rows], targets.positions[rows])


def tune_neighbours(
    histories: Histories,
    valid: Targets,
    first: NeighbourConfig,
    grid: Mapping[str, Sequence[float]],
    *,
    cutoff: int,
    max_len: int,
    filter_seen: bool,
    report: Callable[[int, int], None] | None = None,
) -> tuple[NeighbourConfig, pl.DataFrame]:
    """Change one setting at a time, in the grid's order, and keep what ranks ``valid`` better."""
    unknown = sorted(set(grid) - set(asdict(first)))
    if unknown:
        raise ValueError(f"grid names {unknown}; expected some of {sorted(asdict(first))}")
    offsets, items = training_part(histories)
    tried: list[dict[str, float]] = []

    def score(config: NeighbourConfig) -> float:
        scorer = neighbours(offsets, items, histories.counts, config)
        ranks = rank_scorer(histories, valid, scorer, max_len=max_len, filter_seen=filter_seen)
        value = float(ranking.ndcg(ranks, cutoff).mean())
        tried.append(asdict(config) | {f"valid ndcg@{cutoff}": value})
        if report is not None:
            report(len(tried), n_settings)
        return value

    n_settings = 1 + sum(len(values) for values in grid.values())  # at most
    best, best_value = first, score(first)
    for name, values in grid.items():
        for value in values:
            candidate = NeighbourConfig(**(asdict(best) | {name: value}))
            if any(asdict(candidate).items() <= row.items() for row in tried):
                continue
            reached = score(candidate)
            if reached > best_value:
                best, best_value = candidate, reached
    return best, pl.DataFrame(tried)


def measure(
    ranks: Ranks, users: NDArray[Any], cutoffs: Sequence[int], *, draws: int, seed: int
) -> dict[str, Interval]:
    """hit@K and ndcg@K with intervals over users (a user's targets are drawn together)."""
    several = len(np.unique(users)) < len(users)
    groups = users if several else None
    functions = {"hit": ranking.hit, "ndcg": ranking.ndcg}
    return {
        f"{name}@{k}": bootstrap_mean(function(ranks, k), draws, seed, groups=groups)
        for name, function in functions.items()
        for k in cutoffs
    }


def segment_table(
    histories: Histories, targets: Targets, ranks: Mapping[str, Ranks], *, cutoff: int
) -> pl.DataFrame:
    """NDCG of each row by how often the target was trained, and by repeat or novel."""
    wanted = histories.target_items(targets)
    seen = histories.seen(targets.users, targets.positions)
    labels = {
        "training count of the target": segments.popularity(wanted, histories.counts),
        "target": segments.novelty(wanted, seen),
    }
    table = []
    for what, names in labels.items():
        for segment in sorted(set(names.tolist()), key=leading_number):
            inside = names == segment
            means = {row: float(ranking.ndcg(r[inside], cutoff).mean()) for row, r in ranks.items()}
            table.append({"by": what, "segment": segment, "targets": int(inside.sum()), **means})
    return pl.DataFrame(table)


def leading_number(segment: str) -> int:
    """Sorts "5-19" before "20-99".

    >>> leading_number("100+")
    100
    """
    digits = segment.split("-")[0].rstrip("+")
    return int(digits) if digits.isdigit() else 0
