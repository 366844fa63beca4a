"""bfloat16 where the device really has it and the model is wide enough; float32 otherwise.

The loop runs the loss under `torch.autocast` in the precision found here. The rule for models:
matrix products of an MLP or a transformer follow autocast; sums over many terms (factorisation
machines, pooling), tables and attention stay float32, by switching autocast off locally with
`lib.models.precision.in_float32`; losses cast logits to float32 themselves.

A CPU loses by bfloat16 where products are narrow, because every one of them rounds its operands
first. Forward and backward of a square layer with 2,048 rows, one thread, CPU time in float32 over
that in bfloat16: .73 at width 16, .84 at 32, .99 at 64, 1.15 at 96, 1.49 at 128, 1.96 at 256, 2.51
at 512; with 256 rows .61 at width 64, .86 at 128, 1.47 at 256. SASRec of width 64 is 1.9 times as
fast in float32.
"""

import warnings
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import nn

from lib.models.tables import Table

__all__ = ["choose_precision", "has_bfloat16", "mixed", "product_width"]

Precision = Literal["bfloat16", "float32"]
WIDE = 128  # columns from which bfloat16 products pay on a CPU


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware, not by emulation."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, lambda: False)() for name in probes)
    return False


def product_width(model: nn.Module) -> float:
    """How wide products are: the shorter side of the matrices, averaged over their numbers.

    >>> product_width(nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 16), nn.Embedding(1000, 4)))
    13.33...
    """
    owners = (m for m in model.modules() if not isinstance(m, nn.Embedding | Table))
    weights = {id(p): p for m in owners for p in m.parameters(recurse=False) if p.dim() > 1}
    numbers = sum(weight.numel() for weight in weights.values())
    wide = sum(weight.numel() * min(weight.shape[-2:]) for weight in weights.values())
    return wide / max(numbers, 1)


def choose_precision(
    wanted: Literal["auto", "bfloat16", "float32"], device: torch.device, model: nn.Module
) -> Precision:
    """The precision to train in; bfloat16 without hardware works, slowly, and warns."""
    if wanted == "float32":
        return "float32"
    if wanted == "auto" and device.type == "cpu" and product_width(model) < WIDE:
        return "float32"
    if has_bfloat16(device):
        return "bfloat16"
    if wanted == "bfloat16":
        warnings.warn(
            f"precision='bfloat16' on {device}, which emulates it and will be slow; "
            "use 'auto' to fall back to float32",
            stacklevel=2,
        )
        return "bfloat16"
    return "float32"


def mixed(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Autocast of matrix products on ``device``, or nothing at all for float32."""
    return torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=True
    )
