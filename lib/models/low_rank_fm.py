"""A low-rank field-interaction head: the network that circulates as "QNN-α" and is another one.

    z ← norm(flat z)                                    z (B, T, D): T vectors of D numbers
    A = z U_h;   q_h = (Σ_t A_t)² - Σ_t A_t²            (B, R)   per head h; twice the pair sum
    o_h = q_h V_h                                       (B, P)
    inter = drop(o ⊙ SE(z));   logit = MLP([flat z; inter])

    SE(z) = σ(W₂ ReLU(W₁ mean_d z))                     per row: means of its own T vectors

NOTE[DIFF] The public form squeezes over the batch, so that a row's prediction depends on its
neighbours; adds the blocks of ``pair_grouping="block"`` up, so that they cannot be told apart; and
keeps flat z with ``use_residual=False``.  Here: per row, side by side, left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lib.models.dropout import FastDropout
from lib.models.fields import Batch, EmbeddingConfig, Fields, Sizes
from lib.models.mlp import MLP
from lib.models.precision import in_float32, widen

__all__ = ["LowRankFM", "LowRankFMConfig", "LowRankFMHead", "LowRankFMHeadConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LowRankFMHeadConfig:
    """The public configuration: 6 heads, rank 16, projection 192, MLP (512, 256), dropout 0.2,
    squeeze-excitation by 8, pairs over all vectors."""

    n_heads: int
    rank: int
    d_projection: int
    hidden: tuple[int, ...]
    dropout: float
    use_se: bool = True
    se_reduction: int = 8
    use_residual: bool = True
    norm: Literal["rms", "layer", "none"] = "rms"
    pair_grouping: Literal["all", "block"] = "all"

    def __post_init__(self) -> None:
        if min(self.n_heads, self.rank, self.d_projection, self.se_reduction) < 1:
            raise ValueError(f"n_heads={self.n_heads}, rank={self.rank}, d_projection="
                             f"{self.d_projection}, se_reduction={self.se_reduction}: "
                             "each must be 1 or more")  # fmt: skip
        if self.norm not in ("rms", "layer", "none"):
            raise ValueError(f"norm={self.norm!r}: expected rms, layer or none")
        if self.pair_grouping not in ("all", "block"):
            raise ValueError(f"pair_grouping={self.pair_grouping!r}: expected all or block")


class LowRankFMHead(nn.Module):
    """T vectors in blocks (sequence, numbers, missing, categories) to a logit.  (B, T, D) -> (B,)

    >>> config = LowRankFMHeadConfig(n_heads=2, rank=3, d_projection=5, hidden=(8,), dropout=0.0)
    >>> LowRankFMHead((1, 2, 4), 6, config)(torch.zeros(2, 7, 6)).shape
    torch.Size([2])
    """

    def __init__(self, block_sizes: Sequence[int], d: int, config: LowRankFMHeadConfig) -> None:
        super().__init__()
        self.config = config
        n_vectors = sum(block_sizes)
        # Pairs exist only within two or more vectors; a block of one would be a constant zero.
        grouped = [size for size in block_sizes if size > 1]
        self.block_sizes = list(block_sizes) if config.pair_grouping == "block" else [n_vectors]
        n_blocks = len(grouped) if config.pair_grouping == "block" else 1
        if n_blocks == 0:
            raise ValueError(f"blocks of sizes {tuple(block_sizes)} hold no pair: use "
                             "pair_grouping='all'")  # fmt: skip
        h, r, p = config.n_heads, config.rank, config.d_projection
        norms = {"rms": nn.RMSNorm, "layer": nn.LayerNorm}
        width = n_vectors * d
        self.norm = nn.Identity() if config.norm == "none" else norms[config.norm](width)
        self.u = nn.Parameter(torch.empty(d, h * r).normal_(std=0.02))
        self.v = nn.Parameter(torch.empty(n_blocks, h, r, p).normal_(std=0.02))
        n_inner, d_inter = max(1, n_vectors // config.se_reduction), n_blocks * h * p
        self.excite = (
            nn.Sequential(nn.Linear(n_vectors, n_inner), nn.ReLU(), nn.Linear(n_inner, d_inter))
            if config.use_se
            else None
        )
        self.drop = FastDropout(config.dropout)
        self.mlp = MLP(
            d_inter + (width if config.use_residual else 0),
            config.hidden,
            d_out=1,
            dropout=config.dropout,
        )

    def interactions(self, z: Tensor) -> Tensor:
        """Projected pair sums of every block and head.  (B, T, D) -> (B, G·H·P)"""
        with in_float32(z):
            a = z @ self.u  # (B, T, H·R)
            parts = [part for part in a.split(self.block_sizes, dim=1) if part.shape[1] > 1]
            q = torch.stack(
                [part.sum(dim=1).square() - part.square().sum(dim=1) for part in parts], dim=1
            )  # (B, G, H·R)
            q = q.unflatten(2, (self.config.n_heads, self.config.rank))
            o = torch.einsum("bghr,ghrp->bghp", q, self.v).flatten(1)
            return o if self.excite is None else o * self.excite(z.mean(dim=2)).sigmoid()

    def forward(self, tokens: Tensor) -> Tensor:
        flat = widen(self.norm(tokens.flatten(1)))
        inter = self.drop(self.interactions(flat.view_as(tokens)))
        return self.mlp(torch.cat([flat, inter], dim=1) if self.config.use_residual else inter)


@dataclass(frozen=True, kw_only=True, slots=True)
class LowRankFMConfig:
    """Fields, then the head."""

    sizes: Sizes
    embedding: EmbeddingConfig
    head: LowRankFMHeadConfig


class LowRankFM(nn.Module):
    """The head over fields and numbers alone.  A batch to logits.  -> (B,)"""

    def __init__(self, config: LowRankFMConfig) -> None:
        super().__init__()
        self.config, sizes = config, config.sizes
        self.fields = Fields(sizes, config.embedding, linear=False)
        blocks = [size for size in (sizes.n_fields, sizes.n_numeric, sizes.n_missing) if size]
        self.head = LowRankFMHead(blocks, config.embedding.d_embedding, config.head)

    def forward(self, batch: Batch) -> Tensor:
        return self.head(self.fields(batch).tokens)
