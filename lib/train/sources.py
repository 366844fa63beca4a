"""Where batches come from: slices of a permuted index over tensors, never a row at a time.

A source answers ``len(source)``, the batches of an epoch over all processes, and
``source.batches(epoch, start, rank, world)``, which yields dictionaries of tensors from batch
``start`` on. The order depends on the seed and the epoch only: a resumed run repeats it exactly.
Of each batch, process ``rank`` of ``world`` gets every world-th row, so that the rows of a step do
not depend on the number of processes.

Arrays may lie in memory, on the device, or in memory-mapped files (any NumPy array).
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lib.train.orders import balanced_order, block_order, shuffled_order

__all__ = ["Batch", "Source", "TensorSource", "as_tensor", "gather_rows", "share_of"]

Batch = Mapping[str, Any]  # name to tensor; entries that are not tensors are passed on whole
Array = Tensor | np.ndarray[Any, Any]


class Source(Protocol):
    """What the training loop asks of a source of batches."""

    def __len__(self) -> int: ...

    def batches(
        self, epoch: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]: ...


class TensorSource:
    """Batches of equal size over arrays that share their first axis.

    ``rows`` restricts it to a subset, such as the training rows. ``block`` shuffles blocks of that
    many neighbouring rows and then within groups of eight blocks, so that memory-mapped files are
    read in large pieces. ``positive_fraction`` fixes the share of rows whose ``label`` is above
    one half; both classes are then drawn from permutations of their own that repeat as needed.

    >>> source = TensorSource({"x": torch.arange(5)}, batch=2, seed=1)
    >>> sorted(int(x) for batch in source.batches(0) for x in batch["x"])
    [0, 1, 2, 3, 4]
    """

    def __init__(
        self,
        arrays: Mapping[str, Array],
        *,
        batch: int,
        seed: int,
        shuffle: bool = True,
        rows: Array | None = None,
        block: int | None = None,
        positive_fraction: float | None = None,
        label: str = "label",
        drop_last: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        self.tensors = {name: as_tensor(array) for name, array in arrays.items()}
        if device is not None:
            self.tensors = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        self.rows = None if rows is None else as_tensor(rows).long()
        self.n_rows = check_lengths(self.tensors) if self.rows is None else len(self.rows)
        check_lengths(self.tensors)
        if batch < 1 or self.n_rows < 1:
            raise ValueError(
                f"a source needs rows and a batch of at least 1: {self.n_rows=}, {batch=}"
            )
        if positive_fraction is not None and not (shuffle and block is None):
            raise ValueError("positive_fraction draws at random: it needs shuffle=True, block=None")
        self.batch, self.seed, self.shuffle, self.block = batch, seed, shuffle, block
        self.positive_fraction, self.drop_last = positive_fraction, drop_last
        self.positive = None
        if positive_fraction is not None:
            labels = (
                self.tensors[label].cpu()
                if self.rows is None
                else (self.tensors[label].cpu()[self.rows])
            )
            self.positive = labels > 0.5

    def __len__(self) -> int:
        whole, rest = divmod(self.n_rows, self.batch)
        return whole if self.drop_last and whole else whole + (rest > 0)

    def batches(
        self, epoch: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[dict[str, Tensor]]:
        order = self.order(epoch)
        for index in range(start, len(self)):
            chosen = share_of(order[index * self.batch : (index + 1) * self.batch], rank, world)
            yield self.take(chosen if self.rows is None else self.rows[chosen])

    def order(self, epoch: int) -> Tensor:
        """Places in ``rows`` in the order of this epoch, a function of seed and epoch only."""
        if self.positive is not None and self.positive_fraction is not None:
            return balanced_order(
                self.positive, self.positive_fraction, self.batch, self.seed, epoch
            )
        if not self.shuffle:
            return torch.arange(self.n_rows)
        if self.block is not None:
            return block_order(self.n_rows, self.block, self.seed, epoch)
        return shuffled_order(self.n_rows, self.seed, epoch)

    def take(self, rows: Tensor) -> dict[str, Tensor]:
        """The given rows of every array."""
        return {
            name: gather_rows(tensor, rows.to(tensor.device))
            for name, tensor in self.tensors.items()
        }


def share_of(rows: Tensor, rank: int, world: int) -> Tensor:
    """The rows of one process: every world-th; none where there are fewer rows than processes."""
    return rows if world == 1 else rows[rank::world]


def as_tensor(array: Array) -> Tensor:
    """A tensor over the same memory; a read-only memory map stays on disk and is only read."""
    if isinstance(array, Tensor):
        return array
    if array.dtype.byteorder == ">" or array.dtype.hasobject:
        raise ValueError(f"dtype {array.dtype} has no tensor form; store numbers in native order")
    with warnings.catch_warnings():  # torch warns that it cannot protect read-only memory
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def gather_rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """The given rows; uint16 and uint32, which torch can store but not gather, come out wider."""
    if tensor.dtype == torch.uint16:
        return tensor.view(torch.int16).index_select(0, rows).int() & 0xFFFF
    if tensor.dtype == torch.uint32:
        return tensor.view(torch.int32).index_select(0, rows).long() & 0xFFFF_FFFF
    return tensor.index_select(0, rows)


def check_lengths(tensors: Mapping[str, Tensor]) -> int:
    lengths = {name: len(tensor) for name, tensor in tensors.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"arrays of one source must share their first axis, however: {lengths}")
    return next(iter(lengths.values()))
