"""GEN: "From Feature Interaction to Feature Generation" (ICML 2025, arXiv 2512.14041).

    g = γ act(W flat(e))          W (F·D, F·D), no bias: every generated field sees all fields
    (B, F, D) -> (B, F, D)

It is an encoder, not a gate, and nothing is reconstructed: the click loss alone trains it.  γ is a
constant (6 for Avazu, 0.1 for Criteo).  The other kinds are the paper's alternatives:

    identity   act(e) γ (with act linear and γ = 1: e itself, so the host model is unchanged)
    per_field  W_i e_i            two_layer   W₂ ReLU(BN(W₁ flat(e)))
    attention  4-head self-attention, LayerNorm, ReLU
    squeeze    e scaled per field by squeeze-excitation       (neither act nor γ)
    gate       e scaled per number by 2σ(MLP(context))        (neither act nor γ)

NOTE[DIFF] The paper's gate embeds its context fields a second time; here it reads their vectors.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lib.models.attention import attend
from lib.models.mlp import MLP, Activation, BatchNorm, build_activation
from lib.models.precision import widen

__all__ = ["GEN", "GENConfig", "generated_pairs"]

Kind = Literal["identity", "per_field", "all_fields", "two_layer", "attention", "squeeze", "gate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GENConfig:
    """Which encoder; ``only_positions`` leaves all other positions as they are (empty: none)."""

    kind: Kind
    gamma: float
    activation: Activation
    symmetric: bool = False  # the host multiplies g_i g_j instead of g_i e_j
    batch_norm: bool = False
    exclude_self: bool = False  # a field does not help to generate itself
    share_first: bool = False  # field 0's generated vector for every field
    residual: bool = False
    only_positions: tuple[int, ...] = ()
    reduction: int = 3
    gate_hidden: tuple[int, ...] = ()
    gate_context: tuple[int, ...] = ()  # positions the gate looks at; empty: a learned constant

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"GEN kind {self.kind!r}: expected one of {get_args(Kind)}")
        plain = self.activation == "linear" and self.gamma == 1 and not self.batch_norm
        if self.kind in ("squeeze", "gate") and not plain:
            raise ValueError(
                f"GEN kind {self.kind!r} has no activation, norm or gamma of its own: "
                f"expected linear, False and 1, got {self.activation!r}, {self.batch_norm} "
                f"and {self.gamma}"
            )
        if self.exclude_self and self.kind != "all_fields":
            raise ValueError(f"exclude_self needs kind='all_fields', got {self.kind!r}")
        if self.share_first and self.kind not in ("all_fields", "two_layer"):
            raise ValueError(f"share_first needs kind all_fields or two_layer, got {self.kind!r}")


class GEN(nn.Module):
    """Generate one vector per field.  (B, F, D) -> (B, F, D)

    >>> config = GENConfig(kind="all_fields", gamma=6.0, activation="relu")
    >>> GEN(3, 4, config)(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 3, 4])
    """

    exclude: Tensor
    kept: Tensor

    def __init__(self, n_positions: int, d: int, config: GENConfig) -> None:
        super().__init__()
        self.config, width, kind = config, n_positions * d, config.kind
        if max(config.only_positions, default=0) >= n_positions:
            raise ValueError(f"only_positions={config.only_positions}, but the model has "
                             f"{n_positions} positions, counted from 0")  # fmt: skip
        if kind == "all_fields":
            self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(width, width)))
        elif kind == "two_layer":
            self.body: nn.Module = nn.Sequential(
                nn.Linear(width, width, bias=False),
                BatchNorm(width),
                nn.ReLU(),
                nn.Linear(width, width, bias=False),
            )
        elif kind == "per_field":
            self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_positions, d, d)))
        elif kind == "attention":
            if d % 4:
                raise ValueError(f"GEN attention has 4 heads: d_embedding={d} must divide by 4")
            self.body = nn.Linear(d, 3 * d, bias=False)
            self.norm = nn.LayerNorm(d)
        elif kind == "squeeze":
            inner = max(1, n_positions // config.reduction)
            self.body = nn.Sequential(
                nn.Linear(n_positions, inner, bias=False),
                nn.ReLU(),
                nn.Linear(inner, n_positions, bias=False),
                nn.ReLU(),
            )
        elif kind == "gate":
            self.constant = nn.Parameter(torch.zeros(max(1, len(config.gate_context)) * d))
            self.body = MLP(len(self.constant), config.gate_hidden, d_out=width)
        self.activation = build_activation(config.activation, d)
        self.norm_flat = BatchNorm(1) if config.batch_norm else None
        blocks = torch.eye(n_positions).repeat_interleave(d, 0).repeat_interleave(d, 1)
        if config.exclude_self:
            self.register_buffer("exclude", 1 - blocks, persistent=False)
        kept = torch.zeros(n_positions, dtype=torch.bool)
        kept[list(config.only_positions)] = True
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, e: Tensor) -> Tensor:
        config = self.config
        g = widen(self._generate(e))
        if self.norm_flat is not None:  # one scale and shift over the whole flat vector
            g = self.norm_flat(g.flatten(1)[:, None]).view_as(e)
        g = self.activation(g.flatten(0, 1)).view_as(e) * config.gamma
        if config.only_positions:
            g = torch.where(self.kept[:, None], g, e)
        return g + e if config.residual else g

    def _generate(self, e: Tensor) -> Tensor:
        kind = self.config.kind
        if kind == "identity":
            return e
        if kind == "per_field":
            return torch.einsum("bfd,fdk->bfk", e, self.weight)
        if kind == "attention":
            q, k, v = self.body(e).chunk(3, dim=-1)
            mixed = attend(q, k, v, n_heads=4, dropout=0.2 if self.training else 0.0)
            return torch.relu(self.norm(mixed))
        if kind == "squeeze":
            return e * self.body(e.mean(dim=-1))[:, :, None]
        if kind == "gate":
            context = list(self.config.gate_context)
            seen = e[:, context].flatten(1) if context else self.constant.expand(len(e), -1)
            return e * 2 * torch.sigmoid(self.body(seen)).view_as(e)
        if kind == "two_layer":
            flat = self.body(e.flatten(1))
        else:
            weight = self.weight * self.exclude if self.config.exclude_self else self.weight
            flat = nn.functional.linear(e.flatten(1), weight)
        g = flat.view(e.shape)
        return g[:, :1].expand_as(e) if self.config.share_first else g


def generated_pairs(g: Tensor, e: Tensor) -> Tensor:
    """Σ_{i<j} ⟨g_i, e_j⟩ in one pass: ⟨g_i, Σ_{j>i} e_j⟩.  (B, F, D), (B, F, D) -> (B,)

    >>> generated_pairs(torch.tensor([[[2.0], [9.0]]]), torch.tensor([[[9.0], [3.0]]]))
    tensor([6.])
    """
    later = e.sum(dim=1, keepdim=True) - e.cumsum(dim=1)
    return (g * later).sum(dim=(1, 2))
