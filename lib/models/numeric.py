"""Embeddings for numbers: one vector per feature, all features in one product.

    linear     t_j = x_j W_j + b_j                                       FT-Transformer, section 3.1
    periodic   t_j = ReLU(W_j [sin v; cos v] + b_j),  v = 2π c_j x_j     ("PLR", Eq. 2)
    quantile   t_j = W_j e(x_j) + b_j,  e_t = (x - q_t) / (q_t+1 - q_t) cut to 0..1     (Eq. 1)

Gorishniy, Rubachev, Babenko: On Embeddings for Numerical Features in Tabular Deep Learning,
NeurIPS 2022.  (B, M) -> (B, M, D).  Numbers arrive standardised and imputed.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lib.models.precision import in_float32

__all__ = ["LinearNumbers", "NumericConfig", "PeriodicNumbers", "QuantileNumbers", "build_numbers"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NumericConfig:
    """How numbers become vectors; the sizes of kinds that are not chosen play no part."""

    kind: Literal["linear", "periodic", "quantile"] = "linear"
    n_frequencies: int = 24
    frequency_scale: float = 0.1  # sigma of c; small: slow waves over standardised numbers
    n_bins: int = 16

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "periodic", "quantile"):
            raise ValueError(f"numeric kind {self.kind!r}: expected linear, periodic or quantile")
        if self.n_frequencies < 1 or self.frequency_scale <= 0 or self.n_bins < 1:
            raise ValueError(
                f"n_frequencies={self.n_frequencies} and n_bins={self.n_bins} must be 1 or more, "
                f"frequency_scale={self.frequency_scale} above zero"
            )


def _uniform(*shape: int) -> nn.Parameter:
    """Within ±1/sqrt(D), as linear layers and rtdl start: D is the last axis."""
    bound = shape[-1] ** -0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


class LinearNumbers(nn.Module):
    """x_j W_j + b_j.  (B, M) -> (B, M, D)

    >>> LinearNumbers(3, 4)(torch.zeros(2, 3)).shape
    torch.Size([2, 3, 4])
    """

    def __init__(self, n_numeric: int, d_embedding: int) -> None:
        super().__init__()
        self.weight = _uniform(n_numeric, d_embedding)
        self.bias = _uniform(n_numeric, d_embedding)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, x[..., None], self.weight)


class PeriodicNumbers(nn.Module):
    """Learned frequencies, then a linear map per feature and ReLU.  (B, M) -> (B, M, D)

    >>> PeriodicNumbers(3, 4, n_frequencies=5, frequency_scale=0.1)(torch.zeros(2, 3)).shape
    torch.Size([2, 3, 4])
    """

    def __init__(
        self, n_numeric: int, d_embedding: int, *, n_frequencies: int, frequency_scale: float
    ) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(n_numeric, n_frequencies) * frequency_scale)
        bound = (2 * n_frequencies) ** -0.5  # fan-in of each feature's own linear map
        self.weight = nn.Parameter(
            torch.empty(n_numeric, 2 * n_frequencies, d_embedding).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.empty(n_numeric, d_embedding).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        with in_float32(x):  # the phase of a fast wave does not survive bfloat16
            phase = 2 * math.pi * self.frequencies * x[..., None]  # (B, M, C)
            waves = torch.cat([phase.sin(), phase.cos()], dim=-1)  # (B, M, 2C)
            return torch.relu(torch.einsum("bmc,mcd->bmd", waves, self.weight) + self.bias)


class QuantileNumbers(nn.Module):
    """Piecewise linear in the quantiles of the training rows.  (B, M) -> (B, M, D)

    The edges start as the quantiles of the standard normal, because numbers arrive standardised;
    ``fit`` replaces them by those of the training rows.  NOTE[DIFF] Eq. 1 leaves the first and
    the last bin open; here they are cut, so that an outlier of the test day cannot extrapolate.

    >>> QuantileNumbers(3, 4, n_bins=5)(torch.zeros(2, 3)).shape
    torch.Size([2, 3, 4])
    """

    edges: Tensor

    def __init__(self, n_numeric: int, d_embedding: int, *, n_bins: int) -> None:
        super().__init__()
        levels = torch.linspace(0, 1, n_bins + 1).clamp(0.005, 0.995)  # the outer edges: ±2.6
        normal = torch.special.ndtri(levels)
        self.register_buffer("edges", normal.expand(n_numeric, -1).clone())
        bound = n_bins**-0.5
        self.weight = nn.Parameter(
            torch.empty(n_numeric, n_bins, d_embedding).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.empty(n_numeric, d_embedding).uniform_(-bound, bound))

    @torch.no_grad()
    def fit(self, numeric: Tensor) -> None:
        """Take the edges from training rows; a few hundred thousand are plenty.  (N, M) -> ()"""
        n_numeric, n_edges = self.edges.shape
        if numeric.ndim != 2 or numeric.shape[1] != n_numeric or len(numeric) == 0:
            raise ValueError(
                f"fit got rows of shape {tuple(numeric.shape)}; expected (N, {n_numeric}), N >= 1"
            )
        ordered = numeric.to(self.edges).sort(dim=0).values  # torch.quantile stops at 2^24 numbers
        place = torch.linspace(0, len(ordered) - 1, n_edges, device=ordered.device).round().long()
        self.edges.copy_(ordered[place].T)

    def encode(self, x: Tensor) -> Tensor:
        """How much of each bin lies below x.  (B, M) -> (B, M, T)"""
        low, high = self.edges[:, :-1], self.edges[:, 1:]
        # A bin without width (a value that many rows share) becomes a step at that value.
        width = (high - low).clamp(min=1e-9)
        inside = ((x[..., None] - low) / width).clamp(0, 1)
        return torch.where(high > low, inside, (x[..., None] >= low).to(x.dtype))

    def forward(self, x: Tensor) -> Tensor:
        with in_float32(x):
            return torch.einsum("bmt,mtd->bmd", self.encode(x), self.weight) + self.bias


def build_numbers(n_numeric: int, d_embedding: int, config: NumericConfig) -> nn.Module:
    """The module that ``config`` names.  (B, M) -> (B, M, D)"""
    if config.kind == "linear":
        return LinearNumbers(n_numeric, d_embedding)
    if config.kind == "periodic":
        return PeriodicNumbers(
            n_numeric,
            d_embedding,
            n_frequencies=config.n_frequencies,
            frequency_scale=config.frequency_scale,
        )
    return QuantileNumbers(n_numeric, d_embedding, n_bins=config.n_bins)
