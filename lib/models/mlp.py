"""The deep part of every click model: layers of linear, norm, activation, dropout.

    h ← drop(act(norm(W h + b)))   for each hidden size;   then, where asked for, W h + b

Dice (DIN, Eq. 3): act(x) = p x + (1 - p) α x,  p = σ((x - E[x]) / sqrt(Var[x] + ε)), α from 0
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lib.models.dropout import FastDropout
from lib.models.precision import in_float32, widen

__all__ = ["MLP", "Activation", "BatchNorm", "Dice", "Norm", "build_activation", "start_linear"]

Activation = Literal["relu", "prelu", "dice", "gelu", "silu", "tanh", "sigmoid", "linear"]
Norm = Literal["none", "batch", "layer"]


class BatchNorm(nn.BatchNorm1d):
    """Batch norm that uses its running statistics where a batch has one row: the last batch of an
    epoch may be that small, and a variance of one number is no variance.  (B, D) -> (B, D)"""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) < 2:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(x)


class Dice(nn.Module):
    """A PReLU whose bend follows the data.  (N, D) -> (N, D)

    >>> Dice(3)(torch.ones(4, 3)).shape
    torch.Size([4, 3])
    """

    def __init__(self, d: int) -> None:
        super().__init__()
        self.norm = BatchNorm(d, affine=False, eps=1e-9)
        self.alpha = nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.norm(x))
        return x * (gate + (1 - gate) * self.alpha)


@torch.no_grad()
def start_linear(module: nn.Module) -> None:
    """Xavier's normal start with zero biases, for ``model.apply``: click models begin with vectors
    near zero, and PyTorch's own start, 1.7 times smaller, costs them the first dozens of steps.
    FuxiCTR, whose published numbers are the marks, starts so too."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            module.bias.zero_()


def build_activation(name: Activation, d: int) -> nn.Module:
    """The module that ``name`` stands for; ``d`` is used by Dice and PReLU."""
    if name == "dice":
        return Dice(d)
    if name == "prelu":
        return nn.PReLU(d)
    plain = {
        "relu": nn.ReLU,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "linear": nn.Identity,
    }
    if name not in plain:
        raise ValueError(
            f"activation {name!r}: expected one of {sorted([*plain, 'dice', 'prelu'])}"
        )
    return plain[name]()


class MLP(nn.Module):
    """Hidden layers, then an output layer unless ``d_out`` is None.  (B, d_in) -> (B, d_out)

    With ``d_out=1`` the last axis is dropped and the numbers are logits.

    >>> MLP(6, (8, 4), d_out=1)(torch.zeros(2, 6)).shape
    torch.Size([2])
    """

    def __init__(
        self,
        d_in: int,
        hidden: Sequence[int],
        *,
        d_out: int | None,
        activation: Activation = "relu",
        norm: Norm = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if min(hidden, default=1) < 1:
            raise ValueError(f"hidden={tuple(hidden)}: each size must be 1 or more")
        if norm not in ("none", "batch", "layer"):
            raise ValueError(f"norm={norm!r}: expected none, batch or layer")
        layers: list[nn.Module] = []
        width = d_in
        for size in hidden:
            layers.append(nn.Linear(width, size))
            if norm != "none":
                layers.append(BatchNorm(size) if norm == "batch" else nn.LayerNorm(size))
            layers.append(build_activation(activation, size))
            if dropout:
                layers.append(FastDropout(dropout))
            width = size
        self.hidden = nn.Sequential(*layers)
        self.d_hidden = width
        self.output = None if d_out is None else nn.Linear(width, d_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.hidden(x)
        if self.output is None:
            return x
        with in_float32(x):  # a logit in bfloat16 would be rounded to 1 part in 256
            out = self.output(widen(x))
        return out[:, 0] if out.shape[1] == 1 else out
