"""Attention over a set of vectors, through PyTorch's fused kernel, safe for rows without any key.

    A = softmax(Q Kᵀ / sqrt(D/H)) V        per head; keys that do not count get no weight

A row whose keys are all padding returns zeros instead of NaN.  On a CPU the fused product runs in
float32 even under autocast: its backward is twice as slow in bfloat16 there.
"""

import torch
from torch import Tensor, nn

from lib.models.dropout import FastDropout
from lib.models.precision import in_float32, widen

__all__ = ["Attention", "TransformerBlock", "attend"]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    n_heads: int,
    key_mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Multi-head attention of Q queries over L keys.  (B, Q, D), (B, L, D), (B, L, D) -> (B, Q, D)

    ``key_mask`` (B, L) is True where a key counts; ``dropout`` is the rate in force now.

    >>> x = torch.zeros(2, 3, 8)
    >>> attend(x[:, :1], x, x, n_heads=4, key_mask=torch.zeros(2, 3, dtype=torch.bool)).sum()
    tensor(0.)
    """
    by_hand = dropout > 0 and key.device.type == "cpu"
    if not by_hand and key.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        query, key, value = query.float(), key.float(), value.float()
    q, k, v = (part.unflatten(-1, (n_heads, -1)).transpose(1, 2) for part in (query, key, value))
    mask = None
    if key_mask is not None:
        some = key_mask.any(dim=1, keepdim=True)  # (B, 1)
        mask = (key_mask | ~some)[:, None, None]  # an empty row looks everywhere, then is zeroed
    if by_hand:
        mixed = _attend_with_dropout(q, k, v, mask, dropout)
    else:
        with in_float32(q):
            mixed = nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout
            )
    out = mixed.transpose(1, 2).flatten(2)
    return out if key_mask is None else out * some[:, :, None]


def _attend_with_dropout(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float
) -> Tensor:
    """Dropout leaves the fused kernel on a CPU anyway; two products and a cheap dropout are faster
    there, and follow autocast.  (B, H, Q, D/H), (B, H, L, D/H) twice -> (B, H, Q, D/H)"""
    scores = widen((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2))
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return FastDropout(dropout)(scores.softmax(dim=-1).to(v.dtype)) @ v


class Attention(nn.Module):
    """Projections around ``attend``.  (B, Q, D), (B, L, D) -> (B, Q, D)

    One matrix holds W_q, W_k and W_v, so that attending to oneself is one product.
    """

    def __init__(self, d: int, *, n_heads: int, dropout: float) -> None:
        super().__init__()
        if d % n_heads:
            raise ValueError(f"d={d} must be a multiple of n_heads={n_heads}")
        self.d, self.n_heads, self.dropout = d, n_heads, dropout
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        with torch.no_grad():
            bound = d**-0.5
            self.qkv.weight.uniform_(-bound, bound)
            self.qkv.bias.zero_()
            self.out.bias.zero_()

    def forward(
        self, x: Tensor, *, n_queries: int | None = None, key_mask: Tensor | None = None
    ) -> Tensor:
        """Only the first ``n_queries`` positions ask, all of them answer."""
        if n_queries is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        else:
            weight, bias, d = self.qkv.weight, self.qkv.bias, self.d
            q = nn.functional.linear(x[:, :n_queries], weight[:d], bias[:d])
            k, v = nn.functional.linear(x, weight[d:], bias[d:]).chunk(2, dim=-1)
        rate = self.dropout if self.training else 0.0
        return self.out(attend(q, k, v, n_heads=self.n_heads, key_mask=key_mask, dropout=rate))


class TransformerBlock(nn.Module):
    """x + Attention(norm(x)), then x + FFN(norm(x)), GELU inside.  (B, L, D) -> (B, L, D)

    >>> TransformerBlock(8, n_heads=2, d_hidden=16, dropout=0.0)(torch.zeros(2, 3, 8)).shape
    torch.Size([2, 3, 8])
    """

    def __init__(self, d: int, *, n_heads: int, d_hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention, self.norm_inner = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attention = Attention(d, n_heads=n_heads, dropout=0.0)  # stays on the fused path
        self.inner = nn.Sequential(
            nn.Linear(d, d_hidden), nn.GELU(), FastDropout(dropout), nn.Linear(d_hidden, d)
        )
        self.drop = FastDropout(dropout)

    def forward(self, x: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        x = x + self.drop(self.attention(self.norm_attention(x), key_mask=key_mask))
        return x + self.drop(self.inner(self.norm_inner(x)))
