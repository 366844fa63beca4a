"""DIN: the history seen from the target (Zhou et al., KDD 2018, arXiv 1706.06978).

    a_i = MLP([t; h_i; t - h_i; t ⊙ h_i])          Dice or PReLU inside; t: the target's vector
    u   = Σ_i a_i h_i                              or Σ_i softmax(a)_i h_i;  0 for an empty history
    logit = MLP([e_1; …; e_F; u])

Only events that count are ever looked up or scored: padding costs nothing and reaches no statistic.
NOTE[DIFF] The first layer's product with the four parts is regrouped, which is the same number at
half the cost:  t (W_t + W_d) once per row,  h (W_h - W_d) + (t ⊙ h) W_p  per event.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.models.fields import Batch, EmbeddingConfig, Fields, Sizes
from lib.models.mlp import MLP, Activation, Norm, build_activation, start_linear
from lib.models.precision import in_float32, widen
from lib.models.sequence_pooling import sequence_mask
from lib.models.tables import Table

__all__ = ["DIN", "DINConfig", "TargetAttention"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DINConfig:
    """``target_field``: which categorical column is the target (the ad set, the item).
    ``shared_ids``: the tokens are ids of the same space as the fields, and share their vectors."""

    sizes: Sizes
    embedding: EmbeddingConfig
    target_field: int
    attention_hidden: tuple[int, ...]
    hidden: tuple[int, ...]
    dropout: float
    softmax: bool
    attention_activation: Activation = "dice"
    activation: Activation = "relu"
    norm: Norm = "none"
    shared_ids: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.target_field < self.sizes.n_fields:
            raise ValueError(f"target_field={self.target_field}: expected a column from 0 to "
                             f"{self.sizes.n_fields - 1}")  # fmt: skip
        if self.sizes.max_len < 1:
            raise ValueError("DIN reads a sequence: sizes.n_tokens and sizes.max_len are 0")
        if not self.attention_hidden:
            raise ValueError("attention_hidden is empty: expected one or more hidden sizes")


class TargetAttention(nn.Module):
    """One score per event from target and event.  (B, D), (E, D), rows (E,) -> (E,)

    ``rows`` says which target each event belongs to.

    >>> score = TargetAttention(4, (8,), activation="dice")
    >>> score(torch.zeros(2, 4), torch.zeros(3, 4), torch.tensor([0, 0, 1])).shape
    torch.Size([3])
    """

    def __init__(self, d: int, hidden: tuple[int, ...], *, activation: Activation) -> None:
        super().__init__()
        self.first = nn.Linear(4 * d, hidden[0])
        self.activation = build_activation(activation, hidden[0])
        self.rest = MLP(hidden[0], hidden[1:], d_out=1, activation=activation)

    def forward(self, targets: Tensor, events: Tensor, rows: Tensor) -> Tensor:
        linear = nn.functional.linear
        w_target, w_event, w_difference, w_product = self.first.weight.chunk(4, dim=1)
        own = targets[rows]
        once = linear(targets, w_target + w_difference, self.first.bias)  # (B, A)
        both = torch.cat([events, own * events], dim=1)  # (E, 2D)
        each = linear(both, torch.cat([w_event - w_difference, w_product], dim=1))  # (E, A)
        return self.rest(self.activation(once[rows] + each))


class DIN(nn.Module):
    """A batch to logits.  -> (B,)

    >>> sizes = Sizes(n_ids=9, n_fields=2, n_tokens=7, max_len=3)
    >>> config = DINConfig(
    ...     sizes=sizes, embedding=EmbeddingConfig(d_embedding=4), target_field=1,
    ...     attention_hidden=(8,), hidden=(8,), dropout=0.0, softmax=True)
    >>> batch = {"categorical": torch.tensor([[1, 8], [0, 3]]), "length": torch.tensor([2, 0]),
    ...          "sequence": torch.tensor([[6, 2, 0], [0, 0, 0]])}
    >>> DIN(config)(batch).shape
    torch.Size([2])
    """

    def __init__(self, config: DINConfig) -> None:
        super().__init__()
        self.config = config
        sizes, d = config.sizes, config.embedding.d_embedding
        self.fields = Fields(sizes, config.embedding, linear=False)
        if not config.shared_ids:
            self.events = Table(sizes.n_tokens, d, lazy=config.embedding.lazy)
            nn.init.normal_(self.events.weight, std=config.embedding.std or 1e-4)
        self.attention = TargetAttention(
            d, config.attention_hidden, activation=config.attention_activation
        )
        self.mlp = MLP(
            (sizes.n_positions + 1) * d,
            config.hidden,
            d_out=1,
            activation=config.activation,
            norm=config.norm,
            dropout=config.dropout,
        )
        self.apply(start_linear)

    def weigh_events(self, batch: Batch, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors, weights and rows of the events that count.  -> (E, D), (E,), (E,)"""
        tokens, counted = sequence_mask(batch, self.config.sizes)
        rows, places = counted.nonzero(as_tuple=True)
        table = self.fields.table if self.config.shared_ids else self.events
        events = table(tokens[rows, places])
        weights = self.attention(targets, events, rows)
        if self.config.softmax:
            with in_float32(weights):
                spread = weights.new_full(tokens.shape, -torch.inf)
                spread = spread.index_put((rows, places), weights)
                weights = torch.softmax(spread, dim=1)[rows, places]
        return events, weights, rows

    def forward(self, batch: Batch) -> Tensor:
        tokens = self.fields(batch).tokens
        targets = tokens[:, self.config.target_field]
        events, weights, rows = self.weigh_events(batch, targets)
        with in_float32(tokens):
            pooled = torch.zeros_like(targets).index_add(0, rows, widen(weights)[:, None] * events)
        return self.mlp(torch.cat([tokens.flatten(1), pooled], dim=1))
