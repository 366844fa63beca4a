"""Orders of rows: pure functions of sizes, seed and epoch, so that resuming repeats them."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["balanced_order", "block_order", "make_generator", "shuffled_order"]

MIXED_BLOCKS = 8  # neighbouring rows spread over this many blocks of reading


def make_generator(seed: int, *parts: int) -> torch.Generator:
    """A CPU generator whose stream depends on the seed and all parts, well mixed."""
    state = np.random.SeedSequence([seed, *parts]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def shuffled_order(n_rows: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n_rows, generator=make_generator(seed, epoch))


def block_order(n_rows: int, block: int, seed: int, epoch: int) -> Tensor:
    """Shuffle blocks of rows, then the rows within each group of eight blocks.

    >>> sorted(block_order(7, 2, seed=1, epoch=0).tolist())
    [0, 1, 2, 3, 4, 5, 6]
    """
    if block < 1:
        raise ValueError(f"block={block} must be at least 1 row")
    generator = make_generator(seed, epoch)
    blocks = torch.randperm((n_rows + block - 1) // block, generator=generator)
    parts = []
    for group in blocks.split(MIXED_BLOCKS):
        rows = (group[:, None] * block + torch.arange(block)).reshape(-1)
        rows = rows[rows < n_rows]  # the last block of the file may be short
        parts.append(rows[torch.randperm(len(rows), generator=generator)])
    return torch.cat(parts)


def balanced_order(positive: Tensor, fraction: float, batch: int, seed: int, epoch: int) -> Tensor:
    """As many rows as there are, each batch with the same share of positives.

    Each class is read from permutations of its own, one after another, so that no row of a class
    comes back before all of them were seen.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"positive_fraction={fraction} must lie between 0 and 1")
    n_positive = min(max(round(fraction * batch), 1), batch - 1)
    classes = positive.nonzero().squeeze(1), (~positive).nonzero().squeeze(1)
    if not len(classes[0]) or not len(classes[1]) or batch < 2:
        raise ValueError(
            f"a balanced batch of {batch} needs both classes, however: "
            f"{len(classes[0])} positive and {len(classes[1])} negative rows"
        )
    generator = make_generator(seed, epoch)
    n_batches = (len(positive) + batch - 1) // batch
    parts = [
        draw_cycles(rows, n_batches * size, generator).reshape(n_batches, size)
        for rows, size in zip(classes, (n_positive, batch - n_positive), strict=True)
    ]
    order = torch.cat(parts, dim=1)  # (batches, batch): positives first
    places = torch.rand(order.shape, generator=generator).argsort(dim=1)  # so that every share of
    return order.gather(1, places).reshape(-1)[: len(positive)]  # a batch has both classes


def draw_cycles(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    cycles = -(-count // len(rows))
    drawn = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(cycles)]
    return torch.cat(drawn)[:count]
