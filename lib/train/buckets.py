"""Batches of rows of nearly equal length, as many rows as fit a budget of tokens.

Padding is what a batch of unequal lengths mostly consists of (0.54 real positions on ML-1M at 200,
0.96 in buckets). Rows are shuffled, then sorted by length, cut into batches, and the batches are
shuffled: the cuts depend on the lengths only, so every epoch has the same number of batches.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.train.orders import make_generator
from lib.train.sources import Array, as_tensor, check_lengths, gather_rows, share_of

__all__ = ["BucketSource", "Ragged"]


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length, one after another: row i is values[offsets[i]:offsets[i + 1]]."""

    values: Array  # (E,)
    offsets: Array  # (N + 1,)
    padding: int = 0

    def pad(self, rows: Tensor, width: int) -> Tensor:
        """Rows side by side, right-padded.  (B,) -> (B, width)

        >>> Ragged(torch.tensor([5, 6, 7]), torch.tensor([0, 1, 3])).pad(torch.tensor([0, 1]), 2)
        tensor([[5, 0],
                [6, 7]])
        """
        values, offsets = as_tensor(self.values), as_tensor(self.offsets).long()
        starts, ends = offsets[rows], offsets[rows + 1]
        places = starts[:, None] + torch.arange(width)  # (B, width)
        inside = places < ends[:, None]
        found = gather_rows(values, places[inside])
        taken = found.new_full((len(rows), width), self.padding)
        taken[inside] = found
        return taken


class BucketSource:
    """Batches of about ``tokens`` positions, padding counted, from rows of known ``lengths``.

    Arrays named in ``padded`` are (N, L), right-padded, and cut to the longest row of each batch;
    `Ragged` arrays are padded to it; all others are taken as they are. ``grain`` rounds lengths up
    before sorting: more rows count as equal and mix better between epochs, for some padding.

    >>> source = BucketSource({"x": torch.arange(6).view(3, 2)}, [1, 2, 1], tokens=2, seed=1)
    >>> len(source), {batch["x"].numel() for batch in source.batches(0)}
    (2, {2, 4})
    """

    def __init__(
        self,
        arrays: Mapping[str, Array | Ragged],
        lengths: Array | Sequence[int],
        *,
        tokens: int,
        seed: int,
        padded: Sequence[str] = (),
        rows: Array | None = None,
        grain: int = 1,
    ) -> None:
        self.ragged = {name: a for name, a in arrays.items() if isinstance(a, Ragged)}
        self.tensors = {
            name: as_tensor(a) for name, a in arrays.items() if not isinstance(a, Ragged)
        }
        lengths = torch.tensor(lengths) if isinstance(lengths, Sequence) else as_tensor(lengths)
        sizes = {name: torch.empty(len(a.offsets) - 1, 0) for name, a in self.ragged.items()}
        check_lengths({"lengths": lengths, **self.tensors, **sizes})
        unknown = set(padded) - self.tensors.keys()
        if unknown or tokens < 1 or grain < 1:
            raise ValueError(
                f"padded={sorted(padded)} must name arrays out of {sorted(self.tensors)}, "
                f"{tokens=} and {grain=} be at least 1"
            )
        self.padded, self.batch, self.seed = frozenset(padded), tokens, seed
        self.rows = torch.arange(len(lengths)) if rows is None else as_tensor(rows).long()
        self.lengths = lengths.long()
        rounded = self.lengths[self.rows].clamp(min=1) + grain - 1
        self.buckets = rounded // grain * grain
        self.cuts = cut_by_tokens(self.buckets.sort().values.tolist(), tokens)

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def batches(
        self, epoch: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[dict[str, Tensor]]:
        generator = make_generator(self.seed, epoch)
        mixed = torch.randperm(len(self.rows), generator=generator)
        order = self.rows[mixed[self.buckets[mixed].argsort(stable=True)]]
        for index in torch.randperm(len(self), generator=generator)[start:].tolist():
            whole = order[self.cuts[index] : self.cuts[index + 1]]
            width = max(int(self.lengths[whole].max()), 1)
            yield self.take(share_of(whole, rank, world), width)

    def take(self, rows: Tensor, width: int) -> dict[str, Tensor]:
        """The given rows of every array, padded or cut to ``width``."""
        taken = {name: ragged.pad(rows, width) for name, ragged in self.ragged.items()}
        for name, tensor in self.tensors.items():
            part = gather_rows(tensor, rows.to(tensor.device))
            taken[name] = part[:, :width] if name in self.padded else part
        return taken


def cut_by_tokens(lengths: Sequence[int], tokens: int) -> list[int]:
    """Borders of batches over ascending lengths: rows times longest stays within ``tokens``.

    >>> cut_by_tokens([1, 1, 2, 3, 9], tokens=6)
    [0, 3, 4, 5]
    """
    cuts = [0]
    while cuts[-1] < len(lengths):
        first, low, high = cuts[-1], cuts[-1] + 1, len(lengths)  # one row always fits
        while low < high:
            middle = (low + high + 1) // 2
            if (middle - first) * lengths[middle - 1] <= tokens:
                low = middle
            else:
                high = middle - 1
        cuts.append(low)
    return cuts
