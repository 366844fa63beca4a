"""bfloat16 where the device really has it, found by asking the device; float32 otherwise.

The loop runs the loss under `torch.autocast` in the precision found here. The rule for models:
matrix products of an MLP or a transformer follow autocast; sums over many terms (factorisation
machines, pooling), tables and attention stay float32, by switching autocast off locally with
`lib.models.precision.in_float32`; losses cast logits to float32 themselves.
"""

import warnings
from contextlib import AbstractContextManager
from typing import Literal

import torch

__all__ = ["choose_precision", "has_bfloat16", "mixed"]

Precision = Literal["bfloat16", "float32"]


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware, not by emulation."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, lambda: False)() for name in probes)
    return False


def choose_precision(
    wanted: Literal["auto", "bfloat16", "float32"], device: torch.device
) -> Precision:
    """The precision to train in; bfloat16 without hardware works, slowly, and warns."""
    if wanted == "float32":
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
