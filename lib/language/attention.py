"""A language model's fused attention, in float32 on a CPU.

The kernel's backward takes several times as long in bfloat16 there, a third of a training step; the
products around it follow autocast as ever.  On other devices nothing changes.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

__all__ = ["FUSED"]

FUSED = "sdpa_float32"  # the name under which a model asks for it


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """(B, H, Q, D), (B, G, K, D) twice, (B, 1, Q, K) or none -> (B, Q, H, D)"""
    if query.device.type != "cpu":
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, mask, **options
        )
        return found
    wide = (x.float() if x.dtype == torch.bfloat16 else x for x in (query, key, value))
    with torch.autocast("cpu", enabled=False):
        mixed, _ = sdpa_attention_forward(module, *wide, mask, **options)
    return mixed.to(query.dtype), None


AttentionInterface.register(FUSED, attend)
AttentionMaskInterface.register(FUSED, sdpa_mask)
