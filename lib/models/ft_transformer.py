"""FT-Transformer: every feature a token (Gorishniy et al., NeurIPS 2021, arXiv 2106.11959).

    x = [class; e_1 + c_1; …; e_F + c_F; t_1; …; t_M]         (B, 1 + F + M + M', D)
    x ← x + Attention(norm(x))       the first norm is left out: essential, says the paper
    x ← x + W₂ (a ⊙ ReLU(b)),  [a; b] = W₁ norm(x)            ReGLU
    logit = w · ReLU(norm(x_class)) + b

The last block asks and answers for the class token only: nothing else is read.
NOTE[DIFF] Options beyond the paper, all off by default: stochastic depth (a row skips a branch, the
more often the deeper), token dropout (a row loses whole features), mixout (weights fall back to
their anchor); Fourier features for numbers are ``NumericConfig(kind="periodic")``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lib.models.attention import Attention
from lib.models.dropout import FastDropout
from lib.models.fields import Batch, EmbeddingConfig, Fields, Sizes
from lib.models.precision import in_float32, widen

__all__ = ["FTTransformer", "FTTransformerConfig", "Mixout", "drop_rows", "set_mixout_anchor"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FTTransformerConfig:
    """The paper's default: 3 blocks, D 192, 8 heads, attention dropout 0.2, FFN dropout 0.1."""

    sizes: Sizes
    embedding: EmbeddingConfig
    n_blocks: int
    n_heads: int
    attention_dropout: float
    ffn_dropout: float
    residual_dropout: float = 0.0
    ffn_multiplier: float = 4 / 3
    stochastic_depth: float = 0.0
    token_dropout: float = 0.0
    mixout: float = 0.0

    def __post_init__(self) -> None:
        if self.n_blocks < 1:
            raise ValueError(f"n_blocks={self.n_blocks}: expected 1 or more")
        if self.embedding.d_embedding % self.n_heads:
            raise ValueError(f"d_embedding={self.embedding.d_embedding} must be a multiple of "
                             f"n_heads={self.n_heads}")  # fmt: skip
        for name in ("stochastic_depth", "token_dropout", "mixout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 or more, less than 1")


def drop_rows(x: Tensor, rate: float, *, n_axes: int) -> Tensor:
    """Zero whole slices with probability ``rate``, one draw per index of the first ``n_axes`` axes,
    and scale the others so that the mean stays.  (*) -> (*)

    >>> torch.equal(drop_rows(torch.ones(2, 3), 0.0, n_axes=1), torch.ones(2, 3))
    True
    """
    if rate == 0:
        return x
    shape = x.shape[:n_axes] + (1,) * (x.ndim - n_axes)
    return x * (torch.rand(shape, device=x.device) >= rate) / (1 - rate)


class Mixout(nn.Module):
    """Each weight is its anchor with probability p, without bias: E[mixed] = weight
    (Lee, Cho, Kang, ICLR 2020).  A parametrisation of a linear layer's weight."""

    anchor: Tensor

    def __init__(self, weight: Tensor, p: float) -> None:
        super().__init__()
        self.p = p
        self.register_buffer("anchor", weight.detach().clone())

    def forward(self, weight: Tensor) -> Tensor:
        if not self.training:
            return weight
        away = torch.where(torch.rand_like(weight) < self.p, 0.0, weight - self.anchor)
        return self.anchor + away / (1 - self.p)


@torch.no_grad()
def set_mixout_anchor(model: nn.Module) -> None:
    """Anchor mixout to the weights as they are now, for example after loading trained ones."""
    for module in model.modules():
        if isinstance(module, parametrize.ParametrizationList) and isinstance(module[0], Mixout):
            module[0].anchor.copy_(module.original)


class Block(nn.Module):
    """Attention, then ReGLU, each added to its input.  (B, T, D) -> (B, T, D) or (B, 1, D)"""

    def __init__(self, config: FTTransformerConfig, index: int) -> None:
        super().__init__()
        d = config.embedding.d_embedding
        d_hidden = int(d * config.ffn_multiplier)
        self.norm_attention = nn.LayerNorm(d) if index > 0 else nn.Identity()
        self.attention = Attention(d, n_heads=config.n_heads, dropout=config.attention_dropout)
        self.norm_inner = nn.LayerNorm(d)
        self.inner_in, self.inner_out = nn.Linear(d, 2 * d_hidden), nn.Linear(d_hidden, d)
        self.drop_inner = FastDropout(config.ffn_dropout)
        self.drop_residual = FastDropout(config.residual_dropout)
        self.skip_rate = config.stochastic_depth * (index + 1) / config.n_blocks

    def forward(self, x: Tensor, *, n_queries: int | None = None) -> Tensor:
        mixed = self.attention(self.norm_attention(x), n_queries=n_queries)
        x = (x if n_queries is None else x[:, :n_queries]) + self._thin(mixed)
        kept, gate = self.inner_in(self.norm_inner(x)).chunk(2, dim=-1)
        return x + self._thin(self.inner_out(self.drop_inner(kept * torch.relu(gate))))

    def _thin(self, branch: Tensor) -> Tensor:
        branch = self.drop_residual(branch)
        return drop_rows(branch, self.skip_rate, n_axes=1) if self.training else branch


class FTTransformer(nn.Module):
    """A batch to logits.  -> (B,)

    >>> config = FTTransformerConfig(
    ...     sizes=Sizes(n_ids=9, n_fields=2), embedding=EmbeddingConfig(d_embedding=8),
    ...     n_blocks=2, n_heads=4, attention_dropout=0.0, ffn_dropout=0.0)
    >>> FTTransformer(config)({"categorical": torch.tensor([[1, 8], [0, 3]])}).shape
    torch.Size([2])
    """

    def __init__(self, config: FTTransformerConfig) -> None:
        super().__init__()
        self.config = config
        d = config.embedding.d_embedding
        self.fields = Fields(config.sizes, config.embedding, linear=False, position_bias=True)
        self.class_token = nn.Parameter(torch.empty(d).uniform_(-(d**-0.5), d**-0.5))
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.n_blocks))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, 1)
        if config.mixout:
            for layer in self.blocks.modules():
                if isinstance(layer, nn.Linear):
                    mixout = Mixout(layer.weight, config.mixout)
                    parametrize.register_parametrization(layer, "weight", mixout)

    def represent(self, batch: Batch) -> Tensor:
        """The class token after the last block.  -> (B, D)"""
        tokens = self.fields(batch).tokens
        if self.training:
            tokens = drop_rows(tokens, self.config.token_dropout, n_axes=2)
        x = torch.cat([self.class_token.expand(len(tokens), 1, -1), tokens], dim=1)
        for block in self.blocks[:-1]:
            x = block(x)
        return widen(self.blocks[-1](x, n_queries=1)[:, 0])

    def forward(self, batch: Batch) -> Tensor:
        x = self.represent(batch)
        with in_float32(x):
            return self.head(torch.relu(self.norm(x)))[:, 0]
