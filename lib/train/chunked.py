"""Cross-entropy over many classes, never holding all logits; the loss brings its gradient along.

Three ways to the same numbers. torch's own `linear_cross_entropy` with an explicit chunk (by
default it takes one row at a time where V is large) is the quicker one in float32. Under bfloat16
autocast products follow autocast: a chunk of rows at a time where its logits stay in the cache,
else a block of classes at a time. The chunks also serve a torch without that function.
"""

from typing import Any

import torch
from torch import Tensor

__all__ = ["chunked_softmax", "widen"]

CHUNK_ROWS = 256  # rows per chunk on a CPU: 3 MB of logits at V = 3,416, which stay in the cache
BLOCK_LOGITS = 2**20  # logits of all rows and a block of classes on a CPU: 4 MiB in float32
FEWEST_CLASSES = 512  # of a block, however many the rows
FEWEST_ROWS = 64  # below, each product reads the whole table for too little work
LARGEST_LOGITS = {"cpu": 3 * 2**24, "cuda": 2**28}  # a chunk: 192 MiB and 1 GiB in float32
CACHED_LOGITS = 2**24  # above, memory traffic decides, and adding to the whole table per chunk
SMALLEST = torch.finfo(torch.float32).tiny
NATIVE = hasattr(torch.nn.functional, "linear_cross_entropy")


def chunked_softmax(hidden: Tensor, table: Tensor, targets: Tensor, chunk: int | None) -> Tensor:
    """Mean cross-entropy of hidden @ table.T.  (N, D), (V, D), (N) -> ()"""
    kind, n_classes = hidden.device.type, len(table)
    if chunk is None:
        fitting = LARGEST_LOGITS.get(kind, 2**28) // n_classes
        chunk = max(FEWEST_ROWS, min(fitting, CHUNK_ROWS) if kind == "cpu" else fitting)
    half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16
    hidden, table = widen(hidden), widen(table)
    if hidden.dtype != table.dtype:
        raise ValueError(f"hidden is {hidden.dtype}, table {table.dtype}; make them equal")
    is_large = chunk * n_classes > CACHED_LOGITS and hidden.dtype == torch.float32
    if half and kind == "cpu" and is_large:
        made: Tensor = BlockedSoftmax.apply(hidden, table, targets)
        return made
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


class BlockedSoftmax(torch.autograd.Function):
    """A block of classes at a time in bfloat16, twice: first each row's sum, then the gradient.

    The logits are made anew the second time: a product is cheap where bfloat16 is, and all rows
    write each row of the table's gradient once. Within a block softmax is torch's own; the block's
    share of a row's whole sum scales the row, not the logits. The targets' part is float32.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            n_rows, block = len(hidden), max(FEWEST_CLASSES, BLOCK_LOGITS // len(hidden))
            states, rows = hidden.bfloat16(), table.bfloat16().split(block)
            sums, wanted = hidden.new_empty(n_rows, len(rows)), hidden.new_empty(n_rows)
            for number, part in enumerate(rows):
                logits = (states @ part.T).float()  # (N, block)
                sums[:, number] = logits[:, 0] - logits.log_softmax(dim=1)[:, 0]
                here = (targets // block == number).nonzero()[:, 0]
                wanted[here] = logits[here, targets[here] - number * block]
            whole = sums.logsumexp(dim=1)  # (N)
            shares = (sums - whole[:, None]).exp() / n_rows
            d_hidden, d_table = torch.zeros_like(hidden), torch.empty_like(table)
            for part, share, d_part in zip(rows, shares.T, d_table.split(block), strict=True):
                error = (states @ part.T).softmax(dim=1)
                d_hidden.addcmul_((error @ part).float(), share[:, None])
                d_part.copy_(error.T @ (hidden * share[:, None]).bfloat16())
            d_hidden.sub_(table[targets], alpha=1 / n_rows)
            d_table.index_add_(0, targets, hidden, alpha=-1 / n_rows)
            ctx.made = [d_hidden, d_table]
            return (whole - wanted).double().mean().to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        if not ctx.made:
            raise RuntimeError("this loss gives its gradient once; compute the loss again")
        d_table, d_hidden = ctx.made.pop(), ctx.made.pop()  # no copy: autograd adds to it in place
        scale = float(gradients[0])
        return (
            (d_hidden, d_table, None)
            if scale == 1
            else (d_hidden.mul_(scale), d_table.mul_(scale), None)
        )


def widen(x: Tensor) -> Tensor:
    """Half-precision numbers as float32, others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
