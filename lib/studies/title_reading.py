"""The language model learns what titles tell, ad by ad, before it meets single rows.

    logit_a = c̄ + said(soft tokens of one of a's rows, its ad hidden; title of a)
    loss    = Σ_a w_a (n_a softplus(logit_a) − k_a logit_a)       w_a = 1 / (1 + n_a / 500)

n_a training rows, k_a of them clicked, c̄ the log odds of all: one pass over 400 ads says as much of
their titles as one over 70,000 rows.  Tokens of a title are left out at random, or it would be
learnt by heart.  A fifth of the ads takes no part: they choose the pass, and stand for ads that
are new when the projector learns how far a title can be believed.
"""

import copy
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
from lib.language.backbone import Backbone
from lib.language.tokens import pad_rows, tokenise
from lib.models.llm_ctr import LLMCTR
from lib.studies.ad_texts import AdTexts
from lib.studies.clicks import ClickSource, logit
from lib.train.loop import Result, train
from lib.train.plan import Plan

__all__ = ["AdSource", "TitleTokens", "learn_titles", "left_out_ads"]

Ints = npt.NDArray[np.int64]
RARE = 1  # local id of a rare or unseen value, as in lib.data.clicks
LEAST = 2  # training rows with which a value has an id of its own
LEFT_OUT = 5  # one ad in so many
KEEP = 0.7  # share of a title's tokens
ENOUGH = 500  # rows at which an ad begins to weigh less than its number


class TitleTokens:
    """Puts the title of each row's ad beside a batch, with how little training tells of that ad.

    Found by the row's own ad and not by its training id: an ad that is new has a title too, and
    there it says most.  Rows of ``hidden`` ads are shown as if their ad was new.
    """

    def __init__(
        self, clicks: Clicks, texts: AdTexts, backbone: Backbone, *, max_tokens: int
    ) -> None:
        if texts.field not in clicks.fields:
            raise ValueError(f"the texts speak of {texts.field!r}; expected one of the fields "
                             f"{clicks.fields}")  # fmt: skip
        self.texts, self.pad_id, self.keep = texts, backbone.pad_id, 1.0
        self.tokens = tokenise(backbone.tokenizer, texts.titles, max_tokens=max_tokens)
        self.hidden = np.zeros(len(texts.titles), dtype=bool)
        rows = clicks.rows("train")
        ids = clicks.take(rows).categorical.astype(np.int64)
        pairs = ids * len(self.hidden) + texts.ads[rows][:, None]
        self.pairs, self.pair_rows = np.unique(pairs, return_counts=True)
        self.id_rows = np.bincount(ids.ravel(), minlength=clicks.n_ids)
        self.rare = np.repeat(clicks.field_offsets, clicks.field_sizes) + RARE  # of each id's field

    def hiding(self, ads: Ints, *, keep: float = 1.0) -> "TitleTokens":
        """The same with these ads hidden; of each title about the share ``keep`` of its tokens."""
        other = copy.copy(self)
        other.hidden, other.keep = np.isin(np.arange(len(self.hidden)), ads), keep
        return other

    def as_if_new(self, ids: Ints, ads: Ints) -> Ints:
        """What rows would hold, had their ads not been in training.  (B, F), (B,) -> (B, F)

        Not the ad alone would be unknown: so would be a campaign that no other ad belongs to.
        """
        pairs = ids.astype(np.int64) * len(self.hidden) + ads[:, None]
        place = np.searchsorted(self.pairs, pairs).clip(max=len(self.pairs) - 1)
        own = np.where(self.pairs[place] == pairs, self.pair_rows[place], 0)
        rare = self.rare[ids]
        return np.where((self.id_rows[ids] - own >= LEAST) | (ids < rare), ids, rare)

    def add(self, batch: dict[str, Tensor], rows: Ints) -> dict[str, Tensor]:
        """The batch with ``title``, ``title_mask`` and ``doubt`` of its rows."""
        ads, place = self.texts.ads[rows], batch["categorical"].device
        said = [self.tokens[ad] for ad in ads]
        if self.keep < 1:  # drawn from the rows, so that a resumed run draws the same
            rng = np.random.default_rng(np.asarray(rows, np.uint32))
            rates = 1 - 2 * (1 - self.keep) * rng.random(len(said))
            said = [t[rng.random(len(t)) < rate] for t, rate in zip(said, rates, strict=True)]
        ids, mask = pad_rows(said, self.pad_id)
        new = self.hidden[ads]
        doubt = np.where(new, 1.0, self.texts.doubt[ads]).astype(np.float32)
        found = {"title": ids, "title_mask": mask, "doubt": torch.from_numpy(doubt)}
        if new.any():
            shown = batch["categorical"].cpu().numpy().copy()
            shown[new] = self.as_if_new(shown[new], ads[new])
            found["categorical"] = torch.from_numpy(shown)
        return batch | {name: part.to(place) for name, part in found.items()}


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
