"""Gradient-boosted trees on a click dataset: LightGBM with the folds that every rung uses.

Ids are categorical features, numbers and missing indicators stand beside them. Balanced weights
teach the balanced logit, plain ones the true one; both come back as logits of the true
probability. Early stopping asks the same composite of AP and WLL as the networks do; DART, whose
earlier trees change with every round, runs all its rounds.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import polars as pl

from lib.data.files import write_atomic
from lib.studies.click_view import ReadsClicks
from lib.studies.clicks import judge_logits, logit
from lib.studies.crossfit import MODEL, Folds, Protocol, Split, crossfit

__all__ = ["TreeSettings", "boost", "cross_validate_trees", "importance_table"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Report = Callable[..., None]
ROWS_AT_ONCE = 500_000


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeSettings:
    """``weighting``: "class weight" scales each click by N−/N+, "balanced" gives each class half
    of the weight (the same optimum, other shrinkage), "none" leaves rows as they are."""

    boosting: Literal["gbdt", "dart"] = "gbdt"
    weighting: Literal["class weight", "balanced", "none"] = "class weight"
    rounds: int = 300
    patience: int = 30
    learning_rate: float = 0.05
    leaves: int = 31
    least_in_leaf: int = 20
    columns: float = 0.8  # share of features that a tree sees
    rows: float = 0.8  # share of rows that a tree sees
    ridge: float = 1.0
    group: int = 100  # rows that a group of ids must hold to be split off
    smooth: float = 10.0  # rows' worth of prior in the click rate by which ids are ordered
    seed: int = 1
    threads: int = 0  # 0: what the environment allows

    def record(self) -> dict[str, Any]:
        """Plain values, as config.json keeps them."""
        return asdict(self)

    def as_lightgbm(self, rate: float) -> dict[str, Any]:
        """The parameters by LightGBM's own names; it reproduces a run bit by bit."""
        return {
            "objective": "binary", "boosting": self.boosting, "learning_rate": self.learning_rate,
            "num_leaves": self.leaves, "min_data_in_leaf": self.least_in_leaf,
            "feature_fraction": self.columns, "bagging_fraction": self.rows, "bagging_freq": 1,
            "lambda_l2": self.ridge, "seed": self.seed, "num_threads": self.threads,
            "scale_pos_weight": (1 - rate) / rate if self.weighting == "class weight" else 1.0,
            "boost_from_average": False, "deterministic": True, "force_row_wise": True,
            "verbosity": -1, "metric": "None",
            "max_cat_to_onehot": 8, "min_data_per_group": self.group, "cat_smooth": self.smooth,
            "cat_l2": max(self.ridge, 10.0),
        }  # fmt: skip


def tree_features(clicks: ReadsClicks, rows: Ints) -> npt.NDArray[np.float32]:
    """Local ids, numbers, missing indicators.  -> (N, F + M + M')"""
    layout = clicks.layout
    width = len(layout.fields) + len(layout.numeric_names) + len(layout.missing_names)
    table = np.empty((len(rows), width), np.float32)
    for first in range(0, len(rows), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        found = clicks.take(rows[part], max_len=1)
        local = found.categorical - layout.field_offsets
        table[part] = np.concatenate([local, found.numeric, found.missing], axis=1)
    return table


def feature_names(clicks: ReadsClicks) -> list[str]:
    layout = clicks.layout
    return [*layout.fields, *layout.numeric_names, *layout.missing_names]


def boost(
    clicks: ReadsClicks,
    fit: Ints,
    choose: Ints,
    settings: TreeSettings,
    *,
    report: Report | None = None,
) -> tuple[lgb.Booster, list[float], float]:
    """One booster, the Score on the choosing rows after each round, and what to add to its sums."""
    labels, judged = clicks.label[fit] > 0, np.asarray(clicks.label[choose])
    rate = float(labels.mean())
    if not 0 < rate < 1:
        raise ValueError(f"the {len(fit)} training rows have a click rate of {rate}; trees need "
                         "both classes")  # fmt: skip
    # NOTE LightGBM would put the average into its first tree, which DART then shrinks and drops:
    # the average is given as a start instead, and added again to what the trees say.
    start = logit(rate) if settings.weighting == "none" else 0.0
    shift = logit(rate)  # of the trees' sum, under every weighting
    weight = np.where(labels, 0.5 / rate, 0.5 / (1 - rate)) if settings.weighting == "balanced" else None  # fmt: skip  # noqa: E501
    curve: list[float] = []

    def evaluate(raw: Floats, _: lgb.Dataset) -> tuple[str, float, bool]:
        curve.append(judge_logits(judged, raw_logits(raw) + shift - start, rate=rate)["score"])
        if report:
            report(len(curve), settings.rounds, score=curve[-1])
        return "score", curve[-1], True

    # a dataset per call: LightGBM bins a dataset once and then refuses other parameters
    parameters = settings.as_lightgbm(rate)
    train = lgb.Dataset(
        tree_features(clicks, fit), label=labels, weight=weight, params=parameters,
        init_score=np.full(len(fit), start),
        feature_name=[f"c{i}" for i in range(len(feature_names(clicks)))],
        categorical_feature=list(range(len(clicks.layout.fields))), free_raw_data=True,
    )  # fmt: skip
    callbacks, valid = [], []
    if settings.boosting == "gbdt" and len(choose):
        begin = np.full(len(choose), start)
        table = tree_features(clicks, choose)
        valid = [train.create_valid(table, label=judged > 0, init_score=begin)]
        callbacks = [lgb.early_stopping(settings.patience, verbose=False)]
    booster = lgb.train(
        parameters, train, settings.rounds, valid_sets=valid or None, callbacks=callbacks,
        feval=evaluate if valid else None,
    )  # fmt: skip
    return booster, curve, shift


def raw_logits(raw: Floats) -> Floats:
    """What LightGBM hands to an evaluation with a built-in objective: probabilities, as logits."""
    clipped = np.clip(raw, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(clipped / (1 - clipped)))


def tree_logits(booster: lgb.Booster, clicks: ReadsClicks, rows: Ints, shift: float) -> Floats:
    """Logits of the true probability.  -> (N,)"""
    if not len(rows):
        return np.zeros(0)
    best = booster.best_iteration or None
    raw = booster.predict(tree_features(clicks, rows), raw_score=True, num_iteration=best)
    return np.asarray(raw, dtype=np.float64) + shift


def cross_validate_trees(
    clicks: ReadsClicks,
    protocol: Protocol,
    settings: TreeSettings,
    *,
    scratch: Path | None = None,
    report: Report | None = None,
) -> Folds:
    """One booster per split, saved as LightGBM's own text."""

    def fit(number: int, split: Split, folder: Path | None) -> dict[str, npt.NDArray[Any]]:
        del number
        begin = time.perf_counter()
        rows = split.fit if settings.boosting == "gbdt" else np.union1d(split.fit, split.choose)
        booster, curve, shift = boost(clicks, rows, split.choose, settings, report=report)
        seconds = time.perf_counter() - begin
        used = booster.best_iteration or booster.current_iteration()
        if folder is not None:
            text = booster.model_to_string(num_iteration=used)
            write_atomic(folder / MODEL / "trees.txt", text.encode())
        leaves = sum(tree["num_leaves"] for tree in booster.dump_model(used)["tree_info"])
        return {
            "left": tree_logits(booster, clicks, split.left, shift),
            "holdout": tree_logits(booster, clicks, protocol.holdout, shift),
            "test": tree_logits(booster, clicks, protocol.test, shift),
            "cost": np.array([seconds, used, leaves]),
            "curve": np.array(curve),
            "gain": booster.feature_importance("gain", iteration=used),
        }

    return crossfit(protocol, fit, scratch=scratch, report=report)


def importance_table(folds: Folds, clicks: ReadsClicks, *, most: int = 20) -> pl.DataFrame:
    """Share of the gain that splits on each feature brought, mean and spread over folds."""
    gain = folds.extra["gain"] / np.maximum(folds.extra["gain"].sum(axis=1, keepdims=True), 1e-12)
    table = pl.DataFrame(
        {"feature": feature_names(clicks), "share of gain": gain.mean(0), "spread": gain.std(0)}
    )
    return table.sort("share of gain", descending=True).head(most)
