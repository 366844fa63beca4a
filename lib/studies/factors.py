"""BPR-MF and FPMC on Histories: the rows that know tastes and transitions but no sequence."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lib.data.histories import Histories, Targets
from lib.evaluate import ranking
from lib.models.bpr_mf import BPRMF
from lib.models.fpmc import FPMC
from lib.studies.counting import training_part
from lib.studies.negatives import ItemSampler
from lib.train.loop import Result, train
from lib.train.losses import bpr
from lib.train.plan import Plan
from lib.train.sources import TensorSource

__all__ = ["FactorLoss", "build_factors", "encode_factors", "train_factors", "training_steps"]

FactorModel = BPRMF | FPMC


def build_factors(
    kind: Literal["bpr-mf", "fpmc"], histories: Histories, *, n_dims: int, seed: int
) -> FactorModel:
    """A model with rows drawn from ``seed``."""
    torch.manual_seed(seed)
    if kind == "bpr-mf":
        return BPRMF(n_users=histories.n_users, n_items=histories.n_items, n_dims=n_dims)
    return FPMC(n_users=histories.n_users, n_items=histories.n_items, n_dims=n_dims)


def training_steps(histories: Histories) -> dict[str, NDArray[np.int32]]:
    """Every training interaction with its user and the item before it (0: none)."""
    offsets, items = training_part(histories)
    users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)).astype(np.int32)
    last = np.concatenate([np.zeros(1, dtype=np.int32), items[:-1]]).astype(np.int32)
    last[offsets[:-1][np.diff(offsets) > 0]] = 0
    return {"users": users, "last": last, "items": np.asarray(items, dtype=np.int32)}


class FactorLoss:
    """BPR of each interaction against items its user has not met."""

    def __init__(self, sampler: ItemSampler, *, n_negatives: int) -> None:
        self.sampler, self.n_negatives = sampler, n_negatives

    def __call__(self, model: FactorModel, batch: Mapping[str, Tensor]) -> Tensor:
        users, last, items = (batch[name].long() for name in ("users", "last", "items"))
        ids = torch.cat([items[:, None], self.sampler.negatives(users, self.n_negatives)], dim=1)
        scores = model(users, last, ids)
        return bpr(scores[:, 0], scores[:, 1:])


def encode_factors(
    model: FactorModel, histories: Histories, targets: Targets
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors of the users of each target and of all items; their products are the scores."""
    last, _ = histories.windows(targets.users, targets.positions, 1)
    device = model.users.weight.device
    people = torch.from_numpy(targets.users.astype(np.int64)).to(device)
    before = torch.from_numpy(last[:, 0].astype(np.int64)).to(device)
    users, items = model.user_vectors(people, before), model.item_vectors()
    return users.float().cpu().numpy(), items.float().cpu().numpy()


def train_factors(
    model: FactorModel,
    histories: Histories,
    plan: Plan,
    *,
    n_negatives: int,
    batch: int,
    valid: Targets,
    filter_seen: bool,
    device: str = "cpu",
    scratch: Path | None = None,
    report: Callable[..., None] | None = None,
) -> Result:
    """Train on all interactions; epochs are chosen by full-ranking NDCG@10 on ``valid``."""
    source = TensorSource(training_steps(histories), batch=batch, seed=plan.seed, device=device)
    wanted = histories.target_items(valid)
    seen = histories.seen(valid.users, valid.positions) if filter_seen else None

    def validate(trained: nn.Module) -> Mapping[str, float]:
        assert isinstance(trained, BPRMF | FPMC)
        users, items = encode_factors(trained, histories, valid)
        ranks = ranking.rank_targets(
            torch.from_numpy(users).to(device), torch.from_numpy(items).to(device), wanted, seen
        )
        return ranking.summarise(ranks, ks=[10], measures=["hit", "ndcg"])

    loss = FactorLoss(ItemSampler(histories, device=device), n_negatives=n_negatives)
    return train(
        model.to(device),
        source,
        loss,
        plan=plan,
        validate=validate,
        scratch=scratch,
        report=report,
    )
