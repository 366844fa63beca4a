"""Train one sequence model on Histories and rank the whole catalogue with it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from lib.data.files import read_json, write_atomic, write_json
from lib.data.histories import Histories, Targets
from lib.evaluate import ranking
from lib.models.item_inputs import Kind, build_item_input
from lib.models.neighbours import Scorer
from lib.models.precision import widen
from lib.models.sasrec import (
    Criterion,
    SASRec,
    SASRecConfig,
    encode_users,
    next_item_loss,
)
from lib.studies.mixing import Asked, mix
from lib.train.loop import Result, train
from lib.train.losses import full_softmax
from lib.train.plan import Plan
from lib.train.sources import TensorSource

__all__ = ["Ranked", "Recipe", "rank_split", "run_recipe", "sample_targets", "train_sasrec"]

Split = Literal["train", "valid", "test"]
COST = ("seconds", "targets_per_second", "best_epoch", "valid", "parameters")  # of a row, in order


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One row of a study: what the items are made of, and what was tuned for that kind."""

    kind: Kind
    learning_rate: float
    dropout: float
    embeddings: NDArray[np.float32] | None = None  # (V + 1, D), row 0 for padding
    adapter: Literal["linear", "mlp"] = "linear"
    tuned: bool = False
    shuffled: bool = False  # the control: every item gets another item's text
    mixed: bool = False  # with item-kNN's probabilities, by a weight chosen on validation


@dataclass(frozen=True)
class Ranked:
    """Ranks of one split, with what segments and paired comparisons need."""

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    ranks: NDArray[np.float64]


def sample_targets(targets: Targets, n: int, *, seed: int) -> Targets:
    """A fixed sample of targets for choosing epochs: the same for every model of a study."""
    if n >= len(targets):
        return targets
    rows = np.sort(np.random.default_rng(seed).choice(len(targets), size=n, replace=False))
    return Targets(targets.users[rows], targets.positions[rows])


def rank_split(
    model: SASRec,
    histories: Histories,
    targets: Targets,
    *,
    filter_seen: bool,
    device: str = "cpu",
) -> Ranked:
    """Rank every target among all items, given the history before it."""
    order, users = encode_targets(model, histories, targets, device=device)
    items = model.item_vectors().float()
    wanted = histories.target_items(targets)
    seen = histories.seen(targets.users[order], targets.positions[order]) if filter_seen else None
    ranks = np.empty(len(order))
    ranks[order] = ranking.rank_targets(users, items, wanted[order], seen)
    return Ranked(targets.users, wanted, ranks)


def encode_targets(
    model: SASRec, histories: Histories, targets: Targets, *, device: str
) -> tuple[NDArray[np.int64], Tensor]:
    """The state before each target, short histories first.  -> order (N,), states (N, D)"""
    ids, lengths = histories.windows(targets.users, targets.positions, model.config.max_len)
    order = np.argsort(lengths, kind="stable")  # equal lengths together: nothing to pad
    states = encode_users(model, to_device(ids[order], device), to_device(lengths[order], device))
    return order, torch.cat(list(states)).float()


def train_sasrec(
    model: SASRec,
    histories: Histories,
    plan: Plan,
    *,
    valid: Targets,
    filter_seen: bool,
    device: str = "cpu",
    scratch: Path | None = None,
    report: Callable[..., None] | None = None,
    logs: Path | None = None,
    loss: Callable[..., Tensor] | None = None,
) -> Result:
    """Train on all positions of all users; epochs are chosen by NDCG@10 on ``valid``.

    ``loss(model, batch)`` replaces the softmax over the whole catalogue.
    """
    inputs, targets, _ = histories.training_sequences(model.config.max_len)
    source = LengthOrdered(inputs, targets, batch=plan.batch or 256, seed=plan.seed, device=device)

    def validate(trained: nn.Module) -> Mapping[str, float]:
        assert isinstance(trained, SASRec)
        ranked = rank_split(trained, histories, valid, filter_seen=filter_seen, device=device)
        return ranking.summarise(ranked.ranks, ks=[10], measures=["hit", "ndcg"])

    return train(
        model.to(device),
        source,
        loss or partial(grouped_next_item_loss, criterion=full_softmax),
        plan=plan,
        validate=validate,
        scratch=scratch,
        report=report,
        logs=logs,
        count=count_targets,
    )


def run_recipe(
    histories: Histories,
    recipe: Recipe,
    config: SASRecConfig,
    plan: Plan,
    *,
    valid: Targets,
    test: Targets,
    filter_seen: bool,
    neighbours: Scorer | None = None,
    device: str = "cpu",
    scratch: Path | None = None,
    report: Callable[..., None] | None = None,
) -> tuple[NDArray[np.float64], dict[str, float]]:
    """Train one row with one seed, then open the test split once.  -> ranks (N,), cost

    A finished row in ``scratch`` is read back and not trained again; a mixed row is made of the
    row it mixes, found in the same ``scratch``.
    """
    done = scratch / "ranks.npy" if scratch is not None else None
    if done is not None and done.exists() and scratch is not None:
        ranks = np.load(done, allow_pickle=False)
        told = cast(dict[str, float], read_json(scratch / "cost.json"))
        cost = {name: told[name] for name in COST}
        vectors = load_file(scratch / "vectors.safetensors")
    else:
        ranks, cost, vectors = _train_recipe(
            histories, recipe, config, plan, valid=valid, test=test, filter_seen=filter_seen,
            device=device, scratch=scratch, report=report,
        )  # fmt: skip
        if done is not None and scratch is not None:
            save_file(vectors, scratch / "vectors.safetensors")
            write_json(scratch / "cost.json", cost)
            write_atomic(done, lambda file: np.save(file, ranks))
    if not recipe.mixed:
        return ranks, cost
    if neighbours is None:
        raise ValueError("a mixed row needs the scorer of item-kNN, from 13_measure_baselines")
    ranks, weight = mix(
        Asked(valid, vectors["valid"]), Asked(test, vectors["test"]), vectors["items"], histories,
        neighbours, max_len=config.max_len, filter_seen=filter_seen,
    )  # fmt: skip
    return ranks, cost | {"weight of item-kNN": weight}


def _train_recipe(
    histories: Histories, recipe: Recipe, config: SASRecConfig, plan: Plan, *, valid: Targets,
    test: Targets, filter_seen: bool, device: str, scratch: Path | None,
    report: Callable[..., None] | None,
) -> tuple[NDArray[np.float64], dict[str, float], dict[str, NDArray[np.float32]]]:  # fmt: skip
    torch.manual_seed(plan.seed)  # the first weights are part of the seed
    model = SASRec(
        build_item_input(
            recipe.kind,
            n_items=histories.n_items,
            n_dims=config.n_dims,
            embeddings=_text_rows(recipe, plan.seed),
            adapter=recipe.adapter,
            tuned=recipe.tuned,
        ),
        replace(config, dropout=recipe.dropout),
    )
    result = train_sasrec(
        model,
        histories,
        replace(plan, learning_rate=recipe.learning_rate),
        valid=valid,
        filter_seen=filter_seen,
        device=device,
        scratch=scratch,
        report=report,
    )
    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    best = result.best_epoch, result.best_score or 0.0
    cost = dict(zip(COST, (result.seconds, result.terms_per_second, *best, size), strict=True))
    ranks = rank_split(model, histories, test, filter_seen=filter_seen, device=device).ranks
    vectors = {"items": model.item_vectors().float().cpu().numpy()}
    for name, targets in (("valid", valid), ("test", test)):
        order, states = encode_targets(model, histories, targets, device=device)
        vectors[name] = np.empty(tuple(states.shape), dtype=np.float32)
        vectors[name][order] = states.cpu().numpy()
    return ranks, cost, vectors


def _text_rows(recipe: Recipe, seed: int) -> Tensor | None:
    if recipe.embeddings is None:
        return None
    rows = np.array(recipe.embeddings[1:], dtype=np.float32)
    if recipe.shuffled:
        rows = np.random.default_rng(seed).permutation(rows)
    return torch.from_numpy(rows)


class LengthOrdered(TensorSource):
    """Random batches, each cut to its longest sequence."""

    def __init__(
        self,
        inputs: NDArray[np.int32],
        targets: NDArray[np.int32],
        *,
        batch: int,
        seed: int,
        device: str,
    ) -> None:
        super().__init__(
            {"inputs": inputs, "targets": targets}, batch=batch, seed=seed, device=device
        )

    def take(self, rows: Tensor) -> dict[str, Tensor]:
        arrays = super().take(rows)
        width = int((arrays["inputs"] > 0).sum(dim=1).max())
        return {name: array[:, :width].long() for name, array in arrays.items()}


def grouped_next_item_loss(
    model: nn.Module, batch: Mapping[str, Tensor], *, criterion: Criterion
) -> Tensor:
    """``next_item_loss``, with sequences of like length read together on a CPU.

    Half of a shop's histories are a tenth as long as the longest; padded to it they cost as much.
    """
    assert isinstance(model, SASRec)
    if batch["inputs"].device.type != "cpu":
        return next_item_loss(model, batch, criterion=criterion)
    table = model.items()
    states, targets = [], []
    for rows, width in like_lengths((batch["inputs"] > 0).sum(dim=1)):
        wanted = batch["targets"][rows, :width]
        states.append(model(batch["inputs"][rows, :width], table)[wanted > 0])
        targets.append(wanted[wanted > 0])
    hidden, items = model.logits_parts(torch.cat(states), table)
    return criterion(widen(hidden), widen(items[1:]), torch.cat(targets).long() - 1)


def like_lengths(lengths: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Rows whose lengths differ less than twofold, and the longest of them; none is empty.

    >>> [(rows.tolist(), width) for rows, width in like_lengths(torch.tensor([3, 40, 9, 2]))]
    [([0, 3], 3), ([2], 9), ([1], 40)]
    """
    doublings = torch.log2(lengths.clamp(min=2).float()).floor()
    for doubling in doublings.unique().tolist():
        rows = (doublings == doubling).nonzero().flatten()
        yield rows, int(lengths[rows].max())


def count_targets(batch: Mapping[str, Tensor]) -> Tensor:
    """Over how many positions the loss of a batch is a mean."""
    return (batch["targets"] > 0).sum()


def to_device(array: NDArray[np.int32], device: str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
