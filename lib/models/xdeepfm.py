"""xDeepFM: compressed interaction network beside a linear and a deep part (Lian et al., KDD 2018).

    X^k_h = Σ_{i,j} W^k_{h,ij} (X^{k-1}_i ⊙ X^0_j) + b^k_h      (B, H_k, D)     Eq. 6
    p^k_h = Σ_d X^k_{h,d}                                        (B, H_k)        Eq. 7
    logit = linear + w · [p^1; …; p^K] + MLP(flat(e))

This is the form without activation and without split, as in FuxiCTR: of the public ones it is the
one whose numbers BARS lists.  NOTE[DIFF] What follows from it, exactly: nothing is fed by the last
layer but its sum over D, and Σ_d X_i,d X^0_j,d is a product of two matrices, so that layer costs
D times less than Eq. 6 written out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lib.models.fields import Batch, EmbeddingConfig, Fields, Sizes
from lib.models.mlp import MLP, Activation, Norm, start_linear
from lib.models.precision import in_float32, widen

__all__ = ["CompressedInteraction", "XDeepFM", "XDeepFMConfig"]

PAIRS_AT_ONCE = 2**28  # numbers in the largest tensor of products; 1 GiB in float32


@dataclass(frozen=True, kw_only=True, slots=True)
class XDeepFMConfig:
    """BARS on Avazu_x4: maps (276,), hidden (500,) * 3.  ``maps``: size of each CIN layer."""

    sizes: Sizes
    embedding: EmbeddingConfig
    maps: tuple[int, ...]
    hidden: tuple[int, ...]
    dropout: float
    norm: Norm = "none"
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        if not self.maps or min(self.maps) < 1:
            raise ValueError(f"maps={self.maps}: expected one or more layers of 1 or more maps")


class CompressedInteraction(nn.Module):
    """CIN without activation or split, Eqs. 6 and 7.  (B, F, D) -> (B, sum(maps))

    >>> CompressedInteraction(n_fields=3, maps=(4, 2))(torch.zeros(5, 3, 8)).shape
    torch.Size([5, 6])
    """

    def __init__(self, *, n_fields: int, maps: Sequence[int]) -> None:
        super().__init__()
        self.n_fields = n_fields
        self.layers = nn.ModuleList(
            nn.Linear(width * n_fields, n_maps)
            for width, n_maps in zip((n_fields, *maps[:-1]), maps, strict=True)
        )

    def forward(self, e: Tensor) -> Tensor:
        widest = max((cast(nn.Linear, layer).in_features for layer in self.layers[:-1]), default=1)
        n_rows = max(1, PAIRS_AT_ONCE // (e.shape[2] * widest))
        if n_rows >= len(e):
            return self._cross(e)
        parts = e.split(n_rows)
        if not torch.is_grad_enabled():
            return torch.cat([self._cross(part) for part in parts])
        # The pairs of 118 columns at batch 4,096 would take 3.6 GB until the backward pass; made
        # again there, they take what one part needs.
        return torch.cat([checkpoint(self._cross, part, use_reentrant=False) for part in parts])

    def _cross(self, e: Tensor) -> Tensor:
        n_rows, _, d = e.shape
        low = torch.is_autocast_enabled(e.device.type)
        # The products feed a matrix product that autocast would narrow anyway; narrow first.
        x0 = e.to(torch.get_autocast_dtype(e.device.type)) if low else e
        x0 = x0.transpose(1, 2).contiguous()  # (B, D, F): then every layer is one product
        x, pooled = x0, []
        for layer in self.layers[:-1]:
            pairs = (x[..., :, None] * x0[..., None, :]).view(n_rows * d, -1)  # (B·D, I·F)
            x = layer(pairs).view(n_rows, d, -1)  # (B, D, H)
            pooled.append(widen(x).sum(dim=1))
        last = cast(nn.Linear, self.layers[-1])
        pairs = torch.bmm(x.transpose(1, 2), x0).flatten(1)  # (B, I·F), summed over D already
        pooled.append(widen(nn.functional.linear(pairs, last.weight)) + d * last.bias)
        return torch.cat(pooled, dim=1)


class XDeepFM(nn.Module):
    """A batch to logits.  -> (B,)

    >>> config = XDeepFMConfig(
    ...     sizes=Sizes(n_ids=9, n_fields=2), embedding=EmbeddingConfig(d_embedding=4),
    ...     maps=(3, 3), hidden=(8,), dropout=0.0)
    >>> XDeepFM(config)({"categorical": torch.tensor([[1, 8], [0, 3]])}).shape
    torch.Size([2])
    """

    def __init__(self, config: XDeepFMConfig) -> None:
        super().__init__()
        n_positions, d = config.sizes.n_positions, config.embedding.d_embedding
        self.config = config
        self.fields = Fields(config.sizes, config.embedding)
        self.cin = CompressedInteraction(n_fields=n_positions, maps=config.maps)
        self.cin_head = nn.Linear(sum(config.maps), 1)
        self.mlp = MLP(
            n_positions * d,
            config.hidden,
            d_out=1,
            activation=config.activation,
            norm=config.norm,
            dropout=config.dropout,
        )
        self.apply(start_linear)

    def forward(self, batch: Batch) -> Tensor:
        e, linear = self.fields(batch)
        deep = self.mlp(e.flatten(1))
        crossed = self.cin(e)
        with in_float32(e):
            return linear + self.cin_head(crossed)[:, 0] + deep
