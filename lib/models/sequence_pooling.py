"""From scores over a long sequence to the few events that matter, and weighted sums over all.

kept   = the k events with the highest score, in the order of time          (B, L) -> (B, K)
w_i    = exp(s_i) / Σ exp(s_j) over what counts; all zeros where nothing does
Σ_i w_i T[id_i] = histogram(w, ids) @ T         no (B, L, D) tensor where the table is small
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lib.models.fields import Batch, Sizes

__all__ = ["Kept", "keep_top", "log_buckets", "masked_softmax", "pool_by_id", "sequence_mask"]


class Kept(NamedTuple):
    """Places of the kept events, oldest first, and which of them are real."""

    places: Tensor  # (B, K) int64
    counted: Tensor  # (B, K) bool; fewer than K events leave the rest False


def sequence_mask(batch: Batch, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Tokens and which of them count.  -> (B, L), (B, L)

    >>> batch = {"sequence": torch.tensor([[3, 5, 0]]), "length": torch.tensor([2])}
    >>> sequence_mask(batch, Sizes(n_ids=1, n_fields=1, n_tokens=9, max_len=4))[1]
    tensor([[ True,  True, False]])
    """
    for key in ("sequence", "length"):
        if key not in batch:
            raise ValueError(f"the batch has no {key!r}, only {sorted(batch)}; this model reads "
                             "the behaviour sequence of each row")  # fmt: skip
    tokens, length = batch["sequence"], batch["length"]
    if tokens.ndim != 2 or tokens.shape[1] > sizes.max_len:
        raise ValueError(f"'sequence' has shape {tuple(tokens.shape)}, expected (B, L) with L at "
                         f"most max_len={sizes.max_len}: keep the newest events")  # fmt: skip
    return tokens, torch.arange(tokens.shape[1], device=tokens.device) < length[:, None]


def keep_top(scores: Tensor, counted: Tensor, k: int) -> Kept:
    """The k best events of each row in time order; no gradient passes.  (B, L), (B, L) -> (B, K)

    >>> real = torch.tensor([[True, True, True, False]])
    >>> keep_top(torch.tensor([[3.0, 1.0, 2.0, 9.0]]), real, 2).places
    tensor([[0, 2]])
    """
    n_rows, length = scores.shape
    if k >= length:
        places = torch.arange(length, device=scores.device).expand(n_rows, -1)
        return Kept(places, counted)
    found = scores.detach().masked_fill(~counted, -torch.inf)
    places = found.topk(k, dim=1, sorted=False).indices.sort(dim=1).values
    return Kept(places, counted.gather(1, places))


def masked_softmax(scores: Tensor, counted: Tensor) -> Tensor:
    """Softmax over what counts; a row where nothing counts is all zeros.  (B, L), (B, L) -> (B, L)

    >>> masked_softmax(torch.zeros(2, 2), torch.tensor([[True, True], [False, False]])).tolist()
    [[0.5, 0.5], [0.0, 0.0]]
    """
    # The lowest finite number, not -inf: a row of -inf has no softmax, and its gradient is NaN.
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~counted, lowest).softmax(dim=1) * counted


def pool_by_id(weights: Tensor, ids: Tensor, table: Tensor) -> Tensor:
    """Σ_l w_l T[id_l], by adding the weights up per id first.  (B, L), (B, L), (V, D) -> (B, D)

    >>> pool_by_id(torch.tensor([[1.0, 2.0]]), torch.tensor([[1, 1]]), torch.tensor([[0.0], [5.0]]))
    tensor([[15.]])
    """
    histogram = weights.new_zeros(len(weights), len(table)).scatter_add(1, ids.long(), weights)
    return histogram @ table


def log_buckets(n_ages: int, n_buckets: int) -> Tensor:
    """Bucket 1 … n_buckets - 1 of each age 0 … n_ages - 1, finer for the young.  -> (n_ages,)

    Bucket 0 is left for the target itself.

    >>> log_buckets(8, 5)
    tensor([1, 2, 3, 3, 3, 4, 4, 4])
    """
    ages = torch.arange(n_ages, dtype=torch.float64)
    steps = (
        ages.add(1).log2() * (n_buckets - 1) / max(1.0, float(torch.tensor(n_ages + 1.0).log2()))
    )
    return 1 + steps.long().clamp(max=n_buckets - 2)
