"""Out of memory: a batch passes in twice as many pieces, its effect stays, and it is reported."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lib.train.sources import Batch

if TYPE_CHECKING:
    from lib.train.state import Run

__all__ = ["MEMORY_ERRORS", "halve_pieces", "is_out_of_memory", "peak_memory", "split_batch"]

MEMORY_ERRORS = (torch.OutOfMemoryError, RuntimeError, MemoryError)
CPU_TEXTS = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the host refused an allocation; torch's CPU says so only in words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in CPU_TEXTS)


def split_batch(batch: Batch, pieces: int) -> Sequence[Batch]:
    """The batch cut along its rows into at most ``pieces`` parts; what is no tensor goes to each.

    >>> [len(part["x"]) for part in split_batch({"x": torch.zeros(5)}, 2)]
    [3, 2]
    """
    tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
    n_rows = len(next(iter(tensors.values())))
    if pieces == 1 or n_rows <= 1:
        return [batch]
    cut: dict[str, Sequence[Any]] = {
        name: value.tensor_split(min(pieces, n_rows)) for name, value in tensors.items()
    }
    return [
        {**batch, **{name: parts[index] for name, parts in cut.items()}}
        for index in range(min(pieces, n_rows))
    ]


def halve_pieces(run: "Run", batches: Sequence[Batch], error: BaseException) -> None:
    """Double the number of pieces for the rest of the run; raise where that cannot help."""
    run.optimizer.clear()
    if run.device.type == "cuda":
        torch.cuda.empty_cache()
    largest = max(len(v) for batch in batches for v in batch.values() if isinstance(v, Tensor))
    if run.world > 1 or run.pieces >= largest:
        reason = (
            "one row alone does not fit"
            if run.world == 1
            else ("several processes cannot change course alone; lower batch and raise accumulate")
        )
        raise MemoryError(f"out of memory in step {run.step}: {reason}") from error
    run.pieces *= 2
    run.change(
        f"out of memory: each batch now passes in {run.pieces} pieces of about "
        f"{-(-largest // run.pieces)} rows, the effective batch is unchanged (statistics within a "
        "batch, such as in-batch negatives or batch normalisation, now see one piece)"
    )


def peak_memory(device: torch.device) -> int:
    """Largest memory so far in bytes: of the device, or of this process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource  # absent on Windows, where nobody trains on a GPU less host of ours
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
