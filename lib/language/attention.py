"""A language model's attention: fused, in float32 on a CPU, and to one prompt shared by all rows.

The fused kernel's backward takes several times as long in bfloat16 on a CPU, a third of a training
step; the products around it follow autocast as ever.  On other devices nothing changes.

Keys that carry a ``prompt`` stand behind it.  Every row asks the same prompt, so all rows ask it in
one product, and no row has a copy of its keys and values, neither forward nor for backward:

    scores   [q kᵀ of the prompt | q kᵀ of the row's own tokens]      one softmax over both
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

__all__ = ["FUSED", "behind_prompt"]

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
    prompt = getattr(key, "prompt", None)  # a layer of lib.language.prompt_cache
    is_cpu, narrow = query.device.type == "cpu", query.dtype
    if is_cpu:  # autocast leaves some of them long
        query, key, value = (x.float() if x.dtype == torch.bfloat16 else x
                             for x in (query, key, value))  # fmt: skip
    with torch.autocast("cpu", enabled=False) if is_cpu else nullcontext():
        if prompt is None:
            mixed, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        else:
            prompt.asked = True
            stored = prompt.keys, prompt.values
            scaling, dropout = options.get("scaling"), options.get("dropout", 0.0)
            mixed = behind_prompt(query, key, value, stored, mask, scaling, dropout)
    return mixed.to(narrow), None


def behind_prompt(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prompt: tuple[Tensor, Tensor],
    mask: Tensor | None,
    scaling: float | None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of rows to one prompt and, causally, to their own tokens.

    (B, H, S, D), (B, G, S, D) twice, (1, G, P, D) twice, (B, 1, S, P + S) or none -> (B, S, H, D)
    """
    n_rows, n_heads, n_own, width = query.shape
    n_groups, n_prompt = prompt[0].shape[1:3]
    told, said = (part[0].to(query.dtype) for part in prompt)  # (G, P, D)
    shape = n_rows, n_heads // n_groups, n_own
    asked = query.unflatten(1, (n_groups, -1)) * (scaling or width**-0.5)  # (B, G, H/G, S, D)
    far = (asked.transpose(0, 1).flatten(1, 3) @ told.mT).unflatten(1, shape).transpose(0, 1)
    near = (asked.flatten(2, 3) @ key.mT).unflatten(2, shape[1:])
    if mask is None:  # the whole prompt, and the row's own tokens up to itself
        seen = torch.ones(n_own, n_prompt + n_own, dtype=torch.bool, device=query.device)
        mask = seen.tril(n_prompt)[None, None]
    scores = torch.cat([far, near], dim=-1).masked_fill(~mask[:, :, None], float("-inf"))
    precise = torch.promote_types(query.dtype, torch.float32)
    weights = scores.softmax(-1, dtype=precise).to(query.dtype)
    weights = nn.functional.dropout(weights, dropout) if dropout else weights
    far, near = weights.split([n_prompt, n_own], dim=-1)
    mixed = (far.transpose(0, 1).flatten(1, 3) @ said).unflatten(1, shape).transpose(0, 1)
    mixed = mixed + (near.flatten(2, 3) @ value).unflatten(2, shape[1:])
    return mixed.flatten(1, 2).transpose(1, 2)


AttentionInterface.register(FUSED, attend)
AttentionMaskInterface.register(FUSED, sdpa_mask)
