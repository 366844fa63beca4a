"""From the models of the folds to one calibrated probability per row of the test.

Everything here is *balanced*: the probability in a world where half of the rows are clicks, which
is what weighted log loss and Score are measured on. Folds are weighed by rows that their model
never saw, a calibrator is fitted on inner rows and judged on outer ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.figure import Figure

from lib.evaluate.calibration import (
    Calibrator,
    Temperature,
    choose_calibrator,
    fit_isotonic,
    fit_temperature,
    reliability_table,
)
from lib.evaluate.clicks import score, shift_prior
from lib.evaluate.gates import Decision, Gate, parse_rule
from lib.evaluate.logistic import to_logits
from lib.evaluate.resampled import interval_of, resample_clicks
from lib.studies.clicks import balancing_shift
from lib.studies.figures import plot_reliability
from lib.studies.rungs import Rung

__all__ = ["Calibrated", "CalibrationKind", "Labelled", "calibrate", "fold_scores", "judge_blends",
           "reliability_figure"]  # fmt: skip

Floats = npt.NDArray[np.float64]
CalibrationKind = Literal["auto", "none", "temperature", "temperature with bias", "isotonic"]
SHOWN = ("score", "average_precision", "weighted_log_loss")


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labels and balanced logits of rows that no fitted thing has seen."""

    labels: npt.NDArray[np.int8]
    logits: Floats

    def at(self, places: npt.NDArray[np.int64]) -> "Labelled":
        return Labelled(self.labels[places], self.logits[places])


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The calibrator in use and what each candidate costs on the outer rows."""

    name: str
    calibrator: Calibrator
    losses: dict[str, float]  # weighted log loss
    decisions: dict[str, Decision]
    outer: Labelled

    def table(self) -> pl.DataFrame:
        return pl.DataFrame(
            [
                {
                    "calibrator": name,
                    "weighted log loss": loss,
                    "decision": self.decisions[name].answer if name in self.decisions else "",
                    "in use": name == self.name,
                }
                for name, loss in self.losses.items()
            ]
        )


def fold_scores(rung: Rung) -> list[float]:
    """Score of each fold's model on the rows it was not trained on."""
    balanced = rung.balanced(rung.oof.logits)
    return [
        score(rung.oof.labels[rung.fold == fold], balanced[rung.fold == fold])
        for fold in np.unique(rung.fold)
    ]


def judge_blends(
    labels: npt.ArrayLike, blends: Mapping[str, Floats], *, rate: float, draws: int, seed: int
) -> pl.DataFrame:
    """One line per way of combining: Score, AP and WLL with intervals, all on the same draws."""
    lines = []
    for name, balanced in blends.items():
        true = shift_prior(balanced, 0.5, rate)
        drawn = resample_clicks(labels, true, balanced, draws=draws, seed=seed)
        line: dict[str, str | float] = {"combined by": name}
        for metric in SHOWN:
            interval = interval_of(drawn, metric, len(balanced))
            line |= {metric: drawn[metric][0], f"{metric} low": interval.low,
                     f"{metric} high": interval.high}  # fmt: skip
        lines.append(line)
    return pl.DataFrame(lines)


def calibrate(
    rung: Rung,
    combined: Floats,
    kind: CalibrationKind,
    *,
    fit_on: Literal["out of fold", "half of the hold-out"],
    draws: int,
    seed: int,
) -> Calibrated:
    """Fit on inner rows, judge on outer ones.  ``combined``: balanced p of the hold-out rows.

    "auto" takes a step to a more flexible calibrator only where the whole interval of the gain
    says so; a kind by name is used whatever the outer rows say, and its figure stands there.
    """
    held = Labelled(rung.holdout.labels, to_logits(combined))
    if fit_on == "out of fold":
        inner = Labelled(rung.oof.labels, rung.oof.logits + balancing_shift(rung.rate))
        outer = held
    else:
        places = np.random.default_rng(seed).permutation(len(held.labels))
        half = len(places) // 2
        inner, outer = held.at(np.sort(places[:half])), held.at(np.sort(places[half:]))
    for name, part in (("inner", inner), ("outer", outer)):
        if len(np.unique(part.labels)) < 2:
            raise ValueError(f"the {len(part.labels)} {name} rows of the calibration ({fit_on=}) "
                             "hold one class alone; give it more labelled rows")  # fmt: skip
    gate = Gate(name="calibration", baseline="none", alternatives=parse_rule("loss -0"))
    found = choose_calibrator(
        (inner.labels, inner.logits), (outer.labels, outer.logits), gate,
        balanced=True, draws=draws, seed=seed,
    )  # fmt: skip
    name, calibrator = found.name, found.calibrator
    if kind != "auto":
        name, calibrator = kind, _fit(kind, inner)
    return Calibrated(name, calibrator, found.losses, found.decisions, outer)


def _fit(kind: CalibrationKind, inner: Labelled) -> Calibrator:
    if kind == "none":
        return Temperature()
    if kind == "isotonic":
        return fit_isotonic(inner.labels, inner.logits, balanced=True)
    bias = kind == "temperature with bias"
    return fit_temperature(inner.labels, inner.logits, bias=bias, balanced=True)


def reliability_figure(calibrated: Calibrated, rate: float, bins: int = 12) -> Figure:
    """Observed against predicted click rate of the outer rows, before and after."""
    outer = calibrated.outer
    curves: dict[str, Sequence[Floats]] = {}
    for name, calibrator in (("as combined", Temperature()), ("calibrated", calibrated.calibrator)):
        p = shift_prior(calibrator(outer.logits), 0.5, rate)
        table = reliability_table(outer.labels, p, bins)
        curves[name] = (table["predicted"], table["observed"], table["rows"])
    return plot_reliability(curves, log=False)  # type: ignore[arg-type]
