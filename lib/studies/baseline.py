"""Click models that other notebooks build on: saved whole, loaded with a clear word if absent."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lib.data.files import open_manifest, read_json, write_json, write_manifest
from lib.models.fields import Sizes
from lib.models.ladder import ClickModelKind, build_click_model

__all__ = ["inspect_parameters", "load_click_model", "load_state", "save_click_model", "save_state"]

KIND = "click-model"


def save_state(folder: Path, model: nn.Module, description: Mapping[str, Any], kind: str) -> None:
    """Weights as safetensors, description as JSON, manifest last."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous().clone()
             for name, tensor in model.state_dict().items()}  # fmt: skip
    save_file(state, folder / "weights.safetensors")
    write_json(folder / "description.json", dict(description))
    write_manifest(folder, kind, {})


def load_state(
    folder: Path, kind: str, *, made_by: str
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Description and weights; an absent or damaged folder says which notebook makes it."""
    try:
        open_manifest(folder, kind, hashes=True)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"no trained {kind} at {folder.name!r} ({error}). Train it with {made_by}: "
            "python run_all.py PROFILE --until NODE"
        ) from error
    description = cast(dict[str, Any], read_json(folder / "description.json"))
    return description, load_file(folder / "weights.safetensors")


def save_click_model(
    folder: Path,
    model: nn.Module,
    kind: ClickModelKind,
    sizes: Sizes,
    parameters: Mapping[str, Any],
) -> None:
    """Keep a trained model with what is needed to build it again."""
    description = {"kind": kind, "sizes": asdict(sizes), "parameters": dict(parameters)}
    save_state(folder, model, description, KIND)


def load_click_model(folder: Path) -> nn.Module:
    """The trained model, in ``eval``."""
    found, weights = load_state(folder, KIND, made_by="40_train_deepfm_baseline")
    sizes: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value
             for name, value in found["sizes"].items()}  # fmt: skip
    model = build_click_model(found["kind"], Sizes(**sizes), found["parameters"])
    model.load_state_dict(weights)
    return model.eval()


def inspect_parameters(model: nn.Module) -> list[dict[str, object]]:
    """One line per tensor of a checkpoint: name, shape, numbers, mean, spread, share of zeros."""
    return [
        {
            "tensor": name,
            "shape": "×".join(map(str, tensor.shape)) or "1",
            "numbers": tensor.numel(),
            "mean": float(tensor.float().mean()),
            "spread": float(tensor.float().var(correction=0).sqrt()) if tensor.numel() > 1 else 0.0,
            "zeros": float((tensor == 0).float().mean()),
        }
        for name, tensor in model.state_dict().items()
    ]
