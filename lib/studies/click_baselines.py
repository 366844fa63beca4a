"""The rows of click prediction without a network: constant, logistic regression, ceiling."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from lib.data.clicks import ClickRows, Clicks
from lib.evaluate.clicks import log_loss, row_log_loss, shift_prior, summarise
from lib.evaluate.delong import auc_interval
from lib.evaluate.uncertainty import Interval, bootstrap_mean
from lib.models.logistic import Logistic, fit_logistic_rows

__all__ = [
    "Measured",
    "choose_ridge",
    "fit_rows",
    "judged_rows",
    "measure_row",
    "numbers_of",
    "rows_in_file",
    "tune_rows",
]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
PUBLISHED = (
    "auc",
    "average_precision",
    "log_loss",
    "normalised_entropy",
    "weighted_log_loss",
    "score",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """All measures of one row of the table, with the intervals that have a closed or cheap form."""

    row: str
    values: dict[str, float]
    intervals: dict[str, Interval]

    def record(self) -> dict[str, float | str]:
        """One line of the table."""
        return {"row": self.row, **{name: self.values[name] for name in PUBLISHED}}

    def metrics(self) -> Iterator[dict[str, object]]:
        """Each measure as the arguments of ``run.metric``."""
        for name in PUBLISHED:
            interval = self.intervals.get(name)
            yield {
                "name": name,
                "value": self.values[name],
                "row": self.row,
                "ci": None if interval is None else (interval.low, interval.high),
                "n": int(self.values["n_rows"]),
                "better": "lower" if "loss" in name or "entropy" in name else "higher",
            }


def judged_rows(clicks: Clicks) -> tuple[str, Ints]:
    """The test rows where they are labelled, the held-out valid rows otherwise."""
    test = clicks.rows("test")
    if len(test) and (clicks.label[test] >= 0).all():
        return "test", test
    valid = clicks.rows("valid")
    if not len(valid):
        raise ValueError("no labelled row is held out; prepare the dataset with a valid split")
    return "valid", valid


def tune_rows(clicks: Clicks, judged: str) -> tuple[Ints, Ints]:
    """Rows to fit and rows to choose by; never those that judge.

    When valid judges, because the published test is unlabelled, the last training fold chooses.
    """
    train = clicks.rows("train")
    if judged == "test" and len(clicks.rows("valid")):
        return train, clicks.rows("valid")
    fold = clicks.fold[train]
    last = fold == fold.max(initial=0)
    if last.all() or not last.any():
        raise ValueError("nothing to choose the ridge by; prepare valid rows or at least two folds")
    return train[~last], train[last]


def choose_ridge(
    clicks: Clicks, fit: Ints, choose: Ints, ridges: Sequence[float], *, max_steps: int
) -> tuple[float, dict[float, float]]:
    """The ridge of least log loss on the choosing rows, and the log loss of each."""
    rows, held = clicks.take(fit, max_len=1), clicks.take(choose, max_len=1)
    losses = {}
    for ridge in ridges:
        model = fit_rows(clicks, rows, ridge=ridge, max_steps=max_steps)
        losses[ridge] = log_loss(
            held.label, model.probabilities(held.categorical, numbers_of(held))
        )
    return min(losses, key=lambda ridge: losses[ridge]), losses


def fit_rows(clicks: Clicks, rows: ClickRows, *, ridge: float, max_steps: int) -> Logistic:
    """Logistic regression on every field, number and missing indicator of some rows."""
    numbers = numbers_of(rows)
    return fit_logistic_rows(
        rows.categorical, numbers, rows.label, n_ids=clicks.n_ids, ridge=ridge, max_steps=max_steps
    )


def numbers_of(rows: ClickRows) -> npt.NDArray[np.float32]:
    """Numeric columns and missing indicators side by side.  -> (B, M + M')"""
    return np.concatenate([rows.numeric, rows.missing.astype(np.float32)], axis=1)


def rows_in_file(clicks: Clicks, rows: Ints) -> tuple[str, Ints]:
    """The source file that holds all of these rows, and their places in it: truth is by file."""
    start = 0
    for name, size in cast(list[tuple[str, int]], clicks.reports["file_rows"]):
        if len(rows) and start <= rows.min() and rows.max() < start + size:
            return name, rows - start
        start += size
    raise ValueError(f"{len(rows)} rows lie in no one source file; take rows of one split")


def measure_row(
    row: str,
    labels: npt.NDArray[np.int8],
    p_true: Floats,
    *,
    train_rate: float,
    draws: int,
    seed: int,
) -> Measured:
    """Order and log loss from the true probabilities, WLL and Score from those shifted to 50:50."""
    values = summarise(labels, p_true, shift_prior(p_true, train_rate))
    intervals = {
        "auc": auc_interval(labels, p_true),
        "log_loss": bootstrap_mean(row_log_loss(labels, p_true), draws, seed),
    }
    return Measured(row, values, intervals)
