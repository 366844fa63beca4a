"""QNN-α: quadratic neurons without an activation on their product (KDD 2025, arXiv 2505.17999).

    h = drop(ReLU(norm(W x + b)))                 (B, H, R, F·D/H)    "mid-activation", R rows
    y = x_H ⊙ Σ_r h_r + x                         x_H: each field's vector split into H heads
    logit = w · x_L + b                           after L layers, no other activation

With H = 1:  y = x ⊙ Σ_r ReLU(W_r x + b_r) + x.  Since x_H does not depend on r, the multi-head
Khatri-Rao product summed over r is one product with the sum.
NOTE[DIFF] For H > 1 the published code adds heads-first y to fields-first x, a fixed permutation
apart.  Here y is put back in x's order; ``literal=True`` keeps the published order.

Self-ensemble (training only): two dropout passes over the same embeddings, ``two_passes``;
the loss is in lib/train/losses.py.  Inference is one pass.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from lib.models.dropout import FastDropout
from lib.models.fields import Batch, EmbeddingConfig, Fields, Sizes
from lib.models.mlp import BatchNorm, Norm, start_linear
from lib.models.precision import in_float32, widen

__all__ = ["QNNAlpha", "QNNConfig", "QNNHead", "QNNHeadConfig", "QuadraticLayer"]


@dataclass(frozen=True, kw_only=True, slots=True)
class QNNHeadConfig:
    """Criteo: 4 layers, 5 rows, 1 head; Frappe: 2 layers, 13 rows; dropout 0.1 in both."""

    n_layers: int
    n_rows: int
    n_heads: int
    dropout: float
    norm: Norm = "none"
    literal: bool = False

    def __post_init__(self) -> None:
        if min(self.n_layers, self.n_rows, self.n_heads) < 1:
            raise ValueError(f"n_layers={self.n_layers}, n_rows={self.n_rows}, "
                             f"n_heads={self.n_heads}: each must be 1 or more")  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class QNNConfig:
    """Fields, then the head; D must be a multiple of the head's ``n_heads``."""

    sizes: Sizes
    embedding: EmbeddingConfig
    head: QNNHeadConfig


class QuadraticLayer(nn.Module):
    """x ⊙ Σ_r ReLU(W_r x + b_r) + x, in H heads.  (B, F·D) -> (B, F·D)

    >>> import torch
    >>> config = QNNHeadConfig(n_layers=1, n_rows=5, n_heads=2, dropout=0.0)
    >>> QuadraticLayer(3, 4, config)(torch.zeros(2, 12)).shape
    torch.Size([2, 12])
    """

    def __init__(self, n_fields: int, d: int, config: QNNHeadConfig) -> None:
        super().__init__()
        if d % config.n_heads:
            raise ValueError(f"d={d} must be a multiple of n_heads={config.n_heads}")
        self.config, self.n_fields = config, n_fields
        width = n_fields * d
        self.linear = nn.Linear(width, config.n_rows * width)
        self.norm: nn.Module = nn.Identity()
        if config.norm != "none":
            kind = BatchNorm if config.norm == "batch" else nn.LayerNorm
            self.norm = kind(config.n_rows * width)
        self.drop = FastDropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        n_heads, n_rows = self.config.n_heads, self.config.n_rows
        h = self.drop(self.norm(self.linear(x)).relu())
        gate = widen(h).view(len(x), n_heads, n_rows, -1).sum(dim=2)  # (B, H, F·D/H)
        if n_heads == 1:
            return x * gate[:, 0] + x
        split = (self.n_fields, n_heads, -1)
        heads = x.unflatten(1, split).transpose(1, 2).flatten(2)  # (B, H, F·D/H)
        y = heads * gate
        if not self.config.literal:
            y = y.unflatten(2, (self.n_fields, -1)).transpose(1, 2)  # (B, F, H, D/H), as x is
        return y.flatten(1) + x


class QNNHead(nn.Module):
    """L quadratic layers, then one linear.  (B, F, D) -> (B,)"""

    def __init__(self, n_fields: int, d: int, config: QNNHeadConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            QuadraticLayer(n_fields, d, config) for _ in range(config.n_layers)
        )
        self.drop = FastDropout(config.dropout)
        self.output = nn.Linear(n_fields * d, 1)
        self.apply(start_linear)

    def forward(self, tokens: Tensor) -> Tensor:
        x = tokens.flatten(1)
        for index, layer in enumerate(self.layers):
            x = layer(x if index == 0 else self.drop(x))
        with in_float32(x):
            return self.output(x)[:, 0]


class QNNAlpha(nn.Module):
    """A batch to logits.  -> (B,)

    >>> import torch
    >>> config = QNNConfig(
    ...     sizes=Sizes(n_ids=9, n_fields=2), embedding=EmbeddingConfig(d_embedding=4),
    ...     head=QNNHeadConfig(n_layers=2, n_rows=3, n_heads=1, dropout=0.1))
    >>> QNNAlpha(config)({"categorical": torch.tensor([[1, 8], [0, 3]])}).shape
    torch.Size([2])
    """

    def __init__(self, config: QNNConfig) -> None:
        super().__init__()
        self.config = config
        self.fields = Fields(config.sizes, config.embedding, linear=False)
        self.head = QNNHead(config.sizes.n_positions, config.embedding.d_embedding, config.head)

    def forward(self, batch: Batch) -> Tensor:
        return self.head(self.fields(batch).tokens)

    def two_passes(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of two dropout passes over the same embeddings.  -> (B,), (B,)"""
        tokens = self.fields(batch).tokens
        return self.head(tokens), self.head(tokens)
