"""Cross-entropy over many classes, a chunk of rows at a time: logits and gradient in one pass.

Two ways to the same numbers. torch's own `linear_cross_entropy` with an explicit chunk (by default
it takes one row at a time where V is large) is the quicker one in float32. The loop below serves
under bfloat16 autocast, where its products follow autocast and all else is float32, and in a torch
without that function.
"""

from typing import Any

import torch
from torch import Tensor

__all__ = ["chunked_softmax", "widen"]

CHUNK_ROWS = 256  # rows per chunk on a CPU: 3 MB of logits at V = 3,416, which stay in the cache
FEWEST_ROWS = 64  # below, each product reads the whole table for too little work
LARGEST_LOGITS = {"cpu": 3 * 2**24, "cuda": 2**28}  # a chunk: 192 MiB and 1 GiB in float32
CACHED_LOGITS = 2**24  # above, memory traffic decides and the loop's extra passes cost too much
SMALLEST = torch.finfo(torch.float32).tiny
NATIVE = hasattr(torch.nn.functional, "linear_cross_entropy")


def chunked_softmax(hidden: Tensor, table: Tensor, targets: Tensor, chunk: int | None) -> Tensor:
    """Mean cross-entropy of hidden @ table.T.  (N, D), (V, D), (N) -> ()"""
    kind, n_classes = hidden.device.type, len(table)
    if chunk is None:
        fitting = LARGEST_LOGITS.get(kind, 2**28) // n_classes
        chunk = max(FEWEST_ROWS, min(fitting, CHUNK_ROWS) if kind == "cpu" else fitting)
    half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16
    half = half and (kind != "cpu" or chunk * n_classes <= CACHED_LOGITS)
    hidden, table = widen(hidden), widen(table)
    if hidden.dtype != table.dtype:
        raise ValueError(f"hidden is {hidden.dtype}, table {table.dtype}; make them equal")
    if half or not NATIVE:
        loss: Tensor = ChunkedSoftmax.apply(hidden, table, targets, chunk, half)
        return loss
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=chunk, chunking_method=None)
    with torch.autocast(kind, enabled=False):
        return torch.nn.functional.linear_cross_entropy(hidden, table, targets, options=options)


class ChunkedSoftmax(torch.autograd.Function):
    """The loop: forward already makes both gradients, backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, table: Tensor, targets: Tensor, chunk: int, half: bool
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            rows = table.bfloat16() if half else table  # (V, D)
            loss = torch.zeros((), dtype=torch.float64, device=hidden.device)
            d_hidden, d_table = torch.empty_like(hidden), torch.zeros_like(table)
            for start in range(0, len(targets), chunk):
                part = slice(start, start + chunk)
                states = hidden[part].to(rows.dtype)
                wanted = targets[part, None]
                error = widen(states @ rows.T).softmax(dim=1)  # (chunk, V): one fused pass
                # A target below float32's smallest share counts as that (87 nats); the gradient
                # does not need it.
                loss -= error.gather(1, wanted).clamp_(min=SMALLEST).log_().sum()
                error.scatter_add_(1, wanted, error.new_full(wanted.shape, -1.0))
                error = error.to(rows.dtype)
                d_hidden[part] = error @ rows
                if half:
                    d_table += error.T @ states  # summed over chunks in float32
                else:
                    d_table.addmm_(error.T, states)
            ctx.save_for_backward(d_hidden.div_(len(targets)), d_table.div_(len(targets)))
            return (loss / len(targets)).to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        d_hidden, d_table = ctx.saved_tensors
        return d_hidden * gradients[0], d_table * gradients[0], None, None, None


def widen(x: Tensor) -> Tensor:
    """Half-precision numbers as float32, others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
