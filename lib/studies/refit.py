"""Members of a blend trained once more, on all rows that a label is known for.

Nothing is left to choose an epoch by: each model trains as long as its folds found best on
average, and the hold-out of a first fit on the training rows alone says whether that was right.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lib.data.clicks import Clicks
from lib.data.files import write_atomic
from lib.evaluate import ensemble
from lib.evaluate.calibration import Steps, Temperature
from lib.models.ladder import build_click_model, sizes_of
from lib.studies.baseline import save_click_model
from lib.studies.blend import apply
from lib.studies.click_view import ViewSettings, view_clicks
from lib.studies.clicks import balancing_shift, fit_click_model, predict_logits, sigmoid
from lib.studies.climb import read_recipe, resolve_fields
from lib.studies.crossfit import prepare
from lib.studies.gbdt import TreeSettings, boost, tree_logits

__all__ = ["join", "refit"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def refit(
    config: Mapping[str, Any],
    epochs: list[int],
    clicks: Clicks,
    rows: Ints,
    wanted: Ints,
    *,
    folder: Path | None = None,
    device: str = "cpu",
    scratch: Path | None = None,
    report: Callable[..., None] | None = None,
) -> Floats:
    """Train a rung's configuration on ``rows``; logits of the true probability of ``wanted``."""
    passes = max(1, round(float(np.mean(epochs))))
    nothing = np.zeros(0, np.int64)
    if "trees" in config:
        view = view_clicks(clicks, ViewSettings(drop=tuple(config["drop"])))
        settings = replace(TreeSettings(**config["trees"]), rounds=passes)
        booster, _, shift = boost(view, rows, nothing, settings, report=report)
        if folder is not None:
            write_atomic(folder / "trees.txt", booster.model_to_string().encode())
        return tree_logits(booster, view, wanted, shift)
    recipe = read_recipe(config)
    view = view_clicks(clicks, recipe.view)
    sizes = sizes_of(view.layout, max_len=recipe.max_len)
    parameters = resolve_fields(recipe.model, view.layout.fields)
    torch.manual_seed(recipe.plan.seed)
    plan = replace(recipe.plan, epochs=passes, metric=None, patience=None)
    model, _, shift = fit_click_model(
        prepare(build_click_model(recipe.kind, sizes, parameters), view, rows), view, rows, nothing,
        plan, recipe.loss, max_len=recipe.max_len, device=device, scratch=scratch, report=report,
    )  # fmt: skip
    if folder is not None:
        save_click_model(folder, model, recipe.kind, sizes, parameters)
    return predict_logits(model, view, wanted, max_len=recipe.max_len, device=device) + shift


def join(blend: Mapping[str, Any], logits: Mapping[str, Floats], rate: float) -> Floats:
    """The blend of members' logits, calibrated as it was on the ladder.  -> true probabilities"""
    table = []
    for name in blend["members"]:
        told = {key: value for key, value in blend["calibrators"][name].items() if key != "kind"}
        if "logits" in told:
            kind: Any = Steps(**{key: tuple(value) for key, value in told.items()})
        else:
            kind = Temperature(**told)
        table.append(sigmoid(apply(kind, logits[name] + balancing_shift(rate), rate)))
    stacked, weights = np.stack(table), blend["weights"]
    if blend["kind"] == "mean of logits":
        return ensemble.logit_mean(stacked)
    if blend["kind"] == "stacked":
        order = np.array([*(weights[name] for name in blend["members"]), weights["bias"]])
        nothing = np.zeros(stacked.shape[1])
        return ensemble.Stack(out_of_fold=nothing, weights=order)(stacked)
    return ensemble.weighted(stacked, [weights[name] for name in blend["members"]])
