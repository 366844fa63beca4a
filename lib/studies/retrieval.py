"""Two towers on a click log: find the ads a visitor might click, then let a reranker have the say.

    loss = softmax over the batch's ads, for clicked rows, each ad less log of its expected count
         + weight · cross-entropy of the click logit, for all rows

Every impression of the batch is a candidate for its clicked rows; ads shown often are candidates
often, which the logQ correction takes back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lib.data.clicks import Clicks
from lib.evaluate.gates import Decision, Gate, decide, parse_rule
from lib.models.ladder import build_click_model, sizes_of
from lib.models.two_tower import TwoTower
from lib.studies.click_view import ReadsClicks, view_clicks
from lib.studies.clicks import BLOCK, ClickSource
from lib.studies.climb import Recipe, resolve_fields
from lib.studies.crossfit import Folds, Protocol, cross_validate
from lib.studies.rungs import Rung
from lib.train import losses

__all__ = ["Catalogue", "ask_both", "ask_recall", "list_catalogue", "rank_columns", "recall_hits",
           "train_towers"]  # fmt: skip

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
ROWS_AT_ONCE = 200_000


@dataclass(frozen=True)
class Catalogue:
    """Distinct ads of the training rows: ids of their fields, and how often each was shown."""

    columns: tuple[int, ...]
    ids: npt.NDArray[np.int32]  # (V, I)
    shown: Ints  # (V,)

    def places(self, ids: npt.NDArray[np.int32]) -> Ints:
        """Place of each ad in the catalogue; V where it is unknown.  (B, I) -> (B,)"""
        known = {tuple(row): place for place, row in enumerate(self.ids.tolist())}
        found, inverse = np.unique(ids, axis=0, return_inverse=True)
        place = np.array([known.get(tuple(row), len(known)) for row in found.tolist()], np.int64)
        return place[inverse.reshape(-1)]


def list_catalogue(clicks: ReadsClicks, fields: tuple[str, ...]) -> Catalogue:
    """Every combination of the ad's fields among training rows."""
    names = list(clicks.layout.fields)
    missing = [name for name in fields if name not in names]
    if missing:
        raise ValueError(f"item fields {missing} are no fields of this dataset: {names}")
    columns = tuple(names.index(name) for name in fields)
    train = clicks.rows("train")
    parts = [
        clicks.take(train[first : first + ROWS_AT_ONCE], max_len=1).categorical[:, columns]
        for first in range(0, len(train), ROWS_AT_ONCE)
    ]
    ids, shown = np.unique(np.concatenate(parts), axis=0, return_counts=True)
    return Catalogue(columns, ids.astype(np.int32), shown)


class TowerLoss:
    """The loss above; an ad is expected in a batch as often as its share of showings says.

    An object, because a function within a function cannot be sent to other processes.
    """

    def __init__(self, catalogue: Catalogue, *, click_weight: float) -> None:
        self.ids = torch.from_numpy(catalogue.ids)
        self.share = torch.from_numpy(catalogue.shown / catalogue.shown.sum())
        self.click_weight = click_weight
        self.sorted: tuple[Tensor, Tensor] | None = None  # keys of the ads, and their shares

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        towers = cast(TwoTower, model)
        both, clicked = towers.towers(batch), batch["label"] > 0
        if self.sorted is None:
            keys, order = towers.item_keys(self.ids.to(both.item_keys.device)).sort()
            self.sorted = keys, self.share.to(keys.device)[order]
        keys, share = self.sorted
        place = torch.searchsorted(keys, both.item_keys).clamp(max=len(share) - 1)
        temperature = towers.config.temperature
        found = losses.sampled_softmax(
            both.users[clicked] / temperature, both.items[clicked], both.items,
            targets=both.item_keys[clicked], negative_ids=both.item_keys,
            expected=len(clicked) * share[place].float(),
        )  # fmt: skip
        logits = (both.users * both.items).sum(dim=1) / temperature + towers.bias
        plain = losses.binary_cross_entropy(logits, batch["label"].float())
        return {"softmax": found, "click": self.click_weight * plain}


@torch.no_grad()
def own_ranks(
    model: TwoTower, clicks: ReadsClicks, rows: Ints, catalogue: Catalogue, *, max_len: int,
    device: str,
) -> Floats:  # fmt: skip
    """Rank of each row's own ad among the catalogue for its visitor; V + 1 where unknown.  -> (N,)

    Equal scores share the mean rank.
    """
    if not len(rows):
        return np.zeros(0)
    model.eval()
    items = model.encode_items(torch.from_numpy(catalogue.ids).to(device))
    source = ClickSource(
        clicks, rows, batch=BLOCK, seed=0, max_len=max_len, shuffle=False, device=device
    )
    parts = []
    for batch in source.batches(0):
        scores = model.towers(batch).users @ items.T  # (B, V)
        ids = batch["categorical"][:, list(catalogue.columns)].cpu().numpy()
        place = torch.from_numpy(catalogue.places(ids)).to(device)
        own = scores.gather(1, place.clamp(max=scores.shape[1] - 1)[:, None])
        above, equal = (scores > own).sum(1), (scores == own).sum(1)
        rank = above + (equal + 1) / 2
        parts.append(torch.where(place < scores.shape[1], rank, scores.shape[1] + 1.0).cpu())
    return torch.cat(parts).double().numpy()


def train_towers(
    recipe: Recipe,
    clicks: Clicks,
    catalogue_fields: tuple[str, ...],
    protocol: Protocol,
    *,
    click_weight: float,
    **where: Any,
) -> tuple[Folds, Catalogue]:
    """Cross-validate the towers; ``columns["rank"]`` holds the rank of each row's own ad."""
    view = view_clicks(clicks, recipe.view)
    catalogue = list_catalogue(view, catalogue_fields)
    sizes = sizes_of(view.layout, max_len=recipe.max_len)
    parameters = {**recipe.model, "item_fields": list(catalogue_fields)}
    parameters = resolve_fields(parameters, view.layout.fields)
    device = where.get("device", "cpu")

    def rank(model: nn.Module, rows: Ints) -> Floats:
        found = cast(TwoTower, model)
        return own_ranks(found, view, rows, catalogue, max_len=recipe.max_len, device=device)

    folds = cross_validate(
        lambda: build_click_model("two_tower", sizes, parameters),
        view, protocol, recipe.plan, recipe.loss, max_len=recipe.max_len,
        objective=TowerLoss(catalogue, click_weight=click_weight), outputs={"rank": rank}, **where,
    )  # fmt: skip
    return folds, catalogue


def recall_hits(
    folds: Folds, clicks: Clicks, catalogue: Catalogue, cuts: list[int]
) -> dict[str, dict[int, npt.NDArray[np.bool_]]]:
    """For each clicked row out of fold: is its ad among the first K?  Of the towers, and of the
    list of ads clicked most often in the other folds."""
    clicked = np.asarray(clicks.label[folds.rows]) > 0
    ids = clicks.take(folds.rows[clicked], max_len=1).categorical[:, catalogue.columns]
    place, fold = catalogue.places(ids), folds.fold[clicked]
    popular = np.empty(len(place))
    for number in np.unique(fold):
        counts = np.bincount(place[fold != number], minlength=len(catalogue.shown) + 1)
        score = counts + catalogue_share(catalogue)  # ads never clicked follow by showings
        above = (score[None, :-1] > score[place[fold == number]][:, None]).sum(axis=1)
        popular[fold == number] = above + 1
    popular[place == len(catalogue.shown)] = np.inf
    ranks = {"two towers": folds.columns["rank"][0][clicked], "most clicked": popular}
    return {name: {cut: rank <= cut for cut in cuts} for name, rank in ranks.items()}


def catalogue_share(catalogue: Catalogue) -> Floats:
    """Share of showings below one half, so that it only breaks ties; 0 for an unknown ad."""
    return np.r_[catalogue.shown / (2 * catalogue.shown.sum()), -1.0]


def rank_columns(folds: Folds, protocol: Protocol, n_rows: int) -> dict[str, Floats]:
    """The towers' logit and log rank of every row, each from models that never saw it."""
    logit, rank = np.zeros(n_rows), np.zeros(n_rows)
    logit[folds.rows], rank[folds.rows] = folds.logits, folds.columns["rank"][0]
    logit[protocol.holdout] = folds.holdout.mean(axis=0)
    rank[protocol.holdout] = folds.columns["rank"][1]
    logit[protocol.test], rank[protocol.test] = folds.test.mean(axis=0), folds.columns["rank"][2]
    return {"tower:logit": logit, "tower:rank": np.log1p(rank)}


def ask_recall(
    rule: str, hits: Mapping[str, Mapping[int, npt.NDArray[np.bool_]]], *, draws: int, seed: int
) -> Decision:
    """Recall of the towers against the most clicked ads, paired over clicked rows."""
    gate = Gate(name="recall", baseline="most clicked", alternatives=parse_rule(rule))
    table = {
        name: {f"recall@{cut}": found.astype(float) for cut, found in each.items()}
        for name, each in hits.items()
    }
    return decide(gate, table["most clicked"], table["two towers"], draws=draws, seed=seed)


def ask_both(recall: Decision, precision: Decision) -> str:
    """Gate E: recall gained that becomes average precision; both or nothing."""
    answers = {recall.answer, precision.answer}
    if answers == {"adopted"}:
        return "adopted"
    return "not adopted" if "not adopted" in answers else "not decidable"


def within_rank(rung: Rung, folds: Folds, most: int) -> dict[str, int]:
    """How many impressions and clicks out of fold the first stage would have let through."""
    kept = folds.columns["rank"][0] <= most
    return {"impressions": int(kept.sum()), "clicks": int((rung.oof.labels[kept] > 0).sum())}
