"""The input layer of every click model: one table, one gather, one product for the numbers.

    e_j = T[id_j, :D]               categorical: T is (n_ids, D + 1), shared by all fields
    t_j = φ_j(x_j)                  numeric: linear, periodic or quantile (lib/models/numeric.py)
    u_j = m_j U_j                   missing indicator m_j, 0 or 1
    linear = b + Σ T[id_j, D] + ⟨w, x⟩ + ⟨v, m⟩

The batch of a click model is a mapping of tensors; a model reads the keys its sizes ask for:

    "categorical"  int32   (B, F)   ids already offset into the one id space 0 … n_ids - 1
    "numeric"      float32 (B, M)   standardised and imputed; may be (B, 0)
    "missing"      uint8   (B, M')  1 where a number was imputed; may be (B, 0)
    "sequence"     int     (B, L)   tokens from 1, oldest first, right-padded with 0   din, dare
    "length"       int     (B,)     tokens that count; 0 is an empty history           din, dare
    "target"       int     (B,)     the target as a token, where it is one             dare

Keys beyond these ("label", "fold", …) are left alone.  Every model returns float32 logits (B,).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.models.numeric import NumericConfig, QuantileNumbers, build_numbers
from lib.models.precision import in_float32
from lib.models.tables import Table

__all__ = ["Batch", "Embedded", "EmbeddingConfig", "Fields", "Sizes"]

Batch = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Counts that come from the data.  ``field_offsets`` and ``field_sizes`` locate each field's
    ids in the one id space; only models that single fields out need them (two_tower, dare)."""

    n_ids: int
    n_fields: int
    n_numeric: int = 0
    n_missing: int = 0
    n_tokens: int = 0  # token ids 0 … n_tokens - 1, padding included; 0: no sequence
    max_len: int = 0
    field_offsets: tuple[int, ...] = ()
    field_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if min(self.n_ids, self.n_fields, self.n_numeric, self.n_missing) < 0:
            raise ValueError(f"counts must be 0 or more, got {self}")
        if (self.n_ids > 0) != (self.n_fields > 0):
            raise ValueError(f"n_ids={self.n_ids} and n_fields={self.n_fields}: both or neither")
        if self.n_positions == 0:
            raise ValueError("no fields, no numbers: a click model needs at least one feature")
        if (self.n_tokens > 0) != (self.max_len > 0):
            raise ValueError(
                f"n_tokens={self.n_tokens} and max_len={self.max_len}: both or neither"
            )
        for name in ("field_offsets", "field_sizes"):
            found = len(getattr(self, name))
            if found not in (0, self.n_fields):
                raise ValueError(f"{name} has {found} entries, expected n_fields={self.n_fields}")

    @property
    def n_positions(self) -> int:
        """Vectors that a row becomes: fields, then numbers, then missing indicators."""
        return self.n_fields + self.n_numeric + self.n_missing


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingConfig:
    """How ids and numbers become vectors.  ``std``: of the rows at the start; None keeps the
    model's own choice.  ``lazy``: the optimizer touches only the rows of the batch."""

    d_embedding: int
    numeric: NumericConfig = field(default_factory=NumericConfig)
    std: float | None = None
    lazy: bool = True

    def __post_init__(self) -> None:
        if self.d_embedding < 1 or (self.std is not None and self.std <= 0):
            raise ValueError(
                f"d_embedding={self.d_embedding} must be 1 or more, std={self.std} above zero"
            )


class Embedded(NamedTuple):
    tokens: Tensor  # (B, F + M + M', D), one vector per position
    linear: Tensor  # (B,); zeros where no linear part was asked for


class Fields(nn.Module):
    """A batch becomes vectors and a first-order sum.  -> (B, F + M + M', D), (B,)

    >>> fields = Fields(Sizes(n_ids=9, n_fields=2, n_numeric=1), EmbeddingConfig(d_embedding=4))
    >>> batch = {"categorical": torch.tensor([[1, 8]]), "numeric": torch.zeros(1, 1)}
    >>> fields(batch).tokens.shape, fields(batch).linear.shape
    (torch.Size([1, 3, 4]), torch.Size([1]))
    """

    def __init__(
        self,
        sizes: Sizes,
        config: EmbeddingConfig,
        *,
        linear: bool = True,
        position_bias: bool = False,
    ) -> None:
        super().__init__()
        self.sizes, self.linear = sizes, linear
        d = config.d_embedding
        if sizes.n_fields:
            self.table = Table(sizes.n_ids, d + linear, lazy=config.lazy)
        if sizes.n_numeric:
            self.numbers = build_numbers(sizes.n_numeric, d, config.numeric)
        if sizes.n_missing:
            self.missing = nn.Parameter(torch.empty(sizes.n_missing, d))
        if linear:
            self.bias = nn.Parameter(torch.zeros(()))
            self.weights = nn.Parameter(torch.zeros(sizes.n_numeric + sizes.n_missing))
        # A vector per field, whatever the value (FT-Transformer): numbers have theirs already.
        self.position_bias = nn.Parameter(torch.empty(sizes.n_fields, d)) if position_bias else None
        self.reset_parameters(config)

    @torch.no_grad()
    def reset_parameters(self, config: EmbeddingConfig) -> None:
        """Near zero, as FuxiCTR starts: the sum over pairs must not drown the first steps."""
        if self.sizes.n_fields:
            self.table.weight.normal_(std=config.std or 1e-4)
        if self.sizes.n_missing:
            self.missing.normal_(std=config.std or 1e-4)
        if self.position_bias is not None:  # rtdl's start, for a model that normalises its tokens
            bound = config.d_embedding**-0.5
            self.position_bias.uniform_(-bound, bound)
            if config.std is None and self.sizes.n_fields:
                self.table.weight.uniform_(-bound, bound)
            if config.std is None and self.sizes.n_missing:
                self.missing.uniform_(-bound, bound)

    @torch.no_grad()
    def shrink_numbers(self, factor: float) -> None:
        """Start the vectors of numbers smaller: over 100 numbers of unit size, a sum over pairs
        has a spread of about 7 in the logit before the first step."""
        if self.sizes.n_numeric:
            for name, weight in self.numbers.named_parameters():
                if name in ("weight", "bias"):
                    weight.mul_(factor)

    def fit_numbers(self, numeric: Tensor) -> None:
        """Take quantile edges from training rows; other kinds need no fit.  (N, M) -> ()"""
        if self.sizes.n_numeric and isinstance(self.numbers, QuantileNumbers):
            self.numbers.fit(numeric)

    def penalty(self) -> Tensor:
        """½ Σ of squares over the table: times λ, the embedding regulariser of BARS.  () -> ()"""
        if self.sizes.n_fields and self.table.lazy:
            raise ValueError("a penalty on the whole table needs EmbeddingConfig(lazy=False); for "
                             "a lazy table use the plan's table_decay")  # fmt: skip
        return 0.5 * self.table.weight.square().sum()

    def forward(self, batch: Batch) -> Embedded:
        parts, linear = [], None
        first = next(iter(batch.values()))
        with in_float32(first):
            if self.sizes.n_fields:
                ids = _checked(batch, "categorical", self.sizes.n_fields)
                rows = self.table(ids)  # (B, F, D + 1): one gather for vectors and weights
                if self.linear:
                    linear = rows[..., -1].sum(dim=1)
                    rows = rows[..., :-1]
                parts.append(rows if self.position_bias is None else rows + self.position_bias)
            flat = []
            if self.sizes.n_numeric:
                flat.append(_checked(batch, "numeric", self.sizes.n_numeric))
                parts.append(self.numbers(flat[-1]))
            if self.sizes.n_missing:
                marks = _checked(batch, "missing", self.sizes.n_missing).to(self.missing.dtype)
                flat.append(marks)
                parts.append(marks[..., None] * self.missing)
            tokens = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
            if not self.linear:
                return Embedded(tokens, tokens.new_zeros(len(tokens)))
            if flat:
                numbers = torch.cat(flat, dim=1) @ self.weights
                linear = numbers if linear is None else linear + numbers
            assert linear is not None
            return Embedded(tokens, linear + self.bias)


def _checked(batch: Batch, key: str, width: int) -> Tensor:
    if key not in batch:
        raise ValueError(f"the batch has no {key!r}, only {sorted(batch)}; the model's sizes ask "
                         f"for {width} columns of it")  # fmt: skip
    found = batch[key]
    if found.ndim != 2 or found.shape[1] != width:
        raise ValueError(f"{key!r} has shape {tuple(found.shape)}, expected (B, {width}): were "
                         "the model's sizes taken from other data?")  # fmt: skip
    return found
