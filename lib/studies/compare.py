"""Rows of a ranking study beside each other: means over seeds, intervals, paired differences.

Every row is an array of ranks (S seeds, N users) over the same targets in the same order; a row
without randomness has one seed.  A difference is paired by user after averaging over seeds, so its
interval speaks of users; the spread over seeds stands in a column of its own.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lib.evaluate import ranking
from lib.evaluate.segments import by_number
from lib.evaluate.uncertainty import bootstrap_mean, holm, paired_bootstrap

__all__ = ["Ranks", "compare_rows", "compare_segments", "measure"]

Ranks = Mapping[str, NDArray[np.float64]]
MEASURES = {"hit": ranking.hit, "recall": ranking.recall, "ndcg": ranking.ndcg}


def measure(ranks: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """One value per user, averaged over seeds; ``name`` such as "ndcg@10".  (S, N) -> (N,)

    >>> measure(np.array([[1.0, 50.0], [3.0, 1.0]]), "ndcg@10").tolist()
    [0.75, 0.5]
    """
    kind, _, k = name.partition("@")
    if kind not in MEASURES or not k.isdigit():
        raise ValueError(f"measure {name!r}: expected {sorted(MEASURES)} with a cut, as in ndcg@10")
    table = np.atleast_2d(ranks)
    values = MEASURES[kind](table.ravel(), int(k)).reshape(table.shape)
    return values.mean(axis=0)


def compare_rows(
    ranks: Ranks, measures: Sequence[str], *, against: str, draws: int = 10_000
) -> pl.DataFrame:
    """One line per row and measure: value, interval, seeds, and the paired difference.

    ``p_holm`` is adjusted over all differences of the table.
    """
    _require_same_users(ranks)
    if against not in ranks:
        raise ValueError(f"nothing to compare with: {against!r} is not among {sorted(ranks)}")
    lines = []
    for name in measures:
        reference = measure(ranks[against], name)
        for row, table in ranks.items():
            values = measure(table, name)
            own = bootstrap_mean(values, draws)
            seeds = [measure(one, name).mean() for one in np.atleast_2d(table)]
            gap = None if row == against else paired_bootstrap(values, reference, draws)
            lines.append({
                "row": row, "measure": name, "value": own.value, "low": own.low, "high": own.high,
                "n": own.n, "seeds": len(seeds),
                "seed_spread": float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None,
                "difference": gap and gap.value, "difference_low": gap and gap.low,
                "difference_high": gap and gap.high, "p": gap and gap.p_value,
            })  # fmt: skip
    frame = pl.DataFrame(lines, infer_schema_length=None)
    adjusted = holm(frame["p"].cast(pl.Float64).fill_null(float("nan")).to_numpy())
    return frame.with_columns(p_holm=pl.Series(adjusted).fill_nan(None)).drop("p")


def compare_segments(
    ranks: Ranks,
    labels: Mapping[str, NDArray[np.str_]],
    *,
    name: str,
    against: str,
    draws: int = 2_000,
) -> pl.DataFrame:
    """The same measure inside every segment of every segmentation, with the ratio to a row."""
    _require_same_users(ranks)
    lines = []
    reference = measure(ranks[against], name)
    for kind, label in labels.items():
        for segment in dict.fromkeys(sorted(label.tolist(), key=by_number)):
            inside = label == segment
            base = reference[inside].mean()
            for row, table in ranks.items():
                own = bootstrap_mean(measure(table, name)[inside], draws)
                lines.append({
                    "by": kind, "segment": segment, "row": row, "measure": name, "n": own.n,
                    "value": own.value, "low": own.low, "high": own.high,
                    "ratio": own.value / base if base > 0 else None,
                })  # fmt: skip
    return pl.DataFrame(lines, infer_schema_length=None)


def _require_same_users(ranks: Ranks) -> None:
    sizes = {row: np.atleast_2d(table).shape[1] for row, table in ranks.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"rows must rank the same targets to be paired, but have {sizes}")
