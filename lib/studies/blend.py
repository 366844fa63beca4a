"""Calibrating rungs and joining them, each row by what other folds taught.

For a row of fold k, calibrator, weights and stacker come from the other folds; for the hold-out and
the test they come from all out-of-fold rows. Which calibrator is used is decided there too, by WLL
on rows that it was not fitted on.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lib.evaluate import ensemble
from lib.evaluate.calibration import Calibrator, Temperature, fit_isotonic, fit_temperature
from lib.evaluate.clicks import log_loss, score, weighted_log_loss
from lib.studies.clicks import balancing_shift, sigmoid
from lib.studies.rungs import Rung

__all__ = ["Calibrated", "blend_rungs", "calibrate_rung", "confusion_table", "distribution_gate"]

Floats = npt.NDArray[np.float64]
KINDS = ("none", "temperature", "isotonic")
EDGE = 1e-6  # probabilities become logits again


@dataclass(frozen=True)
class Calibrated:
    """A rung after calibration, what was chosen in each fold and for new rows, and WLL of each."""

    rung: Rung
    by_fold: dict[str, str]
    chosen: str
    calibrator: Calibrator
    losses: dict[str, float]

    def record(self) -> dict[str, Any]:
        return {"kind": self.chosen, **asdict(self.calibrator)}


def calibrate_rung(rung: Rung) -> Calibrated:
    """None, temperature or isotonic, whichever has the least WLL on rows outside its fit."""
    labels, balanced = rung.oof.labels, rung.oof.logits + balancing_shift(rung.rate)
    said, by_fold, parts = np.empty(len(balanced)), {}, two_or_more(rung.fold)
    for number in np.unique(parts):
        own = parts == number
        kind, _ = choose_kind(labels[~own], balanced[~own], parts[~own])
        by_fold[f"fold {number}"] = kind
        said[own] = apply(fit(kind, labels[~own], balanced[~own]), balanced[own], rung.rate)
    chosen, losses = choose_kind(labels, balanced, rung.fold)
    calibrator = fit(chosen, labels, balanced)
    shift = balancing_shift(rung.rate)
    changed = replace(
        rung,
        oof=replace(rung.oof, logits=said),
        holdout=replace(
            rung.holdout, logits=apply(calibrator, rung.holdout.logits + shift, rung.rate)
        ),
        test=apply(calibrator, rung.test + shift, rung.rate),
    )
    return Calibrated(changed, by_fold, chosen, calibrator, losses)


def choose_kind(
    labels: npt.NDArray[np.int8], logits: Floats, fold: npt.NDArray[np.int16]
) -> tuple[str, dict[str, float]]:
    """The kind with the least WLL when each fold is calibrated by the others; WLL of each kind."""
    parts, losses = two_or_more(fold), {}
    for kind in KINDS:
        said = np.empty(len(logits))
        for number in np.unique(parts):
            own = parts == number
            said[own] = fit(kind, labels[~own], logits[~own])(logits[own])
        losses[kind] = weighted_log_loss(labels, said)
    return min(KINDS, key=losses.__getitem__), losses


def two_or_more(fold: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """The folds; of a single one (a published split) its even and odd rows stand for two.

    >>> two_or_more(np.zeros(4, np.int16)).tolist()
    [0, 1, 0, 1]
    """
    return fold if len(np.unique(fold)) > 1 else (np.arange(len(fold)) % 2).astype(np.int16)


def fit(kind: str, labels: npt.NDArray[np.int8], logits: Floats) -> Calibrator:
    """A calibrator of balanced logits."""
    if kind == "none":
        return Temperature()
    if kind == "temperature":
        return fit_temperature(labels, logits, bias=True, balanced=True)
    return fit_isotonic(labels, logits, balanced=True)


def apply(calibrator: Calibrator, balanced_logits: Floats, rate: float) -> Floats:
    """Logits of the true probability after calibration of the balanced one."""
    p = np.clip(calibrator(balanced_logits), EDGE, 1 - EDGE)
    return np.asarray(np.log(p / (1 - p)) - balancing_shift(rate))


def blend_rungs(
    rungs: Mapping[str, Rung], *, temperature: float
) -> tuple[dict[str, Rung], dict[str, dict[str, float]]]:
    """Mean of logits, mean weighted by Score, and a stacked regression.  -> rungs, weights of each

    ``temperature`` of the softmax that turns Scores into weights.
    """
    members = list(rungs.values())
    first, names = members[0], list(rungs)
    for other in members[1:]:
        if not np.array_equal(first.oof.rows, other.oof.rows):
            raise ValueError(f"{first.name} and {other.name} predict different rows; train both "
                             "on the same prepared dataset")  # fmt: skip
    tables = {
        "oof": np.stack([sigmoid(m.oof.logits) for m in members]),
        "holdout": np.stack([sigmoid(m.holdout.logits) for m in members]),
        "test": np.stack([sigmoid(m.test) for m in members]),
    }
    labels, fold = first.oof.labels, two_or_more(first.fold)
    weights = _score_weights(members, np.ones(len(labels), bool), temperature)
    weighted_oof = np.empty(len(labels))
    for number in np.unique(fold):
        own = fold == number
        inner = _score_weights(members, ~own, temperature)
        weighted_oof[own] = ensemble.weighted(tables["oof"][:, own], inner)
    stack = ensemble.stack(tables["oof"], labels, fold)
    said = {
        "mean of logits": tuple(ensemble.logit_mean(tables[p]) for p in tables),
        "weighted by Score": (weighted_oof, ensemble.weighted(tables["holdout"], weights),
                              ensemble.weighted(tables["test"], weights)),
        "stacked": (stack.out_of_fold, stack(tables["holdout"]), stack(tables["test"])),
    }  # fmt: skip
    shares = {
        "mean of logits": dict.fromkeys(names, 1 / len(names)),
        "weighted by Score": dict(zip(names, weights.tolist(), strict=True)),
        "stacked": dict(zip([*names, "bias"], stack.weights.tolist(), strict=True)),
    }
    return {name: _joined(name, members, *p) for name, p in said.items()}, shares


def _score_weights(members: list[Rung], rows: npt.NDArray[np.bool_], temperature: float) -> Floats:
    scores = [score(m.oof.labels[rows], m.balanced(m.oof.logits[rows])) for m in members]
    return ensemble.validation_weights(scores, temperature)


def _joined(name: str, members: list[Rung], oof: Floats, holdout: Floats, test: Floats) -> Rung:
    def logits(p: Floats) -> Floats:
        p = np.clip(p, EDGE, 1 - EDGE)
        return np.asarray(np.log(p / (1 - p)))

    first = members[0]
    return replace(
        first,
        name=name,
        oof=replace(first.oof, logits=logits(oof)),
        holdout=replace(first.holdout, logits=logits(holdout)),
        test=logits(test),
        seconds=sum(m.seconds for m in members),
        parameters=sum(m.parameters for m in members),
        epochs=[],
        curves=[],
    )


def distribution_gate(rung: Rung, *, mean_within: float, least_spread: float) -> pl.DataFrame:
    """Is the mean near the click rate, and do rows differ? Asked of both outputs, to show that
    only the true one can answer."""
    rows = []
    for output, p in (("true", sigmoid(rung.oof.logits)), ("balanced", rung.balanced(rung.oof.logits))):  # fmt: skip  # noqa: E501
        rate = float((rung.oof.labels > 0).mean())
        near, spread = abs(float(p.mean()) - rate) <= mean_within, float(p.std()) >= least_spread
        rows.append({"output": output, "click rate": rate, "mean": float(p.mean()),
                     "spread": float(p.std()), "passes": near and spread})  # fmt: skip
    return pl.DataFrame(rows)


def confusion_table(rung: Rung) -> pl.DataFrame:
    """What each measure says of each output, on the hold-out: two of the four are mistakes."""
    labels, logits = rung.holdout.labels, rung.holdout.logits
    return pl.DataFrame(
        [
            {"handed in": name, "log loss": log_loss(labels, p),
             "weighted log loss": weighted_log_loss(labels, p), "score": score(labels, p)}
            for name, p in (("true", sigmoid(logits)), ("balanced", rung.balanced(logits)))
        ]
    )  # fmt: skip
