"""Train any click model on Clicks, fold by fold, and keep its two outputs apart.

A loss that weighs both classes alike (``weighted``) teaches the balanced probability, the plain
one (``plain``, ``self_ensemble``) the true one.  ``Predicted`` holds logits of the true one and
says the rate; the balanced one is the same logit shifted by the prior.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lib.evaluate import clicks as measures
from lib.studies.click_view import ReadsClicks
from lib.train import losses
from lib.train.loop import Result, train
from lib.train.orders import balanced_order, shuffled_order
from lib.train.plan import Plan
from lib.train.sources import share_of

__all__ = [
    "ClickLoss",
    "ClickSource",
    "LossSettings",
    "balancing_shift",
    "fit_click_model",
    "judge_logits",
    "logit",
    "predict_logits",
    "sigmoid",
]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Batch = dict[str, Tensor]
Report = Callable[..., None]
BLOCK = 16_384  # rows predicted at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class LossSettings:
    """Which loss; ``auxiliary`` weighs a model's second head, where it has one.

    ``embedding_penalty``: λ of BARS's regulariser of the embedding table, which then is not lazy.
    """

    kind: Literal["plain", "weighted", "focal", "self_ensemble"]
    focal_gamma: float = 2.0
    auxiliary: float = 0.0
    embedding_penalty: float = 0.0

    @property
    def is_balanced(self) -> bool:
        return self.kind == "weighted"


class ClickSource:
    """Batches of chosen rows of a memory-mapped dataset, gathered whole, never a row at a time.

    ``add`` puts beside a batch what else is known of its rows, such as what their ads say.
    """

    def __init__(
        self,
        clicks: ReadsClicks,
        rows: Ints,
        *,
        batch: int,
        seed: int,
        max_len: int = 0,
        positive_fraction: float | None = None,
        shuffle: bool = True,
        device: str = "cpu",
        add: Callable[[Batch, Ints], Batch] | None = None,
    ) -> None:
        if not len(rows) or batch < 1:
            raise ValueError(f"{len(rows)} rows in batches of {batch}: expected at least one row")
        self.clicks, self.rows, self.batch, self.seed = clicks, rows, batch, seed
        self.max_len, self.shuffle, self.device = max_len, shuffle, device
        self.positive_fraction, self.add = positive_fraction, add
        self.positive = torch.from_numpy(np.asarray(clicks.label[rows]) > 0)

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch)

    def batches(self, epoch: int, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        order = self._order(epoch)
        for index in range(start, len(self)):
            places = share_of(order[index * self.batch : (index + 1) * self.batch], rank, world)
            yield self.take(self.rows[places.numpy()])

    def _order(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(len(self.rows))
        if self.positive_fraction is not None:
            return balanced_order(
                self.positive, self.positive_fraction, self.batch, self.seed, epoch
            )
        return shuffled_order(len(self.rows), self.seed, epoch)

    def take(self, rows: Ints) -> Batch:
        """Rows of the dataset as the record that every click model reads."""
        found = self.clicks.take(rows, max_len=self.max_len or 1)
        arrays: dict[str, npt.NDArray[Any]] = {
            "categorical": found.categorical,
            "numeric": found.numeric,
            "missing": found.missing,
            "label": found.label,
        }
        if self.max_len:
            arrays["sequence"], arrays["length"] = found.padded(self.max_len)
        batch = {name: torch.from_numpy(np.ascontiguousarray(a)).to(self.device)
                 for name, a in arrays.items()}  # fmt: skip
        return batch if self.add is None else self.add(batch, rows)


@dataclass(frozen=True, slots=True)
class ClickLoss:
    """The loss of these settings; ``rate`` is the click rate of the training rows.

    A record, because a function within a function cannot be sent to other processes.
    """

    settings: LossSettings
    rate: float

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        settings, labels = self.settings, batch["label"].float()
        twice = settings.kind == "self_ensemble"
        second = auxiliary = None
        if hasattr(model, "all_logits"):
            first, second, auxiliary = model.all_logits(batch, second_pass=twice)  # type: ignore[operator]
        elif twice:
            first, second = model.two_passes(batch)  # type: ignore[operator]
        else:
            first = model(batch)
        if second is not None:
            terms = {"loss": losses.self_ensemble(first, second, labels)}
        else:
            terms = {"loss": self.of_logits(first, labels)}
        if auxiliary is not None and settings.auxiliary:
            terms["auxiliary"] = settings.auxiliary * self.of_logits(auxiliary, labels)
        if settings.embedding_penalty:
            terms["penalty"] = settings.embedding_penalty * model.fields.penalty()  # type: ignore[operator,union-attr]
        return terms

    def of_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.settings.kind == "weighted":
            return losses.weighted_log_loss(logits, labels, rate=self.rate)
        if self.settings.kind == "focal":
            return losses.focal(logits, labels, gamma=self.settings.focal_gamma)
        return losses.binary_cross_entropy(logits, labels)


@torch.no_grad()
def predict_logits(
    model: nn.Module, clicks: ReadsClicks, rows: Ints, *, max_len: int = 0, device: str = "cpu"
) -> Floats:
    """Logits of rows in their order, as the model was trained.  -> (N,)"""
    if not len(rows):
        return np.zeros(0)
    was_training = model.training
    model.eval()
    source = ClickSource(
        clicks, rows, batch=BLOCK, seed=0, max_len=max_len, shuffle=False, device=device
    )
    parts = [model(batch).double().cpu() for batch in source.batches(0)]
    model.train(was_training)
    return torch.cat(parts).numpy()


def judge_logits(labels: npt.ArrayLike, logits: Floats, *, rate: float) -> dict[str, float]:
    """All click measures of true-probability logits; the balanced ones by a shift of the prior."""
    p_true = sigmoid(logits)
    return measures.summarise(labels, p_true, sigmoid(logits + balancing_shift(rate)))


def judge_model(
    model: nn.Module, *, clicks: ReadsClicks, rows: Ints, shift: float, rate: float, max_len: int,
    device: str,
) -> dict[str, float]:  # fmt: skip
    """All click measures of a model on some rows; ``shift`` takes its logit to the true one."""
    found = predict_logits(model, clicks, rows, max_len=max_len, device=device)
    return judge_logits(np.asarray(clicks.label[rows]), found + shift, rate=rate)


def fit_click_model(
    model: nn.Module,
    clicks: ReadsClicks,
    rows: Ints,
    valid: Ints,
    plan: Plan,
    settings: LossSettings,
    *,
    max_len: int = 0,
    positive_fraction: float | None = None,
    device: str = "cpu",
    scratch: Path | None = None,
    report: Report | None = None,
    logs: Path | None = None,
    objective: Callable[[nn.Module, Batch], Any] | None = None,
) -> tuple[nn.Module, Result, float]:
    """Train one model.  -> model with its best weights, result, shift from its logit to the true

    Validation answers every click measure, so that any of them can decide (``plan.metric``).
    ``objective`` replaces the loss of the settings, which then only say what its logits mean.
    """
    rate = float(np.mean(np.asarray(clicks.label[rows]) > 0))
    if not 0 < rate < 1:
        raise ValueError(f"the {len(rows)} training rows have a click rate of {rate}: one class "
                         "alone teaches nothing")  # fmt: skip
    seen = positive_fraction if positive_fraction is not None else rate
    # From the share of clicks that the logit was learnt at (one half where both weigh alike).
    shift = logit(rate) - (0.0 if settings.is_balanced else logit(seen))
    validate = partial(
        judge_model, clicks=clicks, rows=valid, shift=shift, rate=rate, max_len=max_len,
        device=device,
    )  # fmt: skip
    source = ClickSource(
        clicks, rows, batch=plan.batch or 4096, seed=plan.seed, max_len=max_len,
        positive_fraction=positive_fraction, device=device,
    )  # fmt: skip
    result = train(
        model.to(device), source, objective or ClickLoss(settings, seen), plan=plan,
        validate=validate if len(valid) else None, scratch=scratch, report=report, logs=logs,
    )  # fmt: skip
    return model, result, shift


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def balancing_shift(rate: float) -> float:
    """What to add to the logit of the true probability to get that of the balanced one."""
    return -logit(rate)


def sigmoid(logits: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(logits), dtype=np.float64)
