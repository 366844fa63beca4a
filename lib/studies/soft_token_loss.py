"""What the soft-token recommender minimises: cross-entropy in context, BPR, norms of rows.

    collaborative · mean_t −ln p(i_t | u, i_<t)              softmax over all items, or a sample
  + bpr · mean_t,k [ −ln σ(h_t·E_i − h_t·E_k)                context and item
                     −ln σ(U_u·E_i − U_u·E_k) ]              user and item
  + regularisation · λ_c · ( mean |U_u|² + mean |E_i|² )      rows touched by the batch

NOTE[DIFF] BPR is a mean over negatives where the public original sums them (so its weight hangs on
how many there are), with log σ itself and not log(σ + 1e-8); the user-only position is trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lib.models.precision import widen
from lib.models.sasrec import SASRec
from lib.models.soft_token import SoftTokenRecommender
from lib.studies.negatives import ItemSampler
from lib.train.losses import bpr, full_softmax, sampled_softmax

__all__ = ["LossConfig", "SoftTokenLoss", "sampled_next_item_loss"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """Weights and forms of the terms; a weight of zero leaves its term out."""

    softmax: Literal["auto", "full", "sampled"]
    full_up_to: int  # items, for "auto": up to here the exact softmax is affordable
    n_sampled: int  # of the sampled softmax, shared by a batch
    collaborative: float
    bpr: float
    regularisation: float
    lambda_c: float
    n_negatives: int  # of BPR
    pool: Literal["shared", "position"]  # one sample of negatives for a batch, or one a position

    def __post_init__(self) -> None:
        for name in ("collaborative", "bpr", "regularisation", "lambda_c"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0")
        if not (self.collaborative or self.bpr):
            raise ValueError("collaborative=0 and bpr=0: nothing is left to learn from")
        if self.n_sampled < 1 or self.n_negatives < 1:
            raise ValueError(f"n_sampled={self.n_sampled}, n_negatives={self.n_negatives}: both "
                             "must be at least 1")  # fmt: skip

    def is_sampled(self, n_items: int) -> bool:
        """Whether the softmax runs over a sample; then the item table is updated row by row."""
        return self.softmax == "sampled" or (self.softmax == "auto" and n_items > self.full_up_to)


class SoftTokenLoss:
    """loss(model, batch) for the training loop; batches have "users", "items" and "predict"."""

    def __init__(self, config: LossConfig, sampler: ItemSampler) -> None:
        self.config, self.sampler = config, sampler

    def __call__(
        self, model: SoftTokenRecommender, batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        config, items = self.config, batch["items"].long()
        wanted = (items > 0) & batch["predict"].bool()
        states = model(batch["users"], items[:, :-1])[wanted]  # (N, d)
        targets = items[wanted]
        users = batch["users"].long()[:, None].expand_as(items)[wanted]
        losses: dict[str, Tensor] = {}
        if config.collaborative:
            losses["softmax"] = config.collaborative * self._softmax(model, states, targets)
        if config.bpr:
            losses |= self._bpr(model, states, targets, users)
        if config.regularisation and config.lambda_c:
            share = config.regularisation * config.lambda_c
            losses["norm"] = share * touched_norm(model, batch["users"], items)
        return losses

    def _softmax(self, model: SoftTokenRecommender, states: Tensor, targets: Tensor) -> Tensor:
        if not self.config.is_sampled(model.config.n_items):
            hidden, table = model.logits_parts(states, model.item_table()[1:])
            return full_softmax(widen(hidden), widen(table), targets - 1)
        ids, expected = self.sampler.pool(self.config.n_sampled)
        rows = model.item_rows(torch.cat([targets, ids]))
        hidden, rows = model.logits_parts(states, rows)
        own, others = rows[: len(targets)], rows[len(targets) :]
        return sampled_softmax(
            hidden, own, others, targets=targets, negative_ids=ids, expected=expected
        )

    def _bpr(
        self, model: SoftTokenRecommender, states: Tensor, targets: Tensor, users: Tensor
    ) -> dict[str, Tensor]:
        """Context and item, then user and item, with the same negatives."""
        n, weight = self.config.n_negatives, self.config.bpr
        shared = self.config.pool == "shared"
        if shared:
            ids = torch.randint(1, model.config.n_items + 1, (n,), device=targets.device)
            free = ~self.sampler.owns(users[:, None], ids[None, :])  # (N, n)
        else:
            ids, free = self.sampler.negatives(users, n), None
        rows = model.item_rows(torch.cat([targets, ids.flatten()]))
        losses = {}
        for name, queries in (("bpr_context", states), ("bpr_user", model.users(users))):
            query, scaled = model.logits_parts(queries, rows)
            query, scaled = widen(query), widen(scaled)
            own, others = scaled[: len(targets)], scaled[len(targets) :]
            positive = (query * own).sum(dim=-1)
            if free is None:
                negative = (others.view(*ids.shape, -1) @ query[:, :, None])[..., 0]
                losses[name] = weight * bpr(positive, widen(negative))
            else:
                negative = widen(query @ others.T)
                losses[name] = weight * bpr(positive[:, None].expand_as(free)[free], negative[free])
        return losses if model.config.use_user else {"bpr_context": losses["bpr_context"]}


def sampled_next_item_loss(
    model: SASRec, batch: Mapping[str, Tensor], *, sampler: ItemSampler, n_sampled: int
) -> Tensor:
    """SASRec's loss over the same kind of sample, where the recommender has a sampled softmax."""
    table = model.items()
    targets = batch["targets"]
    wanted = targets > 0
    ids, expected = sampler.pool(n_sampled)
    targets = targets[wanted].long()
    hidden, rows = model.logits_parts(
        model(batch["inputs"], table)[wanted], table[torch.cat([targets, ids])]
    )
    own, others = rows[: len(targets)], rows[len(targets) :]
    return sampled_softmax(
        hidden, own, others, targets=targets, negative_ids=ids, expected=expected
    )


def touched_norm(model: SoftTokenRecommender, users: Tensor, items: Tensor) -> Tensor:
    """Mean squared length of the batch's user rows and item rows, each row once.  -> ()"""
    people, things = torch.unique(users), torch.unique(items[items > 0])
    return sum(
        (widen(table(ids)).square().sum(dim=-1).mean()
         for table, ids in ((model.users, people), (model.items, things))),
        torch.zeros((), device=items.device),
    )  # fmt: skip
