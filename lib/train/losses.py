"""Losses as functions of logits or vectors; each is a mean over its terms, in float32 or better.

Clicks: logits (B), labels (B) in {0, 1}. Catalogue losses live in `lib.train.catalogue` and are
exported here too.
"""

import math

import torch
from torch import Tensor

from lib.train.catalogue import bpr, full_softmax, gbce, sampled_softmax
from lib.train.chunked import widen

__all__ = [
    "binary_cross_entropy",
    "bpr",
    "focal",
    "full_softmax",
    "gbce",
    "info_nce",
    "masked_token_loss",
    "sampled_softmax",
    "self_ensemble",
    "weighted_log_loss",
]


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of -ln p(label).  (B), (B) -> ()

    >>> round(float(binary_cross_entropy(torch.zeros(2), torch.tensor([0, 1]))), 4)
    0.6931
    """
    return cross_entropy_terms(logits, labels).mean()


def weighted_log_loss(logits: Tensor, labels: Tensor, *, rate: float | None = None) -> Tensor:
    """Half the mean of -ln p over positives, half of -ln(1 - p) over negatives.  (B), (B) -> ()

    With ``rate``, the share of positives in all training rows, each row has the weight it has in
    the whole set and the loss is a mean over rows, equal in expectation. Without it the means are
    the batch's own, and a class that is absent from it adds nothing.
    """
    terms, positive = cross_entropy_terms(logits, labels), labels > 0.5
    if rate is not None:
        if not 0 < rate < 1:
            raise ValueError(f"{rate=} must lie between 0 and 1: the share of positive rows")
        return (terms * torch.where(positive, 0.5 / rate, 0.5 / (1 - rate))).mean()
    n_positive = positive.sum()
    n_negative = positive.numel() - n_positive
    weights = torch.where(positive, 0.5 / n_positive.clamp(min=1), 0.5 / n_negative.clamp(min=1))
    return (terms * weights.to(terms.dtype)).sum()


def focal(logits: Tensor, labels: Tensor, *, gamma: float, alpha: float | None = None) -> Tensor:
    """Mean of (1 - p(label))^gamma times -ln p(label).  (B), (B) -> ()

    The factor belongs to each row, not to the mean (Lin et al. 2017, Eq. 4). ``alpha`` weighs
    positives, 1 - alpha negatives. gamma=0 is binary cross-entropy.
    """
    if gamma < 0:
        raise ValueError(f"{gamma=} must be at least 0; 0 is binary cross-entropy")
    terms = cross_entropy_terms(logits, labels)
    wrong = torch.sigmoid(torch.where(labels > 0.5, -widen(logits), widen(logits)))  # 1 - p(label)
    terms = terms * wrong**gamma
    if alpha is not None:
        terms = terms * torch.where(labels > 0.5, alpha, 1 - alpha)
    return terms.mean()


def self_ensemble(first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
    """Two dropout passes teach each other (Li et al. 2025, QNN).  (B), (B), (B) -> ()

    p = (p1 + p2) / 2; BCE(p, y) + BCE(p1, p held fixed) + BCE(p2, p held fixed).
    """
    log_sigmoid = torch.nn.functional.logsigmoid
    first, second = widen(first), widen(second)
    log_p = torch.logaddexp(log_sigmoid(first), log_sigmoid(second)) - math.log(2)
    log_not = torch.logaddexp(log_sigmoid(-first), log_sigmoid(-second)) - math.log(2)
    labels = labels.to(log_p.dtype)
    own = -(labels * log_p + (1 - labels) * log_not).mean()
    teacher = log_p.detach().exp()
    return own + binary_cross_entropy(first, teacher) + binary_cross_entropy(second, teacher)


def info_nce(
    first: Tensor,  # (N, D)
    second: Tensor,  # (N, D) another view of the same rows
    *,
    temperature: float,
    groups: Tensor | None = None,  # (N) equal where two rows say the same, such as one title
) -> Tensor:
    """Each row of ``first`` must find its own row in ``second`` among the batch, by cosine.

    Rows of one group are not negatives of each other: a second copy of a title is no mistake.
    """
    if not temperature > 0:
        raise ValueError(f"{temperature=} must be above zero")
    with torch.autocast(first.device.type, enabled=False):  # sharp softmax of near-equal cosines
        normalise = torch.nn.functional.normalize
        cosines = normalise(widen(first), dim=-1) @ normalise(widen(second), dim=-1).T
    logits = cosines / temperature  # (N, N)
    own = torch.eye(len(first), dtype=torch.bool, device=first.device)
    if groups is not None:
        same = groups[:, None] == groups[None, :]
        logits = logits.masked_fill(same & ~own, float("-inf"))
    return (logits.logsumexp(dim=1) - logits.diagonal()).sum() / max(len(first), 1)


def masked_token_loss(
    hidden: Tensor,  # (B, L, D)
    table: Tensor,  # (V, D)
    labels: Tensor,  # (B, L) the hidden token's id, `ignore` elsewhere
    *,
    shift: int,
    ignore: int = -100,
) -> Tensor:
    """Cross-entropy at masked positions only, each predicted from the state ``shift`` before it.

    shift=0 is masked language modelling, shift=1 next-token prediction at masked positions.
    A label without a state ``shift`` before it cannot be predicted and does not count.
    """
    if shift not in (0, 1):
        raise ValueError(f"{shift=} must be 0 (the masked state) or 1 (the state before it)")
    states = hidden[:, : hidden.shape[1] - shift]
    return full_softmax(states.flatten(0, 1), table, labels[:, shift:].flatten(), ignore=ignore)


def cross_entropy_terms(logits: Tensor, labels: Tensor) -> Tensor:
    """-ln p(label) of each row; labels may be probabilities."""
    if logits.shape != labels.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} differ")
    logits = widen(logits)
    return torch.nn.functional.binary_cross_entropy_with_logits(
        logits, labels.to(logits.dtype), reduction="none"
    )
