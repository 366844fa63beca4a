"""Numbers that show a world: its popularity curve, histories, titles, click rates, its signal."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lib.data.world.catalogue import ODDITIES
from lib.data.world.ceilings import Ceiling, expected_gains, mean_ceiling
from lib.data.world.choice import Known
from lib.data.world.titles import make_titles
from lib.data.world.truth import EVERYTHING, OBSERVABLE, Truth

__all__ = ["KNOWLEDGE", "Shape", "click_rates", "describe_world", "signal_ladder", "title_examples"]

KNOWLEDGE: tuple[tuple[str, frozenset[Known]], ...] = (
    ("what follows what, popularity", frozenset()),
    ("and what titles tell", frozenset({"title"})),
    ("and what only behaviour tells", frozenset({"behaviour"})),
    ("and both", OBSERVABLE),
    ("and every private whim", EVERYTHING),
)
CONTEXTS = ("hour", "banner_pos", "device_type", "site_category", "C15")


class Shape(NamedTuple):
    """How a world's purchases are spread."""

    popularity: NDArray[np.int64]  # purchases of each item, most popular first
    lengths: NDArray[np.int64]  # purchases of each user
    head_share: float  # purchases of the most popular tenth of the items
    repeat_share: float  # purchases of what the same user bought before
    burst_share: float  # purchases within an hour of the one before
    cold_share: float  # purchases in the last fifth of time of items never bought before it


def describe_world(truth: Truth) -> Shape:
    """Popularity, lengths, repeats, bursts and cold items."""
    items, people = truth.items, truth.people
    counts = -np.sort(-np.bincount(items, minlength=truth.catalogue.n_items))
    owner = np.repeat(np.arange(people.n_users), truth.lengths())
    pairs = owner * truth.catalogue.n_items + items
    same_user = np.r_[False, owner[1:] == owner[:-1]]
    soon = same_user & (np.diff(people.times, prepend=0) < 3_600_000)
    cut = np.quantile(people.times, 0.8)
    known = np.zeros(truth.catalogue.n_items, dtype=bool)
    known[items[people.times < cut]] = True
    late = people.times >= cut
    return Shape(
        popularity=counts,
        lengths=truth.lengths(),
        head_share=float(counts[: max(1, len(counts) // 10)].sum() / counts.sum()),
        repeat_share=float(1 - len(np.unique(pairs)) / len(pairs)),
        burst_share=float(soon.mean()),
        cold_share=float((~known[items[late]]).mean()),
    )


def title_examples(truth: Truth, per_kind: int) -> pl.DataFrame:
    """Some titles of every kind, with how many items have one like it."""
    titles = make_titles(truth.catalogue)
    rows = []
    for index, kind in enumerate(ODDITIES):
        found = np.flatnonzero(truth.catalogue.oddity == index)
        shown = found[np.linspace(0, len(found) - 1, min(per_kind, len(found))).astype(int)]
        rows += [
            {
                "kind": kind,
                "items": len(found),
                "title": titles[item],
                "asin": truth.item_keys[item],
            }
            for item in shown.tolist()
        ]
    return pl.DataFrame(rows)


def signal_ladder(truth: Truth, *, k: int, max_users: int) -> dict[str, Ceiling]:
    """NDCG@k of each user's last purchase for those who know less and less of the law."""
    step = max(1, truth.people.n_users // max_users)
    users = np.arange(0, truth.people.n_users, step)[:max_users]
    positions = truth.lengths()[users] - 1
    real = truth.next_item(users, positions)
    counts = np.bincount(truth.items, minlength=truth.catalogue.n_items).astype(np.float32)
    scores = {"popularity alone": np.broadcast_to(counts, real.shape)}
    for name, known in KNOWLEDGE:
        scores[name] = truth.next_item(users, positions, known=known)
    return {
        name: mean_ceiling(expected_gains(real, [k], part)[f"ndcg@{k}"])
        for name, part in scores.items()
    }


def click_rates(folder: Path) -> pl.DataFrame:
    """Click rate and impressions by context, in the training file of Avazu x4."""
    frame = pl.read_csv(folder / "train.csv", columns=["click", *CONTEXTS])
    frame = frame.with_columns(pl.col("hour") % 100)
    parts = [
        frame.group_by(pl.col(name).cast(pl.String).alias("value"))
        .agg(pl.len().alias("impressions"), pl.col("click").mean().alias("click_rate"))
        .with_columns(pl.lit(name).alias("context"))
        .sort("impressions", "value", descending=[True, False])
        for name in CONTEXTS
    ]
    return pl.concat(parts).select("context", "value", "impressions", "click_rate")
