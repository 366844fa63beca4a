"""Co-visit features: how often impressions of a target were clicked by rows with the same events.

For a pair of token and target, n impressions and c clicks give ``(c + S p) / (n + S)``, clipped,
where p is the click rate of the rows counted; pairs with few impressions get p itself. A row's
events are then aggregated.

Leakage rule: a training row of fold k sees counts (and p) of the training rows of all other folds;
valid and test rows see those of all training rows. So no row ever sees its own label. The values
are scaled by fixed rules, because a mean over all rows would carry the label back in.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lib.data.clicks import ClickRows, Clicks
from lib.data.extend import ROWS_AT_ONCE, Block

__all__ = ["AGGREGATES", "CovisitPlan", "CovisitTables", "count_covisits", "covisit_block"]

AGGREGATES = (
    "sum", "mean", "max", "top3_mean", "recent_mean", "p_norm", "sum_impressions",
    "max_impressions",
)  # fmt: skip
MAX_CELLS = 200_000_000
Counts = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, slots=True)
class CovisitPlan:
    """What is counted and how it is smoothed."""

    target: str  # a categorical field
    time: str | None = None  # a field that splits the target further, such as the hour
    max_len: int = 60  # newest events per row
    smoothing: float = 50.0
    min_impressions: int = 10
    low: float = 1e-3
    high: float = 0.999
    recency_tau: float = 20.0  # events; the newest has weight 1
    power: float = 3.0

    def __post_init__(self) -> None:
        if self.smoothing <= 0 or self.recency_tau <= 0 or self.power < 1 or self.max_len < 1:
            raise ValueError(f"{self}: smoothing and tau above 0, power and max_len from 1")
        if not 0 < self.low < self.high < 1:
            raise ValueError(f"clip from {self.low} to {self.high}, expected 0 < low < high < 1")


@dataclass(frozen=True, slots=True)
class CovisitTables:
    """Counts of the training rows by fold, token and target; the last two axes are one."""

    impressions: Counts  # (folds, tokens * targets)
    clicks: Counts
    rows: npt.NDArray[np.int64]  # (folds,)
    clicked_rows: npt.NDArray[np.int64]

    def outside(self, fold: int) -> tuple[Counts, Counts, float]:
        """Impressions, clicks and click rate of every fold but this one; of all folds for -1."""
        impressions, clicks = self.impressions.sum(0), self.clicks.sum(0)
        rows, clicked = int(self.rows.sum()), int(self.clicked_rows.sum())
        if fold >= 0:
            impressions, clicks = impressions - self.impressions[fold], clicks - self.clicks[fold]
            rows, clicked = rows - int(self.rows[fold]), clicked - int(self.clicked_rows[fold])
        return impressions, clicks, (clicked + 0.5) / (rows + 1)  # never 0, even without a click


def count_covisits(clicks: Clicks, plan: CovisitPlan) -> CovisitTables:
    """Count over the training rows; every one of them needs a fold, and there must be two folds."""
    n_targets = _target_size(clicks, plan)
    train = clicks.rows("train")
    n_folds = int(clicks.fold[train].max(initial=-1)) + 1
    if n_folds < 2 or (len(train) and clicks.fold[train].min() < 0):
        raise ValueError(
            f"training rows have {n_folds} fold(s), expected at least 2: co-visit counts of a row "
            "come from the other folds. Prepare the dataset with folds"
        )
    cells = clicks.n_tokens * n_targets
    if cells * n_folds > MAX_CELLS:
        raise ValueError(
            f"{n_folds} folds x {clicks.n_tokens} tokens x {n_targets} values of {plan.target!r} "
            f"are more than {MAX_CELLS:,} cells; raise min_count or hash the field"
        )
    shape = (n_folds, cells)
    impressions, clicked = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for rows in _batches(clicks, train, plan.max_len):
        tokens, kept, key = _keys(clicks, rows, plan)
        fold = np.broadcast_to(rows.fold[:, None].astype(np.int64), tokens.shape)
        _add(impressions, (fold * cells + key)[kept])
        hit = kept & (rows.label == 1)[:, None]
        _add(clicked, (fold * cells + key)[hit])
    fold_of, label = clicks.fold[train], clicks.label[train]
    return CovisitTables(
        impressions,
        clicked,
        np.bincount(fold_of, minlength=n_folds),
        np.bincount(fold_of[label == 1], minlength=n_folds),
    )


def covisit_block(clicks: Clicks, plan: CovisitPlan, tables: CovisitTables | None = None) -> Block:
    """The aggregates of each row as columns; the values of a row do not depend on its label."""
    tables = count_covisits(clicks, plan) if tables is None else tables
    n_folds, cells = tables.impressions.shape
    ratio = np.empty((n_folds + 1, cells), np.float32)  # click rate of a pair over that of all rows
    seen = np.empty((n_folds + 1, cells), np.int32)
    for fold in range(-1, n_folds):
        impressions, clicked, rate = tables.outside(fold)
        smooth = (clicked + plan.smoothing * rate) / (impressions + plan.smoothing)
        smooth = np.clip(smooth, plan.low, plan.high) / rate
        ratio[fold] = np.where(impressions < plan.min_impressions, 1.0, smooth)
        seen[fold] = impressions

    def compute(index: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        rows = clicks.take(index, max_len=plan.max_len)
        _, kept, key = _keys(clicks, rows, plan)
        fold = rows.fold[:, None].astype(np.int64)  # -1 is the last table: all training rows
        flat = np.where(fold < 0, n_folds, fold) * cells + key
        return _aggregate(ratio.ravel()[flat], seen.ravel()[flat], kept, plan)

    name = plan.target if plan.time is None else f"{plan.target}*{plan.time}"
    columns = tuple(f"covisit:{name}:{aggregate}" for aggregate in AGGREGATES)
    return Block(f"covisits-{name.replace('*', '-')}", columns, compute)


def _add(counts: Counts, cells: npt.NDArray[np.int64]) -> None:
    """Add 1 to each cell; bincount is the faster way unless it would mostly count zeros."""
    if counts.size < 4 * len(cells):
        counts += np.bincount(cells, minlength=counts.size).reshape(counts.shape).astype(np.int32)
    else:
        np.add.at(counts.reshape(-1), cells, 1)


def _aggregate(
    ratio: npt.NDArray[np.float32],
    seen: npt.NDArray[np.int32],
    kept: npt.NDArray[np.bool_],
    plan: CovisitPlan,
) -> npt.NDArray[np.float32]:
    """(B, L) ratios and impressions to (B, 8); a row without events has neutral values."""
    ratio, seen = np.where(kept, ratio, 0), np.where(kept, seen, 0)
    length = kept.sum(axis=1)
    some = np.maximum(length, 1)
    age = length[:, None] - 1 - np.arange(kept.shape[1])
    weight = np.where(kept, np.exp(-np.maximum(age, 0) / plan.recency_tau), 0)
    top = -np.partition(-ratio, min(2, ratio.shape[1] - 1), axis=1)[:, :3]
    means = np.stack(
        [
            ratio.sum(axis=1) / some,
            ratio.max(axis=1),
            top.sum(axis=1) / np.minimum(some, 3),
            (ratio * weight).sum(axis=1) / np.where(length > 0, weight.sum(axis=1), 1),
            ((ratio**plan.power).sum(axis=1) / some) ** (1 / plan.power),
        ],
        axis=1,
    )
    logs = np.log(np.where(length[:, None] > 0, means, 1.0))
    amounts = np.log1p(np.stack([ratio.sum(axis=1), seen.sum(axis=1), seen.max(axis=1)], axis=1))
    columns = [amounts[:, :1], logs, amounts[:, 1:] / 10]
    return np.concatenate(columns, axis=1).astype(np.float32)


def _keys(
    clicks: Clicks, rows: ClickRows, plan: CovisitPlan
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Tokens, which are real, and the number of each (token, target) pair; all (B, L)."""
    tokens, lengths = rows.padded(plan.max_len)
    target = np.zeros(len(rows), np.int64)
    for name in (plan.target, plan.time):
        if name is not None:
            field = clicks.fields.index(name)
            local = rows.categorical[:, field] - clicks.field_offsets[field]
            target = target * int(clicks.field_sizes[field]) + local
    kept = np.arange(tokens.shape[1]) < lengths[:, None]
    return tokens, kept, tokens.astype(np.int64) * _target_size(clicks, plan) + target[:, None]


def _target_size(clicks: Clicks, plan: CovisitPlan) -> int:
    size = 1
    for name in (plan.target, plan.time):
        if name is not None and name not in clicks.fields:
            raise ValueError(f"co-visit target {name!r} is not a field: {', '.join(clicks.fields)}")
        size *= 1 if name is None else int(clicks.field_sizes[clicks.fields.index(name)])
    return size


def _batches(clicks: Clicks, train: npt.NDArray[np.int64], max_len: int) -> Iterator[ClickRows]:
    for first in range(0, len(train), ROWS_AT_ONCE):
        yield clicks.take(train[first : first + ROWS_AT_ONCE], max_len=max_len)
