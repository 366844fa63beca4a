"""The click model around DARE: fields and numbers beside the history, one of three heads.

tokens = [P_1 f_1; …; P_5 f_5; fields; numbers; missing]      (B, 5 + F + M + M', D)
mlp            MLP(norm(flat tokens)), PReLU                  the paper's head: (200, 80)
qnn            QNN-α                                          lib/models/qnn.py
low_rank_fm    low-rank pairs + MLP                           lib/models/low_rank_fm.py

forward(batch)          logits (B,)
all_logits(batch)       ClickLogits(main, second, auxiliary): what the training loss reads.
                        ``second`` is another dropout pass of the head (self-ensemble),
                        ``auxiliary`` the logit of the whole sequence; None where not asked for
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.models.dare import DAREEncoder, Encoded
from lib.models.dare_config import DAREConfig
from lib.models.fields import Batch, EmbeddingConfig, Fields, Sizes
from lib.models.low_rank_fm import LowRankFMHead, LowRankFMHeadConfig
from lib.models.mlp import MLP, BatchNorm
from lib.models.precision import widen
from lib.models.qnn import QNNHead, QNNHeadConfig

__all__ = ["ClickLogits", "DAREClick", "DAREClickConfig", "MLPHeadConfig"]

N_FEATURES = 5  # v, u, v ⊙ u, avg, v ⊙ avg


@dataclass(frozen=True, kw_only=True, slots=True)
class MLPHeadConfig:
    """The paper's head: batch norm on the input, PReLU, hidden (200, 80)."""

    hidden: tuple[int, ...]
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DAREClickConfig:
    """``auxiliary_hidden``: sizes of the auxiliary head (200,); None leaves the head out."""

    encoder: DAREConfig
    embedding: EmbeddingConfig
    head: MLPHeadConfig | QNNHeadConfig | LowRankFMHeadConfig
    auxiliary_hidden: tuple[int, ...] | None

    @property
    def sizes(self) -> Sizes:
        return self.encoder.sizes


class ClickLogits(NamedTuple):
    """Logits of one forward pass for the loss.  Each (B,) or None."""

    main: Tensor
    second: Tensor | None
    auxiliary: Tensor | None


class MLPHead(nn.Module):
    """MLP over normed tokens.  (B, T, D) -> (B,)"""

    def __init__(self, width: int, config: MLPHeadConfig) -> None:
        super().__init__()
        self.norm = BatchNorm(width)
        self.mlp = MLP(width, config.hidden, d_out=1, activation="prelu", dropout=config.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.mlp(self.norm(tokens.flatten(1)))


class DAREClick(nn.Module):
    """A batch to logits.  -> (B,)

    >>> sizes = Sizes(n_ids=9, n_fields=2, n_tokens=7, max_len=4, field_offsets=(0, 4),
    ...               field_sizes=(4, 5))
    >>> encoder = DAREConfig(sizes=sizes, d_attention=4, d_representation=4, d_time=2, top_k=2,
    ...                      tau=8.0, query_mode="S1", query_fields=(1, 0))
    >>> config = DAREClickConfig(encoder=encoder, embedding=EmbeddingConfig(d_embedding=4),
    ...                          head=MLPHeadConfig(hidden=(8,)), auxiliary_hidden=(3,))
    >>> batch = {"categorical": torch.tensor([[1, 8]]), "length": torch.tensor([3]),
    ...          "sequence": torch.tensor([[6, 2, 5, 0]])}
    >>> DAREClick(config)(batch).shape
    torch.Size([1])
    """

    def __init__(self, config: DAREClickConfig) -> None:
        super().__init__()
        self.config = config
        sizes, d, n_dims = config.sizes, config.embedding.d_embedding, config.encoder.n_dims
        self.encoder = DAREEncoder(config.encoder)
        self.fields = Fields(sizes, config.embedding, linear=False)
        bound = n_dims**-0.5
        self.project = nn.Parameter(torch.empty(N_FEATURES, n_dims, d).uniform_(-bound, bound))
        self.head = self._build_head(N_FEATURES + sizes.n_positions, d)
        self.auxiliary = (
            None
            if config.auxiliary_hidden is None
            else MLP(n_dims, config.auxiliary_hidden, d_out=1)
        )

    def _build_head(self, n_tokens: int, d: int) -> nn.Module:
        head, sizes = self.config.head, self.config.sizes
        if isinstance(head, MLPHeadConfig):
            return MLPHead(n_tokens * d, head)
        if isinstance(head, QNNHeadConfig):
            return QNNHead(n_tokens, d, head)
        blocks = [N_FEATURES, sizes.n_fields, sizes.n_numeric, sizes.n_missing]
        return LowRankFMHead([size for size in blocks if size], d, head)

    def _tokens(self, batch: Batch, encoded: Encoded) -> Tensor:
        features = torch.einsum("bfn,fnd->bfd", encoded.features, self.project)
        return torch.cat([widen(features), self.fields(batch).tokens], dim=1)

    def forward(self, batch: Batch) -> Tensor:
        return self.head(self._tokens(batch, self.encoder(batch)))

    def all_logits(self, batch: Batch, *, second_pass: bool = False) -> ClickLogits:
        """One pass of the encoder, one or two of the head, and the auxiliary head."""
        encoded = self.encoder(batch, whole=self.auxiliary is not None)
        tokens = self._tokens(batch, encoded)
        second = None
        main = self.head(tokens)
        if second_pass:
            second = self.head(tokens)
        auxiliary = None if self.auxiliary is None else self.auxiliary(encoded.whole)
        return ClickLogits(main, second, auxiliary)
