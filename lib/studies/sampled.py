"""The compatibility column: 1 + N sampled candidates, with what they estimate of all items."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lib.data.histories import Histories, Targets
from lib.evaluate import candidates, ranking
from lib.models.neighbours import NeighbourConfig
from lib.studies.counting import Scorer, counting_rows

__all__ = ["draw_candidates", "rank_counted", "rank_sampled", "sampled_table"]

Ranks = NDArray[np.float64]
COUNTED = ("popularity", "Markov", "item-kNN")


def draw_candidates(
    histories: Histories, targets: Targets, *, n: int, seed: int
) -> NDArray[np.int32]:
    """The target and n items that its user never met in any split: the same for all rows."""
    ends = histories.lengths[targets.users]
    return candidates.sample_candidates(
        histories.target_items(targets), histories.seen(targets.users, ends), histories.n_items, n,
        seed=seed,
    )  # fmt: skip


def rank_sampled(
    users: NDArray[np.float32], items: NDArray[np.float32], drawn: NDArray[np.int32]
) -> Ranks:
    """Rank of the target among its candidates, by products of vectors."""
    return candidates.rank_candidates(users, items, drawn)


def rank_counted(
    histories: Histories, targets: Targets, drawn: NDArray[np.int32], chosen: Mapping[str, Any], *,
    max_len: int, filter_seen: bool,
) -> dict[str, Ranks]:  # fmt: skip
    """The same for the rows that count, with the neighbours' chosen settings."""
    rows = counting_rows(
        histories, NeighbourConfig(**chosen), max_len=max_len, filter_seen=filter_seen
    )
    found = {}
    for row in rows:
        if row.name in COUNTED:
            windows, _ = histories.windows(targets.users, targets.positions, row.max_len)
            score = partial(score_candidates, row.scorer)
            found[row.name] = candidates.rank_candidates(windows, score, drawn)
    return found


def score_candidates(scorer: Scorer, windows: NDArray[Any], ids: NDArray[np.int32]) -> NDArray[Any]:
    """Scores of the candidates alone, out of those of the whole catalogue."""
    return np.take_along_axis(scorer(windows), ids, axis=1)


def sampled_table(
    ranks: Mapping[str, Sequence[Ranks] | Ranks], full: Mapping[str, Ranks], *, n_items: int,
    n: int, cutoffs: Sequence[int], corrected_at: int,
) -> pl.DataFrame:  # fmt: skip
    """Hit and NDCG among 1 + n, the corrected estimate of the full measure, and that measure."""

    def at(values: Ranks) -> Ranks:
        return ranking.ndcg(values, corrected_at)

    lines = []
    for name, found in ranks.items():
        table = np.atleast_2d(np.asarray(found))
        line: dict[str, str | float | None] = {"row": name}
        line |= {f"hit@{k}": float(ranking.hit(table.ravel(), k).mean()) for k in cutoffs}
        line |= {f"ndcg@{k}": float(ranking.ndcg(table.ravel(), k).mean()) for k in cutoffs}
        estimate = candidates.correct_sampled(table.ravel(), at, n_items, n)
        line[f"estimated full ndcg@{corrected_at}"] = float(estimate.mean())
        known = full.get(name)
        line[f"full ndcg@{corrected_at}"] = (
            None if known is None else float(at(known.ravel()).mean())
        )
        lines.append(line)
    return pl.DataFrame(lines, infer_schema_length=None)
