"""Losses over a catalogue of items: full softmax in chunks, sampled softmax, gBCE, BPR.

Letters: N positions, D dimensions, V items, M shared negatives, K negatives per position. Every
loss is a mean over its N positions, and zero where there is none.
"""

import torch
from torch import Tensor

from lib.train.chunked import chunked_softmax, widen

__all__ = ["bpr", "full_softmax", "gbce", "sampled_softmax"]

NEVER = float("-inf")


def full_softmax(
    hidden: Tensor, table: Tensor, targets: Tensor, *, ignore: int = -100, chunk: int | None = None
) -> Tensor:
    """Mean of -log softmax(hidden @ table.T)[target], logits never held whole.  (N, D), (V, D), (N)

    Positions whose target equals ``ignore`` are left out before any product is made.

    >>> hidden, table = torch.zeros(3, 4), torch.zeros(8, 4)
    >>> round(float(full_softmax(hidden, table, torch.tensor([0, 1, 7])).exp()))
    8
    """
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1).long()
    kept = targets != ignore
    if not bool(kept.all()):
        hidden, targets = hidden[kept], targets[kept]
    if len(targets) == 0:
        return hidden.sum() * 0 + table[:0].sum()
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= len(table):
        raise ValueError(
            f"targets reach from {low} to {high}, the table has rows 0 to {len(table) - 1}; "
            f"mark positions without a target with {ignore=}"
        )
    return chunked_softmax(hidden, table, targets, chunk)


def sampled_softmax(
    hidden: Tensor,  # (N, D)
    positives: Tensor,  # (N, D) vectors of the targets
    negatives: Tensor,  # (M, D) vectors of one sample shared by all positions
    *,
    targets: Tensor,  # (N) ids
    negative_ids: Tensor,  # (M)
    expected: Tensor,  # (M) how often each negative is expected in the sample: M times its q
    known: Tensor | None = None,  # (N, M) true where a negative is known to be a positive
) -> Tensor:
    """Softmax over the target and a sample, each negative less the log of its expected count.

    With that correction (logQ) the sum over the sample estimates the sum over the catalogue without
    bias, so the loss has the scale of the full one. A negative equal to the row's target would
    count it twice and is masked, as is every one in ``known``.
    """
    if len(hidden) == 0:
        return hidden.sum() * 0
    scores = widen(hidden @ negatives.T) - expected.log().to(hidden.device)  # (N, M)
    false = targets[:, None] == negative_ids[None, :]
    scores = scores.masked_fill(false if known is None else false | known, NEVER)
    own = widen((hidden * positives).sum(dim=-1, keepdim=True))  # (N, 1)
    return (torch.cat([own, scores], dim=1).logsumexp(dim=1) - own[:, 0]).mean()


def gbce(positive: Tensor, negative: Tensor, *, n_items: int, t: float) -> Tensor:
    """Generalised binary cross-entropy (Petrov and Macdonald 2023).  (N), (N, K) -> ()

    The positive's probability is raised to beta = a (t (1 - 1/a) + 1/a), where a = K / (V - 1) is
    the share of negatives sampled. t=0 is plain BCE; t=1 undoes the overconfidence that sampling
    causes. The mean runs over the K + 1 terms of each position.
    """
    if not 0 <= t <= 1:
        raise ValueError(f"{t=} must lie between 0 (plain BCE) and 1 (calibrated)")
    n_negatives = negative.shape[-1]
    if not 1 <= n_negatives < n_items:
        raise ValueError(f"expected 1 to {n_items - 1} negatives of {n_items=}, got {n_negatives}")
    if len(positive) == 0:
        return positive.sum() * 0
    share = n_negatives / (n_items - 1)
    beta = share * (t * (1 - 1 / share) + 1 / share)
    log_sigmoid = torch.nn.functional.logsigmoid
    terms = beta * log_sigmoid(widen(positive)) + log_sigmoid(-widen(negative)).sum(dim=-1)
    return -terms.mean() / (n_negatives + 1)


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """Mean of -log sigmoid(positive - negative), over the negatives too.  (N), (N, K) or (N) -> ()

    The same function ranks items given a context (state · item) and given a user (user · item).

    >>> round(float(bpr(torch.zeros(2), torch.zeros(2, 5))), 4)
    0.6931
    """
    if positive.numel() == 0:
        return positive.sum() * 0 + negative.sum() * 0
    own = widen(positive)
    margins = (own if negative.ndim == own.ndim else own[..., None]) - widen(negative)
    return -torch.nn.functional.logsigmoid(margins).mean()
