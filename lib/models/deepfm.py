"""DeepFM (Guo et al., IJCAI 2017), plain or with the GEN encoder in its pair term.

    logit = b + Σ w_i + Σ_{i<j} ⟨e_i, e_j⟩ + MLP(flat(e))        plain
    logit = b + Σ w_i + Σ_{i<j} ⟨g_i, e_j⟩ + MLP(flat(e))        g = GEN(e); symmetric: ⟨g_i, g_j⟩

The pair sum costs one pass over (B, F, D): ½ (|Σ e|² - Σ |e|²), or a running sum with GEN, where
the order of the fields matters.  The MLP reads the raw e, never g.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from lib.models.fields import Batch, EmbeddingConfig, Fields, Sizes
from lib.models.gen import GEN, GENConfig, generated_pairs
from lib.models.mlp import MLP, Activation, Norm, start_linear
from lib.models.precision import in_float32

__all__ = ["DeepFM", "DeepFMConfig", "factorised_pairs"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepFMConfig:
    """BARS on Avazu_x4: d_embedding 16, hidden (2000,) * 4, no norm, no dropout."""

    sizes: Sizes
    embedding: EmbeddingConfig
    hidden: tuple[int, ...]
    dropout: float
    norm: Norm = "none"
    activation: Activation = "relu"
    gen: GENConfig | None = None


def factorised_pairs(e: Tensor) -> Tensor:
    """Σ_{i<j} ⟨e_i, e_j⟩.  (B, F, D) -> (B,)

    >>> import torch
    >>> factorised_pairs(torch.tensor([[[2.0], [3.0], [5.0]]]))
    tensor([31.])
    """
    total = e.sum(dim=1)
    return 0.5 * (total.square().sum(dim=1) - e.square().sum(dim=(1, 2)))


class DeepFM(nn.Module):
    """A batch to logits.  -> (B,)

    >>> import torch
    >>> config = DeepFMConfig(
    ...     sizes=Sizes(n_ids=9, n_fields=2), embedding=EmbeddingConfig(d_embedding=4),
    ...     hidden=(8,), dropout=0.0)
    >>> DeepFM(config)({"categorical": torch.tensor([[1, 8], [0, 3]])}).shape
    torch.Size([2])
    """

    def __init__(self, config: DeepFMConfig) -> None:
        super().__init__()
        n_positions, d = config.sizes.n_positions, config.embedding.d_embedding
        self.config = config
        self.fields = Fields(config.sizes, config.embedding)
        self.fields.shrink_numbers(0.1)
        self.gen = GEN(n_positions, d, config.gen) if config.gen is not None else None
        self.mlp = MLP(
            n_positions * d,
            config.hidden,
            d_out=1,
            activation=config.activation,
            norm=config.norm,
            dropout=config.dropout,
        )
        self.apply(start_linear)

    def encode(self, batch: Batch) -> Tensor:
        """What a language model reads of a row: g, or e where there is no GEN.  -> (B, F, D)"""
        e = self.fields(batch).tokens
        return e if self.gen is None else self.gen(e)

    def forward(self, batch: Batch) -> Tensor:
        e, linear = self.fields(batch)
        deep = self.mlp(e.flatten(1))
        g = None if self.gen is None else self.gen(e)
        with in_float32(e):
            if g is None:
                pairs = factorised_pairs(e)
            elif self.gen is not None and self.gen.config.symmetric:
                pairs = factorised_pairs(g)
            else:
                pairs = generated_pairs(g, e)
            return linear + pairs + deep
