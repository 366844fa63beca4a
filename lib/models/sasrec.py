"""SASRec: Self-Attentive Sequential Recommendation (Kang and McAuley, ICDM 2018).

    x_t = drop(norm(E[i_t]) + P_t)            items i_1 … i_L, oldest first, right-padded with 0
    x  ← x + Attention(norm(x))               causal: position t sees 1 … t
    x  ← x + FeedForward(norm(x))
    h_t = norm(x_t);   s(t, j) = h_t · E[j]   or, cosine:  cos(h_t, E[j]) / τ

NOTE[DIFF] Full cross-entropy over the catalogue at every position instead of one sampled negative
(Klenitskiy and Vasilev, RecSys 2023), norms before the blocks instead of after, GELU.
The cosine form with a temperature is what makes the ID model strong on sparse data.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from lib.models.dropout import FastDropout
from lib.models.precision import widen

__all__ = ["SASRec", "SASRecConfig", "next_item_loss"]


class Criterion(Protocol):
    """Cross-entropy of states against rows of a table: (N, D), (V, D), (N,) -> ()"""

    def __call__(self, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SASRecConfig:
    """Sizes and the kind of score; ``temperature`` is used by the cosine alone."""

    n_dims: int
    n_layers: int
    n_heads: int
    d_inner: int
    max_len: int
    dropout: float
    score: Literal["dot", "cosine"]
    temperature: float = 1.0
    norm_items: bool = True

    def __post_init__(self) -> None:
        if self.n_dims % self.n_heads:
            raise ValueError(f"n_dims={self.n_dims} must be a multiple of n_heads={self.n_heads}")
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be above zero")


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and added to its input."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        d = config.n_dims
        self.n_heads = config.n_heads
        self.norm_attention, self.norm_inner = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.inner = nn.Sequential(
            nn.Linear(d, config.d_inner), nn.GELU(), nn.Linear(config.d_inner, d)
        )
        self.drop = FastDropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)"""
        q, k, v = self._split(self.qkv(self.norm_attention(x)))
        # No mask for the padding: it stands at the right, where causal queries never look.
        x = x + self.drop(self.out(self._attend(q, k, v, mask=None)))
        return x + self.drop(self.inner(self.norm_inner(x)))

    def last(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The block at each row's last position only.  (B, L, D), (B,) -> (B, D)"""
        rows = torch.arange(len(x), device=x.device)
        own = x[rows, lengths - 1]
        q, k, v = self._split(self.qkv(self.norm_attention(x)))
        q = q[rows, :, lengths - 1][:, :, None]
        mask = torch.arange(x.shape[1], device=x.device)[None, :] < lengths[:, None]
        own = own + self.out(self._attend(q, k, v, mask=mask[:, None, None]))[:, 0]
        return own + self.inner(self.norm_inner(own))

    def _split(self, qkv: Tensor) -> list[Tensor]:
        n_rows, length, width = qkv.shape
        heads = qkv.view(n_rows, length, 3, self.n_heads, width // 3 // self.n_heads)
        return [part.transpose(1, 2) for part in heads.unbind(2)]  # each (B, H, L, D/H)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        # float32: the backward of fused attention in bfloat16 is twice as slow on a CPU, and no
        # attention dropout: it would leave the fused path.
        with torch.autocast(q.device.type, enabled=False):
            if q.device.type == "cpu":
                q, k, v = widen(q), widen(k), widen(v)
            mixed = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None
            )
        return mixed.transpose(1, 2).flatten(2)


class SASRec(nn.Module):
    """Item ids to user states; ``items`` is a module that returns the (V + 1, D) item table."""

    def __init__(self, items: nn.Module, config: SASRecConfig) -> None:
        super().__init__()
        self.items, self.config = items, config
        self.positions = nn.Parameter(torch.empty(config.max_len, config.n_dims))
        nn.init.normal_(self.positions, std=0.02)
        self.norm_input = nn.LayerNorm(config.n_dims) if config.norm_items else nn.Identity()
        self.drop = FastDropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.n_dims)

    def embed(self, table: Tensor, ids: Tensor) -> Tensor:
        """(V + 1, D), (B, L) -> (B, L, D)"""
        if ids.shape[1] > self.config.max_len:
            raise ValueError(
                f"a history of {ids.shape[1]} items, but max_len={self.config.max_len}: "
                "keep the newest ones"
            )
        rows = torch.nn.functional.embedding(ids, table)
        return self.drop(self.norm_input(rows) + self.positions[: ids.shape[1]])

    def forward(self, ids: Tensor, table: Tensor | None = None) -> Tensor:
        """States at every position.  (B, L) -> (B, L, D)"""
        x = self.embed(self.items() if table is None else table, ids)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    @torch.no_grad()
    def user_vectors(self, ids: Tensor, lengths: Tensor, table: Tensor | None = None) -> Tensor:
        """The state after each history, ready for a dot product.  (B, L), (B,) -> (B, D)

        The last block is computed at the last position alone.  A user without history gets the
        state of the padding item at the first position.
        """
        lengths = lengths.clamp(min=1).long()
        x = self.embed(self.items() if table is None else table, ids)
        for block in self.blocks[:-1]:
            x = block(x)
        return self._scale(self.norm(self.blocks[-1].last(x, lengths)))  # type: ignore[operator]

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """Row 0 is padding and must not be ranked.  () -> (V + 1, D)"""
        return self._direction(self.items())

    def logits_parts(self, states: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """States and item rows whose plain product is the logits.  (N, D), (V + 1, D)"""
        return self._scale(states), self._direction(table)

    def _direction(self, rows: Tensor) -> Tensor:
        return nn.functional.normalize(rows, dim=-1) if self.config.score == "cosine" else rows

    def _scale(self, states: Tensor) -> Tensor:
        if self.config.score == "dot":
            return states
        return self._direction(states) / self.config.temperature


def next_item_loss(model: SASRec, batch: Mapping[str, Tensor], *, criterion: Criterion) -> Tensor:
    """Mean of -log p(next item) over all positions that have one; the padding row competes not.

    batch: "inputs" (B, L) and "targets" (B, L), 0 where there is nothing to predict.
    """
    table = model.items()
    states = model(batch["inputs"], table)
    wanted = batch["targets"] > 0
    hidden, rows = model.logits_parts(states[wanted], table)
    return criterion(widen(hidden), widen(rows[1:]), batch["targets"][wanted].long() - 1)


@torch.no_grad()
def encode_users(
    model: SASRec, ids: Tensor, lengths: Tensor, *, chunk: int = 1024
) -> Iterator[Tensor]:
    """User vectors in chunks, each cut to its longest history, without gradient or dropout."""
    was_training = model.training
    model.eval()
    table = model.items()
    for start in range(0, len(ids), chunk):
        part = lengths[start : start + chunk]
        width = max(1, int(part.max()))
        yield model.user_vectors(ids[start : start + chunk, :width].long(), part, table)
    model.train(was_training)
