"""The part of a model that stays float32 while autocast runs the rest in bfloat16.

Sums over many terms lose digits in bfloat16 (a factorisation machine subtracts two large sums), and
attention's backward pass in bfloat16 is twice as slow as in float32 on CPUs.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["in_float32", "widen"]


@contextmanager
def in_float32(tensor: Tensor) -> Iterator[None]:
    """Switch autocast off on the tensor's device; cast what comes from outside with ``.float()``.

    >>> with torch.autocast("cpu", dtype=torch.bfloat16):
    ...     x = torch.ones(2, 2) @ torch.ones(2, 2)
    ...     with in_float32(x):
    ...         y = x.float() @ x.float()
    >>> x.dtype, y.dtype
    (torch.bfloat16, torch.float32)
    """
    with torch.autocast(tensor.device.type, enabled=False):
        yield


def widen(x: Tensor) -> Tensor:
    """Half-precision numbers as float32; float32 and float64 as they are.  (*) -> (*)

    >>> widen(torch.zeros(2, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
