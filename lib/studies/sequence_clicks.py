"""The sequence-aware click model in notebooks: its parameters, its logs, its checkpoints again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl
from safetensors.torch import load_file
from torch import nn

from lib.data.clicks import Clicks
from lib.data.files import open_manifest, read_json, write_atomic
from lib.models.ladder import ClickModelKind, build_click_model, sizes_of
from lib.studies.click_view import ReadsClicks, view_clicks
from lib.studies.clicks import predict_logits
from lib.studies.climb import Recipe, read_recipe, resolve_fields

__all__ = ["Checkpoints", "open_checkpoints", "sequence_model", "without_covisits",
           "write_train_log"]  # fmt: skip

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
COVISITS = "covisit:*"  # names of the co-visit columns
WEIGHTS = "weights.safetensors"


def sequence_model(
    encoder: Mapping[str, Any],
    transformer: Mapping[str, Any],
    head: Mapping[str, Any],
    auxiliary: Mapping[str, Any],
    *,
    d_embedding: int,
    dropout: float,
    max_len: int,
) -> tuple[ClickModelKind, dict[str, Any], float]:
    """Kind and parameters for ``build_click_model``, and the weight of the auxiliary loss.

    ``max_len`` 0 leaves the history out: the head alone, over fields and numbers.
    """
    if not max_len:
        plain = {key: value for key, value in head.items() if key != "kind"}
        return head["kind"], {**plain, "d_embedding": d_embedding}, 0.0
    if auxiliary.keys() != {"hidden", "weight"}:
        raise ValueError(f"auxiliary={dict(auxiliary)}: expected the keys hidden and weight")
    hidden, weight = list(auxiliary["hidden"]), float(auxiliary["weight"])
    if not hidden or not weight:
        hidden, weight = [], 0.0
    twice = sorted(encoder.keys() & transformer.keys())
    if twice:
        raise ValueError(f"{twice} stand in both `encoder` and `transformer`; keep one of each")
    model = {
        **encoder, **transformer, "head": dict(head), "d_embedding": d_embedding,
        "dropout": dropout, "auxiliary_hidden": hidden or None,
    }  # fmt: skip
    return "dare", model, weight


def without_covisits(clicks: Clicks, drop: Sequence[str], covisits: bool) -> tuple[str, ...]:
    """Patterns of numeric columns to leave out, the co-visit features among them if not wanted."""
    there = any(name.startswith(COVISITS.rstrip("*")) for name in clicks.layout.numeric_names)
    return (*drop, COVISITS) if there and not covisits else tuple(drop)


def write_train_log(path: Path, scratch: Path, names: Mapping[str, str]) -> None:
    """One CSV of every validation: variant, fold, then what the training loop recorded."""
    found = []
    for folder, name in names.items():
        for fold in sorted((scratch / folder).glob("fold-*")):
            history = pl.read_csv(fold / "model" / "history.csv", infer_schema_length=None)
            number = int(fold.name.removeprefix("fold-"))
            found.append(history.select(pl.lit(name).alias("variant"), pl.lit(number).alias("fold"),
                                        pl.all()))  # fmt: skip
    log = pl.concat(found, how="diagonal_relaxed")
    write_atomic(path, lambda file: log.write_csv(file))


@dataclass(frozen=True)
class Checkpoints:
    """The models of a rung, one per fold, and the view of the data that they read."""

    recipe: Recipe
    clicks: ReadsClicks
    models: tuple[nn.Module, ...]
    shifts: tuple[float, ...]  # from each model's logit to that of the true probability

    def logits(self, rows: Ints, *, device: str = "cpu") -> Floats:
        """What each fold's model says of rows, as logits of the true probability.  -> (K, N)"""
        return np.stack(
            [
                predict_logits(
                    model.to(device), self.clicks, rows, max_len=self.recipe.max_len, device=device
                )
                + shift
                for model, shift in zip(self.models, self.shifts, strict=True)
            ]
        )


def open_checkpoints(folder: Path, clicks: Clicks) -> Checkpoints:
    """Build the models of a rung's folder again and load their weights."""
    try:
        open_manifest(folder, "rung", hashes=True)
    except (OSError, ValueError) as error:
        raise no_checkpoints(folder, str(error)) from error
    config = cast(dict[str, Any], read_json(folder / "config.json"))
    files = sorted(folder.glob(f"models/fold-*/{WEIGHTS}"))
    if not files or "kind" not in config:
        raise no_checkpoints(folder, f"no models/fold-*/{WEIGHTS}")
    recipe = read_recipe(config)
    view = view_clicks(clicks, recipe.view)
    sizes = sizes_of(view.layout, max_len=recipe.max_len)
    parameters = resolve_fields(recipe.model, view.layout.fields)
    models, shifts = [], []
    for file in files:
        model = build_click_model(recipe.kind, sizes, parameters)
        try:
            model.load_state_dict(load_file(file))
        except RuntimeError as error:
            raise ValueError(
                f"{file.parent.name} of {folder.name!r} was trained on another dataset or with "
                f"other sizes; train it on this one ({error})"
            ) from error
        models.append(model.eval())
        told = cast(dict[str, float], read_json(file.with_name("output.json")))
        shifts.append(told["shift_to_true_logit"])
    return Checkpoints(recipe, view, tuple(models), tuple(shifts))


def no_checkpoints(folder: Path, why: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"no checkpoints found in {folder.name!r} ({why}). 60_train_dare_qnn trains them: "
        "python run_all.py PROFILE --until NODE, with the node of that notebook"
    )
