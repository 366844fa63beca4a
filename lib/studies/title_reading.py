"""The language model learns what titles tell, ad by ad, before it meets single rows.

    logit_a = c̄ + said(soft tokens of one of a's rows, its ad hidden; title of a)
    loss    = Σ_a w_a (n_a softplus(logit_a) − k_a logit_a)       w_a = 1 / (1 + n_a / 500)

n_a training rows, k_a of them clicked, c̄ the log odds of all: one pass over 400 ads says as much of
their titles as one over 70,000 rows.  Tokens of a title are left out at random, or it would be
learnt by heart.  A fifth of the ads takes no part: they choose the pass, and stand for ads that
are new when the projector learns how far a title can be believed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lib.data.clicks import Clicks
from lib.models.llm_ctr import LLMCTR
from lib.studies.ad_texts import TitleTokens
from lib.studies.clicks import ClickSource, logit
from lib.train.loop import Result, train
from lib.train.plan import Plan

__all__ = ["AdSource", "learn_titles", "left_out_ads"]

Ints = npt.NDArray[np.int64]
LEFT_OUT = 5  # one ad in so many
KEEP = 0.7  # share of a title's tokens
ENOUGH = 500  # rows at which an ad begins to weigh less than its number


def left_out_ads(titles: TitleTokens) -> Ints:
    """The fifth of the known ads whose titles are not learnt from, the same in every run."""
    known = np.flatnonzero(titles.texts.rows > 0)
    return np.sort(np.random.default_rng(0).permutation(known)[::LEFT_OUT])


@dataclass(frozen=True)
class AdSource:
    """Batches of ads: one training row of each, its ad hidden, with all its rows and clicks."""

    clicks: Clicks
    titles: TitleTokens
    ads: Ints
    batch: int
    seed: int
    keep: float = 1.0
    device: str = "cpu"
    rows: Ints = field(init=False)  # training rows in the order of their ads
    first: Ints = field(init=False)  # where each ad's rows begin

    def __post_init__(self) -> None:
        train_rows, texts = self.clicks.rows("train"), self.titles.texts
        order = np.argsort(texts.ads[train_rows], kind="stable")
        object.__setattr__(self, "rows", train_rows[order])
        object.__setattr__(self, "first", np.cumsum(texts.rows) - texts.rows)

    def __len__(self) -> int:
        return -(-len(self.ads) // self.batch)

    def batches(
        self, epoch: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[dict[str, Tensor]]:
        texts, rng = self.titles.texts, np.random.default_rng((self.seed, epoch))
        ads = rng.permutation(self.ads)
        rows = self.rows[self.first[ads] + rng.integers(texts.rows[ads])]
        hidden = self.titles.hiding(self.ads, keep=self.keep)
        source = ClickSource(
            self.clicks, rows, batch=self.batch, seed=0, device=self.device, add=hidden.add
        )
        for begin in range(start * self.batch, len(ads), self.batch):
            some = slice(begin + rank, begin + self.batch, world)
            yield source.take(rows[some]) | {
                name: torch.from_numpy(numbers[ads[some]]).float().to(self.device)
                for name, numbers in (("ad_rows", texts.rows), ("ad_clicks", texts.clicks))
            }


def ad_loss(model: nn.Module, batch: Mapping[str, Any], *, centre: float) -> Tensor:
    """Binomial log loss of the ads of a batch, per row that counts.  -> ()"""
    z, n = centre + cast(LLMCTR, model).say(batch)[0], batch["ad_rows"]
    weight = 1 / (1 + n / ENOUGH)
    loss = n * nn.functional.softplus(z) - batch["ad_clicks"] * z
    return (weight * loss).sum() / (weight * n).sum()


def learn_titles(
    model: LLMCTR, data: Mapping[str, Clicks], titles: Mapping[str, TitleTokens], plan: Plan, *,
    join: Any, device: str = "cpu", scratch: Path | None = None, report: Any = None,
) -> Result:  # fmt: skip
    """Tune the language model on titles; then it is frozen, and counts where an ad is new."""
    make = partial(AdSource, batch=plan.batch or 32, seed=plan.seed, device=device)
    held = {name: left_out_ads(titles[name]) for name in data}
    taught = {name: np.setdiff1d(np.flatnonzero(titles[name].texts.rows), held[name])
              for name in data}  # fmt: skip
    sources = {name: make(data[name], titles[name], taught[name], keep=KEEP) for name in data}
    centre = logit(model.config.base_rate)

    def validate(trained: nn.Module) -> dict[str, float]:
        parts = [(ad_loss(trained, batch | {"variant": name}, centre=centre), len(batch["ad_rows"]))
                 for name in data
                 for batch in make(data[name], titles[name], held[name]).batches(0)]  # fmt: skip
        total = sum(float(loss) * n for loss, n in parts)
        return {"log_loss": total / sum(n for _, n in parts)}

    result = train(
        model.to(device), join(sources), partial(ad_loss, centre=centre), plan=plan,
        validate=validate, scratch=scratch, report=report, count=lambda batch: len(batch["title"]),
    )  # fmt: skip
    model.language.requires_grad_(False)
    with torch.no_grad():
        model.share.fill_(1.0)
    return result
