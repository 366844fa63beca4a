"""Dropout that does not dominate a small model's step on a CPU.

``torch.nn.functional.dropout`` draws one float per element; here one 64-bit draw decides eight, so
the probability is rounded to a multiple of 1/256 (and the scale follows the rounded value, which
keeps the mean exact).  On other devices it is PyTorch's own.
"""

import torch
from torch import Tensor, nn

__all__ = ["FastDropout", "add_dropout"]

BRANCHES = ("self_attn", "attn", "mlp")  # what a decoder layer adds to its residual stream
LOWEST = -(2**63)  # `random_()` without bounds would leave the sign bit of every draw at zero


class FastDropout(nn.Module):
    """Zero each element with probability ``p`` while training.  (*) -> (*)

    >>> FastDropout(0.5).eval()(torch.ones(2, 3)).sum()
    tensor(6.)
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout={p}: expected 0 or more and less than 1")
        self.p = p
        self.threshold = round(p * 256)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.threshold == 0:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.p)
        draws = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(LOWEST, None)
        keep = draws.view(torch.uint8)[: x.numel()].view(x.shape) >= self.threshold
        return x * keep * (256 / (256 - self.threshold))


def add_dropout(trunk: nn.Module, p: float) -> None:
    """Dropout on what each layer of a language model adds to its input; Qwen and Llama have none.

    >>> model = nn.ModuleDict({"mlp": nn.Identity()}); add_dropout(model, 0.5)
    >>> sorted(set(model["mlp"](torch.ones(64)).tolist()))
    [0.0, 2.0]
    """
    branches = [part for name, part in trunk.named_modules() if name.split(".")[-1] in BRANCHES]
    if not branches:
        raise ValueError(f"{type(trunk).__name__} has no part called {' or '.join(BRANCHES)} to "
                         "put dropout behind; use 0, or Qwen, Llama, GPT-2")  # fmt: skip
    drop = FastDropout(p)

    def thin(part: nn.Module, _given: object, made: Tensor | tuple[Tensor, ...]) -> object:
        drop.train(part.training)
        return (drop(made[0]), *made[1:]) if isinstance(made, tuple) else drop(made)

    for branch in branches:
        branch.register_forward_hook(thin)
