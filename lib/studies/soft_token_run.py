"""A trained soft-token recommender on disk: weights, the shape of its trunk, catalogue, two maps.

weights.safetensors    tables, projections, trunk
description.json       what is needed to build them again
catalogue.parquet      key, title and training count of each item, by id
maps.safetensors       history -> user row, title -> item row (lib/studies/soft_token_maps.py)
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, PretrainedConfig

from lib.data.files import forget_manifest, write_manifest
from lib.data.histories import Histories
from lib.language.backbone import add_lora, trunk_of
from lib.models.soft_token import SoftTokenConfig, SoftTokenRecommender
from lib.studies.baseline import load_state, save_state
from lib.studies.soft_token_maps import TITLE_FEATURES, fit_titles, fit_users
from lib.studies.soft_tokens import BackboneKind, recommender, trunk_from_config

__all__ = ["KIND", "SavedRun", "load_run", "save_run"]

KIND = "soft-token-recommender"
NO_WORDS = {"vocab_size": 1, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}


@dataclass(frozen=True)
class SavedRun:
    """A model in ``eval`` with its catalogue and maps."""

    model: SoftTokenRecommender
    keys: list[str]  # by id; entry 0 is empty
    titles: list[str]
    counts: NDArray[np.int64]
    user_map: NDArray[np.float32]  # (d + 1, d)
    title_map: NDArray[np.float32]  # (features + 1, d)
    known_users: NDArray[np.bool_]  # (U,) whose row was trained
    description: dict[str, Any]

    @property
    def filter_seen(self) -> bool:
        return bool(self.description["filter_seen"])


def save_run(
    folder: Path,
    model: SoftTokenRecommender,
    histories: Histories,
    *,
    row: str,
    backbone: BackboneKind,
    lora_rank: int,
    filter_seen: bool,
    ridge: float,
    left_out: NDArray[np.int32] | None = None,
) -> None:
    """Write all that ``load_run`` and ``recommend`` need; the manifest comes last."""
    was_training = model.training
    model.eval()
    titles = getattr(model, "titles", None)
    description = {
        "config": asdict(model.config),
        "trunk": shape_of(model.trunk.config),  # type: ignore[arg-type]
        "row": row,
        "backbone": backbone,
        "lora_rank": lora_rank if backbone == "lora" else 0,
        "title_dims": 0 if titles is None else int(titles.shape[1]),
        "filter_seen": filter_seen,
        "title_features": TITLE_FEATURES,
        "left_out": [] if left_out is None else left_out.tolist(),
    }
    forget_manifest(folder)
    save_state(folder, model, description, KIND)
    forget_manifest(folder)
    rows = model.item_table().detach().float().cpu().numpy()
    users = model.users.weight.detach().float().cpu().numpy()
    known = histories.train_lengths > 0
    if left_out is not None:
        known[left_out] = False
    maps = {
        "known": known.astype(np.uint8),
        "users": fit_users(histories, rows, users, ridge=ridge, left_out=left_out),
        "titles": fit_titles(histories.titles, rows, histories.counts, ridge=ridge),
    }
    save_file(maps, folder / "maps.safetensors")
    pl.DataFrame(
        {"key": histories.item_keys, "title": histories.titles, "count": histories.counts}
    ).write_parquet(folder / "catalogue.parquet")
    write_manifest(folder, KIND, {})
    model.train(was_training)


def shape_of(config: PretrainedConfig) -> dict[str, Any]:
    """A config without the folder it was read from: a result is the same in every place."""
    return {name: value for name, value in config.to_dict().items() if name != "_name_or_path"}


def load_run(folder: Path, *, device: str = "cpu") -> SavedRun:
    """The trained model, in ``eval``; a damaged or absent folder says what makes one."""
    found, weights = load_state(folder, KIND, made_by="30_train_soft_tokens")
    shape = {**found["trunk"], **NO_WORDS}
    config = AutoConfig.for_model(shape.pop("model_type"), **shape)
    causal_lm: Any = trunk_from_config(config, seed=0)
    if found["lora_rank"]:
        rank = int(found["lora_rank"])
        causal_lm = add_lora(causal_lm, rank=rank, alpha=2 * rank, dropout=0.0)
    settings = SoftTokenConfig(**found["config"])
    titles = None
    if found["title_dims"]:
        titles = np.zeros((settings.n_items + 1, found["title_dims"]), dtype=np.float32)
    model = recommender(trunk_of(causal_lm), settings, seed=0, titles=titles)  # type: ignore[arg-type]
    model.load_state_dict(weights)
    catalogue = pl.read_parquet(folder / "catalogue.parquet", memory_map=False)
    maps = load_file(folder / "maps.safetensors")
    return SavedRun(
        model=model.to(device).eval(),
        keys=catalogue["key"].to_list(),
        titles=catalogue["title"].to_list(),
        counts=catalogue["count"].to_numpy().astype(np.int64),
        user_map=maps["users"],
        title_map=maps["titles"],
        known_users=maps["known"].astype(bool),
        description=found,
    )
