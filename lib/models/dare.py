"""DARE: long histories with the embeddings for searching decoupled from those for describing
(ICLR 2025, arXiv 2410.02604).

    s_i = ⟨q, A[i]⟩/√d_a + ⟨a_0, a_time(i)⟩/√d_t - age_i/τ       A, a: attention tables alone
    kept = top k of s, in time order;   w = softmax(s over kept)
    r_i = [R[i]; r_time(i)],   v = [R_q; r_0]                     R, r: representation tables alone
    u = Σ_kept w_i r_i,  avg = mean_i r_i                         r_i ← Transformer(r_i) if asked
    features = [v; u; v ⊙ u; avg; v ⊙ avg]                        (B, 5, D), D = d_r + d_t
    auxiliary logit = MLP(Σ_all softmax(s)_i r_i)

Scores never touch R, contents never touch A.  Rows of R are gathered for the kept events only; the
sums over all events go through a histogram of token ids, where the table is small enough.

NOTE[DIFF] A target outside the token space (an ad set against a history of behaviour codes) cannot
share the tables with the events, as the paper has it: a learned query per ad set (S1), inventory
(S2) or both (concat) stands in, one for each table.  "token" is the paper's form: batch["target"]
holds a token id (B,).  τ is an addition for data without time stamps; None leaves it out.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from lib.models.attention import TransformerBlock
from lib.models.dare_config import DAREConfig
from lib.models.dropout import FastDropout
from lib.models.fields import Batch
from lib.models.precision import in_float32, widen
from lib.models.sequence_pooling import (
    Kept,
    keep_top,
    log_buckets,
    masked_softmax,
    pool_by_id,
    sequence_mask,
)
from lib.models.tables import Table

__all__ = ["Attended", "DAREEncoder", "Encoded"]

SMALL_TABLE = 8192  # token ids up to which a product with the whole table beats gathering rows


class Attended(NamedTuple):
    """What the encoder looks at, before any content is read."""

    scores: Tensor  # (B, L)
    counted: Tensor  # (B, L)
    kept: Kept  # places and counted, (B, K)
    weights: Tensor  # (B, K), sum 1; zeros for an empty history


class Encoded(NamedTuple):
    """Target-aware features (B, 5, D) and, where asked for, the pooled whole sequence (B, D)."""

    features: Tensor
    whole: Tensor | None


class Use(nn.Module):
    """The tables of one use, attention or representation: tokens, times, and the query's."""

    def __init__(self, config: DAREConfig, d: int) -> None:
        super().__init__()
        self.config = config
        sizes, lazy = config.sizes, config.sizes.n_tokens > SMALL_TABLE
        self.tokens = Table(sizes.n_tokens, d, lazy=lazy, scale=config.std)
        self.times = nn.Parameter(torch.empty(config.n_time, config.d_time).normal_(std=config.std))
        modes = {"S1": (0,), "S2": (1,), "concat": (0, 1), "token": ()}
        self.columns = [config.query_fields[i] for i in modes[config.query_mode]]
        self.queries = nn.ModuleList(
            Table(
                sizes.field_sizes[column],
                d,
                lazy=sizes.field_sizes[column] > SMALL_TABLE,
                scale=config.std,
            )
            for column in self.columns
        )
        self.join = nn.Linear(2 * d, d, bias=False) if len(self.columns) == 2 else None

    def query(self, batch: Batch) -> Tensor:
        """The target's vector.  -> (B, d)"""
        if not self.columns:
            if "target" not in batch:
                raise ValueError("query_mode='token' reads batch['target'], the target's token id; "
                                 f"this batch has only {sorted(batch)}")  # fmt: skip
            return self.tokens(batch["target"])
        offsets = self.config.sizes.field_offsets
        parts = [
            table(batch["categorical"][:, column] - offsets[column])
            for table, column in zip(self.queries, self.columns, strict=True)
        ]
        return parts[0] if self.join is None else self.join(torch.cat(parts, dim=1))

    def pool(self, weights: Tensor, tokens: Tensor) -> Tensor:
        """Σ_l w_l T[token_l].  (B, L), (B, L) -> (B, d)"""
        if not self.tokens.lazy:
            return pool_by_id(weights, tokens, self.tokens.weight)
        return torch.einsum("bl,bld->bd", weights, self.tokens(tokens))


class DAREEncoder(nn.Module):
    """The history of each row, seen from its target.  -> features (B, 5, D)

    >>> from lib.models.fields import Sizes
    >>> sizes = Sizes(n_ids=9, n_fields=2, n_tokens=7, max_len=4, field_offsets=(0, 4),
    ...               field_sizes=(4, 5))
    >>> config = DAREConfig(sizes=sizes, d_attention=4, d_representation=4, d_time=2, top_k=2,
    ...                     tau=None, query_mode="concat", query_fields=(1, 0))
    >>> batch = {"categorical": torch.tensor([[1, 8]]), "length": torch.tensor([3]),
    ...          "sequence": torch.tensor([[6, 2, 5, 0]])}
    >>> DAREEncoder(config)(batch).features.shape
    torch.Size([1, 5, 6])
    """

    buckets: Tensor

    def __init__(self, config: DAREConfig) -> None:
        super().__init__()
        self.config = config
        self.attention = Use(config, config.d_attention)
        self.representation = (
            self.attention if config.shared_table else Use(config, config.d_representation)
        )
        self.register_buffer("buckets", log_buckets(config.sizes.max_len, config.n_time))
        self.blocks = nn.ModuleList(
            TransformerBlock(
                config.n_dims,
                n_heads=config.n_heads,
                d_hidden=config.d_block_hidden,
                dropout=config.block_dropout,
            )
            for _ in range(config.n_blocks)
        )
        self.drop = FastDropout(config.dropout)

    def ages(self, batch: Batch) -> Tensor:
        """0 for the newest event; padding is 0 too and never counts.  -> (B, L)"""
        places = torch.arange(batch["sequence"].shape[1], device=batch["sequence"].device)
        return (batch["length"].long()[:, None] - 1 - places).clamp(min=0)

    def attend(self, batch: Batch) -> Attended:
        """Scores, the events kept and their weights: attention tables alone."""
        use, config = self.attention, self.config
        tokens, counted = sequence_mask(batch, config.sizes)
        with in_float32(use.times):
            query = widen(use.query(batch))  # (B, d_a)
            if use.tokens.lazy:
                scores = torch.einsum("bd,bld->bl", query, use.tokens(tokens))
            else:  # every token once, then numbers instead of rows are gathered
                scores = (query @ use.tokens.weight.T).gather(1, tokens.long())
            by_age = (use.times @ use.times[0])[self.buckets] * config.d_time**-0.5  # (max_len,)
            if config.tau is not None:
                by_age = by_age - torch.arange(len(by_age), device=by_age.device) / config.tau
            scores = scores * config.d_attention**-0.5 + by_age[self.ages(batch)]
            kept = keep_top(scores, counted, config.top_k)
            weights = masked_softmax(scores.gather(1, kept.places), kept.counted)
        return Attended(scores, counted, kept, weights)

    def contents(self, batch: Batch, places: Tensor) -> Tensor:
        """Content vectors of the events at ``places``.  (B, K) -> (B, K, D)"""
        use = self.representation
        tokens = use.tokens(batch["sequence"].gather(1, places))
        times = use.times[self.buckets[self.ages(batch).gather(1, places)]]
        return torch.cat([tokens, times], dim=2)

    def pool_all(self, batch: Batch, weights: Tensor) -> Tensor:
        """Weighted sum of the contents of all events.  (B, L) -> (B, D)"""
        use = self.representation
        times = pool_by_id(weights, self.buckets[self.ages(batch)], use.times)
        return torch.cat([use.pool(weights, batch["sequence"]), times], dim=1)

    def forward(self, batch: Batch, *, whole: bool = False) -> Encoded:
        scores, counted, kept, weights = self.attend(batch)
        contents = self.contents(batch, kept.places)
        for block in self.blocks:
            contents = block(contents, key_mask=kept.counted)
        with in_float32(contents):
            contents = widen(contents)
            u = torch.einsum("bk,bkd->bd", weights, contents)
            if self.config.average == "all":
                real = counted.to(u.dtype)
                average = self.pool_all(batch, real / real.sum(dim=1, keepdim=True).clamp(min=1))
            else:
                real = kept.counted[:, :, None].to(u.dtype)
                average = (contents * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
            query = widen(self.representation.query(batch))
            now = cast(Tensor, self.representation.times)[0].expand(len(query), -1)
            v = torch.cat([query, now], dim=1)
            features = self.drop(torch.stack([v, u, v * u, average, v * average], dim=1))
            pooled = self.pool_all(batch, masked_softmax(scores, counted)) if whole else None
        return Encoded(features, pooled)
