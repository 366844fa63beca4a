"""Two towers: who asks and what is offered meet in one product (Huang et al., "DSSM", CIKM 2013).

    u = MLP_u([user fields; numbers; mean of history])      v = MLP_v([item fields])     both unit
    s(u, v) = ⟨u, v⟩ / τ                                    click logit = s + b

Retrieval trains s with an in-batch softmax: the other items of the batch are the negatives, and
their share of the batch is corrected by log q in the loss (lib/train/losses.py), not here.
Item vectors do not depend on the user, so a catalogue is encoded once.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.models.fields import Batch, EmbeddingConfig, Fields, Sizes
from lib.models.mlp import MLP, Activation, Norm, start_linear
from lib.models.precision import in_float32, widen
from lib.models.sequence_pooling import sequence_mask
from lib.models.tables import Table

__all__ = ["Towers", "TwoTower", "TwoTowerConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoTowerConfig:
    """``item_fields``: the categorical columns that make up an item; all else is the user's."""

    sizes: Sizes
    embedding: EmbeddingConfig
    item_fields: tuple[int, ...]
    hidden: tuple[int, ...]
    d_out: int
    temperature: float
    dropout: float
    norm: Norm = "none"
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        known = set(range(self.sizes.n_fields))
        if not self.item_fields or not set(self.item_fields) <= known:
            raise ValueError(f"item_fields={self.item_fields}: expected one or more columns from "
                             f"0 to {self.sizes.n_fields - 1}")  # fmt: skip
        if len(set(self.item_fields)) < len(self.item_fields):
            raise ValueError(f"item_fields={self.item_fields} names a column twice")
        if len(self.item_fields) == self.sizes.n_positions and not self.sizes.n_tokens:
            raise ValueError("every feature belongs to the item: nothing is left for the user")
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature}: expected above zero")
        if self.sizes.n_ids ** len(self.item_fields) >= 2**63:
            raise ValueError(f"{len(self.item_fields)} item fields over {self.sizes.n_ids} ids "
                             "overflow the item key: name fewer fields")  # fmt: skip


class Towers(NamedTuple):
    """Unit vectors of both sides, and a number that is equal for equal items (for masks and q)."""

    users: Tensor  # (B, D)
    items: Tensor  # (B, D)
    item_keys: Tensor  # (B,) int64


class TwoTower(nn.Module):
    """A batch to click logits.  -> (B,)

    >>> config = TwoTowerConfig(
    ...     sizes=Sizes(n_ids=9, n_fields=2), embedding=EmbeddingConfig(d_embedding=4),
    ...     item_fields=(1,), hidden=(8,), d_out=3, temperature=0.1, dropout=0.0)
    >>> model = TwoTower(config)
    >>> model({"categorical": torch.tensor([[1, 8], [0, 3]])}).shape
    torch.Size([2])
    >>> model.encode_items(torch.tensor([[8], [3], [4]])).shape
    torch.Size([3, 3])
    """

    user_positions: Tensor

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__()
        self.config = config
        sizes, d = config.sizes, config.embedding.d_embedding
        self.fields = Fields(sizes, config.embedding, linear=False)
        theirs = [i for i in range(sizes.n_positions) if i not in config.item_fields]
        self.register_buffer("user_positions", torch.tensor(theirs, dtype=torch.long))
        if sizes.n_tokens:
            self.events = Table(sizes.n_tokens, d, lazy=config.embedding.lazy)
            nn.init.normal_(self.events.weight, std=config.embedding.std or 1e-4)
        self.user_tower = self._build(len(theirs) + (sizes.n_tokens > 0))
        self.item_tower = self._build(len(config.item_fields))
        self.bias = nn.Parameter(torch.zeros(()))
        self.apply(start_linear)

    def _build(self, n_vectors: int) -> MLP:
        config = self.config
        return MLP(
            n_vectors * config.embedding.d_embedding,
            config.hidden,
            d_out=config.d_out,
            activation=config.activation,
            norm=config.norm,
            dropout=config.dropout,
        )

    def towers(self, batch: Batch) -> Towers:
        """Both sides of each row.  -> (B, D), (B, D), (B,)"""
        tokens, columns = self.fields(batch).tokens, list(self.config.item_fields)
        parts = [tokens[:, self.user_positions].flatten(1)]
        if self.config.sizes.n_tokens:
            parts.append(self._mean_of_history(batch))
        users = _unit(self.user_tower(torch.cat(parts, dim=1)))
        items = _unit(self.item_tower(tokens[:, columns].flatten(1)))
        return Towers(users, items, self.item_keys(batch["categorical"][:, columns]))

    def encode_items(self, ids: Tensor) -> Tensor:
        """Vectors of a catalogue, given the item fields' ids in config order.  (V, I) -> (V, D)"""
        rows = self.fields.table(ids)
        return _unit(self.item_tower(rows.flatten(1)))

    def item_keys(self, ids: Tensor) -> Tensor:
        """One number per distinct combination of item field ids.  (B, I) -> (B,)"""
        place = self.config.sizes.n_ids ** torch.arange(ids.shape[1], device=ids.device)
        return (ids.long() * place).sum(dim=1)

    def _mean_of_history(self, batch: Batch) -> Tensor:
        tokens, counted = sequence_mask(batch, self.config.sizes)
        rows = self.events(tokens)  # (B, L, D)
        total = (rows * counted[:, :, None]).sum(dim=1)
        return total / counted.sum(dim=1, keepdim=True).clamp(min=1)

    def forward(self, batch: Batch) -> Tensor:
        towers = self.towers(batch)
        with in_float32(towers.users):
            product = (towers.users * towers.items).sum(dim=1)
            return product / self.config.temperature + self.bias


def _unit(x: Tensor) -> Tensor:
    return nn.functional.normalize(widen(x), dim=-1)
