"""DCN V2: deep and cross network with full or low-rank weights (Wang et al., WWW 2021).

    x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l                                  full weights
    x_{l+1} = x_0 ⊙ (Σ_k p_k U_k tanh(C_k tanh(V_kᵀ x_l)) + b_l) + x_l     low rank, K experts
              p = softmax(G_l x_l)

    structure   logit = w · …
    cross       x_L
    stacked     MLP(x_L)
    parallel    [x_L ; MLP(x_0)]                       the best one in BARS
    stacked_parallel   [MLP(x_L) ; MLP'(x_0)]

NOTE[DIFF] Low rank: x_0 ⊙ is linear, so the experts are mixed before the product with U instead of
after it (the same number), and each layer has its own gate; DeepCTR-Torch shares one.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lib.models.fields import Batch, EmbeddingConfig, Fields, Sizes
from lib.models.mlp import MLP, Activation, Norm, start_linear
from lib.models.precision import in_float32, widen

__all__ = ["CrossLayer", "DCNv2", "DCNv2Config", "LowRankCrossLayer"]

Structure = Literal["cross", "stacked", "parallel", "stacked_parallel"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DCNv2Config:
    """``rank`` None means full weights; with a rank, ``n_experts`` of them are mixed."""

    sizes: Sizes
    embedding: EmbeddingConfig
    n_cross: int
    hidden: tuple[int, ...]
    dropout: float
    structure: Structure = "parallel"
    norm: Norm = "none"
    activation: Activation = "relu"
    rank: int | None = None
    n_experts: int = 4

    def __post_init__(self) -> None:
        if self.n_cross < 1:
            raise ValueError(f"n_cross={self.n_cross}: expected 1 or more cross layers")
        if self.structure not in get_args(Structure):
            raise ValueError(f"structure={self.structure!r}: expected one of {get_args(Structure)}")
        if self.structure != "cross" and not self.hidden:
            raise ValueError(f"structure={self.structure!r} has a deep part: hidden is empty")
        if self.rank is not None and (self.rank < 1 or self.n_experts < 1):
            raise ValueError(f"rank={self.rank}, n_experts={self.n_experts}: expected 1 or more")


class CrossLayer(nn.Module):
    """x_0 ⊙ (W x + b) + x.  (B, D), (B, D) -> (B, D)

    >>> CrossLayer(6)(torch.zeros(2, 6), torch.zeros(2, 6)).shape
    torch.Size([2, 6])
    """

    def __init__(self, d: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d, d)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        return torch.addcmul(x, x0, widen(self.linear(x)))


class LowRankCrossLayer(nn.Module):
    """A softmax mixture of low-rank cross layers.  (B, D), (B, D) -> (B, D)

    >>> LowRankCrossLayer(6, rank=2, n_experts=3)(torch.zeros(2, 6), torch.zeros(2, 6)).shape
    torch.Size([2, 6])
    """

    def __init__(self, d: int, *, rank: int, n_experts: int) -> None:
        super().__init__()
        shape = n_experts, d, rank
        self.u = nn.Parameter(nn.init.xavier_normal_(torch.empty(shape)))
        self.v = nn.Parameter(nn.init.xavier_normal_(torch.empty(shape)))
        self.c = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_experts, rank, rank)))
        self.gate = nn.Linear(d, n_experts, bias=False)
        self.bias = nn.Parameter(torch.zeros(d))

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        inner = torch.tanh(torch.einsum("bd,kdr->bkr", x, self.v))
        inner = torch.tanh(torch.einsum("bkr,kqr->bkq", inner, self.c))
        share = self.gate(x).softmax(dim=-1)  # (B, K)
        mixed = torch.einsum("bkr,kdr->bd", inner * share[:, :, None], self.u)
        return torch.addcmul(x, x0, widen(mixed) + self.bias)


class DCNv2(nn.Module):
    """A batch to logits.  -> (B,)

    >>> config = DCNv2Config(
    ...     sizes=Sizes(n_ids=9, n_fields=2), embedding=EmbeddingConfig(d_embedding=4),
    ...     n_cross=3, hidden=(8,), dropout=0.0)
    >>> DCNv2(config)({"categorical": torch.tensor([[1, 8], [0, 3]])}).shape
    torch.Size([2])
    """

    def __init__(self, config: DCNv2Config) -> None:
        super().__init__()
        self.config = config
        self.fields = Fields(config.sizes, config.embedding, linear=False)
        width = config.sizes.n_positions * config.embedding.d_embedding
        self.cross = nn.ModuleList(
            CrossLayer(width)
            if config.rank is None
            else LowRankCrossLayer(width, rank=config.rank, n_experts=config.n_experts)
            for _ in range(config.n_cross)
        )
        self.stacked = self._build_mlp(width) if "stacked" in config.structure else None
        self.parallel = self._build_mlp(width) if "parallel" in config.structure else None
        d_crossed = width if self.stacked is None else self.stacked.d_hidden
        d_deep = 0 if self.parallel is None else self.parallel.d_hidden
        self.head = nn.Linear(d_crossed + d_deep, 1)
        self.apply(start_linear)

    def _build_mlp(self, width: int) -> MLP:
        config = self.config
        return MLP(
            width,
            config.hidden,
            d_out=None,
            activation=config.activation,
            norm=config.norm,
            dropout=config.dropout,
        )

    def forward(self, batch: Batch) -> Tensor:
        x0 = self.fields(batch).tokens.flatten(1)
        x = x0
        for layer in self.cross:
            x = layer(x0, x)
        parts = [x if self.stacked is None else self.stacked(x)]
        if self.parallel is not None:
            parts.append(self.parallel(x0))
        with in_float32(x0):
            return self.head(torch.cat([widen(part) for part in parts], dim=1))[:, 0]
